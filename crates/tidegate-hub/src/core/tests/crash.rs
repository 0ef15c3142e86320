//! A party ends at every step; whoever comes after it must find the block as table 5.10 says.

use super::world::{Block, NEXT_WRITER, READER, TestReader, WRITER, counted, info, kill, soon};
use crate::core::{
    TakeOver,
    codec::SlotId,
    config::{Deadline, OnHeld, Overflow, SyncPolicy},
    crash::{Point, simulated::until_crash},
    error::{AcquireError, RegistryError, WriteError},
    host::Counter,
    plain::{NAMES, config, key},
    reader::Release,
    registry::Start,
    words::Control64,
};

/// A lossy ring of two with two committed ids and a reader at the oldest.
fn lossy() -> Block {
    let mut config = config(SyncPolicy::AllReaders, 4);
    config.overflow = Overflow::DropOldest;
    config.max_consumers = 4;
    Block::new(config)
}

/// All ids that can be read, with their payloads checked.
fn read_all(block: &Block, reader: &mut TestReader) -> Vec<u64> {
    let mut ids = Vec::new();
    loop {
        match reader.acquire_ordered(Deadline::Immediate) {
            Ok(acquired) => {
                assert_eq!(block.payload(acquired.id), acquired.id.0);
                assert!(reader.validate(&acquired));
                ids.push(acquired.id.0);
                reader.release(&acquired, Release::Consumed).unwrap();
            }
            Err(AcquireError::Lapped { .. }) => {}
            Err(error) => {
                assert_eq!(error, AcquireError::QueueEmpty);
                return ids;
            }
        }
    }
}

/// DH-052, and nothing half done.
fn check_invariants(block: &Block) {
    let word = |field| block.word(field);
    let (read, intent) = (word(Control64::ReadIndex), word(Control64::FloorIntent));
    let (write, commit) = (word(Control64::WriteIndex), word(Control64::CommitIndex));
    assert!(read <= intent && read <= write && commit <= write, "{read} {intent} {commit} {write}");
    assert!(write - commit <= block.config.slots());
    assert!(word(Control64::LatestTag) <= commit);
}

/// The writer ends at `point` while it writes a batch of two over ids 0 and 1 of four; then what is readable, before and
/// after adoption, and the next id.
fn batch_dies_at(point: Point, pass: u32) -> (Vec<u64>, Vec<u64>, u64) {
    let block = lossy();
    let writer = block.writer();
    let mut before = block.reader(READER, Start::Oldest);
    let mut after = block.reader(READER + 1, Start::Oldest);
    for _ in 0..4 {
        block.write(&writer).unwrap();
    }
    let done = until_crash(point, pass, || {
        let batch = writer.allocate(2, Deadline::Immediate).unwrap();
        batch.ids().for_each(|id| block.fill(id));
        batch.ids().for_each(|id| writer.open(id).unwrap().describe(info(8)));
        writer.commit_open(batch).unwrap();
    });
    assert!(done.is_none(), "{point:?} was not passed");
    check_invariants(&block);
    // The reader meets DRAINING or WRITING at the slots of 0 and 1; it goes on behind them.
    let seen = read_all(&block, &mut before);
    kill(WRITER);
    let adopted = block.adopt(NEXT_WRITER);
    check_invariants(&block);
    let next = block.word(Control64::WriteIndex);
    let readable = read_all(&block, &mut after);
    // Writing goes on, and everybody sees it.
    for _ in 0..6 {
        let id = block.write(&adopted).unwrap();
        assert_eq!(read_all(&block, &mut after), [id]);
    }
    (seen, readable, next)
}

/// Rules: DH-081, DH-082, DH-084.
#[test]
fn a_writer_that_dies_leaves_what_the_table_says() {
    let old = vec![0, 1, 2, 3];
    let rest = vec![2, 3];
    let reserving =
        [(Point::ReserveOne, 1), (Point::ReserveOne, 2), (Point::ReserveAll, 1), (Point::WriterFence, 1)];
    for (point, pass) in reserving {
        let (_, readable, next) = batch_dies_at(point, pass);
        assert_eq!((readable, next), (old.clone(), 4), "{point:?}: old contents are readable again");
    }
    for point in [Point::FloorIntent, Point::FloorStore] {
        let (seen, readable, next) = batch_dies_at(point, 1);
        assert_eq!((seen, readable, next), (old.clone(), old.clone(), 4), "{point:?}");
    }
    let (_, readable, next) = batch_dies_at(Point::TakeOne, 1);
    assert_eq!(
        (readable, next),
        (rest.clone(), 5),
        "the one that was taken is a hole; the floor was past the other"
    );
    let holes = [
        (Point::TakeOne, 2),
        (Point::TakeAll, 1),
        (Point::Index, 1),
        (Point::Payload, 1),
        (Point::Digest, 1),
    ];
    for (point, pass) in holes {
        let (seen, readable, next) = batch_dies_at(point, pass);
        assert_eq!((seen, readable, next), (rest.clone(), rest.clone(), 6), "{point:?}: holes");
    }
    for (point, pass, expected) in [
        (Point::Committed, 1, vec![2, 3, 4]),
        (Point::Digest, 2, vec![2, 3, 4]),
        (Point::Committed, 2, vec![2, 3, 4, 5]),
    ] {
        let (seen, readable, next) = batch_dies_at(point, pass);
        assert_eq!((seen, readable, next), (rest.clone(), expected, 6), "{point:?}: visible after adoption");
    }
    for point in [Point::Prefix, Point::Wake] {
        let (seen, readable, next) = batch_dies_at(point, 1);
        let all = vec![2, 3, 4, 5];
        assert_eq!((seen, readable, next), (all.clone(), all, 6), "{point:?}: complete");
    }
}

/// Rules: DH-055, DH-082.
#[test]
fn a_writer_that_dies_while_passing_an_id_over_loses_nothing() {
    let mut config = config(SyncPolicy::LatestOnly, 2);
    config.on_held = OnHeld::Skip;
    let block = Block::new(config);
    let writer = block.writer();
    block.write(&writer).unwrap();
    let mut reader = block.reader(READER, Start::Newest);
    let held = reader.acquire_latest(Deadline::Immediate).unwrap();
    block.write(&writer).unwrap();
    assert!(until_crash(Point::Burn, 1, || block.write(&writer)).is_none());
    kill(WRITER);
    let writer = block.adopt(NEXT_WRITER);
    assert!(reader.validate(&held), "readable again");
    assert_eq!(block.write(&writer), Ok(3), "2 is passed over now");
    check_invariants(&block);
}

/// The adopter dies as well, at every step; the second one has the same result.
/// Rules: DH-081.
#[test]
fn adoption_can_be_repeated() {
    for (point, passes) in
        [(Point::AdoptOwn, 1), (Point::AdoptSlot, 2), (Point::AdoptIndex, 1), (Point::LockHeld, 1)]
    {
        for pass in 1..=passes {
            let block = lossy();
            let writer = block.writer();
            let mut reader = block.reader(READER, Start::Oldest);
            for _ in 0..4 {
                block.write(&writer).unwrap();
            }
            assert!(until_crash(Point::TakeOne, 1, || writer.allocate(2, Deadline::Immediate)).is_none());
            kill(WRITER);
            let adoption = || block.core(NEXT_WRITER).adopt(TakeOver::IfDead, soon()).map(drop);
            assert!(until_crash(point, pass, adoption).is_none(), "{point:?}");
            kill(NEXT_WRITER);
            let writer = block.adopt(12);
            assert_eq!(read_all(&block, &mut reader), [2, 3], "{point:?} {pass}");
            assert_eq!(block.write(&writer), Ok(5));
            check_invariants(&block);
        }
    }
}

/// Who seizes a block dies as well, at every step: nobody allocates there again, where the displaced writer may still fill
/// the slot that it had.
/// Rules: DH-081, DH-258, DH-262.
#[test]
fn a_block_that_was_being_seized_is_written_no_more() {
    for point in [Point::AdoptClose, Point::AdoptOwn, Point::AdoptSlot, Point::AdoptIndex] {
        let block = lossy();
        let writer = block.writer();
        block.write(&writer).unwrap();
        let mine = writer.allocate(1, Deadline::Immediate).unwrap().first;
        let seizure = || block.core(NEXT_WRITER).adopt(TakeOver::Seize(key(WRITER)), soon()).map(drop);
        assert!(until_crash(point, 1, seizure).is_none(), "{point:?}");
        kill(NEXT_WRITER);
        let closed = WriteError::from(AcquireError::Closed { handed_over: false });
        let next = match block.core(12).adopt(TakeOver::IfDead, soon()) {
            Ok(adopted) => {
                assert_eq!(writer.commit(mine, info(8)), Err(AcquireError::Fenced.into()), "{point:?}");
                adopted.writer
            }
            Err(refused) => {
                assert_eq!(refused, RegistryError::WriterAlive { owner: key(WRITER) }, "{point:?}");
                assert_eq!(writer.allocate(1, Deadline::Immediate), Err(closed));
                block.core(12).adopt(TakeOver::Seize(key(WRITER)), soon()).unwrap().writer
            }
        };
        assert_eq!(next.allocate(1, Deadline::Immediate), Err(closed), "{point:?}");
        let mut reader = block.reader(READER, Start::Oldest);
        let acquired = reader.acquire_ordered(Deadline::Immediate).unwrap();
        assert_eq!(block.payload(acquired.id), 0, "{point:?}: what was committed is read");
        super::world::revive();
    }
}

/// Rules: DH-079, DH-104, DH-237.
#[test]
fn a_reader_that_dies_keeps_nobody_waiting() {
    let table = [
        (Point::Claim, 0),
        (Point::ReaderFence, 0),
        (Point::Read, 0),
        (Point::Cursor, 1),
        (Point::Unclaim, 1),
    ];
    for (point, resumes_at) in table {
        let block = Block::new(config(SyncPolicy::SingleReader, 2));
        let writer = block.writer();
        let mut reader = block.reader(READER, Start::Oldest);
        block.write(&writer).unwrap();
        block.write(&writer).unwrap();
        let read = || {
            let acquired = reader.acquire_ordered(Deadline::Immediate).unwrap();
            reader.release(&acquired, Release::Consumed).unwrap();
        };
        assert!(until_crash(point, 1, read).is_none(), "{point:?}");
        kill(READER);
        let mut next = block.reader(READER + 1, Start::Resume);
        assert_eq!(next.ticket().start, SlotId(resumes_at), "{point:?}");
        assert_eq!(read_all(&block, &mut next), (resumes_at..2).collect::<Vec<_>>());
        assert_eq!(block.write(&writer), Ok(2));
        super::world::revive();
    }
}

/// Rules: DH-083, DH-071.
#[test]
fn who_dies_while_joining_or_leaving_leaves_no_ghost() {
    let joining = [Point::LockHeld, Point::Joining, Point::Identity, Point::Active, Point::Mask];
    for point in joining {
        let block = Block::new(config(SyncPolicy::SingleReader, 2));
        let writer = block.writer();
        block.write(&writer).unwrap();
        let join = || block.core(READER).join(Start::Oldest, &NAMES, soon());
        assert!(until_crash(point, 1, join).is_none(), "{point:?}");
        assert_eq!(block.write(&writer), Ok(1), "data flows meanwhile");
        let alive: Result<_, RegistryError> = block.core(21).join(Start::Oldest, &NAMES, soon()).map(drop);
        assert!(matches!(alive, Err(RegistryError::LockTimeout { .. })));
        kill(READER);
        let mut next = block.reader(21, Start::Resume);
        assert_eq!(read_all(&block, &mut next), [0, 1], "{point:?}");
        super::world::revive();
    }
    for point in [Point::Leaving, Point::LeaveFree] {
        let block = Block::new(config(SyncPolicy::SingleReader, 2));
        let writer = block.writer();
        let mut reader = block.reader(READER, Start::Oldest);
        block.write(&writer).unwrap();
        assert_eq!(read_all(&block, &mut reader), [0]);
        block.write(&writer).unwrap();
        assert!(until_crash(point, 1, || reader.leave(soon())).is_none(), "{point:?}");
        kill(READER);
        let next = block.reader(21, Start::Resume);
        assert_eq!(next.ticket().start, SlotId(1), "{point:?}");
        super::world::revive();
    }
}

/// Rules: DH-083, DH-237.
#[test]
fn reaping_and_taking_over_can_be_repeated() {
    for point in [Point::ReapClaim, Point::ReapFree, Point::LeaveFree, Point::LockTakeover] {
        let block = Block::new(config(SyncPolicy::SingleReader, 2));
        let writer = block.writer();
        let mut reader = block.reader(READER, Start::Oldest);
        block.write(&writer).unwrap();
        assert_eq!(read_all(&block, &mut reader), [0]);
        kill(READER);
        if point == Point::LockTakeover {
            assert!(until_crash(Point::LockHeld, 1, || block.core(30).reap(soon())).is_none());
            kill(30);
        }
        assert!(until_crash(point, 1, || block.core(31).reap(soon())).is_none(), "{point:?}");
        kill(31);
        let retired = counted(Counter::SlotsReadRetired);
        let next = block.reader(21, Start::Resume);
        assert_eq!(next.ticket().start, SlotId(1), "{point:?}");
        assert!(counted(Counter::SlotsReadRetired) - retired <= 1);
        super::world::revive();
    }
}
