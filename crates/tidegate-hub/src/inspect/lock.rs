//! Locks: the writer's right, the maintenance lock, the spinlocks.

use std::{mem::offset_of, time::Duration};

use serde::Serialize;

use super::{
    Inspector, Owner,
    owner::millis,
    picture::{Lock, text},
};
use crate::{
    block::registry::Place,
    layout::{LOCK_ALLOCATED, LOCK_POISONED, LOCK_SYSTEM, pages::LockRecord},
    metrics::as_text,
};

/// What kind of lock it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LockKind {
    /// The right to write the block.
    Writer,
    /// Guards membership and repair.
    Maintenance,
    /// For zones and for users.
    Spinlock,
}

impl LockKind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Maintenance => "maintenance",
            Self::Spinlock => "spinlock",
        }
    }
}

/// One lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LockInfo {
    /// What kind of lock it is.
    pub kind: LockKind,
    /// Number in the lock table.
    pub index: Option<u32>,
    /// What it is for.
    pub label: String,
    /// Who has it.
    pub owner: Option<Owner>,
    /// How often its owner has it.
    pub depth: u32,
    /// Since when its owner has it.
    #[serde(rename = "held_ms", serialize_with = "millis")]
    pub held: Option<Duration>,
    /// How often it was taken.
    #[serde(serialize_with = "as_text")]
    pub generation: u64,
    /// Not for users.
    pub system: bool,
    /// A holder died; what it protects may be half-written.
    pub poisoned: bool,
}

impl LockInfo {
    /// Whether its owner is dead.
    pub fn is_dead(&self) -> bool {
        self.owner.is_some_and(|owner| owner.is_dead())
    }
}

impl Inspector {
    /// The writer's right, the maintenance lock, and every spinlock that is in use.
    pub fn list_locks(&self) -> Vec<LockInfo> {
        let mut locks = vec![self.writer_lock(), self.maintenance_lock()];
        locks.extend((0..self.views().locks.rows()).filter_map(|index| self.spinlock(index)));
        locks
    }

    fn writer_lock(&self) -> LockInfo {
        let control = self.control();
        let owner = self.owner(control.writer_owner, Place::Writer);
        LockInfo {
            kind: LockKind::Writer,
            index: None,
            label: String::new(),
            owner,
            depth: 0,
            held: owner.and_then(|_| self.age(control.writer_attached_ns)),
            generation: control.writer_epoch,
            system: false,
            poisoned: false,
        }
    }

    pub(crate) fn maintenance_lock(&self) -> LockInfo {
        let lock = self.maintenance_words();
        let owner = self.owner(lock.owner, Place::Maintenance);
        LockInfo {
            kind: LockKind::Maintenance,
            index: None,
            label: String::new(),
            owner,
            depth: 0,
            held: owner.and_then(|_| self.age(lock.acquired_ns)),
            generation: lock.generation,
            system: false,
            poisoned: lock.flags & LOCK_POISONED != 0,
        }
    }

    pub(super) fn maintenance_words(&self) -> Lock {
        // The maintenance lock is the first record of the sync page, which is a table of one record here.
        let sync = self.descriptor().geometry.sync().offset;
        let record = self.block().region().record::<{ size_of::<LockRecord>() }>(sync);
        record.map(|record| Lock::load(record.row())).unwrap_or_default()
    }

    /// The spinlock `index`, if it is in use.
    pub fn spinlock(&self, index: u32) -> Option<LockInfo> {
        let row = self.views().locks.row(index)?;
        let lock = Lock::load(row);
        let owner = self.owner(lock.owner, Place::Lock(index));
        let zone = self.zone_of_lock(index);
        let unused_system = lock.flags & LOCK_SYSTEM != 0 && zone.is_none();
        if owner.is_none() && (lock.flags & LOCK_ALLOCATED == 0 || unused_system) {
            return None;
        }
        let label = text(row.bytes::<{ offset_of!(LockRecord, label) }, 16>());
        Some(LockInfo {
            kind: LockKind::Spinlock,
            index: Some(index),
            label: if label.is_empty() { zone.map_or(label, |zone| format!("zone:{zone}")) } else { label },
            owner,
            depth: lock.recursion,
            held: owner.and_then(|_| self.age(lock.acquired_ns)),
            generation: lock.generation,
            system: lock.flags & LOCK_SYSTEM != 0,
            poisoned: lock.flags & LOCK_POISONED != 0,
        })
    }

    fn zone_of_lock(&self, index: u32) -> Option<&str> {
        let zones = &self.descriptor().spec.zones;
        zones.iter().find(|zone| zone.lock == Some(index)).map(|zone| zone.name.as_str())
    }
}
