//! A test starts its own binary again and runs only itself there, in another role.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const ROLE: &str = "TIDEGATE_TEST_ROLE";
const PLACE: &str = "TIDEGATE_TEST_PLACE";
const BLOCK: &str = "TIDEGATE_TEST_BLOCK";

/// Where a child works.
pub(crate) struct Task {
    pub(crate) dir: PathBuf,
    /// The block to attach; empty for one that makes it.
    pub(crate) block: String,
}

/// The task given to [`Child::start`], when this process was started in the role `name`.
pub(crate) fn role(name: &str) -> Option<Task> {
    if env::var(ROLE).ok()? != name {
        return None;
    }
    let dir = env::var_os(PLACE).map(PathBuf::from)?;
    Some(Task { dir, block: env::var(BLOCK).unwrap_or_default() })
}

/// Tells the parent that something was reached.
pub(crate) fn say(line: impl std::fmt::Display) {
    println!("\n{line}");
    std::io::stdout().flush().unwrap();
}

/// Sleeps until killed; ends by itself only when the test was forgotten.
pub(crate) fn linger() {
    std::thread::sleep(10 * PATIENCE);
}

/// A child process in some role; killed when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
}

impl Child {
    /// Starts this binary again with only the test `test`, in the role `role`.
    pub(crate) fn start(test: &str, role: &str, dir: &Path, block: &str) -> Self {
        Self::start_at(test, role, dir, block, None)
    }

    /// As [`Child::start`]; the child ends itself at the step `crash`.
    pub(crate) fn start_at(test: &str, role: &str, dir: &Path, block: &str, crash: Option<&str>) -> Self {
        Self::start_with(test, role, dir, block, crash.map(|point| ("TIDEGATE_HUB_CRASH_AT", point)))
    }

    /// As [`Child::start`]; the child stops itself at the step `stop`, which [`Child::stops`] waits for.
    pub(crate) fn start_and_stop_at(test: &str, role: &str, dir: &Path, block: &str, stop: &str) -> Self {
        Self::start_with(test, role, dir, block, Some(("TIDEGATE_HUB_STOP_AT", stop)))
    }

    fn start_with(test: &str, role: &str, dir: &Path, block: &str, at: Option<(&str, &str)>) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env(ROLE, role)
            .env(PLACE, dir)
            .env(BLOCK, block)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Some((variable, point)) = at {
            command.env(variable, point);
        }
        let mut process = command.spawn().unwrap();
        let lines = forward_lines(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// Waits until the child says a line that begins with `start`; returns the rest.
    pub(crate) fn wait_for(&mut self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("the child never said {start:?}: {error}"));
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    /// The rest of a line that begins with `start`, if it has said that by now.
    pub(crate) fn has_said(&self, start: &str) -> Option<String> {
        self.lines.try_iter().find_map(|line| line.strip_prefix(start).map(|rest| rest.trim().to_owned()))
    }

    /// What it said last before it ended: the rest of every line that begins with `start`.
    pub(crate) fn left_to_say(&self, start: &str) -> Vec<String> {
        let lines = self.lines.iter();
        lines.filter_map(|line| line.strip_prefix(start).map(|rest| rest.trim().to_owned())).collect()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits for the end; the signal that brought it, if one did.
    pub(crate) fn signal(&mut self) -> Option<i32> {
        std::os::unix::process::ExitStatusExt::signal(&self.process.wait().unwrap())
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Stops it as SIGSTOP does, all of its threads.
    pub(crate) fn stop(&self) {
        self.signal_it(Signal::STOP);
        self.stops();
    }

    /// Waits until it is stopped.
    pub(crate) fn stops(&self) {
        let start = Instant::now();
        let path = format!("/proc/{}/stat", self.process.id());
        let is_stopped = || {
            let stat = std::fs::read_to_string(&path).unwrap();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        while !is_stopped() {
            assert!(start.elapsed() < PATIENCE, "it never stops");
            std::thread::yield_now();
        }
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.signal_it(Signal::CONT);
    }

    fn signal_it(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    pub(crate) fn succeed(&mut self) {
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn forward_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
