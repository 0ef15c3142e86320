//! What became of every input (VX-003).

use std::collections::BTreeMap;

/// Counts at the end of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Inputs read.
    pub read: u64,
    /// What the source had that is no record of it.
    pub left_out: u64,
    /// Inputs whose outputs were given to the sinks.
    pub delivered: u64,
    /// Inputs without outputs.
    pub filtered: u64,
    /// Inputs in the dead-letter sink.
    pub dead: u64,
    /// The same by class of what happened to them.
    pub dead_by: ByClass,
    /// Inputs that could not be processed and were left out as configured.
    pub dropped: u64,
    /// The same by class of what happened to them.
    pub dropped_by: ByClass,
    /// Inputs that were given back to the source.
    pub nacked: u64,
    /// Inputs that are to be read again: without an outcome when the run ended.
    pub returned: u64,
    /// Outputs given to sinks.
    pub outputs: u64,
    /// Outputs that a sink refused and that went to the dead letters or were left out.
    pub refused: u64,
    /// Outputs that sinks which are not required did not get.
    pub lost: u64,
    /// Calls of sinks that took less than all.
    pub sink_retries: u64,
    /// Epochs of an earlier run that were finished from the outbox.
    pub redone: u64,
    /// Answers of a generation that was over.
    pub stale: u64,
    /// Sessions of workers that ended while the vertex ran.
    pub restarts: u64,
    /// Partitions that have stopped and were not claimed since: number, position of the input, reason.
    pub stopped: Vec<(u32, u64, String)>,
    /// Partitions that lost their right to write and were not claimed since: number and generation.
    pub fenced: Vec<(u32, u64)>,
    /// What the function counted.
    pub counters: BTreeMap<String, u64>,
}

impl Report {
    /// Whether every input has exactly one outcome.
    pub fn balances(&self) -> bool {
        let Self { delivered, filtered, dead, dropped, nacked, returned, .. } = self;
        self.read == delivered + filtered + dead + dropped + nacked + returned
    }

    /// Adds the outcomes of another part of the run.
    pub(super) fn add(&mut self, outcomes: &Outcomes) {
        self.delivered += outcomes.delivered;
        self.filtered += outcomes.filtered;
        self.dead += outcomes.dead;
        self.dropped += outcomes.dropped;
        self.dead_by.add_all(&outcomes.dead_by);
        self.dropped_by.add_all(&outcomes.dropped_by);
        self.nacked += outcomes.nacked;
        self.outputs += outcomes.outputs;
    }
}

/// Numbers of inputs by what happened to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByClass([u64; CLASSES.len() + 1]);

impl ByClass {
    /// Counts one input.
    pub(super) fn add(&mut self, class: &str) {
        let place = CLASSES.iter().position(|known| *known == class).unwrap_or(CLASSES.len());
        if let Some(count) = self.0.get_mut(place) {
            *count += 1;
        }
    }

    fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// Class and number of each, also of those that did not happen.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CLASSES.into_iter().chain(["OTHER"]).zip(self.0)
    }
}

/// What happens to inputs that cannot be processed ([`Death::class`](crate::flow::Death::class)).
const CLASSES: [&str; 7] =
    ["UDF_ERROR", "NACKED", "REJECTED", "CRASHED", "OUTPUT_TOO_LARGE", "RECORD_TOO_LARGE", "PARSE_ERROR"];

/// What became of inputs that are final.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) delivered: u64,
    pub(super) filtered: u64,
    pub(super) dead: u64,
    pub(super) dead_by: ByClass,
    pub(super) dropped: u64,
    pub(super) dropped_by: ByClass,
    pub(super) nacked: u64,
    pub(super) outputs: u64,
}

impl Outcomes {
    /// All of them.
    pub(super) fn inputs(&self) -> u64 {
        self.delivered + self.filtered + self.dead + self.dropped + self.nacked
    }

    /// Adds others.
    pub(super) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.filtered += other.filtered;
        self.dead += other.dead;
        self.dropped += other.dropped;
        self.dead_by.add_all(&other.dead_by);
        self.dropped_by.add_all(&other.dropped_by);
        self.nacked += other.nacked;
        self.outputs += other.outputs;
    }
}
