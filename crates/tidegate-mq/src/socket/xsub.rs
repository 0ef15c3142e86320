//! XSUB: a subscriber whose subscriptions are messages.

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanSend, CanSplit, CanSubscribe, Family, Kind, Socket};

/// Receives everything its publishers send. A sent message that begins with byte 1 subscribes to the rest of it, one that
/// begins with 0 ends that; any other goes to all publishers (6.10).
pub type XSub = Socket<XSubKind>;

/// The kind of [`XSub`].
#[derive(Debug)]
pub enum XSubKind {}

impl Family for XSubKind {}

impl Kind for XSubKind {
    const TYPE: SocketType = SocketType::XSub;
}

impl CanReceive for XSubKind {}

impl CanSend for XSubKind {}

impl CanSplit for XSubKind {}

impl CanSubscribe for XSubKind {}
