//! Many messages by one call (MQ-050).

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use tidegate_io::message::Message;

use super::{Send, Shared};
use crate::{error::Result, state::RecvRefusal};

impl Shared {
    /// Takes what is there, up to `most`.
    pub(crate) fn try_recv_many(&self, into: &mut Vec<Message>, most: usize) -> Result<usize> {
        self.try_take(|inner| {
            let mut taken = 0;
            let mut message = Message::new();
            while taken < most {
                match inner.state.recv(&mut message) {
                    Ok(()) => into.push(std::mem::take(&mut message)),
                    // REQ and REP give one message at a time.
                    Err(RecvRefusal::WouldBlock | RecvRefusal::WrongState) if taken > 0 => break,
                    Err(refusal) => return Err(refusal),
                }
                taken += 1;
            }
            Ok(taken)
        })
    }

    pub(crate) async fn recv_many(&self, into: &mut Vec<Message>, most: usize) -> Result<usize> {
        if most == 0 {
            return Ok(0);
        }
        into.push(self.recv().await?);
        // From here on nothing waits, so that what was taken is in the caller's hands.
        Ok(1 + self.try_recv_many(into, most - 1).unwrap_or(0))
    }

    pub(crate) fn send_many<'a>(&'a self, messages: &'a mut VecDeque<Message>) -> SendMany<'a> {
        SendMany { shared: self, messages, current: None, sent: 0 }
    }
}

/// Future of [`Socket::send_many`](crate::Socket::send_many).
#[must_use = "nothing is sent unless it is awaited"]
pub struct SendMany<'a> {
    shared: &'a Shared,
    messages: &'a mut VecDeque<Message>,
    current: Option<Send<'a>>,
    sent: usize,
}

impl Future for SendMany<'_> {
    type Output = Result<usize>;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let current = match &mut this.current {
                Some(current) => current,
                None => match this.messages.pop_front() {
                    Some(message) => this.current.insert(this.shared.send(message)),
                    None => return Poll::Ready(Ok(this.sent)),
                },
            };
            let done = ready!(Pin::new(current).poll(context));
            this.current = None;
            match done {
                Ok(()) => this.sent += 1,
                Err(failed) => {
                    this.messages.push_front(failed.message);
                    return Poll::Ready(Err(failed.error));
                }
            }
        }
    }
}

/// The message that waits for room goes back to the others.
impl Drop for SendMany<'_> {
    fn drop(&mut self) {
        if let Some(message) = self.current.take().and_then(Send::take_back) {
            self.messages.push_front(message);
        }
    }
}
