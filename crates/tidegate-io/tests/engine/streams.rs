//! Streams: what is written arrives, what is slow waits, and what ends leaves nothing.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidegate_io::engine::{BindAddress, Dial, Listen, StreamAddress};

use crate::{
    descriptors, dial, listen, raw,
    toy::{Ends, Node, Role, loopback, on_both, target},
    wait_descriptors,
};

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

/// A tiny send buffer makes every write a partial one. The receive buffer is as it is: with a window smaller than a segment
/// the kernel itself waits, for minutes at worst.
///
/// Rules: MQ-034.
#[test]
fn partial_writes_lose_nothing() {
    on_both(|engine| {
        let (server, client) = (Node::new(Role::Echo), Node::new(Role::Collect));
        let mut how = Listen::new(loopback());
        how.options.send_buffer = Some(1);
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

/// Whether the socket at `port` has sent bytes that its peer's kernel did not take.
fn is_unsent(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let socket = fields.find(|fields| fields[1].ends_with(&format!(":{port:04X}"))).unwrap();
    !socket[4].starts_with("00000000:")
}

/// What a peer has sent before it went is read to its end, although writing to it fails while reading is paused.
///
/// Rules: MQ-062.
#[test]
fn a_failed_write_takes_nothing_from_a_paused_reader() {
    on_both(|engine| {
        let server = Node::with(Role::Collect, |node| node.inbox_limit = 4);
        let listener = listen(engine, &server);
        let mut peer = raw(listener.local_address());
        let link = server.link(0);
        let frame = [&1000_u32.to_be_bytes()[..], &[7; 1000]].concat();
        peer.write_all(&frame.repeat(8)).unwrap();
        server.wait("a pause", |state| (state.inbox.len() >= 4).then_some(()));
        // No more than the kernel takes for a reader that has paused.
        peer.write_all(&frame.repeat(50)).unwrap();
        // A reset would take what is still on its way.
        while is_unsent(peer.local_addr().unwrap().port()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(peer);
        // The first write is answered by a reset, the others fail; 200 ms of that are more than the engine waits.
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            link.send(&b"anybody there?"[..]);
            std::thread::sleep(Duration::from_millis(10));
        }
        for _ in 0..58 {
            assert_eq!(server.recv(), [7; 1000][..]);
        }
        assert!(!server.ended().is_empty());
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
        // A place is free when its descriptor is closed, not before.
        let by = Instant::now() + Duration::from_secs(20);
        while listener.connections() > 0 {
            assert!(Instant::now() < by, "{} places are taken", listener.connections());
            std::thread::yield_now();
        }
        // Still at work.
        let client = Node::new(Role::Collect);
        let _dialer = dial(engine, listener.local_address(), &client);
        client.link(0).send(&b"well"[..]);
        assert_eq!(&client.recv()[..], b"well");
    });
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
