//! Slot records (5.2, 5.3).

use std::mem::offset_of;

use super::{Checks, Part};
use crate::{
    core::codec::{Ctl, SlotId, SlotState},
    inspect::picture::Slot,
    layout::pages::SlotRecord,
};

impl Checks<'_> {
    /// State, tag, length and owner of every slot.
    pub(super) fn slots(&mut self) {
        let before = self.block.indices();
        let records = self.block.views().slot_records.clone();
        for (index, row) in (0..).zip(records.iter()) {
            let slot = Slot::load(row);
            // After the slot: an index that bounds a tag only grows.
            let write = self.block.indices().write_index;
            self.slot(index, &slot, before.commit_index, write);
            self.zero(Part::Slot(index), row.bytes::<{ offset_of!(SlotRecord, reserved) }, 8>());
        }
    }

    fn slot(&mut self, index: u32, slot: &Slot, commit_before: u64, write_after: u64) {
        let part = Part::Slot(index);
        let spec = &self.block.descriptor().spec;
        let (first, slots, slot_size) = (spec.first_slot_id, u64::from(spec.slot_count), spec.slot_size);
        let ctl = Ctl(slot.ctl);
        let Some(state) = ctl.state() else {
            return self.range(part, "ctl", 0, 4, slot.ctl & 7);
        };
        let in_between = matches!(state, SlotState::Writing | SlotState::Draining | SlotState::Quarantined);
        match SlotId::of_tag(ctl.tag()) {
            None => {
                self.rule(part, "ctl", state == SlotState::Free, "FREE while it was never used", slot.ctl)
            }
            Some(id) => {
                let here = id.0 >= first && self.block.slot_of(id) == index;
                self.rule(part, "ctl", here, "the tag of an id that lives here", ctl.tag());
                // A slot becomes WRITING before the index passes it (DH-053), and is COMMITTED after that.
                let ahead =
                    if matches!(state, SlotState::Committed | SlotState::Draining) { 0 } else { slots };
                self.range(part, "ctl", 0, write_after.saturating_add(ahead), ctl.tag());
                let open = state == SlotState::Writing && id.0 < commit_before;
                self.rule(part, "ctl", !open, "resolved below commit_index", slot.ctl);
            }
        }
        self.rule(
            part,
            "owner",
            !in_between || slot.owner != 0,
            "somebody while it is worked on",
            slot.owner,
        );
        self.owner(part, "owner", slot.owner);
        self.range(part, "payload_len", 0, slot_size, slot.payload_len);
        self.range(part, "slot_flags", 0, SLOT_FLAGS, slot.slot_flags.into());
        self.past(part, "state_since_ns", slot.state_since_ns);
        self.past(part, "commit_ns", slot.commit_ns);
    }
}

/// All bits of `slot_flags` that have a meaning.
const SLOT_FLAGS: u64 = 7;
