//! Processes that make blocks and end (K-35, K-36), or are two at once (L-20).

use std::{path::Path, sync::Barrier, thread};

use tidegate_hub::{
    block::{CreateError, names},
    config::HubConfig,
    error::OpenError,
    inspect::BlockLife,
    layout::BlockUuid,
    producer::Producer,
};

use super::{Bystander, KILLED, Use, goes_on, inspect, is_valid, join};
use crate::{
    children::{Child, linger, role, say},
    world::{LONG, place},
};

/// A block with a name that others may want as well.
fn named(dir: &Path) -> HubConfig {
    HubConfig { uuid: Some(BlockUuid::new([7; 16]).unwrap()), ..Use::AllReaders.config(dir) }
}

/// Rules: DH-016, DH-298, K-35, K-36.
#[test]
fn makers_that_end_leave_a_whole_block_or_none() {
    let test = "points::creation::makers_that_end_leave_a_whole_block_or_none";
    if let Some(task) = role("maker") {
        let _producer = Producer::create(&named(&task.dir));
        return;
    }
    for (step, is_there) in [("c.alloc", false), ("c.link", true)] {
        let dir = place();
        let mut maker = Child::start_at(test, "maker", dir.path(), "", Some(step));
        assert_eq!(maker.signal(), KILLED, "{step}");
        let files: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), usize::from(is_there), "{step}: {files:?}");
        let producer = if is_there {
            let name = names(dir.path()).unwrap().remove(0);
            let inspector = inspect(&name, dir.path());
            assert_eq!(inspector.life(), BlockLife::Reclaimable, "{step}");
            is_valid(&inspector, step);
            assert!(matches!(
                Producer::create(&named(dir.path())).err(),
                Some(OpenError::Create(CreateError::AlreadyExists { .. }))
            ));
            Producer::adopt(&name, &named(dir.path()), LONG).unwrap()
        } else {
            Producer::create(&named(dir.path())).unwrap()
        };
        let mut other = Bystander::new(join(&producer.name(), dir.path()));
        goes_on(&producer, &mut other);
    }
}

/// Rules: DH-017, L-20.
#[test]
fn of_those_who_make_one_block_at_once_one_does() {
    let test = "points::creation::of_those_who_make_one_block_at_once_one_does";
    if let Some(task) = role("maker") {
        while !task.dir.join("now").exists() {
            thread::yield_now();
        }
        let made = Producer::create(&named(&task.dir));
        match &made {
            Ok(producer) => say(format!("made {}", producer.name())),
            Err(OpenError::Create(CreateError::AlreadyExists { .. })) => say("made nothing"),
            Err(error) => say(format!("made {error:?}")),
        }
        linger();
        return;
    }
    for _ in 0..5 {
        let dir = place();
        let mut makers: Vec<_> = (0..4).map(|_| Child::start(test, "maker", dir.path(), "")).collect();
        std::fs::write(dir.path().join("now"), "").unwrap();
        let mut said: Vec<String> = makers.iter_mut().map(|maker| maker.wait_for("made")).collect();
        said.sort();
        let name = Use::AllReaders.config(dir.path()).channel.file_name(&BlockUuid::new([7; 16]).unwrap());
        assert_eq!(said, ["nothing", "nothing", "nothing", &name]);
        is_valid(&inspect(&name, dir.path()), "made by one");
    }
}

/// Threads of one process: the others are told that this process writes the block already.
/// Rules: DH-039.
#[test]
fn of_threads_that_make_one_block_at_once_one_does() {
    let dir = place();
    let barrier = Barrier::new(4);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let make = || {
            barrier.wait();
            Producer::create(&named(dir.path()))
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let refused =
        outcomes.iter().filter(|outcome| matches!(outcome, Err(OpenError::Create(CreateError::Locked))));
    assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), refused.count()), (1, 3));
}
