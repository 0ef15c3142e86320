//! Who talks to the broker: how often, with which key, and how often without a valid proof (DH-195, DH-208).

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tidegate_mq::PublicKey;

use super::{Limits, MEMORY, Refused};
use crate::broker::wire::{ClientId, Code};

/// Failed proofs in [`WINDOW`] from which on replies are held back.
const FAILURES: usize = 10;

const WINDOW: Duration = Duration::from_secs(10);

/// Clients of the last minute and more.
#[derive(Debug)]
pub(super) struct Clients {
    known: HashMap<ClientId, Client>,
    /// When the table was last looked through for clients to forget.
    swept: Duration,
    limits: Limits,
}

#[derive(Debug)]
struct Client {
    /// The key of its first request; whoever comes with another is somebody else.
    key: Option<PublicKey>,
    /// Requests that it may send now, in billionths.
    tokens: u64,
    last_seen: Duration,
    /// When proofs failed, the newest [`FAILURES`].
    failures: VecDeque<Duration>,
}

const TOKEN: u64 = 1_000_000_000;

impl Clients {
    pub(super) fn new(limits: Limits) -> Self {
        Self { known: HashMap::new(), swept: Duration::ZERO, limits }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Counts a request of `id`.
    pub(super) fn admit(
        &mut self,
        id: &ClientId,
        key: Option<PublicKey>,
        now: Duration,
    ) -> Result<(), Refused> {
        let full = u64::from(self.limits.burst) * TOKEN;
        if !self.known.contains_key(id) {
            self.make_room(now)?;
            let failures = VecDeque::new();
            self.known.insert(id.clone(), Client { key, tokens: full, last_seen: now, failures });
        }
        let Some(client) = self.known.get_mut(id) else {
            return Err(Refused::new(Code::Internal, "the table of clients lost an entry; report this"));
        };
        if client.key != key {
            return Err(Refused::new(
                Code::IdentityMismatch,
                "this client_id belongs to another CURVE key; choose another",
            ));
        }
        let passed = u64::try_from(now.saturating_sub(client.last_seen).as_nanos()).unwrap_or(u64::MAX);
        client.tokens =
            client.tokens.saturating_add(passed.saturating_mul(self.limits.rate.into())).min(full);
        client.last_seen = now;
        let Some(left) = client.tokens.checked_sub(TOKEN) else {
            let rate = self.limits.rate;
            return Err(Refused::new(
                Code::Limit,
                format!("more than {rate} requests per second; slow down"),
            ));
        };
        client.tokens = left;
        Ok(())
    }

    pub(super) fn count_failed_proof(&mut self, routing_id: &[u8], now: Duration) {
        if let Some(client) = self.find(routing_id) {
            client.failures.push_back(now);
            if client.failures.len() > FAILURES {
                client.failures.pop_front();
            }
        }
    }

    /// Whether replies to this client are held back.
    pub(super) fn is_penalised(&mut self, routing_id: &[u8], now: Duration) -> bool {
        self.find(routing_id).is_some_and(|client| {
            client.failures.len() == FAILURES
                && client.failures.front().is_some_and(|oldest| now.saturating_sub(*oldest) <= WINDOW)
        })
    }

    fn find(&mut self, routing_id: &[u8]) -> Option<&mut Client> {
        let id = ClientId::new(std::str::from_utf8(routing_id).ok()?).ok()?;
        self.known.get_mut(&id)
    }

    /// Forgets who was silent for longer than nonces are remembered; looks at most once a second.
    fn make_room(&mut self, now: Duration) -> Result<(), Refused> {
        if self.known.len() < self.limits.clients {
            return Ok(());
        }
        if now.saturating_sub(self.swept) >= Duration::from_secs(1) {
            self.swept = now;
            self.known.retain(|_, client| now.saturating_sub(client.last_seen) <= MEMORY);
        }
        if self.known.len() < self.limits.clients {
            return Ok(());
        }
        Err(Refused::new(Code::Limit, "the broker serves as many clients as it may; try again in a minute"))
    }
}
