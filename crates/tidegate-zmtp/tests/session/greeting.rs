//! Greetings and versions (chapter 2).

use crate::support::*;
use tidegate_zmtp::{
    close::CloseReason,
    config::SessionConfig,
    greeting::Version,
    session::{Event, State},
    socket_type::SocketType::{Dealer, Pub, Pull, Push, Router, Sub, XPub},
};

/// Rules: MQ-086, MQ-089, MQ-093.
#[test]
fn our_greeting_is_complete_at_once() {
    let expected = |name: &str, server: u8| {
        let mut octets = greeting(name);
        octets[8] = 0;
        octets[32] = server;
        octets
    };
    assert_eq!(Side::new(config(Pull)).output(), expected("NULL", 0));
    assert_eq!(Side::new(plain_server(Pull)).output(), expected("PLAIN", 1));
    assert_eq!(Side::new(plain_client(Pull)).output(), expected("PLAIN", 0));
}

/// Rules: MQ-087, MQ-088.
#[test]
fn a_greeting_may_come_in_stages_with_any_padding() {
    let mut side = Side::new(config(Pull));
    let mut octets = greeting("NULL");
    octets[1..9].fill(0xa5);
    octets[33..].fill(0x5a);
    for stage in [&octets[..10], &octets[10..11], &octets[11..63]] {
        assert!(side.feed(stage).is_empty());
        assert_eq!(side.session.state(), State::Greeting);
    }
    assert!(side.feed(&octets[63..]).is_empty());
    assert_eq!(side.session.state(), State::Handshake);
}

/// Rules: MQ-091, MQ-092, MQ-380.
#[test]
fn the_lower_version_counts() {
    for (major, minor, version) in [
        (3, 0, Version::V3_0),
        (3, 1, Version::V3_1),
        (3, 9, Version::V3_1),
        (4, 0, Version::V3_1),
        (255, 9, Version::V3_1),
    ] {
        let mut side = Side::new(config(Pull));
        let events = side.feed(&[greeting_of("NULL", major, minor), ready(Push)].concat());
        assert!(
            matches!(&events[..], [Event::Up(peer)] if peer.version == version),
            "{major}.{minor}: {events:?}"
        );
    }
}

/// Rules: MQ-095, MQ-096, MQ-376, MQ-377, MQ-378, MQ-379.
#[test]
fn what_is_not_zmtp_3_is_refused_at_the_octet_that_tells() {
    let with = |offset: usize, octet: u8| {
        let mut octets = greeting("NULL");
        octets[offset] = octet;
        octets.truncate(offset + 1);
        octets
    };
    let cases = [
        (with(0, b'G'), CloseReason::UnsupportedVersion),
        (with(0, 0x16), CloseReason::UnsupportedVersion),
        (with(0, 1), CloseReason::UnsupportedVersion),
        (with(9, 0), CloseReason::UnsupportedVersion),
        (with(9, 0x7e), CloseReason::UnsupportedVersion),
        (with(9, 0x7d), CloseReason::MalformedGreeting),
        (with(9, 0xff), CloseReason::MalformedGreeting),
        (with(10, 0), CloseReason::UnsupportedVersion),
        (with(10, 1), CloseReason::UnsupportedVersion),
        (with(10, 2), CloseReason::UnsupportedVersion),
    ];
    for config in [config(Pull), plain_server(Pull), authenticating(Pull)] {
        for (octets, reason) in &cases {
            let mut side = Side::new(config.clone());
            let (last, before) = octets.split_last().unwrap();
            assert!(side.feed(before).is_empty());
            assert_eq!(side.closes(&[*last]), *reason, "{octets:x?}");
            assert!(side.feed(&ready(Push)).is_empty(), "nothing of a refused peer is heard");
        }
    }
}

/// Rules: MQ-099, MQ-381, MQ-382, MQ-098.
#[test]
fn another_mechanism_is_refused_after_our_greeting() {
    let garbage = "A".repeat(20);
    let cases: [(SessionConfig, &str); 8] = [
        (config(Pull), "null"),
        (config(Pull), "NULL "),
        (config(Pull), "NUL"),
        (config(Pull), "NULLNULL"),
        (config(Pull), &garbage),
        (config(Pull), "PLAIN"),
        (plain_server(Pull), "NULL"),
        (plain_client(Pull), "CURVE"),
    ];
    for (config, name) in cases {
        let mut side = Side::new(config);
        assert_eq!(side.closes(&greeting(name)), CloseReason::MechanismMismatch, "{name}");
        assert_eq!(side.output().len(), 64, "our greeting is sent all the same");
    }
}

/// Rules: MQ-089, MQ-383.
#[test]
fn the_as_server_octet_is_ignored() {
    for octet in [0, 1, 255] {
        for (config, mechanism) in
            [(config(Pull), "NULL"), (plain_server(Pull), "PLAIN"), (plain_client(Pull), "PLAIN")]
        {
            let mut side = Side::new(config);
            let mut octets = greeting(mechanism);
            octets[32] = octet;
            assert!(side.feed(&octets).is_empty());
            assert_eq!(side.session.state(), State::Handshake);
        }
    }
}

/// Rules: MQ-387, MQ-099.
#[test]
fn an_end_during_the_greeting_hints_at_the_mechanism() {
    let mut side = Side::new(config(Pull));
    side.feed(&greeting("NULL")[..10]);
    side.session.disconnected();
    let events = side.events();
    let reason = closed(events, &side);
    assert_eq!(reason, CloseReason::Disconnected { greeting: true });
    assert!(reason.to_string().contains("mechanism"));
}

/// Rules: MQ-092, MQ-178.
#[test]
fn subscriptions_take_the_form_that_the_peer_understands() {
    let topic = vec![b't'; 255];
    let mut new = Side::up(config(Sub), XPub);
    new.session.subscribe(b"A");
    new.session.cancel(b"A");
    new.session.subscribe(&topic);
    let expected = [command("SUBSCRIBE", b"A"), command("CANCEL", b"A"), command("SUBSCRIBE", &topic)];
    assert_eq!(new.output(), expected.concat());

    let mut old = Side::up_with(config(Sub), XPub, 0);
    old.session.subscribe(b"A");
    old.session.cancel(b"A");
    old.session.subscribe(&topic);
    let long = frame(0, &[b"\x01", topic.as_slice()].concat());
    assert_eq!(long[0], 2, "256 octets need the long form");
    assert_eq!(old.output(), [b"\x00\x02\x01A\x00\x02\x00A".as_slice(), &long].concat());
}

/// Publishers take both forms from peers of either version.
///
/// Rules: MQ-092, MQ-177.
#[test]
fn subscriptions_are_taken_in_either_form_from_both_versions() {
    for kind in [Pub, XPub] {
        for minor in [0, 1] {
            let mut side = Side::up_with(config(kind), Sub, minor);
            let sent =
                [command("SUBSCRIBE", b"A"), frame(0, b"\x01B"), command("CANCEL", b"A"), frame(0, b"\x00B")];
            let events = side.feed(&sent.concat());
            let expected = [(true, b"A"), (true, b"B"), (false, b"A"), (false, b"B")];
            let seen = events.iter().map(|event| match event {
                Event::Subscribe(topic) => (true, topic.to_vec()),
                Event::Cancel(topic) => (false, topic.to_vec()),
                other => panic!("{other:?}"),
            });
            assert!(seen.eq(expected.map(|(subscribe, topic)| (subscribe, topic.to_vec()))), "{events:?}");
        }
    }
}

/// Rules: MQ-086, MQ-129.
#[test]
fn nothing_is_written_twice() {
    let mut side = Side::new(config(Dealer));
    assert_eq!(side.output().len(), 64);
    assert!(side.output().is_empty());
    side.feed(&greeting("NULL"));
    let ours = command("READY", &[socket_type(Dealer), property("Identity", b"")].concat());
    assert_eq!(side.output(), ours, "without waiting for the READY of the peer");
    side.feed(&ready(Router));
    assert!(side.output().is_empty());
}
