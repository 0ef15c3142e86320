//! `tidegate hub pub` and `tidegate hub sub`: real processes that hand over records.
#![cfg(feature = "hub")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::{Outcome, Running, place, run, tidegate};

const SCHEMA: &str = "tds1 Pose size=24 align=8 {id:u64@0+8;x:f64@8+8;name:c8[4]@16+4;_pad0:u8[4]@20+4}\n";

/// A command `tidegate hub VERB pose ...` in `dir`, with these bytes on standard input.
fn hub(dir: &Path, verb: &str, args: &[&str], stdin: &str) -> Command {
    let schema = dir.join("pose.tds1");
    std::fs::write(&schema, SCHEMA).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(stdin.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let mut command = tidegate();
    command.args(["hub", verb, "pose", "--dir"]).arg(dir).arg("--schema").arg(schema).args(args).stdin(file);
    command
}

fn line(id: u64) -> String {
    format!("{{\"id\":\"{id}\",\"x\":{}.5,\"name\":\"a\"}}\n", id)
}

fn blocks(dir: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("tidegate_")).collect()
}

/// Publishes `input` to one consumer, which is `sub` with `args`.
fn handed_over(publish: &[&str], input: &str, subscribe: &[&str]) -> (Outcome, Outcome) {
    let dir = place();
    let publish = [&["--input", "-", "--consumers", "1", "--timeout", "20s"], publish].concat();
    let publisher = Running::start(&mut hub(dir.path(), "pub", &publish, input));
    let subscriber = Running::start(&mut hub(dir.path(), "sub", subscribe, ""));
    let outcomes = (publisher.finish(), subscriber.finish());
    assert_eq!(blocks(dir.path()), Vec::<String>::new(), "a closed channel leaves nothing");
    outcomes
}

#[test]
fn what_one_command_publishes_the_other_prints() {
    let input: String = (0..1000).map(line).collect();
    let (published, printed) = handed_over(&[], &input, &[]);
    assert_eq!(published.exits(0).stdout.split(',').next(), Some("1000 records"));
    assert_eq!(printed.exits(0).stdout, input);

    let (published, printed) = handed_over(&["--json"], &input, &["--json"]);
    let told = published.exits(0).results();
    assert_eq!((&told[0]["opened"], &told[1]["records"]), (&true.into(), &1000.into()));
    let records = printed.exits(0).results();
    assert_eq!(records[7]["record"].to_string() + "\n", line(7));
    assert_eq!((&records[999]["id"], &records[1000]["closed"]), (&"999".into(), &true.into()));
}

#[test]
fn csv_goes_in_and_out_with_its_columns_and_quotes() {
    let input = "id,x,name\n1,1.5,\"a,b\"\n2,NaN,\"say\"\n";
    let (published, printed) =
        handed_over(&["--format", "csv", "--sync", "all"], input, &["--format", "csv"]);
    published.exits(0);
    assert_eq!(printed.exits(0).stdout, "id,x,name\n1,1.5,\"a,b\"\n2,NaN,say\n");
}

/// What one command prints as CSV the other takes, also where a text has lines of its own. A quote that is never closed spoils one
/// record.
#[test]
fn csv_of_texts_with_lines_is_read_back() {
    let records = "1,1.5,\"a\nb\"\n2,2.5,\"\rb\"\n3,3.5,\n4,4.5,\"\"\"\n\"\n";
    let input = format!("id,x,name\n{records}");
    let csv = ["--format", "csv", "--sync", "all"];
    let (published, printed) = handed_over(&csv, &input, &["--format", "csv"]);
    published.exits(0);
    assert_eq!(printed.exits(0).stdout, input);
    let (published, printed) = handed_over(&csv, &format!("{input}5,5.5,\"a\n"), &["--format", "csv"]);
    assert_eq!(printed.exits(0).stdout, input);
    let told = published.exits(1).stderr;
    assert!(told.contains("standard input, line 8, column 7: a quote that is not closed"), "{told}");
}

/// A text of blanks in a line of its own is a record, and no empty line.
#[test]
fn csv_of_one_column_keeps_blank_texts() {
    let dir = place();
    let schema = dir.path().join("word.tds1");
    std::fs::write(&schema, "tds1 Word size=4 align=1 {text:c8[4]@0+4}\n").unwrap();
    let input = "text\n\"\"\n\"  \"\na\n";
    let file = dir.path().join("words.csv");
    std::fs::write(&file, input).unwrap();
    let command = |verb: &str| {
        let mut command = tidegate();
        command.args(["hub", verb, "words", "--format", "csv", "--dir"]).arg(dir.path());
        command.arg("--schema").arg(&schema);
        command
    };
    let mut publish = command("pub");
    publish.args(["--sync", "all", "--consumers", "1", "--timeout", "20s", "--input"]).arg(&file);
    let publisher = Running::start(&mut publish);
    assert_eq!(Running::start(&mut command("sub")).finish().exits(0).stdout, input);
    publisher.finish().exits(0);
}

/// A publisher of one record that keeps its channel open for late readers.
fn lingering(dir: &Path) -> Running {
    let args = ["--input", "-", "--sync", "all", "--linger", "1h", "--json"];
    let publisher = Running::start(&mut hub(dir, "pub", &args, &line(0)));
    assert_eq!((&publisher.json()["opened"], &publisher.json()["records"]), (&true.into(), &1.into()));
    let list = || {
        let dir = dir.display().to_string();
        run(["hub", "list", "--json", "--dir", dir.as_str()]).exits(0).result()
    };
    support::eventually("it is closing", || (list()["blocks"][0]["state"] == "CLOSING").then_some(()));
    publisher
}

/// A publisher that keeps its channel open for late readers ends when it is told to.
#[test]
fn a_signal_ends_the_lingering() {
    let dir = place();
    let publisher = lingering(dir.path());
    publisher.signal(Signal::TERM);
    publisher.finish().exits(0);
    assert_eq!(blocks(dir.path()), Vec::<String>::new());
}

/// A publisher that was killed while it kept its channel open has left a block that takes no more records: the next one makes
/// a new one.
#[test]
fn a_publisher_that_died_lingering_is_followed_in_a_new_block() {
    let dir = place();
    let publisher = lingering(dir.path());
    publisher.signal(Signal::KILL);
    publisher.finish();
    let old = blocks(dir.path());
    assert_eq!(old.len(), 1);
    let mut next = hub(dir.path(), "pub", &["--input", "-", "--sync", "all", "--json"], &line(1));
    let told = Running::start(&mut next).finish().exits(0).results();
    assert_ne!(told[0]["shm_name"], old[0]);
    assert_eq!((&told[1]["records"], &told[1]["next_id"]), (&1.into(), &"1".into()));
    assert_eq!(blocks(dir.path()), Vec::<String>::new());
}

#[test]
fn bad_lines_are_named_and_good_ones_are_not_lost() {
    let input = format!(
        "{}{{\"id\":1,}}\n{}{{\"id\":1,\"x\":\"no\",\"name\":\"\"}}\n\n{}",
        line(0),
        line(1),
        line(2)
    );
    let (published, printed) = handed_over(&[], &input, &[]);
    assert_eq!(printed.exits(0).stdout, [0, 1, 2].map(line).concat());
    let told = published.exits(1).stderr;
    assert!(told.contains("standard input, line 2, column 9"), "{told}");
    assert!(told.contains("line 4, field \"x\""), "{told}");
}

#[test]
fn a_killed_publisher_is_taken_over_and_ids_go_on() {
    let dir = place();
    let mut first = hub(dir.path(), "pub", &["--input", "-", "--sync", "all", "--json"], "");
    let mut child = first.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let subscriber = Running::start(&mut hub(dir.path(), "sub", &["--start", "oldest", "--json"], ""));
    pipe.write_all(line(0).as_bytes()).unwrap();
    assert_eq!(subscriber.json()["id"], "0");
    child.kill().unwrap();
    child.wait().unwrap();
    let second =
        Running::start(&mut hub(dir.path(), "pub", &["--input", "-", "--sync", "all", "--json"], &line(1)));
    assert_eq!(subscriber.json()["record"].to_string() + "\n", line(1));
    assert_eq!(second.finish().exits(0).results()[0]["next_id"], "1");
    let rest = subscriber.finish().exits(0).results();
    assert_eq!(
        (&rest[0]["summary"], &rest[0]["closed"], &rest[0]["lost"]),
        (&true.into(), &true.into(), &0.into())
    );
}

/// A channel for one consumer says so to whoever comes second, and to whoever waits for more.
///
/// Rules: DH-102.
#[test]
fn one_consumer_of_a_ring_is_all_there_can_be() {
    let dir = place();
    let (code, message) =
        Running::start(&mut hub(dir.path(), "pub", &["--input", "-", "--consumers", "2", "--json"], ""))
            .finish()
            .exits(2)
            .error();
    assert!(code == "usage" && message.contains("--sync all"), "{message}");
    let mut publisher = hub(dir.path(), "pub", &["--input", "-", "--json"], "");
    let mut publisher = publisher.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let first = Running::start(&mut hub(dir.path(), "sub", &["--wait", "1m", "--json"], ""));
    let pipe = publisher.stdin.take().unwrap();
    (&pipe).write_all(line(0).as_bytes()).unwrap();
    assert_eq!(first.json()["id"], "0");
    let (code, message) =
        Running::start(&mut hub(dir.path(), "sub", &["--json"], "")).finish().exits(4).error();
    assert!(code == "consumer_limit" && message.contains("one consumer"), "{message}");
    drop(pipe);
    first.finish().exits(0);
    publisher.wait().unwrap();
}

/// Both ends take the key from a file; whoever has none, or another one, gets nothing.
///
/// Rules: DH-165.
#[test]
fn a_channel_with_a_secret_is_for_those_who_have_its_key() {
    let dir = place();
    let [key, other] = ["a.key", "b.key"].map(|name| {
        let path = dir.path().join(name).display().to_string();
        run(["hub", "secret", "gen", "--out", path.as_str()]).exits(0);
        path
    });
    let with_key = ["--input", "-", "--consumers", "1", "--timeout", "60s", "--secret", &key];
    let publisher = Running::start(&mut hub(dir.path(), "pub", &with_key, &line(0)));
    let read = |args: &[&str]| {
        let args = [&["--wait", "20s"], args].concat();
        Running::start(&mut hub(dir.path(), "sub", &args, "")).finish()
    };
    for secret in [&[][..], &["--secret", &other]] {
        assert_eq!(read(secret).exits(4).stdout, "");
    }
    assert_eq!(read(&["--secret", &key]).exits(0).stdout, line(0));
    publisher.finish().exits(0);
}

#[test]
fn commands_end_by_signals_counts_and_timeouts() {
    let dir = place();
    let mut publisher = hub(dir.path(), "pub", &["--input", "-", "--sync", "all", "--json"], "");
    let (input, mut pipe) = std::io::pipe().unwrap();
    let publisher = Running::start(publisher.stdin(input));
    assert_eq!(publisher.json()["opened"], true);
    let subscriber = Running::start(&mut hub(dir.path(), "sub", &["--start", "oldest", "--json"], ""));
    pipe.write_all(line(0).as_bytes()).unwrap();
    assert_eq!(subscriber.json()["id"], "0");
    subscriber.signal(Signal::INT);
    assert_eq!(subscriber.finish().exits(0).result()["closed"], false);
    let outcome =
        Running::start(&mut hub(dir.path(), "sub", &["--timeout", "50ms", "--json"], "")).finish().exits(5);
    assert_eq!(outcome.error().0, "timed_out");
    let outcome =
        Running::start(&mut hub(dir.path(), "pub", &["--input", "-", "--sync", "all", "--json"], ""));
    assert_eq!(outcome.finish().exits(4).error().0, "live_writer");
    publisher.signal(Signal::TERM);
    publisher.finish().exits(0);
    assert_eq!(blocks(dir.path()), Vec::<String>::new());
    let outcome =
        Running::start(&mut hub(dir.path(), "sub", &["--wait", "0s", "--json"], "")).finish().exits(3);
    assert_eq!(outcome.error().0, "unknown_channel");
}
