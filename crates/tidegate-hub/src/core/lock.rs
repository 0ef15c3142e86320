//! The maintenance lock (10.3): who holds it may change the registry. A dead holder loses it, and the registry is
//! repaired before anything else is done (DH-083).

use tidegate_shm::sync::Ordering;

use super::{
    Core,
    codec::{Claim, LOCK_POISONED, ProcessKey, Reg, Row, RowState},
    config::Deadline,
    crash::{self, Point},
    error::RegistryError,
    event,
    host::{AuditEvent, Counter, Host, Liveness, Place},
    protocol::Protocol,
    wait::{Polling, Probes},
    words::{Load, Row64, Sync32, Sync64, Word, Words},
};

impl<W: Words, H: Host, P: Protocol> Core<W, H, P> {
    /// Runs `work` under the maintenance lock. `work` must be bounded (DH-152). The lock is not recursive: another
    /// thread of this process is waited for like another process.
    pub(crate) fn locked<R>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> Result<R, RegistryError>,
    ) -> Result<R, RegistryError> {
        self.lock(deadline)?;
        crash::at(Point::LockHeld);
        let _inside = order::Inside::enter();
        let result = work();
        self.unlock();
        result
    }

    fn lock(&self, deadline: Deadline) -> Result<(), RegistryError> {
        let sequence = self.words.sync32(Sync32::LockWake);
        let wait = self.wait_on(deadline, sequence, self.words.sync32(Sync32::LockWaiters), Polling::Gentle);
        let mut probes = Probes::new(&self.config.timing);
        let mut holder = None;
        let mut contended = false;
        let mut entered = false;
        let waited = wait.until::<P, (), RegistryError>(|time| {
            // First against other threads of this process, so that the own key in the word is never theirs (DH-038).
            entered = entered || self.host.hold(Place::Maintenance);
            if !entered {
                holder = Some(self.key);
                return Ok(None);
            }
            match self.try_lock() {
                Ok(()) => return Ok(Some(())),
                Err(other) => holder = other,
            }
            if !contended {
                contended = true;
                self.host.count(Counter::MaintenanceLockWaits, 1);
            }
            Ok((probes.due(time) && holder.is_some_and(|dead| self.take_over(dead))).then_some(()))
        })?;
        // A caller whose time is over asks before it goes, since it may have had less than it takes to be asked above.
        if waited.result.is_none() && !(entered && holder.is_some_and(|dead| self.take_over(dead))) {
            if entered {
                self.host.release(Place::Maintenance);
            }
            return Err(RegistryError::LockTimeout { holder });
        }
        let generation = self.words.sync64(Sync64::LockGeneration);
        // Relaxed: only the holder changes it; for people.
        generation.store(generation.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.words.sync64(Sync64::LockAcquired).store(self.host.now().0, Ordering::Relaxed);
        // Relaxed: only holders change it, and the lock orders them.
        let flags = self.words.sync32(Sync32::LockFlags);
        let found = flags.load(Ordering::Relaxed);
        if found & LOCK_POISONED != 0 {
            self.repair_registry();
            flags.store(found & !LOCK_POISONED, Ordering::Relaxed);
        }
        Ok(())
    }

    fn try_lock(&self) -> Result<(), Option<ProcessKey>> {
        let owner = self.words.sync64(Sync64::LockOwner);
        // Acquire: pairs with the release of `unlock`.
        owner.compare_exchange(0, self.key.word(), Ordering::Acquire).map(drop).map_err(ProcessKey::from_word)
    }

    /// Takes the lock from `holder` if that is dead. That the exchange finds its key proves that nobody had the lock in
    /// between: a dead process stores nothing (L-own).
    fn take_over(&self, holder: ProcessKey) -> bool {
        // The own key is a leftover: no other thread of this process has the lock.
        if holder != self.key && self.host.liveness(holder, Place::Maintenance) != Liveness::Dead {
            return false;
        }
        let owner = self.words.sync64(Sync64::LockOwner);
        if P::TAKEOVER_BY_EXCHANGE {
            // AcqRel: pairs with whatever the dead holder released, and with the acquire of the next one.
            if owner.compare_exchange(holder.word(), self.key.word(), Ordering::AcqRel).is_err() {
                return false;
            }
        } else {
            owner.store(self.key.word(), Ordering::Release);
        }
        // Relaxed: as in `lock`. If we die before the repair is done, the next holder finds it poisoned or us dead.
        let flags = self.words.sync32(Sync32::LockFlags);
        flags.store(flags.load(Ordering::Relaxed) | LOCK_POISONED, Ordering::Relaxed);
        crash::at(Point::LockTakeover);
        self.host.count(Counter::LockTakeovers, 1);
        self.host.audit(AuditEvent::LockTakenOver { from: holder });
        true
    }

    fn unlock(&self) {
        // Release: pairs with the acquire of the next holder.
        self.words.sync64(Sync64::LockOwner).store(0, Ordering::Release);
        self.host.release(Place::Maintenance);
        event::wake::<P, _>(self.words.sync32(Sync32::LockWake), self.words.sync32(Sync32::LockWaiters));
    }

    /// Completes what a dead holder left half done: rows between two states become FREE, masks follow the rows.
    pub(super) fn repair_registry(&self) {
        for row in self.rows(u32::MAX) {
            let reg = self.reg(row);
            match reg.state() {
                Some(RowState::Leaving) => self.remove_row(row, reg.epoch()),
                Some(RowState::Joining) | None => self.free_row(row, reg.epoch()),
                Some(RowState::Active) => {
                    self.set_bit(Sync32::ActiveMask, row);
                    self.clear_bit(Sync32::EvictedMask, row);
                }
                Some(RowState::Evicted) => {
                    self.set_bit(Sync32::ActiveMask, row);
                    self.set_bit(Sync32::EvictedMask, row);
                }
                Some(RowState::Free) => {
                    self.clear_bit(Sync32::ActiveMask, row);
                    self.clear_bit(Sync32::EvictedMask, row);
                }
            }
        }
    }

    /// Gives a row back; nobody reads under it any more.
    pub(super) fn free_row(&self, row: Row, epoch: u64) {
        // Release: pairs with the acquiring loads of the writer's scan.
        self.words.row64(row, Row64::Claim).store(Claim::NONE.0, Ordering::Release);
        self.clear_bit(Sync32::ActiveMask, row);
        self.clear_bit(Sync32::EvictedMask, row);
        self.words.row64(row, Row64::Owner).store(0, Ordering::Release);
        crash::at(Point::LeaveFree);
        self.words.row64(row, Row64::Reg).store(Reg::new(epoch, RowState::Free).0, Ordering::Release);
        // Relaxed: a count of changes, made under the lock.
        self.words.sync64(Sync64::RegistryEpoch).fetch_add(1, Ordering::Relaxed);
    }
}

/// Knows in debug builds whether the calling thread is at work under the maintenance lock of some block, which is no place
/// to take a user's lock from (DH-148).
#[cfg(all(debug_assertions, not(loom)))]
pub(crate) mod order {
    use std::cell::Cell;

    thread_local! {
        static INSIDE: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) struct Inside;

    impl Inside {
        pub(super) fn enter() -> Self {
            INSIDE.set(true);
            Self
        }
    }

    impl Drop for Inside {
        fn drop(&mut self) {
            INSIDE.set(false);
        }
    }

    /// Whether a user's lock must not be taken now.
    pub(crate) fn is_inside() -> bool {
        INSIDE.get()
    }
}

/// Knows nothing.
#[cfg(not(all(debug_assertions, not(loom))))]
pub(crate) mod order {
    pub(super) struct Inside;

    impl Inside {
        pub(super) fn enter() -> Self {
            Self
        }
    }

    /// Never said to be wrong.
    #[cfg(not(loom))]
    pub(crate) fn is_inside() -> bool {
        false
    }
}
