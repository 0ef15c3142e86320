//! Workers: asleep when idle, spread evenly, unharmed by panics, and ended in time.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use tidegate_io::{
    buffer::with_local_slab,
    engine::{Acceptor, DriverChoice, Listen, ListenError, StreamAddress, StreamInfo},
    protocol::Connection,
};

use crate::{
    descriptors, dial, listen, raw,
    toy::{self, Ends, Node, Role, loopback, on_both},
    wait_descriptors,
};

/// An idle engine sleeps: no context switch of a worker in a second with idle connections.
///
/// Rules: MQ-496.
#[test]
fn idle_connections_cost_no_wake_ups() {
    on_both(|engine| {
        let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
        let listener = listen(engine, &server);
        let dialers: Vec<_> = (0..50).map(|_| dial(engine, listener.local_address(), &client)).collect();
        for index in 0..dialers.len() {
            client.link(index).send(&b"warm"[..]);
            client.recv();
        }
        // What was begun comes to rest.
        let patience = Instant::now() + Duration::from_secs(10);
        let mut before = worker_switches();
        loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = worker_switches();
            if std::mem::replace(&mut before, now) == now {
                break;
            }
            assert!(Instant::now() < patience, "the workers never rest");
        }
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(worker_switches() - before, 0, "the workers were woken");
    });
}

/// While a worker has streams it keeps the pages it has used; when the last stream has ended it keeps none.
#[test]
fn a_worker_without_streams_keeps_no_memory() {
    on_both(|engine| {
        let (server, client) = (Node::new(Role::Collect), Node::new(Role::Collect));
        let listener = listen(engine, &server);
        let look = Arc::new(Look::default());
        let looking = engine.listen(Listen::new(loopback()), look.clone()).unwrap();
        let stays = dial(engine, listener.local_address(), &client);
        let goes = dial(engine, listener.local_address(), &client);
        for _ in 0..10 {
            // What is held keeps its page, so that the next needs another.
            client.link(1).send(vec![1; 60_000]);
            server.wait("a frame", |state| (!state.inbox.is_empty()).then_some(()));
        }
        server.wait("all frames", |state| (state.inbox.len() == 10).then_some(()));
        goes.close(None);
        client.event("Removed");
        assert!(look.pages(looking.local_address()) > 0, "it kept nothing for the other stream");
        stays.close(None);
        client.event("Removed");
        server.wait("both ends", |state| (state.ended.len() == 2).then_some(()));
        // An operation that was under way gives its page back later.
        let patience = Instant::now() + Duration::from_secs(20);
        while look.pages(looking.local_address()) > 0 {
            assert!(Instant::now() < patience, "it keeps pages");
        }
        assert!(server.state.lock().unwrap().inbox.iter().all(|frame| *frame == vec![1; 60_000]));
    });
}

/// Looks at the memory of its worker whenever a stream comes, and takes none.
#[derive(Default)]
struct Look(Mutex<Vec<usize>>, Condvar);

impl Look {
    fn pages(&self, at: &StreamAddress) -> usize {
        let StreamAddress::Ip(at) = at else { panic!("{at:?}") };
        let _stream = TcpStream::connect(at).unwrap();
        let seen = self.0.lock().unwrap();
        let patience = Duration::from_secs(20);
        let (mut seen, _) = self.1.wait_timeout_while(seen, patience, |seen| seen.is_empty()).unwrap();
        seen.pop().unwrap()
    }
}

impl Acceptor for Look {
    fn accept(&self, _stream: &StreamInfo) -> Option<Box<dyn Connection>> {
        self.0.lock().unwrap().push(with_local_slab(|slab| slab.pages()));
        self.1.notify_all();
        None
    }
}

/// Times that the workers of this process have been put to sleep.
fn worker_switches() -> u64 {
    let mut switches = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let Ok(name) = std::fs::read_to_string(task.join("comm")) else { continue };
        let Ok(status) = std::fs::read_to_string(task.join("status")) else { continue };
        if name.starts_with("tidegate-io") {
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
            switches += line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        }
    }
    switches
}

/// A protocol that panics loses its stream, nothing else.
///
/// Rules: MQ-085.
#[test]
fn a_panicking_protocol_is_contained() {
    on_both(|engine| {
        let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
        let listener = listen(engine, &server);
        let mut peer = raw(listener.local_address());
        let mut greeting = [0; 4];
        peer.read_exact(&mut greeting).unwrap();
        peer.write_all(b"\0\0\0\x05panic").unwrap();
        assert_eq!(peer.read(&mut [0; 4]).unwrap_or(0), 0, "the stream is closed");
        let _dialer = dial(engine, listener.local_address(), &client);
        client.link(0).send(&b"alive"[..]);
        assert_eq!(&client.recv()[..], b"alive");
    });
}

/// Shutdown closes what is open within its time and says what it had to abort.
///
/// Rules: MQ-081.
#[test]
fn shutdown_is_bounded_and_reports() {
    for driver in [DriverChoice::IoUring, DriverChoice::Polling] {
        let engine = toy::engine(driver, 2);
        let before = descriptors();
        let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
        let listener = listen(&engine, &server);
        let _dialers: Vec<_> = (0..20).map(|_| dial(&engine, listener.local_address(), &client)).collect();
        client.link(19);
        let start = Instant::now();
        let report = engine.shutdown(Duration::from_millis(500));
        assert!(start.elapsed() < Duration::from_secs(20));
        assert_eq!(report.stuck, 0);
        assert_eq!(client.state.lock().unwrap().up, 0);
        assert_eq!(server.state.lock().unwrap().up, 0);
        drop(listener);
        // The engine's own descriptors are gone as well.
        wait_descriptors(before);
        let late = engine.listen(Listen::new(loopback()), Arc::new(Ends(server)));
        assert!(matches!(late, Err(ListenError::Engine(_))));
    }
}

/// Connections spread over the workers that they may use.
///
/// Rules: MQ-041.
#[test]
fn connections_are_spread_over_the_workers() {
    let engine = toy::engine(DriverChoice::Auto, 3);
    let server = Node::new(Role::Echo);
    let mut how = Listen::new(loopback());
    how.workers = 0b101;
    let listener = engine.listen(how, Arc::new(Ends(server.clone()))).unwrap();
    let _peers: Vec<TcpStream> = (0..10).map(|_| raw(listener.local_address())).collect();
    server.wait("ten", |state| (state.up == 10).then_some(()));
    let threads = server.state.lock().unwrap().threads.clone();
    let on = |name: &str| threads.iter().filter(|thread| *thread == name).count();
    assert_eq!((on("tidegate-io-0"), on("tidegate-io-1"), on("tidegate-io-2")), (5, 0, 5));
    engine.shutdown(Duration::ZERO);
}
