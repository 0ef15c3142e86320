//! Ownership of a media driver's directory.
//!
//! A driver's directory `D` is guarded by the file `D.lock`, held by `flock` for the life of the driver, so the kernel
//! frees it when the process dies. The lock file names the run that held it. A directory is free when
//!
//! - the lock could be taken, and
//! - its `cnc.dat` is absent, closed, of the run that the lock file names (then the kernel has proven that run dead), or
//!   has a heartbeat older than the timeout (for drivers that know nothing of the lock: `aeronmd`, the Java driver).
//!
//! The lock file lies beside the directory and not in it because the C driver deletes and remakes the directory.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::cnc::{self, DriverRun, DriverState};
use crate::error::AeronError;

/// What a driver makes in its directory. Anything else means that the directory belongs to somebody else.
const DRIVER_ENTRIES: [&str; 4] = ["cnc.dat", "loss-report.dat", "publications", "images"];

/// A directory that no other driver uses while this value lives.
#[derive(Debug)]
pub(crate) struct OwnedDirectory {
    dir: PathBuf,
    lock_path: PathBuf,
    lock: File,
}

impl OwnedDirectory {
    /// Takes `dir` and removes what a dead driver left there. The directory does not exist afterwards, or is empty.
    pub(crate) fn acquire(dir: &Path, timeout: Duration, delete_stale: bool) -> Result<Self, AeronError> {
        let dir: PathBuf = dir.components().collect();
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(os("create", parent))?;
        }
        let mut lock_path = dir.clone().into_os_string();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let lock = lock_file(&lock_path, &dir)?;
        let mut owned = Self { dir, lock_path, lock };
        match owned.clear(timeout, delete_stale) {
            Ok(()) => Ok(owned),
            Err(error) => {
                owned.release();
                Err(error)
            }
        }
    }

    /// The directory, without trailing slashes and `.` parts.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Writes into the lock file which run holds it.
    pub(crate) fn record(&mut self, run: DriverRun) -> Result<(), AeronError> {
        let text = format!("{} {}\n", run.pid, run.started_ms);
        self.lock
            .set_len(0)
            .and_then(|()| self.lock.rewind())
            .and_then(|()| self.lock.write_all(text.as_bytes()))
            .map_err(os("write", &self.lock_path))
    }

    /// Removes the directory and everything in it.
    pub(crate) fn remove(&self) -> Result<(), AeronError> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(os("remove", &self.dir)(error)),
            _ => Ok(()),
        }
    }

    /// Gives the directory up. The lock file is removed while the lock is still held, which is why taking the lock checks
    /// that the file it locked is the file that the path names.
    pub(crate) fn release(self) {
        if let Err(error) = fs::remove_file(&self.lock_path) {
            tracing::debug!(path = %self.lock_path.display(), %error, "could not remove the media driver's lock file");
        }
    }

    fn clear(&mut self, timeout: Duration, delete_stale: bool) -> Result<(), AeronError> {
        match fs::symlink_metadata(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(os("inspect", &self.dir)(error)),
            Ok(metadata) if !metadata.is_dir() => {
                let errno = rustix::io::Errno::NOTDIR.raw_os_error();
                return Err(AeronError::Os {
                    path: self.dir.clone(),
                    operation: "use as a directory",
                    errno,
                });
            }
            Ok(_) => {}
        }
        let state = cnc::read(&self.dir).map_err(os("read cnc.dat in", &self.dir))?;
        let proven_dead =
            matches!(state, DriverState::Running { run, .. } if self.recorded_run() == Some(run));
        if state.is_alive(timeout) && !proven_dead {
            let pid = if let DriverState::Running { run, .. } = state { Some(run.pid) } else { None };
            return Err(AeronError::DriverActive { dir: self.dir.clone(), pid });
        }
        let mut is_empty = true;
        for entry in fs::read_dir(&self.dir).map_err(os("list", &self.dir))? {
            let name = entry.map_err(os("list", &self.dir))?.file_name();
            if !DRIVER_ENTRIES.iter().any(|known| OsStr::new(known) == name) {
                return Err(AeronError::ForeignDirectory { dir: self.dir.clone(), entry: name.into() });
            }
            is_empty = false;
        }
        if is_empty {
            return Ok(());
        }
        if !delete_stale {
            return Err(AeronError::StaleDirectory { dir: self.dir.clone() });
        }
        tracing::info!(dir = %self.dir.display(), "removing what a dead media driver left");
        self.remove()
    }

    /// The run that held the lock last, when it got far enough to say so.
    fn recorded_run(&mut self) -> Option<DriverRun> {
        let mut text = String::new();
        (&self.lock).take(64).read_to_string(&mut text).ok()?;
        let (pid, started_ms) = text.trim().split_once(' ')?;
        Some(DriverRun { pid: pid.parse().ok()?, started_ms: started_ms.parse().ok()? })
    }
}

/// Refuses a lock file that is not a regular one or has other names: its content will be overwritten.
fn require_plain(file: &File, path: &Path) -> Result<(), AeronError> {
    let metadata = file.metadata().map_err(os("inspect", path))?;
    if metadata.is_file() && metadata.nlink() <= 1 {
        return Ok(());
    }
    let errno = rustix::io::Errno::INVAL.raw_os_error();
    Err(AeronError::Os { path: path.to_owned(), operation: "use as a lock file", errno })
}

/// Opens and locks the lock file, following no link. Retries when the owner before removed the file between the two steps.
fn lock_file(path: &Path, dir: &Path) -> Result<File, AeronError> {
    const ATTEMPTS: usize = 16;
    for _ in 0..ATTEMPTS {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(path)
            .map_err(os("open", path))?;
        require_plain(&file, path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(AeronError::DriverActive { dir: dir.to_owned(), pid: None });
            }
            Err(TryLockError::Error(error)) => return Err(os("lock", path)(error)),
        }
        let locked = file.metadata().map_err(os("inspect", path))?;
        match fs::metadata(path) {
            Ok(named) if named.ino() == locked.ino() && named.dev() == locked.dev() => return Ok(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(os("inspect", path)(error)),
        }
    }
    Err(AeronError::DriverActive { dir: dir.to_owned(), pid: None })
}

/// Makes an error of an operating system error about `path`.
pub(crate) fn os(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AeronError {
    move |error| match error.kind() {
        io::ErrorKind::PermissionDenied => AeronError::Permission { path: path.to_owned(), operation },
        _ => AeronError::Os { path: path.to_owned(), operation, errno: error.raw_os_error().unwrap_or(0) },
    }
}
