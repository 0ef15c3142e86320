//! Budget: instructions of the codec on the way of messages, within 5 % of the numbers kept here (MQ-472).
//!
//! They are counted by valgrind, which runs the program on a processor of its own making: the numbers are the same on
//! every machine and at every load. Only instructions of this program count, calls of the C library included, but not what
//! that does: it chooses how to copy by the processor. What remains is the compiler: another release of it, or other
//! flags, may need other numbers. The rule is about released code, so this test is part of release builds only:
//! `make instructions`.
//!
//! The test runs its own binary again under callgrind, as [`workload`]. Callgrind counts while [`counted`] runs, and
//! writes down what it has when that returns.

#![cfg(not(debug_assertions))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{env, fs, path::Path, process::Command, sync::Arc, time::Instant};

use bytes::BytesMut;
use tidegate_io::{batch::WriteBatch, buffer::Slab, message::Message, packed::Packed};
use tidegate_zmtp::{
    config::SessionConfig,
    session::{Session, State},
    socket_type::SocketType,
};

/// Sizes of the parts of a message, and how many instructions it takes to receive and to send it.
type Case = (&'static [usize], f64, f64);

/// Made by rustc 1.95 for x86-64. A change that is meant to cost this much puts the numbers here which the failing test
/// prints.
const CASES: [Case; 7] = [
    (&[8], 219.3, 142.3),
    (&[32], 219.3, 142.3),
    (&[64], 207.2, 142.3),
    (&[256], 225.1, 147.1),
    (&[1024], 471.7, 187.5),
    (&[8192], 556.9, 217.9),
    (&[5, 0, 64], 927.7, 408.6),
];

/// Part of a number by which it may change.
const TOLERANCE: f64 = 0.05;

/// Messages of each case.
const MESSAGES: usize = 1000;

/// Set where this program is to be counted.
const WORKLOAD: &str = "TIDEGATE_COUNTED";

/// Rules: MQ-472.
#[test]
fn a_message_takes_as_many_instructions_as_before() {
    if env::var_os(WORKLOAD).is_some() {
        return workload();
    }
    let place = tempfile::tempdir().unwrap();
    let program = env::current_exe().unwrap();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .args(["--toggle-collect=instructions::counted", "--dump-after=instructions::counted"])
        .arg(format!("--callgrind-out-file={}", place.path().join("counts").display()))
        .arg(&program)
        .args(["--exact", "a_message_takes_as_many_instructions_as_before"])
        .env(WORKLOAD, "1")
        .output()
        .expect("valgrind counts the instructions: apt-get install valgrind");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut counts = (1..).map(|number| place.path().join(format!("counts.{number}")));
    let mut next =
        || read(&fs::read_to_string(counts.next().unwrap()).expect("one dump for each case"), &program);
    let found: Vec<Case> = CASES.iter().map(|&(parts, ..)| (parts, next(), next())).collect();
    let changed: Vec<_> = CASES.iter().zip(&found).filter(|(before, now)| is_changed(before, now)).collect();
    assert!(
        changed.is_empty(),
        "what messages cost has changed by more than 5 % (parts, receive, send):\n{}all of it now, made by {}:\n{}",
        changed
            .iter()
            .map(|(before, now)| format!("    {}, was {}\n", row(now), row(before)))
            .collect::<String>(),
        compiler(),
        found.iter().map(|case| format!("    {},\n", row(case))).collect::<String>(),
    );
}

fn is_changed(before: &Case, now: &Case) -> bool {
    let differ = |before: f64, now: f64| (now - before).abs() > TOLERANCE * before;
    differ(before.1, now.1) || differ(before.2, now.2)
}

/// A case as it stands in [`CASES`].
fn row((parts, receive, send): &Case) -> String {
    format!("(&{parts:?}, {receive:.1}, {send:.1})")
}

fn compiler() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Instructions of a message by one dump of callgrind: what functions of `program` did themselves.
///
/// ```text
/// ob=OBJECT            the functions that follow are of this one
/// LINE INSTRUCTIONS    what a function did itself
/// calls=COUNT LINE     the line after it has what was done for all these calls
/// ```
fn read(dump: &str, program: &Path) -> f64 {
    let (mut instructions, mut is_own) = (0_u64, false);
    let mut lines = dump.lines();
    while let Some(line) = lines.next() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_own = Path::new(object) == program;
        } else if line.starts_with("calls=") {
            lines.next();
        } else if is_own && line.starts_with(|first: char| first.is_ascii_digit()) {
            instructions += line.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
        }
    }
    assert!(instructions > 0, "callgrind saw nothing of {}:\n{dump}", program.display());
    instructions as f64 / MESSAGES as f64
}

/// Receives and sends the messages of all cases.
fn workload() {
    for (parts, ..) in CASES {
        let message: Message = parts.iter().map(|&len| vec![7; len]).collect();
        receive(&message);
        send(&message);
    }
}

/// Where instructions count, once for each number.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

/// A connection decodes reads of at most 64 KiB into the messages that it gives to its socket.
fn receive(message: &Message) {
    let (mut push, mut pull) = ends();
    let mut slab = Slab::default();
    let mut arrivals = Packed::new();
    let round = |is_counted: bool| {
        let mut batch = WriteBatch::new(64 * 1024);
        for _ in 0..MESSAGES {
            push.encode(message, &mut batch);
        }
        let stream: Vec<u8> = batch.segments().iter().flatten().copied().collect();
        let mut pages: Vec<BytesMut> = stream
            .chunks(64 * 1024)
            .map(|piece| {
                let mut page = slab.take(piece.len());
                page.extend_from_slice(piece);
                page
            })
            .collect();
        let now = Instant::now();
        let mut received = 0;
        let mut work = || {
            for page in pages.drain(..) {
                pull.receive(page, now);
                loop {
                    pull.take_messages(&mut slab, &mut arrivals, 1024);
                    if arrivals.is_empty() {
                        break;
                    }
                    received += arrivals.len();
                    arrivals.clear();
                }
            }
        };
        if is_counted {
            counted(&mut work)
        } else {
            work()
        }
        assert_eq!(received, MESSAGES);
    };
    // What is made once is made in the first rounds.
    [false, false, true].into_iter().for_each(round);
}

/// A connection encodes the messages that its socket has for it, a batch of 64 KiB after the other.
fn send(message: &Message) {
    let (mut push, _) = ends();
    let mut batch = WriteBatch::new(64 * 1024);
    let size: usize = message.into_iter().map(|part| part.len()).sum();
    let at_once = (64 * 1024 / size).min(MESSAGES);
    let round = |is_counted: bool| {
        let mut left = MESSAGES;
        let mut queue = Vec::new();
        while left > 0 {
            let mut outbound = Packed::new();
            (0..at_once.min(left)).for_each(|_| outbound.push_clone(message));
            left -= outbound.len();
            queue.push(outbound);
        }
        let mut work = || {
            for outbound in &mut queue {
                push.encode_all(outbound, &mut batch);
                batch.advance(batch.len());
            }
        };
        if is_counted {
            counted(&mut work)
        } else {
            work()
        }
        assert!(queue.iter().all(Packed::is_empty) && batch.is_empty());
    };
    // What is made once is made in the first rounds.
    [false, false, true].into_iter().for_each(round);
}

/// A PUSH and a PULL whose handshake is complete.
fn ends() -> (Session, Session) {
    let now = Instant::now();
    let session =
        |kind| Session::new(Arc::new(SessionConfig::new(kind)), &mut |bytes: &mut [u8]| bytes.fill(7), now);
    let (mut push, mut pull) = (session(SocketType::Push), session(SocketType::Pull));
    while push.state() != State::Active || pull.state() != State::Active {
        pass(&mut push, &mut pull, now);
        pass(&mut pull, &mut push, now);
    }
    (push, pull)
}

fn pass(from: &mut Session, to: &mut Session, now: Instant) {
    let mut batch = WriteBatch::new(64 * 1024);
    from.fill(&mut batch);
    let octets: Vec<u8> = batch.segments().iter().flatten().copied().collect();
    to.receive(BytesMut::from(&octets[..]), now);
    while to.next_event(&mut Slab::default()).is_some() {}
}
