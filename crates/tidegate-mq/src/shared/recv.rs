//! Receiving: at once, as a future, and on the calling thread.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::{Duration, Instant},
};

use tidegate_io::{
    message::Message,
    sync::MutexGuard,
    wait::{Decision, Spin, Ticket, Wakes, block_on},
};

use super::{Inner, Link, Shared, send::Patience};
use crate::{
    error::{Error, Result},
    state::{PeerInfo, RecvRefusal, SocketType},
};

/// Something that a receive gives.
pub(crate) trait Taken: Sized {
    fn take(inner: &mut Inner) -> Result<Self, RecvRefusal>;
}

impl Taken for Message {
    #[inline]
    fn take(inner: &mut Inner) -> Result<Self, RecvRefusal> {
        let mut message = Message::new();
        inner.state.recv(&mut message)?;
        Ok(message)
    }
}

impl Taken for (Message, Option<Arc<PeerInfo>>) {
    fn take(inner: &mut Inner) -> Result<Self, RecvRefusal> {
        inner.state.recv_from()
    }
}

impl Taken for (crate::pattern::Request, Option<Arc<PeerInfo>>) {
    fn take(inner: &mut Inner) -> Result<Self, RecvRefusal> {
        let request = inner.state.recv_request()?;
        let peer = inner.state.peer(request.from);
        Ok((request, peer))
    }
}

impl Taken for (crate::pattern::Event, Option<Arc<PeerInfo>>) {
    fn take(inner: &mut Inner) -> Result<Self, RecvRefusal> {
        inner.state.recv_event()
    }
}

impl Shared {
    pub(crate) fn try_recv<T: Taken>(&self) -> Result<T> {
        self.try_take(T::take)
    }

    /// Receives into `place`: messages are large, and moved as seldom as possible.
    pub(crate) fn try_recv_into(&self, place: &mut Message) -> Result<()> {
        self.try_take(|inner| inner.state.recv(place))
    }

    #[inline]
    pub(super) fn try_take<T>(
        &self,
        mut take: impl FnMut(&mut Inner) -> Result<T, RecvRefusal>,
    ) -> Result<T> {
        let mut inner = self.lock();
        let result = loop {
            match inner.phase.check() {
                Err(error) => break Err(error),
                // Those who wait come first.
                Ok(()) if inner.receivers.granted() > 0 => break Err(Error::WouldBlock),
                Ok(()) => {}
            }
            match take(&mut inner) {
                Err(RecvRefusal::WouldBlock) if inner.state.has_offers() => inner = self.fetch(inner),
                result => break result.map_err(refusal),
            }
        };
        self.finish_recv(inner);
        result
    }

    /// Whether the far ends of in-process links keep what they send until it is fetched, unless that is conflated here:
    /// for types whose every message is for the application.
    pub(crate) fn fetches(&self) -> bool {
        use SocketType::{Dealer, Pair, Pull, Router, XSub};
        matches!(self.kind, Pull | Dealer | Pair | Router | XSub)
    }

    /// Fetches what is there for us, with the lock released meanwhile.
    #[cold]
    fn fetch<'a>(&'a self, mut inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        while let Some(link) = inner.state.next_offer() {
            self.finish(inner);
            if let Link::Inproc(link) = link {
                link.fetch();
            }
            inner = self.lock();
        }
        inner
    }

    /// Unlocks after something was received. Who took the last message finds out whether there are more, so that the
    /// socket is readable only if something can be received.
    fn finish_recv<'a>(&'a self, mut inner: MutexGuard<'a, Inner>) {
        if inner.state.has_offers() {
            inner = self.fetch(inner);
        }
        self.finish(inner);
    }

    pub(crate) fn recv<T: Taken>(&self) -> Recv<'_, T> {
        Recv { shared: self, ticket: None, timer: Patience::Unasked, taken: std::marker::PhantomData }
    }

    pub(crate) fn recv_blocking<T: Taken>(&self) -> Result<T> {
        // The usual case needs neither clock nor parking.
        match self.try_recv() {
            Err(Error::WouldBlock) => self.wait_for(),
            result => result,
        }
    }

    pub(crate) fn recv_message_blocking(&self) -> Result<Message> {
        let mut message = Message::new();
        match self.try_recv_into(&mut message) {
            Ok(()) => Ok(message),
            Err(Error::WouldBlock) => self.wait_for(),
            Err(error) => Err(error),
        }
    }

    /// Waits until there is something to take.
    #[cold]
    fn wait_for<T: Taken>(&self) -> Result<T> {
        let now = Instant::now();
        let mut inner = self.lock();
        let deadline = inner.options.rcvtimeo.and_then(|timeout| now.checked_add(timeout));
        // One thread that looks is enough; others find no spin here.
        let is_expected = inner.near_turns.is_expected(now, self.context.spin());
        let spin = inner.near_spin.take_if(|_| is_expected);
        drop(inner);
        let mut looked = Err(Error::WouldBlock);
        if let Some(spin) = spin {
            looked = self.look_for(&spin, now, deadline);
            self.lock().near_spin = Some(spin);
        }
        let result = match looked {
            Err(Error::WouldBlock) => {
                let mut future = Recv {
                    shared: self,
                    ticket: None,
                    timer: Patience::Elsewhere,
                    taken: std::marker::PhantomData,
                };
                block_on(&mut future, deadline).unwrap_or(Err(Error::Timeout))
            }
            result => result,
        };
        if result.is_ok() {
            let inner = &mut *self.lock();
            inner.near_turns.heard(inner.near_sends, Instant::now(), self.context.spin());
        }
        result
    }

    /// Looks again and again instead of parking, for an answer from this process: it need not wake the thread (MQ-057).
    /// For answers from elsewhere an engine thread looks, and one that looks is enough.
    fn look_for<T: Taken>(&self, spin: &Spin, now: Instant, deadline: Option<Instant>) -> Result<T> {
        let time = deadline.map_or(spin.time(), |deadline| deadline.saturating_duration_since(now));
        spin.look(now, time);
        while spin.goes_on() {
            match self.try_recv() {
                Err(Error::WouldBlock) => {}
                result => return result,
            }
        }
        Err(Error::WouldBlock)
    }
}

fn refusal(refusal: RecvRefusal) -> Error {
    match refusal {
        RecvRefusal::WouldBlock => Error::WouldBlock,
        RecvRefusal::WrongState => Error::WrongState(
            "a REQ socket sends before it receives; a REP socket answers before it receives again",
        ),
        RecvRefusal::PeerLost => Error::PeerLost,
        RecvRefusal::NotSupported => Error::NotSupported("this socket type does not receive"),
    }
}

/// Future of [`Socket::recv`](crate::Socket::recv).
#[must_use = "nothing is received unless it is awaited"]
pub struct Recv<'a, T = Message> {
    shared: &'a Shared,
    ticket: Option<Ticket>,
    timer: Patience,
    taken: std::marker::PhantomData<fn() -> T>,
}

impl<T: Taken> Future for Recv<'_, T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = this.shared;
        let mut inner = shared.lock();
        let result = match inner.phase.check() {
            Err(error) => Err(error),
            Ok(()) => {
                let may_take = match &this.ticket {
                    Some(ticket) => inner.receivers.is_granted(ticket, context.waker()),
                    None => inner.receivers.granted() == 0,
                };
                let take =
                    |inner: &mut Inner| if may_take { T::take(inner) } else { Err(RecvRefusal::WouldBlock) };
                let mut taken = take(&mut inner);
                while may_take && matches!(taken, Err(RecvRefusal::WouldBlock)) && inner.state.has_offers() {
                    inner = shared.fetch(inner);
                    taken = take(&mut inner);
                }
                match taken {
                    Ok(taken) => Ok(taken),
                    Err(RecvRefusal::WouldBlock) => {
                        match &this.ticket {
                            Some(ticket) => inner.receivers.wait_again(ticket, context.waker()),
                            None => this.ticket = Some(inner.receivers.join((), context.waker())),
                        }
                        let timeout = inner.options.rcvtimeo;
                        shared.finish(inner);
                        return this.wait_or_give_up(timeout, context);
                    }
                    Err(why) => Err(refusal(why)),
                }
            }
        };
        let mut wakes = Wakes::new();
        if let Some(ticket) = this.ticket.take() {
            inner.receivers.finish(ticket);
            // What is left is for the next in line.
            if inner.receivers.is_waiting()
                && inner.receivers.granted() == 0
                && inner.state.readiness().readable
            {
                inner.receivers.grant_many(1, &mut wakes);
            }
        }
        shared.finish_recv(inner);
        Poll::Ready(result)
    }
}

impl<T> Recv<'_, T> {
    fn wait_or_give_up(
        &mut self,
        timeout: Option<Duration>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Result<T>> {
        let error = ready!(self.timer.poll_end(self.shared, timeout, context));
        self.leave();
        Poll::Ready(Err(error))
    }

    /// Gives its place in the line up; what was granted and not taken is for the next one.
    fn leave(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut wakes = Wakes::new();
        let mut guard = self.shared.lock();
        let inner = &mut *guard;
        let readable = inner.state.readiness().readable;
        let mut one = true;
        inner.receivers.cancel(ticket, &mut wakes, |()| {
            if std::mem::take(&mut one) && readable { Decision::Grant } else { Decision::Stop }
        });
        self.shared.finish(guard);
    }
}

impl<T> Drop for Recv<'_, T> {
    fn drop(&mut self) {
        self.leave();
    }
}
