//! What the vertex says about itself to those who watch it.

use std::collections::BTreeMap;

use super::{LaneState, Partition, Report, Vertex};
use crate::{
    config::Pipeline,
    operate::{
        Wish,
        histogram::Histogram,
        status::{Counts, LaneStatus, MemoryTerm, PartitionState, PartitionStatus, Status},
    },
};

/// Times and sizes since the start.
pub(super) struct Meter {
    /// Bytes of values that were read.
    pub(super) read_bytes: u64,
    /// Batches that were sent again because the worker took their generation for stale.
    pub(super) resubmitted: u64,
    /// From the publication of a batch to its answer.
    pub(super) roundtrip: Histogram,
    /// Records of batches that were sent.
    pub(super) records: Histogram,
    /// Bytes of their payloads.
    pub(super) bytes: Histogram,
    /// Calls of sinks.
    pub(super) sink: Histogram,
    /// Commits.
    pub(super) commit: Histogram,
}

impl Meter {
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        Self {
            read_bytes: 0,
            resubmitted: 0,
            roundtrip: Histogram::of_times(),
            records: Histogram::up_to(pipeline.batch.max_records.get().into()),
            bytes: Histogram::up_to(pipeline.batch.max_bytes.0),
            sink: Histogram::of_times(),
            commit: Histogram::of_times(),
        }
    }

    fn histograms(&self) -> BTreeMap<String, Histogram> {
        let all = [
            ("roundtrip_seconds", &self.roundtrip),
            ("batch_records", &self.records),
            ("batch_bytes", &self.bytes),
            ("sink_seconds", &self.sink),
            ("commit_seconds", &self.commit),
        ];
        all.map(|(name, histogram)| (name.to_owned(), histogram.clone())).into()
    }
}

/// The terms of the memory bound (VX-310).
pub(super) fn memory(pipeline: &Pipeline, partitions: u32) -> Vec<MemoryTerm> {
    let transport = pipeline.transport();
    let rings = 2 * (transport.ring + SEGMENT) * u64::from(pipeline.udf.workers.get());
    let fence = SEGMENT + 64 * u64::from(partitions.max(super::MIN_SLOTS));
    let terms = [
        ("rings", rings),
        ("fence", fence),
        ("prefetch", pipeline.limits.prefetch.0),
        ("epoch_buffers", pipeline.limits.epoch_buffers.0),
        ("ledger_cache", if pipeline.ledger.is_some() { LEDGER_CACHE } else { 0 }),
        ("fixed", FIXED),
    ];
    terms.map(|(term, bound)| MemoryTerm { term: term.to_owned(), bound, used: None }).into()
}

impl Vertex {
    /// What there is to know now.
    pub(super) fn status(&self) -> Status {
        let Self { pipeline, report, meter, .. } = self;
        Status {
            pipeline: pipeline.pipeline.name.clone(),
            pid: std::process::id(),
            delivery: pipeline.pipeline.delivery.name().to_owned(),
            partitions: self.partitions.iter().map(|partition| self.partition_status(partition)).collect(),
            lanes: (0..).zip(&self.lanes).map(|(number, lane)| lane_status(number, lane)).collect(),
            counts: counts(report, meter),
            memory: memory(pipeline, self.source.partitions()),
            histograms: meter.histograms(),
            ..Status::default()
        }
    }

    fn partition_status(&self, partition: &Partition) -> PartitionStatus {
        let stopped = self.report.stopped.iter().find(|(number, ..)| *number == partition.id.0);
        PartitionStatus {
            partition: partition.id.0,
            state: self.state(partition),
            generation: partition.guard.generation().0,
            revoked: partition.guard.is_revoked(),
            epoch_current: partition.committed.epoch.0 + 1,
            epochs_pending: 0,
            epoch_committed: partition.committed.epoch.0,
            resume: partition.committed.resume.0,
            unfinished: partition.flow.inputs(),
            batches: partition.flow.len() as u64,
            source_pending: self.source.pending(partition.id),
            stopped: stopped.map(|(_, position, reason)| (*position, reason.clone())),
        }
    }

    fn state(&self, partition: &Partition) -> PartitionState {
        let rests = partition.flow.is_empty();
        match self.board.wish(partition.id) {
            _ if partition.guard.is_revoked() => PartitionState::Fenced,
            _ if partition.flow.is_stopped() => PartitionState::Stopped,
            _ if partition.at_end && rests => PartitionState::Finished,
            Wish::Drain => PartitionState::Draining,
            Wish::Pause => PartitionState::Paused,
            Wish::Run => PartitionState::Active,
        }
    }
}

fn counts(report: &Report, meter: &Meter) -> Counts {
    Counts {
        read: report.read,
        read_bytes: meter.read_bytes,
        delivered: report.delivered,
        filtered: report.filtered,
        dead: 0,
        dropped: report.dropped,
        outputs: report.outputs,
        stale: report.stale,
        resubmitted: meter.resubmitted,
        restarts: report.restarts,
    }
}

fn lane_status(number: u32, lane: &LaneState) -> LaneStatus {
    let mut status = LaneStatus {
        lane: number,
        ready: lane.session.is_some(),
        restarts: lane.ended,
        last_error: lane.last_end.clone(),
        in_flight: lane.sent.len() as u64,
        printed: lane.lane.tail().text(),
        ..LaneStatus::default()
    };
    if let Some(session) = &lane.session {
        status.pid = Some(session.worker().pid);
        (status.requests, status.answers) = session.credits();
    }
    status
}

/// Header of a segment.
const SEGMENT: u64 = 4096;
/// What the ledger keeps in memory.
const LEDGER_CACHE: u64 = 64 << 20;
/// Code, stacks of threads, and everything that does not grow with what is configured.
const FIXED: u64 = 64 << 20;
