//! One mapping and its two handles, [`Region`] (reads) and [`RegionMut`] (reads and writes).

use std::{
    fmt, io,
    ops::{Deref, Range},
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::Arc,
};

use rustix::{
    io::Errno,
    mm::{
        Advice, MapFlags, MprotectFlags, MsyncFlags, ProtFlags, madvise, mlock, mmap, mprotect, msync, munmap,
    },
    param::page_size,
};

use super::{
    span::{SharedSpan, SharedSpanMut, Span, SpanMut},
    word::{OwnedU64, SharedU32, SharedU32Mut, SharedU64, SharedU64Mut},
};
use crate::{
    fork::{ForkGuard, Forked},
    sync::{MappedU32, MappedU64},
};

/// A mapping that this handle can only read, whether or not the pages could be written.
///
/// Cloning is cheap and gives another handle to the same mapping.
#[derive(Clone)]
pub struct Region {
    pub(super) mapping: Arc<Mapping>,
}

impl Region {
    /// Mapped bytes that may be touched.
    // There are no empty mappings, so `is_empty` would say nothing.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.mapping.len as u64
    }

    /// The 4-byte word at `offset`, to be loaded atomically.
    ///
    /// # Errors
    /// Outside of the region, or `offset` not a multiple of 4.
    pub fn atomic_u32(&self, offset: u64) -> Result<SharedU32<'_>, AccessError> {
        self.mapping.u32_at(offset).map(SharedU32::new)
    }

    /// The 8-byte word at `offset`, to be loaded atomically.
    ///
    /// # Errors
    /// Outside of the region, or `offset` not a multiple of 8.
    pub fn atomic_u64(&self, offset: u64) -> Result<SharedU64<'_>, AccessError> {
        self.mapping.u64_at(offset).map(SharedU64::new)
    }

    /// As [`Region::atomic_u64`], without a borrow: keeps the mapping alive.
    ///
    /// # Errors
    /// As [`Region::atomic_u64`].
    pub fn owned_u64(&self, offset: u64) -> Result<OwnedU64, AccessError> {
        let word = NonNull::from(self.mapping.u64_at(offset)?);
        // SAFETY: `u64_at` found the word inside this mapping.
        Ok(unsafe { OwnedU64::new(self.clone(), word) })
    }

    /// Copies the bytes from `offset` on into `bytes`. Bytes that are written meanwhile may be old, new or mixed.
    ///
    /// # Errors
    /// Outside of the region; nothing was copied.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), AccessError> {
        self.span(offset, bytes.len() as u64)?.read_at(0, bytes)
    }

    /// A view of `len` bytes from `offset` on.
    ///
    /// # Errors
    /// Outside of the region.
    #[inline]
    pub fn span(&self, offset: u64, len: u64) -> Result<Span<'_>, AccessError> {
        let start = self.mapping.range(offset, len)?;
        // SAFETY: `range` found all `len` bytes inside the mapping, which this borrow keeps alive.
        Ok(unsafe { Span::new(start, len as usize) })
    }

    /// As [`Region::span`], without a borrow: keeps the mapping alive.
    ///
    /// # Errors
    /// As [`Region::span`].
    pub fn shared_span(&self, offset: u64, len: u64) -> Result<SharedSpan, AccessError> {
        let start = self.mapping.range(offset, len)?;
        // SAFETY: `range` found all `len` bytes inside the mapping, which the clone keeps alive.
        Ok(unsafe { SharedSpan::new(self.clone(), start, len as usize) })
    }

    /// Pins the pages in memory, so that no access waits for a disk (TP-057).
    ///
    /// # Errors
    /// What the kernel says, usually that RLIMIT_MEMLOCK is too low.
    pub fn lock_pages(&self) -> io::Result<()> {
        let Mapping { base, map_len, .. } = *self.mapping;
        // SAFETY: the range is exactly our mapping; locking changes no contents.
        Ok(unsafe { mlock(base.as_ptr().cast(), map_len) }?)
    }

    /// Makes the pages present, so that the first access to each does not enter the kernel. Kernels older than 5.14 do
    /// nothing; they pay at the first access.
    pub(super) fn populate(&self) {
        let Mapping { base, map_len, .. } = *self.mapping;
        // SAFETY: the range is exactly our mapping; bringing pages in changes no contents.
        let _ = unsafe { madvise(base.as_ptr().cast(), map_len, Advice::LinuxPopulateRead) };
    }

    /// Maps `len` bytes of the file for reading.
    pub(super) fn map(fd: BorrowedFd<'_>, len: u64, round_to: u64) -> Result<Self, MapError> {
        Ok(Self { mapping: Arc::new(Mapping::new(fd, len, round_to, ProtFlags::READ)?) })
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A mapping that this handle can read and write. Everything a [`Region`] can do, it can do as well.
///
/// Writing takes `&self`: other processes write at the same time anyway, so exclusiveness inside this one would promise
/// nothing. Who writes where is for the protocol above to say.
#[derive(Clone)]
pub struct RegionMut {
    /// Mapped writable: `map` is the only place that makes one.
    region: Region,
}

impl RegionMut {
    /// The 4-byte word at `offset`, to be loaded and stored atomically.
    ///
    /// # Errors
    /// As [`Region::atomic_u32`].
    pub fn atomic_u32(&self, offset: u64) -> Result<SharedU32Mut<'_>, AccessError> {
        let word = self.region.mapping.u32_at(offset)?;
        // SAFETY: the mapping of a `RegionMut` is writable.
        Ok(unsafe { SharedU32Mut::new(word) })
    }

    /// The 8-byte word at `offset`, to be loaded and stored atomically.
    ///
    /// # Errors
    /// As [`Region::atomic_u64`].
    pub fn atomic_u64(&self, offset: u64) -> Result<SharedU64Mut<'_>, AccessError> {
        let word = self.region.mapping.u64_at(offset)?;
        // SAFETY: the mapping of a `RegionMut` is writable.
        Ok(unsafe { SharedU64Mut::new(word) })
    }

    /// Copies `bytes` to `offset`. A reader may see any mixture of old and new bytes meanwhile.
    ///
    /// # Errors
    /// Outside of the region; nothing was written.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), AccessError> {
        self.span_mut(offset, bytes.len() as u64)?.write_at(0, bytes)
    }

    /// Sets `len` bytes from `offset` on to `byte`.
    ///
    /// # Errors
    /// Outside of the region; nothing was written.
    pub fn fill(&self, offset: u64, len: u64, byte: u8) -> Result<(), AccessError> {
        self.span_mut(offset, len)?.fill(byte);
        Ok(())
    }

    /// Sets all bytes to zero.
    pub(super) fn zero(&self) {
        // SAFETY: the whole mapping, which is writable.
        unsafe { SpanMut::new(self.region.mapping.base, self.region.mapping.len) }.fill(0);
    }

    /// A writable view of `len` bytes from `offset` on.
    ///
    /// # Errors
    /// Outside of the region.
    #[inline]
    pub fn span_mut(&self, offset: u64, len: u64) -> Result<SpanMut<'_>, AccessError> {
        let start = self.region.mapping.range(offset, len)?;
        // SAFETY: `range` found all `len` bytes inside the mapping, which is writable and kept alive by this borrow.
        Ok(unsafe { SpanMut::new(start, len as usize) })
    }

    /// As [`RegionMut::span_mut`], without a borrow: keeps the mapping alive.
    ///
    /// # Errors
    /// As [`RegionMut::span_mut`].
    pub fn shared_span_mut(&self, offset: u64, len: u64) -> Result<SharedSpanMut, AccessError> {
        let span = self.region.shared_span(offset, len)?;
        // SAFETY: the mapping of a `RegionMut` is writable.
        Ok(unsafe { SharedSpanMut::new(span) })
    }

    /// Writes the mapped pages back to the file and waits for it; on tmpfs there is nothing to do (TP-053).
    ///
    /// # Errors
    /// What the kernel says; the data may not be on the disk.
    pub fn sync(&self) -> io::Result<()> {
        let Mapping { base, map_len, .. } = *self.region.mapping;
        // SAFETY: the range is exactly our mapping; writing back changes no contents.
        Ok(unsafe { msync(base.as_ptr().cast(), map_len, MsyncFlags::SYNC) }?)
    }

    /// A handle to the same mapping that cannot write.
    pub fn as_region(&self) -> &Region {
        &self.region
    }

    /// Maps `len` bytes of the file for reading and writing.
    pub(super) fn map(fd: BorrowedFd<'_>, len: u64, round_to: u64) -> Result<Self, MapError> {
        let mapping = Mapping::new(fd, len, round_to, ProtFlags::READ | ProtFlags::WRITE)?;
        Ok(Self { region: Region { mapping: Arc::new(mapping) } })
    }
}

impl Deref for RegionMut {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.region
    }
}

impl fmt::Debug for RegionMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionMut").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A range that a region or span does not have, or does not have in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The range ends behind the last byte.
    #[error("{len} bytes at offset {offset} are not inside the {available} bytes there are")]
    OutOfBounds {
        /// First byte asked for.
        offset: u64,
        /// Number of bytes asked for.
        len: u64,
        /// Length of the region or span.
        available: u64,
    },
    /// An atomic word must lie on a multiple of its size.
    #[error("offset {offset} is not a multiple of {align}, as an atomic word needs it")]
    Misaligned {
        /// Offset asked for.
        offset: u64,
        /// Size and alignment of the word.
        align: u64,
    },
    /// Mapped for reading only, by the rights of this handle.
    #[error("{len} bytes at offset {offset} are read-only; this handle may write from {start} to {end}")]
    ReadOnly {
        /// First byte asked for.
        offset: u64,
        /// Number of bytes asked for.
        len: u64,
        /// First byte that may be written.
        start: u64,
        /// One past the last byte that may be written.
        end: u64,
    },
    /// The mapping is that of the process which this one was forked from (DH-011).
    #[error(transparent)]
    Forked(#[from] Forked),
    /// A copy of a whole span needs as many bytes on the other side.
    #[error("{given} bytes were given where the span has {expected}")]
    LengthDiffers {
        /// Bytes on the private side.
        given: u64,
        /// Length of the span.
        expected: u64,
    },
}

/// Why a file could not be mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The file ends before the range that will be used; touching the rest would raise SIGBUS.
    #[error(
        "the file has {found} bytes, {required} are needed; it is damaged or was made with another layout"
    )]
    TooShort {
        /// Bytes needed.
        required: u64,
        /// Bytes the file has.
        found: u64,
    },
    /// No bytes, or more than an address space holds.
    #[error("{len} bytes cannot be mapped")]
    InvalidLength {
        /// Bytes asked for.
        len: u64,
    },
    /// The file was opened for reading only.
    #[error("the file was opened read-only and cannot be mapped for writing; open it with read-write access")]
    ReadOnlyFile,
    /// The kernel refused.
    #[error("the kernel refused to map {len} bytes")]
    Kernel {
        /// Bytes asked for.
        len: u64,
        /// What it said.
        source: io::Error,
    },
}

/// The mapped pages. Holds the facts every `unsafe` of this module relies on: from `base` on, `len` bytes are mapped
/// until the value is dropped, and `base` is page aligned.
pub(super) struct Mapping {
    pub(super) base: NonNull<u8>,
    /// Bytes that may be touched.
    len: usize,
    /// Bytes that the kernel mapped: `len` rounded up to whole huge pages where needed.
    pub(super) map_len: usize,
    /// The process that has it, when the mapping is left out of forks.
    owner: Option<ForkGuard>,
}

// SAFETY: the fields never change and the memory behind `base` is only touched by atomics and opaque copies, which any
// number of threads may do at the same time.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of the file, shared. `round_to` is the page size of the file system, or 0 or 1 for
    /// ordinary pages.
    fn new(fd: BorrowedFd<'_>, len: u64, round_to: u64, protection: ProtFlags) -> Result<Self, MapError> {
        let invalid = MapError::InvalidLength { len };
        if len == 0 || len > isize::MAX as u64 {
            return Err(invalid);
        }
        let Some(map_len) = len.checked_next_multiple_of(round_to.max(1)).filter(|&n| n <= isize::MAX as u64)
        else {
            return Err(invalid);
        };
        let (len, map_len) = (len as usize, map_len as usize);
        // SAFETY: a null hint makes a new mapping, which cannot touch existing memory.
        let base = unsafe { mmap(std::ptr::null_mut(), map_len, protection, MapFlags::SHARED, fd, 0) };
        let base = base.map_err(|errno| MapError::Kernel { len: len as u64, source: errno.into() })?;
        // mmap without MAP_FIXED never returns null.
        let base = NonNull::new(base.cast()).ok_or(invalid)?;
        Ok(Self { base, len, map_len, owner: None })
    }

    /// As [`Mapping::new`], left out of forks, and writable only in the pages around `writable`.
    pub(super) fn new_guarded(
        fd: BorrowedFd<'_>,
        len: u64,
        round_to: u64,
        writable: &Range<u64>,
        owner: ForkGuard,
    ) -> Result<Self, MapError> {
        let refused = |errno: Errno| MapError::Kernel { len, source: errno.into() };
        let mut mapping = Self::new(fd, len, round_to, ProtFlags::READ)?;
        mapping.owner = Some(owner);
        let Self { base, map_len, .. } = mapping;
        // SAFETY: exactly our mapping; what forked children have does not matter to this process.
        unsafe { madvise(base.as_ptr().cast(), map_len, Advice::LinuxDontFork) }.map_err(refused)?;
        if writable.is_empty() {
            return Ok(mapping);
        }
        mapping
            .range(writable.start, writable.end - writable.start)
            .map_err(|_| MapError::TooShort { required: writable.end, found: len })?;
        let page = (round_to as usize).max(page_size());
        let start = writable.start as usize / page * page;
        // Does not overflow: the kernel mapped whole pages, and the range ends inside of them.
        let size = (writable.end as usize).next_multiple_of(page) - start;
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: `start` is inside the mapping.
        let pages = unsafe { base.add(start) };
        // SAFETY: whole pages of our mapping, which nothing can point into yet.
        unsafe { mprotect(pages.as_ptr().cast(), size, access) }.map_err(refused)?;
        Ok(mapping)
    }

    /// The address of `offset` if `len` bytes from there on are inside, and this process has them.
    #[inline]
    pub(super) fn range(&self, offset: u64, len: u64) -> Result<NonNull<u8>, AccessError> {
        if let Some(owner) = &self.owner {
            owner.check()?;
        }
        let available = self.len as u64;
        match offset.checked_add(len) {
            // SAFETY: `offset` is at most the mapped length, so the address is inside the mapping or one past it.
            Some(end) if end <= available => Ok(unsafe { self.base.add(offset as usize) }),
            _ => Err(AccessError::OutOfBounds { offset, len, available }),
        }
    }

    pub(super) fn u32_at(&self, offset: u64) -> Result<&MappedU32, AccessError> {
        let start = self.word(offset, 4)?;
        // SAFETY: 4 mapped bytes at a multiple of 4, alive as long as `self`; they are only touched atomically or by
        // opaque copies. On read-only pages only loads happen, see `word`.
        Ok(unsafe { MappedU32::from_ptr(start.as_ptr().cast()) })
    }

    pub(super) fn u64_at(&self, offset: u64) -> Result<&MappedU64, AccessError> {
        let start = self.word(offset, 8)?;
        // SAFETY: as in `u32_at`, for 8 bytes.
        Ok(unsafe { MappedU64::from_ptr(start.as_ptr().cast()) })
    }

    fn word(&self, offset: u64, size: u64) -> Result<NonNull<u8>, AccessError> {
        if !offset.is_multiple_of(size) {
            return Err(AccessError::Misaligned { offset, align: size });
        }
        self.range(offset, size)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.owner.is_some_and(|owner| owner.check().is_err()) {
            // A forked child does not have the mapping, and may have another one in its place.
            return;
        }
        // SAFETY: exactly the range that was mapped; every pointer into it is bound to a handle of this mapping.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.map_len) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}
