//! Sending: at once, as a future, and on the calling thread.

use std::{
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Instant,
};

use tidegate_io::{
    message::Message,
    wait::{Decision, Ticket, Wakes, block_on},
};

use super::{Inner, Shared};
use crate::{
    error::{Error, Result, SendError},
    state::{Awaited, SendRefusal},
    timer::Timer,
};

impl Shared {
    pub(crate) fn try_send(&self, message: Message) -> Result<(), SendError> {
        let mut message = message;
        let mut inner = self.lock();
        let refused = match inner.phase.check() {
            Err(error) => Some(error),
            // Those who wait come first.
            Ok(()) if inner.must_queue() => Some(Error::WouldBlock),
            Ok(()) => self.offer(&mut inner, &mut message).err().map(refusal),
        };
        match refused {
            None => {
                self.finish_send(inner);
                Ok(())
            }
            Some(error) => {
                self.finish(inner);
                Err(SendError { message, error })
            }
        }
    }

    pub(crate) fn send(&self, message: Message) -> Send<'_> {
        Send { shared: self, message, ticket: None, timer: Patience::Unasked }
    }

    pub(crate) fn send_blocking(&self, message: Message) -> Result<(), SendError> {
        let deadline = self.lock().options.sndtimeo.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut future = Send { shared: self, message, ticket: None, timer: Patience::Elsewhere };
        match block_on(&mut future, deadline) {
            Some(result) => result,
            None => Err(SendError { message: std::mem::take(&mut future.message), error: Error::Timeout }),
        }
    }

    fn offer(&self, inner: &mut Inner, message: &mut Message) -> Result<(), SendRefusal> {
        if let Some(limit) = self.context.max_part()
            && message.parts().iter().any(|part| part.len() > limit)
        {
            return Err(SendRefusal::Empty);
        }
        inner.state.send(message)
    }
}

impl Inner {
    /// Whether a new sender must wait behind others.
    fn must_queue(&self) -> bool {
        !self.senders.is_empty() && !self.senders_wait_for_pipes()
    }
}

/// What the caller is told.
fn refusal(refusal: SendRefusal) -> Error {
    match refusal {
        SendRefusal::WouldBlock(_) | SendRefusal::ReplyWouldBlock => Error::WouldBlock,
        SendRefusal::WrongState => {
            Error::WrongState("a REQ socket sends once and then receives; a REP socket receives first")
        }
        SendRefusal::HostUnreachable => Error::HostUnreachable,
        SendRefusal::PeerGone => Error::PeerLost,
        SendRefusal::NotSupported => Error::NotSupported("this socket type does not send"),
        SendRefusal::Empty => Error::InvalidMessage("it has no part"),
    }
}

/// Who watches the time that a call may take.
pub(super) enum Patience {
    /// The option was not looked at yet.
    Unasked,
    /// A timer of the context, or nobody.
    Timer(Option<Timer>),
    /// The caller.
    Elsewhere,
}

impl Patience {
    /// Whether the time is over; if not, the task is woken then.
    pub(super) fn is_over(
        &mut self,
        ask: impl FnOnce() -> Option<Timer>,
        context: &mut TaskContext<'_>,
    ) -> bool {
        if matches!(self, Self::Unasked) {
            *self = Self::Timer(ask());
        }
        match self {
            Self::Timer(Some(timer)) => timer.is_over(context.waker()),
            _ => false,
        }
    }
}

/// Future of [`Socket::send`](crate::Socket::send).
#[must_use = "nothing is sent unless it is awaited"]
pub struct Send<'a> {
    shared: &'a Shared,
    message: Message,
    ticket: Option<Ticket>,
    timer: Patience,
}

impl Future for Send<'_> {
    type Output = Result<(), SendError>;

    fn poll(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = this.shared;
        let mut inner = shared.lock();
        let outcome = match inner.phase.check() {
            Err(error) => Err(error),
            Ok(()) => {
                match &this.ticket {
                    Some(ticket) if !inner.senders.is_granted(ticket, context.waker()) => {
                        let timeout = inner.options.sndtimeo;
                        drop(inner);
                        return this.wait_or_give_up(timeout, context);
                    }
                    None if inner.must_queue() => {
                        this.ticket = Some(inner.senders.join(Awaited::Room, context.waker()));
                        let timeout = inner.options.sndtimeo;
                        drop(inner);
                        return this.wait_or_give_up(timeout, context);
                    }
                    _ => {}
                }
                match shared.offer(&mut inner, &mut this.message) {
                    Ok(()) => Ok(()),
                    Err(SendRefusal::WouldBlock(awaited)) => {
                        match &this.ticket {
                            Some(ticket) if inner.senders.wanted(ticket) == Some(&awaited) => {
                                inner.senders.wait_again(ticket, context.waker());
                            }
                            _ => {
                                if let Some(ticket) = this.ticket.take() {
                                    inner.senders.finish(ticket);
                                }
                                this.ticket = Some(inner.senders.join(awaited, context.waker()));
                            }
                        }
                        let timeout = inner.options.sndtimeo;
                        shared.finish(inner);
                        return this.wait_or_give_up(timeout, context);
                    }
                    Err(why) => Err(refusal(why)),
                }
            }
        };
        let mut wakes = Wakes::new();
        if let Some(ticket) = this.ticket.take() {
            inner.senders.finish(ticket);
            // What is left is for the next in line.
            let writable = inner.state.readiness().writable;
            inner.senders.grant(&mut wakes, |awaited| match awaited {
                Awaited::Room if writable => Decision::Grant,
                Awaited::Room => Decision::Stop,
                Awaited::RoomOn(_) => Decision::Skip,
            });
        }
        match outcome {
            Ok(()) => {
                shared.finish_send(inner);
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                shared.finish(inner);
                Poll::Ready(Err(SendError { message: std::mem::take(&mut this.message), error }))
            }
        }
    }
}

impl Send<'_> {
    fn wait_or_give_up(
        &mut self,
        timeout: Option<std::time::Duration>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Result<(), SendError>> {
        if let Err(error) = self.shared.context.check_process() {
            return Poll::Ready(Err(SendError { message: std::mem::take(&mut self.message), error }));
        }
        if self.timer.is_over(|| self.shared.context.timer(timeout), context) {
            let error = if timeout.is_some_and(|timeout| timeout.is_zero()) {
                Error::WouldBlock
            } else {
                Error::Timeout
            };
            return Poll::Ready(Err(SendError { message: std::mem::take(&mut self.message), error }));
        }
        Poll::Pending
    }
}

impl Drop for Send<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let mut wakes = Wakes::new();
            let mut inner = self.shared.lock();
            let inner = &mut *inner;
            let writable = inner.state.readiness().writable;
            inner.senders.cancel(ticket, &mut wakes, |awaited| match awaited {
                Awaited::Room if writable => Decision::Grant,
                Awaited::Room => Decision::Stop,
                Awaited::RoomOn(_) => Decision::Grant,
            });
        }
    }
}
