//! The doorbell between real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod children;

use std::{path::Path, time::Duration};

use children::{Child, PATIENCE, linger, role, say};
use rustix::{
    thread::{SecureComputingMode, gettid, set_secure_computing_mode},
    time::{ClockId, clock_gettime},
};
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    doorbell::{Ringer, Waited, Waiter},
    process::{ProcessHandle, ProcessId},
    region::{
        Access, AllowedBases, CreateOptions, HugePages, PermissionPolicy, Region, RegionDir, RegionMut,
        create_region,
    },
    sync::Ordering,
};

// Words of the two regions: one written by the ringing side, one by the waiting side.
const BELL: u64 = 0;
const CHANGE: u64 = 8;
const WAITERS: u64 = 0;
// The number of waiters, where one region has both a bell and waiters.
const COUNT: u64 = 4;

fn create(place: &Path, name: &str) -> RegionMut {
    create_region(&RegionDir::open_base(place).unwrap(), name, &CreateOptions::new(4096)).unwrap()
}

fn open(place: &Path, name: &str) -> Region {
    let (bases, _) = AllowedBases::new([place]);
    let policy = PermissionPolicy::default();
    let file = bases.open(&place.join(name), Access::ReadOnly, &policy, HugePages::NotRequired).unwrap();
    file.map(4096).unwrap()
}

fn open_mut(place: &Path, name: &str) -> RegionMut {
    let (bases, _) = AllowedBases::new([place]);
    let policy = PermissionPolicy::default();
    let file = bases.open(&place.join(name), Access::ReadWrite, &policy, HugePages::NotRequired).unwrap();
    file.map_mut(4096).unwrap()
}

fn soon(duration: Duration) -> Nanos {
    monotonic_now().saturating_add(duration.into())
}

/// Waits until somebody is registered as waiting, which the other side does just before it sleeps.
fn until_somebody_waits(waiters: &Region) {
    let deadline = soon(PATIENCE);
    while waiters.atomic_u32(WAITERS).unwrap().load(Ordering::Acquire) == 0 {
        assert!(monotonic_now() < deadline, "nobody waits");
        std::thread::yield_now();
    }
}

/// Each side maps the other's region read-only, so every word is written by one process. The bells pass their greatest value
/// half way.
/// Cases: CT-13, CT-14.
/// Rules: VX-320, VX-321, VX-323, DH-077.
#[test]
fn two_processes_wake_each_other_without_losing_one_ring() {
    const ROUNDS: u64 = 20_000;
    fn play(own: &RegionMut, other: &Region, serves: bool) {
        let ringer = Ringer::new(own.atomic_u32(BELL).unwrap(), other.atomic_u32(COUNT).unwrap());
        let waiter = Waiter::new(other.atomic_u32(BELL).unwrap(), own.atomic_u32(COUNT).unwrap());
        let (mine, theirs) = (own.atomic_u64(CHANGE).unwrap(), other.atomic_u64(CHANGE).unwrap());
        let wait_for = |round| {
            let ready = || theirs.load(Ordering::Relaxed) == round;
            assert!(waiter.wait_until(soon(PATIENCE), ready), "the ring of round {round} was lost");
        };
        for round in 1..=ROUNDS {
            if !serves {
                wait_for(round);
            }
            mine.store(round, Ordering::Relaxed);
            ringer.ring();
            if serves {
                wait_for(round);
            }
        }
    }
    if let Some(place) = role("pong") {
        return play(&open_mut(&place, "pong"), &open(&place, "ping"), false);
    }
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let (ping, pong) = (create(place.path(), "ping"), create(place.path(), "pong"));
    for region in [&ping, &pong] {
        region.atomic_u32(BELL).unwrap().store(u32::MAX - ROUNDS as u32 / 2, Ordering::Relaxed);
    }
    let child = Child::start("two_processes_wake_each_other_without_losing_one_ring", "pong", place.path());
    play(&ping, &pong, true);
    child.succeed();
}

/// The child's thread forbids itself all system calls: the kernel ends it at the first one. It rings, notes that it
/// got so far, and ends by its next call.
/// Rules: VX-320.
#[test]
fn ringing_makes_a_system_call_only_when_somebody_waits() {
    if let Some(place) = role("ringer") {
        let (bell, waiters) = (open_mut(&place, "bell"), open(&place, "waiters"));
        let ringer = Ringer::new(bell.atomic_u32(BELL).unwrap(), waiters.atomic_u32(WAITERS).unwrap());
        let done = bell.atomic_u64(CHANGE).unwrap();
        say(&format!("thread {}", gettid()));
        set_secure_computing_mode(SecureComputingMode::Strict).unwrap();
        for _ in 0..1000 {
            ringer.ring();
        }
        done.store(1, Ordering::Relaxed);
        return linger();
    }
    for (waiting, silent) in [(0, true), (1, false)] {
        let place = tempfile::tempdir_in("/dev/shm").unwrap();
        let (bell, waiters) = (create(place.path(), "bell"), create(place.path(), "waiters"));
        waiters.atomic_u32(WAITERS).unwrap().store(waiting, Ordering::Relaxed);
        let test = "ringing_makes_a_system_call_only_when_somebody_waits";
        let mut ringer = Child::start(test, "ringer", place.path());
        let thread = ringer.wait_for("thread ");
        let thread = format!("/proc/{}/task/{thread}", ringer.pid());
        let deadline = soon(PATIENCE);
        while Path::new(&thread).exists() {
            assert!(monotonic_now() < deadline, "system calls were not forbidden");
            std::thread::yield_now();
        }
        let rings = bell.atomic_u32(BELL).unwrap().load(Ordering::Relaxed);
        let done = bell.atomic_u64(CHANGE).unwrap().load(Ordering::Relaxed);
        assert_eq!((rings, done), if silent { (1000, 1) } else { (1, 0) }, "{waiting} waiting");
    }
}

/// Rules: VX-322.
#[test]
fn a_bell_that_moved_before_sleeping_does_not_let_sleep() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let (ours, theirs) = (create(place.path(), "ours"), create(place.path(), "theirs"));
    let waiter = Waiter::new(ours.as_region().atomic_u32(BELL).unwrap(), theirs.atomic_u32(WAITERS).unwrap());
    let ringer = Ringer::new(ours.atomic_u32(BELL).unwrap(), theirs.as_region().atomic_u32(WAITERS).unwrap());
    for waiter in [waiter, waiter.with_spin(10)] {
        let seen = waiter.observe();
        ringer.ring();
        assert_eq!(waiter.wait(seen, Nanos::MAX), Waited::Woken);
    }
    assert_eq!(theirs.atomic_u32(WAITERS).unwrap().load(Ordering::Relaxed), 0);
}

/// Rules: VX-324.
#[test]
fn waiting_ends_at_the_deadline_and_costs_no_processor_time() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let (ours, theirs) = (create(place.path(), "ours"), create(place.path(), "theirs"));
    let waiter = Waiter::new(ours.as_region().atomic_u32(BELL).unwrap(), theirs.atomic_u32(WAITERS).unwrap());
    let (deadline, used_before) = (soon(Duration::from_millis(300)), processor_time());
    let mut asked = 0;
    let ready = waiter.wait_until(deadline, || {
        asked += 1;
        false
    });
    assert!(!ready && monotonic_now() >= deadline);
    assert!(asked <= 4, "woke up {asked} times for nothing");
    assert!(processor_time() - used_before < Duration::from_millis(50));
    assert!(!waiter.wait_until(Nanos::ZERO, || false), "a deadline in the past");
    assert!(waiter.wait_until(Nanos::ZERO, || true), "what is there is found without waiting");
    assert_eq!(theirs.atomic_u32(WAITERS).unwrap().load(Ordering::Relaxed), 0);
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The killed waiter stays counted: ringing costs a needless system call, and everything else goes on.
/// Rules: VX-322.
#[test]
fn a_waiter_killed_in_its_sleep_harms_nobody() {
    let waiting = |place: &Path| {
        let (bell, own) = (open(place, "bell"), open_mut(place, "waiters"));
        let waiter = Waiter::new(bell.atomic_u32(BELL).unwrap(), own.atomic_u32(WAITERS).unwrap());
        let change = bell.atomic_u64(CHANGE).unwrap();
        say("waiting");
        if waiter.wait_until(soon(PATIENCE), || change.load(Ordering::Relaxed) == 3) {
            say("woken");
        }
    };
    if let Some(place) = role("victim") {
        waiting(&place);
        return linger();
    }
    if let Some(place) = role("heir") {
        return waiting(&place);
    }
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let bell = create(place.path(), "bell");
    create(place.path(), "waiters");
    let waiters = open(place.path(), "waiters");
    let ringer = Ringer::new(bell.atomic_u32(BELL).unwrap(), waiters.atomic_u32(WAITERS).unwrap());
    let change = bell.atomic_u64(CHANGE).unwrap();

    let mut victim = Child::start("a_waiter_killed_in_its_sleep_harms_nobody", "victim", place.path());
    until_somebody_waits(&waiters);
    let handle = ProcessHandle::open(ProcessId::of(victim.pid()).unwrap()).unwrap();
    victim.kill();
    assert!(handle.wait_exit(soon(PATIENCE)));
    for step in [1, 2] {
        change.store(step, Ordering::Relaxed);
        assert!(ringer.ring(), "the victim is still counted");
    }

    let mut heir = Child::start("a_waiter_killed_in_its_sleep_harms_nobody", "heir", place.path());
    heir.wait_for("waiting");
    let deadline = soon(PATIENCE);
    while waiters.atomic_u32(WAITERS).unwrap().load(Ordering::Acquire) < 2 {
        assert!(monotonic_now() < deadline, "the heir does not wait");
        std::thread::yield_now();
    }
    change.store(3, Ordering::Relaxed);
    assert!(ringer.ring());
    heir.wait_for("woken");
    heir.succeed();
    assert_eq!(waiters.atomic_u32(WAITERS).unwrap().load(Ordering::Acquire), 1, "only the dead one");
}
