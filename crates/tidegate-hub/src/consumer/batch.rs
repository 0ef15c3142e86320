//! Several slots under one claim (chapter 8).

use std::thread;

use tidegate_shm::region::Span;

use super::Consumer;
use crate::{
    config::Timeout,
    core::{
        codec::SlotId,
        reader::{Acquired, Release},
    },
    error::{AcquireError, ReadBatchError, TypedError},
    schema::HubPod,
};

/// Slots under one claim. Dropped normally they are consumed as a whole, dropped while unwinding they are not (DH-123).
#[derive(Debug)]
#[must_use = "a batch that is dropped is consumed"]
pub struct ReadBatch<'c> {
    consumer: &'c mut Consumer,
    redeliver: bool,
}

impl Consumer {
    /// The next `n` slots that hold data, or none of them (DH-122).
    ///
    /// # Errors
    /// One of the nine kinds, or more than `max_held`; the same ids come next.
    pub fn acquire_read_batch(&mut self, n: u32, timeout: Timeout) -> Result<ReadBatch<'_>, ReadBatchError> {
        self.block.check().map_err(|_| AcquireError::Fenced)?;
        let deadline = timeout.deadline(self.timeouts.read_acquire);
        let Some(reader) = &mut self.reader else { return Err(AcquireError::Fenced.into()) };
        reader.acquire_batch(n, deadline, &mut self.batch)?;
        Ok(ReadBatch { consumer: self, redeliver: false })
    }

    /// One to `n` slots that hold data, as many as there are, without waiting (DH-122).
    ///
    /// # Errors
    /// As [`Consumer::acquire_read_batch`].
    pub fn acquire_read_up_to(&mut self, n: u32) -> Result<ReadBatch<'_>, ReadBatchError> {
        self.block.check().map_err(|_| AcquireError::Fenced)?;
        let Some(reader) = &mut self.reader else { return Err(AcquireError::Fenced.into()) };
        reader.acquire_up_to(n, &mut self.batch)?;
        Ok(ReadBatch { consumer: self, redeliver: false })
    }
}

impl ReadBatch<'_> {
    /// Number of slots.
    pub fn len(&self) -> usize {
        self.consumer.batch.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.consumer.batch.is_empty()
    }

    /// The ids and payloads in their order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, Span<'_>)> {
        self.consumer.batch.iter().map(|acquired| (acquired.id, self.consumer.payload(acquired)))
    }

    /// What is known about slot `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<&Acquired> {
        self.consumer.batch.get(index)
    }

    /// The payload of slot `index`, if there is one.
    #[inline]
    pub fn bytes(&self, index: usize) -> Option<Span<'_>> {
        Some(self.consumer.payload(self.get(index)?))
    }

    /// A copy of the record in slot `index`, if there is one.
    ///
    /// # Errors
    /// The channel holds other records, or the payload is shorter than one.
    #[inline]
    pub fn read<T: HubPod>(&self, index: usize) -> Option<Result<T, TypedError>> {
        Some(self.consumer.record(self.get(index)?))
    }

    /// Consumes the first `k` slots now; the others stay (DH-123).
    ///
    /// # Errors
    /// The right was lost.
    pub fn consume_first(&mut self, k: usize) -> Result<(), AcquireError> {
        self.consumer.block.check().map_err(|_| AcquireError::Fenced)?;
        let Consumer { reader, batch, .. } = &mut *self.consumer;
        reader.as_mut().ok_or(AcquireError::Fenced)?.consume_first(k, batch)
    }

    /// Gives them back unread: they come again.
    pub fn nack(mut self) {
        self.redeliver = true;
    }
}

impl Drop for ReadBatch<'_> {
    fn drop(&mut self) {
        let redeliver = self.redeliver || thread::panicking();
        let Consumer { reader, batch, block, .. } = &mut *self.consumer;
        if block.check().is_ok()
            && let Some(reader) = reader
        {
            // They are held: the guard is the only one that lets them go.
            if redeliver {
                for acquired in batch.iter().rev() {
                    let _ = reader.release(acquired, Release::Redeliver);
                }
            } else {
                let _ = reader.consume_first(batch.len(), batch);
            }
        }
        batch.clear();
    }
}
