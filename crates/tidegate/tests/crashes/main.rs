//! Killed and stopped processes: the others go on, and recover by themselves.
//!
//! Leases last 600 ms here. Every frame that a reader prints is compared with the recording.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

#[allow(dead_code, reason = "shared with the other tests of real processes")]
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rustix::process::Signal;
use support::{DEADLINE, Node, Running, eventually, tidegate};
use tidegate::media::{OpenOptions, open};

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/astronaut-pan.npy")
}

/// CRC-32 of each frame of the recording.
static EXPECTED: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let mut source = open(&recording(), OpenOptions::default()).expect("the recording");
    let mut frames = Vec::new();
    while let Some(frame) = source.next_frame().expect("a frame") {
        frames.push(u64::from(crc32fast::hash(frame.bytes)));
    }
    frames
});

/// A subscriber, and everything it has printed.
struct Reader {
    process: Running,
    /// Last sequence of each epoch.
    seen: BTreeMap<u64, u64>,
    /// Frame of the recording that each epoch began with: a producer that attaches anew goes on where it was.
    first: BTreeMap<u64, usize>,
}

impl Reader {
    fn start(node: &Node) -> Self {
        let process = Running::start(&mut node.command("tensor sub cam --wait 20s"));
        Self { process, seen: BTreeMap::new(), first: BTreeMap::new() }
    }

    /// Takes the next frame, checks it, and returns its epoch.
    #[track_caller]
    fn frame(&mut self) -> u64 {
        let frame = self.process.json();
        let number = |field: &str| frame[field].as_u64().expect("a number");
        let (epoch, seq) = (number("epoch"), number("seq"));
        let newest = self.seen.last_key_value().map_or(0, |(epoch, _)| *epoch);
        assert!(epoch >= newest, "epoch {epoch} after {newest}");
        if let Some(last) = self.seen.insert(epoch, seq) {
            assert!(seq > last, "sequence {seq} after {last}");
        }
        let found = EXPECTED.iter().position(|crc| *crc == number("crc32"));
        let found = found.unwrap_or_else(|| panic!("frame {seq} of epoch {epoch} is in no recording"));
        let steps = usize::try_from(seq).expect("a sequence") % EXPECTED.len();
        let first = (found + EXPECTED.len() - steps) % EXPECTED.len();
        assert_eq!(*self.first.entry(epoch).or_insert(first), first, "frame {seq} of epoch {epoch}");
        epoch
    }

    /// Takes frames until one is of a later epoch than `old`.
    #[track_caller]
    fn follow(&mut self, old: u64) -> u64 {
        let end = std::time::Instant::now() + DEADLINE;
        loop {
            let epoch = self.frame();
            if epoch > old {
                return epoch;
            }
            assert!(std::time::Instant::now() < end, "still in epoch {old}");
        }
    }

    /// Takes some more frames, all of them of `epoch`.
    #[track_caller]
    fn stay(&mut self, epoch: u64) {
        for _ in 0..30 {
            assert_eq!(self.frame(), epoch);
        }
    }
}

fn publisher(node: &Node) -> Running {
    let mut command = node.command("tensor pub cam --rate 200 --loop forever");
    Running::start(command.arg("--input").arg(recording()))
}

/// Reads lines until one says that the producer attached; returns its epoch.
#[track_caller]
fn attached(publisher: &Running) -> u64 {
    loop {
        let line = publisher.json();
        if line["attached"] == true {
            return line["epoch"].as_u64().expect("an epoch");
        }
    }
}

fn leases(node: &Node, role: &str) -> usize {
    let streams = node.run("tensor ls").exits(0).results();
    let leases = streams.iter().filter_map(|stream| stream["leases"].as_array());
    leases.flatten().filter(|lease| lease["role"] == role).count()
}

/// Rules: TP-002, TP-127, TP-261, TC-089, TC-090.
#[test]
fn a_killed_producer_is_replaced_in_a_new_epoch() {
    let node = Node::start();
    let first = publisher(&node);
    let mut reader = Reader::start(&node);
    let old = attached(&first);
    reader.stay(old);
    first.signal(Signal::KILL);
    // It waits for the dead one's lease to end, without being told to.
    let second = publisher(&node);
    let new = attached(&second);
    assert!(new > old);
    assert_eq!(reader.follow(old), new);
    reader.stay(new);
    drop((second, reader));
    node.stop();
}

/// Rules: TP-296, TP-307.
#[test]
fn a_producer_that_was_stopped_past_its_lease_writes_nothing_that_is_read() {
    let node = Node::start();
    let first = publisher(&node);
    let mut reader = Reader::start(&node);
    let old = attached(&first);
    reader.stay(old);
    first.signal(Signal::STOP);
    let second = publisher(&node);
    let new = attached(&second);
    assert_eq!(reader.follow(old), new);
    first.signal(Signal::CONT);
    // `stay` fails on any frame of another epoch or with other bytes.
    let refused = first.finish();
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    reader.stay(new);
    drop((second, reader));
    node.stop();
}

/// Rules: TP-251, TP-257.
#[test]
fn a_killed_reader_disturbs_nobody_and_its_lease_ends() {
    let node = Node::start();
    let publisher = publisher(&node);
    let (mut reader, victim) = (Reader::start(&node), Reader::start(&node));
    let epoch = attached(&publisher);
    reader.stay(epoch);
    eventually("two consumer leases", || (leases(&node, "consumer") == 2).then_some(()));
    victim.process.signal(Signal::KILL);
    eventually("one consumer lease", || (leases(&node, "consumer") == 1).then_some(()));
    reader.stay(epoch);
    drop((publisher, reader));
    node.stop();
}

/// Rules: TP-270, TP-305, TC-114.
#[test]
fn clients_survive_a_killed_node_and_go_on_with_the_next_one() {
    let node = Node::start();
    let publisher = publisher(&node);
    let mut reader = Reader::start(&node);
    let old = attached(&publisher);
    reader.stay(old);
    let (place, dir) = node.kill();
    let config = place.path().join("node.toml");
    let next =
        Running::start(tidegate().args(["--json", "up", "--config"]).arg(&config).arg("--dir").arg(&dir));
    assert_eq!(next.json()["ready"], true);
    let new = attached(&publisher);
    assert!(new > old);
    assert_eq!(reader.follow(old), new);
    reader.stay(new);
    // The name was known to the dead node only; the producer told it to the new one.
    let find = || {
        let mut command = tidegate();
        command.args(["--json", "tensor", "sub", "cam", "--count", "1", "--timeout", "20s", "--dir"]);
        Running::start(command.arg(&dir)).finish()
    };
    eventually("the stream has its name again", || (find().code == Some(0)).then_some(()));
    drop((publisher, reader));
    next.signal(Signal::TERM);
    next.finish().exits(0);
    assert!(!dir.exists());
}

/// Rules: TP-308, TP-460, TP-473, TC-201.
#[test]
fn a_terminated_producer_and_reader_give_their_leases_back() {
    let node = Node::start();
    let notices = Running::start(&mut node.command("tensor listen control"));
    let publisher = publisher(&node);
    let mut reader = Reader::start(&node);
    let epoch = attached(&publisher);
    reader.stay(epoch);
    for (process, role) in [(reader.process, "CONSUMER"), (publisher, "PRODUCER")] {
        process.signal(Signal::TERM);
        process.finish().exits(0);
        // Said by the driver in answer to a detach; a lease that merely ran out would be EXPIRED.
        let notice = loop {
            let message = notices.json();
            if message["message"] == "ShmLeaseRevoked" {
                break message["values"].clone();
            }
        };
        assert_eq!((&notice["role"]["enum"], &notice["reason"]["enum"]), (&role.into(), &"DETACHED".into()));
    }
    drop(notices);
    node.stop();
}

/// A suspended machine looks the same from inside: every process was away for longer than Aeron tolerates.
#[test]
fn a_node_that_was_stopped_for_seconds_serves_again() {
    /// Longer than the media driver waits for a silent client. That much time must really pass.
    const AWAY: std::time::Duration = std::time::Duration::from_millis(6500);
    let node = Node::start();
    let publisher = publisher(&node);
    let mut reader = Reader::start(&node);
    let old = attached(&publisher);
    reader.stay(old);
    node.signal(Signal::STOP);
    std::thread::sleep(AWAY);
    node.signal(Signal::CONT);
    let new = attached(&publisher);
    assert_eq!(reader.follow(old), new);
    reader.stay(new);
    drop((publisher, reader));
    node.stop();
}
