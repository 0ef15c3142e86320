//! System calls: how many a stream of messages takes, and that the right ones were made for each connection.
//!
//! System calls are counted by `strace`, which starts the counted process so that no privilege is needed.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use tidegate_mq::{
    Context, ContextOptions, Pull, Push,
    monitor::{EventKind, Monitor},
};

use super::{
    child::{self, Child, alone},
    peer::{Raw, address},
    rig::{ANYWHERE, context, established, event, options, options_with},
};

/// Twenty thousand small messages cost their sender and their receiver 400 system calls each at most, with a new
/// connection for them: they are written and read many at a time. They are queued before their connection is up, since
/// whoever sends one by one under `strace` is too slow to be a stream.
///
/// Rules: MQ-472, MQ-051, MQ-052, MQ-055.
#[test]
fn twenty_thousand_messages_take_few_system_calls() {
    const NAME: &str = "system_calls::twenty_thousand_messages_take_few_system_calls";
    const COUNT: usize = 20_000;
    const MOST: u64 = 400;
    match child::role().as_deref() {
        Some("sender") => {
            let endpoint = child::hear().unwrap();
            let context = Context::with_options(ContextOptions::default());
            while let Some(count) = child::hear() {
                let unbounded = options_with(|options| {
                    options.sndhwm = 0;
                    options.linger = None;
                });
                let push = Push::with_options(&context, unbounded).unwrap();
                push.connect(&endpoint).unwrap();
                let count: usize = count.parse().unwrap();
                (0..count).for_each(|_| push.send_blocking(&[7; 20]).unwrap());
                child::say("sent");
                child::hear();
            }
            return;
        }
        Some("receiver") => {
            let context = Context::with_options(ContextOptions::default());
            let pull = Pull::with_options(&context, options_with(|options| options.rcvhwm = 0)).unwrap();
            child::say(&format!("bound {}", pull.bind_blocking(ANYWHERE).unwrap()));
            while let Some(count) = child::hear() {
                let count: usize = count.parse().unwrap();
                (0..count).for_each(|_| drop(pull.recv_blocking().unwrap()));
                child::say("received");
            }
            return;
        }
        _ => {}
    }
    for driver in ["io_uring", "polling"] {
        let place = tempfile::tempdir().unwrap();
        // What the messages themselves cost is the difference between two runs of different length.
        let run = |name: &str, rounds: usize| {
            let summaries = ["sender", "receiver"].map(|role| place.path().join(format!("{name}-{role}")));
            let traced = |role, summary| traced(NAME, role, driver, summary);
            let mut receiver = traced("receiver", &summaries[1]);
            let endpoint = receiver.wait_for("bound");
            let gate = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut sender = traced("sender", &summaries[0]);
            sender.tell(&format!("tcp://{}", gate.local_addr().unwrap()));
            for _ in 0..rounds {
                sender.tell(&COUNT.to_string());
                sender.wait_for("sent");
                receiver.tell(&COUNT.to_string());
                join(gate.accept().unwrap().0, TcpStream::connect(address(&endpoint)).unwrap());
                receiver.wait_for("received");
                sender.tell("next");
            }
            sender.finish();
            receiver.finish();
            summaries.map(|summary| calls(&summary))
        };
        let (short, long) = (run("short", 2), run("long", 12));
        for (role, (short, long)) in ["sender", "receiver"].into_iter().zip(short.into_iter().zip(long)) {
            let each = (total(&long).saturating_sub(total(&short))) / 10;
            println!("measured {driver} {role}: {each} system calls for {COUNT} messages");
            assert!(
                each <= MOST,
                "{driver} {role}: {each} system calls for {COUNT} messages: {short:?} {long:?}"
            );
        }
    }
}

/// Passes everything on between two streams, as long as they live.
fn join(one: TcpStream, two: TcpStream) {
    for (mut from, mut to) in [(one.try_clone().unwrap(), two.try_clone().unwrap()), (two, one)] {
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
}

/// A child whose system calls are counted: their summary is written when it ends.
pub(super) fn traced(name: &str, role: &str, driver: &str, summary: &Path) -> Child {
    let plain = child::command(name, role);
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(summary).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.env("TIDEGATE_MQ_DRIVER", driver);
    Child::spawn(command)
}

pub(super) fn total(calls: &BTreeMap<String, u64>) -> u64 {
    calls.values().sum()
}

/// System calls by name, of a summary of `strace -c`.
pub(super) fn calls(summary: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(summary).expect("the summary of strace, which `make setup` installs");
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let calls: BTreeMap<_, _> = rows
        .filter(|row| row.len() >= 5 && row[0].parse::<f64>().is_ok() && row.last() != Some(&"total"))
        .map(|row| (row[row.len() - 1].to_owned(), row[3].parse().unwrap()))
        .collect();
    assert!(!calls.is_empty(), "{text}");
    calls
}

/// Whether small segments are sent at once on a descriptor that an event named.
fn nodelay(fd: i32) -> bool {
    // A copy of its own, which may be closed.
    let copy = rustix::process::pidfd_getfd(
        rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty()).unwrap(),
        fd,
        rustix::process::PidfdGetfdFlags::empty(),
    );
    socket2::SockRef::from(&copy.unwrap()).tcp_nodelay().unwrap()
}

fn descriptor(monitor: &Monitor, what: &str) -> i32 {
    event(monitor, what, |kind| match kind {
        EventKind::Accepted(fd) | EventKind::Connected(fd) => Some(*fd),
        _ => None,
    })
}

/// Small segments are not held back on any connection: accepted, connected, connected again.
///
/// Rules: MQ-054, MQ-472.
#[test]
fn small_segments_are_sent_at_once_on_all_connections() {
    let Some(driver) = alone("system_calls::small_segments_are_sent_at_once_on_all_connections") else {
        return;
    };
    let context = context(driver);
    let pull = Pull::with_options(&context, options()).unwrap();
    let accepting = pull.monitor();
    let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
    let peer = Raw::up(&endpoint, "PUSH", "");
    assert!(nodelay(descriptor(&accepting, "accepted")), "accepted");
    drop(peer);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let push_options = options_with(|options| options.reconnect_ivl = Some(Duration::from_millis(1)));
    let push = Push::with_options(&context, push_options).unwrap();
    let monitor = push.monitor();
    push.connect(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
    for which in ["connected", "connected again", "and again"] {
        let mut peer = Raw::of(listener.accept().unwrap().0);
        peer.shake("PULL", "");
        assert!(nodelay(descriptor(&monitor, which)), "{which}");
        established(&monitor);
    }
    context.term_blocking();
}
