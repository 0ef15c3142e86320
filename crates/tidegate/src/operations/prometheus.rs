//! The numbers of a vertex for Prometheus (VX-862).

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use tidegate_vertex::operate::histogram::Histogram;
use tidegate_vertex::operate::status::{Counts, LaneStatus, PartitionState, PartitionStatus, Status};

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
type OfLane = (&'static str, &'static str, fn(&LaneStatus) -> u64);

const COUNTS: [Count; 11] = [
    ("read_records", "Inputs read", |counts| counts.read),
    ("read_bytes", "Bytes of inputs", |counts| counts.read_bytes),
    ("delivered", "Inputs whose outputs were given to sinks", |counts| counts.delivered),
    ("filtered", "Inputs without outputs", |counts| counts.filtered),
    ("dlq", "Inputs given to the dead-letter sink", |counts| counts.dead),
    ("dropped", "Inputs left out as configured", |counts| counts.dropped),
    ("source_lost", "Records that the source lost before they could be read", |counts| counts.lost),
    ("outputs", "Outputs given to sinks", |counts| counts.outputs),
    ("stale_dropped", "Answers of a generation that was over", |counts| counts.stale),
    ("resubmitted", "Batches sent again because the worker took their generation for stale", |counts| {
        counts.resubmitted
    }),
    ("sink_retries", "Calls of sinks that took less than all", |counts| counts.sink_retries),
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
        let mut refused =
            descriptor(&mut encoder, "permits_refused", "Writes after a revoke", MetricType::Counter)?;
        for (kind, count) in &status.counts.permits_refused {
            let labels = [pipeline, ("kind", kind.as_str())];
            refused.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        let mut lost = descriptor(
            &mut encoder,
            "sink_lost",
            "Outputs that a sink which is not required did not get",
            MetricType::Counter,
        )?;
        for sink in &status.sinks {
            let labels = [pipeline, ("sink", sink.sink.as_str())];
            lost.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&sink.lost, None)?;
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
    use tidegate_vertex::operate::status::{Credit, SinkStatus};

    use super::*;

    /// Rules: VX-862.
    #[test]
    fn the_page_has_counts_partitions_lanes_and_times() {
        let mut times = Histogram::of_times();
        times.add(1_500);
        let credit = Credit { granted_bytes: 77, ..Credit::default() };
        let partition =
            PartitionStatus { partition: 3, generation: 9, lease_ms: Some(1_500), ..Default::default() };
        let lane =
            LaneStatus { lane: 1, restarts: 2, panics: 3, timeouts: 4, sleeps: 5, ..Default::default() };
        let status = Status {
            pipeline: "orders".to_owned(),
            partitions: vec![partition],
            lanes: vec![LaneStatus { requests: credit, ..lane }],
            sinks: vec![SinkStatus { sink: "main".to_owned(), lost: 8, ..SinkStatus::default() }],
            counts: Counts {
                read: 5,
                delivered: 4,
                filtered: 1,
                sink_retries: 6,
                permits_refused: [("sink".to_owned(), 7)].into(),
                ..Counts::default()
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
            "tidegate_vx_sink_retries_total{pipeline=\"orders\"} 6",
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
