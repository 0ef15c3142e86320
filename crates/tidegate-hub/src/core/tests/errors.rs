use super::world::{Block, READER, errors, soon, within};
use crate::core::{
    TakeOver,
    codec::SlotId,
    config::{Deadline, Overflow, SyncPolicy},
    host::ErrorKind,
    plain::{config, key},
    reader::Release,
    registry::Start,
};

const NOW: Deadline = Deadline::Immediate;

/// What an error leaves behind; empties the record.
fn recorded<T, E>(result: Result<T, E>) -> Vec<ErrorKind> {
    assert!(result.is_err());
    errors()
}

/// Each of the nine kinds, on the side where it arises.
/// Rules: DH-100, N-20.
#[test]
fn errors_are_recorded_unless_they_are_answers() {
    let block = Block::new(config(SyncPolicy::SingleReader, 2));
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    assert_eq!(recorded(reader.acquire_ordered(NOW)), [], "QueueEmpty");
    assert_eq!(recorded(reader.acquire_ordered(within(5))), [ErrorKind::ReadTimeout]);
    let open = writer.allocate(2, NOW).unwrap();
    assert_eq!(recorded(writer.allocate(1, NOW)), [ErrorKind::WouldDeadlock], "Locked");
    assert_eq!(recorded(writer.allocate(3, NOW)), [ErrorKind::BatchTooLarge]);
    open.ids().for_each(|id| writer.open(id).unwrap().describe(super::world::info(8)));
    writer.commit_open(open).unwrap();
    assert_eq!(recorded(writer.allocate(1, NOW)), [], "QueueFull without waiting");
    assert_eq!(recorded(writer.allocate(1, within(5))), [ErrorKind::WriteTimeout]);
    let held = reader.acquire_ordered(NOW).unwrap();
    assert_eq!(recorded(reader.acquire_ordered(NOW)), [ErrorKind::WouldDeadlock], "Locked");
    reader.release(&held, Release::Consumed).unwrap();
    assert_eq!(recorded(writer.commit(SlotId(0), super::world::info(8))), [ErrorKind::InvalidState]);
    block.core(99).evict(reader.ticket().row, soon()).unwrap();
    assert_eq!(recorded(reader.acquire_ordered(NOW)), [ErrorKind::Fenced]);
    block.core(98).adopt(TakeOver::Seize(key(super::world::WRITER)), soon()).unwrap();
    assert_eq!(recorded(writer.allocate(1, NOW)), [ErrorKind::Fenced]);
    let mut last = block.reader(READER + 1, Start::Resume);
    while last.acquire_ordered(NOW).map(|slot| last.release(&slot, Release::Consumed)).is_ok() {}
    assert_eq!(recorded(last.acquire_ordered(NOW)), [], "Closed");

    let mut config = config(SyncPolicy::AllReaders, 1);
    config.overflow = Overflow::DropOldest;
    let block = Block::new(config);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    let mut latest = block.reader(READER + 1, Start::Latest);
    block.write(&writer).unwrap();
    block.write(&writer).unwrap();
    assert_eq!(recorded(reader.acquire_ordered(NOW)), [ErrorKind::Lapped]);
    let open = writer.allocate(1, NOW).unwrap();
    assert_eq!(recorded(latest.acquire_latest(NOW)), [ErrorKind::NotReady]);
    writer.abort(open.first).unwrap();
}
