//! The conductor's side of one consumer.

use tidegate_sbe::control::{
    ConsumerConfig as ConfigMessage, ConsumerHello, Mode, QosConsumer, ShmPoolAnnounce,
};
use tidegate_sbe::driver::{self, Role};
use tidegate_shm::clock::Nanos;
use tidegate_shm::sync::{Arc, AtomicBool, AtomicU64, Ordering};

use super::Shared;
use super::descriptors::Descriptors;
use super::link::{ControlSender, Link, send_periodic};
use super::producers::hugepages;
use crate::client::adding::Completion;
use crate::client::consumer::{Consumer, ConsumerConfig, ConsumerShared, ConsumerStatus, RegionOrigin};
use crate::client::error::ClientError;
use crate::client::event::ClientEvent;
use crate::client::handoff::Handoff;
use crate::client::lease::{LeaseEvent, LeaseLoss, LeaseMachine, LeaseRequest};
use crate::client::mapping::{
    AnnounceRejection, Arrival, MappingCommand, MappingMachine, MappingState, Observed, Source, UnmapReason,
};
use crate::client::random::Random;
use crate::frame::MappedEpoch;
use crate::ids::{ClientId, Epoch, StreamId};
use crate::region::{MapError, RegionSpec};
use crate::transport::{Opening, Subscription, TransportError};

/// A condition that repeats is logged this often at most (TP-468).
const WARNING_PAUSE: Nanos = Nanos::from_secs(1);

/// One consumer of the client.
pub(super) struct ConsumerEntry {
    shared: Arc<ConsumerShared>,
    completion: Option<Completion<Consumer>>,
    /// `None` without a driver.
    lease: Option<LeaseMachine>,
    client: ClientId,
    /// The stream of the lease, which may be another one than was asked for (IP-38).
    stream: StreamId,
    mapping: MappingMachine,
    mapped: Option<Arc<MappedEpoch>>,
    descriptors: Descriptors<Box<dyn Subscription>>,
    /// Regions configured by hand that were not tried yet.
    fixed: Option<RegionSpec>,
    next_periodic: Nanos,
    /// The epoch whose refusal was told last (TP-067).
    told_failure: Option<Epoch>,
    /// When a malformed announce may be logged again (TP-468).
    next_warning: Nanos,
    gone: bool,
}

impl ConsumerEntry {
    pub(super) fn new(
        config: ConsumerConfig,
        completion: Completion<Consumer>,
        shared: &Shared,
        now: Nanos,
    ) -> Self {
        let mut random = Random::new();
        let (lease, client, fixed) = match &config.origin {
            RegionOrigin::Driver => {
                let request = LeaseRequest {
                    stream: Some(config.stream),
                    role: Role::Consumer,
                    client: config.client,
                    create: config.create,
                    hugepages: hugepages(config.huge_pages),
                    desired_node: None,
                };
                let lease = LeaseMachine::new(request, &shared.context, random);
                let client = lease.client();
                (Some(lease), client, None)
            }
            origin => {
                let client = config.client.unwrap_or_else(|| random.client_id());
                let fixed = match origin {
                    RegionOrigin::Fixed(spec) => Some(spec.clone()),
                    _ => None,
                };
                (None, client, fixed)
            }
        };
        let mapping =
            MappingMachine::new(config.stream, lease.is_some(), config.supports_shm, &shared.context, now);
        let status = ConsumerStatus {
            stream: config.stream,
            client: lease.is_none().then_some(client),
            node: None,
            state: mapping.state(),
            fallback_uri: None,
            loss: None,
            refusal: None,
            map_error: None,
        };
        Self {
            stream: config.stream,
            shared: Arc::new(ConsumerShared {
                config,
                mapping: Handoff::default(),
                descriptors: Handoff::default(),
                status: std::sync::Mutex::new(status),
                regressed: AtomicU64::new(0),
                released: AtomicBool::new(false),
                closed: AtomicBool::new(false),
            }),
            completion: Some(completion),
            lease,
            client,
            mapping,
            mapped: None,
            descriptors: Descriptors::Missing(now),
            fixed,
            next_periodic: now,
            told_failure: None,
            next_warning: now,
            gone: false,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// The application, or the client, does not want it any more.
    pub(super) fn release(&self) {
        // Release: pairs with the Acquire in `tick`.
        self.shared.released.store(true, Ordering::Release);
    }

    /// Nothing more is done for it; a handle that is still held learns that it is closed.
    pub(super) fn abandon(&mut self) {
        // Release: pairs with the Acquire in the handle, which looks once its descriptors are taken away.
        self.shared.closed.store(true, Ordering::Release);
        self.drop_mapping();
        self.shared.descriptors.put(None);
    }

    /// Reports the failure to whoever waits for the consumer, if somebody does, and gives it up then.
    pub(super) fn fail(&mut self, error: &TransportError) {
        if let Some(completion) = self.completion.take() {
            self.release();
            completion.complete(Err(error.clone().into()));
        }
    }

    pub(super) fn on_transport_lost(&mut self, shared: &Shared, now: Nanos) {
        self.descriptors = Descriptors::Missing(now);
        self.shared.descriptors.put(None);
        let event = self.lease.as_mut().and_then(|lease| lease.on_transport_lost(now));
        if let Some(event) = event {
            self.on_lease_event(event, shared, now, &mut |_| false);
        }
    }

    pub(super) fn on_driver_message(
        &mut self,
        message: &driver::Message<'_>,
        shared: &Shared,
        now: Nanos,
        send: &mut dyn FnMut(&[u8]) -> bool,
    ) {
        let Some(lease) = &mut self.lease else { return };
        if let Some(event) = lease.on_message(message, now, send) {
            self.on_lease_event(event, shared, now, send);
        }
        if let driver::Message::ShmLeaseRevoked(notice) = message
            && notice.role == Role::Producer
            && notice.stream_id == self.stream().get()
        {
            let command = self.mapping.on_producer_revoked(notice.timestamp_ns, now);
            self.execute(command, shared, now, send);
        }
    }

    pub(super) fn on_config(&mut self, config: &ConfigMessage<'_>, shared: &Shared, now: Nanos) {
        if config.stream_id != self.stream().get() || config.consumer_id != self.client.get() {
            return;
        }
        let before = (self.mapping.state(), self.mapping.fallback_uri().cloned());
        let command = self.mapping.on_config(config);
        self.execute(command, shared, now, &mut |_| false);
        let after = (self.mapping.state(), self.mapping.fallback_uri().cloned());
        // Configurations are repeated; the application hears of changes.
        if after.0 == MappingState::Fallback && after != before {
            shared.tell(ClientEvent::Fallback { stream: self.stream(), uri: after.1 });
        }
    }

    pub(super) fn on_announce(
        &mut self,
        announce: &ShmPoolAnnounce<'_>,
        arrival: Arrival,
        image_alive: &dyn Fn(Source) -> bool,
        shared: &Shared,
        control: &mut ControlSender,
    ) {
        // With a driver, only the holder of a lease may map.
        if self.lease.as_ref().is_some_and(|lease| lease.grant().is_none()) {
            return;
        }
        match self.mapping.on_announce(announce, arrival, image_alive) {
            Ok(command) => {
                self.execute(command, shared, arrival.monotonic, &mut |bytes| control.send(bytes));
            }
            Err(AnnounceRejection::OtherStream) => {}
            Err(AnnounceRejection::Structure(error)) if arrival.monotonic >= self.next_warning => {
                self.next_warning = arrival.monotonic.saturating_add(WARNING_PAUSE);
                tracing::warn!(stream = %self.stream(), %error, "an announce was ignored");
            }
            Err(rejection) => {
                tracing::debug!(stream = %self.stream(), %rejection, "an announce was ignored");
            }
        }
    }

    pub(super) fn tick(&mut self, link: &mut Link, shared: &Shared, now: Nanos) -> usize {
        self.open_descriptors(link, shared, now);
        let mut send = |bytes: &[u8]| link.control.send(bytes);
        if self.is_unwanted() {
            self.close(shared, now, &mut send);
        }
        let event = self.lease.as_mut().and_then(|lease| lease.tick(now, &mut send));
        if let Some(event) = event {
            self.on_lease_event(event, shared, now, &mut send);
        }
        if self.gone {
            return 0;
        }
        if let Some(spec) = self.fixed.take() {
            self.execute(Some(MappingCommand::Map(spec)), shared, now, &mut send);
        }
        // Acquire: pairs with the Release of the reader.
        let regressed = self.shared.regressed.swap(0, Ordering::Acquire);
        if regressed != 0 {
            let command = self.mapping.on_seq_regression(Epoch::new(regressed));
            self.execute(command, shared, now, &mut send);
        }
        let leased = self.lease.as_ref().is_some_and(|lease| lease.grant().is_some());
        let command = self.mapping.tick(now, leased);
        self.execute(command, shared, now, &mut send);
        self.complete_if_ready(shared, leased);
        self.publish_state();
        if now >= self.next_periodic && (leased || self.lease.is_none()) {
            self.next_periodic = now.saturating_add(shared.context.announce_period.into());
            self.send_periodic(link);
            return 1;
        }
        0
    }

    /// As `tick`, while there is no connection.
    pub(super) fn tick_unlinked(&mut self, shared: &Shared, now: Nanos) {
        if self.is_unwanted() {
            self.close(shared, now, &mut |_| false);
        }
    }

    fn is_unwanted(&self) -> bool {
        // Acquire: pairs with the Release of the handle.
        self.shared.released.load(Ordering::Acquire)
            || self.completion.as_ref().is_some_and(Completion::is_abandoned)
    }

    fn complete_if_ready(&mut self, shared: &Shared, leased: bool) {
        let attached = leased || self.lease.is_none();
        if attached
            && self.descriptors.is_handed_over()
            && let Some(completion) = self.completion.take()
        {
            let consumer = Consumer::new(Arc::clone(&self.shared), shared.context.max_outstanding_seq_gap);
            completion.complete(Ok(consumer));
        }
    }

    fn on_lease_event(
        &mut self,
        event: LeaseEvent,
        shared: &Shared,
        now: Nanos,
        send: &mut dyn FnMut(&[u8]) -> bool,
    ) {
        match event {
            LeaseEvent::Granted(grant) => {
                self.client = grant.client;
                self.stream = grant.stream;
                {
                    let mut status = self.shared.lock();
                    status.stream = grant.stream;
                    status.client = Some(grant.client);
                    status.node = grant.node;
                    status.loss = None;
                    status.refusal = None;
                }
                let (stream, client, epoch) = (grant.stream, grant.client, grant.regions.epoch());
                shared.tell(ClientEvent::Attached { stream, client, epoch });
                let command = self.mapping.on_grant(&grant.regions, now);
                self.execute(command, shared, now, send);
            }
            LeaseEvent::Lost(loss) => {
                let command = self.mapping.on_lease_lost();
                self.execute(command, shared, now, send);
                self.shared.lock().loss = Some(loss.clone());
                shared.tell(ClientEvent::LeaseLost { stream: self.stream(), loss });
            }
            LeaseEvent::Refused(refusal) => {
                if let Some(completion) = self.completion.take() {
                    self.gone = true;
                    completion.complete(Err(ClientError::Refused(refusal)));
                    return;
                }
                self.shared.lock().refusal = Some(refusal.clone());
                shared.tell(ClientEvent::Refused { stream: self.stream(), refusal });
            }
            LeaseEvent::Malformed(error) => match self.completion.take() {
                Some(completion) => {
                    self.release();
                    completion.complete(Err(error.into()));
                }
                None => tracing::warn!(stream = %self.stream(), %error, "trying again"),
            },
            LeaseEvent::Closed => self.gone = true,
        }
    }

    /// Carries out commands until the mapping machine has no more.
    fn execute(
        &mut self,
        command: Option<MappingCommand>,
        shared: &Shared,
        now: Nanos,
        send: &mut dyn FnMut(&[u8]) -> bool,
    ) {
        let mut next = command;
        while let Some(command) = next.take() {
            match command {
                MappingCommand::Map(spec) => self.map(spec, shared, now),
                MappingCommand::MapIfActive(spec, quiet) => match shared.opener.probe_activity(&spec) {
                    Ok(activity) if activity != quiet => next = Some(MappingCommand::Map(spec)),
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "a quiet region cannot be looked at"),
                },
                MappingCommand::Unmap(reason) => self.unmap(reason, shared),
                MappingCommand::Recheck => {
                    if let Some(mapped) = &self.mapped {
                        let regions = mapped.regions();
                        let observed =
                            Observed { unchanged: regions.unchanged(), activity: regions.activity() };
                        next = self.mapping.on_superblocks(observed, now);
                    }
                }
                MappingCommand::RenewLease => {
                    self.unmap(UnmapReason::LeaseLost, shared);
                    let event =
                        self.lease.as_mut().and_then(|lease| lease.renew(LeaseLoss::DriverSilent, now, send));
                    if let Some(LeaseEvent::Lost(loss)) = event {
                        self.shared.lock().loss = Some(loss.clone());
                        shared.tell(ClientEvent::LeaseLost { stream: self.stream(), loss });
                    }
                }
            }
        }
        self.publish_state();
    }

    fn map(&mut self, spec: RegionSpec, shared: &Shared, now: Nanos) {
        if self.mapped.is_some() {
            self.unmap(UnmapReason::NewEpoch, shared);
        }
        let epoch = spec.epoch();
        match shared.opener.open_read(spec.clone()) {
            Ok(regions) => {
                let mapped = Arc::new(MappedEpoch::new(regions));
                self.mapping.mapped(spec, now);
                self.shared.mapping.put(Some(Arc::clone(&mapped)));
                self.mapped = Some(mapped);
                self.shared.lock().map_error = None;
                self.next_periodic = now;
                shared.tell(ClientEvent::Mapped { stream: self.stream(), epoch });
            }
            Err(error) => self.map_failed(epoch, error, shared),
        }
    }

    fn map_failed(&mut self, epoch: Epoch, error: MapError, shared: &Shared) {
        self.mapping.map_failed(epoch);
        self.shared.lock().map_error = Some(error.to_string());
        if self.told_failure != Some(epoch) {
            self.told_failure = Some(epoch);
            tracing::warn!(stream = %self.stream(), %epoch, %error, "regions were refused");
            shared.tell(ClientEvent::MapFailed { stream: self.stream(), epoch, error: error.clone() });
        }
        // Whoever waits for the consumer learns that it will not work (TP-184); the next tick gives the lease back.
        if self.mapping.state() != MappingState::Fallback
            && let Some(completion) = self.completion.take()
        {
            self.release();
            completion.complete(Err(error.into()));
        }
    }

    fn unmap(&mut self, reason: UnmapReason, shared: &Shared) {
        if self.drop_mapping() {
            shared.tell(ClientEvent::Unmapped { stream: self.stream(), reason });
        }
    }

    fn drop_mapping(&mut self) -> bool {
        let Some(mapped) = self.mapped.take() else { return false };
        mapped.stop();
        self.shared.mapping.put(None);
        true
    }

    fn close(&mut self, shared: &Shared, now: Nanos, send: &mut dyn FnMut(&[u8]) -> bool) {
        let event = match &mut self.lease {
            Some(lease) => lease.close(now, send),
            None => Some(LeaseEvent::Closed),
        };
        self.drop_mapping();
        if let Some(event) = event {
            self.on_lease_event(event, shared, now, send);
        }
    }

    fn open_descriptors(&mut self, link: &mut Link, shared: &Shared, now: Nanos) {
        let endpoint = &shared.context.descriptor;
        let transport = &*link.transport;
        let opened = self.descriptors.advance(transport, now, shared.context.announce_period, || {
            // A consumer that is not polled must not hold up the producer and with it all other consumers.
            Opening::subscription(transport, &endpoint.channel.untethered(), endpoint.stream)
        });
        match opened {
            Ok(None) => {}
            Ok(subscription) => self.shared.descriptors.put(subscription),
            Err(error) => {
                self.fail(&error);
            }
        }
    }

    /// Hello and QoS (TP-169, TP-213).
    fn send_periodic(&mut self, link: &mut Link) {
        let config = &self.shared.config;
        let mode = if config.max_rate_hz == 0 { Mode::Stream } else { Mode::RateLimited };
        let hello = ConsumerHello {
            stream_id: self.stream().get(),
            consumer_id: self.client.get(),
            supports_shm: config.supports_shm,
            supports_progress: false,
            mode,
            max_rate_hz: config.max_rate_hz,
            expected_layout_version: 0,
            progress_interval_us: None,
            progress_bytes_delta: None,
            progress_major_delta_units: None,
            descriptor_stream_id: 0,
            control_stream_id: 0,
            descriptor_channel: "".into(),
            control_channel: "".into(),
        };
        if let Ok(message) = hello.to_vec() {
            link.control.send(&message);
        }
        let stats = self.mapped.as_ref().map(|mapped| mapped.stats());
        // Relaxed: statistics.
        let read = |counter: Option<&AtomicU64>| counter.map_or(0, |value| value.load(Ordering::Relaxed));
        let qos = QosConsumer {
            stream_id: self.stream().get(),
            consumer_id: self.client.get(),
            epoch: self.mapped.as_ref().map_or(0, |mapped| mapped.regions().spec().epoch().get()),
            last_seq_seen: stats.and_then(|stats| stats.last_seq()).map_or(0, |seq| seq.get()),
            drops_gap: read(stats.map(|stats| &stats.gap)),
            drops_late: read(stats.map(|stats| &stats.late)),
            mode,
        };
        if let Ok(message) = qos.to_vec() {
            send_periodic(&mut *link.qos, "QosConsumer", &message);
        }
    }

    fn publish_state(&self) {
        let mut status = self.shared.lock();
        status.state = self.mapping.state();
        if status.fallback_uri.as_ref() != self.mapping.fallback_uri() {
            status.fallback_uri = self.mapping.fallback_uri().cloned();
        }
    }

    fn stream(&self) -> StreamId {
        self.stream
    }
}
