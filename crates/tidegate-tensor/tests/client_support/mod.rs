//! Clients, a driver and a listener on one in-memory bus, with the clock and every duty cycle in the test's hands.

#![allow(dead_code, reason = "every test binary uses another part")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../clock/mod.rs"]
mod clock;
#[path = "../files/mod.rs"]
pub(crate) mod files;
pub(crate) mod rerouted;
pub(crate) mod tapped;

use std::path::Path;
use std::sync::{Arc, Mutex};

pub(crate) use clock::TestClock;
use tempfile::TempDir;
use tidegate_sbe::control::{ConsumerConfig as ConfigMessage, FrameDescriptor, Mode};
use tidegate_sbe::driver::{LeaseRevokeReason, Role, ShmLeaseRevoked};
use tidegate_tensor::agent::Agent;
use tidegate_tensor::channel::Channel;
use tidegate_tensor::client::{
    Adding, Client, ClientAgent, ClientError, ClientEvent, Consumer, ConsumerConfig, Context, Producer,
    ProducerConfig, RegionOrigin, RegionSource,
};
use tidegate_tensor::clock::Clock;
use tidegate_tensor::config::{DriverConfig, Profile, StreamEntry};
use tidegate_tensor::driver::DriverAgent;
use tidegate_tensor::frame::FrameMeta;
use tidegate_tensor::ids::{AeronStreamId, PoolId, StreamId};
use tidegate_tensor::layout::{PoolSpec, SlotCount, Stride};
use tidegate_tensor::region::store::StoreSettings;
use tidegate_tensor::tensor::{Dtype, MajorOrder, TensorLayout};
use tidegate_tensor::transport::memory::MemoryBus;
use tidegate_tensor::transport::{Connector, Publication, Subscription, Transport};

pub(crate) const CAM: StreamId = StreamId::new(10_000);
pub(crate) const OTHER: StreamId = StreamId::new(10_001);
pub(crate) const CONTROL: AeronStreamId = AeronStreamId::new(1000);
pub(crate) const ANNOUNCE: AeronStreamId = AeronStreamId::new(1001);
pub(crate) const DESCRIPTOR: AeronStreamId = AeronStreamId::new(1100);
pub(crate) const QOS: AeronStreamId = AeronStreamId::new(1200);
pub(crate) const METADATA: AeronStreamId = AeronStreamId::new(1300);

/// Slots of every ring here.
pub(crate) const SLOTS: u32 = 8;

/// The bus, the driver and its directory.
pub(crate) struct Stage {
    pub bus: MemoryBus,
    pub clock: Arc<TestClock>,
    pub driver: Option<DriverAgent>,
    pub base: TempDir,
}

/// One client in invoker mode.
pub(crate) struct Peer {
    pub client: Client,
    pub agent: ClientAgent,
    events: Arc<Mutex<Vec<ClientEvent>>>,
}

/// Everything that is said on one stream, and a voice on it.
pub(crate) struct Wire {
    subscription: Box<dyn Subscription>,
    publication: Box<dyn Publication>,
    _transport: Box<dyn Transport>,
}

pub(crate) fn profile() -> Profile {
    let pool = |id, stride| PoolSpec { pool_id: PoolId::new(id), stride: Stride::new(stride).unwrap() };
    Profile {
        name: "small".to_owned(),
        header_nslots: SlotCount::new(SLOTS).unwrap(),
        payload_pools: vec![pool(1, 4096), pool(2, 64)],
    }
}

pub(crate) fn driver_config(base: &Path) -> DriverConfig {
    let mut config = DriverConfig::default_node();
    config.shm.base_dir = base.to_owned();
    config.shm.allowed_base_dirs = vec![base.to_owned()];
    config.profiles = vec![profile()];
    let stream =
        |name: &str, stream_id| StreamEntry { name: name.to_owned(), stream_id, profile: "small".to_owned() };
    config.streams = vec![stream("cam", CAM), stream("other", OTHER)];
    config
}

impl Stage {
    /// Nothing but a bus.
    pub(crate) fn bare() -> Self {
        let base = tempfile::Builder::new().prefix("tidegate-client-test-").tempdir_in("/dev/shm").unwrap();
        Self { bus: MemoryBus::new(), clock: TestClock::new(), driver: None, base }
    }

    /// With a driver.
    pub(crate) fn new() -> Self {
        let mut stage = Self::bare();
        stage.start_driver();
        stage
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.monotonic().as_u64()
    }

    pub(crate) fn start_driver(&mut self) {
        let config = driver_config(self.base.path());
        let mut driver = DriverAgent::start(config, &self.bus, self.clock()).unwrap();
        for _ in 0..4 {
            driver.do_work().unwrap();
        }
        assert!(driver.is_ready());
        self.driver = Some(driver);
    }

    pub(crate) fn context(&self) -> Context {
        Context { allowed_base_dirs: vec![self.base.path().to_owned()], ..Context::default() }
    }

    pub(crate) fn peer(&self) -> Peer {
        self.peer_with(self.context(), Arc::new(self.bus.clone()))
    }

    pub(crate) fn peer_with(&self, context: Context, connector: Arc<dyn Connector>) -> Peer {
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&events);
        let listener = Box::new(move |event| log.lock().unwrap().push(event));
        let (client, agent) = Client::with_invoker(context, connector, self.clock(), listener).unwrap();
        Peer { client, agent, events }
    }

    pub(crate) fn wire(&self, stream: AeronStreamId) -> Wire {
        let transport = self.bus.connect().unwrap();
        let channel = Channel::default();
        let subscription = transport.subscription(&channel, stream).unwrap().poll().unwrap().unwrap();
        let publication = transport.exclusive_publication(&channel, stream).unwrap().poll().unwrap().unwrap();
        Wire { subscription, publication, _transport: transport }
    }

    /// A few duty cycles of everybody, without time passing.
    pub(crate) fn settle(&mut self, peers: &mut [&mut Peer]) {
        for _ in 0..6 {
            if let Some(driver) = &mut self.driver {
                driver.do_work().unwrap();
            }
            for peer in peers.iter_mut() {
                peer.work();
            }
        }
    }

    /// Lets time pass in small steps, with duty cycles of the driver and these clients.
    pub(crate) fn pass(&mut self, milliseconds: u64, peers: &mut [&mut Peer]) {
        self.settle(peers);
        for _ in 0..milliseconds / 50 {
            self.clock.advance(50);
            self.settle(peers);
        }
        self.clock.advance(milliseconds % 50);
        self.settle(peers);
    }

    /// Lets time pass until something is so, a minute at most.
    pub(crate) fn until(
        &mut self,
        what: &str,
        peers: &mut [&mut Peer],
        mut is_so: impl FnMut(&mut Peer) -> bool,
    ) {
        for _ in 0..1_200 {
            self.settle(peers);
            if is_so(peers[0]) {
                return;
            }
            self.clock.advance(50);
        }
        panic!("within a minute: {what}; events: {:?}", peers[0].events());
    }

    /// A producer that is attached.
    pub(crate) fn producer(&mut self, peer: &mut Peer, config: ProducerConfig) -> Producer {
        let mut adding = peer.client.add_producer(config).unwrap();
        self.settle(&mut [peer]);
        adding.poll().unwrap().expect("an attached producer")
    }

    /// A consumer that is attached.
    pub(crate) fn consumer(&mut self, peer: &mut Peer, config: ConsumerConfig) -> Consumer {
        let mut adding = peer.client.add_consumer(config).unwrap();
        self.settle(&mut [peer]);
        adding.poll().unwrap().expect("an attached consumer")
    }

    pub(crate) fn store_settings(&self) -> StoreSettings {
        let config = driver_config(self.base.path());
        StoreSettings::new(&config.shm, &config.policies)
    }

    /// A producer without a driver.
    pub(crate) fn own(&self, stream: StreamId) -> ProducerConfig {
        let regions = RegionSource::Own { store: self.store_settings(), profile: profile() };
        ProducerConfig { stream: Some(stream), regions, ..ProducerConfig::default() }
    }
}

impl Peer {
    pub(crate) fn work(&mut self) -> usize {
        self.agent.do_work().unwrap()
    }

    /// What happened since the last call.
    pub(crate) fn events(&self) -> Vec<ClientEvent> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }

    pub(crate) fn saw(&self, pick: impl Fn(&ClientEvent) -> bool) -> bool {
        self.events().iter().any(pick)
    }

    /// How many producers and consumers the conductor cares for.
    pub(crate) fn endpoints(&self) -> String {
        format!("{:?}", self.agent)
    }

    pub(crate) fn has_no_endpoints(&self) -> bool {
        self.endpoints().contains("producers: 0, consumers: 0")
    }

    pub(crate) fn add_producer(&self, config: ProducerConfig) -> Result<Adding<Producer>, ClientError> {
        self.client.add_producer(config)
    }

    pub(crate) fn add_consumer(&self, config: ConsumerConfig) -> Result<Adding<Consumer>, ClientError> {
        self.client.add_consumer(config)
    }
}

impl Wire {
    /// The messages since the last call.
    pub(crate) fn heard(&mut self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        self.subscription.poll(usize::MAX, &mut |message| heard.push(message.bytes.to_vec())).unwrap();
        heard
    }

    pub(crate) fn say(&mut self, message: &[u8]) {
        self.publication.offer(message).unwrap();
    }

    /// Announces a frame that may or may not be there.
    pub(crate) fn describe(&mut self, stream: StreamId, epoch: u64, seq: u64) {
        let descriptor = FrameDescriptor {
            stream_id: stream.get(),
            epoch,
            seq,
            timestamp_ns: None,
            meta_version: None,
            trace_id: None,
        };
        self.say(&descriptor.to_vec().unwrap());
    }
}

pub(crate) fn produces(stream: StreamId) -> ProducerConfig {
    ProducerConfig { stream: Some(stream), ..ProducerConfig::default() }
}

/// A consumer without a driver.
pub(crate) fn announced(stream: StreamId) -> ConsumerConfig {
    ConsumerConfig { origin: RegionOrigin::Announced, ..ConsumerConfig::new(stream) }
}

pub(crate) fn bytes(len: usize) -> TensorLayout {
    TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[len]).unwrap()
}

/// Publishes one frame and returns its number.
pub(crate) fn publish(producer: &mut Producer, payload: &[u8]) -> u64 {
    producer.offer(&bytes(payload.len()), payload, FrameMeta::default()).unwrap().get()
}

/// The frames that are waiting, as number and payload.
pub(crate) fn frames(consumer: &mut Consumer) -> Vec<(u64, Vec<u8>)> {
    let mut frames = Vec::new();
    while consumer
        .poll(10, &mut |frame| {
            let mut payload = Vec::new();
            frame.copy_to(&mut payload).unwrap();
            frames.push((frame.seq().get(), payload));
        })
        .unwrap()
        > 0
    {}
    frames
}

pub(crate) fn numbers(consumer: &mut Consumer) -> Vec<u64> {
    frames(consumer).into_iter().map(|(seq, _)| seq).collect()
}

pub(crate) fn config_message(stream: StreamId, consumer_id: u32, use_shm: bool, uri: &str) -> Vec<u8> {
    ConfigMessage {
        stream_id: stream.get(),
        consumer_id,
        use_shm,
        mode: Mode::Stream,
        descriptor_stream_id: 0,
        control_stream_id: 0,
        payload_fallback_uri: uri.into(),
        descriptor_channel: "".into(),
        control_channel: "".into(),
    }
    .to_vec()
    .unwrap()
}

pub(crate) fn revoked(lease_id: u64, stream: StreamId, client_id: u32, role: Role, at: u64) -> Vec<u8> {
    ShmLeaseRevoked {
        timestamp_ns: at,
        lease_id,
        stream_id: stream.get(),
        client_id,
        role,
        reason: LeaseRevokeReason::Revoked,
        error_message: "".into(),
    }
    .to_vec()
    .unwrap()
}
