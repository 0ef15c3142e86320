//! Schemas: what the bytes of a record mean, as one line of text that every language can write and compare (chapter 12).
//!
//! A [`Schema`] is always valid: it comes from [`Schema::parse`], from [`Schema::of`] a Rust struct with
//! `#[derive(HubSchema)]`, or from a [`Builder`]. Its canonical text (`tds1`) is what [`Schema`] displays, and
//! [`SchemaHash`] is BLAKE2b-256 of that text. There is one text for each layout, so that equal hashes mean equal layouts.
//!
//! ```text
//! tds1 SensorData size=16 align=8 {timestamp_ns:u64@0+8;temperature:f32@8+4;pressure:f32@12+4}
//!      name       bytes   of the start  field:type@offset+bytes, without a gap
//! ```
//!
//! | module | |
//! |---|---|
//! | `model`, `parse`, `layout` | the schema, its text, the checks of both |
//! | `typed`, `text` | Rust structs: traits behind the derive macro, text at compile time |
//! | `compare`, `shape` | who may read whose records |
//! | `record`, `json`, `csv` | fields of a record in a byte slice, and conversions |
//! | `named`, `texts` | schemas in files; the schema region of a block |
//!
//! Nothing here reads shared memory: bytes come in as a private copy or under a claim of the caller.

mod build;
mod compare;
mod csv;
mod error;
mod hash;
mod json;
mod layout;
mod model;
mod named;
mod parse;
mod prim;
mod record;
mod shape;
#[doc(hidden)]
pub mod text;
mod texts;
mod typed;
mod value;
mod version;

pub use build::{BuildError, Builder};
pub use compare::{Agreement, Difference, Offer, SchemaExpectation, SchemaMismatch, SchemaMode, compare};
pub use csv::{CsvColumns, MAX_COLUMNS};
pub use error::{ParseError, Problem};
pub use hash::{FingerprintMismatch, HashTextError, SchemaHash};
pub use model::{Base, Field, FieldType, Record, Schema};
pub use named::{NamedError, NamedSchema, NamedSchemas, SchemaId, ZoneSchema};
pub use prim::{Prim, Primitive};
pub use record::{AccessError, RecordMut, RecordRef};
pub use shape::{Shape, ShapeField, ShapeMismatch};
pub use texts::{SchemaTexts, TextsError};
pub use tidegate_hub_derive::{HubSchema, ZoneLayout};
#[doc(hidden)]
pub use typed::{BaseDef, FieldDef, RecordDef, TypeDef};
pub use typed::{
    Bool8, Char8, HubPod, HubSchema, LengthMismatch, RecordField, ZoneField, ZoneInteger, ZoneLayout,
    read_shared,
};
pub use value::{ValueError, ValueProblem};
pub use version::{SchemaVersion, VersionError};

/// Longest canonical text in bytes (DH-168).
pub const MAX_TEXT: usize = 32 * 1024;

/// Deepest nesting, counted in braces around a field: 1 for the fields of the record itself (DH-168).
pub const MAX_DEPTH: usize = 8;

/// Longest name of a record or field, in bytes.
pub const MAX_NAME: usize = 64;

/// Largest alignment of a record, that of a slot.
pub const MAX_ALIGN: u32 = 64;
