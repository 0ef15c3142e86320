//! How often something may be said that somebody else has to read.

use tidegate_shm::clock::Nanos;

/// Lets so many through at once, and one more after each interval; counts what it does not let through.
#[derive(Debug)]
pub struct Pace {
    room: u64,
    burst: u64,
    interval: Nanos,
    since: Nanos,
    left_out: u64,
}

impl Pace {
    /// With all of its room.
    pub fn new(burst: u64, interval: Nanos) -> Self {
        Self { room: burst, burst, interval, since: Nanos::ZERO, left_out: 0 }
    }

    /// If one more may go now, how many were left out since this was said last.
    pub fn take(&mut self, now: Nanos) -> Option<u64> {
        let gained = now.saturating_sub(self.since).0 / self.interval.0.max(1);
        if gained > 0 {
            self.room = self.room.saturating_add(gained).min(self.burst);
            self.since = now;
        }
        let Some(room) = self.room.checked_sub(1) else {
            self.left_out += 1;
            return None;
        };
        self.room = room;
        Some(self.left_out())
    }

    /// How many were left out since this was said last.
    pub fn left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
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
        let mut pace = Pace::new(3, ms(10));
        assert!((0..3).all(|_| pace.take(ms(101)) == Some(0)));
        assert_eq!((pace.take(ms(110)), pace.next(ms(110))), (None, ms(111)));
        assert_eq!((pace.take(ms(111)), pace.take(ms(111))), (Some(1), None));
        // It does not save up more than the burst.
        assert!((0..3).all(|index| pace.take(ms(100_000)) == Some(u64::from(index == 0))));
        assert_eq!((pace.take(ms(100_000)), pace.left_out(), pace.left_out()), (None, 1, 0));
    }

    /// However long nothing was said before.
    /// Rules: VX-863.
    #[test]
    fn two_in_a_row_are_an_interval_apart() {
        let ms = Nanos::from_millis;
        let mut pace = Pace::new(1, ms(1_000));
        assert_eq!((pace.take(ms(5_900)), pace.take(ms(5_900)), pace.take(ms(6_899))), (Some(0), None, None));
        assert_eq!(
            (pace.take(ms(6_900)), pace.take(ms(7_000)), pace.take(ms(9_950))),
            (Some(2), None, Some(1))
        );
        assert_eq!((pace.take(ms(10_000)), pace.take(ms(10_950))), (None, Some(1)));
    }
}
