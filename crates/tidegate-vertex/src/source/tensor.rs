//! Frames of a tensor stream as records. The stream is lossy: its producer never waits, so a vertex that is too slow loses frames,
//! which are counted or stop it, and nothing can be read again.
//!
//! | `format` | value | headers |
//! |---|---|---|
//! | `value` | the elements in row order, without padding | `tg-dtype` (`<u2`), `tg-shape` (`480x640`), `tg-epoch`, `tg-seq`, `tg-timestamp-ns` |
//! | `output` | that of another vertex's output | its own |
//!
//! A thread of its own copies the frames, within a bound in bytes, and keeps the lease. Positions count the records of this run.
//! With each the ledger keeps epoch and number of the frame, so that a vertex that is started again knows what it has missed.

use std::{collections::VecDeque, path::PathBuf, thread, time::Instant};

use serde::Deserialize;
use tidegate_shm::{
    clock::Nanos,
    sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering},
};
use tidegate_tensor::{
    agent::Agent,
    client::{Client, ClientAgent, ClientError, Consumer, ConsumerConfig, ReadOutcome},
    frame::FrameView,
    tensor::Dtype,
};
use tidegate_udf::wire::{
    ids::{PartitionId, Position},
    record::push_header,
};

use super::{
    Abilities, AckMode, Budget, Identity, OnGap, Polled, Positions, Replay, Resume, Source, SourceError,
    ahead::{Ahead, Feed, ahead, first_of_run},
};
use crate::{
    batch::{Input, Record},
    config::units::Bytes,
    origin::{self, Format, Newest},
    tensor::{Attached, LOOK, SOON, Stream, TensorError, attach, maybe_dtype, shape_text},
    wake::Waker,
};

/// The keys of a source of kind `tensor`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSource {
    /// The stream.
    pub stream: Stream,
    /// Directory of its node.
    pub dir: Option<PathBuf>,
    #[serde(default)]
    format: Format,
    /// What the elements have to be.
    #[serde(default, deserialize_with = "maybe_dtype")]
    dtype: Option<Dtype>,
    /// What the shape has to be.
    shape: Option<Vec<i32>>,
    #[serde(default = "skip")]
    on_gap: OnGap,
    /// Frames that were copied and not taken by the vertex.
    #[serde(default = "prefetch")]
    prefetch: Bytes,
}

/// What it can do.
pub const ABILITIES: Abilities =
    Abilities { positions: Positions::PerRun, replay: Replay::No, ack: AckMode::None, ordered: true };

/// A stream that is read.
#[derive(Debug)]
pub struct Tensor {
    keys: TensorSource,
    /// Number of the stream.
    stream: u32,
    ahead: Ahead,
    first: Position,
    /// Behind the last record that was polled.
    polled: Position,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What both threads know.
#[derive(Debug, Default)]
struct Shared {
    /// Frames that were lost.
    lost: AtomicU64,
    /// Outputs of sessions that were over when they were read, and were left out (VX-751).
    stale: AtomicU64,
    places: Mutex<Places>,
}

/// Which frames the records are.
#[derive(Debug, Default)]
struct Places {
    /// Where frames follow each other from; the oldest first.
    runs: VecDeque<(Position, Frame)>,
    /// What an earlier run would have read next.
    expected: Option<Frame>,
}

/// One frame of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    epoch: u64,
    seq: u64,
}

impl Tensor {
    /// Attaches the stream and begins to read.
    ///
    /// # Errors
    /// The stream is not linked, or its driver is not there or refuses.
    pub fn open(keys: &TensorSource, waker: Waker) -> Result<Self, SourceError> {
        let Attached { endpoint, client, agent } =
            attach(&keys.stream, |client, stream| client.add_consumer(ConsumerConfig::new(stream)))?;
        let stream = endpoint.status().stream.get();
        let first = first_of_run()?;
        let (feed, ahead) = ahead(keys.prefetch.0 as usize, waker);
        let shared = Arc::new(Shared::default());
        let reader = Reader {
            keys: keys.clone(),
            consumer: endpoint,
            shared: shared.clone(),
            newest: Newest::default(),
            next: first,
            after: None,
            left_out: false,
        };
        let work = move || run(reader, agent, client, feed);
        let thread = thread::Builder::new()
            .name("tensor source".to_owned())
            .spawn(work)
            .map_err(SourceError::Start)?;
        Ok(Self { keys: keys.clone(), stream, ahead, first, polled: first, shared, thread: Some(thread) })
    }
}

impl Source for Tensor {
    fn abilities(&self) -> Abilities {
        ABILITIES
    }

    fn partitions(&self) -> u32 {
        1
    }

    fn open(&mut self, _: PartitionId, from: Option<&Resume>) -> Result<Position, SourceError> {
        let known = from.and_then(|resume| Frame::known(&resume.identity, self.stream));
        if let Some(known) = known {
            let mut places = self.shared.places();
            match places.runs.front() {
                None => places.expected = Some(known),
                Some(&(_, first)) => self.keys.missed(first, first.missed_since(known), &self.shared)?,
            }
        }
        // Wherever the last run came to: it cannot come again.
        Ok(self.first)
    }

    fn poll(&mut self, _: PartitionId, max: Budget) -> Result<Polled, SourceError> {
        let polled = self.ahead.poll(max)?;
        if let Polled::Inputs(inputs) = &polled
            && let Some(last) = inputs.last()
        {
            self.polled = last.next;
        }
        Ok(polled)
    }

    fn identity(&mut self, _: PartitionId, resume: Position) -> Result<Identity, SourceError> {
        let mut places = self.shared.places();
        while places.runs.get(1).is_some_and(|(first, _)| *first <= resume) {
            places.runs.pop_front();
        }
        Ok(match places.runs.front() {
            Some((first, Frame { epoch, seq })) if *first <= resume => {
                let seq = seq.saturating_add(resume.0 - first.0);
                Frame { epoch: *epoch, seq }.identity(self.stream)
            }
            _ => Identity::default(),
        })
    }

    fn nack(&mut self, _: PartitionId, from: Position, _: Nanos) {
        // There is nobody who could give them again.
        self.shared.lose(self.polled.0.saturating_sub(from.0));
        self.polled = from.min(self.polled);
    }

    fn pending(&self, _: PartitionId) -> Option<u64> {
        Some(self.ahead.len())
    }

    fn ahead(&self) -> Option<u64> {
        Some(self.ahead.bytes())
    }

    fn lost(&self) -> u64 {
        // Relaxed: a number for people.
        self.shared.lost.load(Ordering::Relaxed)
    }

    fn left_out(&self) -> u64 {
        // Relaxed: a number for people.
        self.shared.stale.load(Ordering::Relaxed)
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        // Nobody takes any more, which ends the thread.
        let (_, closed) = ahead(0, Waker::new(|| {}));
        drop(std::mem::replace(&mut self.ahead, closed));
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lose(&self, frames: u64) {
        // Relaxed: a number for people. As large as descriptors of others say, so it may reach the end.
        let add = |lost: u64| Some(lost.saturating_add(frames));
        let _ = self.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// The places are whole at every moment, whoever panicked with the lock.
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Places {
    /// Record `position` is this frame; says how many frames an earlier run has missed.
    fn begin(&mut self, position: Position, frame: Frame) -> u64 {
        if self.runs.len() >= MAX_RUNS {
            self.runs.pop_front();
        }
        self.runs.push_back((position, frame));
        self.expected.take().map_or(0, |known| frame.missed_since(known))
    }
}

impl Frame {
    /// Frames between the one that was expected and this one; those of other epochs cannot be counted.
    fn missed_since(self, expected: Self) -> u64 {
        if self.epoch == expected.epoch { self.seq.saturating_sub(expected.seq) } else { 0 }
    }

    fn identity(self, stream: u32) -> Identity {
        let mut bytes = stream.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        Identity(bytes)
    }

    /// The frame that an earlier run of the same stream would have read next.
    fn known(Identity(bytes): &Identity, stream: u32) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<4>()?;
        let (epoch, rest) = rest.split_first_chunk::<8>()?;
        let seq = <[u8; 8]>::try_from(rest).ok()?;
        let frame = Self { epoch: u64::from_le_bytes(*epoch), seq: u64::from_le_bytes(seq) };
        (u32::from_le_bytes(*number) == stream).then_some(frame)
    }
}

/// Copies frames.
struct Reader {
    keys: TensorSource,
    consumer: Consumer,
    shared: Arc<Shared>,
    newest: Newest,
    /// Position of the next record.
    next: Position,
    /// The frame that follows the last one.
    after: Option<Frame>,
    /// Whether that one is no record, so that the next one is no longer where the places say.
    left_out: bool,
}

/// Reads, and keeps the lease, until nobody takes any more. The client lives as long as its agent.
fn run(mut reader: Reader, mut agent: ClientAgent, client: Client, feed: Feed) {
    let mut active = Instant::now();
    let why = loop {
        if feed.is_closed() {
            break None;
        }
        if let Err(error) = agent.do_work() {
            break Some(reader.keys.stream.failed(error));
        }
        match reader.read(&feed) {
            Err(error) => break Some(error),
            Ok(true) => active = Instant::now(),
            Ok(false) => {}
        }
        if !feed.has_room() {
            feed.await_room(LOOK);
        } else {
            // Frames that come while it sleeps wait in the ring, if that is large enough.
            thread::park_timeout(if active.elapsed() < LULL { SOON } else { LOOK });
        }
    };
    drop(reader);
    agent.close();
    drop(client);
    feed.end(why.map(SourceError::from));
}

impl Reader {
    /// Copies what is there, as far as there is room; whether something was.
    fn read(&mut self, feed: &Feed) -> Result<bool, TensorError> {
        let mut any = false;
        for _ in 0..MOST_FRAMES {
            if !feed.has_room() {
                break;
            }
            let mut seen = Vec::new();
            let (keys, mut copied) = (&self.keys, None);
            // One at a time, so that one who is slow loses single frames.
            let polled = self.consumer.poll_outcomes(1, &mut |outcome| {
                let told = match outcome {
                    ReadOutcome::Frame(view) => {
                        let told = keys.copy(&view);
                        copied = told.is_some().then(|| view.seq());
                        told
                    }
                    ReadOutcome::DroppedGap { frames } => Some(Seen::Lost(frames)),
                    // Overwritten when its copy was whole already.
                    ReadOutcome::DroppedLate { seq } if copied == Some(seq) => None,
                    ReadOutcome::DroppedLate { .. } => Some(Seen::Lost(1)),
                    ReadOutcome::DroppedInvalid { seq, why } => {
                        tracing::warn!(stream = %keys.stream.name, %seq, %why, "a frame cannot be read");
                        Some(Seen::Lost(1))
                    }
                    _ => None,
                };
                seen.extend(told);
            });
            let handled = polled.map_err(|_| self.keys.stream.failed(ClientError::Closed))?;
            for seen in seen {
                self.take(seen, feed)?;
            }
            if handled == 0 {
                break;
            }
            any = true;
        }
        Ok(any)
    }

    fn take(&mut self, seen: Seen, feed: &Feed) -> Result<(), TensorError> {
        let stream = || self.keys.stream.name.clone();
        match seen {
            Seen::Lost(frames) => {
                // Said with the frame behind them, if that stops the vertex.
                self.shared.lose(frames);
                Ok(())
            }
            Seen::Wrong(error) => Err(error),
            Seen::Copied(frame, bytes, headers) => {
                let Frame { epoch, seq } = frame;
                let gap = self.after.map_or(0, |after| frame.missed_since(after));
                if gap > 0 && self.keys.on_gap == OnGap::Stop {
                    return Err(TensorError::Gap { stream: stream(), epoch, seq, lost: gap });
                }
                if self.after != Some(frame) || self.left_out {
                    let missed = self.shared.places().begin(self.next, frame);
                    self.keys.missed(frame, missed, &self.shared)?;
                }
                self.after = Some(Frame { epoch, seq: seq.saturating_add(1) });
                let record = match self.keys.format {
                    Format::Value => Record { headers: headers.into(), ..Record::of(bytes) },
                    Format::Output => {
                        let wrong = |(field, found, allowed)| TensorError::Output {
                            stream: stream(),
                            epoch,
                            seq,
                            field,
                            found,
                            allowed,
                        };
                        let (record, from) = origin::read(&bytes).map_err(wrong)?;
                        self.left_out = !self.newest.admits(&from);
                        if self.left_out {
                            // Relaxed: a number for people.
                            self.shared.stale.fetch_add(1, Ordering::Relaxed);
                            return Ok(());
                        }
                        record
                    }
                };
                let position = self.next;
                self.next = Position(position.0 + 1);
                feed.add(Input { position, next: self.next, record });
                Ok(())
            }
        }
    }
}

/// What became of a frame.
enum Seen {
    /// Its payload, or its values, and its headers.
    Copied(Frame, Vec<u8>, Vec<u8>),
    Lost(u64),
    Wrong(TensorError),
}

impl TensorSource {
    /// Bytes that are read ahead.
    pub(crate) fn prefetch(&self) -> u64 {
        self.prefetch.0
    }

    /// What becomes of its records, in one sentence (VX-002).
    pub(crate) fn promise(&self) -> &'static str {
        match self.on_gap {
            OnGap::Skip => {
                "at most once: frames that are overwritten before they are read are lost and counted, and what was read and is not \
                 committed is lost when the vertex dies"
            }
            OnGap::Stop => {
                "at most once: what was read and is not committed is lost when the vertex dies; frames that are overwritten before \
                 they are read stop it"
            }
        }
    }

    /// So many frames before this one went by while the vertex was down.
    fn missed(&self, Frame { epoch, seq }: Frame, lost: u64, shared: &Shared) -> Result<(), TensorError> {
        shared.lose(lost);
        if lost > 0 && self.on_gap == OnGap::Stop {
            return Err(TensorError::Gap { stream: self.stream.name.clone(), epoch, seq, lost });
        }
        Ok(())
    }

    /// Copies a frame; nothing when it was overwritten meanwhile, which is told of.
    fn copy(&self, view: &FrameView<'_>) -> Option<Seen> {
        let frame = Frame { epoch: view.epoch().get(), seq: view.seq().get() };
        let (layout, timestamp) = (*view.described_layout(), view.timestamp_ns());
        let mut payload = Vec::new();
        view.copy_to(&mut payload).ok()?;
        if let Some(wrong) = self.differs(frame, layout.dtype(), layout.shape()) {
            return Some(Seen::Wrong(wrong));
        }
        if self.format == Format::Output {
            return Some(Seen::Copied(frame, payload, Vec::new()));
        }
        if !layout.fits(payload.len() as u64) {
            tracing::warn!(stream = %self.stream.name, seq = frame.seq, "a frame is shorter than its tensor");
            return Some(Seen::Lost(1));
        }
        let runs: Vec<_> = layout.runs().collect();
        let values = match runs.as_slice() {
            [run] if run.start == 0 => {
                payload.truncate(run.end);
                payload
            }
            runs => {
                runs.iter().flat_map(|run| payload.get(run.clone()).unwrap_or_default()).copied().collect()
            }
        };
        let mut headers = Vec::new();
        push_header(&mut headers, "tg-dtype", layout.dtype().npy_descr().as_bytes());
        push_header(&mut headers, "tg-shape", shape_text(layout.shape()).as_bytes());
        push_header(&mut headers, "tg-epoch", frame.epoch.to_string().as_bytes());
        push_header(&mut headers, "tg-seq", frame.seq.to_string().as_bytes());
        if let Some(timestamp) = timestamp {
            push_header(&mut headers, "tg-timestamp-ns", timestamp.to_string().as_bytes());
        }
        Some(Seen::Copied(frame, values, headers))
    }

    /// In what a frame is another tensor than the pipeline file says.
    fn differs(&self, Frame { epoch, seq }: Frame, dtype: Dtype, shape: &[i32]) -> Option<TensorError> {
        let (key, found, expected) = match (self.dtype, &self.shape) {
            (Some(expected), _) if expected != dtype => ("dtype", dtype.to_string(), expected.to_string()),
            (_, Some(expected)) if expected != shape => ("shape", shape_text(shape), shape_text(expected)),
            _ => return None,
        };
        Some(TensorError::Frame { stream: self.stream.name.clone(), epoch, seq, key, found, expected })
    }
}

fn skip() -> OnGap {
    OnGap::Skip
}

fn prefetch() -> Bytes {
    Bytes(32 << 20)
}

/// How long after the last frame the next one is looked for every millisecond.
const LULL: std::time::Duration = std::time::Duration::from_secs(1);
/// Frames that are copied before the lease is looked after again.
const MOST_FRAMES: u32 = 64;
/// Gaps that are remembered between two commits.
const MAX_RUNS: usize = 4096;
