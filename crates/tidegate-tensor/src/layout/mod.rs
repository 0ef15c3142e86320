//! Where things lie inside a stream's regions (chapter 6).
//!
//! ```text
//! header.ring     superblock 64 | slot 0: 256 | slot 1: 256 | ...
//! <pool id>.pool  superblock 64 | payload 0: stride | payload 1: stride | ...
//! ```
//!
//! The frame with sequence S uses slot `S mod nslots` of the header ring and the payload slot with the same index of one
//! pool (TP-100). Everything is little-endian and unaligned unless stated; the layouts are read and written at fixed
//! offsets, without a message header (TP-073) and without allocation.

pub(crate) mod bytes;
mod slot;
mod superblock;

use std::fmt;

use thiserror::Error;

use crate::ids::{PoolId, Seq};

pub use slot::{PayloadSpan, SLOT_LEN, SlotError, SlotHeader};
pub use superblock::{
    ACTIVITY_OFFSET, EPOCH_OFFSET, Expected, LAYOUT_VERSION, MAGIC, PID_OFFSET, RegionKind, START_OFFSET,
    SUPERBLOCK_LEN, Superblock, SuperblockError, SuperblockField,
};

/// Number of slots of a header ring and of each of its pools: a power of two (TP-082, TP-083).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotCount(u32);

impl SlotCount {
    /// Accepts a power of two from 1 to 2^31.
    ///
    /// # Errors
    /// [`GeometryError::SlotCount`].
    pub const fn new(slots: u32) -> Result<Self, GeometryError> {
        if slots.is_power_of_two() { Ok(Self(slots)) } else { Err(GeometryError::SlotCount { found: slots }) }
    }

    /// For constants of this crate: a number that is no power of two fails the build.
    pub(crate) const fn known(slots: u32) -> Self {
        assert!(slots.is_power_of_two());
        Self(slots)
    }

    /// The number of slots.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The slot a sequence uses.
    #[must_use]
    pub const fn index_of(self, seq: Seq) -> SlotIndex {
        SlotIndex((seq.get() & (self.0 as u64 - 1)) as u32)
    }
}

impl fmt::Display for SlotCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Index of a slot in the header ring and of the payload slot that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotIndex(u32);

impl SlotIndex {
    /// A slot by number, for tools that list a ring; frames get theirs from [`SlotCount::index_of`].
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The number, from 0.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for SlotIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes of one payload slot: at least 64 and a multiple of 64 (TP-084).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stride(u32);

impl Stride {
    /// Accepts a multiple of 64 other than 0.
    ///
    /// # Errors
    /// [`GeometryError::Stride`].
    pub const fn new(bytes: u32) -> Result<Self, GeometryError> {
        if bytes >= 64 && bytes.is_multiple_of(64) {
            Ok(Self(bytes))
        } else {
            Err(GeometryError::Stride { found: bytes })
        }
    }

    /// For constants of this crate: a number that is no stride fails the build.
    pub(crate) const fn known(bytes: u32) -> Self {
        assert!(bytes >= 64 && bytes.is_multiple_of(64));
        Self(bytes)
    }

    /// The stride in bytes.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Stride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Numbers no region can be built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// Not a power of two (TP-082).
    #[error("number of slots must be a power of two, found {found}")]
    SlotCount {
        /// The number.
        found: u32,
    },
    /// Too small or not a multiple of 64 (TP-084).
    #[error("stride must be at least 64 bytes and a multiple of 64, found {found}")]
    Stride {
        /// The stride.
        found: u32,
    },
}

/// One payload pool of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSpec {
    /// Unique within the stream; ours never uses 0 (TP-105).
    pub pool_id: PoolId,
    /// Bytes of one payload slot.
    pub stride: Stride,
}

/// Position of the pool for a payload of `values_len` bytes: the smallest stride that holds it, among equals the lowest
/// id. `None` when no pool is large enough; the producer then drops the frame and counts it (TP-101).
#[inline]
pub(crate) fn select_pool(pools: impl Iterator<Item = PoolSpec>, values_len: usize) -> Option<usize> {
    pools
        .enumerate()
        .filter(|(_, pool)| pool.stride.get() as usize >= values_len)
        .min_by_key(|(_, pool)| (pool.stride, pool.pool_id))
        .map(|(position, _)| position)
}

// All sizes below are computed in 64 bits (TP-086) and cannot overflow there: at most 2^31 slots of less than 2^32 bytes.

/// Exact size of a header ring in bytes.
#[must_use]
pub const fn header_ring_len(slots: SlotCount) -> u64 {
    SUPERBLOCK_LEN as u64 + slots.0 as u64 * SLOT_LEN as u64
}

/// Exact size of a payload pool in bytes.
#[must_use]
pub const fn pool_len(slots: SlotCount, stride: Stride) -> u64 {
    SUPERBLOCK_LEN as u64 + slots.0 as u64 * stride.0 as u64
}

/// Where a slot starts in the header ring.
#[must_use]
pub const fn header_slot_offset(index: SlotIndex) -> u64 {
    SUPERBLOCK_LEN as u64 + index.0 as u64 * SLOT_LEN as u64
}

/// Where a payload slot starts in its pool.
#[must_use]
pub const fn payload_slot_offset(index: SlotIndex, stride: Stride) -> u64 {
    SUPERBLOCK_LEN as u64 + index.0 as u64 * stride.0 as u64
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
