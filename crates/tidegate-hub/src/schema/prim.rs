//! The twelve primitive types, and the Rust type that stands for each.

use std::fmt;

/// A primitive type of `tds1`. All are little-endian; floats are IEEE-754.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Prim {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    /// A byte that holds 0 or 1.
    B8,
    /// A byte of text.
    C8,
}

impl Prim {
    /// All of them, in the order of the grammar.
    pub const ALL: [Self; 12] = [
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F32,
        Self::F64,
        Self::B8,
        Self::C8,
    ];

    /// The word in the text.
    pub const fn word(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::B8 => "b8",
            Self::C8 => "c8",
        }
    }

    /// The type that a word of the text names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|prim| prim.word() == word)
    }

    /// Size in bytes, which is also the alignment.
    pub const fn size(self) -> u32 {
        match self {
            Self::U8 | Self::I8 | Self::B8 | Self::C8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

impl fmt::Display for Prim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A Rust type that is read from and written to a field of one [`Prim`]: the ten numbers. (`b8` and `c8` are bytes to
/// Rust; [`RecordRef::flag`](super::RecordRef::flag) and [`RecordRef::text`](super::RecordRef::text) read them.)
pub trait Primitive: Copy + sealed::Sealed {
    /// The type in the text.
    const PRIM: Prim;

    /// The value in the first bytes of `bytes`, or nothing if there are too few.
    fn read_le(bytes: &[u8]) -> Option<Self>;

    /// Puts the value into the first bytes of `bytes`. False, and nothing changed, if there are too few.
    fn put_le(self, bytes: &mut [u8]) -> bool;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! primitives {
    ($($rust:ty: $prim:ident),*) => {$(
        impl sealed::Sealed for $rust {}

        impl Primitive for $rust {
            const PRIM: Prim = Prim::$prim;

            fn read_le(bytes: &[u8]) -> Option<Self> {
                bytes.first_chunk().map(|bytes| Self::from_le_bytes(*bytes))
            }

            fn put_le(self, bytes: &mut [u8]) -> bool {
                bytes.first_chunk_mut().map(|place| *place = self.to_le_bytes()).is_some()
            }
        }
    )*};
}

primitives!(u8: U8, u16: U16, u32: U32, u64: U64, i8: I8, i16: I16, i32: I32, i64: I64, f32: F32, f64: F64);
