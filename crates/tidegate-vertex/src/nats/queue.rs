//! Messages of a durable consumer, which readers share and acknowledge one by one (VX-837).
//!
//! ```text
//!  asked --pull--> ready --take--> taken --done--> unconfirmed --the server says so--> forgotten
//!                    |               |
//!                    +---- nack -----+--> given back
//! ```
//!
//! Nothing is pulled that was not asked for, so nothing waits here while its time runs out at the server; what is here is kept
//! from being delivered again by a signal every third of that time. An acknowledgement counts when the server has confirmed it,
//! and is repeated until then, with a permit for each attempt.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use async_nats::{
    Client, Subject,
    jetstream::{
        consumer::{AckPolicy, Consumer, Info, pull},
        stream::Stream,
    },
};
use futures_util::{StreamExt, future::join_all};
use tidegate_shm::sync::{Arc, Mutex, MutexGuard};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{Cause, Nats, NatsError, message::record, puller::Pulled};
use crate::{
    fence::{WriteGuard, WriteKind, WritePermit},
    wake::Waker,
};

/// Which consumer, and what it has to allow.
#[derive(Debug, Clone)]
pub struct Shares {
    /// Its durable name.
    pub consumer: String,
    /// What it delivers; everything in the stream when empty.
    pub subject: String,
    /// How long a message may be silent before it is delivered again; of a consumer that is there, its own counts.
    pub ack_wait: Duration,
    /// Messages that it may have under way, at least.
    pub max_ack_pending: i64,
}

/// The messages of one reader. Ends when it is dropped.
#[derive(Debug)]
pub struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    state: Mutex<State>,
    /// Something was asked for, or nobody wants anything any more.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Records and bytes that there is room for.
    asked: Option<(usize, usize)>,
    ready: VecDeque<(Pulled, Subject)>,
    /// In the order in which they were taken.
    taken: VecDeque<Taken>,
    unconfirmed: BTreeMap<u64, Subject>,
    /// Messages that the server has behind those here.
    pending: Option<u64>,
    /// What was pulled is given back.
    closed: bool,
}

/// A message that was taken and is not done.
#[derive(Debug)]
struct Taken {
    sequence: u64,
    /// Where the acknowledgement goes.
    reply: Subject,
    /// It goes back instead when those before it are done, to come again after so long. Not earlier: while it has a place in the
    /// order it must not come a second time.
    back: Option<Duration>,
}

impl Queue {
    /// Finds the consumer or makes it, and begins to read what is asked for; `waker` is called when it is there.
    ///
    /// # Errors
    /// [`NatsError::Setting`] when the consumer could lose messages or holds back too many.
    pub fn start(nats: &Nats, stream: &Stream, shares: &Shares, waker: Waker) -> Result<Self, NatsError> {
        let name = stream.cached_info().config.name.clone();
        let config = pull::Config {
            durable_name: Some(shares.consumer.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: shares.ack_wait,
            max_ack_pending: shares.max_ack_pending,
            filter_subject: shares.subject.clone(),
            ..pull::Config::default()
        };
        let consumer = nats.answered("give a consumer of", &name, async {
            // One that is there is left as it is, and looked at; of one that pushes there is only what it is.
            match stream.consumer_info(&shares.consumer).await {
                Ok(info) => {
                    check(&name, &info, shares)?;
                    Ok(stream.get_consumer(&shares.consumer).await?)
                }
                Err(_) => Ok(stream.create_consumer(config).await?),
            }
        });
        let consumer: Consumer<pull::Config> = match consumer {
            Err(NatsError::Call { what, stream, source }) => match source.downcast::<NatsError>() {
                Ok(setting) => return Err(*setting),
                Err(source) => return Err(NatsError::Call { what, stream, source }),
            },
            other => other?,
        };
        let ack_wait = consumer.cached_info().config.ack_wait;
        let (client, state) = (nats.client(), Mutex::default());
        let shared = Arc::new(Shared { client, state, changed: Notify::new() });
        nats.spawn(pull(consumer, shared.clone(), waker));
        nats.spawn(keep(shared.clone(), ack_wait / 3));
        Ok(Self { shared })
    }

    /// Says how many records of how many bytes there is room for; what was asked for before counts no more.
    pub fn ask(&self, records: usize, bytes: usize) {
        self.shared.lock().asked = Some((records, bytes));
        self.shared.changed.notify_one();
    }

    /// The next message, if `accept` takes it.
    pub fn next_if(&self, accept: impl FnOnce(&Pulled) -> bool) -> Option<Pulled> {
        let mut state = self.shared.lock();
        if !accept(&state.ready.front()?.0) {
            return None;
        }
        let (message, reply) = state.ready.pop_front()?;
        state.taken.push_back(Taken { sequence: message.sequence, reply, back: None });
        Some(message)
    }

    /// Messages that were not taken yet, here and at the server.
    pub fn pending(&self) -> Option<u64> {
        let state = self.shared.lock();
        state.pending.map(|pending| pending + state.ready.len() as u64)
    }

    /// Acknowledges what was taken, up to this message, until the server has confirmed it or the guard is revoked; gives back what
    /// of it is to go back.
    pub fn done(&self, nats: &Nats, last: u64, guard: &WriteGuard) {
        let Ok(permit) = guard.permit(WriteKind::Source) else { return };
        let mut state = self.shared.lock();
        let Some(index) = state.taken.iter().position(|taken| taken.sequence == last) else { return };
        let (mut batch, mut back) = (Vec::new(), Vec::new());
        for Taken { sequence, reply, back: delay } in state.taken.drain(..=index) {
            match delay {
                None => batch.push((sequence, reply)),
                Some(delay) => back.push((reply, delay)),
            }
        }
        state.unconfirmed.extend(batch.iter().cloned());
        drop(state);
        let shared = self.shared.clone();
        nats.spawn(async move {
            for (reply, delay) in back {
                if let Err(error) = shared.send(reply, nak(delay)).await {
                    tracing::debug!(%error, "what was given back is delivered again when its time is over");
                }
            }
        });
        nats.spawn(confirm(self.shared.clone(), batch, permit, guard.clone()));
    }

    /// This message, if it was taken and is not done, goes back when [`Queue::done`] comes to it.
    pub fn give_one_back(&self, sequence: u64, delay: Duration) {
        let mut state = self.shared.lock();
        if let Some(taken) = state.taken.iter_mut().find(|taken| taken.sequence == sequence) {
            taken.back = Some(delay);
        }
    }

    /// Gives back everything that is not done, as far as that is possible at once (VX-742).
    pub fn give_back(&self, nats: &Nats, delay: Duration) {
        let mut state = self.shared.lock();
        state.closed = true;
        let ready: Vec<Subject> = state.ready.drain(..).map(|(_, reply)| reply).collect();
        let back: Vec<Subject> = state.taken.drain(..).map(|taken| taken.reply).chain(ready).collect();
        drop(state);
        self.shared.changed.notify_one();
        let said = async {
            for reply in back {
                self.shared.send(reply, nak(delay)).await?;
            }
            self.shared.client.flush().await.map_err(Cause::from)
        };
        let said = nats.wait(async { timeout(AT_ONCE, said).await });
        if !matches!(said, Some(Ok(Ok(())))) {
            tracing::debug!("what was read is delivered again when its time is over");
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    /// The state is whole at every moment, whoever panicked with the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn send(&self, reply: Subject, word: String) -> Result<(), Cause> {
        Ok(self.client.publish(reply, word.into()).await?)
    }

    /// Keeps a message that came; where it has to go back to if nobody wants it any more.
    fn push(&self, message: Pulled, reply: Subject, pending: u64) -> Option<Subject> {
        let mut state = self.lock();
        if state.closed {
            return Some(reply);
        }
        state.pending = Some(pending);
        let sequence = message.sequence;
        // Delivered again while it is here: once is enough, and the newest delivery is the one to acknowledge.
        if let Some(known) = state.taken.iter_mut().find(|taken| taken.sequence == sequence) {
            known.reply = reply;
        } else if let Some((_, known)) = state.ready.iter_mut().find(|(known, _)| known.sequence == sequence)
        {
            *known = reply;
        } else if let Some(known) = state.unconfirmed.get_mut(&sequence) {
            *known = reply;
        } else {
            state.ready.push_back((message, reply));
        }
        None
    }
}

/// Pulls what is asked for until nobody wants any more.
async fn pull(consumer: Consumer<pull::Config>, shared: Arc<Shared>, waker: Waker) {
    loop {
        let (asked, closed) = {
            let state = shared.lock();
            (state.asked, state.closed)
        };
        if closed {
            return;
        }
        let Some((records, bytes)) = asked else {
            shared.changed.notified().await;
            continue;
        };
        match fetch(&consumer, records, bytes, &shared).await {
            Ok(0) => {}
            Ok(_) => {
                shared.lock().asked = None;
                waker.wake();
            }
            Err(error) => {
                tracing::warn!(%error, "the NATS consumer does not answer");
                // What came before that is there, and is asked for no more.
                shared.lock().asked = None;
                waker.wake();
                sleep(PAUSE).await;
            }
        }
    }
}

/// Waits for one message, and takes what is there behind it; how many came.
async fn fetch(
    consumer: &Consumer<pull::Config>,
    records: usize,
    bytes: usize,
    shared: &Shared,
) -> Result<usize, Cause> {
    let (mut count, mut room) = (0, bytes);
    let mut first = consumer.batch().max_messages(1).expires(EXPIRES).messages().await?;
    while let Some(message) = first.next().await {
        room = room.saturating_sub(take(message?, shared).await?);
        count += 1;
    }
    if count == 0 || records < 2 || room == 0 {
        return Ok(count);
    }
    let mut rest = consumer.fetch().max_messages(records - 1).max_bytes(room).messages().await?;
    while let Some(message) = rest.next().await {
        let message = match message {
            Ok(message) => message,
            // The next one is longer than the room that is left.
            Err(error) if error.to_string().contains("MaxBytes") => break,
            Err(error) => return Err(error),
        };
        take(message, shared).await?;
        count += 1;
    }
    Ok(count)
}

/// Keeps a message; its bytes.
async fn take(message: async_nats::jetstream::Message, shared: &Shared) -> Result<usize, Cause> {
    let info = message.info()?;
    let (sequence, time, pending) =
        (info.stream_sequence, info.published.unix_timestamp_nanos(), info.pending);
    let reply = message.reply.clone().ok_or("a message without a place for its acknowledgement")?;
    let record = record(message.payload.to_vec(), message.headers.as_ref());
    let len = record.len();
    if let Some(reply) = shared.push(Pulled { sequence, time, record }, reply, pending) {
        shared.send(reply, nak(Duration::ZERO)).await?;
    }
    Ok(len)
}

/// Tells the server at intervals that what is here is worked on.
async fn keep(shared: Arc<Shared>, every: Duration) {
    loop {
        sleep(every).await;
        let held: Vec<Subject> = {
            let state = shared.lock();
            if state.closed && state.unconfirmed.is_empty() {
                return;
            }
            let ready = state.ready.iter().map(|(_, reply)| reply);
            let taken = state.taken.iter().map(|taken| &taken.reply);
            ready.chain(taken).chain(state.unconfirmed.values()).cloned().collect()
        };
        for reply in held {
            if let Err(error) = shared.send(reply, PROGRESS.to_owned()).await {
                tracing::debug!(%error, "the NATS server is not told what is worked on");
                break;
            }
        }
    }
}

/// Acknowledges messages until each is confirmed, with a permit for each attempt.
async fn confirm(
    shared: Arc<Shared>,
    mut batch: Vec<(u64, Subject)>,
    permit: WritePermit,
    guard: WriteGuard,
) {
    let mut permit = Some(permit);
    while let Some(attempt) = permit.take().or_else(|| guard.permit(WriteKind::Source).ok()) {
        let mut left = Vec::new();
        let mut why = None;
        for window in batch.chunks(WINDOW) {
            // The newest delivery, if there was another one since.
            let replies: Vec<(u64, Subject)> = {
                let state = shared.lock();
                let newest = |(sequence, reply): &(u64, Subject)| {
                    (*sequence, state.unconfirmed.get(sequence).unwrap_or(reply).clone())
                };
                window.iter().map(newest).collect()
            };
            // Only an answer of the consumer counts: where there is none the library says so.
            let asked = replies.iter().map(|(_, reply)| shared.client.request(reply.clone(), ACK.into()));
            for ((sequence, reply), answer) in replies.iter().zip(join_all(asked).await) {
                match answer {
                    Ok(_) => drop(shared.lock().unconfirmed.remove(sequence)),
                    Err(error) => {
                        why = Some(error);
                        left.push((*sequence, reply.clone()));
                    }
                }
            }
        }
        drop(attempt);
        let Some(error) = why else { return };
        tracing::warn!(%error, messages = left.len(), "not known to be acknowledged, said again");
        batch = left;
        sleep(PAUSE).await;
    }
    // Revoked: they are delivered again.
    let mut state = shared.lock();
    for (sequence, _) in &batch {
        state.unconfirmed.remove(sequence);
    }
}

/// Whether a consumer that is there keeps what it was given for.
fn check(stream: &str, info: &Info, shares: &Shares) -> Result<(), NatsError> {
    let config = &info.config;
    let setting = |key, found: String, expected: String| {
        let stream = format!("{stream}, consumer {}", shares.consumer);
        Err(NatsError::Setting { stream, key, found, expected })
    };
    if config.deliver_subject.is_some() {
        return setting(
            "deliver_subject",
            "set".to_owned(),
            "without, so that messages are pulled".to_owned(),
        );
    }
    if config.ack_policy != AckPolicy::Explicit {
        return setting("ack_policy", format!("{:?}", config.ack_policy), "explicit".to_owned());
    }
    if config.max_deliver > 0 {
        let expected = "without a limit, so that no message is given up silently".to_owned();
        return setting("max_deliver", config.max_deliver.to_string(), expected);
    }
    if config.filter_subject != shares.subject {
        return setting(
            "filter_subject",
            format!("{:?}", config.filter_subject),
            format!("{:?}, as source.subject says", shares.subject),
        );
    }
    if (0..shares.max_ack_pending).contains(&config.max_ack_pending) {
        let expected = format!("at least {}, as source.max_ack_pending says", shares.max_ack_pending);
        return setting("max_ack_pending", config.max_ack_pending.to_string(), expected);
    }
    Ok(())
}

fn nak(delay: Duration) -> String {
    if delay.is_zero() { "-NAK".to_owned() } else { format!("-NAK {{\"delay\":{}}}", delay.as_nanos()) }
}

const ACK: &str = "+ACK";
const PROGRESS: &str = "+WPI";
/// How long the server waits for a message before it ends a request.
const EXPIRES: Duration = Duration::from_secs(10);
/// How long giving back may take.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// Acknowledgements that are sent before the first answer.
const WINDOW: usize = 256;
