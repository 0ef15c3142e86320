//! How often something may be said that somebody else has to read.

use tidegate_shm::clock::Nanos;

/// Lets so many through at once, and one more after each interval.
#[derive(Debug)]
pub struct Pace {
    room: u64,
    burst: u64,
    interval: Nanos,
    since: Nanos,
}

impl Pace {
    /// With all of its room.
    pub fn new(burst: u64, interval: Nanos, now: Nanos) -> Self {
        Self { room: burst, burst, interval, since: now }
    }

    /// Whether one more may go now.
    pub fn take(&mut self, now: Nanos) -> bool {
        let gained = now.saturating_sub(self.since).0 / self.interval.0.max(1);
        if gained > 0 {
            self.room = self.room.saturating_add(gained).min(self.burst);
            self.since = now;
        }
        let goes = self.room > 0;
        self.room -= u64::from(goes);
        goes
    }

    /// When the next one may go.
    pub fn next(&self, now: Nanos) -> Nanos {
        if self.room > 0 { now } else { self.since.saturating_add(self.interval) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_burst_one_goes_in_each_interval() {
        let ms = Nanos::from_millis;
        let mut pace = Pace::new(3, ms(10), ms(100));
        assert!((0..3).all(|_| pace.take(ms(101))));
        assert!(!pace.take(ms(109)));
        assert_eq!(pace.next(ms(109)), ms(110));
        assert!(pace.take(ms(110)) && !pace.take(ms(110)));
        // It does not save up more than the burst.
        assert!((0..3).all(|_| pace.take(ms(100_000))));
        assert!(!pace.take(ms(100_000)));
    }
}
