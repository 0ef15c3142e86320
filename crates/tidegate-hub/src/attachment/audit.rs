//! The audit ring: who repaired or took away what (18.5). Written under the maintenance lock.

use std::mem::offset_of;

use tidegate_shm::{
    clock::realtime_now,
    region::{AccessError, RecordMut, TableMut},
    sync::Ordering,
};

use crate::{
    block::Block,
    identity::ProcessKey,
    layout::pages::{AuditEntry, SyncPage},
};

/// Entries that are kept.
pub const ENTRIES: u32 = 32;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// A dead consumer was removed.
    Reap = 1,
    /// A consumer lost the right of its cursor.
    Evict = 2,
    /// Writing was taken over from a dead writer.
    Adopt = 3,
    /// Writing was taken over from a live writer.
    Seize = 4,
    /// A slot was reset: its id will never hold data.
    ResetSlot = 5,
    /// A lock was opened.
    Unlock = 6,
    /// A lock was taken from a dead holder.
    LockTakeover = 7,
    /// The consumer table was repaired.
    RegistryRepair = 8,
    /// A handover was finished or called off.
    Handover = 9,
    /// The counters were set to zero.
    MetricsReset = 10,
    /// The file was removed.
    Unlink = 11,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Who did it.
    pub actor: ProcessKey,
    /// What was done.
    pub operation: Operation,
    /// Whether force was used.
    pub forced: bool,
    /// Slot index, row, or lock.
    pub target: u64,
    /// Value before.
    pub before: u64,
    /// Value after.
    pub after: u64,
}

/// The ring of one block.
#[derive(Debug, Clone)]
pub struct AuditRing {
    sync: RecordMut<4096>,
    entries: TableMut<64>,
}

impl AuditRing {
    /// The ring of this block.
    ///
    /// # Errors
    /// The role may not write area S.
    pub fn new(block: &Block) -> Result<Self, AccessError> {
        let sync = block.descriptor().geometry.sync().offset;
        let entries = sync + offset_of!(SyncPage, audit) as u64;
        Ok(Self {
            sync: block.region().record_mut(sync)?,
            entries: block.region().table_mut(entries, ENTRIES)?,
        })
    }

    /// Writes an entry over the oldest. The caller holds the maintenance lock.
    pub fn write(&self, entry: &Entry) {
        let page = self.sync.row();
        let count = page.u64::<{ offset_of!(SyncPage, audit_seq) }>();
        // Relaxed, here and below: changed under the lock only.
        let sequence = count.load(Ordering::Relaxed);
        let Some(row) = self.entries.row((sequence % u64::from(ENTRIES)) as u32) else { return };
        row.u64::<{ offset_of!(AuditEntry, sequence) }>().store(sequence, Ordering::Relaxed);
        row.u64::<{ offset_of!(AuditEntry, realtime_ns) }>().store(realtime_now().0, Ordering::Relaxed);
        row.u64::<{ offset_of!(AuditEntry, actor) }>().store(entry.actor.word(), Ordering::Relaxed);
        row.u32::<{ offset_of!(AuditEntry, operation) }>().store(entry.operation as u32, Ordering::Relaxed);
        row.u32::<{ offset_of!(AuditEntry, flags) }>().store(entry.forced.into(), Ordering::Relaxed);
        row.u64::<{ offset_of!(AuditEntry, target) }>().store(entry.target, Ordering::Relaxed);
        row.u64::<{ offset_of!(AuditEntry, before) }>().store(entry.before, Ordering::Relaxed);
        row.u64::<{ offset_of!(AuditEntry, after) }>().store(entry.after, Ordering::Relaxed);
        // Release: pairs with the acquire of whoever lists the entries.
        count.store(sequence.wrapping_add(1), Ordering::Release);
    }
}
