//! One holder per directory: an exclusive lock that death releases.
//!
//! The lock is `flock` on a file of its own. The file's content, the holder's [`ProcessId`] as text, is only there to
//! tell people who holds it; the kernel's lock decides. The file stays when the lock is released, because removing it
//! would race with the next holder.
//!
//! The descriptor is close-on-exec, so programs started by the holder do not keep the lock. A child that forks
//! without exec shares it; when the holder dies without having dropped it, the child keeps it until it exits, too.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, FlockOperation, Mode, OFlags, fchmod, flock, fstat, ftruncate, lstat, openat},
    io::Errno,
};

use crate::{
    clock::{Nanos, monotonic_now},
    process::{ProcessError, ProcessHandle, ProcessId},
};

/// An exclusive lock held by this process until it is dropped or the process dies.
#[derive(Debug)]
pub struct DirLock {
    file: File,
    path: PathBuf,
}

impl DirLock {
    /// Takes the lock whose file is `path`, creating the file with mode 0600 when missing. Does not wait, but for up to a second
    /// when its holder is dead: a program that the holder was just starting has the lock until it comes to its exec.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process, or another `DirLock` of this one, has it.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let give_up = monotonic_now().saturating_add(LONGEST_EXEC);
        loop {
            match Self::acquire_interrupted(path, || ()) {
                Err(LockError::Held { holder: Some(holder), .. })
                    if is_dead(holder) && monotonic_now() < give_up =>
                {
                    std::thread::sleep(POLL.into());
                }
                result => return result,
            }
        }
    }

    /// As [`DirLock::acquire`], with something happening between opening the file and locking it.
    fn acquire_interrupted(path: &Path, mut between: impl FnMut()) -> Result<Self, LockError> {
        let holder = ProcessId::current().map_err(|source| LockError::OwnIdentity { source })?;
        let failed = |source: io::Error| LockError::Io { path: path.to_owned(), source };
        // A file that somebody removed between opening and locking guards nothing: take the new one.
        for _ in 0..ATTEMPTS {
            let file = open(path)?;
            between();
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN) => {
                    return Err(LockError::Held { path: path.to_owned(), holder: read_holder(&file) });
                }
                Err(errno) => return Err(failed(errno.into())),
            }
            if is_still_at(&file, path).map_err(failed)? {
                // Only for people, and hugetlbfs has no write(2): the lock counts without it.
                let _ = write_holder(&file, holder);
                return Ok(Self { file, path: path.to_owned() });
            }
        }
        Err(LockError::Unstable { path: path.to_owned() })
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Only so that nobody reads a stale name.
        let _ = ftruncate(&self.file, 0);
        // Closing the file would release it only when no child that another thread starts at this moment, and that has not come
        // to its exec, has it open, too.
        let _ = flock(&self.file, FlockOperation::NonBlockingUnlock);
    }
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else has it.
    #[error("{} is locked by {}; stop that process or use another directory",
        path.display(), holder.map_or_else(|| "an unknown process".to_owned(), |id| format!("process {id}")))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who wrote its name into the file, when readable.
        holder: Option<ProcessId>,
    },
    /// The path names something else than a regular file.
    #[error("{} is not a regular file and cannot serve as a lock; remove it or use another directory", path.display())]
    NotRegular {
        /// The lock file.
        path: PathBuf,
    },
    /// The file has other names: whoever made them could have its content overwritten, or hold two directories with one
    /// lock.
    #[error("{} is a hard link to a file with other names and cannot serve as a lock; remove it", path.display())]
    Linked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file was replaced again and again while it was being locked.
    #[error("{} is being replaced by another process; find out which one removes lock files", path.display())]
    Unstable {
        /// The lock file.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot lock {}; check that its directory exists and is writable", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The identity to be written into the file is not known.
    #[error("cannot find out the identity of this process")]
    OwnIdentity {
        /// Why.
        source: ProcessError,
    },
}

/// How long a program may be on its way to its exec.
const LONGEST_EXEC: Nanos = Nanos::from_secs(1);
const POLL: Nanos = Nanos::from_millis(1);

/// Whether this is certain.
fn is_dead(process: ProcessId) -> bool {
    matches!(ProcessHandle::open(process), Err(ProcessError::Gone { .. }))
}

/// Rounds of open and lock before giving up on a file that keeps being replaced.
const ATTEMPTS: u32 = 16;

fn open(path: &Path) -> Result<File, LockError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let not_regular = || LockError::NotRegular { path: path.to_owned() };
    let failed = |errno: Errno| LockError::Io { path: path.to_owned(), source: errno.into() };
    let fd = match openat(CWD, path, flags, MODE) {
        Ok(fd) => fd,
        // A link, a directory, a socket.
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(not_regular()),
        Err(errno) => return Err(failed(errno)),
    };
    let stat = fstat(&fd).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(not_regular());
    }
    // Before anything is changed. None at all means that it was just removed, which the caller finds out.
    if stat.st_nlink > 1 {
        return Err(LockError::Linked { path: path.to_owned() });
    }
    // A file just made may have lost bits to the umask, without which the next holder could not open it.
    if stat.st_uid == rustix::process::geteuid().as_raw() && Mode::from_raw_mode(stat.st_mode) != MODE {
        fchmod(&fd, MODE).map_err(failed)?;
    }
    Ok(File::from(fd))
}

const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = fstat(file)?;
    match lstat(path) {
        Ok(named) => Ok((named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn write_holder(file: &File, holder: ProcessId) -> io::Result<()> {
    ftruncate(file, 0)?;
    file.write_all_at(format!("{holder}\n").as_bytes(), 0)
}

/// What the file says, if it says anything sensible.
fn read_holder(file: &File) -> Option<ProcessId> {
    let mut text = [0; 64];
    let len = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..len)?).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_removed_before_it_was_locked_guards_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        let mut other = None;
        let refused = DirLock::acquire_interrupted(&path, || {
            if other.is_none() {
                fs::remove_file(&path).unwrap();
                other = Some(DirLock::acquire(&path).unwrap());
            }
        });
        assert!(matches!(refused, Err(LockError::Held { .. })), "{refused:?}");
    }

    #[test]
    fn a_file_that_keeps_being_removed_is_given_up() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        let refused = DirLock::acquire_interrupted(&path, || fs::remove_file(&path).unwrap());
        assert!(matches!(refused, Err(LockError::Unstable { .. })), "{refused:?}");
    }
}
