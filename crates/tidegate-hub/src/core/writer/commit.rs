//! Committing and aborting: ids become visible in their order, whoever finishes first (5.6).

use tidegate_shm::{clock::Nanos, sync::Ordering};

use super::{AHEAD, Allocation, Place, Writer};
use crate::core::{
    codec::{Ctl, SlotId, SlotIndex, SlotState, Transition},
    crash::{self, Point},
    error::{AcquireError, WriteError},
    host::{Counter, Host, Stamp},
    protocol::Protocol,
    words::{Control64, Load, Slot32, Slot64, SlotWords, Word, WriterWords},
};

/// What is said about a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitInfo {
    /// Bytes of payload; 0 is legal and is not a hole (DH-067).
    pub len: u64,
    /// The user's.
    pub user_flags: u64,
    /// What is known about the digest, which is in place already (DS-10).
    pub slot_flags: u32,
}

/// A slot that is WRITING, and in it what it is to be committed with, see [`Writer::commit_open`].
#[derive(Clone, Copy)]
pub struct OpenSlot<S>(pub(super) Place<S>);

impl<S: SlotWords<W64: Word<u64>, W32: Word<u32>>> OpenSlot<S> {
    /// Its id.
    #[inline]
    pub fn id(&self) -> SlotId {
        self.0.id
    }

    /// Where it lies.
    #[inline]
    pub fn index(&self) -> SlotIndex {
        self.0.index
    }

    /// Says what it is to be committed with.
    #[inline]
    pub fn describe(&self, info: CommitInfo) {
        // Relaxed, all: nobody reads them before the commit, which releases them.
        self.set_len(info.len);
        self.0.slot.word64(Slot64::UserFlags).store(info.user_flags, Ordering::Relaxed);
        self.0.slot.word32(Slot32::SlotFlags).store(info.slot_flags, Ordering::Relaxed);
    }

    /// Says how long it is going to be.
    #[inline]
    pub fn set_len(&self, len: u64) {
        // Relaxed: as in `describe`.
        self.0.slot.word64(Slot64::PayloadLen).store(len, Ordering::Relaxed);
    }

    #[inline]
    fn len(&self) -> u64 {
        // Relaxed: stored by the thread that has the slot.
        self.0.slot.word64(Slot64::PayloadLen).load(Ordering::Relaxed)
    }

    /// What was said about it.
    #[inline]
    pub fn described(&self) -> CommitInfo {
        // Relaxed, both: stored by the thread that has the slot.
        CommitInfo {
            len: self.len(),
            user_flags: self.0.slot.word64(Slot64::UserFlags).load(Ordering::Relaxed),
            slot_flags: self.0.slot.word32(Slot32::SlotFlags).load(Ordering::Relaxed),
        }
    }
}

impl<W: WriterWords, H: Host, P: Protocol> Writer<W, H, P> {
    /// Makes the payload of `id`, which is complete, visible as soon as all ids before it are resolved.
    ///
    /// # Errors
    /// The right was lost, the length does not fit, or the slot is not the caller's.
    #[inline]
    pub fn commit(&self, id: SlotId, info: CommitInfo) -> Result<(), WriteError> {
        let now = self.core.host.now();
        let result = self.recorded(Counter::SlotCommitErrors, self.commit_slot(id, info, now));
        self.resolve_prefix();
        // Counted when readers can see it already.
        if result.is_ok() {
            self.count_written(1, info.len, now);
        }
        self.expect_write(self.core.config.index(id.plus(AHEAD)));
        result
    }

    /// Commits the slots of a batch that are still WRITING as they were described, and makes them visible together
    /// (DH-120).
    ///
    /// # Errors
    /// As [`Writer::commit`], for the first slot that fails; those after it are aborted.
    #[inline]
    pub fn commit_open(&self, batch: Allocation) -> Result<(), WriteError> {
        let now = self.core.host.now();
        let (mut slots, mut bytes) = (0, 0);
        // Once for all of them: who is displaced in the middle of it finds what is left in quarantine.
        let mut result = self.check_owner().map_err(WriteError::from);
        for place in self.places(batch.first, batch.count).filter(Place::is_open) {
            if result.is_ok() {
                let len = OpenSlot(place).len();
                let checked = self.check_len(len);
                result = checked.and_then(|()| Ok(self.commit_described(place, now)?));
                let done = u64::from(result.is_ok());
                slots += done;
                bytes += done * len;
            } else {
                // What cannot be aborted is not the caller's any more; the error that matters is the first.
                let _ = self.abort_slot(place);
            }
        }
        let result = self.recorded(Counter::SlotCommitErrors, result);
        let whole = slots > 0 && slots == u64::from(batch.count);
        self.resolve_behind(whole.then_some(batch));
        self.core.host.count(Counter::BatchWrites, 1);
        self.count_written(slots, bytes, now);
        result
    }

    /// Gives `id` up: it becomes a hole (DH-066).
    ///
    /// # Errors
    /// The right was lost or the slot is not the caller's.
    pub fn abort(&self, id: SlotId) -> Result<(), WriteError> {
        let result = self.recorded(Counter::SlotCommitErrors, self.abort_slot(self.place(id)));
        self.resolve_prefix();
        result
    }

    #[inline]
    fn count_written(&self, slots: u64, bytes: u64, now: Nanos) {
        self.core.host.stamp(Stamp::LastWrite, now);
        self.core.host.count(Counter::SlotsWritten, slots);
        self.core.host.count(Counter::BytesWritten, bytes);
    }

    #[inline]
    fn commit_slot(&self, id: SlotId, info: CommitInfo, now: Nanos) -> Result<(), WriteError> {
        self.check_len(info.len)?;
        self.check_owner()?;
        let place = self.place(id);
        OpenSlot(place).describe(info);
        Ok(self.commit_described(place, now)?)
    }

    #[inline]
    fn check_len(&self, len: u64) -> Result<(), WriteError> {
        let available = self.core.config.slot_size;
        if len > available {
            return Err(WriteError::TooLong { len, available });
        }
        crash::at(Point::Payload);
        Ok(())
    }

    /// Commits a slot that was described.
    #[inline]
    fn commit_described(&self, place: Place<W::SlotMut<'_>>, now: Nanos) -> Result<(), AcquireError> {
        // Relaxed: the exchange below releases it (DH-064).
        place.slot.word64(Slot64::CommitNs).store(now.0, Ordering::Relaxed);
        crash::at(Point::Digest);
        if !P::LATEST_AFTER_COMMIT {
            self.publish(Control64::LatestTag, place.id.tag());
        }
        // P::COMMIT is Release: pairs with the acquire of the reader that finds COMMITTED.
        self.leave_writing(place, Transition::Commit, P::COMMIT)?;
        crash::at(Point::Committed);
        Ok(())
    }

    fn abort_slot(&self, place: Place<W::SlotMut<'_>>) -> Result<(), WriteError> {
        self.check_owner()?;
        // Release: pairs with the acquire of the reader that finds the hole.
        self.leave_writing(place, Transition::Abort, Ordering::Release)?;
        self.core.host.count(Counter::SlotsAborted, 1);
        Ok(())
    }

    /// T6 or T7.
    #[inline]
    fn leave_writing(
        &self,
        place: Place<W::SlotMut<'_>>,
        transition: Transition,
        order: Ordering,
    ) -> Result<(), AcquireError> {
        let from = Ctl::new(place.id.tag(), SlotState::Writing);
        if !P::COMMIT_BY_EXCHANGE {
            let to = from.after(transition).unwrap_or(from);
            place.slot.word64(Slot64::Ctl).store(to.0, order);
            return Ok(());
        }
        match self.core.transition(place.slot, from, transition, order) {
            Ok(()) => {
                self.clear_owner(place);
                Ok(())
            }
            // Another writer put the slot in quarantine, or took the block just now.
            Err(_) if place.ctl().is(SlotState::Quarantined) => Err(AcquireError::Fenced),
            Err(error) => self.check_owner().and(Err(error)),
        }
    }

    /// DH-047.
    #[inline]
    pub(super) fn clear_owner(&self, place: Place<W::SlotMut<'_>>) {
        // Relaxed: for people, once the slot is left.
        place.slot.word64(Slot64::Owner).store(0, Ordering::Relaxed);
    }

    /// Moves the commit index over all ids whose fate is final (DH-065), and wakes who waits for that.
    #[inline]
    pub(super) fn resolve_prefix(&self) {
        self.resolve_behind(None);
    }

    /// The same when the ids of `done`, at least one, were all committed just now: they need no further look.
    #[inline]
    fn resolve_behind(&self, done: Option<Allocation>) {
        let parked = self.lock_prefix();
        if self.check_owner().is_err() {
            // The indices are another writer's.
            return;
        }
        let before = self.own(Control64::CommitIndex);
        let end = self.own(Control64::WriteIndex);
        let (mut next, mut newest) = match done.filter(|done| done.first.0 == before) {
            Some(done) => {
                let end = done.first.plus(u64::from(done.count)).0;
                // The tag of the last one: 1 + its id.
                (end, Some(end))
            }
            None => (before, None),
        };
        while next < end {
            let place = self.place(SlotId(next));
            let ctl = place.ctl();
            if !is_resolved(place.id, ctl) && P::PREFIX_IN_ORDER {
                break;
            }
            if ctl == Ctl::new(place.id.tag(), SlotState::Committed) {
                newest = Some(place.id.tag());
            }
            next += 1;
            if !P::PREFIX_IN_ORDER {
                break;
            }
        }
        if next == before {
            return;
        }
        if let Some(tag) = newest.filter(|tag| *tag > self.own(Control64::LatestTag)) {
            self.publish(Control64::LatestTag, tag);
        }
        self.publish(Control64::CommitIndex, next);
        let awaited = parked.threads > 0;
        drop(parked);
        crash::at(Point::Prefix);
        if awaited {
            self.moved.notify_all();
        }
        self.core.wake_readers();
        crash::at(Point::Wake);
    }

    /// Whether the fate of an id below the write index is final.
    #[inline]
    pub(super) fn resolved(&self, place: Place<W::SlotMut<'_>>) -> bool {
        is_resolved(place.id, place.ctl())
    }
}

/// The same by the control word of its slot.
#[inline]
fn is_resolved(id: SlotId, ctl: Ctl) -> bool {
    // An older tag: the id was passed over. A newer one: it was resolved before the slot was taken again.
    ctl.tag() != id.tag()
        || matches!(ctl.state(), Some(SlotState::Committed | SlotState::Free | SlotState::Quarantined))
}
