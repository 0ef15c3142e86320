//! Tests of the state machine: random runs against the tables of chapter 6, and named cases.

mod allocations;
mod cases;
mod model;
mod pubsub_cases;
mod pubsub_tables;
mod reqrep_cases;
mod reqrep_tables;
mod returns;
mod router_cases;
mod tables;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tidegate_io::{
    message::{Message, Part},
    peer::{Epoch, PeerKey},
    queue::Capacity,
};
use tidegate_zmtp::{greeting::Version, metadata::Metadata};

use super::*;

/// Parts of a message, for comparison.
pub(super) type Frames = Vec<Vec<u8>>;

pub(super) fn frames(message: &Message) -> Frames {
    message.parts().iter().map(|part| part.to_vec()).collect()
}

pub(super) fn message(frames: &[&[u8]]) -> Message {
    frames.iter().map(|frame| Part::copy_from(frame)).collect()
}

/// Limits in messages only.
pub(super) fn messages(messages: usize) -> Capacity {
    Capacity { messages, bytes: 0 }
}

/// A connection of a fake peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) key: PeerKey,
    pub(super) epoch: Epoch,
}

/// A state whose links are numbers, with what is convenient in tests.
pub(super) struct Rig {
    pub(super) state: State<u32>,
    links: u32,
}

impl Rig {
    pub(super) fn new(kind: SocketType) -> Self {
        Self::with(kind, |_| {})
    }

    pub(super) fn with(kind: SocketType, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        set(&mut settings);
        Self { state: State::new(kind, settings, 7), links: 0 }
    }

    pub(super) fn arrival(&mut self, origin: Origin, identity: &str) -> Arrival<u32> {
        self.links += 1;
        let peer = peer_info(self.state.kind(), identity);
        Arrival { origin, peer: Arc::new(peer), link: self.links, assigned: None, far: None }
    }

    /// A peer connects to us.
    pub(super) fn try_accept(&mut self, identity: &str) -> Result<Peer, Refusal> {
        let arrival = self.arrival(Origin::Accepted, identity);
        self.state.pipe_up(None, arrival).map(|(key, epoch)| Peer { key, epoch })
    }

    pub(super) fn accept(&mut self) -> Peer {
        self.try_accept("").expect("let in")
    }

    /// We connect; the connection is not up yet.
    pub(super) fn dial(&mut self) -> PeerKey {
        self.state.open_pipe(None).expect("no routing id, no conflict")
    }

    /// The connection of a dialed pipe comes up.
    pub(super) fn try_up(&mut self, key: PeerKey, identity: &str) -> Result<Peer, Refusal> {
        let arrival = self.arrival(Origin::Dialed, identity);
        self.state.pipe_up(Some(key), arrival).map(|(key, epoch)| Peer { key, epoch })
    }

    pub(super) fn up(&mut self, key: PeerKey) -> Peer {
        self.try_up(key, "").expect("let in")
    }

    pub(super) fn down(&mut self, peer: Peer, keep: bool) {
        self.state.pipe_down(peer.key, peer.epoch, keep);
    }

    pub(super) fn receive(&mut self, peer: Peer, parts: &[&[u8]]) -> Received {
        self.state.received(peer.key, peer.epoch, message(parts))
    }

    pub(super) fn subscribe(&mut self, peer: Peer, topic: &str) -> Received {
        self.state.subscribed(peer.key, peer.epoch, Bytes::copy_from_slice(topic.as_bytes()))
    }

    pub(super) fn cancel(&mut self, peer: Peer, topic: &str) -> Received {
        self.state.cancelled(peer.key, peer.epoch, Bytes::copy_from_slice(topic.as_bytes()))
    }

    pub(super) fn send(&mut self, parts: &[&[u8]]) -> Result<(), SendRefusal> {
        let mut sent = message(parts);
        let before = sent.clone();
        let result = self.state.send(&mut sent);
        match result {
            Ok(()) => assert!(sent.is_empty(), "a message that was taken is gone"),
            Err(_) => assert_eq!(sent, before, "a message that was refused is whole"),
        }
        result
    }

    pub(super) fn recv(&mut self) -> Result<Frames, RecvRefusal> {
        let mut received = Message::new();
        self.state.recv(&mut received).map(|()| frames(&received))
    }

    /// What is written to the peer: at most so many messages.
    pub(super) fn take_some(&mut self, peer: Peer, most: usize) -> Vec<Frames> {
        let mut taken = Packed::new();
        self.state.take_outbound(
            peer.key,
            peer.epoch,
            Most { messages: most, bytes: usize::MAX },
            &mut taken,
        );
        std::iter::from_fn(|| taken.pop()).map(|message| frames(&message)).collect()
    }

    pub(super) fn take(&mut self, peer: Peer) -> Vec<Frames> {
        self.take_some(peer, usize::MAX)
    }

    pub(super) fn commands(&mut self, peer: Peer) -> Vec<Command> {
        let mut taken = VecDeque::new();
        self.state.take_commands(peer.key, peer.epoch, usize::MAX, &mut taken);
        taken.into()
    }

    /// What is to be done since this was last asked.
    pub(super) fn effects(&mut self) -> Effects<u32> {
        let mut effects = Effects::new();
        self.state.effects().take_into(&mut effects);
        effects
    }

    pub(super) fn reading(&self, peer: Peer) -> Reading {
        self.state.counters(peer.key).expect("the pipe is there").reading()
    }
}

pub(super) fn peer_info(kind: SocketType, identity: &str) -> PeerInfo {
    PeerInfo {
        socket_type: Some(kind),
        routing_id: Bytes::copy_from_slice(identity.as_bytes()),
        mechanism: "NULL",
        user_id: Bytes::new(),
        metadata: Metadata::default(),
        version: Version::V3_1,
    }
}

pub(super) fn text(parts: &[&str]) -> Frames {
    parts.iter().map(|part| part.as_bytes().to_vec()).collect()
}
