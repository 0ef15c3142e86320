//! The conductor's side of one producer.

use std::sync::PoisonError;

use tidegate_sbe::control::{DataSourceAnnounce, QosProducer, ShmPoolAnnounce};
use tidegate_sbe::driver::{self, HugepagesPolicy, Role};
use tidegate_shm::clock::Nanos;
use tidegate_shm::sync::{Arc, AtomicBool, Ordering};

use super::Shared;
use super::descriptors::Descriptors;
use super::link::{Link, send_periodic};
use crate::client::adding::Completion;
use crate::client::error::ClientError;
use crate::client::event::ClientEvent;
use crate::client::handoff::Handoff;
use crate::client::lease::{Grant, LeaseEvent, LeaseLoss, LeaseMachine, LeaseRequest};
use crate::client::mapping::Source;
use crate::client::producer::{
    Attachment, Producer, ProducerConfig, ProducerShared, ProducerStats, ProducerStatus, RegionSource,
};
use crate::client::random::Random;
use crate::frame::Fence;
use crate::ids::{ClientId, Epoch, StreamId};
use crate::region::store::{EpochRegions, RegionStore};
use crate::region::{ANNOUNCE_REPEAT, RegionSpec};
use crate::transport::{Opening, Publication, TransportError};

/// One producer of the client.
pub(super) struct ProducerEntry {
    shared: Arc<ProducerShared>,
    completion: Option<Completion<Producer>>,
    authority: Authority,
    attachment: Option<Arc<Attachment>>,
    descriptors: Descriptors<Box<dyn Publication>>,
    announces: Option<Opening<Box<dyn Publication>>>,
    announce_out: Option<Box<dyn Publication>>,
    heard: Nanos,
    next_periodic: Nanos,
    /// Whether the next announce is the first one on its publication, so that another one follows soon (TP-490).
    first_announce: bool,
    gone: bool,
}

/// Who allows the producer to write.
enum Authority {
    /// A driver, by lease.
    Lease(Box<LeaseMachine>),
    /// Itself: it made the regions, and removes them at the end.
    Own { store: Box<RegionStore>, regions: Option<EpochRegions>, client: ClientId },
}

impl Authority {
    /// A request for a lease, or own regions ready to write.
    fn new(
        config: &ProducerConfig,
        shared: &Shared,
        now: Nanos,
    ) -> Result<(Self, Option<Attachment>), ClientError> {
        let mut random = Random::new();
        match &config.regions {
            RegionSource::Driver => {
                let request = LeaseRequest {
                    stream: config.stream,
                    role: Role::Producer,
                    client: config.client,
                    create: true,
                    hugepages: hugepages(config.huge_pages),
                    desired_node: config.node,
                };
                let lease = LeaseMachine::new(request, &shared.context, random);
                Ok((Self::Lease(Box::new(lease)), None))
            }
            RegionSource::Own { store, profile } => {
                let stream = config.stream.ok_or(ClientError::StreamNeeded)?;
                let store = RegionStore::open(store.clone())?;
                let regions = store.create_epoch(stream, profile, Epoch::NONE, now)?;
                let mapped = match shared.opener.open_write(RegionSpec::clone(regions.spec())) {
                    Ok(mapped) => mapped,
                    Err(error) => {
                        store.discard(regions);
                        return Err(error.into());
                    }
                };
                let client = config.client.unwrap_or_else(|| random.client_id());
                let attachment = Attachment::new(mapped, Fence::unlimited());
                Ok((Self::Own { store: Box::new(store), regions: Some(regions), client }, Some(attachment)))
            }
        }
    }
}

impl ProducerEntry {
    /// Starts to attach, or makes its own regions; `None` when that fails, which whoever waits is told.
    pub(super) fn new(
        config: ProducerConfig,
        completion: Completion<Producer>,
        shared: &Shared,
        now: Nanos,
    ) -> Option<Self> {
        let (authority, attachment) = match Authority::new(&config, shared, now) {
            Ok(made) => made,
            Err(error) => {
                completion.complete(Err(error));
                return None;
            }
        };
        let status = ProducerStatus { stream: config.stream, ..ProducerStatus::default() };
        let entry = Self {
            shared: Arc::new(ProducerShared {
                config,
                regions: Handoff::default(),
                publication: Handoff::default(),
                status: std::sync::Mutex::new(status),
                stats: ProducerStats::default(),
                released: AtomicBool::new(false),
                closed: AtomicBool::new(false),
            }),
            completion: Some(completion),
            authority,
            attachment: None,
            descriptors: Descriptors::Missing(now),
            announces: None,
            announce_out: None,
            heard: now,
            next_periodic: now,
            first_announce: false,
            gone: false,
        };
        Some(match attachment {
            None => entry,
            Some(attachment) => entry.with_own(Arc::new(attachment), shared),
        })
    }

    fn with_own(mut self, attachment: Arc<Attachment>, shared: &Shared) -> Self {
        let spec = attachment.regions.spec();
        let (stream, epoch, client) = (spec.stream(), spec.epoch(), self.client());
        self.hand_over(attachment);
        self.set_status(|status| {
            status.stream = Some(stream);
            status.client = Some(client);
            status.epoch = Some(epoch);
        });
        shared.tell(ClientEvent::Attached { stream, client, epoch });
        self
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
    pub(super) fn abandon(&self) {
        // Release: pairs with the Acquire in the handle, which looks once its regions are taken away.
        self.shared.closed.store(true, Ordering::Release);
        self.revoke();
        self.shared.publication.put(None);
    }

    pub(super) fn on_driver_message(
        &mut self,
        message: &driver::Message<'_>,
        shared: &Shared,
        now: Nanos,
        send: &mut dyn FnMut(&[u8]) -> bool,
    ) {
        let Authority::Lease(lease) = &mut self.authority else { return };
        if let Some(event) = lease.on_message(message, now, send) {
            self.on_lease_event(event, shared, now, send);
        }
    }

    /// An announce of the stream where the driver announces is its sign of life. C programs beside a driver announce on
    /// the control stream (IP-77); those say nothing about the driver.
    pub(super) fn on_announce(&mut self, announce: &ShmPoolAnnounce<'_>, source: Source, now: Nanos) {
        if source.announce_stream && self.stream().is_some_and(|stream| stream.get() == announce.stream_id) {
            self.heard = now;
        }
    }

    pub(super) fn on_transport_lost(&mut self, shared: &Shared, now: Nanos) {
        self.descriptors = Descriptors::Missing(now);
        self.announces = None;
        self.announce_out = None;
        self.shared.publication.put(None);
        if let Authority::Lease(lease) = &mut self.authority
            && let Some(event) = lease.on_transport_lost(now)
        {
            self.on_lease_event(event, shared, now, &mut |_| false);
        }
    }

    /// Reports the failure to whoever waits for the producer, if somebody does, and gives it up then.
    pub(super) fn fail(&mut self, error: &TransportError) {
        if let Some(completion) = self.completion.take() {
            self.release();
            completion.complete(Err(error.clone().into()));
        }
    }

    pub(super) fn tick(&mut self, link: &mut Link, shared: &Shared, now: Nanos) -> usize {
        if self.is_unwanted() {
            self.close(shared, now, &mut |bytes| link.control.send(bytes));
        }
        self.open_descriptors(link, shared, now);
        self.tick_lease(link, shared, now);
        if self.attachment.is_some() && self.descriptors.is_handed_over() {
            if let Some(completion) = self.completion.take() {
                completion.complete(Ok(Producer::new(Arc::clone(&self.shared), Arc::clone(&shared.clock))));
            }
            if now >= self.next_periodic {
                let period = Nanos::from(shared.context.announce_period);
                let first = std::mem::take(&mut self.first_announce);
                let pause = if first { ANNOUNCE_REPEAT.min(period) } else { period };
                self.next_periodic = now.saturating_add(pause);
                self.send_periodic(link, now);
                return 1;
            }
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
        // Acquire: pairs with the Release of the handle, whose writer is gone by then.
        self.shared.released.load(Ordering::Acquire)
            || self.completion.as_ref().is_some_and(Completion::is_abandoned)
    }

    fn tick_lease(&mut self, link: &mut Link, shared: &Shared, now: Nanos) {
        let Authority::Lease(lease) = &mut self.authority else { return };
        let mut send = |bytes: &[u8]| link.control.send(bytes);
        if let Some(event) = lease.tick(now, &mut send) {
            self.on_lease_event(event, shared, now, &mut send);
        }
        let Authority::Lease(lease) = &mut self.authority else { return };
        if let (Some(attachment), Some(deadline)) = (&self.attachment, lease.deadline()) {
            attachment.fence.extend(deadline);
            // A driver that no longer announces the stream is gone or has forgotten it (TP-305).
            if now > self.heard.saturating_add(shared.context.stale_after().into())
                && let Some(event) = lease.renew(LeaseLoss::DriverSilent, now, &mut send)
            {
                self.on_lease_event(event, shared, now, &mut send);
            }
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
            LeaseEvent::Granted(grant) => self.on_grant(grant, shared, now, send),
            LeaseEvent::Lost(loss) => {
                self.revoke();
                self.attachment = None;
                self.set_status(|status| {
                    status.epoch = None;
                    status.loss = Some(loss.clone());
                });
                if let Some(stream) = self.stream() {
                    shared.tell(ClientEvent::LeaseLost { stream, loss });
                }
            }
            LeaseEvent::Refused(refusal) => {
                if let Some(completion) = self.completion.take() {
                    self.gone = true;
                    completion.complete(Err(ClientError::Refused(refusal)));
                    return;
                }
                self.set_status(|status| status.refusal = Some(refusal.clone()));
                if let Some(stream) = self.stream() {
                    shared.tell(ClientEvent::Refused { stream, refusal });
                }
            }
            LeaseEvent::Malformed(error) => self.give_up(error.into(), now, send),
            LeaseEvent::Closed => self.gone = true,
        }
    }

    fn on_grant(&mut self, grant: Grant, shared: &Shared, now: Nanos, send: &mut dyn FnMut(&[u8]) -> bool) {
        let Grant { stream, client, node, regions, .. } = grant;
        let epoch = regions.epoch();
        match shared.opener.open_write(regions) {
            Ok(regions) => {
                let fence = Fence::closed();
                if let Authority::Lease(lease) = &self.authority
                    && let Some(deadline) = lease.deadline()
                {
                    fence.extend(deadline);
                }
                self.heard = now;
                self.next_periodic = now;
                self.set_status(|status| {
                    *status = ProducerStatus {
                        stream: Some(stream),
                        client: Some(client),
                        node,
                        epoch: Some(epoch),
                        loss: None,
                        refusal: None,
                    };
                });
                self.hand_over(Arc::new(Attachment::new(regions, fence)));
                shared.tell(ClientEvent::Attached { stream, client, epoch });
            }
            Err(error) => {
                shared.tell(ClientEvent::MapFailed { stream, epoch, error: error.clone() });
                self.give_up(error.into(), now, send);
            }
        }
    }

    /// The lease cannot be used: report it to whoever waits, otherwise try again later.
    fn give_up(&mut self, error: ClientError, now: Nanos, send: &mut dyn FnMut(&[u8]) -> bool) {
        if let Some(completion) = self.completion.take() {
            // The next tick gives the lease back.
            self.release();
            completion.complete(Err(error));
        } else if let Authority::Lease(lease) = &mut self.authority {
            tracing::warn!(%error, "a producer lease cannot be used; trying again");
            // Nothing was handed over that would have to be taken back.
            let _lost = lease.renew(LeaseLoss::MappingFailed, now, send);
        }
    }

    fn close(&mut self, shared: &Shared, now: Nanos, send: &mut dyn FnMut(&[u8]) -> bool) {
        if let Authority::Lease(lease) = &mut self.authority {
            if let Some(event) = lease.close(now, send) {
                self.on_lease_event(event, shared, now, send);
            }
            return;
        }
        self.revoke();
        self.attachment = None;
        self.gone = true;
        if let Authority::Own { store, regions, .. } = &mut self.authority
            && let Some(regions) = regions.take()
        {
            store.discard(regions);
        }
    }

    fn open_descriptors(&mut self, link: &mut Link, shared: &Shared, now: Nanos) {
        let endpoint = &shared.context.descriptor;
        let transport = &*link.transport;
        let opened = self.descriptors.advance(transport, now, shared.context.announce_period, || {
            Opening::exclusive(transport, &endpoint.channel, endpoint.stream)
        });
        match opened {
            Ok(None) => {}
            Ok(publication) => self.shared.publication.put(publication),
            Err(error) => {
                self.fail(&error);
            }
        }
        if matches!(self.authority, Authority::Own { .. }) && self.announce_out.is_none() {
            self.open_announces(link, shared, now);
        }
    }

    fn open_announces(&mut self, link: &mut Link, shared: &Shared, now: Nanos) {
        let endpoint = &shared.context.announce;
        let transport = &*link.transport;
        let polled = match &mut self.announces {
            None => Opening::publication(transport, &endpoint.channel, endpoint.stream)
                .map(|opening| self.announces = Some(opening))
                .map(|()| None),
            Some(opening) => opening.poll(transport),
        };
        match polled {
            Ok(None) => {}
            Ok(publication) => {
                self.announce_out = publication;
                // The first announce is due at once (TP-149).
                self.next_periodic = now;
                self.first_announce = true;
            }
            Err(error) => {
                tracing::warn!(%error, "the announce publication was refused");
                self.announces = None;
            }
        }
    }

    fn send_periodic(&mut self, link: &mut Link, now: Nanos) {
        let Some(attachment) = self.attachment.clone() else { return };
        // The regions belong to somebody else once the lease is over.
        if attachment.fence.test(now).is_some() {
            attachment.regions.refresh_activity(now.as_u64());
        }
        let spec = attachment.regions.spec();
        let qos = QosProducer {
            stream_id: spec.stream().get(),
            producer_id: self.client().get(),
            epoch: spec.epoch().get(),
            current_seq: attachment.next_seq(),
            watermark: None,
        };
        if let Ok(message) = qos.to_vec() {
            send_periodic(&mut *link.qos, "QosProducer", &message);
        }
        if let Some(name) = &self.shared.config.name {
            let announce = DataSourceAnnounce {
                stream_id: spec.stream().get(),
                producer_id: self.client().get(),
                epoch: spec.epoch().get(),
                meta_version: 0,
                name: name.as_str().into(),
                summary: "".into(),
            };
            if let Ok(message) = announce.to_vec() {
                send_periodic(&mut *link.metadata, "DataSourceAnnounce", &message);
            }
        }
        if let (Authority::Own { client, .. }, Some(publication)) = (&self.authority, &mut self.announce_out)
            && let Ok(message) = spec.to_announce(Some(*client), now)
        {
            send_periodic(&mut **publication, "ShmPoolAnnounce", &message);
        }
    }

    fn hand_over(&mut self, attachment: Arc<Attachment>) {
        self.shared.regions.put(Some(Arc::clone(&attachment)));
        self.attachment = Some(attachment);
    }

    fn revoke(&self) {
        if let Some(attachment) = &self.attachment {
            attachment.fence.revoke();
        }
        self.shared.regions.put(None);
    }

    fn client(&self) -> ClientId {
        match &self.authority {
            Authority::Lease(lease) => lease.client(),
            Authority::Own { client, .. } => *client,
        }
    }

    fn stream(&self) -> Option<StreamId> {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).stream
    }

    fn set_status(&self, change: impl FnOnce(&mut ProducerStatus)) {
        change(&mut self.shared.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

pub(super) fn hugepages(wish: Option<bool>) -> HugepagesPolicy {
    match wish {
        None => HugepagesPolicy::Unspecified,
        Some(false) => HugepagesPolicy::Standard,
        Some(true) => HugepagesPolicy::Hugepages,
    }
}

#[cfg(test)]
mod tests {
    use crate::agent::Agent;
    use crate::client::{Client, Context, ProducerConfig, RegionSource};
    use crate::clock::SystemClock;
    use crate::config::DriverConfig;
    use crate::ids::StreamId;
    use crate::region::store::StoreSettings;
    use crate::transport::memory::MemoryBus;
    use tidegate_shm::clock::Nanos;
    use tidegate_shm::sync::Arc;

    /// A thread in the middle of a call has taken its writer already; only the fence still reaches it.
    /// Rules: TP-297, TP-307.
    #[test]
    fn the_end_of_a_producer_closes_its_fence() {
        let base = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut config = DriverConfig::default_node();
        config.shm.base_dir = base.path().to_owned();
        config.shm.allowed_base_dirs = vec![base.path().to_owned()];
        let mut profile = config.profiles[0].clone();
        profile.payload_pools.truncate(1);
        let regions = RegionSource::Own { store: StoreSettings::new(&config.shm, &config.policies), profile };
        let context = Context { allowed_base_dirs: vec![base.path().to_owned()], ..Context::default() };
        let (client, mut agent) = Client::with_invoker(
            context,
            Arc::new(MemoryBus::new()),
            Arc::new(SystemClock),
            Box::new(|_| {}),
        )
        .unwrap();
        let stream = Some(StreamId::new(7));
        let adding = client.add_producer(ProducerConfig { stream, regions, ..ProducerConfig::default() });
        agent.do_work().unwrap();
        let attachment = agent.producers[0].attachment.clone().unwrap();
        assert!(attachment.fence.test(Nanos::ZERO).is_some());
        drop(adding);
        agent.do_work().unwrap();
        assert!(attachment.fence.test(Nanos::ZERO).is_none());
    }
}
