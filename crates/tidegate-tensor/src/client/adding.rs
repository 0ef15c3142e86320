//! The handle of an endpoint that is being added (23.1, "async handle").

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::ClientError;

/// An endpoint on its way: pending, then the endpoint or an error, once.
///
/// Dropping it gives the endpoint up.
#[derive(Debug)]
pub struct Adding<T> {
    state: Arc<Completion<T>>,
}

/// The conductor's side.
#[derive(Debug)]
pub(super) struct Completion<T> {
    inner: Mutex<Inner<T>>,
    done: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    registration: i64,
    outcome: Option<Result<T, ClientError>>,
}

impl<T> Adding<T> {
    pub(super) fn new() -> (Self, Arc<Completion<T>>) {
        let state = Arc::new(Completion {
            inner: Mutex::new(Inner { registration: -1, outcome: None }),
            done: Condvar::new(),
        });
        (Self { state: Arc::clone(&state) }, state)
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
        let deadline = Instant::now() + timeout;
        let mut inner = self.state.lock();
        loop {
            if let Some(outcome) = inner.outcome.take() {
                return outcome;
            }
            let left = deadline.saturating_duration_since(Instant::now());
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
        self.lock().registration = id;
    }

    pub(super) fn complete(&self, outcome: Result<T, ClientError>) {
        self.lock().outcome = Some(outcome);
        self.done.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
