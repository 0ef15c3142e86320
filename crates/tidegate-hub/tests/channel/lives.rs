//! How handles and blocks end and are followed by others: replaced programs, closed, dropped and killed producers.

use std::{
    os::unix::process::CommandExt,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_hub::{
    block::{AttachError, AttachOptions, Role, names},
    config::{ConsumerConfig, HubConfig, HubTimeouts, IfExists},
    consumer::Consumer,
    core::Start,
    error::{AcquireError, OpenError, RegistryError},
    identity::ProcessKey,
    inspect::{BlockLife, Inspector},
    layout::{BlockUuid, SyncPolicy},
    producer::Producer,
    recover::{
        Recovery,
        files::{force_unlink, reclaim, reclaimable},
        slots::ResetOptions,
    },
};

use crate::{
    children::{Child, PATIENCE, linger, role, say},
    world::{LONG, NOW, attach, consumer_config, number, place, receive, ring, send, send_all},
};

fn inspect(name: &str, dir: &std::path::Path) -> Inspector {
    let options = AttachOptions { dir: dir.to_owned(), ..AttachOptions::new(Role::Inspector) };
    Inspector::open(name, &options).unwrap()
}

fn oldest(dir: &std::path::Path) -> ConsumerConfig {
    ConsumerConfig { start: Some(Start::Oldest), ..consumer_config(dir) }
}

/// The row of the program that a process ran before is removed by that process, and by nobody else: the process lives.
/// Rules: DH-038, I-09.
#[test]
fn a_program_that_replaced_itself_finds_its_old_place() {
    const TEST: &str = "lives::a_program_that_replaced_itself_finds_its_old_place";
    const AGAIN: &str = "TIDEGATE_TEST_AGAIN";
    if let Some(task) = role("replaced") {
        if std::env::var_os(AGAIN).is_none() {
            let mut consumer = Consumer::attach(&task.block, &oldest(&task.dir)).unwrap();
            assert_eq!(receive(&mut consumer), Some(0));
            std::mem::forget(consumer.next(LONG).unwrap());
            say("reads");
            let error = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", TEST, "--nocapture"])
                .env(AGAIN, "1")
                .exec();
            panic!("{error}");
        }
        say("again");
        while !task.dir.join("now").exists() {
            std::thread::yield_now();
        }
        let resume = ConsumerConfig { start: Some(Start::Resume), ..consumer_config(&task.dir) };
        let mut consumer = Consumer::attach(&task.block, &resume).unwrap();
        say(format!("got {:?}", receive(&mut consumer)));
        linger();
        return;
    }
    let dir = place();
    let alone = HubConfig { sync: SyncPolicy::AllReaders, max_consumers: 1, ..ring(dir.path(), 4) };
    let producer = Producer::create(&alone).unwrap();
    send_all(&producer, 0..4);
    let name = producer.name();
    let mut child = Child::start(TEST, "replaced", dir.path(), &name);
    child.wait_for("reads");
    child.wait_for("again");
    let held = |inspector: &Inspector| inspector.consumer(0).unwrap().claim_first;
    let inspector = inspect(&name, dir.path());
    let refused = Consumer::attach(&name, &oldest(dir.path())).err();
    assert!(matches!(refused, Some(OpenError::Registry(RegistryError::ConsumerLimit { .. }))), "{refused:?}");
    assert_eq!(producer.reap().unwrap(), 0, "to others it is a process that lives and reads");
    assert_eq!(held(&inspector), Some(1));
    std::fs::write(dir.path().join("now"), "").unwrap();
    assert_eq!(child.wait_for("got"), "Some(1)", "what it was reading comes again");
    assert_eq!((producer.consumer_count(), held(&inspector)), (1, None));
}

/// Rules: DH-020, DH-017, N-04.
#[test]
fn a_producer_that_starts_again_makes_another_block() {
    if let Some(task) = role("writer") {
        let producer = Producer::create(&ring(&task.dir, 4)).unwrap();
        send(&producer, 7);
        say(format!("block {}", producer.name()));
        linger();
        return;
    }
    let dir = place();
    let test = "lives::a_producer_that_starts_again_makes_another_block";
    let mut writer = Child::start(test, "writer", dir.path(), "");
    let first = writer.wait_for("block");
    writer.kill();
    let producer = Producer::create(&ring(dir.path(), 4)).unwrap();
    assert_ne!(producer.name(), first);
    assert_eq!(names(dir.path()).unwrap().len(), 2);
    send(&producer, 8);
    let mut old = Consumer::attach(&first, &oldest(dir.path())).unwrap();
    let mut new = Consumer::attach(&producer.name(), &oldest(dir.path())).unwrap();
    assert_eq!((receive(&mut old), receive(&mut new)), (Some(7), Some(8)), "each block has its own");
}

/// Rules: DH-239, DH-240, DH-241, N-40.
#[test]
fn producers_close_are_dropped_or_die() {
    if let Some(task) = role("writer") {
        let producer = Producer::create(&ring(&task.dir, 4)).unwrap();
        send_all(&producer, 0..2);
        let _open = producer.write(NOW).unwrap();
        say(format!("block {}", producer.name()));
        linger();
        return;
    }
    for dropped in [false, true] {
        let dir = place();
        // Nobody waits for as long when a producer is dropped.
        let close_linger = if dropped { Duration::from_secs(3_600) } else { Duration::ZERO };
        let producer = Producer::create(&HubConfig { close_linger, ..ring(dir.path(), 4) }).unwrap();
        let mut consumer = attach(&producer, oldest(dir.path()));
        send_all(&producer, 0..2);
        std::mem::forget(producer.write(NOW).unwrap());
        let (name, inspector) = (producer.name(), inspect(&producer.name(), dir.path()));
        assert_eq!(inspector.life(), BlockLife::Ready);
        if dropped {
            drop(producer);
        } else {
            producer.close().unwrap();
        }
        assert_eq!(inspector.life(), BlockLife::Closed);
        assert!(!dir.path().join(&name).exists(), "no name any more");
        assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(0), Some(1)), "what there is");
        assert_eq!(consumer.next(LONG).err(), Some(AcquireError::Closed { handed_over: false }));
    }

    let dir = place();
    let test = "lives::producers_close_are_dropped_or_die";
    let mut writer = Child::start(test, "writer", dir.path(), "");
    let name = writer.wait_for("block");
    let keeping = ConsumerConfig { recover_writer: false, ..oldest(dir.path()) };
    let mut consumer = Consumer::attach(&name, &keeping).unwrap();
    let inspector = inspect(&name, dir.path());
    writer.kill();
    assert_eq!(inspector.life(), BlockLife::Orphaned);
    assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(0), Some(1)));
    assert_eq!(consumer.try_next().err(), Some(AcquireError::QueueEmpty), "it is not closed");
    let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) };
    assert!(force_unlink(&name, &options, false).is_err(), "a consumer uses it");
    consumer.detach().unwrap();
    assert_eq!(inspector.life(), BlockLife::Reclaimable);
    assert!(dir.path().join(&name).exists(), "nobody removes it by itself");
    drop(Producer::adopt(&name, &HubConfig { unlink_on_close: false, ..ring(dir.path(), 4) }, LONG).unwrap());
    force_unlink(&name, &options, false).unwrap();
    assert_eq!(names(dir.path()).unwrap(), [""; 0]);
}

/// A process that is stopped for however long lives; nothing of it is taken away.
/// Rules: DH-035, I-08.
#[test]
fn who_is_stopped_is_stale_and_keeps_everything() {
    if let Some(task) = role("reader") {
        let mut consumer = Consumer::attach(&task.block, &oldest(&task.dir)).unwrap();
        let _held = consumer.next(LONG).unwrap();
        say("reads");
        linger();
        return;
    }
    if let Some(task) = role("writer") {
        let producer = Producer::create(&ring(&task.dir, 4)).unwrap();
        send_all(&producer, 0..3);
        let _open = producer.write(NOW).unwrap();
        say(format!("block {}", producer.name()));
        linger();
        return;
    }
    let dir = place();
    let test = "lives::who_is_stopped_is_stale_and_keeps_everything";
    let mut writer = Child::start(test, "writer", dir.path(), "");
    let name = writer.wait_for("block");
    let mut reader = Child::start(test, "reader", dir.path(), &name);
    reader.wait_for("reads");
    writer.stop();
    reader.stop();
    let recovery = Recovery::open(
        &name,
        &AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) },
    )
    .unwrap();
    // An hour passes for the words of the block.
    let hour_ago = tidegate_shm::clock::monotonic_now().as_u64().saturating_sub(3_600_000_000_000).max(1);
    let block = recovery.inspector();
    let views = block.block().writer_views().unwrap();
    let relaxed = tidegate_shm::sync::Ordering::Relaxed;
    views.control.row().u64::<0x18>().store(hour_ago, relaxed);
    views.consumers.row(0).unwrap().u64::<0x20>().store(hour_ago, relaxed);
    let is_stale = || block.writer().heartbeat_age > Some(Duration::from_secs(5));
    let row = block.consumer(0).unwrap();
    assert!(is_stale() && row.stale && !row.is_dead());
    assert!(tidegate_hub::recover::plan::plan(block).is_empty(), "there is nothing to repair");
    assert_eq!(recovery.auto_recover().unwrap(), []);
    assert!(recovery.cleanup_dead_consumers().is_err());
    assert!(Producer::adopt(&name, &ring(dir.path(), 4), NOW).is_err());
    let now = block.consumer(0).unwrap();
    assert_eq!((now.state, now.claim_first, now.cursor), ("active", Some(0), 0));
    assert_eq!(block.diagnose_slot(3).unwrap().state.word(), "WRITING");
    writer.go_on();
    reader.go_on();
    // They beat again, as if nothing had been.
    let start = Instant::now();
    while is_stale() || block.consumer(0).unwrap().stale {
        assert!(start.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

/// Rules: DH-031, N-08.
#[test]
fn owners_are_whole_keys_at_any_time() {
    if let Some(task) = role("writer") {
        let every = HubConfig { sync: SyncPolicy::AllReaders, ..ring(&task.dir, 4) };
        let producer = Producer::create(&every).unwrap();
        say(format!("block {}", producer.name()));
        while producer.send(&producer.next_id().0.to_le_bytes(), LONG).is_ok() {}
        return;
    }
    if let Some(task) = role("reader") {
        loop {
            let mut consumer = Consumer::attach(&task.block, &consumer_config(&task.dir)).unwrap();
            (0..3).for_each(|_| {
                let slot = consumer.next(LONG).unwrap();
                assert_eq!(slot.id().0, number(&slot.to_vec()));
            });
        }
    }
    let dir = place();
    let test = "lives::owners_are_whole_keys_at_any_time";
    let mut writer = Child::start(test, "writer", dir.path(), "");
    let name = writer.wait_for("block");
    let mut readers = [0; 2].map(|_| Child::start(test, "reader", dir.path(), &name));
    let key = |pid| {
        let id = tidegate_shm::process::ProcessId::of(pid).unwrap();
        ProcessKey::new(id.pid, id.start_time).unwrap().word()
    };
    let known: Vec<u64> =
        [writer.id(), readers[0].id(), readers[1].id()].into_iter().map(key).chain([0]).collect();
    let inspector = inspect(&name, dir.path());
    let views = inspector.block().inspector_views().unwrap();
    let acquire = tidegate_shm::sync::Ordering::Acquire;
    let mut seen = std::collections::BTreeSet::new();
    let start = Instant::now();
    // Until each of the four was seen somewhere, and for a while.
    for round in 0_u64.. {
        let places =
            [views.control.row().u64::<0x08>().load(acquire), views.sync.row().u64::<0>().load(acquire)];
        let rows = views.consumers.iter().map(|row| row.u64::<0x08>().load(acquire));
        let slots = views.slot_records.iter().map(|slot| slot.u64::<0x20>().load(acquire));
        let locks = views.locks.iter().map(|lock| lock.u64::<0>().load(acquire));
        for owner in places.into_iter().chain(rows).chain(slots).chain(locks) {
            assert!(known.contains(&owner), "{owner:#x} is none of {known:x?}");
            seen.insert(owner);
        }
        if round > 20_000 && seen.len() == known.len() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{seen:x?} of {known:x?}");
    }
    readers.iter_mut().for_each(Child::kill);
    writer.kill();
}

/// Those who do without the process's thread are told when they do not beat either; those who do are not.
/// Rules: DH-233, N-38.
#[test]
fn who_beats_by_himself_is_reminded() {
    let config = |dir: &std::path::Path| {
        let timeouts = HubTimeouts {
            heartbeat_interval: Duration::from_millis(5),
            heartbeat_stale: Duration::from_millis(20),
            ..HubTimeouts::default()
        };
        let consumer =
            ConsumerConfig { timeouts: timeouts.clone(), heartbeat_thread: false, ..consumer_config(dir) };
        (HubConfig { timeouts, heartbeat_thread: false, ..ring(dir, 4) }, consumer)
    };
    if let Some(task) = role("silent") {
        tracing::subscriber::set_global_default(Told).unwrap();
        let (producer, consumer) = config(&task.dir);
        let producer = Producer::create(&producer).unwrap();
        let _consumer = attach(&producer, consumer);
        linger();
        return;
    }
    if let Some(task) = role("beating") {
        tracing::subscriber::set_global_default(Told).unwrap();
        let (producer, consumer) = config(&task.dir);
        let stale = HubTimeouts { heartbeat_stale: Duration::from_secs(3_600), ..producer.timeouts.clone() };
        let producer = Producer::create(&HubConfig { timeouts: stale.clone(), ..producer }).unwrap();
        let consumer = attach(&producer, ConsumerConfig { timeouts: stale, ..consumer });
        // Another handle has the thread at work all the time.
        let by_thread = HubConfig { heartbeat_thread: true, ..config(&task.dir).0 };
        let _busy = Producer::create(&by_thread).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(200) {
            producer.heartbeat();
            consumer.heartbeat();
            std::thread::yield_now();
        }
        return say("told nothing");
    }
    let test = "lives::who_beats_by_himself_is_reminded";
    let dir = place();
    let mut silent = Child::start(test, "silent", dir.path(), "");
    let mut told = [silent.wait_for("warned"), silent.wait_for("warned")];
    told.sort();
    assert_eq!(told, ["consumer", "producer"]);
    let mut beating = Child::start(test, "beating", dir.path(), "");
    beating.wait_for("told nothing");
    beating.succeed();
    assert_eq!(beating.left_to_say("warned"), [""; 0]);
}

/// Says which handle a warning is about.
struct Told;

impl tracing::field::Visit for Told {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "handle" {
            say(format!("warned {}", format!("{value:?}").trim_matches('"')));
        }
    }
}

impl tracing::Subscriber for Told {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Told);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// A consumer has cleaned up after the dead producer, as it does by default: the block is an orphan all the same, and once the
/// consumer is gone too, nobody's.
///
/// Rules: DH-241, DH-084.
#[test]
fn what_was_cleaned_up_after_a_dead_producer_is_reclaimed() {
    if let Some(task) = role("writer") {
        let producer = Producer::create(&ring(&task.dir, 4)).unwrap();
        send_all(&producer, 0..2);
        say(format!("block {}", producer.name()));
        linger();
        return;
    }
    let dir = place();
    let test = "lives::what_was_cleaned_up_after_a_dead_producer_is_reclaimed";
    let mut writer = Child::start(test, "writer", dir.path(), "");
    let name = writer.wait_for("block");
    let mut consumer = Consumer::attach(&name, &oldest(dir.path())).unwrap();
    let inspector = inspect(&name, dir.path());
    let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) };
    writer.kill();
    while inspector.writer().key.is_some() {
        std::thread::yield_now();
    }
    assert_eq!(inspector.life(), BlockLife::Orphaned);
    assert_eq!(reclaimable(&options).unwrap(), []);
    assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(0), Some(1)));
    consumer.detach().unwrap();
    assert_eq!(inspector.life(), BlockLife::Reclaimable);
    let [left] = &reclaimable(&options).unwrap()[..] else { panic!("one block") };
    reclaim(left, &options).unwrap();
    assert_eq!(names(dir.path()).unwrap(), [""; 0]);
}

/// A producer that cannot take a block over, for want of file descriptors at whichever step, leaves it as it is.
///
/// Rules: DH-240, DH-084.
#[test]
fn a_block_that_could_not_be_adopted_is_as_it_was() {
    let test = "lives::a_block_that_could_not_be_adopted_is_as_it_was";
    if let Some(task) = role("writer") {
        let producer = Producer::create(&ring(&task.dir, 4)).unwrap();
        send_all(&producer, 0..3);
        say(format!("block {}", producer.name()));
        linger();
        return;
    }
    if let Some(task) = role("heir") {
        let limit = |most| {
            let all = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..all }).unwrap();
        };
        for most in 3..100 {
            limit(most);
            let adopted = Producer::adopt(&task.block, &ring(&task.dir, 4), NOW);
            limit(100);
            assert!(task.dir.join(&task.block).exists(), "{most}");
            if let Ok(producer) = adopted {
                let mut consumer = Consumer::attach(&task.block, &oldest(&task.dir)).unwrap();
                assert_eq!([0; 3].map(|_| receive(&mut consumer)), [Some(0), Some(1), Some(2)]);
                send(&producer, 3);
                say(format!("adopted {most}"));
                return;
            }
        }
        panic!("never adopted");
    }
    let dir = place();
    let mut writer = Child::start(test, "writer", dir.path(), "");
    let name = writer.wait_for("block");
    writer.kill();
    let mut heir = Child::start(test, "heir", dir.path(), &name);
    let descriptors: u32 = heir.wait_for("adopted").parse().unwrap();
    assert!(descriptors > 3, "it was never refused");
}

/// A block whose writer died while it closed it, or was cut off, is not taken over: who would end it is gone, so whoever
/// comes for it does that, and the channel goes on in a new block. Who reads it reads it to its end.
///
/// Rules: DH-017, DH-239, DH-258.
#[test]
fn a_block_that_nobody_may_write_is_ended_and_not_adopted() {
    let test = "lives::a_block_that_nobody_may_write_is_ended_and_not_adopted";
    let uuid = BlockUuid::new([7; 16]).unwrap();
    let named = |dir: &std::path::Path| HubConfig {
        uuid: Some(uuid),
        if_exists: IfExists::Adopt,
        unlink_on_close: false,
        ..ring(dir, 4)
    };
    if let Some(task) = role("closing") {
        let producer = Producer::create(&named(&task.dir)).unwrap();
        send_all(&producer, 0..3);
        producer.writer().start_closing().unwrap();
        say(format!("block {}", producer.name()));
        return linger();
    }
    if let Some(task) = role("cut off") {
        let producer = Producer::create(&named(&task.dir)).unwrap();
        send_all(&producer, 0..3);
        say(format!("block {}", producer.name()));
        return linger();
    }
    for end in ["closing", "cut off"] {
        let dir = place();
        let mut writer = Child::start(test, end, dir.path(), "");
        let name = writer.wait_for("block");
        let mut consumer = Consumer::attach(&name, &oldest(dir.path())).unwrap();
        if end == "cut off" {
            let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) };
            let force = ResetOptions { force: true, discard: false };
            Recovery::open(&name, &options).unwrap().reset_slot(0, force).unwrap();
        } else {
            let refused = Producer::adopt(&name, &named(dir.path()), NOW).unwrap_err();
            assert!(matches!(refused, OpenError::Registry(RegistryError::WriterAlive { .. })), "{refused}");
            writer.kill();
        }
        let refused = Producer::adopt(&name, &named(dir.path()), LONG).unwrap_err();
        assert!(matches!(refused, OpenError::Attach(AttachError::Closed)), "{end}: {refused}");
        assert!(!dir.path().join(&name).exists(), "{end}");
        assert_eq!([0; 3].map(|_| receive(&mut consumer)), [Some(0), Some(1), Some(2)], "{end}");
        assert!(matches!(consumer.try_next(), Err(AcquireError::Closed { handed_over: false })), "{end}");
        // Under the same name, if it has to be that.
        let producer = Producer::create(&named(dir.path())).unwrap();
        assert_eq!((producer.name(), send(&producer, 0)), (name, 0), "{end}");
    }
}

/// The same when the configuration names the block: it is the end of the old one and the beginning of the new one at once.
///
/// Rules: DH-017.
#[test]
fn a_producer_that_adopts_if_it_can_makes_a_new_block_where_the_old_one_is_over() {
    let dir = place();
    let uuid = Some(BlockUuid::new([7; 16]).unwrap());
    let config = HubConfig { uuid, if_exists: IfExists::Adopt, ..ring(dir.path(), 4) };
    let old = Producer::create(&config).unwrap();
    send(&old, 0);
    old.writer().start_closing().unwrap();
    old.writer().resign().unwrap();
    let mut consumer = Consumer::attach(&old.name(), &oldest(dir.path())).unwrap();
    drop(old);
    let producer = Producer::create(&config).unwrap();
    assert_eq!(send(&producer, 7), 0);
    assert_eq!(receive(&mut consumer), Some(0));
    assert!(matches!(consumer.try_next(), Err(AcquireError::Closed { .. })));
}
