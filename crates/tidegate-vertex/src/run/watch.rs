//! What the vertex says about itself to those who watch it.

use std::collections::BTreeMap;

use tidegate_udf::wire::ids::PartitionId;

use super::{
    ByClass, LaneState, Partition, Report, Vertex, VertexError, backlog::Backlog, outgoing::End,
    tenure::Tenure,
};
use crate::{
    batch::Input,
    config::Pipeline,
    fence::Reason,
    operate::{
        Wish,
        histogram::Histogram,
        status::{
            Counts, LaneStatus, MemoryTerm, OutsideStatus, PartitionState, PartitionStatus, SinkStatus,
            Status,
        },
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
    /// From the read of a batch's first record to its first publication.
    pub(super) queue: Histogram,
    /// Records of batches that were sent.
    pub(super) records: Histogram,
    /// Bytes of their payloads.
    pub(super) bytes: Histogram,
    /// From the first outcome in an epoch to its seal.
    pub(super) seal: Histogram,
    /// Transactions of the ledger that prepare an epoch.
    pub(super) persist: Histogram,
    /// From there until the sinks have confirmed it.
    pub(super) publish: Histogram,
    /// Transactions of the ledger that commit something.
    pub(super) commit: Histogram,
    /// From the first outcome to its commit.
    pub(super) commit_lag: Histogram,
    /// From a revoke until no write runs.
    pub(super) quiesce: Histogram,
    /// Sessions that lost their right to write, by the reason.
    pub(super) fences: BTreeMap<&'static str, u64>,
}

impl Meter {
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        Self {
            read_bytes: 0,
            resubmitted: 0,
            roundtrip: Histogram::of_times(),
            queue: Histogram::of_times(),
            records: Histogram::up_to(pipeline.batch.max_records.get().into()),
            bytes: Histogram::up_to(pipeline.batch.max_bytes.0),
            seal: Histogram::of_times(),
            persist: Histogram::of_times(),
            publish: Histogram::of_times(),
            commit: Histogram::of_times(),
            commit_lag: Histogram::of_times(),
            quiesce: Histogram::of_times(),
            fences: BTreeMap::new(),
        }
    }

    /// Inputs were read.
    pub(super) fn has_read(&mut self, inputs: &[Input], report: &mut Report) {
        report.read += inputs.len() as u64;
        self.read_bytes += inputs.iter().map(|input| input.record.value.len() as u64).sum::<u64>();
    }

    fn histograms(&self) -> BTreeMap<String, Histogram> {
        let all = [
            ("roundtrip_seconds", &self.roundtrip),
            ("queue_seconds", &self.queue),
            ("batch_records", &self.records),
            ("batch_bytes", &self.bytes),
            ("seal_seconds", &self.seal),
            ("persist_seconds", &self.persist),
            ("publish_seconds", &self.publish),
            ("commit_seconds", &self.commit),
            ("commit_lag_seconds", &self.commit_lag),
            ("quiesce_seconds", &self.quiesce),
        ];
        all.map(|(name, histogram)| (name.to_owned(), histogram.clone())).into()
    }
}

/// The terms of the memory bound (VX-310), with a source of so many partitions.
pub fn memory(pipeline: &Pipeline, partitions: u32) -> Vec<MemoryTerm> {
    let own = (0..partitions).filter(|partition| pipeline.may_have(PartitionId(*partition))).count();
    let transport = pipeline.transport();
    let rings = 2 * (transport.ring + SEGMENT) * u64::from(pipeline.udf.workers.get());
    let fence = SEGMENT + 64 * u64::from(partitions.max(super::MIN_SLOTS));
    let optional = pipeline.sink.iter().filter(|sink| !sink.required);
    let terms = [
        ("rings", rings),
        ("fence", fence),
        ("prefetch", pipeline.limits.prefetch.0),
        ("source_prefetch", pipeline.source.ahead(own as u32)),
        // Nobody knows how long the next one is before it is read.
        ("longest_record", pipeline.longest_record() as u64),
        ("epoch_buffers", pipeline.limits.epoch_buffers.0),
        ("sink_buffers", optional.map(|sink| sink.buffer.0).sum()),
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
            standby: self.is_on_standby(),
            partitions: self.partitions.iter().map(|partition| self.partition_status(partition)).collect(),
            lanes: (0..).zip(&self.lanes).map(|(number, lane)| lane_status(number, lane)).collect(),
            counts: Counts {
                lost: self.source.lost(),
                left_out: self.source.left_out(),
                permits_refused: self.refused(),
                ..counts(report, meter)
            },
            function: self.heard.function(),
            sinks: (0..).zip(&self.sinks).map(|(index, end)| self.sink_status(index, end)).collect(),
            outside: self.outside(),
            schemas: self.typing.status(),
            memory: self.memory(),
            histograms: meter.histograms(),
            ..Status::default()
        }
    }

    /// Whether it has no partition and would claim one that others let go (VX-870).
    fn is_on_standby(&self) -> bool {
        let may_come = |partition: &Partition| {
            partition.refused.is_none()
                && self.pipeline.may_have(partition.id)
                && !self.is_to_drain(partition.id.0 as usize)
        };
        self.manager.is_watching()
            && self.partitions.iter().all(|partition| partition.tenure.is_none())
            && self.partitions.iter().any(may_come)
    }

    /// Workers that come by themselves.
    fn outside(&self) -> Option<OutsideStatus> {
        let attached = self.lanes.iter().filter(|lane| lane.is_ready()).count();
        Some(self.door.as_ref()?.status(attached as u64, self.pipeline.udf.workers))
    }

    /// Says in the log how much memory there may be.
    pub(super) fn say_memory(&self) {
        let terms = memory(&self.pipeline, self.source.partitions());
        let bytes: u64 = terms.iter().map(|term| term.bound).sum();
        let terms: Vec<String> =
            terms.iter().map(|MemoryTerm { term, bound, .. }| format!("{term} {bound}")).collect();
        tracing::info!(bytes, terms = terms.join(", "), "memory is bounded");
    }

    /// The terms of memory with what they have now, where that is counted.
    fn memory(&self) -> Vec<MemoryTerm> {
        let tenures = || self.partitions.iter().filter_map(|partition| partition.tenure.as_ref());
        let mut terms = memory(&self.pipeline, self.source.partitions());
        for term in &mut terms {
            term.used = match term.term.as_str() {
                "rings" | "fence" => Some(term.bound),
                "prefetch" => Some(tenures().map(|tenure| tenure.flow.bytes()).sum()),
                "source_prefetch" => self.source.ahead(),
                "epoch_buffers" => Some(tenures().map(Tenure::buffered).sum()),
                "sink_buffers" => {
                    Some(self.sinks.iter().filter_map(|end| Some(end.late.as_ref()?.bytes())).sum())
                }
                _ => None,
            };
        }
        terms
    }

    fn sink_status(&self, index: usize, end: &End) -> SinkStatus {
        let late = end.late.as_ref();
        let tenures = self.partitions.iter().filter_map(|partition| partition.tenure.as_ref());
        SinkStatus {
            sink: end.config.name.clone(),
            waiting_bytes: late.map_or(0, Backlog::bytes),
            lost: late.map_or(0, Backlog::lost),
            outputs: end.meter.outputs,
            in_flight: tenures.map(|tenure| tenure.waiting(index)).sum(),
            retries: end.meter.retries,
            readback_found: end.meter.found,
            seconds: end.meter.seconds.clone(),
            ..SinkStatus::default()
        }
    }

    fn refused(&self) -> BTreeMap<String, u64> {
        self.fence.refused().map(|(kind, count)| (kind.name().to_owned(), count)).into()
    }

    fn partition_status(&self, partition: &Partition) -> PartitionStatus {
        let number = partition.id.0;
        let lane = self.pipeline.is_ordered().then(|| number % self.pipeline.udf.workers.get());
        let stopped = self.report.stopped.iter().find(|(stopped, ..)| *stopped == number);
        let stopped = stopped.map(|(_, position, reason)| (*position, reason.clone()));
        let Some(tenure) = &partition.tenure else {
            // Its last session, whose fence may have writes behind it still.
            let fenced = self.report.fenced.iter().rev().find(|(fenced, _)| *fenced == number);
            let state = match fenced {
                _ if partition.refused.is_some() => PartitionState::Stopped,
                Some(_) => PartitionState::Fenced,
                None if partition.given_away => PartitionState::Drained,
                None => PartitionState::Unowned,
            };
            let generation = fenced.map_or(0, |(_, generation)| *generation);
            let revoked = fenced.is_some();
            return PartitionStatus {
                partition: number,
                lane,
                state,
                generation,
                revoked,
                stopped,
                ..PartitionStatus::default()
            };
        };
        PartitionStatus {
            partition: number,
            lane,
            state: self.state(partition.id, tenure),
            generation: tenure.guard.generation().0,
            revoked: tenure.guard.is_revoked(),
            lease_ms: tenure.guard.lease_left().map(|left| left.0 / 1_000_000),
            epoch_current: tenure.open_epoch().0,
            epochs_pending: tenure.sealed.len() as u64,
            epoch_committed: tenure.committed.0,
            resume: tenure.resume.0,
            unfinished: tenure.unfinished(),
            batches: tenure.flow.len() as u64,
            source_pending: self.source.pending(partition.id),
            careful: tenure.careful.is_some(),
            stopped,
        }
    }

    fn state(&self, partition: PartitionId, tenure: &Tenure) -> PartitionState {
        match self.board.wish(partition).max(self.manager.wish(partition)) {
            _ if tenure.guard.is_revoked() => PartitionState::Fenced,
            Wish::Drain if self.manager.gives_back() && tenure.flow.is_stopped() => PartitionState::Draining,
            _ if tenure.flow.is_stopped() => PartitionState::Stopped,
            _ if tenure.is_over() && tenure.is_settled() => PartitionState::Finished,
            Wish::Drain => PartitionState::Draining,
            Wish::Pause => PartitionState::Paused,
            Wish::Run => PartitionState::Active,
        }
    }

    /// Gives away what is drained: everything that was read is committed, then the right to write goes (VX-704). Whether there was
    /// anything.
    pub(super) fn give_away(&mut self) -> Result<bool, VertexError> {
        let mut gave = false;
        for index in 0..self.partitions.len() {
            let tenure = self.partitions.get(index).and_then(|partition| partition.tenure.as_ref());
            let Some(tenure) = tenure else { continue };
            // One that has stopped reads no more, and may be tried elsewhere; at the end of the run it is what ends it.
            let rests = match tenure.flow.is_stopped() {
                true => self.manager.gives_back() && !self.is_ending(),
                false => tenure.flow.is_empty(),
            };
            let rests = rests && tenure.is_settled();
            if rests && !tenure.guard.is_revoked() && self.is_to_drain(index) {
                self.say_stopped(index..index + 1)?;
                if let Some(partition) = self.partitions.get_mut(index) {
                    partition.given_away = true;
                }
                self.end_tenure(index, Reason::Released);
                gave = true;
            }
        }
        Ok(gave)
    }
}

fn counts(report: &Report, meter: &Meter) -> Counts {
    Counts {
        read: report.read,
        read_bytes: meter.read_bytes,
        delivered: report.delivered,
        filtered: report.filtered,
        dead: report.dead,
        dead_by: by_class(&report.dead_by),
        dropped: report.dropped,
        dropped_by: by_class(&report.dropped_by),
        nacked: report.nacked,
        outputs: report.outputs,
        stale: report.stale,
        lost: 0,
        left_out: 0,
        resubmitted: meter.resubmitted,
        restarts: report.restarts,
        sink_retries: report.sink_retries,
        fences: meter.fences.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        permits_refused: BTreeMap::new(),
    }
}

fn by_class(counts: &ByClass) -> BTreeMap<String, u64> {
    counts.counts().map(|(class, count)| (class.to_owned(), count)).collect()
}

fn lane_status(number: u32, lane: &LaneState) -> LaneStatus {
    let mut status = LaneStatus {
        lane: number,
        ready: lane.is_ready(),
        suspect: lane.is_suspect(),
        restarts: lane.ended,
        panics: lane.panics,
        timeouts: lane.timeouts,
        sleeps: lane.lane.sleeps(),
        last_error: lane.last_end.clone(),
        in_flight: lane.sent.len() as u64,
        credit_wait_ns: lane.waited().0,
        printed: lane.lane.tail().text(),
        ..LaneStatus::default()
    };
    if let Some(session) = &lane.session {
        status.pid = session.pid();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn source_prefetch(source: &str, rest: &str) -> u64 {
        let text = format!(
            "version = 1\n[pipeline]\nname = \"p\"\nuid = \"00000000000000aa\"\ndelivery = \"at_least_once\"\n\
             [udf]\ncommand = [\"x\"]\n[source]\n{source}\n[[sink]]\nname = \"main\"\nkind = \"blackhole\"\n\
             [ledger]\npath = \"l\"\n{rest}"
        );
        let pipeline: Pipeline = text.parse().unwrap();
        let terms = memory(&pipeline, pipeline.source.partitions());
        terms.iter().find(|term| term.term == "source_prefetch").unwrap().bound
    }

    /// What threads of sources read ahead is there besides what the vertex has read.
    /// Rules: VX-310, VX-831.
    #[test]
    fn what_a_source_reads_ahead_is_a_term_of_the_bound() {
        let generator = "kind = \"generator\"\nrecords = 1\npartitions = 16";
        assert_eq!(source_prefetch(generator, ""), 0);
        #[cfg(feature = "nats")]
        {
            let url = "kind = \"jetstream\"\nurl = \"nats://a\"";
            let stream =
                format!("{url}\nstream = \"IN\"\nmode = \"partition\"\nsubject = \"in.{{partition}}\"\n");
            let many = stream + "partitions = 16\nprefetch = \"3MiB\"";
            assert_eq!(source_prefetch(&many, ""), 48 << 20, "of each partition");
            let pinned = format!("[ownership]\n{url}\npartitions = \"0-3\"");
            assert_eq!(source_prefetch(&many, &pinned), 12 << 20, "of each that it may have");
        }
        #[cfg(feature = "zmq")]
        assert_eq!(
            source_prefetch("kind = \"zmq\"\npattern = \"pull\"\nbind = [\"tcp://*:*\"]", ""),
            32 << 20
        );
        #[cfg(feature = "tensor")]
        assert_eq!(source_prefetch("kind = \"tensor\"\nstream = \"cam\"\nprefetch = \"1MiB\"", ""), 1 << 20);
    }
}
