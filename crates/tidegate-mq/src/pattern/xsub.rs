//! XSUB: subscribes by messages, sends user messages upstream, filters nothing (6.10).

use std::convert::Infallible;

use tidegate_io::{message::Message, packed::Packed, peer::PeerKey};

use super::{
    Extras, Pattern,
    envelope::{Parcel, Payload},
    fanout::Change,
    interest::Interest,
    lanes::Incoming,
};
use crate::state::{Core, RecvRefusal, Refusal, SendRefusal, Violation};

#[derive(Debug, Default)]
pub(super) struct XSub {
    interest: Interest,
    incoming: Incoming,
    /// Publishers that get the user message in hand.
    chosen: Vec<PeerKey>,
}

impl XSub {
    /// A user message goes to every publisher with room (MQ-239).
    fn send_upstream<L: Clone>(&mut self, core: &mut Core<L>, message: &mut Message) {
        self.chosen.clear();
        self.chosen.extend(self.interest.publishers());
        self.chosen.retain(|&key| {
            let takes = core.is_writable(key);
            if !takes {
                core.count_missed(key);
            }
            takes
        });
        if let Some((last, others)) = self.chosen.split_last() {
            for key in others {
                core.enqueue(*key, Parcel::copy(message));
            }
            core.enqueue(*last, Parcel::verbatim(message));
        }
    }
}

impl<L: Clone> Pattern<L> for XSub {
    fn up(&mut self, core: &mut Core<L>, key: PeerKey) -> Result<(), Refusal> {
        self.interest.up(core, key);
        Ok(())
    }

    fn lost(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.interest.down(core, key);
        // User messages go to publishers that are there; they do not wait for one to return.
        core.discard_outbound(key);
    }

    fn closing(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.interest.down(core, key);
    }

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

    fn send(&mut self, core: &mut Core<L>, message: &mut Message) -> Result<(), SendRefusal> {
        let (repeat, always) = (true, core.settings.verbose_unsubscribe);
        let only_first = core.settings.only_first_subscribe;
        let rest = Change::extract(std::mem::take(message), only_first, |change, topic| {
            match change {
                Change::Subscribe => self.interest.add(core, topic, repeat),
                Change::Cancel => self.interest.remove(core, topic, always),
            }
            Ok::<(), Infallible>(())
        });
        match rest {
            Ok(mut rest) if !rest.is_empty() => self.send_upstream(core, &mut rest),
            Ok(_) => {}
            Err(never) => match never {},
        }
        Ok(())
    }

    fn recv(&mut self, core: &mut Core<L>, place: &mut Message) -> Result<PeerKey, RecvRefusal> {
        self.incoming.next(core, place)
    }

    fn is_readable(&self, _core: &Core<L>) -> bool {
        !self.incoming.is_empty()
    }

    fn is_writable(&self, _core: &Core<L>) -> bool {
        true
    }

    fn extras(&mut self) -> Extras<'_> {
        Extras::Subscriber(&mut self.interest)
    }
}
