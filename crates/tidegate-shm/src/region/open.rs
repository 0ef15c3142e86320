//! Opening a region file whose path came from somebody else (table 5.2 of the tensor-pool sheet).
//!
//! The path is hostile until every step has passed: it may lead out of the allowed bases, through links, to a FIFO
//! that blocks or a device that acts on being opened, or to a file that is exchanged between two steps. What is
//! checked in the end is the opened descriptor, not the name.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, stat, statat},
    io::Errno,
};

use super::{
    file::{Access, RegionFile},
    walk::{FileKind, FileStat, open_without_links},
};

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
        policy.check(path, file.metadata())?;
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
    #[error("region path {} cannot be resolved; it was removed, or a directory above it may not be entered",
        path.display())]
    Unresolvable {
        /// As announced.
        path: PathBuf,
        /// What realpath said.
        source: io::Error,
    },
    /// Step 6.
    #[error("region {} resolves to {}, which is in none of the allowed base directories",
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

/// The real path of a directory.
pub(super) fn resolve_directory(path: &Path) -> io::Result<PathBuf> {
    let resolved = path.canonicalize()?;
    let stat = statat(CWD, &resolved, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileStat::from(stat).kind {
        FileKind::Directory => Ok(resolved),
        _ => Err(Errno::NOTDIR.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{Mode, mkfifoat};

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
