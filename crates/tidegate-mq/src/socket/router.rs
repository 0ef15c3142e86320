//! ROUTER: talks to each peer by name.

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanSend, Kind, Socket};

/// Receives messages with the routing id of their sender as first part; sends to the peer that the first part names
/// (6.6).
pub type Router = Socket<RouterKind>;

/// The kind of [`Router`].
#[derive(Debug)]
pub enum RouterKind {}

impl Kind for RouterKind {
    const TYPE: SocketType = SocketType::Router;
}

impl CanReceive for RouterKind {}

impl CanSend for RouterKind {}
