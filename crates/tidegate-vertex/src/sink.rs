//! Where outputs go (chapter 16): as lines to standard output or the end of a file, or nowhere.
//!
//! All of them are of class C: every write is new to them, so after a crash of the runtime what was written after the last
//! recorded position is written again.

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
