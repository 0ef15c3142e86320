//! A stream of JetStream that knows a message again by its id, for a while (16.3): class B.

use std::time::Duration;

use super::{Message, Nats, NatsError, Published};
use crate::{
    fence::Fenced,
    sink::{Rejected, Session},
};

/// A stream that outputs go to with their ids.
#[derive(Debug)]
pub struct IdStream {
    nats: Nats,
    subject: String,
    unordered: bool,
    failed: Vec<Rejected>,
}

/// How far messages came.
#[derive(Debug)]
pub enum Sent {
    /// All of them are stored, but for those that failed.
    All,
    /// These are stored; the next one never will be, for this reason.
    Refused(usize, super::Cause),
    /// These are stored; about those behind them nothing is known, for this reason.
    Unknown(usize, String),
}

impl IdStream {
    /// Looks at the stream, whether it remembers ids for `window` at least (VX-843).
    ///
    /// # Errors
    /// [`NatsError::Setting`] with what it needs.
    pub fn open(nats: Nats, stream: &str, subject: &str, window: Duration) -> Result<Self, NatsError> {
        let (_, info) = nats.stream(stream)?;
        if info.config.duplicate_window < window {
            return Err(NatsError::Setting {
                stream: stream.to_owned(),
                key: "duplicate_window",
                found: format!("{:?}", info.config.duplicate_window),
                expected: format!("at least {window:?}, twice epoch.rto and the lease"),
            });
        }
        Ok(Self { nats, subject: subject.to_owned(), unordered: false, failed: Vec::new() })
    }

    /// The same for messages that need not keep their order: one that the server does not store now is among
    /// [`failed`](Self::failed), and the others go on.
    pub fn unordered(self, unordered: bool) -> Self {
        Self { unordered, ..self }
    }

    /// The messages of the last publication that have to be sent again.
    pub fn failed(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.failed)
    }

    /// Sends messages; a message that is stored already under its id is stored. `permit` is asked for one before each attempt.
    ///
    /// # Errors
    /// [`Fenced`].
    pub fn publish<P>(
        &mut self,
        session: &Session,
        messages: &[Message],
        mut permit: impl FnMut() -> Result<P, Fenced>,
    ) -> Result<Sent, Fenced> {
        let mut done = 0;
        self.failed.clear();
        for window in messages.chunks(WINDOW) {
            let batch = window
                .iter()
                .map(|message: &Message| {
                    let headers = message.headers(session.generation);
                    (self.subject.clone(), headers, message.record.value.to_vec())
                })
                .collect();
            for outcome in self.nats.publish_under(permit()?, batch) {
                match outcome {
                    Published::Stored(_) => done += 1,
                    Published::Duplicate(sequence) if sequence > 0 => done += 1,
                    Published::TooLarge(source) => return Ok(Sent::Refused(done, source)),
                    Published::Rejected(source) if self.unordered => {
                        self.failed.push(Rejected { index: done, reason: source.to_string() });
                        done += 1;
                    }
                    Published::Rejected(source) => {
                        return Ok(Sent::Unknown(done, source.to_string()));
                    }
                    _ => return Ok(Sent::Unknown(done, "no answer".to_owned())),
                }
            }
        }
        Ok(Sent::All)
    }
}

/// Messages that are sent before the first answer.
const WINDOW: usize = 256;
