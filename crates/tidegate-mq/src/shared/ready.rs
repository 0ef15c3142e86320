//! Readiness: waiting until something can be sent or received without doing it, and a descriptor for event loops
//! (MQ-048).

use std::{
    future::Future,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use rustix::event::{EventfdFlags, eventfd};

use super::{Inner, Owner, Phase, Shared};
use crate::{
    error::{Error, Result},
    state::Awaited,
};

/// What a task wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interest {
    /// Receive.
    Receive,
    /// Send.
    Send,
    /// Either.
    Any,
}

/// What can be done at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Readiness {
    /// A receive would give a message.
    pub receive: bool,
    /// A send would be taken. For ROUTER with `router_mandatory`, and for PUB and XPUB with `xpub_nodrop` once somebody has
    /// subscribed: by at least one peer for which nobody waits (MQ-212, MQ-217).
    pub send: bool,
}

impl Readiness {
    fn satisfies(self, interest: Interest) -> bool {
        match interest {
            Interest::Receive => self.receive,
            Interest::Send => self.send,
            Interest::Any => self.receive || self.send,
        }
    }
}

/// Future of [`Socket::ready`](crate::Socket::ready).
#[must_use = "nothing is waited for unless it is awaited"]
pub struct Ready<'a> {
    shared: &'a Shared,
    interest: Interest,
    place: Place,
}

/// Where a task waits for readiness; keep it from one poll to the next.
#[derive(Debug, Default)]
pub(crate) struct Place(Option<u64>);

/// A task that waits for readiness.
pub(super) struct Watcher {
    place: u64,
    interest: Interest,
    waker: Waker,
}

impl Future for Ready<'_> {
    type Output = Result<Readiness>;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let Self { shared, interest, place } = &mut *self;
        shared.poll_ready(*interest, place, context)
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place.0 {
            self.shared.lock().ready_watchers.retain(|watcher| watcher.place != place);
        }
    }
}

/// A descriptor that is readable, level-triggered, exactly while the socket has a message to receive, and for ever
/// once the socket is closed or its context shut down.
///
/// For `poll`, `epoll` and the like. It must not be read from: receive until that gives
/// [`WouldBlock`](crate::Error::WouldBlock) instead. From when the first one is made, its socket pays a system call
/// whenever it becomes readable or ceases to be. It keeps the socket open.
pub struct ReadableFd {
    bell: Arc<OwnedFd>,
    _keeps_open: Arc<Owner>,
}

impl AsFd for ReadableFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl std::fmt::Debug for ReadableFd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ReadableFd").field(&self.bell).finish()
    }
}

/// The descriptor, and whether it is readable now.
pub(super) struct Bell {
    fd: Arc<OwnedFd>,
    raised: bool,
}

impl Bell {
    fn show(&mut self, raised: bool) {
        if raised == self.raised {
            return;
        }
        // A counter of 1 is readable, reading sets it to 0. It is changed under the socket's lock only, so that neither
        // can have to wait; what fails by an interruption is tried again at the next change.
        let done = if raised {
            rustix::io::write(&*self.fd, &1_u64.to_ne_bytes()).is_ok()
        } else {
            rustix::io::read(&*self.fd, &mut [0; 8]).is_ok()
        };
        if done {
            self.raised = raised;
        }
    }
}

impl Shared {
    pub(crate) fn ready(&self, interest: Interest) -> Ready<'_> {
        Ready { shared: self, interest, place: Place::default() }
    }

    /// What can be done now; an error once the socket is closed.
    pub(crate) fn readiness(&self) -> Result<Readiness> {
        let mut inner = self.lock();
        inner.phase.check()?;
        Ok(inner.readiness())
    }

    /// Ready when something of `interest` can be done; else the task is woken when that may have changed.
    pub(crate) fn poll_ready(
        &self,
        interest: Interest,
        place: &mut Place,
        context: &mut TaskContext<'_>,
    ) -> Poll<Result<Readiness>> {
        let mut inner = self.lock();
        inner.phase.check()?;
        let readiness = inner.readiness();
        if readiness.satisfies(interest) {
            return Poll::Ready(Ok(readiness));
        }
        let known = inner.ready_watchers.iter_mut().find(|watcher| Some(watcher.place) == place.0);
        match known {
            Some(watcher) => watcher.waker.clone_from(context.waker()),
            None => {
                let number = inner.new_place();
                let waker = context.waker().clone();
                inner.ready_watchers.push(Watcher { place: number, interest, waker });
                place.0 = Some(number);
            }
        }
        drop(inner);
        self.context.check_process()?;
        Poll::Pending
    }

    pub(crate) fn readable_fd(owner: &Arc<Owner>) -> Result<ReadableFd> {
        let shared: &Shared = owner;
        let bell = match shared.bell.get() {
            Some(bell) => bell.clone(),
            None => {
                let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| {
                    Error::System { what: "cannot make an event descriptor".into(), source: error.into() }
                })?;
                shared.bell.get_or_init(|| Arc::new(made)).clone()
            }
        };
        let mut inner = shared.lock();
        if inner.bell.is_none() {
            inner.bell = Some(Bell { fd: bell.clone(), raised: false });
        }
        inner.ring();
        drop(inner);
        Ok(ReadableFd { bell, _keeps_open: owner.clone() })
    }
}

impl Inner {
    /// As a call would find it that does not wait: what was granted to somebody who waited is not for others.
    fn readiness(&mut self) -> Readiness {
        let ahead = self.senders.ahead(None).filter_map(Awaited::pipe);
        let readiness = self.state.readiness_behind(ahead);
        Readiness {
            receive: readiness.readable && self.receivers.granted() == 0,
            send: readiness.writable && !self.must_queue(),
        }
    }

    /// Makes the descriptor show what is the case.
    fn ring(&mut self) {
        if self.bell.is_some() {
            let raised = self.phase != Phase::Open || self.readiness().receive;
            if let Some(bell) = &mut self.bell {
                bell.show(raised);
            }
        }
    }

    /// Whether there is nothing to do after unlocking, and nobody who would be told of a change.
    #[inline]
    pub(super) fn has_nothing_to_tell(&mut self) -> bool {
        let is_quiet = self.state.effects().is_empty()
            && self.bell.is_none()
            && self.ready_watchers.is_empty()
            && self.watchers.is_empty();
        if is_quiet && self.look_again {
            self.look_again = false;
        }
        is_quiet
    }

    /// To be called before unlocking after any change: shows it to event loops, and gives the tasks that waited for it.
    #[inline]
    pub(super) fn take_ready(&mut self) -> Vec<Waker> {
        if self.bell.is_none() && self.ready_watchers.is_empty() {
            return Vec::new();
        }
        self.ring();
        if self.ready_watchers.is_empty() {
            return Vec::new();
        }
        let (readiness, over) = (self.readiness(), self.phase != Phase::Open);
        self.ready_watchers
            .extract_if(.., |watcher| over || readiness.satisfies(watcher.interest))
            .map(|watcher| watcher.waker)
            .collect()
    }
}
