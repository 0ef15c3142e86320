//! Making regions: exclusive, exact modes, and every shortage found at creation instead of as a signal later.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod children;
mod mounts;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use children::{Child, role};
use mounts::with_mount;
use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, setrlimit, umask},
    thread::{CapabilitySet, capabilities, set_capabilities},
};
use tidegate_shm::region::{
    Access, AllowedBases, CreateError, CreateOptions, HugePages, PermissionPolicy, RegionDir, create_region,
    free_space,
};

fn mode_of(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names_in(dir: &RegionDir) -> Vec<String> {
    dir.list().unwrap().map(|entry| entry.unwrap().name.into_string().unwrap()).collect()
}

/// Rules: TP-053.
#[test]
fn a_new_region_is_zero_writable_and_visible_to_others() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = RegionDir::open_base(place.path()).unwrap();
    let region = create_region(&dir, "header.ring", &CreateOptions::new(64 + 8 * 256)).unwrap();
    assert_eq!(region.len(), 2112);
    assert_eq!(region.span(0, region.len()).unwrap().to_vec(), vec![0; 2112]);
    region.write(0, b"superblock").unwrap();
    region.sync().unwrap();

    let (bases, _) = AllowedBases::new([place.path()]);
    let path = dir.path().join("header.ring");
    let policy = PermissionPolicy::default();
    let file = bases.open(&path, Access::ReadOnly, &policy, HugePages::NotRequired).unwrap();
    assert_eq!(file.len(), 2112);
    let other = file.map(2112).unwrap();
    let mut seen = [0; 10];
    other.read(0, &mut seen).unwrap();
    assert_eq!(&seen, b"superblock");
    region.write(2100, b"later").unwrap();
    other.read(2100, &mut seen[..5]).unwrap();
    assert_eq!(&seen[..5], b"later");
}

/// Rules: TP-054, TP-055.
#[test]
fn an_existing_name_is_never_touched() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = RegionDir::open_base(place.path()).unwrap();
    let at = |name: &str| place.path().join(name);
    fs::write(at("file"), "precious").unwrap();
    symlink(at("file"), at("link")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    fs::create_dir(at("dir")).unwrap();
    for name in ["file", "link", "dangling", "dir"] {
        let refused = create_region(&dir, name, &CreateOptions::new(4096));
        assert!(matches!(refused, Err(CreateError::AlreadyExists { .. })), "{name}: {refused:?}");
    }
    assert_eq!(fs::read(at("file")).unwrap(), b"precious");
    assert!(!at("nowhere").exists());
    for name in ["", ".", "..", "a/b", "/abs", "nul\0"] {
        let refused = create_region(&dir, name, &CreateOptions::new(4096));
        assert!(matches!(refused, Err(CreateError::InvalidName { .. })), "{name:?}: {refused:?}");
    }
}

/// Rules: TP-068, TC-036.
#[test]
fn files_have_exactly_the_mode_asked_for_under_any_umask() {
    if let Some(place) = role("masked") {
        let dir = RegionDir::open_base(&place).unwrap();
        for (mask, name) in [(0, "open"), (0o077, "closed"), (0o777, "nothing")] {
            umask(Mode::from_raw_mode(mask));
            create_region(&dir, name, &CreateOptions::new(64)).unwrap();
            create_region(
                &dir,
                &format!("{name}-private"),
                &CreateOptions { mode: 0o600, ..CreateOptions::new(64) },
            )
            .unwrap();
        }
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    Child::start("files_have_exactly_the_mode_asked_for_under_any_umask", "masked", place.path()).succeed();
    for name in ["open", "closed", "nothing"] {
        assert_eq!(mode_of(place.path().join(name)), 0o660, "{name}");
        assert_eq!(mode_of(place.path().join(format!("{name}-private"))), 0o600, "{name}");
    }
}

/// A file with holes would pass creation and raise SIGBUS when the filled file system is touched.
/// Rules: TP-053, TP-057.
#[test]
fn a_full_file_system_is_found_at_creation() {
    for prefault in [true, false] {
        with_mount("tmpfs", c"size=64k", |place| {
            let dir = RegionDir::open_base(place).unwrap();
            let options = |len| CreateOptions { prefault, ..CreateOptions::new(len) };
            let fits = create_region(&dir, "fits", &options(32 << 10)).unwrap();
            let refused = create_region(&dir, "large", &options(128 << 10));
            match refused {
                Err(CreateError::NoSpace { needed, available, path }) => {
                    assert_eq!((needed, available), (128 << 10, 32 << 10));
                    assert_eq!(path, place.join("large"));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(names_in(&dir), ["fits"], "nothing is left behind");
            assert_eq!(free_space(place).unwrap(), 32 << 10);

            // The space of the region that fits is its own, whatever others do.
            create_region(&dir, "rest", &options(32 << 10)).unwrap();
            assert_eq!(free_space(place).unwrap(), 0);
            fits.fill(0, fits.len(), 1).unwrap();
        });
    }
}

/// On a file system without fallocate space is reserved by writing.
/// Rules: TP-053.
#[test]
fn file_systems_that_cannot_reserve_are_written_full() {
    with_mount("ramfs", c"", |place| {
        let dir = RegionDir::open_base(place).unwrap();
        let len = 200_001;
        let options = CreateOptions { prefault: false, ..CreateOptions::new(len) };
        let region = create_region(&dir, "region", &options).unwrap();
        assert_eq!(region.span(0, len).unwrap().to_vec(), vec![0; len as usize]);
        let metadata = fs::metadata(place.join("region")).unwrap();
        assert_eq!(metadata.len(), len);
    });
}

/// Beyond RLIMIT_FSIZE the kernel sends SIGXFSZ, which would end the child.
#[test]
fn the_limit_of_file_sizes_is_an_error_not_a_signal() {
    if let Some(place) = role("limited") {
        setrlimit(Resource::Fsize, Rlimit { current: Some(10_000), maximum: Some(10_000) }).unwrap();
        let dir = RegionDir::open_base(&place).unwrap();
        create_region(&dir, "small", &CreateOptions::new(10_000)).unwrap();
        let refused = create_region(&dir, "large", &CreateOptions::new(10_001));
        assert!(matches!(refused, Err(CreateError::TooLarge { needed: 10_001, .. })), "{refused:?}");
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    Child::start("the_limit_of_file_sizes_is_an_error_not_a_signal", "limited", place.path()).succeed();
    assert!(place.path().join("small").exists() && !place.path().join("large").exists());
}

/// Rules: TP-057.
#[test]
fn pages_that_cannot_be_locked_are_fatal() {
    if let Some(place) = role("limited") {
        let dir = RegionDir::open_base(&place).unwrap();
        let options = CreateOptions { lock: true, ..CreateOptions::new(64 << 10) };
        create_region(&dir, "locked", &options).unwrap();
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, sets).unwrap();
        setrlimit(Resource::Memlock, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
        let refused = create_region(&dir, "refused", &options);
        assert!(matches!(refused, Err(CreateError::LockPages { len: 65_536, .. })), "{refused:?}");
        assert_eq!(names_in(&dir), ["locked"]);
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    Child::start("pages_that_cannot_be_locked_are_fatal", "limited", place.path()).succeed();
}

/// Rules: TP-057.
#[test]
fn prefaulting_and_locking_leave_no_page_out() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = RegionDir::open_base(place.path()).unwrap();
    let kib = |name: &str, field: &str, options: CreateOptions| -> u64 {
        let _region = create_region(&dir, name, &options).unwrap();
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let own = maps.split_once(&format!("/{name}\n")).expect("the region is mapped").1;
        let line = own.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    };
    let options = CreateOptions { prefault: false, ..CreateOptions::new(1 << 20) };
    assert_eq!(kib("lazy", "Rss:", options), 0);
    assert_eq!(kib("prefaulted", "Rss:", CreateOptions { prefault: true, ..options }), 1024);
    assert_eq!(kib("unlocked", "Locked:", options), 0);
    assert_eq!(kib("pinned", "Locked:", CreateOptions { lock: true, ..options }), 1024);
}

#[test]
fn lengths_that_no_file_can_have_are_refused() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = RegionDir::open_base(place.path()).unwrap();
    for len in [0, i64::MAX as u64 + 1, u64::MAX] {
        let refused = create_region(&dir, "region", &CreateOptions::new(len));
        assert!(matches!(refused, Err(CreateError::InvalidLength { .. })), "{len}: {refused:?}");
    }
    for len in [i64::MAX as u64, 1 << 60] {
        let refused = create_region(&dir, "region", &CreateOptions::new(len));
        let expected = matches!(refused, Err(CreateError::NoSpace { .. } | CreateError::TooLarge { .. }));
        assert!(expected, "{len}: {refused:?}");
    }
    assert_eq!(names_in(&dir), [""; 0]);
}

/// Rules: TP-045.
#[test]
fn huge_pages_need_hugetlbfs() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = RegionDir::open_base(place.path()).unwrap();
    let options = CreateOptions { huge_pages: true, ..CreateOptions::new(64) };
    let refused = create_region(&dir, "region", &options);
    assert!(matches!(refused, Err(CreateError::NotHugetlbfs { .. })), "{refused:?}");
    assert_eq!(names_in(&dir), [""; 0]);
}

/// Rules: TP-045, TP-064.
#[test]
fn regions_live_on_huge_pages() {
    const HUGE: u64 = 2 << 20;
    let _reserved = ReservedHugePages::new(3);
    with_mount("hugetlbfs", c"pagesize=2M,size=4M", |place| {
        let dir = RegionDir::open_base(place).unwrap();
        let len = HUGE + 64;
        let options = CreateOptions { huge_pages: true, ..CreateOptions::new(len) };
        let region = create_region(&dir, "region", &options)
            .unwrap_or_else(|error| panic!("needs two free huge pages of 2 MiB: {error}"));
        assert_eq!(region.len(), len);
        assert_eq!(fs::metadata(place.join("region")).unwrap().size(), 2 * HUGE);
        region.write(len - 4, b"last").unwrap();
        region.sync().unwrap();

        let (bases, _) = AllowedBases::new([place]);
        let policy = PermissionPolicy::default();
        let path = place.join("region");
        let file = bases.open(&path, Access::ReadOnly, &policy, HugePages::Required).unwrap();
        assert!(file.is_hugetlbfs());
        let mut last = [0; 4];
        file.read_at(len - 4, &mut last).unwrap();
        assert_eq!(&last, b"last");
        assert_eq!(file.map(len).unwrap().span(len - 4, 4).unwrap().to_vec(), b"last");

        let refused = create_region(&dir, "more", &CreateOptions { len: HUGE, ..options });
        assert!(matches!(refused, Err(CreateError::NoSpace { .. })), "{refused:?}");
    });
}

/// Huge pages that the system keeps ready until this is dropped.
struct ReservedHugePages {
    before: u64,
}

impl ReservedHugePages {
    const POOL: &str = "/proc/sys/vm/nr_hugepages";

    fn new(pages: u64) -> Self {
        let before: u64 = fs::read_to_string(Self::POOL).unwrap().trim().parse().unwrap();
        fs::write(Self::POOL, (before + pages).to_string())
            .expect("this test reserves huge pages: run it as root");
        Self { before }
    }
}

impl Drop for ReservedHugePages {
    fn drop(&mut self) {
        let _ = fs::write(Self::POOL, self.before.to_string());
    }
}
