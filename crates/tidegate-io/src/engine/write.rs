//! The write pump: asks the protocol what to write until it has nothing more (MQ-051).
//!
//! As long as the socket takes everything at once this is a plain function. When the socket is full, one operation that
//! owns the bytes waits for room, and the pump goes on when it has completed; what is queued meanwhile goes out
//! together. The pump holds the write side's [token](super::token) from the first byte until there is none left.

use std::{mem, rc::Rc, thread, time::Duration};

use bytes::Bytes;
use compio::{
    BufResult,
    buf::IntoInner,
    driver::op::{SendFlags, SendVectored},
};

use super::{
    conn::{Conn, Phase},
    send,
    worker::Worker,
};
use crate::{batch::WriteBatch, protocol::Flow};

/// Bytes after which a stream gives way to the others of its worker.
const TURN: usize = 512 * 1024;

/// What a call of the kernel counts in a turn at least.
const CALL: usize = 32 * 1024;
/// A batch of fewer bytes that follows another one is an early look at a stream of messages: more would be there for the
/// same call of the kernel if others went first.
const SMALL: usize = 4 * 1024;
/// Time after which what else the worker has to do does not wait any longer.
const LONG: Duration = Duration::from_millis(1);

/// What came of an attempt to write.
enum Step {
    /// A batch is out.
    Wrote(usize),
    /// There is nothing to write.
    Nothing,
    /// The socket is full.
    Full,
    Failed(std::io::Error),
    /// The stream has ended, or is served elsewhere.
    Stop,
}

impl Conn {
    /// Writes what there is to write, unless others are to be served first.
    pub(super) fn pump(self: &Rc<Self>, worker: &Rc<Worker>) {
        if !self.state.borrow().again {
            self.pump_now(worker);
        }
    }

    /// Writes what there is to write.
    pub(super) fn pump_now(self: &Rc<Self>, worker: &Rc<Worker>) {
        let mut state = self.state.borrow_mut();
        let open = matches!(state.phase, Phase::Open | Phase::Flushing);
        if !open || state.pumping || state.writing || !self.shared.token.acquire_pump() {
            return;
        }
        state.pumping = true;
        drop(state);
        let step = self.write_on(worker);
        self.state.borrow_mut().pumping = false;
        match step {
            Step::Nothing => {
                self.shared.token.release_pump();
                self.flushed(worker);
            }
            Step::Wrote(_) => {
                if !mem::replace(&mut self.state.borrow_mut().again, true) {
                    worker.again(self.key);
                }
            }
            Step::Full => {
                self.state.borrow_mut().writing = true;
                worker.spawn(wait_for_room(worker.clone(), self.clone()));
            }
            Step::Failed(error) => self.write_failed(worker, error),
            Step::Stop => {}
        }
    }

    /// The worker has served the others.
    pub(super) fn pump_again(self: &Rc<Self>, worker: &Rc<Worker>) {
        self.state.borrow_mut().again = false;
        self.pump_now(worker);
    }

    /// Writes until something else than a written batch comes of it, or the turn is over.
    fn write_on(self: &Rc<Self>, worker: &Rc<Worker>) -> Step {
        let mut turn = 0;
        let mut is_quick = true;
        loop {
            match self.write_once(worker) {
                Step::Wrote(bytes) if turn + bytes.max(CALL) < TURN => {
                    if turn > 0 && bytes < SMALL && is_quick {
                        if worker.serves_others() {
                            return Step::Wrote(bytes);
                        }
                        // To who sends, or to who reads what was written; not again to one who keeps the processor for long.
                        worker.refresh_now();
                        let before = worker.now();
                        thread::yield_now();
                        worker.refresh_now();
                        is_quick = worker.now().saturating_duration_since(before) < LONG;
                    }
                    turn += bytes.max(CALL);
                }
                other => return other,
            }
        }
    }

    fn write_once(self: &Rc<Self>, worker: &Rc<Worker>) -> Step {
        let mut batch = match self.next_batch(worker) {
            Some(batch) if batch.is_empty() => {
                worker.pool.put_batch(batch);
                return Step::Nothing;
            }
            Some(batch) => batch,
            None => return Step::Stop,
        };
        let before = batch.len();
        self.shared.held().prepare_for(&mut batch);
        let outcome = send::now(&self.fd, &mut batch);
        self.shared.add_sent(before - batch.len());
        let mut state = self.state.borrow_mut();
        if matches!(state.phase, Phase::Ended) {
            return Step::Stop;
        }
        match outcome {
            Ok(true) => {
                state.batch = Some(batch);
                Step::Wrote(before)
            }
            Ok(false) => {
                state.batch = Some(batch);
                Step::Full
            }
            Err(error) => Step::Failed(error),
        }
    }

    /// The batch to write next: what is left of the last one, then what a sender has left, then what the protocol has.
    fn next_batch(self: &Rc<Self>, worker: &Rc<Worker>) -> Option<WriteBatch> {
        let mut batch = self.state.borrow_mut().batch.take().unwrap_or_else(|| worker.pool.batch());
        if !batch.is_empty() {
            return Some(batch);
        }
        if let Some(rest) = self.shared.held().rest.take() {
            worker.pool.put_batch(batch);
            return Some(rest);
        }
        let flow = self.ask(worker, |protocol, now| protocol.fill(&mut batch, now));
        if flow == Flow::Continue {
            return Some(batch);
        }
        // What the protocol says about closing holds after this batch.
        self.apply(worker, flow);
        let ended = matches!(self.state.borrow().phase, Phase::Ended);
        (!ended).then_some(batch)
    }

    /// Copies of the next segments, which share their bytes, for an operation to own.
    fn segments(&self, worker: &Worker) -> Option<Vec<Bytes>> {
        let mut state = self.state.borrow_mut();
        let batch = state.batch.as_mut()?;
        let mut segments = worker.pool.segments();
        segments.extend(batch.segments().iter().take(WriteBatch::MAX_SEGMENTS).cloned());
        Some(segments)
    }
}

/// Waits until the socket has taken the rest of the batch (MQ-034), then lets the pump go on.
async fn wait_for_room(worker: Rc<Worker>, conn: Rc<Conn>) {
    while let Some(segments) = conn.segments(&worker) {
        let operation = SendVectored::new(conn.fd.clone(), segments, SendFlags::NOSIGNAL);
        let BufResult(outcome, operation) = worker.submit(operation).await;
        worker.pool.put_segments(operation.into_inner());
        worker.refresh_now();
        let mut state = conn.state.borrow_mut();
        let (Ok(written), Some(batch)) = (&outcome, state.batch.as_mut()) else {
            state.writing = false;
            let ended = state.batch.is_none();
            drop(state);
            if let (Err(error), false) = (outcome, ended) {
                conn.write_failed(&worker, error);
            }
            return;
        };
        batch.advance(*written);
        conn.shared.add_sent(*written);
        if batch.is_empty() {
            state.writing = false;
            drop(state);
            return conn.pump(&worker);
        }
    }
    conn.state.borrow_mut().writing = false;
}
