//! Directories of regions: exact modes, no links, and what a collector of old ones needs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod children;
mod mounts;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use children::{Child, role};
use mounts::with_mount;
use rustix::{fs::Mode, process::umask};
use tidegate_shm::{
    clock::realtime_now,
    region::{Access, DirError, FileKind, OpenError, RegionDir},
};

fn mode_of(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Rules: TP-492, TC-212.
#[test]
fn directories_have_exactly_the_mode_asked_for_under_any_umask() {
    if let Some(place) = role("masked") {
        let base = RegionDir::open_base(&place).unwrap();
        for (mask, name) in [(0, "open"), (0o077, "closed"), (0o777, "nothing")] {
            umask(Mode::from_raw_mode(mask));
            let dir = base.create_dirs(&[name, "default", "7"], 0o770).unwrap();
            assert_eq!(dir.path(), base.path().join(name).join("default/7"));
            base.create_dirs(&[name, "group"], 0o2770).unwrap();
        }
        return;
    }
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    Child::start("directories_have_exactly_the_mode_asked_for_under_any_umask", "masked", place.path())
        .succeed();
    for name in ["open", "closed", "nothing"] {
        for (level, mode) in [("", 0o770), ("default", 0o770), ("default/7", 0o770), ("group", 0o2770)] {
            assert_eq!(mode_of(place.path().join(name).join(level)), mode, "{name}/{level}");
        }
    }
}

/// Rules: TP-492.
#[test]
fn existing_levels_keep_their_mode_unless_the_world_may_write() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let base = RegionDir::open_base(place.path()).unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("kept")).unwrap();
    fs::set_permissions(at("kept"), fs::Permissions::from_mode(0o755)).unwrap();
    base.create_dirs(&["kept", "new"], 0o700).unwrap();
    assert_eq!((mode_of(at("kept")), mode_of(at("kept/new"))), (0o755, 0o700));

    for mode in [0o777, 0o1777, 0o702] {
        fs::set_permissions(at("kept"), fs::Permissions::from_mode(mode)).unwrap();
        let refused = base.create_dirs(&["kept", "other"], 0o700);
        match refused {
            Err(DirError::WorldWritable { path, mode: found }) => {
                assert_eq!((path, found), (at("kept"), mode))
            }
            other => panic!("{other:?}"),
        }
        assert!(!at("kept/other").exists());
    }
}

/// Rules: TP-052, TP-066.
#[test]
fn levels_that_are_links_or_not_plain_names_are_refused() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let base = RegionDir::open_base(place.path()).unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("real")).unwrap();
    symlink(at("real"), at("link")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    fs::write(at("file"), "").unwrap();
    for name in ["link", "dangling"] {
        let refused = base.create_dirs(&[name, "below"], 0o700);
        assert!(matches!(&refused, Err(DirError::Link { path }) if *path == at(name)), "{refused:?}");
    }
    assert!(!at("real/below").exists() && !at("nowhere").exists());
    assert!(matches!(base.create_dirs(&["file"], 0o700), Err(DirError::NotDirectory { .. })));
    for name in ["", ".", "..", "a/b", "/", "nul\0"] {
        let refused = base.create_dirs(&["ok", name], 0o700);
        assert!(matches!(refused, Err(DirError::InvalidName { .. })), "{name:?}: {refused:?}");
    }
}

/// Rules: TP-060, TP-066.
#[test]
fn the_base_is_resolved_once() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("first")).unwrap();
    fs::create_dir(at("second")).unwrap();
    symlink(at("first"), at("base")).unwrap();
    let base = RegionDir::open_base(&at("base")).unwrap();
    assert_eq!(base.path(), at("first"));
    fs::remove_file(at("base")).unwrap();
    symlink(at("second"), at("base")).unwrap();
    base.create_dirs(&["new"], 0o700).unwrap();
    assert!(at("first/new").exists() && !at("second/new").exists());
}

/// Rules: TP-066.
#[test]
fn a_base_that_cannot_be_used_is_refused() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::write(place.path().join("file"), "").unwrap();
    let open = |path: &Path| RegionDir::open_base(path).map(|_| ());
    assert!(matches!(open(&place.path().join("missing")), Err(DirError::Missing { .. })));
    assert!(matches!(open(&place.path().join("file")), Err(DirError::NotDirectory { .. })));
    // Modes do not stop root, a read-only file system does.
    with_mount("tmpfs", c"ro", |path| assert!(matches!(open(path), Err(DirError::NotWritable { .. }))));
}

#[test]
fn a_collector_sees_entries_as_they_are_and_removes_only_names() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let base = RegionDir::open_base(place.path()).unwrap();
    let at = |name: &str| place.path().join(name);
    base.create_dirs(&["17"], 0o700).unwrap();
    fs::write(at("17/header.ring"), [1; 64]).unwrap();
    fs::create_dir(at("elsewhere")).unwrap();
    fs::write(at("elsewhere/precious"), "").unwrap();
    symlink(at("elsewhere"), at("18")).unwrap();

    let mut entries: Vec<_> = base.list().unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let seen: Vec<_> = entries.iter().map(|entry| (entry.name.to_str().unwrap(), entry.kind)).collect();
    let expected =
        [("17", FileKind::Directory), ("18", FileKind::Symlink), ("elsewhere", FileKind::Directory)];
    assert_eq!(seen, expected);

    assert!(matches!(base.open_dir("18"), Err(DirError::Link { .. })));
    assert_eq!(base.stat("18").unwrap().kind, FileKind::Symlink);
    assert!(matches!(base.remove_dir("18"), Err(DirError::NotDirectory { .. })));
    base.remove_file("18").unwrap();
    assert!(at("elsewhere/precious").exists());
    assert!(matches!(base.remove_file("18"), Err(DirError::Missing { .. })));
    assert!(matches!(base.remove_file("../17"), Err(DirError::InvalidName { .. })));

    let dir = base.open_dir("17").unwrap();
    let stat = dir.stat("header.ring").unwrap();
    assert_eq!((stat.kind, stat.len), (FileKind::File, 64));
    assert!(stat.modified.as_u64().abs_diff(realtime_now().as_u64()) < 60_000_000_000);
    let mut header = [0; 64];
    dir.open_file("header.ring", Access::ReadOnly).unwrap().read_at(0, &mut header).unwrap();
    assert_eq!(header, [1; 64]);
    assert!(base.remove_dir("17").is_err(), "not empty");
    dir.remove_file("header.ring").unwrap();
    base.remove_dir("17").unwrap();
    assert!(!at("17").exists());
}

#[test]
fn a_file_in_a_trusted_directory_is_still_not_reached_through_a_link() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let base = RegionDir::open_base(place.path()).unwrap();
    fs::write(place.path().join("file"), [0; 64]).unwrap();
    symlink("file", place.path().join("link")).unwrap();
    base.open_file("file", Access::ReadWrite).unwrap().map_mut(64).unwrap();
    let refused = base.open_file("link", Access::ReadOnly);
    assert!(matches!(refused, Err(OpenError::NotRegular { kind: FileKind::Symlink, .. })), "{refused:?}");
    for name in ["", "..", "../file"] {
        assert_eq!(base.open_file(name, Access::ReadOnly).unwrap_err().step(), 8, "{name:?}");
    }
}
