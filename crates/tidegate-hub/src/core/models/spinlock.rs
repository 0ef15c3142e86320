//! Shared locks between processes, between threads of one process, and after a death: Q-8.

use tidegate_shm::{
    clock::Nanos,
    sync::{Arc, CheckedCell, Condvar, MutexGuard, Ordering, thread},
};

use super::{DEAD, NOW, RACE, Still, breaks, explore, mutants};
use crate::core::{
    codec::ProcessKey,
    config::{Timing, WaitStrategy},
    host::{AuditEvent, Counter, Counters, ErrorKind, Host, Liveness, Place},
    plain::{Lock, key},
    protocol::{Protocol, Shipped},
    spinlock::{Entered, Spinlock},
    words::{Load, Word},
};

mutants! {
    LockRelaxed: LOCK: Ordering = Ordering::Relaxed;
    UnlockRelaxed: UNLOCK: Ordering = Ordering::Relaxed;
    NoDoorway: DOORWAY: bool = false;
    TakeoverByStore: TAKEOVER_BY_EXCHANGE: bool = false;
}

/// A thread with a number.
struct Numbered(u32);

impl Host for Numbered {
    fn now(&self) -> Nanos {
        Still.now()
    }
    fn pause(&self) {
        Still.pause();
    }
    fn sleep(&self, time: Nanos) {
        Still.sleep(time);
    }
    fn park<'a, T>(&self, condition: &Condvar, guard: MutexGuard<'a, T>, time: Nanos) -> MutexGuard<'a, T> {
        Still.park(condition, guard, time)
    }
    fn liveness(&self, key: ProcessKey, place: Place) -> Liveness {
        Still.liveness(key, place)
    }
    fn hold(&self, _: Place) -> bool {
        true
    }
    fn release(&self, _: Place) {}
    fn thread_ticket(&self) -> u32 {
        self.0
    }
}

impl Counters for Numbered {
    fn count(&self, _: Counter, _: u64) {}
    fn peak(&self, _: Counter, _: u64) {}
    fn error(&self, _: ErrorKind) {}
    fn audit(&self, _: AuditEvent) {}
}

/// Two threads, numbers 1 and 2, take a lock once if they get it at once; `process` says whose they are. Says how each
/// entered.
fn contend<P: Protocol>(owner: u64, process: fn(u32) -> usize) -> usize {
    explore(5, move || {
        let lock = Arc::new(Lock::new());
        let guarded = Arc::new(CheckedCell::new(0));
        Word::store(lock.words().owner, owner, Ordering::Relaxed);
        let work = |number: u32| {
            let (lock, guarded) = (lock.clone(), guarded.clone());
            move || {
                let (process, host) = (process(number), Numbered(number));
                let (wait, timing) = (WaitStrategy::Hybrid, Timing::default());
                let own = key(1 + process as u64);
                let doorway = &lock.doorways[process];
                let lock = Spinlock::<_, _, _, P>::new(lock.words(), doorway, &host, 0, own, wait, timing);
                let entered = lock.acquire(NOW).ok()?;
                guarded.write(guarded.read() + 1);
                if lock.release().is_err() {
                    panic!("two had it");
                }
                Some(entered)
            }
        };
        let other = thread::spawn(work(1));
        let mine = work(2)();
        let theirs = other.join().unwrap();
        let entered: Vec<Entered> = [mine, theirs].into_iter().flatten().collect();
        assert!(!entered.is_empty(), "nobody had it");
        assert!(entered.iter().all(|found| found.poisoned == (owner >= DEAD)), "poison was lost");
        let takeovers = entered.iter().filter(|found| found.taken_from.is_some()).count();
        assert_eq!(takeovers, usize::from(owner >= DEAD), "two had it");
        assert_eq!(guarded.read(), entered.len() as u64);
        assert_eq!(Load::load(lock.words().owner, Ordering::Relaxed), 0);
    })
}

fn two_processes(number: u32) -> usize {
    number as usize - 1
}

fn one_process(_: u32) -> usize {
    0
}

/// Rules: DH-144, DH-146.
#[test]
fn one_process_at_a_time_has_a_lock() {
    assert!(contend::<Shipped>(0, two_processes) > 10);
}

/// Rules: DH-144.
#[test]
fn taking_a_lock_acquires() {
    assert!(breaks(&[RACE], || contend::<LockRelaxed>(0, two_processes)));
}

/// Rules: DH-146.
#[test]
fn giving_a_lock_back_releases() {
    assert!(breaks(&[RACE], || contend::<UnlockRelaxed>(0, two_processes)));
}

/// Rules: DH-144.
#[test]
fn one_thread_at_a_time_has_a_lock() {
    assert!(contend::<Shipped>(0, one_process) > 10);
}

/// Rules: DH-144.
#[test]
fn the_doorway_keeps_threads_of_a_process_apart() {
    assert!(breaks(&[RACE, "two had it", "poison was lost"], || contend::<NoDoorway>(0, one_process)));
}

/// Rules: DH-149, Z-05.
#[test]
fn q8_one_of_two_takes_a_lock_over() {
    assert!(contend::<Shipped>(DEAD, two_processes) > 10);
}

/// Rules: DH-149, Z-05.
#[test]
fn q8_the_takeover_of_a_lock_is_an_exchange() {
    assert!(breaks(&[RACE, "two had it"], || contend::<TakeoverByStore>(DEAD, two_processes)));
}
