//! Channels in a directory of their own.

use std::{path::Path, time::Duration};

use tempfile::TempDir;
use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    layout::{ChannelName, DigestAlg},
    producer::Producer,
};

/// Longer than anything takes that works.
pub(crate) const LONG: Timeout = Timeout::After(Duration::from_secs(30));
pub(crate) const NOW: Timeout = Timeout::Immediate;

pub(crate) fn place() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// A channel of 64-byte slots without digests.
pub(crate) fn config(dir: &Path, policy: BufferPolicy) -> HubConfig {
    let name = ChannelName::new("camera").unwrap();
    HubConfig { dir: dir.to_owned(), digest_alg: DigestAlg::None, ..HubConfig::new(name, policy, 64) }
}

pub(crate) fn ring(dir: &Path, slots: u32) -> HubConfig {
    config(dir, BufferPolicy::ring(slots))
}

pub(crate) fn consumer_config(dir: &Path) -> ConsumerConfig {
    ConsumerConfig { dir: dir.to_owned(), ..ConsumerConfig::default() }
}

pub(crate) fn attach(producer: &Producer, config: ConsumerConfig) -> Consumer {
    let dir = producer.path().parent().unwrap().to_owned();
    Consumer::attach(&producer.name(), &ConsumerConfig { dir, ..config }).unwrap()
}

/// Sends a number.
pub(crate) fn send(producer: &Producer, number: u64) -> u64 {
    producer.send(&number.to_le_bytes(), LONG).unwrap().0
}

/// Sends numbers, one after the other.
pub(crate) fn send_all(producer: &Producer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        send(producer, number);
    }
}

/// The next number there is, at once.
pub(crate) fn receive(consumer: &mut Consumer) -> Option<u64> {
    consumer.try_next().ok().map(|slot| number(&slot.to_vec()))
}

pub(crate) fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}
