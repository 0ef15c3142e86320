//! A record as a JSON object, and back.
//!
//! | type | JSON |
//! |---|---|
//! | `u8`..`u32`, `i8`..`i32` | number |
//! | `u64`, `i64` | string of digits, as in all JSON of the hub (DH-265); a number is understood too |
//! | `f32`, `f64` | shortest number that reads back as the same; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `b8` | `true`, `false` |
//! | `c8`, `c8[n]` | string, without the zeros behind it |
//! | other arrays | list of as many elements |
//! | nested record | object |
//!
//! Padding is left out, and is zero in records made from JSON. Every other field must be there, and no more.

use serde_json::{Map, Number, Value};

use super::layout::element_size;
use super::record::to_usize;
use super::value::{
    Scalar, kind, put_flag, put_float, put_integer, put_text, put_word, text_of, word_of_float,
};
use super::{Base, Field, FieldType, Prim, RecordMut, RecordRef, ValueError, ValueProblem};

impl RecordRef<'_> {
    /// The record as an object, its fields in the order of the schema. `line` counts for the error only.
    ///
    /// # Errors
    /// [`ValueError`] for a `b8` that is neither 0 nor 1, and a `c8[n]` that is not UTF-8.
    pub fn to_json(&self, line: u64) -> Result<Value, ValueError> {
        let mut path = Path::new(line);
        path.read_record(self.schema().fields(), self.bytes())
    }
}

impl RecordMut<'_> {
    /// Fills in all fields from an object; padding becomes zero. After an error the record is filled in part.
    ///
    /// # Errors
    /// [`ValueError`] with `line`, field, what was expected and what was found: for values of another kind or out of
    /// range, missing fields, and members that are no fields.
    pub fn put_json(&mut self, line: u64, value: &Value) -> Result<(), ValueError> {
        let fields = self.schema().fields();
        Path::new(line).write_record(fields, value, self.bytes_mut())
    }
}

/// Where the conversion is: the line, and the path of the field.
struct Path {
    line: u64,
    path: String,
}

impl Path {
    fn new(line: u64) -> Self {
        Self { line, path: String::new() }
    }

    fn error(&self, problem: ValueProblem) -> ValueError {
        problem.at(self.line, &self.path)
    }

    fn unexpected(&self, expected: impl std::fmt::Display, found: &Value) -> ValueError {
        self.error(ValueProblem::unexpected(expected, found))
    }

    /// Does something one step further down.
    fn within<R>(&mut self, step: std::fmt::Arguments<'_>, act: impl FnOnce(&mut Self) -> R) -> R {
        let len = self.path.len();
        self.path.push_str(&step.to_string());
        let result = act(self);
        self.path.truncate(len);
        result
    }

    fn within_field<R>(&mut self, field: &str, act: impl FnOnce(&mut Self) -> R) -> R {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.within(format_args!("{dot}{field}"), act)
    }

    fn read_record(&mut self, fields: &[Field], bytes: &[u8]) -> Result<Value, ValueError> {
        let mut object = Map::new();
        for field in fields.iter().filter(|field| !field.is_padding()) {
            let bytes = part(bytes, field);
            let value = self.within_field(field.name(), |path| path.read_field(field.ty(), bytes))?;
            object.insert(field.name().to_owned(), value);
        }
        Ok(Value::Object(object))
    }

    fn read_field(&mut self, ty: &FieldType, bytes: &[u8]) -> Result<Value, ValueError> {
        if let Base::Prim(Prim::C8) = ty.base() {
            let text = text_of(bytes).map_err(|problem| self.error(problem))?;
            return Ok(Value::String(text.to_owned()));
        }
        if ty.count().is_none() {
            return self.read_element(ty.base(), bytes);
        }
        let elements = bytes.chunks_exact(to_usize(element_size(ty.base()))).enumerate();
        elements
            .map(|(index, bytes)| {
                self.within(format_args!("[{index}]"), |path| path.read_element(ty.base(), bytes))
            })
            .collect()
    }

    fn read_element(&mut self, base: &Base, bytes: &[u8]) -> Result<Value, ValueError> {
        let prim = match base {
            Base::Record(record) => return self.read_record(record.fields(), bytes),
            Base::Prim(prim) => *prim,
        };
        Ok(match Scalar::read(prim, bytes).map_err(|problem| self.error(problem))? {
            Scalar::Integer(value) if prim.size() == 8 => Value::String(value.to_string()),
            Scalar::Integer(value) => i64::try_from(value).map_or(Value::Null, Value::from),
            Scalar::Flag(value) => Value::Bool(value),
            Scalar::F64(value) => Number::from_f64(value).map_or_else(|| not_finite(value), Value::Number),
            Scalar::F32(value) => number_of_f32(value).map_or_else(|| not_finite(value), Value::Number),
        })
    }

    fn write_record(&mut self, fields: &[Field], value: &Value, bytes: &mut [u8]) -> Result<(), ValueError> {
        let Value::Object(object) = value else {
            return Err(self.unexpected("an object with the fields of the schema", value));
        };
        let is_field = |name: &str| fields.iter().any(|field| field.name() == name && !field.is_padding());
        if let Some(name) = object.keys().find(|name| !is_field(name)) {
            return Err(self.within_field(name, |path| path.error(ValueProblem::Surplus)));
        }
        for field in fields {
            let place = part_mut(bytes, field);
            if field.is_padding() {
                place.fill(0);
                continue;
            }
            self.within_field(field.name(), |path| {
                let value = object.get(field.name()).ok_or_else(|| path.error(ValueProblem::Missing))?;
                path.write_field(field.ty(), value, place)
            })?;
        }
        Ok(())
    }

    fn write_field(&mut self, ty: &FieldType, value: &Value, bytes: &mut [u8]) -> Result<(), ValueError> {
        if let Base::Prim(Prim::C8) = ty.base() {
            let Value::String(text) = value else { return Err(self.unexpected("a text", value)) };
            return put_text(text, bytes).map_err(|problem| self.error(problem));
        }
        let Some(count) = ty.count() else { return self.write_element(ty.base(), value, bytes) };
        let expected = || format!("a list of {count} elements");
        let Value::Array(values) = value else { return Err(self.unexpected(expected(), value)) };
        if values.len() != to_usize(count) {
            let found = format!("one of {}", values.len());
            return Err(self.error(ValueProblem::unexpected(expected(), found)));
        }
        let places = bytes.chunks_exact_mut(to_usize(element_size(ty.base())));
        places.zip(values).enumerate().try_for_each(|(index, (bytes, value))| {
            self.within(format_args!("[{index}]"), |path| path.write_element(ty.base(), value, bytes))
        })
    }

    fn write_element(&mut self, base: &Base, value: &Value, bytes: &mut [u8]) -> Result<(), ValueError> {
        let prim = match base {
            Base::Record(record) => return self.write_record(record.fields(), value, bytes),
            Base::Prim(prim) => *prim,
        };
        let float = matches!(prim, Prim::F32 | Prim::F64);
        let written = match value {
            Value::Number(number) if float => number.as_f64().map(|number| put_float(prim, number, bytes)),
            Value::Number(number) => whole(number).map(|number| put_integer(prim, number, bytes)),
            Value::Bool(flag) if prim == Prim::B8 => Some(put_flag(*flag, bytes)),
            Value::String(word) if float && is_name_of_float(word) => Some(put_word(prim, word, bytes)),
            Value::String(word) if matches!(prim, Prim::U64 | Prim::I64) => Some(put_word(prim, word, bytes)),
            _ => None,
        };
        written
            .unwrap_or_else(|| Err(ValueProblem::unexpected(kind(prim), value)))
            .map_err(|problem| self.error(problem))
    }
}

fn part<'b>(record: &'b [u8], field: &Field) -> &'b [u8] {
    record.get(to_usize(field.offset())..to_usize(field.end())).unwrap_or_default()
}

fn part_mut<'b>(record: &'b mut [u8], field: &Field) -> &'b mut [u8] {
    record.get_mut(to_usize(field.offset())..to_usize(field.end())).unwrap_or_default()
}

fn whole(number: &Number) -> Option<i128> {
    number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from))
}

fn is_name_of_float(word: &str) -> bool {
    matches!(word, "NaN" | "Infinity" | "-Infinity")
}

fn not_finite(value: impl Into<f64> + Copy + std::fmt::Debug) -> Value {
    Value::from(word_of_float(value).err())
}

/// The short number that people expect (0.1, not 0.10000000149011612), if it reads back as the same.
fn number_of_f32(value: f32) -> Option<Number> {
    let short =
        format!("{value:?}").parse().ok().filter(|&short: &f64| (short as f32).to_bits() == value.to_bits());
    Number::from_f64(short.unwrap_or_else(|| f64::from(value)))
}
