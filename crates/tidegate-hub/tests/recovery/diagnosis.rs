//! What is said about blocks whose processes live, hang, or are gone.

use std::{mem::offset_of, time::Duration};

use tidegate_hub::{
    core::codec::SlotState,
    identity::Liveness,
    inspect::{BlockLife, Finding, LockKind, Recommendation, Severity, Thresholds},
    layout::pages::{ConsumerRow, ControlPage, SlotRecord},
};
use tidegate_shm::{clock::monotonic_now, sync::Ordering::Relaxed};

use crate::world::{World, spec, write};

/// Rules: DH-235, DH-252, DH-253.
#[test]
fn a_healthy_block_has_no_findings() {
    let world = World::of("diagnosis::a_healthy_block_has_no_findings");
    let (producer, name) = world.producer("write 3");
    let consumer = world.actor(&name, "join;read 1;hold");
    let block = world.inspector(&name);
    let diagnosis = block.diagnose();
    assert_eq!((diagnosis.findings.as_slice(), diagnosis.healthy), ([].as_slice(), true));
    assert_eq!(diagnosis.verdict(), "OK");
    assert_eq!(block.life(), BlockLife::Ready);
    assert_eq!((diagnosis.writer.pid, diagnosis.writer.liveness), (producer.pid(), Liveness::Alive));
    let indices = diagnosis.indices;
    assert_eq!((indices.write, indices.commit, indices.floor, indices.occupancy), (103, 103, 100, 3));

    let [row] = diagnosis.consumers.as_slice() else { panic!("{:?}", diagnosis.consumers) };
    assert_eq!((row.row, row.pid, row.state, row.liveness), (0, consumer.pid(), "active", Liveness::Alive));
    assert_eq!((row.cursor, row.lag, row.claim_first, row.claim_count), (101, 2, Some(101), 1));
    assert_eq!(row.uid, format!("CONS-{}", consumer.pid()));
    assert!(row.claim_age.is_some_and(|age| age < Duration::from_secs(60)));

    let slot = &diagnosis.slots[1];
    assert_eq!((slot.slot_id, slot.generation, slot.payload_len), (Some(101), Some(1), Some(5)));
    assert_eq!((slot.reader_count, slot.readers[0].pid), (1, consumer.pid()));
    assert_eq!((slot.is_stuck, slot.recommendation, slot.moving), (false, Recommendation::None, false));
    assert_eq!(diagnosis.slots[7].slot_id, None);
    assert!(block.diagnose_slot(8).is_none());

    let readers = block.show_readers(None);
    assert_eq!(readers[0].held_back_by, []);
    assert_eq!((readers[1].readers.len(), readers[1].held_back_by.len()), (1, 1));
    assert_eq!((readers[2].readers.len(), readers[2].held_back_by.len()), (0, 1));
}

/// Rules: DH-241, DH-252.
#[test]
fn the_dead_are_named_with_what_they_hold() {
    let world = World::of("diagnosis::the_dead_are_named_with_what_they_hold");
    let (producer, name) = world.producer("write 3;open 1");
    let pid = producer.pid();
    let consumer = world.actor(&name, "join;hold;lock 8");
    let consumer_pid = consumer.pid();
    let block = world.inspector(&name);
    assert!(block.diagnose().healthy, "all of them live");
    producer.kill();
    assert_eq!(block.life(), BlockLife::Orphaned);
    consumer.kill();
    assert_eq!(block.life(), BlockLife::Reclaimable);

    let diagnosis = block.diagnose();
    assert!(!diagnosis.healthy);
    assert_eq!(diagnosis.severity(), Some(Severity::Problem));
    let has = |matches: &dyn Fn(&Finding) -> bool| diagnosis.findings.iter().any(matches);
    assert!(has(&|found| matches!(found, Finding::WriterDead { owner } if owner.key.pid() == pid)));
    assert!(has(
        &|found| matches!(found, Finding::StuckSlot { slot: 3, id: Some(103), owner: Some(owner), .. }
        if owner.key.pid() == pid && owner.is_dead())
    ));
    assert!(has(&|found| matches!(found, Finding::ConsumerDead { row: 0, pid, .. } if *pid == consumer_pid)));
    assert!(has(&|found| matches!(found, Finding::LockDead { lock: Some(8), .. })));
    assert!(diagnosis.findings.iter().all(|found| !found.remedy().is_empty()));
    assert_eq!(
        diagnosis.verdict(),
        "UNHEALTHY (writer dead, 1 stuck slot, 1 dead consumer, 1 lock of a dead process)"
    );
    // The slot that the dead consumer reads, and the one that the dead writer wrote.
    let stuck: Vec<_> =
        block.find_stuck_slots(None).iter().map(|slot| (slot.slot_index, slot.recommendation)).collect();
    assert_eq!(stuck, [(0, Recommendation::ReleaseZombies), (3, Recommendation::ResetSlot)]);
    let lock = block.list_locks().into_iter().find(|lock| lock.index == Some(8)).unwrap();
    assert_eq!((lock.kind, lock.depth, lock.owner.unwrap().key.pid()), (LockKind::Spinlock, 1, consumer_pid));
    assert!(block.integrity(true).is_valid(), "what the dead leave is no damage");
}

/// N-42, the ages.
/// Rules: DH-035, DH-236, DH-252, N-42.
#[test]
fn age_makes_stuck_or_stale_but_never_dead() {
    let world = World::of("diagnosis::age_makes_stuck_or_stale_but_never_dead");
    let (block, writer) = world.block(&spec());
    let name = block.descriptor().file_name();
    write(&writer, &block, b"value");
    let _open = writer.allocate(1, crate::world::soon()).unwrap();
    let consumer = world.actor(&name, "join;hold");
    consumer.stop();
    let look = world.inspector(&name);
    assert!(look.diagnose().healthy);

    let ago = |seconds: u64| {
        let then = monotonic_now().as_u64().checked_sub(seconds * 1_000_000_000);
        then.expect("this test needs a machine that was started eleven minutes ago")
    };
    let views = block.writer_views().unwrap();
    let since = views.slot_records.row(1).unwrap().u64::<{ offset_of!(SlotRecord, state_since_ns) }>();
    since.store(ago(6), Relaxed);
    let slot = look.diagnose_slot(1).unwrap();
    assert!(slot.is_stuck && slot.stuck_for.unwrap() >= Duration::from_secs(6));
    assert_eq!(slot.recommendation, Recommendation::InspectOwner);
    assert_eq!(look.find_stuck_slots(Some(Duration::from_secs(60))), [], "the threshold replaces 5 s");
    assert_eq!(look.find_stuck_slots(None).len(), 1);
    let limits = Thresholds::default();
    assert_eq!(
        [limits.stuck_write, limits.stuck_read, limits.heartbeat_stale].map(|limit| limit.as_secs()),
        [5, 300, 5]
    );
    let patient = Thresholds { stuck_write: Duration::from_secs(60), ..limits };
    assert!(!world.inspector(&name).with_thresholds(patient).diagnose_slot(1).unwrap().is_stuck);
    since.store(ago(1), Relaxed);

    let row = views.consumers.row(0).unwrap();
    row.u64::<{ offset_of!(ConsumerRow, last_heartbeat_ns) }>().store(ago(600), Relaxed);
    let seen = look.consumer(0).unwrap();
    assert_eq!((seen.stale, seen.liveness), (true, Liveness::Alive), "stopped for ten minutes is not dead");
    let findings = look.findings();
    assert!(matches!(findings.as_slice(), [Finding::ConsumerStale { row: 0, .. }]), "{findings:?}");
    assert!(look.diagnose().healthy, "a warning only");

    row.u64::<{ offset_of!(ConsumerRow, claim_since_ns) }>().store(ago(301), Relaxed);
    let slot = look.diagnose_slot(0).unwrap();
    assert_eq!((slot.is_stuck, slot.recommendation), (true, Recommendation::InspectReader));
    assert!(look.findings().iter().any(|found| matches!(found, Finding::StuckReader { row: 0, .. })));
    row.u64::<{ offset_of!(ConsumerRow, claim_since_ns) }>().store(ago(299), Relaxed);
    assert!(!look.diagnose_slot(0).unwrap().is_stuck);

    let beat = views.control.row().u64::<{ offset_of!(ControlPage, writer_heartbeat_ns) }>();
    beat.store(ago(601), Relaxed);
    assert!(look.findings().iter().any(|found| matches!(found, Finding::WriterStale { .. })));
    beat.store(ago(599), Relaxed);
    assert!(!look.findings().iter().any(|found| matches!(found, Finding::WriterStale { .. })));
}

/// T-12, with a tenth of the looks.
/// Rules: DH-251, T-12.
#[test]
fn a_block_at_full_speed_never_looks_impossible() {
    let world = World::of("diagnosis::a_block_at_full_speed_never_looks_impossible");
    let producer = world.start("create;write 1;stream", None);
    let name = producer.said("block ");
    producer.said("done");
    let consumer = world.actor(&name, "join;drink");
    let block = world.inspector(&name);
    let mut last = 0;
    for look in 0_usize.. {
        if look >= 1_000 && last > 2_000 {
            break;
        }
        assert!(look < 1_000_000, "it does not move: {last}");
        let report = block.integrity(true);
        assert!(report.is_valid(), "{:?}", report.findings);
        for slot in block.diagnose_all() {
            let Some(id) = slot.slot_id else { continue };
            assert_eq!((id - 100) % 8, u64::from(slot.slot_index));
            // The first value is a shorter one.
            if slot.moving || id == 100 {
                continue;
            }
            assert!(!slot.is_stuck, "{slot:?}");
            match slot.state.word() {
                "COMMITTED" => assert_eq!(slot.payload_len, Some(8), "{slot:?}"),
                "WRITING" => assert_eq!(slot.owner.unwrap().key.pid(), producer.pid(), "{slot:?}"),
                other => panic!("{other}: {slot:?}"),
            }
        }
        let write = block.index_summary().write;
        assert!(write >= last);
        last = write;
    }
    drop(consumer);
}

/// Rules: DH-258, DH-252.
#[test]
fn quarantine_is_always_shown() {
    let world = World::of("diagnosis::quarantine_is_always_shown");
    let (producer, name) = world.producer("open 1");
    let options = tidegate_hub::recover::slots::ResetOptions { discard: false, force: true };
    world.recovery(&name).reset_slot(0, options).unwrap();
    let block = world.inspector(&name);
    let slot = block.diagnose_slot(0).unwrap();
    assert!(slot.state.is(SlotState::Quarantined));
    assert_eq!((slot.is_stuck, slot.recommendation), (false, Recommendation::AwaitOwner));
    assert_eq!(slot.owner.unwrap().key.pid(), producer.pid());
    let shown = |block: &tidegate_hub::inspect::Inspector| {
        block.findings().iter().any(|found| matches!(found, Finding::Quarantined { slot: 0, .. }))
    };
    assert!(shown(&block));
    producer.kill();
    assert!(shown(&block));
    assert_eq!(block.diagnose_slot(0).unwrap().recommendation, Recommendation::ResetSlot);
}
