//! Numbers of a socket and of its peers (MQ-067, MQ-364). They are read without stopping those who send and receive.

use std::{fmt, sync::Arc};

pub use crate::state::{FlowReading as FlowMetrics, Reading as Metrics};
use crate::{peer::Peer, state::Counters};

/// A peer that a socket has or had a connection to, with its numbers.
#[derive(Clone)]
pub struct PeerMetrics {
    pub(crate) peer: Peer,
    pub(crate) connected: bool,
    pub(crate) counters: Arc<Counters>,
}

impl PeerMetrics {
    /// Who it is, as of its last connection.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether the connection was up when this was asked for.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The numbers now; may be asked again and again.
    pub fn read(&self) -> Metrics {
        self.counters.reading()
    }
}

impl fmt::Debug for PeerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerMetrics")
            .field("peer", &self.peer)
            .field("connected", &self.connected)
            .field("metrics", &self.read())
            .finish()
    }
}
