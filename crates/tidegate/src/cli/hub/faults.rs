//! How errors of producers and consumers end `hub pub` and `hub sub`.

use tidegate::hub::block::{AttachError, CreateError};
use tidegate::hub::error::{AcquireError, FollowError, OpenError, RegistryError};

use crate::output::{Exit, Stop, with_causes};

/// `what` did not work.
pub(super) fn open(what: &str, error: &OpenError) -> Stop {
    let (exit, code) = match error {
        OpenError::Config(_) => (Exit::Usage, "config"),
        OpenError::Create(error) => creating(error),
        OpenError::Attach(error) => attaching(error),
        OpenError::Registry(error) => match error {
            RegistryError::ConsumerLimit { .. } => (Exit::Refused, "consumer_limit"),
            RegistryError::WriterAlive { .. } => (Exit::Refused, "live_writer"),
            RegistryError::BadStart { .. } => (Exit::Usage, "bad_start"),
            RegistryError::LockTimeout { .. } => (Exit::TimedOut, "lock_timeout"),
            _ => (Exit::Failed, "damaged"),
        },
        _ => (Exit::Failed, "block"),
    };
    Stop::Error { exit, code, message: format!("{what}: {}", with_causes(error)) }
}

/// A block cannot be looked at.
pub(super) fn attach(what: &str, error: &AttachError) -> Stop {
    let (exit, code) = attaching(error);
    Stop::Error { exit, code, message: format!("{what}: {}", with_causes(error)) }
}

/// A channel that went on elsewhere cannot be read there.
pub(super) fn follow(what: &str, error: &FollowError) -> Stop {
    match error {
        FollowError::Acquire(error) => acquire(what, *error),
        FollowError::Successor(error) => open(what, error),
        error => Stop::Error {
            exit: Exit::Failed,
            code: "block",
            message: format!("{what}: {}", with_causes(error)),
        },
    }
}

/// A slot could not be had or given away.
pub(super) fn acquire(what: &str, error: AcquireError) -> Stop {
    let (exit, code) = match error {
        AcquireError::Timeout | AcquireError::NotReady => (Exit::TimedOut, "timed_out"),
        AcquireError::Fenced | AcquireError::Locked { .. } => (Exit::Refused, "fenced"),
        AcquireError::QueueFull => (Exit::Failed, "full"),
        _ => (Exit::Failed, "block"),
    };
    Stop::Error { exit, code, message: format!("{what}: {error}") }
}

fn attaching(error: &AttachError) -> (Exit, &'static str) {
    match error {
        AttachError::Open(error) => match error.errno().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOENT) => (Exit::NotFound, "not_found"),
            Some(rustix::io::Errno::ACCESS) => (Exit::Refused, "permission"),
            _ => (Exit::Failed, "io"),
        },
        AttachError::UntrustedOwner { .. }
        | AttachError::AuthFailed { .. }
        | AttachError::KeyRequired { .. } => (Exit::Refused, "permission"),
        AttachError::SchemaMismatch(_) => (Exit::Refused, "schema_mismatch"),
        AttachError::ConfigMismatch(_) => (Exit::Refused, "config_mismatch"),
        AttachError::Closed => (Exit::NotFound, "closed"),
        _ => (Exit::Failed, "block"),
    }
}

fn creating(_: &CreateError) -> (Exit, &'static str) {
    (Exit::Failed, "create")
}
