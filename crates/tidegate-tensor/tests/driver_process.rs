//! Drivers as processes that are killed or stopped.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod driver_support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use driver_support::*;
use tidegate_sbe::driver::{ResponseCode, Role, ShmLeaseKeepalive};
use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_shm::lock::LockError;
use tidegate_tensor::driver::{Driver, DriverOptions, DriverStartError};
use tidegate_tensor::region::store::StoreError;

/// Set in the child: the base directory it serves.
const BASE: &str = "TIDEGATE_TEST_DRIVER_BASE";
const OLD_CLIENT: u32 = 42;

/// Another process with a driver that has granted one producer lease.
struct OtherDriver {
    process: Child,
    lease: u64,
    epoch: u64,
}

impl OtherDriver {
    /// Runs the calling test again as a child, which then goes to [`serve`].
    fn start(test: &str, base: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(BASE, base)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = lines.find_map(|line| Some(line.unwrap().split_once("READY ")?.1.to_owned()));
        let ready = ready.expect("the child says when it is ready");
        let (lease, epoch) = ready.split_once(' ').unwrap();
        Self { process, lease: lease.parse().unwrap(), epoch: epoch.parse().unwrap() }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for OtherDriver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In the child: serves until killed. Elsewhere: returns.
fn serve() {
    let Some(base) = std::env::var_os(BASE) else { return };
    let driver = Driver::new(config(Path::new(&base)), options(), monotonic_now()).unwrap();
    let mut rig = Rig::around(driver);
    rig.now = monotonic_now();
    let answer = rig.granted(OLD_CLIENT, Role::Producer, CAM);
    println!("READY {} {}", answer.lease.unwrap(), answer.epoch.unwrap());
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

/// Rules: TP-122, TP-123, TP-235, TP-270, TP-278, TC-114.
#[test]
fn after_a_kill_the_next_driver_takes_over_with_higher_epochs() {
    serve();
    let base = temp_base();
    let mut other =
        OtherDriver::start("after_a_kill_the_next_driver_takes_over_with_higher_epochs", base.path());
    other.process.kill().unwrap();
    other.process.wait().unwrap();

    // As after a reboot: the clock is far behind what the dead driver used.
    let driver = Driver::new(config(base.path()), DriverOptions::new(77 << 1), Nanos::from_secs(1)).unwrap();
    let mut rig = Rig::around(driver);
    rig.now = Nanos::from_secs(1);
    let keepalive = ShmLeaseKeepalive {
        lease_id: other.lease,
        stream_id: CAM,
        client_id: OLD_CLIENT,
        role: Role::Producer,
        client_timestamp_ns: 0,
    };
    assert!(rig.send(&keepalive.to_vec().unwrap()).is_empty());
    assert_eq!(rig.driver.snapshot(rig.now).counters.keepalives_ignored, 1);
    let lease = rig.granted(OLD_CLIENT, Role::Producer, CAM);
    assert_eq!(lease.epoch, Some(other.epoch + 1));

    // What it left is collected once it is no longer among the newest.
    assert!(rig.epoch_dirs(CAM).contains(&other.epoch));
    rig.now = monotonic_now().saturating_add(Nanos::from_secs(60));
    rig.detach(&lease, OLD_CLIENT, Role::Producer);
    assert!(!rig.epoch_dirs(CAM).contains(&other.epoch));
}

/// Rules: TP-235, TC-118.
#[test]
fn a_second_process_is_refused_even_while_the_first_is_stopped() {
    serve();
    let base = temp_base();
    let other =
        OtherDriver::start("a_second_process_is_refused_even_while_the_first_is_stopped", base.path());
    for signal in ["-STOP", "-CONT"] {
        other.signal(signal);
        let refused = Driver::new(config(base.path()), options(), monotonic_now()).unwrap_err();
        let DriverStartError::Store(StoreError::Lock(LockError::Held { holder, .. })) = &refused else {
            panic!("{refused}");
        };
        assert_eq!(holder.map(|holder| holder.pid), Some(other.process.id()));
    }
    drop(other);
    let mut rig = Rig::around(Driver::new(config(base.path()), options(), monotonic_now()).unwrap());
    rig.now = monotonic_now();
    assert_eq!(rig.attach(1, Role::Producer, CAM).code, ResponseCode::Ok);
}
