//! Slots of a data-hub channel as records (15.2). The position of a record is the id of its slot, which goes on from producer
//! to producer and never comes again.
//!
//! | `reliable` | a slot is released | what the writer does meanwhile |
//! |---|---|---|
//! | true, the default | when its record is committed | a full ring waits |
//! | false | when it was copied | it overwrites: what is lost is counted, or stops the source |
//!
//! There is nothing between the ring and the vertex: the ring is what is read ahead. A thread of its own only waits for the
//! next commit, and wakes the vertex. A channel that its producer moves to another block is followed there; what is not
//! committed of the old block stays held in it.

use std::{collections::VecDeque, path::PathBuf, thread, time::Duration};

use serde::Deserialize;
use tidegate_hub::{
    config::ConsumerConfig,
    consumer::{HandoverIterator, KeptSlot, Watcher},
    core::{Start, codec::SlotId},
    error::{AcquireError, FollowError, OpenError, RegistryError},
    layout::{BlockSpec, BlockUuid, ChannelName, Overflow, SyncPolicy},
};
use tidegate_shm::sync::{Arc, Condvar, Mutex, MutexGuard};
use tidegate_udf::wire::ids::{PartitionId, Position};

use super::{
    Abilities, AckMode, Budget, Identity, OnGap, Polled, Positions, Replay, Resume, Source, SourceError,
};
use crate::{
    batch::{Input, Record},
    fence::{WriteGuard, WriteKind},
    hub::{HubError, Place, channel_name, default_dir},
    origin::{self, Format, Newest},
    wake::Waker,
};

/// The keys of a source of kind `hub`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSource {
    #[serde(deserialize_with = "channel_name")]
    channel: ChannelName,
    /// Directory of the blocks.
    #[serde(default = "default_dir")]
    dir: PathBuf,
    /// Key file of a channel that has a secret.
    secret: Option<PathBuf>,
    #[serde(default)]
    format: Format,
    /// Where to begin when nothing is committed yet; else as the channel suggests.
    start: Option<First>,
    /// Whether the channel must keep what is not committed.
    #[serde(default = "yes")]
    reliable: bool,
    #[serde(default)]
    on_gap: OnGap,
    /// Whether it is over when everything was read that is there.
    #[serde(skip)]
    until_eof: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum First {
    Oldest,
    Latest,
    Resume,
}

impl HubSource {
    /// Has the source end when everything was read that is there.
    pub(crate) fn end_at_eof(&mut self) {
        self.until_eof = true;
    }

    /// Whether a block of the channel keeps what is not committed, if it has to.
    fn check(&self, spec: &BlockSpec) -> Result<(), HubError> {
        let lossy = spec.sync == SyncPolicy::LatestOnly || spec.overflow == Overflow::DropOldest;
        if !self.reliable || !lossy {
            return Ok(());
        }
        Err(HubError::Made {
            channel: self.channel.clone(),
            key: "source.reliable",
            found: format!("true for a channel with sync {:?} and overflow {:?}", spec.sync, spec.overflow),
            expected: "false, or the channel made to keep every slot until it is read".to_owned(),
        })
    }

    /// What it can do.
    pub fn abilities(&self) -> Abilities {
        let (replay, ack) =
            if self.reliable { (Replay::Limited, AckMode::Individual) } else { (Replay::No, AckMode::None) };
        Abilities { positions: Positions::Stable, replay, ack, ordered: true }
    }
}

/// A channel that is read.
#[derive(Debug)]
pub struct Hub {
    keys: HubSource,
    place: Place,
    waker: Waker,
    reading: Option<Reading>,
    lost: u64,
    newest: Newest,
    /// Outputs of sessions that were over when they were read (VX-751).
    stale: u64,
}

/// A place among the consumers of the channel's block.
#[derive(Debug)]
struct Reading {
    consumer: HandoverIterator,
    /// The block that is read.
    block: BlockUuid,
    /// Slots whose records are not committed, in their order.
    held: VecDeque<KeptSlot>,
    /// A record that was read and did not fit the budget.
    spare: Option<Input>,
    /// The id that is tried next.
    next: u64,
    /// Reading goes on when a slot was released.
    full: bool,
    bell: Arc<Bell>,
}

impl Hub {
    /// Looks for the channel.
    ///
    /// # Errors
    /// There is none, or it is not made as the keys say.
    pub fn open(keys: &HubSource, waker: Waker) -> Result<Self, SourceError> {
        let place = Place::new(&keys.channel, &keys.dir, keys.secret.as_deref())?;
        let found = place.known()?;
        let keys = keys.clone();
        let hub = Self { keys, place, waker, reading: None, lost: 0, newest: Newest::default(), stale: 0 };
        hub.keys.check(&found.descriptor.spec)?;
        Ok(hub)
    }

    fn attach(&self, start: Option<Start>) -> Result<Reading, SourceError> {
        let found = self.place.known()?;
        self.keys.check(&found.descriptor.spec)?;
        let config = ConsumerConfig {
            dir: self.place.dir.clone(),
            channel: Some(self.place.channel.clone()),
            secret: self.place.secret.clone(),
            start,
            // As many as a ring has: the vertex bounds what it reads by bytes.
            max_held: u16::MAX.into(),
            name: "vertex".to_owned(),
            ..ConsumerConfig::default()
        };
        let consumer =
            HandoverIterator::attach(&found.name, &config).map_err(|error| self.place.failed(error))?;
        let bell = Bell::start(self.waker.clone()).map_err(SourceError::Start)?;
        let next = consumer.consumer().position().0;
        let block = consumer.consumer().descriptor().uuid;
        Ok(Reading { consumer, block, held: VecDeque::new(), spare: None, next, full: false, bell })
    }

    /// Takes a place at `position`, or behind what is gone there.
    fn attach_at(&mut self, position: Position) -> Result<Reading, SourceError> {
        let error = match self.attach(Some(Start::At(SlotId(position.0)))) {
            Err(SourceError::Hub(HubError::Open { source, channel })) => match *source {
                OpenError::Registry(RegistryError::BadStart { floor, end, .. }) => {
                    gap(&channel, position.0, floor, end)
                }
                source => HubError::Open { source: Box::new(source), channel }.into(),
            },
            attached => return attached,
        };
        match error {
            SourceError::Trimmed { found, .. } if self.keys.on_gap == OnGap::Skip => {
                self.lost += found.0 - position.0;
                tracing::warn!(channel = %self.keys.channel, %error, "the gap is skipped");
                self.attach(Some(Start::Oldest))
            }
            error => Err(error),
        }
    }

    /// The next record, or what is there instead.
    fn next(&mut self, max: usize) -> Result<Next, SourceError> {
        let Some(reading) = &mut self.reading else { return Ok(Next::Nothing) };
        if let Some(input) = reading.spare.take() {
            return Ok(Next::Input(input));
        }
        let kept = reading.consumer.keep_next(|slot, bytes| {
            if bytes.len() > max { Err(slot.id().0) } else { Ok((slot.id().0, bytes.to_vec())) }
        });
        let (kept, read) = match kept {
            Ok(kept) => kept,
            Err(FollowError::Successor(error)) => return Err(self.place.failed(error).into()),
            Err(FollowError::Acquire(error)) => return self.without(error),
            Err(source) => {
                let channel = self.keys.channel.clone();
                return Err(HubError::Follow { channel, source: Box::new(source) }.into());
            }
        };
        let id = kept.id().0;
        let descriptor = reading.consumer.consumer().descriptor();
        if descriptor.uuid != reading.block {
            self.keys.check(&descriptor.spec)?;
            tracing::info!(channel = %self.keys.channel, block = %descriptor.uuid, "the channel has moved; it is read there");
            reading.block = descriptor.uuid;
        }
        if descriptor.spec.sync == SyncPolicy::LatestOnly {
            self.lost += id.saturating_sub(reading.next);
        }
        reading.next = id + 1;
        if self.keys.reliable {
            reading.held.push_back(kept);
        } else {
            let consumed = reading.consumer.consume_kept(kept);
            consumed.map_err(|error| self.failed(error))?;
        }
        match read {
            Err(id) => Err(SourceError::TooLong { position: Position(id), max }),
            Ok((id, bytes)) => self.input(id, bytes),
        }
    }

    /// There is no slot, for this reason.
    fn without(&mut self, why: AcquireError) -> Result<Next, SourceError> {
        match why {
            AcquireError::QueueEmpty if self.keys.until_eof => Ok(Next::Closed),
            AcquireError::QueueEmpty | AcquireError::Timeout | AcquireError::NotReady => Ok(Next::Nothing),
            // As many as there are slots are held.
            AcquireError::Locked { .. } => {
                if let Some(reading) = &mut self.reading {
                    reading.full = true;
                }
                Ok(Next::Nothing)
            }
            AcquireError::Closed { handed_over: false } => Ok(Next::Closed),
            AcquireError::Lapped { lost } => self.lapped(lost),
            error => Err(self.failed(error)),
        }
    }

    fn input(&mut self, id: u64, bytes: Vec<u8>) -> Result<Next, SourceError> {
        let record = match self.keys.format {
            Format::Value => Record::of(bytes),
            Format::Output => {
                let wrong = |(field, found, allowed)| HubError::Slot {
                    channel: self.keys.channel.clone(),
                    id,
                    field,
                    found,
                    allowed,
                };
                let (record, from) = origin::read(&bytes).map_err(wrong)?;
                if !self.newest.admits(&from) {
                    self.stale += 1;
                    return Ok(Next::Stale);
                }
                record
            }
        };
        Ok(Next::Input(Input { position: Position(id), next: Position(id + 1), record }))
    }

    /// Slots were overwritten before they were read.
    fn lapped(&mut self, lost: u64) -> Result<Next, SourceError> {
        let Some(reading) = &mut self.reading else { return Ok(Next::Nothing) };
        let from = reading.next;
        reading.next = from + lost;
        if self.keys.on_gap == OnGap::Stop {
            return Err(gap(&self.keys.channel, from, from + lost, u64::MAX));
        }
        self.lost += lost;
        Ok(Next::Stale)
    }

    fn failed(&self, source: AcquireError) -> SourceError {
        HubError::Read { channel: self.keys.channel.clone(), source }.into()
    }
}

/// What is there.
enum Next {
    Input(Input),
    /// Something that is no record of this source: the one behind it comes next.
    Stale,
    Nothing,
    Closed,
}

/// What comes at `wanted` is not there: it begins at `floor`, or ends at `end`.
fn gap(channel: &ChannelName, wanted: u64, floor: u64, end: u64) -> SourceError {
    let resume = Position(wanted);
    if wanted < floor {
        SourceError::Trimmed { name: channel.to_string(), resume, found: Position(floor) }
    } else {
        SourceError::Gap { resume, found: Position(end) }
    }
}

impl Source for Hub {
    fn abilities(&self) -> Abilities {
        self.keys.abilities()
    }

    fn partitions(&self) -> u32 {
        1
    }

    fn open(&mut self, _: PartitionId, from: Option<&Resume>) -> Result<Position, SourceError> {
        // The place of an earlier session.
        self.reading = None;
        let reading = match from {
            None => self.attach(self.keys.start.map(|first| match first {
                First::Oldest => Start::Oldest,
                First::Latest => Start::Latest,
                First::Resume => Start::Resume,
            }))?,
            Some(Resume { position, identity: Identity(known) }) => {
                let descriptor = self.place.known()?.descriptor;
                let before = descriptor.spec.predecessor.as_ref().map(|uuid| uuid.as_bytes());
                if known != descriptor.uuid.as_bytes() && before.is_none_or(|uuid| known != uuid) {
                    let name = self.keys.channel.to_string();
                    return Err(SourceError::Replaced { name, resume: *position, what: "its block" });
                }
                self.attach_at(*position)?
            }
        };
        let first = Position(reading.next);
        self.reading = Some(reading);
        Ok(first)
    }

    fn poll(&mut self, _: PartitionId, max: Budget) -> Result<Polled, SourceError> {
        let (mut inputs, mut room) = (Vec::new(), max.bytes);
        while inputs.len() < max.records {
            match self.next(max.value)? {
                Next::Input(input) => {
                    let len = input.record.len();
                    if len > room && !inputs.is_empty() {
                        if let Some(reading) = &mut self.reading {
                            reading.spare = Some(input);
                        }
                        break;
                    }
                    room = room.saturating_sub(len);
                    inputs.push(input);
                }
                Next::Stale => {}
                Next::Closed if inputs.is_empty() => return Ok(Polled::End),
                Next::Nothing if inputs.is_empty() => {
                    if let Some(reading) = self.reading.as_ref().filter(|reading| !reading.full)
                        && let Some(watcher) = reading.consumer.watcher()
                    {
                        reading.bell.ring_at(watcher, SlotId(reading.next));
                    }
                    return Ok(Polled::Idle);
                }
                Next::Closed | Next::Nothing => break,
            }
        }
        Ok(Polled::Inputs(inputs))
    }

    fn identity(&mut self, _: PartitionId, _: Position) -> Result<Identity, SourceError> {
        let uuid = self.reading.as_ref().map(|reading| reading.block);
        Ok(Identity(uuid.map_or_else(Vec::new, |uuid| uuid.as_bytes().to_vec())))
    }

    fn ack(&mut self, _: PartitionId, resume: Position, guard: &WriteGuard) -> Result<(), SourceError> {
        let (Some(reading), Ok(permit)) = (&mut self.reading, guard.permit(WriteKind::Source)) else {
            return Ok(());
        };
        while reading.held.front().is_some_and(|slot| slot.id().0 < resume.0)
            && let Some(slot) = reading.held.pop_front()
        {
            let released = reading.consumer.consume_kept(slot);
            if let Err(source) = released {
                return Err(HubError::Read { channel: self.keys.channel.clone(), source }.into());
            }
        }
        drop(permit);
        if std::mem::take(&mut reading.full) {
            self.waker.wake();
        }
        Ok(())
    }

    fn nack(&mut self, _: PartitionId, _: Position, _: tidegate_shm::clock::Nanos) {
        // What is held was not consumed: whoever reads next begins with it (DH-104).
        self.reading = None;
    }

    fn pending(&self, _: PartitionId) -> Option<u64> {
        self.reading.as_ref().map(|reading| reading.consumer.consumer().backlog())
    }

    fn lost(&self) -> u64 {
        self.lost
    }

    fn left_out(&self) -> u64 {
        self.stale
    }
}

/// Waits for the commit behind the last one, or for news of a handover, once each time it is asked to.
#[derive(Debug, Default)]
struct Bell {
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Debug, Clone, Default)]
enum Asked {
    #[default]
    Nothing,
    At(Arc<Watcher>, SlotId),
    End,
}

impl Bell {
    fn start(waker: Waker) -> std::io::Result<Arc<Self>> {
        let bell = Arc::new(Self::default());
        let asked = bell.clone();
        // It ends by itself soon after its source did; there is nothing to join it for.
        thread::Builder::new().name("hub source".to_owned()).spawn(move || asked.watch(&waker))?;
        Ok(bell)
    }

    fn ring_at(&self, watcher: Watcher, id: SlotId) {
        *self.lock() = Asked::At(Arc::new(watcher), id);
        self.changed.notify_one();
    }

    fn watch(&self, waker: &Waker) {
        loop {
            let mut asked = self.lock();
            while matches!(*asked, Asked::Nothing) {
                asked = self.changed.wait(asked).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            let Asked::At(watcher, id) = asked.clone() else { return };
            drop(asked);
            if watcher.wait(id, LOOK) {
                let mut asked = self.lock();
                if matches!(*asked, Asked::At(_, now) if now == id) {
                    *asked = Asked::Nothing;
                }
                drop(asked);
                waker.wake();
            }
        }
    }

    /// A word is whole at every moment, whoever panicked with the lock.
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        *self.bell.lock() = Asked::End;
        self.bell.changed.notify_one();
    }
}

fn yes() -> bool {
    true
}

/// After which a thread that waits for a commit looks whether it is still wanted, and what a wake-up that a dying producer did
/// not make costs (VX-323).
const LOOK: Duration = Duration::from_millis(100);
