//! See [`FairQueue`].

use super::ring::Ring;
use crate::peer::{Epoch, PeerKey};

/// Takes whole messages from peers in turn (MQ-188).
///
/// Only peers that have something are in the ring, so that choosing takes constant time and a peer with an endless
/// backlog delays another by one message per active peer (MQ-072).
#[derive(Debug, Default)]
pub struct FairQueue {
    ring: Ring,
}

impl FairQueue {
    /// No peers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of peers that have, or may have, something.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether no peer has anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The peer has something: it joins at the end unless it is in the ring already.
    pub fn activate(&mut self, key: PeerKey, epoch: Epoch) {
        self.ring.join(key, epoch);
    }

    /// The peer has nothing any more, or is gone. Ignored with a stale epoch.
    pub fn deactivate(&mut self, key: PeerKey, epoch: Epoch) {
        self.ring.leave(key, epoch);
    }

    /// Whether the peer is in the ring.
    pub fn contains(&self, key: PeerKey, epoch: Epoch) -> bool {
        self.ring.contains(key, epoch)
    }

    /// The next message, by asking `take` for one of the current peer. A peer that gives none leaves the ring; the turn
    /// of one that gives a message is over. Each peer is asked at most once.
    pub fn next<M>(&mut self, mut take: impl FnMut(PeerKey, Epoch) -> Option<M>) -> Option<(PeerKey, M)> {
        while let Some((key, epoch)) = self.ring.current() {
            if let Some(message) = take(key, epoch) {
                self.ring.advance();
                return Some((key, message));
            }
            self.ring.leave(key, epoch);
        }
        None
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

    /// Rules: MQ-188, MQ-072.
    #[test]
    fn a_backlog_delays_others_by_one_message() {
        let mut queue = FairQueue::new();
        let mut backlog = [1_000_000, 1, 3];
        (0..3).for_each(|index| queue.activate(key(index), Epoch::ZERO));
        let mut order = Vec::new();
        for _ in 0..8 {
            let taken = queue.next(|key, _| {
                let left = &mut backlog[key.index()];
                *left -= (*left > 0) as usize;
                (*left > 0).then_some(())
            });
            order.extend(taken.map(|(key, ())| key.index()));
        }
        // Peer 1 had its last one counted down to nothing: it leaves.
        assert_eq!(order, [0, 2, 0, 2, 0, 0, 0, 0]);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Data(usize, usize),
        Take,
        Down(usize),
        StaleDown(usize),
        Up(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..6, 1usize..4).prop_map(|(peer, count)| Step::Data(peer, count)),
            6 => Just(Step::Take),
            1 => (0usize..6).prop_map(Step::Down),
            1 => (0usize..6).prop_map(Step::StaleDown),
            1 => (0usize..6).prop_map(Step::Up),
        ]
    }

    proptest! {
        /// Against a list that is rotated by hand.
        ///
        /// Rules: MQ-068, MQ-188, MQ-468.
        #[test]
        fn behaves_as_the_model(steps in prop::collection::vec(step(), 0..300)) {
            let mut queue = FairQueue::new();
            let mut epochs = [Epoch::ZERO; 6];
            let mut data = [0usize; 6];
            let mut ring: VecDeque<usize> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Data(peer, count) => {
                        data[peer] += count;
                        queue.activate(key(peer), epochs[peer]);
                        if !ring.contains(&peer) {
                            ring.push_back(peer);
                        }
                    }
                    Step::Take => {
                        let mut expected = None;
                        while let Some(peer) = ring.pop_front() {
                            if data[peer] > 0 {
                                expected = Some(peer);
                                ring.push_back(peer);
                                break;
                            }
                        }
                        let mut asked = 0;
                        let taken = queue.next(|key, epoch| {
                            asked += 1;
                            assert_eq!(epoch, epochs[key.index()]);
                            let left = &mut data[key.index()];
                            *left = left.checked_sub(1)?;
                            Some(key.index())
                        });
                        prop_assert_eq!(taken, expected.map(|peer| (key(peer), peer)));
                        prop_assert!(asked <= 6);
                    }
                    Step::Down(peer) => {
                        queue.deactivate(key(peer), epochs[peer]);
                        ring.retain(|&other| other != peer);
                        data[peer] = 0;
                    }
                    Step::StaleDown(peer) => {
                        if epochs[peer] != Epoch::ZERO {
                            queue.deactivate(key(peer), Epoch::ZERO);
                        }
                    }
                    Step::Up(peer) => {
                        epochs[peer] = epochs[peer].next();
                        if ring.contains(&peer) {
                            queue.activate(key(peer), epochs[peer]);
                        }
                    }
                }
                prop_assert_eq!(queue.len(), ring.len());
                for (peer, &epoch) in epochs.iter().enumerate() {
                    prop_assert_eq!(queue.contains(key(peer), epoch), ring.contains(&peer));
                }
            }
        }
    }
}
