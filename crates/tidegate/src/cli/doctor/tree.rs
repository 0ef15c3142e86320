//! Directory trees: how much memory they take, and removing them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tidegate::shm::lock::LockError;
use tidegate::shm::region::DirError;

use super::MAX_ENTRIES;

/// Deepest tree that is measured: `tensorpool-<user>/<namespace>/<stream>/<epoch>/<file>` inside a node has five levels.
const MAX_DEPTH: usize = 8;

/// Memory of all files below `path`, links not followed. Pages that were never touched take none.
pub(super) fn size(path: &Path) -> u64 {
    sum(path, MAX_DEPTH)
}

fn sum(path: &Path, depth: usize) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() || depth == 0 {
        return metadata.blocks().saturating_mul(512);
    }
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.take(MAX_ENTRIES).filter_map(Result::ok).map(|entry| sum(&entry.path(), depth - 1)).sum()
}

/// Removes a file, if it is there.
pub(super) fn remove_file(path: &Path) -> Result<(), Kept> {
    told(path, fs::remove_file(path))
}

/// Removes a directory with all it holds, if it is there.
pub(super) fn remove_all(path: &Path) -> Result<(), Kept> {
    told(path, fs::remove_dir_all(path))
}

/// Removes a directory that is expected to be empty, if it is there.
pub(super) fn remove_empty(path: &Path) -> Result<(), Kept> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            let found = fs::read_dir(path).ok().and_then(|mut entries| Some(entries.next()?.ok()?.path()));
            Err(Kept::ForeignFiles { path: found.unwrap_or_else(|| path.to_owned()) })
        }
        outcome => told(path, outcome),
    }
}

fn told(path: &Path, outcome: io::Result<()>) -> Result<(), Kept> {
    match outcome {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Kept::Io { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Why something dead was not removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Kept {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not ours; look at it", path.display())]
    ForeignFiles { path: PathBuf },
    #[error("{} is not a media driver's file; look at it", path.display())]
    ForeignEntry { path: PathBuf },
    #[error("a media driver holds {}", lock.display())]
    DriverLives { lock: PathBuf },
    #[error("the media driver of {} is not proven dead", dir.display())]
    NotProvenDead { dir: PathBuf },
}
