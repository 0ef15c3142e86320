//! What monitors are told: the values of events, in the typed and in libzmq's form.

use std::{net::TcpListener, time::Duration};

use tidegate_mq::{
    Context, Dealer, Message, Pair, Pull, Push, Router, SocketType,
    monitor::{AuthCode, CloseReason, Event, EventKind, Form, Monitor, NotAccepted},
};

use super::{
    peer::{PATIENCE, Raw, command, greeting, message, ready},
    rig::{ANYWHERE, DRIVERS, context, established, options, options_with},
};

/// The next event of a kind.
#[track_caller]
fn next(monitor: &Monitor, wanted: impl Fn(&EventKind) -> bool) -> Event {
    loop {
        let event = monitor.next_blocking(Some(PATIENCE)).unwrap().unwrap();
        if wanted(&event.kind) {
            return event;
        }
    }
}

macro_rules! next {
    ($monitor:expr, $pattern:pat) => {
        next(&$monitor, |kind| matches!(kind, $pattern))
    };
}

/// A socket that is bound everywhere and one that has come to it, with their monitors.
fn pair_of_sockets(context: &Context) -> (Dealer, Monitor, Dealer, Monitor, String) {
    let bound_socket = Dealer::with_options(context, options()).unwrap();
    let at_bound = bound_socket.monitor();
    let bound = bound_socket.bind_blocking("tcp://0.0.0.0:*").unwrap();
    let endpoint = bound.replace("0.0.0.0", "127.0.0.1");
    let dialer = Dealer::with_options(
        context,
        options_with(|options| {
            options.routing_id = Some(tidegate_mq::options::RoutingId::new("the dialer").unwrap());
        }),
    )
    .unwrap();
    let at_dialer = dialer.monitor();
    dialer.connect(&endpoint).unwrap();
    (bound_socket, at_bound, dialer, at_dialer, endpoint)
}

/// A connection's events on both sides: which descriptor, whose addresses, who the peer is, and what was carried.
///
/// Rules: MQ-362, MQ-363.
#[test]
fn a_connection_is_told_of_in_full() {
    for driver in DRIVERS {
        let context = context(driver);
        let (bound_socket, at_bound, dialer, at_dialer, endpoint) = pair_of_sockets(&context);
        let listening = next!(at_bound, EventKind::Listening(_));
        let EventKind::Listening(listener) = listening.kind else { panic!() };
        assert!(listening.is_bound && listening.local_address.is_none() && listening.peer.is_none());

        let delayed = next!(at_dialer, EventKind::ConnectDelayed);
        assert_eq!(delayed.endpoint, endpoint);
        let connected = next!(at_dialer, EventKind::Connected(_));
        let accepted = next!(at_bound, EventKind::Accepted(_));
        let EventKind::Connected(ours) = connected.kind else { panic!() };
        let EventKind::Accepted(theirs) = accepted.kind else { panic!() };
        assert!(ours != theirs && theirs != listener);
        assert!(!connected.is_bound && accepted.is_bound);
        let address = endpoint.strip_prefix("tcp://").unwrap();
        assert_eq!(connected.peer_address.as_deref(), Some(address));
        assert_eq!(accepted.local_address.as_deref(), Some(address), "not where it is bound");
        assert!(connected.local_address.is_some());
        assert_eq!(accepted.peer_address, connected.local_address);
        assert!(connected.peer.is_none(), "nobody has said anything");

        let up = next!(at_bound, EventKind::HandshakeSucceeded { .. });
        let peer = up.peer.unwrap();
        assert_eq!((peer.socket_type(), peer.routing_id()), (Some(SocketType::Dealer), &b"the dialer"[..]));
        for _ in 0..3 {
            dialer.send_blocking("1234567890").unwrap();
            bound_socket.recv_blocking().unwrap();
        }
        drop(dialer);
        let over = next!(at_bound, EventKind::Disconnected { .. });
        let EventKind::Disconnected { fd, received, messages_received, messages_sent, .. } = over.kind else {
            panic!()
        };
        // Greeting, READY and three frames with a header of two octets.
        assert!((fd, messages_received, messages_sent) == (theirs, 3, 0) && received > 64 + 36, "{received}");
        assert_eq!(over.peer.unwrap().routing_id(), b"the dialer");
        assert_eq!(
            (over.local_address.as_deref(), over.peer_address),
            (Some(address), connected.local_address)
        );
        let over = next!(at_dialer, EventKind::Disconnected { .. });
        let EventKind::Disconnected { fd, sent, messages_received, messages_sent, .. } = over.kind else {
            panic!()
        };
        assert_eq!((fd, messages_received, messages_sent, sent), (ours, 0, 3, received));
        drop(bound_socket);
        let closed = next!(at_bound, EventKind::Closed(_));
        assert_eq!(closed.kind.to_libzmq(), Some((0x0080, vec![listener as u64])));
        context.term_blocking();
    }
}

/// An endpoint that cannot be bound, and one where nobody listens.
///
/// Rules: MQ-362.
#[test]
fn failures_carry_the_system_s_numbers() {
    for driver in DRIVERS {
        let context = context(driver);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", taken.local_addr().unwrap());
        let pull = Pull::with_options(&context, options()).unwrap();
        let monitor = pull.monitor();
        pull.bind_blocking(&endpoint).unwrap_err();
        let failed = next!(monitor, EventKind::BindFailed(_));
        assert_eq!(
            (failed.endpoint.clone(), failed.kind.to_libzmq()),
            (endpoint.clone(), Some((0x0010, vec![98])))
        );

        drop(taken);
        pull.connect(&endpoint).unwrap();
        let failed = next!(monitor, EventKind::ConnectFailed(_));
        assert!(matches!(failed.kind, EventKind::ConnectFailed(111)), "{:?}", failed.kind);
        let closed = next!(monitor, EventKind::Closed(_));
        assert!(matches!(closed.kind, EventKind::Closed(fd) if fd > 0), "{:?}", closed.kind);
        let again = next!(monitor, EventKind::ConnectRetried(_));
        let Some((0x0004, delay)) = again.kind.to_libzmq() else { panic!("{:?}", again.kind) };
        assert!((100..200).contains(&delay[0]), "{delay:?} ms");
        context.term_blocking();
    }
}

/// libzmq's form of a connection's events: in version 2 with both addresses of the stream, in version 1 with our own where
/// it came in and the endpoint where it was dialed.
///
/// Rules: MQ-361.
#[test]
fn the_libzmq_form_has_both_addresses() {
    let context = Context::new();
    let address = |part: &tidegate_mq::Part| String::from_utf8(part.to_vec()).unwrap();
    for form in [Form::V1, Form::V2] {
        let name = |side: &str| format!("inproc://{side}-{form:?}");
        let pull = Pull::with_options(&context, options()).unwrap();
        let mask = 0x0001 | 0x0020;
        pull.monitor_to(&name("pull"), mask, form, SocketType::Pair).unwrap();
        let bound = pull.bind_blocking("tcp://0.0.0.0:*").unwrap();
        let endpoint = bound.replace("0.0.0.0", "127.0.0.1");
        let push = Push::with_options(&context, options()).unwrap();
        push.monitor_to(&name("push"), mask, form, SocketType::Pair).unwrap();
        let [at_pull, at_push] = ["pull", "push"].map(|side| {
            let pair = Pair::with_options(&context, options()).unwrap();
            pair.connect(&name(side)).unwrap();
            pair
        });
        push.connect(&endpoint).unwrap();
        let accepted: Message = at_pull.recv_blocking().unwrap();
        let connected: Message = at_push.recv_blocking().unwrap();
        match (form, accepted.parts(), connected.parts()) {
            (Form::V1, [_, accepted], [_, connected]) => {
                assert_eq!((address(accepted), address(connected)), (endpoint.clone(), endpoint));
            }
            (Form::V2, [.., local, remote], [.., near, far]) => {
                assert_eq!((address(local), address(far)), (endpoint.clone(), endpoint));
                assert_eq!(address(remote), address(near), "one stream has two ends");
                assert!(address(near).starts_with("tcp://127.0.0.1:"));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Every reason for which a connection is closed has libzmq's event and code.
///
/// Rules: MQ-361, MQ-363.
#[test]
fn reasons_have_libzmq_s_codes() {
    use tidegate_mq::monitor::{Deadline, Limit, MetadataError, ZapError};
    const NO_DETAIL: u64 = 0x0800;
    const PROTOCOL: u64 = 0x2000;
    const AUTH: u64 = 0x4000;
    let expected = [
        (CloseReason::UnsupportedVersion, PROTOCOL, 0x1000_0000),
        (CloseReason::MalformedGreeting, PROTOCOL, 0x1000_0000),
        (CloseReason::MalformedFrame, PROTOCOL, 0x1000_0000),
        (CloseReason::MessageTooLarge(Limit::MaxMsgSize), PROTOCOL, 0x1000_0000),
        (CloseReason::SubscriptionLimit, PROTOCOL, 0x1000_0000),
        (CloseReason::PingFlood, PROTOCOL, 0x1000_0000),
        (CloseReason::UnexpectedCommand, PROTOCOL, 0x1000_0001),
        (CloseReason::UnexpectedData, PROTOCOL, 0x1000_0001),
        (CloseReason::InvalidSequence, PROTOCOL, 0x1000_0002),
        (CloseReason::KeyExchange, PROTOCOL, 0x1000_0003),
        (CloseReason::MalformedCommand, PROTOCOL, 0x1000_0011),
        (CloseReason::MalformedMessage, PROTOCOL, 0x1000_0012),
        (CloseReason::MalformedHello, PROTOCOL, 0x1000_0013),
        (CloseReason::MalformedInitiate, PROTOCOL, 0x1000_0014),
        (CloseReason::MalformedError, PROTOCOL, 0x1000_0015),
        (CloseReason::MalformedReady, PROTOCOL, 0x1000_0016),
        (CloseReason::MalformedWelcome, PROTOCOL, 0x1000_0017),
        (CloseReason::InvalidMetadata(MetadataError::Name), PROTOCOL, 0x1000_0018),
        (CloseReason::InvalidSocketType, PROTOCOL, 0x1000_0018),
        (CloseReason::Cryptographic, PROTOCOL, 0x1100_0001),
        (CloseReason::MechanismMismatch, PROTOCOL, 0x1100_0002),
        (CloseReason::Zap(ZapError::Unspecified), PROTOCOL, 0x2000_0000),
        (CloseReason::Zap(ZapError::MalformedReply), PROTOCOL, 0x2000_0001),
        (CloseReason::Zap(ZapError::BadRequestId), PROTOCOL, 0x2000_0002),
        (CloseReason::Zap(ZapError::BadVersion), PROTOCOL, 0x2000_0003),
        (CloseReason::Zap(ZapError::InvalidStatusCode), PROTOCOL, 0x2000_0004),
        (CloseReason::Zap(ZapError::InvalidMetadata), PROTOCOL, 0x2000_0005),
        (CloseReason::AuthFailed(AuthCode::Temporary), AUTH, 300),
        (CloseReason::AuthFailed(AuthCode::Denied), AUTH, 400),
        (CloseReason::AuthFailed(AuthCode::Internal), AUTH, 500),
        (CloseReason::NoAuthenticator, NO_DETAIL, 14),
        (CloseReason::Disconnected { greeting: true }, NO_DETAIL, 32),
        (CloseReason::Disconnected { greeting: false }, NO_DETAIL, 32),
        (CloseReason::TimedOut(Deadline::Handshake), NO_DETAIL, 110),
        (CloseReason::PeerError("why".into()), NO_DETAIL, 71),
    ];
    for (reason, event, value) in expected {
        let kind = EventKind::HandshakeFailed(reason);
        assert_eq!(kind.to_libzmq(), Some((event, vec![value])), "{kind:?}");
    }
    // Established connections end by these: DISCONNECTED says so.
    for deadline in [Deadline::Heartbeat, Deadline::TimeToLive] {
        assert_eq!(EventKind::HandshakeFailed(CloseReason::TimedOut(deadline)).to_libzmq(), None);
    }
    assert_eq!(EventKind::AcceptFailed(NotAccepted::System(23)).to_libzmq(), Some((0x0040, vec![23])));
    assert_eq!(EventKind::AcceptFailed(NotAccepted::Displaced).to_libzmq(), Some((0x0040, vec![103])));
    assert_eq!(EventKind::AcceptFailed(NotAccepted::Filtered).to_libzmq(), Some((0x0040, vec![1])));
}

/// A directory that is not empty stays, and who looks is told so instead of that the listener is closed.
///
/// Rules: MQ-361, MQ-265.
#[test]
fn what_a_listener_could_not_remove_is_told() {
    for driver in DRIVERS {
        let context = context(driver);
        let pull = Pull::with_options(&context, options()).unwrap();
        let monitor = pull.monitor();
        let endpoint = pull.bind_blocking("ipc://*").unwrap();
        let path = std::path::Path::new(endpoint.strip_prefix("ipc://").unwrap());
        let directory = path.parent().unwrap();
        std::fs::write(directory.join("not ours"), "").unwrap();
        pull.unbind(&endpoint).unwrap();
        let told = next!(monitor, EventKind::Closed(_) | EventKind::CloseFailed(_));
        assert_eq!(told.kind.to_libzmq(), Some((0x0100, vec![39])), "ENOTEMPTY");
        assert!(!path.exists());
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// Peers that break the protocol, before and after the handshake: the event has libzmq's code and comes before
/// DISCONNECTED, and the peer is named once it has named itself.
///
/// Rules: MQ-361, MQ-362, MQ-363.
#[test]
fn violations_are_told_with_their_codes() {
    const PLAIN: &str = "PLAIN";
    const NULL: &str = "NULL";
    // What a peer says, and the code.
    let said: [(&str, Vec<u8>, u64); 8] = [
        (NULL, [greeting("NULL"), command("FOO", b"")].concat(), 0x1000_0001),
        (NULL, [greeting("NULL"), command("READY", b"\x05")].concat(), 0x1000_0018),
        (NULL, [greeting("NULL"), command("ERROR", b"\x09short")].concat(), 0x1000_0015),
        (NULL, [greeting("NULL"), vec![4, 3, 9, b'R', b'E']].concat(), 0x1000_0011),
        (NULL, [greeting("NULL"), ready("REQ", "")].concat(), 0x1000_0018),
        (NULL, greeting("PLAIN"), 0x1100_0002),
        (PLAIN, [greeting("PLAIN"), command("HELLO", b"\x05ab")].concat(), 0x1000_0013),
        (PLAIN, [greeting("PLAIN"), command("INITIATE", b"")].concat(), 0x1000_0001),
    ];
    for driver in DRIVERS {
        let context = context(driver);
        for (mechanism, octets, code) in &said {
            let pull = Pull::with_options(
                &context,
                options_with(|options| {
                    if *mechanism == PLAIN {
                        options.set_raw(44, &1_i32.to_ne_bytes()).unwrap();
                    }
                }),
            )
            .unwrap();
            let monitor = pull.monitor();
            let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
            let mut peer = Raw::connect(&endpoint);
            peer.send(octets);
            let failed = next!(monitor, EventKind::HandshakeFailed(_) | EventKind::Disconnected { .. });
            assert_eq!(failed.kind.to_libzmq(), Some((0x2000, vec![*code])), "{octets:?}: {:?}", failed.kind);
            assert!(failed.peer.is_none());
            next!(monitor, EventKind::Disconnected { .. });
        }

        // After the handshake: a message of too many parts.
        let pull =
            Pull::with_options(&context, options_with(|options| options.max_message_parts = 2)).unwrap();
        let monitor = pull.monitor();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let mut peer = Raw::up(&endpoint, "PUSH", "the peer");
        peer.send(&message(&[b"1", b"2", b"3"]));
        let failed = next!(monitor, EventKind::HandshakeFailed(_) | EventKind::Disconnected { .. });
        assert_eq!(failed.kind.to_libzmq(), Some((0x2000, vec![0x1000_0000])));
        assert_eq!(failed.peer.unwrap().routing_id(), b"the peer");
        next!(monitor, EventKind::Disconnected { .. });

        // Who says nothing, and who goes in the middle.
        let hasty = options_with(|options| options.handshake_ivl = Some(Duration::from_millis(50)));
        let pull = Pull::with_options(&context, hasty).unwrap();
        let monitor = pull.monitor();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let silent = Raw::connect(&endpoint);
        let failed = next!(monitor, EventKind::HandshakeFailed(_) | EventKind::Disconnected { .. });
        assert_eq!(failed.kind.to_libzmq(), Some((0x0800, vec![110])));
        drop(silent);
        let pull = Pull::with_options(&context, options()).unwrap();
        let monitor = pull.monitor();
        let endpoint = pull.bind_blocking(ANYWHERE).unwrap();
        let mut brief = Raw::connect(&endpoint);
        brief.send(&greeting("NULL"));
        drop(brief);
        let failed = next!(monitor, EventKind::HandshakeFailed(_) | EventKind::Disconnected { .. });
        assert_eq!(failed.kind.to_libzmq(), Some((0x0800, vec![32])));
        context.term_blocking();
    }
}

/// A peer that is turned away because of its routing id is told of with it.
///
/// Rules: MQ-363, MQ-514.
#[test]
fn who_is_turned_away_is_named() {
    for driver in DRIVERS {
        let context = context(driver);
        let router = Router::with_options(&context, options()).unwrap();
        let monitor = router.monitor();
        let endpoint = router.bind_blocking(ANYWHERE).unwrap();
        let _first = Raw::up(&endpoint, "DEALER", "twin");
        established(&monitor);
        let mut second = Raw::connect(&endpoint);
        second.send(&[greeting("NULL"), ready("DEALER", "twin")].concat());
        let told = next!(monitor, EventKind::RoutingIdInUse);
        assert_eq!(told.peer.unwrap().routing_id(), b"twin");
        assert!(told.peer_address.is_some());
        second.until_closed();
        context.term_blocking();
    }
}
