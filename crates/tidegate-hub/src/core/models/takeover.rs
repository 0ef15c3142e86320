//! Taking over from others.

use tidegate_shm::sync::{Arc, CheckedCell, Ordering, thread};

use super::{Block, DEAD, NOW, RACE, READER, WRITER, breaks, explore, mutants};
use crate::core::{
    TakeOver,
    codec::{Ctl, SlotIndex, SlotState},
    config::SyncPolicy,
    plain::{config, key},
    protocol::{Protocol, Shipped},
    registry::Start,
    words::{Load, Slot64, SlotWords, Sync64, Word, Words},
    writer::CommitInfo,
};

mutants! {
    TakeoverByStore: TAKEOVER_BY_EXCHANGE: bool = false;
    CommitByStore: COMMIT_BY_EXCHANGE: bool = false;
    TakeAnything: TAKE_AS_RESERVED: bool = false;
}

/// two contenders for the maintenance lock of a dead holder.
fn lock<P: Protocol>() -> usize {
    explore(5, || {
        let block = Block::<P>::new(config(SyncPolicy::LatestOnly, 1));
        Word::store(block.memory.sync64(Sync64::LockOwner), DEAD, Ordering::Relaxed);
        let guarded = Arc::new(CheckedCell::new(0));
        let work = |process: u64| {
            let (core, guarded) = (block.core(process), guarded.clone());
            // Without the lock at once, the other one has it.
            move || {
                let result = core.locked(NOW, || {
                    guarded.write(guarded.read() + 1);
                    Ok(())
                });
                result.is_ok()
            }
        };
        let other = thread::spawn(work(READER));
        let mine = work(READER + 1)();
        let theirs = other.join().unwrap();
        assert!(mine || theirs, "nobody took over");
    })
}

/// a writer commits while another takes its place by force.
fn seizure<P: Protocol>() -> usize {
    explore(5, || {
        let block = Block::<P>::new(config(SyncPolicy::LatestOnly, 1));
        let writer = block.writer();
        let id = writer.allocate(1, NOW).unwrap().first;
        let core = block.core(READER);
        let committing = thread::spawn(move || writer.commit(id, CommitInfo::default()).is_ok());
        let seized = core.adopt(TakeOver::Seize(key(WRITER)), NOW).unwrap();
        let committed = committing.join().unwrap();
        assert_eq!(committed, seized.abandoned == 0, "both won or none did");
        let ctl = Ctl(Load::load(block.memory.slot(SlotIndex(0)).word64(Slot64::Ctl), Ordering::Relaxed));
        let expected = if committed { SlotState::Committed } else { SlotState::Quarantined };
        assert_eq!(ctl, Ctl::new(1, expected), "both won or none did");
    })
}

/// A writer is displaced by force while it allocates; its old value becomes readable again, and a consumer reads it.
fn seizure_while_allocating<P: Protocol>() -> usize {
    explore(3, || {
        let block = Block::<P>::new(config(SyncPolicy::LatestOnly, 1));
        let writer = block.writer();
        block.write(&writer).unwrap();
        let mut reader = block.reader(READER, Start::Newest);
        let seizing = block.core(READER + 1);
        let reading = block.clone();
        let seizer = thread::spawn(move || {
            seizing.adopt(TakeOver::Seize(key(WRITER)), NOW).unwrap();
            if let Ok(acquired) = reader.acquire_latest(NOW) {
                reading.read(&mut reader, &acquired);
            }
        });
        if let Ok(allocation) = writer.allocate(1, NOW) {
            block.payload(allocation.first).write(allocation.first.0);
            let _ = writer.commit(allocation.first, CommitInfo::default());
        }
        seizer.join().unwrap();
    })
}

/// Rules: DH-149, DH-152, Q-8.
#[test]
fn q8_one_takes_over_from_the_dead() {
    assert!(lock::<Shipped>() > 10);
}

/// Rules: DH-149, Q-8.
#[test]
fn q8_takeover_is_an_exchange() {
    assert!(breaks(&[RACE], lock::<TakeoverByStore>));
}

/// Rules: DH-044, DH-045, Q-9.
#[test]
fn q9_either_the_commit_or_the_seizure_wins() {
    assert!(seizure::<Shipped>() > 10);
}

/// Rules: DH-045, Q-9.
#[test]
fn q9_a_commit_is_an_exchange() {
    assert!(breaks(&["both won or none did"], seizure::<CommitByStore>));
}

/// Rules: DH-258, Q-9.
#[test]
fn q9_a_writer_that_is_displaced_while_it_allocates_takes_nothing_that_is_read() {
    assert!(seizure_while_allocating::<Shipped>() > 10);
}

/// Rules: DH-258, Q-9.
#[test]
fn q9_only_what_was_reserved_is_taken() {
    assert!(breaks(&[RACE, "wrong bytes"], seizure_while_allocating::<TakeAnything>));
}
