//! How long until a worker is started again (VX-436).
//!
//! The delay is there for workers that die whatever they are given. One that answers is none of these, and neither is one that
//! dies on fewer and fewer inputs: then a batch is being split to find the input that it dies on, which takes a bounded number
//! of starts (VX-610).

use tidegate_shm::clock::Nanos;

use crate::retry::spread;

/// What there is to know of a session that ended, or of an attempt to have one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ended {
    /// How long it lasted.
    pub(super) lasted: Nanos,
    /// Whether it answered a batch.
    pub(super) answered: bool,
    /// Records of the batch that it was working on.
    pub(super) suspect: Option<u32>,
}

/// The delays of one lane.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    doublings: u32,
    /// Records of the last suspect, and how often it was one in a row.
    suspect: Option<(u32, u32)>,
}

impl Backoff {
    /// The delay after a session.
    pub(super) fn after(&mut self, ended: Ended) -> Nanos {
        if ended.answered || ended.lasted >= HEALTHY {
            *self = Self::default();
        }
        let times = match (ended.suspect, self.suspect) {
            (Some(records), Some((last, times))) if records == last => times + 1,
            (Some(records), Some((last, _))) if records > last => u32::MAX,
            (Some(_), _) => 1,
            (None, _) => u32::MAX,
        };
        self.suspect = ended.suspect.map(|records| (records, times.min(TRIES + 1)));
        if times <= TRIES {
            self.doublings = 0;
            return FIRST;
        }
        let delay = Nanos(FIRST.0.saturating_mul(1 << self.doublings)).min(LONGEST);
        self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS);
        delay
    }
}

/// Spreads a delay by a fifth to either side; `random` is any number.
pub(super) fn with_jitter(delay: Nanos, random: u64) -> Nanos {
    spread(delay, 0.2, random)
}

const FIRST: Nanos = Nanos::from_millis(100);
const LONGEST: Nanos = Nanos::from_secs(10);
/// A session that lasted so long was a good one.
const HEALTHY: Nanos = Nanos::from_secs(60);
/// After so many the longest delay is reached.
const MAX_DOUBLINGS: u32 = 7;
/// How often a batch fails before it is split.
const TRIES: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn died_on(records: u32) -> Ended {
        Ended { suspect: Some(records), ..Ended::default() }
    }

    fn delays(ended: &[Ended]) -> Vec<u64> {
        let mut backoff = Backoff::default();
        ended.iter().map(|&ended| backoff.after(ended).0 / 1_000_000).collect()
    }

    /// Rules: VX-436.
    #[test]
    fn a_worker_that_never_works_is_started_less_and_less_often() {
        let ended = [Ended::default(); 9];
        assert_eq!(delays(&ended), [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        let healthy = Ended { lasted: HEALTHY, ..Ended::default() };
        assert_eq!(
            delays(&[Ended::default(), Ended::default(), healthy, Ended::default()]),
            [100, 200, 100, 200]
        );
    }

    /// Rules: VX-436, VX-610.
    #[test]
    fn a_poison_record_is_found_without_delay() {
        let halves = [50, 50, 25, 25, 13, 13, 6, 6, 3, 3, 2, 2, 1, 1].map(died_on);
        assert_eq!(delays(&halves), [100; 14]);
    }

    /// Every input kills the worker: each is found, and then the next.
    /// Rules: VX-436.
    #[test]
    fn a_function_that_dies_on_everything_is_started_less_and_less_often() {
        let ended = [2, 2, 1, 1, 1, 1, 1, 4, 4].map(died_on);
        assert_eq!(delays(&ended), [100, 100, 100, 100, 100, 200, 400, 800, 1600]);
        let answered = Ended { answered: true, ..died_on(1) };
        assert_eq!(
            delays(&[died_on(1), died_on(1), died_on(1), died_on(1), answered]),
            [100, 100, 100, 200, 100]
        );
    }

    /// Rules: VX-436.
    #[test]
    fn jitter_is_a_fifth_to_either_side() {
        let delay = Nanos::from_secs(10);
        for random in [0, 1, u64::MAX / 3, u64::MAX] {
            let spread = with_jitter(delay, random);
            assert!(spread >= Nanos::from_secs(8) && spread < Nanos::from_secs(12), "{spread:?}");
        }
    }
}
