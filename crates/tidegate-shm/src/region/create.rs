//! Making region files.
//!
//! Order (TP-053): exclusive create, exact mode, size with all space reserved, zeros; the caller then writes its header
//! and calls [`RegionMut::sync`] before it tells anybody the name. The space is reserved, not just promised: a file
//! with holes on a full file system would answer the first touch of a page with SIGBUS, long after creation.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
    path::PathBuf,
};

use rustix::{
    fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, fchmod, fstatfs, fstatvfs, openat, unlinkat},
    io::Errno,
    process::{Resource, getrlimit},
};

use super::{
    dir::{DirError, RegionDir},
    file::HUGETLBFS,
    mapping::{MapError, RegionMut},
    walk::is_plain_name,
};

/// How a region file is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateOptions {
    /// Bytes of the region. On hugetlbfs the file is rounded up to whole huge pages.
    pub len: u64,
    /// Permission bits the file gets, whatever the umask is (TP-068).
    pub mode: u32,
    /// Write zeros over the whole file, so that no page fault is left for later (TP-057).
    pub prefault: bool,
    /// Pin the pages in memory; failing to is an error (TP-057).
    pub lock: bool,
    /// Insist on hugetlbfs.
    pub huge_pages: bool,
}

impl CreateOptions {
    /// `len` bytes with the defaults of the tensor-pool sheet: mode 0660, prefaulted, not locked, any file system.
    pub fn new(len: u64) -> Self {
        Self { len, mode: 0o660, prefault: true, lock: false, huge_pages: false }
    }
}

/// Makes and maps the new file `name` in `dir`, all zeros (TP-053, TP-055).
///
/// # Errors
/// [`CreateError::AlreadyExists`] when the name is taken; the file there is not touched. Whatever fails later, the new
/// file is removed again.
pub fn create_region(dir: &RegionDir, name: &str, options: &CreateOptions) -> Result<RegionMut, CreateError> {
    if !is_plain_name(name) {
        return Err(CreateError::InvalidName { name: name.to_owned() });
    }
    let new_file = create_exclusive(dir, name, options.len)?;
    let region = new_file.fill(options);
    if region.is_err() {
        let _ = unlinkat(&dir.fd, name, AtFlags::empty());
    }
    region
}

/// Makes the file `name`, which must not exist. Nobody else can open it before it has its final mode.
pub(super) fn create_exclusive(dir: &RegionDir, name: &str, len: u64) -> Result<NewFile, CreateError> {
    let path = dir.path().join(name);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&dir.fd, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => Ok(NewFile { file: File::from(fd), path }),
        Err(Errno::EXIST) => Err(CreateError::AlreadyExists { path }),
        Err(errno) => Err(CreateError::from_errno(path, "create", len, 0, errno)),
    }
}

/// Why a region could not be made. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// Not the name of one file.
    #[error("{name:?} cannot name a region file: it is empty, `.`, `..`, or contains `/` or NUL")]
    InvalidName {
        /// As given.
        name: String,
    },
    /// A region has at least one byte and fits into an address space.
    #[error("{} cannot have {len} bytes", path.display())]
    InvalidLength {
        /// The file.
        path: PathBuf,
        /// Bytes asked for.
        len: u64,
    },
    /// The name is taken.
    #[error("{} exists already; use a new epoch", path.display())]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// The file system is full.
    #[error("no space for {}: {needed} bytes are needed, {available} are free; make the file system larger or \
        the region smaller", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// Bytes of the region.
        needed: u64,
        /// Bytes free on its file system at the time.
        available: u64,
    },
    /// The owner's quota is used up.
    #[error("{} needs {needed} bytes, which exceeds the disk quota of its owner", path.display())]
    Quota {
        /// The file.
        path: PathBuf,
        /// Bytes of the region.
        needed: u64,
    },
    /// Longer than this process, or the file system, allows for a file.
    #[error("{} needs {needed} bytes, more than one file may have here; check `ulimit -f`", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes of the region.
        needed: u64,
    },
    /// Not permitted.
    #[error("not permitted to {operation} {}; check owner and mode of its directory", path.display())]
    Permission {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Huge pages were demanded elsewhere than on hugetlbfs.
    #[error("{} is not on hugetlbfs, which huge pages need", path.display())]
    NotHugetlbfs {
        /// The file.
        path: PathBuf,
    },
    /// The directory could not be kept open.
    #[error("cannot keep the directory of a new region open")]
    Directory {
        /// Why.
        source: DirError,
    },
    /// The pages could not be pinned.
    #[error("cannot lock {len} bytes of {} in memory; check `ulimit -l`", path.display())]
    LockPages {
        /// The file.
        path: PathBuf,
        /// Bytes of the region.
        len: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file was made but could not be mapped.
    #[error("cannot map the new file {}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MapError,
    },
    /// The kernel refused.
    #[error("cannot {operation} {}", path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl CreateError {
    pub(super) fn from_errno(
        path: PathBuf,
        operation: &'static str,
        needed: u64,
        available: u64,
        errno: Errno,
    ) -> Self {
        match errno {
            Errno::NOSPC => Self::NoSpace { path, needed, available },
            Errno::DQUOT => Self::Quota { path, needed },
            Errno::FBIG => Self::TooLarge { path, needed },
            Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                Self::Permission { path, operation, source: errno.into() }
            }
            _ => Self::Kernel { path, operation, source: errno.into() },
        }
    }
}

/// A file just made, empty.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl NewFile {
    fn fill(&self, options: &CreateOptions) -> Result<RegionMut, CreateError> {
        let page = self.prepare(options)?;
        let region = RegionMut::map(self.file.as_fd(), options.len, page)
            .map_err(|source| CreateError::Map { path: self.path.clone(), source })?;
        if options.prefault {
            region.zero();
        }
        if options.lock {
            region.lock_pages().map_err(|source| CreateError::LockPages {
                path: self.path.clone(),
                len: options.len,
                source,
            })?;
        }
        Ok(region)
    }

    /// Gives the file its mode and its size; returns the size of its pages if they are huge, otherwise 0.
    pub(super) fn prepare(&self, options: &CreateOptions) -> Result<u64, CreateError> {
        let failed = |operation, errno| self.error(operation, options.len, errno);
        fchmod(&self.file, Mode::from_raw_mode(options.mode & 0o7777))
            .map_err(|errno| failed("set the mode of", errno))?;
        let file_system = fstatfs(&self.file).map_err(|errno| failed("examine", errno))?;
        let is_hugetlbfs = file_system.f_type == HUGETLBFS;
        if options.huge_pages && !is_hugetlbfs {
            return Err(CreateError::NotHugetlbfs { path: self.path.clone() });
        }
        let page = if is_hugetlbfs { u64::try_from(file_system.f_bsize).unwrap_or(0) } else { 0 };
        let file_len =
            options.len.checked_next_multiple_of(page.max(1)).filter(|&len| len > 0 && len <= MAX_LEN);
        let Some(file_len) = file_len else {
            return Err(CreateError::InvalidLength { path: self.path.clone(), len: options.len });
        };
        self.reserve(file_len)?;
        Ok(page)
    }

    /// Gives the file its size with every page allocated.
    fn reserve(&self, len: u64) -> Result<(), CreateError> {
        // Beyond this limit the kernel would not only refuse but send SIGXFSZ, which kills.
        if getrlimit(Resource::Fsize).current.is_some_and(|limit| limit < len) {
            return Err(CreateError::TooLarge { path: self.path.clone(), needed: len });
        }
        loop {
            match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP) => return self.reserve_by_writing(len),
                Err(errno) => return Err(self.error("reserve space for", len, errno)),
            }
        }
    }

    /// For file systems that cannot reserve: written blocks are allocated blocks.
    fn reserve_by_writing(&self, len: u64) -> Result<(), CreateError> {
        let zeros = [0; 64 * 1024];
        let mut at = 0;
        while at < len {
            let part = (len - at).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..part as usize], at).map_err(
                |source| match Errno::from_io_error(&source) {
                    Some(errno) => self.error("reserve space for", len, errno),
                    None => CreateError::Kernel {
                        path: self.path.clone(),
                        operation: "reserve space for",
                        source,
                    },
                },
            )?;
            at += part;
        }
        Ok(())
    }

    fn error(&self, operation: &'static str, needed: u64, errno: Errno) -> CreateError {
        let available = fstatvfs(&self.file).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        CreateError::from_errno(self.path.clone(), operation, needed, available, errno)
    }
}

/// The largest file offset.
const MAX_LEN: u64 = i64::MAX as u64;
