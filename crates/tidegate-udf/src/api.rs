//! What user code sees: a record in, an [`Emit`] for records out, an [`Outcome`], and a [`Ctx`] with everything around.

use std::{borrow::Cow, time::Duration};

use serde_json::Value;
use tidegate_shm::clock::boottime_now;

use crate::{
    segment::FenceView,
    wire::{
        frame::Frame,
        ids::{BatchId, EpochId, Generation, PartitionId, Position},
        record::{Mark, RawView, RecordHead, RecordType, RecordWriter, headers},
    },
};

/// One input.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    view: RawView<'a>,
    first: Position,
}

impl<'a> Record<'a> {
    pub(crate) fn new(view: RawView<'a>, first: Position) -> Self {
        Self { view, first }
    }

    /// The value.
    pub fn value(&self) -> &'a [u8] {
        self.view.value
    }

    /// The key, empty if there is none.
    pub fn key(&self) -> &'a [u8] {
        self.view.key
    }

    /// Event time in milliseconds since 1970, if the source has one.
    pub fn event_time(&self) -> Option<i64> {
        self.view.event_time
    }

    /// Where the record is in its source partition.
    pub fn position(&self) -> Position {
        Position(self.first.0.saturating_add(self.view.place.into()))
    }

    /// Name and value of each header.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        headers(self.view.headers)
    }
}

/// What became of one input. Outputs count only with [`Outcome::ok`]; with all others what was emitted for the input is
/// taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome(pub(crate) Verdict);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ok,
    Drop(Cow<'static, str>),
    Fail(Cow<'static, str>),
    Reject(Cow<'static, str>),
    Nack(Duration, Cow<'static, str>),
}

impl Outcome {
    /// Done; without outputs the input counts as filtered.
    pub fn ok() -> Self {
        Self(Verdict::Ok)
    }

    /// Left out on purpose.
    pub fn drop(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Verdict::Drop(reason.into()))
    }

    /// Failed; the runtime tries the input again.
    pub fn fail(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Verdict::Fail(reason.into()))
    }

    /// Bad for good: no further try.
    pub fn reject(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Verdict::Reject(reason.into()))
    }

    /// Back to the source, to come again after `delay`.
    pub fn nack(delay: Duration, reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Verdict::Nack(delay, reason.into()))
    }
}

/// What is around an input (VX-501).
#[derive(Debug)]
pub struct Ctx<'a> {
    pub(crate) pipeline: &'a str,
    pub(crate) params: &'a Value,
    pub(crate) fence: &'a FenceView,
    pub(crate) frame: Frame,
}

impl Ctx<'_> {
    /// Name of the pipeline.
    pub fn pipeline(&self) -> &str {
        self.pipeline
    }

    /// What the pipeline file gives to the function.
    pub fn params(&self) -> &Value {
        self.params
    }

    /// The partition of the input.
    pub fn partition(&self) -> PartitionId {
        self.frame.partition
    }

    /// Generation of the partition. A write of the function itself to the outside carries this and [`Ctx::attempt`].
    pub fn generation(&self) -> Generation {
        self.frame.generation
    }

    /// Epoch at admission.
    pub fn epoch(&self) -> EpochId {
        self.frame.epoch
    }

    /// The batch of the input.
    pub fn batch(&self) -> BatchId {
        self.frame.batch
    }

    /// Which try this is, from 0 on.
    pub fn attempt(&self) -> u16 {
        self.frame.attempt
    }

    /// Whether the input was given to a function before.
    pub fn is_replay(&self) -> bool {
        self.frame.replay
    }

    /// The watermark at this batch, in milliseconds.
    pub fn watermark(&self) -> Option<i64> {
        self.frame.watermark
    }

    /// Whether the vertex may still act for this batch, for functions with effects of their own. It can change right after.
    pub fn is_current(&self) -> bool {
        let Frame { fence_slot, generation, partition, .. } = self.frame;
        self.fence.is_current(fence_slot, generation, partition, boottime_now())
    }
}

/// Takes the outputs of one input.
#[derive(Debug)]
pub struct Emit<'a> {
    writer: &'a mut RecordWriter,
    parent: u32,
    /// Longest record.
    max: usize,
    too_long: bool,
}

impl<'a> Emit<'a> {
    pub(crate) fn new(writer: &'a mut RecordWriter, parent: u32, max: usize) -> Self {
        Self { writer, parent, max, too_long: false }
    }

    /// Whether an output was too long for the ring.
    pub(crate) fn is_too_long(&self) -> bool {
        self.too_long
    }

    /// An output of the input, completed by [`Output::value`] or [`Output::value_with`].
    pub fn record(&mut self) -> Output<'_, 'a> {
        Output { emit: self, key: &[], event_time: None, route: 0, headers: Vec::new() }
    }
}

/// An output under construction.
#[derive(Debug)]
#[must_use = "an output without a value is none"]
pub struct Output<'e, 'a> {
    emit: &'e mut Emit<'a>,
    key: &'e [u8],
    event_time: Option<i64>,
    route: u16,
    headers: Vec<u8>,
}

impl<'e> Output<'e, '_> {
    /// Gives it a key.
    pub fn key(self, key: &'e [u8]) -> Self {
        Self { key, ..self }
    }

    /// Gives it an event time, in milliseconds since 1970.
    pub fn event_time(self, milliseconds: Option<i64>) -> Self {
        Self { event_time: milliseconds, ..self }
    }

    /// Sends it to another route than the default one, by its number in the pipeline file.
    pub fn route(self, route: u16) -> Self {
        Self { route, ..self }
    }

    /// Adds a header. Names end at 64 KiB.
    pub fn header(mut self, name: &str, value: &[u8]) -> Self {
        let lens = (u16::try_from(name.len()), u32::try_from(value.len()));
        let (Ok(name_len), Ok(value_len)) = lens else {
            self.emit.too_long = true;
            return self;
        };
        self.headers.extend_from_slice(&name_len.to_le_bytes());
        self.headers.extend_from_slice(&value_len.to_le_bytes());
        self.headers.extend_from_slice(name.as_bytes());
        self.headers.extend_from_slice(value);
        self
    }

    /// Completes it with a value.
    pub fn value(self, value: &[u8]) {
        self.value_with(|bytes| bytes.extend_from_slice(value));
    }

    /// Completes it with what `write` appends to the buffer.
    pub fn value_with(self, write: impl FnOnce(&mut Vec<u8>)) {
        let Self { emit, key, event_time, route, headers } = self;
        let head = RecordHead {
            kind: RecordType::Data,
            index: emit.parent,
            place: route.into(),
            event_time,
            key,
            headers: &headers,
        };
        let before: Mark = emit.writer.mark();
        let written = emit.writer.push_with(&head, write);
        if written.is_err() || emit.writer.len_since(before) > emit.max {
            emit.writer.rewind(before);
            emit.too_long = true;
        }
    }
}
