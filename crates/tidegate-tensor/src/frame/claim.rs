//! A claim: one slot of the ring in the hands of the application.
//!
//! Which slots are held is written down in a table that the writer and its claims share, because a claim may be dropped
//! on any thread, and at any time.

use tidegate_shm::clock::Nanos;
use tidegate_shm::region::{SharedSpanMut, SpanMut};
use tidegate_shm::sync::{Arc, AtomicU8, Ordering};

use super::writer::CommitError;
use crate::ids::{Epoch, Seq};
use crate::layout::{SlotCount, SlotIndex};

/// A slot to fill. Dropping it without a commit leaves the slot in progress: readers see a gap (TP-112).
///
/// It keeps its epoch's memory mapped, so writing through it is always sound; after the lease has ended nobody reads what
/// is written.
#[derive(Debug)]
pub struct Claim {
    pub(super) place: Place,
    pub(super) epoch: Epoch,
    pub(super) len: u32,
    pub(super) claimed_at: Nanos,
    pub(super) committed: bool,
    payload: SharedSpanMut,
    hold: Hold,
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub seq: Seq,
    pub index: SlotIndex,
    /// Position of the pool in the writer's list.
    pub pool: usize,
}

/// State of each slot of one writer.
#[derive(Debug)]
pub(super) struct ClaimTable(Box<[AtomicU8]>);

/// What the application does with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotUse {
    Free,
    /// A claim holds it.
    Held,
    /// Its claim was dropped and the writer does not know yet.
    Dropped,
}

/// A claim's entry in the table. Dropping it frees the slot, unless that was done before.
#[derive(Debug)]
struct Hold {
    table: Arc<ClaimTable>,
    index: SlotIndex,
    held: bool,
}

impl Claim {
    /// Enters the slot of `place` into `table`.
    pub(super) fn new(
        place: Place,
        epoch: Epoch,
        len: u32,
        claimed_at: Nanos,
        payload: SharedSpanMut,
        table: &Arc<ClaimTable>,
    ) -> Self {
        table.set(place.index, SlotUse::Held);
        let hold = Hold { table: Arc::clone(table), index: place.index, held: true };
        Self { place, epoch, len, claimed_at, committed: false, payload, hold }
    }

    /// Its frame number. Changes when the claim is queued again.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.place.seq
    }

    /// Index of its header slot.
    #[must_use]
    pub fn index(&self) -> SlotIndex {
        self.place.index
    }

    /// Bytes the slot can hold: the pool's stride.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.payload.as_span_mut().len()
    }

    /// Bytes of the payload that will be committed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Changes the payload's length (TP-446).
    ///
    /// # Errors
    /// [`CommitError::TooLong`] above the capacity; the length stays.
    pub fn set_len(&mut self, len: usize) -> Result<(), CommitError> {
        let capacity = self.capacity();
        match u32::try_from(len) {
            Ok(value) if len <= capacity => {
                self.len = value;
                Ok(())
            }
            _ => Err(CommitError::TooLong { len: len as u64, capacity: capacity as u64 }),
        }
    }

    /// The whole slot, to write into. Devices take its address from [`SpanMut::as_mut_ptr`].
    #[must_use]
    pub fn payload(&self) -> SpanMut<'_> {
        self.payload.as_span_mut()
    }

    /// Whether it was made by the writer with this table.
    pub(super) fn is_of(&self, table: &Arc<ClaimTable>) -> bool {
        Arc::ptr_eq(&self.hold.table, table)
    }

    /// Frees the slot for the writer's next round.
    pub(super) fn release(&mut self) {
        self.hold.held = false;
        self.hold.table.set(self.place.index, SlotUse::Free);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.held {
            self.table.set(self.index, SlotUse::Dropped);
        }
    }
}

const FREE: u8 = 0;
const HELD: u8 = 1;
const DROPPED: u8 = 2;

impl ClaimTable {
    pub(super) fn new(slots: SlotCount) -> Self {
        Self((0..slots.get()).map(|_| AtomicU8::new(FREE)).collect())
    }

    pub(super) fn get(&self, index: SlotIndex) -> SlotUse {
        // Acquire: pairs with the Release of a claim dropped on another thread.
        match self.0.get(index.get() as usize).map(|state| state.load(Ordering::Acquire)) {
            Some(HELD) => SlotUse::Held,
            Some(DROPPED) => SlotUse::Dropped,
            _ => SlotUse::Free,
        }
    }

    pub(super) fn set(&self, index: SlotIndex, value: SlotUse) {
        let value = match value {
            SlotUse::Free => FREE,
            SlotUse::Held => HELD,
            SlotUse::Dropped => DROPPED,
        };
        if let Some(state) = self.0.get(index.get() as usize) {
            // Release: pairs with the Acquire in `get`.
            state.store(value, Ordering::Release);
        }
    }
}
