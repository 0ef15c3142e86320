//! `[source]` and `[[sink]]`: what every sink has, and the keys of each kind.

use std::{num::NonZeroU32, path::PathBuf};

use serde::Deserialize;
use tidegate_shm::clock::Nanos;

use super::{
    ConfigError, Pipeline, one,
    units::{Bytes, Factor, Share, Time},
};
use crate::{
    retry::Backoff,
    sink::{self, Class, Output, SinkError, file::Format},
    source::{
        Abilities, AckMode, Positions, Replay,
        file::{self, FileSource},
        framing::Framing,
        stdin,
    },
};

impl Pipeline {
    /// Whether the keys of source and sinks fit each other, as far as that can be said without opening them.
    pub(super) fn check_ends(&self) -> Result<(), ConfigError> {
        let source = match &self.source {
            SourceConfig::File(keys) => keys.check(),
            #[cfg(feature = "zmq")]
            SourceConfig::Zmq(keys) => keys.check(),
            _ => Ok(()),
        };
        let key = |key: &str, number, message| ConfigError::Key { key: key.to_owned(), number, message };
        source.map_err(|error| key("source", 0, error.to_string()))?;
        for (number, end) in self.sink.iter().enumerate() {
            let checked = match &end.kind {
                SinkKind::File(keys) => sink::file::check(keys, sink::file::Lines::of(end.role)),
                #[cfg(feature = "zmq")]
                SinkKind::Zmq(keys) => keys.check(end.name()),
                _ => Ok(()),
            };
            checked.map_err(|error| match &error {
                SinkError::Setting { key: of, .. } => key(&format!("sink.{of}"), number, error.to_string()),
                _ => key("sink", number, error.to_string()),
            })?;
        }
        Ok(())
    }
}

/// `[source]`
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SourceConfig {
    /// Records that are made.
    Generator {
        /// Partitions.
        #[serde(default = "one")]
        partitions: NonZeroU32,
        /// Records in each.
        records: u64,
        /// Least bytes of each.
        #[serde(default)]
        bytes: Bytes,
    },
    /// Files.
    File(FileSource),
    /// Standard input.
    Stdin {
        /// How records stand in it.
        #[serde(default)]
        format: Framing,
    },
    /// Slots of a channel of the data hub.
    #[cfg(feature = "hub")]
    Hub(crate::source::hub::HubSource),
    /// Messages of NATS JetStream.
    #[cfg(feature = "nats")]
    Jetstream(Box<crate::source::jetstream::JetstreamSource>),
    /// Frames of a tensor stream.
    #[cfg(feature = "tensor")]
    Tensor(crate::source::tensor::TensorSource),
    /// Messages of a ZeroMQ socket.
    #[cfg(feature = "zmq")]
    Zmq(crate::source::zmq::ZmqSource),
}

impl SourceConfig {
    /// Its kind, as the file has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Generator { .. } => "generator",
            Self::File(_) => "file",
            Self::Stdin { .. } => "stdin",
            #[cfg(feature = "hub")]
            Self::Hub(_) => "hub",
            #[cfg(feature = "nats")]
            Self::Jetstream(_) => "jetstream",
            #[cfg(feature = "tensor")]
            Self::Tensor(_) => "tensor",
            #[cfg(feature = "zmq")]
            Self::Zmq(_) => "zmq",
        }
    }

    /// What becomes of its records when the vertex dies, in one sentence (VX-002).
    pub fn promise(&self) -> &'static str {
        #[cfg(feature = "tensor")]
        if let Self::Tensor(keys) = self {
            return keys.promise();
        }
        match self.abilities().replay {
            Replay::Yes => "what is not committed is read again",
            Replay::Limited => {
                "what is not committed is read again, as long as it is there: what is gone stops the vertex or is counted"
            }
            Replay::Redelivered => {
                "what is not acknowledged comes again when its source.ack_wait is over, behind newer records, to whoever reads then"
            }
            Replay::No => "what was read and is not committed is lost when the vertex dies",
        }
    }

    /// Has the source end where it ends now; false when it has no end.
    pub(super) fn end_at_eof(&mut self) -> bool {
        match self {
            Self::Generator { .. } | Self::Stdin { .. } => {}
            Self::File(config) => config.follow = false,
            #[cfg(feature = "hub")]
            Self::Hub(config) => config.end_at_eof(),
            #[cfg(any(feature = "nats", feature = "tensor", feature = "zmq"))]
            _ => return false,
        }
        true
    }

    /// Messages that may be under way, where the source counts them.
    pub(super) fn max_ack_pending(&self) -> Option<u32> {
        match self {
            #[cfg(feature = "nats")]
            Self::Jetstream(config) => config.max_ack_pending(),
            _ => None,
        }
    }

    /// Partitions that it has, as far as that is known before it is opened: of files those that there are.
    pub fn partitions(&self) -> u32 {
        match self {
            Self::Generator { partitions, .. } => partitions.get(),
            Self::File(config) => u32::try_from(config.count()).unwrap_or(u32::MAX).max(1),
            #[cfg(feature = "nats")]
            Self::Jetstream(config) => config.partitions().unwrap_or(1),
            _ => 1,
        }
    }

    /// Bytes that it reads ahead of so many partitions before the vertex has them, which `limits.prefetch` does not count
    /// (VX-310).
    pub fn ahead(&self, partitions: u32) -> u64 {
        let each = match self {
            Self::Generator { .. } => 0,
            Self::File(_) => file::READ as u64,
            // In its thread, and behind it.
            Self::Stdin { .. } => 2 * stdin::AHEAD as u64,
            // The ring is what is read ahead.
            #[cfg(feature = "hub")]
            Self::Hub(_) => 0,
            #[cfg(feature = "nats")]
            Self::Jetstream(config) => config.prefetch(),
            #[cfg(feature = "tensor")]
            Self::Tensor(config) => config.prefetch(),
            #[cfg(feature = "zmq")]
            Self::Zmq(config) => config.prefetch(),
        };
        each.saturating_mul(partitions.into())
    }

    /// What the source can do, before it is opened.
    pub fn abilities(&self) -> Abilities {
        match self {
            #[cfg(feature = "nats")]
            Self::Jetstream(config) => config.abilities(),
            Self::File(config) => config.abilities(),
            #[cfg(feature = "hub")]
            Self::Hub(config) => config.abilities(),
            Self::Stdin { .. } => stdin::ABILITIES,
            #[cfg(feature = "tensor")]
            Self::Tensor(_) => crate::source::tensor::ABILITIES,
            #[cfg(feature = "zmq")]
            Self::Zmq(_) => crate::source::zmq::ABILITIES,
            Self::Generator { .. } => Abilities {
                positions: Positions::Stable,
                replay: Replay::Yes,
                ack: AckMode::None,
                ordered: true,
            },
        }
    }
}

/// `[[sink]]`: what every sink has, and what its kind has.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct SinkConfig {
    /// Its name, which is its route.
    pub name: String,
    /// What it gets.
    pub role: Role,
    /// Whether a sink of class C is accepted where epochs are committed (VX-750).
    pub allow_duplicates: bool,
    /// How long to wait when it takes no more.
    pub retry: SinkRetry,
    /// Whether commits wait for it (VX-632).
    pub required: bool,
    /// Bytes of outputs that may wait for one that is not required.
    pub buffer: Bytes,
    /// Most outputs that it is given at once (VX-842).
    pub max_records: Option<NonZeroU32>,
    /// Most bytes that it is given at once, or one output.
    pub max_bytes: Option<Bytes>,
    /// How long outputs wait for more to be given with them.
    pub linger: Option<Time>,
    /// Whether an output on which it fails stops those behind it (VX-631).
    pub ordered: bool,
    /// What it is and where.
    pub kind: SinkKind,
}

/// What a sink gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Outputs of its route.
    #[default]
    Output,
    /// Inputs that cannot be processed (9.4).
    Dlq,
}

/// `[sink.retry]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SinkRetry {
    initial: Time,
    factor: Factor,
    cap: Time,
    jitter: Share,
}

impl SinkRetry {
    /// The delays.
    pub fn backoff(&self) -> Backoff {
        let Self { initial, factor, cap, jitter } = *self;
        Backoff { initial: initial.0, factor: factor.0, cap: cap.0, jitter: jitter.0 }
    }

    /// The longest delay.
    pub fn longest(&self) -> Nanos {
        self.cap.0
    }
}

/// The kinds of sinks, each with its own keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SinkKind {
    /// Lines on standard output.
    Stdout {},
    /// Records in files.
    File(FileSink),
    /// Nowhere.
    Blackhole {},
    /// Slots of a channel of the data hub.
    #[cfg(feature = "hub")]
    Hub(crate::sink::hub::HubSink),
    /// Messages of NATS JetStream.
    #[cfg(feature = "nats")]
    Jetstream(Box<crate::sink::jetstream::JetstreamSink>),
    /// Values of a bucket of JetStream KV.
    #[cfg(feature = "nats")]
    Kv(Box<crate::sink::jetstream::KvSink>),
    /// Frames of a tensor stream.
    #[cfg(feature = "tensor")]
    Tensor(crate::sink::tensor::TensorSink),
    /// Messages of a ZeroMQ socket.
    #[cfg(feature = "zmq")]
    Zmq(crate::sink::zmq::ZmqSink),
}

/// Keys of the kind `file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSink {
    /// One file that grows, or one for each epoch.
    #[serde(default)]
    pub mode: FileMode,
    /// The file; with `mode = "epoch"` the directory.
    #[serde(alias = "dir")]
    pub path: PathBuf,
    /// How records stand in it.
    #[serde(default)]
    pub format: Format,
    /// Names of the columns, for `csv`.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Type of the elements as numpy writes it, for `npy`: `<f4`.
    pub dtype: Option<String>,
    /// Shape of a row, for `npy`; none for single elements.
    #[serde(default)]
    pub shape: Vec<u64>,
}

/// How a file sink writes (16.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileMode {
    /// At the end of one file.
    #[default]
    Append,
    /// A file for each epoch in a directory for each partition.
    Epoch,
}

impl SinkConfig {
    /// Its name, which is its route.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As many of these outputs as it is given at once: at least one, unless there is none.
    pub fn at_once<'o>(&self, outputs: &'o [Output]) -> &'o [Output] {
        let most = self.max_records.map_or(usize::MAX, |most| most.get() as usize);
        let mut left = self.max_bytes.map_or(u64::MAX, |most| most.0);
        let fits = outputs.iter().take(most).take_while(|output| {
            let len = output.record.len() as u64;
            let fits = len <= left;
            left = left.saturating_sub(len);
            fits
        });
        outputs.get(..fits.count().max(1)).unwrap_or_default()
    }

    /// Whether it is given less at once than these outputs, of so many bytes.
    pub fn is_more_than_at_once(&self, records: usize, bytes: u64) -> bool {
        self.max_records.is_some_and(|most| records > most.get() as usize)
            || self.max_bytes.is_some_and(|most| bytes > most.0)
    }

    /// How long outputs wait for more.
    pub fn linger(&self) -> Nanos {
        self.linger.map_or(Nanos::ZERO, |linger| linger.0)
    }

    /// Whether it confirms outputs one by one, and can have one later than those behind it.
    pub(super) fn takes_any_order(&self) -> bool {
        match &self.kind {
            #[cfg(feature = "nats")]
            SinkKind::Jetstream(config) => config.class() == Class::B,
            #[cfg(feature = "nats")]
            SinkKind::Kv(config) => config.0.class() == Class::B,
            _ => false,
        }
    }

    /// What it does about repeated and late writes, before it is opened.
    pub fn class(&self) -> Class {
        match &self.kind {
            SinkKind::File(FileSink { mode: FileMode::Epoch, .. }) => Class::A,
            SinkKind::Stdout {} | SinkKind::File(_) | SinkKind::Blackhole {} => Class::C,
            #[cfg(feature = "nats")]
            SinkKind::Jetstream(config) => config.class(),
            #[cfg(feature = "nats")]
            SinkKind::Kv(config) => config.0.class(),
            #[cfg(feature = "hub")]
            SinkKind::Hub(_) => Class::C,
            #[cfg(feature = "tensor")]
            SinkKind::Tensor(_) => Class::C,
            #[cfg(feature = "zmq")]
            SinkKind::Zmq(_) => Class::C,
        }
    }

    /// Whether it compares positions, which then have to mean the same in every run (VX-852).
    pub(super) fn compares_positions(&self) -> bool {
        match &self.kind {
            #[cfg(feature = "nats")]
            SinkKind::Kv(config) => config.0.compares_positions(),
            _ => false,
        }
    }
}

impl Default for SinkRetry {
    fn default() -> Self {
        let (initial, cap) = (Time(Nanos::from_millis(50)), Time(Nanos::from_secs(10)));
        Self { initial, factor: Factor(2.0), cap, jitter: Share(0.2) }
    }
}

/// The keys that every sink has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Every {
    name: String,
    #[serde(default)]
    role: Role,
    #[serde(default)]
    allow_duplicates: bool,
    #[serde(default)]
    retry: SinkRetry,
    #[serde(default = "yes")]
    required: bool,
    #[serde(default = "buffer")]
    buffer: Bytes,
    max_records: Option<NonZeroU32>,
    max_bytes: Option<Bytes>,
    linger: Option<Time>,
    #[serde(default = "yes")]
    ordered: bool,
}

/// Their names.
const EVERY: &[&str] = &[
    "name",
    "role",
    "allow_duplicates",
    "retry",
    "required",
    "buffer",
    "max_records",
    "max_bytes",
    "linger",
    "ordered",
];

impl TryFrom<toml::Table> for SinkConfig {
    type Error = toml::de::Error;

    fn try_from(table: toml::Table) -> Result<Self, Self::Error> {
        let (every, kind): (toml::Table, toml::Table) =
            table.into_iter().partition(|(key, _)| EVERY.contains(&key.as_str()));
        let every: Every = every.try_into()?;
        let Every { name, role, allow_duplicates, retry, required, buffer, .. } = every;
        let Every { max_records, max_bytes, linger, ordered, .. } = every;
        let kind = kind.try_into()?;
        Ok(Self {
            name,
            role,
            allow_duplicates,
            retry,
            required,
            buffer,
            max_records,
            max_bytes,
            linger,
            ordered,
            kind,
        })
    }
}

fn yes() -> bool {
    true
}

fn buffer() -> Bytes {
    Bytes(16 << 20)
}
