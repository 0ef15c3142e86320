//! Where the ledger keeps its bytes: a few tables in one redb file, behind a trait so that the ledger can be tested against
//! every crash.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use tidegate_shm::lock::DirLock;
use tidegate_udf::wire::ids::{EpochId, PartitionId, Position};

use super::LedgerError;
use crate::failpoint::{self, Point};

/// What a value is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The pipeline.
    Uid,
    /// The last session of a partition: generation and nonce.
    Generation(PartitionId),
    /// The last committed epoch of a partition, the prepared one, and the oldest that is kept.
    Head(PartitionId),
    /// The record of an epoch.
    Commit(PartitionId, EpochId),
    /// A chunk of an epoch's outputs for a sink, by the number of the sink in the record.
    Outbox(PartitionId, EpochId, u32, u32),
    /// How often an input was tried.
    Attempt(PartitionId, Position),
    /// A run of a partition that did not end in order: since when, where it began, and how many began there in a row.
    Running(PartitionId),
    /// The state of a sink.
    Sink(String),
    /// When the store was made that ownership of a partition is kept in.
    Store(PartitionId),
}

/// Changes that become durable together.
#[derive(Debug, Default)]
pub struct Transaction {
    /// New values; `None` removes.
    pub(super) writes: Vec<(Key, Option<Vec<u8>>)>,
    /// Steps that are passed before it is durable.
    pub(super) steps: Vec<Point>,
}

impl Transaction {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The changes.
    pub fn writes(&self) -> &[(Key, Option<Vec<u8>>)] {
        &self.writes
    }

    pub(super) fn put(&mut self, key: Key, value: Vec<u8>) {
        self.writes.push((key, Some(value)));
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.writes.push((key, None));
    }
}

/// Values by key, changed in transactions.
pub trait Store {
    /// The value of a key.
    ///
    /// # Errors
    /// The store failed.
    fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, LedgerError>;

    /// The partitions that have a [`Key::Generation`], in their order.
    ///
    /// # Errors
    /// The store failed.
    fn partitions(&self) -> Result<Vec<PartitionId>, LedgerError>;

    /// The values of all [`Key::Attempt`] of a partition.
    ///
    /// # Errors
    /// The store failed.
    fn attempts(&self, partition: PartitionId) -> Result<Vec<(Position, Vec<u8>)>, LedgerError>;

    /// Makes all of the changes durable, or none of them, before it returns.
    ///
    /// # Errors
    /// The store failed; it must not be used any more.
    fn commit(&mut self, transaction: &Transaction) -> Result<(), LedgerError>;
}

/// A redb file in a directory of its own that one process at a time may use.
#[derive(Debug)]
pub struct Disk {
    database: Database,
    path: PathBuf,
    /// Released by the death of the process (VX-702).
    _lock: DirLock,
}

impl Disk {
    /// Opens the ledger in `dir`, which is made if it is not there. One that was there and is gone is only made anew if `anew` says
    /// so.
    ///
    /// # Errors
    /// Another process has it, and which one; or the database cannot be opened.
    pub fn open(dir: &Path, anew: bool) -> Result<Self, LedgerError> {
        fs::create_dir_all(dir).map_err(|source| LedgerError::Directory { path: dir.to_owned(), source })?;
        if is_remote(dir).map_err(|source| LedgerError::Directory { path: dir.to_owned(), source })? {
            return Err(LedgerError::Remote { path: dir.to_owned() });
        }
        let lock = DirLock::acquire(&lock_path(dir))?;
        let (path, mark) = (dir.join("ledger.redb"), dir.join(MARK));
        if mark.exists() && !path.exists() {
            if anew {
                tracing::warn!(path = %path.display(), "a new ledger in the place of one that is gone: everything is read again");
            } else {
                return Err(LedgerError::Lost { path, mark });
            }
        }
        if !path.exists() {
            // Whole or not at all: a file that was begun and not finished cannot be opened by anybody.
            let new = dir.join(NEW);
            let begun = match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
            begun.map_err(|source| LedgerError::Directory { path: dir.to_owned(), source })?;
            drop(Database::create(&new).map_err(failed)?);
            let named = fs::rename(&new, &path);
            named.map_err(|source| LedgerError::Directory { path: dir.to_owned(), source })?;
        }
        let database = Database::create(&path).map_err(failed)?;
        let marked = File::create(&mark).and_then(|_| File::open(dir)?.sync_all());
        marked.map_err(|source| LedgerError::Directory { path: dir.to_owned(), source })?;
        Ok(Self { database, path, _lock: lock })
    }

    fn is_large(&self) -> Result<bool, LedgerError> {
        let metadata = fs::metadata(&self.path).map_err(|error| failed(redb::Error::Io(error)))?;
        Ok(metadata.len() > LARGE)
    }
}

impl Store for Disk {
    fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, LedgerError> {
        let (table, key) = key.place();
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = match transaction.open_table(table) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let value = table.get(key.as_slice()).map_err(failed)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn partitions(&self) -> Result<Vec<PartitionId>, LedgerError> {
        let (table, _) = Key::Generation(PartitionId(0)).place();
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = match transaction.open_table(table) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in table.range::<&[u8]>(..).map_err(failed)? {
            let (key, _) = entry.map_err(failed)?;
            let id = key.value().try_into().map(u32::from_be_bytes);
            found.push(PartitionId(id.map_err(|_| LedgerError::Damaged { what: "partition" })?));
        }
        Ok(found)
    }

    fn attempts(&self, partition: PartitionId) -> Result<Vec<(Position, Vec<u8>)>, LedgerError> {
        let (table, first) = Key::Attempt(partition, Position(0)).place();
        let (_, last) = Key::Attempt(partition, Position(u64::MAX)).place();
        let transaction = self.database.begin_read().map_err(failed)?;
        let table = match transaction.open_table(table) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in table.range(first.as_slice()..=last.as_slice()).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let position = key.value().last_chunk().map(|bytes| Position(u64::from_be_bytes(*bytes)));
            found.push((position.ok_or(LedgerError::Damaged { what: "attempt" })?, value.value().to_vec()));
        }
        Ok(found)
    }

    fn commit(&mut self, changes: &Transaction) -> Result<(), LedgerError> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        // A full repair after a crash walks the whole file (VX-777).
        transaction.set_quick_repair(self.is_large()?);
        for (key, value) in &changes.writes {
            let (table, key) = key.place();
            let mut table = transaction.open_table(table).map_err(failed)?;
            match value {
                Some(value) => drop(table.insert(key.as_slice(), value.as_slice()).map_err(failed)?),
                None => drop(table.remove(key.as_slice()).map_err(failed)?),
            }
        }
        for step in &changes.steps {
            failpoint::at(*step);
        }
        transaction.commit().map_err(failed)
    }
}

impl Key {
    /// The table, and the key in it: numbers in big-endian, so that they sort (VX-778).
    fn place(&self) -> (TableDefinition<'static, &'static [u8], &'static [u8]>, Vec<u8>) {
        match self {
            Self::Uid => (TableDefinition::new("meta"), b"uid".to_vec()),
            Self::Generation(partition) => {
                (TableDefinition::new("generation"), partition.0.to_be_bytes().to_vec())
            }
            Self::Head(partition) => (TableDefinition::new("head"), partition.0.to_be_bytes().to_vec()),
            Self::Commit(partition, epoch) => {
                let mut key = partition.0.to_be_bytes().to_vec();
                key.extend_from_slice(&epoch.0.to_be_bytes());
                (TableDefinition::new("commit"), key)
            }
            Self::Outbox(partition, epoch, sink, chunk) => {
                let mut key = partition.0.to_be_bytes().to_vec();
                key.extend_from_slice(&epoch.0.to_be_bytes());
                key.extend_from_slice(&sink.to_be_bytes());
                key.extend_from_slice(&chunk.to_be_bytes());
                (TableDefinition::new("outbox"), key)
            }
            Self::Attempt(partition, position) => {
                let mut key = partition.0.to_be_bytes().to_vec();
                key.extend_from_slice(&position.0.to_be_bytes());
                (TableDefinition::new("attempt"), key)
            }
            Self::Running(partition) => (TableDefinition::new("running"), partition.0.to_be_bytes().to_vec()),
            Self::Store(partition) => (TableDefinition::new("store"), partition.0.to_be_bytes().to_vec()),
            Self::Sink(name) => (TableDefinition::new("sink"), name.as_bytes().to_vec()),
        }
    }
}

/// The lock of the ledger in `dir`.
pub(super) fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// Whether a directory is on a file system that other hosts may have, too.
fn is_remote(dir: &Path) -> std::io::Result<bool> {
    let kind = rustix::fs::statfs(dir)?.f_type as u32;
    Ok(REMOTE.contains(&kind))
}

fn failed(error: impl Into<redb::Error>) -> LedgerError {
    LedgerError::Store(Box::new(error.into()))
}

/// Says that there was a ledger here: one that is gone is not begun anew by itself (VX-786).
const MARK: &str = "made";
/// The database before it is whole.
const NEW: &str = "ledger.new";
/// Bytes of a file from which on it is kept repaired.
const LARGE: u64 = 256 << 20;
/// Types of network file systems, as `linux/magic.h` has them: NFS, SMB, CIFS, SMB2, 9p, AFS, Coda, Ceph, GFS2, OCFS2, Lustre.
const REMOTE: &[u32] = &[
    0x6969,
    0x517B,
    0xFF53_4D42,
    0xFE53_4D42,
    0x0102_1997,
    0x5346_414F,
    0x7375_7245,
    0x00C3_6400,
    0x0116_1970,
    0x7461_636F,
    0x0BD0_0BD0,
];
