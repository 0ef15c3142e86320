//! Connections to NATS, for the ends of a vertex that need JetStream.
//!
//! The client library runs on a runtime of its own with one thread; to the rest of the vertex a connection is a value with calls
//! that block up to a deadline. Closing a connection joins that thread, so no byte that the library still holds is sent
//! afterwards (VX-732).

mod endpoint;
pub mod ids;
pub mod kv;
mod message;
pub mod own;
pub mod puller;
pub mod queue;
pub mod strict;

use std::{future::Future, time::Duration};

use async_nats::{
    Client, ConnectOptions, HeaderMap,
    jetstream::{
        self, Context,
        context::{PublishAckFuture, PublishError, PublishErrorKind},
        message::StreamMessage,
        stream::{Info, LastRawMessageErrorKind, Stream},
    },
};
use futures_util::future::join_all;
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};

pub use endpoint::Endpoint;
pub use message::Message;

use crate::config::secret::SecretError;

/// What a library says.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a NATS server cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NatsError {
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// No thread.
    #[error("cannot start a thread for the NATS connection")]
    Thread(#[source] std::io::Error),
    /// Not connected.
    #[error("cannot connect to the NATS server {url}")]
    Connect {
        /// Where it should be.
        url: String,
        /// What the library said.
        source: Cause,
    },
    /// A call that a server did not answer, or refused.
    #[error("the NATS server did not {what} stream {stream}")]
    Call {
        /// What was asked.
        what: &'static str,
        /// About which stream.
        stream: String,
        /// What came back.
        source: Cause,
    },
    /// A stream whose settings break a promise of the vertex.
    #[error("stream {stream} has {key} = {found}; it has to be {expected}")]
    Setting {
        /// The stream.
        stream: String,
        /// The setting, as `nats stream info` calls it.
        key: &'static str,
        /// What it is.
        found: String,
        /// What it has to be.
        expected: String,
    },
}

/// One connection.
#[derive(Debug)]
pub struct Nats {
    client: Client,
    context: Context,
    /// Given back when it is closed.
    runtime: Option<Runtime>,
}

/// A message of a stream and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Place in the stream.
    pub sequence: u64,
    /// Its id; empty without one.
    pub id: String,
    /// Generation of the session that wrote it.
    pub generation: Option<u64>,
    /// Nonce of the session that wrote it.
    pub nonce: Option<u64>,
    /// Position of the input it came from.
    pub position: Option<u64>,
    /// Which source the position is of.
    pub source: Option<u64>,
    /// What was done to a key, other than giving it a value.
    pub operation: Option<String>,
    /// The value.
    pub value: Vec<u8>,
    /// When the server stored it, in nanoseconds since 1970.
    pub time: i128,
}

/// What the server made of a message.
#[derive(Debug)]
pub enum Published {
    /// Stored at this place of the stream.
    Stored(u64),
    /// Not stored, because its id was seen before; at this place then.
    Duplicate(u64),
    /// Not stored: it came behind another message than it said.
    Refused,
    /// Not stored, because it is longer than the server or the stream takes.
    TooLarge(Cause),
    /// Refused for another reason.
    Rejected(Cause),
    /// No answer: stored or not.
    Unknown,
}

impl Nats {
    /// Connects. `name` is what the server's monitoring shows.
    ///
    /// # Errors
    /// [`NatsError::Secret`], [`NatsError::Thread`], [`NatsError::Connect`].
    pub fn connect(endpoint: &Endpoint, name: &str) -> Result<Self, NatsError> {
        Self::connect_with(endpoint, name, CALL)
    }

    /// As [`Nats::connect`], with a time of its own that the server may take for an answer.
    ///
    /// # Errors
    /// As [`Nats::connect`].
    pub fn connect_with(endpoint: &Endpoint, name: &str, call: Duration) -> Result<Self, NatsError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .thread_name("nats")
            .enable_all()
            .build()
            .map_err(NatsError::Thread)?;
        let options = endpoint.options(ConnectOptions::new())?;
        let options = options.name(name).connection_timeout(CALL).request_timeout(Some(call));
        let connected = runtime.block_on(options.connect(endpoint.url.as_str()));
        let client = connected
            .map_err(|error| NatsError::Connect { url: endpoint.shown_url(), source: error.into() })?;
        // The library starts a task of its own here.
        let entered = runtime.enter();
        let context =
            jetstream::context::ContextBuilder::new().timeout(call).ack_timeout(call).build(client.clone());
        drop(entered);
        Ok(Self { client, context, runtime: Some(runtime) })
    }

    /// Waits for a call of the library.
    pub fn wait<F: Future>(&self, call: F) -> Option<F::Output> {
        self.runtime.as_ref().map(|runtime| runtime.block_on(call))
    }

    /// The library's handle.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The connection itself.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs a call beside the vertex until it ends or the connection is closed.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(task);
        }
    }

    /// A stream and what it is.
    ///
    /// # Errors
    /// [`NatsError::Call`].
    pub fn stream(&self, name: &str) -> Result<(Stream, Info), NatsError> {
        let call = async {
            let stream = self.context.get_stream(name).await?;
            let info = stream.cached_info().clone();
            Ok::<_, Cause>((stream, info))
        };
        self.answered("describe", name, call)
    }

    /// The message at a place of a stream, from the stream's leader; `None` if there is none any more.
    ///
    /// # Errors
    /// [`NatsError::Call`].
    pub fn message_at(&self, stream: &Stream, sequence: u64) -> Result<Option<Stored>, NatsError> {
        let name = stream.cached_info().config.name.clone();
        self.answered("read", &name, async {
            found(stream.get_raw_message(sequence).await, |error| error.kind())
        })
    }

    /// The last message of a subject, from the stream's leader.
    ///
    /// # Errors
    /// [`NatsError::Call`].
    pub fn last_of(&self, stream: &Stream, subject: &str) -> Result<Option<Stored>, NatsError> {
        let name = stream.cached_info().config.name.clone();
        self.answered("read", &name, async {
            found(stream.get_last_raw_message_by_subject(subject).await, |error| error.kind())
        })
    }

    /// The last message of each subject, from the stream's leader.
    ///
    /// # Errors
    /// [`NatsError::Call`].
    pub fn last_of_each(
        &self,
        stream: &Stream,
        subjects: &[String],
    ) -> Result<Vec<Option<Stored>>, NatsError> {
        let name = stream.cached_info().config.name.clone();
        self.answered("read", &name, async {
            let read = |subject: &String| {
                let subject = subject.clone();
                async move {
                    found(stream.get_last_raw_message_by_subject(&subject).await, |error| error.kind())
                }
            };
            join_all(subjects.iter().map(read)).await.into_iter().collect()
        })
    }

    /// Publishes messages to a subject, all of them before the first answer; what became of each.
    pub fn publish(&self, subject: &str, messages: Vec<(HeaderMap, Vec<u8>)>) -> Vec<Published> {
        let to_subject = |(headers, value)| (subject.to_owned(), headers, value);
        self.publish_each(messages.into_iter().map(to_subject).collect())
    }

    /// As [`Nats::publish`], each to a subject of its own.
    pub fn publish_each(&self, messages: Vec<(String, HeaderMap, Vec<u8>)>) -> Vec<Published> {
        let count = messages.len();
        let call = async {
            let mut sent: Vec<Result<PublishAckFuture, PublishError>> = Vec::with_capacity(count);
            for (subject, headers, value) in messages {
                let message =
                    jetstream::message::PublishMessage::build().headers(headers).payload(value.into());
                sent.push(self.context.send_publish(subject, message).await);
            }
            // Together, so that all of them have one deadline.
            join_all(sent.into_iter().map(|answer| async move {
                match answer {
                    Ok(answer) => outcome(answer.await),
                    Err(error) => outcome(Err(error)),
                }
            }))
            .await
        };
        // On a connection that was closed nothing was sent, and nothing is known of what was before.
        self.wait(call).unwrap_or_else(|| (0..count).map(|_| Published::Unknown).collect())
    }

    /// Publishes under a permit. When an answer is missing, the library may still hold the bytes and send them later: the
    /// connection is closed and its thread joined before the permit ends (VX-732), and every later call fails.
    pub fn publish_under<P>(
        &mut self,
        permit: P,
        messages: Vec<(String, HeaderMap, Vec<u8>)>,
    ) -> Vec<Published> {
        let outcomes = self.publish_each(messages);
        if outcomes.iter().any(|outcome| matches!(outcome, Published::Unknown)) {
            self.close();
        }
        drop(permit);
        outcomes
    }

    fn close(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Its tasks never block, so they end at once; a look-up of a name may not.
            runtime.shutdown_timeout(CALL);
        }
    }

    fn answered<T>(
        &self,
        what: &'static str,
        stream: &str,
        call: impl Future<Output = Result<T, Cause>>,
    ) -> Result<T, NatsError> {
        let failed = |source| NatsError::Call { what, stream: stream.to_owned(), source };
        match self.wait(call) {
            Some(answer) => answer.map_err(failed),
            None => Err(failed("the connection was closed".into())),
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.close();
    }
}

fn outcome(answer: Result<jetstream::publish::PublishAck, PublishError>) -> Published {
    match answer {
        Ok(ack) if ack.duplicate => Published::Duplicate(ack.sequence),
        Ok(ack) => Published::Stored(ack.sequence),
        Err(error) => match error.kind() {
            PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => Published::Refused,
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => Published::Unknown,
            PublishErrorKind::MaxPayloadExceeded => Published::TooLarge(Box::new(error)),
            _ if server_code(&error) == Some(MESSAGE_TOO_LARGE) => Published::TooLarge(Box::new(error)),
            _ => Published::Rejected(Box::new(error)),
        },
    }
}

/// The number of the server's error, if it is one.
fn server_code(error: &PublishError) -> Option<u64> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<jetstream::Error>().map(|error| error.error_code().0)
}

fn found<E: std::error::Error + Send + Sync + 'static>(
    answer: Result<StreamMessage, E>,
    kind: impl Fn(&E) -> LastRawMessageErrorKind,
) -> Result<Option<Stored>, Cause> {
    match answer {
        Ok(message) => Ok(Some(stored(message))),
        Err(error) if matches!(kind(&error), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
        Err(error) => Err(Box::new(error)),
    }
}

fn stored(message: StreamMessage) -> Stored {
    let header = |name: &str| message.headers.get(name).map(|value| value.as_str().to_owned());
    Stored {
        sequence: message.sequence,
        id: header(MSG_ID).unwrap_or_default(),
        generation: header(GENERATION).and_then(|text| text.parse().ok()),
        nonce: header(NONCE).and_then(|text| u64::from_str_radix(&text, 16).ok()),
        position: header(POSITION).and_then(|text| text.parse().ok()),
        source: header(SOURCE).and_then(|text| u64::from_str_radix(&text, 16).ok()),
        operation: header(KV_OPERATION),
        time: message.time.unix_timestamp_nanos(),
        value: message.payload.to_vec(),
    }
}

/// How long a server may take for an answer.
const CALL: Duration = Duration::from_secs(5);

/// "message size exceeds maximum allowed"
const MESSAGE_TOO_LARGE: u64 = 10054;

pub(crate) const MSG_ID: &str = "Nats-Msg-Id";
pub(crate) const EXPECTED_LAST_ID: &str = "Nats-Expected-Last-Msg-Id";
pub(crate) const EXPECTED_LAST_SEQUENCE: &str = "Nats-Expected-Last-Sequence";
pub(crate) const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
const KV_OPERATION: &str = "KV-Operation";
pub(crate) const GENERATION: &str = "Tg-Generation";
pub(crate) const NONCE: &str = "Tg-Nonce";
pub(crate) const EPOCH: &str = "Tg-Epoch";
pub(crate) const POSITION: &str = "Tg-Position";
pub(crate) const SOURCE: &str = "Tg-Source";
