//! ROUTER: names of peers, and what happens to messages for those who are not there.

use tidegate_mq::{Context, Dealer, Error, Options, Pair, Router, monitor::EventKind, options::RouterNotify};

use crate::{raw, support::*};

fn named(id: &[u8]) -> Options {
    with(|options| options.set_raw(5, id).unwrap())
}

fn assign(socket: &Router, id: &[u8]) {
    socket.set_options(|options| options.set_raw(61, id)).unwrap();
}

fn router_to_router(context: &Context, endpoint: &str, named_both: bool) {
    let own = |id: &[u8]| if named_both { named(id) } else { options() };
    let bound = Router::with_options(context, own(b"X")).unwrap();
    let endpoint = bound.bind_blocking(endpoint).unwrap();
    let connected = Router::with_options(context, own(b"Y")).unwrap();
    assign(&connected, b"X");
    connected.connect(&endpoint).unwrap();
    // The peer can be addressed before the connection is up.
    connected.send_blocking(message(["X", "hi 1"])).unwrap();
    let heard = bound.recv_blocking().unwrap();
    assert_eq!(heard.parts()[1], "hi 1");
    let id = heard.parts()[0].clone();
    if named_both {
        assert_eq!(id, "Y");
    } else {
        assert_eq!((id.len(), id[0]), (5, 0), "{id:?}");
    }
    bound.send_blocking(message([id, "ok".into()])).unwrap();
    expect(&connected, &[b"X", b"ok"]);
}

/// libzmq: test_connect_rid/router_2_router_named, test_connect_rid/router_2_router_unnamed.
///
/// Rules: MQ-206, MQ-207.
#[test]
fn connect_routing_id() {
    for endpoint in TRANSPORTS {
        router_to_router(&context(), endpoint, true);
        router_to_router(&context(), endpoint, false);
    }
}

/// libzmq: test_connect_rid/router_2_router_while_receiving.
///
/// Rules: MQ-206, MQ-207.
#[test]
fn connect_routing_id_while_receiving() {
    for endpoint in TRANSPORTS {
        let context = context();
        let x = Router::with_options(&context, named(b"X")).unwrap();
        let at_x = x.bind_blocking(endpoint).unwrap();
        let z = Router::with_options(&context, named(b"Z")).unwrap();
        let at_z = z.bind_blocking(&endpoint.replace("//a", "//z")).unwrap();
        let y = Router::with_options(&context, named(b"Y")).unwrap();
        assign(&y, b"X");
        y.connect(&at_x).unwrap();
        y.send_blocking(message(["X", "hi"])).unwrap();
        expect(&x, &[b"Y", b"hi"]);
        // Something of X waits while Z is named and connected.
        for number in 0..10_u8 {
            x.send_blocking(message([&b"Y"[..], &[number]])).unwrap();
        }
        expect(&y, &[b"X", &[0]]);
        assign(&y, b"Z");
        y.connect(&at_z).unwrap();
        y.send_blocking(message(["Z", "to Z"])).unwrap();
        y.send_blocking(message(["X", "to X"])).unwrap();
        expect(&z, &[b"Y", b"to Z"]);
        expect(&x, &[b"Y", b"to X"]);
        for number in 1..10_u8 {
            expect(&y, &[b"X", &[number]]);
        }
    }
}

/// libzmq: test_issue_566.
///
/// Rules: MQ-206, MQ-068.
#[test]
fn hundred_successive_dealers() {
    for endpoint in TRANSPORTS {
        let context = context();
        let router = Router::with_options(&context, with(|options| options.router_mandatory = true)).unwrap();
        let endpoint = router.bind_blocking(endpoint).unwrap();
        for number in 0..100 {
            let id = format!("{number:09}");
            let dealer = Dealer::with_options(&context, named(id.as_bytes())).unwrap();
            dealer.connect(&endpoint).unwrap();
            until("the peer is known", || router.try_send(message([id.as_str(), "Hello"])).is_ok());
            expect(&dealer, &[b"Hello"]);
        }
    }
}

/// libzmq: test_probe_router/router.
///
/// Rules: MQ-204.
#[test]
fn probe_router_by_router() {
    for endpoint in TRANSPORTS {
        let context = context();
        let server = Router::with_options(&context, options()).unwrap();
        let endpoint = server.bind_blocking(endpoint).unwrap();
        let client = Router::with_options(
            &context,
            with(|options| {
                options.set_raw(5, b"X").unwrap();
                options.probe_router = true;
            }),
        )
        .unwrap();
        client.connect(&endpoint).unwrap();
        expect(&server, &[b"X", b""]);
        server.send_blocking(message(["X", "Hello"])).unwrap();
        let received = client.recv_blocking().unwrap();
        let [id, body] = received.parts() else { panic!("{received:?}") };
        assert_eq!((id.len(), id[0]), (5, 0));
        assert_eq!(*body, "Hello");
    }
}

/// libzmq: test_probe_router/dealer.
///
/// Rules: MQ-204, MQ-206.
#[test]
fn probe_router_by_dealer() {
    for endpoint in TRANSPORTS {
        let context = context();
        let server = Router::with_options(&context, options()).unwrap();
        let endpoint = server.bind_blocking(endpoint).unwrap();
        let client = Dealer::with_options(&context, with(|options| options.probe_router = true)).unwrap();
        client.connect(&endpoint).unwrap();
        let received = server.recv_blocking().unwrap();
        let [id, empty] = received.parts() else { panic!("{received:?}") };
        assert_eq!((id.len(), id[0]), (5, 0));
        assert_eq!(*empty, "");
        server.send_blocking(message([id.as_slice(), b"Hello"])).unwrap();
        expect(&client, &[b"Hello"]);
    }
}

/// libzmq: test_router_handover/with_handover.
///
/// Rules: MQ-209.
#[test]
fn handover() {
    for endpoint in TRANSPORTS {
        let context = context();
        let router = Router::with_options(
            &context,
            with(|options| {
                options.router_handover = true;
                options.router_mandatory = true;
            }),
        )
        .unwrap();
        let endpoint = router.bind_blocking(endpoint).unwrap();
        // Once the first is turned out it must not come back for its name.
        let once = with(|options| {
            options.set_raw(5, b"X").unwrap();
            options.reconnect_ivl = None;
        });
        let first = Dealer::with_options(&context, once).unwrap();
        first.connect(&endpoint).unwrap();
        first.send_blocking("Hello").unwrap();
        expect(&router, &[b"X", b"Hello"]);
        let second = Dealer::with_options(&context, named(b"X")).unwrap();
        second.connect(&endpoint).unwrap();
        second.send_blocking("Hello").unwrap();
        expect(&router, &[b"X", b"Hello"]);
        router.send_blocking(message(["X", "Hello"])).unwrap();
        expect(&second, &[b"Hello"]);
        assert!(matches!(first.try_recv(), Err(Error::WouldBlock)));
    }
}

/// libzmq: test_router_handover/without_handover; the newcomer is closed, and admitted when the first leaves.
///
/// Rules: MQ-208, MQ-514.
#[test]
fn no_handover() {
    let context = context();
    let router = Router::with_options(&context, options()).unwrap();
    let monitor = router.monitor();
    let endpoint = router.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let first = Dealer::with_options(&context, named(b"X")).unwrap();
    first.connect(&endpoint).unwrap();
    first.send_blocking("Hello").unwrap();
    expect(&router, &[b"X", b"Hello"]);
    let quick = with(|options| {
        options.set_raw(5, b"X").unwrap();
        options.reconnect_ivl = Some(std::time::Duration::from_millis(10));
    });
    let second = Dealer::with_options(&context, quick).unwrap();
    second.connect(&endpoint).unwrap();
    second.send_blocking("Hi").unwrap();
    event(&monitor, |kind| matches!(kind, EventKind::RoutingIdInUse));
    router.send_blocking(message(["X", "to the first"])).unwrap();
    expect(&first, &[b"to the first"]);
    assert!(matches!(second.try_recv(), Err(Error::WouldBlock)));
    drop(first);
    until("the second is admitted", || {
        let _ = router.try_send(message(["X", "to the second"]));
        second.try_recv().is_ok()
    });
}

/// libzmq: test_router_mandatory/basic.
///
/// Rules: MQ-206, MQ-302.
#[test]
fn mandatory() {
    for endpoint in TRANSPORTS {
        let context = context();
        let router = Router::with_options(&context, options()).unwrap();
        let endpoint = router.bind_blocking(endpoint).unwrap();
        router.send_blocking(message(["UNKNOWN", "DATA"])).unwrap();
        router
            .set_options(|options| {
                options.router_mandatory = true;
                Ok(())
            })
            .unwrap();
        let refused = router.send_blocking(message(["UNKNOWN", "DATA"])).unwrap_err();
        assert!(matches!(refused.error, Error::HostUnreachable), "{refused:?}");
        assert_eq!(refused.error.errno(), 113);
        assert_eq!(parts(&refused.message), [&b"UNKNOWN"[..], b"DATA"]);
        let dealer = Dealer::with_options(&context, named(b"X")).unwrap();
        dealer.connect(&endpoint).unwrap();
        dealer.send_blocking("Hello").unwrap();
        expect(&router, &[b"X", b"Hello"]);
        router.send_blocking(message(["X", "Hello"])).unwrap();
        expect(&dealer, &[b"Hello"]);
    }
}

/// libzmq: test_router_mandatory_hwm.
///
/// Rules: MQ-060, MQ-212.
#[test]
fn mandatory_hwm() {
    let context = context();
    let router = Router::with_options(
        &context,
        with(|options| {
            options.router_mandatory = true;
            options.sndhwm = 1;
            options.sndbuf = Some(1024);
        }),
    )
    .unwrap();
    let endpoint = router.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let dealer = Dealer::with_options(
        &context,
        with(|options| {
            options.set_raw(5, b"X").unwrap();
            options.rcvhwm = 1;
            options.rcvbuf = Some(1024);
        }),
    )
    .unwrap();
    dealer.connect(&endpoint).unwrap();
    dealer.send_blocking("Hello").unwrap();
    expect(&router, &[b"X", b"Hello"]);
    let mut sent = 0;
    let big = message([b"X".to_vec(), vec![b'A'; 64 << 10]]);
    // The stream may be emptied still while we write, so the end is where nothing goes for a while.
    let end = loop {
        match router.try_send(big.clone()) {
            Ok(()) => sent += 1,
            Err(refused) => {
                assert!(matches!(refused.error, Error::WouldBlock), "{refused:?}");
                router
                    .set_options(|options| {
                        options.sndtimeo = Some(QUIET);
                        Ok(())
                    })
                    .unwrap();
                match router.send_blocking(big.clone()) {
                    Ok(()) => sent += 1,
                    Err(refused) => break refused.error,
                }
            }
        }
        assert!(sent < 1000);
    };
    assert!(matches!(end, Error::Timeout), "{end:?}");
    for _ in 0..sent {
        assert_eq!(dealer.recv_blocking().unwrap().byte_len(), 64 << 10);
    }
    assert!(matches!(dealer.try_recv(), Err(Error::WouldBlock)));
}

fn notifying(connect: bool, disconnect: bool) -> Options {
    with(|options| options.router_notify = RouterNotify { connect, disconnect })
}

/// libzmq: test_router_notify/sockopt_router_notify.
///
/// Rules: MQ-211, MQ-341.
#[test]
fn notify_values() {
    let mut options = Options::default();
    assert_eq!(options.raw(97).unwrap(), 0_i32.to_ne_bytes());
    for value in 0..=3_i32 {
        options.set_raw(97, &value.to_ne_bytes()).unwrap();
        assert_eq!(options.raw(97).unwrap(), value.to_ne_bytes());
    }
    for value in [-1_i32, 4, i32::MAX] {
        assert_eq!(options.set_raw(97, &value.to_ne_bytes()).unwrap_err().errno(), 22);
    }
    assert_eq!(options.router_notify, RouterNotify { connect: true, disconnect: true });
    // Meant for ROUTER only.
    assert_eq!(Pair::with_options(&context(), options).map(drop).unwrap_err().errno(), 22);
}

/// libzmq: test_router_notify/router_notify_connect, router_notify_disconnect, router_notify_both.
///
/// Rules: MQ-211.
#[test]
fn notify() {
    for endpoint in TRANSPORTS {
        for (connect, disconnect) in [(true, false), (false, true), (true, true)] {
            let context = context();
            let router = Router::with_options(&context, notifying(connect, disconnect)).unwrap();
            let endpoint = router.bind_blocking(endpoint).unwrap();
            let dealer = Dealer::with_options(&context, named(b"X")).unwrap();
            dealer.connect(&endpoint).unwrap();
            dealer.send_blocking("Hello").unwrap();
            if connect {
                expect(&router, &[b"X", b""]);
            }
            expect(&router, &[b"X", b"Hello"]);
            dealer.disconnect(&endpoint).unwrap();
            if disconnect {
                expect(&router, &[b"X", b""]);
            }
            dealer.connect(&endpoint).unwrap();
            dealer.send_blocking("again").unwrap();
            if connect {
                expect(&router, &[b"X", b""]);
            }
            expect(&router, &[b"X", b"again"]);
        }
    }
}

/// libzmq: test_router_notify/handshake_fail.
///
/// Rules: MQ-211.
#[test]
fn notify_nothing_of_a_failed_handshake() {
    let context = context();
    let router = Router::with_options(&context, notifying(true, true)).unwrap();
    let monitor = router.monitor();
    let endpoint = router.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let mut stream = raw::connect(&endpoint);
    raw::greet(&mut stream, 1, "NULL");
    drop(stream);
    partings(&monitor, &endpoint, 1);
    // A PAIR is nothing for a ROUTER.
    let mut stream = raw::connect(&endpoint);
    raw::greet(&mut stream, 1, "NULL");
    use std::io::Write;
    stream.write_all(&raw::command("READY", &raw::property("Socket-Type", b"PAIR"))).unwrap();
    partings(&monitor, &endpoint, 1);
    let dealer = Dealer::with_options(&context, named(b"X")).unwrap();
    dealer.connect(&endpoint).unwrap();
    expect(&router, &[b"X", b""]);
    assert!(matches!(router.try_recv(), Err(Error::WouldBlock)));
}

/// libzmq: test_router_notify/error_during_multipart.
///
/// Rules: MQ-211, MQ-192.
#[test]
fn notify_after_a_partial_message() {
    use std::io::Write;
    let context = context();
    let router = Router::with_options(
        &context,
        with(|options| {
            options.router_notify = RouterNotify { connect: false, disconnect: true };
            options.maxmsgsize = Some(64);
        }),
    )
    .unwrap();
    let endpoint = router.bind_blocking("tcp://127.0.0.1:*").unwrap();
    for broken in [vec![2, 0, 0, 0, 0, 0, 0, 1, 0], Vec::new()] {
        let mut stream = raw::connect(&endpoint);
        raw::handshake(&mut stream, 1, "DEALER", b"X");
        stream.write_all(&raw::frame(0, b"whole")).unwrap();
        expect(&router, &[b"X", b"whole"]);
        stream.write_all(&raw::frame(1, b"the first of two parts")).unwrap();
        // Either a frame above the limit or the end of the stream.
        stream.write_all(&broken).unwrap();
        if broken.is_empty() {
            drop(stream);
        } else {
            assert!(raw::is_closed(&mut stream));
        }
        expect(&router, &[b"X", b""]);
    }
}
