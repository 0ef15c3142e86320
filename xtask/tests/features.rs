//! What the features of the facade bring in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{collections::BTreeSet, process::Command};

fn cargo(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO")).args(arguments).args(["--offline", "--locked"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The packages that are built for the facade with these features and no others.
fn built_with(features: &str) -> BTreeSet<String> {
    let tree = [
        "tree",
        "--package",
        "tidegate",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--no-default-features",
        "--features",
        features,
    ];
    cargo(&tree).lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

/// Without the feature `zmq` nothing of messaging is built; the published pages show all features.
///
/// Rules: MQ-010.
#[test]
fn messaging_is_a_feature_of_the_facade() {
    let messaging = ["tidegate-mq", "tidegate-zmtp"];
    let (with, without) = (built_with("zmq"), built_with(""));
    for package in messaging {
        assert!(with.contains(package) && !without.contains(package), "{package}");
    }
    assert!(without.contains("tidegate"));
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let facade = packages.iter().find(|package| package["name"] == "tidegate").unwrap();
    assert_eq!(facade["metadata"]["docs"]["rs"]["all-features"], true);
}

/// Nothing that messaging is built of links a library of C.
///
/// Rules: MQ-005, MQ-534.
#[test]
fn messaging_links_no_library_of_c() {
    let tree = [
        "tree",
        "--package",
        "tidegate-mq",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    let built: BTreeSet<String> = cargo(&tree).lines().filter_map(name_and_version).collect();
    assert!(built.iter().any(|package| package.starts_with("compio-driver ")), "{built:?}");
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1"])).unwrap();
    let linking: Vec<String> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| package["links"].is_string())
        .map(|package| {
            format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap())
        })
        .collect();
    assert!(
        linking.iter().any(|package| package.starts_with("rusteron")),
        "Aeron is linked elsewhere: {linking:?}"
    );
    let linked: Vec<_> = linking.iter().filter(|package| built.contains(*package)).collect();
    assert!(linked.is_empty(), "{linked:?}");
}

/// `name 1.2.3` of the line `name v1.2.3 (from somewhere)`.
fn name_and_version(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    Some(format!("{} {}", words.next()?, words.next()?.strip_prefix('v')?))
}
