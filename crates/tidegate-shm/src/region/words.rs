//! Atomic words of every width at fixed places of a record, and rows of them.
//!
//! A record of a type known when compiling is reached as [`Row`] over a [`Span`]: the span is checked once, the places of
//! its fields by the compiler.

use std::{fmt, marker::PhantomData, ptr::NonNull};

use super::{
    mapping::{AccessError, Region},
    span::{Span, SpanMut},
    table::{Row, RowMut},
    word::{
        SharedI8, SharedI8Mut, SharedI16, SharedI16Mut, SharedI32, SharedI32Mut, SharedI64, SharedI64Mut,
        SharedU8, SharedU8Mut, SharedU16, SharedU16Mut, SharedU32, SharedU32Mut, SharedU64, SharedU64Mut,
    },
};
use crate::sync::{MappedI8, MappedI16, MappedI32, MappedI64, MappedU8, MappedU16, MappedU32, MappedU64};

/// An integer that can be an atomic word of a mapping.
pub trait SharedWord: Copy + sealed::Sealed {
    /// The word, to be loaded.
    type Load<'a>: Copy;
    /// The word, to be changed.
    type Update<'a>: Copy;

    /// # Safety
    /// A word of this type lies at `start`, aligned, mapped for as long as `'a`.
    #[doc(hidden)]
    unsafe fn load_at<'a>(start: NonNull<u8>) -> Self::Load<'a>;

    /// # Safety
    /// As for [`SharedWord::load_at`], and the mapping is writable.
    #[doc(hidden)]
    unsafe fn update_at<'a>(start: NonNull<u8>) -> Self::Update<'a>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! shared_words {
    ($($value:ty: $load:ident, $update:ident, $atomic:ty;)*) => {$(
        impl sealed::Sealed for $value {}

        impl SharedWord for $value {
            type Load<'a> = $load<'a>;
            type Update<'a> = $update<'a>;

            #[inline]
            unsafe fn load_at<'a>(start: NonNull<u8>) -> $load<'a> {
                // SAFETY: passed on to the caller; the word is only touched atomically or by opaque copies.
                $load::new(unsafe { <$atomic>::from_ptr(start.as_ptr().cast()) })
            }

            #[inline]
            unsafe fn update_at<'a>(start: NonNull<u8>) -> $update<'a> {
                // SAFETY: as above.
                let word = unsafe { <$atomic>::from_ptr(start.as_ptr().cast()) };
                // SAFETY: the caller promises that the mapping is writable.
                unsafe { $update::new(word) }
            }
        }
    )*};
}

shared_words! {
    u8: SharedU8, SharedU8Mut, MappedU8;
    u16: SharedU16, SharedU16Mut, MappedU16;
    u32: SharedU32, SharedU32Mut, MappedU32;
    u64: SharedU64, SharedU64Mut, MappedU64;
    i8: SharedI8, SharedI8Mut, MappedI8;
    i16: SharedI16, SharedI16Mut, MappedI16;
    i32: SharedI32, SharedI32Mut, MappedI32;
    i64: SharedI64, SharedI64Mut, MappedI64;
}

impl<'a, const SIZE: usize> Row<'a, SIZE> {
    /// The first `SIZE` bytes of a span as a record.
    ///
    /// # Errors
    /// The span is shorter, or does not begin at a multiple of 8.
    pub fn of(span: Span<'a>) -> Result<Self, AccessError> {
        let start = span.sub(0..SIZE)?.start();
        let address = start.addr().get();
        if !address.is_multiple_of(8) {
            return Err(AccessError::Misaligned { offset: address as u64 % 8, align: 8 });
        }
        // SAFETY: `SIZE` mapped bytes at a multiple of 8, which live as long as the span.
        Ok(unsafe { Self::new(start) })
    }

    /// The word of type `W` at `AT`.
    #[inline]
    pub fn word<W: SharedWord, const AT: usize>(&self) -> W::Load<'a> {
        let start = self.place::<W, AT>();
        // SAFETY: `place` has a mapped, aligned word.
        unsafe { W::load_at(start) }
    }

    /// The row of `N` words of type `W` at `AT`.
    #[inline]
    pub fn words<W: SharedWord, const AT: usize, const N: usize>(&self) -> Words<'a, W> {
        const { assert!(AT.is_multiple_of(size_of::<W>()), "a word lies on a multiple of its size") };
        let start = self.place_of::<[W; N], AT>();
        Words { start, len: N, words: PhantomData }
    }

    /// The bytes of a value of type `T` at `AT`.
    #[inline]
    pub fn bytes_of<T, const AT: usize>(&self) -> Span<'a> {
        let start = self.place_of::<T, AT>();
        // SAFETY: `place_of` has that many mapped bytes, which live as long as the record.
        unsafe { Span::new(start, size_of::<T>()) }
    }

    #[inline]
    fn place<W: SharedWord, const AT: usize>(&self) -> NonNull<u8> {
        const { assert!(AT.is_multiple_of(size_of::<W>()), "a word lies on a multiple of its size") };
        self.place_of::<W, AT>()
    }

    #[inline]
    fn place_of<T, const AT: usize>(&self) -> NonNull<u8> {
        const {
            assert!(AT <= SIZE && size_of::<T>() <= SIZE - AT, "a field lies inside its record");
        }
        // SAFETY: `AT` is inside the `SIZE` bytes of the record, as just asserted.
        unsafe { self.start().add(AT) }
    }
}

impl<'a, const SIZE: usize> RowMut<'a, SIZE> {
    /// The first `SIZE` bytes of a span as a record.
    ///
    /// # Errors
    /// As [`Row::of`].
    pub fn of(span: SpanMut<'a>) -> Result<Self, AccessError> {
        let row = Row::of(*span)?;
        // SAFETY: the bytes of a `SpanMut` are writable.
        Ok(unsafe { Self::new(row) })
    }

    /// The word of type `W` at `AT`.
    #[inline]
    pub fn word<W: SharedWord, const AT: usize>(&self) -> W::Update<'a> {
        let start = self.as_row().place::<W, AT>();
        // SAFETY: `place` has a mapped, aligned word; the row of a `RowMut` is writable.
        unsafe { W::update_at(start) }
    }

    /// The row of `N` words of type `W` at `AT`.
    #[inline]
    pub fn words<W: SharedWord, const AT: usize, const N: usize>(&self) -> WordsMut<'a, W> {
        WordsMut { words: self.as_row().words::<W, AT, N>() }
    }

    /// The bytes of a value of type `T` at `AT`.
    #[inline]
    pub fn bytes_of<T, const AT: usize>(&self) -> SpanMut<'a> {
        let start = self.as_row().place_of::<T, AT>();
        // SAFETY: `place_of` has that many mapped bytes; the row of a `RowMut` is writable.
        unsafe { SpanMut::new(start, size_of::<T>()) }
    }
}

/// A row of atomic words, to be loaded.
#[derive(Clone, Copy)]
pub struct Words<'a, W> {
    /// `len` mapped words, aligned.
    start: NonNull<u8>,
    len: usize,
    words: PhantomData<(&'a Region, W)>,
}

// SAFETY: only hands out atomic words, which may be sent and shared; the lifetime keeps them mapped.
unsafe impl<W> Send for Words<'_, W> {}
// SAFETY: as above.
unsafe impl<W> Sync for Words<'_, W> {}

impl<'a, W: SharedWord> Words<'a, W> {
    /// Number of words.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Word `index`, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<W::Load<'a>> {
        let place = self.place(index)?;
        // SAFETY: `place` has a mapped, aligned word.
        Some(unsafe { W::load_at(place) })
    }

    /// All words in order.
    pub fn iter(&self) -> impl Iterator<Item = W::Load<'a>> + use<'a, W> {
        let words = *self;
        (0..self.len).filter_map(move |index| words.get(index))
    }

    #[inline]
    fn place(&self, index: usize) -> Option<NonNull<u8>> {
        // SAFETY: inside the `len` words.
        (index < self.len).then(|| unsafe { self.start.add(index * size_of::<W>()) })
    }
}

impl<W> fmt::Debug for Words<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Words").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A row of atomic words, to be changed.
#[derive(Clone, Copy)]
pub struct WordsMut<'a, W> {
    /// Lies in a writable mapping.
    words: Words<'a, W>,
}

impl<'a, W: SharedWord> WordsMut<'a, W> {
    /// Number of words.
    #[inline]
    pub fn len(&self) -> usize {
        self.words.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.words.len == 0
    }

    /// Word `index`, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<W::Update<'a>> {
        let place = self.words.place(index)?;
        // SAFETY: `place` has a mapped, aligned word, in a writable mapping.
        Some(unsafe { W::update_at(place) })
    }

    /// All words in order.
    pub fn iter(&self) -> impl Iterator<Item = W::Update<'a>> + use<'a, W> {
        let words = *self;
        (0..self.words.len).filter_map(move |index| words.get(index))
    }
}

impl<W> fmt::Debug for WordsMut<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words.fmt(f)
    }
}
