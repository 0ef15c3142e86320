//! Several slots that become visible together (chapter 8).

use tidegate_shm::region::{RowMut, SpanMut};

use super::Producer;
use crate::{
    core::{
        codec::SlotId,
        writer::{self, Allocation, CommitInfo},
    },
    error::{AcquireError, OutOfSlot, WriteError},
    integrity::SLOT_DIGEST_PRESENT,
};

/// The words of a slot that is still open.
type OpenSlot<'a> = writer::OpenSlot<RowMut<'a, 64>>;

/// Slots with consecutive ids in WRITING. Dropped, those that were not committed are aborted (DH-121).
#[derive(Debug)]
#[must_use = "a batch that is dropped is aborted"]
pub struct WriteBatch<'p> {
    producer: &'p Producer,
    allocation: Allocation,
    open: bool,
}

impl<'p> WriteBatch<'p> {
    pub(super) fn new(producer: &'p Producer, allocation: Allocation) -> Self {
        let batch = Self { producer, allocation, open: true };
        if producer.zero_on_acquire {
            for slot in producer.writer.open_slots(allocation) {
                producer.payload(slot.index()).fill(0);
            }
        }
        batch
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.allocation.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.allocation.count == 0
    }

    /// Id of slot `index`, if there is one.
    #[inline]
    pub fn id(&self, index: usize) -> Option<SlotId> {
        (index < self.len()).then(|| self.allocation.first.plus(index as u64))
    }

    #[inline]
    fn open_slot(&self, index: usize) -> Option<OpenSlot<'_>> {
        self.producer.writer.open(self.id(index)?)
    }

    /// The bytes of slot `index`, if there is one that is still open.
    #[inline]
    pub fn bytes_mut(&mut self, index: usize) -> Option<SpanMut<'_>> {
        Some(self.producer.payload(self.open_slot(index)?.index()))
    }

    /// Makes `bytes` the payload of slot `index`.
    ///
    /// # Errors
    /// There is no such slot that is still open, or they do not fit; nothing was written.
    #[inline]
    pub fn put_bytes(&mut self, index: usize, bytes: &[u8]) -> Result<(), OutOfSlot> {
        let outside = OutOfSlot::new(0, bytes.len(), self.producer.descriptor().spec.slot_size);
        let slot = self.open_slot(index).ok_or(outside)?;
        self.producer.payload(slot.index()).write_at(0, bytes).map_err(|_| outside)?;
        slot.set_len(bytes.len() as u64);
        Ok(())
    }

    /// Commits slot `index` by itself; visible once all ids before it are resolved (DH-120).
    ///
    /// # Errors
    /// The right was lost, or there is no such slot that is still open.
    pub fn commit_one(&mut self, index: usize) -> Result<(), WriteError> {
        self.producer.block.check().map_err(|_| AcquireError::Fenced)?;
        let slot = self.open_slot(index).ok_or(AcquireError::InvalidState)?;
        self.seal(&slot)?;
        let id = slot.id();
        self.producer.writer.commit(id, slot.described())?;
        self.producer.tell_committed(id);
        Ok(())
    }

    /// Commits all that is still open; visible together.
    ///
    /// # Errors
    /// The right was lost, or a slot cannot be authenticated: none becomes visible.
    pub fn commit(mut self) -> Result<(), WriteError> {
        self.producer.block.check().map_err(|_| AcquireError::Fenced)?;
        if self.producer.has_digests() {
            for slot in self.producer.writer.open_slots(self.allocation) {
                self.seal(&slot)?;
            }
        }
        self.open = false;
        self.producer.writer.commit_open(self.allocation)?;
        if let Some(last) = self.allocation.ids().last() {
            self.producer.tell_committed(last);
        }
        Ok(())
    }

    /// Wants a digest of slot `index`, which is computed when it is committed.
    ///
    /// # Errors
    /// The channel has no digests, or there is no such slot that is still open.
    pub fn update_digest(&mut self, index: usize) -> Result<(), WriteError> {
        if !self.producer.has_digests() {
            return Err(WriteError::DigestsDisabled);
        }
        let slot = self.open_slot(index).ok_or(AcquireError::InvalidState)?;
        slot.describe(CommitInfo { slot_flags: SLOT_DIGEST_PRESENT, ..slot.described() });
        Ok(())
    }

    /// Computes the digest of a slot that is to have one.
    fn seal(&self, slot: &OpenSlot) -> Result<(), WriteError> {
        let info = slot.described();
        if self.producer.enforces_digests() || info.slot_flags & SLOT_DIGEST_PRESENT != 0 {
            let slot_flags = self.producer.seal(slot.id(), info.len)?;
            slot.describe(CommitInfo { slot_flags, ..info });
        }
        Ok(())
    }

    /// Gives up all that is still open.
    pub fn abort(self) {
        drop(self);
    }
}

impl Drop for WriteBatch<'_> {
    fn drop(&mut self) {
        if self.open && self.producer.block.check().is_ok() {
            for slot in self.producer.writer.open_slots(self.allocation) {
                self.producer.abort_slot(slot.id());
            }
        }
    }
}
