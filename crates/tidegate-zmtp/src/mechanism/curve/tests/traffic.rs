//! MESSAGE: what comes out of it, and what is refused.

use super::*;

/// The bodies of all frames in `batch`.
fn bodies(batch: &mut WriteBatch) -> Vec<Vec<u8>> {
    let bytes: Vec<u8> = batch.segments().iter().flatten().copied().collect();
    batch.clear();
    let mut rest = bytes.as_slice();
    let mut bodies = Vec::new();
    while !rest.is_empty() {
        let (start, len) = match rest[0] {
            0x00 => (2, usize::from(rest[1])),
            0x02 => (9, u64::from_be_bytes(rest[1..9].try_into().unwrap()) as usize),
            flags => panic!("frame flags {flags:#x}"),
        };
        bodies.push(rest[start..start + len].to_vec());
        rest = &rest[start + len..];
    }
    bodies
}

fn sealed(end: &mut Boxes, inner: u8, payload: &[u8]) -> Vec<u8> {
    let mut batch = WriteBatch::new(65_536);
    end.seal(inner, payload, &mut batch).unwrap();
    bodies(&mut batch).remove(0)
}

/// Inner flags and payload.
fn opened(end: &mut Boxes, mut body: Vec<u8>) -> Result<(u8, Vec<u8>), CloseReason> {
    let flags = end.open(&mut body)?;
    Ok((flags, body[BOXED_PAYLOAD..].to_vec()))
}

/// A MESSAGE of the client with any counter and any text, flags included.
fn forged(counter: u64, text: &[u8]) -> Vec<u8> {
    let nonce = short_nonce(nonce::CLIENT_MESSAGE, counter);
    let sealed = boxed(&secret(CLIENT_TRANSIENT), &secret(SERVER_TRANSIENT).public_key(), &nonce, text);
    [b"\x07MESSAGE".as_slice(), &counter.to_be_bytes(), &sealed].concat()
}

fn counter(body: &[u8]) -> u64 {
    u64::from_be_bytes(body[8..16].try_into().unwrap())
}

proptest! {
    /// What one end seals the other opens, in both directions, with and without flags.
    ///
    /// Rules: MQ-143.
    #[test]
    fn frames_arrive_as_they_were_sent(
        frames in prop::collection::vec(
            (0..3u8, any::<bool>(), prop_oneof![0..40usize, 200..300usize, 1_000..5_000usize]), 1..20),
    ) {
        let (mut client, mut server) = established();
        for (inner, upward, len) in frames {
            let payload: Vec<u8> = (0..len).map(|index| index as u8).collect();
            let (from, to) = if upward { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let body = sealed(from, inner, &payload);
            prop_assert_eq!(body.len(), payload.len() + 33);
            prop_assert_eq!(opened(to, body), Ok((inner, payload)));
        }
    }

    #[test]
    fn arbitrary_bodies_are_refused(data in prop::collection::vec(any::<u8>(), 0..100)) {
        let (_, mut server) = established();
        let body = [b"\x07MESSAGE".as_slice(), &data].concat();
        prop_assert!(opened(&mut server, data).is_err());
        prop_assert!(opened(&mut server, body).is_err());
    }
}

/// The counters of the two directions are their own and grow by one.
///
/// Rules: MQ-145.
#[test]
fn counters_start_after_the_handshake() {
    let (mut client, mut server) = established();
    let sent: Vec<_> = (0..3).map(|_| counter(&sealed(&mut client, 0, b""))).collect();
    assert_eq!(sent, [3, 4, 5]);
    let sent: Vec<_> = (0..3).map(|_| counter(&sealed(&mut server, INNER_MORE, b"x"))).collect();
    assert_eq!(sent, [2, 3, 4]);
}

/// Rules: MQ-145.
#[test]
fn a_sender_without_a_counter_stops() {
    let (mut client, mut server) = established();
    client.set_sent(u64::MAX - 2);
    let last = sealed(&mut client, 0, b"last");
    assert_eq!(counter(&last), u64::MAX - 1);
    let mut batch = WriteBatch::new(4096);
    for _ in 0..2 {
        assert_eq!(client.seal(0, b"none", &mut batch), Err(CloseReason::InvalidSequence));
        assert!(batch.is_empty());
    }
    assert!(opened(&mut server, last).is_ok());
}

/// Rules: MQ-146, MQ-451.
#[test]
fn a_counter_that_does_not_grow_is_refused() {
    let (mut client, mut server) = established();
    let first = sealed(&mut client, 0, b"one");
    let second = sealed(&mut client, 0, b"two");
    assert!(opened(&mut server, second.clone()).is_ok());
    for old in [second, first, forged(2, b"\0as INITIATE"), forged(0, b"\0")] {
        assert_eq!(opened(&mut server, old), Err(CloseReason::InvalidSequence));
    }
    let (_, mut fresh) = established();
    assert_eq!(opened(&mut fresh, forged(2, b"\0as INITIATE")), Err(CloseReason::InvalidSequence));
}

/// Rules: MQ-146, MQ-452.
#[test]
fn a_counter_may_skip() {
    let (_, mut server) = established();
    for counter in [3, 5, 1 << 40, u64::MAX] {
        assert_eq!(opened(&mut server, forged(counter, b"\0gap")).unwrap().1, b"gap");
    }
}

/// A forged counter does not shut out the true ones.
///
/// Rules: MQ-146, MQ-453.
#[test]
fn only_an_authentic_counter_is_remembered() {
    let (mut client, mut server) = established();
    let honest = sealed(&mut client, 0, b"payload");
    for index in 8..honest.len() {
        let mut altered = honest.clone();
        altered[index] ^= 0x40;
        assert_eq!(opened(&mut server, altered), Err(CloseReason::Cryptographic), "octet {index}");
    }
    assert_eq!(opened(&mut server, honest).unwrap().1, b"payload");
}

/// Rules: MQ-454.
#[test]
fn a_message_that_is_too_short_is_malformed() {
    let (mut client, mut server) = established();
    let honest = sealed(&mut client, 0, b"");
    assert_eq!(honest.len(), 33);
    for len in 8..33 {
        assert_eq!(
            opened(&mut server, honest[..len].to_vec()),
            Err(CloseReason::MalformedMessage),
            "{len} octets"
        );
    }
    assert!(opened(&mut server, honest).is_ok());
}

/// Rules: MQ-455.
#[test]
fn what_is_no_message_is_unexpected() {
    let (_, mut server) = established();
    let long = [b'x'; 64];
    for plain in
        [b"".as_slice(), b"hi", &long, b"\x04PING\0\0", b"\x05ERROR\x03400", b"\x07MESSAG", b"\x07message"]
    {
        assert_eq!(opened(&mut server, plain.to_vec()), Err(CloseReason::UnexpectedCommand), "{plain:?}");
    }
}

/// Rules: MQ-456.
#[test]
fn inner_flags_are_checked() {
    for flags in 0..=255u8 {
        let (_, mut server) = established();
        let opened = opened(&mut server, forged(3, &[flags, b'x']));
        match flags {
            0 | INNER_MORE | INNER_COMMAND => assert_eq!(opened.unwrap(), (flags, b"x".to_vec())),
            _ => assert_eq!(opened, Err(CloseReason::MalformedMessage), "{flags:#x}"),
        }
    }
}

/// What one direction says cannot be sent back as the other's.
#[test]
fn a_message_is_not_good_for_the_other_direction() {
    let (mut client, _) = established();
    let mut body = sealed(&mut client, 0, b"echo");
    body = sealed(&mut client, 0, &body);
    assert_eq!(opened(&mut client, body), Err(CloseReason::Cryptographic));
}

/// Plain text comes out where the box was received, and boxes go in one piece into the batch.
///
/// Rules: MQ-157.
#[test]
fn nothing_is_copied_beside_the_batch() {
    let (mut client, mut server) = established();
    let mut batch = WriteBatch::new(65_536);
    for len in [5, 64, 3_000] {
        client.seal(0, &vec![7; len], &mut batch).unwrap();
    }
    assert_eq!(batch.segments().len(), 1);
    for mut body in bodies(&mut batch) {
        assert_eq!(server.open(&mut body), Ok(0));
        assert!(body[BOXED_PAYLOAD..].iter().all(|&octet| octet == 7));
    }
}
