//! Where a consumer goes on, and what waits for it there (7.2).

use tidegate_shm::sync::Ordering;

use super::Reader;
use crate::core::{
    codec::{SlotId, SlotState},
    ctl_of,
    error::{AcquireError, RegistryError},
    host::Host,
    protocol::{Protocol, fence_if},
    words::{Control64, Load, Slot64, SlotWords, Words},
};

impl<W: Words, H: Host, P: Protocol> Reader<W, H, P> {
    /// Goes on at `id`: backwards as far as the floor allows (DH-073), forwards giving up what is between. Returns where
    /// it goes on.
    ///
    /// # Errors
    /// Slots are held, or `id` lies beyond the end.
    pub fn seek(&mut self, id: SlotId) -> Result<SlotId, RegistryError> {
        let end = self.seat.end();
        let floor = self.seat.core.control(Control64::FloorIntent);
        if self.position.holds_any() || id.0 > end {
            return Err(RegistryError::BadStart { wanted: id.0, floor, end });
        }
        self.position.jump(id);
        loop {
            self.seat.store_cursor(&self.position);
            // Pairs with the fence of `advance_floor`, as when joining.
            fence_if(P::JOIN_FENCE);
            let floor = self.seat.core.control(Control64::FloorIntent);
            if floor <= self.position.low().0 {
                break;
            }
            self.position.jump(SlotId(floor));
        }
        self.seat.core.wake_writer();
        Ok(self.position.low())
    }

    /// Goes on at the newest value there is, or else at the next one to come.
    ///
    /// # Errors
    /// Slots are held.
    pub fn seek_latest(&mut self) -> Result<SlotId, RegistryError> {
        let newest = SlotId::of_tag(self.seat.core.control(Control64::LatestTag));
        self.seek(newest.unwrap_or(SlotId(self.seat.end())))
    }

    /// Goes on at the next value to come.
    ///
    /// # Errors
    /// Slots are held.
    pub fn seek_end(&mut self) -> Result<SlotId, RegistryError> {
        self.seek(SlotId(self.seat.end()))
    }

    /// Goes on at the oldest id that can still be promised.
    ///
    /// # Errors
    /// Slots are held.
    pub fn seek_oldest(&mut self) -> Result<SlotId, RegistryError> {
        self.seek(SlotId(self.seat.core.control(Control64::ReadIndex)))
    }

    /// How many ids there are from the next one on, holes among them.
    pub fn backlog(&self) -> u64 {
        self.seat.end().saturating_sub(self.position.next().0)
    }

    /// Id and length of the next value, without claiming it; none when there is nothing yet. Both may be out of date by the
    /// time they are seen.
    ///
    /// # Errors
    /// The next slot is being overwritten or was, or its words hold what they never may.
    pub fn peek(&self) -> Result<Option<(SlotId, u64)>, AcquireError> {
        let core = &self.seat.core;
        for id in (self.position.next().0..self.seat.end()).map(SlotId) {
            let slot = core.words.slot(core.config.index(id));
            let ctl = ctl_of(slot);
            if ctl.tag() > id.tag() {
                return Err(AcquireError::NotReady);
            }
            match ctl.state() {
                // Burnt, aborted, abandoned: holes are stepped over.
                Some(_) if ctl.tag() < id.tag() => {}
                Some(SlotState::Free | SlotState::Quarantined) => {}
                Some(SlotState::Committed) => {
                    let word = slot.word64(Slot64::PayloadLen);
                    // Acquire: the second look at the control word comes after it.
                    let len = word.load(Ordering::Acquire);
                    if ctl_of(slot) != ctl {
                        return Err(AcquireError::NotReady);
                    }
                    let fits = len <= core.config.slot_size;
                    return if fits { Ok(Some((id, len))) } else { Err(AcquireError::InvalidState) };
                }
                Some(SlotState::Draining) => return Err(AcquireError::NotReady),
                Some(SlotState::Writing) | None => return Err(AcquireError::InvalidState),
            }
        }
        Ok(None)
    }
}
