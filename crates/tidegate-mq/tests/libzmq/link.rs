//! Connecting: late binds, source addresses, names, `immediate`, and connecting again.

use std::{
    io::Write,
    net::TcpListener,
    time::{Duration, Instant},
};

use tidegate_mq::{
    Dealer, Error, Message, Options, Pair, Pub, Pull, Push, Sub,
    monitor::{EventKind, Monitor},
    options::ReconnectStop,
};

use crate::{raw, support::*};

/// libzmq: test_bind_after_connect_tcp.
///
/// Rules: MQ-182, MQ-273, MQ-277.
#[test]
fn bind_after_connect() {
    let context = context();
    let endpoint = free_tcp();
    let early = Dealer::with_options(&context, options()).unwrap();
    early.connect(&endpoint).unwrap();
    for text in ["foobar", "baz", "buzz"] {
        early.send_blocking(text).unwrap();
    }
    let late = Dealer::with_options(&context, options()).unwrap();
    late.bind_blocking(&endpoint).unwrap();
    for text in ["foobar", "baz", "buzz"] {
        expect(&late, &[text.as_bytes()]);
    }
    bounce(&late, &early);
}

/// libzmq: test_bind_src_address.
///
/// Rules: MQ-254.
#[test]
fn source_addresses() {
    let context = context();
    let push = Push::with_options(&context, with(|options| options.ipv6 = true)).unwrap();
    for endpoint in [
        "tcp://127.0.0.1:0;localhost:1234",
        "tcp://localhost:5555;localhost:1235",
        "tcp://lo:*;localhost:1236",
        "tcp://[::1]:0;localhost:1237",
    ] {
        push.connect(endpoint).unwrap();
    }
    // The peer sees the address that was asked for.
    let pull = Pull::with_options(&context, options()).unwrap();
    let monitor = pull.monitor();
    let endpoint = pull.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    let target = endpoint.strip_prefix("tcp://").unwrap();
    push.connect(&format!("tcp://127.0.0.9:0;{target}")).unwrap();
    let accepted = event(&monitor, |kind| matches!(kind, EventKind::Accepted(_)));
    let peer = accepted.peer_address.unwrap();
    assert!(peer.contains("127.0.0.9:"), "{peer}");
    push.send_blocking("from there").unwrap();
    expect(&pull, &[b"from there"]);
}

/// libzmq: test_connect_resolve.
///
/// Rules: MQ-252, MQ-253, MQ-254.
#[test]
fn connect_resolve() {
    let context = context();
    let socket = Pub::with_options(&context, options()).unwrap();
    socket.connect("tcp://localhost:1234").unwrap();
    socket.connect("tcp://[::1]:1234").unwrap();
    for endpoint in [
        "tcp://localhost:invalid",
        "tcp://localhost:http",
        "tcp://in val id:1234",
        "tcp://",
        "tcp://192.168.0.200:*",
        "tcp://*:1234",
        "tcp://localhost:0",
        "tcp://localhost:66000",
        "tcp://:1234",
        "localhost:1234",
    ] {
        let error = socket.connect(endpoint).unwrap_err();
        assert_eq!(error.errno(), 22, "{endpoint}: {error}");
    }
    let error = socket.connect("invalid://localhost:1234").unwrap_err();
    assert!(matches!(error, Error::ProtocolNotSupported { .. }));
    assert_eq!(error.errno(), 93);
}

/// libzmq: test_immediate/1 (case 1: not immediate).
///
/// Rules: MQ-182, MQ-189, MQ-306.
#[test]
fn not_immediate() {
    let context = context();
    let (here, nowhere) = (free_tcp(), free_tcp());
    let pull = Pull::with_options(&context, options()).unwrap();
    pull.bind_blocking(&here).unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    push.connect(&nowhere).unwrap();
    push.connect(&here).unwrap();
    for number in 0..10_u8 {
        push.send_blocking(&[number]).unwrap();
    }
    // Each pipe has its half, whether it is connected or not.
    for number in [1, 3, 5, 7, 9] {
        expect(&pull, &[&[number]]);
    }
    silent(&pull);
    let late = Pull::with_options(&context, options()).unwrap();
    late.bind_blocking(&nowhere).unwrap();
    for number in [0, 2, 4, 6, 8] {
        expect(&late, &[&[number]]);
    }
}

/// libzmq: test_immediate/2 (case 2: immediate).
///
/// Rules: MQ-183, MQ-306.
#[test]
fn immediate() {
    let context = context();
    let pull = Pull::with_options(&context, options()).unwrap();
    let here = pull.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let push = Push::with_options(&context, with(|options| options.immediate = true)).unwrap();
    push.connect(&free_tcp()).unwrap();
    assert!(matches!(push.try_send("").unwrap_err().error, Error::WouldBlock));
    push.connect(&here).unwrap();
    for number in 0..10_u8 {
        push.send_blocking(&[number]).unwrap();
    }
    for number in 0..10_u8 {
        expect(&pull, &[&[number]]);
    }
}

/// libzmq: test_immediate/3 (case 3: immediate, and the peer goes and returns).
///
/// Rules: MQ-183, MQ-306, MQ-277.
#[test]
fn immediate_and_a_peer_that_returns() {
    let place = scratch();
    for endpoint in [free_tcp(), format!("ipc://{}/immediate", place.path().display())] {
        let context = context();
        let backend = Dealer::with_options(&context, options()).unwrap();
        backend.bind_blocking(&endpoint).unwrap();
        let frontend = Dealer::with_options(&context, with(|options| options.immediate = true)).unwrap();
        let monitor = frontend.monitor();
        frontend.connect(&endpoint).unwrap();
        peers(&monitor, &endpoint, 1);
        frontend.send_blocking("Hello").unwrap();
        expect(&backend, &[b"Hello"]);
        backend.send_blocking("Hello").unwrap();
        expect(&frontend, &[b"Hello"]);
        wait(backend.close(Some(Duration::ZERO)));
        partings(&monitor, &endpoint, 1);
        assert!(matches!(frontend.try_send("lost").unwrap_err().error, Error::WouldBlock));
        let backend = Dealer::with_options(&context, options()).unwrap();
        backend.bind_blocking(&endpoint).unwrap();
        frontend.send_blocking("Hello again").unwrap();
        expect(&backend, &[b"Hello again"]);
    }
}

/// libzmq: test_rebind_ipc.
///
/// Rules: MQ-264, MQ-275, MQ-284.
#[test]
fn rebind_ipc() {
    let context = context();
    let place = scratch();
    let path = place.path().join("rebind");
    let endpoint = format!("ipc://{}", path.display());
    let pull = Pull::with_options(&context, options()).unwrap();
    let push = Push::with_options(&context, options()).unwrap();
    pull.connect(&endpoint).unwrap();
    for round in 0..3_u8 {
        push.bind_blocking(&endpoint).unwrap();
        push.send_blocking(&[round]).unwrap();
        expect(&pull, &[&[round]]);
        push.unbind(&endpoint).unwrap();
        until("the file is gone", || !path.exists());
        until("the peer is gone", || push.try_send("lost").is_err());
    }
}

/// libzmq: test_reconnect_ivl/tcp_ipv4, tcp_ipv6, ipc.
///
/// Rules: MQ-276, MQ-277, MQ-283, MQ-295.
#[test]
fn no_reconnect() {
    let place = scratch();
    for endpoint in [free_tcp(), free_tcp6(), format!("ipc://{}/ivl", place.path().display())] {
        for (round, interval) in [-1_i32, 0, 0, -1].into_iter().enumerate() {
            let context = context();
            let options = with(|options| {
                options.ipv6 = true;
                options.set_raw(18, &interval.to_ne_bytes()).unwrap();
            });
            let bound = Pair::with_options(&context, options.clone()).unwrap();
            bound.bind_blocking(&endpoint).unwrap();
            let connected = Pair::with_options(&context, options).unwrap();
            let monitor = connected.monitor();
            connected.connect(&endpoint).unwrap();
            peers(&monitor, &endpoint, 1);
            bounce(&bound, &connected);
            bound.unbind(&endpoint).unwrap();
            event(&monitor, |kind| matches!(kind, EventKind::Stopped));
            let listening = bound.monitor();
            bound.bind_blocking(&endpoint).unwrap();
            event(&listening, |kind| matches!(kind, EventKind::Listening(_)));
            std::thread::sleep(QUIET);
            if let Some(event) = listening.try_next() {
                panic!("{event:?}");
            }
            // Being told to connect again it does, whichever way; a PAIR takes a second connect for a second peer.
            if round % 2 == 0 {
                connected.retry(&endpoint).unwrap();
            } else {
                connected.disconnect(&endpoint).unwrap();
                connected.connect(&endpoint).unwrap();
            }
            bounce(&bound, &connected);
        }
    }
}

/// The kinds of events up to and including one that is wanted.
fn sequence(monitor: &Monitor, last: impl Fn(&EventKind) -> bool) -> Vec<&'static str> {
    let mut names = Vec::new();
    let end = Instant::now() + PATIENCE;
    loop {
        let event = tidegate_io::wait::block_on(monitor.next(), Some(end)).flatten().expect("an event");
        names.push(match event.kind {
            EventKind::Connected(_) => "connected",
            EventKind::ConnectDelayed => "delayed",
            EventKind::ConnectRetried(_) => "retried",
            EventKind::Closed(_) => "closed",
            EventKind::ConnectFailed(_) => "failed",
            EventKind::Disconnected { .. } => "disconnected",
            EventKind::HandshakeSucceeded { .. } => "up",
            EventKind::HandshakeFailed(_) => "handshake failed",
            EventKind::Stopped => "stopped",
            _ => "other",
        });
        if last(&event.kind) {
            return names;
        }
    }
}

/// libzmq: test_reconnect_options/reconnect_default, reconnect_success.
///
/// Rules: MQ-277, MQ-283, MQ-284, MQ-362.
#[test]
fn reconnect_default() {
    let context = context();
    let publisher = Pub::with_options(&context, options()).unwrap();
    let endpoint = publisher.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let sub = Sub::with_options(&context, options()).unwrap();
    sub.subscribe("").unwrap();
    let monitor = sub.monitor();
    sub.connect(&endpoint).unwrap();
    let up = |kind: &EventKind| matches!(kind, EventKind::HandshakeSucceeded { .. });
    let retried = |kind: &EventKind| matches!(kind, EventKind::ConnectRetried(_));
    assert_eq!(sequence(&monitor, up), ["delayed", "connected", "up"]);
    publisher.unbind(&endpoint).unwrap();
    assert_eq!(sequence(&monitor, retried), ["disconnected", "retried"]);
    for _ in 0..2 {
        assert_eq!(sequence(&monitor, retried), ["delayed", "failed", "closed", "retried"]);
    }
    publisher.bind_blocking(&endpoint).unwrap();
    let rest = sequence(&monitor, up);
    assert!(rest.ends_with(&["delayed", "connected", "up"]), "{rest:?}");
    wait(publisher.wait_for_subscribers(b"", 1, PATIENCE)).unwrap();
    publisher.send_blocking("again").unwrap();
    expect(&sub, &[b"again"]);
}

fn stopping(stop: ReconnectStop) -> Options {
    with(|options| {
        options.reconnect_stop = stop;
        options.reconnect_ivl = Some(Duration::from_millis(20));
    })
}

/// libzmq: test_reconnect_options/reconnect_stop_on_refused.
///
/// Rules: MQ-281, MQ-283, MQ-344, MQ-524.
#[test]
fn stop_on_refused() {
    let context = context();
    let stop = ReconnectStop { connection_refused: true, ..ReconnectStop::default() };
    let sub = Sub::with_options(&context, stopping(stop)).unwrap();
    let monitor = sub.monitor();
    let endpoint = free_tcp();
    sub.connect(&endpoint).unwrap();
    let stopped = |kind: &EventKind| matches!(kind, EventKind::Stopped);
    assert_eq!(sequence(&monitor, stopped), ["delayed", "failed", "closed", "stopped"]);
    std::thread::sleep(QUIET);
    assert!(monitor.try_next().is_none());
    let publisher = Pub::with_options(&context, options()).unwrap();
    publisher.bind_blocking(&endpoint).unwrap();
    sub.connect(&endpoint).unwrap();
    peers(&monitor, &endpoint, 1);
}

/// libzmq: test_reconnect_options/reconnect_stop_on_handshake_failed.
///
/// Rules: MQ-281, MQ-283, MQ-344, MQ-524.
#[test]
fn stop_on_handshake_failed() {
    let context = context();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let stop = ReconnectStop { handshake_failed: true, ..ReconnectStop::default() };
    let sub = Sub::with_options(&context, stopping(stop)).unwrap();
    let monitor = sub.monitor();
    sub.connect(&endpoint).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nbut this is not what was asked for at all, is it?\r\n").unwrap();
    let stopped = |kind: &EventKind| matches!(kind, EventKind::Stopped);
    let seen = sequence(&monitor, stopped);
    assert_eq!(seen, ["delayed", "connected", "handshake failed", "disconnected", "stopped"]);
    std::thread::sleep(QUIET);
    assert!(monitor.try_next().is_none());
}

/// libzmq: test_reconnect_options/reconnect_stop_after_disconnect.
///
/// Rules: MQ-281, MQ-283, MQ-344, MQ-524.
#[test]
fn stop_after_disconnect() {
    let context = context();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let stop = ReconnectStop { after_disconnect: true, ..ReconnectStop::default() };
    let sub = Sub::with_options(&context, stopping(stop)).unwrap();
    let monitor = sub.monitor();
    sub.connect(&endpoint).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    raw::handshake(&mut stream, 1, "PUB", b"");
    peers(&monitor, &endpoint, 1);
    drop(stream);
    let stopped = |kind: &EventKind| matches!(kind, EventKind::Stopped);
    assert_eq!(sequence(&monitor, stopped), ["disconnected", "stopped"]);
    // Not a failure to stop at: this one is tried again.
    let other = Sub::with_options(&context, stopping(stop)).unwrap();
    let monitor = other.monitor();
    other.connect(&free_tcp()).unwrap();
    event(&monitor, |kind| matches!(kind, EventKind::ConnectRetried(_)));
}

/// libzmq: test_hello_msg, test_disconnect_msg.
///
/// Rules: MQ-214, MQ-345.
#[test]
fn hello_and_disconnect_messages() {
    for endpoint in TRANSPORTS {
        let context = context();
        let router = tidegate_mq::Router::with_options(
            &context,
            with(|options| {
                options.hello_msg = "H".into();
                options.disconnect_msg = "D".into();
            }),
        )
        .unwrap();
        let endpoint = router.bind_blocking(endpoint).unwrap();
        let named = with(|options| {
            options.set_raw(5, b"A").unwrap();
            options.hello_msg = "hello".into();
        });
        let dealer = Dealer::with_options(&context, named).unwrap();
        dealer.connect(&endpoint).unwrap();
        expect(&dealer, &[b"H"]);
        expect(&router, &[b"A", b"hello"]);
        bounce_router(&dealer, &router);
        dealer.disconnect(&endpoint).unwrap();
        expect(&router, &[b"A", b"D"]);
        dealer.connect(&endpoint).unwrap();
        expect(&dealer, &[b"H"]);
        expect(&router, &[b"A", b"hello"]);
        drop(dealer);
        expect(&router, &[b"A", b"D"]);
    }
}

fn bounce_router(dealer: &Dealer, router: &tidegate_mq::Router) {
    dealer.send_blocking("ask").unwrap();
    let asked: Message = router.recv_blocking().unwrap();
    assert_eq!(parts(&asked)[1..], [b"ask"]);
    router.send_blocking(asked).unwrap();
    expect(dealer, &[b"ask"]);
}

/// libzmq: test_hello_msg (late bind), test_hiccup_msg.
///
/// Rules: MQ-214, MQ-345.
#[test]
fn hello_after_a_late_bind_and_hiccup() {
    for endpoint in [free_tcp(), "inproc://a".to_owned()] {
        let context = context();
        let dealer = Dealer::with_options(
            &context,
            with(|options| {
                options.hello_msg = "HELLO".into();
                options.hiccup_msg = "HICCUP".into();
            }),
        )
        .unwrap();
        dealer.connect(&endpoint).unwrap();
        let router = Dealer::with_options(&context, options()).unwrap();
        router.bind_blocking(&endpoint).unwrap();
        expect(&router, &[b"HELLO"]);
        assert!(matches!(dealer.try_recv(), Err(Error::WouldBlock)));
        wait(router.close(Some(Duration::ZERO)));
        expect(&dealer, &[b"HICCUP"]);
        let router = Dealer::with_options(&context, options()).unwrap();
        router.bind_blocking(&endpoint).unwrap();
        bounce(&dealer, &router);
    }
}
