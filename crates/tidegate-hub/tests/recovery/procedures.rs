//! The procedures of chapter 21, rehearsed: sign, look, act, and that the loss is no more than the sheet says.

use std::{fs, mem::offset_of, process::Command};

use tidegate_hub::{
    attachment::{consumer_core, writer_core},
    block::{CreateError, CreateOptions, Role, attach, create},
    core::{
        Start, TakeOver,
        config::{Deadline, Timing, WaitStrategy},
        error::RegistryError,
        reader::{Reader, Release},
        words::RowNames,
    },
    inspect::{BlockLife, Finding, Part, Recommendation},
    layout::{BlockSpec, pages::ControlPage},
    recover::{Repair, files, plan, slots::ResetOptions},
};
use tidegate_shm::sync::Ordering::Relaxed;

use crate::world::{World, soon, spec, write};

const NAMES: RowNames = RowNames { uid: [b'c'; 40], name: [0; 32], pid_namespace: 0 };
const GENTLE: ResetOptions = ResetOptions { discard: false, force: false };

/// The ids that a new consumer reads.
fn drained(world: &World, name: &str) -> Vec<u64> {
    let seen = std::sync::Arc::new(attach(name, &world.options(Role::Consumer)).unwrap());
    let core = consumer_core(&seen, WaitStrategy::Hybrid, Timing::default()).unwrap();
    let mut reader = Reader::join(core, Start::Oldest, &NAMES, 1, soon()).unwrap();
    let mut ids = Vec::new();
    while let Ok(acquired) = reader.acquire_ordered(Deadline::Immediate) {
        reader.release(&acquired, Release::Consumed).unwrap();
        ids.push(acquired.id.0);
    }
    reader.leave(soon()).unwrap();
    ids
}

/// PR-1 and PR-3: the producer dies while it writes; its ids in hand are the loss.
/// Rules: DH-082, DH-084, DH-263.
#[test]
fn pr_1_and_3_a_producer_that_died_while_writing() {
    let world = World::of("procedures::pr_1_and_3_a_producer_that_died_while_writing");
    for by_hand in [true, false] {
        let (producer, name) = world.producer("write 3;open 1");
        producer.kill();
        let block = world.inspector(&name);
        let slot = block.diagnose_slot(3).unwrap();
        assert_eq!((slot.is_stuck, slot.recommendation), (true, Recommendation::ResetSlot));
        let recovery = world.recovery(&name);
        if by_hand {
            recovery.reset_slot(3, GENTLE).unwrap();
        } else {
            recovery.auto_recover().unwrap();
        }
        let (again, writer) = world.adopt(&name);
        assert_eq!(write(&writer, &again, b"next"), 104, "it continues with the next id");
        assert_eq!(drained(&world, &name), [100, 101, 102, 104], "one id is lost, nothing else");
        assert!(block.integrity(true).is_valid());
    }
}

/// PR-2: dead consumers hold the ring back; a blocked writer sees to it, or the operator does.
/// Rules: DH-079, DH-237.
#[test]
fn pr_2_dead_consumers() {
    let world = World::of("procedures::pr_2_dead_consumers");
    for by_hand in [true, false] {
        let (block, writer) = world.block(&spec());
        let name = block.descriptor().file_name();
        for _ in 0..8 {
            write(&writer, &block, b"value");
        }
        let consumer = world.actor(&name, "join;read 2;hold");
        let alive = world.actor(&name, "join;read 8");
        assert_eq!(write(&writer, &block, b"value"), 108);
        assert_eq!(write(&writer, &block, b"value"), 109);
        assert!(writer.allocate(1, Deadline::Immediate).is_err(), "the slow one paces the writer");
        consumer.kill();
        let readers = world.inspector(&name).show_readers(Some(2));
        assert!(readers[0].held_back_by.iter().any(|row| row.is_dead()));
        if by_hand {
            assert_eq!(world.recovery(&name).release_zombie_readers(None).unwrap().len(), 1);
        }
        assert_eq!(write(&writer, &block, b"value"), 110);
        let rows: Vec<u32> = world.inspector(&name).consumers().iter().map(|row| row.pid).collect();
        assert_eq!(rows, [alive.pid()]);
    }
}

/// PR-4: a damaged descriptor. The block cannot be opened by anybody; by force its name goes.
/// Rules: DH-021, DH-269.
#[test]
fn pr_4_a_damaged_descriptor() {
    let world = World::of("procedures::pr_4_a_damaged_descriptor");
    let (producer, name) = world.producer("write 3");
    producer.kill();
    let path = world.dir().join(&name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0x88] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let options = world.options(Role::Inspector);
    let refused = tidegate_hub::inspect::Inspector::open(&name, &options).unwrap_err();
    assert!((101..=112).contains(&refused.code()), "{refused}");
    assert!(files::force_unlink(&name, &options, false).is_err());
    assert!(path.exists(), "not without force");
    assert_eq!(files::reclaimable(&options).unwrap(), [], "nobody can prove that its processes are dead");
    files::force_unlink(&name, &options, true).unwrap();
    assert_eq!(world.names(), Vec::<String>::new());
    let (_again, name) = world.producer("write 1");
    assert_eq!(drained(&world, &name), [100], "the producer makes it anew");
}

/// PR-5: a damaged slot is one slot lost.
/// Rules: DH-046, DH-253.
#[test]
fn pr_5_a_damaged_slot() {
    let world = World::of("procedures::pr_5_a_damaged_slot");
    let (producer, name) = world.producer("write 4");
    let recovery = world.recovery(&name);
    let block = recovery.inspector();
    let record = block.descriptor().geometry.slot_records().offset + 64;
    let word = block.block().region().atomic_u64_mut(record).unwrap();
    word.store(word.load(Relaxed) | 7, Relaxed);
    let report = block.integrity(true);
    assert_eq!(report.corrupted_slots, [1]);
    assert!(report.findings.iter().all(|damage| damage.part == Part::Slot(1)), "{:?}", report.findings);
    let options = ResetOptions { discard: true, force: true };
    producer.kill();
    recovery.reset_slot(1, options).unwrap();
    assert!(block.integrity(true).is_valid());
    assert_eq!(drained(&world, &name), [100, 102, 103]);
}

/// PR-6: all locks are held by dead processes.
/// Rules: DH-149, DH-269.
#[test]
fn pr_6_locks_of_the_dead() {
    let world = World::of("procedures::pr_6_locks_of_the_dead");
    let (_producer, name) = world.producer("write 1");
    let script: Vec<String> = (8..32).map(|lock| format!("lock {lock}")).collect();
    let user = world.actor(&name, &format!("join;{}", script.join(";")));
    let block = world.inspector(&name);
    assert_eq!(block.list_locks().iter().filter(|lock| lock.is_dead()).count(), 0);
    user.kill();
    assert_eq!(block.list_locks().iter().filter(|lock| lock.is_dead()).count(), 24);
    let (freed, skipped) = world.recovery(&name).force_unlock_all(false).unwrap();
    assert_eq!((freed.len(), skipped.len()), (24, 0));
    let locks = block.list_locks();
    let users: Vec<_> = locks.iter().filter(|lock| lock.index.is_some_and(|index| index >= 8)).collect();
    assert!(users.iter().all(|lock| lock.poisoned && lock.owner.is_none()), "{users:?}");
    assert_eq!(block.diagnose().block.taint, 0, "no force was needed");
}

/// PR-7: shared memory is full. In a mount namespace with a small file system.
/// Rules: DH-018, DH-241, DH-268, DH-282, N-47.
#[test]
fn pr_7_shared_memory_is_full() {
    const TEST: &str = "procedures::pr_7_shared_memory_is_full";
    const MOUNTED: &str = "TIDEGATE_TEST_SMALL";
    let world = World::of(TEST);
    let Some(place) = std::env::var_os(MOUNTED) else {
        let script = "mount -t tmpfs -o size=128k,mode=0700 none \"$TIDEGATE_TEST_SMALL\" && exec \"$0\" --exact \"$1\"";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(TEST)
            .env(MOUNTED, world.dir())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "this test mounts a tmpfs and needs root: {told}"
        );
        return;
    };
    let options =
        |role| tidegate_hub::block::AttachOptions { dir: place.clone().into(), ..world.options(role) };
    let made = |spec: &BlockSpec| {
        create(spec, &CreateOptions { dir: place.clone().into(), ..CreateOptions::default() })
    };
    let (small, name) = {
        let block = made(&spec()).unwrap();
        let name = block.descriptor().file_name();
        (block, name)
    };
    let large = BlockSpec { slot_size: 8192, ..spec() };
    let refused = made(&large).unwrap_err();
    assert!(matches!(refused, CreateError::NoSpace { .. }), "{refused}");
    assert_eq!(files::reclaimable(&options(Role::Inspector)).unwrap(), [], "its writer lives");
    // Its writer was a process that is gone.
    let mut child = Command::new("true").spawn().unwrap();
    let dead = tidegate_hub::identity::ProcessKey::new(child.id(), 1).unwrap();
    child.wait().unwrap();
    let views = small.writer_views().unwrap();
    views.control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>().store(dead.word(), Relaxed);
    // The memory is given back when nobody has it mapped any more.
    drop((small, views));
    let found = files::reclaimable(&options(Role::Inspector)).unwrap();
    assert_eq!((found.len(), &found[0].name), (1, &name));
    assert!(made(&large).is_err(), "looking removes nothing");
    files::reclaim(&found[0], &options(Role::Inspector)).unwrap();
    made(&large).unwrap();
}

/// PR-8: a consumer never lets go. It is ended; everything else happens by itself.
/// Rules: DH-055, DH-104, DH-237.
#[test]
fn pr_8_a_consumer_that_never_lets_go() {
    let world = World::of("procedures::pr_8_a_consumer_that_never_lets_go");
    let (block, writer) = world.block(&spec());
    let name = block.descriptor().file_name();
    for _ in 0..8 {
        write(&writer, &block, b"value");
    }
    let _other = world.actor(&name, "join;read 8");
    let consumer = world.actor(&name, "join;hold");
    consumer.stop();
    assert!(writer.allocate(1, Deadline::Immediate).is_err());
    let look = world.inspector(&name);
    assert_eq!(look.show_readers(Some(0))[0].readers[0].pid, consumer.pid());
    assert_eq!(plan::plan(&look), [], "a stopped process is not dead");
    consumer.go_on();
    assert_eq!(plan::plan(&look), []);
    consumer.kill();
    assert_eq!(write(&writer, &block, b"value"), 108);
    assert_eq!(look.consumers().len(), 1);
}

/// PR-9: without a broker nothing of this changes; blocks are found by name.
/// Rules: DH-003.
#[test]
fn pr_9_data_flow_without_a_broker() {
    let world = World::of("procedures::pr_9_data_flow_without_a_broker");
    let (_producer, name) = world.producer("write 3");
    assert_eq!(world.names(), [name.as_str()]);
    assert_eq!(drained(&world, &name), [100, 101, 102]);
    assert!(world.inspector(&name).diagnose().healthy);
}

/// PR-10: the producer died in a handover; each row of table 15.6 that an old block can show.
/// Rules: DH-230.
#[test]
fn pr_10_a_handover_that_does_not_end() {
    let world = World::of("procedures::pr_10_a_handover_that_does_not_end");
    let handover = |name: &str, state: u32, successor: Option<&str>| {
        let recovery = world.recovery(name);
        let block = recovery.inspector().block().clone();
        let row = block.writer_views().unwrap().control;
        if let Some(successor) = successor {
            let uuid = *world.inspector(successor).descriptor().uuid.as_bytes();
            row.row().bytes::<{ offset_of!(ControlPage, successor_uuid) }, 16>().copy_from(&uuid).unwrap();
            let field = row.row().bytes::<{ offset_of!(ControlPage, successor_shm_name) }, 128>();
            field.write_at(0, successor.as_bytes()).unwrap();
        }
        row.row().u32::<{ offset_of!(ControlPage, handover_state) }>().store(state, Relaxed);
    };
    let code = |repair: &Repair| repair.code();

    // Prepared, the successor linked already: it never happened.
    let (producer, old) = world.producer("write 2;open 1");
    let (next_producer, next) = world.producer("write 0");
    handover(&old, 1, Some(&next));
    assert!(
        world
            .inspector(&old)
            .findings()
            .iter()
            .any(|found| matches!(found, Finding::Handover { state: 1, .. }))
    );
    assert_eq!(plan::plan(&world.inspector(&old)), [], "while the producer lives it is its business");
    producer.kill();
    let codes = |name: &str| plan::plan(&world.inspector(name)).iter().map(code).collect::<Vec<_>>();
    assert_eq!(codes(&old), ["adopt", "cancel_handover"]);
    assert!(
        matches!(&plan::plan(&world.inspector(&old))[1], Repair::CancelHandover { successor: None }),
        "it is alive"
    );
    next_producer.kill();
    world.recovery(&old).auto_recover().unwrap();
    assert_eq!(world.names(), [old.as_str()], "the successor is gone");
    let state = |name: &str| world.inspector(name).diagnose().block.handover;
    assert_eq!((state(&old), codes(&old).len()), (4, 0));
    let (again, writer) = world.adopt(&old);
    assert_eq!(write(&writer, &again, b"on"), 103, "the old block goes on");
    assert_eq!(drained(&world, &old), [100, 101, 103]);
    writer.resign().unwrap();

    // After the cut: the old block is not written any more, and stays until its consumers have gone.
    let (producer, old) = world.producer("write 2");
    let consumer = world.actor(&old, "join;read 1");
    handover(&old, 2, None);
    producer.kill();
    assert_eq!(codes(&old), Vec::<&str>::new(), "a consumer still drains it");
    world.recovery(&old).auto_recover().unwrap();
    assert_eq!((state(&old), world.inspector(&old).index_summary().commit), (2, 102));
    consumer.kill();
    assert_eq!(codes(&old), ["reap", "finish_handover"]);
    world.recovery(&old).auto_recover().unwrap();
    assert!(!world.names().contains(&old), "its name is gone");
}

/// PR-11: a second producer is refused while the first one lives.
/// Rules: DH-044, DH-001.
#[test]
fn pr_11_two_producers() {
    let world = World::of("procedures::pr_11_two_producers");
    let (producer, name) = world.producer("write 1");
    let second = std::sync::Arc::new(attach(&name, &world.options(Role::Writer)).unwrap());
    let adopt = || {
        let core = writer_core(&second, WaitStrategy::Hybrid, Timing::default()).unwrap();
        core.adopt(TakeOver::IfDead, soon())
    };
    let refused = adopt().unwrap_err();
    assert!(
        matches!(refused, RegistryError::WriterAlive { owner } if owner.pid() == producer.pid()),
        "{refused}"
    );
    assert_eq!(world.inspector(&name).writer().pid, producer.pid());
    producer.kill();
    let writer = adopt().unwrap().writer;
    assert_eq!(write(&writer, &second, b"value"), 101);
}

/// "Emergency stop of everything", the part about blocks.
/// Rules: DH-241, DH-268.
#[test]
fn after_everything_was_killed_all_blocks_are_reclaimed() {
    let world = World::of("procedures::after_everything_was_killed_all_blocks_are_reclaimed");
    let started: Vec<_> = ["write 3", "open 2", "write 0"].map(|script| world.producer(script)).into();
    let consumers: Vec<_> = started.iter().map(|(_, name)| world.actor(name, "join")).collect();
    let names: Vec<String> = started.iter().map(|(_, name)| name.clone()).collect();
    for (producer, _) in started {
        producer.kill();
    }
    let options = world.options(Role::Inspector);
    assert_eq!(files::reclaimable(&options).unwrap(), []);
    for consumer in consumers {
        consumer.kill();
    }
    assert!(names.iter().all(|name| world.inspector(name).life() == BlockLife::Reclaimable));
    let found = files::reclaimable(&options).unwrap();
    assert_eq!(found.len(), 3);
    for block in &found {
        files::reclaim(block, &options).unwrap();
    }
    assert_eq!(world.names(), Vec::<String>::new());
}
