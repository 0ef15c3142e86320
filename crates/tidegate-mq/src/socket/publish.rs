//! PUB: tells everybody who wants to know.

use std::time::Duration;

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReserve, CanSend, Family, Kind, Socket};
use crate::error::Result;

/// Sends each message to every subscriber with a subscription that is a prefix of the first part. Never waits: a
/// subscriber whose queue is full misses the message (6.7).
pub type Pub = Socket<PubKind>;

/// The kind of [`Pub`].
#[derive(Debug)]
pub enum PubKind {}

impl Family for PubKind {}

impl Kind for PubKind {
    const TYPE: SocketType = SocketType::Pub;
}

impl CanSend for PubKind {}

impl CanReserve for PubKind {}

impl Socket<PubKind> {
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

    /// Number of distinct topics that somebody subscribed to.
    pub fn topics_count(&self) -> usize {
        self.core().topics_count()
    }
}
