//! What the fuzz targets of messaging do with an input. A test of tidegate-mq does the same with the inputs that are kept
//! in `fuzz/seeds`.

#![allow(dead_code, reason = "each target uses one of them")]

mod session;

use std::collections::BTreeSet;

use tidegate_io::batch::WriteBatch;
use tidegate_io::index::TopicIndex;
use tidegate_io::message::{Message, Part};
use tidegate_io::peer::PeerKey;
use tidegate_mq::{BindEndpoint, ConnectEndpoint};
use tidegate_zmtp::SocketType;
use tidegate_zmtp::auth::{PlainCredentials, Verdict};
use tidegate_zmtp::config::Security;
use tidegate_zmtp::mechanism::curve::{CurveClient, CurveServer, PublicKey, SecretKey};
use tidegate_zmtp::metadata::{Metadata, put_property};
use tidegate_zmtp::session::State;
use tidegate_zmtp::{z85, zap};

use self::session::{Side, TYPES, command, compare_splits, established};

const NULL: Security = Security::Null { authenticate: false };

/// A connection from its first octet: greeting, handshake and all that follows, without security.
pub fn greeting(input: &[u8]) {
    let Some((&choice, octets)) = input.split_first() else { return };
    let kind = TYPES[usize::from(choice) % TYPES.len()];
    compare_splits(choice, octets, || Side::new(kind, Security::Null { authenticate: choice & 1 == 1 }));
}

/// Frames of an established connection: messages, PING and PONG, subscriptions, cancellations, unknown commands.
pub fn frames(input: &[u8]) {
    let Some((&choice, octets)) = input.split_first() else { return };
    let kind = TYPES[usize::from(choice) % TYPES.len()];
    let Some(&partner) = TYPES.iter().find(|other| kind.accepts(**other)) else { return };
    compare_splits(choice, octets, || established((kind, partner), (NULL, NULL)).0);
}

/// Subscriptions to a publisher, as commands and as messages, and the topic index that follows them.
pub fn subscriptions(input: &[u8]) {
    let Some((&choice, octets)) = input.split_first() else { return };
    compare_splits(choice, octets, || established((SocketType::XPub, SocketType::Sub), (NULL, NULL)).0);

    // The same octets as changes of the index: length, topic, and whether it is wanted.
    let mut index = TopicIndex::new();
    let mut model = BTreeSet::new();
    let mut rest = octets;
    while let Some((&head, tail)) = rest.split_first() {
        let (topic, tail) = tail.split_at(tail.len().min(usize::from(head >> 3) % 9));
        rest = tail;
        let peer = PeerKey::new(u32::from(head >> 1 & 3));
        if head & 1 == 1 {
            index.subscribe(topic, peer);
            model.insert((topic.to_vec(), peer));
        } else {
            index.cancel(topic, peer);
            model.remove(&(topic.to_vec(), peer));
        }
        let mut found = Vec::new();
        index.matches(octets, &mut found);
        let found: BTreeSet<_> = found.into_iter().collect();
        let wanted: BTreeSet<_> =
            model.iter().filter(|(topic, _)| octets.starts_with(topic)).map(|(_, peer)| *peer).collect();
        assert_eq!(found, wanted);
    }
}

/// Properties of a handshake.
pub fn metadata(input: &[u8]) {
    let Some((&choice, octets)) = input.split_first() else { return };
    if let Ok(metadata) = Metadata::parse(octets) {
        let mut again = Vec::new();
        metadata.iter().for_each(|(name, value)| put_property(&mut again, name, value));
        let again = Metadata::parse(&again).expect("own encoding");
        assert!(metadata.iter().eq(again.iter()));
    }
    let kind = TYPES[usize::from(choice) % TYPES.len()];
    let ready = [session::greeting("NULL"), command("READY", octets)].concat();
    compare_splits(choice, &ready, || Side::new(kind, Security::Null { authenticate: false }));
}

/// The PLAIN handshake, in both roles.
pub fn plain(input: &[u8]) {
    let Some((&choice, octets)) = input.split_first() else { return };
    let octets = [session::greeting("PLAIN"), octets.to_vec()].concat();
    compare_splits(choice, &octets, || {
        let client = PlainCredentials::new(b"name", b"password").map(Security::PlainClient);
        let role = if choice & 1 == 0 { Some(Security::PlainServer) } else { client };
        Side::new(SocketType::Dealer, role.expect("short credentials"))
    });
}

/// The CURVE handshake, in both roles: octets out of nowhere, and a true handshake with some octets changed.
pub fn curve_handshake(input: &[u8]) {
    let Some((&choice, octets)) = input.split_first() else { return };
    let whole = [session::greeting("CURVE"), octets.to_vec()].concat();
    compare_splits(choice, &whole, || if choice & 1 == 0 { curve_server() } else { curve_client() });

    // Three octets are a change: which step, where, and by what.
    let (mut one, mut two) = (curve_server(), curve_client());
    let mut changed = false;
    for step in 0..8 {
        let mut from = if step % 2 == 0 { two.output() } else { one.output() };
        for change in octets.chunks_exact(3).filter(|change| change[0] % 8 == step) {
            let len = from.len();
            // What the greeting pads with may be anything.
            if let Some(octet) = from.get_mut(64 + usize::from(change[1])).filter(|_| len > 64) {
                *octet ^= change[2];
                changed |= change[2] != 0;
            }
        }
        if step % 2 == 0 { one.receive(&from) } else { two.receive(&from) }
    }
    let up = one.session.state() == State::Active && two.session.state() == State::Active;
    assert!(up || changed, "a true handshake was refused: {:?} {:?}", one.history, two.history);
}

/// CURVE messages: what was altered, repeated, left out or cut is never delivered.
pub fn curve_stream(input: &[u8]) {
    let secret = SecretKey::from_bytes([1; 32]);
    let client = CurveClient { server: secret.public_key(), secret: SecretKey::from_bytes([2; 32]) };
    let (mut pull, mut push) = established(
        (SocketType::Pull, SocketType::Push),
        (Security::CurveServer(CurveServer { secret }), Security::CurveClient(client)),
    );
    let mut batch = WriteBatch::new(64 * 1024);
    let mut frames = Vec::new();
    for number in 0..8_u8 {
        push.session.encode(&Message::from([number; 20].as_slice()), &mut batch);
        let frame: Vec<u8> = batch.segments().iter().flatten().copied().collect();
        batch.advance(frame.len());
        frames.push(frame);
    }
    pull.history.clear();
    // Each pair of octets sends one of the frames, whole or with an octet changed, or is sent itself.
    let mut genuine = Vec::new();
    for change in input.chunks_exact(2) {
        let (which, how) = (usize::from(change[0] % 9), change[1]);
        match frames.get(which) {
            Some(frame) if how < 128 => {
                genuine.push(which);
                pull.receive(frame);
            }
            Some(frame) => {
                let mut frame = frame.clone();
                let place = usize::from(how & 127) % frame.len();
                frame[place] ^= 0x55;
                pull.receive(&frame);
            }
            None => pull.receive(change),
        }
    }
    let delivered: Vec<_> = pull.history.iter().filter(|event| event.starts_with("[[")).collect();
    let texts: Vec<_> = (0..8_u8).map(|number| format!("{:?}", [vec![number; 20]])).collect();
    let numbers: Vec<_> =
        delivered.iter().map(|text| texts.iter().position(|known| known == *text).expect("forged")).collect();
    assert!(numbers.is_sorted_by(|one, two| one < two), "replayed or out of order: {numbers:?}");
    assert!(numbers.iter().all(|number| genuine.contains(number)));
}

/// Replies of an authentication handler.
pub fn zap(input: &[u8]) {
    // Parts are preceded by their length.
    let mut parts = Vec::new();
    let mut rest = input;
    while let Some((&len, tail)) = rest.split_first() {
        let (part, tail) = tail.split_at(tail.len().min(usize::from(len)));
        parts.push(Part::copy_from(part));
        rest = tail;
    }
    let reply: Message = parts.iter().cloned().collect();
    let verdict = zap::verdict(b"1", &reply);
    if matches!(verdict, Verdict::Accept { .. }) {
        let texts: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
        assert_eq!(
            (texts.len(), texts[0], texts[1], texts[2], texts[3]),
            (7, &b""[..], &b"1.0"[..], &b"1"[..], &b"200"[..])
        );
    }
}

/// Endpoints, to bind and to connect.
pub fn endpoint(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Err(error) = text.parse::<BindEndpoint>() {
        assert!(!error.to_string().is_empty());
    }
    if let Ok(ConnectEndpoint::Tcp { target, .. }) = text.parse::<ConnectEndpoint>() {
        assert_ne!(target.port, 0, "nothing can be connected to port 0");
        assert!(text.is_ascii());
    }
}

/// Keys as text.
pub fn z85(input: &[u8]) {
    if let Ok(binary) = z85::decode(input) {
        assert_eq!(binary.len() * 5, input.len() * 4);
        assert_eq!(z85::encode(&binary).expect("a multiple of four").as_bytes(), input);
    }
    if let Ok(text) = z85::encode(input) {
        assert_eq!(z85::decode(text).expect("own encoding"), input);
    }
    if let Ok(key) = PublicKey::parse(input) {
        assert_eq!(PublicKey::parse(key.to_z85().as_bytes()).expect("own encoding"), key);
    }
}

fn curve_server() -> Side {
    let secret = SecretKey::from_bytes([1; 32]);
    Side::new(SocketType::Pull, Security::CurveServer(CurveServer { secret }))
}

fn curve_client() -> Side {
    let (server, secret) = (SecretKey::from_bytes([1; 32]).public_key(), SecretKey::from_bytes([2; 32]));
    Side::new(SocketType::Push, Security::CurveClient(CurveClient { server, secret }))
}
