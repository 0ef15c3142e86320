//! Publishing: who subscribed to what, and handing a message to all of them (6.7).
//!
//! Topics of a peer form a set (MQ-216). A peer is known here while its connection is up.

use bytes::Bytes;
use tidegate_io::{
    hub::PeerSet,
    index::{Cancelled, Subscribed, TopicIndex},
    message::{Message, Part},
    peer::PeerKey,
};

use super::envelope::{Parcel, Payload};
use crate::state::{Awaited, Core, Effect, SendRefusal, SlowPolicy, SubscriptionLimits, Violation};

#[derive(Debug, Default)]
pub(crate) struct Fanout {
    /// What decides who gets a message.
    pub(super) index: TopicIndex,
    /// Those who are connected.
    peers: PeerSet,
    /// Those who get the message in hand.
    chosen: Vec<PeerKey>,
    /// By peer key: the last publication that matched the peer, for inverted matching.
    matched: Vec<u64>,
    publication: u64,
    /// Those who missed too many messages (MQ-222).
    slow: Vec<PeerKey>,
}

impl Fanout {
    /// The peer is connected: it gets the welcome message first (MQ-227).
    pub(super) fn up<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.peers.attach(key, core.epoch(key));
        if !core.settings.welcome.is_empty() {
            let mut welcome = Payload::single(core.settings.welcome.clone());
            core.enqueue(key, welcome.parcel());
        }
    }

    /// The peer is not connected any more: nothing of it matches again, and what was queued for it is dropped. Its
    /// topics are reported, with whether they have no subscriber left.
    pub(super) fn down<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        key: PeerKey,
        removed: impl FnMut(&[u8], bool),
    ) {
        self.peers.detach(key, core.epoch(key));
        self.index.remove_peer(key, removed);
        core.effects.subscriptions = true;
        wake_for(core, Effect::WakeAllFor(key));
    }

    /// Adds a topic to those of the peer.
    pub(super) fn subscribe<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        key: PeerKey,
        topic: &[u8],
    ) -> Result<Subscribed, Violation> {
        let result = subscribe_within(&mut self.index, &core.settings.subscriptions, key, topic)?;
        self.subscribed_to(core, key, result);
        Ok(result)
    }

    /// Adds a topic to what the peer gets, whatever it has asked for.
    pub(super) fn subscribe_by_hand<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey, topic: &[u8]) {
        let result = self.index.subscribe(topic, key);
        self.subscribed_to(core, key, result);
    }

    /// Removes a topic from those of the peer (MQ-216).
    pub(super) fn cancel<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey, topic: &[u8]) -> Cancelled {
        let result = self.index.cancel(topic, key);
        let is_change = result != Cancelled::NotHeld;
        core.effects.subscriptions |= is_change;
        if is_change && !core.settings.invert_matching {
            wake_for(core, Effect::WakeAllFor(key));
        }
        result
    }

    /// Fewer messages than before may be for the peer: who waits for room with it may not need that any more.
    fn subscribed_to<L: Clone>(&self, core: &mut Core<L>, key: PeerKey, result: Subscribed) {
        let is_change = result != Subscribed::Held;
        core.effects.subscriptions |= is_change;
        if is_change && core.settings.invert_matching {
            wake_for(core, Effect::WakeAllFor(key));
        }
    }

    /// The peer has room again.
    pub(super) fn room<L: Clone>(&self, core: &mut Core<L>, key: PeerKey) {
        wake_for(core, Effect::WakeFor(key));
    }

    /// Queues the message for everybody it is for, or for `only` if it is for that peer. Without `xpub_nodrop` always
    /// takes it, and with it if room was `promised`.
    pub(super) fn publish<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        message: &mut Message,
        only: Option<PeerKey>,
        promised: bool,
    ) -> Result<(), SendRefusal> {
        let subject = message.first().map(Part::as_slice).unwrap_or_default();
        self.choose(subject, core.settings.invert_matching);
        if let Some(only) = only {
            self.chosen.retain(|key| *key == only);
        }
        if self.chosen.is_empty() {
            message.clear();
            return Ok(());
        }
        let nodrop = core.settings.nodrop;
        if nodrop
            && !promised
            && let Some(full) = self.chosen.iter().find(|key| !core.has_room_left(**key))
        {
            return Err(SendRefusal::WouldBlock(Awaited::RoomOn(*full)));
        }
        let slow = &mut self.slow;
        self.chosen.retain(|&key| {
            // Where that was asked for all of them it counts, whatever others have put into the budget since.
            let takes = nodrop || core.is_writable(key);
            if !takes {
                let missed = core.count_missed(key);
                if let SlowPolicy::DisconnectAfter(most) = core.settings.slow
                    && missed.is_some_and(|missed| missed >= most)
                {
                    slow.push(key);
                }
            }
            takes
        });
        if let Some((last, others)) = self.chosen.split_last() {
            for key in others {
                core.enqueue(*key, Parcel::copy(message));
            }
            core.enqueue(*last, Parcel::verbatim(message));
        }
        message.clear();
        Ok(())
    }

    /// A peer that missed too many messages, to be cut off.
    pub(super) fn next_slow(&mut self) -> Option<PeerKey> {
        self.slow.pop()
    }

    /// How many messages every subscriber has room for, where publishing waits for that.
    pub(super) fn room_to_keep<L: Clone>(&self, core: &Core<L>) -> usize {
        let pipes = self.subscribed(core).filter_map(|key| core.pipe(key));
        let least = pipes.map(|pipe| pipe.room()).min();
        least.filter(|_| core.settings.nodrop).unwrap_or(usize::MAX)
    }

    /// Whether publishing need not wait for room, or some subscriber has it: for whom a message will be is not known.
    pub(super) fn is_writable<L: Clone>(&self, core: &Core<L>) -> bool {
        !core.settings.nodrop
            || self.subscribed(core).next().is_none()
            || self.subscribed(core).any(|key| core.has_room_left(key))
    }

    /// Those for whom a message can be.
    fn subscribed<L: Clone>(&self, core: &Core<L>) -> impl Iterator<Item = PeerKey> {
        let all = core.settings.invert_matching;
        self.peers.peers().iter().copied().filter(move |key| all || self.index.usage(*key).topics > 0)
    }

    /// Number of peers that would get a message whose first part is `subject` (MQ-221).
    pub(crate) fn subscribers<L: Clone>(&mut self, core: &Core<L>, subject: &[u8]) -> usize {
        self.choose(subject, core.settings.invert_matching);
        self.chosen.len()
    }

    /// Number of distinct topics (MQ-229).
    pub(crate) fn topics(&self) -> usize {
        self.index.topics()
    }

    fn choose(&mut self, subject: &[u8], invert: bool) {
        self.index.matches(subject, &mut self.chosen);
        if !invert {
            return;
        }
        self.publication += 1;
        for key in &self.chosen {
            if self.matched.len() <= key.index() {
                self.matched.resize(key.index() + 1, 0);
            }
            if let Some(matched) = self.matched.get_mut(key.index()) {
                *matched = self.publication;
            }
        }
        let is_matched = |key: PeerKey| self.matched.get(key.index()) == Some(&self.publication);
        self.chosen.clear();
        self.chosen.extend(self.peers.peers().iter().copied().filter(|key| !is_matched(*key)));
    }
}

/// Has those try again who wait for room with a peer, or with all.
fn wake_for<L: Clone>(core: &mut Core<L>, which: Effect<L>) {
    if core.settings.nodrop {
        core.effects.list.push(which);
        core.effects.room_for(1);
    }
}

/// Adds a topic to those of the peer, within the limits (MQ-180).
pub(super) fn subscribe_within(
    index: &mut TopicIndex,
    limits: &SubscriptionLimits,
    key: PeerKey,
    topic: &[u8],
) -> Result<Subscribed, Violation> {
    if topic.len() > limits.topic {
        return Err(Violation::SubscriptionLimit);
    }
    let result = index.subscribe(topic, key);
    // Whoever exceeds a limit is closed, and with that the one topic too many is gone again.
    let usage = index.usage(key);
    if usage.topics > limits.topics || usage.bytes > limits.bytes {
        return Err(Violation::SubscriptionLimit);
    }
    Ok(result)
}

/// A part of a message that changes subscriptions: the older form, `01` or `00` and the topic (MQ-177).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Subscribe,
    Cancel,
}

impl Change {
    /// Reads a part as change of subscriptions.
    pub(super) fn read(part: &Part) -> Option<(Self, Bytes)> {
        let change = match part.first()? {
            0 => Self::Cancel,
            1 => Self::Subscribe,
            _ => return None,
        };
        let topic = match part.shared() {
            Some(bytes) => bytes.slice(1..),
            None => Bytes::copy_from_slice(part.get(1..).unwrap_or_default()),
        };
        Some((change, topic))
    }

    /// Splits a message into changes of subscriptions, which are reported in order, and what remains for the user. With
    /// `only_first`, parts after the first are never changes.
    pub(super) fn extract<E>(
        message: Message,
        only_first: bool,
        mut report: impl FnMut(Self, Bytes) -> Result<(), E>,
    ) -> Result<Message, E> {
        if !message.parts().iter().any(|part| matches!(part.first(), Some(0 | 1))) {
            return Ok(message);
        }
        let mut rest = Message::new();
        for (at, part) in message.into_iter().enumerate() {
            match Self::read(&part) {
                Some((change, topic)) if at == 0 || !only_first => report(change, topic)?,
                _ => rest.push(part),
            }
        }
        Ok(rest)
    }
}
