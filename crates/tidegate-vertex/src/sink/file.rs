//! Lines at the end of a file. It is cut back to its length at the last commit when a vertex starts again, so it has nothing
//! twice (VX-853, `mode = "append"`).

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use super::{Class, Confirms, Delivery, Published, Sink, SinkError, Token};
use crate::fence::{WriteGuard, WriteKind, WritePermit};

/// A file that is appended to. Its token is its length, eight bytes.
#[derive(Debug)]
pub struct Append {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl Append {
    /// Opens the file, which is made if there is none.
    ///
    /// # Errors
    /// [`SinkError::File`].
    pub fn open(path: &Path) -> Result<Self, SinkError> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|source| SinkError::File { path: path.to_owned(), source })?;
        Ok(Self { file, path: path.to_owned(), buffer: Vec::new() })
    }

    fn failed(&self, source: std::io::Error) -> SinkError {
        SinkError::File { path: self.path.clone(), source }
    }

    fn write(&mut self, guard: &WriteGuard) -> Result<(), SinkError> {
        let permit = guard.permit(WriteKind::Sink)?;
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
        for output in delivery.outputs {
            self.buffer.extend_from_slice(&output.record.value);
            self.buffer.push(b'\n');
            if self.buffer.len() >= WRITE_SIZE {
                self.write(guard)?;
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
