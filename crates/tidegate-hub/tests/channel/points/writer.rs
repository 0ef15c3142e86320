//! Writers that end (K-01 to K-14).

use std::{fmt, path::Path};

use tidegate_hub::{config::HubConfig, core::codec::SlotState, inspect::Inspector, producer::Producer};

use super::{
    Bystander, KILLED, Look, Use, check, goes_on, inspect, is_valid, join, look, write_batch, write_one,
};
use crate::{
    children::{Child, role, say},
    world::{LONG, place},
};

/// The steps of a writer.
const STEPS: [&str; 14] = [
    "w.reserve.one",
    "w.reserve.all",
    "w.fence",
    "w.burn",
    "w.take.one",
    "w.take.all",
    "w.index",
    "w.payload",
    "w.digest",
    "w.t6",
    "w.prefix",
    "w.wake",
    "w.floor.intent",
    "w.floor.store",
];

/// What a writer does, and what the other process does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// One value after the other, which are read.
    Singles,
    /// Four at once, which are read.
    Batches,
    /// One after the other, while the first one is being read.
    Held,
}

impl Way {
    fn of(usage: Use) -> Vec<Self> {
        let batches = usage.batch().map(|_| Self::Batches);
        let held = usage.skips().then_some(Self::Held);
        [Some(Self::Singles), batches, held].into_iter().flatten().collect()
    }
}

/// Whether a writer comes to `step`.
fn is_passed(step: &str, usage: Use, way: Way) -> bool {
    match step {
        "w.burn" => way == Way::Held,
        // Nobody reads a slot that every consumer has passed.
        "w.fence" => usage.is_lossy(),
        _ => true,
    }
}

/// At which pass it ends: late enough for the ring to have gone round.
fn pass(step: &str, way: Way) -> u32 {
    match (step, way) {
        ("w.burn", _) => 2,
        ("w.floor.intent" | "w.floor.store", _) => 3,
        // The second slot of a batch.
        ("w.reserve.one" | "w.take.one" | "w.payload" | "w.digest" | "w.t6", Way::Batches) => 22,
        (_, Way::Batches) => 6,
        _ => 19,
    }
}

/// Values that a writer writes that is never killed.
const VALUES: u64 = 80;

/// Writes in one way, as far as it comes.
fn write(usage: Use, way: Way, config: &HubConfig) {
    let producer = Producer::create(config).unwrap();
    write_one(&producer, LONG).unwrap();
    say(format!("block {}", producer.name()));
    let seen = Inspector::of(producer.block().clone()).unwrap();
    let is_there = || match seen.consumer(0) {
        Some(consumer) => consumer.state == "active" && (way != Way::Held || consumer.claim_count == 1),
        None => false,
    };
    while !is_there() {
        std::thread::yield_now();
    }
    while producer.next_id().0 < VALUES {
        match usage.batch().filter(|_| way == Way::Batches) {
            Some(n) => write_batch(&producer, n),
            None => {
                write_one(&producer, LONG).unwrap();
            }
        }
    }
}

fn every_step(test: &str, usage: Use) {
    for way in Way::of(usage) {
        if let Some(task) = role(&format!("{way:?}")) {
            return write(usage, way, &usage.config(&task.dir));
        }
    }
    for way in Way::of(usage) {
        for step in STEPS {
            one_step(test, usage, way, step);
        }
    }
}

fn one_step(test: &str, usage: Use, way: Way, step: &'static str) {
    let dir = place();
    let end = End { dir: dir.path(), usage, way, step };
    let at = format!("{step}:{}", pass(step, way));
    let mut writer = Child::start_at(test, &format!("{way:?}"), dir.path(), "", Some(&at));
    let name = writer.wait_for("block");
    let mut other = Bystander::new(join(&name, dir.path()));
    let found = if way == Way::Held {
        let held = other.consumer.next(LONG).unwrap();
        let id = check(&held);
        let found = end.of(&mut writer, &name);
        assert_eq!(check(&held), id, "{end}: what is being read stays");
        drop(held);
        other.seen.push(id);
        found
    } else {
        while !writer.has_ended() {
            // A reader that is met while it holds the slot is what that step is about.
            if step == "w.burn" && usage.is_latest() {
                std::thread::yield_now();
            } else {
                other.read_on();
            }
        }
        other.drain();
        end.of(&mut writer, &name)
    };
    let Some((left, producer, late)) = found else { return };

    let early = other.seen.len();
    assert!(other.seen.iter().all(|id| *id < left.commit), "{end}: read before it was visible");
    other.drain();
    let next = producer.next_id().0;
    let there: Vec<u64> = (0..next).filter(|id| !left.open.contains(id)).collect();
    let inspector = inspect(&name, dir.path());
    if usage.is_latest() {
        let newest = look(&inspector).newest;
        assert!(newest.is_none() || other.seen.last() == newest.as_ref(), "{end}: {newest:?} was not read");
    } else if usage == Use::DropOldest {
        let known = other.seen.len() + left.open.len() + other.lost as usize;
        assert_eq!(known as u64, next, "{end}: {:?}, {} lost, {left:?}", other.seen, other.lost);
    } else {
        assert_eq!(other.seen, there, "{end}: {left:?}, {early} read before");
    }
    if step == "w.t6" && way == Way::Singles {
        assert_eq!(other.seen.last(), Some(&(next - 1)), "{end}: visible after adoption");
    }
    if let Some(mut late) = late {
        let start = late.consumer.start_id().0;
        late.drain();
        assert_eq!(
            late.seen,
            there[there.partition_point(|id| *id < start)..],
            "{end}: promised to who came late"
        );
        late.consumer.detach().unwrap();
        let floor = look(&inspector).floor;
        let later = join(&name, dir.path());
        assert_eq!(later.start_id().0, floor, "{end}: whoever comes now gets everything there is");
    }
    goes_on(&producer, &mut other);
    is_valid(&inspector, &end.to_string());
}

/// One end of one writer.
struct End<'a> {
    dir: &'a Path,
    usage: Use,
    way: Way,
    step: &'static str,
}

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {}", self.usage, self.way, self.step)
    }
}

impl End<'_> {
    /// What the writer left, who adopted it, and who joined in between. None if it does not come to the step, and wrote
    /// to its end.
    fn of(&self, writer: &mut Child, name: &str) -> Option<(Look, Producer, Option<Bystander>)> {
        if !is_passed(self.step, self.usage, self.way) {
            assert_eq!(writer.signal(), None, "{self}: the step is passed after all");
            return None;
        }
        assert_eq!(writer.signal(), KILLED, "{self}: the step is not passed");
        let inspector = inspect(name, self.dir);
        let left = look(&inspector);
        self.is_at_the_step(&left);
        is_valid(&inspector, &self.to_string());
        let late = (self.usage == Use::AllReaders).then(|| {
            let late = join(name, self.dir);
            let start = late.start_id().0;
            assert!((left.intent..=left.commit).contains(&start), "{self}: {start} {left:?}");
            Bystander::new(late)
        });
        Some((left, self.adopt(&inspector), late))
    }

    /// The words are as the step leaves them: the process did end there.
    fn is_at_the_step(&self, left: &Look) {
        let Look { write, commit, open, draining, .. } = left;
        let taken = if self.way == Way::Batches { 1..=4 } else { 1..=1 };
        let is_there = match self.step {
            "w.reserve.one" | "w.reserve.all" | "w.fence" => {
                open.is_empty() && write == commit && draining.is_empty() != self.usage.is_lossy()
            }
            "w.burn" | "w.prefix" | "w.wake" => open.is_empty() && draining.is_empty() && write == commit,
            "w.take.one" => taken.contains(&open.len()) && open.first() == Some(write) && write == commit,
            "w.take.all" => open.len() == *taken.end() && open.first() == Some(write) && write == commit,
            "w.index" => open.len() == *taken.end() && open.first() == Some(commit) && commit < write,
            "w.payload" | "w.digest" => {
                taken.contains(&open.len()) && open.last() == Some(&(write - 1)) && commit < write
            }
            "w.t6" => open.len() < *taken.end() && commit < write,
            "w.floor.intent" => open.is_empty() && left.floor < left.intent,
            "w.floor.store" => open.is_empty() && left.floor == left.intent,
            other => panic!("{other}"),
        };
        assert!(is_there, "{self}: {left:?}");
    }

    /// Adopts the block; everything is resolved then.
    fn adopt(&self, inspector: &Inspector) -> Producer {
        let left = look(inspector);
        let producer = Producer::adopt(&inspector.name(), &self.usage.config(self.dir), LONG).unwrap();
        let end = left.open.iter().map(|id| id + 1).fold(left.write, u64::max);
        assert_eq!(producer.next_id().0, end, "{self}: {left:?}");
        assert_eq!(producer.abandoned(), left.open.len() as u64, "{self}");
        let now = look(inspector);
        assert_eq!((now.write, now.commit, now.intent), (end, end, now.floor), "{self}: {now:?}");
        assert!(now.open.is_empty() && now.draining.is_empty(), "{self}: {now:?}");
        let told: Vec<_> =
            inspector.audit().iter().map(|entry| (entry.operation, entry.before >> 3)).collect();
        assert!(told.iter().any(|(operation, _)| *operation == "adopt"), "{self}: {told:?}");
        for id in &left.open {
            assert!(told.contains(&("reset-slot", id + 1)), "{self}: {id} was abandoned: {told:?}");
        }
        // What was about to be overwritten holds its old value again: the digests are compared, too.
        is_valid(inspector, &self.to_string());
        for slot in inspector.diagnose_all().iter().filter(|slot| slot.slot_id.is_some()) {
            let id = slot.slot_id.unwrap();
            let expected = if left.open.contains(&id) { SlotState::Free } else { SlotState::Committed };
            assert!(slot.state.is(expected), "{self}: {slot:?}");
        }
        producer
    }
}

/// Rules: DH-081, DH-082, DH-084, K-01, K-02, K-03, K-05, K-07, K-08, K-09, K-10, K-11, K-12, N-18.
#[test]
fn writers_of_single_values() {
    every_step("points::writer::writers_of_single_values", Use::Single);
}

/// Rules: DH-081, DH-082, DH-084, DH-055, K-01, K-02, K-03, K-04, K-05, K-07, K-08, K-09, K-10, K-11, K-12.
#[test]
fn writers_of_double_buffers() {
    every_step("points::writer::writers_of_double_buffers", Use::DoubleBuffer);
}

/// Rules: DH-081, DH-082, DH-084, K-01, K-02, K-05, K-06, K-07, K-08, K-09, K-10, K-11, K-12, K-13, K-14.
#[test]
fn writers_for_a_single_reader() {
    every_step("points::writer::writers_for_a_single_reader", Use::SingleReader);
}

/// Rules: DH-081, DH-082, DH-084, DH-068, K-01, K-02, K-05, K-06, K-07, K-08, K-09, K-10, K-11, K-12, K-13, K-14, N-18.
#[test]
fn writers_for_all_readers() {
    every_step("points::writer::writers_for_all_readers", Use::AllReaders);
}

/// Rules: DH-081, DH-082, DH-084, DH-061, K-01, K-02, K-03, K-05, K-06, K-07, K-08, K-09, K-10, K-11, K-12, K-13, K-14.
#[test]
fn writers_that_drop_the_oldest() {
    every_step("points::writer::writers_that_drop_the_oldest", Use::DropOldest);
}

/// Rules: DH-081, DH-082, DH-084, DH-055, K-01, K-02, K-03, K-04, K-05, K-06, K-07, K-08, K-09, K-10, K-11, K-12.
#[test]
fn writers_of_newest_values() {
    every_step("points::writer::writers_of_newest_values", Use::Newest);
}
