//! Sampled latencies (DH-244): four buckets per octave from 32 ns to 0.54 s.

use std::time::Duration;

use serde::{Serialize, Serializer, ser::SerializeStruct};

/// Number of buckets.
pub const BUCKETS: usize = 96;

/// How often latencies of each size were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl Histogram {
    /// The bucket of a latency of `ns`: `4 * (floor(log2 ns) - 5) + the next two bits`, within the 96 there are.
    pub fn bucket(ns: u64) -> usize {
        let Some(exponent) = ns.checked_ilog2().filter(|exponent| *exponent >= LOWEST_EXPONENT) else {
            return 0;
        };
        let next_bits = (ns >> (exponent - 2)) & 3;
        let bucket = 4 * (exponent - LOWEST_EXPONENT) as usize + next_bits as usize;
        bucket.min(BUCKETS - 1)
    }

    /// The first latency in ns that is beyond `bucket`.
    pub fn upper_bound(bucket: usize) -> f64 {
        edge(bucket + 1)
    }

    /// Adds one latency.
    pub fn add(&mut self, ns: u64) {
        let count = &mut self.counts[Self::bucket(ns)];
        *count = count.saturating_add(1);
    }

    /// How many latencies are in each bucket.
    pub fn counts(&self) -> &[u64; BUCKETS] {
        &self.counts
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The latency that `share` of all (0 to 1) do not exceed: the geometric middle of its bucket, at most about 12 %
    /// off. `None` without samples.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let wanted = ((total as f64 * share.clamp(0.0, 1.0)).ceil() as u64).clamp(1, total);
        let mut seen = 0_u64;
        let bucket = self.counts.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= wanted
        });
        let bucket = bucket.unwrap_or(BUCKETS - 1);
        Some(Duration::from_nanos((edge(bucket) * edge(bucket + 1)).sqrt() as u64))
    }
}

/// Where `bucket` begins, in ns.
fn edge(bucket: usize) -> f64 {
    let octave = f64::from(1_u32 << LOWEST_EXPONENT) * 2_f64.powi((bucket / 4) as i32);
    octave * (1.0 + (bucket % 4) as f64 / 4.0)
}

const LOWEST_EXPONENT: u32 = 5;

/// The sampled latencies of one side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Latency {
    /// All samples by size.
    pub histogram: Histogram,
    /// Number of samples.
    pub count: u64,
    /// Their sum in ns.
    pub sum_ns: u64,
    /// The longest in ns.
    pub max_ns: u64,
}

impl Latency {
    /// From the buckets as little-endian words, and the three words beside them.
    pub(super) fn from_parts(buckets: &[u8; 8 * BUCKETS], count: u64, sum_ns: u64, max_ns: u64) -> Self {
        let mut histogram = Histogram::default();
        let words = buckets.as_chunks::<8>().0;
        for (to, from) in histogram.counts.iter_mut().zip(words) {
            *to = u64::from_le_bytes(*from);
        }
        Self { histogram, count, sum_ns, max_ns }
    }

    /// The mean. `None` without samples.
    pub fn average(&self) -> Option<Duration> {
        self.sum_ns.checked_div(self.count).map(Duration::from_nanos)
    }

    /// See [`Histogram::percentile`].
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        self.histogram.percentile(share)
    }
}

/// Written with its average and percentiles in ns, `null` without samples.
impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let ns = |time: Option<Duration>| time.map(|time| time.as_nanos().to_string());
        let mut fields = to.serialize_struct("Latency", 7)?;
        fields.serialize_field("count", &self.count.to_string())?;
        fields.serialize_field("avg_ns", &ns(self.average()))?;
        fields.serialize_field("p50_ns", &ns(self.percentile(0.5)))?;
        fields.serialize_field("p90_ns", &ns(self.percentile(0.9)))?;
        fields.serialize_field("p99_ns", &ns(self.percentile(0.99)))?;
        fields.serialize_field("p999_ns", &ns(self.percentile(0.999)))?;
        fields.serialize_field("max_ns", &self.max_ns.to_string())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: DH-244.
    #[test]
    fn buckets_are_four_per_octave_from_32_ns_on() {
        let buckets = [0, 1, 31, 32, 39, 40, 47, 48, 56, 63, 64, 79, 80, 1023, 1024].map(Histogram::bucket);
        assert_eq!(buckets, [0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 19, 20]);
        assert_eq!([536_870_911, 536_870_912, u64::MAX].map(Histogram::bucket), [95; 3]);
        assert_eq!(Histogram::bucket(469_762_047), 94);
        for bucket in 0..BUCKETS - 1 {
            let beyond = Histogram::upper_bound(bucket) as u64;
            assert_eq!((Histogram::bucket(beyond - 1), Histogram::bucket(beyond)), (bucket, bucket + 1));
        }
    }

    /// Rules: DH-244, T-02.
    #[test]
    fn percentiles_of_known_latencies_are_within_12_percent() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        let latencies: Vec<u64> = (0..10_000_u64).map(|n| 50 + n * n / 3).collect();
        for latency in &latencies {
            histogram.add(*latency);
        }
        for share in [0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let exact = latencies[((latencies.len() as f64 * share).ceil() as usize).max(1) - 1] as f64;
            let found = histogram.percentile(share).unwrap().as_nanos() as f64;
            assert!((found / exact - 1.0).abs() < 0.12, "{share}: {found} instead of {exact}");
        }
        assert_eq!(histogram.total(), 10_000);
    }

    #[test]
    fn counts_that_nobody_can_have_counted_do_not_overflow() {
        let mut histogram = Histogram { counts: [u64::MAX; BUCKETS] };
        histogram.add(1);
        assert_eq!(histogram.total(), u64::MAX);
        assert!(histogram.percentile(0.999).is_some());
        let latency = Latency { histogram, count: 0, sum_ns: u64::MAX, max_ns: 0 };
        assert_eq!(latency.average(), None);
    }
}
