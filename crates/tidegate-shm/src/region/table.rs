//! Records and tables: words at fixed offsets, checked once.
//!
//! A [`Record`] is a piece of a region of which all field offsets are known when compiling, a [`Table`] a row of equal
//! records. Where they lie is checked when they are made, where a field lies in a record is checked by the compiler, so
//! that all that is left per access is comparing the number of the row. Whether the mapping is this process's is checked
//! when they are made as well; who keeps them over a fork asks [`GuardedRegion::check`](super::GuardedRegion::check) first.
//!
//! ```text
//!  GuardedRegion --record::<64>(offset)----------> Record<64>  --row()----> Row<64> --u64::<0x18>()--> SharedU64
//!                --table::<64>(offset, 8)--------> Table<64>   --row(3)---> Row<64>
//!                --pieces(offset, 8, 50, 64)-----> Pieces      --get(3)---> Span
//!                --record_mut, table_mut, pieces_mut--> the same with words or bytes that can be changed
//! ```

use std::{fmt, marker::PhantomData, ptr::NonNull};

use super::{
    ahead,
    mapping::Region,
    span::{Span, SpanMut},
    word::{SharedU32, SharedU32Mut, SharedU64, SharedU64Mut},
};
use crate::sync::{MappedU32, MappedU64};

/// Bytes of the longest record that [`RowMut::nowhere`] can stand for.
const NOWHERE_LEN: usize = 4096;

/// Words that belong to no region.
static NOWHERE: [MappedU64; NOWHERE_LEN / 8] = [const { MappedU64::new(0) }; NOWHERE_LEN / 8];

/// One record of `SIZE` bytes, to be read.
#[derive(Clone, Copy)]
pub struct Row<'a, const SIZE: usize> {
    /// `SIZE` mapped bytes, at a multiple of 8.
    start: NonNull<u8>,
    region: PhantomData<&'a Region>,
}

// SAFETY: only hands out atomics and spans, which may be sent and shared; the lifetime keeps them mapped.
unsafe impl<const SIZE: usize> Send for Row<'_, SIZE> {}
// SAFETY: as above.
unsafe impl<const SIZE: usize> Sync for Row<'_, SIZE> {}

impl<'a, const SIZE: usize> Row<'a, SIZE> {
    /// # Safety
    /// `SIZE` bytes from `start` on are mapped for as long as `'a`, and `start` is a multiple of 8.
    #[inline]
    pub(super) unsafe fn new(start: NonNull<u8>) -> Self {
        Self { start, region: PhantomData }
    }

    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Fetches the beginning of the record, which is going to be read.
    #[inline]
    pub fn fetch(&self) {
        ahead::to_read(self.start.as_ptr());
    }

    /// The 4-byte word at `AT`.
    #[inline]
    pub fn u32<const AT: usize>(&self) -> SharedU32<'a> {
        SharedU32::new(self.word_u32::<AT>())
    }

    /// The 8-byte word at `AT`.
    #[inline]
    pub fn u64<const AT: usize>(&self) -> SharedU64<'a> {
        SharedU64::new(self.word_u64::<AT>())
    }

    /// The `LEN` bytes at `AT`.
    #[inline]
    pub fn bytes<const AT: usize, const LEN: usize>(&self) -> Span<'a> {
        let start = self.field::<AT, LEN, 1>();
        // SAFETY: `field` has `LEN` mapped bytes, which live as long as the record.
        unsafe { Span::new(start, LEN) }
    }

    #[inline]
    fn word_u32<const AT: usize>(&self) -> &'a MappedU32 {
        let start = self.field::<AT, 4, 4>();
        // SAFETY: 4 mapped bytes at a multiple of 4 for as long as `'a`; they are only touched atomically or by opaque
        // copies, and on read-only pages only loaded.
        unsafe { MappedU32::from_ptr(start.as_ptr().cast()) }
    }

    #[inline]
    fn word_u64<const AT: usize>(&self) -> &'a MappedU64 {
        let start = self.field::<AT, 8, 8>();
        // SAFETY: as in `word_u32`, for 8 bytes.
        unsafe { MappedU64::from_ptr(start.as_ptr().cast()) }
    }

    /// The address of a field of `LEN` bytes, a multiple of `ALIGN`.
    #[inline]
    fn field<const AT: usize, const LEN: usize, const ALIGN: usize>(&self) -> NonNull<u8> {
        const {
            assert!(AT.is_multiple_of(ALIGN), "a word lies on a multiple of its size");
            assert!(AT <= SIZE && LEN <= SIZE - AT, "a field lies inside its record");
        }
        // SAFETY: `AT` is inside the `SIZE` bytes of the record, as just asserted.
        unsafe { self.start.add(AT) }
    }
}

/// One record of `SIZE` bytes, to be read and written.
#[derive(Clone, Copy)]
pub struct RowMut<'a, const SIZE: usize> {
    /// Lies in a writable part of the mapping.
    row: Row<'a, SIZE>,
}

impl<'a, const SIZE: usize> RowMut<'a, SIZE> {
    /// # Safety
    /// The row lies in a writable part of its mapping.
    #[inline]
    pub(super) unsafe fn new(row: Row<'a, SIZE>) -> Self {
        Self { row }
    }

    /// Fetches the beginning of the record, which is going to be written.
    #[inline]
    pub fn fetch(&self) {
        ahead::to_write(self.row.start.as_ptr());
    }

    /// The 4-byte word at `AT`.
    #[inline]
    pub fn u32<const AT: usize>(&self) -> SharedU32Mut<'a> {
        let word = self.row.word_u32::<AT>();
        // SAFETY: the row of a `RowMut` is writable.
        unsafe { SharedU32Mut::new(word) }
    }

    /// The 8-byte word at `AT`.
    #[inline]
    pub fn u64<const AT: usize>(&self) -> SharedU64Mut<'a> {
        let word = self.row.word_u64::<AT>();
        // SAFETY: the row of a `RowMut` is writable.
        unsafe { SharedU64Mut::new(word) }
    }

    /// The `LEN` bytes at `AT`.
    #[inline]
    pub fn bytes<const AT: usize, const LEN: usize>(&self) -> SpanMut<'a> {
        let start = self.row.field::<AT, LEN, 1>();
        // SAFETY: `field` has `LEN` mapped bytes, which live as long as the record; the row of a `RowMut` is writable.
        unsafe { SpanMut::new(start, LEN) }
    }

    /// A record that lies in no region, for code that has to answer for a record that does not exist. What is stored
    /// there goes nowhere but to others that do the same.
    #[cold]
    pub fn nowhere() -> Self {
        const { assert!(SIZE <= NOWHERE_LEN, "a record that does not exist is no longer than a page") };
        // The words are changed only atomically, like those of a mapping.
        let start = NonNull::from(&NOWHERE).cast();
        Self { row: Row { start, region: PhantomData } }
    }

    /// The same record without the right to write.
    #[inline]
    pub fn as_row(&self) -> Row<'a, SIZE> {
        self.row
    }
}

/// A row of `rows` records of `SIZE` bytes each, to be read. Keeps its mapping alive.
#[derive(Clone)]
pub struct Table<const SIZE: usize> {
    region: Region,
    /// `rows * SIZE` mapped bytes, at a multiple of 8.
    start: NonNull<u8>,
    rows: u32,
}

// SAFETY: only hands out `Row`s, that is atomics and spans, of a mapping that `region` keeps alive.
unsafe impl<const SIZE: usize> Send for Table<SIZE> {}
// SAFETY: as above.
unsafe impl<const SIZE: usize> Sync for Table<SIZE> {}

impl<const SIZE: usize> Table<SIZE> {
    /// # Safety
    /// `rows * SIZE` bytes from `start` on lie in `region`, and `start` is a multiple of 8.
    pub(super) unsafe fn new(region: Region, start: NonNull<u8>, rows: u32) -> Self {
        const { assert!(SIZE > 0 && SIZE.is_multiple_of(8), "every record of a table is aligned for its words") };
        Self { region, start, rows }
    }

    /// Number of records.
    #[inline]
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Record `index`, if there is one.
    #[inline]
    pub fn row(&self, index: u32) -> Option<Row<'_, SIZE>> {
        if index >= self.rows {
            return None;
        }
        // SAFETY: record `index` is one of the `rows` that lie in the mapping, so its address does, too.
        let start = unsafe { self.start.add(index as usize * SIZE) };
        Some(Row { start, region: PhantomData })
    }

    /// All records in order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_, SIZE>> {
        (0..self.rows).filter_map(|index| self.row(index))
    }

    /// The region the table lies in.
    pub fn region(&self) -> &Region {
        &self.region
    }
}

impl<const SIZE: usize> fmt::Debug for Table<SIZE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("record_size", &SIZE).field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// A row of records to be read and written. Keeps its mapping alive.
#[derive(Clone, Debug)]
pub struct TableMut<const SIZE: usize> {
    /// Lies in a writable part of the mapping.
    table: Table<SIZE>,
}

impl<const SIZE: usize> TableMut<SIZE> {
    /// # Safety
    /// The table lies in a writable part of its mapping.
    pub(super) unsafe fn new(table: Table<SIZE>) -> Self {
        Self { table }
    }

    /// Number of records.
    #[inline]
    pub fn rows(&self) -> u32 {
        self.table.rows
    }

    /// Record `index`, if there is one.
    #[inline]
    pub fn row(&self, index: u32) -> Option<RowMut<'_, SIZE>> {
        self.table.row(index).map(|row| RowMut { row })
    }

    /// All records in order.
    pub fn iter(&self) -> impl Iterator<Item = RowMut<'_, SIZE>> {
        self.table.iter().map(|row| RowMut { row })
    }

    /// The same table without the right to write.
    pub fn as_table(&self) -> &Table<SIZE> {
        &self.table
    }
}

/// Equal pieces of bytes, one every so many bytes, to be read. Keeps its mapping alive.
#[derive(Clone)]
pub struct Pieces {
    /// Keeps them mapped.
    _region: Region,
    /// Piece `i` of the `count` is the `len` mapped bytes at `i * stride`.
    start: NonNull<u8>,
    count: u32,
    len: usize,
    stride: usize,
}

// SAFETY: only hands out spans of a mapping that `_region` keeps alive.
unsafe impl Send for Pieces {}
// SAFETY: as above.
unsafe impl Sync for Pieces {}

impl Pieces {
    /// # Safety
    /// For every `i` below `count`, the `len` bytes at `start + i * stride` lie in `region`.
    pub(super) unsafe fn new(
        region: Region,
        start: NonNull<u8>,
        count: u32,
        len: usize,
        stride: usize,
    ) -> Self {
        Self { _region: region, start, count, len, stride }
    }

    /// Number of pieces.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Piece `index`, if there is one.
    #[inline]
    pub fn get(&self, index: u32) -> Option<Span<'_>> {
        let start = self.start_of(index)?;
        // SAFETY: the piece lies in the mapping, which this borrow keeps alive.
        Some(unsafe { Span::new(start, self.len) })
    }

    /// Where piece `index` begins: its `len` bytes lie in the mapping.
    #[inline]
    fn start_of(&self, index: u32) -> Option<NonNull<u8>> {
        // SAFETY: piece `index` is one of the `count` that lie in the mapping, so its address does, too.
        (index < self.count).then(|| unsafe { self.start.add(index as usize * self.stride) })
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { _region: _, start: _, count, len, stride } = self;
        let mut shown = f.debug_struct("Pieces");
        shown.field("count", count).field("len", len).field("stride", stride).finish_non_exhaustive()
    }
}

/// Equal pieces of bytes, to be read and written. Keeps its mapping alive.
#[derive(Clone, Debug)]
pub struct PiecesMut {
    /// Lie in a writable part of the mapping.
    pieces: Pieces,
}

impl PiecesMut {
    /// # Safety
    /// The pieces lie in a writable part of their mapping.
    pub(super) unsafe fn new(pieces: Pieces) -> Self {
        Self { pieces }
    }

    /// Number of pieces.
    #[inline]
    pub fn count(&self) -> u32 {
        self.pieces.count
    }

    /// Piece `index`, if there is one.
    #[inline]
    pub fn get(&self, index: u32) -> Option<SpanMut<'_>> {
        let start = self.pieces.start_of(index)?;
        // SAFETY: the piece lies in the mapping, which this borrow keeps alive, and is writable.
        Some(unsafe { SpanMut::new(start, self.pieces.len) })
    }
}

/// A single record, to be read. Keeps its mapping alive.
#[derive(Clone, Debug)]
pub struct Record<const SIZE: usize> {
    /// Has one row.
    table: Table<SIZE>,
}

impl<const SIZE: usize> Record<SIZE> {
    /// # Safety
    /// The table has at least one row.
    pub(super) unsafe fn new(table: Table<SIZE>) -> Self {
        Self { table }
    }

    /// Its fields.
    #[inline]
    pub fn row(&self) -> Row<'_, SIZE> {
        Row { start: self.table.start, region: PhantomData }
    }
}

/// A single record, to be read and written. Keeps its mapping alive.
#[derive(Clone, Debug)]
pub struct RecordMut<const SIZE: usize> {
    /// Lies in a writable part of the mapping.
    record: Record<SIZE>,
}

impl<const SIZE: usize> RecordMut<SIZE> {
    /// # Safety
    /// The record lies in a writable part of its mapping.
    pub(super) unsafe fn new(record: Record<SIZE>) -> Self {
        Self { record }
    }

    /// Its fields.
    #[inline]
    pub fn row(&self) -> RowMut<'_, SIZE> {
        RowMut { row: self.record.row() }
    }

    /// The same record without the right to write.
    pub fn as_record(&self) -> &Record<SIZE> {
        &self.record
    }
}
