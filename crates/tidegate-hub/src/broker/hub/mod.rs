//! [`MessageHub`]: what a process holds to talk to the broker and to other processes (13.6).

mod channels;
mod config;
mod counting;
mod keeper;
mod link;
mod notify;
mod retry;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tidegate_mq::{Context, PublicKey, Sub, options::Mechanism};
use tidegate_shm::region::AccessError;

pub use self::{
    channels::AttachViaError,
    config::{HubConfig, HubCounters, HubCurve},
    counting::CountedIn,
    keeper::{Attachment, Registration},
    notify::{EventStream, Notifications, Notifier, NotifierConfig, NotifierCurve},
    retry::RetryPolicy,
};
use self::{
    keeper::{Attached, Keeper},
    link::{Asking, Link},
};
use super::{
    error::HubError,
    proof::Verifier,
    wire::{
        AttachAck, AttachNack, ChannelId, ChannelName, ChannelSummary, ChecksumErrorReport, ClientId, Detach,
        Discover, Discovered, Feature, HandoverAck, HandoverCancel, HandoverNotify, Heartbeat, Label, List,
        Listing, MetricsQuery, ReadyNotify, Register, Registered, RegistryCounters, RequestBody, SchemaHash,
        SchemaMode, SchemaQuery, SchemaRecord, SchemaVersion,
    },
};
use crate::block::Block;

/// A client of the broker. Clones are the same client; all calls may be made from any thread (DH-202).
///
/// Requests go one after the other, each with a deadline that includes the time it waits for its turn. Events and
/// notifications have sockets of their own, so that a slow broker delays none of them. Connections are made again by
/// themselves; what was registered is registered again when the broker has restarted (DH-183).
#[derive(Clone, Debug)]
pub struct MessageHub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: Arc<Link>,
    keeper: Mutex<Option<Arc<Keeper>>>,
    context: Context,
}

/// What to discover.
#[derive(Clone, Debug)]
pub struct Discovery {
    channel: ChannelName,
    verifier: Option<Verifier>,
    schema_hash: Option<SchemaHash>,
    schema_version: Option<SchemaVersion>,
    schema_mode: SchemaMode,
    want_sealed_secret: bool,
}

impl Discovery {
    /// Of this channel, with whatever schema.
    pub fn of(channel: ChannelName) -> Self {
        Self {
            channel,
            verifier: None,
            schema_hash: None,
            schema_version: None,
            schema_mode: SchemaMode::Strict,
            want_sealed_secret: false,
        }
    }

    /// Proves that the secret of the channel is known (level 1 and more).
    pub fn verifier(mut self, verifier: Verifier) -> Self {
        self.verifier = Some(verifier);
        self
    }

    /// Has the broker say early that the schema is another one. Whoever attaches checks the block all the same (DH-177).
    pub fn schema(mut self, hash: SchemaHash, version: SchemaVersion, mode: SchemaMode) -> Self {
        (self.schema_hash, self.schema_version, self.schema_mode) = (Some(hash), Some(version), mode);
        self
    }

    /// Asks for the secret sealed for this client's CURVE key (DH-208).
    pub fn sealed_secret(mut self) -> Self {
        self.want_sealed_secret = true;
        self
    }

    fn body(&self) -> RequestBody {
        RequestBody::Discover(Discover {
            channel_name: self.channel.clone(),
            schema_hash: self.schema_hash,
            schema_version: self.schema_version,
            schema_mode: self.schema_mode,
            secret_proof: None,
            want_sealed_secret: self.want_sealed_secret,
        })
    }
}

impl MessageHub {
    /// A client of the broker at `config.endpoint`, which need not run yet.
    ///
    /// # Errors
    /// [`HubError::Transport`] for an endpoint that cannot be understood, [`HubError::System`] without randomness.
    pub fn connect(config: HubConfig) -> Result<Self, HubError> {
        let context = Context::new();
        let link = Arc::new(Link::new(config, &context)?);
        Ok(Self { inner: Arc::new(Inner { link, keeper: Mutex::new(None), context }) })
    }

    /// Registers a channel and keeps it registered: when the broker has restarted or forgotten it, it is registered
    /// again. With a lease heartbeats are sent. Ends with [`Registration::deregister`] or when the [`Registration`] is dropped.
    ///
    /// `verifier` is of the channel's secret, `key` its id and epoch; `None` at level 0. Proof and nonce are made here.
    ///
    /// # Errors
    /// What the broker refuses with ([`HubError::Conflict`], [`HubError::AuthFailed`], [`HubError::BadRequest`]), and
    /// [`HubError::Timeout`] or [`HubError::Disconnected`] when it does not answer; nothing is kept then.
    pub fn register(
        &self,
        mut register: Register,
        verifier: Option<Verifier>,
        timeout: Duration,
    ) -> Result<Registration, HubError> {
        register.shared_secret_hash = verifier.as_ref().map(Verifier::to_field);
        let keeper = self.keeper()?;
        let deadline = Instant::now() + timeout;
        let block = register.block_uuid;
        let asking = Asking { body: RequestBody::Register(Box::new(register)), verifier };
        let registered: Registered = self.inner.link.ask(&asking, deadline)?;
        Ok(Keeper::keep(keeper, block, asking, registered))
    }

    /// Asks where a channel is; tries again only as `retry` says (DH-196). Every attempt takes at most `timeout`.
    ///
    /// # Errors
    /// [`HubError::NotFound`], [`HubError::Pending`], [`HubError::AuthFailed`], [`HubError::SchemaMismatch`],
    /// [`HubError::Timeout`], [`HubError::Disconnected`]: that of the last attempt.
    pub fn discover(
        &self,
        discovery: &Discovery,
        timeout: Duration,
        retry: RetryPolicy,
    ) -> Result<Discovered, HubError> {
        retry.run(|left| {
            let asking = Asking { body: discovery.body(), verifier: discovery.verifier.clone() };
            self.inner.link.ask(&asking, Instant::now() + left.map_or(timeout, |left| left.min(timeout)))
        })
    }

    /// Says that a consumer has attached. `Unsupported` when this broker does not care.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn attach_ack(&self, body: AttachAck, timeout: Duration) -> Result<(), HubError> {
        self.request(RequestBody::AttachAck(body), None, timeout)
    }

    /// Says that a consumer could not attach, and why.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn attach_nack(&self, body: AttachNack, timeout: Duration) -> Result<(), HubError> {
        self.request(RequestBody::AttachNack(body), None, timeout)
    }

    /// Says that a consumer has left.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn detach(&self, body: Detach, timeout: Duration) -> Result<(), HubError> {
        self.request(RequestBody::Detach(body), None, timeout)
    }

    /// Renews the leases of this client in a channel. For producers this is done by itself.
    ///
    /// # Errors
    /// As [`request`](Self::request); [`HubError::UnknownClient`] when nothing of this client is there.
    pub fn heartbeat(&self, body: Heartbeat, timeout: Duration) -> Result<(), HubError> {
        self.request(RequestBody::Heartbeat(body), None, timeout)
    }

    /// Says that the first data of a channel are there.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn ready_notify(&self, body: ReadyNotify, timeout: Duration) -> Result<(), HubError> {
        self.request(RequestBody::ReadyNotify(body), None, timeout)
    }

    /// Announces a handover or that it is done (15.2); `verifier` is of the old block's secret.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn handover_notify(
        &self,
        body: HandoverNotify,
        verifier: Option<Verifier>,
        timeout: Duration,
    ) -> Result<(), HubError> {
        self.request(RequestBody::HandoverNotify(Box::new(body)), verifier, timeout)
    }

    /// Answers an announced handover.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn handover_ack(&self, body: HandoverAck, timeout: Duration) -> Result<(), HubError> {
        self.request(RequestBody::HandoverAck(body), None, timeout)
    }

    /// Takes an announced handover back; `verifier` is of the old block's secret.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn handover_cancel(
        &self,
        body: HandoverCancel,
        verifier: Option<Verifier>,
        timeout: Duration,
    ) -> Result<(), HubError> {
        self.request(RequestBody::HandoverCancel(body), verifier, timeout)
    }

    /// Reports a slot whose digest was wrong (DH-157).
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn report_checksum_error(
        &self,
        body: ChecksumErrorReport,
        timeout: Duration,
    ) -> Result<(), HubError> {
        self.request(RequestBody::ChecksumErrorReport(body), None, timeout)
    }

    /// The schema of a channel, or a schema by its hash.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn schema(&self, body: SchemaQuery, timeout: Duration) -> Result<SchemaRecord, HubError> {
        self.ask(RequestBody::Schema(body), None, timeout)
    }

    /// The channels whose names begin with `prefix`, in order. Asks as often as one message does not hold them.
    ///
    /// # Errors
    /// As [`request`](Self::request); `timeout` is for all of it.
    pub fn list(&self, prefix: Option<Label>, timeout: Duration) -> Result<Vec<ChannelSummary>, HubError> {
        let deadline = Instant::now() + timeout;
        let (mut channels, mut after) = (Vec::<ChannelSummary>::new(), None);
        loop {
            let body = RequestBody::List(List { prefix: prefix.clone(), after: after.clone() });
            let listing: Listing = self.inner.link.ask(&Asking { body, verifier: None }, deadline)?;
            let last = listing.channels.last().map(|channel| channel.channel_name.clone());
            channels.extend(listing.channels);
            // A broker that lists nothing new would be asked for ever.
            if !listing.truncated || last <= after {
                return Ok(channels);
            }
            after = last;
        }
    }

    /// The numbers of the broker's registry.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn broker_counters(&self, timeout: Duration) -> Result<RegistryCounters, HubError> {
        self.ask(RequestBody::Metrics(MetricsQuery::default()), None, timeout)
    }

    /// Asks whether the broker answers, and which extensions it has.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn ping(&self, timeout: Duration) -> Result<Vec<Feature>, HubError> {
        self.inner.link.ping(Instant::now() + timeout)
    }

    /// Sends a request and waits for the reply that belongs to it; the reply to an abandoned one is dropped (DH-188).
    ///
    /// # Errors
    /// The refusal, [`HubError::Unsupported`] for an extension that the broker lacks, [`HubError::Timeout`],
    /// [`HubError::Disconnected`], [`HubError::KeyRefused`], [`HubError::Forked`]. The hub stays usable (DH-204).
    pub fn request(
        &self,
        body: RequestBody,
        verifier: Option<Verifier>,
        timeout: Duration,
    ) -> Result<(), HubError> {
        let _: Nothing = self.ask(body, verifier, timeout)?;
        Ok(())
    }

    fn ask<T: serde::de::DeserializeOwned>(
        &self,
        body: RequestBody,
        verifier: Option<Verifier>,
        timeout: Duration,
    ) -> Result<T, HubError> {
        self.inner.link.ask(&Asking { body, verifier }, Instant::now() + timeout)
    }

    /// Events of a channel from the broker at `events_endpoint`, as registrations and discoveries name it.
    ///
    /// # Errors
    /// [`HubError::Transport`], [`HubError::Forked`].
    pub fn events(&self, events_endpoint: &str, channel: &ChannelName) -> Result<EventStream, HubError> {
        let topic = super::wire::Event::topic(channel);
        let sub = self.create_sub(events_endpoint, topic.as_bytes(), self.inner.link.mechanism())?;
        Ok(EventStream::new(sub, events_endpoint, channel.clone(), self.inner.link.clone()))
    }

    /// A publisher of notifications about a block, bound to `endpoint` (14).
    ///
    /// # Errors
    /// [`HubError::Transport`] when it cannot be bound, [`HubError::Forked`], [`HubError::System`] without a thread.
    pub fn create_pub(&self, endpoint: &str, config: NotifierConfig) -> Result<Notifier, HubError> {
        self.inner.link.check_process()?;
        Notifier::bind(&self.inner.context, endpoint, config, self.inner.link.clone())
    }

    /// Notifications about a channel from the publisher at `endpoint`, which has the CURVE key `key` if it has one:
    /// `zmq_endpoint` and `zmq_pubkey` of a discovery.
    ///
    /// # Errors
    /// [`HubError::Transport`], [`HubError::Forked`].
    pub fn notifications(
        &self,
        endpoint: &str,
        channel: &ChannelName,
        key: Option<PublicKey>,
    ) -> Result<Notifications, HubError> {
        let mechanism = self.inner.link.mechanism_to_peer(key);
        let sub = self.create_sub(endpoint, channel.as_str().as_bytes(), mechanism)?;
        Ok(Notifications::new(sub, endpoint, channel.clone(), self.inner.link.clone()))
    }

    fn create_sub(&self, endpoint: &str, topic: &[u8], mechanism: Mechanism) -> Result<Sub, HubError> {
        self.inner.link.check_process()?;
        notify::subscribe(&self.inner.context, endpoint, topic, mechanism)
    }

    /// Counts failures in the metrics of `block` too, until the result is dropped (DH-205).
    ///
    /// # Errors
    /// The block is attached by an inspector, who may count nothing.
    pub fn count_in(&self, block: &Block) -> Result<CountedIn, AccessError> {
        self.inner.link.blocks.add(block)
    }

    /// Tells the broker of a consumer, and again whenever it forgot. A broker that does not care is not told.
    fn keep_attached(
        &self,
        attached: Attached,
        channel_id: ChannelId,
        timeout: Duration,
    ) -> Result<Attachment, HubError> {
        let keeper = self.keeper()?;
        match self.attach_ack(attached.ack(channel_id), timeout) {
            Ok(()) | Err(HubError::Unsupported(_)) => {}
            Err(error) => {
                tracing::warn!(%error, "the broker does not know of a consumer; it reads all the same")
            }
        }
        Ok(Keeper::keep_attached(keeper, attached, channel_id))
    }

    /// Who this is.
    pub fn client_id(&self) -> &ClientId {
        self.inner.link.client_id()
    }

    /// The numbers of this hub.
    pub fn counters(&self) -> HubCounters {
        self.inner.link.counters()
    }

    /// The broker's start that answered last; `None` before the first reply.
    pub fn broker_epoch(&self) -> Option<Label> {
        self.inner.link.epoch()
    }

    /// The keeper of this hub, started when the first registration needs it.
    fn keeper(&self) -> Result<Arc<Keeper>, HubError> {
        let mut keeper = self.inner.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keeper.as_ref() {
            return Ok(keeper.clone());
        }
        let started = Arc::new(Keeper::start(self.inner.link.clone())?);
        Ok(keeper.insert(started).clone())
    }
}

/// What an OK without content is read as.
#[derive(serde::Deserialize)]
struct Nothing {}
