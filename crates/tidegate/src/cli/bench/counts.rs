//! Allocations and system calls of the peers: counted in a short turn of its own, since counting costs time.
//!
//! Allocations are counted by a preloaded library, system calls by `perf` with the tracepoint of all of them. Where one of
//! the two cannot be had, its numbers are missing and the environment says why.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Counts allocations of the process that loads it.
const LIBRARY: &str = include_str!("../../../../../benches/messaging/count_allocations.c");
/// Every system call of every kind.
const EVENT: &str = "raw_syscalls:sys_enter";

pub(crate) struct Counter {
    place: PathBuf,
    library: Option<PathBuf>,
    perf: bool,
}

impl Counter {
    /// Builds the library in `place`, and sees whether `perf` works.
    pub(crate) fn new(place: &Path) -> Self {
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x", ",", "-e", EVENT, "true"]);
        let perf = counted(perf.output().ok().map(|output| output.stderr)).is_some();
        Self { place: place.to_owned(), library: build(place), perf }
    }

    /// Whether there is anything to count.
    pub(crate) fn works(&self) -> bool {
        self.perf || self.library.is_some()
    }

    /// Whether allocations are counted, or why not.
    pub(crate) fn allocations_from(&self) -> &'static str {
        if self.library.is_some() {
            "preloaded library"
        } else {
            "not available: cc cannot build the library"
        }
    }

    /// Whether system calls are counted, or why not.
    pub(crate) fn syscalls_from(&self) -> &'static str {
        if self.perf {
            "perf, raw_syscalls:sys_enter"
        } else {
            "not available: perf is missing, or has no tracepoints (mount tracefs; be root)"
        }
    }

    /// Makes the process number `index` of a turn count its allocations from its start.
    pub(crate) fn prepare(&self, command: &mut Command, index: usize) {
        if let Some(library) = &self.library {
            // What a process before it counted.
            let _ = std::fs::remove_file(self.file(index));
            command.env("LD_PRELOAD", library).env("TIDEGATE_BENCH_ALLOCATIONS", self.file(index));
        }
    }

    /// Allocations so far.
    pub(crate) fn allocations(&self, index: usize) -> Option<u64> {
        let bytes = std::fs::read(self.file(index)).ok()?;
        bytes.first_chunk().copied().map(u64::from_ne_bytes)
    }

    /// Counts the system calls of a process for some time from now on.
    pub(crate) fn syscalls(&self, id: u32, time: Duration) -> Option<Syscalls> {
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x", ",", "-e", EVENT, "-p", &id.to_string()])
            .args(["--timeout", &time.as_millis().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = self.perf.then(|| perf.spawn().ok()).flatten()?;
        Some(Syscalls { child: Some(child), time })
    }

    fn file(&self, index: usize) -> PathBuf {
        self.place.join(format!("allocations-{index}"))
    }
}

/// System calls that are being counted.
pub(crate) struct Syscalls {
    child: Option<Child>,
    time: Duration,
}

impl Syscalls {
    /// How many there are in a second, when the time is over.
    pub(crate) fn per_second(mut self) -> Option<f64> {
        let output = self.child.take()?.wait_with_output().ok()?;
        Some(counted(Some(output.stderr))? / self.time.as_secs_f64())
    }
}

impl Drop for Syscalls {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may be done.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The number in a line `NUMBER,,EVENT,...` of `perf stat -x ,`.
fn counted(stderr: Option<Vec<u8>>) -> Option<f64> {
    let text = String::from_utf8(stderr?).ok()?;
    text.lines().find(|line| line.contains(EVENT))?.split(',').next()?.parse().ok()
}

fn build(place: &Path) -> Option<PathBuf> {
    let (source, library) = (place.join("count_allocations.c"), place.join("count_allocations.so"));
    std::fs::write(&source, LIBRARY).ok()?;
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-o"]).args([&library, &source]);
    compiler.output().ok().filter(|output| output.status.success()).map(|_| library)
}
