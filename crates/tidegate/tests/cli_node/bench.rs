//! `tidegate tensor bench` that does not come to its end: nothing of it stays, or `tidegate doctor` knows it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, getpgid, kill_process};
use serde_json::{Value, json};
use tidegate::shm::process::ProcessId;

use crate::support::{Outcome, Running, eventually, place, tidegate};

/// A measurement of ten minutes, and its directory once frames go both ways.
fn measuring() -> (Running, PathBuf) {
    let bench = Running::start(tidegate().args(["tensor", "bench", "--duration", "10m", "--sizes", "64"]));
    let is_ours = |dir: &PathBuf| {
        let text = fs::read_to_string(dir.join(".lock")).unwrap_or_default();
        text.trim_end().parse::<ProcessId>().is_ok_and(|holder| holder.pid == bench.pid())
    };
    let dir = eventually("the directory of the measurement", || {
        let entries = fs::read_dir("/dev/shm").expect("shared memory");
        entries.filter_map(|entry| Some(entry.ok()?.path())).find(is_ours)
    });
    eventually("two streams with regions", || (headers(&dir) == 2).then_some(()));
    (bench, dir)
}

/// Header rings of the private node.
fn headers(dir: &Path) -> usize {
    let list = |dir: &Path| -> Vec<PathBuf> {
        let entries =
            fs::read_dir(dir).map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect());
        entries.unwrap_or_default()
    };
    let pools = list(&dir.join("node")).into_iter().filter(|path| path.is_dir() && !path.ends_with("aeron"));
    let epochs =
        pools.flat_map(|user| list(&user)).flat_map(|space| list(&space)).flat_map(|stream| list(&stream));
    epochs.filter(|epoch| epoch.join("header.ring").exists()).count()
}

fn node_of(dir: &Path) -> Pid {
    let text = fs::read(dir.join("node/node.json")).expect("a description");
    let description: Value = serde_json::from_slice(&text).expect("JSON");
    let pid = description["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw).expect("a process id")
}

/// Killed when dropped: no parent is left to do it.
struct StoppedNode {
    pid: Pid,
    /// A process of the node's group whose parent lives. In a group without one the kernel wakes whoever is stopped.
    kin: Child,
}

impl StoppedNode {
    fn stop(node: Pid) -> Self {
        let group = getpgid(Some(node)).expect("the node is there").as_raw_nonzero().get();
        let kin = Command::new("sleep").arg("1000").process_group(group).spawn().expect("it starts");
        let stopped = Self { pid: node, kin };
        kill_process(node, Signal::STOP).expect("the node is there");
        // Before that, another signal may come first, and the node would end in order.
        eventually("the node is stopped", || {
            let stat = fs::read_to_string(format!("/proc/{node}/stat")).expect("it is there");
            stat.contains(") T ").then_some(())
        });
        stopped
    }
}

impl Drop for StoppedNode {
    fn drop(&mut self) {
        // They may have ended by themselves.
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = self.kin.kill();
        let _ = self.kin.wait();
    }
}

fn doctor(shm: &Path, args: &[&str]) -> Outcome {
    let mut command = tidegate();
    command.args(["doctor", "--json", "--min-free", "0", "--shm"]).arg(shm).args(args);
    Running::start(&mut command).finish()
}

fn finding(outcome: &Outcome) -> Value {
    let mut found = outcome.results();
    found.retain(|finding| finding["check"] == "bench");
    assert_eq!(found.len(), 1, "{outcome:?}");
    found.remove(0)
}

#[test]
fn the_first_signal_ends_a_measurement_at_once_and_nothing_stays() {
    let (bench, dir) = measuring();
    let signalled = Instant::now();
    bench.signal(Signal::INT);
    let outcome = bench.finish().exits(1);
    // A slice of this measurement takes half a minute.
    assert!(signalled.elapsed() < Duration::from_secs(10), "{:?}", signalled.elapsed());
    assert!(outcome.stderr.contains("interrupted"), "{}", outcome.stderr);
    assert!(!dir.exists());
}

#[test]
fn the_node_of_a_killed_measurement_ends_and_the_doctor_removes_the_rest() {
    let (bench, dir) = measuring();
    let pid = bench.pid();
    bench.signal(Signal::KILL);
    bench.finish();
    eventually("the node ends", || (!dir.join("node").exists()).then_some(()));
    // A place where nothing else is.
    let place = place();
    let left = place.path().join(dir.file_name().expect("a name"));
    fs::rename(&dir, &left).expect("both are in shared memory");

    let sick = finding(&doctor(place.path(), &[]).exits(1));
    assert_eq!((&sick["safe_to_remove"], &sick["pid"]), (&json!(true), &json!(pid)));
    assert!(left.exists(), "looking changes nothing");
    assert_eq!(finding(&doctor(place.path(), &["--fix"]).exits(0))["status"], "fixed");
    assert!(!left.exists());
}

#[test]
fn a_live_measurement_is_left_alone_and_a_dead_one_goes_with_its_dead_node() {
    let (bench, dir) = measuring();
    let place = place();
    let moved = place.path().join(dir.file_name().expect("a name"));
    let node = node_of(&dir);
    fs::rename(&dir, &moved).expect("both are in shared memory");
    let live = finding(&doctor(place.path(), &["--fix"]).exits(0));
    assert_eq!((&live["status"], &live["pid"]), (&json!("ok"), &json!(bench.pid())));

    // Stopped, so that it does not clean up when its parent is gone.
    let node = StoppedNode::stop(node);
    drop(bench);
    let held = finding(&doctor(place.path(), &["--fix"]).exits(1));
    assert_eq!((&held["status"], &held["safe_to_remove"]), (&json!("problem"), &json!(false)));
    assert!(moved.join("node/node.json").exists());

    // It was making an epoch when it was killed, and had not said whose it is.
    let mut entries = fs::read_dir(moved.join("node")).expect("a node");
    let regions = entries.find_map(|entry| {
        let path = entry.ok()?.path();
        path.file_name()?.to_str()?.starts_with("tensorpool-").then_some(path)
    });
    let begun = regions.expect("its regions").join("begun/10/77");
    fs::create_dir_all(&begun).expect("it is ours");
    fs::write(begun.join("header.ring"), [0; 100]).expect("it is ours");
    let minute_ago = SystemTime::now() - Duration::from_secs(60);
    fs::File::open(&begun).and_then(|begun| begun.set_modified(minute_ago)).expect("it is ours");

    drop(node);
    eventually("the rest goes", || {
        let outcome = doctor(place.path(), &["--fix"]);
        println!("{outcome:?}");
        (outcome.code == Some(0)).then_some(())
    });
    assert!(!moved.exists());
}
