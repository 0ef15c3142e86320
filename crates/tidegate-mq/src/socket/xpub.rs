//! XPUB: a publisher that hears of subscriptions.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tidegate_io::message::Message;
use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanReserve, CanSend, CanSplit, Family, Kind, Socket};
use crate::{error::Result, pattern::Event, peer::Peer, state::PeerInfo};

/// Like [`Pub`](super::Pub); receives byte 1 and a topic when that is subscribed to, byte 0 and the topic when that ends, and
/// what subscribers send (6.8).
pub type XPub = Socket<XPubKind>;

/// The kind of [`XPub`].
#[derive(Debug)]
pub enum XPubKind {}

impl Family for XPubKind {}

impl Kind for XPubKind {
    const TYPE: SocketType = SocketType::XPub;
}

impl CanReceive for XPubKind {}

impl CanSend for XPubKind {}

impl CanReserve for XPubKind {}

impl CanSplit for XPubKind {}

/// What an XPUB receives, typed (MQ-226). The peer is `None` when it is forgotten already.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation per message")]
pub enum XPubEvent {
    /// A topic was subscribed to.
    Subscribe {
        /// The topic.
        topic: Bytes,
        /// Who subscribed.
        peer: Option<Peer>,
    },
    /// A subscription has ended.
    Unsubscribe {
        /// The topic.
        topic: Bytes,
        /// Whose subscription it was.
        peer: Option<Peer>,
    },
    /// A subscriber sent a message.
    Message {
        /// The message.
        message: Message,
        /// Who sent it.
        peer: Option<Peer>,
    },
}

type Received = (Event, Option<Arc<PeerInfo>>);

impl From<Received> for XPubEvent {
    fn from((event, peer): Received) -> Self {
        let peer = peer.map(Peer::new);
        match event {
            Event::Subscribe(topic) => Self::Subscribe { topic, peer },
            Event::Unsubscribe(topic) => Self::Unsubscribe { topic, peer },
            Event::Message(message) => Self::Message { message, peer },
        }
    }
}

impl Socket<XPubKind> {
    /// Receives the next change of subscriptions, or message of a subscriber.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancellation
    /// A dropped future has taken nothing.
    pub async fn recv_event(&self) -> Result<XPubEvent> {
        self.core().recv::<Received>().await.map(Into::into)
    }

    /// [`recv_event`](Self::recv_event) if there is one.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_event(&self) -> Result<XPubEvent> {
        self.core().try_recv::<Received>().map(Into::into)
    }

    /// [`recv_event`](Self::recv_event) on the calling thread.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_event_blocking(&self) -> Result<XPubEvent> {
        self.core().recv_blocking::<Received>().map(Into::into)
    }

    /// Waits until at least `count` subscribers would get a message that begins with `topic` (MQ-221).
    ///
    /// # Errors
    /// [`Timeout`](crate::Error::Timeout) when that takes longer than `timeout`.
    ///
    /// # Cancellation
    /// Changes nothing; may be dropped at any time.
    pub async fn wait_for_subscribers(&self, topic: &[u8], count: usize, timeout: Duration) -> Result<()> {
        self.core().wait_for_subscribers(topic, count, timeout).await
    }

    /// [`wait_for_subscribers`](Self::wait_for_subscribers) on the calling thread.
    ///
    /// # Errors
    /// As [`wait_for_subscribers`](Self::wait_for_subscribers).
    pub fn wait_for_subscribers_blocking(&self, topic: &[u8], count: usize, timeout: Duration) -> Result<()> {
        crate::shared::wait(self.core().wait_for_subscribers(topic, count, timeout))
    }

    /// Manual mode: adds `topic` to what the peer gets whose notification was received last.
    ///
    /// # Errors
    /// [`NotSupported`](crate::Error::NotSupported) without `xpub_manual`.
    pub fn subscribe(&self, topic: impl AsRef<[u8]>) -> Result<()> {
        self.core().subscribe(topic.as_ref())
    }

    /// Manual mode: takes `topic` from what the peer gets whose notification was received last.
    ///
    /// # Errors
    /// [`NotSupported`](crate::Error::NotSupported) without `xpub_manual`.
    pub fn unsubscribe(&self, topic: impl AsRef<[u8]>) -> Result<()> {
        self.core().unsubscribe(topic.as_ref())
    }

    /// Number of distinct topics that somebody subscribed to.
    pub fn topics_count(&self) -> usize {
        self.core().topics_count()
    }
}
