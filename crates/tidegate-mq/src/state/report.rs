//! What people and the owner want to know of a socket: numbers, peers, what is still to be written.

use std::sync::Arc;

use tidegate_io::peer::{Epoch, PeerKey};

use super::{
    State,
    counters::{Counters, Ledger},
    peer::{PeerInfo, SocketType},
};

/// A pipe's messages that are to be waited for: so many had entered its queue.
#[derive(Debug)]
pub(crate) struct Backlog {
    pipe: PeerKey,
    born: Epoch,
    entered: u64,
}

/// Messages that a pipe has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// From the peer.
    pub(crate) received: u64,
    /// Taken for writing.
    pub(crate) sent: u64,
}

impl Carried {
    /// What came after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            received: self.received.saturating_sub(before.received),
            sent: self.sent.saturating_sub(before.sent),
        }
    }
}

impl<L: Clone> State<L> {
    /// Type of the socket.
    pub(crate) fn kind(&self) -> SocketType {
        self.core.kind
    }

    /// The numbers of one pipe, readable without the lock.
    #[cfg(test)]
    pub(crate) fn counters(&self, key: PeerKey) -> Option<Arc<Counters>> {
        self.core.pipe(key).map(|pipe| pipe.counters())
    }

    /// The numbers of the socket, readable without its lock.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        self.core.ledger()
    }

    /// Every pipe that has or had a connection: its peer, and its numbers.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (Arc<PeerInfo>, bool, Arc<Counters>)> {
        self.core.iter().filter_map(|(_, pipe)| Some((pipe.peer.clone()?, pipe.is_up(), pipe.counters())))
    }

    /// The numbers of all pipes together, with those that are gone.
    #[cfg(test)]
    pub(crate) fn totals(&self) -> super::counters::Reading {
        self.core.totals()
    }

    /// Messages that the pipe has carried so far.
    pub(crate) fn carried(&self, key: PeerKey) -> Carried {
        let reading = self.core.pipe(key).map(|pipe| pipe.counters().reading()).unwrap_or_default();
        Carried { received: reading.inbound.entered, sent: reading.out.left }
    }

    /// Messages queued for sending on this pipe (MQ-059, MQ-080).
    pub(crate) fn queued(&self, key: PeerKey) -> usize {
        self.core.pipe(key).map_or(0, |pipe| pipe.queued())
    }

    /// Whether changes of subscriptions wait to be written.
    pub(crate) fn has_commands(&self, key: PeerKey) -> bool {
        self.core.pipe(key).is_some_and(|pipe| !pipe.commands.is_empty())
    }

    /// Messages that were taken from the pipe for writing so far.
    pub(crate) fn taken(&self, key: PeerKey) -> u64 {
        self.core.pipe(key).map_or(0, |pipe| pipe.counters.out.has_left())
    }

    /// All that was taken from the pipe is written.
    pub(crate) fn wrote(&mut self, key: PeerKey, epoch: Epoch) {
        self.wrote_up_to(key, epoch, self.taken(key));
    }

    /// As many messages of the pipe as [`taken`](Self::taken) said are written.
    pub(crate) fn wrote_up_to(&mut self, key: PeerKey, epoch: Epoch, taken: u64) {
        if self.core.is_connected(key, epoch)
            && let Some(pipe) = self.core.pipe_mut(key)
        {
            pipe.written = pipe.written.max(taken);
        }
    }

    /// What every pipe has yet to write.
    pub(crate) fn backlog(&self) -> Vec<Backlog> {
        let pipes = self.core.iter().map(|(pipe, state)| Backlog {
            pipe,
            born: state.born,
            entered: state.counters().reading().out.entered,
        });
        let mut backlog = pipes.collect();
        self.settle(&mut backlog);
        backlog
    }

    /// Drops from `backlog` what is done with.
    pub(crate) fn settle(&self, backlog: &mut Vec<Backlog>) {
        backlog.retain(|Backlog { pipe, born, entered }| {
            let Some(pipe) = self.core.pipe(*pipe).filter(|pipe| pipe.born == *born) else { return false };
            let out = pipe.counters().reading().out;
            let written = if pipe.is_inproc() { out.left } else { pipe.written };
            written + out.dropped_by_rule + out.discarded < *entered
        });
    }

    /// Messages queued for sending on all pipes.
    pub(crate) fn queued_in_all(&self) -> usize {
        self.core.iter().map(|(_, pipe)| pipe.queued()).sum()
    }

    /// The same without those that nobody dials for.
    pub(crate) fn queued_to_go(&self) -> usize {
        self.core.iter().filter(|(_, pipe)| !pipe.idle).map(|(_, pipe)| pipe.queued()).sum()
    }

    /// The ways to all present connections.
    pub(crate) fn links(&self) -> impl Iterator<Item = &L> {
        self.core.iter().filter_map(|(_, pipe)| pipe.link.as_ref())
    }

    /// The way to the present connection of a pipe.
    pub(crate) fn link(&self, key: PeerKey) -> Option<&L> {
        self.core.pipe(key)?.link.as_ref()
    }

    /// Whether this is the present connection of the pipe.
    pub(crate) fn is_connected(&self, key: PeerKey, epoch: Epoch) -> bool {
        self.core.is_connected(key, epoch)
    }

    /// What the peer of a pipe said of itself.
    pub(crate) fn peer(&self, key: PeerKey) -> Option<Arc<PeerInfo>> {
        self.core.pipe(key)?.peer.clone()
    }
}
