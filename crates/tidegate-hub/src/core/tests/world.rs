//! The world around a block in a test of one thread: a clock that moves when somebody sleeps, things that happen at a
//! given time, processes that die, counters.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use tidegate_shm::{
    clock::Nanos,
    sync::{Arc, Condvar, MutexGuard},
};

use crate::core::{
    Core, TakeOver,
    codec::{ProcessKey, SlotId},
    config::{CoreConfig, Deadline},
    host::{AuditEvent, Counter, Counters, ErrorKind, Host, Liveness, Place},
    plain::{Memory, NAMES, key},
    reader::Reader,
    registry::Start,
    words::{Control64, Load, Words},
    writer::{CommitInfo, Writer},
};

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1_000_000_000) };
    static TICKET: Cell<u32> = const { Cell::new(1) };
    static SLEEPS: RefCell<Vec<Sleep>> = const { RefCell::new(Vec::new()) };
    static EVENTS: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
    static DEAD: RefCell<BTreeSet<u64>> = const { RefCell::new(BTreeSet::new()) };
    static COUNTS: RefCell<BTreeMap<Counter, u64>> = const { RefCell::new(BTreeMap::new()) };
    static ERRORS: RefCell<Vec<ErrorKind>> = const { RefCell::new(Vec::new()) };
    static AUDIT: RefCell<Vec<AuditEvent>> = const { RefCell::new(Vec::new()) };
    static PROBES: Cell<u32> = const { Cell::new(0) };
    static WAKES: Cell<u32> = const { Cell::new(0) };
}

/// What happens, and when.
type Event = (u64, Box<dyn FnOnce()>);

/// One way of spending time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum Sleep {
    Pause,
    Timed(u64),
    Futex(u64),
}

/// The test's host; all of them share the world of the thread.
#[derive(Debug, Clone, Copy)]
pub(in crate::core) struct World;

impl Host for World {
    fn now(&self) -> Nanos {
        Nanos(NOW.get())
    }
    fn pause(&self) {
        SLEEPS.with_borrow_mut(|sleeps| sleeps.push(Sleep::Pause));
        pass(1_000);
    }
    fn sleep(&self, time: Nanos) {
        SLEEPS.with_borrow_mut(|sleeps| sleeps.push(Sleep::Timed(time.0)));
        pass(time.0);
    }
    fn park<'a, T>(&self, _: &Condvar, guard: MutexGuard<'a, T>, time: Nanos) -> MutexGuard<'a, T> {
        pass(time.0);
        guard
    }
    fn liveness(&self, key: ProcessKey, _: Place) -> Liveness {
        PROBES.set(PROBES.get() + 1);
        if DEAD.with_borrow(|dead| dead.contains(&key.word())) { Liveness::Dead } else { Liveness::Alive }
    }
    fn hold(&self, _: Place) -> bool {
        true
    }
    fn release(&self, _: Place) {}
    fn thread_ticket(&self) -> u32 {
        TICKET.get()
    }
}

impl Counters for World {
    fn count(&self, counter: Counter, amount: u64) {
        COUNTS.with_borrow_mut(|counts| *counts.entry(counter).or_default() += amount);
    }
    fn peak(&self, counter: Counter, value: u64) {
        COUNTS.with_borrow_mut(|counts| {
            let peak = counts.entry(counter).or_default();
            *peak = value.max(*peak);
        });
    }
    fn error(&self, error: ErrorKind) {
        ERRORS.with_borrow_mut(|errors| errors.push(error));
    }
    fn audit(&self, event: AuditEvent) {
        AUDIT.with_borrow_mut(|events| events.push(event));
    }
}

/// Lets time pass and what was planned happen.
fn pass(nanos: u64) {
    let until = NOW.get() + nanos;
    loop {
        let due = EVENTS.with_borrow_mut(|events| {
            let at = events.iter().position(|(time, _)| *time <= until)?;
            Some(events.remove(at))
        });
        let Some((time, event)) = due else { break };
        NOW.set(NOW.get().max(time));
        event();
    }
    NOW.set(until);
}

/// Sleeps until `deadline`, or until something that happens meanwhile ends `asleep`.
pub(in crate::core) fn sleep_while(asleep: impl Fn() -> bool, deadline: Nanos) {
    let left = || deadline.0.saturating_sub(NOW.get());
    SLEEPS.with_borrow_mut(|sleeps| sleeps.push(Sleep::Futex(left())));
    while asleep() && left() > 0 {
        let next = EVENTS.with_borrow(|events| events.iter().map(|(time, _)| *time).min());
        pass(next.map_or(left(), |next| next.saturating_sub(NOW.get()).min(left())));
    }
}

pub(in crate::core) fn note_wake() {
    WAKES.set(WAKES.get() + 1);
}

/// Plans something.
pub(super) fn after(millis: u64, event: impl FnOnce() + 'static) {
    EVENTS.with_borrow_mut(|events| events.push((NOW.get() + millis * 1_000_000, Box::new(event))));
}

pub(super) fn now() -> u64 {
    NOW.get()
}

pub(super) fn kill(key: u64) {
    DEAD.with_borrow_mut(|dead| dead.insert(key));
}

pub(super) fn be_thread(ticket: u32) {
    TICKET.set(ticket);
}

pub(super) fn counted(counter: Counter) -> u64 {
    COUNTS.with_borrow(|counts| counts.get(&counter).copied().unwrap_or(0))
}

/// All that was counted since the last call.
pub(super) fn counts() -> BTreeMap<Counter, u64> {
    COUNTS.take()
}

pub(super) fn errors() -> Vec<ErrorKind> {
    ERRORS.take()
}

pub(super) fn audit() -> Vec<AuditEvent> {
    AUDIT.take()
}

pub(super) fn sleeps() -> Vec<Sleep> {
    SLEEPS.take()
}

pub(super) fn probes() -> u32 {
    PROBES.take()
}

pub(super) fn wakes() -> u32 {
    WAKES.take()
}

pub(super) type TestWriter = Writer<Arc<Memory>, World>;
pub(super) type TestReader = Reader<Arc<Memory>, World>;

/// A block, its geometry, and its payloads: a slot holds one number.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) memory: Arc<Memory>,
    pub(super) config: CoreConfig,
    payloads: std::rc::Rc<RefCell<Vec<u64>>>,
}

pub(super) const WRITER: u64 = 10;
pub(super) const NEXT_WRITER: u64 = 11;
pub(super) const READER: u64 = 20;

impl Block {
    pub(super) fn new(config: CoreConfig) -> Self {
        let payloads = vec![u64::MAX; config.slot_count.get() as usize];
        let memory = Arc::new(Memory::new(&config));
        Self { memory, config, payloads: std::rc::Rc::new(RefCell::new(payloads)) }
    }

    pub(super) fn core(&self, process: u64) -> Core<Arc<Memory>, World> {
        Core::new(self.memory.clone(), World, self.config, key(process))
    }

    pub(super) fn writer(&self) -> TestWriter {
        self.adopt(WRITER)
    }

    pub(super) fn adopt(&self, process: u64) -> TestWriter {
        self.core(process).adopt(TakeOver::IfDead, soon()).unwrap().writer
    }

    pub(super) fn reader(&self, process: u64, start: Start) -> TestReader {
        Reader::join(self.core(process), start, &NAMES, 1, soon()).unwrap()
    }

    /// Writes one value, which is its id, without waiting.
    pub(super) fn write(&self, writer: &TestWriter) -> Result<u64, crate::core::error::WriteError> {
        let allocation = writer.allocate(1, Deadline::Immediate)?;
        self.fill(allocation.first);
        writer.commit(allocation.first, info(8))?;
        Ok(allocation.first.0)
    }

    pub(super) fn fill(&self, id: SlotId) {
        self.payloads.borrow_mut()[self.config.index(id).0 as usize] = id.0;
    }

    /// What the slot of an id holds.
    pub(super) fn payload(&self, id: SlotId) -> u64 {
        self.payloads.borrow()[self.config.index(id).0 as usize]
    }

    pub(super) fn word(&self, field: Control64) -> u64 {
        Load::load(self.memory.control64(field), tidegate_shm::sync::Ordering::Relaxed)
    }
}

pub(super) fn info(len: u64) -> CommitInfo {
    CommitInfo { len, ..CommitInfo::default() }
}

/// A deadline that no test waits for in vain.
pub(super) fn soon() -> Deadline {
    within(1_000)
}

pub(super) fn within(millis: u64) -> Deadline {
    Deadline::At(Nanos(now() + millis * 1_000_000))
}

/// All processes live again, for the next case of a table.
pub(super) fn revive() {
    DEAD.take();
}
