//! The control page, the locks, the zones, the metrics page.

use std::mem::offset_of;

use super::{Checks, Part};
use crate::{
    inspect::picture::{Lock, Zone},
    layout::{
        InitState, LOCK_ALLOCATED, LOCK_POISONED, LOCK_SYSTEM, MAX_SLOT_ID, NO_INDEX, SYSTEM_LOCKS,
        pages::{ControlPage, MetricsPage, ZoneControl},
    },
};

impl Checks<'_> {
    /// The control page (3.4, DH-052).
    pub(super) fn control(&mut self) {
        const PART: Part = Part::Control;
        let descriptor = self.block.descriptor();
        let first = descriptor.spec.first_slot_id;
        let slots = u64::from(descriptor.spec.slot_count);
        let early_write = self.block.indices().write_index;
        let indices = self.block.indices();
        let later = self.block.indices();
        let control = self.block.control();

        self.range(PART, "init_state", 0, InitState::Closed.code().into(), control.init_state.into());
        self.range(PART, "taint", 0, TAINT_BITS, control.taint.into());
        self.range(PART, "handover_state", 0, 4, control.handover_state.into());
        self.rule(PART, "writer_epoch", control.writer_epoch != 0, "1 or more", control.writer_epoch);
        self.owner(PART, "writer_owner", control.writer_owner);
        let closed = control.init_state == InitState::Closed.code();
        self.rule(
            PART,
            "writer_owner",
            !closed || control.writer_owner == 0,
            "nobody once closed",
            control.writer_owner,
        );
        for (field, time) in [
            ("writer_heartbeat_ns", control.writer_heartbeat_ns),
            ("writer_attached_ns", control.writer_attached_ns),
            ("closed_ns", control.closed_ns),
            ("handover_started_ns", control.handover_started_ns),
        ] {
            self.past(PART, field, time);
        }

        // Each bound is loaded after what it bounds, and the bounds only grow.
        self.range(PART, "read_index", first, later.commit_index, indices.read_index);
        self.range(PART, "floor_intent", indices.read_index, later.commit_index, indices.floor_intent);
        self.range(PART, "commit_index", indices.read_index, later.write_index, indices.commit_index);
        let furthest = later.commit_index.saturating_add(slots).min(MAX_SLOT_ID);
        self.range(PART, "write_index", indices.commit_index, furthest, indices.write_index);
        if !self.block.is_lossy() {
            let held = early_write.saturating_sub(indices.read_index);
            self.rule(
                PART,
                "write_index",
                held <= slots,
                "at most slot_count beyond read_index",
                early_write,
            );
        }
        let latest = indices.latest_tag;
        let possible = latest == 0 || (latest > first && latest <= later.commit_index);
        self.rule(PART, "latest_tag", possible, "0, or the tag of an id below commit_index", latest);

        let row = self.block.views().control.row();
        self.zero(PART, row.bytes::<{ offset_of!(ControlPage, reserved_030) }, 16>());
        self.zero(PART, row.bytes::<{ offset_of!(ControlPage, reserved_048) }, 56>());
        self.zero(PART, row.bytes::<{ offset_of!(ControlPage, reserved_094) }, 44>());
        self.zero(PART, row.bytes::<{ offset_of!(ControlPage, reserved_0d0) }, 48>());
        self.zero(PART, row.bytes::<{ offset_of!(ControlPage, reserved_130) }, 16>());
        self.zero(PART, row.bytes::<{ offset_of!(ControlPage, reserved_1c0) }, 3648>());
    }

    /// The maintenance lock and the lock table (3.5, 10.2).
    pub(super) fn locks(&mut self) {
        let maintenance = self.block.maintenance_words();
        self.lock(Part::MaintenanceLock, &maintenance);
        let table = self.block.views().locks.clone();
        for (index, row) in (0..).zip(table.iter()) {
            let lock = Lock::load(row);
            let part = Part::Lock(index);
            self.lock(part, &lock);
            let system = lock.flags & LOCK_SYSTEM != 0;
            let flags = u64::from(lock.flags);
            self.rule(part, "flags", system == (index < SYSTEM_LOCKS), "system for locks 0 to 7 only", flags);
            let allocated = lock.flags & LOCK_ALLOCATED != 0;
            self.rule(part, "flags", lock.owner == 0 || allocated, "allocated while held", flags);
            let zones = self.block.descriptor().spec.zones.len();
            let zone = lock.zone_index;
            let known = zone == NO_INDEX || (zone as usize) < zones;
            self.rule(part, "zone_index", known || !allocated, "none, or a zone there is", zone.into());
            let free_and_used = lock.owner == 0 && (lock.recursion != 0 || lock.owner_thread != 0);
            self.rule(part, "recursion", !free_and_used, "0 while free", lock.recursion.into());
        }
    }

    fn lock(&mut self, part: Part, lock: &Lock) {
        let known = LOCK_ALLOCATED | LOCK_POISONED | LOCK_SYSTEM;
        self.owner(part, "owner", lock.owner);
        self.range(part, "waiters", 0, 1, lock.waiters.into());
        self.range(part, "flags", 0, known.into(), lock.flags.into());
        self.past(part, "acquired_ns", lock.acquired_ns);
    }

    /// The control lines of the zones (3.7).
    pub(super) fn zones(&mut self) {
        let offsets = self.block.descriptor().geometry.zone_offsets.clone();
        for (index, offset) in (0..).zip(offsets) {
            let region = self.block.block().region();
            let Ok(record) = region.record::<{ size_of::<ZoneControl>() }>(offset) else { continue };
            let zone = Zone::load(record.row());
            let later = Zone::load(record.row());
            let part = Part::Zone(index);
            self.owner(part, "last_writer", zone.last_writer);
            self.past(part, "last_write_ns", zone.last_write_ns);
            self.range(part, "digest_generation", 0, later.write_generation, zone.digest_generation);
        }
    }

    /// What can be told about counters: what was reserved is zero (17.1).
    pub(super) fn metrics(&mut self) {
        let row = self.block.views().metrics.row();
        self.zero(Part::Metrics, row.bytes::<{ offset_of!(MetricsPage, reserved_168) }, 24>());
        self.zero(Part::Metrics, row.bytes::<{ offset_of!(MetricsPage, reserved_1e0) }, 32>());
        self.zero(Part::Metrics, row.bytes::<{ offset_of!(MetricsPage, reserved_228) }, 472>());
        self.zero(Part::Metrics, row.bytes::<{ offset_of!(MetricsPage, reserved_a30) }, 1488>());
    }
}

/// All bits of `taint` that have a meaning.
const TAINT_BITS: u64 = 0x1F;
