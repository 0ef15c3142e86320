//! REQ: asks, and waits for the answer.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tidegate_io::message::Message;
use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanReserve, CanSend, Family, Kind, Socket};
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

impl CanReserve for ReqKind {}

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
        self.prepare()?;
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

    /// Sets what [`request`](Self::request) needs, unless it is set.
    fn prepare(&self) -> Result<()> {
        {
            let inner = self.core().lock();
            if inner.options.req_relaxed && inner.options.req_correlate {
                return Ok(());
            }
        }
        self.core().set_options(|options| {
            options.req_relaxed = true;
            options.req_correlate = true;
            Ok(())
        })
    }

    /// [`request`](Self::request) on the calling thread.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn request_blocking(&self, message: impl Into<Message>, timeout: Duration) -> Result<Message> {
        crate::shared::wait(self.request(message, timeout))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{Context, Options, Rep};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// The first request sets options, which copies them all; the others find them set, also after somebody else has
    /// changed another option, and set them again after they were taken back.
    ///
    /// Rules: MQ-198.
    #[test]
    fn options_are_set_once() {
        const PROPERTIES: u64 = 1000;
        let context = Context::new();
        let rep = Rep::new(&context).unwrap();
        rep.bind_blocking("inproc://rep").unwrap();
        let answering = thread::spawn(move || {
            for _ in 0..4 {
                let request = rep.recv_blocking().unwrap();
                rep.send_blocking(request).unwrap();
            }
        });
        let mut options = Options::default();
        options.metadata = (0..PROPERTIES).map(|n| (format!("X-{n}"), "value".into())).collect();
        let req = Req::with_options(&context, options).unwrap();
        req.connect("inproc://rep").unwrap();
        let ask = || {
            let asked = || assert_eq!(req.request_blocking("ask", PATIENCE).unwrap().parts(), ["ask"]);
            allocation_counter::measure(asked).count_total
        };
        let set = |relaxed| {
            req.set_options(|options| {
                options.req_relaxed = relaxed;
                options.rcvhwm = 7;
                Ok(())
            })
            .unwrap();
        };
        assert!(ask() > PROPERTIES);
        assert!(ask() < PROPERTIES);
        set(true);
        assert!(ask() < PROPERTIES);
        set(false);
        ask();
        assert!(req.options().req_relaxed && req.options().req_correlate);
        answering.join().unwrap();
    }
}
