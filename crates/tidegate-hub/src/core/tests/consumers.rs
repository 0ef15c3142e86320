use tidegate_shm::sync::Ordering;

use super::world::{Block, READER, TestReader, after, counted, now, probes, soon, within};
use crate::core::{
    codec::{Claim, Ctl, SlotId, SlotState},
    config::{Deadline, OnHeld, Overflow, SyncPolicy},
    crash::{Point, simulated::until_crash},
    error::{AcquireError, RegistryError},
    host::Counter,
    plain::{NAMES, config},
    reader::Release,
    registry::Start,
    words::{Control32, Control64, Load, Row64, Slot64, SlotWords, Word, Words, WriterWords},
};

const NOW: Deadline = Deadline::Immediate;

fn all_readers(slots: u32, consumers: u32) -> Block {
    let mut config = config(SyncPolicy::AllReaders, slots);
    config.max_consumers = consumers;
    Block::new(config)
}

/// Consumes the next value; its id.
fn next(block: &Block, reader: &mut TestReader) -> Result<u64, AcquireError> {
    let acquired = reader.acquire_ordered(NOW)?;
    assert_eq!(block.payload(acquired.id), acquired.id.0);
    reader.release(&acquired, Release::Consumed).map(|()| acquired.id.0)
}

/// Rules: DH-103, C-02.
#[test]
fn everybody_gets_every_id_at_the_pace_of_the_slowest() {
    let block = all_readers(4, 3);
    let writer = block.writer();
    let mut readers = [0, 1, 2].map(|n| block.reader(READER + n, Start::Oldest));
    let mut seen = [(); 3].map(|()| Vec::new());
    for round in 0..50 {
        while block.write(&writer).is_ok() {}
        assert_eq!(block.word(Control64::WriteIndex), round + 4, "one more than the slowest has read");
        for (reader, seen) in readers[1..].iter_mut().zip(&mut seen[1..]) {
            while let Ok(id) = next(&block, reader) {
                seen.push(id);
            }
        }
        seen[0].push(next(&block, &mut readers[0]).unwrap());
    }
    for seen in seen {
        assert_eq!(seen, (0..seen.len() as u64).collect::<Vec<_>>());
    }
}

/// Rules: DH-074, C-03.
#[test]
fn who_finds_no_place_disturbs_nobody() {
    let block = all_readers(4, 8);
    let writer = block.writer();
    let mut readers: Vec<_> = (0..8).map(|n| block.reader(READER + n, Start::Oldest)).collect();
    block.write(&writer).unwrap();
    for _ in 0..2 {
        let refused = block.core(99).join(Start::Oldest, &NAMES, soon()).unwrap_err();
        assert_eq!(refused, RegistryError::ConsumerLimit { rows: 8, only: None });
    }
    assert!(readers.iter_mut().all(|reader| next(&block, reader) == Ok(0)));
    assert_eq!(block.write(&writer), Ok(1));
}

/// Rules: DH-107, DH-238, C-10.
#[test]
fn the_writer_goes_on_around_what_an_evicted_reader_holds() {
    let block = all_readers(4, 2);
    let writer = block.writer();
    let mut evicted = block.reader(READER, Start::Oldest);
    let mut other = block.reader(READER + 1, Start::Oldest);
    for _ in 0..4 {
        block.write(&writer).unwrap();
    }
    while next(&block, &mut other).is_ok() {}
    assert_eq!([(); 2].map(|()| next(&block, &mut evicted)), [Ok(0), Ok(1)]);
    let held = evicted.acquire_ordered(NOW).unwrap();
    block.core(99).evict(evicted.ticket().row, soon()).unwrap();
    assert_eq!([(); 2].map(|()| block.write(&writer)), [Ok(4), Ok(5)]);
    assert_eq!(writer.allocate(1, within(20)), Err(AcquireError::Timeout.into()));
    assert_eq!((block.payload(held.id), evicted.validate(&held)), (2, true));
    assert_eq!(evicted.acquire_ordered(NOW), Err(AcquireError::Fenced));
    evicted.release(&held, Release::Consumed).unwrap();
    assert_eq!(block.write(&writer), Ok(6));
}

/// Rules: DH-090, P-07.
#[test]
fn of_two_slots_one_is_read_while_the_other_is_written() {
    let block = Block::new(config(SyncPolicy::LatestOnly, 2));
    let writer = block.writer();
    block.write(&writer).unwrap();
    let mut reader = block.reader(READER, Start::Newest);
    let frame = reader.acquire_latest(NOW).unwrap();
    assert_eq!(block.write(&writer), Ok(1));
    assert_eq!((block.payload(frame.id), reader.validate(&frame)), (0, true));
    reader.release(&frame, Release::Consumed).unwrap();
    assert_eq!(reader.acquire_latest(NOW).unwrap().id, SlotId(1));
}

/// Rules: DH-050, DH-051, DH-057, N-12.
#[test]
fn a_ring_is_empty_in_part_and_full() {
    let block = Block::new(config(SyncPolicy::SingleReader, 4));
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    let occupancy = || block.word(Control64::WriteIndex) - block.word(Control64::ReadIndex);
    assert_eq!(
        (occupancy(), reader.backlog(), next(&block, &mut reader)),
        (0, 0, Err(AcquireError::QueueEmpty))
    );
    for lap in 0..3 {
        for filled in 1..=4 {
            // Three of four, so that there is room for the whole ring only when all of it was read.
            let room = writer.allocate(4, NOW);
            assert_eq!(room.is_ok(), filled == 1, "{filled} in {lap}");
            if let Ok(batch) = room {
                batch.ids().for_each(|id| block.fill(id));
                batch.ids().for_each(|id| writer.open(id).unwrap().describe(super::world::info(8)));
                writer.commit_open(batch).unwrap();
                assert_eq!((occupancy(), block.write(&writer).is_err()), (4, true));
            } else {
                assert_eq!(next(&block, &mut reader), Ok(4 * lap + filled - 2));
            }
        }
        assert_eq!(reader.backlog(), 1);
        assert_eq!((next(&block, &mut reader), reader.backlog()), (Ok(4 * lap + 3), 0));
        assert_eq!(next(&block, &mut reader), Err(AcquireError::QueueEmpty));
    }
    assert_eq!(counted(Counter::WriterGenerationWraps), 3);
}

/// Rules: DH-061, DH-062, DH-063, N-13.
#[test]
fn a_value_that_changes_under_a_reader_is_noticed() {
    let mut config = config(SyncPolicy::AllReaders, 4);
    config.overflow = Overflow::DropOldest;
    let block = Block::new(config);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    block.write(&writer).unwrap();
    block.write(&writer).unwrap();
    let held = reader.acquire_ordered(NOW).unwrap();
    let set = |id: u64, ctl: Ctl| {
        let slot = block.config.index(SlotId(id));
        Word::store(block.memory.slot_mut(slot).word64(Slot64::Ctl), ctl.0, Ordering::Relaxed);
    };
    assert!(reader.validate(&held));
    set(0, Ctl::new(1, SlotState::Free));
    assert!(!reader.validate(&held));
    assert_eq!(counted(Counter::ReaderValidationFailed), 1);
    reader.release(&held, Release::Consumed).unwrap();

    set(1, Ctl::new(2, SlotState::Draining));
    assert_eq!(reader.acquire_ordered(NOW), Err(AcquireError::Lapped { lost: 1 }));
    assert_eq!(counted(Counter::ReaderNotReady), 1);
}

/// Rules: DH-036, N-09.
#[test]
fn nobody_is_asked_about_while_nobody_waits() {
    let mut config = config(SyncPolicy::LatestOnly, 4);
    config.on_held = OnHeld::Skip;
    let block = Block::new(config);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Newest);
    probes();
    // Allocate, commit, acquire, release.
    for _ in 0..250_000 {
        block.write(&writer).unwrap();
        let acquired = reader.acquire_latest(NOW).unwrap();
        reader.release(&acquired, Release::Consumed).unwrap();
    }
    assert_eq!(probes(), 0);
}

/// Between the two steps of a release the id is passed and still claimed; never the other way round, which would let it
/// be overwritten before it counts as consumed.
/// Rules: DH-060.
#[test]
fn the_cursor_moves_before_the_claim_goes() {
    let block = all_readers(4, 2);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    block.write(&writer).unwrap();
    let row = reader.ticket().row;
    let acquired = reader.acquire_ordered(NOW).unwrap();
    let release = || reader.release(&acquired, Release::Consumed).unwrap();
    assert!(until_crash(Point::Cursor, 1, release).is_none());
    let word = |field| Load::load(block.memory.row64(row, field), Ordering::Relaxed);
    assert_eq!(word(Row64::Cursor), 1);
    assert!(Claim(word(Row64::Claim)).covers(SlotId(0)));
}

/// Rules: DH-098.
#[test]
fn waking_up_for_nothing_does_not_extend_a_wait() {
    let block = all_readers(4, 2);
    let mut reader = block.reader(READER, Start::Oldest);
    for millis in 1..60 {
        let memory = block.memory.clone();
        after(millis, move || {
            Word::fetch_add(memory.control32_mut(Control32::DataSeq), 1, Ordering::Relaxed);
        });
    }
    let before = now();
    assert_eq!(reader.acquire_ordered(within(30)), Err(AcquireError::Timeout));
    let waited = now() - before;
    assert!((30_000_000..31_100_000).contains(&waited), "{waited} ns");
}
