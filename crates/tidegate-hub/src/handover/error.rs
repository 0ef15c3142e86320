//! Why a channel stays where it is.

use tidegate_shm::region::AccessError;

use super::Answers;
use crate::{
    block::CreateError,
    config::ConfigInvalid,
    error::{AcquireError, OpenError},
};

/// Why a channel stays where it is. But for [`HandoverError::Over`] the old block goes on as if nothing had been.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// The configuration of the new block is not valid.
    #[error(transparent)]
    Config(#[from] ConfigInvalid),
    /// The new block could not be made.
    #[error("the successor could not be made")]
    Create(#[from] CreateError),
    /// The new block could not be used.
    #[error("the successor could not be used")]
    Open(#[from] OpenError),
    /// Another handover of this channel is under way.
    #[error("another handover of this channel is under way; finish or cancel it first")]
    UnderWay,
    /// Consumers do not come along.
    #[error(
        "{} consumers are ready, {} refused, {} did not answer; the handover was called off: ask them why, or confirm less \
         strictly",
        .0.ready, .0.refused, .0.silent
    )]
    NotConfirmed(Answers),
    /// Slots were still being written at the deadline.
    #[error(
        "slots were still being written at the deadline; the handover was called off: commit them, or let it abort them"
    )]
    Pending,
    /// The handover was made or called off already: InvalidState (DH-229).
    #[error("the handover is over; begin another one")]
    Over,
    /// The old block is not this producer's any more.
    #[error(transparent)]
    Acquire(AcquireError),
    /// The mapping does not allow it.
    #[error("the block cannot be used in this role")]
    Access(#[from] AccessError),
}

impl From<AcquireError> for HandoverError {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Timeout => Self::Pending,
            error => Self::Acquire(error),
        }
    }
}

impl HandoverError {
    /// The number of Annex B.
    pub fn code(&self) -> u16 {
        match self {
            Self::Over | Self::UnderWay => 209,
            Self::Pending => 201,
            Self::NotConfirmed(_) => 206,
            _ => 904,
        }
    }
}
