//! What a function says besides its answers (VX-501): lines for the log of the runtime, and counters.
//!
//! Neither waits for the runtime. A line that finds no room in the socket, or comes faster than anybody reads, is left out and
//! counted. Counters are kept here as sums and told with every beat and at the end, so what is lost on the way comes with the
//! next telling; a worker that is killed takes with it what it counted since its last beat.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::PoisonError,
};

use serde_json::{Map, Value};
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{
    batch::cut,
    control::Control,
    pace::Pace,
    wire::{
        ids::{BatchId, PartitionId},
        message::{FromWorker, Level, Line, MAX_COUNTERS, Sums, counter_name},
    },
};

/// Says things of a batch, from anywhere and at any time ([`Ctx::journal`](crate::Ctx::journal)).
#[derive(Debug, Clone)]
pub struct Journal {
    pub(crate) book: Arc<Book>,
    pub(crate) partition: PartitionId,
    pub(crate) batch: BatchId,
}

impl Journal {
    /// As [`Ctx::log`](crate::Ctx::log).
    pub fn log(&self, level: Level, message: &str, fields: &[(&str, Value)]) {
        let mut all: Map<String, Value> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let len = if all.is_empty() { 0 } else { Value::Object(all.clone()).to_string().len() };
        if len > MAX_FIELDS {
            all = Map::from_iter([("left_out".to_owned(), format!("{len} bytes of fields").into())]);
        }
        let Self { partition, batch, .. } = *self;
        self.book.log(Line { level, message: cut(message).to_owned(), partition, batch, fields: all });
    }

    /// As [`Ctx::count`](crate::Ctx::count).
    pub fn count(&self, name: &str, by: u64) {
        self.book.count(name, by);
    }
}

/// What a worker has said and counted in its session.
#[derive(Debug)]
pub(crate) struct Book {
    /// To the runtime; without one, lines go to standard error.
    control: Option<Arc<Control>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    counters: BTreeMap<String, u64>,
    /// Lines that were left out.
    lines: u64,
    /// Values of counters for which there was no place.
    refused: u64,
    /// There is something that the runtime was not told.
    news: bool,
}

impl Book {
    pub(crate) fn new(control: Option<Arc<Control>>) -> Arc<Self> {
        let pace = Pace::new(BURST, INTERVAL);
        let state = State { pace, counters: BTreeMap::new(), lines: 0, refused: 0, news: false };
        Arc::new(Self { control, state: Mutex::new(state) })
    }

    fn log(&self, line: Line) {
        let Some(control) = &self.control else {
            let text = Value::Object(line.fields).to_string();
            // There is no place left to complain to when standard error is closed.
            let _ = writeln!(io::stderr(), "{}: {} {text}", line.level.name(), line.message);
            return;
        };
        let goes = self.lock().pace.take(monotonic_now()).is_some();
        if !goes || control.send(&FromWorker::Log(line).encode(), &[]).is_err() {
            let mut state = self.lock();
            (state.lines, state.news) = (state.lines + 1, true);
        }
    }

    fn count(&self, name: &str, by: u64) {
        let name = counter_name(name);
        let mut state = self.lock();
        state.news = true;
        let has_place = state.counters.len() < MAX_COUNTERS;
        match state.counters.get_mut(&*name) {
            Some(sum) => *sum = sum.saturating_add(by),
            None if has_place => {
                state.counters.insert(name.into_owned(), by);
            }
            None => state.refused += 1,
        }
    }

    /// Tells the runtime the sums if they have changed. `send` says whether it could.
    pub(crate) fn tell(&self, send: impl FnOnce(&[u8]) -> bool) {
        let mut state = self.lock();
        if !std::mem::take(&mut state.news) {
            return;
        }
        let State { counters, lines, refused, .. } = &*state;
        let sums =
            Sums { counters: counters.clone().into_iter().collect(), lines: *lines, refused: *refused };
        // User code does not wait for what follows.
        drop(state);
        if !send(&FromWorker::Metric(sums).encode()) {
            self.lock().news = true;
        }
    }

    /// What was counted, for tests of functions.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        self.lock().counters.clone()
    }

    /// The data is whole at every moment, whoever panicked with the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of the fields of a line.
const MAX_FIELDS: usize = 4096;
/// Lines at once, and how soon there may be one more: less than a runtime reads.
const BURST: u64 = 200;
const INTERVAL: Nanos = Nanos::from_millis(20);
