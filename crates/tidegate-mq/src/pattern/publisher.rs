//! PUB: hands each message to all who subscribed, and never waits for them (6.7).

use bytes::Bytes;
use tidegate_io::{message::Message, peer::PeerKey};

use super::{
    Extras, Pattern,
    envelope::Payload,
    fanout::{Change, Fanout},
};
use crate::state::{CloseCause, Core, Held, Refusal, SendRefusal, Violation};

#[derive(Debug, Default)]
pub(super) struct Publisher {
    fanout: Fanout,
}

impl Publisher {
    fn publish<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        message: &mut Message,
        promised: bool,
    ) -> Result<(), SendRefusal> {
        self.fanout.publish(core, message, None, promised)?;
        while let Some(key) = self.fanout.next_slow() {
            self.fanout.down(core, key, |_, _| {});
            core.cut(key, CloseCause::SlowSubscriber);
        }
        Ok(())
    }
}

impl<L: Clone> Pattern<L> for Publisher {
    fn up(&mut self, core: &mut Core<L>, key: PeerKey) -> Result<(), Refusal> {
        self.fanout.up(core, key);
        Ok(())
    }

    fn lost(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.fanout.down(core, key, |_, _| {});
        core.discard_outbound(key);
    }

    fn closing(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.fanout.down(core, key, |_, _| {});
    }

    fn room(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.fanout.room(core, key);
    }

    fn received(&mut self, core: &mut Core<L>, key: PeerKey, payload: &mut Payload) -> Result<(), Violation> {
        let only_first = core.settings.only_first_subscribe;
        let held = Held::of(payload);
        let rest =
            Change::extract(payload.take().into_message(), only_first, |change, topic| match change {
                Change::Subscribe => self.fanout.subscribe(core, key, &topic).map(drop),
                Change::Cancel => {
                    self.fanout.cancel(core, key, &topic);
                    Ok(())
                }
            })?;
        if rest.is_empty() {
            core.consumed(key, held.retained());
        } else {
            core.drop_received_as(key, held);
        }
        Ok(())
    }

    fn subscribed(&mut self, core: &mut Core<L>, key: PeerKey, topic: Bytes) -> Result<(), Violation> {
        self.fanout.subscribe(core, key, &topic).map(drop)
    }

    fn cancelled(&mut self, core: &mut Core<L>, key: PeerKey, topic: Bytes) -> Result<(), Violation> {
        self.fanout.cancel(core, key, &topic);
        Ok(())
    }

    fn send(&mut self, core: &mut Core<L>, message: &mut Message) -> Result<(), SendRefusal> {
        self.publish(core, message, false)
    }

    fn room_to_keep(&self, core: &Core<L>) -> Result<usize, SendRefusal> {
        Ok(self.fanout.room_to_keep(core))
    }

    fn send_promised(&mut self, core: &mut Core<L>, message: &mut Message) {
        // Refuses nothing that was promised.
        let _ = self.publish(core, message, true);
    }

    fn is_writable(&self, core: &Core<L>) -> bool {
        self.fanout.is_writable(core)
    }

    fn extras(&mut self) -> Extras<'_> {
        Extras::Publisher(&mut self.fanout)
    }
}
