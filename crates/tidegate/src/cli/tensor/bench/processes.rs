//! Starting, asking and ending the processes of a measurement.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tidegate::node::{NodeDescription, NodePlace};

use super::error::BenchError;
use super::lines::Lines;
use super::place::OwnPlace;
use super::protocol::{Answer, Order, Outcome, Role};
use crate::cli::signal::Interrupt;
use crate::output::Stop;

/// How long a worker may take for anything but measuring.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the private node may take to end by itself, which removes its files.
const NODE_ENDING: Duration = Duration::from_secs(5);
/// How long the sides may: they look for their end between two orders only, and leave nothing behind when they are killed.
const SIDE_ENDING: Duration = Duration::from_millis(500);

/// Everything that runs for a measurement. Ends with it, the private node last.
pub(super) struct Processes {
    pub(super) ping: Worker,
    pub(super) pong: Worker,
    pub(super) node_pid: u32,
    /// Largest payload of the node's streams, in bytes.
    pub(super) largest: usize,
    run: u64,
    interrupt: Interrupt,
    /// `None` when a running node is used.
    _node: Option<Worker>,
    /// Removed last.
    _place: OwnPlace,
}

impl Processes {
    /// Starts a node, unless `dir` names a running one, and both sides, and waits until frames go both ways.
    pub(super) fn start(dir: Option<PathBuf>) -> Result<Self, Stop> {
        let interrupt = Interrupt::install()?;
        let own = OwnPlace::make()?;
        let place = own.place();
        Lines::create(place.0)?;
        let private = dir.is_none();
        let dir = dir.unwrap_or_else(|| place.node());
        let name = format!("bench-{}", std::process::id());
        let start = |role| -> Result<(Worker, usize), Stop> {
            let mut worker = Worker::start(role, &dir, place.0, &name)?;
            match worker.receive(PATIENCE, &interrupt)? {
                Answer::Failed(message) => Err(BenchError::Failed { role, message }.into()),
                Answer::Ready(bytes) => Ok((worker, bytes)),
                Answer::Done(_) => Ok((worker, 0)),
            }
        };
        let node = private.then(|| start(Role::Node)).transpose()?.map(|(node, _)| node);
        let node_pid = NodeDescription::read(&NodePlace::find(Some(dir.clone()), None))?.pid;
        let (pong, _) = start(Role::Pong)?;
        let (ping, largest) = start(Role::Ping)?;
        let mut processes =
            Self { ping, pong, node_pid, largest, run: 0, interrupt, _node: node, _place: own };
        processes.both(Duration::ZERO, |run| Order::Meet { run })?;
        Ok(processes)
    }

    /// Gives both sides the order that `order` makes of the run's number, and waits for both.
    pub(super) fn both(
        &mut self,
        time: Duration,
        order: impl Fn(u64) -> Order,
    ) -> Result<Outcome, BenchError> {
        self.run += 1;
        self.pong.send(order(self.run))?;
        self.ping.send(order(self.run))?;
        // The side that fails first is the one that knows why; the other one only finds it silent.
        let outcome = self.ping.outcome(time + PATIENCE, &self.interrupt);
        let followed = match outcome {
            Err(BenchError::Failed { .. }) => self.pong.outcome(Duration::ZERO, &self.interrupt),
            _ => self.pong.outcome(PATIENCE, &self.interrupt),
        };
        match (outcome, followed) {
            (Err(_), Err(error @ BenchError::Failed { .. })) => Err(error),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(outcome), Ok(_)) => Ok(outcome),
        }
    }

    /// Lets pong wait as a reader does; ping waits for orders.
    pub(super) fn idle(
        &mut self,
        time: Duration,
        meanwhile: impl FnOnce(&Interrupt),
    ) -> Result<(), BenchError> {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.pong.send(Order::Idle { millis })?;
        meanwhile(&self.interrupt);
        self.pong.outcome(time + PATIENCE, &self.interrupt).map(|_| ())
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.is_set()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Both at once, so that they end side by side.
        self.ping.dismiss();
        self.pong.dismiss();
    }
}

/// A process that takes orders. Dropping it ends it.
pub(super) struct Worker {
    role: Role,
    child: Child,
    /// `None` once it was told to end.
    orders: Option<ChildStdin>,
    answers: ChildStdout,
    /// Bytes of answers that were not used yet.
    buffer: Vec<u8>,
}

impl Worker {
    fn start(role: Role, dir: &Path, lines: &Path, name: &str) -> Result<Self, BenchError> {
        let failed = |source| BenchError::Io { action: "start a process of this program", source };
        let program = std::env::current_exe().map_err(failed)?;
        let role_name = role.to_string();
        let arguments: [&OsStr; 11] = [
            // What is worth telling comes in the answers.
            "--quiet".as_ref(),
            "tensor".as_ref(),
            "bench-worker".as_ref(),
            "--role".as_ref(),
            role_name.as_ref(),
            "--dir".as_ref(),
            dir.as_ref(),
            "--lines".as_ref(),
            lines.as_ref(),
            "--name".as_ref(),
            name.as_ref(),
        ];
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A signal from the terminal is for the parent, which ends its workers in order.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(orders), Some(answers)) => {
                Ok(Self { role, child, orders: Some(orders), answers, buffer: Vec::new() })
            }
            _ => Err(BenchError::Ended { role }),
        }
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn send(&mut self, order: Order) -> Result<(), BenchError> {
        let role = self.role;
        let mut line = serde_json::to_vec(&order).map_err(|source| BenchError::Answer { role, source })?;
        line.push(b'\n');
        let orders = self.orders.as_mut().ok_or(BenchError::Ended { role })?;
        orders.write_all(&line).map_err(|_| BenchError::Ended { role })
    }

    /// Tells it to end.
    fn dismiss(&mut self) {
        self.orders = None;
    }

    fn outcome(&mut self, within: Duration, interrupt: &Interrupt) -> Result<Outcome, BenchError> {
        match self.receive(within, interrupt)? {
            Answer::Done(outcome) => Ok(outcome),
            Answer::Failed(message) => Err(BenchError::Failed { role: self.role, message }),
            Answer::Ready(_) => Ok(Outcome::default()),
        }
    }

    fn receive(&mut self, within: Duration, interrupt: &Interrupt) -> Result<Answer, BenchError> {
        let role = self.role;
        let deadline = Instant::now() + within;
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let answer = serde_json::from_slice(&self.buffer[..end]);
                self.buffer.drain(..=end);
                return answer.map_err(|source| BenchError::Answer { role, source });
            }
            if !self.await_bytes(deadline, interrupt)? {
                return Err(BenchError::NoAnswer { role, after: within });
            }
            let mut bytes = [0; 4096];
            match self.answers.read(&mut bytes) {
                Ok(0) => return Err(BenchError::Ended { role }),
                Ok(len) => self.buffer.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(BenchError::Io { action: "hear from a process", source }),
            }
        }
    }

    /// False when the deadline has passed.
    fn await_bytes(&self, deadline: Instant, interrupt: &Interrupt) -> Result<bool, BenchError> {
        loop {
            if interrupt.is_set() {
                return Err(BenchError::Interrupted);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut fds = [
                PollFd::new(&self.answers, PollFlags::IN),
                PollFd::from_borrowed_fd(interrupt.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(true),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(BenchError::Io { action: "wait for a process", source: errno.into() });
                }
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.dismiss();
        let deadline = Instant::now() + if self.role == Role::Node { NODE_ENDING } else { SIDE_ENDING };
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Harmless for a process that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
