//! What is to be done outside after the state has changed, once its lock is released.
//!
//! The state never calls out. It notes here whom to wake and which connection to nudge; the caller swaps the notes for
//! an empty set of its own ([`Effects::take_into`]), unlocks, and acts. Both sets keep their memory, so that noting
//! allocates nothing in the steady state. Notes of connections are in the order in which they arose.

use tidegate_io::{
    peer::{Epoch, PeerKey},
    queue::Capacity,
};

/// One thing to do with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect<L> {
    /// The pipe has something to write: take it by `take_commands` and `take_outbound` until there is nothing. Not noted
    /// again until a take has found the pipe empty (MQ-058), so that for an in-process link who holds this note is the only mover, and order
    /// is kept.
    Write {
        /// The pipe.
        pipe: PeerKey,
        /// Its connection.
        epoch: Epoch,
        /// The way to it.
        link: L,
    },
    /// Reading of this connection may go on; of an in-process link, moving what the far socket has to send.
    Resume {
        /// The way to it.
        link: L,
    },
    /// The far socket of an in-process link may send this much more.
    Credit {
        /// The way to it.
        link: L,
        /// How much was consumed.
        credit: Credit,
    },
    /// Limits changed that the far socket of an in-process link counts with: call its `far_limits`.
    Limits {
        /// The way to it.
        link: L,
        /// The limits of this socket.
        limits: LinkLimits,
    },
    /// The connection is to be closed; its pipe takes part in nothing any more.
    Close {
        /// The pipe.
        pipe: PeerKey,
        /// Its connection.
        epoch: Epoch,
        /// The way to it.
        link: L,
        /// Why.
        why: CloseCause,
    },
    /// There is room on this pipe, or it is gone: the first of the senders that wait for room on it shall try again. Whoever
    /// is through gives the turn to the next.
    WakeFor(PeerKey),
    /// Other messages are for this pipe than before: all senders that wait for room on it shall try again.
    WakeAllFor(PeerKey),
}

/// Messages and bytes that the receiving end of an in-process link has consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credit {
    /// Messages.
    pub(crate) messages: usize,
    /// Bytes of retained memory.
    pub(crate) bytes: usize,
}

/// Limits of one end of an in-process link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkLimits {
    /// Grows with each change, by which the newest are known.
    pub(crate) version: u64,
    /// What it may queue for sending.
    pub(crate) send: Capacity,
    /// What it may queue of what it received.
    pub(crate) receive: Capacity,
}

/// Why the state wants a connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCause {
    /// ROUTER gave its routing id to a newcomer (MQ-209).
    Replaced,
    /// The subscriber missed too many messages (MQ-222).
    SlowSubscriber,
}

/// What is to be done after unlocking.
#[derive(Debug)]
pub(crate) struct Effects<L> {
    /// For connections, in order.
    pub(crate) list: Vec<Effect<L>>,
    /// Messages that became readable: so many receivers may be woken.
    pub(crate) receivers: usize,
    /// Messages for which there came to be room: so many senders may be woken, except those that wait for a certain
    /// pipe.
    pub(crate) senders: usize,
    /// What decides whether a sender has to wait has changed: all that wait shall try again.
    pub(crate) all_senders: bool,
    /// The set of subscriptions of a publisher grew or shrank (MQ-221).
    pub(crate) subscriptions: bool,
    /// The budget of the context ceased to be used up (MQ-066): wake those who wait for it, of all sockets.
    pub(crate) budget_freed: bool,
    /// A message was queued for a connection whose writing was noted before. Nothing is to be done.
    pub(crate) behind: bool,
}

impl<L> Effects<L> {
    pub(crate) const fn new() -> Self {
        Self {
            list: Vec::new(),
            receivers: 0,
            senders: 0,
            all_senders: false,
            subscriptions: false,
            budget_freed: false,
            behind: false,
        }
    }

    /// Whether there is nothing to do.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
            && self.receivers == 0
            && self.senders == 0
            && !self.all_senders
            && !self.subscriptions
            && !self.budget_freed
    }

    /// Gives everything to `spare`, which must be empty, and goes on with its memory.
    #[inline]
    pub(crate) fn take_into(&mut self, spare: &mut Self) {
        std::mem::swap(self, spare);
        self.clear();
    }

    /// Forgets everything, keeps the memory.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.receivers = 0;
        self.senders = 0;
        self.all_senders = false;
        self.subscriptions = false;
        self.budget_freed = false;
        self.behind = false;
    }

    /// Notes room for `count` more messages.
    #[inline]
    pub(crate) fn room_for(&mut self, count: usize) {
        self.senders = self.senders.saturating_add(count);
    }
}
