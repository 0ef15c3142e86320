//! See [`Distributor`].

use super::Offer;
use crate::peer::{Epoch, PeerKey};

/// Sends a message to many peers (MQ-190).
///
/// Holds all connected peers without gaps, so that sending to all of them visits nobody else.
#[derive(Debug, Default)]
pub struct Distributor {
    peers: Vec<(PeerKey, Epoch)>,
    /// Place in `peers`, and the last epoch seen, by peer key.
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    epoch: Epoch,
    at: Option<usize>,
}

/// How a message was distributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distributed {
    /// Peers that took it.
    pub taken: usize,
    /// Peers that were full and got nothing of it.
    pub dropped: usize,
}

impl Distributor {
    /// No peers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of peers.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether there is no peer.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The peer is connected. Replaces its older epoch; an older one than known is ignored.
    pub fn attach(&mut self, key: PeerKey, epoch: Epoch) {
        if self.places.len() <= key.index() {
            self.places.resize(key.index() + 1, Place::default());
        }
        let Some(place) = self.places.get_mut(key.index()) else { return };
        if epoch < place.epoch {
            return;
        }
        place.epoch = epoch;
        match place.at.and_then(|at| self.peers.get_mut(at)) {
            Some(peer) => peer.1 = epoch,
            None => {
                place.at = Some(self.peers.len());
                self.peers.push((key, epoch));
            }
        }
    }

    /// The peer is gone. Ignored with a stale epoch.
    pub fn detach(&mut self, key: PeerKey, epoch: Epoch) {
        if let Some(place) = self.places.get_mut(key.index()).filter(|place| place.epoch == epoch)
            && let Some(at) = place.at.take()
        {
            self.remove_at(at);
        }
    }

    /// The epoch of a connected peer.
    pub fn epoch(&self, key: PeerKey) -> Option<Epoch> {
        let place = self.places.get(key.index())?;
        place.at.map(|_| place.epoch)
    }

    /// The connected peers.
    pub fn peers(&self) -> &[(PeerKey, Epoch)] {
        &self.peers
    }

    /// Offers a message to every peer by calling `offer`, which clones it for those who have room.
    pub fn send_to_all(&mut self, mut offer: impl FnMut(PeerKey, Epoch) -> Offer<()>) -> Distributed {
        let mut result = Distributed::default();
        let mut at = 0;
        while let Some(&(key, epoch)) = self.peers.get(at) {
            match offer(key, epoch) {
                Offer::Taken => result.taken += 1,
                Offer::Full(()) => result.dropped += 1,
                Offer::Gone(()) => {
                    // The last peer moves here and is next.
                    self.detach(key, epoch);
                    continue;
                }
            }
            at += 1;
        }
        result
    }

    /// The same for chosen peers; those that are not connected are passed over.
    pub fn send_to(
        &mut self,
        chosen: &[PeerKey],
        mut offer: impl FnMut(PeerKey, Epoch) -> Offer<()>,
    ) -> Distributed {
        let mut result = Distributed::default();
        for &key in chosen {
            let Some(epoch) = self.epoch(key) else { continue };
            match offer(key, epoch) {
                Offer::Taken => result.taken += 1,
                Offer::Full(()) => result.dropped += 1,
                Offer::Gone(()) => self.detach(key, epoch),
            }
        }
        result
    }

    fn remove_at(&mut self, at: usize) {
        if at >= self.peers.len() {
            return;
        }
        self.peers.swap_remove(at);
        if let Some((moved, _)) = self.peers.get(at)
            && let Some(place) = self.places.get_mut(moved.index())
        {
            place.at = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(index: usize) -> PeerKey {
        PeerKey::new(index as u32)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Up(usize),
        Down(usize),
        LateDown(usize),
        SendAll([u8; 6]),
        SendTo(Vec<usize>, [u8; 6]),
    }

    fn step() -> impl Strategy<Value = Step> {
        let answers = || prop::array::uniform6(0u8..8);
        prop_oneof![
            2 => (0usize..6).prop_map(Step::Up),
            1 => (0usize..6).prop_map(Step::Down),
            1 => (0usize..6).prop_map(Step::LateDown),
            2 => answers().prop_map(Step::SendAll),
            2 => (prop::collection::btree_set(0usize..6, 0..6), answers())
                .prop_map(|(chosen, answers)| Step::SendTo(chosen.into_iter().collect(), answers)),
        ]
    }

    fn answer(answers: [u8; 6], peer: usize) -> Offer<()> {
        match answers[peer] {
            0 => Offer::Gone(()),
            1 | 2 => Offer::Full(()),
            _ => Offer::Taken,
        }
    }

    proptest! {
        /// Against a map of connected peers.
        ///
        /// Rules: MQ-068, MQ-190, MQ-468.
        #[test]
        fn behaves_as_the_model(steps in prop::collection::vec(step(), 0..200)) {
            let mut distributor = Distributor::new();
            let mut model: BTreeMap<usize, Epoch> = BTreeMap::new();
            let mut last = Epoch::ZERO;
            for step in steps {
                let (chosen, answers) = match step {
                    Step::Up(peer) => {
                        last = last.next();
                        distributor.attach(key(peer), last);
                        model.insert(peer, last);
                        continue;
                    }
                    Step::Down(peer) => {
                        distributor.detach(key(peer), model.remove(&peer).unwrap_or_default());
                        continue;
                    }
                    Step::LateDown(peer) => {
                        distributor.detach(key(peer), Epoch::ZERO);
                        continue;
                    }
                    Step::SendAll(answers) => (None, answers),
                    Step::SendTo(chosen, answers) => (Some(chosen), answers),
                };
                let mut offered = Vec::new();
                let mut offer = |key: PeerKey, epoch: Epoch| {
                    offered.push((key.index(), epoch));
                    answer(answers, key.index())
                };
                let result = match &chosen {
                    None => distributor.send_to_all(&mut offer),
                    Some(chosen) => {
                        let keys: Vec<_> = chosen.iter().copied().map(key).collect();
                        distributor.send_to(&keys, &mut offer)
                    }
                };
                let asked: Vec<_> = model
                    .iter()
                    .filter(|(peer, _)| chosen.as_ref().is_none_or(|chosen| chosen.contains(peer)))
                    .map(|(&peer, &epoch)| (peer, epoch))
                    .collect();
                offered.sort();
                prop_assert_eq!(&offered, &asked);
                let count = |wanted: fn(&Offer<()>) -> bool| {
                    asked.iter().filter(|&&(peer, _)| wanted(&answer(answers, peer))).count()
                };
                prop_assert_eq!(result.taken, count(|offer| matches!(offer, Offer::Taken)));
                prop_assert_eq!(result.dropped, count(|offer| matches!(offer, Offer::Full(()))));
                for (peer, _) in asked {
                    if matches!(answer(answers, peer), Offer::Gone(())) {
                        model.remove(&peer);
                    }
                }
                let mut peers: Vec<_> =
                    distributor.peers().iter().map(|&(key, epoch)| (key.index(), epoch)).collect();
                peers.sort();
                prop_assert_eq!(peers, model.clone().into_iter().collect::<Vec<_>>());
            }
        }
    }
}
