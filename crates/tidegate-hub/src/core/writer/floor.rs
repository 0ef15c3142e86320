//! The floor: ids below it may be overwritten (5.8). Only the acting writer moves it, and never backwards (DH-069).

use tidegate_shm::{clock::Nanos, sync::Ordering};

use super::Writer;
use crate::core::{
    codec::{RowState, SlotId, SlotState},
    config::{Deadline, Orphan, Overflow, SyncPolicy},
    crash::{self, Point},
    error::AcquireError,
    host::{Counter, Host, Liveness, Place},
    protocol::{Protocol, fence_if},
    wait::Probes,
    words::{Control64, Load, Row64, Sync32, Sync64, WriterWords},
};

/// The smallest id that somebody still needs.
#[derive(Clone, Copy)]
struct Minimum {
    id: u64,
    /// Whether a consumer asks for it.
    observed: bool,
}

impl<W: WriterWords, H: Host, P: Protocol> Writer<W, H, P> {
    /// Waits until the ring has room for `n` ids from `id` on (lossless mode).
    #[inline]
    pub(super) fn floor_gate(&self, id: SlotId, n: u32, deadline: Deadline) -> Result<(), AcquireError> {
        if self.has_room(id, n) { Ok(()) } else { self.make_room(id, n, deadline) }
    }

    fn make_room(&self, id: SlotId, n: u32, deadline: Deadline) -> Result<(), AcquireError> {
        let core = &self.core;
        let waiting = core.config.overflow != Overflow::Fail && deadline != Deadline::Immediate;
        let patience = if waiting { deadline } else { Deadline::Immediate };
        let mut probes = Probes::new(&core.config.timing);
        let waited = core.drain_wait(patience).until::<P, (), AcquireError>(|time| {
            if time > Nanos::ZERO {
                self.check()?;
            }
            self.advance_floor(n);
            if self.has_room(id, n) {
                return Ok(Some(()));
            }
            if probes.due(time) {
                self.reap_dead_rows();
                self.evict_stalled(core.config.overrun(id.0.saturating_add(u64::from(n))));
            }
            Ok(None)
        })?;
        self.count_waiting(waited.time, waited.slept);
        if waited.result.is_some() || self.clear_the_way(id, n) {
            return Ok(());
        }
        if !waiting {
            return Err(AcquireError::QueueFull);
        }
        core.host.count(Counter::WriterFullTimeout, 1);
        Err(AcquireError::Timeout)
    }

    /// Looks for who is in the way, on behalf of callers who wait often but never for long. Whether there is room then.
    fn clear_the_way(&self, id: SlotId, n: u32) -> bool {
        if !self.blocked.is_due(self.core.host.now(), &self.core.config.timing) {
            return false;
        }
        self.reap_dead_rows();
        self.evict_stalled(self.core.config.overrun(id.0.saturating_add(u64::from(n))));
        self.advance_floor(n);
        self.has_room(id, n)
    }

    #[inline]
    fn has_room(&self, id: SlotId, n: u32) -> bool {
        // DH-050.
        id.0.saturating_add(u64::from(n)).saturating_sub(self.own(Control64::ReadIndex))
            <= self.core.config.slots()
    }

    /// Raises the floor to what nobody needs any more, so that `n` ids may follow.
    fn advance_floor(&self, n: u32) {
        let host = &self.core.host;
        let read = self.own(Control64::ReadIndex);
        host.count(Counter::FloorScans, 1);
        let first = self.minimum(read, n);
        if first.id <= read {
            return;
        }
        self.publish(Control64::FloorIntent, first.id);
        crash::at(Point::FloorIntent);
        // Pairs with the fence of `join`: either the joiner sees the intent or the second scan sees the joiner.
        fence_if(P::FLOOR_FENCE);
        let second = if P::SECOND_SCAN { self.minimum(read, n) } else { first };
        let floor = first.id.min(second.id);
        if floor < first.id {
            self.publish(Control64::FloorIntent, floor.max(read));
        }
        if floor > read {
            self.publish(Control64::ReadIndex, floor);
            crash::at(Point::FloorStore);
            if !second.observed && self.core.config.orphan == Orphan::Advance {
                host.count(Counter::SlotsUnobserved, floor - read);
            }
        }
    }

    /// The smallest cursor that counts; without one, what the orphan policy says.
    fn minimum(&self, read: u64, n: u32) -> Minimum {
        let core = &self.core;
        if self.holds_floor() {
            return Minimum { id: read, observed: true };
        }
        let counted = core.mask(Sync32::ActiveMask) & !core.mask(Sync32::EvictedMask);
        let mut lowest = None;
        for row in core.rows(counted) {
            if !matches!(core.reg(row).state(), Some(RowState::Active | RowState::Evicted)) {
                continue;
            }
            // Acquire: pairs with the release of the reader; who sees a cursor past an id sees it read.
            let cursor = core.words.row64(row, Row64::Cursor).load(Ordering::Acquire);
            let end = self.own(Control64::CommitIndex);
            if cursor > end {
                core.host.count(Counter::StateTransitionErrors, 1);
            }
            let cursor = cursor.min(end);
            lowest = Some(lowest.map_or(cursor, |lowest: u64| lowest.min(cursor)));
        }
        if let Some(id) = lowest {
            return Minimum { id, observed: true };
        }
        let id = match core.config.orphan {
            // Acquire: pairs with the release of whoever left it. A hint of area S, so no further than the end.
            Orphan::Retain => {
                (core.words.sync64(Sync64::ResumeTag).load(Ordering::Acquire).saturating_sub(1))
                    .min(self.own(Control64::CommitIndex))
            }
            Orphan::Advance => {
                core.config.overrun(self.own(Control64::WriteIndex).saturating_add(u64::from(n)))
            }
        };
        Minimum { id: id.max(read), observed: false }
    }

    /// The floor of lossy mode, which keeps nobody waiting: it says what was given up.
    pub(super) fn raise_floor(&self, id: SlotId, n: u32) {
        let config = &self.core.config;
        let read = self.own(Control64::ReadIndex);
        let floor = read.max(config.overrun(id.0.saturating_add(u64::from(n))));
        if floor == read {
            return;
        }
        if config.overflow == Overflow::DropOldest && config.sync != SyncPolicy::LatestOnly {
            self.core.host.count(Counter::SlotsDroppedOldest, self.unread(read, floor));
        }
        self.publish(Control64::FloorIntent, floor);
        crash::at(Point::FloorIntent);
        self.publish(Control64::ReadIndex, floor);
        crash::at(Point::FloorStore);
    }

    /// How many committed ids in `from..to` no consumer has passed yet.
    fn unread(&self, from: u64, to: u64) -> u64 {
        let lowest = self.minimum(from, 0);
        if !lowest.observed {
            if self.core.config.orphan == Orphan::Advance {
                self.core.host.count(Counter::SlotsUnobserved, to - from);
            }
            return 0;
        }
        (from.max(lowest.id)..to)
            .filter(|id| {
                let id = SlotId(*id);
                let ctl = self.core.slot_ctl(self.core.config.index(id));
                ctl.tag() == id.tag() && ctl.is(SlotState::Committed)
            })
            .count() as u64
    }

    /// Recomputes the floor after the registry changed (5.10, step 5).
    pub(in crate::core) fn refresh_floor(&self) {
        if !self.core.config.is_lossy() {
            self.advance_floor(0);
        }
        // A writer before us may have died between intent and floor; joiners begin at the intent, so it is the one that
        // may be lowered.
        let read = self.own(Control64::ReadIndex);
        self.publish(Control64::FloorIntent, read);
    }

    /// Removes dead consumers that may be in the way (DH-079).
    pub(super) fn reap_dead_rows(&self) {
        let core = &self.core;
        let occupied = core.mask(Sync32::ActiveMask) | core.mask(Sync32::EvictedMask);
        let any_dead = core
            .rows(occupied)
            .filter_map(|row| core.row_owner(row).map(|owner| (row, owner)))
            .any(|(row, owner)| core.host.liveness(owner, Place::Row(row.0)) == Liveness::Dead);
        if any_dead {
            let until = core.host.now().saturating_add(core.config.timing.reap_lock);
            // Without the lock this time, the next probe tries again.
            let _ = core.reap(Deadline::At(until));
        }
    }

    /// DH-078.
    pub(super) fn count_waiting(&self, time: Nanos, slept: bool) {
        if time > Nanos::ZERO {
            self.core.host.count(Counter::WriterBlockedNs, time.0);
        }
        if slept {
            self.core.host.count(Counter::DrainWaits, 1);
        }
    }
}
