//! Slots that are kept beyond the call that read them, for those who answer for a slot only later: what is kept is not
//! consumed, so a successor gets it again, and a lossless writer does not overwrite it.

use std::time::Duration;

use tidegate_shm::region::Span;

use super::Consumer;
use crate::{
    attachment::{ConsumerWords, Process},
    config::Timeout,
    core::{
        Core,
        codec::SlotId,
        reader::{Acquired, Release},
    },
    error::AcquireError,
};

/// A slot that is kept. Forgetting it keeps the slot until the consumer leaves; it is not consumed then (DH-118).
#[derive(Debug)]
#[must_use = "a slot that is not given back stays held"]
pub struct KeptSlot(Acquired);

impl KeptSlot {
    /// Its id.
    pub fn id(&self) -> SlotId {
        self.0.id
    }

    /// The writer's number.
    pub fn user_flags(&self) -> u64 {
        self.0.user_flags
    }
}

impl Consumer {
    /// As [`Consumer::try_next`], for a slot that stays held after `read` has seen its payload: at most
    /// [`max_held`](crate::config::ConsumerConfig::max_held) of them.
    ///
    /// # Errors
    /// As [`Consumer::next`]; `Locked` by the caller when as many as allowed are held.
    pub fn keep_next<R>(
        &mut self,
        read: impl FnOnce(&KeptSlot, Span<'_>) -> R,
    ) -> Result<(KeptSlot, R), AcquireError> {
        let acquired = self.acquire(Timeout::Immediate)?;
        let kept = KeptSlot(acquired);
        // The one that was acquired last is the one whose verified copy is there.
        let seen = read(&kept, self.payload(&acquired, 0));
        Ok((kept, seen))
    }

    /// Gives a slot back as consumed (DH-104). Those that were kept before it stay what they are.
    ///
    /// # Errors
    /// The right was lost, or the slot was given back already.
    pub fn consume_kept(&mut self, kept: KeptSlot) -> Result<(), AcquireError> {
        self.block.check().map_err(|_| AcquireError::Fenced)?;
        self.verify_at_release(&kept.0);
        self.reader.as_mut().ok_or(AcquireError::Fenced)?.release(&kept.0, Release::Consumed)
    }

    /// What another thread waits with while this consumer stays where it is; none once it has left.
    pub fn watcher(&self) -> Option<Watcher> {
        self.reader.as_ref().map(|reader| Watcher(reader.core().clone()))
    }
}

/// Waits for the writer of a block without being one of its consumers.
#[derive(Debug, Clone)]
pub struct Watcher(Core<ConsumerWords, Process>);

impl Watcher {
    /// Waits until the id `from` can be read or will never be there, since the block is closed; false when neither came to
    /// pass in `time`.
    pub fn wait(&self, from: SlotId, time: Duration) -> bool {
        self.0.await_commit(from, Timeout::After(time).deadline(time))
    }
}
