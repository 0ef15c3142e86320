//! What peers say of themselves, and how messages are made of parts.

use bytes::Bytes;
use tidegate_mq::{Message, Options, Part, Rep, Req};

use crate::support::*;

/// libzmq: test_app_meta/test_app_meta_reqrep.
///
/// Rules: MQ-340.
#[test]
fn app_meta() {
    for endpoint in &TRANSPORTS[..2] {
        let context = context();
        let says = |text: &str| with(|options| options.set_raw(95, text.as_bytes()).unwrap());
        let rep = Rep::with_options(&context, says("X-hello:hello")).unwrap();
        let endpoint = rep.bind_blocking(endpoint).unwrap();
        let req = Req::with_options(&context, says("X-connection:primary")).unwrap();
        req.connect(&endpoint).unwrap();
        req.send_blocking("ping").unwrap();
        let (_, peer) = rep.recv_with_peer_blocking().unwrap();
        assert_eq!(peer.unwrap().property("X-connection"), Some(&b"primary"[..]));
        rep.send_blocking("pong").unwrap();
        let (_, peer) = req.recv_with_peer_blocking().unwrap();
        let peer = peer.unwrap();
        assert_eq!(peer.property("X-hello"), Some(&b"hello"[..]));
        assert_eq!(peer.property("X-connection"), None);
    }
    for text in ["hello:X", "X-hello", "X-hello:", ":hello", "X-:hello", ""] {
        assert_eq!(Options::default().set_raw(95, text.as_bytes()).unwrap_err().errno(), 22, "{text}");
    }
}

/// libzmq: test_metadata.
///
/// Rules: MQ-160, MQ-267.
#[test]
fn metadata() {
    use tidegate_mq::options::{Mechanism, PlainOptions};
    let context = context();
    let handler = Rep::with_options(&context, options()).unwrap();
    handler.bind_blocking("inproc://zeromq.zap.01").unwrap();
    let answering = std::thread::spawn(move || {
        let request = handler.recv_blocking().unwrap();
        let metadata = [b"\x05Hello\0\0\0\x05World".as_slice()].concat();
        let reply = [b"1.0", request.parts()[1].as_slice(), b"200", b"OK", b"anonymous", &metadata];
        handler.send_blocking(message(reply)).unwrap();
        wait(handler.close(None));
    });
    let server = with(|options| {
        options.mechanism = Mechanism::Plain(PlainOptions::Server { authenticator: None });
        options.zap_domain = "domain".into();
    });
    let rep = Rep::with_options(&context, server).unwrap();
    let endpoint = rep.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let client = with(|options| {
        options.mechanism =
            Mechanism::Plain(PlainOptions::Client { username: "u".into(), password: "p".into() });
    });
    let req = Req::with_options(&context, client).unwrap();
    req.connect(&endpoint).unwrap();
    req.send_blocking("hi").unwrap();
    let (_, peer) = rep.recv_with_peer_blocking().unwrap();
    let peer = peer.unwrap();
    assert_eq!(peer.property("Hello"), Some(&b"World"[..]));
    assert_eq!(peer.property("Socket-Type"), Some(&b"REQ"[..]));
    assert_eq!(peer.property("User-Id"), Some(&b"anonymous"[..]));
    assert_eq!(peer.property("Peer-Address"), Some(&b"127.0.0.1"[..]));
    assert_eq!(peer.property("No Such"), None);
    answering.join().unwrap();
}

/// libzmq: test_iov, test_msg_init, test_msg_flags, test_msg_ffn.
///
/// Rules: MQ-049.
#[test]
fn messages() {
    let big = Bytes::from(vec![7; 10_000]);
    let mut sent: Message = message([Part::from(big.clone()), Part::EMPTY, Part::from("inline")]);
    // A copy shares what it does not hold inline.
    let copy = sent.clone();
    assert_eq!(copy.parts()[0].as_slice().as_ptr(), big.as_ptr());
    assert_eq!(copy, sent);
    for endpoint in TRANSPORTS {
        let context = context();
        let rep = Rep::with_options(&context, options()).unwrap();
        let endpoint = rep.bind_blocking(endpoint).unwrap();
        let req = Req::with_options(&context, options()).unwrap();
        req.connect(&endpoint).unwrap();
        req.send_blocking(sent.clone()).unwrap();
        let received = rep.recv_blocking().unwrap();
        assert_eq!(received, copy);
        assert_eq!((received.len(), received.byte_len()), (3, 10_006));
        if endpoint.starts_with("inproc") {
            assert_eq!(received.parts()[0].as_slice().as_ptr(), big.as_ptr());
        }
    }
    assert_eq!(sent.split_front(1).parts()[0], big);
    assert_eq!(sent.len(), 2);
}
