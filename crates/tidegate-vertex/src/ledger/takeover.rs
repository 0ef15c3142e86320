//! Taking a ledger from a process that has it and does not let go, for example because it is stopped (VX-702).
//!
//! The kernel's lock decides; its holder is found by what the lock file says and killed through a pidfd, and only when the
//! kernel confirms that it is what it seems: it has the lock file open and runs the program that asks.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use thiserror::Error;
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    lock::{DirLock, LockError},
    process::{ProcessError, ProcessHandle, ProcessId},
};

use super::store::lock_path;

/// Why a ledger was not taken over.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TakeoverError {
    /// The lock cannot be looked at.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The lock file does not say who has it.
    #[error("{path} does not say who has locked it; find the process and end it")]
    Unknown {
        /// The lock file.
        path: PathBuf,
    },
    /// The holder cannot be held on to.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The lock file names a process that is not the holder.
    #[error(
        "process {holder} is named in {path} and does not have it open; find the process that has it and end it"
    )]
    NotOpen {
        /// The process.
        holder: ProcessId,
        /// The lock file.
        path: PathBuf,
    },
    /// The holder is something else.
    #[error("process {holder} has {path} and runs another program; end it by hand if it may end")]
    OtherProgram {
        /// The process.
        holder: ProcessId,
        /// The lock file.
        path: PathBuf,
    },
    /// What the kernel says about the holder cannot be read.
    #[error("cannot look at process {holder}, which has {path}")]
    Look {
        /// The process.
        holder: ProcessId,
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It was killed and does not end.
    #[error("process {holder} was killed and still has {path}; it hangs in the kernel")]
    Lives {
        /// The process.
        holder: ProcessId,
        /// The lock file.
        path: PathBuf,
    },
}

/// Ends the process that has the ledger in `dir`, if there is one, and waits until the ledger is free. Returns who it was.
///
/// # Errors
/// Nobody was killed, but for [`TakeoverError::Lives`].
pub fn take_over(dir: &Path) -> Result<Option<ProcessId>, TakeoverError> {
    let path = lock_path(dir);
    let holder = match DirLock::acquire(&path) {
        Ok(lock) => {
            drop(lock);
            return Ok(None);
        }
        Err(LockError::Held { holder, .. }) => holder,
        Err(error) => return Err(error.into()),
    };
    let Some(holder) = holder else { return Err(TakeoverError::Unknown { path }) };
    // From here on the number means this process and no other.
    let process = ProcessHandle::open(holder)?;
    let look = |source| TakeoverError::Look { holder, path: path.clone(), source };
    if !has_open(holder, &path).map_err(look)? {
        return Err(TakeoverError::NotOpen { holder, path });
    }
    if !runs_this_program(holder).map_err(look)? {
        return Err(TakeoverError::OtherProgram { holder, path });
    }
    tracing::warn!(%holder, lock = %path.display(), "killing the holder of the ledger");
    process.kill().map_err(look)?;
    let deadline = monotonic_now().saturating_add(LONGEST_DEATH);
    if !process.wait_exit(deadline) {
        return Err(TakeoverError::Lives { holder, path });
    }
    // A child that it forked may have the lock still, and goes with it.
    loop {
        match DirLock::acquire(&path) {
            Ok(_) => return Ok(Some(holder)),
            Err(LockError::Held { .. }) if monotonic_now() < deadline => std::thread::sleep(POLL.into()),
            Err(LockError::Held { .. }) => return Err(TakeoverError::Lives { holder, path }),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a process has this file open.
fn has_open(process: ProcessId, path: &Path) -> io::Result<bool> {
    let file = fs::metadata(path)?;
    for entry in fs::read_dir(format!("/proc/{}/fd", process.pid))? {
        // One that was closed meanwhile is not it.
        let Ok(open) = fs::metadata(entry?.path()) else { continue };
        if (open.dev(), open.ino()) == (file.dev(), file.ino()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn runs_this_program(process: ProcessId) -> io::Result<bool> {
    let [own, other] = [fs::metadata("/proc/self/exe")?, fs::metadata(format!("/proc/{}/exe", process.pid))?];
    Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
}

/// How long a killed process may take to end.
const LONGEST_DEATH: Nanos = Nanos::from_secs(30);
const POLL: Nanos = Nanos::from_millis(5);
