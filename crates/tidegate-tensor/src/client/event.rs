//! What a client tells the application about its endpoints.

use super::lease::{LeaseLoss, Refusal};
use super::mapping::UnmapReason;
use crate::ids::{ClientId, Epoch, StreamId};
use crate::region::MapError;
use crate::transport::TransportError;
use crate::uri::FallbackUri;

/// Receives [`ClientEvent`]s on the duty cycle's thread (TP-436). Must not block.
pub type Listener = Box<dyn FnMut(ClientEvent) + Send>;

/// Something changed. Frames are not events: producers and consumers handle those themselves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The connection to the media driver is up.
    Connected,
    /// The connection was lost or could not be made; the client goes on trying.
    Disconnected {
        /// Why.
        reason: TransportError,
    },
    /// The driver granted a lease, or a no-driver producer made its regions.
    Attached {
        /// The stream.
        stream: StreamId,
        /// The client id of the lease.
        client: ClientId,
        /// The epoch.
        epoch: Epoch,
    },
    /// A lease ended; the client asks for a new one.
    LeaseLost {
        /// The stream.
        stream: StreamId,
        /// Why.
        loss: LeaseLoss,
    },
    /// The driver refused to attach an endpoint that was attached before; the client asks again.
    Refused {
        /// The stream.
        stream: StreamId,
        /// What the driver says.
        refusal: Refusal,
    },
    /// A consumer reads frames of this epoch from now on.
    Mapped {
        /// The stream.
        stream: StreamId,
        /// The epoch.
        epoch: Epoch,
    },
    /// A consumer gave its mapping up.
    Unmapped {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: UnmapReason,
    },
    /// Regions were refused (TP-067); said once per stream and epoch.
    MapFailed {
        /// The stream.
        stream: StreamId,
        /// The epoch.
        epoch: Epoch,
        /// Why, with region, step and cause.
        error: MapError,
    },
    /// Shared memory is not used for this stream.
    Fallback {
        /// The stream.
        stream: StreamId,
        /// Where payloads are to be had instead.
        uri: Option<FallbackUri>,
    },
}
