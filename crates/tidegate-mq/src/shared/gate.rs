//! The lock of a socket, at which an engine worker is let through.
//!
//! An application that sends without a pause holds the lock most of the time, a few nanoseconds apart. A worker that comes
//! in between finds it taken, falls asleep, and is woken by a call of the kernel at the next unlock, only to find it taken
//! again. Who waits for one exchange between processors instead loses less.

use std::ops::Deref;

use tidegate_io::sync::{AtomicBool, Mutex, MutexGuard, Ordering, lock};

pub(super) struct Gate<T> {
    /// A worker is about to lock. A hint, which guards nothing: Relaxed wherever it is used.
    is_wanted: Apart,
    inner: Mutex<T>,
}

/// On a line of the processor's cache of its own, since it is read with every lock and seldom changes.
#[repr(align(128))]
struct Apart(AtomicBool);

impl Deref for Apart {
    type Target = AtomicBool;

    fn deref(&self) -> &AtomicBool {
        &self.0
    }
}

/// How often to look whether a worker is through: one that was taken off its processor is not waited for.
const LOOKS: u32 = 100;

impl<T> Gate<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { is_wanted: Apart(AtomicBool::new(false)), inner: Mutex::new(inner) }
    }

    /// Locks, after a worker that wants to.
    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        if self.is_wanted.load(Ordering::Relaxed) {
            self.let_through();
        }
        lock(&self.inner)
    }

    /// Locks before those who come again and again.
    pub(super) fn lock_first(&self) -> MutexGuard<'_, T> {
        self.is_wanted.store(true, Ordering::Relaxed);
        let inner = lock(&self.inner);
        self.is_wanted.store(false, Ordering::Relaxed);
        inner
    }

    #[cold]
    fn let_through(&self) {
        for _ in 0..LOOKS {
            std::hint::spin_loop();
            if !self.is_wanted.load(Ordering::Relaxed) {
                return;
            }
        }
        self.is_wanted.store(false, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_worker_that_does_not_come_is_not_waited_for() {
        let gate = Gate::new(1);
        gate.is_wanted.store(true, Ordering::Relaxed);
        assert_eq!(*gate.lock(), 1);
        assert!(!gate.is_wanted.load(Ordering::Relaxed), "the next one does not wait at all");
    }

    #[test]
    fn a_worker_says_that_it_wants_the_lock_until_it_has_it() {
        let gate = Gate::new(1);
        let held = gate.lock();
        std::thread::scope(|scope| {
            let (through, is_through) = mpsc::channel();
            let gate = &gate;
            scope.spawn(move || {
                let inner = gate.lock_first();
                through.send(gate.is_wanted.load(Ordering::Relaxed)).unwrap();
                drop(inner);
            });
            while !gate.is_wanted.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            drop(held);
            assert!(!is_through.recv().unwrap());
        });
    }
}
