//! Undoing what displaced writers left, by the acting writer itself.

use super::Writer;
use crate::core::{
    codec::{SlotIndex, SlotState},
    config::Deadline,
    error::AcquireError,
    host::Host,
    protocol::Protocol,
    repair::{ResetRefusal, SlotChange, SlotReset, StandIn},
    words::WriterWords,
};

/// Why a slot was left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SlotResetError {
    /// There is nothing to undo, or somebody may still use it.
    #[error(transparent)]
    Refused(#[from] ResetRefusal),
    /// The right was lost, or other threads of this process allocate without a pause.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
}

impl<W: WriterWords, H: Host, P: Protocol> Writer<W, H, P> {
    /// Undoes what is half done in a slot, unless this process is writing it.
    ///
    /// # Errors
    /// Why the slot was left as it is.
    pub fn reset_slot(&self, slot: SlotIndex, deadline: Deadline) -> Result<SlotChange, SlotResetError> {
        self.check_owner()?;
        self.take_turn(deadline)?;
        let result = if self.core.slot_ctl(slot).is(SlotState::Writing) {
            Err(ResetRefusal::OwnerAlive { owner: self.core.key })
        } else {
            StandIn::of(&self.core).reset(slot, SlotReset::Undo)
        };
        self.give_turn_back();
        self.resolve_prefix();
        Ok(result?)
    }
}
