//! What the collector removes, and what it must not touch (15.7).

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod driver_support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, SystemTime};

use driver_support::*;
use tempfile::TempDir;
use tidegate_sbe::driver::Role;
use tidegate_shm::clock::{Nanos, realtime_now};
use tidegate_shm::region::{Access, AllowedBases, HugePages, PermissionPolicy};
use tidegate_tensor::ids::{Epoch, PoolId, StreamId};
use tidegate_tensor::layout::{SlotCount, Stride, Superblock};
use tidegate_tensor::region::store::{CollectPolicy, CollectTime, RegionStore, StoreSettings};

const STREAM: StreamId = StreamId::new(CAM);
const NOW: Nanos = Nanos::from_secs(10_000);
const OLD: Nanos = Nanos::from_secs(9_000);
const POLICY: CollectPolicy = CollectPolicy { keep: 2, min_age: Nanos::from_secs(3) };

/// A store with directories that look as if drivers had left them.
struct Ruins {
    _base: TempDir,
    store: RegionStore,
    stream: PathBuf,
    dead: u32,
}

impl Ruins {
    fn new() -> Self {
        let base = temp_base();
        let config = config(base.path());
        let store = RegionStore::open(StoreSettings::new(&config.shm, &config.policies)).unwrap();
        let stream = store.root().join(CAM.to_string());
        fs::create_dir(&stream).unwrap();
        Self { _base: base, store, stream, dead: dead_pid() }
    }

    /// An epoch directory with a header ring and a pool.
    fn epoch(&self, epoch: u64, pid: u32, activity: Nanos) -> PathBuf {
        let dir = self.stream.join(epoch.to_string());
        fs::create_dir(&dir).unwrap();
        let slots = SlotCount::new(8).unwrap();
        let ring = Superblock::header_ring(Epoch::new(epoch), STREAM, slots, pid.into(), activity.as_u64());
        let pool = Superblock::pool(&ring, PoolId::new(1), Stride::new(64).unwrap());
        fs::write(dir.join("header.ring"), ring.encode()).unwrap();
        fs::write(dir.join("1.pool"), pool.encode()).unwrap();
        dir
    }

    fn collect(&self, protected: &[u64]) -> usize {
        self.collect_with(protected, POLICY)
    }

    fn collect_with(&self, protected: &[u64], policy: CollectPolicy) -> usize {
        let protected = protected.iter().copied().map(Epoch::new).collect();
        self.store.collect(
            STREAM,
            &protected,
            policy,
            CollectTime { monotonic: NOW, realtime: realtime_now() },
        )
    }

    fn left(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(&self.stream).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn dead_pid() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    pid
}

/// A process that lives until the value is dropped.
struct Bystander(Child);

impl Bystander {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Rules: TP-278, TP-279, TC-119.
#[test]
fn only_epochs_that_nobody_can_need_are_removed() {
    let ruins = Ruins::new();
    let alive = Bystander::new();
    for epoch in [1, 2, 3, 4, 5] {
        ruins.epoch(epoch, ruins.dead, OLD);
    }
    ruins.epoch(11, alive.0.id(), OLD);
    ruins.epoch(12, ruins.dead, Nanos(NOW.0 - 2_000_000_000));
    ruins.epoch(13, ruins.dead, OLD);
    // Numbers far apart and far from the clock: only their order counts.
    ruins.epoch(1_000_000, ruins.dead, OLD);
    ruins.epoch(9_000_000_000_000, ruins.dead, OLD);
    assert_eq!(ruins.collect(&[13]), 5);
    assert_eq!(ruins.left(), names(&["11", "12", "13", "1000000", "9000000000000"]));
    // Each guard holds on its own: without it the next run takes the epoch.
    drop(alive);
    assert_eq!(ruins.collect(&[13]), 1);
    assert_eq!(ruins.collect(&[]), 1);
    assert_eq!(ruins.collect_with(&[], CollectPolicy { min_age: Nanos::from_secs(1), ..POLICY }), 1);
    assert_eq!(ruins.left(), names(&["1000000", "9000000000000"]));
    assert_eq!(ruins.collect_with(&[9_000_000_000_000], CollectPolicy { keep: 0, ..POLICY }), 1);
    assert_eq!(ruins.left(), names(&["9000000000000"]));
}

/// Rules: TP-278.
#[test]
fn the_own_process_and_times_before_a_reboot_do_not_protect() {
    let ruins = Ruins::new();
    ruins.epoch(1, std::process::id(), OLD);
    ruins.epoch(2, ruins.dead, Nanos::from_secs(50_000));
    ruins.epoch(3, ruins.dead, Nanos(NOW.0 + 1_000_000_000));
    ruins.epoch(8, ruins.dead, OLD);
    ruins.epoch(9, ruins.dead, OLD);
    assert_eq!(ruins.collect(&[]), 2);
    assert_eq!(ruins.left(), names(&["3", "8", "9"]), "a little ahead is young");
}

/// Rules: TP-278.
#[test]
fn without_a_readable_superblock_the_directory_tells_the_age() {
    let ruins = Ruins::new();
    let spoil = |epoch: u64, age: Duration, bytes: &[u8]| {
        let dir = ruins.epoch(epoch, ruins.dead, OLD);
        fs::write(dir.join("header.ring"), bytes).unwrap();
        File::open(&dir).unwrap().set_modified(SystemTime::now() - age).unwrap();
    };
    let hour = Duration::from_secs(3_600);
    spoil(1, hour, b"");
    spoil(2, hour, &[0; 64]);
    spoil(3, Duration::ZERO, &[0; 64]);
    fs::create_dir(ruins.stream.join("4")).unwrap();
    ruins.epoch(8, ruins.dead, OLD);
    ruins.epoch(9, ruins.dead, OLD);
    assert_eq!(ruins.collect(&[]), 2);
    assert_eq!(ruins.left(), names(&["3", "4", "8", "9"]));
}

/// Rules: TP-278, TP-280, TC-119.
#[test]
fn foreign_names_files_and_links_are_left_alone() {
    let ruins = Ruins::new();
    let elsewhere = temp_base();
    let target = elsewhere.path().join("victim.pool");
    fs::write(&target, "keep me").unwrap();
    for name in ["x", "007", "1.5", "-1", "+2", "18446744073709551616"] {
        let dir = ruins.stream.join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("header.ring"), "x").unwrap();
        File::open(&dir).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    // A link in place of an epoch, and in place of a pool.
    symlink(elsewhere.path(), ruins.stream.join("1")).unwrap();
    let linked = ruins.epoch(2, ruins.dead, OLD);
    symlink(&target, linked.join("2.pool")).unwrap();
    // Something else beside the region files.
    let mixed = ruins.epoch(3, ruins.dead, OLD);
    fs::write(mixed.join("notes.txt"), "mine").unwrap();
    fs::write(ruins.stream.join("4"), "a file with a number for a name").unwrap();
    ruins.epoch(8, ruins.dead, OLD);
    ruins.epoch(9, ruins.dead, OLD);

    assert_eq!(ruins.collect(&[]), 1);
    let left = names(&["x", "007", "1.5", "-1", "+2", "18446744073709551616", "1", "3", "4", "8", "9"]);
    assert_eq!(ruins.left(), left);
    assert_eq!(fs::read(&target).unwrap(), b"keep me");
    let in_mixed: Vec<_> = fs::read_dir(&mixed).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(in_mixed, ["notes.txt"], "the memory is given back, the rest is not ours");
}

/// Rules: TP-283.
#[test]
fn mappings_outlive_the_files() {
    let ruins = Ruins::new();
    let path = ruins.epoch(1, ruins.dead, OLD).join("header.ring");
    ruins.epoch(8, ruins.dead, OLD);
    ruins.epoch(9, ruins.dead, OLD);
    let (allowed, _) = AllowedBases::new([ruins.store.root()]);
    let policy = PermissionPolicy { enforce: false, ..PermissionPolicy::default() };
    let file = allowed.open(&path, Access::ReadOnly, &policy, HugePages::NotRequired).unwrap();
    let region = file.map(64).unwrap();
    assert_eq!(ruins.collect(&[]), 1);
    assert!(!path.exists());
    let mut bytes = [0; 64];
    region.read(0, &mut bytes).unwrap();
    assert_eq!(Superblock::decode(&bytes).epoch, Epoch::new(1));
}

fn long_ago(rig: &mut Rig) {
    rig.now = rig.now.saturating_add(Nanos::from_secs(60));
}

/// Rules: TP-281.
#[test]
fn the_driver_collects_after_a_producer_came_or_went() {
    let mut rig = Rig::new();
    let mut last = BTreeSet::new();
    for client in 1..=10 {
        long_ago(&mut rig);
        let lease = rig.granted(client, Role::Producer, CAM);
        assert!(rig.epoch_dirs(CAM).len() <= 3, "after the attach");
        long_ago(&mut rig);
        rig.detach(&lease, client, Role::Producer);
        last = rig.epoch_dirs(CAM);
        assert!(last.len() <= 3, "after the detach");
        assert!(last.contains(&rig.driver.snapshot(rig.now).streams[0].epoch.get()));
    }
    assert_eq!(rig.driver.snapshot(rig.now).counters.epochs_collected as usize, 20 - last.len());
}

/// Rules: TP-278.
#[test]
fn an_epoch_stays_while_a_lease_was_issued_for_it() {
    let mut rig = Rig::new();
    let consumer = rig.granted(1, Role::Consumer, CAM);
    for client in 10..20 {
        for _ in 0..30 {
            rig.step(2_000);
            rig.keepalive(&consumer, 1, Role::Consumer);
        }
        let lease = rig.granted(client, Role::Producer, CAM);
        rig.detach(&lease, client, Role::Producer);
        assert!(rig.epoch_dirs(CAM).contains(&consumer.epoch.unwrap()));
    }
    rig.detach(&consumer, 1, Role::Consumer);
    long_ago(&mut rig);
    rig.granted(30, Role::Producer, CAM);
    assert!(!rig.epoch_dirs(CAM).contains(&consumer.epoch.unwrap()));
}

/// Rules: TP-280, TP-281.
#[test]
fn at_the_start_known_streams_are_collected_when_configured() {
    for on_startup in [false, true] {
        let mut rig = Rig::new();
        // A driver without a collector leaves ten epochs of a known stream and one of another.
        let mut rig = {
            rig = rig.restart(|config| config.policies.epoch_gc_enabled = false, 7);
            for client in 1..=5 {
                let lease = rig.granted(client, Role::Producer, CAM);
                rig.detach(&lease, client, Role::Producer);
            }
            rig
        };
        assert_eq!(rig.epoch_dirs(CAM).len(), 10);
        let unknown = rig.root().join("77/5");
        fs::create_dir_all(&unknown).unwrap();
        File::open(&unknown).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        long_ago(&mut rig);
        let rig = rig.restart(|config| config.policies.epoch_gc_on_startup = on_startup, 8);
        assert_eq!(rig.epoch_dirs(CAM).len(), if on_startup { 2 } else { 10 });
        assert!(Path::new(&unknown).exists(), "streams the driver does not know are none of its business");
    }
}
