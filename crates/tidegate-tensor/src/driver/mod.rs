//! The tensor driver: owns region files and epochs, grants leases, announces streams (chapters 14 and 15).
//!
//! [`Driver`] is the protocol: messages and time go in, messages come out; of the outside world it touches only the
//! region files, through [`RegionStore`]. [`DriverAgent`] runs it on a message transport.
//!
//! | module | what it does |
//! |---|---|
//! | `attach` | table 15.2 |
//! | `lease`, `ending` | who holds what, and the sequence by which a lease ends (15.4) |
//! | `node_id` | node ids and their cooldown (15.6) |
//! | `stream` | known streams, names, epochs, announce times |
//! | `outbox` | messages on their way out |
//! | `shutdown` | draining and the end (15.5) |
//! | `snapshot` | what `ls` and `inspect` show |
//! | `agent`, `handle` | the duty cycle, and talking to it from other threads |
//!
//! Bounds: streams by the configured id range, leases by the 1023 node ids and the consumer limit of each stream,
//! waiting messages by the outbox. Dynamic streams stay known until the driver ends, see `stream`.

mod agent;
mod attach;
mod ending;
mod handle;
mod lease;
mod node_id;
mod outbox;
mod shutdown;
mod snapshot;
mod stream;

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_sbe::MessageHeader;
use tidegate_sbe::control::DataSourceAnnounce;
use tidegate_sbe::driver::{self as wire, Message, ShmAttachRequest, ShmDetachRequest};
use tidegate_shm::clock::{Nanos, realtime_now};

pub use agent::{DriverAgent, DriverAgentError};
pub use handle::{DriverHandle, HandleError};
pub use outbox::{Endpoint, Outgoing};
pub use shutdown::{DriverState, ShutdownReason};
pub use snapshot::{DriverCounters, DriverSnapshot, LeaseSnapshot, PoolSnapshot, StreamSnapshot};

use crate::config::{ConfigError, DriverConfig, DriverSection};
use crate::ids::{ClientId, LeaseId, StreamId};
use crate::region::ANNOUNCE_REPEAT;
use crate::region::store::{
    CollectPolicy, CollectTime, EpochRegions, RegionStore, StoreError, StoreSettings,
};
use lease::Leases;
use node_id::NodeIds;
use outbox::{Announce, Outbox};
use shutdown::Phase;
use stream::{Stream, Streams};

/// What a driver needs besides its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverOptions {
    /// Id of the first lease. Random, so that leases of a former process are unknown (TP-252, TP-270).
    pub first_lease: LeaseId,
    /// Consumers one stream may have (TP-254).
    pub max_consumers_per_stream: usize,
    /// Whether leases come with a node id; without, clients use configured ones (TP-277).
    pub assign_node_ids: bool,
}

impl DriverOptions {
    /// 1024 consumers per stream, node ids on, leases counted from the given random number.
    #[must_use]
    pub fn new(random: u64) -> Self {
        // 63 bits, so that ids can be counted up for ever.
        Self { first_lease: LeaseId::new(random >> 1), max_consumers_per_stream: 1024, assign_node_ids: true }
    }
}

/// Why a driver did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverStartError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The region directory cannot be used, or another driver serves it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a name cannot become a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not a name.
    #[error("stream name {name:?} must be 1 to 64 characters of A-Z, a-z, 0-9, `.`, `_` and `-`")]
    Invalid {
        /// As given.
        name: String,
    },
    /// The name is new and streams cannot be created.
    #[error("stream {name} is not configured, and policies.allow_dynamic_streams is off")]
    DynamicDisabled {
        /// The name.
        name: String,
    },
    /// The name is new and there is no id for it.
    #[error("no stream id is left for {name}; widen driver.stream_id_range")]
    RangeExhausted {
        /// The name.
        name: String,
    },
    /// The name is new and there is no profile for it.
    #[error("stream {name} has no profile; define one, or correct policies.default_profile")]
    NoProfile {
        /// The name.
        name: String,
    },
}

/// See the module documentation.
#[derive(Debug)]
pub struct Driver {
    config: DriverConfig,
    options: DriverOptions,
    store: RegionStore,
    streams: Streams,
    leases: Leases,
    node_ids: NodeIds,
    outbox: Outbox,
    phase: Phase,
    counters: DriverCounters,
    lease_duration: Nanos,
    /// When a failure to make regions was last logged (TP-468).
    failure_logged: Option<Nanos>,
}

impl Driver {
    /// Checks the configuration, resolves the base directory and takes the namespace's lock. No region is made yet.
    ///
    /// # Errors
    /// [`DriverStartError`]; nothing is held then.
    pub fn new(config: DriverConfig, options: DriverOptions, now: Nanos) -> Result<Self, DriverStartError> {
        config.validate()?;
        let mut store = RegionStore::open(StoreSettings::new(&config.shm, &config.policies))?;
        store.lock()?;
        let policies = &config.policies;
        let lease_duration =
            policies.lease_keepalive_interval.saturating_mul(policies.lease_expiry_grace_intervals).into();
        let mut driver = Self {
            streams: Streams::new(&config),
            leases: Leases::new(options.first_lease),
            node_ids: NodeIds::new(policies.node_id_cooldown().into()),
            outbox: Outbox::new(share_a_stream(&config.driver), lease_duration),
            phase: Phase::Running,
            counters: DriverCounters::default(),
            lease_duration,
            failure_logged: None,
            config,
            options,
            store,
        };
        if driver.config.policies.epoch_gc_on_startup {
            driver.collect_all(now);
        }
        Ok(driver)
    }

    /// The configuration the driver runs with.
    #[must_use]
    pub fn config(&self) -> &DriverConfig {
        &self.config
    }

    /// How many requests can be taken in before answers must be sent. While 0, leave requests in the transport.
    #[must_use]
    pub fn request_room(&self) -> usize {
        self.outbox.room()
    }

    /// Whether messages wait to be sent.
    #[must_use]
    pub fn has_outgoing(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Takes one message of the control stream in. Messages of others are ignored (TP-008).
    pub fn on_control(&mut self, message: &[u8], now: Nanos) {
        if self.state() == DriverState::Stopped {
            return;
        }
        let header = MessageHeader::peek(message);
        if header.is_some_and(|header| header.schema_id != wire::SCHEMA.id) {
            self.counters.foreign_messages += 1;
            return;
        }
        if !self.outbox.has_room() {
            self.counters.requests_dropped_busy += 1;
            return;
        }
        if let (Some(header), Some(correlation)) = (header, wire::peek_correlation_id(message)) {
            match header.template_id {
                ShmAttachRequest::TEMPLATE_ID => self.refuse_attach_version(correlation),
                ShmDetachRequest::TEMPLATE_ID => self.refuse_detach_version(correlation),
                _ => {}
            }
            return;
        }
        match Message::decode(message) {
            Ok(Message::ShmAttachRequest(request)) => self.on_attach(&request, now),
            Ok(Message::ShmDetachRequest(request)) => self.on_detach(&request, now),
            Ok(Message::ShmLeaseKeepalive(keepalive)) => self.on_keepalive(&keepalive, now),
            Ok(Message::ShmDriverShutdownRequest(request)) => self.on_shutdown_request(&request, now),
            // What drivers send, ours comes back on the shared stream.
            Ok(_) => self.counters.foreign_messages += 1,
            Err(error) if error.is_foreign() => self.counters.foreign_messages += 1,
            Err(error) => {
                self.counters.malformed_messages += 1;
                tracing::debug!(%error, "control message dropped");
            }
        }
    }

    /// Does what is due: expires leases, announces streams, refreshes regions, ends draining. Call it at least ten times
    /// per keepalive interval (TP-257), after the control messages that have arrived.
    pub fn on_tick(&mut self, now: Nanos) {
        if self.state() == DriverState::Stopped {
            return;
        }
        self.expire_leases(now);
        self.announce_due(now);
        self.finish_draining(now);
    }

    /// The next message for an endpoint, stamped with `now`. It stays the next until [`Driver::sent`], so that a message
    /// the transport did not take can be offered again.
    pub fn next_outgoing(&mut self, endpoint: Endpoint, now: Nanos) -> Option<&[u8]> {
        self.outbox.front(endpoint, &mut self.leases, now)
    }

    /// The message given by [`Driver::next_outgoing`] is on its way, or not to be sent at all.
    pub fn sent(&mut self, endpoint: Endpoint) {
        self.outbox.pop(endpoint);
    }

    /// The oldest waiting message, for callers that cannot be pushed back.
    pub fn pop_outgoing(&mut self, now: Nanos) -> Option<Outgoing> {
        let endpoint = self.outbox.oldest()?;
        let bytes = self.next_outgoing(endpoint, now)?.to_vec();
        self.sent(endpoint);
        Some(Outgoing { endpoint, bytes })
    }

    /// The stream of this name, if there is one.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<StreamId> {
        self.streams.by_name(name)
    }

    /// The stream of this name; a new name gets the lowest free dynamic id and the default profile. The stream then
    /// exists, with epoch 0 until somebody attaches, so that a producer and a consumer who know only the name meet.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn create_stream_by_name(&mut self, name: &str) -> Result<StreamId, NameError> {
        let owned = || name.to_owned();
        if !is_stream_name(name) {
            return Err(NameError::Invalid { name: owned() });
        }
        if let Some(known) = self.streams.by_name(name) {
            return Ok(known);
        }
        if !self.config.policies.allow_dynamic_streams {
            return Err(NameError::DynamicDisabled { name: owned() });
        }
        // 0 is no id: without a wish the lowest free one is taken.
        let id = self
            .streams
            .free_id(StreamId::new(0))
            .ok_or_else(|| NameError::RangeExhausted { name: owned() })?;
        let profile = self.config.default_profile().ok_or_else(|| NameError::NoProfile { name: owned() })?;
        self.streams.insert(id, Stream::new(Some(owned()), Arc::new(profile.clone()), true));
        Ok(id)
    }

    /// Takes a metadata message in: a producer that says the name of its stream gives it that name.
    ///
    /// A driver that was restarted learns the names of dynamic streams again this way. Only the holder of the producer
    /// lease is believed, and a name or stream that is taken stays as it is.
    pub fn on_metadata(&mut self, message: &[u8]) {
        let Ok(announce) = DataSourceAnnounce::decode(message) else { return };
        let (id, producer) = (StreamId::new(announce.stream_id), ClientId::new(announce.producer_id));
        let Some(name) = announce.name.as_str().filter(|name| is_stream_name(name)) else { return };
        if self.leases.producer_of(id).is_some_and(|lease| lease.client == producer)
            && self.streams.by_name(name).is_none()
        {
            self.streams.name_dynamic(id, name);
        }
    }

    /// Ends the driver's hold on the host: removes regions where configured, and releases the lock. Call
    /// [`Driver::shutdown`] and send what is waiting before.
    pub fn close(mut self) {
        if self.config.policies.cleanup_shm_on_exit {
            let streams: Vec<StreamId> = self.streams.iter().map(|(id, _)| id).collect();
            for id in streams {
                if let Some(regions) = self.streams.get_mut(id).and_then(|stream| stream.regions.take()) {
                    self.store.discard(regions);
                }
                self.store.remove_stream(id);
            }
        }
    }

    /// Makes a new region set the current one of its stream.
    fn install(&mut self, id: StreamId, regions: EpochRegions) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.last_epoch = regions.spec().epoch();
            stream.regions = Some(regions);
        }
    }

    /// Announces a new epoch at once, and soon again (TP-149, TP-490).
    fn announce_change(&mut self, id: StreamId, now: Nanos) {
        self.announce(id);
        let period: Nanos = self.config.policies.announce_period.into();
        self.streams.schedule(id, now.saturating_add(ANNOUNCE_REPEAT.min(period)));
    }

    fn announce_due(&mut self, now: Nanos) {
        let period: Nanos = self.config.policies.announce_period.into();
        while self.outbox.has_room()
            && let Some(id) = self.streams.next_due(now)
        {
            self.streams.schedule(id, now.saturating_add(period));
            // The party that writes the stream keeps it alive; without a producer that is the driver (TP-140).
            if self.leases.producer_of(id).is_none()
                && let Some(regions) = self.streams.get(id).and_then(|stream| stream.regions.as_ref())
            {
                regions.refresh_activity(now);
            }
            if !self.outbox.announces(id) {
                self.announce(id);
            }
        }
    }

    fn announce(&mut self, id: StreamId) {
        let Some(regions) = self.streams.get(id).and_then(|stream| stream.regions.as_ref()) else { return };
        let producer = self.leases.producer_of(id).map(|lease| lease.client);
        self.outbox.push_announce(Announce { regions: Arc::clone(regions.spec()), producer });
        self.counters.announces += 1;
    }

    /// Removes old epochs of one stream (15.7).
    fn collect(&mut self, id: StreamId, now: Nanos) {
        if !self.config.policies.epoch_gc_enabled {
            return;
        }
        let Some(stream) = self.streams.get(id) else { return };
        let mut protected: BTreeSet<_> = self.leases.epochs_of(id);
        protected.insert(stream.epoch());
        let policy = CollectPolicy::new(&self.config.policies);
        // Wall time is only compared with the times of directories.
        let time = CollectTime { monotonic: now, realtime: realtime_now() };
        let collected = self.store.collect(id, &protected, policy, time);
        self.counters.epochs_collected += collected as u64;
    }

    fn collect_all(&mut self, now: Nanos) {
        let streams: Vec<StreamId> = self.streams.iter().map(|(id, _)| id).collect();
        for id in streams {
            self.collect(id, now);
        }
    }
}

/// Whether control messages and announces go into one Aeron stream. IPC streams are told apart by their id alone.
fn share_a_stream(driver: &DriverSection) -> bool {
    let (control, announce) = (&driver.control, &driver.announce);
    let same_channel =
        control.channel == announce.channel || (control.channel.is_ipc() && announce.channel.is_ipc());
    control.stream_id == announce.stream_id && same_channel
}

fn is_stream_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(is_allowed)
}
