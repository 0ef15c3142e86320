//! Notifications from producers to consumers: hints that may be lost.

use std::{
    mem::offset_of,
    thread,
    time::{Duration, Instant},
};

use tidegate_hub::{
    attachment::{consumer_core, writer_core},
    block::{Block, Role},
    broker::{
        Discovery, NotifierConfig, RetryPolicy,
        wire::{Notification, Register, U64},
    },
    config::{BufferPolicy, HubConfig, Timeout},
    core::{
        Start,
        config::{Deadline, Timing, WaitStrategy},
        error::AcquireError,
        reader::{Reader, Release},
        words::RowNames,
        writer::CommitInfo,
    },
    layout::{self, SyncPolicy, ZoneSpec, pages::MetricsPage},
    producer::Producer,
};
use tidegate_mq::{Context, Sub};
use tidegate_shm::sync::Ordering::Relaxed;

use crate::support::*;

/// Thinned out, and the last of a burst is announced all the same.
///
/// Rules: DH-217, N-36.
#[test]
fn the_last_commit_of_a_burst_is_announced() {
    let dir = private_dir();
    let (producer, consumer) = (hub("ipc:///nobody", "p"), hub("ipc:///nobody", "c"));
    let config = NotifierConfig { notify_every: 10, ..NotifierConfig::new(channel("a")) };
    let notifier = producer.create_pub(&format!("ipc://{}/n.sock", dir.path().display()), config).unwrap();
    let notifications = consumer.notifications(notifier.endpoint(), &channel("a"), None).unwrap();
    notifier.wait_for_consumers(1, SOON).unwrap();
    for id in 1..=25 {
        notifier.committed(Notification {
            block_uuid: uuid(1),
            slot_id: U64(id),
            commit_index: U64(id + 1),
            ts_ns: id,
        });
    }
    let mut heard = Vec::new();
    while heard.last() != Some(&25) {
        heard.push(notifications.recv_with_timeout(SOON).unwrap().expect("one more").slot_id.0);
    }
    assert!(heard.len() <= 5, "{heard:?}");
}

/// A producer tells of its commits by itself, batches as one; what is held back is published when that is asked for.
///
/// Rules: DH-216, DH-217, DH-218, DH-242.
#[test]
fn a_producer_notifies_of_its_commits() {
    let (_dir, place) = place();
    let config = HubConfig {
        dir: place.blocks(),
        sync: SyncPolicy::LatestOnly,
        ..HubConfig::new(layout::ChannelName::new("a").unwrap(), BufferPolicy::ring(8), 64)
    };
    let mut producer = Producer::create(&config).unwrap();
    let (of_producer, of_consumer) = (hub("ipc:///nobody", "p"), hub("ipc:///nobody", "c"));
    let endpoint = format!("ipc://{}/n.sock", place.0.display());
    let thinned = NotifierConfig {
        notify_every: 2,
        notify_min_interval: Duration::from_secs(600),
        ..NotifierConfig::new(channel("a"))
    };
    let notifier = of_producer.create_pub(&endpoint, thinned).unwrap();
    let notifications = of_consumer.notifications(notifier.endpoint(), &channel("a"), None).unwrap();
    notifier.wait_for_consumers(1, SOON).unwrap();
    producer.notify_by(notifier);
    let send = || producer.send(b"x", Timeout::Default).unwrap().0;
    assert_eq!((send(), send()), (0, 1));
    let heard = || notifications.recv_with_timeout(SOON).unwrap().expect("one");
    let first = heard();
    assert_eq!((first.slot_id, first.commit_index), (U64(1), U64(2)));
    assert_eq!(first.block_uuid, producer.descriptor().uuid);
    let mut batch = producer.acquire_write_batch(3, Timeout::Default).unwrap();
    (0..3).for_each(|index| batch.put_bytes(index, b"y").unwrap());
    batch.commit().unwrap();
    producer.flush_notify();
    assert_eq!(heard().slot_id, U64(4));
    assert_eq!(producer.metrics().unwrap().counters.notifications_sent, 2);
}

const NOW: Deadline = Deadline::Immediate;
const NAMES: RowNames = RowNames { uid: [b'u'; 40], name: [b'n'; 32], pid_namespace: 0 };

fn notice(id: u64) -> Notification {
    Notification { block_uuid: uuid(1), slot_id: U64(id), commit_index: U64(id + 1), ts_ns: id }
}

fn failures(block: &Block) -> u64 {
    let metrics = block.inspector_views().unwrap().metrics;
    metrics.row().u64::<{ offset_of!(MetricsPage, zmq_send_failures) }>().load(Relaxed)
}

/// A subscriber that reads nothing costs the publisher nothing but a count, in the hub and in the block; a reading one
/// beside it goes on. (No call of `committed` waits: the test would not end.)
///
/// Rules: DH-205, DH-216, M-20.
#[test]
fn a_subscriber_that_does_not_read_is_left_behind() {
    let (_dir, place) = place();
    let block = new_block(&place.blocks(), &spec("a"));
    let (producer, consumer) = (hub("ipc:///nobody", "p"), hub("ipc:///nobody", "c"));
    let counted = producer.count_in(&block).unwrap();
    let endpoint = format!("ipc://{}/n.sock", place.0.display());
    let notifier = producer.create_pub(&endpoint, NotifierConfig::new(channel("a"))).unwrap();
    let context = Context::new();
    let mut options = context.default_options(tidegate_mq::SocketType::Sub);
    (options.rcvhwm, options.rcvbuf) = (1, Some(4096));
    let stuck = Sub::with_options(&context, options).unwrap();
    stuck.subscribe(b"a").unwrap();
    stuck.connect(&endpoint).unwrap();
    let reading = consumer.notifications(&endpoint, &channel("a"), None).unwrap();
    notifier.wait_for_consumers(2, SOON).unwrap();
    let mut id = 0;
    until("the queue of the stuck one to be full", || {
        for _ in 0..100 {
            id += 1;
            notifier.committed(notice(id));
        }
        producer.counters().zmq_send_failures > 0
    });
    assert!(notifier.missed() > 0);
    assert_eq!(failures(&block), producer.counters().zmq_send_failures);
    until("the reading one", || {
        id += 1;
        notifier.committed(notice(id));
        let heard = || reading.recv_with_timeout(Duration::from_millis(20)).unwrap();
        std::iter::from_fn(heard).any(|heard| heard.slot_id.0 == id)
    });
    drop(counted);
    let before = failures(&block);
    (0..1000).for_each(|_| notifier.committed(notice(id)));
    assert_eq!(failures(&block), before, "no longer counted in the block");
}

/// Every notification is lost: the consumer has the value all the same, after its own look.
///
/// Rules: DH-215, DH-218, M-21.
#[test]
fn lost_notifications_cost_time_only() {
    let (_dir, place) = place();
    let block = new_block(&place.blocks(), &spec("a"));
    let writer = writer_core(&block, WaitStrategy::Hybrid, Timing::default()).unwrap().created().unwrap();
    let seen = attached(&place.blocks(), &block.descriptor().file_name(), Role::Consumer);
    let core = consumer_core(&seen, WaitStrategy::Hybrid, Timing::default()).unwrap();
    let mut reader = Reader::join(core, Start::Oldest, &NAMES, 1, NOW).unwrap();
    let consumer = hub("ipc:///nobody", "c");
    let nobody = format!("ipc://{}/nobody.sock", place.0.display());
    let notifications = consumer.notifications(&nobody, &channel("a"), None).unwrap();
    let id = writer.allocate(1, NOW).unwrap().first;
    writer.commit(id, CommitInfo { len: 1, user_flags: 0, slot_flags: 0 }).unwrap();
    let started = Instant::now();
    assert_eq!(notifications.recv_with_timeout(Duration::from_secs(1)).unwrap(), None);
    assert!(started.elapsed() >= Duration::from_secs(1));
    let acquired = reader.acquire_ordered(NOW).unwrap();
    assert_eq!(acquired.id, id);
    reader.release(&acquired, Release::Consumed).unwrap();
}

/// Producer and consumer of one process on one hub: one thread writes slots and notifies, one writes a zone, one reads
/// both after each notification.
///
/// Rules: DH-202, DH-218, M-12.
#[test]
fn producer_and_consumer_share_a_hub() {
    const IDS: u64 = 500;
    let (_dir, place) = place();
    let broker = place.broker();
    let mut spec = spec("a");
    spec.zones = vec![ZoneSpec::untyped("state", 64)];
    let block = new_block(&place.blocks(), &spec);
    let hub = hub(broker.endpoint(), "both");
    let endpoint = format!("ipc://{}/n.sock", place.0.display());
    let notifier = hub.create_pub(&endpoint, NotifierConfig::new(channel("a"))).unwrap();
    let zmq_endpoint = Some(tidegate_hub::broker::wire::Label::new(notifier.endpoint()).unwrap());
    let register =
        Register { zmq_endpoint, ..Register::of_block(block.descriptor(), block.own_key()).unwrap() };
    let _registration = hub.register(register, None, SOON).unwrap();

    let found = hub.discover(&Discovery::of(channel("a")), SOON, RetryPolicy::none()).unwrap().channel;
    let seen = attached(&place.blocks(), found.shm_name.as_str(), Role::Consumer);
    found.check(seen.descriptor()).unwrap();
    let told = found.zmq_endpoint.unwrap();
    let notifications =
        hub.notifications(told.as_str(), &channel("a"), found.zmq_pubkey.map(|key| key.0)).unwrap();
    notifier.wait_for_consumers(1, SOON).unwrap();
    let core = consumer_core(&seen, WaitStrategy::Hybrid, Timing::default()).unwrap();
    let mut reader = Reader::join(core, Start::Oldest, &NAMES, 1, NOW).unwrap();
    let writer = writer_core(&block, WaitStrategy::Hybrid, Timing::default()).unwrap().created().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for id in 0..IDS {
                let allocation = writer.allocate(1, Deadline::Never).unwrap();
                assert_eq!(allocation.first.0, id);
                writer.commit(allocation.first, CommitInfo { len: 8, user_flags: 0, slot_flags: 0 }).unwrap();
                notifier.committed(notice(id));
            }
        });
        scope.spawn(|| {
            let zone = block.zone_mut(0).unwrap();
            (1..=IDS).for_each(|value| zone.write_at(0, &value.to_le_bytes()).unwrap());
        });
        let (mut next, mut value) = (0, 0);
        while next < IDS || value != IDS {
            // A hint, which may be missing: look in any case.
            let _ = notifications.recv_with_timeout(Duration::from_millis(20)).unwrap();
            loop {
                match reader.acquire_ordered(NOW) {
                    Ok(acquired) => {
                        assert_eq!(acquired.id.0, next);
                        next += 1;
                        reader.release(&acquired, Release::Consumed).unwrap();
                    }
                    Err(AcquireError::QueueEmpty | AcquireError::NotReady) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            let mut bytes = [0; 8];
            seen.zone(0).unwrap().read_at(0, &mut bytes).unwrap();
            value = u64::from_le_bytes(bytes);
        }
    });
    assert_eq!(hub.counters().late_replies, 0);
}
