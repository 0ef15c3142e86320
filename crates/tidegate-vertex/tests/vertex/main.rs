//! A vertex with real worker processes: this binary started again, as a function that works, fails, dies, hangs or lies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod crashes;
mod dead_letters;
mod disk;
mod epochs;
mod failures;
mod functions;
mod garbage;
mod hostile;
#[cfg(feature = "hub")]
mod hub;
mod outside;
mod ownership;
mod pressure;
mod python;
mod restarts;
mod schemas;
#[cfg(feature = "zmq")]
mod sockets;
mod world;

use std::collections::BTreeMap;

use tidegate_udf::{WorkerError, worker};
use world::World;

/// What every worker runs; in a test run it shows that nothing is taken from a process that no runtime started.
/// Rules: VX-500.
#[test]
fn worker_process() {
    match functions::role() {
        Some(role) => functions::run(&role),
        None => {
            let refused = worker().map("none", |_, _, _| tidegate_udf::Outcome::ok()).run();
            assert!(matches!(refused, Err(WorkerError::NotManaged)), "{refused:?}");
        }
    }
}

/// Rules: VX-010, VX-210, VX-220, VX-440, VX-443.
#[test]
fn what_goes_in_comes_out_once_and_in_the_order_of_its_partition() {
    let world = World::new();
    let report = world.run("upper", "workers = 2", GENERATOR).unwrap();
    assert_eq!((report.read, report.delivered, report.returned), (4_000, 4_000, 0));
    let mut next = BTreeMap::new();
    for line in world.lines() {
        let (partition, position) = line.strip_prefix("UPPER ").unwrap().split_once(':').unwrap();
        let expected = next.entry(partition.to_owned()).or_insert(0u64);
        assert_eq!(position.parse::<u64>().unwrap(), *expected, "partition {partition}");
        *expected += 1;
    }
    assert_eq!(next.into_values().collect::<Vec<_>>(), [1_000; 4]);
}

const GENERATOR: &str = "kind = \"generator\"\npartitions = 4\nrecords = 1000";

/// Rules: VX-861.
#[test]
fn lines_of_a_file_are_records() {
    let world = World::new();
    world.write("input", "one\n\nthree\nlast without newline");
    let report = world.run("upper", "", &world.file_source("input")).unwrap();
    assert_eq!((report.read, report.delivered), (4, 4));
    assert_eq!(world.lines(), ["UPPER ONE", "UPPER ", "UPPER THREE", "UPPER LAST WITHOUT NEWLINE"]);
}

/// Answers far longer than their requests, in a ring that holds a few of them.
/// Cases: CT-11.
/// Rules: VX-213, VX-304, VX-401.
#[test]
fn answers_come_in_as_many_fragments_as_they_need() {
    let world = World::new();
    let report = world.run("hundred", "", "kind = \"generator\"\nrecords = 300\nbytes = \"200B\"").unwrap();
    assert_eq!((report.delivered, report.outputs), (300, 30_000));
    let lines = world.lines();
    for (index, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("0:{}.", index / 100)), "line {index}");
    }
    assert_eq!(lines.len(), 30_000);
}

/// Each kind of function over the same inputs.
/// Rules: VX-401, VX-500.
#[test]
fn every_kind_of_function_runs() {
    for (role, expected) in [
        ("filter", (0..200u64).filter(|n| n % 3 == 0).map(|n| format!("0:{n}")).collect::<Vec<_>>()),
        ("flat map", (0..200).flat_map(|n| ["0".to_owned(), n.to_string()]).collect()),
        ("batch map", (0..200).filter(|n| n % 3 == 0).map(|n| format!("UPPER 0:{n}")).collect()),
    ] {
        let world = World::new();
        let report = world.run(role, "", "kind = \"generator\"\nrecords = 200").unwrap();
        assert_eq!((report.read, report.outputs), (200, expected.len() as u64), "{role}");
        assert_eq!(world.lines(), expected, "{role}");
    }
}

/// One that fails on a batch as a whole costs no worker, and one input.
/// Cases: CT-21.
/// Rules: VX-610, VX-611.
#[test]
fn a_batch_on_which_a_function_fails_is_split_until_one_input_is_left() {
    for role in ["batch fails on 123", "batch panics on 123"] {
        let world = World::new();
        let retry = "retry = { on_exhausted = \"drop\", initial = \"1ms\" }";
        let report = world.run(role, retry, "kind = \"generator\"\nrecords = 1000").unwrap();
        assert_eq!((report.dropped, report.delivered, report.restarts), (1, 999, 0), "{role}");
        let expected: Vec<_> = (0..1000).filter(|&n| n != 123).map(|n| format!("UPPER 0:{n}")).collect();
        assert_eq!(world.lines(), expected, "{role}");
    }
}

/// Rules: VX-003, VX-743.
#[test]
fn what_the_function_leaves_out_is_counted() {
    let world = World::new();
    let report = world.run("odd", "", "kind = \"generator\"\nrecords = 1001").unwrap();
    assert_eq!((report.read, report.delivered, report.filtered, report.returned), (1_001, 500, 501, 0));
    assert_eq!(world.lines().len(), 500);
}

/// What is not told yet when the vertex ends is told at the end.
/// Rules: VX-501.
#[test]
fn what_a_function_counts_is_counted_over_all_its_workers() {
    let world = World::new();
    let report = world.run("count and log", "workers = 2", GENERATOR).unwrap();
    let bytes: u64 = world.lines().iter().map(|line| line.len() as u64 - "UPPER ".len() as u64).sum();
    let expected = [("bytes_of_values".to_owned(), bytes), ("inputs".to_owned(), 4_000)];
    assert_eq!(report.counters, expected.into());
}

/// Rules: VX-402, VX-841.
#[test]
fn outputs_go_to_the_sinks_of_their_routes() {
    let world = World::new();
    let dir = world.path("");
    let sink =
        |name: &str| format!("[[sink]]\nname = {name:?}\nkind = \"file\"\npath = {:?}\n", dir.join(name));
    let sinks = sink("first") + &sink("second");
    let source = "kind = \"generator\"\nrecords = 300";
    let text = world::of(&dir, "at_least_once", "by thirds", "", source, &sinks);
    let report = tidegate_vertex::run::Vertex::start(text.parse().unwrap()).unwrap().run().unwrap();
    assert_eq!((report.delivered, report.outputs), (300, 400));
    for (name, without) in [("first", 1), ("second", 0)] {
        let expected: Vec<String> = (0..300).filter(|n| n % 3 != without).map(|n| format!("0:{n}")).collect();
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        assert!(text.lines().eq(expected.iter().map(String::as_str)), "{name}: {text}");
    }
}
