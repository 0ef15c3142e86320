//! Every counter that the protocol keeps: an event, and all that it counts.

use std::collections::BTreeMap;

use tidegate_shm::sync::Ordering::Relaxed;

use super::world::{
    Block, NEXT_WRITER, READER, TestReader, TestWriter, WRITER, World, counts, info, kill, revive, soon,
    within,
};
use crate::core::{
    TakeOver,
    codec::{Ctl, SlotId, SlotState},
    config::{CoreConfig, Deadline, OnHeld, Orphan, Overflow, SyncPolicy, Timing, WaitStrategy},
    crash::{Point, simulated::until_crash},
    host::Counter::{self, *},
    plain::{Lock, config, key},
    reader::Release,
    registry::Start,
    spinlock::Spinlock,
    words::{Row64, Slot64, SlotWords, Sync32, Sync64, Word, Words, WriterWords},
};

const NOW: Deadline = Deadline::Immediate;

/// A block with its writer and a reader of all of it.
struct Pair {
    block: Block,
    writer: TestWriter,
    reader: TestReader,
}

impl Pair {
    fn new(sync: SyncPolicy, slots: u32, set: impl FnOnce(&mut CoreConfig)) -> Self {
        let mut config = config(sync, slots);
        set(&mut config);
        let block = Block::new(config);
        let writer = block.writer();
        let start = if sync == SyncPolicy::LatestOnly { Start::Newest } else { Start::Oldest };
        let reader = block.reader(READER, start);
        Self { block, writer, reader }
    }

    /// A lossless ring.
    fn ring(slots: u32) -> Self {
        Self::new(SyncPolicy::AllReaders, slots, |_| {})
    }

    fn latest(slots: u32) -> Self {
        Self::new(SyncPolicy::LatestOnly, slots, |_| {})
    }

    fn write(self, count: u64) -> Self {
        (0..count).for_each(|_| assert!(self.block.write(&self.writer).is_ok()));
        self
    }

    /// Puts something else in the place of a slot's state.
    fn set(&self, id: u64, state: Ctl) {
        let slot = self.block.config.index(SlotId(id));
        Word::store(self.block.memory.slot_mut(slot).word64(Slot64::Ctl), state.0, Relaxed);
    }
}

/// What is counted from here on is the event's.
fn begin() {
    counts();
}

/// Counters with an event each. The event is over when the block ends; the list is all that it counts, nothing else.
macro_rules! events {
    ($($counter:ident: $event:block counts [$(($found:ident, $amount:expr)),* $(,)?];)*) => {
        fn provoke_each() {
            $({
                $event
                let mut counted = counts();
                // What is written without a change, such as a peak that is none.
                counted.retain(|_, amount| *amount > 0);
                let expected = BTreeMap::from([$(($found, $amount)),*]);
                assert_eq!(counted, expected, stringify!($counter));
                assert!(expected.contains_key(&$counter), stringify!($counter));
            })*
        }

        /// A counter without an event does not compile.
        const fn _all_have_one(counter: Counter) {
            match counter {
                $(Counter::$counter)|* => {}
            }
        }
    };
}

events! {
    WritesAttempted: {
        let ring = Pair::ring(2);
        begin();
        let _open = ring.writer.allocate(1, NOW).unwrap();
    } counts [(WritesAttempted, 1)];

    SlotsWritten: {
        let ring = Pair::ring(2);
        let open = ring.writer.allocate(1, NOW).unwrap();
        begin();
        ring.writer.commit(open.first, info(8)).unwrap();
    } counts [(SlotsWritten, 1), (BytesWritten, 8)];

    BytesWritten: {
        let ring = Pair::ring(2);
        let open = ring.writer.allocate(1, NOW).unwrap();
        begin();
        ring.writer.commit(open.first, info(40)).unwrap();
    } counts [(SlotsWritten, 1), (BytesWritten, 40)];

    BatchWrites: {
        let ring = Pair::ring(4);
        let batch = ring.writer.allocate(3, NOW).unwrap();
        batch.ids().for_each(|id| ring.writer.open(id).unwrap().describe(info(5)));
        begin();
        ring.writer.commit_open(batch).unwrap();
    } counts [(BatchWrites, 1), (SlotsWritten, 3), (BytesWritten, 15)];

    SlotsAborted: {
        let ring = Pair::ring(2);
        let open = ring.writer.allocate(1, NOW).unwrap();
        begin();
        ring.writer.abort(open.first).unwrap();
    } counts [(SlotsAborted, 1)];

    SlotCommitErrors: {
        let ring = Pair::ring(2).write(1);
        begin();
        ring.writer.commit(SlotId(0), info(8)).unwrap_err();
    } counts [(SlotCommitErrors, 1), (StateTransitionErrors, 1), (WriteLockContention, 1)];

    WriteLockContention: {
        let ring = Pair::ring(2);
        ring.block.core(NEXT_WRITER).adopt(TakeOver::Seize(key(WRITER)), soon()).unwrap();
        begin();
        ring.writer.allocate(1, NOW).unwrap_err();
    } counts [(WritesAttempted, 1), (WriteLockContention, 1), (SlotAcquireErrors, 1)];

    WriterGenerationWraps: {
        let lossy = Pair::latest(2).write(1);
        begin();
        let _open = lossy.writer.allocate(1, NOW).unwrap();
    } counts [(WritesAttempted, 1), (WriterGenerationWraps, 1)];

    WriterTimeout: {
        let held = Pair::latest(1).write(1);
        let Pair { mut reader, writer, .. } = held;
        let _held = reader.acquire_latest(NOW).unwrap();
        begin();
        writer.allocate(1, within(0)).unwrap_err();
    } counts [(WritesAttempted, 1), (WriterDrainTimeout, 1), (WriterTimeout, 1), (SlotAcquireErrors, 1), (ReaderPeak, 1)];

    WriterFullTimeout: {
        let full = Pair::ring(1).write(1);
        begin();
        full.writer.allocate(1, within(0)).unwrap_err();
    } counts [(WritesAttempted, 1), (FloorScans, 1), (WriterFullTimeout, 1), (WriterTimeout, 1), (SlotAcquireErrors, 1)];

    WriterDrainTimeout: {
        let Pair { mut reader, writer, .. } = Pair::latest(1).write(1);
        let _held = reader.acquire_latest(NOW).unwrap();
        begin();
        writer.allocate(1, within(0)).unwrap_err();
    } counts [(WritesAttempted, 1), (WriterDrainTimeout, 1), (WriterTimeout, 1), (SlotAcquireErrors, 1), (ReaderPeak, 1)];

    WriterRefused: {
        let full = Pair::ring(1).write(1);
        begin();
        full.writer.allocate(1, NOW).unwrap_err();
    } counts [(WritesAttempted, 1), (FloorScans, 1), (WriterRefused, 1)];

    SlotAcquireErrors: {
        let ring = Pair::ring(2);
        begin();
        ring.writer.allocate(3, NOW).unwrap_err();
    } counts [(WritesAttempted, 1), (SlotAcquireErrors, 1)];

    FloorScans: {
        let mut ring = Pair::ring(1).write(1);
        let read = ring.reader.acquire_ordered(NOW).unwrap();
        ring.reader.release(&read, Release::Consumed).unwrap();
        begin();
        let _open = ring.writer.allocate(1, NOW).unwrap();
    } counts [(WritesAttempted, 1), (FloorScans, 1), (WriterGenerationWraps, 1)];

    WriterBlockedNs: {
        let full = Pair::ring(1).write(1);
        begin();
        full.writer.allocate(1, within(5)).unwrap_err();
    } counts [(WritesAttempted, 1), (WriterBlockedNs, 5_000_000), (DrainWaits, 1), (FloorScans, 5),
        (WriterFullTimeout, 1), (WriterTimeout, 1), (SlotAcquireErrors, 1)];

    DrainWaits: {
        let full = Pair::ring(1).write(1);
        begin();
        full.writer.allocate(1, within(5)).unwrap_err();
    } counts [(WritesAttempted, 1), (WriterBlockedNs, 5_000_000), (DrainWaits, 1), (FloorScans, 5),
        (WriterFullTimeout, 1), (WriterTimeout, 1), (SlotAcquireErrors, 1)];

    WakeupsSent: {
        let ring = Pair::ring(2);
        let open = ring.writer.allocate(1, NOW).unwrap();
        Word::store(ring.block.memory.sync32(Sync32::DataWaiters), 1, Relaxed);
        begin();
        ring.writer.commit(open.first, info(8)).unwrap();
    } counts [(WakeupsSent, 1), (SlotsWritten, 1), (BytesWritten, 8)];

    SlotsSkippedHeld: {
        let Pair { block, mut reader, writer } = Pair::new(SyncPolicy::LatestOnly, 2, |config| config.on_held = OnHeld::Skip).write(1);
        let _held = reader.acquire_latest(NOW).unwrap();
        block.write(&writer).unwrap();
        begin();
        let _open = writer.allocate(1, NOW).unwrap();
    } counts [(WritesAttempted, 1), (SlotsSkippedHeld, 1), (ReaderPeak, 1), (WriterGenerationWraps, 1)];

    SlotsDroppedOldest: {
        let ring = Pair::new(SyncPolicy::AllReaders, 4, |config| config.overflow = Overflow::DropOldest).write(4);
        begin();
        let _open = ring.writer.allocate(2, NOW).unwrap();
    } counts [(WritesAttempted, 1), (SlotsDroppedOldest, 2)];

    SlotsUnobserved: {
        let ring = Pair::new(SyncPolicy::AllReaders, 4, |config| config.orphan = Orphan::Advance);
        let Pair { block, writer, reader } = ring;
        reader.leave(soon()).unwrap();
        (0..4).for_each(|_| assert!(block.write(&writer).is_ok()));
        begin();
        let _open = writer.allocate(3, NOW).unwrap();
    } counts [(WritesAttempted, 1), (SlotsUnobserved, 3), (FloorScans, 1)];

    ReaderPeak: {
        let Pair { block, mut reader, writer } = Pair::latest(1).write(1);
        let mut other = block.reader(READER + 1, Start::Newest);
        let _held = (reader.acquire_latest(NOW).unwrap(), other.acquire_latest(NOW).unwrap());
        begin();
        writer.allocate(1, NOW).unwrap_err();
    } counts [(WritesAttempted, 1), (ReaderPeak, 2), (WriterDrainTimeout, 1), (WriterTimeout, 1), (SlotAcquireErrors, 1)];

    ReaderTimeout: {
        let mut ring = Pair::ring(2);
        begin();
        ring.reader.acquire_ordered(within(1)).unwrap_err();
    } counts [(ReaderTimeout, 1), (SlotAcquireErrors, 1)];

    ReaderLappedSlots: {
        let mut ring =
            Pair::new(SyncPolicy::AllReaders, 4, |config| config.overflow = Overflow::DropOldest).write(7);
        begin();
        ring.reader.acquire_ordered(NOW).unwrap_err();
    } counts [(ReaderLappedSlots, 3), (SlotAcquireErrors, 1)];

    ReaderNotReady: {
        let mut ring =
            Pair::new(SyncPolicy::AllReaders, 4, |config| config.overflow = Overflow::DropOldest).write(1);
        ring.set(0, Ctl::new(1, SlotState::Draining));
        begin();
        ring.reader.acquire_ordered(NOW).unwrap_err();
    } counts [(ReaderNotReady, 1), (ReaderLappedSlots, 1), (SlotAcquireErrors, 1)];

    ReaderRaceDetected: {
        let mut ring = Pair::latest(2).write(1);
        ring.set(0, Ctl::new(3, SlotState::Writing));
        begin();
        ring.reader.acquire_latest(NOW).unwrap_err();
    } counts [(ReaderRaceDetected, 1), (ReaderNotReady, 1), (SlotAcquireErrors, 1)];

    ReaderValidationFailed: {
        let mut ring = Pair::latest(2).write(1);
        let held = ring.reader.acquire_latest(NOW).unwrap();
        ring.set(0, Ctl::new(3, SlotState::Writing));
        begin();
        assert!(!ring.reader.validate(&held));
    } counts [(ReaderValidationFailed, 1)];

    StateTransitionErrors: {
        let ring = Pair::ring(1).write(1);
        let cursor = ring.block.memory.row64(ring.reader.ticket().row, Row64::Cursor);
        Word::store(cursor, 1 << 59, Relaxed);
        begin();
        let _open = ring.writer.allocate(1, NOW).unwrap();
    } counts [(WritesAttempted, 1), (FloorScans, 1), (StateTransitionErrors, 2), (WriterGenerationWraps, 1)];

    ConsumersJoined: {
        let block = Block::new(config(SyncPolicy::AllReaders, 2));
        begin();
        block.reader(READER, Start::Oldest);
    } counts [(ConsumersJoined, 1), (PeakConsumers, 1)];

    PeakConsumers: {
        let ring = Pair::ring(2);
        begin();
        ring.block.reader(READER + 1, Start::Oldest);
    } counts [(ConsumersJoined, 1), (PeakConsumers, 2)];

    ConsumersLeft: {
        let ring = Pair::ring(2);
        begin();
        ring.reader.leave(soon()).unwrap();
    } counts [(ConsumersLeft, 1)];

    ConsumersEvicted: {
        let ring = Pair::ring(2);
        begin();
        ring.block.core(NEXT_WRITER).evict(ring.reader.ticket().row, soon()).unwrap();
    } counts [(ConsumersEvicted, 1)];

    DeadConsumersReaped: {
        let ring = Pair::ring(2);
        kill(READER);
        begin();
        assert_eq!(ring.block.core(NEXT_WRITER).reap(soon()), Ok(1));
        revive();
    } counts [(DeadConsumersReaped, 1)];

    ReadsAttemptedRetired: {
        let mut ring = Pair::ring(4).write(2);
        (0..2).for_each(|_| consume(&mut ring.reader));
        ring.reader.acquire_ordered(within(1)).unwrap_err();
        begin();
        ring.reader.leave(soon()).unwrap();
    } counts [(ConsumersLeft, 1), (ReadsAttemptedRetired, 3), (SlotsReadRetired, 2), (BytesReadRetired, 16)];

    SlotsReadRetired: {
        let mut ring = Pair::ring(4).write(1);
        consume(&mut ring.reader);
        begin();
        ring.reader.leave(soon()).unwrap();
    } counts [(ConsumersLeft, 1), (ReadsAttemptedRetired, 1), (SlotsReadRetired, 1), (BytesReadRetired, 8)];

    BytesReadRetired: {
        let mut ring = Pair::ring(4).write(1);
        consume(&mut ring.reader);
        kill(READER);
        begin();
        assert_eq!(ring.block.core(NEXT_WRITER).reap(soon()), Ok(1));
        revive();
    } counts [(DeadConsumersReaped, 1), (ReadsAttemptedRetired, 1), (SlotsReadRetired, 1), (BytesReadRetired, 8)];

    LockErrors: {
        let lock = Lock::new();
        let (wait, timing) = (WaitStrategy::Hybrid, Timing::default());
        let ours: Spinlock<'_, _, _, World> = Spinlock::new(lock.words(), &lock.doorways[0], &World, 9, key(30), wait, timing);
        begin();
        ours.release().unwrap_err();
    } counts [(LockErrors, 1)];

    MaintenanceLockWaits: {
        let ring = Pair::ring(2);
        Word::store(ring.block.memory.sync64(Sync64::LockOwner), NEXT_WRITER, Relaxed);
        begin();
        ring.block.core(NEXT_WRITER + 1).reap(NOW).unwrap_err();
    } counts [(MaintenanceLockWaits, 1)];

    LockTakeovers: {
        let ring = Pair::ring(2);
        assert!(until_crash(Point::LockHeld, 1, || ring.block.core(NEXT_WRITER).reap(soon())).is_none());
        kill(NEXT_WRITER);
        begin();
        assert_eq!(ring.block.core(NEXT_WRITER + 1).reap(soon()), Ok(0));
        revive();
    } counts [(MaintenanceLockWaits, 1), (LockTakeovers, 1)];

    WriterAdoptions: {
        let ring = Pair::ring(2);
        let _open = ring.writer.allocate(1, NOW).unwrap();
        kill(WRITER);
        begin();
        ring.block.adopt(NEXT_WRITER);
        revive();
    } counts [(WriterAdoptions, 1), (SlotsAborted, 1), (FloorScans, 1)];

    WriterSeizures: {
        let ring = Pair::ring(2);
        begin();
        ring.block.core(NEXT_WRITER).adopt(TakeOver::Seize(key(WRITER)), soon()).unwrap();
    } counts [(WriterSeizures, 1), (FloorScans, 1)];
}

/// Rules: DH-242, T-01.
#[test]
fn each_counts_what_it_is_for() {
    provoke_each();
}

fn consume(reader: &mut TestReader) {
    let read = reader.acquire_ordered(NOW).unwrap();
    reader.release(&read, Release::Consumed).unwrap();
}
