//! Handing things from the conductor's thread to an endpoint's thread.
//!
//! The endpoint tests one word per call; only when something new was put does it take the lock.

use std::sync::{Mutex, PoisonError};

use tidegate_shm::sync::{AtomicU64, Ordering};

/// The latest value put, for one taker.
#[derive(Debug)]
pub(super) struct Handoff<T> {
    generation: AtomicU64,
    slot: Mutex<Option<T>>,
}

impl<T> Default for Handoff<T> {
    fn default() -> Self {
        Self { generation: AtomicU64::new(0), slot: Mutex::new(None) }
    }
}

impl<T> Handoff<T> {
    /// Replaces whatever was not taken yet. `None` takes the value away.
    pub(super) fn put(&self, value: Option<T>) {
        // A panic while the lock was held cannot leave an `Option` half written.
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = value;
        // Release: pairs with the Acquire in `take_if_newer`; who sees the number finds the value.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The new state if there was a `put` since the generation in `seen`: `Some(None)` when the value was taken away.
    pub(super) fn take_if_newer(&self, seen: &mut u64) -> Option<Option<T>> {
        // Acquire: pairs with the Release in `put`.
        let generation = self.generation.load(Ordering::Acquire);
        if generation == *seen {
            return None;
        }
        *seen = generation;
        Some(self.slot.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}
