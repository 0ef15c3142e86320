//! See [`Budget`].

use std::{sync::Arc as StdArc, task::Waker};

use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, lock};

/// Bytes that several owners may hold together (MQ-066).
///
/// The last one to take may exceed the limit, so that no amount is too large. Each owner has a lock of its own, under
/// which it [changes](Self::change) what it holds. Wakers are called by [`wake`](Self::wake), which is for after that
/// lock is released; the lock inside guards only the list of them and is never held while one is called.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
    exhausted: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            held: AtomicUsize::new(0),
            exhausted: AtomicU64::new(0),
            waiting: Mutex::new(Vec::new()),
        }
    }

    /// An owner holds `to` bytes instead of `from`. Returns whether the budget ceased to be used up by this: then
    /// [`wake`](Self::wake) is to be called.
    #[inline]
    #[must_use = "those who wait are to be woken"]
    pub fn change(&self, from: usize, to: usize) -> bool {
        // Relaxed: `wake` and `is_used_up` are ordered by the lock of the list.
        if to >= from {
            let before = self.held.fetch_add(to - from, Ordering::Relaxed);
            if before < self.limit && before.saturating_add(to - from) >= self.limit {
                // Relaxed: a number for people.
                self.exhausted.fetch_add(1, Ordering::Relaxed);
            }
            return false;
        }
        let before = self.held.fetch_sub(from - to, Ordering::Relaxed);
        before >= self.limit && before - (from - to) < self.limit
    }

    /// Whether nothing more may be taken. If so, `waker` is called once when that is over.
    #[inline]
    pub fn is_used_up(&self, waker: &Waker) -> bool {
        if self.held() < self.limit {
            return false;
        }
        let mut waiting = lock(&self.waiting);
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        drop(waiting);
        // Whoever looked into the list before has given back before that, and the lock shows it here.
        self.held() >= self.limit
    }

    /// Calls the wakers.
    pub fn wake(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Bytes that are held.
    #[inline]
    pub fn held(&self) -> usize {
        // Relaxed: see `change`.
        self.held.load(Ordering::Relaxed)
    }

    /// How often it came to be used up.
    pub fn exhausted(&self) -> u64 {
        // Relaxed: a number for people.
        self.exhausted.load(Ordering::Relaxed)
    }
}

/// The part of one owner in a budget, and who is to be called when it may take more.
#[derive(Debug)]
pub struct Share {
    budget: StdArc<Budget>,
    waker: Waker,
}

impl Share {
    /// A part in `budget`; `waker` is called when it was refused something and is not any more.
    pub fn new(budget: StdArc<Budget>, waker: Waker) -> Self {
        Self { budget, waker }
    }

    /// As [`Budget::is_used_up`].
    #[inline]
    pub fn is_used_up(&self) -> bool {
        self.budget.is_used_up(&self.waker)
    }

    /// As [`Budget::change`].
    #[inline]
    #[must_use = "those who wait are to be woken"]
    pub fn change(&self, from: usize, to: usize) -> bool {
        self.budget.change(from, to)
    }

    /// As [`Budget::wake`].
    pub fn wake(&self) {
        self.budget.wake();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        sync::Arc,
        task::{Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Rules: MQ-066.
    #[test]
    fn who_found_it_used_up_is_woken_once_when_that_is_over() {
        let budget = Budget::new(100);
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let woken = || count.0.load(Ordering::Relaxed);
        assert!(!budget.change(0, 99));
        assert!(!budget.is_used_up(&waker), "the last byte is free");
        assert!(!budget.change(99, 5099), "the last one may exceed it");
        assert!(budget.is_used_up(&waker) && budget.is_used_up(&waker));
        assert!(!budget.change(0, 10) && !budget.change(5099, 90), "100 are used");
        budget.wake();
        assert_eq!(woken(), 1, "whoever asks twice is told once");
        assert!(budget.is_used_up(&waker));
        assert!(budget.change(10, 9), "99 are used");
        budget.wake();
        assert_eq!((woken(), budget.held(), budget.exhausted()), (2, 99, 1));
        budget.wake();
        assert_eq!(woken(), 2, "nobody waits");
        assert!(!budget.change(9, 8), "it was free before");
    }
}
