//! A worker's life: attach, answer batches, end with the session.
//!
//! Two threads: this one waits for batches and runs the function; the other beats, watches the socket, and ends the process
//! when the runtime is gone, even while the function runs (VX-437).

use std::{io, path::PathBuf, sync::Arc};

use rustix::process::{Pid, Signal, getpid, kill_process};
use thiserror::Error;
use tidegate_shm::{
    clock::{Nanos, boottime_now, monotonic_now},
    region::{AccessError, MapError, SealError, SealedMemory},
    sync::{AtomicBool, Ordering},
};

use crate::{
    api::{Around, Ctx, LONGEST_SLEEP},
    batch::{Answers, Batch, End, Handler},
    control::{Control, Incoming},
    journal::Book,
    reach::{Patience, Runtime},
    ring::{PublishError, Publisher, Reader, Violation},
    segment::{FenceView, Link, OwnSegment, PeerSegment},
    wire::{
        frame::{Frame, Kind, payload_crc},
        ids::SchemaId,
        message::{FromRuntime, FromWorker, Hello, MessageFault, Ready, VERSIONS},
        record::{RecordFault, pieces},
        segment::{
            BUSY_BATCH_AT, BUSY_SINCE_AT, DownHeader, FENCE_READY_AT, HEARTBEAT_AT, PANIC_AT, PANIC_LEN,
            PID_AT, READY_AT, SDK_AT, SDK_VERSION_AT, SDK_VERSION_LEN, SegmentFault, decode_fence, decode_up,
        },
        status::Status,
    },
};

/// Why a worker ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Not started by a runtime.
    #[error(
        "TIDEGATE_VX_FD is not 0 and TIDEGATE_VX_SOCKET is not set: start this program by `udf.command` of a pipeline file or with \
         `tidegate vertex udf-test`, or set TIDEGATE_VX_SOCKET to its `udf.listen`"
    )]
    NotManaged,
    /// No runtime listens where one should.
    #[error("cannot connect to the runtime at {}, as TIDEGATE_VX_SOCKET says", .path.display())]
    NoRuntime {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot {step}")]
    Io {
        /// What was attempted.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The runtime did not answer, or went away, before the session began.
    #[error("the runtime did not complete the attach; its log says why")]
    NoSession,
    /// The runtime does not take this worker.
    #[error("the runtime refused this worker ({code}): {message}")]
    Rejected {
        /// One stable word.
        code: String,
        /// Names what both sides have.
        message: String,
    },
    /// The runtime said something that is none of the protocol.
    #[error(transparent)]
    Message(#[from] MessageFault),
    /// A descriptor is not the memory that it has to be.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The segments could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A segment is not as agreed.
    #[error(transparent)]
    Segment(#[from] SegmentFault),
    /// D or F could be written by this process.
    #[error("the runtime passed {segment} without sealing it against writers; it is of another version")]
    Unsealed {
        /// Which segment.
        segment: &'static str,
    },
    /// The runtime broke the protocol of the rings.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// A batch is of another schema than the session.
    #[error("the runtime sent records of schema {found:016x}, the session has {expected:016x}", found = .found.0, expected = .expected.0)]
    Schema {
        /// As the batch says.
        found: SchemaId,
        /// As D says.
        expected: SchemaId,
    },
    /// A batch cannot be read.
    #[error("batch {batch}: {fault}")]
    Records {
        /// Its number.
        batch: u64,
        /// What is wrong.
        fault: RecordFault,
    },
    /// A defect of this crate.
    #[error(transparent)]
    Access(#[from] AccessError),
}

pub(crate) fn io_error(step: &'static str) -> impl FnOnce(io::Error) -> WorkerError {
    move |source| WorkerError::Io { step, source }
}

/// What records a function takes and makes (VX-422).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schemas {
    /// The schemas of inputs that it takes; untyped bytes if there are none.
    pub takes: Vec<SchemaId>,
    /// The schema of its outputs.
    pub makes: SchemaId,
}

impl Schemas {
    /// What is said to the runtime.
    fn taken(&self) -> Vec<SchemaId> {
        if self.takes.is_empty() { vec![SchemaId::NONE] } else { self.takes.clone() }
    }

    /// A session has these schemas, or there are untyped bytes on one side, which the runtime has to judge.
    fn check(&self, down: &DownHeader) -> Result<(), SegmentFault> {
        let fits = |ours: &[SchemaId], theirs| {
            theirs == SchemaId::NONE || ours.iter().any(|&one| one == SchemaId::NONE || one == theirs)
        };
        let takes = self.taken();
        for (field, ours, theirs) in [
            ("D.schema_in", takes.as_slice(), down.schema_in),
            ("D.schema_out", &[self.makes], down.schema_out),
        ] {
            if !fits(ours, theirs) {
                let expected = ours.first().map_or(0, |one| one.0);
                return Err(SegmentFault { field, found: theirs.0, expected });
            }
        }
        Ok(())
    }
}

/// The SDK that serves a function, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    /// This crate.
    Rust,
    /// The Python package.
    Python,
}

impl Sdk {
    fn language(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
        }
    }

    /// The number in U.
    fn code(self) -> u32 {
        match self {
            Self::Rust => 1,
            Self::Python => 2,
        }
    }
}

/// Attaches to the runtime and answers batches until the session ends, or until the handler says that it is over. The runtime is
/// the one that started this process, which passes the control socket as standard input; or the one that listens where
/// `TIDEGATE_VX_SOCKET` says, which is waited for. It takes the worker if its records have these schemas. For SDKs; functions in Rust
/// are run by [`crate::FunctionWorker::run`].
///
/// # Errors
/// There is no runtime, it refused the worker, or it broke the protocol.
pub fn serve(name: &str, sdk: Sdk, schemas: &Schemas, handler: &mut dyn Handler) -> Result<(), WorkerError> {
    let runtime = Runtime::of_environment()?;
    let mut patience = Patience::new();
    let (control, mut session, beat) = loop {
        if handler.is_over() {
            return Ok(());
        }
        match greet(&runtime, name, sdk, schemas, handler) {
            Err(error) if runtime.is_to_come(&error) => patience.wait(&error),
            greeted => break greeted?,
        }
    };
    let finished = Arc::new(AtomicBool::new(false));
    let watch = Watch {
        control: control.clone(),
        link: session.link.clone(),
        around: session.around.clone(),
        beat,
        finished: finished.clone(),
    };
    std::thread::Builder::new()
        .name("tidegate-watch".to_owned())
        .spawn(move || watch.run())
        .map_err(io_error("start the watching thread"))?;
    let ended = session.serve(handler);
    // Release: pairs with the watcher; there is nothing left to interrupt.
    finished.store(true, Ordering::Release);
    // A runtime that cannot hear the last words sees this process end.
    let last = monotonic_now().saturating_add(GRACE);
    session.around.book.tell(|sums| control.send_until(sums, last).is_ok());
    if ended? == Some(End::Left) {
        let _ = control.send_until(&FromWorker::Bye.encode(), last);
    }
    Ok(())
}

/// Connects, says who this is, and attaches.
fn greet(
    runtime: &Runtime,
    name: &str,
    sdk: Sdk,
    schemas: &Schemas,
    handler: &mut dyn Handler,
) -> Result<(Arc<Control>, Session, Nanos), WorkerError> {
    let control = Arc::new(runtime.connect()?);
    let hello = Hello {
        proto: VERSIONS,
        language: sdk.language().to_owned(),
        sdk_version: env!("CARGO_PKG_VERSION").to_owned(),
        function: name.to_owned(),
        kind: handler.kind().name().to_owned(),
        schema_in: schemas.taken(),
        schema_out: schemas.makes,
        features: Vec::new(),
        // After the connection was made: the runtime compares it with when it saw that.
        boottime: boottime_now().0,
    };
    match control.send(&FromWorker::Hello(hello).encode(), &[]) {
        // It may have said why before it hung up.
        Err(error) if is_hang_up(&error) => {}
        sent => sent.map_err(io_error("greet the runtime"))?,
    }
    let (session, beat) = attach(&control, sdk, schemas, || handler.is_over())?;
    let ready = FromWorker::Ready(Ready { sealed: true });
    match control.send(&ready.encode(), &[]) {
        Err(error) if is_hang_up(&error) => Err(WorkerError::NoSession),
        sent => sent.map(|()| (control, session, beat)).map_err(io_error("answer the runtime")),
    }
}

/// Whether the other side is gone.
fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// A session that is attached.
struct Session {
    link: Link,
    requests: Reader<OwnSegment, PeerSegment>,
    responses: Publisher<OwnSegment, PeerSegment>,
    around: Arc<Around>,
    down: DownHeader,
    max_payload: usize,
    process: Pid,
}

/// Waits for the welcome, maps what came with it and validates all of it (VX-120, VX-423).
fn attach(
    control: &Arc<Control>,
    sdk: Sdk,
    schemas: &Schemas,
    mut is_over: impl FnMut() -> bool,
) -> Result<(Session, Nanos), WorkerError> {
    let give_up = monotonic_now().saturating_add(ATTACH_TIMEOUT);
    let incoming = loop {
        let deadline = monotonic_now().saturating_add(LONGEST_SLEEP).min(give_up);
        let incoming = control.receive_until(deadline, true).map_err(io_error("hear from the runtime"))?;
        if incoming.is_some() || monotonic_now() >= give_up || is_over() {
            break incoming;
        }
    };
    let Some(Incoming::Message(datagram, descriptors)) = incoming else {
        return Err(WorkerError::NoSession);
    };
    let welcome = match FromRuntime::decode(&datagram)? {
        FromRuntime::Welcome(welcome) => welcome,
        FromRuntime::Reject(reject) => {
            return Err(WorkerError::Rejected { code: reject.code, message: reject.message });
        }
    };
    let Ok([down, up, fence]) = <[_; 3]>::try_from(descriptors) else { return Err(WorkerError::NoSession) };
    let (down, up, fence) =
        (SealedMemory::receive(down)?, SealedMemory::receive(up)?, SealedMemory::receive(fence)?);
    for (memory, segment) in [(&down, "D"), (&fence, "F")] {
        if !memory.has_sealed_writers()? {
            return Err(WorkerError::Unsealed { segment });
        }
    }
    let (down_len, up_len, fence_len) = (down.len(), up.len(), fence.len());
    let (down, up, fence) = (down.map(0..0)?, up.map(0..up_len)?, fence.map(0..0)?);
    let header = DownHeader::decode(&bytes(&down)?, down_len)?;
    schemas.check(&header)?;
    let ring = decode_up(&bytes(&up)?, up_len, &header)?;
    let slots = decode_fence(&bytes(&fence)?, fence_len, &header)?;
    for (region, ready_at, field) in [(&down, READY_AT, "D.ready"), (&fence, FENCE_READY_AT, "F.ready")] {
        // Acquire: pairs with the runtime's store; everything else is there.
        let ready = region.atomic_u32(ready_at as u64)?.load(Ordering::Acquire);
        if ready != 1 {
            return Err(SegmentFault { field, found: ready.into(), expected: 1 }.into());
        }
    }
    let link = Link {
        own: OwnSegment::new(&up, ring.capacity)?,
        peer: PeerSegment::new(&down, header.ring.capacity)?,
    };
    let mut requests = Reader::new(link.own.clone(), link.peer.clone(), header.ring);
    requests.open();
    let responses = Publisher::new(link.own.clone(), link.peer.clone(), ring);
    introduce(&link, sdk)?;
    // Release: pairs with the runtime's load; the grants are there.
    link.own.header().u32::<READY_AT>().store(1, Ordering::Release);
    link.ring_bell();
    let beat = Nanos::from_millis(welcome.heartbeat_ms);
    let max_payload = ring.max_payload();
    let fence = FenceView::new(&fence, slots)?;
    let book = Book::new(Some(control.clone()));
    let around = Around { welcome, pipeline: header.pipeline, fence, link: link.clone(), book };
    let (around, process) = (Arc::new(around), getpid());
    Ok((Session { link, requests, responses, around, down: header, max_payload, process }, beat))
}

/// Writes into U who this is.
fn introduce(link: &Link, sdk: Sdk) -> Result<(), AccessError> {
    let own = link.own.header();
    // Relaxed: for people.
    own.u32::<PID_AT>().store(std::process::id(), Ordering::Relaxed);
    own.u32::<SDK_AT>().store(sdk.code(), Ordering::Relaxed);
    own.bytes::<SDK_VERSION_AT, SDK_VERSION_LEN>().write_at(0, env!("CARGO_PKG_VERSION").as_bytes())
}

/// The first bytes of a segment.
fn bytes<const LEN: usize>(region: &tidegate_shm::region::GuardedRegion) -> Result<[u8; LEN], AccessError> {
    let mut bytes = [0; LEN];
    region.read(0, &mut bytes)?;
    Ok(bytes)
}

impl Session {
    /// Answers batches until the runtime closes the session (`None`) or the handler ends it.
    fn serve(&mut self, handler: &mut dyn Handler) -> Result<Option<End>, WorkerError> {
        let mut payload = Vec::new();
        let mut answers = Answers::new(self.max_payload);
        loop {
            let deadline = monotonic_now().saturating_add(LONGEST_SLEEP);
            let (around, requests) = (&self.around, &self.requests);
            self.link.wait_until(deadline, || around.is_closed() || requests.is_behind());
            loop {
                if self.around.is_closed() {
                    return Ok(None);
                }
                if handler.is_over() {
                    return Ok(Some(End::Left));
                }
                let Some(taken) = self.requests.take()? else { break };
                payload.clear();
                self.requests.copy_payload(&taken, &mut payload)?;
                let frame = taken.frame;
                // The copy is all that is needed: the place goes back before the function runs.
                if self.requests.release(taken) {
                    self.link.ring_bell();
                }
                answers.begin(frame.record_count);
                if frame.schema != self.down.schema_in {
                    self.publish(&frame, Status::SchemaMismatch, &answers)?;
                    return Err(WorkerError::Schema { found: frame.schema, expected: self.down.schema_in });
                }
                match self.answer(&frame, &mut payload, handler, &mut answers)? {
                    Ok(status) => self.publish(&frame, status, &answers)?,
                    Err(end) => return Ok(Some(end)),
                }
            }
        }
    }

    /// Runs the function, unless the batch is of a generation that is over (VX-230).
    fn answer(
        &self,
        frame: &Frame,
        payload: &mut Vec<u8>,
        handler: &mut dyn Handler,
        answers: &mut Answers,
    ) -> Result<Result<Status, End>, WorkerError> {
        let ctx = Ctx { around: &self.around, frame: *frame, since: monotonic_now() };
        if !ctx.is_current() {
            return Ok(Ok(Status::StaleGeneration));
        }
        let shared = Arc::new(std::mem::take(payload));
        let batch = Batch::parse(shared.clone(), frame.record_count, frame.source_first)
            .map_err(|fault| WorkerError::Records { batch: frame.batch.0, fault })?;
        let own = self.link.own.header();
        // Relaxed: for people.
        own.u64::<BUSY_SINCE_AT>().store(boottime_now().0, Ordering::Relaxed);
        own.u64::<BUSY_BATCH_AT>().store(frame.batch.0, Ordering::Relaxed);
        let handled = handler.handle(&batch, &ctx, answers);
        if getpid() != self.process {
            // A child that the function has forked: the session is not its own.
            end_process();
        }
        own.u64::<BUSY_BATCH_AT>().store(0, Ordering::Relaxed);
        drop(batch);
        // Used again, unless the function has kept a part of the batch.
        *payload = Arc::into_inner(shared).unwrap_or_default();
        let status = answers.conclude(handled);
        if let Some(text) = answers.take_panic() {
            self.show_panic(&text);
        }
        let len = answers.bytes().len() as u64;
        let frames = len / self.max_payload as u64 + 2;
        if len + frames * 256 > self.down.max_response {
            answers.begin(frame.record_count);
            return Ok(Ok(Status::OutputTooLarge));
        }
        Ok(status)
    }

    /// Publishes an answer in as many fragments as it needs, sleeping while the runtime has granted nothing.
    fn publish(&mut self, request: &Frame, status: Status, answers: &Answers) -> Result<(), WorkerError> {
        let count = answers.count();
        let mut parts = pieces(answers.bytes(), count, self.max_payload).peekable();
        for index in 0.. {
            let (payload, record_count) = parts.next().unwrap_or_default();
            let is_last = parts.peek().is_none();
            let fragment = Frame {
                kind: Kind::Response,
                more: !is_last,
                schema: self.down.schema_out,
                record_count,
                status,
                inputs_done: if is_last { request.record_count } else { 0 },
                frag_index: index,
                payload_crc: self.around.welcome.checksum.then(|| payload_crc(payload)),
                ..*request
            };
            loop {
                match self.responses.publish(&fragment, payload, || true) {
                    Ok(()) => break,
                    Err(PublishError::NoCredit) => {}
                    Err(PublishError::Violation(violation)) => return Err(violation.into()),
                    // Pieces fit a frame, and nothing here gives up.
                    Err(PublishError::TooLong { .. } | PublishError::Abandoned) => return Ok(()),
                }
                let granted = granted(&self.link);
                let deadline = monotonic_now().saturating_add(LONGEST_SLEEP);
                let (link, around) = (&self.link, &self.around);
                link.wait_until(deadline, || around.is_closed() || self::granted(link) != granted);
                if around.is_closed() {
                    return Ok(());
                }
            }
            self.link.ring_bell();
            if is_last {
                break;
            }
        }
        Ok(())
    }

    fn show_panic(&self, text: &str) {
        let text = text.get(..text.floor_char_boundary(PANIC_LEN)).unwrap_or(text).as_bytes();
        let own = self.link.own.header();
        // Inside the record; and the length is what makes a reader look.
        let _ = own.bytes::<{ PANIC_AT + 4 }, PANIC_LEN>().write_at(0, text);
        // Release: the text is there.
        own.u32::<PANIC_AT>().store(text.len() as u32, Ordering::Release);
    }
}

/// What the runtime grants now, to notice a change; the publisher loads it again.
fn granted(link: &Link) -> (u64, u64) {
    use crate::{ring::Peer, wire::segment::Word};
    let load = |word| link.peer.load(word, Ordering::Relaxed);
    (load(Word::GrantPos), load(Word::GrantBatches))
}

/// The watching thread.
struct Watch {
    control: Arc<Control>,
    link: Link,
    around: Arc<Around>,
    beat: Nanos,
    finished: Arc<AtomicBool>,
}

impl Watch {
    fn run(self) {
        let beat = self.beat.clamp(SHORTEST_BEAT, LONGEST_SLEEP);
        let mut closed_since = None;
        loop {
            // Acquire: pairs with the store when serving ended.
            if self.finished.load(Ordering::Acquire) {
                return;
            }
            let now = boottime_now().0;
            // Relaxed: for people.
            self.link.own.header().u64::<HEARTBEAT_AT>().store(now, Ordering::Relaxed);
            self.around.book.tell(|sums| self.control.send(sums, &[]).is_ok());
            let deadline = monotonic_now().saturating_add(beat);
            let gone = match self.control.receive_until(deadline, false) {
                // What is said after the attach is for later versions.
                Ok(None | Some(Incoming::Message(..))) => self.around.is_closed(),
                Ok(Some(Incoming::HangUp)) | Err(_) => true,
            };
            if !gone {
                continue;
            }
            let since = *closed_since.get_or_insert_with(monotonic_now);
            if monotonic_now().saturating_sub(since) >= GRACE {
                end_process();
            }
            std::thread::sleep(SHORTEST_BEAT.into());
        }
    }
}

/// Ends this process at once, whatever its threads do.
fn end_process() {
    let _ = kill_process(getpid(), Signal::KILL);
}

/// A runtime may have a worker wait for longer than it waits for workers: when the one before it ended too soon.
const ATTACH_TIMEOUT: Nanos = Nanos::from_secs(30);
const SHORTEST_BEAT: Nanos = Nanos::from_millis(10);
/// How long serving may go on after the runtime is gone.
const GRACE: Nanos = Nanos::from_millis(300);
