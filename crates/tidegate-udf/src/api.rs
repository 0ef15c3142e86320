//! What user code sees: a record in, an [`Emit`] for records out, an [`Outcome`], and a [`Ctx`] with everything around.

use std::{borrow::Cow, sync::Arc, time::Duration};

use serde_json::Value;
use tidegate_shm::{
    clock::{Nanos, boottime_now, monotonic_now},
    sync::Ordering,
};

use crate::{
    batch::Answers,
    journal::{Book, Journal},
    segment::{FenceView, Link},
    wire::{
        frame::Frame,
        ids::{BatchId, EpochId, Generation, PartitionId, Position},
        message::{Level, Welcome},
        record::{RawView, RecordHead, RecordType, headers, push_header},
        segment::{RUN_STATE_AT, RunState},
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

    /// Its ordinal in the batch.
    pub fn index(&self) -> u32 {
        self.view.index
    }

    /// The headers as they are on the wire.
    pub fn raw_headers(&self) -> &'a [u8] {
        self.view.headers
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
    pub(crate) around: &'a Arc<Around>,
    pub(crate) frame: Frame,
    pub(crate) since: Nanos,
}

/// What a worker knows of its session.
#[derive(Debug)]
pub(crate) struct Around {
    pub(crate) welcome: Welcome,
    pub(crate) pipeline: u64,
    pub(crate) fence: FenceView,
    pub(crate) link: Link,
    pub(crate) book: Arc<Book>,
}

impl Around {
    /// Whether the runtime has ended the session.
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire: who sees the end of the session sees all that was stored before it.
        let state = self.link.peer.header().u64::<RUN_STATE_AT>().load(Ordering::Acquire);
        RunState::from_code(state) == RunState::Closed
    }
}

impl Ctx<'_> {
    /// Name of the pipeline.
    pub fn pipeline(&self) -> &str {
        &self.around.welcome.pipeline
    }

    /// What the pipeline file gives to the function.
    pub fn params(&self) -> &Value {
        &self.around.welcome.params
    }

    /// Names of the sinks; the number of a route is its place here.
    pub fn routes(&self) -> &[String] {
        &self.around.welcome.routes
    }

    /// The number of the route to the sink of this name.
    pub fn route(&self, sink: &str) -> Option<u16> {
        self.routes().iter().position(|name| name == sink)?.try_into().ok()
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

    /// How long the batch may still take before the runtime ends this worker.
    pub fn time_left(&self) -> Duration {
        self.fence().time_left()
    }

    /// A number to seed random choices with: the same for the same input in every try, also on another host (VX-504). `input`
    /// is the position of the input.
    pub fn seed(&self, input: Position) -> u64 {
        self.fence().seed(input)
    }

    /// Whether the vertex may still act for this batch, for functions with effects of their own. It can change right after.
    pub fn is_current(&self) -> bool {
        self.fence().is_current()
    }

    /// Whether the function should come to an end: its answer is worth nothing any more.
    pub fn stop(&self) -> StopToken {
        StopToken(self.fence())
    }

    /// Writes a line to the log of the runtime, which adds pipeline, partition and worker. Does not wait: what comes faster than
    /// it is read is left out and counted. Messages and fields end at 4 KiB each.
    ///
    /// ```no_run
    /// use tidegate_udf::{Level, Outcome, worker};
    ///
    /// let mapped = worker().map("look up", |record, ctx, _| {
    ///     ctx.log(Level::Warn, "no such user", &[("bytes", record.value().len().into())]);
    ///     ctx.count("unknown_users", 1);
    ///     Outcome::ok()
    /// });
    /// # mapped.run()?;
    /// # Ok::<(), tidegate_udf::WorkerError>(())
    /// ```
    pub fn log(&self, level: Level, message: &str, fields: &[(&str, Value)]) {
        self.journal().log(level, message, fields);
    }

    /// Adds to a counter of the function, which `tidegate vertex status` and `/metrics` show. Names are at most 64 letters, digits
    /// and `_-.:/`, others are changed to such; there are at most 256 of them, and further ones are left out and counted.
    pub fn count(&self, name: &str, by: u64) {
        self.journal().count(name, by);
    }

    /// What [`Ctx::log`] and [`Ctx::count`] do, from anywhere and at any time.
    pub fn journal(&self) -> Journal {
        let Frame { partition, batch, .. } = self.frame;
        Journal { book: self.around.book.clone(), partition, batch }
    }

    /// What can be asked about the batch from anywhere and at any time.
    pub fn fence(&self) -> FenceCheck {
        FenceCheck { around: self.around.clone(), frame: self.frame, since: self.since }
    }
}

/// What can still be asked about a batch when its [`Ctx`] is out of reach, for example in a thread of the function.
#[derive(Debug, Clone)]
pub struct FenceCheck {
    around: Arc<Around>,
    frame: Frame,
    since: Nanos,
}

impl FenceCheck {
    /// As [`Ctx::is_current`] (VX-230, VX-501).
    pub fn is_current(&self) -> bool {
        let Frame { fence_slot, generation, partition, .. } = self.frame;
        let now = boottime_now();
        self.around.fence.is_current(fence_slot, generation, partition, now) && !self.around.is_closed()
    }

    /// As [`Ctx::time_left`].
    pub fn time_left(&self) -> Duration {
        let limit = self.since.saturating_add(Nanos::from_millis(self.around.welcome.batch_timeout_ms));
        limit.saturating_sub(monotonic_now()).into()
    }

    /// As [`Ctx::seed`].
    pub fn seed(&self, input: Position) -> u64 {
        let parts = [self.around.pipeline, self.frame.partition.0.into(), input.0];
        parts.into_iter().fold(0, |seed, part| mixed(seed ^ part))
    }
}

/// Says that a function should come to an end: the vertex may not act for the batch any more, the session is over, or the time of
/// the batch is (VX-501). A function that takes long looks at it, or sleeps by it.
#[derive(Debug, Clone)]
pub struct StopToken(FenceCheck);

impl StopToken {
    /// Whether it should.
    pub fn is_set(&self) -> bool {
        !self.0.is_current() || self.0.time_left().is_zero()
    }

    /// Sleeps until it should (true), or so much time has passed (false).
    pub fn wait(&self, time: Duration) -> bool {
        let until = monotonic_now().saturating_add(time.into());
        // The bell of the runtime rings for a revoke and for the end of the session, and not when a lease or a batch runs out of
        // time.
        loop {
            let left = until.saturating_sub(monotonic_now());
            if self.is_set() || left == Nanos::ZERO {
                return self.is_set();
            }
            let step = left.min(LONGEST_SLEEP).min(Nanos::from(self.0.time_left()));
            self.0.around.link.wait_until(monotonic_now().saturating_add(step), || self.is_set());
        }
    }
}

/// A missed wake-up costs at most this (VX-323).
pub(crate) const LONGEST_SLEEP: Nanos = Nanos::from_millis(500);

/// The finalizer of SplitMix64: every bit of the result depends on every bit of `value`.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Takes the outputs of one input.
#[derive(Debug)]
pub struct Emit<'a> {
    pub(crate) answers: &'a mut Answers,
    pub(crate) parent: u32,
}

impl<'a> Emit<'a> {
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

    /// Gives it key, event time and headers of a record.
    pub fn like(self, record: &Record<'e>) -> Self {
        let headers = record.raw_headers().to_vec();
        Self { key: record.key(), event_time: record.event_time(), headers, ..self }
    }

    /// Adds headers as they are on the wire.
    pub fn raw_headers(mut self, headers: &[u8]) -> Self {
        self.headers.extend_from_slice(headers);
        self
    }

    /// Adds a header. Names end at 64 KiB.
    pub fn header(mut self, name: &str, value: &[u8]) -> Self {
        if !push_header(&mut self.headers, name, value) {
            self.emit.answers.note_too_long(self.emit.parent);
        }
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
        emit.answers.push(&head, write);
    }
}
