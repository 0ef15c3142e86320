//! A bucket of JetStream KV that has the newest output of each key (VX-852): class B with the guard, class C without.
//!
//! With the guard a key is read before it is written, and changed by its revision: only if the output comes from a later place of
//! the source than the value that is there, or from another source and a later session. So what a session writes that was over is
//! refused as soon as the key has moved on, however late it arrives. What the guard needs stands in headers of the value:
//!
//! | header | holds |
//! |---|---|
//! | `Nats-Msg-Id` | id of the output (pipeline, sink, partition, position, number), and the source behind it |
//! | `Tg-Generation` | generation of the session that wrote it |
//! | `Tg-Source` | which source the position is of |

use std::{collections::BTreeSet, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::stream::{DiscardPolicy, Info, RetentionPolicy, Stream},
};
use thiserror::Error;
use tidegate_udf::wire::ids::Generation;

use super::{
    EXPECTED_LAST_SUBJECT_SEQUENCE, MSG_ID, Message, Nats, NatsError, Published, SOURCE, Stored, ids::Sent,
};
use crate::{
    batch::Record,
    fence::Fenced,
    sink::{Rejected, Session},
};

/// A bucket that outputs go to under their keys.
#[derive(Debug)]
pub struct KvBucket {
    nats: Nats,
    stream: Stream,
    bucket: String,
    guarded: bool,
    unordered: bool,
    failed: Vec<Rejected>,
}

/// Why a session must not write to a bucket.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KvError {
    /// The right to write was lost.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// A session of another source has written, and this one is not later (VX-852).
    #[error("generation {found} has written key {key}, from another source")]
    OtherSource {
        /// The key.
        key: String,
        /// Whose it is.
        found: Generation,
    },
}

/// What is to be done with an output.
enum Judged {
    /// Write it if the key still has this revision.
    Write(u64),
    /// It is there, or one from behind it is.
    Done,
    /// The key is not this partition's.
    Foreign(String),
    OtherSource(Generation),
}

impl KvBucket {
    /// Looks at the bucket. With the guard it has to remember its values for `window` at least.
    ///
    /// # Errors
    /// [`NatsError::Setting`] with what it needs.
    pub fn open(nats: Nats, bucket: &str, guarded: bool, window: Duration) -> Result<Self, NatsError> {
        let (stream, info) = nats.stream(&format!("KV_{bucket}"))?;
        if guarded {
            check(&info, window)?;
        }
        Ok(Self { nats, stream, bucket: bucket.to_owned(), guarded, unordered: false, failed: Vec::new() })
    }

    /// As [`IdStream::unordered`](super::ids::IdStream::unordered).
    pub fn unordered(self, unordered: bool) -> Self {
        Self { unordered, ..self }
    }

    /// As [`IdStream::failed`](super::ids::IdStream::failed).
    pub fn failed(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.failed)
    }

    /// Writes outputs of one session, in their order for each key; with the guard those that are not newer than what is there are
    /// done. `permit` is asked for one before each attempt.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn publish<P>(
        &mut self,
        session: &Session,
        source: u64,
        messages: &[Message],
        mut permit: impl FnMut() -> Result<P, Fenced>,
    ) -> Result<Sent, KvError> {
        let (mut done, mut idle) = (0, 0);
        self.failed.clear();
        while let Some(rest) = messages.get(done..).filter(|rest| !rest.is_empty()) {
            let window = different_keys(rest);
            let found = match self.found(window) {
                Ok(found) => found,
                Err(error) => return Ok(Sent::Unknown(done, error.to_string())),
            };
            let (mut writes, mut judged) = (Vec::new(), Vec::new());
            for (message, found) in window.iter().zip(&found) {
                let one = self.judge(found.as_ref(), message, session, source);
                if let Judged::Write(revision) = one {
                    writes.push(self.write(message, session, source, revision));
                }
                let writable = matches!(one, Judged::Write(_) | Judged::Done);
                judged.push(one);
                if !writable {
                    break;
                }
            }
            let mut outcomes = Vec::new();
            if !writes.is_empty() {
                outcomes = self.nats.publish_under(permit()?, writes);
            }
            let (before, mut outcomes) = (done, outcomes.into_iter());
            for (one, message) in judged.into_iter().zip(window) {
                match one {
                    Judged::Done => done += 1,
                    Judged::Foreign(reason) => return Ok(Sent::Refused(done, reason.into())),
                    Judged::OtherSource(found) => {
                        let key = String::from_utf8_lossy(&message.record.key).into_owned();
                        return Err(KvError::OtherSource { key, found });
                    }
                    Judged::Write(_) => match outcomes.next() {
                        Some(Published::Stored(_)) => done += 1,
                        Some(Published::Duplicate(sequence)) if sequence > 0 => done += 1,
                        // Somebody was faster: the key is read again.
                        Some(Published::Refused) => break,
                        Some(Published::TooLarge(source)) => return Ok(Sent::Refused(done, source)),
                        Some(Published::Rejected(source)) if self.unordered => {
                            self.failed.push(Rejected { index: done, reason: source.to_string() });
                            done += 1;
                        }
                        Some(Published::Rejected(source)) => {
                            return Ok(Sent::Unknown(done, source.to_string()));
                        }
                        _ => return Ok(Sent::Unknown(done, "no answer".to_owned())),
                    },
                }
            }
            idle = if done > before { 0 } else { idle + 1 };
            if idle > ATTEMPTS {
                let reason = "its key changes again and again".to_owned();
                if !self.unordered {
                    return Ok(Sent::Unknown(done, reason));
                }
                self.failed.push(Rejected { index: done, reason });
                (done, idle) = (done + 1, 0);
            }
        }
        Ok(Sent::All)
    }

    /// What the keys have, from the leader; nothing without the guard.
    fn found(&self, window: &[Message]) -> Result<Vec<Option<Stored>>, NatsError> {
        if !self.guarded {
            return Ok(window.iter().map(|_| None).collect());
        }
        let subjects: Vec<String> = window.iter().map(|message| self.subject(message)).collect();
        self.nats.last_of_each(&self.stream, &subjects)
    }

    fn judge(&self, found: Option<&Stored>, message: &Message, session: &Session, source: u64) -> Judged {
        let Some(found) = found else { return Judged::Write(0) };
        if found.operation.is_some() {
            // Deleted: there is nothing that could be newer.
            return Judged::Write(found.sequence);
        }
        let own = place(&message.id);
        let there = found.source.and_then(|other| place(found.id.strip_suffix(&suffix(other))?));
        let (Some((writer, there)), Some(generation), Some(other)) = (there, found.generation, found.source)
        else {
            return Judged::Foreign(format!("{} was not written by a guarded sink", self.shown(message)));
        };
        match own {
            Some((own, place)) if own == writer => {
                if other != source {
                    let is_older = generation < session.generation.0;
                    return if is_older {
                        Judged::Write(found.sequence)
                    } else {
                        Judged::OtherSource(Generation(generation))
                    };
                }
                if place > there { Judged::Write(found.sequence) } else { Judged::Done }
            }
            _ => Judged::Foreign(format!(
                "{} was written by {writer}; with the guard a key belongs to one sink and one partition of the source",
                self.shown(message)
            )),
        }
    }

    fn write(
        &self,
        message: &Message,
        session: &Session,
        source: u64,
        revision: u64,
    ) -> (String, HeaderMap, Vec<u8>) {
        let mut headers = message.headers(session.generation);
        // The place of an output in another source is another output, to the server as well.
        headers.insert(MSG_ID, message.id.clone() + &suffix(source));
        headers.insert(SOURCE, format!("{source:016x}"));
        if self.guarded {
            headers.insert(EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string());
        }
        (self.subject(message), headers, message.record.value.to_vec())
    }

    fn subject(&self, message: &Message) -> String {
        format!("$KV.{}.{}", self.bucket, String::from_utf8_lossy(&message.record.key))
    }

    fn shown(&self, message: &Message) -> String {
        format!("key {:?} of bucket {}", String::from_utf8_lossy(&message.record.key), self.bucket)
    }
}

/// Whether the key of a record can be one of a bucket.
///
/// # Errors
/// The reason why not.
pub fn check_key(record: &Record) -> Result<(), String> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-/_=.".contains(byte);
    let key = &record.key;
    let tokens = key.split(|byte| *byte == b'.').all(|token| !token.is_empty());
    if tokens && key.len() <= LONGEST_KEY && key.iter().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "its key is {:?}; a key of a bucket has 1 to {LONGEST_KEY} letters, digits and -/_=. and no dot at an end or beside another",
        String::from_utf8_lossy(key)
    ))
}

/// What stands behind the id of an output of this source.
fn suffix(source: u64) -> String {
    format!(".{source:016x}")
}

/// Writer, position and number of an output, from its id.
fn place(id: &str) -> Option<(&str, (u64, u64))> {
    let mut parts = id.rsplitn(3, '.');
    let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
    let (number, position) = (number()?, number()?);
    Some((parts.next()?, (position, number)))
}

/// The first outputs, each with another key: they can be written at once.
fn different_keys(messages: &[Message]) -> &[Message] {
    let mut keys = BTreeSet::new();
    let twice = messages.iter().take(WINDOW).position(|message| !keys.insert(&message.record.key));
    let end = twice.unwrap_or(WINDOW).min(messages.len());
    messages.get(..end).unwrap_or(messages)
}

/// Whether the bucket forgets no value that a late write could meet.
fn check(info: &Info, window: Duration) -> Result<(), NatsError> {
    let config = &info.config;
    let setting = |key, found: String, expected: String| {
        Err(NatsError::Setting { stream: config.name.clone(), key, found, expected })
    };
    if config.retention != RetentionPolicy::Limits {
        return setting("retention", format!("{:?}", config.retention), "limits".to_owned());
    }
    if config.max_age > Duration::ZERO && config.max_age < window {
        let expected = format!("at least {window:?}, twice epoch.rto and the lease, or without");
        return setting("max_age", format!("{:?}", config.max_age), expected);
    }
    if (config.max_bytes > 0 || config.max_messages > 0) && config.discard != DiscardPolicy::New {
        let expected = "new, since the bucket has a limit of size".to_owned();
        return setting("discard", format!("{:?}", config.discard), expected);
    }
    if config.mirror.is_some() || config.sources.as_ref().is_some_and(|sources| !sources.is_empty()) {
        let expected = "without, so that nobody else writes".to_owned();
        return setting("mirror or sources", "set".to_owned(), expected);
    }
    Ok(())
}

/// How often a key is read again that somebody else changes.
const ATTEMPTS: u32 = 8;
/// Outputs that are sent before the first answer.
const WINDOW: usize = 256;
/// A subject has to fit a line of the protocol.
const LONGEST_KEY: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_a_bucket_can_have() {
        for (key, good) in [
            ("order-7", true),
            ("a.b/c_d=e", true),
            ("", false),
            (".a", false),
            ("a.", false),
            ("a..b", false),
            ("a b", false),
            ("a*", false),
            (">", false),
            ("ü", false),
        ] {
            let record = Record { key: key.to_owned().into(), ..Record::default() };
            assert_eq!(check_key(&record).is_ok(), good, "{key:?}");
        }
    }

    /// Names of sinks may have dots.
    #[test]
    fn an_id_says_who_wrote_and_from_where() {
        assert_eq!(place("00000000000000aa.my.sink.3.1f.2"), Some(("00000000000000aa.my.sink.3", (0x1f, 2))));
        assert_eq!(place("1.2"), None);
        assert_eq!(place(""), None);
        assert_eq!(place("fence.aa.0.xyz"), None);
    }
}
