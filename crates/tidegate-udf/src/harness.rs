//! Functions without a runtime, for tests (VX-512): the same code runs them, in memory of this process alone.

use std::{collections::BTreeMap, mem::size_of, sync::Arc, time::Duration};

use serde_json::Value;
use tidegate_shm::{clock::monotonic_now, region::SealedMemory};

use crate::{
    api::{Around, Ctx},
    batch::{Answers, Batch, Failure, Handled},
    journal::Book,
    segment::{FenceView, Link, OwnSegment, PeerSegment},
    session::WorkerError,
    wire::{
        frame::{Frame, Kind},
        ids::{BatchId, EpochId, FenceSlot, Generation, PartitionId, Position, SchemaId},
        message::Welcome,
        record::{Direction, RecordHead, RecordType, RecordWriter, Records, headers, push_header},
        segment::{FENCE_SLOT, SEGMENT_HEADER},
        status::Status,
    },
    worker::FunctionWorker,
};

/// Runs a function over inputs.
///
/// ```
/// use tidegate_udf::{Answered, Harness, worker};
///
/// let words = worker().flat_map("words", |record, _| {
///     record.value().split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect::<Vec<_>>()
/// });
/// let answers = Harness::new(words)?.push(b"to be").push(b"or").answers()?;
/// let values: Vec<_> = answers.iter().map(Answered::values).collect();
/// assert_eq!(values, [vec!["to", "be"], vec!["or"]]);
/// # Ok::<(), tidegate_udf::Failure>(())
/// ```
#[derive(Debug)]
pub struct Harness {
    worker: FunctionWorker,
    inputs: RecordWriter,
    around: Around,
    frame: Frame,
}

/// What became of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// Done, with these outputs; without any it was filtered.
    Done(Vec<Made>),
    /// Left out on purpose.
    Dropped(String),
    /// To be tried again.
    Failed(String),
    /// Bad for good.
    Rejected(String),
    /// Back to the source for so long.
    Nacked(Duration, String),
}

/// An output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Number of its route.
    pub route: u16,
    /// Its key, empty if there is none.
    pub key: Vec<u8>,
    /// Its event time in milliseconds since 1970.
    pub event_time: Option<i64>,
    /// Name and value of each header.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Answered {
    /// The values of the outputs as text, for comparisons.
    pub fn values(&self) -> Vec<String> {
        let Self::Done(outputs) = self else { return Vec::new() };
        outputs.iter().map(|output| String::from_utf8_lossy(&output.value).into_owned()).collect()
    }
}

impl Harness {
    /// The function of this worker, without inputs.
    ///
    /// # Errors
    /// The system has no memory left.
    pub fn new(worker: FunctionWorker) -> Result<Self, WorkerError> {
        let memory = SealedMemory::create("tidegate-harness", 2 * SEGMENT_HEADER)?;
        let region = memory.map(0..memory.len())?;
        // One fence slot, of generation 1, without a lease.
        let words = [1, u64::MAX].map(u64::to_le_bytes).concat();
        region.span_mut(SEGMENT_HEADER, FENCE_SLOT)?.write_at(0, &words)?;
        let welcome = Welcome {
            proto: 1,
            pipeline: "harness".to_owned(),
            heartbeat_ms: 200,
            batch_timeout_ms: 30_000,
            routes: vec!["main".to_owned()],
            checksum: false,
            params: Value::Null,
        };
        let fence = FenceView::new(&region, 1)?;
        let (own, peer) =
            (OwnSegment::new(&region, SEGMENT_HEADER)?, PeerSegment::new(&region, SEGMENT_HEADER)?);
        let around = Around { welcome, pipeline: 0, fence, link: Link { own, peer }, book: Book::new(None) };
        Ok(Self { worker, inputs: RecordWriter::default(), around, frame: FRAME })
    }

    /// Gives the function these parameters.
    #[must_use]
    pub fn params(mut self, params: Value) -> Self {
        self.around.welcome.params = params;
        self
    }

    /// Names the routes, the default one first.
    #[must_use]
    pub fn routes(mut self, names: &[&str]) -> Self {
        self.around.welcome.routes = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Adds an input with this value alone.
    #[must_use]
    pub fn push(self, value: &[u8]) -> Self {
        self.push_record(&[], None, &[], value)
    }

    /// Adds an input with everything it can have; `headers` are names and values. Positions count by tens.
    #[must_use]
    pub fn push_record(
        mut self,
        key: &[u8],
        event_time: Option<i64>,
        headers: &[(&str, &[u8])],
        value: &[u8],
    ) -> Self {
        let index = self.inputs.count();
        let mut bytes = Vec::new();
        for (name, value) in headers {
            // Names and values of tests are short.
            let _ = push_header(&mut bytes, name, value);
        }
        let place = index.saturating_mul(10);
        let head = RecordHead { kind: RecordType::Data, index, place, event_time, key, headers: &bytes };
        // An input with a key of 64 KiB is not one; the answers then miss it, which a test sees.
        let _ = self.inputs.push(&head, value);
        self
    }

    /// What the function made of the inputs, as one batch.
    ///
    /// # Errors
    /// The function failed or panicked on the batch as a whole.
    pub fn answers(self) -> Result<Vec<Answered>, Failure> {
        self.answers_and_counters().0
    }

    /// As [`Harness::answers`], with what the function counted; its lines go to standard error.
    pub fn answers_and_counters(self) -> (Result<Vec<Answered>, Failure>, BTreeMap<String, u64>) {
        let book = self.around.book.clone();
        (self.run(), book.counters())
    }

    fn run(self) -> Result<Vec<Answered>, Failure> {
        let Self { mut worker, inputs, around, frame } = self;
        let count = inputs.count();
        let batch = Batch::parse(Arc::new(inputs.bytes().to_vec()), count, frame.source_first)?;
        let mut answers = Answers::new(MAX_RECORD);
        answers.begin(count);
        let around = Arc::new(around);
        let ctx = Ctx { around: &around, frame, since: monotonic_now() };
        let handled = worker.function().handle(&batch, &ctx, &mut answers);
        match (answers.conclude(handled.clone()), handled) {
            (Ok(Status::Ok | Status::Partial), _) => read(&answers, count),
            (_, Handled::Failed(reason) | Handled::Panicked(reason)) => Err(Failure::new(reason)),
            (_, Handled::Answered | Handled::Interrupted | Handled::Exited) => {
                Err(Failure::new("the function ended its worker"))
            }
        }
    }
}

/// The answers as the runtime reads them.
fn read(answers: &Answers, inputs: u32) -> Result<Vec<Answered>, Failure> {
    let mut answered = vec![Answered::Done(Vec::new()); inputs as usize];
    for view in Records::parse(answers.bytes(), answers.count(), Direction::Response { inputs })? {
        let Some(answer) = answered.get_mut(view.index as usize) else { continue };
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        match view.kind {
            RecordType::Data => {
                if let Answered::Done(outputs) = answer {
                    outputs.push(Made {
                        route: u16::try_from(view.place).unwrap_or(u16::MAX),
                        key: view.key.to_vec(),
                        event_time: view.event_time,
                        headers: headers(view.headers)
                            .map(|(name, value)| (name.to_vec(), value.to_vec()))
                            .collect(),
                        value: view.value.to_vec(),
                    });
                }
            }
            RecordType::Drop => *answer = Answered::Dropped(text(view.value)),
            RecordType::Fail => *answer = Answered::Failed(text(view.value)),
            RecordType::Reject => *answer = Answered::Rejected(text(view.value)),
            RecordType::Nack => {
                let (delay, reason) =
                    view.value.split_first_chunk::<{ size_of::<u32>() }>().unwrap_or((&[0; 4], &[]));
                let delay = Duration::from_millis(u32::from_le_bytes(*delay).into());
                *answer = Answered::Nacked(delay, text(reason));
            }
        }
    }
    Ok(answered)
}

/// What the inputs are of.
const FRAME: Frame = Frame {
    kind: Kind::Data,
    more: false,
    replay: false,
    barrier: false,
    end_of_source: false,
    generation: Generation(1),
    epoch: EpochId(1),
    batch: BatchId(1),
    schema: SchemaId(0),
    partition: PartitionId(0),
    record_count: 0,
    source_first: Position(1000),
    source_last: Position(1000),
    watermark: None,
    status: Status::Ok,
    attempt: 0,
    fence_slot: FenceSlot(0),
    inputs_done: 0,
    frag_index: 0,
    payload_crc: None,
};
/// Longest record: as with rings of 16 MiB.
const MAX_RECORD: usize = (4 << 20) - 128;
