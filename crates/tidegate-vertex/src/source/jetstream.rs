//! Messages of NATS JetStream as records, in partition mode: each partition has a subject of its own, and the position of a
//! message is its sequence in the stream. The server keeps no progress; what is done is what the ledger says (15.3).

use std::collections::BTreeMap;

use async_nats::jetstream::stream::Stream;
use serde::Deserialize;
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::ids::{PartitionId, Position};

use super::{
    Abilities, AckMode, Budget, Identity, OnGap, Polled, Positions, Replay, Resume, Source, SourceError,
    work_queue::{self, WorkQueue},
};
use crate::{
    batch::Input,
    config::units::{Bytes, Time},
    nats::{
        Endpoint, Nats,
        puller::{Extent, Gap, Puller, Wanted},
    },
    wake::Waker,
};

/// The keys of a source of kind `jetstream`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct JetstreamSource {
    endpoint: Endpoint,
    mode: Mode,
}

/// Without a default: the two promise different things.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
enum Mode {
    Partition(Keys),
    WorkQueue(work_queue::Keys),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    stream: String,
    /// The subject of a partition, with `{partition}` when there are several.
    subject: String,
    #[serde(default = "one")]
    partitions: u32,
    #[serde(default)]
    start: Start,
    #[serde(default = "prefetch")]
    prefetch: Bytes,
    #[serde(default)]
    on_gap: OnGap,
    /// How often the position moves behind what is there of others while nothing comes.
    #[serde(default = "idle_cursor")]
    idle_cursor: Time,
}

/// Where a partition begins that was never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Start {
    /// At the first message that is there.
    #[default]
    All,
    /// Behind the last message that is there.
    New,
}

impl TryFrom<toml::Table> for JetstreamSource {
    type Error = toml::de::Error;

    fn try_from(table: toml::Table) -> Result<Self, Self::Error> {
        let (endpoint, mode) = Endpoint::split(table)?;
        let mode: Mode = mode.try_into()?;
        let refuse = |text: String| Err(serde::de::Error::custom(text));
        let keys = match &mode {
            Mode::Partition(keys) => keys,
            Mode::WorkQueue(keys) => {
                return match keys.check() {
                    Ok(()) => Ok(Self { endpoint, mode }),
                    Err(what) => refuse(what),
                };
            }
        };
        let most = tidegate_udf::wire::segment::MAX_FENCE_SLOTS;
        if !(1..=most).contains(&keys.partitions) {
            return refuse(format!("partitions = {} is not within 1 to {most}", keys.partitions));
        }
        if keys.partitions > 1 && !keys.subject.contains(PARTITION) {
            return refuse(format!(
                "subject = {:?} has no {PARTITION} in it, with several partitions",
                keys.subject
            ));
        }
        if keys.prefetch.0 < LEAST_PREFETCH {
            return refuse(format!("prefetch = {}B; it has to be at least 1KiB", keys.prefetch.0));
        }
        if keys.idle_cursor.0 < LEAST_IDLE_CURSOR {
            return refuse(format!(
                "idle_cursor = {}ms; it has to be at least 1s",
                keys.idle_cursor.0.0 / 1_000_000
            ));
        }
        Ok(Self { endpoint, mode })
    }
}

/// The stream.
#[derive(Debug)]
pub struct Jetstream {
    // Before the connection, so that nothing reads any more when it is closed.
    partitions: Vec<Option<Reader>>,
    nats: Nats,
    stream: Stream,
    keys: Keys,
    waker: Waker,
    /// Sequences that were skipped.
    lost: u64,
}

#[derive(Debug)]
struct Reader {
    puller: Puller,
    /// When the stream was made.
    created: i128,
    /// When the server stored what was polled and is not known to be committed.
    times: BTreeMap<u64, i128>,
}

impl Jetstream {
    fn open(endpoint: &Endpoint, keys: Keys, waker: Waker) -> Result<Self, SourceError> {
        let nats = Nats::connect(endpoint, "tidegate source")?;
        let (stream, _) = nats.stream(&keys.stream)?;
        let partitions = (0..keys.partitions).map(|_| None).collect();
        Ok(Self { partitions, nats, stream, keys, waker, lost: 0 })
    }

    /// Begins to read a partition ahead.
    fn pull(&self, partition: PartitionId, from: u64, anew: bool, created: i128) -> Puller {
        let keys = &self.keys;
        let wanted = Wanted {
            subject: keys.subject.replace(PARTITION, &partition.to_string()),
            from,
            anew,
            created,
            prefetch: keys.prefetch.0 as usize,
            idle: keys.idle_cursor.0.into(),
        };
        Puller::start(&self.nats, self.stream.clone(), wanted, self.waker.clone())
    }

    /// Goes on behind messages that are gone. Nobody knows which of them had the subject of this partition.
    fn skip(&mut self, partition: PartitionId, next: u64, first: u64) {
        self.lost += first - next;
        let error = self.refused(Gap::Trimmed { next, first });
        tracing::warn!(%partition, %error, "the gap is skipped");
    }

    fn refused(&self, gap: Gap) -> SourceError {
        let name = format!("stream {}", self.keys.stream);
        match gap {
            Gap::Trimmed { next, first } => {
                SourceError::Trimmed { name, resume: Position(next), found: Position(first) }
            }
            Gap::Cut { next, end } => SourceError::Gap { resume: Position(next), found: Position(end) },
            Gap::Replaced { next } => replaced(name, Position(next), "the time when the stream was made"),
        }
    }
}

impl JetstreamSource {
    /// Connects.
    ///
    /// # Errors
    /// [`SourceError::Nats`].
    pub fn open(&self, waker: Waker) -> Result<Box<dyn Source>, SourceError> {
        Ok(match &self.mode {
            Mode::Partition(keys) => Box::new(Jetstream::open(&self.endpoint, keys.clone(), waker)?),
            Mode::WorkQueue(keys) => Box::new(WorkQueue::open(&self.endpoint, keys.clone(), waker)?),
        })
    }

    /// What it can do.
    pub fn abilities(&self) -> Abilities {
        match self.mode {
            Mode::Partition(_) => ABILITIES,
            Mode::WorkQueue(_) => work_queue::ABILITIES,
        }
    }

    /// Its partitions, if each has a subject of its own that another vertex can read.
    pub fn partitions(&self) -> Option<u32> {
        match &self.mode {
            Mode::Partition(keys) => Some(keys.partitions),
            Mode::WorkQueue(_) => None,
        }
    }

    /// Bytes that are read ahead of each partition. A work queue is read as it is polled.
    pub(crate) fn prefetch(&self) -> u64 {
        match &self.mode {
            Mode::Partition(keys) => keys.prefetch.0,
            Mode::WorkQueue(_) => 0,
        }
    }

    /// Messages that may be under way, where the server counts them.
    pub(crate) fn max_ack_pending(&self) -> Option<u32> {
        match &self.mode {
            Mode::Partition(_) => None,
            Mode::WorkQueue(keys) => Some(keys.max_ack_pending),
        }
    }
}

/// What partition mode can do.
const ABILITIES: Abilities =
    Abilities { positions: Positions::Stable, replay: Replay::Yes, ack: AckMode::None, ordered: true };

impl Source for Jetstream {
    fn abilities(&self) -> Abilities {
        ABILITIES
    }

    fn partitions(&self) -> u32 {
        self.keys.partitions
    }

    fn open(&mut self, partition: PartitionId, from: Option<&Resume>) -> Result<Position, SourceError> {
        let (_, info) = self.nats.stream(&self.keys.stream)?;
        let stream = Extent::of(&info);
        let Extent { created, first, end } = stream;
        let mut times = BTreeMap::new();
        let next = match from {
            None if self.keys.start == Start::New => end,
            None => first,
            Some(Resume { position, identity }) => {
                let Position(resume) = *position;
                let stream_name = format!("stream {}", self.keys.stream);
                let replaced = |what| replaced(stream_name.clone(), *position, what);
                let known =
                    Known::decode(identity).ok_or_else(|| replaced("the form of what the ledger kept"))?;
                match Gap::of(stream, known.created, resume) {
                    Some(Gap::Trimmed { .. }) if self.keys.on_gap == OnGap::Skip => {
                        self.skip(partition, resume, first);
                    }
                    Some(gap) => return Err(self.refused(gap)),
                    None => {}
                }
                if let Some((sequence, time)) = known.last {
                    let message = self.nats.message_at(&self.stream, sequence)?;
                    if message.is_some_and(|message| message.time != time) {
                        return Err(replaced("the time of the last message that was read"));
                    }
                    times.insert(sequence, time);
                }
                resume.max(first)
            }
        };
        let anew = from.is_none() && self.keys.start == Start::All;
        let puller = self.pull(partition, next, anew, created);
        if let Some(reader) = self.partitions.get_mut(partition.0 as usize) {
            *reader = Some(Reader { puller, created, times });
        }
        Ok(Position(next))
    }

    fn poll(&mut self, partition: PartitionId, max: Budget) -> Result<Polled, SourceError> {
        let Some(Some(reader)) = self.partitions.get_mut(partition.0 as usize) else {
            return Ok(Polled::Idle);
        };
        let (mut inputs, mut room) = (Vec::new(), max.bytes);
        let mut too_long = None;
        while inputs.len() < max.records {
            let next = reader.puller.next_if(|message| {
                let len = message.record.len();
                if message.record.value.len() > max.value {
                    too_long = Some(Position(message.sequence));
                }
                too_long.is_none() && (len <= room || inputs.is_empty())
            });
            let Some(message) = next else { break };
            room = room.saturating_sub(message.record.len());
            reader.times.insert(message.sequence, message.time);
            let (position, next) = (Position(message.sequence), Position(message.sequence + 1));
            inputs.push(Input { position, next, record: message.record });
        }
        match too_long {
            Some(position) if inputs.is_empty() => Err(SourceError::TooLong { position, max: max.value }),
            _ if inputs.is_empty() => match reader.puller.gap() {
                Some(Gap::Trimmed { next, first }) if self.keys.on_gap == OnGap::Skip => {
                    let created = reader.created;
                    self.skip(partition, next, first);
                    let puller = self.pull(partition, first, false, created);
                    if let Some(Some(reader)) = self.partitions.get_mut(partition.0 as usize) {
                        reader.puller = puller;
                    }
                    Ok(Polled::Idle)
                }
                Some(gap) => Err(self.refused(gap)),
                None => Ok(Polled::Idle),
            },
            _ => Ok(Polled::Inputs(inputs)),
        }
    }

    fn identity(&mut self, partition: PartitionId, resume: Position) -> Result<Identity, SourceError> {
        let mut created = self.stream.cached_info().created.unix_timestamp_nanos();
        let mut last = None;
        if let Some(Some(reader)) = self.partitions.get_mut(partition.0 as usize) {
            created = reader.created;
            last = reader.times.range(..resume.0).next_back().map(|(&sequence, &time)| (sequence, time));
            if let Some((sequence, _)) = last {
                reader.times = reader.times.split_off(&sequence);
            }
        }
        Ok(Known { created, last }.encode())
    }

    fn passed(&self, partition: PartitionId) -> Option<Position> {
        let reader = self.partitions.get(partition.0 as usize)?.as_ref()?;
        reader.puller.complete().map(Position)
    }

    fn lineage(&self, identity: &Identity) -> u64 {
        Known::decode(identity).map_or(0, |known| known.created as u64)
    }

    fn nack(&mut self, partition: PartitionId, _: Position, _: Nanos) {
        // The server keeps nothing to give back; there is only nothing more to read.
        if let Some(reader) = self.partitions.get_mut(partition.0 as usize) {
            *reader = None;
        }
    }

    fn pending(&self, partition: PartitionId) -> Option<u64> {
        self.partitions.get(partition.0 as usize)?.as_ref()?.puller.pending()
    }

    fn ahead(&self) -> Option<u64> {
        let bytes = self.partitions.iter().flatten().map(|reader| reader.puller.bytes() as u64);
        Some(bytes.sum())
    }

    fn lost(&self) -> u64 {
        self.lost
    }
}

fn replaced(name: String, resume: Position, what: &'static str) -> SourceError {
    SourceError::Replaced { name, resume, what }
}

/// By what the stream is known again: `i128` time when it was made; and if something was read `u64` sequence and `i128` time of
/// the last message. Big-endian.
struct Known {
    created: i128,
    last: Option<(u64, i128)>,
}

impl Known {
    fn encode(&self) -> Identity {
        let mut bytes = self.created.to_be_bytes().to_vec();
        if let Some((sequence, time)) = self.last {
            bytes.extend_from_slice(&sequence.to_be_bytes());
            bytes.extend_from_slice(&time.to_be_bytes());
        }
        Identity(bytes)
    }

    fn decode(Identity(bytes): &Identity) -> Option<Self> {
        let (created, rest) = bytes.split_first_chunk()?;
        let created = i128::from_be_bytes(*created);
        if rest.is_empty() {
            return Some(Self { created, last: None });
        }
        let (sequence, time) = rest.split_first_chunk()?;
        let time = i128::from_be_bytes(time.try_into().ok()?);
        Some(Self { created, last: Some((u64::from_be_bytes(*sequence), time)) })
    }
}

/// Stands for the number of the partition in the subject.
const PARTITION: &str = "{partition}";

fn one() -> u32 {
    1
}

fn prefetch() -> Bytes {
    Bytes(32 << 20)
}

fn idle_cursor() -> Time {
    Time(Nanos::from_secs(60))
}

const LEAST_PREFETCH: u64 = 1 << 10;

const LEAST_IDLE_CURSOR: Nanos = Nanos::from_secs(1);
