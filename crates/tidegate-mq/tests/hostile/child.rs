//! Tests in processes of their own: for what is counted per process, and for peers that are killed.
//!
//! A test starts this program again with its own name and a role, and talks to it line by line.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use tidegate_mq::DriverChoice;

const ROLE: &str = "TIDEGATE_MQ_TEST_ROLE";
/// Longer than any child has to do something.
const PATIENCE: Duration = Duration::from_secs(60);

/// The role this process was started in.
pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Runs the test `name` in a child of its own for each driver. In that child, returns the driver.
pub(crate) fn alone(name: &str) -> Option<DriverChoice> {
    match role().as_deref() {
        Some("io_uring") => return Some(DriverChoice::IoUring),
        Some("polling") => return Some(DriverChoice::Polling),
        _ => {}
    }
    for driver in ["io_uring", "polling"] {
        let output = command(name, driver).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{driver}: {out}{err}");
        for line in out.lines().filter(|line| line.starts_with("measured")) {
            println!("{driver}: {line}");
        }
    }
    None
}

pub(crate) fn command(name: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// In a child: tells the parent something.
pub(crate) fn say(line: &str) {
    println!("\n{line}");
    std::io::stdout().flush().unwrap();
}

/// In a child: the next line of the parent; `None` when it is done with us.
pub(crate) fn hear() -> Option<String> {
    let mut line = String::new();
    let count = std::io::stdin().read_line(&mut line).unwrap();
    (count > 0).then(|| line.trim().to_owned())
}

/// A process in some role; killed when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
}

impl Child {
    pub(crate) fn start(name: &str, role: &str) -> Self {
        Self::spawn(command(name, role))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { process, lines }
    }

    /// Waits for a line that starts with `start`, and returns the rest.
    #[track_caller]
    pub(crate) fn wait_for(&self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {start:?}"));
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Closes its input and waits for it to end well.
    pub(crate) fn finish(mut self) {
        drop(self.process.stdin.take());
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Open descriptors of this process.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Resident memory of a process in bytes, after its allocator has had no chance to tidy up.
pub(crate) fn resident(process: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// How often the threads of a process have gone to sleep and been woken, by thread name.
pub(crate) fn sleeps(process: &str) -> Vec<(String, u64)> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut sleeps: Vec<_> = threads
        .map(|thread| {
            let path = thread.unwrap().path();
            let name = fs::read_to_string(path.join("comm")).unwrap().trim().to_owned();
            let status = fs::read_to_string(path.join("status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            (name, line.trim().parse().unwrap())
        })
        .collect();
    sleeps.sort();
    sleeps
}
