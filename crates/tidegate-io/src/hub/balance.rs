//! See [`LoadBalancer`].

use super::ring::Ring;
use crate::peer::{Epoch, PeerKey};

/// What a pipe said when a message was offered to it.
#[derive(Debug)]
pub enum Offer<M> {
    /// It took the message.
    Taken,
    /// It is full, and gives the message back.
    Full(M),
    /// There is no such connection any more; here is the message.
    Gone(M),
}

/// Sends whole messages to peers in turn (MQ-189).
///
/// Only peers with room are in the ring. One found full leaves until [`activate`](Self::activate) says that it has room
/// again; one found gone is removed on the spot (MQ-070).
#[derive(Debug, Default)]
pub struct LoadBalancer {
    ring: Ring,
}

impl LoadBalancer {
    /// No peers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of peers with room.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether no peer has room: the socket is mute.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The peer is new or has room again: it joins at the end unless it is in the ring already.
    pub fn activate(&mut self, key: PeerKey, epoch: Epoch) {
        self.ring.join(key, epoch);
    }

    /// The peer is gone, or full. Ignored with a stale epoch.
    pub fn deactivate(&mut self, key: PeerKey, epoch: Epoch) {
        self.ring.leave(key, epoch);
    }

    /// Whether the peer is in the ring.
    pub fn contains(&self, key: PeerKey, epoch: Epoch) -> bool {
        self.ring.contains(key, epoch)
    }

    /// The peer that is offered the next message.
    pub fn current(&self) -> Option<(PeerKey, Epoch)> {
        self.ring.current()
    }

    /// Offers a message to one peer after the other, each at most once, until one takes it. Returns who did.
    ///
    /// # Errors
    ///
    /// The message itself when nobody has room.
    pub fn send<M>(
        &mut self,
        message: M,
        mut offer: impl FnMut(PeerKey, Epoch, M) -> Offer<M>,
    ) -> Result<PeerKey, M> {
        let mut message = message;
        while let Some((key, epoch)) = self.ring.current() {
            match offer(key, epoch, message) {
                Offer::Taken => {
                    self.ring.advance();
                    return Ok(key);
                }
                Offer::Full(back) | Offer::Gone(back) => message = back,
            }
            self.ring.leave(key, epoch);
        }
        Err(message)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn key(index: usize) -> PeerKey {
        PeerKey::new(index as u32)
    }

    /// Rules: MQ-070.
    #[test]
    fn with_nobody_the_message_comes_back() {
        let mut balancer = LoadBalancer::new();
        assert_eq!(balancer.send("message", |_, _, _| Offer::Taken), Err("message"));
        assert_eq!(balancer.current(), None);
    }

    /// Rules: MQ-189.
    #[test]
    fn peers_with_room_take_turns() {
        let mut balancer = LoadBalancer::new();
        (0..3).for_each(|index| balancer.activate(key(index), Epoch::ZERO));
        let mut turns = Vec::new();
        for _ in 0..7 {
            turns.push(balancer.send((), |_, _, ()| Offer::Taken).map(PeerKey::index).unwrap());
        }
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Send,
        Credit(usize, usize),
        Vanish(usize),
        Down(usize),
        Up(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => Just(Step::Send),
            2 => (0usize..6, 1usize..4).prop_map(|(peer, room)| Step::Credit(peer, room)),
            1 => (0usize..6).prop_map(Step::Vanish),
            1 => (0usize..6).prop_map(Step::Down),
            2 => (0usize..6, 0usize..4).prop_map(|(peer, room)| Step::Up(peer, room)),
        ]
    }

    proptest! {
        /// Against a list that is rotated by hand. Peers vanish without a word as well.
        ///
        /// Rules: MQ-068, MQ-070, MQ-189, MQ-192, MQ-468.
        #[test]
        fn behaves_as_the_model(steps in prop::collection::vec(step(), 0..300)) {
            let mut balancer = LoadBalancer::new();
            let mut epochs = [Epoch::ZERO; 6];
            let mut room: [Option<usize>; 6] = [None; 6];
            let mut ring: VecDeque<usize> = VecDeque::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Send => {
                        let mut expected = Err(number);
                        while let Some(peer) = ring.pop_front() {
                            if room[peer].is_some_and(|room| room > 0) {
                                expected = Ok(key(peer));
                                ring.push_back(peer);
                                break;
                            }
                        }
                        let mut offers = 0;
                        let sent = balancer.send(number, |key, epoch, message| {
                            offers += 1;
                            assert_eq!(epoch, epochs[key.index()]);
                            match &mut room[key.index()] {
                                None => Offer::Gone(message),
                                Some(0) => Offer::Full(message),
                                Some(room) => {
                                    *room -= 1;
                                    Offer::Taken
                                }
                            }
                        });
                        prop_assert_eq!(sent, expected);
                        prop_assert!(offers <= 6);
                    }
                    Step::Credit(peer, more) => {
                        if let Some(room) = &mut room[peer] {
                            *room += more;
                            balancer.activate(key(peer), epochs[peer]);
                            if !ring.contains(&peer) {
                                ring.push_back(peer);
                            }
                        }
                    }
                    Step::Vanish(peer) => room[peer] = None,
                    Step::Down(peer) => {
                        room[peer] = None;
                        balancer.deactivate(key(peer), epochs[peer]);
                        ring.retain(|&other| other != peer);
                    }
                    Step::Up(peer, more) => {
                        let old = epochs[peer];
                        epochs[peer] = old.next();
                        room[peer] = Some(more);
                        balancer.activate(key(peer), epochs[peer]);
                        // A late word of the connection before.
                        balancer.deactivate(key(peer), old);
                        if !ring.contains(&peer) {
                            ring.push_back(peer);
                        }
                    }
                }
                prop_assert_eq!(balancer.len(), ring.len());
                prop_assert_eq!(balancer.current().map(|(key, _)| key.index()), ring.front().copied());
            }
        }
    }
}
