//! `tidegate hub bench`, with this program and with scripts; iceoryx2 need not be there.
#![allow(clippy::expect_used, reason = "a test may fail")]

#[path = "support/bench.rs"]
mod beside;
#[path = "support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use beside::beside_itself;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Outcome, Running, eventually, script, tidegate};

/// Arguments of a run that is over soon.
const SHORT: [&str; 7] = ["hub", "bench", "--json", "--repetitions", "1", "--warmup", "10ms"];
const OURS: [&str; 2] = ["--alone", "--without-counts"];
/// What a peer does that has measured something.
const MEASURED: &str = "echo '{\"begin\":true}'; echo '{\"messages\":1000,\"seconds\":1}'; exec cat";

fn short(args: &[&str]) -> Outcome {
    lasting("50ms", args)
}

fn lasting(time: &str, args: &[&str]) -> Outcome {
    let mut command = tidegate();
    // Without a PATH there is no compiler to build what counts.
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    Running::start(command.args(SHORT).args(["--time", time]).args(args)).finish()
}

/// Lines of measurements, lines of minima, and the last one.
fn parts(results: &[Value]) -> (Vec<&Value>, Vec<&Value>, &Value) {
    let (summary, lines) = results.split_last().expect("results");
    let (minima, measures) = lines.iter().partition(|line| line["rule"].is_string());
    (measures, minima, summary)
}

/// Rules: DH-283, F-01.
#[test]
fn every_kind_of_measurement_has_a_result() {
    let results = short(&[&OURS[..], &["--sizes", "64", "--readers", "1,16"]].concat()).exits(0).results();
    let (measures, minima, summary) = parts(&results);
    let names: BTreeSet<_> = measures.iter().filter_map(|line| line["measure"].as_str()).collect();
    let all = [
        "authenticated",
        "batch",
        "calls",
        "closures",
        "digest",
        "digest_trip",
        "double",
        "double_trip",
        "guards",
        "idle",
        "one_way",
        "readers",
        "single",
        "single_trip",
        "trip",
        "wake",
    ];
    assert_eq!(names, BTreeSet::from(all));
    let calls: Vec<_> = measures.iter().filter_map(|line| line["call"].as_str()).collect();
    assert_eq!(calls, ["acquire", "acquire-batch", "commit", "read", "poll", "lock", "reap"]);
    for line in &measures {
        let fields: &[&str] = match line["measure"].as_str().expect("a name") {
            "trip" | "wake" | "single_trip" | "double_trip" | "digest_trip" => {
                &["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"]
            }
            "idle" => &[],
            _ => &["messages_per_s"],
        };
        for field in ["messages", "seconds"].iter().chain(fields) {
            assert!(line[field]["median"].as_f64().is_some_and(|value| value > 0.0), "{field}: {line}");
        }
        assert!(line["measuring_cpu_share"]["median"].is_f64(), "{line}");
    }
    let counts = measures.iter().filter(|line| line["measure"] == "readers").map(|line| &line["count"]);
    assert_eq!(counts.collect::<Vec<_>>(), [1, 16]);
    let judged = |ours: &str| minima.iter().filter(|line| line["measure"] == ours).count();
    assert_eq!((judged("trip"), judged("closures"), judged("idle")), (3, 1, 1));
    assert_eq!((judged("wake"), judged("calls"), judged("single"), judged("single_trip")), (2, 7, 1, 2));
    assert_eq!(minima[0]["met"], "unknown", "there is nothing to compare with");
    for field in ["kernel", "cores", "page_size", "programs"] {
        assert!(!summary[field].is_null(), "{field}: {summary}");
    }
    assert!(summary.get("pinned").is_some(), "{summary}");
}

/// Rules: DH-283.
#[test]
fn aeron_and_bare_memory_are_measured_beside_the_hub() {
    let args = ["--without-counts", "--sizes", "64", "--only", "trip,batch,wake"];
    let results = short(&args).exits(0).results();
    let (measures, minima, _) = parts(&results);
    let of = |program: &str| -> Vec<&str> {
        let lines = measures.iter().filter(|line| line["program"] == program);
        lines.filter_map(|line| line["measure"].as_str()).collect()
    };
    assert_eq!(of("tidegate"), ["trip", "batch", "wake"]);
    assert_eq!(of("aeron"), ["trip", "batch"]);
    assert_eq!(of("bare"), ["trip", "batch", "wake"]);
    let judged = |measure: &str| -> Vec<bool> {
        let lines = minima.iter().filter(|line| line["measure"] == measure);
        lines.map(|line| line["met"] != "unknown").collect()
    };
    // Only iceoryx2 is not there.
    assert_eq!(
        [judged("trip"), judged("batch"), judged("wake")],
        [vec![false, true, true], vec![true], vec![true, true]]
    );
}

/// Rules: DH-130.
#[test]
fn a_record_takes_no_allocation() {
    let args = ["--alone", "--only", "one-way,batch", "--sizes", "64"];
    let results = lasting("500ms", &args).exits(0).results();
    let (measures, _, summary) = parts(&results);
    assert_eq!(summary["allocations"], "preloaded library");
    assert_eq!(measures.len(), 2);
    for line in measures {
        for end in ["measuring", "other"] {
            // Beats and the end itself allocate now and then.
            let made = line[&format!("{end}_allocations_each")].as_f64().expect("a number");
            assert!(made < 0.01, "{end}: {line}");
        }
    }
}

#[test]
fn programs_take_turns_and_get_the_same_orders() {
    let place = tempfile::tempdir().expect("a directory");
    let log = place.path().join("log");
    let peer = |name: &str| {
        let path = script(place.path(), name, &format!("echo {name} $* >> {}; {MEASURED}", log.display()));
        format!("{name}={}", path.display())
    };
    let [first, second] = ["A", "B"].map(peer);
    let args = ["--only", "guards", "--peer", first.as_str(), "--peer", second.as_str()];
    let results = short(&[&OURS[..], &args].concat()).exits(0).results();
    let text = std::fs::read_to_string(&log).expect("a log");
    let orders: Vec<_> = text.lines().map(|line| line.split_at(1)).collect();
    assert_eq!(orders.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(orders[0].1, orders[1].1);
    assert!(orders[0].1.contains("size=64 count=1 warmup=0.01 measure=0.05"), "{text}");
    let (measures, _, _) = parts(&results);
    let foreign: Vec<_> = measures.iter().filter(|line| line["program"] == "B").collect();
    assert_eq!(foreign[0]["messages_per_s"]["median"], 1000.0);
}

#[test]
fn what_a_foreign_program_does_not_know_is_left_out() {
    let place = tempfile::tempdir().expect("a directory");
    let path = script(place.path(), "peer", "echo '{\"cannot\":\"too hard\"}'; exec cat");
    let peer = format!("other={}", path.display());
    let outcome = short(&[&OURS[..], &["--only", "guards", "--peer", &peer]].concat()).exits(0);
    assert!(outcome.stderr.contains("other cannot do it: too hard"), "{}", outcome.stderr);
    assert!(outcome.results().iter().all(|line| line["program"] != "other"));
}

/// Rules: DH-283.
#[test]
fn more_than_a_fifth_worse_than_the_baseline_fails_the_run() {
    let place = tempfile::tempdir().expect("a directory");
    let stored = place.path().join("before.json");
    let only = [&OURS[..], &["--only", "guards"]].concat();
    let against = |factor| beside_itself(short, &only, &stored, factor);
    let worse = against(1e6).exits(1).results();
    let regression = worse.last().expect("results");
    assert!(regression["regression"].as_f64() > Some(0.2), "{regression}");
    let better = against(1e-6).exits(0).results();
    assert!(better.iter().all(|line| line["regression"].is_null()));
}

fn is_there(id: u32) -> bool {
    // One that has ended and waits for whoever adopted it does nothing any more.
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// A run whose only turn never ends, its processes and the directory for its files.
fn endless() -> (Running, Vec<u32>, PathBuf) {
    let mut command = tidegate();
    command.args(["hub", "bench", "--json", "--only", "trip", "--sizes", "64", "--time", "10m"]).args(OURS);
    let bench = Running::start(&mut command);
    let pid = bench.pid();
    let children = eventually("two processes measure", || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let ids: Vec<u32> = text.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        (ids.len() == 2).then_some(ids)
    });
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", children[0])).expect("a process");
    let place = command.split('\0').find(|word| word.starts_with("/dev/shm/")).expect("a directory");
    (bench, children, place.into())
}

#[test]
fn an_interrupted_run_leaves_no_process_and_no_file() {
    let (bench, children, place) = endless();
    assert!(place.exists());
    bench.signal(Signal::INT);
    let (code, _) = bench.finish().exits(1).error();
    assert_eq!(code, "interrupted");
    assert!(!children.into_iter().any(is_there));
    assert!(!place.exists());
}

/// What a killed run leaves is known to the doctor, and one that goes on is not touched.
#[test]
fn the_ends_do_not_outlive_a_killed_runner_and_the_doctor_removes_the_rest() {
    let (bench, children, place) = endless();
    let pid = bench.pid();
    // Others may measure on this machine, too.
    let live = doctor(Path::new("/dev/shm"), &[], &place);
    assert_eq!((&live["status"], &live["pid"]), (&json!("ok"), &json!(pid)));
    bench.signal(Signal::KILL);
    bench.finish();
    eventually("the ends are gone", || (!children.iter().copied().any(is_there)).then_some(()));
    let apart = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let left = apart.path().join(place.file_name().expect("a name"));
    std::fs::rename(&place, &left).expect("both are in shared memory");
    let dead = doctor(apart.path(), &[], &left);
    assert_eq!((&dead["safe_to_remove"], &dead["pid"]), (&json!(true), &json!(pid)));
    assert!(left.exists(), "looking changes nothing");
    assert_eq!(doctor(apart.path(), &["--fix"], &left)["status"], "fixed");
    assert!(!left.exists());
}

/// What `tidegate doctor` says of the directory of a run.
fn doctor(shm: &Path, args: &[&str], dir: &Path) -> Value {
    let mut command = tidegate();
    command.args(["doctor", "--json", "--min-free", "0", "--shm"]).arg(shm).args(args);
    let found = Running::start(&mut command).finish().results();
    let of_run = found.into_iter().find(|finding| finding["path"] == json!(dir));
    of_run.expect("a finding")
}
