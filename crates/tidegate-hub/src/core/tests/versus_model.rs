//! Random sequences of legal operations against a model of the channel that fits on a page.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use tidegate_shm::sync::Ordering;

use super::world::{Block, READER, info};
use crate::core::{
    codec::SlotId,
    config::{Deadline, Overflow, SyncPolicy},
    error::{AcquireError, WriteError},
    plain::config,
    reader::{Acquired, Release},
    registry::Start,
    words::{Control64, Load, Row64, Words},
};

#[derive(Debug, Clone, Copy)]
enum Step {
    Allocate(u32),
    Commit(usize),
    Abort(usize),
    Acquire,
    Consume,
    Redeliver,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..4u32).prop_map(Step::Allocate),
        3 => (0..4usize).prop_map(Step::Commit),
        1 => (0..4usize).prop_map(Step::Abort),
        3 => Just(Step::Acquire),
        3 => Just(Step::Consume),
        1 => Just(Step::Redeliver),
    ]
}

/// What a channel with one reader is.
struct Model {
    lossy: bool,
    slots: u64,
    next: u64,
    /// True data, false hole.
    fates: BTreeMap<u64, bool>,
    open: Vec<u64>,
    cursor: u64,
    held: Option<u64>,
}

impl Model {
    fn resolved(&self) -> u64 {
        (0..).find(|id| !self.fates.contains_key(id)).unwrap_or(0)
    }

    fn may_allocate(&self, n: u64) -> bool {
        let end = self.next + n;
        let in_flight = end - self.resolved() <= self.slots;
        let lowest_overwritten = end.saturating_sub(self.slots);
        let room = if self.lossy {
            // Held ids are not overwritten; the reader is passed by otherwise.
            self.held
                .is_none_or(|held| held >= lowest_overwritten || held < self.next.saturating_sub(self.slots))
        } else {
            end - self.cursor.min(self.resolved()) <= self.slots
        };
        in_flight && room
    }

    /// The next id that holds data, if the reader is not behind.
    fn step_over_holes(&mut self) {
        while self.cursor < self.resolved() && self.fates.get(&self.cursor) == Some(&false) {
            self.cursor += 1;
        }
    }
}

fn run(slots: u32, lossy: bool, steps: &[Step]) {
    let mut config = config(SyncPolicy::SingleReader, slots);
    if lossy {
        config.overflow = Overflow::DropOldest;
    }
    let block = Block::new(config);
    let writer = block.writer();
    let mut reader = block.reader(READER, Start::Oldest);
    let mut model = Model {
        lossy,
        slots: u64::from(slots),
        next: 0,
        fates: BTreeMap::new(),
        open: Vec::new(),
        cursor: 0,
        held: None,
    };
    let mut holding: Option<Acquired> = None;
    let mut floor = 0;
    for step in steps {
        match *step {
            Step::Allocate(n) => {
                let result = writer.allocate(n, Deadline::Immediate);
                if n > slots {
                    assert!(matches!(result, Err(WriteError::BatchTooLarge { .. })));
                } else if model.may_allocate(u64::from(n)) {
                    let allocation = result.unwrap();
                    assert_eq!(allocation.first, SlotId(model.next));
                    for id in allocation.ids() {
                        block.fill(id);
                        model.open.push(id.0);
                    }
                    model.next += u64::from(n);
                } else {
                    assert!(result.is_err(), "{result:?}");
                }
            }
            Step::Commit(at) if at < model.open.len() => {
                let id = model.open.remove(at);
                writer.commit(SlotId(id), info(8)).unwrap();
                model.fates.insert(id, true);
            }
            Step::Abort(at) if at < model.open.len() => {
                let id = model.open.remove(at);
                writer.abort(SlotId(id)).unwrap();
                model.fates.insert(id, false);
            }
            Step::Acquire if holding.is_none() => match reader.acquire_ordered(Deadline::Immediate) {
                Ok(acquired) => {
                    model.step_over_holes();
                    assert_eq!((acquired.id.0, model.fates.get(&acquired.id.0)), (model.cursor, Some(&true)));
                    assert_eq!(block.payload(acquired.id), acquired.id.0);
                    model.held = Some(model.cursor);
                    holding = Some(acquired);
                }
                Err(AcquireError::QueueEmpty) => {
                    model.step_over_holes();
                    assert_eq!(model.cursor, model.resolved());
                }
                Err(AcquireError::Lapped { lost }) => {
                    assert!(lossy && lost > 0);
                    // Holes may have been stepped over before.
                    let to = reader.position().0;
                    assert!(to >= model.cursor + lost && to <= model.next, "{to}");
                    assert!(to + model.slots >= model.next, "behind what is still there");
                    model.cursor = to;
                }
                Err(error) => panic!("{error}"),
            },
            Step::Consume | Step::Redeliver => {
                let Some(acquired) = holding.take() else { continue };
                assert!(reader.validate(&acquired) && block.payload(acquired.id) == acquired.id.0);
                let how = if matches!(step, Step::Consume) { Release::Consumed } else { Release::Redeliver };
                reader.release(&acquired, how).unwrap();
                model.held = None;
                model.cursor = acquired.id.0 + u64::from(how == Release::Consumed);
            }
            _ => {}
        }
        assert_eq!(block.word(Control64::WriteIndex), model.next);
        assert_eq!(block.word(Control64::CommitIndex), model.resolved());
        let (read, intent) = (block.word(Control64::ReadIndex), block.word(Control64::FloorIntent));
        assert!(read <= intent && read <= model.resolved() && read >= floor);
        floor = read;
        assert!(lossy || model.next - read <= model.slots);
    }
    let row = |field| Load::load(block.memory.row64(reader.ticket().row, field), Ordering::Relaxed);
    let passed = row(Row64::SlotsConsumed) + row(Row64::HolesSeen) + row(Row64::SlotsLost);
    assert_eq!(row(Row64::Cursor), passed, "an id was passed that was not read, no hole, and not lost");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 7_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// About a million steps.
    ///
    /// Rules: DH-045, DH-050, DH-051, DH-052, DH-069, DH-110, S-02, N-22.
    #[test]
    fn a_channel_does_what_its_model_does(
        slots in prop::sample::select(vec![1u32, 2, 3, 8]),
        lossy in any::<bool>(),
        steps in vec(step(), 1..300),
    ) {
        run(slots, lossy, &steps);
    }
}
