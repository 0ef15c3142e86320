//! Real processes of the `tidegate` binary: a node in a directory of its own, commands beside it, and what they print.
//!
//! Every test has its own place in shared memory, which is gone afterwards, also when the test fails. Nothing here waits
//! without a deadline.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest time that anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A directory of this test in shared memory.
pub(crate) fn place() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("tidegate-test-")
        .tempdir_in("/dev/shm")
        .expect("a place in shared memory")
}

/// The binary, with an environment in which no variable of ours is set.
pub(crate) fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end, which must come before [`DEADLINE`].
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Outcome {
    Running::start(tidegate().args(args)).finish()
}

/// What a finished process left.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Fails the test unless the exit code is this one.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The JSON objects on standard output.
    #[track_caller]
    pub(crate) fn results(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// The one JSON object on standard output.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        let mut results = self.results();
        assert_eq!(results.len(), 1, "{}", self.stdout);
        results.remove(0)
    }

    /// Word and text of the JSON error on standard error; logs may stand before it.
    #[track_caller]
    pub(crate) fn error(&self) -> (String, String) {
        let line = self.stderr.lines().last().unwrap_or_default();
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON error: {}", self.stderr));
        let field = |name: &str| value["error"][name].as_str().expect("a string").to_owned();
        (field("code"), field("message"))
    }
}

/// A process whose output is read line by line. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let stdout = lines(child.stdout.take().expect("standard output"));
        let stderr = lines(child.stderr.take().expect("standard error"));
        Self { child, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line on standard output.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        match self.stdout.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(error) => panic!("{error}; standard error: {:?}", self.stderr.try_iter().collect::<Vec<_>>()),
        }
    }

    /// The next line on standard output, if it is there.
    #[allow(dead_code, reason = "for tests that ask again and again")]
    pub(crate) fn line_by_now(&self) -> Option<String> {
        self.stdout.try_recv().ok()
    }

    /// The next line on standard error.
    #[allow(dead_code, reason = "only messaging tells something there")]
    #[track_caller]
    pub(crate) fn error_line(&self) -> String {
        self.stderr.recv_timeout(DEADLINE).expect("a line on standard error")
    }

    /// The next line on standard output, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Skips lines on standard error until one contains `part`.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, part: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.stderr.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(part) => return,
                Ok(_) => {}
                Err(error) => panic!("{error} before a log of '{part}'"),
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for the end of the process and takes what it printed and nobody has read.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Outcome {
        let status = self.wait();
        let text = |lines: &Receiver<String>| lines.iter().map(|line| line + "\n").collect();
        Outcome { code: status.code(), stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                return status;
            }
            assert!(Instant::now() < end, "process {} does not end", self.pid());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node in a directory of its own, with quick leases and small regions beside the directory.
pub(crate) struct Node {
    /// Killed before its place goes.
    process: Running,
    dir: PathBuf,
    place: tempfile::TempDir,
}

impl Node {
    /// Leases last 600 ms, announces come five times a second, streams are made on demand.
    pub(crate) fn start() -> Self {
        Self::with_policies("")
    }

    /// As [`Node::start`], with leases of this many times 200 ms, for tests that need them to last.
    pub(crate) fn with_leases_of(intervals: u32) -> Self {
        Self::with_policies(&format!("lease_expiry_grace_intervals = {intervals}"))
    }

    /// As [`Node::start`], with more lines in `[policies]`.
    pub(crate) fn with_policies(policies: &str) -> Self {
        let place = place();
        let base = place.path().display();
        let config = format!(
            "[driver]\nannounce_stream_id = 1001\nstream_id_range = [\"20000-20099\"]\n\
             [shm]\nbase_dir = \"{base}\"\nallowed_base_dirs = [\"{base}\"]\n\
             [policies]\nallow_dynamic_streams = true\nannounce_period_ms = 200\nlease_keepalive_interval_ms = 200\n\
             cleanup_shm_on_exit = true\n{policies}\n\
             [profiles.small]\nheader_nslots = 8\n\
             payload_pools = [{{ pool_id = 1, stride_bytes = 4096 }}, {{ pool_id = 2, stride_bytes = 65536 }}]\n"
        );
        let file = place.path().join("node.toml");
        std::fs::write(&file, config).expect("a configuration");
        let dir = place.path().join("tidegate-node");
        let process =
            Running::start(tidegate().args(["--json", "up", "--config"]).arg(&file).arg("--dir").arg(&dir));
        assert_eq!(process.json()["ready"], true);
        Self { process, dir, place }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory around the node's, with its regions.
    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A command for this node, with --json; separated by spaces.
    pub(crate) fn command(&self, args: &str) -> Command {
        let mut command = tidegate();
        command.args(args.split(' ')).arg("--json").arg("--dir").arg(&self.dir);
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &str) -> Outcome {
        Running::start(&mut self.command(args)).finish()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Kills it like a crash does, and gives back what it leaves.
    pub(crate) fn kill(self) -> (tempfile::TempDir, PathBuf) {
        self.signal(Signal::KILL);
        self.process.finish();
        (self.place, self.dir)
    }

    /// Stops it in order; nothing of its directory may be left.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        self.process.finish().exits(0);
        assert!(!self.dir.exists(), "{:?}", std::fs::read_dir(&self.dir).map(Iterator::collect::<Vec<_>>));
    }
}

/// Asks again until the answer is there, or the deadline is over.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// An end of a measurement in sh; `measure` is what it does as an end of a measurement.
#[allow(dead_code, reason = "for the tests of measurements")]
pub(crate) fn script(place: &Path, name: &str, measure: &str) -> PathBuf {
    let path = place.join(name);
    let text =
        format!("#!/bin/sh\n[ $1 = version ] && echo '{{\"version\":\"1\"}}' && exec cat\n{measure}\n");
    std::fs::write(&path, text).expect("room for it");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}
