//! XSUB: a subscriber whose subscriptions are messages.

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanSend, CanSplit, Family, Kind, Socket};
use crate::error::Result;

/// Receives everything its publishers send. A sent message that begins with byte 1 subscribes to the rest of it, one that
/// begins with 0 ends that; any other goes to all publishers (6.10).
pub type XSub = Socket<XSubKind>;

/// The kind of [`XSub`].
#[derive(Debug)]
pub enum XSubKind {}

impl Family for XSubKind {}

impl Kind for XSubKind {
    const TYPE: SocketType = SocketType::XSub;
}

impl CanReceive for XSubKind {}

impl CanSend for XSubKind {}

impl CanSplit for XSubKind {}

impl Socket<XSubKind> {
    /// Asks for every message whose first part begins with `topic`; the empty topic asks for all. Counts: as many
    /// [`unsubscribe`](Self::unsubscribe) take it back (MQ-230).
    ///
    /// # Errors
    /// [`Terminated`](crate::Error::Terminated) when the context is shut down.
    pub fn subscribe(&self, topic: impl AsRef<[u8]>) -> Result<()> {
        self.core().subscribe(topic.as_ref())
    }

    /// Takes one [`subscribe`](Self::subscribe) back; does nothing when there was none.
    ///
    /// # Errors
    /// [`Terminated`](crate::Error::Terminated) when the context is shut down.
    pub fn unsubscribe(&self, topic: impl AsRef<[u8]>) -> Result<()> {
        self.core().unsubscribe(topic.as_ref())
    }

    /// Number of distinct topics that are subscribed to.
    pub fn topics_count(&self) -> usize {
        self.core().topics_count()
    }
}
