//! Outputs as slots of a data-hub channel: class C, and a confirmation means that the slot is committed (VX-851).
//!
//! The sink is the channel's only producer. A full ring is waited for, so consumers that are slow stop the source; where the
//! channel is made with `overflow = "drop_oldest"` they lose slots instead. The channel is made when there is none, taken over
//! when its producer is dead, and closed when the vertex ends.

use std::{num::NonZeroU32, path::PathBuf};

use serde::Deserialize;
use tidegate_hub::{
    block::AttachError,
    config::{BufferPolicy, HubConfig, Timeout},
    error::{AcquireError, OpenError, WriteError},
    layout::{BlockSpec, ChannelName, Overflow, SyncPolicy},
    producer::Producer,
};
use tidegate_shm::clock::Nanos;

use super::{Class, Confirms, Delivery, NotPut, Output, Published, Sink, SinkError, one_by_one};
use crate::{
    config::units::Bytes,
    fence::{WriteGuard, WriteKind},
    hub::{HubError, Place, channel_name, default_dir},
    origin::{self, Origin},
};

/// The keys of a sink of kind `hub`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSink {
    #[serde(deserialize_with = "channel_name")]
    channel: ChannelName,
    /// Directory of the blocks.
    #[serde(default = "default_dir")]
    dir: PathBuf,
    /// Key file, for a channel that has a secret.
    secret: Option<PathBuf>,
    /// Slots of the ring.
    #[serde(default = "slots")]
    slots: NonZeroU32,
    /// Bytes of a slot.
    #[serde(default = "slot_size")]
    slot_size: Bytes,
    #[serde(default)]
    sync: Sync,
    #[serde(default)]
    overflow: OnFull,
}

/// Which outputs a consumer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sync {
    /// Every one, for one consumer.
    #[default]
    Single,
    /// Every one, for each consumer.
    All,
}

/// What a full ring does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnFull {
    #[default]
    Block,
    DropOldest,
}

impl HubSink {
    fn config(&self, place: &Place) -> HubConfig {
        let policy = BufferPolicy::RingBuffer(self.slots);
        let mut config = HubConfig::new(self.channel.clone(), policy, self.slot_size.0);
        config.sync = match self.sync {
            Sync::Single => SyncPolicy::SingleReader,
            Sync::All => SyncPolicy::AllReaders,
        };
        config.overflow = match self.overflow {
            OnFull::Block => Overflow::Block,
            OnFull::DropOldest => Overflow::DropOldest,
        };
        config.dir.clone_from(&place.dir);
        config.identity.producer_name = "tidegate vertex".to_owned();
        match &place.secret {
            Some(secret) => config.with_secret(secret.clone()),
            None => config,
        }
    }
}

/// A channel that is written.
#[derive(Debug)]
pub struct Hub {
    name: String,
    channel: ChannelName,
    pipeline: u64,
    producer: Producer,
    /// The payload of one slot.
    buffer: Vec<u8>,
}

impl Hub {
    /// Makes the channel, or takes it over from a producer that is dead. Outputs are of this pipeline.
    ///
    /// # Errors
    /// Somebody produces it, or it is made in another way.
    pub fn open(name: &str, keys: &HubSink, pipeline: u64) -> Result<Self, SinkError> {
        let failed = |source: HubError| SinkError::Hub { sink: name.to_owned(), source: Box::new(source) };
        let place = Place::new(&keys.channel, &keys.dir, keys.secret.as_deref()).map_err(failed)?;
        let config = keys.config(&place);
        let opened = match place.find().map_err(failed)? {
            None => Producer::create(&config),
            Some(found) => {
                check(&keys.channel, &found.descriptor.spec, &config).map_err(failed)?;
                match Producer::adopt(&found.name, &config, Timeout::Default) {
                    // Its producer died while it closed it, or was cut off: it is over now, and this is the next one.
                    Err(OpenError::Attach(AttachError::Closed)) => Producer::create(&config),
                    adopted => adopted,
                }
            }
        };
        let producer = opened.map_err(|error| failed(place.failed(error)))?;
        let channel = keys.channel.clone();
        Ok(Self { name: name.to_owned(), channel, pipeline, producer, buffer: Vec::new() })
    }

    /// The block that is written.
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Writes one output; why not, if it was not.
    fn put(
        &mut self,
        output: &Output,
        delivery: &Delivery<'_>,
        guard: &WriteGuard,
    ) -> Result<Option<NotPut>, SinkError> {
        let from = Origin {
            pipeline: self.pipeline,
            generation: delivery.session.generation,
            epoch: delivery.epoch,
            partition: delivery.session.partition,
            position: output.position,
            number: output.number,
        };
        let (needed, room) = (origin::len(&output.record), self.producer.descriptor().spec.slot_size);
        if needed > room || !origin::write(&output.record, &from, &mut self.buffer) {
            let reason = format!("it takes {needed} bytes, a slot of channel {} has {room}", self.channel);
            return Ok(Some(NotPut::Never(reason)));
        }
        let mut slot = match self.producer.try_write() {
            Ok(slot) => slot,
            Err(AcquireError::QueueFull | AcquireError::Timeout | AcquireError::NotReady) => {
                return Ok(Some(NotPut::Later(format!("channel {} is full", self.channel))));
            }
            Err(error) => return Err(self.failed(error.into())),
        };
        slot.set_user_flags(from.generation.0);
        slot.put_bytes(&self.buffer).map_err(|error| self.failed(error))?;
        // Between the acquisition and the commit of the slot: one that is dropped here is aborted.
        let permit = guard.permit(WriteKind::Sink)?;
        let committed = slot.commit();
        drop(permit);
        committed.map(|_| None).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: WriteError) -> SinkError {
        let source = Box::new(HubError::Write { channel: self.channel.clone(), source });
        SinkError::Hub { sink: self.name.clone(), source }
    }
}

impl Sink for Hub {
    fn class(&self) -> Class {
        Class::C
    }

    fn confirms(&self) -> Confirms {
        Confirms::Queued
    }

    fn publish(&mut self, delivery: &Delivery<'_>, guard: &WriteGuard) -> Result<Published, SinkError> {
        one_by_one(delivery.outputs, AGAIN, |output| self.put(output, delivery, guard))
    }
}

/// Compares how a channel is made with how the pipeline file wants it.
fn check(channel: &ChannelName, found: &BlockSpec, wanted: &HubConfig) -> Result<(), HubError> {
    let differs: [(&'static str, String, String); 4] = [
        ("slots", found.slot_count.to_string(), wanted.policy.slot_count().to_string()),
        ("slot_size", found.slot_size.to_string(), wanted.slot_size.to_string()),
        ("sync", format!("{:?}", found.sync), format!("{:?}", wanted.sync)),
        ("overflow", format!("{:?}", found.overflow), format!("{:?}", wanted.overflow)),
    ];
    match differs.into_iter().find(|(_, found, expected)| found != expected) {
        None => Ok(()),
        Some((key, found, expected)) => {
            Err(HubError::Made { channel: channel.clone(), key, found, expected })
        }
    }
}

fn slots() -> NonZeroU32 {
    NonZeroU32::new(1024).unwrap_or(NonZeroU32::MIN)
}

fn slot_size() -> Bytes {
    Bytes(16 << 10)
}

/// When a full ring is looked at again.
const AGAIN: Nanos = Nanos::from_millis(5);
