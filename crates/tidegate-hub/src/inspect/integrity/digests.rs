//! Digests of what the slots hold (11.1): whether the entry belongs to the slot.

use std::mem::offset_of;

use super::{Checks, Part};
use crate::{
    core::codec::{Ctl, SlotState},
    inspect::{
        picture::{Digest, Slot},
        slot::SLOT_HAS_DIGEST,
    },
    layout::{DigestPolicy, pages::DigestEntry},
};

impl Checks<'_> {
    /// Every digest entry.
    pub(super) fn digests(&mut self) {
        let views = self.block.views().clone();
        let rows = (0_u32..).zip(views.slot_records.iter());
        for (index, row) in rows {
            let slot = Slot::load(row);
            let Some(entry) = views.digests.row(index) else {
                self.not_applicable += 1;
                continue;
            };
            let alg = entry.bytes::<{ offset_of!(DigestEntry, alg) }, 1>().to_vec();
            let code = alg.first().copied().unwrap_or_default();
            self.digest(index, &slot, &Digest::load(entry), code);
            self.zero(Part::Digest(index), entry.bytes::<{ offset_of!(DigestEntry, reserved) }, 3>());
        }
    }

    fn digest(&mut self, index: u32, slot: &Slot, entry: &Digest, code: u8) {
        let part = Part::Digest(index);
        let spec = &self.block.descriptor().spec;
        let (alg, policy) = (spec.digest_alg, spec.digest_policy);
        let ctl = Ctl(slot.ctl);
        let flagged = slot.slot_flags & SLOT_HAS_DIGEST != 0;
        if !ctl.is(SlotState::Committed) {
            self.not_applicable += 1;
            return;
        }
        if !flagged {
            self.not_applicable += 1;
            let enforced = policy == DigestPolicy::Enforced;
            return self.rule(
                part,
                "slot_flags",
                !enforced,
                "a digest, which is enforced",
                slot.slot_flags.into(),
            );
        }
        self.rule(part, "tag", entry.tag == ctl.tag(), "the tag of the slot", entry.tag);
        self.rule(part, "len", entry.len == slot.payload_len, "payload_len of the slot", entry.len);
        self.range(part, "alg", alg.code().into(), alg.code().into(), code.into());
        self.past(part, "computed_ns", entry.computed_ns);
        self.verified += 1;
    }
}
