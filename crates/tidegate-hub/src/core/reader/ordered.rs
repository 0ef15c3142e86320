//! Reading every id in order: SingleReader and AllReaders.

use super::{Acquired, Found, Position, Reader, Release, Seat};
use crate::core::{
    codec::{Claim, SlotId},
    config::{Deadline, SyncPolicy},
    error::{AcquireError, Holder, ReadBatchError},
    host::{Counter, Host},
    protocol::Protocol,
    words::{Control64, Row64, Words},
};

impl<W: Words, H: Host, P: Protocol> Reader<W, H, P> {
    /// The next id that holds data; holes are stepped over and counted (DH-110).
    ///
    /// # Errors
    /// Nothing to read in time, ids lost (reading goes on behind them), the right lost, the block closed and read to its
    /// end, or more slots held than allowed.
    #[inline]
    pub fn acquire_ordered(&mut self, deadline: Deadline) -> Result<Acquired, AcquireError> {
        let mut acquired = Acquired::NONE;
        self.acquire_ordered_into(deadline, &mut acquired)?;
        Ok(acquired)
    }

    /// The same, put where it is going to be used: so many words on their way through results are read wide before they
    /// have been written narrow, which costs as much as an exchange.
    ///
    /// # Errors
    /// As [`Reader::acquire_ordered`]; `into` is as it was.
    #[inline]
    pub(crate) fn acquire_ordered_into(
        &mut self,
        deadline: Deadline,
        into: &mut Acquired,
    ) -> Result<(), AcquireError> {
        let result = self.wait_for_next(deadline, into);
        self.seat.recorded(result)
    }

    /// The next `n` slots, or none of them (DH-122). `into` is filled with them; its contents are replaced.
    ///
    /// # Errors
    /// As [`Reader::acquire_ordered`], or more than may be held. Nothing is held then, and the same ids come next.
    pub fn acquire_batch(
        &mut self,
        n: u32,
        deadline: Deadline,
        into: &mut Vec<Acquired>,
    ) -> Result<(), ReadBatchError> {
        self.prepare_batch(n, into)?;
        self.take_run(n, into)?;
        while into.len() < n as usize {
            match self.acquire_ordered(deadline) {
                Ok(acquired) => into.push(acquired),
                Err(error) => return self.refuse_batch(error, into),
            }
        }
        Ok(())
    }

    /// Up to `n` slots, at least one, without waiting (DH-122). `into` is filled with them; its contents are replaced.
    ///
    /// # Errors
    /// As [`Reader::acquire_batch`]. Where ids were lost on the way nothing is held, so that the loss is not passed over in
    /// silence, and the ids before it come next.
    pub fn acquire_up_to(&mut self, n: u32, into: &mut Vec<Acquired>) -> Result<(), ReadBatchError> {
        self.prepare_batch(n, into)?;
        self.take_run(n, into)?;
        while into.len() < n as usize {
            let mut acquired = Acquired::NONE;
            match self.wait_for_next(Deadline::Immediate, &mut acquired) {
                Ok(()) => into.push(acquired),
                // No more for now, for ever, or for this consumer.
                Err(AcquireError::QueueEmpty | AcquireError::Closed { .. } | AcquireError::Locked { .. })
                    if !into.is_empty() =>
                {
                    break;
                }
                Err(error) => {
                    let _ = self.seat.recorded::<()>(Err(error));
                    return self.refuse_batch(error, into);
                }
            }
        }
        Ok(())
    }

    /// Consumes the first `k` slots of a batch, all at once, and takes them out of it: the writer can have them while the
    /// others are read (DH-123).
    ///
    /// # Errors
    /// One of them is not held; those before it are consumed.
    pub fn consume_first(&mut self, k: usize, batch: &mut Vec<Acquired>) -> Result<(), AcquireError> {
        let before = self.position.low();
        let mut result = Ok(());
        let mut given = k.min(batch.len());
        if !self.consume_run(&batch[..given]) {
            let one_by_one = |acquired| self.give_back(acquired, Release::Consumed);
            let failed =
                batch[..given].iter().map(one_by_one).enumerate().find(|(_, result)| result.is_err());
            if let Some((done, error)) = failed {
                (given, result) = (done, error);
            }
        }
        batch.drain(..given);
        self.seat.let_go(&self.position, before);
        result
    }

    /// Gives back what was taken in a row and is held from the cursor on; false if it is not.
    fn consume_run(&mut self, run: &[Acquired]) -> bool {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return true };
        // Unless the caller has mixed them, they come in their order, each once.
        let in_row = last.id.0.checked_sub(first.id.0) == Some(run.len() as u64 - 1);
        if !in_row || !self.position.consume_run(first.id, run.len()) {
            return false;
        }
        self.count_consumed(run.len() as u64, run.iter().map(|acquired| acquired.len).sum());
        true
    }

    /// What is there of the next `n`, under a claim that is stored once for all of them. Whatever is out of the ordinary
    /// ends the run and is met again by whoever goes on one by one.
    fn take_run(&mut self, n: u32, into: &mut Vec<Acquired>) -> Result<(), AcquireError> {
        let Self { seat, position, .. } = self;
        let before = position.low();
        let first = position.next();
        let there = position.resolved(n.into(), || seat.end()).min(n.min(position.room_for_run()).into());
        if there < 2 {
            return Ok(());
        }
        seat.check_row()?;
        let claim = Claim::new(first, there as u32);
        seat.claim(position, claim)?;
        let config = &seat.core.config;
        let mut ahead = config.indices(first.plus(AHEAD), there.saturating_sub(AHEAD) as u32);
        let mut in_row = 0;
        for (id, index) in config.indices(first, there as u32) {
            if let Some((_, index)) = ahead.next() {
                seat.core.words.expect_read(index);
            }
            match seat.look(id, index) {
                Ok(Found::Data(acquired)) => {
                    in_row += 1;
                    into.push(acquired);
                }
                Ok(Found::Hole) => {
                    position.hold_run(std::mem::take(&mut in_row));
                    position.pass(id);
                    seat.core.row_count(seat.ticket.row, Row64::HolesSeen, 1);
                }
                _ => break,
            }
        }
        position.hold_run(in_row);
        if position.low() != before || position.held_range() != claim {
            seat.let_go(position, before);
        }
        Ok(())
    }

    fn prepare_batch(&self, n: u32, into: &mut Vec<Acquired>) -> Result<(), ReadBatchError> {
        into.clear();
        if self.seat.core.config.sync == SyncPolicy::LatestOnly {
            return Err(ReadBatchError::LatestOnly);
        }
        let available = self.position.max_held();
        if n > available { Err(ReadBatchError::BatchTooLarge { requested: n, available }) } else { Ok(()) }
    }

    /// Gives back what was acquired before something went wrong.
    fn refuse_batch(&mut self, error: AcquireError, into: &mut Vec<Acquired>) -> Result<(), ReadBatchError> {
        for acquired in into.drain(..).rev() {
            self.release(&acquired, Release::Redeliver)?;
        }
        Err(error.into())
    }

    #[inline]
    fn wait_for_next(&mut self, deadline: Deadline, into: &mut Acquired) -> Result<(), AcquireError> {
        let Self { seat, position, .. } = self;
        let wait = seat.core.data_wait(deadline);
        let waited = wait.until::<P, _, AcquireError>(|_| seat.try_next(position, into))?;
        waited.result.ok_or(match deadline {
            Deadline::Immediate => AcquireError::QueueEmpty,
            _ => AcquireError::Timeout,
        })
    }
}

/// How many slots ahead within a batch lines are fetched.
const AHEAD: u64 = 8;

impl<W: Words, H: Host, P: Protocol> Seat<W, H, P> {
    /// None when there is nothing to read yet.
    #[inline]
    fn try_next(&self, position: &mut Position, into: &mut Acquired) -> Result<Option<()>, AcquireError> {
        let mut retried = false;
        let mut holes = 0;
        loop {
            // There are no more holes in a row than slots, unless the block is damaged: then whoever waits looks at his time.
            if holes > self.core.config.slots() {
                return Ok(None);
            }
            self.check_row()?;
            let id = position.next();
            let there = position.resolved(1, || self.end());
            if there == 0 {
                return self.nothing_left(id);
            }
            // On the way while the claim is made, and the next one while this one is read.
            let index = self.core.config.index(id);
            self.core.words.expect_read(index);
            if there > 1 {
                self.core.words.expect_read(self.core.config.index(id.plus(1)));
            }
            let Some(claim) = position.claim_with(id).filter(|_| position.may_hold_more()) else {
                return Err(AcquireError::Locked { holder: Holder::Caller });
            };
            self.claim(position, claim)?;
            let found = self.look(id, index);
            if !matches!(found, Ok(Found::Data(_))) {
                self.store_claim(position.held_range());
            }
            match found? {
                Found::Data(acquired) => {
                    position.hold(id);
                    *into = acquired;
                    return Ok(Some(()));
                }
                Found::Hole => {
                    holes += 1;
                    let before = position.low();
                    position.pass(id);
                    self.core.row_count(self.ticket.row, Row64::HolesSeen, 1);
                    self.let_go(position, before);
                }
                Found::NotReady if !retried => {
                    retried = true;
                    self.core.host.count(Counter::ReaderNotReady, 1);
                }
                Found::NotReady | Found::Overwritten => return self.lapped(position, id).map(|_| None),
            }
        }
    }

    /// The block is closed, or there is only nothing yet.
    #[inline]
    fn nothing_left(&self, id: SlotId) -> Result<Option<()>, AcquireError> {
        match self.core.closed() {
            // The writer stores the end last: an id that is not there now never comes.
            Some(closed) if id.0 >= self.end() => Err(closed),
            _ => Ok(None),
        }
    }

    /// Goes on at the oldest id that is still there, with some room so as not to be lapped again at once (DH-061).
    fn lapped(&self, position: &mut Position, id: SlotId) -> Result<(), AcquireError> {
        if !self.core.config.is_lossy() {
            return Err(AcquireError::InvalidState);
        }
        let slots = self.core.config.slots();
        let oldest =
            self.core.config.overrun(self.core.control(Control64::WriteIndex)).saturating_add(slots / 8);
        let next = oldest.max(self.core.control(Control64::ReadIndex)).max(id.0.saturating_add(1));
        let next = next.min(self.end().max(id.0.saturating_add(1)));
        if position.holds_any() {
            // The cursor cannot leave what is still held; the ids are lost one by one.
            let before = position.low();
            position.pass(id);
            self.count_lost(1);
            self.let_go(position, before);
            return Err(AcquireError::Lapped { lost: 1 });
        }
        position.jump(SlotId(next));
        self.store_cursor(position);
        self.count_lost(next - id.0);
        Err(AcquireError::Lapped { lost: next - id.0 })
    }

    fn count_lost(&self, lost: u64) {
        self.core.row_count(self.ticket.row, Row64::SlotsLost, lost);
        self.core.host.count(Counter::ReaderLappedSlots, lost);
    }
}
