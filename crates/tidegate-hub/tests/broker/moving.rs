//! Channels attached and moved by way of the broker, between processes (13.5, 15.2).

use std::{process::exit, time::Duration};

use tidegate_hub::{
    broker::{
        AttachViaError, Discovery, HubError, RetryPolicy,
        wire::{EventBody, Label, Register},
    },
    config::{BufferPolicy, ConsumerConfig, HubConfig, HubTimeouts, Timeout},
    consumer::{Consumer, HandoverIterator},
    error::{OpenError, RegistryError},
    handover::{Answers, Confirm, HandoverError, HandoverOptions},
    layout::{self, DigestAlg, SchemaInfo, SyncPolicy},
    producer::Producer,
    schema::{Schema, SchemaExpectation, SchemaMode, SchemaVersion},
};

use crate::support::*;

const LONG: Timeout = Timeout::After(Duration::from_secs(30));
const OLD: &str = "tds1 Pose size=8 align=8 {id:u64@0+8}";
const APPENDED: &str = "tds1 Pose size=16 align=8 {id:u64@0+8;x:f64?@8+8}";

fn name() -> layout::ChannelName {
    layout::ChannelName::new("data").unwrap()
}

fn ring(place: &Place, slots: u32, text: &str, version: (u16, u16)) -> HubConfig {
    let schema = Schema::parse(text).unwrap();
    let info = SchemaInfo {
        slot_hash: *schema.hash().as_bytes(),
        version,
        struct_size: schema.size(),
        struct_align: schema.align(),
        text: text.to_owned(),
    };
    let mut config = HubConfig {
        dir: place.blocks(),
        sync: SyncPolicy::AllReaders,
        digest_alg: DigestAlg::None,
        schema: info,
        ..HubConfig::new(name(), BufferPolicy::ring(slots), 64)
    };
    config.identity.producer_uid = "PROD-moving".to_owned();
    config
}

fn expecting(place: &Place, mode: SchemaMode) -> ConsumerConfig {
    let schema = Schema::parse(OLD).unwrap();
    let expected = SchemaExpectation { schema, version: SchemaVersion::new(1, 0), min_minor: 0, mode };
    ConsumerConfig { dir: place.blocks(), schema: Some(expected), ..ConsumerConfig::default() }
}

fn retry() -> RetryPolicy {
    let step = Duration::from_millis(20);
    RetryPolicy::exponential(step, 1.0, step, 0.0, 10_000, 6 * SOON).unwrap()
}

fn patient() -> HandoverOptions {
    HandoverOptions { grace: Some(6 * SOON), ..HandoverOptions::default() }
}

/// Reads ids until the channel is over.
fn play_reader(place: &Place, client: &str, mode: SchemaMode) -> ! {
    let hub = place.hub(client);
    let mut iterator = Consumer::attach_via(&hub, &name(), &expecting(place, mode), retry()).unwrap();
    let mut expected = iterator.consumer().start_id().0;
    while let Ok(slot) = iterator.next(LONG) {
        assert_eq!(slot.id().0, expected);
        expected += 1;
    }
    exit(if expected == 6 { 0 } else { 1 });
}

fn send(producer: &Producer, id: u64) {
    assert_eq!(producer.send(&id.to_le_bytes(), LONG).unwrap().0, id);
}

fn answers_become(producer: &Producer, count: u32) {
    until("all have attached", || producer.consumer_count() == count);
}

/// A successor with other records: who wants exactly his own refuses when it is announced, who accepts appended fields comes
/// along. The broker knows the new block then, and the consumer in it.
///
/// Rules: DH-200, DH-177, V-09, DH-221.
#[test]
fn a_channel_moves_to_other_records() {
    const TEST: &str = "moving::a_channel_moves_to_other_records";
    if let Some((role, place)) = role() {
        match role.as_str() {
            "strict" => play_reader(&place, "strict", SchemaMode::Strict),
            _ => play_reader(&place, "lenient", SchemaMode::AllowAppended),
        }
    }
    let (_dir, place) = place();
    let _broker = place.broker();
    let hub = place.hub("producer");
    let old = Producer::create(&ring(&place, 8, OLD, (1, 0))).unwrap();
    let register = Register::of_block(old.descriptor(), old.block().own_key()).unwrap();
    let mut registration = hub.register(register, None, SOON).unwrap();
    let strict = Actor::start(TEST, "strict", &place);
    let mut lenient = Actor::start(TEST, "lenient", &place);
    answers_become(&old, 2);
    (0..2).for_each(|id| send(&old, id));
    let next = ring(&place, 16, APPENDED, (1, 1));
    match hub.hand_over(&old, &mut registration, &next, patient(), SOON) {
        Err(HandoverError::NotConfirmed(Answers { refused: 1, .. })) => {}
        other => panic!("{other:?}"),
    }
    let found = || hub.discover(&Discovery::of(channel("data")), SOON, RetryPolicy::none()).unwrap();
    assert_eq!(found().channel.shm_name.as_str(), old.name());
    send(&old, 2);
    strict.kill();
    answers_become(&old, 1);
    let new = hub.hand_over(&old, &mut registration, &next, patient(), SOON).unwrap();
    (3..6).for_each(|id| send(&new, id));
    assert_eq!(found().channel.shm_name.as_str(), new.name());
    answers_become(&new, 1);
    until("the consumer is known", || hub.list(None, SOON).unwrap()[0].consumers == 1);
    registration.deregister(SOON).unwrap();
    new.close().unwrap();
    assert!(lenient.0.wait().unwrap().success());
}

/// With the broker gone a channel moves all the same.
///
/// Rules: DH-221, V-02, DH-183.
#[test]
fn a_channel_moves_without_its_broker() {
    const TEST: &str = "moving::a_channel_moves_without_its_broker";
    if let Some((_, place)) = role() {
        play_reader(&place, "reader", SchemaMode::Strict);
    }
    let (_dir, place) = place();
    let broker = place.broker();
    let hub = place.hub("producer");
    let old = Producer::create(&ring(&place, 8, OLD, (1, 0))).unwrap();
    let register = Register::of_block(old.descriptor(), old.block().own_key()).unwrap();
    let mut registration = hub.register(register, None, SOON).unwrap();
    let mut reader = Actor::start(TEST, "reader", &place);
    answers_become(&old, 1);
    broker.stop().unwrap();
    (0..3).for_each(|id| send(&old, id));
    let next = ring(&place, 16, OLD, (1, 0));
    let short = Duration::from_millis(200);
    let new = hub.hand_over(&old, &mut registration, &next, patient(), short).unwrap();
    (3..6).for_each(|id| send(&new, id));
    answers_become(&new, 1);
    new.close().unwrap();
    assert!(reader.0.wait().unwrap().success());
}

/// A broker that was away at the cut, or that has forgotten what was announced, knows the new block when it is back, and keeps it
/// over further restarts.
///
/// Rules: DH-183, DH-221.
#[test]
fn a_broker_that_comes_back_learns_of_the_move() {
    let (_dir, place) = place();
    let (hub, asking) = (place.hub("producer"), place.hub("asking"));
    let found = |producer: &Producer| {
        // A client may ask a hundred times a second.
        std::thread::sleep(Duration::from_millis(20));
        let found = asking.discover(&Discovery::of(channel("data")), SOON, RetryPolicy::none());
        found.is_ok_and(|found| found.channel.shm_name.as_str() == producer.name())
    };
    let mut broker = place.broker();
    let mut old = Producer::create(&ring(&place, 8, OLD, (1, 0))).unwrap();
    let register = Register {
        zmq_endpoint: Some(Label::new("ipc:///somewhere").unwrap()),
        ..Register::of_block(old.descriptor(), old.block().own_key()).unwrap()
    };
    let mut registration = hub.register(register, None, SOON).unwrap();
    let next = ring(&place, 16, OLD, (1, 0));
    for forgets in [false, true] {
        broker.stop().unwrap();
        let short = Duration::from_millis(200);
        // The block before stays for as long as somebody has not read it to its end.
        let reader = Consumer::attach(&old.name(), &expecting(&place, SchemaMode::Strict)).unwrap();
        let unasked = HandoverOptions { confirm: Confirm::None, ..patient() };
        let new = hub.hand_over(&old, &mut registration, &next, unasked, short).unwrap();
        assert!(!registration.is_current());
        if forgets {
            std::fs::remove_file(place.registry()).unwrap();
        }
        broker = place.broker();
        until("the new block is known", || found(&new));
        until("the client knows", || registration.is_current());
        let known = asking.discover(&Discovery::of(channel("data")), SOON, RetryPolicy::none()).unwrap();
        assert_eq!(known.channel.zmq_endpoint, Some(Label::new("ipc:///somewhere").unwrap()));
        assert_eq!(registration.channel_id(), Some(known.channel.channel_id));
        drop(reader);
        old = new;
    }
    broker.stop().unwrap();
    let _again = place.broker();
    until("the block is known again", || found(&old));
    registration.deregister(SOON).unwrap();
}

/// A channel that is registered twice is kept for as long as the later registration is.
///
/// Rules: DH-183.
#[test]
fn a_channel_that_is_registered_again_is_kept() {
    let (_dir, place) = place();
    let broker = place.broker();
    let hub = place.hub("producer");
    let producer = Producer::create(&ring(&place, 8, OLD, (1, 0))).unwrap();
    let register = || Register::of_block(producer.descriptor(), producer.block().own_key()).unwrap();
    let first = hub.register(register(), None, SOON).unwrap();
    let registration = hub.register(register(), None, SOON).unwrap();
    drop(first);
    assert!(registration.is_current());
    broker.stop().unwrap();
    let _again = place.broker();
    until("the channel is known again", || registration.is_current());
    registration.deregister(SOON).unwrap();
}

/// A broker that was restarted knows the consumers again, not only the producers.
///
/// Rules: DH-183.
#[test]
fn attachments_are_announced_again() {
    let (_dir, place) = place();
    let broker = place.broker();
    let hub = place.hub("producer");
    let producer = Producer::create(&ring(&place, 8, OLD, (1, 0))).unwrap();
    let register = Register::of_block(producer.descriptor(), producer.block().own_key()).unwrap();
    let _registration = hub.register(register, None, SOON).unwrap();
    let reader = place.hub("reader");
    let config = expecting(&place, SchemaMode::Strict);
    let iterator = Consumer::attach_via(&reader, &name(), &config, retry()).unwrap();
    let known = |count: u32| {
        hub.list(None, SOON).is_ok_and(|list| list.first().is_some_and(|c| c.consumers == count))
    };
    assert!(known(1));
    broker.stop().unwrap();
    let _again = place.broker();
    until("the consumer is known again", || known(1));
    iterator.detach().unwrap();
    until("it is known to have left", || known(0));
}

/// Attaching goes step by step: discover, open, join, tell. A step that fails is told, and those behind it are not made.
/// Without a broker a name is enough.
///
/// Rules: DH-200, DH-201, DH-198, N-33.
#[test]
fn attaching_goes_in_order() {
    let (_dir, place) = place();
    let config = expecting(&place, SchemaMode::Strict);
    let one = HubConfig { max_consumers: 1, ..ring(&place, 8, OLD, (1, 0)) };
    let producer = Producer::create(&one).unwrap();
    let joined = || producer.metrics().unwrap().counters.consumers_joined;
    let alone = Consumer::attach(&producer.name(), &config).unwrap();
    assert_eq!((producer.consumer_count(), joined()), (1, 1));

    let broker = place.broker();
    let (hub, reader) = (place.hub("producer"), place.hub("reader"));
    let attach = |config: &ConsumerConfig| {
        let none = RetryPolicy::none();
        Consumer::attach_via(&reader, &name(), config, none).map_err(|error| match error {
            AttachViaError::Hub(HubError::NotFound(_)) => "not found",
            AttachViaError::Hub(HubError::Timeout { .. } | HubError::Disconnected { .. }) => "no broker",
            AttachViaError::Open(OpenError::Attach(_)) => "not opened",
            AttachViaError::Open(OpenError::Registry(RegistryError::ConsumerLimit { .. })) => "no room",
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(attach(&config).err(), Some("not found"));
    let register = Register::of_block(producer.descriptor(), producer.block().own_key()).unwrap();
    let registration = hub.register(register, None, SOON).unwrap();
    let events = registration.registered().unwrap().events_endpoint.unwrap();
    let events = hub.events(events.as_str(), &channel("data")).unwrap();
    let heard = |patience| match events.recv_with_timeout(patience).unwrap()?.body {
        EventBody::AttachAck(_) => Some("ack"),
        EventBody::AttachNack(_) => Some("nack"),
        other => panic!("{other:?}"),
    };
    let elsewhere = ConsumerConfig { dir: place.0.clone(), ..config.clone() };
    // The first one may be published before the subscription is there.
    until("the failure is told", || {
        assert_eq!(attach(&elsewhere).err(), Some("not opened"));
        heard(Duration::from_millis(100)).is_some()
    });
    while heard(Duration::from_millis(300)).is_some() {}
    assert_eq!(joined(), 1, "what cannot be opened is not joined");
    // Who has no place is not told to have come.
    assert_eq!(attach(&config).err(), Some("no room"));
    assert_eq!(heard(SOON), Some("nack"));
    alone.detach().unwrap();
    let iterator = attach(&config).unwrap();
    assert_eq!((heard(SOON), producer.consumer_count()), (Some("ack"), 1));
    iterator.detach().unwrap();
    broker.stop().unwrap();
    let hasty = ConsumerConfig {
        timeouts: HubTimeouts { broker_request: Duration::from_millis(200), ..HubTimeouts::default() },
        ..config
    };
    assert_eq!(attach(&hasty).err(), Some("no broker"));
}

/// What the broker says is held against the block, and a failure is told to the broker's listeners.
///
/// Rules: DH-199, DH-200, DH-196.
#[test]
fn attaching_fails_where_the_block_is_not_what_is_expected() {
    let (_dir, place) = place();
    let _broker = place.broker();
    let hub = place.hub("producer");
    let config = expecting(&place, SchemaMode::Strict);
    let reader = place.hub("reader");
    let attach =
        |config: &ConsumerConfig| Consumer::attach_via(&reader, &name(), config, RetryPolicy::none());
    assert!(matches!(attach(&config), Err(AttachViaError::Hub(HubError::NotFound(_)))));
    let producer = Producer::create(&ring(&place, 8, OLD, (1, 0))).unwrap();
    let register = Register::of_block(producer.descriptor(), producer.block().own_key()).unwrap();
    let registration = hub.register(register, None, SOON).unwrap();
    let events = registration.registered().unwrap().events_endpoint.unwrap();
    let events = hub.events(events.as_str(), &channel("data")).unwrap();
    let elsewhere = ConsumerConfig { dir: place.0.clone(), ..config.clone() };
    // The first one may be published before the subscription is there.
    until("the failure is told", || {
        assert!(matches!(attach(&elsewhere), Err(AttachViaError::Open(OpenError::Attach(_)))));
        let event = events.recv_with_timeout(Duration::from_millis(100)).unwrap();
        event.is_some_and(|event| matches!(event.body, EventBody::AttachNack(_)))
    });
    let unasked = HandoverOptions { confirm: Confirm::None, ..patient() };
    let mut iterator: HandoverIterator = attach(&config).unwrap();
    let new = producer.begin_handover(&ring(&place, 4, OLD, (1, 0)), unasked).unwrap().cut().unwrap();
    send(&new, 0);
    assert_eq!(iterator.next(LONG).unwrap().id().0, 0);
}
