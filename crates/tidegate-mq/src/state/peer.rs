//! Who a pipe talks to, and where the pipe comes from.

use std::sync::Arc;

use tidegate_io::message::Part;
pub(crate) use tidegate_zmtp::{PeerInfo, SocketType};

use super::effects::LinkLimits;

/// How a pipe came to be (MQ-182).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A peer connected to us: the pipe ends with its connection.
    Accepted,
    /// We connect: the pipe may outlive its connections.
    Dialed,
}

/// A connection that is past its handshake.
#[derive(Debug)]
pub(crate) struct Arrival<L> {
    /// How it came to be.
    pub(crate) origin: Origin,
    /// What the peer said of itself.
    pub(crate) peer: Arc<PeerInfo>,
    /// The way to the connection.
    pub(crate) link: L,
    /// `connect_routing_id` of this connect, for a dialed connection without a pipe of its own (`immediate`).
    pub(crate) assigned: Option<Part>,
    /// For an in-process link: the limits of the far socket.
    pub(crate) far: Option<LinkLimits>,
}
