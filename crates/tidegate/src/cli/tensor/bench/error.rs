//! Why a measurement has no result.

use std::io;
use std::time::Duration;

use tidegate::shm::lock::LockError;
use tidegate::shm::region::{AccessError, CreateError, DirError, MapError, OpenError};
use tidegate::tensor::client::{PollError, PublishError};
use tidegate::tensor::tensor::TensorError;
use tidegate_aeron::{AeronError, OfferError};

use super::protocol::Role;
use crate::output::{Exit, Report};

/// A measurement failed. Slow results are results; these are not.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    #[error("cannot {action}: {source}")]
    Io { action: &'static str, source: io::Error },
    #[error(
        "the {role} process sent something else than an answer: {source}; this is a defect, please report it"
    )]
    Answer { role: Role, source: serde_json::Error },
    #[error(
        "the {role} process ended early; see what it wrote to standard error, or whether the kernel killed it"
    )]
    Ended { role: Role },
    #[error("the {role} process did not answer within {after:?}; see whether it is stopped")]
    NoAnswer { role: Role, after: Duration },
    #[error("{role}: {message}")]
    Failed { role: Role, message: String },
    #[error("interrupted before there were results")]
    Interrupted,
    #[error("the other process was silent for {after:?}; see whether it is stopped")]
    Silent { after: Duration },
    #[error(
        "a payload of {bytes} bytes arrived with wrong content in frame {stamp}; this is a defect, please report it"
    )]
    Corrupt { bytes: usize, stamp: u64 },
    #[error(
        "{frames} frames of {bytes} bytes were lost although the reader kept up; this is a defect, please report it"
    )]
    Lost { bytes: usize, frames: u64 },
    #[error(
        "{bytes} bytes fit no slot of the node; its largest holds {largest}; leave the size out of --sizes, or give \
             the default profile a larger stride_bytes"
    )]
    TooLarge { bytes: usize, largest: usize },
    #[error("the node does not list the stream of this measurement any more; see whether it was restarted")]
    StreamGone,
    #[error("cannot publish a measured frame: {0}")]
    Publish(#[from] PublishError),
    #[error("cannot read a measured frame: {0}")]
    Poll(#[from] PollError),
    #[error("cannot describe the payload: {0}")]
    Layout(#[from] TensorError),
    #[error(transparent)]
    Aeron(#[from] AeronError),
    #[error("cannot send the reference message: {0}")]
    Offer(#[from] OfferError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot map the words that the processes share: {0}")]
    Map(#[from] MapError),
    #[error("cannot reach the words that the processes share: {0}")]
    Access(#[from] AccessError),
}

impl Report for BenchError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoAnswer { .. } | Self::Silent { .. } => Exit::TimedOut,
            Self::TooLarge { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoAnswer { .. } | Self::Silent { .. } => "timed_out",
            Self::Corrupt { .. } => "corrupt",
            Self::Lost { .. } => "lost",
            Self::TooLarge { .. } => "too_large",
            Self::Interrupted => "interrupted",
            _ => "bench",
        }
    }
}
