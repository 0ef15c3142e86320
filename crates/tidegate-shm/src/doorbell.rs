//! Waking a sleeping process through shared memory.
//!
//! Two 32-bit words, each written by one side only:
//!
//! | word | the ringing side maps it | the waiting side maps it | content |
//! |---|---|---|---|
//! | `bell` | read-write | read-only | number of rings so far, wraps around; the futex word |
//! | `waiters` | read-only | read-write | number of threads that sleep or are about to |
//!
//! Several ringers and several waiters may share them. Ringing is one atomic addition and, only when somebody waits,
//! one system call. A waiter sleeps in the kernel until the bell moves or its deadline passes.
//!
//! # Why no wake-up is lost
//!
//! The ringer first makes its change, then moves the bell, then looks for waiters. The waiter first notes the bell,
//! then tests its condition, then announces itself, then lets the kernel sleep only if the bell is still as noted. The
//! two SeqCst fences lie between "my store" and "my load of the other's word" on both sides, so at least one side sees
//! the other: either the ringer finds the waiter and wakes it, or the waiter finds the bell moved and does not sleep.
//!
//! # What the other side can do wrong
//!
//! A waiter that is killed while it sleeps stays counted. The ringer then makes one needless system call per ring and
//! is otherwise not affected; who owns the `waiters` word may set it to 0 while nobody waits. Whatever value a hostile
//! waiter stores, the cost is the same. A hostile ringer can cause wake-ups without reason, never a sleep beyond the
//! deadline.

use std::{marker::PhantomData, num::NonZeroU32, time::Duration};

use rustix::{io::Errno, thread::futex};

use crate::{
    clock::{Nanos, monotonic_now},
    region::{SharedU32, SharedU32Mut},
    sync::{MappedU32, Ordering, fence_if, spin_loop},
};

/// The ringing side.
#[derive(Debug, Clone, Copy)]
pub struct Ringer<B, W, O = Shipped> {
    bell: B,
    waiters: W,
    orderings: PhantomData<O>,
}

impl<B: BellWord + CountWord, W: LoadU32> Ringer<B, W> {
    /// A ringer with these two words; `bell` may start with any value.
    pub fn new(bell: B, waiters: W) -> Self {
        Self { bell, waiters, orderings: PhantomData }
    }
}

impl<B: BellWord + CountWord, W: LoadU32, O: Orderings> Ringer<B, W, O> {
    /// For models only: a ringer with other orderings.
    #[cfg(loom)]
    pub fn with_orderings(bell: B, waiters: W) -> Self {
        Self { bell, waiters, orderings: PhantomData }
    }

    /// Tells all waiters that something changed; to be called after the change was made. True if somebody was waiting,
    /// which costs a system call.
    #[inline]
    pub fn ring(&self) -> bool {
        // Pairs with the fence of `Waiter::observe`: who sees the new value sees the change.
        self.bell.fetch_add(1, O::RING_ADD);
        // Pairs with the fence in `Waiter::wait`, see the module text.
        fence_if(O::RING_FENCE);
        let somebody = self.waiters.load_relaxed() != 0;
        if somebody {
            self.bell.wake_all();
        }
        somebody
    }
}

/// The waiting side.
#[derive(Debug, Clone, Copy)]
pub struct Waiter<B, W, O = Shipped> {
    bell: B,
    waiters: W,
    spin: u32,
    orderings: PhantomData<O>,
}

impl<B: BellWord, W: CountWord> Waiter<B, W> {
    /// A waiter with these two words that goes to sleep at once.
    pub fn new(bell: B, waiters: W) -> Self {
        Self { bell, waiters, spin: 0, orderings: PhantomData }
    }
}

impl<B: BellWord, W: CountWord, O: Orderings> Waiter<B, W, O> {
    /// For models only: a waiter with other orderings.
    #[cfg(loom)]
    pub fn with_orderings(bell: B, waiters: W) -> Self {
        Self { bell, waiters, spin: 0, orderings: PhantomData }
    }

    /// Looks at the bell `rounds` times before going to sleep. Saves microseconds where the ringer runs on another
    /// processor, and steals its time where it does not.
    #[must_use]
    pub fn with_spin(self, rounds: u32) -> Self {
        Self { spin: rounds, ..self }
    }

    /// Sleeps until `ready` says true (true) or the deadline passes (false). `ready` is asked before the first sleep,
    /// after each wake-up, and a last time after the deadline.
    ///
    /// Its loads may be relaxed: a change made before a ring is not missed. But it may see a change before the ring that
    /// announces it, so what true permits to read must be ordered by acquiring loads of `ready` itself.
    pub fn wait_until(&self, deadline: Nanos, mut ready: impl FnMut() -> bool) -> bool {
        loop {
            let seen = self.observe();
            if ready() {
                return true;
            }
            if self.wait(seen, deadline) == Waited::DeadlinePassed {
                return ready();
            }
        }
    }

    /// The value of the bell, to be taken before the condition is tested and then given to [`Waiter::wait`].
    #[inline]
    pub fn observe(&self) -> u32 {
        let seen = self.bell.load_relaxed();
        // Pairs with the addition in `Ringer::ring`.
        fence_if(O::OBSERVE_FENCE);
        seen
    }

    /// Sleeps until the bell differs from `seen` or the deadline passes. May return early without reason, so that
    /// the caller tests its condition again.
    pub fn wait(&self, seen: u32, deadline: Nanos) -> Waited {
        for _ in 0..self.spin {
            if self.bell.load_relaxed() != seen {
                return Waited::Woken;
            }
            spin_loop();
        }
        // Relaxed: the fence orders it.
        self.waiters.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `Ringer::ring`, see the module text.
        fence_if(O::ANNOUNCE_FENCE);
        let waited = self.bell.sleep(seen, deadline);
        // Relaxed: a ringer that still counts us makes a needless system call, no more.
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        waited
    }
}

/// How a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The bell was rung, or the kernel woke us for another reason.
    Woken,
    /// The deadline passed.
    DeadlinePassed,
}

/// A 32-bit word that can be loaded.
pub trait LoadU32 {
    /// Loads with no ordering.
    fn load_relaxed(&self) -> u32;
}

/// A 32-bit word that several sides may count in.
pub trait CountWord: LoadU32 {
    /// Adds, wrapping around.
    fn fetch_add(&self, value: u32, order: Ordering) -> u32;
    /// Subtracts, wrapping around.
    fn fetch_sub(&self, value: u32, order: Ordering) -> u32;
}

/// A 32-bit word on which threads of all processes that map it can sleep.
pub trait BellWord: LoadU32 {
    /// Sleeps if the word is `expected`, until woken or the deadline passes. Comparing and going to sleep are one step
    /// for whoever wakes.
    fn sleep(&self, expected: u32, deadline: Nanos) -> Waited;
    /// Wakes all who sleep on the word.
    fn wake_all(&self);
}

impl LoadU32 for SharedU32<'_> {
    #[inline]
    fn load_relaxed(&self) -> u32 {
        self.load(Ordering::Relaxed)
    }
}

impl LoadU32 for SharedU32Mut<'_> {
    #[inline]
    fn load_relaxed(&self) -> u32 {
        self.load(Ordering::Relaxed)
    }
}

impl CountWord for SharedU32Mut<'_> {
    #[inline]
    fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        SharedU32Mut::fetch_add(self, value, order)
    }

    #[inline]
    fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
        SharedU32Mut::fetch_sub(self, value, order)
    }
}

impl BellWord for SharedU32<'_> {
    fn sleep(&self, expected: u32, deadline: Nanos) -> Waited {
        futex_wait(self.atomic(), expected, deadline)
    }

    fn wake_all(&self) {
        futex_wake(self.atomic());
    }
}

impl BellWord for SharedU32Mut<'_> {
    fn sleep(&self, expected: u32, deadline: Nanos) -> Waited {
        self.as_shared().sleep(expected, deadline)
    }

    fn wake_all(&self) {
        self.as_shared().wake_all();
    }
}

/// Waits on a futex that is shared between processes. Works on pages mapped read-only.
fn futex_wait(word: &MappedU32, expected: u32, deadline: Nanos) -> Waited {
    // Of all kinds of wait only this one takes an absolute time, which is on CLOCK_MONOTONIC unless told otherwise.
    match futex::wait_bitset(word, SHARED, expected, Some(&deadline.to_timespec()), NonZeroU32::MAX) {
        // Woken; the word differs; a signal.
        Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Waited::Woken,
        Err(Errno::TIMEDOUT) => Waited::DeadlinePassed,
        // No futex (sandbox): polling at a bounded rate keeps the promise of a deadline.
        Err(_) => {
            let left = deadline.saturating_sub(monotonic_now());
            if left == Nanos::ZERO {
                return Waited::DeadlinePassed;
            }
            std::thread::sleep(Duration::from(left.min(POLL_INTERVAL)));
            Waited::Woken
        }
    }
}

fn futex_wake(word: &MappedU32) {
    // There is nothing to do about a failure: sleepers have deadlines.
    let _ = futex::wake(word, SHARED, i32::MAX as u32);
}

/// Without the private flag, which would keep other processes out.
const SHARED: futex::Flags = futex::Flags::empty();

const POLL_INTERVAL: Nanos = Nanos::from_millis(1);

#[cfg(loom)]
pub use orderings::Orderings;
#[cfg(not(loom))]
use orderings::Orderings;
pub use orderings::Shipped;

/// Where the orderings come from. Only models may see the trait, so nobody else can choose other ones.
mod orderings {
    use super::Ordering;

    /// The orderings of the doorbell; `None` leaves a fence out.
    #[allow(missing_docs, reason = "each is explained where it is used")]
    pub trait Orderings {
        const RING_ADD: Ordering = Ordering::Release;
        const RING_FENCE: Option<Ordering> = Some(Ordering::SeqCst);
        const OBSERVE_FENCE: Option<Ordering> = Some(Ordering::Acquire);
        const ANNOUNCE_FENCE: Option<Ordering> = Some(Ordering::SeqCst);
    }

    /// The orderings everybody uses.
    #[derive(Debug, Clone, Copy)]
    pub struct Shipped;

    impl Orderings for Shipped {}
}
