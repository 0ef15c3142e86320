//! What the protocol needs from outside: time, sleep, liveness, counters. Injected, so that tests and models decide.

use tidegate_shm::{
    clock::Nanos,
    sync::{Condvar, MutexGuard},
};

use super::codec::{ProcessKey, Row, SlotId};
pub use crate::identity::{Liveness, Place};

/// Clock, processor and kernel of the calling process.
pub trait Host: Counters {
    /// Now, on the monotonic clock.
    fn now(&self) -> Nanos;
    /// Now, or some milliseconds ago: for words that say since when something is so.
    fn now_roughly(&self) -> Nanos {
        self.now()
    }
    /// A pause of the processor while spinning.
    fn pause(&self);
    /// Sleeps in the kernel.
    fn sleep(&self, time: Nanos);
    /// Sleeps on a condition of this process, at most `time`.
    fn park<'a, T>(&self, condition: &Condvar, guard: MutexGuard<'a, T>, time: Nanos) -> MutexGuard<'a, T>;
    /// Whether the process `key`, which is recorded at `place`, is alive (DH-033, DH-038); asked off the fast path only.
    fn liveness(&self, key: ProcessKey, place: Place) -> Liveness;
    /// Notes that this process is about to record itself at `place`; false if it has it already (DH-038, DH-039).
    fn hold(&self, place: Place) -> bool;
    /// Notes that this process is not recorded at `place` any more.
    fn release(&self, place: Place);
    /// The caller is about to wait for another process for longer than a moment. Whoever watches processes should know
    /// by now all those that may be in the way.
    fn waits(&self) {}
    /// Whether nobody in this process waits any longer (DH-097).
    fn is_cancelled(&self) -> bool {
        false
    }
    /// Number of the calling thread, never reused within the process (DH-145).
    fn thread_ticket(&self) -> u32;
}

/// The counters of the metrics page and the audit ring.
pub trait Counters {
    /// Adds to a counter.
    fn count(&self, counter: Counter, amount: u64);
    /// Raises a maximum.
    fn peak(&self, counter: Counter, value: u64);
    /// Notes when something was done last.
    fn stamp(&self, _stamp: Stamp, _at: Nanos) {}
    /// An error that is reported to the caller (DH-100).
    fn error(&self, error: ErrorKind);
    /// Something that repairs or takes away.
    fn audit(&self, event: AuditEvent);
}

/// Times of 17.1 that the protocol maintains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// Something was committed.
    LastWrite,
    /// A slot was consumed, at most once per millisecond and consumer.
    LastRead,
}

/// Counters of 17.1 that the protocol maintains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "named as in the table of the sheet")]
pub enum Counter {
    WriterTimeout,
    WriterBlockedNs,
    WriteLockContention,
    WriterGenerationWraps,
    ReaderNotReady,
    ReaderRaceDetected,
    ReaderValidationFailed,
    ReaderPeak,
    StateTransitionErrors,
    SlotAcquireErrors,
    SlotCommitErrors,
    SlotsWritten,
    BytesWritten,
    ReadsAttemptedRetired,
    SlotsReadRetired,
    BytesReadRetired,
    WritesAttempted,
    WriterFullTimeout,
    WriterDrainTimeout,
    WriterRefused,
    SlotsAborted,
    SlotsSkippedHeld,
    SlotsDroppedOldest,
    SlotsUnobserved,
    BatchWrites,
    DrainWaits,
    WakeupsSent,
    FloorScans,
    ReaderTimeout,
    ReaderLappedSlots,
    ConsumersJoined,
    ConsumersLeft,
    ConsumersEvicted,
    DeadConsumersReaped,
    PeakConsumers,
    LockErrors,
    LockTakeovers,
    MaintenanceLockWaits,
    WriterAdoptions,
    WriterSeizures,
}

/// Errors that are recorded; the codes are those of Annex B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A write ended in a timeout.
    WriteTimeout = 201,
    /// A ring was full for a caller that would have waited.
    QueueFull = 202,
    /// A slot was between values.
    NotReady = 204,
    /// Ids were lost to a reader.
    Lapped = 205,
    /// Someone else has what is needed.
    Locked = 206,
    /// The handle lost its right.
    Fenced = 207,
    /// A word held what it never may.
    InvalidState = 209,
    /// A batch larger than the ring.
    BatchTooLarge = 210,
    /// A wait for oneself.
    WouldDeadlock = 211,
    /// All ids used.
    IdSpaceExhausted = 212,
    /// A read ended in a timeout.
    ReadTimeout = 214,
}

/// Entries of the audit ring that the protocol writes (18.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are who or what it happened to")]
pub enum AuditEvent {
    /// A consumer was removed because it is dead.
    Reaped { row: Row, owner: Option<ProcessKey> },
    /// A consumer lost the right of its cursor.
    Evicted { row: Row, owner: Option<ProcessKey> },
    /// The maintenance lock was taken from a dead holder and the registry repaired.
    LockTakenOver { from: ProcessKey },
    /// A shared lock was taken from a dead holder.
    SpinlockTakenOver { lock: u32, from: ProcessKey },
    /// Writing was taken over from a dead writer.
    Adopted { from: Option<ProcessKey> },
    /// Writing was taken over by force.
    Seized { from: ProcessKey },
    /// An id will never hold data because its writer is gone (DH-084).
    Abandoned { id: SlotId },
}
