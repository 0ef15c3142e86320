//! ROUTER: talks to each peer by name.

use tidegate_io::message::{Message, Part};
use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanSend, CanSplit, Family, Kind, Readiness, Socket};
use crate::error::{Error, Result, SendError};

/// Receives messages with the routing id of their sender as first part; sends to the peer that the first part names
/// (6.6).
pub type Router = Socket<RouterKind>;

/// The kind of [`Router`].
#[derive(Debug)]
pub enum RouterKind {}

impl Family for RouterKind {}

impl Kind for RouterKind {
    const TYPE: SocketType = SocketType::Router;
}

impl CanReceive for RouterKind {}

impl CanSend for RouterKind {}

impl CanSplit for RouterKind {}

impl Socket<RouterKind> {
    /// Sends `message` to the peer with this routing id.
    ///
    /// Without `router_mandatory` a message to an unknown peer or a full queue is dropped and counted. With it the send
    /// waits for room.
    ///
    /// # Errors
    /// As [`send`](Self::send); with `router_mandatory` [`HostUnreachable`](Error::HostUnreachable) for an unknown peer.
    /// [`InvalidMessage`](Error::InvalidMessage) for a message without parts. The message that comes back begins with
    /// the routing id.
    ///
    /// # Cancellation
    /// As [`send`](Self::send).
    pub async fn send_to(
        &self,
        routing_id: impl Into<Part>,
        message: impl Into<Message>,
    ) -> Result<(), SendError> {
        self.send(addressed(routing_id.into(), message.into())?).await
    }

    /// [`send_to`](Self::send_to) if that is possible at once.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to), and with `router_mandatory` [`WouldBlock`](Error::WouldBlock) for a full queue.
    pub fn try_send_to(
        &self,
        routing_id: impl Into<Part>,
        message: impl Into<Message>,
    ) -> Result<(), SendError> {
        self.try_send(addressed(routing_id.into(), message.into())?)
    }

    /// [`send_to`](Self::send_to) on the calling thread.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to).
    pub fn send_to_blocking(
        &self,
        routing_id: impl Into<Part>,
        message: impl Into<Message>,
    ) -> Result<(), SendError> {
        self.send_blocking(addressed(routing_id.into(), message.into())?)
    }

    /// Receives a message; gives the routing id of the peer it came from apart from it.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancellation
    /// A dropped future has taken nothing.
    pub async fn recv_from(&self) -> Result<(Part, Message)> {
        self.recv().await.map(labelled)
    }

    /// [`recv_from`](Self::recv_from) if a message is there.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_from(&self) -> Result<(Part, Message)> {
        self.try_recv().map(labelled)
    }

    /// [`recv_from`](Self::recv_from) on the calling thread.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_from_blocking(&self) -> Result<(Part, Message)> {
        self.recv_blocking().map(labelled)
    }

    /// What can be done at once with the peer of this routing id (MQ-212).
    ///
    /// # Errors
    /// [`HostUnreachable`](Error::HostUnreachable) when there is none.
    pub fn peer_state(&self, routing_id: impl AsRef<[u8]>) -> Result<Readiness> {
        let mut inner = self.core().lock();
        inner.phase.check()?;
        match inner.state.peer_state(routing_id.as_ref()) {
            Ok(Some(state)) => Ok(Readiness { receive: state.readable, send: state.writable }),
            _ => Err(Error::HostUnreachable),
        }
    }
}

fn addressed(routing_id: Part, mut message: Message) -> Result<Message, SendError> {
    let is_empty = message.is_empty();
    message.push_front(routing_id);
    if is_empty {
        return Err(SendError {
            message,
            error: Error::InvalidMessage("nothing follows the routing id; add a part"),
        });
    }
    Ok(message)
}

fn labelled(mut message: Message) -> (Part, Message) {
    (message.pop_front().unwrap_or_default(), message)
}
