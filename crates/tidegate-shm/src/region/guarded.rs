//! One mapping of which a part may be written, left out of forks.
//!
//! ```text
//!  offset 0            writable.start        writable.end               len
//!  |     read-only     |      read-write     |        read-only         |
//! ```
//!
//! The whole file is mapped read-only in one piece and the kernel is then asked to let the pages of the writable range
//! be written, so a stray store to another page faults. Pages are the grain: on hugetlbfs, where one page holds many
//! small areas, and wherever the range does not begin and end on a page, neighbours become writable as well, but this
//! handle still refuses to write them.

use std::{fmt, ops::Deref, ops::Range, os::fd::BorrowedFd, ptr::NonNull, sync::Arc};

use super::{
    mapping::{AccessError, MapError, Mapping, Region},
    span::{SharedSpanMut, SpanMut},
    table::{Pieces, PiecesMut, Record, RecordMut, Table, TableMut},
    word::{SharedU32Mut, SharedU64Mut},
};
use crate::fork::{ForkGuard, Forked};

/// A mapping that can be read everywhere and written in one range. Everything a [`Region`] can do, it can do as well.
///
/// The mapping does not exist in forked children, where the kernel may have put something else in its place, so no view of
/// it is given out there ([`AccessError::Forked`]). Views, tables and records that were made before the fork are not asked
/// again at each word: an operation on kept ones begins with [`GuardedRegion::check`]. Cloning is cheap and gives another
/// handle to the same mapping.
#[derive(Clone)]
pub struct GuardedRegion {
    region: Region,
    /// Mapped writable, and inside of the region.
    writable: Range<u64>,
    guard: ForkGuard,
}

impl GuardedRegion {
    /// Maps `len` bytes of the file, `writable` of them for writing.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        len: u64,
        round_to: u64,
        writable: Range<u64>,
    ) -> Result<Self, MapError> {
        let guard = ForkGuard::new().map_err(|source| MapError::Kernel { len, source })?;
        let mapping = Mapping::new_guarded(fd, len, round_to, &writable, guard)?;
        Ok(Self { region: Region { mapping: Arc::new(mapping) }, writable, guard })
    }

    /// See [`Region::populate`].
    pub(super) fn populate(&self) {
        self.region.populate();
    }

    /// Whether this process made the handle; nothing may be touched otherwise.
    ///
    /// # Errors
    /// [`Forked`] in a forked child, where the mapping does not exist (DH-011).
    #[inline]
    pub fn check(&self) -> Result<(), Forked> {
        self.guard.check()
    }

    /// The guard that [`GuardedRegion::check`] asks.
    pub fn guard(&self) -> ForkGuard {
        self.guard
    }

    /// The bytes this handle may write.
    pub fn writable(&self) -> Range<u64> {
        self.writable.clone()
    }

    /// The 4-byte word at `offset`, to be loaded and stored atomically.
    ///
    /// # Errors
    /// As [`Region::atomic_u32`], and [`AccessError::ReadOnly`] outside of the writable range.
    pub fn atomic_u32_mut(&self, offset: u64) -> Result<SharedU32Mut<'_>, AccessError> {
        let word = self.region.mapping.u32_at(offset)?;
        self.check_writable(offset, 4)?;
        // SAFETY: the writable range is mapped writable.
        Ok(unsafe { SharedU32Mut::new(word) })
    }

    /// The 8-byte word at `offset`, to be loaded and stored atomically.
    ///
    /// # Errors
    /// As [`Region::atomic_u64`], and [`AccessError::ReadOnly`] outside of the writable range.
    pub fn atomic_u64_mut(&self, offset: u64) -> Result<SharedU64Mut<'_>, AccessError> {
        let word = self.region.mapping.u64_at(offset)?;
        self.check_writable(offset, 8)?;
        // SAFETY: the writable range is mapped writable.
        Ok(unsafe { SharedU64Mut::new(word) })
    }

    /// A writable view of `len` bytes from `offset` on.
    ///
    /// # Errors
    /// Outside of the region, or [`AccessError::ReadOnly`] outside of the writable range.
    #[inline]
    pub fn span_mut(&self, offset: u64, len: u64) -> Result<SpanMut<'_>, AccessError> {
        let start = self.writable_range(offset, len)?;
        // SAFETY: `writable_range` found all `len` bytes inside the writable part of the mapping, which this borrow
        // keeps alive.
        Ok(unsafe { SpanMut::new(start, len as usize) })
    }

    /// As [`GuardedRegion::span_mut`], without a borrow: keeps the mapping alive.
    ///
    /// # Errors
    /// As [`GuardedRegion::span_mut`].
    pub fn shared_span_mut(&self, offset: u64, len: u64) -> Result<SharedSpanMut, AccessError> {
        self.writable_range(offset, len)?;
        let span = self.region.shared_span(offset, len)?;
        // SAFETY: `writable_range` found all bytes inside the writable part.
        Ok(unsafe { SharedSpanMut::new(span) })
    }

    /// The table of `rows` records of `SIZE` bytes that begins at `offset`.
    ///
    /// # Errors
    /// Outside of the region, or `offset` not a multiple of 8.
    pub fn table<const SIZE: usize>(&self, offset: u64, rows: u32) -> Result<Table<SIZE>, AccessError> {
        let start = self.table_start::<SIZE>(offset, rows)?;
        // SAFETY: `table_start` found all rows inside the mapping, at a multiple of 8.
        Ok(unsafe { Table::new(self.region.clone(), start, rows) })
    }

    /// The same table with the right to write.
    ///
    /// # Errors
    /// As [`GuardedRegion::table`], and [`AccessError::ReadOnly`] outside of the writable range.
    pub fn table_mut<const SIZE: usize>(
        &self,
        offset: u64,
        rows: u32,
    ) -> Result<TableMut<SIZE>, AccessError> {
        let table = self.table(offset, rows)?;
        self.check_writable(offset, u64::from(rows) * SIZE as u64)?;
        // SAFETY: all of it is inside the writable range.
        Ok(unsafe { TableMut::new(table) })
    }

    /// The `count` pieces of `len` bytes each, of which the first begins at `offset` and each next one `stride` bytes on.
    ///
    /// # Errors
    /// Outside of the region.
    pub fn pieces(&self, offset: u64, count: u32, len: u64, stride: u64) -> Result<Pieces, AccessError> {
        let start = self.region.mapping.range(offset, pieces_len(count, len, stride))?;
        let region = self.region.clone();
        // SAFETY: `range` found the bytes from the first piece to the end of the last one inside the mapping; that none
        // of the numbers is longer than the mapping, except where there is no second piece to step to, follows.
        Ok(unsafe { Pieces::new(region, start, count, len as usize, stride as usize) })
    }

    /// The same pieces with the right to write.
    ///
    /// # Errors
    /// As [`GuardedRegion::pieces`], and [`AccessError::ReadOnly`] outside of the writable range.
    pub fn pieces_mut(
        &self,
        offset: u64,
        count: u32,
        len: u64,
        stride: u64,
    ) -> Result<PiecesMut, AccessError> {
        let pieces = self.pieces(offset, count, len, stride)?;
        self.check_writable(offset, pieces_len(count, len, stride))?;
        // SAFETY: all of them are inside the writable range.
        Ok(unsafe { PiecesMut::new(pieces) })
    }

    /// The record of `SIZE` bytes at `offset`.
    ///
    /// # Errors
    /// As [`GuardedRegion::table`].
    pub fn record<const SIZE: usize>(&self, offset: u64) -> Result<Record<SIZE>, AccessError> {
        let table = self.table(offset, 1)?;
        // SAFETY: the table has one row.
        Ok(unsafe { Record::new(table) })
    }

    /// The same record with the right to write.
    ///
    /// # Errors
    /// As [`GuardedRegion::table_mut`].
    pub fn record_mut<const SIZE: usize>(&self, offset: u64) -> Result<RecordMut<SIZE>, AccessError> {
        let record = self.record(offset)?;
        self.check_writable(offset, SIZE as u64)?;
        // SAFETY: all of it is inside the writable range.
        Ok(unsafe { RecordMut::new(record) })
    }

    fn table_start<const SIZE: usize>(&self, offset: u64, rows: u32) -> Result<NonNull<u8>, AccessError> {
        if !offset.is_multiple_of(8) {
            return Err(AccessError::Misaligned { offset, align: 8 });
        }
        // Cannot be what is asked for when it saturates: no region is that long.
        self.region.mapping.range(offset, u64::from(rows).saturating_mul(SIZE as u64))
    }

    #[inline]
    fn writable_range(&self, offset: u64, len: u64) -> Result<NonNull<u8>, AccessError> {
        let start = self.region.mapping.range(offset, len)?;
        self.check_writable(offset, len)?;
        Ok(start)
    }

    #[inline]
    fn check_writable(&self, offset: u64, len: u64) -> Result<(), AccessError> {
        let inside = offset >= self.writable.start
            && offset.checked_add(len).is_some_and(|end| end <= self.writable.end);
        if inside {
            return Ok(());
        }
        let Range { start, end } = self.writable;
        Err(AccessError::ReadOnly { offset, len, start, end })
    }
}

/// Bytes from the first piece to the end of the last one. Cannot be what is asked for when it saturates: no region is that
/// long.
fn pieces_len(count: u32, len: u64, stride: u64) -> u64 {
    match count.checked_sub(1) {
        Some(steps) => u64::from(steps).saturating_mul(stride).saturating_add(len),
        None => 0,
    }
}

impl Deref for GuardedRegion {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.region
    }
}

impl fmt::Debug for GuardedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedRegion")
            .field("len", &self.len())
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}
