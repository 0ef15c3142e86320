//! Readers that end (K-15 to K-19, K-37). The writer is stopped until what they left was looked at: it would clean up.

use std::{path::Path, time::Instant};

use tidegate_hub::{
    block::{AttachOptions, Role},
    config::ConsumerConfig,
    consumer::Consumer,
    core::Start,
    inspect::ConsumerInfo,
    producer::Producer,
    recover::Recovery,
};

use super::{Bystander, KILLED, USES, Use, bystander_config, inspect, is_valid, join, write_one};
use crate::{
    children::{Child, PATIENCE, linger, role, say},
    world::{LONG, NOW, place},
};

/// Values that the writer writes when it goes on.
const MORE: u64 = 24;

/// Fills the ring, and writes more once told to.
pub(super) fn fill_and_write_more(usage: Use, dir: &Path) {
    let producer = Producer::create(&usage.config(dir)).unwrap();
    let full = u64::from(producer.descriptor().spec.slot_count);
    (0..full).for_each(|id| assert_eq!(write_one(&producer, LONG), Ok(id)));
    say(format!("block {}", producer.name()));
    while !dir.join("more").exists() {
        std::thread::yield_now();
    }
    // Who passes over a slot that is read waits for nobody, unless all of them are read.
    let timeout = if usage == Use::Newest { NOW } else { LONG };
    (0..MORE).for_each(|_| {
        write_one(&producer, timeout).unwrap();
    });
    say(format!("wrote {}", producer.next_id().0));
    linger();
}

/// A writer that has filled the ring, stopped; and the name of its block.
pub(super) fn stopped_writer(test: &str, usage: Use, dir: &Path) -> (Child, String) {
    let mut writer = Child::start(test, &format!("writer {usage:?}"), dir, "");
    let name = writer.wait_for("block");
    writer.stop();
    (writer, name)
}

pub(super) fn is_writer() -> bool {
    for usage in USES {
        if let Some(task) = role(&format!("writer {usage:?}")) {
            fill_and_write_more(usage, &task.dir);
            return true;
        }
    }
    false
}

/// Lets the writer go on; it does not end before it could write everything, which `other` reads. Where readers are waited
/// for, no id is passed over.
pub(super) fn let_write(usage: Use, writer: &mut Child, dir: &Path, other: &mut Bystander) {
    std::fs::write(dir.join("more"), "").unwrap();
    writer.go_on();
    let start = Instant::now();
    let end: u64 = loop {
        if let Some(end) = writer.has_said("wrote") {
            break end.parse().unwrap();
        }
        assert!(start.elapsed() < PATIENCE, "the writer is stuck; {:?} were read", other.seen);
        other.read_on();
    };
    other.drain();
    assert_eq!(other.seen.last(), Some(&(end - 1)));
    let all = u64::from(other.consumer.descriptor().spec.slot_count) + MORE;
    assert!(end == all || (usage.skips() && end > all), "{end}");
}

impl Use {
    /// There is one consumer at a time.
    pub(super) fn is_alone(self) -> bool {
        matches!(self, Self::SingleReader | Self::DropOldest)
    }
}

/// The row of the dead.
fn row_of_the_dead(name: &str, dir: &Path) -> ConsumerInfo {
    let inspector = inspect(name, dir);
    is_valid(&inspector, "what a reader left");
    let mut dead: Vec<_> = inspector.consumers().into_iter().filter(ConsumerInfo::is_dead).collect();
    assert_eq!(dead.len(), 1);
    dead.remove(0)
}

/// Rules: DH-079, DH-104, DH-237, DH-060, K-15, K-16, K-17, K-18, K-19.
#[test]
fn readers_of_every_use() {
    let test = "points::reader::readers_of_every_use";
    if is_writer() {
        return;
    }
    if let Some(task) = role("reader") {
        let config = ConsumerConfig { allow_repeat: true, ..bystander_config(&task.dir) };
        let mut consumer = Consumer::attach(&task.block, &config).unwrap();
        while consumer.next(LONG).is_ok() {}
        return;
    }
    for usage in USES {
        for step in ["r.claim", "r.fence", "r.read", "r.cursor", "r.unclaim"] {
            let what = format!("{usage:?} {step}");
            let dir = place();
            let (mut writer, name) = stopped_writer(test, usage, dir.path());
            let mut other = (!usage.is_alone()).then(|| Bystander::new(join(&name, dir.path())));
            // Of the newest value the cursor is stored once, however often it is read.
            let pass = if usage.is_latest() && step == "r.cursor" { 1 } else { 3 };
            let at = format!("{step}:{pass}");
            let mut reader = Child::start_at(test, "reader", dir.path(), &name, Some(&at));
            assert_eq!(reader.signal(), KILLED, "{what}");

            let dead = row_of_the_dead(&name, dir.path());
            let full = u64::from(usage.config(dir.path()).policy.slot_count());
            let (id, cursor) = match (usage.is_latest(), step) {
                (true, _) => (full - 1, full),
                (false, "r.cursor" | "r.unclaim") => (2, 3),
                (false, _) => (2, 2),
            };
            let held = (step != "r.unclaim").then_some(id);
            assert_eq!((dead.claim_first, dead.cursor), (held, cursor), "{what}");

            let mut other = other.take().unwrap_or_else(|| {
                let resume = ConsumerConfig { start: Some(Start::Resume), ..bystander_config(dir.path()) };
                let consumer = Consumer::attach(&name, &resume).unwrap();
                assert_eq!(
                    consumer.start_id().0,
                    cursor,
                    "{what}: the next one begins with what was not consumed"
                );
                Bystander::new(consumer)
            });
            let_write(usage, &mut writer, dir.path(), &mut other);
            let from = if usage.is_alone() { cursor } else { 0 };
            if !usage.is_latest() {
                let known = other.seen.len() as u64 + other.lost;
                assert_eq!(known, full + MORE - from, "{what}: {:?}", other.seen);
            }
            assert!(usage.is_lossy() || other.lost == 0, "{what}");
            no_ghost(&name, dir.path(), 1, &what);
        }
    }
}

/// The row of the dead is gone, with everything it held, and its numbers are kept.
pub(super) fn no_ghost(name: &str, dir: &Path, consumers: usize, what: &str) {
    let inspector = inspect(name, dir);
    let start = Instant::now();
    while inspector.consumers().len() > consumers {
        assert!(start.elapsed() < PATIENCE, "{what}: {:?}", inspector.consumers());
        std::thread::yield_now();
    }
    let rows = inspector.consumers();
    assert_eq!(rows.len(), consumers, "{what}");
    assert!(rows.iter().all(|row| row.state == "active" && !row.is_dead()), "{what}: {rows:?}");
    is_valid(&inspector, what);
}

/// Rules: DH-107, DH-237, K-37.
#[test]
fn a_reader_that_is_evicted_while_it_reads_and_ends() {
    let test = "points::reader::a_reader_that_is_evicted_while_it_reads_and_ends";
    if is_writer() {
        return;
    }
    if let Some(task) = role("reader") {
        let mut consumer = join(&task.block, &task.dir);
        let _held = consumer.next(LONG).unwrap();
        say("reads");
        linger();
        return;
    }
    let dir = place();
    let (mut writer, name) = stopped_writer(test, Use::AllReaders, dir.path());
    let mut other = Bystander::new(join(&name, dir.path()));
    let mut reader = Child::start(test, "reader", dir.path(), &name);
    reader.wait_for("reads");
    let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) };
    Recovery::open(&name, &options).unwrap().evict_consumer(1, true).unwrap();
    reader.kill();
    let dead = row_of_the_dead(&name, dir.path());
    assert_eq!((dead.row, dead.state, dead.claim_first), (1, "evicted", Some(0)));
    let_write(Use::AllReaders, &mut writer, dir.path(), &mut other);
    assert_eq!(other.seen, (0..8 + MORE).collect::<Vec<_>>());
    no_ghost(&name, dir.path(), 1, "evicted");
}
