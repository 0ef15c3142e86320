//! PULL: takes work from many.

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, Family, Kind, Socket};

/// Receives from all its [`Push`](super::Push) peers in turn, one message each (MQ-241).
pub type Pull = Socket<PullKind>;

/// The kind of [`Pull`].
#[derive(Debug)]
pub enum PullKind {}

impl Family for PullKind {}

impl Kind for PullKind {
    const TYPE: SocketType = SocketType::Pull;
}

impl CanReceive for PullKind {}
