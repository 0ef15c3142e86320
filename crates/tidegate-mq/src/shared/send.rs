//! Sending: at once, as a future, and on the calling thread.

use std::{
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
    time::{Duration, Instant},
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
    // Messages are large, and moved as seldom as possible.
    #[inline]
    pub(crate) fn try_send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let mut message = message.into();
        self.send_now(&mut message).map_err(|error| error.into_send_error(&mut message))
    }

    pub(super) fn try_reserve_room(&self) -> Result<()> {
        let mut inner = self.lock();
        let reserved = self.try_offer(&mut inner, &mut Message::new(), true);
        self.finish(inner);
        reserved
    }

    pub(crate) fn send(&self, message: Message) -> Send<'_> {
        Send { shared: self, message, reserves: false, ticket: None, timer: Patience::Unasked }
    }

    #[inline]
    pub(crate) fn send_blocking(&self, message: impl Into<Message>) -> Result<(), SendError> {
        let mut message = message.into();
        match self.send_now(&mut message) {
            Ok(()) => Ok(()),
            Err(Unsent::Left(Error::WouldBlock)) => self.send_parked(message),
            Err(error) => Err(error.into_send_error(&mut message)),
        }
    }

    /// Sends if that is possible at once.
    fn send_now(&self, message: &mut Message) -> Result<(), Unsent> {
        let mut inner = self.lock();
        match self.try_offer(&mut inner, message, false) {
            Ok(()) => self.finish_send(inner).map_err(|error| Unsent::Back(Box::new(error))),
            Err(error) => {
                self.finish(inner);
                Err(Unsent::Left(error))
            }
        }
    }

    /// Parks the thread until the message is sent.
    #[cold]
    fn send_parked(&self, message: Message) -> Result<(), SendError> {
        let timeout = self.lock().options.sndtimeo;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut future = self.send(message);
        future.timer = Patience::Elsewhere;
        match block_on(&mut future, deadline) {
            Some(result) => result,
            None => Err(SendError { message: std::mem::take(&mut future.message), error: Error::Timeout }),
        }
    }

    /// Fails for a part that is larger than the context allows.
    pub(super) fn check_size(&self, message: &Message) -> Result<()> {
        let Some(limit) = self.context.max_part() else { return Ok(()) };
        match message.parts().iter().map(|part| part.len()).find(|len| *len > limit) {
            Some(size) => Err(Error::MessageTooLarge { size, limit }),
            None => Ok(()),
        }
    }

    fn try_offer(&self, inner: &mut Inner, message: &mut Message, reserves: bool) -> Result<()> {
        inner.phase.check()?;
        // Those who wait come first.
        if inner.must_queue() {
            return Err(Error::WouldBlock);
        }
        self.offer(inner, message, reserves, None).map_err(|refused| match refused {
            Refused::Wait(_) => Error::WouldBlock,
            Refused::Fail(error) => error,
        })
    }

    /// Sends, or keeps room, for whoever has this ticket.
    fn offer(
        &self,
        inner: &mut Inner,
        message: &mut Message,
        reserves: bool,
        ticket: Option<&Ticket>,
    ) -> Result<(), Refused> {
        let taken = if reserves {
            inner.state.reserve()
        } else {
            self.check_size(message).map_err(Refused::Fail)?;
            if inner.senders_wait_for_pipes() && !inner.senders.is_empty() {
                let ahead = inner.senders.ahead(ticket).filter_map(Awaited::pipe);
                inner.state.send_behind(message, ahead)
            } else {
                inner.state.send(message)
            }
        };
        taken.map_err(refusal)
    }
}

/// Why a message was not sent.
enum Unsent {
    /// It was not taken.
    Left(Error),
    /// It was taken, and came back.
    Back(Box<SendError>),
}

impl Unsent {
    fn into_send_error(self, message: &mut Message) -> SendError {
        match self {
            Self::Left(error) => SendError { message: std::mem::take(message), error },
            Self::Back(error) => *error,
        }
    }
}

/// Why a message was not taken.
enum Refused {
    /// There is no room; this is what to wait for.
    Wait(Awaited),
    /// Waiting does not help.
    Fail(Error),
}

impl Inner {
    /// Whether a new sender must wait behind others.
    pub(super) fn must_queue(&self) -> bool {
        !self.senders.is_empty() && !self.senders_wait_for_pipes()
    }

    /// A sender is not in line any more, or not for this: what is left, or was kept from others because of it, is for
    /// those behind.
    fn pass_on(&mut self, left: Option<Awaited>, wakes: &mut Wakes) {
        let may_send = self.state.readiness().writable;
        // One each; when it is through, or finds that it needs something else, it passes on in turn. Nobody overtakes who was
        // granted before: where all wait for the same he passes it on.
        let mut room = self.senders_wait_for_pipes() || self.senders.granted() == 0;
        let mut pipe = left.as_ref().and_then(Awaited::pipe);
        self.senders.grant(wakes, |awaited| match awaited {
            Awaited::Room if !may_send => Decision::Stop,
            Awaited::Room if room => {
                room = false;
                Decision::Grant
            }
            Awaited::RoomOn(key) if pipe == Some(*key) => {
                pipe = None;
                Decision::Grant
            }
            Awaited::Room | Awaited::RoomOn(_) => Decision::Skip,
        });
    }
}

fn refusal(refusal: SendRefusal) -> Refused {
    Refused::Fail(match refusal {
        SendRefusal::WouldBlock(awaited) => return Refused::Wait(awaited),
        SendRefusal::ReplyWouldBlock => Error::WouldBlock,
        SendRefusal::WrongState => {
            Error::WrongState("a REQ socket sends once and then receives; a REP socket receives first")
        }
        SendRefusal::HostUnreachable => Error::HostUnreachable,
        SendRefusal::PeerGone => Error::PeerLost,
        SendRefusal::NotSupported => Error::NotSupported("this socket type does not do that"),
        SendRefusal::Empty => Error::InvalidMessage("it has no part"),
    })
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
    /// Ready with the reason when there is nothing more to wait for: the time of the option is over, or nobody is there who
    /// would wake the task. Otherwise it is woken when the time is over.
    pub(super) fn poll_end(
        &mut self,
        shared: &Shared,
        timeout: Option<Duration>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Error> {
        if let Err(error) = shared.context.check_process() {
            return Poll::Ready(error);
        }
        if matches!(self, Self::Unasked) {
            *self = Self::Timer(shared.context.timer(timeout));
        }
        let Self::Timer(Some(timer)) = self else { return Poll::Pending };
        if !timer.is_over(context.waker()) {
            return Poll::Pending;
        }
        let at_once = timeout.is_some_and(|timeout| timeout.is_zero());
        Poll::Ready(if at_once { Error::WouldBlock } else { Error::Timeout })
    }
}

/// Future of [`Socket::send`](crate::Socket::send).
#[must_use = "nothing is sent unless it is awaited"]
pub struct Send<'a> {
    shared: &'a Shared,
    message: Message,
    /// Only keep room for a message (MQ-076).
    reserves: bool,
    ticket: Option<Ticket>,
    timer: Patience,
}

impl<'a> Send<'a> {
    /// Waits for room and keeps it.
    pub(super) fn reserving(shared: &'a Shared) -> Self {
        let mut send = shared.send(Message::new());
        send.reserves = true;
        send
    }

    /// Leaves `sndtimeo` aside.
    pub(crate) fn wait_for_ever(&mut self) {
        self.timer = Patience::Elsewhere;
    }

    pub(super) fn shared(&self) -> &'a Shared {
        self.shared
    }

    /// Gives up; the message, if it was not sent.
    pub(super) fn take_back(mut self) -> Option<Message> {
        let message = std::mem::take(&mut self.message);
        (!message.is_empty()).then_some(message)
    }
}

impl Future for Send<'_> {
    type Output = Result<(), SendError>;

    fn poll(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = this.shared;
        let mut wakes = Wakes::new();
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
                match shared.offer(&mut inner, &mut this.message, this.reserves, this.ticket.as_ref()) {
                    Ok(()) => Ok(()),
                    Err(Refused::Wait(awaited)) => {
                        match &this.ticket {
                            Some(ticket) if inner.senders.wanted(ticket) == Some(&awaited) => {
                                inner.senders.wait_again(ticket, context.waker());
                            }
                            _ => {
                                let former = this.ticket.take();
                                let left = former.and_then(|ticket| inner.senders.finish(ticket));
                                if left.is_some() {
                                    inner.pass_on(left, &mut wakes);
                                }
                                this.ticket = Some(inner.senders.join(awaited, context.waker()));
                            }
                        }
                        let timeout = inner.options.sndtimeo;
                        shared.finish(inner);
                        return this.wait_or_give_up(timeout, context);
                    }
                    Err(Refused::Fail(error)) => Err(error),
                }
            }
        };
        if let Some(ticket) = this.ticket.take() {
            let left = inner.senders.finish(ticket);
            inner.pass_on(left, &mut wakes);
        }
        match outcome {
            Ok(()) => Poll::Ready(shared.finish_send(inner)),
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
        timeout: Option<Duration>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Result<(), SendError>> {
        let error = ready!(self.timer.poll_end(self.shared, timeout, context));
        self.leave();
        Poll::Ready(Err(SendError { message: std::mem::take(&mut self.message), error }))
    }

    /// Gives its place in the line up.
    fn leave(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut wakes = Wakes::new();
        let mut inner = self.shared.lock();
        let left = inner.senders.finish(ticket);
        inner.pass_on(left, &mut wakes);
        self.shared.finish(inner);
    }
}

impl Drop for Send<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
