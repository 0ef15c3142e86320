//! The superblock: the first 64 bytes of every region (6.1).
//!
//! ```text
//! offset  size  field
//!      0     8  magic                  u64
//!      8     4  layout_version         u32
//!     12     8  epoch                  u64, unaligned
//!     20     4  stream_id              u32
//!     24     2  region_type            i16
//!     26     2  pool_id                u16, 0 for the header ring
//!     28     4  nslots                 u32
//!     32     4  slot_bytes             u32
//!     36     4  stride_bytes           u32, 0 for the header ring
//!     40     8  pid                    u64
//!     48     8  start_timestamp_ns     u64
//!     56     8  activity_timestamp_ns  u64, the only field that changes (TP-076); shared access is atomic (TP-079)
//! ```

use std::fmt;

use thiserror::Error;

use super::bytes::{get, put};
use super::{SLOT_LEN, SlotCount, Stride};
use crate::ids::{Epoch, PoolId, StreamId};

/// First field of every region (TP-075); in memory the bytes of `1MHSLPOT`.
pub const MAGIC: u64 = 0x544F_504C_5348_4D31;
/// The layout this crate reads and writes.
pub const LAYOUT_VERSION: u32 = 1;
/// Length of a superblock (TP-072).
pub const SUPERBLOCK_LEN: usize = 64;
/// Offset of `epoch`; not 8-byte aligned (TP-074).
pub const EPOCH_OFFSET: usize = 12;
/// Offset of `pid`.
pub const PID_OFFSET: usize = 40;
/// Offset of `start_timestamp_ns`.
pub const START_OFFSET: usize = 48;
/// Offset of `activity_timestamp_ns`; 8-byte aligned, accessed atomically in shared memory (TP-079).
pub const ACTIVITY_OFFSET: usize = 56;

const MAGIC_OFFSET: usize = 0;
const LAYOUT_VERSION_OFFSET: usize = 8;
const STREAM_ID_OFFSET: usize = 20;
const REGION_TYPE_OFFSET: usize = 24;
const POOL_ID_OFFSET: usize = 26;
const NSLOTS_OFFSET: usize = 28;
const SLOT_BYTES_OFFSET: usize = 32;
const STRIDE_BYTES_OFFSET: usize = 36;

/// What a region holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum RegionKind {
    /// The ring of header slots.
    HeaderRing = 1,
    /// Payload slots of one stride.
    PayloadPool = 2,
}

impl RegionKind {
    /// The kind with this wire number.
    #[must_use]
    pub const fn from_raw(raw: i16) -> Option<Self> {
        match raw {
            1 => Some(Self::HeaderRing),
            2 => Some(Self::PayloadPool),
            _ => None,
        }
    }

    /// The wire number.
    #[must_use]
    pub const fn raw(self) -> i16 {
        self as i16
    }
}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeaderRing => "header ring",
            Self::PayloadPool => "payload pool",
        })
    }
}

/// A superblock as the bytes say it, not validated: use [`check_header_ring`](Self::check_header_ring) or
/// [`check_pool`](Self::check_pool) before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// [`MAGIC`] in a valid region.
    pub magic: u64,
    /// [`LAYOUT_VERSION`] in a region we can use.
    pub layout_version: u32,
    /// The incarnation of the region set.
    pub epoch: Epoch,
    /// The stream.
    pub stream_id: StreamId,
    /// Wire number of the [`RegionKind`].
    pub region_type: i16,
    /// The pool; 0 for the header ring.
    pub pool_id: PoolId,
    /// Number of slots.
    pub nslots: u32,
    /// 256 for the header ring; for a pool see TP-077.
    pub slot_bytes: u32,
    /// Bytes of one payload slot; 0 for the header ring.
    pub stride_bytes: u32,
    /// The process that created the region; informational.
    pub pid: u64,
    /// CLOCK_MONOTONIC at creation, in ns.
    pub start_timestamp_ns: u64,
    /// CLOCK_MONOTONIC of the last sign of life, in ns.
    pub activity_timestamp_ns: u64,
}

impl Superblock {
    /// The superblock of a new header ring (TP-078), active as of its creation.
    #[must_use]
    pub const fn header_ring(
        epoch: Epoch,
        stream_id: StreamId,
        nslots: SlotCount,
        pid: u64,
        now_ns: u64,
    ) -> Self {
        Self {
            magic: MAGIC,
            layout_version: LAYOUT_VERSION,
            epoch,
            stream_id,
            region_type: RegionKind::HeaderRing.raw(),
            pool_id: PoolId::new(0),
            nslots: nslots.get(),
            slot_bytes: SLOT_LEN as u32,
            stride_bytes: 0,
            pid,
            start_timestamp_ns: now_ns,
            activity_timestamp_ns: now_ns,
        }
    }

    /// The superblock of a payload pool that belongs to the header ring `ring` describes (TP-077, TP-083).
    #[must_use]
    pub const fn pool(ring: &Self, pool_id: PoolId, stride: Stride) -> Self {
        Self {
            region_type: RegionKind::PayloadPool.raw(),
            pool_id,
            slot_bytes: stride.get(),
            stride_bytes: stride.get(),
            ..*ring
        }
    }

    /// Reads a superblock; every byte pattern is one.
    #[must_use]
    pub fn decode(bytes: &[u8; SUPERBLOCK_LEN]) -> Self {
        let u32_at = |offset| u32::from_le_bytes(get(bytes, offset));
        let u64_at = |offset| u64::from_le_bytes(get(bytes, offset));
        Self {
            magic: u64_at(MAGIC_OFFSET),
            layout_version: u32_at(LAYOUT_VERSION_OFFSET),
            epoch: Epoch::new(u64_at(EPOCH_OFFSET)),
            stream_id: StreamId::new(u32_at(STREAM_ID_OFFSET)),
            region_type: i16::from_le_bytes(get(bytes, REGION_TYPE_OFFSET)),
            pool_id: PoolId::new(u16::from_le_bytes(get(bytes, POOL_ID_OFFSET))),
            nslots: u32_at(NSLOTS_OFFSET),
            slot_bytes: u32_at(SLOT_BYTES_OFFSET),
            stride_bytes: u32_at(STRIDE_BYTES_OFFSET),
            pid: u64_at(PID_OFFSET),
            start_timestamp_ns: u64_at(START_OFFSET),
            activity_timestamp_ns: u64_at(ACTIVITY_OFFSET),
        }
    }

    /// The 64 bytes to write into a region before it is announced.
    #[must_use]
    pub fn encode(&self) -> [u8; SUPERBLOCK_LEN] {
        let mut bytes = [0; SUPERBLOCK_LEN];
        put(&mut bytes, MAGIC_OFFSET, self.magic.to_le_bytes());
        put(&mut bytes, LAYOUT_VERSION_OFFSET, self.layout_version.to_le_bytes());
        put(&mut bytes, EPOCH_OFFSET, self.epoch.get().to_le_bytes());
        put(&mut bytes, STREAM_ID_OFFSET, self.stream_id.get().to_le_bytes());
        put(&mut bytes, REGION_TYPE_OFFSET, self.region_type.to_le_bytes());
        put(&mut bytes, POOL_ID_OFFSET, self.pool_id.get().to_le_bytes());
        put(&mut bytes, NSLOTS_OFFSET, self.nslots.to_le_bytes());
        put(&mut bytes, SLOT_BYTES_OFFSET, self.slot_bytes.to_le_bytes());
        put(&mut bytes, STRIDE_BYTES_OFFSET, self.stride_bytes.to_le_bytes());
        put(&mut bytes, PID_OFFSET, self.pid.to_le_bytes());
        put(&mut bytes, START_OFFSET, self.start_timestamp_ns.to_le_bytes());
        put(&mut bytes, ACTIVITY_OFFSET, self.activity_timestamp_ns.to_le_bytes());
        bytes
    }

    /// Checks a header ring against what was announced: every row of the validation table of 6.1 (TP-080).
    ///
    /// # Errors
    /// [`SuperblockError`] for the first field that differs.
    pub fn check_header_ring(&self, expected: &Expected) -> Result<(), SuperblockError> {
        let check = Check { region: RegionKind::HeaderRing };
        check.incarnation(self, expected)?;
        check.equal(SuperblockField::PoolId, 0, self.pool_id.get())?;
        check.equal(SuperblockField::Nslots, expected.nslots.get(), self.nslots)?;
        check.equal(SuperblockField::SlotBytes, SLOT_LEN as u32, self.slot_bytes)
    }

    /// Checks the payload pool that was announced with `pool_id` and `stride` (TP-080). Its number of slots must be
    /// that of the header ring (TP-083).
    ///
    /// # Errors
    /// [`SuperblockError`] for the first field that differs.
    pub fn check_pool(
        &self,
        expected: &Expected,
        pool_id: PoolId,
        stride: Stride,
    ) -> Result<(), SuperblockError> {
        let check = Check { region: RegionKind::PayloadPool };
        check.incarnation(self, expected)?;
        check.equal(SuperblockField::PoolId, pool_id.get(), self.pool_id.get())?;
        check.equal(SuperblockField::Nslots, expected.nslots.get(), self.nslots)?;
        check.equal(SuperblockField::StrideBytes, stride.get(), self.stride_bytes)?;
        // Peers that leave the field unset write 0 or the null value (TP-077).
        if matches!(self.slot_bytes, 0 | u32::MAX) {
            return Ok(());
        }
        check.equal(SuperblockField::SlotBytes, stride.get(), self.slot_bytes)
    }

    /// The re-check of a mapped region on every accepted announce (TP-081): is it still the same incarnation?
    ///
    /// # Errors
    /// [`SuperblockError`] when magic, layout version or epoch differ.
    pub fn check_unchanged(&self, region: RegionKind, epoch: Epoch) -> Result<(), SuperblockError> {
        let check = Check { region };
        check.equal(SuperblockField::Magic, MAGIC, self.magic)?;
        check.equal(SuperblockField::LayoutVersion, LAYOUT_VERSION, self.layout_version)?;
        check.equal(SuperblockField::Epoch, epoch.get(), self.epoch.get())
    }
}

/// What an announce or attach response said about all regions of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Announced layout version; only [`LAYOUT_VERSION`] passes.
    pub layout_version: u32,
    /// Announced epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream_id: StreamId,
    /// Announced number of header slots, which every pool shares.
    pub nslots: SlotCount,
}

/// A superblock that is not the one expected. The whole region set must be refused (TP-058).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SuperblockError {
    /// A field has another value than announced or required.
    #[error(
        "superblock of {region}: {field} must be {expected} ({expected:#x}), found {found} ({found:#x}); \
         another epoch, stream or implementation owns this file"
    )]
    Mismatch {
        /// The kind of region that was expected.
        region: RegionKind,
        /// The field.
        field: SuperblockField,
        /// The value it must have; negative numbers do not occur.
        expected: u64,
        /// The value it has, as the unsigned number of the same bits.
        found: u64,
    },
}

/// A field of the superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SuperblockField {
    /// `magic`
    Magic,
    /// `layout_version`
    LayoutVersion,
    /// `epoch`
    Epoch,
    /// `stream_id`
    StreamId,
    /// `region_type`
    RegionType,
    /// `pool_id`
    PoolId,
    /// `nslots`
    Nslots,
    /// `slot_bytes`
    SlotBytes,
    /// `stride_bytes`
    StrideBytes,
}

impl fmt::Display for SuperblockField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magic => "magic",
            Self::LayoutVersion => "layout_version",
            Self::Epoch => "epoch",
            Self::StreamId => "stream_id",
            Self::RegionType => "region_type",
            Self::PoolId => "pool_id",
            Self::Nslots => "nslots",
            Self::SlotBytes => "slot_bytes",
            Self::StrideBytes => "stride_bytes",
        })
    }
}

struct Check {
    region: RegionKind,
}

impl Check {
    /// The rows that header ring and pool have in common.
    fn incarnation(&self, found: &Superblock, expected: &Expected) -> Result<(), SuperblockError> {
        self.equal(SuperblockField::LayoutVersion, LAYOUT_VERSION, expected.layout_version)?;
        found.check_unchanged(self.region, expected.epoch)?;
        self.equal(SuperblockField::StreamId, expected.stream_id.get(), found.stream_id.get())?;
        let (kind, found_kind) = (self.region.raw().cast_unsigned(), found.region_type.cast_unsigned());
        self.equal(SuperblockField::RegionType, kind, found_kind)
    }

    fn equal<T: Into<u64> + PartialEq>(
        &self,
        field: SuperblockField,
        expected: T,
        found: T,
    ) -> Result<(), SuperblockError> {
        if expected == found {
            return Ok(());
        }
        let (expected, found) = (expected.into(), found.into());
        Err(SuperblockError::Mismatch { region: self.region, field, expected, found })
    }
}
