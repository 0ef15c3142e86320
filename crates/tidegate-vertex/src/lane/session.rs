//! One attachment of one worker: fresh segments, the batches that are on their way, and the end of it.

use std::collections::BTreeMap;

use thiserror::Error;
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    process::{ProcessHandle, ProcessId},
    region::{AccessError, MapError, SealError, SealedMemory},
    sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering},
};
use tidegate_udf::{
    ring::{PublishError, Publisher, Reader, Violation},
    segment::{Link, OwnSegment, PeerSegment},
    wire::{
        frame::Frame,
        function::FunctionKind,
        ids::{BatchId, SchemaId, SessionId},
        segment::{DownHeader, Geometry, READY_AT, RUN_STATE_AT, RunState, encode_up},
    },
};

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
    pub(super) process: ProcessHandle,
    pub(super) max_response: u64,
    pub(super) routes: usize,
    in_flight: Mutex<BTreeMap<BatchId, InFlight>>,
    max_in_flight: usize,
    /// The receiving thread has to end.
    pub(super) closed: AtomicBool,
    fault: Mutex<Option<Violation>>,
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
            schema_in: SchemaId(0),
            schema_out: SchemaId(0),
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
        Ok(Self { down, up, link: Link { own, peer }, ring, max_response })
    }

    /// Whether the worker says that it has mapped and validated everything.
    pub(super) fn is_ready(&self) -> bool {
        // Acquire: pairs with the worker's store; its grants are there.
        self.link.peer.header().u32::<READY_AT>().load(Ordering::Acquire) == 1
    }

    /// Lets data flow: the sending half, and what the receiving thread needs.
    pub(super) fn start(self, process: ProcessHandle, routes: usize) -> (Session, Incoming) {
        let Self { link, ring, max_response, .. } = self;
        let mut reader = Reader::new(link.own.clone(), link.peer.clone(), ring);
        reader.open();
        // Release: the grants are there.
        link.own.header().u64::<RUN_STATE_AT>().store(RunState::Run.code(), Ordering::Release);
        link.ring_bell();
        let publisher = Publisher::new(link.own.clone(), link.peer.clone(), ring);
        let shared = Arc::new(Shared {
            link,
            process,
            max_response,
            routes,
            in_flight: Mutex::new(BTreeMap::new()),
            max_in_flight: ring.max_in_flight as usize,
            closed: AtomicBool::new(false),
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
    /// The worker's process.
    pub fn worker(&self) -> ProcessId {
        self.shared.process.id()
    }

    /// Publishes a batch. `header` is completed with the number of the batch; `is_current` is the permit's second test.
    ///
    /// # Errors
    /// As [`SendError`] says; nothing was sent.
    pub fn send(
        &mut self,
        header: &Frame,
        payload: &[u8],
        is_current: impl FnOnce() -> bool,
    ) -> Result<BatchId, SendError> {
        let batch = BatchId(self.next_batch);
        let request = Frame { batch, ..*header };
        // In the table before the worker can answer; and an answer needs a place in the ring of responses (VX-304).
        if !self.shared.admit(&request) {
            return Err(SendError::Full);
        }
        let published = self.publisher.publish(&request, payload, is_current);
        match published {
            Ok(()) => {
                self.next_batch += 1;
                self.shared.link.ring_bell();
                Ok(batch)
            }
            Err(error) => {
                self.shared.settle(batch);
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

    /// Notes what the worker did and ends its process; its death is what everybody else sees.
    pub(super) fn accuse(&self, violation: Violation) {
        lock(&self.fault).get_or_insert(violation);
        if let Err(error) = self.process.kill() {
            tracing::warn!(%error, "cannot kill a worker that broke the protocol");
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
        let mut in_flight = self.in_flight();
        in_flight.remove(&batch);
        // The next one is the oldest from now on (VX-434).
        if let Some(mut oldest) = in_flight.first_entry() {
            oldest.get_mut().since = monotonic_now();
        }
    }

    /// Since when the oldest batch is the oldest.
    pub(super) fn oldest_since(&self) -> Option<Nanos> {
        self.in_flight().first_key_value().map(|(_, batch)| batch.since)
    }

    /// All batches that were not answered, the oldest first.
    pub(super) fn unanswered(&self) -> Vec<BatchId> {
        self.in_flight().keys().copied().collect()
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

/// The data is whole at every moment: a thread that panicked while it had the lock changes nothing about that.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
