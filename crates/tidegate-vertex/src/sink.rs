//! Where outputs go (chapter 16): as lines to standard output or the end of a file, or nowhere.
//!
//! All of them are of class C: every write is new to them. A file is cut back to its length at the last commit when a vertex
//! starts again, so that it has nothing twice; standard output has again what was written after that commit.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::flow::Output;

/// A sink, open.
#[derive(Debug)]
pub struct Sink {
    target: Target,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum Target {
    Stdout,
    File { file: File, path: PathBuf },
    Blackhole,
}

/// Why outputs cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The file cannot be opened or written.
    #[error("cannot write to the sink {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file lost what the ledger calls committed.
    #[error(
        "the sink {path} has {found} bytes, the ledger says {expected}; restore it, or begin with a new ledger"
    )]
    Shorter {
        /// The file.
        path: PathBuf,
        /// Bytes it has.
        found: u64,
        /// Bytes it had at the last commit.
        expected: u64,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Stdout {
        /// What the system said.
        source: io::Error,
    },
}

impl Sink {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::new(Target::Stdout)
    }

    /// The end of a file, which is made if there is none.
    ///
    /// # Errors
    /// [`SinkError::File`].
    pub fn append(path: &Path) -> Result<Self, SinkError> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|source| SinkError::File { path: path.to_owned(), source })?;
        Ok(Self::new(Target::File { file, path: path.to_owned() }))
    }

    /// Nowhere.
    pub fn blackhole() -> Self {
        Self::new(Target::Blackhole)
    }

    /// Cuts off what is behind `len`: it was written after the last commit and is written again. Sinks that cannot be cut
    /// keep it.
    ///
    /// # Errors
    /// [`SinkError::Shorter`] when there is less.
    pub fn cut(&mut self, len: u64) -> Result<(), SinkError> {
        let Target::File { file, path } = &mut self.target else { return Ok(()) };
        let failed = |source| SinkError::File { path: path.clone(), source };
        let found = file.metadata().map_err(failed)?.len();
        if found < len {
            return Err(SinkError::Shorter { path: path.clone(), found, expected: len });
        }
        file.set_len(len).map_err(failed)
    }

    /// Waits until everything that was written is on the disk, and says how long the sink is, if it can be cut.
    ///
    /// # Errors
    /// Nothing is known about what was written; it is to be read from the source again.
    pub fn sync(&mut self) -> Result<Option<u64>, SinkError> {
        let Target::File { file, path } = &mut self.target else { return Ok(None) };
        let synced = file.sync_data().and_then(|()| file.metadata());
        let metadata = synced.map_err(|source| SinkError::File { path: path.clone(), source })?;
        Ok(Some(metadata.len()))
    }

    /// Adds an output to what the next [`Sink::write`] writes.
    pub fn add(&mut self, output: &Output) {
        if !matches!(self.target, Target::Blackhole) {
            self.buffer.extend_from_slice(&output.value);
            self.buffer.push(b'\n');
        }
    }

    /// Whether enough was added to be written.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= WRITE_SIZE
    }

    /// Writes what was added. The caller holds a permit.
    ///
    /// # Errors
    /// A part may have been written.
    pub fn write(&mut self) -> Result<(), SinkError> {
        let bytes = std::mem::take(&mut self.buffer);
        match &mut self.target {
            Target::Stdout => {
                let mut out = io::stdout().lock();
                let written = out.write_all(&bytes).and_then(|()| out.flush());
                written.map_err(|source| SinkError::Stdout { source })?;
            }
            Target::File { file, path } => {
                let path = || path.clone();
                file.write_all(&bytes).map_err(|source| SinkError::File { path: path(), source })?;
            }
            Target::Blackhole => {}
        }
        self.buffer = bytes;
        self.buffer.clear();
        Ok(())
    }

    fn new(target: Target) -> Self {
        Self { target, buffer: Vec::new() }
    }
}

/// What is written at once, roughly.
const WRITE_SIZE: usize = 256 * 1024;
