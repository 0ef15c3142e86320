//! Which peers want a topic (MQ-075).
//!
//! A topic is wanted by the peers that subscribed to one of its prefixes. [`TopicIndex`] holds who subscribed to what;
//! [`PrefixTree`] is the structure below, which a subscriber uses by itself to count and filter.
//!
//! # Why a radix tree
//!
//! A sorted table of prefixes, each linked to its longest stored proper prefix, would do for matching. But a peer that
//! subscribes to the empty topic and cancels again would relink all prefixes that have no shorter one, each time, a
//! million of them if another peer likes. In a tree a change touches the node and its neighbours, whatever else is
//! stored, and matching is one walk along the topic.
//!
//! # Costs
//!
//! | operation | steps |
//! |---|---|
//! | subscribe, cancel | a walk along the topic, and a binary search among its peers |
//! | match | a walk along the topic, and the peers found |
//! | remove a peer | its topics, each with its length and a binary search among its peers |
//!
//! A subscription takes 100 to 250 bytes, by how many topics share what. Matching allocates nothing once the result has grown to the
//! number of peers.

mod tree;

use smallvec::SmallVec;

use self::tree::NodeId;
pub use self::tree::PrefixTree;
use crate::peer::PeerKey;

/// Subscriptions of all peers of a socket: for each peer a set of topics (MQ-216).
#[derive(Debug, Default)]
pub struct TopicIndex {
    tree: PrefixTree<Subscribers>,
    /// By peer key.
    peers: Vec<Peer>,
    /// Number of the last match in which a peer could have been found twice.
    round: u64,
    /// A topic that is being reported.
    path: Vec<u8>,
}

/// Answer to [`TopicIndex::subscribe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// The peer has the topic now.
    Added {
        /// No other peer has it.
        first: bool,
    },
    /// The peer had the topic already.
    Held,
}

/// Answer to [`TopicIndex::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The peer has the topic no more.
    Removed {
        /// No other peer has it either.
        last: bool,
    },
    /// The peer did not have the topic.
    NotHeld,
}

/// What a peer's subscriptions amount to, to be held against limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Distinct topics.
    pub topics: usize,
    /// Bytes of these topics together.
    pub bytes: usize,
}

/// The peers of a topic, by peer key.
type Subscribers = SmallVec<[Subscriber; 2]>;

#[derive(Clone, Copy, Debug)]
struct Subscriber {
    key: PeerKey,
    /// Place of the topic in the peer's list.
    place: u32,
}

#[derive(Debug, Default)]
struct Peer {
    topics: Vec<NodeId>,
    bytes: usize,
    /// The last round in which the peer was found.
    round: u64,
}

impl TopicIndex {
    /// No subscriptions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of distinct topics (MQ-229).
    pub fn topics(&self) -> usize {
        self.tree.len()
    }

    /// What a peer holds.
    pub fn usage(&self, key: PeerKey) -> Usage {
        self.peers
            .get(key.index())
            .map_or_else(Usage::default, |peer| Usage { topics: peer.topics.len(), bytes: peer.bytes })
    }

    /// The peer wants all topics that begin with `topic`.
    pub fn subscribe(&mut self, topic: &[u8], key: PeerKey) -> Subscribed {
        if self.peers.len() <= key.index() {
            self.peers.resize_with(key.index() + 1, Peer::default);
        }
        let Some(peer) = self.peers.get_mut(key.index()) else { return Subscribed::Held };
        let (id, subscribers) = self.tree.entry(topic, Subscribers::new);
        let Err(at) = place_of(subscribers, key) else { return Subscribed::Held };
        let first = subscribers.is_empty();
        subscribers.insert(at, Subscriber { key, place: peer.topics.len() as u32 });
        peer.topics.push(id);
        peer.bytes += topic.len();
        Subscribed::Added { first }
    }

    /// The peer does not want `topic` any more.
    pub fn cancel(&mut self, topic: &[u8], key: PeerKey) -> Cancelled {
        let Some(id) = self.tree.find(topic) else { return Cancelled::NotHeld };
        let Some(subscribers) = self.tree.at_mut(id) else { return Cancelled::NotHeld };
        let Ok(at) = place_of(subscribers, key) else { return Cancelled::NotHeld };
        let Subscriber { place, .. } = subscribers.remove(at);
        let last = subscribers.is_empty();
        if last {
            self.tree.remove_at(id);
        }
        if let Some(peer) = self.peers.get_mut(key.index()) {
            peer.bytes -= topic.len();
            peer.topics.swap_remove(place as usize);
            if let Some(&moved) = peer.topics.get(place as usize)
                && let Some(subscribers) = self.tree.at_mut(moved)
                && let Ok(at) = place_of(subscribers, key)
            {
                subscribers[at].place = place;
            }
        }
        Cancelled::Removed { last }
    }

    /// The peer is gone: reports each of its topics and whether no other peer has it (MQ-224).
    pub fn remove_peer(&mut self, key: PeerKey, mut removed: impl FnMut(&[u8], bool)) {
        let Some(peer) = self.peers.get_mut(key.index()) else { return };
        for id in std::mem::take(peer).topics {
            let Some(subscribers) = self.tree.at_mut(id) else { continue };
            if let Ok(at) = place_of(subscribers, key) {
                subscribers.remove(at);
            }
            let last = subscribers.is_empty();
            self.tree.path(id, &mut self.path);
            if last {
                self.tree.remove_at(id);
            }
            removed(&self.path, last);
        }
        self.path = Vec::new();
    }

    /// Writes the peers that want `topic` to `found`, each once.
    #[inline]
    pub fn matches(&mut self, topic: &[u8], found: &mut Vec<PeerKey>) {
        found.clear();
        let (peers, round) = (&mut self.peers, &mut self.round);
        let mut prefixes = 0;
        self.tree.visit_prefixes(topic, |subscribers| {
            prefixes += 1;
            if prefixes == 1 {
                found.extend(subscribers.iter().map(|subscriber| subscriber.key));
                return true;
            }
            // Only who is found under several prefixes must be looked up.
            let is_second = prefixes == 2;
            *round += u64::from(is_second);
            let mut is_new = |key: PeerKey| {
                peers
                    .get_mut(key.index())
                    .is_some_and(|peer| std::mem::replace(&mut peer.round, *round) != *round)
            };
            if is_second {
                for &key in found.iter() {
                    is_new(key);
                }
            }
            found.extend(subscribers.iter().map(|subscriber| subscriber.key).filter(|&key| is_new(key)));
            true
        });
    }
}

fn place_of(subscribers: &Subscribers, key: PeerKey) -> Result<usize, usize> {
    subscribers.binary_search_by_key(&key, |subscriber| subscriber.key)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn key(index: usize) -> PeerKey {
        PeerKey::new(index as u32)
    }

    fn matching(index: &mut TopicIndex, topic: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        index.matches(topic, &mut found);
        let mut found: Vec<_> = found.into_iter().map(PeerKey::index).collect();
        found.sort_unstable();
        found
    }

    /// Rules: MQ-075, MQ-215, MQ-471.
    #[test]
    fn overlapping_topics_find_each_peer_once() {
        let mut index = TopicIndex::new();
        index.subscribe(b"A", key(0));
        index.subscribe(b"AB", key(1));
        index.subscribe(b"ABC", key(2));
        index.subscribe(b"ABC", key(0));
        assert_eq!(matching(&mut index, b"A"), [0]);
        assert_eq!(matching(&mut index, b"ABX"), [0, 1]);
        assert_eq!(matching(&mut index, b"ABCD"), [0, 1, 2]);
        assert_eq!(matching(&mut index, b""), [0; 0]);
        index.subscribe(b"", key(3));
        assert_eq!(matching(&mut index, b""), [3]);
        index.cancel(b"A", key(0));
        assert_eq!(matching(&mut index, b"ABX"), [1, 3]);
    }

    /// Rules: MQ-216.
    #[test]
    fn a_peer_has_a_topic_or_not() {
        let mut index = TopicIndex::new();
        assert_eq!(index.subscribe(b"t", key(0)), Subscribed::Added { first: true });
        assert_eq!(index.subscribe(b"t", key(0)), Subscribed::Held);
        assert_eq!(index.subscribe(b"t", key(1)), Subscribed::Added { first: false });
        assert_eq!(index.cancel(b"t", key(0)), Cancelled::Removed { last: false });
        assert_eq!(index.cancel(b"t", key(0)), Cancelled::NotHeld);
        assert_eq!(index.cancel(b"t", key(1)), Cancelled::Removed { last: true });
        assert_eq!((index.topics(), index.cancel(b"other", key(1))), (0, Cancelled::NotHeld));
    }

    /// A chain as deep as a topic can be long, on a thread whose stack would not bear recursion.
    ///
    /// Rules: MQ-075, MQ-434.
    #[test]
    fn long_topics_need_no_stack() {
        let run = || {
            let topic = vec![b'x'; 64 * 1024];
            let mut index = TopicIndex::new();
            index.subscribe(&topic, key(0));
            for len in (0..4096).rev() {
                index.subscribe(&topic[..len], key(1));
            }
            assert_eq!(matching(&mut index, &topic), [0, 1]);
            assert_eq!(matching(&mut index, &topic[..4097]), [1]);
            let mut count = 0;
            index.tree.for_each(|_, _| count += 1);
            assert_eq!(count, 4097);
            assert_eq!(index.cancel(&topic, key(0)), Cancelled::Removed { last: true });
            index.remove_peer(key(1), |_, last| assert!(last));
            assert_eq!(index.topics(), 0);
        };
        std::thread::Builder::new().stack_size(64 * 1024).spawn(run).unwrap().join().unwrap();
    }

    #[derive(Clone, Debug)]
    enum Step {
        Subscribe(Vec<u8>, usize),
        Cancel(Vec<u8>, usize),
        Remove(usize),
    }

    /// Few letters and short, so that topics share prefixes; sometimes with a long common part.
    fn topic() -> impl Strategy<Value = Vec<u8>> {
        (any::<bool>(), prop::collection::vec(0u8..3, 0..6)).prop_map(|(long, tail)| {
            let mut topic = vec![1; if long { 40 } else { 0 }];
            topic.extend(tail);
            topic
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (topic(), 0usize..5).prop_map(|(topic, peer)| Step::Subscribe(topic, peer)),
            4 => (topic(), 0usize..5).prop_map(|(topic, peer)| Step::Cancel(topic, peer)),
            1 => (0usize..5).prop_map(Step::Remove),
        ]
    }

    proptest! {
        /// Against a set of (topic, peer).
        ///
        /// Rules: MQ-075, MQ-216, MQ-224, MQ-229, MQ-468.
        #[test]
        fn behaves_as_the_model(
            steps in prop::collection::vec(step(), 0..200),
            topics in prop::collection::vec(topic(), 1..8),
        ) {
            let mut index = TopicIndex::new();
            let mut model: BTreeMap<Vec<u8>, BTreeSet<usize>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Subscribe(topic, peer) => {
                        let peers = model.entry(topic.clone()).or_default();
                        let first = peers.is_empty();
                        let expected =
                            if peers.insert(peer) { Subscribed::Added { first } } else { Subscribed::Held };
                        prop_assert_eq!(index.subscribe(&topic, key(peer)), expected);
                    }
                    Step::Cancel(topic, peer) => {
                        let removed = model.get_mut(&topic).is_some_and(|peers| peers.remove(&peer));
                        let last = model.get(&topic).is_some_and(BTreeSet::is_empty);
                        let expected = if removed { Cancelled::Removed { last } } else { Cancelled::NotHeld };
                        prop_assert_eq!(index.cancel(&topic, key(peer)), expected);
                    }
                    Step::Remove(peer) => {
                        let mut expected = Vec::new();
                        for (topic, peers) in &mut model {
                            if peers.remove(&peer) {
                                expected.push((topic.clone(), peers.is_empty()));
                            }
                        }
                        let mut reported = Vec::new();
                        index.remove_peer(key(peer), |topic, last| reported.push((topic.to_vec(), last)));
                        reported.sort();
                        prop_assert_eq!(reported, expected);
                    }
                }
                model.retain(|_, peers| !peers.is_empty());

                prop_assert_eq!(index.topics(), model.len());
                for topic in &topics {
                    let expected: BTreeSet<usize> = model
                        .iter()
                        .filter(|(prefix, _)| topic.starts_with(prefix))
                        .flat_map(|(_, peers)| peers.iter().copied())
                        .collect();
                    prop_assert_eq!(matching(&mut index, topic), Vec::from_iter(expected.clone()));
                }
                let mut all = Vec::new();
                index.tree.for_each(|topic, _| all.push(topic.to_vec()));
                prop_assert!(all.iter().eq(model.keys()));
                for peer in 0..5 {
                    let held: Vec<_> =
                        model.iter().filter(|(_, peers)| peers.contains(&peer)).map(|(topic, _)| topic).collect();
                    let usage = Usage { topics: held.len(), bytes: held.iter().map(|topic| topic.len()).sum() };
                    prop_assert_eq!(index.usage(key(peer)), usage);
                }
            }
        }
    }

    /// A million topics of one peer come and go; others hold theirs.
    ///
    /// Rules: MQ-075.
    #[test]
    fn a_million_topics_come_and_go() {
        let mut index = TopicIndex::new();
        index.subscribe(b"topic/5", key(1));
        let topic = |number: u32| format!("topic/{}", number.wrapping_mul(2_654_435_761));
        for number in 0..1_000_000 {
            assert_eq!(index.subscribe(topic(number).as_bytes(), key(0)), Subscribed::Added { first: true });
        }
        assert_eq!((index.topics(), index.usage(key(0)).topics), (1_000_001, 1_000_000));
        assert_eq!(matching(&mut index, topic(77).as_bytes()).first(), Some(&0));
        for number in 0..500_000 {
            assert_eq!(index.cancel(topic(number).as_bytes(), key(0)), Cancelled::Removed { last: true });
        }
        let mut removed = 0;
        index.remove_peer(key(0), |_, last| removed += usize::from(last));
        assert_eq!((removed, index.topics()), (500_000, 1));
        assert_eq!(matching(&mut index, b"topic/55"), [1]);
        // Nothing is left of it: one node of the topic and the root.
        assert_eq!(index.cancel(b"topic/5", key(1)), Cancelled::Removed { last: true });
    }
}
