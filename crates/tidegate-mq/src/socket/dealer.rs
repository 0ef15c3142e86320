//! DEALER: asks or answers without taking turns.

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanSend, Kind, Socket};

/// Sends to its peers in turn and receives from all of them in turn, adding and removing nothing (MQ-203). A
/// [`Rep`](super::Rep) peer expects an empty part before the body.
pub type Dealer = Socket<DealerKind>;

/// The kind of [`Dealer`].
#[derive(Debug)]
pub enum DealerKind {}

impl Kind for DealerKind {
    const TYPE: SocketType = SocketType::Dealer;
}

impl CanReceive for DealerKind {}

impl CanSend for DealerKind {}
