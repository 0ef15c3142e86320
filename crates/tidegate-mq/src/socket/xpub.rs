//! XPUB: a publisher that hears of subscriptions.

use std::time::Duration;

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanSend, Kind, Socket};
use crate::error::Result;

/// Like [`Pub`](super::Pub); receives byte 1 and a topic when that is subscribed to, byte 0 and the topic when that ends, and
/// what subscribers send (6.8).
pub type XPub = Socket<XPubKind>;

/// The kind of [`XPub`].
#[derive(Debug)]
pub enum XPubKind {}

impl Kind for XPubKind {
    const TYPE: SocketType = SocketType::XPub;
}

impl CanReceive for XPubKind {}

impl CanSend for XPubKind {}

impl Socket<XPubKind> {
    /// Waits until at least `count` subscribers would get a message that begins with `topic` (MQ-221).
    ///
    /// # Errors
    /// [`Timeout`](crate::Error::Timeout) when that takes longer than `timeout`.
    pub async fn wait_for_subscribers(&self, topic: &[u8], count: usize, timeout: Duration) -> Result<()> {
        self.core().wait_for_subscribers(topic, count, timeout).await
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
