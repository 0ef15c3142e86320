//! The pipeline file (chapter 17): TOML, one file per pipeline, unknown keys are errors.

mod ends;
pub mod secret;
pub mod units;

use std::{
    collections::BTreeMap,
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;
use thiserror::Error;
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::{
    frame::HEADER_LEN,
    ids::SessionId,
    segment::{Geometry, SegmentFault},
};

use crate::{
    flow::{OnExhausted, Retry},
    lane::session::Transport,
};
pub use ends::{SinkConfig, SinkKind, SourceConfig};
use units::{Bytes, Time};

/// A pipeline as its file describes it, checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    version: u32,
    /// Name and guarantee.
    pub pipeline: Identity,
    /// How records are put together.
    #[serde(default)]
    pub batch: BatchConfig,
    #[serde(default)]
    transport: TransportConfig,
    /// The function.
    pub udf: UdfConfig,
    /// Where records come from.
    pub source: SourceConfig,
    /// Where outputs go.
    pub sink: Vec<SinkConfig>,
    /// Where progress is kept; without it a vertex that is started again begins anew.
    pub ledger: Option<LedgerConfig>,
    #[serde(default)]
    epoch: EpochConfig,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
}

/// `[pipeline]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// For people, logs and metrics.
    pub name: String,
    uid: Option<String>,
    /// What is promised.
    pub delivery: Delivery,
}

/// What is promised (VX-001).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Outputs go to the sink as soon as their batch is done.
    AtLeastOnce,
}

/// `[batch]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Most records of a batch.
    pub max_records: NonZeroU32,
    /// Most bytes of a batch's payload.
    pub max_bytes: Bytes,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TransportConfig {
    ring: Bytes,
    max_frame: Option<Bytes>,
    max_in_flight: NonZeroU32,
    max_response: Option<Bytes>,
    checksum: Checksum,
    heartbeat: Time,
}

/// What is covered by checksums; headers always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Checksum {
    Header,
    Full,
}

/// `[udf]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UdfConfig {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Worker processes.
    #[serde(default = "one")]
    pub workers: NonZeroU32,
    #[serde(default = "batch_timeout")]
    batch_timeout: Time,
    #[serde(default = "attach_timeout")]
    attach_timeout: Time,
    /// Environment of the workers.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What the function is given.
    #[serde(default)]
    pub params: toml::Table,
    #[serde(default)]
    retry: RetryConfig,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetryConfig {
    attempts: NonZeroU32,
    crash_attempts: NonZeroU32,
    initial: Time,
    cap: Time,
    on_exhausted: Exhausted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Exhausted {
    Stop,
    Drop,
}

/// `[ledger]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// A directory on a local disk.
    pub path: PathBuf,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EpochConfig {
    interval: Time,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Room for answers that are not final.
    pub epoch_buffers: Bytes,
}

/// Why a pipeline file is not one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the pipeline file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not TOML, an unknown key, or a value of another kind.
    #[error("the pipeline file is not valid: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A value that cannot be.
    #[error("{key} is {found}; it has to be {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// Sizes of the rings that do not fit each other.
    #[error("transport: {0}")]
    Transport(#[from] SegmentFault),
}

impl Pipeline {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], with the key and what it may be.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        text.parse()
    }

    /// Longest value of a record: with its head it fits a batch by itself.
    pub fn max_value(&self) -> usize {
        (self.batch.max_bytes.0 - u64::from(HEADER_LEN)) as usize
    }

    /// Number of the pipeline.
    pub fn uid(&self) -> u64 {
        self.pipeline.uid.as_deref().and_then(|uid| u64::from_str_radix(uid, 16).ok()).unwrap_or(0)
    }

    /// How often progress is made durable.
    pub fn epoch_interval(&self) -> Nanos {
        self.epoch.interval.0
    }

    /// Sizes of a session.
    pub fn transport(&self) -> Transport {
        let TransportConfig { ring, max_frame, max_in_flight, max_response, .. } = self.transport;
        let max_frame = max_frame.map_or(ring.0 / 4, |bytes| bytes.0);
        Transport {
            ring: ring.0,
            max_frame: u32::try_from(max_frame).unwrap_or(u32::MAX),
            max_in_flight: max_in_flight.get(),
            max_response: max_response.map_or((4 * self.batch.max_bytes.0).max(1 << 20), |bytes| bytes.0),
        }
    }

    /// Whether payloads carry checksums.
    pub fn has_payload_checksums(&self) -> bool {
        self.transport.checksum == Checksum::Full
    }

    /// How often workers beat.
    pub fn heartbeat(&self) -> Nanos {
        self.transport.heartbeat.0
    }

    /// How long a batch may be the oldest of its worker.
    pub fn batch_timeout(&self) -> Nanos {
        self.udf.batch_timeout.0
    }

    /// How long attaching may take.
    pub fn attach_timeout(&self) -> Nanos {
        self.udf.attach_timeout.0
    }

    /// How often to try.
    pub fn retry(&self) -> Retry {
        let RetryConfig { attempts, crash_attempts, initial, cap, on_exhausted } = self.udf.retry;
        let on_exhausted = match on_exhausted {
            Exhausted::Stop => OnExhausted::Stop,
            Exhausted::Drop => OnExhausted::Drop,
        };
        Retry { attempts, crash_attempts, initial: initial.0, cap: cap.0, on_exhausted }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let value = |key, found: &dyn ToString, allowed| {
            Err(ConfigError::Value { key, found: found.to_string(), allowed })
        };
        if self.version != 1 {
            return value("version", &self.version, "1");
        }
        match &self.pipeline.uid {
            Some(uid) if uid.len() != 16 || !uid.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                return value("pipeline.uid", uid, "16 hexadecimal digits");
            }
            None if self.ledger.is_some() => {
                return value(
                    "pipeline.uid",
                    &"missing",
                    "16 hexadecimal digits, different for each pipeline",
                );
            }
            _ => {}
        }
        let mut names: Vec<&str> = self.sink.iter().map(SinkConfig::name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return value("sink.name", &twice[0], "different for each sink");
        }
        if self.udf.command.is_empty() {
            return value("udf.command", &"empty", "a program and its arguments");
        }
        if self.sink.is_empty() || self.sink.len() > 0x1_0000 {
            return value("sink", &self.sink.len(), "1 to 65536 of them");
        }
        let transport = self.transport();
        let Transport { ring: capacity, max_frame, max_in_flight, max_response } = transport;
        Geometry { capacity, max_frame, max_in_flight, session: SessionId(1) }.check()?;
        let batch = self.batch.max_bytes.0;
        if batch < LEAST_BATCH || batch + u64::from(HEADER_LEN) > u64::from(max_frame) {
            return value(
                "batch.max_bytes",
                &batch,
                "at least 1KiB, and below transport.max_frame by 128 bytes",
            );
        }
        if max_response > self.limits.epoch_buffers.0 / 2 {
            return value("transport.max_response", &max_response, "at most half of limits.epoch_buffers");
        }
        if let SourceConfig::Generator { partitions, .. } = self.source
            && partitions.get() > tidegate_udf::wire::segment::MAX_FENCE_SLOTS
        {
            return value("source.partitions", &partitions, "at most 4096");
        }
        Ok(())
    }
}

impl FromStr for Pipeline {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let pipeline: Self = toml::from_str(text)?;
        pipeline.check()?;
        Ok(pipeline)
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { max_records: number(500), max_bytes: Bytes(1 << 20) }
    }
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            ring: Bytes(16 << 20),
            max_frame: None,
            max_in_flight: number(8),
            max_response: None,
            checksum: Checksum::Header,
            heartbeat: Time(Nanos::from_millis(200)),
        }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: number(5),
            crash_attempts: number(2),
            initial: Time(Nanos::from_millis(50)),
            cap: Time(Nanos::from_secs(10)),
            on_exhausted: Exhausted::Stop,
        }
    }
}

impl Default for EpochConfig {
    fn default() -> Self {
        Self { interval: Time(Nanos::from_millis(200)) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { epoch_buffers: Bytes(100 << 20) }
    }
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN)
}

fn batch_timeout() -> Time {
    Time(Nanos::from_secs(30))
}

fn attach_timeout() -> Time {
    Time(Nanos::from_secs(10))
}

/// Least room for the records of a batch.
const LEAST_BATCH: u64 = 1024;

#[cfg(test)]
mod tests;
