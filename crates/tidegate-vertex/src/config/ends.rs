//! `[source]` and `[[sink]]`: what every sink has, and the keys of each kind.

use std::num::NonZeroU32;

use serde::Deserialize;

use super::{one, units::Bytes};
use crate::{
    sink::{Class, file::FileSink},
    source::{Abilities, AckMode, Positions, Replay, file::FileSource, framing::Framing, stdin},
};

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
    /// Messages of NATS JetStream.
    #[cfg(feature = "nats")]
    Jetstream(crate::source::jetstream::JetstreamSource),
    /// Messages of a ZeroMQ socket.
    #[cfg(feature = "zmq")]
    Zmq(crate::source::zmq::ZmqSource),
}

impl SourceConfig {
    /// What the source can do, before it is opened.
    pub fn abilities(&self) -> Abilities {
        match self {
            #[cfg(feature = "nats")]
            Self::Jetstream(config) => config.abilities(),
            Self::File(config) => config.abilities(),
            Self::Stdin { .. } => stdin::ABILITIES,
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
    /// What it is and where.
    pub kind: SinkKind,
}

/// The kinds of sinks, each with its own keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SinkKind {
    /// Lines on standard output.
    Stdout {},
    /// Records at the end of a file.
    File(FileSink),
    /// Nowhere.
    Blackhole {},
    /// Messages of NATS JetStream.
    #[cfg(feature = "nats")]
    Jetstream(crate::sink::jetstream::JetstreamSink),
    /// Messages of a ZeroMQ socket.
    #[cfg(feature = "zmq")]
    Zmq(crate::sink::zmq::ZmqSink),
}

impl SinkConfig {
    /// Its name, which is its route.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does about repeated and late writes, before it is opened.
    pub fn class(&self) -> Class {
        match &self.kind {
            SinkKind::Stdout {} | SinkKind::File(_) | SinkKind::Blackhole {} => Class::C,
            #[cfg(feature = "nats")]
            SinkKind::Jetstream(config) => config.class(),
            #[cfg(feature = "zmq")]
            SinkKind::Zmq(_) => Class::C,
        }
    }
}

/// The keys that every sink has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Every {
    name: String,
}

/// Their names.
const EVERY: &[&str] = &["name"];

impl TryFrom<toml::Table> for SinkConfig {
    type Error = toml::de::Error;

    fn try_from(table: toml::Table) -> Result<Self, Self::Error> {
        let (every, kind): (toml::Table, toml::Table) =
            table.into_iter().partition(|(key, _)| EVERY.contains(&key.as_str()));
        let Every { name } = every.try_into()?;
        Ok(Self { name, kind: kind.try_into()? })
    }
}
