//! Who has a partition (10.1).
//!
//! | manager | who decides | a partition is free |
//! |---|---|---|
//! | [`Static`] | the lock of the ledger: this process has all partitions | when the process is gone |
//! | [`InProc`] | another part of this process | at once |
//! | `nats::own::JetStream` | a bucket of JetStream KV | when its lease ran out, or it was given away |
//!
//! The first two have no leases: death is what the kernel says, and memory of one process needs no clock. They keep no commits
//! either: what the ledger says holds. A store that does is the authority, and the ledger follows it (I9). The order of giving a
//! partition away is the vertex's: nothing of a session runs any more before [`Manager::release`] (VX-704).

use std::{collections::BTreeMap, error::Error, str::FromStr};

use tidegate_shm::sync::{Arc, Mutex, MutexGuard};
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};

use crate::{
    fence::{Fenced, Reason, WriteGuard},
    ledger::Record,
    operate::Wish,
    sink::Token,
    source::Resume,
};

/// Decides which vertex has a partition (VX-700).
pub trait Manager: Send + Sync {
    /// Claims a partition of which this host knows `known`: the new session, whose generation is larger than every known one, or
    /// `None` when the partition is not this vertex's now. `nonce` tells the session from every other of the same generation.
    ///
    /// # Errors
    /// The partition must not be run before an operator has looked at it (VX-714).
    fn acquire(&self, partition: PartitionId, nonce: u64, known: &Known) -> Result<Option<Claimed>, Refused>;

    /// The session may write from now on; its guard is what a revoke changes.
    fn begun(&self, partition: PartitionId, guard: &WriteGuard);

    /// Makes a decision durable where ownership is kept: the commit point of an epoch, or which epoch is about to become visible.
    ///
    /// # Errors
    /// The session is over; what was decided holds only if it was over afterwards.
    fn decide(&self, partition: PartitionId, decision: Decision, guard: &WriteGuard) -> Result<(), Fenced> {
        let _ = (partition, decision, guard);
        Ok(())
    }

    /// Whether commits are kept where ownership is, and are the authority over those in the ledger.
    fn keeps_commits(&self) -> bool {
        false
    }

    /// The session is over and none of its writes runs any more.
    fn release(&self, partition: PartitionId, generation: Generation);

    /// What is wanted of a partition, beside what an operator said to this vertex.
    fn wish(&self, partition: PartitionId) -> Wish {
        let _ = partition;
        Wish::Run
    }

    /// Says whether this vertex does without a partition, since an operator has drained it here or it must not be run here: nobody
    /// is to leave it to this vertex then.
    fn declines(&self, partition: PartitionId, declines: bool) {
        let _ = (partition, declines);
    }

    /// Calls `tell` whenever a partition may be claimed or was revoked; `tell` does not wait.
    fn watch(&self, tell: Arc<dyn Fn() + Send + Sync>);

    /// Whether a partition that was lost may come back.
    fn gives_back(&self) -> bool;

    /// Whether partitions that this vertex does not have are looked after, so that it claims one when it may.
    fn is_watching(&self) -> bool {
        self.gives_back()
    }

    /// The vertex ends and has released what it had.
    fn leave(&self) {}
}

/// What this host knows of a partition from its own ledger and sinks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The newest generation that has written.
    pub generation: Generation,
    /// The last commit in the ledger.
    pub committed: Option<Committed>,
    /// The epoch that is prepared in the ledger.
    pub prepared: Option<Intended>,
    /// When the store was made that ownership was kept in, in nanoseconds since 1970.
    pub store: Option<i128>,
}

/// A session that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its generation.
    pub generation: Generation,
    /// What the store says about the partition, when commits are kept there.
    pub authority: Option<Authority>,
}

/// What the store says about a partition, as the claim of this session has written it (VX-715).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The last epoch that counts.
    pub committed: Option<Committed>,
    /// The epoch that was about to become visible.
    pub intended: Option<Intended>,
    /// When the store was made, in nanoseconds since 1970.
    pub store: i128,
}

/// A committed epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its number.
    pub epoch: EpochId,
    /// Whose it was.
    pub generation: Generation,
    /// What tells it from every other epoch of that number (VX-773).
    pub digest: u128,
    /// Where to read on.
    pub resume: Resume,
    /// States of the sinks for the partition, by name.
    pub tokens: Vec<(String, Token)>,
}

/// An epoch that is about to become visible: exactly these inputs (VX-763).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intended {
    /// Whose it is.
    pub generation: Generation,
    /// Its number.
    pub epoch: EpochId,
    /// Position of its first input.
    pub first: Position,
    /// Position of its last input.
    pub last: Position,
    /// Inputs.
    pub count: u64,
}

/// What becomes durable in one write of the store (VX-765).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// This epoch is committed.
    pub commit: Option<Committed>,
    /// This one is next.
    pub intent: Option<Intended>,
}

/// A partition that must not be run before an operator has looked at it.
#[derive(Debug, thiserror::Error)]
#[error("partition {partition} is not run: {source}")]
pub struct Refused {
    /// The partition.
    pub partition: PartitionId,
    /// Why.
    pub source: Box<dyn Error + Send + Sync>,
}

impl Intended {
    /// The inputs of a record, for its own generation.
    pub fn of(record: &Record) -> Self {
        let Record { generation, epoch, range, counts, .. } = record;
        Self {
            generation: *generation,
            epoch: *epoch,
            first: range.first,
            last: range.last,
            count: counts.inputs,
        }
    }
}

impl Known {
    /// The last committed epoch; 0 is none.
    pub fn epoch(&self) -> EpochId {
        self.committed.as_ref().map_or(EpochId(0), |committed| committed.epoch)
    }
}

/// Partitions by number: `0-3,7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    text: String,
    ranges: Vec<(u32, u32)>,
}

impl Pins {
    /// Whether a partition is among them.
    pub fn has(&self, partition: PartitionId) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&partition.0))
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl FromStr for Pins {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = |part: &str| match part.split_once('-') {
            Some((first, last)) => Ok((first.trim().parse()?, last.trim().parse()?)),
            None => part.trim().parse().map(|only| (only, only)),
        };
        let ranges = text.split(',').map(range).collect::<Result<_, Self::Err>>()?;
        Ok(Self { text: text.to_owned(), ranges })
    }
}

/// All partitions belong to the process that has the ledger's lock (VX-702).
#[derive(Debug, Clone, Copy, Default)]
pub struct Static;

impl Manager for Static {
    fn acquire(&self, _: PartitionId, _: u64, known: &Known) -> Result<Option<Claimed>, Refused> {
        // A partition that was lost is lost for this process.
        Ok(known.generation.0.checked_add(1).map(|next| claimed(Generation(next))))
    }

    fn begun(&self, _: PartitionId, _: &WriteGuard) {}

    fn release(&self, _: PartitionId, _: Generation) {}

    fn watch(&self, _: Arc<dyn Fn() + Send + Sync>) {}

    fn gives_back(&self) -> bool {
        false
    }
}

/// A session of which nobody but the ledger knows more.
fn claimed(generation: Generation) -> Claimed {
    Claimed { generation, authority: None }
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
    fn acquire(&self, partition: PartitionId, _: u64, known: &Known) -> Result<Option<Claimed>, Refused> {
        let mut table = self.shared.lock();
        let entry = table.entry(partition).or_default();
        if entry.wanted != Some(self.number) || entry.held.is_some() {
            return Ok(None);
        }
        let Some(next) = entry.newest.max(known.generation).0.checked_add(1) else { return Ok(None) };
        entry.newest = Generation(next);
        entry.held = Some((self.number, None));
        Ok(Some(claimed(entry.newest)))
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
