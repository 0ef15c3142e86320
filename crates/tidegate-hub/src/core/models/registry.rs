//! Joining against the floor and against reaping.

use tidegate_shm::sync::{Ordering, thread};

use super::{Block, DEAD, NOW, READER, breaks, explore, mutants};
use crate::core::{
    codec::{Claim, SlotId},
    config::SyncPolicy,
    plain::{NAMES, config},
    protocol::{Protocol, Shipped},
    reader::Reader,
    registry::Start,
    words::{Load, Row64, Words},
};

mutants! {
    NoFloorFence: FLOOR_FENCE: Option<Ordering> = None;
    NoJoinFence: JOIN_FENCE: Option<Ordering> = None;
    SingleScan: SECOND_SCAN: bool = false;
    ReapUnlocked: REAP_UNDER_LOCK: bool = false;
}

/// a ring of one; its value was consumed, the writer reuses the slot, a consumer joins at the oldest id.
fn join<P: Protocol>() -> usize {
    explore(5, || {
        let block = Block::<P>::new(config(SyncPolicy::AllReaders, 1));
        let writer = block.writer();
        let mut reader = block.reader(READER, Start::Oldest);
        block.write(&writer).unwrap();
        let acquired = reader.acquire_ordered(NOW).unwrap();
        block.read(&mut reader, &acquired);
        let joining = block.clone();
        let joiner = thread::spawn(move || {
            let mut joiner = joining.reader(READER + 1, Start::Oldest);
            let start = joiner.ticket().start;
            match joiner.acquire_ordered(NOW) {
                Ok(acquired) => {
                    assert_eq!(acquired.id, start, "promise broken");
                    joining.read(&mut joiner, &acquired);
                }
                Err(error) => assert!(start > SlotId(0), "promise broken: {error:?}"),
            }
        });
        block.write(&writer);
        joiner.join().unwrap();
    })
}

/// two reapers and a joiner at one row whose owner is dead; the joiner's claim survives.
fn reap<P: Protocol>() -> usize {
    explore(3, || {
        let mut config = config(SyncPolicy::LatestOnly, 1);
        config.max_consumers = 1;
        let block = Block::<P>::new(config);
        let writer = block.writer();
        block.write(&writer).unwrap();
        block.core(DEAD).join(Start::Newest, &NAMES, NOW).unwrap();
        let reapers: Vec<_> = (0..2)
            .map(|n| {
                let core = block.core(30 + n);
                // Without the lock at once, somebody else has it and reaps.
                thread::spawn(move || core.reap(NOW).is_ok())
            })
            .collect();
        if let Ok(mut reader) = Reader::join(block.core(READER), Start::Newest, &NAMES, 1, NOW) {
            let row = reader.ticket().row;
            let acquired = reader.acquire_latest(NOW).expect("the claim was lost");
            reapers.into_iter().for_each(|reaper| drop(reaper.join()));
            let claim = Claim(Load::load(block.memory.row64(row, Row64::Claim), Ordering::Relaxed));
            assert!(claim.covers(acquired.id), "the claim was lost");
        }
    })
}

/// Rules: DH-068, Q-3.
#[test]
fn q3_what_is_promised_is_not_overwritten() {
    assert!(join::<Shipped>() > 10);
}

/// Rules: DH-068, Q-3.
#[test]
fn q3_the_fence_of_the_writer_is_needed() {
    assert!(breaks(&["promise broken", super::RACE], join::<NoFloorFence>));
}

/// Rules: DH-068, Q-3.
#[test]
fn q3_the_fence_of_the_joiner_is_needed() {
    assert!(breaks(&["promise broken", super::RACE], join::<NoJoinFence>));
}

/// Rules: DH-068, Q-3.
#[test]
fn q3_the_second_scan_is_needed() {
    assert!(breaks(&["promise broken", super::RACE], join::<SingleScan>));
}

/// Rules: DH-237, Q-10.
#[test]
fn q10_a_new_consumer_is_not_reaped() {
    assert!(reap::<Shipped>() > 10);
}

/// Rules: DH-237, Q-10.
#[test]
fn q10_reaping_needs_the_lock() {
    assert!(breaks(&["the claim was lost"], reap::<ReapUnlocked>));
}
