//! Workers and functions that fail: nothing is lost, nothing is doubled, and what cannot be processed is named.

use std::{
    fs,
    time::{Duration, Instant},
};

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    process::{ProcessHandle, ProcessId},
};
use tidegate_vertex::run::{Vertex, VertexError};

use crate::world::{World, pipeline, runtime, runtime_place};

const MANY: &str = "kind = \"generator\"\nrecords = 3000";

/// What the sink has when all inputs below `end` but these are delivered once.
fn expected(end: u64, without: &[u64]) -> Vec<String> {
    (0..end).filter(|n| !without.contains(n)).map(|position| format!("UPPER 0:{position}")).collect()
}

/// Cases: CT-04, CT-16.
/// Rules: VX-430, VX-432, VX-435, VX-436.
#[test]
fn a_worker_that_dies_loses_and_doubles_nothing() {
    let world = World::new();
    let report = world.run("die once", "", MANY).unwrap();
    assert!(world.path("died").exists());
    assert_eq!((report.restarts, report.delivered), (1, 3_000));
    assert_eq!(world.lines(), expected(3_000, &[]));
}

/// Cases: CT-21.
/// Rules: VX-610, VX-611.
#[test]
fn an_input_that_kills_its_worker_is_found_and_left_out() {
    let world = World::new();
    let retry = "retry = { on_exhausted = \"drop\", initial = \"1ms\" }";
    let mut pipeline = world.pipeline("die on 123", retry, "kind = \"generator\"\nrecords = 200");
    // The delay between starts doubles, and each half of a batch costs two.
    pipeline.batch.max_records = std::num::NonZeroU32::new(4).unwrap();
    let report = Vertex::start(pipeline).unwrap().run().unwrap();
    assert_eq!((report.dropped, report.delivered), (1, 199));
    assert_eq!(world.lines(), expected(200, &[123]));
}

/// Cases: CT-19, CT-58.
/// Rules: VX-434, VX-611.
#[test]
fn a_worker_that_hangs_is_ended_by_the_clock_of_the_runtime() {
    let world = World::new();
    // Long enough for a worker that only waits for a processor.
    let udf = "batch_timeout = \"2s\"\nretry = { on_exhausted = \"drop\", initial = \"1ms\" }";
    let mut pipeline = world.pipeline("hang on 123", udf, "kind = \"generator\"\nrecords = 125");
    pipeline.batch.max_records = std::num::NonZeroU32::new(2).unwrap();
    let report = Vertex::start(pipeline).unwrap().run().unwrap();
    assert_eq!((report.dropped, report.delivered), (1, 124));
    assert_eq!(world.lines(), expected(125, &[123]));
    assert!(fs::metadata(world.path("hangs")).unwrap().len() > 0);
}

/// Rules: VX-600, VX-601.
#[test]
fn an_input_that_fails_for_a_while_holds_its_place() {
    let world = World::new();
    let report = world.run("fail twice", "retry = { initial = \"1ms\" }", MANY).unwrap();
    assert_eq!((report.delivered, report.restarts), (3_000, 0));
    assert_eq!(world.lines(), expected(3_000, &[]));
}

/// Rules: VX-502, VX-601.
#[test]
fn an_input_that_panics_always_stops_its_partition() {
    let world = World::new();
    let report = world.run("panic on 123", "retry = { initial = \"1ms\" }", MANY).unwrap();
    let [(partition, position, reason)] = report.stopped.as_slice() else { panic!("{report:?}") };
    assert_eq!((*partition, *position), (0, 123));
    assert!(reason.contains("panicked") && reason.contains("123"), "{reason}");
    assert_eq!(world.lines(), expected(123, &[]));
    assert!(report.returned > 0 && report.restarts == 0);
}

/// Rules: VX-402.
#[test]
fn an_output_for_a_route_that_there_is_not_rejects_its_input() {
    let world = World::new();
    let retry = "retry = { on_exhausted = \"drop\" }";
    let report = world.run("wrong route", retry, "kind = \"generator\"\nrecords = 9").unwrap();
    assert_eq!((report.dropped, report.delivered), (1, 8));
    assert_eq!(world.lines(), expected(9, &[3]));
}

/// Cases: CT-15.
/// Rules: VX-424.
#[test]
fn a_program_that_is_no_worker_is_named() {
    let world = World::new();
    let mut missing = world.pipeline("upper", "", MANY);
    missing.udf.command = vec!["/no/such/program".to_owned()];
    let error = Vertex::start(missing).unwrap().run().unwrap_err();
    assert!(
        matches!(&error, VertexError::Worker(_)) && error.to_string().contains("/no/such/program"),
        "{error}"
    );
    let mut silent = world.pipeline("upper", "attach_timeout = \"100ms\"", MANY);
    silent.udf.command = vec!["sleep".to_owned(), "1000".to_owned()];
    let error = Vertex::start(silent).unwrap().run().unwrap_err();
    assert!(error.to_string().contains("did not attach in time"), "{error}");
    let mut short = world.pipeline("upper", "", MANY);
    short.udf.command = vec!["false".to_owned()];
    let error = Vertex::start(short).unwrap().run().unwrap_err();
    assert!(error.to_string().contains("exit status: 1"), "{error}");
}

/// A runtime that is killed, its worker busy.
/// Cases: CT-20.
/// Rules: VX-437.
#[test]
fn a_worker_does_not_outlive_its_runtime() {
    if let Some(place) = runtime_place() {
        let pipeline = pipeline(&place, "hang on 123", "", "kind = \"generator\"\nrecords = 125");
        Vertex::start(pipeline).unwrap().run().unwrap();
        return;
    }
    let world = World::new();
    let mut runtime = runtime("failures::a_worker_does_not_outlive_its_runtime", &world).spawn().unwrap();
    let give_up = Instant::now() + Duration::from_secs(60);
    while !world.path("hangs").exists() {
        assert!(Instant::now() < give_up, "the worker never came to the input");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = fs::read_to_string(world.path("pids")).unwrap().trim().parse().unwrap();
    let worker = ProcessHandle::open(ProcessId::of(pid).unwrap()).unwrap();
    runtime.kill().unwrap();
    assert!(worker.wait_exit(monotonic_now().saturating_add(Nanos::from_secs(60))), "still there");
    runtime.wait().unwrap();
}
