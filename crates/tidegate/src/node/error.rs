//! What can go wrong with a node.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_aeron::AeronError;
use tidegate_shm::lock::LockError;
use tidegate_shm::process::ProcessError;
use tidegate_tensor::agent::RunnerError;
use tidegate_tensor::driver::DriverAgentError;

/// A node could not be started, found or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// There is no node on the directory.
    #[error("no node is running on {}; start one with `tidegate up{}`", dir.display(), dir_option(dir, *default_dir))]
    NotRunning {
        /// The directory.
        dir: PathBuf,
        /// Whether it is the one that is used without options.
        default_dir: bool,
    },
    /// The node is not ours to use.
    #[error(
        "the node on {} belongs to another user; become that user, or start a node of your own with \
         `tidegate up --dir DIR`",
        dir.display()
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
    },
    /// Another node holds the directory.
    #[error("a node runs on {} already{}; use it, stop it, or choose another --dir", dir.display(), pid_text(*pid))]
    Held {
        /// The directory.
        dir: PathBuf,
        /// Its process, where known.
        pid: Option<u32>,
    },
    /// The lock could not be taken for another reason.
    #[error(transparent)]
    Lock(LockError),
    /// The directory cannot be used.
    #[error("cannot use {} as a node directory: {reason}; choose another --dir", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// A file of the node cannot be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The description was not written by a node of this version.
    #[error("{} does not describe a node of this version: {source}; restart the node", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The configuration file cannot be used.
    #[cfg(feature = "hub")]
    #[error("{}: {source}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// The broker did not start, or ended.
    #[cfg(feature = "hub")]
    #[error("the broker of data channels: {0}; `enabled = false` in [hub.broker] starts the node without it")]
    Broker(#[from] tidegate_hub::broker::BrokerError),
    /// The media driver did not start.
    #[error(transparent)]
    MediaDriver(#[from] AeronError),
    /// The tensor driver did not start, or ended.
    #[error(transparent)]
    Driver(#[from] DriverAgentError),
    /// The thread of a service could not be started or panicked.
    #[error(transparent)]
    Thread(RunnerError<DriverAgentError>),
    /// The node cannot say which process it is.
    #[error("cannot find out the identity of this process: {0}; is /proc mounted?")]
    Identity(ProcessError),
    /// The node did not answer.
    #[error("the node on {} did not answer within {after:?}; see whether process {pid} is stopped", dir.display())]
    NoAnswer {
        /// The directory.
        dir: PathBuf,
        /// Its process.
        pid: u32,
        /// How long was waited.
        after: Duration,
    },
    /// The node refused.
    #[error("{message}")]
    Refused {
        /// One stable word.
        code: String,
        /// For people.
        message: String,
    },
}

fn dir_option(dir: &std::path::Path, default_dir: bool) -> String {
    if default_dir { String::new() } else { format!(" --dir {}", dir.display()) }
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}
