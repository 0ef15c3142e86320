//! What a node tells about itself. The field names are part of the command line's JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidegate_tensor::driver::DriverSnapshot;

/// The tensor side of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The driver's instance id.
    pub instance_id: String,
    /// Directory of the driver's namespace.
    pub root: PathBuf,
    /// All streams, by id.
    pub streams: Vec<StreamStatus>,
    /// Attach requests that were granted since the start.
    pub attaches: u64,
    /// Leases that ended without a detach since the start.
    pub leases_lost: u64,
    /// Epochs created since the start.
    pub epochs_created: u64,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Stream id.
    pub stream: u32,
    /// Name, if it has one.
    pub name: Option<String>,
    /// Whether it was made on demand.
    pub dynamic: bool,
    /// Profile its regions follow.
    pub profile: String,
    /// Current epoch; 0 without regions.
    pub epoch: u64,
    /// Client id of the producer, if one is attached.
    pub producer: Option<u32>,
    /// Slots of the header ring.
    pub slots: u32,
    /// Path of the header ring, if there are regions.
    pub header_path: Option<PathBuf>,
    /// Payload pools.
    pub pools: Vec<PoolStatus>,
    /// Who holds leases.
    pub leases: Vec<LeaseStatus>,
}

/// One payload pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Pool id.
    pub pool: u16,
    /// Bytes per slot.
    pub stride: u32,
    /// Path, if there are regions.
    pub path: Option<PathBuf>,
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Lease id.
    pub lease: u64,
    /// Client id.
    pub client: u32,
    /// `producer` or `consumer`.
    pub role: String,
    /// Node id, if one was assigned.
    pub node: Option<u16>,
    /// Milliseconds until it expires unless a keepalive comes.
    pub expires_in_ms: u64,
}

impl From<DriverSnapshot> for NodeStatus {
    fn from(snapshot: DriverSnapshot) -> Self {
        let DriverSnapshot { instance_id, root, streams, leases, counters, .. } = snapshot;
        let streams = streams
            .into_iter()
            .map(|stream| StreamStatus {
                stream: stream.id.get(),
                name: stream.name,
                dynamic: stream.dynamic,
                profile: stream.profile,
                epoch: stream.epoch.get(),
                producer: stream.producer.map(|client| client.get()),
                slots: stream.slots,
                header_path: stream.header_path,
                pools: stream
                    .pools
                    .into_iter()
                    .map(|pool| PoolStatus { pool: pool.id.get(), stride: pool.stride, path: pool.path })
                    .collect(),
                leases: leases
                    .iter()
                    .filter(|lease| lease.stream == stream.id)
                    .map(|lease| LeaseStatus {
                        lease: lease.id.get(),
                        client: lease.client.get(),
                        role: lease.role.to_string(),
                        node: lease.node.map(|node| node.get()),
                        expires_in_ms: lease.expires_in.as_u64() / 1_000_000,
                    })
                    .collect(),
            })
            .collect();
        Self {
            instance_id,
            root,
            streams,
            attaches: counters.attaches_ok,
            leases_lost: counters.leases_expired + counters.leases_revoked,
            epochs_created: counters.epochs_created,
        }
    }
}
