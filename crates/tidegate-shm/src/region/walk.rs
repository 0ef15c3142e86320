//! Opening paths without ever following a link, and what a file is.

use std::{
    fmt,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, Stat, openat},
    io::Errno,
};

use crate::clock::Nanos;

/// Opens an absolute path from `/` on, one component at a time, with `flags` for the last one. Duplicate slashes are
/// tolerated, `.` and `..` are not, and no component may be a symbolic link (TP-059).
pub(super) fn open_without_links(path: &Path, flags: OFlags) -> Result<OwnedFd, WalkError> {
    const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    let mut at = PathBuf::from("/");
    let failed = |at: &Path, errno| WalkError { component: at.to_owned(), errno };
    let mut dir = openat(CWD, "/", STEP, Mode::empty()).map_err(|errno| failed(&at, errno))?;
    let mut components =
        path.as_os_str().as_bytes().split(|&byte| byte == b'/').filter(|c| !c.is_empty()).peekable();
    while let Some(component) = components.next() {
        at.push(std::ffi::OsStr::from_bytes(component));
        if matches!(component, b"." | b"..") {
            return Err(failed(&at, Errno::INVAL));
        }
        let flags = match components.peek() {
            Some(_) => STEP,
            None => flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        };
        dir = openat(&dir, component, flags, Mode::empty()).map_err(|errno| failed(&at, errno))?;
    }
    Ok(dir)
}

/// The component at which a walk ended, and why.
#[derive(Debug)]
pub(super) struct WalkError {
    pub(super) component: PathBuf,
    pub(super) errno: Errno,
}

/// Whether `name` can only mean an entry of the directory it is used in (TP-052).
pub(super) fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.bytes().any(|byte| byte == b'/' || byte == 0)
}

/// What a file or directory is, as the kernel told at one moment. Links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Regular file, directory, ...
    pub kind: FileKind,
    /// Permission bits, `mode & 07777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device; with `ino` the identity of the file.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub len: u64,
    /// Last change of the content on the wall clock.
    pub modified: Nanos,
}

impl From<Stat> for FileStat {
    fn from(stat: Stat) -> Self {
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        Self {
            kind: FileType::from_raw_mode(stat.st_mode).into(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            dev: stat.st_dev,
            ino: stat.st_ino,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified: Nanos::from_secs(seconds).saturating_add(Nanos(stat.st_mtime_nsec)),
        }
    }
}

/// Types of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix domain socket.
    Socket,
    /// Block or character device.
    Device,
    /// The file system did not say; ask with [`RegionDir::stat`](super::RegionDir::stat).
    Unknown,
}

impl From<FileType> for FileKind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::BlockDevice | FileType::CharacterDevice => Self::Device,
            FileType::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a regular file",
            Self::Directory => "a directory",
            Self::Symlink => "a symbolic link",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::Unknown => "of unknown type",
        })
    }
}
