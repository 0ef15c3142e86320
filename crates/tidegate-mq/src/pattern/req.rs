//! REQ: asks, then waits for the answer (6.3).
//!
//! Whatever is not the awaited reply is dropped when it arrives, so that nothing has to be thrown away later: a reply
//! that was not read is the only one that is kept.

use tidegate_io::{
    message::Message,
    peer::{Epoch, PeerKey},
};

use super::{
    Pattern,
    envelope::{Body, Parcel, Payload, ReplyHead, RequestId},
    lanes::Outgoing,
};
use crate::state::{Core, Held, OnPeerLoss, RecvRefusal, SendRefusal, Violation};

#[derive(Debug)]
pub(super) struct Req {
    out: Outgoing,
    /// Id of the next request (MQ-193).
    next_id: u32,
    state: Exchange,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one per socket, and a box would be an allocation per request")]
enum Exchange {
    Idle,
    Waiting(Waiting),
    /// The peer was lost; the next receive says so (MQ-197).
    Failed,
}

#[derive(Debug)]
struct Waiting {
    /// The pipe that carries the request, and its stamp. None while the request waits to be sent anew.
    carrier: Option<(PeerKey, Epoch)>,
    id: Option<RequestId>,
    /// The request, where it may be sent anew.
    copy: Option<Payload>,
    resent: u32,
    reply: Option<(Body, Held)>,
}

impl Req {
    pub(super) fn new(seed: u32) -> Self {
        Self { out: Outgoing::default(), next_id: seed, state: Exchange::Idle }
    }

    /// The pipe will not bring the reply any more.
    fn lost_carrier<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey) {
        let Exchange::Waiting(waiting) = &mut self.state else { return };
        if waiting.reply.is_some() || waiting.carrier.is_none_or(|(carrier, _)| carrier != key) {
            return;
        }
        match core.settings.req_on_peer_loss {
            OnPeerLoss::Resend if waiting.copy.is_some() => {
                waiting.carrier = None;
                self.resend(core);
            }
            OnPeerLoss::Wait | OnPeerLoss::Resend => {}
            OnPeerLoss::Fail => self.fail(core),
        }
    }

    /// Sends the request anew if it waits for that and there is a peer.
    fn resend<L: Clone>(&mut self, core: &mut Core<L>) {
        let Exchange::Waiting(waiting) = &mut self.state else { return };
        let (None, Some(copy)) = (waiting.carrier, &waiting.copy) else { return };
        if waiting.resent >= core.settings.req_resend_max {
            return self.fail(core);
        }
        let mut message = copy.clone().into_message();
        let placed = self.out.place(core, |core, key| core.enqueue(key, Parcel::verbatim(&mut message)));
        if let Ok(key) = placed {
            waiting.carrier = Some((key, core.born(key)));
            waiting.resent += 1;
        }
    }

    fn fail<L: Clone>(&mut self, core: &mut Core<L>) {
        self.state = Exchange::Failed;
        core.effects.receivers += 1;
    }

    /// Ends the exchange; a reply that was not read is dropped.
    fn forget<L: Clone>(&mut self, core: &mut Core<L>) {
        if let Exchange::Waiting(Waiting { carrier: Some(carrier), reply: Some((_, held)), .. }) =
            std::mem::replace(&mut self.state, Exchange::Idle)
        {
            core.let_go(carrier, held, false);
        }
    }

    /// Begins an exchange. With room that was promised it begins whatever has become of that.
    fn ask<L: Clone>(
        &mut self,
        core: &mut Core<L>,
        message: &mut Message,
        promised: bool,
    ) -> Result<(), SendRefusal> {
        let id = core.settings.req_correlate.then_some(RequestId(self.next_id));
        let keeps = id.is_some() && core.settings.req_on_peer_loss == OnPeerLoss::Resend;
        let mut copy = None;
        let mut envelop = || {
            let request = Body::new(std::mem::take(message)).into_request(id);
            copy = keeps.then(|| request.clone());
            request
        };
        let placed = self.out.send_by(core, |core, key| core.enqueue(key, envelop().parcel()));
        let key = match (placed, promised) {
            (Ok(key), _) => Some(key),
            (Err(refusal), false) => return Err(refusal),
            (Err(_), true) => {
                let mut request = envelop();
                let open = core.any_open();
                match open {
                    // Full by a lowered limit, or by bytes: one more than allowed is what was promised.
                    Some(key) => drop(core.enqueue(key, request.parcel())),
                    // Lost with the peer that had the room.
                    None => core.count_unroutable(),
                }
                open
            }
        };
        self.next_id = self.next_id.wrapping_add(1);
        self.forget(core);
        // Who waits to ask may not any more, and is told so.
        core.effects.all_senders |= !core.settings.req_relaxed;
        let carrier = key.map(|key| (key, core.born(key)));
        self.state = Exchange::Waiting(Waiting { carrier, id, copy, resent: 0, reply: None });
        if carrier.is_none() && core.settings.req_on_peer_loss == OnPeerLoss::Fail {
            self.fail(core);
        }
        Ok(())
    }

    fn may_send<L: Clone>(&self, core: &Core<L>) -> bool {
        matches!(self.state, Exchange::Idle) || core.settings.req_relaxed
    }
}

impl<L: Clone> Pattern<L> for Req {
    fn opened(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.join(core, key);
        self.resend(core);
    }

    fn lost(&mut self, core: &mut Core<L>, key: PeerKey) {
        // The request is the last that was queued: while anything is queued, it is, and goes by the next connection.
        if core.pipe(key).is_some_and(|pipe| pipe.is_drained()) {
            self.lost_carrier(core, key);
        }
    }

    fn closing(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.leave(core, key);
        self.lost_carrier(core, key);
    }

    fn forget_received(&mut self, core: &mut Core<L>, key: PeerKey) {
        if let Exchange::Waiting(waiting) = &mut self.state
            && let Some(carrier) = waiting.carrier.filter(|(carrier, _)| *carrier == key)
            && let Some((_, held)) = waiting.reply.take()
        {
            core.let_go(carrier, held, false);
            self.lost_carrier(core, key);
        }
    }

    fn idle(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.leave(core, key);
    }

    fn room(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.out.join(core, key);
        self.resend(core);
    }

    fn received(&mut self, core: &mut Core<L>, key: PeerKey, payload: &mut Payload) -> Result<(), Violation> {
        let Some(head) = ReplyHead::of(payload) else {
            let is_inproc = core.pipe(key).is_some_and(|pipe| pipe.is_inproc());
            core.drop_received(key, payload);
            return if is_inproc { Ok(()) } else { Err(Violation::MalformedReply) };
        };
        let from = (key, core.born(key));
        match &mut self.state {
            Exchange::Waiting(waiting)
                if waiting.carrier == Some(from) && waiting.id == head.id && waiting.reply.is_none() =>
            {
                let held = Held::of(payload);
                core.hold(key, held);
                waiting.reply = Some((head.strip(payload.take()), held));
                core.effects.receivers += 1;
            }
            _ => core.drop_received(key, payload),
        }
        Ok(())
    }

    fn send(&mut self, core: &mut Core<L>, message: &mut Message) -> Result<(), SendRefusal> {
        if !self.may_send(core) {
            return Err(SendRefusal::WrongState);
        }
        self.ask(core, message, false)
    }

    /// One exchange at a time.
    fn room_to_keep(&self, core: &Core<L>) -> Result<usize, SendRefusal> {
        if !self.may_send(core) {
            return Err(SendRefusal::WrongState);
        }
        Ok(usize::from(core.room() > 0))
    }

    fn send_promised(&mut self, core: &mut Core<L>, message: &mut Message) {
        // Refuses nothing that was promised.
        let _ = self.ask(core, message, true);
        // Others that have waited meanwhile find an exchange under way.
        core.effects.room_for(core.room());
    }

    fn recv(&mut self, core: &mut Core<L>, place: &mut Message) -> Result<PeerKey, RecvRefusal> {
        match &mut self.state {
            Exchange::Idle => Err(RecvRefusal::WrongState),
            Exchange::Failed => {
                self.state = Exchange::Idle;
                Err(RecvRefusal::PeerLost)
            }
            Exchange::Waiting(waiting) => {
                let (Some(carrier), Some((body, held))) = (waiting.carrier, waiting.reply.take()) else {
                    return Err(RecvRefusal::WouldBlock);
                };
                self.state = Exchange::Idle;
                core.let_go(carrier, held, true);
                *place = body.into_message();
                Ok(carrier.0)
            }
        }
    }

    fn is_readable(&self, _core: &Core<L>) -> bool {
        match &self.state {
            Exchange::Idle => false,
            Exchange::Waiting(waiting) => waiting.reply.is_some(),
            Exchange::Failed => true,
        }
    }

    fn is_writable(&self, core: &Core<L>) -> bool {
        self.may_send(core) && !self.out.is_mute(core)
    }
}
