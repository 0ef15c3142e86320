//! What a socket receives: from a connection into the queue of its pipe, and out of it to the application.

use std::mem;

use tidegate_io::{
    message::{Message, Part},
    packed::Packed,
    peer::{Epoch, PeerKey},
    queue::Queue,
};

use super::{core::Core, effects::Effect, pipe::Stage};
use crate::pattern::envelope::Payload;

impl<L: Clone> Core<L> {
    /// Queues a received message.
    #[inline]
    pub(crate) fn arrive(&mut self, key: PeerKey, payload: &mut Payload) {
        let bytes = payload.byte_len();
        let mut message = payload.take().into_message();
        self.arrive_by(key, bytes, |inbound| inbound.push(&mut message));
    }

    /// Queues the first of the messages that were received.
    #[inline]
    pub(crate) fn arrive_first(&mut self, key: PeerKey, arrivals: &mut Packed) {
        let Some(pipe) = self.pipe_mut(key) else { return };
        if pipe.inbound_conflates {
            let before = arrivals.size().payload;
            let mut first = Packed::new();
            arrivals.move_first(&mut first);
            let bytes = before - arrivals.size().payload;
            return self.arrive_by(key, bytes, |inbound| inbound.push_first(&mut first));
        }
        let before = pipe.inbound.size().payload;
        pipe.inbound.push_first(arrivals);
        pipe.counters.inbound.entered(1, pipe.inbound.size().payload - before, pipe.inbound.len());
        self.recount(key);
        self.effects.receivers += 1;
    }

    /// Queues messages that were received, until the queue is full. Says whether there were any.
    #[inline]
    pub(crate) fn arrive_many(&mut self, key: PeerKey, arrivals: &mut Packed) -> bool {
        let Some(pipe) = self.pipe_mut(key) else { return false };
        if pipe.inbound_conflates {
            let any = !arrivals.is_empty();
            while !arrivals.is_empty() {
                self.arrive_first(key, arrivals);
            }
            return any;
        }
        let (len, payload) = (pipe.inbound.len(), pipe.inbound.size().payload);
        pipe.inbound.push_many(arrivals);
        let messages = pipe.inbound.len() - len;
        pipe.counters.inbound.entered(messages, pipe.inbound.size().payload - payload, pipe.inbound.len());
        self.recount(key);
        self.effects.receivers += messages;
        messages > 0
    }

    #[inline]
    fn arrive_by(&mut self, key: PeerKey, bytes: usize, push: impl FnOnce(&mut Queue)) {
        let Some(pipe) = self.pipe_mut(key) else { return };
        let replaced =
            (pipe.inbound_conflates && !pipe.inbound.is_empty()).then(|| pipe.inbound.size().retained);
        push(&mut pipe.inbound);
        pipe.counters.inbound.entered(1, bytes, pipe.inbound.len());
        self.recount(key);
        match replaced {
            None => self.effects.receivers += 1,
            Some(retained) => {
                if let Some(pipe) = self.pipe(key) {
                    pipe.counters.inbound.dropped_by_rule();
                }
                self.consumed(key, retained);
            }
        }
    }

    /// Drops the first of the messages that were received by a rule of the pattern.
    pub(crate) fn drop_first(&mut self, key: PeerKey, arrivals: &mut Packed) {
        let before = arrivals.size();
        arrivals.take_with(|_, _| {});
        let left = arrivals.size();
        let (bytes, retained) = (before.payload - left.payload, before.retained - left.retained);
        self.drop_received_as(key, Held { bytes, retained });
    }

    /// Counts a received message that the pattern keeps in a place of its own, until it is [`let_go`](Self::let_go).
    pub(crate) fn hold(&mut self, key: PeerKey, held: Held) {
        if let Some(pipe) = self.pipe_mut(key) {
            pipe.held += 1;
            pipe.held_bytes += held.retained;
            pipe.counters.inbound.entered(1, held.bytes, pipe.unread());
            self.recount(key);
        }
    }

    /// Counts a message that leaves such a place: to the application, or dropped by a rule. `born` tells whether the
    /// pipe that it came by is still the same.
    pub(crate) fn let_go(&mut self, (key, born): (PeerKey, Epoch), held: Held, delivered: bool) {
        let Some(pipe) = self.pipe_mut(key).filter(|pipe| pipe.born == born) else { return };
        pipe.held = pipe.held.saturating_sub(1);
        pipe.held_bytes = pipe.held_bytes.saturating_sub(held.retained);
        if delivered {
            pipe.counters.inbound.left(1, held.bytes, pipe.unread());
        } else {
            pipe.counters.inbound.dropped_by_rule();
            pipe.counters.inbound.depth(pipe.unread());
        }
        let is_drained = pipe.stage == Stage::Retired && pipe.is_empty_inbound();
        self.recount(key);
        self.consumed(key, held.retained);
        if is_drained {
            self.drained.push(key);
        }
    }

    /// Drops a received message by a rule of the pattern.
    pub(crate) fn drop_received(&mut self, key: PeerKey, payload: &Payload) {
        self.drop_received_as(key, Held::of(payload));
    }

    /// The same for a message that was taken apart.
    pub(crate) fn drop_received_as(&mut self, key: PeerKey, Held { bytes, retained }: Held) {
        if let Some(pipe) = self.pipe(key) {
            pipe.counters.inbound.entered(1, bytes, pipe.unread());
            pipe.counters.inbound.dropped_by_rule();
        }
        self.consumed(key, retained);
    }

    /// Takes the oldest message received on the pipe into `place`; says whether there are more, or nothing when there was
    /// none.
    #[inline]
    pub(crate) fn pop(&mut self, key: PeerKey, place: &mut Message) -> Option<bool> {
        let pipe = self.pipe_mut(key)?;
        let before = pipe.inbound.size();
        if !pipe.inbound.pop_into(place) {
            return None;
        }
        let left = pipe.inbound.size();
        pipe.counters.inbound.left(1, before.payload - left.payload, pipe.inbound.len());
        let more = !pipe.inbound.is_empty();
        if let Some(far) = &mut pipe.far {
            if !more && mem::take(&mut far.offered) && !mem::replace(&mut far.listed, true) {
                self.offers.push_back(key);
            }
            self.consumed(key, before.retained - left.retained);
        } else if pipe.paused && !pipe.inbound.is_full() {
            if !more || !self.is_over_budget() {
                self.resume(key);
            }
        } else if pipe.stage == Stage::Retired && pipe.is_empty_inbound() {
            self.drained.push(key);
        }
        self.recount(key);
        Some(more)
    }

    /// Whether another message of the pipe's connection may be taken.
    #[inline]
    pub(crate) fn takes_more(&self, key: PeerKey) -> bool {
        self.pipe(key).is_some_and(|pipe| {
            let has_room = pipe.is_inproc() || !(pipe.paused || pipe.inbound.is_full());
            pipe.stage == Stage::Open && pipe.is_up() && has_room
        })
    }

    /// Whether reading of the pipe's connection is to wait, as it is from when the inbound queue is full (MQ-062), or the
    /// budget is used up and the application has something to read first.
    #[inline]
    pub(super) fn is_to_wait(&mut self, key: PeerKey) -> bool {
        let Some(pipe) = self.pipe(key) else { return false };
        let is_full = pipe.inbound.is_full()
            || (pipe.far.is_none() && !pipe.inbound.is_empty() && self.is_over_budget());
        if is_full && !pipe.paused {
            self.pause(key);
        }
        let Some(pipe) = self.pipe_mut(key) else { return false };
        if let Some(far) = &mut pipe.far {
            far.held_up |= pipe.paused;
        }
        pipe.paused
    }

    /// Lets reading of the pipe's connection go on.
    pub(crate) fn resume(&mut self, key: PeerKey) {
        if let Some(pipe) = self.pipes.get_mut(key)
            && mem::take(&mut pipe.paused)
            && let Some(link) = &pipe.link
            // Who moves what an in-process peer sends has stopped only if it was told to.
            && pipe.far.as_mut().is_none_or(|far| mem::take(&mut far.held_up))
        {
            self.effects.list.push(Effect::Resume { link: link.clone() });
        }
    }

    /// Stops reading of the pipe's connection.
    pub(crate) fn pause(&mut self, key: PeerKey) {
        if let Some(pipe) = self.pipe_mut(key)
            && !mem::replace(&mut pipe.paused, true)
        {
            pipe.counters.inbound.stalled();
        }
    }
}

/// Sizes of a received message that a pattern keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    bytes: usize,
    retained: usize,
}

impl Held {
    pub(crate) fn of(payload: &Payload) -> Self {
        let parts = payload.parts();
        Self {
            bytes: parts.iter().map(|part| part.len()).sum(),
            retained: parts.iter().map(Part::retained).sum(),
        }
    }

    /// Bytes of memory.
    pub(crate) fn retained(self) -> usize {
        self.retained
    }
}
