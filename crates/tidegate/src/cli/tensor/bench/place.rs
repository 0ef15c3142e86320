//! The directory of a measurement.
//!
//! ```text
//! /dev/shm/tidegate.bench-XXXXXX/
//!   .lock    held by the measuring process for as long as it lives
//!   lines    words that both sides see
//!   node/    the private node
//! ```
//!
//! It is removed at the end. What a killed measurement leaves is found by `tidegate doctor`, by the free lock. No node has
//! such a name by default: theirs begin with `tidegate-`.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tidegate::shm::lock::DirLock;

use super::error::BenchError;

/// How the names of these directories begin.
pub(crate) const BENCH_PREFIX: &str = "tidegate.bench-";

/// The names in the directory of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BenchPlace<'a>(pub(crate) &'a Path);

impl BenchPlace<'_> {
    /// The lock file.
    pub(crate) fn lock(self) -> PathBuf {
        self.0.join(".lock")
    }

    /// The file with the words that both sides see.
    pub(crate) fn lines(self) -> PathBuf {
        self.0.join(super::lines::FILE)
    }

    /// Directory of the private node.
    pub(crate) fn node(self) -> PathBuf {
        self.0.join("node")
    }
}

/// The directory of this measurement, removed when dropped.
pub(super) struct OwnPlace {
    dir: TempDir,
    /// Released after the directory is gone.
    _lock: DirLock,
}

impl OwnPlace {
    pub(super) fn make() -> Result<Self, BenchError> {
        let dir = tempfile::Builder::new().prefix(BENCH_PREFIX).tempdir_in("/dev/shm");
        let dir = dir.map_err(|source| BenchError::Io { action: "make a directory in /dev/shm", source })?;
        let lock = DirLock::acquire(&BenchPlace(dir.path()).lock())?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn place(&self) -> BenchPlace<'_> {
        BenchPlace(self.dir.path())
    }
}
