//! Standard input as a source: records as they come, in one partition, until it ends. Nothing can be read again, so positions
//! are those of this run: a random number in the upper bits, the offset in the lower ones (VX-793).

use std::{
    io::{self, Read},
    thread,
};

use tidegate_shm::sync::{Arc, Condvar, Mutex, MutexGuard};
use tidegate_udf::wire::ids::{PartitionId, Position};

use super::{
    Abilities, AckMode, Budget, Identity, Polled, Positions, Replay, Resume, Source, SourceError,
    ahead::first_of_run,
    framing::{Cut, Cutter, Framing},
};
use crate::{
    batch::{Input, Record},
    wake::Waker,
};

/// A stream of bytes that is read once.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    cutter: Cutter,
    buffer: Vec<u8>,
    start: usize,
    /// Position of `buffer[start]`.
    position: u64,
    kept: Option<Input>,
    unfit: Option<(Input, String)>,
}

/// Between the thread that reads and the vertex.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    taken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    end: Option<Result<(), io::Error>>,
    /// Nobody takes any more.
    closed: bool,
}

/// What it can do.
pub const ABILITIES: Abilities =
    Abilities { positions: Positions::PerRun, replay: Replay::No, ack: AckMode::None, ordered: true };

impl Stream {
    /// Standard input, from now on.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn stdin(framing: Framing, waker: Waker) -> Result<Self, SourceError> {
        Self::of(io::stdin(), framing, waker)
    }

    fn of(input: impl Read + Send + 'static, framing: Framing, waker: Waker) -> Result<Self, SourceError> {
        let shared = Arc::new(Shared::default());
        let reading = shared.clone();
        // It sleeps in the system's read until the input ends; there is nothing to join it for.
        let work = move || read(input, &reading, &waker);
        thread::Builder::new().name("stdin".to_owned()).spawn(work).map_err(SourceError::Start)?;
        let cutter = Cutter::new(framing);
        Ok(Self {
            shared,
            cutter,
            buffer: Vec::new(),
            start: 0,
            position: first_of_run()?.0,
            kept: None,
            unfit: None,
        })
    }

    /// Cuts the next record into `kept`, or into `unfit`; without one for `kept`, why there is none.
    fn next(&mut self, max: usize) -> Result<Option<Polled>, SourceError> {
        loop {
            let last = self.shared.ended()?;
            let position = Position(self.position);
            let cut = self.cutter.cut(&self.buffer[self.start..], last, max);
            match cut.map_err(|fault| SourceError::Record { position, fault })? {
                Cut::Record { taken, value } => {
                    self.take(taken);
                    self.kept =
                        Some(Input { position, next: Position(self.position), record: Record::of(value) });
                    return Ok(None);
                }
                Cut::Unfit { taken, fault } => {
                    let value = self.buffer[self.start..self.start + taken].to_vec();
                    self.take(taken);
                    let next = Position(self.position);
                    self.unfit =
                        Some((Input { position, next, record: Record::of(value) }, fault.to_string()));
                    return Ok(Some(Polled::Idle));
                }
                Cut::Skip { taken } => self.take(taken),
                Cut::More if last => return Ok(Some(Polled::End)),
                Cut::More if self.fill() => {}
                Cut::More => return Ok(Some(Polled::Idle)),
            }
        }
    }

    fn take(&mut self, taken: usize) {
        self.start += taken;
        self.position += taken as u64;
    }

    /// Takes over what was read; whether it was anything, or the end was reached.
    fn fill(&mut self) -> bool {
        self.buffer.drain(..self.start);
        self.start = 0;
        let mut state = self.shared.lock();
        let some = !state.bytes.is_empty() || state.end.is_some();
        self.buffer.append(&mut state.bytes);
        drop(state);
        self.shared.taken.notify_one();
        some
    }
}

impl Source for Stream {
    fn abilities(&self) -> Abilities {
        ABILITIES
    }

    fn partitions(&self) -> u32 {
        1
    }

    fn open(&mut self, _: PartitionId, _: Option<&Resume>) -> Result<Position, SourceError> {
        // Wherever the last run came to: what it had read cannot come again.
        Ok(Position(self.position))
    }

    fn poll(&mut self, _: PartitionId, max: Budget) -> Result<Polled, SourceError> {
        let (mut inputs, mut room) = (Vec::new(), max.bytes);
        while inputs.len() < max.records {
            let none = match (&self.kept, &self.unfit) {
                (None, None) => self.next(max.value)?,
                (None, Some(_)) => Some(Polled::Idle),
                (Some(_), _) => None,
            };
            if let Some(none) = none {
                let unfit = self.unfit.take_if(|_| inputs.is_empty());
                let none = unfit.map_or(none, |(input, fault)| Polled::Unfit(input, fault));
                return Ok(if inputs.is_empty() { none } else { Polled::Inputs(inputs) });
            }
            let fits =
                self.kept.as_ref().is_some_and(|input| input.record.len() <= room || inputs.is_empty());
            let Some(input) = self.kept.take_if(|_| fits) else { break };
            room = room.saturating_sub(input.record.len());
            inputs.push(input);
        }
        Ok(Polled::Inputs(inputs))
    }

    fn identity(&mut self, _: PartitionId, _: Position) -> Result<Identity, SourceError> {
        Ok(Identity::default())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.taken.notify_one();
    }
}

impl Shared {
    /// The state is whole at every moment, whoever panicked with the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether everything was taken over and nothing comes behind it.
    fn ended(&self) -> Result<bool, SourceError> {
        let mut state = self.lock();
        match state.end.take() {
            None => Ok(false),
            Some(Err(source)) => Err(SourceError::Read { path: "stdin".into(), source }),
            Some(Ok(())) => {
                state.end = Some(Ok(()));
                Ok(state.bytes.is_empty())
            }
        }
    }
}

/// Reads until the end, never more ahead than the bound.
fn read(mut input: impl Read, shared: &Shared, waker: &Waker) {
    let mut chunk = vec![0; AHEAD];
    loop {
        let mut state = shared.lock();
        while state.bytes.len() >= AHEAD && !state.closed {
            state = shared.taken.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if state.closed {
            return;
        }
        drop(state);
        let end = match input.read(&mut chunk) {
            Ok(0) => Ok(()),
            Ok(len) => {
                shared.lock().bytes.extend_from_slice(&chunk[..len]);
                waker.wake();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        shared.lock().end = Some(end);
        waker.wake();
        return;
    }
}

/// Bytes that are read ahead, in the thread and here each.
pub(crate) const AHEAD: usize = 256 * 1024;

#[cfg(test)]
#[path = "stdin_tests.rs"]
mod tests;
