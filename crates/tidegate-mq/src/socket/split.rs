//! The two directions of a socket, apart (MQ-043).

use std::{collections::VecDeque, fmt};

use tidegate_io::message::Message;

use super::{CanSplit, Messages, Outbox, Recv, SendFuture, SendMany, Socket};
use crate::error::{Result, SendError};

/// A handle that sends. Clones are handles to the same socket.
pub struct Sender<K: CanSplit>(Socket<K>);

/// A handle that receives. Clones are handles to the same socket.
pub struct Receiver<K: CanSplit>(Socket<K>);

impl<K: CanSplit> Sender<K> {
    pub(super) fn new(socket: Socket<K>) -> Self {
        Self(socket)
    }

    /// The whole socket.
    pub fn socket(&self) -> &Socket<K> {
        &self.0
    }

    /// See [`Socket::send`].
    ///
    /// # Errors
    /// As [`Socket::send`].
    ///
    /// # Cancellation
    /// As [`Socket::send`].
    pub fn send(&self, message: impl Into<Message>) -> SendFuture<'_> {
        self.0.send(message)
    }

    /// See [`Socket::try_send`].
    ///
    /// # Errors
    /// As [`Socket::try_send`].
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.0.try_send(message)
    }

    /// See [`Socket::send_blocking`].
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub fn send_blocking(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.0.send_blocking(message)
    }

    /// See [`Socket::send_many`].
    ///
    /// # Errors
    /// As [`Socket::send_many`].
    ///
    /// # Cancellation
    /// As [`Socket::send_many`].
    pub fn send_many<'a>(&'a self, messages: &'a mut VecDeque<Message>) -> SendMany<'a> {
        self.0.send_many(messages)
    }

    /// See [`Socket::outbox`].
    pub fn outbox(&self) -> Outbox<'_> {
        self.0.outbox()
    }
}

impl<K: CanSplit> Receiver<K> {
    pub(super) fn new(socket: Socket<K>) -> Self {
        Self(socket)
    }

    /// The whole socket.
    pub fn socket(&self) -> &Socket<K> {
        &self.0
    }

    /// See [`Socket::recv`].
    ///
    /// # Errors
    /// As [`Socket::recv`].
    ///
    /// # Cancellation
    /// A dropped future has taken nothing.
    pub fn recv(&self) -> Recv<'_> {
        self.0.recv()
    }

    /// See [`Socket::try_recv`].
    ///
    /// # Errors
    /// As [`Socket::try_recv`].
    pub fn try_recv(&self) -> Result<Message> {
        self.0.try_recv()
    }

    /// See [`Socket::recv_blocking`].
    ///
    /// # Errors
    /// As [`Socket::recv`].
    pub fn recv_blocking(&self) -> Result<Message> {
        self.0.recv_blocking()
    }

    /// See [`Socket::recv_many`].
    ///
    /// # Errors
    /// As [`Socket::recv_many`].
    ///
    /// # Cancellation
    /// As [`Socket::recv_many`].
    pub async fn recv_many(&self, into: &mut Vec<Message>, most: usize) -> Result<usize> {
        self.0.recv_many(into, most).await
    }

    /// See [`Socket::messages`].
    pub fn messages(&self) -> Messages<'_> {
        self.0.messages()
    }
}

impl<K: CanSplit> Clone for Sender<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: CanSplit> Clone for Receiver<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: CanSplit> fmt::Debug for Sender<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.0).finish()
    }
}

impl<K: CanSplit> fmt::Debug for Receiver<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&self.0).finish()
    }
}
