//! Anonymous memory that is handed to another process and can neither shrink nor grow.
//!
//! ```text
//!  SealedMemory::create --map--> GuardedRegion       the maker writes
//!                       --seal_writers-->            from now on nobody can map it writable any more
//!                       --as_fd--> a socket --> SealedMemory::receive --map--> GuardedRegion
//! ```
//!
//! The seals are the kernel's: a file of this kind cannot be truncated under a mapping, so touching the mapping never
//! raises SIGBUS, and one whose writers are sealed can be read by others and written only through mappings made before
//! (VX-100, VX-101).

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate,
        memfd_create,
    },
    io::Errno,
};

use super::{guarded::GuardedRegion, mapping::MapError, walk::FileStat};

/// Anonymous memory of a fixed size.
#[derive(Debug)]
pub struct SealedMemory {
    /// Has at least the seals of `SIZE`.
    fd: OwnedFd,
    len: u64,
}

impl SealedMemory {
    /// Makes `len` bytes of zeros, all of them allocated, and seals the size. `name` is for people who look into
    /// `/proc`.
    ///
    /// # Errors
    /// [`SealError::Kernel`], for instance when there is not enough memory.
    pub fn create(name: &str, len: u64) -> Result<Self, SealError> {
        let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(|errno| SealError::kernel("create", errno))?;
        ftruncate(&fd, len).map_err(|errno| SealError::kernel("set the size of", errno))?;
        fallocate(&fd, FallocateFlags::empty(), 0, len)
            .map_err(|errno| SealError::kernel("allocate the pages of", errno))?;
        let memory = Self { fd, len };
        memory.seal(SIZE)?;
        Ok(memory)
    }

    /// Takes memory that another process made.
    ///
    /// # Errors
    /// [`SealError::NotSealed`] when the descriptor is none of such memory or its size is not sealed for good: a mapping
    /// of it could be truncated by the peer.
    pub fn receive(fd: OwnedFd) -> Result<Self, SealError> {
        let found = match fcntl_get_seals(&fd) {
            Ok(seals) => seals,
            // What other kinds of files answer.
            Err(Errno::INVAL) => SealFlags::empty(),
            Err(errno) => return Err(SealError::kernel("read the seals of", errno)),
        };
        let missing = (SIZE | SealFlags::SEAL).difference(found);
        if !missing.is_empty() {
            return Err(SealError::NotSealed { missing: missing.bits() });
        }
        let stat = fstat(&fd).map_err(|errno| SealError::kernel("read the size of", errno))?;
        Ok(Self { fd, len: FileStat::from(stat).len })
    }

    /// Size in bytes.
    // There is no use for empty memory.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Maps all of it, `writable` for writing, and touches every page, so that no later access waits for one.
    ///
    /// # Errors
    /// What the kernel says: that permission is denied when writers are sealed and `writable` is not empty.
    pub fn map(&self, writable: Range<u64>) -> Result<GuardedRegion, MapError> {
        let region = GuardedRegion::map(self.fd.as_fd(), self.len, 0, writable)?;
        region.populate();
        Ok(region)
    }

    /// Makes sure that nobody, the caller included, maps the memory for writing again; mappings that exist stay as they
    /// are. No seal can be added after it.
    ///
    /// # Errors
    /// What the kernel says; Linux 5.1 or newer is needed.
    pub fn seal_writers(&self) -> Result<(), SealError> {
        // One after the other, because the second forbids the first.
        self.seal(SealFlags::FUTURE_WRITE)?;
        self.seal(SealFlags::SEAL)
    }

    /// Makes sure that no seal is added any more, so that who received the memory may go on writing it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn seal_seals(&self) -> Result<(), SealError> {
        self.seal(SealFlags::SEAL)
    }

    /// Whether the kernel refuses to map the memory for writing (VX-423).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_sealed_writers(&self) -> Result<bool, SealError> {
        let seals =
            fcntl_get_seals(&self.fd).map_err(|errno| SealError::kernel("read the seals of", errno))?;
        Ok(seals.intersects(SealFlags::FUTURE_WRITE | SealFlags::WRITE))
    }

    fn seal(&self, seals: SealFlags) -> Result<(), SealError> {
        fcntl_add_seals(&self.fd, seals).map_err(|errno| SealError::kernel("seal", errno))
    }
}

impl AsFd for SealedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why memory could not be made, sealed or taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The kernel refused.
    #[error(
        "the kernel refused to {step} shared memory; check the memory limit of this process's control group"
    )]
    Kernel {
        /// What was attempted.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The peer could still change the size.
    #[error(
        "a descriptor that was received lacks the seals {missing:#x}; its sender does not speak this protocol"
    )]
    NotSealed {
        /// Bits of `F_ADD_SEALS` that are missing.
        missing: u32,
    },
}

impl SealError {
    fn kernel(step: &'static str, errno: Errno) -> Self {
        Self::Kernel { step, source: errno.into() }
    }
}

/// Neither shrinks nor grows.
const SIZE: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);
