//! The handle of an endpoint that is being added (23.1, "async handle").

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::ClientError;

/// An endpoint on its way: pending, then the endpoint or an error, once.
///
/// Dropping it gives the endpoint up.
#[derive(Debug)]
pub struct Adding<T> {
    state: Arc<State<T>>,
}

/// The conductor's side. Dropped without an outcome it says that the client is closed.
#[derive(Debug)]
pub(super) struct Completion<T> {
    state: Arc<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    inner: Mutex<Inner<T>>,
    done: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    registration: i64,
    completed: bool,
    outcome: Option<Result<T, ClientError>>,
}

impl<T> Adding<T> {
    pub(super) fn new() -> (Self, Completion<T>) {
        let state = Arc::new(State {
            inner: Mutex::new(Inner { registration: -1, completed: false, outcome: None }),
            done: Condvar::new(),
        });
        (Self { state: Arc::clone(&state) }, Completion { state })
    }

    /// The endpoint if it is there. In invoker mode, call it between duty cycles.
    ///
    /// # Errors
    /// Why it could not be added. Reported once; afterwards the handle stays pending.
    pub fn poll(&mut self) -> Result<Option<T>, ClientError> {
        self.state.lock().outcome.take().transpose()
    }

    /// Waits for the endpoint; for clients whose duty cycle runs on a thread of its own. Giving up drops the request.
    ///
    /// # Errors
    /// Why it could not be added, or [`ClientError::TimedOut`].
    pub fn wait(self, timeout: Duration) -> Result<T, ClientError> {
        // A deadline beyond what the clock can express is none.
        let deadline = Instant::now().checked_add(timeout);
        let mut inner = self.state.lock();
        loop {
            if let Some(outcome) = inner.outcome.take() {
                return outcome;
            }
            let left =
                deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(ClientError::TimedOut { after: timeout });
            }
            inner = self.state.done.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The number the conductor gave the endpoint; -1 until it has seen the request.
    #[must_use]
    pub fn registration_id(&self) -> i64 {
        self.state.lock().registration
    }
}

impl<T> Completion<T> {
    pub(super) fn register(&self, id: i64) {
        self.state.lock().registration = id;
    }

    /// Whether nobody waits any more.
    pub(super) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.state) == 1
    }

    pub(super) fn complete(self, outcome: Result<T, ClientError>) {
        self.state.complete(outcome);
    }
}

impl<T> Drop for Completion<T> {
    fn drop(&mut self) {
        self.state.complete(Err(ClientError::Closed));
    }
}

impl<T> State<T> {
    /// Only the first outcome counts.
    fn complete(&self, outcome: Result<T, ClientError>) {
        let mut inner = self.lock();
        if !inner.completed {
            inner.completed = true;
            inner.outcome = Some(outcome);
        }
        drop(inner);
        self.done.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Nothing panics while the lock is held, and the state is whole after every statement.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_handed_over_once() {
        let (mut adding, completion) = Adding::new();
        assert_eq!(adding.registration_id(), -1);
        completion.register(7);
        assert_eq!(adding.registration_id(), 7);
        assert!(matches!(adding.poll(), Ok(None)));
        completion.complete(Ok("endpoint"));
        assert!(matches!(adding.poll(), Ok(Some("endpoint"))));
        assert!(matches!(adding.poll(), Ok(None)));
    }

    #[test]
    fn a_request_that_nobody_will_answer_ends_as_closed() {
        let (adding, completion) = Adding::<()>::new();
        drop(completion);
        assert!(matches!(adding.wait(Duration::from_secs(60)), Err(ClientError::Closed)));
    }

    #[test]
    fn waiting_has_a_deadline_and_giving_up_shows() {
        let (adding, completion) = Adding::<()>::new();
        assert!(!completion.is_abandoned());
        let outcome = adding.wait(Duration::from_millis(1));
        assert!(matches!(outcome, Err(ClientError::TimedOut { .. })), "{outcome:?}");
        assert!(completion.is_abandoned());
    }
}
