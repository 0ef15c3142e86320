//! See [`Spin`].

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

/// Looking for more before going to sleep (MQ-057): who comes while a thread looks need not wake it.
///
/// Between two looks the thread gives the processor to whoever else wants it. On a host where others keep it for long that
/// costs more than sleeping, since a thread that is woken is preferred to one that gave way: there it is not looked for a
/// while.
#[derive(Debug)]
pub struct Spin {
    /// Zero is not at all.
    time: Duration,
    until: Cell<Option<Instant>>,
    /// The processor is wanted by others until then, as far as is known.
    busy_until: Cell<Option<Instant>>,
}

/// Longest time that is worth looking for: about what two processes need for a round trip when both fall asleep in it.
pub const DEFAULT_TIME: Duration = Duration::from_micros(200);

/// Who keeps the processor for so many times as long as it is looked at most is no partner in a quick conversation.
const TAKEN: u32 = 5;
/// For how long it is not looked then.
const REST: Duration = Duration::from_secs(1);

impl Spin {
    /// Looks for at most this long.
    pub fn new(time: Duration) -> Self {
        Self { time, until: Cell::new(None), busy_until: Cell::new(None) }
    }

    /// For how long it is looked at most.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// Something is expected soon: looks for it, for at most `time`.
    #[inline]
    pub fn look(&self, now: Instant, time: Duration) {
        if self.busy_until.get().is_some_and(|until| now < until) {
            return;
        }
        self.until.set(self.until.get().max(Some(now + time.min(self.time))));
    }

    /// Whether to look once more instead of sleeping.
    #[inline]
    pub fn goes_on(&self) -> bool {
        self.until.get().is_some() && self.gives_way()
    }

    /// Until when something is looked for.
    #[cfg(not(loom))]
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until.get()
    }

    /// Gives the processor once to whoever else wants it, before looking for what they may have sent. Not where somebody has
    /// kept it for long.
    pub fn give_way(&self) {
        let now = Instant::now();
        if !self.time.is_zero() && self.busy_until.get().is_none_or(|until| now >= until) {
            self.give_way_at(now);
        }
    }

    fn gives_way(&self) -> bool {
        let now = Instant::now();
        if self.until.get().is_none_or(|until| now >= until) {
            self.until.set(None);
            return false;
        }
        self.give_way_at(now);
        true
    }

    fn give_way_at(&self, now: Instant) {
        thread::yield_now();
        self.gave_way_for(now, now.elapsed());
    }

    fn gave_way_for(&self, since: Instant, time: Duration) {
        if time >= self.time.saturating_mul(TAKEN) {
            self.until.set(None);
            self.busy_until.set(Some(since + time + REST));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Rules: MQ-057.
    #[test]
    fn a_thread_looks_for_as_long_as_something_is_expected() {
        let now = Instant::now();
        let spin = Spin::new(Duration::from_secs(1000));
        assert!(!spin.goes_on(), "nothing is expected");
        spin.look(now, Duration::from_secs(2000));
        assert_eq!(spin.until.get(), Some(now + Duration::from_secs(1000)));
        spin.look(now, Duration::from_micros(50));
        assert_eq!(spin.until.get(), Some(now + Duration::from_secs(1000)), "what comes later counts");
        let spin = Spin::new(Duration::from_millis(1));
        spin.look(now, Duration::from_secs(1));
        while spin.goes_on() {}
        assert!(spin.until.get().is_none());
        let off = Spin::new(Duration::ZERO);
        off.look(now, Duration::from_secs(1));
        assert!(!off.goes_on());
    }

    /// Rules: MQ-057.
    #[test]
    fn a_thread_does_not_look_where_others_want_the_processor() {
        let now = Instant::now();
        let spin = Spin::new(DEFAULT_TIME);
        let taken = DEFAULT_TIME * TAKEN;
        spin.look(now, DEFAULT_TIME);
        spin.gave_way_for(now, taken - Duration::from_nanos(1));
        assert!(spin.until.get().is_some(), "that was somebody's turn");
        spin.gave_way_for(now, taken);
        assert!(!spin.goes_on());
        let rested = now + taken + REST;
        spin.look(rested - Duration::from_nanos(1), DEFAULT_TIME);
        assert_eq!(spin.until.get(), None);
        spin.look(rested, DEFAULT_TIME);
        assert_eq!(spin.until.get(), Some(rested + DEFAULT_TIME));
    }
}
