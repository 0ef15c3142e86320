//! Runs from a file to a file, and what is wrong with them.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use rustix::process::Signal;

use crate::support::{Outcome as Finished, Running, eventually, tidegate};
use crate::world::{FUNCTION, command};

fn vertex<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Finished {
    Running::start(tidegate().arg("vertex").args(args).env(FUNCTION, "upper")).finish()
}

/// A pipeline from `input` to `out` in `dir`, with `more` at its end.
fn pipeline(dir: &Path, more: &str) -> String {
    let file = dir.join("pipeline.toml");
    let text = format!(
        "version = 1
        [pipeline]
        name = \"test\"
        uid = \"00000000000000aa\"
        delivery = \"at_least_once\"
        [udf]
        command = {:?}
        [source]
        kind = \"file\"
        path = {:?}
        [[sink]]
        name = \"main\"
        kind = \"file\"
        path = {:?}
        {more}",
        command(),
        dir.join("input"),
        dir.join("out"),
    );
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn ledger(dir: &Path) -> String {
    format!("[ledger]\npath = {:?}", dir.join("ledger"))
}

/// Rules: VX-512, VX-861.
#[test]
fn a_function_runs_over_the_lines_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("input");
    fs::write(&input, "one\ntwo\n").unwrap();
    let udf = command().join(" ");
    let finished = vertex(["udf-test", "--udf", &udf, "--in", input.to_str().unwrap()]).exits(0);
    assert_eq!(finished.stdout, "ONE\nTWO\n");
    assert!(finished.stderr.contains("2 read: 2 delivered as 2 outputs"), "{}", finished.stderr);
    let out = dir.path().join("out");
    let args = [
        "udf-test",
        "--udf",
        &udf,
        "--in",
        input.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--json",
    ];
    let report = vertex(args).exits(0).result();
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((count("read"), count("delivered")), (2, 2));
    assert_eq!(["filtered", "dead", "dropped", "returned", "refused", "redone"].map(count), [0; 6]);
    assert_eq!(fs::read_to_string(out).unwrap(), "ONE\nTWO\n");
}

/// Rules: VX-860, VX-861.
#[test]
fn a_pipeline_runs_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = pipeline(dir.path(), &ledger(dir.path()));
    fs::write(dir.path().join("input"), "one\n").unwrap();
    let report = vertex(["run", "-c", &file, "--json"]).exits(0).result();
    assert_eq!(report["read"], 1);
    fs::write(dir.path().join("input"), "one\ntwo\n").unwrap();
    let report = vertex(["run", "-c", &file, "--json"]).exits(0).result();
    assert_eq!(report["read"], 1);
    assert_eq!(fs::read_to_string(dir.path().join("out")).unwrap(), "ONE\nTWO\n");
}

/// Rules: VX-786.
#[test]
fn a_ledger_that_is_gone_is_made_anew_when_somebody_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = pipeline(dir.path(), &ledger(dir.path()));
    fs::write(dir.path().join("input"), "one\n").unwrap();
    vertex(["run", "-c", &file]).exits(0);
    fs::remove_file(dir.path().join("ledger").join("ledger.redb")).unwrap();
    let (code, message) = vertex(["run", "-c", &file, "--json"]).exits(73).error();
    assert!(code == "ledger" && message.contains("--new-ledger"), "{message}");
    let report = vertex(["run", "-c", &file, "--new-ledger", "--json"]).exits(0).result();
    assert_eq!(report["read"], 1);
    let report = vertex(["run", "-c", &file, "--json"]).exits(0).result();
    assert_eq!(report["read"], 0);
}

/// A run that has only some partitions leaves the others out of its ledger: those it has are shown, and keep their numbers.
/// Rules: VX-833.
#[test]
fn partitions_behind_others_that_were_never_run_are_known() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["in0", "in1", "in2"] {
        fs::write(dir.path().join(name), format!("{name}\n")).unwrap();
    }
    let file = pipeline(dir.path(), &ledger(dir.path()));
    let source = format!("source.path={:?}", dir.path().join("in?"));
    let run = || vertex(["run", "-c", &file, "--set", &source, "--partitions", "2", "--json"]);
    assert_eq!(run().exits(0).result()["read"], 1);
    let ledger = dir.path().join("ledger");
    let inspect = |more: &[&str]| {
        let args = [&["inspect", ledger.to_str().unwrap(), "--json"], more].concat();
        vertex(args).exits(0).result()["partitions"].clone()
    };
    for found in [inspect(&[]), inspect(&["--partition", "2"])] {
        assert_eq!((&found[0]["partition"], &found[0]["records"][0]["inputs"]), (&2.into(), &1.into()));
    }
    let none = vertex(["inspect", ledger.to_str().unwrap(), "--partition", "0", "--json"]).exits(3).error();
    assert!(none.0 == "not_found" && none.1.contains("partition 0"), "{none:?}");
    // One that comes before the others takes nobody's number.
    fs::write(dir.path().join("in-"), "new\n").unwrap();
    fs::write(dir.path().join("in2"), "in2\nmore\n").unwrap();
    assert_eq!(run().exits(0).result()["read"], 1);
    assert_eq!(fs::read_to_string(dir.path().join("out")).unwrap(), "IN2\nMORE\n");
}

/// How much memory there may be, and what is promised, is said by `validate` and at the start.
/// Rules: VX-002, VX-310.
#[test]
fn the_bound_of_memory_and_the_guarantees_are_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("input"), "one\n").unwrap();
    let file = pipeline(dir.path(), &ledger(dir.path()));
    let valid = vertex(["validate", "-c", &file, "--json"]).exits(0).result();
    let terms = valid["memory"].as_array().unwrap();
    let sum: u64 = terms.iter().map(|term| term["bound"].as_u64().unwrap()).sum();
    assert_eq!(valid["memory_bytes"].as_u64(), Some(sum));
    for term in ["rings", "prefetch", "source_prefetch", "epoch_buffers", "ledger_cache", "fixed"] {
        assert!(terms.iter().any(|found| found["term"] == term), "{term}: {valid}");
    }
    let told = vertex(["validate", "-c", &file]).exits(0).stdout;
    assert!(told.contains("MiB of memory") && told.contains("rings 32.0 MiB"), "{told}");
    let log = vertex(["run", "-c", &file, "--set", "log.level=info"]).exits(0).stderr;
    assert!(log.contains(&sum.to_string()), "{log}");
    let guarantee = valid["sinks"][0]["guarantee"].as_str().unwrap();
    assert!(log.contains(guarantee), "{log}");
}

#[test]
fn a_run_has_the_partitions_that_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["in0", "in1", "in2"] {
        fs::write(dir.path().join(name), format!("{name}\n")).unwrap();
    }
    let file = pipeline(dir.path(), "");
    let source = format!("source.path={:?}", dir.path().join("in?"));
    let run = |list: &str| vertex(["run", "-c", &file, "--set", &source, "--partitions", list, "--json"]);
    assert_eq!(run("0,2").exits(0).result()["read"], 2);
    let out = fs::read_to_string(dir.path().join("out")).unwrap();
    assert!(out.contains("IN0") && out.contains("IN2") && out.lines().count() == 2, "{out}");
    assert_eq!(run("0-x").exits(64).error().0, "usage");
    let (code, message) = run("3-7").exits(65).error();
    assert!(code == "config" && message.contains("--partitions is 3-7"), "{message}");
}

/// Rules: VX-863.
#[test]
fn each_line_of_the_log_names_the_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let file = pipeline(dir.path(), "");
    fs::write(dir.path().join("input"), "one\n").unwrap();
    let log = |format: &str| {
        let format = format!("log.format={format}");
        let ran = vertex(["run", "-c", &file, "--set", &format, "--set", "log.level=info"]).exits(0);
        let lines = ran.stderr.lines().filter(|line| !line.starts_with("worker ")).map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    let lines = log("json");
    let claimed = lines.iter().find(|line| line.contains("partition claimed")).unwrap();
    let claimed: serde_json::Value = serde_json::from_str(claimed).unwrap();
    assert!(claimed.get("partition").is_some() && claimed.get("generation").is_some(), "{claimed}");
    for line in &lines {
        let fields: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(fields["pipeline"], "test", "{line}");
    }
    let lines = log("text");
    assert!(lines.len() > 1 && lines.iter().all(|line| line.starts_with("[test] ")), "{lines:?}");
}

/// Rules: VX-501, VX-863.
#[test]
fn what_a_function_says_is_a_line_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = pipeline(dir.path(), "");
    fs::write(dir.path().join("input"), "talk\nbe silent\ntalk\n").unwrap();
    let ran = vertex(["run", "-c", &file, "--json", "--set", "log.format=json", "--set", "log.level=warn"]);
    let ran = ran.exits(0);
    assert_eq!(ran.result()["counters"], serde_json::json!({ "talks": 2 }));
    let said: Vec<serde_json::Value> = ran
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["target"] == "function")
        .collect();
    let [first, _] = said.as_slice() else { panic!("{}", ran.stderr) };
    assert_eq!((&first["message"], &first["level"]), (&"one\\nline".into(), &"warn".into()));
    assert_eq!((&first["pipeline"], &first["partition"]), (&"test".into(), &0.into()));
    assert_eq!((&first["worker"], &first["batch"]), (&0.into(), &1.into()));
    assert_eq!(first["fields"], "{\"bytes\":4}");
}

/// A number of the page.
fn metric(page: &str, name: &str) -> u64 {
    let values = page.lines().filter(|line| !line.starts_with('#') && line.starts_with(name));
    let values: Vec<u64> = values.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(!values.is_empty(), "{name} is missing:\n{page}");
    values.iter().sum()
}

/// Rules: VX-003, VX-862.
#[test]
fn metrics_count_every_input_once() {
    let dead = "[[sink]]\nname = \"dead\"\nrole = \"dlq\"\nkind = \"blackhole\"\n";
    let drop = "[udf.retry]\non_exhausted = \"drop\"\n";
    for (more, left_out) in
        [(dead, "dlq_total{pipeline=\"test\",class"), (drop, "dropped_total{pipeline=\"test\",reason")]
    {
        let dir = tempfile::tempdir().unwrap();
        let file = pipeline(dir.path(), &format!("{more}{}", ledger(dir.path())));
        let lines: String =
            (0..300).map(|n| ["one\n", "skip\n", "two\n", "bad\n", "three\n"][n % 5]).collect();
        fs::write(dir.path().join("input"), lines).unwrap();
        let settings =
            ["log.format=json", "log.level=info", "metrics.listen=127.0.0.1:0", "source.follow=true"];
        let mut command = tidegate();
        command.args(["vertex", "run", "-c", &file]).env(FUNCTION, "upper").env("TIDEGATE_DIR", dir.path());
        for setting in settings {
            command.args(["--set", setting]);
        }
        let running = Running::start(&mut command);
        let address = loop {
            let line: serde_json::Value = serde_json::from_str(&running.error_line()).unwrap_or_default();
            if line["message"] == "metrics" {
                break line["address"].as_str().unwrap().to_owned();
            }
        };
        let page = || {
            let mut stream = std::net::TcpStream::connect(&address).unwrap();
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut page = String::new();
            stream.read_to_string(&mut page).unwrap();
            page.replace("tidegate_vx_", "")
        };
        let page = eventually("all inputs are final", || {
            let page = page();
            let outcomes =
                ["delivered_total", "filtered_total", "dlq_total", "dropped_total", "nacked_total"];
            let final_ones: u64 = outcomes.iter().map(|name| metric(&page, name)).sum();
            // At every moment.
            let read = metric(&page, "read_records_total");
            assert_eq!(read, final_ones + metric(&page, "unfinished_records"), "{page}");
            (final_ones == 300).then_some(page)
        });
        assert_eq!((metric(&page, "delivered_total"), metric(&page, "filtered_total")), (180, 60));
        assert_eq!(metric(&page, &format!("{left_out}=\"REJECTED\"")), 60);
        assert_eq!(metric(&page, "sink_outputs_total{pipeline=\"test\",sink=\"main\"}"), 180);
        assert_eq!(metric(&page, "read_bytes_total"), 60 * (3 + 4 + 3 + 3 + 5));
        assert!(metric(&page, "commit_lag_seconds_count") > 0 && metric(&page, "sink_seconds_count") > 0);
        running.signal(Signal::TERM);
        running.finish().exits(0);
    }
}

/// Rules: VX-601, VX-860.
#[test]
fn a_partition_that_stops_is_a_failure_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = pipeline(dir.path(), "");
    fs::write(dir.path().join("input"), "one\nbad\ntwo\n").unwrap();
    let finished = vertex(["run", "-c", &file]).exits(70);
    assert!(finished.stdout.contains("partition 0 stopped at position 4: bad"), "{}", finished.stdout);
    assert_eq!(fs::read_to_string(dir.path().join("out")).unwrap(), "ONE\n");
}

/// Rules: VX-860.
#[test]
fn what_is_wrong_has_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let (code, message) = vertex(["run", "-c", "/no/such/file", "--json"]).exits(69).error();
    assert!(code == "io" && message.contains("No such file"), "{message}");
    let file = pipeline(dir.path(), "[batches]");
    let (code, message) = vertex(["run", "-c", &file, "--json"]).exits(65).error();
    assert!(code == "config" && message.contains("batches"), "{message}");
    let file = pipeline(dir.path(), "");
    let (code, _) = vertex(["run", "-c", &file, "--json"]).exits(69).error();
    assert_eq!(code, "source");
    fs::write(dir.path().join("input"), "one\n").unwrap();
    let text =
        fs::read_to_string(&file).unwrap().replace(&format!("{:?}", command()), "[\"/no/such/program\"]");
    fs::write(&file, text).unwrap();
    let (code, message) = vertex(["run", "-c", &file, "--json"]).exits(69).error();
    assert!(code == "worker" && message.contains("/no/such/program"), "{message}");
    fs::write(dir.path().join("ledger"), "no directory").unwrap();
    let file = pipeline(dir.path(), &ledger(dir.path()));
    assert_eq!(vertex(["run", "-c", &file, "--json"]).exits(73).error().0, "ledger");
}

/// Rules: VX-002, VX-632.
#[test]
fn a_file_is_checked_and_what_it_promises_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = pipeline(dir.path(), "");
    let without = vertex(["validate", "-c", &file]).exits(0).stdout;
    assert!(
        without.contains("sink main: at least once") && without.contains("from the beginning"),
        "{without}"
    );
    let lossy = fs::read_to_string(&file).unwrap() + "\nrequired = false";
    fs::write(&file, lossy).unwrap();
    let lossy = vertex(["validate", "-c", &file]).exits(0).stdout;
    assert!(lossy.contains("sink main: what it takes in time") && lossy.contains("lost"), "{lossy}");
    let file = pipeline(dir.path(), "[ledger]\npath = \"ledger\"");
    let with = vertex(["validate", "-c", &file, "--json"]).exits(0).result();
    assert!(
        with["sinks"][0]["guarantee"].as_str().unwrap().contains("twice if the source has one"),
        "{with}"
    );
    // The file has what waits for the other one, and a commit is about the whole file.
    let second = dir.path().join("second.toml").to_str().unwrap().to_owned();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&second, text + "\n[[sink]]\nname = \"second\"\nkind = \"blackhole\"").unwrap();
    let with = vertex(["validate", "-c", &second, "--json"]).exits(0).result();
    assert!(with["sinks"][0]["guarantee"].as_str().unwrap().contains("is written again"), "{with}");

    // A file is on one host, and the next owner may be on another.
    let input = format!("path = {:?}", dir.path().join("input"));
    let text = fs::read_to_string(&file).unwrap().replacen("kind = \"file\"", "kind = \"generator\"", 1);
    let text = text.replace(&input, "records = 9\npartitions = 2")
        + "\n[ownership]\nkind = \"jetstream\"\nurl = \"nats://127.0.0.1:4222\"";
    fs::write(&file, &text).unwrap();
    let shared = vertex(["validate", "-c", &file]).exits(0).stdout;
    assert!(shared.contains("is written again") && !shared.contains("on this host"), "{shared}");
    let out = format!("path = {:?}", dir.path().join("out"));
    let epochs =
        text.replace("at_least_once", "effectively_once").replace(&out, "mode = \"epoch\"\ndir = \"out\"");
    fs::write(&file, epochs).unwrap();
    let shared = vertex(["validate", "-c", &file]).exits(0).stdout;
    assert!(shared.contains("one and the same directory"), "{shared}");
}
