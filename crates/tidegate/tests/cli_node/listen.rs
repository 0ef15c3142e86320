//! `tidegate tensor listen` beside a running publisher and subscriber.

use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate::tensor::channel::Channel;
use tidegate::tensor::ids::AeronStreamId;
use tidegate::tensor::transport::aeron::AeronConnector;
use tidegate::tensor::transport::{Connector, Publication, Transport};

use crate::fields::{assert_documented, assert_documented_without};
use crate::support::{Node, Running, eventually, run};

/// A publisher of one small frame over and over, until dropped.
fn publish(node: &Node, name: &str) -> Running {
    let file = node.place().join("frame.raw");
    std::fs::write(&file, [7; 64]).expect("a frame");
    let mut command =
        node.command(&format!("tensor pub {name} --dtype uint8 --shape 8x8 --rate 50 --loop forever"));
    let publisher = Running::start(command.arg("--input").arg(file));
    let attached = publisher.json();
    assert_documented(&attached, "tidegate tensor pub");
    assert_eq!(attached["attached"], true);
    publisher
}

/// The first message of this name.
fn until(listener: &Running, message: &str) -> Value {
    loop {
        let line = listener.json();
        assert!(line["error"].is_null(), "{line}");
        if line["message"] == message {
            return line;
        }
    }
}

/// Rules: TP-241, TP-477.
#[test]
fn announces_descriptors_and_qos_of_a_running_stream() {
    let node = Node::start();
    let control = Running::start(&mut node.command("tensor listen control"));
    control.wait_for_log("stream=1001");
    let publisher = publish(&node, "camera");

    // Both streams: the driver's messages and its announces.
    let attach = until(&control, "ShmAttachRequest");
    assert_documented_without(&attach, "tidegate tensor listen", &["hex"]);
    assert_eq!((&attach["schema"], &attach["stream_id"]), (&json!("driver"), &json!(1000)));
    assert_eq!(attach["values"]["role"]["enum"], "PRODUCER");
    let response = until(&control, "ShmAttachResponse");
    assert_eq!(response["values"]["correlationId"], attach["values"]["correlationId"]);
    let announce = until(&control, "ShmPoolAnnounce");
    assert_eq!((&announce["schema"], &announce["stream_id"]), (&json!("wire"), &json!(1001)));
    assert_eq!(announce["values"]["epoch"], response["values"]["epoch"]);
    let sent = announce["values"]["announceTimestampNs"].as_u64().expect("a time");
    let received = announce["received_ns"].as_u64().expect("a time");
    assert!(sent <= received && received - sent < 30_000_000_000, "one clock: {announce}");

    let subscriber = Running::start(&mut node.command("tensor sub camera"));
    let frame = subscriber.json();
    assert_documented(&frame, "tidegate tensor sub");
    let listened = node.run("tensor listen descriptor --count 3 --raw --timeout 10s").exits(0).results();
    assert_eq!(listened.len(), 3);
    for (line, next) in listened.iter().zip(listened.iter().skip(1)) {
        assert_documented(line, "tidegate tensor listen");
        let seq = |line: &Value| line["values"]["seq"].as_u64().expect("a sequence");
        assert!(seq(line) > frame["seq"].as_u64().expect("a sequence"), "{line}");
        assert_eq!(seq(next), seq(line) + 1);
        // The bytes are those of the message.
        let digits = line["hex"].as_str().expect("digits");
        let decoded = run(["tensor", "decode", "--json", digits]).exits(0).result();
        assert_eq!((&decoded["message"], &decoded["values"]), (&line["message"], &line["values"]));
    }

    let qos = Running::start(&mut node.command("tensor listen qos"));
    let producer = until(&qos, "QosProducer");
    let consumer = until(&qos, "QosConsumer");
    assert_eq!(producer["values"]["streamId"], consumer["values"]["streamId"]);
    assert_eq!(producer["values"]["epoch"], consumer["values"]["epoch"]);

    // Interrupted, a listener ends well.
    for listener in [control, qos] {
        listener.signal(Signal::INT);
        listener.finish().exits(0);
    }
    for (process, heading) in [(subscriber, "The end of a subscription"), (publisher, "The end")] {
        process.signal(Signal::INT);
        let results = process.finish().exits(0).results();
        assert_documented(results.last().expect("a summary"), heading);
    }
    node.stop();
}

#[test]
fn silence_ends_in_a_timeout() {
    let node = Node::start();
    let outcome = node.run("tensor listen descriptor --count 2 --timeout 300ms").exits(5);
    let (code, message) = outcome.error();
    assert_eq!(code, "timed_out");
    assert!(message.contains("no message for 300ms, after 0 of 2"), "{message}");
    assert!(outcome.stdout.is_empty());
    node.stop();
}

/// Bytes that are no message are shown, and do not end the command.
#[test]
fn undecodable_messages_are_reported() {
    let node = Node::start();
    let mut tap = Tap::open(&node);
    let listener = Running::start(&mut node.command("tensor listen metadata --count 3 --timeout 20s"));
    listener.wait_for_log("stream=1300");
    // Too short for a header, a foreign schema, and a QosConsumer cut in its block.
    tap.send(&[1, 2]);
    tap.send(&[0, 0, 1, 0, 1, 0, 1, 0]);
    tap.send(&[0x29, 0, 5, 0, 0x84, 3, 1, 0, 1, 0, 0, 0]);
    let outcome = listener.finish().exits(0);
    let results = outcome.results();
    let codes: Vec<&Value> = results.iter().map(|result| &result["error"]["code"]).collect();
    assert_eq!(codes, ["malformed", "foreign", "malformed"]);
    for result in &results {
        assert_documented(result, "Bytes that are no message");
        assert_eq!(result["stream_id"], 1300);
    }
    assert_eq!(results[0]["hex"], "0102");
    drop(tap);
    node.stop();
}

/// A publication of any bytes on the metadata stream of a node.
struct Tap {
    /// Before its connection, so that it is closed first.
    publication: Box<dyn Publication>,
    _transport: Box<dyn Transport>,
}

impl Tap {
    fn open(node: &Node) -> Self {
        let transport = AeronConnector::new(node.dir().join("aeron")).connect().expect("the media driver");
        let channel = Channel::parse("aeron:ipc").expect("a channel");
        let mut pending = transport.publication(&channel, AeronStreamId::new(1300)).expect("a request");
        let publication = eventually("a publication", || pending.poll().expect("it is opened"));
        Self { publication, _transport: transport }
    }

    fn send(&mut self, bytes: &[u8]) {
        eventually("the listener takes it", || self.publication.offer(bytes).ok());
    }
}
