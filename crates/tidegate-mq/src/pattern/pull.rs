//! PULL: takes messages from peers in strict rotation (6.11).

use tidegate_io::{message::Message, packed::Packed, peer::PeerKey};

use super::{Pattern, envelope::Payload, lanes::Incoming};
use crate::state::{Core, RecvRefusal, Violation};

#[derive(Debug, Default)]
pub(super) struct Pull {
    incoming: Incoming,
}

impl<L: Clone> Pattern<L> for Pull {
    fn forget_received(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.incoming.forget(core, key);
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

    fn recv(&mut self, core: &mut Core<L>, place: &mut Message) -> Result<PeerKey, RecvRefusal> {
        self.incoming.next(core, place)
    }

    fn is_readable(&self, _core: &Core<L>) -> bool {
        !self.incoming.is_empty()
    }
}
