//! What the control plane needs from a message transport.
//!
//! [`aeron`] is the real one. [`memory`] connects agents inside one process deterministically and is what most tests
//! run on. Opening an endpoint never blocks: it returns a pending object that the duty cycle polls (TP-437).
//!
//! A message is one complete SBE message (TP-019); fragments are reassembled below this layer (TP-020).

#[cfg(feature = "aeron")]
pub mod aeron;
pub mod memory;
mod opening;

pub use opening::Opening;

use crate::channel::Channel;
use crate::ids::{AeronStreamId, SessionId};

/// One received message. The bytes are valid during the call only.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The complete SBE message.
    pub bytes: &'a [u8],
    /// The publication it came from.
    pub session: SessionId,
}

/// Why a message was not taken. None of these loses a message that was accepted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// Subscribers are behind; try again.
    #[error("back-pressured: subscribers have not caught up yet")]
    BackPressured,
    /// Nobody subscribes.
    #[error("nobody is subscribed")]
    NotConnected,
    /// The log is rotating; try again.
    #[error("the transport is rotating its log; try again")]
    AdminAction,
    /// The publication or its client is closed.
    #[error("the publication is closed; connect anew")]
    Closed,
    /// The stream position is exhausted; a new publication is needed.
    #[error("the publication reached its maximum position; open a new one")]
    MaxPosition,
    /// The message is longer than the transport can carry.
    #[error("the message is longer than the transport can carry")]
    TooLong,
    /// Any other refusal, by the transport's own code.
    #[error("the transport refused the message (code {0})")]
    Other(i32),
}

/// Why an endpoint could not be opened, or stopped working.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The media driver is not there.
    #[error(
        "no media driver at {location}: {reason}; start a node with `tidegate up` or name one with --aeron-dir"
    )]
    Unreachable {
        /// Where it was expected.
        location: String,
        /// What the transport says.
        reason: String,
    },
    /// The media driver went away.
    #[error("lost the media driver at {location}: {reason}")]
    Lost {
        /// Where it was.
        location: String,
        /// What the transport says.
        reason: String,
    },
    /// Another publication of this stream states another `term-length` or `mtu` (TP-487).
    #[error("stream {stream} on '{channel}': an existing publication has other parameters: {reason}")]
    ChannelClash {
        /// The channel asked for.
        channel: String,
        /// The Aeron stream id asked for.
        stream: AeronStreamId,
        /// What the transport says.
        reason: String,
    },
    /// The endpoint was refused.
    #[error("stream {stream} on '{channel}' refused: {reason} (code {code})")]
    Refused {
        /// The channel asked for.
        channel: String,
        /// The Aeron stream id asked for.
        stream: AeronStreamId,
        /// The transport's code.
        code: i32,
        /// What the transport says.
        reason: String,
    },
}

/// Makes transports.
pub trait Connector: Send + Sync {
    /// Connects, or says why not. Called at start, on the caller's thread; may wait for a media driver that is not there
    /// yet.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`] when there is no media driver.
    fn connect(&self) -> Result<Box<dyn Transport>, TransportError>;

    /// Connects if the media driver is there now. Called in duty cycles, again and again after a transport was lost, so
    /// it never waits (TP-437). A connector whose [`Connector::connect`] may wait overrides it.
    ///
    /// # Errors
    /// As [`Connector::connect`].
    fn try_connect(&self) -> Result<Box<dyn Transport>, TransportError> {
        self.connect()
    }
}

/// A live connection to a media driver.
pub trait Transport: Send {
    /// Starts opening a publication shared by all publishers of this stream id and channel.
    ///
    /// # Errors
    /// When the request cannot even be made; refusals come from [`Pending::poll`].
    fn publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Publication>>>, TransportError>;

    /// Starts opening a publication with a log of its own, for one writer (TP-489).
    ///
    /// # Errors
    /// As [`Transport::publication`].
    fn exclusive_publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Publication>>>, TransportError>;

    /// Starts opening a subscription.
    ///
    /// # Errors
    /// As [`Transport::publication`].
    fn subscription(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Subscription>>>, TransportError>;

    /// Drives the transport's own duty cycle in invoker mode (TP-438); nothing to do otherwise. Returns work done.
    fn do_work(&self) -> usize;

    /// Why the connection is unusable, if it is. A lost transport never comes back: connect anew.
    fn failure(&self) -> Option<TransportError>;
}

/// An endpoint being opened.
pub trait Pending<T>: Send {
    /// The endpoint once it is there; must not be polled again after that.
    ///
    /// # Errors
    /// When the media driver refused it or is gone.
    fn poll(&mut self) -> Result<Option<T>, TransportError>;
}

/// The sending end of one stream. Used from one thread at a time.
pub trait Publication: Send {
    /// Hands the message to the transport; returns the stream position after it. One attempt, never blocks.
    ///
    /// # Errors
    /// [`OfferError`]; the message was not sent.
    fn offer(&mut self, message: &[u8]) -> Result<i64, OfferError>;

    /// Whether anybody subscribes.
    fn is_connected(&self) -> bool;

    /// The session that receivers see as [`Message::session`].
    fn session(&self) -> SessionId;
}

/// The receiving end of one stream. Polled from one thread at a time (TP-037).
pub trait Subscription: Send {
    /// Hands at most `limit` messages to `handler`; returns how many. Never blocks.
    ///
    /// # Errors
    /// When the transport is gone.
    fn poll(&mut self, limit: usize, handler: &mut dyn FnMut(Message<'_>)) -> Result<usize, TransportError>;

    /// Whether a publication of this session is live and connected to this subscription.
    fn has_image(&self, session: SessionId) -> bool;

    /// Number of live publications connected to this subscription.
    fn image_count(&self) -> usize;
}
