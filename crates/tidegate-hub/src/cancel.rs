//! Ending all waits of this process at once (DH-097): for programs that are told to stop while threads wait without end.
//!
//! A wait that is cut short ends as if its time were up. Nothing is lost by it, and calls that need not wait go on working.

use tidegate_shm::sync::{AtomicBool, Ordering};

/// Ends all waits of this process for slots and room, those without end among them, and all that begin from now on, within a
/// slice of a wait (10 ms at most). May be called by a signal handler.
pub fn cancel_waits() {
    // Relaxed: orders nothing; whoever waits looks again and again.
    CANCELLED.store(true, Ordering::Relaxed);
}

/// Lets calls wait again.
pub fn allow_waits() {
    CANCELLED.store(false, Ordering::Relaxed);
}

/// Whether waits end at once.
pub fn is_cancelled() -> bool {
    CANCELLED.load(Ordering::Relaxed)
}

static CANCELLED: AtomicBool = AtomicBool::new(false);
