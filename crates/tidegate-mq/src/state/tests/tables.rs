//! The tables of 6.5, 6.6, 6.11 and 6.12, told naively, against the state machine.

use proptest::prelude::*;

use super::{
    model::{ModelPipe, Pipes, ReceiveLane, SendLane, Step, Table, run},
    *,
};

pub(super) const FULL: SendRefusal = SendRefusal::WouldBlock(Awaited::Room);

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any::<Step>(), 0..250)
}

/// Limits of sending and receiving, from none to a few messages.
pub(super) fn limits() -> impl Strategy<Value = (usize, usize)> {
    (0_usize..6, 0_usize..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Rules: MQ-189, MQ-191, MQ-192, MQ-241, MQ-242, MQ-068, MQ-070.
    #[test]
    fn push_follows_its_table(bits in 0_u8..2, limits in limits(), steps in steps()) {
        run::<Push>(bits, limits, &steps);
    }

    /// Rules: MQ-188, MQ-191, MQ-241, MQ-062, MQ-068.
    #[test]
    fn pull_follows_its_table(limits in limits(), steps in steps()) {
        run::<Pull>(0, limits, &steps);
    }

    /// Rules: MQ-191, MQ-203, MQ-182, MQ-184.
    #[test]
    fn dealer_follows_its_table(bits in 0_u8..2, limits in limits(), steps in steps()) {
        run::<Dealer>(bits, limits, &steps);
    }

    /// Rules: MQ-191, MQ-245, MQ-246, MQ-247.
    #[test]
    fn pair_follows_its_table(limits in limits(), steps in steps()) {
        run::<Pair>(0, limits, &steps);
    }

    /// Rules: MQ-191, MQ-206, MQ-208, MQ-209, MQ-210, MQ-211, MQ-069.
    #[test]
    fn router_follows_its_table(bits in 0_u8..16, limits in limits(), steps in steps()) {
        run::<Router>(bits, limits, &steps);
    }
}

#[derive(Default)]
struct Push(SendLane);

impl Table for Push {
    const KIND: SocketType = SocketType::Push;

    fn options(settings: &mut Settings, bits: u8) {
        settings.requeue_on_loss = bits & 1 == 1;
    }

    fn opened(&mut self, pipes: &mut Pipes, at: usize) {
        self.0.join(pipes, at);
    }

    fn up(&mut self, pipes: &mut Pipes, at: usize) -> bool {
        self.0.join(pipes, at);
        true
    }

    fn closing(&mut self, _: &mut Pipes, at: usize) {
        self.0.0.leave(at);
    }

    fn gone(&mut self, pipes: &mut Pipes, at: usize) {
        requeue(&mut self.0, pipes, at);
    }

    fn room(&mut self, pipes: &mut Pipes, at: usize) {
        self.0.join(pipes, at);
    }

    fn received(&mut self, _: &mut Pipes, _: usize, _: Frames) -> Result<(), Violation> {
        Err(Violation::UnexpectedData)
    }

    fn send(&mut self, pipes: &mut Pipes, parts: Frames) -> Result<(), SendRefusal> {
        self.0.send(pipes, parts).map(drop).ok_or(FULL)
    }
}

fn requeue(lane: &mut SendLane, pipes: &mut Pipes, from: usize) {
    while pipes.settings.requeue_on_loss && !lane.0.0.is_empty() {
        let Some(parts) = pipes.all[from].out.pop_front() else { return };
        lane.send(pipes, parts);
    }
}

#[derive(Default)]
struct Pull(ReceiveLane);

impl Table for Pull {
    const KIND: SocketType = SocketType::Pull;

    fn opened(&mut self, _: &mut Pipes, _: usize) {}

    fn up(&mut self, _: &mut Pipes, _: usize) -> bool {
        true
    }

    fn closing(&mut self, _: &mut Pipes, _: usize) {}

    fn forget_received(&mut self, _: &mut Pipes, at: usize) {
        self.0.0.leave(at);
    }

    fn received(&mut self, pipes: &mut Pipes, at: usize, parts: Frames) -> Result<(), Violation> {
        self.0.arrive(pipes, at, parts);
        Ok(())
    }

    fn recv(&mut self, pipes: &mut Pipes) -> Result<Frames, RecvRefusal> {
        self.0.next(pipes).map(|(_, parts)| parts).ok_or(RecvRefusal::WouldBlock)
    }
}

#[derive(Default)]
struct Dealer {
    out: Push,
    incoming: Pull,
}

impl Table for Dealer {
    const KIND: SocketType = SocketType::Dealer;

    fn options(settings: &mut Settings, bits: u8) {
        Push::options(settings, bits);
    }

    fn opened(&mut self, pipes: &mut Pipes, at: usize) {
        self.out.opened(pipes, at);
    }

    fn up(&mut self, pipes: &mut Pipes, at: usize) -> bool {
        self.out.up(pipes, at)
    }

    fn closing(&mut self, pipes: &mut Pipes, at: usize) {
        self.out.closing(pipes, at);
    }

    fn gone(&mut self, pipes: &mut Pipes, at: usize) {
        self.out.gone(pipes, at);
    }

    fn forget_received(&mut self, pipes: &mut Pipes, at: usize) {
        self.incoming.forget_received(pipes, at);
    }

    fn room(&mut self, pipes: &mut Pipes, at: usize) {
        self.out.room(pipes, at);
    }

    fn received(&mut self, pipes: &mut Pipes, at: usize, parts: Frames) -> Result<(), Violation> {
        self.incoming.received(pipes, at, parts)
    }

    fn send(&mut self, pipes: &mut Pipes, parts: Frames) -> Result<(), SendRefusal> {
        self.out.send(pipes, parts)
    }

    fn recv(&mut self, pipes: &mut Pipes) -> Result<Frames, RecvRefusal> {
        self.incoming.recv(pipes)
    }
}

#[derive(Default)]
struct Pair {
    partner: Option<usize>,
    former: Vec<usize>,
}

impl Table for Pair {
    const KIND: SocketType = SocketType::Pair;

    fn opened(&mut self, _: &mut Pipes, at: usize) {
        self.partner.get_or_insert(at);
    }

    fn up(&mut self, _: &mut Pipes, at: usize) -> bool {
        *self.partner.get_or_insert(at) == at
    }

    fn closing(&mut self, _: &mut Pipes, at: usize) {
        if self.partner == Some(at) {
            self.partner = None;
            self.former.push(at);
        }
    }

    fn received(&mut self, pipes: &mut Pipes, at: usize, parts: Frames) -> Result<(), Violation> {
        pipes.arrive(at, parts);
        Ok(())
    }

    fn send(&mut self, pipes: &mut Pipes, parts: Frames) -> Result<(), SendRefusal> {
        let partner = self.partner.filter(|at| pipes.all[*at].takes()).ok_or(FULL)?;
        pipes.queue(partner, parts);
        Ok(())
    }

    fn recv(&mut self, pipes: &mut Pipes) -> Result<Frames, RecvRefusal> {
        let mut order = self.former.iter().chain(&self.partner);
        let from = order.find(|at| !pipes.all[**at].inbound.is_empty()).ok_or(RecvRefusal::WouldBlock)?;
        Ok(pipes.read(*from))
    }
}

struct Router {
    incoming: ReceiveLane,
    routes: Vec<RouterRow>,
    /// What messages of a pipe are labelled with, as they arrive.
    labels: Vec<(usize, Vec<u8>)>,
    next_id: u32,
}

struct RouterRow {
    id: Vec<u8>,
    pipe: usize,
    live: bool,
    assigned: bool,
}

impl Default for Router {
    fn default() -> Self {
        Self { incoming: ReceiveLane::default(), routes: Vec::new(), labels: Vec::new(), next_id: 7 }
    }
}

impl Router {
    fn arrive(&mut self, pipes: &mut Pipes, at: usize, mut parts: Frames) {
        parts.insert(0, self.label_of(at).expect("labelled when it came up").clone());
        self.incoming.arrive(pipes, at, parts);
    }

    fn label_of(&self, at: usize) -> Option<&Vec<u8>> {
        self.labels.iter().rev().find(|(pipe, _)| *pipe == at).map(|(_, label)| label)
    }

    fn farewell(&mut self, pipes: &mut Pipes, at: usize) {
        if pipes.settings.notify_disconnect {
            self.arrive(pipes, at, vec![Vec::new()]);
        }
    }

    fn row_of(&self, at: usize) -> Option<usize> {
        self.routes.iter().position(|row| row.pipe == at)
    }
}

impl Table for Router {
    const KIND: SocketType = SocketType::Router;

    fn options(settings: &mut Settings, bits: u8) {
        settings.router_handover = bits & 1 != 0;
        settings.router_mandatory = bits & 2 != 0;
        settings.notify_connect = bits & 4 != 0;
        settings.notify_disconnect = bits & 8 != 0;
    }

    fn outgoing(&self, _: &Pipes, a: u8, number: u32) -> Frames {
        let known = self.routes.get(usize::from(a) % (self.routes.len() + 2)).map(|row| row.id.clone());
        let mut parts = vec![known.unwrap_or_else(|| b"B".to_vec())];
        if a < 250 {
            parts.push(format!("out {number}").into_bytes());
        }
        parts
    }

    /// Connects with a routing id of our choice.
    fn special(&mut self, rig: &mut Rig, pipes: &mut Pipes, a: u8, _: u8) {
        let id = [b"A", b"B", b"X"][usize::from(a) % 3].to_vec();
        let result = rig.state.open_pipe(Some(Part::copy_from(&id)));
        let in_use = self.routes.iter().any(|row| row.id == id);
        match result {
            Err(refusal) => assert!(in_use && refusal == Refusal::RoutingIdInUse),
            Ok(key) => {
                assert!(!in_use);
                pipes.all.push(ModelPipe::new(key, true, ""));
                self.routes.push(RouterRow { id, pipe: pipes.all.len() - 1, live: false, assigned: true });
            }
        }
    }

    fn opened(&mut self, _: &mut Pipes, _: usize) {}

    fn up(&mut self, pipes: &mut Pipes, at: usize) -> bool {
        let identity = pipes.all[at].identity.clone().into_bytes();
        let keeps = self.row_of(at).filter(|row| {
            let row = &self.routes[*row];
            row.assigned || identity.is_empty() || row.id == identity
        });
        let row = if let Some(row) = keeps {
            let mut row = self.routes.remove(row);
            row.live = true;
            row
        } else {
            if let Some(row) = self.row_of(at) {
                self.routes.remove(row);
                pipes.drop_queued(at);
            }
            let id = if identity.is_empty() {
                let id = [&[0], self.next_id.to_be_bytes().as_slice()].concat();
                self.next_id += 1;
                id
            } else {
                identity.clone()
            };
            if let Some(held) = self.routes.iter().position(|row| row.id == id) {
                let holder = &self.routes[held];
                if !(pipes.settings.router_handover || !holder.live && !holder.assigned) {
                    return false;
                }
                let old = self.routes.remove(held);
                if old.live {
                    self.farewell(pipes, old.pipe);
                    (pipes.all[old.pipe].open, pipes.all[old.pipe].cut) = (false, true);
                }
                pipes.drop_queued(old.pipe);
            }
            RouterRow { id, pipe: at, live: true, assigned: false }
        };
        if self.label_of(at).is_some_and(|label| *label != row.id) {
            hand_down(&mut self.incoming, pipes, at);
        }
        self.labels.push((at, row.id.clone()));
        self.routes.push(row);
        if pipes.settings.notify_connect {
            self.arrive(pipes, at, vec![Vec::new()]);
        }
        true
    }

    fn lost(&mut self, pipes: &mut Pipes, at: usize) {
        if let Some(row) = self.row_of(at)
            && std::mem::take(&mut self.routes[row].live)
        {
            self.farewell(pipes, at);
        }
    }

    fn closing(&mut self, pipes: &mut Pipes, at: usize) {
        if let Some(row) = self.row_of(at)
            && self.routes.remove(row).live
        {
            self.farewell(pipes, at);
        }
    }

    fn forget_received(&mut self, _: &mut Pipes, at: usize) {
        self.incoming.0.leave(at);
    }

    fn received(&mut self, pipes: &mut Pipes, at: usize, parts: Frames) -> Result<(), Violation> {
        self.arrive(pipes, at, parts);
        Ok(())
    }

    fn has_to_wait(&self, pipes: &Pipes, parts: &[Vec<u8>]) -> bool {
        let route = self.routes.iter().find(|row| row.id == parts[0]);
        pipes.settings.router_mandatory && route.is_some_and(|row| !pipes.all[row.pipe].takes())
    }

    fn send(&mut self, pipes: &mut Pipes, mut parts: Frames) -> Result<(), SendRefusal> {
        let id = parts.remove(0);
        match self.routes.iter().find(|row| row.id == id).map(|row| row.pipe) {
            None if pipes.settings.router_mandatory => return Err(SendRefusal::HostUnreachable),
            Some(at) if !parts.is_empty() && pipes.all[at].takes() => pipes.queue(at, parts),
            Some(at) if !parts.is_empty() && pipes.settings.router_mandatory => {
                return Err(SendRefusal::WouldBlock(Awaited::RoomOn(pipes.all[at].peer.key)));
            }
            _ => {}
        }
        Ok(())
    }

    fn recv(&mut self, pipes: &mut Pipes) -> Result<Frames, RecvRefusal> {
        self.incoming.next(pipes).map(|(_, parts)| parts).ok_or(RecvRefusal::WouldBlock)
    }

    fn check(&mut self, rig: &mut Rig, pipes: &Pipes) {
        for row in &self.routes {
            let pipe = &pipes.all[row.pipe];
            let state = rig.state.peer_state(&row.id).expect("a ROUTER").expect("the id is known");
            let expected = Readiness { readable: !pipe.inbound.is_empty(), writable: pipe.takes() };
            assert_eq!(state, expected, "state of {:?}", row.id);
        }
        assert_eq!(rig.state.peer_state(b"nobody"), Ok(None));
    }
}

/// What was received stays readable, apart from the pipe.
pub(super) fn hand_down(lane: &mut ReceiveLane, pipes: &mut Pipes, from: usize) {
    let mut heir = ModelPipe::new(PeerKey::new(u32::MAX), false, "");
    (heir.retired, heir.open) = (true, false);
    heir.inbound = std::mem::take(&mut pipes.all[from].inbound);
    pipes.all[from].inbound_full = false;
    lane.0.leave(from);
    if !heir.inbound.is_empty() {
        pipes.all.push(heir);
        lane.0.join(pipes.all.len() - 1);
    }
}
