//! Element type, order and progress unit: the closed sets of chapter 2.3.
//!
//! The numbers are fixed for all of v1 (TP-023). UNKNOWN is not a value of these types: it cannot be used, so it is not
//! representable.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Element type of a tensor.
///
/// Prints and parses as numpy names it (`uint8`, `float32`, `bool`, ...), and parses numpy's short codes (`u1`, `<f4`)
/// too. `bytes` and `bit` have no numpy name of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum Dtype {
    /// Unsigned 8-bit integer.
    Uint8 = 1,
    /// Signed 8-bit integer.
    Int8 = 2,
    /// Unsigned 16-bit integer.
    Uint16 = 3,
    /// Signed 16-bit integer.
    Int16 = 4,
    /// Unsigned 32-bit integer.
    Uint32 = 5,
    /// Signed 32-bit integer.
    Int32 = 6,
    /// Unsigned 64-bit integer.
    Uint64 = 7,
    /// Signed 64-bit integer.
    Int64 = 8,
    /// IEEE 754 single precision.
    Float32 = 9,
    /// IEEE 754 double precision.
    Float64 = 10,
    /// One byte per truth value.
    Boolean = 11,
    /// Opaque octets.
    Bytes = 13,
    /// Bits; how they are packed inside a byte is the application's business (TP-024).
    Bit = 14,
}

impl Dtype {
    /// Every element type, in the order of the wire numbers.
    pub const ALL: [Self; 13] = [
        Self::Uint8,
        Self::Int8,
        Self::Uint16,
        Self::Int16,
        Self::Uint32,
        Self::Int32,
        Self::Uint64,
        Self::Int64,
        Self::Float32,
        Self::Float64,
        Self::Boolean,
        Self::Bytes,
        Self::Bit,
    ];

    /// The type with this wire number; `None` for UNKNOWN and numbers that are not assigned, 12 among them.
    #[must_use]
    pub const fn from_raw(raw: i16) -> Option<Self> {
        Some(match raw {
            1 => Self::Uint8,
            2 => Self::Int8,
            3 => Self::Uint16,
            4 => Self::Int16,
            5 => Self::Uint32,
            6 => Self::Int32,
            7 => Self::Uint64,
            8 => Self::Int64,
            9 => Self::Float32,
            10 => Self::Float64,
            11 => Self::Boolean,
            13 => Self::Bytes,
            14 => Self::Bit,
            _ => return None,
        })
    }

    /// The wire number.
    #[must_use]
    pub const fn raw(self) -> i16 {
        self as i16
    }

    /// Bytes of one element, for all stride arithmetic (TP-024).
    #[must_use]
    pub const fn element_size(self) -> usize {
        match self {
            Self::Uint8 | Self::Int8 | Self::Boolean | Self::Bytes | Self::Bit => 1,
            Self::Uint16 | Self::Int16 => 2,
            Self::Uint32 | Self::Int32 | Self::Float32 => 4,
            Self::Uint64 | Self::Int64 | Self::Float64 => 8,
        }
    }

    /// The numpy name, or `bytes` or `bit`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uint8 => "uint8",
            Self::Int8 => "int8",
            Self::Uint16 => "uint16",
            Self::Int16 => "int16",
            Self::Uint32 => "uint32",
            Self::Int32 => "int32",
            Self::Uint64 => "uint64",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Boolean => "bool",
            Self::Bytes => "bytes",
            Self::Bit => "bit",
        }
    }

    /// The type descriptor of a `.npy` header. Octets and bits are stored as unsigned bytes.
    #[must_use]
    pub const fn npy_descr(self) -> &'static str {
        match self {
            Self::Uint8 | Self::Bytes | Self::Bit => "|u1",
            Self::Int8 => "|i1",
            Self::Uint16 => "<u2",
            Self::Int16 => "<i2",
            Self::Uint32 => "<u4",
            Self::Int32 => "<i4",
            Self::Uint64 => "<u8",
            Self::Int64 => "<i8",
            Self::Float32 => "<f4",
            Self::Float64 => "<f8",
            Self::Boolean => "|b1",
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Dtype {
    type Err = ParseDtypeError;

    fn from_str(text: &str) -> Result<Self, ParseDtypeError> {
        if let Some(dtype) = Self::ALL.into_iter().find(|dtype| dtype.name() == text) {
            return Ok(dtype);
        }
        // Byte order marks of numpy: little, native (the same here, TP-004), not applicable.
        let code = text.strip_prefix(['<', '=', '|']).unwrap_or(text);
        Ok(match code {
            "u1" => Self::Uint8,
            "i1" => Self::Int8,
            "u2" => Self::Uint16,
            "i2" => Self::Int16,
            "u4" => Self::Uint32,
            "i4" => Self::Int32,
            "u8" => Self::Uint64,
            "i8" => Self::Int64,
            "f4" => Self::Float32,
            "f8" => Self::Float64,
            "b1" | "?" => Self::Boolean,
            _ => return Err(ParseDtypeError { found: text.to_owned() }),
        })
    }
}

/// A text that names no element type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "unknown element type `{found}`; known are uint8 to uint64, int8 to int64, float32, float64, bool, bytes, bit \
     and numpy's little-endian codes such as u1 or <f4"
)]
pub struct ParseDtypeError {
    /// The text.
    pub found: String,
}

/// Which axis varies fastest in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum MajorOrder {
    /// The last axis is the fastest (C order).
    Row = 1,
    /// The first axis is the fastest (Fortran order).
    Column = 2,
}

impl MajorOrder {
    /// The order with this wire number; `None` for UNKNOWN and unlisted numbers.
    #[must_use]
    pub const fn from_raw(raw: i16) -> Option<Self> {
        match raw {
            1 => Some(Self::Row),
            2 => Some(Self::Column),
            _ => None,
        }
    }

    /// The wire number.
    #[must_use]
    pub const fn raw(self) -> i16 {
        self as i16
    }
}

/// In which steps a producer may report progress on a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum ProgressUnit {
    /// No partial progress.
    #[default]
    None = 0,
    /// Along the first axis, whatever the order (TP-098).
    Rows = 1,
    /// Along the second axis, whatever the order (TP-098).
    Columns = 2,
}

impl ProgressUnit {
    /// The unit with this wire number; `None` for unlisted numbers.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::None),
            1 => Some(Self::Rows),
            2 => Some(Self::Columns),
            _ => None,
        }
    }

    /// The wire number.
    #[must_use]
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// The axis whose stride is the progress stride.
    #[must_use]
    pub const fn axis(self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Rows => Some(0),
            Self::Columns => Some(1),
        }
    }
}

impl fmt::Display for ProgressUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NONE",
            Self::Rows => "ROWS",
            Self::Columns => "COLUMNS",
        })
    }
}
