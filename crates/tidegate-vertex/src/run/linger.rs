//! Outputs that wait for more, so that a sink is given larger parts (VX-842): those of final inputs of a partition, for the
//! sinks with `linger`. They wait until a part is full, the first of them has waited long enough, or nothing more comes.

use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::ids::Position;

use super::{
    outgoing::{Chunk, End, Outgoing},
    report::Outcomes,
};
use crate::{ledger::Range, sink::Output};

/// What waits for the sinks of a partition.
#[derive(Debug)]
pub(super) struct Lingering {
    /// By sink.
    outputs: Vec<Vec<Output>>,
    /// Bytes of them, by sink.
    bytes: Vec<u64>,
    /// Where the inputs are that they come from.
    inputs: Vec<Chunk>,
    /// When the sinks get them at the latest.
    until: Nanos,
}

impl Lingering {
    /// Outputs by sink, of these inputs.
    pub(super) fn new(inputs: Chunk, outputs: Vec<Vec<Output>>, ends: &[End], now: Nanos) -> Self {
        let bytes = outputs.iter().map(|outputs| len(outputs)).collect();
        let mut new = Self { outputs, bytes, inputs: vec![inputs], until: Nanos(u64::MAX) };
        new.until = new.waits_until(ends, now);
        new
    }

    /// Adds outputs as far as each sink may be given them at once; those of further inputs otherwise.
    pub(super) fn add(
        &mut self,
        inputs: Chunk,
        outputs: Vec<Vec<Output>>,
        ends: &[End],
        now: Nanos,
    ) -> Option<Self> {
        let fits = |(index, more): (usize, &Vec<Output>)| {
            let (Some(there), Some(bytes), Some(end)) =
                (self.outputs.get(index), self.bytes.get(index), ends.get(index))
            else {
                return true;
            };
            more.is_empty() || there.is_empty() || {
                let (records, bytes) = (there.len() + more.len(), bytes + len(more));
                !end.config.is_more_than_at_once(records, bytes)
            }
        };
        if !outputs.iter().enumerate().all(fits) {
            return Some(Self::new(inputs, outputs, ends, now));
        }
        for ((there, bytes), mut more) in self.outputs.iter_mut().zip(&mut self.bytes).zip(outputs) {
            *bytes += len(&more);
            there.append(&mut more);
        }
        self.inputs.push(inputs);
        self.until = self.until.min(self.waits_until(ends, now));
        None
    }

    /// When the sinks get it, whatever comes.
    pub(super) fn until(&self) -> Nanos {
        self.until
    }

    /// Whether a sink may not be given more at once.
    pub(super) fn is_full(&self, ends: &[End]) -> bool {
        let sinks = self.outputs.iter().zip(&self.bytes).zip(ends);
        sinks.into_iter().any(|((outputs, bytes), end)| {
            !outputs.is_empty() && end.config.is_more_than_at_once(outputs.len() + 1, bytes + 1)
        })
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// Outputs for this sink.
    pub(super) fn waiting(&self, sink: usize) -> usize {
        self.outputs.get(sink).map_or(0, Vec::len)
    }

    /// Inputs that wait for them to be with their sinks.
    pub(super) fn inputs(&self) -> &[Chunk] {
        &self.inputs
    }

    /// All of it, to be given to the sinks.
    pub(super) fn into_outgoing(self) -> Outgoing {
        let bytes = self.bytes();
        let first = self.inputs.iter().map(|chunk| chunk.range.first).min().unwrap_or(Position(0));
        let last = self.inputs.iter().map(|chunk| chunk.range.last).max().unwrap_or(first);
        // Progress is that of the inputs.
        let range = Range { first, last, resume: last };
        let serial = self.inputs.iter().map(|chunk| chunk.serial).min().unwrap_or(0);
        let outcomes = Outcomes::default();
        let chunk = Chunk { serial, range, outcomes, outputs: self.outputs, bytes, back: Vec::new() };
        let mut outgoing = Outgoing::new(chunk);
        outgoing.joined = self.inputs;
        outgoing
    }

    fn waits_until(&self, ends: &[End], now: Nanos) -> Nanos {
        let waiting = self.outputs.iter().zip(ends).filter(|(outputs, _)| !outputs.is_empty());
        let lingers = waiting.map(|(_, end)| end.config.linger());
        lingers.min().map_or(Nanos(u64::MAX), |linger| now.saturating_add(linger))
    }
}

/// Takes the outputs for sinks that linger out of a chunk; `None` if there are none.
pub(super) fn take(chunk: &mut Chunk, ends: &[End]) -> Option<Vec<Vec<Output>>> {
    let taken = chunk.outputs.iter_mut().zip(ends).map(|(outputs, end)| match end.config.linger() {
        Nanos::ZERO => Vec::new(),
        _ => std::mem::take(outputs),
    });
    let taken: Vec<Vec<Output>> = taken.collect();
    taken.iter().any(|outputs| !outputs.is_empty()).then_some(taken)
}

fn len(outputs: &[Output]) -> u64 {
    outputs.iter().map(|output| output.record.len() as u64).sum()
}
