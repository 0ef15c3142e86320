//! Workers that lie. Each ends its own session and at last the vertex; nothing of what they wrote comes out (VX-011).

use std::{
    fs::OpenOptions,
    io,
    os::fd::AsFd,
    process::{Command, Stdio},
};

use rustix::{
    fs::FallocateFlags,
    process::{Signal, getpid, kill_process},
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
        ids::{BatchId, EpochId, Generation, PartitionId, Position, SchemaId},
        message::{FromWorker, Hello, Ready},
        segment::{DownHeader, READY_AT, Word},
        status::Status,
    },
};
use tidegate_vertex::run::VertexError;

use crate::{
    functions::{note, place},
    world::World,
};

/// Every lie and a part of what the runtime says about it.
const LIES: &[(&str, &str)] = &[
    ("head far ahead", "head"),
    ("head between frames", "multiple of 128"),
    ("frame without its bit", "not published"),
    ("consumed too much", "consumed"),
    ("granted too much", "grant_pos"),
    ("another batch", "batch_id (in flight)"),
    ("another generation", "generation_id"),
    ("another partition", "partition_id"),
    ("another epoch", "epoch_id"),
    ("another schema", "schema_id"),
    ("another first input", "source_first"),
    ("other inputs", "source_last"),
    ("a request as answer", "kind"),
    ("second fragment first", "frag_index"),
    ("fragments of two batches", "batch_id"),
    ("inputs forgotten", "inputs_done"),
    ("records that are none", "rec_len"),
    ("answered twice", "batch_id (in flight)"),
    ("hole in the ring", "not published"),
    // Which of them is looked at first is chance.
    ("hole in its memory", "the peer's word "),
];

/// Cases: CT-02, CT-03, CT-10, CT-67, CT-24.
/// Rules: VX-011, VX-121, VX-122, VX-220, VX-231, VX-400, VX-401, VX-213, VX-233, VX-425.
#[test]
fn every_lie_ends_the_session_and_nothing_of_it_comes_out() {
    for (lie, part) in LIES {
        let world = World::new();
        let ended = world.run(&format!("lie {lie}"), "", "kind = \"generator\"\nrecords = 1000");
        let error = ended.expect_err(lie);
        assert!(matches!(error, VertexError::Protocol { .. }), "{lie}: {error}");
        assert!(error.to_string().contains(part), "{lie}: {error}");
        assert_eq!(world.lines(), Vec::<String>::new(), "{lie}");
    }
}

/// What a worker has when it is attached, taken apart.
pub(crate) struct Attached {
    pub(crate) control: Control,
    /// All of U.
    pub(crate) up: GuardedRegion,
    up_memory: SealedMemory,
    pub(crate) link: Link,
    pub(crate) requests: Reader<OwnSegment, PeerSegment>,
    pub(crate) responses: Publisher<OwnSegment, PeerSegment>,
}

/// Attaches as it should, but for saying that it is ready.
pub(crate) fn attach(function: &str) -> Attached {
    let mut attached = attach_without_grant(function);
    attached.requests.open();
    attached
}

/// The same without letting itself be given a batch.
fn attach_without_grant(function: &str) -> Attached {
    let control = match std::env::var_os("TIDEGATE_VX_SOCKET") {
        Some(path) => Control::connect(path.as_ref()).unwrap(),
        None => Control::new(io::stdin().as_fd().try_clone_to_owned().unwrap()),
    };
    let hello = Hello {
        proto: (1, 1),
        language: "rust".to_owned(),
        sdk_version: "0".to_owned(),
        function: function.to_owned(),
        kind: "map".to_owned(),
        schema_in: vec![SchemaId(0)],
        schema_out: SchemaId(0),
        features: Vec::new(),
        boottime: boottime_now().0,
    };
    control.send(&FromWorker::Hello(hello).encode(), &[]).unwrap();
    let Some(Incoming::Message(_, descriptors)) = control.receive_until(later(), true).unwrap() else {
        panic!("no welcome");
    };
    let mut memory = descriptors.into_iter().map(|fd| SealedMemory::receive(fd).unwrap());
    let (down, up) = (memory.next().unwrap(), memory.next().unwrap());
    let up_map = up.map(0..up.len()).unwrap();
    let down_map = down.map(0..0).unwrap();
    let header = DownHeader::decode(&first_bytes(&down_map), down.len()).unwrap();
    let capacity = header.ring.capacity;
    let link = Link {
        own: OwnSegment::new(&up_map, capacity).unwrap(),
        peer: PeerSegment::new(&down_map, capacity).unwrap(),
    };
    let requests = Reader::new(link.own.clone(), link.peer.clone(), header.ring);
    let responses = Publisher::new(link.own.clone(), link.peer.clone(), header.ring);
    Attached { control, up: up_map, up_memory: up, link, requests, responses }
}

impl Attached {
    pub(crate) fn say_ready(&self) {
        self.link.own.header().u32::<READY_AT>().store(1, Ordering::Release);
        self.control.send(&FromWorker::Ready(Ready { sealed: true }).encode(), &[]).unwrap();
    }
}

/// Rings as fast as it can for a second, and then lies, which ends it.
pub(crate) fn storm() {
    let attached = attach("storm");
    attached.say_ready();
    let calm = monotonic_now().saturating_add(Nanos::from_secs(1));
    while monotonic_now() < calm {
        attached.link.ring_bell();
    }
    attached.link.own.store(Word::Head, 100, Ordering::Release);
    loop {
        attached.link.ring_bell();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The first worker takes what it is given and does not answer, or takes nothing; the next ones work.
pub(crate) fn silent_once(role: &str) {
    if OpenOptions::new().create_new(true).write(true).open(place("silent")).is_err() {
        return;
    }
    let mut attached = if role == "grants nothing" { attach_without_grant(role) } else { attach(role) };
    attached.say_ready();
    loop {
        let requests = &attached.requests;
        attached.link.wait_until(later(), || requests.is_behind());
        while let Ok(Some(taken)) = attached.requests.take() {
            let _ = attached.requests.release(taken);
        }
        attached.link.ring_bell();
    }
}

/// Answers the first batch with fragments that never end, whatever becomes of its session.
pub(crate) fn endless() {
    let mut attached = attach("endless");
    attached.say_ready();
    let Attached { link, requests, responses, .. } = &mut attached;
    assert!(link.wait_until(later(), || requests.is_behind()));
    let taken = requests.take().unwrap().unwrap();
    let answer =
        Frame { kind: Kind::Response, more: true, record_count: 0, payload_crc: None, ..taken.frame };
    let _ = requests.release(taken);
    for frag_index in 0.. {
        while responses.publish(&Frame { frag_index, ..answer }, &[], || true).is_err() {
            link.wait_until(monotonic_now().saturating_add(Nanos::from_millis(1)), || false);
        }
        link.ring_bell();
    }
}

/// Dies with a batch, and leaves a child that has its end of the control socket.
#[expect(clippy::zombie_processes, reason = "it outlives this process, which is what the test is about")]
pub(crate) fn leave_an_heir() {
    let attached = attach("heir");
    attached.say_ready();
    let requests = &attached.requests;
    assert!(attached.link.wait_until(later(), || requests.is_behind()));
    let socket = attached.control.as_fd().try_clone_to_owned().unwrap();
    let child = Command::new("sleep").arg("600").stdin(Stdio::from(socket)).spawn().unwrap();
    note("children", &format!("{}\n", child.id()));
    kill_process(getpid(), Signal::KILL).unwrap();
}

/// A worker that attaches as it should and then tells this lie.
pub(crate) fn lie(lie: &str) {
    let mut attached = attach(lie);
    let link = attached.link.clone();
    let store = |word, value| link.own.store(word, value, Ordering::Release);
    // What the runtime looks at when it sends the first batch.
    match lie {
        "consumed too much" => store(Word::Consumed, 1 << 40),
        "granted too much" => store(Word::GrantPos, 1 << 40),
        _ => {}
    }
    attached.say_ready();
    let Attached { requests, responses, up_memory, .. } = &mut attached;
    assert!(link.wait_until(later(), || requests.is_behind()));
    let taken = requests.take().unwrap().unwrap();
    let request = taken.frame;
    let _ = requests.release(taken);
    let answer = Frame {
        kind: Kind::Response,
        inputs_done: request.record_count,
        record_count: 0,
        payload_crc: None,
        ..request
    };
    let mut publish = |frame: Frame, payload: &[u8]| responses.publish(&frame, payload, || true).unwrap();
    match lie {
        "head far ahead" => store(Word::Head, u64::MAX - 127),
        "head between frames" => store(Word::Head, 100),
        "frame without its bit" => store(Word::Head, 128),
        "another batch" => publish(Frame { batch: BatchId(77), ..answer }, &[]),
        "another generation" => publish(Frame { generation: Generation(2), ..answer }, &[]),
        "another partition" => publish(Frame { partition: PartitionId(1), ..answer }, &[]),
        "another epoch" => publish(Frame { epoch: EpochId(answer.epoch.0 + 1), ..answer }, &[]),
        "another schema" => publish(Frame { schema: SchemaId(5), ..answer }, &[]),
        "mismatch" => publish(Frame { status: Status::SchemaMismatch, ..answer }, &[]),
        "another first input" => publish(Frame { source_first: Position(1), ..answer }, &[]),
        "other inputs" => publish(Frame { source_last: Position(1 << 40), ..answer }, &[]),
        "a request as answer" => publish(Frame { kind: Kind::Data, ..answer }, &[]),
        "second fragment first" => publish(Frame { frag_index: 1, ..answer }, &[]),
        "fragments of two batches" => {
            publish(Frame { more: true, ..answer }, &[]);
            publish(Frame { batch: BatchId(answer.batch.0 + 1), frag_index: 1, ..answer }, &[]);
        }
        "inputs forgotten" => publish(Frame { inputs_done: 1, ..answer }, &[]),
        "records that are none" => publish(Frame { record_count: 1, ..answer }, &[7; 40]),
        "answered twice" => {
            // The first answer is a failure, so that it says nothing about any input.
            let answer = Frame { status: Status::UdfError, ..answer };
            publish(answer, &[]);
            publish(answer, &[]);
        }
        "hole in the ring" => {
            publish(Frame { more: true, ..answer }, &[]);
            store(Word::Head, 256);
        }
        "hole in its memory" => {
            // An answer that says nothing about any input, so that the head was seen somewhere else.
            publish(Frame { status: Status::UdfError, ..answer }, &[]);
            assert!(link.wait_until(later(), || link.peer.load(Word::Consumed, Ordering::Acquire) > 0));
            let whole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&up_memory, whole, 0, up_memory.len()).unwrap();
        }
        other => panic!("no such lie: {other}"),
    }
    // Until the runtime ends this process.
    loop {
        link.ring_bell();
        link.wait_until(monotonic_now().saturating_add(Nanos::from_millis(20)), || false);
    }
}

fn later() -> Nanos {
    monotonic_now().saturating_add(Nanos::from_secs(30))
}

fn first_bytes(region: &GuardedRegion) -> [u8; 120] {
    let mut bytes = [0; 120];
    region.read(0, &mut bytes).unwrap();
    bytes
}
