//! Handshakes of NULL and PLAIN, row by row (§4.4, §4.5, §4.8).

use std::time::Duration;

use crate::support::*;
use bytes::Bytes;
use tidegate_zmtp::{
    auth::{AuthCode, AuthRequest, Credentials, PlainCredentials, Verdict, ZapError},
    close::{CloseReason, Deadline, Limit, MetadataError},
    config::SessionConfig,
    metadata::Metadata,
    session::{Event, State},
    socket_type::SocketType::{self, Dealer, Pull, Push, Rep, Req, Router},
};

const HELLO: &[u8] = b"\x05admin\x06secret";

fn error(reason: &[u8]) -> Vec<u8> {
    command("ERROR", &[&[reason.len() as u8], reason].concat())
}

/// A PLAIN server that has been told the credentials.
fn plain_asked() -> Side {
    let mut side = Side::new(plain_server(Pull));
    let events = side.feed(&[greeting("PLAIN"), command("HELLO", HELLO)].concat());
    assert!(matches!(&events[..], [Event::Authenticate(_)]), "{events:?}");
    side.output();
    side
}

/// A NULL side that asks its authenticator.
fn null_asked() -> Side {
    let mut side = Side::new(authenticating(Pull));
    let events = side.feed(&greeting("NULL"));
    let nothing = AuthRequest { identity: Bytes::new(), credentials: Credentials::None };
    assert!(matches!(&events[..], [Event::Authenticate(request)] if *request == nothing), "{events:?}");
    assert_eq!(side.output().len(), 64, "READY waits for the verdict");
    side
}

/// Rules: MQ-129, MQ-130, MQ-116, MQ-122, MQ-029, MQ-120.
#[test]
fn null_is_done_when_ready_was_sent_and_received() {
    let own = SessionConfig {
        identity: Bytes::from_static(b"me"),
        metadata: vec![("X-key".into(), Bytes::from_static(b"value"))],
        ..config(Dealer)
    };
    let mut side = Side::new(own);
    assert!(side.feed(&greeting("NULL")).is_empty());
    let properties = [socket_type(Dealer), property("Identity", b"me"), property("X-key", b"value")].concat();
    assert_eq!(side.output()[64..], command("READY", &properties));
    assert!(!side.session.stateless());
    assert!(side.encode("early").is_empty(), "no data before the handshake is complete");
    let theirs = [
        socket_type(Router),
        property("Identity", b"you"),
        property("X-a", b"b"),
        property("Resource", b"x/y"),
    ]
    .concat();
    let events = side.feed(&command("READY", &theirs));
    let [Event::Up(peer)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(peer.socket_type, Some(Router));
    assert_eq!(peer.routing_id, "you");
    assert_eq!(peer.mechanism, "NULL");
    assert_eq!(peer.user_id, "");
    assert_eq!(peer.metadata.get("X-a").unwrap(), "b");
    assert_eq!(peer.metadata.get("Resource").unwrap(), "x/y");
    assert_eq!(side.session.state(), State::Active);
    assert!(side.session.stateless());
    assert_eq!(side.encode("now"), frame(0, b"now"));
}

/// Rules: MQ-116.
#[test]
fn identity_is_announced_by_three_types() {
    for kind in SocketType::ALL {
        let mut side = Side::new(config(kind));
        side.feed(&greeting("NULL"));
        let mut properties = socket_type(kind);
        if matches!(kind, Req | Dealer | Router) {
            properties.extend(property("Identity", b""));
        }
        assert_eq!(side.output()[64..], command("READY", &properties), "{kind:?}");
    }
}

/// Rules: MQ-123, MQ-399.
#[test]
fn socket_types_meet_as_the_table_says() {
    use SocketType::{Pair, Pub, Sub, XPub, XSub};
    let table: [(SocketType, &[SocketType]); 11] = [
        (Req, &[Rep, Router]),
        (Rep, &[Req, Dealer]),
        (Dealer, &[Rep, Dealer, Router]),
        (Router, &[Req, Dealer, Router]),
        (Pub, &[Sub, XSub]),
        (XPub, &[Sub, XSub]),
        (Sub, &[Pub, XPub]),
        (XSub, &[Pub, XPub]),
        (Push, &[Pull]),
        (Pull, &[Push]),
        (Pair, &[Pair]),
    ];
    for (ours, accepted) in table {
        for theirs in SocketType::ALL {
            let mut side = Side::new(config(ours));
            side.feed(&greeting("NULL"));
            side.output();
            let events = side.feed(&ready(theirs));
            if accepted.contains(&theirs) {
                assert!(matches!(&events[..], [Event::Up(_)]), "{ours:?} {theirs:?}");
            } else {
                assert_eq!(closed(events, &side), CloseReason::InvalidSocketType, "{ours:?} {theirs:?}");
                assert_eq!(side.output(), error(b"Invalid socket type"));
            }
        }
        for unknown in [b"pull".as_slice(), b"", b"STREAM", b"PULL\0"] {
            let mut side = Side::new(config(ours));
            let octets = [greeting("NULL"), command("READY", &property("Socket-Type", unknown))].concat();
            assert_eq!(side.closes(&octets), CloseReason::InvalidSocketType);
            assert!(side.output().ends_with(&error(b"Invalid socket type")));
        }
    }
}

/// Rules: MQ-398, MQ-119.
#[test]
fn a_peer_without_socket_type_is_told_so() {
    let octets = [greeting("NULL"), command("READY", &property("Identity", b"x"))].concat();
    let mut strict = Side::new(config(Router));
    assert_eq!(strict.closes(&octets), CloseReason::InvalidMetadata(MetadataError::NoSocketType));
    assert!(strict.output().ends_with(&error(b"Invalid socket type")));

    let mut lax = Side::new(SessionConfig { allow_missing_socket_type: true, ..config(Router) });
    let events = lax.feed(&octets);
    assert!(matches!(&events[..], [Event::Up(peer)] if peer.socket_type.is_none() && peer.routing_id == "x"));
}

/// Rules: MQ-117, MQ-118, MQ-125, MQ-126, MQ-400, MQ-402, MQ-403, MQ-404, MQ-405, MQ-406, MQ-407.
#[test]
fn metadata_that_is_not_right_closes() {
    let with = |extra: &[u8]| [socket_type(Dealer).as_slice(), extra].concat();
    let many: Vec<u8> = (0..64).flat_map(|n| property(&format!("x{n}"), b"")).collect();
    let cases: [(Vec<u8>, MetadataError); 10] = [
        (with(&socket_type(Dealer)), MetadataError::Repeated),
        (with(&property("SOCKET-TYPE", b"REQ")), MetadataError::Repeated),
        (with(b"\0\0\0\0\0"), MetadataError::Name),
        (with(b"\x01n\xff\xff\xff\xff"), MetadataError::Truncated),
        (with(b"\x01n\x80\0\0\0"), MetadataError::Truncated),
        (with(b"\x01"), MetadataError::Truncated),
        (with(&many), MetadataError::TooMany),
        (with(&property("n", &[0; 32 * 1024])), MetadataError::TooMany),
        (with(&property("Identity", &[1; 256])), MetadataError::Identity),
        (with(&property("Identity", &[0, 1, 2, 3, 4])), MetadataError::Identity),
    ];
    for (properties, error) in cases {
        let mut side = Side::new(config(Router));
        let reason = side.closes(&[greeting("NULL"), command("READY", &properties)].concat());
        assert_eq!(reason, CloseReason::InvalidMetadata(error));
    }
}

/// Rules: MQ-401, MQ-115, MQ-121.
#[test]
fn property_names_are_recognised_in_any_case() {
    let properties = [property("socket-type", b"DEALER"), property("IDENTITY", &[0; 16])].concat();
    let mut side = Side::new(config(Router));
    let events = side.feed(&[greeting("NULL"), command("READY", &properties)].concat());
    assert!(
        matches!(&events[..], [Event::Up(peer)] if peer.socket_type == Some(Dealer) && peer.routing_id == [0; 16].as_slice())
    );
}

/// Rules: MQ-131, MQ-129.
#[test]
fn null_with_an_authenticator_waits_for_the_verdict() {
    for peer_first in [true, false] {
        let mut side = null_asked();
        assert!(side.session.is_undecided());
        if peer_first {
            assert!(side.feed(&ready(Push)).is_empty());
        }
        side.session.verdict(Verdict::accept(), side.now);
        assert_eq!(side.output(), ready(Pull));
        let events = if peer_first { side.events() } else { side.feed(&ready(Push)) };
        assert!(matches!(&events[..], [Event::Up(_)]), "{events:?}");
    }
}

/// Rules: MQ-160.
#[test]
fn what_the_authenticator_adds_is_known_of_the_peer() {
    let mut side = null_asked();
    let added = [property("Socket-Type", b"REQ"), property("X-role", b"admin")].concat();
    let metadata = Metadata::parse(&added).unwrap();
    side.session.verdict(Verdict::Accept { user_id: Bytes::from_static(b"joe"), metadata }, side.now);
    let events = side.feed(&ready(Push));
    let [Event::Up(peer)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(peer.user_id, "joe");
    assert_eq!(peer.metadata.get("X-role").unwrap(), "admin");
    assert_eq!(peer.metadata.get("Socket-Type").unwrap(), "PUSH");
}

/// Rules: MQ-136, MQ-162, MQ-459, MQ-536.
#[test]
fn refusals_are_told_as_the_rules_say() {
    let invalid = Verdict::Invalid(ZapError::BadVersion);
    let cases = [
        (Verdict::Refuse(AuthCode::Temporary), CloseReason::AuthFailed(AuthCode::Temporary), vec![]),
        (Verdict::Refuse(AuthCode::Denied), CloseReason::AuthFailed(AuthCode::Denied), error(b"400")),
        (Verdict::Refuse(AuthCode::Internal), CloseReason::AuthFailed(AuthCode::Internal), error(b"500")),
        (invalid, CloseReason::Zap(ZapError::BadVersion), vec![]),
        (Verdict::Unanswered, CloseReason::NoAuthenticator, error(b"500")),
    ];
    for (verdict, reason, told) in cases {
        for make in [null_asked, plain_asked] {
            let mut side = make();
            side.session.verdict(verdict.clone(), side.now);
            assert_eq!(closed(side.events(), &side), reason);
            assert_eq!(side.output(), told);
            assert!(side.feed(&ready(Push)).is_empty());
        }
    }
}

/// Rules: MQ-166, MQ-163.
#[test]
fn octets_that_come_before_the_verdict_do_not_matter_yet() {
    for junk in [b"\xff\xff\xff".as_slice(), &error(b"late"), &frame(0, b"data"), &vec![0xff; 70_000]] {
        let mut side = plain_asked();
        for chunk in junk.chunks(20_000) {
            assert!(side.feed(chunk).is_empty());
        }
        assert_eq!(side.session.state(), State::Handshake);
        side.session.verdict(Verdict::accept(), side.now);
        assert_eq!(side.output(), command("WELCOME", b""));
        assert!(matches!(&side.events()[..], [Event::Closed(_)]));
    }
    let mut early = plain_asked();
    assert!(early.feed(&command("INITIATE", &socket_type(Push))).is_empty());
    early.session.verdict(Verdict::accept(), early.now);
    assert!(matches!(&early.events()[..], [Event::Up(_)]), "kept, not lost");
}

/// Rules: MQ-163, MQ-460, MQ-285.
#[test]
fn a_verdict_that_never_comes_ends_at_the_deadline() {
    let mut side = null_asked();
    assert!(side.pass(Duration::from_millis(29_999)).is_empty());
    let events = side.pass(Duration::from_millis(1));
    assert_eq!(closed(events, &side), CloseReason::TimedOut(Deadline::Handshake));
    assert!(side.output().is_empty());
    side.session.verdict(Verdict::accept(), side.now);
    assert!(side.events().is_empty(), "a late verdict changes nothing");
    assert!(side.output().is_empty());
}

/// Rules: MQ-133, MQ-135, MQ-138.
#[test]
fn plain_goes_through_its_four_steps() {
    let mut client = Side::new(plain_client(Push));
    assert!(client.feed(&greeting("PLAIN")).is_empty());
    assert_eq!(client.output()[64..], command("HELLO", HELLO));
    assert!(client.feed(&command("WELCOME", b"")).is_empty());
    assert_eq!(client.output(), command("INITIATE", &socket_type(Push)));
    let events = client.feed(&ready(Pull));
    assert!(matches!(&events[..], [Event::Up(peer)] if peer.mechanism == "PLAIN"));
    assert_eq!(client.encode("m"), frame(0, b"m"));

    let mut server = Side::new(plain_server(Pull));
    let events = server.feed(&[greeting("PLAIN"), command("HELLO", HELLO)].concat());
    let [Event::Authenticate(AuthRequest { credentials: Credentials::Plain(shown), .. })] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(shown.matches(&PlainCredentials::new(b"admin", b"secret").unwrap()));
    assert!(!shown.matches(&PlainCredentials::new(b"admin", b"secret\0").unwrap()));
    assert_eq!(server.output().len(), 64, "no WELCOME before the verdict");
    server.session.verdict(Verdict::accept(), server.now);
    assert_eq!(server.output(), command("WELCOME", b""));
    assert!(matches!(&server.feed(&command("INITIATE", &socket_type(Push)))[..], [Event::Up(_)]));
    assert_eq!(server.output(), ready(Pull));
}

/// Rules: MQ-137.
#[test]
fn credentials_are_not_shown() {
    let credentials = PlainCredentials::new(b"Zaphod", b"Beeblebrox").unwrap();
    let request = AuthRequest { identity: Bytes::new(), credentials: Credentials::Plain(credentials) };
    let shown = format!("{:?} {request:?}", plain_client(Push));
    for secret in ["Zaphod", "Beeblebrox", "admin", "secret"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

/// Rules: MQ-134, MQ-440.
#[test]
fn a_hello_that_is_not_exact_is_refused_unasked() {
    let cases =
        [b"".as_slice(), b"\x05admin", b"\x05admi", b"\x05admin\x06secre", b"\x05admin\x06secret!", b"\0"];
    for data in cases {
        let mut side = Side::new(plain_server(Pull));
        let reason = side.closes(&[greeting("PLAIN"), command("HELLO", data)].concat());
        assert_eq!(reason, CloseReason::MalformedHello, "{data:?}");
    }
    let mut empty = Side::new(plain_server(Pull));
    let events = empty.feed(&[greeting("PLAIN"), command("HELLO", b"\0\0")].concat());
    assert!(matches!(&events[..], [Event::Authenticate(_)]), "both may be empty");
}

/// Rules: MQ-134, MQ-442.
#[test]
fn a_welcome_with_data_is_refused() {
    let mut side = Side::new(plain_client(Push));
    let reason = side.closes(&[greeting("PLAIN"), command("WELCOME", b"!")].concat());
    assert_eq!(reason, CloseReason::MalformedWelcome);
}

/// Rules: MQ-441, MQ-443, MQ-090.
#[test]
fn plain_roles_must_differ() {
    let (mut one, mut two) = (Side::new(plain_client(Push)), Side::new(plain_client(Pull)));
    let (events, _) = converse(&mut one, &mut two);
    assert_eq!(closed(events, &one), CloseReason::UnexpectedCommand);

    let (mut one, mut two) = (Side::new(plain_server(Push)), Side::new(plain_server(Pull)));
    assert_eq!(converse(&mut one, &mut two).0.len(), 0, "both wait");
    let events = one.pass(Duration::from_secs(30));
    assert_eq!(closed(events, &one), CloseReason::TimedOut(Deadline::Handshake));

    let mut server = Side::new(plain_server(Pull));
    let reason = server.closes(&[greeting("PLAIN"), command("INITIATE", &socket_type(Push))].concat());
    assert_eq!(reason, CloseReason::UnexpectedCommand);

    let mut server = plain_asked();
    server.session.verdict(Verdict::accept(), server.now);
    assert_eq!(server.closes(&command("HELLO", HELLO)), CloseReason::UnexpectedCommand);
}

/// Rules: MQ-535, MQ-413.
#[test]
fn the_misspelled_error_of_plain_servers_is_understood_by_plain_clients_only() {
    let misspelled = frame(4, b"\x5eRROR\x03400");
    let mut client = Side::new(plain_client(Push));
    let reason = client.closes(&[greeting("PLAIN"), misspelled.clone()].concat());
    assert_eq!(reason, CloseReason::AuthFailed(AuthCode::Denied));

    let mut welcomed = Side::new(plain_client(Push));
    welcomed.feed(&[greeting("PLAIN"), command("WELCOME", b"")].concat());
    assert_eq!(welcomed.closes(&misspelled), CloseReason::AuthFailed(AuthCode::Denied));

    let mut null = Side::new(config(Push));
    assert_eq!(null.closes(&[greeting("NULL"), misspelled.clone()].concat()), CloseReason::MalformedCommand);
    let mut server = Side::new(plain_server(Pull));
    assert_eq!(
        server.closes(&[greeting("PLAIN"), misspelled.clone()].concat()),
        CloseReason::MalformedCommand
    );
    let mut active = Side::new(plain_client(Push));
    active.feed(&[greeting("PLAIN"), command("WELCOME", b""), ready(Pull)].concat());
    assert_eq!(active.closes(&misspelled), CloseReason::MalformedCommand);
}

/// Rules: MQ-132, MQ-413, MQ-414.
#[test]
fn an_error_of_the_peer_says_why() {
    let cases = [
        (error(b"300"), CloseReason::AuthFailed(AuthCode::Temporary)),
        (error(b"400"), CloseReason::AuthFailed(AuthCode::Denied)),
        (error(b"500"), CloseReason::AuthFailed(AuthCode::Internal)),
        (error(b"401"), CloseReason::PeerError(Bytes::from_static(b"401"))),
        (command("ERROR", b"\x03oopsmore"), CloseReason::PeerError(Bytes::from_static(b"oop"))),
        (command("ERROR", b"\x08400"), CloseReason::AuthFailed(AuthCode::Denied)),
        (command("ERROR", b"\x08oops"), CloseReason::MalformedError),
        (command("ERROR", b""), CloseReason::MalformedError),
    ];
    for (octets, reason) in cases {
        for (config, mechanism) in
            [(config(Push), "NULL"), (plain_client(Push), "PLAIN"), (plain_server(Push), "PLAIN")]
        {
            let mut side = Side::new(config);
            side.feed(&greeting(mechanism));
            side.output();
            assert_eq!(side.closes(&octets), reason);
            assert!(side.output().is_empty(), "an ERROR is not answered");
        }
    }
}

/// Rules: MQ-106, MQ-113, MQ-130, MQ-396, MQ-397, MQ-286.
#[test]
fn the_handshake_takes_commands_of_limited_size_only() {
    let after_greeting = |octets: &[u8]| {
        let mut side = Side::new(SessionConfig {
            limits: tidegate_zmtp::config::Limits { max_msg_size: Some(1), ..Default::default() },
            ..config(Pull)
        });
        side.feed(&greeting("NULL"));
        side.feed(octets)
    };
    let reason = |octets: &[u8]| match &after_greeting(octets)[..] {
        [Event::Closed(reason)] => reason.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&[0, 5]), CloseReason::UnexpectedCommand, "data is refused at its header");
    assert_eq!(reason(&frame(0, &ready(Push)[2..])), CloseReason::UnexpectedCommand);
    let too_large = CloseReason::MessageTooLarge(Limit::HandshakeCommand);
    assert_eq!(reason(&long(4, 64 * 1024 + 1)), too_large);
    assert!(after_greeting(&long(4, 64 * 1024)).is_empty());
    assert!(matches!(&after_greeting(&ready(Push))[..], [Event::Up(_)]), "maxmsgsize is not for READY");
}

/// Rules: MQ-384, MQ-385, MQ-285.
#[test]
fn the_deadline_of_the_handshake_is_total() {
    let whole = [greeting("NULL"), ready(Push)].concat();
    // Slowly, so that the greeting takes too long, and quicker, so that the handshake does.
    let paces = [50, 5].map(Duration::from_millis);
    for (octets, step) in
        [vec![], greeting("NULL"), whole].iter().flat_map(|octets| paces.map(|pace| (octets, pace)))
    {
        let mut side =
            Side::new(SessionConfig { handshake_ivl: Some(Duration::from_secs(1)), ..config(Pull) });
        let mut elapsed = Duration::ZERO;
        let mut events = vec![];
        for octet in octets.iter().take(octets.len().saturating_sub(1)) {
            events.extend(side.feed(&[*octet]));
            events.extend(side.pass(step));
            elapsed += step;
            if !events.is_empty() {
                break;
            }
        }
        if events.is_empty() {
            events = side.pass(Duration::from_secs(1).saturating_sub(elapsed));
            elapsed = elapsed.max(Duration::from_secs(1));
        }
        assert_eq!(closed(events, &side), CloseReason::TimedOut(Deadline::Handshake));
        assert_eq!(elapsed, Duration::from_secs(1), "not later");
    }
    let mut patient = Side::new(SessionConfig { handshake_ivl: None, ..config(Pull) });
    assert_eq!(patient.session.deadline(), None);
    assert!(patient.pass(Duration::from_secs(1_000_000)).is_empty());
}

/// Rules: MQ-387.
#[test]
fn an_end_during_the_handshake_is_a_disconnect() {
    for octets in [b"".as_slice(), b"\x04", b"\x04\x19\x05READ"] {
        let mut side = Side::new(config(Pull));
        side.feed(&greeting("NULL"));
        side.feed(octets);
        side.session.disconnected();
        assert_eq!(closed(side.events(), &side), CloseReason::Disconnected { greeting: false });
    }
}
