//! Why a vertex ends before it has finished.

use thiserror::Error;
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::ids::Position;

use crate::{
    config::ConfigError,
    fence::{FenceError, Fenced, Running},
    lane::{door::ListenError, supervise::AttachError},
    ledger::LedgerError,
    sink::SinkError,
    source::SourceError,
};

/// Why a vertex ended without having finished.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VertexError {
    /// The pipeline file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The fence could not be made.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The source cannot go on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The sink cannot go on.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A sink refuses an output, and there is no sink for dead letters.
    #[error(
        "the sink {sink} refuses an output of the input at {position}: {reason}; add a sink of role dlq, or set \
         udf.retry.on_exhausted to drop"
    )]
    Refused {
        /// The sink.
        sink: String,
        /// Position of the input.
        position: u64,
        /// What the sink said.
        reason: String,
    },
    /// Progress cannot be kept.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A worker cannot be attached, and never was.
    #[error(transparent)]
    Worker(#[from] AttachError),
    /// No worker can attach by itself.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A thread or descriptor is missing.
    #[error("cannot start lane {lane}")]
    Lane {
        /// Its number.
        lane: u32,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no thread for the vertex.
    #[error("cannot start the thread of the vertex")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
    /// Workers broke the protocol twice in a row (VX-233, 9.1).
    #[error("the workers of lane {lane} broke the protocol twice in a row: {violation}")]
    Protocol {
        /// The lane.
        lane: u32,
        /// What the second did.
        violation: tidegate_udf::ring::Violation,
    },
    /// The ownership store cannot be used.
    #[cfg(feature = "nats")]
    #[error("ownership: {0}")]
    Ownership(#[from] crate::nats::NatsError),
    /// Every partition is refused until an operator has looked at it (VX-714).
    #[error("no partition may be run: {what}")]
    Regressed {
        /// What was found of the first.
        what: String,
    },
    /// The source has other inputs than the owner before has made an epoch of.
    #[error(
        "epoch {epoch} of partition {partition} ends at {last}, as its last owner said, and the source has an input at {found} \
         in it that is none of that epoch's; is it the same source?"
    )]
    NotIntended {
        /// The partition.
        partition: u32,
        /// The epoch.
        epoch: u64,
        /// Position of its last input.
        last: u64,
        /// Position that was read.
        found: u64,
    },
    /// Workers ended more often than `udf.max_restarts` allows (VX-436).
    #[error(
        "{workers} workers of lane {lane} ended within udf.restart_window, more than udf.max_restarts allows; the last one: {why}"
    )]
    Restarts {
        /// The lane.
        lane: u32,
        /// How many.
        workers: usize,
        /// How the last one ended.
        why: String,
    },
    /// The ledger's disk is too slow (VX-766).
    #[error(
        "epoch {epoch} of partition {partition} has waited for the ledger for more than {} ms (epoch.rto); its disk does not keep \
         up: give ledger.path a faster one, or raise epoch.interval", longest.0 / 1_000_000
    )]
    Behind {
        /// The partition.
        partition: u32,
        /// The epoch.
        epoch: u64,
        /// How long it may wait.
        longest: Nanos,
    },
    /// The right to write was lost.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The right to write was lost, and writes from before do not end (VX-733).
    #[error("partition {partition} was fenced and these writes do not end: {running}")]
    Pending {
        /// The partition.
        partition: u32,
        /// What still runs.
        running: Running,
    },
}

impl VertexError {
    /// Whether only the partition that it happened to is lost, and not the vertex (VX-726).
    pub(super) fn is_loss_of_ownership(&self) -> bool {
        matches!(
            self,
            Self::Fenced(_)
                | Self::Sink(SinkError::Fenced(_) | SinkError::Newer { .. } | SinkError::Refused { .. })
        )
    }

    /// Where a partition was to go on whose source cannot: no other session of it could either.
    pub(super) fn source_gap(&self) -> Option<Position> {
        match self {
            Self::Source(error) => error.gap(),
            Self::NotIntended { found, .. } => Some(Position(*found)),
            _ => None,
        }
    }

    /// Whether another session of the partition, here or elsewhere, may do without it: a server that is not there for a while, or
    /// a sink that knows a session which the ownership store forgot.
    pub(super) fn ends_a_session(&self) -> bool {
        match self {
            Self::Sink(SinkError::Regressed { .. }) => true,
            #[cfg(feature = "nats")]
            Self::Sink(SinkError::Nats(error)) | Self::Source(SourceError::Nats(error)) => {
                use crate::nats::NatsError;
                matches!(error, NatsError::Connect { .. } | NatsError::Call { .. })
            }
            _ => false,
        }
    }
}
