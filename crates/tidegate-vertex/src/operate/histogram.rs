//! Times and sizes, counted in steps of 1, 2 and 5: bounded, without allocation, and as Prometheus wants them.

use serde::{Deserialize, Serialize};
use tidegate_shm::clock::Nanos;

/// Numbers of values up to each bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// The bounds, growing.
    pub bounds: Vec<u64>,
    /// Values up to each bound and above the one before; the last are above all bounds.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// For times from 1 us to 60 s, in nanoseconds (VX-862).
    pub fn of_times() -> Self {
        let mut bounds = steps(1_000, 50_000_000_000);
        bounds.push(60_000_000_000);
        Self::new(bounds)
    }

    /// For numbers up to this one, at least.
    pub fn up_to(most: u64) -> Self {
        let mut bounds = steps(1, most);
        if bounds.last().is_none_or(|&last| last < most) {
            bounds.push(most);
        }
        Self::new(bounds)
    }

    fn new(bounds: Vec<u64>) -> Self {
        let counts = vec![0; bounds.len() + 1];
        Self { bounds, counts, sum: 0 }
    }

    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        let place = self.bounds.partition_point(|&bound| bound < value);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// Counts a time.
    pub fn add_time(&mut self, time: Nanos) {
        self.add(time.0);
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// 1, 2, 5, 10, 20, ... times `least`, up to `most`.
fn steps(least: u64, most: u64) -> Vec<u64> {
    let decades = std::iter::successors(Some(least), |decade| decade.checked_mul(10));
    let all = decades.take_while(|&decade| decade <= most).flat_map(|decade| [1, 2, 5].map(|n| n * decade));
    all.filter(|&bound| bound <= most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: VX-862.
    #[test]
    fn a_value_counts_at_the_first_bound_that_holds_it() {
        let mut times = Histogram::of_times();
        assert_eq!((times.bounds.first(), times.bounds.last()), (Some(&1_000), Some(&60_000_000_000)));
        assert!(times.bounds.is_sorted_by(|a, b| a < b));
        for nanos in [0, 1_000, 1_001, 2_000, 60_000_000_000, 60_000_000_001] {
            times.add_time(Nanos(nanos));
        }
        assert_eq!((times.counts[0], times.counts[1], times.count()), (2, 2, 6));
        let last = times.counts.len() - 1;
        assert_eq!((times.counts[last - 1], times.counts[last]), (1, 1));
        assert_eq!(Histogram::up_to(700).bounds, [1, 2, 5, 10, 20, 50, 100, 200, 500, 700]);
    }
}
