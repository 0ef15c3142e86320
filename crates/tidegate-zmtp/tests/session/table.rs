//! Every pair of a state and an input, those of the tables of §4.8 and those that no table lists.

use tidegate_zmtp::{
    auth::{AuthCode, Verdict},
    close::CloseReason::{
        self, AuthFailed, MalformedCommand, MalformedHello, MalformedWelcome, UnexpectedCommand,
        UnexpectedData,
    },
    session::{Event, State},
    socket_type::SocketType::{Pull, Push, Sub, XPub},
};

use crate::support::*;

/// What comes of an input.
#[derive(Debug, PartialEq)]
enum Outcome {
    Closed(CloseReason),
    /// The state stays or is the next of the handshake; nothing is reported, this is sent.
    Sent(Vec<u8>),
    Up(Vec<u8>),
    Asked,
    Delivered,
    Subscription,
}

/// A name and how a session gets there.
type Place = (&'static str, fn() -> Side);

const PLACES: [Place; 10] = [
    ("NULL WaitReady", || fed(Side::new(config(Pull)), &greeting("NULL"))),
    ("NULL WaitZap", || fed(Side::new(authenticating(Pull)), &greeting("NULL"))),
    ("PLAIN client WaitWelcome", || fed(Side::new(plain_client(Pull)), &greeting("PLAIN"))),
    ("PLAIN client WaitReady", || {
        fed(Side::new(plain_client(Pull)), &[greeting("PLAIN"), command("WELCOME", b"")].concat())
    }),
    ("PLAIN server start", || fed(Side::new(plain_server(Pull)), &greeting("PLAIN"))),
    ("PLAIN server WaitVerdict", || {
        fed(Side::new(plain_server(Pull)), &[greeting("PLAIN"), command("HELLO", b"\0\0")].concat())
    }),
    ("PLAIN server WaitInitiate", || {
        let octets = [greeting("PLAIN"), command("HELLO", b"\0\0")].concat();
        let mut side = fed(Side::new(plain_server(Pull)), &octets);
        side.session.verdict(Verdict::accept(), side.now);
        side.output();
        side
    }),
    ("Active PULL", || Side::up(config(Pull), Push)),
    ("Active PUSH", || Side::up(config(Push), Pull)),
    ("Active XPUB", || Side::up(config(XPub), Sub)),
];

fn fed(mut side: Side, octets: &[u8]) -> Side {
    side.feed(octets);
    side.output();
    side
}

fn inputs() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("data", frame(0, b"data")),
        ("part", frame(1, b"data")),
        ("READY", command("READY", &socket_type(Push))),
        ("HELLO", command("HELLO", b"\0\0")),
        ("HELLO malformed", command("HELLO", b"")),
        ("WELCOME", command("WELCOME", b"")),
        ("WELCOME with data", command("WELCOME", b"!")),
        ("INITIATE", command("INITIATE", &socket_type(Push))),
        ("MESSAGE", command("MESSAGE", &[0; 40])),
        ("ERROR 300", command("ERROR", b"\x03300")),
        ("ERROR 400", command("ERROR", b"\x03400")),
        ("ERROR oops", command("ERROR", b"\x04oops")),
        ("PING", command("PING", b"\0\0")),
        ("PONG", command("PONG", b"")),
        ("SUBSCRIBE", command("SUBSCRIBE", b"t")),
        ("CANCEL", command("CANCEL", b"t")),
        ("JOIN", command("JOIN", b"g")),
        ("LEAVE", command("LEAVE", b"g")),
        ("unknown", command("HICCUP", b"")),
        ("no name", frame(4, b"\0")),
        ("empty", frame(4, b"")),
    ]
}

/// What the tables say; what they do not list is an error of class UnexpectedCommand.
fn expected(place: &str, input: &str) -> Outcome {
    let peer_error = |reason: &'static str| Outcome::Closed(CloseReason::PeerError(reason.into()));
    let nothing = || Outcome::Sent(vec![]);
    let active = place.starts_with("Active");
    match (place, input) {
        // Kept until the verdict.
        ("NULL WaitZap" | "PLAIN server WaitVerdict", _) => nothing(),
        (_, "ERROR 300") if active => peer_error("300"),
        (_, "ERROR 400") if active => peer_error("400"),
        (_, "ERROR 300") => Outcome::Closed(AuthFailed(AuthCode::Temporary)),
        (_, "ERROR 400") => Outcome::Closed(AuthFailed(AuthCode::Denied)),
        (_, "ERROR oops") => peer_error("oops"),
        (_, "no name" | "empty") => Outcome::Closed(MalformedCommand),

        ("NULL WaitReady", "READY") => Outcome::Up(vec![]),
        ("PLAIN client WaitWelcome", "WELCOME") => Outcome::Sent(command("INITIATE", &socket_type(Pull))),
        ("PLAIN client WaitWelcome", "WELCOME with data") => Outcome::Closed(MalformedWelcome),
        ("PLAIN client WaitReady", "READY") => Outcome::Up(vec![]),
        ("PLAIN server start", "HELLO") => Outcome::Asked,
        ("PLAIN server start", "HELLO malformed") => Outcome::Closed(MalformedHello),
        ("PLAIN server WaitInitiate", "INITIATE") => Outcome::Up(ready(Pull)),

        (_, "PING") if active => Outcome::Sent(command("PONG", b"")),
        (_, "PONG" | "unknown") if active => nothing(),
        ("Active PUSH", "data" | "part") => Outcome::Closed(UnexpectedData),
        (_, "data") if active => Outcome::Delivered,
        (_, "part") if active => nothing(),
        ("Active XPUB", "SUBSCRIBE" | "CANCEL") => Outcome::Subscription,
        _ => Outcome::Closed(UnexpectedCommand),
    }
}

/// Rules: MQ-166, MQ-113, MQ-131, MQ-112, MQ-441.
#[test]
fn every_state_answers_every_input_as_the_tables_say() {
    for (place, make) in PLACES {
        for (input, octets) in inputs() {
            let mut side = make();
            let before = side.session.state();
            let events = side.feed(&octets);
            let sent = side.output();
            let outcome = match events.as_slice() {
                [] => Outcome::Sent(sent),
                [Event::Up(_)] => Outcome::Up(sent),
                [Event::Authenticate(_)] => Outcome::Asked,
                [Event::Message(_)] => Outcome::Delivered,
                [Event::Subscribe(_) | Event::Cancel(_)] => Outcome::Subscription,
                [Event::Closed(reason)] => Outcome::Closed(reason.clone()),
                other => panic!("{place}, {input}: {other:?}"),
            };
            assert_eq!(outcome, expected(place, input), "{place}, {input}");
            let after = match outcome {
                Outcome::Closed(_) => State::Closed,
                Outcome::Up(_) => State::Active,
                _ => before,
            };
            assert_eq!(side.session.state(), after, "{place}, {input}");
        }
    }
}

/// Rules: MQ-166.
#[test]
fn every_state_ends_with_the_stream() {
    for (place, make) in PLACES {
        let mut side = make();
        side.session.disconnected();
        let events = side.events();
        assert_eq!(closed(events, &side), CloseReason::Disconnected { greeting: false }, "{place}");
        side.session.disconnected();
        assert!(side.events().is_empty(), "once");
    }
}

/// Rules: MQ-166.
#[test]
fn a_verdict_that_was_not_asked_for_changes_nothing() {
    for (place, make) in PLACES {
        if place.contains("WaitZap") || place.contains("WaitVerdict") {
            continue;
        }
        let mut side = make();
        let state = side.session.state();
        for verdict in [Verdict::accept(), Verdict::Refuse(AuthCode::Denied), Verdict::Unanswered] {
            side.session.verdict(verdict, side.now);
            assert!(side.events().is_empty() && side.output().is_empty(), "{place}");
            assert_eq!(side.session.state(), state);
        }
    }
}

/// Rules: MQ-166.
#[test]
fn a_closed_session_is_deaf() {
    for (input, octets) in inputs() {
        let mut side = Side::up(config(Pull), Push);
        side.closes(&[0xff]);
        assert!(side.feed(&octets).is_empty(), "{input}");
        side.session.subscribe(b"t");
        assert!(side.output().is_empty());
        assert!(side.session.staging().is_none());
    }
}
