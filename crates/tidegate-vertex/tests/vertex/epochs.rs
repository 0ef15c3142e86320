//! When an epoch is sealed, what stops when epochs cannot be committed, and what becomes of one that was prepared by a pipeline
//! of yesterday.

use std::{os::unix::process::ExitStatusExt, path::Path};

use tidegate_vertex::{
    config::Pipeline,
    ledger::{LedgerError, inspect},
    run::{Vertex, VertexError},
};

use crate::world::{World, epoch_files, epoch_sink, ledger, of, runtime, runtime_place, wait_for};

const ENDLESS: &str = "kind = \"generator\"\nrecords = 1000000000";

/// A pipeline whose epochs last for an hour, but for what `more` says.
fn pipeline(dir: &Path, role: &str, more: &str, source: &str, sinks: &str) -> Pipeline {
    let rest = ledger(dir) + more;
    let text = of(dir, "effectively_once", role, &rest, source, sinks);
    let text = if text.contains("[epoch]\n") { text } else { text + "\n[epoch]\n" };
    text.replace("[epoch]\n", "[epoch]\ninterval = \"1h\"\n").parse().unwrap()
}

fn expected(end: u64) -> Vec<String> {
    (0..end).map(|position| format!("UPPER 0:{position}")).collect()
}

/// Rules: VX-003, VX-314, VX-760.
#[test]
fn an_epoch_ends_when_it_is_long_or_memory_is_short() {
    for (more, least) in [
        // Batches have 50 records: an epoch ends with the one that fills it, however many answers wait behind that.
        ("[epoch]\nmax_records = 40", 20),
        ("[epoch]\nmax_records = 60", 10),
        ("[epoch]\nmax_bytes = \"16KiB\"", 3),
        // Half of it is for outputs that wait for their commit.
        ("[limits]\nepoch_buffers = \"4MiB\"", 2),
        ("", 1),
    ] {
        let world = World::new();
        let dir = world.path("");
        // In one case three times as much as there is room for.
        let source = if more.contains("limits") { "bytes = \"6KiB\"" } else { "bytes = \"100B\"" };
        let source = format!("kind = \"generator\"\nrecords = 1000\n{source}");
        let report =
            Vertex::start(pipeline(&dir, "upper", more, &source, &epoch_sink(&dir))).unwrap().run().unwrap();
        assert_eq!(report.delivered, 1_000);
        let files = epoch_files(&dir.join("epochs"), 0);
        assert!(files.len() >= least && (least > 1 || files.len() == 1), "{more}: {} epochs", files.len());
        assert_eq!(files.concat().len(), 1_000);
        // The ledger says the same.
        let ledger = inspect(&dir.join("ledger"), None).unwrap().unwrap();
        let records = ledger["partitions"][0]["records"].as_array().unwrap();
        assert_eq!(records.len(), files.len());
        for (record, file) in records.iter().zip(&files) {
            let lines = file.len() as u64;
            assert_eq!((&record["inputs"], &record["outputs"]), (&lines.into(), &lines.into()));
        }
    }
}

/// The last answers are all there before the first of their epochs is committed, so nothing happens any more but commits. Without
/// looking again after each of those the vertex would sleep for ten seconds, some dozens of times.
/// Rules: VX-761.
#[test]
fn answers_that_wait_for_a_commit_go_on_with_it() {
    const IN_FLIGHT: u64 = 128;
    let world = World::new();
    let dir = world.path("");
    let rest = ledger(&dir) + "[epoch]\ninterval = \"1h\"\nmax_records = 1\nmax_pending = 1";
    let source = format!("kind = \"generator\"\nrecords = {}", 10 + IN_FLIGHT);
    let text = of(&dir, "effectively_once", "hold 10", &rest, &source, &epoch_sink(&dir))
        .replace("max_in_flight = 4", &format!("max_in_flight = {IN_FLIGHT}"))
        .replace("max_records = 50", "max_records = 1")
        .replace("max_response = \"2MiB\"", "max_response = \"64KiB\"");
    let vertex = Vertex::start(text.parse().unwrap()).unwrap();
    let control = vertex.control();
    let running = std::thread::spawn(move || vertex.run());
    wait_for("all that is left is on its way", || control.status().lanes[0].in_flight == IN_FLIGHT);
    // From here on nobody asks the vertex for anything, which would wake it.
    std::fs::write(dir.join("gate"), "").unwrap();
    assert_eq!(running.join().unwrap().unwrap().delivered, 10 + IN_FLIGHT);
    assert_eq!(epoch_files(&dir.join("epochs"), 0).len() as u64, 10 + IN_FLIGHT);
}

/// Rules: VX-760, VX-866.
#[test]
fn an_epoch_ends_when_the_vertex_is_to_end() {
    let world = World::new();
    let dir = world.path("");
    let vertex = Vertex::start(pipeline(&dir, "upper", "", ENDLESS, &epoch_sink(&dir))).unwrap();
    let (stop, control) = (vertex.stop_handle(), vertex.control());
    let running = std::thread::spawn(move || vertex.run());
    wait_for("inputs", || control.status().counts.read > 0);
    stop.drain();
    wait_for("the end", || running.is_finished());
    let report = running.join().unwrap().unwrap();
    assert_eq!((report.returned, report.delivered), (0, report.read));
    assert_eq!(epoch_files(&dir.join("epochs"), 0).concat(), expected(report.read));
}

fn held(dir: &Path) -> Pipeline {
    let sinks = "[[sink]]\nname = \"main\"\nkind = \"zmq\"\npattern = \"push\"\nbind = [\"tcp://127.0.0.1:*\"]\n\
                 close_linger = \"0s\"\nallow_duplicates = true\n[sink.retry]\ninitial = \"1ms\"\ncap = \"1ms\"";
    pipeline(dir, "upper", "[epoch]\nmax_records = 100\nmax_pending = 2", ENDLESS, sinks)
}

/// Nobody is there to take anything: two epochs wait, the first of them prepared and no other; the next one is as long as it may
/// be, and no more is read than the window behind it. A vertex that is killed then begins with that one epoch.
/// Rules: VX-310, VX-314, VX-761, VX-763.
#[test]
fn a_sink_that_takes_nothing_stops_the_source() {
    if let Some(dir) = runtime_place() {
        let vertex = Vertex::start(held(&dir)).unwrap();
        let control = vertex.control();
        std::thread::spawn(move || vertex.run());
        let read = || {
            let status = control.status();
            assert!(status.partitions[0].epochs_pending <= 2, "{status:?}");
            status.counts.read
        };
        // Three epochs of a hundred inputs, each with the batches that were answered at one moment, and five batches.
        wait_for("three epochs", || read() >= 300 + 250);
        for _ in 0..100 {
            assert!(read() <= 3 * (100 + 5 * 50) + 5 * 50);
        }
        std::process::exit(33);
    }
    let world = World::new();
    let test = "epochs::a_sink_that_takes_nothing_stops_the_source";
    assert_eq!(runtime(test, &world).status().unwrap().code(), Some(33));
    let ledger = inspect(&world.path("ledger"), None).unwrap().unwrap();
    let partition = &ledger["partitions"][0];
    assert_eq!(
        (&partition["committed"], &partition["prepared"]["epoch"]),
        (&0.into(), &1.into()),
        "{partition}"
    );
    // Nothing else is in its way.
    drop(Vertex::start(held(&world.path(""))).unwrap());
}

/// An epoch was prepared, and the pipeline file was changed before it was committed.
/// Rules: VX-763, VX-767, VX-781.
#[test]
fn what_was_prepared_is_finished_whatever_the_file_says_now() {
    let source = "kind = \"generator\"\nrecords = 300";
    let sink = |dir: &Path, name: &str| {
        format!(
            "[[sink]]\nname = {name:?}\nkind = \"file\"\npath = {:?}\nallow_duplicates = true",
            dir.join("out")
        )
    };
    let epochs =
        |dir: &Path, name| pipeline(dir, "upper", "[epoch]\nmax_records = 100", source, &sink(dir, name));
    let test = "epochs::what_was_prepared_is_finished_whatever_the_file_says_now";
    if let Some(dir) = runtime_place() {
        Vertex::start(epochs(&dir, "main")).unwrap().run().unwrap();
        return;
    }
    let world = World::new();
    let dir = world.path("");
    let killed = runtime(test, &world).env("TIDEGATE_VX_FAILPOINT", "C6:2").status().unwrap();
    assert_eq!(killed.signal(), Some(9));
    // Without the sink that it has outputs for, it cannot be finished.
    let refused = Vertex::start(epochs(&dir, "other")).err().unwrap();
    assert!(
        matches!(&refused, VertexError::Ledger(LedgerError::SinkGone { sink, .. }) if sink == "main"),
        "{refused}"
    );
    // With another promise it is finished first, from the outbox.
    let text = of(&dir, "at_least_once", "upper", &ledger(&dir), source, &sink(&dir, "main"));
    let report = Vertex::start(text.parse().unwrap()).unwrap().run().unwrap();
    assert_eq!(report.redone, 1);
    assert!(report.read < 300, "{report:?}");
    assert_eq!(world.lines(), expected(300));
}

/// A sink that refuses an output ends the vertex when there is no place for dead letters; nothing behind it is done.
/// Rules: VX-601, VX-623.
#[test]
fn what_a_sink_refuses_ends_the_vertex() {
    let world = World::new();
    let sink = format!(
        "[[sink]]\nname = \"main\"\nkind = \"file\"\nformat = \"csv\"\ncolumns = [\"id\"]\npath = {:?}",
        world.path("out")
    );
    let text = of(&world.path(""), "at_least_once", "upper", "", "kind = \"generator\"\nrecords = 10", &sink);
    let error = Vertex::start(text.parse().unwrap()).unwrap().run().unwrap_err();
    assert!(matches!(error, VertexError::Refused { position: 0, .. }), "{error}");
}
