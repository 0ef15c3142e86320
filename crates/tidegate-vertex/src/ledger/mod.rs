//! What has been processed, durably: the generations of the partitions and how far each has come (chapter 12).
//!
//! A record that is COMMITTED says that everything of a partition below its resume position is final and confirmed by the
//! sinks. One that is PREPARED is no progress: it says what an epoch is, with all its outputs, before any sink sees a byte of
//! it, so that after a crash exactly this is finished (VX-767). What became due at one moment becomes durable in one
//! transaction, with the states of the sinks, so after a crash sinks can go back to exactly what the positions cover.
//!
//! # Invariants
//!
//! - A generation is durable before the first write made under it, and larger than all before (VX-701, I3).
//! - Records of a partition form a chain: each names the epoch before it. A record that cannot be read, or is missing, stops
//!   the vertex; nothing older is taken instead (VX-770).
//! - The resume position of a partition never goes back.
//! - At most one epoch of a partition is PREPARED, and it is the one behind the committed (VX-763).

mod begin;
mod bytes;
mod inspect;
mod outbox;
mod record;
mod store;
mod takeover;

use std::path::PathBuf;

use thiserror::Error;
use tidegate_shm::lock::LockError;
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};

pub use inspect::inspect;
pub use record::{Counts, Range, Record, RecordError, SinkPart, Status};
pub use store::{Disk, Key, Store, Transaction};
pub use takeover::{TakeoverError, take_over};

use crate::{
    failpoint::Point,
    own::Intended,
    sink::{Class, Output, Token},
    source::Resume,
};

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
    /// A file system that may give the lock to two hosts (VX-702).
    #[error(
        "{path} is on a network file system, which may lend the lock to another host; put ledger.path on a local disk"
    )]
    Remote {
        /// The directory.
        path: PathBuf,
    },
    /// The file is gone.
    #[error(
        "the ledger {path} is gone: nobody knows what has been processed; restore it, or run once with --new-ledger (or remove \
         {mark}) to begin anew with everything"
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// The mark that says that there was one.
        mark: PathBuf,
    },
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
    /// An epoch that was prepared has outputs for a sink that the pipeline does not have any more.
    #[error(
        "epoch {epoch} of partition {partition} was prepared with a sink {sink:?}, which the pipeline file does not have; put \
         it back until that epoch is committed"
    )]
    SinkGone {
        /// The partition.
        partition: PartitionId,
        /// The epoch.
        epoch: EpochId,
        /// The sink.
        sink: String,
    },
    /// There is no generation for a new session.
    #[error("partition {partition} was given no generation above {newest}, which has written already")]
    NoGeneration {
        /// The partition.
        partition: PartitionId,
        /// The newest.
        newest: Generation,
    },
}

/// A session of a partition, and how far the partition has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The generation of this session.
    pub generation: Generation,
    /// Random, so that sessions with the same generation differ (VX-705).
    pub nonce: u64,
    /// The last epoch that was committed; 0 is none.
    pub epoch: EpochId,
    /// Where to read on; `None` before the first commit.
    pub resume: Option<Resume>,
    /// States of the sinks for this partition at that commit, by name.
    pub tokens: Vec<(String, Token)>,
    /// An epoch that was decided and may be visible in part.
    pub prepared: Option<Prepared>,
    /// What the next epoch has to be, and the store has to be told before anything becomes visible.
    pub intended: Option<Intended>,
    /// Inputs that were tried before (VX-602).
    pub marks: Vec<Mark>,
    /// Runs in a row before this one that ended without saying so and came no further than where they began (VX-604).
    pub fell: u32,
}

/// An epoch that is decided, with its outputs for each sink of its record, in that order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// What it is.
    pub record: Record,
    /// The outputs.
    pub outputs: Vec<Vec<Output>>,
}

/// How often an input failed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The input.
    pub position: Position,
    /// How often the function failed on it.
    pub failures: u32,
    /// How often a worker died or hung on it.
    pub crashes: u32,
}

/// The ledger of one pipeline.
#[derive(Debug)]
pub struct Ledger<S> {
    store: S,
    uid: u64,
}

impl<S: Store> Ledger<S> {
    /// Opens the ledger of pipeline `uid`, which becomes its owner for good when it is new.
    ///
    /// # Errors
    /// [`LedgerError::OtherPipeline`], or the store failed.
    pub fn open(mut store: S, uid: u64) -> Result<Self, LedgerError> {
        match numbers::<1>(store.read(&Key::Uid)?, "pipeline uid")? {
            None => {
                let mut transaction = Transaction::default();
                transaction.put(Key::Uid, uid.to_be_bytes().to_vec());
                store.commit(&transaction)?;
            }
            Some([found]) if found != uid => {
                return Err(LedgerError::OtherPipeline { found, expected: uid });
            }
            Some(_) => {}
        }
        Ok(Self { store, uid })
    }

    /// Number of the pipeline.
    pub fn uid(&self) -> u64 {
        self.uid
    }

    /// The partitions that a session was begun of, in their order; not every one from 0 on need be among them.
    ///
    /// # Errors
    /// The store failed.
    pub fn partitions(&self) -> Result<Vec<PartitionId>, LedgerError> {
        self.store.partitions()
    }

    /// State of the sink of this name at the last commit; `None` when it is new.
    ///
    /// # Errors
    /// The store failed.
    pub fn sink(&self, name: &str) -> Result<Option<Token>, LedgerError> {
        Ok(self.store.read(&Key::Sink(name.to_owned()))?.map(Token))
    }

    /// Adds the state of a sink as a whole.
    pub fn put_sink(&self, name: &str, token: &Token, transaction: &mut Transaction) {
        transaction.put(Key::Sink(name.to_owned()), token.0.clone());
    }

    /// Adds that the run of a partition ends in order (VX-604).
    pub fn put_stopped(&self, partition: PartitionId, transaction: &mut Transaction) {
        transaction.remove(Key::Running(partition));
    }

    /// Adds how often inputs were tried; those in `over` have an outcome.
    pub fn put_marks(
        &self,
        partition: PartitionId,
        marks: &[Mark],
        over: &[Position],
        transaction: &mut Transaction,
    ) {
        for &position in over {
            transaction.remove(Key::Attempt(partition, position));
        }
        for Mark { position, failures, crashes } in marks {
            let counts = u64::from(*failures) << 32 | u64::from(*crashes);
            transaction.put(Key::Attempt(partition, *position), counts.to_be_bytes().to_vec());
        }
    }

    /// Adds the decision that an epoch is exactly this: `outputs` for each sink, with its name and class. Returns the record.
    ///
    /// # Errors
    /// The store failed.
    pub fn persist(
        &self,
        mut record: Record,
        outputs: &[(&str, Class, &[Output])],
        transaction: &mut Transaction,
    ) -> Result<Record, LedgerError> {
        let (partition, epoch) = (record.partition, record.epoch);
        record.status = Status::Prepared;
        record.sinks.clear();
        for (number, (name, class, outputs)) in (0u32..).zip(outputs) {
            let (part, bytes) = outbox::encode(name, *class, outputs);
            for (chunk, bytes) in (0u32..).zip(bytes.chunks(outbox::CHUNK)) {
                transaction.put(Key::Outbox(partition, epoch, number, chunk), bytes.to_vec());
            }
            record.sinks.push(part);
        }
        transaction.put(Key::Commit(partition, epoch), record.encode());
        let head = Head { prepared: epoch, ..self.head_after(partition, transaction)? };
        transaction.put(Key::Head(partition), head.encode());
        transaction.steps.push(Point::InPersist);
        Ok(record)
    }

    /// Adds that an epoch which was persisted is confirmed by every sink; `record` has the tokens.
    ///
    /// # Errors
    /// What is prepared is another epoch than this (VX-773), or the store failed.
    pub fn commit_prepared(
        &self,
        record: &Record,
        now_ms: i64,
        transaction: &mut Transaction,
    ) -> Result<(), LedgerError> {
        let (partition, epoch) = (record.partition, record.epoch);
        let stored = self.record(partition, epoch, Status::Prepared)?;
        if stored.digest() != record.digest() {
            return Err(LedgerError::Record { partition, epoch, fault: RecordError::Digest });
        }
        for (number, sink) in (0u32..).zip(&record.sinks) {
            for chunk in 0..sink.chunks {
                transaction.remove(Key::Outbox(partition, epoch, number, chunk));
            }
        }
        self.put_committed(record, now_ms, transaction)
    }

    /// Adds that everything up to the end of an epoch is confirmed; for epochs that were delivered batch by batch (VX-762).
    ///
    /// # Errors
    /// The store failed.
    pub fn commit_cursor(
        &self,
        record: &Record,
        now_ms: i64,
        transaction: &mut Transaction,
    ) -> Result<(), LedgerError> {
        self.put_committed(record, now_ms, transaction)
    }

    /// Makes a transaction durable.
    ///
    /// # Errors
    /// The store failed; the ledger must not be used any more (VX-776).
    pub fn run(&mut self, transaction: &Transaction) -> Result<(), LedgerError> {
        self.store.commit(transaction)
    }

    fn put_committed(
        &self,
        record: &Record,
        now_ms: i64,
        transaction: &mut Transaction,
    ) -> Result<(), LedgerError> {
        let (partition, epoch) = (record.partition, record.epoch);
        let record = Record { status: Status::Committed, committed_ms: now_ms, ..record.clone() };
        transaction.put(Key::Commit(partition, epoch), record.encode());
        let head = self.head(partition)?;
        let oldest = self.prune(partition, head.oldest, epoch, now_ms, transaction)?;
        let head = Head { committed: epoch, prepared: EpochId(0), oldest };
        transaction.put(Key::Head(partition), head.encode());
        transaction.steps.push(Point::InCommit);
        Ok(())
    }

    /// Removes records that are old and behind many newer ones, a few at a time (VX-772). Returns the oldest that stays.
    fn prune(
        &self,
        partition: PartitionId,
        oldest: EpochId,
        newest: EpochId,
        now_ms: i64,
        transaction: &mut Transaction,
    ) -> Result<EpochId, LedgerError> {
        let mut oldest = EpochId(oldest.0.max(1));
        for _ in 0..PRUNE_AT_ONCE {
            if newest.0.saturating_sub(oldest.0) <= KEEP_RECORDS {
                break;
            }
            // Epochs of other owners have no record here.
            if self.has(&Key::Commit(partition, oldest))? {
                let record = self.record(partition, oldest, Status::Committed)?;
                if now_ms.saturating_sub(record.committed_ms) <= KEEP_MS {
                    break;
                }
                transaction.remove(Key::Commit(partition, oldest));
            }
            oldest.0 += 1;
        }
        Ok(oldest)
    }

    fn head(&self, partition: PartitionId) -> Result<Head, LedgerError> {
        Head::decode(self.store.read(&Key::Head(partition))?)
    }

    /// The head as a transaction leaves it.
    fn head_after(&self, partition: PartitionId, changes: &Transaction) -> Result<Head, LedgerError> {
        let changed = changes.writes.iter().rev().find(|(key, _)| *key == Key::Head(partition));
        match changed {
            Some((_, value)) => Head::decode(value.clone()),
            None => self.head(partition),
        }
    }

    /// The record of an epoch, checked, and whether the one before it is there.
    fn record(&self, partition: PartitionId, epoch: EpochId, status: Status) -> Result<Record, LedgerError> {
        let damaged = |fault| LedgerError::Record { partition, epoch, fault };
        let bytes = self.store.read(&Key::Commit(partition, epoch))?.ok_or(damaged(RecordError::Missing))?;
        let record = Record::decode(&bytes).map_err(damaged)?;
        if (record.uid, record.partition, record.epoch) != (self.uid, partition, epoch) {
            return Err(damaged(RecordError::Misplaced));
        }
        if record.status.is_committed() != status.is_committed() {
            return Err(damaged(RecordError::Status));
        }
        if matches!(record.status, Status::TakenOver { .. }) {
            // What was before it is with its owner.
            return Ok(record);
        }
        let previous = record.previous;
        let follows = previous.0 + 1 == epoch.0;
        let pruned = previous < self.head(partition)?.oldest;
        let there = pruned || previous == EpochId(0) || self.has(&Key::Commit(partition, previous))?;
        if !follows || !there {
            return Err(damaged(RecordError::BrokenChain { previous }));
        }
        Ok(record)
    }

    fn has(&self, key: &Key) -> Result<bool, LedgerError> {
        Ok(self.store.read(key)?.is_some())
    }

    /// An epoch that was prepared, with its outputs.
    fn prepared(&self, partition: PartitionId, epoch: EpochId) -> Result<Prepared, LedgerError> {
        let damaged = |fault| LedgerError::Record { partition, epoch, fault };
        let record = self.record(partition, epoch, Status::Prepared)?;
        let committed = self.head(partition)?.committed;
        if record.previous != committed {
            return Err(damaged(RecordError::BrokenChain { previous: committed }));
        }
        let mut outputs = Vec::new();
        for (number, part) in (0u32..).zip(&record.sinks) {
            let mut bytes = Vec::new();
            for chunk in 0..part.chunks {
                let chunk = self.store.read(&Key::Outbox(partition, epoch, number, chunk))?;
                bytes.extend(chunk.ok_or(damaged(RecordError::Outbox))?);
            }
            outputs.push(outbox::decode(part, &bytes).map_err(damaged)?);
        }
        Ok(Prepared { record, outputs })
    }
}

/// The epochs of a partition; 0 is none.
#[derive(Debug, Clone, Copy)]
struct Head {
    committed: EpochId,
    prepared: EpochId,
    oldest: EpochId,
}

impl Head {
    fn decode(bytes: Option<Vec<u8>>) -> Result<Self, LedgerError> {
        let [committed, prepared, oldest] = numbers::<3>(bytes, "head")?.unwrap_or_default().map(EpochId);
        Ok(Self { committed, prepared, oldest })
    }

    fn encode(&self) -> Vec<u8> {
        [self.committed, self.prepared, self.oldest].iter().flat_map(|epoch| epoch.0.to_be_bytes()).collect()
    }
}

/// Numbers as they are stored: eight bytes each, so that keys and values sort.
fn numbers<const N: usize>(
    bytes: Option<Vec<u8>>,
    what: &'static str,
) -> Result<Option<[u64; N]>, LedgerError> {
    let Some(bytes) = bytes else { return Ok(None) };
    let (words, rest) = bytes.as_chunks::<8>();
    let words = <[[u8; 8]; N]>::try_from(words).ok().filter(|_| rest.is_empty());
    Ok(Some(words.ok_or(LedgerError::Damaged { what })?.map(u64::from_be_bytes)))
}

/// Wall clock in milliseconds, for people.
pub(crate) fn wall_ms() -> i64 {
    i64::try_from(tidegate_shm::clock::realtime_now().0 / 1_000_000).unwrap_or(i64::MAX)
}

/// Records of a partition that are kept however old they are, and for how long they are kept however many there are.
const KEEP_RECORDS: u64 = 10_000;
const KEEP_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// Twice as many as are added.
const PRUNE_AT_ONCE: u32 = 2;

#[cfg(test)]
mod begin_tests;
#[cfg(test)]
mod tests;
