//! See [`PeerSet`].

use crate::peer::{Epoch, PeerKey};

/// The connected peers of a socket that sends to many (MQ-190), without gaps: visiting all of them visits nobody else.
#[derive(Debug, Default)]
pub struct PeerSet {
    peers: Vec<PeerKey>,
    /// By peer key.
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The last one seen.
    epoch: Epoch,
    /// Where the peer stands in `peers`, if it is connected.
    at: Option<usize>,
}

impl PeerSet {
    /// The connected peers.
    pub fn peers(&self) -> &[PeerKey] {
        &self.peers
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
        if place.at.is_none() {
            place.at = Some(self.peers.len());
            self.peers.push(key);
        }
    }

    /// The peer is gone. Ignored with another epoch than the one on record.
    pub fn detach(&mut self, key: PeerKey, epoch: Epoch) {
        let place = self.places.get_mut(key.index()).filter(|place| place.epoch == epoch);
        let Some(at) = place.and_then(|place| place.at.take()) else { return };
        self.peers.swap_remove(at);
        if let Some(moved) = self.peers.get(at)
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

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Up(u32),
        Down(u32),
        /// News of a connection before the present one.
        Late(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0u32..6).prop_map(Step::Up),
            1 => (0u32..6).prop_map(Step::Down),
            1 => (0u32..6).prop_map(Step::Late),
        ]
    }

    proptest! {
        /// Against a map of connected peers.
        ///
        /// Rules: MQ-068, MQ-190, MQ-468.
        #[test]
        fn behaves_as_the_model(steps in prop::collection::vec(step(), 0..200)) {
            let mut set = PeerSet::default();
            let mut model: BTreeMap<u32, Epoch> = BTreeMap::new();
            let mut last = Epoch::ZERO;
            for step in steps {
                match step {
                    Step::Up(peer) => {
                        last = last.next();
                        set.attach(PeerKey::new(peer), last);
                        model.insert(peer, last);
                    }
                    Step::Down(peer) => {
                        set.detach(PeerKey::new(peer), model.remove(&peer).unwrap_or_default());
                    }
                    Step::Late(peer) => {
                        set.detach(PeerKey::new(peer), Epoch::ZERO);
                        if model.contains_key(&peer) {
                            set.attach(PeerKey::new(peer), Epoch::ZERO);
                        }
                    }
                }
                let mut peers = set.peers().to_vec();
                peers.sort();
                prop_assert_eq!(peers, model.keys().copied().map(PeerKey::new).collect::<Vec<_>>());
            }
        }
    }
}
