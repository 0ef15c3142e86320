//! The event count of 5.9: a sequence to sleep on and a flag that says somebody may sleep.
//!
//! The waker clears the flag, so a sleeper that is killed leaves nothing behind (DS-19); `tidegate_shm::doorbell` counts
//! its waiters and moves its bell at every ring, so only its sleeping half is used here: a futex shared between
//! processes, on pages that may be read-only, with an absolute deadline and polling where there is no futex (DH-077).
//!
//! # Why no wake-up is lost
//!
//! The sleeper reads the sequence, sets the flag, passes a SeqCst fence, looks at its condition and sleeps only while
//! the sequence is as read. The waker changes the condition, passes a SeqCst fence and looks at the flag. One of the
//! two sees the other. If the waker sees the flag it clears it *before* it moves the sequence; a sleeper whose flag
//! was cleared by that has read an older sequence, or sets the flag again (DH-075).

use tidegate_shm::{clock::Nanos, doorbell::BellWord, sync::Ordering};

use super::{
    protocol::{Protocol, fence_if},
    words::{Load, Word},
};

/// Announces that the caller is going to sleep, and returns the sequence to sleep on. The condition must be looked at
/// after this.
pub(super) fn prepare<P: Protocol>(sequence: impl Load<u32>, flag: impl Word<u32>) -> u32 {
    if !P::SEQUENCE_FIRST {
        flag.store(1, Ordering::Release);
    }
    // Acquire: pairs with the addition in `wake`, so the flag set below comes after the one cleared there.
    let seen = sequence.load(Ordering::Acquire);
    if P::SEQUENCE_FIRST {
        // Release: as the sheet has it; the fence below is what orders it.
        flag.store(1, Ordering::Release);
    }
    // Pairs with the fence of `wake`: flag, then condition, against condition, then flag.
    fence_if(P::SLEEP_FENCE);
    seen
}

/// Sleeps while the sequence is `seen`, until `until`. May end early.
pub(super) fn sleep(sequence: impl BellWord, seen: u32, until: Nanos) {
    let _ = sequence.sleep(seen, until);
}

/// Wakes whoever sleeps; to be called after the change. True if a wake call was made.
#[inline]
pub(super) fn wake<P: Protocol, S: Word<u32> + BellWord>(sequence: S, flag: impl Word<u32>) -> bool {
    // Pairs with the fence of `prepare`.
    fence_if(P::WAKE_FENCE);
    // Relaxed: the fence orders it.
    if flag.load(Ordering::Relaxed) == 0 {
        return false;
    }
    // Relaxed: the addition below releases it.
    flag.store(0, Ordering::Relaxed);
    // AcqRel: pairs with the load of `prepare`; the sleeper that reads the new value sees the flag cleared.
    sequence.fetch_add(1, Ordering::AcqRel);
    sequence.wake_all();
    true
}
