//! The ring with one thread: order, wrapping, credits, and peers that lie.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use super::{
    Own, PublishError, Publisher, Reader, Taken, Violation,
    plain::{Memory, frame, ring},
};
use crate::wire::{
    frame::{Frame, HEADER_LEN},
    segment::{Geometry, Word},
};
use tidegate_shm::sync::Ordering;

struct Pair {
    down: Memory,
    up: Memory,
    publisher: Publisher<Memory, Memory>,
    reader: Reader<Memory, Memory>,
}

/// A ring of 2 KiB with frames of up to 1 KiB.
fn pair(max_in_flight: u32) -> Pair {
    pair_with(ring(2048, 1024, max_in_flight))
}

fn pair_of(capacity: u64, max_frame: u32) -> Pair {
    pair_with(ring(capacity, max_frame, 1000))
}

fn pair_with(geometry: Geometry) -> Pair {
    let (down, up) = (Memory::new(geometry.capacity), Memory::new(geometry.capacity));
    let publisher = Publisher::new(down.clone(), up.clone(), geometry);
    let mut reader = Reader::new(up.clone(), down.clone(), geometry);
    reader.open();
    Pair { down, up, publisher, reader }
}

impl Pair {
    fn send(&mut self, batch: u64, len: usize) -> Result<(), PublishError> {
        self.publisher.publish(&frame(batch), &vec![batch as u8; len], || true)
    }

    fn receive(&mut self) -> Option<(u64, Vec<u8>)> {
        let taken: Taken = self.reader.take().unwrap()?;
        let mut payload = Vec::new();
        self.reader.copy_payload(&taken, &mut payload).unwrap();
        let batch = taken.frame.batch.0;
        let _ = self.reader.release(taken);
        Some((batch, payload))
    }

    fn violation(&mut self) -> Violation {
        self.reader.take().unwrap_err()
    }

    fn accused(&mut self) -> Violation {
        match self.send(9, 8) {
            Err(PublishError::Violation(violation)) => violation,
            other => panic!("{other:?}"),
        }
    }
}

/// Cases: CT-07, CT-08.
/// Rules: VX-210, VX-211, VX-220, VX-306.
#[test]
fn every_size_at_every_place_of_the_ring_arrives() {
    let mut pair = pair(4);
    let mut batch = 0;
    for blocks in 0..8 {
        for step in 0..16 {
            let len = blocks * 128 - usize::min(step, blocks * 128);
            batch += 1;
            pair.send(batch, len).unwrap();
            assert_eq!(pair.receive(), Some((batch, vec![batch as u8; len])));
        }
    }
    // Each place of the ring with the longest frame.
    for _ in 0..40 {
        for len in [0, 1024 - HEADER_LEN as usize] {
            batch += 1;
            pair.send(batch, len).unwrap();
            assert_eq!(pair.receive(), Some((batch, vec![batch as u8; len])));
        }
    }
    assert_eq!(pair.receive(), None);
}

/// Cases: CT-09.
/// Rules: VX-301, VX-302.
#[test]
fn nothing_is_written_without_credit() {
    let mut pair = pair(2);
    pair.send(1, 0).unwrap();
    pair.send(2, 0).unwrap();
    assert_eq!(pair.send(3, 0), Err(PublishError::NoCredit), "batches");
    assert_eq!(pair.down.get(Word::Head), 256);
    pair.receive().unwrap();
    pair.send(3, 0).unwrap();

    let mut pair = self::pair(100);
    for batch in 1..=2 {
        pair.send(batch, 896).unwrap();
    }
    assert_eq!(pair.send(3, 0), Err(PublishError::NoCredit), "bytes");
    pair.receive().unwrap();
    pair.send(3, 0).unwrap();
}

/// A writer that never stops: what comes after the end of reading is what was granted before it.
/// Rules: VX-011, VX-432.
#[test]
fn a_reader_that_ends_grants_nothing_more() {
    let mut pair = pair(4);
    pair.send(1, 0).unwrap();
    pair.receive().unwrap();
    pair.reader.end();
    let mut sent = 0;
    while pair.send(2 + sent, 0).is_ok() {
        sent += 1;
        assert_eq!(pair.receive(), Some((1 + sent, Vec::new())));
        assert!(sent <= 4, "it goes on for ever");
    }
    assert_eq!((sent, pair.receive()), (4, None));
}

/// What is left of the ring at its end is written too, and costs as much.
/// Rules: VX-301, VX-306.
#[test]
fn filler_costs_credit() {
    let mut pair = pair(100);
    for batch in 1..=2 {
        pair.send(batch, 896 - 128).unwrap();
    }
    pair.receive().unwrap();
    // 256 bytes are left at the end, 896 were given back at the beginning: of 1024, 1280 would be used.
    assert_eq!(pair.send(3, 896), Err(PublishError::NoCredit));
    assert_eq!(pair.down.get(Word::Head), 2 * 896);
    pair.receive().unwrap();
    pair.send(3, 896).unwrap();
    assert_eq!(pair.down.get(Word::Head), 2048 + 1024);
    assert_eq!(pair.receive(), Some((3, vec![3; 896])));
}

/// A place of the ring that was used says so no more while it is written again: a writer that dies there leaves no frame.
/// Rules: VX-210, VX-212.
#[test]
fn a_place_that_is_written_again_is_not_published() {
    use super::Peer;
    let mut pair = pair(4);
    for batch in 1..=2 {
        pair.send(batch, 896).unwrap();
        pair.receive().unwrap();
    }
    let flags = |pair: &Pair| pair.down.load_flags(0, Ordering::Relaxed).unwrap() & 1;
    assert_eq!(flags(&pair), 1);
    assert_eq!(pair.publisher.publish(&frame(3), &[], || false), Err(PublishError::Abandoned));
    assert_eq!(flags(&pair), 0);
}

/// A writer without credit sleeps until a release says that the bell is to be rung, whatever frames come in which order; and
/// while it has credit nobody wakes it for more.
/// Rules: VX-220, VX-301.
#[test]
fn a_writer_without_credit_is_always_woken_and_one_with_credit_is_not() {
    let (down, up) = (Memory::new(8192), Memory::new(8192));
    let geometry = ring(8192, 1024, 1000);
    let mut publisher = Publisher::new(down.clone(), up.clone(), geometry);
    let mut reader = Reader::new(up, down, geometry);
    reader.open();
    let (mut random, mut sleeps, mut rings, mut woken) = (7u64, false, 0u64, 0u64);
    let mut waits: Option<usize> = None;
    for _ in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let len = waits.unwrap_or((random >> 33) as usize % 897);
        // In some stretches the reader is faster, in some the writer.
        if !sleeps && (random >> 50) % 5 != (random >> 40) % 2 {
            waits = match publisher.publish(&frame(1), &[0; 896][..len], || true) {
                Ok(()) => None,
                Err(PublishError::NoCredit) => {
                    sleeps = true;
                    Some(len)
                }
                Err(error) => panic!("{error}"),
            };
            continue;
        }
        match reader.take().unwrap() {
            Some(taken) => {
                let rung = reader.release(taken);
                rings += u64::from(rung);
                woken += u64::from(rung && std::mem::take(&mut sleeps));
            }
            None => assert!(!sleeps, "nothing is left to read and the writer sleeps"),
        }
    }
    assert!(woken > 10 && rings > woken, "{woken} of {rings}");

    // A writer that is never far ahead: a ring for each length of the ring that it passes, or nearly.
    let mut pair = pair_of(8192, 1024);
    let rings = (1..=1000).filter(|&batch| {
        pair.send(batch, 128).unwrap();
        let taken = pair.reader.take().unwrap().unwrap();
        pair.reader.release(taken)
    });
    assert_eq!(rings.count() as u64, 1000 * 256 / (8192 - 2 * 1024 + 256));
}

/// Rules: VX-300.
#[test]
fn before_the_first_grant_nothing_is_written() {
    let (down, up) = (Memory::new(2048), Memory::new(2048));
    let mut publisher = Publisher::new(down.clone(), up, ring(2048, 1024, 4));
    assert_eq!(publisher.publish(&frame(1), &[], || true), Err(PublishError::NoCredit));
    assert_eq!(down.get(Word::Head), 0);
}

/// Rules: VX-210, VX-212.
#[test]
fn a_frame_whose_writer_lost_its_right_leaves_no_trace() {
    let mut pair = pair(4);
    assert_eq!(pair.publisher.publish(&frame(1), &[1; 300], || false), Err(PublishError::Abandoned));
    assert_eq!((pair.down.get(Word::Head), pair.down.get(Word::Batches)), (0, 0));
    assert_eq!(pair.receive(), None);
    pair.send(2, 10).unwrap();
    assert_eq!(pair.receive(), Some((2, vec![2; 10])));
}

/// Rules: VX-210.
#[test]
fn what_does_not_fit_a_frame_is_refused() {
    let mut pair = pair(4);
    let refused = pair.send(1, 1024 - HEADER_LEN as usize + 1);
    assert_eq!(refused, Err(PublishError::TooLong { payload_len: 897, max_frame: 1024 }));
}

/// Fragments of one answer cost one batch.
/// Rules: VX-210, VX-213.
#[test]
fn a_second_fragment_costs_no_batch() {
    let mut pair = pair(1);
    for index in 0..3 {
        let fragment = Frame { more: index < 2, frag_index: index, ..frame(1) };
        pair.publisher.publish(&fragment, &[0; 8], || true).unwrap();
    }
    assert_eq!(pair.publisher.batches(), 1);
    assert_eq!(pair.send(2, 0), Err(PublishError::NoCredit));
    for _ in 0..3 {
        pair.receive().unwrap();
    }
    assert_eq!(pair.up.get(Word::ConsumedBatches), 1);
    pair.send(2, 0).unwrap();
}

/// Cases: CT-03.
/// Rules: VX-220.
#[test]
fn a_frame_below_the_head_that_is_not_complete_ends_the_session() {
    let mut pair = pair(4);
    pair.send(1, 8).unwrap();
    pair.down.store_flags(0, 0, Ordering::Relaxed).unwrap();
    assert_eq!(pair.violation(), Violation::Unpublished { position: 0 });
}

/// Cases: CT-10.
/// Rules: VX-121, VX-122.
#[test]
fn a_head_that_cannot_be_is_refused() {
    for (head, what) in [(100, "unaligned"), (2048 + 128, "above the grant"), (u64::MAX, "far above")] {
        let mut pair = pair(4);
        pair.send(1, 8).unwrap();
        pair.down.set(Word::Head, head);
        let violation = pair.violation();
        assert!(
            matches!(violation, Violation::Unaligned { .. } | Violation::Word { word: "head", .. }),
            "{what}"
        );
    }
    let mut pair = pair(4);
    pair.send(1, 8).unwrap();
    pair.send(2, 8).unwrap();
    pair.receive().unwrap();
    pair.down.set(Word::Head, 256);
    assert!(matches!(pair.violation(), Violation::Word { word: "head", found: 256, .. }), "went back");
    let mut pair = self::pair(4);
    pair.down.set(Word::Batches, 5);
    assert!(matches!(pair.violation(), Violation::Word { word: "batches", .. }), "batches above the grant");
}

/// Cases: CT-10.
/// Rules: VX-121, VX-303.
#[test]
fn grants_that_cannot_be_are_refused() {
    type Lie = (Word, u64, &'static str);
    let lies: &[Lie] = &[
        (Word::GrantPos, 0, "grant_pos"),
        (Word::GrantPos, 2048 + 1, "grant_pos"),
        (Word::GrantBatches, 0, "grant_batches"),
        (Word::GrantBatches, 5, "grant_batches"),
        (Word::Consumed, 512, "consumed"),
        (Word::ConsumedBatches, 2, "consumed_batches"),
    ];
    for (word, value, name) in lies {
        let mut pair = pair(4);
        pair.send(1, 8).unwrap();
        pair.up.set(*word, *value);
        let violation = pair.accused();
        assert!(matches!(violation, Violation::Word { word, .. } if word == *name), "{name}: {violation}");
    }
    // What was said once is not taken back.
    for (word, name) in [(Word::Consumed, "consumed"), (Word::ConsumedBatches, "consumed_batches")] {
        let mut pair = pair(4);
        pair.send(1, 8).unwrap();
        pair.receive().unwrap();
        pair.send(2, 8).unwrap();
        pair.up.set(word, 0);
        let violation = pair.accused();
        assert!(matches!(violation, Violation::Word { word, .. } if word == name), "{name}: {violation}");
    }
}

/// Cases: CT-05.
/// Rules: VX-220.
#[test]
fn a_payload_is_what_its_checksum_says() {
    let mut pair = pair(4);
    let checked = Frame { payload_crc: Some(crc32c::crc32c(&[1; 8])), ..frame(1) };
    pair.publisher.publish(&checked, &[1; 8], || true).unwrap();
    let taken = pair.reader.take().unwrap().unwrap();
    pair.reader.copy_payload(&taken, &mut Vec::new()).unwrap();
    pair.down.write(128, &[2; 4]).unwrap();
    let damaged = pair.reader.copy_payload(&taken, &mut Vec::new());
    assert!(matches!(damaged, Err(Violation::Payload { position: 0, .. })));
}

/// Any four bytes of any header and any word, changed at will: an error or a frame, never a panic.
/// Cases: CT-02.
/// Rules: VX-011.
#[test]
fn damage_ends_in_an_error() {
    for at in (0..128u64).step_by(4) {
        for value in [0u32, 1, 0x7FFF_FFFF, 0xFFFF_FFFF, 0x80] {
            let mut pair = pair(4);
            pair.send(1, 8).unwrap();
            pair.down.write(at, &value.to_le_bytes()).unwrap();
            let _ = pair.reader.take();
        }
    }
}
