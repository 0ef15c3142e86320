//! All numbers of a block at one moment, and what follows from them (17.2).

use serde::{Serialize, Serializer};
use tidegate_shm::clock::Nanos;

use super::{Counters, Latency, RateWindow, Rates, as_text};
use crate::{
    inspect::{ConsumerInfo, Inspector},
    layout::PageMode,
};

/// A copy of what a block counts. Not an atomic cut: each word was loaded once, one after the other (DH-245).
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct HubMetrics {
    /// Write acquires called.
    #[serde(serialize_with = "as_text")]
    pub total_writes_attempted: u64,
    /// Commits.
    #[serde(serialize_with = "as_text")]
    pub total_writes_committed: u64,
    /// Writes that ended in a timeout, on a full ring, or aborted.
    #[serde(serialize_with = "as_text")]
    pub total_writes_failed: u64,
    /// Read acquires: those that gave a slot, and those that ended in a timeout.
    #[serde(serialize_with = "as_text")]
    pub total_reads_attempted: u64,
    /// Slots read, by consumers that are there and by those that were.
    #[serde(serialize_with = "as_text")]
    pub total_reads_completed: u64,
    /// Read acquires that ended in a timeout or met a slot between two values.
    #[serde(serialize_with = "as_text")]
    pub total_reads_failed: u64,
    /// Bytes committed.
    #[serde(serialize_with = "as_text")]
    pub total_bytes_written: u64,
    /// Bytes read, by consumers that are there and by those that were.
    #[serde(serialize_with = "as_text")]
    pub total_bytes_read: u64,
    /// Slots between the floor and the next id.
    #[serde(serialize_with = "as_text")]
    pub queue_occupancy: u64,
    /// Slots.
    #[serde(serialize_with = "as_text")]
    pub queue_capacity: u64,
    /// Occupancy in percent of the capacity.
    pub queue_utilization_percent: f64,
    /// Rows that take part and whose owners are not dead.
    pub active_consumer_count: u32,
    /// Most active rows.
    #[serde(serialize_with = "as_text")]
    pub peak_consumer_count: u64,
    /// Digests that did not match.
    #[serde(serialize_with = "as_text")]
    pub checksum_errors: u64,
    /// Writes and reads that ended in a timeout.
    #[serde(serialize_with = "as_text")]
    pub timeout_errors: u64,
    /// Sampled latencies from allocating to committing.
    pub write_latency: Latency,
    /// Sampled latencies from acquiring to letting go.
    pub read_latency: Latency,
    /// The newest commit, on the monotonic clock.
    #[serde(serialize_with = "as_text")]
    pub last_write_time: u64,
    /// The newest release, on the monotonic clock.
    #[serde(serialize_with = "as_text")]
    pub last_read_time: u64,
    /// When this was copied, on the monotonic clock.
    #[serde(serialize_with = "nanos")]
    pub metrics_collection_time: Nanos,
    /// Whether the slots are on huge pages.
    pub huge_pages: bool,
    /// Bits of `taint`.
    pub taint: u32,
    /// Rates, if somebody looked more than once.
    #[serde(flatten)]
    pub rates: Option<Rates>,
    /// Whether nothing is wrong ([`HubMetrics::is_healthy`]).
    pub healthy: bool,
    /// Every counter of the metrics page under its own name.
    pub counters: Counters,
    /// Consumers by their condition.
    pub consumers: ConsumerCounts,
    /// Slots that are stuck.
    pub stuck_slots: u32,
    /// Since the writer's last beat, in seconds.
    pub writer_heartbeat_age_seconds: Option<f64>,
    /// Uid, row, lag and age of the heartbeat of each consumer.
    pub lags: Vec<ConsumerLag>,
}

/// Consumers by their condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ConsumerCounts {
    /// Alive, or not to be judged, with a fresh heartbeat.
    pub alive: u32,
    /// Alive with an old heartbeat.
    pub stale: u32,
    /// Dead.
    pub dead: u32,
    /// Without their right.
    pub evicted: u32,
}

/// How far one consumer is behind.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ConsumerLag {
    /// Its unique id, or its row where it gave none.
    pub consumer: String,
    /// Number of its row.
    pub row: u32,
    /// Resolved ids that it has not consumed.
    #[serde(serialize_with = "as_text")]
    pub lag: u64,
    /// Since its last beat, in seconds.
    pub heartbeat_age_seconds: Option<f64>,
}

impl HubMetrics {
    /// Copies the numbers of a block.
    pub fn observe(block: &Inspector) -> Self {
        let page = &block.views().metrics;
        let counters = Counters::load(page);
        let diagnosis = block.diagnose();
        let consumers = &diagnosis.consumers;
        let capacity = u64::from(block.descriptor().spec.slot_count);
        let occupancy = diagnosis.indices.occupancy;
        let live =
            |field: fn(&ConsumerInfo) -> u64| consumers.iter().map(field).fold(0_u64, u64::saturating_add);
        let reads = counters.total_slots_read_retired.saturating_add(live(|row| row.slots_consumed));
        // What is aborted was taken.
        let failed_writes = counters
            .writer_timeout_count
            .saturating_add(counters.writer_refused_count)
            .saturating_add(counters.slots_aborted);
        let failed_reads = counters.reader_timeout_count.saturating_add(counters.reader_not_ready_count);
        Self {
            total_writes_attempted: counters.writes_attempted,
            total_writes_committed: counters.total_slots_written,
            total_writes_failed: failed_writes,
            total_reads_attempted: reads.saturating_add(failed_reads),
            total_reads_completed: reads,
            total_reads_failed: failed_reads,
            total_bytes_written: counters.total_bytes_written,
            total_bytes_read: counters
                .total_bytes_read_retired
                .saturating_add(live(|row| row.bytes_consumed)),
            queue_occupancy: occupancy,
            queue_capacity: capacity,
            queue_utilization_percent: percent(occupancy, capacity),
            active_consumer_count: count(consumers, |row| row.holds_back() && !row.is_dead()),
            peak_consumer_count: counters.peak_consumer_count,
            checksum_errors: counters.checksum_failures,
            timeout_errors: counters.writer_timeout_count.saturating_add(counters.reader_timeout_count),
            write_latency: Latency::load_write(page),
            read_latency: Latency::load_read(page),
            last_write_time: counters.last_write_ns,
            last_read_time: counters.last_read_ns,
            metrics_collection_time: block.now(),
            huge_pages: block.descriptor().page_mode != PageMode::Base,
            taint: diagnosis.block.taint,
            rates: None,
            healthy: diagnosis.healthy,
            counters,
            consumers: ConsumerCounts {
                alive: count(consumers, |row| !row.is_dead() && !row.stale && row.state != "evicted"),
                stale: count(consumers, |row| !row.is_dead() && row.stale && row.state != "evicted"),
                dead: count(consumers, ConsumerInfo::is_dead),
                evicted: count(consumers, |row| !row.is_dead() && row.state == "evicted"),
            },
            stuck_slots: u32::try_from(diagnosis.summary.stuck).unwrap_or(u32::MAX),
            writer_heartbeat_age_seconds: diagnosis.writer.heartbeat_age.map(|age| age.as_secs_f64()),
            lags: consumers.iter().map(ConsumerLag::of).collect(),
        }
    }

    /// The same with what `window`, which has observed it, says about the last minute.
    #[must_use]
    pub fn with_window(mut self, window: &RateWindow) -> Self {
        self.rates = window.rates();
        self.healthy &= !window.checksums_failed();
        self
    }

    /// Whether data could not be taken or was given up.
    pub fn has_overflow(&self) -> bool {
        let Counters { writer_timeout_count, slots_dropped_oldest, slots_skipped_held, .. } = self.counters;
        writer_timeout_count != 0 || slots_dropped_oldest != 0 || slots_skipped_held != 0
    }

    /// The share of write acquires that ended in a timeout, 0 to 1.
    pub fn writer_timeout_rate(&self) -> f64 {
        percent(self.counters.writer_timeout_count, self.counters.writes_attempted) / 100.0
    }

    /// Whether the block is in use, its writer not dead, nothing stuck, nobody dead, nothing tainted, and no impossible
    /// word or wrong digest was met of late.
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }
}

impl ConsumerLag {
    fn of(consumer: &ConsumerInfo) -> Self {
        let name =
            if consumer.uid.is_empty() { format!("row {}", consumer.row) } else { consumer.uid.clone() };
        Self {
            consumer: name,
            row: consumer.row,
            lag: consumer.lag,
            heartbeat_age_seconds: consumer.heartbeat_age.map(|age| age.as_secs_f64()),
        }
    }
}

fn count(consumers: &[ConsumerInfo], matches: impl Fn(&ConsumerInfo) -> bool) -> u32 {
    consumers.iter().filter(|row| matches(row)).count() as u32
}

/// `part` in percent of `whole`; 0 of nothing, at most 100: the two were not loaded at once.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 * 100.0 / whole as f64).min(100.0) }
}

fn nanos<S: Serializer>(time: &Nanos, to: S) -> Result<S::Ok, S::Error> {
    as_text(&time.as_u64(), to)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: DH-245.
    #[test]
    fn ratios_of_words_loaded_at_different_times_stay_in_range() {
        assert_eq!([percent(0, 0), percent(1, 0), percent(3, 4), percent(9, 4)], [0.0, 0.0, 75.0, 100.0]);
        let mut metrics = HubMetrics::default();
        assert!(!metrics.has_overflow() && metrics.writer_timeout_rate() == 0.0);
        metrics.counters.writer_timeout_count = 42;
        metrics.counters.writes_attempted = 1_000;
        assert!(metrics.has_overflow());
        assert_eq!(metrics.writer_timeout_rate(), 0.042);
        for change in [
            |counters: &mut Counters| counters.slots_dropped_oldest = 1,
            |counters: &mut Counters| counters.slots_skipped_held = 1,
        ] {
            let mut metrics = HubMetrics::default();
            change(&mut metrics.counters);
            assert!(metrics.has_overflow());
        }
    }
}
