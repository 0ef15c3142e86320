use std::rc::Rc;

use tidegate_shm::sync::Ordering;

use super::world::{Block, NEXT_WRITER, READER, WRITER, counted, info, kill, revive, soon};
use crate::core::{
    TakeOver,
    codec::{Ctl, InitState, SlotId, SlotIndex, SlotState, TAINT_SEIZED},
    config::{Deadline, Overflow, SyncPolicy},
    crash::{Point, simulated::meanwhile},
    error::{AcquireError, RegistryError},
    host::Counter,
    plain::{config, key},
    reader::Release,
    registry::Start,
    words::{Control32, Control64, Load, Slot64, SlotWords, Words, WriterWords},
};

const NOW: Deadline = Deadline::Immediate;

fn ctl(block: &Block, id: u64) -> Ctl {
    let slot = block.config.index(SlotId(id));
    Ctl(Load::load(block.memory.slot(slot).word64(Slot64::Ctl), Ordering::Relaxed))
}

fn control(block: &Block, field: Control32) -> u32 {
    Load::load(block.memory.control32(field), Ordering::Relaxed)
}

/// Rules: DH-044, DH-258, S-09.
#[test]
fn a_displaced_writer_changes_nothing() {
    let block = Block::new(config(SyncPolicy::SingleReader, 4));
    let writer = block.writer();
    block.write(&writer).unwrap();
    let id = writer.allocate(1, NOW).unwrap().first;
    let refused = block.core(NEXT_WRITER).adopt(TakeOver::IfDead, soon()).unwrap_err();
    assert_eq!(refused, RegistryError::WriterAlive { owner: key(WRITER) });
    let seized = block.core(NEXT_WRITER).adopt(TakeOver::Seize(key(WRITER)), soon()).unwrap();
    assert_eq!((seized.abandoned, control(&block, Control32::Taint)), (1, TAINT_SEIZED));
    let indices = [Control64::WriteIndex, Control64::CommitIndex, Control64::LatestTag];
    let before = indices.map(|field| block.word(field));
    assert_eq!(writer.commit(id, info(8)), Err(AcquireError::Fenced.into()));
    assert_eq!(writer.abort(id), Err(AcquireError::Fenced.into()));
    assert_eq!(writer.allocate(1, NOW), Err(AcquireError::Fenced.into()));
    assert_eq!(counted(Counter::WriteLockContention), 3, "two writers met");
    assert_eq!(ctl(&block, 1), Ctl::new(2, SlotState::Quarantined));
    assert_eq!(indices.map(|field| block.word(field)), before);
}

/// A writer that was displaced while it kept readers off a slot finds it readable again, and leaves what is said about the
/// value alone.
/// Rules: DH-044, DH-258, DH-064.
#[test]
fn a_displaced_writer_says_nothing_about_what_is_read() {
    let mut settings = config(SyncPolicy::AllReaders, 4);
    settings.overflow = Overflow::DropOldest;
    let block = Rc::new(Block::new(settings));
    let writer = block.writer();
    (0..4).for_each(|_| {
        block.write(&writer).unwrap();
    });
    let len = |id| block.memory.slot(block.config.index(SlotId(id))).word64(Slot64::PayloadLen);
    assert_eq!(Load::load(len(0), Ordering::Relaxed), 8);
    let usurped = block.clone();
    let usurp = move || {
        usurped.core(NEXT_WRITER).adopt(TakeOver::Seize(key(WRITER)), soon()).map(drop).unwrap();
    };
    let refused = meanwhile(Point::WriterFence, usurp, || writer.allocate(2, NOW));
    assert_eq!(refused, Err(AcquireError::Fenced.into()));
    for id in 0..4 {
        assert_eq!(ctl(&block, id), Ctl::new(id + 1, SlotState::Committed));
        assert_eq!(Load::load(len(id), Ordering::Relaxed), 8);
    }
}

/// What no writer can have left in a slot says nothing about how far writing came: nobody goes on by it, and nobody keeps the
/// writer's place for that.
/// Rules: DH-005, DH-084.
#[test]
fn a_block_with_an_impossible_slot_is_not_adopted() {
    for tag in [1 << 40, 2, 3 + 8] {
        let block = Block::new(config(SyncPolicy::AllReaders, 4));
        let writer = block.writer();
        (0..3).for_each(|_| {
            block.write(&writer).unwrap();
        });
        let damaged = Ctl::new(tag, SlotState::Committed).0;
        block.memory.slot_mut(SlotIndex(2)).word64(Slot64::Ctl).store(damaged, Ordering::Relaxed);
        kill(WRITER);
        let indices = [Control64::WriteIndex, Control64::CommitIndex, Control64::LatestTag];
        let before = indices.map(|field| block.word(field));
        let refused = block.core(NEXT_WRITER).adopt(TakeOver::IfDead, soon()).unwrap_err();
        assert_eq!(refused, RegistryError::Damaged, "{tag}");
        assert_eq!(indices.map(|field| block.word(field)), before);
        assert_eq!(block.word(Control64::WriterOwner), 0);
        revive();
    }
}

/// More holes than there are slots: a reader that is to wait for a moment steps over some of them and is back in time.
/// Rules: DH-005, DH-098.
#[test]
fn endless_holes_are_stepped_over_in_parts() {
    let block = Block::new(config(SyncPolicy::AllReaders, 4));
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    block.write(&writer).unwrap();
    for field in [Control64::WriteIndex, Control64::CommitIndex] {
        block.memory.control64_mut(field).store(1 << 60, Ordering::Relaxed);
    }
    let first = reader.acquire_ordered(NOW).unwrap();
    reader.release(&first, Release::Consumed).unwrap();
    for _ in 0..3 {
        assert_eq!(reader.acquire_ordered(NOW), Err(AcquireError::QueueEmpty));
    }
}

/// Nobody allocates where a writer may wake up late; consumers get what was committed.
/// Rules: DH-258.
#[test]
fn a_seized_block_is_written_no_more() {
    let block = Block::new(config(SyncPolicy::SingleReader, 4));
    let writer = block.writer();
    block.write(&writer).unwrap();
    let id = writer.allocate(1, NOW).unwrap().first;
    let seized = block.core(NEXT_WRITER).adopt(TakeOver::Seize(key(WRITER)), soon()).unwrap().writer;
    let closed = AcquireError::Closed { handed_over: false };
    assert_eq!(control(&block, Control32::InitState), InitState::Closing as u32);
    assert_eq!(seized.allocate(1, NOW), Err(closed.into()));
    let mut reader = block.reader(READER, Start::Oldest);
    let acquired = reader.acquire_ordered(NOW).unwrap();
    assert_eq!(block.payload(acquired.id), 0);
    reader.release(&acquired, Release::Consumed).unwrap();
    assert_eq!(reader.acquire_ordered(NOW), Err(closed));

    // The slot in quarantine is nobody's before the displaced writer is dead.
    seized.finish_closing(|| ()).unwrap();
    let _ = block.core(12).adopt(TakeOver::IfDead, soon()).unwrap().writer.finish_closing(|| ());
    assert_eq!(ctl(&block, id.0), Ctl::new(id.tag(), SlotState::Quarantined));
    kill(WRITER);
    block.core(13).adopt(TakeOver::IfDead, soon()).unwrap();
    assert_eq!(ctl(&block, id.0), Ctl::new(id.tag(), SlotState::Free));
    assert_eq!(control(&block, Control32::InitState), InitState::Closed as u32, "not opened again");
}
