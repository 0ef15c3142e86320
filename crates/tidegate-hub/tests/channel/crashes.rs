//! Processes that end at every named step of the protocol, and what is left (25.11).
//!
//! A value is its id, so a value under a wrong id, a lost one and a repeated one all show.

use std::{
    mem::offset_of,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tidegate_hub::{
    block::{AttachError, AttachOptions, CreateError, Role},
    config::{ConsumerConfig, HubConfig, IfExists},
    consumer::Consumer,
    error::{AcquireError, OpenError, RegistryError},
    inspect::Inspector,
    layout::{BlockUuid, Overflow, SyncPolicy, pages::SyncPage},
    producer::Producer,
    recover::{Recovery, files::force_unlink},
};
use tidegate_shm::sync::Ordering::Acquire;

use crate::{
    children::{Child, PATIENCE, linger, role, say},
    world::{LONG, NOW, attach, consumer_config, number, place, receive, ring, send},
};

const KILLED: Option<i32> = Some(9);

fn kept(dir: &Path) -> HubConfig {
    HubConfig { unlink_on_close: false, ..ring(dir, 4) }
}

/// Writes until it ends.
fn write_until_the_end(config: &HubConfig) {
    let producer = Producer::create(config).unwrap();
    say(format!("block {}", producer.name()));
    while producer.consumer_count() == 0 {
        thread::yield_now();
    }
    loop {
        let next = producer.next_id().0;
        if send(&producer, next) != next {
            break;
        }
    }
}

/// Reads what there is; each value is its id.
fn read_all(consumer: &mut Consumer) -> Vec<u64> {
    let mut ids = Vec::new();
    loop {
        match consumer.try_next() {
            Ok(slot) => {
                assert_eq!(slot.id().0, number(&slot.to_vec()), "a value under another id");
                ids.push(slot.id().0);
            }
            Err(AcquireError::QueueEmpty) => return ids,
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Every slot can be used again: the ring goes round several times.
fn goes_round(producer: &Producer, consumer: &mut Consumer) {
    for _ in 0..3 {
        for _ in 0..4 {
            let next = producer.next_id().0;
            assert_eq!(send(producer, next), next);
        }
        assert_eq!(producer.try_write().err(), Some(AcquireError::QueueFull));
        assert_eq!(read_all(consumer).len(), 4);
    }
}

/// Steps at which the writer of id 2 ends, whether id 2 is visible then, and the id after it.
const WRITER_STEPS: [(&str, bool, u64); 11] = [
    ("w.reserve.one:3", false, 2),
    ("w.reserve.all:3", false, 2),
    ("w.take.one:3", false, 3),
    ("w.take.all:3", false, 3),
    ("w.index:3", false, 3),
    ("w.payload:3", false, 3),
    ("w.digest:3", false, 3),
    ("w.t6:3", true, 3),
    ("w.prefix:3", true, 3),
    ("w.wake:3", true, 3),
    ("w.floor.intent:1", true, 4),
];

/// Rules: DH-081, DH-082, DH-084, DH-053.
#[test]
fn a_writer_may_end_at_every_step() {
    if let Some(task) = role("writer") {
        return write_until_the_end(&kept(&task.dir));
    }
    for (step, visible, next) in WRITER_STEPS {
        let dir = place();
        let mut writer =
            Child::start_at("crashes::a_writer_may_end_at_every_step", "writer", dir.path(), "", Some(step));
        let name = writer.wait_for("block");
        let config = ConsumerConfig { recover_writer: false, ..consumer_config(dir.path()) };
        let mut consumer = Consumer::attach(&name, &config).unwrap();
        let mut seen = Vec::new();
        if step.starts_with("w.floor") {
            // The floor moves only when the ring is full and something was read.
            while seen.is_empty() {
                seen.extend(receive(&mut consumer));
            }
        }
        assert_eq!(writer.signal(), KILLED, "{step}");
        let producer = Producer::adopt(&name, &kept(dir.path()), NOW).unwrap();
        assert_eq!(producer.next_id().0, next, "{step}");
        seen.extend(read_all(&mut consumer));
        let expected: Vec<u64> = (0..next).filter(|id| *id != 2 || visible).collect();
        assert_eq!(seen, expected, "{step}");
        goes_round(&producer, &mut consumer);
    }
}

/// The same, but its consumer's process cleans up, and waits for what is visible.
///
/// Rules: DH-081, DH-082.
#[test]
fn a_consumer_that_waits_gets_what_a_killed_writer_had_finished() {
    if let Some(task) = role("writer") {
        return write_until_the_end(&kept(&task.dir));
    }
    for step in ["w.t6:3", "w.prefix:3", "w.wake:3"] {
        let dir = place();
        let test = "crashes::a_consumer_that_waits_gets_what_a_killed_writer_had_finished";
        let mut writer = Child::start_at(test, "writer", dir.path(), "", Some(step));
        let name = writer.wait_for("block");
        let mut consumer = Consumer::attach(&name, &consumer_config(dir.path())).unwrap();
        for expected in 0..3 {
            assert_eq!(consumer.next(LONG).unwrap().id().0, expected, "{step}");
        }
        assert_eq!(writer.signal(), KILLED);
    }
}

/// Rules: DH-081, DH-082, DH-054.
#[test]
fn a_writer_of_a_lossy_ring_may_end_between_draining_and_writing() {
    if let Some(task) = role("writer") {
        return write_until_the_end(&lossy(&task.dir));
    }
    // Id 4 takes the slot of id 0.
    for step in ["w.reserve.one:5", "w.reserve.all:5", "w.fence:5", "w.floor.intent:1", "w.floor.store:1"] {
        let dir = place();
        let test = "crashes::a_writer_of_a_lossy_ring_may_end_between_draining_and_writing";
        let mut writer = Child::start_at(test, "writer", dir.path(), "", Some(step));
        let name = writer.wait_for("block");
        let config = ConsumerConfig { recover_writer: false, ..consumer_config(dir.path()) };
        let mut consumer = Consumer::attach(&name, &config).unwrap();
        assert_eq!(writer.signal(), KILLED, "{step}");
        let producer = Producer::adopt(&name, &lossy(dir.path()), NOW).unwrap();
        assert_eq!(producer.next_id().0, 4, "{step}");
        assert_eq!(read_all(&mut consumer), [0, 1, 2, 3], "{step}: the old value is readable again");
        send(&producer, 4);
        assert_eq!(read_all(&mut consumer), [4]);
    }
}

fn lossy(dir: &Path) -> HubConfig {
    HubConfig { overflow: Overflow::DropOldest, ..kept(dir) }
}

/// Rules: DH-237, DH-104, DH-071, DH-060.
#[test]
fn a_reader_may_end_at_every_step() {
    if let Some(task) = role("reader") {
        let mut consumer = Consumer::attach(&task.block, &consumer_config(&task.dir)).unwrap();
        while consumer.next(LONG).is_ok() {}
        return;
    }
    // The reader of id 2 ends; its successor begins there unless the cursor had passed it.
    for (step, resumes) in
        [("r.claim:3", 2), ("r.fence:3", 2), ("r.read:3", 2), ("r.cursor:3", 3), ("r.unclaim:3", 3)]
    {
        let dir = place();
        let producer = Producer::create(&ring(dir.path(), 4)).unwrap();
        (0..4).for_each(|id| assert_eq!(send(&producer, id), id));
        let test = "crashes::a_reader_may_end_at_every_step";
        let mut reader = Child::start_at(test, "reader", dir.path(), &producer.name(), Some(step));
        assert_eq!(reader.signal(), KILLED, "{step}");
        no_consumer_is_left(&producer);
        let mut consumer = attach(&producer, consumer_config(dir.path()));
        assert_eq!(read_all(&mut consumer), (resumes..4).collect::<Vec<_>>(), "{step}");
        goes_round(&producer, &mut consumer);
    }
}

/// Rules: DH-083, DH-237, DH-074.
#[test]
fn a_consumer_may_end_while_it_comes_or_goes() {
    if let Some(task) = role("reader") {
        let consumer = Consumer::attach(&task.block, &consumer_config(&task.dir)).unwrap();
        consumer.detach().unwrap();
        return;
    }
    let steps =
        ["m.held:1", "j.joining", "j.identity", "j.active", "j.mask", "l.leaving", "l.free", "m.held:2"];
    for step in steps {
        let dir = place();
        let every = HubConfig { sync: SyncPolicy::AllReaders, max_consumers: 1, ..ring(dir.path(), 4) };
        let producer = Producer::create(&every).unwrap();
        let test = "crashes::a_consumer_may_end_while_it_comes_or_goes";
        let mut reader = Child::start_at(test, "reader", dir.path(), &producer.name(), Some(step));
        assert_eq!(reader.signal(), KILLED, "{step}");
        // There is one row, so this needs that of the dead.
        let mut consumer = attach(&producer, consumer_config(dir.path()));
        assert_eq!(producer.consumer_count(), 1);
        goes_round(&producer, &mut consumer);
    }
}

/// Rules: DH-081, DH-083.
#[test]
fn whoever_takes_over_may_end_as_well() {
    if let Some(task) = role("writer") {
        return write_until_the_end(&kept(&task.dir));
    }
    if let Some(task) = role("successor") {
        let _ = Producer::adopt(&task.block, &kept(&task.dir), LONG);
        return;
    }
    let test = "crashes::whoever_takes_over_may_end_as_well";
    for step in ["m.held", "a.own", "a.slot", "a.index"] {
        let dir = place();
        let mut writer = Child::start_at(test, "writer", dir.path(), "", Some("w.payload:3"));
        let name = writer.wait_for("block");
        let config = ConsumerConfig { recover_writer: false, ..consumer_config(dir.path()) };
        let mut consumer = Consumer::attach(&name, &config).unwrap();
        assert_eq!(writer.signal(), KILLED, "{step}");
        let mut successor = Child::start_at(test, "successor", dir.path(), &name, Some(step));
        assert_eq!(successor.signal(), KILLED, "{step}");
        let producer = Producer::adopt(&name, &kept(dir.path()), LONG).unwrap();
        assert_eq!(producer.next_id().0, 3, "{step}");
        assert_eq!(read_all(&mut consumer), [0, 1], "{step}");
        goes_round(&producer, &mut consumer);
    }
}

/// Rules: DH-083, DH-237.
#[test]
fn whoever_removes_the_dead_may_end_as_well() {
    if let Some(task) = role("reader") {
        let mut consumer = Consumer::attach(&task.block, &consumer_config(&task.dir)).unwrap();
        while consumer.next(LONG).is_ok() {}
        return;
    }
    if let Some(task) = role("successor") {
        let _ = Consumer::attach(&task.block, &consumer_config(&task.dir));
        return;
    }
    let test = "crashes::whoever_removes_the_dead_may_end_as_well";
    for step in ["reap.claim", "reap.free", "l.free"] {
        let dir = place();
        let mut holder = Child::start("crashes::holds_the_block", "holder", dir.path(), "");
        let name = holder.wait_for("block");
        let mut reader = Child::start_at(test, "reader", dir.path(), &name, Some("r.read:1"));
        assert_eq!(reader.signal(), KILLED, "{step}");
        let mut successor = Child::start_at(test, "successor", dir.path(), &name, Some(step));
        // The holder may have removed the dead one first; then there is nothing to end at.
        let ended = successor.signal();
        let mut consumer = Consumer::attach(&name, &consumer_config(dir.path())).unwrap();
        assert!(ended.is_none() || ended == KILLED);
        assert_eq!(consumer.next(LONG).unwrap().id().0, 0, "{step}");
        holder.kill();
    }
}

/// A producer whose process does nothing else.
#[test]
fn holds_the_block() {
    if let Some(task) = role("holder") {
        let producer = Producer::create(&kept(&task.dir)).unwrap();
        send(&producer, 0);
        say(format!("block {}", producer.name()));
        crate::children::linger();
        return;
    }
    let dir = place();
    let mut holder = Child::start("crashes::holds_the_block", "holder", dir.path(), "");
    let name = holder.wait_for("block");
    assert!(Producer::adopt(&name, &kept(dir.path()), NOW).is_err());
}

fn no_consumer_is_left(producer: &Producer) {
    let start = Instant::now();
    while producer.consumer_count() > 0 {
        assert!(start.elapsed() < PATIENCE, "the dead consumer is still there");
        thread::yield_now();
    }
}

/// Who removes the name of a dead block closes it first. A producer that has mapped it by then, and waits for its turn, does
/// not go on in a block without a name.
///
/// Rules: DH-017, DH-241, DH-254.
#[test]
fn nobody_adopts_a_block_whose_name_is_being_removed() {
    let test = "crashes::nobody_adopts_a_block_whose_name_is_being_removed";
    let named = |dir: &Path| HubConfig { uuid: Some(BlockUuid::new([7; 16]).unwrap()), ..kept(dir) };
    if let Some(task) = role("writer") {
        let producer = Producer::create(&named(&task.dir)).unwrap();
        say(format!("block {}", producer.name()));
        return linger();
    }
    if let Some(task) = role("reclaim") {
        let options = AttachOptions { dir: task.dir, ..AttachOptions::new(Role::Recovery) };
        return force_unlink(&task.block, &options, false).unwrap();
    }
    if let Some(task) = role("replace") {
        let config = HubConfig { if_exists: IfExists::ReplaceIfDead, ..named(&task.dir) };
        let _producer = Producer::create(&config).unwrap();
        say("replaced");
        return linger();
    }
    for way in ["reclaim", "replace"] {
        let dir = place();
        let mut writer = Child::start(test, "writer", dir.path(), "");
        let name = writer.wait_for("block");
        writer.kill();
        let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Inspector) };
        let old = Inspector::open(&name, &options).unwrap();
        let mut remover = Child::start_and_stop_at(test, way, dir.path(), &name, "m.held");
        remover.stops();
        let config = named(dir.path());
        let adopted = thread::scope(|scope| {
            let adopter = scope.spawn(|| Producer::adopt(&name, &config, LONG));
            let sync = old.block().inspector_views().unwrap().sync;
            while sync.row().u32::<{ offset_of!(SyncPage, maintenance_lock.waiters) }>().load(Acquire) == 0 {
                assert!(!adopter.is_finished(), "it waits for the lock");
                thread::yield_now();
            }
            remover.go_on();
            adopter.join().unwrap()
        });
        match adopted {
            Err(OpenError::Attach(AttachError::Closed)) => {}
            other => panic!("{other:?}"),
        }
        if way == "replace" {
            remover.wait_for("replaced");
            assert!(dir.path().join(&name).exists(), "the new block has the name");
        } else {
            remover.succeed();
        }
    }
}

/// The same for one that adopts if it can: it never finds the name taken. Who closes has it until it is gone, a name that
/// the dead left is removed, also after a repair, and one that was to stay is that of a closed block.
///
/// Rules: DH-017, DH-239.
#[test]
fn who_adopts_if_it_can_does_not_stumble_over_a_closed_block() {
    let test = "crashes::who_adopts_if_it_can_does_not_stumble_over_a_closed_block";
    let uuid = BlockUuid::new([7; 16]).unwrap();
    let named = |dir: &Path| HubConfig { uuid: Some(uuid), if_exists: IfExists::Adopt, ..ring(dir, 4) };
    if let Some(task) = role("writer") {
        return Producer::create(&named(&task.dir)).unwrap().close().unwrap();
    }
    let dir = place();
    let mut writer = Child::start_and_stop_at(test, "writer", dir.path(), "", "w.closed");
    writer.stops();
    let refused = Producer::create(&named(dir.path())).unwrap_err();
    assert!(matches!(refused, OpenError::Registry(RegistryError::WriterAlive { .. })), "{refused}");
    let name = named(dir.path()).channel.file_name(&uuid);
    let waiting = thread::scope(|scope| {
        let waiting = scope.spawn(|| Producer::adopt(&name, &named(dir.path()), LONG).unwrap_err());
        thread::sleep(Duration::from_millis(50));
        writer.go_on();
        waiting.join().unwrap()
    });
    assert!(matches!(waiting, OpenError::Attach(AttachError::Closed)), "{waiting}");
    writer.succeed();
    assert_eq!(send(&Producer::create(&named(dir.path())).unwrap(), 0), 0);
    let mut writer = Child::start_at(test, "writer", dir.path(), "", Some("w.closed"));
    assert_eq!(writer.signal(), KILLED);
    let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) };
    assert_eq!(Recovery::open(&name, &options).unwrap().auto_recover().unwrap(), []);
    let kept = HubConfig { unlink_on_close: false, ..named(dir.path()) };
    let producer = Producer::create(&kept).unwrap();
    assert_eq!(send(&producer, 0), 0);
    producer.close().unwrap();
    let refused = Producer::create(&kept).unwrap_err();
    assert!(matches!(refused, OpenError::Attach(AttachError::Closed)), "{refused}");
}

/// Who adopts if it can waits for whoever is about to be gone: a writer that ends, or a consumer that cleans up after it.
///
/// Rules: DH-017.
#[test]
fn who_adopts_if_it_can_waits_a_moment() {
    let test = "crashes::who_adopts_if_it_can_waits_a_moment";
    let uuid = Some(BlockUuid::new([7; 16]).unwrap());
    let named = |dir: &Path| HubConfig { uuid, if_exists: IfExists::Adopt, ..ring(dir, 4) };
    if let Some(task) = role("writer") {
        let producer = Producer::create(&named(&task.dir)).unwrap();
        say(format!("block {}", producer.name()));
        return linger();
    }
    let dir = place();
    let mut writer = Child::start(test, "writer", dir.path(), "");
    writer.wait_for("block");
    let producer = thread::scope(|scope| {
        let waiting = scope.spawn(|| Producer::create(&named(dir.path())).unwrap());
        thread::sleep(Duration::from_millis(50));
        writer.kill();
        waiting.join().unwrap()
    });
    assert_eq!(send(&producer, 0), 0);
}

/// A dead block is replaced wherever it is.
///
/// Rules: DH-017.
#[test]
fn a_dead_block_is_replaced_in_either_place() {
    let test = "crashes::a_dead_block_is_replaced_in_either_place";
    let uuid = Some(BlockUuid::new([7; 16]).unwrap());
    let named = |dir: &Path| HubConfig { uuid, if_exists: IfExists::ReplaceIfDead, ..ring(dir, 4) };
    if let Some(task) = role("writer") {
        let producer = Producer::create(&named(&task.dir)).unwrap();
        say(format!("block {}", producer.name()));
        return linger();
    }
    let (dir, other) = (place(), place());
    let mut writer = Child::start(test, "writer", other.path(), "");
    let name = writer.wait_for("block");
    let config = HubConfig { huge_dir: Some(other.path().to_owned()), ..named(dir.path()) };
    let refused = Producer::create(&config).unwrap_err();
    assert!(matches!(refused, OpenError::Create(CreateError::AlreadyExists { .. })), "{refused}");
    writer.kill();
    let producer = Producer::create(&config).unwrap();
    assert_eq!(producer.path(), dir.path().join(&name));
    assert!(!other.path().join(&name).exists());
}

/// A producer removes the name of its block while it is the writer still: whoever wants the name waits until then, and
/// keeps what it puts there.
///
/// Rules: DH-017, DH-239.
#[test]
fn a_producer_that_closes_late_leaves_the_name_to_the_next_block() {
    let test = "crashes::a_producer_that_closes_late_leaves_the_name_to_the_next_block";
    let uuid = Some(BlockUuid::new([7; 16]).unwrap());
    let named = |dir: &Path| HubConfig { uuid, if_exists: IfExists::ReplaceIfDead, ..ring(dir, 4) };
    if let Some(task) = role("writer") {
        return Producer::create(&named(&task.dir)).unwrap().close().unwrap();
    }
    let dir = place();
    let mut writer = Child::start_and_stop_at(test, "writer", dir.path(), "", "w.closed");
    writer.stops();
    let refused = Producer::create(&named(dir.path())).unwrap_err();
    assert!(matches!(refused, OpenError::Create(CreateError::AlreadyExists { .. })), "{refused}");
    writer.go_on();
    writer.succeed();
    let producer = Producer::create(&named(dir.path())).unwrap();
    assert!(producer.path().exists());
    // Killed there, it leaves a closed block that nobody uses.
    drop(producer);
    let mut writer = Child::start_at(test, "writer", dir.path(), "", Some("w.closed"));
    assert_eq!(writer.signal(), KILLED);
    let producer = Producer::create(&named(dir.path())).unwrap();
    assert!(producer.path().exists());
}
