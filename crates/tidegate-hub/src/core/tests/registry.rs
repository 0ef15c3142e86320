use tidegate_shm::sync::Ordering;

use super::world::{Block, READER, audit, counted, kill, soon, within};
use crate::core::{
    codec::{Claim, Reg, RowState, SlotId},
    config::{Deadline, SyncPolicy},
    error::{AcquireError, RegistryError},
    host::{AuditEvent, Counter},
    plain::{NAMES, config, key},
    reader::Release,
    registry::Start,
    words::{Control64, Load, Row64, Sync32, Sync64, Word, Words},
};

fn consume(block: &Block, reader: &mut super::world::TestReader, ids: std::ops::Range<u64>) {
    for id in ids {
        let acquired = reader.acquire_ordered(Deadline::Immediate).unwrap();
        assert_eq!((acquired.id, block.payload(acquired.id)), (SlotId(id), id));
        reader.release(&acquired, Release::Consumed).unwrap();
    }
}

/// Rules: DH-070, DH-071, DH-102, DH-104, C-01, N-21, N-15.
#[test]
fn a_single_reader_leaves_its_place_to_the_next() {
    let block = Block::new(config(SyncPolicy::SingleReader, 8));
    let writer = block.writer();
    let mut first = block.reader(READER, Start::default_for(SyncPolicy::SingleReader));
    for _ in 0..8 {
        block.write(&writer).unwrap();
    }
    consume(&block, &mut first, 0..2);
    let refused = block.core(21).join(Start::Resume, &NAMES, soon()).unwrap_err();
    assert!(matches!(refused, RegistryError::ConsumerLimit { rows: 2, only: Some(_) }), "{refused}");
    first.leave(soon()).unwrap();
    let mut second = block.reader(21, Start::Resume);
    assert_eq!(second.ticket().start, SlotId(2));
    consume(&block, &mut second, 2..4);
    // Dies inside a read: that id is delivered again.
    assert_eq!(second.acquire_ordered(soon()).unwrap().id, SlotId(4));
    kill(21);
    let mut third = block.reader(22, Start::Resume);
    consume(&block, &mut third, 4..8);
    assert_eq!(audit(), [AuditEvent::Reaped { row: third.ticket().row, owner: Some(key(21)) }]);
    let counts = [Counter::ConsumersJoined, Counter::ConsumersLeft, Counter::PeakConsumers].map(counted);
    assert_eq!(counts, [3, 1, 1]);
}

/// Rules: DH-074, DH-103.
#[test]
fn the_slowest_reader_paces_the_writer() {
    let block = Block::new(config(SyncPolicy::AllReaders, 4));
    let writer = block.writer();
    let mut fast = block.reader(READER, Start::Oldest);
    let mut slow = block.reader(21, Start::Oldest);
    let refused = block.core(22).join(Start::Latest, &NAMES, soon()).unwrap_err();
    assert_eq!(refused, RegistryError::ConsumerLimit { rows: 2, only: None });
    for _ in 0..4 {
        block.write(&writer).unwrap();
    }
    consume(&block, &mut fast, 0..4);
    assert!(block.write(&writer).is_err());
    consume(&block, &mut slow, 0..1);
    assert_eq!(block.write(&writer), Ok(4));
    assert!(block.write(&writer).is_err());
    consume(&block, &mut fast, 4..5);
    consume(&block, &mut slow, 1..5);
}

/// Rules: DH-068, DH-072, DH-073, N-15.
#[test]
fn a_start_lies_between_the_floor_and_the_end() {
    let mut config = config(SyncPolicy::AllReaders, 4);
    config.max_consumers = 8;
    let block = Block::new(config);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    for _ in 0..4 {
        block.write(&writer).unwrap();
    }
    consume(&block, &mut reader, 0..2);
    block.write(&writer).unwrap();
    assert_eq!(block.word(Control64::ReadIndex), 2);
    let start = |start| block.core(30).join(start, &NAMES, soon()).map(|ticket| ticket.start.0);
    assert_eq!(start(Start::Oldest), Ok(2));
    assert_eq!(start(Start::Latest), Ok(5));
    assert_eq!(start(Start::Newest), Ok(4));
    assert_eq!(start(Start::At(SlotId(3))), Ok(3));
    for wanted in [1, 6] {
        let refused = RegistryError::BadStart { wanted, floor: 2, end: 5 };
        assert_eq!(start(Start::At(SlotId(wanted))), Err(refused));
    }
    // A resume tag that asks for what never was.
    Word::store(block.memory.sync64(Sync64::ResumeTag), 1 << 50, Ordering::Relaxed);
    assert_eq!(start(Start::Resume), Ok(5));
    assert_eq!(reader.seek(SlotId(0)).unwrap(), SlotId(2), "backwards to the floor");
    consume(&block, &mut reader, 2..3);
    assert_eq!(reader.seek(SlotId(5)).unwrap(), SlotId(5));
    assert!(reader.seek(SlotId(6)).is_err());
    assert_eq!(
        [Start::default_for(SyncPolicy::LatestOnly), Start::default_for(SyncPolicy::AllReaders)],
        [Start::Newest, Start::Latest]
    );
}

/// Rules: DH-107, DH-238.
#[test]
fn an_evicted_reader_keeps_only_what_it_holds() {
    let block = Block::new(config(SyncPolicy::AllReaders, 2));
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    let mut other = block.reader(21, Start::Oldest);
    block.write(&writer).unwrap();
    block.write(&writer).unwrap();
    consume(&block, &mut other, 0..2);
    let held = reader.acquire_ordered(soon()).unwrap();
    assert!(block.write(&writer).is_err());
    block.core(12).evict(reader.ticket().row, soon()).unwrap();
    // The slot that is held is waited for; the ring is not held back by the cursor any more.
    assert_eq!(writer.allocate(1, within(20)), Err(AcquireError::Timeout.into()));
    assert_eq!(counted(Counter::WriterDrainTimeout), 1);
    assert!(reader.validate(&held));
    assert_eq!(reader.acquire_ordered(soon()), Err(AcquireError::Fenced));
    assert_eq!(writer.allocate(1, within(20)), Err(AcquireError::Timeout.into()), "the claim survives");
    reader.release(&held, Release::Consumed).unwrap();
    assert_eq!(block.write(&writer), Ok(2));
    assert_eq!(block.write(&writer), Ok(3));
    let ticket = *reader.ticket();
    reader.leave(soon()).unwrap();
    assert_eq!(block.core(READER).leave(&ticket, soon()), Err(RegistryError::NotOwner));
    assert_eq!(counted(Counter::ConsumersEvicted), 1);
}

/// Rules: DH-151, DH-152.
#[test]
fn a_live_holder_keeps_the_maintenance_lock() {
    let block = Block::new(config(SyncPolicy::AllReaders, 2));
    Word::store(block.memory.sync64(Sync64::LockOwner), 99, Ordering::Relaxed);
    let refused = block.core(READER).join(Start::Latest, &NAMES, within(500)).unwrap_err();
    assert_eq!(refused, RegistryError::LockTimeout { holder: Some(key(99)) });
    kill(99);
    block.core(READER).join(Start::Latest, &NAMES, within(500)).unwrap();
    assert_eq!([Counter::LockTakeovers, Counter::MaintenanceLockWaits].map(counted), [1, 2]);
    assert_eq!(Load::load(block.memory.sync64(Sync64::LockOwner), Ordering::Relaxed), 0);
}

/// Rules: DH-083.
#[test]
fn a_takeover_repairs_the_registry() {
    let mut config = config(SyncPolicy::AllReaders, 2);
    config.max_consumers = 6;
    let block = Block::new(config);
    let rows = [
        (RowState::Joining, 77, true),
        (RowState::Leaving, 77, true),
        (RowState::Active, 88, false),
        (RowState::Evicted, 88, false),
        (RowState::Free, 0, true),
    ];
    let mut mask = 0;
    for (at, (state, owner, bit)) in rows.into_iter().enumerate() {
        let row = crate::core::codec::Row(at as u32);
        Word::store(block.memory.row64(row, Row64::Reg), Reg::new(3, state).0, Ordering::Relaxed);
        Word::store(block.memory.row64(row, Row64::Owner), owner, Ordering::Relaxed);
        Word::store(block.memory.row64(row, Row64::Claim), Claim::new(SlotId(0), 1).0, Ordering::Relaxed);
        mask |= if bit { row.bit() } else { 0 };
    }
    Word::store(block.memory.sync32(Sync32::ActiveMask), mask, Ordering::Relaxed);
    Word::store(block.memory.sync32(Sync32::EvictedMask), mask, Ordering::Relaxed);
    Word::store(block.memory.sync64(Sync64::LockOwner), 77, Ordering::Relaxed);
    kill(77);
    assert_eq!(block.core(READER).reap(soon()), Ok(0), "nobody but the holder is dead");
    let load32 = |field| Load::load(block.memory.sync32(field), Ordering::Relaxed);
    assert_eq!((load32(Sync32::ActiveMask), load32(Sync32::EvictedMask)), (0b1100, 0b1000));
    let states: Vec<_> = (0..5)
        .map(|row| {
            let word = block.memory.row64(crate::core::codec::Row(row), Row64::Reg);
            Reg(Load::load(word, Ordering::Relaxed)).state().unwrap()
        })
        .collect();
    let free = RowState::Free;
    assert_eq!(states, [free, free, RowState::Active, RowState::Evicted, free]);
    assert_eq!(audit(), [AuditEvent::LockTakenOver { from: key(77) }]);
}
