//! Producers that die at every step of a handover (15.6).

use std::{mem::offset_of, path::Path};

use tidegate_hub::{
    block::{AttachError, AttachOptions, Role, find},
    config::{ConsumerConfig, HubConfig, IfExists},
    consumer::{Consumer, HandoverIterator},
    core::Start,
    error::{AcquireError, OpenError},
    handover::{Confirm, HandoverOptions},
    layout::{BlockUuid, pages::ControlPage},
    producer::Producer,
    recover::{
        RecoverError, Recovery,
        files::{force_unlink, reclaim, reclaimable},
        plan,
        slots::ResetOptions,
    },
};
use tidegate_shm::sync::Ordering::Acquire;

use crate::{
    all_readers, blocks,
    children::{Child, linger, role, say},
    drain, until,
    world::{LONG, consumer_config, place, send, send_all},
};

const KILLED: Option<i32> = Some(9);

fn kept(dir: &Path, slots: u32) -> HubConfig {
    HubConfig { unlink_on_close: false, ..all_readers(dir, slots) }
}

/// Writes 0 to 3, moves, writes 4 and 5.
fn move_and_write(dir: &Path) {
    move_to_and_write(dir, dir);
}

/// The same, to a block in the directory `to`.
fn move_to_and_write(dir: &Path, to: &Path) {
    let old = Producer::create(&kept(dir, 8)).unwrap();
    say(format!("block {}", old.name()));
    send_all(&old, 0..4);
    let unasked = HandoverOptions { confirm: Confirm::None, ..HandoverOptions::default() };
    let new = old.begin_handover(&kept(to, 16), unasked).unwrap().cut().unwrap();
    send_all(&new, 4..6);
    linger();
}

/// Whoever adopts finds the channel where the old block says it is; consumers lose nothing and need no help. A successor
/// that has a name and was not cut to is not gone to, and removed.
///
/// Rules: DH-225, DH-230, DH-222, V-08, V-11.
#[test]
fn a_producer_may_die_at_every_step() {
    if let Some(task) = role("writer") {
        return move_and_write(&task.dir);
    }
    let test = "deaths::a_producer_may_die_at_every_step";
    for (step, moved) in [("h.prepare", false), ("h.quiesce", false), ("h.link", false), ("h.cut", true)] {
        let dir = place();
        let mut writer = Child::start_at(test, "writer", dir.path(), "", Some(step));
        let name = writer.wait_for("block");
        let config = ConsumerConfig { start: Some(Start::Oldest), ..consumer_config(dir.path()) };
        let mut iterator = HandoverIterator::attach(&name, &config).unwrap();
        assert_eq!(writer.signal(), KILLED, "{step}");
        assert_eq!(
            blocks(dir.path()).len(),
            if matches!(step, "h.link" | "h.cut") { 2 } else { 1 },
            "{step}"
        );
        assert_eq!(drain(&mut iterator), [0, 1, 2, 3], "{step}");
        assert_eq!(iterator.consumer().block().path().ends_with(&name), !moved, "{step}");
        let producer = Producer::adopt(&name, &kept(dir.path(), 8), LONG).unwrap();
        assert_eq!(producer.name() != name, moved, "{step}");
        assert_eq!(send(&producer, 4), 4, "{step}");
        assert_eq!(drain(&mut iterator), [4], "{step}");
        until("one block is left", || blocks(dir.path()) == [producer.name()]);
        // And it can be moved again.
        let unasked = HandoverOptions { confirm: Confirm::None, ..HandoverOptions::default() };
        let next = producer.begin_handover(&kept(dir.path(), 4), unasked).unwrap().cut().unwrap();
        send(&next, 5);
        assert_eq!(drain(&mut iterator), [5], "{step}");
    }
}

/// A successor that has a name and was not cut to is not the channel, neither for those who look for it nor for who names
/// it.
///
/// Rules: DH-225, DH-230, V-08, V-11.
#[test]
fn a_successor_that_was_never_cut_to_does_not_take_the_channel() {
    if let Some(task) = role("writer") {
        return move_and_write(&task.dir);
    }
    let test = "deaths::a_successor_that_was_never_cut_to_does_not_take_the_channel";
    let dir = place();
    let mut writer = Child::start_at(test, "writer", dir.path(), "", Some("h.link"));
    let name = writer.wait_for("block");
    let config = ConsumerConfig { start: Some(Start::Oldest), ..consumer_config(dir.path()) };
    let mut iterator = HandoverIterator::attach(&name, &config).unwrap();
    assert_eq!(writer.signal(), KILLED);
    let successor = blocks(dir.path()).into_iter().find(|block| *block != name).unwrap();
    let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Consumer) };
    let channel = kept(dir.path(), 8).channel;
    let found: Vec<String> = find(&channel, &options).unwrap().into_iter().map(|found| found.name).collect();
    assert_eq!(found, std::slice::from_ref(&name));
    let producer = Producer::adopt(&successor, &kept(dir.path(), 8), LONG).unwrap();
    assert_eq!((producer.name(), send(&producer, 4)), (name, 4));
    assert_eq!(drain(&mut iterator), [0, 1, 2, 3, 4]);
    assert_eq!(blocks(dir.path()), [producer.name()]);
}

/// A successor in another place is removed as well, if whoever adopts knows that place.
///
/// Rules: DH-230.
#[test]
fn a_successor_elsewhere_is_removed_with_the_handover() {
    if let Some(task) = role("writer") {
        return move_to_and_write(&task.dir, &task.dir.join("huge"));
    }
    let test = "deaths::a_successor_elsewhere_is_removed_with_the_handover";
    let dir = place();
    let other = dir.path().join("huge");
    std::fs::create_dir(&other).unwrap();
    let mut writer = Child::start_at(test, "writer", dir.path(), "", Some("h.link"));
    let name = writer.wait_for("block");
    assert_eq!(writer.signal(), KILLED);
    assert_eq!(blocks(&other).len(), 1);
    let config = HubConfig { huge_dir: Some(other.clone()), ..kept(dir.path(), 8) };
    let producer = Producer::adopt(&name, &config, LONG).unwrap();
    assert_eq!((producer.name(), send(&producer, 4)), (name, 4));
    assert_eq!(blocks(&other), Vec::<String>::new());
}

/// The last step is finished by whoever adopts.
///
/// Rules: DH-230, V-08.
#[test]
fn a_producer_may_die_while_it_removes_the_old_name() {
    if let Some(task) = role("writer") {
        return move_and_write(&task.dir);
    }
    let test = "deaths::a_producer_may_die_while_it_removes_the_old_name";
    for way in ["old name", "new name", "recovery", "reclaim"] {
        let dir = place();
        let mut writer = Child::start_at(test, "writer", dir.path(), "", Some("h.close"));
        let old = writer.wait_for("block");
        assert_eq!(writer.signal(), KILLED);
        let mut both = blocks(dir.path());
        both.retain(|name| *name != old);
        let [new] = &both[..] else { panic!("two blocks") };
        let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) };
        let adopt = |name: &str| {
            let producer = Producer::adopt(name, &kept(dir.path(), 8), LONG).unwrap();
            assert_eq!(&producer.name(), new);
            let next = send(&producer, 9);
            assert!((4..=6).contains(&next), "{next}");
            producer
        };
        // Whoever looks for the channel finds the new block only.
        let producer = match way {
            "old name" => Some(adopt(&old)),
            "new name" => Some(adopt(new)),
            "recovery" => {
                let recovery = Recovery::open(&old, &options).unwrap();
                let codes: Vec<_> = plan::plan(recovery.inspector()).iter().map(plan::Repair::code).collect();
                assert_eq!(codes, ["finish_handover"]);
                assert_eq!(recovery.auto_recover().unwrap().len(), 1);
                Some(adopt(new))
            }
            _ => {
                for block in reclaimable(&options).unwrap().iter().filter(|block| block.name == old) {
                    reclaim(block, &options).unwrap();
                }
                None
            }
        };
        assert_eq!(blocks(dir.path()), std::slice::from_ref(new), "{way}");
        drop(producer);
    }
}

/// A block that the channel has left for one that is gone is over: it is not found, and who adopts it ends it. As long as it is
/// read, nobody removes the other as unused.
///
/// Rules: DH-230, DH-241.
#[test]
fn a_block_that_was_left_for_one_that_is_gone_is_over() {
    if let Some(task) = role("writer") {
        return move_and_write(&task.dir);
    }
    let test = "deaths::a_block_that_was_left_for_one_that_is_gone_is_over";
    let dir = place();
    let mut writer = Child::start_at(test, "writer", dir.path(), "", Some("h.cut"));
    let name = writer.wait_for("block");
    let mut reader = Consumer::attach(&name, &consumer_config(dir.path())).unwrap();
    assert_eq!(writer.signal(), KILLED);
    let successor = blocks(dir.path()).into_iter().find(|block| *block != name).unwrap();
    let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) };
    assert_eq!(reclaimable(&options).unwrap(), []);
    let refused = force_unlink(&successor, &options, false).unwrap_err();
    assert!(matches!(refused, RecoverError::InUse { .. }), "{refused}");
    std::fs::remove_file(dir.path().join(&successor)).unwrap();
    let channel = kept(dir.path(), 8).channel;
    let looking = AttachOptions { role: Role::Consumer, ..options };
    assert!(find(&channel, &looking).unwrap().is_empty());
    let refused = Producer::adopt(&name, &kept(dir.path(), 8), LONG).unwrap_err();
    assert!(matches!(refused, OpenError::Attach(AttachError::Closed)), "{refused}");
    assert_eq!(blocks(dir.path()), Vec::<String>::new());
    while reader.try_next().is_ok() {}
    assert!(matches!(reader.try_next(), Err(AcquireError::Closed { .. })));
}

/// Whoever has ended the block before that of a dead producer does not keep its name from himself.
///
/// Rules: DH-039, DH-230.
#[test]
fn a_name_that_was_moved_from_can_be_had_again() {
    let uuid = BlockUuid::new([7; 16]).unwrap();
    let named =
        |dir: &Path| HubConfig { uuid: Some(uuid), if_exists: IfExists::Adopt, ..all_readers(dir, 8) };
    if let Some(task) = role("writer") {
        let old = Producer::create(&named(&task.dir)).unwrap();
        say(format!("block {}", old.name()));
        until("somebody reads", || old.consumer_count() == 1);
        let unasked = HandoverOptions { confirm: Confirm::None, ..HandoverOptions::default() };
        let new = old.begin_handover(&all_readers(&task.dir, 16), unasked).unwrap().cut().unwrap();
        say(format!("moved to {}", new.name()));
        return linger();
    }
    let test = "deaths::a_name_that_was_moved_from_can_be_had_again";
    let dir = place();
    let mut writer = Child::start(test, "writer", dir.path(), "");
    let name = writer.wait_for("block");
    let reader = Consumer::attach(&name, &consumer_config(dir.path())).unwrap();
    let successor = writer.wait_for("moved to");
    writer.kill();
    let producer = Producer::create(&named(dir.path())).unwrap();
    assert_eq!(producer.name(), successor);
    drop(reader);
    producer.close().unwrap();
    assert_eq!(blocks(dir.path()), Vec::<String>::new());
    assert_eq!(Producer::create(&named(dir.path())).unwrap().name(), name);
}

/// Without a new producer the recovery calls the handover off, also where a consumer has cleaned up after the dead one.
///
/// Rules: DH-230, V-08.
#[test]
fn recovery_calls_a_dead_handover_off() {
    if let Some(task) = role("writer") {
        return move_and_write(&task.dir);
    }
    let test = "deaths::recovery_calls_a_dead_handover_off";
    for watched in [false, true] {
        let dir = place();
        let mut writer = Child::start_at(test, "writer", dir.path(), "", Some("h.link"));
        let name = writer.wait_for("block");
        assert_eq!(writer.signal(), KILLED);
        assert_eq!(blocks(dir.path()).len(), 2);
        let reader = watched.then(|| {
            let reader = HandoverIterator::attach(&name, &consumer_config(dir.path())).unwrap();
            let control = reader.consumer().block().inspector_views().unwrap().control;
            let owner = || control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>().load(Acquire);
            until("the consumer has cleaned up", || owner() == 0);
            reader
        });
        let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) };
        Recovery::open(&name, &options).unwrap().auto_recover().unwrap();
        assert_eq!(blocks(dir.path()), std::slice::from_ref(&name));
        drop(reader);
        let producer = Producer::adopt(&name, &kept(dir.path(), 8), LONG).unwrap();
        assert_eq!((producer.name(), send(&producer, 4)), (name, 4));
    }
}

/// Who calls a handover off may die at it: the next one does what is left, whoever that is.
///
/// Rules: DH-230, DH-262, DH-081.
#[test]
fn whoever_calls_a_dead_handover_off_may_die_as_well() {
    if let Some(task) = role("writer") {
        return move_and_write(&task.dir);
    }
    let options = |dir: &Path| AttachOptions { dir: dir.to_owned(), ..AttachOptions::new(Role::Recovery) };
    let recover =
        |dir: &Path, name: &str| Recovery::open(name, &options(dir)).unwrap().auto_recover().unwrap();
    if let Some(task) = role("recovery") {
        recover(&task.dir, &task.block);
        return;
    }
    if let Some(task) = role("heir") {
        let _ = Producer::adopt(&task.block, &kept(&task.dir, 8), LONG);
        return;
    }
    let test = "deaths::whoever_calls_a_dead_handover_off_may_die_as_well";
    for first in ["recovery", "heir"] {
        let dir = place();
        let mut writer = Child::start_at(test, "writer", dir.path(), "", Some("h.link"));
        let name = writer.wait_for("block");
        assert_eq!(writer.signal(), KILLED);
        assert_eq!(blocks(dir.path()).len(), 2, "{first}");
        let mut repair = Child::start_at(test, first, dir.path(), &name, Some("h.cancel"));
        assert_eq!(repair.signal(), KILLED, "{first}");
        recover(dir.path(), &name);
        assert_eq!(blocks(dir.path()), std::slice::from_ref(&name), "{first}");
        let recovery = Recovery::open(&name, &options(dir.path())).unwrap();
        assert_eq!(plan::plan(recovery.inspector()), [], "{first}");
        assert_eq!(recovery.inspector().diagnose().block.handover, 4, "{first}");
    }
}

/// A producer that was paused at the cut and lost its block by force does not cut when it goes on: the channel stays where
/// those are who were told so, and what it had made is gone.
///
/// Rules: DH-222, DH-258, DH-044.
#[test]
fn a_producer_that_was_cut_off_does_not_move_the_channel() {
    if let Some(task) = role("writer") {
        let old = Producer::create(&kept(&task.dir, 8)).unwrap();
        say(format!("block {}", old.name()));
        send_all(&old, 0..4);
        let unasked = HandoverOptions { confirm: Confirm::None, ..HandoverOptions::default() };
        let refused = old.begin_handover(&kept(&task.dir, 16), unasked).unwrap().cut().unwrap_err();
        say(format!("refused {refused:?}"));
        return linger();
    }
    let test = "deaths::a_producer_that_was_cut_off_does_not_move_the_channel";
    let dir = place();
    let mut writer = Child::start_and_stop_at(test, "writer", dir.path(), "", "h.link");
    let name = writer.wait_for("block");
    writer.stops();
    assert_eq!(blocks(dir.path()).len(), 2);
    let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) };
    let recovery = Recovery::open(&name, &options).unwrap();
    recovery.reset_slot(0, ResetOptions { force: true, discard: false }).unwrap();
    writer.go_on();
    assert_eq!(writer.wait_for("refused"), "Acquire(Fenced)");
    assert_eq!(recovery.inspector().diagnose().block.handover, 1, "the next writer calls it off");
    assert_eq!(blocks(dir.path()), std::slice::from_ref(&name), "the successor is gone");
    recovery.auto_recover().unwrap();
    assert_eq!(recovery.inspector().diagnose().block.handover, 4);
}
