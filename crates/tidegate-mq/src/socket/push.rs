//! PUSH: hands work to one of many.

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReserve, CanSend, Family, Kind, Socket};

/// Sends each message to one of its [`Pull`](super::Pull) peers, in turn, skipping those whose queue is full; waits
/// when all are full or nobody is connected (MQ-241). Never drops.
pub type Push = Socket<PushKind>;

/// The kind of [`Push`].
#[derive(Debug)]
pub enum PushKind {}

impl Family for PushKind {}

impl Kind for PushKind {
    const TYPE: SocketType = SocketType::Push;
}

impl CanSend for PushKind {}

impl CanReserve for PushKind {}
