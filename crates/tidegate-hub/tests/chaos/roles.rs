//! What the processes do that are killed: produce and read at full speed, check every byte, and write down each id.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::exit,
    sync::Arc,
    thread,
    time::Duration,
};

use tidegate_hub::{
    block::AttachError,
    consumer::{Consumer, ReadBatch},
    error::{AcquireError, OpenError, ReadBatchError, RegistryError, WriteError},
    producer::Producer,
};
use tidegate_shm::{
    region::Span,
    sync::{AtomicBool, Ordering},
};

use crate::{
    dice::Dice,
    journal::{ABORTED, COUNT, ENDED, Journal, LAST, LOST, START},
    plan::{BATCH, CALL, CHANNELS, Channel, Kind, READERS, ReaderPlan, SLOT},
};

/// What the process is; its journals begin with [`LOG`].
pub(crate) const ROLE: &str = "TIDEGATE_CHAOS_ROLE";
pub(crate) const DIR: &str = "TIDEGATE_CHAOS_DIR";
pub(crate) const LOG: &str = "TIDEGATE_CHAOS_LOG";

/// How often those that have no turn ask for it.
const TURN: Duration = Duration::from_millis(20);

/// In a payload that is given up: nobody may ever see it.
const GIVEN_UP: u64 = 0xDEAD;
const MEANT: u64 = 0x600D;

/// A process in a role; never comes back.
pub(crate) fn run(role: &str) -> ! {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let log = PathBuf::from(std::env::var_os(LOG).unwrap());
    match role.strip_prefix("reader ") {
        Some(index) => read(&READERS[index.parse::<usize>().unwrap()], &dir, &log),
        None => produce(&dir, &log),
    }
}

/// The journal of `channel`, or of the only one.
pub(crate) fn log_of(log: &Path, suffix: &str) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".");
    path.push(suffix);
    path.into()
}

fn bad(log: &Path, what: &str) -> ! {
    fs::write(log_of(log, "bad"), what).unwrap();
    exit(1)
}

/// Set once the other end of standard input is gone.
fn until_told(stop: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop();
    });
}

fn produce(dir: &Path, log: &Path) -> ! {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    // Relaxed, here and below: nothing is published with it.
    until_told(move || told.store(true, Ordering::Relaxed));
    thread::scope(|scope| {
        for channel in &CHANNELS {
            let stop = &stop;
            scope.spawn(move || produce_channel(channel, dir, log, &|| stop.load(Ordering::Relaxed)));
        }
    });
    exit(0)
}

fn produce_channel(channel: &Channel, dir: &Path, log: &Path, stopped: &dyn Fn() -> bool) {
    let mut journal = Journal::create(&log_of(log, channel.name));
    let Some(producer) = open_producer(channel, dir, log, stopped) else { return };
    journal.put(START, producer.next_id().0 + 1);
    let mut aborted = 0;
    let mut dice = Dice::new(u64::from(std::process::id()) << 8 | channel.index());
    while !stopped() {
        let what = dice.below(64);
        let result = match what {
            0 => abort(&producer, channel).map(|()| {
                aborted += 1;
                journal.put(ABORTED, aborted);
            }),
            1..8 => commit_batch(&producer, channel, &mut journal, 2 + dice.below(BATCH - 1)),
            _ => commit_one(&producer, channel, &mut journal, &mut dice),
        };
        match result {
            Ok(()) | Err(WriteError::Acquire(AcquireError::Timeout)) => {}
            Err(error) => bad(log, &format!("writing {}: {error:?}", channel.name)),
        }
    }
    if let Err(error) = producer.close() {
        bad(log, &format!("closing {}: {error:?}", channel.name));
    }
    journal.put(ENDED, 1);
}

fn open_producer(channel: &Channel, dir: &Path, log: &Path, stopped: &dyn Fn() -> bool) -> Option<Producer> {
    let config = channel.config(dir);
    loop {
        match Producer::create(&config) {
            Ok(producer) => return Some(producer),
            Err(_) if stopped() => return None,
            // It is another's, or somebody who may be stopped is cleaning up.
            Err(
                OpenError::Registry(RegistryError::WriterAlive { .. } | RegistryError::LockTimeout { .. })
                | OpenError::Attach(AttachError::Locked),
            ) => thread::sleep(TURN),
            // Who has it was told to end before this one heard of it.
            Err(OpenError::Attach(AttachError::Closed)) => return None,
            Err(error) => bad(log, &format!("opening {}: {error:?}", channel.name)),
        }
    }
}

fn commit_one(
    producer: &Producer,
    channel: &Channel,
    journal: &mut Journal,
    dice: &mut Dice,
) -> Result<(), WriteError> {
    let mut slot = producer.write(CALL.into())?;
    let id = slot.id().0;
    slot.put_bytes(&payload(channel.index(), id, MEANT, 24 + 8 * dice.below(30) as usize))?;
    journal.pending(id, 1);
    slot.commit()?;
    journal.add(id, 1);
    Ok(())
}

fn commit_batch(
    producer: &Producer,
    channel: &Channel,
    journal: &mut Journal,
    count: u64,
) -> Result<(), WriteError> {
    let mut batch = producer.acquire_write_batch(count as u32, CALL.into())?;
    let first = batch.id(0).unwrap().0;
    for k in 0..count {
        batch.put_bytes(k as usize, &payload(channel.index(), first + k, MEANT, SLOT)).unwrap();
    }
    journal.pending(first, count);
    batch.commit()?;
    journal.add(first, count);
    Ok(())
}

fn abort(producer: &Producer, channel: &Channel) -> Result<(), WriteError> {
    let mut slot = producer.write(CALL.into())?;
    let id = slot.id().0;
    slot.put_bytes(&payload(channel.index(), id, GIVEN_UP, SLOT))?;
    slot.abort();
    Ok(())
}

/// Every word says which channel, which id and which place it is of.
fn payload(channel: u64, id: u64, mark: u64, len: usize) -> Vec<u8> {
    let word = |place: u64| Dice::mix(channel << 56 ^ id << 8 ^ place);
    let words = [id, mark, len as u64].into_iter().chain((3..(len / 8) as u64).map(word));
    words.flat_map(u64::to_le_bytes).collect()
}

fn check(channel: u64, id: u64, bytes: Span<'_>) -> Result<(), String> {
    let read = bytes.to_vec();
    let expected = payload(channel, id, MEANT, read.len());
    if read == expected && read.len() >= 24 {
        return Ok(());
    }
    Err(format!("id {id} of {} bytes holds\n  {read:x?}\ninstead of\n  {expected:x?}", read.len()))
}

fn read(plan: &ReaderPlan, dir: &Path, log: &Path) -> ! {
    // A parent that is gone without having ended this test is no reason to go on.
    until_told(|| exit(2));
    let mut journal = Journal::create(&log_of(log, "ids"));
    let mut consumer = join(plan, dir, log);
    journal.put(START, consumer.start_id().0 + 1);
    let mut reading = Reading {
        plan,
        journal: &mut journal,
        dice: Dice::new(u64::from(std::process::id())),
        lost: 0,
        count: 0,
    };
    let end = loop {
        let outcome = match plan.held {
            1 => reading.one(&mut consumer),
            held => reading.some(&mut consumer, held as u32),
        };
        match outcome {
            Ok(Ok(())) | Ok(Err(AcquireError::Timeout)) => {}
            Ok(Err(AcquireError::NotReady)) if plan.channel().kind == Kind::Newest => {}
            Ok(Err(AcquireError::Lapped { lost })) if plan.channel().kind == Kind::Dropping => {
                reading.lost += lost;
                reading.journal.put(LOST, reading.lost);
            }
            Ok(Err(AcquireError::Closed { .. })) => break consumer.detach(),
            Ok(Err(error)) => bad(log, &format!("reading: {error:?}")),
            Err(torn) => bad(log, &torn),
        }
    };
    if let Err(error) = end {
        bad(log, &format!("leaving: {error:?}"));
    }
    journal.put(ENDED, 1);
    exit(0)
}

fn join(plan: &ReaderPlan, dir: &Path, log: &Path) -> Consumer {
    loop {
        match Consumer::attach(&plan.channel().file_name(), &plan.config(dir)) {
            Ok(consumer) => return consumer,
            // Whoever holds the lock may be stopped.
            Err(OpenError::Registry(RegistryError::LockTimeout { .. })) => {}
            Err(error) => bad(log, &format!("attaching: {error:?}")),
        }
    }
}

struct Reading<'a> {
    plan: &'a ReaderPlan,
    journal: &'a mut Journal,
    dice: Dice,
    lost: u64,
    count: u64,
}

impl Reading<'_> {
    fn one(&mut self, consumer: &mut Consumer) -> Result<Result<(), AcquireError>, String> {
        let slot = match consumer.next(CALL.into()) {
            Ok(slot) => slot,
            Err(error) => return Ok(Err(error)),
        };
        let (channel, id) = (self.plan.channel().index(), slot.id().0);
        check(channel, id, slot.bytes())?;
        self.linger();
        // Held means that it stays as it is.
        check(channel, id, slot.bytes()).map_err(|torn| format!("while held, {torn}"))?;
        if !slot.validate() {
            return Err(format!("id {id} did not stay valid"));
        }
        self.note(id);
        drop(slot);
        Ok(Ok(()))
    }

    fn some(&mut self, consumer: &mut Consumer, held: u32) -> Result<Result<(), AcquireError>, String> {
        let error = match consumer.acquire_read_up_to(held) {
            Ok(batch) => return self.whole(&batch).map(Ok),
            Err(error) => error,
        };
        match error {
            // Waits, and takes the one.
            ReadBatchError::Acquire(AcquireError::QueueEmpty) => self.one(consumer),
            ReadBatchError::Acquire(error) => Ok(Err(error)),
            error => Err(format!("reading a batch: {error:?}")),
        }
    }

    fn whole(&mut self, batch: &ReadBatch<'_>) -> Result<(), String> {
        let channel = self.plan.channel().index();
        batch.iter().try_for_each(|(id, bytes)| check(channel, id.0, bytes))?;
        self.linger();
        batch.iter().try_for_each(|(id, bytes)| check(channel, id.0, bytes))?;
        batch.iter().for_each(|(id, _)| self.note(id.0));
        Ok(())
    }

    /// Noted before it is let go: what is not noted must come again.
    fn note(&mut self, id: u64) {
        self.count += 1;
        if self.plan.channel().kind == Kind::Newest {
            self.journal.put(COUNT, self.count);
            self.journal.put(LAST, id + 1);
            if !self.count.is_multiple_of(16) {
                return;
            }
        }
        self.journal.add(id, 1);
    }

    fn linger(&mut self) {
        if self.dice.below(512) == 0 {
            thread::sleep(Duration::from_micros(self.dice.below(2_000)));
        }
    }
}
