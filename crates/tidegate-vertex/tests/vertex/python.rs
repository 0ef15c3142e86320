//! Workers in Python, out of the package in `bindings/python`, which `make setup` installs into `.venv`.

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    process::{ProcessHandle, ProcessId},
};
use tidegate_vertex::{
    config::Pipeline,
    run::{Report, Vertex},
};

use crate::{
    outside::{Outsider, Running, listen},
    schemas,
    world::{World, pipeline},
};

const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bindings/python");

/// The interpreter that has the package.
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
    assert!(python.exists(), "{} is missing; run `make setup`", python.display());
    python
}

/// What somebody else starts.
fn program() -> Command {
    let mut command = Command::new(python());
    command.arg(Path::new(PACKAGE).join("tests/workers/roles.py"));
    command
}

fn with_worker(mut pipeline: Pipeline, script: &str) -> Pipeline {
    let script = Path::new(PACKAGE).join("tests/workers").join(script);
    pipeline.udf.command = [python(), script].iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    pipeline
}

/// Runs `role` of the Python workers to the end. `udf` are further keys of `[udf]`.
fn run(world: &World, role: &str, udf: &str, source: &str) -> Report {
    Vertex::start(with_worker(world.pipeline(role, udf, source), "roles.py")).unwrap().run().unwrap()
}

fn expected(end: u64, without: &[u64]) -> Vec<String> {
    (0..end).filter(|n| !without.contains(n)).map(|position| format!("UPPER 0:{position}")).collect()
}

const SOME: &str = "kind = \"generator\"\nrecords = 300";

/// Rules: VX-222, VX-512, VX-520, VX-523, VX-524.
#[test]
fn the_package_passes_its_own_tests() {
    let tests = Path::new(PACKAGE).join("tests");
    let ran = Command::new(python())
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(tests)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{out}");
    assert!(out.contains(" passed") && !out.contains("skipped"), "{out}");
}

/// Cases: CT-01.
/// Rules: VX-201, VX-500, VX-520.
#[test]
fn a_worker_out_of_the_sheet_alone_finds_every_byte_where_it_is_written() {
    let world = World::new();
    let report =
        Vertex::start(with_worker(world.pipeline("by hand", "", SOME), "by_hand.py")).unwrap().run().unwrap();
    assert_eq!((report.delivered, report.restarts), (300, 0), "{report:?}");
    // The generator's records have no small letters.
    assert_eq!(world.lines(), (0..300).map(|position| format!("0:{position}")).collect::<Vec<_>>());
}

/// Both sides learn what does not fit.
/// Cases: CT-15.
/// Rules: VX-421, VX-422, VX-423.
#[test]
fn a_worker_of_another_version_is_refused_by_name() {
    for (role, part) in [
        ("version", "(7, 9)"),
        ("schema", "0000000000000005"),
        ("kind", "window"),
        ("feature", "telepathy"),
        ("clock", "CLOCK_BOOTTIME"),
    ] {
        let world = World::new();
        let vertex = Vertex::start(with_worker(world.pipeline(role, "", SOME), "by_hand.py")).unwrap();
        let error = vertex.run().unwrap_err().to_string();
        let code = role.to_uppercase();
        assert!(error.contains(&format!("({code})")) && error.contains(part), "{error}");
        assert_eq!(fs::read_to_string(world.path("told")).unwrap(), code);
    }
}

/// Rules: VX-500, VX-520.
#[test]
fn a_function_of_batches_in_python() {
    let world = World::new();
    let report = run(&world, "upper", "", "kind = \"generator\"\nrecords = 3000");
    assert_eq!((report.delivered, report.restarts), (3_000, 0));
    assert_eq!(world.lines(), expected(3_000, &[]));
}

/// Rules: VX-501.
#[test]
fn what_a_function_in_python_counts_is_counted() {
    let world = World::new();
    let report = run(&world, "counts", "", SOME);
    assert_eq!((report.delivered, report.counters["records"]), (300, 300), "{report:?}");
    assert!(report.counters["batches"] >= 6);
}

/// Rows of other lengths are rejected, those at odd positions filtered.
/// Rules: VX-523.
#[test]
fn a_function_of_columns_in_python() {
    let world = World::new();
    let lines: Vec<String> = (0..200).map(|number| format!("{number:07}\n")).collect();
    let long: String = lines.iter().map(|line| format!("{}{line}", number_is_short(line))).collect();
    world.write("input", &long);
    let retry = "retry = { on_exhausted = \"drop\" }";
    let report = run(&world, "table", retry, &world.file_source("input"));
    assert_eq!((report.read, report.dropped), (200, 20), "{report:?}");
    assert_eq!(report.delivered + report.filtered, 180);
    assert!(world.lines().iter().all(|line| line.len() == 8));
    assert_eq!(world.lines().len() as u64, report.outputs);
}

/// Every tenth line is too short for a row of eight bytes.
fn number_is_short(line: &str) -> &'static str {
    if line.ends_with("5\n") { "" } else { "x" }
}

/// Cases: CT-04, CT-16.
/// Rules: VX-432.
#[test]
fn a_python_worker_that_is_killed_loses_and_doubles_nothing() {
    let world = World::new();
    let report = run(&world, "dies once", "", SOME);
    assert!(world.path("died").exists());
    assert_eq!((report.restarts, report.delivered), (1, 300));
    assert_eq!(world.lines(), expected(300, &[]));
}

/// Cases: CT-54.
/// Rules: VX-502, VX-524.
#[test]
fn an_input_on_which_python_raises_is_named_with_its_traceback() {
    for role in ["fails on 123", "batch fails on 123"] {
        let world = World::new();
        let report = run(&world, role, "retry = { initial = \"1ms\" }", SOME);
        let [(_, 123, reason)] = report.stopped.as_slice() else { panic!("{role}: {report:?}") };
        assert!(reason.starts_with("ValueError: 123 is not for me\n"), "{role}: {reason}");
        assert!(reason.contains("roles.py") && reason.contains("in fail"), "{role}: {reason}");
        assert_eq!((world.lines(), report.restarts), (expected(123, &[]), 0), "{role}");
    }
}

/// Cases: CT-54.
/// Rules: VX-524, VX-610.
#[test]
fn a_batch_with_an_input_on_which_python_raises_is_split_until_only_that_is_left_out() {
    let world = World::new();
    let retry = "retry = { initial = \"1ms\", on_exhausted = \"drop\" }";
    let report = run(&world, "batch fails on 123", retry, SOME);
    assert_eq!((report.dropped, report.delivered, report.restarts), (1, 299, 0), "{report:?}");
    assert_eq!(world.lines(), expected(300, &[123]));
}

/// Ended by a signal in the middle of its batches: those that it has not answered go to the next worker, and no input is blamed,
/// although one death would be enough to leave an input out.
/// Cases: CT-54.
/// Rules: VX-501, VX-524.
#[test]
fn signals_end_a_python_worker_and_its_batches_go_back() {
    let retry = "retry = { crash_attempts = 1, on_exhausted = \"drop\" }";
    for (role, mark) in [
        ("terminated once", "terminated"),
        ("interrupted once", "interrupted"),
        // It learns from its stop token that somebody ends it.
        ("stopped once", "terminated"),
    ] {
        let world = World::new();
        let mut pipeline = with_worker(world.pipeline(role, retry, SOME), "roles.py");
        pipeline.batch.max_records = NonZeroU32::MIN;
        let report = Vertex::start(pipeline).unwrap().run().unwrap();
        assert!(world.path(mark).exists(), "{role}");
        assert_eq!((report.restarts, report.dropped, report.delivered), (1, 0, 300), "{role}: {report:?}");
        assert_eq!(world.lines(), expected(300, &[]), "{role}");
    }
}

/// An exit is a death on the input that caused it.
/// Cases: CT-54.
/// Rules: VX-524, VX-611.
#[test]
fn an_input_on_which_python_exits_is_found_and_left_out() {
    let world = World::new();
    let retry = "retry = { on_exhausted = \"drop\", initial = \"1ms\" }";
    let mut pipeline =
        with_worker(world.pipeline("exits on 123", retry, "kind = \"generator\"\nrecords = 125"), "roles.py");
    // The delay between starts doubles, and each half of a batch costs two.
    pipeline.batch.max_records = NonZeroU32::new(2).unwrap();
    let report = Vertex::start(pipeline).unwrap().run().unwrap();
    assert_eq!((report.dropped, report.delivered), (1, 124), "{report:?}");
    assert_eq!(world.lines(), expected(125, &[123]));
}

/// Started by somebody else, one before the vertex; it is killed in the middle of a batch, and one that waits takes its place.
/// Cases: CT-04, CT-16.
/// Rules: VX-420, VX-432, VX-437.
#[test]
fn python_workers_that_come_by_themselves() {
    let world = World::new();
    // One that waits ends when it is told to.
    let mut waiting = Outsider::start(program(), &world, "upper");
    waiting.says("waiting for the runtime");
    waiting.signal(Signal::TERM);
    assert!(waiting.ends().success());
    let mut first = Outsider::start(program(), &world, "dies once");
    first.says("waiting for the runtime");
    let dir = world.path("");
    let vertex = Running::of(Vertex::start(pipeline(&dir, "", &listen(&dir, ""), SOME)).unwrap());
    let mut second = Outsider::start(program(), &world, "dies once");
    let report = vertex.ends();
    assert!(world.path("died").exists());
    assert_eq!((report.restarts, report.delivered), (1, 300));
    assert_eq!(world.lines(), expected(300, &[]));
    let ended = [first.ends(), second.ends()];
    assert_eq!(ended.iter().filter(|status| status.success()).count(), 1, "{ended:?}");
}

/// Its schemas are texts in its own form, and an id; started by the vertex or by somebody else.
/// Rules: VX-422.
#[test]
fn a_python_function_of_typed_records() {
    for (output, fits) in [(schemas::OUTPUT, true), ("something else", false)] {
        let world = World::new();
        let keys = schemas::keys(&world, Some(schemas::INPUT), Some(output), true);
        let vertex = Vertex::start(with_worker(world.pipeline("typed", &keys, SOME), "roles.py")).unwrap();
        let ended = vertex.run();
        match fits {
            true => assert_eq!((ended.unwrap().delivered, world.lines()), (300, expected(300, &[]))),
            false => assert!(ended.unwrap_err().to_string().contains("(SCHEMA)")),
        }
        let world = World::new();
        let keys = schemas::keys(&world, Some(schemas::INPUT), Some(output), true);
        let vertex = Running::start(&world, &keys.replace("retries = 1", "retries = 0"), SOME);
        let mut worker = Outsider::start(program(), &world, "typed");
        match fits {
            true => assert_eq!((vertex.ends().delivered, world.lines()), (300, expected(300, &[]))),
            false => {
                worker.says("refused this worker (SCHEMA)");
                assert!(!worker.ends().success());
                assert!(vertex.ended().unwrap_err().to_string().contains("(SCHEMA)"));
                assert_eq!(world.lines(), expected(0, &[]));
            }
        }
    }
}

/// A child that comes back from the function would answer with the worker's memory.
/// Cases: CT-54.
#[test]
fn a_child_of_a_python_worker_does_not_answer() {
    let world = World::new();
    let report = run(&world, "forks once", "", SOME);
    assert!(world.path("forked").exists());
    assert_eq!((report.restarts, report.delivered), (0, 300), "{report:?}");
    assert_eq!(world.lines(), expected(300, &[]));
}

/// The interpreter is never given up, and the runtime is killed.
/// Cases: CT-20, CT-54.
/// Rules: VX-437, VX-521.
#[test]
fn a_python_worker_that_holds_its_interpreter_does_not_outlive_its_runtime() {
    const PLACE: &str = "TIDEGATE_TEST_RUNTIME";
    if let Some(place) = std::env::var_os(PLACE) {
        let pipeline = pipeline(place.as_ref(), "holds the interpreter on 123", "", SOME);
        Vertex::start(with_worker(pipeline, "roles.py")).unwrap().run().unwrap();
        return;
    }
    let world = World::new();
    let mut runtime = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "python::a_python_worker_that_holds_its_interpreter_does_not_outlive_its_runtime",
            "--nocapture",
        ])
        .env(PLACE, world.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
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
