//! REP: answers.

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanSend, Kind, Socket};

/// Receives a request and sends the answer to whoever asked, one after the other (6.4).
pub type Rep = Socket<RepKind>;

/// The kind of [`Rep`].
#[derive(Debug)]
pub enum RepKind {}

impl Kind for RepKind {
    const TYPE: SocketType = SocketType::Rep;
}

impl CanReceive for RepKind {}

impl CanSend for RepKind {}
