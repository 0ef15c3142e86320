//! Messages of one subject of a stream, from one sequence on, read ahead within a bound in bytes (VX-835).
//!
//! The server keeps nothing about us: the consumer is ephemeral, acknowledges nothing, and is made anew from the next message that
//! is needed whenever it is lost or skips one. The consumer counts its messages, so a count that jumps is a message that was lost
//! on the way; the sequences of the stream jump wherever another subject's message is.
//!
//! A consumer goes silently over what was removed before it was asked for it. So what comes first with a request is kept until
//! the stream is known to have had everything between; what comes when the server has no more comes as it is stored, to a
//! request that waits for it.

use std::{collections::VecDeque, time::Duration};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::{Info, Stream},
};
use futures_util::StreamExt;
use thiserror::Error;
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
    /// Nothing was read before: it may begin behind that, where the stream begins by then.
    pub anew: bool,
    /// When the stream was made.
    pub created: i128,
    /// Bytes that may be read ahead.
    pub prefetch: usize,
    /// How often to look how far the stream is while nothing comes.
    pub idle: Duration,
}

/// What a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// When it was made, in nanoseconds since 1970.
    pub created: i128,
    /// Its first message.
    pub first: u64,
    /// Behind its last message.
    pub end: u64,
}

impl Extent {
    /// As the server says.
    pub fn of(info: &Info) -> Self {
        let (first, end) = (info.state.first_sequence.max(1), info.state.last_sequence + 1);
        Self { created: info.created.unix_timestamp_nanos(), first, end }
    }
}

/// Why the message that is needed next cannot be had any more (VX-832, VX-833).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Gap {
    /// The stream has none from there on up to another one: they may have been of this subject.
    #[error("the stream begins at {first}, behind {next}")]
    Trimmed {
        /// The message that is needed.
        next: u64,
        /// The first one that is there.
        first: u64,
    },
    /// The stream ends before it.
    #[error("the stream ends at {end}, before {next}")]
    Cut {
        /// The message that is needed.
        next: u64,
        /// Behind the last one that is there.
        end: u64,
    },
    /// It is another stream of the same name.
    #[error("the stream was made anew; {next} is of another one")]
    Replaced {
        /// The message that is needed.
        next: u64,
    },
}

impl Gap {
    /// What is wrong with a stream of which the message `next` is needed, and which was made at `created`.
    pub fn of(stream: Extent, created: i128, next: u64) -> Option<Self> {
        let Extent { first, end, .. } = stream;
        if stream.created != created {
            return Some(Self::Replaced { next });
        }
        if end < next {
            return Some(Self::Cut { next, end });
        }
        (first > next).then_some(Self::Trimmed { next, first })
    }
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
    /// Why nothing more comes.
    gap: Option<Gap>,
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

    /// Why nothing more comes, when everything before it was taken.
    pub fn gap(&self) -> Option<Gap> {
        let queue = self.shared.lock();
        queue.gap.filter(|_| queue.messages.is_empty())
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

/// How far a subject was read.
#[derive(Debug)]
struct Place {
    /// The message that is needed next, or one before it.
    next: u64,
    /// Nothing was read yet, so nothing is missing before what comes.
    anew: bool,
}

/// A message, and how many the server has behind it.
type Kept = (Pulled, u64);

impl Place {
    /// Looks for a place in what came from here on where messages may be missing, since the stream does not reach back to there
    /// any more; leaves what is before it.
    fn cut(&mut self, stream: Extent, created: i128, kept: &mut Vec<Kept>) -> Option<Gap> {
        let first = match Gap::of(stream, created, self.next)? {
            Gap::Trimmed { first, .. } => first,
            gap => {
                kept.clear();
                return Some(gap);
            }
        };
        let mut next = self.next;
        let hole = kept.iter().position(|(message, _)| {
            let is_behind_hole = next < message.sequence.min(first);
            if !is_behind_hole {
                next = message.sequence + 1;
            }
            is_behind_hole
        });
        if hole.is_none() && !kept.is_empty() {
            return None;
        }
        if self.anew {
            kept.retain(|(message, _)| message.sequence >= first);
            self.next = first;
            return None;
        }
        kept.truncate(hole.unwrap_or(0));
        Some(Gap::Trimmed { next, first })
    }

    /// Gives away messages between which none is missing.
    fn give(&mut self, kept: &mut Vec<Kept>, shared: &Shared, waker: &Waker) {
        for (message, pending) in kept.drain(..) {
            *self = Self { next: message.sequence + 1, anew: false };
            if shared.push(message, pending) {
                waker.wake();
            }
        }
    }
}

/// Reads until nobody wants any more, or what comes next is gone.
async fn pull(stream: Stream, wanted: Wanted, shared: Arc<Shared>, waker: Waker) {
    let mut place = Place { next: wanted.from.max(1), anew: wanted.anew };
    while shared.room(wanted.prefetch).is_some() {
        let consumed = consume(&stream, &wanted, &mut place, &shared, &waker).await;
        let Err(error) = consumed else { return };
        let error = match error.downcast::<Gap>() {
            Ok(gap) => {
                shared.lock().gap = Some(*gap);
                waker.wake();
                return;
            }
            Err(error) => error,
        };
        tracing::warn!(subject = wanted.subject, place.next, %error, "the NATS consumer is made anew");
        shared.lock().remade += 1;
        sleep(PAUSE).await;
    }
}

/// Reads with one consumer until it is lost, what comes next is gone, or nobody wants any more.
async fn consume(
    stream: &Stream,
    wanted: &Wanted,
    place: &mut Place,
    shared: &Shared,
    waker: &Waker,
) -> Result<(), Cause> {
    // Messages of the request that is under way, of which it is not known whether some are missing.
    let mut kept = Vec::new();
    // Gives them away as far as none is; where the stream ends.
    let settle = async |place: &mut Place, kept: &mut Vec<Kept>| -> Result<u64, Cause> {
        let extent = Extent::of(&stream.get_info().await?);
        let gap = place.cut(extent, wanted.created, kept);
        place.give(kept, shared, waker);
        gap.map_or(Ok(extent.end), |gap| Err(gap.into()))
    };
    settle(place, &mut kept).await?;
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: place.next },
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
            // As much as is worth a request and a look at the stream.
            Some(room) if room <= wanted.prefetch / 4 => {
                shared.changed.notified().await;
                continue;
            }
            Some(room) => room,
        };
        let batch = consumer.batch().expires(expires);
        let batch = if unlimited { batch.max_messages(1) } else { batch.max_messages(BATCH).max_bytes(room) };
        let mut batch = batch.messages().await?;
        unlimited = false;
        let mut live = false;
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
            kept.push((Pulled { sequence, time, record }, pending));
            if live {
                place.give(&mut kept, shared, waker);
            } else if pending == 0 {
                settle(place, &mut kept).await?;
                live = true;
            }
        }
        if !kept.is_empty() {
            settle(place, &mut kept).await?;
        }
        if looked.elapsed() >= wanted.idle {
            looked = Instant::now();
            // The stream first: what the consumer knows of it is not older then.
            let end = settle(place, &mut kept).await?;
            let info = consumer.get_info().await?;
            let all_here = info.num_pending == 0 && info.delivered.consumer_sequence == count;
            if all_here && end > place.next {
                *place = Place { next: end, anew: false };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is given of messages that came to a reader of `next`, and the gap behind them, when the stream begins at `first` by
    /// then.
    fn given(next: u64, anew: bool, came: &[u64], first: u64) -> (Vec<u64>, Option<Gap>, u64) {
        let message = |&sequence: &u64| (Pulled { sequence, time: 0, record: Record::default() }, 0);
        let (mut place, mut kept) = (Place { next, anew }, came.iter().map(message).collect());
        let gap = place.cut(Extent { created: 1, first, end: 100 }, 1, &mut kept);
        (kept.iter().map(|(message, _)| message.sequence).collect(), gap, place.next)
    }

    /// Others' messages are between those of a subject, too: a hole is one only where the stream does not reach back to.
    /// Rules: VX-832, VX-835.
    #[test]
    fn messages_are_given_up_to_where_one_may_be_missing() {
        let trimmed = |next, first| Some(Gap::Trimmed { next, first });
        for (came, first, all, gap) in [
            (&[10, 20][..], 10, 2, None),
            (&[12, 20], 10, 2, None),
            // Trimmed when they were here.
            (&[10, 11, 20], 12, 3, None),
            (&[10, 11, 20], 13, 2, trimmed(12, 13)),
            (&[10, 20, 30], 25, 1, trimmed(11, 25)),
            (&[20], 15, 0, trimmed(10, 15)),
            (&[], 10, 0, None),
            (&[], 11, 0, trimmed(10, 11)),
        ] {
            assert_eq!(given(10, false, came, first), (came[..all].to_vec(), gap, 10), "{came:?}, {first}");
        }
        // Who begins where the stream does begins where it does by now.
        for (came, first, given_of, next) in
            [(&[10, 11, 20, 30][..], 25, &[30][..], 25), (&[10, 11], 12, &[10, 11], 10), (&[], 12, &[], 12)]
        {
            assert_eq!(given(10, true, came, first), (given_of.to_vec(), None, next), "{came:?}, {first}");
        }
    }

    /// Rules: VX-833.
    #[test]
    fn a_stream_that_was_made_anew_or_is_shorter_has_nothing_for_a_reader_of_the_old_one() {
        let stream = Extent { created: 1, first: 1, end: 10 };
        assert_eq!(Gap::of(stream, 1, 10), None);
        assert_eq!(Gap::of(stream, 1, 11), Some(Gap::Cut { next: 11, end: 10 }));
        assert_eq!(Gap::of(stream, 0, 5), Some(Gap::Replaced { next: 5 }));
    }
}
