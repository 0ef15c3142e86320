//! What can go wrong: each has its exit code, its word, the endpoint and a remedy.

use crate::{bound, run};

const ANY: &str = "tcp://127.0.0.1:*";

#[track_caller]
fn fails(args: &[&str], stdin: &str, code: i32, word: &str, parts: &[&str]) {
    let args = [args, &["--json"]].concat();
    let (found, message) = run(&args, stdin).exits(code).error();
    assert_eq!(found, word, "{message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

/// An endpoint at which nobody listens: bound and left by a process that has ended.
fn nobody() -> String {
    let (pull, endpoint) = bound(&["pull", "--bind", ANY, "--count", "0"], "");
    pull.finish().exits(0);
    endpoint
}

#[test]
fn endpoints_that_cannot_be() {
    fails(&["pull", "--bind", "tpc://*:1"], "", 2, "bad_endpoint", &["tpc://*:1", "tcp://"]);
    fails(&["pull", "--connect", "inproc://x"], "", 2, "usage", &["inproc://x", "tcp://"]);
    fails(&["pull", "--connect", "localhost"], "", 2, "bad_endpoint", &["localhost", "tcp://"]);
    fails(&["pull", "--connect", "tcp://localhost"], "", 2, "bad_endpoint", &["tcp://localhost"]);
    fails(&["pull", "--bind", "ipc:///no/such/place/at/all"], "", 3, "not_found", &["ipc:///no/such/place"]);
    fails(&["pull", "--bind", "tcp://192.0.2.1:0"], "", 3, "no_such_address", &["192.0.2.1", "ip address"]);
    assert_eq!(run(&["pull"], "").code, Some(2));
}

#[test]
fn a_port_in_use() {
    let (_pull, endpoint) = bound(&["pull", "--bind", ANY], "");
    fails(&["pull", "--bind", &endpoint], "", 1, "address_in_use", &[&endpoint, "choose another"]);
}

#[test]
fn a_missing_peer() {
    let endpoint = nobody();
    let parts = [endpoint.as_str(), "start the peer"];
    fails(&["push", "--connect", &endpoint, "--timeout", "300ms"], "\"one\"\n", 5, "timed_out", &parts);
    fails(&["pull", "--connect", &endpoint, "--timeout", "300ms"], "", 5, "timed_out", &parts);
    fails(&["req", "--connect", &endpoint, "--timeout", "300ms"], "\"one\"\n", 5, "timed_out", &parts);
    fails(
        &["pub", "--bind", ANY, "--timeout", "300ms"],
        "\"one\"\n",
        5,
        "timed_out",
        &["subscribers", "no peer"],
    );
    fails(&["dealer", "--connect", &endpoint, "--timeout", "300ms"], "\"one\"\n", 5, "timed_out", &parts);
}

/// Who waits without an end is told what for, when he asks for more words.
#[test]
fn a_missing_peer_is_told_of() {
    let endpoint = nobody();
    let found = run(&["pull", "--connect", &endpoint, "--timeout", "1s", "-v"], "").exits(5);
    let told = found.stderr.lines().filter(|line| line.contains("not connected, trying on")).count();
    assert_eq!(told, 1, "{}", found.stderr);
}

/// What is there and no file of keys stays.
#[test]
fn a_key_replaces_nothing_but_a_file() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let name = path.display().to_string();
    fails(&["keygen", "--out", &name, "--force"], "", 4, "exists", &[&name, "no file"]);
    assert!(!path.metadata().expect("it is there").is_file());
}

#[test]
fn a_full_queue() {
    // Connected, but never reading: a monitor.
    let (_stuck, endpoint) = bound(&["monitor", "pull", "--bind", ANY, "--hwm", "1"], "");
    let line = format!("\"{}\"\n", "x".repeat(1 << 16));
    let args = ["push", "--connect", &endpoint, "--hwm", "1", "--timeout", "500ms"];
    fails(&args, &line.repeat(512), 5, "timed_out", &[&endpoint, "queue is full"]);
}

#[test]
fn input_that_is_no_message() {
    let endpoint = nobody();
    let connect = ["--connect", endpoint.as_str()];
    let push = |more: &[&str], stdin: &str| {
        let outcome = run(&[&["push"][..], &connect, more].concat(), stdin).exits(1);
        outcome.stderr
    };
    assert!(push(&[], "C:\\dir\n").contains("message 1 of standard input: \\d is no escape"));
    assert!(push(&["--frames"], "\0\0").contains("ends within a message"));
    fails(&["push", "--connect", &endpoint], "{}\n", 1, "bad_input", &["message 1", "base64"]);
}

#[test]
fn a_name_that_nobody_has() {
    fails(&["router", "--bind", ANY], "[\"nobody\",\"hello\"]\n", 3, "no_peer", &["\"nobody\""]);
}

#[test]
fn a_host_without_an_address() {
    let args = ["push", "--connect", "tcp://no.such.host.invalid:5555", "--timeout", "2s"];
    fails(&args, "\"one\"\n", 5, "timed_out", &["no.such.host.invalid", "cannot be resolved"]);
}

#[test]
fn types_that_do_not_go_together() {
    let (_pull, endpoint) = bound(&["pull", "--bind", ANY], "");
    fails(&["sub", "--connect", &endpoint], "", 4, "refused", &[&endpoint, "SUB", "PULL"]);
}

/// Not even a reason that says more than it knows: somebody is connected.
#[test]
fn what_is_left_unsent_at_the_end() {
    let (_stuck, endpoint) = bound(&["monitor", "pull", "--bind", ANY, "--hwm", "1"], "");
    let line = format!("\"{}\"\n", "x".repeat(1 << 16));
    let args = ["push", "--connect", &endpoint, "--hwm", "0", "--linger", "300ms"];
    fails(&args, &line.repeat(512), 5, "unsent", &["messages were not sent", "a peer is connected"]);
}

#[test]
fn a_topic_that_nobody_wants() {
    let (_sub, endpoint) = bound(&["sub", "--bind", ANY, "--subscribe", "weather"], "");
    let args = ["pub", "--connect", &endpoint, "--timeout", "1s"];
    fails(&args, "\"news\"\n", 5, "timed_out", &["subscribers", "news"]);
}

/// Keys, topics and texts may begin with a hyphen.
#[test]
fn arguments_that_look_like_options() {
    let (rep, endpoint) = bound(&["rep", "--bind", ANY, "--reply", "-1", "--count", "1"], "");
    assert_eq!(run(&["req", "--connect", &endpoint], "ask\n").exits(0).stdout, "-1\n");
    rep.finish().exits(0);
    fails(
        &["sub", "--connect", &nobody(), "--subscribe", "-1", "--timeout", "200ms"],
        "",
        5,
        "timed_out",
        &[],
    );
    let place = tempfile::tempdir().expect("a directory");
    let secret = place.path().join("key").display().to_string();
    run(&["keygen", "--out", &secret], "").exits(0);
    let key = format!("-{}", "0".repeat(39));
    let args = ["pull", "--bind", ANY, "--count", "0", "--curve-secret", &secret];
    run(&[&args[..], &["--curve-allow", &key]].concat(), "").exits(0);
}

#[test]
fn lists_that_admit_nobody() {
    let place = tempfile::tempdir().expect("a directory");
    let path = |name: &str| place.path().join(name).display().to_string();
    let (secret, empty) = (path("key"), path("empty"));
    run(&["keygen", "--out", &secret], "").exits(0);
    std::fs::write(&empty, "\n").expect("a file");
    let args = ["pull", "--bind", ANY, "--curve-secret", &secret, "--curve-allow", &empty];
    fails(&args, "", 2, "usage", &[&empty, "no key"]);
    fails(&["pull", "--bind", ANY, "--plain-users", &empty], "", 2, "usage", &[&empty, "no user"]);
}
