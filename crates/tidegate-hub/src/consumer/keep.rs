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
        config::Deadline,
        reader::{Acquired, Reader, Release},
    },
    error::AcquireError,
    handover::{HandoverState, glance},
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
        self.acquire_until(Deadline::Immediate)?;
        Ok(self.keep_current(read))
    }

    /// Keeps the slot that was acquired last.
    pub(super) fn keep_current<R>(&self, read: impl FnOnce(&KeptSlot, Span<'_>) -> R) -> (KeptSlot, R) {
        let kept = KeptSlot(self.current);
        // The one that was acquired last is the one whose verified copy is there.
        let seen = read(&kept, self.payload(&kept.0, 0));
        (kept, seen)
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

    /// Whether slots are kept that were not given back.
    pub(super) fn holds_any(&self) -> bool {
        self.reader.as_ref().is_some_and(Reader::holds_any)
    }

    /// What another thread waits with while this consumer stays where it is; none once it has left.
    pub fn watcher(&self) -> Option<Watcher> {
        self.watcher_for(None)
    }

    /// As [`Consumer::watcher`], for those who have seen this much of a handover and follow it.
    pub(super) fn watcher_for(&self, seen: Option<(HandoverState, u32)>) -> Option<Watcher> {
        self.reader.as_ref().map(|reader| Watcher { core: reader.core().clone(), seen })
    }
}

/// Waits for the writer of a block without being one of its consumers.
#[derive(Debug, Clone)]
pub struct Watcher {
    core: Core<ConsumerWords, Process>,
    /// How far a handover is that its reader knows about; none for one who does not follow.
    seen: Option<(HandoverState, u32)>,
}

impl Watcher {
    /// Waits until the id `from` can be read, or will never be there since the block is closed, or until there is news of a
    /// handover for a reader who follows; false when nothing of it came to pass in `time`. It does not wake up in between, so
    /// `time` is also what it costs when a writer dies between a commit and the wake-up (DH-076).
    pub fn wait(&self, from: SlotId, time: Duration) -> bool {
        let moves = || self.seen.is_some_and(|seen| glance(self.core.words().views()) != seen);
        self.core.await_commit(from, Timeout::After(time).deadline(time), moves)
    }
}
