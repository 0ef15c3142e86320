//! The engine where resources are scarce, forbidden, or counted: each test in a process of its own.
//!
//! A test starts this program again with [`CHILD`] set, under the conditions it wants, and looks at how that ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod toy;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_io::engine::{
    Dial, Driver, DriverChoice, Engine, EngineConfig, EngineError, Listen, StreamAddress,
};

use toy::{Ends, Node, Role, loopback, target};

const CHILD: &str = "TIDEGATE_IO_CHILD";

/// Runs `test` of this program in a child for each driver; in the child, returns which.
fn in_child(test: &str) -> Option<DriverChoice> {
    match std::env::var(CHILD).as_deref() {
        Ok("IoUring") => return Some(DriverChoice::IoUring),
        Ok("Polling") => return Some(DriverChoice::Polling),
        _ => {}
    }
    for driver in ["IoUring", "Polling"] {
        let me = std::env::current_exe().unwrap();
        let output = Command::new(me)
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(CHILD, driver)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{driver}: {text}");
    }
    None
}

/// Without descriptors, accepting and dialing fail with events, pause without spinning, and go on when there are some.
///
/// Rules: MQ-085, MQ-261, MQ-465.
#[test]
fn descriptors_run_out_and_come_back() {
    let Some(driver) = in_child("descriptors_run_out_and_come_back") else { return };
    let engine = toy::engine(driver, 1);
    let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
    let listener = engine.listen(Listen::new(loopback()), Arc::new(Ends(server.clone()))).unwrap();
    let StreamAddress::Ip(address) = listener.local_address().clone() else { panic!("not TCP") };
    // The peers' descriptors exist before the limit falls.
    let peer = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(next), maximum: old.maximum }).unwrap();

    peer.connect(&address.into()).unwrap();
    let started = Instant::now();
    for _ in 0..3 {
        assert!(server.event("AcceptFailed(System").contains("24"), "not EMFILE");
    }
    assert!(started.elapsed() >= Duration::from_millis(30), "10 and 20 ms of pauses lie between");
    let mut how = Dial::new(target(listener.local_address()));
    how.backoff.base = Some(Duration::from_millis(20));
    let _dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
    assert!(client.event("ConnectFailed").contains("24"), "not EMFILE");
    client.event("Retried");

    setrlimit(Resource::Nofile, old).unwrap();
    client.link(0).send(&b"back"[..]);
    assert_eq!(&client.recv()[..], b"back");
    let mut greeting = [0; 4];
    (&peer).read_exact(&mut greeting).unwrap();
    assert!(server.state.lock().unwrap().events.len() < 30, "accepting was retried in a hurry");
}

/// Where io_uring is forbidden the engine runs on epoll, says so, and refuses only who insists.
///
/// Rules: MQ-037, MQ-038.
#[test]
fn a_forbidden_io_uring_is_replaced() {
    if std::env::var_os(CHILD).is_none() {
        for errno in ["38", "1"] {
            let me = std::env::current_exe().unwrap();
            let output = Command::new("python3")
                .args(["-c", FORBID, errno])
                .arg(me)
                .args(["--exact", "a_forbidden_io_uring_is_replaced", "--nocapture"])
                .env(CHILD, "forbidden")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "errno {errno}: {text}");
        }
        return;
    }
    let make = |driver| Engine::new(&EngineConfig { driver, ..EngineConfig::default() });
    assert!(
        matches!(make(DriverChoice::IoUring), Err(EngineError::Driver { .. })),
        "io_uring is not forbidden"
    );
    let engine = make(DriverChoice::Auto).unwrap();
    assert_eq!((engine.driver(), engine.driver().name()), (Driver::Polling, "polling"));
    let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
    let listener = engine.listen(Listen::new(loopback()), Arc::new(Ends(server))).unwrap();
    let _dialer =
        engine.dial(Dial::new(target(listener.local_address())), Arc::new(Ends(client.clone()))).unwrap();
    client.link(0).send(&b"works"[..]);
    assert_eq!(&client.recv()[..], b"works");
}

/// Forbids `io_uring_setup` by a filter that answers with an error, then becomes the given program.
const FORBID: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
program = b"".join(struct.pack("HBBI", *step) for step in [
    (0x20, 0, 0, 0),                                  # load the number of the system call
    (0x15, 0, 1, 425),                                # io_uring_setup?
    (0x06, 0, 0, 0x00050000 | int(sys.argv[1])),      # then this error
    (0x06, 0, 0, 0x7FFF0000),                         # else go on
])
code = ctypes.create_string_buffer(program)
filter = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.create_string_buffer(filter), 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// Ten thousand deadlines of 30 s that are gone do not delay one of 50 ms.
///
/// Rules: MQ-042, MQ-466.
#[test]
fn cancelled_deadlines_delay_nobody() {
    let Some(driver) = in_child("cancelled_deadlines_delay_nobody") else { return };
    let engine = toy::engine(driver, 1);
    // Every connection arms its handshake deadline of 30 s and drops it when it is up.
    let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
    let mut how = Listen::new(tidegate_io::engine::BindAddress::PrivatePath);
    how.options.backlog = 4096;
    let listener = engine.listen(how, Arc::new(Ends(server))).unwrap();
    for round in 0..10 {
        let dialers: Vec<_> = (0..500)
            .map(|_| {
                let how = Dial::new(target(listener.local_address()));
                engine.dial(how, Arc::new(Ends(client.clone()))).unwrap()
            })
            .collect();
        client.wait("all up", |state| (state.up == 500).then_some(()));
        drop(dialers);
        client.wait("all gone", |state| (state.ended.len() == 500 * (round + 1)).then_some(()));
    }
    // A busy machine delays at times; what counts is that nothing of the engine's does every time.
    let best = (0..20).map(|_| one_deadline(&engine)).min().unwrap();
    assert!(best >= Duration::from_millis(49) && best <= Duration::from_millis(55), "{best:?}");
}

/// How long a handshake deadline of 50 ms takes.
fn one_deadline(engine: &Engine) -> Duration {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let late = Node::with(Role::Collect, |node| node.handshake = Duration::from_millis(50));
    let mut how = Dial::new(target(&StreamAddress::Ip(silent.local_addr().unwrap())));
    how.backoff.base = None;
    let _dialer = engine.dial(how, Arc::new(Ends(late.clone()))).unwrap();
    late.ended();
    let state = late.state.lock().unwrap();
    state.lifetimes[0]
}

/// An idle connection costs a few kilobytes.
///
/// Rules: MQ-020, MQ-026, MQ-493.
#[test]
fn idle_connections_are_small() {
    let Some(driver) = in_child("idle_connections_are_small") else { return };
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let engine = toy::engine(driver, 1);
    let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
    let mut how = Listen::new(tidegate_io::engine::BindAddress::PrivatePath);
    how.options.backlog = 4096;
    how.limits.pending = 10_000;
    let listener = engine.listen(how, Arc::new(Ends(server.clone()))).unwrap();
    let before = resident();
    let _dialers: Vec<_> = (0..2000)
        .map(|_| {
            let how = Dial::new(target(listener.local_address()));
            engine.dial(how, Arc::new(Ends(client.clone()))).unwrap()
        })
        .collect();
    client.wait("all up", |state| (state.up == 2000).then_some(()));
    // Each has carried something large, too, and kept nothing of it.
    for index in 0..2000 {
        client.link(index).send(vec![1; 50_000]);
        assert_eq!(client.recv().len(), 50_000);
    }
    let each = (resident() - before) / 4000;
    eprintln!("{driver:?}: {each} bytes for each end of a connection");
    assert!(each <= 6 * 1024, "{each} bytes");
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Peers that trickle and never read do not keep others waiting.
///
/// Rules: MQ-072, MQ-073, MQ-385.
#[test]
fn slow_peers_do_not_hold_others_up() {
    let Some(driver) = in_child("slow_peers_do_not_hold_others_up") else { return };
    let engine = toy::engine(driver, 1);
    let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
    let listener = engine.listen(Listen::new(loopback()), Arc::new(Ends(server.clone()))).unwrap();
    let StreamAddress::Ip(address) = listener.local_address().clone() else { panic!("not TCP") };
    // Floods without reading the echo; its writes stall when the engine's do.
    let mut flood = TcpStream::connect(address).unwrap();
    flood.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut frame = 1000_u32.to_be_bytes().to_vec();
    frame.resize(1004, 0);
    let flooding = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until && flood.write_all(&frame).is_ok() {}
        flood
    });
    let mut drip = TcpStream::connect(address).unwrap();
    let _dialer =
        engine.dial(Dial::new(target(listener.local_address())), Arc::new(Ends(client.clone()))).unwrap();
    let link = client.link(0);
    let mut times = Vec::new();
    for octet in 0..100_u8 {
        drip.write_all(&[0, 0, 0, 1, octet][..1]).unwrap();
        let start = Instant::now();
        link.send(vec![octet; 100]);
        client.recv();
        times.push(start.elapsed());
    }
    times.sort();
    // The median: the machine is busy with the flood, too.
    assert!(times[50] < Duration::from_secs(2), "{times:?}");
    drop(flooding.join().unwrap());
}
