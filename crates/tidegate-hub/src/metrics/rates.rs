//! Operations per second. Nothing of it is in the block: whoever looks twice can divide (DH-248).

use std::collections::VecDeque;

use serde::Serialize;
use tidegate_shm::clock::Nanos;

use super::HubMetrics;

/// What happened per second between two observations.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Rates {
    /// Commits.
    pub write_ops_per_sec: f64,
    /// Slots read, by all consumers together.
    pub read_ops_per_sec: f64,
    /// Bytes committed.
    pub bytes_written_per_sec: f64,
    /// Bytes read, by all consumers together.
    pub bytes_read_per_sec: f64,
}

/// The observations of the last minute.
#[derive(Debug, Clone, Default)]
pub struct RateWindow {
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Nanos,
    totals: [u64; 4],
    checksum_errors: u64,
}

impl RateWindow {
    /// Takes an observation into account; one within a second of the one before replaces it.
    pub fn observe(&mut self, metrics: &HubMetrics) {
        let sample = Sample {
            at: metrics.metrics_collection_time,
            totals: [
                metrics.total_writes_committed,
                metrics.total_reads_completed,
                metrics.total_bytes_written,
                metrics.total_bytes_read,
            ],
            checksum_errors: metrics.counters.checksum_failures,
        };
        let recent = |other: &Sample| sample.at.saturating_sub(other.at) < SECOND;
        // The first one stays, or a fast observer would never have two.
        if self.samples.len() > 1 && self.samples.back().is_some_and(recent) {
            self.samples.pop_back();
        }
        self.samples.push_back(sample);
        while self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    /// The rates over the window; `None` before there are two observations at different times.
    pub fn rates(&self) -> Option<Rates> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let seconds = last.at.saturating_sub(first.at).as_u64() as f64 / 1e9;
        if seconds == 0.0 {
            return None;
        }
        // Saturating: a reset in between makes a rate of 0, not a negative one.
        let rate = |index: usize| {
            let [first, last] = [first, last].map(|sample| sample.totals.get(index).copied().unwrap_or(0));
            last.saturating_sub(first) as f64 / seconds
        };
        Some(Rates {
            write_ops_per_sec: rate(0),
            read_ops_per_sec: rate(1),
            bytes_written_per_sec: rate(2),
            bytes_read_per_sec: rate(3),
        })
    }

    /// Whether digests failed within the window.
    pub fn checksums_failed(&self) -> bool {
        let failures = |sample: Option<&Sample>| sample.map_or(0, |sample| sample.checksum_errors);
        failures(self.samples.back()) > failures(self.samples.front())
    }
}

const SAMPLES: usize = 61;
const SECOND: Nanos = Nanos::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counters;

    fn metrics(at_ms: u64, writes: u64, failures: u64) -> HubMetrics {
        HubMetrics {
            metrics_collection_time: Nanos::from_millis(at_ms),
            total_writes_committed: writes,
            total_bytes_read: 10 * writes,
            counters: Counters { checksum_failures: failures, ..Counters::default() },
            ..HubMetrics::default()
        }
    }

    /// Rules: DH-248, N-41.
    #[test]
    fn rates_are_over_the_last_minute() {
        let mut window = RateWindow::default();
        window.observe(&metrics(0, 1_000, 0));
        assert_eq!(window.rates(), None);
        window.observe(&metrics(500, 1_050, 0));
        assert_eq!(window.rates().unwrap().write_ops_per_sec, 100.0);
        for second in 1..=600 {
            window.observe(&metrics(500 + second * 1_000, 1_050 + 7 * second, 0));
        }
        let rates = window.rates().unwrap();
        assert_eq!(
            (rates.write_ops_per_sec, rates.bytes_read_per_sec),
            (7.0, 70.0),
            "the burst is forgotten"
        );
        assert_eq!(window.samples.len(), SAMPLES);
        assert!(!window.checksums_failed());
        window.observe(&metrics(700_000, 0, 1));
        assert_eq!(window.rates().unwrap().write_ops_per_sec, 0.0, "a reset is no negative rate");
        assert!(window.checksums_failed());
    }
}
