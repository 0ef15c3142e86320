//! Chaos: four channels, three producers that take them over from each other, and eight readers at full speed, each in a
//! process of its own, that are killed and stopped at random and started again. Nobody helps; at the end what everybody wrote down must fit together.
//!
//! `TIDEGATE_CHAOS_SECONDS` says for how long (a minute; a day is the soak of R-08), `TIDEGATE_CHAOS_SEED` repeats what is
//! done to whom.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod crowd;
mod dice;
mod journal;
mod judge;
mod judged;
mod plan;
mod roles;

use std::time::{Duration, Instant, SystemTime};

use crowd::Crowd;
use plan::{CHANNELS, READERS};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn seed() -> u64 {
    let seed = number("TIDEGATE_CHAOS_SEED")
        .unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 & 0xFFFF_FFFF);
    println!("TIDEGATE_CHAOS_SEED={seed}");
    seed
}

/// A minute of it here; `make chaos` takes ten.
///
/// Rules: K-40, R-08, DH-035, DH-065, DH-068, DH-071, DH-081, DH-082, DH-084, DH-103, DH-104, DH-110, DH-112, DH-113, DH-237.
#[test]
fn whoever_is_killed_nothing_is_lost_twice_read_or_stuck() {
    if let Ok(role) = std::env::var(roles::ROLE) {
        roles::run(&role);
    }
    let length = Duration::from_secs(number("TIDEGATE_CHAOS_SECONDS").unwrap_or(60));
    let seed = seed();
    let began = Instant::now();
    let mut crowd = Crowd::start("whoever_is_killed_nothing_is_lost_twice_read_or_stuck", seed);
    while began.elapsed() < length {
        crowd.burst();
    }
    let (history, counts) = (crowd.history(), crowd.counts());
    let remains = crowd.end();
    let faults: Vec<String> = remains.iter().flat_map(judge::judge).collect();
    assert!(faults.is_empty(), "seed {seed}, {counts}:\n{}\nafter\n{history}", faults.join("\n"));
    for remains in &remains {
        println!("{}: {} ids, {:?}", remains.name, remains.end.write_index, remains.end.counters);
    }
    println!("{counts}, all well");
}

/// How long is printed, not judged: that depends on what else the machine does.
/// Rules: DH-079, DH-237.
#[test]
fn the_dead_are_cleaned_up_after_without_anybody_asking() {
    if let Ok(role) = std::env::var(roles::ROLE) {
        roles::run(&role);
    }
    let mut crowd = Crowd::start("the_dead_are_cleaned_up_after_without_anybody_asking", seed());
    let report = |who: &str, mut times: Vec<Duration>| {
        times.sort_unstable();
        println!("{who}: median {:?}, longest {:?}", times[times.len() / 2], times[times.len() - 1]);
    };
    let readers = (0..20).map(|round| {
        let place = round % READERS.len();
        crowd.time_after_death(place, |crowd, key| crowd.forgot(READERS[place].channel, key))
    });
    report("rows of dead readers", readers.collect());
    let writers = (0..10).map(|round| {
        let writer = crowd.await_writer(round % CHANNELS.len());
        crowd.time_after_death(writer, |crowd, key| (0..CHANNELS.len()).all(|index| crowd.forgot(index, key)))
    });
    report("slots of a dead writer", writers.collect());
    let faults: Vec<String> = crowd.end().iter().flat_map(judge::judge).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
