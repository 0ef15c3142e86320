//! Room kept for one message, for senders who must know whether it was queued (MQ-076).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use tidegate_io::message::Message;

use super::{Send, Shared};
use crate::error::{Error, Result, SendError};

/// Room for one message. Dropping it gives the room to others.
///
/// While it is held, other senders find one message less of room.
#[must_use = "dropping a permit gives the room back"]
pub struct Permit<'a> {
    shared: &'a Shared,
    is_used: bool,
}

impl Permit<'_> {
    /// Sends a message, without waiting. When this returns `Ok` the message is queued; if the peer that had the room was
    /// lost meanwhile, it goes to another one, or shares the fate of what was queued for the lost peer.
    ///
    /// # Errors
    /// Never for want of room. [`InvalidMessage`](Error::InvalidMessage) and
    /// [`MessageTooLarge`](Error::MessageTooLarge) for what cannot be sent at all, [`Terminated`](Error::Terminated)
    /// when the context was shut down; the message comes back in the error.
    pub fn send(mut self, message: impl Into<Message>) -> Result<(), SendError> {
        let mut message = message.into();
        let mut inner = self.shared.lock();
        let outcome = inner.phase.check().and_then(|()| match message.is_empty() {
            true => Err(Error::InvalidMessage("it has no part")),
            false => self.shared.check_size(&message),
        });
        if let Err(error) = outcome {
            drop(inner);
            return Err(SendError { message, error });
        }
        self.is_used = true;
        inner.state.send_reserved(&mut message);
        self.shared.finish_send(inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.is_used {
            let mut inner = self.shared.lock();
            inner.state.give_back();
            self.shared.finish(inner);
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

/// Future of [`Socket::reserve`](crate::Socket::reserve).
#[must_use = "nothing is reserved unless it is awaited"]
pub struct Reserve<'a>(Send<'a>);

impl<'a> Future for Reserve<'a> {
    type Output = Result<Permit<'a>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let shared = self.0.shared();
        Pin::new(&mut self.0).poll(context).map(|done| match done {
            Ok(()) => Ok(Permit { shared, is_used: false }),
            Err(SendError { error, .. }) => Err(error),
        })
    }
}

impl Shared {
    pub(crate) fn reserve(&self) -> Reserve<'_> {
        Reserve(Send::reserving(self))
    }

    pub(crate) fn try_reserve(&self) -> Result<Permit<'_>> {
        self.try_reserve_room()?;
        Ok(Permit { shared: self, is_used: false })
    }
}
