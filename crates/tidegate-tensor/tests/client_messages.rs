//! What clients say: descriptors, Hello, QoS, names; when, and what is in them.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod client_support;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use client_support::files::header_rings;
use client_support::tapped::{Tap, Tapped};
use client_support::*;
use tidegate_sbe::AnyMessage;
use tidegate_sbe::control::{
    ConsumerHello, DataSourceAnnounce, FrameDescriptor, Message, Mode, QosConsumer, QosProducer,
};
use tidegate_tensor::client::{ConsumerConfig, ProducerConfig, PublishError};
use tidegate_tensor::frame::{FrameMeta, WriteOptions};
use tidegate_tensor::ids::Seq;
use tidegate_tensor::transport::OfferError;

fn descriptors(wire: &mut Wire) -> Vec<FrameDescriptor> {
    wire.heard().iter().map(|bytes| FrameDescriptor::decode(bytes).unwrap()).collect()
}

fn qos_consumers(wire: &mut Wire) -> Vec<QosConsumer> {
    pick(wire, |message| match message {
        Message::QosConsumer(qos) => Some(*qos),
        _ => None,
    })
}

fn qos_producers(wire: &mut Wire) -> Vec<QosProducer> {
    pick(wire, |message| match message {
        Message::QosProducer(qos) => Some(*qos),
        _ => None,
    })
}

fn pick<T>(wire: &mut Wire, pick: impl Fn(&Message<'_>) -> Option<T>) -> Vec<T> {
    wire.heard()
        .iter()
        .filter_map(|bytes| match AnyMessage::decode(bytes) {
            Ok(AnyMessage::Control(message)) => pick(&message),
            _ => None,
        })
        .collect()
}

/// A producer of its own whose descriptors pass through `tap`.
fn tapped(
    tap: Tap,
    config: impl FnOnce(ProducerConfig) -> ProducerConfig,
) -> (Stage, Peer, tidegate_tensor::client::Producer) {
    let mut stage = Stage::bare();
    let connector = Tapped::connector(&stage.bus, tap);
    let mut peer = stage.peer_with(stage.context(), connector);
    let config = config(stage.own(CAM));
    let producer = stage.producer(&mut peer, config);
    (stage, peer, producer)
}

/// When a descriptor is offered, the slot is committed already.
/// Rules: TP-187, TC-071.
#[test]
fn a_descriptor_comes_after_its_commit() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let header: Arc<Mutex<PathBuf>> = Arc::default();
    let (log, path) = (Arc::clone(&seen), Arc::clone(&header));
    let tap: Tap = Arc::new(Mutex::new(move |message: &[u8]| {
        let seq = FrameDescriptor::decode(message).unwrap().seq;
        let ring = fs::read(&*path.lock().unwrap()).unwrap();
        let at = 64 + 256 * (seq % u64::from(SLOTS)) as usize;
        let word = u64::from_le_bytes(ring[at..at + 8].try_into().unwrap());
        log.lock().unwrap().push((seq, word));
        Ok(())
    }));
    let (stage, _peer, mut producer) = tapped(tap, |config| config);
    *header.lock().unwrap() = header_rings(stage.base.path()).remove(0);
    let _listener = stage.wire(DESCRIPTOR);
    publish(&mut producer, b"offered");
    let mut claim = producer.try_claim(3).unwrap();
    producer.commit(&mut claim, &bytes(3), FrameMeta::default()).unwrap();
    assert_eq!(*seen.lock().unwrap(), [(0, 1), (1, 3)]);
}

/// One message a descriptor, numbers in order, null where nothing is known.
/// Rules: TP-019, TP-189, TP-194.
#[test]
fn a_descriptor_says_what_its_slot_says() {
    let mut stage = Stage::bare();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, stage.own(CAM));
    let mut wire = stage.wire(DESCRIPTOR);
    let meta = FrameMeta { timestamp_ns: Some(5), meta_version: Some(6), trace_id: Some(7) };
    producer.offer(&bytes(1), b"x", meta).unwrap();
    publish(&mut producer, b"y");
    let epoch = producer.status().epoch.unwrap().get();
    let expected = |seq, meta_version, trace_id| FrameDescriptor {
        stream_id: CAM.get(),
        epoch,
        seq,
        timestamp_ns: None,
        meta_version,
        trace_id,
    };
    assert_eq!(descriptors(&mut wire), [expected(0, Some(6), Some(7)), expected(1, None, None)]);
}

/// The descriptor has the time of its emission, the slot the time of capture.
/// Rules: TP-190, TP-193, TP-195.
#[test]
fn publication_and_capture_have_their_own_times() {
    let mut stage = Stage::bare();
    let mut peer = stage.peer();
    let config = ProducerConfig { publish_descriptor_timestamp: true, ..stage.own(CAM) };
    let mut producer = stage.producer(&mut peer, config);
    let mut consumer = stage.consumer(&mut peer, announced(CAM));
    stage.pass(1_000, &mut [&mut peer]);
    let mut wire = stage.wire(DESCRIPTOR);
    let claimed = stage.now();
    let mut claim = producer.try_claim(1).unwrap();
    stage.clock.advance(5);
    let meta = FrameMeta { trace_id: Some(99), ..FrameMeta::default() };
    producer.commit(&mut claim, &bytes(1), meta).unwrap();
    let emitted = stage.now();
    stage.clock.advance(5);
    producer.offer(&bytes(1), b"x", FrameMeta { timestamp_ns: Some(claimed + 1), ..meta }).unwrap();
    let times: Vec<_> = descriptors(&mut wire).iter().map(|it| it.timestamp_ns).collect();
    assert_eq!(times, [Some(emitted), Some(emitted + 5_000_000)]);
    let mut captured = Vec::new();
    consumer.poll(10, &mut |frame| captured.push(frame.timestamp_ns())).unwrap();
    assert_eq!(captured, [Some(claimed), Some(claimed + 1)]);
    let back = producer.offer(&bytes(1), b"x", FrameMeta { timestamp_ns: Some(claimed), ..meta });
    assert!(matches!(back, Err(PublishError::Claim(_))), "{back:?}");
}

/// Rules: TP-001, TP-196.
#[test]
fn without_a_subscriber_the_frame_is_written_all_the_same() {
    for lenient in [false, true] {
        let mut stage = Stage::bare();
        let mut peer = stage.peer();
        let config = ProducerConfig { drop_unconnected_descriptors: lenient, ..stage.own(CAM) };
        let mut producer = stage.producer(&mut peer, config);
        for seq in 0..3 * u64::from(SLOTS) {
            let outcome = producer.offer(&bytes(1), b"x", FrameMeta::default());
            let seq = Seq::new(seq);
            if lenient {
                assert_eq!(outcome, Ok(seq));
            } else {
                let cause = OfferError::NotConnected;
                assert_eq!(outcome, Err(PublishError::Unannounced { seq, cause }));
            }
        }
        let ring = &header_rings(stage.base.path())[0];
        let word = u64::from_le_bytes(fs::read(ring).unwrap()[64..72].try_into().unwrap());
        assert_eq!(word, (2 * u64::from(SLOTS)) << 1 | 1);
        let mut consumer = stage.consumer(&mut peer, announced(CAM));
        stage.pass(1_000, &mut [&mut peer]);
        assert_eq!(publish(&mut producer, b"y"), 3 * u64::from(SLOTS));
        assert_eq!(frames(&mut consumer), [(3 * u64::from(SLOTS), b"y".to_vec())]);
    }
}

/// Tried again at once, a bounded number of times, then counted; never later than the next frame.
/// Rules: TP-001, TP-197.
#[test]
fn a_descriptor_that_is_pushed_back_is_given_up() {
    let offered = Arc::new(Mutex::new(Vec::new()));
    let refusals = Arc::new(Mutex::new(0));
    let (log, left) = (Arc::clone(&offered), Arc::clone(&refusals));
    let tap: Tap = Arc::new(Mutex::new(move |message: &[u8]| {
        log.lock().unwrap().push(FrameDescriptor::decode(message).unwrap().seq);
        let mut left = left.lock().unwrap();
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        Err(OfferError::BackPressured)
    }));
    let (mut stage, mut peer, mut producer) = tapped(tap, |config| config);
    let mut consumer = stage.consumer(&mut peer, announced(CAM));
    stage.pass(1_000, &mut [&mut peer]);
    *refusals.lock().unwrap() = 2;
    assert_eq!(publish(&mut producer, b"0"), 0);
    assert_eq!(*offered.lock().unwrap(), [0, 0, 0], "until it was taken");
    offered.lock().unwrap().clear();
    *refusals.lock().unwrap() = usize::MAX;
    let refused = producer.offer(&bytes(1), b"1", FrameMeta::default()).unwrap_err();
    assert_eq!(
        (refused.code(), refused),
        (-2, PublishError::Unannounced { seq: Seq::new(1), cause: OfferError::BackPressured })
    );
    let attempts = offered.lock().unwrap().len();
    assert!((1..100).contains(&attempts), "{attempts} attempts");
    assert_eq!(producer.stats().back_pressured.load(tidegate_shm::sync::Ordering::Relaxed), 1);
    *refusals.lock().unwrap() = 0;
    offered.lock().unwrap().clear();
    assert_eq!(publish(&mut producer, b"2"), 2);
    assert_eq!(*offered.lock().unwrap(), [2], "the old one is not sent late");
    assert_eq!(numbers(&mut consumer), [0, 2]);
    assert_eq!(consumer.totals().drops.gap, 1);
}

/// A consumer that never reads costs the producer nothing.
/// Rules: TP-001.
#[test]
fn a_consumer_that_does_not_read_is_lapped() {
    let mut stage = Stage::bare();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, stage.own(CAM));
    let mut idle = stage.consumer(&mut peer, announced(CAM));
    stage.pass(1_000, &mut [&mut peer]);
    for seq in 0..1_000 {
        assert_eq!(publish(&mut producer, b"x"), seq);
    }
    let read = numbers(&mut idle).len() as u64;
    let drops = idle.totals().drops;
    assert_eq!((read, drops.late, drops.gap), (u64::from(SLOTS), 1_000 - u64::from(SLOTS), 0));
}

/// Rules: TP-213, TP-214, TP-219, TP-486, TC-141.
#[test]
fn a_producers_qos_names_its_next_frame() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let named = ProducerConfig { name: Some("camera".to_owned()), ..produces(CAM) };
    let mut producer = stage.producer(&mut peer, named);
    let mut qos = stage.wire(QOS);
    let mut metadata = stage.wire(METADATA);
    let _listener = stage.wire(DESCRIPTOR);
    let client = producer.status().client.unwrap().get();
    for _ in 0..10 {
        publish(&mut producer, b"x");
    }
    stage.pass(3_000, &mut [&mut peer]);
    let expected = QosProducer {
        stream_id: CAM.get(),
        producer_id: client,
        epoch: producer.status().epoch.unwrap().get(),
        current_seq: 10,
        watermark: None,
    };
    assert_eq!(qos_producers(&mut qos), vec![expected; 3]);
    let announces = metadata.heard();
    assert_eq!(announces.len(), 3);
    let announce = DataSourceAnnounce::decode(&announces[0]).unwrap();
    assert_eq!(
        (announce.stream_id, announce.producer_id, announce.name.as_str()),
        (CAM.get(), client, Some("camera"))
    );
}

/// The number belongs to the epoch: the QoS of a new one does not carry that of the old one.
/// Rules: TP-214, TP-126.
#[test]
fn a_new_epoch_begins_its_count_at_zero() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, produces(CAM));
    let _listener = stage.wire(DESCRIPTOR);
    publish(&mut producer, b"x");
    let old = producer.status().epoch.unwrap();
    // The conductor sleeps, the lease ends, and the application does not touch the producer afterwards.
    stage.pass(4_000, &mut []);
    let mut qos = stage.wire(QOS);
    stage.pass(5_000, &mut [&mut peer]);
    let said: Vec<_> = qos_producers(&mut qos).into_iter().filter(|it| it.epoch > old.get()).collect();
    assert!(!said.is_empty() && said.iter().all(|it| it.current_seq == 0), "{said:?}");
}

/// Rules: TP-169, TP-172, TP-213, TP-215, TP-217, TP-486.
#[test]
fn a_consumer_says_hello_and_how_it_fares() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, produces(CAM));
    let mut control = stage.wire(CONTROL);
    let mut qos = stage.wire(QOS);
    let config = ConsumerConfig { max_rate_hz: 30, ..ConsumerConfig::new(CAM) };
    let mut consumer = stage.consumer(&mut peer, config);
    let client = consumer.status().client.unwrap().get();
    let epoch = producer.status().epoch.unwrap().get();
    let hellos = |wire: &mut Wire| -> Vec<Vec<u8>> {
        let is_hello = |bytes: &Vec<u8>| ConsumerHello::decode(bytes).is_ok();
        wire.heard().into_iter().filter(is_hello).collect()
    };
    let first = hellos(&mut control);
    assert_eq!(first.len(), 1, "after mapping, at once");
    let hello = ConsumerHello::decode(&first[0]).unwrap();
    assert_eq!((hello.stream_id, hello.consumer_id, hello.supports_shm), (CAM.get(), client, true));
    assert_eq!((hello.mode, hello.max_rate_hz), (Mode::RateLimited, 30));
    // Absent hints are all ones on the wire, and nothing is asked for.
    assert_eq!(first[0][8 + 19..8 + 31], [0xff; 12]);
    assert_eq!((hello.descriptor_stream_id, hello.control_stream_id), (0, 0));
    assert_eq!((hello.descriptor_channel.as_str(), hello.control_channel.as_str()), (Some(""), Some("")));

    let status = |last_seq_seen, drops_gap, drops_late| QosConsumer {
        stream_id: CAM.get(),
        consumer_id: client,
        epoch,
        last_seq_seen,
        drops_gap,
        drops_late,
        mode: Mode::RateLimited,
    };
    assert_eq!(qos_consumers(&mut qos), [status(0, 0, 0)]);
    for _ in 0..3 {
        publish(&mut producer, b"x");
    }
    numbers(&mut consumer);
    stage.bus.drop_next(DESCRIPTOR, 2);
    for _ in 0..12 {
        publish(&mut producer, b"x");
    }
    // Frames 3 and 4 are never heard of, 5 and 6 have been overwritten by 13 and 14.
    numbers(&mut consumer);
    stage.pass(2_000, &mut [&mut peer]);
    assert_eq!(qos_consumers(&mut qos), vec![status(14, 2, 2); 2]);
    assert_eq!(hellos(&mut control).len(), 2, "one a period");
}

/// Rules: TP-186, TP-213, TC-142.
#[test]
fn a_consumer_in_fallback_goes_on_reporting() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let mut qos = stage.wire(QOS);
    let mut control = stage.wire(CONTROL);
    let config = ConsumerConfig { supports_shm: false, ..ConsumerConfig::new(CAM) };
    let consumer = stage.consumer(&mut peer, config);
    assert!(!consumer.uses_shm() && consumer.payload_fallback_uri().is_none());
    stage.pass(3_000, &mut [&mut peer]);
    let said = qos_consumers(&mut qos);
    assert_eq!(said.len(), 4);
    assert!(said.iter().all(|it| (it.epoch, it.last_seq_seen) == (0, 0)), "{said:?}");
    assert!(
        control
            .heard()
            .iter()
            .filter_map(|bytes| ConsumerHello::decode(bytes).ok())
            .all(|it| !it.supports_shm)
    );

    let mut mapped = stage.consumer(&mut peer, ConsumerConfig::new(CAM));
    let client = mapped.status().client.unwrap().get();
    control.say(&config_message(CAM, client, false, ""));
    stage.settle(&mut [&mut peer]);
    qos.heard();
    stage.pass(2_000, &mut [&mut peer]);
    let said: Vec<_> = qos_consumers(&mut qos).into_iter().filter(|it| it.consumer_id == client).collect();
    assert_eq!(said.len(), 2);
    assert!(said.iter().all(|it| it.epoch == 0), "{said:?}");
    assert_eq!(mapped.poll(1, &mut |_| {}).unwrap(), 0);
}

/// Producers beside a driver leave announcing to it.
/// Rules: TP-147.
#[test]
fn beside_a_driver_only_the_driver_announces() {
    let mut stage = Stage::new();
    let mut peer = stage.peer();
    let _producer = stage.producer(&mut peer, produces(CAM));
    let mut announce = stage.wire(ANNOUNCE);
    let mut control = stage.wire(CONTROL);
    for _ in 0..40 {
        stage.clock.advance(50);
        peer.work();
    }
    assert!(announce.heard().is_empty());
    let announces = |message: &Message<'_>| matches!(message, Message::ShmPoolAnnounce(_)).then_some(());
    assert!(pick(&mut control, announces).is_empty());
}

/// Rules: TP-450, TP-451, TC-196, TC-198.
#[test]
fn the_handle_answers_misuse_of_claims_with_codes() {
    let mut stage = Stage::bare();
    let mut peer = stage.peer();
    let mut producer = stage.producer(&mut peer, stage.own(CAM));
    let _listener = stage.wire(DESCRIPTOR);
    let mut claims: Vec<_> = (0..SLOTS).map(|_| producer.try_claim(1).unwrap()).collect();
    assert_eq!(producer.try_claim(1).unwrap_err().code(), -2);
    assert_eq!(producer.offer(&bytes(1), b"x", FrameMeta::default()).unwrap_err().code(), -2);
    producer.commit(&mut claims[0], &bytes(1), FrameMeta::default()).unwrap();
    assert_eq!(producer.queue_claim(&mut claims[0]).unwrap_err().code(), -4);
    claims.into_iter().for_each(|claim| producer.abort(claim));
    assert_eq!(publish(&mut producer, b"x"), u64::from(SLOTS));
    let too_large = producer.offer(&bytes(9_000), &[0; 9_000], FrameMeta::default());
    assert_eq!(too_large, Err(PublishError::TooLarge { len: 9_000, largest: 4_096 }));

    let write = WriteOptions { fixed_pool: true, ..WriteOptions::default() };
    let config = ProducerConfig { write, ..stage.own(OTHER) };
    let mut fixed = stage.producer(&mut peer, config);
    let mut claim = fixed.try_claim(1).unwrap();
    fixed.commit(&mut claim, &bytes(1), FrameMeta::default()).unwrap();
    assert_eq!(fixed.queue_claim(&mut claim), Ok(Seq::new(u64::from(SLOTS))));
}
