//! Messages of a ZeroMQ socket as records: PULL or SUB. Nothing can be read again: what was received and is not committed is
//! lost when the runtime dies, and positions are of this run.
//!
//! | `parts` | a message of | is |
//! |---|---|---|
//! | `value` | one part | the value |
//! | `key value` | two parts | key (of SUB, the topic) and value |
//!
//! A message with another number of parts is left out and counted.

use std::thread;

use serde::Deserialize;
use tidegate_mq::{AnySocket, Context, Message, SocketType};
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    sync::{Arc, AtomicU64, Ordering},
};
use tidegate_udf::{
    pace::Pace,
    wire::ids::{PartitionId, Position},
};

use super::{
    Abilities, AckMode, Budget, Identity, Polled, Positions, Replay, Resume, Source, SourceError,
    ahead::{Ahead, Feed, ahead, first_of_run},
};
use crate::{
    batch::{Input, Record},
    config::units::Bytes,
    wake::Waker,
};

/// The keys of a source of kind `zmq`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZmqSource {
    pattern: Pattern,
    #[serde(default)]
    connect: Vec<String>,
    #[serde(default)]
    bind: Vec<String>,
    /// Beginnings of what SUB wants; everything by default.
    #[serde(default = "everything")]
    topics: Vec<String>,
    #[serde(default)]
    parts: Parts,
    #[serde(default = "high_water_mark")]
    high_water_mark: u32,
    #[serde(default = "prefetch")]
    prefetch: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pattern {
    Pull,
    Sub,
}

impl ZmqSource {
    /// Whether its keys fit each other.
    pub(crate) fn check(&self) -> Result<(), SourceError> {
        match self.bind.is_empty() && self.connect.is_empty() {
            true => Err(SourceError::NoEndpoint),
            false => Ok(()),
        }
    }

    /// Bytes that are read ahead.
    pub(crate) fn prefetch(&self) -> u64 {
        self.prefetch.0
    }
}

/// What the parts of a message are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Parts {
    /// One part.
    #[default]
    #[serde(rename = "value")]
    Value,
    /// Two parts.
    #[serde(rename = "key value")]
    KeyValue,
}

/// What it can do.
pub const ABILITIES: Abilities =
    Abilities { positions: Positions::PerRun, replay: Replay::No, ack: AckMode::None, ordered: true };

/// A socket that is received from.
#[derive(Debug)]
pub struct Zmq {
    ahead: Ahead,
    first: Position,
    left_out: Arc<AtomicU64>,
    context: Context,
    endpoints: Vec<String>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Zmq {
    /// Binds and connects, and begins to receive.
    ///
    /// # Errors
    /// [`SourceError::NoEndpoint`], [`SourceError::Zmq`].
    pub fn open(config: &ZmqSource, waker: Waker) -> Result<Self, SourceError> {
        config.check()?;
        let context = Context::new();
        let failed = |source| SourceError::Zmq(Box::new(source));
        let kind = if config.pattern == Pattern::Pull { SocketType::Pull } else { SocketType::Sub };
        let mut options = context.default_options(kind);
        options.rcvhwm = config.high_water_mark;
        let socket = AnySocket::of_type_with(&context, kind, options).map_err(failed)?;
        if config.pattern == Pattern::Sub {
            for topic in &config.topics {
                socket.subscribe(topic).map_err(failed)?;
            }
        }
        let mut endpoints = Vec::new();
        for endpoint in &config.bind {
            endpoints.push(socket.bind_blocking(endpoint).map_err(failed)?);
        }
        for endpoint in &config.connect {
            socket.connect(endpoint).map_err(failed)?;
        }
        let (feed, ahead) = ahead(config.prefetch.0 as usize, waker);
        let first = first_of_run()?;
        let left_out = Arc::new(AtomicU64::new(0));
        let (parts, count) = (config.parts, left_out.clone());
        let work = move || receive(&socket, parts, first, feed, &count);
        let thread =
            thread::Builder::new().name("zmq source".to_owned()).spawn(work).map_err(SourceError::Start)?;
        Ok(Self { ahead, first, left_out, context, endpoints, thread: Some(thread) })
    }

    /// Where it listens, with the ports that the system chose.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }
}

impl Source for Zmq {
    fn abilities(&self) -> Abilities {
        ABILITIES
    }

    fn partitions(&self) -> u32 {
        1
    }

    fn open(&mut self, _: PartitionId, _: Option<&Resume>) -> Result<Position, SourceError> {
        // Wherever the last run came to: it cannot come again.
        Ok(self.first)
    }

    fn poll(&mut self, _: PartitionId, max: Budget) -> Result<Polled, SourceError> {
        self.ahead.poll(max)
    }

    fn identity(&mut self, _: PartitionId, _: Position) -> Result<Identity, SourceError> {
        Ok(Identity::default())
    }

    fn pending(&self, _: PartitionId) -> Option<u64> {
        Some(self.ahead.len())
    }

    fn ahead(&self) -> Option<u64> {
        Some(self.ahead.bytes())
    }

    fn left_out(&self) -> u64 {
        // Relaxed: a number for people.
        self.left_out.load(Ordering::Relaxed)
    }
}

impl Drop for Zmq {
    fn drop(&mut self) {
        // Nobody takes any more, so the thread does not wait for room; and it is told to receive no more.
        let (_, closed) = ahead(0, Waker::new(|| {}));
        drop(std::mem::replace(&mut self.ahead, closed));
        self.context.term_blocking();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Receives until the context ends.
fn receive(socket: &AnySocket, parts: Parts, first: Position, feed: Feed, left_out: &AtomicU64) {
    let mut position = first.0;
    let mut pace = Pace::new(1, SAY_INTERVAL);
    let why = loop {
        let message = match socket.recv_blocking() {
            Ok(message) => message,
            Err(tidegate_mq::Error::Terminated | tidegate_mq::Error::Closed) => break None,
            Err(error) => break Some(SourceError::Zmq(Box::new(error))),
        };
        let Some(record) = record(&message, parts) else {
            // Relaxed: a number for people.
            let count = left_out.fetch_add(1, Ordering::Relaxed) + 1;
            if pace.take(monotonic_now()).is_some() {
                let parts = message.parts().len();
                tracing::warn!(parts, count, "messages with another number of parts are left out");
            }
            continue;
        };
        let input = Input { position: Position(position), next: Position(position + 1), record };
        position += 1;
        if !feed.push(input) {
            return;
        }
    };
    feed.end(why);
}

fn record(message: &Message, parts: Parts) -> Option<Record> {
    match (parts, message.parts()) {
        (Parts::Value, [value]) => Some(Record::of(value.to_vec())),
        (Parts::KeyValue, [key, value]) => {
            Some(Record { key: key.to_vec().into(), ..Record::of(value.to_vec()) })
        }
        _ => None,
    }
}

/// Between two lines of the log about messages that were left out.
const SAY_INTERVAL: Nanos = Nanos::from_secs(10);

fn everything() -> Vec<String> {
    vec![String::new()]
}

fn high_water_mark() -> u32 {
    1000
}

fn prefetch() -> Bytes {
    Bytes(32 << 20)
}
