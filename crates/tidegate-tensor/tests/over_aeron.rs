//! The client and the driver over a real media driver.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate_aeron::{MediaDriver, MediaDriverOptions};
use tidegate_tensor::agent::{AgentRunner, IdleStrategy};
use tidegate_tensor::client::{
    Client, Consumer, ConsumerConfig, Context, Producer, ProducerConfig, PublishError,
};
use tidegate_tensor::clock::SystemClock;
use tidegate_tensor::config::DriverConfig;
use tidegate_tensor::driver::{DriverAgent, DriverAgentError};
use tidegate_tensor::frame::FrameMeta;
use tidegate_tensor::ids::StreamId;
use tidegate_tensor::tensor::{Dtype, MajorOrder, TensorLayout};
use tidegate_tensor::transport::aeron::AeronConnector;
use tidegate_tensor::transport::{Connector, OfferError, TransportError};

const STREAM: StreamId = StreamId::new(20_000);
const WAIT: Duration = Duration::from_secs(20);

/// A media driver, a tensor driver and a client, each with its own threads. Dropped in this order.
struct Stage {
    client: Client,
    _driver: AgentRunner<DriverAgentError>,
    _media_driver: MediaDriver,
    _base: TempDir,
}

impl Stage {
    fn new() -> Self {
        let base = tempfile::Builder::new().prefix("tidegate-tensor-").tempdir_in("/dev/shm").unwrap();
        let media_driver = MediaDriver::launch(&MediaDriverOptions::new(base.path().join("aeron"))).unwrap();
        let connector = AeronConnector {
            connect_timeout: Duration::from_secs(3),
            ..AeronConnector::new(media_driver.dir())
        };
        let mut config = DriverConfig::default_node();
        config.shm.base_dir = base.path().to_owned();
        config.shm.allowed_base_dirs = vec![base.path().to_owned()];
        let agent = DriverAgent::start(config, &connector, Arc::new(SystemClock)).unwrap();
        let driver = AgentRunner::start(agent, IdleStrategy::default()).unwrap();
        let context = Context { allowed_base_dirs: vec![base.path().to_owned()], ..Context::default() };
        let client = Client::start(context, Arc::new(connector), Box::new(|_| {})).unwrap();
        Self { client, _driver: driver, _media_driver: media_driver, _base: base }
    }

    fn producer(&self) -> Producer {
        let config = ProducerConfig { stream: Some(STREAM), ..ProducerConfig::default() };
        self.client.add_producer(config).unwrap().wait(WAIT).unwrap()
    }

    fn consumer(&self) -> Consumer {
        self.client.add_consumer(ConsumerConfig::new(STREAM)).unwrap().wait(WAIT).unwrap()
    }
}

/// A consumer that holds its descriptors but never reads them delays nobody for longer than the media driver's patience.
/// Rules: TP-001.
#[test]
fn a_consumer_that_is_never_polled_does_not_hold_up_the_others() {
    // More descriptors than fit between a publisher and a subscriber that does not read.
    const FRAMES: u64 = 40_000;
    let stage = Stage::new();
    let mut producer = stage.producer();
    let _asleep = stage.consumer();
    let mut awake = stage.consumer();
    let layout = TensorLayout::contiguous(Dtype::Uint8, MajorOrder::Row, &[8]).unwrap();
    let deadline = Instant::now() + WAIT;
    let mut last = None;
    let mut sent = 0;
    while last != Some(FRAMES - 1) {
        assert!(Instant::now() < deadline, "stuck after {last:?}: {:?}", producer.stats());
        if sent < FRAMES {
            match producer.offer(&layout, &sent.to_le_bytes(), FrameMeta::default()) {
                Ok(_) => sent += 1,
                // The frame is in its slot but nobody was told: try the next one until the sleeper was let go.
                Err(PublishError::Unannounced {
                    cause: OfferError::BackPressured | OfferError::NotConnected,
                    ..
                }) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
        }
        awake
            .poll(10, &mut |frame| {
                let mut number = [0; 8];
                frame.payload().copy_to(&mut number).unwrap();
                if frame.validate().is_ok() {
                    last = Some(u64::from_le_bytes(number));
                }
            })
            .unwrap();
    }
    assert!(awake.totals().frames > 0);
}

/// A client that lost its media driver looks for another one in its duty cycle, so it does not wait for one there.
/// Rules: TP-437.
#[test]
fn a_connector_that_waits_at_the_start_does_not_wait_later() {
    let base = tempfile::Builder::new().prefix("tidegate-tensor-").tempdir_in("/dev/shm").unwrap();
    let patient = Duration::from_secs(600);
    let connector = AeronConnector { connect_timeout: patient, ..AeronConnector::new(base.path()) };
    let begun = Instant::now();
    let outcome = connector.try_connect().map(|_| ());
    assert!(matches!(outcome, Err(TransportError::Unreachable { .. })), "{outcome:?}");
    assert!(begun.elapsed() < WAIT);
}
