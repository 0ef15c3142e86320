//! What can come of asking for a lease, and of holding one.

use tidegate_shm::clock::Nanos;

use crate::ids::{ClientId, LeaseId, NodeId, StreamId};
use crate::region::{RegionSpec, SpecError};

/// A lease that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::client) struct Grant {
    pub lease: LeaseId,
    pub stream: StreamId,
    pub client: ClientId,
    /// `None` also when the driver sent one outside 1..=1023 (16.2).
    pub node: Option<NodeId>,
    pub regions: RegionSpec,
    /// The driver's own deadline for the first keepalive.
    pub first_deadline: Option<Nanos>,
}

/// A refusal of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The driver's code.
    pub code: RefusalCode,
    /// The driver's text.
    pub message: String,
}

/// Why a driver refused (TP-153).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The driver does not implement what was asked.
    Unsupported,
    /// Malformed or inconsistent request.
    InvalidParams,
    /// Valid, but refused by policy or state.
    Rejected,
    /// The driver failed; trying again later may work.
    InternalError,
}

/// Why a lease ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseLoss {
    /// The driver says so.
    #[error("the driver revoked the lease: {message}")]
    Revoked {
        /// The driver's text.
        message: String,
    },
    /// The driver shut down.
    #[error("the driver shut down")]
    Shutdown,
    /// No keepalive could be sent in time (TP-296).
    #[error("no keepalive reached the driver within the lease")]
    KeepaliveFailed,
    /// The driver has not announced the stream for three periods (TP-305).
    #[error("the driver has been silent for three announce periods")]
    DriverSilent,
    /// The connection to the media driver was lost.
    #[error("the media driver is gone")]
    TransportLost,
    /// The regions of the lease could not be mapped.
    #[error("the regions of the lease could not be mapped")]
    MappingFailed,
    /// The endpoint gave the lease back.
    #[error("the lease was given back")]
    Released,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::client) enum LeaseEvent {
    Granted(Grant),
    Lost(LeaseLoss),
    /// Reported to the application; the machine goes on with backoff.
    Refused(Refusal),
    /// An OK that cannot be used (TP-289).
    Malformed(MalformedGrant),
    /// Detached for good.
    Closed,
}

/// Why an OK response was not accepted (16.2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedGrant {
    /// The regions do not pass.
    #[error("the driver's attach response is unusable: {0}")]
    Regions(#[from] SpecError),
    /// The lease id is absent.
    #[error("the driver's attach response carries no lease id")]
    NoLease,
    /// Another stream than the one asked for.
    #[error("the driver answered for stream {found} instead of {expected}")]
    OtherStream {
        /// Asked for.
        expected: StreamId,
        /// Answered.
        found: StreamId,
    },
    /// The lease had already run out when it arrived.
    #[error("the driver's attach response names a deadline in the past")]
    Expired,
}
