//! Sleeping and waking: Q-5. A sleep of a model ends by a wake-up and by nothing else, so that a lost one is a deadlock.

use tidegate_shm::{
    clock::Nanos,
    sync::{Arc, AtomicU64, Ordering, thread},
};

use super::{Block, NOW, READER, breaks, explore, mutants};
use crate::core::{
    config::{CoreConfig, Deadline, SyncPolicy, Timing},
    event,
    plain::{Memory, config},
    protocol::{Protocol, Shipped},
    registry::Start,
    words::{Sync32, Words},
    writer::CommitInfo,
};

mutants! {
    FlagFirst: SEQUENCE_FIRST: bool = false;
    NoSleepFence: SLEEP_FENCE: Option<Ordering> = None;
    NoWakeFence: WAKE_FENCE: Option<Ordering> = None;
}

/// two changes, each announced; a sleeper waits for the last.
fn event_count<P: Protocol>() -> usize {
    explore(5, || {
        let memory = Arc::new(Memory::new(&config(SyncPolicy::LatestOnly, 1)));
        let change = Arc::new(AtomicU64::new(0));
        let (sleeping, wanted) = (memory.clone(), change.clone());
        let sleeper = thread::spawn(move || {
            let (sequence, flag) = (sleeping.sync32(Sync32::DrainSeq), sleeping.sync32(Sync32::DrainWaiters));
            loop {
                let seen = event::prepare::<P>(sequence, flag);
                if wanted.load(Ordering::Relaxed) == 2 {
                    break;
                }
                event::sleep(sequence, seen, Nanos::MAX);
            }
        });
        for value in 1..=2 {
            change.store(value, Ordering::Relaxed);
            event::wake::<P, _>(memory.sync32(Sync32::DrainSeq), memory.sync32(Sync32::DrainWaiters));
        }
        sleeper.join().unwrap();
    })
}

/// Q-5 by whole calls, without spinning: a producer waits for the only slot, then the consumer for the next value.
fn ring_of_sleepers<P: Protocol>() -> usize {
    explore(2, || {
        let timing = Timing { spin: Nanos::ZERO, ..Timing::default() };
        let block = Block::<P>::new(CoreConfig { timing, ..config(SyncPolicy::SingleReader, 1) });
        let writer = block.writer();
        let mut reader = block.reader(READER, Start::Oldest);
        block.write(&writer).unwrap();
        let writing = block.clone();
        let producer = thread::spawn(move || {
            let id = writer.allocate(1, Deadline::Never).unwrap().first;
            writing.payload(id).write(id.0);
            writer.commit(id, CommitInfo::default()).unwrap();
        });
        for expected in 0..2 {
            let acquired = reader.acquire_ordered(Deadline::Never).unwrap();
            assert_eq!(block.read(&mut reader, &acquired).0, expected);
        }
        producer.join().unwrap();
    })
}

/// The writer wants the slot of the only value, finds it held and gives up; somebody else wants to read it meanwhile.
fn value_that_stays<P: Protocol>() -> usize {
    explore(2, || {
        let timing = Timing { spin: Nanos::ZERO, ..Timing::default() };
        let block = Block::<P>::new(CoreConfig { timing, ..config(SyncPolicy::LatestOnly, 1) });
        let writer = block.writer();
        block.write(&writer).unwrap();
        let mut holder = block.reader(READER, Start::Newest);
        let held = holder.acquire_latest(NOW).unwrap();
        let mut reader = block.reader(READER + 1, Start::Newest);
        let giving_up = thread::spawn(move || writer.allocate(1, NOW).is_err());
        let acquired = reader.acquire_latest(Deadline::Never).unwrap();
        assert_eq!(block.read(&mut reader, &acquired), held.id);
        assert!(giving_up.join().unwrap(), "a held slot was taken");
    })
}

/// Rules: DH-054, Q-5.
#[test]
fn q5_who_met_a_slot_on_its_way_out_is_woken_when_it_stays() {
    assert!(value_that_stays::<Shipped>() > 10);
}

/// Rules: DH-075, Q-5.
#[test]
fn q5_no_wake_up_is_lost() {
    assert!(event_count::<Shipped>() > 10);
}

/// Rules: DH-075, Q-5.
#[test]
fn q5_the_sequence_is_read_first() {
    assert!(breaks(&["deadlock"], event_count::<FlagFirst>));
}

/// Rules: DH-075, Q-5.
#[test]
fn q5_the_fence_of_the_sleeper_is_needed() {
    assert!(breaks(&["deadlock"], event_count::<NoSleepFence>));
}

/// Rules: DH-075, Q-5.
#[test]
fn q5_the_fence_of_the_waker_is_needed() {
    assert!(breaks(&["deadlock"], event_count::<NoWakeFence>));
}

/// Rules: DH-075, Q-5.
#[test]
fn q5_nobody_sleeps_for_ever_in_whole_calls() {
    assert!(ring_of_sleepers::<Shipped>() > 10);
}

/// Rules: DH-075, Q-5.
#[test]
fn q5_whole_calls_need_the_fence_of_the_sleeper() {
    assert!(breaks(&["deadlock"], ring_of_sleepers::<NoSleepFence>));
}

/// Rules: DH-075, Q-5.
#[test]
fn q5_whole_calls_need_the_fence_of_the_waker() {
    assert!(breaks(&["deadlock"], ring_of_sleepers::<NoWakeFence>));
}
