//! Adopters that end (K-30 to K-32), and blocks whose processes are all gone (K-38, K-39).

use tidegate_hub::{
    block::{AttachOptions, Role},
    config::ConsumerConfig,
    consumer::Consumer,
    core::{Start, codec::SlotState},
    inspect::BlockLife,
    producer::Producer,
    recover::files::{reclaim, reclaimable},
};

use super::{
    Bystander, KILLED, USES, Use, bystander_config, check, goes_on, inspect, is_valid, join, look,
    write_batch, write_one,
};
use crate::{
    children::{Child, linger, role, say},
    world::{LONG, place},
};

/// Where the writer ends that is adopted from: with slots about to be overwritten, being written, and committed but not
/// visible.
const ENDS: [&str; 4] = ["w.reserve.all:5", "w.take.one:18", "w.payload:18", "w.t6:17"];

/// Rules: DH-081, DH-082, K-30, K-31, K-32.
#[test]
fn adopters_of_every_use() {
    let test = "points::adoption::adopters_of_every_use";
    for usage in USES {
        if let Some(task) = role(&format!("writer {usage:?}")) {
            let producer = Producer::create(&usage.config(&task.dir)).unwrap();
            say(format!("block {}", producer.name()));
            // A full ring stays as it is: there is nobody to read it.
            while producer.next_id().0 < 40 {
                match usage.batch() {
                    Some(n) => write_batch(&producer, n),
                    None => drop(write_one(&producer, LONG).unwrap()),
                }
            }
            return;
        }
        if let Some(task) = role(&format!("adopter {usage:?}")) {
            let _ = Producer::adopt(&task.block, &usage.config(&task.dir), LONG);
            return;
        }
    }
    for usage in USES {
        for end in ENDS {
            let slots = usage.config("/".as_ref()).policy.slot_count();
            let last = format!("a.slot:{slots}");
            for step in ["a.own", "a.slot:1", &last, "a.index"] {
                let what = format!("{usage:?} {end} {step}");
                let dir = place();
                let mut writer =
                    Child::start_at(test, &format!("writer {usage:?}"), dir.path(), "", Some(end));
                let name = writer.wait_for("block");
                let mut other = Bystander::new(join(&name, dir.path()));
                while !writer.has_ended() {
                    other.read_on();
                }
                assert_eq!(writer.signal(), KILLED, "{what}");
                other.drain();
                let inspector = inspect(&name, dir.path());
                let left = look(&inspector);
                let mut adopter =
                    Child::start_at(test, &format!("adopter {usage:?}"), dir.path(), &name, Some(step));
                assert_eq!(adopter.signal(), KILLED, "{what}");
                is_valid(&inspector, &what);

                let producer = Producer::adopt(&name, &usage.config(dir.path()), LONG).unwrap();
                let next = left.open.iter().map(|id| id + 1).fold(left.write, u64::max);
                let now = look(&inspector);
                assert_eq!((producer.next_id().0, now.commit), (next, next), "{what}: {left:?}");
                for slot in inspector.diagnose_all() {
                    let Some(id) = slot.slot_id else { continue };
                    let is_open = left.open.contains(&id);
                    let expected = if is_open { SlotState::Free } else { SlotState::Committed };
                    assert!(slot.state.is(expected), "{what}: {slot:?}");
                }
                other.drain();
                if !usage.is_latest() {
                    let known = (other.seen.len() + left.open.len()) as u64 + other.lost;
                    let promised = next - other.consumer.start_id().0;
                    assert_eq!(known, promised, "{what}: {:?} {left:?}", other.seen);
                }
                goes_on(&producer, &mut other);
                is_valid(&inspector, &what);
            }
        }
    }
}

/// Rules: DH-071, DH-104, K-38.
#[test]
fn a_reader_that_starts_again_resumes() {
    let test = "points::adoption::a_reader_that_starts_again_resumes";
    if let Some(task) = role("writer") {
        let producer = Producer::create(&Use::SingleReader.config(&task.dir)).unwrap();
        say(format!("block {}", producer.name()));
        while write_one(&producer, LONG).is_ok() {}
        return;
    }
    if let Some(task) = role("reader") {
        let config = ConsumerConfig { start: Some(Start::Resume), ..bystander_config(&task.dir) };
        let mut consumer = Consumer::attach(&task.block, &config).unwrap();
        while let Ok(slot) = consumer.next(LONG) {
            say(format!("got {}", check(&slot)));
        }
        return;
    }
    let dir = place();
    let mut writer = Child::start(test, "writer", dir.path(), "");
    let name = writer.wait_for("block");
    let mut next = 0;
    for life in 0..12 {
        let mut reader = Child::start(test, "reader", dir.path(), &name);
        let mut got: Vec<u64> = (0..=life).map(|_| reader.wait_for("got").parse().unwrap()).collect();
        reader.kill();
        got.extend(reader.left_to_say("got").iter().map(|id| id.parse::<u64>().unwrap()));
        // The one that it had in hand comes again, if it was not given back.
        assert!(got[0] == next || got[0] + 1 == next, "life {life}: {got:?}, but {next} is next");
        assert!(got.windows(2).all(|ids| ids[0] + 1 == ids[1]), "life {life}: {got:?}");
        next = got.last().unwrap() + 1;
    }
    writer.kill();
}

/// Rules: DH-241, DH-268, DH-084, K-39.
#[test]
fn blocks_whose_processes_are_all_gone() {
    let test = "points::adoption::blocks_whose_processes_are_all_gone";
    for usage in USES {
        if let Some(task) = role(&format!("writer {usage:?}")) {
            let producer = Producer::create(&usage.config(&task.dir)).unwrap();
            write_one(&producer, LONG).unwrap();
            say(format!("block {}", producer.name()));
            while write_one(&producer, LONG).is_ok() {}
            return;
        }
    }
    if let Some(task) = role("reader") {
        let mut consumer = join(&task.block, &task.dir);
        // Some of the oldest values may be lost first.
        while consumer.next(LONG).map(std::mem::forget).is_err() {}
        say("reads");
        linger();
        return;
    }
    for usage in USES {
        let dir = place();
        let mut writer = Child::start(test, &format!("writer {usage:?}"), dir.path(), "");
        let name = writer.wait_for("block");
        let mut reader = Child::start(test, "reader", dir.path(), &name);
        reader.wait_for("reads");
        let inspector = inspect(&name, dir.path());
        let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Recovery) };
        assert!(reclaimable(&options).unwrap().is_empty(), "{usage:?}: both live");
        writer.kill();
        reader.kill();
        assert_eq!(inspector.life(), BlockLife::Reclaimable, "{usage:?}");

        let next = {
            let left = look(&inspector);
            left.open.iter().map(|id| id + 1).fold(left.write, u64::max)
        };
        let producer = Producer::adopt(&name, &usage.config(dir.path()), LONG).unwrap();
        assert_eq!(producer.next_id().0, next, "{usage:?}");
        assert_eq!(inspector.life(), BlockLife::Ready, "{usage:?}");
        let mut other = Bystander::new(join(&name, dir.path()));
        other.drain();
        goes_on(&producer, &mut other);
        drop(other);
        drop(producer);

        let mut writer = Child::start(test, &format!("writer {usage:?}"), dir.path(), "");
        let second = writer.wait_for("block");
        writer.kill();
        let found = reclaimable(&options).unwrap();
        let one = found.iter().find(|block| block.name == second).unwrap();
        reclaim(one, &options).unwrap();
        assert!(!dir.path().join(&second).exists(), "{usage:?}");
    }
}
