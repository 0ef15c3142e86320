//! Tests with several processes: a test starts its own binary again and runs only itself there, in another role.
//!
//! ```text
//! #[test]
//! fn something() {
//!     if let Some(place) = children::role("writer") { return writer(&place); }
//!     let mut writer = Child::start("something", "writer", place);
//!     writer.wait_for("ready");
//! }
//! ```

#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const ROLE: &str = "TIDEGATE_TEST_ROLE";
const PLACE: &str = "TIDEGATE_TEST_PLACE";

/// The directory given to [`Child::start`], when this process was started in the role `name`.
pub(crate) fn role(name: &str) -> Option<PathBuf> {
    if env::var(ROLE).ok()? != name {
        return None;
    }
    env::var_os(PLACE).map(PathBuf::from)
}

/// Tells the parent that something was reached.
pub(crate) fn say(line: &str) {
    println!("\n{line}");
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
    pub(crate) fn start(test: &str, role: &str, place: &Path) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(ROLE, role)
            .env(PLACE, place)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = read_lines(process.stdout.take().unwrap());
        Self { process, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a line that starts with `start` and returns the rest of it.
    pub(crate) fn wait_for(&mut self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                panic!("child {} did not say {start:?}: {error}", self.pid());
            });
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Kills it without collecting it: from now on it is dying, then a zombie.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// Waits for its end, which must be a successful one.
    pub(crate) fn succeed(mut self) {
        let status = self.process.wait().unwrap();
        assert!(status.success(), "child {}: {status}", self.pid());
    }

    /// Waits for its end, whatever it is.
    pub(crate) fn collect(&mut self) {
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_lines(output: ChildStdout) -> Receiver<String> {
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
