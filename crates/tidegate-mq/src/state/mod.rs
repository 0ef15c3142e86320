//! The state of one socket: a pure machine without locks, clocks or I/O, behind one mutex of its owner.
//!
//! ```text
//!  application                  State                        connections (workers, in-process links)
//!  send, recv, options  --->   Pattern   <--- pipe_up, received, subscribed, pipe_down
//!                                |  ^
//!                                v  |    ---> take_commands, take_outbound
//!                               Core          Effects: write, resume, credit, close; wake receivers, senders
//! ```
//! Every call runs to its end at once. What would wait is refused with `WouldBlock`; the effects tell when to try
//! again. After each call the owner takes the [`Effects`], unlocks, and does what they say.
//!
//! News of a connection carries the pipe's key and the connection's epoch, both from [`State::pipe_up`]; what does not
//! belong to the present connection is ignored (MQ-068).
//!
//! # In-process links
//!
//! Two states are never locked at once. At an [`Effect::Write`] of such a link somebody takes everything from the one state
//! by [`State::take_all`], unlocks, and gives it to the other by [`State::received_many`] and [`State::commanded`]; one at a
//! time. Or the other state is told by [`State::offered`], and its owner fetches when [`State::next_offer`] says so. When the
//! other answers [`Received::Full`], nothing more is taken until its [`Effect::Resume`]. The far side's [`Effect::Credit`]
//! goes to [`State::credit`]. A far side that is already gone answers [`Received::Stale`].

mod commands;
mod core;
mod counters;
mod effects;
mod far;
mod inbound;
mod limits;
mod outbound;
mod peer;
mod pipe;
mod refusal;
mod report;
mod settings;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tidegate_io::{
    message::{Message, Part},
    packed::Packed,
    peer::{Epoch, PeerKey},
    wait::Share,
};

pub use self::counters::{FlowReading, Reading};
pub(crate) use self::{
    core::Core,
    counters::{Counters, Ledger},
    effects::{CloseCause, Credit, Effect, Effects, LinkLimits},
    inbound::Held,
    outbound::Most,
    peer::{Arrival, Origin, PeerInfo, SocketType},
    pipe::{Command, Stage},
    refusal::{Awaited, NotSupported, RecvRefusal, Refusal, SendRefusal, Violation},
    report::Carried,
    settings::{OnPeerLoss, Settings, SlowPolicy, SubscriptionLimits, Verbosity},
};
use crate::pattern::{self, Event, Extras, Pattern, ReplyRefusal, Request, WayBack, envelope::Payload};

/// Everything of one socket that its lock guards. `L` is the way to a connection.
pub(crate) struct State<L> {
    core: Core<L>,
    pattern: Box<dyn Pattern<L>>,
}

/// What became of something that arrived from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Received {
    /// It was dealt with; read on.
    Taken,
    /// It was dealt with, and no more is to be read until [`Effect::Resume`]. What was read already may still be given.
    Full,
    /// It was dropped, and the connection is to be closed.
    Violation(Violation),
    /// The connection is not the present one of its pipe, or the pipe is being closed: it was dropped.
    Stale,
}

/// What may be done at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// A receive would give something.
    pub(crate) readable: bool,
    /// A send would be taken.
    pub(crate) writable: bool,
}

/// What shall become of messages that were received and not read, when a pipe is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// They stay readable (unbind).
    Keep,
    /// They are dropped (disconnect).
    Discard,
}

impl<L: Clone> State<L> {
    /// A socket without pipes. `seed` starts request ids and generated routing ids (MQ-128, MQ-193).
    pub(crate) fn new(kind: SocketType, settings: Settings, seed: u32) -> Self {
        Self { core: Core::new(kind, settings), pattern: pattern::of(kind, seed) }
    }

    /// From now on what is queued counts against the budget of several sockets (MQ-066). `waker` is called once the
    /// socket may try again what the budget has refused.
    pub(crate) fn share(&mut self, share: Share) {
        self.core.share(share);
    }

    /// From now on what is queued does not count.
    pub(crate) fn end_share(&mut self) {
        self.core.end_share();
    }

    /// What is to be done after unlocking.
    #[inline]
    pub(crate) fn effects(&mut self) -> &mut Effects<L> {
        &mut self.core.effects
    }

    // ---- pipes ----

    /// Makes the pipe of an endpoint that is being dialed without `immediate`; messages may be queued at once (MQ-182).
    /// `routing_id` is its `connect_routing_id`.
    ///
    /// # Errors
    ///
    /// The routing id is in use; nothing was made.
    pub(crate) fn open_pipe(&mut self, routing_id: Option<Part>) -> Result<PeerKey, Refusal> {
        let key = self.core.create(Origin::Dialed);
        if let Some(routing_id) = routing_id
            && let Err(refusal) = self.pattern.assign(&mut self.core, key, routing_id)
        {
            self.core.remove(key);
            return Err(refusal);
        }
        self.introduce(key);
        Ok(key)
    }

    /// The stamp of a pipe itself, which tells it from others that had or will have the same key.
    pub(crate) fn born(&self, key: PeerKey) -> Epoch {
        self.core.born(key)
    }

    /// Nobody dials for the pipe any more: it takes nothing new, and others are given what would have been its turn.
    pub(crate) fn set_idle(&mut self, key: PeerKey) {
        let Some(pipe) = self.core.pipe_mut(key).filter(|pipe| !pipe.is_up()) else { return };
        pipe.idle = true;
        if self.core.is_open(key) {
            self.pattern.idle(&mut self.core, key);
        }
    }

    /// Somebody dials for it again.
    pub(crate) fn end_idle(&mut self, key: PeerKey) {
        let Some(pipe) = self.core.pipe_mut(key) else { return };
        if std::mem::take(&mut pipe.idle) && self.core.is_open(key) {
            self.pattern.room(&mut self.core, key);
        }
    }

    /// A connection is past its handshake: `pipe` is the one it was dialed for, or none for an accepted connection and
    /// one dialed with `immediate`. If the pipe still has an older connection, that one counts as lost.
    ///
    /// # Errors
    ///
    /// The peer is not let in: close the connection. A pipe it was dialed for stays, and waits for the next.
    pub(crate) fn pipe_up(
        &mut self,
        pipe: Option<PeerKey>,
        arrival: Arrival<L>,
    ) -> Result<(PeerKey, Epoch), Refusal> {
        let Some(key) = pipe else { return self.new_pipe_up(arrival) };
        self.end_idle(key);
        match self.core.pipe(key) {
            // Of an endpoint that was given up: a last connection, for what is queued.
            Some(pipe) if pipe.stage == Stage::Closing && !pipe.is_up() => {
                let epoch = self.core.attach(key, arrival);
                self.core.nudge(key);
                return Ok((key, epoch));
            }
            Some(pipe) if matches!(pipe.stage, Stage::Open | Stage::Cut) => {
                let (is_up, epoch) = (pipe.is_up(), pipe.epoch);
                if is_up {
                    self.pipe_down(key, epoch, true);
                }
            }
            _ => return Err(Refusal::Gone),
        }
        let epoch = self.core.attach(key, arrival);
        let up = self.pattern.up(&mut self.core, key);
        if up.is_ok() {
            self.core.nudge(key);
        } else {
            self.core.release(key);
        }
        self.pass_room(key);
        up.map(|()| (key, epoch))
    }

    fn new_pipe_up(&mut self, mut arrival: Arrival<L>) -> Result<(PeerKey, Epoch), Refusal> {
        let key = self.core.create(arrival.origin);
        let assigned = arrival.assigned.take();
        let epoch = self.core.attach(key, arrival);
        let up = match assigned {
            Some(routing_id) => self.pattern.assign(&mut self.core, key, routing_id),
            None => Ok(()),
        };
        if let Err(refusal) = up.and_then(|()| self.pattern.up(&mut self.core, key)) {
            self.core.remove(key);
            return Err(refusal);
        }
        self.introduce(key);
        Ok((key, epoch))
    }

    /// Queues what a new pipe starts with, and gives it to the pattern (MQ-204, MQ-214).
    fn introduce(&mut self, key: PeerKey) {
        let settings = &self.core.settings;
        let kind = self.core.kind;
        let hello = (matches!(kind, SocketType::Router | SocketType::Dealer) && !settings.hello.is_empty())
            .then(|| settings.hello.clone());
        let probe = (matches!(kind, SocketType::Router | SocketType::Dealer | SocketType::Req)
            && settings.probe_router)
            .then_some(Part::EMPTY);
        for part in [hello, probe].into_iter().flatten() {
            self.core.enqueue(key, Payload::single(part).parcel());
        }
        self.pattern.opened(&mut self.core, key);
    }

    /// The connection is gone, and with it what was being written (MQ-184). With `keep` its pipe waits for the next one;
    /// else the pipe ends, and only what was received stays.
    pub(crate) fn pipe_down(&mut self, key: PeerKey, epoch: Epoch, keep: bool) {
        if !self.core.is_connected(key, epoch) {
            return;
        }
        match self.core.pipe(key).map(|pipe| pipe.stage) {
            Some(Stage::Open) if keep => {
                self.core.release(key);
                self.pattern.lost(&mut self.core, key);
                self.pass_room(key);
            }
            // It has left the pattern already.
            Some(Stage::Cut) if keep => {
                self.core.release(key);
                self.core.reopen(key);
                self.pass_room(key);
            }
            _ => self.end(key),
        }
        self.core.sweep();
    }

    /// Takes the pipe out of the pattern, after unbind or disconnect: what is queued for sending may still be taken, by a
    /// last connection if there is none, nothing new is queued, nothing more is received. [`pipe_down`](Self::pipe_down)
    /// or [`remove_pipe`](Self::remove_pipe) ends it.
    pub(crate) fn detach_pipe(&mut self, key: PeerKey, unread: Unread) {
        match self.core.pipe(key).map(|pipe| pipe.stage) {
            Some(Stage::Open) => self.close(key),
            Some(Stage::Cut) => self.core.set_closing(key),
            _ => {}
        }
        if unread == Unread::Discard {
            self.pattern.forget_received(&mut self.core, key);
            self.core.discard_inbound(key);
        }
        self.core.sweep();
    }

    /// Ends a pipe, connected or not, at once.
    pub(crate) fn remove_pipe(&mut self, key: PeerKey, unread: Unread) {
        self.detach_pipe(key, unread);
        if self.core.pipe(key).is_some_and(|pipe| pipe.stage != Stage::Retired) {
            self.end(key);
        }
        self.core.sweep();
    }

    fn close(&mut self, key: PeerKey) {
        self.pattern.closing(&mut self.core, key);
        self.core.set_closing(key);
    }

    fn end(&mut self, key: PeerKey) {
        if self.core.is_open(key) {
            self.close(key);
        }
        self.core.release(key);
        self.pattern.gone(&mut self.core, key);
        self.core.discard_outbound(key);
        self.core.retire(key);
    }

    // ---- from the connections ----

    /// A message arrived.
    #[inline]
    pub(crate) fn received(&mut self, key: PeerKey, epoch: Epoch, message: Message) -> Received {
        if !self.core.is_heard(key, epoch) {
            return Received::Stale;
        }
        let result = self.pattern.received(&mut self.core, key, &mut Payload::verbatim(message));
        self.heard(key, result)
    }

    /// Messages arrived. What is left of them is to be given again once reading goes on.
    #[inline]
    pub(crate) fn received_many(&mut self, key: PeerKey, epoch: Epoch, arrivals: &mut Packed) -> Received {
        if !self.core.is_heard(key, epoch) {
            arrivals.clear();
            return Received::Stale;
        }
        let result = self.pattern.received_many(&mut self.core, key, arrivals);
        self.heard(key, result)
    }

    /// The peer subscribed.
    pub(crate) fn subscribed(&mut self, key: PeerKey, epoch: Epoch, topic: Bytes) -> Received {
        if !self.core.is_heard(key, epoch) {
            return Received::Stale;
        }
        let result = self.pattern.subscribed(&mut self.core, key, topic);
        self.heard(key, result)
    }

    /// The peer cancelled a subscription.
    pub(crate) fn cancelled(&mut self, key: PeerKey, epoch: Epoch, topic: Bytes) -> Received {
        if !self.core.is_heard(key, epoch) {
            return Received::Stale;
        }
        let result = self.pattern.cancelled(&mut self.core, key, topic);
        self.heard(key, result)
    }

    #[inline]
    fn heard(&mut self, key: PeerKey, result: Result<(), Violation>) -> Received {
        match result {
            Err(violation) => Received::Violation(violation),
            Ok(()) if self.core.is_to_wait(key) => Received::Full,
            Ok(()) => Received::Taken,
        }
    }

    /// Takes messages for writing, and gives the room to those who wait for it. Returns how many; there may be more.
    #[inline]
    pub(crate) fn take_outbound(
        &mut self,
        key: PeerKey,
        epoch: Epoch,
        most: Most,
        into: &mut Packed,
    ) -> usize {
        if !self.core.is_connected(key, epoch) {
            return 0;
        }
        let taken = self.core.take(key, most, into);
        self.pass_room(key);
        taken
    }

    /// Takes changes of subscriptions for writing, ahead of messages; returns how many. After
    /// [`pipe_up`](Self::pipe_up) these are first all topics held, then every change in order (MQ-232, MQ-235).
    pub(crate) fn take_commands(
        &mut self,
        key: PeerKey,
        epoch: Epoch,
        most: usize,
        into: &mut VecDeque<Command>,
    ) -> usize {
        if self.core.is_connected(key, epoch) { self.core.take_commands(key, most, into) } else { 0 }
    }

    #[inline]
    fn pass_room(&mut self, key: PeerKey) {
        if self.core.took_room(key) && self.core.is_open(key) {
            self.pattern.room(&mut self.core, key);
        } else if self.core.reserved > 0 {
            // Who waits because of kept room is let in by any room, not only by that of a full pipe.
            self.core.effects.list.push(Effect::WakeFor(key));
            self.core.effects.room_for(1);
        }
    }

    // ---- by the application ----

    /// Takes the message for sending: then it is left without parts. Refused, it is as it was (MQ-372).
    #[inline]
    pub(crate) fn send(&mut self, message: &mut Message) -> Result<(), SendRefusal> {
        if message.is_empty() {
            return Err(SendRefusal::Empty);
        }
        if self.is_promised() {
            return Err(SendRefusal::WouldBlock(Awaited::Room));
        }
        self.pattern.send(&mut self.core, message)
    }

    /// [`send`](Self::send), behind others that wait for room on the pipes `ahead`.
    pub(crate) fn send_behind(
        &mut self,
        message: &mut Message,
        ahead: impl Iterator<Item = PeerKey>,
    ) -> Result<(), SendRefusal> {
        self.core.ahead.extend(ahead);
        let sent = self.send(message);
        self.core.ahead.clear();
        sent
    }

    /// Keeps room for one message, until [`send_reserved`](Self::send_reserved) or [`give_back`](Self::give_back).
    pub(crate) fn reserve(&mut self) -> Result<(), SendRefusal> {
        let room = self.pattern.room_to_keep(&self.core)?;
        if !self.pattern.is_writable(&self.core) || room <= self.core.reserved {
            return Err(SendRefusal::WouldBlock(Awaited::Room));
        }
        self.core.reserved += 1;
        Ok(())
    }

    /// Sends with the room that was kept.
    pub(crate) fn send_reserved(&mut self, message: &mut Message) {
        self.core.reserved = self.core.reserved.saturating_sub(1);
        self.pattern.send_promised(&mut self.core, message);
        // What was kept with subscribers whom the message is not for is free.
        self.core.effects.all_senders |= self.core.settings.nodrop;
    }

    /// Whether all the room that there is was promised. Publishers see themselves to what was promised of whose room.
    #[inline]
    fn is_promised(&self) -> bool {
        let reserved = self.core.reserved;
        reserved > 0
            && !matches!(self.core.kind, SocketType::Pub | SocketType::XPub)
            && self.pattern.room_to_keep(&self.core).is_ok_and(|room| room <= reserved)
    }

    /// Gives up the room that was kept for a message.
    pub(crate) fn give_back(&mut self) {
        self.core.reserved = self.core.reserved.saturating_sub(1);
        self.core.effects.room_for(1);
        // With a publisher that is room with each subscriber.
        self.core.effects.all_senders |= self.core.settings.nodrop;
    }

    /// Puts the next message into `place`.
    #[inline]
    pub(crate) fn recv(&mut self, place: &mut Message) -> Result<(), RecvRefusal> {
        self.pattern.recv(&mut self.core, place)?;
        self.core.sweep();
        Ok(())
    }

    /// The next message, with what the peer it came from said of itself.
    pub(crate) fn recv_from(&mut self) -> Result<(Message, Option<Arc<PeerInfo>>), RecvRefusal> {
        let mut message = Message::new();
        let key = self.pattern.recv(&mut self.core, &mut message)?;
        let peer = self.core.pipe(key).and_then(|pipe| pipe.peer.clone());
        self.core.sweep();
        Ok((message, peer))
    }

    /// What may be done at once (MQ-048, MQ-212).
    pub(crate) fn readiness(&self) -> Readiness {
        Readiness {
            readable: self.pattern.is_readable(&self.core) || self.core.has_offers(),
            writable: self.pattern.is_writable(&self.core) && !self.is_promised(),
        }
    }

    /// [`readiness`](Self::readiness), behind others that wait for room on the pipes `ahead`.
    pub(crate) fn readiness_behind(&mut self, ahead: impl Iterator<Item = PeerKey>) -> Readiness {
        self.core.ahead.extend(ahead);
        let readiness = self.readiness();
        self.core.ahead.clear();
        readiness
    }

    /// The options.
    #[cfg(test)]
    pub(crate) fn settings(&self) -> &Settings {
        &self.core.settings
    }

    /// Changes options. Those that are live take effect on existing pipes; lowered limits drop nothing (MQ-299).
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Settings)) {
        let before = self.core.settings.clone();
        change(&mut self.core.settings);
        let (old, new) = (&before, &self.core.settings);
        if old.send != new.send || old.receive != new.receive {
            self.core.limits_version += 1;
            for key in self.core.keys() {
                self.core.apply_limits(key);
                self.pass_room(key);
            }
        }
        let waiting = |settings: &Settings| {
            let Settings { nodrop, invert_matching, xpub_last_value, router_mandatory, req_relaxed, .. } =
                settings;
            (*nodrop, *invert_matching, *xpub_last_value, *router_mandatory, *req_relaxed)
        };
        self.core.effects.all_senders |= waiting(&before) != waiting(&self.core.settings);
        self.pattern.configured(&mut self.core, &before);
    }

    /// REP: the next request with its way back, leaving the alternation alone (MQ-202).
    pub(crate) fn recv_request(&mut self) -> Result<Request, RecvRefusal> {
        let Extras::Rep(rep) = self.pattern.extras() else { return Err(RecvRefusal::NotSupported) };
        let request = rep.recv_request(&mut self.core);
        self.core.sweep();
        request
    }

    /// REP: answers a request of [`recv_request`](Self::recv_request).
    ///
    /// # Errors
    ///
    /// With `rep_report_drop`, as [`send`](Self::send); the way back is returned when another try makes sense.
    pub(crate) fn reply(&mut self, way_back: WayBack, message: &mut Message) -> Result<(), ReplyRefusal> {
        pattern::reply(&mut self.core, way_back, message)
    }

    /// ROUTER: what may be done with the peer of this routing id; none when there is no such peer (MQ-212).
    pub(crate) fn peer_state(&mut self, routing_id: &[u8]) -> Result<Option<Readiness>, NotSupported> {
        match self.pattern.extras() {
            Extras::Router(router) => Ok(router.peer_state(&self.core, routing_id)),
            _ => Err(NotSupported),
        }
    }

    /// SUB, XSUB: asks for a topic once more. XPUB in manual mode: adds a topic to what the peer gets whose notification
    /// was received last (6.8).
    pub(crate) fn subscribe(&mut self, topic: Bytes) -> Result<(), NotSupported> {
        let core = &mut self.core;
        match self.pattern.extras() {
            Extras::Subscriber(interest) => {
                let repeat = core.kind == SocketType::XSub || core.settings.forward_duplicates;
                interest.add(core, topic, repeat);
            }
            Extras::XPub(xpub) if core.settings.xpub_manual => xpub.subscribe(core, &topic),
            _ => return Err(NotSupported),
        }
        Ok(())
    }

    /// Takes one [`subscribe`](Self::subscribe) back.
    pub(crate) fn unsubscribe(&mut self, topic: Bytes) -> Result<(), NotSupported> {
        let core = &mut self.core;
        match self.pattern.extras() {
            Extras::Subscriber(interest) => {
                let always = core.kind == SocketType::XSub && core.settings.verbose_unsubscribe;
                interest.remove(core, topic, always);
            }
            Extras::XPub(xpub) if core.settings.xpub_manual => xpub.unsubscribe(core, &topic),
            _ => return Err(NotSupported),
        }
        Ok(())
    }

    /// XPUB: the next event, with what the peer it came from said of itself, if that is still known (MQ-226).
    pub(crate) fn recv_event(&mut self) -> Result<(Event, Option<Arc<PeerInfo>>), RecvRefusal> {
        let Extras::XPub(xpub) = self.pattern.extras() else { return Err(RecvRefusal::NotSupported) };
        let (event, key) = xpub.next_event(&mut self.core).ok_or(RecvRefusal::WouldBlock)?;
        let peer = self.core.pipe(key).and_then(|pipe| pipe.peer.clone());
        self.core.sweep();
        Ok((event, peer))
    }

    /// PUB, XPUB: number of peers that would get a message whose first part is `subject` (MQ-221). Changes are told by
    /// [`Effects::subscriptions`].
    pub(crate) fn subscribers(&mut self, subject: &[u8]) -> Result<usize, NotSupported> {
        match self.pattern.extras() {
            Extras::Publisher(fanout) => Ok(fanout.subscribers(&self.core, subject)),
            Extras::XPub(xpub) => Ok(xpub.fanout.subscribers(&self.core, subject)),
            _ => Err(NotSupported),
        }
    }

    /// PUB, XPUB, SUB, XSUB: number of distinct topics (MQ-347).
    pub(crate) fn topics_count(&mut self) -> Result<usize, NotSupported> {
        match self.pattern.extras() {
            Extras::Publisher(fanout) => Ok(fanout.topics()),
            Extras::XPub(xpub) => Ok(xpub.fanout.topics()),
            Extras::Subscriber(interest) => Ok(interest.topics()),
            _ => Err(NotSupported),
        }
    }
}
