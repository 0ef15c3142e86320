//! The consumer table: joining, leaving, evicting, reaping (5.8, 16.3). All of it happens under the maintenance lock.

use tidegate_shm::{clock::Nanos, sync::Ordering};

use super::{
    Core,
    codec::{Claim, ProcessKey, Reg, Row, RowState, SlotId},
    config::{Deadline, SyncPolicy},
    crash::{self, Point},
    error::RegistryError,
    host::{AuditEvent, Counter, Host, Liveness, Place},
    protocol::{Protocol, fence_if},
    words::{Control64, Load, Row32, Row64, RowNames, Sync32, Sync64, Word, Words},
};

/// Where a new consumer begins (5.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the next commit.
    Latest,
    /// With the newest value there is.
    Newest,
    /// With the oldest id that can still be promised.
    Oldest,
    /// Where the last consumer stopped.
    Resume,
    /// With this id.
    At(SlotId),
}

impl Start {
    /// The default of a policy (DH-072).
    pub fn default_for(sync: SyncPolicy) -> Self {
        match sync {
            SyncPolicy::LatestOnly => Self::Newest,
            SyncPolicy::SingleReader => Self::Resume,
            SyncPolicy::AllReaders => Self::Latest,
        }
    }
}

/// The right to a row: what [`Core::join`] gives and [`Core::leave`] takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The row.
    pub row: Row,
    /// Its epoch; the row is somebody else's when it differs.
    pub epoch: u64,
    /// First id that is promised to this consumer (DH-068).
    pub start: SlotId,
}

impl<W: Words, H: Host, P: Protocol> Core<W, H, P> {
    /// Takes a row and finds the place to begin.
    ///
    /// # Errors
    /// No row, no lock, or a start outside of the ring.
    pub fn join(&self, start: Start, names: &RowNames, deadline: Deadline) -> Result<Ticket, RegistryError> {
        self.locked(deadline, || self.join_locked(start, names))
    }

    /// Gives the row back; unread ids are left for the next consumer (DH-070, DH-071).
    ///
    /// # Errors
    /// No lock, or the row is not the ticket's.
    pub fn leave(&self, ticket: &Ticket, deadline: Deadline) -> Result<(), RegistryError> {
        self.locked(deadline, || {
            let reg = self.reg(ticket.row);
            let ours = reg.epoch() == ticket.epoch
                && matches!(reg.state(), Some(RowState::Active | RowState::Evicted));
            if !ours {
                return Err(RegistryError::NotOwner);
            }
            self.remove_row(ticket.row, ticket.epoch);
            self.host.release(Place::Row(ticket.row.0));
            self.host.count(Counter::ConsumersLeft, 1);
            self.wake_writer();
            Ok(())
        })
    }

    /// Takes from a consumer the right to hold the ring back. What it is reading stays its own until it lets go
    /// (DH-107, DH-238).
    ///
    /// # Errors
    /// No lock, or the row is not ACTIVE.
    pub fn evict(&self, row: Row, deadline: Deadline) -> Result<(), RegistryError> {
        self.evict_from(row, self.reg(row), || true, deadline)
    }

    /// Evicts the consumer that had the row when `found` was seen there, and none that came after it, if `may` says so
    /// once the lock is held.
    ///
    /// # Errors
    /// No lock, another consumer, a row that is not ACTIVE, or `may` says no.
    pub fn evict_from(
        &self,
        row: Row,
        found: Reg,
        may: impl FnOnce() -> bool,
        deadline: Deadline,
    ) -> Result<(), RegistryError> {
        self.locked(deadline, || {
            let reg = self.reg(row);
            if reg != found || !reg.is(RowState::Active) || !may() {
                return Err(RegistryError::NotOwner);
            }
            // First the state, then the bit: a writer that sees the bit, passes its fence and finds no claim, is behind
            // every reader that still saw ACTIVE.
            if P::EVICTED_BEFORE_MASK {
                self.store_reg(row, reg.epoch(), RowState::Evicted);
                self.set_bit(Sync32::EvictedMask, row);
            } else {
                self.set_bit(Sync32::EvictedMask, row);
                self.store_reg(row, reg.epoch(), RowState::Evicted);
            }
            self.host.count(Counter::ConsumersEvicted, 1);
            self.host.audit(AuditEvent::Evicted { row, owner: self.row_owner(row) });
            self.wake_writer();
            Ok(())
        })
    }

    /// Removes all rows whose owners are dead; returns how many there were.
    ///
    /// # Errors
    /// No lock.
    pub fn reap(&self, deadline: Deadline) -> Result<u32, RegistryError> {
        if !P::REAP_UNDER_LOCK {
            return Ok(self.reap_locked());
        }
        self.locked(deadline, || Ok(self.reap_locked()))
    }

    pub(super) fn reap_locked(&self) -> u32 {
        let mut reaped = 0;
        for row in self.rows(u32::MAX) {
            let reg = self.reg(row);
            let Some(owner) = self.row_owner(row) else { continue };
            if reg.is(RowState::Free) || self.host.liveness(owner, Place::Row(row.0)) != Liveness::Dead {
                continue;
            }
            self.remove_row(row, reg.epoch());
            self.host.count(Counter::DeadConsumersReaped, 1);
            self.host.audit(AuditEvent::Reaped { row, owner: Some(owner) });
            reaped += 1;
        }
        if reaped > 0 {
            self.wake_writer();
        }
        reaped
    }

    fn join_locked(&self, start: Start, names: &RowNames) -> Result<Ticket, RegistryError> {
        self.reap_locked();
        let limit = |only| RegistryError::ConsumerLimit { rows: self.config.max_consumers, only };
        let alone = self.config.sync == SyncPolicy::SingleReader;
        if alone && let Some(row) = self.rows(u32::MAX).find(|row| self.reg(*row).is(RowState::Active)) {
            return Err(limit(self.row_owner(row)));
        }
        let mut cursor = self.start_cursor(start)?;
        let row = self.rows(u32::MAX).find(|row| self.reg(*row).is(RowState::Free)).ok_or(limit(None))?;
        // Before the key is stored there (DH-038). A free row that is still noted was taken from this process by force.
        self.host.hold(Place::Row(row.0));
        let epoch = self.reg(row).epoch().wrapping_add(1);
        self.store_reg(row, epoch, RowState::Joining);
        crash::at(Point::Joining);
        self.write_identity(row, names);
        crash::at(Point::Identity);
        loop {
            self.words.row64(row, Row64::Cursor).store(cursor, Ordering::Release);
            self.store_reg(row, epoch, RowState::Active);
            crash::at(Point::Active);
            if P::MASK_BEFORE_CLAIM {
                self.set_bit(Sync32::ActiveMask, row);
            }
            crash::at(Point::Mask);
            // Pairs with the fence of `advance_floor`: either we see the raised intent and begin later, or the writer's
            // second scan sees our cursor (DH-068).
            fence_if(P::JOIN_FENCE);
            let floor = self.control(Control64::FloorIntent);
            if floor <= cursor || self.config.is_lossy() {
                break;
            }
            cursor = floor;
        }
        // Relaxed: read by people.
        self.words.row64(row, Row64::StartId).store(cursor, Ordering::Relaxed);
        // Relaxed: a count of changes, made under the lock.
        self.words.sync64(Sync64::RegistryEpoch).fetch_add(1, Ordering::Relaxed);
        self.host.count(Counter::ConsumersJoined, 1);
        self.host.peak(Counter::PeakConsumers, u64::from(self.mask(Sync32::ActiveMask).count_ones()));
        Ok(Ticket { row, epoch, start: SlotId(cursor) })
    }

    fn start_cursor(&self, start: Start) -> Result<u64, RegistryError> {
        let end = self.control(Control64::CommitIndex);
        let floor = self.control(Control64::FloorIntent);
        let wanted = match start {
            Start::Latest => end,
            Start::Newest => SlotId::of_tag(self.control(Control64::LatestTag)).map_or(end, |id| id.0),
            Start::Oldest => floor,
            // Acquire: pairs with the release of whoever left it.
            Start::Resume => match self.words.sync64(Sync64::ResumeTag).load(Ordering::Acquire) {
                0 => floor,
                tag => tag - 1,
            },
            Start::At(id) if (floor..=end).contains(&id.0) => id.0,
            Start::At(id) => return Err(RegistryError::BadStart { wanted: id.0, floor, end }),
        };
        // The resume tag lies where everybody writes: it may ask for no more than there is.
        Ok(wanted.max(floor).min(end.max(floor)))
    }

    fn write_identity(&self, row: Row, names: &RowNames) {
        let now = self.host.now();
        for (field, value) in fresh_row(now) {
            // Relaxed: the release of ACTIVE publishes them.
            self.words.row64(row, field).store(value, Ordering::Relaxed);
        }
        self.words.row32(row, Row32::Flags).store(0, Ordering::Relaxed);
        self.words.row32(row, Row32::HandoverAck).store(0, Ordering::Relaxed);
        self.words.row64(row, Row64::Claim).store(Claim::NONE.0, Ordering::Release);
        self.words.row64(row, Row64::Owner).store(self.key.word(), Ordering::Release);
        self.words.write_names(row, names);
    }

    /// Makes a row FREE, so that dying at any step leaves it LEAVING, which the repair of the registry completes. Its
    /// owner is the caller or dead, so its reads are done (A1).
    pub(super) fn remove_row(&self, row: Row, epoch: u64) {
        self.store_reg(row, epoch, RowState::Leaving);
        crash::at(Point::Leaving);
        // Release: pairs with the acquiring loads of the writer's scan.
        self.words.row64(row, Row64::Claim).store(Claim::NONE.0, Ordering::Release);
        crash::at(Point::ReapClaim);
        self.leave_resume_tag(row);
        self.retire_counters(row);
        crash::at(Point::ReapFree);
        self.free_row(row, epoch);
    }

    /// If no other consumer remains, the next one is to begin where this one stopped.
    fn leave_resume_tag(&self, row: Row) {
        let others = self.rows(u32::MAX).any(|other| other != row && self.reg(other).is(RowState::Active));
        if others {
            return;
        }
        // Relaxed: its owner is dead or calls this itself.
        let cursor = self.words.row64(row, Row64::Cursor).load(Ordering::Relaxed);
        let reached = cursor.min(self.control(Control64::CommitIndex));
        let tag = self.words.sync64(Sync64::ResumeTag);
        // Relaxed load: changed under the lock only. Release: pairs with the acquire of the writer and of `join`.
        tag.store(tag.load(Ordering::Relaxed).max(reached.saturating_add(1)), Ordering::Release);
    }

    /// Adds the counters of a row to those of departed rows, each once.
    fn retire_counters(&self, row: Row) {
        let retired: [(Row64, &[Counter]); 3] = [
            (Row64::ReadTimeouts, &[Counter::ReadsAttemptedRetired]),
            (Row64::SlotsConsumed, &[Counter::SlotsReadRetired, Counter::ReadsAttemptedRetired]),
            (Row64::BytesConsumed, &[Counter::BytesReadRetired]),
        ];
        for (field, counters) in retired {
            let word = self.words.row64(row, field);
            // Relaxed: statistics. Taken out before they are added, so that dying in between adds nothing twice.
            let amount = word.load(Ordering::Relaxed);
            word.store(0, Ordering::Relaxed);
            counters.iter().for_each(|counter| self.host.count(*counter, amount));
        }
    }

    pub(super) fn row_owner(&self, row: Row) -> Option<ProcessKey> {
        // Acquire: pairs with the release of the joiner.
        ProcessKey::from_word(self.words.row64(row, Row64::Owner).load(Ordering::Acquire))
    }

    fn store_reg(&self, row: Row, epoch: u64, state: RowState) {
        // Release: pairs with the acquiring loads of the writer and of the row's owner.
        self.words.row64(row, Row64::Reg).store(Reg::new(epoch, state).0, Ordering::Release);
    }

    pub(super) fn set_bit(&self, field: Sync32, row: Row) {
        self.change_mask(field, |mask| mask | row.bit());
    }

    pub(super) fn clear_bit(&self, field: Sync32, row: Row) {
        self.change_mask(field, |mask| mask & !row.bit());
    }

    fn change_mask(&self, field: Sync32, change: impl Fn(u32) -> u32) {
        let word = self.words.sync32(field);
        // Relaxed: the exchange orders.
        let mut mask = word.load(Ordering::Relaxed);
        while change(mask) != mask {
            // AcqRel: pairs with the acquiring loads of the writer.
            match word.compare_exchange(mask, change(mask), Ordering::AcqRel) {
                Ok(_) => break,
                Err(found) => mask = found,
            }
        }
    }
}

/// What a row holds for a consumer that begins at `now`.
fn fresh_row(now: Nanos) -> [(Row64, u64); 10] {
    [
        (Row64::Heartbeat, now.0),
        (Row64::ClaimSince, 0),
        (Row64::JoinedNs, now.0),
        (Row64::SlotsConsumed, 0),
        (Row64::BytesConsumed, 0),
        (Row64::SlotsLost, 0),
        (Row64::HolesSeen, 0),
        (Row64::DigestFailures, 0),
        (Row64::Heartbeats, 0),
        (Row64::ReadTimeouts, 0),
    ]
}
