//! Records at the end of a file. It is cut back to its length at the last commit when a vertex starts again, so that what it
//! had beyond is not there twice (VX-853, `mode = "append"`).
//!
//! | format | an output | what is in front (VX-854) |
//! |---|---|---|
//! | `ndjson` | a line | nothing |
//! | `csv` | a row: the fields of a JSON object that `columns` names | the header row |
//! | `npy` | `array[i]`: the bytes of a row | a header of constant length, written anew at each commit |

use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use csv_core::{WriteResult, Writer};
use serde::Deserialize;
use serde_json::{Map, Value};
use tidegate_udf::wire::record::headers;

use super::{Class, Confirms, Delivery, Output, Published, Rejected, Sink, SinkError, Token};
use crate::{
    config::{FileMode, FileSink, Role},
    failpoint::{self, Point},
    fence::{WriteGuard, WriteKind, WritePermit},
    npy::{Header, element_size},
};

/// How records stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Lines.
    #[default]
    Ndjson,
    /// Rows below a header row.
    Csv,
    /// Rows of an array.
    Npy,
}

/// What a line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// The value of the output.
    Values,
    /// All of the record as JSON, with the value in base64: dead letters (VX-621).
    Json,
}

impl Lines {
    /// What a sink in this role has in its lines.
    pub fn of(role: Role) -> Self {
        match role {
            Role::Output => Self::Values,
            Role::Dlq => Self::Json,
        }
    }

    /// Appends the line of an output.
    pub fn add(self, output: &Output, id: impl FnOnce() -> String, buffer: &mut Vec<u8>) {
        let record = &output.record;
        match self {
            Self::Values => buffer.extend_from_slice(&record.value),
            Self::Json => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let headers: serde_json::Map<String, serde_json::Value> =
                    headers(&record.headers).map(|(name, value)| (text(name), text(value).into())).collect();
                let line = serde_json::json!({
                    "id": id(),
                    "key": STANDARD.encode(&record.key),
                    "value": STANDARD.encode(&record.value),
                    "event_time": record.event_time,
                    "headers": headers,
                });
                buffer.extend_from_slice(line.to_string().as_bytes());
            }
        }
        buffer.push(b'\n');
    }
}

/// A file that is appended to. Its token is its length, eight bytes.
#[derive(Debug)]
pub struct Append {
    file: File,
    path: PathBuf,
    rows: Rows,
    buffer: Vec<u8>,
    len: u64,
    /// Else a pipe or a device: it has no length, and nothing in it can be taken back or waited for.
    is_regular: bool,
}

/// What an output is in the file.
#[derive(Debug)]
enum Rows {
    Lines(Lines),
    Csv { columns: Vec<String> },
    Npy { descr: String, shape: Vec<u64>, data: u64, row: u64 },
}

/// Whether the keys of a file sink fit each other.
///
/// # Errors
/// [`SinkError::Setting`].
pub(crate) fn check(config: &FileSink, lines: Lines) -> Result<(), SinkError> {
    Rows::new(config, lines).map(drop)
}

impl Append {
    /// Opens the file, which is made if there is none.
    ///
    /// # Errors
    /// [`SinkError::File`], or [`SinkError::Setting`] when the keys do not fit the format or the file.
    pub fn open(config: &FileSink, lines: Lines) -> Result<Self, SinkError> {
        let path = config.path.clone();
        let rows = Rows::new(config, lines)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|source| SinkError::File { path: path.clone(), source })?;
        let mut sink = Self { file, path, rows, buffer: Vec::new(), len: 0, is_regular: true };
        let found = sink.file.metadata().map_err(|source| sink.failed(source))?;
        (sink.is_regular, sink.len) = (found.is_file(), found.len());
        if sink.len > 0 {
            sink.fits()?;
        }
        Ok(sink)
    }

    fn failed(&self, source: std::io::Error) -> SinkError {
        SinkError::File { path: self.path.clone(), source }
    }

    /// Whether what is in front of the file is what would be written there.
    fn fits(&mut self) -> Result<(), SinkError> {
        let refused =
            |key, found, expected| SinkError::Setting { path: self.path.clone(), key, found, expected };
        match &self.rows {
            Rows::Lines(_) => Ok(()),
            Rows::Csv { columns } => {
                let mut expected = Vec::new();
                row(&mut expected, columns);
                let mut found = vec![0; expected.len()];
                let read = self.file.read_exact_at(&mut found, 0);
                match read {
                    Ok(()) if found == expected => Ok(()),
                    _ => Err(refused(
                        "columns",
                        String::from_utf8_lossy(&expected).trim_end().to_owned(),
                        "the header row of the file that is there".to_owned(),
                    )),
                }
            }
            Rows::Npy { descr, shape, data, .. } => {
                let header = Header::read(&mut self.file).map_err(|source| self.failed(source))?;
                match header {
                    Ok(header)
                        if header.descr == *descr && header.shape[1..] == *shape && header.data == *data =>
                    {
                        Ok(())
                    }
                    found => Err(refused(
                        "dtype and shape",
                        format!("{descr} {shape:?}"),
                        match found {
                            Ok(header) => format!(
                                "{} {:?}, as in the file that is there",
                                header.descr,
                                &header.shape[1..]
                            ),
                            Err(fault) => format!("for another file: {fault}"),
                        },
                    )),
                }
            }
        }
    }

    /// The length that the ledger knows, which the file has at least.
    fn known_length(&self, last: &Token) -> Result<u64, SinkError> {
        let len = <[u8; 8]>::try_from(last.0.as_slice());
        let sink = || self.path.display().to_string();
        let len = u64::from_be_bytes(len.map_err(|_| SinkError::Token { sink: sink() })?);
        let found = self.file.metadata().map_err(|source| self.failed(source))?.len();
        if self.is_regular && found < len {
            return Err(SinkError::Shorter { path: self.path.clone(), found, expected: len });
        }
        Ok(len)
    }

    /// The length with the last record behind `len` that is there as a whole.
    fn whole_since(&self, len: u64) -> Result<u64, SinkError> {
        if !self.is_regular {
            return Ok(len);
        }
        if let Rows::Npy { data, row, .. } = &self.rows {
            let found = self.file.metadata().map_err(|source| self.failed(source))?.len();
            return Ok(found.checked_sub(*data).map_or(len, |rows| data + rows / row * row));
        }
        let (mut whole, mut at, mut in_quotes) = (len, len, false);
        let mut buffer = vec![0; WRITE_SIZE];
        loop {
            let read = self.file.read_at(&mut buffer, at).map_err(|source| self.failed(source))?;
            let Some(found) = buffer.get(..read).filter(|found| !found.is_empty()) else { return Ok(whole) };
            for byte in found {
                at += 1;
                match byte {
                    b'"' if matches!(self.rows, Rows::Csv { .. }) => in_quotes = !in_quotes,
                    b'\n' if !in_quotes => whole = at,
                    _ => {}
                }
            }
        }
    }

    fn cut(&mut self, len: u64) -> Result<(), SinkError> {
        if !self.is_regular {
            return Ok(());
        }
        self.len = len;
        self.file.set_len(len).map_err(|source| self.failed(source))
    }

    fn write(&mut self, guard: &WriteGuard) -> Result<(), SinkError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.len == 0 {
            let mut whole = self.rows.front(0);
            whole.append(&mut self.buffer);
            self.buffer = whole;
        }
        if self.is_regular {
            self.file.seek(SeekFrom::Start(self.len)).map_err(|source| self.failed(source))?;
        }
        let permit = guard.permit(WriteKind::Sink)?;
        failpoint::at(Point::Permitted);
        let written = self.file.write_all(&self.buffer);
        drop(permit);
        written.map_err(|source| self.failed(source))?;
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Sink for Append {
    fn class(&self) -> Class {
        Class::C
    }

    fn confirms(&self) -> Confirms {
        Confirms::OnDisk
    }

    fn restore(&mut self, last: &Token, _: &[WritePermit]) -> Result<(), SinkError> {
        let len = self.known_length(last)?;
        self.cut(len)
    }

    fn keep(&mut self, last: &Token, _: &[WritePermit]) -> Result<(), SinkError> {
        let len = self.whole_since(self.known_length(last)?)?;
        self.cut(len)
    }

    fn publish(&mut self, delivery: &Delivery<'_>, guard: &WriteGuard) -> Result<Published, SinkError> {
        // What a session had that lost its right is not written with the right of another.
        self.buffer.clear();
        let mut rejected = Vec::new();
        let half = delivery.outputs.len() / 2;
        for (index, output) in delivery.outputs.iter().enumerate() {
            let id = || delivery.ids.of(delivery.session.partition, output);
            if let Err(reason) = self.rows.add(&mut self.buffer, output, id) {
                rejected.push(Rejected { index, reason });
            }
            if self.buffer.len() >= WRITE_SIZE {
                self.write(guard)?;
            }
            if cfg!(feature = "failpoints") && index == half {
                self.write(guard)?;
                failpoint::at(Point::HalfVisible);
            }
        }
        self.write(guard)?;
        Ok(Published { rejected, ..Published::all(delivery) })
    }

    fn flush(&mut self) -> Result<Option<Token>, SinkError> {
        if !self.is_regular {
            return Ok(None);
        }
        if let Rows::Npy { data, row, .. } = &self.rows
            && self.len > 0
        {
            // The same length whatever the number of rows: whoever reads the file sees the rows of one commit or the next.
            let front = self.rows.front((self.len - data) / row);
            self.file.write_all_at(&front, 0).map_err(|source| self.failed(source))?;
        }
        self.file.sync_data().map_err(|source| self.failed(source))?;
        Ok(Some(Token(self.len.to_be_bytes().to_vec())))
    }
}

impl Rows {
    fn new(config: &FileSink, lines: Lines) -> Result<Self, SinkError> {
        let FileSink { path, mode, format, columns, dtype, shape, .. } = config;
        let refuse = |key, found: String, expected: &str| {
            Err(SinkError::Setting { path: path.clone(), key, found, expected: expected.to_owned() })
        };
        match format {
            Format::Csv | Format::Npy if *mode == FileMode::Epoch => {
                refuse("format", format!("{format:?}").to_lowercase(), "ndjson with mode = \"epoch\"")
            }
            Format::Csv | Format::Npy if lines == Lines::Json => {
                refuse("format", format!("{format:?}").to_lowercase(), "ndjson with role = \"dlq\"")
            }
            Format::Csv if columns.is_empty() => {
                refuse("columns", "missing".to_owned(), "the names of the columns, with format = \"csv\"")
            }
            Format::Csv => Ok(Self::Csv { columns: columns.clone() }),
            _ if !columns.is_empty() => {
                refuse("columns", "set".to_owned(), "left out without format = \"csv\"")
            }
            Format::Npy => {
                let descr = dtype.clone().unwrap_or_default();
                let Some(size) = element_size(&descr) else {
                    return refuse("dtype", format!("{descr:?}"), "a type as numpy writes it, like \"<f4\"");
                };
                let bytes = shape.iter().try_fold(size, |bytes, len| bytes.checked_mul(*len));
                match bytes {
                    Some(row) if row > 0 && shape.len() <= MAX_AXES && descr.len() <= 16 => {
                        let data = Header::encode(&descr, shape, 0).len() as u64;
                        Ok(Self::Npy { descr, shape: shape.clone(), data, row })
                    }
                    _ => refuse(
                        "shape",
                        format!("{shape:?}"),
                        "at most 63 axes, none of them 0, with less than 2^64 bytes",
                    ),
                }
            }
            Format::Ndjson if dtype.is_some() || !shape.is_empty() => {
                refuse("dtype or shape", "set".to_owned(), "left out without format = \"npy\"")
            }
            Format::Ndjson => Ok(Self::Lines(lines)),
        }
    }

    /// What the file begins with when it has so many rows.
    fn front(&self, rows: u64) -> Vec<u8> {
        match self {
            Self::Lines(_) => Vec::new(),
            Self::Csv { columns } => {
                let mut bytes = Vec::new();
                row(&mut bytes, columns);
                bytes
            }
            Self::Npy { descr, shape, .. } => Header::encode(descr, shape, rows),
        }
    }

    /// Adds an output; otherwise why it cannot be one.
    fn add(&self, bytes: &mut Vec<u8>, output: &Output, id: impl FnOnce() -> String) -> Result<(), String> {
        let value = &output.record.value;
        match self {
            Self::Lines(Lines::Values) if value.contains(&b'\n') => {
                return Err("it has a newline inside".to_owned());
            }
            Self::Lines(lines) => lines.add(output, id, bytes),
            Self::Csv { columns } => {
                let object: Map<String, Value> =
                    serde_json::from_slice(value).map_err(|error| format!("not a JSON object: {error}"))?;
                if let Some(key) = object.keys().find(|key| !columns.contains(key)) {
                    return Err(format!("it has {key:?}, which no column is named"));
                }
                let field = |column| match object.get(column) {
                    None | Some(Value::Null) => String::new(),
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                };
                row(bytes, &columns.iter().map(field).collect::<Vec<_>>());
            }
            Self::Npy { row, .. } if value.len() as u64 != *row => {
                return Err(format!("it has {} bytes, a row of the array {row}", value.len()));
            }
            Self::Npy { .. } => bytes.extend_from_slice(value),
        }
        Ok(())
    }
}

/// Adds a row of CSV.
fn row(bytes: &mut Vec<u8>, fields: &[String]) {
    let mut writer = Writer::new();
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            put(bytes, |room| writer.delimiter(room));
        }
        let mut rest = field.as_bytes();
        put(bytes, |room| {
            let (result, read, written) = writer.field(rest, room);
            rest = &rest[read..];
            (result, written)
        });
    }
    put(bytes, |room| writer.terminator(room));
}

/// Lets the writer write until it needs no more room.
fn put(bytes: &mut Vec<u8>, mut step: impl FnMut(&mut [u8]) -> (WriteResult, usize)) {
    let mut room = [0; 256];
    loop {
        let (result, written) = step(&mut room);
        bytes.extend_from_slice(&room[..written]);
        if matches!(result, WriteResult::InputEmpty) {
            return;
        }
    }
}

/// What is written at once, roughly.
const WRITE_SIZE: usize = 256 * 1024;
/// Axes of a row, one less than numpy allows.
const MAX_AXES: usize = 63;

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
