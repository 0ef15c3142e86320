//! The fence of a partition: one word that is tested before every write (10.3).
//!
//! The word holds the generation that may write, or that with the bit REVOKED. It lies in segment F, where every worker can
//! read it. Beside it, in private memory, is the number of writes that are under way. A writer counts itself first and tests
//! the word then; who revokes changes the word first and looks at the number then. Of the two at least one sees the other, so
//! when the number was 0 after the change, no write runs and none will start ([`Quiesced`](Quiesce::Quiesced), I2).
//!
//! # Invariants
//!
//! - A [`Permit`] exists only while its write is counted; there is no other way to get one than [`Guard::permit`] (VX-721).
//! - Revoking is the first thing that happens; nothing is waited for, logged or allocated before it (VX-724).
//! - A slot is bound to one partition for the life of the process (VX-110).
//!
//! The writes under way are counted by [`WriteKind`] in one word, 12 bits each, so that one load says whether there are any
//! and which. No kind has more of them than there are threads.

#[cfg(not(loom))]
mod bells;
#[cfg(not(loom))]
mod table;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

use std::{fmt, marker::PhantomData};

use thiserror::Error;
use tidegate_shm::{
    clock::Nanos,
    sync::{Arc, AtomicU64, Ordering, fence},
};
use tidegate_udf::wire::ids::Generation;

#[cfg(not(loom))]
pub use bells::{Bells, Hung};
#[cfg(not(loom))]
pub use table::{FenceError, FenceTable, SlotWords};

/// The guard of a partition, as everybody who writes has it.
#[cfg(not(loom))]
pub type WriteGuard = Guard<SlotWords>;
/// A permit of a [`WriteGuard`].
#[cfg(not(loom))]
pub type WritePermit = Permit<SlotWords>;

/// The words of a fence slot (3.2).
pub trait FenceWords {
    /// Loads the fence word.
    fn word(&self, order: Ordering) -> u64;
    /// Replaces the fence word if it is `current`; whether it was.
    fn exchange(&self, current: u64, new: u64, order: Ordering) -> bool;
    /// Loads the deadline of the lease, on CLOCK_BOOTTIME.
    fn deadline(&self) -> Nanos;
    /// Says why and when the fence was revoked, for people.
    fn note(&self, reason: Reason, at: Nanos);
    /// Wakes the workers, which look at the fence then.
    fn ring(&self) {}
    /// Counts a permit of this kind that was refused.
    fn refused(&self, kind: WriteKind) {
        let _ = kind;
    }
}

/// Why a partition was fenced (10.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Whoever decides about ownership took it away.
    RevokedByManager = 1,
    /// The lease ran out before it was renewed.
    LeaseExpired = 2,
    /// A newer generation exists (VX-234).
    NewerGeneration = 3,
    /// An operator asked for it.
    Operator = 4,
    /// A worker broke the protocol again after it was started anew.
    Protocol = 5,
    /// The partition was given away in order (VX-704).
    Released = 6,
    /// The ledger cannot be written.
    LedgerLost = 7,
    /// A sink knows a newer session.
    SinkRefused = 8,
    /// The ownership store went back in time (VX-714).
    OwnershipRegressed = 9,
    /// The process ends.
    Shutdown = 12,
    /// What comes next in the source is gone (VX-832).
    SourceGap = 14,
}

impl Reason {
    const ALL: [Self; 11] = [
        Self::RevokedByManager,
        Self::LeaseExpired,
        Self::NewerGeneration,
        Self::Operator,
        Self::Protocol,
        Self::Released,
        Self::LedgerLost,
        Self::SinkRefused,
        Self::OwnershipRegressed,
        Self::Shutdown,
        Self::SourceGap,
    ];

    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RevokedByManager => "revoked_by_manager",
            Self::LeaseExpired => "lease_expired",
            Self::NewerGeneration => "newer_generation",
            Self::Operator => "operator",
            Self::Protocol => "protocol",
            Self::Released => "released",
            Self::LedgerLost => "ledger_lost",
            Self::SinkRefused => "sink_refused",
            Self::OwnershipRegressed => "ownership_regressed",
            Self::Shutdown => "shutdown",
            Self::SourceGap => "source_gap",
        }
    }
}

/// What is written under a permit (VX-722), for the report of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// A batch is published to a worker.
    Request,
    /// An answer is accepted.
    Answer,
    /// A transaction of the ledger, or a decision in the ownership store.
    Ledger,
    /// Something at a sink: staging, publishing, a barrier.
    Sink,
    /// Something at the source: an acknowledgement.
    Source,
}

/// The right to write was lost, or never there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "generation {generation} may not write any more: its fence was revoked, or a newer generation took over"
)]
pub struct Fenced {
    /// The generation that asked.
    pub generation: Generation,
}

/// How a wait for the end of all writes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiesce {
    /// No write runs and none will start.
    Quiesced,
    /// These writes still run.
    Pending(Running),
}

/// Numbers of writes that run, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running(u64);

impl Running {
    /// Writes of a kind.
    pub fn of(self, kind: WriteKind) -> u64 {
        self.0 >> kind.shift() & KIND_MASK
    }

    /// Writes of all kinds.
    pub fn total(self) -> u64 {
        WriteKind::ALL.iter().map(|&kind| self.of(kind)).sum()
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = WriteKind::ALL.iter().filter(|&&kind| self.of(kind) > 0);
        for (index, &kind) in running.enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", self.of(kind), kind.name())?;
        }
        Ok(())
    }
}

impl WriteKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Request, Self::Answer, Self::Ledger, Self::Sink, Self::Source];

    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Answer => "answer",
            Self::Ledger => "ledger",
            Self::Sink => "sink",
            Self::Source => "source",
        }
    }

    fn shift(self) -> u32 {
        self as u32 * KIND_BITS
    }

    /// One write of this kind in the word of counts.
    fn one(self) -> u64 {
        1 << self.shift()
    }
}

/// The right of one generation to write, for as long as the fence allows. Clones are the same right.
#[derive(Debug)]
pub struct Guard<W, S = Shipped> {
    words: W,
    generation: Generation,
    inflight: Arc<AtomicU64>,
    now: fn() -> Nanos,
    steps: PhantomData<S>,
}

impl<W: Clone, S> Clone for Guard<W, S> {
    fn clone(&self) -> Self {
        let Self { words, generation, inflight, now, steps } = self;
        Self {
            words: words.clone(),
            generation: *generation,
            inflight: inflight.clone(),
            now: *now,
            steps: *steps,
        }
    }
}

/// Proof that the fence was tested, for one write. The write is over when it is dropped, so it goes to wherever the write is
/// made (VX-732).
#[derive(Debug)]
#[must_use = "a permit that is dropped permits nothing"]
pub struct Permit<W: FenceWords, S: Steps = Shipped> {
    words: W,
    generation: Generation,
    kind: WriteKind,
    inflight: Arc<AtomicU64>,
    steps: PhantomData<S>,
}

impl<W: FenceWords + Clone, S: Steps> Guard<W, S> {
    /// The guard of `generation`, which was stored in the word before. `now` is CLOCK_BOOTTIME.
    pub fn new(words: W, generation: Generation, now: fn() -> Nanos) -> Self {
        Self { words, generation, inflight: Arc::new(AtomicU64::new(0)), now, steps: PhantomData }
    }

    /// The generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Permits one write.
    ///
    /// # Errors
    /// [`Fenced`]: there will be no permit for this generation again.
    pub fn permit(&self, kind: WriteKind) -> Result<Permit<W, S>, Fenced> {
        let fenced = Fenced { generation: self.generation };
        if !S::COUNT_FIRST && self.words.word(Ordering::Acquire) != self.generation.0 {
            return Err(fenced);
        }
        // AcqRel: as the sheet has it; the fence below orders it before the test.
        self.inflight.fetch_add(kind.one(), Ordering::AcqRel);
        // From here on dropping it uncounts the write.
        let permit = Permit {
            words: self.words.clone(),
            generation: self.generation,
            kind,
            inflight: self.inflight.clone(),
            steps: PhantomData,
        };
        // Pairs with the fence of `revoke`: count, then word, against word, then count.
        fence_if(S::PERMIT_FENCE);
        // Acquire: pairs with the release of the word when the partition was acquired.
        if S::COUNT_FIRST && self.words.word(Ordering::Acquire) != self.generation.0 {
            drop(permit);
            self.words.refused(kind);
            return Err(fenced);
        }
        if (self.now)() >= self.words.deadline() {
            drop(permit);
            self.words.refused(kind);
            self.revoke(Reason::LeaseExpired);
            return Err(fenced);
        }
        Ok(permit)
    }

    /// Takes the right away, now. Writes that hold a permit may still end (VX-728).
    pub fn revoke(&self, reason: Reason) {
        // An exchange and not just setting the bit: the word may be that of the partition's next session by now, which an old
        // guard must not touch. AcqRel: what was written under the generation is behind it.
        let current = self.generation.0;
        let was_current = self.words.exchange(current, current | REVOKED, Ordering::AcqRel);
        // Pairs with the fence of `permit`, see the module text.
        fence_if(S::REVOKE_FENCE);
        if was_current {
            self.words.note(reason, (self.now)());
            self.words.ring();
        }
    }

    /// Whether the fence was revoked.
    pub fn is_revoked(&self) -> bool {
        self.words.word(Ordering::Acquire) != self.generation.0
    }

    /// After a revoke: whether writes still run. `pause` is called between looks until it says that the time is over.
    pub fn quiesce(&self, mut pause: impl FnMut() -> bool) -> Quiesce {
        loop {
            // Acquire: pairs with the release when a permit is dropped; what it wrote is done.
            match self.inflight.load(S::SEE_COUNT) {
                0 => return Quiesce::Quiesced,
                pending if !pause() => return Quiesce::Pending(Running(pending)),
                _ => {}
            }
        }
    }
}

impl<W: FenceWords, S: Steps> Permit<W, S> {
    /// Whether the fence still stands as it did; asked once more before a frame becomes visible (VX-210).
    pub fn is_current(&self) -> bool {
        // Acquire: as in `Guard::permit`.
        self.words.word(Ordering::Acquire) == self.generation.0
    }
}

impl<W: FenceWords, S: Steps> Drop for Permit<W, S> {
    fn drop(&mut self) {
        // Release: pairs with the load of `quiesce`; the write is done.
        self.inflight.fetch_sub(self.kind.one(), S::UNCOUNT);
    }
}

/// The choices that the models change one at a time, to see the shipped code fail without them.
#[allow(missing_docs, reason = "each is explained where it is used")]
pub trait Steps: 'static {
    const COUNT_FIRST: bool = true;
    const PERMIT_FENCE: Option<Ordering> = Some(Ordering::SeqCst);
    const REVOKE_FENCE: Option<Ordering> = Some(Ordering::SeqCst);
    const UNCOUNT: Ordering = Ordering::Release;
    const SEE_COUNT: Ordering = Ordering::Acquire;
}

/// What everybody uses.
#[derive(Debug, Clone, Copy)]
pub struct Shipped;

impl Steps for Shipped {}

/// A fence, unless a model leaves it out.
fn fence_if(order: Option<Ordering>) {
    if let Some(order) = order {
        fence(order);
    }
}

const KIND_BITS: u32 = 12;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;

/// The bit of the fence word that says that its generation may not write any more.
pub const REVOKED: u64 = 1 << 63;
