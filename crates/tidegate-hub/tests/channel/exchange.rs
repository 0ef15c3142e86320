//! Values from a producer to consumers of the same process, under every policy.

use std::{thread, time::Duration};

use tidegate_hub::{
    block::AttachError,
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    core::{Start, codec::SlotId},
    error::{AcquireError, OpenError, ReadBatchError, RegistryError, WriteError},
    layout::{OnHeld, Orphan, Overflow, SyncPolicy},
    producer::Producer,
};

use crate::world::{
    LONG, NOW, attach, config, consumer_config, number, place, receive, ring, send, send_all,
};

/// P-01, P-05.
/// Rules: DH-087, DH-088, DH-091, P-01, P-05.
#[test]
fn a_full_ring_blocks_or_fails_and_an_empty_one_says_so() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 4)).unwrap();
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    assert_eq!(consumer.try_next().err(), Some(AcquireError::QueueEmpty));
    let short = Timeout::After(Duration::from_millis(2));
    assert_eq!(consumer.next(short).err(), Some(AcquireError::Timeout));
    assert_eq!((0..4).map(|n| send(&producer, n)).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(producer.try_write().err(), Some(AcquireError::QueueFull));
    assert_eq!(producer.write(short).err(), Some(AcquireError::Timeout));
    assert_eq!(producer.next_id(), SlotId(4), "no id was consumed");
    assert_eq!(receive(&mut consumer), Some(0));
    assert_eq!(send(&producer, 4), 4);
    drop(producer);

    let failing = HubConfig { overflow: Overflow::Fail, ..ring(dir.path(), 2) };
    let producer = Producer::create(&failing).unwrap();
    send(&producer, 0);
    send(&producer, 1);
    assert_eq!(producer.write(LONG).err(), Some(AcquireError::QueueFull), "whatever the timeout");
}

/// Rules: DH-103, DH-110.
#[test]
fn every_consumer_of_all_readers_gets_every_id_at_its_own_pace() {
    let dir = place();
    let every = HubConfig { sync: SyncPolicy::AllReaders, ..ring(dir.path(), 8) };
    let producer = Producer::create(&every).unwrap();
    let mut fast = attach(&producer, consumer_config(dir.path()));
    let mut slow = attach(&producer, consumer_config(dir.path()));
    let writing = thread::scope(|scope| {
        let writing = scope.spawn(|| (0..1_000).map(|n| send(&producer, n)).collect::<Vec<_>>());
        let reading = |consumer: &mut tidegate_hub::consumer::Consumer, pause: bool| {
            let mut got = Vec::new();
            while got.len() < 1_000 {
                let slot = consumer.next(LONG).unwrap();
                assert_eq!(slot.id().0, number(&slot.to_vec()));
                got.push(slot.id().0);
                if pause && got.len() % 100 == 0 {
                    thread::yield_now();
                }
            }
            got
        };
        let fast = scope.spawn(move || reading(&mut fast, false));
        let slow = scope.spawn(move || reading(&mut slow, true));
        let expected: Vec<u64> = (0..1_000).collect();
        assert_eq!(fast.join().unwrap(), expected);
        assert_eq!(slow.join().unwrap(), expected);
        writing.join().unwrap()
    });
    assert_eq!(writing, (0..1_000).collect::<Vec<_>>());
}

/// Rules: DH-102, DH-071, DH-072, DH-104.
#[test]
fn the_next_single_reader_goes_on_where_the_last_one_stopped() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 4)).unwrap();
    let mut first = attach(&producer, consumer_config(dir.path()));
    let second = tidegate_hub::consumer::Consumer::attach(&producer.name(), &consumer_config(dir.path()));
    let refused = second.err();
    assert!(
        matches!(refused, Some(OpenError::Registry(RegistryError::ConsumerLimit { only: Some(_), .. }))),
        "{refused:?}"
    );
    send_all(&producer, 0..3);
    assert_eq!(receive(&mut first), Some(0));
    first.detach().unwrap();
    let mut second = attach(&producer, consumer_config(dir.path()));
    assert_eq!((receive(&mut second), receive(&mut second), receive(&mut second)), (Some(1), Some(2), None));
}

/// Rules: DH-112, DH-072.
#[test]
fn the_newest_value_comes_once_and_passes_over_older_ones() {
    let dir = place();
    let producer = Producer::create(&config(dir.path(), BufferPolicy::DoubleBuffer)).unwrap();
    assert_eq!(producer.descriptor().spec.sync, SyncPolicy::LatestOnly);
    send(&producer, 1);
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(1), None));
    send_all(&producer, 2..7);
    assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(6), None));
    consumer.seek_latest().unwrap();
    assert_eq!(receive(&mut consumer), Some(6), "asked for by name");
    let again = ConsumerConfig { allow_repeat: true, ..consumer_config(dir.path()) };
    let mut again = attach(&producer, again);
    assert_eq!((receive(&mut again), receive(&mut again)), (Some(6), Some(6)));
}

/// Rules: DH-090.
#[test]
fn a_reader_that_holds_a_slot_does_not_stop_the_writer_of_newest_values() {
    let dir = place();
    let latest = HubConfig { sync: SyncPolicy::LatestOnly, ..ring(dir.path(), 3) };
    assert_eq!(latest.effective_on_held(), OnHeld::Skip);
    assert_eq!(config(dir.path(), BufferPolicy::Single).effective_on_held(), OnHeld::Wait);
    let producer = Producer::create(&latest).unwrap();
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    send(&producer, 7);
    let held = consumer.try_next().unwrap();
    send_all(&producer, 0..20);
    assert!(held.validate() && number(&held.to_vec()) == 7);
    drop(held);
    assert_eq!(receive(&mut consumer), Some(19));
}

/// Rules: DH-089, DH-061.
#[test]
fn dropping_the_oldest_tells_the_reader_how_much_it_lost() {
    let dir = place();
    let dropping = HubConfig { overflow: Overflow::DropOldest, ..ring(dir.path(), 8) };
    let producer = Producer::create(&dropping).unwrap();
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    send_all(&producer, 0..20);
    let lost = match consumer.try_next().err() {
        Some(AcquireError::Lapped { lost }) => lost,
        other => panic!("{other:?}"),
    };
    let left: Vec<u64> = std::iter::from_fn(|| receive(&mut consumer)).collect();
    assert_eq!(left, (lost..20).collect::<Vec<_>>(), "reading goes on behind what was lost, to the end");
    assert!((12..20).contains(&lost));
}

/// Rules: DH-092.
#[test]
fn without_consumers_a_ring_is_kept_or_goes_on() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 2)).unwrap();
    send_all(&producer, 0..2);
    assert_eq!(producer.try_write().err(), Some(AcquireError::QueueFull));
    drop(producer);
    let advancing = HubConfig { orphan: Orphan::Advance, ..ring(dir.path(), 2) };
    let producer = Producer::create(&advancing).unwrap();
    send_all(&producer, 0..10);
    let oldest = ConsumerConfig { start: Some(Start::Oldest), ..consumer_config(dir.path()) };
    let mut consumer = attach(&producer, oldest);
    assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(8), Some(9)));
}

/// Rules: DH-119, DH-120, DH-121, DH-056.
#[test]
fn a_write_batch_is_seen_as_a_whole_or_not_at_all() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 8)).unwrap();
    let mut consumer = attach(&producer, ConsumerConfig { max_held: 8, ..consumer_config(dir.path()) });
    assert!(matches!(
        producer.acquire_write_batch(9, NOW).err(),
        Some(WriteError::BatchTooLarge { requested: 9, available: 8 })
    ));
    assert!(producer.acquire_write_batch(0, NOW).unwrap().is_empty());

    let mut batch = producer.acquire_write_batch(5, NOW).unwrap();
    for index in 0..5 {
        batch.put_bytes(index, &(index as u64).to_le_bytes()).unwrap();
    }
    assert!(batch.put_bytes(5, b"").is_err() && batch.put_bytes(0, &[0; 65]).is_err());
    assert!(producer.acquire_write_batch(4, NOW).is_err(), "none or all");
    assert_eq!(consumer.backlog(), 0);
    batch.commit().unwrap();
    assert_eq!(consumer.backlog(), 5);
    assert_eq!((0..5).map(|_| receive(&mut consumer)).collect::<Vec<_>>(), [0, 1, 2, 3, 4].map(Some));

    let mut batch = producer.acquire_write_batch(3, NOW).unwrap();
    batch.put_bytes(1, &7u64.to_le_bytes()).unwrap();
    batch.commit_one(1).unwrap();
    assert!(batch.bytes_mut(1).is_none() && batch.commit_one(1).is_err(), "it is not ours any more");
    drop(batch);
    assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(7), None), "holes around it");
}

/// Rules: DH-122, DH-123.
#[test]
fn a_read_batch_is_consumed_as_a_whole_or_a_prefix_early() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 8)).unwrap();
    let mut consumer = attach(&producer, ConsumerConfig { max_held: 4, ..consumer_config(dir.path()) });
    send_all(&producer, 0..8);
    let error = consumer.acquire_read_batch(5, NOW).err();
    assert!(matches!(error, Some(ReadBatchError::BatchTooLarge { requested: 5, available: 4 })));
    let ids = |batch: &tidegate_hub::consumer::ReadBatch<'_>| -> Vec<u64> {
        batch
            .iter()
            .map(|(id, bytes)| {
                assert_eq!(number(&bytes.to_vec()), id.0);
                id.0
            })
            .collect()
    };
    let batch = consumer.acquire_read_batch(3, NOW).unwrap();
    assert_eq!(ids(&batch), [0, 1, 2]);
    batch.nack();
    let mut batch = consumer.acquire_read_batch(3, NOW).unwrap();
    assert_eq!(ids(&batch), [0, 1, 2]);
    batch.consume_first(2).unwrap();
    assert_eq!(ids(&batch), [2]);
    assert_eq!((send(&producer, 8), send(&producer, 9)), (8, 9), "room for as many as were consumed");
    assert_eq!(producer.try_write().err(), Some(AcquireError::QueueFull));
    drop(batch);
    assert_eq!(ids(&consumer.acquire_read_up_to(4).unwrap()), [3, 4, 5, 6]);
    assert_eq!(ids(&consumer.acquire_read_up_to(4).unwrap()), [7, 8, 9]);
    assert!(consumer.acquire_read_up_to(4).is_err());
    assert!(consumer.acquire_read_batch(1, NOW).is_err());
    assert_eq!((consumer.slots_consumed(), consumer.bytes_consumed()), (10, 80));
}

/// Rules: DH-108, DH-110, DH-113, DH-239, N-40.
#[test]
fn a_consumer_moves_in_the_ring_and_reads_to_the_end_of_a_closed_one() {
    let dir = place();
    let retaining = HubConfig { sync: SyncPolicy::AllReaders, first_slot_id: 100, ..ring(dir.path(), 8) };
    let producer = Producer::create(&retaining).unwrap();
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    let _floor = attach(&producer, consumer_config(dir.path()));
    assert_eq!(consumer.peek(), Ok(None));
    send_all(&producer, 100..106);
    drop(producer.try_write().unwrap());
    send(&producer, 107);
    assert_eq!((consumer.position(), consumer.backlog()), (SlotId(100), 8));
    assert_eq!(consumer.peek(), Ok(Some((SlotId(100), 8))));
    consumer.seek_to(SlotId(103)).unwrap();
    assert_eq!(receive(&mut consumer), Some(103));
    consumer.seek_to(SlotId(100)).unwrap();
    assert_eq!(receive(&mut consumer), Some(100));
    assert_eq!(consumer.seek_to(SlotId(109)), Err(AcquireError::InvalidState));
    assert_eq!(consumer.skip(), Ok(SlotId(101)));
    consumer.seek_to(SlotId(106)).unwrap();
    assert_eq!(receive(&mut consumer), Some(107), "the hole is stepped over");
    consumer.seek_end().unwrap();
    assert_eq!(receive(&mut consumer), None);
    consumer.seek_oldest().unwrap();
    assert_eq!(receive(&mut consumer), Some(100));
    let name = producer.name();
    producer.close().unwrap();
    assert!(!dir.path().join(name).exists(), "unlinked");
    let left: Vec<u64> = std::iter::from_fn(|| receive(&mut consumer)).collect();
    assert_eq!(left, [101, 102, 103, 104, 105, 107]);
    assert_eq!(consumer.next(LONG).err(), Some(AcquireError::Closed { handed_over: false }));
}

/// Rules: DH-073, DH-108, C-07.
#[test]
fn who_seeks_below_the_floor_is_told_once() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 4)).unwrap();
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    send_all(&producer, 0..4);
    consumer.seek_to(SlotId(0)).unwrap();
    (0..3).for_each(|id| assert_eq!(receive(&mut consumer), Some(id)));
    consumer.seek_to(SlotId(1)).unwrap();
    assert_eq!(receive(&mut consumer), Some(1), "above the floor is everything still");
    (2..4).for_each(|id| assert_eq!(receive(&mut consumer), Some(id)));
    // The floor moves as far as it may.
    send(&producer, 4);
    assert_eq!(consumer.seek_to(SlotId(1)), Err(AcquireError::Lapped { lost: 3 }));
    assert_eq!(receive(&mut consumer), Some(4));
    assert_eq!(consumer.seek_to(SlotId(4)), Ok(()));
    assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(4), None));
    assert_eq!(consumer.seek_to(SlotId(0)), Err(AcquireError::Lapped { lost: 4 }));
}

/// Rules: DH-001, DH-039, I-10, N-01.
#[test]
fn one_process_writes_a_block_with_one_handle_and_many_threads() {
    let dir = place();
    let producer = Producer::create(&HubConfig { unlink_on_close: false, ..ring(dir.path(), 64) }).unwrap();
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    let second = Producer::adopt(&producer.name(), &ring(dir.path(), 64), NOW);
    assert!(matches!(second.err(), Some(OpenError::Attach(AttachError::Locked))));
    thread::scope(|scope| {
        for thread in 0..4 {
            let producer = &producer;
            scope.spawn(move || {
                for _ in 0..1_000 {
                    producer.send(&[thread; 8], LONG).unwrap();
                }
            });
        }
        let mut written = [0; 4];
        for expected in 0..4_000 {
            let slot = consumer.next(LONG).unwrap();
            assert_eq!(slot.id().0, expected);
            let bytes = slot.to_vec();
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{expected}: of two threads");
            written[usize::from(bytes[0])] += 1;
        }
        assert_eq!(written, [1_000; 4]);
    });
    assert!(producer.send(b"on", LONG).is_ok(), "it is the writer still");
}

/// Rules: DH-107.
#[test]
fn an_evicted_consumer_is_fenced_and_keeps_what_it_holds() {
    let dir = place();
    let advancing = HubConfig { orphan: Orphan::Advance, ..ring(dir.path(), 2) };
    let producer = Producer::create(&advancing).unwrap();
    let mut consumer = attach(&producer, consumer_config(dir.path()));
    send_all(&producer, 0..2);
    let row = tidegate_hub::core::codec::Row(consumer.row());
    let held = consumer.try_next().unwrap();
    producer.writer().core().evict(row, tidegate_hub::core::config::Deadline::Immediate).unwrap();
    assert_eq!(producer.write(Timeout::After(Duration::from_millis(2))).err(), Some(AcquireError::Timeout));
    assert_eq!(number(&held.to_vec()), 0);
    drop(held);
    assert_eq!(send(&producer, 2), 2);
    assert_eq!(consumer.try_next().err(), Some(AcquireError::Fenced));
    consumer.detach().unwrap();
    assert_eq!(producer.consumer_count(), 0);
}
