//! Reading ahead: each partition in its turn, a batch at a time, within the bytes that all may hold together (VX-310).
//!
//! A part of these is only for partitions that hold nothing. So those that wait, for a retry or a worker, with as much as they
//! may have, keep none of the others from reading (VX-444).

use std::collections::BTreeSet;

use super::{
    Vertex, VertexError,
    tenure::{Partition, Tenure},
    turns::Turn,
};
use crate::{
    config::Delivery as Promise,
    operate::{Doing, Wish},
    source::Polled,
};

/// How the bytes are shared that may be held.
#[derive(Debug)]
struct Shares {
    limit: u64,
    /// Bytes that a read may bring: nobody knows how long the next batch is (VX-831).
    batch: u64,
    /// Bytes that are left to partitions that hold nothing.
    reserve: u64,
    held: u64,
}

impl Shares {
    /// What each partition holds that reads or has read.
    fn new(limit: u64, batch: u64, held: impl Iterator<Item = u64>) -> Self {
        let (held, count) = held.fold((0, 0), |(sum, count), held| (sum + held, count + 1));
        let reserve = if count > 1 { batch.max(limit / 4) } else { 0 };
        Self { limit, batch, reserve, held }
    }

    /// Whether a partition may read that holds so many bytes.
    fn has_room(&self, holds: u64) -> bool {
        let reserve = if holds > 0 { self.reserve } else { 0 };
        self.held + self.batch + reserve <= self.limit
    }
}

impl Vertex {
    /// Reads ahead as far as the window of each partition goes.
    pub(super) fn read(&mut self) -> Result<(), VertexError> {
        let tenures = self.partitions.iter().filter_map(|partition| partition.tenure.as_ref());
        let going = tenures.filter(|tenure| !tenure.is_over());
        let (limit, batch) = (self.pipeline.limits.prefetch.0, self.budget.bytes as u64);
        let mut shares = Shares::new(limit, batch, going.map(|tenure| tenure.flow.bytes()));
        let mut turns = std::mem::take(&mut self.reads);
        let (mut done, mut failed) = (BTreeSet::new(), None);
        turns.go_round(self.partitions.len(), |index| {
            // What has nothing to read now is not asked again for each batch of another one.
            if done.contains(&index) {
                return Turn::Nothing;
            }
            let read = self.read_next(index, &mut shares);
            let turn = match read.map_err(|error| self.tolerate(index, Err(error))) {
                Ok(turn) => turn,
                Err(Ok(())) => Turn::Nothing,
                Err(Err(error)) => {
                    failed = Some(error);
                    Turn::Full
                }
            };
            if turn == Turn::Nothing {
                done.insert(index);
            }
            turn
        });
        self.reads = turns;
        match failed {
            Some(error) => Err(error),
            None if self.pipeline.pipeline.delivery == Promise::AtMostOnce => self.commit_reads(),
            None => Ok(()),
        }
    }

    /// Reads a batch of a partition, if it may.
    fn read_next(&mut self, index: usize, shares: &mut Shares) -> Result<Turn, VertexError> {
        let lanes = if self.pipeline.is_ordered() { 1 } else { self.lanes.len() };
        let window = self.pipeline.transport().max_in_flight as usize * lanes + 1;
        let Some(Partition { id, tenure: Some(tenure), .. }) = self.partitions.get_mut(index) else {
            return Ok(Turn::Nothing);
        };
        let wish = self.board.wish(*id).max(self.manager.wish(*id));
        if wish != Wish::Run || !reads(tenure) || tenure.flow.len() >= window {
            return Ok(Turn::Nothing);
        }
        let holds = tenure.flow.bytes();
        if !shares.has_room(holds) {
            return Ok(if holds > 0 { Turn::Nothing } else { Turn::Full });
        }
        let mut budget = self.budget;
        if tenure.careful.as_ref().is_some_and(|careful| careful.singly) {
            budget.records = 1;
        }
        if let Some(left) = tenure.left_to_read() {
            budget.records = budget.records.min(left as usize);
        }
        if budget.records == 0 {
            return Ok(Turn::Nothing);
        }
        self.board.doing(Doing::Source);
        let polled = self.source.poll(*id, budget);
        self.board.doing(Doing::Work);
        match polled? {
            Polled::End => tenure.at_end = true,
            Polled::Idle => {}
            Polled::Inputs(inputs) => {
                tenure.check_intended(*id, &inputs)?;
                self.meter.has_read(&inputs, &mut self.report);
                shares.held += tenure.take(inputs, self.budget.bytes);
                return Ok(Turn::Sent);
            }
            Polled::Unfit(input, fault) => {
                let inputs = std::slice::from_ref(&input);
                tenure.check_intended(*id, inputs)?;
                self.meter.has_read(inputs, &mut self.report);
                shares.held += tenure.take_unfit(input, "PARSE_ERROR", fault);
                return Ok(Turn::Sent);
            }
        }
        Ok(Turn::Nothing)
    }
}

/// Whether a session reads at all. Of a fenced one nothing is read; the loop ends it next.
fn reads(tenure: &Tenure) -> bool {
    tenure.unopened.is_none() && !tenure.at_end && !tenure.flow.is_stopped() && !tenure.guard.is_revoked()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::turns::Turns;

    /// Partitions that always have more to read, a window of nine batches each. `waiting` of them get nothing done; of the
    /// others a batch is done at a time. Returns how many each has read after so many rounds.
    fn read(limit: u64, partitions: usize, waiting: usize, rounds: usize) -> Vec<u64> {
        let (batch, longest) = (528, 1024);
        let (mut turns, mut queued, mut read) = (Turns::default(), vec![0; partitions], vec![0; partitions]);
        let mut next = 0;
        for _ in 0..rounds {
            let mut shares = Shares::new(limit, longest, queued.iter().map(|queued| queued * batch));
            turns.go_round(partitions, |index| {
                let holds = queued[index] * batch;
                if queued[index] == 9 || !shares.has_room(holds) {
                    return if holds > 0 { Turn::Nothing } else { Turn::Full };
                }
                shares.held += batch;
                assert!(shares.held <= limit);
                queued[index] += 1;
                read[index] += 1;
                Turn::Sent
            });
            let goes = (0..partitions).map(|index| (next + index) % partitions);
            if let Some(index) = goes.filter(|&index| index >= waiting).find(|&index| queued[index] > 0) {
                queued[index] -= 1;
                next = index + 1;
            }
        }
        read
    }

    /// Rules: VX-310, VX-444.
    #[test]
    fn partitions_with_more_than_all_may_hold_read_in_turn() {
        for (limit, partitions, most_ahead) in [(32 << 10, 16, 9), (1 << 10, 3, 1)] {
            let read = read(limit, partitions, 0, partitions * 100);
            let (least, most) = (read.iter().min(), read.iter().max());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= most_ahead), "{read:?}");
        }
    }

    /// Rules: VX-444, VX-600.
    #[test]
    fn partitions_that_wait_with_all_they_may_hold_keep_no_other_from_reading() {
        for waiting in [1, 7, 15] {
            let read = read(32 << 10, 16, waiting, 16 * 100);
            assert!(read[waiting..].iter().all(|read| *read >= 100), "{waiting}: {read:?}");
        }
        // One by itself has all there is.
        assert_eq!(read(2 << 10, 1, 1, 1), [2]);
        assert_eq!(read(1 << 10, 1, 0, 10), [10]);
    }
}
