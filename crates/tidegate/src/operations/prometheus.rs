//! The numbers of a vertex for Prometheus (VX-862).

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use tidegate_vertex::operate::histogram::Histogram;
use tidegate_vertex::operate::status::{
    Counts, LaneStatus, PartitionState, PartitionStatus, SinkStatus, Status,
};

/// The content type.
pub(super) const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The page.
pub(super) fn exposition(status: Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tidegate_vx");
    registry.register_collector(Box::new(Numbers(status)));
    let mut body = String::new();
    prometheus_client::encoding::text::encode(&mut body, &registry)?;
    Ok(body)
}

#[derive(Debug)]
struct Numbers(Status);

type Count = (&'static str, &'static str, fn(&Counts) -> u64);
type OfPartition = (&'static str, &'static str, fn(&PartitionStatus) -> Option<u64>);
type OfSink = (&'static str, &'static str, fn(&SinkStatus) -> u64);
type Labelled = (&'static str, &'static str, &'static str, fn(&Counts) -> &BTreeMap<String, u64>);
type OfLane = (&'static str, &'static str, fn(&LaneStatus) -> u64);

const COUNTS: [Count; 10] = [
    ("read_records", "Inputs read", |counts| counts.read),
    ("read_bytes", "Bytes of inputs", |counts| counts.read_bytes),
    ("delivered", "Inputs whose outputs were given to sinks", |counts| counts.delivered),
    ("filtered", "Inputs without outputs", |counts| counts.filtered),
    ("nacked", "Inputs given back to the source", |counts| counts.nacked),
    ("source_lost", "Records that the source lost before they could be read", |counts| counts.lost),
    ("source_left_out", "What the source had that is no record of it", |counts| counts.left_out),
    ("outputs", "Outputs given to sinks", |counts| counts.outputs),
    ("stale_dropped", "Answers of a generation that was over", |counts| counts.stale),
    ("resubmitted", "Batches sent again because the worker took their generation for stale", |counts| {
        counts.resubmitted
    }),
];

const PARTITIONS: [OfPartition; 8] = [
    ("generation", "Ownership session", |partition| Some(partition.generation)),
    ("fenced", "1 when the right to write was taken away", |partition| Some(partition.revoked.into())),
    ("partition_active", "1 when it is read and processed", |partition| {
        Some((partition.state == PartitionState::Active).into())
    }),
    ("epoch_current", "Open epoch", |partition| Some(partition.epoch_current)),
    ("epoch_committed", "Last durable epoch", |partition| Some(partition.epoch_committed)),
    ("epoch_pending", "Epochs sealed and not committed", |partition| Some(partition.epochs_pending)),
    ("unfinished_records", "Inputs read that have no durable outcome", |partition| {
        Some(partition.unfinished)
    }),
    ("source_pending", "Records of the source that were not read", |partition| partition.source_pending),
];

const LANE_COUNTS: [OfLane; 4] = [
    ("udf_restarts", "Workers that ended", |lane| lane.restarts),
    ("udf_panics", "Batches in which the function panicked", |lane| lane.panics),
    ("udf_timeouts", "Workers ended because a batch took too long", |lane| lane.timeouts),
    ("futex_waits", "Sleeps of the thread that takes answers", |lane| lane.sleeps),
];

const SINK_COUNTS: [OfSink; 4] = [
    ("sink_outputs", "Outputs that the sink has taken", |sink| sink.outputs),
    ("sink_retries", "Calls in which the sink took less than all", |sink| sink.retries),
    ("sink_readback_found", "Outputs of earlier sessions that were visible already", |sink| {
        sink.readback_found
    }),
    ("sink_lost", "Outputs that a sink which is not required did not get", |sink| sink.lost),
];

/// Counts with a label: name, help, the label, and the count of each of its values.
const LABELLED: [Labelled; 4] = [
    ("dlq", "Inputs given to the dead-letter sink", "class", |counts| &counts.dead_by),
    ("dropped", "Inputs left out as configured", "reason", |counts| &counts.dropped_by),
    ("fences", "Sessions that lost their right to write", "reason", |counts| &counts.fences),
    ("permits_refused", "Writes after a revoke", "kind", |counts| &counts.permits_refused),
];

const LANES: [OfLane; 10] = [
    ("worker_state", "1 when a worker is attached", |lane| lane.ready.into()),
    ("worker_suspect", "1 when a worker is attached and does not beat", |lane| lane.suspect.into()),
    ("in_flight_batches", "Batches sent and not answered", |lane| lane.in_flight),
    ("credit_granted_bytes", "Request bytes that the worker has granted", |lane| lane.requests.granted_bytes),
    ("credit_used_bytes", "Request bytes published", |lane| lane.requests.used_bytes),
    ("credit_outstanding_bytes", "Request bytes not consumed", |lane| lane.requests.outstanding_bytes),
    ("credit_granted_batches", "Request batches that the worker has granted", |lane| {
        lane.requests.granted_batches
    }),
    ("credit_used_batches", "Request batches published", |lane| lane.requests.used_batches),
    ("credit_outstanding_batches", "Request batches not consumed", |lane| lane.requests.outstanding_batches),
    ("answer_outstanding_bytes", "Answer bytes not consumed", |lane| lane.answers.outstanding_bytes),
];

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let status = &self.0;
        let pipeline = ("pipeline", status.pipeline.as_str());
        for (name, help, value) in COUNTS {
            let mut metric = descriptor(&mut encoder, name, help, MetricType::Counter)?;
            metric
                .encode_family(&[pipeline])?
                .encode_counter::<NoLabelSet, _, u64>(&value(&status.counts), None)?;
        }
        for (name, help, value) in PARTITIONS {
            let mut metric = descriptor(&mut encoder, name, help, MetricType::Gauge)?;
            for partition in &status.partitions {
                let number = partition.partition.to_string();
                if let Some(value) = value(partition) {
                    metric
                        .encode_family(&[pipeline, ("partition", number.as_str())])?
                        .encode_gauge(&value)?;
                }
            }
        }
        for (name, help, value) in LANE_COUNTS {
            let mut metric = descriptor(&mut encoder, name, help, MetricType::Counter)?;
            for lane in &status.lanes {
                let labels = [pipeline, ("lane", &*lane.lane.to_string())];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(lane), None)?;
            }
        }
        for (name, help, label, counts) in LABELLED {
            let mut metric = descriptor(&mut encoder, name, help, MetricType::Counter)?;
            for (value, count) in counts(&status.counts) {
                let labels = [pipeline, (label, value.as_str())];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        let help = "Time in which a batch was there and the worker took no more";
        let mut wait = descriptor(&mut encoder, "credit_wait_seconds", help, MetricType::Counter)?;
        for lane in &status.lanes {
            let labels = [pipeline, ("lane", &*lane.lane.to_string()), ("side", "runtime")];
            let seconds = lane.credit_wait_ns as f64 / 1e9;
            wait.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        let help = "What the function counts, by the names that it gives";
        let mut counter = descriptor(&mut encoder, "udf_counter", help, MetricType::Counter)?;
        for (name, count) in &status.function.counters {
            let labels = [pipeline, ("name", name.as_str())];
            counter.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        let function = &status.function;
        for (name, help, count) in [
            ("udf_counters_left_out", "Values of counters with too many names", function.counters_left_out),
            (
                "udf_lines_left_out",
                "Lines of the function that did not come into the log",
                function.lines_left_out,
            ),
        ] {
            let mut metric = descriptor(&mut encoder, name, help, MetricType::Counter)?;
            metric.encode_family(&[pipeline])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        for (name, help, value) in SINK_COUNTS {
            let mut metric = descriptor(&mut encoder, name, help, MetricType::Counter)?;
            for sink in &status.sinks {
                let labels = [pipeline, ("sink", sink.sink.as_str())];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(sink), None)?;
            }
        }
        let help = "Outputs that wait for the sink to take them";
        let mut in_flight = descriptor(&mut encoder, "sink_inflight", help, MetricType::Gauge)?;
        for sink in &status.sinks {
            in_flight
                .encode_family(&[pipeline, ("sink", sink.sink.as_str())])?
                .encode_gauge(&sink.in_flight)?;
        }
        let mut seconds = descriptor(&mut encoder, "sink_seconds", "Calls of sinks", MetricType::Histogram)?;
        for sink in &status.sinks {
            encode(
                &mut seconds.encode_family(&[pipeline, ("sink", sink.sink.as_str())])?,
                true,
                &sink.seconds,
            )?;
        }
        let mut lease =
            descriptor(&mut encoder, "lease_remaining_seconds", "Time left of the lease", MetricType::Gauge)?;
        for partition in &status.partitions {
            if let Some(milliseconds) = partition.lease_ms {
                let labels = [pipeline, ("partition", &*partition.partition.to_string())];
                lease.encode_family(&labels)?.encode_gauge(&(milliseconds as f64 / 1e3))?;
            }
        }
        for (name, help, value) in LANES {
            let mut metric = descriptor(&mut encoder, name, help, MetricType::Gauge)?;
            for lane in &status.lanes {
                let labels = [pipeline, ("lane", &*lane.lane.to_string())];
                metric.encode_family(&labels)?.encode_gauge(&value(lane))?;
            }
        }
        let mut memory =
            descriptor(&mut encoder, "memory_bytes", "Bound of each term of memory", MetricType::Gauge)?;
        for term in &status.memory {
            memory.encode_family(&[pipeline, ("term", term.term.as_str())])?.encode_gauge(&term.bound)?;
        }
        let help = "What is used of it, where that is counted";
        let mut used = descriptor(&mut encoder, "memory_used_bytes", help, MetricType::Gauge)?;
        for term in &status.memory {
            if let Some(bytes) = term.used {
                used.encode_family(&[pipeline, ("term", term.term.as_str())])?.encode_gauge(&bytes)?;
            }
        }
        for (name, histogram) in &status.histograms {
            let mut metric = descriptor(&mut encoder, name, "Values so far", MetricType::Histogram)?;
            encode(&mut metric.encode_family(&[pipeline])?, name.ends_with("_seconds"), histogram)?;
        }
        Ok(())
    }
}

fn descriptor<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &'a str,
    kind: MetricType,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    encoder.encode_descriptor(name, help, None::<&Unit>, kind)
}

/// Times are counted in nanoseconds and told in seconds.
fn encode(to: &mut MetricEncoder<'_>, seconds: bool, histogram: &Histogram) -> Result<(), fmt::Error> {
    let value = |value: u64| if seconds { value as f64 / 1e9 } else { value as f64 };
    let bounds = histogram.bounds.iter().map(|&bound| value(bound)).chain([f64::MAX]);
    let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts.iter().copied()).collect();
    to.encode_histogram::<NoLabelSet>(value(histogram.sum), histogram.count(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use tidegate_vertex::operate::status::{Credit, FunctionStatus, MemoryTerm};

    use super::*;

    /// Rules: VX-862.
    #[test]
    fn the_page_has_counts_partitions_lanes_and_times() {
        let mut times = Histogram::of_times();
        times.add(1_500);
        let credit = Credit { granted_bytes: 77, ..Credit::default() };
        let partition =
            PartitionStatus { partition: 3, generation: 9, lease_ms: Some(1_500), ..Default::default() };
        let lane = LaneStatus {
            lane: 1,
            restarts: 2,
            panics: 3,
            timeouts: 4,
            sleeps: 5,
            credit_wait_ns: 1_500_000_000,
            ..Default::default()
        };
        let status = Status {
            pipeline: "orders".to_owned(),
            partitions: vec![partition],
            lanes: vec![LaneStatus { requests: credit, ..lane }],
            sinks: vec![SinkStatus {
                sink: "main".to_owned(),
                lost: 8,
                outputs: 12,
                in_flight: 13,
                retries: 6,
                readback_found: 14,
                seconds: times.clone(),
                ..SinkStatus::default()
            }],
            memory: vec![MemoryTerm { term: "prefetch".to_owned(), bound: 15, used: Some(16) }],
            counts: Counts {
                read: 5,
                delivered: 4,
                filtered: 1,
                nacked: 17,
                lost: 21,
                left_out: 22,
                dead_by: [("CRASHED".to_owned(), 18)].into(),
                dropped_by: [("REJECTED".to_owned(), 19)].into(),
                fences: [("operator".to_owned(), 20)].into(),
                permits_refused: [("sink".to_owned(), 7)].into(),
                ..Counts::default()
            },
            function: FunctionStatus {
                counters: [("cache/hits".to_owned(), 9)].into(),
                counters_left_out: 10,
                lines_left_out: 11,
            },
            histograms: [("roundtrip_seconds".to_owned(), times)].into(),
            ..Status::default()
        };
        let page = exposition(status).expect("text");
        for line in [
            "tidegate_vx_read_records_total{pipeline=\"orders\"} 5",
            "tidegate_vx_delivered_total{pipeline=\"orders\"} 4",
            "tidegate_vx_filtered_total{pipeline=\"orders\"} 1",
            "tidegate_vx_generation{pipeline=\"orders\",partition=\"3\"} 9",
            "tidegate_vx_udf_restarts_total{pipeline=\"orders\",lane=\"1\"} 2",
            "tidegate_vx_udf_panics_total{pipeline=\"orders\",lane=\"1\"} 3",
            "tidegate_vx_udf_timeouts_total{pipeline=\"orders\",lane=\"1\"} 4",
            "tidegate_vx_futex_waits_total{pipeline=\"orders\",lane=\"1\"} 5",
            "tidegate_vx_sink_retries_total{pipeline=\"orders\",sink=\"main\"} 6",
            "tidegate_vx_sink_outputs_total{pipeline=\"orders\",sink=\"main\"} 12",
            "tidegate_vx_sink_inflight{pipeline=\"orders\",sink=\"main\"} 13",
            "tidegate_vx_sink_readback_found_total{pipeline=\"orders\",sink=\"main\"} 14",
            "tidegate_vx_sink_seconds_count{pipeline=\"orders\",sink=\"main\"} 1",
            "tidegate_vx_memory_bytes{pipeline=\"orders\",term=\"prefetch\"} 15",
            "tidegate_vx_memory_used_bytes{pipeline=\"orders\",term=\"prefetch\"} 16",
            "tidegate_vx_nacked_total{pipeline=\"orders\"} 17",
            "tidegate_vx_source_lost_total{pipeline=\"orders\"} 21",
            "tidegate_vx_source_left_out_total{pipeline=\"orders\"} 22",
            "tidegate_vx_dlq_total{pipeline=\"orders\",class=\"CRASHED\"} 18",
            "tidegate_vx_dropped_total{pipeline=\"orders\",reason=\"REJECTED\"} 19",
            "tidegate_vx_fences_total{pipeline=\"orders\",reason=\"operator\"} 20",
            "tidegate_vx_credit_wait_seconds_total{pipeline=\"orders\",lane=\"1\",side=\"runtime\"} 1.5",
            "tidegate_vx_udf_counter_total{pipeline=\"orders\",name=\"cache/hits\"} 9",
            "tidegate_vx_udf_counters_left_out_total{pipeline=\"orders\"} 10",
            "tidegate_vx_udf_lines_left_out_total{pipeline=\"orders\"} 11",
            "tidegate_vx_sink_lost_total{pipeline=\"orders\",sink=\"main\"} 8",
            "tidegate_vx_permits_refused_total{pipeline=\"orders\",kind=\"sink\"} 7",
            "tidegate_vx_lease_remaining_seconds{pipeline=\"orders\",partition=\"3\"} 1.5",
            "tidegate_vx_credit_granted_bytes{pipeline=\"orders\",lane=\"1\"} 77",
            "tidegate_vx_roundtrip_seconds_bucket{le=\"0.000002\",pipeline=\"orders\"} 1",
            "tidegate_vx_roundtrip_seconds_count{pipeline=\"orders\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        assert!(!page.contains("source_pending{"), "it is not known");
    }
}
