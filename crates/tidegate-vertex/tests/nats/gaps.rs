//! Partitions whose next record is gone, or whose source does not answer, among others that go on.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use rustix::process::Signal;
use tidegate_vertex::{
    config::Pipeline,
    operate::{Control, status::PartitionState},
    run::{Report, Stop, Vertex},
};

use crate::{
    server::{Server, plain},
    world::{IDS, PARTITIONED, SHARED, World, until},
};

fn world(delivery: &'static str) -> World {
    let world = World { delivery, rest: SHARED, ..World::new(IDS) };
    world.input(50);
    let duplicate_window = Duration::from_secs(600);
    world.server.create(Config { duplicate_window, ..plain("OUT", "out.*") });
    world
}

fn parsed(text: &str) -> Pipeline {
    text.parse().unwrap()
}

/// The pipeline of an instance that goes on behind what is gone.
fn skipping(world: &World, instance: &str) -> Pipeline {
    parsed(&world.text(instance).replace("mode = \"partition\"", "mode = \"partition\"\non_gap = \"skip\""))
}

/// Vertices that run.
struct Running<'a> {
    controls: &'a [Control],
    ended: &'a dyn Fn() -> bool,
}

impl Running<'_> {
    /// Waits until this is so, while they run.
    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        until(what, || {
            assert!(!(self.ended)(), "a vertex ended");
            done()
        });
    }
}

/// Runs vertices with these files while `watch` looks at them, and lets them end in order.
fn run(pipelines: Vec<Pipeline>, watch: impl FnOnce(&Running<'_>)) -> Vec<Report> {
    let vertices: Vec<Vertex> =
        pipelines.into_iter().map(|pipeline| Vertex::start(pipeline).unwrap()).collect();
    let controls: Vec<Control> = vertices.iter().map(Vertex::control).collect();
    let stops: Vec<Stop> = vertices.iter().map(Vertex::stop_handle).collect();
    std::thread::scope(|scope| {
        let running: Vec<_> =
            vertices.into_iter().map(|vertex| scope.spawn(|| vertex.run().unwrap())).collect();
        let ended = || running.iter().any(|running| running.is_finished());
        watch(&Running { controls: &controls, ended: &ended });
        stops.iter().for_each(Stop::drain);
        running.into_iter().map(|running| running.join().unwrap()).collect()
    })
}

/// Removes what is before this sequence from the stream of the source.
fn trim(world: &World, sequence: u64) {
    let nats = world.server.connect();
    let (stream, _) = nats.stream("IN").unwrap();
    nats.wait(async { stream.purge().sequence(sequence).await }).unwrap().unwrap();
}

/// One of two partitions was not read for a while, and the stream does not go back so far: it stops at whoever claims it, and the
/// other one goes on. It goes on, too, when somebody says that what is gone may be left out.
/// Cases: CT-48.
/// Rules: VX-832, VX-865.
#[test]
fn a_partition_whose_next_record_is_gone_stops_and_the_others_go_on() {
    for delivery in ["at_least_once", "effectively_once"] {
        let world = world(delivery);
        let stored = || world.stored(&["OUT"]);
        run(vec![world.pipeline("one")], |vertex| vertex.until("written", || stored() >= 100));
        world.produce(50..100);
        let first = world.text("one").replace("lease = ", "partitions = \"0\"\nlease = ");
        run(vec![parsed(&first)], |vertex| vertex.until("written", || stored() >= 150));
        trim(&world, 150);
        let reports = run(vec![world.pipeline("one"), world.pipeline("two")], |vertices| {
            for control in vertices.controls {
                vertices.until("stopped", || {
                    let status = control.status();
                    let state = status.partitions.get(1).map(|partition| partition.state);
                    state == Some(PartitionState::Stopped)
                });
                let health = control.status().readiness();
                let says = |reason: &String| {
                    reason.contains("begins at 150") && reason.contains("on_gap = \"skip\"")
                };
                assert!(!health.ok && health.reasons.iter().any(says), "{health:?}");
            }
            world.produce(100..110);
            vertices.until("written by the other", || stored() >= 160);
        });
        for report in reports {
            let [(1, position, _)] = report.stopped[..] else { panic!("{report:?}") };
            assert!(position <= 101, "{report:?}");
        }
        // A vertex that is to have no other has nothing more to do.
        let pinned = world.text("one").replace("lease = ", "partitions = \"1\"\nlease = ");
        let report = Vertex::start(parsed(&pinned)).unwrap().run().unwrap();
        assert!(matches!(report.stopped[..], [(1, ..)]), "{report:?}");
        let left = world.server.count("IN", "in.1");
        run(vec![skipping(&world, "one")], |vertex| {
            vertex.until("written", || stored() >= 160 + left);
            let status = vertex.controls[0].status();
            assert!(status.counts.lost >= 49 && status.readiness().ok, "{status:?}");
        });
        assert_eq!(stored(), 160 + left);
    }
}

/// The owner before has said what its next epoch is, and its inputs are gone before anybody could make it.
/// Rules: VX-763, VX-832.
#[test]
fn an_epoch_whose_inputs_are_gone_is_not_waited_for() {
    let world = world("effectively_once");
    world.produce(50..1_000);
    // Decided in the store, when both partitions have committed something.
    let mut first = world.start_until("one", "C4:8");
    assert!(!first.wait().success());
    world.produce(1_000..1_010);
    trim(&world, 2_001);
    let (before, left) = (world.stored(&["OUT"]), world.server.count("IN", "in.*"));
    run(vec![skipping(&world, "two")], |vertex| {
        vertex.until("written", || world.stored(&["OUT"]) >= before + left);
    });
}

/// What an owner before had prepared is finished first, and then the source does not answer for a while.
/// Rules: VX-719, VX-781.
#[test]
fn a_source_that_does_not_answer_after_an_epoch_was_redone_costs_the_session_and_not_the_vertex() {
    let other = Server::start();
    let source = PARTITIONED.replace("URL", &format!("{:?}", other.url()));
    let world = World { source: Box::leak(source.into_boxed_str()), ..world("effectively_once") };
    other.create(plain("IN", "in.*"));
    for partition in 0..2 {
        other.produce(&format!("in.{partition}"), (0..50).map(|number| format!("p{partition}-{number}")));
    }
    let mut first = world.start_until("one", "C6");
    assert!(!first.wait().success());
    run(vec![world.pipeline("one")], |vertex| {
        other.signal(Signal::STOP);
        vertex.until("given up", || {
            let ended = vertex.controls[0].status().counts.fences.get("sink_refused").copied();
            ended > Some(0)
        });
        other.signal(Signal::CONT);
        vertex.until("complete", || world.stored(&["OUT"]) >= 100);
    });
}
