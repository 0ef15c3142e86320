//! `tidegate mq bench`, with this program and with scripts; libzmq may not be there.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use tidegate::mq::monitor::EventKind;
use tidegate::mq::{AnySocket, Context, Pull, SocketType};

use crate::beside::beside_itself;
use crate::support::{Outcome, Running, eventually, script, tidegate};
use crate::{mq, run};

/// Arguments of a run that is over soon.
const SHORT: [&str; 12] = [
    "bench",
    "--json",
    "--repetitions",
    "1",
    "--time",
    "50ms",
    "--warmup",
    "10ms",
    "--messages",
    "0",
    "--trips",
    "0",
];
const OURS: [&str; 2] = ["--without-libzmq", "--without-counts"];

fn short(args: &[&str]) -> Outcome {
    run(&[&SHORT, args].concat(), "")
}

/// Lines of measurements, lines of minima, and the last one.
fn parts(results: &[Value]) -> (Vec<&Value>, Vec<&Value>, &Value) {
    let (summary, lines) = results.split_last().expect("results");
    let (minima, measures) = lines.iter().partition(|line| line["rule"].is_string());
    (measures, minima, summary)
}

/// What a peer does that has measured something.
const MEASURED: &str = "echo '{\"begin\":true}'; echo '{\"messages\":1000,\"seconds\":1}'; exec cat";

/// Rules: MQ-500, MQ-502, MQ-503.
#[test]
fn every_kind_of_measurement_has_a_result() {
    let few =
        ["--subscribers", "1,3", "--topics", "1,10", "--dealers", "3", "--connections", "40", "--load", "50"];
    let results = short(&[&OURS[..], &few, &["--sizes", "64"]].concat()).exits(0).results();
    let (measures, minima, summary) = parts(&results);
    let names: BTreeSet<_> = measures.iter().filter_map(|line| line["measure"].as_str()).collect();
    let all = [
        "connections",
        "inproc_rate",
        "inproc_trip",
        "open_loop",
        "pub_sub",
        "push_pull",
        "push_pull_curve",
        "push_pull_ipc",
        "req_rep",
        "router",
        "stalled",
        "topics",
    ];
    assert_eq!(names, BTreeSet::from(all));
    // Twice each: subscribers, topics, and with or without one that is stalled.
    assert_eq!(measures.len(), all.len() + 3);
    for line in measures {
        let name = line["measure"].as_str().expect("a name");
        let mut fields = vec!["messages", "seconds", "messages_per_s", "measuring_cpu_ns_each"];
        if !name.starts_with("inproc") {
            fields.push("other_cpu_ns_each");
        }
        match name {
            "req_rep" | "inproc_trip" | "open_loop" => {
                fields.extend(["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"]);
            }
            "connections" => fields.extend(["up_s", "bytes_per_connection", "measuring_cpu_share"]),
            "topics" => fields.push("published_per_s"),
            // Also how evenly, unless one of the DEALERs sent nothing in so short a time.
            _ => fields.push("bytes_per_s"),
        }
        for field in fields {
            assert!(line[field]["median"].as_f64().is_some_and(|value| value > 0.0), "{field}: {line}");
        }
        assert_eq!(line["runs"].as_array().map(Vec::len), Some(1), "{line}");
    }
    let judged = |rule: &str| -> Vec<&Value> {
        minima.iter().filter(|line| line["rule"] == rule).map(|line| &line["met"]).collect()
    };
    assert_eq!(judged("MQ-480"), ["unknown"], "nothing to compare with");
    assert!(judged("MQ-493").iter().all(|met| *met == "yes" || *met == "no"));
    assert_eq!(judged("MQ-486").len(), 1);
    assert!(summary["kernel"].is_string() && summary["cores"].is_u64(), "{summary}");
    assert!(summary["programs"]["tidegate"]["driver"].is_string(), "{summary}");
}

/// Rules: MQ-503.
#[test]
fn allocations_are_counted() {
    let args = [&SHORT[..], &["--without-libzmq", "--only", "push-pull", "--sizes", "1k"]].concat();
    let mut command = mq(&args, "");
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let results = Running::start(&mut command).finish().exits(0).results();
    let (measures, _, summary) = parts(&results);
    assert_eq!(summary["allocations"], "preloaded library");
    // The sender makes a buffer for each message.
    let made = measures[0]["other_allocations_each"].as_f64().expect("a number");
    assert!((0.5..100.0).contains(&made), "{made}");
}

/// Rules: MQ-499.
#[test]
fn each_driver_is_a_program_of_its_own() {
    let args = [&OURS[..], &["--driver", "auto,polling", "--only", "inproc-trip"]].concat();
    let results = short(&args).exits(0).results();
    let (measures, _, summary) = parts(&results);
    let names: Vec<_> = measures.iter().map(|line| line["program"].as_str().expect("a name")).collect();
    assert_eq!(names, ["tidegate", "tidegate-polling"]);
    assert_eq!(summary["programs"]["tidegate-polling"]["driver"], "Polling");
}

/// Rules: MQ-504.
#[test]
fn programs_take_turns() {
    let place = tempfile::tempdir().expect("a directory");
    let log = place.path().join("log");
    let peer = |name: &str| {
        let path = script(place.path(), name, &format!("echo {name} >> {}; {MEASURED}", log.display()));
        format!("{name}={}", path.display())
    };
    let [first, second] = ["A", "B"].map(peer);
    let args = ["--only", "inproc-rate", "--peer", first.as_str(), "--peer", second.as_str()];
    let mut args = [&SHORT[..], &OURS, &args].concat();
    args[3] = "3";
    let results = run(&args, "").exits(0).results();
    assert_eq!(std::fs::read_to_string(&log).expect("a log"), "A\nB\nA\nB\nA\nB\n");
    let (measures, _, _) = parts(&results);
    let foreign: Vec<_> = measures.iter().filter(|line| line["program"] == "B").collect();
    assert_eq!(foreign[0]["messages_per_s"]["median"], 1000.0);
    assert_eq!(foreign[0]["repetitions"], 3);
}

/// Roles, sizes, times and numbers are the same for whoever is measured; nobody is told how to go about it.
///
/// Rules: MQ-501.
#[test]
fn all_programs_get_the_same_orders() {
    let place = tempfile::tempdir().expect("a directory");
    let peer = |name: &str| {
        let log = place.path().join(format!("{name}.log"));
        let bound = "[ $2 = bind ] && echo '{\"bound\":\"tcp://127.0.0.1:1\"}'";
        // An end that does not measure may be gone before it has written anything.
        let note = format!("case $1 in push|dealers) ;; *) echo $* >> {};; esac", log.display());
        let path = script(place.path(), name, &format!("{note}; {bound}; {MEASURED}"));
        format!("{name}={}", path.display())
    };
    let [first, second] = ["A", "B"].map(peer);
    let kinds = "req-rep,push-pull,ipc,inproc-rate,inproc-trip,pub-sub,stalled,topics,router,curve";
    let few = ["--subscribers", "3", "--topics", "5", "--dealers", "7", "--sizes", "64"];
    let both = ["--only", kinds, "--peer", first.as_str(), "--peer", second.as_str()];
    short(&[&OURS[..], &few, &both].concat()).exits(0);
    let orders = |name: &str| std::fs::read_to_string(place.path().join(name)).expect("a log");
    assert_eq!(orders("A.log"), orders("B.log"));
    for order in orders("A.log").lines() {
        let mut names: Vec<_> = order.split(' ').filter_map(|word| Some(word.split_once('=')?.0)).collect();
        names.retain(|name| !["stalled", "security"].contains(name));
        assert_eq!(names, ["size", "count", "warmup", "measure", "longest", "least"], "{order}");
        assert!(order.contains("warmup=0.01 measure=0.05 longest=0.15"), "{order}");
    }
}

/// One end of a measurement.
fn end(args: &[&str]) -> Running {
    // It stays as long as its standard input is open.
    Running::start(mq(&[&["bench-peer"], args].concat(), "").stdin(Stdio::piped()))
}

/// Rules: MQ-505.
#[test]
fn a_measurement_has_one_connection() {
    let times = ["warmup=0", "measure=600", "longest=600"];
    for (role, kind) in [("push", SocketType::Pull), ("req", SocketType::Rep)] {
        let context = Context::new();
        let socket = AnySocket::of_type(&context, kind).expect("a socket");
        let monitor = socket.monitor();
        let endpoint = socket.bind_blocking("tcp://127.0.0.1:*").expect("a port");
        let _peer = end(&[&[role, "connect", endpoint.as_str()], &times[..]].concat());
        for _ in 0..5000 {
            let message = socket.recv_blocking().expect("a message");
            if kind == SocketType::Rep {
                socket.send_blocking(message).expect("a connection");
            }
        }
        let events = std::iter::from_fn(|| monitor.try_next());
        let accepted = events.filter(|event| matches!(event.kind, EventKind::Accepted(_))).count();
        assert_eq!(accepted, 1, "{role}");
    }
}

/// Messages are stamped with the time at which they were due, however late they are sent.
///
/// Rules: MQ-502.
#[test]
fn in_the_open_loop_age_counts_from_when_a_message_was_due() {
    let context = Context::new();
    let pull = Pull::new(&context).expect("a socket");
    let endpoint = pull.bind_blocking("tcp://127.0.0.1:*").expect("a port");
    // One each nanosecond: more than anybody can send.
    let _push = end(&["paced-push", "connect", &endpoint, "size=8", "rate=1e9"]);
    let due = || {
        let message = pull.recv_blocking().expect("a message");
        u64::from_le_bytes(message.parts()[0].as_slice().try_into().expect("eight bytes"))
    };
    let first = due();
    for number in 1..5000 {
        assert_eq!(due(), first + number);
    }
}

#[test]
fn what_a_foreign_program_does_not_know_is_left_out() {
    let place = tempfile::tempdir().expect("a directory");
    let path = script(place.path(), "peer", "echo '{\"cannot\":\"too hard\"}'; exec cat");
    let peer = format!("other={}", path.display());
    let outcome = short(&[&OURS[..], &["--only", "inproc-rate", "--peer", &peer]].concat()).exits(0);
    assert!(outcome.stderr.contains("other cannot do it: too hard"), "{}", outcome.stderr);
    assert!(outcome.results().iter().all(|line| line["program"] != "other"));
}

#[test]
fn a_program_that_dies_or_babbles_fails_the_run_but_not_the_others() {
    let place = tempfile::tempdir().expect("a directory");
    for (measure, part) in
        [("exit 3", "ended without a result (exit status: 3)"), ("echo hello; cat", "printed something else")]
    {
        let peer = format!("other={}", script(place.path(), "peer", measure).display());
        let outcome = short(&[&OURS[..], &["--only", "inproc-rate", "--peer", &peer]].concat()).exits(1);
        let (code, message) = outcome.error();
        assert_eq!(code, "bench");
        assert!(message.contains(part) && message.contains("inproc_rate"), "{message}");
        assert_eq!(outcome.results()[0]["program"], "tidegate");
    }
    let missing = [&OURS[..], &["--peer", "other=/no/such/program"]].concat();
    assert_eq!(short(&missing).exits(3).error().0, "not_found");
}

#[test]
fn a_missing_compiler_or_libzmq_is_said() {
    let place = tempfile::tempdir().expect("a directory");
    let bench = |path: &Path| {
        let mut command = mq(&["bench", "--json", "--without-counts"], "");
        Running::start(command.env("PATH", path)).finish().exits(3).error()
    };
    let (code, message) = bench(place.path());
    assert!(code == "no_compiler" && message.contains("install gcc"), "{code}: {message}");
    script(place.path(), "cc", "echo 'x.c:1: fatal error: zmq.h: No such file or directory' >&2; exit 1");
    let (code, message) = bench(place.path());
    assert!(
        code == "no_libzmq" && message.contains("zmq.h") && message.contains("libzmq3-dev"),
        "{code}: {message}"
    );
}

/// A run whose only turn never ends, its processes and the directory for its files.
fn endless() -> (Running, Vec<u32>, tempfile::TempDir) {
    let place = tempfile::tempdir().expect("a directory");
    let mut command = tidegate();
    command
        .args(["mq", "bench", "--json", "--only", "push-pull", "--sizes", "64", "--time", "10m"])
        .args(OURS);
    let bench = Running::start(command.env("TMPDIR", place.path()));
    let pid = bench.pid();
    let children = eventually("two processes measure", || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let ids: Vec<u32> = text.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        (ids.len() == 2).then_some(ids)
    });
    (bench, children, place)
}

fn is_there(id: u32) -> bool {
    // One that has ended and waits for whoever adopted it does nothing any more.
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn an_interrupted_run_leaves_no_process_and_no_file() {
    let (bench, children, place) = endless();
    bench.signal(Signal::INT);
    let (code, _) = bench.finish().exits(1).error();
    assert_eq!(code, "interrupted");
    assert!(!children.into_iter().any(is_there));
    assert_eq!(std::fs::read_dir(place.path()).expect("a directory").count(), 0);
}

#[test]
fn the_ends_do_not_outlive_a_killed_runner() {
    let (bench, children, _place) = endless();
    bench.signal(Signal::KILL);
    bench.finish();
    eventually("the ends are gone", || (!children.iter().copied().any(is_there)).then_some(()));
}

/// Rules: MQ-506.
#[test]
fn raw_results_are_kept_beside_the_tables() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("results.jsonl");
    let path = file.display().to_string();
    let args =
        ["mq", "bench", "--only", "inproc-rate", "--repetitions", "2", "--time", "50ms", "--warmup", "10ms"];
    let mut command = tidegate();
    command.args(args).args(["--messages", "0", "--save", &path]).args(OURS);
    let outcome = Running::start(&mut command).finish().exits(0);
    assert!(outcome.stdout.contains("MQ-487"), "{}", outcome.stdout);
    let text = std::fs::read_to_string(&file).expect("a file");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (measures, minima, summary) = parts(&lines);
    assert_eq!(measures[0]["runs"].as_array().map(Vec::len), Some(2));
    assert_eq!(minima[0]["rule"], "MQ-487");
    assert_eq!(summary["summary"], true);
    short(&[&OURS[..], &["--only", "inproc-rate", "--save", "/no/such/directory/file"]].concat()).exits(3);
}

/// Rules: MQ-506.
#[test]
fn a_regression_against_the_baseline_fails_the_run() {
    let place = tempfile::tempdir().expect("a directory");
    let stored = place.path().join("before.json");
    let only = [&OURS[..], &["--only", "inproc-rate"]].concat();
    let against = |factor| beside_itself(short, &only, &stored, factor);
    let worse = against(1e3).exits(1).results();
    let regression = worse.last().expect("results");
    assert!(regression["regression"].as_f64() > Some(0.05), "{regression}");
    assert_eq!((&regression["measure"], &regression["program"]), (&"inproc_rate".into(), &"tidegate".into()));
    let better = against(1e-3).exits(0).results();
    assert!(better.iter().all(|line| line["regression"].is_null()));
    std::fs::write(&stored, "{}\n").expect("room for it");
    let baseline = stored.display().to_string();
    assert_eq!(short(&[&only[..], &["--baseline", &baseline]].concat()).exits(2).error().0, "usage");
}

#[test]
fn the_options_exclude_what_contradicts_them() {
    for args in [
        ["--quick", "--sizes", "64"],
        ["--quick", "--repetitions", "2"],
        ["--without-libzmq", "--libzmq", "/lib/libzmq.so"],
        ["--quick", "--repetitions", "0"],
        ["--quick", "--driver", "epoll"],
        ["--quick", "--only", "nothing"],
    ] {
        run(&[&["bench"][..], &args].concat(), "").exits(2);
    }
}
