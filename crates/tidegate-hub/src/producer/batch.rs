//! Several slots that become visible together (chapter 8).

use tidegate_shm::region::SpanMut;

use super::Producer;
use crate::{
    core::{
        codec::SlotId,
        writer::{Allocation, CommitInfo},
    },
    error::{AcquireError, OutOfSlot, WriteError},
    integrity::SLOT_DIGEST_PRESENT,
};

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
        let whole = producer.descriptor().spec.slot_size;
        for id in allocation.ids() {
            producer.writer.describe(id, CommitInfo { len: whole, ..CommitInfo::default() });
            if producer.zero_on_acquire {
                producer.payload(id).fill(0);
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

    /// The bytes of slot `index`, if there is one that is still open.
    #[inline]
    pub fn bytes_mut(&mut self, index: usize) -> Option<SpanMut<'_>> {
        let id = self.id(index).filter(|id| self.producer.writer.is_open(*id))?;
        Some(self.producer.payload(id))
    }

    /// Makes `bytes` the payload of slot `index`.
    ///
    /// # Errors
    /// There is no such slot that is still open, or they do not fit; nothing was written.
    #[inline]
    pub fn put_bytes(&mut self, index: usize, bytes: &[u8]) -> Result<(), OutOfSlot> {
        let outside = OutOfSlot::new(0, bytes.len(), self.producer.descriptor().spec.slot_size);
        let id = self.id(index).filter(|id| self.producer.writer.is_open(*id)).ok_or(outside)?;
        self.producer.payload(id).write_at(0, bytes).map_err(|_| outside)?;
        self.producer.writer.describe_len(id, bytes.len() as u64);
        Ok(())
    }

    /// Commits slot `index` by itself; visible once all ids before it are resolved (DH-120).
    ///
    /// # Errors
    /// The right was lost, or there is no such slot that is still open.
    pub fn commit_one(&mut self, index: usize) -> Result<(), WriteError> {
        self.producer.block.check().map_err(|_| AcquireError::Fenced)?;
        let id = self.id(index).filter(|id| self.producer.writer.is_open(*id));
        let id = id.ok_or(AcquireError::InvalidState)?;
        self.seal(id)?;
        let info = self.producer.writer.described(id);
        self.producer.writer.commit(id, info)?;
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
            for id in self.allocation.ids().filter(|id| self.producer.writer.is_open(*id)) {
                self.seal(id)?;
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
        let id = self.id(index).filter(|id| self.producer.writer.is_open(*id));
        let id = id.ok_or(AcquireError::InvalidState)?;
        let info = self.producer.writer.described(id);
        self.producer.writer.describe(id, CommitInfo { slot_flags: SLOT_DIGEST_PRESENT, ..info });
        Ok(())
    }

    /// Computes the digest of a slot that is to have one.
    fn seal(&self, id: SlotId) -> Result<(), WriteError> {
        let info = self.producer.writer.described(id);
        if self.producer.enforces_digests() || info.slot_flags & SLOT_DIGEST_PRESENT != 0 {
            let slot_flags = self.producer.seal(id, info.len)?;
            self.producer.writer.describe(id, CommitInfo { slot_flags, ..info });
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
            for id in self.allocation.ids().filter(|id| self.producer.writer.is_open(*id)) {
                self.producer.abort_slot(id);
            }
        }
    }
}
