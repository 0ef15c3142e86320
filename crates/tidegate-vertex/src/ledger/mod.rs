//! What has been processed, durably: the generations of the partitions and how far each has come (chapter 12).
//!
//! A cursor record says that everything of a partition below its resume position is final and confirmed by the sinks. All
//! partitions that have moved and the states of the sinks become durable in one transaction, so after a crash sinks can go back
//! to exactly what the positions cover.
//!
//! # Invariants
//!
//! - A generation is durable before the first write made under it, and larger than all before (VX-701, I3).
//! - Records of a partition form a chain: each names the epoch before it. A record that cannot be read, or is missing, stops
//!   the vertex; nothing older is taken instead (VX-770).
//! - The resume position of a partition never goes back.

mod record;
mod store;

use std::path::PathBuf;

use thiserror::Error;
use tidegate_shm::lock::LockError;
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};

pub use record::{Cursor, RecordError};
pub use store::{Disk, Key, Store};

use crate::sink::Token;

/// Why there is no ledger, or nothing could be added to it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The directory cannot be made.
    #[error("cannot make the ledger's directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process runs on it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The database failed. Nothing is tried again on it; start the vertex anew (VX-776).
    #[error("the ledger cannot be read or written")]
    Store(#[source] Box<redb::Error>),
    /// A record is damaged or missing.
    #[error(
        "the ledger's record of partition {partition}, epoch {epoch}: {fault}; restore the ledger from a copy"
    )]
    Record {
        /// The partition.
        partition: PartitionId,
        /// The epoch.
        epoch: EpochId,
        /// What is wrong.
        fault: RecordError,
    },
    /// A number that is not eight bytes long.
    #[error("the ledger's {what} is damaged; restore the ledger from a copy")]
    Damaged {
        /// Which number.
        what: &'static str,
    },
    /// Made for another pipeline.
    #[error(
        "the ledger is of pipeline {found:016x}, not {expected:016x}; give each pipeline a ledger.path of its own"
    )]
    OtherPipeline {
        /// Whose it is.
        found: u64,
        /// Whose it has to be.
        expected: u64,
    },
    /// A partition got too many generations.
    #[error("partition {partition} has used up all generations")]
    NoGeneration {
        /// The partition.
        partition: PartitionId,
    },
}

/// How far a partition has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// The generation of this session.
    pub generation: Generation,
    /// The last epoch that was committed; 0 is none.
    pub epoch: EpochId,
    /// Position of the next record to read.
    pub resume: Position,
}

/// The ledger of one pipeline.
#[derive(Debug)]
pub struct Ledger<S> {
    store: S,
    uid: u64,
}

/// A partition that has moved.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// The partition.
    pub partition: PartitionId,
    /// Under which generation, after which epoch; the position to go on from.
    pub at: Owned,
}

impl<S: Store> Ledger<S> {
    /// Opens the ledger of pipeline `uid`, which becomes its owner for good when it is new.
    ///
    /// # Errors
    /// [`LedgerError::OtherPipeline`], or the store failed.
    pub fn open(mut store: S, uid: u64) -> Result<Self, LedgerError> {
        match number(store.read(&Key::Uid)?, "pipeline uid")? {
            None => store.commit(&[(Key::Uid, uid.to_be_bytes().to_vec())])?,
            Some(found) if found != uid => return Err(LedgerError::OtherPipeline { found, expected: uid }),
            Some(_) => {}
        }
        Ok(Self { store, uid })
    }

    /// Begins a session of a partition: a new generation, and where the last one came to.
    ///
    /// # Errors
    /// A record is damaged or missing, or the store failed.
    pub fn acquire(&mut self, partition: PartitionId) -> Result<Owned, LedgerError> {
        let last = number(self.store.read(&Key::Generation(partition))?, "generation")?.unwrap_or(0);
        let head = number(self.store.read(&Key::Head(partition))?, "head")?.map(EpochId);
        let cursor = head.map(|epoch| self.cursor(partition, epoch)).transpose()?;
        let newest = last.max(cursor.map_or(0, |cursor| cursor.generation.0));
        let generation = newest.checked_add(1).filter(|&next| next < 1 << 63);
        let generation = Generation(generation.ok_or(LedgerError::NoGeneration { partition })?);
        self.store.commit(&[(Key::Generation(partition), generation.0.to_be_bytes().to_vec())])?;
        Ok(Owned {
            generation,
            epoch: head.unwrap_or_default(),
            resume: cursor.map_or(Position(0), |cursor| cursor.resume),
        })
    }

    /// State of the sink of this name at the last commit; `None` when it is new.
    ///
    /// # Errors
    /// The store failed.
    pub fn sink(&self, name: &str) -> Result<Option<Token>, LedgerError> {
        Ok(self.store.read(&Key::Sink(name.to_owned()))?.map(Token))
    }

    /// Makes durable how far partitions have come and the state of the sinks, all of it or nothing. Returns the epoch that each
    /// partition has now, in order.
    ///
    /// # Errors
    /// The store failed; the ledger must not be used any more.
    pub fn commit(
        &mut self,
        moved: &[Progress],
        sinks: &[(&str, Token)],
    ) -> Result<Vec<EpochId>, LedgerError> {
        let mut writes = Vec::with_capacity(2 * moved.len() + sinks.len());
        let mut epochs = Vec::with_capacity(moved.len());
        for Progress { partition, at } in moved {
            let epoch = EpochId(at.epoch.0 + 1);
            let cursor = Cursor {
                uid: self.uid,
                partition: *partition,
                generation: at.generation,
                epoch,
                previous: at.epoch,
                resume: at.resume,
            };
            writes.push((Key::Commit(*partition, epoch), cursor.encode()));
            writes.push((Key::Head(*partition), epoch.0.to_be_bytes().to_vec()));
            epochs.push(epoch);
        }
        for (name, token) in sinks {
            writes.push((Key::Sink((*name).to_owned()), token.0.clone()));
        }
        self.store.commit(&writes)?;
        Ok(epochs)
    }

    /// The record of an epoch, checked, and whether the one before it is there.
    fn cursor(&self, partition: PartitionId, epoch: EpochId) -> Result<Cursor, LedgerError> {
        let damaged = |fault| LedgerError::Record { partition, epoch, fault };
        let bytes = self.store.read(&Key::Commit(partition, epoch))?.ok_or(damaged(RecordError::Missing))?;
        let cursor = Cursor::decode(&bytes).map_err(damaged)?;
        if (cursor.uid, cursor.partition, cursor.epoch) != (self.uid, partition, epoch) {
            return Err(damaged(RecordError::Misplaced));
        }
        let first = cursor.previous == EpochId(0);
        if !first && self.store.read(&Key::Commit(partition, cursor.previous))?.is_none() {
            return Err(damaged(RecordError::BrokenChain { previous: cursor.previous }));
        }
        Ok(cursor)
    }
}

/// A number as it is stored: eight bytes, so that keys and values sort.
fn number(bytes: Option<Vec<u8>>, what: &'static str) -> Result<Option<u64>, LedgerError> {
    let Some(bytes) = bytes else { return Ok(None) };
    let bytes = <[u8; 8]>::try_from(bytes).map_err(|_| LedgerError::Damaged { what })?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests;
