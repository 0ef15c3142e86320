//! How a hub is set up, and what it counts.

use tidegate_mq::{PublicKey, SecretKey};

use crate::broker::wire::ClientId;

/// How a hub talks to its broker.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Where the broker listens; see [`RuntimeDir::broker_endpoint`](crate::broker::place::RuntimeDir::broker_endpoint).
    pub endpoint: String,
    /// Who this is: unique per process.
    pub client_id: ClientId,
    /// CURVE, if the broker has it.
    pub curve: Option<HubCurve>,
}

/// CURVE of a client (DH-208).
#[derive(Clone, Debug)]
pub struct HubCurve {
    /// The broker's public key.
    pub server_key: PublicKey,
    /// This client's key.
    pub secret_key: SecretKey,
}

/// Numbers of a hub (DH-205).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubCounters {
    /// Requests and notifications that could not be sent.
    pub zmq_send_failures: u64,
    /// Messages that could not be received or read.
    pub zmq_recv_failures: u64,
    /// Requests without a reply in time.
    pub zmq_timeout_count: u64,
    /// Replies that came after their request was abandoned, and were dropped.
    pub late_replies: u64,
    /// Registrations made again by themselves.
    pub reregistrations: u64,
}
