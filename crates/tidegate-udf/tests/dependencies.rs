//! What a program links with the SDK (VX-511).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::{collections::BTreeSet, process::Command};

/// Rules: VX-511.
#[test]
fn the_sdk_brings_few_crates_and_no_runtime() {
    let listed = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--package", "tidegate-udf", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let crates: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let added = crates.len() - 1;
    assert!((1..20).contains(&added), "{added} crates: {crates:?}");
    for heavy in ["tokio", "async-std", "smol", "compio", "rustls", "openssl", "tonic", "prost", "hyper"] {
        assert!(!crates.contains(heavy), "{heavy}");
    }
}
