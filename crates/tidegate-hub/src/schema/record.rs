//! Fields of one record in a byte slice, by path and type. Every access is checked against the schema and the slice; the
//! slice needs no alignment.
//!
//! A path names a field, of nested records with a dot, of arrays with an index: `timestamp_ns`, `pos.x`, `samples[3]`,
//! `legs[1].angle`.

use thiserror::Error;

use super::layout::element_size;
use super::value::{self, ValueProblem};
use super::{Base, Field, FieldType, Prim, Primitive, Schema};

/// A record to read.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// The record at the start of `bytes`.
    ///
    /// # Errors
    /// [`AccessError::TooShort`] if there are fewer bytes than a record has.
    pub fn new(schema: &'a Schema, bytes: &'a [u8]) -> Result<Self, AccessError> {
        let size = record_size(schema);
        let found = bytes.len();
        let bytes = bytes.get(..size).ok_or(AccessError::TooShort { expected: size, found })?;
        Ok(Self { schema, bytes })
    }

    /// The schema.
    pub fn schema(&self) -> &'a Schema {
        self.schema
    }

    /// The bytes of the record.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// A single number, or one element of an array of them.
    ///
    /// # Errors
    /// [`AccessError`] for a path that leads nowhere, and a field of another type.
    pub fn number<P: Primitive>(&self, path: &str) -> Result<P, AccessError> {
        let place = Place::find(self.schema, path)?.single(P::PRIM)?;
        P::read_le(place.of(self.bytes)).ok_or_else(|| place.unknown())
    }

    /// All numbers of an array.
    ///
    /// # Errors
    /// [`AccessError`] for a path that leads nowhere, and a field that is no array of this type.
    pub fn numbers<P: Primitive>(&self, path: &str) -> Result<Vec<P>, AccessError> {
        let place = Place::find(self.schema, path)?.array(P::PRIM)?;
        Ok(place.of(self.bytes).chunks_exact(size_of::<P>()).filter_map(P::read_le).collect())
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`AccessError`] for a path that leads nowhere, a field that is not `b8`, and a byte that is neither 0 nor 1.
    pub fn flag(&self, path: &str) -> Result<bool, AccessError> {
        let place = Place::find(self.schema, path)?.single(Prim::B8)?;
        match value::Scalar::read(Prim::B8, place.of(self.bytes)) {
            Ok(value::Scalar::Flag(flag)) => Ok(flag),
            Ok(_) => Err(place.unknown()),
            Err(problem) => Err(place.value(problem)),
        }
    }

    /// The text in a field of `c8`, up to its first zero byte.
    ///
    /// # Errors
    /// [`AccessError`] for a path that leads nowhere, a field that is not `c8`, and bytes that are not UTF-8.
    pub fn text(&self, path: &str) -> Result<&'a str, AccessError> {
        let place = Place::find(self.schema, path)?.characters()?;
        value::text_of(place.of(self.bytes)).map_err(|problem| place.value(problem))
    }
}

/// A record to fill in.
#[derive(Debug)]
pub struct RecordMut<'a> {
    schema: &'a Schema,
    bytes: &'a mut [u8],
}

impl<'a> RecordMut<'a> {
    /// The record at the start of `bytes`, as it is.
    ///
    /// # Errors
    /// [`AccessError::TooShort`] if there are fewer bytes than a record has.
    pub fn new(schema: &'a Schema, bytes: &'a mut [u8]) -> Result<Self, AccessError> {
        let size = record_size(schema);
        let found = bytes.len();
        let bytes = bytes.get_mut(..size).ok_or(AccessError::TooShort { expected: size, found })?;
        Ok(Self { schema, bytes })
    }

    /// The schema.
    pub fn schema(&self) -> &'a Schema {
        self.schema
    }

    /// The bytes of the record.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// The record, to read what is there.
    pub fn as_ref(&self) -> RecordRef<'_> {
        RecordRef { schema: self.schema, bytes: self.bytes }
    }

    /// Puts a single number, or one element of an array of them.
    ///
    /// # Errors
    /// As [`RecordRef::number`].
    pub fn put_number<P: Primitive>(&mut self, path: &str, number: P) -> Result<(), AccessError> {
        let place = Place::find(self.schema, path)?.single(P::PRIM)?;
        if number.put_le(place.of_mut(self.bytes)) { Ok(()) } else { Err(place.unknown()) }
    }

    /// Puts all numbers of an array.
    ///
    /// # Errors
    /// As [`RecordRef::numbers`], and for more or fewer numbers than the array has.
    pub fn put_numbers<P: Primitive>(&mut self, path: &str, numbers: &[P]) -> Result<(), AccessError> {
        let place = Place::find(self.schema, path)?.array(P::PRIM)?;
        let chunks = place.of_mut(self.bytes).chunks_exact_mut(size_of::<P>());
        if chunks.len() != numbers.len() {
            let expected = format!("{} elements", chunks.len());
            return Err(place.value(ValueProblem::unexpected(expected, numbers.len())));
        }
        chunks.zip(numbers).for_each(|(bytes, number)| {
            number.put_le(bytes);
        });
        Ok(())
    }

    /// Puts a truth value.
    ///
    /// # Errors
    /// [`AccessError`] for a path that leads nowhere, and a field that is not `b8`.
    pub fn put_flag(&mut self, path: &str, flag: bool) -> Result<(), AccessError> {
        let place = Place::find(self.schema, path)?.single(Prim::B8)?;
        value::put_flag(flag, place.of_mut(self.bytes)).map_err(|problem| place.value(problem))
    }

    /// Puts a text into a field of `c8`, with zeros behind it.
    ///
    /// # Errors
    /// [`AccessError`] for a path that leads nowhere, a field that is not `c8`, and a text that is too long or has a zero.
    pub fn put_text(&mut self, path: &str, text: &str) -> Result<(), AccessError> {
        let place = Place::find(self.schema, path)?.characters()?;
        value::put_text(text, place.of_mut(self.bytes)).map_err(|problem| place.value(problem))
    }
}

/// A field that cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AccessError {
    /// Fewer bytes than the record has.
    #[error("expected a record of {expected} bytes, found {found}")]
    TooShort {
        /// Bytes of the record.
        expected: usize,
        /// Bytes there were.
        found: usize,
    },
    /// A path that leads nowhere.
    #[error("field {path:?}: the schema has no such field; see `tidegate hub schema show`")]
    Unknown {
        /// The path.
        path: String,
    },
    /// An index behind the last element, or at a field that is no array.
    #[error("field {path:?}: expected an index below {count}, found {index}")]
    Index {
        /// The path.
        path: String,
        /// Elements of the field; 0 if it is no array.
        count: u32,
        /// The index.
        index: u32,
    },
    /// A field of another type than asked for.
    #[error("field {path:?}: expected {expected}, found {found}")]
    Type {
        /// The path.
        path: String,
        /// The type asked for.
        expected: String,
        /// The type of the field.
        found: String,
    },
    /// Bytes that are no value of the type, or a value that does not fit.
    #[error("field {path:?}: {problem}")]
    Value {
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: ValueProblem,
    },
}

/// Where the field of a path is.
struct Place<'a> {
    path: &'a str,
    offset: usize,
    base: &'a Base,
    /// Elements, if it is a whole array.
    count: Option<u32>,
}

impl<'a> Place<'a> {
    fn find(schema: &'a Schema, path: &'a str) -> Result<Self, AccessError> {
        let unknown = || AccessError::Unknown { path: path.to_owned() };
        let mut fields = schema.fields();
        let mut offset = 0;
        let mut steps = path.split('.').peekable();
        while let Some(step) = steps.next() {
            let (name, index) = split_index(step).ok_or_else(unknown)?;
            let field = fields.iter().find(|field| field.name() == name).ok_or_else(unknown)?;
            let FieldType { base, count } = field.ty();
            offset += to_usize(field.offset()) + element_offset(path, field, index)?;
            let count = if index.is_some() { None } else { *count };
            if steps.peek().is_none() {
                return Ok(Self { path, offset, base, count });
            }
            fields = match base {
                Base::Record(record) if count.is_none() => record.fields(),
                _ => return Err(unknown()),
            };
        }
        Err(unknown())
    }

    fn single(self, prim: Prim) -> Result<Self, AccessError> {
        if self.count.is_none() && *self.base == Base::Prim(prim) {
            Ok(self)
        } else {
            Err(self.other_type(prim))
        }
    }

    fn array(self, prim: Prim) -> Result<Self, AccessError> {
        let fits = self.count.is_some() && *self.base == Base::Prim(prim);
        if fits { Ok(self) } else { Err(self.other_type(format_args!("an array of {prim}"))) }
    }

    fn characters(self) -> Result<Self, AccessError> {
        if *self.base == Base::Prim(Prim::C8) { Ok(self) } else { Err(self.other_type(Prim::C8)) }
    }

    fn len(&self) -> usize {
        to_usize(element_size(self.base)) * to_usize(self.count.unwrap_or(1))
    }

    /// The field's bytes; none if the record were shorter than its schema says, which `new` excludes.
    fn of<'b>(&self, record: &'b [u8]) -> &'b [u8] {
        record.get(self.offset..self.offset + self.len()).unwrap_or_default()
    }

    fn of_mut<'b>(&self, record: &'b mut [u8]) -> &'b mut [u8] {
        record.get_mut(self.offset..self.offset + self.len()).unwrap_or_default()
    }

    fn other_type(&self, expected: impl std::fmt::Display) -> AccessError {
        let ty = FieldType { base: self.base.clone(), count: self.count };
        AccessError::Type {
            path: self.path.to_owned(),
            expected: expected.to_string(),
            found: ty.to_string(),
        }
    }

    fn unknown(&self) -> AccessError {
        AccessError::Unknown { path: self.path.to_owned() }
    }

    fn value(&self, problem: ValueProblem) -> AccessError {
        AccessError::Value { path: self.path.to_owned(), problem }
    }
}

/// Name and index of one step of a path.
fn split_index(step: &str) -> Option<(&str, Option<u32>)> {
    match step.split_once('[') {
        None => Some((step, None)),
        Some((name, index)) => Some((name, Some(index.strip_suffix(']')?.parse().ok()?))),
    }
}

fn element_offset(path: &str, field: &Field, index: Option<u32>) -> Result<usize, AccessError> {
    let Some(index) = index else { return Ok(0) };
    let count = field.ty().count().unwrap_or(0);
    if index >= count {
        return Err(AccessError::Index { path: path.to_owned(), count, index });
    }
    Ok(to_usize(index) * to_usize(element_size(field.ty().base())))
}

fn record_size(schema: &Schema) -> usize {
    to_usize(schema.size())
}

/// Lossless: the hub exists for 64-bit targets only (DH-006).
pub(super) fn to_usize(number: u32) -> usize {
    number as usize
}
