//! What the protocol has to know about a block, from the private copy of its descriptor (DH-012).

use std::num::NonZeroU32;

use tidegate_shm::clock::Nanos;

pub use crate::layout::{OnHeld, Orphan, Overflow, SyncPolicy};

use super::codec::{Claim, SlotId, SlotIndex};

/// What the writer does about a consumer that lives and holds a lossless ring back (DH-106).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stall {
    /// Waits for it.
    #[default]
    Wait,
    /// Takes the right of its cursor away once a claim is older than this, or the cursor did not move for this long while
    /// data was waiting.
    EvictAfter(Nanos),
}

/// How a handle waits (DH-080).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStrategy {
    /// Spins for a moment, then sleeps in the kernel.
    Hybrid,
    /// Never sleeps.
    Spin,
    /// Sleeps this long between looks.
    Poll(Nanos),
}

/// The times of 6.3 that the protocol uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// First stage of waiting.
    pub spin: Nanos,
    /// Longest sleep of the second stage (DH-076).
    pub futex_slice: Nanos,
    /// When a blocked party first asks whether the other is alive (DH-036).
    pub probe_after: Nanos,
    /// Time between later questions.
    pub probe_every: Nanos,
    /// How long a blocked writer tries for the maintenance lock (DH-079).
    pub reap_lock: Nanos,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            spin: Nanos(2_000),
            futex_slice: Nanos::from_millis(10),
            probe_after: Nanos::from_millis(50),
            probe_every: Nanos::from_millis(100),
            reap_lock: Nanos::from_millis(10),
        }
    }
}

/// Geometry and policies of a block; fixed for its life (DH-086).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreConfig {
    /// How consumers follow the ring.
    pub sync: SyncPolicy,
    /// What a full ring does.
    pub overflow: Overflow,
    /// What becomes of ids that nobody is there to read.
    pub orphan: Orphan,
    /// What the writer does about a slot that is being read.
    pub on_held: OnHeld,
    /// Number of slots.
    pub slot_count: NonZeroU32,
    /// Most bytes of payload in a slot.
    pub slot_size: u64,
    /// Rows of the consumer table, at most 32.
    pub max_consumers: u32,
    /// First id of this block; later blocks of a channel go on with the ids of the one before.
    pub first_slot: SlotId,
    /// What this handle, as the writer, does about stalled consumers.
    pub stall: Stall,
    /// How this handle waits.
    pub wait: WaitStrategy,
    /// How long.
    pub timing: Timing,
}

impl CoreConfig {
    /// Whether ids may be overwritten before everybody has read them (0.2).
    #[inline]
    pub fn is_lossy(&self) -> bool {
        self.sync == SyncPolicy::LatestOnly || self.overflow == Overflow::DropOldest
    }

    /// Where an id lives (DH-048).
    #[inline]
    pub fn index(&self, id: SlotId) -> SlotIndex {
        let slots = self.slots();
        let distance = id.0.saturating_sub(self.first_slot.0);
        // A power of two costs no division (DH-093). Asked like this it is one comparison; there is always a slot.
        let mask = slots - 1;
        SlotIndex(if slots & mask == 0 { distance & mask } else { distance % slots } as u32)
    }

    /// Where `n` consecutive ids live: in slots that lie in a row, but for the step from the last one to the first.
    #[inline]
    pub fn indices(&self, first: SlotId, n: u32) -> impl Iterator<Item = (SlotId, SlotIndex)> + use<> {
        let last = self.slot_count.get() - 1;
        let (mut id, mut index) = (first, self.index(first));
        (0..n).map(move |_| {
            let place = (id, index);
            id = id.plus(1);
            index = SlotIndex(if index.0 == last { 0 } else { index.0 + 1 });
            place
        })
    }

    /// The number of slots.
    #[inline]
    pub fn slots(&self) -> u64 {
        u64::from(self.slot_count.get())
    }

    /// `end - slot_count`, not below the first id: what the ring cannot hold any more when it ends at `end`.
    #[inline]
    pub fn overrun(&self, end: u64) -> u64 {
        end.saturating_sub(self.slots()).max(self.first_slot.0)
    }

    /// Bits of all rows that exist.
    #[inline]
    pub fn row_bits(&self) -> u32 {
        let rows = self.max_consumers.min(32);
        if rows == 32 { u32::MAX } else { (1 << rows) - 1 }
    }

    /// Most ids that one consumer may hold.
    pub fn max_claim(&self) -> u32 {
        self.slot_count.get().min(Claim::MAX_COUNT)
    }
}

/// How long a call may wait (6.3). Computed once, at entry (DH-098).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// Not at all.
    Immediate,
    /// Until this time of the monotonic clock.
    At(Nanos),
    /// Until it works, or the block is closed, or the right is lost (DH-097).
    Never,
}

impl Deadline {
    /// Whether it has passed.
    #[inline]
    pub fn passed(self, now: Nanos) -> bool {
        match self {
            Self::Immediate => true,
            Self::At(time) => now >= time,
            Self::Never => false,
        }
    }

    /// Time left.
    pub fn left(self, now: Nanos) -> Nanos {
        match self {
            Self::Immediate => Nanos::ZERO,
            Self::At(time) => time.saturating_sub(now),
            Self::Never => Nanos::MAX,
        }
    }
}
