//! What a driver holds, as plain values for tools.

use std::path::PathBuf;

use tidegate_sbe::driver::{LeaseRevokeReason, ResponseCode};
use tidegate_shm::clock::Nanos;

use super::{Driver, DriverState};
use crate::ids::{ClientId, Epoch, LeaseId, NodeId, PoolId, Role, StreamId};

/// Everything a driver holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverSnapshot {
    /// `driver.instance_id`.
    pub instance_id: String,
    /// Where the driver is in its life.
    pub state: DriverState,
    /// Directory below which all its regions are.
    pub root: PathBuf,
    /// Known streams by id.
    pub streams: Vec<StreamSnapshot>,
    /// Active leases by id.
    pub leases: Vec<LeaseSnapshot>,
    /// Totals since the start.
    pub counters: DriverCounters,
}

/// One known stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSnapshot {
    /// The id.
    pub id: StreamId,
    /// Configured name, or the name it was created by.
    pub name: Option<String>,
    /// Whether it was created at run time.
    pub dynamic: bool,
    /// Current epoch; [`Epoch::NONE`] while it has no regions.
    pub epoch: Epoch,
    /// Client id of the attached producer.
    pub producer: Option<ClientId>,
    /// Number of attached consumers.
    pub consumers: usize,
    /// Name of its profile.
    pub profile: String,
    /// Slots of the header ring and of every pool.
    pub slots: u32,
    /// Payload pools.
    pub pools: Vec<PoolSnapshot>,
    /// The header ring's file, while it has regions.
    pub header_path: Option<PathBuf>,
}

/// One payload pool of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSnapshot {
    /// The id.
    pub id: PoolId,
    /// Bytes per slot.
    pub stride: u32,
    /// Its file, while the stream has regions.
    pub path: Option<PathBuf>,
}

/// One active lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSnapshot {
    /// The id.
    pub id: LeaseId,
    /// The stream.
    pub stream: StreamId,
    /// The client.
    pub client: ClientId,
    /// Producer or consumer.
    pub role: Role,
    /// The node id assigned with it.
    pub node: Option<NodeId>,
    /// Epoch it was issued for.
    pub epoch: Epoch,
    /// Whether a keepalive has come since the attach.
    pub active: bool,
    /// Time left without another keepalive.
    pub expires_in: Nanos,
}

/// Totals since the start of the driver (TP-469).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DriverCounters {
    /// Attaches granted, not counting repeated answers.
    pub attaches_ok: u64,
    /// Attaches answered UNSUPPORTED.
    pub attaches_unsupported: u64,
    /// Attaches answered INVALID_PARAMS.
    pub attaches_invalid: u64,
    /// Attaches answered REJECTED.
    pub attaches_rejected: u64,
    /// Attaches answered INTERNAL_ERROR.
    pub attaches_failed: u64,
    /// Answers repeated because the request came again.
    pub attaches_repeated: u64,
    /// Keepalives that renewed a lease.
    pub keepalives: u64,
    /// Keepalives for no active lease.
    pub keepalives_ignored: u64,
    /// Detaches for no active lease.
    pub detaches_refused: u64,
    /// Leases that ended by detach.
    pub leases_detached: u64,
    /// Leases that ended by expiry.
    pub leases_expired: u64,
    /// Leases that the driver revoked.
    pub leases_revoked: u64,
    /// Epochs made.
    pub epochs_created: u64,
    /// Epochs that could not be made.
    pub epochs_failed: u64,
    /// Epoch directories the collector removed.
    pub epochs_collected: u64,
    /// Announces queued.
    pub announces: u64,
    /// Messages dropped because nobody subscribed.
    pub dropped_unconnected: u64,
    /// Messages dropped because the transport refused them for good.
    pub dropped_refused: u64,
    /// Messages of others on the control stream.
    pub foreign_messages: u64,
    /// Messages that do not decode.
    pub malformed_messages: u64,
    /// Requests dropped because the answers before them could not be sent yet.
    pub requests_dropped_busy: u64,
    /// Shutdown requests with a wrong token.
    pub shutdown_requests_refused: u64,
}

impl DriverCounters {
    pub(super) fn count_attach(&mut self, code: ResponseCode) {
        *match code {
            ResponseCode::Ok => &mut self.attaches_ok,
            ResponseCode::Unsupported => &mut self.attaches_unsupported,
            ResponseCode::InvalidParams => &mut self.attaches_invalid,
            ResponseCode::Rejected => &mut self.attaches_rejected,
            ResponseCode::InternalError => &mut self.attaches_failed,
        } += 1;
    }

    pub(super) fn count_end(&mut self, reason: LeaseRevokeReason) {
        *match reason {
            LeaseRevokeReason::Detached => &mut self.leases_detached,
            LeaseRevokeReason::Expired => &mut self.leases_expired,
            LeaseRevokeReason::Revoked => &mut self.leases_revoked,
        } += 1;
    }
}

impl Driver {
    /// What the driver holds now.
    #[must_use]
    pub fn snapshot(&self, now: Nanos) -> DriverSnapshot {
        DriverSnapshot {
            instance_id: self.config.driver.instance_id.clone(),
            state: self.state(),
            root: self.store.root().to_owned(),
            streams: self
                .streams
                .iter()
                .map(|(id, _)| id)
                .filter_map(|id| self.stream_snapshot(id))
                .collect(),
            leases: self
                .leases
                .iter()
                .map(|lease| LeaseSnapshot {
                    id: lease.id,
                    stream: lease.stream,
                    client: lease.client,
                    role: Role::from_wire(lease.role),
                    node: lease.node,
                    epoch: lease.regions.epoch(),
                    active: lease.active,
                    expires_in: lease.expires.saturating_sub(now),
                })
                .collect(),
            counters: self.counters,
        }
    }

    fn stream_snapshot(&self, id: StreamId) -> Option<StreamSnapshot> {
        let stream = self.streams.get(id)?;
        let spec = stream.regions.as_ref().map(|regions| regions.spec());
        let pool_path = |id| {
            let pools = spec.map(|spec| spec.pools());
            pools?.iter().find(|pool| pool.geometry.pool_id == id).map(|pool| pool.uri.path().to_owned())
        };
        Some(StreamSnapshot {
            id,
            name: stream.name.clone(),
            dynamic: stream.dynamic,
            epoch: stream.epoch(),
            producer: self.leases.producer_of(id).map(|lease| lease.client),
            consumers: self.leases.consumers_of(id),
            profile: stream.profile.name.clone(),
            slots: stream.profile.header_nslots.get(),
            pools: stream
                .profile
                .payload_pools
                .iter()
                .map(|pool| PoolSnapshot {
                    id: pool.pool_id,
                    stride: pool.stride.get(),
                    path: pool_path(pool.pool_id),
                })
                .collect(),
            header_path: spec.map(|spec| spec.header().path().to_owned()),
        })
    }
}
