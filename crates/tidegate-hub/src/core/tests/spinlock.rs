//! Shared locks: one thread at a time in a simulated world.

use tidegate_shm::sync::{Arc, Ordering};

use super::world::{World, after, be_thread, counted, kill, now, probes, sleeps, soon, within};
use crate::core::{
    codec::LOCK_POISONED,
    config::{Deadline, Timing, WaitStrategy},
    crash::{Point, simulated::until_crash},
    host::Counter,
    plain::{Lock, Word32, key},
    spinlock::{Entered, LockWords, Spinlock, SpinlockError},
    words::{Load, Word},
};

use tidegate_shm::sync::AtomicU64;

type TestLock<'l> = Spinlock<'l, &'l AtomicU64, &'l Word32, World>;

/// The lock as process 0 or 1 sees it, with the keys 30 and 31.
fn of(lock: &Lock, process: usize) -> TestLock<'_> {
    let (wait, timing) = (WaitStrategy::Hybrid, Timing::default());
    Spinlock::new(lock.words(), &lock.doorways[process], &World, 9, key(30 + process as u64), wait, timing)
}

const CLEAN: Result<Entered, SpinlockError> = Ok(Entered { poisoned: false, taken_from: None });
const POISONED: Result<Entered, SpinlockError> = Ok(Entered { poisoned: true, taken_from: None });

fn taken_from(process: u64) -> Result<Entered, SpinlockError> {
    Ok(Entered { poisoned: true, taken_from: Some(key(process)) })
}

/// Owner, thread, recursion and flags.
fn shown(lock: &Lock) -> (u64, u32, u32, u32) {
    let LockWords { owner, owner_thread, recursion, flags, .. } = lock.words();
    let short = |word| Load::load(word, Ordering::Relaxed);
    (Load::load(owner, Ordering::Relaxed), short(owner_thread), short(recursion), short(flags))
}

/// Rules: DH-144, DH-146, Z-02.
#[test]
fn a_thread_takes_a_lock_several_times_and_gives_it_back_as_often() {
    let lock = Lock::new();
    let ours = of(&lock, 0);
    be_thread(5);
    for depth in 1..=3 {
        assert_eq!(ours.acquire(Deadline::Immediate), CLEAN);
        assert_eq!((ours.depth(), shown(&lock)), (depth, (30, 5, depth, 0)));
    }
    let generation = Load::load(lock.words().generation, Ordering::Relaxed);
    assert_eq!(generation, 1, "one acquisition");
    assert_eq!(Load::load(lock.words().acquired_ns, Ordering::Relaxed), now());
    for depth in [2, 1] {
        assert_eq!(ours.release(), Ok(()));
        assert_eq!(shown(&lock), (30, 5, depth, 0));
        let other = of(&lock, 1).acquire(Deadline::Immediate);
        assert_eq!(other, Err(SpinlockError::Timeout { holder: Some(key(30)) }));
    }
    assert_eq!(ours.release(), Ok(()));
    assert_eq!(shown(&lock), (0, 0, 0, 0));
    assert_eq!(of(&lock, 1).acquire(Deadline::Immediate), CLEAN);
}

/// Rules: DH-144.
#[test]
fn a_lock_is_not_taken_more_often_than_can_be_counted() {
    let lock = Lock::new();
    let ours = of(&lock, 0);
    be_thread(5);
    ours.acquire(Deadline::Immediate).unwrap();
    lock.doorways[0].pretend_depth(u32::MAX);
    assert_eq!(ours.acquire(Deadline::Immediate), Err(SpinlockError::InvalidState));
    be_thread(0);
    assert_eq!(ours.acquire(Deadline::Immediate), Err(SpinlockError::InvalidState));
}

/// Rules: DH-146, Z-02.
#[test]
fn only_the_thread_that_took_a_lock_gives_it_back() {
    let lock = Lock::new();
    let ours = of(&lock, 0);
    be_thread(5);
    ours.acquire(Deadline::Immediate).unwrap();
    be_thread(6);
    assert_eq!(ours.release(), Err(SpinlockError::NotOwner));
    assert_eq!(ours.clear_poison(), Err(SpinlockError::NotOwner));
    assert_eq!(of(&lock, 1).release(), Err(SpinlockError::NotOwner));
    assert_eq!(shown(&lock), (30, 5, 1, 0));
    assert_eq!(counted(Counter::LockErrors), 2);
    assert_eq!(
        ours.acquire(Deadline::Immediate),
        Err(SpinlockError::Timeout { holder: None }),
        "another thread of this process"
    );
    be_thread(5);
    assert_eq!(ours.release(), Ok(()));
}

/// A thread ended with the lock; the process lives, so nobody gets it, least of all a thread that the kernel gave the same
/// number: tickets are not the kernel's.
///
/// Rules: DH-145, DH-151, Z-03.
#[test]
fn a_new_thread_is_not_the_owner_that_ended() {
    let lock = Lock::new();
    let ours = of(&lock, 0);
    be_thread(5);
    ours.acquire(Deadline::Immediate).unwrap();
    be_thread(6);
    assert_eq!(ours.acquire(within(500)), Err(SpinlockError::Timeout { holder: None }));
    assert_eq!(shown(&lock), (30, 5, 1, 0));
}

/// Rules: DH-149, DH-150, DH-036, Z-04.
#[test]
fn a_dead_holder_loses_the_lock_and_the_next_ones_are_told() {
    let lock = Lock::new();
    be_thread(5);
    of(&lock, 1).acquire(Deadline::Immediate).unwrap();
    of(&lock, 1).acquire(Deadline::Immediate).unwrap();
    kill(31);
    let ours = of(&lock, 0);
    let started = now();
    assert_eq!(ours.acquire(soon()), taken_from(31));
    let waited = now() - started;
    assert!((50_000_000..200_000_000).contains(&waited), "{waited}");
    assert_eq!(probes(), 1, "asked once, after 50 ms");
    assert_eq!(shown(&lock), (30, 5, 1, LOCK_POISONED));
    assert_eq!(Load::load(lock.words().generation, Ordering::Relaxed), 2);
    assert_eq!(counted(Counter::LockTakeovers), 1);
    assert_eq!(ours.acquire(soon()), POISONED, "the second level, too");
    ours.release().unwrap();
    ours.release().unwrap();
    assert_eq!(ours.acquire(soon()), POISONED, "until somebody repairs");
    assert!(ours.is_poisoned());
    ours.clear_poison().unwrap();
    assert!(!ours.is_poisoned());
    ours.release().unwrap();
    assert_eq!(ours.acquire(soon()), CLEAN);
}

/// A deadline shorter than the time after which a holder is asked about is no reason to fail for ever.
///
/// Rules: DH-149.
#[test]
fn whoever_gives_up_asks_about_the_holder_first() {
    for deadline in [Deadline::Immediate, within(10)] {
        let lock = Lock::new();
        of(&lock, 1).acquire(Deadline::Immediate).unwrap();
        assert!(of(&lock, 0).acquire(deadline).is_err(), "it lives");
    }
    for deadline in [Deadline::Immediate, within(10)] {
        let lock = Lock::new();
        of(&lock, 1).acquire(Deadline::Immediate).unwrap();
        kill(31);
        assert_eq!(of(&lock, 0).acquire(deadline), taken_from(31));
        super::world::revive();
    }
}

/// Rules: DH-151, DH-035, Z-06.
#[test]
fn a_live_holder_is_never_broken() {
    let lock = Lock::new();
    be_thread(5);
    of(&lock, 1).acquire(Deadline::Immediate).unwrap();
    let hour = 3_600_000;
    let refused = of(&lock, 0).acquire(within(hour));
    assert_eq!(refused, Err(SpinlockError::Timeout { holder: Some(key(31)) }));
    assert!(refused.unwrap_err().to_string().contains("lives"));
    assert!(probes() > 30_000, "asked every 100 ms, in vain");
    assert_eq!(shown(&lock), (31, 5, 1, 0));
    assert!(sleeps().len() < 600_000, "an hour in slices, not spinning");
}

/// Who waits for a lock in the kernel is woken by its release.
///
/// Rules: DH-144.
#[test]
fn a_released_lock_is_had_by_who_waits() {
    let lock = Arc::new(Lock::new());
    be_thread(5);
    of(&lock, 1).acquire(Deadline::Immediate).unwrap();
    let held = lock.clone();
    after(300, move || of(&held, 1).release().unwrap());
    let started = now();
    assert_eq!(of(&lock, 0).acquire(soon()), CLEAN);
    assert!((300_000_000..312_000_000).contains(&(now() - started)));
    assert_eq!(super::world::wakes(), 1);
}

/// The own key in a lock that no thread of this program holds is that of the program before an exec.
///
/// Rules: DH-038.
#[test]
fn a_leftover_of_the_program_before_exec_is_taken_over() {
    let lock = Lock::new();
    be_thread(1);
    of(&lock, 0).acquire(Deadline::Immediate).unwrap();
    // The same key without the private memory, and the same number of the thread.
    let fresh = super::super::spinlock::Doorway::new();
    let (wait, timing) = (WaitStrategy::Hybrid, Timing::default());
    let after_exec: TestLock<'_> = Spinlock::new(lock.words(), &fresh, &World, 9, key(30), wait, timing);
    assert_eq!(after_exec.depth(), 0);
    assert_eq!(after_exec.acquire(soon()), taken_from(30));
    assert_eq!(after_exec.depth(), 1);
}

/// After a forced unlock the holder that comes back must not free the lock from under the next one.
///
/// Rules: DH-146.
#[test]
fn a_holder_that_lost_its_lock_frees_nobody_elses() {
    let lock = Lock::new();
    be_thread(5);
    of(&lock, 0).acquire(Deadline::Immediate).unwrap();
    Word::store(lock.words().owner, 0, Ordering::Relaxed);
    of(&lock, 1).acquire(Deadline::Immediate).unwrap();
    assert_eq!(of(&lock, 0).release(), Err(SpinlockError::NotOwner));
    assert_eq!(shown(&lock), (31, 5, 1, 0));
    assert_eq!(of(&lock, 0).depth(), 0, "and does not believe to have it");
}

/// Rules: DH-149, K-28, K-29.
#[test]
fn a_holder_that_ends_while_entering_is_taken_over() {
    for point in [Point::SpinlockOwner, Point::SpinlockDepth] {
        let lock = Lock::new();
        be_thread(5);
        assert!(until_crash(point, 1, || of(&lock, 1).acquire(Deadline::Immediate)).is_none(), "{point:?}");
        kill(31);
        assert_eq!(of(&lock, 0).acquire(soon()), taken_from(31), "{point:?}");
        super::world::revive();
    }
    // The one who takes over ends as well.
    let lock = Lock::new();
    Word::store(lock.words().owner, 77, Ordering::Relaxed);
    kill(77);
    assert!(until_crash(Point::SpinlockOwner, 1, || of(&lock, 1).acquire(soon())).is_none());
    kill(31);
    assert_eq!(of(&lock, 0).acquire(soon()), taken_from(31));
}
