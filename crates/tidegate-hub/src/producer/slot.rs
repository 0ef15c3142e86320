//! One slot that is being written.

use tidegate_shm::{clock::Nanos, region::SpanMut};

use super::Producer;
use crate::{
    core::{codec::SlotId, writer::CommitInfo},
    error::{AcquireError, OutOfSlot, TypedError, WriteError, kind_of},
    schema::HubPod,
};

/// A slot in WRITING. Dropped without [`WriteSlot::commit`] it is aborted: its id becomes a hole (DH-132).
///
/// Leaking it is safe; the slot stays WRITING, and nothing behind it becomes visible, until the producer closes (DH-118).
#[derive(Debug)]
#[must_use = "a slot that is dropped is aborted"]
pub struct WriteSlot<'p> {
    producer: &'p Producer,
    id: SlotId,
    bytes: SpanMut<'p>,
    info: CommitInfo,
    started: Option<Nanos>,
    open: bool,
}

impl<'p> WriteSlot<'p> {
    #[inline]
    pub(super) fn new(producer: &'p Producer, id: SlotId, started: Option<Nanos>) -> Self {
        let bytes = producer.payload(id);
        let len = bytes.len() as u64;
        if producer.zero_on_acquire {
            bytes.fill(0);
        }
        Self { producer, id, bytes, info: CommitInfo { len, ..CommitInfo::default() }, started, open: true }
    }

    /// Its id.
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// Its bytes, all of them. What is in there may stem from an earlier id (DH-128).
    #[inline]
    pub fn bytes_mut(&mut self) -> SpanMut<'_> {
        self.bytes
    }

    /// Copies `bytes` to `offset`. The length that is committed stays as it is.
    ///
    /// # Errors
    /// They do not fit; nothing was written.
    #[inline]
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<(), OutOfSlot> {
        let available = self.bytes.len() as u64;
        self.bytes.write_at(offset, bytes).map_err(|_| OutOfSlot::new(offset, bytes.len(), available))
    }

    /// Makes `bytes` the payload.
    ///
    /// # Errors
    /// They do not fit; nothing was written.
    #[inline]
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.set_len(bytes.len() as u64)?;
        // It fits, as was just found.
        let _ = self.bytes.write_at(0, bytes);
        Ok(())
    }

    /// Makes `record` the payload.
    ///
    /// # Errors
    /// The channel holds other records.
    #[inline]
    pub fn put<T: HubPod>(&mut self, record: &T) -> Result<(), TypedError> {
        self.producer.check_type::<T>()?;
        self.info.len = size_of::<T>() as u64;
        // A channel of such records has slots that are long enough.
        let _ = self.bytes.write_at(0, record.as_bytes());
        Ok(())
    }

    /// How many bytes are committed; all of the slot unless told otherwise (DH-127).
    ///
    /// # Errors
    /// More than the slot has.
    #[inline]
    pub fn set_len(&mut self, len: u64) -> Result<(), WriteError> {
        let available = self.bytes.len() as u64;
        if len > available {
            return Err(WriteError::TooLong { len, available });
        }
        self.info.len = len;
        Ok(())
    }

    /// A number for the reader.
    pub fn set_user_flags(&mut self, flags: u64) {
        self.info.user_flags = flags;
    }

    /// Makes the payload visible once all ids before it are resolved.
    ///
    /// # Errors
    /// The right was lost: another writer has the block. The slot is not visible then.
    #[inline]
    pub fn commit(mut self) -> Result<SlotId, WriteError> {
        self.finish()
    }

    /// Gives the slot up: its id becomes a hole.
    pub fn abort(self) {
        drop(self);
    }

    #[inline]
    pub(super) fn finish(&mut self) -> Result<SlotId, WriteError> {
        self.open = false;
        let committed = self.producer.commit_slot(self.id, self.info, self.started);
        if committed.is_err() {
            // Nobody else would, should it still be ours.
            self.producer.abort_open(self.id);
        }
        committed
    }

    pub(super) fn finish_kind(&mut self) -> Result<SlotId, AcquireError> {
        self.finish().map_err(kind_of)
    }
}

impl Drop for WriteSlot<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.open {
            self.producer.abort_slot(self.id);
        }
    }
}

impl Producer {
    /// The bytes of the slot of `id`.
    #[inline]
    pub(super) fn payload(&self, id: SlotId) -> SpanMut<'_> {
        let index = self.writer.core().config().index(id);
        // The index of an id is that of a slot of the ring, all of which lie in the mapping of a writer.
        self.block.slot_mut(index.0).unwrap_or_else(|_| SpanMut::empty())
    }

    /// Aborts `id` if it is still WRITING.
    pub(super) fn abort_open(&self, id: SlotId) {
        if self.block.check().is_ok() && self.writer.is_open(id) {
            self.abort_slot(id);
        }
    }
}
