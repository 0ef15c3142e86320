//! Looking for more before going to sleep (MQ-057): who comes while a worker looks need not wake it.
//!
//! A worker looks where it expects more at once: the answer of a peer that answers quickly, or what follows a large frame,
//! whose sender would otherwise have to wake it for each one. Small frames are better read many at once.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use crate::wait::Turns;

/// Longest time that is worth looking for: about what two processes need for a round trip when both fall asleep in it.
pub(super) const DEFAULT_TIME: Duration = Duration::from_micros(200);

/// Time that the next large frame may take: one of 64 KiB needs about half of it on a host's loopback.
const NEXT_FRAME: Duration = Duration::from_micros(50);

/// For how long a worker looks.
#[derive(Debug)]
pub(super) struct Spin {
    /// Zero is not at all.
    time: Duration,
    until: Cell<Option<Instant>>,
}

impl Spin {
    /// Looks for at most this long.
    pub(super) fn new(time: Duration) -> Self {
        Self { time, until: Cell::new(None) }
    }

    /// A peer has spoken; it was told `sent` bytes so far.
    #[inline]
    pub(super) fn heard(&self, turns: &mut Turns, sent: u64, now: Instant) {
        turns.heard(sent, now, self.time);
        if turns.is_expected(now, self.time) {
            self.look_until(now + self.time);
        }
    }

    /// A peer has sent some of a large frame.
    pub(super) fn heard_large(&self, now: Instant) {
        self.look_until(now + NEXT_FRAME.min(self.time));
    }

    fn look_until(&self, until: Instant) {
        self.until.set(self.until.get().max(Some(until)));
    }

    /// Whether to look once more instead of sleeping.
    #[inline]
    pub(super) fn goes_on(&self) -> bool {
        let Some(until) = self.until.get() else { return false };
        let goes_on = Instant::now() < until;
        if !goes_on {
            self.until.set(None);
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: MQ-057.
    #[test]
    fn a_worker_looks_for_as_long_as_an_answer_is_expected() {
        let answered = |time| {
            let spin = Spin::new(time);
            let mut turns = Turns::default();
            let now = Instant::now();
            spin.heard(&mut turns, 1, now);
            assert!(!spin.goes_on(), "said for the first time");
            spin.heard(&mut turns, 2, now);
            spin
        };
        assert!(answered(Duration::from_secs(1000)).goes_on());
        let spin = answered(Duration::from_millis(1));
        while spin.goes_on() {}
        assert!(!answered(Duration::ZERO).goes_on());
    }

    /// Rules: MQ-057.
    #[test]
    fn after_a_large_frame_a_worker_looks_for_the_next_one() {
        let now = Instant::now();
        let spin = Spin::new(Duration::from_secs(1000));
        spin.heard_large(now);
        assert_eq!(spin.until.get(), Some(now + NEXT_FRAME));
        let off = Spin::new(Duration::ZERO);
        off.heard_large(now);
        assert!(!off.goes_on());
    }
}
