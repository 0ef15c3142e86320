//! `tidegate ls`, `tidegate tensor ls`, and what holds for all commands that need a node.

use serde_json::{Value, json};

use crate::fields::assert_documented;
use crate::support::{Node, eventually, place, run};

/// Rules: TP-477.
#[test]
fn without_a_node_every_command_says_so() {
    let place = place();
    let dir = place.path().join("nothing");
    for args in [
        "ls",
        "tensor ls",
        "tensor inspect camera",
        "tensor listen qos",
        "tensor attach camera --role consumer",
        "tensor keepalive --lease 1 --stream 1 --client-id 1 --role consumer",
        "tensor detach --lease 1 --stream 1 --client-id 1 --role consumer",
        "tensor driver shutdown --token secret",
    ] {
        let args = args.split(' ').chain(["--json", "--dir", dir.to_str().expect("a path")]);
        let outcome = run(args).exits(3);
        let (code, message) = outcome.error();
        assert_eq!(code, "no_node", "{message}");
        assert!(
            message.contains(&format!("start one with `tidegate up --dir {}`", dir.display())),
            "{message}"
        );
        assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    }
}

/// Rules: TP-477.
#[test]
fn without_a_media_driver_every_command_says_so() {
    let place = place();
    let dir = place.path().to_str().expect("a path");
    for args in [
        "tensor listen control",
        "tensor attach 1 --role consumer",
        "tensor detach --lease 1 --stream 1 --client-id 1 --role consumer",
    ] {
        let outcome = run(args.split(' ').chain(["--json", "--aeron-dir", dir])).exits(3);
        assert_eq!(outcome.error().0, "no_media_driver", "{}", outcome.stderr);
    }
}

#[test]
fn wrong_usage() {
    for args in [
        "ls extra",
        "tensor ls extra",
        "tensor inspect",
        "tensor inspect camera --slots few",
        "tensor inspect shm:posix?path=/a",
        "tensor listen everything",
        "tensor listen qos --timeout soon",
        "tensor attach camera",
        "tensor attach camera --role owner",
        "tensor keepalive --lease 1 --stream 1 --role consumer",
        "tensor detach --lease x --stream 1 --client-id 1 --role consumer",
        "tensor driver shutdown",
        "tensor driver",
        "doctor --min-free lots",
    ] {
        let outcome = run(args.split(' ').chain(["--json"])).exits(2);
        assert_eq!(outcome.error().0, "usage", "{args}");
    }
}

/// Rules: TP-477.
#[test]
fn the_node_and_its_streams_are_listed() {
    let node = Node::with_leases_of(15);
    let results = node.run("ls").exits(0).results();
    assert_eq!((results.len(), &results[1]["kind"]), (2, &json!("broker")));
    assert_documented(&results[0], "tidegate ls");
    let expected = json!({ "kind": "node", "dir": node.dir(), "pid": node.pid(), "streams": 0, "leases": 0 });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&results[0][field], value, "{field}");
    }
    assert!(node.run("tensor ls").exits(0).stdout.is_empty());

    let held = |args: &str| node.run(args).exits(0).result();
    let producer = held("tensor attach camera --role producer --create --client-id 7 --timeout 5s");
    let streams = node.run("tensor ls").exits(0).results();
    assert_eq!(streams.len(), 1);
    assert_documented(&streams[0], "tidegate tensor ls");
    let values = &producer["values"];
    // 64 + 8 * 256, 64 + 8 * 4096, 64 + 8 * 65536 bytes.
    let memory = 2112 + 32832 + 524_352;
    let expected = json!({
        "kind": "stream",
        "stream": 20000,
        "name": "camera",
        "dynamic": true,
        "profile": "small",
        "epoch": values["epoch"],
        "producer": 7,
        "consumers": 0,
        "slots": 8,
        "memory_bytes": memory,
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&streams[0][field], value, "{field}");
    }
    let uri = |path: &Value| format!("shm:file?path={}", path.as_str().expect("a path"));
    assert_eq!(uri(&streams[0]["header_path"]), values["headerRegionUri"].as_str().expect("a URI"));
    assert_eq!(
        uri(&streams[0]["pools"][1]["path"]),
        values["payloadPools"][1]["regionUri"].as_str().expect("a URI")
    );
    let lease = &streams[0]["leases"][0];
    assert_eq!(
        (&lease["lease"], &lease["client"], &lease["role"]),
        (&values["leaseId"], &json!(7), &json!("producer"))
    );

    let all = node.run("ls").exits(0).results();
    assert_eq!((&all[0]["streams"], &all[0]["memory_bytes"]), (&json!(1), &json!(memory)));
    assert_documented(&all[1], "tidegate tensor ls");

    // The lease that nobody keeps alive ends by itself.
    eventually("the lease expires", || {
        let stream = node.run("tensor ls").exits(0).result();
        (stream["producer"].is_null() && stream["leases"] == json!([])).then_some(())
    });
    assert_eq!(node.run("ls").exits(0).results()[0]["leases_lost"], 1);
    node.stop();
}

#[test]
fn lists_for_people() {
    let node = Node::start();
    let dir = node.dir().to_str().expect("a path");
    let list = |args: &str| run(args.split(' ').chain(["--dir", dir])).exits(0).stdout;
    assert!(list("ls").contains("0 streams, 0 leases"), "{}", list("ls"));
    node.run("tensor attach camera --role consumer --create --client-id 9").exits(0);
    let text = list("ls");
    assert!(text.starts_with(&format!("node {dir} (pid {}", node.pid())), "{text}");
    assert!(text.contains("1 stream, "), "{text}");
    let table = list("tensor ls");
    let mut lines = table.lines();
    assert!(lines.next().is_some_and(|head| head.starts_with("STREAM  NAME    EPOCH")), "{table}");
    assert!(lines.next().is_some_and(|row| row.starts_with("20000   camera  ")), "{table}");
    node.stop();
}
