//! What a session runs: a [`Handler`], which is given a [`Batch`] and fills the [`Answers`] to it.
//!
//! The functions of this crate are handlers ([`crate::function`]); an SDK of another language brings its own.

use std::{borrow::Cow, ops::Range, sync::Arc};

use crate::{
    api::{Ctx, Emit, Outcome, Record, Verdict},
    wire::{
        function::FunctionKind,
        ids::Position,
        record::{Direction, Mark, RecordFault, RecordHead, RecordType, RecordWriter, Records},
        status::Status,
    },
};

/// What answers batches.
pub trait Handler {
    /// What it is, for the runtime.
    fn kind(&self) -> FunctionKind;

    /// Answers a batch.
    fn handle(&mut self, batch: &Batch, ctx: &Ctx<'_>, answers: &mut Answers) -> Handled;

    /// Whether somebody ended the worker. Asked whenever it has waited or answered, at least twice a second; batches that are
    /// on their way then go back to the runtime undone.
    fn is_over(&mut self) -> bool {
        false
    }
}

/// How a call with a batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled {
    /// Every input is answered; one that was not mentioned is filtered.
    Answered,
    /// The function failed on the batch as a whole, for this reason.
    Failed(String),
    /// The function panicked on the batch as a whole, with this text.
    Panicked(String),
    /// Somebody ended the worker; the batch goes back undone.
    Interrupted,
    /// The function ended the worker: for the runtime it died on this batch.
    Exited,
}

/// Why a worker ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Somebody ended it.
    Left,
    /// The function ended it.
    Died,
}

/// The inputs of a batch: a private copy of what came through shared memory, which lives as long as anybody keeps a clone.
#[derive(Debug, Clone)]
pub struct Batch {
    payload: Arc<Vec<u8>>,
    count: u32,
    first: Position,
}

/// Where the parts of a record are in the payload of its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The ordinal of the record.
    pub index: u32,
    /// Where it is in its source partition.
    pub position: Position,
    /// Event time in milliseconds since 1970, if the source has one.
    pub event_time: Option<i64>,
    /// The value, which begins at a multiple of 8.
    pub value: Range<usize>,
    /// The key.
    pub key: Range<usize>,
    /// The headers as they are on the wire.
    pub headers: Range<usize>,
}

impl Batch {
    /// The batch in this payload of a request.
    ///
    /// # Errors
    /// The first record that is wrong.
    pub fn parse(payload: Arc<Vec<u8>>, count: u32, first: Position) -> Result<Self, RecordFault> {
        Records::parse(&payload, count, Direction::Request)?;
        Ok(Self { payload, count, first })
    }

    /// Number of inputs, at least one.
    #[allow(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// The inputs, in the order of their source.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        Records::accepted(&self.payload).map(|view| Record::new(view, self.first))
    }

    /// The payload: records as they are on the wire (6.1).
    pub fn payload(&self) -> &Arc<Vec<u8>> {
        &self.payload
    }

    /// Where each record is in the payload.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let mut records = Records::accepted(&self.payload);
        std::iter::from_fn(move || {
            let at = self.payload.len() - records.rest().len();
            let view = records.next()?;
            let [value, key, headers] = view.ranges(at);
            let position = Record::new(view, self.first).position();
            Some(Place { index: view.index, position, event_time: view.event_time, value, key, headers })
        })
    }
}

/// The answers to the inputs of a batch, under construction in private memory (VX-510).
#[derive(Debug)]
pub struct Answers {
    writer: RecordWriter,
    max_record: usize,
    inputs: u32,
    /// Inputs with an output that no frame can hold.
    too_long: Vec<u32>,
    partial: bool,
    panicked: Option<String>,
}

impl Answers {
    /// Nothing answered. `max_record` is the longest record.
    pub(crate) fn new(max_record: usize) -> Self {
        Self {
            writer: RecordWriter::default(),
            max_record,
            inputs: 0,
            too_long: Vec::new(),
            partial: false,
            panicked: None,
        }
    }

    /// Takes everything back, for a batch of so many inputs.
    pub(crate) fn begin(&mut self, inputs: u32) {
        self.writer.clear();
        self.too_long.clear();
        self.inputs = inputs;
        self.partial = false;
        self.panicked = None;
    }

    /// Takes outputs of this input.
    pub fn of(&mut self, input: &Record<'_>) -> Emit<'_> {
        Emit { answers: self, parent: input.index() }
    }

    /// Takes outputs of the input with this ordinal; `None` if there is none.
    pub fn at(&mut self, index: u32) -> Option<Emit<'_>> {
        (index < self.inputs).then_some(Emit { answers: self, parent: index })
    }

    /// Says what became of an input. With anything but [`Outcome::ok`] its outputs do not count.
    pub fn settle(&mut self, input: &Record<'_>, outcome: Outcome) {
        self.settle_at(input.index(), outcome);
    }

    /// As [`Answers::settle`], by ordinal; an input that is not there is ignored.
    pub fn settle_at(&mut self, index: u32, Outcome(verdict): Outcome) {
        let (kind, delay, reason) = match verdict {
            Verdict::Ok => return,
            Verdict::Drop(reason) => (RecordType::Drop, None, reason),
            Verdict::Fail(reason) => (RecordType::Fail, None, reason),
            Verdict::Reject(reason) => (RecordType::Reject, None, reason),
            Verdict::Nack(delay, reason) => (RecordType::Nack, Some(delay), reason),
        };
        if index >= self.inputs {
            return;
        }
        self.partial |= kind != RecordType::Drop;
        let head = RecordHead { kind, index, place: 0, event_time: None, key: &[], headers: &[] };
        // Short enough by far for the numbers of a record.
        let _ = self.writer.push_with(&head, |bytes| {
            if let Some(delay) = delay {
                let milliseconds = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
                bytes.extend_from_slice(&milliseconds.to_le_bytes());
            }
            bytes.extend_from_slice(cut(&reason).as_bytes());
        });
    }

    /// Adds an output, or notes that it is too long for a frame.
    pub(crate) fn push(&mut self, head: &RecordHead<'_>, value: impl FnOnce(&mut Vec<u8>)) {
        let before = self.writer.mark();
        let written = self.writer.push_with(head, value);
        if written.is_err() || self.writer.len_since(before) > self.max_record {
            self.writer.rewind(before);
            self.note_too_long(head.index);
        }
    }

    pub(crate) fn note_too_long(&mut self, index: u32) {
        if !self.has_too_long(index) {
            self.too_long.push(index);
        }
    }

    pub(crate) fn has_too_long(&self, index: u32) -> bool {
        self.too_long.last() == Some(&index)
    }

    /// An input that is settled otherwise is not rejected for its outputs.
    pub(crate) fn forget_too_long(&mut self, index: u32) {
        self.too_long.retain(|&other| other != index);
    }

    /// Keeps the text of a panic for people.
    pub(crate) fn note_panic(&mut self, text: String) {
        self.panicked = Some(text);
    }

    pub(crate) fn take_panic(&mut self) -> Option<String> {
        self.panicked.take()
    }

    pub(crate) fn mark(&self) -> Mark {
        self.writer.mark()
    }

    /// Takes back what was added since `mark`.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.writer.rewind(mark);
    }

    /// The payload of the answer.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// Records of the answer.
    pub(crate) fn count(&self) -> u32 {
        self.writer.count()
    }

    /// Turns how the call ended into the status of the answer. A function that failed on a single input failed on that input,
    /// and the answer can say why (9.3).
    ///
    /// # Errors
    /// There is no answer: the worker ends.
    pub(crate) fn conclude(&mut self, handled: Handled) -> Result<Status, End> {
        let (status, reason) = match handled {
            Handled::Answered => {
                for index in std::mem::take(&mut self.too_long) {
                    self.settle_at(index, Outcome::reject(RECORD_TOO_LARGE));
                }
                return Ok(if self.partial { Status::Partial } else { Status::Ok });
            }
            Handled::Failed(reason) => (Status::UdfError, reason),
            Handled::Panicked(text) => {
                self.note_panic(text.clone());
                (Status::UdfPanic, text)
            }
            Handled::Interrupted => return Err(End::Left),
            Handled::Exited => return Err(End::Died),
        };
        self.writer.clear();
        if self.inputs != 1 {
            return Ok(status);
        }
        self.settle_at(0, Outcome::fail(reason));
        Ok(Status::Partial)
    }
}

/// Why a function failed on a batch as a whole. Made of any error, so that `?` works in functions of batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub(crate) Cow<'static, str>);

impl Failure {
    /// For this reason.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(reason.into())
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason.push_str(": ");
            reason.push_str(&cause.to_string());
            source = cause.source();
        }
        Self(reason.into())
    }
}

/// The first 4 KiB, not splitting a character.
pub(crate) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_REASON)).unwrap_or(text)
}

const MAX_REASON: usize = 4096;
/// Why an input whose output does not fit a frame is rejected (VX-213).
const RECORD_TOO_LARGE: &str = "RECORD_TOO_LARGE: an output does not fit a frame; raise transport.max_frame";
