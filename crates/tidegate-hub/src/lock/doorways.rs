//! The doorways of this process: one for each lock of each block, shared by all attachments of the block.

use std::sync::{Arc, Mutex, Weak};

use tidegate_shm::fork::ForkGuard;

use crate::{
    core::spinlock::Doorway,
    layout::{BlockUuid, LOCKS},
};

/// The doorways of one block.
#[derive(Debug, Default)]
pub(super) struct Doorways([Doorway; LOCKS as usize]);

impl Doorways {
    pub(super) fn of_lock(&self, index: u32) -> Option<&Doorway> {
        self.0.get(index as usize)
    }
}

/// What a forked child finds here under another number belongs to its parent.
struct Entry {
    process: u64,
    uuid: BlockUuid,
    doorways: Weak<Doorways>,
}

/// The doorways of the block `uuid` in this process.
pub(super) fn of(uuid: &BlockUuid, process: ForkGuard) -> Arc<Doorways> {
    static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
    // No operation leaves the list half changed.
    let mut entries = ENTRIES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    entries.retain(|entry| entry.doorways.strong_count() > 0);
    let process = process.process();
    let known = entries.iter().find(|entry| entry.process == process && entry.uuid == *uuid);
    if let Some(doorways) = known.and_then(|entry| entry.doorways.upgrade()) {
        return doorways;
    }
    let doorways = Arc::default();
    entries.push(Entry { process, uuid: *uuid, doorways: Arc::downgrade(&doorways) });
    doorways
}
