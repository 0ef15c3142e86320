//! Clients and the real driver: attaching, losing the lease in every way there is, attaching again.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod client_support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client_support::files::{files_below, header_rings};
use client_support::*;
use tidegate_sbe::driver::{Message, Role};
use tidegate_sbe::{AnyMessage, MessageHeader};
use tidegate_tensor::agent::Agent;
use tidegate_tensor::client::{
    ClientError, ClientEvent, ConsumerConfig, LeaseLoss, MappingState, ProducerConfig, PublishError,
    RefusalCode, UnmapReason,
};
use tidegate_tensor::frame::FrameMeta;
use tidegate_tensor::ids::{ClientId, StreamId};

/// What the driver messages on the control stream were, by name.
fn said(wire: &mut Wire) -> Vec<&'static str> {
    wire.heard()
        .iter()
        .filter_map(|bytes| match AnyMessage::decode(bytes) {
            Ok(AnyMessage::Driver(message)) => Some(message.name()),
            _ => None,
        })
        .collect()
}

/// Inode, mode and length of everything below `dir`.
fn files(dir: &Path) -> BTreeMap<PathBuf, (u64, u32, u64)> {
    let facts = |path: PathBuf| {
        let metadata = path.metadata().unwrap();
        (path, (metadata.ino(), metadata.mode(), metadata.len()))
    };
    files_below(dir).into_iter().map(facts).collect()
}

/// The main job.
/// Rules: TP-187, TP-188, TP-189, TP-306.
#[test]
fn frames_travel_from_a_producer_to_every_consumer() {
    let mut stage = Stage::new();
    let (mut here, mut there) = (stage.peer(), stage.peer());
    let mut producer = stage.producer(&mut here, produces(CAM));
    let mut near = stage.consumer(&mut here, ConsumerConfig::new(CAM));
    let mut far = stage.consumer(&mut there, ConsumerConfig::new(CAM));
    assert!(producer.is_connected());
    assert_eq!(producer.max_payload(), Some(4096));
    stage.settle(&mut [&mut here, &mut there]);
    for round in 0..3 * u64::from(SLOTS) {
        let payload = vec![round as u8; 100];
        assert_eq!(publish(&mut producer, &payload), round);
        for consumer in [&mut near, &mut far] {
            assert_eq!(frames(consumer), [(round, payload.clone())]);
        }
    }
    assert_eq!(far.totals().frames, 3 * u64::from(SLOTS));
    assert_eq!(far.totals().drops, Default::default());
    let epoch = producer.status().epoch.unwrap();
    assert_eq!(far.state(), MappingState::Mapped(epoch));
    assert!(far.uses_shm() && far.payload_fallback_uri().is_none());
}

/// Attaching, working and leaving, a client changes nothing but the contents of the files it was given.
/// Rules: TP-056.
#[test]
fn a_client_makes_and_removes_no_files() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    let mut producer = stage.producer(&mut peer, produces(CAM));
    stage.settle(&mut [&mut peer]);
    let before = files(stage.base.path());
    publish(&mut producer, b"x");
    // Only the clients work, so whatever happens to files is their doing.
    drop((producer, consumer));
    for _ in 0..10 {
        peer.work();
    }
    peer.agent.close();
    assert!(before.len() > 3, "{before:?}");
    assert_eq!(files(stage.base.path()), before);
}

/// A producer that was not heard of fences itself at its deadline, before anybody tells it; it then learns, attaches
/// again, and writes the new epoch from 0. Its consumer waits in between and follows.
/// Rules: TP-126, TP-127, TP-296, TP-297, TP-299, TP-307, TP-456, TC-090.
#[test]
fn an_expired_producer_is_fenced_and_starts_anew() {
    let mut stage = Stage::new();
    let (mut paused, mut awake) = (stage.peer(), stage.peer());
    let mut producer = stage.producer(&mut paused, produces(CAM));
    let mut consumer = stage.consumer(&mut awake, ConsumerConfig::new(CAM));
    stage.settle(&mut [&mut paused, &mut awake]);
    for seq in 0..5 {
        assert_eq!(publish(&mut producer, b"old"), seq);
    }
    assert_eq!(numbers(&mut consumer), [0, 1, 2, 3, 4]);
    let mut claim = producer.try_claim(3).unwrap();
    let first_epoch = producer.status().epoch.unwrap();
    paused.events();
    awake.events();

    // The conductor of the producer stands still; nobody but the clock ends its right to write.
    stage.pass(2_950, &mut [&mut awake]);
    assert_eq!(publish(&mut producer, b"in time"), 6, "5 is the open claim");
    stage.clock.advance(50);
    let refused = producer.offer(&bytes(1), b"x", FrameMeta::default()).unwrap_err();
    assert!(matches!(refused, PublishError::NotAttached { .. }), "{refused:?}");
    assert_eq!(refused.code(), -3);
    assert!(matches!(producer.try_claim(1), Err(PublishError::NotAttached { .. })));
    let refused = producer.commit(&mut claim, &bytes(3), FrameMeta::default()).unwrap_err();
    assert_eq!(refused.code(), -3);

    stage.pass(500, &mut [&mut awake]);
    let events = awake.events();
    let unmapped = events.iter().position(|event| {
        matches!(event, ClientEvent::Unmapped { reason: UnmapReason::ProducerRevoked, .. })
    });
    let mapped = events
        .iter()
        .position(|event| matches!(event, ClientEvent::Mapped { epoch, .. } if *epoch > first_epoch));
    assert!(unmapped.is_some() && unmapped < mapped, "{events:?}");
    assert!(
        !events.iter().any(|event| matches!(event, ClientEvent::LeaseLost { .. })),
        "its own lease stays"
    );

    stage.until("attached again", &mut [&mut paused, &mut awake], |peer| {
        peer.saw(|event| matches!(event, ClientEvent::Attached { .. }))
    });
    stage.settle(&mut [&mut paused, &mut awake]);
    let second_epoch = producer.status().epoch.unwrap();
    assert!(second_epoch > first_epoch);
    let stale = producer.commit(&mut claim, &bytes(3), FrameMeta::default()).unwrap_err();
    assert_eq!((stale.code(), stale), (-4, PublishError::StaleClaim { claim: first_epoch }));
    assert_eq!(publish(&mut producer, b"new"), 0);
    assert_eq!(frames(&mut consumer), [(0, b"new".to_vec())]);
    assert_eq!(consumer.totals().drops, Default::default(), "counters begin anew with the epoch");
    assert!(consumer.totals().epochs >= 2);
}

/// Descriptors of the old epoch that are still under way when the mapping changes lead to nothing.
/// Rules: TP-127, TC-073.
#[test]
fn frames_in_flight_end_with_their_epoch() {
    let mut stage = Stage::new();
    let (mut paused, mut awake) = (stage.peer(), stage.peer());
    let mut producer = stage.producer(&mut paused, produces(CAM));
    let mut consumer = stage.consumer(&mut awake, ConsumerConfig::new(CAM));
    stage.settle(&mut [&mut paused, &mut awake]);
    publish(&mut producer, b"read");
    assert_eq!(numbers(&mut consumer), [0]);
    publish(&mut producer, b"in flight");
    let old = producer.status().epoch.unwrap();
    stage.pass(3_500, &mut [&mut awake]);
    assert!(matches!(consumer.state(), MappingState::Mapped(epoch) if epoch > old));
    assert_eq!(numbers(&mut consumer), Vec::<u64>::new());
    assert_eq!((consumer.totals().frames, consumer.totals().drops), (1, Default::default()));
}

/// Both ends of one client, its conductor asleep for longer than a lease: everything is found again.
#[test]
fn a_client_that_slept_comes_back() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, produces(CAM));
    let mut consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    publish(&mut producer, b"x");
    assert_eq!(numbers(&mut consumer), [0]);
    stage.pass(10_000, &mut []);
    stage.until("frames again", &mut [&mut peer], |_| {
        let _ = producer.offer(&bytes(1), b"y", FrameMeta::default());
        !numbers(&mut consumer).is_empty()
    });
}

/// The driver dies without a word. Clients notice by its silence, and a new driver serves them under a higher epoch.
/// Rules: TP-305, TC-114.
#[test]
fn a_driver_that_died_silently_is_replaced() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, produces(CAM));
    let mut consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    stage.settle(&mut [&mut peer]);
    publish(&mut producer, b"x");
    assert_eq!(numbers(&mut consumer), [0]);
    let old = producer.status().epoch.unwrap();
    stage.driver = None;
    peer.events();
    stage.pass(2_900, &mut [&mut peer]);
    assert_eq!(publish(&mut producer, b"x"), 1, "within three periods nothing is concluded");
    stage.pass(1_500, &mut [&mut peer]);
    let silent =
        |event: &ClientEvent| matches!(event, ClientEvent::LeaseLost { loss: LeaseLoss::DriverSilent, .. });
    assert_eq!(peer.events().iter().filter(|event| silent(event)).count(), 2, "producer and consumer");
    assert!(matches!(
        producer.offer(&bytes(1), b"x", FrameMeta::default()),
        Err(PublishError::NotAttached { reason: Some(LeaseLoss::DriverSilent) })
    ));
    assert_eq!(consumer.state(), MappingState::Unmapped);
    stage.start_driver();
    stage.until("frames again", &mut [&mut peer], |_| {
        let _ = producer.offer(&bytes(1), b"y", FrameMeta::default());
        !numbers(&mut consumer).is_empty()
    });
    assert!(producer.status().epoch.unwrap() > old);
}

/// A C program beside a driver announces on the control stream (IP-77). A producer does not take that for the driver.
/// Rules: TP-305.
#[test]
fn announces_of_others_are_no_sign_of_life_of_the_driver() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut announces = stage.wire(ANNOUNCE);
    let _producer = stage.producer(&mut peer, produces(CAM));
    stage.settle(&mut [&mut peer]);
    let announce = announces.heard().pop().unwrap();
    stage.driver = None;
    let mut control = stage.wire(CONTROL);
    for _ in 0..8 {
        control.say(&announce);
        stage.pass(500, &mut [&mut peer]);
    }
    let silent =
        |event: &ClientEvent| matches!(event, ClientEvent::LeaseLost { loss: LeaseLoss::DriverSilent, .. });
    assert!(peer.saw(silent));
}

/// Rules: TP-297, TP-304, TC-113.
#[test]
fn a_driver_that_says_goodbye_is_believed_at_once() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, produces(CAM));
    let consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    let mut driver = stage.driver.take().unwrap();
    driver.close();
    peer.work();
    assert!(matches!(
        producer.offer(&bytes(1), b"x", FrameMeta::default()),
        Err(PublishError::NotAttached { reason: Some(LeaseLoss::Shutdown) })
    ));
    assert_eq!(
        (consumer.state(), consumer.status().loss),
        (MappingState::Unmapped, Some(LeaseLoss::Shutdown))
    );
}

/// Unknown reasons of a shutdown count, unknown reasons or roles of a revocation do not.
/// Rules: TP-301, TP-304, TC-115.
#[test]
fn unlisted_values_in_notices() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let _producer = stage.producer(&mut peer, produces(CAM));
    let mut control = stage.wire(CONTROL);
    let consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    let leases: Vec<_> = control
        .heard()
        .iter()
        .filter_map(|bytes| match AnyMessage::decode(bytes) {
            Ok(AnyMessage::Driver(Message::ShmAttachResponse(answer))) => answer.lease_id,
            _ => None,
        })
        .collect();
    let client = consumer.status().client.unwrap().get();
    let good = revoked(leases[0], CAM, client, Role::Consumer, stage.now());
    // Role and reason are the last two bytes of the block.
    for (at, value) in [(8 + 24, 0), (8 + 24, 3), (8 + 25, 9), (8 + 25, 0)] {
        let mut bad = good.clone();
        bad[at] = value;
        control.say(&bad);
    }
    stage.settle(&mut [&mut peer]);
    assert!(matches!(consumer.state(), MappingState::Mapped(_)));
    control.say(&good);
    peer.work();
    assert_eq!(consumer.state(), MappingState::Unmapped, "the same notice with listed values");
}

/// Rules: TP-294.
#[test]
fn messages_of_other_schemas_and_versions_are_not_looked_into() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut control = stage.wire(CONTROL);
    let consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    let shutdown = tidegate_sbe::driver::ShmDriverShutdown {
        timestamp_ns: stage.now(),
        reason: tidegate_sbe::Open::from_raw(0),
        error_message: "".into(),
    }
    .to_vec()
    .unwrap();
    let header = MessageHeader { ..tidegate_sbe::driver::ShmDriverShutdown::HEADER };
    // Schema, template, version: u16 each behind the block length.
    for (at, value) in [(4, 777u16), (2, 99), (6, header.version + 1)] {
        let mut foreign = shutdown.clone();
        foreign[at..at + 2].copy_from_slice(&value.to_le_bytes());
        control.say(&foreign);
    }
    control.say(&shutdown[..10]);
    control.say(&[]);
    stage.settle(&mut [&mut peer]);
    assert!(matches!(consumer.state(), MappingState::Mapped(_)));
    control.say(&shutdown);
    peer.work();
    assert_eq!(consumer.state(), MappingState::Unmapped);
}

/// Rules: TP-298, TP-302.
#[test]
fn an_administrators_revocation_is_followed_by_a_new_lease() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, produces(CAM));
    peer.events();
    let handle = stage.driver.as_ref().unwrap().handle();
    let asked = std::thread::spawn(move || {
        let timeout = Duration::from_secs(20);
        let lease = handle.snapshot(timeout).unwrap().leases[0].id;
        handle.revoke(lease, "maintenance", timeout).unwrap()
    });
    while !asked.is_finished() {
        stage.driver.as_mut().unwrap().do_work().unwrap();
        std::thread::yield_now();
    }
    assert!(asked.join().unwrap());
    stage.driver.as_mut().unwrap().do_work().unwrap();
    peer.work();
    let refused = producer.offer(&bytes(1), b"x", FrameMeta::default()).unwrap_err();
    let PublishError::NotAttached { reason: Some(LeaseLoss::Revoked { message }) } = &refused else {
        panic!("{refused:?}")
    };
    assert!(message.contains("maintenance"), "{message}");
    stage.until("attached again", &mut [&mut peer], |peer| {
        peer.saw(|event| matches!(event, ClientEvent::Attached { .. }))
    });
    assert_eq!(publish_unheard(&mut producer), 0);
}

/// A frame that nobody listens for.
fn publish_unheard(producer: &mut tidegate_tensor::client::Producer) -> u64 {
    match producer.offer(&bytes(1), b"x", FrameMeta::default()) {
        Ok(seq) | Err(PublishError::Unannounced { seq, .. }) => seq.get(),
        Err(other) => panic!("{other:?}"),
    }
}

/// The media driver dies: the connection is made anew, everything is attached again.
#[test]
fn a_lost_connection_is_made_anew() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, produces(CAM));
    let mut consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    publish(&mut producer, b"x");
    peer.events();
    stage.driver = None;
    stage.bus.set_reachable(false);
    stage.bus.fail("killed");
    peer.work();
    let lost =
        |event: &ClientEvent| matches!(event, ClientEvent::LeaseLost { loss: LeaseLoss::TransportLost, .. });
    let events = peer.events();
    assert_eq!(events.iter().filter(|event| lost(event)).count(), 2, "{events:?}");
    assert!(events.iter().any(|event| matches!(event, ClientEvent::Disconnected { .. })));
    assert!(matches!(
        producer.offer(&bytes(1), b"x", FrameMeta::default()),
        Err(PublishError::NotAttached { reason: Some(LeaseLoss::TransportLost) })
    ));
    assert_eq!(consumer.poll(1, &mut |_| {}).unwrap(), 0);
    assert!(!producer.is_connected());
    stage.pass(20_000, &mut [&mut peer]);
    assert!(!peer.saw(|event| matches!(event, ClientEvent::Connected)));
    stage.bus.set_reachable(true);
    stage.start_driver();
    stage.until("frames again", &mut [&mut peer], |_| {
        let _ = producer.offer(&bytes(1), b"y", FrameMeta::default());
        !numbers(&mut consumer).is_empty()
    });
    assert!(peer.saw(|event| matches!(event, ClientEvent::Connected)));
}

/// What the driver refuses, the one who waits is told, once, and nothing is left behind.
/// Rules: TP-184.
#[test]
fn a_refusal_is_the_answer_to_whoever_waits() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut adding = peer.add_consumer(ConsumerConfig::new(StreamId::new(4))).unwrap();
    stage.settle(&mut [&mut peer]);
    let refused = adding.poll().unwrap_err();
    assert!(matches!(refused, ClientError::Refused(_)), "{refused:?}");
    assert!(peer.has_no_endpoints(), "{}", peer.endpoints());
    assert!(adding.poll().unwrap().is_none());
}

/// Rules: TP-491, TC-091, TC-097.
#[test]
fn a_second_producer_is_refused_once_the_first_must_have_ended() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut first = stage.producer(&mut peer, produces(CAM));
    let mut adding =
        peer.add_producer(ProducerConfig { client: Some(ClientId::new(9)), ..produces(CAM) }).unwrap();
    stage.pass(2_900, &mut [&mut peer]);
    assert!(adding.poll().unwrap().is_none());
    let mut outcome = None;
    stage.until("an answer", &mut [&mut peer], |_| {
        outcome = adding.poll().err();
        outcome.is_some()
    });
    let Some(ClientError::Refused(refusal)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(refusal.code, RefusalCode::Rejected);
    assert_eq!(publish_unheard(&mut first), 0);
    assert!(peer.endpoints().contains("producers: 1"), "{}", peer.endpoints());
}

/// Giving up is enough; the request does not live on.
#[test]
fn a_request_that_nobody_waits_for_any_more_is_dropped() {
    let mut stage = Stage::bare();
    let mut peer = stage.peer();
    let consumer = peer.add_consumer(ConsumerConfig::new(CAM)).unwrap();
    let producer = peer.add_producer(produces(CAM)).unwrap();
    stage.settle(&mut [&mut peer]);
    assert!(peer.endpoints().contains("producers: 1, consumers: 1"), "{}", peer.endpoints());
    drop((consumer, producer));
    stage.settle(&mut [&mut peer]);
    assert!(peer.has_no_endpoints(), "{}", peer.endpoints());

    // Also while there is no media driver.
    let consumer = peer.add_consumer(ConsumerConfig::new(CAM)).unwrap();
    let producer = peer.add_producer(produces(CAM)).unwrap();
    stage.settle(&mut [&mut peer]);
    stage.bus.set_reachable(false);
    stage.bus.fail("killed");
    stage.settle(&mut [&mut peer]);
    drop((consumer, producer));
    stage.settle(&mut [&mut peer]);
    assert!(peer.has_no_endpoints(), "{}", peer.endpoints());
}

/// Dropping a handle hands its lease back, with one detach, and nothing more is said about it.
/// Rules: TP-146, TP-308, TP-460.
#[test]
fn dropping_a_handle_detaches_it() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, produces(CAM));
    let consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    publish(&mut producer, b"last");
    let epoch = producer.status().epoch.unwrap().to_string();
    let is_current = |ring: &PathBuf| ring.parent().is_some_and(|dir| dir.ends_with(&epoch));
    let header = header_rings(stage.base.path()).into_iter().find(is_current).expect("the header ring");
    let slot = std::fs::read(&header).unwrap()[64..64 + 256].to_vec();
    let mut control = stage.wire(CONTROL);
    drop((producer, consumer));
    peer.work();
    assert_eq!(said(&mut control), ["ShmDetachRequest", "ShmDetachRequest"]);
    stage.settle(&mut [&mut peer]);
    assert!(peer.has_no_endpoints(), "{}", peer.endpoints());
    let ring = std::fs::read(&header).unwrap();
    assert_eq!(ring[64..64 + 256], slot, "the last frame stays as it was");
    let activity = ring[56..64].to_vec();
    said(&mut control);
    let mut qos = stage.wire(QOS);
    stage.pass(3_000, &mut [&mut peer]);
    assert_eq!(std::fs::read(&header).unwrap()[56..64], activity, "nobody refreshes it any more");
    assert_eq!(said(&mut control), [] as [&str; 0]);
    assert!(qos.heard().is_empty());
}

/// Rules: TP-434.
#[test]
fn nothing_happens_between_duty_cycles() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let consumer = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    let mut control = stage.wire(CONTROL);
    let adding = peer.add_producer(produces(CAM)).unwrap();
    drop(consumer);
    assert_eq!((adding.registration_id(), said(&mut control).len()), (-1, 0));
    assert!(peer.endpoints().contains("producers: 0, consumers: 1"));
    peer.work();
    assert!(adding.registration_id() >= 0);
    let mut said = said(&mut control);
    said.sort_unstable();
    assert_eq!(said, ["ShmAttachRequest", "ShmDetachRequest"]);
}

/// A driver whose answers carry a stream id of its own choice (IP-38).
#[test]
fn a_consumer_reads_the_stream_it_was_given() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    // A dynamic stream: the producer learns its id from the answer.
    let mut producer = stage.producer(&mut peer, ProducerConfig::default());
    let stream = producer.status().stream.unwrap();
    assert!((20_000..30_000).contains(&stream.get()), "{stream}");
    let mut consumer =
        stage.consumer(&mut peer, ConsumerConfig { create: true, ..ConsumerConfig::new(stream) });
    publish(&mut producer, b"x");
    assert_eq!(frames(&mut consumer), [(0, b"x".to_vec())]);
}

/// The first keepalive leaves in the duty cycle in which the answer came.
/// Rules: TP-295, TP-439.
#[test]
fn the_first_keepalive_follows_the_grant_at_once() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut control = stage.wire(CONTROL);
    let _adding = peer.add_consumer(ConsumerConfig::new(CAM)).unwrap();
    for _ in 0..4 {
        peer.work();
    }
    stage.driver.as_mut().unwrap().do_work().unwrap();
    said(&mut control);
    peer.work();
    assert_eq!(said(&mut control), ["ShmLeaseKeepalive"]);
}
