//! Vertices between channels of the data hub, killed while they work.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use tidegate_hub::{
    config::{BufferPolicy, ConsumerConfig, HubConfig, Timeout},
    consumer::Consumer,
    error::AcquireError,
    layout::ChannelName,
    producer::Producer,
};
use tidegate_vertex::run::Vertex;

use crate::world::{World, ledger, of, runtime, runtime_place, with_ledger};

const PATIENCE: Duration = Duration::from_secs(120);
const RECORDS: u64 = 600;

/// Runs `test` in a process of its own and kills it when `enough` is true.
fn kill_when(test: &str, world: &World, mut enough: impl FnMut() -> bool) {
    let mut runtime = runtime(test, world).spawn().unwrap();
    let give_up = Instant::now() + PATIENCE;
    while !enough() {
        assert!(Instant::now() < give_up && runtime.try_wait().unwrap().is_none(), "it does not come so far");
        std::thread::sleep(Duration::from_millis(1));
    }
    runtime.kill().unwrap();
    runtime.wait().unwrap();
}

fn line_count(world: &World) -> usize {
    let text = std::fs::read(world.path("out")).unwrap_or_default();
    text.iter().filter(|&&byte| byte == b'\n').count()
}

/// A ring that is far shorter than what goes through it: the producer waits for every vertex that is killed.
/// Rules: VX-701, VX-762, VX-830.
#[test]
fn a_channel_is_read_through_kills_and_every_slot_has_its_effect_once() {
    let source = |dir: &Path| format!("kind = \"hub\"\nchannel = \"in\"\ndir = {dir:?}");
    if let Some(dir) = runtime_place() {
        Vertex::start(with_ledger(&dir, "slow upper", &source(&dir))).unwrap().run().unwrap();
        return;
    }
    let test = "hub::a_channel_is_read_through_kills_and_every_slot_has_its_effect_once";
    let world = World::new();
    let mut config = HubConfig::new(ChannelName::new("in").unwrap(), BufferPolicy::ring(64), 64);
    config.dir = world.path("");
    let producer = Producer::create(&config).unwrap();
    let sending = std::thread::spawn(move || {
        for number in 0..RECORDS {
            producer.send(format!("0:{number}").as_bytes(), Timeout::After(PATIENCE)).unwrap();
        }
        producer
    });
    for share in 1..=2 {
        kill_when(test, &world, || line_count(&world) >= (RECORDS * share / 4) as usize);
    }
    let dir = world.path("");
    let vertex = Vertex::start(with_ledger(&dir, "upper", &source(&dir))).unwrap();
    // Attached, so it reads to the end of a channel that is closed.
    let running = std::thread::spawn(move || vertex.run().unwrap());
    sending.join().unwrap().close().unwrap();
    let report = running.join().unwrap();
    assert!(report.read > 0 && report.read < RECORDS, "{report:?}");
    let expected: Vec<String> = (0..RECORDS).map(|number| format!("UPPER 0:{number}")).collect();
    assert_eq!(world.lines(), expected);
}

/// Rules: VX-762, VX-851.
#[test]
fn a_channel_is_taken_over_from_a_vertex_that_was_killed_and_its_reader_misses_nothing() {
    let pipeline = |dir: &Path, role: &str| {
        let rest = ledger(dir) + "[epoch]\ninterval = \"10ms\"";
        let source = format!("kind = \"generator\"\nrecords = {RECORDS}");
        let sink = format!(
            "[[sink]]\nname = \"main\"\nkind = \"hub\"\nchannel = \"out\"\ndir = {dir:?}\nslots = 64\nslot_size = \"256B\""
        );
        of(dir, "at_least_once", role, &rest, &source, &sink).parse().unwrap()
    };
    if let Some(dir) = runtime_place() {
        Vertex::start(pipeline(&dir, "slow upper")).unwrap().run().unwrap();
        return;
    }
    let test = "hub::a_channel_is_taken_over_from_a_vertex_that_was_killed_and_its_reader_misses_nothing";
    let world = World::new();
    let mut reader: Option<Consumer> = None;
    let mut seen = Vec::new();
    let mut read = |reader: &mut Option<Consumer>| {
        if reader.is_none() {
            let options = tidegate_hub::block::AttachOptions {
                dir: world.path(""),
                ..tidegate_hub::block::AttachOptions::new(tidegate_hub::block::Role::Consumer)
            };
            let found = tidegate_hub::block::find(&ChannelName::new("out").unwrap(), &options).unwrap();
            let Some(found) = found.first() else { return false };
            let config = ConsumerConfig { dir: world.path(""), ..ConsumerConfig::default() };
            *reader = Consumer::attach(&found.name, &config).ok();
        }
        let Some(reader) = reader else { return false };
        loop {
            match reader.try_next() {
                Ok(slot) => {
                    let bytes = slot.to_vec();
                    let len = u32::from_le_bytes(bytes[bytes.len() - 20..][..4].try_into().unwrap());
                    seen.push(String::from_utf8(bytes[..len as usize].to_vec()).unwrap());
                }
                Err(AcquireError::Closed { .. }) => return true,
                Err(AcquireError::QueueEmpty) => return false,
                Err(error) => panic!("{error}"),
            }
        }
    };
    for share in 1..=2 {
        kill_when(test, &world, || {
            assert!(!read(&mut reader), "closed by a vertex that was killed");
            let at = reader.as_ref().map_or(0, |reader| reader.slots_consumed());
            at >= RECORDS * share / 4
        });
    }
    let dir = world.path("");
    let vertex = Vertex::start(pipeline(&dir, "upper")).unwrap();
    let running = std::thread::spawn(move || vertex.run().unwrap());
    let give_up = Instant::now() + PATIENCE;
    while !read(&mut reader) {
        assert!(Instant::now() < give_up, "the channel is not closed");
        std::thread::sleep(Duration::from_millis(1));
    }
    let report = running.join().unwrap();
    assert!(report.read < RECORDS, "began anew");
    let found: BTreeSet<&str> = seen.iter().map(String::as_str).collect();
    let expected: Vec<String> = (0..RECORDS).map(|number| format!("UPPER 0:{number}")).collect();
    assert_eq!(found, expected.iter().map(String::as_str).collect());
}
