//! What can go wrong between clients and the broker.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

use super::{
    proof::{LONGEST_SECRET, SHORTEST_SECRET},
    wire::{Code, FieldError},
};
use crate::identity::IdentityUnavailable;

/// Why the broker refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedBy {
    /// Endpoint of the broker.
    pub endpoint: String,
    /// Kind of the request.
    pub request: &'static str,
    /// The code of 13.4; `None` for UNKNOWN_CLIENT.
    pub code: Option<Code>,
    /// What the broker says, with the remedy.
    pub message: String,
}

impl std::fmt::Display for RefusedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} refused", self.endpoint, self.request)?;
        if let Some(code) = self.code {
            write!(f, " ({code:?})")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What can go wrong with a [`MessageHub`](super::MessageHub). Refusals by the broker name its endpoint and say what it said.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// The channel belongs to somebody else, or to another block or schema.
    #[error("{0}")]
    Conflict(RefusedBy),
    /// No such channel, or its block is gone.
    #[error("{0}")]
    NotFound(RefusedBy),
    /// The proof, the key or the client id is wrong.
    #[error("{0}")]
    AuthFailed(RefusedBy),
    /// The channel has another schema than expected.
    #[error("{0}")]
    SchemaMismatch(RefusedBy),
    /// Not yet; try again.
    #[error("{0}")]
    Pending(RefusedBy),
    /// The broker does not know this client, after a restart for example; register again.
    #[error("{0}")]
    UnknownClient(RefusedBy),
    /// A nonce was used twice, or the clocks differ too much.
    #[error("{0}")]
    ReplayOrSkew(RefusedBy),
    /// The broker does not accept the request.
    #[error("{0}")]
    BadRequest(RefusedBy),
    /// This broker lacks the extension; do without it (DH-190).
    #[error("{0}")]
    Unsupported(RefusedBy),
    /// No reply in time.
    #[error(
        "{endpoint}: no reply to {request} within {waited:?}; check that the broker runs and is not overloaded"
    )]
    Timeout {
        /// Endpoint of the broker.
        endpoint: String,
        /// What was asked.
        request: &'static str,
        /// For how long.
        waited: Duration,
    },
    /// There is no connection to the broker.
    #[error(
        "{endpoint}: not connected within {waited:?}; start the broker (`tidegate hub broker run`) or check the endpoint"
    )]
    Disconnected {
        /// Endpoint of the broker.
        endpoint: String,
        /// For how long a connection was waited for.
        waited: Duration,
    },
    /// The broker does not admit the CURVE key, or has another one itself.
    #[error(
        "{endpoint}: the handshake failed ({reason}); put this client's public key on the broker's list and check the broker's key"
    )]
    KeyRefused {
        /// Endpoint of the broker.
        endpoint: String,
        /// What the transport says.
        reason: String,
    },
    /// The broker's answer cannot be read.
    #[error(
        "{endpoint}: the reply to {request} cannot be read: {source}; check that broker and client fit each other"
    )]
    BadReply {
        /// Endpoint of the broker.
        endpoint: String,
        /// What was asked.
        request: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The transport refused.
    #[error("{endpoint}: {source}")]
    Transport {
        /// The endpoint.
        endpoint: String,
        /// Why.
        source: tidegate_mq::Error,
    },
    /// The hub was made by another process (DH-206).
    #[error("the hub belongs to the process that made it; make a new one after fork")]
    Forked,
    /// A secret of the wrong length (DH-161).
    #[error(
        "a secret of {len} octets; it must have {SHORTEST_SECRET} to {LONGEST_SECRET}, make one with `tidegate hub secret gen`"
    )]
    SecretLength {
        /// Octets.
        len: usize,
    },
    /// A value that the protocol cannot carry.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A sealed secret that cannot be made or opened.
    #[error("the secret {problem}")]
    Seal {
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// A retry policy that cannot be followed.
    #[error("retry policy: {problem}")]
    RetryPolicy {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl HubError {
    /// The number of Annex B.
    pub fn number(&self) -> u32 {
        match self {
            Self::Conflict(_) => 501,
            Self::NotFound(_) => 502,
            Self::AuthFailed(_) | Self::KeyRefused { .. } => 503,
            Self::SchemaMismatch(_) => 504,
            Self::Pending(_) => 505,
            Self::UnknownClient(_) => 506,
            Self::BadRequest(_) | Self::Unsupported(_) | Self::BadReply { .. } => 507,
            Self::Timeout { .. } => 508,
            Self::Disconnected { .. } => 509,
            Self::ReplayOrSkew(_) => 510,
            Self::Seal { .. } => 503,
            Self::SecretLength { .. } => 154,
            Self::Forked => 901,
            Self::Field(_) | Self::RetryPolicy { .. } => 903,
            Self::Transport { .. } | Self::System { .. } => 904,
        }
    }

    /// Whether a retry policy tries again after this (DH-196).
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NotFound(_) | Self::Pending(_) | Self::Timeout { .. } | Self::Disconnected { .. }
        )
    }
}

/// What can go wrong with the broker itself.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// An endpoint that the broker does not listen on as configured (DH-185, DH-210).
    #[error("{endpoint}: {problem}")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// A directory or file that others may use.
    #[error("{}: {problem}", path.display())]
    NotPrivate {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: &'static str,
    },
    /// A key file that holds no key.
    #[error("{}: {source}; make one with `tidegate mq keygen`", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The transport refused.
    #[error("{endpoint}: {source}")]
    Transport {
        /// The endpoint.
        endpoint: String,
        /// Why.
        source: tidegate_mq::Error,
    },
    /// A file or directory could not be used.
    #[error("{}: {what}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// This process cannot be identified.
    #[error(transparent)]
    Identity(#[from] IdentityUnavailable),
    /// The broker's thread ended by itself.
    #[error("the broker's thread panicked; its log says where, and starting it again is safe")]
    Panicked,
}
