//! REQ: asks, and waits for the answer.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tidegate_io::message::Message;
use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanSend, Family, Kind, Socket};
use crate::error::{Error, Result};

/// Sends a request to one of its peers, in turn, and receives the answer, one after the other (6.3).
pub type Req = Socket<ReqKind>;

/// The kind of [`Req`].
#[derive(Debug)]
pub enum ReqKind {}

impl Family for ReqKind {}

impl Kind for ReqKind {
    const TYPE: SocketType = SocketType::Req;
}

impl CanReceive for ReqKind {}

impl CanSend for ReqKind {}

impl Socket<ReqKind> {
    /// Asks, and waits for the answer for at most `timeout` in all. The socket can be used again whatever the outcome
    /// (MQ-198): from the first call on `req_relaxed` and `req_correlate` are set, so that a late answer is told from the
    /// one that is waited for and dropped.
    ///
    /// One exchange at a time: a second request by another handle gives the first one up.
    ///
    /// # Errors
    /// [`Timeout`](Error::Timeout), [`Terminated`](Error::Terminated), [`PeerLost`](Error::PeerLost) where
    /// `req_on_peer_loss` says so.
    ///
    /// # Cancellation
    /// Dropped, it has sent the request or not, and the answer is dropped when it comes.
    pub async fn request(&self, message: impl Into<Message>, timeout: Duration) -> Result<Message> {
        let message = message.into();
        self.core().set_options(|options| {
            options.req_relaxed = true;
            options.req_correlate = true;
            Ok(())
        })?;
        let mut timer = self.core().context.timer(Some(timeout));
        let exchange = async {
            self.send(message).await?;
            self.recv().await
        };
        let mut exchange = pin!(exchange);
        poll_fn(|context| match exchange.as_mut().poll(context) {
            Poll::Pending if timer.as_mut().is_some_and(|timer| timer.is_over(context.waker())) => {
                Poll::Ready(Err(Error::Timeout))
            }
            other => other,
        })
        .await
    }

    /// [`request`](Self::request) on the calling thread.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn request_blocking(&self, message: impl Into<Message>, timeout: Duration) -> Result<Message> {
        crate::shared::wait(self.request(message, timeout))
    }
}
