use std::{cell::RefCell, rc::Rc};

use super::world::{Block, READER, Sleep, after, counted, errors, kill, now, probes, sleeps, soon, within};
use crate::core::{
    codec::SlotId,
    config::{CoreConfig, Deadline, OnHeld, Orphan, Overflow, SyncPolicy, WaitStrategy},
    error::{AcquireError, WriteError},
    host::{Counter, ErrorKind},
    plain::config,
    reader::Release,
    registry::Start,
    words::Control64,
};
use tidegate_shm::clock::Nanos;

const FULL: WriteError = WriteError::Acquire(AcquireError::QueueFull);
const TIMEOUT: WriteError = WriteError::Acquire(AcquireError::Timeout);

fn ring(change: impl FnOnce(&mut CoreConfig)) -> Block {
    let mut config = config(SyncPolicy::SingleReader, 4);
    change(&mut config);
    Block::new(config)
}

/// Rules: DH-050, DH-054, DH-087, DH-078, P-01, P-02.
#[test]
fn a_full_ring_makes_the_writer_wait() {
    let block = ring(|_| {});
    let writer = block.writer();
    let reader = Rc::new(RefCell::new(block.reader(READER, Start::Oldest)));
    for id in 0..4 {
        assert_eq!(block.write(&writer), Ok(id));
    }
    assert_eq!(block.write(&writer), Err(FULL));
    let before = now();
    assert_eq!(writer.allocate(1, within(50)), Err(TIMEOUT));
    let waited = now() - before;
    assert!((50_000_000..=65_000_000).contains(&waited), "{waited} ns");
    assert_eq!(block.word(Control64::WriteIndex), 4);
    let counts = [Counter::WriterTimeout, Counter::WriterFullTimeout, Counter::WriterBlockedNs].map(counted);
    assert_eq!(counts, [1, 1, waited]);

    after(20, move || {
        let mut reader = reader.borrow_mut();
        let acquired = reader.acquire_ordered(Deadline::Immediate).unwrap();
        reader.release(&acquired, Release::Consumed).unwrap();
    });
    let before = now();
    assert_eq!(writer.allocate(1, within(50)).unwrap().first, SlotId(4));
    assert!(now() - before < 31_000_000, "within a slice after 20 ms");
}

/// Rules: DH-088, DH-100, P-03.
#[test]
fn overflow_fail_does_not_wait() {
    let block = ring(|config| config.overflow = Overflow::Fail);
    let writer = block.writer();
    let _reader = block.reader(READER, Start::Oldest);
    for _ in 0..4 {
        block.write(&writer).unwrap();
    }
    let before = now();
    assert_eq!(writer.allocate(1, within(1_000)), Err(FULL));
    assert_eq!(now(), before);
    assert_eq!((errors(), counted(Counter::SlotAcquireErrors)), (vec![ErrorKind::QueueFull], 1));
    assert_eq!(writer.allocate(1, Deadline::Immediate), Err(FULL));
    assert_eq!((errors(), counted(Counter::SlotAcquireErrors)), (vec![], 1), "nobody meant to wait");
}

/// Rules: DH-061, DH-089, P-04.
#[test]
fn the_oldest_are_dropped_and_counted() {
    let block = ring(|config| config.overflow = Overflow::DropOldest);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    for id in 0..10 {
        assert_eq!(block.write(&writer), Ok(id));
    }
    assert_eq!(reader.acquire_ordered(Deadline::Immediate), Err(AcquireError::Lapped { lost: 6 }));
    for id in 6..10 {
        let acquired = reader.acquire_ordered(Deadline::Immediate).unwrap();
        assert_eq!((acquired.id, block.payload(acquired.id)), (SlotId(id), id));
        reader.release(&acquired, Release::Consumed).unwrap();
    }
    assert_eq!([Counter::SlotsDroppedOldest, Counter::ReaderLappedSlots].map(counted), [6, 6]);
}

/// A lapped reader goes on an eighth of the ring behind the oldest.
/// Rules: DH-061.
#[test]
fn a_lapped_reader_leaves_a_margin() {
    let mut config = config(SyncPolicy::AllReaders, 16);
    config.overflow = Overflow::DropOldest;
    let block = Block::new(config);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    for _ in 0..20 {
        block.write(&writer).unwrap();
    }
    assert_eq!(reader.acquire_ordered(Deadline::Immediate), Err(AcquireError::Lapped { lost: 6 }));
    assert_eq!(reader.position(), SlotId(6));
}

/// Rules: DH-055, DH-090, P-05.
#[test]
fn a_slot_that_is_read_is_passed_over() {
    let block = ring(|config| {
        config.sync = SyncPolicy::LatestOnly;
        config.on_held = OnHeld::Skip;
    });
    let writer = block.writer();
    block.write(&writer).unwrap();
    let mut reader = block.reader(READER, Start::Newest);
    let held = reader.acquire_latest(Deadline::Immediate).unwrap();
    for _ in 0..1_000 {
        block.write(&writer).unwrap();
    }
    let allocation = writer.allocate(1, within(100)).unwrap();
    writer.abort(allocation.first).unwrap();
    assert_eq!((block.payload(held.id), reader.validate(&held)), (0, true));
    assert!(counted(Counter::SlotsSkippedHeld) > 300);
    reader.release(&held, Release::Consumed).unwrap();
    let newest = reader.acquire_latest(Deadline::Immediate).unwrap();
    assert!(newest.id.0 > 1_000, "{newest:?}");
    assert_eq!(block.payload(newest.id), newest.id.0);
}

/// Rules: DH-054, DH-090, P-06.
#[test]
fn the_single_value_stays_while_it_is_read() {
    let mut config = config(SyncPolicy::LatestOnly, 1);
    config.on_held = OnHeld::Skip;
    let block = Block::new(config);
    let writer = block.writer();
    block.write(&writer).unwrap();
    let mut reader = block.reader(READER, Start::Newest);
    let held = reader.acquire_latest(Deadline::Immediate).unwrap();
    assert_eq!(writer.allocate(1, within(20)), Err(TIMEOUT));
    assert_eq!((block.word(Control64::WriteIndex), counted(Counter::WriterDrainTimeout)), (1, 1));
    assert!(reader.validate(&held));
    reader.release(&held, Release::Consumed).unwrap();
    assert_eq!(reader.acquire_latest(Deadline::Immediate), Err(AcquireError::QueueEmpty), "read before");
    assert_eq!(block.write(&writer), Ok(1));
    assert_eq!(reader.acquire_latest(Deadline::Immediate).unwrap().id, SlotId(1));
}

/// Rules: DH-063, DH-066.
#[test]
fn while_the_single_value_is_written_there_is_none() {
    let block = Block::new(config(SyncPolicy::LatestOnly, 1));
    let writer = block.writer();
    block.write(&writer).unwrap();
    let mut reader = block.reader(READER, Start::Newest);
    let taken = writer.allocate(1, Deadline::Immediate).unwrap();
    assert_eq!(reader.acquire_latest(within(5)), Err(AcquireError::NotReady));
    assert_eq!(counted(Counter::ReaderNotReady), 1);
    assert!(counted(Counter::ReaderRaceDetected) > 1);
    writer.abort(taken.first).unwrap();
    assert_eq!(reader.acquire_latest(Deadline::Immediate), Err(AcquireError::NotReady));
    block.write(&writer).unwrap();
    assert_eq!(reader.acquire_latest(Deadline::Immediate).unwrap().id, SlotId(2));
}

/// Rules: DH-112, C-08.
#[test]
fn latest_is_the_newest_and_never_twice() {
    let block = ring(|config| config.sync = SyncPolicy::LatestOnly);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Newest);
    for _ in 0..3 {
        block.write(&writer).unwrap();
    }
    let acquired = reader.acquire_latest(Deadline::Immediate).unwrap();
    assert_eq!(acquired.id, SlotId(2));
    reader.release(&acquired, Release::Consumed).unwrap();
    assert_eq!(reader.acquire_latest(Deadline::Immediate), Err(AcquireError::QueueEmpty));
    let mut reader = reader.with_repeats();
    let again = reader.acquire_latest(Deadline::Immediate).unwrap();
    assert_eq!(again.id, SlotId(2));
    reader.release(&again, Release::Consumed).unwrap();
    block.write(&writer).unwrap();
    for _ in 0..2 {
        let acquired = reader.acquire_latest(Deadline::Immediate).unwrap();
        assert_eq!(acquired.id, SlotId(3));
        reader.release(&acquired, Release::Redeliver).unwrap();
    }
}

/// Rules: DH-124, B-04.
#[test]
fn a_batch_restores_what_it_could_not_take() {
    let block = ring(|config| {
        config.overflow = Overflow::DropOldest;
        config.on_held = OnHeld::Skip;
    });
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    for _ in 0..4 {
        block.write(&writer).unwrap();
    }
    let held = reader.acquire_ordered(Deadline::Immediate).unwrap();
    assert_eq!(writer.allocate(2, within(20)), Err(TIMEOUT));
    assert_eq!(block.word(Control64::WriteIndex), 4);
    reader.release(&held, Release::Consumed).unwrap();
    for id in 1..4 {
        let acquired = reader.acquire_ordered(Deadline::Immediate).unwrap();
        assert_eq!((acquired.id, block.payload(acquired.id)), (SlotId(id), id));
        reader.release(&acquired, Release::Consumed).unwrap();
    }
    assert_eq!(writer.allocate(2, within(20)).unwrap().first, SlotId(4));
}

/// Rules: DH-051, DH-091, P-08.
#[test]
fn an_empty_ring_makes_the_reader_wait() {
    let block = ring(|_| {});
    let writer = Rc::new(block.writer());
    let mut reader = block.reader(READER, Start::Oldest);
    assert_eq!(reader.acquire_ordered(Deadline::Immediate), Err(AcquireError::QueueEmpty));
    let before = now();
    assert_eq!(reader.acquire_ordered(within(30)), Err(AcquireError::Timeout));
    assert!((30_000_000..31_100_000).contains(&(now() - before)));
    assert_eq!(counted(Counter::ReaderTimeout), 1);
    let (other, writing) = (block.clone(), writer);
    after(20, move || {
        other.write(&writing).unwrap();
    });
    assert_eq!(reader.acquire_ordered(Deadline::Never).unwrap().id, SlotId(0));
}

/// Rules: DH-092, P-09.
#[test]
fn orphans_are_kept_or_overwritten() {
    let block = ring(|_| {});
    let writer = block.writer();
    for _ in 0..4 {
        block.write(&writer).unwrap();
    }
    assert_eq!(block.write(&writer), Err(FULL));
    let block = ring(|config| config.orphan = Orphan::Advance);
    let writer = block.writer();
    for id in 0..10 {
        assert_eq!(block.write(&writer), Ok(id));
    }
    assert_eq!((counted(Counter::SlotsUnobserved), block.word(Control64::ReadIndex)), (6, 6));
}

/// Rules: DH-076, DH-036, P-10.
#[test]
fn waiting_has_two_stages() {
    let block = ring(|_| {});
    let mut reader = block.reader(READER, Start::Oldest);
    sleeps();
    assert_eq!(reader.acquire_ordered(within(30)), Err(AcquireError::Timeout));
    let trace = sleeps();
    let spins = trace.iter().take_while(|sleep| **sleep == Sleep::Pause).count();
    assert_eq!(spins, 2, "of 1 us each, one before each look at the clock, for 2 us");
    let slices = [10_000_000, 10_000_000, 9_998_000].map(Sleep::Futex);
    assert_eq!(trace[spins..], slices);
}

/// Rules: DH-075, DH-076, P-10.
#[test]
fn a_wake_up_ends_the_sleep_at_once() {
    let block = ring(|_| {});
    let writer = Rc::new(block.writer());
    let mut reader = block.reader(READER, Start::Oldest);
    let (writing, writes) = (block.clone(), writer.clone());
    after(3, move || {
        writing.write(&writes).unwrap();
    });
    let begin = now();
    let acquired = reader.acquire_ordered(within(1_000)).unwrap();
    assert_eq!((acquired.id, now() - begin), (SlotId(0), 3_000_000), "less than a slice");

    for _ in 1..4 {
        block.write(&writer).unwrap();
    }
    after(3, move || reader.release(&acquired, Release::Consumed).unwrap());
    let begin = now();
    let first = writer.allocate(1, within(1_000)).unwrap().first;
    assert_eq!((first, now() - begin), (SlotId(4), 3_000_000), "less than a slice");
}

/// Rules: DH-080.
#[test]
fn other_strategies_never_sleep_in_the_kernel_or_only_as_told() {
    for (strategy, expected) in
        [(WaitStrategy::Spin, Sleep::Pause), (WaitStrategy::Poll(Nanos(50_000)), Sleep::Timed(50_000))]
    {
        let block = ring(|config| config.wait = strategy);
        let mut reader = block.reader(READER, Start::Oldest);
        sleeps();
        assert_eq!(reader.acquire_ordered(within(5)), Err(AcquireError::Timeout));
        let trace = sleeps();
        assert!(!trace.is_empty() && trace.iter().all(|sleep| *sleep == expected));
    }
}

/// Rules: DH-097, P-14.
#[test]
fn an_endless_wait_ends_when_the_block_closes() {
    let block = ring(|_| {});
    let writer = Rc::new(block.writer());
    let mut reader = block.reader(READER, Start::Oldest);
    let closed = AcquireError::Closed { handed_over: false };
    let closing = writer.clone();
    after(200, move || closing.start_closing().unwrap());
    assert_eq!(reader.acquire_ordered(Deadline::Never), Err(closed));

    let block = ring(|_| {});
    let writer = Rc::new(block.writer());
    for _ in 0..4 {
        block.write(&writer).unwrap();
    }
    let closing = writer.clone();
    after(200, move || closing.start_closing().unwrap());
    assert_eq!(writer.allocate(1, Deadline::Never), Err(closed.into()));
}

/// Rules: DH-036, DH-079, DH-237, N-17.
#[test]
fn a_blocked_writer_removes_the_dead() {
    let block = ring(|config| config.orphan = Orphan::Advance);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    for _ in 0..4 {
        block.write(&writer).unwrap();
    }
    let acquired = reader.acquire_ordered(soon()).unwrap();
    reader.release(&acquired, Release::Consumed).unwrap();
    block.write(&writer).unwrap();
    probes();
    for _ in 0..1_000 {
        assert_eq!(block.write(&writer), Err(FULL));
    }
    assert_eq!(probes(), 0, "nobody asks on the fast path");
    assert_eq!(writer.allocate(1, within(49)), Err(TIMEOUT));
    assert_eq!(probes(), 0, "nor before 50 ms");
    kill(READER);
    let before = now();
    assert_eq!(writer.allocate(1, soon()).unwrap().first, SlotId(5));
    assert!(now() - before < 200_000_000);
    let counts = [Counter::DeadConsumersReaped, Counter::SlotsReadRetired, Counter::BytesReadRetired];
    assert_eq!(counts.map(counted), [1, 1, 8]);
}

/// Rules: DH-090, DH-079.
#[test]
fn a_claim_of_the_dead_holds_nothing_for_long() {
    let block = Block::new(config(SyncPolicy::LatestOnly, 1));
    let writer = block.writer();
    block.write(&writer).unwrap();
    let mut reader = block.reader(READER, Start::Newest);
    reader.acquire_latest(Deadline::Immediate).unwrap();
    kill(READER);
    let before = now();
    assert_eq!(writer.allocate(1, soon()).unwrap().first, SlotId(1));
    assert!(now() - before < 200_000_000);
}

/// Who comes after the cut is told where the channel went; a cut that failed leaves everything as it was.
///
/// Rules: DH-223.
#[test]
fn no_id_is_given_away_after_a_handover() {
    let block = ring(|_| {});
    let writer = block.writer();
    let refused: Result<(), _> = writer.hand_over(within(10), false, |_| Err(AcquireError::InvalidState));
    assert_eq!(refused, Err(AcquireError::InvalidState));
    assert_eq!(block.write(&writer), Ok(0));
    let cut: Result<_, AcquireError> = writer.hand_over(within(10), false, Ok);
    assert_eq!(cut, Ok(SlotId(1)));
    let over = AcquireError::Closed { handed_over: true };
    assert_eq!(writer.allocate(1, within(10)), Err(over.into()));
    assert_eq!(writer.allocate(1, Deadline::Immediate), Err(over.into()));
}
