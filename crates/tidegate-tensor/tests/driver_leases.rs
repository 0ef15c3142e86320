//! How leases live and end, and what happens to the stream then (8.1, 15.3, 15.4, 15.6).

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod driver_support;

use std::collections::BTreeSet;
use std::fs;

use driver_support::*;
use tidegate_sbe::Open;
use tidegate_sbe::driver::{
    LeaseRevokeReason, ResponseCode, Role, ShmAttachRequest, ShmDetachRequest, ShmLeaseKeepalive,
};
use tidegate_shm::clock::Nanos;
use tidegate_tensor::driver::Endpoint;
use tidegate_tensor::ids::LeaseId;

fn revoked(answer: &Answer, client: u32, role: Role, reason: LeaseRevokeReason, text: &str) -> Sent {
    let (lease, stream) = (answer.lease.unwrap(), answer.stream.unwrap());
    Sent::Revoked { lease, stream, client, role, reason, text: text.to_owned() }
}

/// Rules: TP-122, TP-149, TP-259, TP-260, TP-264, TC-088.
#[test]
fn a_producer_detaches_with_notice_new_epoch_announce_and_answer_in_this_order() {
    for shared in [true, false] {
        let mut rig = Rig::with(|config| {
            if shared {
                config.driver.announce = config.driver.control.clone();
            }
        });
        let lease = rig.granted(42, Role::Producer, CAM);
        rig.outgoing();
        rig.keepalive(&lease, 42, Role::Producer);
        rig.step(500);

        let sent = rig.detach(&lease, 42, Role::Producer);
        assert_eq!(kinds(&sent), ["revoked", "announce", "detach"]);
        let text = "lease detached";
        assert_eq!(sent[0], revoked(&lease, 42, Role::Producer, LeaseRevokeReason::Detached, text));
        let Sent::Announce(announce) = &sent[1] else { unreachable!() };
        assert_eq!(announce.endpoint, if shared { Endpoint::Control } else { Endpoint::Announce });
        assert_eq!((announce.stream, announce.producer), (CAM, 0));
        assert!(announce.epoch > lease.epoch.unwrap());
        assert!(path_of(&announce.header_uri).exists());
        assert!(matches!(&sent[2], Sent::Detach { code: ResponseCode::Ok, text, .. } if text.is_empty()));
    }
}

/// Rules: TP-259, TP-260.
#[test]
fn a_consumer_detaches_without_a_new_epoch() {
    let mut rig = Rig::new();
    let lease = rig.granted(7, Role::Consumer, CAM);
    rig.outgoing();
    let sent = rig.detach(&lease, 7, Role::Consumer);
    assert_eq!(kinds(&sent), ["revoked", "detach"]);
    assert_eq!(sent[0], revoked(&lease, 7, Role::Consumer, LeaseRevokeReason::Detached, "lease detached"));
    assert_eq!(rig.epoch_dirs(CAM), [lease.epoch.unwrap()].into());
}

/// Rules: TP-256, TP-257, TP-260, TP-264, TC-089.
#[test]
fn without_keepalives_a_lease_expires_three_intervals_after_the_last_one() {
    let mut rig = Rig::new();
    let lease = rig.granted(42, Role::Producer, CAM);
    rig.outgoing();
    rig.step(2_000);
    rig.keepalive(&lease, 42, Role::Producer);
    // Ticks at the required rate; periodic announces are not of interest here.
    for _ in 0..29 {
        assert!(rig.step(100).iter().all(|sent| matches!(sent, Sent::Announce(it) if it.producer == 42)));
    }
    let sent = rig.step(100);
    let end: Vec<_> =
        sent.iter().filter(|sent| !matches!(sent, Sent::Announce(it) if it.producer == 42)).collect();
    let [notice, Sent::Announce(announce)] = &end[..] else { panic!("{sent:?}") };
    assert_eq!(**notice, revoked(&lease, 42, Role::Producer, LeaseRevokeReason::Expired, "lease expired"));
    assert!(announce.epoch > lease.epoch.unwrap() && announce.producer == 0);
    for _ in 0..50 {
        assert!(rig.step(100).iter().all(|sent| matches!(sent, Sent::Announce(_))), "one notice only");
    }
    let counters = rig.driver.snapshot(rig.now).counters;
    assert_eq!((counters.leases_expired, counters.leases_detached, counters.leases_revoked), (1, 0, 0));
}

/// Rules: TP-260.
#[test]
fn each_ended_lease_has_one_notice_consumers_included() {
    let mut rig = Rig::new();
    let mut leases = BTreeSet::new();
    leases.insert(rig.granted(1, Role::Producer, CAM).lease.unwrap());
    for client in 2..=50 {
        leases.insert(rig.granted(client, Role::Consumer, CAM).lease.unwrap());
    }
    assert_eq!(leases.len(), 50, "lease ids are unique");
    let mut notices = Vec::new();
    for _ in 0..200 {
        for sent in rig.step(50) {
            if let Sent::Revoked { lease, reason, .. } = sent {
                assert_eq!(reason, LeaseRevokeReason::Expired);
                notices.push(lease);
            }
        }
    }
    assert_eq!(notices.len(), 50);
    assert_eq!(notices.into_iter().collect::<BTreeSet<_>>(), leases);
}

/// Rules: TP-255, TC-108.
#[test]
fn a_keepalive_counts_only_when_all_of_it_matches() {
    let mut rig = Rig::new();
    let lease = rig.granted(42, Role::Consumer, CAM);
    rig.outgoing();
    let valid = ShmLeaseKeepalive {
        lease_id: lease.lease.unwrap(),
        stream_id: CAM,
        client_id: 42,
        role: Role::Consumer,
        client_timestamp_ns: u64::MAX - 1,
    };
    let wrong = [
        ShmLeaseKeepalive { lease_id: valid.lease_id + 1, ..valid },
        ShmLeaseKeepalive { stream_id: CAM + 1, ..valid },
        ShmLeaseKeepalive { client_id: 43, ..valid },
        ShmLeaseKeepalive { role: Role::Producer, ..valid },
    ];
    rig.step(2_000);
    for keepalive in wrong {
        assert!(rig.send(&keepalive.to_vec().unwrap()).is_empty(), "keepalives are never answered");
    }
    let expires_in = |rig: &Rig| rig.driver.snapshot(rig.now).leases[0].expires_in;
    assert_eq!(expires_in(&rig), Nanos::from_secs(1));
    assert!(!rig.driver.snapshot(rig.now).leases[0].active);
    assert!(rig.send(&valid.to_vec().unwrap()).is_empty());
    // The client's clock, however wrong, has no influence.
    assert_eq!(expires_in(&rig), Nanos::from_secs(3));
    assert!(rig.driver.snapshot(rig.now).leases[0].active);
    let counters = rig.driver.snapshot(rig.now).counters;
    assert_eq!((counters.keepalives, counters.keepalives_ignored), (1, 4));
}

/// Rules: TP-262, TC-109.
#[test]
fn a_detach_counts_only_when_all_of_it_matches_and_only_once() {
    let mut rig = Rig::new();
    let lease = rig.granted(42, Role::Producer, CAM);
    rig.outgoing();
    let valid = ShmDetachRequest {
        correlation_id: 90,
        lease_id: lease.lease.unwrap(),
        stream_id: CAM,
        client_id: 42,
        role: Open::Listed(Role::Producer),
    };
    let wrong = [
        ShmDetachRequest { lease_id: valid.lease_id + 1, ..valid },
        ShmDetachRequest { stream_id: CAM + 1, ..valid },
        ShmDetachRequest { client_id: 43, ..valid },
        ShmDetachRequest { role: Open::Listed(Role::Consumer), ..valid },
    ];
    let unknown =
        Sent::Detach { correlation: 90, code: ResponseCode::Rejected, text: "unknown lease".to_owned() };
    for detach in wrong {
        assert_eq!(rig.send(&detach.to_vec().unwrap()), std::slice::from_ref(&unknown));
    }
    assert_eq!(rig.driver.snapshot(rig.now).leases.len(), 1);
    assert_eq!(rig.epoch_dirs(CAM).len(), 1);
    assert_eq!(rig.send(&valid.to_vec().unwrap()).len(), 3);
    let before = rig.epoch_dirs(CAM);
    assert_eq!(rig.send(&valid.to_vec().unwrap()), [unknown]);
    assert_eq!(rig.epoch_dirs(CAM), before);
}

/// Rules: TP-263.
#[test]
fn a_detach_with_an_unknown_role_is_invalid() {
    let mut rig = Rig::new();
    let lease = rig.granted(42, Role::Producer, CAM);
    rig.outgoing();
    let detach = ShmDetachRequest {
        correlation_id: 5,
        lease_id: lease.lease.unwrap(),
        stream_id: CAM,
        client_id: 42,
        role: Open::from_raw(7),
    };
    let text = "invalid role".to_owned();
    let expected = Sent::Detach { correlation: 5, code: ResponseCode::InvalidParams, text };
    assert_eq!(rig.send(&detach.to_vec().unwrap()), [expected]);
    assert_eq!(rig.driver.snapshot(rig.now).leases.len(), 1);
}

/// Rules: TP-258, TP-259, TP-264.
#[test]
fn an_operator_can_revoke_a_lease() {
    let mut rig = Rig::new();
    let lease = rig.granted(42, Role::Producer, CAM);
    rig.outgoing();
    let id = LeaseId::new(lease.lease.unwrap());
    let long = format!("disk swap\n{}", "x".repeat(2000));
    assert!(rig.driver.revoke(id, &long, rig.now));
    let sent = rig.outgoing();
    assert_eq!(kinds(&sent), ["revoked", "announce"]);
    let Sent::Revoked { reason, text, .. } = &sent[0] else { unreachable!() };
    assert_eq!(*reason, LeaseRevokeReason::Revoked);
    assert!(text.starts_with("disk swap?xx") && text.len() == 1024);
    assert!(!rig.driver.revoke(id, "again", rig.now));
    assert!(rig.outgoing().is_empty());
}

/// Rules: TP-122, TP-123, TP-261.
#[test]
fn epochs_rise_with_every_producer_and_are_never_behind_the_clock() {
    let mut rig = Rig::new();
    let mut last = 0;
    for client in 1..=20 {
        let lease = rig.granted(client, Role::Producer, CAM);
        let epoch = lease.epoch.unwrap();
        // Every second round the clock stands still, so that only "previous + 1" keeps them apart.
        assert!(epoch > last && epoch >= rig.now.as_u64());
        last = epoch;
        let announce = announces(&rig.detach(&lease, client, Role::Producer)).pop().unwrap();
        assert!(announce.epoch > last);
        last = announce.epoch;
        if client % 2 == 0 {
            rig.step(10_000);
        }
    }
}

/// Rules: TP-122, TP-123, TP-125.
#[test]
fn directories_on_disk_push_the_epoch_up_until_numbers_run_out() {
    let mut rig = Rig::new();
    let stream = rig.root().join(CAM.to_string());
    let far = rig.now.as_u64() + 1_000_000;
    fs::create_dir_all(stream.join(far.to_string())).unwrap();
    for not_an_epoch in ["x", "07", "-3", "99999999999999999999999"] {
        fs::create_dir(stream.join(not_an_epoch)).unwrap();
    }
    let lease = rig.granted(1, Role::Producer, CAM);
    assert_eq!(lease.epoch, Some(far + 1));

    let mut rig = Rig::new();
    fs::create_dir_all(rig.root().join(CAM.to_string()).join((u64::MAX - 1).to_string())).unwrap();
    let answer = rig.attach(1, Role::Producer, CAM);
    assert_eq!((answer.code, answer.text.as_str()), (ResponseCode::InternalError, "shm creation failed"));
}

/// Rules: TP-252.
#[test]
fn lease_ids_skip_the_values_that_mean_nothing() {
    let options =
        tidegate_tensor::driver::DriverOptions { first_lease: LeaseId::new(u64::MAX - 1), ..options() };
    let mut rig = Rig::with_options(|_| {}, options);
    let ids: Vec<_> = (1..=3).map(|client| rig.granted(client, Role::Consumer, CAM).lease.unwrap()).collect();
    assert_eq!(ids, [u64::MAX - 1, 1, 2]);
}

/// Rules: TP-272, TP-273, TP-274.
#[test]
fn node_ids_are_stable_rest_after_the_lease_and_return_to_their_client() {
    let mut rig = Rig::new();
    let first = rig.granted(1, Role::Consumer, CAM);
    let second = rig.granted(2, Role::Consumer, CAM);
    assert_eq!((first.node, second.node), (Some(1), Some(2)));
    rig.detach(&second, 2, Role::Consumer);
    rig.detach(&first, 1, Role::Consumer);
    // Both ids rest now.
    rig.step(999);
    let early = rig.granted(3, Role::Consumer, CAM);
    assert_eq!(early.node, Some(3));
    rig.step(1);
    assert_eq!(rig.granted(2, Role::Consumer, CAM).node, Some(2), "its previous id, although 1 is lower");
    assert_eq!(rig.granted(4, Role::Consumer, CAM).node, Some(1));
    let held: Vec<_> =
        rig.driver.snapshot(rig.now).leases.iter().map(|lease| lease.node.unwrap().get()).collect();
    assert_eq!(held, [3, 2, 1]);
}

/// Rules: TP-274.
#[test]
fn a_cooldown_of_0_is_the_only_one_below_a_second() {
    for (configured, wait, free) in
        [(0, 0, true), (10, 999, false), (10, 1000, true), (2500, 2499, false), (2500, 2500, true)]
    {
        let mut rig = Rig::with(|config| {
            config.policies.node_id_reuse_cooldown = std::time::Duration::from_millis(configured);
        });
        let lease = rig.granted(1, Role::Consumer, CAM);
        rig.detach(&lease, 1, Role::Consumer);
        rig.step(wait);
        let wish = ShmAttachRequest { desired_node_id: Some(1), ..request(2, Role::Consumer, CAM, 9) };
        assert_eq!(rig.ask(&wish).code == ResponseCode::Ok, free, "{configured} ms, after {wait} ms");
    }
}

/// Rules: TP-122, TP-252, TP-270.
#[test]
fn a_driver_that_takes_over_knows_no_old_lease_and_uses_higher_epochs() {
    let mut rig = Rig::new();
    let old = rig.granted(42, Role::Producer, CAM);
    rig.outgoing();
    let mut rig = rig.restart(|_| {}, 900_000);
    assert!(rig.driver.snapshot(rig.now).leases.is_empty());
    assert!(rig.keepalive(&old, 42, Role::Producer).is_empty());
    assert_eq!(rig.driver.snapshot(rig.now).counters.keepalives_ignored, 1);
    let sent = rig.detach(&old, 42, Role::Producer);
    assert!(
        matches!(&sent[..], [Sent::Detach { code: ResponseCode::Rejected, text, .. }] if text == "unknown lease")
    );
    assert!(rig.step(5_000).is_empty(), "no announce of an epoch that nobody made");
    let consumer = rig.granted(7, Role::Consumer, CAM);
    assert!(consumer.epoch > old.epoch);
    let producer = rig.granted(42, Role::Producer, CAM);
    assert!(producer.epoch > consumer.epoch);
}

/// Rules: TP-124, TP-259.
#[test]
fn when_the_new_epoch_cannot_be_made_the_stream_falls_silent_until_the_next_attach() {
    let mut rig = Rig::new();
    let lease = rig.granted(42, Role::Producer, CAM);
    rig.outgoing();
    // Take the place of every possible epoch away.
    let stream = rig.root().join(CAM.to_string());
    let last = stream.join((u64::MAX - 1).to_string());
    fs::create_dir(&last).unwrap();
    let sent = rig.detach(&lease, 42, Role::Producer);
    assert_eq!(kinds(&sent), ["revoked", "detach"]);
    for _ in 0..50 {
        assert!(rig.step(100).is_empty());
    }
    let snapshot = rig.driver.snapshot(rig.now);
    assert_eq!((snapshot.streams[0].epoch.get(), snapshot.counters.epochs_failed), (0, 1));
    fs::remove_dir(&last).unwrap();
    let again = rig.granted(43, Role::Consumer, CAM);
    assert!(again.epoch > lease.epoch);
}
