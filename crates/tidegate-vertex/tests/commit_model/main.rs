//! Every run of two owners of one partition, their ledgers, the ownership store and a sink of class A, and that each rule of
//! recovery is needed (VX-783).
//!
//! Three records, four generations, two crashes at any step, claims at any time: no clock protects anybody. An owner that lost
//! its right goes on as a zombie until something refuses it. A step is one durable write or one message to the sink.
//!
//! In every state: no output is in the sink twice; everything below a committed resume position is in it; what a ledger calls
//! COMMITTED is what the store committed; nobody finds output that its own pipeline would not have written; and nobody throws
//! an epoch away that it alone has decided. Without any one of the rules ([`Mutant`]) some state breaks one of these.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod world;

use std::collections::{HashSet, VecDeque};

use world::{Mutant, RECORDS, SinkKind, World};

/// Looks at every state that can be reached. The number of states, how many of them are at the end, or what is broken.
fn explore(sink: SinkKind, left_out: &'static [Mutant]) -> Result<(usize, usize), String> {
    let start = World::new(sink, left_out);
    let mut seen = HashSet::from([start.clone()]);
    let mut open = VecDeque::from([start]);
    let mut finished = 0;
    while let Some(world) = open.pop_front() {
        world.check()?;
        finished += usize::from(world.resume() == RECORDS);
        for next in world.steps().into_iter().map(World::sorted) {
            if seen.insert(next.clone()) {
                open.push_back(next);
            }
        }
    }
    Ok((seen.len(), finished))
}

/// Rules: VX-783.
#[test]
fn a_strict_stream_is_right_in_every_state() {
    let (states, finished) = explore(SinkKind::Stream, &[]).unwrap();
    assert!(states > 10_000 && finished > 100, "{states} states, {finished} at the end");
}

/// Rules: VX-783.
#[test]
fn files_are_right_in_every_state() {
    let (states, finished) = explore(SinkKind::Files, &[]).unwrap();
    assert!(states > 10_000 && finished > 100, "{states} states, {finished} at the end");
}

/// Epochs may be cut in another way after a takeover then; what was found at the start decides what is published.
/// Rules: VX-783.
#[test]
fn a_strict_stream_is_right_without_intents() {
    let (states, finished) = explore(SinkKind::Stream, &[Mutant::NoIntents]).unwrap();
    assert!(states > 10_000 && finished > 100, "{states} states, {finished} at the end");
}

/// Rules: VX-783.
#[test]
fn without_any_one_rule_something_breaks() {
    let mutants: [(SinkKind, &[Mutant]); 6] = [
        (SinkKind::Stream, &[Mutant::EpochWithoutDigest]),
        (SinkKind::Stream, &[Mutant::NoChain]),
        (SinkKind::Stream, &[Mutant::NoIntents, Mutant::ReadBackForOneEpoch]),
        (SinkKind::Files, &[Mutant::NoIntents]),
        (SinkKind::Files, &[Mutant::SecondIntent]),
        (SinkKind::Stream, &[Mutant::IntentBeforeRestamp]),
    ];
    for (sink, left_out) in mutants {
        let broken = explore(sink, left_out);
        assert!(broken.is_err(), "without {left_out:?} nothing breaks in {broken:?} states");
    }
}
