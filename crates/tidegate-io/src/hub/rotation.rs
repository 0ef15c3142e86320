//! See [`Rotation`].

use crate::peer::{Epoch, PeerKey};

/// Peers that take turns: a fair queue where peers are received from (MQ-188), a load balancer where they are sent to
/// (MQ-189).
///
/// Only peers that have something, or have room, are inside. One that is found with nothing or without room leaves until
/// it [joins](Self::join) again, and one that joins is last in line. So choosing takes constant time, and a peer that
/// always has something delays another by one message per peer inside (MQ-072).
///
/// A doubly linked ring in a table indexed by peer key: joining, leaving and turning take constant time.
#[derive(Debug, Default)]
pub struct Rotation {
    nodes: Vec<Node>,
    /// Whose turn it is.
    current: Option<PeerKey>,
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

impl Rotation {
    /// Whether nobody is inside: there is nothing to receive, or no room to send.
    pub fn is_empty(&self) -> bool {
        self.current.is_none()
    }

    /// Puts a peer at the end, where its turn comes last. One that is inside already keeps its place and takes the
    /// epoch. An epoch older than the one on record changes nothing.
    pub fn join(&mut self, key: PeerKey, epoch: Epoch) {
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
    pub fn leave(&mut self, key: PeerKey, epoch: Epoch) {
        let Some((_, previous, next)) = self.inside(key).filter(|(known, ..)| *known == epoch) else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(key.index()) {
            node.place = Place::Outside;
        }
        if next == key {
            self.current = None;
            return;
        }
        self.link(previous, next);
        if self.current == Some(key) {
            self.current = Some(next);
        }
    }

    /// Asks one peer after the other, each at most once, until one gives an answer, and says which that was. Its turn is
    /// over then; those who gave none leave.
    #[inline]
    pub fn next<T>(&mut self, mut ask: impl FnMut(PeerKey, Epoch) -> Option<T>) -> Option<(PeerKey, T)> {
        while let Some(key) = self.current {
            let (epoch, _, next) = self.inside(key)?;
            if let Some(answer) = ask(key, epoch) {
                self.current = Some(next);
                return Some((key, answer));
            }
            self.leave(key, epoch);
        }
        None
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn key(index: usize) -> PeerKey {
        PeerKey::new(index as u32)
    }

    /// The peers inside, from the one whose turn it is.
    fn line(rotation: &Rotation) -> Vec<usize> {
        let mut line = Vec::new();
        let mut at = rotation.current;
        while let Some(key) = at {
            line.push(key.index());
            at = rotation.inside(key).map(|(_, _, next)| next).filter(|next| Some(*next) != rotation.current);
        }
        line
    }

    /// Rules: MQ-188, MQ-072.
    #[test]
    fn a_backlog_delays_others_by_one_message() {
        let mut rotation = Rotation::default();
        let mut backlog = [1_000_000, 1, 3];
        (0..3).for_each(|index| rotation.join(key(index), Epoch::ZERO));
        let mut order = Vec::new();
        for _ in 0..8 {
            let taken = rotation.next(|key, _| {
                let left = &mut backlog[key.index()];
                *left -= (*left > 0) as usize;
                (*left > 0).then_some(())
            });
            order.extend(taken.map(|(key, ())| key.index()));
        }
        // Peer 1 had its last one counted down to nothing: it leaves.
        assert_eq!(order, [0, 2, 0, 2, 0, 0, 0, 0]);
    }

    /// Rules: MQ-070, MQ-189.
    #[test]
    fn peers_with_room_take_turns() {
        let mut rotation = Rotation::default();
        assert_eq!(rotation.next(|_, _| Some(())), None);
        (0..3).for_each(|index| rotation.join(key(index), Epoch::ZERO));
        let turns: Vec<_> =
            (0..7).filter_map(|_| rotation.next(|key, _| Some(key.index()))).map(|(_, peer)| peer).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// So much more to receive, or room for so much more.
        More(usize, usize),
        Turn,
        /// It has nothing any more, and does not say so.
        Vanish(usize),
        Down(usize),
        Up(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..6, 1usize..4).prop_map(|(peer, count)| Step::More(peer, count)),
            8 => Just(Step::Turn),
            1 => (0usize..6).prop_map(Step::Vanish),
            1 => (0usize..6).prop_map(Step::Down),
            2 => (0usize..6, 0usize..4).prop_map(|(peer, count)| Step::Up(peer, count)),
        ]
    }

    proptest! {
        /// Against a list that is rotated by hand.
        ///
        /// Rules: MQ-068, MQ-070, MQ-188, MQ-189, MQ-192, MQ-468.
        #[test]
        fn behaves_as_the_model(steps in prop::collection::vec(step(), 0..300)) {
            let mut rotation = Rotation::default();
            let mut epochs = [Epoch::ZERO; 6];
            let mut has = [0usize; 6];
            let mut model: VecDeque<usize> = VecDeque::new();
            for step in steps {
                match step {
                    Step::More(peer, count) => {
                        has[peer] += count;
                        rotation.join(key(peer), epochs[peer]);
                        if !model.contains(&peer) {
                            model.push_back(peer);
                        }
                    }
                    Step::Turn => {
                        let mut expected = None;
                        while let Some(peer) = model.pop_front() {
                            if has[peer] > 0 {
                                expected = Some((key(peer), peer));
                                model.push_back(peer);
                                break;
                            }
                        }
                        let mut asked = 0;
                        let chosen = rotation.next(|key, epoch| {
                            asked += 1;
                            assert_eq!(epoch, epochs[key.index()]);
                            let left = &mut has[key.index()];
                            *left = left.checked_sub(1)?;
                            Some(key.index())
                        });
                        prop_assert_eq!(chosen, expected);
                        prop_assert!(asked <= 6);
                    }
                    Step::Vanish(peer) => has[peer] = 0,
                    Step::Down(peer) => {
                        has[peer] = 0;
                        rotation.leave(key(peer), epochs[peer]);
                        model.retain(|&other| other != peer);
                    }
                    Step::Up(peer, count) => {
                        let old = epochs[peer];
                        epochs[peer] = old.next();
                        has[peer] = count;
                        rotation.join(key(peer), epochs[peer]);
                        // Late words of the connection before.
                        rotation.leave(key(peer), old);
                        rotation.join(key(peer), old);
                        if !model.contains(&peer) {
                            model.push_back(peer);
                        }
                    }
                }
                prop_assert_eq!(rotation.is_empty(), model.is_empty());
                prop_assert_eq!(line(&rotation), Vec::from(model.clone()));
            }
        }
    }
}
