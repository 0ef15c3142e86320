//! PAIR: exactly two.

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanReserve, CanSend, CanSplit, Family, Kind, Socket};

/// Sends to and receives from the one peer it has; a second peer is turned away while the first is there (MQ-245).
pub type Pair = Socket<PairKind>;

/// The kind of [`Pair`].
#[derive(Debug)]
pub enum PairKind {}

impl Family for PairKind {}

impl Kind for PairKind {
    const TYPE: SocketType = SocketType::Pair;
}

impl CanReceive for PairKind {}

impl CanSend for PairKind {}

impl CanReserve for PairKind {}

impl CanSplit for PairKind {}
