//! Records that a thread of a source reads ahead of the vertex, within a bound in bytes (VX-831).

use std::collections::VecDeque;

use tidegate_shm::sync::{Arc, Condvar, Mutex, MutexGuard};
use tidegate_udf::wire::ids::Position;

use super::{Budget, Polled, SourceError};
use crate::{batch::Input, lane::supervise::random, wake::Waker};

/// The end of the vertex.
#[derive(Debug)]
pub(super) struct Ahead {
    shared: Arc<Shared>,
}

/// The end of the thread.
#[derive(Debug)]
pub(super) struct Feed {
    shared: Arc<Shared>,
    bound: usize,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    inputs: VecDeque<Input>,
    bytes: usize,
    /// Why there will be no more.
    end: Option<Option<SourceError>>,
    closed: bool,
}

#[cfg(feature = "tensor")]
impl Queue {
    fn has_room(&self, bound: usize) -> bool {
        self.inputs.is_empty() || self.bytes < bound
    }
}

/// Both ends of a queue of at most `bound` bytes, or one record.
pub(super) fn ahead(bound: usize, waker: Waker) -> (Feed, Ahead) {
    let shared = Arc::new(Shared::default());
    (Feed { shared: shared.clone(), bound, waker }, Ahead { shared })
}

impl Feed {
    /// Adds a record when there is room; `false` when nobody wants any more.
    pub(super) fn push(&self, input: Input) -> bool {
        let mut queue = self.shared.lock();
        while !queue.closed && !queue.inputs.is_empty() && queue.bytes + input.record.len() > self.bound {
            queue = self.shared.changed.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if queue.closed {
            return false;
        }
        self.insert(queue, input);
        true
    }

    /// Adds a record without waiting: the last one for which [`Feed::has_room`] was true may pass the bound.
    #[cfg(feature = "tensor")]
    pub(super) fn add(&self, input: Input) {
        let queue = self.shared.lock();
        if !queue.closed {
            self.insert(queue, input);
        }
    }

    fn insert(&self, mut queue: MutexGuard<'_, Queue>, input: Input) {
        queue.bytes += input.record.len();
        queue.inputs.push_back(input);
        let first = queue.inputs.len() == 1;
        drop(queue);
        if first {
            self.waker.wake();
        }
    }

    /// Whether the bound is not reached.
    #[cfg(feature = "tensor")]
    pub(super) fn has_room(&self) -> bool {
        self.shared.lock().has_room(self.bound)
    }

    /// Waits until there is room, or nobody wants any more, but not longer than this.
    #[cfg(feature = "tensor")]
    pub(super) fn await_room(&self, time: std::time::Duration) {
        let queue = self.shared.lock();
        let full = |queue: &mut Queue| !queue.closed && !queue.has_room(self.bound);
        // Whoever panicked with the lock, the caller looks again.
        drop(self.shared.changed.wait_timeout_while(queue, time, full));
    }

    /// Whether nobody wants any more.
    #[cfg(feature = "tensor")]
    pub(super) fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// There will be no more, for this reason if there is one.
    pub(super) fn end(self, why: Option<SourceError>) {
        self.shared.lock().end = Some(why);
        self.waker.wake();
    }
}

impl Ahead {
    /// The next records, as [`Source::poll`](super::Source::poll) says.
    pub(super) fn poll(&mut self, max: Budget) -> Result<Polled, SourceError> {
        let mut queue = self.shared.lock();
        let (mut inputs, mut room) = (Vec::new(), max.bytes);
        while inputs.len() < max.records {
            let Some(input) = queue.inputs.front() else { break };
            let len = input.record.len();
            if input.record.value.len() > max.value {
                if inputs.is_empty() {
                    return Err(SourceError::TooLong { position: input.position, max: max.value });
                }
                break;
            }
            if len > room && !inputs.is_empty() {
                break;
            }
            room = room.saturating_sub(len);
            queue.bytes = queue.bytes.saturating_sub(len);
            inputs.extend(queue.inputs.pop_front());
        }
        if !inputs.is_empty() {
            drop(queue);
            self.shared.changed.notify_one();
            return Ok(Polled::Inputs(inputs));
        }
        match queue.end.take() {
            None => Ok(Polled::Idle),
            Some(Some(error)) => Err(error),
            Some(None) => {
                queue.end = Some(None);
                Ok(Polled::End)
            }
        }
    }

    /// Records that are there.
    pub(super) fn len(&self) -> u64 {
        self.shared.lock().inputs.len() as u64
    }

    /// Bytes of them.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.lock().bytes as u64
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    /// The queue is whole at every moment, whoever panicked with the lock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The first position of a run whose positions are of that run only: a random number in the upper bits, a count in the lower
/// ones (VX-793).
pub(super) fn first_of_run() -> Result<Position, SourceError> {
    let random = random().map_err(|error| SourceError::Start(std::io::Error::other(error)))?;
    Ok(Position(random >> RUN_SHIFT << COUNT_BITS))
}

/// 23 random bits, and a count up to 2^40; the highest bit of a position stays clear.
const COUNT_BITS: u32 = 40;
const RUN_SHIFT: u32 = 64 - 23;

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
