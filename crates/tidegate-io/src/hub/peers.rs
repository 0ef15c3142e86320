//! See [`Peers`].

use crate::peer::{Epoch, PeerKey};

/// The pipes of a socket, each under a small key, and the epoch of its present connection.
///
/// A key is reused after its pipe was removed, but epochs never are: a (key, epoch) pair names one connection for ever.
#[derive(Debug)]
pub struct Peers<T> {
    places: Vec<Place<T>>,
    unused: Option<PeerKey>,
    last_epoch: Epoch,
}

#[derive(Debug)]
enum Place<T> {
    Used { pipe: T, epoch: Epoch },
    Unused { next: Option<PeerKey> },
}

impl<T> Peers<T> {
    /// No pipes.
    pub const fn new() -> Self {
        Self { places: Vec::new(), unused: None, last_epoch: Epoch::ZERO }
    }

    /// Adds a pipe, with an epoch of its own.
    pub fn insert(&mut self, pipe: T) -> (PeerKey, Epoch) {
        let epoch = self.fresh_epoch();
        let key = match self.unused {
            Some(key) => key,
            None => {
                self.places.push(Place::Unused { next: None });
                PeerKey::new((self.places.len() - 1) as u32)
            }
        };
        if let Some(place) = self.places.get_mut(key.index()) {
            if let Place::Unused { next } = place {
                self.unused = *next;
            }
            *place = Place::Used { pipe, epoch };
        }
        (key, epoch)
    }

    /// The pipe has a new connection: all that is stamped with its older epochs is stale from now on.
    pub fn renew(&mut self, key: PeerKey) -> Option<Epoch> {
        let fresh = self.fresh_epoch();
        match self.places.get_mut(key.index())? {
            Place::Used { epoch, .. } => {
                *epoch = fresh;
                Some(fresh)
            }
            Place::Unused { .. } => None,
        }
    }

    /// The pipe, whatever its epoch.
    #[inline]
    pub fn get(&self, key: PeerKey) -> Option<&T> {
        match self.places.get(key.index())? {
            Place::Used { pipe, .. } => Some(pipe),
            Place::Unused { .. } => None,
        }
    }

    /// The pipe, whatever its epoch.
    #[inline]
    pub fn get_mut(&mut self, key: PeerKey) -> Option<&mut T> {
        match self.places.get_mut(key.index())? {
            Place::Used { pipe, .. } => Some(pipe),
            Place::Unused { .. } => None,
        }
    }

    /// The pipe, if this is its present epoch (MQ-068).
    #[inline]
    pub fn at_epoch(&mut self, key: PeerKey, epoch: Epoch) -> Option<&mut T> {
        match self.places.get_mut(key.index())? {
            Place::Used { pipe, epoch: present } if *present == epoch => Some(pipe),
            _ => None,
        }
    }

    /// Removes a pipe if this is its present epoch.
    pub fn remove(&mut self, key: PeerKey, epoch: Epoch) -> Option<T> {
        self.at_epoch(key, epoch)?;
        let place = self.places.get_mut(key.index())?;
        match std::mem::replace(place, Place::Unused { next: self.unused }) {
            Place::Used { pipe, .. } => {
                self.unused = Some(key);
                Some(pipe)
            }
            unused => {
                *place = unused;
                None
            }
        }
    }

    /// All pipes.
    pub fn iter(&self) -> impl Iterator<Item = (PeerKey, Epoch, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| match place {
            Place::Used { pipe, epoch } => Some((PeerKey::new(index as u32), *epoch, pipe)),
            Place::Unused { .. } => None,
        })
    }

    fn fresh_epoch(&mut self) -> Epoch {
        self.last_epoch = self.last_epoch.next();
        self.last_epoch
    }
}

impl<T> Default for Peers<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Rules: MQ-068, MQ-069.
    #[test]
    fn what_is_stamped_with_an_old_epoch_finds_nothing() {
        let mut peers = Peers::new();
        let (key, first) = peers.insert("pipe");
        let second = peers.renew(key).unwrap();
        assert_eq!(peers.at_epoch(key, first), None);
        assert_eq!(peers.remove(key, first), None);
        assert_eq!(peers.at_epoch(key, second), Some(&mut "pipe"));
        assert_eq!(peers.remove(key, second), Some("pipe"));
        let (reused, third) = peers.insert("other");
        assert_eq!(reused, key);
        assert!(third > second);
        assert_eq!(peers.at_epoch(key, second), None);
        assert_eq!(peers.get(key), Some(&"other"));
    }

    /// Rules: MQ-069.
    #[test]
    fn nothing_grows_with_the_number_of_connections() {
        let mut peers = Peers::new();
        let (kept, _) = peers.insert(0);
        for number in 0..100_000 {
            let (key, epoch) = peers.insert(number);
            peers.renew(kept);
            assert_eq!(peers.remove(key, epoch), Some(number));
        }
        assert_eq!((peers.iter().count(), peers.places.len()), (1, 2));
    }

    proptest! {
        /// Against a map.
        ///
        /// Rules: MQ-068.
        #[test]
        fn behaves_as_the_model(steps in prop::collection::vec((0u8..4, 0usize..10), 0..200)) {
            let mut peers = Peers::new();
            let mut model: HashMap<PeerKey, (Epoch, usize)> = HashMap::new();
            let mut known: Vec<(PeerKey, Epoch)> = Vec::new();
            for (number, (step, at)) in steps.into_iter().enumerate() {
                let chosen = known.get(at).copied();
                match (step, chosen) {
                    (0 | 1, _) => {
                        let (key, epoch) = peers.insert(number);
                        prop_assert!(model.insert(key, (epoch, number)).is_none());
                        known.insert(0, (key, epoch));
                    }
                    (2, Some((key, _))) => {
                        let renewed = peers.renew(key);
                        prop_assert_eq!(renewed.is_some(), model.contains_key(&key));
                        if let Some(epoch) = renewed {
                            model.entry(key).and_modify(|place| place.0 = epoch);
                            known.insert(0, (key, epoch));
                        }
                    }
                    (_, Some((key, epoch))) => {
                        let expected = model.get(&key).filter(|place| place.0 == epoch).map(|place| place.1);
                        prop_assert_eq!(peers.remove(key, epoch), expected);
                        if expected.is_some() {
                            model.remove(&key);
                        }
                    }
                    _ => {}
                }
                let all: HashMap<_, _> =
                    peers.iter().map(|(key, epoch, &pipe)| (key, (epoch, pipe))).collect();
                prop_assert_eq!(&all, &model);
            }
        }
    }
}
