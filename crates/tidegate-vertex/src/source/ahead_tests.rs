//! A thread that reads faster than anybody takes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    sync::mpsc::{Receiver, channel},
    thread::{JoinHandle, yield_now},
    time::{Duration, Instant},
};

use super::*;
use crate::batch::Record;

const ALL: Budget = Budget { records: 1000, bytes: 1 << 20, value: 100 };

fn input(position: u64, len: usize) -> Input {
    let record = Record::of(vec![position as u8; len]);
    Input { position: Position(position), next: Position(position + 1), record }
}

/// Bytes of a record with a value of eight.
fn one() -> usize {
    input(0, 8).record.len()
}

/// A queue with room for three records, and a word for each time it woke somebody.
fn queue() -> (Feed, Ahead, Receiver<()>) {
    let (wake, woken) = channel();
    let (feed, ahead) = ahead(3 * one(), Waker::new(move || wake.send(()).unwrap_or_default()));
    (feed, ahead, woken)
}

/// Reads `count` records in a thread; how many were taken from it.
fn reading(feed: Feed, count: u64) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let taken = (0..count).take_while(|&position| feed.push(input(position, 8))).count() as u64;
        feed.end(None);
        taken
    })
}

fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < give_up, "{what}: never");
        yield_now();
    }
}

fn positions(polled: Polled) -> Vec<u64> {
    let Polled::Inputs(inputs) = polled else { panic!("{polled:?}") };
    inputs.iter().map(|input| input.position.0).collect()
}

/// Rules: VX-310, VX-831.
#[test]
fn a_reader_waits_when_nobody_takes() {
    let (feed, mut ahead, woken) = queue();
    assert_eq!(ahead.poll(ALL).unwrap(), Polled::Idle);
    let reader = reading(feed, 100);
    woken.recv_timeout(Duration::from_secs(60)).unwrap();
    until("a full queue", || ahead.len() >= 3);
    // Time for what must not happen.
    let later = Instant::now() + Duration::from_millis(10);
    while Instant::now() < later {
        assert!(ahead.len() == 3 && !reader.is_finished(), "read on");
    }
    let mut read = Vec::new();
    until("all", || {
        assert!(ahead.len() <= 3);
        match ahead.poll(Budget { records: 2, ..ALL }).unwrap() {
            Polled::Inputs(inputs) => {
                assert!(inputs.len() <= 2);
                read.extend(inputs.iter().map(|input| input.position.0));
                false
            }
            Polled::Idle => false,
            Polled::End => true,
            unfit @ Polled::Unfit(..) => panic!("{unfit:?}"),
        }
    });
    assert_eq!(read, (0..100).collect::<Vec<_>>());
    assert_eq!(reader.join().unwrap(), 100);
    assert_eq!(ahead.poll(ALL).unwrap(), Polled::End, "the end stays");
}

/// Rules: VX-831.
#[test]
fn a_reader_ends_with_its_vertex() {
    let (feed, ahead, _woken) = queue();
    let reader = reading(feed, 100);
    until("a full queue", || ahead.len() == 3);
    drop(ahead);
    assert_eq!(reader.join().unwrap(), 3);
}

/// Rules: VX-213, VX-831.
#[test]
fn a_poll_keeps_its_budget() {
    let (feed, mut ahead, _woken) = queue();
    for position in 0..3 {
        assert!(feed.push(input(position, 8)));
    }
    let two = Budget { bytes: 2 * one() + 1, ..ALL };
    assert_eq!(positions(ahead.poll(two).unwrap()), [0, 1]);
    // One goes whatever it takes.
    assert_eq!(positions(ahead.poll(Budget { bytes: 1, ..ALL }).unwrap()), [2]);
    assert!(feed.push(input(3, 100)));
    assert_eq!(positions(ahead.poll(ALL).unwrap()), [3]);
    assert!(feed.push(input(4, 101)));
    assert!(matches!(ahead.poll(ALL), Err(SourceError::TooLong { position: Position(4), max: 100 })));
}

#[test]
fn why_there_is_no_more_is_said_once_the_rest_was_taken() {
    let (feed, mut ahead, woken) = queue();
    assert!(feed.push(input(0, 8)));
    woken.try_recv().unwrap();
    feed.end(Some(SourceError::NoEndpoint));
    woken.try_recv().unwrap();
    assert_eq!(positions(ahead.poll(ALL).unwrap()), [0]);
    assert!(matches!(ahead.poll(ALL), Err(SourceError::NoEndpoint)));
}
