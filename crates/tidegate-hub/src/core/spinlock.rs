//! Shared locks (10.2, 10.3): exclusive, recursive per thread, with a deadline, and taken over from the dead.
//!
//! Two words decide. The process-private [`Doorway`] lets one thread of a process through to the lock at a time; the
//! shared owner word lets one process have it. So the private memory of the holder says which thread holds the lock and
//! how often, and nothing that others write can make a thread believe that it holds it. It also settles what the own key in
//! the owner word means to a thread that passed the doorway: a leftover of the program before an `exec` (DH-038).
//!
//! ```text
//!  acquire   doorway 0 -> ticket        owner 0 -> key              then thread, recursion, time, generation
//!            (own ticket: depth + 1)    owner dead key -> key       then also poisoned
//!  release   thread, recursion := 0     owner key -> 0              doorway := 0, wake
//! ```
//!
//! Whoever takes the lock while it is poisoned is told so, until a holder says that the data is repaired. Whoever took it
//! over is also told from whom, and writes that into the audit ring.

use std::marker::PhantomData;

use tidegate_shm::{
    doorbell::BellWord,
    sync::{AtomicU32, Ordering},
};

use super::{
    codec::{LOCK_POISONED, ProcessKey},
    config::{Deadline, Timing, WaitStrategy},
    crash::{self, Point},
    event,
    host::{Counter, Host, Liveness, Place},
    protocol::{Protocol, Shipped},
    wait::{Polling, Probes, Wait},
    words::Word,
};

/// The words of a lock record (3.5) that the protocol uses.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "named as in the table of the sheet")]
pub struct LockWords<L, S> {
    pub owner: L,
    pub generation: L,
    pub acquired_ns: L,
    pub owner_thread: S,
    pub recursion: S,
    pub wake_seq: S,
    pub waiters: S,
    pub flags: S,
}

/// Which thread of this process holds a lock or is about to; one for each lock and process.
#[derive(Debug)]
pub struct Doorway {
    /// Ticket of the thread, 0 = none.
    thread: AtomicU32,
    /// How often it holds the lock; 0 while it waits for it. Only that thread uses it.
    depth: AtomicU32,
}

impl Doorway {
    /// Nobody is there.
    pub fn new() -> Self {
        Self { thread: AtomicU32::new(0), depth: AtomicU32::new(0) }
    }

    /// How often the thread with this ticket holds the lock.
    pub fn depth_of(&self, ticket: u32) -> u32 {
        // Relaxed, both: a thread sees what it stored itself, and nobody else stores its ticket.
        if self.thread.load(Ordering::Relaxed) == ticket { self.depth.load(Ordering::Relaxed) } else { 0 }
    }

    fn enter<P: Protocol>(&self, ticket: u32) -> bool {
        if !P::DOORWAY {
            self.thread.store(ticket, Ordering::Release);
            return true;
        }
        // Acquire: pairs with the release of `leave`, so the next thread sees the owner word as the last one left it.
        self.thread.compare_exchange(0, ticket, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn leave(&self) {
        // Relaxed: read by this thread only until the store below.
        self.depth.store(0, Ordering::Relaxed);
        // Release: pairs with the acquire of `enter`.
        self.thread.store(0, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
impl Doorway {
    /// As if taken that often.
    pub(super) fn pretend_depth(&self, depth: u32) {
        self.depth.store(depth, Ordering::Relaxed);
    }
}

impl Default for Doorway {
    fn default() -> Self {
        Self::new()
    }
}

/// One lock, as the calling process sees it.
#[derive(Debug)]
pub struct Spinlock<'l, L, S, H, P = Shipped> {
    words: LockWords<L, S>,
    doorway: &'l Doorway,
    host: &'l H,
    /// Number of the lock.
    index: u32,
    key: ProcessKey,
    wait: WaitStrategy,
    timing: Timing,
    protocol: PhantomData<P>,
}

/// How a lock was had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entered {
    /// A holder died with it, and nobody has repaired what it guards since (DH-149, DH-150).
    pub poisoned: bool,
    /// The dead holder it was taken from just now.
    pub taken_from: Option<ProcessKey>,
}

/// Why a lock was not had or not given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpinlockError {
    /// The deadline passed (DH-151).
    #[error("the lock is held by {}; it was not broken, since its holder lives or may live", who(*.holder))]
    Timeout {
        /// Who was last seen with it.
        holder: Option<ProcessKey>,
    },
    /// The calling thread does not hold it (DH-146).
    #[error("the calling thread does not hold the lock; only the thread that took it can give it back")]
    NotOwner,
    /// Taken 2^32-1 times by one thread, or a thread without a number.
    #[error(
        "the lock was taken by this thread as often as can be counted; look for a loop that never releases"
    )]
    InvalidState,
}

fn who(holder: Option<ProcessKey>) -> String {
    holder.map_or_else(|| "another thread of this process".to_owned(), |key| format!("process {key}"))
}

impl<'l, L: Word<u64>, S: Word<u32> + BellWord, H: Host, P: Protocol> Spinlock<'l, L, S, H, P> {
    /// The lock number `index` with these words.
    #[allow(clippy::too_many_arguments, reason = "each is a different thing that the lock stands on")]
    pub fn new(
        words: LockWords<L, S>,
        doorway: &'l Doorway,
        host: &'l H,
        index: u32,
        key: ProcessKey,
        wait: WaitStrategy,
        timing: Timing,
    ) -> Self {
        Self { words, doorway, host, index, key, wait, timing, protocol: PhantomData }
    }

    /// Takes the lock, once more if the calling thread has it (DH-144).
    ///
    /// # Errors
    /// The deadline passed, or the thread has it as often as can be counted.
    pub fn acquire(&self, deadline: Deadline) -> Result<Entered, SpinlockError> {
        let ticket = self.host.thread_ticket();
        if ticket == 0 {
            return Err(SpinlockError::InvalidState);
        }
        match self.doorway.depth_of(ticket) {
            0 => self.acquire_first(ticket, deadline),
            depth => self.acquire_again(depth),
        }
    }

    /// Gives the lock back as often as it was taken; the last time it is free (DH-146).
    ///
    /// # Errors
    /// The calling thread does not hold it, or lost it to a forced unlock.
    pub fn release(&self) -> Result<(), SpinlockError> {
        let depth = self.doorway.depth_of(self.host.thread_ticket());
        if depth == 0 {
            self.host.count(Counter::LockErrors, 1);
            return Err(SpinlockError::NotOwner);
        }
        if depth > 1 {
            // Relaxed, both: ours while we hold the lock.
            self.doorway.depth.store(depth - 1, Ordering::Relaxed);
            self.words.recursion.store(depth - 1, Ordering::Relaxed);
            return Ok(());
        }
        let still_ours = self.words.owner.load(Ordering::Relaxed) == self.key.word();
        if still_ours {
            // Relaxed, both: released with the owner below.
            self.words.owner_thread.store(0, Ordering::Relaxed);
            self.words.recursion.store(0, Ordering::Relaxed);
        }
        // Release: pairs with the acquire of the next holder. An exchange, so that a holder who lost the lock to a forced
        // unlock does not free it from under the next one.
        let freed = still_ours && self.words.owner.compare_exchange(self.key.word(), 0, P::UNLOCK).is_ok();
        self.doorway.leave();
        event::wake::<P, _>(self.words.wake_seq, self.words.waiters);
        if freed {
            return Ok(());
        }
        self.host.count(Counter::LockErrors, 1);
        Err(SpinlockError::NotOwner)
    }

    /// Says that what the lock guards is whole again (DH-150).
    ///
    /// # Errors
    /// The calling thread does not hold it.
    pub fn clear_poison(&self) -> Result<(), SpinlockError> {
        if self.doorway.depth_of(self.host.thread_ticket()) == 0 {
            return Err(SpinlockError::NotOwner);
        }
        // Relaxed, both: only holders change the bit, and the lock orders them.
        let flags = self.words.flags.load(Ordering::Relaxed);
        self.words.flags.store(flags & !LOCK_POISONED, Ordering::Relaxed);
        Ok(())
    }

    /// Whether what the lock guards may be half written; to be asked by its holder.
    pub fn is_poisoned(&self) -> bool {
        // Relaxed: only holders change the bit, and the lock orders them.
        self.words.flags.load(Ordering::Relaxed) & LOCK_POISONED != 0
    }

    /// How often the calling thread holds the lock.
    pub fn depth(&self) -> u32 {
        self.doorway.depth_of(self.host.thread_ticket())
    }

    fn acquire_again(&self, depth: u32) -> Result<Entered, SpinlockError> {
        let deeper = depth.checked_add(1).ok_or(SpinlockError::InvalidState)?;
        // Relaxed, both: ours while we hold the lock.
        self.doorway.depth.store(deeper, Ordering::Relaxed);
        self.words.recursion.store(deeper, Ordering::Relaxed);
        Ok(self.entered(None))
    }

    fn acquire_first(&self, ticket: u32, deadline: Deadline) -> Result<Entered, SpinlockError> {
        let LockWords { wake_seq, waiters, .. } = self.words;
        let (strategy, timing) = (self.wait, self.timing);
        let wait = Wait {
            host: self.host,
            strategy,
            timing,
            deadline,
            sequence: wake_seq,
            flag: waiters,
            polling: Polling::Gentle,
        };
        let mut probes = Probes::new(&self.timing);
        let mut inside = false;
        let mut holder = None;
        let mut taken_from = None;
        let waited = wait.until::<P, (), SpinlockError>(|time| {
            inside = inside || self.doorway.enter::<P>(ticket);
            if !inside {
                holder = None;
                return Ok(None);
            }
            holder = match self.try_own() {
                Ok(()) => return Ok(Some(())),
                Err(holder) => holder,
            };
            taken_from = if probes.due(time) { self.take_over(holder) } else { None };
            Ok(taken_from.map(drop))
        })?;
        if waited.result.is_none() && inside {
            // A caller whose time is over asks before it goes, since it may have had less than it takes to ask above.
            taken_from = self.take_over(holder);
        }
        if waited.result.is_none() && taken_from.is_none() {
            if inside {
                self.doorway.leave();
                event::wake::<P, _>(wake_seq, waiters);
            }
            self.host.count(Counter::LockErrors, 1);
            return Err(SpinlockError::Timeout { holder });
        }
        crash::at(Point::SpinlockOwner);
        // Relaxed, all: ours while we hold the lock; the last three are for people.
        self.doorway.depth.store(1, Ordering::Relaxed);
        self.words.owner_thread.store(ticket, Ordering::Relaxed);
        self.words.recursion.store(1, Ordering::Relaxed);
        crash::at(Point::SpinlockDepth);
        self.words.acquired_ns.store(self.host.now().0, Ordering::Relaxed);
        let generation = self.words.generation.load(Ordering::Relaxed);
        self.words.generation.store(generation.wrapping_add(1), Ordering::Relaxed);
        Ok(self.entered(taken_from))
    }

    fn try_own(&self) -> Result<(), Option<ProcessKey>> {
        // Acquire: pairs with the release of the last holder.
        let had = self.words.owner.compare_exchange(0, self.key.word(), P::LOCK);
        had.map(drop).map_err(ProcessKey::from_word)
    }

    /// Takes the lock from `holder` if that is dead (DH-149). That the exchange finds its key proves that nobody had the
    /// lock in between: a dead process stores nothing (L-own).
    fn take_over(&self, holder: Option<ProcessKey>) -> Option<ProcessKey> {
        // Behind the doorway the own key is nobody's.
        let is_dead = |key: &ProcessKey| {
            *key == self.key || self.host.liveness(*key, Place::Lock(self.index)) == Liveness::Dead
        };
        let dead = holder.filter(is_dead)?;
        if P::TAKEOVER_BY_EXCHANGE {
            // AcqRel: pairs with whatever the dead holder released, and with the acquire of the next one.
            self.words.owner.compare_exchange(dead.word(), self.key.word(), Ordering::AcqRel).ok()?;
        } else {
            self.words.owner.store(self.key.word(), Ordering::Release);
        }
        // Relaxed: only holders change the bit. If we die before this, the next one finds us dead and does it.
        let flags = self.words.flags.load(Ordering::Relaxed);
        self.words.flags.store(flags | LOCK_POISONED, Ordering::Relaxed);
        self.host.count(Counter::LockTakeovers, 1);
        Some(dead)
    }

    fn entered(&self, taken_from: Option<ProcessKey>) -> Entered {
        Entered { poisoned: self.is_poisoned(), taken_from }
    }
}
