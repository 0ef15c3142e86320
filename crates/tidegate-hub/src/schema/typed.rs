//! Rust structs as records: what the derive macros implement, and what a field may be.
//!
//! The memory side (every bit pattern valid, no padding, no interior mutability) is proven by zerocopy's derives; the
//! macro [`HubSchema`](macro@super::HubSchema) adds the text. So a record is declared as
//!
//! ```
//! use tidegate_hub::schema::{HubPod, HubSchema, Schema};
//! use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
//!
//! #[repr(C)]
//! #[derive(HubSchema, FromBytes, IntoBytes, Immutable, KnownLayout)]
//! #[hub(version = "2.0")]
//! pub struct SensorData {
//!     pub timestamp_ns: u64,
//!     pub temperature: f32,
//!     pub pressure: f32,
//! }
//!
//! fn is_pod<T: HubPod>() {}
//! is_pod::<SensorData>();
//! let text = "tds1 SensorData size=16 align=8 {timestamp_ns:u64@0+8;temperature:f32@8+4;pressure:f32@12+4}";
//! assert_eq!(SensorData::TEXT, text);
//! ```

use thiserror::Error;
use tidegate_shm::{
    region::{Row, RowMut, SharedWord, Span, SpanMut, Words, WordsMut},
    sync,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Agreement, Prim, SchemaHash, SchemaVersion};

/// A record whose bytes may be handed out as they are (DH-115). Implemented by itself for all that has the five traits.
pub trait HubPod: FromBytes + IntoBytes + Immutable + KnownLayout + HubSchema {}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + HubSchema> HubPod for T {}

/// A struct with a canonical text; derived by [`HubSchema`](macro@super::HubSchema) (DH-172).
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no hub schema",
    note = "put `#[repr(C)] #[derive(HubSchema)]` on the struct"
)]
pub trait HubSchema: RecordField {
    /// Name of the record in the text.
    const NAME: &'static str;
    /// Version, from `#[hub(version = "…")]`; 1.0 without.
    const VERSION: SchemaVersion;
    /// The canonical text.
    const TEXT: &'static str;

    /// BLAKE2b-256 of the text (DH-169).
    fn schema_hash() -> SchemaHash {
        SchemaHash::of_text(Self::TEXT)
    }
}

/// A struct that a flexible zone holds; derived by [`ZoneLayout`](macro@super::ZoneLayout) (DH-174).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the content of a flexible zone",
    note = "put `#[repr(C)] #[derive(ZoneLayout)]` on the struct"
)]
pub trait ZoneLayout {
    /// Name of the record in the text.
    const NAME: &'static str;
    /// Version, from `#[hub(version = "…")]`; 1.0 without.
    const VERSION: SchemaVersion;
    /// The canonical text, with each atomic as its primitive.
    const TEXT: &'static str;

    /// A method for each field, to look: atomics can be loaded.
    type Read<'z>: Copy;
    /// A method for each field, to take part: atomics can be changed.
    type Shared<'z>: Copy;
    /// A method for each field, for who has the zone to itself: cells, too.
    type Held<'z>: Copy;

    /// The fields in a zone's bytes; none if they are too few.
    #[doc(hidden)]
    fn read(bytes: Span<'_>) -> Option<Self::Read<'_>>;
    #[doc(hidden)]
    fn shared(bytes: SpanMut<'_>) -> Option<Self::Shared<'_>>;
    #[doc(hidden)]
    fn held(bytes: SpanMut<'_>) -> Option<Self::Held<'_>>;

    /// BLAKE2b-256 of the text (DH-169).
    fn schema_hash() -> SchemaHash {
        SchemaHash::of_text(Self::TEXT)
    }
}

/// What may be a field of a record.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a hub record",
    label = "no type of the schema text",
    note = "use u8..u64, i8..i64, f32, f64, Bool8, Char8, a struct with #[derive(HubSchema)], or an array of one of them; \
            an enum becomes the integer that it is stored as"
)]
pub trait RecordField {
    /// Its type in the text.
    #[doc(hidden)]
    const TYPE: TypeDef;
}

/// What may be a field of a zone: plain values there need a cell with a lock.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a flexible zone",
    label = "neither atomic nor in a cell",
    note = "use an atomic integer, an array of them, or ZoneCell<P>; padding is [u8; N] with a name _pad0, _pad1, ..."
)]
pub trait ZoneField {
    /// Its type in the text.
    #[doc(hidden)]
    const TYPE: TypeDef;

    /// The field, to look.
    type Read<'z>;
    /// The field, to take part.
    type Shared<'z>;
    /// The field, for who has the zone to itself.
    type Held<'z>;

    #[doc(hidden)]
    fn read<const AT: usize, const SIZE: usize>(row: Row<'_, SIZE>) -> Self::Read<'_>;
    #[doc(hidden)]
    fn shared<const AT: usize, const SIZE: usize>(row: RowMut<'_, SIZE>) -> Self::Shared<'_>;
    #[doc(hidden)]
    fn held<const AT: usize, const SIZE: usize>(row: RowMut<'_, SIZE>) -> Self::Held<'_>;
}

/// An atomic integer.
pub trait ZoneInteger: ZoneField {
    /// The integer in it.
    type Value: SharedWord;
}

/// A byte that holds 0 or 1: `b8` of the text. Other processes can put any byte there, which `bool` would not survive.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Bool8(u8);

impl Bool8 {
    /// The byte of a truth value.
    pub const fn new(value: bool) -> Self {
        Self(value as u8)
    }

    /// The truth value; nothing if the byte is neither 0 nor 1.
    pub const fn get(self) -> Option<bool> {
        match self.0 {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

/// A byte of text: `c8` of the text. `[Char8; N]` is UTF-8, filled up with zeros.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Char8(pub u8);

impl Char8 {
    /// The bytes of `text`, filled up with zeros; nothing if it is longer than that.
    pub fn array<const N: usize>(text: &str) -> Option<[Self; N]> {
        let mut array = [Self(0); N];
        array.get_mut(..text.len())?.iter_mut().zip(text.bytes()).for_each(|(place, byte)| place.0 = byte);
        Some(array)
    }
}

/// A copy of the record at the start of `bytes`, of which producer and consumer share `agreement`. What the producer does
/// not have is zero, and its accessors give nothing (DH-173).
///
/// # Errors
/// [`LengthMismatch`] if there are fewer bytes than both sides know (DH-116), or than zero for untyped ones.
pub fn read_shared<T: HubPod>(bytes: &[u8], agreement: &Agreement) -> Result<T, LengthMismatch> {
    let shared = match agreement {
        Agreement::Untyped | Agreement::Identical { .. } | Agreement::ProducerAppended { .. } => {
            size_of::<T>()
        }
        Agreement::ConsumerAppended { shared } => usize::try_from(*shared).unwrap_or(usize::MAX),
    };
    let mut record = T::new_zeroed();
    let mismatch = LengthMismatch { expected: shared, found: bytes.len() };
    let place = record.as_mut_bytes().get_mut(..shared).ok_or(mismatch)?;
    place.copy_from_slice(bytes.get(..shared).ok_or(mismatch)?);
    Ok(record)
}

/// A slot that holds less than a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "expected a record of at least {expected} bytes, found {found}; the producer committed too short a length"
)]
pub struct LengthMismatch {
    /// Bytes of the record, as far as both sides know it.
    pub expected: usize,
    /// Bytes of the slot.
    pub found: usize,
}

/// A record, for the text at compile time.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct RecordDef {
    pub name: &'static str,
    pub fields: &'static [FieldDef],
}

/// A field, for the text at compile time.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct FieldDef {
    pub name: &'static str,
    pub ty: TypeDef,
    pub optional: bool,
    pub offset: usize,
    pub size: usize,
}

/// A type, for the text at compile time.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct TypeDef {
    pub base: BaseDef,
    pub count: Option<usize>,
}

impl TypeDef {
    pub const fn prim(prim: Prim) -> Self {
        Self { base: BaseDef::Prim(prim), count: None }
    }

    pub const fn record(record: &'static RecordDef) -> Self {
        Self { base: BaseDef::Record(record), count: None }
    }

    /// An array of this; arrays of arrays are flattened.
    pub const fn times(self, count: usize) -> Self {
        let inner = match self.count {
            Some(inner) => inner,
            None => 1,
        };
        Self { base: self.base, count: Some(inner * count) }
    }
}

/// What a field consists of, for the text at compile time.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum BaseDef {
    Prim(Prim),
    Record(&'static RecordDef),
}

macro_rules! fields {
    ($field:ident: $($rust:ty => $prim:ident),*) => {$(
        impl $field for $rust {
            const TYPE: TypeDef = TypeDef::prim(Prim::$prim);
        }
    )*};
}

fields!(RecordField: u8 => U8, u16 => U16, u32 => U32, u64 => U64, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
        f32 => F32, f64 => F64, Bool8 => B8, Char8 => C8);

macro_rules! atomics {
    ($($atomic:ty: $value:ty => $prim:ident),*) => {$(
        impl ZoneField for $atomic {
            const TYPE: TypeDef = TypeDef::prim(Prim::$prim);
            type Read<'z> = <$value as SharedWord>::Load<'z>;
            type Shared<'z> = <$value as SharedWord>::Update<'z>;
            type Held<'z> = <$value as SharedWord>::Update<'z>;

            #[inline]
            fn read<const AT: usize, const SIZE: usize>(row: Row<'_, SIZE>) -> Self::Read<'_> {
                row.word::<$value, AT>()
            }
            #[inline]
            fn shared<const AT: usize, const SIZE: usize>(row: RowMut<'_, SIZE>) -> Self::Shared<'_> {
                row.word::<$value, AT>()
            }
            #[inline]
            fn held<const AT: usize, const SIZE: usize>(row: RowMut<'_, SIZE>) -> Self::Held<'_> {
                row.word::<$value, AT>()
            }
        }

        impl ZoneInteger for $atomic {
            type Value = $value;
        }
    )*};
}

atomics!(sync::AtomicU8: u8 => U8, sync::AtomicU16: u16 => U16, sync::AtomicU32: u32 => U32,
         sync::AtomicU64: u64 => U64, sync::AtomicI8: i8 => I8, sync::AtomicI16: i16 => I16,
         sync::AtomicI32: i32 => I32, sync::AtomicI64: i64 => I64);

impl<T: RecordField, const N: usize> RecordField for [T; N] {
    const TYPE: TypeDef = T::TYPE.times(N);
}

impl<T: ZoneInteger, const N: usize> ZoneField for [T; N] {
    const TYPE: TypeDef = T::TYPE.times(N);
    type Read<'z> = Words<'z, T::Value>;
    type Shared<'z> = WordsMut<'z, T::Value>;
    type Held<'z> = WordsMut<'z, T::Value>;

    #[inline]
    fn read<const AT: usize, const SIZE: usize>(row: Row<'_, SIZE>) -> Self::Read<'_> {
        row.words::<T::Value, AT, N>()
    }
    #[inline]
    fn shared<const AT: usize, const SIZE: usize>(row: RowMut<'_, SIZE>) -> Self::Shared<'_> {
        row.words::<T::Value, AT, N>()
    }
    #[inline]
    fn held<const AT: usize, const SIZE: usize>(row: RowMut<'_, SIZE>) -> Self::Held<'_> {
        row.words::<T::Value, AT, N>()
    }
}
