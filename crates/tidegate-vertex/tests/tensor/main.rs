//! The ends of a vertex in tensor streams: a driver, producers and readers on one in-memory bus, each with a thread of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "../idle/mod.rs"]
mod idle;
mod reading;
mod stage;
mod writing;

use std::{thread, time::Duration};

use tidegate_vertex::{config::Pipeline, source::Source};

use crate::stage::*;

/// A source whose stream brings nothing, and the keeper of a sink's lease; what comes then is read.
/// Rules: VX-323, VX-904.
#[test]
fn ends_that_have_nothing_to_do_wake_seldom() {
    let stage = Stage::new();
    let mut writing = stage.writing(FOUR).unwrap();
    let mut reading = stage.reading("");
    reading.source.open(ONLY, None).unwrap();
    // For a second it looks often.
    thread::sleep(Duration::from_secs(2));
    for thread in ["tensor source", "vertex"] {
        let (woken, most) = idle::idle_wakeups(thread);
        assert!(woken <= most, "{thread}: {woken} times, at most {most}");
    }
    writing.publish(&outputs(7..8)).unwrap();
    assert_eq!(numbers(&reading.take(1)), [7]);
}

/// The keys of a pipeline with both ends.
/// Rules: VX-001, VX-002, VX-855.
#[test]
fn a_pipeline_names_its_streams_and_what_they_promise() {
    let text = |delivery: &str, shape: &str| {
        format!(
            "version = 1
            [pipeline]
            name = \"a\"
            uid = \"00000000000000aa\"
            delivery = {delivery:?}
            [udf]
            command = [\"worker\"]
            [source]
            kind = \"tensor\"
            stream = \"cam\"
            dir = \"/tmp/node\"
            [[sink]]
            name = \"main\"
            kind = \"tensor\"
            stream = 20001
            dtype = \"<f4\"
            shape = {shape}
            allow_duplicates = true
            [ledger]
            path = \"/tmp/ledger\""
        )
    };
    let mut pipeline: Pipeline = text("at_least_once", "[4, 4]").parse().unwrap();
    let named: Vec<_> = pipeline
        .streams()
        .map(|end| (end.stream.name.to_string(), end.dir.map(|dir| dir.display().to_string()), end.writes))
        .collect();
    let expected =
        [("'cam'".to_owned(), Some("/tmp/node".to_owned()), false), ("20001".to_owned(), None, true)];
    assert_eq!(named, expected);
    let promise = pipeline.source.promise();
    assert!(promise.contains("at most once") && promise.contains("lost and counted"), "{promise}");
    let refused = text("effectively_once", "[4, 4]").parse::<Pipeline>().unwrap_err().to_string();
    assert!(refused.contains("a source that can be read again"), "{refused}");
    for shape in ["[]", "[1, 1, 1, 1, 1, 1, 1, 1, 1]", "[65536, 65536]"] {
        let refused = text("at_least_once", shape).parse::<Pipeline>().unwrap_err().to_string();
        assert!(refused.contains("sink.shape is") && refused.contains("of float32"), "{refused}");
    }
}
