//! Slots are checked before they are handed out (11.2, 11.4).

use std::{thread, time::Duration};

use tidegate_shm::{
    clock::monotonic_now,
    region::{Span, Table},
};

use super::Consumer;
use crate::{
    block::Block,
    config::{ConsumerConfig, CorruptionRecovery, Timeout, VerifyAt},
    core::{
        config::Deadline,
        reader::{Acquired, Release},
    },
    error::{AcquireError, OpenError, VerifyError},
    integrity::{ChecksumError, ChecksumFault, DigesterError, FailureLog, SlotIntegrity},
};

/// What checks the slots of one consumer.
#[derive(Debug)]
pub(super) struct Checker {
    integrity: SlotIntegrity,
    entries: Table<64>,
    failures: FailureLog,
    at: VerifyAt,
    pub(super) recovery: CorruptionRecovery,
    /// Verified copies, one of `slot_size` bytes for each slot that may be held; empty unless slots are authenticated.
    copies: Vec<u8>,
    slot_size: usize,
    /// Which copy belongs to the first slot that is held.
    first: usize,
    /// The last slot that did not pass.
    refused: Option<ChecksumError>,
}

impl Checker {
    /// That of the consumer with the row `row`; none if the block has no digests.
    pub(super) fn of(block: &Block, config: &ConsumerConfig, row: u32) -> Result<Option<Self>, OpenError> {
        let views = block.consumer_views()?;
        let secret = config.secret.as_ref();
        let integrity = match SlotIntegrity::new(block.descriptor(), secret, Some(views.metrics.clone())) {
            Ok(integrity) => integrity,
            Err(DigesterError::Disabled) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let spec = &block.descriptor().spec;
        let slot_size = spec.slot_size as usize;
        let held = config.max_held.min(spec.slot_count) as usize;
        let copies =
            if integrity.is_authenticated() { vec![0; slot_size.saturating_mul(held)] } else { Vec::new() };
        Ok(Some(Self {
            integrity,
            entries: views.digests,
            failures: FailureLog::new(views.metrics, views.consumers, row),
            at: config.verify_at,
            recovery: config.corruption,
            copies,
            slot_size,
            first: 0,
            refused: None,
        }))
    }

    /// Whether a slot must pass before it is handed out.
    pub(super) fn checks(&self) -> bool {
        self.integrity.is_authenticated() || (self.integrity.is_enforced() && self.at.at_acquire())
    }

    fn checks_at_release(&self) -> bool {
        self.integrity.is_enforced() && self.at.at_release() && !self.integrity.is_authenticated()
    }

    /// The verified copy of the slot that is held as number `nth`.
    fn copy(&self, nth: usize, len: usize) -> Option<&[u8]> {
        let start = (self.first + nth).checked_mul(self.slot_size)?;
        self.copies.get(start..)?.get(..len)
    }

    /// The first `count` slots that were held are not any more.
    pub(super) fn let_go(&mut self, count: usize) {
        self.first += count;
    }

    fn verify(&self, index: u32, acquired: &Acquired, payload: Span<'_>) -> Result<(), ChecksumError> {
        let missing = ChecksumError { id: acquired.id.0, kind: ChecksumFault::Missing };
        let entry = self.entries.row(index).ok_or(missing)?;
        self.integrity.verify_in_place(entry, acquired.slot_flags, acquired.id.0, payload)
    }

    fn verify_copy(
        &mut self,
        index: u32,
        acquired: &Acquired,
        payload: Span<'_>,
        nth: usize,
    ) -> Result<(), ChecksumError> {
        let missing = ChecksumError { id: acquired.id.0, kind: ChecksumFault::Missing };
        let entry = self.entries.row(index).ok_or(missing)?;
        let start = nth * self.slot_size;
        // There is a copy for each slot that may be held, and a payload is no longer than a slot.
        let copy = self.copies.get_mut(start..).and_then(|copies| copies.get_mut(..payload.len()));
        let copy = copy.unwrap_or_default();
        self.integrity.copy_verified(entry, acquired.slot_flags, acquired.id.0, payload, copy)
    }
}

/// Between two checks of a slot that may be repaired.
const RETRY: Duration = Duration::from_millis(1);

impl Consumer {
    /// The last slot that did not pass its check, and why; reading it ended in `InvalidState`, or it was skipped (DH-155).
    pub fn last_checksum_error(&self) -> Option<ChecksumError> {
        self.checker.as_ref()?.refused
    }

    /// What is done with slots that do not pass their check.
    pub fn set_corruption_recovery(&mut self, recovery: CorruptionRecovery) {
        if let Some(checker) = &mut self.checker {
            checker.recovery = recovery;
        }
    }

    /// Drops slots that do not pass their check until one does, which is the next result; returns how many were dropped.
    ///
    /// # Errors
    /// As [`Consumer::next`]; what was dropped before stays so.
    pub fn skip_to_next_valid(&mut self, timeout: Timeout) -> Result<u64, AcquireError> {
        let deadline = timeout.deadline(self.timeouts.read_acquire);
        let mut dropped = 0;
        loop {
            self.acquire_unchecked(deadline)?;
            let acquired = self.current;
            let passed = self.admit(&acquired, 0, Deadline::Immediate).is_ok();
            self.release(&acquired, if passed { Release::Redeliver } else { Release::Consumed });
            if passed {
                return Ok(dropped);
            }
            dropped += 1;
        }
    }

    /// Acquires the next slot that passes, as far as slots are checked.
    pub(super) fn acquire_checked(&mut self, deadline: Deadline) -> Result<(), AcquireError> {
        loop {
            self.acquire_unchecked(deadline)?;
            let acquired = self.current;
            if self.admit(&acquired, 0, deadline).is_ok() {
                return Ok(());
            }
            let skip =
                self.checker.as_ref().is_some_and(|checker| checker.recovery == CorruptionRecovery::Skip);
            self.release(&acquired, if skip { Release::Consumed } else { Release::Redeliver });
            if !skip {
                return Err(AcquireError::InvalidState);
            }
        }
    }

    /// Checks the slots of a batch; if one does not pass none is handed out, and the same ids come next.
    pub(super) fn admit_batch(&mut self, deadline: Deadline) -> Result<(), AcquireError> {
        if self.checker.as_ref().is_none_or(|checker| !checker.checks()) {
            return Ok(());
        }
        for nth in 0..self.batch.len() {
            let Some(acquired) = self.batch.get(nth).copied() else { break };
            if self.admit(&acquired, nth, deadline).is_err() {
                while let Some(acquired) = self.batch.pop() {
                    self.release(&acquired, Release::Redeliver);
                }
                return Err(AcquireError::InvalidState);
            }
        }
        Ok(())
    }

    /// Whether the slot, held as number `nth`, may be handed out.
    fn admit(&mut self, acquired: &Acquired, nth: usize, deadline: Deadline) -> Result<(), ChecksumError> {
        let index = acquired.index;
        let Self { checker: Some(checker), block, .. } = self else { return Ok(()) };
        checker.first = 0;
        // The index of an id is that of a slot; the length was checked when acquiring.
        let slot = block.slot(index.0).unwrap_or_else(|_| Span::empty());
        let payload = slot.sub(0..acquired.len as usize).unwrap_or(slot);
        loop {
            let verified = if checker.integrity.is_authenticated() {
                checker.verify_copy(index.0, acquired, payload, nth)
            } else {
                checker.verify(index.0, acquired, payload)
            };
            let Err(error) = verified else { return Ok(()) };
            if checker.recovery == CorruptionRecovery::WaitRetry && !deadline.passed(monotonic_now()) {
                thread::sleep(RETRY);
                continue;
            }
            checker.failures.note(&error);
            checker.refused = Some(error);
            return Err(error);
        }
    }

    /// Checks a slot that is held.
    pub(super) fn verify_held(&self, acquired: &Acquired) -> Result<(), VerifyError> {
        let Some(checker) = &self.checker else {
            return Err(VerifyError::DigestsDisabled);
        };
        if checker.integrity.is_authenticated() {
            // What was handed out is the copy that passed.
            return Ok(());
        }
        let verified = checker.verify(acquired.index.0, acquired, self.shared_payload(acquired));
        if let Err(error) = &verified {
            checker.failures.note(error);
        }
        Ok(verified?)
    }

    /// Checks a slot that is given back, where that is wanted: what was changed while it was read is counted (11.2).
    pub(super) fn verify_at_release(&mut self, acquired: &Acquired) {
        if self.checker.as_ref().is_some_and(Checker::checks_at_release)
            && let Err(VerifyError::Checksum(error)) = self.verify_held(acquired)
            && let Some(checker) = &mut self.checker
        {
            checker.refused = Some(error);
        }
    }

    /// The payload of the slot that is held as number `nth`: the verified copy where slots are authenticated, else the bytes
    /// in the block.
    #[inline]
    pub(super) fn payload(&self, acquired: &Acquired, nth: usize) -> Span<'_> {
        match &self.checker {
            Some(checker) if checker.integrity.is_authenticated() => {
                checker.copy(nth, acquired.len as usize).map_or_else(Span::empty, Span::private)
            }
            _ => self.shared_payload(acquired),
        }
    }

    fn release(&mut self, acquired: &Acquired, how: Release) {
        if let Some(reader) = &mut self.reader {
            // It is held: this is the only one that lets it go.
            let _ = reader.release(acquired, how);
        }
    }
}
