//! The two lanes that most types are made of: out to one peer after the other, in from one peer after the other.
//!
//! Places in the rings are stamped with the pipe's own epoch, so that a pipe keeps its turn when its connection is
//! replaced; that news is of the present connection was seen to before it gets here.

use tidegate_io::{hub::Rotation, message::Message, packed::Packed, peer::PeerKey};

use super::envelope::{Parcel, Payload};
use crate::state::{Awaited, Core, RecvRefusal, SendRefusal};

/// Sending to peers in turn: the send rows of the table of 6.5.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// The pipes with room.
    open: Rotation,
}

impl Outgoing {
    /// The pipe is new or has room again.
    pub(super) fn join<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey) {
        let Some(pipe) = core.pipe(key) else { return };
        if !pipe.is_writable() {
            return;
        }
        let (born, room) = (pipe.born, pipe.room());
        self.open.join(key, born);
        core.effects.room_for(room);
    }

    /// The pipe takes no more messages.
    pub(super) fn leave<L: Clone>(&mut self, core: &Core<L>, key: PeerKey) {
        self.open.leave(key, core.born(key));
    }

    /// Queues the message on the pipe whose turn it is, and says which that was. Without one the message is left as it is.
    #[inline]
    pub(super) fn send<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        message: &mut Message,
    ) -> Result<PeerKey, SendRefusal> {
        self.send_by(core, |core, key| core.enqueue(key, Parcel::verbatim(message)))
    }

    /// Has `enqueue` queue a message on the pipe whose turn it is, and says which that was.
    #[inline]
    pub(super) fn send_by<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        enqueue: impl FnOnce(&mut Core<L>, PeerKey) -> bool,
    ) -> Result<PeerKey, SendRefusal> {
        // Which says nothing of any pipe: they keep their turns.
        if core.is_over_budget() {
            return Err(SendRefusal::WouldBlock(Awaited::Room));
        }
        self.place(core, enqueue)
    }

    /// The same for a message that was queued before.
    #[inline]
    pub(super) fn place<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        enqueue: impl FnOnce(&mut Core<L>, PeerKey) -> bool,
    ) -> Result<PeerKey, SendRefusal> {
        let has_room = |key| core.pipe(key).is_some_and(|pipe| pipe.is_writable());
        let Some((key, ())) = self.open.next(|key, _| has_room(key).then_some(())) else {
            return Err(SendRefusal::WouldBlock(Awaited::Room));
        };
        if !enqueue(core, key) {
            self.open.leave(key, core.born(key));
        }
        Ok(key)
    }

    /// Whether nothing can be sent.
    pub(super) fn is_mute<L: Clone>(&self, core: &Core<L>) -> bool {
        self.open.is_empty() || core.is_over_budget()
    }

    /// Moves what is queued on a pipe that is gone to the others, as far as they have room (MQ-244).
    pub(super) fn requeue<L: Clone>(&mut self, core: &mut Core<L>, from: PeerKey) {
        while !self.open.is_empty() {
            let Some(payload) = core.recall(from) else { return };
            let mut message = payload.into_message();
            // A pipe found full on the way leaves the ring; the message is then counted as discarded with its pipe.
            let _ = self.place(core, |core, key| core.enqueue(key, Parcel::verbatim(&mut message)));
        }
    }
}

/// Receiving from peers in turn: the receive rows of the table of 6.5.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// The pipes with messages.
    filled: Rotation,
}

impl Incoming {
    /// Queues a message that arrived on the pipe.
    #[inline]
    pub(super) fn arrived<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey, payload: &mut Payload) {
        core.arrive(key, payload);
        self.filled.join(key, core.born(key));
    }

    /// Queues messages that arrived on the pipe, until its queue is full.
    #[inline]
    pub(super) fn arrived_many<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey, arrivals: &mut Packed) {
        if core.arrive_many(key, arrivals) {
            self.filled.join(key, core.born(key));
        }
    }

    /// Queues the first of the messages that arrived on the pipe.
    #[inline]
    pub(super) fn arrived_first<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        key: PeerKey,
        arrivals: &mut Packed,
    ) {
        core.arrive_first(key, arrivals);
        self.filled.join(key, core.born(key));
    }

    /// A pipe that came to have messages otherwise.
    pub(super) fn adopt<L: Clone>(&mut self, core: &Core<L>, key: PeerKey) {
        self.filled.join(key, core.born(key));
    }

    /// What was received on the pipe is dropped.
    pub(super) fn forget<L: Clone>(&mut self, core: &Core<L>, key: PeerKey) {
        self.filled.leave(key, core.born(key));
    }

    /// Takes the next message from the pipe whose turn it is, and says which that was.
    #[inline]
    pub(super) fn next<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        place: &mut Message,
    ) -> Result<PeerKey, RecvRefusal> {
        let (key, more) = self.filled.next(|key, _| core.pop(key, place)).ok_or(RecvRefusal::WouldBlock)?;
        if !more {
            self.filled.leave(key, core.born(key));
        }
        Ok(key)
    }

    /// Whether no pipe has a message.
    pub(super) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }
}
