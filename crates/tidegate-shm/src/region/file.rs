//! An opened region file on its way to being mapped.

use std::{
    fs::File,
    io,
    ops::Range,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, fstatfs, openat, statat},
    io::Errno,
};

use super::{
    guarded::GuardedRegion,
    mapping::{MapError, Region, RegionMut},
    open::OpenError,
    walk::{FileKind, FileStat},
};

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading: what every consumer asks for (TP-065).
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

impl Access {
    /// Non-blocking and without a controlling terminal, in case the file is exchanged for something that is not one.
    pub(super) fn flags(self) -> OFlags {
        let access = match self {
            Self::ReadOnly => OFlags::RDONLY,
            Self::ReadWrite => OFlags::RDWR,
        };
        access | OFlags::NONBLOCK | OFlags::NOCTTY
    }
}

/// An opened region file that passed all checks but has not been mapped.
#[derive(Debug)]
pub struct RegionFile {
    file: File,
    path: PathBuf,
    access: Access,
    stat: FileStat,
    file_system: i64,
    block_size: u64,
}

impl RegionFile {
    /// Checks that the opened file is `expected` (step 9).
    pub(super) fn new(
        fd: OwnedFd,
        path: &Path,
        access: Access,
        expected: &FileStat,
    ) -> Result<Self, OpenError> {
        let failed =
            |errno: Errno| OpenError::Unreadable { path: path.to_owned(), step: 9, source: errno.into() };
        let stat = FileStat::from(fstat(&fd).map_err(failed)?);
        if stat.kind != FileKind::File {
            return Err(OpenError::NotRegular { path: path.to_owned(), kind: stat.kind, step: 9 });
        }
        if (stat.dev, stat.ino) != (expected.dev, expected.ino) {
            return Err(OpenError::Replaced { path: path.to_owned() });
        }
        let file_system = fstatfs(&fd).map_err(failed)?;
        Ok(Self {
            file: File::from(fd),
            path: path.to_owned(),
            access,
            stat,
            file_system: file_system.f_type,
            block_size: u64::try_from(file_system.f_bsize).unwrap_or(0),
        })
    }

    /// Opens an entry of a directory that is already trusted.
    pub(super) fn open_in(
        dir: &impl AsFd,
        name: &str,
        path: &Path,
        access: Access,
    ) -> Result<Self, OpenError> {
        let expected = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(FileStat::from).map_err(|errno| {
            OpenError::Unreadable { path: path.to_owned(), step: 7, source: errno.into() }
        })?;
        if expected.kind != FileKind::File {
            return Err(OpenError::NotRegular { path: path.to_owned(), kind: expected.kind, step: 7 });
        }
        let flags = access.flags() | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(dir, name, flags, Mode::empty()).map_err(|errno| OpenError::Component {
            path: path.to_owned(),
            component: path.to_owned(),
            source: errno.into(),
        })?;
        Self::new(fd, path, access, &expected)
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes when it was opened.
    // An empty region file is just a short one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.stat.len
    }

    /// Mode, owner, identity and so on when it was opened.
    pub fn metadata(&self) -> &FileStat {
        &self.stat
    }

    /// Whether it lies on hugetlbfs.
    pub fn is_hugetlbfs(&self) -> bool {
        self.file_system == HUGETLBFS
    }

    /// Whether it lies on tmpfs. A region that is on neither is backed by the page cache of a disk (TP-046).
    pub fn is_tmpfs(&self) -> bool {
        self.file_system == TMPFS
    }

    /// Reads bytes of the file before it is mapped, such as the header that says how long it has to be.
    ///
    /// # Errors
    /// [`MapError::TooShort`] when the file ends before the last byte.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), MapError> {
        let len = bytes.len() as u64;
        self.file.read_exact_at(bytes, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                MapError::TooShort { required: offset.saturating_add(len), found: self.stat.len }
            }
            _ => MapError::Kernel { len, source },
        })
    }

    /// Maps the first `required_len` bytes for reading only (TP-065).
    ///
    /// # Errors
    /// [`MapError::TooShort`] when the file does not have them (TP-064).
    pub fn map(self, required_len: u64) -> Result<Region, MapError> {
        self.check_len(required_len)?;
        Region::map(self.file.as_fd(), required_len, self.huge_page_size())
    }

    /// Maps the first `required_len` bytes for reading and writing.
    ///
    /// # Errors
    /// As [`RegionFile::map`], and [`MapError::ReadOnlyFile`] when it was opened with [`Access::ReadOnly`].
    pub fn map_mut(self, required_len: u64) -> Result<RegionMut, MapError> {
        if self.access == Access::ReadOnly {
            return Err(MapError::ReadOnlyFile);
        }
        self.check_len(required_len)?;
        RegionMut::map(self.file.as_fd(), required_len, self.huge_page_size())
    }

    /// Maps the first `required_len` bytes for reading, and of them `writable` for writing, left out of forks. An
    /// empty range maps everything for reading only.
    ///
    /// # Errors
    /// As [`RegionFile::map_mut`].
    pub fn map_guarded(self, required_len: u64, writable: Range<u64>) -> Result<GuardedRegion, MapError> {
        if self.access == Access::ReadOnly && !writable.is_empty() {
            return Err(MapError::ReadOnlyFile);
        }
        self.check_len(required_len)?;
        GuardedRegion::map(self.file.as_fd(), required_len, self.huge_page_size(), writable)
    }

    /// Takes the kernel's lock of this file, which every opening of it competes for, until this value and all handles
    /// that a fork made of it are gone. Never waits.
    ///
    /// # Errors
    /// What the kernel says; that somebody else has the lock is `Ok(false)`.
    pub fn try_lock(&self) -> io::Result<bool> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Asks the kernel for the present size in bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn current_len(&self) -> io::Result<u64> {
        Ok(FileStat::from(fstat(&self.file)?).len)
    }

    /// Asks the kernel again: the file may have changed since it was opened.
    fn check_len(&self, required: u64) -> Result<(), MapError> {
        let found = match fstat(&self.file) {
            Ok(stat) => FileStat::from(stat).len,
            Err(errno) => return Err(MapError::Kernel { len: required, source: errno.into() }),
        };
        if found < required {
            return Err(MapError::TooShort { required, found });
        }
        Ok(())
    }

    fn huge_page_size(&self) -> u64 {
        if self.is_hugetlbfs() { self.block_size } else { 0 }
    }
}

/// Type of hugetlbfs as statfs tells it.
pub(super) const HUGETLBFS: i64 = 0x9584_58F6;
/// Type of tmpfs as statfs tells it.
const TMPFS: i64 = 0x0102_1994;
