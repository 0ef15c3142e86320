//! Authenticators that take their time on a thread.

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    thread,
};

use super::{Authenticator, Decision, DecisionFuture, Peer};

/// An authenticator that may block: it asks a database, say. Each peer is decided about on a thread of its own, so that
/// one slow answer delays neither others nor any traffic (MQ-163, MQ-164).
///
/// A peer whose handshake ends meanwhile does not end its thread. So that peers cannot make any number of threads, those
/// that come when [`MOST`](Self::MOST) are being decided about are told nothing and have to try again
/// ([`Decision::TryLater`]). A function that panics has failed ([`Decision::Failed`]).
pub struct Blocking<F> {
    decide: Arc<F>,
    most: usize,
    under_way: Arc<Mutex<usize>>,
}

impl<F> Blocking<F>
where
    F: Fn(Peer) -> Decision + Send + Sync + 'static,
{
    /// Peers that are decided about at a time, unless told otherwise.
    pub const MOST: usize = 64;

    /// Asks `decide`.
    pub fn new(decide: F) -> Self {
        Self::at_most(Self::MOST, decide)
    }

    /// Asks `decide`, about at most this many peers at a time.
    pub fn at_most(most: usize, decide: F) -> Self {
        Self { decide: Arc::new(decide), most, under_way: Arc::default() }
    }

    /// A place among those who are decided about, if one is free.
    fn enter(&self) -> Option<Place> {
        let mut under_way = lock(&self.under_way);
        if *under_way == self.most {
            return None;
        }
        *under_way += 1;
        Some(Place(self.under_way.clone()))
    }
}

impl<F> Authenticator for Blocking<F>
where
    F: Fn(Peer) -> Decision + Send + Sync + 'static,
{
    fn authenticate(&self, peer: Peer) -> DecisionFuture {
        let Some(place) = self.enter() else {
            return Box::pin(std::future::ready(Decision::TryLater));
        };
        let answer = Arc::<Mutex<Answer>>::default();
        let (asked, decide) = (Asked(answer.clone()), self.decide.clone());
        let thread = thread::Builder::new().name("tidegate-mq-auth".into()).spawn(move || {
            let _place = place;
            let decision = decide(peer);
            asked.answer(decision);
        });
        if thread.is_err() {
            return Box::pin(std::future::ready(Decision::TryLater));
        }
        Box::pin(poll_fn(move |context| {
            let mut answer = lock(&answer);
            if let Some(decision) = answer.decision.take() {
                return Poll::Ready(decision);
            }
            answer.waker = Some(context.waker().clone());
            Poll::Pending
        }))
    }
}

impl<F> fmt::Debug for Blocking<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").field("most", &self.most).finish_non_exhaustive()
    }
}

/// What a thread has decided, or who waits for it.
#[derive(Default)]
struct Answer {
    decision: Option<Decision>,
    waker: Option<Waker>,
}

/// The duty to answer: whoever drops it without doing so has failed.
struct Asked(Arc<Mutex<Answer>>);

impl Asked {
    fn answer(&self, decision: Decision) {
        let waker = {
            let mut answer = lock(&self.0);
            answer.decision = Some(decision);
            answer.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if thread::panicking() {
            self.answer(Decision::Failed);
        }
    }
}

/// One of the peers that are being decided about.
struct Place(Arc<Mutex<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&self.0) -= 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
