//! Consumers and what is said to them: announces, descriptors, configurations; with and without a driver.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod client_support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use client_support::files::header_rings;
use client_support::*;
use tidegate_sbe::AnyMessage;
use tidegate_sbe::control::ShmPoolAnnounce;
use tidegate_sbe::driver::Role;
use tidegate_tensor::client::{
    ClientEvent, Consumer, ConsumerConfig, Drops, MappingState, Producer, ReadOutcome, UnmapReason,
};
use tidegate_tensor::frame::FrameMeta;
use tidegate_tensor::ids::{ClientId, Epoch, Seq};

/// A producer of its own and a consumer of it, and a voice on the descriptor stream.
struct Pair {
    stage: Stage,
    peer: Peer,
    producer: Producer,
    consumer: Consumer,
    epoch: u64,
}

impl Pair {
    fn new() -> Self {
        let mut stage = Stage::bare();
        let mut peer = stage.peer();
        let producer = stage.producer(&mut peer, stage.own(CAM));
        let consumer = stage.consumer(&mut peer, announced(CAM));
        stage.pass(1_000, &mut [&mut peer]);
        let epoch = producer.status().epoch.unwrap();
        assert_eq!(consumer.state(), MappingState::Mapped(epoch));
        peer.events();
        Self { stage, peer, producer, consumer, epoch: epoch.get() }
    }

    fn settle(&mut self) {
        self.stage.settle(&mut [&mut self.peer]);
    }

    fn pass(&mut self, milliseconds: u64) {
        self.stage.pass(milliseconds, &mut [&mut self.peer]);
    }

    fn drops(&self) -> Drops {
        self.consumer.totals().drops
    }

    /// Writes frames up to number `last` without anybody hearing of them.
    fn write_silently(&mut self, last: u64) {
        self.stage.bus.drop_next(DESCRIPTOR, usize::MAX);
        while publish(&mut self.producer, b"silent") < last {}
        self.stage.bus.drop_next(DESCRIPTOR, 0);
    }
}

/// Rules: TP-149, TP-150, TP-299, TP-307, TP-490.
#[test]
fn a_producer_without_a_driver_announces_itself() {
    let mut stage = Stage::bare();
    let mut announces = stage.wire(ANNOUNCE);
    let mut peer = stage.peer();
    let begun = stage.now();
    let mut producer = stage.producer(&mut peer, stage.own(CAM));
    let mut heard = |stage: &mut Stage, peer: &mut Peer| -> Vec<(u64, u64, u32)> {
        stage.settle(&mut [peer]);
        let decode = |bytes: &Vec<u8>| {
            let announce = ShmPoolAnnounce::decode(bytes).unwrap();
            (announce.announce_timestamp_ns, announce.epoch, announce.producer_id)
        };
        announces.heard().iter().map(decode).collect()
    };
    let epoch = producer.status().epoch.unwrap().get();
    let client = producer.status().client.unwrap().get();
    assert_eq!(heard(&mut stage, &mut peer), [(begun, epoch, client)], "at once");
    stage.pass(3_000, &mut [&mut peer]);
    let milliseconds = [100, 1_100, 2_100];
    assert_eq!(
        heard(&mut stage, &mut peer),
        milliseconds.map(|later| (begun + 1_000_000 * later, epoch, client)),
        "soon again and then periodically, with the time of sending"
    );
    let mut consumer = stage.consumer(&mut peer, announced(CAM));
    stage.pass(1_000, &mut [&mut peer]);
    assert_eq!(publish(&mut producer, b"x"), 0);
    assert_eq!(frames(&mut consumer), [(0, b"x".to_vec())]);

    // The next incarnation has a higher epoch, and the files of the last one are gone.
    let files = header_rings(stage.base.path()).remove(0);
    drop(producer);
    stage.settle(&mut [&mut peer]);
    assert!(!files.exists());
    let again = stage.producer(&mut peer, stage.own(CAM));
    assert!(again.status().epoch.unwrap().get() > epoch);
    stage.pass(1_000, &mut [&mut peer]);
    assert_eq!(consumer.state(), MappingState::Mapped(again.status().epoch.unwrap()));
}

/// Everything but the activity is written once.
/// Rules: TP-076, TP-079.
#[test]
fn only_the_activity_of_a_superblock_changes() {
    let mut pair = Pair::new();
    let header = header_rings(pair.stage.base.path()).remove(0);
    let pools = [header.with_file_name("1.pool"), header.with_file_name("2.pool")];
    let files: Vec<_> = [header].into_iter().chain(pools).collect();
    let superblocks = |files: &[PathBuf]| -> Vec<Vec<u8>> {
        files.iter().map(|file| fs::read(file).unwrap()[..64].to_vec()).collect()
    };
    let before = superblocks(&files);
    let mut announces = pair.stage.wire(ANNOUNCE);
    for _ in 0..20 {
        publish(&mut pair.producer, b"x");
    }
    pair.pass(2_000);
    let last = announces.heard().pop().unwrap();
    let announced = ShmPoolAnnounce::decode(&last).unwrap().announce_timestamp_ns;
    for (before, after) in before.iter().zip(superblocks(&files)) {
        assert_eq!(before[..56], after[..56]);
        let activity = u64::from_le_bytes(after[56..].try_into().unwrap());
        assert_eq!(activity, announced, "refreshed with the announce");
    }
}

/// One mapping, one Hello a period, counters kept.
/// Rules: TP-129, TC-072.
#[test]
fn repeated_announces_change_nothing() {
    let mut pair = Pair::new();
    publish(&mut pair.producer, b"x");
    pair.write_silently(3);
    publish(&mut pair.producer, b"x");
    assert_eq!(numbers(&mut pair.consumer), [0, 4]);
    let mut control = pair.stage.wire(CONTROL);
    pair.pass(10_000);
    assert_eq!(pair.drops(), Drops { gap: 3, ..Drops::default() });
    assert_eq!(pair.consumer.totals().epochs, 1);
    let hellos = control.heard().iter().filter(|bytes| is_hello(bytes)).count();
    assert_eq!(hellos, 10);
    assert!(pair.peer.events().is_empty());
}

fn is_hello(bytes: &[u8]) -> bool {
    matches!(
        AnyMessage::decode(bytes),
        Ok(AnyMessage::Control(tidegate_sbe::control::Message::ConsumerHello(_)))
    )
}

/// Rules: TP-119, TP-120, TP-217, TC-066, TC-067.
#[test]
fn missing_descriptors_are_counted_from_the_first_one_on() {
    let mut pair = Pair::new();
    pair.write_silently(99);
    assert_eq!(publish(&mut pair.producer, b"x"), 100);
    assert_eq!((numbers(&mut pair.consumer), pair.drops().gap), (vec![100], 0));
    pair.write_silently(102);
    publish(&mut pair.producer, b"x");
    publish(&mut pair.producer, b"x");
    let mut gaps = Vec::new();
    let outcomes = pair.consumer.poll_outcomes(10, &mut |outcome| match outcome {
        ReadOutcome::DroppedGap { frames } => gaps.push(frames),
        ReadOutcome::Frame(_) => {}
        other => panic!("{other:?}"),
    });
    assert_eq!((outcomes.unwrap(), gaps, pair.drops().gap), (2, vec![2], 2));
}

/// Rules: TP-121, TC-068.
#[test]
fn a_large_gap_is_counted_and_overcome() {
    let mut pair = Pair::new();
    pair.write_silently(9);
    publish(&mut pair.producer, b"x");
    assert_eq!(numbers(&mut pair.consumer), [10]);
    pair.write_silently(309);
    publish(&mut pair.producer, b"x");
    assert_eq!((numbers(&mut pair.consumer), pair.drops().gap), (vec![310], 299));
    publish(&mut pair.producer, b"x");
    assert_eq!((numbers(&mut pair.consumer), pair.drops().gap), (vec![311], 299));
}

/// Rules: TP-036, TC-132.
#[test]
fn descriptors_of_other_streams_are_not_ours() {
    let mut pair = Pair::new();
    publish(&mut pair.producer, b"x");
    let mut voice = pair.stage.wire(DESCRIPTOR);
    voice.describe(OTHER, pair.epoch, 0);
    voice.describe(OTHER, pair.epoch + 1, 7);
    voice.say(b"something else");
    assert_eq!(numbers(&mut pair.consumer), [0]);
    publish(&mut pair.producer, b"y");
    assert_eq!((numbers(&mut pair.consumer), pair.drops()), (vec![1], Drops::default()));
}

/// Rules: TP-130, TC-074, TC-075.
#[test]
fn descriptors_of_other_epochs() {
    let mut pair = Pair::new();
    let mut voice = pair.stage.wire(DESCRIPTOR);
    voice.describe(CAM, pair.epoch - 1, 55);
    publish(&mut pair.producer, b"x");
    assert_eq!(numbers(&mut pair.consumer), [0], "a lower one is dropped");
    voice.describe(CAM, pair.epoch + 1, 0);
    publish(&mut pair.producer, b"x");
    assert_eq!(numbers(&mut pair.consumer), [0u64; 0], "behind a higher one nothing is accepted");
    pair.settle();
    assert_eq!(
        pair.consumer.state(),
        MappingState::Mapped(Epoch::new(pair.epoch)),
        "but nothing is unmapped"
    );
    assert_eq!(pair.drops(), Drops::default());
    drop(std::mem::replace(&mut pair.producer, {
        let config = pair.stage.own(CAM);
        pair.stage.producer(&mut pair.peer, config)
    }));
    pair.pass(1_000);
    publish(&mut pair.producer, b"new");
    assert_eq!(frames(&mut pair.consumer), [(0, b"new".to_vec())], "until the new epoch is announced");
}

/// Rules: TP-119, TP-132, TC-078.
#[test]
fn a_step_back_unmaps_and_a_repetition_does_not() {
    let mut pair = Pair::new();
    for _ in 0..10 {
        publish(&mut pair.producer, b"x");
    }
    let mut voice = pair.stage.wire(DESCRIPTOR);
    numbers(&mut pair.consumer);
    let late = pair.drops().late;
    voice.describe(CAM, pair.epoch, 9);
    assert_eq!(numbers(&mut pair.consumer), [0u64; 0]);
    pair.settle();
    assert_eq!(
        (pair.consumer.state(), pair.drops().late),
        (MappingState::Mapped(Epoch::new(pair.epoch)), late)
    );
    voice.describe(CAM, pair.epoch, 3);
    publish(&mut pair.producer, b"x");
    assert_eq!(numbers(&mut pair.consumer), [0u64; 0], "nothing is accepted behind the step back");
    pair.settle();
    let regressed = |event: &ClientEvent| {
        matches!(event, ClientEvent::Unmapped { reason: UnmapReason::SeqRegression, .. })
    };
    assert!(pair.peer.saw(regressed));
    pair.pass(1_000);
    publish(&mut pair.producer, b"again");
    assert_eq!(frames(&mut pair.consumer), [(11, b"again".to_vec())], "after the next announce");
}

/// Whoever may write descriptors can name a frame that is far from written. That costs the mapping until the next announce,
/// as any step back does, and no more, however often it happens.
/// Rules: TP-132.
#[test]
fn a_descriptor_of_the_far_future_costs_one_announce_period() {
    let mut pair = Pair::new();
    let mut voice = pair.stage.wire(DESCRIPTOR);
    for _ in 0..3 {
        publish(&mut pair.producer, b"x");
        assert_eq!(numbers(&mut pair.consumer).len(), 1);
        let late = pair.drops().late;
        voice.describe(CAM, pair.epoch, u64::MAX);
        publish(&mut pair.producer, b"x");
        assert_eq!(numbers(&mut pair.consumer), [0u64; 0], "the next frame is a step back");
        assert_eq!(pair.drops().late, late + 1);
        pair.settle();
        assert_eq!(pair.consumer.state(), MappingState::Unmapped);
        pair.pass(1_000);
        assert_eq!(pair.consumer.state(), MappingState::Mapped(Epoch::new(pair.epoch)));
    }
    assert_eq!(pair.drops().gap, u64::MAX, "counted as described, and not beyond the end");
}

/// Rules: TP-135.
#[test]
fn without_a_mapping_descriptors_are_dropped_and_not_counted() {
    let mut pair = Pair::new();
    let client = pair.consumer.status().client.unwrap().get();
    pair.stage.wire(CONTROL).say(&config_message(CAM, client, false, "bridge://b1"));
    pair.settle();
    pair.write_silently(4);
    publish(&mut pair.producer, b"x");
    publish(&mut pair.producer, b"x");
    assert_eq!((numbers(&mut pair.consumer).len(), pair.drops()), (0, Drops::default()));
    pair.stage.wire(CONTROL).say(&config_message(CAM, client, true, ""));
    pair.pass(1_000);
    publish(&mut pair.producer, b"x");
    assert_eq!((numbers(&mut pair.consumer), pair.drops()), (vec![7], Drops::default()));
}

/// Rules: TP-128, TP-160, TP-182, TP-183, TP-185, TP-458, TP-459, TC-085, TC-126.
#[test]
fn a_configuration_reaches_the_consumer_it_names() {
    let mut pair = Pair::new();
    let client = pair.consumer.status().client.unwrap().get();
    let mut control = pair.stage.wire(CONTROL);
    for (stream, consumer) in [(OTHER, client), (CAM, client.wrapping_add(1)), (CAM, 0)] {
        control.say(&config_message(stream, consumer, false, "bridge://b1"));
    }
    pair.settle();
    assert!(pair.consumer.uses_shm() && pair.consumer.payload_fallback_uri().is_none());
    for _ in 0..3 {
        control.say(&config_message(CAM, client, false, "bridge://b1"));
        pair.settle();
    }
    assert_eq!(pair.consumer.state(), MappingState::Fallback);
    assert!(!pair.consumer.uses_shm());
    assert!(pair.consumer.payload_fallback_uri().is_some());
    assert!(matches!(pair.consumer.read_frame(Seq::new(0)), ReadOutcome::Fallback));
    let events = pair.peer.events();
    let told =
        events.iter().filter(|event| matches!(event, ClientEvent::Fallback { uri: Some(_), .. })).count();
    assert_eq!(told, 1, "repetitions are no news: {events:?}");
    pair.pass(3_000);
    assert_eq!(pair.consumer.state(), MappingState::Fallback, "announces do not map");
    control.say(&config_message(CAM, client, true, ""));
    pair.pass(1_000);
    assert!(pair.consumer.uses_shm() && pair.consumer.payload_fallback_uri().is_none());
    assert!(matches!(pair.consumer.state(), MappingState::Mapped(_)));
}

/// Two consumers with one id, on two streams of one control stream.
/// Rules: TP-160, TP-298, TC-210.
#[test]
fn one_id_on_two_streams_is_two_consumers() {
    let mut stage = Stage::new();
    let (mut here, mut there) = (stage.peer(), stage.peer());
    // Without a driver an id may be used twice.
    let same = |config: ConsumerConfig| ConsumerConfig { client: Some(ClientId::new(77)), ..config };
    let cam = stage.consumer(&mut here, same(announced(CAM)));
    let leased = stage.consumer(&mut here, same(ConsumerConfig::new(CAM)));
    let other = stage.consumer(&mut there, same(announced(OTHER)));
    let mut control = stage.wire(CONTROL);
    stage.pass(1_000, &mut [&mut here, &mut there]);
    control.say(&config_message(OTHER, 77, false, ""));
    control.say(&revoked(1, OTHER, 77, Role::Consumer, stage.now()));
    stage.settle(&mut [&mut here, &mut there]);
    assert_eq!(other.state(), MappingState::Fallback);
    assert!(cam.uses_shm());
    assert!(matches!(leased.state(), MappingState::Mapped(_)));
}

/// Rules: TP-100, TP-113, TP-457, TP-458.
#[test]
fn outcomes_tell_what_became_of_a_frame() {
    let mut pair = Pair::new();
    for _ in 0..3 {
        publish(&mut pair.producer, b"good");
    }
    pair.consumer.poll(1, &mut |_| {}).unwrap();
    let header =
        fs::OpenOptions::new().write(true).open(header_rings(pair.stage.base.path()).remove(0)).unwrap();
    let slot = |index: u64| 64 + 256 * index;
    // Frame 1 says it is elsewhere, frame 2 is being rewritten.
    header.write_at(&5u32.to_le_bytes(), slot(1) + 12).unwrap();
    header.write_at(&(10u64 << 1).to_le_bytes(), slot(2)).unwrap();
    publish(&mut pair.producer, b"good");
    let mut seen = Vec::new();
    pair.consumer
        .poll_outcomes(10, &mut |outcome| {
            seen.push(match outcome {
                ReadOutcome::Frame(frame) => format!("frame {}", frame.seq()),
                ReadOutcome::DroppedInvalid { seq, .. } => format!("invalid {seq}"),
                ReadOutcome::DroppedLate { seq } => format!("late {seq}"),
                other => panic!("{other:?}"),
            });
        })
        .unwrap();
    assert_eq!(seen, ["invalid 1", "late 2", "frame 3"]);
    assert_eq!(pair.drops(), Drops { gap: 0, late: 1, invalid: 1 });
    match pair.consumer.read_frame(Seq::new(3)) {
        ReadOutcome::Frame(frame) => {
            assert_eq!(frame.payload().to_vec(), b"good");
            frame.validate().unwrap();
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(pair.consumer.read_frame(Seq::new(1)), ReadOutcome::DroppedInvalid { .. }));
    assert!(matches!(pair.consumer.read_frame(Seq::new(4)), ReadOutcome::DroppedLate { .. }));
    assert_eq!(pair.drops(), Drops { gap: 0, late: 1, invalid: 1 }, "reading by number counts nothing");
}

/// A frame that is overwritten in the hands of the application counts as late, not as delivered.
/// Rules: TP-113, TP-116, TC-065.
#[test]
fn a_frame_overwritten_while_it_is_used_is_late() {
    let mut pair = Pair::new();
    publish(&mut pair.producer, b"x");
    let producer = &mut pair.producer;
    let mut seen = Vec::new();
    let outcomes = pair.consumer.poll_outcomes(1, &mut |outcome| match outcome {
        ReadOutcome::Frame(frame) => {
            frame.validate().unwrap();
            for _ in 0..SLOTS {
                producer.offer(&bytes(1), b"y", FrameMeta::default()).unwrap();
            }
            seen.push(frame.validate().is_ok());
        }
        ReadOutcome::DroppedLate { seq } => seen.push(seq == Seq::new(99)),
        other => panic!("{other:?}"),
    });
    assert_eq!((outcomes.unwrap(), seen), (1, vec![false, false]));
    assert_eq!((pair.consumer.totals().frames, pair.drops().late), (0, 1));
}

/// A slot that holds a frame older than one accepted from it is stale, even if its word is right again.
/// Rules: TP-117.
#[test]
fn a_slot_that_went_back_is_stale() {
    let mut pair = Pair::new();
    for _ in 0..SLOTS + 1 {
        publish(&mut pair.producer, b"x");
        numbers(&mut pair.consumer);
    }
    let header =
        fs::OpenOptions::new().write(true).open(header_rings(pair.stage.base.path()).remove(0)).unwrap();
    header.write_at(&1u64.to_le_bytes(), 64).unwrap();
    assert!(matches!(pair.consumer.read_frame(Seq::new(0)), ReadOutcome::DroppedLate { .. }));
    assert!(
        matches!(pair.consumer.read_frame(Seq::new(1)), ReadOutcome::Frame(_)),
        "its neighbour is still there"
    );
}

/// Rules: TP-081, TP-134, TC-083, TC-084.
#[test]
fn a_superblock_that_changes_under_the_mapping_ends_it() {
    for (at, bytes) in [(0, 0u64.to_le_bytes()), (40, 1u64.to_le_bytes()), (12, 5u64.to_le_bytes())] {
        let mut pair = Pair::new();
        let header =
            fs::OpenOptions::new().write(true).open(header_rings(pair.stage.base.path()).remove(0)).unwrap();
        header.write_at(&bytes, at).unwrap();
        pair.pass(1_000);
        let changed = |event: &ClientEvent| {
            matches!(event, ClientEvent::Unmapped { reason: UnmapReason::SuperblockChanged, .. })
        };
        assert!(pair.peer.saw(changed), "offset {at}");
        pair.pass(3_000);
        assert_eq!(
            pair.consumer.state(),
            MappingState::Unmapped,
            "offset {at}: the epoch is not trusted again"
        );
    }
}

/// Two consumers of one stream in one process take nothing away from each other.
/// Rules: TP-037.
#[test]
fn consumers_of_one_client_do_not_share_their_messages() {
    let mut pair = Pair::new();
    let mut second = pair.stage.consumer(&mut pair.peer, announced(CAM));
    pair.pass(1_000);
    assert_eq!(second.state(), pair.consumer.state(), "both hear the announces");
    for _ in 0..3 {
        publish(&mut pair.producer, b"x");
    }
    assert_eq!((numbers(&mut pair.consumer), numbers(&mut second)), (vec![0, 1, 2], vec![0, 1, 2]));
    let client = second.status().client.unwrap().get();
    pair.stage.wire(CONTROL).say(&config_message(CAM, client, false, ""));
    pair.settle();
    assert_eq!((pair.consumer.uses_shm(), second.uses_shm()), (true, false));
}
