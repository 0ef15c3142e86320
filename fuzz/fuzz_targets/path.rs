//! Path containment: whatever path is announced, only the one good file below the base is ever opened.

#![no_main]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate::shm::region::{Access, AllowedBases, HugePages, PermissionPolicy};

struct Tree {
    _root: tempfile::TempDir,
    base: PathBuf,
    good: PathBuf,
    bases: AllowedBases,
}

static TREE: LazyLock<Tree> = LazyLock::new(|| {
    let root = tempfile::tempdir_in("/dev/shm").expect("a directory in /dev/shm");
    let base = root.path().join("base");
    fs::create_dir_all(base.join("a")).expect("directories");
    let good = base.join("a/good");
    for file in [&good, &root.path().join("outside")] {
        fs::write(file, [0; 64]).expect("a file");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("its mode");
    }
    symlink("/dev/zero", base.join("z")).expect("a link");
    symlink("..", base.join("up")).expect("a link");
    let (bases, rejected) = AllowedBases::new(&[base.clone()]);
    assert!(rejected.is_empty());
    Tree { base, good, bases, _root: root }
});

fuzz_target!(|input: (bool, &[u8])| {
    let (relative, bytes) = input;
    let tree = &*TREE;
    let path = if relative { tree.base.join(OsStr::from_bytes(bytes)) } else { PathBuf::from(OsStr::from_bytes(bytes)) };
    let opened = tree.bases.open(&path, Access::ReadOnly, &PermissionPolicy::default(), HugePages::NotRequired);
    if opened.is_ok() {
        assert_eq!(fs::canonicalize(&path).expect("an opened path"), tree.good);
    }
});
