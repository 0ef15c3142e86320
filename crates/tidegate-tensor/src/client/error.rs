//! What can go wrong when using a client.

use std::time::Duration;

use super::context::ContextError;
use super::lease::{LeaseLoss, MalformedGrant, Refusal};
use crate::frame::CommitError;
use crate::ids::{Epoch, Seq};
use crate::region::MapError;
use crate::transport::{OfferError, TransportError};

/// A client, or an endpoint of it, could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A setting cannot work.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The media driver is not there or went away.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The conductor's thread could not be started.
    #[error(
        "cannot start the client's thread: {0}; raise the limit of threads, or drive the client by Client::with_invoker"
    )]
    Thread(std::io::Error),
    /// The conductor has 1024 requests waiting (TP-435).
    #[error("the client's command queue is full; try again")]
    TryAgain,
    /// The client was closed, or its thread ended.
    #[error("the client is closed; start another one")]
    Closed,
    /// Nothing happened in time.
    #[error("no answer from a tensor driver within {after:?}; is a node running?")]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The driver refused.
    #[error("the driver refused: {} ({:?})", .0.message, .0.code)]
    Refused(Refusal),
    /// The driver's answer cannot be used.
    #[error(transparent)]
    Malformed(#[from] MalformedGrant),
    /// The regions could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A producer without a driver must be told its stream.
    #[error("a producer without a driver needs a stream id; set ProducerConfig::stream")]
    StreamNeeded,
    /// The regions of a no-driver producer could not be created.
    #[error(transparent)]
    Create(#[from] crate::region::store::StoreError),
}

/// A frame was not published, or not announced. [`PublishError::code`] gives the classic numbers (TP-443).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// There is no lease at the moment, so nothing may be written (TP-307).
    #[error("not attached: {}", .reason.as_ref().map_or_else(|| "waiting for the driver".to_owned(), ToString::to_string))]
    NotAttached {
        /// Why the last lease ended, if there was one.
        reason: Option<LeaseLoss>,
    },
    /// The frame is in its slot, but the descriptor did not go out: consumers see a gap.
    #[error("frame {seq} was written but not announced: {cause}")]
    Unannounced {
        /// The frame.
        seq: Seq,
        /// What the transport says.
        cause: OfferError,
    },
    /// Every slot the next frame may use is held by an open claim (TP-450).
    #[error("the next slot is held by an open claim; commit or abort it first")]
    ClaimsExhausted,
    /// No pool has slots this large (TP-101).
    #[error("a payload of {len} bytes fits no pool; the largest slot holds {largest}")]
    TooLarge {
        /// Bytes asked for.
        len: u64,
        /// Stride of the largest pool.
        largest: u64,
    },
    /// The claim was made in an epoch that is over (TP-448).
    #[error("the claim belongs to epoch {claim}, which is over")]
    StaleClaim {
        /// Epoch of the claim.
        claim: Epoch,
    },
    /// The call does not fit the state of the claim or the mode of the producer (TP-451).
    #[error("the claim cannot be used this way: {0}")]
    Claim(#[from] CommitError),
    /// The producer was closed.
    #[error("the producer's client is closed; start another client")]
    Closed,
}

impl PublishError {
    /// The result code of the table in 23.1.
    #[must_use]
    pub fn code(&self) -> i64 {
        match self {
            Self::NotAttached { .. } => -3,
            Self::Unannounced { cause, .. } => match cause {
                OfferError::BackPressured => -2,
                OfferError::NotConnected => -3,
                OfferError::AdminAction => -4,
                OfferError::Closed => -5,
                _ => -1,
            },
            Self::ClaimsExhausted => -2,
            Self::StaleClaim { .. } => -4,
            Self::Claim(error) => error.code(),
            Self::Closed => -5,
            Self::TooLarge { .. } => -1,
        }
    }
}

/// A consumer cannot be polled any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PollError {
    /// The client was closed.
    #[error("the client is closed; start another one")]
    Closed,
}
