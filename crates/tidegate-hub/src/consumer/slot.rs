//! One slot that is being read.

use std::thread;

use tidegate_shm::{clock::Nanos, region::Span};

use super::Consumer;
use crate::{
    config::OnReadError,
    core::{
        codec::SlotId,
        reader::{Acquired, Release},
    },
    error::{OutOfSlot, TypedError, VerifyError},
    schema::{Agreement, HubPod, LengthMismatch},
};

/// A slot under a claim: its bytes stay as they were committed until this is dropped. Dropped normally it is consumed,
/// dropped while unwinding it is not (DH-133).
///
/// Leaking it is safe; the slot stays held until the consumer leaves (DH-118).
#[derive(Debug)]
#[must_use = "a slot that is dropped is consumed"]
pub struct ReadSlot<'c> {
    /// Holds it as its current one.
    consumer: &'c mut Consumer,
    release: Release,
}

impl<'c> ReadSlot<'c> {
    #[inline]
    pub(super) fn new(consumer: &'c mut Consumer) -> Self {
        Self { consumer, release: Release::Consumed }
    }

    #[inline]
    fn acquired(&self) -> &Acquired {
        &self.consumer.current
    }

    /// Its id.
    pub fn id(&self) -> SlotId {
        self.acquired().id
    }

    /// Bytes of payload.
    #[allow(clippy::len_without_is_empty, reason = "an empty payload is a payload")]
    #[inline]
    pub fn len(&self) -> usize {
        self.acquired().len as usize
    }

    /// When it was committed, on the monotonic clock.
    pub fn commit_ns(&self) -> Nanos {
        Nanos(self.acquired().commit_ns)
    }

    /// The writer's number.
    pub fn user_flags(&self) -> u64 {
        self.acquired().user_flags
    }

    /// The payload.
    #[inline]
    pub fn bytes(&self) -> Span<'_> {
        self.consumer.payload(self.acquired(), 0)
    }

    /// Copies the beginning of the payload, as much as there is and fits; returns how many bytes.
    #[inline]
    pub fn read_into(&self, bytes: &mut [u8]) -> usize {
        let payload = self.bytes();
        let len = payload.len().min(bytes.len());
        match bytes.get_mut(..len).map(|place| payload.read_at(0, place)) {
            Some(Ok(())) => len,
            _ => 0,
        }
    }

    /// Copies the bytes from `offset` on.
    ///
    /// # Errors
    /// There are not as many; nothing was copied.
    #[inline]
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<(), OutOfSlot> {
        let payload = self.bytes();
        let outside = OutOfSlot::new(offset, bytes.len(), payload.len() as u64);
        payload.read_at(offset, bytes).map_err(|_| outside)
    }

    /// A copy of the payload.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes().to_vec()
    }

    /// A copy of the record. What the producer does not have is zero.
    ///
    /// # Errors
    /// The channel holds other records, or the payload is shorter than one (DH-116).
    #[inline]
    pub fn read<T: HubPod>(&self) -> Result<T, TypedError> {
        self.consumer.record(self.acquired(), 0)
    }

    /// Whether what was read is what was committed. False only after a repair by force, or damage (DH-062).
    #[must_use]
    pub fn validate(&self) -> bool {
        self.consumer.reader.as_ref().is_some_and(|reader| reader.validate(self.acquired()))
    }

    /// Whether the bytes fit their digest (11.2).
    ///
    /// # Errors
    /// They do not, there is none, or the channel has no digests.
    pub fn verify(&self) -> Result<(), VerifyError> {
        self.consumer.verify_held(self.acquired())
    }

    /// Gives it back unread: it is the next result again (DH-105).
    pub fn nack(mut self) {
        self.release = Release::Redeliver;
    }

    /// Reading failed: what becomes of the slot is the consumer's `on_read_error`.
    pub(super) fn fail(mut self) {
        self.release = match self.consumer.on_read_error {
            OnReadError::Redeliver => Release::Redeliver,
            OnReadError::Advance => Release::Consumed,
        };
    }
}

impl Drop for ReadSlot<'_> {
    #[inline]
    fn drop(&mut self) {
        let release = if thread::panicking() { Release::Redeliver } else { self.release };
        if self.consumer.block.check().is_ok() {
            if self.consumer.checker.is_some() {
                let acquired = *self.acquired();
                self.consumer.verify_at_release(&acquired);
            }
            let Consumer { reader, current, .. } = &mut *self.consumer;
            if let Some(reader) = reader {
                // It is held: the guard is the only one that lets it go.
                let _ = reader.release(current, release);
            }
        }
        if let Some(started) = self.consumer.started.take() {
            self.consumer.sample(started);
        }
    }
}

impl Consumer {
    /// The bytes in the block of a slot that is held.
    #[inline]
    pub(super) fn shared_payload(&self, acquired: &Acquired) -> Span<'_> {
        // A forked child has none.
        let Some(reader) = self.reader.as_ref().filter(|_| self.block.check().is_ok()) else {
            return Span::empty();
        };
        // It is a slot; the length was checked when acquiring.
        let payloads = &reader.core().words().views().payloads;
        let slot = payloads.get(acquired.index.0).unwrap_or_else(Span::empty);
        slot.sub(0..acquired.len as usize).unwrap_or(slot)
    }

    /// A copy of the record in a slot that is held.
    #[inline]
    pub(super) fn record<T: HubPod>(&self, acquired: &Acquired, nth: usize) -> Result<T, TypedError> {
        let agreement = self.typed.check::<T>(self.descriptor(), self.schema_mode, self.min_minor)?;
        let known = match agreement {
            Agreement::ConsumerAppended { shared } => shared as usize,
            _ => size_of::<T>(),
        };
        let mut record = T::new_zeroed();
        let payload = self.payload(acquired, nth);
        let mismatch = LengthMismatch { expected: known, found: payload.len() };
        let place = record.as_mut_bytes().get_mut(..known).ok_or(mismatch)?;
        payload.read_at(0, place).map_err(|_| mismatch)?;
        Ok(record)
    }
}
