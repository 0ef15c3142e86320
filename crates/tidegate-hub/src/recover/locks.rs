//! Spinlocks whose owners are dead (10.3), or by force any.

use std::mem::offset_of;

use tidegate_shm::{doorbell::BellWord, sync::Ordering};

use super::{RecoverError, Recovery, Step, TAINT_UNLOCKED};
use crate::{
    attachment::audit::Operation,
    block::registry::Place,
    inspect::{LockInfo, LockKind, Owner},
    layout::{LOCK_POISONED, pages::LockRecord},
};

impl Recovery {
    /// Frees a lock whose owner is dead, with force any, and marks it poisoned: what it protects may be half-written.
    ///
    /// # Errors
    /// The owner may live and force was not allowed, or nobody has the lock.
    pub fn unlock(&self, lock: u32, force: bool) -> Result<Step, RecoverError> {
        let info = self.inspector.spinlock(lock);
        let held = info.as_ref().and_then(|info| info.owner);
        let owner = held.ok_or(RecoverError::NotStuck { what: "nobody has that lock" })?;
        if !owner.is_dead() && !force {
            return Err(RecoverError::LockAlive { lock, owner: owner.key });
        }
        let forced = !owner.is_dead();
        let freed = self.core.under_lock(self.deadline(), || self.free(lock, owner, forced))??;
        if !freed {
            return Err(RecoverError::NotStuck { what: "the lock changed hands meanwhile" });
        }
        if forced {
            self.taint(TAINT_UNLOCKED)?;
        }
        self.count(1, forced);
        let label = info.map_or_else(String::new, |info| info.label);
        let object =
            if label.is_empty() { format!("spinlock {lock}") } else { format!("spinlock {lock} ({label})") };
        let step = Step::new(object, "released, marked poisoned", format!("pid {}", owner.key.pid()));
        Ok(self.told(step.between(&owner.key, &"free").by_force(forced)))
    }

    /// Frees every lock whose owner is dead, with force every lock. Returns what was freed, and what was left to whom.
    ///
    /// # Errors
    /// The maintenance lock cannot be had.
    pub fn force_unlock_all(&self, force: bool) -> Result<(Vec<Step>, Vec<LockInfo>), RecoverError> {
        let (mut freed, mut skipped) = (Vec::new(), Vec::new());
        let locks = self.inspector.list_locks().into_iter().filter(|lock| lock.kind == LockKind::Spinlock);
        for lock in locks.filter(|lock| lock.owner.is_some()) {
            let Some(index) = lock.index else { continue };
            match self.unlock(index, force) {
                Ok(step) => freed.push(step),
                Err(RecoverError::LockAlive { .. }) => skipped.push(lock),
                Err(RecoverError::NotStuck { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((freed, skipped))
    }

    /// Takes the lock from `owner` and lets it go. False if it is not that owner's any more.
    fn free(&self, lock: u32, owner: Owner, forced: bool) -> Result<bool, RecoverError> {
        let locks = self.block.consumer_views()?.locks;
        let Some(row) = locks.row(lock) else { return Ok(false) };
        let own = self.block.own_key();
        let held = self.block.hold(Place::Lock(lock));
        let word = row.u64::<{ offset_of!(LockRecord, owner) }>();
        // AcqRel: pairs with whatever the owner released. That it finds the key proves that a dead owner still had it.
        let taken = held && word.compare_exchange(owner.key.word(), own.word(), Ordering::AcqRel).is_ok();
        if taken {
            // Relaxed, each: the store of the owner below releases them.
            row.u32::<{ offset_of!(LockRecord, owner_thread) }>().store(0, Ordering::Relaxed);
            row.u32::<{ offset_of!(LockRecord, recursion) }>().store(0, Ordering::Relaxed);
            row.u64::<{ offset_of!(LockRecord, generation) }>().fetch_add(1, Ordering::Relaxed);
            row.u32::<{ offset_of!(LockRecord, flags) }>().fetch_or(LOCK_POISONED, Ordering::Relaxed);
            self.audit(Operation::Unlock, forced, lock.into(), owner.key.word(), 0);
            // Release: pairs with the acquiring exchange of the next owner.
            word.store(0, Ordering::Release);
            let bell = row.u32::<{ offset_of!(LockRecord, wake_seq) }>();
            // AcqRel: pairs with the load of a waiter before it sleeps.
            bell.fetch_add(1, Ordering::AcqRel);
            bell.wake_all();
        }
        if held {
            self.block.release(Place::Lock(lock));
        }
        Ok(taken)
    }
}
