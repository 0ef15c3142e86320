//! CURVE between two sessions, and between a session and a peer that breaks the rules.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use crypto_box::{SalsaBox, SecretKey as BoxSecret, aead::Aead};
use tidegate_io::{
    batch::WriteBatch,
    buffer::{Slab, SlabOptions},
    message::Message,
};
use tidegate_zmtp::{
    auth::{AuthCode, Credentials, Verdict},
    close::{CloseReason, Deadline, Limit, ZapError},
    config::{Security, SessionConfig},
    mechanism::curve::{CurveClient, CurveServer, SecretKey},
    metadata::{Metadata, put_property},
    session::{Event, Session, State},
    socket_type::SocketType,
};

const CLIENT_TRANSIENT: [u8; 32] = [0x81; 32];
const SERVER_TRANSIENT: [u8; 32] = [0xC1; 32];

/// A session with its output, at a time that stands still unless the test moves it.
struct End {
    session: Session,
    slab: Slab,
    start: Instant,
    now: Instant,
}

impl End {
    fn new(
        socket_type: SocketType,
        security: Security,
        draws: &[&[u8]],
        change: impl FnOnce(&mut SessionConfig),
    ) -> Self {
        let mut config = SessionConfig::new(socket_type);
        config.security = security;
        change(&mut config);
        if socket_type == SocketType::Dealer {
            config.identity = Bytes::from_static(b"camera");
        }
        let mut draws: VecDeque<_> = draws.iter().map(|draw| draw.to_vec()).collect();
        let mut random =
            move |bytes: &mut [u8]| bytes.copy_from_slice(&draws.pop_front().expect("no more is drawn"));
        let now = Instant::now();
        let session = Session::new(Arc::new(config), &mut random, now);
        Self { session, slab: Slab::new(SlabOptions::default()), start: now, now }
    }

    fn client() -> Self {
        let keys = CurveClient {
            secret: SecretKey::from_bytes([1; 32]),
            server: SecretKey::from_bytes([0x41; 32]).public_key(),
        };
        Self::new(SocketType::Dealer, Security::CurveClient(keys), &[&CLIENT_TRANSIENT, &[0x33; 16]], |_| {})
    }

    fn server() -> Self {
        Self::server_with(|_| {})
    }

    fn server_with(change: impl FnOnce(&mut SessionConfig)) -> Self {
        let keys = CurveServer { secret: SecretKey::from_bytes([0x41; 32]) };
        let draws: [&[u8]; 4] = [&SERVER_TRANSIENT, &[0x55; 32], &[0x22; 16], &[0x11; 16]];
        Self::new(SocketType::Router, Security::CurveServer(keys), &draws, change)
    }

    fn output(&mut self) -> Vec<u8> {
        let mut batch = WriteBatch::new(1 << 20);
        self.session.fill(&mut batch);
        batch.segments().iter().flatten().copied().collect()
    }

    fn encode(&mut self, message: &Message) -> Vec<u8> {
        let mut batch = WriteBatch::new(1 << 20);
        self.session.encode(message, &mut batch);
        batch.segments().iter().flatten().copied().collect()
    }

    fn receive(&mut self, octets: &[u8]) {
        self.session.receive(BytesMut::from(octets), self.now);
    }

    fn event(&mut self) -> Option<Event> {
        self.session.next_event(&mut self.slab)
    }

    /// The only event after `octets`: why the session closed.
    fn closes_on(&mut self, octets: &[u8]) -> CloseReason {
        self.receive(octets);
        let reason = match self.event() {
            Some(Event::Closed(reason)) => reason,
            event => panic!("{event:?}"),
        };
        assert!(self.event().is_none());
        reason
    }
}

/// A client that has sent INITIATE, and a server that is asked about it.
fn undecided() -> (End, End) {
    undecided_with(End::server())
}

fn undecided_with(mut server: End) -> (End, End) {
    let mut client = End::client();
    for _ in 0..3 {
        server.receive(&client.output());
        let asked = server.event();
        client.receive(&server.output());
        assert!(client.event().is_none());
        if let Some(Event::Authenticate(request)) = asked {
            assert_eq!(request.identity, "camera");
            let key = *SecretKey::from_bytes([1; 32]).public_key().as_bytes();
            assert_eq!(request.credentials, Credentials::Curve(key));
            return (client, server);
        }
        assert!(asked.is_none());
    }
    panic!("the server asks nothing");
}

fn established() -> (End, End) {
    established_with(End::server())
}

fn established_with(server: End) -> (End, End) {
    let (mut client, mut server) = undecided_with(server);
    server.session.verdict(Verdict::accept(), server.now);
    assert!(matches!(server.event(), Some(Event::Up(_))));
    client.receive(&server.output());
    assert!(matches!(client.event(), Some(Event::Up(_))));
    (client, server)
}

/// A frame with a MESSAGE of the client, with any outer flags, counter and inner text.
fn forged(outer: u8, counter: u64, text: &[u8]) -> Vec<u8> {
    let key =
        SalsaBox::new(&BoxSecret::from(SERVER_TRANSIENT).public_key(), &BoxSecret::from(CLIENT_TRANSIENT));
    let mut nonce = *b"CurveZMQMESSAGEC--------";
    nonce[16..].copy_from_slice(&counter.to_be_bytes());
    let sealed = key.encrypt(&nonce.into(), text).unwrap();
    let body = [b"\x07MESSAGE".as_slice(), &counter.to_be_bytes(), &sealed].concat();
    [&[outer, body.len() as u8], body.as_slice()].concat()
}

fn messages(end: &mut End) -> Vec<Message> {
    std::iter::from_fn(|| end.event())
        .map(|event| match event {
            Event::Message(message) => message,
            event => panic!("{event:?}"),
        })
        .collect()
}

/// The limit is for what is in the box; the handshake, larger than that, has one of its own.
///
/// Rules: MQ-106.
#[test]
fn the_size_of_a_part_is_limited_without_its_box() {
    let limited = || established_with(End::server_with(|config| config.limits.max_msg_size = Some(100)));
    for size in [100, 101, 200] {
        let (mut client, mut server) = limited();
        server.receive(&client.encode(&Message::from(vec![7; size])));
        match server.event() {
            Some(Event::Message(message)) => assert_eq!((message.byte_len(), size), (100, 100)),
            Some(Event::Closed(reason)) => {
                assert_eq!(reason, CloseReason::MessageTooLarge(Limit::MaxMsgSize));
                assert!(size > 100);
            }
            event => panic!("{event:?}"),
        }
    }
}

/// Messages of every size class, multipart and empty parts among them, in both directions; a CURVE session must do the
/// encoding.
///
/// Rules: MQ-107, MQ-139, MQ-143.
#[test]
fn messages_cross_both_ways() {
    let (mut client, mut server) = established();
    assert!(!client.session.stateless() && !server.session.stateless());
    let sent: Vec<Message> = [0, 1, 31, 32, 222, 223, 255, 256, 8_192, 65_536, 300_000]
        .into_iter()
        .map(|len| [vec![1; len], vec![], vec![2; len]].into_iter().collect())
        .collect();
    let upward: Vec<u8> = sent.iter().flat_map(|message| client.encode(message)).collect();
    server.receive(&upward);
    assert!(messages(&mut server) == sent);
    let downward: Vec<u8> = sent.iter().flat_map(|message| server.encode(message)).collect();
    client.receive(&downward);
    assert!(messages(&mut client) == sent);
}

/// Every length up to three hundred and some beyond, with every pair of flags, comes out as it went in; with any octet
/// changed it does not come out at all.
///
/// libzmq: unittest_curve_encoding.
///
/// Rules: MQ-139, MQ-143, MQ-453.
#[test]
fn what_is_sealed_opens_whole_or_not_at_all() {
    let (mut client, mut server) = established();
    for len in (0..300).chain([8_191, 8_192, 65_535, 65_536, 1 << 20]) {
        let body: Vec<u8> = (0..len).map(|at: u32| (at % 251) as u8).collect();
        for message in [Message::from(&body[..]), [&body[..], b"", &body].into_iter().collect()] {
            let sealed = client.encode(&message);
            assert!(body.len() < 8 || !sealed.windows(8).any(|seen| seen == &body[..8]), "{len}: in clear");
            server.receive(&sealed);
            assert!(messages(&mut server) == [message], "{len}");
        }
    }
    for len in [0, 1, 255, 300] {
        let (mut client, _) = established();
        let sealed = client.encode(&Message::from(&vec![7; len][..]));
        // Behind the frame's head and the command's name: nonce, tag, flags and text.
        let head = if sealed[0] == 0 { 10 } else { 17 };
        for place in head..sealed.len() {
            let (_, mut server) = established();
            let mut changed = sealed.clone();
            changed[place] ^= 0x80;
            assert_eq!(server.closes_on(&changed), CloseReason::Cryptographic, "{len}: octet {place}");
        }
    }
}

/// However the octets of a client are cut in two, the server says and learns the same.
///
/// Rules: MQ-468.
#[test]
fn cuts_make_no_difference() {
    let message: Message = [b"part".as_slice(), b"", &[7; 300]].into_iter().collect();
    // What the client says from the first octet on, and what the server answers.
    let mut client = End::client();
    let mut server = End::server();
    let (mut said, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let octets = client.output();
        server.receive(&octets);
        said.extend(octets);
        while let Some(event) = server.event() {
            if matches!(event, Event::Authenticate(_)) {
                server.session.verdict(Verdict::accept(), server.now);
            }
        }
        let octets = server.output();
        client.receive(&octets);
        expected.extend(octets);
        while client.event().is_some() {}
    }
    said.extend(client.encode(&message));

    for cut in 0..=said.len() {
        let mut server = End::server();
        let (mut output, mut received) = (Vec::new(), Vec::new());
        for piece in [&said[..cut], &said[cut..]] {
            server.receive(piece);
            while let Some(event) = server.event() {
                match event {
                    Event::Authenticate(_) => server.session.verdict(Verdict::accept(), server.now),
                    Event::Message(message) => received.push(message),
                    Event::Up(_) => {}
                    event => panic!("{event:?} after a cut at {cut}"),
                }
            }
            output.extend(server.output());
        }
        assert!(output == expected, "cut at {cut}");
        assert_eq!(received, std::slice::from_ref(&message), "cut at {cut}");
    }
}

/// libzmq: test_security_curve/bogus_client.
///
/// Rules: MQ-136, MQ-151, MQ-413.
#[test]
fn a_refused_client_is_told_and_closes() {
    for code in [AuthCode::Denied, AuthCode::Internal] {
        let (mut client, mut server) = undecided();
        server.session.verdict(Verdict::Refuse(code), server.now);
        assert!(matches!(server.event(), Some(Event::Closed(CloseReason::AuthFailed(told))) if told == code));
        let told = server.output();
        assert_eq!(
            told,
            [b"\x04\x0a\x05ERROR\x03".as_slice(), code.status().to_string().as_bytes()].concat()
        );
        assert_eq!(client.closes_on(&told), CloseReason::AuthFailed(code));
    }
}

/// Rules: MQ-151.
#[test]
fn a_client_that_is_refused_for_now_is_told_nothing() {
    let (_, mut server) = undecided();
    server.session.verdict(Verdict::Refuse(AuthCode::Temporary), server.now);
    let closed = server.event();
    assert!(
        matches!(closed, Some(Event::Closed(CloseReason::AuthFailed(AuthCode::Temporary)))),
        "{closed:?}"
    );
    assert_eq!(server.output(), b"");
}

/// Rules: MQ-159, MQ-459.
#[test]
fn a_reply_of_the_handler_that_is_not_valid_ends_the_connection() {
    for fault in [
        ZapError::MalformedReply,
        ZapError::BadRequestId,
        ZapError::BadVersion,
        ZapError::InvalidStatusCode,
        ZapError::InvalidMetadata,
    ] {
        let (_, mut server) = undecided();
        server.session.verdict(Verdict::Invalid(fault), server.now);
        assert!(matches!(server.event(), Some(Event::Closed(CloseReason::Zap(found))) if found == fault));
    }
}

/// Rules: MQ-160.
#[test]
fn what_the_handler_says_of_a_client_is_known() {
    let (_, mut server) = undecided();
    let mut properties = Vec::new();
    put_property(&mut properties, "X-role", b"writer");
    put_property(&mut properties, "Socket-Type", b"PAIR");
    let metadata = Metadata::parse(&properties).unwrap();
    server.session.verdict(Verdict::Accept { user_id: Bytes::from_static(b"alice"), metadata }, server.now);
    let Some(Event::Up(peer)) = server.event() else { panic!("not up") };
    assert_eq!((peer.user_id.as_ref(), peer.mechanism), (b"alice".as_slice(), "CURVE"));
    assert_eq!(peer.metadata.get("X-role").unwrap(), "writer");
    assert_eq!(peer.metadata.get("Socket-Type").unwrap(), "DEALER");
}

/// What a client sends before it knows the verdict waits.
///
/// Rules: MQ-166.
#[test]
fn octets_before_the_verdict_wait() {
    let (_, mut server) = undecided();
    server.receive(&forged(0, 3, b"\0early"));
    assert!(server.event().is_none());
    server.session.verdict(Verdict::accept(), server.now);
    assert!(matches!(server.event(), Some(Event::Up(_))));
    assert_eq!(messages(&mut server), [Message::from(b"early")]);
}

/// libzmq: test_security_curve/null_client, plain_client.
///
/// Rules: MQ-098, MQ-099, MQ-382.
#[test]
fn another_mechanism_is_refused_without_a_question() {
    for name in ["NULL", "PLAIN", "curve", "CURVE2"] {
        let mut greeting = End::client().output();
        greeting[12..32].fill(0);
        greeting[12..12 + name.len()].copy_from_slice(name.as_bytes());
        assert_eq!(End::server().closes_on(&greeting), CloseReason::MechanismMismatch, "{name}");
    }
}

/// Rules: MQ-090, MQ-443.
#[test]
fn two_of_the_same_role_come_to_an_end() {
    let (mut one, mut other) = (End::client(), End::client());
    assert_eq!(one.output().len(), 64);
    one.receive(&other.output());
    assert!(one.event().is_none());
    other.receive(&[&End::client().output(), one.output().as_slice()].concat());
    assert!(matches!(other.event(), Some(Event::Closed(CloseReason::UnexpectedCommand))));

    let mut server = End::server();
    server.receive(&End::server().output());
    assert!(server.event().is_none());
    server.output();
    assert_eq!(server.output(), b"", "both wait for HELLO");
    server.now = server.session.deadline().expect("a deadline");
    assert_eq!(server.now, server.start + Duration::from_secs(30));
    server.session.expired(server.now);
    assert!(matches!(server.event(), Some(Event::Closed(CloseReason::TimedOut(Deadline::Handshake)))));
}

/// Rules: MQ-113, MQ-142.
#[test]
fn a_handshake_command_without_the_command_bit_is_unexpected() {
    let mut server = End::server();
    let mut client = End::client();
    let greeting = client.output();
    server.receive(&greeting);
    client.receive(&server.output());
    assert!(client.event().is_none() && server.event().is_none());
    let mut hello = client.output();
    assert_eq!(hello[..2], [4, 200]);
    hello[0] = 0;
    assert_eq!(server.closes_on(&hello), CloseReason::UnexpectedCommand);
}

/// Rules: MQ-455.
#[test]
fn plain_frames_are_refused() {
    for plain in
        [b"\x00\x02hi".as_slice(), b"\x04\x07\x04PING\x00\x00", b"\x01\x00", b"\x04\x0b\x09SUBSCRIBEA"]
    {
        let (_, mut server) = established();
        assert_eq!(server.closes_on(plain), CloseReason::UnexpectedCommand, "{plain:?}");
        assert_eq!(server.output(), b"");
    }
}

/// Only what is inside counts.
///
/// Rules: MQ-143, MQ-457.
#[test]
fn outer_flags_are_ignored() {
    let (_, mut server) = established();
    for (counter, outer) in (3..).zip([0x00, 0x01, 0x04]) {
        server.receive(&forged(outer, counter, b"\0whole"));
        assert_eq!(messages(&mut server), [Message::from(b"whole")], "outer flags {outer}");
    }
    server.receive(&[forged(0, 6, b"\x01one"), forged(0x04, 7, b"\0two")].concat());
    assert_eq!(messages(&mut server), [[b"one", b"two"].into_iter().collect::<Message>()]);
}

/// Rules: MQ-144, MQ-458.
#[test]
fn inner_commands_follow_the_rules_of_plain_ones() {
    let (mut client, mut server) = established();
    server.receive(&[forged(0, 3, b"\x02\x03ABCdata"), forged(0, 4, b"\x02\x04PING\0\0ctx")].concat());
    assert!(server.event().is_none());
    let pong = server.output();
    assert_eq!(pong.len(), 2 + 33 + 8);
    client.receive(&pong);
    assert!(client.event().is_none());

    for (text, reason) in [
        (b"\x02".as_slice(), CloseReason::MalformedCommand),
        (b"\x02\x00", CloseReason::MalformedCommand),
        (b"\x02\x05PING", CloseReason::MalformedCommand),
        (b"\x02\x04PING\0", CloseReason::MalformedCommand),
        (b"\x02\x05READY", CloseReason::UnexpectedCommand),
        (b"\x02\x09SUBSCRIBEA", CloseReason::UnexpectedCommand),
        (b"\x02\x04JOINg", CloseReason::UnexpectedCommand),
        (b"\x02\x05ERROR\x04oops", CloseReason::PeerError(Bytes::from_static(b"oops"))),
    ] {
        let (_, mut server) = established();
        assert_eq!(server.closes_on(&forged(0, 3, text)), reason, "{text:?}");
    }
}

/// Rules: MQ-154, MQ-451, MQ-453, MQ-454, MQ-456.
#[test]
fn a_bad_message_closes_without_a_word() {
    let short = [b"\x00\x18\x07MESSAGE".as_slice(), &[0; 16]].concat();
    let mut flipped = forged(0, 3, b"\0payload");
    flipped[40] ^= 1;
    for (bad, reason) in [
        (forged(0, 2, b"\0again"), CloseReason::InvalidSequence),
        (flipped, CloseReason::Cryptographic),
        (short, CloseReason::MalformedMessage),
        (forged(0, 3, b"\x04reserved"), CloseReason::MalformedMessage),
    ] {
        let (_, mut server) = established();
        assert_eq!(server.closes_on(&bad), reason);
        assert_eq!((server.output(), server.session.state()), (vec![], State::Closed));
    }
}
