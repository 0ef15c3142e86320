//! SUB: receives what it subscribed to (6.9).

use tidegate_io::{
    message::{Message, Part},
    packed::Packed,
    peer::PeerKey,
};

use super::{Extras, Pattern, envelope::Payload, interest::Interest, lanes::Incoming};
use crate::state::{Core, RecvRefusal, Refusal, Violation};

#[derive(Debug, Default)]
pub(super) struct Sub {
    interest: Interest,
    incoming: Incoming,
}

impl<L: Clone> Pattern<L> for Sub {
    fn up(&mut self, core: &mut Core<L>, key: PeerKey) -> Result<(), Refusal> {
        self.interest.up(core, key);
        Ok(())
    }

    fn lost(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.interest.down(core, key);
    }

    fn closing(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.interest.down(core, key);
    }

    fn forget_received(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.incoming.forget(core, key);
    }

    /// Publishers may lag behind cancellations, or not filter at all (MQ-233).
    fn received(&mut self, core: &mut Core<L>, key: PeerKey, payload: &mut Payload) -> Result<(), Violation> {
        let subject = payload.parts().first().map(Part::as_slice).unwrap_or_default();
        if self.interest.wants(subject) == core.settings.invert_matching {
            core.drop_received(key, payload);
        } else {
            self.incoming.arrived(core, key, payload);
        }
        Ok(())
    }

    fn received_many(
        &mut self,
        core: &mut Core<L>,
        key: PeerKey,
        arrivals: &mut Packed,
    ) -> Result<(), Violation> {
        while core.takes_more(key) && !arrivals.is_empty() {
            if self.interest.wants(arrivals.first_part()) == core.settings.invert_matching {
                core.drop_first(key, arrivals);
            } else {
                self.incoming.arrived_first(core, key, arrivals);
            }
        }
        Ok(())
    }

    fn recv(&mut self, core: &mut Core<L>, place: &mut Message) -> Result<PeerKey, RecvRefusal> {
        self.incoming.next(core, place)
    }

    fn is_readable(&self, _core: &Core<L>) -> bool {
        !self.incoming.is_empty()
    }

    fn extras(&mut self) -> Extras<'_> {
        Extras::Subscriber(&mut self.interest)
    }
}
