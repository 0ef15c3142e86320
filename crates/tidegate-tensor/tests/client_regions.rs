//! Regions as clients are handed them, by a driver or by announces: good ones, bad ones, missing ones.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod client_support;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use client_support::*;
use tidegate_sbe::control::{ClockDomain, PayloadPool, ShmPoolAnnounce};
use tidegate_sbe::driver::{ResponseCode, ShmAttachResponse};
use tidegate_sbe::{AnyMessage, driver};
use tidegate_shm::clock::Nanos;
use tidegate_tensor::client::{Adding, ClientError, ClientEvent, ConsumerConfig, MappingState, RegionOrigin};
use tidegate_tensor::ids::{Epoch, StreamId};
use tidegate_tensor::region::store::{EpochRegions, RegionStore};
use tidegate_tensor::region::{MapError, RegionSpec};

fn announce_of(spec: &RegionSpec, sent: Nanos) -> Vec<u8> {
    let uris: Vec<String> = spec.pools().iter().map(|pool| pool.uri.to_string()).collect();
    let header = spec.header().to_string();
    ShmPoolAnnounce {
        stream_id: spec.stream().get(),
        producer_id: 0,
        epoch: spec.epoch().get(),
        announce_timestamp_ns: sent.as_u64(),
        announce_clock_domain: ClockDomain::Monotonic,
        layout_version: 1,
        header_nslots: spec.slots().get(),
        header_slot_bytes: 256,
        payload_pools: spec
            .pools()
            .iter()
            .zip(&uris)
            .map(|(pool, uri)| PayloadPool {
                pool_id: pool.geometry.pool_id.get(),
                pool_nslots: spec.slots().get(),
                stride_bytes: pool.geometry.stride.get(),
                region_uri: uri.as_str().into(),
            })
            .collect(),
        header_region_uri: header.as_str().into(),
    }
    .to_vec()
    .unwrap()
}

fn regions(stage: &Stage, stream: StreamId) -> (RegionStore, EpochRegions) {
    let store = RegionStore::open(stage.store_settings()).unwrap();
    let made = store.create_epoch(stream, &profile(), Epoch::NONE, Nanos(stage.now())).unwrap();
    (store, made)
}

/// Regions configured by hand need no announce (IP-89).
#[test]
fn a_fixed_consumer_needs_no_announce() {
    let mut stage = Stage::bare();
    let (_store, made) = regions(&stage, CAM);
    let mut peer = stage.peer();
    let spec = RegionSpec::clone(made.spec());
    let config = ConsumerConfig { origin: RegionOrigin::Fixed(spec.clone()), ..ConsumerConfig::new(CAM) };
    let consumer = stage.consumer(&mut peer, config);
    assert_eq!(consumer.state(), MappingState::Mapped(spec.epoch()));
}

/// Rules: TP-184, TC-087.
#[test]
fn a_fixed_consumer_of_nothing_is_told_why() {
    let mut stage = Stage::bare();
    let (store, made) = regions(&stage, CAM);
    let spec = RegionSpec::clone(made.spec());
    let header = spec.header().clone();
    store.discard(made);
    let mut peer = stage.peer();
    let config = ConsumerConfig { origin: RegionOrigin::Fixed(spec), ..ConsumerConfig::new(CAM) };
    let mut adding = peer.add_consumer(config).unwrap();
    stage.settle(&mut [&mut peer]);
    assert!(matches!(adding.poll(), Err(ClientError::Map(_))));
    let says_why = |event: &ClientEvent| matches!(event, ClientEvent::MapFailed { error: MapError::Open { uri, .. }, .. } if uri == &header);
    assert!(peer.saw(says_why));
    assert!(peer.has_no_endpoints(), "{}", peer.endpoints());
}

/// A driver made by hand: grants the attach that `add` asks for, on these regions. Returns what came of it and what the
/// client said afterwards.
fn grant<T>(
    stage: &mut Stage,
    peer: &mut Peer,
    spec: &RegionSpec,
    add: impl FnOnce(&Peer) -> Adding<T>,
) -> (Result<Option<T>, ClientError>, Vec<String>) {
    let mut control = stage.wire(CONTROL);
    let mut adding = add(peer);
    stage.settle(&mut [peer]);
    let request = control.heard().iter().find_map(|bytes| match AnyMessage::decode(bytes) {
        Ok(AnyMessage::Driver(driver::Message::ShmAttachRequest(request))) => Some(request),
        _ => None,
    });
    let uris: Vec<String> = spec.pools().iter().map(|pool| pool.uri.to_string()).collect();
    let header = spec.header().to_string();
    let response = ShmAttachResponse {
        correlation_id: request.unwrap().correlation_id,
        code: ResponseCode::Ok,
        lease_id: Some(1),
        lease_expiry_timestamp_ns: None,
        stream_id: Some(spec.stream().get()),
        epoch: Some(spec.epoch().get()),
        layout_version: Some(1),
        header_nslots: Some(spec.slots().get()),
        header_slot_bytes: Some(256),
        node_id: None,
        payload_pools: spec
            .pools()
            .iter()
            .zip(&uris)
            .map(|(pool, uri)| driver::PayloadPool {
                pool_id: pool.geometry.pool_id.get(),
                pool_nslots: spec.slots().get(),
                stride_bytes: pool.geometry.stride.get(),
                region_uri: uri.as_str().into(),
            })
            .collect(),
        header_region_uri: header.as_str().into(),
        error_message: "".into(),
    };
    control.say(&response.to_vec().unwrap());
    stage.settle(&mut [peer]);
    let said = control
        .heard()
        .iter()
        .filter_map(|bytes| Some(AnyMessage::decode(bytes).ok()?.name().to_owned()))
        .collect();
    (adding.poll(), said)
}

/// Whoever hands them out, and whether they are to be read or written.
/// Rules: TP-058, TP-062, TP-063, TP-289, TP-455, TC-035.
#[test]
fn one_bad_region_refuses_all_of_them() {
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    type Break = fn(&Path, &Path);
    let cases: [(&str, Break); 7] = [
        ("a pool of another epoch", |pool, _| patch_file(pool, 12, &1u64.to_le_bytes())),
        ("a pool of another stream", |pool, _| patch_file(pool, 20, &1u32.to_le_bytes())),
        ("a pool of another id", |pool, _| patch_file(pool, 26, &1u16.to_le_bytes())),
        ("a readable pool", |pool, _| fs::set_permissions(pool, fs::Permissions::from_mode(0o664)).unwrap()),
        ("a short pool", |pool, _| {
            let file = fs::OpenOptions::new().write(true).open(pool).unwrap();
            file.set_len(fs::metadata(pool).unwrap().len() - 1).unwrap();
        }),
        ("a missing pool", |pool, _| fs::remove_file(pool).unwrap()),
        ("a pool outside of the allowed directories", |pool, elsewhere| {
            let moved = elsewhere.join("2.pool");
            fs::copy(pool, &moved).unwrap();
            fs::remove_file(pool).unwrap();
            std::os::unix::fs::symlink(moved, pool).unwrap();
        }),
    ];
    for (what, break_it) in cases {
        let mut stage = Stage::bare();
        let (_store, made) = regions(&stage, CAM);
        let spec = RegionSpec::clone(made.spec());
        break_it(spec.pools()[1].uri.path(), elsewhere.path());
        let header = fs::read(spec.header().path()).unwrap();
        let mut peer = stage.peer();
        let (outcome, said) =
            grant(&mut stage, &mut peer, &spec, |peer| peer.add_consumer(ConsumerConfig::new(CAM)).unwrap());
        assert!(matches!(outcome, Err(ClientError::Map(_))), "{what}: {outcome:?}");
        assert!(said.contains(&"ShmDetachRequest".to_owned()), "{what}: {said:?}");
        let mut peer = stage.peer();
        let (outcome, said) =
            grant(&mut stage, &mut peer, &spec, |peer| peer.add_producer(produces(CAM)).unwrap());
        assert!(matches!(outcome, Err(ClientError::Map(_))), "{what}: {outcome:?}");
        assert!(said.contains(&"ShmDetachRequest".to_owned()), "{what}: {said:?}");
        assert_eq!(fs::read(spec.header().path()).unwrap(), header, "{what}: nothing was written");
        let used =
            |event: &ClientEvent| matches!(event, ClientEvent::Mapped { .. } | ClientEvent::Attached { .. });
        assert!(!peer.saw(used), "{what}");
        fs::read_dir(elsewhere.path())
            .unwrap()
            .for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
    }
}

fn patch_file(path: &Path, at: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_at(bytes, at).unwrap();
}

/// Paths are taken as they are given, whatever they look like; nothing is derived and no directory is searched.
/// Rules: TP-050, TP-051, TP-306.
#[test]
fn regions_may_lie_anywhere_in_the_allowed_directories() {
    let mut stage = Stage::bare();
    let (_store, made) = regions(&stage, CAM);
    let place = stage.base.path().canonicalize().unwrap().join("anywhere");
    fs::create_dir(&place).unwrap();
    let moved = |path: &Path, name: &str| {
        fs::rename(path, place.join(name)).unwrap();
        tidegate_tensor::uri::RegionUri::new(place.join(name), false).unwrap()
    };
    let spec = made.spec();
    let header = moved(spec.header().path(), "a.bin");
    let mut pools = spec.pools().to_vec();
    pools[0].uri = moved(pools[0].uri.path(), "b");
    pools[1].uri = moved(pools[1].uri.path(), "c.dat");
    let spec = RegionSpec::new(CAM, spec.epoch(), spec.slots(), header, pools).unwrap();
    let mut peer = stage.peer();
    let (outcome, _) =
        grant(&mut stage, &mut peer, &spec, |peer| peer.add_consumer(ConsumerConfig::new(CAM)).unwrap());
    assert_eq!(outcome.unwrap().unwrap().state(), MappingState::Mapped(spec.epoch()));

    let mut without_driver = stage.peer();
    let consumer = stage.consumer(&mut without_driver, announced(CAM));
    let mut announce = stage.wire(ANNOUNCE);
    stage.pass(50, &mut [&mut without_driver]);
    announce.say(&announce_of(&spec, Nanos(stage.now())));
    stage.settle(&mut [&mut without_driver]);
    assert_eq!(consumer.state(), MappingState::Mapped(spec.epoch()));
}

/// Told once per epoch, however often it is announced.
/// Rules: TP-067, TP-184, TC-087.
#[test]
fn regions_that_cannot_be_mapped_are_told_of_once() {
    let mut stage = Stage::bare();
    let (_store, made) = regions(&stage, CAM);
    let path = made.spec().pools()[0].uri.path().to_owned();
    let hidden = path.with_extension("hidden");
    fs::rename(&path, &hidden).unwrap();
    let mut peer = stage.peer();
    let consumer = stage.consumer(&mut peer, announced(CAM));
    let mut announce = stage.wire(ANNOUNCE);
    stage.pass(100, &mut [&mut peer]);
    for _ in 0..5 {
        announce.say(&announce_of(made.spec(), Nanos(stage.now())));
        stage.pass(1_000, &mut [&mut peer]);
    }
    let events = peer.events();
    let failures = events.iter().filter(|event| matches!(event, ClientEvent::MapFailed { .. })).count();
    assert_eq!((failures, consumer.state()), (1, MappingState::Unmapped), "{events:?}");
    assert!(consumer.status().map_error.unwrap().contains("1.pool"));
    fs::rename(&hidden, &path).unwrap();
    announce.say(&announce_of(made.spec(), Nanos(stage.now())));
    stage.settle(&mut [&mut peer]);
    assert!(matches!(consumer.state(), MappingState::Mapped(_)));
    assert_eq!(consumer.status().map_error, None);
}

/// The join is when the announcer appeared, not when the client began to listen.
/// Rules: TP-137.
#[test]
fn an_announce_from_before_its_announcer_appeared_is_dropped() {
    let mut stage = Stage::bare();
    let (_store, made) = regions(&stage, CAM);
    let mut peer = stage.peer();
    let consumer = stage.consumer(&mut peer, announced(CAM));
    stage.pass(1_000, &mut [&mut peer]);
    let mut announce = stage.wire(ANNOUNCE);
    let before = Nanos(stage.now()).saturating_sub(Nanos::from_millis(500));
    announce.say(&announce_of(made.spec(), before));
    stage.settle(&mut [&mut peer]);
    assert_eq!(consumer.state(), MappingState::Unmapped);
    announce.say(&announce_of(made.spec(), Nanos(stage.now())));
    stage.settle(&mut [&mut peer]);
    assert_eq!(consumer.state(), MappingState::Mapped(made.spec().epoch()));
}
