//! Processes that end while they come, go, remove others, or hold the maintenance lock (K-20 to K-27, K-33, K-34). The
//! writer is stopped until what they left was looked at.

use std::{mem::offset_of, path::Path};

use tidegate_hub::{
    config::ConsumerConfig,
    consumer::Consumer,
    core::Start,
    inspect::{Inspector, LockKind},
    layout::pages::{ConsumerRow, MetricsPage, SyncPage},
    producer::Producer,
};
use tidegate_shm::sync::Ordering::Acquire;

use super::{
    Bystander, KILLED, Use, bystander_config, inspect, is_valid, join,
    reader::{is_writer, let_write, no_ghost, stopped_writer},
    write_one,
};
use crate::{
    children::{Child, role, say},
    world::{LONG, place},
};

/// A process that joins, reads three values and leaves.
fn is_visitor() -> bool {
    let Some(task) = role("visitor") else { return false };
    let mut consumer = Consumer::attach(&task.block, &bystander_config(&task.dir)).unwrap();
    (0..3).for_each(|_| drop(consumer.next(LONG).unwrap()));
    consumer.detach().unwrap();
    true
}

fn visitor(test: &str, dir: &Path, name: &str, step: &str) {
    assert_eq!(Child::start_at(test, "visitor", dir, name, Some(step)).signal(), KILLED, "{step}");
}

/// Low byte of `reg`, and the mask of those who take part.
fn row(inspector: &Inspector, row: u32) -> (u64, u32) {
    let views = inspector.block().inspector_views().unwrap();
    let reg = views.consumers.row(row).unwrap().u64::<{ offset_of!(ConsumerRow, reg) }>().load(Acquire);
    (reg & 0xFF, views.sync.row().u32::<{ offset_of!(SyncPage, active_mask) }>().load(Acquire))
}

fn counted<const AT: usize>(inspector: &Inspector) -> u64 {
    inspector.block().inspector_views().unwrap().metrics.row().u64::<AT>().load(Acquire)
}

fn takeovers(inspector: &Inspector) -> u64 {
    counted::<{ offset_of!(MetricsPage, lock_takeovers) }>(inspector)
}

/// Values read by those who are gone.
fn retired(inspector: &Inspector) -> u64 {
    counted::<{ offset_of!(MetricsPage, total_slots_read_retired) }>(inspector)
}

/// Whether the maintenance lock is held by somebody who is gone.
fn lock_is_orphaned(inspector: &Inspector) -> bool {
    let locks = inspector.list_locks();
    locks.iter().find(|lock| lock.kind == LockKind::Maintenance).is_some_and(|lock| lock.is_dead())
}

const FREE: u64 = 0;
const JOINING: u64 = 1;
const ACTIVE: u64 = 2;
const LEAVING: u64 = 3;

/// Rules: DH-083, DH-081, DH-074, DH-070, K-20, K-21, K-22, K-23, K-24, K-25.
#[test]
fn consumers_that_come_and_go() {
    let test = "points::registry::consumers_that_come_and_go";
    if is_writer() || is_visitor() {
        return;
    }
    let steps = [
        ("j.joining", JOINING, false),
        ("j.identity", JOINING, false),
        ("j.active", ACTIVE, false),
        ("j.mask", ACTIVE, true),
        ("l.leaving", LEAVING, true),
        // The mask is cleared and the owner forgotten; only the state is left.
        ("l.free", LEAVING, false),
    ];
    for usage in [Use::SingleReader, Use::AllReaders, Use::DropOldest] {
        for (step, state, in_mask) in steps {
            let what = format!("{usage:?} {step}");
            let dir = place();
            let (mut writer, name) = stopped_writer(test, usage, dir.path());
            let inspector = inspect(&name, dir.path());
            let mut other = (!usage.is_alone()).then(|| Bystander::new(join(&name, dir.path())));
            let place = u32::from(other.is_some());
            visitor(test, dir.path(), &name, step);
            let (found, mask) = row(&inspector, place);
            assert_eq!((found, mask & (1 << place) != 0), (state, in_mask), "{what}");
            assert!(lock_is_orphaned(&inspector), "{what}: it ends under the lock");
            if let Some(other) = &mut other {
                other.drain();
                assert_eq!(other.seen, (0..8).collect::<Vec<_>>(), "{what}: data is read meanwhile");
            }

            let resume = ConsumerConfig { start: Some(Start::Resume), ..bystander_config(dir.path()) };
            let next = Consumer::attach(&name, &resume).unwrap();
            assert_eq!(takeovers(&inspector), 1, "{what}");
            assert_eq!(next.row(), place, "{what}: the row is used again");
            assert!(inspector.audit().iter().any(|entry| entry.operation == "lock-takeover"), "{what}");
            let read = if step.starts_with("l.") { 3 } else { 0 };
            if usage.is_alone() {
                assert_eq!(next.start_id().0, read, "{what}: whoever left read so far");
            }
            no_ghost(&name, dir.path(), 1 + place as usize, &what);
            let from = next.start_id().0;
            let mut next = Bystander::new(next);
            next.drain();
            if let Some(mut other) = other {
                // It was read up; its row is not to hold the ring back.
                other.consumer.seek_end().unwrap();
                other.consumer.detach().unwrap();
            }
            let_write(usage, &mut writer, dir.path(), &mut next);
            assert_eq!(next.seen.len() as u64 + next.lost, 32 - from, "{what}: {:?}", next.seen);
        }
    }
}

/// Rules: DH-083, DH-237, K-33, K-34.
#[test]
fn processes_that_remove_others() {
    let test = "points::registry::processes_that_remove_others";
    if is_writer() || is_visitor() {
        return;
    }
    for usage in [Use::SingleReader, Use::AllReaders, Use::DropOldest] {
        for step in ["reap.claim", "reap.free"] {
            let what = format!("{usage:?} {step}");
            let dir = place();
            let (mut writer, name) = stopped_writer(test, usage, dir.path());
            let inspector = inspect(&name, dir.path());
            let other = (!usage.is_alone()).then(|| join(&name, dir.path()));
            let place = u32::from(other.is_some());
            visitor(test, dir.path(), &name, "r.read:2");
            // The first thing that the next one does is to remove it.
            visitor(test, dir.path(), &name, step);
            assert_eq!(row(&inspector, place).0, LEAVING, "{what}");
            let claim = inspector.consumer(place).unwrap().claim_first;
            assert_eq!(claim, None, "{what}: it reads nothing any more");
            assert!(lock_is_orphaned(&inspector), "{what}");

            let resume = ConsumerConfig { start: Some(Start::Resume), ..bystander_config(dir.path()) };
            let next = Consumer::attach(&name, &resume).unwrap();
            assert_eq!((next.row(), row(&inspector, place).0), (place, ACTIVE), "{what}");
            let from = next.start_id().0;
            if usage.is_alone() {
                assert_eq!(from, 1, "{what}");
            }
            let retired = retired(&inspector);
            assert_eq!(retired, 1, "{what}: counted once");
            drop(other);
            // The writer looks for the dead as well now, and finds none.
            let mut next = Bystander::new(next);
            let_write(usage, &mut writer, dir.path(), &mut next);
            assert_eq!(next.seen.len() as u64 + next.lost, 32 - from, "{what}: {:?}", next.seen);
            no_ghost(&name, dir.path(), 1, &what);
            assert_eq!(row(&inspector, 1 - place).0, FREE, "{what}");
            is_valid(&inspector, &what);
        }
    }
}

/// Rules: DH-083, DH-149, DH-152, K-26, K-27.
#[test]
fn holders_of_the_maintenance_lock() {
    let test = "points::registry::holders_of_the_maintenance_lock";
    if is_visitor() {
        return;
    }
    if let Some(task) = role("stream") {
        let producer = Producer::create(&Use::AllReaders.config(&task.dir)).unwrap();
        say(format!("block {}", producer.name()));
        while write_one(&producer, LONG).is_ok() {}
        return;
    }
    let dir = place();
    let mut writer = Child::start(test, "stream", dir.path(), "");
    let name = writer.wait_for("block");
    let inspector = inspect(&name, dir.path());
    let mut other = Bystander::new(join(&name, dir.path()));
    let mut flows = |what: &str| {
        let until = other.seen.len() + 50;
        while other.seen.len() < until {
            assert!(other.read(LONG), "{what}");
        }
    };
    flows("before");
    visitor(test, dir.path(), &name, "m.held");
    assert!(lock_is_orphaned(&inspector));
    flows("m.held");
    visitor(test, dir.path(), &name, "m.takeover");
    assert!(lock_is_orphaned(&inspector), "the one who took it over");
    flows("m.takeover");
    let next = join(&name, dir.path());
    assert_eq!(inspector.consumers().len(), 2);
    // Who died as he took it over had no time to say so.
    assert_eq!(takeovers(&inspector), 1);
    drop(next);
    flows("after");
    let seen = other.seen.len() as u64;
    assert_eq!(other.seen, (0..seen).collect::<Vec<_>>());
    writer.kill();
}
