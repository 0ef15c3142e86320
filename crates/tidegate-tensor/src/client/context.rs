//! Settings of a client (chapter 23.4).

use std::path::PathBuf;
use std::time::Duration;

use tidegate_shm::region::PermissionPolicy;

use crate::agent::IdleStrategy;
use crate::channel::{Channel, Clash};
use crate::ids::AeronStreamId;

/// One Aeron address: channel and stream id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The channel string.
    pub channel: Channel,
    /// The stream id on it.
    pub stream: AeronStreamId,
}

impl Endpoint {
    /// The default channel with this stream id.
    #[must_use]
    pub fn ipc(stream: i32) -> Self {
        Self { channel: Channel::default(), stream: AeronStreamId::new(stream) }
    }
}

/// Settings of a [`Client`](super::Client). `Context::default()` is the specification's table.
#[derive(Debug, Clone)]
pub struct Context {
    /// Shown in Aeron's counters.
    pub client_name: String,
    /// Driver messages, Hello, Config.
    pub control: Endpoint,
    /// Announces. The control stream is listened to for announces as well (IP-27).
    pub announce: Endpoint,
    /// Frame descriptors.
    pub descriptor: Endpoint,
    /// QoS messages.
    pub qos: Endpoint,
    /// Metadata: here, the names of streams.
    pub metadata: Endpoint,
    /// Announce, Hello, QoS and activity cadence. Not carried in any message: both ends must agree (IP-32).
    pub announce_period: Duration,
    /// How long one attach request waits for its answer before it is abandoned.
    pub attach_timeout: Duration,
    /// A request without an answer is sent again this often.
    pub resend_interval: Duration,
    /// Keepalive cadence.
    pub keepalive_interval: Duration,
    /// Keepalive intervals a lease survives without one.
    pub lease_grace_intervals: u32,
    /// Region paths must lie in one of these (TP-062). Never taken from messages.
    pub allowed_base_dirs: Vec<PathBuf>,
    /// What a region file's mode and owner must be (TP-069).
    pub permissions: PermissionPolicy,
    /// A larger jump of the sequence resynchronises the consumer with a warning; 0 disables (TP-121).
    pub max_outstanding_seq_gap: u64,
    /// Messages handled per subscription and duty cycle (TP-440).
    pub fragment_limit: usize,
    /// How the background thread idles.
    pub idle: IdleStrategy,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            client_name: String::new(),
            control: Endpoint::ipc(1000),
            announce: Endpoint::ipc(1001),
            descriptor: Endpoint::ipc(1100),
            qos: Endpoint::ipc(1200),
            metadata: Endpoint::ipc(1300),
            announce_period: Duration::from_secs(1),
            attach_timeout: Duration::from_secs(5),
            resend_interval: Duration::from_millis(200),
            keepalive_interval: Duration::from_secs(1),
            lease_grace_intervals: 3,
            allowed_base_dirs: vec![PathBuf::from("/dev/shm")],
            permissions: PermissionPolicy::default(),
            max_outstanding_seq_gap: 256,
            fragment_limit: 10,
            idle: IdleStrategy::default(),
        }
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// A duration or count that must not be 0 is.
    #[error("client setting {setting} must not be 0")]
    Zero {
        /// Name of the setting.
        setting: &'static str,
    },
    /// Two settings name one Aeron stream with different channel parameters (TP-487).
    #[error(
        "{first} and {second} share Aeron stream {stream} but disagree: {clash}; give both the same channel"
    )]
    Clash {
        /// One setting.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The Aeron stream id.
        stream: AeronStreamId,
        /// In what they disagree.
        clash: Clash,
    },
}

impl Context {
    /// Checks the settings; every client does so at its start.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), ContextError> {
        for (setting, zero) in [
            ("announce_period", self.announce_period.is_zero()),
            ("attach_timeout", self.attach_timeout.is_zero()),
            ("resend_interval", self.resend_interval.is_zero()),
            ("keepalive_interval", self.keepalive_interval.is_zero()),
            ("lease_grace_intervals", self.lease_grace_intervals == 0),
            ("fragment_limit", self.fragment_limit == 0),
        ] {
            if zero {
                return Err(ContextError::Zero { setting });
            }
        }
        let endpoints = [
            ("control", &self.control),
            ("announce", &self.announce),
            ("descriptor", &self.descriptor),
            ("qos", &self.qos),
            ("metadata", &self.metadata),
        ];
        for (index, (first, a)) in endpoints.iter().enumerate() {
            for (second, b) in &endpoints[index + 1..] {
                if a.stream != b.stream {
                    continue;
                }
                if let Some(clash) = a.channel.conflicts_with(&b.channel) {
                    return Err(ContextError::Clash { first, second, stream: a.stream, clash });
                }
            }
        }
        Ok(())
    }

    /// How long a lease lasts after the last keepalive.
    #[must_use]
    pub fn lease_duration(&self) -> Duration {
        self.keepalive_interval.saturating_mul(self.lease_grace_intervals)
    }

    /// How long the driver may stay silent before its word is stale (TP-139, TP-305).
    #[must_use]
    pub fn stale_after(&self) -> Duration {
        self.announce_period.saturating_mul(3)
    }
}
