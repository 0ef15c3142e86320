//! Where the ledger keeps its bytes: a few tables in one redb file, behind a trait so that the ledger can be tested against
//! every crash.

use std::{fs, path::Path};

use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use tidegate_shm::lock::DirLock;
use tidegate_udf::wire::ids::{EpochId, PartitionId};

use super::LedgerError;

/// What a value is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The pipeline.
    Uid,
    /// The last generation of a partition.
    Generation(PartitionId),
    /// The last committed epoch of a partition.
    Head(PartitionId),
    /// The record of an epoch.
    Commit(PartitionId, EpochId),
    /// The state of a sink.
    Sink(String),
}

/// Values by key, changed in transactions.
pub trait Store {
    /// The value of a key.
    ///
    /// # Errors
    /// The store failed.
    fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, LedgerError>;

    /// Makes all of the writes durable, or none of them, before it returns.
    ///
    /// # Errors
    /// The store failed; it must not be used any more.
    fn commit(&mut self, writes: &[(Key, Vec<u8>)]) -> Result<(), LedgerError>;
}

/// A redb file in a directory of its own that one process at a time may use.
#[derive(Debug)]
pub struct Disk {
    database: Database,
    /// Released by the death of the process (VX-702).
    _lock: DirLock,
}

impl Disk {
    /// Opens the ledger in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// Another process has it, and which one; or the database cannot be opened.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        fs::create_dir_all(dir).map_err(|source| LedgerError::Directory { path: dir.to_owned(), source })?;
        let lock = DirLock::acquire(&dir.join("lock"))?;
        let database = Database::create(dir.join("ledger.redb")).map_err(failed)?;
        Ok(Self { database, _lock: lock })
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

    fn commit(&mut self, writes: &[(Key, Vec<u8>)]) -> Result<(), LedgerError> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        for (key, value) in writes {
            let (table, key) = key.place();
            let mut table = transaction.open_table(table).map_err(failed)?;
            table.insert(key.as_slice(), value.as_slice()).map_err(failed)?;
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
            Self::Sink(name) => (TableDefinition::new("sink"), name.as_bytes().to_vec()),
        }
    }
}

fn failed(error: impl Into<redb::Error>) -> LedgerError {
    LedgerError::Store(Box::new(error.into()))
}
