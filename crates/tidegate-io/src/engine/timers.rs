//! Deadlines of a worker, in order. A deadline that is no longer wanted is removed, not left to pass (MQ-042).

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// A hundred years: users who set more mean never, and clocks and drivers need not be able to tell.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The delay, unless it is so long that what waits for it waits for ever.
pub(crate) fn bounded(delay: Duration) -> Option<Duration> {
    (delay < NEVER).then_some(delay)
}

/// The moment `delay` from `now`; `None` is never.
pub(crate) fn later(now: Instant, delay: Duration) -> Option<Instant> {
    now.checked_add(bounded(delay)?)
}

/// Deadlines, each for a target of type `T`.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    set: BTreeSet<(Instant, T)>,
}

impl<T: Ord + Copy> Timers<T> {
    pub(crate) const fn new() -> Self {
        Self { set: BTreeSet::new() }
    }

    /// Changes the deadline of `target`, of which `armed` is the present one.
    pub(crate) fn set(&mut self, target: T, armed: &mut Option<Instant>, wanted: Option<Instant>) {
        if *armed == wanted {
            return;
        }
        if let Some(at) = *armed {
            self.set.remove(&(at, target));
        }
        if let Some(at) = wanted {
            self.set.insert((at, target));
        }
        *armed = wanted;
    }

    /// The next deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.set.first().map(|(at, _)| *at)
    }

    /// Takes the next target whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<T> {
        let (at, target) = *self.set.first()?;
        if at > now {
            return None;
        }
        self.set.pop_first();
        Some(target)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_far_is_never() {
        let now = Instant::now();
        assert_eq!(later(now, Duration::from_secs(60)), Some(now + Duration::from_secs(60)));
        for far in [NEVER, Duration::from_secs(i64::MAX as u64), Duration::MAX] {
            assert_eq!(later(now, far), None);
        }
    }

    /// Rules: MQ-042.
    #[test]
    fn a_dropped_deadline_leaves_nothing() {
        let start = Instant::now();
        let mut timers = Timers::new();
        let mut armed = vec![None; 10_000];
        for (target, armed) in armed.iter_mut().enumerate() {
            timers.set(target, armed, Some(start + Duration::from_secs(30)));
        }
        for (target, armed) in armed.iter_mut().enumerate() {
            timers.set(target, armed, None);
        }
        assert_eq!((timers.len(), timers.next()), (0, None));
        let mut one = None;
        timers.set(7, &mut one, Some(start + Duration::from_millis(50)));
        assert_eq!(timers.expire(start + Duration::from_millis(49)), None);
        assert_eq!(timers.expire(start + Duration::from_millis(50)), Some(7));
        assert_eq!(timers.expire(start + Duration::from_secs(60)), None);
    }

    #[test]
    fn deadlines_pass_in_order() {
        let start = Instant::now();
        let mut timers = Timers::new();
        for (target, ms) in [(1, 30), (2, 10), (3, 20)] {
            timers.set(target, &mut None, Some(start + Duration::from_millis(ms)));
        }
        let late = start + Duration::from_secs(1);
        let order: Vec<i32> = std::iter::from_fn(|| timers.expire(late)).collect();
        assert_eq!(order, [2, 3, 1]);
    }
}
