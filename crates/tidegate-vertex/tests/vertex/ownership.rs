//! Who may write: partitions that are taken away and come back, vertices that are fenced, processes that are stopped.

use std::{
    fs::{self, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    time::{Duration, Instant},
};

use tidegate_shm::{process::ProcessId, sync::Arc};
use tidegate_udf::wire::ids::{Generation, PartitionId};
use tidegate_vertex::{
    config::Pipeline,
    fence::{Quiesce, Reason, WriteKind},
    ledger::take_over,
    operate::{Control, Which, Wish, status::PartitionState},
    own::InProc,
    run::{Vertex, VertexError},
};

use crate::world::{
    World, epoch_files, epoch_sink, file_sink, ledger, of, pipeline, runtime, runtime_place, wait_for,
    with_epochs, with_ledger,
};

/// One of two partitions is taken away and given back, again and again, while both are processed.
/// Cases: CT-23, CT-53, CT-62.
/// Rules: VX-003, VX-232, VX-700, VX-703, VX-705, VX-726, VX-729, VX-731.
#[test]
fn a_partition_that_is_taken_away_goes_on_where_it_was_committed() {
    const RECORDS: u64 = 3_000;
    let world = World::new();
    let dir = world.path("");
    let source = format!("kind = \"generator\"\npartitions = 2\nrecords = {RECORDS}");
    let sink = epoch_sink(&dir);
    let manager = InProc::default();
    let (taken, kept) = (PartitionId(1), PartitionId(0));
    [taken, kept].iter().for_each(|partition| manager.assign(*partition, Some(7)));
    let member = Arc::new(manager.member(7, 2));
    let vertex = Vertex::start_under(with_epochs(&dir, "slow upper", &source, &sink), member).unwrap();
    let stop = vertex.stop_handle();
    let running = std::thread::spawn(move || vertex.run());
    let epochs = dir.join("epochs");
    let mut generations = vec![manager.holder(taken).unwrap().1];
    for round in 1..=3 {
        wait_for("an epoch", || running.is_finished() || epoch_files(&epochs, taken.0).len() >= round);
        assert!(!running.is_finished(), "too fast to be disturbed");
        manager.assign(taken, None);
        assert_eq!(manager.holder(taken), None);
        let had = epoch_files(&epochs, taken.0);
        if round == 2 {
            // Nobody has it for a while; the other one goes on, and of this one there is no file more.
            let lines = || epoch_files(&epochs, kept.0).concat().len() as u64;
            let other = lines();
            wait_for("the other partition", || lines() >= (other + 200).min(RECORDS));
            // What was under way when it was taken may have ended.
            assert!(epoch_files(&epochs, taken.0).len() <= had.len() + 1);
        }
        manager.assign(taken, Some(7));
        wait_for("a new session", || manager.holder(taken).is_some());
        generations.push(manager.holder(taken).unwrap().1);
    }
    wait_for("the end", || {
        [taken, kept]
            .iter()
            .all(|partition| epoch_files(&epochs, partition.0).concat().len() as u64 == RECORDS)
    });
    stop.drain();
    let report = running.join().unwrap().unwrap();
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
    assert!(report.fenced.is_empty(), "each time there was another session: {report:?}");
    assert!(report.returned > 0 && report.balances(), "{report:?}");
    for partition in [taken, kept] {
        let expected: Vec<String> = (0..RECORDS).map(|n| format!("UPPER {partition}:{n}")).collect();
        assert_eq!(epoch_files(&epochs, partition.0).concat(), expected);
    }
}

const FIRST: Which = Which::One(PartitionId(0));

/// A vertex with two partitions, under this manager; its function fails on an input of the first until the place has a file
/// `mended`.
fn failing(world: &World, manager: &InProc) -> Vertex {
    Vertex::start_under(failing_pipeline(world), Arc::new(manager.member(7, 2))).unwrap()
}

fn failing_pipeline(world: &World) -> Pipeline {
    let dir = world.path("");
    let source = "kind = \"generator\"\npartitions = 2\nrecords = 1000000000";
    with_epochs(&dir, "fail until mended", source, &epoch_sink(&dir))
}

fn is_stopped(control: &Control) -> bool {
    let status = control.status();
    let stopped = status.partitions.first().and_then(|partition| partition.stopped.clone());
    let says = |reason: &String| reason.contains("stopped at position 123");
    let told = status.readiness().reasons.iter().any(says);
    assert_eq!(stopped.is_some_and(|(position, _)| position == 123), told);
    told
}

/// What the status and the report say is what is so: once another session has the partition, neither that it stopped nor that the
/// one before lost it.
/// Rules: VX-601, VX-729, VX-860, VX-865.
#[test]
fn a_partition_that_had_stopped_and_was_claimed_anew_is_well() {
    let (world, manager) = (World::new(), InProc::default());
    (0..2).for_each(|partition| manager.assign(PartitionId(partition), Some(7)));
    let vertex = failing(&world, &manager);
    let (stop, control) = (vertex.stop_handle(), vertex.control());
    let running = std::thread::spawn(move || vertex.run());
    wait_for("a stop", || is_stopped(&control));
    world.write("mended", "");
    control.fence(FIRST, Duration::from_secs(100)).unwrap();
    wait_for("a session that works", || !is_stopped(&control) && control.status().readiness().ok);
    wait_for("what comes behind", || control.status().partitions[0].resume > 300);
    assert!(!is_stopped(&control));
    stop.drain();
    let report = running.join().unwrap().unwrap();
    assert!(report.stopped.is_empty() && report.fenced.is_empty(), "{report:?}");
}

/// A partition that has stopped can be given away, and what it stopped at is then another's. At the end of the vertex it is what
/// the vertex ends with.
/// Rules: VX-601, VX-704, VX-718, VX-866.
#[test]
fn a_partition_that_has_stopped_is_given_away() {
    let (world, manager) = (World::new(), InProc::default());
    (0..2).for_each(|partition| manager.assign(PartitionId(partition), Some(7)));
    let vertex = failing(&world, &manager);
    let control = vertex.control();
    let running = std::thread::spawn(move || vertex.run());
    wait_for("a stop", || is_stopped(&control));
    control.wish(FIRST, Wish::Drain).unwrap();
    wait_for("given away", || control.status().partitions[0].state == PartitionState::Drained);
    wait_for("no right that was taken away", || !control.status().partitions[0].revoked);
    assert!(!is_stopped(&control) && manager.holder(PartitionId(0)).is_none());
    control.wish(FIRST, Wish::Run).unwrap();
    wait_for("a stop", || is_stopped(&control));
    control.wish(FIRST, Wish::Drain).unwrap();
    wait_for("given away again", || !is_stopped(&control));
    control.wish(FIRST, Wish::Run).unwrap();
    wait_for("a stop", || is_stopped(&control));
    control.end_when_drained();
    let report = running.join().unwrap().unwrap();
    assert!(matches!(report.stopped[..], [(0, 123, _)]), "{report:?}");
}

/// Rules: VX-865, VX-870.
#[test]
fn a_vertex_is_ready_to_take_over_when_it_has_a_worker() {
    let (world, manager) = (World::new(), InProc::default());
    world.write("mended", "");
    let vertex = failing(&world, &manager);
    let (stop, control) = (vertex.stop_handle(), vertex.control());
    let running = std::thread::spawn(move || vertex.run());
    wait_for("a worker", || control.status().lanes.iter().any(|lane| lane.ready));
    let status = control.status();
    assert!(status.standby && status.readiness().ok, "{status:?}");
    control.wish(Which::All, Wish::Drain).unwrap();
    let status = control.status();
    assert!(!status.standby && !status.readiness().ok, "it would not claim: {status:?}");
    control.wish(Which::All, Wish::Run).unwrap();
    manager.assign(PartitionId(0), Some(7));
    wait_for("a session", || control.status().partitions[0].state == PartitionState::Active);
    let status = control.status();
    assert!(!status.standby && status.readiness().ok, "{status:?}");
    stop.drain();
    running.join().unwrap().unwrap();
}

/// What another vertex may have, and this one not, it neither takes nor waits for.
/// Rules: VX-718, VX-865, VX-870.
#[test]
fn a_vertex_stands_by_only_for_what_it_may_have() {
    let (world, manager) = (World::new(), InProc::default());
    let mut pipeline = failing_pipeline(&world);
    pipeline.only("0").unwrap();
    (0..2).for_each(|partition| manager.assign(PartitionId(partition), Some(7)));
    let vertex = Vertex::start_under(pipeline, Arc::new(manager.member(7, 2))).unwrap();
    let (stop, control) = (vertex.stop_handle(), vertex.control());
    let running = std::thread::spawn(move || vertex.run());
    wait_for("a session", || control.status().partitions[0].state != PartitionState::Unowned);
    assert_eq!(control.status().partitions[1].state, PartitionState::Unowned);
    manager.assign(PartitionId(0), None);
    wait_for("standby", || control.status().standby);
    control.wish(FIRST, Wish::Drain).unwrap();
    assert!(!control.status().standby, "the other one is not its own");
    stop.drain();
    running.join().unwrap().unwrap();
}

/// Rules: VX-701, VX-703.
#[test]
fn a_manager_of_the_process_gives_a_partition_to_one_member_at_a_time() {
    use tidegate_vertex::{
        fence::FenceTable,
        own::{Known, Manager},
    };
    let claim = |member: &dyn Manager, newest| {
        let known = Known { generation: Generation(newest), ..Known::default() };
        member.acquire(PartitionId(0), 1, &known).unwrap().map(|claimed| claimed.generation.0)
    };
    let manager = InProc::default();
    let (one, two) = (manager.member(1, 1), manager.member(2, 1));
    let id = PartitionId(0);
    assert_eq!(claim(&one, 4), None, "nobody may have it");
    manager.assign(id, Some(1));
    assert_eq!(claim(&two, 4), None);
    assert_eq!(claim(&one, 4), Some(5));
    assert_eq!(claim(&one, 5), None, "it has it already");
    let mut table = FenceTable::create(1, 1).unwrap();
    let (_, guard) = table.bind(id, Generation(5)).unwrap();
    one.begun(id, &guard);
    assert_eq!(manager.holder(id), Some((1, Generation(5))));
    manager.assign(id, Some(2));
    assert!(guard.is_revoked());
    assert_eq!(claim(&two, 5), None, "the session before has not ended");
    one.release(id, Generation(5));
    assert_eq!(claim(&two, 2), Some(6), "it knows a newer one than the ledger");
    // Taken away again before it could write.
    manager.assign(id, None);
    let (_, guard) = table.bind(id, Generation(6)).unwrap();
    two.begun(id, &guard);
    assert!(guard.is_revoked());
}

/// Rules: VX-234, VX-724, VX-725, VX-726, VX-728.
#[test]
fn a_vertex_without_its_right_writes_nothing_more() {
    let world = World::new();
    let dir = world.path("");
    let source = "kind = \"generator\"\nrecords = 100000";
    let vertex = Vertex::start(with_ledger(&dir, "slow upper", source)).unwrap();
    let stop = vertex.stop_handle();
    let running = std::thread::spawn(move || vertex.run());
    let out = world.path("out");
    let len = || fs::metadata(&out).unwrap().len();
    wait_for("outputs", || len() > 1_000);
    let [(id, guard)] = stop.fence(None, Reason::Operator).try_into().unwrap();
    assert_eq!(id, PartitionId(0));
    let give_up = Instant::now() + Duration::from_secs(100);
    assert_eq!(guard.quiesce(|| Instant::now() < give_up), Quiesce::Quiesced);
    let quiesced = len();
    let error = running.join().unwrap().unwrap_err();
    assert!(matches!(error, VertexError::Fenced(_)), "{error}");
    assert_eq!(len(), quiesced);
    // The next one goes on behind what was committed.
    let source = source.replace("100000", "3000");
    let report = Vertex::start(with_ledger(&dir, "upper", &source)).unwrap().run().unwrap();
    assert!(report.read < 3_000, "began anew");
    let expected: Vec<String> = (0..3_000).map(|n| format!("UPPER 0:{n}")).collect();
    assert_eq!(world.lines(), expected);
}

/// A sink that does not take anything: the word is set at once, and the write that hangs is named (Z12).
/// Cases: CT-26, CT-61.
/// Rules: VX-724, VX-725, VX-732.
#[test]
fn a_write_that_hangs_is_pending() {
    let world = World::new();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.path("out"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    // A reader that takes nothing yet.
    let mut reader = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(world.path("out"))
        .unwrap();
    // The first write is longer than the pipe.
    let source = "kind = \"generator\"\nrecords = 100\nbytes = \"100KiB\"";
    let dir = world.path("");
    let text = of(&dir, "at_least_once", "upper", "[epoch]\ninterval = \"1h\"", source, &file_sink(&dir))
        .replace("max_bytes = \"8KiB\"", "max_bytes = \"256KiB\"")
        .replace("ring = \"64KiB\"", "ring = \"2MiB\"");
    let pipeline: Pipeline = text.parse().unwrap();
    let vertex = Vertex::start(pipeline).unwrap();
    let stop = vertex.stop_handle();
    let running = std::thread::spawn(move || vertex.run());
    let guards = stop.fence(Some(PartitionId(9)), Reason::Operator);
    assert!(guards.is_empty(), "there is no such partition");
    wait_for("a full pipe", || rustix::io::ioctl_fionread(&reader).unwrap() == 65_536);
    let hangs = stop.fence(None, Reason::Operator);
    let [(_, guard)] = hangs.try_into().unwrap();
    assert!(guard.is_revoked() && guard.permit(WriteKind::Ledger).is_err());
    let Quiesce::Pending(writes) = guard.quiesce(|| false) else { panic!("the write is not seen") };
    assert_eq!(writes.to_string(), "1 sink");
    let mut taken = vec![0; 4_096];
    while guard.quiesce(|| false) != Quiesce::Quiesced {
        // The end of the write may be seen before that of its permit.
        let empty =
            reader.read(&mut taken).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        if empty {
            std::thread::yield_now();
        }
    }
    let left = rustix::io::ioctl_fionread(&reader).unwrap();
    let error = running.join().unwrap().unwrap_err();
    assert!(matches!(error, VertexError::Fenced(_)), "{error}");
    assert_eq!(rustix::io::ioctl_fionread(&reader).unwrap(), left, "bytes after the end");
}

/// A holder of the lock that is stopped cannot be replaced but by killing it, and is found out by its number, its start and
/// its program.
/// Cases: CT-30.
/// Rules: VX-702.
#[test]
fn a_stopped_runtime_keeps_its_ledger_until_it_is_taken_over() {
    const SOURCE: &str = "kind = \"generator\"\nrecords = 3000";
    if let Some(dir) = runtime_place() {
        Vertex::start(with_ledger(&dir, "slow upper", SOURCE)).unwrap().run().unwrap();
        return;
    }
    let world = World::new();
    let test = "ownership::a_stopped_runtime_keeps_its_ledger_until_it_is_taken_over";
    // It stops itself between a permit and its write (Z2).
    let mut holder = runtime(test, &world).env("TIDEGATE_VX_FAILPOINT", "stop:permit:3").spawn().unwrap();
    let stopped = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", holder.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    };
    wait_for("a stopped holder", stopped);
    let pipeline = || with_ledger(&world.path(""), "upper", SOURCE);
    let refused = Vertex::start(pipeline()).err().unwrap().to_string();
    assert!(refused.contains(&holder.id().to_string()), "{refused}");
    let ledger = world.path("ledger");
    let killed = take_over(&ledger).unwrap();
    assert_eq!(killed.map(|id: ProcessId| id.pid), Some(holder.id()));
    assert!(!holder.wait().unwrap().success());
    assert_eq!(take_over(&ledger).unwrap(), None, "nobody has it any more");
    Vertex::start(pipeline()).unwrap().run().unwrap();
    let expected: Vec<String> = (0..3_000).map(|n| format!("UPPER 0:{n}")).collect();
    assert_eq!(world.lines(), expected);
}

/// A process that has the lock file open and is another program is left alone; so is one that only has its name in it.
/// Rules: VX-702.
#[test]
fn nobody_else_is_killed() {
    let world = World::new();
    fs::create_dir(world.path("ledger")).unwrap();
    let lock = world.path("ledger").join("lock");
    let mut other = std::process::Command::new("flock")
        .args(["-F".as_ref(), lock.as_os_str(), "sleep".as_ref(), "1000".as_ref()])
        .spawn()
        .unwrap();
    wait_for("the lock", || {
        let id = ProcessId::of(other.id()).unwrap();
        // It says who it is, as a runtime would.
        fs::write(&lock, format!("{id}\n")).unwrap();
        take_over(&world.path("ledger")).is_err()
    });
    let refused = take_over(&world.path("ledger")).unwrap_err().to_string();
    assert!(refused.contains("another program"), "{refused}");
    assert!(other.try_wait().unwrap().is_none(), "it was killed");
    let id = ProcessId::current().unwrap();
    fs::write(&lock, format!("{id}\n")).unwrap();
    let refused = take_over(&world.path("ledger")).unwrap_err().to_string();
    assert!(refused.contains("does not have it open"), "{refused}");
    other.kill().unwrap();
    other.wait().unwrap();
}

/// A worker that is stopped is ended by the clock of the runtime and its batches go to another (Z5).
/// Cases: CT-18.
/// Rules: VX-434.
#[test]
fn a_stopped_worker_is_replaced() {
    let world = World::new();
    let pipeline = pipeline(
        &world.path(""),
        "stop once",
        "batch_timeout = \"2s\"",
        "kind = \"generator\"\nrecords = 2000",
    );
    let report = Vertex::start(pipeline).unwrap().run().unwrap();
    assert_eq!((report.restarts, report.delivered), (1, 2_000));
    let expected: Vec<String> = (0..2_000).map(|n| format!("UPPER 0:{n}")).collect();
    assert_eq!(world.lines(), expected);
}

/// What was read is committed before it is sent: a runtime that is killed loses it and repeats nothing.
/// Rules: VX-001, VX-762.
#[test]
fn at_most_once_repeats_nothing() {
    const RECORDS: u64 = 2_000;
    if let Some(dir) = runtime_place() {
        at_most_once(&dir, "slow upper", RECORDS);
        return;
    }
    let world = World::new();
    let test = "ownership::at_most_once_repeats_nothing";
    let mut lost = false;
    let written = || {
        let text = std::fs::read_to_string(world.path("out")).unwrap_or_default();
        text.rfind('\n').map_or(String::new(), |end| text[..=end].to_owned())
    };
    // What was delivered stays, whatever the ledger knows of it.
    let mut before = String::new();
    for point in ["C2:3", "C11:5", "C12:2", "C1:6"] {
        let status = runtime(test, &world).env("TIDEGATE_VX_FAILPOINT", point).status().unwrap();
        assert!(!status.success(), "{point} is never passed");
        assert!(written().starts_with(&before), "{point}");
        before = written();
    }
    at_most_once(&world.path(""), "upper", RECORDS);
    assert!(!before.is_empty() && written().starts_with(&before));
    before = written();
    at_most_once(&world.path(""), "upper", RECORDS);
    assert_eq!(written(), before);
    let lines = world.lines();
    let number = |line: &String| line.strip_prefix("UPPER 0:").unwrap().parse::<u64>().unwrap();
    let mut next = 0;
    for line in &lines {
        assert!(number(line) >= next, "{line} again");
        lost |= number(line) > next;
        next = number(line) + 1;
    }
    assert!(lost && next == RECORDS, "nothing was lost: then something was sent before it was committed");
}

fn at_most_once(dir: &std::path::Path, role: &str, records: u64) {
    let source = format!("kind = \"generator\"\nrecords = {records}");
    let text = of(dir, "at_most_once", role, &ledger(dir), &source, &file_sink(dir));
    Vertex::start(text.parse().unwrap()).unwrap().run().unwrap();
}

/// Whoever reads an array sees the rows of an interval when that is over, and not only when the run ends.
/// Rules: VX-762, VX-854.
#[test]
fn at_most_once_flushes_at_intervals() {
    let world = World::new();
    world.write("in", &"row\n".repeat(100));
    let source = format!("{}\nfollow = true", world.file_source("in"));
    let sink = file_sink(&world.path("")) + "format = \"npy\"\ndtype = \"|S9\"\n";
    let text = of(&world.path(""), "at_most_once", "upper", &ledger(&world.path("")), &source, &sink);
    let vertex = Vertex::start(text.parse().unwrap()).unwrap();
    let stop = vertex.stop_handle();
    let running = std::thread::spawn(move || vertex.run());
    let has_rows =
        || fs::read(world.path("out")).is_ok_and(|file| String::from_utf8_lossy(&file).contains("(100, )"));
    wait_for("all rows", || running.is_finished() || has_rows());
    assert!(!running.is_finished(), "{:?}", running.join());
    stop.drain();
    assert_eq!(running.join().unwrap().unwrap().delivered, 100);
}
