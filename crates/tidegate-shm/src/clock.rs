//! Time as nanoseconds in a `u64`, the unit of every timestamp and deadline of the project.
//!
//! Liveness, leases and deadlines use [`monotonic_now`]; [`realtime_now`] is for people and for comparing with file
//! times. The two must not be mixed: nothing in the type says which clock a value came from, so say it in the name of
//! the variable.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// A point in time or a length of time in nanoseconds.
///
/// Arithmetic saturates: a deadline far in the future stays in the future, and the age of something from the future is
/// zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The start of the clock, and the length of no time.
    pub const ZERO: Self = Self(0);
    /// Later than every real time; as a deadline it means "never".
    pub const MAX: Self = Self(u64::MAX);

    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// A whole number of milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds.saturating_mul(1_000_000))
    }

    /// The plain number of nanoseconds.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// `self + other`, at most [`Nanos::MAX`].
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// `self - other`, at least [`Nanos::ZERO`].
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// As the two fields of the kernel's time structure. Times beyond 292 years are cut to that.
    pub(crate) fn to_timespec(self) -> Timespec {
        let nanos = self.0.min(i64::MAX as u64);
        Timespec { tv_sec: (nanos / NANOS_PER_SECOND) as i64, tv_nsec: (nanos % NANOS_PER_SECOND) as i64 }
    }

    #[inline]
    fn from_timespec(time: Timespec) -> Self {
        // A negative clock (wall time before 1970) counts as zero.
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Self::from_secs(seconds).saturating_add(Self(nanos))
    }
}

/// Durations beyond 584 years become [`Nanos::MAX`].
impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for Duration {
    fn from(nanos: Nanos) -> Self {
        Self::from_nanos(nanos.0)
    }
}

/// Now on `CLOCK_MONOTONIC`, which every process of the host shares and nobody sets.
#[inline]
pub fn monotonic_now() -> Nanos {
    Nanos::from_timespec(clock_gettime(ClockId::Monotonic))
}

/// Now on `CLOCK_BOOTTIME`: as [`monotonic_now`], and goes on while the host is suspended, for leases that somebody else
/// counts (VX-716).
pub fn boottime_now() -> Nanos {
    Nanos::from_timespec(clock_gettime(ClockId::Boottime))
}

/// As [`monotonic_now`] at the last tick of the kernel, some milliseconds ago at most: costs a fraction.
#[inline]
pub fn monotonic_roughly() -> Nanos {
    Nanos::from_timespec(clock_gettime(ClockId::MonotonicCoarse))
}

/// Now on `CLOCK_REALTIME`: nanoseconds since 1970, may jump.
pub fn realtime_now() -> Nanos {
    Nanos::from_timespec(clock_gettime(ClockId::Realtime))
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Nanos::MAX.saturating_add(Nanos(1)), Nanos::MAX);
        assert_eq!(Nanos(3).saturating_sub(Nanos(5)), Nanos::ZERO);
        assert_eq!(Nanos::from_secs(u64::MAX), Nanos::MAX);
        assert_eq!(Nanos::from_millis(3), Nanos(3_000_000));
        assert_eq!(Nanos::from(Duration::MAX), Nanos::MAX);
    }

    #[test]
    fn durations_survive_the_round_trip() {
        let duration = Duration::new(7, 123_456_789);
        assert_eq!(Nanos::from(duration), Nanos(7_123_456_789));
        assert_eq!(Duration::from(Nanos::from(duration)), duration);
    }

    #[test]
    fn a_timespec_never_has_a_negative_field() {
        let far = Nanos::MAX.to_timespec();
        assert!(far.tv_sec > 0 && (0..1_000_000_000).contains(&far.tv_nsec));
        assert_eq!(Nanos::from_timespec(Nanos(5_000_000_001).to_timespec()), Nanos(5_000_000_001));
        assert_eq!(Nanos::from_timespec(Timespec { tv_sec: -1, tv_nsec: 0 }), Nanos::ZERO);
    }

    #[test]
    fn clocks_are_the_kernels() {
        let first = monotonic_now();
        assert!(first > Nanos::ZERO && monotonic_now() >= first);
        assert!(boottime_now() >= first);
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(realtime_now().0.abs_diff(Nanos::from(wall).0) < 10 * NANOS_PER_SECOND);
    }
}
