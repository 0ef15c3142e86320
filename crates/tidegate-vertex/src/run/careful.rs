//! A partition whose last runs took the runtime with them (VX-604): an input may be to blame, and nobody was left to say so.
//!
//! So each try is written down before it is made, with one batch on its way at a time: what is found in the ledger at the next
//! start is what was on its way at the end. Only a try of an input by itself can use up its tries; from the second such start
//! on there are no others.

use std::{collections::BTreeMap, num::NonZeroU32};

use tidegate_udf::wire::ids::Position;

use crate::{batch::Batch, ledger::Mark};

/// What is different for such a partition.
#[derive(Debug)]
pub(super) struct Careful {
    /// Inputs go by themselves.
    pub(super) singly: bool,
    /// Inputs to be committed until it is as any other.
    left: u64,
    /// Tries after which an input is given up.
    crash_attempts: NonZeroU32,
    /// The batch whose try is in the ledger: its first and last input, and which try it is.
    noted: Option<(Position, Position, u16)>,
}

impl Careful {
    /// `fell` is how many runs before this one ended without saying so and came no further; `None` when none did.
    pub(super) fn after(fell: u32, max_records: NonZeroU32, crash_attempts: NonZeroU32) -> Option<Self> {
        let left = 2 * u64::from(max_records.get());
        (fell > 0).then_some(Self { singly: fell > 1, left, crash_attempts, noted: None })
    }

    /// So many inputs are committed; whether that is enough.
    pub(super) fn is_over(&mut self, committed: u64) -> bool {
        self.left = self.left.saturating_sub(committed);
        self.left == 0
    }

    /// What the ledger has to say of tries while `next` is on its way; `marks` is what it has to say without.
    pub(super) fn marks_with(&self, mut marks: BTreeMap<Position, Mark>, next: &Batch) -> Vec<Mark> {
        let alone = next.inputs().len() == 1;
        for input in next.inputs() {
            let position = input.position;
            let mark = marks.entry(position).or_insert(Mark { position, failures: 0, crashes: 0 });
            let tried = mark.crashes.saturating_add(1);
            let most = if alone { u32::MAX } else { self.crash_attempts.get() - 1 };
            mark.crashes = tried.min(most).max(mark.crashes);
        }
        marks.into_values().collect()
    }

    /// The try of a batch is in the ledger.
    pub(super) fn note(&mut self, batch: Option<(Position, Position, u16)>) {
        self.noted = batch;
    }

    /// Whether the try of this batch is in the ledger.
    pub(super) fn has_noted(&self, batch: &Batch) -> bool {
        self.noted == Some(Self::try_of(batch))
    }

    /// By what a try is known again.
    pub(super) fn try_of(batch: &Batch) -> (Position, Position, u16) {
        (batch.first(), batch.last(), batch.attempt)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::batch::{Input, Record};

    fn batch(positions: std::ops::Range<u64>) -> Batch {
        let input = |position| Input {
            position: Position(position),
            next: Position(position + 1),
            record: Record::default(),
        };
        Batch::new(positions.map(input).collect()).unwrap()
    }

    fn careful(crash_attempts: u32) -> Careful {
        Careful::after(1, NonZeroU32::MIN, NonZeroU32::new(crash_attempts).unwrap()).unwrap()
    }

    /// However often a batch takes the runtime with it, its inputs are tried by themselves before any of them is given up.
    /// Rules: VX-604, VX-611.
    #[test]
    fn inputs_of_a_batch_are_not_given_up_for_what_one_of_them_does() {
        for crash_attempts in 1..5 {
            let careful = careful(crash_attempts);
            let mut marks = BTreeMap::new();
            for _ in 0..10 {
                let noted = careful.marks_with(marks, &batch(3..6));
                assert!(noted.iter().all(|mark| mark.crashes < crash_attempts), "{noted:?}");
                marks = noted.into_iter().map(|mark| (mark.position, mark)).collect();
            }
            let alone = careful.marks_with(marks, &batch(4..5));
            let crashes: Vec<u32> = alone.iter().map(|mark| mark.crashes).collect();
            assert_eq!(crashes, [crash_attempts - 1, crash_attempts, crash_attempts - 1]);
        }
    }

    /// Rules: VX-604.
    #[test]
    fn a_partition_is_run_so_until_twice_an_epoch_is_committed() {
        let ten = NonZeroU32::new(10).unwrap();
        assert!(Careful::after(0, ten, ten).is_none());
        let mut once = Careful::after(1, ten, ten).unwrap();
        assert!(!once.singly && Careful::after(2, ten, ten).unwrap().singly);
        assert!(!once.is_over(19) && once.is_over(1));
    }
}
