//! Attaching: what is granted, what is refused, and what is left behind (15.2).

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
use tidegate_sbe::driver::{HugepagesPolicy, PublishMode, ResponseCode, Role, ShmAttachRequest};
use tidegate_shm::clock::Nanos;
use tidegate_shm::region::{Access, AllowedBases, HugePages, PermissionPolicy};
use tidegate_tensor::config::IdRanges;
use tidegate_tensor::driver::DriverOptions;
use tidegate_tensor::ids::Epoch;
use tidegate_tensor::layout::{Expected, LAYOUT_VERSION, SlotCount, Stride};
use tidegate_tensor::uri::RegionUri;

fn create(mut request: ShmAttachRequest) -> ShmAttachRequest {
    request.publish_mode = Some(Open::Listed(PublishMode::ExistingOrCreate));
    request
}

fn refused(answer: &Answer) -> (ResponseCode, &str) {
    assert_ne!(answer.code, ResponseCode::Ok);
    let Answer { correlation, code, text, .. } = answer.clone();
    let bare = Answer {
        correlation,
        code,
        text,
        lease: None,
        expiry: None,
        stream: None,
        epoch: None,
        layout: None,
        slots: None,
        slot_bytes: None,
        node: None,
        pools: Vec::new(),
        header_uri: String::new(),
    };
    assert_eq!(*answer, bare, "a refusal carries nothing but code and text");
    assert!(!answer.text.is_empty());
    (answer.code, &answer.text)
}

/// Rules: TP-147, TP-148, TP-150, TP-238, TP-241, TP-242.
#[test]
fn a_producer_gets_regions_a_lease_and_an_announce_in_this_order() {
    let mut rig = Rig::new();
    let now = rig.now;
    let sent = rig.send(&request(42, Role::Producer, CAM, -7).to_vec().unwrap());
    let [Sent::Attach(answer), Sent::Announce(announce)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((answer.correlation, answer.code, answer.text.as_str()), (-7, ResponseCode::Ok, ""));
    assert_eq!(answer.lease, Some(FIRST_LEASE));
    assert_eq!(answer.expiry, Some(now.saturating_add(Nanos::from_millis(LEASE)).as_u64()));
    assert_eq!(
        (answer.stream, answer.layout, answer.slots, answer.slot_bytes),
        (Some(CAM), Some(1), Some(8), Some(256))
    );
    assert_eq!(answer.node, Some(1));
    let geometry: Vec<_> = answer.pools.iter().map(|pool| (pool.id, pool.slots, pool.stride)).collect();
    assert_eq!(geometry, [(1, 8, 4096), (2, 8, 64)]);

    assert_eq!((announce.stream, announce.producer), (CAM, 42));
    assert_eq!(Some(announce.epoch), answer.epoch);
    assert_eq!(announce.at, now.as_u64());
    assert_eq!((&announce.pools, &announce.header_uri), (&answer.pools, &answer.header_uri));
}

/// Rules: TP-049, TP-053, TP-234, TP-237.
#[test]
fn what_an_answer_names_can_be_opened_under_the_rules_for_clients() {
    let mut rig = Rig::new();
    let answer = rig.granted(42, Role::Producer, CAM);
    let epoch = answer.epoch.unwrap();
    let (allowed, rejected) = AllowedBases::new([rig.base()]);
    assert!(rejected.is_empty());
    let open = |uri: &str| {
        let uri = RegionUri::parse(uri.as_bytes()).unwrap();
        let policy = PermissionPolicy::default();
        allowed.open(uri.path(), Access::ReadWrite, &policy, HugePages::NotRequired).unwrap()
    };
    let dir = rig.root().join(CAM.to_string()).join(epoch.to_string());
    let expected = Expected {
        layout_version: LAYOUT_VERSION,
        epoch: Epoch::new(epoch),
        stream_id: tidegate_tensor::ids::StreamId::new(CAM),
        nslots: SlotCount::new(8).unwrap(),
    };

    let header = open(&answer.header_uri);
    assert_eq!(header.path(), dir.join("header.ring"));
    assert_eq!(header.len(), 64 + 8 * 256);
    let found = superblock(header.path());
    found.check_header_ring(&expected).unwrap();
    assert_eq!(found.pid, u64::from(std::process::id()));
    assert_eq!((found.start_timestamp_ns, found.activity_timestamp_ns), (rig.now.as_u64(), rig.now.as_u64()));
    for pool in &answer.pools {
        let file = open(&pool.uri);
        assert_eq!(file.path(), dir.join(format!("{}.pool", pool.id)));
        assert_eq!(file.len(), 64 + 8 * u64::from(pool.stride));
        let stride = Stride::new(pool.stride).unwrap();
        superblock(file.path())
            .check_pool(&expected, tidegate_tensor::ids::PoolId::new(pool.id), stride)
            .unwrap();
    }
    assert_eq!(rig.epoch_dirs(CAM), [epoch].into());
}

/// Rules: TP-239, TP-254, TC-091.
#[test]
fn a_second_producer_is_refused_and_the_first_is_not_disturbed() {
    let mut rig = Rig::new();
    let first = rig.granted(1, Role::Producer, CAM);
    let before = rig.files();
    let second = rig.attach(2, Role::Producer, CAM);
    assert_eq!(refused(&second), (ResponseCode::Rejected, "producer already attached"));
    assert_eq!(rig.files(), before);
    let snapshot = rig.driver.snapshot(rig.now);
    assert_eq!(snapshot.leases.len(), 1);
    assert_eq!(snapshot.leases[0].id.get(), first.lease.unwrap());
    assert!(rig.outgoing().is_empty());
}

/// Rules: TP-122, TP-248, TP-254, TC-092.
#[test]
fn consumers_share_the_epoch_that_the_first_of_them_makes() {
    let mut rig = Rig::new();
    let first = rig.granted(1, Role::Consumer, CAM);
    for client in 2..=100 {
        let sent =
            rig.send(&request(client, Role::Consumer, CAM, i64::from(client) + 1000).to_vec().unwrap());
        let [Sent::Attach(answer)] = &sent[..] else { panic!("no announce without a new epoch: {sent:?}") };
        assert_eq!((answer.code, answer.epoch), (ResponseCode::Ok, first.epoch));
    }
    assert_eq!(rig.driver.snapshot(rig.now).streams[0].consumers, 100);
    // A producer then starts in an epoch of its own.
    let producer = rig.granted(500, Role::Producer, CAM);
    assert!(producer.epoch > first.epoch);
}

/// Rules: TP-244, TC-093.
#[test]
fn a_repeated_request_gets_the_original_answer() {
    let mut rig = Rig::new();
    let request = request(42, Role::Producer, CAM, 9).to_vec().unwrap();
    let first = rig.send(&request);
    for _ in 0..5 {
        rig.now = rig.now.saturating_add(Nanos::from_millis(200));
        let again = rig.send(&request);
        assert_eq!(again, first[..1], "the same answer, and no announce");
    }
    assert_eq!(rig.driver.snapshot(rig.now).counters.attaches_repeated, 5);
    // Another correlation id is another attach.
    let other = rig.attach(42, Role::Producer, CAM);
    assert_eq!(refused(&other), (ResponseCode::Rejected, "client_id already attached"));
    // Once the lease is over the old id is an attach like any other.
    rig.step(LEASE);
    let anew = rig.ask(&ShmAttachRequest { ..self::request(42, Role::Producer, CAM, 9) });
    assert_eq!(anew.code, ResponseCode::Ok);
    let Sent::Attach(original) = &first[0] else { panic!() };
    assert_ne!(anew.lease, original.lease);
}

/// Rules: TP-240, TP-253.
#[test]
fn a_client_has_one_lease_whatever_role_and_stream_it_asks_for() {
    let mut rig = Rig::new();
    rig.granted(42, Role::Consumer, CAM);
    for (role, stream) in [(Role::Consumer, CAM), (Role::Producer, CAM), (Role::Producer, 0)] {
        let correlation = rig.correlation();
        let answer = rig.ask(&create(request(42, role, stream, correlation)));
        assert_eq!(refused(&answer), (ResponseCode::Rejected, "client_id already attached"));
    }
}

/// Rules: TP-239, TP-243, TC-095, TC-098.
#[test]
fn malformed_values_are_answered_by_row() {
    let mut rig = Rig::new();
    let valid = request(42, Role::Producer, CAM, 1);
    let cases = [
        (ShmAttachRequest { role: Open::from_raw(3), ..valid }, ResponseCode::InvalidParams, "invalid role"),
        (ShmAttachRequest { role: Open::from_raw(0), ..valid }, ResponseCode::InvalidParams, "invalid role"),
        (
            ShmAttachRequest { client_id: 0, ..valid },
            ResponseCode::InvalidParams,
            "client_id must be non-zero",
        ),
        (
            ShmAttachRequest { publish_mode: Some(Open::from_raw(9)), ..valid },
            ResponseCode::Unsupported,
            "unsupported publish_mode",
        ),
        (
            ShmAttachRequest { require_hugepages: Open::from_raw(9), ..valid },
            ResponseCode::InvalidParams,
            "invalid hugepages policy",
        ),
    ];
    for (request, code, text) in cases {
        assert_eq!(refused(&rig.ask(&request)), (code, text));
    }
    assert!(rig.driver.snapshot(rig.now).leases.is_empty());
    assert_eq!(rig.epoch_dirs(CAM), [].into());
}

/// Rules: TP-009, TP-010, TP-011, TP-250, TC-099.
#[test]
fn requests_of_a_newer_version_are_answered_unsupported_and_of_version_0_dropped() {
    let mut rig = Rig::new();
    let versioned = |version: u16, mut bytes: Vec<u8>| {
        bytes[6..8].copy_from_slice(&version.to_le_bytes());
        bytes
    };
    let attach = request(42, Role::Producer, CAM, 77).to_vec().unwrap();
    let sent = rig.send(&versioned(2, attach.clone()));
    let [Sent::Attach(answer)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(answer.correlation, 77);
    assert_eq!(refused(answer), (ResponseCode::Unsupported, "unsupported schema version"));

    let detach = tidegate_sbe::driver::ShmDetachRequest {
        correlation_id: 78,
        lease_id: 1,
        stream_id: CAM,
        client_id: 42,
        role: Role::Producer.into(),
    };
    let sent = rig.send(&versioned(2, detach.to_vec().unwrap()));
    let text = "unsupported schema version".to_owned();
    assert_eq!(sent, [Sent::Detach { correlation: 78, code: ResponseCode::Unsupported, text }]);

    assert!(rig.send(&versioned(0, attach.clone())).is_empty());
    let mut short = attach;
    short[0..2].copy_from_slice(&26_u16.to_le_bytes());
    assert!(rig.send(&short).is_empty());
    assert!(rig.driver.snapshot(rig.now).leases.is_empty());
}

/// Rules: TP-239, TC-100.
#[test]
fn the_expected_layout_version_is_1_or_any() {
    for (expected, granted) in [(0, true), (1, true), (2, false), (u32::MAX, false)] {
        let mut rig = Rig::new();
        let answer = rig.ask(&ShmAttachRequest {
            expected_layout_version: expected,
            ..request(42, Role::Consumer, CAM, 1)
        });
        if granted {
            assert_eq!((answer.code, answer.layout), (ResponseCode::Ok, Some(1)));
        } else {
            assert_eq!(refused(&answer), (ResponseCode::Rejected, "layout version mismatch"));
        }
    }
}

/// Rules: TP-239, TP-245, TP-246, TC-101.
#[test]
fn unknown_streams_need_permission_a_range_and_a_profile() {
    let unknown = request(42, Role::Producer, 20_005, 1);
    let not_provisioned = (ResponseCode::Rejected, "stream not provisioned");
    for dynamic in [false, true] {
        let mut rig = Rig::with(|config| config.policies.allow_dynamic_streams = dynamic);
        assert_eq!(refused(&rig.ask(&unknown)), not_provisioned);
        // No mode at all counts as "existing only".
        assert_eq!(refused(&rig.ask(&ShmAttachRequest { publish_mode: None, ..unknown })), not_provisioned);
        let answer = rig.ask(&create(unknown));
        if dynamic {
            assert_eq!(answer.code, ResponseCode::Ok);
        } else {
            assert_eq!(refused(&answer), not_provisioned);
            assert_eq!(rig.driver.snapshot(rig.now).streams.len(), 1);
        }
    }
    let mut rig = Rig::with(|config| config.driver.stream_id_range = IdRanges::default());
    let answer = rig.ask(&create(unknown));
    assert_eq!(refused(&answer), (ResponseCode::InvalidParams, "stream_id_range not configured"));
}

/// Rules: TP-246, TC-102.
#[test]
fn a_dynamic_stream_gets_the_wished_id_if_it_can() {
    let mut rig = Rig::new();
    let mut ask = |client, stream| {
        let correlation = rig.correlation();
        rig.ask(&create(request(client, Role::Consumer, stream, correlation))).stream
    };
    assert_eq!(ask(1, 20_010), Some(20_010));
    assert_eq!(ask(2, 5), Some(20_000), "outside of the range: the lowest free one");
    assert_eq!(ask(3, 0), Some(20_001));
    assert_eq!(ask(4, 20_002), Some(20_002));
    assert_eq!(ask(5, 0), Some(20_003));
    assert_eq!(ask(6, 20_010), Some(20_010), "known by now: the same stream");
}

/// Rules: TP-239, TC-103.
#[test]
fn an_exhausted_range_refuses_and_leaves_nothing() {
    let mut rig = Rig::with(|config| config.driver.stream_id_range = "20000-20001".parse().unwrap());
    for client in [1, 2] {
        let correlation = rig.correlation();
        assert_eq!(rig.ask(&create(request(client, Role::Producer, 0, correlation))).code, ResponseCode::Ok);
    }
    let before = rig.files();
    let answer = rig.ask(&create(request(3, Role::Producer, 0, 99)));
    assert_eq!(refused(&answer), (ResponseCode::InvalidParams, "stream_id_range exhausted"));
    assert_eq!(rig.files(), before);
    assert_eq!(rig.driver.snapshot(rig.now).streams.len(), 3);
}

/// Rules: TP-239, TP-247.
#[test]
fn huge_pages_are_judged_by_the_file_system_and_existing_regions() {
    let with = |policy, client| ShmAttachRequest {
        require_hugepages: Open::Listed(policy),
        ..request(client, Role::Consumer, CAM, i64::from(client))
    };
    let unavailable = (ResponseCode::Rejected, "hugepages not available");
    let mut rig = Rig::with(|config| config.shm.require_hugepages = true);
    assert_eq!(refused(&rig.ask(&with(HugepagesPolicy::Hugepages, 1))), unavailable);
    assert_eq!(refused(&rig.ask(&with(HugepagesPolicy::Unspecified, 2))), unavailable, "the policy decides");
    assert_eq!(rig.ask(&with(HugepagesPolicy::Standard, 3)).code, ResponseCode::Ok);
    assert_eq!(rig.ask(&with(HugepagesPolicy::Unspecified, 4)).code, ResponseCode::Ok, "the regions decide");
    assert_eq!(refused(&rig.ask(&with(HugepagesPolicy::Hugepages, 5))), unavailable);
}

/// Rules: TP-254.
#[test]
fn the_consumers_of_one_stream_are_limited() {
    let options = DriverOptions { max_consumers_per_stream: 2, ..options() };
    let mut rig = Rig::with_options(|_| {}, options);
    let first = rig.granted(1, Role::Consumer, CAM);
    rig.granted(2, Role::Consumer, CAM);
    let third = rig.attach(3, Role::Consumer, CAM);
    assert_eq!(refused(&third), (ResponseCode::Rejected, "consumer limit reached"));
    rig.granted(4, Role::Producer, CAM);
    rig.detach(&first, 1, Role::Consumer);
    rig.granted(3, Role::Consumer, CAM);
}

/// Rules: TP-274, TP-275, TC-110.
#[test]
fn a_wished_node_id_must_be_free_and_rested() {
    let mut rig = Rig::new();
    let wish = |client, id, correlation| ShmAttachRequest {
        desired_node_id: Some(id),
        ..request(client, Role::Consumer, CAM, correlation)
    };
    let unavailable = (ResponseCode::Rejected, "desired node_id unavailable");
    for id in [0, 1024, 70_000] {
        assert_eq!(refused(&rig.ask(&wish(1, id, 1))), unavailable);
    }
    let first = rig.ask(&wish(1, 17, 2));
    assert_eq!(first.node, Some(17));
    assert_eq!(refused(&rig.ask(&wish(2, 17, 3))), unavailable);
    rig.detach(&first, 1, Role::Consumer);
    rig.step(500);
    assert_eq!(refused(&rig.ask(&wish(2, 17, 4))), unavailable);
    rig.step(1000);
    assert_eq!(rig.ask(&wish(2, 17, 5)).node, Some(17));
}

/// Rules: TP-239, TP-271, TC-111.
#[test]
fn when_node_ids_run_out_everything_made_for_the_attach_is_removed() {
    let mut rig = Rig::new();
    for client in 1..=1023 {
        rig.granted(client, Role::Consumer, CAM);
    }
    let before = rig.files();
    let exhausted = (ResponseCode::InternalError, "node_id allocation failed");
    assert_eq!(refused(&rig.attach(5000, Role::Consumer, CAM)), exhausted);
    assert_eq!(refused(&rig.attach(5000, Role::Producer, CAM)), exhausted, "a new epoch is rolled back");
    let answer = rig.ask(&create(request(5000, Role::Producer, 0, 7)));
    assert_eq!(refused(&answer), exhausted, "a new stream is rolled back");
    assert_eq!(rig.files(), before);
    assert_eq!(rig.driver.snapshot(rig.now).streams.len(), 1);
}

/// Rules: TP-277.
#[test]
fn without_node_ids_leases_come_without_one() {
    let options = DriverOptions { assign_node_ids: false, ..options() };
    let mut rig = Rig::with_options(|_| {}, options);
    let answer =
        rig.ask(&ShmAttachRequest { desired_node_id: Some(5), ..request(1, Role::Producer, CAM, 1) });
    assert_eq!((answer.code, answer.node), (ResponseCode::Ok, None));
}

/// Rules: TP-251.
#[test]
fn a_producer_on_one_stream_does_not_touch_another() {
    let mut rig = Rig::new();
    let cam = rig.granted(1, Role::Producer, CAM);
    let other = rig.ask(&create(request(2, Role::Producer, 0, 50)));
    assert_eq!(other.code, ResponseCode::Ok);
    rig.detach(&other, 2, Role::Producer);
    assert_eq!(rig.epoch_dirs(CAM), [cam.epoch.unwrap()].into());
    assert_eq!(rig.driver.snapshot(rig.now).streams[0].producer.map(|id| id.get()), Some(1));
}
