//! Budget: in steady state neither receiving nor sending allocates (MQ-025).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{sync::Arc, time::Instant};

use allocation_counter::measure;
use bytes::BytesMut;
use tidegate_io::{
    batch::WriteBatch,
    buffer::Slab,
    message::{Message, Part},
};
use tidegate_zmtp::{
    config::SessionConfig,
    frame,
    session::{Event, Session},
    socket_type::SocketType,
};

/// A PULL session whose handshake is complete.
fn receiver(slab: &mut Slab) -> Session {
    let now = Instant::now();
    let config = Arc::new(SessionConfig::new(SocketType::Pull));
    let mut session = Session::new(config, &mut |bytes: &mut [u8]| bytes.fill(7), now);
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10..12].copy_from_slice(&[3, 1]);
    greeting[12..16].copy_from_slice(b"NULL");
    let ready = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH";
    session.receive(BytesMut::from(&[greeting.as_slice(), ready].concat()[..]), now);
    assert!(matches!(session.next_event(slab), Some(Event::Up(_))));
    session.fill(&mut WriteBatch::new(1000));
    session
}

/// Allocations while a stream of messages with parts of the sizes `parts` is received in reads of at most 64 KiB, each
/// message dropped before the next.
fn receiving(parts: &[usize]) -> u64 {
    let mut slab = Slab::default();
    let mut session = receiver(&mut slab);
    let mut batch = WriteBatch::new(1 << 20);
    let message: Message = parts.iter().map(|&len| vec![7; len]).collect();
    while batch.len() < 300_000 {
        frame::encode(&message, &mut batch, usize::MAX);
    }
    let stream: Vec<u8> = batch.segments().iter().flatten().copied().collect();
    let now = Instant::now();
    let mut messages = 0;
    let mut round = |_| {
        let mut at = 0;
        while at < stream.len() {
            let mut page = slab.take(512);
            let read = (page.capacity() - page.len()).min(stream.len() - at);
            page.extend_from_slice(&stream[at..at + read]);
            at += read;
            let chunk = page.split();
            slab.give_back(page);
            session.receive(chunk, now);
            while let Some(event) = session.next_event(&mut slab) {
                assert!(matches!(event, Event::Message(_)));
                messages += 1;
            }
        }
    };
    (0..3).for_each(&mut round);
    let allocations = measure(|| (0..10).for_each(&mut round)).count_total;
    assert!(messages > 400);
    allocations
}

/// Rules: MQ-025, MQ-022, MQ-024.
#[test]
fn receiving_does_not_allocate() {
    for parts in [&[0][..], &[8], &[32], &[64], &[256], &[257], &[1000], &[9000], &[5, 0, 70, 300]] {
        assert_eq!(receiving(parts), 0, "{parts:?}");
    }
}

/// Rules: MQ-025.
#[test]
fn sending_does_not_allocate() {
    let shared = Part::from(bytes::Bytes::from(vec![7; 100_000]));
    let large: Message = [shared.clone(), shared].into_iter().collect();
    for (message, rounds) in [(Message::from("short"), 1000), (Message::from(vec![1; 200]), 300), (large, 50)]
    {
        let mut batch = WriteBatch::new(64 * 1024);
        let mut round = |_| {
            for _ in 0..rounds {
                frame::encode(&message, &mut batch, 16 * 1024);
            }
            let len = batch.segments().iter().map(|segment| segment.len()).sum();
            batch.advance(len);
            assert!(batch.is_empty());
        };
        (0..3).for_each(&mut round);
        assert_eq!(measure(|| (0..10).for_each(&mut round)).count_total, 0, "{message:?}");
    }
}
