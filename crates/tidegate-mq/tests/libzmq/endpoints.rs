//! Endpoints: names, wildcards, what is reported, and what happens after unbind and disconnect.

use tidegate_mq::{Dealer, Error, Pair, Pull, Push, Router};

use crate::support::*;

/// libzmq: test_abstract_ipc/test_roundtrip.
///
/// Rules: MQ-266, MQ-256.
#[test]
fn abstract_ipc() {
    let context = context();
    let endpoint = format!("ipc://@tidegate-libzmq-{}", std::process::id());
    let bound = Dealer::with_options(&context, options()).unwrap();
    assert_eq!(bound.bind_blocking(&endpoint).unwrap(), endpoint);
    assert_eq!(bound.last_endpoint(), endpoint);
    let connected = Dealer::with_options(&context, options()).unwrap();
    connected.connect(&endpoint).unwrap();
    bounce(&bound, &connected);
}

/// libzmq: test_abstract_ipc/test_empty_abstract_name.
///
/// Rules: MQ-264.
#[test]
fn empty_abstract_name() {
    let context = context();
    let socket = Dealer::with_options(&context, options()).unwrap();
    assert_eq!(socket.bind_blocking("ipc://@").unwrap_err().errno(), 22);
    assert_eq!(socket.connect("ipc://@").unwrap_err().errno(), 22);
}

/// libzmq: test_ipc_wildcard.
///
/// Rules: MQ-265, MQ-256.
#[test]
fn ipc_wildcard() {
    let context = context();
    let bound = Pair::with_options(&context, options()).unwrap();
    let endpoint = bound.bind_blocking("ipc://*").unwrap();
    let path = std::path::PathBuf::from(endpoint.strip_prefix("ipc://").unwrap());
    assert!(path.is_absolute() && path.exists(), "{endpoint}");
    assert_eq!(bound.last_endpoint(), endpoint);
    let connected = Pair::with_options(&context, options()).unwrap();
    connected.connect(&endpoint).unwrap();
    bounce(&bound, &connected);
    wait(bound.close(None));
    until("the directory is gone", || !path.parent().unwrap().exists());
}

/// libzmq: test_last_endpoint.
///
/// Rules: MQ-256, MQ-301.
#[test]
fn last_endpoint() {
    let context = context();
    let router = Router::with_options(&context, options()).unwrap();
    assert_eq!(router.last_endpoint(), "");
    let place = scratch();
    let ipc = format!("ipc://{}/last", place.path().display());
    for endpoint in [free_tcp(), free_tcp(), ipc, "inproc://a".into()] {
        assert_eq!(router.bind_blocking(&endpoint).unwrap(), endpoint);
        assert_eq!(router.last_endpoint(), endpoint);
        assert_eq!(router.raw(32).unwrap().strip_suffix(b"\0").unwrap(), endpoint.as_bytes());
    }
}

/// libzmq: test_pair_inproc, test_pair_ipc, test_pair_tcp (also by name).
///
/// Rules: MQ-246, MQ-264.
#[test]
fn pair() {
    for endpoint in [TRANSPORTS[0], TRANSPORTS[1], TRANSPORTS[2], "tcp://localhost:*", "tcp://lo:*"] {
        let context = context();
        let bound = Pair::with_options(&context, options()).unwrap();
        let resolved = bound.bind_blocking(endpoint).unwrap();
        let connected = Pair::with_options(&context, options()).unwrap();
        let by_name = match resolved.strip_prefix("tcp://127.0.0.1:") {
            Some(port) if endpoint.contains("localhost") => format!("tcp://localhost:{port}"),
            _ => resolved,
        };
        connected.connect(&by_name).unwrap();
        bounce(&bound, &connected);
        bounce(&connected, &bound);
    }
    let context = context();
    let socket = Pair::with_options(&context, options()).unwrap();
    let long = format!("ipc:///tmp/{}", "l".repeat(104));
    assert_eq!(socket.bind_blocking(&long).unwrap_err().errno(), 36);
    assert_eq!(socket.connect(&long).unwrap_err().errno(), 36);
}

/// libzmq: test_term_endpoint/term_endpoint_unbind.
///
/// Rules: MQ-275, MQ-276.
#[test]
fn unbind() {
    for endpoint in &TRANSPORTS[..2] {
        let context = context();
        let push = Push::with_options(&context, options()).unwrap();
        let endpoint = push.bind_blocking(endpoint).unwrap();
        let pull = Pull::with_options(&context, options()).unwrap();
        pull.connect(&endpoint).unwrap();
        push.send_blocking("ABC").unwrap();
        expect(&pull, &[b"ABC"]);
        push.unbind(&endpoint).unwrap();
        assert!(matches!(push.try_send("lost").unwrap_err().error, Error::WouldBlock));
        assert!(matches!(push.unbind(&endpoint), Err(Error::NotFound(_))));
    }
}

/// libzmq: test_term_endpoint/term_endpoint_disconnect.
///
/// Rules: MQ-275, MQ-276.
#[test]
fn disconnect() {
    for endpoint in TRANSPORTS {
        let context = context();
        let pull = Pull::with_options(&context, options()).unwrap();
        let endpoint = pull.bind_blocking(endpoint).unwrap();
        let push = Push::with_options(&context, options()).unwrap();
        push.connect(&endpoint).unwrap();
        push.send_blocking("ABC").unwrap();
        expect(&pull, &[b"ABC"]);
        push.disconnect(&endpoint).unwrap();
        assert!(matches!(push.try_send("lost").unwrap_err().error, Error::WouldBlock));
        assert_eq!(push.disconnect(&endpoint).unwrap_err().errno(), 2);
        push.connect(&endpoint).unwrap();
        push.send_blocking("DEF").unwrap();
        expect(&pull, &[b"DEF"]);
    }
}

/// libzmq: test_term_endpoint/unbind_via_last_endpoint, wildcard_unbind_fails; test_unbind_wildcard/*.
///
/// Rules: MQ-256, MQ-257, MQ-275.
#[test]
fn unbind_wildcards() {
    for (wildcard, ipv6, connect_to) in [
        ("tcp://*:*", false, "127.0.0.1"),
        ("tcp://127.0.0.1:*", false, "127.0.0.1"),
        ("tcp://127.0.0.1:0", false, "127.0.0.1"),
        ("tcp://*:*", true, "[::1]"),
        ("tcp://*:*", true, "127.0.0.1"),
        ("tcp://[::1]:*", true, "[::1]"),
    ] {
        let context = context();
        let options = with(|options| options.ipv6 = ipv6);
        let bound = Pair::with_options(&context, options.clone()).unwrap();
        let resolved = bound.bind_blocking(wildcard).unwrap();
        assert_eq!(resolved, bound.last_endpoint());
        let (host, port) = resolved.rsplit_once(':').unwrap();
        assert_ne!(port, "0");
        if wildcard.contains("//*") {
            assert_eq!(host, if ipv6 { "tcp://[::]" } else { "tcp://0.0.0.0" });
        }
        let connected = Pair::with_options(&context, options).unwrap();
        let target = format!("tcp://{connect_to}:{port}");
        connected.connect(&target).unwrap();
        bounce(&bound, &connected);
        assert_eq!(bound.unbind(wildcard).unwrap_err().errno(), 2, "{wildcard}");
        bound.unbind(&resolved).unwrap();
        assert_eq!(bound.unbind(&resolved).unwrap_err().errno(), 2);
        // The port is free at once.
        bound.bind_blocking(&resolved).unwrap();
    }
}
