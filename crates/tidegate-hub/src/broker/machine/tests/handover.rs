//! A channel that moves to another block.

use super::{super::*, bench::*};
use crate::broker::wire::{
    BlockUuid, HandoverCancel, HandoverNotify, HandoverPhase, SchemaHash, SchemaVersion, U64,
};

fn handover(phase: HandoverPhase, epoch: u32) -> HandoverNotify {
    HandoverNotify {
        old_channel: name("sensor"),
        new_channel: name("sensor"),
        old_shm_name: sensor(1, 1).shm_name,
        new_shm_name: sensor(1, 2).shm_name,
        old_uuid: BlockUuid::new([1; 16]).unwrap(),
        new_uuid: BlockUuid::new([2; 16]).unwrap(),
        phase,
        handover_epoch: epoch,
        cutover_slot_id: (phase == HandoverPhase::Cutover).then_some(U64(41)),
        grace_period_ms: 5000,
        new_key_id: None,
        new_key_epoch: None,
        sealed_secret: None,
        schema_hash: SchemaHash::from_bytes([5; 32]),
        schema_version: SchemaVersion { major: 2, minor: 0 },
        schema_text: None,
        secret_proof: None,
    }
}

/// The announced block, and no other, may register beside the live one; it is the channel after the cut.
///
/// Rules: DH-192.
#[test]
fn a_handover_moves_the_channel() {
    let mut bench = Bench::new(Settings::default());
    let (old, new) = (verifier(1), verifier(2));
    assert!(bench.register("p", sensor(1, 1), Some(&old)).is_ok());
    let announce = |phase| RequestBody::HandoverNotify(Box::new(handover(phase, 1)));
    assert_eq!(bench.ask("p", announce(HandoverPhase::Prepare), Some(&new)).reply.code, Some(Code::BadProof));
    assert_eq!(
        bench.ask("q", announce(HandoverPhase::Prepare), Some(&old)).reply.code,
        Some(Code::NotAllowed)
    );
    let prepared = bench.ask("p", announce(HandoverPhase::Prepare), Some(&old));
    assert!(
        matches!(&prepared.events[..], [EventBody::HandoverNotify(event)] if event.secret_proof.is_none())
    );
    assert_eq!(bench.register("p", sensor(1, 3), Some(&new)).reply.code, Some(Code::LiveOwner));
    assert!(bench.register("p", sensor(1, 2), Some(&new)).is_ok());
    let before = bench.discover("c", find("sensor"), Some(&old));
    assert_eq!(before.json["block_uuid"], "01".repeat(16));
    assert_eq!(before.json["handover"]["new_uuid"], "02".repeat(16));
    assert!(bench.ask("p", announce(HandoverPhase::Cutover), Some(&old)).is_ok());
    let after = bench.discover("c", find("sensor"), Some(&new));
    assert_eq!(after.json["block_uuid"], "02".repeat(16));
    assert!(after.json["handover"].is_null());
    assert_eq!(bench.machine.counters().channels, 1);
}

/// Between the cut and the new block's registration a consumer is asked to wait.
#[test]
fn between_two_blocks_discovery_is_pending() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    let announce = |phase, epoch| RequestBody::HandoverNotify(Box::new(handover(phase, epoch)));
    assert!(bench.ask("p", announce(HandoverPhase::Cutover, 1), None).is_ok());
    let pending = bench.discover("c", find("sensor"), None);
    assert_eq!(pending.outcome(), (Status::Pending, Some(Code::Handover)));
    assert_eq!(pending.json["reason"], "HANDOVER");
    assert!(bench.register("p", sensor(1, 2), None).is_ok());
    assert!(bench.discover("c", find("sensor"), None).is_ok());
}

/// Rules: DH-229.
#[test]
fn a_stale_cancellation_is_ignored() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    let prepare = RequestBody::HandoverNotify(Box::new(handover(HandoverPhase::Prepare, 2)));
    assert!(bench.ask("p", prepare, None).is_ok());
    let cancel = |handover_epoch| {
        let channel_name = name("sensor");
        RequestBody::HandoverCancel(HandoverCancel {
            channel_name,
            handover_epoch,
            reason: label("x"),
            secret_proof: None,
        })
    };
    assert!(bench.ask("p", cancel(1), None).events.is_empty());
    assert!(bench.discover("c", find("sensor"), None).json["handover"].is_object());
    assert!(matches!(bench.ask("p", cancel(2), None).events[..], [EventBody::HandoverCancel(_)]));
    assert!(bench.discover("c", find("sensor"), None).json["handover"].is_null());
}

/// A producer that died after its cut, before it told anybody: its successor is the channel when the block before is gone, and
/// whoever asks for it meanwhile is sent to the block before, which knows the way.
///
/// Rules: DH-193, DH-230.
#[test]
fn a_cut_that_was_never_told_is_found_out() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    let prepare = RequestBody::HandoverNotify(Box::new(handover(HandoverPhase::Prepare, 1)));
    assert!(bench.ask("p", prepare, None).is_ok());
    assert!(bench.register("p", sensor(2, 2), None).is_ok());
    bench.kill(1);
    assert_eq!(bench.discover("c", find("sensor"), None).json["block_uuid"], "01".repeat(16));
    bench.host.blocks.borrow_mut().remove(sensor(1, 1).shm_name.as_str());
    let found = bench.discover("c", find("sensor"), None);
    assert_eq!(
        (&found.json["block_uuid"], &found.json["producer_alive"]),
        (&"02".repeat(16).into(), &true.into())
    );
    assert_eq!(bench.machine.counters().channels, 1);
}

/// What a client says again, because it cannot know whether it was heard, changes nothing.
///
/// Rules: DH-221.
#[test]
fn a_handover_may_be_told_again() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.register("p", sensor(1, 1), None).is_ok());
    let tell = |bench: &mut Bench, phase| {
        bench.ask("p", RequestBody::HandoverNotify(Box::new(handover(phase, 1))), None).reply.code
    };
    assert_eq!(tell(&mut bench, HandoverPhase::Cutover), None);
    assert_eq!(tell(&mut bench, HandoverPhase::Prepare), None);
    let between = bench.discover("c", find("sensor"), None);
    assert_eq!(between.outcome(), (Status::Pending, Some(Code::Handover)), "the cut is not taken back");
    assert!(bench.register("p", sensor(1, 2), None).is_ok());
    let id = bench.discover("c", find("sensor"), None).channel_id();
    assert_eq!(tell(&mut bench, HandoverPhase::Prepare), Some(Code::StaleOwner));
    assert_eq!(bench.register("p", sensor(1, 2), None).channel_id(), id);
    assert_eq!(tell(&mut bench, HandoverPhase::Cutover), Some(Code::StaleOwner));
    assert_eq!(bench.discover("c", find("sensor"), None).channel_id(), id);
}
