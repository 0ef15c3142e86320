//! What the calls of producers and consumers can end in, besides the nine kinds of [`AcquireError`].

use std::io;

use thiserror::Error;
use tidegate_shm::region::AccessError;

pub use crate::core::error::{AcquireError, Holder, ReadBatchError, RegistryError, WriteError};
use crate::{
    block::{AttachError, CreateError},
    config::ConfigInvalid,
    schema::{LengthMismatch, ParseError, SchemaMismatch},
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
    /// The mapping does not allow what the role needs.
    #[error("the block cannot be used in this role")]
    Access(#[from] AccessError),
    /// The channel demands digests of every slot, which these handles neither make nor verify.
    #[error("the channel demands digests, which this handle cannot provide; use the digest policy Manual")]
    DigestsDemanded,
    /// The process's thread for heartbeats could not be started.
    #[error("the thread that beats for this process could not be started")]
    Upkeep(#[source] io::Error),
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

/// What a transaction ended in (9.1).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TxError<E> {
    /// No slot: the closure was not called.
    #[error(transparent)]
    Acquire(AcquireError),
    /// The closure said so; nothing was written or consumed.
    #[error("the transaction was called off: {0}")]
    User(E),
    /// What the closure wrote could not be committed.
    #[error("the slot could not be committed")]
    Commit(#[source] AcquireError),
    /// The channel does not hold such records; the closure was not called.
    #[error(transparent)]
    Typed(#[from] TypedError),
}

/// As one of the nine kinds. What only batches and lengths can end in does not occur where this is used.
pub(crate) fn kind_of(error: WriteError) -> AcquireError {
    match error {
        WriteError::Acquire(error) => error,
        _ => AcquireError::InvalidState,
    }
}
