//! Records on their way through the function: read from a source, kept until their outcome is final.
//!
//! The runtime keeps its own copy of every input, because a worker gives the place in the ring back before it answers
//! (VX-310).

use bytes::Bytes;
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::{
    ids::Position,
    record::{RecordHead, RecordType, RecordWriter},
    status::Status,
};

/// One record of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Where it is in its partition.
    pub position: Position,
    /// Where to go on when it is done.
    pub next: Position,
    /// What it holds.
    pub record: Record,
}

/// What a record holds, on its way in or out. Its parts may be parts of what was read or answered together; a clone shares them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The value.
    pub value: Bytes,
    /// The key, empty if there is none.
    pub key: Bytes,
    /// The headers as they are on the wire: [`headers`](tidegate_udf::wire::record::headers) takes them apart.
    pub headers: Bytes,
    /// Event time in milliseconds since 1970.
    pub event_time: Option<i64>,
}

impl Record {
    /// A record that is nothing but a value.
    pub fn of(value: impl Into<Bytes>) -> Self {
        Self { value: value.into(), ..Self::default() }
    }

    /// Bytes that it takes in a payload.
    pub fn len(&self) -> usize {
        let tail = self.key.len().saturating_add(self.headers.len());
        let padded = |len: usize| len.checked_next_multiple_of(8).unwrap_or(usize::MAX);
        padded(self.value.len()).saturating_add(padded(tail)).saturating_add(RECORD_HEAD)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn bytes(inputs: &[Input]) -> u64 {
    inputs.iter().map(|input| input.record.len() as u64).sum()
}

/// Inputs that are given to the function together, in source order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    inputs: Vec<Input>,
    /// Bytes that the inputs take in a payload.
    bytes: u64,
    /// How many inputs of its partition were read before its first one.
    pub serial: u64,
    /// How often it was sent before.
    pub attempt: u16,
    /// How often it failed as a whole, or, of a single input, the function failed on it.
    pub failures: u32,
    /// How often a worker died or hung while this was the oldest batch it had.
    pub crashes: u32,
    /// How it went when it last failed as a whole.
    pub fault: Option<Status>,
    /// When its first input was read.
    pub since: Nanos,
}

impl Batch {
    /// A batch that was not sent yet; `None` without inputs.
    pub fn new(inputs: Vec<Input>) -> Option<Self> {
        let bytes = bytes(&inputs);
        (!inputs.is_empty()).then_some(Self {
            inputs,
            bytes,
            serial: 0,
            attempt: 0,
            failures: 0,
            crashes: 0,
            fault: None,
            since: Nanos::ZERO,
        })
    }

    /// The same, read at this time.
    pub fn read_at(self, now: Nanos) -> Self {
        Self { since: now, ..self }
    }

    /// Whether it was never sent, nor known to have been.
    pub fn is_fresh(&self) -> bool {
        self.attempt == 0 && self.failures == 0 && self.crashes == 0
    }

    /// How many inputs of what follows it go into this one, which has at most so many inputs and bytes.
    pub fn room_for(&self, next: &Self, records: usize, bytes: u64) -> usize {
        // What a source gives again comes behind newer inputs; in a batch positions grow. And what was between is no part of it.
        let is_behind = next.serial == self.serial + self.inputs.len() as u64;
        if next.first() <= self.last() || !is_behind {
            return 0;
        }
        let mut total = self.bytes;
        let fits = |input: &&Input| {
            total += input.record.len() as u64;
            total <= bytes && self.is_within_span(input)
        };
        let room = records.saturating_sub(self.inputs.len());
        next.inputs.iter().take(room).take_while(fits).count()
    }

    /// How many of its inputs are so near to its first that 32 bits say where they are.
    pub fn within_span(&self) -> usize {
        self.inputs.iter().take_while(|input| self.is_within_span(input)).count()
    }

    fn is_within_span(&self, input: &Input) -> bool {
        input.position.0.saturating_sub(self.first().0) < u64::from(u32::MAX)
    }

    /// Adds inputs behind its own.
    pub fn extend(&mut self, next: Self) {
        self.bytes += next.bytes;
        self.inputs.extend(next.inputs);
    }

    /// Bytes that the inputs take in a payload.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The inputs, at least one.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Number of inputs.
    pub fn count(&self) -> u32 {
        u32::try_from(self.inputs.len()).unwrap_or(u32::MAX)
    }

    /// Position of the first input.
    pub fn first(&self) -> Position {
        self.inputs.first().map_or(Position(0), |input| input.position)
    }

    /// Position of the last input.
    pub fn last(&self) -> Position {
        self.inputs.last().map_or(Position(0), |input| input.position)
    }

    /// Writes the payload of the request.
    pub fn write(&self, writer: &mut RecordWriter) {
        writer.clear();
        let first = self.first().0;
        for (index, input) in (0u32..).zip(&self.inputs) {
            let place = u32::try_from(input.position.0.saturating_sub(first)).unwrap_or(u32::MAX);
            let Record { value, key, headers, event_time } = &input.record;
            let head =
                RecordHead { kind: RecordType::Data, index, place, event_time: *event_time, key, headers };
            // What does not fit a frame is not given to functions.
            let _ = writer.push(&head, value);
        }
    }

    /// Takes the inputs out.
    pub fn into_inputs(self) -> Vec<Input> {
        self.inputs
    }

    /// Splits it after `count` inputs; the parts know how often the whole was sent, not how often it failed. `None` for a part
    /// without inputs.
    pub fn split(mut self, count: usize) -> (Option<Self>, Option<Self>) {
        let behind = self.inputs.split_off(count.min(self.inputs.len()));
        let (attempt, since) = (self.attempt, self.since);
        let part = |inputs, serial| Self::new(inputs).map(|part| Self { serial, attempt, since, ..part });
        let middle = self.serial + self.inputs.len() as u64;
        (part(self.inputs, self.serial), part(behind, middle))
    }
}

/// Bytes of a record's head in a payload.
const RECORD_HEAD: usize = 32;
