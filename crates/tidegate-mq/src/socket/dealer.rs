//! DEALER: asks or answers without taking turns.

use tidegate_io::message::{Message, Part};
use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanReserve, CanSend, CanSplit, Family, Kind, SendFuture, Socket};
use crate::error::Result;

/// Sends to its peers in turn and receives from all of them in turn, adding and removing nothing (MQ-203). A
/// [`Rep`](super::Rep) peer expects an empty part before the body.
pub type Dealer = Socket<DealerKind>;

/// The kind of [`Dealer`].
#[derive(Debug)]
pub enum DealerKind {}

impl Family for DealerKind {}

impl Kind for DealerKind {
    const TYPE: SocketType = SocketType::Dealer;
}

impl CanReceive for DealerKind {}

impl CanSend for DealerKind {}

impl CanReserve for DealerKind {}

impl CanSplit for DealerKind {}

impl Socket<DealerKind> {
    /// Sends to a REP: puts the empty part before the message that REP expects (MQ-205).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancellation
    /// As [`send`](Self::send).
    pub fn send_request(&self, message: impl Into<Message>) -> SendFuture<'_> {
        let mut message = message.into();
        message.push_front(Part::EMPTY);
        self.send(message)
    }

    /// Receives from a REP: takes the empty part off, where there is one (MQ-205).
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancellation
    /// A dropped future has taken nothing.
    pub async fn recv_reply(&self) -> Result<Message> {
        self.recv().await.map(without_delimiter)
    }

    /// [`recv_reply`](Self::recv_reply) on the calling thread.
    ///
    /// # Errors
    /// As [`recv_reply`](Self::recv_reply).
    pub fn recv_reply_blocking(&self) -> Result<Message> {
        self.recv_blocking().map(without_delimiter)
    }
}

fn without_delimiter(mut message: Message) -> Message {
    if message.len() > 1 && message.first().is_some_and(|part| part.is_empty()) {
        message.pop_front();
    }
    message
}
