//! The two lanes that most types are made of: out to one peer after the other, in from one peer after the other.
//!
//! Places in the rings are stamped with the pipe's own epoch, so that a pipe keeps its turn when its connection is
//! replaced; that news is of the present connection was seen to before it gets here.

use tidegate_io::{
    hub::{FairQueue, LoadBalancer, Offer},
    message::Message,
    packed::Packed,
    peer::PeerKey,
};

use super::envelope::{Parcel, Payload};
use crate::state::{Awaited, Core, RecvRefusal, SendRefusal};

/// Sending to peers in turn: the send rows of the table of 6.5.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    balancer: LoadBalancer,
}

impl Outgoing {
    /// The pipe is new or has room again.
    pub(super) fn join<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey) {
        let Some(pipe) = core.pipe(key) else { return };
        if !pipe.is_writable() {
            return;
        }
        let (born, room) = (pipe.born, pipe.room());
        self.balancer.activate(key, born);
        core.effects.room_for(room);
    }

    /// The pipe takes no more messages.
    pub(super) fn leave<L: Clone>(&mut self, core: &Core<L>, key: PeerKey) {
        self.balancer.deactivate(key, core.born(key));
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
        let writable = |key, _, ()| if core.is_writable(key) { Offer::Taken } else { Offer::Full(()) };
        let Ok(key) = self.balancer.send((), writable) else {
            return Err(SendRefusal::WouldBlock(Awaited::Room));
        };
        if !enqueue(core, key) {
            self.balancer.deactivate(key, core.born(key));
        }
        Ok(key)
    }

    /// Whether no pipe has room.
    pub(super) fn is_mute(&self) -> bool {
        self.balancer.is_empty()
    }

    /// Moves what is queued on a pipe that is gone to the others, as far as they have room (MQ-244).
    pub(super) fn requeue<L: Clone>(&mut self, core: &mut Core<L>, from: PeerKey) {
        while !self.is_mute() {
            let Some(payload) = core.recall(from) else { return };
            let mut message = payload.into_message();
            // A pipe found full on the way leaves the ring; the message is then counted as discarded with its pipe.
            let _ = self.send(core, &mut message);
        }
    }
}

/// Receiving from peers in turn: the receive rows of the table of 6.5.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    queue: FairQueue,
}

impl Incoming {
    /// Queues a message that arrived on the pipe.
    #[inline]
    pub(super) fn arrived<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey, payload: &mut Payload) {
        core.arrive(key, payload);
        self.queue.activate(key, core.born(key));
    }

    /// Queues messages that arrived on the pipe, until its queue is full.
    #[inline]
    pub(super) fn arrived_many<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey, arrivals: &mut Packed) {
        if core.arrive_many(key, arrivals) {
            self.queue.activate(key, core.born(key));
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
        self.queue.activate(key, core.born(key));
    }

    /// A pipe that came to have messages otherwise.
    pub(super) fn adopt<L: Clone>(&mut self, core: &Core<L>, key: PeerKey) {
        self.queue.activate(key, core.born(key));
    }

    /// What was received on the pipe is dropped.
    pub(super) fn forget<L: Clone>(&mut self, core: &Core<L>, key: PeerKey) {
        self.queue.deactivate(key, core.born(key));
    }

    /// Takes the next message from the pipe whose turn it is, and says which that was.
    #[inline]
    pub(super) fn next<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        place: &mut Message,
    ) -> Result<PeerKey, RecvRefusal> {
        let (key, more) = self.queue.next(|key, _| core.pop(key, place)).ok_or(RecvRefusal::WouldBlock)?;
        if !more {
            self.queue.deactivate(key, core.born(key));
        }
        Ok(key)
    }

    /// Whether no pipe has a message.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
