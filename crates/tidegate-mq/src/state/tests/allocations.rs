//! No message allocates once the queues have grown to their working size.

use allocation_counter::measure;

use super::*;

const ROUNDS: usize = 1000;

/// A socket with three peers, and the memory that its owner lends it.
struct Bench {
    rig: Rig,
    peers: Vec<Peer>,
    effects: Effects<u32>,
    taken: Packed,
    /// One part that is shared, not inline.
    body: Part,
}

impl Bench {
    fn new(kind: SocketType) -> Self {
        let mut rig = Rig::new(kind);
        let peers: Vec<Peer> =
            ["A", "B", "C"].iter().map(|identity| rig.try_accept(identity)).filter_map(Result::ok).collect();
        for peer in &peers {
            if kind.takes_subscriptions() {
                assert_eq!(rig.subscribe(*peer, ""), Received::Taken);
            }
        }
        let _ = rig.state.subscribe(Bytes::new());
        Self {
            rig,
            peers,
            effects: Effects::new(),
            taken: Packed::new(),
            body: Part::from(Bytes::from(vec![b'x'; 100])),
        }
    }

    fn settle(&mut self) {
        self.rig.state.effects().take_into(&mut self.effects);
        self.effects.clear();
    }

    /// Sends one message and writes whatever is queued.
    fn send(&mut self, parts: &[Part]) {
        let mut message: Message = parts.iter().cloned().collect();
        self.rig.state.send(&mut message).expect("room");
        self.settle();
        self.write();
    }

    fn write(&mut self) {
        for peer in &self.peers {
            let most = Most { messages: 16, bytes: 1 << 16 };
            self.rig.state.take_outbound(peer.key, peer.epoch, most, &mut self.taken);
            self.taken.clear();
        }
    }

    /// Receives one message from each peer and reads them.
    fn receive(&mut self, parts: &[Part]) {
        for at in 0..self.peers.len() {
            let peer = self.peers[at];
            let message: Message = parts.iter().cloned().collect();
            assert_eq!(self.rig.state.received(peer.key, peer.epoch, message), Received::Taken);
            self.settle();
        }
        for _ in 0..self.peers.len() {
            let mut received = Message::new();
            self.rig.state.recv(&mut received).expect("what was received");
            self.settle();
        }
    }

    /// Allocations of a thousand steps, after a few.
    fn allocations(mut self, mut step: impl FnMut(&mut Self)) -> u64 {
        (0..10).for_each(|_| step(&mut self));
        measure(|| (0..ROUNDS).for_each(|_| step(&mut self))).count_total
    }
}

/// Rules: MQ-025, MQ-213, MQ-075.
#[test]
fn sending_allocates_nothing() {
    use SocketType::{Dealer, Pair, Pub, Push, Router, XPub, XSub};
    for kind in [Push, Dealer, Pair, Pub, XPub, XSub] {
        let bench = Bench::new(kind);
        let parts = [bench.body.clone()];
        assert_eq!(bench.allocations(|bench| bench.send(&parts)), 0, "{kind:?}");
    }
    let bench = Bench::new(Router);
    let parts = [Part::from("B"), bench.body.clone()];
    assert_eq!(bench.allocations(|bench| bench.send(&parts)), 0);
}

/// Rules: MQ-025.
#[test]
fn receiving_allocates_nothing() {
    use SocketType::{Dealer, Pair, Pull, Router, Sub, XPub, XSub};
    for kind in [Pull, Dealer, Pair, Router, Sub, XSub, XPub] {
        let bench = Bench::new(kind);
        let parts = [bench.body.clone()];
        let mut bench = bench;
        while bench.rig.state.recv(&mut Message::new()).is_ok() {}
        assert_eq!(bench.allocations(|bench| bench.receive(&parts)), 0, "{kind:?}");
    }
}

/// Rules: MQ-025.
#[test]
fn asking_and_answering_allocate_nothing() {
    let ask = Bench::new(SocketType::Req);
    let parts = [Part::EMPTY, ask.body.clone()];
    let mut turn = 0;
    let allocations = ask.allocations(|bench| {
        bench.send(&parts[1..]);
        let peer = bench.peers[turn % 3];
        turn += 1;
        let reply: Message = parts.iter().cloned().collect();
        assert_eq!(bench.rig.state.received(peer.key, peer.epoch, reply), Received::Taken);
        bench.rig.state.recv(&mut Message::new()).expect("answered");
        bench.settle();
    });
    assert_eq!(allocations, 0);

    let answer = Bench::new(SocketType::Rep);
    let allocations = answer.allocations(|bench| {
        let peer = bench.peers[1];
        let request: Message = parts.iter().cloned().collect();
        assert_eq!(bench.rig.state.received(peer.key, peer.epoch, request), Received::Taken);
        bench.rig.state.recv(&mut Message::new()).expect("asked");
        bench.send(&parts[1..]);
    });
    assert_eq!(allocations, 0);
}
