//! One pipe: the two queues between a socket and one peer, with all that belongs to its present connection.
//!
//! ```text
//!            open_pipe                    pipe_up                      cut
//!   (dialed) ---------> Open, no link ------------------> Open, link -------> Cut, link
//!                         |    ^                            |    |             |    |
//!                         |    +----- pipe_down, kept ------+----(-------------+    |
//!                  detach |                                      | detach           | detach
//!                         v                   pipe_up            v                  |
//!                       Closing, no link ---------------> Closing, link <-----------+
//!                                                                |
//!   gone <--- inbound empty --- Retired <------ pipe_down -------+
//! ```
//! - *Open*: takes part in the pattern. *Cut*: takes part in nothing until its connection has ended. *Closing*: sends what
//!   is queued, takes nothing new. *Retired*: without connection for good; only inbound messages are left.
//! - An accepted pipe is made by pipe_up. One that is not kept is retired by pipe_down at every stage.
//! - A dialed pipe without connection is *idle* while nobody dials for it: it keeps what is queued and takes nothing new.
//! - On a stream each queue has its own limit, with the low-water rule of [`Queue`] (MQ-063); when the inbound queue is
//!   full, reading is *paused* (MQ-062).
//! - On an in-process link the queues have no limit of their own. What counts is the *level*: messages queued here for
//!   sending and messages moved to the far socket that it has not consumed (MQ-270). The far socket gives credit for
//!   LWM messages at a time.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_io::{
    message::Part,
    peer::Epoch,
    queue::{Capacity, Queue},
};

use super::{
    commands::Commands,
    counters::Counters,
    effects::{Credit, LinkLimits},
    peer::{Origin, PeerInfo},
};

/// Stage of a pipe's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Takes part in the pattern.
    Open,
    /// Takes part in nothing until its connection has ended; if it is kept then, it is open again.
    Cut,
    /// Sends what is queued, takes nothing new.
    Closing,
    /// Its last connection is gone; inbound messages are left to be read.
    Retired,
}

/// A change of subscriptions to be sent to a publisher (MQ-178).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Ask for a topic.
    Subscribe(Bytes),
    /// Give a topic up.
    Cancel(Bytes),
}

impl Command {
    pub(super) fn topic(&self) -> &Bytes {
        match self {
            Self::Subscribe(topic) | Self::Cancel(topic) => topic,
        }
    }
}

/// Accounts of an in-process link.
#[derive(Debug)]
pub(super) struct Far {
    /// Moved to the far socket and not yet consumed there.
    pub(super) in_flight: Credit,
    /// Limit of what we send: our `sndhwm` and its `rcvhwm`.
    pub(super) sending: Capacity,
    /// Consumed here and not yet given back as credit.
    pub(super) consumed: Credit,
    /// Limit of what it sends: its `sndhwm` and our `rcvhwm`.
    pub(super) receiving: Capacity,
    /// The limits of the far socket that these were made of.
    pub(super) theirs: LinkLimits,
    /// The far socket has messages that were not fetched.
    pub(super) offered: bool,
    /// It is their turn to be fetched.
    pub(super) listed: bool,
    /// Sending waits for credit.
    pub(super) stalled: bool,
    /// The far socket was told to move nothing more until it hears of it.
    pub(super) held_up: bool,
}

/// One pipe. Its queues are touched by [`Core`](super::Core) only.
#[derive(Debug)]
pub(crate) struct Pipe<L> {
    /// Stamp of the pipe itself: tells it from others that had or will have the same key.
    pub(crate) born: Epoch,
    /// Stamp of its present or last connection; before the first one, of the pipe.
    pub(crate) epoch: Epoch,
    pub(crate) stage: Stage,
    pub(crate) origin: Origin,
    /// What the peer of the present or last connection said of itself.
    pub(crate) peer: Option<Arc<PeerInfo>>,
    /// ROUTER: what messages of this pipe are labelled with. Empty while unknown.
    pub(crate) label: Part,
    /// The way to the connection, while there is one.
    pub(super) link: Option<L>,
    pub(super) out: Queue,
    pub(super) inbound: Queue,
    /// Messages that did not go to the peer because its own queue was full, on this connection.
    pub(super) missed: u64,
    /// Received messages that the pattern keeps in a place of its own, and the memory they retain.
    pub(crate) held: usize,
    pub(crate) held_bytes: usize,
    /// XPUB: notifications of this peer that were not read.
    pub(crate) notices: usize,
    /// Whether the queue keeps the newest message only (MQ-250).
    pub(super) out_conflates: bool,
    pub(super) inbound_conflates: bool,
    /// Changes of subscriptions, ahead of messages, under no limit (MQ-065).
    pub(super) commands: Commands,
    pub(super) far: Option<Far>,
    /// It was full on an in-process link that is gone, and nobody was told that this is over.
    pub(super) owes_room: bool,
    /// Nobody dials for it, until that is asked for.
    pub(super) idle: bool,
    pub(super) paused: bool,
    /// [`Effect::Write`](super::Effect::Write) was noted, and no take has found the pipe empty since.
    pub(super) noted: bool,
    pub(super) counters: Arc<Counters>,
    /// How many of the messages that left are known to be written, on a stream.
    pub(super) written: u64,
    /// What the budget was told that it holds.
    pub(super) counted: usize,
}

impl<L> Pipe<L> {
    /// Whether there is a connection.
    #[inline]
    pub(crate) fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// Whether a message may be queued for sending now.
    #[inline]
    pub(crate) fn is_writable(&self) -> bool {
        self.stage == Stage::Open && !self.idle && !self.is_stalled()
    }

    /// Whether sending waits for room, by the low-water rule.
    #[inline]
    pub(super) fn is_stalled(&self) -> bool {
        match &self.far {
            None => self.out.is_full(),
            Some(far) => far.stalled,
        }
    }

    /// Whether the pipe is on an in-process link.
    pub(crate) fn is_inproc(&self) -> bool {
        self.far.is_some()
    }

    /// Whether nothing is queued for sending.
    pub(crate) fn is_drained(&self) -> bool {
        self.out.is_empty()
    }

    /// Whether there are received messages to be read.
    pub(crate) fn has_received(&self) -> bool {
        !self.inbound.is_empty()
    }

    /// Whether there are messages to be fetched from the far end of an in-process link.
    pub(crate) fn has_offers(&self) -> bool {
        self.far.as_ref().is_some_and(|far| far.listed)
    }

    /// Messages queued for sending.
    pub(super) fn queued(&self) -> usize {
        self.out.len()
    }

    /// Bytes of memory that its messages hold.
    #[inline]
    pub(super) fn holds(&self) -> usize {
        self.out.size().retained + self.inbound.size().retained + self.held_bytes
    }

    /// Its numbers.
    pub(super) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Messages received and not read, wherever they are kept.
    #[inline]
    pub(super) fn unread(&self) -> usize {
        self.inbound.len() + self.held
    }

    /// Whether all that was received is gone.
    #[inline]
    pub(super) fn is_empty_inbound(&self) -> bool {
        self.unread() == 0
    }

    /// How many messages may be queued before the pipe is full by their number.
    pub(crate) fn room(&self) -> usize {
        match &self.far {
            _ if !self.is_writable() => 0,
            None => self.out.room(),
            Some(far) if far.sending.messages == 0 => usize::MAX,
            Some(far) => far.sending.messages.saturating_sub(self.level().messages),
        }
    }

    /// Whether the level of an in-process link has reached its limit.
    pub(super) fn is_at_far_limit(&self) -> bool {
        let Some(far) = &self.far else { return false };
        let (Capacity { messages, bytes }, level) = (far.sending, self.level());
        (messages != 0 && level.messages >= messages) || (bytes != 0 && level.bytes >= bytes)
    }

    /// Forgets the note of something to write when a take finds nothing: whoever took something comes again by himself.
    pub(super) fn settle_note(&mut self, took: usize) {
        if took == 0 && self.out.is_empty() && self.commands.is_empty() {
            self.noted = false;
        }
    }

    fn level(&self) -> Credit {
        let moved = self.far.as_ref().map(|far| far.in_flight).unwrap_or_default();
        Credit {
            messages: self.out.len().saturating_add(moved.messages),
            bytes: self.out.size().retained.saturating_add(moved.bytes),
        }
    }
}
