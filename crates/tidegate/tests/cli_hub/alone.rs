//! A broker without a node.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tidegate::hub::broker::wire::U64;

use crate::fields::assert_documented;
use crate::support::{Running, place, run, tidegate};
use crate::{SOON, block, hub, registration};

fn broker(place: &Path, more: &[&str]) -> Command {
    let mut command = tidegate();
    command.args(["hub", "broker", "run", "--json", "--runtime-dir"]).arg(place.join("run"));
    command.arg("--blocks").arg(place).args(more);
    command
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("an entry").path()).collect()
}

/// What a producer registered is listed and found, in the documented form; a clean stop leaves nothing behind.
///
/// Rules: DH-185.
#[test]
fn a_broker_lists_and_finds_what_was_registered() {
    let place = place();
    let broker = Running::start(&mut broker(place.path(), &[]));
    let ready = broker.json();
    assert_documented(&ready, "tidegate hub broker run");
    let endpoint = ready["endpoint"].as_str().expect("an endpoint");
    assert_eq!(endpoint, format!("ipc://{}/run/broker.sock", place.path().display()));
    let block = block(place.path(), "sensor.one");
    let producer = hub(endpoint, "p");
    let registered = producer.register(registration(&block), None, SOON).expect("registered");

    let ask = |args: &str| run(args.split(' ').chain(["--json", "--endpoint", endpoint]));
    let listed = ask("hub broker list sensor").exits(0).result();
    assert_documented(&listed, "tidegate hub broker list");
    assert_eq!((&listed["channel"], &listed["verified"]), (&"sensor.one".into(), &true.into()));
    assert_eq!(listed["process_key"], U64(block.own_key().word()).0.to_string());
    assert_eq!(ask("hub broker list x").exits(0).stdout, "");
    let found = ask("hub discover sensor.one").exits(0).result();
    assert_documented(&found, "tidegate hub discover");
    assert_eq!(found["shm_name"], block.descriptor().file_name());
    assert_eq!((&found["slot_stride"], &found["slot_count"]), (&128.into(), &8.into()));
    let status = ask("hub broker status").exits(0).result();
    assert_documented(&status, "tidegate hub broker status");
    assert_eq!((&status["channels"], &status["epoch"]), (&1.into(), &ready["epoch"]));
    let text = run(["hub", "broker", "list", "--endpoint", endpoint]).exits(0).stdout;
    assert!(text.contains("CHANNEL") && text.contains("PROD-test"), "{text}");

    registered.deregister(SOON).expect("taken back");
    let (code, message) = ask("hub discover sensor.one").exits(5).error();
    assert_eq!(code, "unknown_channel", "{message}");
    broker.signal(Signal::INT);
    let outcome = broker.finish().exits(0);
    assert_eq!(outcome.stdout, "");
    assert_eq!(entries(&place.path().join("run")), Vec::<PathBuf>::new());
}

/// A killed broker's sockets do not keep the next one out; a living one's do.
///
/// Rules: DH-183, DH-214.
#[test]
fn a_broker_takes_over_after_a_kill_and_knows_what_was_kept() {
    let place = place();
    let file = place.path().join("registry");
    let persist = ["--persist", file.to_str().expect("a path")];
    let first = Running::start(&mut broker(place.path(), &persist));
    let ready = first.json();
    let endpoint = ready["endpoint"].as_str().expect("an endpoint");
    let second = Running::start(&mut broker(place.path(), &[])).finish().exits(1);
    let (code, message) = second.error();
    assert!(code == "address_in_use" && message.contains("broker.sock"), "{message}");
    let block = block(place.path(), "kept");
    let producer = hub(endpoint, "p");
    drop(producer.register(registration(&block), None, SOON).expect("registered"));
    drop(producer);
    first.signal(Signal::TERM);
    first.finish().exits(0);
    assert_eq!(fs::metadata(&file).expect("a registry").permissions().mode() & 0o777, 0o600);

    let third = Running::start(&mut broker(place.path(), &persist));
    assert_ne!(third.json()["epoch"], ready["epoch"]);
    let ask = || run(["hub", "discover", "kept", "--json", "--endpoint", endpoint]);
    assert_eq!(ask().exits(0).result()["producer_alive"], true);
    third.signal(Signal::KILL);
    third.finish();
    let fourth = Running::start(&mut broker(place.path(), &persist));
    fourth.json();
    ask().exits(0);
    fourth.signal(Signal::TERM);
    fourth.finish().exits(0);
}

/// Whatever is wrong is said with its exit code, before anything is waited for.
///
/// Rules: DH-185, DH-209, DH-210, M-16, M-17.
#[test]
fn what_is_refused_says_why() {
    let place = place();
    let refused = |more: &[&str], exit: i32, expected: &str, part: &str| {
        let outcome = Running::start(&mut broker(place.path(), more)).finish().exits(exit);
        let (code, message) = outcome.error();
        assert!(code == expected && message.contains(part), "{code}: {message}");
    };
    refused(&["--endpoint", "tcp://0.0.0.0:5570", "--insecure-tcp"], 4, "endpoint_refused", "CURVE");
    refused(&["--endpoint", "tcp://127.0.0.1:5570"], 4, "endpoint_refused", "insecure_tcp");
    let long = format!("ipc://{}/{}", place.path().display(), "x".repeat(100));
    refused(&["--endpoint", &long], 4, "endpoint_refused", "107");
    refused(&["--curve-secret", "x"], 2, "usage", "--curve-clients");
    let file = |name: &str, mode: u32, text: &str| {
        let path = place.path().join("run").join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        path.display().to_string()
    };
    let keys = run(["mq", "keygen", "--json"]).exits(0).result();
    let secret = keys["secret_key"].as_str().expect("a key");
    let clients = file("clients", 0o644, "not a key\n");
    let open = file("open.key", 0o644, secret);
    refused(&["--curve-secret", &open, "--curve-clients", &clients], 6, "not_private", "chmod 600");
    let key = file("broker.key", 0o600, secret);
    refused(&["--curve-secret", &key, "--curve-clients", &clients], 1, "io", "KEY [CLIENT_ID]");
    let bad = file("bad.key", 0o600, "short");
    refused(&["--curve-secret", &bad, "--curve-clients", &clients], 2, "bad_key", "keygen");
}

/// With CURVE a listed key gets in under its name; another key, another name, and no key do not.
///
/// Rules: DH-208, M-16.
#[test]
fn a_broker_with_keys_admits_whom_it_knows() {
    let place = place();
    let dir = place.path().join("run");
    fs::create_dir(&dir).expect("a directory");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("ours");
    let pair = |name: &str| {
        let path = dir.join(name).display().to_string();
        let public = run(["mq", "keygen", "--out", &path]).exits(0).stdout.trim().to_owned();
        (path, public)
    };
    let [server, ann, bob] = ["broker.key", "ann.key", "bob.key"].map(pair);
    let clients = dir.join("clients").display().to_string();
    fs::write(&clients, format!("# who may\n{}  ann\n", ann.1)).expect("a file");
    let keys = ["--curve-secret", &server.0, "--curve-clients", &clients];
    let broker = Running::start(&mut broker(place.path(), &keys));
    let ready = broker.json();
    assert_eq!(ready["public_key"], server.1);
    let endpoint = ready["endpoint"].as_str().expect("an endpoint");
    let ask = |key: &str, id: &str| {
        let args = ["hub", "broker", "status", "--json", "--endpoint", endpoint, "--timeout", "2s"];
        run([&args[..], &["--curve-server", &server.1, "--curve-secret", key, "--client-id", id]].concat())
    };
    ask(&ann.0, "ann").exits(0);
    let (code, message) = ask(&bob.0, "bob").exits(6).error();
    assert!(code == "key_refused" && message.contains(endpoint), "{code}: {message}");
    assert_eq!(ask(&ann.0, "bob").exits(6).error().0, "auth_failed");
    let args = ["hub", "broker", "status", "--json", "--endpoint", endpoint, "--timeout", "2s"];
    let outcome = run(args);
    assert!(matches!(outcome.code, Some(5 | 6)), "{outcome:?}");
    broker.signal(Signal::TERM);
    broker.finish().exits(0);
}

/// Rules: DH-177, DH-179, DH-196.
#[test]
fn discovery_waits_only_when_told_and_names_both_schemas() {
    let place = place();
    let broker = Running::start(&mut broker(place.path(), &[]));
    let ready = broker.json();
    let endpoint = ready["endpoint"].as_str().expect("an endpoint").to_owned();
    let waiting = Running::start(tidegate().args([
        "hub",
        "discover",
        "late",
        "--json",
        "--wait",
        "20s",
        "--endpoint",
        &endpoint,
    ]));
    let ask = |args: &[&str]| {
        run([&["hub", "discover", "late", "--json", "--endpoint", &endpoint][..], args].concat())
    };
    ask(&[]).exits(5);
    let block = block(place.path(), "late");
    let producer = hub(&endpoint, "p");
    let _registered = producer.register(registration(&block), None, SOON).expect("registered");
    assert_eq!(waiting.finish().exits(0).result()["shm_name"], block.descriptor().file_name());
    let hash = "ab".repeat(32);
    let expecting = ["--schema-hash", &hash, "--schema-version", "0.0"];
    let (code, message) = ask(&expecting).exits(7).error();
    let zeros = "00".repeat(32);
    assert!(code == "schema_mismatch" && message.contains(&hash) && message.contains(&zeros), "{message}");
    ask(&["--schema-hash", "zz", "--schema-version", "1.0"]).exits(2);
    run(["hub", "discover", "Bad Name", "--endpoint", &endpoint]).exits(2);
}

/// No broker anywhere: said with what to do, and found nowhere by accident.
#[test]
fn without_a_broker_every_command_says_so() {
    let place = place();
    for args in ["hub broker status", "hub broker list", "hub discover a"] {
        let mut command = tidegate();
        command.args(args.split(' ')).args(["--json", "--dir"]).arg(place.path().join("no-node"));
        command.env("XDG_RUNTIME_DIR", place.path());
        let outcome = Running::start(&mut command).finish().exits(5);
        let (code, message) = outcome.error();
        assert!(code == "no_broker" && message.contains("tidegate up"), "{code}: {message}");
    }
    let nobody = format!("ipc://{}/nobody.sock", place.path().display());
    let outcome = run(["hub", "broker", "status", "--json", "--timeout", "300ms", "--endpoint", &nobody]);
    assert_eq!(outcome.exits(5).error().0, "no_broker");
}
