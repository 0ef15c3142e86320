//! Each repair of 18.2: done when it is safe, refused when it is not, and what force does.

use std::{fs, mem::offset_of, time::Duration};

use tidegate_hub::{
    attachment::consumer_core,
    block::{Role, attach},
    core::{
        Start,
        config::{Deadline, Timing, WaitStrategy},
        error::{AcquireError, WriteError},
        reader::{Reader, Release},
        words::RowNames,
        writer::CommitInfo,
    },
    inspect::{ConsumerInfo, Inspector, LockKind},
    layout::pages::{ConsumerRow, ControlPage, LockRecord, MetricsPage, SyncPage},
    recover::{Repair, files, plan, slots::ResetOptions},
};
use tidegate_shm::sync::Ordering::Relaxed;

use crate::world::{World, soon, spec, write};

const GENTLE: ResetOptions = ResetOptions { discard: false, force: false };
const DISCARD: ResetOptions = ResetOptions { discard: true, force: false };
const FORCE: ResetOptions = ResetOptions { discard: false, force: true };
const NAMES: RowNames = RowNames { uid: [b'c'; 40], name: [0; 32], pid_namespace: 0 };

/// A reader of this process.
fn reader(
    world: &World,
    name: &str,
) -> Reader<tidegate_hub::attachment::ConsumerWords, tidegate_hub::attachment::Process> {
    let seen = std::sync::Arc::new(attach(name, &world.options(Role::Consumer)).unwrap());
    let core = consumer_core(&seen, WaitStrategy::Hybrid, Timing::default()).unwrap();
    Reader::join(core, Start::Oldest, &NAMES, 1, soon()).unwrap()
}

fn state(block: &Inspector, slot: u32) -> &'static str {
    block.diagnose_slot(slot).unwrap().state.word()
}

fn last_audit(block: &Inspector) -> (&'static str, bool, u64) {
    let audit = block.audit();
    audit.last().map(|entry| (entry.operation, entry.forced, entry.target)).unwrap()
}

/// Rules: DH-084, DH-254, DH-256, DH-263, T-16.
#[test]
fn a_slot_of_a_dead_writer_is_reset_and_the_ids_behind_it_appear() {
    let world = World::of("repairs::a_slot_of_a_dead_writer_is_reset_and_the_ids_behind_it_appear");
    let (producer, name) = world.producer("write 2;open 1");
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    let refused = recovery.reset_slot(2, GENTLE).unwrap_err();
    assert!(refused.is_unsafe(), "{refused}");
    assert_eq!(state(block, 2), "WRITING", "nothing was changed");
    producer.kill();
    let step = recovery.reset_slot(2, GENTLE).unwrap();
    assert_eq!(
        (step.before.as_str(), step.after.as_str(), step.forced),
        ("WRITING id 102", "FREE id 102", false)
    );
    let indices = block.index_summary();
    assert_eq!((state(block, 2), indices.write, indices.commit), ("FREE", 103, 103));
    assert_eq!(block.writer().key, None, "the writer's place is free for the next producer");
    assert_eq!(last_audit(block), ("reset-slot", false, 2));
    let entry = block.audit().pop().unwrap();
    assert_eq!(
        (entry.before, entry.after),
        (103 << 3 | 1, 103 << 3),
        "before and after as they were in the slot"
    );
    assert_eq!(entry.actor.unwrap().pid(), std::process::id());
    let counters = block.metrics().counters;
    assert_eq!((counters.recovery_actions, counters.forced_actions, counters.slots_aborted), (1, 0, 1));
    assert!(counters.last_recovery_timestamp_ns > 0);
    assert_eq!(recovery.reset_slot(2, GENTLE).unwrap_err().code(), 602, "once is enough");
    assert_eq!(recovery.reset_slot(8, GENTLE).unwrap_err().code(), 603);
    assert_eq!(block.diagnose().block.taint, 0);
    assert!(block.integrity(true).is_valid());

    let (adopted, writer) = world.adopt(&name);
    assert_eq!(write(&writer, &adopted, b"again"), 103, "no id is used twice");
    let mut reader = reader(&world, &name);
    let mut read = || {
        let acquired = reader.acquire_ordered(Deadline::Immediate).unwrap();
        reader.release(&acquired, Release::Consumed).unwrap();
        acquired.id.0
    };
    assert_eq!([read(), read(), read()], [100, 101, 103], "the hole is stepped over");
}

/// Only what is open and dead is reset; the rest of the ring stays.
/// Rules: DH-263.
#[test]
fn resetting_one_slot_of_several_leaves_the_others_open() {
    let world = World::of("repairs::resetting_one_slot_of_several_leaves_the_others_open");
    let (producer, name) = world.producer("write 1;open 3");
    producer.kill();
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    recovery.reset_slot(2, GENTLE).unwrap();
    let seen: Vec<_> = (0..5).map(|slot| state(block, slot)).collect();
    assert_eq!(seen, ["COMMITTED", "WRITING", "FREE", "WRITING", "FREE"]);
    let indices = block.index_summary();
    assert_eq!((indices.write, indices.commit), (104, 101), "nothing is visible behind an open id");
    assert!(block.integrity(true).is_valid());
    let steps = recovery.reset_all(GENTLE).unwrap();
    assert_eq!(steps.len(), 2);
    assert_eq!(block.index_summary().commit, 104);
    assert_eq!(state(block, 0), "COMMITTED", "what is committed stays");
    assert_eq!(recovery.reset_all(GENTLE).unwrap_err().code(), 602);
    let steps = recovery.reset_all(DISCARD).unwrap();
    assert_eq!((steps.len(), state(block, 0)), (1, "FREE"));
}

/// Rules: DH-255, DH-259, T-10.
#[test]
fn a_slot_that_somebody_reads_is_not_thrown_away() {
    let world = World::of("repairs::a_slot_that_somebody_reads_is_not_thrown_away");
    let (producer, name) = world.producer("write 3");
    let consumer = world.actor(&name, "join;hold");
    producer.kill();
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    for options in [DISCARD, ResetOptions { discard: true, force: true }] {
        let refused = recovery.reset_slot(0, options).unwrap_err();
        assert!(refused.is_unsafe() && refused.to_string().contains("row 0"), "{refused}");
    }
    assert!(recovery.reset_all(DISCARD).unwrap_err().is_unsafe());
    let seen: Vec<_> = (0..3).map(|slot| state(block, slot)).collect();
    assert_eq!(seen, ["COMMITTED"; 3], "all or nothing");
    recovery.reset_slot(2, DISCARD).unwrap();
    assert_eq!(state(block, 2), "FREE");
    consumer.kill();
    recovery.reset_slot(0, DISCARD).unwrap();
    assert_eq!((state(block, 0), state(block, 1)), ("FREE", "COMMITTED"));
    assert!(block.integrity(true).is_valid());
    let mut reader = reader(&world, &name);
    assert_eq!(
        reader.acquire_ordered(Deadline::Immediate).unwrap().id.0,
        101,
        "a hole, then the one that was kept"
    );
}

/// T-09, the library's part.
/// Rules: DH-257, DH-258, DH-045, T-09.
#[test]
fn force_cuts_a_live_writer_off_and_gives_its_slots_to_nobody() {
    let world = World::of("repairs::force_cuts_a_live_writer_off_and_gives_its_slots_to_nobody");
    let mut producer = world.start("create;write 8;later", None);
    let name = producer.said("block ");
    producer.said("done");
    let recovery = world.recovery(&name);
    let look = recovery.inspector();
    // Nothing is open, so that cutting it off is all that happens.
    let step = recovery.reset_slot(0, FORCE).unwrap();
    assert!(step.forced);
    let summary = look.diagnose().block;
    assert_eq!(summary.taint, 1, "a writer was seized");
    let counters = look.metrics().counters;
    assert_eq!((counters.forced_actions, counters.writer_seizures), (1, 1));
    assert!(look.audit().iter().any(|entry| entry.operation == "seize" && entry.forced));
    producer.tell();
    assert!(producer.said("result ").contains("Fenced"), "its next call tells it");
    drop(producer);

    let (open, name) = world.producer("write 1;open 1");
    let recovery = world.recovery(&name);
    let look = recovery.inspector();
    recovery.reset_slot(1, FORCE).unwrap();
    assert_eq!(state(look, 1), "QUARANTINED");
    assert_eq!(look.index_summary().commit, 102, "the id is a hole");
    assert_eq!(look.diagnose().block.state, "CLOSING", "writing goes on in new memory");
    let (adopted, writer) = world.adopt(&name);
    let again = writer.allocate(1, Deadline::Immediate);
    assert!(again.is_err(), "nobody writes where one may wake up that was cut off: {again:?}");
    assert_eq!(state(look, 1), "QUARANTINED");
    writer.resign().unwrap();
    drop((adopted, writer));
    let refused = recovery.reset_slot(1, GENTLE).unwrap_err();
    assert!(refused.is_unsafe() && refused.to_string().contains(&open.pid().to_string()), "{refused}");
    open.kill();
    recovery.reset_slot(1, GENTLE).unwrap();
    assert_eq!(state(look, 1), "FREE", "it is free once that process is gone");
    assert_eq!(state(look, 0), "COMMITTED", "what was committed can be drained");
}

/// Rules: DH-237, DH-255, DH-236.
#[test]
fn only_rows_of_the_dead_are_reaped() {
    let world = World::of("repairs::only_rows_of_the_dead_are_reaped");
    let (_producer, name) = world.producer("write 4");
    let [alive, dead] = ["join;read 1", "join;read 2;hold"].map(|script| world.actor(&name, script));
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    assert_eq!(recovery.cleanup_dead_consumers().unwrap_err().code(), 602);
    dead.kill();
    assert_eq!(recovery.release_zombie_readers(Some(0)).unwrap_err().code(), 602, "it reads slot 2");
    let steps = recovery.release_zombie_readers(Some(2)).unwrap();
    assert_eq!((steps.len(), steps[0].object.as_str()), (1, "consumer row 1"));
    let rows: Vec<_> = block.consumers().iter().map(|row| row.pid).collect();
    assert_eq!(rows, [alive.pid()]);
    assert_eq!(last_audit(block), ("reap", false, 1));
    assert_eq!(block.metrics().total_reads_completed, 3, "what it read is not forgotten");
    assert!(block.diagnose().healthy);
    assert!(block.integrity(true).is_valid());
}

/// Rules: DH-238, DH-257, DH-259.
#[test]
fn a_live_consumer_is_evicted_by_force_only_and_keeps_what_it_reads() {
    let world = World::of("repairs::a_live_consumer_is_evicted_by_force_only_and_keeps_what_it_reads");
    let (producer, name) = world.producer("write 8");
    let consumer = world.actor(&name, "join;hold");
    let _other = world.actor(&name, "join;read 8");
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    let refused = recovery.evict_consumer(0, false).unwrap_err();
    assert!(refused.is_unsafe() && refused.to_string().contains(&consumer.pid().to_string()), "{refused}");
    assert_eq!(recovery.evict_consumer(2, true).unwrap_err().code(), 602);
    let step = recovery.evict_consumer(0, true).unwrap();
    assert!(step.forced);
    assert_eq!(block.consumers()[0].state, "evicted");
    assert_eq!((block.diagnose().block.taint, block.metrics().counters.consumers_evicted), (8, 1));
    producer.kill();
    let (adopted, writer) = world.adopt(&name);
    // The floor is free; the slot it reads is not.
    let next = writer.allocate(1, Deadline::Immediate);
    assert!(next.is_err(), "{next:?}");
    assert_eq!(block.diagnose_slot(0).unwrap().slot_id, Some(100));
    let dead = consumer.pid();
    consumer.kill();
    assert_eq!(block.consumer(0).unwrap().pid, dead);
    assert_eq!(write(&writer, &adopted, b"value"), 108, "a blocked writer reaps it by itself");
}

/// Who was seen to be stale is evicted only if it is that consumer still, and stale still.
/// Rules: DH-254, DH-259.
#[test]
fn who_beats_again_or_came_since_is_not_evicted() {
    let world = World::of("repairs::who_beats_again_or_came_since_is_not_evicted");
    let (_producer, name) = world.producer("write 1");
    let first = reader(&world, &name);
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    let rows = block.block().consumer_views().unwrap().consumers;
    let heartbeat = rows.row(0).unwrap().u64::<{ offset_of!(ConsumerRow, last_heartbeat_ns) }>();
    let long = Duration::from_secs(10);
    let refused = |seen: &ConsumerInfo, longest| recovery.evict_stale(seen, longest).unwrap_err().code();
    let seen = block.consumer(0).unwrap();
    assert_eq!(refused(&seen, long), 602, "it has just joined");
    first.leave(soon()).unwrap();
    assert_eq!(refused(&seen, Duration::ZERO), 602, "nobody is there");
    let _second = reader(&world, &name);
    heartbeat.store(1, Relaxed);
    assert_eq!(refused(&seen, long), 602, "the row is somebody else's, who has not to go for that");
    let seen = block.consumer(0).unwrap();
    assert!(recovery.evict_stale(&seen, long).unwrap().forced);
    assert_eq!(block.consumer(0).unwrap().state, "evicted");
    assert_eq!(refused(&seen, long), 602, "once is enough");
    assert_eq!((block.diagnose().block.taint, block.metrics().counters.consumers_evicted), (8, 1));
}

/// Rules: DH-149, DH-151, DH-255.
#[test]
fn locks_of_the_dead_are_freed_and_poisoned_those_of_the_living_by_force_only() {
    let world =
        World::of("repairs::locks_of_the_dead_are_freed_and_poisoned_those_of_the_living_by_force_only");
    let (_producer, name) = world.producer("write 1");
    let alive = world.actor(&name, "join;lock 8");
    let dead = world.actor(&name, "join;lock 9");
    dead.kill();
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    let refused = recovery.unlock(8, false).unwrap_err();
    assert!(refused.is_unsafe() && refused.to_string().contains(&alive.pid().to_string()), "{refused}");
    assert_eq!(recovery.unlock(10, false).unwrap_err().code(), 602);
    let (freed, skipped) = recovery.force_unlock_all(false).unwrap();
    assert_eq!((freed.len(), skipped.len(), skipped[0].index), (1, 1, Some(8)));
    let lock = |index| block.list_locks().into_iter().find(|lock| lock.index == Some(index)).unwrap();
    let nine = lock(9);
    assert_eq!((nine.kind, nine.owner, nine.depth, nine.poisoned), (LockKind::Spinlock, None, 0, true));
    assert_eq!(nine.generation, 1);
    assert_eq!(last_audit(block), ("unlock", false, 9));
    assert_eq!(block.diagnose().block.taint, 0);
    let (freed, skipped) = recovery.force_unlock_all(true).unwrap();
    assert_eq!((freed.len(), freed[0].forced, skipped.len()), (1, true, 0));
    assert!(lock(8).owner.is_none() && lock(8).poisoned);
    assert_eq!((block.diagnose().block.taint, last_audit(block)), (4, ("unlock", true, 8)));
    let waiters =
        offset_of!(LockRecord, wake_seq) as u64 + block.descriptor().geometry.locks().offset + 8 * 64;
    assert_eq!(block.block().region().atomic_u32(waiters).unwrap().load(Relaxed), 1, "who sleeps is woken");
}

/// Rules: DH-260, T-08.
#[test]
fn a_plan_changes_nothing_and_says_exactly_what_is_done() {
    let world = World::of("repairs::a_plan_changes_nothing_and_says_exactly_what_is_done");
    let (producer, name) = world.producer("write 2;open 1");
    let (pid, consumer) = (producer.pid(), world.actor(&name, "join;read 1;lock 9"));
    let consumer_pid = consumer.pid();
    producer.kill();
    consumer.kill();
    let path = world.dir().join(&name);
    let before = fs::read(&path).unwrap();
    let planned = plan::plan(&world.inspector(&name));
    assert!(fs::read(&path).unwrap() == before, "not even a counter");
    let texts: Vec<_> = planned.iter().map(|repair| (repair.issue(), repair.action())).collect();
    let expected = [
        (
            format!("writer pid {pid} DEAD: slot 2 holds abandoned id 102"),
            "adopt, slot 2 -> FREE, id 102 becomes a hole, commit index 102 -> 103",
        ),
        (format!("spinlock 9 (): pid {consumer_pid} DEAD"), "release lock 9, mark it poisoned"),
    ];
    assert_eq!((texts[0].0.as_str(), texts[0].1.as_str()), (expected[0].0.as_str(), expected[0].1));
    assert!(texts[1].0.starts_with(&format!("consumer row 0: pid {consumer_pid} DEAD")), "{texts:?}");
    assert_eq!((texts[2].0.as_str(), texts[2].1.as_str()), (expected[1].0.as_str(), expected[1].1));

    let recovery = world.recovery(&name);
    let steps = recovery.auto_recover().unwrap();
    let mut done: Vec<_> = steps.iter().map(|step| step.object.as_str()).collect();
    done.sort_unstable();
    assert_eq!(done, ["consumer row 0", "spinlock 9", "writer"], "{steps:?}");
    assert!(steps.iter().all(|step| !step.forced));
    let block = recovery.inspector();
    assert_eq!(plan::plan(block), [], "nothing is left to do");
    assert_eq!(recovery.auto_recover().unwrap(), [], "doing it again does nothing");
    assert_eq!((block.index_summary().commit, block.consumers().len()), (103, 0));
    let operations: Vec<_> = block.audit().iter().map(|entry| entry.operation).collect();
    for wanted in ["adopt", "reset-slot", "reap", "unlock"] {
        assert!(operations.contains(&wanted), "{wanted} in {operations:?}");
    }
    assert!(block.integrity(true).is_valid());
}

/// What one slot that was reset leaves behind is adopted, too.
/// Rules: DH-260, DH-263.
#[test]
fn what_is_open_without_a_writer_is_planned_and_adopted() {
    let world = World::of("repairs::what_is_open_without_a_writer_is_planned_and_adopted");
    let (producer, name) = world.producer("write 1;open 2");
    producer.kill();
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    recovery.reset_slot(1, GENTLE).unwrap();
    let planned = plan::plan(block);
    assert!(matches!(planned.as_slice(), [Repair::Adopt { writer: None, .. }]), "{planned:?}");
    let steps = recovery.release_zombie_writer().unwrap();
    assert!(
        matches!(steps.as_slice(), [step] if step.done.contains("1 ids") && step.before == "none"),
        "{steps:?}"
    );
    assert_eq!((state(block, 2), block.index_summary().commit), ("FREE", 103));
    assert_eq!(plan::plan(block), []);
    assert_eq!(recovery.release_zombie_writer().unwrap_err().code(), 602);
}

/// N-43: who starts between looking and acting is not disturbed.
/// Rules: DH-254, DH-255, DH-256, N-43.
#[test]
fn a_producer_that_came_back_is_left_alone() {
    let world = World::of("repairs::a_producer_that_came_back_is_left_alone");
    let (producer, name) = world.producer("write 2;open 1");
    producer.kill();
    let recovery = world.recovery(&name);
    let planned = plan::plan(recovery.inspector());
    assert!(matches!(planned.as_slice(), [Repair::Adopt { .. }]), "{planned:?}");
    let (block, writer) = world.adopt(&name);
    let open = writer.allocate(1, soon()).unwrap().first;
    for refused in [
        recovery.reset_slot(3, GENTLE).map(drop).unwrap_err(),
        recovery.reset_all(DISCARD).map(drop).unwrap_err(),
        recovery.release_zombie_writer().map(drop).unwrap_err(),
    ] {
        assert!(refused.is_unsafe(), "{refused}");
    }
    assert_eq!(recovery.auto_recover().unwrap(), []);
    assert!(writer.commit(open, CommitInfo { len: 0, user_flags: 0, slot_flags: 0 }).is_ok());
    assert_eq!(write(&writer, &block, b"on"), 104);
}

/// Rules: DH-083, DH-081, DH-262.
#[test]
fn a_maintenance_lock_of_the_dead_is_taken_over_and_the_registry_repaired() {
    let world = World::of("repairs::a_maintenance_lock_of_the_dead_is_taken_over_and_the_registry_repaired");
    let (_producer, name) = world.producer("write 1");
    let consumer = world.actor(&name, "join;maintenance");
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    let refused = recovery.repair_registry().unwrap_err();
    assert_eq!(refused.code(), 401, "its holder lives: {refused}");
    // What a joiner and a leaver leave that die with the lock.
    let views = block.block().consumer_views().unwrap();
    views.consumers.row(3).unwrap().u64::<0>().store(7 << 8 | 1, Relaxed);
    views.sync.row().u32::<{ offset_of!(SyncPage, active_mask) }>().fetch_or(1 << 5, Relaxed);
    consumer.kill();
    let planned = plan::plan(block);
    assert!(matches!(planned[0], Repair::Registry { holder: Some(_) }), "{planned:?}");
    let steps = recovery.auto_recover().unwrap();
    assert!(steps.iter().any(|step| step.object == "consumer table"), "{steps:?}");
    assert_eq!(views.consumers.row(3).unwrap().u64::<0>().load(Relaxed), 7 << 8);
    assert_eq!(views.sync.row().u32::<{ offset_of!(SyncPage, active_mask) }>().load(Relaxed), 0);
    assert!(block.audit().iter().any(|entry| entry.operation == "lock-takeover"));
    assert!(block.audit().iter().any(|entry| entry.operation == "registry-repair"));
    assert_eq!((block.consumers().len(), block.diagnose().healthy), (0, true));
}

/// A damaged slot is thrown away with discard and force only; the ring is whole afterwards.
/// Rules: DH-046, DH-257.
#[test]
fn a_slot_in_no_possible_state_is_replaced_by_a_hole() {
    let world = World::of("repairs::a_slot_in_no_possible_state_is_replaced_by_a_hole");
    let (producer, name) = world.producer("write 5");
    producer.kill();
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    let record = block.descriptor().geometry.slot_records().offset + 2 * 64;
    let word = block.block().region().atomic_u64_mut(record).unwrap();
    for wrong in [103 << 3 | 6, 102 << 3 | 2, u64::MAX, 2, 0x0FFF_FFFF << 3, (103 + (8 << 30)) << 3 | 2] {
        word.store(wrong, Relaxed);
        if wrong >> 3 > 105 {
            assert_eq!(recovery.auto_recover().unwrap_err().code(), 120, "{wrong:#x} decides nothing");
        }
        for options in [GENTLE, DISCARD, FORCE] {
            assert_eq!(recovery.reset_slot(2, options).unwrap_err().code(), 120, "{wrong:#x} {options:?}");
        }
        assert_eq!(word.load(Relaxed), wrong, "nothing is forced without being asked for");
        recovery.reset_slot(2, ResetOptions { discard: true, force: true }).unwrap();
        assert_eq!(word.load(Relaxed), 103 << 3, "the newest id that can have been there is a hole");
        assert!(block.integrity(true).is_valid(), "{wrong:#x}: {:?}", block.integrity(true).findings);
    }
    assert_eq!((block.diagnose().block.taint, block.index_summary().write), (2, 105));
    let mut reader = reader(&world, &name);
    let mut read = || {
        let acquired = reader.acquire_ordered(Deadline::Immediate).unwrap();
        reader.release(&acquired, Release::Consumed).unwrap();
        acquired.id.0
    };
    assert_eq!([read(), read(), read(), read()], [100, 101, 103, 104]);
}

/// Impossible control words are a case for a new block, not for computing with them.
/// Rules: DH-262.
#[test]
fn nothing_is_computed_from_damaged_control_words() {
    let world = World::of("repairs::nothing_is_computed_from_damaged_control_words");
    let (producer, name) = world.producer("write 5;open 1");
    producer.kill();
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    let commit = block.descriptor().geometry.control().offset + 0x80;
    block.block().region().atomic_u64_mut(commit).unwrap().store(1 << 50, Relaxed);
    let before = fs::read(world.dir().join(&name)).unwrap();
    assert_eq!(recovery.reset_slot(5, GENTLE).unwrap_err().code(), 120);
    assert_eq!(recovery.release_zombie_writer().unwrap_err().code(), 120);
    let refused = recovery.auto_recover().unwrap_err();
    assert!(refused.to_string().contains("commit_index"), "{refused}");
    assert!(fs::read(world.dir().join(&name)).unwrap() == before);
}

/// Rules: DH-241, DH-255, DH-282.
#[test]
fn names_of_blocks_in_use_stay_unless_forced() {
    let world = World::of("repairs::names_of_blocks_in_use_stay_unless_forced");
    let options = world.options(Role::Recovery);
    let (producer, name) = world.producer("write 1");
    let consumer = world.actor(&name, "join");
    assert_eq!(files::reclaimable(&options).unwrap(), []);
    let refused = files::force_unlink(&name, &options, false).unwrap_err();
    assert!(refused.is_unsafe(), "{refused}");
    for pid in [producer.pid(), consumer.pid()] {
        assert!(refused.to_string().contains(&pid.to_string()), "{refused}");
    }
    producer.kill();
    assert_eq!(files::reclaimable(&options).unwrap(), [], "a consumer lives");
    assert!(files::force_unlink(&name, &options, false).unwrap_err().is_unsafe());
    consumer.kill();
    let found = files::reclaimable(&options).unwrap();
    assert_eq!((found.len(), &found[0].name, found[0].consumers), (1, &name, 1));
    // It is taken up again before it is removed.
    let (block, writer) = world.adopt(&name);
    assert!(files::reclaim(&found[0], &options).unwrap_err().is_unsafe());
    files::force_unlink(&name, &options, true).unwrap();
    assert_eq!(world.names(), Vec::<String>::new());
    assert_eq!(write(&writer, &block, b"on"), 101, "who has it attached goes on");
    let last = Inspector::of(block.clone()).unwrap().audit().pop().unwrap();
    assert_eq!((last.operation, last.forced), ("unlink", true));
}

/// What somebody else has removed meanwhile is no failure of those who wanted to.
/// Rules: DH-254, DH-262, N-43.
#[test]
fn names_that_are_gone_already_are_nobodys_failure() {
    let world = World::of("repairs::names_that_are_gone_already_are_nobodys_failure");
    let options = world.options(Role::Recovery);
    let (producer, name) = world.producer("write 1");
    producer.kill();
    let found = files::reclaimable(&options).unwrap();
    let recovery = world.recovery(&name);
    let control = recovery.inspector().block().writer_views().unwrap().control;
    let handover = control.row().u32::<{ offset_of!(ControlPage, handover_state) }>();
    files::reclaim(&found[0], &options).unwrap();
    let refused = files::reclaim(&found[0], &options).unwrap_err();
    assert!(refused.is_gone() && !refused.is_unsafe(), "{refused}");
    // Cut: there was something left to do. Done: all of it has been done.
    for (state, steps) in [(2, 1), (3, 0)] {
        handover.store(state, Relaxed);
        assert_eq!(plan::plan(recovery.inspector()), [Repair::FinishHandover], "{state}");
        assert_eq!(recovery.auto_recover().unwrap().len(), steps, "{state}");
    }
}

/// T-16, the ring itself.
/// Rules: T-16.
#[test]
fn the_audit_ring_keeps_the_newest_32() {
    let world = World::of("repairs::the_audit_ring_keeps_the_newest_32");
    let (_producer, name) = world.producer("write 1");
    let recovery = world.recovery(&name);
    for _ in 0..32 {
        recovery.reset_metrics().unwrap();
    }
    let numbers = || recovery.inspector().audit().iter().map(|entry| entry.sequence).collect::<Vec<_>>();
    assert_eq!(numbers(), (0..32).collect::<Vec<_>>());
    recovery.reset_metrics().unwrap();
    assert_eq!(numbers(), (1..33).collect::<Vec<_>>());
    assert!(recovery.inspector().integrity(true).is_valid());
}

/// N-43: two at once. Every abandoned id becomes a hole exactly once.
/// Rules: DH-256, DH-262, N-43.
#[test]
fn two_repairs_at_once_do_it_once() {
    let world = World::of("repairs::two_repairs_at_once_do_it_once");
    for _ in 0..10 {
        let (producer, name) = world.producer("write 1;open 4");
        producer.kill();
        let recoveries = [world.recovery(&name), world.recovery(&name)];
        std::thread::scope(|scope| {
            for recovery in &recoveries {
                scope.spawn(move || match recovery.auto_recover() {
                    Ok(_) => {}
                    Err(error) => assert!(error.is_unsafe(), "{error}"),
                });
            }
        });
        let block = world.inspector(&name);
        assert_eq!(block.metrics().counters.slots_aborted, 4);
        let resets = block.audit().iter().filter(|entry| entry.operation == "reset-slot").count();
        assert_eq!((resets, block.index_summary().commit), (4, 105));
        assert_eq!(plan::plan(&block), []);
        files::force_unlink(&name, &world.options(Role::Recovery), false).unwrap();
    }
}

/// Rules: DH-039, DH-255.
#[test]
fn a_process_does_not_repair_the_block_it_writes() {
    let world = World::of("repairs::a_process_does_not_repair_the_block_it_writes");
    let (block, writer) = world.block(&spec());
    let name = block.descriptor().file_name();
    let open = writer.allocate(1, soon()).unwrap().first;
    let recovery = world.recovery(&name);
    for refused in [recovery.reset_slot(0, GENTLE).unwrap_err(), recovery.reset_slot(0, FORCE).unwrap_err()] {
        assert!(refused.is_unsafe(), "{refused}");
    }
    assert!(writer.commit(open, CommitInfo { len: 1, user_flags: 0, slot_flags: 0 }).is_ok());
    assert!(!matches!(writer.allocate(1, soon()), Err(WriteError::Acquire(AcquireError::Fenced))));
    let word = block.inspector_views().unwrap().metrics;
    let actions = word.row().u64::<{ offset_of!(MetricsPage, recovery_actions) }>().load(Relaxed);
    assert_eq!(actions, 0);
}
