//! The acting writer: one per block, with any number of threads (DH-001).
//!
//! Threads take turns in allocating; payloads are written in parallel. Publishing needs no turn, so that a thread which
//! waits for room never keeps another one from committing what consumers wait for.

mod allocate;
mod commit;
mod floor;
mod handover;
mod reset;
mod stall;

use tidegate_shm::sync::{AtomicU32, Condvar, Mutex, MutexGuard, Ordering};

pub use allocate::Allocation;
pub use commit::{CommitInfo, OpenSlot};
pub use reset::SlotResetError;
use stall::Watch;

use super::{
    Core,
    codec::{Ctl, HANDOVER_CANCELLED, HANDOVER_CUT, InitState, SlotId, SlotIndex, SlotState, Transition},
    config::{Stall, Timing},
    crash::{self, Point},
    ctl_of,
    error::{AcquireError, Holder, WriteError},
    host::{Counter, ErrorKind, Host},
    protocol::{Protocol, Shipped},
    wait::Blocked,
    words::{Control32, Control64, Load, Slot64, SlotWords, Word, WriterWords},
};

/// The writing side of a block. Obtained by [`Core::adopt`].
#[derive(Debug)]
pub struct Writer<W, H, P = Shipped> {
    core: Core<W, H, P>,
    epoch: u64,
    /// Whether a thread allocates, see [`TURN_TAKEN`].
    turn: AtomicU32,
    /// Guards the end of the resolved prefix.
    prefix: Mutex<Parked>,
    /// The turn was given back, or the resolved prefix grew.
    moved: Condvar,
    watch: Mutex<Watch>,
    blocked: Blocked,
    hold: handover::Hold,
}

/// How many ids ahead of the one that is committed lines are fetched.
const AHEAD: u64 = 4;
/// The same within a batch.
const BATCH_AHEAD: u32 = 8;
/// Rings with fewer slots are so small that somebody may be about to read what is written next.
const ROOMY: u64 = 16;

/// Bit of the turn: a thread allocates.
const TURN_TAKEN: u32 = 1;
/// Bit of the turn: others may sleep until it is given back.
const TURN_WANTED: u32 = 2;

/// The threads of the writer that sleep until something moves.
#[derive(Debug, Default)]
struct Parked {
    /// How many: without any, nobody enters the kernel to wake them.
    threads: u32,
    /// The channel goes on in another block: the turn is never given back.
    is_over: bool,
}

impl<W: WriterWords, H: Host, P: Protocol> Writer<W, H, P> {
    /// The writer whose key and epoch the block names.
    pub(super) fn of_owner(core: Core<W, H, P>, epoch: u64) -> Self {
        Self {
            core,
            epoch,
            turn: AtomicU32::new(0),
            prefix: Mutex::default(),
            moved: Condvar::new(),
            watch: Mutex::default(),
            blocked: Blocked::default(),
            hold: handover::Hold::default(),
        }
    }

    /// The block.
    #[inline]
    pub fn core(&self) -> &Core<W, H, P> {
        &self.core
    }

    /// Stops writing: consumers read what there is and are then told that the block is closed (16.4).
    ///
    /// # Errors
    /// The right was lost.
    pub fn start_closing(&self) -> Result<(), AcquireError> {
        self.check_owner()?;
        self.store_state(InitState::Closing);
        // Those who wait for this writer, and those of its threads that wait for consumers.
        self.core.wake_readers();
        self.core.wake_writer();
        self.moved.notify_all();
        Ok(())
    }

    /// Whether the block still takes data from this writer.
    ///
    /// # Errors
    /// The right was lost, the block is closed, or the channel went on elsewhere.
    pub fn check_open(&self) -> Result<(), AcquireError> {
        self.check()
    }

    /// Changes how later calls wait.
    pub fn set_timing(&mut self, timing: Timing) {
        self.core.config.timing = timing;
    }

    /// What later calls do about stalled consumers.
    pub fn set_stall(&mut self, stall: Stall) {
        self.core.config.stall = stall;
    }

    /// Whether `id` is WRITING, neither committed nor aborted yet.
    #[inline]
    pub fn is_open(&self, id: SlotId) -> bool {
        self.place(id).is_open()
    }

    /// The slots of a request that are open.
    #[inline]
    pub fn open_slots(&self, batch: Allocation) -> impl Iterator<Item = OpenSlot<W::SlotMut<'_>>> {
        self.places(batch.first, batch.count).filter(Place::is_open).map(OpenSlot)
    }

    /// The slot of `id`, if it [is open](Self::is_open).
    #[inline]
    pub fn open(&self, id: SlotId) -> Option<OpenSlot<W::SlotMut<'_>>> {
        let place = self.place(id);
        place.is_open().then_some(OpenSlot(place))
    }

    /// Leaves the block to whoever adopts it, as it is.
    ///
    /// # Errors
    /// The right was lost.
    pub fn resign(&self) -> Result<(), AcquireError> {
        let owner = self.core.words.control64_mut(Control64::WriterOwner);
        // AcqRel: pairs with the exchange of the next writer.
        owner
            .compare_exchange(self.core.key.word(), 0, Ordering::AcqRel)
            .map(drop)
            .map_err(|_| AcquireError::Fenced)
    }

    /// Gives the block up. `last` is done while it is closed and nobody else can be its writer: removing its name, which
    /// may be that of another block afterwards.
    ///
    /// # Errors
    /// The right was lost.
    pub fn finish_closing(&self, last: impl FnOnce()) -> Result<(), AcquireError> {
        self.check_owner()?;
        self.store_state(InitState::Closed);
        self.core.wake_readers();
        crash::at(Point::Closed);
        last();
        self.resign()
    }

    fn store_state(&self, state: InitState) {
        // Release: pairs with the acquire of consumers, who see all commits before the end.
        self.core.words.control32_mut(Control32::InitState).store(state as u32, Ordering::Release);
    }

    /// Whether this writer may go on (DH-044).
    #[inline]
    fn check(&self) -> Result<(), AcquireError> {
        self.check_owner()?;
        self.core.check_open()
    }

    #[inline]
    fn check_owner(&self) -> Result<(), AcquireError> {
        let core = &self.core;
        let displaced = core.control(Control64::WriterOwner) != core.key.word()
            || core.control(Control64::WriterEpoch) != self.epoch;
        if displaced { Err(AcquireError::Fenced) } else { Ok(()) }
    }

    /// Fetches the lines of a slot that is going to be written: consumers have them, and their processors fetch also those
    /// beside what they read.
    #[inline]
    fn expect_write(&self, slot: SlotIndex) {
        if self.core.config.slots() >= ROOMY {
            self.core.words.expect_write(slot);
        }
    }

    /// A word that only this writer stores, in any of its threads.
    #[inline]
    fn own(&self, field: Control64) -> u64 {
        // Acquire: pairs with the release of the thread that stored it.
        self.core.words.control64_mut(field).load(Ordering::Acquire)
    }

    /// Stores a word of the control page.
    #[inline]
    fn publish(&self, field: Control64, value: u64) {
        // Release: pairs with the acquiring loads of consumers and of sibling threads (DH-049).
        self.core.words.control64_mut(field).store(value, Ordering::Release);
    }

    #[inline]
    fn lock_prefix(&self) -> MutexGuard<'_, Parked> {
        // A thread that panicked left a number and no half-done work.
        self.prefix.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Counts and records an error on its way to the caller (DH-100).
    #[inline]
    fn recorded<T>(&self, counter: Counter, result: Result<T, WriteError>) -> Result<T, WriteError> {
        result.inspect_err(|error| self.record(counter, error))
    }

    #[cold]
    fn record(&self, counter: Counter, error: &WriteError) {
        let kind = match error {
            // The last two do not arise in here.
            WriteError::TooLong { .. } | WriteError::DigestsDisabled | WriteError::CannotSeal { .. } => {
                return;
            }
            WriteError::BatchTooLarge { .. } => ErrorKind::BatchTooLarge,
            WriteError::IdSpaceExhausted => ErrorKind::IdSpaceExhausted,
            WriteError::Acquire(error) => match error {
                AcquireError::Timeout => {
                    self.core.host.count(Counter::WriterTimeout, 1);
                    ErrorKind::WriteTimeout
                }
                AcquireError::QueueFull => {
                    self.core.host.count(Counter::WriterRefused, 1);
                    return;
                }
                AcquireError::Locked { holder: Holder::Caller } => ErrorKind::WouldDeadlock,
                AcquireError::Locked { .. } => ErrorKind::Locked,
                AcquireError::Fenced => ErrorKind::Fenced,
                AcquireError::InvalidState => ErrorKind::InvalidState,
                _ => return,
            },
        };
        if matches!(kind, ErrorKind::Fenced | ErrorKind::InvalidState) {
            // Another writer, or a word that is none of ours.
            self.core.host.count(Counter::WriteLockContention, 1);
        }
        self.core.host.count(counter, 1);
        self.core.host.error(kind);
    }
}

impl<W: WriterWords, H: Host, P: Protocol> Core<W, H, P> {
    /// The control word as the acting writer sees it.
    #[inline]
    pub(crate) fn slot_ctl(&self, slot: SlotIndex) -> Ctl {
        ctl_of(self.words.slot_mut(slot))
    }

    /// One exchange that names the word it expects; nothing is forced (DH-045, DH-046).
    #[inline]
    pub(super) fn transition(
        &self,
        slot: W::SlotMut<'_>,
        from: Ctl,
        transition: Transition,
        order: Ordering,
    ) -> Result<(), AcquireError> {
        let word = slot.word64(Slot64::Ctl);
        let done = match from.after(transition) {
            Some(to) => word.compare_exchange(from.0, to.0, order).is_ok(),
            None => false,
        };
        if done {
            return Ok(());
        }
        self.host.count(Counter::StateTransitionErrors, 1);
        Err(AcquireError::InvalidState)
    }

    /// Whether the block still takes data.
    #[inline]
    fn check_open(&self) -> Result<(), AcquireError> {
        self.closed().map_or(Ok(()), Err)
    }
}

impl<W: super::words::Words, H: Host, P: Protocol> Core<W, H, P> {
    /// The error to report when no more data will come; none while the block is in use.
    #[inline]
    pub(super) fn closed(&self) -> Option<AcquireError> {
        // Acquire, both: pairs with the release of the closing writer; who sees the end sees all commits.
        let state = self.words.control32(Control32::InitState).load(Ordering::Acquire);
        let handover = self.words.control32(Control32::HandoverState).load(Ordering::Acquire);
        let handed_over = (HANDOVER_CUT..HANDOVER_CANCELLED).contains(&handover);
        (handed_over || state != InitState::Ready as u32).then_some(AcquireError::Closed { handed_over })
    }
}

/// An id together with the words of its slot.
#[derive(Clone, Copy)]
struct Place<S> {
    id: SlotId,
    index: SlotIndex,
    slot: S,
}

impl<S: SlotWords> Place<S> {
    #[inline]
    fn ctl(&self) -> Ctl {
        ctl_of(self.slot)
    }

    /// How many ids after `first`, the first of its request.
    #[inline]
    fn behind(&self, first: SlotId) -> u32 {
        self.id.0.saturating_sub(first.0) as u32
    }

    /// Whether it is WRITING, neither committed nor aborted yet.
    #[inline]
    fn is_open(&self) -> bool {
        self.ctl() == Ctl::new(self.id.tag(), SlotState::Writing)
    }
}

impl<W: WriterWords, H: Host, P: Protocol> Writer<W, H, P> {
    #[inline]
    fn place(&self, id: SlotId) -> Place<W::SlotMut<'_>> {
        let index = self.core.config.index(id);
        Place { id, index, slot: self.core.words.slot_mut(index) }
    }

    /// The places of `n` consecutive ids.
    #[inline]
    fn places(&self, first: SlotId, n: u32) -> impl Iterator<Item = Place<W::SlotMut<'_>>> {
        let indices = self.core.config.indices(first, n);
        indices.map(|(id, index)| Place { id, index, slot: self.core.words.slot_mut(index) })
    }
}
