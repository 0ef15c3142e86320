//! What can go wrong with a zone.

use tidegate_shm::{fork::Forked, region::AccessError};

use crate::{
    identity::ProcessKey,
    integrity::DigesterError,
    lock::LockError,
    schema::{ParseError, SchemaMismatch},
};

/// What can go wrong with a zone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// The block has fewer zones.
    #[error("there is no zone {index}; the block has {zones}")]
    NoSuchZone {
        /// Asked for.
        index: usize,
        /// There are.
        zones: usize,
    },
    /// The record does not fit into the zone.
    #[error("zone {index} has {size} bytes, the record {needed}; raise the size of the zone at the producer")]
    ZoneTooSmall {
        /// Which zone.
        index: usize,
        /// Bytes of the zone.
        size: u64,
        /// Bytes of the record.
        needed: u64,
    },
    /// The zone holds something else.
    #[error(transparent)]
    SchemaMismatch(#[from] SchemaMismatch),
    /// The schema of the record cannot be read.
    #[error(transparent)]
    Schema(#[from] ParseError),
    /// This consumer may not write the zone (DH-139).
    #[error("zone {index} is not for consumers to write; its producer permits it with `consumer_writable`")]
    ReadOnly {
        /// Which zone.
        index: usize,
    },
    /// An update was never finished (DH-141).
    #[error("zone {index} is torn: {} did not finish an update; its writer has to repair it", who(*.writer))]
    TornZone {
        /// Which zone.
        index: usize,
        /// Who died over it; none if a panic ended the update.
        writer: Option<ProcessKey>,
    },
    /// Somebody updates the zone without its lock, or an update of the caller's own is under way.
    #[error("zone {index} is being updated by {}; updates need the zone's lock, or a single writer", who(*.writer))]
    Busy {
        /// Which zone.
        index: usize,
        /// Who, if known.
        writer: Option<ProcessKey>,
    },
    /// Updates ran all the time.
    #[error("zone {index} was being updated all the time; try again, or update less often")]
    Timeout {
        /// Which zone.
        index: usize,
    },
    /// The lock of the zone was not to be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There are no digests, or no key for them.
    #[error(transparent)]
    Digest(#[from] DigesterError),
    /// A private copy of the wrong length.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The handle was inherited by a forked child (DH-011).
    #[error(transparent)]
    Forked(#[from] Forked),
}

fn who(writer: Option<ProcessKey>) -> String {
    writer.map_or_else(|| "somebody".to_owned(), |key| format!("process {key}"))
}

impl ZoneError {
    /// The number of Annex B.
    pub fn code(&self) -> u16 {
        match self {
            Self::SchemaMismatch(_) | Self::Schema(_) => 117,
            Self::Busy { .. } => 206,
            Self::Timeout { .. } => 214,
            Self::TornZone { .. } => 305,
            Self::ZoneTooSmall { .. } => 306,
            Self::Lock(error) => error.code(),
            Self::Digest(error) => error.code(),
            Self::Forked(_) => 901,
            Self::NoSuchZone { .. } | Self::ReadOnly { .. } => 903,
            Self::Access(_) => 904,
        }
    }
}
