//! Broker, producer and consumer as processes of their own, which are killed and stopped.

use std::{fs, mem::offset_of, process::exit, thread, time::Duration};

use rustix::process::Signal;
use tidegate_hub::{
    attachment::{consumer_core, writer_core},
    block::{Block, Role},
    broker::{
        Discovery, HubError, RetryPolicy,
        wire::{AttachAck, Code, Fixed, Label, Register},
    },
    core::{
        Start,
        config::{Deadline, Timing, WaitStrategy},
        error::AcquireError,
        reader::{Reader, Release},
        words::RowNames,
        writer::CommitInfo,
    },
    layout::pages::ControlPage,
};
use tidegate_shm::sync::Ordering::Acquire;

use crate::support::*;

const NOW: Deadline = Deadline::Immediate;
const NAMES: RowNames = RowNames { uid: [b'u'; 40], name: [b'n'; 32], pid_namespace: 0 };

fn look() -> Discovery {
    Discovery::of(channel("data")).verifier(secret(1, "data"))
}

/// A registration of `block` with the secret of the tests.
fn registration(block: &Block) -> Register {
    Register {
        key_id: Some(Fixed([1; 8])),
        key_epoch: Some(1),
        lease_ms: 1000,
        ..Register::of_block(block.descriptor(), block.own_key()).unwrap()
    }
}

/// Writes each id into its slot, about one per millisecond, until killed.
fn play_producer(place: &Place, lease_ms: u32) -> ! {
    let block = new_block(&place.blocks(), &spec("data"));
    let hub = place.hub("producer");
    let wanted = Register { lease_ms, ..registration(&block) };
    let _registration = hub.register(wanted, Some(secret(1, "data")), 6 * SOON).unwrap();
    let writer = writer_core(&block, WaitStrategy::Hybrid, Timing::default()).unwrap().created().unwrap();
    loop {
        if let Ok(allocation) = writer.allocate(1, NOW) {
            let id = allocation.first;
            let slot = block.slot_mut(writer.core().config().index(id).0).unwrap();
            slot.write_at(0, &id.0.to_le_bytes()).unwrap();
            writer.commit(id, CommitInfo { len: 8, user_flags: 0, slot_flags: 0 }).unwrap();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Finds the block through the broker, then reads every id in order. Ends when one is wrong.
fn play_consumer(place: &Place) -> ! {
    let hub = place.hub("consumer");
    let step = Duration::from_millis(50);
    let retry = RetryPolicy::exponential(step, 1.0, step, 0.0, 1000, 6 * SOON).unwrap();
    let found = hub.discover(&look(), SOON, retry).unwrap();
    let block = attached(&place.blocks(), found.channel.shm_name.as_str(), Role::Consumer);
    found.channel.check(block.descriptor()).unwrap();
    let core = consumer_core(&block, WaitStrategy::Hybrid, Timing::default()).unwrap();
    let mut reader = Reader::join(core, Start::Oldest, &NAMES, 1, Deadline::Never).unwrap();
    let attached = AttachAck {
        channel_id: found.channel.channel_id,
        consumer_id: Label::new("reader").unwrap(),
        config_hash: Fixed(block.descriptor().digest),
        process_key: block.own_key(),
    };
    hub.attach_ack(attached, SOON).unwrap();
    let mut next = reader.position().0;
    loop {
        match reader.acquire_ordered(NOW) {
            Ok(acquired) => {
                let mut bytes = [0; 8];
                block
                    .slot(reader.core().config().index(acquired.id).0)
                    .unwrap()
                    .read_at(0, &mut bytes)
                    .unwrap();
                if acquired.id.0 != next || u64::from_le_bytes(bytes) != next {
                    exit(3);
                }
                next += 1;
                reader.release(&acquired, Release::Consumed).unwrap();
            }
            Err(AcquireError::QueueEmpty | AcquireError::NotReady) => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(_) => exit(4),
        }
    }
}

fn play(role: &str, place: &Place) -> ! {
    match role {
        "producer" => play_producer(place, 1000),
        // Its lease does not run out while it is stopped.
        "lasting producer" => play_producer(place, 600_000),
        "consumer" => play_consumer(place),
        _ => play_broker(place),
    }
}

fn commit_index(block: &Block) -> u64 {
    let views = block.inspector_views().unwrap();
    views.control.row().u64::<{ offset_of!(ControlPage, commit_index) }>().load(Acquire)
}

/// Waits until so many more ids are committed. The ring has 8 slots and loses nothing: the consumer has read all but them.
#[track_caller]
fn flows(block: &Block, ids: u64) {
    let end = commit_index(block) + ids;
    until("data flow", || commit_index(block) >= end);
}

/// A broker is killed while a producer writes and a consumer reads. Data flow on without one; another broker learns from
/// the producer itself what there is, under a new epoch.
///
/// Rules: DH-003, DH-182, DH-183, DH-184, M-09, N-31.
#[test]
fn a_killed_broker_stops_no_data_and_comes_back_to_all() {
    const TEST: &str = "processes::a_killed_broker_stops_no_data_and_comes_back_to_all";
    if let Some((role, place)) = role() {
        play(&role, &place);
    }
    let (_dir, place) = place();
    let mut broker = Actor::start(TEST, "broker", &place);
    let watcher = place.hub("watcher");
    until("a broker", || watcher.ping(SOON).is_ok());
    let mut producer = Actor::start(TEST, "producer", &place);
    let found = || watcher.discover(&look(), SOON, RetryPolicy::none());
    until("the channel", || found().is_ok());
    let channel = found().unwrap().channel;
    let mut consumer = Actor::start(TEST, "consumer", &place);
    until("the consumer", || watcher.list(None, SOON).is_ok_and(|list| list[0].consumers == 1));
    let block = attached(&place.blocks(), channel.shm_name.as_str(), Role::Inspector);
    flows(&block, 20);
    assert_broker_has_no_block(broker.0.id(), channel.shm_name.as_str());

    for round in 0..2 {
        let epoch = watcher.broker_epoch();
        broker.kill();
        // The file says what the next one finds; without it only the producer can tell.
        if round == 0 {
            fs::remove_file(place.registry()).unwrap();
        }
        flows(&block, 50);
        assert!(matches!(found(), Err(HubError::Disconnected { .. } | HubError::Timeout { .. })));
        broker = Actor::start(TEST, "broker", &place);
        until("the channel again", || {
            found().is_ok_and(|found| found.channel.block_uuid == channel.block_uuid)
        });
        assert_ne!(watcher.broker_epoch(), epoch);
        flows(&block, 20);
        assert!(producer.runs() && consumer.runs(), "the consumer saw every id in order");
    }
    drop(broker);
}

/// The blocks that a broker answers for are not mapped by it, and one thread does its work.
fn assert_broker_has_no_block(pid: u32, name: &str) {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    assert!(maps.contains("/") && !maps.contains(name), "{maps}");
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names = threads.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    assert_eq!(names.filter(|name| name.starts_with("tidegate-hub-br")).count(), 1);
}

/// A producer that cannot register again is known from the file, after a look at its block. Dead, it is still found while
/// its block is there, gives way to another one, and not to one with another secret.
///
/// Rules: DH-193, DH-213, DH-214, M-04, M-15, N-32.
#[test]
fn a_registry_survives_its_broker_and_a_block_its_producer() {
    const TEST: &str = "processes::a_registry_survives_its_broker_and_a_block_its_producer";
    if let Some((role, place)) = role() {
        play(&role, &place);
    }
    let (_dir, place) = place();
    let broker = Actor::start(TEST, "broker", &place);
    let producer = Actor::start(TEST, "lasting producer", &place);
    let watcher = place.hub("watcher");
    let found = || watcher.discover(&look(), SOON, RetryPolicy::none());
    until("the channel", || found().is_ok());
    until("the file", || place.registry().exists());
    let first = found().unwrap().channel;

    producer.signal(Signal::STOP);
    broker.kill();
    let _broker = Actor::start(TEST, "broker", &place);
    until("another broker", || watcher.ping(SOON).is_ok());
    let again = found().unwrap().channel;
    assert_eq!((again.block_uuid, again.producer_alive), (first.block_uuid, true));

    let block = new_block(&place.blocks(), &spec("data"));
    let second = place.hub("second");
    let register = |byte| second.register(registration(&block), Some(secret(byte, "data")), SOON);
    let error = register(1).unwrap_err();
    assert!(
        matches!(&error, HubError::Conflict(refused) if refused.code == Some(Code::LiveOwner)),
        "a stopped process lives: {error}"
    );
    producer.kill();
    let orphaned = found().unwrap().channel;
    assert_eq!((orphaned.block_uuid, orphaned.producer_alive), (first.block_uuid, false));
    let error = register(2).unwrap_err();
    assert!(
        matches!(&error, HubError::AuthFailed(refused) if refused.code == Some(Code::BadProof)),
        "{error}"
    );
    let registered = register(1).unwrap();
    assert_eq!(registered.registered().map(|registered| registered.replaced), Some(true));
    assert_eq!(found().unwrap().channel.shm_name.as_str(), block.descriptor().file_name());

    // A block that goes after its producer.
    registered.deregister(SOON).unwrap();
    let last = Actor::start(TEST, "producer", &place);
    until("the last producer", || found().is_ok());
    let name = found().unwrap().channel.shm_name;
    last.kill();
    fs::remove_file(place.blocks().join(name.as_str())).unwrap();
    let gone = found().unwrap_err();
    assert!(matches!(&gone, HubError::NotFound(refused) if refused.code == Some(Code::StaleOwner)), "{gone}");
}
