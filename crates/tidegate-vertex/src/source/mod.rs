//! Where records come from (chapter 15).
//!
//! | kind | partition | position |
//! |---|---|---|
//! | [`generator`] | as many as configured | a counter |
//! | [`lines`] | one: the file | byte offset of the line |

pub mod generator;
pub mod lines;

use std::{io, path::PathBuf};

use thiserror::Error;
use tidegate_udf::wire::ids::{PartitionId, Position};

use crate::batch::Input;

/// A source of records.
pub trait Source {
    /// Number of partitions, numbered from 0 on.
    fn partitions(&self) -> u32;

    /// Goes on from a position that was the `next` of a record, in an earlier run.
    ///
    /// # Errors
    /// [`SourceError::Gap`] when the source does not reach so far any more.
    fn seek(&mut self, partition: PartitionId, resume: Position) -> Result<(), SourceError>;

    /// Reads the next records of a partition: at most so many, and no more bytes of payload than so many unless a single
    /// record has more. Does not wait.
    ///
    /// # Errors
    /// The source cannot be read, or has a record that cannot be one.
    fn poll(&mut self, partition: PartitionId, max: Budget) -> Result<Polled, SourceError>;
}

/// How much may be read at once.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Records.
    pub records: usize,
    /// Bytes of payload.
    pub bytes: usize,
    /// Bytes of one value.
    pub value: usize,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// The next records, at least one.
    Inputs(Vec<Input>),
    /// There are no more.
    End,
}

/// Why a source cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The file cannot be opened or read.
    #[error("cannot read the source {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The source ends before the position to go on from (VX-832).
    #[error(
        "the source ends at {found}, before the position {resume} where the last run came to; it was cut or replaced"
    )]
    Gap {
        /// Where to go on.
        resume: Position,
        /// Where it ends.
        found: Position,
    },
    /// A record that no frame can hold.
    #[error(
        "the record at {position} is longer than {max} bytes; raise transport.max_frame or cut the record"
    )]
    TooLong {
        /// Where it is.
        position: Position,
        /// Longest value.
        max: usize,
    },
}
