//! Region files that nobody sees before they are complete.
//!
//! The file has no name until [`Draft::publish`] links it under one, so that whoever opens that name finds a complete
//! file, and a creator that dies before leaves nothing behind: the kernel frees a file without a name and without a
//! user. Where a file system cannot make files without a name, the file gets its name at once, exclusively
//! ([`Draft::is_hidden`] is false); those who open it then have to wait for a mark of the protocol above.

use std::{
    fs::File,
    ops::Range,
    os::fd::{AsFd, AsRawFd},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, unlinkat},
    io::Errno,
};

use super::{
    create::{CreateError, CreateOptions, NewFile, create_exclusive},
    dir::RegionDir,
    guarded::GuardedRegion,
    walk::is_plain_name,
};

/// A region file under construction, all zeros, with all its pages reserved.
#[derive(Debug)]
pub struct Draft {
    dir: RegionDir,
    name: String,
    new_file: NewFile,
    len: u64,
    page: u64,
    /// Whether `name` leads to the file already.
    named: bool,
    published: bool,
}

impl Draft {
    /// Makes the file that will be `name` in `dir`, without a name if the file system can do that (DH-016, DH-018).
    /// Locking pages is left to the caller; nothing is prefaulted.
    ///
    /// # Errors
    /// As [`create_region`](super::create_region); nothing is left behind. That the name is taken is found here or
    /// when publishing.
    pub fn new(dir: &RegionDir, name: &str, options: &CreateOptions) -> Result<Self, CreateError> {
        if !is_plain_name(name) {
            return Err(CreateError::InvalidName { name: name.to_owned() });
        }
        let path = dir.path().join(name);
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match openat(&dir.fd, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Self::prepared(dir, name, NewFile { file: File::from(fd), path }, options, false),
            // What file systems, and kernels that do not know the flag, answer.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                Self::new_visible(dir, name, options)
            }
            Err(errno) => Err(CreateError::from_errno(path, "create", options.len, 0, errno)),
        }
    }

    /// As [`Draft::new`] on a file system that cannot make files without a name.
    ///
    /// # Errors
    /// As [`Draft::new`]; [`CreateError::AlreadyExists`] when the name is taken.
    pub fn new_visible(dir: &RegionDir, name: &str, options: &CreateOptions) -> Result<Self, CreateError> {
        Self::prepared(dir, name, create_exclusive(dir, name, options.len)?, options, true)
    }

    fn prepared(
        dir: &RegionDir,
        name: &str,
        new_file: NewFile,
        options: &CreateOptions,
        named: bool,
    ) -> Result<Self, CreateError> {
        let dir = dir.try_clone().map_err(|source| CreateError::Directory { source });
        // From here on dropping the draft removes the name.
        let mut draft = match dir {
            Ok(dir) => Self {
                dir,
                name: name.to_owned(),
                new_file,
                len: options.len,
                page: 0,
                named,
                published: false,
            },
            Err(error) => return Err(error),
        };
        draft.page = draft.new_file.prepare(options)?;
        Ok(draft)
    }

    /// Whether the file has no name yet.
    pub fn is_hidden(&self) -> bool {
        !self.named
    }

    /// Size of a page of the file system if it is hugetlbfs, otherwise 0.
    pub fn huge_page_size(&self) -> u64 {
        self.page
    }

    /// Maps the file, `writable` for writing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn map(&self, writable: Range<u64>) -> Result<GuardedRegion, CreateError> {
        GuardedRegion::map(self.new_file.file.as_fd(), self.len, self.page, writable)
            .map_err(|source| CreateError::Map { path: self.new_file.path.clone(), source })
    }

    /// Gives the file its name, unless something has that name already.
    ///
    /// # Errors
    /// [`CreateError::AlreadyExists`], or what the kernel says; the file is gone then.
    pub fn publish(mut self) -> Result<(), CreateError> {
        if !self.named {
            let own = format!("/proc/self/fd/{}", self.new_file.file.as_raw_fd());
            let path = self.new_file.path.clone();
            match linkat(CWD, own, &self.dir.fd, &self.name, AtFlags::SYMLINK_FOLLOW) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(CreateError::AlreadyExists { path }),
                Err(errno) => return Err(CreateError::from_errno(path, "link", self.len, 0, errno)),
            }
        }
        self.published = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.named && !self.published {
            // A file without a name needs no removal.
            let _ = unlinkat(&self.dir.fd, &self.name, AtFlags::empty());
        }
    }
}
