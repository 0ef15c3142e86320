//! Models of the protocol (25.12): every interleaving and every stale value that the memory model allows, up to a number
//! of preemptions, over the shipped code; and for each choice of [`super::protocol::Protocol`] that the argument rests
//! on, that the code fails without it.
//!
//! A payload is memory that may not be used by two threads at once; its value is the id.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-hub --release --lib core::models::`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod claims;
mod generation;
mod prefix;
mod registry;
mod spinlock;
mod takeover;
mod waiting;

use std::process::Command;

use tidegate_shm::{
    clock::Nanos,
    sync::{Arc, AtomicU64, CheckedCell, Condvar, MutexGuard, Ordering, thread},
};

use super::{
    Core, TakeOver,
    codec::{ProcessKey, SlotId},
    config::{CoreConfig, Deadline},
    host::{AuditEvent, Counter, Counters, ErrorKind, Host, Liveness, Place},
    plain::{Memory, NAMES, key},
    protocol::Protocol,
    reader::{Acquired, Reader, Release},
    registry::Start,
    writer::{CommitInfo, Writer},
};

const NOW: Deadline = Deadline::Immediate;
const WRITER: u64 = 10;
const READER: u64 = 20;
/// Processes from this key on are dead.
const DEAD: u64 = 1_000;

/// A host whose time stands still: nobody waits, who cannot go on gives up.
#[derive(Debug, Clone, Copy)]
struct Still;

impl Host for Still {
    fn now(&self) -> Nanos {
        Nanos::ZERO
    }
    fn pause(&self) {
        thread::yield_now();
    }
    fn sleep(&self, _: Nanos) {
        thread::yield_now();
    }
    fn park<'a, T>(&self, condition: &Condvar, guard: MutexGuard<'a, T>, _: Nanos) -> MutexGuard<'a, T> {
        condition.wait(guard).unwrap()
    }
    fn liveness(&self, key: ProcessKey, _: Place) -> Liveness {
        if key.word() >= DEAD { Liveness::Dead } else { Liveness::Alive }
    }
    fn hold(&self, _: Place) -> bool {
        true
    }
    fn release(&self, _: Place) {}
    fn thread_ticket(&self) -> u32 {
        1
    }
}

impl Counters for Still {
    fn count(&self, _: Counter, _: u64) {}
    fn peak(&self, _: Counter, _: u64) {}
    fn error(&self, _: ErrorKind) {}
    fn audit(&self, _: AuditEvent) {}
}

/// A block with its payloads.
struct Block<P> {
    memory: Arc<Memory>,
    payloads: Arc<Vec<CheckedCell>>,
    config: CoreConfig,
    ticks: Arc<AtomicU64>,
    protocol: std::marker::PhantomData<fn() -> P>,
}

impl<P> Clone for Block<P> {
    fn clone(&self) -> Self {
        let Self { memory, payloads, config, ticks, protocol } = self;
        Self {
            memory: memory.clone(),
            payloads: payloads.clone(),
            config: *config,
            ticks: ticks.clone(),
            protocol: *protocol,
        }
    }
}

type ModelWriter<P> = Writer<Arc<Memory>, Still, P>;
type ModelReader<P> = Reader<Arc<Memory>, Still, P>;

impl<P: Protocol> Block<P> {
    fn new(config: CoreConfig) -> Self {
        let payloads = (0..config.slot_count.get()).map(|_| CheckedCell::new(u64::MAX)).collect();
        let memory = Arc::new(Memory::new(&config));
        Self {
            memory,
            payloads: Arc::new(payloads),
            config,
            ticks: Arc::new(AtomicU64::new(0)),
            protocol: std::marker::PhantomData,
        }
    }

    fn core(&self, process: u64) -> Core<Arc<Memory>, Still, P> {
        Core::new(self.memory.clone(), Still, self.config, key(process))
    }

    fn writer(&self) -> ModelWriter<P> {
        self.core(WRITER).adopt(TakeOver::IfDead, NOW).unwrap().writer
    }

    fn reader(&self, process: u64, start: Start) -> ModelReader<P> {
        Reader::join(self.core(process), start, &NAMES, 1, NOW).unwrap()
    }

    /// Makes the explorer try all orders of the steps that call this. It remembers only the last access to a word, so
    /// that a thread which loads a word before it stores it hides the loads of the others. Orders nothing by itself.
    fn step(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    fn payload(&self, id: SlotId) -> &CheckedCell {
        &self.payloads[self.config.index(id).0 as usize]
    }

    /// Writes the next id if that is possible at once.
    fn write(&self, writer: &ModelWriter<P>) -> Option<SlotId> {
        let id = writer.allocate(1, NOW).ok()?.first;
        self.payload(id).write(id.0);
        writer.commit(id, CommitInfo::default()).unwrap();
        Some(id)
    }

    /// Reads what was acquired and lets it go.
    fn read(&self, reader: &mut ModelReader<P>, acquired: &Acquired) -> SlotId {
        assert_eq!(self.payload(acquired.id).read(), acquired.id.0, "wrong bytes");
        reader.release(acquired, Release::Consumed).unwrap();
        acquired.id
    }
}

/// Explores a model with at most so many preemptions; returns the number of runs.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) -> usize {
    #![allow(clippy::disallowed_types, reason = "runs of a model are counted outside of it")]
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let counting = runs.clone();
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = Some(preemptions);
    explorer.max_branches = 10_000;
    explorer.check(move || {
        counting.fetch_add(1, SeqCst);
        model();
    });
    runs.load(SeqCst)
}

/// Says, in a process of its own because a broken model may end in an abort, whether the model of the calling test breaks
/// in one of the expected ways.
fn breaks<R>(reports: &[&str], model: impl FnOnce() -> R) -> bool {
    const INSIDE: &str = "TIDEGATE_BROKEN_MODEL";
    if std::env::var_os(INSIDE).is_some() {
        model();
        // Not broken: the caller's assertion must not fail in here.
        return true;
    }
    let test = thread_name();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(INSIDE, "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    !output.status.success() && reports.iter().any(|report| text.contains(report))
}

/// The test harness names the thread after the test.
fn thread_name() -> String {
    std::thread::current().name().unwrap().to_owned()
}

/// What loom says about memory used by two threads at once.
const RACE: &str = "Causality violation";

/// Defines protocols that lack one thing.
macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident: $field:ident: $kind:ty = $value:expr;)*) => {$(
        $(#[$doc])*
        struct $name;
        impl $crate::core::protocol::Protocol for $name {
            const $field: $kind = $value;
        }
    )*};
}
use mutants;
