//! REQ: asks, and waits for the answer.

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanSend, Kind, Socket};

/// Sends a request to one of its peers, in turn, and receives the answer, one after the other (6.3).
pub type Req = Socket<ReqKind>;

/// The kind of [`Req`].
#[derive(Debug)]
pub enum ReqKind {}

impl Kind for ReqKind {
    const TYPE: SocketType = SocketType::Req;
}

impl CanReceive for ReqKind {}

impl CanSend for ReqKind {}
