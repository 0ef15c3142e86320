//! Why a measurement has no result.

use std::io;
use std::time::Duration;

use crate::output::{Exit, Report};

#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    #[error("cannot {action}: {source}")]
    Io { action: String, source: io::Error },
    #[error("cannot run the C compiler cc: {source}; install gcc, or leave libzmq out with --without-libzmq")]
    NoCompiler { source: io::Error },
    #[error(
        "cannot build the peer of libzmq: {reason}; install libzmq3-dev (`make bench-messaging` does), or leave libzmq out \
         with --without-libzmq"
    )]
    NoLibzmq { reason: String },
    #[error("{program} ended without a result; see what it wrote to standard error")]
    Ended { program: String },
    #[error("{program} gave no result within {after:?}; see whether it is stuck")]
    NoAnswer { program: String, after: Duration },
    #[error("{program} printed something else than a result: {source}")]
    Answer { program: String, source: serde_json::Error },
    #[error("interrupted before there were results")]
    Interrupted,
}

impl Report for BenchError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoAnswer { .. } => Exit::TimedOut,
            Self::NoCompiler { .. } | Self::NoLibzmq { .. } => Exit::NotFound,
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoAnswer { .. } => "timed_out",
            Self::NoCompiler { .. } => "no_compiler",
            Self::NoLibzmq { .. } => "no_libzmq",
            Self::Interrupted => "interrupted",
            _ => "bench",
        }
    }
}
