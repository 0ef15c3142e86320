//! Talking to a running driver agent from other threads.
//!
//! The driver belongs to its duty cycle; others put questions into a bounded queue and wait for the answer (TP-434,
//! TP-435).

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tidegate_shm::clock::Nanos;

use super::{Driver, DriverSnapshot, NameError, ShutdownReason};
use crate::ids::{LeaseId, StreamId};

/// Questions that may wait.
const CAPACITY: usize = 64;

/// Asks a driver agent; clones ask the same one.
#[derive(Debug, Clone)]
pub struct DriverHandle {
    commands: SyncSender<Command>,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// Too many questions wait already.
    #[error("the tensor driver has {CAPACITY} questions waiting; try again")]
    Busy,
    /// The agent has ended.
    #[error("the tensor driver has ended")]
    Ended,
    /// The duty cycle did not get to it.
    #[error("the tensor driver did not answer within {after:?}; is its thread running?")]
    TimedOut {
        /// How long the caller waited.
        after: Duration,
    },
}

/// A question, with the way back for its answer.
#[derive(Debug)]
pub(super) enum Command {
    Snapshot(SyncSender<DriverSnapshot>),
    Resolve(String, SyncSender<Option<StreamId>>),
    Create(String, SyncSender<Result<StreamId, NameError>>),
    Revoke(LeaseId, String, SyncSender<bool>),
    Drain(ShutdownReason, String, SyncSender<()>),
}

impl DriverHandle {
    pub(super) fn new() -> (Self, Receiver<Command>) {
        let (commands, receiver) = sync_channel(CAPACITY);
        (Self { commands }, receiver)
    }

    /// What the driver holds.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn snapshot(&self, timeout: Duration) -> Result<DriverSnapshot, HandleError> {
        self.ask(Command::Snapshot, timeout)
    }

    /// See [`Driver::resolve`].
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn resolve(&self, name: &str, timeout: Duration) -> Result<Option<StreamId>, HandleError> {
        self.ask(|reply| Command::Resolve(name.to_owned(), reply), timeout)
    }

    /// See [`Driver::create_stream_by_name`].
    ///
    /// # Errors
    /// [`HandleError`] outside, the driver's own refusal inside.
    pub fn create_stream_by_name(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<Result<StreamId, NameError>, HandleError> {
        self.ask(|reply| Command::Create(name.to_owned(), reply), timeout)
    }

    /// See [`Driver::revoke`].
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn revoke(&self, lease: LeaseId, text: &str, timeout: Duration) -> Result<bool, HandleError> {
        self.ask(|reply| Command::Revoke(lease, text.to_owned(), reply), timeout)
    }

    /// See [`Driver::drain`].
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn drain(&self, reason: ShutdownReason, text: &str, timeout: Duration) -> Result<(), HandleError> {
        self.ask(|reply| Command::Drain(reason, text.to_owned(), reply), timeout)
    }

    fn ask<T>(
        &self,
        command: impl FnOnce(SyncSender<T>) -> Command,
        timeout: Duration,
    ) -> Result<T, HandleError> {
        // Room for the one answer: the driver never waits for who asked.
        let (reply, answer) = sync_channel(1);
        self.commands.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => HandleError::Busy,
            TrySendError::Disconnected(_) => HandleError::Ended,
        })?;
        answer.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => HandleError::TimedOut { after: timeout },
            RecvTimeoutError::Disconnected => HandleError::Ended,
        })
    }
}

impl Command {
    pub(super) fn run(self, driver: &mut Driver, now: Nanos) {
        match self {
            Self::Snapshot(reply) => answer(&reply, driver.snapshot(now)),
            Self::Resolve(name, reply) => answer(&reply, driver.resolve(&name)),
            Self::Create(name, reply) => answer(&reply, driver.create_stream_by_name(&name)),
            Self::Revoke(lease, text, reply) => answer(&reply, driver.revoke(lease, &text, now)),
            Self::Drain(reason, text, reply) => {
                driver.drain(reason, &text, now);
                answer(&reply, ());
            }
        }
    }
}

fn answer<T>(reply: &SyncSender<T>, value: T) {
    // Whoever asked may have stopped waiting.
    let _ = reply.try_send(value);
}
