//! One slot that is being written.

use tidegate_shm::{clock::Nanos, region::SpanMut};

use super::Producer;
use crate::{
    core::{
        codec::{SlotId, SlotIndex},
        writer::CommitInfo,
    },
    error::{AcquireError, OutOfSlot, TypedError, WriteError, kind_of},
    integrity::SealState,
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
    seal: SealState,
    started: Option<Nanos>,
    open: bool,
}

impl<'p> WriteSlot<'p> {
    #[inline]
    pub(super) fn new(producer: &'p Producer, id: SlotId, started: Option<Nanos>) -> Self {
        let bytes = producer.payload(producer.index(id));
        let len = bytes.len() as u64;
        if producer.zero_on_acquire {
            bytes.fill(0);
        }
        let info = CommitInfo { len, ..CommitInfo::default() };
        Self { producer, id, bytes, info, seal: SealState::default(), started, open: true }
    }

    /// Its id.
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// Its bytes, all of them. What is in there may stem from an earlier id (DH-128).
    #[inline]
    pub fn bytes_mut(&mut self) -> SpanMut<'_> {
        self.seal.modified();
        self.bytes
    }

    /// Copies `bytes` to `offset`. The length that is committed stays as it is.
    ///
    /// # Errors
    /// They do not fit; nothing was written.
    #[inline]
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<(), OutOfSlot> {
        let available = self.bytes.len() as u64;
        self.seal.modified();
        self.bytes.write_at(offset, bytes).map_err(|_| OutOfSlot::new(offset, bytes.len(), available))
    }

    /// Makes `bytes` the payload.
    ///
    /// # Errors
    /// They do not fit; nothing was written.
    #[inline]
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.set_len(bytes.len() as u64)?;
        self.seal.modified();
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
        self.seal.modified();
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

    /// Computes the digest of the payload as it is now; done by the commit where digests are enforced. What is changed
    /// afterwards is hashed again when it is committed (DH-153).
    ///
    /// # Errors
    /// The channel has no digests, or no digest can be computed here.
    pub fn update_digest(&mut self) -> Result<(), WriteError> {
        let flags = self.producer.seal(self.id, self.info.len)?;
        self.seal.sealed(flags, self.info.len);
        Ok(())
    }

    /// Makes the payload visible once all ids before it are resolved.
    ///
    /// # Errors
    /// The right was lost: another writer has the block; or the slot cannot be authenticated. It is not visible then.
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
        let len = self.info.len;
        self.info.slot_flags = match self.seal.flags(self.producer.enforces_digests(), len) {
            Some(flags) => flags,
            None => self.producer.seal(self.id, len)?,
        };
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
    /// Where `id` lives.
    #[inline]
    pub(super) fn index(&self, id: SlotId) -> SlotIndex {
        self.writer.core().config().index(id)
    }

    /// The bytes of a slot.
    #[inline]
    pub(super) fn payload(&self, index: SlotIndex) -> SpanMut<'_> {
        // The index of an id is that of a slot. A forked child has none.
        let here = self.block.check().is_ok();
        let payload = || self.writer.core().words().views().payloads.get(index.0);
        here.then(payload).flatten().unwrap_or_else(SpanMut::empty)
    }

    /// Aborts `id` if it is still WRITING.
    pub(super) fn abort_open(&self, id: SlotId) {
        if self.block.check().is_ok() && self.writer.is_open(id) {
            self.abort_slot(id);
        }
    }
}
