//! A record as fields of CSV, and back. Quoting and lines are the caller's; a field here is its plain content.
//!
//! Columns are called by their path: `timestamp_ns`, `pos.x`, `samples[0]`, `samples[1]`. `c8[n]` is one column. Numbers
//! are decimal; floats that are none are `NaN`, `Infinity` and `-Infinity`; `b8` is `true` or `false` (1 and 0 are
//! understood too). Padding has no column, and is zero in records made from CSV.

use super::layout::element_size;
use super::record::to_usize;
use super::value::{Scalar, put_text, put_word, text_of, word_of_float};
use super::{AccessError, Base, Field, Prim, RecordMut, RecordRef, Schema, ValueError, ValueProblem};

/// Most columns of a table.
pub const MAX_COLUMNS: usize = 4096;

/// The columns of a schema, in the order of a table.
#[derive(Clone, Debug)]
pub struct CsvColumns<'a> {
    schema: &'a Schema,
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    start: usize,
    end: usize,
    prim: Prim,
}

impl<'a> CsvColumns<'a> {
    /// All columns, in the order of the schema.
    ///
    /// # Errors
    /// [`ValueError`] if there are more than [`MAX_COLUMNS`].
    pub fn of(schema: &'a Schema) -> Result<Self, ValueError> {
        let mut columns = Vec::new();
        append(&mut columns, "", 0, schema.fields())?;
        Ok(Self { schema, columns })
    }

    /// All columns, in the order of a table's first line, which is line 1 of an error.
    ///
    /// # Errors
    /// [`ValueError`] if a column is missing, unknown or there twice, or if there are more than [`MAX_COLUMNS`].
    pub fn in_order(schema: &'a Schema, header: &[&str]) -> Result<Self, ValueError> {
        let mut all = Self::of(schema)?.columns;
        let mut columns = Vec::with_capacity(all.len());
        for name in header {
            let place = all.iter().position(|column| column.name == *name);
            let place = place.ok_or_else(|| ValueProblem::Surplus.at(1, name))?;
            columns.push(all.remove(place));
        }
        match all.first() {
            Some(column) => Err(ValueProblem::Missing.at(1, &column.name)),
            None => Ok(Self { schema, columns }),
        }
    }

    /// The schema.
    pub fn schema(&self) -> &'a Schema {
        self.schema
    }

    /// Names of the columns: the first line of a table.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// The fields of one line, from the record at the start of `bytes`.
    ///
    /// # Errors
    /// [`ValueError`] with `line` for fewer bytes than a record has, a `b8` that is neither 0 nor 1, and a `c8[n]` that is
    /// not UTF-8.
    pub fn row(&self, line: u64, bytes: &[u8]) -> Result<Vec<String>, ValueError> {
        let record = RecordRef::new(self.schema, bytes).map_err(|error| too_short(line, &error))?;
        let field =
            |column: &Column| column.read(record.bytes()).map_err(|problem| problem.at(line, &column.name));
        self.columns.iter().map(field).collect()
    }

    /// Fills in the record at the start of `bytes` from the fields of one line. After an error it is filled in part.
    ///
    /// # Errors
    /// [`ValueError`] with `line`, column, what was expected and what was found.
    pub fn put_row(&self, line: u64, fields: &[&str], bytes: &mut [u8]) -> Result<(), ValueError> {
        let mut record = RecordMut::new(self.schema, bytes).map_err(|error| too_short(line, &error))?;
        if fields.len() != self.columns.len() {
            let expected = format!("{} fields on this line", self.columns.len());
            return Err(ValueProblem::unexpected(expected, fields.len()).at(line, ""));
        }
        let bytes = record.bytes_mut();
        bytes.fill(0);
        self.columns.iter().zip(fields).try_for_each(|(column, field)| {
            column.write(field, bytes).map_err(|problem| problem.at(line, &column.name))
        })
    }
}

impl Column {
    fn read(&self, record: &[u8]) -> Result<String, ValueProblem> {
        let bytes = record.get(self.start..self.end).unwrap_or_default();
        if self.prim == Prim::C8 {
            return text_of(bytes).map(str::to_owned);
        }
        Ok(match Scalar::read(self.prim, bytes)? {
            Scalar::Integer(value) => value.to_string(),
            Scalar::Flag(value) => value.to_string(),
            Scalar::F32(value) => word_of_float(value).unwrap_or_else(str::to_owned),
            Scalar::F64(value) => word_of_float(value).unwrap_or_else(str::to_owned),
        })
    }

    fn write(&self, field: &str, record: &mut [u8]) -> Result<(), ValueProblem> {
        let bytes = record.get_mut(self.start..self.end).unwrap_or_default();
        if self.prim == Prim::C8 { put_text(field, bytes) } else { put_word(self.prim, field, bytes) }
    }
}

fn append(columns: &mut Vec<Column>, outer: &str, start: usize, fields: &[Field]) -> Result<(), ValueError> {
    for field in fields.iter().filter(|field| !field.is_padding()) {
        let name = format!("{outer}{}", field.name());
        let start = start + to_usize(field.offset());
        let (base, count) = (field.ty().base(), field.ty().count());
        match count {
            Some(count) if *base != Base::Prim(Prim::C8) => {
                for index in 0..count {
                    let offset = to_usize(index) * to_usize(element_size(base));
                    append_one(columns, format!("{name}[{index}]"), start + offset, base, 1)?;
                }
            }
            count => append_one(columns, name, start, base, count.unwrap_or(1))?,
        }
    }
    Ok(())
}

fn append_one(
    columns: &mut Vec<Column>,
    name: String,
    start: usize,
    base: &Base,
    count: u32,
) -> Result<(), ValueError> {
    if columns.len() == MAX_COLUMNS {
        return Err(ValueProblem::TooManyColumns { most: MAX_COLUMNS }.at(1, &name));
    }
    match base {
        Base::Record(record) => append(columns, &format!("{name}."), start, record.fields()),
        Base::Prim(prim) => {
            let end = start + to_usize(prim.size()) * to_usize(count);
            columns.push(Column { name, start, end, prim: *prim });
            Ok(())
        }
    }
}

fn too_short(line: u64, error: &AccessError) -> ValueError {
    let problem = match error {
        AccessError::TooShort { expected, found } => {
            ValueProblem::unexpected(format_args!("a record of {expected} bytes"), found)
        }
        other => ValueProblem::unexpected("a record", other),
    };
    problem.at(line, "")
}
