//! Views of bytes that others may write at any moment.
//!
//! A span is to a slice what `Cell` is to a value: it can be read and written, never referenced. Two loads of one
//! element may differ, so load once, check, then use. Numbers are little-endian and may lie at any address.

use std::{fmt, marker::PhantomData, ops::Deref, ops::Range, ptr::NonNull};

use super::{
    ahead, copy,
    mapping::{AccessError, Region},
};

/// Untrusted bytes that can be read.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    start: NonNull<u8>,
    len: usize,
    region: PhantomData<&'a Region>,
}

// SAFETY: the bytes are only touched by loads that allow concurrent writing; the lifetime keeps them mapped.
unsafe impl Send for Span<'_> {}
// SAFETY: as above.
unsafe impl Sync for Span<'_> {}

impl<'a> Span<'a> {
    /// # Safety
    /// `len` bytes from `start` on are mapped for as long as `'a`.
    #[inline]
    pub(super) unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, region: PhantomData }
    }

    /// No bytes at all.
    #[inline]
    pub fn empty() -> Self {
        // SAFETY: no byte has to be mapped.
        unsafe { Self::new(NonNull::dangling(), 0) }
    }

    /// Private bytes, for code that reads untrusted and private ones alike.
    #[inline]
    pub fn private(bytes: &'a [u8]) -> Self {
        // SAFETY: the bytes of a slice are there for its lifetime, and spans only load.
        unsafe { Self::new(NonNull::from(bytes).cast(), bytes.len()) }
    }

    /// Fetches the beginning of the bytes, which are going to be read.
    #[inline]
    pub fn fetch(&self) {
        ahead::to_read(self.start.as_ptr());
    }

    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of the first byte, for code that is outside of Rust's rules (other languages, kernels of devices). What
    /// it reads may change meanwhile.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Copies the bytes from `offset` on into `bytes`.
    ///
    /// # Errors
    /// Outside of the span; nothing was copied.
    #[inline]
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<(), AccessError> {
        let source = self.check(offset, bytes.len())?;
        // SAFETY: `check` found that many mapped bytes at `source`; `bytes` is as long and exclusively ours.
        unsafe { copy::from_shared(source, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Appends `len` bytes from `offset` on to `bytes`.
    ///
    /// # Errors
    /// Outside of the span; nothing was copied.
    #[inline]
    pub fn append_to(&self, offset: usize, len: usize, bytes: &mut Vec<u8>) -> Result<(), AccessError> {
        let source = self.check(offset, len)?;
        bytes.reserve(len);
        let target = bytes.spare_capacity_mut().as_mut_ptr().cast();
        // SAFETY: `check` found that many mapped bytes at `source`; the vector has just made room for as many.
        unsafe { copy::from_shared(source, target, len) };
        // SAFETY: the `len` bytes behind the old ones have just been written.
        unsafe { bytes.set_len(bytes.len() + len) };
        Ok(())
    }

    /// Copies all bytes into `bytes`, which must have the same length.
    ///
    /// # Errors
    /// The lengths differ; nothing was copied.
    pub fn copy_to(&self, bytes: &mut [u8]) -> Result<(), AccessError> {
        same_length(bytes.len(), self.len)?;
        self.read_at(0, bytes)
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        // SAFETY: the span has `len` mapped bytes and the vector room for as many.
        unsafe { copy::from_shared(self.start.as_ptr(), bytes.as_mut_ptr(), self.len) };
        // SAFETY: the first `len` bytes have just been written.
        unsafe { bytes.set_len(self.len) };
        bytes
    }

    /// The part `range`.
    ///
    /// # Errors
    /// The range ends before it begins or outside of the span.
    #[inline]
    pub fn sub(&self, range: Range<usize>) -> Result<Span<'a>, AccessError> {
        let len = range_len(&range, self.len)?;
        let start = self.check(range.start, len)?;
        // SAFETY: a part of this span; the pointer is not null, being inside a mapping.
        let start = unsafe { NonNull::new_unchecked(start.cast_mut()) };
        // SAFETY: a part of this span lives as long as the span.
        Ok(unsafe { Span::new(start, len) })
    }

    /// Parts of `size` bytes each, from the first on; the last one may be shorter. A size of 0 gives nothing.
    pub fn chunks(&self, size: usize) -> Chunks<'a> {
        Chunks { rest: *self, size }
    }

    /// The address of `offset`, when `len` bytes from there on are inside.
    #[inline]
    fn check(&self, offset: usize, len: usize) -> Result<*const u8, AccessError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.start.as_ptr().wrapping_add(offset)),
            _ => Err(AccessError::OutOfBounds {
                offset: offset as u64,
                len: len as u64,
                available: self.len as u64,
            }),
        }
    }

    /// The address of element `index` of a row of elements of `size` bytes.
    #[inline]
    fn element(&self, index: usize, size: usize) -> Result<*const u8, AccessError> {
        self.check(index.saturating_mul(size), size)
    }
}

/// Defines loads of elements: aligned ones are single relaxed loads, others copies.
macro_rules! element_loads {
    ($($(#[$doc:meta])* $name:ident: $value:ty = $load:path as $raw:ty;)*) => {
        impl Span<'_> {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// Outside of the span.
                #[inline]
                pub fn $name(&self, index: usize) -> Result<$value, AccessError> {
                    let source = self.element(index, size_of::<$value>())?;
                    // SAFETY: `element` found that many mapped bytes at `source`.
                    let raw: $raw = unsafe { $load(source) };
                    Ok(<$value>::from_le_bytes(raw.to_le_bytes()))
                }
            )*
        }
    };
}

element_loads! {
    /// Byte `index`.
    load_u8: u8 = copy::load_u8 as u8;
    /// Element `index` of the span seen as a row of `u16`.
    load_u16: u16 = copy::load_u16 as u16;
    /// Element `index` of the span seen as a row of `u32`.
    load_u32: u32 = copy::load_u32 as u32;
    /// Element `index` of the span seen as a row of `u64`.
    load_u64: u64 = copy::load_u64 as u64;
    /// Element `index` of the span seen as a row of `f32`.
    load_f32: f32 = copy::load_u32 as u32;
    /// Element `index` of the span seen as a row of `f64`.
    load_f64: f64 = copy::load_u64 as u64;
}

impl fmt::Debug for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Untrusted bytes that can be read and written. Everything a [`Span`] can do, it can do as well.
#[derive(Clone, Copy, Debug)]
pub struct SpanMut<'a> {
    span: Span<'a>,
}

impl<'a> SpanMut<'a> {
    /// Fetches the beginning of the bytes, which are going to be written.
    #[inline]
    pub fn fetch(&self) {
        ahead::to_write(self.as_ptr());
    }

    /// # Safety
    /// As for [`Span::new`], and the mapping is writable.
    #[inline]
    pub(super) unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        // SAFETY: passed on to the caller.
        Self { span: unsafe { Span::new(start, len) } }
    }

    /// No bytes at all.
    #[inline]
    pub fn empty() -> Self {
        Self { span: Span::empty() }
    }

    /// Address of the first byte, for code that is outside of Rust's rules.
    #[inline]
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.span.start.as_ptr()
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// Outside of the span; nothing was written.
    #[inline]
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<(), AccessError> {
        let target = self.span.check(offset, bytes.len())?.cast_mut();
        // SAFETY: `check` found that many mapped bytes at `target`, which are writable; `bytes` cannot overlap a
        // mapping, to which no reference exists.
        unsafe { copy::to_shared(bytes.as_ptr(), target, bytes.len()) };
        Ok(())
    }

    /// Copies `bytes`, which must have the same length, over the whole span.
    ///
    /// # Errors
    /// The lengths differ; nothing was written.
    pub fn copy_from(&self, bytes: &[u8]) -> Result<(), AccessError> {
        same_length(bytes.len(), self.len())?;
        self.write_at(0, bytes)
    }

    /// Copies another span, which must have the same length, over the whole span, without a stop in private memory. If
    /// the two overlap, the result is some mixture of both.
    ///
    /// # Errors
    /// The lengths differ; nothing was written.
    pub fn copy_from_span(&self, source: Span<'_>) -> Result<(), AccessError> {
        same_length(source.len(), self.len())?;
        // SAFETY: both spans have `len` mapped bytes, the target is writable.
        unsafe { copy::between_shared(source.as_ptr(), self.as_mut_ptr(), self.len()) };
        Ok(())
    }

    /// Sets all bytes to `byte`.
    pub fn fill(&self, byte: u8) {
        // SAFETY: the span has `len` mapped, writable bytes.
        unsafe { copy::fill_shared(self.as_mut_ptr(), byte, self.len()) };
    }

    /// The part `range`, writable.
    ///
    /// # Errors
    /// As [`Span::sub`].
    pub fn sub_mut(&self, range: Range<usize>) -> Result<SpanMut<'a>, AccessError> {
        Ok(SpanMut { span: self.span.sub(range)? })
    }
}

impl<'a> Deref for SpanMut<'a> {
    type Target = Span<'a>;

    #[inline]
    fn deref(&self) -> &Span<'a> {
        &self.span
    }
}

/// A [`Span`] that keeps its mapping alive by itself.
#[derive(Clone)]
pub struct SharedSpan {
    region: Region,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: only hands out `Span`s, which may be sent and shared, of a mapping that `region` keeps alive.
unsafe impl Send for SharedSpan {}
// SAFETY: as above.
unsafe impl Sync for SharedSpan {}

impl SharedSpan {
    /// # Safety
    /// `len` bytes from `start` on lie in `region`.
    #[inline]
    pub(super) unsafe fn new(region: Region, start: NonNull<u8>, len: usize) -> Self {
        Self { region, start, len }
    }

    /// The bytes, borrowed.
    #[inline]
    pub fn as_span(&self) -> Span<'_> {
        // SAFETY: the bytes lie in the mapping that `self.region` keeps alive.
        unsafe { Span::new(self.start, self.len) }
    }

    /// The region the bytes lie in.
    pub fn region(&self) -> &Region {
        &self.region
    }
}

impl fmt::Debug for SharedSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSpan").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A [`SpanMut`] that keeps its mapping alive by itself.
#[derive(Clone, Debug)]
pub struct SharedSpanMut {
    /// Lies in a writable mapping.
    span: SharedSpan,
}

impl SharedSpanMut {
    /// # Safety
    /// The span lies in a writable mapping.
    #[inline]
    pub(super) unsafe fn new(span: SharedSpan) -> Self {
        Self { span }
    }

    /// The bytes, borrowed for writing.
    #[inline]
    pub fn as_span_mut(&self) -> SpanMut<'_> {
        SpanMut { span: self.span.as_span() }
    }

    /// The same bytes without the right to write.
    pub fn as_shared_span(&self) -> &SharedSpan {
        &self.span
    }
}

/// The parts that [`Span::chunks`] gives.
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    rest: Span<'a>,
    size: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Span<'a>;

    fn next(&mut self) -> Option<Span<'a>> {
        let len = self.size.min(self.rest.len);
        if len == 0 {
            return None;
        }
        let chunk = self.rest.sub(0..len).ok()?;
        self.rest = self.rest.sub(len..self.rest.len).ok()?;
        Some(chunk)
    }
}

fn same_length(given: usize, wanted: usize) -> Result<(), AccessError> {
    if given == wanted {
        return Ok(());
    }
    Err(AccessError::LengthDiffers { given: given as u64, expected: wanted as u64 })
}

fn range_len(range: &Range<usize>, available: usize) -> Result<usize, AccessError> {
    range.end.checked_sub(range.start).ok_or(AccessError::OutOfBounds {
        offset: range.start as u64,
        len: 0,
        available: available as u64,
    })
}
