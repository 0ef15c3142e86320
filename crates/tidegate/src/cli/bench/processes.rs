//! The processes of one turn: started, listened to, watched, and gone when the turn is.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use super::error::BenchError;
use crate::cli::signal::Interrupt;

/// Time after which signals are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// The processes of a turn, by number. Killed when dropped.
pub(crate) struct Processes<'a> {
    program: &'a str,
    interrupt: &'a Interrupt,
    children: Vec<Child>,
    /// Processes that one of them started and that are a part of what is measured.
    workers: Vec<u32>,
    lines: Receiver<(usize, Option<String>)>,
    sender: Sender<(usize, Option<String>)>,
}

impl<'a> Processes<'a> {
    pub(crate) fn new(program: &'a str, interrupt: &'a Interrupt) -> Self {
        let (sender, lines) = channel();
        Self { program, interrupt, children: Vec::new(), workers: Vec::new(), lines, sender }
    }

    /// Starts the next one, on these processors if any.
    pub(crate) fn start(&mut self, mut command: Command, cpus: Option<&CpuSet>) -> Result<(), BenchError> {
        let failed = |source| BenchError::io(format!("start {}", self.program), source);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A signal from the terminal is for the parent.
            .process_group(0);
        // A child has the processors of the thread that starts it.
        let before = cpus.and_then(|_| sched_getaffinity(None).ok());
        if let Some(cpus) = cpus {
            sched_setaffinity(None, cpus).map_err(|error| failed(error.into()))?;
        }
        let spawned = command.spawn();
        if let Some(before) = before {
            sched_setaffinity(None, &before).map_err(|error| failed(error.into()))?;
        }
        let mut child = spawned.map_err(failed)?;
        if let Some(stdout) = child.stdout.take() {
            forward(self.children.len(), stdout, self.sender.clone());
        }
        self.children.push(child);
        Ok(())
    }

    /// The next line of a process that has this field; what any of them prints meanwhile is passed over.
    pub(crate) fn await_field(
        &mut self,
        from: usize,
        field: &str,
        within: Duration,
    ) -> Result<Value, BenchError> {
        let program = || self.program.to_owned();
        let deadline = Instant::now() + within;
        loop {
            if self.interrupt.is_set() {
                return Err(BenchError::Interrupted);
            }
            match self.lines.recv_timeout(LOOK) {
                Ok((index, Some(line))) => {
                    let value: Value = serde_json::from_str(&line)
                        .map_err(|source| BenchError::Answer { program: program(), source })?;
                    if let Some(why) = value["cannot"].as_str() {
                        return Err(BenchError::Cannot { program: program(), why: why.to_owned() });
                    }
                    if index == from && value.get(field).is_some() {
                        return Ok(value);
                    }
                }
                Ok((index, None)) => return Err(self.ended(index)),
                Err(_) if Instant::now() >= deadline => {
                    return Err(BenchError::NoAnswer {
                        program: program(),
                        field: field.to_owned(),
                        after: within,
                    });
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// Why a process ended; none does by itself.
    fn ended(&mut self, index: usize) -> BenchError {
        let status = self.children.get_mut(index).and_then(|child| child.wait().ok());
        let status = status.map_or_else(|| "an unknown status".to_owned(), |status| status.to_string());
        BenchError::Ended { program: self.program.to_owned(), status }
    }

    /// Lets a process go on that waits for it.
    pub(crate) fn order(&mut self, index: usize) -> Result<(), BenchError> {
        let stdin = self.children.get_mut(index).and_then(|child| child.stdin.as_mut());
        if stdin.is_none_or(|stdin| stdin.write_all(b"go\n").is_ok()) {
            return Ok(());
        }
        // Nobody reads it any more.
        Err(self.ended(index))
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.children.iter().map(Child::id)
    }

    /// What each process used up so far, and behind them the workers.
    pub(crate) fn usage(&self) -> Vec<Usage> {
        self.ids().chain(self.workers.iter().copied()).map(Usage::of).collect()
    }

    /// From now on the processes with these numbers, if any, are a part of what is measured.
    pub(crate) fn watch(&mut self, workers: &Value) {
        let numbers = workers.as_array().into_iter().flatten().filter_map(Value::as_u64);
        self.workers.extend(numbers.filter_map(|number| u32::try_from(number).ok()));
    }
}

impl Drop for Processes<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Harmless for a process that has ended.
            let _ = child.kill();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

/// What a process used up, as far as the kernel tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Processor time of its threads, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// How often its threads went to sleep.
    pub(crate) sleeps: u64,
    /// Resident memory, in bytes.
    pub(crate) memory: u64,
}

impl Usage {
    fn of(id: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        let (mut cpu_ns, mut sleeps) = (0, 0);
        for thread in threads {
            // A thread may be gone.
            let read = |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            cpu_ns += first_number(&read("schedstat"));
            sleeps += field(&read("status"), "voluntary_ctxt_switches:");
        }
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        Self { cpu_ns, sleeps, memory: field(&status, "VmRSS:") * 1024 }
    }
}

/// The number of a line that begins so.
fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, first_number)
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn forward(index: usize, stdout: ChildStdout, to: Sender<(usize, Option<String>)>) {
    // Ends with the process that writes.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if to.send((index, Some(line))).is_err() {
                return;
            }
        }
        // The turn may be over.
        let _ = to.send((index, None));
    });
}
