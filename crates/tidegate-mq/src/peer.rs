//! What is known of the peer that a message came from (MQ-121).

use std::{fmt, sync::Arc};

use bytes::Bytes;
use tidegate_zmtp::socket_type::SocketType;

use crate::state::PeerInfo;

/// Under which name a connection's address is kept among its properties.
pub(crate) const PEER_ADDRESS: &str = "Peer-Address";

/// A peer, as it described itself in the handshake and as the authenticator calls it. Cheap to clone.
#[derive(Clone)]
pub struct Peer(Arc<PeerInfo>);

impl Peer {
    pub(crate) fn new(info: Arc<PeerInfo>) -> Self {
        Self(info)
    }

    /// Its socket type; `None` when it did not say, which only `allow_missing_socket_type` lets pass.
    pub fn socket_type(&self) -> Option<SocketType> {
        self.0.socket_type
    }

    /// The routing id that it gave itself; empty when it has none.
    pub fn routing_id(&self) -> &[u8] {
        &self.0.routing_id
    }

    /// What the authenticator calls it; empty when nobody was asked.
    pub fn user_id(&self) -> &[u8] {
        &self.0.user_id
    }

    /// `NULL`, `PLAIN` or `CURVE`.
    pub fn mechanism(&self) -> &'static str {
        self.0.mechanism
    }

    /// Numeric IP address without port; `localhost:UID:GID:PID` for ipc; empty for inproc.
    pub fn address(&self) -> &str {
        self.0
            .metadata
            .get(PEER_ADDRESS)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }

    /// A property by name, without regard to case: `Socket-Type`, `Routing-Id` or `Identity`, `User-Id`,
    /// `Peer-Address`, and whatever else the peer or the authenticator said.
    pub fn property(&self, name: &str) -> Option<&[u8]> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("Socket-Type") {
            self.0.socket_type.map(|kind| kind.name().as_bytes())
        } else if is("Routing-Id") || is("Identity") {
            Some(&self.0.routing_id)
        } else if is("User-Id") {
            (!self.0.user_id.is_empty()).then_some(&*self.0.user_id)
        } else if is(PEER_ADDRESS) {
            Some(self.address().as_bytes())
        } else {
            self.0.metadata.get(name).map(Bytes::as_ref)
        }
    }

    /// The properties that were received, in their order.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.metadata.iter().map(|(name, value)| (name, &**value))
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("socket_type", &self.socket_type().map(SocketType::name))
            .field("routing_id", &format_args!("\"{}\"", self.routing_id().escape_ascii()))
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}
