//! Announces and activity: what consumers live on (9, 10.1).

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod driver_support;

use driver_support::*;
use tidegate_sbe::Open;
use tidegate_sbe::control::DataSourceAnnounce;
use tidegate_sbe::driver::{PublishMode, Role};
use tidegate_shm::clock::Nanos;
use tidegate_tensor::driver::Endpoint;
use tidegate_tensor::ids::StreamId;

/// Announces with the milliseconds since `start` at which they were sent.
fn announced(rig: &mut Rig, milliseconds: u64) -> Vec<(u64, Announced)> {
    let start = rig.now;
    let mut found = Vec::new();
    for _ in 0..milliseconds / 5 {
        for announce in announces(&rig.step(5)) {
            assert_eq!(announce.at, rig.now.as_u64());
            found.push((rig.now.saturating_sub(start).as_u64() / 1_000_000, announce));
        }
    }
    found
}

/// Rules: TP-149, TP-490.
#[test]
fn a_new_epoch_is_announced_at_once_soon_again_and_then_periodically() {
    let mut rig = Rig::new();
    let lease = rig.granted(42, Role::Consumer, CAM);
    let found = announced(&mut rig, 4_000);
    let times: Vec<_> = found.iter().map(|(at, _)| *at).collect();
    assert!((50..=100).contains(&times[0]), "{times:?}");
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [1000, 1000, 1000]);
    assert!(found.iter().all(|(_, announce)| {
        (Some(announce.epoch), announce.stream, announce.producer) == (lease.epoch, CAM, 0)
    }));
}

/// Rules: TP-149.
#[test]
fn the_announce_period_is_configurable() {
    let mut rig = Rig::with(|config| config.policies.announce_period = std::time::Duration::from_millis(200));
    rig.granted(42, Role::Consumer, CAM);
    assert_eq!(announced(&mut rig, 2_080).len(), 11);
}

/// Rules: TP-148.
#[test]
fn announces_name_the_attached_producer_and_nobody_after_it_left() {
    let mut rig = Rig::new();
    let lease = rig.granted(42, Role::Producer, CAM);
    rig.outgoing();
    rig.keepalive(&lease, 42, Role::Producer);
    assert!(announced(&mut rig, 2_000).iter().all(|(_, it)| it.producer == 42));
    rig.detach(&lease, 42, Role::Producer);
    let after = announced(&mut rig, 2_000);
    assert!(!after.is_empty() && after.iter().all(|(_, it)| it.producer == 0));
}

/// Rules: TP-124, TP-149.
#[test]
fn streams_without_regions_are_not_announced() {
    let mut rig = Rig::new();
    let named = rig.driver.create_stream_by_name("late").unwrap();
    assert_eq!(announced(&mut rig, 3_000), []);
    rig.granted(1, Role::Consumer, named.get());
    let found = announced(&mut rig, 3_000);
    assert!(!found.is_empty());
    assert!(found.iter().all(|(_, it)| it.stream == named.get() && it.epoch != 0));
}

/// Rules: TP-150.
#[test]
fn a_waiting_announce_is_stamped_when_it_leaves() {
    let mut rig = Rig::new();
    let request = request(42, Role::Producer, CAM, 1).to_vec().unwrap();
    rig.driver.on_control(&request, rig.now);
    let announce = |bytes: &[u8]| match Sent::decode(bytes, Endpoint::Announce) {
        Sent::Announce(announce) => announce.at,
        other => panic!("{other:?}"),
    };
    for _ in 0..3 {
        rig.now = rig.now.saturating_add(Nanos::from_millis(300));
        let now = rig.now;
        let bytes = rig.driver.next_outgoing(Endpoint::Announce, now).unwrap();
        assert_eq!(announce(bytes), now.as_u64());
    }
    rig.driver.sent(Endpoint::Announce);
    assert_eq!(rig.driver.next_outgoing(Endpoint::Announce, rig.now), None);
}

#[test]
fn a_lease_starts_when_its_answer_leaves() {
    let mut rig = Rig::new();
    let request = request(42, Role::Producer, CAM, 1).to_vec().unwrap();
    rig.driver.on_control(&request, rig.now);
    // Making the regions took two seconds, say.
    rig.now = rig.now.saturating_add(Nanos::from_secs(2));
    let expected = rig.now.saturating_add(Nanos::from_millis(LEASE)).as_u64();
    let sent = rig.outgoing();
    let Sent::Attach(answer) = &sent[0] else { panic!("{sent:?}") };
    assert_eq!(answer.expiry, Some(expected));
    assert!(!kinds(&rig.step(LEASE - 1)).contains(&"revoked"));
    assert!(kinds(&rig.step(1)).contains(&"revoked"));
}

/// Rules: TP-140.
#[test]
fn the_driver_keeps_regions_alive_while_no_producer_does() {
    let mut rig = Rig::new();
    let consumer = rig.granted(1, Role::Consumer, CAM);
    let activity = |answer: &Answer| -> Vec<u64> {
        let uris = answer.pools.iter().map(|pool| &pool.uri).chain([&answer.header_uri]);
        uris.map(|uri| superblock(&path_of(uri)).activity_timestamp_ns).collect()
    };
    for _ in 0..40 {
        rig.keepalive(&consumer, 1, Role::Consumer);
        rig.step(100);
        let oldest = activity(&consumer).into_iter().min().unwrap();
        assert!(rig.now.as_u64() - oldest <= 1_000_000_000, "header ring and every pool, once per period");
    }
    let producer = rig.granted(2, Role::Producer, CAM);
    let at_attach = activity(&producer);
    for _ in 0..40 {
        rig.keepalive(&producer, 2, Role::Producer);
        rig.step(100);
    }
    assert_eq!(activity(&producer), at_attach, "now that is the producer's business");
    // The driver's stores touch nothing else.
    let block = superblock(&path_of(&producer.header_uri));
    assert_eq!(block.start_timestamp_ns, block.activity_timestamp_ns);
}

#[test]
fn names_reserve_streams_for_those_who_know_only_the_name() {
    let mut rig = Rig::new();
    assert_eq!(rig.driver.resolve("camera.left"), None);
    let id = rig.driver.create_stream_by_name("camera.left").unwrap();
    assert_eq!(id, StreamId::new(20_000));
    assert_eq!(rig.driver.create_stream_by_name("camera.left"), Ok(id));
    assert_eq!(rig.driver.resolve("camera.left"), Some(id));
    assert_eq!(
        rig.driver.create_stream_by_name("cam"),
        Ok(StreamId::new(CAM)),
        "configured names are names, too"
    );
    // Others no longer get the id, and an attach finds the stream although it creates nothing.
    let mut other = request(9, Role::Producer, 0, 1);
    other.publish_mode = Some(Open::Listed(PublishMode::ExistingOrCreate));
    assert_eq!(rig.ask(&other).stream, Some(20_001));
    assert_eq!(rig.granted(1, Role::Producer, id.get()).stream, Some(20_000));
    let snapshot = rig.driver.snapshot(rig.now);
    let named = snapshot.streams.iter().find(|stream| stream.id == id).unwrap();
    assert_eq!((named.name.as_deref(), named.dynamic), (Some("camera.left"), true));

    for wrong in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
        assert!(rig.driver.create_stream_by_name(wrong).is_err(), "{wrong:?}");
    }
    assert!(rig.driver.create_stream_by_name(&"x".repeat(64)).is_ok());
    let mut rig = Rig::with(|config| config.policies.allow_dynamic_streams = false);
    assert!(rig.driver.create_stream_by_name("new").is_err());
    let mut rig = Rig::with(|config| config.driver.stream_id_range = "20000".parse().unwrap());
    rig.driver.create_stream_by_name("one").unwrap();
    assert!(rig.driver.create_stream_by_name("two").is_err());
}

#[test]
fn a_producer_names_its_stream_after_a_restart_of_the_driver() {
    let mut rig = Rig::new();
    let mut create = request(7, Role::Producer, 20_005, 1);
    create.publish_mode = Some(Open::Listed(PublishMode::ExistingOrCreate));
    assert_eq!(rig.ask(&create).stream, Some(20_005));
    let say = |rig: &mut Rig, stream, producer, name: &str| {
        let announce = DataSourceAnnounce {
            stream_id: stream,
            producer_id: producer,
            epoch: 1,
            meta_version: 0,
            name: name.into(),
            summary: "".into(),
        };
        rig.driver.on_metadata(&announce.to_vec().unwrap());
    };

    say(&mut rig, 20_005, 8, "depth");
    assert_eq!(rig.driver.resolve("depth"), None, "only the holder of the producer lease is believed");
    say(&mut rig, 20_005, 7, "cam");
    assert_eq!(rig.driver.resolve("cam"), Some(StreamId::new(CAM)), "a configured name stays where it is");
    say(&mut rig, 20_005, 7, "a b");
    assert_eq!(rig.driver.resolve("a b"), None);
    rig.driver.on_metadata(b"noise");

    say(&mut rig, 20_005, 7, "depth");
    assert_eq!(rig.driver.resolve("depth"), Some(StreamId::new(20_005)));
    say(&mut rig, 20_005, 7, "other");
    assert_eq!(rig.driver.resolve("other"), None, "a stream keeps its name");
}

/// A transport that takes nothing for a while does not make announces pile up behind each other.
#[test]
fn an_announce_that_waits_is_not_joined_by_the_next() {
    let mut rig = Rig::new();
    rig.granted(42, Role::Consumer, CAM);
    rig.outgoing();
    for _ in 0..5 {
        rig.now = rig.now.saturating_add(Nanos::from_secs(1));
        rig.driver.on_tick(rig.now);
    }
    assert_eq!(announces(&rig.outgoing()).len(), 1);
}
