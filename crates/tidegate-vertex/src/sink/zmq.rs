//! Outputs as messages of a ZeroMQ socket: class C, and a confirmation means that the message is in the socket's queue.
//!
//! PUSH takes no more when its queues are full, and the vertex waits. PUB drops what a slow subscriber has no room for.

use serde::Deserialize;
use tidegate_mq::{AnySocket, Context, Message, SocketType};
use tidegate_shm::clock::Nanos;

use super::{Class, Confirms, Delivery, Held, Published, Sink, SinkError, Token};
use crate::{
    config::units::Time,
    fence::{WriteGuard, WriteKind},
    source::zmq::Parts,
};

/// The keys of a sink of kind `zmq`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZmqSink {
    pattern: Pattern,
    #[serde(default)]
    connect: Vec<String>,
    #[serde(default)]
    bind: Vec<String>,
    #[serde(default)]
    parts: Parts,
    #[serde(default = "high_water_mark")]
    high_water_mark: u32,
    /// How long what is queued may take to be sent when the vertex ends.
    #[serde(default = "close_linger")]
    close_linger: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pattern {
    Push,
    Pub,
}

/// A socket that is sent to.
#[derive(Debug)]
pub struct Zmq {
    name: String,
    context: Context,
    socket: AnySocket,
    parts: Parts,
    endpoints: Vec<String>,
}

impl ZmqSink {
    /// Whether its keys fit each other.
    pub(crate) fn check(&self, name: &str) -> Result<(), SinkError> {
        match self.bind.is_empty() && self.connect.is_empty() {
            true => Err(SinkError::NoEndpoint { sink: name.to_owned() }),
            false => Ok(()),
        }
    }
}

impl Zmq {
    /// Binds and connects.
    ///
    /// # Errors
    /// [`SinkError::NoEndpoint`], [`SinkError::Zmq`].
    pub fn open(name: &str, config: &ZmqSink) -> Result<Self, SinkError> {
        config.check(name)?;
        let failed = |source| SinkError::Zmq { sink: name.to_owned(), source: Box::new(source) };
        let context = Context::new();
        let kind = if config.pattern == Pattern::Push { SocketType::Push } else { SocketType::Pub };
        let mut options = context.default_options(kind);
        options.sndhwm = config.high_water_mark;
        options.linger = Some(config.close_linger.0.into());
        let socket = AnySocket::of_type_with(&context, kind, options).map_err(failed)?;
        let mut endpoints = Vec::new();
        for endpoint in &config.bind {
            endpoints.push(socket.bind_blocking(endpoint).map_err(failed)?);
        }
        for endpoint in &config.connect {
            socket.connect(endpoint).map_err(failed)?;
        }
        Ok(Self { name: name.to_owned(), context, socket, parts: config.parts, endpoints })
    }

    /// Where it listens, with the ports that the system chose.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }
}

impl Sink for Zmq {
    fn class(&self) -> Class {
        Class::C
    }

    fn confirms(&self) -> Confirms {
        Confirms::Queued
    }

    fn publish(&mut self, delivery: &Delivery<'_>, guard: &WriteGuard) -> Result<Published, SinkError> {
        for (through, output) in delivery.outputs.iter().enumerate() {
            let mut message = Message::new();
            if self.parts == Parts::KeyValue {
                message.push(output.record.key.clone());
            }
            message.push(output.record.value.clone());
            let permit = guard.permit(WriteKind::Sink)?;
            let sent = self.socket.try_send(message);
            drop(permit);
            let error = match sent {
                Ok(()) => continue,
                Err(refused) => refused.error,
            };
            return match error {
                tidegate_mq::Error::WouldBlock => {
                    let reason = "every peer's queue is full, or there is no peer".to_owned();
                    let held = Held { after: Some(AGAIN), doubtful: false, reason };
                    Ok(Published { through, held: Some(held), ..Published::default() })
                }
                error => Err(SinkError::Zmq { sink: self.name.clone(), source: Box::new(error) }),
            };
        }
        Ok(Published::all(delivery))
    }

    fn flush(&mut self) -> Result<Option<Token>, SinkError> {
        Ok(None)
    }
}

impl Drop for Zmq {
    fn drop(&mut self) {
        let lost = self.context.term_blocking();
        if lost > 0 {
            tracing::error!(
                sink = self.name,
                lost,
                "messages were still queued when the linger time was over"
            );
        }
    }
}

fn high_water_mark() -> u32 {
    1000
}

fn close_linger() -> Time {
    Time(Nanos::from_secs(10))
}

/// When queues that were full are tried again.
const AGAIN: Nanos = Nanos::from_millis(5);
