//! What every pattern stands on: the pipes of a socket, their queues and accounts, and the notes for outside.
//!
//! A pattern decides which pipe; this module moves the message, keeps the limits, counts, and notes what is to be done
//! outside. Keys of pipes are dense and reused; every pipe and every connection has an epoch of its own, from one
//! counter, so that news of what is gone cannot be taken for news of its successor (MQ-068).

use std::{collections::VecDeque, mem, sync::Arc};

use tidegate_io::{
    hub::Peers,
    message::Part,
    peer::{Epoch, PeerKey},
    queue::{Capacity, Queue},
    wait::Share,
};

use super::{
    commands::Commands,
    counters::Ledger,
    effects::{CloseCause, Credit, Effect, Effects},
    peer::{Arrival, Origin, SocketType},
    pipe::{Far, Pipe, Stage},
    settings::{Settings, in_a_row},
};
use crate::pattern::envelope::Payload;

/// Pipes, options and notes of one socket.
#[derive(Debug)]
pub(crate) struct Core<L> {
    pub(crate) kind: SocketType,
    pub(crate) settings: Settings,
    pub(crate) effects: Effects<L>,
    pub(super) pipes: Peers<Pipe<L>>,
    /// Retired pipes that were drained; they are removed when the call in progress ends.
    pub(super) drained: Vec<PeerKey>,
    /// In-process pipes whose far end has messages while they have none.
    pub(super) offers: VecDeque<PeerKey>,
    /// The numbers of all pipes, also of those that are gone.
    pub(super) ledger: Arc<Ledger>,
    /// Messages for which room is kept (MQ-076).
    pub(super) reserved: usize,
    /// How often the limits of the queues were changed.
    pub(super) limits_version: u64,
    /// Pipes whose room is for others who were there before the sender in hand.
    pub(super) ahead: Vec<PeerKey>,
    /// What the queues of this socket and of others may hold together, if that is limited.
    share: Option<Share>,
}

impl<L: Clone> Core<L> {
    pub(super) fn new(kind: SocketType, settings: Settings) -> Self {
        Self {
            kind,
            settings,
            effects: Effects::new(),
            pipes: Peers::new(),
            drained: Vec::new(),
            offers: VecDeque::new(),
            ledger: Arc::default(),
            reserved: 0,
            limits_version: 0,
            ahead: Vec::new(),
            share: None,
        }
    }

    // ---- the budget ----

    /// From now on what is queued counts against the budget. When that was used up and is not any more, whoever performs
    /// [`Effects::budget_freed`] says so to those who were refused.
    pub(super) fn share(&mut self, share: Share) {
        self.share = Some(share);
    }

    /// From now on what is queued counts no more.
    pub(super) fn end_share(&mut self) {
        let Some(share) = self.share.take() else { return };
        let counted = self.pipes.iter().map(|(_, _, pipe)| pipe.counted).sum();
        // Those of this socket who were refused may try again, whatever there is for others.
        self.effects.budget_freed = true;
        let _ = share.change(counted, 0);
    }

    /// Whether the budget allows nothing more to be queued; then the socket is told when it does.
    #[inline]
    pub(crate) fn is_over_budget(&self) -> bool {
        self.share.as_ref().is_some_and(Share::is_used_up)
    }

    /// Tells the budget what the pipe holds now.
    #[inline]
    pub(super) fn recount(&mut self, key: PeerKey) {
        if let Some(share) = &self.share
            && let Some(pipe) = self.pipes.get_mut(key)
        {
            let holds = pipe.holds();
            let counted = mem::replace(&mut pipe.counted, holds);
            self.effects.budget_freed |= share.change(counted, holds);
        }
    }

    // ---- pipes ----

    /// The pipe of this key.
    #[inline]
    pub(crate) fn pipe(&self, key: PeerKey) -> Option<&Pipe<L>> {
        self.pipes.get(key)
    }

    #[inline]
    pub(crate) fn pipe_mut(&mut self, key: PeerKey) -> Option<&mut Pipe<L>> {
        self.pipes.get_mut(key)
    }

    /// Every pipe with its key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerKey, &Pipe<L>)> {
        self.pipes.iter().map(|(key, _, pipe)| (key, pipe))
    }

    /// The stamp of the pipe's present or last connection.
    #[inline]
    pub(crate) fn epoch(&self, key: PeerKey) -> Epoch {
        self.pipe(key).map_or(Epoch::ZERO, |pipe| pipe.epoch)
    }

    /// The stamp of the pipe itself.
    #[inline]
    pub(crate) fn born(&self, key: PeerKey) -> Epoch {
        self.pipe(key).map_or(Epoch::ZERO, |pipe| pipe.born)
    }

    /// How many messages may be queued on all pipes together.
    pub(crate) fn room(&self) -> usize {
        self.iter().fold(0, |sum, (_, pipe)| pipe.room().saturating_add(sum))
    }

    /// A pipe that takes part in the pattern, if there is one; an idle one only if there is no other.
    pub(crate) fn any_open(&self) -> Option<PeerKey> {
        let open = self.iter().filter(|(_, pipe)| pipe.stage == Stage::Open);
        open.min_by_key(|(_, pipe)| pipe.idle).map(|(key, _)| key)
    }

    /// The keys of all pipes, to be visited while pipes change.
    pub(crate) fn keys(&self) -> Vec<PeerKey> {
        self.iter().map(|(key, _)| key).collect()
    }

    /// Whether the pipe takes part in the pattern.
    #[inline]
    pub(crate) fn is_open(&self, key: PeerKey) -> bool {
        self.pipe(key).is_some_and(|pipe| pipe.stage == Stage::Open)
    }

    /// Whether this is the present connection of the pipe.
    #[inline]
    pub(crate) fn is_connected(&self, key: PeerKey, epoch: Epoch) -> bool {
        self.pipe(key).is_some_and(|pipe| pipe.epoch == epoch && pipe.is_up())
    }

    /// Whether what this connection says counts.
    #[inline]
    pub(super) fn is_heard(&self, key: PeerKey, epoch: Epoch) -> bool {
        self.pipe(key).is_some_and(|pipe| pipe.epoch == epoch && pipe.is_up() && pipe.stage == Stage::Open)
    }

    /// Whether a message may be queued on the pipe now.
    #[inline]
    pub(crate) fn is_writable(&self, key: PeerKey) -> bool {
        self.pipe(key).is_some_and(Pipe::is_writable) && !self.is_over_budget()
    }

    /// Whether that is so beside the messages for which room is kept with every pipe, for a sender that waits for its
    /// turn.
    pub(crate) fn has_room_left(&self, key: PeerKey) -> bool {
        self.is_writable(key)
            && (self.reserved == 0 || self.pipe(key).is_some_and(|pipe| pipe.room() > self.reserved))
            && !self.ahead.contains(&key)
    }

    /// A new pipe without connection.
    pub(super) fn create(&mut self, origin: Origin) -> PeerKey {
        let settings = &self.settings;
        let (inbound_conflates, out_conflates) = match self.kind {
            _ if !settings.conflate => (false, false),
            SocketType::Dealer => (true, true),
            SocketType::Pull | SocketType::Sub => (true, false),
            SocketType::Push | SocketType::Pub => (false, true),
            _ => (false, false),
        };
        let queue = |conflates, capacity| if conflates { Queue::conflating() } else { Queue::new(capacity) };
        let pipe = Pipe {
            born: Epoch::ZERO,
            epoch: Epoch::ZERO,
            stage: Stage::Open,
            origin,
            peer: None,
            label: Part::EMPTY,
            link: None,
            out: queue(out_conflates, settings.send),
            inbound: queue(inbound_conflates, settings.receive),
            missed: 0,
            held: 0,
            held_bytes: 0,
            notices: 0,
            out_conflates,
            inbound_conflates,
            commands: Commands::default(),
            far: None,
            owes_room: false,
            idle: false,
            paused: false,
            noted: false,
            counters: Arc::default(),
            written: 0,
            counted: 0,
        };
        let (key, epoch) = self.pipes.insert(pipe);
        if let Some(pipe) = self.pipes.get_mut(key) {
            pipe.born = epoch;
            pipe.epoch = epoch;
            self.ledger.open(key, &pipe.counters);
        }
        key
    }

    /// Ties the pipe to a connection.
    pub(super) fn attach(&mut self, key: PeerKey, arrival: Arrival<L>) -> Epoch {
        let own = self.link_limits(key);
        let epoch = self.pipes.renew(key).unwrap_or_default();
        let Some(pipe) = self.pipes.get_mut(key) else { return epoch };
        pipe.epoch = epoch;
        pipe.peer = Some(arrival.peer);
        pipe.link = Some(arrival.link);
        pipe.noted = false;
        pipe.missed = 0;
        if let Some(theirs) = arrival.far {
            pipe.out.set_capacity(Capacity::UNLIMITED);
            pipe.inbound.set_capacity(Capacity::UNLIMITED);
            pipe.far = Some(Far {
                in_flight: Credit::default(),
                consumed: Credit::default(),
                sending: in_a_row(own.send, theirs.receive),
                receiving: in_a_row(theirs.send, own.receive),
                theirs,
                offered: false,
                listed: false,
                stalled: false,
                held_up: false,
            });
            let stalled = pipe.is_at_far_limit();
            if let Some(far) = &mut pipe.far {
                far.stalled = stalled;
            }
        }
        epoch
    }

    /// Parts the pipe from its connection; what is queued stays. What was taken for writing to a stream and is not
    /// written is lost (MQ-184).
    pub(super) fn release(&mut self, key: PeerKey) {
        let own = self.link_limits(key);
        let Some(pipe) = self.pipe_mut(key).filter(|pipe| pipe.is_up()) else { return };
        pipe.link = None;
        pipe.noted = false;
        pipe.commands.clear();
        let taken = pipe.counters.out.has_left();
        let written = mem::replace(&mut pipe.written, taken);
        if pipe.far.is_none() {
            pipe.counters.lost_in_flight(taken.saturating_sub(written));
        }
        if let Some(far) = pipe.far.take() {
            pipe.owes_room |= far.stalled;
            pipe.out.set_capacity(own.send);
            pipe.inbound.set_capacity(own.receive);
        }
    }

    /// Whether a pipe that was full has room again, since this was last asked.
    pub(super) fn took_room(&mut self, key: PeerKey) -> bool {
        let Some(pipe) = self.pipe_mut(key) else { return false };
        let limited = pipe.is_at_far_limit();
        let mut was_full = pipe.out.take_credit() || mem::take(&mut pipe.owes_room);
        if let Some(far) = &mut pipe.far {
            was_full |= mem::replace(&mut far.stalled, limited);
        }
        was_full && !pipe.is_stalled()
    }

    /// Drops what is queued for sending, and counts it.
    pub(crate) fn discard_outbound(&mut self, key: PeerKey) {
        let Some(pipe) = self.pipe_mut(key) else { return };
        let messages = pipe.out.len();
        pipe.out.clear();
        pipe.counters.out.discarded(messages);
        pipe.counters.out.depth(0);
        self.recount(key);
    }

    /// Takes back the oldest message queued for sending: it leaves as discarded.
    pub(crate) fn recall(&mut self, key: PeerKey) -> Option<Payload> {
        let pipe = self.pipe_mut(key)?;
        let message = pipe.out.pop()?;
        pipe.counters.out.discarded(1);
        pipe.counters.out.depth(pipe.out.len());
        self.recount(key);
        Some(Payload::verbatim(message))
    }

    /// Drops what was received and not read, and counts it.
    pub(super) fn discard_inbound(&mut self, key: PeerKey) {
        if let Some(pipe) = self.pipe_mut(key) {
            pipe.counters.inbound.discarded(pipe.inbound.len());
            pipe.inbound.clear();
            pipe.counters.inbound.depth(pipe.unread());
            self.recount(key);
        }
    }

    /// The pipe takes nothing new.
    pub(super) fn set_closing(&mut self, key: PeerKey) {
        if let Some(pipe) = self.pipe_mut(key) {
            pipe.stage = Stage::Closing;
            pipe.commands.clear();
        }
    }

    /// The pipe is without connection for good, and is removed once nothing received is left in it.
    pub(super) fn retire(&mut self, key: PeerKey) {
        if let Some(pipe) = self.pipe_mut(key) {
            pipe.stage = Stage::Retired;
            if pipe.is_empty_inbound() {
                self.drained.push(key);
            }
        }
    }

    /// Gives what was received on the pipe and not read to a retired pipe of its own, which keeps the label and the
    /// peer of the connection that it came by.
    pub(crate) fn hand_down_received(&mut self, key: PeerKey) -> Option<PeerKey> {
        let pipe = self.pipe(key).filter(|pipe| pipe.has_received())?;
        let origin = pipe.origin;
        let heir_key = self.create(origin);
        let pipe = self.pipes.get_mut(key)?;
        let (label, peer, counters) = (pipe.label.clone(), pipe.peer.clone(), pipe.counters.clone());
        // On an in-process link the sender minds the limit.
        let capacity = if pipe.is_inproc() { Capacity::UNLIMITED } else { self.settings.receive };
        let received = mem::replace(&mut pipe.inbound, Queue::new(capacity));
        let heir = self.pipes.get_mut(heir_key)?;
        counters.inbound.moved_to(&heir.counters.inbound, received.len(), received.size().payload);
        heir.inbound = received;
        heir.stage = Stage::Retired;
        heir.label = label;
        heir.peer = peer;
        self.recount(key);
        self.recount(heir_key);
        self.resume(key);
        Some(heir_key)
    }

    /// Removes the pipes that were drained during this call.
    #[inline]
    pub(super) fn sweep(&mut self) {
        while let Some(key) = self.drained.pop() {
            self.remove(key);
        }
    }

    /// Removes a pipe, which holds nothing any more, without a trace but its numbers.
    pub(super) fn remove(&mut self, key: PeerKey) {
        let epoch = self.epoch(key);
        if let Some(pipe) = self.pipes.remove(key, epoch) {
            self.ledger.close(key, &pipe.counters);
        }
    }

    /// Ends the part of the pipe's connection in everything and asks for it to be closed.
    pub(crate) fn cut(&mut self, key: PeerKey, why: CloseCause) {
        self.discard_outbound(key);
        let Some(pipe) = self.pipes.get_mut(key) else { return };
        let Some(link) = pipe.link.clone() else { return };
        pipe.stage = Stage::Cut;
        pipe.commands.clear();
        self.effects.list.push(Effect::Close { pipe: key, epoch: pipe.epoch, link, why });
    }

    /// The pipe, whose connection was cut and is gone, waits for the next one.
    pub(super) fn reopen(&mut self, key: PeerKey) {
        if let Some(pipe) = self.pipe_mut(key) {
            pipe.stage = Stage::Open;
        }
    }

    // ---- counters ----

    /// The numbers of all pipes, with those that are gone.
    #[cfg(test)]
    pub(super) fn totals(&self) -> super::Reading {
        self.ledger.reading()
    }

    /// The numbers, readable without the socket's lock.
    pub(super) fn ledger(&self) -> Arc<Ledger> {
        self.ledger.clone()
    }
}

impl<L> Drop for Core<L> {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            let counted = self.pipes.iter().map(|(_, _, pipe)| pipe.counted).sum();
            if share.change(counted, 0) {
                share.wake();
            }
        }
    }
}
