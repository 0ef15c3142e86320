//! The schema itself, and the printer of its canonical text.

use std::fmt;
use std::str::FromStr;

use super::{HubSchema, ParseError, Prim, SchemaHash, parse};

/// The layout of one record. Every value of this type obeys the rules of `layout.rs`: fields in memory order without gap
/// or overlap, aligned, sizes as their types say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    pub(super) record: Record,
    pub(super) size: u32,
    pub(super) align: u32,
}

impl Schema {
    /// Reads a canonical text (DH-168).
    ///
    /// # Errors
    /// [`ParseError`], with the place, what was expected and what was found, for any text that is not canonical.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::schema(text, 1)
    }

    /// The schema of a Rust struct.
    ///
    /// # Errors
    /// [`ParseError`] if the text of the type is not canonical, which the derive macro does not produce.
    pub fn of<T: HubSchema>() -> Result<Self, ParseError> {
        Self::parse(T::TEXT)
    }

    /// Name of the record.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Bytes of one record; not zero.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Alignment of the record: a power of two up to 64.
    pub fn align(&self) -> u32 {
        self.align
    }

    /// Fields in memory order, padding among them.
    pub fn fields(&self) -> &[Field] {
        &self.record.fields
    }

    /// The record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// BLAKE2b-256 of the canonical text (DH-169).
    pub fn hash(&self) -> SchemaHash {
        SchemaHash::of_text(&self.to_string())
    }
}

/// Prints the canonical text.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tds1 {} size={} align={} ", self.record.name, self.size, self.align)?;
        print_fields(f, &self.record.fields)
    }
}

impl FromStr for Schema {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

/// A name and fields: the whole record, or one nested in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
}

impl Record {
    /// Name of the type.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fields in memory order, padding among them.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub(super) name: String,
    pub(super) ty: FieldType,
    pub(super) optional: bool,
    pub(super) offset: u32,
    pub(super) size: u32,
}

impl Field {
    /// Name of the field.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its type.
    pub fn ty(&self) -> &FieldType {
        &self.ty
    }

    /// Whether it was appended by a minor version and may be absent in records of an older producer.
    pub fn is_optional(&self) -> bool {
        self.optional
    }

    /// Bytes before it, from the start of the record that it stands in.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// Its bytes, all elements together; not zero.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Whether it only fills a gap: `_pad0`, `_pad1` and so on.
    pub fn is_padding(&self) -> bool {
        padding_number(&self.name).is_some()
    }

    /// The byte after its last one.
    pub(super) fn end(&self) -> u32 {
        self.offset.saturating_add(self.size)
    }
}

/// Prints the field as it stands in the text.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.optional { "?" } else { "" };
        write!(f, "{}:{}{mark}@{}+{}", self.name, self.ty, self.offset, self.size)
    }
}

/// The type of a field: one value, or an array of them. Arrays of arrays are flattened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldType {
    pub(super) base: Base,
    pub(super) count: Option<u32>,
}

impl FieldType {
    /// Type of one element.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Elements of an array; nothing for a single value.
    pub fn count(&self) -> Option<u32> {
        self.count
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.base {
            Base::Prim(prim) => write!(f, "{prim}")?,
            Base::Record(record) => {
                f.write_str(&record.name)?;
                print_fields(f, &record.fields)?;
            }
        }
        self.count.map_or(Ok(()), |count| write!(f, "[{count}]"))
    }
}

/// What a field consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// A primitive type.
    Prim(Prim),
    /// A nested record.
    Record(Record),
}

/// The number in the name of a padding field. `_pad00` and `_pad` are names like any other.
pub(super) fn padding_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("_pad")?;
    let canonical = digits == "0" || digits.starts_with(|first: char| ('1'..='9').contains(&first));
    if canonical { digits.parse().ok() } else { None }
}

fn print_fields(f: &mut fmt::Formatter<'_>, fields: &[Field]) -> fmt::Result {
    for (index, field) in fields.iter().enumerate() {
        write!(f, "{}{field}", if index == 0 { "{" } else { ";" })?;
    }
    f.write_str("}")
}
