//! XPUB: publishes, and tells its application who subscribes (6.8).
//!
//! In manual mode what peers ask for and what they get are two sets: the first is answered for when a peer is lost
//! (MQ-224), the second is the application's alone.

use bytes::Bytes;
use tidegate_io::{
    index::{Cancelled, Subscribed, TopicIndex},
    message::{Message, Part},
    peer::{Epoch, PeerKey},
};

use super::{
    Extras, Pattern,
    envelope::Payload,
    fanout::{Change, Fanout, subscribe_within},
    notices::{Notice, Notices, What},
};
use crate::state::{
    CloseCause, Core, Held, RecvRefusal, Refusal, SendRefusal, Settings, Verbosity, Violation,
};

#[derive(Debug, Default)]
pub(crate) struct XPub {
    pub(crate) fanout: Fanout,
    /// Manual mode: what peers asked for on the wire.
    asked: TopicIndex,
    notices: Notices,
    /// Manual mode: the peer whose notification was received last, and its connection.
    last: Option<(PeerKey, Epoch)>,
}

/// What an XPUB receives (MQ-226).
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation per message")]
pub(crate) enum Event {
    /// A peer subscribed to a topic.
    Subscribe(Bytes),
    /// A peer cancelled a topic.
    Unsubscribe(Bytes),
    /// A user message from upstream.
    Message(Message),
}

impl Event {
    /// The form in which an application without types sees it: `01` or `00` and the topic.
    pub(crate) fn into_message(self) -> Message {
        let marked = |mark: u8, topic: &Bytes| {
            let mut bytes = Vec::with_capacity(1 + topic.len());
            bytes.push(mark);
            bytes.extend_from_slice(topic);
            Message::from(Part::from(bytes))
        };
        match self {
            Self::Subscribe(topic) => marked(1, &topic),
            Self::Unsubscribe(topic) => marked(0, &topic),
            Self::Message(message) => message,
        }
    }
}

impl XPub {
    /// The next event, and the pipe it came by.
    pub(crate) fn next_event<L: Clone>(&mut self, core: &mut Core<L>) -> Option<(Event, PeerKey)> {
        let Notice { pipe, born, epoch, what } = self.notices.pop()?;
        let event = match what {
            What::Message(message, held) => {
                core.let_go((pipe, born), held, true);
                Event::Message(message)
            }
            What::Change(change, topic) => {
                self.was_read(core, pipe, born);
                let is_there = core.is_connected(pipe, epoch) && core.is_open(pipe);
                self.last = is_there.then_some((pipe, epoch));
                // The next message is for another peer than those who wait to send it know.
                core.effects.all_senders |= core.settings.xpub_last_value;
                match change {
                    Change::Subscribe => Event::Subscribe(topic),
                    Change::Cancel => Event::Unsubscribe(topic),
                }
            }
        };
        self.settle_reading(core, pipe);
        Some((event, pipe))
    }

    /// Manual mode: adds a topic to what the last peer gets. Without such a peer nothing happens.
    pub(crate) fn subscribe<L: Clone>(&mut self, core: &mut Core<L>, topic: &[u8]) {
        if let Some((key, _)) = self.last {
            self.fanout.subscribe_by_hand(core, key, topic);
        }
    }

    /// Manual mode: takes a topic from what the last peer gets.
    pub(crate) fn unsubscribe<L: Clone>(&mut self, core: &mut Core<L>, topic: &[u8]) {
        if let Some((key, _)) = self.last {
            self.fanout.cancel(core, key, topic);
        }
    }

    fn publish<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        message: &mut Message,
        promised: bool,
    ) -> Result<(), SendRefusal> {
        let only = self.last.filter(|_| core.settings.xpub_last_value).map(|(key, _)| key);
        self.fanout.publish(core, message, only, promised)?;
        if only.is_some() {
            self.last = None;
        }
        while let Some(key) = self.fanout.next_slow() {
            self.leave(core, key);
            core.cut(key, CloseCause::SlowSubscriber);
        }
        Ok(())
    }

    fn subscribed_by<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        key: PeerKey,
        topic: Bytes,
    ) -> Result<(), Violation> {
        let tells = if core.settings.xpub_manual {
            subscribe_within(&mut self.asked, &core.settings.subscriptions, key, &topic)?;
            true
        } else {
            let result = self.fanout.subscribe(core, key, &topic)?;
            core.settings.verbosity != Verbosity::Terse || result == (Subscribed::Added { first: true })
        };
        if tells {
            tell(&mut self.notices, core, key, Change::Subscribe, topic);
        }
        Ok(())
    }

    fn cancelled_by<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey, topic: Bytes) {
        let (result, every) = if core.settings.xpub_manual {
            (self.asked.cancel(&topic, key), true)
        } else {
            let result = self.fanout.cancel(core, key, &topic);
            (result, core.settings.verbosity == Verbosity::Verboser)
        };
        if let Cancelled::Removed { last } = result
            && (last || every)
        {
            tell(&mut self.notices, core, key, Change::Cancel, topic);
        }
    }

    /// Nothing of the peer counts any more; the application is told what has ended (MQ-224).
    fn leave<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey) {
        let Self { fanout, asked, notices, last } = self;
        let manual = core.settings.xpub_manual;
        let every = core.settings.verbosity == Verbosity::Verboser;
        let mut ended: Vec<Bytes> = Vec::new();
        fanout.down(core, key, |topic, is_last| {
            if !manual && (every || is_last) {
                ended.push(Bytes::copy_from_slice(topic));
            }
        });
        asked.remove_peer(key, |topic, _| {
            if manual {
                ended.push(Bytes::copy_from_slice(topic));
            }
        });
        if last.is_some_and(|(last, _)| last == key) {
            *last = None;
        }
        ended.sort_unstable();
        for topic in ended {
            tell(notices, core, key, Change::Cancel, topic);
        }
    }

    fn was_read<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey, born: Epoch) {
        if let Some(pipe) = core.pipe_mut(key).filter(|pipe| pipe.born == born) {
            pipe.notices = pipe.notices.saturating_sub(1);
        }
    }

    /// Stops or resumes reading of a peer, by what it has unread: user messages by the limits of receiving, and
    /// notifications by theirs where they cannot vanish (MQ-228). While the budget is used up no user message may be unread.
    fn settle_reading<L: Clone>(&self, core: &mut Core<L>, key: PeerKey) {
        match self.load(core, key) {
            Load::Full => core.pause(key),
            Load::Low => core.resume(key),
            Load::Between => {}
        }
    }

    fn load<L: Clone>(&self, core: &Core<L>, key: PeerKey) -> Load {
        let Some(pipe) = core.pipe(key) else { return Load::Low };
        let limit = core.settings.receive;
        let repeats = core.settings.xpub_manual || core.settings.verbosity != Verbosity::Terse;
        let notices = if repeats { pipe.notices } else { 0 };
        let most = limit.messages.max(LEAST_NOTICES);
        let loads = [(pipe.held, limit.messages), (pipe.held_bytes, limit.bytes), (notices, most + 1)];
        let is_over_budget = pipe.held > 0 && !pipe.is_inproc() && core.is_over_budget();
        if is_over_budget || loads.iter().any(|(load, limit)| *limit != 0 && load >= limit) {
            Load::Full
        } else if loads.iter().all(|(load, limit)| *limit == 0 || *load <= limit / 2) {
            Load::Low
        } else {
            Load::Between
        }
    }
}

/// How much of a peer is unread, against its limits.
enum Load {
    Full,
    Between,
    Low,
}

/// So many notifications of a peer may be unread however low `rcvhwm` is.
const LEAST_NOTICES: usize = 1000;

fn tell<L: Clone>(notices: &mut Notices, core: &mut Core<L>, key: PeerKey, change: Change, topic: Bytes) {
    let (repeats, born, epoch) = (
        core.settings.xpub_manual || core.settings.verbosity != Verbosity::Terse,
        core.born(key),
        core.epoch(key),
    );
    let notice = Notice { pipe: key, born, epoch, what: What::Change(change, topic) };
    let undone = if repeats {
        notices.push(notice);
        None
    } else {
        notices.push_or_undo(notice)
    };
    match undone {
        None => {
            core.effects.receivers += 1;
            if let Some(pipe) = core.pipe_mut(key) {
                pipe.notices += 1;
            }
        }
        Some(undone) => {
            if let Some(pipe) = core.pipe_mut(undone.pipe).filter(|pipe| pipe.born == undone.born) {
                pipe.notices = pipe.notices.saturating_sub(1);
            }
        }
    }
}

impl<L: Clone> Pattern<L> for XPub {
    fn up(&mut self, core: &mut Core<L>, key: PeerKey) -> Result<(), Refusal> {
        self.fanout.up(core, key);
        Ok(())
    }

    fn lost(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.leave(core, key);
        core.discard_outbound(key);
    }

    fn closing(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.leave(core, key);
    }

    fn forget_received(&mut self, core: &mut Core<L>, key: PeerKey) {
        let from = (key, core.born(key));
        self.notices.forget_messages(key, |held| core.let_go(from, held, false));
    }

    fn room(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.fanout.room(core, key);
    }

    fn received(&mut self, core: &mut Core<L>, key: PeerKey, payload: &mut Payload) -> Result<(), Violation> {
        let only_first = core.settings.only_first_subscribe;
        let held = Held::of(payload);
        let rest =
            Change::extract(payload.take().into_message(), only_first, |change, topic| match change {
                Change::Subscribe => self.subscribed_by(core, key, topic),
                Change::Cancel => {
                    self.cancelled_by(core, key, topic);
                    Ok(())
                }
            })?;
        if rest.is_empty() {
            core.consumed(key, held.retained());
        } else {
            core.hold(key, held);
            let (born, epoch) = (core.born(key), core.epoch(key));
            self.notices.push(Notice { pipe: key, born, epoch, what: What::Message(rest, held) });
            core.effects.receivers += 1;
        }
        self.settle_reading(core, key);
        Ok(())
    }

    fn subscribed(&mut self, core: &mut Core<L>, key: PeerKey, topic: Bytes) -> Result<(), Violation> {
        self.subscribed_by(core, key, topic)?;
        self.settle_reading(core, key);
        Ok(())
    }

    fn cancelled(&mut self, core: &mut Core<L>, key: PeerKey, topic: Bytes) -> Result<(), Violation> {
        self.cancelled_by(core, key, topic);
        self.settle_reading(core, key);
        Ok(())
    }

    fn send(&mut self, core: &mut Core<L>, message: &mut Message) -> Result<(), SendRefusal> {
        self.publish(core, message, false)
    }

    fn room_to_keep(&self, core: &Core<L>) -> Result<usize, SendRefusal> {
        Ok(self.fanout.room_to_keep(core))
    }

    fn send_promised(&mut self, core: &mut Core<L>, message: &mut Message) {
        // Refuses nothing that was promised.
        let _ = self.publish(core, message, true);
    }

    fn recv(&mut self, core: &mut Core<L>, place: &mut Message) -> Result<PeerKey, RecvRefusal> {
        let (event, key) = self.next_event(core).ok_or(RecvRefusal::WouldBlock)?;
        *place = event.into_message();
        Ok(key)
    }

    fn is_readable(&self, _core: &Core<L>) -> bool {
        !self.notices.is_empty()
    }

    fn is_writable(&self, core: &Core<L>) -> bool {
        self.fanout.is_writable(core)
    }

    fn configured(&mut self, core: &mut Core<L>, before: &Settings) {
        if (before.send, before.receive) == (core.settings.send, core.settings.receive) {
            return;
        }
        for key in core.keys() {
            match self.load(core, key) {
                Load::Full => core.pause(key),
                Load::Between | Load::Low => core.resume(key),
            }
        }
    }

    fn extras(&mut self) -> Extras<'_> {
        Extras::XPub(self)
    }
}
