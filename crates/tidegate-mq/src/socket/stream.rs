//! Sockets as streams and sinks of the `futures` crates (MQ-050).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use futures_core::Stream;
use futures_sink::Sink;
use tidegate_io::message::Message;

use crate::{
    error::{Error, Result, SendError},
    shared::{Recv, Send, Shared},
};

/// What a socket receives, as a stream. Ends when the socket is closed or its context shut down; every other error is an
/// item, and the stream goes on.
///
/// Dropping it loses nothing.
#[must_use = "streams do nothing unless polled"]
pub struct Messages<'a> {
    shared: &'a Shared,
    next: Option<Recv<'a>>,
}

impl<'a> Messages<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, next: None }
    }
}

impl Stream for Messages<'_> {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let next = this.next.get_or_insert_with(|| this.shared.recv());
        let received = ready!(Pin::new(next).poll(context));
        this.next = None;
        Poll::Ready(match received {
            Err(Error::Terminated | Error::Closed) => None,
            received => Some(received),
        })
    }
}

impl fmt::Debug for Messages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

/// A sink into a socket. It holds one message while that waits for room; flushing waits until the socket has it. There is
/// nothing to flush in the socket itself.
///
/// Dropping it before it is flushed drops the message it holds.
#[must_use = "sinks do nothing unless polled"]
pub struct Outbox<'a> {
    shared: &'a Shared,
    waiting: Option<Send<'a>>,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, waiting: None }
    }
}

impl<M: Into<Message>> Sink<M> for Outbox<'_> {
    type Error = SendError;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Result<(), SendError>> {
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(Ok(())) };
        let sent = ready!(Pin::new(waiting).poll(context));
        self.waiting = None;
        Poll::Ready(sent)
    }

    fn start_send(mut self: Pin<&mut Self>, message: M) -> Result<(), SendError> {
        let message = message.into();
        if self.waiting.is_some() {
            return Err(SendError { message, error: Error::WouldBlock });
        }
        self.waiting = Some(self.shared.send(message));
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Result<(), SendError>> {
        <Self as Sink<M>>::poll_ready(self, context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Result<(), SendError>> {
        <Self as Sink<M>>::poll_ready(self, context)
    }
}

impl fmt::Debug for Outbox<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}
