//! Slots and the writer's place.

use super::{RecoverError, Recovery, Repair, Step, TAINT_SLOT_RESET, plan};
use crate::{
    attachment::{Process, WriterWords, audit::Operation},
    block::registry::Place,
    core::{
        Adopted, TakeOver,
        codec::{Ctl, SlotId, SlotIndex, SlotState},
        protocol::Shipped,
        repair::{ResetRefusal, SlotChange, SlotReset},
    },
    identity::ProcessKey,
    inspect::Owner,
};

/// What may be done to slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResetOptions {
    /// Throw values away, too.
    pub discard: bool,
    /// Against a writer that lives, and with `discard` also where a word is impossible.
    pub force: bool,
}

impl ResetOptions {
    fn reach(self) -> SlotReset {
        match (self.discard, self.force) {
            (false, _) => SlotReset::Undo,
            (true, false) => SlotReset::Discard,
            (true, true) => SlotReset::Replace,
        }
    }
}

impl Recovery {
    /// Undoes what is half done in a slot, or throws its value away. With force and a live writer that writer is cut off
    /// and the slot goes to quarantine; the block takes no more data then.
    ///
    /// # Errors
    /// A live writer or reader, a slot that is in order, no such slot.
    pub fn reset_slot(&self, slot: u32, options: ResetOptions) -> Result<Step, RecoverError> {
        self.check_slot(slot)?;
        self.check_control()?;
        if let Some(owner) = self.live_writer().filter(|_| options.force) {
            return self.seize(owner.key);
        }
        let reach = options.reach();
        let place = self.take_place()?;
        let changed = self.core.stand_in(self.deadline(), |writer| {
            let change = writer.reset(SlotIndex(slot), reach)?;
            self.note_reset(&change, options.force);
            Ok(change)
        })?;
        drop(place);
        let change = changed.map_err(|refusal: ResetRefusal| RecoverError::Slot { slot, refusal })?;
        self.after_reset(1, options.force)?;
        Ok(self.told(reset_step(&change, options.force)))
    }

    /// The same for every slot: all that are stuck, with `discard` all that are not free. If one of them cannot be reset,
    /// none is.
    ///
    /// # Errors
    /// A live writer, or the first slot that cannot be reset.
    pub fn reset_all(&self, options: ResetOptions) -> Result<Vec<Step>, RecoverError> {
        self.check_control()?;
        if let Some(owner) = self.live_writer().filter(|_| options.force) {
            return Ok(vec![self.seize(owner.key)?]);
        }
        let reach = options.reach();
        let slots = || (0..self.inspector.descriptor().spec.slot_count).map(SlotIndex);
        let place = self.take_place()?;
        let changed = self.core.stand_in(self.deadline(), |writer| {
            let mut planned = Vec::new();
            for slot in slots() {
                match writer.plan(slot, reach) {
                    Ok(_) => planned.push(slot),
                    Err(ResetRefusal::NotStuck) => {}
                    Err(refusal) => return Err(RecoverError::Slot { slot: slot.0, refusal }),
                }
            }
            let mut changes = Vec::new();
            for slot in planned {
                // A reader that came after the plan keeps its slot.
                if let Ok(change) = writer.reset(slot, reach) {
                    self.note_reset(&change, options.force);
                    changes.push(change);
                }
            }
            Ok(changes)
        })?;
        drop(place);
        let changes = changed?;
        if changes.is_empty() {
            return Err(RecoverError::NotStuck { what: "every slot is in order" });
        }
        self.after_reset(changes.len(), options.force)?;
        Ok(changes.iter().map(|change| self.told(reset_step(change, options.force))).collect())
    }

    /// Adopts from a dead writer, or what one has left open, and gives the writer's place back at once (5.10): what a plan
    /// has as [`Repair::Adopt`]. Dead consumers are removed by that as well, as whenever a block is adopted; each is a step.
    ///
    /// # Errors
    /// The writer is not dead, there is none and nothing is open, or the channel goes on in another block.
    pub fn release_zombie_writer(&self) -> Result<Vec<Step>, RecoverError> {
        self.check_slots()?;
        if let Some(owner) = self.live_writer() {
            return Err(RecoverError::WriterAlive { owner: owner.key });
        }
        // As planned, so that it is what a dry run says.
        let Some(Repair::Adopt { writer, .. }) = plan::adoption(&self.inspector) else {
            return Err(RecoverError::NotStuck { what: "no writer is dead, and nothing is open" });
        };
        let dead = self.dead_consumers();
        let place = self.take_place()?;
        let adopted = self.adopt(TakeOver::IfDead)?;
        let abandoned = adopted.abandoned;
        adopted.writer.resign()?;
        drop(place);
        self.count(1, false);
        let pid = writer.map_or_else(|| "none".to_owned(), |writer| writer.key.pid().to_string());
        let reason =
            if writer.is_some() { format!("writer pid {pid} is dead") } else { "no writer".to_owned() };
        let step = Step::new("writer", format!("adopted block, {abandoned} ids became holes"), reason);
        let mut steps = vec![self.told(step.between(&pid, &"none"))];
        steps.extend(self.report_reaped(&dead));
        Ok(steps)
    }

    /// The writer, if it is not dead.
    pub(super) fn live_writer(&self) -> Option<Owner> {
        let word = self.inspector.control().writer_owner;
        self.inspector.owner(word, Place::Writer).filter(|owner| !owner.is_dead())
    }

    /// Takes the writer's place from a live writer and gives it back: the writer is cut off, its slots are in quarantine,
    /// and nobody allocates in this block any more.
    fn seize(&self, owner: ProcessKey) -> Result<Step, RecoverError> {
        self.check_slots()?;
        let place = self.take_place()?;
        let adopted = self.adopt(TakeOver::Seize(owner))?;
        let abandoned = adopted.abandoned;
        adopted.writer.resign()?;
        drop(place);
        self.count(1, true);
        let done = format!(
            "writer pid {} cut off, {abandoned} slots in quarantine until it ends; the next producer makes a new block",
            owner.pid()
        );
        let step = Step::new("writer", done, "forced").by_force(true);
        Ok(self.told(step.between(&owner.pid(), &"none")))
    }

    pub(super) fn adopt(
        &self,
        from: TakeOver,
    ) -> Result<Adopted<WriterWords, Process, Shipped>, RecoverError> {
        Ok(self.core.clone().adopt(from, self.deadline())?)
    }

    fn check_slot(&self, slot: u32) -> Result<(), RecoverError> {
        let last = self.inspector.descriptor().spec.slot_count.saturating_sub(1);
        if slot > last { Err(RecoverError::InvalidSlot { slot, last }) } else { Ok(()) }
    }

    fn note_reset(&self, change: &SlotChange, forced: bool) {
        let SlotChange { slot, before, after } = *change;
        self.audit(Operation::ResetSlot, forced, slot.0.into(), before.0, after.0);
    }

    fn after_reset(&self, changes: usize, forced: bool) -> Result<(), RecoverError> {
        self.count(changes as u64, forced);
        if forced { self.taint(TAINT_SLOT_RESET) } else { Ok(()) }
    }
}

fn reset_step(change: &SlotChange, forced: bool) -> Step {
    let SlotChange { slot, before, after } = change;
    let hole = SlotId::of_tag(after.tag()).filter(|_| after.is(SlotState::Free));
    let hole = hole.map_or_else(String::new, |id| format!("; id {} is a hole", id.0));
    let done = format!("reset to {}{hole}", state_word(*after));
    let step = Step::new(format!("slot {}", slot.0), done, "its owner is dead, or it was to be thrown away");
    step.between(&describe(*before), &describe(*after)).by_force(forced)
}

fn describe(ctl: Ctl) -> String {
    match SlotId::of_tag(ctl.tag()) {
        Some(id) => format!("{} id {}", state_word(ctl), id.0),
        None => state_word(ctl).to_owned(),
    }
}

/// The word for the state of a slot.
pub(super) fn state_word(ctl: Ctl) -> &'static str {
    ctl.state().map_or("INVALID", |state| crate::inspect::SlotCondition::Valid(state).word())
}
