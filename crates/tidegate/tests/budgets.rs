//! What frames and idleness may cost: system calls per frame, wake-ups per second.
//!
//! System calls are counted by `strace`, which is a requirement of these tests: `make setup` installs it. The counted
//! process is started by it, so that no privilege is needed, and only its first thread is counted: the one that
//! publishes or reads. The threads that keep leases wake by the clock; the second test bounds those.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::node::{NodeClient, NodePlace};
use tidegate::shm::region::{CreateOptions, RegionDir, create_region};

const DEADLINE: Duration = Duration::from_secs(30);

/// A running process of ours; killed when the test is over.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts; strace must be installed, `make setup` does it");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("standard output"));
        Self { child, stdin, stdout }
    }

    fn tell(&mut self, value: &Value) {
        writeln!(self.stdin.as_mut().expect("standard input"), "{value}").expect("the process listens");
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// Closes its standard input and waits for it to end well.
    fn finish(mut self) {
        self.stdin = None;
        let status = self.child.wait().expect("the process ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn temporary() -> TempDir {
    tempfile::Builder::new()
        .prefix("tidegate-budgets-")
        .tempdir_in("/dev/shm")
        .expect("a directory in /dev/shm")
}

fn tidegate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
}

fn worker(mut command: Command, role: &str, dir: &Path) -> Process {
    command.args(["tensor", "bench-worker", "--quiet", "--name", "budget", "--role", role]);
    command.arg("--dir").arg(dir.join("node")).arg("--lines").arg(dir);
    let mut process = Process::start(&mut command);
    assert!(process.hear()["ready"].is_number());
    process
}

/// The binary under `strace`, which writes its summary to `summary`.
fn counted(summary: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-c", "-o"]).arg(summary).arg(env!("CARGO_BIN_EXE_tidegate"));
    command
}

/// System calls in a summary of `strace -c`: the fourth column of its last line.
fn calls(summary: &Path) -> u64 {
    let text = fs::read_to_string(summary).expect("the summary of strace");
    let total = text.lines().find(|line| line.trim_end().ends_with(" total")).expect("a total");
    let column = total.split_whitespace().nth(3).expect("four columns");
    column.parse().unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// A publisher and a reader that spin make no system calls for their frames: all there are belong to starting, meeting,
/// taking orders and ending, whose number does not depend on the frames. Frames are copied in and out, and claimed,
/// committed and read in place.
#[test]
fn frames_cost_no_system_calls() {
    /// Starting and ending take about 400, meeting one per 20 ms.
    const AROUND: u64 = 1500;
    /// So many that one call in ten frames would show.
    const MIN_FRAMES: u64 = 20_000;

    let dir = temporary();
    let base = RegionDir::open_base(dir.path()).expect("the directory");
    create_region(&base, "lines", &CreateOptions { mode: 0o600, ..CreateOptions::new(4096) })
        .expect("shared words");
    let node = worker(tidegate(), "node", dir.path());
    let summaries = [dir.path().join("reader"), dir.path().join("publisher")];
    let mut reader = worker(counted(&summaries[0]), "pong", dir.path());
    let mut publisher = worker(counted(&summaries[1]), "ping", dir.path());

    let mut frames = 0;
    let measure = |kind: &str| json!({ "kind": kind, "bytes": 64 });
    let orders = [
        json!({ "meet": { "run": 1 } }),
        json!({ "measure": { "run": 2, "measure": measure("stream"), "millis": 15_000 } }),
        json!({ "measure": { "run": 3, "measure": measure("claim"), "millis": 15_000 } }),
    ];
    for order in &orders {
        reader.tell(order);
        publisher.tell(order);
        let outcome = publisher.hear();
        frames += outcome["done"]["round"]["samples"].as_u64().unwrap_or_else(|| panic!("{outcome}"));
        assert!(reader.hear()["done"].is_object());
    }
    publisher.finish();
    reader.finish();
    node.finish();

    assert!(frames >= MIN_FRAMES, "only {frames} frames in the time given; the machine is too busy to tell");
    for (name, summary) in ["reader", "publisher"].iter().zip(&summaries) {
        let calls = calls(summary);
        assert!(calls <= AROUND + frames / 100, "{name}: {calls} system calls with {frames} frames");
    }
}

/// A node, an attached publisher and an attached reader, all with default settings, wake a bounded number of times per
/// second while no frames come, and none of their threads spins.
#[test]
fn idleness_wakes_seldom() {
    const SECONDS: u64 = 2;
    /// Wake-ups per second. Periods are 1 ms for the media driver, the clients' conductors and the reader, 2 ms for the
    /// tensor driver, 4 ms for the threads of the Aeron clients, which cost up to two wake-ups each time.
    const NODE: u64 = 1000 + 500 + 2 * 250 + 10;
    const PUBLISHER: u64 = 1000 + 2 * 250;
    const READER: u64 = 1000 + 1000 + 2 * 250;
    /// For what happens once a second: keepalives, announces, status.
    const SLACK: u64 = 200;

    let dir = temporary();
    let place = dir.path().join("node");
    let mut node = Process::start(tidegate().args(["up", "--quiet", "--json", "--dir"]).arg(&place));
    assert_eq!(node.hear()["ready"], true);
    let mut command = tidegate();
    command.args([
        "tensor", "pub", "idle", "--quiet", "--json", "--input", "-", "--dtype", "uint8", "--shape", "4096",
    ]);
    let mut publisher = Process::start(command.arg("--dir").arg(&place));
    // One frame, for which it attaches; then it waits for the next.
    publisher.stdin.as_mut().expect("standard input").write_all(&[0; 4096]).expect("the publisher reads");
    assert_eq!(publisher.hear()["attached"], true);
    let mut command = tidegate();
    command.args(["tensor", "sub", "idle", "--quiet", "--json", "--dir"]);
    let reader = Process::start(command.arg(&place));
    await_leases(&place, 2);

    let pids = [&node, &publisher, &reader].map(|process| process.child.id());
    let before = pids.map(threads);
    std::thread::sleep(Duration::from_secs(SECONDS));
    let after = pids.map(threads);

    let budgets = [("node", NODE), ("publisher", PUBLISHER), ("reader", READER)];
    for ((name, budget), (before, after)) in budgets.iter().zip(before.iter().zip(&after)) {
        let mut wakeups = 0;
        for (thread, now) in after {
            let then = before.get(thread).copied().unwrap_or_default();
            let slept = now.sleeps - then.sleeps;
            let ran = Duration::from_nanos(now.cpu_ns - then.cpu_ns);
            // A thread that sleeps between short pieces of work, however late it is woken on a busy machine.
            let most = Duration::from_millis(10) * u32::try_from(slept + 1).expect("a small number");
            assert!(ran <= most, "{name}: a thread ran for {ran:?} and slept {slept} times");
            wakeups += slept;
        }
        let most = (budget + SLACK) * SECONDS;
        assert!(wakeups <= most, "{name}: {wakeups} wake-ups in {SECONDS} s, at most {most} are allowed");
    }
}

/// What a thread has done since its start.
#[derive(Debug, Clone, Copy, Default)]
struct Thread {
    sleeps: u64,
    cpu_ns: u64,
}

/// The threads there are; one that ends meanwhile is left out.
fn threads(pid: u32) -> BTreeMap<String, Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a live process");
    let number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse().ok());
    let look = |task: fs::DirEntry| {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).ok();
        let (status, schedule) = (read("status")?, read("schedstat")?);
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let thread = Thread {
            sleeps: sleeps.and_then(number).expect("a number of switches"),
            cpu_ns: number(&schedule).expect("a time"),
        };
        Some((task.file_name().to_string_lossy().into_owned(), thread))
    };
    tasks.filter_map(|task| look(task.expect("an entry"))).collect()
}

/// Waits until so many leases are held.
fn await_leases(place: &Path, count: usize) {
    let client = NodeClient::find(&NodePlace::find(Some(place.to_owned()), None)).expect("the node");
    let deadline = Instant::now() + DEADLINE;
    loop {
        let status = client.status().expect("the node answers");
        let leases: usize = status.streams.iter().map(|stream| stream.leases.len()).sum();
        if leases >= count {
            return;
        }
        assert!(Instant::now() < deadline, "{leases} leases after {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
