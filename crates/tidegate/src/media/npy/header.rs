//! The text of a header, to a value and back.

use thiserror::Error;

use crate::tensor::tensor::{Dtype, MajorOrder};

/// Longest header text that is read. numpy's own limit; arrays of plain elements need a few hundred bytes.
pub(super) const MAX_TEXT: usize = 10_000;
/// Most axes numpy gives an array.
const MAX_AXES: usize = 64;
/// Longest piece of a foreign header that an error repeats.
const EXCERPT: usize = 60;

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NpyHeader {
    pub(super) dtype: Dtype,
    pub(super) order: MajorOrder,
    pub(super) shape: Vec<u64>,
}

/// What is wrong with a `.npy` header.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NpyHeaderError {
    /// A format version that does not exist.
    #[error(
        "format version {major}.{minor} is unknown, 1.0, 2.0 and 3.0 can be read; save it again with np.save"
    )]
    Version {
        /// First version byte.
        major: u8,
        /// Second version byte.
        minor: u8,
    },
    /// A header text longer than any array of plain elements needs.
    #[error("the header claims {found} bytes, at most {max} are read; save plain numbers with np.save")]
    TooLong {
        /// Length field.
        found: u64,
        /// Most bytes that are read.
        max: usize,
    },
    /// The text is not the dictionary that numpy writes.
    #[error(
        "the header text has {found} at byte {offset}, expected {expected}; save the array again with np.save"
    )]
    Syntax {
        /// Byte in the header text.
        offset: usize,
        /// What must be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A key that does not belong there, or a second time.
    #[error(
        "the header has the key `{key}` that it must not have, or has it twice; save it again with np.save"
    )]
    Key {
        /// The key.
        key: String,
    },
    /// A key is not there.
    #[error("the header lacks the key `{key}`; save the array again with np.save")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// Elements that a tensor cannot have.
    #[error("elements of dtype {descr} cannot be published: {reason}")]
    Dtype {
        /// The type as the header has it.
        descr: String,
        /// Why, and what helps.
        reason: DtypeReason,
    },
    /// An axis that is longer than 64 bits can say.
    #[error("axis {axis} is longer than any file; save the array again with np.save")]
    AxisTooLong {
        /// The axis, from 0.
        axis: usize,
    },
    /// More axes than numpy allows.
    #[error("the shape has more than {MAX_AXES} axes, numpy makes no such array; save it again with np.save")]
    TooManyAxes,
    /// More bytes than 64 bits can count.
    #[error("the shape and type make an array larger than any file; save the array again with np.save")]
    TooLarge,
    /// A single number, without an axis.
    #[error("the array has no axis, a tensor needs one; save it with np.save(path, np.atleast_1d(array))")]
    NoAxis,
}

/// Why an element type cannot be published, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DtypeReason {
    /// Most significant byte first.
    #[error("they are big-endian; save array.astype(array.dtype.newbyteorder('<'))")]
    BigEndian,
    /// Records with fields.
    #[error("they are records; save one field, as in array['name']")]
    Structured,
    /// Two numbers each.
    #[error("they are complex; save np.stack([array.real, array.imag], axis=-1)")]
    Complex,
    /// Anything else.
    #[error(
        "tensors hold int8 to int64, uint8 to uint64, float32, float64 and bool; convert with array.astype(...)"
    )]
    Unsupported,
}

impl NpyHeader {
    /// Reads the text. Time and memory are linear in its length.
    pub(super) fn parse(text: &[u8]) -> Result<Self, NpyHeaderError> {
        let mut cursor = Cursor { text, offset: 0 };
        let (mut dtype, mut order, mut shape) = (None, None, None);
        cursor.expect(b'{', "{")?;
        while !cursor.accept(b'}') {
            let key = cursor.string()?;
            cursor.expect(b':', ":")?;
            match key {
                b"descr" if dtype.is_none() => dtype = Some(cursor.dtype()?),
                b"fortran_order" if order.is_none() => order = Some(cursor.order()?),
                b"shape" if shape.is_none() => shape = Some(cursor.shape()?),
                _ => return Err(NpyHeaderError::Key { key: excerpt(key) }),
            }
            if !cursor.accept(b',') {
                cursor.expect(b'}', ", or }")?;
                break;
            }
        }
        cursor.skip_space();
        if let Some(byte) = cursor.peek() {
            return Err(cursor.syntax("the end of the header", Some(byte)));
        }
        Ok(Self {
            dtype: dtype.ok_or(NpyHeaderError::Missing { key: "descr" })?,
            order: order.ok_or(NpyHeaderError::Missing { key: "fortran_order" })?,
            shape: shape.ok_or(NpyHeaderError::Missing { key: "shape" })?,
        })
    }

    /// Bytes of all elements.
    pub(super) fn array_bytes(&self) -> Result<u64, NpyHeaderError> {
        let size = self.dtype.element_size() as u64;
        self.shape
            .iter()
            .try_fold(size, |bytes, &axis| bytes.checked_mul(axis))
            .ok_or(NpyHeaderError::TooLarge)
    }
}

/// Bytes of everything before the elements of a C-order array of frames, as numpy 2 writes them.
///
/// Like numpy, it leaves room for 21 digits of the first axis, so the header of the same type and frame shape is equally
/// long for any number of frames and that number can be written last. The length is a multiple of 64.
pub(super) fn format(dtype: Dtype, frame_shape: &[i32], frames: u64) -> Vec<u8> {
    const PREFIX: usize = 10;
    const LONGEST_AXIS: usize = 21;

    let count = frames.to_string();
    let mut text =
        format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({count}", dtype.npy_descr()).into_bytes();
    for axis in frame_shape {
        text.extend_from_slice(format!(", {axis}").as_bytes());
    }
    text.extend_from_slice(b"), }");

    let longest = PREFIX + text.len() + LONGEST_AXIS.saturating_sub(count.len()) + 1;
    let total = longest + 64 - longest % 64;
    text.resize(total - PREFIX - 1, b' ');
    text.push(b'\n');

    let mut header = Vec::with_capacity(total);
    header.extend_from_slice(b"\x93NUMPY\x01\x00");
    // At most nine axes of ten digits each: far below 65536.
    header.extend_from_slice(&(text.len() as u16).to_le_bytes());
    header.append(&mut text);
    header
}

struct Cursor<'a> {
    text: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.offset).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.offset += 1;
        }
    }

    /// Takes `byte` if it is next, after space.
    fn accept(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.offset += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), NpyHeaderError> {
        if self.accept(byte) { Ok(()) } else { Err(self.syntax(expected, self.peek())) }
    }

    /// A string in either kind of quotes. Escapes do not occur in keys and plain types.
    fn string(&mut self) -> Result<&'a [u8], NpyHeaderError> {
        self.skip_space();
        let quote = match self.peek() {
            Some(quote @ (b'\'' | b'"')) => quote,
            found => return Err(self.syntax("a string", found)),
        };
        let rest = self.text.get(self.offset + 1..).unwrap_or_default();
        let Some(len) = rest.iter().position(|&byte| byte == quote) else {
            return Err(self.syntax("a string that ends", Some(quote)));
        };
        self.offset += len + 2;
        Ok(rest.get(..len).unwrap_or_default())
    }

    fn dtype(&mut self) -> Result<Dtype, NpyHeaderError> {
        self.skip_space();
        if let Some(b'[' | b'(') = self.peek() {
            let descr = excerpt(self.text.get(self.offset..).unwrap_or_default());
            return Err(NpyHeaderError::Dtype { descr, reason: DtypeReason::Structured });
        }
        let descr = self.string()?;
        plain_dtype(descr).map_err(|reason| NpyHeaderError::Dtype { descr: excerpt(descr), reason })
    }

    fn order(&mut self) -> Result<MajorOrder, NpyHeaderError> {
        self.skip_space();
        let rest = self.text.get(self.offset..).unwrap_or_default();
        for (word, order) in [("True", MajorOrder::Column), ("False", MajorOrder::Row)] {
            if rest.starts_with(word.as_bytes()) {
                self.offset += word.len();
                return Ok(order);
            }
        }
        Err(self.syntax("True or False", self.peek()))
    }

    fn shape(&mut self) -> Result<Vec<u64>, NpyHeaderError> {
        self.expect(b'(', "(")?;
        let mut shape = Vec::new();
        while !self.accept(b')') {
            if shape.len() == MAX_AXES {
                return Err(NpyHeaderError::TooManyAxes);
            }
            shape.push(self.number(shape.len())?);
            if !self.accept(b',') {
                self.expect(b')', ", or )")?;
                break;
            }
        }
        Ok(shape)
    }

    /// A number, with the `L` that Python 2 put behind long ones.
    fn number(&mut self, axis: usize) -> Result<u64, NpyHeaderError> {
        self.skip_space();
        let start = self.offset;
        let mut number: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(u64::from(digit - b'0')))
                .ok_or(NpyHeaderError::AxisTooLong { axis })?;
            self.offset += 1;
        }
        if self.offset == start {
            return Err(self.syntax("a number", self.peek()));
        }
        self.offset += usize::from(self.peek() == Some(b'L'));
        Ok(number)
    }

    fn syntax(&self, expected: &'static str, found: Option<u8>) -> NpyHeaderError {
        let found = found.map_or_else(|| "its end".to_owned(), |byte| format!("`{}`", excerpt(&[byte])));
        NpyHeaderError::Syntax { offset: self.offset, expected, found }
    }
}

/// The element type for a type string such as `<f4`.
fn plain_dtype(descr: &[u8]) -> Result<Dtype, DtypeReason> {
    let text = std::str::from_utf8(descr).map_err(|_| DtypeReason::Unsupported)?;
    let mut code = text.chars();
    let order = code.next();
    let code = code.as_str();
    // Names such as `uint8` parse too, but do not occur in files; codes are a letter and a digit, or `?`.
    let dtype = match code.len() {
        1 | 2 => code.parse::<Dtype>(),
        _ => return Err(reason(order, code)),
    };
    match (order, dtype) {
        (Some('<' | '|' | '='), Ok(dtype)) => Ok(dtype),
        (Some('>'), Ok(dtype)) if dtype.element_size() == 1 => Ok(dtype),
        (order, _) => Err(reason(order, code)),
    }
}

fn reason(order: Option<char>, code: &str) -> DtypeReason {
    match (order, code.chars().next()) {
        (_, Some('c')) => DtypeReason::Complex,
        (_, Some('V')) => DtypeReason::Structured,
        (Some('>'), Some('i' | 'u' | 'f')) => DtypeReason::BigEndian,
        _ => DtypeReason::Unsupported,
    }
}

/// Foreign bytes made fit for a terminal, and short.
fn excerpt(bytes: &[u8]) -> String {
    let short = bytes.get(..EXCERPT).unwrap_or(bytes);
    let mut text = String::new();
    for &byte in short {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    if short.len() < bytes.len() {
        text.push_str("...");
    }
    text
}
