//! The generation of a zone against torn snapshots: Q-11. The content is two words that are always equal.

use tidegate_shm::sync::{Arc, AtomicU64, Ordering, thread};

use super::{WRITER, breaks, explore, mutants};
use crate::core::{
    generation::{GenerationWords, ZoneState},
    plain::key,
    protocol::{Protocol, Shipped},
};

mutants! {
    NoReadFence: ZONE_READ_FENCE: Option<Ordering> = None;
    NoWriteFence: ZONE_WRITE_FENCE: Option<Ordering> = None;
    EndRelaxed: ZONE_END: Ordering = Ordering::Relaxed;
}

#[derive(Default)]
struct Zone {
    control: [AtomicU64; 3],
    content: [AtomicU64; 2],
    ticks: AtomicU64,
}

impl Zone {
    /// As [`super::Block::step`].
    fn step(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    fn words<P: Protocol>(&self) -> GenerationWords<&AtomicU64, P> {
        let [generation, last_writer, last_write_ns] = &self.control;
        GenerationWords::new(generation, last_writer, last_write_ns)
    }
}

fn snapshot<P: Protocol>() -> usize {
    explore(5, || {
        let zone = Arc::new(Zone::default());
        let updated = zone.clone();
        let writer = thread::spawn(move || {
            for value in 1..=2 {
                let words = updated.words::<P>();
                let odd = words.begin(words.state(), key(WRITER)).unwrap();
                // Relaxed: as the copies of a zone, which order nothing.
                updated.content.iter().for_each(|word| word.store(value, Ordering::Relaxed));
                words.end(odd, 0);
                updated.step();
            }
        });
        zone.step();
        let words = zone.words::<P>();
        match words.state() {
            ZoneState::Whole(generation) => {
                let copy = [0, 1].map(|at: usize| zone.content[at].load(Ordering::Relaxed));
                if words.is_still(generation) {
                    assert_eq!(copy, [generation / 2; 2], "torn snapshot");
                }
            }
            ZoneState::Writing { writer, .. } => assert_eq!(writer, Some(key(WRITER)), "nobody's update"),
        }
        writer.join().unwrap();
    })
}

/// Rules: DH-140, Q-11.
#[test]
fn q11_no_snapshot_is_torn() {
    assert!(snapshot::<Shipped>() > 10);
}

/// Rules: DH-140, Q-11.
#[test]
fn q11_the_fence_of_the_reader_is_needed() {
    assert!(breaks(&["torn snapshot"], snapshot::<NoReadFence>));
}

/// Rules: DH-140, Q-11.
#[test]
fn q11_the_fence_of_the_writer_is_needed() {
    assert!(breaks(&["torn snapshot"], snapshot::<NoWriteFence>));
}

/// Rules: DH-140, Q-11.
#[test]
fn q11_ending_an_update_releases() {
    assert!(breaks(&["torn snapshot"], snapshot::<EndRelaxed>));
}
