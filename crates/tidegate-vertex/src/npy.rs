//! Rows of a `.npy` file as records: the bytes of `array[i]` as they stand in the file. The position of a row is its index.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use thiserror::Error;

/// What the header of a `.npy` file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Type of the elements, as numpy writes it: `<f4`.
    pub descr: String,
    /// Length of each axis; the first counts the rows.
    pub shape: Vec<u64>,
    /// Bytes before the first row.
    pub data: u64,
}

/// Why a file is no `.npy` file whose rows can be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Other first bytes.
    #[error("it does not begin like a .npy file; write it with numpy.save")]
    Magic,
    /// A format of later times.
    #[error("it has format version {major}; versions 1 to 3 can be read")]
    Version {
        /// Its version.
        major: u8,
    },
    /// The text is not the dictionary that numpy writes.
    #[error("its header {text:?} lacks {missing}; write it with numpy.save")]
    Text {
        /// The header, at most its first bytes.
        text: String,
        /// What is not there.
        missing: &'static str,
    },
    /// Elements that are no plain numbers.
    #[error("its elements are {descr}; plain numbers and texts of fixed length can be read")]
    Descr {
        /// Their type.
        descr: String,
    },
    /// Columns first.
    #[error("it is in Fortran order; save numpy.ascontiguousarray(array)")]
    Fortran,
    /// One number.
    #[error("it has no axis; save numpy.atleast_1d(array)")]
    NoAxis,
    /// Rows that no memory can hold.
    #[error("its rows have more bytes than can be counted")]
    TooLarge,
}

impl Header {
    /// Reads the header at the beginning of a file, and stands before its first row then.
    ///
    /// # Errors
    /// The file cannot be read, or its header is [`HeaderError`].
    pub fn read(file: &mut File) -> io::Result<Result<Self, HeaderError>> {
        file.seek(SeekFrom::Start(0))?;
        let mut start = [0; 12];
        let len = read_up_to(file, &mut start)?;
        let (magic, rest) = start[..len].split_at(len.min(6));
        if magic != MAGIC || rest.len() < 4 {
            return Ok(Err(HeaderError::Magic));
        }
        let (text_at, text_len) = match rest[0] {
            1 => (10, u64::from(u16::from_le_bytes([rest[2], rest[3]]))),
            2 | 3 if rest.len() == 6 => {
                (12, u64::from(u32::from_le_bytes([rest[2], rest[3], rest[4], rest[5]])))
            }
            major => return Ok(Err(HeaderError::Version { major })),
        };
        file.seek(SeekFrom::Start(text_at))?;
        let mut text = Vec::new();
        file.take(text_len.min(MAX_TEXT)).read_to_end(&mut text)?;
        Ok(Self::parse(&text, text_at + text_len))
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> u64 {
        let size = element_size(&self.descr).unwrap_or(0);
        self.shape.iter().skip(1).fold(size, |bytes, len| bytes.saturating_mul(*len))
    }

    fn parse(text: &[u8], data: u64) -> Result<Self, HeaderError> {
        let shown = String::from_utf8_lossy(&text[..text.len().min(120)]).trim_end().to_owned();
        let lacks = |missing| HeaderError::Text { text: shown.clone(), missing };
        let text = str::from_utf8(text).map_err(|_| lacks("UTF-8"))?;
        let value = |key: &str| {
            let (_, rest) = text.split_once(key)?;
            Some(rest.trim_start().strip_prefix(':')?.trim_start())
        };
        let descr = value("'descr'").ok_or_else(|| lacks("'descr'"))?;
        let descr = match descr.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
            Some((descr, _)) => descr.to_owned(),
            None => return Err(HeaderError::Descr { descr: descr.chars().take(60).collect() }),
        };
        if element_size(&descr).is_none() {
            return Err(HeaderError::Descr { descr });
        }
        let fortran = value("'fortran_order'").ok_or_else(|| lacks("'fortran_order'"))?;
        let shape = value("'shape'").ok_or_else(|| lacks("'shape'"))?;
        let axes =
            shape.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(|| lacks("'shape'"))?.0;
        let axes = axes.split(',').map(str::trim).filter(|axis| !axis.is_empty());
        let shape: Vec<u64> = axes.map(str::parse).collect::<Result<_, _>>().map_err(|_| lacks("'shape'"))?;
        if shape.is_empty() {
            return Err(HeaderError::NoAxis);
        }
        if fortran.starts_with("True") && shape.len() > 1 {
            return Err(HeaderError::Fortran);
        }
        let header = Self { descr, shape, data };
        let rows = header.shape.first().copied().unwrap_or(0);
        match header.row_bytes().checked_mul(rows).and_then(|bytes| bytes.checked_add(data)) {
            Some(_) => Ok(header),
            None => Err(HeaderError::TooLarge),
        }
    }

    /// The header in bytes, as long as that of any number of rows with this type and these other axes.
    pub fn encode(descr: &str, row: &[u64], rows: u64) -> Vec<u8> {
        let text = |rows: u64| {
            let axes: String =
                std::iter::once(rows).chain(row.iter().copied()).map(|axis| format!("{axis}, ")).collect();
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({axes}), }}")
        };
        let len = (10 + text(u64::MAX).len() + 1).next_multiple_of(64);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[1, 0]);
        bytes.extend_from_slice(&((len - 10) as u16).to_le_bytes());
        bytes.extend_from_slice(text(rows).as_bytes());
        bytes.resize(len - 1, b' ');
        bytes.push(b'\n');
        bytes
    }
}

/// Bytes of an element: `<f4` has 4, `<U3` has 12.
pub fn element_size(descr: &str) -> Option<u64> {
    let mut chars = descr.chars();
    let (order, kind) = (chars.next()?, chars.next()?);
    let size: u64 = chars.as_str().parse().ok()?;
    match (order, kind) {
        ('<' | '>' | '|' | '=', 'b' | 'i' | 'u' | 'f' | 'c' | 'S' | 'V') if size > 0 => Some(size),
        ('<' | '>' | '=', 'U') if size > 0 => size.checked_mul(4),
        _ => None,
    }
}

fn read_up_to(file: &mut File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read(&mut bytes[len..])? {
            0 => break,
            read => len += read,
        }
    }
    Ok(len)
}

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header text that is read; numpy's own limit.
const MAX_TEXT: u64 = 10_000;
