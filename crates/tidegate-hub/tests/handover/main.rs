//! Channels that move to another block while they are used (25.10), between real processes.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

#[path = "../channel/children.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod children;
#[cfg(feature = "crash-points")]
mod deaths;
mod moves;
mod rules;
#[path = "../channel/world.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod world;

use std::{path::Path, thread, time::Instant};

use tidegate_hub::{
    config::HubConfig,
    consumer::{Consumer, HandoverIterator},
    error::{AcquireError, FollowError},
    layout::SyncPolicy,
    producer::Producer,
};

use children::PATIENCE;
use world::{consumer_config, number, ring};

/// A ring whose values every consumer gets.
fn all_readers(dir: &Path, slots: u32) -> HubConfig {
    HubConfig { sync: SyncPolicy::AllReaders, ..ring(dir, slots) }
}

fn follow(producer: &Producer) -> HandoverIterator {
    let dir = producer.path().parent().unwrap();
    HandoverIterator::attach(&producer.name(), &consumer_config(dir)).unwrap()
}

fn attach(producer: &Producer) -> Consumer {
    world::attach(producer, consumer_config(Path::new("")))
}

/// The next number there is, at once.
fn receive(iterator: &mut HandoverIterator) -> Option<u64> {
    match iterator.try_next() {
        Ok(slot) => Some(number(&slot.to_vec())),
        Err(FollowError::Acquire(AcquireError::QueueEmpty)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// All numbers there are.
fn drain(iterator: &mut HandoverIterator) -> Vec<u64> {
    std::iter::from_fn(|| receive(iterator)).collect()
}

/// Names of the blocks in a directory.
fn blocks(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("tidegate_")).collect();
    names.sort();
    names
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        thread::yield_now();
    }
}
