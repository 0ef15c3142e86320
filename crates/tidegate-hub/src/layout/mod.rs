//! The bytes of a block: what lies where, and reading and writing its descriptor (chapter 3 of the sheet).
//!
//! ```text
//!  0x0000  D  header page, zone and identity page      fixed when the block is complete
//!  0x2000  C  control page                             the acting writer's
//!  0x3000  D  schema text
//!          S  sync, metrics, locks, consumers, zones   everybody's
//!          P  slot records, digests, slots             the acting writer's
//! ```
//!
//! Area D is read once into private memory, checked there, and becomes a [`Descriptor`]; nothing that decides about an
//! offset, a length or a policy is read from shared memory again (DH-012, DH-022). Creator and attacher compute all
//! offsets with [`Geometry::compute`].

mod decode;
mod descriptor;
mod encode;
mod geometry;
mod mismatch;
mod name;
pub mod pages;
mod policy;
mod proved;
mod secret;
mod shape;

#[cfg(test)]
mod tests;

pub use decode::{AreaCopy, FeatureUse, LayoutError, decode};
pub use descriptor::{
    BlockSpec, BlockUuid, Descriptor, Features, Identity, InvalidUuid, SchemaInfo, ZoneSpec,
};
pub use encode::{Birth, EncodeError, Encoded, encode};
pub use geometry::{Extent, Geometry, REGION_NAMES, Sizes};
pub use mismatch::{Expected, Mismatch};
pub use name::{ChannelName, ChannelNameError};
pub use policy::{
    DigestAlg, DigestPolicy, OnHeld, Orphan, Overflow, PageMode, Policy, SecurityLevel, SyncPolicy,
};
pub use secret::{DerivedKey, KeyId, KeyLabel, Secret, SecretUnusable};
#[cfg(not(loom))]
pub(crate) use secret::{keyed, same_tag};

/// Major version of the layout this library writes (DH-294).
pub const LAYOUT_MAJOR: u16 = 1;
/// Minor version of the layout this library writes.
pub const LAYOUT_MINOR: u16 = 0;
/// The oldest major version this library reads.
pub const MIN_SUPPORTED_MAJOR: u16 = 1;

/// First bytes of every block.
pub const MAGIC: [u8; 8] = *b"TDGHUB\x1a\n";
/// Reads differently on a machine of the other byte order.
pub const ENDIAN_TAG: u32 = 0x0102_0304;
/// Bytes of the header page and the zone and identity page together.
pub const DESCRIPTOR_LEN: usize = 0x2000;
/// Bytes of a cache line; every structure is a multiple of it.
pub const LINE: usize = 64;
/// Grain of all regions but the slots.
pub const PAGE: u64 = 4096;
/// No block is shorter: descriptor, control page and at least one page of schema text.
pub const MIN_BLOCK_LEN: u64 = 0x4000;

/// Rows the consumer table can have.
pub const MAX_CONSUMERS: u32 = 32;
/// Rows it has unless told otherwise.
pub const DEFAULT_CONSUMERS: u32 = 8;
/// Locks of every block.
pub const LOCKS: u32 = 32;
/// Locks 0 to 7 are the system's.
pub const SYSTEM_LOCKS: u32 = 8;
/// The first of them belong to the zones with the same numbers, where nothing else is configured.
pub const ZONE_LOCKS: u32 = 4;
/// Zones a block can have.
pub const MAX_ZONES: usize = 16;
/// Bytes a zone can have.
pub const MAX_ZONE_SIZE: u64 = 16 << 20;
/// Slots a ring can have.
pub const MAX_SLOTS: u32 = 1 << 20;
/// Bytes a slot can have.
pub const MAX_SLOT_SIZE: u64 = 1 << 32;
/// Bytes a schema text can have.
pub const MAX_SCHEMA_TEXT: u32 = 65_536;
/// Ids end before this one.
pub const MAX_SLOT_ID: u64 = 1 << 60;

/// What `lock_index`, `zone_index` and `text_index` hold when there is none.
pub const NO_INDEX: u32 = u32::MAX;
/// Zone flag: consumers may write.
pub const ZONE_CONSUMER_WRITABLE: u32 = 1;
/// Lock flag: in use.
pub const LOCK_ALLOCATED: u32 = 1;
/// Lock flag: taken from a dead owner and not repaired since.
pub const LOCK_POISONED: u32 = 2;
/// Lock flag: not for users.
pub const LOCK_SYSTEM: u32 = 4;

const CONTROL_OFF: u64 = 0x2000;
const CONTROL_LEN: u64 = size_of::<pages::ControlPage>() as u64;
pub(crate) const SCHEMA_OFF: u64 = 0x3000;
const SYNC_LEN: u64 = size_of::<pages::SyncPage>() as u64;
const METRICS_LEN: u64 = size_of::<pages::MetricsPage>() as u64;
const LOCK_TABLE_LEN: u64 = 4096;

const _: () = {
    assert!(size_of::<pages::HeaderPage>() + size_of::<pages::IdentityPage>() == DESCRIPTOR_LEN);
    assert!(CONTROL_OFF as usize == DESCRIPTOR_LEN && SCHEMA_OFF == CONTROL_OFF + CONTROL_LEN);
    assert!(MIN_BLOCK_LEN == SCHEMA_OFF + PAGE);
    assert!(LOCKS as u64 * size_of::<pages::LockRecord>() as u64 <= LOCK_TABLE_LEN);
};

/// How far a block is in its life (`init_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitState {
    /// Not even begun.
    Raw = 0,
    /// Being made.
    Building = 1,
    /// In use.
    Ready = 2,
    /// Nothing new is written; what is there can be read.
    Closing = 3,
    /// Over.
    Closed = 4,
}

impl InitState {
    /// What `code` stands for, if anything.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Building),
            2 => Some(Self::Ready),
            3 => Some(Self::Closing),
            4 => Some(Self::Closed),
            _ => None,
        }
    }

    /// The value of the word.
    pub const fn code(self) -> u32 {
        self as u32
    }
}
