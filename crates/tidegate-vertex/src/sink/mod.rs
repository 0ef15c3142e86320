//! Where outputs go (chapter 16).
//!
//! | kind | class | an acknowledgement means |
//! |---|---|---|
//! | [`mod@file`], appended to | C; cut back to the last commit when the vertex starts again | on the disk |
//! | `hub` | C | committed in its slot |
//! | `jetstream`, strict | A | stored by the stream's leader |
//! | `jetstream`, ids | B | the same |
//! | `kv`, guarded | B | the same |
//! | `kv`, put | C | the same |
//! | [`file_epoch`], a file for each epoch | A | on the disk |
//! | [`stdout`] | C | in the kernel |
//! | `tensor` | C | published |
//! | `zmq` | C | in the queue of the socket |
//! | [`blackhole`] | C | nothing |

pub mod blackhole;
pub mod file;
pub mod file_epoch;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(feature = "nats")]
pub mod jetstream;
pub mod stdout;
#[cfg(feature = "tensor")]
pub mod tensor;
#[cfg(feature = "zmq")]
pub mod zmq;

use std::{fmt, io, path::PathBuf};

use thiserror::Error;
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::ids::{EpochId, Generation, PartitionId, Position};

use crate::{
    batch::Record,
    config::{FileMode, SinkConfig, SinkKind},
    fence::{Fenced, WriteGuard, WritePermit},
    wake::Waker,
};

/// A sink (VX-840). All calls come from the thread of the vertex; none of them waits for long: what cannot be taken now is
/// [`Held`].
///
/// Order of the calls: [`restore`](Self::restore) once, then for each partition [`barrier`](Self::barrier) and
/// [`read_back`](Self::read_back), then any number of publications and [`flush`](Self::flush)es. A sealed epoch is
/// [`stage`](Self::stage)d before it is published; what is delivered batch by batch is only published.
///
/// Whoever writes takes a permit of its own from the guard for each attempt, after everything that waits and directly before
/// the bytes leave, and keeps it until the write can no more happen (VX-723, VX-732).
pub trait Sink: Send {
    /// What it does about repeated and late writes.
    fn class(&self) -> Class;

    /// What it means that an output is confirmed.
    fn confirms(&self) -> Confirms;

    /// Goes back to what the ledger calls committed: to what [`flush`](Self::flush) said at the last commit. The permits are
    /// of all partitions.
    ///
    /// # Errors
    /// The sink lost something that the ledger calls committed.
    fn restore(&mut self, last: &Token, permits: &[WritePermit]) -> Result<(), SinkError> {
        let _ = (last, permits);
        Ok(())
    }

    /// Keeps what is there beyond its state at the last commit, but for what was begun and not finished. The permits are as with
    /// [`restore`](Self::restore).
    ///
    /// # Errors
    /// The sink lost something that the ledger calls committed.
    fn keep(&mut self, last: &Token, permits: &[WritePermit]) -> Result<(), SinkError> {
        let _ = (last, permits);
        Ok(())
    }

    /// Makes sure that no earlier session can write any more, where the sink can tell sessions apart (VX-755).
    ///
    /// # Errors
    /// [`SinkError::Newer`] when the sink knows a later session.
    fn barrier(&mut self, session: &Session, guard: &WriteGuard) -> Result<(), SinkError> {
        let _ = (session, guard);
        Ok(())
    }

    /// Looks for what is visible since the token of the last commit of this partition, so that it is not published again.
    /// Returns how many outputs were found.
    ///
    /// # Errors
    /// What is there was not written by this pipeline.
    fn read_back(
        &mut self,
        session: &Session,
        since: Option<&Token>,
        guard: &WriteGuard,
    ) -> Result<u64, SinkError> {
        let _ = (session, since, guard);
        Ok(0)
    }

    /// A state for this partition in place of that of the last commit, after [`read_back`](Self::read_back): to be committed
    /// before anything else, since the sink cannot read back from the other one for ever.
    fn fresh_token(&self, session: &Session) -> Option<Token> {
        let _ = session;
        None
    }

    /// Writes a sealed epoch where nobody sees it, if the sink can.
    ///
    /// # Errors
    /// Nothing is visible.
    fn stage(&mut self, epoch: &Delivery<'_>, guard: &WriteGuard) -> Result<(), SinkError> {
        let _ = (epoch, guard);
        Ok(())
    }

    /// Makes outputs visible, in their order. What is behind [`Published::through`] is given again, later, by the runtime.
    ///
    /// # Errors
    /// The sink cannot go on; nothing is known about what was not confirmed before.
    fn publish(&mut self, delivery: &Delivery<'_>, guard: &WriteGuard) -> Result<Published, SinkError>;

    /// Waits until everything that was published is confirmed. Returns the state of the sink as a whole if
    /// [`restore`](Self::restore) can go back to it; also asked before anything was published.
    ///
    /// # Errors
    /// Nothing is known about what was published since the last time.
    fn flush(&mut self) -> Result<Option<Token>, SinkError> {
        Ok(None)
    }

    /// Forgets an epoch that was staged and will not be published.
    fn abort(&mut self, partition: PartitionId, epoch: EpochId) {
        let _ = (partition, epoch);
    }
}

/// Opens a sink of a pipeline with this uid; a new owner may come up to `keep` after a write for it. `waker` is what its threads
/// call when it takes more again.
///
/// # Errors
/// It cannot be reached or made.
pub fn open(config: &SinkConfig, uid: u64, keep: Nanos, waker: &Waker) -> Result<Box<dyn Sink>, SinkError> {
    let _ = (uid, keep, waker);
    Ok(match &config.kind {
        SinkKind::Stdout {} => Box::new(stdout::Stdout::default()),
        SinkKind::File(keys) => match keys.mode {
            FileMode::Append => Box::new(file::Append::open(keys, file::Lines::of(config.role))?),
            FileMode::Epoch => Box::new(file_epoch::Epochs::open(&keys.path, file::Lines::of(config.role))?),
        },
        SinkKind::Blackhole {} => Box::new(blackhole::Blackhole),
        #[cfg(feature = "hub")]
        SinkKind::Hub(keys) => Box::new(hub::Hub::open(&config.name, keys, uid)?),
        #[cfg(feature = "tensor")]
        SinkKind::Tensor(keys) => Box::new(tensor::Tensor::open(&config.name, keys, uid)?),
        #[cfg(feature = "zmq")]
        SinkKind::Zmq(keys) => Box::new(zmq::Zmq::open(&config.name, keys)?),
        #[cfg(feature = "nats")]
        SinkKind::Jetstream(keys) => nats(config, keys, uid, keep, waker),
        #[cfg(feature = "nats")]
        SinkKind::Kv(keys) => nats(config, &keys.0, uid, keep, waker),
    })
}

#[cfg(feature = "nats")]
fn nats(
    config: &SinkConfig,
    keys: &jetstream::JetstreamSink,
    uid: u64,
    keep: Nanos,
    waker: &Waker,
) -> Box<dyn Sink> {
    let (keys, waker) = (keys.clone(), waker.clone());
    Box::new(jetstream::Jetstream::new(&config.name, keys, uid, keep.into(), config.ordered, waker))
}

/// What a sink does about repeated and late writes (11.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Conditional: refuses every write of an older session.
    A,
    /// Idempotent: knows a write again by its output id.
    B,
    /// Plain: every write is new.
    C,
}

/// What it means that an output is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirms {
    /// Nothing.
    Nothing,
    /// The kernel has it.
    InKernel,
    /// It is in a queue of this process or in shared memory.
    Queued,
    /// The peer has it.
    AtPeer,
    /// It is on the disk.
    OnDisk,
}

/// One ownership session of one partition (VX-705).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The partition.
    pub partition: PartitionId,
    /// Its generation.
    pub generation: Generation,
    /// Random, so that sessions with the same generation differ.
    pub nonce: u64,
}

/// Outputs of one partition, in source order.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// Whose they are.
    pub session: Session,
    /// The epoch they are in.
    pub epoch: EpochId,
    /// Position of the first input of the epoch, or of the batch.
    pub first: Position,
    /// Position of the last.
    pub last: Position,
    /// Which source these are positions of ([`Source::lineage`](crate::source::Source::lineage)).
    pub source: u64,
    /// The outputs; none when a sealed epoch has nothing for this sink.
    pub outputs: &'a [Output],
    /// Makes their ids.
    pub ids: &'a OutputIds,
}

/// An output on its way to a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Position of the input that it comes from.
    pub position: Position,
    /// Its number among the outputs of that input for this sink.
    pub number: u32,
    /// Key, value, headers, time.
    pub record: Record,
}

/// Ids of outputs for one sink: functions of the input alone, the same in every run (VX-790, scheme 1 of VX-791).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputIds {
    prefix: String,
}

impl OutputIds {
    /// Ids for outputs of pipeline `uid` in the sink of this name.
    pub fn new(uid: u64, sink: &str) -> Self {
        Self { prefix: format!("{uid:016x}.{sink}") }
    }

    /// `<uid>.<sink>.<partition>.<position>.<n>`
    pub fn of(&self, partition: PartitionId, output: &Output) -> String {
        format!("{}.{:x}.{:x}.{:x}", self.prefix, partition.0, output.position.0, output.number)
    }
}

/// State of a sink at a commit: bytes that only its adapter understands, of at most 4 KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Token(pub Vec<u8>);

/// How far a publication came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// The outputs before this one are confirmed, or will be by the next [`Sink::flush`], or are among the rejected or failed.
    pub through: usize,
    /// Outputs that the sink refuses for good.
    pub rejected: Vec<Rejected>,
    /// Outputs on which it failed and that are given again, of a sink without order: what is behind them is confirmed all the
    /// same (VX-631).
    pub failed: Vec<Rejected>,
    /// State of the sink for this partition, for [`Sink::read_back`].
    pub token: Option<Token>,
    /// Why it did not come further.
    pub held: Option<Held>,
}

impl Published {
    /// All of it.
    pub fn all(delivery: &Delivery<'_>) -> Self {
        Self { through: delivery.outputs.len(), ..Self::default() }
    }
}

/// An output that a sink has not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its index in the delivery.
    pub index: usize,
    /// Why.
    pub reason: String,
}

/// Why a sink takes no more now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// How long to wait, if it is only busy; without it as the configuration says, or until the waker is called.
    pub after: Option<Nanos>,
    /// The first output that is not confirmed may be visible or not (VX-630).
    pub doubtful: bool,
    /// What the sink said.
    pub reason: String,
}

/// Why an output was not put where it belongs.
#[cfg(any(feature = "hub", feature = "tensor"))]
enum NotPut {
    /// It never will be.
    Never(String),
    /// There is no place for it now.
    Later(String),
}

/// Puts outputs where they belong, one by one, until there is no place for the next; it is tried again `after` that.
#[cfg(any(feature = "hub", feature = "tensor"))]
fn one_by_one(
    outputs: &[Output],
    after: Nanos,
    mut put: impl FnMut(&Output) -> Result<Option<NotPut>, SinkError>,
) -> Result<Published, SinkError> {
    let mut published = Published::default();
    for (index, output) in outputs.iter().enumerate() {
        match put(output)? {
            None => {}
            Some(NotPut::Never(reason)) => published.rejected.push(Rejected { index, reason }),
            Some(NotPut::Later(reason)) => {
                published.held = Some(Held { after: Some(after), doubtful: false, reason });
                break;
            }
        }
        published.through = index + 1;
    }
    Ok(published)
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        })
    }
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
    /// Keys of the sink that do not fit each other, or the file that is there.
    #[error("the sink {path}: {key} is {found}; it has to be {expected}")]
    Setting {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What it is.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Stdout {
        /// What the system said.
        source: io::Error,
    },
    /// What the ledger kept for the sink is none of its states.
    #[error(
        "the ledger's token of the sink {sink} is not one of its kind; was the kind of the sink changed?"
    )]
    Token {
        /// The sink.
        sink: String,
    },
    /// The sink knows a later session of the partition (VX-234).
    #[error("generation {found} of partition {partition} has written to {sink}, this one is {own}")]
    Newer {
        /// The sink.
        sink: String,
        /// The partition.
        partition: PartitionId,
        /// The generation found.
        found: Generation,
        /// The generation that asked.
        own: Generation,
    },
    /// A session with this generation and another nonce has written: the ledger was set back (VX-714).
    #[error(
        "another session of generation {generation} of partition {partition} has written to {sink}; the ledger was set back or \
         copied: restore the newest one"
    )]
    Regressed {
        /// The sink.
        sink: String,
        /// The partition.
        partition: PartitionId,
        /// The generation of both.
        generation: Generation,
    },
    /// Something is there that this pipeline would not have written.
    #[error(
        "{path} was not written by epoch {epoch} of this pipeline; move it away, or give the sink another directory"
    )]
    ForeignWriter {
        /// What is there.
        path: PathBuf,
        /// The epoch whose place it takes.
        epoch: EpochId,
    },
    /// What was staged is gone: a later session has put up its barrier.
    #[error("{path} is gone: a later session of the partition writes to this sink now")]
    Refused {
        /// What was staged.
        path: PathBuf,
    },
    /// The file system has no rename that refuses to replace.
    #[error(
        "the file system of {path} cannot rename without replacing; use mode = \"append\", or another file system"
    )]
    Unsupported {
        /// The directory.
        path: PathBuf,
    },
    /// The right to write was lost.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The channel of the sink cannot be written, or is not as it has to be.
    #[cfg(feature = "hub")]
    #[error("the sink {sink}: {source}")]
    Hub {
        /// The sink.
        sink: String,
        /// What is wrong with the channel.
        source: Box<crate::hub::HubError>,
    },
    /// The stream of the sink cannot be had, or not be written.
    #[cfg(feature = "tensor")]
    #[error("the sink {sink}: {source}")]
    Tensor {
        /// The sink.
        sink: String,
        /// What is wrong with the stream.
        source: Box<crate::tensor::TensorError>,
    },
    /// The NATS server of the sink cannot be reached, or its stream is not as it has to be.
    #[cfg(feature = "nats")]
    #[error(transparent)]
    Nats(#[from] crate::nats::NatsError),
    /// The stream of the sink is not what this pipeline left there.
    #[cfg(feature = "nats")]
    #[error("the sink {sink} stopped: {source}")]
    Stream {
        /// The sink.
        sink: String,
        /// What is wrong with the stream.
        source: Box<crate::nats::strict::StrictError>,
    },
    /// A socket that is tied to nothing.
    #[error(
        "bind and connect of the sink {sink} are empty; at least one endpoint is expected, like \"tcp://127.0.0.1:5555\""
    )]
    NoEndpoint {
        /// The sink.
        sink: String,
    },
    /// The socket of the sink cannot be opened or used.
    #[cfg(feature = "zmq")]
    #[error("the sink {sink}: {source}")]
    Zmq {
        /// The sink.
        sink: String,
        /// What the socket said.
        source: Box<tidegate_mq::Error>,
    },
    /// A thread of the sink could not be started, or ended without an answer.
    #[error("the sink {sink} lost a partition: a thread of it is missing; start the vertex again")]
    Lost {
        /// The sink.
        sink: String,
    },
}

#[cfg(all(test, any(feature = "hub", feature = "tensor")))]
mod tests {
    use super::*;

    /// Behind what there is no place for nothing is put, or the order of a partition would be lost.
    /// Rules: VX-842.
    #[test]
    fn nothing_is_put_before_what_has_no_place_yet() {
        let output =
            |position| Output { position: Position(position), number: 0, record: Record::of(vec![]) };
        let outputs: Vec<_> = (0..5).map(output).collect();
        let mut tried = Vec::new();
        let published = one_by_one(&outputs, Nanos(7), |output| {
            tried.push(output.position.0);
            Ok(match output.position.0 {
                1 => Some(NotPut::Never("too long".to_owned())),
                3 => Some(NotPut::Later("full".to_owned())),
                _ => None,
            })
        })
        .unwrap();
        assert_eq!(tried, [0, 1, 2, 3]);
        assert_eq!(published.through, 3);
        assert_eq!(published.rejected, [Rejected { index: 1, reason: "too long".to_owned() }]);
        let held = published.held.unwrap();
        assert_eq!((held.after, held.doubtful, held.reason.as_str()), (Some(Nanos(7)), false, "full"));
    }
}
