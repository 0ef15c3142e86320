//! Leases by hand, and asking a driver to end.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fields::assert_documented;
use crate::support::{Node, Running, eventually};

fn only_stream(node: &Node) -> Value {
    node.run("tensor ls").exits(0).result()
}

/// Rules: TP-242, TP-251, TP-262, TP-477.
#[test]
fn attach_keepalive_detach() {
    let node = Node::with_leases_of(50);
    let attached = node.run("tensor attach camera --role consumer --create --client-id 11").exits(0).result();
    assert_documented(&attached, "tidegate tensor attach");
    assert_eq!((&attached["message"], &attached["client"]), (&json!("ShmAttachResponse"), &json!(11)));
    let values = &attached["values"];
    assert_eq!(values["code"], json!({ "enum": "OK", "value": 0 }));
    assert_eq!((&values["headerNslots"], &values["headerSlotBytes"]), (&json!(8), &json!(256)));
    assert_eq!(values["payloadPools"].as_array().map(Vec::len), Some(2));
    let lease = values["leaseId"].as_u64().expect("a lease");

    // Time left only grows by a keepalive.
    let left = || {
        let leases = only_stream(&node)["leases"].take();
        leases[0]["expires_in_ms"].as_u64().expect("the lease is there")
    };
    let names = format!("--lease {lease} --stream camera --client-id 11 --role consumer");
    for _ in 0..2 {
        let old = eventually("the lease grows old", || Some(left()).filter(|left| *left < 9000));
        let sent = node.run(&format!("tensor keepalive {names}")).exits(0).result();
        assert_documented(&sent, "tidegate tensor keepalive");
        assert_eq!((&sent["lease"], &sent["stream"]), (&json!(lease), &json!(20000)));
        eventually("the lease is renewed", || (left() > old).then_some(()));
    }

    let detached = node.run(&format!("tensor detach {names}")).exits(0).result();
    assert_documented(&detached, "tidegate tensor decode");
    assert_eq!(detached["values"]["code"]["enum"], "OK");
    assert_eq!(only_stream(&node)["leases"], json!([]));

    // A lease that is no more.
    let outcome = node.run(&format!("tensor detach {names}")).exits(4);
    assert_eq!(outcome.result()["values"]["errorMessage"], "unknown lease");
    let (code, message) = outcome.error();
    assert_eq!(code, "refused");
    assert!(message.contains("unknown lease"), "{message}");
    node.stop();
}

/// Rules: TP-239, TP-243, TP-254.
#[test]
fn refusals_have_their_exit_codes() {
    let node = Node::with_leases_of(50);
    let holder =
        Running::start(&mut node.command("tensor attach camera --role producer --create --hold 60s"));
    assert_eq!(holder.json()["values"]["code"]["enum"], "OK");

    let second = node.run("tensor attach camera --role producer").exits(4);
    let response = second.result();
    assert_documented(&response, "tidegate tensor attach");
    assert_eq!(response["values"]["code"], json!({ "enum": "REJECTED", "value": 3 }));
    assert_eq!(response["values"]["errorMessage"], "producer already attached");
    assert_eq!(response["values"]["payloadPools"], json!([]));
    for null in ["leaseId", "streamId", "epoch", "headerNslots", "nodeId"] {
        assert!(response["values"][null].is_null(), "{response}");
    }
    assert_eq!(second.error().0, "refused");

    let by_number = node.run("tensor attach 77 --role consumer").exits(3);
    assert_eq!(by_number.result()["values"]["errorMessage"], "stream not provisioned");
    assert_eq!(by_number.error().0, "unknown_stream");
    assert_eq!(node.run("tensor attach nobody --role consumer").exits(3).error().0, "unknown_stream");
    let zero = node.run("tensor attach camera --role consumer --client-id 0").exits(1);
    assert_eq!(zero.error().0, "invalid_params");
    let huge = node.run("tensor attach camera --role consumer --hugepages yes").exits(4);
    assert_eq!(huge.result()["values"]["errorMessage"], "hugepages not available");
    let other = node.run("tensor attach camera --role consumer --node-id 5000").exits(4);
    assert_eq!(other.result()["values"]["errorMessage"], "desired node_id unavailable");
    node.run("tensor attach camera --role consumer --node-id 4294967295").exits(2);

    // Asked to stop, the holder gives its lease back.
    assert!(only_stream(&node)["producer"].is_number());
    holder.signal(Signal::TERM);
    let ended = holder.finish().exits(0);
    assert_eq!(ended.result()["message"], "ShmDetachResponse");
    assert!(only_stream(&node)["producer"].is_null());
    node.stop();
}

#[test]
fn held_leases_outlive_their_duration() {
    let node = Node::start();
    let holder =
        Running::start(&mut node.command("tensor attach camera --role consumer --create --hold 1500ms"));
    let lease = holder.json()["values"]["leaseId"].clone();
    let ended = holder.finish().exits(0);
    assert_eq!(ended.result()["values"]["code"]["enum"], "OK", "the lease of 1.6 s was still there");
    assert!(lease.is_u64());
    assert_eq!(node.run("ls").exits(0).results()[0]["leases_lost"], 0);
    node.stop();
}

#[test]
fn a_driver_that_is_stopped_does_not_answer() {
    let node = Node::start();
    node.signal(Signal::STOP);
    let outcome = node.run("tensor attach 20000 --role consumer --timeout 300ms").exits(5);
    node.signal(Signal::CONT);
    assert_eq!(outcome.error().0, "timed_out");
    node.stop();
}

/// Rules: TP-265, TP-266, TP-269.
#[test]
fn shutdown_needs_the_token() {
    let node = Node::with_policies("shutdown_token = \"open sesame\"\nshutdown_timeout_ms = 100");
    let refused = node.run("tensor driver shutdown --token wrong --timeout 500ms").exits(5);
    let (code, message) = refused.error();
    assert_eq!(code, "no_notice");
    assert!(message.contains("not supported or refused"), "{message}");
    assert!(refused.stdout.is_empty());

    let mut command = node.command("tensor driver shutdown --reason error");
    let notice = Running::start(command.env("TP_SHUTDOWN_TOKEN", "open sesame")).finish().exits(0).result();
    assert_documented(&notice, "tidegate tensor decode");
    assert_eq!(notice["message"], "ShmDriverShutdown");
    assert_eq!(notice["values"]["reason"], json!({ "enum": "ERROR", "value": 2 }));
    eventually("the node is gone", || (!node.dir().exists()).then_some(()));
}
