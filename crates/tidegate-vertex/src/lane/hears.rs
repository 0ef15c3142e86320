//! What functions say besides their answers, over the control sockets of their workers (VX-501): counters, and lines for the log.
//!
//! A worker may say anything, as often as it likes. What comes faster than it is to be said is not read: it stays in the socket
//! until that is full, and the worker leaves the rest out and counts it. Names of counters are kept up to a number, sums only
//! grow, and lines are written by a thread of their own, which may wait for whoever reads them (VX-426).

use std::{
    collections::BTreeMap,
    io,
    sync::{
        PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use serde_json::Value;
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{Arc, Mutex, MutexGuard},
};
use tidegate_udf::{
    control::{Control, Incoming},
    pace::Pace,
    wire::message::{FromWorker, Level, Line, MAX_COUNTERS, Sums, counter_name},
};

use crate::operate::status::FunctionStatus;

/// What was heard from all workers of a vertex. Without [`Heard::start`] lines are left out.
#[derive(Debug, Default)]
pub struct Heard {
    function: Mutex<FunctionStatus>,
    writer: Mutex<Option<Writer>>,
}

/// The thread that writes lines.
#[derive(Debug)]
struct Writer {
    lines: SyncSender<(u32, Line)>,
    ended: Receiver<()>,
}

impl Heard {
    /// Starts the thread that writes lines to the log.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start() -> io::Result<Arc<Self>> {
        let (lines, said) = sync_channel(LINES);
        let (ending, ended) = sync_channel(1);
        std::thread::Builder::new().name("function-log".to_owned()).spawn(move || {
            said.into_iter().for_each(|(worker, line)| write(worker, line));
            // Nobody may be waiting any more.
            let _ = ending.send(());
        })?;
        Ok(Arc::new(Self { writer: Mutex::new(Some(Writer { lines, ended })), ..Self::default() }))
    }

    /// Writes the lines that are there, and no more. Does not wait for ever for a log that nobody reads.
    pub fn finish(&self) {
        let Some(Writer { lines, ended }) = lock(&self.writer).take() else { return };
        drop(lines);
        let _ = ended.recv_timeout(PATIENCE);
    }

    /// What the function counted.
    pub fn function(&self) -> FunctionStatus {
        lock(&self.function).clone()
    }

    fn log(&self, worker: u32, line: Line) {
        let writer = lock(&self.writer);
        if writer.as_ref().is_none_or(|writer| writer.lines.try_send((worker, line)).is_err()) {
            lock(&self.function).lines_left_out += 1;
        }
    }

    /// Adds what has come to the sums of a session, which were told before.
    fn add(&self, told: &mut Told, sums: Sums) {
        let mut function = lock(&self.function);
        let FunctionStatus { counters, counters_left_out, lines_left_out } = &mut *function;
        for (name, sum) in sums.counters {
            let name = counter_name(&name);
            if counters.len() >= MAX_COUNTERS && !counters.contains_key(&*name) {
                *counters_left_out = counters_left_out.saturating_add(1);
                continue;
            }
            let name = name.into_owned();
            grow(counters.entry(name.clone()).or_default(), told.counters.entry(name).or_default(), sum);
        }
        grow(counters_left_out, &mut told.refused, sums.refused);
        grow(lines_left_out, &mut told.lines, sums.lines);
    }
}

/// Adds by how much a sum that was told has grown.
fn grow(total: &mut u64, told: &mut u64, sum: u64) {
    *total = total.saturating_add(sum.saturating_sub(*told));
    *told = sum.max(*told);
}

/// What a session has told last.
#[derive(Debug, Default)]
struct Told {
    /// No more than the vertex has.
    counters: BTreeMap<String, u64>,
    lines: u64,
    refused: u64,
}

/// Listens to one session.
#[derive(Debug)]
pub(super) struct Ear {
    worker: u32,
    heard: Arc<Heard>,
    pace: Pace,
    told: Told,
}

impl Ear {
    pub(super) fn new(worker: u32, heard: Arc<Heard>) -> Self {
        Self { worker, heard, pace: Pace::new(BURST, INTERVAL), told: Told::default() }
    }

    /// When it listens again; a time that is over while it does.
    pub(super) fn listens_at(&self, now: Nanos) -> Nanos {
        self.pace.next(now)
    }

    /// Hears a message; whether the worker says good-bye. What is none of the protocol is for later versions.
    pub(super) fn hear(&mut self, datagram: &[u8]) -> bool {
        self.pace.take(monotonic_now());
        match FromWorker::decode(datagram) {
            Ok(FromWorker::Bye) => return true,
            Ok(FromWorker::Log(line)) => self.heard.log(self.worker, line),
            Ok(FromWorker::Metric(sums)) => self.heard.add(&mut self.told, sums),
            Ok(FromWorker::Hello(_) | FromWorker::Ready(_)) | Err(_) => {}
        }
        false
    }

    /// Hears what a worker that is dead has still said; whether that was good-bye. A process that it left behind may go on for
    /// ever, which is not waited for.
    pub(super) fn hear_last(&mut self, control: &Control) -> bool {
        let mut bye = false;
        for _ in 0..LAST_WORDS {
            let Ok(Some(Incoming::Message(datagram, _))) = control.receive(false) else { break };
            bye |= self.hear(&datagram);
        }
        bye
    }
}

fn write(worker: u32, line: Line) {
    let Line { level, message, partition, batch, fields } = line;
    let message = printable(&message);
    let fields = (!fields.is_empty()).then(|| printable(&Value::Object(fields).to_string()));
    let fields = fields.map(tracing::field::display);
    let (partition, batch) = (partition.0, batch.0);
    match level {
        Level::Error => tracing::error!(target: TARGET, worker, partition, batch, fields, "{message}"),
        Level::Warn => tracing::warn!(target: TARGET, worker, partition, batch, fields, "{message}"),
        Level::Info => tracing::info!(target: TARGET, worker, partition, batch, fields, "{message}"),
        Level::Debug => tracing::debug!(target: TARGET, worker, partition, batch, fields, "{message}"),
    }
}

/// One line, cut to what is printed: a worker cannot write lines of others, nor to the terminal.
fn printable(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        if line.len() >= LONGEST {
            break;
        }
        match letter.is_control() {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    line
}

/// The data is whole at every moment: a thread that panicked while it had the lock changes nothing about that.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What lines of functions are of, in the log.
const TARGET: &str = "function";
/// Messages at once, and how soon there may be one more: more than an SDK sends.
const BURST: u64 = 256;
const INTERVAL: Nanos = Nanos::from_millis(10);
/// Lines that wait for the log.
const LINES: usize = 256;
/// Bytes of a line that are printed, and of its fields.
const LONGEST: usize = 4 << 10;
/// Messages that are heard after the end of a worker, whoever sends them.
const LAST_WORDS: u32 = 1024;
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(counters: &[(&str, u64)]) -> Sums {
        let counters = counters.iter().map(|(name, sum)| ((*name).to_owned(), *sum)).collect();
        Sums { counters, ..Sums::default() }
    }

    /// Rules: VX-501.
    #[test]
    fn sums_of_all_sessions_are_added_and_only_grow() {
        let heard = Heard::default();
        let (mut first, mut second) = (Told::default(), Told::default());
        heard.add(&mut first, sums(&[("hits", 3)]));
        heard.add(&mut second, sums(&[("hits", 2), ("misses", 1)]));
        // One that was lost on the way, one told again, one that goes back.
        heard.add(&mut first, sums(&[("hits", 10)]));
        heard.add(&mut first, sums(&[("hits", 10)]));
        heard.add(&mut first, sums(&[("hits", 4)]));
        heard.add(&mut first, sums(&[("hits", 11)]));
        heard.add(&mut second, Sums { lines: 7, refused: 5, ..Sums::default() });
        heard.add(&mut second, Sums { lines: 8, refused: 5, ..Sums::default() });
        let FunctionStatus { counters, counters_left_out, lines_left_out } = heard.function();
        assert_eq!(counters, [("hits".to_owned(), 13), ("misses".to_owned(), 1)].into());
        assert_eq!((counters_left_out, lines_left_out), (5, 8));
    }

    /// Cases: CT-67.
    /// Rules: VX-426.
    #[test]
    fn names_are_clean_and_no_more_than_256() {
        let heard = Heard::default();
        let mut told = Told::default();
        let many: Vec<(String, u64)> = (0..100_000).map(|number| (format!("n{number}"), 1)).collect();
        heard.add(&mut told, Sums { counters: many, ..Sums::default() });
        heard.add(&mut told, sums(&[("bad\nname", 1), ("n7", u64::MAX)]));
        let mut other = Told::default();
        heard.add(&mut other, sums(&[("n7", u64::MAX), ("other", 1)]));
        let function = heard.function();
        assert_eq!((function.counters.len(), function.counters["n7"]), (256, u64::MAX));
        assert_eq!(function.counters_left_out, 100_000 - 256 + 2);
        assert_eq!((told.counters.len(), other.counters.len()), (256, 1));
        let heard = Heard::default();
        heard.add(&mut Told::default(), sums(&[("bad\nname{x=\"1\"}", 1), ("", 1), (&"é".repeat(900), 1)]));
        let names: Vec<String> = heard.function().counters.into_keys().collect();
        assert_eq!(names, ["_".to_owned(), "_".repeat(64), "bad_name_x__1__".to_owned()]);
    }

    /// Rules: VX-863.
    #[test]
    fn what_a_function_says_is_one_line() {
        assert_eq!(printable("one\ntwo\r\u{1b}[31m\u{9b}é"), "one\\ntwo\\r\\u{1b}[31m\\u{9b}é");
        assert!(printable(&"\n".repeat(100_000)).len() <= LONGEST + 1);
    }

    /// Nobody reads the log.
    /// Rules: VX-426.
    #[test]
    fn lines_that_find_no_room_are_counted() {
        let (lines, _said) = sync_channel(1);
        let (_ending, ended) = sync_channel(1);
        let heard = Heard { writer: Mutex::new(Some(Writer { lines, ended })), ..Heard::default() };
        let heard = Arc::new(heard);
        let mut ear = Ear::new(0, heard.clone());
        let line = br#"{"type":"log","level":"info","message":"x","partition":0,"batch":1}"#;
        assert!((0..3).all(|_| !ear.hear(line)));
        assert_eq!(heard.function().lines_left_out, 2);
        assert!(ear.hear(br#"{"type":"bye"}"#));
    }

    /// Rules: VX-426.
    #[test]
    fn a_worker_that_says_too_much_is_not_listened_to_for_a_while() {
        let mut ear = Ear::new(0, Arc::new(Heard::default()));
        let now = monotonic_now();
        assert_eq!(ear.listens_at(now), now);
        for _ in 0..10 * BURST {
            ear.hear(b"nonsense");
        }
        let now = monotonic_now();
        let again = ear.listens_at(now);
        // Of a machine that stood still meanwhile, it listens already.
        assert!(again > now || ear.pace.take(again).is_some(), "{again:?}");
    }
}
