//! PUSH: hands messages to peers in turn, blocks when none has room (6.11).

use tidegate_io::{message::Message, peer::PeerKey};

use super::{Pattern, envelope::Payload, lanes::Outgoing};
use crate::state::{Core, SendRefusal, Violation};

#[derive(Debug, Default)]
pub(super) struct Push {
    out: Outgoing,
}

impl<L: Clone> Pattern<L> for Push {
    fn opened(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.join(core, key);
    }

    fn closing(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.leave(core, key);
    }

    fn gone(&mut self, core: &mut Core<L>, key: PeerKey) {
        if core.settings.requeue_on_loss {
            self.out.requeue(core, key);
        }
    }

    fn idle(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.leave(core, key);
    }

    fn room(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.join(core, key);
    }

    fn received(&mut self, core: &mut Core<L>, key: PeerKey, payload: &mut Payload) -> Result<(), Violation> {
        core.drop_received(key, payload);
        Err(Violation::UnexpectedData)
    }

    fn send(&mut self, core: &mut Core<L>, message: &mut Message) -> Result<(), SendRefusal> {
        self.out.send(core, message).map(drop)
    }

    fn room_to_keep(&self, core: &Core<L>) -> Result<usize, SendRefusal> {
        Ok(core.room())
    }

    fn is_writable(&self, core: &Core<L>) -> bool {
        !self.out.is_mute(core)
    }
}
