//! A runtime of one batch at a time: the memory of a session, made as the sheet has it, and the other end of a worker's socket.

use std::{
    env,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tidegate_shm::{
    clock::{Nanos, boottime_now, monotonic_now},
    region::{GuardedRegion, SealedMemory},
    sync::Ordering,
};
use tidegate_udf::{
    control::{Control, Incoming},
    ring::{Own, Peer, Publisher, Reader},
    segment::{Link, OwnSegment, PeerSegment},
    wire::{
        frame::{Frame, Kind},
        function::FunctionKind,
        ids::{BatchId, EpochId, FenceSlot, Generation, PartitionId, Position, SchemaId, SessionId},
        message::{FromRuntime, FromWorker, Reject, Welcome},
        record::{Direction, RecordHead, RecordType, RecordWriter, Records},
        segment::{
            DownHeader, FENCE_READY_AT, FENCE_SLOT, Geometry, PANIC_LEN, READY_AT, RUN_STATE_AT, RunState,
            SEGMENT_HEADER, WAITERS_AT, Word, encode_fence, encode_up, fence_len,
        },
        status::Status,
    },
};

use crate::{MAKES, TAKES};

pub(crate) const GENERATION: u64 = 5;
pub(crate) const PARTITION: u32 = 7;
/// Longer than a frame.
const MAX_RESPONSE: usize = 48 << 10;
const SLOT: u16 = 1;
const INSTANCE: u64 = 11;
const RING: Geometry =
    Geometry { capacity: 64 << 10, max_frame: 16 << 10, session: SessionId(9), max_in_flight: 4 };

/// What is wrong with the memory that a worker is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    DownUnsealed,
    FenceUnsealed,
    UpWithoutSeals,
    TwoDescriptors,
    DownHeader,
    OtherSession,
    OtherInstance,
    DownNotReady,
    FenceNotReady,
    OtherInputs,
    OtherOutputs,
}

pub(crate) struct Runtime {
    child: Child,
    control: Option<Control>,
    /// Dropped last: the mappings.
    link: Link,
    fence: GuardedRegion,
    up: GuardedRegion,
    requests: Publisher<OwnSegment, PeerSegment>,
    responses: Reader<OwnSegment, PeerSegment>,
    next: u64,
    /// Of the batches.
    pub(crate) schema: SchemaId,
    /// Which try the batches are.
    pub(crate) attempt: u16,
}

/// The answer to a batch, put together.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    /// The last fragment.
    pub(crate) frame: Frame,
    pub(crate) fragments: u32,
    pub(crate) payload: Vec<u8>,
    records: u32,
    inputs: u32,
}

impl Answer {
    /// The outputs as texts.
    pub(crate) fn values(&self) -> Vec<String> {
        let direction = Direction::Response { inputs: self.inputs };
        let records = Records::parse(&self.payload, self.records, direction).unwrap();
        records.map(|record| String::from_utf8_lossy(record.value).into_owned()).collect()
    }
}

/// Whether this process is a worker.
pub(crate) fn role() -> bool {
    env::var_os(ROLE).is_some()
}

/// Waits for something that the worker does.
pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < give_up, "{what}: never");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Runtime {
    /// A session in which data flows.
    pub(crate) fn start() -> Self {
        let mut runtime = Self::without_credit();
        runtime.grant();
        runtime
    }

    /// A session of these schemas in which data flows.
    pub(crate) fn typed(input: SchemaId, output: SchemaId) -> Self {
        let mut runtime = Self::ready(input, output);
        runtime.grant();
        runtime
    }

    /// A session in which the worker may not answer yet.
    pub(crate) fn without_credit() -> Self {
        Self::ready(SchemaId::NONE, SchemaId::NONE)
    }

    fn ready(input: SchemaId, output: SchemaId) -> Self {
        let runtime = Self::of(None, input, output);
        let FromWorker::Ready(ready) = runtime.hear() else { panic!("not ready") };
        assert!(ready.sealed && runtime.up.atomic_u32(READY_AT as u64).unwrap().load(Ordering::Acquire) == 1);
        runtime.set_run_state(RunState::Run);
        runtime
    }

    /// Starts a worker and gives it the memory of a session.
    pub(crate) fn offer(damage: Option<Damage>) -> Self {
        let other = |which| SchemaId(if damage == Some(which) { 5 } else { 0 });
        Self::of(damage, other(Damage::OtherInputs), other(Damage::OtherOutputs))
    }

    fn of(damage: Option<Damage>, schema_in: SchemaId, schema_out: SchemaId) -> Self {
        let (child, control) = spawn();
        let is = |which| damage == Some(which);
        let len = RING.segment_len();
        let down = SealedMemory::create("test-down", len).unwrap();
        let down_map = down.map(0..len).unwrap();
        let mut header = DownHeader {
            ring: RING,
            instance: INSTANCE,
            pipeline: 3,
            runtime_pid: std::process::id(),
            worker: 0,
            schema_in,
            schema_out,
            kind: FunctionKind::Map,
            max_response: MAX_RESPONSE as u64,
        }
        .encode();
        header[0x28] ^= u8::from(is(Damage::DownHeader));
        down_map.span_mut(0, 120).unwrap().write_at(0, &header).unwrap();
        let own = OwnSegment::new(&down_map, RING.capacity).unwrap();
        if !is(Damage::DownNotReady) {
            own.header().u32::<READY_AT>().store(1, Ordering::Release);
        }
        if is(Damage::DownUnsealed) { down.seal_seals() } else { down.seal_writers() }.unwrap();
        let up = SealedMemory::create("test-up", len).unwrap();
        let session = SessionId(RING.session.0 + u64::from(is(Damage::OtherSession)));
        let header = encode_up(&Geometry { session, ..RING });
        up.map(0..len).unwrap().span_mut(0, 56).unwrap().write_at(0, &header).unwrap();
        if !is(Damage::UpWithoutSeals) {
            up.seal_seals().unwrap();
        }
        let fence_memory = SealedMemory::create("test-fence", fence_len(2)).unwrap();
        let fence = fence_memory.map(0..fence_memory.len()).unwrap();
        let header = encode_fence(INSTANCE + u64::from(is(Damage::OtherInstance)), 2);
        fence.span_mut(0, 44).unwrap().write_at(0, &header).unwrap();
        if !is(Damage::FenceNotReady) {
            fence.atomic_u32_mut(FENCE_READY_AT as u64).unwrap().store(1, Ordering::Release);
        }
        if is(Damage::FenceUnsealed) { fence_memory.seal_seals() } else { fence_memory.seal_writers() }
            .unwrap();
        let FromWorker::Hello(hello) = hear(&control) else { panic!("no hello") };
        assert!(hello.proto == (1, 1) && hello.kind == "map", "{hello:?}");
        assert_eq!((hello.schema_in.as_slice(), hello.schema_out), (TAKES.as_slice(), MAKES));
        let all = [down.as_fd(), up.as_fd(), fence_memory.as_fd()];
        let given = if is(Damage::TwoDescriptors) { &all[..2] } else { &all };
        control.send(&FromRuntime::Welcome(welcome()).encode(), given).unwrap();
        let up = up.map(0..0).unwrap();
        let link = Link { own, peer: PeerSegment::new(&up, RING.capacity).unwrap() };
        let requests = Publisher::new(link.own.clone(), link.peer.clone(), RING);
        let responses = Reader::new(link.own.clone(), link.peer.clone(), RING);
        let runtime = Self {
            child,
            control: Some(control),
            link,
            fence,
            up,
            requests,
            responses,
            next: 1,
            schema: schema_in,
            attempt: 0,
        };
        runtime.set_fence(GENERATION, u64::MAX, PARTITION);
        runtime
    }

    /// Starts a worker and refuses it.
    pub(crate) fn rejects(code: &str, message: &str) -> (ExitStatus, String) {
        let (child, control) = spawn();
        hear(&control);
        let reject = Reject { code: code.to_owned(), message: message.to_owned() };
        control.send(&FromRuntime::Reject(reject).encode(), &[]).unwrap();
        wait(child)
    }

    /// Grants the whole ring of answers.
    pub(crate) fn grant(&mut self) {
        self.responses.open();
        self.link.ring_bell();
    }

    /// Publishes a batch of these values; its number.
    pub(crate) fn send(&mut self, values: &[&str]) -> u64 {
        let mut payload = RecordWriter::default();
        for (index, value) in (0..).zip(values) {
            let kind = RecordType::Data;
            let head = RecordHead { kind, index, place: index, event_time: None, key: &[], headers: &[] };
            payload.push(&head, value.as_bytes()).unwrap();
        }
        let frame = Frame {
            kind: Kind::Data,
            more: false,
            replay: self.attempt > 0,
            barrier: false,
            end_of_source: false,
            generation: Generation(GENERATION),
            epoch: EpochId(1),
            batch: BatchId(self.next),
            schema: self.schema,
            partition: PartitionId(PARTITION),
            record_count: payload.count(),
            source_first: Position(0),
            source_last: Position(values.len() as u64 - 1),
            watermark: Some(-77),
            status: Status::Ok,
            attempt: self.attempt,
            fence_slot: FenceSlot(SLOT),
            inputs_done: 0,
            frag_index: 0,
            payload_crc: None,
        };
        // What was granted is what the worker has said after its attach.
        eventually("credit", || self.requests.publish(&frame, payload.bytes(), || true).is_ok());
        self.link.ring_bell();
        self.next += 1;
        self.next - 1
    }

    /// The answer to the batch that was sent last.
    pub(crate) fn receive(&mut self) -> Answer {
        let (mut payload, mut records, mut fragments) = (Vec::new(), 0, 0);
        loop {
            let responses = &self.responses;
            assert!(self.link.wait_until(later(), || responses.is_behind()), "no answer");
            let taken = self.responses.take().unwrap().unwrap();
            let frame = taken.frame;
            assert_eq!((frame.batch, frame.frag_index), (BatchId(self.next - 1), fragments));
            self.responses.copy_payload(&taken, &mut payload).unwrap();
            let _ = self.responses.release(taken);
            self.link.ring_bell();
            records += frame.record_count;
            fragments += 1;
            if !frame.more {
                let inputs = frame.source_last.0 as u32 + 1;
                return Answer { status: frame.status, frame, fragments, payload, records, inputs };
            }
        }
    }

    pub(crate) fn exchange(&mut self, values: &[&str]) -> Answer {
        self.send(values);
        self.receive()
    }

    /// Word, deadline and partition of the slot that batches name.
    pub(crate) fn set_fence(&self, word: u64, deadline: u64, partition: u32) {
        let at = SEGMENT_HEADER + FENCE_SLOT * u64::from(SLOT);
        self.fence.atomic_u32_mut(at + 0x18).unwrap().store(partition, Ordering::Relaxed);
        self.fence.atomic_u64_mut(at + 0x08).unwrap().store(deadline, Ordering::Relaxed);
        self.fence.atomic_u64_mut(at).unwrap().store(word, Ordering::Release);
    }

    pub(crate) fn revoke(&self) {
        self.set_fence(GENERATION | 1 << 63, u64::MAX, PARTITION);
    }

    pub(crate) fn let_the_lease_run_out(&self) {
        self.set_fence(GENERATION, boottime_now().0, PARTITION);
    }

    pub(crate) fn end_session(&mut self, hang_up: bool) {
        if hang_up {
            self.control = None;
        } else {
            self.set_run_state(RunState::Closed);
        }
    }

    /// Ends the session, and goes on listening.
    pub(crate) fn close(&self) {
        self.set_run_state(RunState::Closed);
    }

    fn set_run_state(&self, state: RunState) {
        self.link.own.header().u64::<RUN_STATE_AT>().store(state.code(), Ordering::Release);
        self.link.ring_bell();
    }

    /// A word of D, right or wrong.
    pub(crate) fn set_down(&self, word: Word, value: u64) {
        self.link.own.store(word, value, Ordering::Release);
        self.link.ring_bell();
    }

    pub(crate) fn down_word(&self, word: Word) -> u64 {
        self.link.own.load(word)
    }

    pub(crate) fn up_word(&self, word: Word) -> u64 {
        self.link.peer.load(word, Ordering::Acquire)
    }

    pub(crate) fn up_u64(&self, at: usize) -> u64 {
        self.up.atomic_u64(at as u64).unwrap().load(Ordering::Acquire)
    }

    pub(crate) fn up_u32(&self, at: usize) -> u32 {
        self.up.atomic_u32(at as u64).unwrap().load(Ordering::Acquire)
    }

    /// The text behind its length.
    pub(crate) fn up_text(&self, at: usize) -> String {
        let mut bytes = vec![0; (self.up_u32(at) as usize).min(PANIC_LEN)];
        self.up.read(at as u64 + 4, &mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Threads of the worker that sleep on the bell of D.
    pub(crate) fn sleepers(&self) -> u32 {
        self.up_u32(WAITERS_AT)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the worker: how it ended, and what it printed as errors.
    pub(crate) fn ends(self) -> (ExitStatus, String) {
        let Self { child, control, .. } = self;
        let ended = wait(child);
        drop(control);
        ended
    }

    /// The next thing that the worker says.
    pub(crate) fn hear(&self) -> FromWorker {
        hear(self.control.as_ref().unwrap())
    }
}

fn spawn() -> (Child, Control) {
    let (control, theirs) = Control::pair().unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "worker_process", "--nocapture"])
        .env(ROLE, "1")
        .env("TIDEGATE_VX_FD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (child, control)
}

fn wait(mut child: Child) -> (ExitStatus, String) {
    let mut text = String::new();
    eventually("the worker ends", || child.try_wait().unwrap().is_some());
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap(), text)
}

fn hear(control: &Control) -> FromWorker {
    match control.receive_until(later(), false).unwrap() {
        Some(Incoming::Message(datagram, _)) => FromWorker::decode(&datagram).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn welcome() -> Welcome {
    Welcome {
        proto: 1,
        pipeline: "test".to_owned(),
        heartbeat_ms: 20,
        batch_timeout_ms: 30_000,
        routes: vec!["main".to_owned(), "late".to_owned()],
        checksum: false,
        params: serde_json::json!({ "limit": 3 }),
    }
}

fn later() -> Nanos {
    monotonic_now().saturating_add(Nanos::from_secs(60))
}

const ROLE: &str = "TIDEGATE_TEST_WORKER";
const PATIENCE: Duration = Duration::from_secs(60);
