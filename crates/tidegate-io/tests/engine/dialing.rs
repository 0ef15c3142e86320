//! Dialers: attempts, delays between them, and when they stop.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_io::{
    engine::{Backoff, BindHost, Dial, StopOn, StreamAddress, Target},
    protocol::Retry,
};

use crate::{
    descriptors,
    kept::Kept,
    listen,
    toy::{Ends, Node, Role, on_both, target},
    wait_descriptors,
};

/// Dialing a port nobody listens at: every step is reported, the attempts go on, and success follows.
///
/// Rules: MQ-277, MQ-283, MQ-362.
#[test]
fn dialing_goes_on_until_somebody_listens() {
    on_both(|engine| {
        let (kept, port) = Kept::new();
        let client = Node::new(Role::Collect);
        let mut how = Dial::new(target(&StreamAddress::Ip(port)));
        how.backoff.base = Some(Duration::from_millis(20));
        let dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        for _ in 0..3 {
            client.event("ConnectFailed");
            client.event("Retried");
        }
        let late = kept.listen();
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

/// A dialer that is to finish goes on until a handshake is complete, writes what it has to, and ends; when it has stopped,
/// or stops, nothing will come, and it ends at once.
///
/// Rules: MQ-275, MQ-283.
#[test]
fn a_dialer_finishes_with_its_next_stream() {
    on_both(|engine| {
        let (kept, port) = Kept::new();
        let client = Node::new(Role::Collect);
        let mut how = Dial::new(target(&StreamAddress::Ip(port)));
        how.backoff.base = Some(Duration::from_millis(10));
        let dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        client.event("Retried");
        dialer.finish();
        client.event("Retried");
        let late = kept.listen();
        // A stream that fails before its handshake is complete was not the last.
        drop(late.accept().unwrap());
        client.event("Retried");
        let (mut peer, _) = late.accept().unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        peer.write_all(&[0; 4]).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the stream is not closed");
        drop(peer);
        assert!(client.event("Disconnected").contains("Local"));
        client.event("Removed");

        let (_kept, before) = Kept::new();
        for is_early in [true, false] {
            let client = Node::new(Role::Collect);
            let mut how = Dial::new(target(&StreamAddress::Ip(before)));
            how.backoff.base = None;
            let dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
            if !is_early {
                client.event("Stopped");
            }
            dialer.finish();
            client.event("Removed");
        }
    });
}

/// Of the dialers of an address a hundred at a time have a handshake under way, as many as a listener lets wait; the others
/// follow as those are complete or fail.
///
/// Rules: MQ-282, MQ-494.
#[test]
fn many_dialers_of_an_address_go_one_after_another() {
    on_both(|engine| {
        let before = descriptors();
        let client = Node::new(Role::Collect);
        let dial = |to: &TcpListener| {
            let mut how = Dial::new(target(&StreamAddress::Ip(to.local_addr().unwrap())));
            how.workers = 1;
            engine.dial(how, Arc::new(Ends(client.clone()))).unwrap()
        };
        let (one, other) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let dialers: Vec<_> = (0..150).map(|_| dial(&one)).collect();
        let mut peers: Vec<TcpStream> = (0..100).map(|_| one.accept().unwrap().0).collect();
        let another = dial(&other);
        drop(other.accept().unwrap());
        one.set_nonblocking(true).unwrap();
        assert!(one.accept().is_err(), "the line is too short");
        one.set_nonblocking(false).unwrap();
        peers[0].write_all(&[0; 4]).unwrap();
        peers.push(one.accept().unwrap().0);
        drop(peers.remove(1));
        peers.push(one.accept().unwrap().0);
        drop((dialers, another, one, other));
        peers.clear();
        wait_descriptors(before);
    });
}

/// A name that cannot be looked up is a failed attempt with a reason.
///
/// Rules: MQ-259, MQ-277, MQ-530.
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
/// Rules: MQ-280, MQ-281, MQ-513.
#[test]
fn a_stopped_dialer_can_be_restarted() {
    on_both(|engine| {
        let (kept, port) = Kept::new();
        let client = Node::with(Role::Collect, |node| node.retry = Retry::Never);
        let mut how = Dial::new(target(&StreamAddress::Ip(port)));
        how.backoff.stop = StopOn { refused: true, ..StopOn::default() };
        let dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        client.event("Stopped");
        let late = kept.listen();
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
/// Rules: MQ-260, MQ-524.
#[test]
fn dialing_oneself_fails() {
    on_both(|engine| {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Node::new(Role::Collect);
        let here = BindHost::Ip([127, 0, 0, 1].into());
        let mut how = Dial::new(Target::Tcp { host: "127.0.0.1".into(), port, source: Some((here, port)) });
        how.backoff.base = None;
        let _dialer = engine.dial(how, Arc::new(Ends(client.clone()))).unwrap();
        assert!(client.event("ConnectFailed").contains("itself"));
        client.event("Stopped");
        assert!(client.state.lock().unwrap().infos.is_empty(), "a connection was made of it");
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
