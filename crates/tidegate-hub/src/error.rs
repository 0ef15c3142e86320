//! What the calls of producers and consumers can end in, besides the nine kinds of [`AcquireError`].

use std::io;

use thiserror::Error;
use tidegate_shm::region::AccessError;

pub use crate::core::error::{AcquireError, Holder, ReadBatchError, RegistryError, WriteError};
use crate::{
    block::{AttachError, CreateError},
    config::ConfigInvalid,
    integrity::{ChecksumError, DigesterError},
    layout::BlockUuid,
    schema::{LengthMismatch, ParseError, SchemaMismatch},
    zone::ZoneError,
};

/// Why there is no producer or consumer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigInvalid),
    /// The block could not be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The block was not attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// No place in the block.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Digests cannot be computed.
    #[error(transparent)]
    Digests(#[from] DigesterError),
    /// The mapping does not allow what the role needs.
    #[error("the block cannot be used in this role")]
    Access(#[from] AccessError),
    /// The block that a handover named is another one.
    #[error("block {name} is not what follows block {of}; discover the channel again")]
    NotSuccessor {
        /// Name of its file.
        name: String,
        /// The old block.
        of: BlockUuid,
    },
    /// The process's thread for heartbeats could not be started.
    #[error("the thread that beats for this process could not be started")]
    Upkeep(#[source] io::Error),
}

impl OpenError {
    /// Whether waiting may help: the writer lives, or this process itself or another one is cleaning up just now.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Registry(RegistryError::WriterAlive { .. } | RegistryError::LockTimeout { .. })
                | Self::Attach(AttachError::Locked)
        )
    }
}

/// Why there is no next slot of a channel that is followed from block to block.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FollowError {
    /// As without handovers.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// The channel goes on in a block that cannot be read.
    #[error("the channel goes on in a block that cannot be read")]
    Successor(#[from] OpenError),
}

/// Why a slot cannot be used as a record.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TypedError {
    /// The channel holds other records (DH-116).
    #[error(transparent)]
    Schema(#[from] SchemaMismatch),
    /// The text of the type is not a schema.
    #[error("the schema of the type is not valid")]
    Text(#[from] ParseError),
    /// The slot holds less than a record.
    #[error(transparent)]
    Length(#[from] LengthMismatch),
}

/// Why bytes were not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{len} bytes at {offset} do not lie inside of the {available} bytes of the slot")]
pub struct OutOfSlot {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
    /// Bytes there are.
    pub available: u64,
}

impl OutOfSlot {
    pub(crate) fn new(offset: usize, len: usize, available: u64) -> Self {
        Self { offset: offset as u64, len: len as u64, available }
    }
}

/// Why a slot that is held was not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The channel has no digests (DH-156).
    #[error("the channel has no digests; its producer chooses an algorithm when it makes it")]
    DigestsDisabled,
    /// It did not pass.
    #[error(transparent)]
    Checksum(#[from] ChecksumError),
}

/// What a transaction ended in (9.1).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TxError<E> {
    /// No slot: the closure was not called.
    #[error(transparent)]
    Acquire(AcquireError),
    /// The closure said so; nothing was written or consumed, but in a zone.
    #[error("the transaction was called off: {0}")]
    User(E),
    /// What the closure wrote could not be committed.
    #[error("the slot could not be committed")]
    Commit(#[source] AcquireError),
    /// The slot did not pass its check; the closure was not called.
    #[error(transparent)]
    Checksum(ChecksumError),
    /// The channel does not hold such records; the closure was not called.
    #[error(transparent)]
    Typed(#[from] TypedError),
    /// The zone or its lock was not to be had; the closure was not called.
    #[error(transparent)]
    Zone(#[from] ZoneError),
}

/// As one of the nine kinds. What only batches and lengths can end in does not occur where this is used.
pub(crate) fn kind_of(error: WriteError) -> AcquireError {
    match error {
        WriteError::Acquire(error) => error,
        _ => AcquireError::InvalidState,
    }
}
