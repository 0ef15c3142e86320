//! Throwing a value away (T8): what an operator does with content that is damaged.

use tidegate_shm::sync::Ordering;

use super::Writer;
use crate::core::{
    codec::{Ctl, Row, SlotId, SlotIndex, SlotState, Transition},
    config::Deadline,
    error::{AcquireError, Holder, WriteError},
    host::Host,
    protocol::{Protocol, fence_if},
    words::{Control64, Sync32, WriterWords},
};

impl<W: WriterWords, H: Host, P: Protocol> Writer<W, H, P> {
    /// Makes the value of a slot a hole, unless somebody reads it. Also in a block that is closing.
    ///
    /// # Errors
    /// The slot holds no value, or one that is being read, which it then keeps; the right was lost; other threads of this
    /// process allocate until the deadline.
    pub fn discard(&self, slot: SlotIndex, deadline: Deadline) -> Result<(), WriteError> {
        self.in_turn(deadline, || self.discard_in_turn(slot).map_err(WriteError::from))
    }

    fn discard_in_turn(&self, slot: SlotIndex) -> Result<(), AcquireError> {
        self.check_owner()?;
        let ctl = self.core.slot_ctl(slot);
        let id = SlotId::of_tag(ctl.tag()).filter(|id| self.core.config.index(*id) == slot);
        let Some(id) = id.filter(|_| ctl.is(SlotState::Committed)) else {
            return Err(AcquireError::InvalidState);
        };
        let place = self.place(id);
        self.drain(place, true)?;
        // Pairs with the fence of the reader, as when allocating.
        fence_if(P::WRITER_FENCE);
        if let Some(reader) = self.reader_of(id) {
            self.restore(id, 1);
            let holder = self.core.row_owner(reader).ok_or(AcquireError::InvalidState)?;
            return Err(AcquireError::Locked { holder: Holder::Process(holder) });
        }
        let draining = Ctl::new(ctl.tag(), SlotState::Draining);
        // Release: pairs with the acquire of the reader that finds the hole.
        self.core.transition(slot, draining, Transition::Discard, Ordering::Release)?;
        self.clear_owner(place);
        self.publish_latest();
        Ok(())
    }

    /// Somebody who reads `id`. Must come after the fence.
    fn reader_of(&self, id: SlotId) -> Option<Row> {
        let rows = self.core.mask(Sync32::ActiveMask) | self.core.mask(Sync32::EvictedMask);
        self.core.rows(rows).find(|row| self.core.claim_of(*row).covers(id))
    }

    /// The newest value may have been the one that was thrown away.
    fn publish_latest(&self) {
        let _turn = self.lock_turn();
        let end = self.own(Control64::CommitIndex);
        let slots = (0..self.core.config.slot_count.get()).map(|slot| self.core.slot_ctl(SlotIndex(slot)));
        let committed = slots.filter(|ctl| ctl.is(SlotState::Committed) && ctl.tag() <= end);
        self.publish(Control64::LatestTag, committed.map(Ctl::tag).max().unwrap_or(0));
    }
}
