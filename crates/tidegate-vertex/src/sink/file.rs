//! Lines at the end of a file. It is cut back to its length at the last commit when a vertex starts again, so it has nothing
//! twice (VX-853, `mode = "append"`).

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tidegate_udf::wire::record::headers;

use super::{Class, Confirms, Delivery, Output, Published, Sink, SinkError, Token};
use crate::{
    config::Role,
    failpoint::{self, Point},
    fence::{WriteGuard, WriteKind, WritePermit},
};

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
    lines: Lines,
    buffer: Vec<u8>,
}

impl Append {
    /// Opens the file, which is made if there is none.
    ///
    /// # Errors
    /// [`SinkError::File`].
    pub fn open(path: &Path, lines: Lines) -> Result<Self, SinkError> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|source| SinkError::File { path: path.to_owned(), source })?;
        Ok(Self { file, path: path.to_owned(), lines, buffer: Vec::new() })
    }

    fn failed(&self, source: std::io::Error) -> SinkError {
        SinkError::File { path: self.path.clone(), source }
    }

    fn write(&mut self, guard: &WriteGuard) -> Result<(), SinkError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let permit = guard.permit(WriteKind::Sink)?;
        failpoint::at(Point::Permitted);
        let written = self.file.write_all(&self.buffer);
        drop(permit);
        self.buffer.clear();
        written.map_err(|source| self.failed(source))
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
        let len = <[u8; 8]>::try_from(last.0.as_slice());
        let sink = || self.path.display().to_string();
        let len = u64::from_be_bytes(len.map_err(|_| SinkError::Token { sink: sink() })?);
        let found = self.file.metadata().map_err(|source| self.failed(source))?.len();
        if found < len {
            return Err(SinkError::Shorter { path: self.path.clone(), found, expected: len });
        }
        self.file.set_len(len).map_err(|source| self.failed(source))
    }

    fn publish(&mut self, delivery: &Delivery<'_>, guard: &WriteGuard) -> Result<Published, SinkError> {
        let half = delivery.outputs.len() / 2;
        for (index, output) in delivery.outputs.iter().enumerate() {
            let id = || delivery.ids.of(delivery.session.partition, output);
            self.lines.add(output, id, &mut self.buffer);
            if self.buffer.len() >= WRITE_SIZE {
                self.write(guard)?;
            }
            if cfg!(feature = "failpoints") && index == half {
                self.write(guard)?;
                failpoint::at(Point::HalfVisible);
            }
        }
        self.write(guard)?;
        Ok(Published::all(delivery))
    }

    fn flush(&mut self) -> Result<Option<Token>, SinkError> {
        self.file.sync_data().map_err(|source| self.failed(source))?;
        let len = self.file.metadata().map_err(|source| self.failed(source))?.len();
        Ok(Some(Token(len.to_be_bytes().to_vec())))
    }
}

/// What is written at once, roughly.
const WRITE_SIZE: usize = 256 * 1024;
