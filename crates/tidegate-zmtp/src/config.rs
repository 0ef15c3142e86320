//! How a session is configured.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    auth::PlainCredentials,
    mechanism::curve::{CurveClient, CurveServer},
    socket_type::SocketType,
};

/// Everything that the sessions of one endpoint have in common; shared by an `Arc`.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Our socket type.
    pub socket_type: SocketType,
    /// Our routing id; empty when none is set. Announced by REQ, DEALER and ROUTER.
    pub identity: Bytes,
    /// Properties that are announced after the standard ones (MQ-120).
    pub metadata: Vec<(String, Bytes)>,
    /// Mechanism and role.
    pub security: Security,
    /// Limits on what the peer may send.
    pub limits: Limits,
    /// Heartbeats.
    pub heartbeat: Heartbeat,
    /// Time from the connection to the end of the handshake; `None` is unlimited (MQ-285).
    pub handshake_ivl: Option<Duration>,
    /// Accepts peers that do not say what they are (MQ-119).
    pub allow_missing_socket_type: bool,
    /// Refuses every Identity that starts with a zero octet (MQ-126).
    pub strict_identity: bool,
    /// Takes only the first part of a message for a subscription (XPUB, PUB).
    pub only_first_subscribe: bool,
    /// Parts of at most this many octets are copied out of the receive page (MQ-022). Less than 256 acts as 256.
    pub inline_copy_threshold: usize,
    /// Parts of at least this many octets are written by reference (MQ-052).
    pub vectored_threshold: usize,
}

impl SessionConfig {
    /// The defaults of chapter 8 for a socket of type `socket_type`: NULL, no identity, no heartbeats.
    pub fn new(socket_type: SocketType) -> Self {
        Self {
            socket_type,
            identity: Bytes::new(),
            metadata: Vec::new(),
            security: Security::Null { authenticate: false },
            limits: Limits::default(),
            heartbeat: Heartbeat::default(),
            handshake_ivl: Some(Duration::from_secs(30)),
            allow_missing_socket_type: false,
            strict_identity: false,
            only_first_subscribe: false,
            inline_copy_threshold: 256,
            vectored_threshold: 16 * 1024,
        }
    }
}

/// Mechanism and role of a session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Security {
    /// No security.
    Null {
        /// Whether the authenticator is asked first: on accepted connections of a socket with a domain (MQ-161).
        authenticate: bool,
    },
    /// User name and password, checked here.
    PlainServer,
    /// User name and password, presented to the peer.
    PlainClient(PlainCredentials),
    /// Encryption, in the role of the server.
    CurveServer(CurveServer),
    /// Encryption, in the role of the client.
    CurveClient(CurveClient),
}

impl Security {
    /// The name in the greeting and in authentication requests.
    pub const fn mechanism(&self) -> &'static str {
        match self {
            Self::Null { .. } => "NULL",
            Self::PlainServer | Self::PlainClient(_) => "PLAIN",
            Self::CurveServer(_) | Self::CurveClient(_) => "CURVE",
        }
    }

    /// Whether this side has the role of a server (MQ-089).
    pub const fn is_server(&self) -> bool {
        matches!(self, Self::PlainServer | Self::CurveServer(_))
    }
}

/// Limits on what a peer may send (MQ-105, MQ-106, MQ-180).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `maxmsgsize`: largest part.
    pub max_msg_size: Option<u64>,
    /// `hard_frame_limit`: largest part, always.
    pub hard_frame: u64,
    /// `max_message_bytes`: largest sum of the parts of a message.
    pub message_bytes: u64,
    /// `max_message_parts`.
    pub message_parts: usize,
    /// `max_handshake_command`.
    pub handshake_command: u64,
    /// `max_topic_bytes`: longest topic that a peer may subscribe to.
    pub topic_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_msg_size: None,
            hard_frame: (2 << 30) - 1,
            message_bytes: (2 << 30) - 1,
            message_parts: 65_536,
            handshake_command: 64 * 1024,
            topic_bytes: 64 * 1024,
        }
    }
}

/// Heartbeats (§5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Time between PINGs; `None` sends none.
    pub interval: Option<Duration>,
    /// How long to wait for a sign of life after a PING; `None` is as long as the interval, zero for ever.
    pub timeout: Option<Duration>,
    /// What our PING tells the peer about how long we may be silent; rounded down to tenths of a second.
    pub ttl: Duration,
    /// Whether peers of ZMTP 3.0 get PINGs.
    pub old_peers: OldPeers,
}

/// Whether peers of ZMTP 3.0 get PINGs: some hand them to their application as messages (MQ-171).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OldPeers {
    /// Once they have sent a PING themselves.
    #[default]
    Learned,
    /// Yes.
    Always,
    /// No.
    Never,
}
