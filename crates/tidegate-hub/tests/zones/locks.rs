use std::{
    mem::offset_of,
    os::unix::process::CommandExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tidegate_hub::{
    block::{Block, Role},
    config::{HubTimeouts, Timeout},
    identity::ProcessKey,
    layout::pages::{AuditEntry, LockRecord, MetricsPage, SyncPage},
    lock::{LockError, LockOutcome, LockTable},
    schema::SchemaMode,
};
use tidegate_shm::{process::ProcessId, sync::Ordering::Relaxed};

use crate::{
    Bench, Telemetry, attach_in,
    children::{Child, linger, role, say},
    soon, within, zones_of,
};

const ROUNDS: u64 = 1_000_000;

fn locks_of(block: &Arc<Block>) -> LockTable {
    LockTable::new(block, &HubTimeouts::default()).unwrap()
}

fn key_of(pid: u32) -> ProcessKey {
    let id = ProcessId::of(pid).unwrap();
    ProcessKey::new(id.pid, id.start_time).unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.pid() as i32).unwrap(), signal).unwrap();
}

/// Owner, thread, recursion, generation and takeovers.
fn shown(bench: &Bench, lock: u32) -> (u64, u32, u32, u64, u64) {
    let views = bench.block.inspector_views().unwrap();
    let row = views.locks.row(lock).unwrap();
    (
        row.u64::<{ offset_of!(LockRecord, owner) }>().load(Relaxed),
        row.u32::<{ offset_of!(LockRecord, owner_thread) }>().load(Relaxed),
        row.u32::<{ offset_of!(LockRecord, recursion) }>().load(Relaxed),
        row.u64::<{ offset_of!(LockRecord, generation) }>().load(Relaxed),
        views.metrics.row().u64::<{ offset_of!(MetricsPage, lock_takeovers) }>().load(Relaxed),
    )
}

/// Holds the lock "robot" until killed.
fn holder(dir: &Path) {
    let locks = locks_of(&attach_in(dir, Role::Consumer));
    let lock = locks.alloc_lock("robot", soon()).unwrap();
    let _guard = lock.acquire(soon()).unwrap();
    let _deeper = lock.acquire(soon()).unwrap();
    say("held");
    linger();
}

/// Two processes add to a plain value, one of them with two threads.
///
/// Rules: DH-144, DH-146, DH-138, Z-01.
#[test]
fn nothing_is_lost_under_a_lock() {
    fn add(dir: &Path, rounds: u64) {
        let block = attach_in(dir, Role::Consumer);
        let zones = zones_of(&block);
        let zone = zones.zone::<Telemetry>(0, SchemaMode::Strict).unwrap();
        for _ in 0..rounds {
            let outcome = zone.guard(soon()).unwrap();
            assert!(!outcome.is_recovered());
            let guard = outcome.into_guard();
            let sum = guard.fields().unwrap().sum();
            sum.store(&(sum.load() + 1));
        }
    }
    if let Some(dir) = role("adder") {
        say("ready");
        return add(&dir, ROUNDS);
    }
    let bench = Bench::new();
    let mut other = Child::start("locks::nothing_is_lost_under_a_lock", "adder", bench.path());
    other.wait_for("ready");
    thread::scope(|scope| {
        scope.spawn(|| add(bench.path(), ROUNDS / 2));
        add(bench.path(), ROUNDS / 2);
    });
    other.succeed();
    let zones = zones_of(&bench.block);
    let zone = zones.zone::<Telemetry>(0, SchemaMode::Strict).unwrap();
    assert_eq!(zone.snapshot(soon()).unwrap().sum.into_inner(), 2 * ROUNDS);
    let (owner, thread, recursion, generation, takeovers) = shown(&bench, 0);
    assert_eq!((owner, thread, recursion, generation, takeovers), (0, 0, 0, 2 * ROUNDS, 0));
}

/// Rules: DH-144, DH-145, DH-146, DH-147, Z-02, N-27.
#[test]
fn a_lock_belongs_to_a_thread_and_is_given_back_by_a_panic() {
    let bench = Bench::new();
    // Two attachments of one process are one holder.
    let [locks, others] = [&bench.block, &bench.attach(Role::Consumer)].map(locks_of);
    let lock = locks.alloc_lock("robot", soon()).unwrap();
    assert_eq!((lock.index(), others.alloc_lock("robot", soon()).unwrap().index()), (8, 8));
    let guard = lock.acquire(Timeout::Immediate).unwrap().into_guard();
    let same = others.find_lock("robot", soon()).unwrap().unwrap();
    let deeper = same.acquire(Timeout::Immediate).unwrap().into_guard();
    assert_eq!((guard.depth(), deeper.depth(), shown(&bench, 8).2), (2, 2, 2));
    thread::scope(|scope| {
        let refused = scope.spawn(|| lock.acquire(within(Duration::from_millis(20))).map(drop));
        let error = refused.join().unwrap().unwrap_err();
        assert!(matches!(error, LockError::Timeout { index: 8, .. }) && error.code() == 401, "{error}");
    });
    drop(guard);
    assert_eq!(shown(&bench, 8).0, bench.block.own_key().word());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _inner = lock.acquire(Timeout::Immediate).unwrap();
        panic!("while holding");
    }));
    assert!(panicked.is_err());
    assert_eq!(deeper.depth(), 1);
    deeper.release().unwrap();
    assert_eq!(shown(&bench, 8).0, 0);
    let had = thread::scope(|scope| {
        scope.spawn(|| lock.acquire(Timeout::Immediate).map(|outcome| outcome.is_recovered())).join()
    });
    assert!(matches!(had.unwrap(), Ok(false)));
}

/// Rules: DH-149, DH-150, Z-04.
#[test]
fn the_lock_of_a_killed_process_is_recovered() {
    if let Some(dir) = role("holder") {
        return holder(&dir);
    }
    let bench = Bench::new();
    let mut child = Child::start("locks::the_lock_of_a_killed_process_is_recovered", "holder", bench.path());
    child.wait_for("held");
    let dead = key_of(child.pid());
    assert_eq!((shown(&bench, 8).0, shown(&bench, 8).2), (dead.word(), 2));
    let locks = locks_of(&bench.block);
    let lock = locks.find_lock("robot", soon()).unwrap().unwrap();
    thread::scope(|scope| {
        // Waits already when the holder dies.
        let waiter = scope.spawn(|| lock.acquire(soon()).map(|outcome| outcome.is_recovered()));
        child.kill();
        assert!(waiter.join().unwrap().unwrap(), "the waiter was not told");
    });
    assert_eq!(shown(&bench, 8).4, 1);
    let LockOutcome::Recovered(guard) = lock.acquire(Timeout::Immediate).unwrap() else {
        panic!("poison was forgotten")
    };
    assert!(guard.is_poisoned());
    guard.clear_poison().unwrap();
    drop(guard);
    assert!(matches!(lock.acquire(Timeout::Immediate).unwrap(), LockOutcome::Acquired(_)));
    // The audit ring says who took it from whom.
    let views = bench.block.inspector_views().unwrap();
    let count = views.sync.row().u64::<{ offset_of!(SyncPage, audit_seq) }>().load(Relaxed);
    let at = bench.block.descriptor().geometry.sync().offset + offset_of!(SyncPage, audit) as u64;
    let entry = bench.block.region().record::<64>(at + 64 * (count - 1)).unwrap();
    let word =
        |offset: u64| bench.block.region().atomic_u64(at + 64 * (count - 1) + offset).unwrap().load(Relaxed);
    assert_eq!(entry.row().u32::<{ offset_of!(AuditEntry, operation) }>().load(Relaxed), 7);
    assert_eq!(word(offset_of!(AuditEntry, target) as u64), 8);
    assert_eq!(word(offset_of!(AuditEntry, before) as u64), dead.word());
    assert_eq!(word(offset_of!(AuditEntry, after) as u64), bench.block.own_key().word());
}

/// Rules: DH-149, Z-05.
#[test]
fn one_of_several_waiters_takes_over() {
    if let Some(dir) = role("holder") {
        return holder(&dir);
    }
    if let Some(dir) = role("waiter") {
        let locks = locks_of(&attach_in(&dir, Role::Consumer));
        let lock = locks.find_lock("robot", soon()).unwrap().unwrap();
        say("waiting");
        let outcome = lock.acquire(soon()).unwrap();
        return say(&format!("had {}", outcome.is_recovered()));
    }
    let test = "locks::one_of_several_waiters_takes_over";
    let bench = Bench::new();
    let mut child = Child::start(test, "holder", bench.path());
    child.wait_for("held");
    let mut waiters = [(); 2].map(|()| Child::start(test, "waiter", bench.path()));
    waiters.iter_mut().for_each(|waiter| drop(waiter.wait_for("waiting")));
    child.kill();
    for mut waiter in waiters {
        assert_eq!(waiter.wait_for("had"), "true");
        waiter.succeed();
    }
    let (owner, .., generation, takeovers) = shown(&bench, 8);
    assert_eq!((owner, generation, takeovers), (0, 3, 1));
}

/// Rules: DH-151, DH-035, Z-06.
#[test]
fn the_lock_of_a_stopped_process_is_not_broken() {
    if let Some(dir) = role("holder") {
        return holder(&dir);
    }
    let bench = Bench::new();
    let test = "locks::the_lock_of_a_stopped_process_is_not_broken";
    let mut child = Child::start(test, "holder", bench.path());
    child.wait_for("held");
    let key = key_of(child.pid());
    signal(&child, Signal::STOP);
    let locks = locks_of(&bench.block);
    let lock = locks.find_lock("robot", soon()).unwrap().unwrap();
    // Long enough to ask several times whether it lives.
    for deadline in [Timeout::Immediate, within(Duration::from_millis(400))] {
        let error = lock.acquire(deadline).unwrap_err();
        assert!(matches!(error, LockError::Timeout { .. }), "{error}");
        assert!(error.to_string().contains(&key.to_string()), "{error}");
        assert_eq!((shown(&bench, 8).0, shown(&bench, 8).4), (key.word(), 0));
    }
    signal(&child, Signal::KILL);
    assert!(lock.acquire(soon()).unwrap().is_recovered());
}

/// Another program in the same process: it has the key that holds the lock, and the same first thread, but not the lock.
///
/// Rules: DH-038.
#[test]
fn the_lock_of_the_program_before_exec_is_recovered() {
    let test = "locks::the_lock_of_the_program_before_exec_is_recovered";
    if let Some(dir) = role("before") {
        let locks = locks_of(&attach_in(&dir, Role::Consumer));
        let guard = locks.alloc_lock("robot", soon()).unwrap().acquire(soon()).unwrap();
        let failed = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env("TIDEGATE_TEST_ROLE", "after")
            .exec();
        drop(guard);
        panic!("{failed}");
    }
    if let Some(dir) = role("after") {
        let locks = locks_of(&attach_in(&dir, Role::Consumer));
        let lock = locks.find_lock("robot", soon()).unwrap().unwrap();
        let outcome = lock.acquire(soon()).unwrap();
        let recovered = outcome.is_recovered();
        let depth = outcome.into_guard().depth();
        return say(&format!("had {recovered} {depth}"));
    }
    let bench = Bench::new();
    let mut child = Child::start(test, "before", bench.path());
    assert_eq!(child.wait_for("had"), "true 1");
    child.succeed();
    assert_eq!((shown(&bench, 8).0, shown(&bench, 8).4), (0, 1));
}

/// Locks 10 to 31 and 8; 9 belongs to a zone.
///
/// Rules: DH-143, Z-07.
#[test]
fn labels_name_locks_until_there_are_none_left() {
    let bench = Bench::new();
    let locks = locks_of(&bench.block);
    let labels: Vec<String> = (0..23).map(|number| format!("lock {number}")).collect();
    let indices: Vec<u32> =
        labels.iter().map(|label| locks.alloc_lock(label, soon()).unwrap().index()).collect();
    let expected: Vec<u32> = [8].into_iter().chain(10..32).collect();
    assert_eq!(indices, expected);
    let error = locks.alloc_lock("one more", soon()).unwrap_err();
    assert!(matches!(error, LockError::NoLockAvailable) && error.code() == 403);
    assert_eq!(locks.alloc_lock("lock 5", soon()).unwrap().index(), indices[5], "it exists");
    assert!(locks.find_lock("one more", soon()).unwrap().is_none());

    let fifth = locks.find_lock("lock 5", soon()).unwrap().unwrap();
    let guard = fifth.acquire(soon()).unwrap().into_guard();
    let deeper = fifth.acquire(soon()).unwrap().into_guard();
    let error = locks.free_lock(deeper, soon()).unwrap_err();
    assert!(matches!(error, LockError::HeldDeeper { depth: 2, .. }), "{error}");
    locks.free_lock(guard, soon()).unwrap();
    assert_eq!(shown(&bench, fifth.index()).0, 0);
    assert_eq!(locks.alloc_lock("one more", soon()).unwrap().index(), fifth.index());
    let gone = fifth.acquire(soon()).unwrap_err();
    assert!(matches!(gone, LockError::Freed { .. }), "{gone}");
    assert_eq!(shown(&bench, fifth.index()).0, 0, "whoever found out gave it back");

    let of_zone = locks.of_zone(3).unwrap();
    assert_eq!(of_zone.index(), 9);
    let guard = of_zone.acquire(soon()).unwrap().into_guard();
    assert!(matches!(locks.free_lock(guard, soon()), Err(LockError::NotUsers { index: 9 })));
    assert_eq!(shown(&bench, 9).0, 0);
    for label in ["", "seventeen bytes !", "zero\0"] {
        assert!(matches!(locks.alloc_lock(label, soon()), Err(LockError::BadLabel { .. })), "{label:?}");
    }
    assert!(LockTable::new(&bench.attach(Role::Inspector), &HubTimeouts::default()).is_err());
}

/// Rules: DH-149, DH-298, K-28, K-29.
#[test]
fn a_process_killed_while_entering_loses_the_lock() {
    use std::os::unix::process::ExitStatusExt;

    if let Some(dir) = role("victim") {
        let locks = locks_of(&attach_in(&dir, Role::Consumer));
        drop(locks.alloc_lock("robot", soon()).unwrap().acquire(soon()));
        return;
    }
    for point in ["k.owner", "k.depth"] {
        let bench = Bench::new();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "locks::a_process_killed_while_entering_loses_the_lock", "--nocapture"])
            .env("TIDEGATE_TEST_ROLE", "victim")
            .env("TIDEGATE_TEST_PLACE", bench.path())
            .env("TIDEGATE_HUB_CRASH_AT", point)
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{point}");
        assert_ne!(shown(&bench, 8).0, 0, "{point}: it had the lock");
        let locks = locks_of(&bench.block);
        let lock = locks.find_lock("robot", soon()).unwrap().unwrap();
        assert!(lock.acquire(soon()).unwrap().is_recovered(), "{point}");
        assert_eq!(shown(&bench, 8).4, 1, "{point}");
    }
}
