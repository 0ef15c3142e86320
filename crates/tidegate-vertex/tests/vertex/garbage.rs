//! Workers that are out of their mind: they write over everything they can write, close what they were given, leave children
//! behind, and never stop talking. The vertex goes on, or ends with the protocol, and nothing comes out that was not computed.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::fd::AsFd,
    process::{Command, Stdio},
    sync::{Once, OnceLock},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_udf::{
    control::Control,
    wire::{
        frame::{Frame, Kind, payload_crc},
        record::{Direction, RecordHead, RecordType, RecordWriter, Records},
    },
};
use tidegate_vertex::run::VertexError;

use crate::{
    functions::{note, place},
    hostile::{Attached, attach},
    world::World,
};

const MANY: &str = "kind = \"generator\"\nrecords = 3000";

/// Workers that answer for a while and write garbage over every byte of U meanwhile, which the runtime reads at the same time.
/// Cases: CT-02, CT-05, CT-53, CT-67.
/// Rules: VX-011, VX-121, VX-220, VX-221.
#[test]
fn garbage_over_all_of_u_ends_the_session_and_nothing_of_it_comes_out() {
    for round in 0..6 {
        let world = World::new();
        let ended = world.run(&format!("garbage {round}"), "", "kind = \"generator\"\nrecords = 1000000");
        let error = ended.expect_err("nobody gets so far");
        assert!(matches!(error, VertexError::Protocol { .. }), "round {round}: {error}");
        for (position, line) in world.lines().iter().enumerate() {
            assert_eq!(*line, format!("UPPER 0:{position}"), "round {round}");
        }
    }
}

/// A child keeps the control socket and the pipe for what is printed, and its parent dies.
/// Cases: CT-17.
/// Rules: VX-430, VX-436.
#[test]
fn a_child_that_a_dead_worker_left_holds_nothing_up() {
    let world = World::new();
    let report = world.run("leave a child", "", MANY).unwrap();
    assert_eq!((report.restarts, report.delivered), (1, 3_000));
    let children = fs::read_to_string(world.path("children")).unwrap();
    for child in children.lines() {
        let child = Pid::from_raw(child.parse().unwrap()).unwrap();
        // It was there all the time.
        kill_process(child, Signal::KILL).unwrap();
    }
    let lines = world.lines();
    assert_eq!(lines.len(), 3_000);
    assert!(lines.iter().enumerate().all(|(n, line)| *line == format!("UPPER 0:{n}")));
}

/// Rules: VX-425.
#[test]
fn a_worker_that_closes_its_socket_is_ended_and_replaced() {
    let world = World::new();
    let report = world.run("close once", "", MANY).unwrap();
    assert!(world.path("closed").exists());
    assert_eq!((report.restarts, report.delivered), (1, 3_000));
}

/// Cases: CT-67.
/// Rules: VX-426, VX-436.
#[test]
fn a_worker_that_prints_without_end_works_as_others() {
    let world = World::new();
    let report = world.run("flood", "", MANY).unwrap();
    assert_eq!((report.restarts, report.delivered), (0, 3_000));
}

/// Counters of more names than anybody can keep, names and numbers that are none, lines that are too long and too many: the
/// runtime keeps 256 names, and goes on.
/// Cases: CT-67.
/// Rules: VX-011, VX-426, VX-501.
#[test]
fn a_worker_that_says_everything_without_end_works_as_others() {
    let world = World::new();
    let report = world.run("babble", "", MANY).unwrap();
    assert_eq!((report.restarts, report.delivered), (0, 3_000));
    assert_eq!(world.lines().len(), 3_000);
    let names: Vec<&str> = report.counters.keys().map(String::as_str).collect();
    assert_eq!(names.len(), 256, "{names:?}");
    assert!(names.contains(&"not_a_name_"), "{names:?}");
    assert!(
        names.iter().all(|name| name.is_ascii() && !name.contains('\n') && name.len() <= 64),
        "{names:?}"
    );
    assert!(["f", "nan", "negative", "text"].iter().all(|none| !names.contains(none)), "{names:?}");
}

/// Attaches, answers, and writes over everything.
pub(crate) fn garbage(round: u64) {
    let Attached { control, up, link, mut requests, mut responses, .. } = {
        let attached = attach("garbage");
        attached.say_ready();
        attached
    };
    let mut random = Random(round * 1_000_003 + u64::from(std::process::id()));
    // Some rounds are well under way before it begins.
    let mut sane = random.next() % 20;
    let len = up.len();
    thread::scope(|scope| {
        let mut mad = false;
        loop {
            link.wait_until(monotonic_now().saturating_add(Nanos::from_millis(20)), || requests.is_behind());
            while let Ok(Some(taken)) = requests.take() {
                let (frame, mut payload, mut answer) = (taken.frame, Vec::new(), RecordWriter::default());
                requests.copy_payload(&taken, &mut payload).unwrap();
                let _ = requests.release(taken);
                for input in Records::parse(&payload, frame.record_count, Direction::Request).unwrap() {
                    let value = [b"UPPER ", &*input.value.to_ascii_uppercase()].concat();
                    let (kind, index) = (RecordType::Data, input.index);
                    let head = RecordHead { kind, index, place: 0, event_time: None, key: &[], headers: &[] };
                    answer.push(&head, &value).unwrap();
                }
                let response = Frame {
                    kind: Kind::Response,
                    inputs_done: frame.record_count,
                    record_count: answer.count(),
                    payload_crc: Some(payload_crc(answer.bytes())),
                    ..frame
                };
                // What it says about credit may be garbage by now.
                let _ = responses.publish(&response, answer.bytes(), || true);
                sane = sane.saturating_sub(1);
            }
            link.ring_bell();
            if sane == 0 && !mad {
                mad = true;
                let (up, seed) = (&up, random.next());
                scope.spawn(move || write_everywhere(up, len, Random(seed)));
            }
            if mad {
                // Whatever comes of it.
                let _ = control.send(b"{\"log\":\"nonsense\"", &[]);
            }
        }
    });
}

/// Until the runtime ends this process.
fn write_everywhere(up: &tidegate_shm::region::GuardedRegion, len: u64, mut random: Random) {
    loop {
        let mut bytes = [0; 256];
        let used = random.next() as usize % bytes.len() + 1;
        bytes[..used].iter_mut().for_each(|byte| *byte = random.next() as u8);
        let at = random.next() % (len - used as u64);
        up.span_mut(at, used as u64).unwrap().write_at(0, &bytes[..used]).unwrap();
    }
}

/// Starts a process that keeps what it inherits: standard input is the control socket.
#[expect(clippy::zombie_processes, reason = "it outlives this process, which is what the test is about")]
pub(crate) fn leave_a_child() {
    let child = Command::new("sleep").arg("600").stdin(Stdio::inherit()).spawn().unwrap();
    note("children", &format!("{}\n", child.id()));
}

/// Closes the socket after the attach, the first time only; whether it was that.
pub(crate) fn close_once() -> bool {
    if OpenOptions::new().create_new(true).write(true).open(place("closed")).is_err() {
        return false;
    }
    let attached = attach("close");
    attached.say_ready();
    drop(attached.control);
    // The one that it came by.
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null").unwrap()).unwrap();
    loop {
        thread::park();
    }
}

/// Prints as fast as it can beside the function.
pub(crate) fn flood() {
    thread::spawn(|| {
        loop {
            let _ = writeln!(std::io::stderr(), "{}", "all work and no play ".repeat(20));
        }
    });
}

/// The socket that the SDK will take, for [`babble`].
pub(crate) fn keep_the_socket() {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    SOCKET.set(Control::new(socket)).unwrap();
}

/// Begins to say everything, once.
pub(crate) fn babble() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let control = SOCKET.get().unwrap();
        let counters = |pairs: &str| {
            format!("{{\"type\":\"metric\",\"lines_left_out\":0,\"counters_left_out\":0,\"counters\":{{{pairs}}}}}")
        };
        let log = |message: &str| {
            format!(
                "{{\"type\":\"log\",\"level\":\"info\",\"partition\":0,\"batch\":1,\"message\":\"{message}\"}}"
            )
        };
        let mut all = vec![
            counters("\"not\\na name\\u0007\":1,\"f\":1.5,\"negative\":-3,\"text\":\"x\""),
            counters("\"nan\":NaN"),
            log(&"\\n".repeat(30_000)),
            "[".repeat(60_000),
            "nonsense".to_owned(),
        ];
        all.extend((0..40).map(|hundred| {
            let pairs: Vec<_> = (0..2_500).map(|n| format!("\"n{}\":1", hundred * 2_500 + n)).collect();
            counters(&pairs.join(","))
        }));
        // Before anything is full.
        all.iter().take(2).for_each(|datagram| control.send(datagram.as_bytes(), &[]).unwrap());
        thread::spawn(move || {
            loop {
                // Most of it finds no room.
                all.iter().for_each(|datagram| drop(control.send(datagram.as_bytes(), &[])));
            }
        });
    });
}

static SOCKET: OnceLock<Control> = OnceLock::new();

struct Random(u64);

impl Random {
    /// Xorshift with a multiplication.
    fn next(&mut self) -> u64 {
        self.0 = (self.0 | 1).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ self.0 >> 29
    }
}
