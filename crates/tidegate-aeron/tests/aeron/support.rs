//! What the tests share: scratch directories that are always removed, waiting with a deadline, child processes.

use std::io::{BufRead, BufReader, Lines, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tidegate_aeron::{
    Client, ClientOptions, MediaDriver, MediaDriverOptions, OfferError, Position, PublicationOf, Subscription,
};

/// Long enough for a loaded machine; only failures take it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The channel of the control plane.
pub(crate) const CHANNEL: &str = "aeron:ipc?term-length=4m";

/// A path under `/dev/shm` that nobody else uses. What is there, and its lock file, is removed at the end, also after a
/// panic.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: Mutex<u32> = Mutex::new(0);
        let mut count = COUNT.lock().unwrap();
        *count += 1;
        let path = format!("/dev/shm/tidegate-aeron-test-{}-{count}", std::process::id());
        Self { path: path.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        path.into()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
        let _ = std::fs::remove_file(self.lock_path());
    }
}

/// A driver with a client. Fields are dropped in the order of a clean shutdown.
pub(crate) struct Node {
    pub(crate) client: Client,
    pub(crate) driver: MediaDriver,
    pub(crate) scratch: Scratch,
}

impl Node {
    pub(crate) fn start() -> Self {
        let scratch = Scratch::new();
        let driver = MediaDriver::launch(&MediaDriverOptions::new(scratch.path())).unwrap();
        let client = Client::connect(&ClientOptions::new(scratch.path())).unwrap();
        Self { client, driver, scratch }
    }
}

/// Waits until `condition` holds, and fails when it does not in time.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Offers until the message is taken.
pub(crate) fn send<A: tidegate_aeron::LogAccess>(
    publication: &mut PublicationOf<A>,
    message: &[u8],
) -> Position {
    let started = Instant::now();
    loop {
        match publication.offer(message) {
            Ok(position) => return position,
            Err(OfferError::NotConnected | OfferError::BackPressured | OfferError::AdminAction) => {
                assert!(started.elapsed() < DEADLINE, "the message was not taken in time");
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Polls until `count` messages have arrived.
pub(crate) fn receive(subscription: &mut Subscription, count: usize) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    eventually("messages", || {
        subscription.poll(10, &mut |fragment| messages.push(fragment.data.to_vec())).unwrap();
        messages.len() >= count
    });
    messages
}

/// A process that runs one test of this binary again, with `role` in its environment.
pub(crate) struct Role {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
}

/// Where a child process finds its role.
pub(crate) const ROLE: &str = "TIDEGATE_AERON_TEST_ROLE";

/// The role and argument this process was started with by [`Role::start`].
pub(crate) fn role() -> Option<(String, PathBuf)> {
    let value = std::env::var(ROLE).ok()?;
    let (role, path) = value.split_once(' ').unwrap();
    Some((role.to_owned(), path.into()))
}

impl Role {
    /// Runs `test` of this binary in a process of its own and returns when it has printed a line that contains `ready`.
    pub(crate) fn start(test: &str, role: &str, path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, format!("{role} {}", path.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready"));
        let role = Self { child, stdin, stdout: lines };
        assert!(is_ready, "the child process ended before it was ready");
        role
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets the process end in order and returns what it printed apart from the test runner's own lines.
    pub(crate) fn finish(mut self) -> String {
        drop(self.stdin.take());
        let is_foreign =
            |line: &String| !line.is_empty() && !line.starts_with("test ") && !line.contains("ok");
        let mut printed: String = self.stdout.by_ref().map_while(Result::ok).filter(is_foreign).collect();
        self.child.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
        assert!(self.child.wait().unwrap().success(), "the child process failed:\n{printed}");
        printed
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a child process: tells the parent to go on and waits until it is told to end.
pub(crate) fn ready_until_told() {
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}
