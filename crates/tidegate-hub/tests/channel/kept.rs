//! Slots that are kept until somebody answers for them, and those who wait for the next one without reading.

use std::{sync::mpsc::channel, thread, time::Duration};

use tidegate_hub::{
    block::{AttachOptions, Role, find},
    config::{ConsumerConfig, HubConfig},
    consumer::{Consumer, HandoverIterator, KeptSlot, Watcher},
    core::codec::SlotId,
    error::{AcquireError as Error, FollowError},
    handover::{Confirm, HandoverOptions},
    layout::SyncPolicy,
    producer::Producer,
};

use crate::{
    children::PATIENCE,
    world::{NOW, attach, consumer_config, number, place, receive, ring, send, send_all},
};

fn keeping(producer: &Producer, max_held: u32) -> Consumer {
    attach(producer, ConsumerConfig { max_held, ..ConsumerConfig::default() })
}

fn keep(consumer: &mut Consumer) -> Result<(KeptSlot, u64), Error> {
    consumer.keep_next(|slot, bytes| {
        assert_eq!(number(&bytes.to_vec()), slot.id().0, "the payload is that of its slot");
        slot.id().0
    })
}

/// What is kept holds the writer up, and is let go in any order; more than was asked for is not kept.
///
/// Rules: DH-104.
#[test]
fn a_slot_that_is_kept_is_not_overwritten_until_it_is_given_back() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 4)).unwrap();
    let mut consumer = keeping(&producer, 3);
    assert!(matches!(keep(&mut consumer), Err(Error::QueueEmpty)));
    send_all(&producer, 0..4);
    let [(first, _), (second, _), (third, _)] = [(); 3].map(|()| keep(&mut consumer).unwrap());
    assert_eq!([first.id(), second.id(), third.id()], [0, 1, 2].map(SlotId));
    assert!(matches!(keep(&mut consumer), Err(Error::Locked { .. })));
    assert!(producer.write(NOW).is_err(), "all four slots are taken");
    consumer.consume_kept(second).unwrap();
    assert!(producer.write(NOW).is_err(), "the oldest is still kept");
    consumer.consume_kept(first).unwrap();
    send_all(&producer, 4..6);
    assert!(producer.write(NOW).is_err());
    assert_eq!(consumer.slots_consumed(), 2);
    assert_eq!(keep(&mut consumer).unwrap().1, 3);
    drop(third);
}

/// Who leaves with kept slots has not consumed them: they come again, in their order, to whoever comes next.
///
/// Rules: DH-104, DH-118.
#[test]
fn what_was_kept_and_not_given_back_comes_again() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 8)).unwrap();
    let mut consumer = keeping(&producer, 8);
    send_all(&producer, 0..5);
    let mut kept: Vec<KeptSlot> =
        std::iter::from_fn(|| keep(&mut consumer).ok().map(|(slot, _)| slot)).collect();
    assert_eq!(kept.len(), 5);
    for slot in kept.drain(..2) {
        consumer.consume_kept(slot).unwrap();
    }
    drop((kept, consumer));
    let mut next = attach(&producer, ConsumerConfig::default());
    let numbers: Vec<u64> = std::iter::from_fn(|| receive(&mut next)).collect();
    assert_eq!(numbers, [2, 3, 4]);
}

/// Waits in a thread of its own, which says when it has begun, and how the wait ended.
fn watch(watcher: Watcher, id: u64) -> thread::JoinHandle<bool> {
    let (begin, begun) = channel();
    let waiting = thread::spawn(move || {
        begin.send(()).unwrap();
        watcher.wait(SlotId(id), PATIENCE)
    });
    begun.recv().unwrap();
    waiting
}

/// A watcher is woken by a commit, by the end of the channel, and by nothing else; it takes no slot and holds nobody up.
///
/// Rules: DH-076.
#[test]
fn a_watcher_waits_for_the_next_commit_and_takes_no_part() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 2)).unwrap();
    let mut consumer = keeping(&producer, 2);
    let watcher = consumer.watcher().unwrap();
    assert!(!watcher.wait(SlotId(0), Duration::from_millis(1)));
    send(&producer, 0);
    assert!(watcher.wait(SlotId(0), Duration::ZERO), "it is there already");
    assert!(!watcher.wait(SlotId(1), Duration::from_millis(1)), "what comes behind it is not");
    let waiting = watch(watcher.clone(), 1);
    send(&producer, 1);
    assert!(waiting.join().unwrap());
    assert_eq!((receive(&mut consumer), receive(&mut consumer)), (Some(0), Some(1)));
    send_all(&producer, 2..4);
    let waiting = watch(watcher.clone(), 4);
    producer.close().unwrap();
    assert!(waiting.join().unwrap(), "what will never be there is not waited for");
    drop(watcher);
}

fn follow(producer: &Producer, max_held: u32) -> HandoverIterator {
    let dir = producer.path().parent().unwrap();
    let config = ConsumerConfig { max_held, ..consumer_config(dir) };
    HandoverIterator::attach(&producer.name(), &config).unwrap()
}

fn keep_on(iterator: &mut HandoverIterator) -> Option<KeptSlot> {
    match iterator.keep_next(|slot, bytes| assert_eq!(number(&bytes.to_vec()), slot.id().0)) {
        Ok((slot, ())) => Some(slot),
        Err(FollowError::Acquire(Error::QueueEmpty)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// What is kept when a channel moves stays held in the block that was left, and is given back there; the block is left when
/// nothing of it is kept any more.
///
/// Rules: DH-219, DH-220.
#[test]
fn slots_are_kept_through_a_handover() {
    let dir = place();
    let all = |slots| HubConfig { sync: SyncPolicy::AllReaders, ..ring(dir.path(), slots) };
    let old = Producer::create(&all(4)).unwrap();
    let mut iterator = follow(&old, 16);
    send_all(&old, 0..3);
    let unasked = HandoverOptions { confirm: Confirm::None, ..HandoverOptions::default() };
    let new = old.begin_handover(&all(8), unasked).unwrap().cut().unwrap();
    send_all(&new, 3..6);
    let kept: Vec<KeptSlot> = std::iter::from_fn(|| keep_on(&mut iterator)).collect();
    assert_eq!(kept.iter().map(|slot| slot.id().0).collect::<Vec<_>>(), (0..6).collect::<Vec<_>>());
    assert_eq!(iterator.consumer().descriptor().uuid, new.descriptor().uuid);
    assert_eq!((old.consumer_count(), new.consumer_count()), (1, 1));
    // Both are there, and one of them is the channel.
    let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Consumer) };
    let found = find(&old.descriptor().spec.channel, &options).unwrap();
    assert_eq!(found.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), [new.name()]);
    for slot in kept {
        assert_eq!(old.consumer_count(), u32::from(slot.id().0 < 3), "{slot:?}");
        iterator.consume_kept(slot).unwrap();
    }
    assert_eq!((old.consumer_count(), iterator.consumer().slots_consumed()), (0, 3));
}

/// One who watches for a reader that follows is woken when a handover begins, so that it is answered although nothing is
/// written; and not again for what its reader has seen.
///
/// Rules: DH-219.
#[test]
fn a_watcher_of_one_who_follows_is_woken_by_a_handover() {
    let dir = place();
    let producer = Producer::create(&ring(dir.path(), 4)).unwrap();
    let mut iterator = follow(&producer, 1);
    assert!(keep_on(&mut iterator).is_none());
    let waiting = watch(iterator.watcher().unwrap(), 0);
    let deaf = iterator.consumer().watcher().unwrap();
    let options = HandoverOptions { grace: Some(PATIENCE), ..HandoverOptions::default() };
    let mut handover = producer.begin_handover(&ring(dir.path(), 8), options).unwrap();
    assert!(waiting.join().unwrap());
    assert!(!deaf.wait(SlotId(0), Duration::from_millis(1)), "who does not follow is not told");
    assert!(keep_on(&mut iterator).is_none());
    assert!(!iterator.watcher().unwrap().wait(SlotId(0), Duration::from_millis(1)), "it was answered");
    // Asks everybody and waits for the answer.
    let new = handover.cut().unwrap();
    assert!(keep_on(&mut iterator).is_none());
    assert_eq!(iterator.consumer().descriptor().uuid, new.descriptor().uuid);
}
