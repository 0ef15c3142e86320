//! Real processes that exchange values, are killed, and are followed by others.

use std::{
    thread,
    time::{Duration, Instant},
};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    core::Start,
    error::AcquireError,
    layout::SyncPolicy,
    producer::Producer,
};

use crate::{
    children::{Child, linger, role, say},
    world::{LONG, NOW, attach, config, consumer_config, number, place, receive, ring, send, send_all},
};

const COUNT: u64 = 20_000;

fn attached(dir: &std::path::Path, block: &str, config: ConsumerConfig) -> Consumer {
    Consumer::attach(block, &ConsumerConfig { dir: dir.to_owned(), ..config }).unwrap()
}

/// Every id exactly once, in order, by two processes, while a ring of 16 goes round a thousand times.
///
/// Rules: DH-103, DH-110, DH-059, DH-064, DH-201.
#[test]
fn two_processes_get_every_value_of_a_third() {
    if let Some(task) = role("reader") {
        let mut consumer = attached(&task.dir, &task.block, ConsumerConfig::default());
        say("ready");
        for expected in 0..COUNT {
            let slot = consumer.next(LONG).unwrap();
            assert_eq!((slot.id().0, number(&slot.to_vec())), (expected, expected));
        }
        assert_eq!(consumer.next(LONG).err(), Some(AcquireError::Closed { handed_over: false }));
        return;
    }
    let dir = place();
    let every = HubConfig { sync: SyncPolicy::AllReaders, ..ring(dir.path(), 16) };
    let producer = Producer::create(&every).unwrap();
    let test = "processes::two_processes_get_every_value_of_a_third";
    let mut readers = [0; 2].map(|_| Child::start(test, "reader", dir.path(), &producer.name()));
    for reader in &mut readers {
        reader.wait_for("ready");
    }
    send_all(&producer, 0..COUNT);
    producer.close().unwrap();
    readers.iter_mut().for_each(Child::succeed);
}

/// A value is sixteen equal words; whoever sees two different ones sees a torn value.
///
/// Rules: DH-058, DH-112.
#[test]
fn the_newest_value_is_never_torn_and_never_goes_back() {
    if let Some(task) = role("reader") {
        let mut consumer = attached(&task.dir, &task.block, ConsumerConfig::default());
        say("ready");
        let mut last = None;
        loop {
            match consumer.next(LONG) {
                Ok(slot) => {
                    let bytes = slot.to_vec();
                    let value = number(&bytes[..8]);
                    assert!(bytes.chunks(8).all(|word| number(word) == value), "torn");
                    assert!(last.is_none_or(|last| value > last), "{value} after {last:?}");
                    last = Some(value);
                }
                Err(AcquireError::NotReady) => {}
                Err(AcquireError::Closed { .. }) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(last, Some(COUNT - 1), "the last value is read by everybody");
        return;
    }
    for policy in [BufferPolicy::Single, BufferPolicy::DoubleBuffer, BufferPolicy::ring(3)] {
        let dir = place();
        let latest = HubConfig { sync: SyncPolicy::LatestOnly, slot_size: 128, ..config(dir.path(), policy) };
        let producer = Producer::create(&latest).unwrap();
        let test = "processes::the_newest_value_is_never_torn_and_never_goes_back";
        let mut reader = Child::start(test, "reader", dir.path(), &producer.name());
        reader.wait_for("ready");
        for value in 0..COUNT {
            let bytes: Vec<u8> = (0..16).flat_map(|_| value.to_le_bytes()).collect();
            while producer.send(&bytes, LONG).is_err() {}
        }
        producer.close().unwrap();
        reader.succeed();
    }
}

/// A consumer that is killed while it holds the ring back is out of the way at once, and nobody had to give a command.
///
/// Rules: DH-237, DH-037, DH-103.
#[test]
fn a_killed_consumer_is_out_of_the_way_of_a_writer_that_waits_for_it() {
    if let Some(task) = role("reader") {
        let mut consumer = attached(&task.dir, &task.block, ConsumerConfig::default());
        let _held = consumer.next(LONG).unwrap();
        say("holds");
        linger();
        return;
    }
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 2)).unwrap();
    send(&producer, 0);
    send(&producer, 1);
    let test = "processes::a_killed_consumer_is_out_of_the_way_of_a_writer_that_waits_for_it";
    let mut reader = Child::start(test, "reader", dir.path(), &producer.name());
    reader.wait_for("holds");
    assert_eq!(producer.try_write().err(), Some(AcquireError::QueueFull));
    thread::scope(|scope| {
        // The ring is kept for the next consumer: the writer waits until that one reads.
        let waiting = scope.spawn(|| send(&producer, 2));
        reader.kill();
        let start = Instant::now();
        while producer.consumer_count() > 0 {
            assert!(start.elapsed() < Duration::from_secs(30), "the dead consumer is still there");
            thread::yield_now();
        }
        let mut next = attach(&producer, consumer_config(dir.path()));
        assert_eq!(next.next(LONG).map(|slot| slot.id().0), Ok(0), "delivered again: it was not consumed");
        assert_eq!(waiting.join().unwrap(), 2);
        assert_eq!((receive(&mut next), receive(&mut next)), (Some(1), Some(2)));
    });
}

/// A producer that is killed leaves a slot half written and values behind it. Its consumer reads those without anybody's
/// command, and the next producer goes on with the ids.
///
/// Rules: DH-081, DH-082, DH-084, DH-065.
#[test]
fn what_a_killed_producer_had_finished_is_read_and_its_ids_go_on() {
    if let Some(task) = role("writer") {
        let kept = HubConfig { unlink_on_close: false, ..ring(&task.dir, 8) };
        let producer = Producer::create(&kept).unwrap();
        say(format!("block {}", producer.name()));
        while producer.consumer_count() == 0 {
            thread::yield_now();
        }
        send(&producer, 0);
        let _open = producer.write(NOW).unwrap();
        send(&producer, 2);
        say("open");
        linger();
        return;
    }
    let dir = place();
    let test = "processes::what_a_killed_producer_had_finished_is_read_and_its_ids_go_on";
    let mut writer = Child::start(test, "writer", dir.path(), "");
    let name = writer.wait_for("block");
    let mut consumer = attached(dir.path(), &name, ConsumerConfig::default());
    writer.wait_for("open");
    assert_eq!(receive(&mut consumer), Some(0));
    assert_eq!(consumer.try_next().err(), Some(AcquireError::QueueEmpty), "behind the open slot");
    writer.kill();
    let slot = consumer.next(LONG).unwrap();
    assert_eq!((slot.id().0, number(&slot.to_vec())), (2, 2));
    drop(slot);

    let producer = Producer::adopt(&name, &ring(dir.path(), 8), LONG).unwrap();
    assert_eq!(send(&producer, 3), 3, "ids go on");
    assert_eq!(receive(&mut consumer), Some(3));
}

/// Rules: DH-044, DH-084.
#[test]
fn a_producer_waits_for_the_death_of_the_one_before() {
    if let Some(task) = role("writer") {
        let producer = Producer::create(&ring(&task.dir, 8)).unwrap();
        send(&producer, 0);
        let _open = producer.write(NOW).unwrap();
        say(format!("block {}", producer.name()));
        linger();
        return;
    }
    let dir = place();
    let test = "processes::a_producer_waits_for_the_death_of_the_one_before";
    let mut writer = Child::start(test, "writer", dir.path(), "");
    let name = writer.wait_for("block");
    let config = ring(dir.path(), 8);
    assert!(Producer::adopt(&name, &config, NOW).is_err(), "it lives");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| Producer::adopt(&name, &config, LONG).unwrap());
        writer.kill();
        let producer = waiting.join().unwrap();
        assert_eq!((producer.abandoned(), producer.next_id().0), (1, 2));
        let oldest = ConsumerConfig { start: Some(Start::Oldest), ..consumer_config(dir.path()) };
        let mut consumer = attach(&producer, oldest);
        assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(0), None));
    });
}

/// Rules: DH-231, DH-232, DH-234, N-38.
#[test]
fn handles_beat_while_their_process_lives() {
    use tidegate_hub::{config::HubTimeouts, layout::pages::MetricsPage};
    let dir = place();
    let timeouts = HubTimeouts { heartbeat_interval: Duration::from_millis(5), ..HubTimeouts::default() };
    let beating = HubConfig { timeouts: timeouts.clone(), ..ring(dir.path(), 2) };
    let producer = Producer::create(&beating).unwrap();
    let consumer = attach(&producer, ConsumerConfig { timeouts, ..consumer_config(dir.path()) });
    let views = producer.block().inspector_views().unwrap();
    let relaxed = tidegate_shm::sync::Ordering::Relaxed;
    let row = || views.consumers.row(consumer.row()).unwrap();
    let beats = || row().u64::<0x68>().load(relaxed);
    let start = Instant::now();
    while beats() < 5 {
        assert!(start.elapsed() < Duration::from_secs(30));
        thread::yield_now();
    }
    let control = views.control.row();
    assert!(
        control.u64::<0x18>().load(relaxed) > control.u64::<0x20>().load(relaxed),
        "the producer beats, too"
    );
    assert_eq!(row().u32::<0x34>().load(relaxed) & 2, 2, "the thread beats");
    let sent = std::mem::offset_of!(MetricsPage, heartbeat_sent_count);
    assert_eq!(sent, 0xA0);
    assert!(views.metrics.row().u64::<0xA0>().load(relaxed) >= 5);

    let own = ConsumerConfig { heartbeat_thread: false, ..consumer_config(dir.path()) };
    drop(consumer);
    let silent = attach(&producer, own);
    let row = views.consumers.row(silent.row()).unwrap();
    let before = row.u64::<0x68>().load(relaxed);
    silent.heartbeat();
    assert_eq!(row.u64::<0x68>().load(relaxed), before + 1);
    assert_eq!(row.u32::<0x34>().load(relaxed) & 2, 0);
}

/// Rules: DH-234.
#[test]
fn a_producer_counts_consumers_that_do_not_beat() {
    use tidegate_hub::config::HubTimeouts;
    let dir = place();
    let (often, old) = (Duration::from_millis(5), Duration::from_millis(10));
    let timeouts = HubTimeouts { heartbeat_interval: often, heartbeat_stale: old, ..HubTimeouts::default() };
    let producer = Producer::create(&HubConfig { timeouts, ..ring(dir.path(), 2) }).unwrap();
    let seen = || producer.metrics().unwrap().counters.heartbeat_stale_seen;
    let beats = || producer.metrics().unwrap().counters.heartbeat_sent_count;
    let before = beats();
    let start = Instant::now();
    let wait_for = |what: &dyn Fn() -> bool| {
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(30));
            thread::yield_now();
        }
    };
    wait_for(&|| beats() > before + 2);
    assert_eq!(seen(), 0, "nobody is there");
    let own = ConsumerConfig { heartbeat_thread: false, ..consumer_config(dir.path()) };
    let _silent = attach(&producer, own);
    wait_for(&|| seen() > 2);
}

/// Rules: DH-097.
#[test]
fn waiting_without_end_ends_with_the_block() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 2)).unwrap();
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    thread::scope(|scope| {
        let waiting = scope.spawn(move || consumer.next(Timeout::Infinite).map(|slot| slot.id()).err());
        drop(producer);
        assert_eq!(waiting.join().unwrap(), Some(AcquireError::Closed { handed_over: false }));
    });
}
