//! Removing old epochs (15.7).

use std::collections::BTreeSet;

use tidegate_shm::clock::Nanos;
use tidegate_shm::process::pid_is_alive;
use tidegate_shm::region::{Access, DirError, RegionDir};

use super::create::warn_unless_missing;
use super::{HEADER_FILE, MAX_ENTRIES, POOL_SUFFIX, RegionStore, epoch_of, stream_component};
use crate::config::Policies;
use crate::ids::{Epoch, StreamId};
use crate::layout::{MAGIC, SUPERBLOCK_LEN, Superblock};

/// What protects an epoch that is neither current nor leased.
#[derive(Debug, Clone, Copy)]
pub struct CollectPolicy {
    /// How many of the highest epochs stay, whatever their numbers are (TP-279).
    pub keep: usize,
    /// Younger epochs stay.
    pub min_age: Nanos,
}

impl CollectPolicy {
    /// As configured.
    #[must_use]
    pub fn new(policies: &Policies) -> Self {
        Self {
            keep: usize::try_from(policies.epoch_gc_keep).unwrap_or(usize::MAX),
            min_age: policies.epoch_gc_min_age.into(),
        }
    }
}

/// Now, on both clocks: superblocks carry the monotonic one, directories the other.
#[derive(Debug, Clone, Copy)]
pub struct CollectTime {
    /// CLOCK_MONOTONIC.
    pub monotonic: Nanos,
    /// CLOCK_REALTIME.
    pub realtime: Nanos,
}

impl RegionStore {
    /// Removes the epochs of `stream` that nobody can need any more and returns how many (TP-278 to TP-280).
    /// `protected` are the current epoch and those with active leases.
    pub fn collect(
        &self,
        stream: StreamId,
        protected: &BTreeSet<Epoch>,
        policy: CollectPolicy,
        now: CollectTime,
    ) -> usize {
        let Ok(dir) = self.root.open_dir(&stream_component(stream)) else { return 0 };
        let mut collected = 0;
        for epoch in epochs(&dir).into_iter().rev().skip(policy.keep) {
            if protected.contains(&epoch) {
                continue;
            }
            let Ok(epoch_dir) = dir.open_dir(&epoch.to_string()) else { continue };
            if is_abandoned(&epoch_dir, policy.min_age, now) {
                collected += usize::from(remove(&dir, &epoch_dir, epoch));
            }
        }
        collected
    }

    /// Removes all epochs of `stream` that this process or a dead one made, for the end of their owner (TP-071).
    pub fn remove_stream(&self, stream: StreamId) {
        let name = stream_component(stream);
        let Ok(dir) = self.root.open_dir(&name) else { return };
        for epoch in epochs(&dir) {
            let Ok(epoch_dir) = dir.open_dir(&epoch.to_string()) else { continue };
            if superblock(&epoch_dir).is_none_or(|superblock| is_ownerless(&superblock)) {
                remove(&dir, &epoch_dir, epoch);
            }
        }
        // Only goes when it is empty.
        let _ = self.root.remove_dir(&name);
    }
}

/// The epoch directories, rising.
fn epochs(dir: &RegionDir) -> BTreeSet<Epoch> {
    let Ok(entries) = dir.list() else { return BTreeSet::new() };
    entries.take(MAX_ENTRIES).filter_map(|entry| epoch_of(&entry.ok()?.name)).collect()
}

fn is_abandoned(dir: &RegionDir, min_age: Nanos, now: CollectTime) -> bool {
    match superblock(dir) {
        Some(superblock) => {
            let activity = Nanos(superblock.activity_timestamp_ns);
            // A time far in the future is from before a reboot (TP-143).
            let is_old = now.monotonic.saturating_sub(activity) > min_age
                || activity.saturating_sub(now.monotonic) > min_age;
            is_old && is_ownerless(&superblock)
        }
        None => {
            let changed = dir.metadata().map(|metadata| metadata.modified);
            changed.is_ok_and(|changed| now.realtime.saturating_sub(changed) > min_age)
        }
    }
}

/// The owner's own pid counts as dead: it has no use for old epochs.
fn is_ownerless(superblock: &Superblock) -> bool {
    let own = u64::from(std::process::id());
    superblock.pid == own || !u32::try_from(superblock.pid).is_ok_and(pid_is_alive)
}

fn superblock(dir: &RegionDir) -> Option<Superblock> {
    let file = dir.open_file(HEADER_FILE, Access::ReadOnly).ok()?;
    let mut bytes = [0; SUPERBLOCK_LEN];
    file.read_at(0, &mut bytes).ok()?;
    Some(Superblock::decode(&bytes)).filter(|superblock| superblock.magic == MAGIC)
}

/// Unlinks region files and then the directory, which stays when anything else is in it.
fn remove(stream_dir: &RegionDir, dir: &RegionDir, epoch: Epoch) -> bool {
    let Ok(entries) = dir.list() else { return false };
    let names: Vec<_> = entries.take(MAX_ENTRIES).filter_map(|entry| Some(entry.ok()?.name)).collect();
    for name in names.iter().filter_map(|name| name.to_str()) {
        if name == HEADER_FILE || name.ends_with(POOL_SUFFIX) {
            warn_unless_missing(dir.remove_file(name));
        }
    }
    match stream_dir.remove_dir(&epoch.to_string()) {
        Ok(()) | Err(DirError::Missing { .. }) => true,
        Err(error) => {
            tracing::debug!(%error, "an old epoch directory stays: it holds foreign files");
            false
        }
    }
}
