//! The read pump: one task for each stream, for as long as it lives (MQ-032).
//!
//! An idle stream waits in one receive operation with a buffer of [`SMALL`] bytes (MQ-020). When that comes back full
//! there is more: it is read without waiting, page by page, until the socket is empty. What is too large for pages is
//! read into a buffer of the protocol's own. No operation is ever dropped under way: the end of a stream is brought
//! about by shutting the socket down, which completes them (MQ-036).

use std::{future::poll_fn, io, rc::Rc, task::Poll};

use bytes::BytesMut;
use compio::{
    BufResult,
    buf::{IntoInner, IoBuf},
    driver::{
        PollFirst,
        op::{Recv, RecvFlags},
    },
    io::AsyncRead,
    runtime::fd::AsyncFd,
};
use rustix::{io::Errno, net};

use super::{
    conn::{Conn, Reading},
    worker::Worker,
};

/// Size of the buffer with which an idle stream waits.
const SMALL: usize = 512;
/// Bytes after which a stream gives way to the others of its worker: about a thousand small messages (MQ-072).
const TURN: usize = 64 * 1024;
/// The same where they are of a large frame (MQ-072).
const LARGE_TURN: usize = 128 * 1024;
/// A read of at least this much took so long to digest that looking once more before waiting is worth it.
const BUSY: usize = 8 * 1024;
/// How much is asked for in one read without waiting: at least, and at most.
const ASK_LEAST: usize = 4 * 1024;
const ASK_MOST: usize = 64 * 1024;
/// Room of a page that is worth a read.
const PAGE_LEAST: usize = 8 * 1024;

/// How to read next.
enum Next {
    /// There is nothing: wait with the small buffer.
    Wait,
    /// There may be more: look without waiting.
    Look,
    /// The same, after the others of the worker have had their turn.
    LookLater,
    /// Into the protocol's own buffer.
    Large(BytesMut),
}

/// Reads until the stream ends.
pub(super) async fn pump(worker: Rc<Worker>, conn: Rc<Conn>) {
    let mut small = BytesMut::new();
    let most = conn.read_most();
    let mut ask = ASK_LEAST;
    let mut next = Next::Wait;
    loop {
        if !may_read(&conn).await {
            return;
        }
        let outcome = match next {
            Next::Wait => wait(&worker, &conn, &mut small).await,
            Next::Look | Next::LookLater => burst(&worker, &conn, &mut ask, most),
            Next::Large(buffer) => large(&worker, &conn, buffer).await,
        };
        next = match outcome {
            Ok(next) => next,
            Err(end) => return conn.read_ended(&worker, end),
        };
        conn.pump_answer(&worker);
        if let Next::LookLater = next {
            yield_now().await;
        }
    }
}

/// Waits until the protocol wants bytes; returns whether there still is a stream.
async fn may_read(conn: &Conn) -> bool {
    poll_fn(|cx| match conn.reading() {
        Reading::Deliver | Reading::Discard => Poll::Ready(true),
        Reading::Stop => Poll::Ready(false),
        Reading::Wait => {
            conn.state.borrow_mut().reader = Some(cx.waker().clone());
            Poll::Pending
        }
    })
    .await
}

/// Why reading is over: the end of the stream, or an error.
type End = io::Result<()>;

/// Waits for bytes with the small buffer.
async fn wait(worker: &Rc<Worker>, conn: &Rc<Conn>, small: &mut BytesMut) -> Result<Next, End> {
    let mut buffer = std::mem::take(small);
    // Takes the old memory again when the protocol has let go of what was in it.
    buffer.reserve(SMALL);
    // Safe code cannot extend a buffer by what an operation has written behind its end.
    buffer.resize(SMALL, 0);
    let mut operation = Recv::new(conn.clone(), buffer, RecvFlags::empty());
    // It was found empty before: io_uring need not try.
    operation.poll_first();
    let BufResult(outcome, operation) = worker.submit(operation).await;
    let mut buffer = operation.into_inner();
    worker.refresh_now();
    match outcome {
        Ok(0) => Err(Ok(())),
        Ok(count) => {
            conn.heard(worker, count);
            let bytes = buffer.split_to(count.min(buffer.len()));
            buffer.clear();
            *small = buffer;
            let more = if count >= SMALL { Next::Look } else { Next::Wait };
            // The protocol may have paused while the operation was under way.
            if !may_read(conn).await {
                return Ok(Next::Wait);
            }
            Ok(deliver(worker, conn, bytes).unwrap_or(more))
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Next::Wait),
        Err(error) => Err(Err(error)),
    }
}

/// Reads what is there without waiting.
fn burst(worker: &Rc<Worker>, conn: &Rc<Conn>, ask: &mut usize, most: usize) -> Result<Next, End> {
    let mut turn = 0;
    while turn < TURN {
        if !matches!(conn.reading(), Reading::Deliver | Reading::Discard) {
            return Ok(Next::Wait);
        }
        let mut page = worker.pool.page(PAGE_LEAST);
        // Safe code can only read into bytes that are set; `ask` keeps that to about what is read.
        let asked = page.capacity().min(*ask).min(most);
        page.resize(asked, 0);
        let outcome = net::recv(&conn.fd, &mut page[..], net::RecvFlags::DONTWAIT);
        let count = outcome.map_or(0, |(_, count)| count);
        let bytes = page.split_to(count);
        worker.pool.give_back(page);
        match outcome {
            Ok((_, 0)) => return Err(Ok(())),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Ok(Next::Wait),
            Err(error) => return Err(Err(error.into())),
        }
        worker.refresh_now();
        conn.heard(worker, count);
        turn += count;
        if let Some(large) = deliver(worker, conn, bytes) {
            return Ok(large);
        }
        // Answers to what was read do not pile up until all is.
        conn.pump_answer(worker);
        *ask = if count == asked { ASK_MOST.min(asked * 4) } else { (count * 2).clamp(ASK_LEAST, ASK_MOST) };
        if count < asked && count < BUSY {
            return Ok(Next::Wait);
        }
    }
    Ok(Next::LookLater)
}

/// Waits for bytes of a large frame, in the protocol's own buffer. What follows the frame in the stream may be there
/// already.
async fn large(worker: &Rc<Worker>, conn: &Rc<Conn>, buffer: BytesMut) -> Result<Next, End> {
    let had = buffer.len();
    let most = buffer.capacity().min(had + LARGE_TURN);
    // The one operation that tells the buffer how much it has become longer: by ours, safe code cannot.
    let stream = AsyncFd::new(conn.fd.clone()).map_err(Err)?;
    let BufResult(outcome, buffer) = (&stream).read(buffer.slice(had..most)).await;
    let buffer = buffer.into_inner();
    worker.refresh_now();
    let count = buffer.len() - had;
    conn.heard_large(worker, count);
    // It may have paused meanwhile. What was read is its own, also when it is the last.
    if may_read(conn).await && matches!(conn.reading(), Reading::Deliver) {
        conn.call(worker, |protocol, now| protocol.received_into(buffer, now));
    }
    match outcome {
        Ok(0) => return Err(Ok(())),
        Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(Err(error)),
        _ => {}
    }
    Ok(conn.staging().map_or(Next::Look, Next::Large))
}

/// Hands `bytes` to the protocol, which may want what follows in a buffer of its own. Not while it is paused: what is
/// read then is for nobody.
fn deliver(worker: &Rc<Worker>, conn: &Rc<Conn>, bytes: BytesMut) -> Option<Next> {
    if !matches!(conn.reading(), Reading::Deliver) {
        return None;
    }
    conn.call(worker, |protocol, now| protocol.received(bytes, now));
    conn.staging().map(Next::Large)
}

/// Lets the other tasks of the worker run.
pub(super) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream, sync::Arc, time::Duration};

    use super::*;
    use crate::engine::{
        DriverChoice,
        conn::{NEXT_FRAME, Origin},
        driver,
        fixture::{Taker, unnamed},
        options::StreamOptions,
        worker::Door,
    };

    /// A worker looks for what follows some of a large frame before it sleeps, and not for what follows small ones.
    ///
    /// Rules: MQ-057.
    #[test]
    fn what_follows_a_large_frame_is_looked_for() {
        for choice in [DriverChoice::IoUring, DriverChoice::Polling] {
            let runtime = driver::runtime(choice).unwrap();
            let door = Arc::new(Door::new(runtime.waker()));
            let worker = Worker::new(door.clone(), Arc::new(vec![door]), Duration::from_secs(1000));
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let key = crate::engine::table::Table::new().insert(|_| ());
            let conn = Conn::prepare(
                &worker,
                ours.into(),
                unnamed(),
                &StreamOptions::default(),
                Origin::Dialer(key),
                Box::new(Taker::default()),
            )
            .unwrap();
            theirs.write_all(b"small").unwrap();
            assert!(matches!(burst(&worker, &conn, &mut ASK_LEAST.clone(), usize::MAX), Ok(Next::Wait)));
            assert_eq!(worker.spin.until(), None);
            theirs.write_all(b"some of it").unwrap();
            let read = runtime.block_on(large(&worker, &conn, BytesMut::with_capacity(ASK_MOST)));
            assert!(matches!(read, Ok(Next::Look)));
            assert_eq!(worker.spin.until(), Some(worker.now() + NEXT_FRAME), "{choice:?}");
        }
    }
}
