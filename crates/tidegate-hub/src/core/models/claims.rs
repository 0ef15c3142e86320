//! Claims against reuse.

use tidegate_shm::sync::{Arc, AtomicU64, CheckedCell, Ordering, fence, thread};

use super::{Block, DEAD, NOW, RACE, READER, breaks, explore, mutants};
use crate::core::{
    codec::{Ctl, SlotId, SlotIndex, SlotState},
    config::{Overflow, SyncPolicy},
    error::AcquireError,
    plain::config,
    protocol::{Protocol, Shipped},
    registry::Start,
    words::{Control64, Load, Slot64, SlotWords, Words},
    writer::CommitInfo,
};

mutants! {
    NoReaderFence: READER_FENCE: Option<Ordering> = None;
    NoWriterFence: WRITER_FENCE: Option<Ordering> = None;
    RelaxedClaim: CLAIM_STORE: Ordering = Ordering::Relaxed;
    LateMask: MASK_BEFORE_CLAIM: bool = false;
    MaskBeforeState: EVICTED_BEFORE_MASK: bool = false;
    EarlyIndex: INDEX_AFTER_TAKE: bool = false;
    EarlyLatest: LATEST_AFTER_COMMIT: bool = false;
}

/// In lossless mode the fence of the floor comes after the look at the evicted rows as well, and does as much.
struct NoWriterFences;
impl Protocol for NoWriterFences {
    const WRITER_FENCE: Option<Ordering> = None;
    const FLOOR_FENCE: Option<Ordering> = None;
}

/// The historic handshake: the writer looks at the readers before it says that it writes.
fn historic() -> usize {
    explore(3, || {
        let shared = Arc::new((AtomicU64::new(0), AtomicU64::new(0), CheckedCell::new(0)));
        let reading = shared.clone();
        let reader = thread::spawn(move || {
            let (readers, writing, payload) = &*reading;
            readers.fetch_add(1, Ordering::AcqRel);
            fence(Ordering::SeqCst);
            if writing.load(Ordering::Acquire) == 0 {
                payload.read();
            }
            readers.fetch_sub(1, Ordering::Release);
        });
        let (readers, writing, payload) = &*shared;
        if readers.load(Ordering::Acquire) == 0 {
            fence(Ordering::SeqCst);
            writing.store(1, Ordering::Release);
            payload.write(1);
        }
        reader.join().unwrap();
    })
}

/// one slot, a writer, one or two readers. With `late` they join while the writer runs.
fn reuse<P: Protocol>(readers: u64, late: bool, preemptions: usize) -> usize {
    explore(preemptions, move || {
        let block = Block::<P>::new(config(SyncPolicy::LatestOnly, 1));
        let writer = block.writer();
        block.write(&writer).unwrap();
        let reading: Vec<_> = (0..readers)
            .map(|n| {
                let block = block.clone();
                let joined = (!late).then(|| block.reader(READER + n, Start::Newest));
                thread::spawn(move || {
                    let mut reader = joined.unwrap_or_else(|| block.reader(READER + n, Start::Newest));
                    match reader.acquire_latest(NOW) {
                        Ok(acquired) => drop(block.read(&mut reader, &acquired)),
                        Err(error) => assert!(
                            matches!(error, AcquireError::NotReady | AcquireError::QueueEmpty),
                            "{error:?}"
                        ),
                    }
                })
            })
            .collect();
        block.write(&writer);
        reading.into_iter().for_each(|reader| reader.join().unwrap());
    })
}

/// a reader that lives is evicted from a lossless ring of one while it reads.
fn eviction<P: Protocol>(preemptions: usize) -> usize {
    explore(preemptions, || {
        let block = Block::<P>::new(config(SyncPolicy::AllReaders, 1));
        let writer = block.writer();
        let mut other = block.reader(READER + 1, Start::Oldest);
        let mut reader = block.reader(READER, Start::Oldest);
        block.write(&writer).unwrap();
        let acquired = other.acquire_ordered(NOW).unwrap();
        block.read(&mut other, &acquired);
        let row = reader.ticket().row;
        let reading = block.clone();
        let reader = thread::spawn(move || {
            reading.step();
            let acquired = reader.acquire_ordered(NOW);
            reading.step();
            match acquired {
                Ok(acquired) => drop(reading.read(&mut reader, &acquired)),
                Err(error) => assert_eq!(error, AcquireError::Fenced),
            }
        });
        let evicting = block.core(DEAD - 1);
        let stepping = block.clone();
        let evictor = thread::spawn(move || {
            stepping.step();
            evicting.evict(row, NOW).unwrap();
            stepping.step();
        });
        block.step();
        block.write(&writer);
        reader.join().unwrap();
        evictor.join().unwrap();
    })
}

/// a batch of two over a ring of two while a reader may hold one of them.
fn batch<P: Protocol>() -> usize {
    explore(4, || {
        let mut config = config(SyncPolicy::AllReaders, 2);
        config.overflow = Overflow::DropOldest;
        let block = Block::<P>::new(config);
        let writer = block.writer();
        let mut reader = block.reader(READER, Start::Oldest);
        block.write(&writer).unwrap();
        block.write(&writer).unwrap();
        let reading = block.clone();
        let reader = thread::spawn(move || match reader.acquire_ordered(NOW) {
            Ok(acquired) => drop(reading.read(&mut reader, &acquired)),
            Err(error) => assert!(matches!(error, AcquireError::Lapped { .. }), "{error:?}"),
        });
        let index = || Load::load(block.memory.control64(Control64::WriteIndex), Ordering::Relaxed);
        match writer.allocate(2, NOW) {
            Ok(batch) => {
                batch.ids().for_each(|id| block.payload(id).write(id.0));
                batch.ids().for_each(|id| writer.open(id).unwrap().describe(CommitInfo::default()));
                writer.commit_open(batch).unwrap();
                assert_eq!(index(), 4);
            }
            Err(error) => {
                assert_eq!((error, index()), (AcquireError::Timeout.into(), 2), "not all or nothing");
            }
        }
        reader.join().unwrap();
        let states = (0..2).map(|id| {
            Ctl(Load::load(block.memory.slot(SlotIndex(id)).word64(Slot64::Ctl), Ordering::Relaxed))
        });
        let first = index() - 2;
        let expected = (first..first + 2).map(|id| Ctl::new(SlotId(id).tag(), SlotState::Committed));
        assert!(states.eq(expected), "not restored");
        assert_eq!([0, 1].map(|slot: usize| block.payloads[slot].read()), [first, first + 1]);
    })
}

/// the writer alternates between two slots, the reader reads twice.
fn latest<P: Protocol>() -> usize {
    explore(4, || {
        let block = Block::<P>::new(config(SyncPolicy::LatestOnly, 2));
        let writer = block.writer();
        block.write(&writer).unwrap();
        let mut reader = block.reader(READER, Start::Newest);
        let reading = block.clone();
        let reader = thread::spawn(move || {
            let mut last = None;
            for _ in 0..2 {
                match reader.acquire_latest(NOW) {
                    Ok(acquired) => {
                        let id = Some(reading.read(&mut reader, &acquired));
                        assert!(id > last, "went back");
                        last = id;
                    }
                    Err(error) => assert!(
                        matches!(error, AcquireError::NotReady | AcquireError::QueueEmpty),
                        "wrong state {error:?}"
                    ),
                }
            }
        });
        block.write(&writer);
        block.write(&writer);
        reader.join().unwrap();
    })
}

/// Rules: Q-0.
#[test]
fn q0_looking_before_saying_is_a_race() {
    assert!(breaks(&[RACE], historic));
}

/// Rules: DH-058, DH-059, Q-1.
#[test]
fn q1_a_slot_is_never_reused_under_a_reader() {
    assert!(reuse::<Shipped>(1, false, 5) > 10);
    assert!(reuse::<Shipped>(2, false, 3) > 10);
}

/// Rules: DH-058, Q-1.
#[test]
fn q1_the_fence_of_the_reader_is_needed() {
    assert!(breaks(&[RACE, "wrong bytes"], || reuse::<NoReaderFence>(1, false, 3)));
}

/// Rules: DH-058, Q-1.
#[test]
fn q1_the_fence_of_the_writer_is_needed() {
    assert!(breaks(&[RACE, "wrong bytes"], || reuse::<NoWriterFence>(1, false, 3)));
}

/// Rules: DH-059, Q-1.
#[test]
fn q1_the_release_of_the_claim_is_needed() {
    assert!(breaks(&[RACE, "wrong bytes"], || reuse::<RelaxedClaim>(1, false, 3)));
}

/// Rules: Q-2.
#[test]
fn q2_a_late_joiner_is_seen() {
    assert!(reuse::<Shipped>(1, true, 4) > 10);
}

/// Rules: Q-2.
#[test]
fn q2_the_bit_comes_before_the_claim() {
    assert!(breaks(&[RACE, "wrong bytes"], || reuse::<LateMask>(1, true, 2)));
}

/// Rules: DH-107, DH-238, Q-4.
#[test]
fn q4_an_evicted_reader_keeps_its_slot() {
    assert!(eviction::<Shipped>(4) > 10);
}

/// Rules: DH-107, Q-4.
#[test]
fn q4_the_fence_of_the_reader_is_needed() {
    assert!(breaks(&[RACE, "wrong bytes"], || eviction::<NoReaderFence>(5)));
}

/// Rules: DH-107, Q-4.
#[test]
fn q4_the_fences_of_the_writer_are_needed() {
    assert!(breaks(&[RACE, "wrong bytes"], || eviction::<NoWriterFences>(5)));
}

/// Rules: DH-238, Q-4.
#[test]
fn q4_the_state_comes_before_the_bit() {
    assert!(breaks(&["InvalidState"], || eviction::<MaskBeforeState>(5)));
}

/// Rules: DH-054, DH-124, Q-12.
#[test]
fn q12_a_batch_is_all_or_nothing() {
    assert!(batch::<Shipped>() > 10);
}

/// Rules: DH-053, Q-12.
#[test]
fn q12_the_index_comes_last() {
    assert!(breaks(&["not all or nothing"], batch::<EarlyIndex>));
}

/// Rules: DH-112, Q-13.
#[test]
fn q13_the_latest_value_is_whole_and_never_older() {
    assert!(latest::<Shipped>() > 10);
}

/// Rules: DH-064, Q-13.
#[test]
fn q13_the_tag_comes_after_the_commit() {
    assert!(breaks(&["wrong state"], latest::<EarlyLatest>));
}
