//! What is remembered for a minute: nonces, so that nothing is replayed, and replies, so that nothing is done twice.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use blake2::{Blake2b, Digest, digest::consts::U32};

use super::{MEMORY, Refused};
use crate::broker::{
    proof::Verifier,
    wire::{ClientId, Code, MsgId, Nonce, Request, RequestBody},
};

/// Nonces seen. Full, it refuses new ones: forgetting early would let old ones pass.
#[derive(Debug)]
pub(super) struct Nonces {
    seen: HashSet<(ClientId, Nonce)>,
    order: VecDeque<(Duration, (ClientId, Nonce))>,
    most: usize,
}

impl Nonces {
    pub(super) fn new(most: usize) -> Self {
        Self { seen: HashSet::new(), order: VecDeque::new(), most }
    }

    pub(super) fn insert(&mut self, client: &ClientId, nonce: Nonce, now: Duration) -> Result<(), Refused> {
        while self.order.front().is_some_and(|(until, _)| *until < now) {
            if let Some((_, key)) = self.order.pop_front() {
                self.seen.remove(&key);
            }
        }
        let key = (client.clone(), nonce);
        if self.seen.contains(&key) {
            return Err(Refused::new(
                Code::ReplayOrSkew,
                "this nonce was used within 60 s; draw one per request",
            ));
        }
        if self.order.len() >= self.most {
            return Err(Refused::new(
                Code::Limit,
                "the broker remembers as many nonces as it may; try again in a minute",
            ));
        }
        self.seen.insert(key.clone());
        self.order.push_back((now + MEMORY, key));
        Ok(())
    }
}

/// A reply kept for duplicates of its request.
#[derive(Debug)]
pub(super) struct Stored {
    /// Of the request, without what differs each time.
    pub(super) fingerprint: [u8; 32],
    /// Whose holders may have it.
    pub(super) verifier: Option<Verifier>,
    pub(super) body: Vec<u8>,
}

/// Replies of the last minute, as far as they fit.
#[derive(Debug)]
pub(super) struct Replies {
    stored: HashMap<(ClientId, MsgId), Stored>,
    order: VecDeque<(Duration, (ClientId, MsgId))>,
    bytes: usize,
    most: usize,
}

/// What a stored reply costs beside its body.
const OVERHEAD: usize = 512;

impl Replies {
    pub(super) fn new(most: usize) -> Self {
        Self { stored: HashMap::new(), order: VecDeque::new(), bytes: 0, most }
    }

    pub(super) fn find(&mut self, key: &(ClientId, MsgId), now: Duration) -> Option<&Stored> {
        while self.order.front().is_some_and(|(until, _)| *until < now) {
            self.forget_oldest();
        }
        self.stored.get(key)
    }

    pub(super) fn insert(&mut self, key: (ClientId, MsgId), stored: Stored, now: Duration) {
        let cost = stored.body.len() + OVERHEAD;
        while self.bytes + cost > self.most && !self.order.is_empty() {
            self.forget_oldest();
        }
        if cost > self.most || self.stored.contains_key(&key) {
            return;
        }
        self.bytes += cost;
        self.order.push_back((now + MEMORY, key.clone()));
        self.stored.insert(key, stored);
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front()
            && let Some(stored) = self.stored.remove(&key)
        {
            self.bytes -= stored.body.len() + OVERHEAD;
        }
    }
}

/// Hash of what a request asks: all of it but time, nonce and proof.
pub(super) fn fingerprint(request: &Request) -> [u8; 32] {
    let mut request = Request { ts_ms: 0, nonce: None, ..request.clone() };
    match &mut request.body {
        RequestBody::Register(body) => body.secret_proof = None,
        RequestBody::Discover(body) => body.secret_proof = None,
        RequestBody::Deregister(body) => body.secret_proof = None,
        RequestBody::HandoverNotify(body) => body.secret_proof = None,
        RequestBody::HandoverCancel(body) => body.secret_proof = None,
        _ => {}
    }
    Blake2b::<U32>::digest(request.encode()).into()
}
