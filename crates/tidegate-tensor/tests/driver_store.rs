//! Region files as the driver leaves them on disk: names, modes, failures (5.1, 5.3, 15.1).

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod driver_support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use driver_support::*;
use tidegate_sbe::driver::{HugepagesPolicy, PublishMode, ResponseCode, Role};
use tidegate_shm::clock::Nanos;
use tidegate_shm::lock::LockError;
use tidegate_tensor::config::{DriverConfig, FileMode, Namespace};
use tidegate_tensor::driver::{Driver, DriverStartError};
use tidegate_tensor::region::store::{RegionStore, StoreError, StoreSettings};

fn start(config: DriverConfig) -> Result<Driver, StoreError> {
    match Driver::new(config, options(), Nanos::from_secs(1_000)) {
        Ok(driver) => Ok(driver),
        Err(DriverStartError::Store(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Set in the child of the umask test.
const INSIDE: &str = "TIDEGATE_TEST_UNDER_UMASK";

/// Modes are a matter of the process, so the test runs itself again under each umask.
///
/// Rules: TP-068, TP-492, TC-036, TC-212.
#[test]
fn modes_are_exact_under_every_umask() {
    if std::env::var_os(INSIDE).is_some() {
        for (bits, file, dir) in
            [("660", 0o660, 0o770), ("600", 0o600, 0o700), ("640", 0o640, 0o750), ("666", 0o666, 0o775)]
        {
            let mut rig =
                Rig::with(|config| config.shm.permissions_mode = FileMode::from_octal(bits).unwrap());
            rig.granted(1, Role::Producer, CAM);
            let mut seen = 0;
            for path in files_below(rig.base()) {
                let expected = if path.is_dir() { dir } else { file };
                if path.file_name() != Some(".driver.lock".as_ref()) {
                    assert_eq!(mode(&path), expected, "{}", path.display());
                    seen += 1;
                }
            }
            assert_eq!(seen, 7, "user, namespace, stream, epoch, and three files");
        }
        return;
    }
    for umask in ["000", "022", "077", "777"] {
        let status = Command::new("/bin/sh")
            .args(["-c", r#"umask "$0" && exec "$1" --exact modes_are_exact_under_every_umask"#, umask])
            .arg(std::env::current_exe().unwrap())
            .env(INSIDE, "1")
            .output()
            .unwrap();
        assert!(status.status.success(), "umask {umask}: {}", String::from_utf8_lossy(&status.stdout));
    }
}

/// Rules: TP-049, TP-052, TC-038.
#[test]
fn the_user_component_is_sanitised() {
    let base = temp_base();
    let config = config(base.path());
    let settings = StoreSettings {
        user: b"a.b/c".to_vec(),
        namespace: Namespace::new("lab-1").unwrap(),
        ..StoreSettings::new(&config.shm, &config.policies)
    };
    let store = RegionStore::open(settings).unwrap();
    assert_eq!(store.root(), fs::canonicalize(base.path()).unwrap().join("tensorpool-a_b_c/lab-1"));
}

/// Rules: TP-060, TP-066.
#[test]
fn a_base_that_is_a_link_is_resolved_once_and_announced_resolved() {
    let real = temp_base();
    let other = temp_base();
    let links = temp_base();
    let link = links.path().join("base");
    symlink(real.path(), &link).unwrap();
    let mut config = config(&link);
    config.shm.allowed_base_dirs = vec![link.clone()];
    let driver = start(config).unwrap();
    // Turning the link round afterwards changes nothing.
    fs::remove_file(&link).unwrap();
    symlink(other.path(), &link).unwrap();
    let mut rig = Rig::around(driver);
    let answer = rig.granted(1, Role::Producer, CAM);
    assert!(path_of(&answer.header_uri).starts_with(fs::canonicalize(real.path()).unwrap()));
    assert!(files_below(other.path()).is_empty());
}

/// Rules: TP-066, TP-492.
#[test]
fn below_the_base_links_and_world_writable_levels_are_refused() {
    let elsewhere = temp_base();
    let user = {
        let base = temp_base();
        let driver = start(config(base.path())).unwrap();
        let root = driver.snapshot(Nanos::ZERO).root;
        root.parent().unwrap().file_name().unwrap().to_owned()
    };
    for level in [PathBuf::from(&user), Path::new(&user).join("default")] {
        let base = temp_base();
        let path = base.path().join(&level);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(elsewhere.path(), &path).unwrap();
        assert!(matches!(start(config(base.path())), Err(StoreError::Directory(_))), "{}", level.display());

        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(start(config(base.path())), Err(StoreError::Directory(_))), "{}", level.display());

        // A level that exists keeps its mode.
        fs::set_permissions(&path, Permissions::from_mode(0o701)).unwrap();
        start(config(base.path())).unwrap();
        assert_eq!(mode(&path), 0o701);
    }
    // The same while it runs, for streams and epochs.
    let mut rig = Rig::new();
    symlink(elsewhere.path(), rig.root().join(CAM.to_string())).unwrap();
    assert_eq!(rig.attach(1, Role::Producer, CAM).code, ResponseCode::InternalError);
    assert!(files_below(elsewhere.path()).is_empty());
}

/// Rules: TP-066.
#[test]
fn a_base_that_cannot_be_used_refuses_the_start() {
    let base = temp_base();
    let missing = base.path().join("missing");
    let file = base.path().join("file");
    fs::write(&file, "").unwrap();
    for wrong in [missing, file] {
        let refused = start(config(&wrong)).unwrap_err();
        assert!(matches!(refused, StoreError::Directory(_)), "{refused}");
    }
    let read_only = Mount::tmpfs("size=64k,ro");
    let refused = start(config(read_only.path())).unwrap_err();
    assert!(matches!(refused, StoreError::Directory(_)), "{refused}");
}

/// Rules: TP-044, TP-237.
#[test]
fn a_base_whose_regions_no_client_would_accept_refuses_the_start() {
    let base = temp_base();
    let other = temp_base();
    let mut outside = config(base.path());
    outside.shm.allowed_base_dirs = vec![other.path().to_owned()];
    assert!(matches!(start(outside), Err(StoreError::OutsideAllowlist { .. })));

    let mut deep = base.path().to_owned();
    while deep.as_os_str().len() < 960 {
        deep.push("d".repeat(100));
    }
    fs::create_dir_all(&deep).unwrap();
    assert!(matches!(start(config(&deep)), Err(StoreError::Uri { .. })));
}

/// Rules: TP-030, TP-465, TC-104, TC-120.
#[test]
fn a_contradictory_configuration_refuses_the_start_and_leaves_nothing() {
    let base = temp_base();
    let wrong: [fn(&mut DriverConfig); 4] = [
        |config| config.driver.stream_id_range = "9000-11000".parse().unwrap(),
        |config| config.driver.descriptor_stream_id_range = "900-1100".parse().unwrap(),
        |config| {
            config.driver.descriptor_stream_id_range = "31000-31999".parse().unwrap();
            config.driver.control_stream_id_range = "31500-32000".parse().unwrap();
        },
        |config| config.profiles[0].payload_pools.clear(),
    ];
    for change in wrong {
        let mut config = config(base.path());
        change(&mut config);
        let refused = Driver::new(config, options(), Nanos::ZERO);
        assert!(matches!(refused, Err(DriverStartError::Config(_))));
    }
    assert!(files_below(base.path()).is_empty());
}

/// Rules: TP-235, TC-118.
#[test]
fn one_namespace_has_one_driver() {
    let base = temp_base();
    let first = start(config(base.path())).unwrap();
    let refused = start(config(base.path())).unwrap_err();
    assert!(matches!(refused, StoreError::Lock(LockError::Held { .. })), "{refused}");
    let mut other = config(base.path());
    other.shm.namespace = Namespace::new("other").unwrap();
    start(other).unwrap();
    let root = first.snapshot(Nanos::ZERO).root;
    assert!(root.join(".driver.lock").exists());
    drop(first);
    start(config(base.path())).unwrap();
}

/// Rules: TP-054.
#[test]
fn an_old_epoch_is_not_touched_by_the_next_one() {
    let mut rig = Rig::new();
    let lease = rig.granted(1, Role::Producer, CAM);
    let uris: Vec<_> = lease.pools.iter().map(|pool| &pool.uri).chain([&lease.header_uri]).collect();
    let identity = |uri: &str| {
        let metadata = fs::metadata(path_of(uri)).unwrap();
        (metadata.ino(), metadata.len())
    };
    let before: Vec<_> = uris.iter().map(|uri| (identity(uri), fs::read(path_of(uri)).unwrap())).collect();
    rig.detach(&lease, 1, Role::Producer);
    rig.granted(2, Role::Producer, CAM);
    for (uri, (id, bytes)) in uris.iter().zip(before) {
        assert_eq!(identity(uri), id);
        assert_eq!(fs::read(path_of(uri)).unwrap(), bytes);
    }
}

/// Rules: TP-057.
#[test]
fn regions_are_backed_and_locked_in_memory() {
    let mut rig = Rig::with(|config| config.policies.mlock_shm = true);
    let lease = rig.granted(1, Role::Producer, CAM);
    let mut bytes = 0;
    for uri in lease.pools.iter().map(|pool| &pool.uri).chain([&lease.header_uri]) {
        let metadata = fs::metadata(path_of(uri)).unwrap();
        assert!(metadata.blocks() * 512 >= metadata.len(), "no page fault is left for later");
        bytes += metadata.len();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    let kib: u64 = locked.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib * 1024 >= bytes, "{kib} KiB locked of {bytes} bytes");
}

/// Rules: TP-239, TP-281, TC-105.
#[test]
fn a_full_file_system_is_cleaned_up_once_and_then_refuses_without_leftovers() {
    let disk = Mount::tmpfs("size=400k,mode=700");
    let mut config = config(disk.path());
    config.policies.epoch_gc_min_age = std::time::Duration::from_secs(3);
    let driver = start(config).unwrap();
    let mut rig = Rig::around(driver);
    // Each producer leaves two epochs of about 50 KiB; none of them is old enough to be collected yet.
    for client in 1..=3 {
        let lease = rig.granted(client, Role::Producer, CAM);
        rig.detach(&lease, client, Role::Producer);
    }
    assert_eq!(rig.epoch_dirs(CAM).len(), 6);
    let ballast = disk.path().join("ballast");
    fill(&ballast);
    let failed = rig.attach(10, Role::Producer, CAM);
    assert_eq!((failed.code, failed.text.as_str()), (ResponseCode::InternalError, "shm creation failed"));
    assert_eq!(rig.epoch_dirs(CAM).len(), 6, "all too young, and nothing new");

    // Old enough: collected when the first try fails, and the second succeeds.
    rig.now = rig.now.saturating_add(Nanos::from_secs(10));
    let current = rig.driver.snapshot(rig.now).streams[0].epoch.get();
    let lease = rig.granted(11, Role::Producer, CAM);
    assert!(rig.epoch_dirs(CAM).is_superset(&[current, lease.epoch.unwrap()].into()));
    assert!(rig.epoch_dirs(CAM).len() <= 3);
    assert!(rig.driver.snapshot(rig.now).counters.epochs_collected >= 4);

    // Nothing can be collected now: the refusal leaves the disk as it was, also for a stream that is new.
    fill(&ballast);
    let before = rig.files();
    let mut unknown = request(12, Role::Producer, 0, 500);
    unknown.publish_mode = Some(PublishMode::ExistingOrCreate.into());
    for _ in 0..3 {
        assert_eq!(rig.ask(&unknown).code, ResponseCode::InternalError);
        assert_eq!(rig.files(), before);
    }
    let snapshot = rig.driver.snapshot(rig.now);
    assert_eq!((snapshot.streams.len(), snapshot.leases.len()), (1, 1));
    // With space again, the same request succeeds.
    fs::remove_file(&ballast).unwrap();
    assert_eq!(rig.ask(&unknown).code, ResponseCode::Ok);
}

/// Appends until nothing fits any more.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

/// Rules: TP-040, TP-239, TP-247.
#[test]
fn on_hugetlbfs_regions_are_huge_and_say_so() {
    let _pages = HugePages::reserve(8);
    let mount = Mount::new("hugetlbfs", "mode=700,pagesize=2M");
    let driver = start(config(mount.path())).unwrap();
    let mut rig = Rig::around(driver);
    let wanting = |policy: HugepagesPolicy, client| {
        let mut request = request(client, Role::Consumer, CAM, i64::from(client));
        request.require_hugepages = policy.into();
        request
    };
    let refused = rig.ask(&wanting(HugepagesPolicy::Standard, 1));
    assert_eq!((refused.code, refused.text.as_str()), (ResponseCode::Rejected, "standard pages requested"));
    let answer = rig.ask(&wanting(HugepagesPolicy::Hugepages, 2));
    assert_eq!(answer.code, ResponseCode::Ok, "{}", answer.text);
    for uri in answer.pools.iter().map(|pool| &pool.uri).chain([&answer.header_uri]) {
        let path = path_of(uri.strip_suffix("|require_hugepages=true").expect("the flag of TP-040"));
        assert_eq!(fs::metadata(path).unwrap().len(), HugePages::SIZE, "rounded up to whole pages");
    }
    assert_eq!(rig.ask(&wanting(HugepagesPolicy::Unspecified, 3)).code, ResponseCode::Ok);
}

/// Huge pages of the kernel's pool, given back with the value. The lock keeps others who do the same apart.
struct HugePages {
    pool: fs::File,
    before: u64,
}

impl HugePages {
    const POOL: &str = "/proc/sys/vm/nr_hugepages";
    const SIZE: u64 = 2 << 20;

    fn reserve(pages: u64) -> Self {
        let pool = fs::File::open(Self::POOL).unwrap();
        pool.lock().unwrap();
        let before: u64 = fs::read_to_string(Self::POOL).unwrap().trim().parse().unwrap();
        fs::write(Self::POOL, (before + pages).to_string())
            .expect("this test reserves huge pages: run it as root");
        Self { pool, before }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(Self::POOL, self.before.to_string());
        let _ = self.pool.unlock();
    }
}

/// A file system of its own, unmounted and removed with the value.
struct Mount {
    dir: tempfile::TempDir,
}

impl Mount {
    fn tmpfs(options: &str) -> Self {
        Self::new("tmpfs", options)
    }

    fn new(kind: &str, options: &str) -> Self {
        let mount = Self { dir: tempfile::tempdir().unwrap() };
        let status = Command::new("mount")
            .args(["-t", kind, "-o", options, "none"])
            .arg(mount.path())
            .status()
            .expect("mount(8) is there");
        assert!(status.success(), "this test mounts a {kind} and needs the right to do so (run as root)");
        mount
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: mappings of regions may still exist when a test fails.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
