//! Making a schema field by field, laid out as C and `#[repr(C)]` do, with every gap named.

use thiserror::Error;

use super::layout::{Fields, align_of, check_outermost, size_of};
use super::parse::{begins_ident, begins_name, excerpt, name_len};
use super::{Base, Field, FieldType, MAX_TEXT, ParseError, Prim, Problem, Schema};

/// Fields of a schema in the making.
#[derive(Debug)]
pub struct Builder {
    name: String,
    fields: Fields,
}

impl Builder {
    /// No field yet; `name` is the record's.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), fields: Fields::new(false) }
    }

    /// Appends a field of a primitive type, or an array of `count` of them, after the padding that it needs.
    ///
    /// # Errors
    /// [`BuildError`] for a name that is none or taken, no elements, a size past 4 GiB, a required field behind an
    /// optional one, and for names of padding, which are the builder's own.
    pub fn field(
        mut self,
        name: &str,
        prim: Prim,
        count: Option<u32>,
        optional: bool,
    ) -> Result<Self, BuildError> {
        self.push(name, FieldType { base: Base::Prim(prim), count }, optional)?;
        Ok(self)
    }

    /// Appends a nested record, or an array of them, after the padding that it needs.
    ///
    /// # Errors
    /// As [`field`](Self::field), and for a record that has optional fields or is nested too deep.
    pub fn nested(
        mut self,
        name: &str,
        record: &Schema,
        count: Option<u32>,
        optional: bool,
    ) -> Result<Self, BuildError> {
        if let Some(field) = record.fields().iter().find(|field| field.is_optional()) {
            return Err(BuildError::new(name, Problem::OptionalNested { field: field.name().to_owned() }));
        }
        self.push(name, FieldType { base: Base::Record(record.record().clone()), count }, optional)?;
        Ok(self)
    }

    /// The schema, after the padding that its end needs.
    ///
    /// # Errors
    /// [`BuildError`] for a record without fields, a name that is none, or a text longer than 32 KiB.
    pub fn finish(mut self) -> Result<Schema, BuildError> {
        let name = self.name.clone();
        let failed = |problem| BuildError::new(&name, problem);
        check_whole(&self.name, begins_name).map_err(failed)?;
        let align = self.fields.align();
        self.pad_to(align).map_err(failed)?;
        let size = u32::try_from(self.fields.end())
            .map_err(|_| failed(Problem::TooLarge { found: self.fields.end() }))?;
        let record = self.fields.finish(self.name).map_err(failed)?;
        check_outermost(&record, size, align).map_err(failed)?;
        let schema = Schema { record, size, align };
        let text = schema.to_string();
        if text.len() > MAX_TEXT {
            return Err(failed(Problem::TooLong { bytes: text.len() }));
        }
        // The depth of nested records is known only now.
        Schema::parse(&text).map_err(|ParseError { problem, .. }| failed(problem))
    }

    fn push(&mut self, name: &str, ty: FieldType, optional: bool) -> Result<(), BuildError> {
        let failed = |problem| BuildError::new(name, problem);
        check_whole(name, begins_ident).map_err(failed)?;
        if ty.count == Some(0) {
            let expected = "a number of elements from 1";
            return Err(failed(Problem::Unexpected { expected, found: "0".to_owned() }));
        }
        self.pad_to(align_of(&ty)).map_err(failed)?;
        let size = size_of(&ty);
        let end = self.fields.end();
        let (Ok(offset), Ok(size)) = (u32::try_from(end), u32::try_from(size)) else {
            return Err(failed(Problem::TooLarge { found: end.saturating_add(size) }));
        };
        self.fields.push(Field { name: name.to_owned(), ty, optional, offset, size }).map_err(failed)
    }

    fn pad_to(&mut self, align: u32) -> Result<(), Problem> {
        let end = self.fields.end();
        let gap = end.next_multiple_of(u64::from(align)) - end;
        let (Ok(offset), Ok(size @ 1..)) = (u32::try_from(end), u32::try_from(gap)) else { return Ok(()) };
        let ty = FieldType { base: Base::Prim(Prim::U8), count: Some(size) };
        let name = format!("_pad{}", self.fields.paddings());
        self.fields.push(Field { name, ty, optional: false, offset, size })
    }
}

/// A schema that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("schema, at {at:?}: {problem}")]
pub struct BuildError {
    /// The field, or the record, that was to be added.
    pub at: String,
    /// What is wrong with it.
    pub problem: Problem,
}

impl BuildError {
    fn new(at: &str, problem: Problem) -> Self {
        Self { at: at.to_owned(), problem }
    }
}

/// Whether all of `name` is a name.
fn check_whole(name: &str, first: impl Fn(u8) -> bool) -> Result<(), Problem> {
    const NAME: &str = "a name of letters, digits and \"_\" that does not begin with a digit";
    let len = name_len(name, first, NAME)?;
    match name.get(len..) {
        None | Some("") => Ok(()),
        Some(rest) => Err(Problem::Unexpected { expected: NAME, found: excerpt(rest) }),
    }
}
