//! Runtimes that are killed at each named step of an epoch, and what the sinks have after the next run (12.6).

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::process::ExitStatusExt,
    path::Path,
};

use tidegate_shm::sync::Arc;
use tidegate_udf::wire::ids::PartitionId;
use tidegate_vertex::{
    config::Pipeline,
    ledger::inspect,
    own::InProc,
    run::{Report, Vertex},
};

use crate::world::{World, epoch_files, ledger, of, runtime, runtime_place, with_epochs};

/// Four epochs of each partition at least, however many batches are answered at the same moment.
const RECORDS: u64 = 900;
const PARTITIONS: u32 = 2;

/// Every step at which a runtime can be killed, and at which of its passes.
const POINTS: &[&str] = &[
    "C0", "C1", "C1:4", "C2", "C2:5", "C3", "C3:3", "C4", "C4:4", "C5", "C5:3", "C6", "C6:4", "C7", "C7:3",
    "C8", "C8:3", "C9", "C9:3", "C10", "C10:3", "C11", "C11:3", "C12", "C12:4",
];

fn source() -> String {
    format!("kind = \"generator\"\npartitions = {PARTITIONS}\nrecords = {RECORDS}")
}

fn sink(dir: &Path, kind: &str) -> String {
    let keys = match kind {
        "epoch" => format!("kind = \"file\"\nmode = \"epoch\"\ndir = {:?}", dir.join("epochs")),
        "append" => format!("kind = \"file\"\npath = {:?}\nallow_duplicates = true", dir.join("out")),
        "stdout" => "kind = \"stdout\"\nallow_duplicates = true".to_owned(),
        other => panic!("no such sink: {other}"),
    };
    format!("[[sink]]\nname = \"main\"\n{keys}")
}

/// Runs a vertex to its end in this process; under a manager of the process if the environment says so.
fn run(pipeline: Pipeline) -> Report {
    if std::env::var_os("TIDEGATE_TEST_INPROC").is_none() {
        return Vertex::start(pipeline).unwrap().run().unwrap();
    }
    let manager = InProc::default();
    (0..PARTITIONS).for_each(|partition| manager.assign(PartitionId(partition), Some(1)));
    let member = Arc::new(manager.member(1, PARTITIONS));
    Vertex::start_under(pipeline, member).unwrap().run().unwrap()
}

/// Kills a runtime at each step, lets the next one finish, and shows the test what the sink has.
fn killed_at_each_step(test: &str, kind: &str, inproc: bool, check: impl Fn(&World, &str)) {
    if let Some(dir) = runtime_place() {
        run(with_epochs(&dir, "upper", &source(), &sink(&dir, kind)));
        return;
    }
    for point in POINTS {
        // Only sinks that can stage have it, and only the others are visible in part.
        let elsewhere = if kind == "epoch" { "C8" } else { "C7" };
        if point.starts_with(elsewhere) {
            continue;
        }
        let world = World::new();
        let start = |point: Option<&str>| {
            let out = OpenOptions::new().create(true).append(true).open(world.path("stdout")).unwrap();
            let mut command = runtime(test, &world);
            command.stdout(out);
            if inproc {
                command.env("TIDEGATE_TEST_INPROC", "1");
            }
            if let Some(point) = point {
                command.env("TIDEGATE_VX_FAILPOINT", point);
            }
            command.status().unwrap()
        };
        assert_eq!(start(Some(point)).signal(), Some(9), "{point} is never passed");
        assert!(start(None).success(), "after {point}");
        check(&world, point);
    }
}

fn expected(partition: u32) -> Vec<String> {
    (0..RECORDS).map(|position| format!("UPPER {partition}:{position}")).collect()
}

/// The lines of each partition, in the order in which the sink has them.
fn by_partition(lines: &str) -> BTreeMap<u32, Vec<String>> {
    let mut by_partition: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for line in lines.lines().filter(|line| line.starts_with("UPPER ")) {
        let partition = line["UPPER ".len()..].split_once(':').unwrap().0;
        by_partition.entry(partition.parse().unwrap()).or_default().push(line.to_owned());
    }
    by_partition
}

fn epochs_are_whole(world: &World, point: &str) {
    for partition in 0..PARTITIONS {
        let files = epoch_files(&world.path("epochs"), partition);
        assert_eq!(files.concat(), expected(partition), "killed at {point}");
        let names = fs::read_dir(world.path("epochs").join(format!("p={partition}"))).unwrap();
        let hidden =
            names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(hidden.count(), 1, "staging directories of sessions that are over stay behind");
    }
}

/// Cases: CT-38, CT-53.
/// Rules: VX-755, VX-760, VX-763, VX-767, VX-780, VX-781, VX-782, VX-785, VX-853.
#[test]
fn a_file_for_each_epoch_has_everything_once() {
    let test = "crashes::a_file_for_each_epoch_has_everything_once";
    killed_at_each_step(test, "epoch", false, epochs_are_whole);
}

/// Cases: CT-38.
/// Rules: VX-703, VX-785.
#[test]
fn so_it_has_under_a_manager_of_the_process() {
    let test = "crashes::so_it_has_under_a_manager_of_the_process";
    killed_at_each_step(test, "epoch", true, epochs_are_whole);
}

/// A runtime that is killed when it has claimed its partitions has written its generation and its staging directories, and
/// nothing else: no input was read, no worker was started, nothing is visible.
/// Rules: VX-701, VX-730.
#[test]
fn a_claim_comes_before_everything() {
    let test = "crashes::a_claim_comes_before_everything";
    if let Some(dir) = runtime_place() {
        run(with_epochs(&dir, "upper", &source(), &sink(&dir, "epoch")));
        return;
    }
    let world = World::new();
    for generation in 1..=2 {
        let killed = runtime(test, &world).env("TIDEGATE_VX_FAILPOINT", "C0").status().unwrap();
        assert_eq!(killed.signal(), Some(9));
        assert!(!world.path("pids").exists(), "a worker was started");
        let ledger = inspect(&world.path("ledger"), None).unwrap().unwrap();
        for partition in 0..PARTITIONS {
            assert_eq!(epoch_files(&world.path("epochs"), partition), Vec::<Vec<String>>::new());
            let claimed = &ledger["partitions"][partition as usize];
            assert_eq!((&claimed["generation"], &claimed["committed"]), (&generation.into(), &0.into()));
        }
    }
}

/// Cases: CT-38, CT-53.
/// Rules: VX-763, VX-767, VX-780, VX-781, VX-785, VX-853.
#[test]
fn a_file_that_is_appended_to_is_cut_back_and_has_everything_once() {
    let test = "crashes::a_file_that_is_appended_to_is_cut_back_and_has_everything_once";
    killed_at_each_step(test, "append", false, |world, point| {
        let found = by_partition(&fs::read_to_string(world.path("out")).unwrap());
        for partition in 0..PARTITIONS {
            assert_eq!(found[&partition], expected(partition), "killed at {point}");
        }
    });
}

/// What cannot be cut back has at most the epoch that was visible and not committed twice.
/// Cases: CT-38.
/// Rules: VX-750, VX-763, VX-785.
#[test]
fn standard_output_has_at_most_one_epoch_of_each_partition_twice() {
    let test = "crashes::standard_output_has_at_most_one_epoch_of_each_partition_twice";
    killed_at_each_step(test, "stdout", false, |world, point| {
        let found = by_partition(&fs::read_to_string(world.path("stdout")).unwrap());
        for partition in 0..PARTITIONS {
            let mut lines = found[&partition].clone();
            let total = lines.len();
            lines.sort_by_key(|line| line.rsplit(':').next().unwrap().parse::<u64>().unwrap());
            lines.dedup();
            assert_eq!(lines, expected(partition), "killed at {point}");
            let twice = total - lines.len();
            // An epoch ends with the batch that makes it a hundred inputs. One of them is decided (C4) and persisted (C5)
            // while one of another partition may be visible, which the same transaction is to commit.
            let between =
                ["C4", "C5", "C8", "C9", "C10"].iter().any(|step| point.split(':').next() == Some(step));
            assert!(twice <= if between { 99 + 50 } else { 0 }, "killed at {point}: {twice} twice");
        }
    });
}

/// The function says something else in each run: what is visible of an epoch is of one run, that which decided it.
/// Cases: CT-65.
/// Rules: VX-767, VX-781.
#[test]
fn an_epoch_is_of_one_run_however_often_its_redo_is_killed() {
    let test = "crashes::an_epoch_is_of_one_run_however_often_its_redo_is_killed";
    if let Some(dir) = runtime_place() {
        run(with_epochs(&dir, "who", &source(), &(sink(&dir, "epoch") + "\n" + &append(&dir))));
        return;
    }
    let world = World::new();
    // Decided; staged in part, twice; visible in one sink and in part in the other; and then again and to the end.
    for point in ["C6:3", "C7", "C7", "C8", "C9", "C8", "C6:2", "C10"] {
        let status = runtime(test, &world).env("TIDEGATE_VX_FAILPOINT", point).status().unwrap();
        assert_eq!(status.signal(), Some(9), "{point} is never passed");
    }
    assert!(runtime(test, &world).status().unwrap().success());
    let mut appended: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for line in fs::read_to_string(world.path("out")).unwrap().lines() {
        let partition = line.split_once(':').unwrap().0.parse().unwrap();
        appended.entry(partition).or_default().push(line.to_owned());
    }
    let mut runs = 0;
    for partition in 0..PARTITIONS {
        let files = epoch_files(&world.path("epochs"), partition);
        let mut position = 0;
        for file in &files {
            let worker = |line: &String| line.split_once(' ').unwrap().1.to_owned();
            assert!(
                file.iter().all(|line| worker(line) == worker(&file[0])),
                "one epoch of two runs: {file:?}"
            );
            for line in file {
                assert_eq!(line.split_once(' ').unwrap().0, format!("{partition}:{position}"));
                position += 1;
            }
        }
        assert_eq!(position, RECORDS);
        runs = runs.max(
            files
                .iter()
                .map(|file| file[0].split_once(' ').unwrap().1)
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
        );
        assert_eq!(appended[&partition], files.concat(), "two sinks have other outputs");
    }
    assert!(runs > 1, "all epochs are of one run");
}

fn append(dir: &Path) -> String {
    sink(dir, "append").replace("\"main\"", "\"second\"")
}

/// What goes into an epoch depends on time; the ids of the outputs do not.
/// Cases: CT-41.
/// Rules: VX-790, VX-791, VX-792.
#[test]
fn ids_are_the_same_whatever_the_epochs_are() {
    let ids = |max_records: u32| {
        let world = World::new();
        let dir = world.path("");
        let sinks = format!(
            "{}\n[[sink]]\nname = \"dead\"\nrole = \"dlq\"\nkind = \"file\"\nmode = \"epoch\"\ndir = {:?}",
            sink(&dir, "epoch"),
            dir.join("dead"),
        );
        let rest = format!("retry = {{ attempts = 1 }}{}[epoch]\nmax_records = {max_records}", ledger(&dir));
        let text = of(&dir, "effectively_once", "fail always", &rest, &source(), &sinks);
        let report = Vertex::start(text.parse().unwrap()).unwrap().run().unwrap();
        assert_eq!(report.dead, u64::from(PARTITIONS) * RECORDS.div_ceil(50));
        let mut ids = Vec::new();
        let mut epochs = 0;
        for partition in 0..PARTITIONS {
            let files = epoch_files(&dir.join("dead"), partition);
            epochs += files.len();
            for line in files.concat() {
                let letter: serde_json::Value = serde_json::from_str(&line).unwrap();
                ids.push(letter["id"].as_str().unwrap().to_owned());
            }
        }
        (ids, epochs)
    };
    let (few, few_epochs) = ids(10_000);
    let (many, many_epochs) = ids(50);
    assert_eq!(few, many);
    assert!(few_epochs < many_epochs);
    assert_eq!(few[1], "00000000000000aa.dead.0.32.0");
}
