//! Outputs as messages of NATS JetStream, or as values of a bucket of its KV.
//!
//! | kind and mode | class | what makes it so |
//! |---|---|---|
//! | `jetstream`, `strict` | A | a barrier that every later message has to follow ([`strict`](crate::nats::strict)) |
//! | `jetstream`, `ids` | B | the stream's window of ids ([`ids`](crate::nats::ids)) |
//! | `kv`, `guarded` | B | the place in the source that a value has with it ([`kv`](crate::nats::kv)) |
//! | `kv`, `put` | C | |
//!
//! Each partition has a connection of its own, and what it publishes is under way in a thread until every message was
//! answered, so a server that is slow or gone holds up nobody else. The permit is with that thread (VX-732). Without an answer
//! the connection is closed, and the next attempt looks for what was stored before it sends anything again.

use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, TryRecvError, sync_channel},
    thread,
    time::Duration,
};

use serde::Deserialize;
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::ids::{EpochId, PartitionId, Position};

use super::{Class, Confirms, Delivery, Held, Output, Published, Rejected, Session, Sink, SinkError, Token};
use crate::{
    fence::{WriteGuard, WriteKind},
    nats::{
        Endpoint, Message, Nats, NatsError,
        ids::{IdStream, Sent},
        kv::{KvBucket, KvError, check_key},
        strict::{Names, Place, StrictError, StrictStream},
    },
    wake::Waker,
};

/// The keys of a sink of kind `jetstream`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct JetstreamSink {
    endpoint: Endpoint,
    place: Target,
}

/// Which stream and how.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase", deny_unknown_fields)]
enum Target {
    /// A stream for each partition, `{partition}` in its name.
    Strict { stream: String, prefix: String },
    /// One stream; `{partition}` may be in the subject.
    Ids { stream: String, subject: String },
    /// A bucket, of the kind `kv`.
    #[serde(skip)]
    Kv { bucket: String, guarded: bool },
}

/// The keys of a sink of kind `kv`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct KvSink(pub JetstreamSink);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KvKeys {
    /// Without a default: the two promise different things.
    mode: KvMode,
    bucket: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KvMode {
    Guarded,
    Put,
}

impl TryFrom<toml::Table> for KvSink {
    type Error = toml::de::Error;

    fn try_from(table: toml::Table) -> Result<Self, Self::Error> {
        let (endpoint, keys) = Endpoint::split(table)?;
        let KvKeys { mode, bucket } = keys.try_into()?;
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
        let plain = bucket.replace(PARTITION, "");
        if bucket.is_empty() || !plain.chars().all(allowed) {
            return Err(serde::de::Error::custom(format!(
                "bucket = {bucket:?}; it has to be letters, digits, - and _, with {PARTITION} where its number is to stand"
            )));
        }
        let place = Target::Kv { bucket, guarded: mode == KvMode::Guarded };
        Ok(Self(JetstreamSink { endpoint, place }))
    }
}

impl TryFrom<toml::Table> for JetstreamSink {
    type Error = toml::de::Error;

    fn try_from(table: toml::Table) -> Result<Self, Self::Error> {
        let (endpoint, place) = Endpoint::split(table)?;
        let place: Target = place.try_into()?;
        match &place {
            Target::Strict { stream, .. } if !stream.contains(PARTITION) => {
                Err(serde::de::Error::custom(format!(
                    "stream = {stream:?} has no {PARTITION} in it: in strict mode each partition has a stream of its own"
                )))
            }
            _ => Ok(Self { endpoint, place }),
        }
    }
}

impl JetstreamSink {
    /// What it does about repeated and late writes.
    pub fn class(&self) -> Class {
        match self.place {
            Target::Strict { .. } => Class::A,
            Target::Ids { .. } | Target::Kv { guarded: true, .. } => Class::B,
            Target::Kv { guarded: false, .. } => Class::C,
        }
    }

    /// Whether it compares positions, which then have to mean the same in every run.
    pub fn compares_positions(&self) -> bool {
        matches!(self.place, Target::Kv { guarded: true, .. })
    }
}

/// The sink.
#[derive(Debug)]
pub struct Jetstream {
    name: String,
    config: JetstreamSink,
    uid: u64,
    /// How long after a write a new owner may come for it.
    keep: Duration,
    /// Whether a failing output stops those behind it.
    ordered: bool,
    waker: Waker,
    lanes: BTreeMap<PartitionId, Lane>,
}

/// What a partition has.
#[derive(Debug)]
enum Lane {
    Ready(Box<End>),
    Busy {
        job: Job,
        answer: Receiver<(Box<End>, Result<Done, SinkError>)>,
    },
    /// A thread ended without an answer.
    Lost,
}

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Job {
    session: Session,
    epoch: EpochId,
    first: Position,
    last: Position,
    source: u64,
    count: usize,
}

#[derive(Debug)]
enum Done {
    /// So many are stored, and this is where reading back begins.
    Stored(usize, Option<Place>),
    /// So many are stored, the next one never will.
    Refused(usize, String),
    /// So many are stored; the connection is closed.
    Doubt(usize, String),
    /// The same, but for these, which have to be sent again.
    But(Vec<Rejected>, Box<Done>),
}

/// The stream of one partition.
#[derive(Debug)]
struct End {
    endpoint: Endpoint,
    label: String,
    session: Session,
    stream: Open,
    ordered: bool,
    /// Whether the connection is still good.
    connected: bool,
}

#[derive(Debug)]
enum Open {
    Strict(Box<StrictStream>),
    Ids { stream: Box<IdStream>, name: String, subject: String, window: Duration },
    Kv { bucket: Box<KvBucket>, name: String, guarded: bool, window: Duration },
}

impl Jetstream {
    /// A sink that nothing was written to. Connections are made with the barriers.
    pub fn new(
        name: &str,
        config: JetstreamSink,
        uid: u64,
        keep: Duration,
        ordered: bool,
        waker: Waker,
    ) -> Self {
        Self { name: name.to_owned(), config, uid, keep, ordered, waker, lanes: BTreeMap::new() }
    }

    fn open(&self, session: &Session) -> Result<End, SinkError> {
        let endpoint = self.config.endpoint.clone();
        let label = format!("tidegate {} partition {}", self.name, session.partition);
        let nats = Nats::connect(&endpoint, &label)?;
        let named = |text: &String| text.replace(PARTITION, &session.partition.to_string());
        let stream = match &self.config.place {
            Target::Strict { stream, prefix } => {
                let prefix = format!("{}.{}", named(prefix), session.partition);
                let names = Names {
                    stream: named(stream),
                    data: format!("{prefix}.data"),
                    fence: format!("{prefix}.fence"),
                    keep: self.keep,
                };
                let opened = StrictStream::open(nats, names, self.uid, *session);
                Open::Strict(Box::new(opened.map_err(|error| self.error(session, error))?))
            }
            Target::Ids { stream, subject } => {
                let (name, subject, window) = (named(stream), named(subject), 2 * self.keep);
                let stream = IdStream::open(nats, &name, &subject, window)?;
                let stream = Box::new(stream.unordered(!self.ordered));
                Open::Ids { stream, name, subject, window }
            }
            Target::Kv { bucket, guarded } => {
                let (name, guarded, window) = (named(bucket), *guarded, 2 * self.keep);
                let bucket = KvBucket::open(nats, &name, guarded, window)?;
                let bucket = Box::new(bucket.unordered(!self.ordered));
                Open::Kv { bucket, name, guarded, window }
            }
        };
        let (session, ordered) = (*session, self.ordered);
        Ok(End { endpoint, label, session, stream, ordered, connected: true })
    }

    fn error(&self, session: &Session, error: StrictError) -> SinkError {
        sink_error(&self.name, session, error)
    }

    fn message(&self, delivery: &Delivery<'_>, output: &Output) -> Result<Message, String> {
        if let Target::Kv { .. } = self.config.place {
            check_key(&output.record)?;
        }
        Message::new(delivery.ids, delivery.session.partition, delivery.epoch, output)
    }

    fn start(&self, job: Job, mut end: Box<End>, messages: Vec<Message>, guard: &WriteGuard) -> Lane {
        let (tell, answer) = sync_channel(1);
        let (guard, waker, sink) = (guard.clone(), self.waker.clone(), self.name.clone());
        let work = move || {
            let done = end.publish(&sink, &job, &messages, &guard);
            // Nobody waits any more when the sink was closed.
            let _ = tell.send((end, done));
            waker.wake();
        };
        match thread::Builder::new().name("jetstream".to_owned()).spawn(work) {
            Ok(_) => Lane::Busy { job, answer },
            Err(_) => Lane::Lost,
        }
    }
}

impl Sink for Jetstream {
    fn class(&self) -> Class {
        self.config.class()
    }

    fn confirms(&self) -> Confirms {
        Confirms::AtPeer
    }

    fn barrier(&mut self, session: &Session, guard: &WriteGuard) -> Result<(), SinkError> {
        // The connection of the session before is closed first.
        self.lanes.remove(&session.partition);
        let mut left = BARRIER_ATTEMPTS;
        let end = loop {
            let mut end = self.open(session)?;
            let Open::Strict(stream) = &mut end.stream else { break end };
            match stream.barrier(|| guard.permit(WriteKind::Sink)) {
                Ok(()) => break end,
                // Placed or not: on a new connection it is looked for first.
                Err(StrictError::Nats(NatsError::Call { .. })) if left > 1 => left -= 1,
                Err(error) => return Err(self.error(session, error)),
            }
        };
        self.lanes.insert(session.partition, Lane::Ready(Box::new(end)));
        Ok(())
    }

    fn read_back(
        &mut self,
        session: &Session,
        since: Option<&Token>,
        _: &WriteGuard,
    ) -> Result<u64, SinkError> {
        let since = since.map(|token| place(token, &self.name)).transpose()?;
        let Some(Lane::Ready(end)) = self.lanes.get_mut(&session.partition) else { return Ok(0) };
        let Open::Strict(stream) = &mut end.stream else { return Ok(0) };
        stream.read_back(since).map_err(|error| sink_error(&self.name, session, error))
    }

    fn fresh_token(&self, session: &Session) -> Option<Token> {
        match self.lanes.get(&session.partition)? {
            Lane::Ready(end) => match &end.stream {
                Open::Strict(stream) => stream.fresh_place().map(token),
                Open::Ids { .. } | Open::Kv { .. } => None,
            },
            Lane::Busy { .. } | Lane::Lost => None,
        }
    }

    fn publish(&mut self, delivery: &Delivery<'_>, guard: &WriteGuard) -> Result<Published, SinkError> {
        let Delivery { session, epoch, first, last, source, outputs, .. } = *delivery;
        let job = Job { session, epoch, first, last, source, count: outputs.len() };
        let lost = || SinkError::Lost { sink: self.name.clone() };
        let mut end = match self.lanes.remove(&session.partition) {
            Some(Lane::Ready(end)) => end,
            Some(Lane::Busy { job: busy, answer }) => match answer.try_recv() {
                Ok((end, done)) if busy == job => {
                    let published = published(delivery, done?);
                    self.lanes.insert(session.partition, Lane::Ready(end));
                    return Ok(published);
                }
                // An epoch that was given up meanwhile.
                Ok((end, _)) => end,
                Err(TryRecvError::Empty) => {
                    self.lanes.insert(session.partition, Lane::Busy { job: busy, answer });
                    return Ok(under_way());
                }
                Err(TryRecvError::Disconnected) => return Err(lost()),
            },
            Some(Lane::Lost) | None => return Err(lost()),
        };
        let mut taken = Vec::with_capacity(outputs.len());
        let mut refused = None;
        for output in outputs {
            match self.message(delivery, output) {
                Ok(message) => taken.push(message),
                Err(reason) => {
                    refused = Some(reason);
                    break;
                }
            }
        }
        match refused {
            Some(reason) if taken.is_empty() => {
                self.lanes.insert(session.partition, Lane::Ready(end));
                let rejected = vec![Rejected { index: 0, reason }];
                return Ok(Published { through: 1, rejected, ..Published::default() });
            }
            _ if taken.is_empty() => {
                let token = end.place().map(token);
                self.lanes.insert(session.partition, Lane::Ready(end));
                return Ok(Published { token, ..Published::all(delivery) });
            }
            _ => {}
        }
        end.session = session;
        let lane = self.start(job, end, taken, guard);
        self.lanes.insert(session.partition, lane);
        Ok(under_way())
    }
}

impl End {
    /// Publishes on a connection that is good; ends it when an answer is missing.
    fn publish(
        &mut self,
        sink: &str,
        job: &Job,
        messages: &[Message],
        guard: &WriteGuard,
    ) -> Result<Done, SinkError> {
        if !self.connected
            && let Err(error) = self.connect(sink)
        {
            return self.doubt(sink, 0, error);
        }
        let permit = || guard.permit(WriteKind::Sink);
        match &mut self.stream {
            Open::Strict(stream) => match stream.publish(job.first, messages, permit) {
                Ok(place) => Ok(Done::Stored(messages.len(), Some(place))),
                Err(StrictError::TooLarge { id, source }) => {
                    let index = messages.iter().position(|message| message.id == id).unwrap_or(0);
                    Ok(Done::Refused(index, source.to_string()))
                }
                Err(error) => self.doubt(sink, 0, error),
            },
            Open::Ids { stream, .. } => {
                let sent = stream.publish(&self.session, messages, permit)?;
                let failed = stream.failed();
                Ok(self.sent(sent, failed, messages.len()))
            }
            Open::Kv { bucket, .. } => match bucket.publish(&self.session, job.source, messages, permit) {
                Ok(sent) => {
                    let failed = bucket.failed();
                    Ok(self.sent(sent, failed, messages.len()))
                }
                Err(KvError::Fenced(fenced)) => Err(fenced.into()),
                Err(KvError::OtherSource { found, .. }) => {
                    let Session { partition, generation: own, .. } = self.session;
                    let sink = sink.to_owned();
                    Err(match found > own {
                        true => SinkError::Newer { sink, partition, found, own },
                        false => SinkError::Regressed { sink, partition, generation: own },
                    })
                }
            },
        }
    }

    fn sent(&mut self, sent: Sent, failed: Vec<Rejected>, all: usize) -> Done {
        let done = match sent {
            Sent::All => Done::Stored(all, None),
            Sent::Refused(done, source) => Done::Refused(done, source.to_string()),
            Sent::Unknown(done, why) => {
                self.connected = false;
                Done::Doubt(done, why)
            }
        };
        if failed.is_empty() { done } else { Done::But(failed, Box::new(done)) }
    }

    fn connect(&mut self, sink: &str) -> Result<(), StrictError> {
        let nats = Nats::connect(&self.endpoint, &self.label)?;
        match &mut self.stream {
            Open::Strict(stream) => stream.reconnect(nats)?,
            Open::Ids { stream, name, subject, window } => {
                **stream = IdStream::open(nats, name, subject, *window)?.unordered(!self.ordered);
            }
            Open::Kv { bucket, name, guarded, window } => {
                **bucket = KvBucket::open(nats, name, *guarded, *window)?.unordered(!self.ordered);
            }
        }
        tracing::info!(sink, partition = %self.session.partition, "connected to NATS again");
        self.connected = true;
        Ok(())
    }

    /// What can be tried again is held back, on a new connection; the rest ends the sink.
    fn doubt(&mut self, sink: &str, done: usize, error: StrictError) -> Result<Done, SinkError> {
        self.connected = false;
        match error {
            StrictError::Nats(NatsError::Call { .. } | NatsError::Connect { .. }) => {
                Ok(Done::Doubt(done, with_causes(&error)))
            }
            error => Err(sink_error(sink, &self.session, error)),
        }
    }

    fn place(&self) -> Option<Place> {
        match &self.stream {
            Open::Strict(stream) => Some(stream.place()),
            Open::Ids { .. } | Open::Kv { .. } => None,
        }
    }
}

fn published(delivery: &Delivery<'_>, done: Done) -> Published {
    match done {
        Done::But(failed, done) => Published { failed, ..published(delivery, *done) },
        Done::Stored(through, place) => {
            Published { through, token: place.map(token), ..Published::default() }
        }
        Done::Refused(index, reason) => {
            let through = (index + 1).min(delivery.outputs.len());
            Published { through, rejected: vec![Rejected { index, reason }], ..Published::default() }
        }
        Done::Doubt(through, reason) => Published {
            through,
            held: Some(Held { after: None, doubtful: true, reason }),
            ..Published::default()
        },
    }
}

fn under_way() -> Published {
    let reason = "the server has not answered yet".to_owned();
    let held = Held { after: Some(Nanos::from_millis(1)), doubtful: false, reason };
    Published { held: Some(held), ..Published::default() }
}

fn sink_error(sink: &str, session: &Session, error: StrictError) -> SinkError {
    let sink = sink.to_owned();
    match error {
        StrictError::Fenced(fenced) => SinkError::Fenced(fenced),
        StrictError::Nats(error) => SinkError::Nats(error),
        StrictError::Newer { found, .. } => {
            SinkError::Newer { sink, partition: session.partition, found, own: session.generation }
        }
        StrictError::SameGeneration { .. } => {
            SinkError::Regressed { sink, partition: session.partition, generation: session.generation }
        }
        error => SinkError::Stream { sink, source: Box::new(error) },
    }
}

/// What failed and why, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn token(place: Place) -> Token {
    let mut bytes = place.created.to_be_bytes().to_vec();
    bytes.extend_from_slice(&place.sequence.to_be_bytes());
    Token(bytes)
}

fn place(token: &Token, sink: &str) -> Result<Place, SinkError> {
    let parts = token.0.split_first_chunk::<16>();
    let parts = parts.and_then(|(created, rest)| Some((created, <[u8; 8]>::try_from(rest).ok()?)));
    let (created, sequence) = parts.ok_or_else(|| SinkError::Token { sink: sink.to_owned() })?;
    Ok(Place { created: i128::from_be_bytes(*created), sequence: u64::from_be_bytes(sequence) })
}

/// Stands for the number of the partition in names.
const PARTITION: &str = "{partition}";
/// Connections on which a barrier is tried.
const BARRIER_ATTEMPTS: u32 = 3;
