//! The resolved prefix; threads that take turns.

use tidegate_shm::sync::{Arc, Ordering, thread};

use super::{Block, Deadline, ModelReader, ModelWriter, NOW, RACE, READER, breaks, explore, mutants};
use crate::core::{
    config::SyncPolicy,
    error::AcquireError,
    plain::config,
    protocol::{Protocol, Shipped},
    registry::Start,
    words::{Control64, Load, Words},
    writer::CommitInfo,
};

mutants! {
    ByCount: PREFIX_IN_ORDER: bool = false;
    EarlyIndex: INDEX_AFTER_TAKE: bool = false;
    RelaxedCommit: COMMIT: Ordering = Ordering::Relaxed;
    RelaxedTurn: TURN: Ordering = Ordering::Relaxed;
    WakeAnyTime: TURN_UNDER_MUTEX: bool = false;
}

/// two threads commit what was allocated; a reader sees the ids in order. With `allocating`, one of them allocates
/// meanwhile, in a slot that was used before.
fn prefix<P: Protocol>(allocating: bool) -> usize {
    explore(PREEMPTIONS, move || {
        let block = Block::<P>::new(config(SyncPolicy::SingleReader, 2));
        let writer = Arc::new(block.writer());
        let mut reader = block.reader(READER, Start::Oldest);
        for _ in 0..2 {
            block.write(&writer).unwrap();
            let acquired = reader.acquire_ordered(NOW).unwrap();
            block.read(&mut reader, &acquired);
        }
        let first = writer.allocate(1, NOW).unwrap().first;
        block.payload(first).write(first.0);
        let second = (!allocating).then(|| writer.allocate(1, NOW).unwrap().first);
        let (sibling, other) = (writer.clone(), block.clone());
        let sibling = thread::spawn(move || {
            let id = second.unwrap_or_else(|| sibling.allocate(1, super::Deadline::Never).unwrap().first);
            other.payload(id).write(id.0);
            sibling.commit(id, CommitInfo::default()).unwrap();
            other.step();
        });
        let stepping = block.clone();
        let other = thread::spawn(move || {
            stepping.step();
            let result = writer.commit(first, CommitInfo::default());
            stepping.step();
            result
        });
        let mut expected = 2;
        read_on(&block, &mut reader, &mut expected);
        other.join().unwrap().unwrap();
        sibling.join().unwrap();
        read_on(&block, &mut reader, &mut expected);
        assert_eq!(expected, 4, "an id is missing");
    })
}

const PREEMPTIONS: usize = 3;

/// Two threads of a writer allocate; who comes second sleeps until the turn is given back. Commits, which wake as well, come
/// after both.
fn turns<P: Protocol>() -> usize {
    explore(PREEMPTIONS, || {
        let block = Block::<P>::new(config(SyncPolicy::LatestOnly, 2));
        let writer = Arc::new(block.writer());
        let write = |block: &Block<P>, writer: &ModelWriter<P>| {
            let id = writer.allocate(1, Deadline::Never).expect("a turn").first;
            block.payload(id).write(id.0);
            id
        };
        let (sibling, other) = (writer.clone(), block.clone());
        let sibling = thread::spawn(move || write(&other, &sibling));
        let mine = write(&block, &writer);
        let theirs = sibling.join().unwrap();
        assert_eq!(mine.0 + theirs.0, 1, "not an id for each");
        for id in [mine, theirs] {
            writer.commit(id, CommitInfo::default()).expect("a commit");
        }
        let end = Load::load(block.memory.control64(Control64::CommitIndex), Ordering::Relaxed);
        assert_eq!(end, 2, "an id is missing");
    })
}

/// Reads what there is; nothing but the end may stop it.
fn read_on<P: Protocol>(block: &Block<P>, reader: &mut ModelReader<P>, expected: &mut u64) {
    loop {
        block.step();
        match reader.acquire_ordered(NOW) {
            Ok(acquired) => {
                assert_eq!(acquired.id.0, *expected, "not in order");
                block.read(reader, &acquired);
                *expected += 1;
            }
            Err(error) => {
                assert_eq!(error, AcquireError::QueueEmpty, "unfinished");
                return;
            }
        }
    }
}

/// Rules: DH-065, Q-6.
#[test]
fn q6_ids_become_visible_in_order() {
    assert!(prefix::<Shipped>(false) > 10);
}

/// Rules: DH-065, Q-6.
#[test]
fn q6_counting_commits_is_not_enough() {
    let reports = ["not in order", "an id is missing", "unfinished", RACE];
    assert!(breaks(&reports, || prefix::<ByCount>(false)));
}

/// Another thread may publish what this one committed.
/// Rules: DH-064, Q-6.
#[test]
fn q6_the_release_of_the_commit_is_needed() {
    assert!(breaks(&[RACE, "wrong bytes"], || prefix::<RelaxedCommit>(false)));
}

/// Rules: DH-053, Q-7.
#[test]
fn q7_data_is_never_taken_for_a_hole() {
    assert!(prefix::<Shipped>(true) > 10);
}

/// Rules: DH-053, Q-7.
#[test]
fn q7_the_index_comes_after_the_slot() {
    let reports = ["not in order", "an id is missing", "unfinished", RACE];
    assert!(breaks(&reports, || prefix::<EarlyIndex>(true)));
}

/// Rules: DH-001, DH-119.
#[test]
fn threads_of_a_writer_take_turns() {
    assert!(turns::<Shipped>() > 10);
}

/// Rules: DH-001.
#[test]
fn the_release_of_the_turn_is_needed() {
    let reports = ["a turn", "a commit", "not an id for each", "an id is missing", RACE];
    assert!(breaks(&reports, turns::<RelaxedTurn>));
}

/// Rules: DH-001.
#[test]
fn who_gives_the_turn_back_wakes_under_the_mutex() {
    assert!(breaks(&["deadlock"], turns::<WakeAnyTime>));
}
