//! The registry in a file, and a broker that is killed while it writes.

use std::{fs, thread, time::Duration};

use tidegate_hub::broker::{
    Discovery, Loaded, RetryPolicy, Store,
    machine::{Saved, Snapshot},
    wire::{ChannelId, ClientId},
};

use crate::support::*;

/// No file by default; with one, it has the registry after a stop and no secret.
///
/// Rules: DH-212, DH-213, DH-164, N-35.
#[test]
fn the_registry_is_kept_only_when_asked() {
    let dir = private_dir();
    let file = dir.path().join("registry");
    let mut kept = config(dir.path());
    kept.persist = Some(file.clone());
    let broker = start(config(dir.path()));
    let producer = hub(broker.endpoint(), "p");
    let registration = producer.register(register("a", 1), Some(secret(0x5a, "a")), SOON).unwrap();
    broker.stop().unwrap();
    assert!(!file.exists());
    let broker = start(kept.clone());
    until("registered again", || registration.is_current() && broker.metrics().registry.channels == 1);
    drop((registration, producer));
    broker.stop().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("tidegate_a_00000001") && !text.contains(&"5a".repeat(32)));
    let broker = start(kept);
    let look = Discovery::of(channel("a")).verifier(secret(0x5a, "a"));
    assert!(hub(broker.endpoint(), "c").discover(&look, SOON, RetryPolicy::none()).is_ok());
}

/// A registry of so many channels, which says how many.
fn snapshot(count: u32) -> Snapshot {
    let saved = |number| Saved {
        id: ChannelId(number),
        client: ClientId::new("p").unwrap(),
        key: None,
        register: register(&format!("c{number}"), number),
    };
    Snapshot { last_id: count, channels: (1..=count).map(saved).collect(), ..Snapshot::default() }
}

/// A process that saves one registry after the other is killed at whatever moment: the file is one of them, whole, and no
/// older than the one that was known to be there.
///
/// Rules: DH-213, DH-214, M-15.
#[test]
fn a_writer_killed_at_any_moment_leaves_a_whole_file() {
    const TEST: &str = "persistence::a_writer_killed_at_any_moment_leaves_a_whole_file";
    if let Some((_, place)) = role() {
        let store = Store::new(place.registry());
        for round in 0_u32.. {
            store.save(&snapshot(1 + round % 300)).unwrap();
        }
    }
    let (_dir, place) = place();
    let store = Store::new(place.registry());
    for round in 0..12 {
        let writer = Actor::start(TEST, "writer", &place);
        until("a first file", || place.registry().exists());
        // A different moment each time; any will do.
        thread::sleep(Duration::from_micros(1 + 700 * round));
        writer.kill();
        let Loaded::Registry(found) = store.load().unwrap() else { panic!("torn in round {round}") };
        assert_eq!(found, snapshot(found.last_id));
        fs::remove_file(place.registry()).unwrap();
    }
}

/// However many registrations come, the file is written at most once a second.
///
/// Rules: DH-213, N-35.
#[test]
fn changes_are_collected_before_they_are_written() {
    let dir = private_dir();
    let mut config = config(dir.path());
    config.persist = Some(dir.path().join("registry"));
    let broker = start(config);
    let hub = hub(broker.endpoint(), "p");
    let started = std::time::Instant::now();
    let _registrations: Vec<_> =
        (1..=100).map(|at| hub.register(open_register(&format!("c{at}"), at), None, SOON).unwrap()).collect();
    until("the last write", || {
        let text = fs::read_to_string(dir.path().join("registry")).unwrap_or_default();
        text.contains("tidegate_c100_")
    });
    let most = 2 + started.elapsed().as_secs();
    let saves = broker.metrics().saves;
    assert!((1..=most).contains(&saves), "{saves} writes, at most {most} expected");
}
