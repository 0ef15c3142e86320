//! A clock that moves when told to, and counts how often it is read.

#![allow(dead_code, reason = "every test binary uses another part")]

use std::sync::Arc;

use tidegate_shm::clock::Nanos;
use tidegate_shm::sync::{AtomicU64, Ordering};
use tidegate_tensor::clock::Clock;

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct TestClock {
    now: AtomicU64,
    pub reads: AtomicU64,
}

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { now: AtomicU64::new(1_000_000_000_000), reads: AtomicU64::new(0) })
    }

    pub(crate) fn advance(&self, milliseconds: u64) {
        self.now.fetch_add(milliseconds * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn monotonic(&self) -> Nanos {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Nanos(self.now.load(Ordering::SeqCst))
    }

    fn realtime(&self) -> Nanos {
        Nanos(self.now.load(Ordering::SeqCst) + 1_700_000_000_000_000_000)
    }
}
