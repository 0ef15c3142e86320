//! However octets are split, the same comes of them.

use std::{sync::Arc, time::Instant};

use bytes::BytesMut;
use proptest::prelude::*;
use tidegate_io::{batch::WriteBatch, buffer::Slab};
use tidegate_zmtp::{
    auth::Verdict,
    config::{Limits, Security, SessionConfig},
    mechanism::curve::{CurveClient, SecretKey},
    session::{Event, Session},
    socket_type::SocketType::{self, Pull, Push, Sub, XPub},
};

use crate::support::*;

/// Everything that can be seen of a session that is fed `octets` in pieces that end at `cuts`, and that accepts whoever
/// asks.
fn observe(
    config: SessionConfig,
    octets: &[u8],
    cuts: &[usize],
    staging: bool,
) -> (Vec<String>, Vec<u8>, String) {
    let mut side = Side::new(config);
    let mut events = Vec::new();
    let mut written = Vec::new();
    let mut cuts: Vec<usize> =
        cuts.iter().map(|cut| cut % (octets.len() + 1)).chain([octets.len()]).collect();
    cuts.sort_unstable();
    let mut at = 0;
    for cut in cuts {
        while at < cut {
            let buffer = if staging { side.session.staging() } else { None };
            let mut new = match buffer {
                Some(mut buffer) => {
                    let read = (buffer.capacity() - buffer.len()).min(cut - at);
                    buffer.extend_from_slice(&octets[at..at + read]);
                    at += read;
                    side.session.receive_into(buffer, side.now);
                    side.events()
                }
                None => {
                    let new = side.feed(&octets[at..cut]);
                    at = cut;
                    new
                }
            };
            while side.session.is_undecided() {
                side.session.verdict(Verdict::accept(), side.now);
                new.extend(side.events());
            }
            events.extend(history(&new));
            written.extend(side.output());
        }
    }
    (events, written, format!("{:?}", side.session.state()))
}

/// A side, a peer's greeting and handshake for it.
fn opening() -> impl Strategy<Value = (SessionConfig, Vec<u8>)> {
    let limits =
        Limits { max_msg_size: Some(60_000), message_parts: 6, topic_bytes: 300, ..Limits::default() };
    let with = move |config: SessionConfig| SessionConfig { limits, ..config };
    let null = |peer: SocketType| [greeting("NULL"), ready(peer)].concat();
    let initiate = command("INITIATE", &socket_type(Push));
    let server = [greeting("PLAIN"), command("HELLO", b"\x05admin\x06secret"), initiate].concat();
    let client = [greeting("PLAIN"), command("WELCOME", b""), ready(Push)].concat();
    prop_oneof![
        Just((with(config(Pull)), null(Push))),
        Just((with(config(XPub)), null(Sub))),
        Just((with(authenticating(Pull)), null(Push))),
        Just((with(plain_server(Pull)), server)),
        Just((with(plain_client(Pull)), client)),
    ]
}

fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (200_usize..700).prop_map(|len| vec![9; len]),
        (20_000_usize..61_000).prop_map(|len| vec![3; len]),
    ];
    prop_oneof![
        10 => (0..=1_u8, body.clone()).prop_map(|(flags, body)| frame(flags, &body)),
        2 => body.prop_map(|body| [long(0, body.len() as u64), body].concat()),
        2 => Just(command("PING", b"\0\x05context")),
        1 => Just(command("PONG", b"")),
        1 => prop::collection::vec(any::<u8>(), 0..400).prop_map(|topic| command("SUBSCRIBE", &topic)),
        1 => Just(command("X", b"unknown")),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Rules: MQ-028, MQ-030, MQ-468.
    #[test]
    fn every_split_gives_the_same(
        (config, opening) in opening(),
        traffic in prop::collection::vec(traffic(), 0..12),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
        staging: bool,
    ) {
        let octets = [opening, traffic.concat()].concat();
        let whole = observe(config.clone(), &octets, &[], false);
        prop_assert_eq!(observe(config, &octets, &cuts, staging), whole);
    }

    /// Rules: MQ-468.
    #[test]
    fn what_is_encoded_is_decoded(
        parts in prop::collection::vec(
            prop_oneof![0_usize..300, 250_usize..260, 16_000_usize..17_000, 60_000_usize..70_000], 1..6),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let message: tidegate_io::message::Message =
            parts.iter().enumerate().map(|(index, &len)| vec![index as u8; len]).collect();
        let mut sender = Side::up(config(Push), Pull);
        let octets = [greeting("NULL"), ready(Push), sender.encode(message.clone())].concat();
        let (events, _, _) = observe(config(Pull), &octets, &cuts, true);
        prop_assert_eq!(&events[1..], &history(&[Event::Message(message)])[..]);
    }

    /// Any octets whatever are survived.
    ///
    /// Rules: MQ-375.
    #[test]
    fn noise_never_panics(
        (config, opening) in opening(),
        keep in 0_usize..400,
        noise in prop::collection::vec(any::<u8>(), 0..600),
        cuts in prop::collection::vec(any::<usize>(), 0..4),
    ) {
        let kept = &opening[..keep.min(opening.len())];
        observe(config, &[kept, &noise].concat(), &cuts, true);
    }
}

/// Rules: MQ-028, MQ-087.
#[test]
fn one_octet_at_a_time_is_enough() {
    let octets = [
        greeting("NULL"),
        ready(Push),
        frame(1, &[1; 300]),
        command("PING", b"\0\0x"),
        frame(0, b"end"),
        frame(0, &[2; 70_000]),
    ]
    .concat();
    let cuts: Vec<usize> = (0..octets.len()).collect();
    let whole = observe(config(Pull), &octets, &[], false);
    assert_eq!(whole.0.len(), 3);
    assert_eq!(observe(config(Pull), &octets, &cuts, false), whole);
}

/// Rules: MQ-031.
#[test]
fn sessions_with_the_same_randomness_write_the_same() {
    let hello = |seed: u8| {
        let keys = |octet| SecretKey::from_bytes([octet; 32]);
        let security = Security::CurveClient(CurveClient { secret: keys(1), server: keys(2).public_key() });
        let config = Arc::new(SessionConfig { security, ..config(Push) });
        let now = Instant::now();
        let mut session = Session::new(config, &mut |bytes: &mut [u8]| bytes.fill(seed), now);
        session.receive(BytesMut::from(&greeting("CURVE")[..]), now);
        assert!(session.next_event(&mut Slab::default()).is_none());
        let mut batch = WriteBatch::new(1000);
        session.fill(&mut batch);
        batch.segments().iter().flatten().copied().collect::<Vec<_>>()
    };
    assert_eq!(hello(7).len(), 64 + 202);
    assert_eq!(hello(7), hello(7));
    assert_ne!(hello(7), hello(8));
}
