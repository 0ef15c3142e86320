//! Cuts records out of bytes: pure, so that files, pipes and tests share it.
//!
//! | framing | a record | its value |
//! |---|---|---|
//! | `ndjson` | a line | the line without its newline |
//! | `csv` | a row below the header row | a JSON object, column name to text |
//! | `length` | u32 length, little-endian, and so many bytes | these bytes |
//!
//! A record is found in the bytes from its first one on or not at all; nothing is kept between calls but the header row of
//! CSV, so the bytes may come from anywhere and may come again.

use csv_core::{ReadRecordResult, Reader};
use serde::Deserialize;
use thiserror::Error;

/// How records stand in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// Lines.
    #[default]
    Ndjson,
    /// Rows below a header row.
    Csv,
    /// Bytes behind their number.
    Length,
}

/// What stands at the beginning of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// A record.
    Record {
        /// Bytes that it took.
        taken: usize,
        /// Its value.
        value: Vec<u8>,
    },
    /// A record that says nothing which a function could be given.
    Unfit {
        /// Bytes that it took.
        taken: usize,
        /// What is wrong with it.
        fault: FramingError,
    },
    /// Bytes that are no record, like the header row.
    Skip {
        /// How many.
        taken: usize,
    },
    /// A part of a record, or nothing.
    More,
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FramingError {
    /// More bytes than a record may have.
    #[error(
        "it is longer than {max} bytes, which is more than is kept of one record; raise limits.prefetch, or cut the record"
    )]
    TooLong {
        /// Longest record.
        max: usize,
    },
    /// The source ends inside it.
    #[error("the source ends inside it: {found} bytes of {expected}")]
    Short {
        /// Bytes that are there.
        found: usize,
        /// Bytes it needs.
        expected: usize,
    },
    /// A row with more fields than the header row has.
    #[error("it has {found} fields, the header row {expected}")]
    Fields {
        /// Fields of the row.
        found: usize,
        /// Fields of the header row.
        expected: usize,
    },
    /// Text that is not UTF-8.
    #[error("it is not UTF-8; convert the file, for example with iconv")]
    Utf8,
}

/// Cuts records of one framing.
#[derive(Debug)]
pub struct Cutter {
    framing: Framing,
    /// The header row of CSV, once it was seen.
    columns: Option<Vec<String>>,
    row: Row,
}

impl Cutter {
    /// Nothing seen yet.
    pub fn new(framing: Framing) -> Self {
        Self { framing, columns: None, row: Row::default() }
    }

    /// Whether the first bytes of the source have to be seen before any other: CSV's header row.
    pub fn needs_beginning(&self) -> bool {
        self.framing == Framing::Csv && self.columns.is_none()
    }

    /// Looks for a record at the beginning of `bytes`, whose value has at most `max` bytes. `last`: nothing comes behind them.
    ///
    /// # Errors
    /// There is something that is no record and never will be, and nobody can say where the next one begins.
    pub fn cut(&mut self, bytes: &[u8], last: bool, max: usize) -> Result<Cut, FramingError> {
        match self.framing {
            Framing::Ndjson => line(bytes, last, max),
            Framing::Csv => self.row(bytes, last, max),
            Framing::Length => prefixed(bytes, last, max),
        }
    }

    fn row(&mut self, bytes: &[u8], last: bool, max: usize) -> Result<Cut, FramingError> {
        let Some((taken, fields)) = self.row.read(bytes, last, max)? else { return Ok(Cut::More) };
        let fields = match fields {
            // What a header row says, all others need.
            Err(fault) if self.columns.is_none() => return Err(fault),
            Err(fault) => return Ok(Cut::Unfit { taken, fault }),
            Ok(fields) => fields,
        };
        if fields.is_empty() {
            return Ok(if taken == 0 { Cut::More } else { Cut::Skip { taken } });
        }
        let Some(columns) = &self.columns else {
            self.columns = Some(fields);
            return Ok(Cut::Skip { taken });
        };
        if fields.len() > columns.len() {
            let fault = FramingError::Fields { found: fields.len(), expected: columns.len() };
            return Ok(Cut::Unfit { taken, fault });
        }
        let mut value = Vec::with_capacity(taken + 8 * columns.len());
        for (index, (column, field)) in columns.iter().zip(&fields).enumerate() {
            value.push(if index == 0 { b'{' } else { b',' });
            // Text to JSON in memory does not fail.
            let _ = serde_json::to_writer(&mut value, column);
            value.push(b':');
            let _ = serde_json::to_writer(&mut value, field);
        }
        value.push(b'}');
        if value.len() > max { Err(FramingError::TooLong { max }) } else { Ok(Cut::Record { taken, value }) }
    }
}

fn line(bytes: &[u8], last: bool, max: usize) -> Result<Cut, FramingError> {
    let window = &bytes[..bytes.len().min(max.saturating_add(1))];
    match window.iter().position(|&byte| byte == b'\n') {
        Some(len) => Ok(Cut::Record { taken: len + 1, value: bytes[..len].to_vec() }),
        None if bytes.len() > max => Err(FramingError::TooLong { max }),
        None if last && !bytes.is_empty() => Ok(Cut::Record { taken: bytes.len(), value: bytes.to_vec() }),
        None => Ok(Cut::More),
    }
}

fn prefixed(bytes: &[u8], last: bool, max: usize) -> Result<Cut, FramingError> {
    let short = |expected| {
        let fault = FramingError::Short { found: bytes.len(), expected };
        Ok(Cut::Unfit { taken: bytes.len(), fault })
    };
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else {
        return if last && !bytes.is_empty() { short(4) } else { Ok(Cut::More) };
    };
    let len = u32::from_le_bytes(*len) as usize;
    if len > max {
        return Err(FramingError::TooLong { max });
    }
    match rest.get(..len) {
        Some(value) => Ok(Cut::Record { taken: 4 + len, value: value.to_vec() }),
        None if last => short(4 + len),
        None => Ok(Cut::More),
    }
}

/// Room for one row, kept for the next.
#[derive(Debug, Default)]
struct Row {
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// The fields of a row, or why it has none.
type Fields = Result<Vec<String>, FramingError>;

impl Row {
    /// The bytes of the row at the beginning of `bytes`, and its fields; none for empty lines.
    fn read(
        &mut self,
        bytes: &[u8],
        last: bool,
        max: usize,
    ) -> Result<Option<(usize, Fields)>, FramingError> {
        let window = &bytes[..bytes.len().min(max.saturating_add(1))];
        let mut reader = Reader::new();
        let (mut taken, mut written, mut found) = (0, 0, 0);
        loop {
            // Fields take no more bytes than the row.
            grow(&mut self.text, written, window.len());
            grow(&mut self.ends, found, window.len());
            let (result, read, wrote, ended) =
                reader.read_record(&window[taken..], &mut self.text[written..], &mut self.ends[found..]);
            (taken, written, found) = (taken + read, written + wrote, found + ended);
            match result {
                ReadRecordResult::Record | ReadRecordResult::End => break,
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {}
                ReadRecordResult::InputEmpty if window.len() > max => {
                    return Err(FramingError::TooLong { max });
                }
                // Asked again with nothing, it takes what it has as the last row.
                ReadRecordResult::InputEmpty if last => {}
                ReadRecordResult::InputEmpty => return Ok(None),
            }
        }
        let mut start = 0;
        let mut fields = Vec::with_capacity(found);
        for &end in &self.ends[..found] {
            let Ok(field) = str::from_utf8(&self.text[start..end]) else {
                return Ok(Some((taken, Err(FramingError::Utf8))));
            };
            fields.push(field.to_owned());
            start = end;
        }
        Ok(Some((taken, Ok(fields))))
    }
}

/// Makes room behind what is used: a little at first, twice as much each time, never more than a row can need.
fn grow<T: Clone + Default>(room: &mut Vec<T>, used: usize, most: usize) {
    if room.len() <= used {
        room.resize((2 * room.len()).max(256).min(most + 2), T::default());
    }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
