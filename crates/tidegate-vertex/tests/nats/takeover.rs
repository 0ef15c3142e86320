//! Several vertices, one bucket of ownership: owners that are killed and stopped, and members that join, in `effectively_once`
//! between streams.

use std::fs;

use async_nats::jetstream::stream::Config;
use rustix::process::Signal;
use tidegate_shm::clock::Nanos;
use tidegate_vertex::{
    PartitionId,
    config::{OwnershipConfig, Pipeline},
    ledger::inspect,
    nats::own::{Group, GroupError, Order},
    operate::{Which, Wish, status::PartitionStatus},
    run::Vertex,
};

use crate::{
    server::plain,
    world::{IDS, PARTITIONED, SHARED, STRICT, World, until},
};

const RECORDS: u64 = 2_000;

fn world() -> World {
    let world = World { delivery: "effectively_once", rest: SHARED, ..World::new(STRICT) };
    world.create_strict();
    world
}

/// What the store has under a key.
fn kept(world: &World, key: &str) -> Option<serde_json::Value> {
    let nats = world.server.connect();
    let (stream, _) = nats.stream("KV_tgvx_test").ok()?;
    let last = nats.last_of(&stream, &format!("$KV.tgvx_test.{key}")).unwrap()?;
    Some(serde_json::from_slice(&last.value).unwrap())
}

/// The owner of each partition, as the store says.
fn owners(world: &World) -> Vec<Option<String>> {
    let owner = |partition| {
        let document = kept(world, &format!("own.{partition}"))?;
        (document["released"] == false).then(|| document["owner"].as_str().unwrap().to_owned())
    };
    (0..2).map(owner).collect()
}

/// The newest generation of each partition.
fn generations(world: &World) -> Vec<u64> {
    let generation = |partition| kept(world, &format!("own.{partition}")).unwrap()["generation"].as_u64();
    (0..2).map(|partition| generation(partition).unwrap()).collect()
}

/// The first vertex is stopped beyond its lease, the second takes over and is killed, the first wakes as a contender and finishes:
/// every output is there once and in order.
/// Cases: CT-30, CT-38.
/// Rules: VX-716, VX-717, VX-763, VX-781.
#[test]
fn owners_that_are_stopped_and_killed_leave_every_output_once() {
    let world = world();
    world.input(RECORDS);
    let first = world.start("first");
    until("begun", || world.outputs() > 500);
    first.signal(Signal::STOP);
    let before = world.outputs();
    let second = world.start("second");
    world.produce(RECORDS..2 * RECORDS);
    until("taken over", || world.outputs() > before + 500);
    first.signal(Signal::CONT);
    drop(second);
    until("complete", || world.outputs() >= 4 * RECORDS);
    world.is_whole(2 * RECORDS);
}

/// A member that joins gets its share from the one that has all, while records flow; when one ends the other has all again.
/// Rules: VX-704, VX-718, VX-870, VX-871.
#[test]
fn a_process_that_joins_gets_a_share_and_gives_it_back() {
    let world = world();
    world.input(RECORDS);
    let first = world.start("first");
    let own = |name: &str| Some(name.to_owned());
    until("owned by the first", || owners(&world) == [own("first"), own("first")]);
    let second = world.start("second");
    until("shared", || {
        let mut owners = owners(&world);
        owners.sort();
        owners == [own("first"), own("second")]
    });
    world.produce(RECORDS..2 * RECORDS);
    until("complete", || world.outputs() >= 4 * RECORDS);
    drop(first);
    until("owned by the second", || owners(&world) == [own("second"), own("second")]);
    world.produce(2 * RECORDS..2 * RECORDS + 100);
    until("complete", || world.outputs() >= 4 * RECORDS + 200);
    world.is_whole(2 * RECORDS + 100);
    drop(second);
}

/// Whether a ledger has an epoch that is prepared.
fn has_prepared(world: &World, instance: &str) -> bool {
    let found = inspect(&world.dir.path().join(instance), None).unwrap().unwrap();
    found.to_string().contains(r#""status":"prepared""#)
}

/// An owner that stops between two steps of an epoch, loses the partition and wakes: its next step is refused, whichever it is,
/// and what it had prepared is left to who comes after it.
/// Cases: CT-26, CT-30, CT-38.
/// Rules: VX-722, VX-728, VX-764, VX-780, VX-781.
#[test]
fn whichever_step_comes_next_is_refused_to_an_owner_that_was_overtaken() {
    // Sealed; decided in the store; prepared; confirmed by the sink; committed.
    for point in ["C3", "C4", "C6", "C9", "C11"] {
        let world = world();
        world.input(300);
        let mut first = world.start_until("first", &format!("stop:{point}:3"));
        assert!(first.stops(), "{point}: it ended");
        let second = world.start("second");
        until("taken over", || world.outputs() >= 600);
        first.signal(Signal::CONT);
        world.produce(300..400);
        until("complete", || world.outputs() >= 800);
        drop((first, second));
        world.is_whole(400);
        if point == "C6" {
            assert!(has_prepared(&world, "first"), "nothing was left to whoever comes");
        }
    }
}

/// Prepared here, finished elsewhere, and back here again.
/// Cases: CT-38, CT-64.
/// Rules: VX-763, VX-781.
#[test]
fn an_epoch_that_others_have_finished_is_given_up_by_the_host_that_prepared_it() {
    let world = world();
    world.input(300);
    let mut first = world.start_until("first", "C6:3");
    assert!(!first.wait().success());
    assert!(has_prepared(&world, "first"));
    let second = world.start("second");
    until("complete", || world.outputs() >= 600);
    drop(second);
    world.produce(300..400);
    let first = world.start("first");
    until("complete", || world.outputs() >= 800);
    drop(first);
    world.is_whole(400);
}

/// Has an owner say in the store what the first epoch of a partition is, and die.
fn leave_an_intent(world: &World) {
    world.input(300);
    let mut first = world.start_until("first", "C4");
    assert!(!first.wait().success());
    let count = |partition| kept(world, &format!("own.{partition}"))?["intent"]["count"].as_u64();
    assert!((0..2).filter_map(count).any(|count| count > MOST_AHEAD), "less than what is read at once");
}

/// More than the vertices read ahead of a function that returns nothing, a record at a time.
const MOST_AHEAD: u64 = 10;

/// The pipeline of somebody who comes after it, and takes one record at a time.
fn slowly(world: &World, instance: &str, function: &str) -> Pipeline {
    let text = world.text(instance).replace("= \"upper\"", &format!("= {function:?}"));
    text.replace("max_records = 40", "max_records = 1").parse().unwrap()
}

/// Who has read a part of an epoch that was intended and is to read no more gives the partition away as it is, and does not wait
/// for the rest; whoever comes next makes the whole epoch.
/// Rules: VX-704, VX-763, VX-781, VX-866.
#[test]
fn a_part_of_an_epoch_that_was_intended_is_given_away() {
    for ends in [false, true] {
        let world = world();
        leave_an_intent(&world);
        let hold = world.dir.path().join("go on");
        let vertex = Vertex::start(slowly(&world, "second", hold.to_str().unwrap())).unwrap();
        let (control, stop) = (vertex.control(), vertex.stop_handle());
        std::thread::scope(|scope| {
            let running = scope.spawn(|| vertex.run().unwrap());
            let all = |is: fn(&PartitionStatus) -> bool| control.status().partitions.iter().all(is);
            until("read", || all(|partition| partition.unfinished > 0));
            match ends {
                false => control.wish(Which::All, Wish::Drain).unwrap(),
                true => stop.drain(),
            }
            fs::write(&hold, "").unwrap();
            until("given away", || running.is_finished() || all(|partition| partition.generation == 0));
            stop.drain();
            assert!(running.join().unwrap().returned > 0, "nothing was left of the epoch");
        });
        let third = world.start("third");
        until("complete", || world.outputs() >= 600);
        drop(third);
        world.is_whole(300);
    }
}

/// Rules: VX-601, VX-763.
#[test]
fn a_vertex_that_stops_at_an_input_of_an_epoch_that_was_intended_ends() {
    let world = World { udf: "retry = { attempts = 1, on_exhausted = \"stop\" }", ..world() };
    leave_an_intent(&world);
    let report = Vertex::start(slowly(&world, "second", "second fails")).unwrap().run().unwrap();
    let mut stopped: Vec<_> = report.stopped.iter().map(|(partition, ..)| *partition).collect();
    stopped.sort_unstable();
    assert_eq!(stopped, [0, 1]);
    let third = world.start("third");
    until("complete", || world.outputs() >= 600);
    drop(third);
    world.is_whole(300);
}

/// A partition that nobody is to have does not keep the others from being shared.
/// Rules: VX-718, VX-871.
#[test]
fn others_are_handed_over_while_one_is_drained() {
    let four = PARTITIONED.replace("partitions = 2", "partitions = 4");
    let world = World { source: Box::leak(four.into_boxed_str()), rest: SHARED, ..World::new(IDS) };
    world.input(10);
    let duplicate_window = std::time::Duration::from_secs(600);
    world.server.create(Config { duplicate_window, ..plain("OUT", "out.*") });
    let pipeline = world.pipeline("operator");
    let OwnershipConfig::Jetstream(keys) = &pipeline.ownership else { panic!("{:?}", pipeline.ownership) };
    let first = world.start("first");
    until("complete", || world.stored(&["OUT"]) >= 20);
    let group = Group::open(&keys.settings(&pipeline)).unwrap();
    let had_by = |name: &str| {
        let holdings = group.holdings(Which::All).unwrap();
        holdings.iter().filter(|holding| holding.owner.as_deref() == Some(name)).count()
    };
    until("owned by the first", || had_by("first") == 4);
    let zero = Which::One(PartitionId(0));
    group.order(zero, Order::Drain, "").unwrap();
    group.await_free(zero, Nanos::from_secs(180)).unwrap();
    let second = world.start("second");
    until("shared", || {
        assert!(group.holdings(zero).unwrap()[0].owner.is_none(), "it was claimed");
        had_by("second") > 0
    });
    drop((first, second));
}

/// The heartbeats of a member so far, and how many partitions it does without.
fn card(world: &World, instance: &str) -> Option<(u64, usize)> {
    let card = kept(world, &format!("member.{instance}"))?;
    Some((card["hb"].as_u64()?, card["declines"].as_array()?.len()))
}

/// It stays a member, with fewer partitions than anybody else.
/// Rules: VX-718, VX-866.
#[test]
fn nothing_is_handed_to_a_vertex_that_an_operator_has_drained() {
    let world = world();
    world.input(100);
    let drained = Vertex::start(world.pipeline("drained")).unwrap();
    let (control, stop) = (drained.control(), drained.stop_handle());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| drained.run().unwrap());
        control.wish(Which::All, Wish::Drain).unwrap();
        until("known to be drained", || card(&world, "drained").is_some_and(|(_, declines)| declines == 2));
        let other = world.start("other");
        let all = || owners(&world).iter().all(|owner| owner.as_deref() == Some("other"));
        until("owned by the other", all);
        let claimed = generations(&world);
        // Three heartbeats in each interval, after which a partition may be handed over.
        let beats = card(&world, "other").unwrap().0;
        until("some intervals later", || card(&world, "other").unwrap().0 >= beats + 12);
        assert_eq!((owners(&world), generations(&world)), (vec![Some("other".to_owned()); 2], claimed));
        // Until an operator has it run again.
        control.wish(Which::All, Wish::Run).unwrap();
        until("shared", || owners(&world).contains(&Some("drained".to_owned())));
        drop(other);
        stop.drain();
        running.join().unwrap();
    });
}

/// What operators order in the store reaches whoever has the partition.
/// Rules: VX-704, VX-710, VX-724, VX-866.
#[test]
fn orders_in_the_store_reach_every_member() {
    let world = world();
    world.input(100);
    let pipeline = world.pipeline("operator");
    let OwnershipConfig::Jetstream(keys) = &pipeline.ownership else { panic!("{:?}", pipeline.ownership) };
    let settings = keys.settings(&pipeline);
    let none = Group::open(&settings).unwrap_err().to_string();
    assert!(none.contains("KV_tgvx_test"), "a store is not made by a question: {none}");
    let runtimes = [world.start("first"), world.start("second")];
    until("complete", || world.outputs() >= 200);
    let group = Group::open(&settings).unwrap();
    let (zero, one) = (Which::One(PartitionId(0)), Which::One(PartitionId(1)));
    let unknown = group.order(Which::One(PartitionId(2)), Order::Fence, "").unwrap_err();
    assert!(matches!(unknown, GroupError::Unknown(_)), "{unknown}");
    assert!(unknown.to_string().contains("counted from 0"), "{unknown}");
    // Given away and not claimed, while the other one goes on.
    group.order(zero, Order::Drain, "").unwrap();
    let free = group.await_free(zero, Nanos::from_secs(180)).unwrap();
    assert_eq!((free.len(), free[0].owner.clone(), free[0].wish), (1, None, Wish::Drain));
    world.produce(100..200);
    until("one of them complete", || world.server.values("OUT1").len() == 200);
    assert_eq!(world.server.values("OUT0").len(), 100);
    // A fence is about sessions: nobody claims it because of one.
    group.order(zero, Order::Fence, "").unwrap();
    assert_eq!(group.holdings(zero).unwrap()[0].wish, Wish::Drain);
    group.order(one, Order::Pause, "").unwrap();
    group.order(Which::All, Order::Run, "").unwrap();
    assert!(group.holdings(Which::All).unwrap().iter().all(|holding| holding.wish == Wish::Run));
    until("both complete", || world.outputs() >= 400);
    // The session ends, and the next one has another generation.
    let before = group.holdings(one).unwrap()[0].generation;
    group.order(one, Order::Fence, "a test").unwrap();
    until("claimed anew", || {
        let now = group.holdings(one).unwrap().remove(0);
        now.generation > before && now.owner.is_some()
    });
    world.produce(200..300);
    until("complete", || world.outputs() >= 600);
    world.is_whole(300);
    assert!(
        group.holdings(Which::All).unwrap().iter().all(|holding| holding.epoch > 0 && holding.resume > 0)
    );
    drop(runtimes);
}
