//! Where records come from (chapter 15).
//!
//! | kind | partition | position |
//! |---|---|---|
//! | [`generator`] | as many as configured | a counter |
//! | `hub` | one: the channel | id of the slot |
//! | `jetstream` | a subject of the stream | sequence of the message |
//! | `jetstream`, shared | one: the consumer | sequence of the message |
//! | [`mod@file`] | a file | byte offset of the record; of `npy` the row |
//! | [`stdin`] | one | bytes of this run |
//! | `tensor` | one: the stream | a count of this run |
//! | `zmq` | one: the socket | a count of this run |

mod ahead;
pub mod file;
pub mod framing;
pub mod generator;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(feature = "nats")]
pub mod jetstream;
pub mod stdin;
#[cfg(feature = "tensor")]
pub mod tensor;
#[cfg(feature = "nats")]
pub mod work_queue;
#[cfg(feature = "zmq")]
pub mod zmq;

use std::{io, path::PathBuf};

use serde::Deserialize;
use thiserror::Error;
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::ids::{PartitionId, Position};
use twox_hash::XxHash3_64;

use crate::{batch::Input, config::SourceConfig, fence::WriteGuard, wake::Waker};

/// A source of records (VX-830). All calls come from the thread of the vertex and none of them waits: a source that has to
/// wait does so in a thread of its own, which keeps what it has read ahead within a bound in bytes (VX-831).
pub trait Source: Send {
    /// What the source can do.
    fn abilities(&self) -> Abilities;

    /// Where earlier runs came to in each partition, asked before anything else: a source whose partitions have names gives each
    /// the number that it had.
    fn remember(&mut self, known: &[Option<Resume>]) {
        let _ = known;
    }

    /// Number of partitions, numbered from 0 on.
    fn partitions(&self) -> u32;

    /// Begins to read a partition: at `from`, which an earlier run came to, or where the configuration says. Returns the
    /// position of the first record to come, or the one that it will have at least.
    ///
    /// # Errors
    /// [`SourceError::Gap`] when what comes at `from` is gone, [`SourceError::Replaced`] when the source is another one or
    /// was changed below it (VX-832, VX-833).
    fn open(&mut self, partition: PartitionId, from: Option<&Resume>) -> Result<Position, SourceError>;

    /// Reads the next records of a partition: at most so many, and no more bytes of payload than so many unless a single
    /// record has more. Does not wait.
    ///
    /// # Errors
    /// The source cannot be read, or has a record that cannot be one.
    fn poll(&mut self, partition: PartitionId, max: Budget) -> Result<Polled, SourceError>;

    /// By what [`Source::open`] will know the source again: which one it is, and what it had directly before `resume`. It is
    /// kept with the position. Of at most 4 KiB; empty when there is nothing to compare.
    ///
    /// # Errors
    /// The source cannot be read.
    fn identity(&mut self, partition: PartitionId, resume: Position) -> Result<Identity, SourceError>;

    /// Which source an identity is of: positions of two that are the same can be compared, those of others say nothing about
    /// each other. Without an own one, identities that are the same.
    fn lineage(&self, identity: &Identity) -> u64 {
        XxHash3_64::oneshot(&identity.0)
    }

    /// Everything up to the record that ends at `resume`, in the order in which it was polled, is committed: it will not be
    /// asked for again (I10). Whoever writes that somewhere takes a permit from the guard for each attempt, and does nothing
    /// without one; sources that keep no such state do nothing.
    ///
    /// # Errors
    /// It cannot be told; the position is committed all the same.
    fn ack(
        &mut self,
        partition: PartitionId,
        resume: Position,
        guard: &WriteGuard,
    ) -> Result<(), SourceError> {
        let _ = (partition, resume, guard);
        Ok(())
    }

    /// A position below which nothing is left to poll and nothing will come, where positions are shared with others' records:
    /// behind it is where to go on when these are removed.
    fn passed(&self, partition: PartitionId) -> Option<Position> {
        let _ = partition;
        None
    }

    /// Everything from `from` on that was polled is given back, to come again after `delay`, to whoever reads then (VX-742).
    fn nack(&mut self, partition: PartitionId, from: Position, delay: Nanos) {
        let _ = (partition, from, delay);
    }

    /// The record at this position, which was polled, is given back alone, to come again after `delay`, to whoever reads then
    /// (VX-603). It counts as acknowledged for what is polled behind it. Only of sources that acknowledge each record.
    fn give_back(&mut self, partition: PartitionId, position: Position, delay: Nanos) {
        let _ = (partition, position, delay);
    }

    /// Records, or bytes where records are not counted, that are there and were not polled; `None` when it is not known.
    fn pending(&self, partition: PartitionId) -> Option<u64> {
        let _ = partition;
        None
    }

    /// Bytes that are read ahead and were not polled, of what [`SourceConfig::ahead`] bounds; `None` when it is not counted.
    fn ahead(&self) -> Option<u64> {
        None
    }

    /// Records that were there and could not be read any more.
    fn lost(&self) -> u64 {
        0
    }

    /// What was there and is no record of this source: of another form, or of a session that was over (VX-751).
    fn left_out(&self) -> u64 {
        0
    }
}

/// Opens the source of a pipeline; `waker` is what its threads call when there is something to poll.
///
/// # Errors
/// It cannot be reached or read.
pub fn open(config: &SourceConfig, waker: &Waker) -> Result<Box<dyn Source>, SourceError> {
    Ok(match config {
        SourceConfig::Generator { partitions, records, bytes } => {
            Box::new(generator::Generator::new(partitions.get(), *records, bytes.0 as usize))
        }
        #[cfg(feature = "hub")]
        SourceConfig::Hub(keys) => Box::new(hub::Hub::open(keys, waker.clone())?),
        #[cfg(feature = "nats")]
        SourceConfig::Jetstream(keys) => keys.open(waker.clone())?,
        SourceConfig::File(keys) => Box::new(file::Files::open(keys, waker)?),
        #[cfg(feature = "tensor")]
        SourceConfig::Tensor(keys) => Box::new(tensor::Tensor::open(keys, waker.clone())?),
        #[cfg(feature = "zmq")]
        SourceConfig::Zmq(keys) => Box::new(zmq::Zmq::open(keys, waker.clone())?),
        SourceConfig::Stdin { format } => Box::new(stdin::Stream::stdin(*format, waker.clone())?),
    })
}

/// What a source can do (VX-830).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Whether a record has the same position in every run (VX-793).
    pub positions: Positions,
    /// Whether records can be read again.
    pub replay: Replay,
    /// What it keeps of what was acknowledged.
    pub ack: AckMode,
    /// Whether the records of a partition come in the order in which they were made.
    pub ordered: bool,
}

/// Meaning of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// The same in every run: output ids are repeatable.
    Stable,
    /// Counted in each run.
    PerRun,
}

/// Whether records can be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// All of them.
    Yes,
    /// The newest, as far as a buffer goes.
    Limited,
    /// What was not acknowledged comes again by itself, in any order and to whoever reads then.
    Redelivered,
    /// None: what was read and not committed is lost in a crash of the runtime.
    No,
}

/// What a source keeps of what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckMode {
    /// Nothing.
    None,
    /// Everything below a position.
    Cumulative,
    /// Each record.
    Individual,
}

/// What happens when records between the last position and what is there are gone (VX-832).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnGap {
    /// The vertex stops and says which.
    #[default]
    Stop,
    /// They are counted.
    Skip,
}

/// Where an earlier run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Position of the next record.
    pub position: Position,
    /// What [`Source::identity`] was for it.
    pub identity: Identity,
}

/// By what a source is known again: bytes that only its adapter understands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity(pub Vec<u8>);

/// How much may be read at once.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Records.
    pub records: usize,
    /// Bytes of payload.
    pub bytes: usize,
    /// Bytes of one value; one that is too long for a batch and not for this is for the dead letters.
    pub value: usize,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// The next records, at least one.
    Inputs(Vec<Input>),
    /// The next record, which says nothing that a function could be given, as it stands there, and what is wrong with it.
    Unfit(Input, String),
    /// There are none now; the waker is called when there may be.
    Idle,
    /// There are no more, for good.
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
        "the source ends at {found}, before the position {resume} where reading came to; it was cut or replaced: restore it, \
         or begin anew with a new ledger, and where ownership is shared as another pipeline (name, uid)"
    )]
    Gap {
        /// Where to go on.
        resume: Position,
        /// Where it ends.
        found: Position,
    },
    /// What comes behind the file that was read cannot be told (VX-832).
    #[error(
        "{path} was rotated more than once since it was read, and the file that was read is gone: {found} may come next, or one \
         that is gone, too; have the rotation keep more files, and begin with a new ledger"
    )]
    Rotated {
        /// The file.
        path: PathBuf,
        /// The one that may come next.
        found: PathBuf,
    },
    /// The source does not reach back so far any more (VX-832).
    #[error(
        "the source {name} begins at {found}, behind the position {resume} where reading came to; what is between is lost: \
         restore it, or go on behind it with source.on_gap = \"skip\""
    )]
    Trimmed {
        /// The source.
        name: String,
        /// Where to go on.
        resume: Position,
        /// Where it begins.
        found: Position,
    },
    /// The channel of the source cannot be read, or is not as it has to be.
    #[cfg(feature = "hub")]
    #[error("the hub source: {0}")]
    Hub(#[from] crate::hub::HubError),
    /// The stream cannot be had, or its frames are not what they have to be.
    #[cfg(feature = "tensor")]
    #[error(transparent)]
    Tensor(Box<crate::tensor::TensorError>),
    /// The NATS server of the source cannot be reached, or refuses.
    #[cfg(feature = "nats")]
    #[error(transparent)]
    Nats(#[from] crate::nats::NatsError),
    /// What is there is not what was read (VX-833).
    #[error(
        "the source {name} is not what was read up to position {resume}: {what} differs: restore it, or begin \
         anew with a new ledger, and where ownership is shared as another pipeline (name, uid)"
    )]
    Replaced {
        /// The source.
        name: String,
        /// Where to go on.
        resume: Position,
        /// What is not the same.
        what: &'static str,
    },
    /// A thread or a random number is missing.
    #[error("cannot start the source")]
    Start(#[source] io::Error),
    /// A socket that is tied to nothing.
    #[error(
        "source.bind and source.connect are empty; at least one endpoint is expected, like \"tcp://127.0.0.1:5555\""
    )]
    NoEndpoint,
    /// The socket of the source cannot be opened or used.
    #[cfg(feature = "zmq")]
    #[error("the zmq source: {0}")]
    Zmq(#[source] Box<tidegate_mq::Error>),
    /// Bytes that are no record.
    #[error("the record at {position}: {fault}")]
    Record {
        /// Where it is.
        position: Position,
        /// What is wrong with it.
        fault: framing::FramingError,
    },
    /// A file that is no array.
    #[error("{path}: {fault}")]
    Npy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: crate::npy::HeaderError,
    },
    /// An array has its length in front, so it does not grow while it is read.
    #[error(
        "source.follow is true for {path} with format = \"npy\"; it has to be false, since an array does not grow"
    )]
    FollowNpy {
        /// The file.
        path: PathBuf,
    },
    /// A record that is too long to be kept.
    #[error(
        "the record at {position} is longer than {max} bytes, which is more than is kept of one record; raise limits.prefetch, or \
         cut the record"
    )]
    TooLong {
        /// Where it is.
        position: Position,
        /// Longest value.
        max: usize,
    },
}

impl SourceError {
    /// Where a partition was to go on, if that is gone or something else is there (VX-832, VX-833).
    pub(crate) fn gap(&self) -> Option<Position> {
        match self {
            Self::Gap { resume, .. } | Self::Trimmed { resume, .. } | Self::Replaced { resume, .. } => {
                Some(*resume)
            }
            _ => None,
        }
    }
}

#[cfg(feature = "tensor")]
impl From<crate::tensor::TensorError> for SourceError {
    fn from(error: crate::tensor::TensorError) -> Self {
        Self::Tensor(Box::new(error))
    }
}
