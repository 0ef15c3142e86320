//! Whole vertices between two streams, killed and started again.

use std::{sync::mpsc, time::Duration};

use async_nats::jetstream::stream::Config;
use tidegate_udf::wire::ids::{PartitionId, Position};
use tidegate_vertex::{
    ledger::inspect,
    run::{Vertex, VertexError},
    source::{self, Budget, Polled, Source, SourceError},
    wake::Waker,
};

use crate::{
    server::{plain, strict},
    world::{IDS, PARTITIONED, SHARED, STRICT, World, expected, until},
};

const RECORDS: u64 = 3_000;
/// Where runtimes are killed.
const AIMS: [u64; 3] = [RECORDS / 2, RECORDS, RECORDS * 3 / 2];

/// Cases: CT-38.
/// Rules: VX-835, VX-836, VX-840, VX-845, VX-848.
#[test]
fn strict_streams_have_every_output_once_however_often_the_vertex_is_killed() {
    let world = World::new(STRICT);
    world.input(RECORDS);
    world.create_strict();
    let stored = || world.stored(&["OUT0", "OUT1"]);
    world.kill_on_the_way(&AIMS, stored, || world.outputs() >= 2 * RECORDS);
    world.is_whole(RECORDS);
}

/// Cases: CT-38, CT-40.
/// Rules: VX-835, VX-843, VX-844.
#[test]
fn a_stream_with_ids_has_every_output_once_however_often_the_vertex_is_killed() {
    let world = World::new(IDS);
    world.input(RECORDS);
    world.server.create(plain("OUT", "out.*"));
    let stored = || world.stored(&["OUT"]);
    world.kill_on_the_way(&AIMS, stored, || stored() >= 2 * RECORDS);
    let values = world.server.values("OUT");
    for partition in 0..2 {
        let prefix = format!("P{partition}-");
        let own: Vec<&String> = values.iter().filter(|value| value.starts_with(&prefix)).collect();
        assert!(own.iter().copied().eq(&expected(partition, 0..RECORDS)), "partition {partition}");
    }
}

/// Each session leaves a barrier, and nothing else when there is nothing to write; the next one comes when it is gone.
/// Rules: VX-848, VX-856.
#[test]
fn a_quiet_partition_is_claimed_however_long_ago_the_last_barrier_expired() {
    for rest in ["", SHARED] {
        let world = World { delivery: "effectively_once", rest, ..World::new(STRICT) };
        let (max_age, duplicate_window) = (Duration::from_secs(3_600), Duration::from_millis(100));
        let outs = ["OUT0", "OUT1"].map(|name| {
            let subjects = vec![format!("{name}.>")];
            Config { subjects, max_age, duplicate_window, ..strict(name) }
        });
        outs.iter().for_each(|config| world.server.create(config.clone()));
        world.server.create(plain("IN", "in.*"));
        // The other one has never had an output.
        world.server.produce("in.0", (0..10).map(|number| format!("p0-{number}")));
        world.run_until("written", || world.stored(&["OUT0", "OUT1"]) >= 12);
        for _ in 0..2 {
            outs.iter().for_each(|config| world.server.expire(config));
            world.run_until("claimed", || ["OUT0", "OUT1"].iter().all(|out| world.stored(&[out]) > 0));
        }
        outs.iter().for_each(|config| world.server.expire(config));
        world.produce(10..20);
        world.run_until("written", || world.outputs() >= 20);
        assert_eq!(world.server.values("OUT0"), expected(0, 10..20));
        assert_eq!(world.server.values("OUT1"), expected(1, 10..20));
    }
}

/// Cases: CT-48.
/// Rules: VX-832, VX-833.
#[test]
fn a_stream_that_was_made_anew_or_trimmed_is_refused() {
    let world = World::new(IDS);
    world.input(RECORDS);
    world.server.create(plain("OUT", "out.*"));
    // One that is killed before its first commit remembers nothing that could be missed.
    let ledger = world.dir.path().join("one");
    let has_committed = || {
        let found = inspect(&ledger, None).unwrap();
        found.is_some_and(|found| found.to_string().contains(r#""status":"committed""#))
    };
    while !has_committed() {
        let _killed = world.start("one");
        until("written", || world.stored(&["OUT"]) >= 500);
        // That is so from the second time on; an epoch wants a little longer.
        std::thread::sleep(Duration::from_millis(500));
    }
    let nats = world.server.connect();
    let refused = || match Vertex::start(world.pipeline("one")).err().unwrap() {
        VertexError::Source(error) => error,
        other => panic!("{other}"),
    };
    let (stream, info) = nats.stream("IN").unwrap();
    nats.wait(async { stream.purge().sequence(info.state.last_sequence).await }).unwrap().unwrap();
    let error = refused();
    assert!(matches!(error, SourceError::Trimmed { .. }), "{error}");
    nats.wait(nats.context().delete_stream("IN")).unwrap().unwrap();
    world.input(RECORDS);
    let error = refused();
    assert!(
        matches!(error, SourceError::Replaced { what: "the time when the stream was made", .. }),
        "{error}"
    );
}

/// The source of a vertex, by itself.
struct Reader {
    source: Box<dyn Source>,
    woken: mpsc::Receiver<()>,
    /// Where reading goes on.
    next: Position,
}

impl Reader {
    /// Begins to read partition 0.
    fn start(world: &World) -> Self {
        let (wake, woken) = mpsc::channel();
        let waker = Waker::new(move || wake.send(()).unwrap_or(()));
        let mut source = source::open(&world.pipeline("one").source, &waker).unwrap();
        let next = source.open(PartitionId(0), None).unwrap();
        Self { source, woken, next }
    }

    /// The next values, at most so many.
    fn take(&mut self, records: usize) -> Result<Vec<String>, SourceError> {
        loop {
            match self.source.poll(PartitionId(0), Budget { records, bytes: 1 << 20, value: 1 << 20 })? {
                Polled::Inputs(inputs) => {
                    self.next = inputs.last().unwrap().next;
                    let values = inputs.iter().map(|input| input.record.value.to_vec());
                    return Ok(values.map(|value| String::from_utf8(value).unwrap()).collect());
                }
                Polled::Idle => self.woken.recv_timeout(Duration::from_secs(60)).unwrap(),
                other => panic!("a stream does not end: {other:?}"),
            }
        }
    }
}

/// A reader that is full does not ask, and a consumer of the server goes silently over what is removed meanwhile.
/// Cases: CT-48.
/// Rules: VX-003, VX-832, VX-835.
#[test]
fn what_is_trimmed_while_nobody_reads_stops_the_source_where_it_is_missing() {
    let world = World::new(IDS);
    world.input(RECORDS);
    let mut reader = Reader::start(&world);
    // Of partition 0 there is more than twice of what is read ahead.
    let mut taken = reader.take(1).unwrap();
    let nats = world.server.connect();
    let (stream, info) = nats.stream("IN").unwrap();
    let first = info.state.last_sequence - RECORDS / 10 - 100;
    nats.wait(async { stream.purge().sequence(first).await }).unwrap().unwrap();
    let error = loop {
        match reader.take(100) {
            Ok(values) => taken.extend(values),
            Err(error) => break error,
        }
        let all = (0..taken.len()).map(|number| format!("p0-{number}"));
        assert!(all.eq(taken.iter().cloned()), "a hole before {:?}", taken.last());
    };
    assert!(taken.len() < RECORDS as usize - 100);
    let SourceError::Trimmed { resume, found, .. } = error else { panic!("{error}") };
    assert_eq!((resume, found), (reader.next, Position(first)));
}

/// With `on_gap = "skip"` it goes on behind them, and says how many there may have been.
/// Cases: CT-48.
/// Rules: VX-003, VX-832.
#[test]
fn what_is_trimmed_while_nobody_reads_is_skipped_where_that_is_wanted() {
    let source = PARTITIONED.replace("mode = \"partition\"", "mode = \"partition\"\non_gap = \"skip\"");
    let world = World { source: Box::leak(source.into_boxed_str()), ..World::new(IDS) };
    world.input(RECORDS);
    let mut reader = Reader::start(&world);
    let mut taken = reader.take(1).unwrap();
    let nats = world.server.connect();
    let (stream, info) = nats.stream("IN").unwrap();
    let first = info.state.last_sequence - RECORDS / 10 - 100;
    nats.wait(async { stream.purge().sequence(first).await }).unwrap().unwrap();
    let last = format!("p0-{}", RECORDS - 1);
    while taken.last() != Some(&last) {
        taken.extend(reader.take(100).unwrap());
    }
    let numbers: Vec<u64> = taken.iter().map(|value| value["p0-".len()..].parse().unwrap()).collect();
    let holes: Vec<u64> =
        numbers.windows(2).map(|two| two[1] - two[0] - 1).filter(|hole| *hole > 0).collect();
    let [hole] = holes[..] else { panic!("{holes:?}") };
    assert!(reader.source.lost() >= hole, "{hole}, but {}", reader.source.lost());
}

/// Cases: CT-48.
/// Rules: VX-003, VX-833, VX-835.
#[test]
fn a_stream_that_is_made_anew_while_it_is_read_is_refused() {
    let world = World::new(IDS);
    world.input(50);
    let mut reader = Reader::start(&world);
    let mut taken = 0;
    while taken < 50 {
        taken += reader.take(50).unwrap().len();
    }
    let nats = world.server.connect();
    nats.wait(nats.context().delete_stream("IN")).unwrap().unwrap();
    world.input(5);
    let error = reader.take(50).unwrap_err();
    let SourceError::Replaced { resume, .. } = error else { panic!("{error}") };
    assert_eq!(resume, reader.next);
}

/// Messages of other subjects go by and are trimmed: a vertex for which nothing came misses nothing.
/// Rules: VX-765, VX-835.
#[test]
fn what_is_trimmed_of_other_subjects_is_no_gap() {
    for (delivery, rest) in [("at_least_once", ""), ("effectively_once", ""), ("effectively_once", SHARED)] {
        let world = World { delivery, rest, ..World::new(STRICT) };
        world.input(50);
        world.create_strict();
        let nats = world.server.connect();
        let (stream, _) = nats.stream("IN").unwrap();
        let others = || world.server.produce("in.9", (0..500).map(|number| number.to_string()));
        let vertex = Vertex::start(world.pipeline("one")).unwrap();
        let (stop, control) = (vertex.stop_handle(), vertex.control());
        std::thread::scope(|scope| {
            let running = scope.spawn(|| vertex.run().unwrap());
            until("written", || world.outputs() >= 100);
            others();
            let last = world.server.connect().stream("IN").unwrap().1.state.last_sequence;
            until("moved", || {
                assert!(!running.is_finished(), "the vertex ended");
                let partitions = control.status().partitions;
                partitions.len() == 2 && partitions.iter().all(|partition| partition.resume > last)
            });
            stop.drain();
            running.join().unwrap();
        });
        nats.wait(async { stream.purge().await }).unwrap().unwrap();
        world.produce(50..100);
        world.run_until("complete", || world.outputs() >= 200);
        world.is_whole(100);
    }
}

/// The server ends and starts again under a vertex whose ends and whose ownership it has.
/// Cases: CT-34.
/// Rules: VX-715, VX-719, VX-835, VX-850.
#[test]
fn a_server_that_starts_again_costs_time_and_nothing_else() {
    let mut world = World { delivery: "effectively_once", rest: SHARED, ..World::new(STRICT) };
    world.input(RECORDS);
    world.create_strict();
    let mut runtime = world.start("one");
    for aim in AIMS {
        until("written", || world.outputs() >= aim);
        world.server.stop();
        // Once shorter and once longer than a lease.
        std::thread::sleep(Duration::from_millis(if aim == RECORDS { 3_000 } else { 300 }));
        world.server.restart();
    }
    until("complete", || world.outputs() >= 2 * RECORDS);
    assert!(runtime.0.try_wait().unwrap().is_none(), "the runtime ended");
    world.is_whole(RECORDS);
}
