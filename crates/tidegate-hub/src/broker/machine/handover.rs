//! Handover: a channel moves to another block (15). The broker records and relays; the old block decides.

use std::time::Duration;

use super::{Answer, Asked, Machine, Output, Refused, registry::Handover};
use crate::broker::wire::{
    ChannelName, Code, EventBody, HandoverAck, HandoverCancel, HandoverNotify, HandoverPhase, ReplyBody,
};

impl Machine {
    pub(super) fn handover_notify(
        &mut self,
        body: &HandoverNotify,
        asked: &Asked<'_>,
        outputs: &mut Vec<Output>,
    ) -> Answer {
        let name = &body.old_channel;
        let Some(entry) = self.registry.find(name) else {
            return Err(self.unknown(name));
        };
        self.check_owner(entry, asked)?;
        self.check_registrant(entry, asked)?;
        if entry.register.block_uuid != body.old_uuid {
            return Err(Refused::new(
                Code::StaleOwner,
                format!("channel {name} has another block than old_uuid"),
            ));
        }
        if let Some(other) = self.registry.channel_of(body.new_uuid)
            && (other != name || body.new_uuid == body.old_uuid)
        {
            let message = format!("block {} is in use already; make a new block to move to", body.new_uuid);
            return Err(Refused::new(Code::UuidReused, message));
        }
        let known = entry.handover.as_ref().map(|handover| &handover.notify);
        if let Some(known) = known
            && (body.handover_epoch < known.handover_epoch
                || body.handover_epoch == known.handover_epoch && body.new_uuid != known.new_uuid)
        {
            let message =
                format!("handover_epoch {} is not newer than {}", body.handover_epoch, known.handover_epoch);
            return Err(Refused::new(Code::BadRequest, message));
        }
        let notify = HandoverNotify { secret_proof: None, ..body.clone() };
        let is_same = known.is_some_and(|known| known.new_uuid == notify.new_uuid);
        match self.registry.find_mut(name).and_then(|entry| entry.handover.as_mut()) {
            // Said once more, after a cut that was told.
            Some(handover) if is_same && handover.notify.phase == HandoverPhase::Cutover => {}
            Some(handover) if is_same => handover.notify = notify.clone(),
            _ => self.registry.set_handover(name, Some(Handover { notify: notify.clone(), successor: None })),
        }
        self.promote(name, asked.now.monotonic);
        // Without CURVE nothing protects it on the way to all (15.2).
        let sealed_secret = notify.sealed_secret.clone().filter(|_| asked.origin.key.is_some());
        let event = HandoverNotify { sealed_secret, ..notify };
        self.publish(name, EventBody::HandoverNotify(Box::new(event)), asked.now, outputs);
        Ok(ReplyBody::Nothing)
    }

    pub(super) fn handover_ack(
        &mut self,
        body: &HandoverAck,
        asked: &Asked<'_>,
        outputs: &mut Vec<Output>,
    ) -> Answer {
        let name = &body.channel_name;
        if self.registry.find(name).is_none() {
            return Err(self.unknown(name));
        }
        self.publish(name, EventBody::HandoverAck(body.clone()), asked.now, outputs);
        Ok(ReplyBody::Nothing)
    }

    /// A stale epoch is ignored (DH-229), and so is a cancellation after the cut.
    pub(super) fn handover_cancel(
        &mut self,
        body: &HandoverCancel,
        asked: &Asked<'_>,
        outputs: &mut Vec<Output>,
    ) -> Answer {
        let name = &body.channel_name;
        let Some(entry) = self.registry.find(name) else {
            return Err(self.unknown(name));
        };
        self.check_owner(entry, asked)?;
        self.check_registrant(entry, asked)?;
        let is_meant = entry.handover.as_ref().is_some_and(|handover| {
            handover.notify.handover_epoch == body.handover_epoch
                && handover.notify.phase == HandoverPhase::Prepare
        });
        if is_meant {
            self.registry.set_handover(name, None);
            let event = HandoverCancel { secret_proof: None, ..body.clone() };
            self.publish(name, EventBody::HandoverCancel(event), asked.now, outputs);
        }
        Ok(ReplyBody::Nothing)
    }

    /// Makes the successor the channel, once it is registered and the cut was made.
    pub(super) fn promote(&mut self, name: &ChannelName, now: Duration) {
        let handover = self.registry.find(name).and_then(|entry| entry.handover.as_ref());
        let is_cut = handover.is_some_and(|handover| {
            handover.notify.phase == HandoverPhase::Cutover && handover.notify.new_channel == *name
        });
        if is_cut {
            self.registry.promote(name, now);
        }
    }
}
