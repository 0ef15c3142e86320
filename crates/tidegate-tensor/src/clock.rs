//! Time as the duty cycles see it, so that tests can set it.

use tidegate_shm::clock::{self, Nanos};

/// Source of both clocks. Liveness uses the monotonic one (TP-025).
pub trait Clock: Send + Sync {
    /// CLOCK_MONOTONIC.
    fn monotonic(&self) -> Nanos;

    /// CLOCK_REALTIME, only for announces that declare it (TP-138).
    fn realtime(&self) -> Nanos;
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic(&self) -> Nanos {
        clock::monotonic_now()
    }

    fn realtime(&self) -> Nanos {
        clock::realtime_now()
    }
}
