//! Sessions of the messaging protocol that are given arbitrary octets.
//!
//! The first octet of an input chooses the socket type and how the rest is split into chunks; the outcome must not
//! depend on the splits.

#![allow(dead_code, reason = "each target uses some of it")]

use std::sync::Arc;
use std::time::Instant;

use tidegate_io::batch::WriteBatch;
use tidegate_io::buffer::Slab;
use tidegate_zmtp::SocketType;
use tidegate_zmtp::auth::Verdict;
use tidegate_zmtp::config::{Security, SessionConfig};
use tidegate_zmtp::session::{Event, Session, State};

pub const TYPES: [SocketType; 11] = [
    SocketType::Pair,
    SocketType::Pub,
    SocketType::Sub,
    SocketType::Req,
    SocketType::Rep,
    SocketType::Dealer,
    SocketType::Router,
    SocketType::Pull,
    SocketType::Push,
    SocketType::XPub,
    SocketType::XSub,
];

/// A session and what is known of its history.
pub struct Side {
    pub session: Session,
    pub history: Vec<String>,
    now: Instant,
    slab: Slab,
}

impl Side {
    pub fn new(kind: SocketType, security: Security) -> Self {
        let mut config = SessionConfig::new(kind);
        config.security = security;
        // Small limits, so that inputs reach them.
        config.limits.message_bytes = 4096;
        config.limits.message_parts = 16;
        config.limits.topic_bytes = 64;
        let now = Instant::now();
        let session = Session::new(Arc::new(config), &mut |bytes: &mut [u8]| bytes.fill(0x5a), now);
        Self { session, history: Vec::new(), now, slab: Slab::default() }
    }

    /// Gives octets as one chunk, takes the events, admits whoever asks.
    pub fn receive(&mut self, octets: &[u8]) {
        self.session.receive(octets.into(), self.now);
        while let Some(event) = self.session.next_event(&mut self.slab) {
            if matches!(event, Event::Authenticate(_)) {
                self.session.verdict(Verdict::accept(), self.now);
            }
            self.history.push(match event {
                Event::Message(message) => {
                    assert!(message.byte_len() <= 4096 && message.len() <= 16, "beyond the limits");
                    format!("{:?}", message.parts().iter().map(|part| part.to_vec()).collect::<Vec<_>>())
                }
                other => format!("{other:?}"),
            });
        }
    }

    /// What it wants to say.
    pub fn output(&mut self) -> Vec<u8> {
        let mut written = Vec::new();
        let mut batch = WriteBatch::new(64 * 1024);
        loop {
            self.session.fill(&mut batch);
            if batch.is_empty() {
                return written;
            }
            let octets: Vec<u8> = batch.segments().iter().flatten().copied().collect();
            batch.advance(octets.len());
            written.extend(octets);
        }
    }
}

/// Two sessions of different roles that have talked until both were silent.
pub fn established(kinds: (SocketType, SocketType), roles: (Security, Security)) -> (Side, Side) {
    let (mut one, mut two) = (Side::new(kinds.0, roles.0), Side::new(kinds.1, roles.1));
    loop {
        let (from_one, from_two) = (one.output(), two.output());
        if from_one.is_empty() && from_two.is_empty() {
            break;
        }
        two.receive(&from_one);
        one.receive(&from_two);
    }
    assert_eq!((one.session.state(), two.session.state()), (State::Active, State::Active));
    (one, two)
}

/// Gives `octets` once whole and once in pieces to sessions that `make` makes; the histories must be equal.
pub fn compare_splits(choice: u8, octets: &[u8], make: impl Fn() -> Side) {
    let (mut whole, mut pieces) = (make(), make());
    whole.receive(octets);
    let step = usize::from(choice).max(1);
    octets.chunks(step).for_each(|chunk| pieces.receive(chunk));
    assert_eq!(whole.history, pieces.history);
    assert_eq!(whole.session.state(), pieces.session.state());
    assert_eq!(whole.output().is_empty(), pieces.output().is_empty());
}

pub fn greeting(mechanism: &str) -> Vec<u8> {
    let mut octets = vec![0; 64];
    octets[0] = 0xff;
    octets[8] = 1;
    octets[9] = 0x7f;
    octets[10] = 3;
    octets[11] = 1;
    octets[12..12 + mechanism.len()].copy_from_slice(mechanism.as_bytes());
    octets
}

pub fn command(name: &str, data: &[u8]) -> Vec<u8> {
    let body = [&[name.len() as u8], name.as_bytes(), data].concat();
    match u8::try_from(body.len()) {
        Ok(len) => [&[4, len], body.as_slice()].concat(),
        Err(_) => [&[6], (body.len() as u64).to_be_bytes().as_slice(), &body].concat(),
    }
}
