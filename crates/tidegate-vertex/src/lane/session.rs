//! One attachment of one worker: fresh segments, the batches that are on their way, and the end of it.

use std::{
    collections::BTreeMap,
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use thiserror::Error;
use tidegate_shm::{
    clock::{Nanos, boottime_now, monotonic_now},
    process::ProcessHandle,
    region::{AccessError, MapError, SealError, SealedMemory},
    sync::{Arc, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering},
};
use tidegate_udf::{
    control::Control,
    ring::{Peer, PublishError, Publisher, Reader, Violation},
    segment::{Link, OwnSegment, PeerSegment},
    wire::{
        frame::Frame,
        function::FunctionKind,
        ids::{BatchId, SchemaId, SessionId},
        segment::{DownHeader, Geometry, HEARTBEAT_AT, READY_AT, RUN_STATE_AT, RunState, Word, encode_up},
    },
};

use crate::operate::status::{Credit, SchemaStatus};

/// Sizes of a session (chapter 5).
#[derive(Debug, Clone, Copy)]
pub struct Transport {
    /// Bytes of each ring.
    pub ring: u64,
    /// Longest frame.
    pub max_frame: u32,
    /// Batches that may be on their way.
    pub max_in_flight: u32,
    /// Longest answer to a batch, in bytes of frames.
    pub max_response: u64,
}

/// What records of a session are (VX-422).
#[derive(Debug, Clone, Copy, Default)]
pub struct Typing {
    /// Inputs.
    pub input: SchemaId,
    /// Outputs.
    pub output: SchemaId,
    /// Whether untyped bytes are no record of a schema, on either side.
    pub strict: bool,
}

impl Typing {
    /// For people.
    pub fn status(&self) -> SchemaStatus {
        let name = |id: SchemaId| (id != SchemaId::NONE).then(|| format!("{:016x}", id.0));
        SchemaStatus { input: name(self.input), out: name(self.output), strict: self.strict }
    }

    /// Whether a worker fits that takes and makes these.
    pub(super) fn fits(&self, takes: &[SchemaId], makes: SchemaId) -> bool {
        let loose = |a, b| !self.strict && (a == SchemaId::NONE || b == SchemaId::NONE);
        let takes = takes.iter().any(|&one| one == self.input || loose(one, self.input));
        takes && (makes == self.output || loose(makes, self.output))
    }
}

/// Why a session could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The memory could not be made.
    #[error(transparent)]
    Memory(#[from] SealError),
    /// It could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A defect: the mapping is shorter than what was asked for.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// The publishing half, for the thread that sends batches.
#[derive(Debug)]
pub struct Session {
    publisher: Publisher<OwnSegment, PeerSegment>,
    shared: Arc<Shared>,
    next_batch: u64,
}

/// What the threads of a lane share about a session.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) hold: Hold,
    pub(super) max_response: u64,
    pub(super) typing: Typing,
    pub(super) routes: usize,
    /// When data began to flow, CLOCK_BOOTTIME: the worker may not have beaten yet.
    started: Nanos,
    /// How long the worker may be without a beat.
    patience: Nanos,
    in_flight: Mutex<BTreeMap<BatchId, InFlight>>,
    max_in_flight: usize,
    /// The receiving thread has to end.
    pub(super) closed: AtomicBool,
    /// A batch was answered.
    answered: AtomicBool,
    /// A batch was refused for want of credit, and nobody was told since that there is more.
    wants_room: AtomicBool,
    /// Since when a batch waits for credit while none is on its way; 0 if none does.
    starved: AtomicU64,
    fault: Mutex<Option<Violation>>,
}

/// What the runtime has of the process of a worker.
#[derive(Debug)]
pub(super) enum Hold {
    /// It has started it.
    Child(ProcessHandle),
    /// It came by itself. Perhaps the runtime cannot see it, and it never sends it a signal: its connection is cut off (VX-430).
    Stranger(Stranger, Arc<Control>),
}

/// A process that came by itself, as the kernel knows it.
#[derive(Debug)]
pub(super) struct Stranger {
    /// Its number, if it can be seen from here.
    pub(super) pid: Option<u32>,
    /// Its user.
    pub(super) uid: u32,
    /// Becomes readable with its death, if the kernel gives one.
    pub(super) pidfd: Option<OwnedFd>,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid} of user {}", self.uid),
            None => write!(f, "a process of user {} in another pid namespace", self.uid),
        }
    }
}

impl Hold {
    /// Becomes readable with the death of the process. Without it only the end of the connection tells.
    pub(super) fn death(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Child(process) => Some(process.as_fd()),
            Self::Stranger(stranger, _) => stranger.pidfd.as_ref().map(OwnedFd::as_fd),
        }
    }

    /// Ends the process, or its connection; what follows from that is what everybody else sees.
    fn end(&self) -> io::Result<()> {
        match self {
            Self::Child(process) => process.kill(),
            Self::Stranger(_, control) => {
                control.hang_up();
                Ok(())
            }
        }
    }
}

/// A batch that was published and not answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlight {
    pub(super) request: Frame,
    since: Nanos,
}

/// The memory of a session, before the worker has it.
#[derive(Debug)]
pub(super) struct Segments {
    pub(super) down: SealedMemory,
    pub(super) up: SealedMemory,
    link: Link,
    ring: Geometry,
    max_response: u64,
    typing: Typing,
}

impl Segments {
    /// Makes D and U for a new session (VX-101, VX-102, VX-103).
    pub(super) fn create(
        transport: &Transport,
        session: SessionId,
        instance: u64,
        pipeline: u64,
        worker: u32,
        kind: FunctionKind,
        typing: Typing,
    ) -> Result<Self, SessionError> {
        let Transport { ring: capacity, max_frame, max_in_flight, max_response } = *transport;
        let ring = Geometry { capacity, max_frame, session, max_in_flight };
        let len = ring.segment_len();
        let header = DownHeader {
            ring,
            instance,
            pipeline,
            runtime_pid: std::process::id(),
            worker,
            schema_in: typing.input,
            schema_out: typing.output,
            kind,
            max_response,
        };
        let down = SealedMemory::create("tidegate-down", len)?;
        let own = down.map(0..len)?;
        own.span_mut(0, 120)?.write_at(0, &header.encode())?;
        let own = OwnSegment::new(&own, capacity)?;
        // Release: the header is there.
        own.header().u32::<READY_AT>().store(1, Ordering::Release);
        down.seal_writers()?;
        let up = SealedMemory::create("tidegate-up", len)?;
        // The mapping that can be written is gone with this statement.
        up.map(0..len)?.span_mut(0, 56)?.write_at(0, &encode_up(&ring))?;
        up.seal_seals()?;
        let peer = PeerSegment::new(&up.map(0..0)?, capacity)?;
        Ok(Self { down, up, link: Link { own, peer }, ring, max_response, typing })
    }

    /// Whether the worker says that it has mapped and validated everything.
    pub(super) fn is_ready(&self) -> bool {
        // Acquire: pairs with the worker's store; its grants are there.
        self.link.peer.header().u32::<READY_AT>().load(Ordering::Acquire) == 1
    }

    /// Lets data flow: the sending half, and what the receiving thread needs.
    pub(super) fn start(self, hold: Hold, routes: usize, beat: Nanos) -> (Session, Incoming) {
        let Self { link, ring, max_response, typing, .. } = self;
        let mut reader = Reader::new(link.own.clone(), link.peer.clone(), ring);
        reader.open();
        // Release: the grants are there.
        link.own.header().u64::<RUN_STATE_AT>().store(RunState::Run.code(), Ordering::Release);
        link.ring_bell();
        let publisher = Publisher::new(link.own.clone(), link.peer.clone(), ring);
        let shared = Arc::new(Shared {
            link,
            hold,
            max_response,
            typing,
            routes,
            started: boottime_now(),
            patience: Nanos(beat.0.saturating_mul(MISSED_BEATS)),
            in_flight: Mutex::new(BTreeMap::new()),
            max_in_flight: ring.max_in_flight as usize,
            closed: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            wants_room: AtomicBool::new(false),
            starved: AtomicU64::new(0),
            fault: Mutex::new(None),
        });
        (Session { publisher, shared: shared.clone(), next_batch: 1 }, Incoming { reader, shared })
    }
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) reader: Reader<OwnSegment, PeerSegment>,
    pub(super) shared: Arc<Shared>,
}

/// Why a batch was not sent.
#[derive(Debug)]
pub enum SendError {
    /// The worker has enough to do, or has not granted enough; an answer changes that.
    Full,
    /// The right to write is gone.
    Fenced,
    /// The session is over, or ends now because the worker broke the protocol.
    Over,
}

impl Session {
    /// The worker's process, if it can be seen from here.
    pub fn pid(&self) -> Option<u32> {
        match &self.shared.hold {
            Hold::Child(process) => Some(process.id().pid),
            Hold::Stranger(stranger, _) => stranger.pid,
        }
    }

    /// Ends the worker; what it has not answered is given back when it is gone.
    pub fn end(&self) {
        self.shared.end();
    }

    /// Whether the worker has not beaten for five times as long as it should: it is stopped, or starved. A hint: what it writes
    /// is its own (VX-433).
    pub fn is_suspect(&self) -> bool {
        let beat = Nanos(self.shared.link.peer.header().u64::<HEARTBEAT_AT>().load(RELAXED));
        boottime_now().saturating_sub(beat.max(self.shared.started)) > self.shared.patience
    }

    /// Credit of requests and of answers, as a sample: the words of two processes are not read at one moment (VX-307).
    pub fn credits(&self) -> (Credit, Credit) {
        let Link { own, peer } = &self.shared.link;
        // Of `a <= b` the left one first.
        let consumed = (peer.load(Word::Consumed, RELAXED), peer.load(Word::ConsumedBatches, RELAXED));
        let used = (own.load(Word::Head), own.load(Word::Batches));
        let granted = (peer.load(Word::GrantPos, RELAXED), peer.load(Word::GrantBatches, RELAXED));
        let requests = credit(consumed, used, granted);
        let consumed = (own.load(Word::Consumed), own.load(Word::ConsumedBatches));
        let used = (peer.load(Word::Head, RELAXED), peer.load(Word::Batches, RELAXED));
        let granted = (own.load(Word::GrantPos), own.load(Word::GrantBatches));
        (requests, credit(consumed, used, granted))
    }

    /// Publishes a batch. `header` is completed with the number of the batch and its schema; `is_current` is the permit's second test.
    ///
    /// # Errors
    /// As [`SendError`] says; nothing was sent.
    pub fn send(
        &mut self,
        header: &Frame,
        payload: &[u8],
        is_current: impl Fn() -> bool,
    ) -> Result<BatchId, SendError> {
        let batch = BatchId(self.next_batch);
        let request = Frame { batch, schema: self.shared.typing.input, ..*header };
        // In the table before the worker can answer; and an answer needs a place in the ring of responses (VX-304).
        if !self.shared.admit(&request) {
            return Err(SendError::Full);
        }
        let mut published = self.publisher.publish(&request, payload, &is_current);
        if matches!(published, Err(PublishError::NoCredit)) {
            self.shared.starve(batch);
            // Credit that came before somebody was there to be told of it.
            published = self.publisher.publish(&request, payload, &is_current);
        }
        match published {
            Ok(()) => {
                self.next_batch += 1;
                // Relaxed: only times are compared.
                self.shared.starved.store(0, Ordering::Relaxed);
                self.shared.link.ring_bell();
                Ok(batch)
            }
            Err(error) => {
                self.shared.take_back(batch);
                Err(match error {
                    PublishError::NoCredit => SendError::Full,
                    PublishError::Abandoned => SendError::Fenced,
                    PublishError::Violation(violation) => {
                        self.shared.accuse(violation);
                        SendError::Over
                    }
                    _ => SendError::Over,
                })
            }
        }
    }
}

impl Shared {
    /// Ends the session for the worker; nothing in D changes after it.
    pub(super) fn close(&self) {
        let word = self.link.own.header().u64::<RUN_STATE_AT>();
        // Release: pairs with the worker's load.
        word.store(RunState::Closed.code(), Ordering::Release);
        self.link.ring_bell();
    }

    /// Notes what the worker did and ends it.
    pub(super) fn accuse(&self, violation: Violation) {
        lock(&self.fault).get_or_insert(violation);
        self.end();
    }

    pub(super) fn end(&self) {
        if let Err(error) = self.hold.end() {
            tracing::warn!(%error, "cannot kill a worker");
        }
    }

    /// What the worker did wrong first.
    pub(super) fn fault(&self) -> Option<Violation> {
        *lock(&self.fault)
    }

    /// The batch that is on its way under this number.
    pub(super) fn request(&self, batch: BatchId) -> Option<InFlight> {
        self.in_flight().get(&batch).copied()
    }

    /// The batch is answered.
    pub(super) fn settle(&self, batch: BatchId) {
        // Relaxed: read when the thread that stores it has ended.
        self.answered.store(true, Ordering::Relaxed);
        let mut in_flight = self.in_flight();
        in_flight.remove(&batch);
        // The next one is the oldest from now on (VX-434).
        if let Some(mut oldest) = in_flight.first_entry() {
            oldest.get_mut().since = monotonic_now();
        }
    }

    /// Whether the worker answered a batch.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Records of the batch that the worker works on, or worked on at its end.
    pub(super) fn suspect(&self) -> Option<u32> {
        self.in_flight().first_key_value().map(|(_, batch)| batch.request.record_count)
    }

    /// Whether the worker moved something since a batch was refused for want of credit.
    pub(super) fn has_room_again(&self) -> bool {
        // SeqCst: pairs with `starve`. Whoever is told tries again, and is refused again if nothing has changed.
        self.wants_room.swap(false, Ordering::SeqCst)
    }

    /// Since when the worker owes something: an answer to its oldest batch, or credit while it has none (VX-434).
    pub(super) fn stuck_since(&self) -> Option<Nanos> {
        let oldest = self.in_flight().first_key_value().map(|(_, batch)| batch.since);
        let starved = Some(self.starved.load(Ordering::Relaxed)).filter(|&since| since != 0).map(Nanos);
        oldest.or(starved)
    }

    /// All batches that were not answered, the oldest first.
    pub(super) fn unanswered(&self) -> Vec<BatchId> {
        self.in_flight().keys().copied().collect()
    }

    /// The batch was not published.
    fn take_back(&self, batch: BatchId) {
        self.in_flight().remove(&batch);
    }

    /// There is no credit for a batch.
    fn starve(&self, batch: BatchId) {
        let waits_alone = self.in_flight().keys().all(|&other| other == batch);
        // Relaxed: only times are compared. A batch on its way has its own time.
        if !waits_alone {
            self.starved.store(0, Ordering::Relaxed);
        } else if self.starved.load(Ordering::Relaxed) == 0 {
            self.starved.store(monotonic_now().0, Ordering::Relaxed);
        }
        // SeqCst: stored before the credit is looked at again, as the worker grants before it rings and the receiving thread looks
        // here after it was rung.
        self.wants_room.swap(true, Ordering::SeqCst);
    }

    fn admit(&self, request: &Frame) -> bool {
        let mut in_flight = self.in_flight();
        if in_flight.len() >= self.max_in_flight {
            return false;
        }
        in_flight.insert(request.batch, InFlight { request: *request, since: monotonic_now() });
        true
    }

    fn in_flight(&self) -> MutexGuard<'_, BTreeMap<BatchId, InFlight>> {
        lock(&self.in_flight)
    }
}

fn credit(consumed: (u64, u64), used: (u64, u64), granted: (u64, u64)) -> Credit {
    Credit {
        granted_bytes: granted.0,
        used_bytes: used.0,
        outstanding_bytes: used.0.saturating_sub(consumed.0),
        granted_batches: granted.1,
        used_batches: used.1,
        outstanding_batches: used.1.saturating_sub(consumed.1),
    }
}

/// Beats that a worker misses until it is suspect.
const MISSED_BEATS: u64 = 5;
/// For people.
const RELAXED: Ordering = Ordering::Relaxed;

/// The data is whole at every moment: a thread that panicked while it had the lock changes nothing about that.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
