//! Load (25.13): many processes and threads at full speed for a while, `TIDEGATE_STRESS_SECONDS` long (two).

use std::{
    mem::offset_of,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tidegate_hub::{
    block::{AttachOptions, Role, attach as attach_block},
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    core::Start,
    error::AcquireError,
    inspect::Inspector,
    layout::{
        DigestAlg, DigestPolicy, InitState, Orphan, Overflow, SyncPolicy,
        pages::{ControlPage, DigestEntry, SlotRecord},
    },
    producer::Producer,
};
use tidegate_shm::sync::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed},
};

use crate::{
    children::{Child, Task, role, say},
    world::{LONG, NOW, attach, config, consumer_config, place, ring, send},
};

fn length() -> Duration {
    let seconds = std::env::var("TIDEGATE_STRESS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// `len` bytes made of the id: the id and a hash of it in turn.
fn value(id: u64, len: usize) -> Vec<u8> {
    let hash = (id ^ 0x5851_F42D_4C95_7F2D).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    [id, hash].iter().cycle().flat_map(|word| word.to_le_bytes()).take(len).collect()
}

fn oldest(dir: &Path) -> ConsumerConfig {
    ConsumerConfig { start: Some(Start::Oldest), ..consumer_config(dir) }
}

/// Writes values of `len` bytes for as long as it takes; returns how many ids there are.
fn write_for(length: Duration, producer: &Producer, len: usize) -> u64 {
    let start = Instant::now();
    while start.elapsed() < length {
        let mut slot = producer.write(LONG).unwrap();
        let bytes = value(slot.id().0, len);
        slot.put_bytes(&bytes).unwrap();
        slot.commit().unwrap();
    }
    producer.next_id().0
}

/// Eight processes read everything that a ninth writes: nothing is missing, twice, or other than it was.
/// Rules: DH-103, DH-059, DH-064, R-01.
#[test]
fn eight_readers_get_everything() {
    let test = "stress::eight_readers_get_everything";
    if let Some(task) = role("reader") {
        let mut consumer = Consumer::attach(&task.block, &oldest(&task.dir)).unwrap();
        say("ready");
        for expected in 0.. {
            match consumer.next(LONG) {
                Ok(slot) => {
                    assert_eq!(slot.id().0, expected);
                    assert!(slot.to_vec() == value(expected, 4096), "{expected}");
                }
                Err(error) => {
                    assert_eq!(error, AcquireError::Closed { handed_over: false });
                    return say(format!("read {expected}"));
                }
            }
        }
    }
    let dir = place();
    let every = HubConfig { sync: SyncPolicy::AllReaders, slot_size: 4096, ..ring(dir.path(), 256) };
    let producer = Producer::create(&every).unwrap();
    let mut readers = [0; 8].map(|_| Child::start(test, "reader", dir.path(), &producer.name()));
    readers.iter_mut().for_each(|reader| drop(reader.wait_for("ready")));
    let written = write_for(length(), &producer, 4096);
    assert!(written > 256, "{written}");
    producer.close().unwrap();
    for reader in &mut readers {
        assert_eq!(reader.wait_for("read "), written.to_string());
        reader.succeed();
    }
}

/// Rules: DH-058, DH-112, R-02.
#[test]
fn sixteen_readers_of_the_newest_value() {
    let test = "stress::sixteen_readers_of_the_newest_value";
    if let Some(task) = role("reader") {
        let mut consumer = Consumer::attach(&task.block, &consumer_config(&task.dir)).unwrap();
        say("ready");
        let mut last = None;
        loop {
            match consumer.next(LONG) {
                Ok(slot) => {
                    let id = slot.id().0;
                    assert!(slot.to_vec() == value(id, 64), "{id}");
                    assert!(last < Some(id), "{id} after {last:?}");
                    last = Some(id);
                }
                Err(AcquireError::NotReady) => {}
                Err(error) => {
                    assert_eq!(error, AcquireError::Closed { handed_over: false });
                    return say(format!("read {}", last.unwrap()));
                }
            }
        }
    }
    let dir = place();
    let newest = HubConfig { sync: SyncPolicy::LatestOnly, max_consumers: 16, ..ring(dir.path(), 3) };
    let producer = Producer::create(&newest).unwrap();
    let mut readers = [0; 16].map(|_| Child::start(test, "reader", dir.path(), &producer.name()));
    readers.iter_mut().for_each(|reader| drop(reader.wait_for("ready")));
    let written = write_for(length(), &producer, 64);
    producer.close().unwrap();
    for reader in &mut readers {
        let last: u64 = reader.wait_for("read ").parse().unwrap();
        assert!(last < written);
        reader.succeed();
    }
}

/// Rules: DH-061, DH-089, R-03.
#[test]
fn a_slow_reader_knows_what_it_lost() {
    let dir = place();
    let dropping = HubConfig { overflow: Overflow::DropOldest, ..ring(dir.path(), 16) };
    let producer = Producer::create(&dropping).unwrap();
    let mut consumer = attach(&producer, oldest(dir.path()));
    let closing = AtomicBool::new(false);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let (mut read, mut lost, mut next) = (0, 0, 0);
            loop {
                match consumer.next(LONG) {
                    Ok(slot) => {
                        let id = slot.id().0;
                        assert!(slot.to_vec() == value(id, 64), "{id}");
                        assert_eq!(id, next, "whatever is missing was said to be lost");
                        (read, next) = (read + 1, id + 1);
                    }
                    Err(AcquireError::Lapped { lost: more }) => (lost, next) = (lost + more, next + more),
                    Err(error) => {
                        assert_eq!(error, AcquireError::Closed { handed_over: false });
                        return (read, lost);
                    }
                }
                // Ten times slower than the writer, or done.
                let until = producer.next_id().0 + 10;
                while producer.next_id().0 < until && !closing.load(Acquire) {
                    thread::yield_now();
                }
            }
        });
        let written = write_for(length(), &producer, 64);
        closing.store(true, tidegate_shm::sync::Ordering::Release);
        // The reader borrows the producer: it is told of the end by the words.
        producer.writer().start_closing().unwrap();
        let (read, lost) = reading.join().unwrap();
        assert_eq!(read + lost, written);
        assert!(lost > read, "{lost} lost, {read} read");
    });
}

/// Rules: DH-065, DH-066, R-04.
#[test]
fn four_threads_write_and_abort() {
    let test = "stress::four_threads_write_and_abort";
    if let Some(task) = role("reader") {
        let mut consumer = Consumer::attach(&task.block, &oldest(&task.dir)).unwrap();
        say("ready");
        let (mut read, mut last) = (0_u64, None);
        while let Ok(slot) = consumer.next(LONG) {
            let id = slot.id().0;
            assert!(last < Some(id) && slot.to_vec() == value(id, 64), "{id} after {last:?}");
            (last, read) = (Some(id), read + 1);
        }
        let row = Inspector::of(consumer.block().clone()).unwrap();
        let views = row.block().inspector_views().unwrap();
        let holes = views.consumers.row(consumer.row()).unwrap().u64::<0x58>().load(Relaxed);
        return say(format!("read {read} {holes}"));
    }
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 32)).unwrap();
    let mut reader = Child::start(test, "reader", dir.path(), &producer.name());
    reader.wait_for("ready");
    let (committed, aborted) = (AtomicU64::new(0), AtomicU64::new(0));
    let length = length();
    thread::scope(|scope| {
        for thread in 1..=4_u64 {
            let (producer, committed, aborted) = (&producer, &committed, &aborted);
            scope.spawn(move || {
                let (start, mut dice) = (Instant::now(), thread);
                while start.elapsed() < length {
                    let mut slot = producer.write(LONG).unwrap();
                    dice =
                        dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    if dice >> 62 == 0 {
                        slot.abort();
                        aborted.fetch_add(1, Relaxed);
                    } else {
                        let bytes = value(slot.id().0, 64);
                        slot.put_bytes(&bytes).unwrap();
                        slot.commit().unwrap();
                        committed.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    let ids = producer.next_id().0;
    producer.close().unwrap();
    let [committed, aborted] = [committed, aborted].map(|count| count.load(Relaxed));
    assert_eq!(committed + aborted, ids);
    assert_eq!(reader.wait_for("read "), format!("{committed} {aborted}"), "holes are what was aborted");
    reader.succeed();
}

/// Meanwhile the floor and where it is about to go are watched.
/// Rules: DH-069, DH-074, DH-083, R-05, N-14.
#[test]
fn consumers_come_and_go() {
    let test = "stress::consumers_come_and_go";
    if let Some(task) = role("visitor") {
        let mut visits = 0_u64;
        let start = Instant::now();
        while start.elapsed() < length() {
            let config =
                if visits.is_multiple_of(2) { oldest(&task.dir) } else { consumer_config(&task.dir) };
            let mut consumer = Consumer::attach(&task.block, &config).unwrap();
            let start = consumer.start_id().0;
            for expected in start..start + visits % 4 {
                let slot = consumer.next(LONG).unwrap();
                assert!(slot.id().0 == expected && slot.to_vec() == value(expected, 64), "{expected}");
            }
            // Some are not told.
            if visits.is_multiple_of(3) {
                drop(consumer)
            } else {
                consumer.detach().unwrap()
            }
            visits += 1;
        }
        return say(format!("visits {visits}"));
    }
    let dir = place();
    let every = HubConfig { sync: SyncPolicy::AllReaders, max_consumers: 4, ..ring(dir.path(), 16) };
    let producer = Producer::create(&every).unwrap();
    let mut resident = attach(&producer, oldest(dir.path()));
    let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Inspector) };
    let inspector = Inspector::open(&producer.name(), &options).unwrap();
    let done = AtomicBool::new(false);
    let visits: u64 = thread::scope(|scope| {
        let mut visitors = [0; 3].map(|_| Child::start(test, "visitor", dir.path(), &producer.name()));
        scope.spawn(|| {
            while !done.load(Acquire) {
                let mut slot = producer.write(LONG).unwrap();
                let bytes = value(slot.id().0, 64);
                slot.put_bytes(&bytes).unwrap();
                slot.commit().unwrap();
            }
        });
        let reading = scope.spawn(|| {
            let mut expected = 0;
            loop {
                match resident.next(Timeout::After(Duration::from_millis(100))) {
                    Ok(slot) => assert_eq!(slot.id().0, expected),
                    Err(AcquireError::Timeout) if done.load(Acquire) => return,
                    // On a busy machine the writer may not have come to it.
                    Err(AcquireError::Timeout) => continue,
                    Err(error) => panic!("{error}"),
                }
                expected += 1;
            }
        });
        let watching = scope.spawn(|| {
            let views = inspector.block().inspector_views().unwrap();
            let control = views.control.row();
            let mut last = 0;
            while !done.load(Acquire) {
                let floor = control.u64::<0xC0>().load(Acquire);
                // Loaded later, so it may be further, but never below.
                let intent = control.u64::<0xC8>().load(Acquire);
                assert!(last <= floor && floor <= intent, "{last} {floor} {intent}");
                last = floor;
            }
            last
        });
        let visits = visitors.iter_mut().map(|visitor| {
            let visits: u64 = visitor.wait_for("visits").parse().unwrap();
            visitor.succeed();
            visits
        });
        let visits = visits.sum();
        done.store(true, tidegate_shm::sync::Ordering::Release);
        reading.join().unwrap();
        assert!(watching.join().unwrap() > 16);
        visits
    });
    assert!(visits > 30, "{visits}");
    assert_eq!(producer.consumer_count(), 1);
    let rows: Vec<_> = inspector.consumers().iter().map(|row| row.row).collect();
    assert_eq!(rows, [resident.row()]);
    let counters = inspector.metrics().counters;
    assert_eq!((counters.consumers_joined, counters.consumers_left), (visits + 1, visits));
    let report = inspector.integrity(true);
    assert!(report.is_valid(), "{:?}", report.findings);
}

/// A ring as large as 22.2 says takes a burst that is ten times as fast as its reader, and nobody waits.
/// Rules: DH-087, R-06.
#[test]
fn a_ring_sized_for_a_burst_takes_it() {
    // A second of 2,000 values against 200 that are read: (2,000 - 200) x 1.5, and the next power of two.
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 4096)).unwrap();
    let mut consumer = attach(&producer, oldest(dir.path()));
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            for expected in 0..2_000 {
                assert_eq!(consumer.next(LONG).unwrap().id().0, expected);
                // As much slower as it is, until the burst is over.
                while producer.next_id().0 < (10 * (expected + 1)).min(2_000) {
                    thread::yield_now();
                }
            }
        });
        let start = Instant::now();
        for id in 0..2_000_u32 {
            while start.elapsed() < Duration::from_micros(500) * id {
                thread::yield_now();
            }
            let sent = producer.send(&id.to_le_bytes(), NOW);
            assert_eq!(sent.unwrap().0, u64::from(id), "there is a place at once");
        }
        reading.join().unwrap();
    });
    let metrics = Inspector::of(producer.block().clone()).unwrap().metrics();
    assert_eq!(metrics.counters.writer_timeout_count, 0);
}

/// Four times as many processes as processors that are always busy, half of them nicer: everybody gets on.
/// Rules: DH-076, R-07.
#[test]
fn processors_are_oversubscribed() {
    let test = "stress::processors_are_oversubscribed";
    if role("busy").is_some() {
        say("busy");
        // A process without standard input's writer ends with its test, which kills it.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(600) {
            std::hint::spin_loop();
        }
        return;
    }
    if role("nice").is_some() {
        rustix::process::nice(10).unwrap();
        say("busy");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(600) {
            std::hint::spin_loop();
        }
        return;
    }
    if let Some(task) = role("reader") {
        let mut consumer = Consumer::attach(&task.block, &oldest(&task.dir)).unwrap();
        say("ready");
        for expected in 0..2_000 {
            assert_eq!(consumer.next(LONG).unwrap().id().0, expected);
        }
        return say("read");
    }
    let dir = place();
    let processors = thread::available_parallelism().unwrap().get();
    let mut others: Vec<_> = (0..4 * processors)
        .map(|number| {
            Child::start(test, if number.is_multiple_of(2) { "busy" } else { "nice" }, dir.path(), "")
        })
        .collect();
    others.iter_mut().for_each(|other| drop(other.wait_for("busy")));
    // Each value has to be read before the next one is written: everything is waiting.
    let every = HubConfig { sync: SyncPolicy::AllReaders, ..ring(dir.path(), 2) };
    let producer = Producer::create(&every).unwrap();
    let mut readers = [0; 3].map(|_| Child::start(test, "reader", dir.path(), &producer.name()));
    readers.iter_mut().for_each(|reader| drop(reader.wait_for("ready")));
    for id in 0..2_000 {
        assert_eq!(send(&producer, id), id);
    }
    for reader in &mut readers {
        reader.wait_for("read");
        reader.succeed();
    }
}

/// Whoever sees a slot COMMITTED under enforced digests sees the digest of that value.
/// Rules: DH-153, DH-064, G-04.
#[test]
fn the_digest_is_there_before_the_value() {
    if let Some(task) = role("watcher") {
        return watch_digests(&task);
    }
    let dir = place();
    let sealed = HubConfig {
        digest_alg: DigestAlg::Blake3,
        digest_policy: DigestPolicy::Enforced,
        orphan: Orphan::Advance,
        ..config(dir.path(), BufferPolicy::ring(2))
    };
    let producer = Producer::create(&sealed).unwrap();
    let test = "stress::the_digest_is_there_before_the_value";
    let mut watcher = Child::start(test, "watcher", dir.path(), &producer.name());
    watcher.wait_for("watching");
    write_for(length(), &producer, 64);
    producer.close().unwrap();
    watcher.succeed();
}

/// Looks at both slots until the block is closed, and once more.
fn watch_digests(task: &Task) {
    let options = AttachOptions { dir: task.dir.clone(), ..AttachOptions::new(Role::Inspector) };
    let block = attach_block(&task.block, &options).unwrap();
    let views = block.inspector_views().unwrap();
    let is_ready = || {
        let state = views.control.row().u32::<{ offset_of!(ControlPage, init_state) }>().load(Acquire);
        state == InitState::Ready.code()
    };
    let watch = |slot: u32| {
        let record = views.slot_records.row(slot).unwrap();
        let ctl = || record.u64::<{ offset_of!(SlotRecord, ctl) }>().load(Acquire);
        let entry = views.digests.row(slot).unwrap();
        let mut seen = 0_u64;
        loop {
            let goes_on = is_ready();
            let before = ctl();
            let tag = entry.u64::<{ offset_of!(DigestEntry, tag) }>().load(Acquire);
            // Still COMMITTED: the entry is of this value.
            if before & 7 == 2 && ctl() == before {
                assert_eq!(tag, before >> 3);
                seen += 1;
            }
            if !goes_on {
                return seen;
            }
        }
    };
    say("watching");
    thread::scope(|scope| {
        let watch = &watch;
        let watching = [0, 1].map(|slot| scope.spawn(move || watch(slot)));
        for watching in watching {
            assert!(watching.join().unwrap() > 0, "none was seen");
        }
    });
}
