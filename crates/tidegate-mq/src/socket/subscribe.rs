//! SUB: hears what it asked for.

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanSubscribe, Family, Kind, Socket};
use crate::error::Result;

/// Receives from all its publishers what it subscribed to; a new socket gets nothing (6.9).
pub type Sub = Socket<SubKind>;

/// The kind of [`Sub`].
#[derive(Debug)]
pub enum SubKind {}

impl Family for SubKind {}

impl Kind for SubKind {
    const TYPE: SocketType = SocketType::Sub;
}

impl CanReceive for SubKind {}

impl CanSubscribe for SubKind {}

impl<K: CanSubscribe> Socket<K> {
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
