//! ROUTER: addresses peers by routing id, labels what it receives with the id of the peer it came from (6.6).
//!
//! Which id leads where is the [`RoutingTable`]'s affair; a pipe carries the label of its present or last connection,
//! so that what an old connection left is read under the id it came by.

use tidegate_io::{
    hub::{Claim, Route, RouteState, RoutingTable, Up},
    message::{Message, Part},
    packed::Packed,
    peer::PeerKey,
};

use super::{
    Extras, Pattern,
    envelope::{Addressed, Payload},
    lanes::Incoming,
};
use crate::state::{
    Awaited, CloseCause, Core, Effect, Origin, Readiness, RecvRefusal, Refusal, SendRefusal, Violation,
};

#[derive(Debug)]
pub(crate) struct Router {
    incoming: Incoming,
    routes: RoutingTable,
    /// Number in the routing id generated next (MQ-128).
    next_id: u32,
}

impl Router {
    pub(super) fn new(seed: u32) -> Self {
        Self { incoming: Incoming::default(), routes: RoutingTable::new(), next_id: seed }
    }

    /// What may be done with the peer of this routing id; none when there is no such peer (MQ-212).
    pub(crate) fn peer_state<L: Clone>(&self, core: &Core<L>, routing_id: &[u8]) -> Option<Readiness> {
        let pipe = core.pipe(self.routes.route(routing_id)?.key)?;
        Some(Readiness { readable: pipe.has_received() || pipe.has_offers(), writable: pipe.is_writable() })
    }

    /// Another connection took the routing id, or the pipe has another one now.
    fn displaced<L: Clone>(&mut self, core: &mut Core<L>, route: Route) {
        match route.state {
            RouteState::Live => {
                self.farewell(core, route.key);
                core.cut(route.key, CloseCause::Replaced);
            }
            RouteState::Pending => core.discard_outbound(route.key),
        }
        core.effects.list.push(Effect::WakeFor(route.key));
    }

    /// What was queued for the former id of this pipe has no receiver.
    fn renamed<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey) {
        core.discard_outbound(key);
        core.effects.list.push(Effect::WakeFor(key));
    }

    /// Labels what the pipe will receive. What it received under another label keeps that.
    fn label<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey, id: Part) {
        if core.pipe(key).is_some_and(|pipe| pipe.label != id)
            && let Some(heir) = core.hand_down_received(key)
        {
            self.incoming.forget(core, key);
            self.incoming.adopt(core, heir);
        }
        if let Some(pipe) = core.pipe_mut(key) {
            pipe.label = id;
        }
    }

    /// A peer that was there is lost: the application may be told by messages (MQ-211, MQ-214).
    fn farewell<L: Clone>(&mut self, core: &mut Core<L>, key: PeerKey) {
        let accepted = core.pipe(key).is_some_and(|pipe| pipe.origin == Origin::Accepted);
        if accepted && !core.settings.disconnect.is_empty() {
            let mut farewell = Payload::single(core.settings.disconnect.clone());
            self.incoming.arrived(core, key, &mut farewell);
        }
        if core.settings.notify_disconnect {
            self.incoming.arrived(core, key, &mut Payload::single(Part::EMPTY));
        }
    }

    fn is_live<L: Clone>(&self, core: &Core<L>, key: PeerKey) -> bool {
        let route = self.routes.id(key).and_then(|id| self.routes.route(id));
        route.is_some_and(|route| route.state == RouteState::Live && route.epoch == core.epoch(key))
    }
}

impl<L: Clone> Pattern<L> for Router {
    fn assign(&mut self, _core: &mut Core<L>, key: PeerKey, routing_id: Part) -> Result<(), Refusal> {
        match self.routes.reserve(routing_id, key) {
            Claim::Reserved => Ok(()),
            Claim::InUse => Err(Refusal::RoutingIdInUse),
        }
    }

    fn admit(&mut self, core: &mut Core<L>, key: PeerKey, routing_id: &[u8]) -> Result<(), Refusal> {
        if !self.routes.refuses(key, routing_id, core.settings.router_handover) {
            return Ok(());
        }
        if self.routes.forget(key).is_some() {
            self.renamed(core, key);
        }
        Err(Refusal::RoutingIdInUse)
    }

    fn up(&mut self, core: &mut Core<L>, key: PeerKey) -> Result<(), Refusal> {
        let Some(pipe) = core.pipe(key) else { return Err(Refusal::Gone) };
        let (epoch, peer) = (pipe.epoch, pipe.peer.clone());
        let identity = peer.as_ref().map(|peer| peer.routing_id.as_ref()).unwrap_or_default();
        let generate = || {
            let id = self.next_id;
            self.next_id = id.wrapping_add(1);
            let mut octets = [0; 5];
            octets[1..].copy_from_slice(&id.to_be_bytes());
            Part::from(&octets)
        };
        match self.routes.up(key, epoch, identity, core.settings.router_handover, generate) {
            Up::Live { id, renamed, replaced } => {
                if renamed {
                    self.renamed(core, key);
                }
                if let Some(route) = replaced {
                    self.displaced(core, route);
                }
                self.label(core, key, id);
                // With `router_mandatory` the socket may have become writable by this.
                core.effects.room_for(1);
                if core.settings.notify_connect {
                    self.incoming.arrived(core, key, &mut Payload::single(Part::EMPTY));
                }
                Ok(())
            }
            Up::Refused { renamed, .. } => {
                if renamed {
                    self.renamed(core, key);
                }
                Err(Refusal::RoutingIdInUse)
            }
            Up::Stale => Err(Refusal::Gone),
        }
    }

    fn lost(&mut self, core: &mut Core<L>, key: PeerKey) {
        if self.is_live(core, key) {
            self.routes.down(key, core.epoch(key), true);
            self.farewell(core, key);
        }
    }

    fn closing(&mut self, core: &mut Core<L>, key: PeerKey) {
        let was_live = self.is_live(core, key);
        if self.routes.forget(key).is_some() {
            core.effects.list.push(Effect::WakeFor(key));
        }
        if was_live {
            self.farewell(core, key);
        }
    }

    fn forget_received(&mut self, core: &mut Core<L>, key: PeerKey) {
        self.incoming.forget(core, key);
    }

    fn room(&mut self, core: &mut Core<L>, key: PeerKey) {
        core.effects.list.push(Effect::WakeFor(key));
        core.effects.room_for(1);
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
        let mandatory = core.settings.router_mandatory;
        let addressed = Addressed::new(message);
        let Some(Route { key, .. }) = self.routes.route(addressed.to()) else {
            if mandatory {
                return Err(SendRefusal::HostUnreachable);
            }
            core.count_unroutable();
            addressed.strip();
            return Ok(());
        };
        let has_room = if mandatory { core.has_room_left(key) } else { core.is_writable(key) };
        if !addressed.has_payload() {
            core.count_unroutable();
            addressed.strip();
        } else if has_room {
            core.enqueue(key, addressed.strip().parcel());
        } else if mandatory {
            return Err(SendRefusal::WouldBlock(Awaited::RoomOn(key)));
        } else {
            core.count_missed(key);
            addressed.strip();
        }
        Ok(())
    }

    fn recv(&mut self, core: &mut Core<L>, place: &mut Message) -> Result<PeerKey, RecvRefusal> {
        let key = self.incoming.next(core, place)?;
        place.push_front(core.pipe(key).map(|pipe| pipe.label.clone()).unwrap_or_default());
        Ok(key)
    }

    fn is_readable(&self, _core: &Core<L>) -> bool {
        !self.incoming.is_empty()
    }

    fn is_writable(&self, core: &Core<L>) -> bool {
        !core.settings.router_mandatory || self.routes.iter().any(|(_, route)| core.has_room_left(route.key))
    }

    fn extras(&mut self) -> Extras<'_> {
        Extras::Router(self)
    }
}
