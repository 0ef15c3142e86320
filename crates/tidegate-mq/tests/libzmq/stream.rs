//! Raw TCP beside ours. What libzmq's STREAM socket does in these cases is done here by plain streams: one end of every
//! case speaks the protocol by hand.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use tidegate_mq::{
    Dealer, Error, Router,
    monitor::{CloseReason, EventKind},
};
use tidegate_zmtp::close::Deadline;

use crate::{raw, support::*};

/// Greeting, READY with its properties and both directions of traffic, octet by octet.
///
/// libzmq: test_stream/stream_to_dealer, stream_to_stream.
///
/// Rules: MQ-086, MQ-087, MQ-101.
#[test]
fn stream_to_dealer() {
    let context = context();
    let dealer = Dealer::with_options(&context, options()).unwrap();
    let endpoint = dealer.bind_blocking("tcp://127.0.0.1:*").unwrap();
    dealer.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let mut stream = raw::connect(&endpoint);
    // The greeting comes without our saying anything.
    let mut greeting = [0; 64];
    stream.read_exact(&mut greeting).unwrap();
    let mut expected = raw::greeting(1, "NULL", false);
    expected[8] = 0;
    assert_eq!(greeting, expected, "its padding is zero");
    for octet in raw::greeting(1, "NULL", false) {
        stream.write_all(&[octet]).unwrap();
    }
    let (flags, ready) = raw::read_frame(&mut stream).unwrap();
    assert_eq!((flags, &ready[..6]), (4, &b"\x05READY"[..]));
    let said = raw::property("Socket-Type", b"DEALER");
    assert!(ready[6..].starts_with(&said), "{ready:?}");
    let mut ready = raw::property("Socket-Type", b"ROUTER");
    ready.extend(raw::property("Identity", b""));
    stream.write_all(&raw::command("READY", &ready)).unwrap();

    dealer.send_blocking(message(["Hello", "World"])).unwrap();
    assert_eq!(raw::read_frame(&mut stream).unwrap(), (1, b"Hello".to_vec()));
    assert_eq!(raw::read_frame(&mut stream).unwrap(), (0, b"World".to_vec()));
    stream.write_all(b"\x00\x05Reply").unwrap();
    expect(&dealer, &[b"Reply"]);
}

/// Each side learns when the other goes, while others stay.
///
/// libzmq: test_stream_disconnect.
///
/// Rules: MQ-362, MQ-182.
#[test]
fn disconnect() {
    let context = context();
    let router = Router::with_options(&context, options()).unwrap();
    let monitor = router.monitor();
    let endpoint = router.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let mut peers_of_ours: Vec<TcpStream> = ["a", "b"]
        .into_iter()
        .map(|name| {
            let mut stream = raw::connect(&endpoint);
            raw::handshake(&mut stream, 1, "DEALER", name.as_bytes());
            peers(&monitor, &endpoint, 1);
            stream
        })
        .collect();
    for stream in &mut peers_of_ours {
        stream.write_all(b"\x00\x02hi").unwrap();
        router.recv_blocking().unwrap();
    }
    // The first leaves by itself, the second when it is told to.
    drop(peers_of_ours.remove(0));
    partings(&monitor, &endpoint, 1);
    router.send_blocking(message(["a", "nobody is there"])).unwrap();
    router.send_blocking(message(["b", "bye"])).unwrap();
    let mut last = peers_of_ours.remove(0);
    assert_eq!(raw::read_frame(&mut last).unwrap(), (0, b"bye".to_vec()));
    router.unbind(&endpoint).unwrap();
    assert!(raw::is_closed(&mut last));
    partings(&monitor, &endpoint, 1);
    assert!(matches!(router.try_recv(), Err(Error::WouldBlock)));
}

/// Nothing at all: no octets, an empty message, an empty part between others.
///
/// libzmq: test_stream_empty.
///
/// Rules: MQ-101.
#[test]
fn empty() {
    let context = context();
    let dealer = Dealer::with_options(&context, options()).unwrap();
    let endpoint = dealer.bind_blocking("tcp://127.0.0.1:*").unwrap();
    drop(raw::connect(&endpoint));
    let mut stream = raw::connect(&endpoint);
    stream.write_all(b"").unwrap();
    raw::handshake(&mut stream, 1, "DEALER", b"");
    stream.write_all(b"").unwrap();
    dealer.send_blocking("").unwrap();
    dealer.send_blocking(message(["", "x", ""])).unwrap();
    for expected in [(0, &b""[..]), (1, b""), (1, b"x"), (0, b"")] {
        let (flags, body) = raw::read_frame(&mut stream).unwrap();
        assert_eq!((flags, &body[..]), expected);
    }
    stream.write_all(b"\x00\x00\x01\x00\x00\x00").unwrap();
    expect(&dealer, &[b""]);
    expect(&dealer, &[b"", b""]);
}

/// What is longer than a read, in one direction in one go and in the other in pieces.
///
/// libzmq: test_stream_exceeds_buffer.
///
/// Rules: MQ-028, MQ-030, MQ-342.
#[test]
fn exceeds_buffer() {
    let context = context();
    let small = with(|options| {
        options.in_batch_size = 1024;
        options.out_batch_size = 1024;
    });
    let dealer = Dealer::with_options(&context, small).unwrap();
    let endpoint = dealer.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let mut stream = raw::connect(&endpoint);
    raw::handshake(&mut stream, 1, "DEALER", b"");
    for len in [1023, 1024, 1025, 8193, 70_000, 1 << 20] {
        let body: Vec<u8> = (0..len).map(|number: u32| (number % 251) as u8).collect();
        let small = raw::frame(0, b"behind it");
        let octets = [raw::frame(1, &body), raw::frame(0, &body), small].concat();
        for piece in octets.chunks(len as usize / 3) {
            stream.write_all(piece).unwrap();
        }
        assert!(parts(&dealer.recv_blocking().unwrap()) == [&body[..], &body], "{len}");
        expect(&dealer, &[b"behind it"]);
        dealer.send_blocking(message([&body[..], b"end"])).unwrap();
        let (flags, received) = raw::read_frame(&mut stream).unwrap();
        assert_eq!(flags, 3, "long, and more");
        assert!(received == body, "{len}");
        assert_eq!(raw::read_frame(&mut stream).unwrap(), (0, b"end".to_vec()));
    }
}

/// A silent peer is given up at the handshake's deadline, whether it came to us or we to it; after the handshake it may
/// be silent.
///
/// libzmq: test_stream_timeout.
///
/// Rules: MQ-285, MQ-324, MQ-362.
#[test]
fn timeout() {
    let impatient = || with(|options| options.handshake_ivl = Some(QUIET));
    let context = context();
    let late = |kind: &EventKind| {
        let EventKind::HandshakeFailed(reason) = kind else { return false };
        assert_eq!(*reason, CloseReason::TimedOut(Deadline::Handshake));
        true
    };
    // It accepts us and says nothing, or no more than its greeting.
    for says_hello in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dealer = Dealer::with_options(&context, impatient()).unwrap();
        let monitor = dealer.monitor();
        dealer.connect(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
        event(&monitor, |kind| matches!(kind, EventKind::Connected(_)));
        let (mut stream, _) = listener.accept().unwrap();
        if says_hello {
            raw::greet(&mut stream, 1, "NULL");
        }
        event(&monitor, late);
        partings(&monitor, "tcp", 1);
        event(&monitor, |kind| matches!(kind, EventKind::ConnectRetried(_)));
    }
    // It comes to us.
    let router = Router::with_options(&context, impatient()).unwrap();
    let monitor = router.monitor();
    let endpoint = router.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let mut established = raw::connect(&endpoint);
    raw::handshake(&mut established, 1, "DEALER", b"quiet");
    peers(&monitor, &endpoint, 1);
    let mut silent = raw::connect(&endpoint);
    event(&monitor, |kind| matches!(kind, EventKind::Accepted(_)));
    event(&monitor, late);
    assert!(raw::is_closed(&mut silent));
    partings(&monitor, &endpoint, 1);
    established.write_all(b"\x00\x05still").unwrap();
    expect(&router, &[b"quiet", b"still"]);
}
