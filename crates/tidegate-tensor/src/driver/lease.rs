//! The active leases and who holds them (15.3).
//!
//! Invariants: a client has at most one lease (TP-253), a stream at most one producer lease (TP-254), and a lease id is
//! given out once in the life of the table (TP-252).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tidegate_sbe::driver::Role;
use tidegate_shm::clock::Nanos;

use crate::ids::{ClientId, CorrelationId, Epoch, LeaseId, NodeId, StreamId};
use crate::region::RegionSpec;

/// One active lease.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub id: LeaseId,
    pub stream: StreamId,
    pub client: ClientId,
    pub role: Role,
    pub node: Option<NodeId>,
    /// The request that was granted; its repetition gets the same answer (TP-244).
    pub correlation: CorrelationId,
    /// The regions named in the answer. Their epoch is not collected while the lease lives (TP-278).
    pub regions: Arc<RegionSpec>,
    /// When the lease ends unless a keepalive comes.
    pub expires: Nanos,
    /// The deadline stated in the answer, fixed when that is first sent.
    pub first_deadline: Option<Nanos>,
    /// Whether a valid keepalive has come.
    pub active: bool,
}

/// What a lease is granted for.
#[derive(Debug)]
pub(super) struct Grant {
    pub stream: StreamId,
    pub client: ClientId,
    pub role: Role,
    pub node: Option<NodeId>,
    pub correlation: CorrelationId,
    pub regions: Arc<RegionSpec>,
    pub expires: Nanos,
}

/// What a message must state to concern a lease (TP-255, TP-262).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub lease: LeaseId,
    pub stream: StreamId,
    pub client: ClientId,
    pub role: Role,
}

/// All active leases of a driver.
#[derive(Debug)]
pub(super) struct Leases {
    next: u64,
    by_id: BTreeMap<LeaseId, Lease>,
    by_client: HashMap<ClientId, LeaseId>,
    by_stream: BTreeMap<StreamId, Holders>,
    /// No lease ends before this time: a lower bound, since renewals only move ends later.
    earliest_end: Nanos,
}

#[derive(Debug, Default)]
struct Holders {
    producer: Option<LeaseId>,
    consumers: BTreeSet<LeaseId>,
}

impl Leases {
    /// `first` should be random, so that ids of a former driver process are unknown to this one (TP-252, TP-270).
    pub(super) fn new(first: LeaseId) -> Self {
        Self {
            next: first.get(),
            by_id: BTreeMap::new(),
            by_client: HashMap::new(),
            by_stream: BTreeMap::new(),
            earliest_end: Nanos::MAX,
        }
    }

    /// Registers a lease. The caller has seen that the client has none and a producer's place is free.
    pub(super) fn insert(&mut self, grant: Grant) -> LeaseId {
        let id = self.next_id();
        let holders = self.by_stream.entry(grant.stream).or_default();
        match grant.role {
            Role::Producer => holders.producer = Some(id),
            Role::Consumer => {
                holders.consumers.insert(id);
            }
        }
        self.by_client.insert(grant.client, id);
        self.earliest_end = self.earliest_end.min(grant.expires);
        let lease = Lease {
            id,
            stream: grant.stream,
            client: grant.client,
            role: grant.role,
            node: grant.node,
            correlation: grant.correlation,
            regions: grant.regions,
            expires: grant.expires,
            first_deadline: None,
            active: false,
        };
        self.by_id.insert(id, lease);
        id
    }

    /// Takes a lease out of the active set.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.by_id.remove(&id)?;
        self.by_client.remove(&lease.client);
        if let Some(holders) = self.by_stream.get_mut(&lease.stream) {
            match lease.role {
                Role::Producer => holders.producer = None,
                Role::Consumer => {
                    holders.consumers.remove(&id);
                }
            }
            if holders.producer.is_none() && holders.consumers.is_empty() {
                self.by_stream.remove(&lease.stream);
            }
        }
        Some(lease)
    }

    /// Extends the lease the claim names, if all four parts match (TP-255, TP-256).
    pub(super) fn renew(&mut self, claim: &Claim, expires: Nanos) -> bool {
        match self.by_id.get_mut(&claim.lease) {
            Some(lease) if lease.matches(claim) => {
                lease.active = true;
                lease.expires = lease.expires.max(expires);
                true
            }
            _ => false,
        }
    }

    /// Fixes the deadline stated in the answer when it is sent for the first time: making regions may have taken long,
    /// and the client cannot renew before it has the answer.
    pub(super) fn answered(&mut self, id: LeaseId, deadline: Nanos) -> Option<Nanos> {
        let lease = self.by_id.get_mut(&id)?;
        let first = *lease.first_deadline.get_or_insert(deadline);
        lease.expires = lease.expires.max(first);
        Some(first)
    }

    /// The id, if the claim names an active lease with all four parts.
    pub(super) fn find(&self, claim: &Claim) -> Option<LeaseId> {
        self.by_id.get(&claim.lease).filter(|lease| lease.matches(claim)).map(|lease| lease.id)
    }

    pub(super) fn of_client(&self, client: ClientId) -> Option<&Lease> {
        self.by_client.get(&client).and_then(|id| self.by_id.get(id))
    }

    pub(super) fn producer_of(&self, stream: StreamId) -> Option<&Lease> {
        let id = self.by_stream.get(&stream)?.producer?;
        self.by_id.get(&id)
    }

    pub(super) fn consumers_of(&self, stream: StreamId) -> usize {
        self.by_stream.get(&stream).map_or(0, |holders| holders.consumers.len())
    }

    /// The epochs for which an active lease of the stream was issued.
    pub(super) fn epochs_of(&self, stream: StreamId) -> BTreeSet<Epoch> {
        let Some(holders) = self.by_stream.get(&stream) else { return BTreeSet::new() };
        let ids = holders.consumers.iter().chain(&holders.producer);
        ids.filter_map(|id| self.by_id.get(id)).map(|lease| lease.regions.epoch()).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.by_id.values()
    }

    /// A lease whose time has passed, if there is one. Costs nothing while none can have.
    pub(super) fn next_expired(&mut self, now: Nanos) -> Option<LeaseId> {
        if now < self.earliest_end {
            return None;
        }
        let first = self.by_id.values().min_by_key(|lease| lease.expires);
        self.earliest_end = first.map_or(Nanos::MAX, |lease| lease.expires);
        first.filter(|lease| lease.expires <= now).map(|lease| lease.id)
    }

    fn next_id(&mut self) -> LeaseId {
        // 0 and the null value of the wire are never given out.
        if matches!(self.next, 0 | u64::MAX) {
            self.next = 1;
        }
        let id = LeaseId::new(self.next);
        self.next = self.next.wrapping_add(1);
        id
    }
}

impl Lease {
    fn matches(&self, claim: &Claim) -> bool {
        (self.stream, self.client, self.role) == (claim.stream, claim.client, claim.role)
    }
}
