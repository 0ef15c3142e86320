//! Messages of NATS JetStream as records, in work-queue mode: a durable consumer, which several vertices may share, keeps what
//! was acknowledged, message by message. What a vertex leaves behind comes again to whoever reads then, behind newer ones
//! (VX-837).

use serde::Deserialize;
use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::ids::{PartitionId, Position};

use super::{Abilities, AckMode, Budget, Identity, Polled, Positions, Replay, Resume, Source, SourceError};
use crate::{
    batch::Input,
    config::units::Time,
    fence::WriteGuard,
    nats::{
        Endpoint, Nats,
        queue::{Queue, Shares},
    },
    wake::Waker,
};

/// The keys of a source of kind `jetstream` with `mode = "work_queue"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    stream: String,
    /// What the consumer delivers; everything in the stream without.
    #[serde(default)]
    subject: String,
    consumer: String,
    #[serde(default = "ack_wait")]
    ack_wait: Time,
    /// Messages that may be under way.
    #[serde(default = "max_ack_pending")]
    pub(crate) max_ack_pending: u32,
}

impl Keys {
    /// What is wrong with them.
    pub(super) fn check(&self) -> Result<(), String> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
        if self.consumer.is_empty() || !self.consumer.chars().all(allowed) {
            return Err(format!("consumer = {:?}; it has to be letters, digits, - and _", self.consumer));
        }
        if self.ack_wait.0 < LEAST_ACK_WAIT {
            return Err(format!("ack_wait = {}ms; it has to be at least 1s", self.ack_wait.0.0 / 1_000_000));
        }
        Ok(())
    }
}

/// What it can do.
pub(super) const ABILITIES: Abilities = Abilities {
    positions: Positions::Stable,
    replay: Replay::Redelivered,
    ack: AckMode::Individual,
    ordered: false,
};

/// The consumer.
#[derive(Debug)]
pub struct WorkQueue {
    // Before the connection, so that nothing reads any more when it is closed.
    queue: Option<Queue>,
    nats: Nats,
    keys: Keys,
    waker: Waker,
}

impl WorkQueue {
    /// Connects.
    ///
    /// # Errors
    /// [`SourceError::Nats`].
    pub(super) fn open(endpoint: &Endpoint, keys: Keys, waker: Waker) -> Result<Self, SourceError> {
        let nats = Nats::connect(endpoint, "tidegate source")?;
        Ok(Self { queue: None, nats, keys, waker })
    }
}

impl Source for WorkQueue {
    fn abilities(&self) -> Abilities {
        ABILITIES
    }

    fn partitions(&self) -> u32 {
        1
    }

    /// Where to go on is what the consumer says.
    fn open(&mut self, _: PartitionId, from: Option<&Resume>) -> Result<Position, SourceError> {
        let (stream, _) = self.nats.stream(&self.keys.stream)?;
        let Keys { subject, consumer, ack_wait, max_ack_pending, .. } = self.keys.clone();
        let (ack_wait, max_ack_pending) = (ack_wait.0.into(), max_ack_pending.into());
        let shares = Shares { consumer, subject, ack_wait, max_ack_pending };
        self.queue = Some(Queue::start(&self.nats, &stream, &shares, self.waker.clone())?);
        Ok(from.map_or(Position(0), |from| from.position))
    }

    fn poll(&mut self, _: PartitionId, max: Budget) -> Result<Polled, SourceError> {
        let Some(queue) = &self.queue else { return Ok(Polled::Idle) };
        let (mut inputs, mut room): (Vec<Input>, usize) = (Vec::new(), max.bytes);
        let mut too_long = None;
        while inputs.len() < max.records {
            // What comes again is behind newer ones; the positions of one batch grow.
            let last = inputs.last().map(|input| input.position.0);
            let next = queue.next_if(|message| {
                let len = message.record.len();
                if message.record.value.len() > max.value {
                    too_long = Some(Position(message.sequence));
                }
                let grows = last.is_none_or(|last| {
                    message.sequence > last && message.sequence - last < u64::from(u32::MAX) / 2
                });
                too_long.is_none() && grows && (len <= room || inputs.is_empty())
            });
            let Some(message) = next else { break };
            room = room.saturating_sub(message.record.len());
            let (position, next) = (Position(message.sequence), Position(message.sequence + 1));
            inputs.push(Input { position, next, record: message.record });
        }
        match too_long {
            Some(position) if inputs.is_empty() => Err(SourceError::TooLong { position, max: max.value }),
            _ if inputs.is_empty() => {
                queue.ask(max.records, max.bytes);
                Ok(Polled::Idle)
            }
            _ => Ok(Polled::Inputs(inputs)),
        }
    }

    fn identity(&mut self, _: PartitionId, _: Position) -> Result<Identity, SourceError> {
        // The consumer knows where to go on; there is nothing to compare.
        Ok(Identity::default())
    }

    fn ack(&mut self, _: PartitionId, resume: Position, guard: &WriteGuard) -> Result<(), SourceError> {
        if let (Some(queue), Some(last)) = (&self.queue, resume.0.checked_sub(1)) {
            queue.done(&self.nats, last, guard);
        }
        Ok(())
    }

    fn nack(&mut self, _: PartitionId, _: Position, delay: Nanos) {
        if let Some(queue) = self.queue.take() {
            queue.give_back(&self.nats, delay.into());
        }
    }

    fn give_back(&mut self, _: PartitionId, position: Position, delay: Nanos) {
        if let Some(queue) = &self.queue {
            queue.give_one_back(position.0, delay.into());
        }
    }

    fn pending(&self, _: PartitionId) -> Option<u64> {
        self.queue.as_ref()?.pending()
    }
}

fn ack_wait() -> Time {
    Time(Nanos::from_secs(30))
}

fn max_ack_pending() -> u32 {
    20_000
}

const LEAST_ACK_WAIT: Nanos = Nanos::from_secs(1);
