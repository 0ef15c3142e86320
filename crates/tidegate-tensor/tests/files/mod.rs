//! Looking at the files of a test.

#![allow(dead_code, reason = "every test binary uses another part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything below a directory, directories included.
pub(crate) fn files_below(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        }
        found.insert(path);
    }
    found
}

/// The header rings below a directory, in order of their epochs.
pub(crate) fn header_rings(dir: &Path) -> Vec<PathBuf> {
    files_below(dir).into_iter().filter(|path| path.ends_with("header.ring")).collect()
}
