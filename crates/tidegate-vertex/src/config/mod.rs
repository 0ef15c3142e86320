//! The pipeline file (chapter 17): TOML, one file per pipeline, unknown keys are errors.

mod blame;
mod defaults;
mod delivery;
mod edit;
mod ends;
mod error;
mod explain;
mod later;
mod operation;
mod ownership;
mod place;
mod schema;
pub mod secret;
#[cfg(feature = "tensor")]
mod streams;
pub mod units;

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::{
    frame::HEADER_LEN,
    ids::{PartitionId, SessionId},
    segment::Geometry,
};

use crate::{
    flow::{OnExhausted, Retry, Shape},
    lane::{
        door::DoorSpec,
        session::{Transport, Typing},
    },
    own::Pins,
    retry::Backoff,
    source::AckMode,
};
pub use delivery::Delivery;
pub use edit::{fresh_uid, with_uid};
pub use ends::{FileMode, FileSink, Role, SinkConfig, SinkKind, SinkRetry, SourceConfig};
pub use error::ConfigError;
pub use explain::{KEYS, Key};
pub use operation::{AdminConfig, LogConfig, LogFormat, LogLevel, MetricsConfig};
pub use ownership::OwnershipConfig;
#[cfg(feature = "nats")]
pub use ownership::jetstream::JetstreamOwnership;
pub use schema::SchemaConfig;
use units::{Bytes, Factor, Share, Time};
#[cfg(feature = "tensor")]
pub use {explain::STREAM_KEYS, streams::TensorEnd};

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
    /// What records are.
    #[serde(default)]
    pub schema: SchemaConfig,
    /// Where records come from.
    pub source: SourceConfig,
    /// Where outputs go.
    pub sink: Vec<SinkConfig>,
    /// Where progress is kept; without it a vertex that is started again begins anew.
    pub ledger: Option<LedgerConfig>,
    /// When progress is made durable.
    #[serde(default)]
    pub epoch: EpochConfig,
    /// Who decides which vertex has a partition.
    #[serde(default)]
    pub ownership: OwnershipConfig,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// How it is steered.
    #[serde(default)]
    pub admin: AdminConfig,
    /// How it is watched.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// What it writes to its log.
    #[serde(default)]
    pub log: LogConfig,
    /// Whether an ownership store that went back in time is taken as it is; said by an operator, for one run (VX-714).
    #[serde(skip)]
    pub accept_regression: bool,
    /// Whether a ledger that is gone is made anew; said by an operator, for one run (VX-786).
    #[serde(skip)]
    pub new_ledger: bool,
    /// The partitions that this run may have; all of them without.
    #[serde(skip)]
    only: Option<Pins>,
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

/// `[batch]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Most records of a batch.
    pub max_records: NonZeroU32,
    /// Most bytes of a batch's payload.
    pub max_bytes: Bytes,
    /// How long one that is not full waits for more while its worker is busy.
    pub linger: Time,
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
    /// Program and arguments; empty if somebody else starts the workers.
    #[serde(default)]
    pub command: Vec<String>,
    /// The socket at which workers attach that somebody else starts.
    pub listen: Option<PathBuf>,
    /// Users whose workers may attach there besides those of the vertex's own.
    #[serde(default)]
    pub allowed_uids: Vec<u32>,
    /// The group that may reach the socket.
    pub group: Option<u32>,
    /// Worker processes.
    #[serde(default = "one")]
    pub workers: NonZeroU32,
    /// Which order outputs keep.
    #[serde(default)]
    pub order: Order,
    #[serde(default = "defaults::batch_timeout")]
    batch_timeout: Time,
    #[serde(default = "defaults::attach_timeout")]
    attach_timeout: Time,
    /// Workers of a lane that may end within the window before the vertex gives up; 0 for any number.
    #[serde(default)]
    max_restarts: u32,
    #[serde(default = "defaults::restart_window")]
    restart_window: Time,
    /// How many workers of other schemas are refused before the vertex gives up.
    #[serde(default = "defaults::attach_retries")]
    pub attach_retries: u32,
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
    factor: Factor,
    cap: Time,
    jitter: Share,
    on_exhausted: Option<Exhausted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Exhausted {
    Stop,
    Drop,
    Dlq,
    Nack,
}

/// Which order outputs keep, and with it which workers a partition has (VX-440).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// That of their partition: each belongs to one worker.
    #[default]
    Partition,
    /// None: every worker has all of them.
    None,
}

/// `[ledger]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// A directory on a local disk.
    pub path: PathBuf,
}

/// `[epoch]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EpochConfig {
    /// How long an epoch stays open once it has something.
    pub interval: Time,
    /// Inputs after which it is sealed.
    pub max_records: NonZeroU32,
    /// Bytes of outputs after which it is sealed.
    pub max_bytes: Bytes,
    /// Sealed epochs of a partition that may wait to be committed.
    pub max_pending: NonZeroU32,
    /// How long the ledger may keep an epoch waiting.
    pub rto: Time,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Room for answers that are not final.
    pub epoch_buffers: Bytes,
    /// Inputs that were read and are not final.
    pub prefetch: Bytes,
}

impl Pipeline {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], with the key and what it may be.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        text.parse().map_err(|error: ConfigError| error.at(path, &text))
    }

    /// Reads a file and changes values of it, each given as `KEY=VALUE`.
    ///
    /// # Errors
    /// As [`Pipeline::read`]; also a setting that is none.
    pub fn read_with(path: &Path, settings: &[String]) -> Result<Self, ConfigError> {
        if settings.is_empty() {
            return Self::read(path);
        }
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut file: toml::Table =
            text.parse().map_err(|error| ConfigError::Syntax(error).at(path, &text))?;
        for setting in settings {
            edit::set(&mut file, setting)?;
        }
        // Lines are those of the file; what was set has none, or that of what it replaces.
        match file.to_string().parse() {
            Err(ConfigError::Syntax(error)) => {
                let message = serde::de::Error::custom(error.message());
                Err(ConfigError::Syntax(message).at(path, &text))
            }
            other => other.map_err(|error: ConfigError| error.at(path, &text)),
        }
    }

    /// Longest value of a record that is kept; one that does not fit a batch is for the dead letters.
    pub fn longest_record(&self) -> usize {
        (self.limits.prefetch.0 / 2).max(self.batch.max_bytes.0) as usize
    }

    /// Number of the pipeline.
    pub fn uid(&self) -> u64 {
        self.pipeline.uid.as_deref().and_then(|uid| u64::from_str_radix(uid, 16).ok()).unwrap_or(0)
    }

    /// How long after a write a new owner may come for it: the oldest epoch that a vertex lets wait, and the lease.
    pub fn keep(&self) -> Nanos {
        let lease = match &self.ownership {
            #[cfg(feature = "nats")]
            OwnershipConfig::Jetstream(keys) => keys.lease(),
            OwnershipConfig::Static {} | OwnershipConfig::InProc {} => Nanos::ZERO,
        };
        self.epoch.rto.0.saturating_add(lease)
    }

    /// How often progress is made durable.
    pub fn epoch_interval(&self) -> Nanos {
        self.epoch.interval.0
    }

    /// Index of the sink that gets inputs which cannot be processed, if they do not stop their partition or are dropped.
    pub fn dead_letters(&self) -> Option<usize> {
        let wanted = matches!(self.udf.retry.on_exhausted, None | Some(Exhausted::Dlq | Exhausted::Nack));
        let index = self.sink.iter().position(|sink| sink.role == Role::Dlq);
        index.filter(|_| wanted)
    }

    /// Whether what cannot be processed is left out when there is no sink for it.
    pub fn leaves_out(&self) -> bool {
        self.udf.retry.on_exhausted == Some(Exhausted::Drop)
    }

    /// The names of the sinks that functions can choose, by route, and the index of each.
    pub fn routes(&self) -> impl Iterator<Item = (usize, &str)> {
        let outputs = self.sink.iter().enumerate().filter(|(_, sink)| sink.role == Role::Output);
        outputs.map(|(index, sink)| (index, sink.name()))
    }

    /// Whether each partition belongs to one worker.
    pub fn is_ordered(&self) -> bool {
        self.udf.order == Order::Partition
    }

    /// How inputs are put together. Epochs keep their order (VX-316), in whatever order workers answer.
    pub fn shape(&self) -> Shape {
        let BatchConfig { max_records, max_bytes, linger } = self.batch;
        let unordered = !self.is_ordered() && self.pipeline.delivery != Delivery::EffectivelyOnce;
        Shape { records: max_records.get() as usize, bytes: max_bytes.0, linger: linger.0, unordered }
    }

    /// Where workers come in that somebody else starts.
    pub fn door(&self, typing: Typing) -> Option<DoorSpec> {
        let UdfConfig { listen, allowed_uids, group, workers, .. } = &self.udf;
        Some(DoorSpec {
            path: listen.clone()?,
            group: *group,
            allowed: allowed_uids.clone(),
            workers: *workers,
            typing,
            attach_timeout: self.attach_timeout(),
        })
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

    /// How many workers of a lane may end within which time; `None` for any number (VX-436).
    pub fn restarts(&self) -> Option<(NonZeroU32, Nanos)> {
        Some((NonZeroU32::new(self.udf.max_restarts)?, self.udf.restart_window.0))
    }

    /// Has the source end where it ends now, instead of waiting for more.
    ///
    /// # Errors
    /// It has no end.
    pub fn end_at_eof(&mut self) -> Result<(), ConfigError> {
        if self.source.end_at_eof() {
            return Ok(());
        }
        let found = format!("{:?}, which has no end", self.source.kind());
        let allowed = "\"file\", \"stdin\", \"generator\" or \"hub\" with --until-eof";
        Err(ConfigError::Value { key: "source.kind", number: 0, found, allowed })
    }

    /// Has this run only have these partitions, numbers and ranges like `0-3,7`.
    ///
    /// # Errors
    /// That is no such list.
    pub fn only(&mut self, partitions: &str) -> Result<(), ConfigError> {
        let allowed = "numbers of partitions and ranges like 0-3,7";
        let found = partitions.to_owned();
        let wrong = |_| ConfigError::Value { key: "--partitions", number: 0, found, allowed };
        let pins: Pins = partitions.parse().map_err(wrong)?;
        match &mut self.ownership {
            #[cfg(feature = "nats")]
            OwnershipConfig::Jetstream(keys) => keys.pin(pins),
            OwnershipConfig::Static {} | OwnershipConfig::InProc {} => self.only = Some(pins),
        }
        Ok(())
    }

    /// Whether this run may have a partition.
    pub fn may_have(&self, partition: PartitionId) -> bool {
        let pins = [self.only.as_ref(), self.ownership.pins()];
        pins.into_iter().flatten().all(|pins| pins.has(partition))
    }

    /// Whether it may have any of so many.
    pub(crate) fn check_only(&self, partitions: u32) -> Result<(), ConfigError> {
        let Some(only) = &self.only else { return Ok(()) };
        if (0..partitions).any(|partition| only.has(PartitionId(partition))) {
            return Ok(());
        }
        let found = only.text().to_owned();
        let allowed = "some of the partitions that the source has, which count from 0";
        Err(ConfigError::Value { key: "--partitions", number: 0, found, allowed })
    }

    /// How often to try.
    pub fn retry(&self) -> Retry {
        let RetryConfig { attempts, crash_attempts, initial, factor, cap, jitter, on_exhausted } =
            self.udf.retry;
        let on_exhausted = match on_exhausted {
            None if self.dead_letters().is_some() => OnExhausted::LeaveOut,
            Some(Exhausted::Stop) | None => OnExhausted::Stop,
            Some(Exhausted::Drop | Exhausted::Dlq) => OnExhausted::LeaveOut,
            Some(Exhausted::Nack) => OnExhausted::GiveBack,
        };
        let backoff = Backoff { initial: initial.0, factor: factor.0, cap: cap.0, jitter: jitter.0 };
        let gives_back = self.source.abilities().ack == AckMode::Individual;
        Retry { attempts, crash_attempts, backoff, gives_back, on_exhausted }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let value = |key, found: &dyn ToString, allowed| {
            Err(ConfigError::Value { key, number: 0, found: found.to_string(), allowed })
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
        let mut names = HashSet::new();
        let twice = self.sink.iter().enumerate().find(|(_, sink)| !names.insert(sink.name()));
        if let Some((number, sink)) = twice {
            let (found, allowed) = (sink.name().to_owned(), "different for each sink");
            return Err(ConfigError::Value { key: "sink.name", number, found, allowed });
        }
        self.udf.check_origin()?;
        if self.routes().next().is_none() || self.sink.len() > 0x1_0000 {
            return value("sink", &self.sink.len(), "1 to 65536 of them, at least one of which gets outputs");
        }
        self.check_ends()?;
        #[cfg(feature = "tensor")]
        self.check_streams()?;
        self.check_delivery()?;
        self.ownership.check(self)?;
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
        let under_way = u64::from(max_in_flight) * u64::from(self.batch.max_records.get());
        if let Some(most) = self.source.max_ack_pending().filter(|most| u64::from(*most) < under_way) {
            return value(
                "source.max_ack_pending",
                &most,
                "at least transport.max_in_flight times batch.max_records",
            );
        }
        if self.limits.prefetch.0 < batch {
            return value("limits.prefetch", &self.limits.prefetch.0, "at least batch.max_bytes");
        }
        if let SourceConfig::Generator { partitions, .. } = self.source
            && partitions.get() > tidegate_udf::wire::segment::MAX_FENCE_SLOTS
        {
            return value("source.partitions", &partitions, "at most 4096");
        }
        Ok(())
    }
}

impl UdfConfig {
    /// Workers are started, or they come by themselves.
    fn check_origin(&self) -> Result<(), ConfigError> {
        let value = |key, found: &dyn ToString, allowed| {
            Err(ConfigError::Value { key, number: 0, found: found.to_string(), allowed })
        };
        let Some(listen) = &self.listen else {
            if self.command.is_empty() {
                let allowed =
                    "a program and its arguments, or udf.listen for workers that somebody else starts";
                return value("udf.command", &"empty", allowed);
            }
            let of_listen =
                [("udf.allowed_uids", !self.allowed_uids.is_empty()), ("udf.group", self.group.is_some())];
            return match of_listen.iter().find(|(_, given)| *given) {
                Some((key, _)) => value(key, &"set", "left out without udf.listen"),
                None => Ok(()),
            };
        };
        if !self.command.is_empty() {
            return value(
                "udf.command",
                &"set",
                "left out with udf.listen, at which workers come by themselves",
            );
        }
        if !self.env.is_empty() {
            return value("udf.env", &"set", "left out with udf.listen: whoever starts the workers gives it");
        }
        let len = listen.as_os_str().len();
        if len == 0 || len > LONGEST_SOCKET {
            return value("udf.listen", &format!("{len} bytes long"), "a path of 1 to 107 bytes");
        }
        if !self.allowed_uids.is_empty() && self.group.is_none() {
            let allowed =
                "a group that they are in and the vertex's user is in, if there are udf.allowed_uids";
            return value("udf.group", &"missing", allowed);
        }
        Ok(())
    }
}

impl FromStr for Pipeline {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let file = text.parse::<toml::Table>()?;
        later::refuse(&file)?;
        let pipeline: Self = toml::from_str(text)
            .map_err(|error| blame::blame(&file).unwrap_or(ConfigError::Syntax(error)))?;
        pipeline.check()?;
        Ok(pipeline)
    }
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

/// The kernel takes no longer path of a socket.
const LONGEST_SOCKET: usize = 107;
/// Least room for the records of a batch.
const LEAST_BATCH: u64 = 1024;

#[cfg(test)]
mod tests;
