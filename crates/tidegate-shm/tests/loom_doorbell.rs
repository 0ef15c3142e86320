//! Models of the doorbell: no interleaving and no stale value may leave a waiter asleep after the bell was rung, and
//! proof for each ordering that the shipped code is wrong without it.
//!
//! The kernel's futex is modelled by what its manual promises and no more: comparing and going to sleep are one step
//! with respect to waking. That a sleeper is never woken shows as a deadlock, which loom reports.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-shm --release --test loom_doorbell`.

#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_types, reason = "runs of a model are counted outside of it")]

mod broken;

use std::sync::atomic::{AtomicUsize as StdUsize, Ordering::SeqCst};

use broken::breaks;
use tidegate_shm::{
    clock::Nanos,
    doorbell::{BellWord, CountWord, LoadU32, Orderings, Ringer, Shipped, Waited, Waiter},
    sync::{Arc, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, thread},
};

/// A word of shared memory with the kernel's queue of sleepers.
struct Word {
    value: AtomicU32,
    queue: Mutex<()>,
    woken: Condvar,
}

impl Word {
    fn new() -> Self {
        Self { value: AtomicU32::new(0), queue: Mutex::new(()), woken: Condvar::new() }
    }
}

impl LoadU32 for &Word {
    fn load_relaxed(&self) -> u32 {
        self.value.load(Ordering::Relaxed)
    }
}

impl CountWord for &Word {
    fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        self.value.fetch_add(value, order)
    }

    fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
        self.value.fetch_sub(value, order)
    }
}

impl BellWord for &Word {
    fn sleep(&self, expected: u32, _deadline: Nanos) -> Waited {
        let queue = self.queue.lock().unwrap();
        // Relaxed: an atomic step of the kernel need not see more than the word itself.
        if self.value.load(Ordering::Relaxed) == expected {
            drop(self.woken.wait(queue).unwrap());
        }
        Waited::Woken
    }

    fn wake_all(&self) {
        let queue = self.queue.lock().unwrap();
        self.woken.notify_all();
        drop(queue);
    }
}

struct Shared {
    bell: Word,
    waiters: Word,
    change: AtomicU64,
}

/// `rings` changes are made and rung one after the other while `waiters` threads wait for the last. At most
/// `preemptions` switches away from a thread that could go on are explored, all of them when none. Returns the number
/// of runs and of rings that found nobody.
fn model<O: Orderings + 'static>(rings: u64, waiters: usize, preemptions: Option<usize>) -> (usize, usize) {
    let runs = std::sync::Arc::new(StdUsize::new(0));
    let silent = std::sync::Arc::new(StdUsize::new(0));
    let counts = (runs.clone(), silent.clone());
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = preemptions;
    explorer.check(move || {
        runs.fetch_add(1, SeqCst);
        let shared = Arc::new(Shared { bell: Word::new(), waiters: Word::new(), change: AtomicU64::new(0) });
        let waiting: Vec<_> = (0..waiters)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let waiter = Waiter::<_, _, O>::with_orderings(&shared.bell, &shared.waiters);
                    let ready = || shared.change.load(Ordering::Relaxed) == rings;
                    assert!(waiter.wait_until(Nanos::MAX, ready));
                })
            })
            .collect();
        let ringer = Ringer::<_, _, O>::with_orderings(&shared.bell, &shared.waiters);
        for change in 1..=rings {
            shared.change.store(change, Ordering::Relaxed);
            if !ringer.ring() {
                silent.fetch_add(1, SeqCst);
            }
        }
        for waiter in waiting {
            waiter.join().unwrap();
        }
    });
    (counts.0.load(SeqCst), counts.1.load(SeqCst))
}

struct RelaxedRing;
impl Orderings for RelaxedRing {
    const RING_ADD: Ordering = Ordering::Relaxed;
}

struct NoRingFence;
impl Orderings for NoRingFence {
    const RING_FENCE: Option<Ordering> = None;
}

struct NoObserveFence;
impl Orderings for NoObserveFence {
    const OBSERVE_FENCE: Option<Ordering> = None;
}

struct NoAnnounceFence;
impl Orderings for NoAnnounceFence {
    const ANNOUNCE_FENCE: Option<Ordering> = None;
}

/// Cases: CT-13.
/// Rules: VX-320, VX-321, VX-322, VX-326.
#[test]
fn no_wake_up_is_lost() {
    let (runs, silent) = model::<Shipped>(1, 1, None);
    assert!(runs > 10 && silent > 0 && silent < runs, "{runs} runs, {silent} silent rings");
}

/// Rules: VX-322, VX-326.
#[test]
fn no_wake_up_is_lost_over_several_rings() {
    let (runs, silent) = model::<Shipped>(2, 1, Some(5));
    assert!(runs > 100 && silent > 0, "{runs} runs, {silent} silent rings");
}

/// Rules: VX-322, VX-326.
#[test]
fn no_wake_up_is_lost_with_two_waiters() {
    let (runs, silent) = model::<Shipped>(1, 2, Some(3));
    assert!(runs > 100 && silent > 0, "{runs} runs, {silent} silent rings");
}

#[test]
fn the_release_of_the_ring_is_needed() {
    assert!(breaks("the_release_of_the_ring_is_needed", "deadlock", || model::<RelaxedRing>(1, 1, None)));
}

#[test]
fn the_fence_between_ringing_and_looking_for_waiters_is_needed() {
    assert!(breaks("the_fence_between_ringing_and_looking_for_waiters_is_needed", "deadlock", || model::<
        NoRingFence,
    >(
        1, 1, None
    )));
}

#[test]
fn the_acquire_of_the_observed_bell_is_needed() {
    assert!(breaks("the_acquire_of_the_observed_bell_is_needed", "deadlock", || model::<NoObserveFence>(
        1, 1, None
    )));
}

#[test]
fn the_fence_between_announcing_and_sleeping_is_needed() {
    assert!(breaks("the_fence_between_announcing_and_sleeping_is_needed", "deadlock", || model::<
        NoAnnounceFence,
    >(1, 1, None)));
}
