//! Names of peers inside a socket, and of one incarnation of a peer's connection.

use std::fmt;

/// Names a pipe of a socket. Small, dense, reused after the pipe is gone; never seen on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(u32);

impl PeerKey {
    /// The key with this index.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Place of the pipe in tables that are indexed by peer.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// Number of one connection of a peer key; grows with every connection of a socket (MQ-068).
///
/// What a connection reports is stamped with its epoch, so that news of a connection that is gone cannot change what
/// belongs to its successor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Before any connection.
    pub const ZERO: Self = Self(0);

    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
