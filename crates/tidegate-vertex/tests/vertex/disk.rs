//! Disks that are full and ledgers that are gone: nothing is lost by going on as if they were not.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use tidegate_shm::clock::Nanos;
use tidegate_vertex::{
    ledger::LedgerError,
    run::{Vertex, VertexError},
};

use crate::world::{World, epoch_files, epoch_sink, runtime_place, with_epochs, with_ledger};

const RECORDS: u64 = 3_000;

/// A ledger on a file system that is full after some epochs: the vertex ends, and the next one, with more room, goes on.
/// Cases: CT-39.
/// Rules: VX-776, VX-786.
#[test]
fn a_full_disk_ends_the_vertex_and_loses_nothing() {
    let test = "disk::a_full_disk_ends_the_vertex_and_loses_nothing";
    if let Some(dir) = runtime_place() {
        return full_disk(&dir);
    }
    let world = World::new();
    fs::create_dir(world.path("ledger")).unwrap();
    let script = "mount -t tmpfs -o size=2m none \"$TIDEGATE_TEST_RUNTIME/ledger\" && exec \"$0\" --exact \"$1\" --nocapture";
    let told = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env("TIDEGATE_TEST_RUNTIME", world.path(""))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(
        told.status.success() && text.contains("1 passed"),
        "this test mounts a tmpfs and needs root: {text}{}",
        String::from_utf8_lossy(&told.stderr)
    );
}

fn full_disk(dir: &Path) {
    // Some epochs fit: each keeps what it had until it is committed, and the records of all stay.
    let source = format!("kind = \"generator\"\nrecords = {RECORDS}\nbytes = \"1KiB\"");
    let sink = epoch_sink(dir);
    let filler = dir.join("ledger").join("filler");
    let vertex = Vertex::start(with_epochs(dir, "upper", &source, &sink)).unwrap();
    // Longer than the disk: what fits of it stays.
    assert!(fs::write(&filler, vec![0; 4 << 20]).is_err());
    let error = vertex.run().unwrap_err();
    assert!(matches!(error, VertexError::Ledger(LedgerError::Store(_))), "{error}");
    let before = epoch_files(&dir.join("epochs"), 0).concat().len();
    fs::remove_file(&filler).unwrap();
    let grown =
        Command::new("mount").args(["-o", "remount,size=64m"]).arg(dir.join("ledger")).status().unwrap();
    assert!(grown.success());
    let report = Vertex::start(with_epochs(dir, "upper", &source, &sink)).unwrap().run().unwrap();
    assert!(report.read + report.redone * 100 + before as u64 >= RECORDS, "{report:?} after {before}");
    let lines = epoch_files(&dir.join("epochs"), 0).concat();
    assert_eq!(lines.len() as u64, RECORDS);
    for (position, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("UPPER 0:{position}.")), "line {position}");
    }
}

/// Cases: CT-39.
/// Rules: VX-786.
#[test]
fn a_ledger_that_is_gone_is_not_begun_anew_by_itself() {
    let world = World::new();
    let pipeline = || with_ledger(&world.path(""), "upper", "kind = \"generator\"\nrecords = 100");
    Vertex::start(pipeline()).unwrap().run().unwrap();
    fs::remove_file(world.path("ledger").join("ledger.redb")).unwrap();
    let refused = Vertex::start(pipeline()).err().unwrap();
    assert!(matches!(&refused, VertexError::Ledger(LedgerError::Lost { .. })), "{refused}");
    fs::remove_file(world.path("ledger").join("made")).unwrap();
    Vertex::start(pipeline()).unwrap().run().unwrap();
    assert_eq!(world.lines().len(), 200, "everything once more, as it was asked for");
}

/// A file that is cut off somewhere is no ledger.
/// Cases: CT-39.
/// Rules: VX-770, VX-786.
#[test]
fn a_ledger_that_was_cut_is_refused() {
    let world = World::new();
    let pipeline = || with_ledger(&world.path(""), "upper", "kind = \"generator\"\nrecords = 100");
    Vertex::start(pipeline()).unwrap().run().unwrap();
    let path = world.path("ledger").join("ledger.redb");
    let whole = fs::read(&path).unwrap();
    for len in [1, 4_096, whole.len() / 2] {
        fs::write(&path, &whole[..len]).unwrap();
        let refused = Vertex::start(pipeline()).err().unwrap();
        assert!(matches!(refused, VertexError::Ledger(_)), "{len} bytes: {refused}");
    }
    fs::write(&path, &whole).unwrap();
    let report = Vertex::start(pipeline()).unwrap().run().unwrap();
    assert_eq!(report.read, 0);
}

/// A ledger that keeps an epoch waiting for longer than that may be: somebody has to know.
/// Rules: VX-766, VX-860.
#[test]
fn a_ledger_that_does_not_keep_up_ends_the_vertex() {
    let world = World::new();
    let dir = world.path("");
    let sink = epoch_sink(&dir);
    let mut pipeline = with_epochs(&dir, "upper", "kind = \"generator\"\nrecords = 500", &sink);
    pipeline.epoch.rto.0 = Nanos(1);
    let behind = Vertex::start(pipeline).unwrap().run().unwrap_err();
    assert!(matches!(behind, VertexError::Behind { partition: 0, epoch: 1, .. }), "{behind}");
    let pipeline = with_epochs(&dir, "upper", "kind = \"generator\"\nrecords = 500", &sink);
    Vertex::start(pipeline).unwrap().run().unwrap();
    assert_eq!(epoch_files(&dir.join("epochs"), 0).concat().len(), 500);
}

/// With a new ledger only what a sink has tells which generations there were.
/// Rules: VX-714, VX-786.
#[test]
fn a_new_ledger_begins_behind_the_generations_that_a_sink_knows() {
    let world = World::new();
    let dir = world.path("");
    let sink = epoch_sink(&dir);
    let pipeline = || with_epochs(&dir, "upper", "kind = \"generator\"\nrecords = 500", &sink);
    Vertex::start(pipeline()).unwrap().run().unwrap();
    fs::remove_file(dir.join("ledger").join("ledger.redb")).unwrap();
    let lost = Vertex::start(pipeline()).err().unwrap();
    assert!(matches!(lost, VertexError::Ledger(LedgerError::Lost { .. })), "{lost}");
    // The outputs are moved away; an owner of long ago has left its mark.
    let place = dir.join("epochs").join("p=0");
    fs::remove_dir_all(&place).unwrap();
    fs::create_dir_all(place.join(".stage-0000000000000007-0000000000000001")).unwrap();
    let mut anew = pipeline();
    anew.new_ledger = true;
    Vertex::start(anew).unwrap().run().unwrap();
    assert_eq!(epoch_files(&dir.join("epochs"), 0).concat().len(), 500);
    let ledger = tidegate_vertex::ledger::inspect(&dir.join("ledger"), None).unwrap().unwrap();
    assert_eq!(ledger["partitions"][0]["generation"], 8);
}
