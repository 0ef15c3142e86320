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

use tidegate_shm::sync::{Condvar, Mutex, MutexGuard, Ordering};

pub use allocate::Allocation;
pub use commit::CommitInfo;
pub use reset::SlotResetError;
use stall::Watch;

use super::{
    Core,
    codec::{Ctl, HANDOVER_CANCELLED, HANDOVER_CUT, InitState, SlotId, SlotIndex, SlotState, Transition},
    config::{Stall, Timing},
    error::{AcquireError, Holder, WriteError},
    host::{Counter, ErrorKind, Host},
    protocol::{Protocol, Shipped},
    wait::Blocked,
    words::{Control32, Control64, Load, Slot64, Word, WriterWords},
};

/// The writing side of a block. Obtained by [`Core::adopt`].
#[derive(Debug)]
pub struct Writer<W, H, P = Shipped> {
    core: Core<W, H, P>,
    epoch: u64,
    turn: Mutex<Turn>,
    /// The turn was given back, or the resolved prefix grew.
    moved: Condvar,
    watch: Mutex<Watch>,
    blocked: Blocked,
    hold: handover::Hold,
}

/// What the threads of the writer agree on.
#[derive(Debug)]
struct Turn {
    allocating: bool,
    /// Threads that sleep until something moves: without any, nobody enters the kernel to wake them.
    parked: u32,
    /// The channel goes on in another block: no id is given away any more.
    is_over: bool,
}

impl<W: WriterWords, H: Host, P: Protocol> Writer<W, H, P> {
    /// The writer whose key and epoch the block names.
    pub(super) fn of_owner(core: Core<W, H, P>, epoch: u64) -> Self {
        let turn = Mutex::new(Turn { allocating: false, parked: 0, is_over: false });
        Self {
            core,
            epoch,
            turn,
            moved: Condvar::new(),
            watch: Mutex::default(),
            blocked: Blocked::default(),
            hold: handover::Hold::default(),
        }
    }

    /// The block.
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
    pub fn is_open(&self, id: SlotId) -> bool {
        self.core.slot_ctl(self.core.config.index(id)) == Ctl::new(id.tag(), SlotState::Writing)
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

    /// Gives the block up.
    ///
    /// # Errors
    /// The right was lost.
    pub fn finish_closing(&self) -> Result<(), AcquireError> {
        self.check_owner()?;
        self.store_state(InitState::Closed);
        self.core.wake_readers();
        self.resign()
    }

    fn store_state(&self, state: InitState) {
        // Release: pairs with the acquire of consumers, who see all commits before the end.
        self.core.words.control32_mut(Control32::InitState).store(state as u32, Ordering::Release);
    }

    /// Whether this writer may go on (DH-044).
    fn check(&self) -> Result<(), AcquireError> {
        self.check_owner()?;
        self.core.check_open()
    }

    fn check_owner(&self) -> Result<(), AcquireError> {
        let core = &self.core;
        let displaced = core.control(Control64::WriterOwner) != core.key.word()
            || core.control(Control64::WriterEpoch) != self.epoch;
        if displaced { Err(AcquireError::Fenced) } else { Ok(()) }
    }

    /// A word that only this writer stores, in any of its threads.
    fn own(&self, field: Control64) -> u64 {
        // Acquire: pairs with the release of the thread that stored it.
        self.core.words.control64_mut(field).load(Ordering::Acquire)
    }

    /// Stores a word of the control page.
    fn publish(&self, field: Control64, value: u64) {
        // Release: pairs with the acquiring loads of consumers and of sibling threads (DH-049).
        self.core.words.control64_mut(field).store(value, Ordering::Release);
    }

    fn lock_turn(&self) -> MutexGuard<'_, Turn> {
        // A thread that panicked left a truth value and no half-done work.
        self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Counts and records an error on its way to the caller (DH-100).
    fn recorded<T>(&self, counter: Counter, result: Result<T, WriteError>) -> Result<T, WriteError> {
        let kind = match result {
            // The last two do not arise in here.
            Ok(_)
            | Err(WriteError::TooLong { .. } | WriteError::DigestsDisabled | WriteError::CannotSeal { .. }) =>
            {
                return result;
            }
            Err(WriteError::BatchTooLarge { .. }) => ErrorKind::BatchTooLarge,
            Err(WriteError::IdSpaceExhausted) => ErrorKind::IdSpaceExhausted,
            Err(WriteError::Acquire(error)) => match error {
                AcquireError::Timeout => {
                    self.core.host.count(Counter::WriterTimeout, 1);
                    ErrorKind::WriteTimeout
                }
                AcquireError::Locked { holder: Holder::Caller } => ErrorKind::WouldDeadlock,
                AcquireError::Locked { .. } => ErrorKind::Locked,
                AcquireError::Fenced => ErrorKind::Fenced,
                AcquireError::InvalidState => ErrorKind::InvalidState,
                _ => return result,
            },
        };
        self.core.host.count(counter, 1);
        self.core.host.error(kind);
        result
    }
}

impl<W: WriterWords, H: Host, P: Protocol> Core<W, H, P> {
    /// The control word as the acting writer sees it.
    pub(crate) fn slot_ctl(&self, slot: SlotIndex) -> Ctl {
        // Acquire: pairs with the exchange of a sibling thread or of the writer before.
        Ctl(self.words.slot64_mut(slot, Slot64::Ctl).load(Ordering::Acquire))
    }

    /// One exchange that names the word it expects; nothing is forced (DH-045, DH-046).
    pub(super) fn transition(
        &self,
        slot: SlotIndex,
        from: Ctl,
        transition: Transition,
        order: Ordering,
    ) -> Result<(), AcquireError> {
        let word = self.words.slot64_mut(slot, Slot64::Ctl);
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
    fn check_open(&self) -> Result<(), AcquireError> {
        self.closed().map_or(Ok(()), Err)
    }
}

impl<W: super::words::Words, H: Host, P: Protocol> Core<W, H, P> {
    /// The error to report when no more data will come; none while the block is in use.
    pub(super) fn closed(&self) -> Option<AcquireError> {
        // Acquire, both: pairs with the release of the closing writer; who sees the end sees all commits.
        let state = self.words.control32(Control32::InitState).load(Ordering::Acquire);
        let handover = self.words.control32(Control32::HandoverState).load(Ordering::Acquire);
        let handed_over = (HANDOVER_CUT..HANDOVER_CANCELLED).contains(&handover);
        (handed_over || state != InitState::Ready as u32).then_some(AcquireError::Closed { handed_over })
    }
}

/// The slot of an id together with its index.
#[derive(Clone, Copy)]
struct Place {
    id: SlotId,
    slot: SlotIndex,
}

impl<W: WriterWords, H: Host, P: Protocol> Writer<W, H, P> {
    fn place(&self, id: SlotId) -> Place {
        Place { id, slot: self.core.config.index(id) }
    }
}
