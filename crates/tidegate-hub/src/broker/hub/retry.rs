//! Trying again: only when told to (13.5).

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::broker::{error::HubError, service::random};

/// Whether and when a look-up is tried again (DH-196, DH-197).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy(Option<Exponential>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Exponential {
    initial: Duration,
    factor: f64,
    max: Duration,
    jitter: f64,
    attempts: u32,
    overall: Duration,
}

impl RetryPolicy {
    /// One attempt.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Up to `attempts` attempts within `overall`. Before attempt k + 1 it waits `min(max, initial * factor^k)`, times
    /// `1 - jitter` to `1 + jitter`.
    ///
    /// # Errors
    /// [`HubError::RetryPolicy`] for a factor below 1, a jitter outside 0 to 1, or no attempt at all.
    pub fn exponential(
        initial: Duration,
        factor: f64,
        max: Duration,
        jitter: f64,
        attempts: u32,
        overall: Duration,
    ) -> Result<Self, HubError> {
        let problem = match () {
            () if !(factor.is_finite() && factor >= 1.0) => "the factor must be a number of at least 1",
            () if !(0.0..=1.0).contains(&jitter) => "the jitter must be 0 to 1",
            () if attempts == 0 => "there must be at least one attempt",
            () => return Ok(Self(Some(Exponential { initial, factor, max, jitter, attempts, overall }))),
        };
        Err(HubError::RetryPolicy { problem })
    }

    /// Time before attempt `k + 2`, `k` counted from 0; `dice` is 0 to 1. `None` when there is no such attempt.
    pub fn delay(&self, k: u32, dice: f64) -> Option<Duration> {
        let policy = self.0.as_ref()?;
        if k.checked_add(1)? >= policy.attempts {
            return None;
        }
        let exponent = i32::try_from(k).unwrap_or(i32::MAX);
        let plain = policy.initial.as_secs_f64() * policy.factor.powi(exponent);
        let capped = plain.min(policy.max.as_secs_f64());
        let jittered = capped * (1.0 + policy.jitter * (2.0 * dice.clamp(0.0, 1.0) - 1.0));
        Duration::try_from_secs_f64(jittered).ok()
    }

    /// Calls `attempt` with the time that is left overall, until it succeeds or there is nothing left to try.
    pub(super) fn run<T>(
        &self,
        mut attempt: impl FnMut(Option<Duration>) -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let started = Instant::now();
        let left = || self.0.map(|policy| policy.overall.saturating_sub(started.elapsed()));
        let mut k = 0;
        loop {
            let error = match attempt(left()) {
                Err(error) if error.is_transient() => error,
                result => return result,
            };
            let dice =
                random::<4>().map_or(0.5, |bytes| f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX));
            match (self.delay(k, dice), left()) {
                (Some(delay), Some(left)) if delay < left => thread::sleep(delay),
                _ => return Err(error),
            }
            k += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::error::RefusedBy;

    const MS: Duration = Duration::from_millis(1);

    fn timed_out() -> HubError {
        HubError::Disconnected { endpoint: "ipc:///x".into(), waited: MS }
    }

    /// What may pass by itself is tried again, a refusal is not.
    ///
    /// Rules: DH-196, M-10.
    #[test]
    fn refusals_are_final() {
        let refused = || RefusedBy {
            endpoint: "ipc:///x".into(),
            request: "DISC_REQ",
            code: None,
            message: String::new(),
        };
        let policy = RetryPolicy::exponential(MS, 1.0, MS, 0.0, 3, Duration::from_secs(60)).unwrap();
        let attempts = |make: &dyn Fn() -> HubError| {
            let mut attempts = 0;
            let result = policy.run(|_| -> Result<(), _> {
                attempts += 1;
                Err(make())
            });
            assert_eq!(result.unwrap_err().number(), make().number());
            attempts
        };
        assert_eq!(attempts(&|| HubError::AuthFailed(refused())), 1);
        assert_eq!(attempts(&|| HubError::SchemaMismatch(refused())), 1);
        assert_eq!(attempts(&|| HubError::Conflict(refused())), 1);
        assert_eq!(attempts(&|| HubError::BadRequest(refused())), 1);
        assert_eq!(attempts(&|| HubError::NotFound(refused())), 3);
        assert_eq!(attempts(&|| HubError::Pending(refused())), 3);
        assert_eq!(attempts(&timed_out), 3);
    }

    /// Rules: DH-196, M-10.
    #[test]
    fn nothing_is_retried_by_default() {
        let mut attempts = 0;
        let result = RetryPolicy::none().run(|_| -> Result<(), _> {
            attempts += 1;
            Err(timed_out())
        });
        assert!(matches!(result, Err(HubError::Disconnected { .. })));
        assert_eq!(attempts, 1);
    }

    /// Rules: DH-197, M-10.
    #[test]
    fn delays_double_up_to_the_largest_with_jitter_around_them() {
        let policy =
            RetryPolicy::exponential(100 * MS, 2.0, 300 * MS, 0.2, 5, Duration::from_secs(9)).unwrap();
        let middle: Vec<_> = (0..5).map(|k| policy.delay(k, 0.5)).collect();
        assert_eq!(middle, [Some(100 * MS), Some(200 * MS), Some(300 * MS), Some(300 * MS), None]);
        assert_eq!(policy.delay(1, 0.0), Some(160 * MS));
        assert_eq!(policy.delay(1, 1.0), Some(240 * MS));
    }

    /// Rules: DH-197, M-10.
    #[test]
    fn the_whole_never_takes_longer_than_allowed() {
        let policy = RetryPolicy::exponential(20 * MS, 2.0, 5000 * MS, 0.0, 1000, 100 * MS).unwrap();
        let (started, mut attempts) = (Instant::now(), 0);
        let result = policy.run(|left| -> Result<(), _> {
            assert!(left.unwrap() <= 100 * MS);
            attempts += 1;
            Err(timed_out())
        });
        assert!(result.is_err());
        assert!(started.elapsed() < 100 * MS, "20 + 40 ms of waiting; 80 more would be too long");
        assert_eq!(attempts, 3);
    }

    #[test]
    fn impossible_policies_are_refused() {
        let policy =
            |factor, jitter, attempts| RetryPolicy::exponential(MS, factor, MS, jitter, attempts, MS);
        for refused in
            [policy(0.5, 0.0, 1), policy(f64::NAN, 0.0, 1), policy(1.0, 1.1, 1), policy(1.0, 0.0, 0)]
        {
            assert!(matches!(refused, Err(HubError::RetryPolicy { .. })));
        }
    }
}
