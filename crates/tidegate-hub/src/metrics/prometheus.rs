//! The numbers of blocks as Prometheus reads them (17.4), in the OpenMetrics text format.
//!
//! [`BlockMetrics`] is a collector: registered once, it looks at the blocks each time somebody asks. Blocks are mapped
//! read-only and only while they are looked at, so that one that vanishes is simply not there the next time (DH-250).
//! Whoever has other numbers (a broker, tensor streams) registers a collector of its own beside it.

use std::{fmt, path::PathBuf};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{Counters, Histogram, HubMetrics, Latency, histogram::BUCKETS};
use crate::{
    block::{AttachOptions, DEFAULT_DIR, Role, names},
    inspect::Inspector,
    layout::{LAYOUT_MAJOR, PageMode},
};

/// All readable blocks of a directory.
#[derive(Debug)]
pub struct BlockMetrics {
    dir: PathBuf,
    only: Option<Vec<String>>,
}

impl Default for BlockMetrics {
    fn default() -> Self {
        Self::in_dir(DEFAULT_DIR.into())
    }
}

impl BlockMetrics {
    /// All blocks of `dir` that this user may read.
    pub fn in_dir(dir: PathBuf) -> Self {
        Self { dir, only: None }
    }

    /// The blocks `names` in `dir`.
    pub fn of(dir: PathBuf, names: Vec<String>) -> Self {
        Self { dir, only: Some(names) }
    }

    /// What they say, as text.
    ///
    /// # Errors
    /// None but those of writing to a `String`.
    pub fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        exposition(&registry)
    }

    fn look(&self) -> Vec<Sample> {
        let names = match &self.only {
            Some(names) => names.clone(),
            // A directory that cannot be read has no blocks to tell about.
            None => names(&self.dir).unwrap_or_default(),
        };
        let options = AttachOptions { dir: self.dir.clone(), ..AttachOptions::new(Role::Inspector) };
        let samples =
            names.iter().filter_map(|name| Some(Sample::of(&Inspector::open(name, &options).ok()?)));
        samples.collect()
    }
}

/// What all collectors of `registry` say, as text.
///
/// # Errors
/// None but those of writing to a `String`.
pub fn exposition(registry: &Registry) -> Result<String, fmt::Error> {
    let mut body = String::new();
    text::encode(&mut body, registry)?;
    Ok(body)
}

impl Collector for BlockMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let samples = self.look();
        for counter in COUNTERS {
            let kind = MetricType::Counter;
            let mut metric = encoder.encode_descriptor(counter.name, counter.help, None, kind)?;
            for sample in &samples {
                for (label, value) in counter.values {
                    let number = value(&sample.metrics);
                    sample.labelled(&mut metric, *label, |mut metric| {
                        metric.encode_counter::<NoLabelSet, _, u64>(&number, None)
                    })?;
                }
            }
        }
        encode_seconds(&mut encoder, &samples)?;
        for gauge in GAUGES {
            let mut metric = encoder.encode_descriptor(gauge.name, gauge.help, None, MetricType::Gauge)?;
            for sample in &samples {
                for (label, value) in gauge.values {
                    let number = value(&sample.metrics);
                    sample.labelled(&mut metric, *label, |mut metric| metric.encode_gauge(&number))?;
                }
            }
        }
        encode_consumers(&mut encoder, &samples)?;
        encode_latencies(&mut encoder, &samples, Side::Write)?;
        encode_latencies(&mut encoder, &samples, Side::Read)?;
        encode_info(&mut encoder, &samples)
    }
}

/// The numbers of one block and its labels.
struct Sample {
    block: String,
    channel: String,
    info: [(&'static str, String); 5],
    metrics: HubMetrics,
}

impl Sample {
    fn of(block: &Inspector) -> Self {
        let descriptor = block.descriptor();
        let spec = &descriptor.spec;
        let pages = match descriptor.page_mode {
            PageMode::Base => "base",
            PageMode::TransparentHuge => "transparent_huge",
            PageMode::Hugetlb => "hugetlb",
        };
        let schema: String = spec.schema.slot_hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self {
            block: block.name(),
            channel: spec.channel.to_string(),
            info: [
                ("layout", format!("{LAYOUT_MAJOR}.{}", descriptor.layout_minor)),
                ("policy", spec.policy.to_string()),
                ("sync", spec.sync.to_string()),
                ("pages", pages.to_owned()),
                ("schema", schema),
            ],
            metrics: block.metrics(),
        }
    }

    /// Runs `encode` for the labels of this block and one more.
    fn labelled(
        &self,
        metric: &mut MetricEncoder<'_>,
        label: Option<(&str, &str)>,
        encode: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut labels = vec![("block", self.block.as_str()), ("channel", self.channel.as_str())];
        labels.extend(label);
        encode(metric.encode_family(&labels)?)
    }
}

/// One value: a label that only this one has, and where to find it.
type Value<V> = (Option<(&'static str, &'static str)>, fn(&HubMetrics) -> V);

/// A metric with one value, or one for each value of a label.
struct Metric<V: 'static> {
    name: &'static str,
    help: &'static str,
    values: &'static [Value<V>],
}

const fn one<V>(name: &'static str, help: &'static str, values: &'static [Value<V>]) -> Metric<V> {
    Metric { name, help, values }
}

// Counters get `_total` at the end of their names.
const COUNTERS: &[Metric<u64>] = &[
    one("tidegate_hub_writes", "Slots committed", &[(None, |m| m.total_writes_committed)]),
    one("tidegate_hub_reads", "Slots read", &[(None, |m| m.total_reads_completed)]),
    one("tidegate_hub_bytes_written", "Bytes committed", &[(None, |m| m.total_bytes_written)]),
    one("tidegate_hub_bytes_read", "Bytes read", &[(None, |m| m.total_bytes_read)]),
    one(
        "tidegate_hub_write_timeouts",
        "Write acquires that timed out",
        &[
            (Some(("cause", "full")), |m| m.counters.writer_full_timeout_count),
            (Some(("cause", "held")), |m| m.counters.writer_drain_timeout_count),
        ],
    ),
    one(
        "tidegate_hub_write_refusals",
        "Write acquires that found the ring full and did not wait",
        &[(None, |m| m.counters.writer_refused_count)],
    ),
    one(
        "tidegate_hub_slots_lost",
        "Ids that some consumer never saw",
        &[
            (Some(("reason", "lapped")), |m| m.counters.reader_lapped_slots),
            (Some(("reason", "dropped")), |m| m.counters.slots_dropped_oldest),
            (Some(("reason", "skipped")), |m| m.counters.slots_skipped_held),
            (Some(("reason", "aborted")), |m| m.counters.slots_aborted),
            (Some(("reason", "unobserved")), |m| m.counters.slots_unobserved),
        ],
    ),
    one(
        "tidegate_hub_reader_races",
        "Claims withdrawn because the slot had just been taken",
        &[(None, |m| m.counters.reader_race_detected)],
    ),
    one(
        "tidegate_hub_reader_not_ready",
        "Reads that met a slot between two values",
        &[(None, |m| m.counters.reader_not_ready_count)],
    ),
    one(
        "tidegate_hub_validation_failures",
        "Slots that changed while they were read",
        &[(None, |m| m.counters.reader_validation_failed)],
    ),
    one(
        "tidegate_hub_checksum_failures",
        "Digests that did not match",
        &[(None, |m| m.counters.checksum_failures)],
    ),
    one(
        "tidegate_hub_state_errors",
        "Impossible words that were met",
        &[(None, |m| m.counters.state_transition_errors)],
    ),
    one(
        "tidegate_hub_schema_mismatches",
        "Uses refused for the schema",
        &[(None, |m| m.counters.schema_mismatch_count)],
    ),
    one("tidegate_hub_attach_rejections", "Attaches refused", &[(None, |m| m.counters.attach_rejections)]),
    one("tidegate_hub_errors", "Recorded errors", &[(None, |m| m.counters.error_sequence)]),
    one(
        "tidegate_hub_zmq_failures",
        "Messages that failed",
        &[
            (Some(("kind", "send")), |m| m.counters.zmq_send_failures),
            (Some(("kind", "recv")), |m| m.counters.zmq_recv_failures),
            (Some(("kind", "timeout")), |m| m.counters.zmq_timeout_count),
        ],
    ),
    one(
        "tidegate_hub_recovery_actions",
        "Steps of recovery",
        &[
            (Some(("forced", "0")), |m| unforced(&m.counters)),
            (Some(("forced", "1")), |m| m.counters.forced_actions),
        ],
    ),
    one(
        "tidegate_hub_lock_takeovers",
        "Locks taken from dead owners",
        &[(None, |m| m.counters.lock_takeovers)],
    ),
];

const GAUGES: &[Metric<f64>] = &[
    one(
        "tidegate_hub_last_error_code",
        "Code of the last recorded error",
        &[(None, |m| m.counters.last_error_code as f64)],
    ),
    one(
        "tidegate_hub_occupancy_slots",
        "Slots between the floor and the next id",
        &[(None, |m| m.queue_occupancy as f64)],
    ),
    one("tidegate_hub_capacity_slots", "Slots", &[(None, |m| m.queue_capacity as f64)]),
    one(
        "tidegate_hub_occupancy_percent",
        "Occupancy in percent of the capacity",
        &[(None, |m| m.queue_utilization_percent)],
    ),
    one(
        "tidegate_hub_consumers",
        "Consumers by their condition",
        &[
            (Some(("state", "alive")), |m| m.consumers.alive.into()),
            (Some(("state", "stale")), |m| m.consumers.stale.into()),
            (Some(("state", "dead")), |m| m.consumers.dead.into()),
            (Some(("state", "evicted")), |m| m.consumers.evicted.into()),
        ],
    ),
    one("tidegate_hub_stuck_slots", "Slots that are stuck", &[(None, |m| m.stuck_slots.into())]),
    one("tidegate_hub_healthy", "1 if nothing is wrong", &[(None, |m| f64::from(u8::from(m.healthy)))]),
];

fn unforced(counters: &Counters) -> u64 {
    counters.recovery_actions.saturating_sub(counters.forced_actions)
}

fn encode_seconds(encoder: &mut DescriptorEncoder<'_>, samples: &[Sample]) -> fmt::Result {
    let name = "tidegate_hub_write_blocked_seconds";
    let help = "Time spent waiting in write acquires";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for sample in samples {
        let seconds = sample.metrics.counters.writer_blocked_total_ns as f64 / NANOS;
        sample.labelled(&mut metric, None, |mut metric| {
            metric.encode_counter::<NoLabelSet, _, u64>(&seconds, None)
        })?;
    }
    Ok(())
}

fn encode_consumers(encoder: &mut DescriptorEncoder<'_>, samples: &[Sample]) -> fmt::Result {
    let name = "tidegate_hub_consumer_lag_slots";
    let mut metric =
        encoder.encode_descriptor(name, "Resolved ids not yet consumed", None, MetricType::Gauge)?;
    for sample in samples {
        for lag in &sample.metrics.lags {
            // Two consumers may have given the same name, and a series must not occur twice.
            let consumer = format!("{}/{}", lag.row, lag.consumer);
            sample.labelled(&mut metric, Some(("consumer", &consumer)), |mut metric| {
                metric.encode_gauge(&lag.lag)
            })?;
        }
    }
    let name = "tidegate_hub_heartbeat_age_seconds";
    let mut metric = encoder.encode_descriptor(name, "Since the last heartbeat", None, MetricType::Gauge)?;
    for sample in samples {
        let writer = sample.metrics.writer_heartbeat_age_seconds.map(|age| ("producer".to_owned(), age));
        let consumers = sample
            .metrics
            .lags
            .iter()
            .filter_map(|lag| Some((format!("consumer {}", lag.row), lag.heartbeat_age_seconds?)));
        for (role, age) in writer.into_iter().chain(consumers) {
            sample.labelled(&mut metric, Some(("role", &role)), |mut metric| metric.encode_gauge(&age))?;
        }
    }
    Ok(())
}

/// Whose latencies.
#[derive(Clone, Copy)]
enum Side {
    Write,
    Read,
}

fn encode_latencies(encoder: &mut DescriptorEncoder<'_>, samples: &[Sample], side: Side) -> fmt::Result {
    let (name, help) = match side {
        Side::Write => ("tidegate_hub_write_latency_seconds", "From allocating to committing, sampled"),
        Side::Read => ("tidegate_hub_read_latency_seconds", "From acquiring to letting go, sampled"),
    };
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for sample in samples {
        let latency = match side {
            Side::Write => &sample.metrics.write_latency,
            Side::Read => &sample.metrics.read_latency,
        };
        sample.labelled(&mut metric, None, |metric| encode_latency(metric, latency))?;
    }
    Ok(())
}

fn encode_latency(mut metric: MetricEncoder<'_>, latency: &Latency) -> fmt::Result {
    let counts = latency.histogram.counts();
    // Anything may stand in the block; the sum must not overflow.
    let limited =
        |bucket: usize| counts.get(bucket).map_or(0, |count| (*count).min(u64::MAX / BUCKETS as u64));
    let mut buckets: Vec<(f64, u64)> =
        (0..BUCKETS - 1).map(|bucket| (Histogram::upper_bound(bucket) / NANOS, limited(bucket))).collect();
    buckets.push((f64::INFINITY, limited(BUCKETS - 1)));
    let total = buckets.iter().map(|(_, count)| count).sum();
    metric.encode_histogram::<NoLabelSet>(latency.sum_ns as f64 / NANOS, total, &buckets, None)
}

fn encode_info(encoder: &mut DescriptorEncoder<'_>, samples: &[Sample]) -> fmt::Result {
    let name = "tidegate_hub_info";
    let mut metric = encoder.encode_descriptor(name, "What the block is", None, MetricType::Gauge)?;
    for sample in samples {
        let mut labels = vec![("block", sample.block.as_str()), ("channel", sample.channel.as_str())];
        labels.extend(sample.info.iter().map(|(label, value)| (*label, value.as_str())));
        metric.encode_family(&labels)?.encode_gauge(&1_u64)?;
    }
    Ok(())
}

const NANOS: f64 = 1e9;
