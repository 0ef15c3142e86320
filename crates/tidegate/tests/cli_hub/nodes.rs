//! The broker of a node.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fields::assert_documented;
use crate::support::{Node, Outcome, Running, eventually, place, run, tidegate};
use crate::{SOON, block, hub, registration};

fn doctor(shm: &Path, args: &[&str]) -> Outcome {
    let mut command = tidegate();
    command.args(["doctor", "--json", "--min-free", "0", "--shm"]).arg(shm).args(args);
    Running::start(&mut command).finish()
}

fn brokers(outcome: &Outcome) -> Vec<Value> {
    outcome.results().into_iter().filter(|finding| finding["check"] == "broker").collect()
}

fn node(place: &Path, config: &str) -> Running {
    let file = place.join("node.toml");
    fs::write(&file, config).expect("a configuration");
    Running::start(
        tidegate()
            .args(["--json", "up", "--config"])
            .arg(&file)
            .arg("--dir")
            .arg(place.join("tidegate-node")),
    )
}

/// A configuration of a node with this table `[hub.broker]`.
fn with_broker(place: &Path, broker: &str) -> String {
    let base = place.display();
    format!(
        "[driver]\nannounce_stream_id = 1001\nstream_id_range = [\"20000-20099\"]\n\
         [shm]\nbase_dir = \"{base}\"\nallowed_base_dirs = [\"{base}\"]\n\
         [policies]\nallow_dynamic_streams = true\ncleanup_shm_on_exit = true\n\
         [profiles.small]\nheader_nslots = 8\npayload_pools = [{{ pool_id = 1, stride_bytes = 4096 }}]\n\
         [hub.broker]\n{broker}\n"
    )
}

/// Commands find the broker of a node without an address; `ls` and `doctor` show it with its channels; a stop leaves
/// nothing behind.
#[test]
fn a_node_has_a_broker_that_commands_find() {
    let place = place();
    let node =
        node(place.path(), &with_broker(place.path(), &format!("blocks = \"{}\"", place.path().display())));
    let ready = node.json();
    assert_documented(&ready, "tidegate up");
    let dir = ready["dir"].as_str().expect("a directory").to_owned();
    let endpoint = format!("ipc://{dir}/hub/broker.sock");
    assert_eq!(ready["broker"], endpoint);
    let block = block(place.path(), "camera.left");
    let producer = hub(&endpoint, "p");
    let _registered = producer.register(registration(&block), None, SOON).expect("registered");

    let here = |args: &str| run(args.split(' ').chain(["--json", "--dir", &dir]));
    assert_eq!(
        here("hub discover camera.left").exits(0).result()["shm_name"],
        block.descriptor().file_name()
    );
    let by_variable =
        Running::start(tidegate().args(["hub", "broker", "list", "--json"]).env("TIDEGATE_DIR", &dir));
    assert_eq!(by_variable.finish().exits(0).result()["channel"], "camera.left");
    let shown = here("ls").exits(0).results();
    let of_kind =
        |kind: &str| -> Vec<&Value> { shown.iter().filter(|value| value["kind"] == kind).collect() };
    let [broker] = of_kind("broker")[..] else { panic!("{shown:?}") };
    assert_documented(broker, "Broker of `tidegate ls`");
    assert_eq!((&broker["answers"], &broker["channels"]), (&json!(true), &json!(1)));
    let [channel] = of_kind("channel")[..] else { panic!("{shown:?}") };
    assert_documented(channel, "tidegate hub broker list");
    let text = run(["ls", "--dir", &dir]).exits(0).stdout;
    assert!(text.contains(&endpoint) && text.contains("camera.left"), "{text}");

    let healthy = doctor(place.path(), &[]).exits(0);
    let found = brokers(&healthy);
    let [finding] = &found[..] else { panic!("{healthy:?}") };
    assert!(finding["message"].as_str().is_some_and(|text| text.contains("1 channel")), "{finding}");

    node.signal(Signal::TERM);
    node.finish().exits(0);
    assert!(!Path::new(&dir).exists(), "{:?}", fs::read_dir(&dir).map(Iterator::collect::<Vec<_>>));
    assert_eq!(here("hub broker status").exits(5).error().0, "no_broker");
}

/// What a killed node leaves of its broker names nobody, is taken over by the next node, and is removed by `doctor`.
#[test]
fn a_killed_node_leaves_no_broker_behind() {
    let place = place();
    let up = || {
        let dir = place.path().join("tidegate-node");
        let node = Running::start(tidegate().args(["--json", "up", "--dir"]).arg(&dir));
        (node.json()["broker"].as_str().expect("a broker").to_owned(), node, dir)
    };
    let (_, node, dir) = up();
    node.signal(Signal::KILL);
    node.finish();
    assert!(dir.join("broker.json").exists() && dir.join("hub/broker.sock").exists());
    let ask = || run(["hub", "broker", "status", "--json", "--dir", dir.to_str().expect("a path")]);
    assert_eq!(ask().exits(5).error().0, "no_broker");
    let (_, node, _) = up();
    ask().exits(0);
    node.signal(Signal::KILL);
    node.finish();
    doctor(place.path(), &["--fix"]).exits(0);
    assert!(!dir.exists(), "{:?}", fs::read_dir(&dir).map(Iterator::collect::<Vec<_>>));
}

/// The table `[hub.broker]`: a node without a broker, and keys that are not known.
#[test]
fn the_broker_is_configured_in_the_node_s_file() {
    let place = place();
    let node_without = node(place.path(), &with_broker(place.path(), "enabled = false"));
    let ready = node_without.json();
    assert_eq!(ready["broker"], Value::Null);
    let dir = ready["dir"].as_str().expect("a directory").to_owned();
    assert!(!Path::new(&dir).join("broker.json").exists());
    assert!(
        run(["ls", "--json", "--dir", &dir]).exits(0).results().iter().all(|shown| shown["kind"] != "broker")
    );
    assert_eq!(brokers(&doctor(place.path(), &[]).exits(0)), Vec::<Value>::new());
    node_without.signal(Signal::TERM);
    node_without.finish().exits(0);

    let wrong = node(place.path(), &with_broker(place.path(), "colour = 1")).finish().exits(2);
    assert!(wrong.error().1.contains("colour"), "{wrong:?}");
    let open = with_broker(place.path(), "endpoint = \"tcp://0.0.0.0:5570\"");
    let (code, message) = node(place.path(), &open).finish().exits(4).error();
    assert!(code == "broker" && message.contains("CURVE"), "{message}");
    assert!(!Path::new(&dir).exists(), "nothing is left behind by a failed start");
}

/// A broker that is stopped with its node is named by `doctor`; data channels are not its business.
#[test]
fn a_stopped_node_does_not_hide_its_broker() {
    let node = Node::start();
    node.signal(Signal::STOP);
    let outcome = doctor(node.place(), &[]).exits(1);
    // The node itself is the problem that is told.
    assert_eq!(brokers(&outcome), Vec::<Value>::new());
    node.signal(Signal::CONT);
    // The tensor driver may have to find the media driver again.
    let healthy = eventually("all is well", || {
        let outcome = doctor(node.place(), &[]);
        (outcome.code == Some(0)).then_some(outcome)
    });
    assert_eq!(brokers(&healthy).len(), 1);
    node.stop();
}
