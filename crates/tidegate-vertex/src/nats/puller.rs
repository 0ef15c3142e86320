//! Messages of one subject of a stream, from one sequence on, read ahead within a bound in bytes (VX-835).
//!
//! The server keeps nothing about us: the consumer is ephemeral, acknowledges nothing, and is made anew from the next message that
//! is needed whenever it is lost or skips one. The consumer counts its messages, so a count that jumps is a message that was lost
//! on the way; the sequences of the stream jump wherever another subject's message is.

use std::{collections::VecDeque, time::Duration};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::Stream,
};
use futures_util::StreamExt;
use tidegate_shm::sync::{Arc, Mutex, MutexGuard};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{Cause, Nats, message::record};
use crate::{batch::Record, wake::Waker};

/// A message that was read ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its place in the stream.
    pub sequence: u64,
    /// When the server stored it, in nanoseconds since 1970.
    pub time: i128,
    /// What it holds.
    pub record: Record,
}

/// What to pull.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The subject, with wildcards.
    pub subject: String,
    /// The first message, or one before it.
    pub from: u64,
    /// Bytes that may be read ahead.
    pub prefetch: usize,
    /// How often to look how far the stream is while nothing comes.
    pub idle: Duration,
}

/// One subject, read ahead. Ends when it is dropped.
#[derive(Debug)]
pub struct Puller {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is room again, or nobody wants anything any more.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Pulled>,
    bytes: usize,
    /// Messages of the subject that the server has behind those here.
    pending: Option<u64>,
    /// All messages of the subject below this one were here.
    complete: u64,
    /// Consumers that were made anew.
    remade: u64,
    closed: bool,
}

impl Puller {
    /// Begins to read; `waker` is called when there is something.
    pub fn start(nats: &Nats, stream: Stream, wanted: Wanted, waker: Waker) -> Self {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Notify::new() });
        nats.spawn(pull(stream, wanted, shared.clone(), waker));
        Self { shared }
    }

    /// The next message, if `accept` takes it.
    pub fn next_if(&self, accept: impl FnOnce(&Pulled) -> bool) -> Option<Pulled> {
        let mut queue = self.shared.lock();
        if !accept(queue.messages.front()?) {
            return None;
        }
        let message = queue.messages.pop_front()?;
        queue.bytes = queue.bytes.saturating_sub(message.record.len());
        drop(queue);
        self.shared.changed.notify_one();
        Some(message)
    }

    /// Messages that were not taken yet, here and at the server.
    pub fn pending(&self) -> Option<u64> {
        let queue = self.shared.lock();
        queue.pending.map(|pending| pending + queue.messages.len() as u64)
    }

    /// Bytes that were read ahead and not taken yet.
    pub fn bytes(&self) -> usize {
        self.shared.lock().bytes
    }

    /// A place of the stream below which nothing is left to take, if that is known of one: others than this subject's are there.
    pub fn complete(&self) -> Option<u64> {
        let queue = self.shared.lock();
        let is_taken = queue.messages.front().is_none_or(|front| front.sequence >= queue.complete);
        (is_taken && queue.complete > 0).then_some(queue.complete)
    }

    /// How often the consumer was lost and made anew.
    pub fn remade(&self) -> u64 {
        self.shared.lock().remade
    }
}

impl Drop for Puller {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    /// The queue is whole at every moment, whoever panicked with the lock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Bytes that may still be read; `None` when nobody wants any.
    fn room(&self, prefetch: usize) -> Option<usize> {
        let queue = self.lock();
        (!queue.closed).then(|| prefetch.saturating_sub(queue.bytes))
    }

    fn push(&self, message: Pulled, pending: u64) -> bool {
        let mut queue = self.lock();
        queue.bytes += message.record.len();
        queue.messages.push_back(message);
        queue.pending = Some(pending);
        queue.messages.len() == 1
    }
}

/// Reads until nobody wants any more.
async fn pull(stream: Stream, wanted: Wanted, shared: Arc<Shared>, waker: Waker) {
    let mut next = wanted.from.max(1);
    while shared.room(wanted.prefetch).is_some() {
        if let Err(error) = consume(&stream, &wanted, &mut next, &shared, &waker).await {
            tracing::warn!(subject = wanted.subject, next, %error, "the NATS consumer is made anew");
            shared.lock().remade += 1;
            sleep(PAUSE).await;
        }
    }
}

/// Reads with one consumer until it is lost or nobody wants any more.
async fn consume(
    stream: &Stream,
    wanted: &Wanted,
    next: &mut u64,
    shared: &Shared,
    waker: &Waker,
) -> Result<(), Cause> {
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: *next },
        ack_policy: AckPolicy::None,
        filter_subject: wanted.subject.clone(),
        inactive_threshold: INACTIVE,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let expires = EXPIRES.min(wanted.idle);
    let mut looked = Instant::now();
    let mut count = 0;
    // After a message that is longer than the room there was, one goes without a limit.
    let mut unlimited = false;
    loop {
        let room = match shared.room(wanted.prefetch) {
            None => return Ok(()),
            Some(0) => {
                shared.changed.notified().await;
                continue;
            }
            Some(room) => room,
        };
        let batch = consumer.batch().expires(expires);
        let batch = if unlimited { batch.max_messages(1) } else { batch.max_messages(BATCH).max_bytes(room) };
        let mut batch = batch.messages().await?;
        unlimited = false;
        loop {
            let message = tokio::select! {
                message = batch.next() => message,
                () = shared.changed.notified() => {
                    if shared.lock().closed { return Ok(()) }
                    continue;
                }
            };
            let Some(message) = message else { break };
            let message = match message {
                Ok(message) => message,
                Err(error) if error.to_string().contains("MaxBytes") => {
                    unlimited = true;
                    break;
                }
                Err(error) => return Err(error),
            };
            let info = message.info()?;
            count += 1;
            if info.consumer_sequence != count {
                return Err(format!("message {count} of the consumer is missing").into());
            }
            let (sequence, time, pending) =
                (info.stream_sequence, info.published.unix_timestamp_nanos(), info.pending);
            let record = record(message.payload.to_vec(), message.headers.as_ref());
            if shared.push(Pulled { sequence, time, record }, pending) {
                waker.wake();
            }
            *next = sequence + 1;
        }
        if looked.elapsed() >= wanted.idle {
            looked = Instant::now();
            // The stream first: what the consumer knows of it is not older then.
            let end = stream.get_info().await?.state.last_sequence + 1;
            let info = consumer.get_info().await?;
            let all_here = info.num_pending == 0 && info.delivered.consumer_sequence == count;
            if all_here && end > *next {
                *next = end;
                shared.lock().complete = end;
                waker.wake();
            }
        }
    }
}

/// How long the server waits for messages before it ends a request.
const EXPIRES: Duration = Duration::from_secs(10);
/// How long the server keeps a consumer that nobody asks.
const INACTIVE: Duration = Duration::from_secs(60);
/// Between two consumers.
const PAUSE: Duration = Duration::from_millis(100);
/// Messages of one request.
const BATCH: usize = 1_000;
