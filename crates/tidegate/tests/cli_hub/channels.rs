//! `tidegate hub pub` and `sub` with a broker between them.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Running, place, run, tidegate};

const SCHEMA: &str = "tds1 Pose size=8 align=8 {id:u64@0+8}\n";

fn broker(place: &Path) -> (Running, String) {
    let mut command = tidegate();
    command.args(["hub", "broker", "run", "--json", "--runtime-dir"]).arg(place.join("run"));
    let running = Running::start(command.arg("--blocks").arg(place));
    let endpoint = running.json()["endpoint"].as_str().expect("an endpoint").to_owned();
    (running, endpoint)
}

fn publisher(place: &Path, args: &[&str]) -> Command {
    let schema = place.join("pose.tds1");
    std::fs::write(&schema, SCHEMA).expect("a schema");
    let mut command = tidegate();
    command.args(["hub", "pub", "pose", "--input", "-", "--sync", "all", "--json", "--schema"]).arg(schema);
    command.arg("--dir").arg(place).args(args);
    command
}

/// A publisher registers its channel, a subscriber and the commands about a block find it through the broker; at the end
/// the broker forgets it. A channel that the broker does not know is found in the directory.
///
/// Rules: DH-264.
#[test]
fn a_channel_is_registered_found_and_taken_back() {
    let place = place();
    let (broker, endpoint) = broker(place.path());
    let (input, mut pipe) = std::io::pipe().expect("a pipe");
    let publisher = Running::start(publisher(place.path(), &["--broker", &endpoint]).stdin(input));
    let opened = publisher.json();
    let ask = |args: &str| run(args.split(' ').chain(["--json", "--endpoint", &endpoint]));
    let found = ask("hub discover pose").exits(0).result();
    assert_eq!(found["shm_name"], opened["shm_name"]);
    let dir = place.path().display().to_string();
    // A copy under another name makes the channel ambiguous for whoever only reads the directory.
    let copy = place.path().join("tidegate_pose_00000000");
    std::fs::copy(place.path().join(opened["shm_name"].as_str().expect("a name")), &copy).expect("a copy");
    let status = |args: &[&str]| {
        run([&["hub", "status", "--channel", "pose", "--json", "--dir", dir.as_str()][..], args].concat())
    };
    assert_eq!(status(&["--no-broker"]).exits(2).error().0, "ambiguous");
    let told = status(&["--broker", &endpoint]).exits(0).result();
    assert_eq!(told["block"]["name"], opened["shm_name"]);
    let subscribe = |args: &[&str]| {
        let first =
            ["hub", "sub", "pose", "--start", "oldest", "--count", "1", "--json", "--dir", dir.as_str()];
        Running::start(tidegate().args(first).args(args))
    };
    assert_eq!(subscribe(&["--no-broker"]).finish().exits(4).error().0, "ambiguous");
    let subscriber = subscribe(&["--broker", &endpoint]);
    std::io::Write::write_all(&mut pipe, b"{\"id\":\"7\"}\n").expect("a reader");
    assert_eq!(subscriber.json()["record"]["id"], "7");
    subscriber.finish().exits(0);
    std::fs::remove_file(copy).expect("ours");
    drop(pipe);
    publisher.finish().exits(0);
    assert_eq!(ask("hub discover pose").exits(5).error().0, "unknown_channel");
    broker.signal(Signal::TERM);
    broker.finish().exits(0);
}

/// Without a broker records flow all the same; one that was named must be there.
#[test]
fn records_flow_without_a_broker() {
    let place = place();
    let missing = format!("ipc://{}/nobody.sock", place.path().display());
    let outcome = Running::start(&mut publisher(place.path(), &["--broker", &missing])).finish();
    assert_eq!(outcome.exits(5).error().0, "no_broker");
    let mut alone = publisher(place.path(), &["--consumers", "1", "--timeout", "20s"]);
    let mut file = tempfile::tempfile().expect("a file");
    std::io::Write::write_all(&mut file, b"{\"id\":\"7\"}\n").expect("room");
    std::io::Seek::rewind(&mut file).expect("a file");
    // Its node does not run.
    let publisher = Running::start(alone.env("TIDEGATE_DIR", place.path().join("node")).stdin(file));
    let dir = place.path().display().to_string();
    let subscriber = run(["hub", "sub", "pose", "--json", "--dir", &dir]).exits(0);
    assert_eq!(subscriber.results()[0]["record"]["id"], "7");
    publisher.finish().exits(0);
}
