//! The fence in segment F, as the runtime and a worker see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use tidegate_shm::{clock::boottime_now, region::SealedMemory};
use tidegate_udf::{
    segment::{FenceView, Link, OwnSegment, PeerSegment},
    wire::{
        ids::{FenceSlot, PartitionId},
        segment::{BELL_AT, SEGMENT_HEADER},
    },
};

use super::*;

fn worker_view(table: &FenceTable, slots: u32) -> FenceView {
    use std::os::fd::AsFd;
    let memory = SealedMemory::receive(table.memory().as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert!(memory.has_sealed_writers().unwrap());
    FenceView::new(&memory.map(0..0).unwrap(), slots).unwrap()
}

/// Cases: CT-25.
/// Rules: VX-110, VX-230, VX-720, VX-721.
#[test]
fn one_store_ends_the_right_in_both_processes() {
    let mut table = FenceTable::create(1, 2).unwrap();
    let (slot, guard) = table.bind(PartitionId(7), Generation(5)).unwrap();
    let view = worker_view(&table, 2);
    let current = |generation, partition| {
        view.is_current(slot, Generation(generation), PartitionId(partition), boottime_now())
    };
    assert!(current(5, 7));
    assert!(!current(4, 7) && !current(6, 7) && !current(5, 8), "another generation or partition");
    assert!(!view.is_current(FenceSlot(1), Generation(5), PartitionId(7), boottime_now()), "a free slot");
    assert!(!view.is_current(FenceSlot(2), Generation(5), PartitionId(7), boottime_now()), "no slot");
    let permit = guard.permit(WriteKind::Sink).unwrap();
    assert!(permit.is_current());
    guard.revoke(Reason::Operator);
    assert!(!permit.is_current() && !current(5, 7));
    assert_eq!(guard.permit(WriteKind::Sink).unwrap_err(), Fenced { generation: Generation(5) });
    assert_eq!(table.refused().map(|(_, count)| count), [0, 0, 0, 1, 0]);
    let Quiesce::Pending(running) = guard.quiesce(|| false) else { panic!("the write is not over") };
    assert_eq!((running.total(), running.of(WriteKind::Sink)), (1, 1));
    assert_eq!(running.to_string(), "1 sink");
    drop(permit);
    assert_eq!(guard.quiesce(|| false), Quiesce::Quiesced);
}

/// Rules: VX-110, VX-729.
#[test]
fn a_slot_belongs_to_one_partition_and_its_word_to_one_session() {
    let mut table = FenceTable::create(1, 2).unwrap();
    let (slot, first) = table.bind(PartitionId(1), Generation(1)).unwrap();
    let (other, _) = table.bind(PartitionId(2), Generation(1)).unwrap();
    assert_ne!(slot, other);
    assert!(matches!(table.bind(PartitionId(3), Generation(1)), Err(FenceError::NoSlot { slots: 2 })));
    first.revoke(Reason::Operator);
    let (again, second) = table.bind(PartitionId(1), Generation(2)).unwrap();
    assert_eq!(slot, again);
    assert!(first.permit(WriteKind::Sink).is_err() && second.permit(WriteKind::Sink).is_ok());
    first.revoke(Reason::Operator);
    assert!(second.permit(WriteKind::Sink).is_ok(), "an old session took the right of the new one");
}

/// A lease that ran out ends the right, whoever notices first.
/// Rules: VX-721.
#[test]
fn an_expired_lease_revokes() {
    #[derive(Clone)]
    struct Expired(Arc<tidegate_shm::sync::AtomicU64>);
    impl FenceWords for Expired {
        fn word(&self, order: Ordering) -> u64 {
            self.0.load(order)
        }
        fn exchange(&self, current: u64, new: u64, order: Ordering) -> bool {
            self.0.compare_exchange(current, new, order, Ordering::Acquire).is_ok()
        }
        fn deadline(&self) -> Nanos {
            Nanos(10)
        }
        fn note(&self, reason: Reason, at: Nanos) {
            assert_eq!((reason, at), (Reason::LeaseExpired, Nanos(10)));
        }
    }
    let word = Arc::new(tidegate_shm::sync::AtomicU64::new(5));
    let early: Guard<_> = Guard::new(Expired(word.clone()), Generation(5), || Nanos(9));
    drop(early.permit(WriteKind::Sink).unwrap());
    let late: Guard<_> = Guard::new(Expired(word), Generation(5), || Nanos(10));
    assert!(late.permit(WriteKind::Sink).is_err() && early.permit(WriteKind::Sink).is_err());
}

/// Whoever looks at F sees why and when a partition was fenced, also after a second revoke.
/// Rules: VX-724.
#[test]
fn the_first_reason_is_noted() {
    let mut table = FenceTable::create(1, 1).unwrap();
    let (slot, guard) = table.bind(PartitionId(0), Generation(1)).unwrap();
    let memory = table.memory().map(0..0).unwrap();
    let at = 4096 + 64 * u64::from(slot.0);
    let noted = || {
        let reason = memory.atomic_u32(at + 0x1C).unwrap().load(Ordering::Acquire);
        (reason, memory.atomic_u64(at + 0x20).unwrap().load(Ordering::Acquire))
    };
    assert_eq!(noted(), (0, 0));
    let before = boottime_now().0;
    guard.revoke(Reason::SinkRefused);
    let (reason, time) = noted();
    assert_eq!(reason, 8);
    assert!((before..=boottime_now().0).contains(&time), "{time}");
    guard.revoke(Reason::Operator);
    assert_eq!(noted(), (reason, time));
}

/// One partition is revoked and given to a new session over and over, while writers of the session before go on: none of them
/// writes after it was quiesced.
/// Cases: CT-29.
/// Rules: VX-725, VX-728, VX-729.
#[test]
fn nothing_is_written_after_quiesced() {
    use tidegate_shm::sync::{AtomicBool, AtomicU64, Mutex};
    const SESSIONS: u64 = 20_000;
    let mut table = FenceTable::create(1, 1).unwrap();
    let (_, first) = table.bind(PartitionId(0), Generation(1)).unwrap();
    let (current, over) = (Mutex::new(first), AtomicBool::new(false));
    // The newest session that was quiesced, and the newest that has written.
    let (quiesced, written, writes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // Used for some writes, whatever became of it meanwhile.
                    let guard = current.lock().unwrap().clone();
                    for _ in 0..3 {
                        let Ok(permit) = guard.permit(WriteKind::Sink) else { break };
                        let own = guard.generation().0;
                        assert!(quiesced.load(Ordering::Acquire) < own, "session {own} writes");
                        written.fetch_max(own, Ordering::Relaxed);
                        writes.fetch_add(1, Ordering::Relaxed);
                        drop(permit);
                    }
                }
            });
        }
        // On a busy machine the writers may come late.
        let enough = |session| session > SESSIONS && writes.load(Ordering::Relaxed) > 100;
        for session in (1..).take_while(|session| !enough(*session)) {
            let guard = current.lock().unwrap().clone();
            guard.revoke(Reason::RevokedByManager);
            assert_eq!(guard.quiesce(|| true), Quiesce::Quiesced);
            quiesced.store(session, Ordering::Release);
            assert!(written.load(Ordering::Relaxed) <= session);
            let (_, next) = table.bind(PartitionId(0), Generation(session + 1)).unwrap();
            *current.lock().unwrap() = next;
        }
        over.store(true, Ordering::Relaxed);
    });
}

fn link() -> Link {
    let memory = SealedMemory::create("tidegate-test", 2 * SEGMENT_HEADER).unwrap();
    let region = memory.map(0..memory.len()).unwrap();
    let own = OwnSegment::new(&region, SEGMENT_HEADER).unwrap();
    Link { own, peer: PeerSegment::new(&region, SEGMENT_HEADER).unwrap() }
}

fn rings(link: &Link) -> u32 {
    link.own.header().u32::<BELL_AT>().load(Ordering::Relaxed)
}

/// Every worker there is, and each revoke once: an old guard rings nobody.
/// Rules: VX-724.
#[test]
fn a_revoke_rings_the_bells_of_all_sessions_that_there_are() {
    let mut table = FenceTable::create(1, 1).unwrap();
    let (_, guard) = table.bind(PartitionId(0), Generation(1)).unwrap();
    let (first, second) = (link(), link());
    let hung = [&first, &second].map(|link| table.bells().hang(link.clone()));
    guard.revoke(Reason::Operator);
    assert_eq!((rings(&first), rings(&second)), (1, 1));
    guard.revoke(Reason::Shutdown);
    assert_eq!((rings(&first), rings(&second)), (1, 1), "revoked already");
    let [of_first, _of_second] = hung;
    drop(of_first);
    let (_, guard) = table.bind(PartitionId(0), Generation(2)).unwrap();
    guard.revoke(Reason::Operator);
    assert_eq!((rings(&first), rings(&second)), (1, 2), "a session that is over");
}
