//! What the threads of the lanes tell the thread that runs the vertex.
//!
//! Bounded by construction: a lane says when it is attached and when it ended, and answers each batch once, and no more
//! batches are on their way than the window allows. So telling never waits (VX-313).

use std::collections::VecDeque;

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{Condvar, Mutex, MutexGuard},
};

/// Events in the order in which they were told.
#[derive(Debug)]
pub(crate) struct Inbox<E> {
    events: Mutex<VecDeque<E>>,
    told: Condvar,
}

impl<E> Inbox<E> {
    /// Nothing told yet.
    pub(crate) fn new() -> Self {
        Self { events: Mutex::new(VecDeque::new()), told: Condvar::new() }
    }

    /// Adds an event and wakes who waits.
    pub(crate) fn tell(&self, event: E) {
        self.lock().push_back(event);
        self.told.notify_one();
    }

    /// Takes the next event without waiting.
    pub(crate) fn take(&self) -> Option<E> {
        self.lock().pop_front()
    }

    /// Sleeps until an event is there or the deadline passes.
    pub(crate) fn wait_until(&self, deadline: Nanos) {
        let mut events = self.lock();
        while events.is_empty() {
            let left = deadline.saturating_sub(monotonic_now());
            if left == Nanos::ZERO {
                return;
            }
            events = match self.told.wait_timeout(events, left.into()) {
                Ok((events, _)) => events,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// The queue is whole at every moment, whoever panicked with the lock.
    fn lock(&self) -> MutexGuard<'_, VecDeque<E>> {
        self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
