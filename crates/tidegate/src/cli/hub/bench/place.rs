//! The directory of a measurement.
//!
//! ```text
//! /dev/shm/tidegate.hub-bench-XXXXXX/
//!   .lock    held by the measuring process for as long as it lives
//!   ...      what its ends make
//! ```
//!
//! It is removed at the end. What a killed measurement leaves is found by `tidegate doctor`, by the free lock.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate::shm::lock::DirLock;

use crate::cli::bench::error::BenchError;

/// How the names of these directories begin.
pub(crate) const PREFIX: &str = "tidegate.hub-bench-";

/// Where blocks are by default.
const MEMORY: &str = "/dev/shm";

/// The lock file in the directory of a measurement.
pub(crate) fn lock_of(dir: &Path) -> PathBuf {
    dir.join(".lock")
}

/// The directory of this measurement, removed when dropped.
pub(super) struct OwnPlace {
    dir: TempDir,
    /// Released after the directory is gone.
    _lock: DirLock,
}

impl OwnPlace {
    pub(super) fn make() -> Result<Self, BenchError> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(MEMORY);
        let dir = dir.map_err(|source| BenchError::io(format!("make a directory in {MEMORY}"), source))?;
        let lock = DirLock::acquire(&lock_of(dir.path()))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}
