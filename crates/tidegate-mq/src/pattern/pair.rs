//! PAIR: one peer, both ways, blocking (6.12).
//!
//! The *partner* is the pipe that counts, connected or not. Messages of former partners are read first.

use std::collections::VecDeque;

use tidegate_io::{message::Message, packed::Packed, peer::PeerKey};

use super::{
    Pattern,
    envelope::{Parcel, Payload},
};
use crate::state::{Awaited, Core, RecvRefusal, Refusal, SendRefusal, Violation};

#[derive(Debug, Default)]
pub(super) struct Pair {
    partner: Option<PeerKey>,
    /// Former partners with messages to be read, oldest first.
    former: VecDeque<PeerKey>,
}

impl Pair {
    fn pair_with<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.partner = Some(key);
        let room = core.pipe(key).map_or(0, |pipe| pipe.room());
        core.effects.room_for(room);
    }
}

impl<L: Clone> Pattern<L> for Pair {
    fn opened(&mut self, core: &mut Core<L>, key: PeerKey) {
        if self.partner.is_none() {
            self.pair_with(core, key);
        }
    }

    fn admit(&mut self, _core: &mut Core<L>, key: PeerKey, _routing_id: &[u8]) -> Result<(), Refusal> {
        if self.partner.is_some_and(|partner| partner != key) { Err(Refusal::PairBusy) } else { Ok(()) }
    }

    fn up(&mut self, core: &mut Core<L>, key: PeerKey) -> Result<(), Refusal> {
        match self.partner {
            Some(partner) if partner != key => Err(Refusal::PairBusy),
            Some(_) => Ok(()),
            None => {
                self.pair_with(core, key);
                Ok(())
            }
        }
    }

    fn closing(&mut self, core: &mut Core<L>, key: PeerKey) {
        if self.partner == Some(key) {
            self.partner = None;
            if core.pipe(key).is_some_and(|pipe| pipe.has_received()) {
                self.former.push_back(key);
            }
        }
    }

    fn forget_received(&mut self, _core: &mut Core<L>, key: PeerKey) {
        self.former.retain(|former| *former != key);
    }

    fn room(&mut self, core: &mut Core<L>, key: PeerKey) {
        if self.partner == Some(key) {
            self.pair_with(core, key);
        }
    }

    fn received(&mut self, core: &mut Core<L>, key: PeerKey, payload: &mut Payload) -> Result<(), Violation> {
        core.arrive(key, payload);
        Ok(())
    }

    fn received_many(
        &mut self,
        core: &mut Core<L>,
        key: PeerKey,
        arrivals: &mut Packed,
    ) -> Result<(), Violation> {
        core.arrive_many(key, arrivals);
        Ok(())
    }

    fn send(&mut self, core: &mut Core<L>, message: &mut Message) -> Result<(), SendRefusal> {
        match self.partner.filter(|partner| core.is_writable(*partner)) {
            Some(partner) => {
                core.enqueue(partner, Parcel::verbatim(message));
                Ok(())
            }
            None => Err(SendRefusal::WouldBlock(Awaited::Room)),
        }
    }

    fn recv(&mut self, core: &mut Core<L>, place: &mut Message) -> Result<PeerKey, RecvRefusal> {
        while let Some(&former) = self.former.front() {
            let received = core.pop(former, place);
            if received != Some(true) {
                self.former.pop_front();
            }
            if received.is_some() {
                return Ok(former);
            }
        }
        let partner = self.partner.ok_or(RecvRefusal::WouldBlock)?;
        core.pop(partner, place).map(|_| partner).ok_or(RecvRefusal::WouldBlock)
    }

    fn is_readable(&self, core: &Core<L>) -> bool {
        let has_received = |key: &PeerKey| core.pipe(*key).is_some_and(|pipe| pipe.has_received());
        self.former.iter().chain(&self.partner).any(has_received)
    }

    fn room_to_keep(&self, core: &Core<L>) -> Result<usize, SendRefusal> {
        Ok(self.partner.and_then(|partner| core.pipe(partner)).map_or(0, |pipe| pipe.room()))
    }

    fn send_promised(&mut self, core: &mut Core<L>, message: &mut Message) {
        match self.partner {
            // Full by a lowered limit, or by bytes: one more than allowed is what was promised.
            Some(partner) => {
                core.enqueue(partner, Parcel::verbatim(message));
            }
            None => {
                core.count_unroutable();
                message.clear();
            }
        }
    }

    fn is_writable(&self, core: &Core<L>) -> bool {
        self.partner.is_some_and(|partner| core.is_writable(partner))
    }
}
