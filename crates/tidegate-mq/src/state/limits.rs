//! Limits that change under way, and the accounts of in-process links (MQ-270, MQ-299).
//!
//! What the far socket of a link has consumed comes back as credit, LWM messages (or half the bytes) at a time, by the
//! sum of both ends' limits. Each end therefore knows the limits of the other, and tells when its own change.

use std::mem;

use tidegate_io::{peer::PeerKey, queue::Capacity};

use super::{
    core::Core,
    effects::{Credit, Effect, LinkLimits},
    peer::SocketType,
    settings::in_a_row,
};

impl<L: Clone> Core<L> {
    /// The limits of the pipe, as the far end of an in-process link needs them. A queue that conflates has none (MQ-250).
    pub(crate) fn link_limits(&self, key: PeerKey) -> LinkLimits {
        let (out, inbound) =
            self.pipe(key).map_or((false, false), |pipe| (pipe.out_conflates, pipe.inbound_conflates));
        let limit = |conflates, capacity| if conflates { Capacity::UNLIMITED } else { capacity };
        LinkLimits {
            version: self.limits_version,
            send: limit(out, self.settings.send),
            receive: limit(inbound, self.settings.receive),
        }
    }

    /// The far end of an in-process link has these limits, unless newer ones of it are known: threads that tell of them may
    /// overtake each other.
    pub(super) fn set_far_limits(&mut self, key: PeerKey, theirs: LinkLimits) {
        let own = self.link_limits(key);
        let Some(pipe) = self.pipes.get_mut(key) else { return };
        let (Some(far), Some(link)) = (&mut pipe.far, &pipe.link) else { return };
        if theirs.version < far.theirs.version {
            return;
        }
        far.sending = in_a_row(own.send, theirs.receive);
        far.receiving = in_a_row(theirs.send, own.receive);
        far.theirs = theirs;
        // With other limits the batches of credit are other ones: give what is due by the old.
        let credit = mem::take(&mut far.consumed);
        if credit != Credit::default() {
            self.effects.list.push(Effect::Credit { link: link.clone(), credit });
        }
    }

    /// The limits of this socket changed: every pipe gets them, and the far ends of in-process links are told.
    pub(super) fn apply_limits(&mut self, key: PeerKey) {
        let own = self.link_limits(key);
        let Some(pipe) = self.pipes.get_mut(key) else { return };
        match (&pipe.far, &pipe.link) {
            (Some(far), Some(link)) => {
                let (link, theirs) = (link.clone(), far.theirs);
                self.effects.list.push(Effect::Limits { link, limits: own });
                self.set_far_limits(key, theirs);
            }
            _ => {
                pipe.out.set_capacity(own.send);
                pipe.inbound.set_capacity(own.receive);
                // What an XPUB has unread is not in the pipes: it judges that itself.
                if pipe.paused && !pipe.inbound.is_full() && self.kind != SocketType::XPub {
                    self.resume(key);
                }
            }
        }
    }

    /// The far socket has consumed so much.
    pub(super) fn credit(&mut self, key: PeerKey, credit: Credit) {
        if let Some(far) = self.pipe_mut(key).and_then(|pipe| pipe.far.as_mut()) {
            far.in_flight.messages = far.in_flight.messages.saturating_sub(credit.messages);
            far.in_flight.bytes = far.in_flight.bytes.saturating_sub(credit.bytes);
        }
    }

    /// Accounts for a message of an in-process link that is no longer held, and gives credit for a batch of them.
    pub(crate) fn consumed(&mut self, key: PeerKey, retained: usize) {
        let Some(pipe) = self.pipes.get_mut(key) else { return };
        let (Some(far), Some(link)) = (&mut pipe.far, &pipe.link) else { return };
        far.consumed.messages += 1;
        far.consumed.bytes += retained;
        let Capacity { messages, bytes } = far.receiving;
        let is_due = |consumed: usize, limit: usize| limit != 0 && consumed >= limit.div_ceil(2);
        if is_due(far.consumed.messages, messages) || is_due(far.consumed.bytes, bytes) {
            let credit = mem::take(&mut far.consumed);
            self.effects.list.push(Effect::Credit { link: link.clone(), credit });
        }
    }
}
