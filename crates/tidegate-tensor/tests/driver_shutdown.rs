//! The end of a driver (15.5).

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
use tidegate_sbe::driver::{ResponseCode, Role, ShutdownReason};
use tidegate_tensor::driver;
use tidegate_tensor::driver::DriverState;

const ADMIN: Open<ShutdownReason> = Open::Listed(ShutdownReason::Admin);

/// Rules: TP-265, TC-112.
#[test]
fn a_request_without_the_token_is_ignored_silently() {
    let mut rig = Rig::new();
    for token in ["", "open sesam", "open sesame ", "OPEN SESAME", "open sesameopen sesame"] {
        assert!(rig.shutdown_request(token, ADMIN).is_empty());
        assert_eq!(rig.driver.state(), DriverState::Running, "{token:?}");
    }
    let mut rig = Rig::with(|config| config.policies.shutdown_token = None);
    assert!(rig.shutdown_request("", ADMIN).is_empty());
    assert_eq!(rig.driver.state(), DriverState::Running);
    assert_eq!(rig.attach(1, Role::Producer, CAM).code, ResponseCode::Ok);
}

/// Rules: TP-239, TP-266, TP-267, TP-268, TC-113.
#[test]
fn a_request_with_the_token_drains_the_driver_and_then_ends_it() {
    let mut rig = Rig::new();
    let lease = rig.granted(1, Role::Producer, CAM);
    rig.outgoing();
    rig.step(500);
    assert!(rig.shutdown_request(TOKEN, ADMIN).is_empty());
    assert_eq!(rig.driver.state(), DriverState::Draining);
    let last = announces(&rig.step(0));
    assert_eq!(last.iter().map(|it| (it.stream, Some(it.epoch))).collect::<Vec<_>>(), [(CAM, lease.epoch)]);

    let refused = rig.attach(2, Role::Consumer, CAM);
    assert_eq!((refused.code, refused.text.as_str()), (ResponseCode::Rejected, "driver draining"));
    rig.step(900);
    rig.keepalive(&lease, 1, Role::Producer);
    assert_eq!(rig.driver.snapshot(rig.now).counters.keepalives, 1);
    // A second request neither prolongs nor changes the end.
    rig.shutdown_request(TOKEN, Open::Listed(ShutdownReason::Error));
    assert!(!kinds(&rig.step(1_099)).contains(&"shutdown"));
    let sent = rig.step(1);
    let expected = Sent::Shutdown {
        at: rig.now.as_u64(),
        reason: ShutdownReason::Admin,
        text: "maintenance".to_owned(),
    };
    assert_eq!(sent, [expected]);
    assert_eq!(rig.driver.state(), DriverState::Stopped);
    assert!(rig.step(10_000).is_empty());
    assert!(rig.send(&request(3, Role::Producer, CAM, 1).to_vec().unwrap()).is_empty());
}

/// Rules: TP-304.
#[test]
fn an_unknown_reason_ends_the_driver_as_an_error() {
    let mut rig = Rig::new();
    rig.shutdown_request(TOKEN, Open::from_raw(9));
    let sent = rig.step(2_000);
    assert!(matches!(&sent[..], [Sent::Shutdown { reason: ShutdownReason::Error, .. }]), "{sent:?}");
}

/// Rules: TP-267.
#[test]
fn every_orderly_end_is_announced_once_with_its_reason() {
    for (cause, reason) in [
        (driver::ShutdownReason::Normal, ShutdownReason::Normal),
        (driver::ShutdownReason::Error, ShutdownReason::Error),
    ] {
        let mut rig = Rig::new();
        rig.granted(1, Role::Producer, CAM);
        rig.driver.shutdown(cause, "why\u{e9}", rig.now);
        let sent = rig.outgoing();
        let expected = Sent::Shutdown { at: rig.now.as_u64(), reason, text: "why?".to_owned() };
        assert_eq!(sent, [expected]);
        rig.driver.shutdown(cause, "again", rig.now);
        assert!(rig.outgoing().is_empty());
    }
}

/// Rules: TP-071.
#[test]
fn regions_stay_or_go_at_the_end_as_configured() {
    for cleanup in [false, true] {
        let mut rig = Rig::with(|config| config.policies.cleanup_shm_on_exit = cleanup);
        let lease = rig.granted(1, Role::Producer, CAM);
        rig.detach(&lease, 1, Role::Producer);
        let root = rig.root();
        let _base = rig.close();
        let left = epoch_dirs(&root.join(CAM.to_string()));
        assert_eq!(left.len(), if cleanup { 0 } else { 2 });
        assert_eq!(root.join(CAM.to_string()).exists(), !cleanup);
    }
}
