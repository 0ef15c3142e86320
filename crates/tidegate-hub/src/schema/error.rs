//! What can be wrong with a schema text, and where.

use thiserror::Error;

use super::{MAX_ALIGN, MAX_DEPTH, MAX_NAME, MAX_TEXT};

/// A text that is not a canonical schema (DH-168).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("schema text, line {line}, column {column}: {problem}")]
pub struct ParseError {
    /// Line of the text, from 1: above 1 only in the schema region of a block, which has one text on each line.
    pub line: u32,
    /// Byte of the line, from 1.
    pub column: u32,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong at one place of a schema, in a text or in the making.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The grammar wants something else.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What the grammar wants.
        expected: &'static str,
        /// What is there: a few characters in quotation marks, or "the end of the text".
        found: String,
    },
    /// Longer than a schema may be.
    #[error("expected at most {MAX_TEXT} bytes, found {bytes}")]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
    },
    /// Too many braces in braces.
    #[error("expected records nested at most {MAX_DEPTH} deep, found one more")]
    TooDeep,
    /// A name with more than 64 characters.
    #[error("expected a name of at most {MAX_NAME} characters, found {found}")]
    LongName {
        /// Characters of the name.
        found: usize,
    },
    /// A record that is called like a primitive type.
    #[error("expected a record's own name, found {name:?}, which is a primitive type; rename the record")]
    NameOfPrimitive {
        /// The name.
        name: String,
    },
    /// Two fields of one name.
    #[error("field {field:?}: expected another name, found that of an earlier field")]
    DuplicateField {
        /// The name.
        field: String,
    },
    /// Bytes without a name.
    #[error(
        "field {field:?}: expected offset {expected}, found {found}, which leaves a gap; name it, as in \
         _pad0:u8[{}]@{expected}+{}", u64::from(*found).saturating_sub(*expected), u64::from(*found).saturating_sub(*expected)
    )]
    Gap {
        /// The field after the gap.
        field: String,
        /// End of the field before.
        expected: u64,
        /// Offset of the field.
        found: u32,
    },
    /// Bytes with two names.
    #[error("field {field:?}: expected offset {expected}, found {found}, which overlaps the field before")]
    Overlap {
        /// The second field.
        field: String,
        /// End of the field before.
        expected: u64,
        /// Offset of the field.
        found: u32,
    },
    /// The size of a field is not that of its type.
    #[error("field {field:?}: expected {expected} bytes, as its type has, found {found}")]
    FieldSize {
        /// The field.
        field: String,
        /// Bytes of the type.
        expected: u64,
        /// Bytes in the text.
        found: u32,
    },
    /// A field at an offset where its type cannot stand.
    #[error("field {field:?}: expected an offset that is a multiple of {align}, found {found}")]
    Misaligned {
        /// The field.
        field: String,
        /// Alignment of the type.
        align: u32,
        /// Offset of the field.
        found: u64,
    },
    /// The record does not end with its last field.
    #[error("record {record:?}: expected size={expected}, the end of its last field, found {found}")]
    RecordSize {
        /// The record.
        record: String,
        /// End of the last field.
        expected: u64,
        /// Size in the text.
        found: u32,
    },
    /// A record that could not be repeated in an array.
    #[error(
        "record {record:?}: expected a size that is a multiple of its alignment {align}, found {found}; add padding"
    )]
    RaggedSize {
        /// The record.
        record: String,
        /// Its alignment.
        align: u32,
        /// Its size.
        found: u64,
    },
    /// An alignment that is none, too small for the fields, or too large for a slot.
    #[error("record {record:?}: expected align= of a power of two in {needed}..={MAX_ALIGN}, found {found}")]
    RecordAlign {
        /// The record.
        record: String,
        /// What its fields need.
        needed: u32,
        /// Alignment in the text.
        found: u32,
    },
    /// Larger than 4 GiB - 1, which no slot holds.
    #[error("expected at most 4294967295 bytes, found {found}")]
    TooLarge {
        /// Bytes of the field or record.
        found: u64,
    },
    /// A field called `_padN` that is not `u8[n]`.
    #[error(
        "field {field:?}: expected padding of type u8[n], not optional, found {found}; or give it another name"
    )]
    PaddingType {
        /// The field.
        field: String,
        /// Its type.
        found: String,
    },
    /// Padding is numbered from 0 in each record.
    #[error("field {field:?}: expected the padding to be called _pad{expected}")]
    PaddingNumber {
        /// The field.
        field: String,
        /// The number that comes next.
        expected: u32,
    },
    /// Two paddings that could be one, so that the layout would have two texts.
    #[error("field {field:?}: expected a field after padding, found more padding; make one of both")]
    PaddingTwice {
        /// The second of them.
        field: String,
    },
    /// Nothing but padding.
    #[error("record {record:?}: expected a field that is not padding, found none")]
    NoField {
        /// The record.
        record: String,
    },
    /// A required field behind an optional one.
    #[error("field {field:?}: expected it to be optional (?), as a field before it is")]
    RequiredAfterOptional {
        /// The required field.
        field: String,
    },
    /// An optional field inside of a nested record, which cannot grow.
    #[error(
        "field {field:?}: expected no optional field in a nested record, found one; only the outermost can grow"
    )]
    OptionalNested {
        /// The field.
        field: String,
    },
}
