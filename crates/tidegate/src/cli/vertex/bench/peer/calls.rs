//! Batches to the function and back.
//!
//! The next batch is sent by the thread that takes the answer, so that nothing but the transport is between the two: no source,
//! no sink, and no thread that waits for another.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tidegate::shm::sync::{Arc, Mutex};
use tidegate::vertex::answer::{Answer, Verdict};
use tidegate::vertex::fence::{Guard, SlotWords, WriteKind};
use tidegate::vertex::lane::session::{SendError, Session};
use tidegate::vertex::lane::supervise::LaneEvent;
use tidegate_udf::wire::frame::{Frame, HEADER_LEN, Kind, payload_crc};
use tidegate_udf::wire::ids::{BatchId, EpochId, FenceSlot, PartitionId, Position, SchemaId};
use tidegate_udf::wire::record::{RecordHead, RecordType, RecordWriter};
use tidegate_udf::wire::status::Status;

use super::lane::{self, FRAME};
use super::{Task, failed};
use crate::cli::bench::peer::{finish, histogram, print, recorded};
use crate::output::Stop;

pub(super) fn run(task: &Task) -> Result<(), Stop> {
    let (table, guard) = lane::fence()?;
    let (ended, end) = channel();
    let driver = Mutex::new(Driver::new(task.clone(), guard, histogram()?));
    let driver = Arc::new(driver);
    let tell = move |event| {
        let mut driver = driver.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let happened = match event {
            LaneEvent::Attached(session) => driver.begin(session),
            LaneEvent::Answered(_, answer) => driver.answered(&answer),
            LaneEvent::Room => driver.send().map(|()| None),
            LaneEvent::NotAttached(error) => Err(failed(&error)),
            LaneEvent::Ended { why, .. } => Err(failed(&format!("the worker ended: {why:?}"))),
        };
        if !matches!(happened, Ok(None)) {
            stop(&ended, happened);
        }
    };
    let _lane = lane::start(task.checksum, &table, tell)?;
    match end.recv() {
        Ok(Ok(Some(result))) => finish(&result),
        Ok(Err(stop)) => Err(stop),
        Ok(Ok(None)) | Err(_) => Err(failed(&"the lane is gone")),
    }
}

type Happened = Result<Option<Value>, Stop>;

fn stop(ended: &Sender<Happened>, happened: Happened) {
    // The first one counts.
    let _ = ended.send(happened);
}

struct Driver {
    task: Task,
    guard: Guard<SlotWords>,
    session: Option<Session>,
    source: Vec<u8>,
    /// Records of a frame.
    piece: usize,
    payload: RecordWriter,
    /// Whether the payload is made and waits for room.
    waits: bool,
    /// Batches that may be sent, and what is left of the one that is being sent.
    allowed: usize,
    left: usize,
    /// Position of the next record.
    position: u64,
    /// When each batch on its way was sent.
    sent: VecDeque<Instant>,
    /// Records of the oldest batch that are not answered.
    unanswered: usize,
    warm: Instant,
    first: Option<Instant>,
    messages: u64,
    times: Histogram<u64>,
}

impl Driver {
    fn new(task: Task, guard: Guard<SlotWords>, times: Histogram<u64>) -> Self {
        let record = HEAD + task.size.next_multiple_of(8);
        let piece = ((FRAME - HEADER_LEN) as usize / record).clamp(1, task.batch);
        Self {
            source: vec![SOURCE; task.size],
            piece,
            payload: RecordWriter::default(),
            waits: false,
            allowed: task.flight,
            left: 0,
            position: 0,
            sent: VecDeque::new(),
            unanswered: task.batch,
            warm: Instant::now(),
            first: None,
            messages: 0,
            times,
            session: None,
            task,
            guard,
        }
    }

    fn begin(&mut self, session: Session) -> Happened {
        self.session = Some(session);
        self.warm = Instant::now() + self.task.times.warmup;
        self.send()?;
        Ok(None)
    }

    /// Sends what may be sent.
    fn send(&mut self) -> Result<(), Stop> {
        let Some(session) = &mut self.session else { return Ok(()) };
        loop {
            if self.left == 0 {
                if self.allowed == 0 {
                    return Ok(());
                }
                self.allowed -= 1;
                self.left = self.task.batch;
                self.sent.push_back(Instant::now());
            }
            let count = self.piece.min(self.left);
            if !self.waits {
                self.payload.clear();
                for index in 0..count as u32 {
                    let (kind, key, headers) = (RecordType::Data, &[][..], &[][..]);
                    let head = RecordHead { kind, index, place: index, event_time: None, key, headers };
                    self.payload.push(&head, &self.source).map_err(|error| failed(&error))?;
                }
            }
            let payload = self.payload.bytes();
            let header = request(&self.guard, self.position, count as u32);
            let header = Frame { payload_crc: self.task.checksum.then(|| payload_crc(payload)), ..header };
            let permit = if self.task.permits {
                Some(self.guard.permit(WriteKind::Request).map_err(|error| failed(&error))?)
            } else {
                None
            };
            let still = || permit.as_ref().is_none_or(|permit| permit.is_current());
            match session.send(&header, payload, still) {
                Ok(_) => {
                    self.waits = false;
                    self.left -= count;
                    self.position += count as u64;
                }
                // The next answer makes room.
                Err(SendError::Full) => {
                    self.waits = true;
                    return Ok(());
                }
                Err(error) => return Err(failed(&format!("a batch was not sent: {error:?}"))),
            }
        }
    }
    /// Checks an answer; when it completes a batch, notes its time and sends the next one. The result, when it is over.
    fn answered(&mut self, answer: &Answer) -> Happened {
        let mut count = 0;
        for verdict in answer.verdicts() {
            let Verdict::Done(outputs) = verdict else { return Err(failed(&"an answer is none")) };
            if outputs.len() != 1 {
                return Err(failed(&"an answer has another number of outputs"));
            }
            for output in outputs.views() {
                let value = output.value;
                let right = value.len() == self.task.size
                    && value.first() == Some(&(SOURCE ^ 1))
                    && (value.len() == 1 || value.last() == Some(&SOURCE));
                if !right {
                    return Err(failed(&"an answer is wrong"));
                }
            }
            count += 1;
        }
        if count == 0 || count > self.unanswered {
            return Err(failed(&"an answer is to another batch"));
        }
        self.unanswered -= count;
        if self.unanswered == 0 {
            self.unanswered = self.task.batch;
            self.allowed += 1;
            if let Some(result) = self.took_batch() {
                return Ok(Some(result));
            }
        }
        self.send()?;
        Ok(None)
    }

    fn took_batch(&mut self) -> Option<Value> {
        let now = Instant::now();
        let sent = self.sent.pop_front()?;
        let Some(first) = self.first else {
            if now >= self.warm {
                let worker = self.session.as_ref().and_then(Session::pid);
                print(&json!({ "begin": true, "workers": [worker] }));
                self.first = Some(Instant::now());
            }
            return None;
        };
        self.messages += self.task.batch as u64;
        self.times.saturating_record(u64::try_from((now - sent).as_nanos()).unwrap_or(u64::MAX));
        if !self.task.times.is_over(now - first, self.messages) {
            return None;
        }
        let (bytes, seconds) = (self.messages * self.task.size as u64, (now - first).as_secs_f64());
        let histogram = recorded(&self.times);
        Some(json!({ "messages": self.messages, "bytes": bytes, "seconds": seconds, "histogram": histogram }))
    }
}

fn request(guard: &Guard<SlotWords>, first: u64, count: u32) -> Frame {
    Frame {
        kind: Kind::Data,
        more: false,
        replay: false,
        barrier: false,
        end_of_source: false,
        generation: guard.generation(),
        epoch: EpochId(1),
        batch: BatchId(0),
        schema: SchemaId(0),
        partition: PartitionId(0),
        record_count: count,
        source_first: Position(first),
        source_last: Position(first + u64::from(count) - 1),
        watermark: None,
        status: Status::Ok,
        attempt: 0,
        fence_slot: FenceSlot(0),
        inputs_done: 0,
        frag_index: 0,
        payload_crc: None,
    }
}

/// Bytes of a record's head.
const HEAD: usize = 32;
const SOURCE: u8 = b'a';
