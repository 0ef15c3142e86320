//! The engine under load, under faults, and at rest, on both drivers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod toy;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidegate_io::{
    engine::{
        Backoff, BindAddress, BindError, Dial, Engine, Listen, ListenError, Listener, StopOn, StreamAddress,
        Target,
    },
    protocol::Retry,
};

use toy::{Ends, Node, Role, loopback, on_both, target};

fn listen(engine: &Engine, node: &Arc<Node>) -> Listener {
    engine.listen(Listen::new(loopback()), Arc::new(Ends(node.clone()))).unwrap()
}

fn dial(engine: &Engine, to: &StreamAddress, node: &Arc<Node>) -> tidegate_io::engine::Dialer {
    engine.dial(Dial::new(target(to)), Arc::new(Ends(node.clone()))).unwrap()
}

fn raw(address: &StreamAddress) -> TcpStream {
    let StreamAddress::Ip(ip) = address else { panic!("not TCP") };
    let stream = TcpStream::connect(ip).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until this process has at most `most` descriptors open.
#[track_caller]
fn wait_descriptors(most: usize) {
    let by = Instant::now() + Duration::from_secs(10);
    while descriptors() > most {
        assert!(Instant::now() < by, "{} descriptors are open, {most} expected", descriptors());
        std::thread::yield_now();
    }
}

/// Many small frames from one thread, partly written directly, arrive complete and in order.
///
/// Rules: MQ-051, MQ-053, MQ-057.
#[test]
fn direct_and_queued_writes_keep_their_order() {
    on_both(|engine| {
        let (server, client) = (Node::new(Role::Collect), Node::new(Role::Collect));
        let listener = listen(engine, &server);
        let _dialer = dial(engine, listener.local_address(), &client);
        let link = client.link(0);
        let mut direct = 0;
        for number in 0..50_000_u32 {
            let mut body = number.to_be_bytes().to_vec();
            body.resize(4 + number as usize % 3000, 0);
            direct += usize::from(link.send_direct(&body));
        }
        assert!(direct > 0, "no write was direct");
        for number in 0..50_000_u32 {
            assert_eq!(server.recv()[..4], number.to_be_bytes());
        }
    });
}

/// A tiny send buffer makes every write a partial one.
///
/// Rules: MQ-034.
#[test]
fn partial_writes_lose_nothing() {
    on_both(|engine| {
        let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
        let mut how = Listen::new(loopback());
        how.options.send_buffer = Some(1);
        how.options.receive_buffer = Some(1);
        let listener = engine.listen(how, Arc::new(Ends(server))).unwrap();
        let mut how = Dial::new(target(listener.local_address()));
        how.options.send_buffer = Some(1);
        let _dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        let link = client.link(0);
        for number in 0..200_usize {
            link.send(vec![number as u8; number * 97]);
        }
        for number in 0..200_usize {
            assert_eq!(client.recv(), vec![number as u8; number * 97]);
        }
    });
}

/// A reader that pauses holds its peer back through the operating system's buffers, and goes on when told.
///
/// Rules: MQ-062, MQ-461.
#[test]
fn a_paused_reader_holds_the_peer_back() {
    on_both(|engine| {
        let server = Node::with(Role::Collect, |node| node.inbox_limit = 4);
        let (client, other) = (Node::new(Role::Collect), Node::new(Role::Collect));
        let listener = listen(engine, &server);
        let _dialer = dial(engine, listener.local_address(), &client);
        let link = client.link(0);
        let body = Bytes::from(vec![1; 100_000]);
        for _ in 0..400 {
            link.send(body.clone());
        }
        server.wait("a pause", |state| (state.inbox.len() >= 4).then_some(()));
        // Others are served meanwhile.
        let echo = Node::new(Role::Echo);
        let second = listen(engine, &echo);
        let _other = dial(engine, second.local_address(), &other);
        other.link(0).send(&b"hello"[..]);
        assert_eq!(&other.recv()[..], b"hello");
        assert!(!link.queue.lock().unwrap().frames.is_empty(), "40 MB went into a paused reader");
        for _ in 0..400 {
            assert_eq!(server.recv().len(), 100_000);
        }
    });
}

/// What was accepted before closing arrives, although the peer has sent what nobody reads.
///
/// Rules: MQ-080, MQ-082.
#[test]
fn closing_writes_everything_first() {
    on_both(|engine| {
        let (server, client) = (Node::new(Role::Collect), Node::new(Role::Collect));
        let listener = listen(engine, &server);
        let dialer = dial(engine, listener.local_address(), &client);
        let link = client.link(0);
        server.link(0).send(vec![9; 1_000_000]);
        for number in 0..100_u8 {
            link.send(vec![number; 200_000]);
        }
        dialer.close(None);
        for number in 0..100_u8 {
            assert_eq!(server.recv(), vec![number; 200_000]);
        }
        assert_eq!(client.ended(), "Local");
        client.event("Removed");
    });
}

/// A peer that never reads ends the wait at the linger time.
///
/// Rules: MQ-080.
#[test]
fn lingering_is_bounded() {
    on_both(|engine| {
        let client = Node::new(Role::Collect);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialer = dial(engine, &StreamAddress::Ip(silent.local_addr().unwrap()), &client);
        let (mut peer, _) = silent.accept().unwrap();
        peer.write_all(&[0; 4]).unwrap();
        let link = client.link(0);
        for _ in 0..100 {
            link.send(vec![0; 1_000_000]);
        }
        let start = Instant::now();
        dialer.close(Some(Duration::from_millis(150)));
        client.event("Removed");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(20), "{took:?}");
    });
}

/// After our last byte the peer is read for at most 200 ms.
///
/// Rules: MQ-082.
#[test]
fn a_peer_that_does_not_close_is_left_after_200_ms() {
    on_both(|engine| {
        let server = Node::new(Role::Collect);
        let listener = listen(engine, &server);
        let mut peer = raw(listener.local_address());
        let link = server.link(0);
        let start = Instant::now();
        link.control.close();
        assert_eq!(server.ended(), "Local");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(195) && took < Duration::from_secs(10), "{took:?}");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [0; 4]);
    });
}

/// A silent peer and one that sends an octet now and then are both closed at the deadline.
///
/// Rules: MQ-042, MQ-073, MQ-384, MQ-385.
#[test]
fn handshake_deadlines_are_kept() {
    on_both(|engine| {
        let server = Node::with(Role::Collect, |node| node.handshake = Duration::from_millis(300));
        // The accepting side of the toy is up at once, so the dialing side is the one that waits.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut how = Dial::new(target(&StreamAddress::Ip(silent.local_addr().unwrap())));
        how.backoff.base = None;
        let _dialer = engine.dial(how, Arc::new(Ends(server.clone()))).unwrap();
        let (mut slow, _) = silent.accept().unwrap();
        let start = Instant::now();
        let dripping = std::thread::spawn(move || {
            for octet in [0, 0, 0] {
                slow.write_all(&[octet]).unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
            slow.read(&mut [0; 16]).unwrap_or(0)
        });
        assert_eq!(server.ended(), "Local");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(10), "{took:?}");
        assert_eq!(dripping.join().unwrap(), 0, "the stream is closed");
        server.event("Stopped");
    });
}

/// Peers that reset at any point leave nothing behind.
///
/// Rules: MQ-035, MQ-462.
#[test]
fn resets_at_random_points_leave_nothing() {
    on_both(|engine| {
        let server = Node::new(Role::Echo);
        let listener = listen(engine, &server);
        let before = descriptors();
        let mut wire = Vec::new();
        for size in [0_usize, 10, 600, 70_000] {
            wire.extend_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
            wire.resize(wire.len() + size, 7);
        }
        for round in 0..500_usize {
            let mut peer = raw(listener.local_address());
            let cut = round * 7919 % wire.len();
            peer.write_all(&wire[..cut]).unwrap();
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        }
        server.wait("all ends", |state| (state.ended.len() == 500).then_some(()));
        wait_descriptors(before);
        assert_eq!(listener.connections(), 0);
        // Still at work.
        let client = Node::new(Role::Collect);
        let _dialer = dial(engine, listener.local_address(), &client);
        client.link(0).send(&b"well"[..]);
        assert_eq!(&client.recv()[..], b"well");
    });
}

/// A thousand reconnects leave no descriptor and no memory behind.
///
/// Rules: MQ-284, MQ-495.
#[test]
fn reconnects_leave_nothing() {
    on_both(|engine| {
        let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
        let listener = listen(engine, &server);
        let mut how = Dial::new(target(listener.local_address()));
        how.backoff.base = Some(Duration::from_micros(100));
        let _dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        let mut after_warm_up = 0;
        for round in 0..1000 {
            if round == 100 {
                after_warm_up = descriptors();
            }
            let link = client.link(0);
            link.send(vec![round as u8; 100]);
            assert_eq!(client.recv(), vec![round as u8; 100]);
            link.control.abort();
            client.wait("the end", |state| (state.ended.len() > round).then(|| state.events.clear()));
        }
        wait_descriptors(after_warm_up + 2);
    });
}

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
        std::thread::sleep(Duration::from_millis(300));
        let before = worker_switches();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(worker_switches() - before, 0, "the workers were woken");
    });
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

/// Addresses, options and credentials of streams are what they should be, on every path.
///
/// Rules: MQ-054, MQ-258, MQ-267.
#[test]
fn streams_have_their_options() {
    on_both(|engine| {
        let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
        let listener = listen(engine, &server);
        let mut how = Dial::new(target(listener.local_address()));
        how.backoff.base = Some(Duration::from_millis(1));
        how.options.keepalive = Some(true);
        how.options.keepalive_idle = Some(Duration::from_secs(77));
        how.options.tos = 0x10;
        let _dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        let check = |node: &Node, dialed: bool| {
            let info = node.state.lock().unwrap().infos.last().cloned().unwrap();
            assert!(info.is_tcp());
            with_socket(info.fd, |socket| {
                assert!(socket.tcp_nodelay().unwrap(), "TCP_NODELAY of {info:?}");
                assert!(socket.nonblocking().unwrap());
                assert_eq!(socket.keepalive().unwrap(), dialed);
                if dialed {
                    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
                    assert_eq!(socket.tos_v4().unwrap(), 0x10);
                }
            });
        };
        let first = client.link(0);
        check(&server, false);
        check(&client, true);
        server.link(0).control.abort();
        let second = client.wait("a reconnect", |state| {
            let link = state.links.last()?;
            (!Arc::ptr_eq(link, &first)).then(|| link.clone())
        });
        second.send(&b"x"[..]);
        client.recv();
        check(&client, true);

        let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
        let listener =
            engine.listen(Listen::new(BindAddress::PrivatePath), Arc::new(Ends(server.clone()))).unwrap();
        let _dialer = dial(engine, listener.local_address(), &client);
        client.link(0);
        let info = server.state.lock().unwrap().infos[0].clone();
        let peer = info.credentials.unwrap();
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
    });
}

/// Looks at a socket of this process by its number, through a duplicate.
fn with_socket(fd: i32, look: impl FnOnce(&socket2::Socket)) {
    let me =
        rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty()).unwrap();
    let copy = rustix::process::pidfd_getfd(me, fd, rustix::process::PidfdGetfdFlags::empty()).unwrap();
    look(&socket2::Socket::from(copy));
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

/// Beyond a limit of pending handshakes the oldest goes; beyond the limit of connections the newcomer.
///
/// Rules: MQ-262, MQ-386.
#[test]
fn the_oldest_pending_handshake_makes_room() {
    on_both(|engine| {
        let server = Node::with(Role::Collect, |node| node.silent = true);
        let mut how = Listen::new(loopback());
        how.limits.pending = 3;
        how.limits.connections = 5;
        let listener = engine.listen(how, Arc::new(Ends(server.clone()))).unwrap();
        let mut peers: Vec<TcpStream> = (0..3).map(|_| raw(listener.local_address())).collect();
        server.wait("three", |state| (state.infos.len() == 3).then_some(()));
        peers.push(raw(listener.local_address()));
        assert_eq!(peers[0].read(&mut [0; 4]).unwrap_or(0), 0, "the oldest is closed");
        assert_eq!(server.ended(), "Displaced");
        server.event("AcceptFailed(Displaced");
        // Those that come up no longer count as pending.
        for peer in &mut peers[1..] {
            peer.write_all(&[0; 4]).unwrap();
        }
        server.wait("three up", |state| (state.up == 3).then_some(()));
        peers.push(raw(listener.local_address()));
        peers.push(raw(listener.local_address()));
        server.wait("five", |state| (state.infos.len() == 6).then_some(()));
        let mut surplus = raw(listener.local_address());
        assert_eq!(surplus.read(&mut [0; 4]).unwrap_or(0), 0, "the newcomer is closed");
        server.event("AcceptFailed(TooMany");
        assert_eq!(listener.connections(), 5);
    });
}

/// The same for each address, and a good peer gets in past those.
///
/// Rules: MQ-262, MQ-386.
#[test]
fn silent_peers_do_not_lock_good_ones_out() {
    on_both(|engine| {
        let server = Node::with(Role::Echo, |node| node.silent = true);
        let client = Node::new(Role::Collect);
        let mut how = Listen::new(loopback());
        how.limits.pending_per_ip = 10;
        let listener = engine.listen(how, Arc::new(Ends(server.clone()))).unwrap();
        let _silent: Vec<TcpStream> = (0..200).map(|_| raw(listener.local_address())).collect();
        let start = Instant::now();
        // The silent toy comes up by the dialer's own greeting.
        let _dialer = dial_greeting(engine, listener.local_address(), &client);
        client.link(0).send(&b"in"[..]);
        assert_eq!(&client.recv()[..], b"in");
        assert!(start.elapsed() < Duration::from_secs(20));
        server.wait("the surplus to go", |state| (state.ended.len() >= 190).then_some(()));
        assert!(listener.connections() <= 11);
    });
}

fn dial_greeting(engine: &Engine, to: &StreamAddress, node: &Arc<Node>) -> tidegate_io::engine::Dialer {
    engine.dial(Dial::new(target(to)), Arc::new(toy::Greeter(node.clone()))).unwrap()
}

/// Closing a listener frees its address at once, with or without its streams.
///
/// Rules: MQ-264, MQ-265, MQ-275, MQ-276.
#[test]
fn a_closed_listener_leaves_nothing() {
    on_both(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let name = format!("tidegate-gone-{}", std::process::id()).into_bytes();
        let port = listen(engine, &Node::new(Role::Echo)).local_address().clone();
        let StreamAddress::Ip(ip) = port else { panic!("not TCP") };
        for _ in 0..3 {
            let addresses = [
                BindAddress::Tcp { host: tidegate_io::engine::BindHost::Ip(ip.ip()), port: ip.port() },
                BindAddress::Path(path.clone()),
                BindAddress::Abstract(name.clone()),
            ];
            for address in addresses {
                let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
                let listener = engine.listen(Listen::new(address), Arc::new(Ends(server.clone()))).unwrap();
                let _dialer = dial(engine, listener.local_address(), &client);
                let link = client.link(0);
                listener.close_keep();
                link.send(&b"kept"[..]);
                assert_eq!(&client.recv()[..], b"kept");
                server.event("ListenerClosed");
            }
            assert!(!path.exists());
        }
        let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
        let listener = engine.listen(Listen::new(BindAddress::PrivatePath), Arc::new(Ends(server))).unwrap();
        let StreamAddress::Path(path) = listener.local_address().clone() else { panic!("no path") };
        let around = path.parent().unwrap().to_owned();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&around).unwrap().permissions().mode() & 0o777, 0o700);
        let _dialer = dial(engine, listener.local_address(), &client);
        client.link(0);
        listener.close(None);
        assert_eq!(client.ended(), "Eof");
        assert!(!around.exists());
    });
}

/// Who else uses a path is respected.
///
/// Rules: MQ-255, MQ-263, MQ-264, MQ-266.
#[test]
fn binding_respects_what_is_there() {
    on_both(|engine| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let bind = |address| engine.listen(Listen::new(address), Arc::new(Ends(Node::new(Role::Echo))));
        let refused = |address| match bind(address) {
            Err(ListenError::Bind(error)) => error,
            other => panic!("{other:?}"),
        };
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(refused(BindAddress::Path(path.clone())), BindError::InUse { .. }));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();

        // Left behind by a process that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = bind(BindAddress::Path(path.clone())).unwrap();
        assert!(matches!(refused(BindAddress::Path(path.clone())), BindError::InUse { .. }));
        let mut take = Listen::new(BindAddress::Path(path.clone()));
        take.options.unix_takeover = true;
        let second = engine.listen(take, Arc::new(Ends(Node::new(Role::Echo)))).unwrap();
        first.close_keep();
        assert!(path.exists(), "the file is the second listener's");
        second.close_keep();
        assert!(!path.exists());

        let long = BindAddress::Path(format!("/tmp/{}", "x".repeat(103)).into());
        assert!(matches!(refused(long), BindError::NameTooLong { len: 108 }));
        assert!(matches!(
            refused(BindAddress::Path("/nowhere/socket".into())),
            BindError::NoDirectory { .. }
        ));
        assert!(matches!(refused(BindAddress::Abstract(Vec::new())), BindError::InvalidName));
        assert!(bind(BindAddress::Abstract(vec![b'y'; 107])).is_ok());
        assert!(matches!(refused(BindAddress::Abstract(vec![b'y'; 108])), BindError::NameTooLong { .. }));
        let far =
            BindAddress::Tcp { host: tidegate_io::engine::BindHost::Ip([192, 0, 2, 1].into()), port: 0 };
        assert!(matches!(refused(far), BindError::NoDevice { .. }));
        let unknown =
            BindAddress::Tcp { host: tidegate_io::engine::BindHost::Name("nosuchif0".into()), port: 0 };
        assert!(matches!(refused(unknown), BindError::NoDevice { .. }));
    });
}

/// Interfaces are bound by name, names are looked up, and IPv6 wildcards take both families.
///
/// Rules: MQ-255, MQ-257.
#[test]
fn names_and_families() {
    on_both(|engine| {
        use tidegate_io::engine::BindHost;
        let reach = |host: BindHost, ipv6: bool, to: &str| {
            let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
            let mut how = Listen::new(BindAddress::Tcp { host, port: 0 });
            how.options.ipv6 = ipv6;
            let listener = engine.listen(how, Arc::new(Ends(server))).unwrap();
            let StreamAddress::Ip(ip) = listener.local_address().clone() else { panic!("not TCP") };
            let mut how = Dial::new(Target::Tcp { host: to.into(), port: ip.port(), source: None });
            how.options.ipv6 = ipv6;
            let _dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
            client.link(0);
            ip.ip().to_string()
        };
        assert_eq!(reach(BindHost::Name("lo".into()), false, "127.0.0.1"), "127.0.0.1");
        assert_eq!(reach(BindHost::Any, false, "localhost"), "0.0.0.0");
        assert_eq!(reach(BindHost::Any, true, "127.0.0.1"), "::");
        assert_eq!(reach(BindHost::Any, true, "::1"), "::");
        assert_eq!(reach(BindHost::Name("lo".into()), true, "::1"), "::1");
        assert_eq!(reach(BindHost::Name("localhost".into()), false, "localhost"), "127.0.0.1");
    });
}

/// Dialing a port nobody listens at: every step is reported, the attempts go on, and success follows.
///
/// Rules: MQ-277, MQ-283, MQ-362.
#[test]
fn dialing_goes_on_until_somebody_listens() {
    on_both(|engine| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Node::new(Role::Collect);
        let mut how = Dial::new(target(&StreamAddress::Ip(port)));
        how.backoff.base = Some(Duration::from_millis(20));
        let dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        for _ in 0..3 {
            client.event("ConnectFailed");
            client.event("Retried");
        }
        let late = TcpListener::bind(port).unwrap();
        let (mut peer, _) = late.accept().unwrap();
        client.event("Connected");
        peer.write_all(&[0; 4]).unwrap();
        client.link(0);
        peer.shutdown(Shutdown::Both).unwrap();
        client.event("Disconnected Eof");
        client.event("Retried");
        dialer.close(None);
        client.event("Removed");
    });
}

/// A name that cannot be looked up is a failed attempt with a reason.
///
/// Rules: MQ-259, MQ-277.
#[test]
fn an_unknown_name_is_retried() {
    on_both(|engine| {
        let client = Node::new(Role::Collect);
        let mut how = Dial::new(Target::Tcp { host: "nosuchhost.invalid".into(), port: 1, source: None });
        how.backoff.base = Some(Duration::from_millis(5));
        let _dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        client.event("ResolveFailed");
        client.event("Retried");
        client.event("ResolveFailed");
    });
}

/// Stopped dialers stay quiet until told to go on.
///
/// Rules: MQ-280, MQ-281.
#[test]
fn a_stopped_dialer_can_be_restarted() {
    on_both(|engine| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Node::with(Role::Collect, |node| node.retry = Retry::Never);
        let mut how = Dial::new(target(&StreamAddress::Ip(port)));
        how.backoff.stop = StopOn { refused: true, ..StopOn::default() };
        let dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        client.event("Stopped");
        let late = TcpListener::bind(port).unwrap();
        dialer.retry();
        let (peer, _) = late.accept().unwrap();
        drop(peer);
        client.event("Refused");
        dialer.retry();
        late.accept().unwrap();
    });
}

/// Against a server that closes at once, attempts become rare.
///
/// Rules: MQ-278, MQ-279, MQ-463.
#[test]
fn a_server_that_closes_at_once_is_left_alone() {
    on_both(|engine| {
        let closing = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Node::with(Role::Collect, |node| node.retry = Retry::Unexplained);
        let mut how = Dial::new(target(&StreamAddress::Ip(closing.local_addr().unwrap())));
        how.backoff = Backoff { base: Some(Duration::from_millis(10)), ..Backoff::default() };
        let _dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        let mut last = Duration::ZERO;
        for round in 0..6 {
            drop(closing.accept().unwrap());
            let delay = client.event("Retried");
            let ms: f64 =
                delay.trim_start_matches("Retried { delay: ").trim_end_matches("ms }").parse().unwrap();
            let delay = Duration::from_secs_f64(ms / 1000.0);
            let least = Duration::from_millis(10 << round);
            assert!(delay >= least && delay <= least * 5 / 4 && delay > last, "round {round}: {delay:?}");
            last = delay;
        }
    });
}

/// An address that does not answer is given up in time, or when the dialer is closed.
///
/// Rules: MQ-035, MQ-282.
#[test]
fn connecting_is_bounded_in_time() {
    on_both(|engine| {
        // A listener with a full backlog does not answer.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let address = full.local_addr().unwrap().as_socket().unwrap();
        let _fill: Vec<TcpStream> = (0..2)
            .filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok())
            .collect();
        let client = Node::new(Role::Collect);
        let mut how = Dial::new(target(&StreamAddress::Ip(address)));
        how.connect_timeout = Some(Duration::from_millis(100));
        how.backoff.base = None;
        let start = Instant::now();
        let _dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        assert!(client.event("ConnectFailed").contains("TimedOut"));
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(20), "{took:?}");
        client.event("Stopped");

        // An attempt that is given up leaves no descriptor.
        let before = descriptors();
        let mut how = Dial::new(target(&StreamAddress::Ip(address)));
        how.connect_timeout = None;
        let dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        client.event("ConnectDelayed");
        dialer.close(None);
        client.event("Removed");
        wait_descriptors(before);
    });
}

/// A stream that has met itself is a failed attempt.
///
/// Rules: MQ-260.
#[test]
fn dialing_oneself_fails() {
    on_both(|engine| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Node::new(Role::Collect);
        let here = tidegate_io::engine::BindHost::Ip([127, 0, 0, 1].into());
        let mut how = Dial::new(Target::Tcp { host: "127.0.0.1".into(), port, source: Some((here, port)) });
        how.backoff.base = None;
        let _dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        assert!(client.event("ConnectFailed").contains("itself"));
        client.event("Stopped");
        assert!(client.state.lock().unwrap().infos.is_empty(), "a connection was made of it");
    });
}

/// Shutdown closes what is open within its time and says what it had to abort.
///
/// Rules: MQ-081.
#[test]
fn shutdown_is_bounded_and_reports() {
    for driver in [tidegate_io::engine::DriverChoice::IoUring, tidegate_io::engine::DriverChoice::Polling] {
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
    let engine = toy::engine(tidegate_io::engine::DriverChoice::Auto, 3);
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
