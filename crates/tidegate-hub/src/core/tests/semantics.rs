use tidegate_shm::sync::Ordering;

use super::world::{Block, READER, WRITER, be_thread, counted, errors, info, soon, within};
use crate::core::{
    codec::{Ctl, MAX_SLOT_ID, ProcessKey, SlotId, SlotState},
    config::{Deadline, SyncPolicy},
    error::{AcquireError, Holder, ReadBatchError, WriteError},
    host::{Counter, ErrorKind},
    plain::{config, key},
    reader::Release,
    registry::Start,
    words::{Control64, Load, Row64, Slot64, SlotWords, Word, Words, WriterWords},
};

fn ring(slots: u32) -> Block {
    Block::new(config(SyncPolicy::SingleReader, slots))
}

/// Rules: DH-048, S-01.
#[test]
fn what_is_written_is_read_in_order() {
    let block = ring(4);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    for id in 0..20 {
        assert_eq!(block.write(&writer), Ok(id));
        let acquired = reader.acquire_ordered(Deadline::Immediate).unwrap();
        assert_eq!((acquired.id, acquired.len, block.payload(acquired.id)), (SlotId(id), 8, id));
        assert!(reader.validate(&acquired));
        reader.release(&acquired, Release::Consumed).unwrap();
    }
    assert_eq!(counted(Counter::WriterGenerationWraps), 5);
}

/// Rules: DH-066, S-03.
#[test]
fn an_aborted_id_is_a_hole() {
    let block = ring(4);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    let first = writer.allocate(1, Deadline::Immediate).unwrap().first;
    writer.abort(first).unwrap();
    assert_eq!(block.write(&writer), Ok(1));
    assert_eq!(reader.acquire_ordered(Deadline::Immediate).unwrap().id, SlotId(1));
    let row = reader.ticket().row;
    let holes = Load::load(block.memory.row64(row, Row64::HolesSeen), Ordering::Relaxed);
    assert_eq!((holes, counted(Counter::SlotsAborted)), (1, 1));
}

/// Rules: DH-065, S-04.
#[test]
fn ids_become_visible_in_order() {
    let block = ring(4);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    let [a, b] = [(); 2].map(|()| writer.allocate(1, Deadline::Immediate).unwrap().first);
    writer.commit(b, info(2)).unwrap();
    assert_eq!(block.word(Control64::CommitIndex), 0);
    assert_eq!(reader.acquire_ordered(Deadline::Immediate), Err(AcquireError::QueueEmpty));
    writer.commit(a, info(1)).unwrap();
    assert_eq!(block.word(Control64::CommitIndex), 2);
    assert_eq!(block.word(Control64::LatestTag), 2);
}

/// Another thread has committed and not yet moved the index: nothing is held, and the caller holds nothing.
///
/// Rules: DH-056.
#[test]
fn what_others_just_resolved_is_not_the_callers() {
    let block = Block::new(config(SyncPolicy::LatestOnly, 1));
    let writer = block.writer();
    block.write(&writer).unwrap();
    block.memory.control64_mut(Control64::CommitIndex).store(0, Ordering::Relaxed);
    assert_eq!(writer.allocate(1, within(5)), Err(AcquireError::Timeout.into()));
    block.memory.control64_mut(Control64::CommitIndex).store(1, Ordering::Relaxed);
    assert_eq!(writer.allocate(1, soon()).unwrap().first, SlotId(1));
}

/// Rules: DH-056, S-05.
#[test]
fn nobody_waits_for_himself() {
    let block = Block::new(config(SyncPolicy::LatestOnly, 1));
    let writer = block.writer();
    let held = writer.allocate(1, soon()).unwrap();
    let before = super::world::now();
    let refused = writer.allocate(1, soon());
    assert_eq!(refused, Err(AcquireError::Locked { holder: Holder::Caller }.into()));
    assert_eq!(super::world::now(), before, "without waiting");
    assert_eq!(errors(), [ErrorKind::WouldDeadlock]);
    be_thread(2);
    assert_eq!(writer.allocate(1, within(5)), Err(AcquireError::Timeout.into()), "another thread may wait");
    writer.abort(held.first).unwrap();
    assert_eq!(writer.allocate(1, soon()).unwrap().first, SlotId(1));
}

/// Rules: DH-056, B-03.
#[test]
fn a_batch_is_no_larger_than_the_ring() {
    let block = ring(8);
    let writer = block.writer();
    let refused = WriteError::BatchTooLarge { requested: 9, available: 8 };
    assert_eq!(writer.allocate(9, Deadline::Immediate), Err(refused));
    assert_eq!(writer.allocate(0, Deadline::Immediate).unwrap().count, 0);
    assert_eq!(block.word(Control64::WriteIndex), 0);
}

/// Rules: S-06.
#[test]
fn ids_end() {
    let mut config = config(SyncPolicy::SingleReader, 4);
    config.first_slot = SlotId(MAX_SLOT_ID - 2);
    let block = Block::new(config);
    let writer = block.writer();
    assert!(block.write(&writer).is_ok() && block.write(&writer).is_ok());
    assert_eq!(block.write(&writer), Err(WriteError::IdSpaceExhausted));
}

/// Rules: DH-067, S-08.
#[test]
fn nothing_is_not_a_hole() {
    let block = ring(2);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    let id = writer.allocate(1, Deadline::Immediate).unwrap().first;
    let too_long = WriteError::TooLong { len: 65, available: 64 };
    assert_eq!(writer.commit(id, info(65)), Err(too_long));
    writer.commit(id, info(0)).unwrap();
    assert_eq!(reader.acquire_ordered(Deadline::Immediate).unwrap().len, 0);
}

/// Rules: DH-043, S-10.
#[test]
fn an_impossible_cursor_is_clamped() {
    let block = ring(2);
    let writer = block.writer();
    let reader = block.reader(READER, Start::Oldest);
    let cursor = block.memory.row64(reader.ticket().row, Row64::Cursor);
    Word::store(cursor, 1 << 59, Ordering::Relaxed);
    for id in 0..6 {
        assert_eq!(block.write(&writer), Ok(id));
    }
    assert!(counted(Counter::StateTransitionErrors) > 0);
    assert!(block.word(Control64::ReadIndex) <= block.word(Control64::CommitIndex));
}

/// Rules: DH-046, DH-047, N-10.
#[test]
fn a_foreign_word_is_reported_and_left() {
    let block = ring(2);
    let writer = block.writer();
    let id = writer.allocate(1, Deadline::Immediate).unwrap().first;
    let slot = block.config.index(id);
    let owner = || {
        ProcessKey::from_word(Load::load(block.memory.slot(slot).word64(Slot64::Owner), Ordering::Relaxed))
    };
    assert_eq!(owner(), Some(key(WRITER)));
    let ctl = block.memory.slot_mut(slot).word64(Slot64::Ctl);
    let ours = Load::load(ctl, Ordering::Relaxed);
    for foreign in [Ctl::new(77, SlotState::Writing).0, Ctl(1 << 3 | 6).0] {
        Word::store(ctl, foreign, Ordering::Relaxed);
        assert_eq!(writer.commit(id, info(8)), Err(AcquireError::InvalidState.into()));
        assert_eq!(Load::load(ctl, Ordering::Relaxed), foreign);
    }
    let counts = [Counter::StateTransitionErrors, Counter::WriteLockContention].map(counted);
    assert_eq!(counts, [2, 2]);
    assert_eq!(errors(), [ErrorKind::InvalidState; 2]);
    Word::store(ctl, ours, Ordering::Relaxed);
    writer.commit(id, info(8)).unwrap();
    assert_eq!(owner(), None);
}

/// A state code that does not exist, and a length beyond the slot, end the read.
/// Rules: DH-046, L-17, L-18.
#[test]
fn damage_is_reported_to_the_reader() {
    let block = ring(2);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    block.write(&writer).unwrap();
    let slot = block.config.index(SlotId(0));
    let len = block.memory.slot_mut(slot).word64(Slot64::PayloadLen);
    Word::store(len, 1 << 40, Ordering::Relaxed);
    assert_eq!(reader.acquire_ordered(Deadline::Immediate), Err(AcquireError::InvalidState));
    Word::store(len, 8, Ordering::Relaxed);
    let acquired = reader.acquire_ordered(Deadline::Immediate).unwrap();
    let ctl = block.memory.slot_mut(slot).word64(Slot64::Ctl);
    Word::store(ctl, 1 << 3 | 6, Ordering::Relaxed);
    assert!(!reader.validate(&acquired));
    assert_eq!(counted(Counter::ReaderValidationFailed), 1);
    reader.release(&acquired, Release::Redeliver).unwrap();
    assert_eq!(reader.acquire_ordered(Deadline::Immediate), Err(AcquireError::InvalidState));
    assert_eq!((counted(Counter::StateTransitionErrors), errors().len()), (1, 2));
}

/// Rules: DH-062.
#[test]
fn a_value_whose_reader_the_writer_waits_for_is_still_valid() {
    let block = Block::new(config(SyncPolicy::LatestOnly, 4));
    let writer = block.writer();
    block.write(&writer).unwrap();
    let mut reader = block.reader(READER, Start::Newest);
    let held = reader.acquire_latest(Deadline::Immediate).unwrap();
    let ctl = block.memory.slot_mut(block.config.index(held.id)).word64(Slot64::Ctl);
    Word::store(ctl, Ctl::new(1, SlotState::Draining).0, Ordering::Relaxed);
    assert!(reader.validate(&held));
    Word::store(ctl, Ctl::new(5, SlotState::Draining).0, Ordering::Relaxed);
    assert!(!reader.validate(&held));
    assert_eq!(counted(Counter::ReaderValidationFailed), 1);
}

/// Rules: DH-119, DH-120, B-01, B-02.
#[test]
fn a_batch_becomes_visible_at_once() {
    let block = ring(8);
    let writer = block.writer();
    let batch = writer.allocate(4, Deadline::Immediate).unwrap();
    assert_eq!(batch.ids().map(|id| id.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(block.word(Control64::CommitIndex), 0);
    super::world::wakes();
    batch.ids().for_each(|id| writer.open(id).unwrap().describe(info(1)));
    writer.commit_open(batch).unwrap();
    assert_eq!((block.word(Control64::CommitIndex), block.word(Control64::LatestTag)), (4, 4));
    let refused = writer.allocate(5, Deadline::Immediate);
    assert_eq!(refused, Err(AcquireError::QueueFull.into()), "four are unread");
    assert_eq!(writer.allocate(5, within(5)), Err(AcquireError::Timeout.into()));
    assert_eq!(block.word(Control64::WriteIndex), 4);
}

/// Rules: DH-065, DH-120.
#[test]
fn a_batch_waits_for_those_before_it_and_shows_those_behind_it() {
    let block = ring(8);
    let writer = block.writer();
    let take = |n| writer.allocate(n, Deadline::Immediate).unwrap();
    let visible = || (block.word(Control64::CommitIndex), block.word(Control64::LatestTag));
    let (before, batch, behind) = (take(1), take(3), take(2));
    for id in batch.ids().chain(behind.ids()) {
        writer.open(id).unwrap().describe(info(1));
    }
    writer.commit(behind.first, info(1)).unwrap();
    writer.commit_open(batch).unwrap();
    assert_eq!(visible(), (0, 0), "the first id is not resolved");
    writer.abort(before.first).unwrap();
    assert_eq!(visible(), (5, 5));
    writer.commit_open(behind).unwrap();
    assert_eq!(visible(), (6, 6));

    let block = ring(8);
    let writer = block.writer();
    let take = |n| writer.allocate(n, Deadline::Immediate).unwrap();
    let visible = || (block.word(Control64::CommitIndex), block.word(Control64::LatestTag));
    let (batch, behind) = (take(3), take(2));
    writer.abort(behind.first).unwrap();
    writer.commit(behind.first.plus(1), info(1)).unwrap();
    writer.commit_open(batch).unwrap();
    assert_eq!(visible(), (5, 5), "what waited behind it is visible with it");
    writer.abort(take(1).first).unwrap();
    writer.commit_open(take(0)).unwrap();
    assert_eq!(visible(), (6, 5), "what is no id is not the newest");
}

/// Two of four are committed, the rest given up.
/// Rules: DH-121, DH-122, B-05, B-06.
#[test]
fn a_read_batch_has_all_or_nothing() {
    let block = ring(8);
    let writer = block.writer();
    let core = block.core(READER);
    let names = crate::core::plain::NAMES;
    let mut reader = crate::core::reader::Reader::join(core, Start::Oldest, &names, 3, soon()).unwrap();
    let batch = writer.allocate(4, Deadline::Immediate).unwrap();
    writer.commit(batch.first.plus(1), info(1)).unwrap();
    (2..4).for_each(|k| writer.abort(batch.first.plus(k)).unwrap());
    writer.open(batch.first).unwrap().describe(info(1));
    writer.commit_open(batch).unwrap();
    assert_eq!(block.word(Control64::LatestTag), 2, "the newest is not one that was given up");
    let mut got = Vec::new();
    assert!(reader.acquire_batch(3, Deadline::Immediate, &mut got).is_err() && got.is_empty());
    assert!(reader.acquire_batch(4, Deadline::Immediate, &mut got).is_err(), "three may be held");
    block.write(&writer).unwrap();
    reader.acquire_batch(3, Deadline::Immediate, &mut got).unwrap();
    assert_eq!(got.iter().map(|slot| slot.id.0).collect::<Vec<_>>(), [0, 1, 4]);
    assert_eq!(reader.acquire_ordered(Deadline::Immediate), Err(AcquireError::QueueEmpty), "nothing is left");
    block.write(&writer).unwrap();
    let refused = Err(AcquireError::Locked { holder: Holder::Caller });
    assert_eq!(reader.acquire_ordered(Deadline::Immediate), refused, "three are held");
    // Released in another order: the cursor follows the lowest that is held.
    reader.release(&got[2], Release::Consumed).unwrap();
    assert_eq!(cursor(&block, &reader), 0);
    reader.release(&got[0], Release::Consumed).unwrap();
    assert_eq!(cursor(&block, &reader), 1);
    reader.release(&got[1], Release::Redeliver).unwrap();
    assert_eq!(reader.release(&got[1], Release::Consumed), Err(AcquireError::InvalidState), "not held");
    assert_eq!(reader.acquire_ordered(Deadline::Immediate).unwrap().id, SlotId(1), "delivered again");
    reader.release(&got[1], Release::Consumed).unwrap();
    assert_eq!(cursor(&block, &reader), 5, "past the holes and what was consumed");
}

/// Rules: DH-122, DH-123, N-24.
#[test]
fn what_is_there_is_read_and_let_go_piece_by_piece() {
    let block = ring(8);
    let writer = block.writer();
    let names = crate::core::plain::NAMES;
    let core = block.core(READER);
    let mut reader = crate::core::reader::Reader::join(core, Start::Oldest, &names, 4, soon()).unwrap();
    let mut batch = Vec::new();
    assert_eq!(reader.acquire_up_to(4, &mut batch), Err(AcquireError::QueueEmpty.into()));
    for _ in 0..3 {
        block.write(&writer).unwrap();
    }
    assert_eq!(reader.acquire_up_to(5, &mut batch), Err(TOO_LARGE));
    reader.acquire_up_to(4, &mut batch).unwrap();
    assert_eq!(batch.iter().map(|slot| slot.id.0).collect::<Vec<_>>(), [0, 1, 2]);
    for _ in 3..8 {
        block.write(&writer).unwrap();
    }
    assert!(block.write(&writer).is_err(), "full");
    reader.consume_first(2, &mut batch).unwrap();
    assert_eq!((batch.len(), batch[0].id, cursor(&block, &reader)), (1, SlotId(2), 2));
    assert!(block.write(&writer).is_ok() && block.write(&writer).is_ok() && block.write(&writer).is_err());

    let mut more = Vec::new();
    reader.acquire_up_to(4, &mut more).unwrap();
    assert_eq!(more.len(), 3, "four may be held");
    let full = AcquireError::Locked { holder: Holder::Caller };
    assert_eq!(reader.acquire_up_to(1, &mut Vec::new()), Err(full.into()));
    reader.consume_first(usize::MAX, &mut batch).unwrap();
    assert_eq!((batch.len(), cursor(&block, &reader)), (0, 3));
    let mut foreign = more.clone();
    reader.consume_first(3, &mut more).unwrap();
    assert_eq!(reader.consume_first(1, &mut foreign), Err(AcquireError::InvalidState), "not held");

    reader.acquire_up_to(3, &mut batch).unwrap();
    reader.release(&batch[1], Release::Redeliver).unwrap();
    assert_eq!(reader.consume_first(3, &mut batch), Err(AcquireError::InvalidState));
    assert_eq!((batch.len(), cursor(&block, &reader)), (2, 7), "what is before it is consumed");
    let again = reader.acquire_ordered(Deadline::Immediate).unwrap();
    let last = reader.acquire_ordered(Deadline::Immediate).unwrap();
    assert_eq!((again.id, last.id), (SlotId(7), SlotId(9)), "it comes again");
    // Not the one between them.
    reader.consume_first(2, &mut vec![again, last]).unwrap();
    assert_eq!((cursor(&block, &reader), reader.release(&batch[1], Release::Consumed)), (8, Ok(())));
    assert!(block.write(&writer).is_ok() && block.write(&writer).is_ok());
    reader.acquire_up_to(2, &mut batch).unwrap();
    batch.reverse();
    reader.consume_first(2, &mut batch).unwrap();
    assert_eq!(cursor(&block, &reader), 12, "in whatever order");

    let latest = Block::new(config(SyncPolicy::LatestOnly, 2));
    let mut reader = latest.reader(READER, Start::Newest);
    assert_eq!(reader.acquire_up_to(1, &mut batch), Err(ReadBatchError::LatestOnly));
    assert_eq!(reader.acquire_batch(1, Deadline::Immediate, &mut batch), Err(ReadBatchError::LatestOnly));
}

const TOO_LARGE: ReadBatchError = ReadBatchError::BatchTooLarge { requested: 5, available: 4 };

/// Rules: DH-061, DH-122.
#[test]
fn a_loss_within_a_batch_is_told() {
    let mut config = config(SyncPolicy::AllReaders, 4);
    config.overflow = crate::core::config::Overflow::DropOldest;
    config.on_held = crate::core::config::OnHeld::Skip;
    let block = Block::new(config);
    let writer = block.writer();
    let core = block.core(READER);
    let names = crate::core::plain::NAMES;
    let mut reader = crate::core::reader::Reader::join(core, Start::Oldest, &names, 3, soon()).unwrap();
    for _ in 0..4 {
        block.write(&writer).unwrap();
    }
    let mut first = Vec::new();
    reader.acquire_up_to(1, &mut first).unwrap();
    assert_eq!(block.write(&writer), Ok(5), "the slot of 0 is passed over, that of 1 is taken");
    let mut more = Vec::new();
    let lost = AcquireError::Lapped { lost: 1 };
    assert_eq!(reader.acquire_up_to(2, &mut more), Err(lost.into()));
    reader.acquire_up_to(2, &mut more).unwrap();
    assert_eq!(more.iter().map(|slot| slot.id.0).collect::<Vec<_>>(), [2, 3]);
}

/// Rules: DH-108, C-05, C-06.
#[test]
fn a_reader_goes_where_it_is_told() {
    let block = Block::new(config(SyncPolicy::AllReaders, 8));
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Latest);
    assert_eq!((reader.seek_latest(), reader.seek(SlotId(0))), (Ok(SlotId(0)), Ok(SlotId(0))));
    assert_eq!((reader.peek(), reader.backlog()), (Ok(None), 0));
    let hole = writer.allocate(1, Deadline::Immediate).unwrap().first;
    writer.abort(hole).unwrap();
    for _ in 1..4 {
        block.write(&writer).unwrap();
    }
    assert_eq!((reader.peek(), reader.backlog()), (Ok(Some((SlotId(1), 8))), 4));
    let next = |reader: &mut super::world::TestReader| {
        let acquired = reader.acquire_ordered(Deadline::Immediate)?;
        reader.release(&acquired, Release::Consumed).map(|()| acquired.id.0)
    };
    assert_eq!((next(&mut reader), reader.backlog()), (Ok(1), 2));
    assert_eq!((reader.seek_latest(), next(&mut reader)), (Ok(SlotId(3)), Ok(3)));
    assert_eq!((reader.seek_oldest(), next(&mut reader)), (Ok(SlotId(0)), Ok(1)));
    assert_eq!((reader.seek_end(), next(&mut reader)), (Ok(SlotId(4)), Err(AcquireError::QueueEmpty)));
    block.write(&writer).unwrap();
    assert_eq!(next(&mut reader), Ok(4));

    let mut later = config(SyncPolicy::SingleReader, 4);
    later.first_slot = SlotId(1_000);
    let block = Block::new(later);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    assert_eq!(reader.seek(SlotId(0)), Ok(SlotId(1_000)), "nothing is before the first id");
    assert_eq!(reader.seek(SlotId(1_000)), Ok(SlotId(1_000)));
    block.write(&writer).unwrap();
    assert_eq!(next(&mut reader), Ok(1_000));
}

fn cursor(block: &Block, reader: &super::world::TestReader) -> u64 {
    Load::load(block.memory.row64(reader.ticket().row, Row64::Cursor), Ordering::Relaxed)
}

/// Rules: DH-113, C-09.
#[test]
fn a_closed_block_is_read_to_its_end() {
    let block = ring(4);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    for _ in 0..3 {
        block.write(&writer).unwrap();
    }
    writer.start_closing().unwrap();
    assert_eq!(block.write(&writer), Err(AcquireError::Closed { handed_over: false }.into()));
    writer.finish_closing(|| ()).unwrap();
    for id in 0..3 {
        let acquired = reader.acquire_ordered(soon()).unwrap();
        assert_eq!(acquired.id, SlotId(id));
        reader.release(&acquired, Release::Consumed).unwrap();
    }
    assert_eq!(reader.acquire_ordered(soon()), Err(AcquireError::Closed { handed_over: false }));
    assert_eq!(block.word(Control64::WriterOwner), 0);
}
