//! Who has a partition (10.1).
//!
//! | manager | who decides | a partition is free |
//! |---|---|---|
//! | [`Static`] | the lock of the ledger: this process has all partitions | when the process is gone |
//! | [`InProc`] | another part of this process | at once |
//!
//! Neither has leases: death is what the kernel says, and memory of one process needs no clock. The order of giving a partition
//! away is the vertex's: nothing of a session runs any more before [`Manager::release`] (VX-704).

use std::collections::BTreeMap;

use tidegate_shm::sync::{Arc, Mutex, MutexGuard};
use tidegate_udf::wire::ids::{Generation, PartitionId};

use crate::fence::{Reason, WriteGuard};

/// Decides which vertex has a partition (VX-700).
pub trait Manager: Send + Sync {
    /// Claims a partition whose newest known generation is `newest`: the generation of the new session, larger than that, or
    /// `None` when the partition is not this vertex's now.
    fn acquire(&self, partition: PartitionId, newest: Generation) -> Option<Generation>;

    /// The session may write from now on; its guard is what a revoke changes.
    fn begun(&self, partition: PartitionId, guard: &WriteGuard);

    /// The session is over and none of its writes runs any more.
    fn release(&self, partition: PartitionId, generation: Generation);

    /// Calls `tell` whenever a partition may be claimed or was revoked; `tell` does not wait.
    fn watch(&self, tell: Arc<dyn Fn() + Send + Sync>);

    /// Whether a partition that was lost may come back.
    fn gives_back(&self) -> bool;
}

/// All partitions belong to the process that has the ledger's lock (VX-702).
#[derive(Debug, Clone, Copy, Default)]
pub struct Static;

impl Manager for Static {
    fn acquire(&self, _: PartitionId, newest: Generation) -> Option<Generation> {
        // A partition that was lost is lost for this process.
        newest.0.checked_add(1).map(Generation)
    }

    fn begun(&self, _: PartitionId, _: &WriteGuard) {}

    fn release(&self, _: PartitionId, _: Generation) {}

    fn watch(&self, _: Arc<dyn Fn() + Send + Sync>) {}

    fn gives_back(&self) -> bool {
        false
    }
}

/// Ownership decided by the process itself, for tests and for several vertices in one process (VX-703). Clones are the same
/// manager; each vertex gets its own [`InProc::member`].
#[derive(Debug, Clone, Default)]
pub struct InProc {
    table: Arc<Mutex<BTreeMap<PartitionId, Entry>>>,
}

/// What is known of a partition.
#[derive(Debug, Default)]
struct Entry {
    /// The member that may have it.
    wanted: Option<u32>,
    /// The member that has it, and its guard once it may write.
    held: Option<(u32, Option<WriteGuard>)>,
    newest: Generation,
    watchers: Vec<(u32, Watcher)>,
}

#[derive(Clone)]
struct Watcher(Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

impl InProc {
    /// The manager as member number `number` of `partitions` partitions sees it.
    pub fn member(&self, number: u32, partitions: u32) -> Member {
        Member { shared: self.clone(), number, partitions }
    }

    /// From now on only this member may have the partition. Whoever has it loses it, now; what it has under way may still end.
    pub fn assign(&self, partition: PartitionId, member: Option<u32>) {
        let watchers = {
            let mut table = self.lock();
            let entry = table.entry(partition).or_default();
            entry.wanted = member;
            if let Some((holder, Some(guard))) = &entry.held
                && Some(*holder) != member
            {
                guard.revoke(Reason::RevokedByManager);
            }
            entry.watchers.clone()
        };
        tell(&watchers);
    }

    /// Takes the partition from whoever has it; it may claim it again, under a new generation.
    pub fn revoke(&self, partition: PartitionId) {
        let watchers = {
            let mut table = self.lock();
            let entry = table.entry(partition).or_default();
            if let Some((_, Some(guard))) = &entry.held {
                guard.revoke(Reason::RevokedByManager);
            }
            entry.watchers.clone()
        };
        tell(&watchers);
    }

    /// The member that has the partition and may write, and its generation.
    pub fn holder(&self, partition: PartitionId) -> Option<(u32, Generation)> {
        let table = self.lock();
        let (member, guard) = table.get(&partition)?.held.as_ref()?;
        let guard = guard.as_ref().filter(|guard| !guard.is_revoked())?;
        Some((*member, guard.generation()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Entry>> {
        // The table is whole at every moment, whoever panicked with the lock.
        self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Outside of the lock: a watcher may look at the table.
fn tell(watchers: &[(u32, Watcher)]) {
    for (_, watcher) in watchers {
        (watcher.0)();
    }
}

/// One vertex of an [`InProc`].
#[derive(Debug, Clone)]
pub struct Member {
    shared: InProc,
    number: u32,
    partitions: u32,
}

impl Manager for Member {
    fn acquire(&self, partition: PartitionId, newest: Generation) -> Option<Generation> {
        let mut table = self.shared.lock();
        let entry = table.entry(partition).or_default();
        if entry.wanted != Some(self.number) || entry.held.is_some() {
            return None;
        }
        entry.newest = Generation(entry.newest.max(newest).0.checked_add(1)?);
        entry.held = Some((self.number, None));
        Some(entry.newest)
    }

    fn begun(&self, partition: PartitionId, guard: &WriteGuard) {
        let mut table = self.shared.lock();
        let entry = table.entry(partition).or_default();
        if entry.wanted != Some(self.number) {
            guard.revoke(Reason::RevokedByManager);
        }
        entry.held = Some((self.number, Some(guard.clone())));
    }

    fn release(&self, partition: PartitionId, generation: Generation) {
        let watchers = {
            let mut table = self.shared.lock();
            let entry = table.entry(partition).or_default();
            // The session of a claim that failed before it could write has no guard.
            let is_mine = entry.held.as_ref().is_some_and(|(member, guard)| {
                *member == self.number && guard.as_ref().is_none_or(|guard| guard.generation() == generation)
            });
            if is_mine {
                entry.held = None;
            }
            entry.watchers.clone()
        };
        tell(&watchers);
    }

    fn watch(&self, tell: Arc<dyn Fn() + Send + Sync>) {
        let mut table = self.shared.lock();
        for partition in (0..self.partitions).map(PartitionId) {
            let watchers = &mut table.entry(partition).or_default().watchers;
            watchers.retain(|(member, _)| *member != self.number);
            watchers.push((self.number, Watcher(tell.clone())));
        }
    }

    fn gives_back(&self) -> bool {
        true
    }
}
