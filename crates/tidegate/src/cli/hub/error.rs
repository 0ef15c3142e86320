//! How errors of the broker and its clients end a command.

use std::path::PathBuf;

use tidegate::hub::broker::{BrokerError, HubError};
use tidegate::hub::secret::SecretError;

use crate::output::{Exit, HubExit, Report, Stop, exit_of_io};

/// No broker was found.
#[derive(Debug, thiserror::Error)]
#[error(
    "no broker is running: none in a node on {}, none at {endpoint}; start one with `tidegate up` or \
     `tidegate hub broker run`, or name one with --endpoint",
    dir.display()
)]
pub(super) struct NoBroker {
    /// Directory of the node.
    pub(super) dir: PathBuf,
    /// Where a broker without a node would be.
    pub(super) endpoint: String,
}

impl Report for NoBroker {
    fn exit(&self) -> Exit {
        Exit::Hub(HubExit::NotFound)
    }

    fn code(&self) -> &'static str {
        "no_broker"
    }
}

impl Report for HubError {
    fn exit(&self) -> Exit {
        match self {
            Self::NotFound(_) | Self::Disconnected { .. } => Exit::Hub(HubExit::NotFound),
            Self::AuthFailed(_) | Self::KeyRefused { .. } | Self::ReplayOrSkew(_) => {
                Exit::Hub(HubExit::Permission)
            }
            Self::Conflict(_) | Self::UnknownClient(_) => Exit::Hub(HubExit::Unsafe),
            Self::SchemaMismatch(_) => Exit::Hub(HubExit::Damaged),
            Self::Field(_) | Self::RetryPolicy { .. } => Exit::Usage,
            Self::Transport { source, .. } => of_hub(source.exit()),
            Self::System { source, .. } => of_hub(exit_of_io(source).0),
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "unknown_channel",
            Self::Disconnected { .. } => "no_broker",
            Self::AuthFailed(_) => "auth_failed",
            Self::KeyRefused { .. } => "key_refused",
            Self::Conflict(_) => "conflict",
            Self::SchemaMismatch(_) => "schema_mismatch",
            Self::ReplayOrSkew(_) => "replay_or_skew",
            Self::UnknownClient(_) => "unknown_client",
            Self::Timeout { .. } => "no_answer",
            Self::Pending(_) => "pending",
            Self::Unsupported(_) => "unsupported",
            Self::BadRequest(_) | Self::BadReply { .. } => "bad_request",
            Self::Field(_) | Self::RetryPolicy { .. } => "usage",
            Self::Transport { source, .. } => source.code(),
            Self::System { source, .. } => exit_of_io(source).1,
            _ => "broker",
        }
    }
}

impl Report for BrokerError {
    fn exit(&self) -> Exit {
        match self {
            Self::Endpoint { .. } => Exit::Hub(HubExit::Unsafe),
            Self::NotPrivate { .. } => Exit::Hub(HubExit::Permission),
            Self::KeyFile { .. } => Exit::Usage,
            Self::Transport { source, .. } => of_hub(source.exit()),
            Self::File { source, .. } | Self::System { source, .. } => of_hub(exit_of_io(source).0),
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Endpoint { .. } => "endpoint_refused",
            Self::NotPrivate { .. } => "not_private",
            Self::KeyFile { .. } => "bad_key",
            Self::Transport { source, .. } => source.code(),
            Self::File { source, .. } | Self::System { source, .. } => exit_of_io(source).1,
            _ => "broker",
        }
    }
}

impl Report for SecretError {
    fn exit(&self) -> Exit {
        match self {
            Self::Exposed { .. } => Exit::Hub(HubExit::Permission),
            Self::File { source, .. } => of_hub(exit_of_io(source).0),
            Self::Unusable(_) | Self::NotAFile { .. } | Self::Text { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Exposed { .. } => "not_private",
            Self::File { source, .. } => exit_of_io(source).1,
            Self::Unusable(_) | Self::NotAFile { .. } | Self::Text { .. } => "bad_key",
            _ => "secret",
        }
    }
}

/// What ends a command of other parts, with the codes of `tidegate hub`.
pub(super) fn with_codes_of_hub(stop: Stop) -> Stop {
    match stop {
        Stop::Error { exit, code, message } => Stop::Error { exit: of_hub(exit), code, message },
        stop => stop,
    }
}

/// The code of `tidegate hub` for what ends another command with `exit` (DH-266). There is none for what takes too long.
fn of_hub(exit: Exit) -> Exit {
    match exit {
        Exit::NotFound => Exit::Hub(HubExit::NotFound),
        Exit::Refused => Exit::Hub(HubExit::Permission),
        Exit::TimedOut => Exit::Failed,
        exit => exit,
    }
}
