//! Which streams a driver serves, and that others are refused before anything is made.

use std::fs;
use std::path::PathBuf;

use crate::support::{Node, Running, tidegate};

fn recording() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/data/astronaut-pan.npy")
}

#[test]
fn a_number_that_is_not_served_is_refused_before_anything_is_made() {
    let node = Node::start();
    let refused = |mut command: std::process::Command| {
        let (code, message) = Running::start(&mut command).finish().exits(4).error();
        assert_eq!(code, "other_stream", "{message}");
        assert!(message.contains("stream 5;") && message.contains("20000-20099"), "{message}");
    };
    let publish = |mut command: std::process::Command| {
        command.arg("--input").arg(recording());
        command
    };
    refused(publish(node.command("tensor pub 5")));
    refused(node.command("tensor sub 5"));
    // Without the node, its configuration says it.
    let mut direct = tidegate();
    direct.args(["--json", "tensor", "pub", "5", "--aeron-dir"]).arg(node.dir().join("aeron"));
    direct.arg("--config").arg(node.place().join("node.toml"));
    refused(publish(direct));
    assert!(node.run("tensor ls").exits(0).results().is_empty(), "no stream was made");
    let epochs = node.run("ls").exits(0).results()[0]["epochs_created"].clone();
    assert_eq!(epochs, 0);
    Running::start(&mut publish(node.command("tensor pub 20099 --rate max"))).finish().exits(0);
    node.stop();
}

#[test]
fn who_waits_for_a_stream_in_vain_learns_that_another_producer_holds_it() {
    let node = Node::start();
    let publish = |timeout: &str| {
        let mut command = node.command(&format!("tensor pub cam --loop forever --timeout {timeout}"));
        Running::start(command.arg("--input").arg(recording()))
    };
    let first = publish("10s");
    assert_eq!(first.json()["attached"], true);
    let (code, message) = publish("500ms").finish().exits(5).error();
    assert_eq!(code, "timed_out");
    assert!(message.contains("another producer held stream 20000"), "{message}");
    drop(first);
    node.stop();
}

/// A configuration may put the regions where the node has everything else.
#[test]
fn a_stopped_node_removes_configured_regions_inside_its_directory() {
    let place = crate::support::place();
    let dir = place.path().join("tidegate-node");
    let config = place.path().join("node.toml");
    let text = format!(
        "[driver]\nstream_id_range = \"20000-20099\"\n[shm]\nbase_dir = \"{0}\"\nallowed_base_dirs = [\"{0}\"]\n\
         [policies]\nallow_dynamic_streams = true\ncleanup_shm_on_exit = true\n\
         [profiles.small]\nheader_nslots = 8\npayload_pools = [{{ pool_id = 1, stride_bytes = 65536 }}]\n",
        dir.display()
    );
    fs::write(&config, text).expect("a configuration");
    let mut up = tidegate();
    let node = Running::start(up.args(["--json", "up", "--config"]).arg(&config).arg("--dir").arg(&dir));
    assert_eq!(node.json()["ready"], true);
    let mut publish = tidegate();
    publish
        .args(["tensor", "pub", "camera", "--rate", "max", "--input"])
        .arg(recording())
        .arg("--dir")
        .arg(&dir);
    Running::start(&mut publish).finish().exits(0);
    node.signal(rustix::process::Signal::TERM);
    node.finish().exits(0);
    assert!(!dir.exists(), "{:?}", fs::read_dir(&dir).map(Iterator::collect::<Vec<_>>));
}
