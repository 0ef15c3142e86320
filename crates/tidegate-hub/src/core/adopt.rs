//! Making a block with a dead writer usable again (5.10). May be killed at any step and repeated by another process with
//! the same result (DH-081).

use tidegate_shm::{clock::Nanos, sync::Ordering};

use super::{
    Core,
    codec::{
        Ctl, HANDOVER_CANCELLED, InitState, ProcessKey, SlotId, SlotIndex, SlotState, TAINT_SEIZED,
        Transition,
    },
    config::Deadline,
    crash::{self, Point},
    error::RegistryError,
    host::{AuditEvent, Counter, Host, Liveness, Place},
    protocol::Protocol,
    words::{Control32, Control64, Load, Slot64, SlotWords, Word, WriterWords},
    writer::Writer,
};

/// From whom writing may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOver {
    /// From nobody or from the dead.
    IfDead,
    /// From this process even if it lives: what it is writing is put in quarantine (T9), the block is tainted and closes
    /// to writing. Words cannot stop a store that the displaced writer was about to make when it was paused, so nobody
    /// allocates here again; writing goes on in new memory.
    Seize(ProcessKey),
}

/// A writer and what was found.
#[derive(Debug)]
pub struct Adopted<W, H, P> {
    /// The new acting writer.
    pub writer: Writer<W, H, P>,
    /// Ids that will never hold data because their writer is gone.
    pub abandoned: u64,
    /// A handover was under way, to be finished or called off as 15.6 says.
    pub handover: bool,
}

impl<W: WriterWords, H: Host, P: Protocol> Core<W, H, P> {
    /// Becomes the acting writer (DH-044) and resolves everything that the writer before left open.
    ///
    /// # Errors
    /// No lock, a writer that is not dead, or a slot in no possible state.
    pub fn adopt(self, from: TakeOver, deadline: Deadline) -> Result<Adopted<W, H, P>, RegistryError> {
        self.adopt_holding(from, deadline, None)
    }

    /// As [`Core::adopt`]; with a number of consumers and a time the floor stays where it is until so many take part or it
    /// is so late (15.3, step 5).
    ///
    /// # Errors
    /// As [`Core::adopt`].
    pub fn adopt_holding(
        self,
        from: TakeOver,
        deadline: Deadline,
        hold: Option<(u32, Nanos)>,
    ) -> Result<Adopted<W, H, P>, RegistryError> {
        let mut found = Found { abandoned: 0, epoch: 0 };
        self.locked(deadline, || {
            found.epoch = self.take_ownership(from)?;
            crash::at(Point::AdoptOwn);
            if !self.slots_are_possible() {
                self.vacate();
                return Err(RegistryError::Damaged);
            }
            found.abandoned = self.adopt_slots(from)?;
            self.adopt_indices();
            crash::at(Point::AdoptIndex);
            self.reap_locked();
            Ok(())
        })?;
        // Relaxed: only the acting writer changes it, which is us.
        let handover = self.words.control32(Control32::HandoverState).load(Ordering::Relaxed);
        let handover = handover != 0 && handover != HANDOVER_CANCELLED;
        self.host.count(Counter::SlotsAborted, found.abandoned);
        let mut writer = Writer::of_owner(self, found.epoch);
        if let Some((consumers, until)) = hold {
            writer.hold_floor(consumers, until);
        }
        writer.refresh_floor();
        Ok(Adopted { writer, abandoned: found.abandoned, handover })
    }

    /// The writer of a block that this process has just made, and is recorded as the writer of.
    ///
    /// # Errors
    /// Somebody else is.
    pub fn created(self) -> Result<Writer<W, H, P>, RegistryError> {
        let owner = ProcessKey::from_word(self.control(Control64::WriterOwner));
        match owner {
            Some(owner) if owner != self.key => Err(RegistryError::WriterAlive { owner }),
            None => Err(RegistryError::Damaged),
            Some(_) => {
                let epoch = self.control(Control64::WriterEpoch);
                Ok(Writer::of_owner(self, epoch))
            }
        }
    }

    /// Exchanges the owner from nobody or the dead to the caller; returns the new epoch.
    pub(super) fn take_ownership(&self, from: TakeOver) -> Result<u64, RegistryError> {
        let word = self.words.control64_mut(Control64::WriterOwner);
        // Acquire: pairs with the exchange of the one who stored it.
        let found = word.load(Ordering::Acquire);
        let owner = ProcessKey::from_word(found);
        let alive = owner.filter(|owner| {
            // Whoever adopts holds the process's place as writer, so its own key is a leftover (DH-038).
            *owner != self.key && self.host.liveness(*owner, Place::Writer) != Liveness::Dead
        });
        let seized = match (alive, from) {
            (None, _) => None,
            (Some(owner), TakeOver::Seize(expected)) if owner == expected => Some(owner),
            (Some(owner), _) => return Err(RegistryError::WriterAlive { owner }),
        };
        if seized.is_some() {
            // Before the exchange: who ends between the two leaves no block that looks as if its writer had died, since
            // the next one would give away what the displaced writer still fills.
            self.close_to_writing();
            let taint = self.words.control32_mut(Control32::Taint);
            // Relaxed: never cleared; for people.
            taint.store(taint.load(Ordering::Relaxed) | TAINT_SEIZED, Ordering::Relaxed);
            crash::at(Point::AdoptClose);
        }
        // AcqRel: pairs with the check of a displaced writer, and with the exchange before ours; the block is closed for
        // whoever sees it.
        if word.compare_exchange(found, self.key.word(), Ordering::AcqRel).is_err() {
            return Err(RegistryError::Damaged);
        }
        let epoch = self.words.control64_mut(Control64::WriterEpoch);
        // AcqRel: pairs with the acquiring load of a displaced writer's check.
        let epoch = epoch.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        if let Some(from) = seized {
            self.host.count(Counter::WriterSeizures, 1);
            self.host.audit(AuditEvent::Seized { from });
        } else if owner.is_some() {
            self.host.count(Counter::WriterAdoptions, 1);
            self.host.audit(AuditEvent::Adopted { from: owner });
        }
        Ok(epoch)
    }

    fn close_to_writing(&self) {
        let state = self.words.control32_mut(Control32::InitState);
        // AcqRel: pairs with the acquire of the writer's check and of consumers, who are woken when the indices are settled.
        // Fails on a block that is closed already, also by its writer at this moment, and stays so.
        let _ = state.compare_exchange(InitState::Ready as u32, InitState::Closing as u32, Ordering::AcqRel);
    }

    /// Whether every slot can have been used for the id in it (DH-005): ids are settled by what the slots say, and consumers step
    /// over all that are missing.
    fn slots_are_possible(&self) -> bool {
        let slots = (0..self.config.slot_count.get()).map(SlotIndex);
        // Relaxed: only the acting writer changes it.
        let write = || self.words.control64_mut(Control64::WriteIndex).load(Ordering::Relaxed);
        // The index behind the slot: a displaced writer stores it last.
        let mut used = slots.map(|slot| (slot, self.slot_ctl(slot))).filter(|(_, ctl)| ctl.tag() != 0);
        used.all(|(slot, ctl)| self.can_be_in(slot, ctl, write()))
    }

    /// Step 2: no slot stays between two states. Returns how many ids became holes.
    fn adopt_slots(&self, from: TakeOver) -> Result<u64, RegistryError> {
        let mut abandoned = 0;
        for slot in (0..self.config.slot_count.get()).map(SlotIndex) {
            abandoned += u64::from(self.adopt_slot(slot, from)?);
            crash::at(Point::AdoptSlot);
        }
        Ok(abandoned)
    }

    /// Whether an id was abandoned.
    fn adopt_slot(&self, slot: SlotIndex, from: TakeOver) -> Result<bool, RegistryError> {
        for _ in 0..LOOKS {
            let ctl = self.slot_ctl(slot);
            let transition = match ctl.state().ok_or(RegistryError::Damaged)? {
                SlotState::Free | SlotState::Committed => return Ok(false),
                SlotState::Draining => Transition::Restore,
                SlotState::Quarantined if self.slot_owner_is_alive(slot) => return Ok(false),
                SlotState::Quarantined => Transition::EndQuarantine,
                SlotState::Writing => match from {
                    TakeOver::IfDead => Transition::Abort,
                    TakeOver::Seize(displaced) => {
                        // Relaxed: the exchange below releases it (DH-047).
                        let owner = self.words.slot_mut(slot).word64(Slot64::Owner);
                        owner.store(displaced.word(), Ordering::Relaxed);
                        Transition::Quarantine
                    }
                },
            };
            if self.transition(self.words.slot_mut(slot), ctl, transition, Ordering::AcqRel).is_err() {
                if matches!(from, TakeOver::Seize(_)) {
                    // The displaced writer finished what it was about to do; what it did counts.
                    continue;
                }
                return Err(RegistryError::Damaged);
            }
            if transition != Transition::Quarantine {
                // Relaxed: for people, once the slot is left.
                self.words.slot_mut(slot).word64(Slot64::Owner).store(0, Ordering::Relaxed);
            }
            let abandoned = matches!(transition, Transition::Abort | Transition::Quarantine);
            if let Some(id) = SlotId::of_tag(ctl.tag()).filter(|_| abandoned) {
                self.host.audit(AuditEvent::Abandoned { id });
            }
            return Ok(abandoned);
        }
        Err(RegistryError::Damaged)
    }

    /// Steps 3 and 4: every id that left a trace was given away, and all of them are resolved.
    fn adopt_indices(&self) {
        let slots = || (0..self.config.slot_count.get()).map(|slot| self.slot_ctl(SlotIndex(slot)));
        let write = self.words.control64_mut(Control64::WriteIndex);
        // Relaxed: only the acting writer changes it. A tag is 1 + its id.
        let end = slots().map(Ctl::tag).fold(write.load(Ordering::Relaxed), u64::max);
        // Only a writer that was displaced alive can have taken a slot meanwhile.
        let open =
            slots().filter(|ctl| ctl.is(SlotState::Writing)).filter_map(|ctl| SlotId::of_tag(ctl.tag()));
        let resolved = open.map(|id| id.0).fold(end, u64::min);
        let committed = slots().filter(|ctl| ctl.is(SlotState::Committed) && ctl.tag() <= resolved);
        let newest = committed.map(Ctl::tag).max().unwrap_or(0);
        // Release, all: pairs with the acquiring loads of the consumers.
        write.store(end, Ordering::Release);
        self.words.control64_mut(Control64::LatestTag).store(newest, Ordering::Release);
        self.words.control64_mut(Control64::CommitIndex).store(resolved, Ordering::Release);
        self.wake_readers();
    }

    fn slot_owner_is_alive(&self, slot: SlotIndex) -> bool {
        // Relaxed: the acquiring load of the control word came before.
        let owner = self.words.slot(slot).word64(Slot64::Owner).load(Ordering::Relaxed);
        ProcessKey::from_word(owner)
            .is_some_and(|owner| self.host.liveness(owner, Place::Writer) != Liveness::Dead)
    }
}

/// How often a slot is looked at before it counts as damaged. A writer that was displaced alive changes a slot once or
/// twice in each of its threads before it notices.
const LOOKS: u32 = 1_000;

struct Found {
    abandoned: u64,
    epoch: u64,
}
