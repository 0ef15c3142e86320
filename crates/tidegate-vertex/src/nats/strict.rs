//! A stream of JetStream that refuses every write of an older session (16.4): class A.
//!
//! Every message names the one before it. Whoever wants to write after a barrier has to name the barrier, and whoever wrote
//! before it does not know its name; so from the barrier on nothing of an older session is stored, however late it arrives.
//!
//! ```text
//!  ... data(gen 5) | fence(gen 6, nonce) <-- data <-- data <-- data      "<--": names it as the last message
//!                        ^ data(gen 5), on its way since long: refused
//! ```
//!
//! On a stream with one replica messages are sent many at a time, chained by id. On replicated streams, and to find the end of
//! the chain again, they go one at a time and name the last sequence, which the server judges from what it has stored
//! (VX-846, VX-857).

use std::{collections::BTreeMap, time::Duration};

use async_nats::jetstream::stream::{DiscardPolicy, Info, RetentionPolicy, Stream};
use thiserror::Error;
use tidegate_udf::wire::ids::{Generation, Position};

use super::{
    EXPECTED_LAST_ID, EXPECTED_LAST_SEQUENCE, EXPECTED_LAST_SUBJECT_SEQUENCE, Message, NONCE, Nats,
    NatsError, Published, Stored, message::session_headers,
};
use crate::{fence::Fenced, sink::Session};

/// Which stream, and how much of it has to be kept.
#[derive(Debug, Clone)]
pub struct Names {
    /// The stream of this partition.
    pub stream: String,
    /// Subject of the outputs.
    pub data: String,
    /// Subject of the barriers.
    pub fence: String,
    /// How long a message has to stay, at least.
    pub keep: Duration,
}

/// A place in one incarnation of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When the stream was made, in nanoseconds since 1970.
    pub created: i128,
    /// Place of the last message that counts.
    pub sequence: u64,
}

/// Why a strict stream cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StrictError {
    /// No answer, or one that says no. What was not confirmed is stored or not.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The right to write was lost.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// A later session has placed its barrier (VX-234).
    #[error("generation {found} owns stream {stream} now")]
    Newer {
        /// The stream.
        stream: String,
        /// Its owner.
        found: Generation,
    },
    /// Another session with the same generation exists: the ownership store was rolled back (VX-714).
    #[error(
        "another session with the same generation has written to stream {stream}: ownership went back in time"
    )]
    SameGeneration {
        /// The stream.
        stream: String,
    },
    /// A message that the server or the stream does not take, ever. What is before it is stored.
    #[error("message {id} is too long for the server or the stream")]
    TooLarge {
        /// Its id.
        id: String,
        /// What the server said.
        source: super::Cause,
    },
    /// Somebody else writes to the stream (VX-850).
    #[error(
        "message {sequence} of stream {stream} was not written by this pipeline for this partition; give each output partition a \
         stream of its own"
    )]
    ForeignWriter {
        /// The stream.
        stream: String,
        /// The message.
        sequence: u64,
    },
    /// The stream lost what the ledger calls committed, or cannot store what it should (VX-849, VX-856).
    #[error("stream {stream} {what}; what was committed there is gone")]
    Regressed {
        /// The stream.
        stream: String,
        /// What shows it.
        what: &'static str,
    },
}

/// One session of one partition on its stream.
#[derive(Debug)]
pub struct StrictStream {
    nats: Nats,
    stream: Stream,
    names: Names,
    uid: u64,
    session: Session,
    created: i128,
    replicated: bool,
    anchor: Anchor,
    /// What was found by reading back: id to position.
    found: BTreeMap<String, Position>,
    /// Where reading back began.
    token: Place,
    /// The last position of what was published since.
    through: Option<Position>,
    /// Messages go after a while.
    expires: bool,
}

/// The end of the chain, as far as it is known.
#[derive(Debug, Clone)]
enum Anchor {
    /// No barrier yet.
    None,
    /// This is the last message, and the server knows its id.
    Id { id: String, sequence: u64 },
    /// This is the last message; whether the server still knows its id is open.
    Sequence { id: String, sequence: u64 },
    /// This message is stored; whether something is behind it is open.
    Lost { id: String, sequence: u64 },
}

impl StrictStream {
    /// Looks at the stream, whether it can keep the promise (VX-856).
    ///
    /// # Errors
    /// [`NatsError::Setting`] with what it needs.
    pub fn open(nats: Nats, names: Names, uid: u64, session: Session) -> Result<Self, StrictError> {
        let (stream, info) = nats.stream(&names.stream)?;
        check(&info, &names)?;
        let created = info.created.unix_timestamp_nanos();
        Ok(Self {
            nats,
            stream,
            names,
            uid,
            session,
            created,
            replicated: info.config.num_replicas > 1,
            anchor: Anchor::None,
            found: BTreeMap::new(),
            token: Place { created, sequence: 0 },
            through: None,
            expires: info.config.max_age > Duration::ZERO,
        })
    }

    /// Places the barrier of this session (VX-847). `permit` is asked for one before each attempt.
    ///
    /// # Errors
    /// [`StrictError::Newer`], [`StrictError::SameGeneration`].
    pub fn barrier<P>(&mut self, mut permit: impl FnMut() -> Result<P, Fenced>) -> Result<(), StrictError> {
        let Session { partition, generation, nonce } = self.session;
        let id = format!("fence.{:016x}.{:x}.{:x}.{nonce:016x}", self.uid, partition.0, generation.0);
        let mut doubt = None;
        for _ in 0..ATTEMPTS {
            let last = self.nats.last_of(&self.stream, &self.names.fence)?;
            if let Some(last) = &last {
                let found = last.generation.map(Generation).ok_or_else(|| self.foreign(last.sequence))?;
                // Another pipeline, or another partition of this one (VX-794).
                let ours = format!("fence.{:016x}.{:x}.", self.uid, partition.0);
                if !last.id.starts_with(&ours) {
                    return Err(self.foreign(last.sequence));
                }
                if found > generation {
                    return Err(StrictError::Newer { stream: self.names.stream.clone(), found });
                }
                if found == generation {
                    if last.id != id {
                        return Err(self.same_generation());
                    }
                    // An earlier attempt was stored after all.
                    self.anchor = Anchor::Lost { id, sequence: last.sequence };
                    return Ok(());
                }
            }
            let mut headers = session_headers(&id, generation);
            headers.insert(NONCE, format!("{nonce:016x}"));
            let before = last.map_or(0, |last| last.sequence);
            headers.insert(EXPECTED_LAST_SUBJECT_SEQUENCE, before.to_string());
            let barrier = vec![(self.names.fence.clone(), headers, Vec::new())];
            match self.nats.publish_under(permit()?, barrier).pop() {
                Some(Published::Stored(sequence)) => {
                    self.anchor = Anchor::Id { id, sequence };
                    return Ok(());
                }
                Some(Published::Rejected(source)) => return Err(self.call("take a barrier in", source)),
                // Somebody else was faster, or the answer was lost: the subject says which.
                _ => doubt = Some("no answer"),
            }
        }
        Err(self.call("take a barrier in", doubt.unwrap_or("no attempt").into()))
    }

    /// Reads what is stored between the place of the last commit and the barrier, and keeps its ids: they are not published
    /// again (VX-848). Returns how many there are.
    ///
    /// # Errors
    /// [`StrictError::Regressed`] when something that has to be there is not.
    pub fn read_back(&mut self, since: Option<Place>) -> Result<u64, StrictError> {
        let barrier = self.anchor.sequence();
        let (_, info) = self.nats.stream(&self.names.stream)?;
        check(&info, &self.names)?;
        let token = since.unwrap_or(Place { created: self.created, sequence: 0 });
        if token.created != self.created || info.created.unix_timestamp_nanos() != self.created {
            return Err(self.regressed("was made anew"));
        }
        if info.state.last_sequence < token.sequence.max(barrier) {
            return Err(self.regressed("ends before the last commit"));
        }
        if info.state.first_sequence > token.sequence + 1 {
            return Err(self.regressed("begins after the last commit"));
        }
        self.token = token;
        self.found.clear();
        for sequence in token.sequence + 1..barrier {
            let message = self.nats.message_at(&self.stream, sequence)?;
            let message = message.ok_or_else(|| self.regressed("has a hole after the last commit"))?;
            if message.generation.is_none() {
                return Err(self.foreign(sequence));
            }
            if let Some(position) = message.position {
                self.found.insert(message.id, Position(position));
            }
        }
        // Only with the barrier itself it is complete.
        let barrier = self.nats.message_at(&self.stream, barrier)?;
        match barrier {
            Some(message) if message.nonce == Some(self.session.nonce) => Ok(self.found.len() as u64),
            _ => Err(self.regressed("lost the barrier of this session")),
        }
    }

    /// Publishes outputs of one epoch behind everything before, except those that are stored already. Confirmed when it
    /// returns; after an error it may be called again with the same messages, on a connection made anew.
    ///
    /// # Errors
    /// As [`StrictError`] says. [`StrictError::Nats`] can be tried again.
    pub fn publish<P>(
        &mut self,
        first: Position,
        messages: &[Message],
        mut permit: impl FnMut() -> Result<P, Fenced>,
    ) -> Result<Place, StrictError> {
        // Everything below the epoch is committed; what was found there will not come again.
        if self.found.values().all(|position| *position < first) {
            self.found.clear();
        }
        let wanted: Vec<&Message> =
            messages.iter().filter(|message| !self.found.contains_key(&message.id)).collect();
        let (mut done, mut idle) = (0, 0);
        while done < wanted.len() {
            let before = done;
            done += match &self.anchor {
                Anchor::None => return Err(self.regressed("has no barrier of this session")),
                Anchor::Lost { .. } => self.find_end(&wanted[done..])?,
                Anchor::Sequence { .. } => self.send_one(wanted[done], permit()?)?,
                Anchor::Id { .. } if self.replicated => self.send_one(wanted[done], permit()?)?,
                Anchor::Id { .. } => {
                    let end = wanted.len().min(done + WINDOW);
                    self.send_chain(&wanted[done..end], permit()?)?
                }
            };
            idle = if done > before { 0 } else { idle + 1 };
            if idle > ATTEMPTS {
                return Err(self.call("take messages in", "they are refused again and again".into()));
            }
        }
        self.through = self.through.max(messages.iter().map(|message| message.position).max());
        Ok(self.place())
    }

    /// What the next session has to read back from when what was published is committed: the last message, or where this one
    /// began as long as something that it found is behind that.
    pub fn place(&self) -> Place {
        if self.found.values().all(|position| Some(*position) <= self.through) {
            Place { created: self.created, sequence: self.anchor.sequence() }
        } else {
            self.token
        }
    }

    /// The place of the barrier, after [`StrictStream::read_back`], if the session has to commit it before anything else: nothing
    /// but barriers is behind the last commit, and they expire. Then nobody can tell that they were no more than that (VX-856).
    pub fn fresh_place(&self) -> Option<Place> {
        (self.expires && self.found.is_empty()).then(|| self.place())
    }

    /// Goes on with another connection; the end of the chain is looked for first.
    ///
    /// # Errors
    /// The stream cannot be reached.
    pub fn reconnect(&mut self, nats: Nats) -> Result<(), StrictError> {
        let (stream, info) = nats.stream(&self.names.stream)?;
        if info.created.unix_timestamp_nanos() != self.created {
            return Err(self.regressed("was made anew"));
        }
        // The old connection ends here, with everything that it had not sent.
        (self.nats, self.stream) = (nats, stream);
        self.anchor.lose();
        Ok(())
    }

    /// Sends one message that names the last sequence. How many are done.
    fn send_one<P>(&mut self, message: &Message, permit: P) -> Result<usize, StrictError> {
        let mut headers = message.headers(self.session.generation);
        headers.insert(EXPECTED_LAST_SEQUENCE, self.anchor.sequence().to_string());
        let sent = vec![(self.names.data.clone(), headers, message.record.value.to_vec())];
        let outcome = self.nats.publish_under(permit, sent).pop();
        self.judge(&[message], vec![outcome.unwrap_or(Published::Unknown)])
    }

    /// Sends messages that each name the id of the one before. How many are done.
    fn send_chain<P>(&mut self, messages: &[&Message], permit: P) -> Result<usize, StrictError> {
        let mut last = self.anchor.id().to_owned();
        let mut batch = Vec::with_capacity(messages.len());
        for message in messages {
            let mut headers = message.headers(self.session.generation);
            headers.insert(EXPECTED_LAST_ID, last.as_str());
            last.clone_from(&message.id);
            batch.push((self.names.data.clone(), headers, message.record.value.to_vec()));
        }
        let outcomes = self.nats.publish_under(permit, batch);
        self.judge(messages, outcomes)
    }

    /// Moves the end of the chain over what was stored; how many are done.
    fn judge(&mut self, messages: &[&Message], outcomes: Vec<Published>) -> Result<usize, StrictError> {
        for (done, (message, outcome)) in messages.iter().zip(outcomes).enumerate() {
            match outcome {
                Published::Stored(sequence) => self.anchor = Anchor::Id { id: message.id.clone(), sequence },
                // The server looked at the id before anything else, and did not make it the last one (VX-849).
                Published::Duplicate(sequence) => {
                    let stored = self.nats.message_at(&self.stream, sequence)?;
                    if stored.is_none_or(|stored| stored.id != message.id) {
                        return Err(self.regressed("lost a message whose id it still refuses"));
                    }
                    // It may have come in, late, since the end was looked for.
                    if sequence > self.anchor.sequence() {
                        self.anchor = Anchor::Id { id: message.id.clone(), sequence };
                    }
                    self.anchor.lose();
                    return Ok(done + 1);
                }
                Published::Refused => {
                    self.anchor.lose();
                    return Ok(done);
                }
                Published::TooLarge(source) => {
                    self.anchor.lose();
                    return Err(StrictError::TooLarge { id: message.id.clone(), source });
                }
                Published::Rejected(source) => {
                    self.anchor.lose();
                    return Err(self.call("take a message in", source));
                }
                // Stored or not, and the library may still send it: the caller closes the connection.
                Published::Unknown => {
                    self.anchor.lose();
                    return Err(self.call("take a message in", "no answer".into()));
                }
            }
        }
        Ok(messages.len())
    }

    /// Looks at the last message of the stream (VX-850). How many of `messages` are done, since they are stored.
    fn find_end(&mut self, messages: &[&Message]) -> Result<usize, StrictError> {
        let (_, info) = self.nats.stream(&self.names.stream)?;
        let sequence = info.state.last_sequence;
        if info.created.unix_timestamp_nanos() != self.created || sequence < self.anchor.sequence() {
            return Err(self.regressed("lost its last messages"));
        }
        let last = self.nats.message_at(&self.stream, sequence)?;
        let last = last.ok_or_else(|| self.regressed("lost its last message"))?;
        let done = self.recognize(&last, messages)?;
        self.anchor = Anchor::Sequence { id: last.id, sequence };
        Ok(done)
    }

    fn recognize(&self, last: &Stored, messages: &[&Message]) -> Result<usize, StrictError> {
        let found = last.generation.map(Generation).ok_or_else(|| self.foreign(last.sequence))?;
        if found > self.session.generation {
            return Err(StrictError::Newer { stream: self.names.stream.clone(), found });
        }
        let is_anchor = last.sequence == self.anchor.sequence() && last.id == self.anchor.id();
        match messages.iter().position(|message| message.id == last.id) {
            None if is_anchor => Ok(0),
            Some(index) if found == self.session.generation => Ok(index + 1),
            _ if found == self.session.generation => Err(self.same_generation()),
            // Behind the barrier nothing older can be.
            _ => Err(self.regressed("lost the barrier of this session")),
        }
    }

    fn call(&self, what: &'static str, source: super::Cause) -> StrictError {
        NatsError::Call { what, stream: self.names.stream.clone(), source }.into()
    }

    fn foreign(&self, sequence: u64) -> StrictError {
        StrictError::ForeignWriter { stream: self.names.stream.clone(), sequence }
    }

    fn same_generation(&self) -> StrictError {
        StrictError::SameGeneration { stream: self.names.stream.clone() }
    }

    fn regressed(&self, what: &'static str) -> StrictError {
        StrictError::Regressed { stream: self.names.stream.clone(), what }
    }
}

impl Anchor {
    fn sequence(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Id { sequence, .. } | Self::Sequence { sequence, .. } | Self::Lost { sequence, .. } => {
                *sequence
            }
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::None => "",
            Self::Id { id, .. } | Self::Sequence { id, .. } | Self::Lost { id, .. } => id,
        }
    }

    /// Something may be behind it.
    fn lose(&mut self) {
        if !matches!(self, Self::None) {
            *self = Self::Lost { id: self.id().to_owned(), sequence: self.sequence() };
        }
    }
}

/// Whether the stream keeps what is stored for long enough, from everybody.
fn check(info: &Info, names: &Names) -> Result<(), NatsError> {
    let config = &info.config;
    let setting = |key, found: String, expected: &str| {
        Err(NatsError::Setting { stream: names.stream.clone(), key, found, expected: expected.to_owned() })
    };
    if config.retention != RetentionPolicy::Limits {
        return setting("retention", format!("{:?}", config.retention), "limits");
    }
    if config.max_messages_per_subject > 0 {
        return setting("max_msgs_per_subject", config.max_messages_per_subject.to_string(), "unlimited");
    }
    if config.max_age > Duration::ZERO && config.max_age < names.keep {
        return setting(
            "max_age",
            format!("{:?}", config.max_age),
            &format!("at least {:?}, which is epoch.rto and the lease", names.keep),
        );
    }
    if (config.max_bytes > 0 || config.max_messages > 0) && config.discard != DiscardPolicy::New {
        return setting(
            "discard",
            format!("{:?}", config.discard),
            "new, since the stream has a limit of size",
        );
    }
    if config.mirror.is_some() || config.sources.as_ref().is_some_and(|sources| !sources.is_empty()) {
        return setting("mirror or sources", "set".to_owned(), "without, so that nobody else writes");
    }
    if !config.deny_delete || !config.deny_purge || config.allow_rollup {
        return setting(
            "deny_delete, deny_purge, allow_rollup_hdrs",
            format!("{}, {}, {}", config.deny_delete, config.deny_purge, config.allow_rollup),
            "true, true, false, so that nobody removes messages",
        );
    }
    Ok(())
}

/// How often something that makes no progress is tried.
const ATTEMPTS: u32 = 8;
/// Messages that are sent before the first answer.
const WINDOW: usize = 256;
