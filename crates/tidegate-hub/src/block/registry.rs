//! What this process itself has attached, so that it can tell its own entries in a block from leftovers.
//!
//! A program that replaces itself by `exec` keeps its pid and start time, hence its [`ProcessKey`](crate::identity::ProcessKey),
//! but has lost its mappings. Its own key in a block is a right of this program only if this registry knows the place
//! (DH-038). A place is noted before the key is stored there, and forgotten after it was removed.

use std::sync::{Mutex, MutexGuard};

use tidegate_shm::fork::ForkGuard;

pub use crate::identity::Place;
use crate::layout::BlockUuid;

/// A place that this process holds, until dropped.
#[derive(Debug)]
pub struct Holding {
    entry: Entry,
}

impl Holding {
    /// Notes that this process is about to take `place` in the block `uuid`. `None` when it has it already: a second
    /// writer in one process is refused like one in another (DH-039).
    pub fn take(uuid: &BlockUuid, place: Place, process: ForkGuard) -> Option<Self> {
        let entry = Entry { process: process.process(), uuid: *uuid, place };
        // Only what was inserted may be removed when dropped.
        insert(entry).then(|| Self { entry })
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        remove(self.entry);
    }
}

/// As [`Holding::take`], for a place that is given back with [`release`]. False when this process has it already.
pub fn hold(uuid: &BlockUuid, place: Place, process: ForkGuard) -> bool {
    insert(Entry { process: process.process(), uuid: *uuid, place })
}

/// Notes that this process does not hold `place` any more.
pub fn release(uuid: &BlockUuid, place: Place, process: ForkGuard) {
    remove(Entry { process: process.process(), uuid: *uuid, place });
}

/// Whether this process holds `place` in the block `uuid`. If it does not, its own key there is that of an earlier
/// program (DH-038).
pub fn is_held(uuid: &BlockUuid, place: Place, process: ForkGuard) -> bool {
    entries().contains(&Entry { process: process.process(), uuid: *uuid, place })
}

/// What a forked child finds here under another number belongs to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    process: u64,
    uuid: BlockUuid,
    place: Place,
}

fn insert(entry: Entry) -> bool {
    let mut entries = entries();
    let is_new = !entries.contains(&entry);
    if is_new {
        entries.push(entry);
    }
    is_new
}

fn remove(entry: Entry) {
    entries().retain(|other| *other != entry);
}

fn entries() -> MutexGuard<'static, Vec<Entry>> {
    static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
    // No operation leaves the list half changed.
    ENTRIES.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: DH-038, DH-039.
    #[test]
    fn a_place_is_held_once_until_it_is_dropped() {
        let guard = ForkGuard::new().unwrap();
        let [a, b] = [1, 2].map(|byte| BlockUuid::new([byte; 16]).unwrap());
        assert!(!is_held(&a, Place::Writer, guard), "a key found there would be a leftover");
        let holding = Holding::take(&a, Place::Writer, guard).unwrap();
        assert!(is_held(&a, Place::Writer, guard));
        assert!(Holding::take(&a, Place::Writer, guard).is_none());
        assert!(!is_held(&b, Place::Writer, guard) && !is_held(&a, Place::Row(0), guard));
        let row = Holding::take(&a, Place::Row(0), guard).unwrap();
        drop(holding);
        assert!(!is_held(&a, Place::Writer, guard) && is_held(&a, Place::Row(0), guard));
        assert!(Holding::take(&a, Place::Writer, guard).is_some());
        drop(row);
    }
}
