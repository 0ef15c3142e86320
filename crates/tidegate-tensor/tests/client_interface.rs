//! What a client promises to the program that uses it: queue, threads, closing, result codes, bounded work.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod client_support;

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use client_support::*;
use tidegate_sbe::AnyMessage;
use tidegate_sbe::driver::Message;
use tidegate_tensor::agent::{Agent, AgentRunner, IdleStrategy};
use tidegate_tensor::channel::Channel;
use tidegate_tensor::client::{
    Client, ClientError, ClientEvent, ConsumerConfig, Context, Endpoint, MappingState, PollError,
    ProducerConfig, PublishError, UnmapReason,
};
use tidegate_tensor::clock::SystemClock;
use tidegate_tensor::driver::DriverAgent;
use tidegate_tensor::frame::{CommitError, FrameMeta};
use tidegate_tensor::ids::{AeronStreamId, Epoch, Seq};
use tidegate_tensor::transport::memory::MemoryBus;
use tidegate_tensor::transport::{Connector, OfferError, Transport, TransportError};

const PATIENCE: Duration = Duration::from_secs(20);
/// Name of the thread that runs a client's duty cycle.
const DUTY_CYCLE: &str = "patient";

/// Rules: TP-435, TC-194.
#[test]
fn the_command_queue_pushes_back_and_loses_nothing() {
    let mut stage = Stage::bare();
    let mut peer = stage.peer();
    let mut waiting: Vec<_> = (0..1024).map(|_| peer.add_consumer(announced(CAM)).unwrap()).collect();
    let begun = Instant::now();
    assert!(matches!(peer.add_consumer(announced(CAM)), Err(ClientError::TryAgain)));
    assert!(matches!(peer.add_producer(ProducerConfig::default()), Err(ClientError::TryAgain)));
    assert!(begun.elapsed() < PATIENCE, "it does not wait for room");
    assert!(waiting.iter().all(|adding| adding.registration_id() == -1));
    stage.settle(&mut [&mut peer]);
    let mut ids: Vec<_> = waiting.iter().map(|adding| adding.registration_id()).collect();
    assert!(ids.is_sorted());
    ids.dedup();
    assert_eq!((ids.len(), ids.contains(&-1)), (1024, false));
    assert!(waiting.iter_mut().all(|adding| adding.poll().unwrap().is_some()), "none was lost");
    assert!(peer.add_consumer(announced(CAM)).is_ok());
}

/// Rules: TP-436, TC-195.
#[test]
fn events_come_on_the_thread_of_the_duty_cycle() {
    let stage = Stage::bare();
    let threads = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&threads);
    let listener =
        Box::new(move |_event| log.lock().unwrap().push(thread::current().name().map(str::to_owned)));
    let config = driver_config(stage.base.path());
    let driver = DriverAgent::start(config, &stage.bus, Arc::new(SystemClock)).unwrap();
    let driver = AgentRunner::start(driver, IdleStrategy::default()).unwrap();
    let context = Context { client_name: "duty".to_owned(), ..stage.context() };
    let client = Client::start(context, Arc::new(stage.bus.clone()), listener).unwrap();
    let mut producer = client.add_producer(produces(CAM)).unwrap().wait(PATIENCE).unwrap();
    let mut consumer = client.add_consumer(ConsumerConfig::new(CAM)).unwrap().wait(PATIENCE).unwrap();
    publish(&mut producer, b"x");
    assert_eq!(frames(&mut consumer), [(0, b"x".to_vec())]);
    drop(producer);
    client.close().unwrap();
    driver.stop().unwrap();
    let threads = threads.lock().unwrap();
    assert!(threads.len() >= 4, "{threads:?}");
    assert!(threads.iter().all(|name| name.as_deref() == Some("duty")), "{threads:?}");
}

/// Closing detaches every endpoint and tells their holders; what nobody has answered yet ends as closed.
/// Rules: TP-308, TP-441, TP-460.
#[test]
fn closing_detaches_and_tells_who_is_left() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, produces(CAM));
    let mut consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    let mut without_driver = stage.consumer(&mut peer, announced(OTHER));
    let mut refused = peer.add_producer(produces(CAM)).unwrap();
    stage.settle(&mut [&mut peer]);
    let mut queued = peer.add_consumer(ConsumerConfig::new(CAM)).unwrap();
    let mut control = stage.wire(CONTROL);
    let Peer { client, mut agent, .. } = peer;
    let driver = AgentRunner::start(stage.driver.take().unwrap(), IdleStrategy::default()).unwrap();
    let begun = Instant::now();
    agent.close();
    assert!(begun.elapsed() < Duration::from_millis(900), "the driver answered");
    let detached = control.heard().iter().filter(|bytes| is_detach(bytes)).count();
    assert_eq!(detached, 2);
    let after = producer.offer(&bytes(1), b"x", FrameMeta::default()).unwrap_err();
    assert_eq!((after.code(), after), (-5, PublishError::Closed));
    assert_eq!(consumer.poll(1, &mut |_| {}), Err(PollError::Closed));
    assert_eq!(without_driver.poll(1, &mut |_| {}), Err(PollError::Closed));
    assert!(matches!(consumer.read_frame(Seq::new(0)), tidegate_tensor::client::ReadOutcome::NotMapped));
    assert!(matches!(refused.poll(), Err(ClientError::Closed)));
    assert!(matches!(queued.poll(), Err(ClientError::Closed)));
    assert!(matches!(client.add_consumer(ConsumerConfig::new(CAM)), Err(ClientError::Closed)));
    assert!(driver.is_running());
    driver.stop().unwrap();
}

fn is_detach(bytes: &[u8]) -> bool {
    matches!(AnyMessage::decode(bytes), Ok(AnyMessage::Driver(Message::ShmDetachRequest(_))))
}

/// Rules: TP-308.
#[test]
fn closing_waits_for_a_silent_driver_a_second_at_most() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    stage.driver = None;
    let mut control = stage.wire(CONTROL);
    let begun = Instant::now();
    peer.agent.close();
    let waited = begun.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
    assert_eq!(control.heard().iter().filter(|bytes| is_detach(bytes)).count(), 1);
    assert_eq!(consumer.poll(1, &mut |_| {}), Err(PollError::Closed));
}

#[test]
fn closing_without_a_media_driver_is_immediate() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    stage.bus.set_reachable(false);
    stage.bus.fail("killed");
    let begun = Instant::now();
    peer.agent.close();
    assert!(begun.elapsed() < Duration::from_millis(900));
    drop(consumer);
}

/// Handles may outlive the client.
#[test]
fn handles_outlive_a_dropped_client() {
    let stage = Stage::bare();
    let client = Client::start(stage.context(), Arc::new(stage.bus.clone()), Box::new(|_| {})).unwrap();
    let mut producer = client.add_producer(stage.own(CAM)).unwrap().wait(PATIENCE).unwrap();
    let mut consumer = client.add_consumer(announced(CAM)).unwrap().wait(PATIENCE).unwrap();
    let pending = client.add_consumer(ConsumerConfig::new(OTHER)).unwrap();
    drop(client);
    assert_eq!(producer.offer(&bytes(1), b"x", FrameMeta::default()), Err(PublishError::Closed));
    assert_eq!(consumer.poll(1, &mut |_| {}), Err(PollError::Closed));
    assert!(matches!(pending.wait(PATIENCE), Err(ClientError::Closed)));
}

/// An idle client does nothing, says so, and waits for nobody: not for answers, not for a media driver.
/// Rules: TP-437.
#[test]
fn a_duty_cycle_never_waits() {
    let stage = Stage::bare();
    let mut peer = stage.peer();
    let adding = peer.add_consumer(ConsumerConfig::new(CAM)).unwrap();
    let begun = Instant::now();
    assert!(peer.work() > 0, "the command");
    // It hears its own request once.
    let idle = (0..1_000).filter(|_| peer.work() == 0).count();
    assert!(idle >= 998, "no driver answers, yet it found work in {} cycles", 1_000 - idle);
    stage.bus.set_reachable(false);
    stage.bus.fail("killed");
    for _ in 0..1_000 {
        assert_eq!(peer.work(), 0, "nor a media driver");
        stage.clock.advance(10);
    }
    assert!(begun.elapsed() < PATIENCE);
    drop(adding);
}

/// Connects at once, and then only if asked not to wait.
struct Patient(MemoryBus);

impl Connector for Patient {
    fn connect(&self) -> Result<Box<dyn Transport>, TransportError> {
        let calling = thread::current();
        assert_ne!(calling.name(), Some(DUTY_CYCLE), "this may wait for a media driver");
        self.0.connect()
    }

    fn try_connect(&self) -> Result<Box<dyn Transport>, TransportError> {
        self.0.connect()
    }
}

/// Rules: TP-437.
#[test]
fn a_duty_cycle_does_not_wait_for_a_new_connection() {
    let stage = Stage::bare();
    let (said, events) = channel();
    let listener = Box::new(move |event| said.send(event).unwrap());
    let context = Context { client_name: DUTY_CYCLE.to_owned(), ..stage.context() };
    let client = Client::start(context, Arc::new(Patient(stage.bus.clone())), listener).unwrap();
    for _ in 0..2 {
        assert!(matches!(events.recv_timeout(PATIENCE), Ok(ClientEvent::Connected)));
        stage.bus.fail("killed");
        assert!(matches!(events.recv_timeout(PATIENCE), Ok(ClientEvent::Disconnected { .. })));
    }
    client.close().unwrap();
}

/// Commands come before messages, and control messages before announces.
/// Rules: TP-439.
#[test]
fn a_duty_cycle_keeps_its_order() {
    let mut stage = Stage::bare();
    let (mut origin, mut peer) = (stage.peer(), stage.peer());
    let _producer = stage.producer(&mut origin, stage.own(CAM));
    stage.settle(&mut [&mut peer]);
    stage.clock.advance(1_000);
    origin.work();
    // Request and announce are both waiting when the cycle begins.
    let mut adding = peer.add_consumer(announced(CAM)).unwrap();
    peer.work();
    assert!(
        peer.saw(|event| matches!(event, ClientEvent::Mapped { .. })),
        "the announce met the new consumer"
    );
    peer.work();
    assert!(adding.poll().unwrap().is_some());

    // A revoked producer and its successor in one cycle: first the notice, then the announce.
    let mut stage = Stage::new();
    let (mut paused, mut awake) = (stage.peer(), stage.peer());
    let _producer = stage.producer(&mut paused, produces(CAM));
    let consumer = stage.consumer(&mut awake, ConsumerConfig::new(CAM));
    stage.pass(2_950, &mut [&mut awake]);
    awake.events();
    stage.clock.advance(100);
    stage.driver.as_mut().unwrap().do_work().unwrap();
    stage.driver.as_mut().unwrap().do_work().unwrap();
    awake.work();
    let events = awake.events();
    assert!(
        matches!(
            events[..],
            [ClientEvent::Unmapped { reason: UnmapReason::ProducerRevoked, .. }, ClientEvent::Mapped { .. }]
        ),
        "{events:?}"
    );
    assert!(matches!(consumer.state(), MappingState::Mapped(_)));
}

/// Rules: TP-440.
#[test]
fn polls_keep_to_their_limits_and_say_how_much_they_did() {
    let mut stage = Stage::bare();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, stage.own(CAM));
    let mut consumer = stage.consumer(&mut peer, announced(CAM));
    stage.pass(1_000, &mut [&mut peer]);
    for _ in 0..7 {
        publish(&mut producer, b"x");
    }
    let mut seen = 0;
    for (limit, expected) in [(3, 3), (3, 3), (3, 1), (3, 0)] {
        assert_eq!(consumer.poll(limit, &mut |_| seen += 1).unwrap(), expected);
    }
    assert_eq!(seen, 7);

    let mut control = stage.wire(CONTROL);
    let mut announce = stage.wire(ANNOUNCE);
    for _ in 0..25 {
        control.say(b"not a message");
        announce.say(b"not a message");
    }
    let work: Vec<_> = (0..4).map(|_| peer.work()).collect();
    assert_eq!(work, [20, 20, 10, 0], "ten of each stream");
    let limited = Context { fragment_limit: 2, ..stage.context() };
    let mut limited = stage.peer_with(limited, Arc::new(stage.bus.clone()));
    stage.settle(&mut [&mut limited]);
    for _ in 0..3 {
        control.say(b"not a message");
    }
    assert_eq!((limited.work(), limited.work()), (2, 1));
}

/// Every address is a setting.
/// Rules: TP-029.
#[test]
fn nothing_is_said_on_streams_that_were_not_configured() {
    let mut stage = Stage::bare();
    let at = |stream| Endpoint {
        channel: Channel::parse("aeron:ipc?term-length=1m").unwrap(),
        stream: AeronStreamId::new(stream),
    };
    let context = Context {
        control: at(2000),
        announce: at(2001),
        descriptor: at(2100),
        qos: at(2200),
        metadata: at(2300),
        ..stage.context()
    };
    let mut defaults: Vec<_> =
        [CONTROL, ANNOUNCE, DESCRIPTOR, QOS, METADATA].into_iter().map(|stream| stage.wire(stream)).collect();
    let mut others: Vec<_> = [2000, 2001, 2100, 2200, 2300]
        .into_iter()
        .map(|stream| stage.wire(AeronStreamId::new(stream)))
        .collect();
    let mut peer = stage.peer_with(context, Arc::new(stage.bus.clone()));
    let named = ProducerConfig { name: Some("cam".to_owned()), ..stage.own(CAM) };
    let mut producer = stage.producer(&mut peer, named);
    let mut consumer = stage.consumer(&mut peer, announced(CAM));
    stage.pass(1_000, &mut [&mut peer]);
    publish(&mut producer, b"x");
    assert_eq!(frames(&mut consumer), [(0, b"x".to_vec())]);
    assert!(defaults.iter_mut().all(|wire| wire.heard().is_empty()));
    assert!(others.iter_mut().all(|wire| !wire.heard().is_empty()));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let stage = Stage::bare();
    type Break = fn(&mut Context);
    let cases: [Break; 7] = [
        |it| it.announce_period = Duration::ZERO,
        |it| it.attach_timeout = Duration::ZERO,
        |it| it.resend_interval = Duration::ZERO,
        |it| it.keepalive_interval = Duration::ZERO,
        |it| it.lease_grace_intervals = 0,
        |it| it.fragment_limit = 0,
        |it| {
            it.qos =
                Endpoint { channel: Channel::parse("aeron:ipc?term-length=1m").unwrap(), stream: CONTROL }
        },
    ];
    for break_it in cases {
        let mut context = stage.context();
        break_it(&mut context);
        let refused = Client::start(context, Arc::new(stage.bus.clone()), Box::new(|_| {}));
        assert!(matches!(refused, Err(ClientError::Context(_))), "{refused:?}");
    }
}

/// Rules: TP-443.
#[test]
fn every_error_of_a_producer_has_its_code() {
    let unannounced = |cause| PublishError::Unannounced { seq: Seq::new(1), cause };
    for (error, code) in [
        (PublishError::NotAttached { reason: None }, -3),
        (unannounced(OfferError::BackPressured), -2),
        (unannounced(OfferError::NotConnected), -3),
        (unannounced(OfferError::AdminAction), -4),
        (unannounced(OfferError::Closed), -5),
        (unannounced(OfferError::MaxPosition), -1),
        (unannounced(OfferError::TooLong), -1),
        (PublishError::ClaimsExhausted, -2),
        (PublishError::TooLarge { len: 2, largest: 1 }, -1),
        (PublishError::StaleClaim { claim: Epoch::new(1) }, -4),
        (PublishError::Claim(CommitError::NotQueueable), -4),
        (PublishError::Claim(CommitError::OutOfWindow), -1),
        (PublishError::Closed, -5),
    ] {
        assert_eq!(error.code(), code, "{error:?}");
        assert!(!error.to_string().is_empty());
    }
}
