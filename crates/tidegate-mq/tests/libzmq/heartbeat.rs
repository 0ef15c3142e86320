//! Heartbeats: peers that fall silent are dropped, and others are not.

use std::{io::Write, time::Duration};

use tidegate_mq::{
    AnySocket, Context, Dealer, Message, Options, Router, SocketType,
    monitor::EventKind,
    options::{CurveOptions, CurvePolicy, Mechanism},
};

use crate::{raw, support::*};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn disconnected(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Disconnected { .. })
}

/// libzmq: test_heartbeats/timeout_router.
///
/// Rules: MQ-172, MQ-175, MQ-330.
#[test]
fn timeout_router() {
    let context = context();
    let router = Router::with_options(
        &context,
        with(|options| {
            options.heartbeat_ivl = Some(ms(50));
            options.heartbeat_timeout = Some(ms(100));
        }),
    )
    .unwrap();
    let monitor = router.monitor();
    let endpoint = router.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let mut stream = raw::connect(&endpoint);
    raw::handshake(&mut stream, 1, "DEALER", b"");
    event(&monitor, |kind| matches!(kind, EventKind::Accepted(_)));
    // It is pinged and never answers.
    assert_eq!(raw::read_frame(&mut stream).unwrap(), (4, b"\x04PING\0\0".to_vec()));
    event(&monitor, disconnected);
    assert!(raw::is_closed(&mut stream));
}

/// libzmq: test_heartbeats/timeout_router_mock_ping.
///
/// Rules: MQ-167, MQ-173.
#[test]
fn mock_ping() {
    let context = context();
    let router = Router::with_options(&context, options()).unwrap();
    let endpoint = router.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let mut stream = raw::connect(&endpoint);
    raw::handshake(&mut stream, 1, "DEALER", b"");
    let long = [b'x'; 58];
    for (context, echoed) in
        [(&b""[..], &b""[..]), (b"abc", b"abc"), (&long[..16], &long[..16]), (&long, &long[..16])]
    {
        stream.write_all(&raw::command("PING", &[&[0, 0][..], context].concat())).unwrap();
        assert_eq!(raw::read_frame(&mut stream).unwrap(), (4, [b"\x04PONG", echoed].concat()));
    }
}

const PAIRS: [(SocketType, SocketType); 5] = [
    (SocketType::Dealer, SocketType::Router),
    (SocketType::Req, SocketType::Rep),
    (SocketType::Pull, SocketType::Push),
    (SocketType::Sub, SocketType::Pub),
    (SocketType::Pair, SocketType::Pair),
];

fn any(context: &Context, kind: SocketType, options: Options) -> AnySocket {
    AnySocket::of_type_with(context, kind, options).unwrap()
}

/// One who announces that it will be heard of every 100 ms, and is only every 250 ms.
fn ttl(connecting: SocketType, bound: SocketType) {
    let context = context();
    let receiver = any(&context, bound, options());
    let monitor = receiver.monitor();
    let endpoint = receiver.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let sender = any(
        &context,
        connecting,
        with(|options| {
            options.heartbeat_ivl = Some(ms(250));
            options.heartbeat_timeout = Some(Duration::from_secs(10));
            options.heartbeat_ttl = ms(100);
        }),
    );
    sender.connect(&endpoint).unwrap();
    event(&monitor, |kind| matches!(kind, EventKind::HandshakeSucceeded { .. }));
    event(&monitor, disconnected);
}

/// libzmq: test_heartbeats/ttl_dealer_router, ttl_req_rep, ttl_pull_push, ttl_sub_pub, ttl_pair_pair.
///
/// Rules: MQ-173, MQ-175, MQ-331.
#[test]
fn time_to_live() {
    for (connecting, bound) in PAIRS {
        ttl(connecting, bound);
    }
}

fn no_timeout(connecting: SocketType, bound: SocketType, security: Option<(Mechanism, Mechanism)>) {
    let context: Context = context();
    let (server, client) = security.unwrap_or_default();
    let beating = |mechanism: Mechanism| -> Options {
        with(|options| {
            options.mechanism = mechanism;
            options.heartbeat_ivl = Some(ms(20));
            options.heartbeat_timeout = Some(ms(5_000));
            options.heartbeat_ttl = ms(5_000);
        })
    };
    let receiver = any(&context, bound, beating(server));
    let monitor = receiver.monitor();
    let endpoint = receiver.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let sender = any(&context, connecting, beating(client));
    let connected = sender.monitor();
    sender.connect(&endpoint).unwrap();
    event(&monitor, |kind| matches!(kind, EventKind::HandshakeSucceeded { .. }));
    event(&connected, |kind| matches!(kind, EventKind::HandshakeSucceeded { .. }));
    std::thread::sleep(ms(250));
    for monitor in [monitor, connected] {
        if let Some(event) = monitor.try_next() {
            panic!("{connecting:?} {bound:?} {event:?}");
        }
    }
}

/// libzmq: test_heartbeats/notimeout_dealer_router, notimeout_req_rep, notimeout_pull_push, notimeout_sub_pub,
/// notimeout_pair_pair.
///
/// Rules: MQ-172, MQ-175.
#[test]
fn no_timeout_with_heartbeats() {
    for (connecting, bound) in PAIRS {
        no_timeout(connecting, bound, None);
    }
}

/// libzmq: test_heartbeats/notimeout_*_with_curve.
///
/// Rules: MQ-172, MQ-175.
#[test]
fn no_timeout_with_heartbeats_and_curve() {
    for (connecting, bound) in PAIRS {
        let secret_key = tidegate_mq::new_secret_key();
        let client = CurveOptions::Client {
            server_key: secret_key.public_key(),
            secret_key: tidegate_mq::new_secret_key(),
        };
        let server = CurveOptions::Server { secret_key, policy: CurvePolicy::AnyKey };
        no_timeout(connecting, bound, Some((Mechanism::Curve(server), Mechanism::Curve(client))));
    }
}

/// libzmq: test_heartbeats/setsockopt_heartbeat_success, setsockopt_heartbeat_ttl_max, _more_than_max, _near_zero.
///
/// Rules: MQ-174, MQ-330, MQ-331, MQ-332.
#[test]
fn values() {
    let mut options = Options::default();
    let mut set = |value: i32| {
        let set = options.set_raw(76, &value.to_ne_bytes());
        (set.map_err(|error| error.errno()), i32::from_ne_bytes(options.raw(76).unwrap().try_into().unwrap()))
    };
    assert_eq!(set(0), (Ok(()), 0));
    assert_eq!(set(99), (Ok(()), 0));
    assert_eq!(set(100), (Ok(()), 100));
    assert_eq!(set(199), (Ok(()), 100));
    assert_eq!(set(6_553_599), (Ok(()), 6_553_500));
    assert_eq!(set(6_553_600), (Err(22), 6_553_500));
    assert_eq!(set(-1), (Err(22), 6_553_500));
    for option in [75, 77] {
        options.set_raw(option, &500_i32.to_ne_bytes()).unwrap();
        assert_eq!(options.raw(option).unwrap(), 500_i32.to_ne_bytes());
        assert_eq!(options.set_raw(option, &(-5_i32).to_ne_bytes()).unwrap_err().errno(), 22);
    }
}

/// libzmq: test_heartbeats/timeout_router (a peer that answers stays).
///
/// Rules: MQ-172, MQ-169.
#[test]
fn answering_keeps_the_connection() {
    let context = context();
    let router = Router::with_options(
        &context,
        with(|options| {
            options.heartbeat_ivl = Some(ms(20));
            options.heartbeat_timeout = Some(ms(2_000));
        }),
    )
    .unwrap();
    let endpoint = router.bind_blocking("tcp://127.0.0.1:*").unwrap();
    let dealer = Dealer::with_options(&context, options()).unwrap();
    dealer.connect(&endpoint).unwrap();
    for _ in 0..3 {
        dealer.send_blocking("hello").unwrap();
        let heard: Message = router.recv_blocking().unwrap();
        std::thread::sleep(ms(50));
        router.send_blocking(heard).unwrap();
        expect(&dealer, &[b"hello"]);
    }
}
