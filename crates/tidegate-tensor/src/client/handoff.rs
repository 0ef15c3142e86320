//! Handing things from the conductor's thread to an endpoint's thread.
//!
//! The endpoint tests one word per call; only when something new was put does it take the lock.
//!
//! Invariant: value and generation change together under the lock, so that a taker never files a value under the
//! generation of another one. It would take the missing "new" one for a value that was taken away.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_shm::sync::{AtomicU64, Ordering};

/// The latest value put, for one taker.
#[derive(Debug)]
pub(super) struct Handoff<T> {
    /// Copy of [`Slot::generation`] that can be read without the lock.
    newest: AtomicU64,
    slot: Mutex<Slot<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u64,
    value: Option<T>,
}

impl<T> Default for Handoff<T> {
    fn default() -> Self {
        Self { newest: AtomicU64::new(0), slot: Mutex::new(Slot { generation: 0, value: None }) }
    }
}

impl<T> Handoff<T> {
    /// Replaces whatever was not taken yet. `None` takes the value away.
    pub(super) fn put(&self, value: Option<T>) {
        let mut slot = self.lock();
        let unused = std::mem::replace(&mut slot.value, value);
        slot.generation += 1;
        // Release: pairs with the Acquire in `take_if_newer`, though the lock alone orders the value.
        self.newest.store(slot.generation, Ordering::Release);
        drop(slot);
        // Dropping a mapping is a system call; the taker must not wait for it.
        drop(unused);
    }

    /// The new state if there was a `put` since the generation in `seen`: `Some(None)` when the value was taken away.
    #[inline]
    pub(super) fn take_if_newer(&self, seen: &mut u64) -> Option<Option<T>> {
        // Acquire: pairs with the Release in `put`.
        if self.newest.load(Ordering::Acquire) == *seen {
            return None;
        }
        let mut slot = self.lock();
        *seen = slot.generation;
        Some(slot.value.take())
    }

    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        // Nothing panics while the lock is held, and the slot is whole after every statement.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_taker_sees_each_change_once() {
        let handoff = Handoff::default();
        let mut seen = 0;
        assert_eq!(handoff.take_if_newer(&mut seen), None);
        handoff.put(Some(1));
        handoff.put(Some(2));
        assert_eq!(handoff.take_if_newer(&mut seen), Some(Some(2)));
        assert_eq!(handoff.take_if_newer(&mut seen), None);
        handoff.put(None);
        assert_eq!(handoff.take_if_newer(&mut seen), Some(None));
    }

    /// A remap is a `put(None)` and a `put(Some)` in quick succession. A taker that comes in between must not end up with
    /// nothing.
    #[test]
    fn a_taker_between_two_puts_ends_with_the_second() {
        const ROUNDS: u64 = 5_000;
        let handoff = Arc::new(Handoff::default());
        let taken = Arc::new(AtomicU64::new(0));
        let (source, answer) = (Arc::clone(&handoff), Arc::clone(&taken));
        let deadline = Instant::now() + Duration::from_secs(60);
        let putter = thread::spawn(move || {
            for round in 1..=ROUNDS {
                source.put(None);
                source.put(Some(round));
                while answer.load(Ordering::Acquire) != round {
                    if Instant::now() > deadline {
                        return;
                    }
                    thread::yield_now();
                }
            }
        });
        let (mut seen, mut held) = (0, None);
        while held != Some(ROUNDS) {
            match handoff.take_if_newer(&mut seen) {
                Some(value) => {
                    held = value;
                    taken.store(held.unwrap_or(0), Ordering::Release);
                }
                // With fewer processors than threads the other one needs this one's.
                None => thread::yield_now(),
            }
            assert!(Instant::now() < deadline, "the taker holds {held:?} and is told of nothing newer");
        }
        putter.join().unwrap();
    }
}
