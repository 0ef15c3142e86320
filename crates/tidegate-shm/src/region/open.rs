//! Opening a region file whose path came from somebody else (table 5.2 of the tensor-pool sheet).
//!
//! The path is hostile until every step has passed: it may lead out of the allowed bases, through links, to a FIFO
//! that blocks or a device that acts on being opened, or to a file that is exchanged between two steps. What is
//! checked in the end is the opened descriptor, not the name.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, fstat, fstatfs, openat, stat},
    io::Errno,
};

use super::{
    mapping::{MapError, Region, RegionMut},
    walk::{FileKind, FileStat, open_without_links},
};

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading: what every consumer asks for (TP-065).
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// Whether the file must lie on hugetlbfs (TP-045).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HugePages {
    /// Any file system will do.
    NotRequired,
    /// Only hugetlbfs will do.
    Required,
}

/// Which owners and modes an opened file may have (TP-069). Comes from local configuration only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermissionPolicy {
    /// Mode bits of which none may be set; 0007 refuses any access by the world.
    pub forbidden_bits: u32,
    /// The only owner accepted, when given.
    pub uid: Option<u32>,
    /// The only group accepted, when given.
    pub gid: Option<u32>,
    /// False turns the whole check off.
    pub enforce: bool,
}

impl Default for PermissionPolicy {
    fn default() -> Self {
        Self { forbidden_bits: 0o007, uid: None, gid: None, enforce: true }
    }
}

impl PermissionPolicy {
    fn check(&self, path: &Path, stat: &FileStat) -> Result<(), OpenError> {
        if !self.enforce {
            return Ok(());
        }
        if stat.mode & self.forbidden_bits != 0 {
            return Err(OpenError::ForbiddenMode {
                path: path.to_owned(),
                mode: stat.mode,
                forbidden: self.forbidden_bits,
            });
        }
        if self.uid.is_some_and(|uid| uid != stat.uid) || self.gid.is_some_and(|gid| gid != stat.gid) {
            return Err(OpenError::ForeignOwner {
                path: path.to_owned(),
                uid: stat.uid,
                gid: stat.gid,
                expected_uid: self.uid,
                expected_gid: self.gid,
            });
        }
        Ok(())
    }
}

/// The directories below which regions are accepted, resolved once (step 4, TP-062). Without any, nothing is accepted.
#[derive(Debug, Clone, Default)]
pub struct AllowedBases {
    bases: Vec<PathBuf>,
}

impl AllowedBases {
    /// Resolves the configured directories. Those that do not resolve to a directory are left out and returned, so
    /// that the caller can log them.
    pub fn new<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> (Self, Vec<RejectedBase>) {
        let mut bases = Vec::new();
        let mut rejected = Vec::new();
        for path in paths {
            match resolve_directory(path.as_ref()) {
                Ok(base) => bases.push(base),
                Err(source) => rejected.push(RejectedBase { path: path.as_ref().to_owned(), source }),
            }
        }
        (Self { bases }, rejected)
    }

    /// The resolved directories.
    pub fn paths(&self) -> &[PathBuf] {
        &self.bases
    }

    /// Opens the region file at `path`, which somebody else named (TP-058, TP-059, TP-061).
    ///
    /// # Errors
    /// The first step that fails; see [`OpenError::step`]. Never blocks, whatever the path names.
    pub fn open(
        &self,
        path: &Path,
        access: Access,
        policy: &PermissionPolicy,
        huge_pages: HugePages,
    ) -> Result<RegionFile, OpenError> {
        self.open_interrupted(path, access, policy, huge_pages, || ())
    }

    /// As [`AllowedBases::open`], with something happening between looking at the path and opening it.
    fn open_interrupted(
        &self,
        path: &Path,
        access: Access,
        policy: &PermissionPolicy,
        huge_pages: HugePages,
        between: impl FnOnce(),
    ) -> Result<RegionFile, OpenError> {
        let own = || path.to_owned();
        if !path.is_absolute() {
            return Err(OpenError::NotAbsolute { path: own() });
        }
        if self.bases.is_empty() {
            return Err(OpenError::NoAllowedBase { path: own() });
        }
        let resolved =
            path.canonicalize().map_err(|source| OpenError::Unresolvable { path: own(), source })?;
        // `starts_with` compares whole components; a base itself is not inside of itself.
        if !self.bases.iter().any(|base| resolved.starts_with(base) && resolved != *base) {
            return Err(OpenError::OutsideBases { path: own(), resolved });
        }
        let expected = match stat(&resolved) {
            Ok(stat) => FileStat::from(stat),
            Err(errno) => return Err(OpenError::Unreadable { path: own(), step: 7, source: errno.into() }),
        };
        if expected.kind != FileKind::File {
            return Err(OpenError::NotRegular { path: own(), kind: expected.kind, step: 7 });
        }
        between();
        let fd = open_without_links(path, access.flags()).map_err(|error| OpenError::Component {
            path: own(),
            component: error.component,
            source: error.errno.into(),
        })?;
        let file = RegionFile::new(fd, path, access, &expected)?;
        policy.check(path, &file.stat)?;
        if huge_pages == HugePages::Required && !file.is_hugetlbfs() {
            return Err(OpenError::NotHugetlbfs { path: own() });
        }
        Ok(file)
    }
}

/// A configured base that was left out.
#[derive(Debug, thiserror::Error)]
#[error("allowed base {} does not resolve to a directory; regions below it will be refused", path.display())]
pub struct RejectedBase {
    /// As configured.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
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
    fn new(fd: OwnedFd, path: &Path, access: Access, expected: &FileStat) -> Result<Self, OpenError> {
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
        let expected = rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .map(FileStat::from)
            .map_err(|errno| OpenError::Unreadable {
                path: path.to_owned(),
                step: 7,
                source: errno.into(),
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

/// Why a region file was refused. Fails closed: nothing is mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Step 2.
    #[error("region path {} is not absolute", path.display())]
    NotAbsolute {
        /// As announced.
        path: PathBuf,
    },
    /// Step 3.
    #[error("region {} refused: no allowed base directory is configured; name one", path.display())]
    NoAllowedBase {
        /// As announced.
        path: PathBuf,
    },
    /// Step 5.
    #[error("region path {} cannot be resolved; was the region removed meanwhile?", path.display())]
    Unresolvable {
        /// As announced.
        path: PathBuf,
        /// What realpath said.
        source: io::Error,
    },
    /// Step 6.
    #[error("region {} is really {}, which is in none of the allowed base directories",
        path.display(), resolved.display())]
    OutsideBases {
        /// As announced.
        path: PathBuf,
        /// As resolved.
        resolved: PathBuf,
    },
    /// Step 7 or 9.
    #[error("region {} is {kind}, not a regular file", path.display())]
    NotRegular {
        /// As announced.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
        /// 7 by name, 9 by descriptor.
        step: u8,
    },
    /// Step 7 or 9.
    #[error("region {} cannot be examined", path.display())]
    Unreadable {
        /// As announced.
        path: PathBuf,
        /// 7 by name, 9 by descriptor.
        step: u8,
        /// What the kernel said.
        source: io::Error,
    },
    /// Step 8.
    #[error("region {}: component {} cannot be opened; it may be a symbolic link, `.`, `..`, or not permitted",
        path.display(), component.display())]
    Component {
        /// As announced.
        path: PathBuf,
        /// The path up to the component that failed.
        component: PathBuf,
        /// What the kernel said; EINVAL stands for `.` and `..`.
        source: io::Error,
    },
    /// Step 9.
    #[error("region {} was replaced by another file while it was being opened", path.display())]
    Replaced {
        /// As announced.
        path: PathBuf,
    },
    /// Step 10.
    #[error("region {} has mode {mode:04o}, bits {forbidden:04o} are forbidden; correct the mode or the policy",
        path.display())]
    ForbiddenMode {
        /// As announced.
        path: PathBuf,
        /// Mode found.
        mode: u32,
        /// Bits of which none may be set.
        forbidden: u32,
    },
    /// Step 10.
    #[error("region {} belongs to {uid}:{gid}, which the policy does not accept", path.display())]
    ForeignOwner {
        /// As announced.
        path: PathBuf,
        /// Owner found.
        uid: u32,
        /// Group found.
        gid: u32,
        /// Owner accepted, if only one is.
        expected_uid: Option<u32>,
        /// Group accepted, if only one is.
        expected_gid: Option<u32>,
    },
    /// Step 12.
    #[error("region {} must be on hugetlbfs and is not", path.display())]
    NotHugetlbfs {
        /// As announced.
        path: PathBuf,
    },
}

impl OpenError {
    /// The step of table 5.2 of the tensor-pool sheet that failed (TP-067).
    pub fn step(&self) -> u8 {
        match self {
            Self::NotAbsolute { .. } => 2,
            Self::NoAllowedBase { .. } => 3,
            Self::Unresolvable { .. } => 5,
            Self::OutsideBases { .. } => 6,
            Self::NotRegular { step, .. } | Self::Unreadable { step, .. } => *step,
            Self::Component { .. } => 8,
            Self::Replaced { .. } => 9,
            Self::ForbiddenMode { .. } | Self::ForeignOwner { .. } => 10,
            Self::NotHugetlbfs { .. } => 12,
        }
    }

    /// The kernel's error number, where the kernel refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Unresolvable { source, .. }
            | Self::Unreadable { source, .. }
            | Self::Component { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

impl Access {
    /// Non-blocking and without a controlling terminal, in case the file is exchanged for something that is not one.
    fn flags(self) -> OFlags {
        let access = match self {
            Self::ReadOnly => OFlags::RDONLY,
            Self::ReadWrite => OFlags::RDWR,
        };
        access | OFlags::NONBLOCK | OFlags::NOCTTY
    }
}

/// Type of hugetlbfs as statfs tells it.
pub(super) const HUGETLBFS: i64 = 0x9584_58F6;
/// Type of tmpfs as statfs tells it.
const TMPFS: i64 = 0x0102_1994;

/// The real path of a directory.
pub(super) fn resolve_directory(path: &Path) -> io::Result<PathBuf> {
    let resolved = path.canonicalize()?;
    let stat = rustix::fs::statat(CWD, &resolved, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    match FileStat::from(stat).kind {
        FileKind::Directory => Ok(resolved),
        _ => Err(Errno::NOTDIR.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::mkfifoat;

    use super::*;

    /// Opens a regular file, with `exchange` happening after it was looked at.
    fn open_exchanged(exchange: impl FnOnce(&Path)) -> Result<RegionFile, OpenError> {
        let place = tempfile::tempdir().unwrap();
        let (bases, rejected) = AllowedBases::new([place.path()]);
        assert!(rejected.is_empty());
        let path = place.path().join("region");
        fs::write(&path, [1; 64]).unwrap();
        let policy = PermissionPolicy { enforce: false, ..PermissionPolicy::default() };
        bases.open_interrupted(&path, Access::ReadOnly, &policy, HugePages::NotRequired, || exchange(&path))
    }

    /// Rules: TP-058, TP-061, TC-031.
    #[test]
    fn a_file_replaced_between_look_and_open_is_refused() {
        open_exchanged(|_| ()).expect("an undisturbed file opens");
        let refused = open_exchanged(|path| {
            // The old inode must stay in use, or the new file may get its number.
            fs::rename(path, path.with_extension("old")).unwrap();
            fs::write(path, [2; 64]).unwrap();
        });
        assert!(matches!(refused, Err(OpenError::Replaced { .. })), "{refused:?}");
        assert_eq!(refused.unwrap_err().step(), 9);
    }

    /// Rules: TP-058, TP-059, TP-061, TC-031, TC-032.
    #[test]
    fn other_things_put_in_the_place_of_the_file_are_refused_without_hanging() {
        let fifo = open_exchanged(|path| {
            fs::remove_file(path).unwrap();
            mkfifoat(CWD, path, Mode::RWXU).unwrap();
        });
        assert!(matches!(fifo, Err(OpenError::NotRegular { kind: FileKind::Fifo, step: 9, .. })), "{fifo:?}");
        let link = open_exchanged(|path| {
            fs::rename(path, path.with_extension("old")).unwrap();
            std::os::unix::fs::symlink(path.with_extension("old"), path).unwrap();
        });
        assert_eq!(link.unwrap_err().step(), 8, "even though the link leads to the same inode");
        let missing = open_exchanged(|path| fs::remove_file(path).unwrap());
        assert_eq!(missing.unwrap_err().errno(), Some(Errno::NOENT.raw_os_error()));
    }
}
