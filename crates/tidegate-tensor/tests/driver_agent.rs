//! The driver on a transport: endpoints, back-pressure, a dying media driver, threads.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "clock/mod.rs"]
mod clock;
mod driver_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::TestClock;
use driver_support::*;
use tempfile::TempDir;
use tidegate_sbe::driver::{PublishMode, ResponseCode, Role, ShmLeaseKeepalive, ShutdownReason};
use tidegate_shm::sync::Ordering;
use tidegate_tensor::agent::{Agent, AgentRunner, IdleStrategy, RunnerError};
use tidegate_tensor::channel::Channel;
use tidegate_tensor::clock::{Clock, SystemClock};
use tidegate_tensor::config::DriverConfig;
use tidegate_tensor::driver::{self, DriverAgent, DriverAgentError, Endpoint, HandleError};
use tidegate_tensor::ids::{self, AeronStreamId};
use tidegate_tensor::transport::memory::MemoryBus;
use tidegate_tensor::transport::{
    Connector, OfferError, Publication, Subscription, Transport, TransportError,
};

const CONTROL: AeronStreamId = AeronStreamId::new(1000);
const ANNOUNCE: AeronStreamId = AeronStreamId::new(1001);

/// An agent on a bus, and a client beside it.
struct Stage {
    _base: TempDir,
    clock: Arc<TestClock>,
    agent: DriverAgent,
    transport: Box<dyn Transport>,
    requests: Box<dyn Publication>,
    control: Box<dyn Subscription>,
    announce: Box<dyn Subscription>,
}

impl Stage {
    fn new() -> Self {
        Self::on(MemoryBus::new())
    }

    fn on(bus: MemoryBus) -> Self {
        let base = temp_base();
        let clock = TestClock::new();
        clock.advance(1_000_000);
        let mut agent =
            DriverAgent::start(config(base.path()), &bus, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        run(&mut agent);
        assert!(agent.is_ready());
        let transport = bus.connect().unwrap();
        let requests = publication(&*transport, CONTROL);
        let control = subscription(&*transport, CONTROL);
        let announce = subscription(&*transport, ANNOUNCE);
        Self { _base: base, clock, agent, transport, requests, control, announce }
    }

    /// What has come on both streams, control first.
    fn received(&mut self) -> Vec<Sent> {
        let mut sent = read(&mut *self.control, Endpoint::Control);
        sent.extend(read(&mut *self.announce, Endpoint::Announce));
        sent
    }

    fn attach(&mut self, client: u32, role: Role) -> Answer {
        self.requests.offer(&request(client, role, CAM, i64::from(client)).to_vec().unwrap()).unwrap();
        run(&mut self.agent);
        let received = self.received();
        let answer = received.into_iter().find_map(|sent| match sent {
            Sent::Attach(answer) => Some(answer),
            _ => None,
        });
        answer.expect("an answer")
    }
}

fn run(agent: &mut DriverAgent) {
    for _ in 0..4 {
        agent.do_work().unwrap();
    }
}

fn publication(transport: &dyn Transport, stream: AeronStreamId) -> Box<dyn Publication> {
    transport.publication(&Channel::default(), stream).unwrap().poll().unwrap().unwrap()
}

fn subscription(transport: &dyn Transport, stream: AeronStreamId) -> Box<dyn Subscription> {
    transport.subscription(&Channel::default(), stream).unwrap().poll().unwrap().unwrap()
}

/// Decodes what the driver sent; requests of clients on the same stream are passed over.
fn read(subscription: &mut dyn Subscription, endpoint: Endpoint) -> Vec<Sent> {
    let mut sent = Vec::new();
    subscription
        .poll(usize::MAX, &mut |message| {
            let template = u16::from_le_bytes([message.bytes[2], message.bytes[3]]);
            let schema = u16::from_le_bytes([message.bytes[4], message.bytes[5]]);
            if schema == 900 || matches!(template, 2 | 4 | 6 | 7) {
                sent.push(Sent::decode(message.bytes, endpoint));
            }
        })
        .unwrap();
    sent
}

fn start(config: DriverConfig, bus: &MemoryBus) -> Result<DriverAgent, DriverAgentError> {
    DriverAgent::start(config, bus, Arc::new(SystemClock))
}

/// Rules: TP-147, TP-236, TP-238, TP-267.
#[test]
fn a_life_on_a_transport() {
    let mut stage = Stage::new();
    stage.requests.offer(&request(42, Role::Producer, CAM, 1).to_vec().unwrap()).unwrap();
    run(&mut stage.agent);
    let received = stage.received();
    assert_eq!(kinds(&received), ["attach", "announce"]);
    let Sent::Attach(lease) = &received[0] else { unreachable!() };

    for second in 0..10 {
        stage.clock.advance(1_000);
        let keepalive = ShmLeaseKeepalive {
            lease_id: lease.lease.unwrap(),
            stream_id: CAM,
            client_id: 42,
            role: Role::Producer,
            client_timestamp_ns: second,
        };
        stage.requests.offer(&keepalive.to_vec().unwrap()).unwrap();
        run(&mut stage.agent);
        let received = stage.received();
        let [Sent::Announce(announce)] = &received[..] else { panic!("{received:?}") };
        assert_eq!((announce.producer, Some(announce.epoch)), (42, lease.epoch));
    }
    let handle = stage.agent.handle();
    stage.agent.close();
    assert!(matches!(&stage.received()[..], [Sent::Shutdown { reason: ShutdownReason::Normal, .. }]));
    assert!(matches!(stage.agent.do_work(), Err(DriverAgentError::Stopped)));
    assert_eq!(handle.resolve("cam", Duration::from_secs(5)), Err(HandleError::Ended));
}

/// Rules: TP-028.
#[test]
fn the_clock_is_read_once_per_duty_cycle() {
    let mut stage = Stage::new();
    for client in 1..=5 {
        stage.requests.offer(&request(client, Role::Consumer, CAM, 1).to_vec().unwrap()).unwrap();
    }
    let before = stage.clock.reads.load(Ordering::Relaxed);
    stage.agent.do_work().unwrap();
    assert_eq!(stage.clock.reads.load(Ordering::Relaxed) - before, 1);
}

/// Rules: TP-488, TC-205.
#[test]
fn a_publication_with_other_parameters_is_joined() {
    let base = temp_base();
    let bus = MemoryBus::new();
    let transport = bus.connect().unwrap();
    let plain = Channel::parse("aeron:ipc").unwrap();
    let _existing = transport.publication(&plain, CONTROL).unwrap().poll().unwrap().unwrap();
    let mut agent = start(config(base.path()), &bus).unwrap();
    run(&mut agent);
    assert!(agent.is_ready());
    agent.close();
}

#[test]
fn a_reader_that_stalls_delays_messages_but_loses_none_and_keeps_their_order() {
    const CAPACITY: usize = 8;
    let mut stage = Stage::on(MemoryBus::with_capacity(CAPACITY));
    // A second reader of control that does not read: after eight messages nothing moves on that stream.
    let mut stalled = subscription(&*stage.transport, CONTROL);
    let mut asked = Vec::new();
    let mut refused = 0;
    for client in 1..=20 {
        match stage.requests.offer(&request(client, Role::Consumer, CAM, i64::from(client)).to_vec().unwrap())
        {
            Ok(_) => asked.push(i64::from(client)),
            Err(error) => {
                assert_eq!(error, OfferError::BackPressured);
                refused += 1;
            }
        }
        run(&mut stage.agent);
        stage.received();
    }
    assert!(refused > 0 && asked.len() < CAPACITY);
    // Announces have a stream of their own and go on.
    stage.clock.advance(1_000);
    run(&mut stage.agent);
    assert!(!announces(&read(&mut *stage.announce, Endpoint::Announce)).is_empty());

    let mut answered = Vec::new();
    for _ in 0..20 {
        for sent in read(&mut *stalled, Endpoint::Control) {
            if let Sent::Attach(answer) = sent {
                assert_eq!(answer.code, ResponseCode::Ok);
                answered.push(answer.correlation);
            }
        }
        run(&mut stage.agent);
        stage.received();
    }
    assert_eq!(answered, asked);
}

/// Rules: TP-256.
#[test]
fn keepalives_that_wait_in_the_transport_count_before_leases_expire() {
    let mut stage = Stage::new();
    let leases: Vec<_> =
        (1..=500).map(|client| (client, stage.attach(client, Role::Consumer).lease.unwrap())).collect();
    // The driver does not run for ten seconds, the clients do.
    for _ in 0..3 {
        stage.clock.advance(3_300);
        for (client_id, lease_id) in &leases {
            let keepalive = ShmLeaseKeepalive {
                lease_id: *lease_id,
                stream_id: CAM,
                client_id: *client_id,
                role: Role::Consumer,
                client_timestamp_ns: 0,
            };
            stage.requests.offer(&keepalive.to_vec().unwrap()).unwrap();
        }
    }
    for _ in 0..20 {
        stage.agent.do_work().unwrap();
    }
    assert!(!kinds(&stage.received()).contains(&"revoked"));
    stage.clock.advance(3_000);
    run(&mut stage.agent);
    assert_eq!(kinds(&stage.received()).iter().filter(|kind| **kind == "revoked").count(), 500);
}

/// Rules: TP-257.
#[test]
fn a_flood_of_messages_does_not_keep_dead_leases_alive() {
    let mut stage = Stage::new();
    stage.attach(1, Role::Producer);
    stage.clock.advance(3_000);
    let noise = request(0, Role::Consumer, CAM, 0).to_vec().unwrap();
    let mut revoked_after = None;
    for cycle in 0..100 {
        // More than a cycle takes, every time.
        for _ in 0..400 {
            stage.requests.offer(&noise).unwrap();
        }
        stage.agent.do_work().unwrap();
        stage.clock.advance(10);
        if kinds(&stage.received()).contains(&"revoked") {
            revoked_after = Some(cycle * 10);
            break;
        }
    }
    assert!(revoked_after.is_some_and(|after| (1..=110).contains(&after)), "{revoked_after:?} ms");
}

#[test]
fn requests_stay_in_the_transport_while_their_answers_would_not_fit() {
    const REQUESTS: i64 = 2_900;
    let mut stage = Stage::on(MemoryBus::with_capacity(3_000));
    // After the requests the reader that stalls has room for a hundred answers. About a thousand more wait in the driver,
    // the other requests in the transport.
    let mut stalled = subscription(&*stage.transport, CONTROL);
    for correlation in 0..REQUESTS {
        stage.requests.offer(&request(0, Role::Consumer, CAM, correlation).to_vec().unwrap()).unwrap();
    }
    let mut answered = Vec::new();
    for _ in 0..20 {
        run(&mut stage.agent);
        stage.received();
    }
    for _ in 0..20 {
        for sent in read(&mut *stalled, Endpoint::Control) {
            let Sent::Attach(answer) = sent else { panic!("{sent:?}") };
            answered.push(answer.correlation);
        }
        run(&mut stage.agent);
        stage.received();
    }
    assert_eq!(answered, (0..REQUESTS).collect::<Vec<_>>(), "every request has its answer, in order");
    let handle = stage.agent.handle();
    let snapshot = ask(&mut stage, move || handle.snapshot(Duration::from_secs(10)).unwrap());
    assert_eq!(snapshot.counters.requests_dropped_busy, 0);
}

/// Runs a question on a thread of its own, and the agent meanwhile.
fn ask<T: Send + 'static>(stage: &mut Stage, question: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(question);
    while !thread.is_finished() {
        stage.agent.do_work().unwrap();
        std::thread::yield_now();
    }
    thread.join().unwrap()
}

/// Rules: TP-149.
#[test]
fn announces_that_nobody_hears_are_dropped_and_counted() {
    let mut stage = Stage::new();
    stage.attach(1, Role::Consumer);
    stage.announce = subscription(&*stage.transport, AeronStreamId::new(4_000));
    stage.clock.advance(100);
    run(&mut stage.agent);
    let handle = stage.agent.handle();
    let counters = ask(&mut stage, move || handle.snapshot(Duration::from_secs(10)).unwrap()).counters;
    assert_eq!(counters.dropped_unconnected, 1, "the repetition");
    // Who comes later hears the next one.
    stage.announce = subscription(&*stage.transport, ANNOUNCE);
    stage.clock.advance(1_000);
    run(&mut stage.agent);
    assert_eq!(announces(&stage.received()).len(), 1);
}

#[test]
fn a_dead_media_driver_ends_the_agent_and_the_next_one_takes_over() {
    let base = temp_base();
    let bus = MemoryBus::new();
    let mut agent = start(config(base.path()), &bus).unwrap();
    run(&mut agent);
    bus.fail("killed");
    let error = agent.do_work().unwrap_err();
    assert!(matches!(error, DriverAgentError::Transport(TransportError::Lost { .. })), "{error}");
    agent.close();
    let mut next = start(config(base.path()), &bus).unwrap();
    run(&mut next);
    assert!(next.is_ready());
    next.close();

    bus.set_reachable(false);
    let error = start(config(base.path()), &bus).unwrap_err();
    assert!(matches!(error, DriverAgentError::Transport(TransportError::Unreachable { .. })), "{error}");
    // A start that failed holds nothing.
    bus.set_reachable(true);
    start(config(base.path()), &bus).unwrap().close();
}

/// Rules: TP-266, TP-267.
#[test]
fn a_drained_agent_ends_by_itself_after_its_notice() {
    let mut stage = Stage::new();
    stage.attach(1, Role::Producer);
    let handle = stage.agent.handle();
    ask(&mut stage, move || {
        handle.drain(driver::ShutdownReason::Admin, "update", Duration::from_secs(10)).unwrap()
    });
    run(&mut stage.agent);
    assert_eq!(announces(&stage.received()).len(), 1, "the final announce");
    stage.clock.advance(2_000);
    let ended = (0..4).find_map(|_| stage.agent.do_work().err());
    assert!(matches!(ended, Some(DriverAgentError::Stopped)));
    let received = stage.received();
    assert!(
        matches!(received.first(), Some(Sent::Shutdown { reason: ShutdownReason::Admin, .. })),
        "{received:?}"
    );
    stage.agent.close();
    assert!(stage.received().is_empty(), "one notice");
}

#[test]
fn other_threads_ask_a_running_agent() {
    let base = temp_base();
    let bus = MemoryBus::new();
    let agent = start(config(base.path()), &bus).unwrap();
    let handle = agent.handle();
    let runner = AgentRunner::start(agent, IdleStrategy::default()).unwrap();
    let patience = Duration::from_secs(10);
    let id = handle.create_stream_by_name("left", patience).unwrap().unwrap();
    assert_eq!(handle.resolve("left", patience), Ok(Some(id)));
    assert_eq!(handle.resolve("right", patience), Ok(None));
    assert!(handle.create_stream_by_name("a/b", patience).unwrap().is_err());

    let transport = bus.connect().unwrap();
    let mut requests = publication(&*transport, CONTROL);
    let mut control = subscription(&*transport, CONTROL);
    let mut attach = request(42, Role::Producer, id.get(), 5);
    attach.publish_mode = Some(PublishMode::RequireExisting.into());
    let attach = attach.to_vec().unwrap();
    let deadline = Instant::now() + patience;
    let mut answers = Vec::new();
    // As a client does it, since the first request may come before the driver listens.
    while answers.is_empty() {
        assert!(Instant::now() < deadline);
        let _ = requests.offer(&attach);
        answers = read(&mut *control, Endpoint::Control);
        std::thread::yield_now();
    }
    let Sent::Attach(answer) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!((answer.code, answer.stream), (ResponseCode::Ok, Some(id.get())));

    let snapshot = handle.snapshot(patience).unwrap();
    let lease = &snapshot.leases[0];
    assert_eq!((lease.client.get(), lease.stream, lease.role), (42, id, ids::Role::Producer));
    assert_eq!(handle.revoke(lease.id, "enough", patience), Ok(true));
    assert_eq!(handle.revoke(lease.id, "enough", patience), Ok(false));
    match runner.stop() {
        Ok(()) => {}
        Err(RunnerError::Agent(error)) => panic!("{error}"),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(handle.resolve("left", patience), Err(HandleError::Ended));
}
