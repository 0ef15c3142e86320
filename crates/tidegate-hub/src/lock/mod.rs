//! Shared locks of a block as its users have them (10.2, 10.3). The protocol is [`core::spinlock`](crate::core::spinlock).
//!
//! | lock | whose |
//! |---|---|
//! | 0 to 7 | the system's: those of zones, as the block's creator assigned them |
//! | 8 to 31 | users', by label ([`LockTable::alloc_lock`]), or of zones |
//!
//! A lock is exclusive, recursive for the thread that has it, and not fair: who could starve should send messages instead.
//! A holder that dies loses it, and until somebody has repaired what it guards, everybody who takes it is told
//! ([`LockOutcome::Recovered`]). A holder that lives is never deprived of it, however long it takes (DH-151).
//!
//! The library takes no user's lock on behalf of a caller while that holds another one or the maintenance lock (DH-148).

mod doorways;
mod error;
mod guard;

use std::{mem::offset_of, sync::Arc};

use tidegate_shm::{
    host::HostId,
    region::{RowMut, SharedU32Mut, SharedU64Mut, TableMut},
    sync::Ordering,
};

pub use error::LockError;
pub use guard::{LockGuard, LockOutcome};

use crate::{
    attachment::{ConsumerCore, Process, consumer_core},
    block::Block,
    config::{HubTimeouts, Timeout},
    core::{
        config::{Deadline, WaitStrategy},
        host::{AuditEvent, Counters, Host},
        lock::order,
        spinlock::{Entered, LockWords, Spinlock},
    },
    layout::{LOCK_ALLOCATED, LOCKS, NO_INDEX, SYSTEM_LOCKS, pages::LockRecord},
};
use doorways::Doorways;

/// Bytes of a label.
pub const LABEL_LEN: usize = 16;

/// The locks of one block.
#[derive(Debug)]
pub struct LockTable {
    core: ConsumerCore,
    records: TableMut<64>,
    doorways: Arc<Doorways>,
    timeouts: HubTimeouts,
}

impl LockTable {
    /// The locks of `block`, waited for in slices: [`Timeout::Default`] is `lock_acquire` of `timeouts`, and
    /// `maintenance_lock` where locks are looked up, made or freed.
    ///
    /// # Errors
    /// The role may not write area S; or this process lives in another pid or time namespace than the block's creator, so
    /// that nobody could tell whether it died with a lock.
    pub fn new(block: &Arc<Block>, timeouts: &HubTimeouts) -> Result<Self, LockError> {
        let here = HostId::current().map_err(|source| LockError::Kernel { source })?;
        if here != block.descriptor().host {
            return Err(LockError::ForeignNamespace);
        }
        let core = consumer_core(block, WaitStrategy::Hybrid, timeouts.timing())?;
        let records = block.region().table_mut(block.descriptor().geometry.locks().offset, LOCKS)?;
        let doorways = doorways::of(&block.descriptor().uuid, block.region().guard());
        Ok(Self { core, records, doorways, timeouts: timeouts.clone() })
    }

    /// The block.
    pub fn block(&self) -> &Arc<Block> {
        self.core.host().block()
    }

    /// The lock with this label, which becomes a lock of users if there is none yet (DH-143). Labels have 1 to 16 bytes
    /// and no zeros.
    ///
    /// # Errors
    /// All are taken, the label is none, or the maintenance lock was not to be had.
    pub fn alloc_lock(&self, label: &str, timeout: Timeout) -> Result<SharedLock<'_>, LockError> {
        let wanted = label_bytes(label)?;
        self.check()?;
        let found = self.core.locked(self.maintenance(timeout), || {
            Ok(self.labelled(&wanted).or_else(|| {
                let (index, record) = self.user_locks().find(|(_, record)| !is_allocated(record))?;
                write_label(record, &wanted);
                // Relaxed: no zone has it; released by the flags.
                record.u32::<{ offset_of!(LockRecord, zone_index) }>().store(NO_INDEX, Ordering::Relaxed);
                // Release: pairs with the acquire of `check_label`; who sees the flag sees the label.
                flags(&record).store(LOCK_ALLOCATED, Ordering::Release);
                Some(index)
            }))
        })?;
        let index = found.ok_or(LockError::NoLockAvailable)?;
        Ok(SharedLock { table: self, index, label: Some(wanted) })
    }

    /// The lock with this label, if there is one.
    ///
    /// # Errors
    /// The label is none, or the maintenance lock was not to be had.
    pub fn find_lock(&self, label: &str, timeout: Timeout) -> Result<Option<SharedLock<'_>>, LockError> {
        let wanted = label_bytes(label)?;
        self.check()?;
        let found = self.core.locked(self.maintenance(timeout), || Ok(self.labelled(&wanted)))?;
        Ok(found.map(|index| SharedLock { table: self, index, label: Some(wanted) }))
    }

    /// The lock of a zone, if it has one.
    pub fn of_zone(&self, zone: usize) -> Option<SharedLock<'_>> {
        let index = self.block().descriptor().spec.zones.get(zone)?.lock.filter(|index| *index < LOCKS)?;
        Some(SharedLock { table: self, index, label: None })
    }

    /// Makes a labelled lock available to others again, whose holder the caller is (DH-143). Whoever still waits for it is
    /// told that it is gone.
    ///
    /// # Errors
    /// It is the lock of a zone, it is held more than once, or the maintenance lock was not to be had; it is held no more
    /// in all cases.
    pub fn free_lock(&self, guard: LockGuard<'_>, timeout: Timeout) -> Result<(), LockError> {
        let lock = guard.lock();
        if lock.label.is_none() {
            return Err(LockError::NotUsers { index: lock.index });
        }
        if guard.depth() > 1 {
            return Err(LockError::HeldDeeper { index: lock.index, depth: guard.depth() });
        }
        self.check()?;
        self.core.locked(self.maintenance(timeout), || {
            if let Some(record) = lock.table.records.row(lock.index) {
                // Relaxed: others look at it under the lock, or with the label.
                flags(&record).store(0, Ordering::Relaxed);
                write_label(record, &[0; LABEL_LEN]);
            }
            Ok(())
        })?;
        guard.release()
    }

    fn maintenance(&self, timeout: Timeout) -> Deadline {
        timeout.deadline(self.timeouts.maintenance_lock)
    }

    fn check(&self) -> Result<(), LockError> {
        debug_assert!(!order::is_inside(), "DH-148: under the maintenance lock no other one is taken");
        Ok(self.block().check()?)
    }

    fn user_locks(&self) -> impl Iterator<Item = (u32, RowMut<'_, 64>)> {
        (SYSTEM_LOCKS..LOCKS).filter_map(|index| Some((index, self.records.row(index)?)))
    }

    /// To be called under the maintenance lock.
    fn labelled(&self, wanted: &[u8; LABEL_LEN]) -> Option<u32> {
        let mut locks = self.user_locks();
        locks.find(|(_, record)| is_allocated(record) && label_of(record) == *wanted).map(|(index, _)| index)
    }
}

/// One lock of a block.
#[derive(Debug, Clone, Copy)]
pub struct SharedLock<'t> {
    table: &'t LockTable,
    index: u32,
    /// None for the lock of a zone.
    label: Option<[u8; LABEL_LEN]>,
}

impl<'t> SharedLock<'t> {
    /// Number of the lock.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Takes the lock; a thread that has it gets it once more (DH-144).
    ///
    /// # Errors
    /// [`LockError::Timeout`] when the time is over, whoever has it (DH-151); the lock was freed.
    pub fn acquire(&self, timeout: Timeout) -> Result<LockOutcome<'t>, LockError> {
        self.table.check()?;
        let deadline = timeout.deadline(self.table.timeouts.lock_acquire);
        let entered = self.spinlock()?.acquire(deadline).map_err(|error| LockError::of(self.index, error))?;
        let guard = LockGuard::new(*self);
        self.note_takeover(entered);
        // The guard gives the lock back.
        self.check_label()?;
        Ok(if entered.poisoned { LockOutcome::Recovered(guard) } else { LockOutcome::Acquired(guard) })
    }

    pub(crate) fn spinlock(
        &self,
    ) -> Result<Spinlock<'t, SharedU64Mut<'t>, SharedU32Mut<'t>, Process>, LockError> {
        let LockTable { core, records, doorways, timeouts } = self.table;
        let missing = || LockError::NotUsers { index: self.index };
        let record = records.row(self.index).ok_or_else(missing)?;
        let doorway = doorways.of_lock(self.index).ok_or_else(missing)?;
        Ok(Spinlock::new(
            words(record),
            doorway,
            core.host(),
            self.index,
            core.key(),
            WaitStrategy::Hybrid,
            timeouts.timing(),
        ))
    }

    /// A takeover goes into the audit ring, which is written under the maintenance lock.
    fn note_takeover(&self, entered: Entered) {
        let Some(from) = entered.taken_from else { return };
        let core = &self.table.core;
        let deadline =
            Deadline::At(core.host().now().saturating_add(self.table.timeouts.timing().probe_every));
        let noted = core.locked(deadline, || {
            core.host().audit(AuditEvent::SpinlockTakenOver { lock: self.index, from });
            Ok(())
        });
        if let Err(error) = noted {
            tracing::warn!(lock = self.index, %from, %error, "lock taken over; no room in the audit ring for it");
        }
    }

    /// A labelled lock may have been freed, and given to others, before it was taken.
    fn check_label(&self) -> Result<(), LockError> {
        let Some(label) = self.label else { return Ok(()) };
        let freed = LockError::Freed { index: self.index };
        let record = self.table.records.row(self.index).ok_or(LockError::Freed { index: self.index })?;
        if is_allocated(&record) && label_of(&record) == label { Ok(()) } else { Err(freed) }
    }
}

fn words(record: RowMut<'_, 64>) -> LockWords<SharedU64Mut<'_>, SharedU32Mut<'_>> {
    LockWords {
        owner: record.u64::<{ offset_of!(LockRecord, owner) }>(),
        generation: record.u64::<{ offset_of!(LockRecord, generation) }>(),
        acquired_ns: record.u64::<{ offset_of!(LockRecord, acquired_ns) }>(),
        owner_thread: record.u32::<{ offset_of!(LockRecord, owner_thread) }>(),
        recursion: record.u32::<{ offset_of!(LockRecord, recursion) }>(),
        wake_seq: record.u32::<{ offset_of!(LockRecord, wake_seq) }>(),
        waiters: record.u32::<{ offset_of!(LockRecord, waiters) }>(),
        flags: flags(&record),
    }
}

fn flags<'t>(record: &RowMut<'t, 64>) -> SharedU32Mut<'t> {
    record.u32::<{ offset_of!(LockRecord, flags) }>()
}

fn is_allocated(record: &RowMut<'_, 64>) -> bool {
    // Acquire: pairs with the release of `alloc_lock`.
    flags(record).load(Ordering::Acquire) & LOCK_ALLOCATED != 0
}

fn label_of(record: &RowMut<'_, 64>) -> [u8; LABEL_LEN] {
    let mut label = [0; LABEL_LEN];
    // The lengths are equal.
    let _ = record.bytes::<{ offset_of!(LockRecord, label) }, LABEL_LEN>().copy_to(&mut label);
    label
}

fn write_label(record: RowMut<'_, 64>, label: &[u8; LABEL_LEN]) {
    // The lengths are equal.
    let _ = record.bytes::<{ offset_of!(LockRecord, label) }, LABEL_LEN>().copy_from(label);
}

fn label_bytes(label: &str) -> Result<[u8; LABEL_LEN], LockError> {
    let mut bytes = [0; LABEL_LEN];
    let place = bytes.get_mut(..label.len()).filter(|_| !label.is_empty() && !label.contains('\0'));
    place.ok_or(LockError::BadLabel { len: label.len() })?.copy_from_slice(label.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{
        block::{CreateOptions, create},
        integrity::test_spec,
        layout::DigestAlg,
    };

    /// Debug builds notice.
    ///
    /// Rules: DH-148, N-27.
    #[test]
    fn no_lock_is_taken_under_the_maintenance_lock() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let options = CreateOptions { dir: dir.path().to_owned(), ..CreateOptions::default() };
        let block = Arc::new(create(&test_spec(DigestAlg::None), &options).unwrap());
        let table = LockTable::new(&block, &HubTimeouts::default()).unwrap();
        let lock = table.alloc_lock("mine", Timeout::Immediate).unwrap();
        let taken = || catch_unwind(AssertUnwindSafe(|| lock.acquire(Timeout::Immediate).is_ok()));
        assert!(taken().is_ok_and(|taken| taken));
        let inside = table.core.locked(Deadline::Immediate, || Ok(taken())).unwrap();
        assert_eq!(inside.is_err(), cfg!(debug_assertions), "nobody noticed");
        assert!(taken().is_ok_and(|taken| taken), "afterwards it is allowed again");
    }
}
