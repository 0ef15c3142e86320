//! How long operations take: every so manieth is timed (DH-244).

use std::mem::offset_of;

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{AtomicU32, Ordering},
};

use super::Process;
use crate::layout::pages::MetricsPage;

/// Buckets of a histogram: four per octave from 32 ns to 0.54 s.
pub const BUCKETS: u64 = 96;

/// Whether the operation that begins now is one to be timed. `operations` counts those since the last one; threads that
/// share it may miss some, which only shifts the sample.
#[inline]
pub fn is_due(operations: &AtomicU32, every: u32, process: &Process) -> bool {
    if every == 0 || !process.is_measuring() {
        return false;
    }
    // Relaxed: a count of this process.
    let count = operations.load(Ordering::Relaxed).saturating_add(1);
    let due = count >= every;
    operations.store(if due { 0 } else { count }, Ordering::Relaxed);
    due
}

/// The bucket of a latency.
pub fn bucket(time: Nanos) -> u64 {
    if time.0 < 32 {
        return 0;
    }
    let octave = u64::from(time.0.ilog2());
    let quarter = time.0 >> (octave - 2) & 3;
    (4 * (octave - 5) + quarter).min(BUCKETS - 1)
}

/// Adds the latency of a write that began at `started` and is over.
pub fn record_write(process: &Process, started: Nanos) {
    let fields = Fields {
        histogram: offset_of!(MetricsPage, write_latency),
        count: offset_of!(MetricsPage, write_lat_count),
        sum: offset_of!(MetricsPage, write_lat_sum_ns),
        max: offset_of!(MetricsPage, write_lat_max_ns),
    };
    fields.record(process, monotonic_now().saturating_sub(started));
}

/// Adds the latency of a read that began at `started` and is over.
pub fn record_read(process: &Process, started: Nanos) {
    let fields = Fields {
        histogram: offset_of!(MetricsPage, read_latency),
        count: offset_of!(MetricsPage, read_lat_count),
        sum: offset_of!(MetricsPage, read_lat_sum_ns),
        max: offset_of!(MetricsPage, read_lat_max_ns),
    };
    fields.record(process, monotonic_now().saturating_sub(started));
}

/// Where the words of one kind of latency lie.
struct Fields {
    histogram: usize,
    count: usize,
    sum: usize,
    max: usize,
}

impl Fields {
    fn record(&self, process: &Process, time: Nanos) {
        let page = process.block().descriptor().geometry.metrics().offset;
        let add = |at: u64, amount: u64| {
            // Relaxed: statistics. The page is mapped and writable, so the word is there.
            if let Ok(word) = process.block().region().atomic_u64_mut(page + at) {
                word.fetch_add(amount, Ordering::Relaxed);
            }
        };
        add(self.histogram as u64 + 8 * bucket(time), 1);
        add(self.count as u64, 1);
        add(self.sum as u64, time.0);
        let Ok(max) = process.block().region().atomic_u64_mut(page + self.max as u64) else { return };
        let mut longest = max.load(Ordering::Relaxed);
        while time.0 > longest {
            match max.compare_exchange(longest, time.0, Ordering::Relaxed) {
                Ok(_) => break,
                Err(found) => longest = found,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: DH-244.
    #[test]
    fn there_are_four_buckets_per_octave_from_32_ns_on() {
        for (time, expected) in [
            (0, 0),
            (31, 0),
            (32, 0),
            (40, 1),
            (48, 2),
            (56, 3),
            (63, 3),
            (64, 4),
            (1 << 28, 92),
            (1 << 29, 95),
        ] {
            assert_eq!(bucket(Nanos(time)), expected, "{time} ns");
        }
        assert_eq!(bucket(Nanos::MAX), 95);
    }
}
