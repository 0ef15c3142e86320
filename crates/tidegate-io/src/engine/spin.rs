//! Looking for more before going to sleep (MQ-057): who comes while a worker looks need not wake it.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// For how long a worker looks after it last had something to do.
///
/// The time adapts to what looking is good for: it doubles, up to the most, when something came meanwhile, and halves, down
/// to a sixteenth of the most, when nothing did.
#[derive(Debug)]
pub(super) struct Spin {
    most: Duration,
    time: Cell<Duration>,
    until: Cell<Option<Instant>>,
}

impl Spin {
    /// Looks for at most this long.
    pub(super) fn new(most: Duration) -> Self {
        Self { most, time: Cell::new(most), until: Cell::new(None) }
    }

    /// There was something to do.
    #[inline]
    pub(super) fn worked(&self, now: Instant) {
        if self.most.is_zero() {
            return;
        }
        if self.until.get().is_some() {
            self.time.set(self.most.min(self.time.get() * 2));
        }
        self.until.set(Some(now + self.time.get()));
    }

    /// Whether to look once more instead of sleeping.
    #[inline]
    pub(super) fn goes_on(&self) -> bool {
        let Some(until) = self.until.get() else { return false };
        if Instant::now() < until {
            return true;
        }
        self.until.set(None);
        self.time.set((self.time.get() / 2).max(self.most / 16));
        false
    }
}

/// What is right for this host: nothing where a looking worker would take the processor from those it looks for.
pub(super) fn default_time() -> Duration {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if processors > 2 { Duration::from_micros(20) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: MQ-057.
    #[test]
    fn the_time_adapts_within_its_bounds() {
        let most = Duration::from_millis(160);
        let spin = Spin::new(most);
        assert!(!spin.goes_on(), "nothing to do yet");
        let now = Instant::now();
        let long_ago = now.checked_sub(Duration::from_secs(1)).unwrap();
        for expected in [80, 40, 20, 10, 10] {
            spin.worked(long_ago);
            assert!(!spin.goes_on(), "nothing came in time");
            assert_eq!(spin.time.get(), Duration::from_millis(expected));
        }
        for expected in [10, 20, 40, 80, 160, 160] {
            spin.worked(now + Duration::from_secs(1000));
            assert!(spin.goes_on());
            assert_eq!(spin.time.get(), Duration::from_millis(expected));
        }
        let off = Spin::new(Duration::ZERO);
        off.worked(Instant::now());
        assert!(!off.goes_on());
    }
}
