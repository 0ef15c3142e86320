//! Directories of regions, as their owner makes and clears them.
//!
//! A [`RegionDir`] holds its directory open, so that what happens below it cannot be redirected by renaming or linking
//! on the way. The base is resolved once (TP-060); below it no link is ever followed (TP-066).

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, fchmod, fstat, fstatfs, mkdirat, openat, statat, statvfs, unlinkat},
    io::Errno,
};

pub use super::walk::{FileKind, FileStat};
use super::{
    file::{Access, HUGETLBFS, RegionFile},
    open::{OpenError, resolve_directory},
    walk::{is_plain_name, open_without_links},
};

/// An open directory in which regions are kept.
#[derive(Debug)]
pub struct RegionDir {
    pub(super) fd: OwnedFd,
    path: PathBuf,
}

impl RegionDir {
    /// Opens the configured base directory. It may be reached through links, which are resolved now and never again;
    /// paths given to others start with the resolved one (TP-060, TP-066).
    ///
    /// # Errors
    /// It does not exist, is not a directory, or this process may not make files in it.
    pub fn open_base(path: &Path) -> Result<Self, DirError> {
        let resolved = resolve_directory(path).map_err(|source| match source.raw_os_error() {
            Some(code) if code == Errno::NOTDIR.raw_os_error() => {
                DirError::NotDirectory { path: path.to_owned() }
            }
            Some(code) if code == Errno::NOENT.raw_os_error() => DirError::Missing { path: path.to_owned() },
            _ => DirError::Kernel { path: path.to_owned(), operation: "resolve", source },
        })?;
        let fd = open_without_links(&resolved, DIRECTORY)
            .map_err(|error| kernel_error(error.component, "open", error.errno))?;
        let needed = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::accessat(&fd, ".", needed, AtFlags::EACCESS)
            .map_err(|errno| DirError::NotWritable { path: resolved.clone(), source: errno.into() })?;
        Ok(Self { fd, path: resolved })
    }

    /// Opens the directory reached by `components`, making the levels that are missing with exactly `mode`, whatever
    /// the umask is. Levels that exist keep their mode (TP-492).
    ///
    /// # Errors
    /// A level is a link, not a directory, or writable by the world; or the kernel refuses. Levels made before the
    /// one that failed stay.
    pub fn create_dirs(&self, components: &[&str], mode: u32) -> Result<Self, DirError> {
        let mut dir = self.try_clone()?;
        for name in components {
            dir = dir.create_dir(name, mode)?;
        }
        Ok(dir)
    }

    fn create_dir(&self, name: &str, mode: u32) -> Result<Self, DirError> {
        let path = self.entry_path(name)?;
        match mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return self.open_existing(name),
            Err(errno) => return Err(kernel_error(path, "make", errno)),
        }
        let made = self.open_dir(name).and_then(|dir| {
            let changed = fchmod(&dir.fd, Mode::from_raw_mode(mode & 0o7777));
            changed.map(|()| dir).map_err(|errno| kernel_error(path, "set the mode of", errno))
        });
        if made.is_err() {
            let _ = unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
        }
        made
    }

    /// A level that somebody else made: anyone could have put anything into it if the world may write there.
    fn open_existing(&self, name: &str) -> Result<Self, DirError> {
        let dir = self.open_dir(name)?;
        let mode = dir.metadata()?.mode;
        if mode & Mode::WOTH.as_raw_mode() != 0 {
            return Err(DirError::WorldWritable { path: dir.path, mode });
        }
        Ok(dir)
    }

    /// Opens the directory `name` in this one, which must not be a link.
    ///
    /// # Errors
    /// [`DirError::Missing`], [`DirError::Link`], [`DirError::NotDirectory`], or what the kernel says.
    pub fn open_dir(&self, name: &str) -> Result<Self, DirError> {
        let path = self.entry_path(name)?;
        match openat(&self.fd, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(errno) => Err(match self.stat(name).map(|stat| stat.kind) {
                Ok(FileKind::Symlink) => DirError::Link { path },
                Ok(FileKind::Directory) => kernel_error(path, "open", errno),
                Ok(_) => DirError::NotDirectory { path },
                Err(error) => error,
            }),
        }
    }

    /// Opens the region file `name` in this directory, which must not be a link. The directory is trusted, so there
    /// is no check of bases, modes and owners.
    ///
    /// # Errors
    /// It is missing or not a regular file, or was replaced while it was being opened. A name that is not plain is
    /// reported as a component that cannot be opened.
    pub fn open_file(&self, name: &str, access: Access) -> Result<RegionFile, OpenError> {
        let path = self.path.join(name);
        if !is_plain_name(name) {
            let source = Errno::INVAL.into();
            return Err(OpenError::Component { path: path.clone(), component: path, source });
        }
        RegionFile::open_in(&self.fd, name, &path, access)
    }

    /// The path without links. It names the directory as long as nobody moves it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the directory itself is: owner, mode, times.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn metadata(&self) -> Result<FileStat, DirError> {
        fstat(&self.fd).map(FileStat::from).map_err(|errno| kernel_error(self.path.clone(), "examine", errno))
    }

    /// What the entry `name` is; a link is reported as a link.
    ///
    /// # Errors
    /// [`DirError::Missing`], or what the kernel says.
    pub fn stat(&self, name: &str) -> Result<FileStat, DirError> {
        let path = self.entry_path(name)?;
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(stat.into()),
            Err(errno) => Err(kernel_error(path, "examine", errno)),
        }
    }

    /// The entries, in no order, without `.` and `..`. Somebody may fill a directory endlessly: stop at a limit.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn list(&self) -> Result<Entries, DirError> {
        let failed = |errno| kernel_error(self.path.clone(), "list", errno);
        Ok(Entries { dir: Dir::read_from(&self.fd).map_err(failed)?, path: self.path.clone() })
    }

    /// Removes the name `name`, which may be a link but not a directory. Mappings stay valid (TP-283).
    ///
    /// # Errors
    /// [`DirError::Missing`], or what the kernel says.
    pub fn remove_file(&self, name: &str) -> Result<(), DirError> {
        let path = self.entry_path(name)?;
        unlinkat(&self.fd, name, AtFlags::empty()).map_err(|errno| kernel_error(path, "remove", errno))
    }

    /// Removes the empty directory `name`.
    ///
    /// # Errors
    /// [`DirError::Missing`], [`DirError::NotDirectory`], or what the kernel says.
    pub fn remove_dir(&self, name: &str) -> Result<(), DirError> {
        let path = self.entry_path(name)?;
        unlinkat(&self.fd, name, AtFlags::REMOVEDIR).map_err(|errno| kernel_error(path, "remove", errno))
    }

    /// Size of the pages of files in it if it lies on hugetlbfs, otherwise 0.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn huge_page_size(&self) -> Result<u64, DirError> {
        let file_system =
            fstatfs(&self.fd).map_err(|errno| kernel_error(self.path.clone(), "examine", errno))?;
        let is_huge = file_system.f_type == HUGETLBFS;
        Ok(if is_huge { u64::try_from(file_system.f_bsize).unwrap_or(0) } else { 0 })
    }

    /// Another handle to the same directory.
    ///
    /// # Errors
    /// No file descriptor was to be had.
    pub fn try_clone(&self) -> Result<Self, DirError> {
        match self.fd.try_clone() {
            Ok(fd) => Ok(Self { fd, path: self.path.clone() }),
            Err(source) => Err(DirError::Kernel { path: self.path.clone(), operation: "open again", source }),
        }
    }

    fn entry_path(&self, name: &str) -> Result<PathBuf, DirError> {
        if !is_plain_name(name) {
            return Err(DirError::InvalidName { name: name.to_owned() });
        }
        Ok(self.path.join(name))
    }
}

/// The entries of a directory, read while iterating.
#[derive(Debug)]
pub struct Entries {
    dir: Dir,
    path: PathBuf,
}

impl Iterator for Entries {
    type Item = Result<DirEntry, DirError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.dir.read()? {
                Ok(entry) => entry,
                Err(errno) => return Some(Err(kernel_error(self.path.clone(), "list", errno))),
            };
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                let name = OsStr::from_bytes(name).to_owned();
                return Some(Ok(DirEntry { name, kind: entry.file_type().into() }));
            }
        }
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Name without the path.
    pub name: OsString,
    /// What it is, as far as the file system tells without being asked for each entry.
    pub kind: FileKind,
}

/// What went wrong with a directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirError {
    /// Not the name of one entry.
    #[error("{name:?} cannot name an entry of a directory: it is empty, `.`, `..`, or contains `/` or NUL")]
    InvalidName {
        /// As given.
        name: String,
    },
    /// Nothing there.
    #[error("{} does not exist", path.display())]
    Missing {
        /// What was asked for.
        path: PathBuf,
    },
    /// A symbolic link where none is followed.
    #[error("{} is a symbolic link; only the base directory may be reached through links", path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Something else than a directory.
    #[error("{} is not a directory", path.display())]
    NotDirectory {
        /// What was asked for.
        path: PathBuf,
    },
    /// No permission to make files.
    #[error("directory {} is not writable for this process; correct its owner or mode", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anybody could put files or links there.
    #[error("directory {} has mode {mode:04o}: anybody can write into it; take that right away", path.display())]
    WorldWritable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The kernel refused.
    #[error("cannot {operation} {}", path.display())]
    Kernel {
        /// What it was to be done to.
        path: PathBuf,
        /// What was to be done.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Bytes that this user can still store on the file system of `path`.
///
/// # Errors
/// What the kernel says.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn kernel_error(path: PathBuf, operation: &'static str, errno: Errno) -> DirError {
    match errno {
        Errno::NOENT => DirError::Missing { path },
        Errno::NOTDIR => DirError::NotDirectory { path },
        _ => DirError::Kernel { path, operation, source: errno.into() },
    }
}
