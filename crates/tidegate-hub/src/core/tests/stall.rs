use std::{cell::RefCell, rc::Rc};

use tidegate_shm::clock::Nanos;

use super::world::{
    Block, READER, TestReader, TestWriter, World, after, counted, kill, now, revive, soon, within,
};
use crate::core::{
    config::{Deadline, Stall, SyncPolicy},
    error::{AcquireError, WriteError},
    host::{Counter, Host},
    plain::config,
    reader::Release,
    registry::Start,
};

const SECOND: u64 = 1_000_000_000;

/// A full ring of four that one consumer has read and another has not.
fn held_back(stall: Stall) -> (Block, TestWriter, TestReader) {
    let mut config = config(SyncPolicy::AllReaders, 4);
    config.stall = stall;
    let block = Block::new(config);
    let writer = block.writer();
    let stalled = block.reader(READER, Start::Oldest);
    let mut reader = block.reader(READER + 1, Start::Oldest);
    for _ in 0..4 {
        block.write(&writer).unwrap();
        consume(&mut reader);
    }
    // Stays where it is: nobody asks for more of it.
    std::mem::forget(reader);
    (block, writer, stalled)
}

fn consume(reader: &mut TestReader) {
    let acquired = reader.acquire_ordered(Deadline::Immediate).unwrap();
    reader.release(&acquired, Release::Consumed).unwrap();
}

/// The calls of a producer add up, however short each of them is.
/// Rules: DH-106, N-21.
#[test]
fn a_cursor_that_stands_still_is_evicted_and_not_earlier() {
    let (_block, writer, mut stalled) = held_back(Stall::EvictAfter(Nanos(SECOND)));
    let started = now();
    while writer.allocate(1, within(100)).is_err() {
        assert!(now() - started < 2 * SECOND, "not evicted");
    }
    let waited = now() - started;
    assert!((SECOND..SECOND + SECOND / 3).contains(&waited), "{waited} ns");
    assert_eq!(counted(Counter::ConsumersEvicted), 1);
    assert_eq!(stalled.acquire_ordered(Deadline::Immediate), Err(AcquireError::Fenced));
}

/// Rules: DH-079, DH-106.
#[test]
fn who_never_waits_for_long_gets_on_all_the_same() {
    for millis in [0, 3] {
        let (_block, writer, mut stalled) = held_back(Stall::EvictAfter(Nanos(SECOND)));
        let (started, before) = (now(), counted(Counter::ConsumersEvicted));
        let deadline = || if millis == 0 { Deadline::Immediate } else { within(millis) };
        while writer.allocate(1, deadline()).is_err() {
            World.sleep(Nanos::from_millis(7));
            assert!(now() - started < 2 * SECOND, "not evicted");
        }
        assert!(now() - started >= SECOND);
        assert_eq!(counted(Counter::ConsumersEvicted), before + 1);
        assert_eq!(stalled.acquire_ordered(Deadline::Immediate), Err(AcquireError::Fenced));
    }

    let (_block, writer, _dead) = held_back(Stall::Wait);
    kill(READER);
    let started = now();
    while writer.allocate(1, Deadline::Immediate).is_err() {
        World.sleep(Nanos::from_millis(1));
        assert!(now() - started < SECOND / 5, "not reaped");
    }
    revive();
    let block = Block::new(config(SyncPolicy::LatestOnly, 1));
    let writer = block.writer();
    block.write(&writer).unwrap();
    block.reader(READER, Start::Newest).acquire_latest(Deadline::Immediate).unwrap();
    kill(READER);
    let started = now();
    while writer.allocate(1, Deadline::Immediate).is_err() {
        World.sleep(Nanos::from_millis(1));
        assert!(now() - started < SECOND / 5, "the claim of the dead was honoured");
    }
}

/// Rules: DH-106.
#[test]
fn an_old_claim_is_evicted_at_once() {
    let (_block, writer, mut stalled) = held_back(Stall::EvictAfter(Nanos(SECOND)));
    let held = stalled.acquire_ordered(Deadline::Immediate).unwrap();
    World.sleep(Nanos(2 * SECOND));
    let started = now();
    assert_eq!(writer.allocate(1, within(300)), Err(AcquireError::Timeout.into()), "it is still read");
    assert_eq!(counted(Counter::ConsumersEvicted), 1);
    assert!(stalled.validate(&held));
    stalled.release(&held, Release::Consumed).unwrap();
    let _ = writer.allocate(1, soon()).unwrap();
    assert!(now() - started < SECOND);
}

/// Rules: DH-106.
#[test]
fn who_moves_or_may_stand_still_is_not_evicted() {
    let (block, writer, slow) = held_back(Stall::EvictAfter(Nanos(SECOND)));
    let slow = Rc::new(RefCell::new(slow));
    for nth in 1..=4 {
        let slow = slow.clone();
        after(700 * nth, move || consume(&mut slow.borrow_mut()));
    }
    // The other consumer has read everything there was, so that it is the slow one who is waited for.
    let started = now();
    let _ = writer.allocate(1, within(5_000)).unwrap();
    assert!(now() - started < SECOND && counted(Counter::ConsumersEvicted) == 0);
    drop(block);

    let (_block, writer, _stalled) = held_back(Stall::Wait);
    assert_eq!(writer.allocate(1, within(20_000)), Err(WriteError::Acquire(AcquireError::Timeout)));
    assert_eq!(counted(Counter::ConsumersEvicted), 0);
}
