//! Digests of what the slots hold (11.1): whether the entry belongs to the slot, and to its bytes.

use std::mem::offset_of;

use super::{Checks, Part, SlotDigest};
use crate::{
    core::codec::{Ctl, SlotId, SlotState},
    inspect::{
        picture::{Digest, Slot},
        slot::SLOT_HAS_DIGEST,
    },
    layout::{DigestPolicy, pages::DigestEntry},
};

impl Checks<'_> {
    /// Every digest entry.
    pub(super) fn digests(&mut self, digest: Option<SlotDigest<'_>>) {
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
            if self.digest(index, &slot, &Digest::load(entry), code) {
                let stored = entry.bytes::<{ offset_of!(DigestEntry, digest) }, 32>().to_vec();
                match digest {
                    Some(digest) => self.compare(index, &slot, &stored, digest),
                    None => self.present += 1,
                }
            }
            self.zero(Part::Digest(index), entry.bytes::<{ offset_of!(DigestEntry, reserved) }, 3>());
        }
    }

    /// Whether there is a digest to compare.
    fn digest(&mut self, index: u32, slot: &Slot, entry: &Digest, code: u8) -> bool {
        let part = Part::Digest(index);
        let spec = &self.block.descriptor().spec;
        let (alg, policy) = (spec.digest_alg, spec.digest_policy);
        let ctl = Ctl(slot.ctl);
        let flagged = slot.slot_flags & SLOT_HAS_DIGEST != 0;
        if !ctl.is(SlotState::Committed) {
            self.not_applicable += 1;
            return false;
        }
        if !flagged {
            self.not_applicable += 1;
            let enforced = policy == DigestPolicy::Enforced;
            self.rule(part, "slot_flags", !enforced, "a digest, which is enforced", slot.slot_flags.into());
            return false;
        }
        self.rule(part, "tag", entry.tag == ctl.tag(), "the tag of the slot", entry.tag);
        self.rule(part, "len", entry.len == slot.payload_len, "payload_len of the slot", entry.len);
        self.range(part, "alg", alg.code().into(), alg.code().into(), code.into());
        self.past(part, "computed_ns", entry.computed_ns);
        true
    }

    /// Compares with the bytes. A slot that changed meanwhile has nothing to say.
    fn compare(&mut self, index: u32, slot: &Slot, stored: &[u8], digest: SlotDigest<'_>) {
        let id = SlotId::of_tag(Ctl(slot.ctl).tag());
        let bytes = self.block.block().slot(index);
        let len = usize::try_from(slot.payload_len).unwrap_or(usize::MAX);
        let (Some(id), Ok(bytes)) = (id, bytes.and_then(|bytes| bytes.sub(0..len))) else {
            // A length beyond the slot is damage of the slot.
            self.not_applicable += 1;
            return;
        };
        let same = digest(id.0, bytes) == *stored;
        if self.block.ctl(index) != Some(Ctl(slot.ctl)) {
            self.not_applicable += 1;
            return;
        }
        self.verified += 1;
        self.rule(Part::Digest(index), "digest", same, "that of the bytes", id.0);
    }
}
