//! Many sockets in one thread.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::cli::mq::life::Unpark;
use crate::output::Stop;

/// Messages of a socket before the next one has its turn.
pub(super) const BURST: usize = 64;

/// Drives all futures until the first of them is done.
pub(super) fn drive<F: Future<Output = Result<(), Stop>>>(
    futures: impl Iterator<Item = F>,
) -> Result<(), Stop> {
    let mut all: FuturesUnordered<F> = futures.collect();
    let mut next = pin!(all.next());
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match next.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(done) => return done.unwrap_or(Ok(())),
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Lets others have a turn.
pub(super) async fn step_back() {
    let mut stepped = false;
    std::future::poll_fn(|task| {
        if std::mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
