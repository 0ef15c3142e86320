//! One primitive value between bytes, numbers and words: what the conversions of records have in common.

use std::fmt::Display;

use thiserror::Error;

use super::{Prim, Primitive};

/// A value that does not fit its field, or a field that is no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, field {field:?}: {problem}")]
pub struct ValueError {
    /// Line of the input, or number of the record on output, as the caller counts.
    pub line: u64,
    /// Path of the field, such as `pos.x` or `samples[3]`; empty for the record as a whole.
    pub field: String,
    /// What is wrong.
    pub problem: ValueProblem,
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ValueProblem {
    /// A value of another kind, or out of range.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// Kind and range of what fits.
        expected: String,
        /// What there was, shortened to what a line holds.
        found: String,
    },
    /// No value for a field.
    #[error("expected a value, found none")]
    Missing,
    /// A value for which there is no field, or two for one.
    #[error("expected only fields of the schema, each once, found this one")]
    Surplus,
    /// More columns than a table may have.
    #[error("expected at most {most} columns of CSV, found more; use NDJSON for this schema")]
    TooManyColumns {
        /// The limit.
        most: usize,
    },
}

impl ValueProblem {
    pub(super) fn unexpected(expected: impl Display, found: impl Display) -> Self {
        Self::Unexpected { expected: expected.to_string(), found: shortened(&found.to_string()) }
    }

    pub(super) fn at(self, line: u64, field: &str) -> ValueError {
        ValueError { line, field: field.to_owned(), problem: self }
    }
}

/// A primitive value that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar {
    Integer(i128),
    F32(f32),
    F64(f64),
    Flag(bool),
}

impl Scalar {
    /// Reads a value. `c8` is no scalar but a text of one byte.
    pub(super) fn read(prim: Prim, bytes: &[u8]) -> Result<Self, ValueProblem> {
        let integer = match prim {
            Prim::U8 => u8::read_le(bytes).map(i128::from),
            Prim::U16 => u16::read_le(bytes).map(i128::from),
            Prim::U32 => u32::read_le(bytes).map(i128::from),
            Prim::U64 => u64::read_le(bytes).map(i128::from),
            Prim::I8 => i8::read_le(bytes).map(i128::from),
            Prim::I16 => i16::read_le(bytes).map(i128::from),
            Prim::I32 => i32::read_le(bytes).map(i128::from),
            Prim::I64 => i64::read_le(bytes).map(i128::from),
            Prim::F32 => return f32::read_le(bytes).map(Self::F32).ok_or(ValueProblem::Missing),
            Prim::F64 => return f64::read_le(bytes).map(Self::F64).ok_or(ValueProblem::Missing),
            Prim::B8 | Prim::C8 => {
                return match bytes.first() {
                    Some(0) => Ok(Self::Flag(false)),
                    Some(1) => Ok(Self::Flag(true)),
                    Some(byte) => Err(ValueProblem::unexpected("0 or 1 in a b8", byte)),
                    None => Err(ValueProblem::Missing),
                };
            }
        };
        integer.map(Self::Integer).ok_or(ValueProblem::Missing)
    }
}

/// Writes a whole number into a field of integers.
pub(super) fn put_integer(prim: Prim, value: i128, bytes: &mut [u8]) -> Result<(), ValueProblem> {
    fn put<P: Primitive + TryFrom<i128>>(value: i128, bytes: &mut [u8]) -> bool {
        P::try_from(value).is_ok_and(|value| value.put_le(bytes))
    }
    let done = match prim {
        Prim::U8 => put::<u8>(value, bytes),
        Prim::U16 => put::<u16>(value, bytes),
        Prim::U32 => put::<u32>(value, bytes),
        Prim::U64 => put::<u64>(value, bytes),
        Prim::I8 => put::<i8>(value, bytes),
        Prim::I16 => put::<i16>(value, bytes),
        Prim::I32 => put::<i32>(value, bytes),
        Prim::I64 => put::<i64>(value, bytes),
        Prim::F32 | Prim::F64 | Prim::B8 | Prim::C8 => false,
    };
    if done { Ok(()) } else { Err(ValueProblem::unexpected(kind(prim), value)) }
}

/// Writes a number into a field of floats. A finite number that is too large for `f32` does not fit.
pub(super) fn put_float(prim: Prim, value: f64, bytes: &mut [u8]) -> Result<(), ValueProblem> {
    let misfit = || Err(ValueProblem::unexpected(kind(prim), value));
    match prim {
        Prim::F32 => {
            let narrow = value as f32;
            let fits = narrow.is_infinite() == value.is_infinite();
            if fits && narrow.put_le(bytes) { Ok(()) } else { misfit() }
        }
        Prim::F64 if value.put_le(bytes) => Ok(()),
        _ => misfit(),
    }
}

/// Writes what a word says into a field of numbers or truth values.
pub(super) fn put_word(prim: Prim, word: &str, bytes: &mut [u8]) -> Result<(), ValueProblem> {
    let misfit = || ValueProblem::unexpected(kind(prim), format_args!("{word:?}"));
    match prim {
        Prim::F32 => {
            let value =
                float_of_word(word, |word| word.parse::<f32>().ok().filter(|value| value.is_finite()));
            if value.ok_or_else(misfit)?.put_le(bytes) { Ok(()) } else { Err(misfit()) }
        }
        Prim::F64 => {
            let value =
                float_of_word(word, |word| word.parse::<f64>().ok().filter(|value| value.is_finite()));
            if value.ok_or_else(misfit)?.put_le(bytes) { Ok(()) } else { Err(misfit()) }
        }
        Prim::B8 => match word {
            "false" | "0" => put_flag(false, bytes),
            "true" | "1" => put_flag(true, bytes),
            _ => Err(misfit()),
        },
        Prim::C8 => put_text(word, bytes),
        _ => put_integer(prim, word.parse().map_err(|_| misfit())?, bytes).map_err(|_| misfit()),
    }
}

/// Writes a truth value.
pub(super) fn put_flag(value: bool, bytes: &mut [u8]) -> Result<(), ValueProblem> {
    if u8::from(value).put_le(bytes) { Ok(()) } else { Err(ValueProblem::Missing) }
}

/// Writes a text and zeros behind it. A zero in the text would end it early.
pub(super) fn put_text(text: &str, bytes: &mut [u8]) -> Result<(), ValueProblem> {
    if text.len() > bytes.len() || text.contains('\0') {
        let expected = format!("a text of at most {} bytes, without a zero byte", bytes.len());
        return Err(ValueProblem::unexpected(expected, format_args!("{text:?} ({} bytes)", text.len())));
    }
    let (place, rest) = bytes.split_at_mut(text.len());
    place.copy_from_slice(text.as_bytes());
    rest.fill(0);
    Ok(())
}

/// The text up to the first zero byte.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, ValueProblem> {
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let text = bytes.get(..len).unwrap_or_default();
    str::from_utf8(text).map_err(|error| {
        let byte = text.get(error.valid_up_to()).copied().unwrap_or(0);
        ValueProblem::unexpected(
            "a text in UTF-8",
            format_args!("byte {byte:#04x} at its position {}", error.valid_up_to()),
        )
    })
}

/// The words for numbers that neither JSON nor a decimal number can express, and otherwise the shortest number that reads
/// back as the same.
pub(super) fn word_of_float(value: impl Into<f64> + Copy + std::fmt::Debug) -> Result<String, &'static str> {
    let wide: f64 = value.into();
    match (wide.is_nan(), wide.is_infinite(), wide > 0.0) {
        (true, ..) => Err("NaN"),
        (_, true, true) => Err("Infinity"),
        (_, true, false) => Err("-Infinity"),
        _ => Ok(format!("{value:?}")),
    }
}

/// Kind and range of what a field can hold.
pub(super) fn kind(prim: Prim) -> String {
    match prim {
        Prim::F32 => format!(
            "a number within {:e}..={:e}, or \"NaN\", \"Infinity\", \"-Infinity\"",
            f32::MIN,
            f32::MAX
        ),
        Prim::F64 => format!(
            "a number within {:e}..={:e}, or \"NaN\", \"Infinity\", \"-Infinity\"",
            f64::MIN,
            f64::MAX
        ),
        Prim::B8 => "true or false".to_owned(),
        Prim::C8 => "a text of one byte".to_owned(),
        Prim::U8 | Prim::U16 | Prim::U32 | Prim::U64 => {
            format!("a whole number in 0..={}", u64::MAX >> (64 - 8 * prim.size()))
        }
        Prim::I8 | Prim::I16 | Prim::I32 | Prim::I64 => {
            let most = i64::MAX >> (64 - 8 * prim.size());
            format!("a whole number in {}..={most}", -most - 1)
        }
    }
}

fn float_of_word<F: From<f32>>(word: &str, finite: impl Fn(&str) -> Option<F>) -> Option<F> {
    match word {
        "NaN" => Some(f32::NAN.into()),
        "Infinity" => Some(f32::INFINITY.into()),
        "-Infinity" => Some(f32::NEG_INFINITY.into()),
        _ => finite(word),
    }
}

fn shortened(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
