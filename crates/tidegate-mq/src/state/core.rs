//! What every pattern stands on: the pipes of a socket, their queues and accounts, and the notes for outside.
//!
//! A pattern decides which pipe; this module moves the message, keeps the limits, counts, and notes what is to be done
//! outside. Keys of pipes are dense and reused; every pipe and every connection has an epoch of its own, from one
//! counter, so that news of what is gone cannot be taken for news of its successor (MQ-068).

use std::{collections::VecDeque, mem, sync::Arc, task::Waker};

use tidegate_io::{
    hub::Peers,
    message::{Message, Part},
    packed::Packed,
    peer::{Epoch, PeerKey},
    queue::{Capacity, Queue},
    wait::Budget,
};

use super::{
    counters::Ledger,
    effects::{CloseCause, Credit, Effect, Effects},
    peer::{Arrival, Origin, SocketType},
    pipe::{Command, Far, Pipe, Stage},
    settings::{Settings, in_a_row},
};
use crate::pattern::envelope::{Parcel, Payload};

/// Pipes, options and notes of one socket.
#[derive(Debug)]
pub(crate) struct Core<L> {
    pub(crate) kind: SocketType,
    pub(crate) settings: Settings,
    pub(crate) effects: Effects<L>,
    pub(super) pipes: Peers<Pipe<L>>,
    /// Retired pipes that were drained; they are removed when the call in progress ends.
    drained: Vec<PeerKey>,
    /// In-process pipes whose far end has messages while they have none.
    offers: VecDeque<PeerKey>,
    /// The numbers of all pipes, also of those that are gone.
    ledger: Arc<Ledger>,
    /// What the queues of this socket and of others may hold together, if that is limited.
    share: Option<Share>,
}

/// A socket's share in the budget of its context (MQ-066).
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    /// Called when something may be queued again after it was refused.
    waker: Waker,
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
            share: None,
        }
    }

    // ---- the budget ----

    /// From now on what is queued counts against the budget. `waker` is called, when it was used up and is not any
    /// more, by whoever performs [`Effects::budget_freed`].
    pub(super) fn share(&mut self, budget: Arc<Budget>, waker: Waker) {
        self.share = Some(Share { budget, waker });
    }

    /// Whether the budget allows nothing more to be queued; then the socket is told when it does.
    #[inline]
    pub(crate) fn is_over_budget(&self) -> bool {
        self.share.as_ref().is_some_and(|share| share.budget.is_used_up(&share.waker))
    }

    /// Tells the budget what the pipe holds now.
    #[inline]
    fn recount(&mut self, key: PeerKey) {
        if let Some(share) = &self.share
            && let Some(pipe) = self.pipes.get_mut(key)
        {
            let holds = pipe.holds();
            let counted = mem::replace(&mut pipe.counted, holds);
            self.effects.budget_freed |= share.budget.change(counted, holds);
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
            commands: VecDeque::new(),
            far: None,
            owes_room: false,
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
        let own = self.link_limits();
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
        let own = self.link_limits();
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
        let received = mem::replace(&mut pipe.inbound, Queue::new(self.settings.receive));
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

    /// Ends the pipe's part in everything and asks for its connection to be closed.
    pub(crate) fn cut(&mut self, key: PeerKey, why: CloseCause) {
        self.discard_outbound(key);
        let Some(pipe) = self.pipes.get_mut(key) else { return };
        pipe.stage = Stage::Closing;
        pipe.commands.clear();
        if let Some(link) = pipe.link.clone() {
            self.effects.list.push(Effect::Close { pipe: key, epoch: pipe.epoch, link, why });
        }
    }

    // ---- sending ----

    /// Queues a message for sending; the caller has seen that the pipe [`is_writable`](Self::is_writable), or the
    /// message is under no limit. Says whether the pipe is writable still.
    #[inline]
    pub(crate) fn enqueue(&mut self, key: PeerKey, parcel: Parcel<'_>) -> bool {
        let Some(pipe) = self.pipes.get_mut(key) else { return false };
        let was_stalled = pipe.is_stalled();
        if pipe.out_conflates && !pipe.out.is_empty() {
            pipe.counters.out.dropped_by_rule();
        }
        let bytes = parcel.byte_len();
        match parcel {
            Parcel::Whole(message) => pipe.out.push(message),
            Parcel::Copy(message) => pipe.out.push_clone(message),
        }
        pipe.counters.out.entered(1, bytes, pipe.out.len());
        if pipe.far.is_some()
            && pipe.is_at_far_limit()
            && let Some(far) = &mut pipe.far
        {
            far.stalled = true;
        }
        let stalled = pipe.is_stalled();
        if stalled && !was_stalled {
            pipe.counters.out.stalled();
        }
        Self::note_write(pipe, key, &mut self.effects);
        self.recount(key);
        !stalled
    }

    /// Counts a message that was not queued because the pipe was full. Says how many that makes on this connection.
    pub(crate) fn count_full(&mut self, key: PeerKey) -> u64 {
        let Some(pipe) = self.pipe_mut(key) else { return 0 };
        pipe.missed += 1;
        pipe.counters.out.dropped_full();
        pipe.missed
    }

    /// Counts a message that nobody was to get.
    pub(crate) fn count_unroutable(&self) {
        self.ledger.unroutable();
    }

    /// Counts messages that were taken for writing to a connection that had ended already.
    pub(super) fn count_lost(&self, messages: u64) {
        self.ledger.lost_in_flight(messages);
    }

    /// Queues a change of subscriptions.
    pub(crate) fn command(&mut self, key: PeerKey, command: Command) {
        if let Some(pipe) = self.pipes.get_mut(key) {
            pipe.commands.push_back(command);
            Self::note_write(pipe, key, &mut self.effects);
        }
    }

    /// Notes that the pipe has something to write, unless that is noted already.
    pub(super) fn nudge(&mut self, key: PeerKey) {
        if let Some(pipe) = self.pipes.get_mut(key)
            && !(pipe.out.is_empty() && pipe.commands.is_empty())
        {
            Self::note_write(pipe, key, &mut self.effects);
        }
    }

    #[inline]
    fn note_write(pipe: &mut Pipe<L>, key: PeerKey, effects: &mut Effects<L>) {
        if !pipe.noted
            && let Some(link) = &pipe.link
        {
            effects.list.push(Effect::Write { pipe: key, epoch: pipe.epoch, link: link.clone() });
            pipe.noted = true;
        }
    }

    /// Takes messages for writing. Says how many.
    #[inline]
    pub(super) fn take(&mut self, key: PeerKey, most: Most, into: &mut Packed) -> usize {
        let Some(pipe) = self.pipe_mut(key) else { return 0 };
        let (len, size) = (pipe.out.len(), pipe.out.size());
        pipe.out.take_into(into, most.messages, most.bytes);
        let (messages, left) = (len - pipe.out.len(), pipe.out.size());
        if let Some(far) = &mut pipe.far {
            far.in_flight.messages += messages;
            far.in_flight.bytes += size.retained - left.retained;
        }
        pipe.counters.out.left(messages, size.payload - left.payload, pipe.out.len());
        pipe.settle_note(messages);
        self.recount(key);
        messages
    }

    /// Takes changes of subscriptions for writing.
    pub(super) fn take_commands(&mut self, key: PeerKey, most: usize, into: &mut VecDeque<Command>) -> usize {
        let Some(pipe) = self.pipe_mut(key) else { return 0 };
        let count = most.min(pipe.commands.len());
        into.extend(pipe.commands.drain(..count));
        count
    }

    // ---- receiving ----

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

    /// The far end of an in-process link has messages; they are fetched when there are none here.
    pub(super) fn offered(&mut self, key: PeerKey) {
        let Some(pipe) = self.pipes.get_mut(key) else { return };
        let is_empty = pipe.inbound.is_empty();
        let Some(far) = &mut pipe.far else { return };
        if !is_empty {
            far.offered = true;
        } else if !mem::replace(&mut far.listed, true) {
            self.offers.push_back(key);
            self.effects.receivers += 1;
        }
    }

    /// Whether there are messages to be fetched.
    #[inline]
    pub(super) fn has_offers(&self) -> bool {
        !self.offers.is_empty()
    }

    /// The next in-process link to fetch from.
    pub(super) fn next_offer(&mut self) -> Option<L> {
        while let Some(key) = self.offers.pop_front() {
            let Some(pipe) = self.pipe_mut(key) else { continue };
            if let Some(far) = &mut pipe.far
                && mem::replace(&mut far.listed, false)
                && pipe.stage == Stage::Open
            {
                return pipe.link.clone();
            }
        }
        None
    }

    /// Whether the pipe has nothing to write.
    pub(super) fn is_silent(&self, key: PeerKey) -> bool {
        self.pipe(key).is_none_or(|pipe| pipe.out.is_empty() && pipe.commands.is_empty())
    }

    /// Says whether somebody knows already that the pipe has something to write.
    pub(super) fn set_noted(&mut self, key: PeerKey, epoch: Epoch, noted: bool) {
        if let Some(pipe) = self.pipe_mut(key).filter(|pipe| pipe.epoch == epoch && pipe.is_up()) {
            pipe.noted = noted;
        }
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
        if let Some(Share { budget, .. }) = &self.share {
            let counted = self.pipes.iter().map(|(_, _, pipe)| pipe.counted).sum();
            if budget.change(counted, 0) {
                budget.wake();
            }
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

/// How much to take at once: until either number is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Messages.
    pub(crate) messages: usize,
    /// Payload bytes; at least one message is taken however long it is.
    pub(crate) bytes: usize,
}
