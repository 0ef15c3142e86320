//! DEALER: sends to peers in turn, receives from peers in turn, leaves the parts alone (6.5).

use tidegate_io::{message::Message, packed::Packed, peer::PeerKey};

use super::{
    Pattern,
    envelope::Payload,
    lanes::{Incoming, Outgoing},
};
use crate::state::{Core, Origin, RecvRefusal, SendRefusal, Violation};

#[derive(Debug, Default)]
pub(super) struct Dealer {
    out: Outgoing,
    incoming: Incoming,
}

impl Dealer {
    /// An established outgoing connection is lost: the application may be told by a message (MQ-214).
    fn hiccup<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey) {
        let dialed = core.pipe(key).is_some_and(|pipe| pipe.origin == Origin::Dialed);
        if dialed && !core.settings.hiccup.is_empty() {
            let mut hiccup = Payload::single(core.settings.hiccup.clone());
            self.incoming.arrived(core, key, &mut hiccup);
        }
    }
}

impl<L: Clone> Pattern<L> for Dealer {
    fn opened(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.join(core, key);
    }

    fn lost(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.hiccup(core, key);
    }

    fn closing(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.leave(core, key);
    }

    fn gone(&mut self, core: &mut Core<L>, key: PeerKey) {
        if core.settings.requeue_on_loss {
            self.out.requeue(core, key);
        }
    }

    fn forget_received(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.incoming.forget(core, key);
    }

    fn idle(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.leave(core, key);
    }

    fn room(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.join(core, key);
    }

    fn received(&mut self, core: &mut Core<L>, key: PeerKey, payload: &mut Payload) -> Result<(), Violation> {
        self.incoming.arrived(core, key, payload);
        Ok(())
    }

    fn received_many(
        &mut self,
        core: &mut Core<L>,
        key: PeerKey,
        arrivals: &mut Packed,
    ) -> Result<(), Violation> {
        self.incoming.arrived_many(core, key, arrivals);
        Ok(())
    }

    fn send(&mut self, core: &mut Core<L>, message: &mut Message) -> Result<(), SendRefusal> {
        self.out.send(core, message).map(drop)
    }

    fn recv(&mut self, core: &mut Core<L>, place: &mut Message) -> Result<PeerKey, RecvRefusal> {
        self.incoming.next(core, place)
    }

    fn is_readable(&self, _core: &Core<L>) -> bool {
        !self.incoming.is_empty()
    }

    fn room_to_keep(&self, core: &Core<L>) -> Result<usize, SendRefusal> {
        Ok(core.room())
    }

    fn is_writable(&self, core: &Core<L>) -> bool {
        !self.out.is_mute(core)
    }
}
