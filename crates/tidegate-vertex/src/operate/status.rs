//! What there is to know of a vertex, as `tidegate vertex status --json` prints it and `/metrics` counts it (18.1, VX-862).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;

/// A vertex.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub pipeline: String,
    /// Process.
    pub pid: u32,
    /// What is promised, as the pipeline file says it.
    pub delivery: String,
    /// Milliseconds since this was true.
    pub age_ms: u64,
    /// Milliseconds since the thread that runs the vertex came round.
    pub last_seen_ms: u64,
    /// What that thread does.
    pub doing: String,
    /// It has no partition, and claims one when it may.
    #[serde(default)]
    pub standby: bool,
    /// Every partition.
    pub partitions: Vec<PartitionStatus>,
    /// Every worker.
    pub lanes: Vec<LaneStatus>,
    /// What records are.
    #[serde(default)]
    pub schemas: SchemaStatus,
    /// Where workers come from, if the vertex does not start them.
    #[serde(default)]
    pub outside: Option<OutsideStatus>,
    /// Every sink.
    pub sinks: Vec<SinkStatus>,
    /// What became of all inputs (VX-003).
    pub counts: Counts,
    /// What the function counts itself.
    #[serde(default)]
    pub function: FunctionStatus,
    /// The terms of VX-310.
    pub memory: Vec<MemoryTerm>,
    /// Times and sizes, by the names of VX-862.
    pub histograms: BTreeMap<String, Histogram>,
}

/// What a partition is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionState {
    /// Not owned by this vertex.
    #[default]
    Unowned,
    /// Read, processed, written.
    Active,
    /// Not read, as an operator wants it; what was read is finished.
    Paused,
    /// Not read any more; what was read is being finished.
    Draining,
    /// Given away in order.
    Drained,
    /// Everything was read and committed.
    Finished,
    /// An input cannot be processed, and the policy is to stop (VX-601).
    Stopped,
    /// The right to write was taken away.
    Fenced,
}

/// A partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: u32,
    /// The lane that it belongs to; any when it is none.
    #[serde(default)]
    pub lane: Option<u32>,
    /// What it is in.
    pub state: PartitionState,
    /// Its ownership session.
    pub generation: u64,
    /// The fence word says that nothing may be written.
    pub revoked: bool,
    /// Milliseconds until the lease runs out, if there is one.
    pub lease_ms: Option<u64>,
    /// Number of the open epoch.
    pub epoch_current: u64,
    /// Epochs that are sealed and not committed.
    pub epochs_pending: u64,
    /// Number of the last epoch that is durable.
    pub epoch_committed: u64,
    /// Where the next run would read on.
    pub resume: u64,
    /// Inputs that were read and have no durable outcome.
    pub unfinished: u64,
    /// Batches that were read and are not final.
    pub batches: u64,
    /// Records that the source has and that were not read, if it can say.
    pub source_pending: Option<u64>,
    /// The last runs fell over something in it: one batch at a time, each try in the ledger first (VX-604).
    #[serde(default)]
    pub careful: bool,
    /// Why it stopped, and at which position.
    pub stopped: Option<(u64, String)>,
}

/// A worker, and the runtime's end of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Its number.
    pub lane: u32,
    /// Whether a worker is attached.
    pub ready: bool,
    /// Its worker has not beaten for a while: it is stopped, or starved (VX-433).
    #[serde(default)]
    pub suspect: bool,
    /// Its process.
    pub pid: Option<u32>,
    /// Workers that ended.
    pub restarts: u64,
    /// Batches in which the function panicked.
    pub panics: u64,
    /// Workers that were ended because a batch took too long.
    pub timeouts: u64,
    /// How often the thread that takes answers went to sleep.
    pub sleeps: u64,
    /// How the last one ended.
    pub last_error: Option<String>,
    /// Batches that were sent and not answered.
    pub in_flight: u64,
    /// Nanoseconds in which a batch was there and the worker took no more.
    #[serde(default)]
    pub credit_wait_ns: u64,
    /// Credit of requests, as granted by the worker.
    pub requests: Credit,
    /// Credit of answers, as granted by the runtime.
    pub answers: Credit,
    /// The end of what its workers printed.
    pub printed: String,
}

/// What records are (VX-422): ids of schemas as 16 hexadecimal digits, none for untyped bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaStatus {
    /// Inputs.
    #[serde(rename = "in")]
    pub input: Option<String>,
    /// Outputs.
    pub out: Option<String>,
    /// Whether a function has to say the same, and not just nothing.
    pub strict: bool,
}

impl SchemaStatus {
    /// Whether there is a schema.
    pub fn is_typed(&self) -> bool {
        self.input.is_some() || self.out.is_some()
    }
}

impl fmt::Display for SchemaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [input, out] = [&self.input, &self.out].map(|id| id.as_deref().unwrap_or("untyped bytes"));
        let strict = if self.strict { "strict" } else { "not strict" };
        write!(f, "in {input}, out {out}, {strict}")
    }
}

/// Workers that somebody else starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideStatus {
    /// Where they connect.
    pub socket: String,
    /// How many there are to be.
    pub workers: u64,
    /// How many are attached.
    pub attached: u64,
    /// Connections that are not attached yet.
    pub attaching: u64,
    /// Connections that were turned away since the start.
    pub refused: u64,
    /// Why the last one was.
    pub last_refusal: Option<String>,
}

/// The three words of a ring, for bytes and for batches (VX-307).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// Bytes granted since the beginning of the session.
    pub granted_bytes: u64,
    /// Bytes published.
    pub used_bytes: u64,
    /// Bytes published and not consumed.
    pub outstanding_bytes: u64,
    /// Batches granted.
    pub granted_batches: u64,
    /// Batches published.
    pub used_batches: u64,
    /// Batches published and not consumed.
    pub outstanding_batches: u64,
}

/// A sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Its name.
    pub sink: String,
    /// Its class: A, B or C.
    pub class: String,
    /// What is promised, in one sentence (VX-002).
    pub guarantee: String,
    /// Bytes of outputs that wait for it, if it is not required.
    #[serde(default)]
    pub waiting_bytes: u64,
    /// Outputs that it did not get, if it is not required.
    #[serde(default)]
    pub lost: u64,
    /// Outputs that it has taken.
    #[serde(default)]
    pub outputs: u64,
    /// Outputs that wait for it to take them, if it is required.
    #[serde(default)]
    pub in_flight: u64,
    /// Calls in which it took less than all.
    #[serde(default)]
    pub retries: u64,
    /// Outputs of earlier sessions that were visible already.
    #[serde(default)]
    pub readback_found: u64,
    /// How long its calls take.
    #[serde(default)]
    pub seconds: Histogram,
}

/// What became of inputs since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Inputs read.
    pub read: u64,
    /// Bytes of their values.
    pub read_bytes: u64,
    /// Inputs whose outputs were given to sinks.
    pub delivered: u64,
    /// Inputs without outputs.
    pub filtered: u64,
    /// Inputs in the dead-letter sink.
    pub dead: u64,
    /// The same by class of what happened to them.
    #[serde(default)]
    pub dead_by: BTreeMap<String, u64>,
    /// Inputs left out as configured.
    pub dropped: u64,
    /// The same by class of what happened to them.
    #[serde(default)]
    pub dropped_by: BTreeMap<String, u64>,
    /// Inputs that were given back to the source.
    #[serde(default)]
    pub nacked: u64,
    /// Records that the source lost before they could be read.
    #[serde(default)]
    pub lost: u64,
    /// What the source had that is no record of it.
    #[serde(default)]
    pub left_out: u64,
    /// Outputs given to sinks.
    pub outputs: u64,
    /// Answers of a generation that was over.
    pub stale: u64,
    /// Answers STALE_GENERATION for a generation that was current (VX-235).
    pub resubmitted: u64,
    /// Sessions of workers that ended.
    pub restarts: u64,
    /// Calls of sinks that took less than all.
    pub sink_retries: u64,
    /// Sessions that lost their right to write, by the reason (10.4).
    #[serde(default)]
    pub fences: BTreeMap<String, u64>,
    /// Permits that were refused, by the kind of write (10.3).
    pub permits_refused: BTreeMap<String, u64>,
}

/// What the function says of itself (VX-501).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionStatus {
    /// Its counters, of all workers since the start.
    pub counters: BTreeMap<String, u64>,
    /// Values of counters that were left out, since there are too many names.
    pub counters_left_out: u64,
    /// Lines that did not come into the log, since there were too many.
    pub lines_left_out: u64,
}

/// A term of the memory bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryTerm {
    /// Its name.
    pub term: String,
    /// Bytes that it has at most.
    pub bound: u64,
    /// Bytes that it has now, where that is counted.
    pub used: Option<u64>,
}

/// What `/readyz` says (VX-865).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it is well.
    pub ok: bool,
    /// Why not.
    pub reasons: Vec<String>,
}

impl Status {
    /// Whether data flows, or would at once: a partition is active, or there is none and they are others'; its worker is there, and
    /// none was stopped by policy.
    pub fn readiness(&self) -> Health {
        let mut reasons = Vec::new();
        for partition in &self.partitions {
            if let Some((position, reason)) = &partition.stopped {
                let number = partition.partition;
                reasons.push(format!("partition {number} stopped at position {position}: {reason}"));
            }
        }
        let works = |partition: &&PartitionStatus| {
            let is_its = |lane: &&LaneStatus| partition.lane.is_none_or(|number| number == lane.lane);
            partition.state == PartitionState::Active
                && !partition.revoked
                && self.lanes.iter().filter(is_its).any(|lane| lane.ready)
        };
        let stands_by = self.standby && self.lanes.iter().any(|lane| lane.ready);
        if !stands_by && !self.partitions.iter().any(|partition| works(&partition)) {
            let what = if self.standby { "no worker is ready on standby" } else { NOTHING_ACTIVE };
            reasons.push(what.to_owned());
            if let Some(OutsideStatus { socket, workers, attached, .. }) = &self.outside
                && attached < workers
            {
                reasons.push(format!("{attached} of {workers} workers are attached at {socket}"));
            }
        }
        Health { ok: reasons.is_empty(), reasons }
    }

    /// Whether the process works: the thread that runs the vertex comes round, or waits for a sink, a source or the ledger, which
    /// starting again would not change.
    pub fn liveness(&self) -> Health {
        let stuck = self.last_seen_ms > STUCK_MS && self.doing == "working";
        let reason = || format!("the thread that runs the vertex was last seen {} ms ago", self.last_seen_ms);
        Health { ok: !stuck, reasons: stuck.then(reason).into_iter().collect() }
    }
}

const NOTHING_ACTIVE: &str = "no partition is active with a worker that is ready";
/// The thread that runs the vertex comes round at least every 10 s.
const STUCK_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn active(partition: u32) -> PartitionStatus {
        let lane = Some(partition % 2);
        PartitionStatus { partition, lane, state: PartitionState::Active, ..PartitionStatus::default() }
    }

    fn status(ready: [bool; 2], partitions: Vec<PartitionStatus>) -> Status {
        let lanes = (0..).zip(ready).map(|(lane, ready)| LaneStatus { lane, ready, ..LaneStatus::default() });
        Status { partitions, lanes: lanes.collect(), ..Status::default() }
    }

    /// Rules: VX-865.
    #[test]
    fn ready_is_who_has_an_active_partition_and_its_worker() {
        let ready = |status: Status| status.readiness().ok;
        assert!(ready(status([true, false], vec![active(0), active(1)])));
        assert!(!ready(status([false, false], vec![active(0)])));
        // The worker of another partition.
        assert!(!ready(status([false, true], vec![active(0), active(2)])));
        assert!(ready(status([false, true], vec![PartitionStatus { lane: None, ..active(0) }])));
        assert!(!ready(status([false, false], vec![PartitionStatus { lane: None, ..active(0) }])));
        assert!(!ready(status([true, true], vec![PartitionStatus { revoked: true, ..active(0) }])));
        let paused = PartitionStatus { state: PartitionState::Paused, ..active(0) };
        assert!(!ready(status([true, true], vec![paused])));
        let others = || PartitionStatus { state: PartitionState::Unowned, ..active(0) };
        assert!(!ready(status([true, true], vec![others()])), "nobody says that others have it");
        let standby = |ready| Status { standby: true, ..status(ready, vec![others(), others()]) };
        assert!(ready(standby([false, true])) && !ready(standby([false, false])));
        let stopped = PartitionStatus { stopped: Some((7, "bad".to_owned())), ..active(1) };
        let health = status([true, true], vec![active(0), stopped]).readiness();
        assert!(!health.ok && health.reasons == ["partition 1 stopped at position 7: bad"], "{health:?}");
    }

    /// Rules: VX-865.
    #[test]
    fn alive_is_who_comes_round_or_waits_for_others() {
        let seen = |ms, doing: &str| {
            let status = Status { last_seen_ms: ms, doing: doing.to_owned(), ..Status::default() };
            status.liveness().ok
        };
        assert!(seen(10_000, "working") && seen(600_000, "writing to a sink"));
        assert!(!seen(60_001, "working"));
    }
}
