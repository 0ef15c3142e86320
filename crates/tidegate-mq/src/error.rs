//! What can go wrong, and the number that bindings of other languages give it.

use std::io;

use thiserror::Error;
use tidegate_io::message::Message;

use crate::endpoint::EndpointError;

/// Result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a socket or a context (MQ-371). Failures that a peer causes are not among them: these are
/// [monitor](crate::monitor) events and counters (MQ-373).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The call would have to wait, and was told not to.
    #[error("nothing can be sent or received at once; wait, or give a timeout")]
    WouldBlock,
    /// The time given has passed.
    #[error("timed out; the peer may be missing, or its queue full")]
    Timeout,
    /// The pattern does not allow this call now: a REQ socket sends and receives in turn, a REP socket receives first.
    #[error("wrong state: {0}")]
    WrongState(&'static str),
    /// No peer has this routing id.
    #[error("no connected peer has the routing id the message is addressed to")]
    HostUnreachable,
    /// The connection that carried the request is gone, and the socket was told to report that.
    #[error("the peer that the request went to is gone; send it again")]
    PeerLost,
    /// This socket type, or this build, cannot do that.
    #[error("not supported: {0}")]
    NotSupported(&'static str),
    /// The endpoint's scheme is not one of tcp, ipc and inproc.
    #[error("{endpoint}: transport \"{scheme}\" is not supported; use tcp://, ipc:// or inproc://")]
    ProtocolNotSupported {
        /// The endpoint as given.
        endpoint: String,
        /// What stands before `://`.
        scheme: String,
    },
    /// The two sockets of an in-process link do not fit each other.
    #[error("{endpoint}: a {ours} socket cannot talk to a {theirs} socket")]
    IncompatibleProtocol {
        /// The endpoint as given.
        endpoint: String,
        /// Type of the calling socket.
        ours: &'static str,
        /// Type of the bound socket.
        theirs: &'static str,
    },
    /// The context is shutting down.
    #[error("the context is shut down")]
    Terminated,
    /// The socket was closed.
    #[error("the socket is closed")]
    Closed,
    /// The endpoint cannot be understood.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A value that an option cannot have, or options that contradict each other.
    #[error("{option}: {problem}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with the value, and what would be right.
        problem: &'static str,
    },
    /// A message that cannot be sent.
    #[error("the message cannot be sent: {0}")]
    InvalidMessage(&'static str),
    /// Somebody else has bound the address, or the routing id is taken.
    #[error("{0}: already in use; choose another or stop its owner")]
    AddressInUse(String),
    /// The address does not belong to this host.
    #[error("{0}: not an address of this host")]
    AddressNotAvailable(String),
    /// No such network interface.
    #[error("{0}: no such network interface or address on this host")]
    NoDevice(String),
    /// The path or name is longer than the operating system takes.
    #[error("{0}: longer than the 107 bytes a socket name may have")]
    NameTooLong(String),
    /// Nothing is bound or connected under this endpoint, or its directory is missing.
    #[error("{0}: not found")]
    NotFound(String),
    /// Nobody dials this endpoint any more: the peer has refused us, or a rule of reconnecting ended it.
    #[error("{0}: given up after a refusal or a failure, as the monitor tells; connect again to try again")]
    Stopped(String),
    /// The context has as many sockets as it may.
    #[error("the context has its limit of {limit} sockets; close some or raise max_sockets")]
    TooManySockets {
        /// The limit.
        limit: usize,
    },
    /// The context has no worker thread, so that only inproc endpoints work.
    #[error("{0}: the context has no I/O worker; create it with io_threads of at least 1")]
    NoIoThread(String),
    /// A part is larger than the context allows.
    #[error("a part of {size} bytes is larger than the limit of {limit}")]
    MessageTooLarge {
        /// Bytes in the part.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The process was forked after the socket was made; its engine runs in the parent only.
    #[error("the socket belongs to the process that made it; make a new context after fork")]
    Forked,
    /// The operating system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried, with the name it was tried on.
        what: String,
        /// The operating system's reason.
        source: io::Error,
    },
}

impl Error {
    /// The number that libzmq would give, on Linux (MQ-371).
    pub fn errno(&self) -> i32 {
        /// Base of the numbers that libzmq adds to the system's.
        const HAUSNUMERO: i32 = 156_384_712;
        match self {
            Self::WouldBlock | Self::Timeout => 11,
            Self::WrongState(_) => HAUSNUMERO + 51,
            Self::IncompatibleProtocol { .. } => HAUSNUMERO + 52,
            Self::Terminated => HAUSNUMERO + 53,
            Self::NoIoThread(_) => HAUSNUMERO + 54,
            Self::HostUnreachable | Self::PeerLost => 113,
            Self::NotSupported(_) => 95,
            Self::ProtocolNotSupported { .. } => 93,
            Self::Closed | Self::Forked => 88,
            Self::Endpoint(_) | Self::InvalidOption { .. } | Self::InvalidMessage(_) => 22,
            Self::AddressInUse(_) => 98,
            Self::AddressNotAvailable(_) => 99,
            Self::NoDevice(_) => 19,
            Self::NameTooLong(_) => 36,
            Self::NotFound(_) => 2,
            Self::Stopped(_) => 111,
            Self::TooManySockets { .. } => 24,
            Self::MessageTooLarge { .. } => 90,
            Self::System { source, .. } => source.raw_os_error().unwrap_or(5),
        }
    }
}

/// A message that was not sent, and why; nothing of it was queued (MQ-372).
#[derive(Debug, Error)]
#[error("{error}")]
pub struct SendError<M = Message> {
    /// The message as it was given.
    pub message: M,
    /// Why it was not sent.
    #[source]
    pub error: Error,
}

impl<M> From<SendError<M>> for Error {
    fn from(failed: SendError<M>) -> Self {
        failed.error
    }
}
