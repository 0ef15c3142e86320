//! Why a measurement has no result.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::output::{Exit, Report, exit_of_io};

#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("cannot {action}: {source}")]
    Io { action: String, source: io::Error },
    #[error("cannot run the C compiler cc: {source}; install gcc, or leave libzmq out with --without-libzmq")]
    NoCompiler { source: io::Error },
    #[error(
        "cannot build the peer of libzmq: {reason}; install libzmq3-dev (`make bench-messaging` does), or leave libzmq out \
         with --without-libzmq"
    )]
    NoLibzmq { reason: String },
    #[error("{program} cannot do it: {why}")]
    Cannot { program: String, why: String },
    #[error("{program} ended without a result ({status}); see what it wrote to standard error")]
    Ended { program: String, status: String },
    #[error("{program} did not tell '{field}' within {after:?}; see whether it is stuck")]
    NoAnswer { program: String, field: String, after: Duration },
    #[error("{program} printed something else than the protocol of peers says: {source}")]
    Answer { program: String, source: serde_json::Error },
    #[error("{needed} files must be open at a time, and the limit is {limit}; raise it with `ulimit -n`")]
    Files { needed: usize, limit: u64 },
    #[error(
        "{} holds nothing to compare with: give a file that `tidegate mq bench --save` made, with the same measurements",
        path.display()
    )]
    Baseline { path: PathBuf },
    #[error(transparent)]
    Lock(#[from] tidegate::shm::lock::LockError),
    #[error("interrupted before all was measured")]
    Interrupted,
}

impl BenchError {
    pub(crate) fn io(action: String, source: io::Error) -> Self {
        Self::Io { action, source }
    }
}

impl Report for BenchError {
    fn exit(&self) -> Exit {
        match self {
            Self::Io { source, .. } => exit_of_io(source).0,
            Self::NoAnswer { .. } => Exit::TimedOut,
            Self::NoCompiler { .. } | Self::NoLibzmq { .. } => Exit::NotFound,
            Self::Baseline { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Io { source, .. } => exit_of_io(source).1,
            Self::NoAnswer { .. } => "timed_out",
            Self::NoCompiler { .. } => "no_compiler",
            Self::NoLibzmq { .. } => "no_libzmq",
            Self::Baseline { .. } => "usage",
            Self::Interrupted => "interrupted",
            _ => "bench",
        }
    }
}
