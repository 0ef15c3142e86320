//! The sync page, the audit ring and the consumer table (3.5, 3.6, 18.5).

use std::mem::offset_of;

use super::{Checks, Part};
use crate::{
    core::codec::{Claim, Reg, RowState},
    inspect::{
        audit::{AUDIT_ENTRIES, operation_word},
        consumer::claim_first,
        picture::{Audit, ConsumerWords, Sync},
    },
    layout::pages::{AuditEntry, ConsumerRow, SyncPage},
};

impl Checks<'_> {
    /// Masks, flags and the audit ring.
    pub(super) fn sync(&mut self) {
        const PART: Part = Part::Sync;
        let row = self.block.views().sync.row();
        let sync = Sync::load(row);
        let spec = &self.block.descriptor().spec;
        let first = spec.first_slot_id;
        let rows = (1_u64 << spec.max_consumers.min(32)) - 1;
        let commit = self.block.indices().commit_index;
        self.rule(
            PART,
            "active_mask",
            u64::from(sync.active_mask) & !rows == 0,
            "bits of rows there are",
            sync.active_mask.into(),
        );
        self.rule(
            PART,
            "evicted_mask",
            u64::from(sync.evicted_mask) & !rows == 0,
            "bits of rows there are",
            sync.evicted_mask.into(),
        );
        self.range(PART, "data_waiters", 0, 1, sync.data_waiters.into());
        self.range(PART, "drain_waiters", 0, 1, sync.drain_waiters.into());
        let resume = sync.resume_tag;
        let possible = resume == 0 || (resume > first && resume <= commit.saturating_add(1));
        self.rule(PART, "resume_tag", possible, "0, or 1 + an id that is resolved or the next", resume);
        self.zero(PART, row.bytes::<{ offset_of!(SyncPage, reserved_058) }, 40>());
        self.zero(PART, row.bytes::<{ offset_of!(SyncPage, reserved_084) }, 60>());
        self.zero(PART, row.bytes::<{ offset_of!(SyncPage, reserved_0c8) }, 56>());
        self.zero(PART, row.bytes::<{ offset_of!(SyncPage, reserved_108) }, 1784>());
        self.audit_ring(sync.audit_seq);
    }

    fn audit_ring(&mut self, written: u64) {
        let ring = self.block.descriptor().geometry.sync().offset + offset_of!(SyncPage, audit) as u64;
        let region = self.block.block().region();
        let Ok(ring) = region.table::<{ size_of::<AuditEntry>() }>(ring, AUDIT_ENTRIES) else { return };
        let places = u64::from(AUDIT_ENTRIES);
        for (place, row) in (0_u32..).zip(ring.iter()) {
            let entry = Audit::load(row);
            let later = self.block.audit_count();
            // The newest number that this place can have; the entry after it may be half written.
            let part = Part::Audit(place);
            let used = written > u64::from(place);
            let here = entry.sequence % places == u64::from(place) && entry.sequence <= later;
            let recent = later.saturating_sub(entry.sequence) <= places;
            self.rule(
                part,
                "sequence",
                !used || (here && recent),
                "the number of a newest entry",
                entry.sequence,
            );
            if used {
                let known = operation_word(entry.operation).is_some();
                self.rule(part, "operation", known, "1 to 11", entry.operation.into());
                self.range(part, "flags", 0, 1, entry.flags.into());
                self.owner(part, "actor", entry.actor);
                self.zero(part, row.bytes::<{ offset_of!(AuditEntry, reserved) }, 8>());
            }
        }
    }

    /// The consumer table, and whether the masks follow it.
    pub(super) fn rows(&mut self) {
        let locked = self.block.maintenance_words().owner != 0;
        let sync = Sync::load(self.block.views().sync.row());
        let table = self.block.views().consumers.clone();
        for (index, row) in (0_u32..).zip(table.iter()) {
            let words = ConsumerWords::load(row);
            // After the row: it only grows.
            let commit = self.block.indices().commit_index;
            self.row(index, &words, commit);
            if !locked {
                self.membership(index, &words, &sync);
            }
            self.zero(Part::Row(index), row.bytes::<{ offset_of!(ConsumerRow, reserved) }, 48>());
        }
    }

    fn row(&mut self, index: u32, row: &ConsumerWords, commit: u64) {
        let part = Part::Row(index);
        let spec = &self.block.descriptor().spec;
        let (first, slots) = (spec.first_slot_id, spec.slot_count);
        let state = Reg(row.reg).state();
        self.rule(part, "reg", state.is_some(), "a state of 0 to 4", row.reg & 0xFF);
        self.owner(part, "owner", row.owner);
        self.range(part, "flags", 0, ROW_FLAGS, row.flags.into());
        if matches!(state, Some(RowState::Active | RowState::Evicted)) {
            self.range(part, "cursor", first, commit, row.cursor);
            self.range(part, "start_id", first, commit, row.start_id);
            self.past(part, "last_heartbeat_ns", row.last_heartbeat_ns);
            self.past(part, "joined_ns", row.joined_ns);
        }
        let claim = Claim(row.claim);
        let count = row.claim & u64::from(Claim::MAX_COUNT);
        self.rule(part, "claim", !claim.is_none() || row.claim == 0, "0 while nothing is read", row.claim);
        self.rule(part, "claim", count <= u64::from(slots), "no more ids than slots", row.claim);
        if let Some(id) = claim_first(claim, commit) {
            let resolved = id >= first && id.saturating_add(count) <= commit;
            self.rule(part, "claim", resolved, "ids that are resolved", row.claim);
            self.past(part, "claim_since_ns", row.claim_since_ns);
        }
        let epoch = self.block.control().handover_epoch;
        self.range(part, "handover_ack", 0, epoch.into(), (row.handover_ack & !REFUSED).into());
    }

    /// What holds whenever nobody has the maintenance lock (DH-083).
    fn membership(&mut self, index: u32, row: &ConsumerWords, sync: &Sync) {
        let part = Part::Row(index);
        let bit = 1_u32 << (index & 31);
        let (active, evicted) = (sync.active_mask & bit != 0, sync.evicted_mask & bit != 0);
        let masks = |active: bool, evicted: bool| u64::from(active) | u64::from(evicted) << 1;
        let found = masks(active, evicted);
        match Reg(row.reg).state() {
            None => {}
            Some(RowState::Free) => {
                self.rule(part, "owner", row.owner == 0, "nobody in a free row", row.owner);
                self.rule(part, "claim", row.claim == 0, "none in a free row", row.claim);
                self.rule(part, "mask bits", found == 0, "clear for a free row", found);
            }
            Some(RowState::Active) => {
                self.rule(part, "owner", row.owner != 0, "somebody in an active row", row.owner);
                self.rule(
                    part,
                    "mask bits",
                    active && !evicted,
                    "active, not evicted, for an active row",
                    found,
                );
            }
            Some(RowState::Evicted) => {
                self.rule(part, "owner", row.owner != 0, "somebody in an evicted row", row.owner);
                self.rule(
                    part,
                    "mask bits",
                    active && evicted,
                    "active and evicted for an evicted row",
                    found,
                );
            }
            Some(RowState::Joining | RowState::Leaving) => {
                self.rule(
                    part,
                    "reg",
                    false,
                    "not between two states while the maintenance lock is free",
                    row.reg & 0xFF,
                );
            }
        }
    }
}

/// All bits of a row's `flags` that have a meaning.
const ROW_FLAGS: u64 = 7;
/// Bit of `handover_ack`: refused.
const REFUSED: u32 = 1 << 31;
