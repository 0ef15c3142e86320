//! A ring of peers with a current one; what the fair queue and the load balancer have in common.
//!
//! A doubly linked list in a table indexed by peer key: joining, leaving and turning take constant time.

use crate::peer::{Epoch, PeerKey};

#[derive(Debug, Default)]
pub(super) struct Ring {
    nodes: Vec<Node>,
    current: Option<PeerKey>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    epoch: Epoch,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Outside,
    Inside { previous: PeerKey, next: PeerKey },
}

impl Ring {
    /// Number of peers in the ring.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the peer is in the ring with this epoch.
    pub(super) fn contains(&self, key: PeerKey, epoch: Epoch) -> bool {
        self.inside(key).is_some_and(|(known, ..)| known == epoch)
    }

    /// The peer whose turn it is.
    pub(super) fn current(&self) -> Option<(PeerKey, Epoch)> {
        let key = self.current?;
        self.inside(key).map(|(epoch, ..)| (key, epoch))
    }

    /// Ends the turn of the current peer.
    pub(super) fn advance(&mut self) {
        if let Some((_, _, next)) = self.current.and_then(|key| self.inside(key)) {
            self.current = Some(next);
        }
    }

    /// Puts a peer at the end, where its turn comes last. One that is inside already keeps its place and takes the
    /// epoch. An epoch older than the one on record changes nothing.
    pub(super) fn join(&mut self, key: PeerKey, epoch: Epoch) {
        if self.nodes.len() <= key.index() {
            self.nodes.resize(key.index() + 1, Node { epoch: Epoch::default(), place: Place::Outside });
        }
        let Some(node) = self.nodes.get_mut(key.index()) else { return };
        if epoch < node.epoch {
            return;
        }
        node.epoch = epoch;
        if matches!(node.place, Place::Inside { .. }) {
            return;
        }
        self.len += 1;
        match self.current {
            None => {
                self.link(key, key);
                self.current = Some(key);
            }
            Some(first) => {
                let last = self.inside(first).map_or(first, |(_, previous, _)| previous);
                self.link(last, key);
                self.link(key, first);
            }
        }
    }

    /// Takes a peer out. Ignored with another epoch than the one on record.
    pub(super) fn leave(&mut self, key: PeerKey, epoch: Epoch) -> bool {
        let Some((_, previous, next)) = self.inside(key).filter(|(known, ..)| *known == epoch) else {
            return false;
        };
        self.len -= 1;
        if let Some(node) = self.nodes.get_mut(key.index()) {
            node.place = Place::Outside;
        }
        if next == key {
            self.current = None;
            return true;
        }
        self.link(previous, next);
        if self.current == Some(key) {
            self.current = Some(next);
        }
        true
    }

    fn inside(&self, key: PeerKey) -> Option<(Epoch, PeerKey, PeerKey)> {
        let node = self.nodes.get(key.index())?;
        match node.place {
            Place::Outside => None,
            Place::Inside { previous, next } => Some((node.epoch, previous, next)),
        }
    }

    /// Makes `second` follow `first`.
    fn link(&mut self, first: PeerKey, second: PeerKey) {
        if let Some(node) = self.nodes.get_mut(first.index()) {
            let previous = match node.place {
                Place::Inside { previous, .. } => previous,
                Place::Outside => first,
            };
            node.place = Place::Inside { previous, next: second };
        }
        if let Some(node) = self.nodes.get_mut(second.index()) {
            let next = match node.place {
                Place::Inside { next, .. } => next,
                Place::Outside => second,
            };
            node.place = Place::Inside { previous: first, next };
        }
    }
}
