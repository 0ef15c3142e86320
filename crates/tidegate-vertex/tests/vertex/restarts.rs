//! Runtimes that end, in every way: the next one goes on where the ledger is, and the sink has everything once.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tidegate_vertex::{
    ledger::LedgerError,
    run::{Vertex, VertexError},
};

use crate::world::{World, runtime, runtime_place, with_ledger};

const RECORDS: u64 = 4_000;

fn expected() -> Vec<String> {
    (0..RECORDS).map(|position| format!("UPPER 0:{position}")).collect()
}

fn out_len(world: &World) -> u64 {
    fs::metadata(world.path("out")).map_or(0, |metadata| metadata.len())
}

/// Kills runtimes one after the other, each when it has written something, and then lets one end.
fn killed_again_and_again(test: &str, source: impl Fn(&Path) -> String) {
    if let Some(dir) = runtime_place() {
        Vertex::start(with_ledger(&dir, "slow upper", &source(&dir))).unwrap().run().unwrap();
        return;
    }
    let world = World::new();
    let lines: Vec<String> = (0..RECORDS).map(|position| format!("0:{position}\n")).collect();
    world.write("input", &lines.concat());
    let mut kills = 0;
    for share in 1..=5 {
        let mut runtime = runtime(test, &world).spawn().unwrap();
        let give_up = Instant::now() + Duration::from_secs(60);
        // About 13 bytes a record; the file may be cut at the start, so each aims further than the last.
        let aim = RECORDS * 13 * share / 8;
        while out_len(&world) < aim && runtime.try_wait().unwrap().is_none() {
            assert!(Instant::now() < give_up, "{} bytes of {aim}", out_len(&world));
            std::thread::sleep(Duration::from_millis(1));
        }
        kills += u32::from(runtime.try_wait().unwrap().is_none());
        runtime.kill().unwrap();
        runtime.wait().unwrap();
    }
    assert!(kills >= 3, "too fast: {kills} kills");
    let dir = world.path("");
    let report = Vertex::start(with_ledger(&dir, "upper", &source(&dir))).unwrap().run().unwrap();
    assert!(report.read < RECORDS, "began anew");
    assert_eq!(world.lines(), expected());
}

/// Rules: VX-441, VX-701, VX-762, VX-853, VX-880.
#[test]
fn a_generator_goes_on_after_each_kill() {
    killed_again_and_again("restarts::a_generator_goes_on_after_each_kill", |_| {
        format!("kind = \"generator\"\nrecords = {RECORDS}")
    });
}

/// Rules: VX-441, VX-762, VX-853.
#[test]
fn a_file_goes_on_after_each_kill() {
    killed_again_and_again("restarts::a_file_goes_on_after_each_kill", |dir| {
        format!("kind = \"file\"\npath = {:?}", dir.join("input"))
    });
}

/// Rules: VX-866.
#[test]
fn a_vertex_that_is_told_to_stop_finishes_what_it_has_read() {
    let world = World::new();
    let dir = world.path("");
    let source = format!("kind = \"generator\"\nrecords = {RECORDS}");
    let vertex = Vertex::start(with_ledger(&dir, "slow upper", &source)).unwrap();
    let stop = vertex.stop_handle();
    let out = world.path("out");
    let stopping = std::thread::spawn(move || {
        let give_up = Instant::now() + Duration::from_secs(60);
        while fs::metadata(&out).map_or(0, |metadata| metadata.len()) == 0 {
            assert!(Instant::now() < give_up, "nothing was written");
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.drain();
    });
    let first = vertex.run().unwrap();
    stopping.join().unwrap();
    assert!(first.read > 0 && first.read < RECORDS && first.returned == 0, "{first:?}");
    let second = Vertex::start(with_ledger(&dir, "upper", &source)).unwrap().run().unwrap();
    assert_eq!(first.read + second.read, RECORDS);
    assert_eq!(world.lines(), expected());
}

/// Rules: VX-702.
#[test]
fn two_vertices_do_not_share_a_ledger() {
    let world = World::new();
    let pipeline = || with_ledger(&world.path(""), "upper", "kind = \"generator\"\nrecords = 1");
    let first = Vertex::start(pipeline()).unwrap();
    let refused = Vertex::start(pipeline()).err().unwrap();
    assert!(matches!(refused, VertexError::Ledger(LedgerError::Lock(_))), "{refused}");
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    first.run().unwrap();
}

/// Cases: CT-48.
/// Rules: VX-832.
#[test]
fn a_source_or_sink_that_lost_something_is_refused() {
    let world = World::new();
    world.write("input", "one\ntwo\n");
    let pipeline = || with_ledger(&world.path(""), "upper", &world.file_source("input"));
    Vertex::start(pipeline()).unwrap().run().unwrap();
    world.write("input", "one\n");
    let refused = Vertex::start(pipeline()).err().unwrap();
    assert!(matches!(&refused, VertexError::Source(_)), "{refused}");
    assert!(refused.to_string().contains("ends at 4, before the position 8"), "{refused}");
    world.write("input", "one\ntwo\nthree\n");
    world.write("out", "UPPER ONE\n");
    let refused = Vertex::start(pipeline()).err().unwrap();
    assert!(matches!(refused, VertexError::Sink(_)), "{refused}");
    world.write("out", "UPPER ONE\nUPPER TWO\n");
    Vertex::start(pipeline()).unwrap().run().unwrap();
    assert_eq!(world.lines(), ["UPPER ONE", "UPPER TWO", "UPPER THREE"]);
}
