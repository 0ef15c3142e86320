//! Opening regions whose paths, types, modes and sizes are hostile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod mounts;

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use mounts::with_mount;
use rustix::{
    fs::{CWD, FileType, Mode, makedev, mkfifoat, mknodat},
    process::geteuid,
};
use tempfile::TempDir;
use tidegate_shm::region::{
    Access, AllowedBases, FileKind, HugePages, MapError, OpenError, PermissionPolicy, RegionFile,
};

/// A base directory with a region file of 4096 bytes, mode 0660.
struct Place {
    dir: TempDir,
    bases: AllowedBases,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let (bases, rejected) = AllowedBases::new([dir.path()]);
        assert!(rejected.is_empty());
        let place = Self { dir, bases };
        place.file("region", 4096);
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, len: usize) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, vec![7; len]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        path
    }

    fn open(&self, path: impl AsRef<Path>) -> Result<RegionFile, OpenError> {
        open(&self.bases, path, &PermissionPolicy::default())
    }

    /// The step that refuses the path.
    fn step(&self, path: impl AsRef<Path>) -> u8 {
        self.open(path).map(|file| file.len()).unwrap_err().step()
    }
}

fn open(
    bases: &AllowedBases,
    path: impl AsRef<Path>,
    policy: &PermissionPolicy,
) -> Result<RegionFile, OpenError> {
    bases.open(path.as_ref(), Access::ReadOnly, policy, HugePages::NotRequired)
}

/// Rules: TP-058, TP-064, TP-065.
#[test]
fn a_proper_region_opens_and_maps_read_only() {
    let place = Place::new();
    let file = place.open(place.at("region")).unwrap();
    assert_eq!((file.len(), file.metadata().mode, file.metadata().kind), (4096, 0o660, FileKind::File));
    assert!(file.is_tmpfs() && !file.is_hugetlbfs());
    let mut header = [0; 64];
    file.read_at(0, &mut header).unwrap();
    assert_eq!(header, [7; 64]);
    let region = file.map(4096).unwrap();
    assert_eq!(region.len(), 4096);
    assert_eq!(protection(region.span(0, 1).unwrap().as_ptr()), "r--s");
}

/// Rules: TP-065.
#[test]
fn a_file_opened_for_reading_cannot_be_mapped_for_writing() {
    let place = Place::new();
    let file = place.open(place.at("region")).unwrap();
    assert!(matches!(file.map_mut(64), Err(MapError::ReadOnlyFile)));
    let policy = PermissionPolicy::default();
    let file =
        place.bases.open(&place.at("region"), Access::ReadWrite, &policy, HugePages::NotRequired).unwrap();
    let region = file.map_mut(64).unwrap();
    assert_eq!(protection(region.span(0, 1).unwrap().as_ptr()), "rw-s");
}

/// Even a file opened with write access is mapped read-only when reading is asked for.
/// Rules: TP-065.
#[test]
fn a_read_mapping_of_a_writable_file_is_read_only() {
    let place = Place::new();
    let policy = PermissionPolicy::default();
    let file =
        place.bases.open(&place.at("region"), Access::ReadWrite, &policy, HugePages::NotRequired).unwrap();
    let region = file.map(64).unwrap();
    assert_eq!(protection(region.span(0, 1).unwrap().as_ptr()), "r--s");
}

/// Permissions of the mapping at an address, as the kernel lists them.
fn protection(address: *const u8) -> String {
    let start = format!("{:x}-", address.addr());
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.starts_with(&start)).expect("the mapping is listed");
    line.split(' ').nth(1).unwrap().to_owned()
}

/// Rules: TP-062, TC-027.
#[test]
fn without_bases_everything_is_refused() {
    let place = Place::new();
    let (none, _) = AllowedBases::new(Vec::<PathBuf>::new());
    let refused = open(&none, place.at("region"), &PermissionPolicy::default()).unwrap_err();
    assert_eq!(refused.step(), 3);
    let (unusable, rejected) = AllowedBases::new(["/nowhere/at/all", "/etc/passwd"]);
    assert_eq!(rejected.len(), 2, "missing and not a directory");
    assert_eq!(open(&unusable, place.at("region"), &PermissionPolicy::default()).unwrap_err().step(), 3);
}

/// Rules: TP-058, TC-028.
#[test]
fn a_base_is_not_a_string_prefix() {
    let outer = tempfile::tempdir().unwrap();
    let at = |name: &str| outer.path().join(name);
    fs::create_dir(at("x")).unwrap();
    fs::create_dir(at("xy")).unwrap();
    for name in ["x/f", "xy/f"] {
        fs::write(at(name), [0; 64]).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let (bases, _) = AllowedBases::new([at("x")]);
    open(&bases, at("x/f"), &PermissionPolicy::default()).unwrap();
    assert_eq!(open(&bases, at("xy/f"), &PermissionPolicy::default()).unwrap_err().step(), 6);
    assert_eq!(open(&bases, at("x"), &PermissionPolicy::default()).unwrap_err().step(), 6, "the base itself");
}

/// Rules: TP-058, TC-029.
#[test]
fn paths_that_are_relative_dotted_or_lead_outside_are_refused() {
    let place = Place::new();
    let name = place.dir.path().file_name().unwrap().to_str().unwrap().to_owned();
    fs::create_dir(place.at("sub")).unwrap();
    assert_eq!(place.step("region"), 2);
    assert_eq!(place.step(""), 2);
    assert_eq!(place.step(place.at("missing")), 5);
    assert_eq!(place.step(place.at("../../../etc/passwd")), 6);
    // Dots that stay inside pass the resolution and are refused by the walk.
    assert_eq!(place.step(place.at("sub/../region")), 8);
    assert_eq!(place.step(place.at(&format!("../{name}/region"))), 8);
    let dot = format!("{}/./region", place.dir.path().display());
    assert_eq!(place.step(dot), 8);
    assert_eq!(place.step("/nul\0byte"), 5);
}

/// Rules: TP-058.
#[test]
fn duplicate_slashes_are_tolerated() {
    let place = Place::new();
    let path = format!("//{}//region", place.dir.path().display());
    assert_eq!(place.open(path).unwrap().len(), 4096);
}

/// Rules: TP-058, TP-059, TC-030.
#[test]
fn a_link_in_any_component_is_refused() {
    let place = Place::new();
    fs::create_dir(place.at("real")).unwrap();
    place.file("real/region", 64);
    symlink(place.at("region"), place.at("last")).unwrap();
    symlink(place.at("real"), place.at("middle")).unwrap();
    assert_eq!(place.open(place.at("real/region")).unwrap().len(), 64);
    let last = place.open(place.at("last")).unwrap_err();
    assert_eq!((last.step(), last.errno()), (8, Some(rustix::io::Errno::LOOP.raw_os_error())));
    let middle = place.open(place.at("middle/region")).unwrap_err();
    match &middle {
        OpenError::Component { component, .. } => assert_eq!(*component, place.at("middle")),
        other => panic!("{other:?}"),
    }
    // A link out of the base is stopped earlier.
    symlink("/etc/passwd", place.at("out")).unwrap();
    assert_eq!(place.step(place.at("out")), 6);
}

/// A base configured through a link is resolved once; announced paths still have to be the resolved ones.
/// Rules: TP-059, TP-060.
#[test]
fn the_base_itself_may_not_be_a_link_in_an_announced_path() {
    let place = Place::new();
    let other = tempfile::tempdir().unwrap();
    let link = other.path().join("base");
    symlink(place.dir.path(), &link).unwrap();
    let (bases, rejected) = AllowedBases::new([&link]);
    assert!(rejected.is_empty());
    assert_eq!(bases.paths(), [place.dir.path()]);
    assert_eq!(open(&bases, link.join("region"), &PermissionPolicy::default()).unwrap_err().step(), 8);
    assert_eq!(open(&bases, place.at("region"), &PermissionPolicy::default()).unwrap().len(), 4096);
}

/// The test would not end if one of these were opened in a blocking way.
/// Rules: TP-058, TC-032.
#[test]
fn other_types_of_files_are_refused_without_hanging() {
    let place = Place::new();
    mkfifoat(CWD, place.at("fifo"), Mode::RWXU).unwrap();
    let _listener = UnixListener::bind(place.at("socket")).unwrap();
    fs::create_dir(place.at("dir")).unwrap();
    let null = makedev(1, 3);
    mknodat(CWD, place.at("device"), FileType::CharacterDevice, Mode::RWXU, null)
        .expect("this test makes a device node and needs CAP_MKNOD: run it as root");
    let kinds = [
        ("fifo", FileKind::Fifo),
        ("socket", FileKind::Socket),
        ("dir", FileKind::Directory),
        ("device", FileKind::Device),
    ];
    for (name, expected) in kinds {
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let refused = place.bases.open(
                &place.at(name),
                access,
                &PermissionPolicy::default(),
                HugePages::NotRequired,
            );
            match refused {
                Err(OpenError::NotRegular { kind, step: 7, .. }) => assert_eq!(kind, expected),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

/// Rules: TP-069, TC-033.
#[test]
fn modes_and_owners_are_checked_against_the_policy() {
    let place = Place::new();
    let path = place.at("region");
    let try_with = |policy| open(&place.bases, &path, &policy).map(|_| ()).map_err(|error| error.step());
    let default = PermissionPolicy::default();
    assert_eq!(try_with(default), Ok(()));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    assert_eq!(try_with(default), Err(10));
    assert_eq!(try_with(PermissionPolicy { enforce: false, ..default }), Ok(()));
    assert_eq!(try_with(PermissionPolicy { forbidden_bits: 0o003, ..default }), Ok(()));
    assert_eq!(try_with(PermissionPolicy { forbidden_bits: 0o020, ..default }), Err(10));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let uid = geteuid().as_raw();
    let gid = fs::metadata(&path).map(|metadata| std::os::unix::fs::MetadataExt::gid(&metadata)).unwrap();
    assert_eq!(try_with(PermissionPolicy { uid: Some(uid), gid: Some(gid), ..default }), Ok(()));
    assert_eq!(try_with(PermissionPolicy { uid: Some(uid + 1), ..default }), Err(10));
    assert_eq!(try_with(PermissionPolicy { gid: Some(gid + 1), ..default }), Err(10));
}

/// Rules: TP-058, TP-064, TC-034.
#[test]
fn short_files_are_refused_before_they_are_mapped() {
    let place = Place::new();
    let short = place.open(place.file("short", 63)).unwrap();
    assert!(matches!(short.read_at(0, &mut [0; 64]), Err(MapError::TooShort { required: 64, found: 63 })));
    assert!(matches!(short.map(64), Err(MapError::TooShort { required: 64, found: 63 })));
    let path = place.file("nearly", 64 + 4 * 256 - 1);
    let nearly = place.open(&path).unwrap();
    nearly.read_at(0, &mut [0; 64]).unwrap();
    assert!(matches!(nearly.map(64 + 4 * 256), Err(MapError::TooShort { required: 1088, found: 1087 })));
    assert!(matches!(place.open(&path).unwrap().map(0), Err(MapError::InvalidLength { len: 0 })));
    assert!(matches!(place.open(&path).unwrap().map(u64::MAX), Err(MapError::TooShort { .. })));
}

/// The length that counts is the one at the time of mapping.
/// Rules: TP-064.
#[test]
fn a_file_shortened_after_opening_is_refused() {
    let place = Place::new();
    let file = place.open(place.at("region")).unwrap();
    fs::OpenOptions::new().write(true).open(place.at("region")).unwrap().set_len(100).unwrap();
    assert!(matches!(file.map(4096), Err(MapError::TooShort { required: 4096, found: 100 })));
}

/// Rules: TP-045, TC-026.
#[test]
fn huge_pages_are_not_replaced_by_ordinary_ones() {
    let place = Place::new();
    let refused = place.bases.open(
        &place.at("region"),
        Access::ReadOnly,
        &PermissionPolicy::default(),
        HugePages::Required,
    );
    assert_eq!(refused.unwrap_err().step(), 12);
}

/// Rules: TP-046.
#[test]
fn files_on_disk_are_told_from_files_in_memory() {
    with_mount("ramfs", c"", |place| {
        fs::write(place.join("region"), [0; 64]).unwrap();
        fs::set_permissions(place.join("region"), fs::Permissions::from_mode(0o600)).unwrap();
        let (bases, _) = AllowedBases::new([place]);
        let file = open(&bases, place.join("region"), &PermissionPolicy::default()).unwrap();
        assert!(!file.is_tmpfs() && !file.is_hugetlbfs());
        file.map(64).unwrap();
    });
}
