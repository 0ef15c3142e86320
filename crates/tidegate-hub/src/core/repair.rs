//! Repairs by hand: standing in for a dead writer for a moment, to do one thing (18.2).
//!
//! A stand-in takes the writer's place under the maintenance lock, exactly as an adopter does, and gives it back before it
//! lets go of the lock. So it excludes producers and other repairs (DH-256), and one that is killed leaves what a killed
//! producer leaves. Everything it does is a transition of 5.2, but for [`SlotReset::Replace`], which puts a possible word
//! in the place of an impossible one.

use tidegate_shm::sync::Ordering;

use super::{
    Core, TakeOver,
    codec::{Ctl, ProcessKey, Row, SlotId, SlotIndex, SlotState, Transition},
    config::Deadline,
    error::RegistryError,
    host::{Counter, Host, Liveness, Place},
    protocol::{Protocol, fence_if},
    words::{Control64, Load, Slot64, SlotWords, Sync32, Word, Words, WriterWords},
};

/// How far a reset goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotReset {
    /// What is half done is undone (T5, T7, T10).
    Undo,
    /// A value is thrown away, too (T3, T8).
    Discard,
    /// A word in no possible state is replaced, too: the slot becomes a hole.
    Replace,
}

/// What a reset changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotChange {
    /// The slot.
    pub slot: SlotIndex,
    /// Its control word before.
    pub before: Ctl,
    /// Its control word after.
    pub after: Ctl,
}

/// How a slot gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By one transition.
    Undo(Transition),
    /// By T3, a look at the claims, and T8.
    Discard,
    /// By none: the word is impossible.
    Replace,
}

/// Why a slot was left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResetRefusal {
    /// There is nothing to undo.
    #[error("the slot is in order; give --discard to throw its value away")]
    NotStuck,
    /// Somebody who is not dead reads it.
    #[error("consumer row {} is reading the slot; end that process first", .row.0)]
    Held {
        /// Its row.
        row: Row,
    },
    /// A writer that was displaced and is not dead may still write into it.
    #[error("process {owner} may still write into the slot; end that process first")]
    OwnerAlive {
        /// Its key.
        owner: ProcessKey,
    },
    /// Its word is impossible.
    #[error("the slot is damaged; --discard --force throws it away")]
    Damaged,
}

impl<W: WriterWords, H: Host, P: Protocol> Core<W, H, P> {
    /// Runs `work` under the maintenance lock and as acting writer, which the writer must allow by being dead or nobody.
    /// Then settles the indices and gives the writer's place back. The caller holds this process's [`Place::Writer`].
    ///
    /// # Errors
    /// No lock, or a writer that is not dead.
    pub fn stand_in<R>(
        &self,
        deadline: Deadline,
        work: impl FnOnce(&StandIn<'_, W, H, P>) -> R,
    ) -> Result<R, RegistryError> {
        self.locked(deadline, || {
            self.take_ownership(TakeOver::IfDead)?;
            let result = work(&StandIn { core: self });
            self.settle();
            self.vacate();
            Ok(result)
        })
    }

    /// The indices after single slots were changed: every id that left a trace was given away, and those that are resolved
    /// are visible (5.6).
    fn settle(&self) {
        let write = self.words.control64_mut(Control64::WriteIndex);
        let commit = self.words.control64_mut(Control64::CommitIndex);
        // Relaxed, both: only the acting writer changes them.
        let before = write.load(Ordering::Relaxed);
        // A damaged slot must not decide where writing goes on. A tag is 1 + its id.
        let tags = || {
            let slots = (0..self.config.slot_count.get()).map(SlotIndex);
            slots
                .map(|slot| (slot, self.slot_ctl(slot)))
                .filter(|(slot, ctl)| self.can_be_in(*slot, *ctl, before))
        };
        let end = tags().map(|(_, ctl)| ctl.tag()).max().unwrap_or(0).max(before);
        // What the ring has no place for any more was resolved long ago.
        let mut next = commit.load(Ordering::Relaxed).max(self.config.overrun(end)).min(end);
        while next < end && self.is_resolved(SlotId(next)) {
            next += 1;
        }
        let visible = tags().filter(|(_, ctl)| ctl.is(SlotState::Committed) && ctl.tag() <= next);
        let newest = visible.map(|(_, ctl)| ctl.tag()).max().unwrap_or(0);
        // Release, each: pairs with the acquiring loads of the consumers.
        write.store(end, Ordering::Release);
        self.words.control64_mut(Control64::LatestTag).store(newest, Ordering::Release);
        commit.store(next, Ordering::Release);
        self.wake_readers();
    }

    /// Whether a slot can have been used for the id of `ctl` when writing is at `write`.
    pub(super) fn can_be_in(&self, slot: SlotIndex, ctl: Ctl, write: u64) -> bool {
        let id = SlotId::of_tag(ctl.tag());
        let lives_here = |id: SlotId| id.0 >= self.config.first_slot.0 && self.config.index(id) == slot;
        id.is_some_and(lives_here) && ctl.tag() <= write.saturating_add(self.config.slots())
    }

    fn is_resolved(&self, id: SlotId) -> bool {
        let ctl = self.slot_ctl(self.config.index(id));
        // An older tag: the id was passed over. A newer one: it was resolved before the slot was taken again.
        ctl.tag() != id.tag()
            || matches!(ctl.state(), Some(SlotState::Committed | SlotState::Free | SlotState::Quarantined))
    }

    /// Step 7 of adopting: the block has no writer.
    pub(super) fn vacate(&self) {
        let owner = self.words.control64_mut(Control64::WriterOwner);
        // AcqRel: pairs with the exchange of the next writer. It fails if the place was taken by force, which is as well.
        let _ = owner.compare_exchange(self.key.word(), 0, Ordering::AcqRel);
    }
}

/// The acting writer of [`Core::stand_in`].
#[derive(Debug)]
pub struct StandIn<'a, W, H, P> {
    core: &'a Core<W, H, P>,
}

impl<'a, W: WriterWords, H: Host, P: Protocol> StandIn<'a, W, H, P> {
    /// The acting writer itself.
    pub(super) fn of(core: &'a Core<W, H, P>) -> Self {
        Self { core }
    }

    /// What [`StandIn::reset`] would do, without doing it.
    ///
    /// # Errors
    /// Why it would leave the slot as it is.
    pub fn plan(&self, slot: SlotIndex, how: SlotReset) -> Result<SlotChange, ResetRefusal> {
        self.decide(slot, how).map(|(change, _)| change)
    }

    /// Undoes what is half done in a slot, or throws its value away.
    ///
    /// # Errors
    /// Why the slot was left as it is.
    pub fn reset(&self, slot: SlotIndex, how: SlotReset) -> Result<SlotChange, ResetRefusal> {
        let (change, way) = self.decide(slot, how)?;
        let done = match way {
            Way::Discard => return self.discard(change),
            Way::Replace => self.replace(change),
            Way::Undo(transition) => {
                if transition == Transition::Abort {
                    self.core.host.count(Counter::SlotsAborted, 1);
                }
                self.step(slot, change.before, transition)
            }
        };
        done.then_some(change).ok_or(ResetRefusal::Damaged)
    }

    fn decide(&self, slot: SlotIndex, how: SlotReset) -> Result<(SlotChange, Way), ResetRefusal> {
        let before = self.core.slot_ctl(slot);
        // Relaxed: only the acting writer changes it.
        let write = self.core.words.control64_mut(Control64::WriteIndex).load(Ordering::Relaxed);
        let id = SlotId::of_tag(before.tag()).filter(|_| self.core.can_be_in(slot, before, write));
        if let Some(row) = id.and_then(|id| self.live_reader(id)) {
            return Err(ResetRefusal::Held { row });
        }
        // A slot that was never used has no id, and is FREE.
        let possible = id.is_some() || before == Ctl::new(0, SlotState::Free);
        let Some(state) = before.state().filter(|_| possible) else {
            let after = Ctl::new(self.last_tag(slot), SlotState::Free);
            let replaced = (SlotChange { slot, before, after }, Way::Replace);
            return if how == SlotReset::Replace { Ok(replaced) } else { Err(ResetRefusal::Damaged) };
        };
        let way = match state {
            SlotState::Free => return Err(ResetRefusal::NotStuck),
            SlotState::Writing => Way::Undo(Transition::Abort),
            SlotState::Quarantined => match self.live_owner(slot) {
                Some(owner) => return Err(ResetRefusal::OwnerAlive { owner }),
                None => Way::Undo(Transition::EndQuarantine),
            },
            SlotState::Committed if how < SlotReset::Discard => return Err(ResetRefusal::NotStuck),
            SlotState::Draining if how < SlotReset::Discard => Way::Undo(Transition::Restore),
            SlotState::Committed | SlotState::Draining => Way::Discard,
        };
        let end = if way == Way::Undo(Transition::Restore) { SlotState::Committed } else { SlotState::Free };
        Ok((SlotChange { slot, before, after: Ctl::new(before.tag(), end) }, way))
    }

    /// T3, a look at the claims as in 5.4, then T8: without the look the slot could be written under a reader.
    fn discard(&self, change: SlotChange) -> Result<SlotChange, ResetRefusal> {
        let SlotChange { slot, before, .. } = change;
        let draining = Ctl::new(before.tag(), SlotState::Draining);
        if before.is(SlotState::Committed) {
            // Relaxed: the exchange releases it (DH-047).
            self.core
                .words
                .slot_mut(slot)
                .word64(Slot64::Owner)
                .store(self.core.key.word(), Ordering::Relaxed);
            if !self.step(slot, before, Transition::Drain) {
                return Err(ResetRefusal::Damaged);
            }
        }
        // Pairs with the fence of the reader between its claim and its look at the slot (5.7).
        fence_if(P::WRITER_FENCE);
        let reader = SlotId::of_tag(before.tag()).and_then(|id| self.live_reader(id));
        if let Some(row) = reader {
            self.step(slot, draining, Transition::Restore);
            self.clear_owner(slot);
            return Err(ResetRefusal::Held { row });
        }
        let done = self.step(slot, draining, Transition::Discard);
        done.then_some(change).ok_or(ResetRefusal::Damaged)
    }

    fn step(&self, slot: SlotIndex, from: Ctl, transition: Transition) -> bool {
        let done =
            self.core.transition(self.core.words.slot_mut(slot), from, transition, Ordering::AcqRel).is_ok();
        if done && transition != Transition::Drain {
            self.clear_owner(slot);
        }
        done
    }

    fn replace(&self, change: SlotChange) -> bool {
        let word = self.core.words.slot_mut(change.slot).word64(Slot64::Ctl);
        // AcqRel: pairs with the acquiring loads of readers, as any transition.
        let done = word.compare_exchange(change.before.0, change.after.0, Ordering::AcqRel).is_ok();
        if done {
            self.clear_owner(change.slot);
        }
        done
    }

    fn clear_owner(&self, slot: SlotIndex) {
        // Relaxed: for people, once the slot is left.
        self.core.words.slot_mut(slot).word64(Slot64::Owner).store(0, Ordering::Relaxed);
    }

    /// The tag of the newest id that can have been written to a slot, 0 if none can.
    fn last_tag(&self, slot: SlotIndex) -> u64 {
        let core = self.core;
        // Relaxed: only the acting writer changes it.
        let end = core.words.control64_mut(Control64::WriteIndex).load(Ordering::Relaxed);
        let newest = (0..core.config.slots()).filter_map(|back| end.checked_sub(1 + back).map(SlotId));
        let mut newest = newest.take_while(|id| id.0 >= core.config.first_slot.0);
        newest.find(|id| core.config.index(*id) == slot).map_or(0, SlotId::tag)
    }

    /// A row whose claim covers `id` and whose owner is not dead.
    fn live_reader(&self, id: SlotId) -> Option<Row> {
        let core = self.core;
        let rows = core.mask(Sync32::ActiveMask) | core.mask(Sync32::EvictedMask);
        core.rows(rows).find(|row| {
            let owner = core.row_owner(*row);
            let dead =
                owner.is_some_and(|owner| core.host.liveness(owner, Place::Row(row.0)) == Liveness::Dead);
            core.claim_of(*row).covers(id) && !dead
        })
    }

    /// The owner of a slot, if it is not dead.
    fn live_owner(&self, slot: SlotIndex) -> Option<ProcessKey> {
        // Relaxed: the acquiring load of the control word came before.
        let word = self.core.words.slot(slot).word64(Slot64::Owner).load(Ordering::Relaxed);
        let owner = ProcessKey::from_word(word)?;
        (self.core.host.liveness(owner, Place::Writer) != Liveness::Dead).then_some(owner)
    }
}

impl<W: Words, H: Host, P: Protocol> Core<W, H, P> {
    /// Runs `work` under the maintenance lock, which repairs the registry first if its last holder is dead (DH-083).
    ///
    /// # Errors
    /// No lock.
    pub fn under_lock<R>(&self, deadline: Deadline, work: impl FnOnce() -> R) -> Result<R, RegistryError> {
        self.locked(deadline, || Ok(work()))
    }

    /// Makes rows and masks of the consumer table agree, whoever had the lock before, then runs `after` under the lock.
    ///
    /// # Errors
    /// No lock.
    pub fn repair(&self, deadline: Deadline, after: impl FnOnce()) -> Result<(), RegistryError> {
        self.locked(deadline, || {
            self.repair_registry();
            after();
            Ok(())
        })
    }
}
