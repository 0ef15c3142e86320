//! Progress: when it is due, and epochs in four steps (12.2).
//!
//! ```text
//!  SEAL      an epoch gets its range and its outputs                              in memory
//!  PERSIST   outputs and record, PREPARED                                         one transaction of the ledger
//!  PREPARE   sinks that can stage it do
//!  COMMIT    sinks make it visible; COMMITTED, with the resume position            one transaction; then the source is told
//! ```
//!
//! One transaction carries the COMMITs and the PERSISTs of everything that is due at the moment (VX-765). An epoch is persisted
//! only when the one before it is committed in the same transaction or earlier (VX-763).

use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_udf::wire::ids::{EpochId, PartitionId, Position};

use super::{
    End, Vertex, VertexError,
    cursors::counts,
    lanes::LaneState,
    outgoing::{Outgoing, Way},
    tenure::{EpochStep, Partition, Sealed, Tenure},
};
use crate::{
    config::Delivery as Promise,
    failpoint::{self, Point},
    fence::{Fenced, WriteKind},
    ledger::{Counts, Range, Record, Status, Transaction, wall_ms},
    operate::{Board, Doing},
    own::{Decision, Intended, Manager},
    sink::{Class, Output, Token},
    source::Source,
};

impl Vertex {
    /// Makes progress durable as far as it is due; when the next is due, if anything waits.
    pub(super) fn commit(&mut self, stopping: bool) -> Result<Option<Nanos>, VertexError> {
        self.pass_over()?;
        match self.pipeline.pipeline.delivery {
            Promise::AtMostOnce => self.commit_states(stopping),
            Promise::AtLeastOnce => self.commit_cursors(stopping),
            Promise::EffectivelyOnce => self.commit_epochs(stopping),
        }
    }

    /// Moves partitions of which nothing is under way behind what their source has for others (VX-835).
    fn pass_over(&mut self) -> Result<(), VertexError> {
        if self.ledger.is_none() {
            return Ok(());
        }
        let mut cursors = Vec::new();
        for (index, partition) in self.partitions.iter().enumerate() {
            let Some(tenure) = partition.tenure.as_ref().filter(|tenure| tenure.is_idle()) else { continue };
            let passed = self.source.passed(partition.id).filter(|passed| *passed > tenure.resume);
            let Some(resume) = passed else { continue };
            let range = Range { first: tenure.resume, last: tenure.resume, resume };
            cursors.push((index, range, Counts::default()));
        }
        if cursors.is_empty() { Ok(()) } else { self.put_cursors(cursors) }
    }

    /// Whether a partition has to wait with what is final until epochs are committed (VX-314, VX-761).
    pub(super) fn takes_no_more(&self, index: usize) -> bool {
        let tenure = self.partitions.get(index).and_then(|partition| partition.tenure.as_ref());
        if tenure.is_some_and(|tenure| tenure.intended.is_some()) {
            // It is as large as the session before has made it.
            return false;
        }
        if self.is_under_pressure() {
            return true;
        }
        let tenure = self.partitions.get(index).and_then(|partition| partition.tenure.as_ref());
        tenure.is_some_and(|tenure| tenure.is_full(&self.pipeline.epoch) && self.has_no_place(tenure))
    }

    /// Whether outputs have the room that they may have.
    pub(super) fn is_under_pressure(&self) -> bool {
        let tenures = self.partitions.iter().filter_map(|partition| partition.tenure.as_ref());
        tenures.map(Tenure::buffered).sum::<u64>() >= self.pipeline.limits.epoch_buffers.0 / 2
    }

    /// Whether what waited for a place in an epoch need not wait any longer.
    pub(super) fn has_place_again(&self) -> bool {
        let has_final =
            |partition: &Partition| partition.tenure.as_ref().is_some_and(|tenure| tenure.flow.has_final());
        let waiting = self.partitions.iter().enumerate().filter(|(_, partition)| has_final(partition));
        self.pipeline.pipeline.delivery == Promise::EffectivelyOnce
            && waiting.map(|(index, _)| index).any(|index| !self.takes_no_more(index))
    }

    fn has_no_place(&self, tenure: &Tenure) -> bool {
        tenure.sealed.len() >= self.pipeline.epoch.max_pending.get() as usize
    }

    pub(super) fn commit_epochs(&mut self, stopping: bool) -> Result<Option<Nanos>, VertexError> {
        loop {
            let due = self.seal(stopping)?;
            self.publish_epochs()?;
            if !self.run_epochs()? {
                let waiting = self.partitions.iter().filter_map(|partition| {
                    let front = partition.tenure.as_ref()?.sealed.front()?;
                    (front.step == EpochStep::Prepared).then_some(front.outgoing.again)
                });
                return Ok(waiting.chain(due).min());
            }
        }
    }

    /// Step 1. When the next open epoch is due.
    pub(super) fn seal(&mut self, stopping: bool) -> Result<Option<Nanos>, VertexError> {
        let now = monotonic_now();
        let interval = self.pipeline.epoch_interval();
        let pressure = self.is_under_pressure();
        let mut next: Option<Nanos> = None;
        for index in 0..self.partitions.len() {
            let Some(tenure) = self.partitions.get(index).and_then(|partition| partition.tenure.as_ref())
            else {
                continue;
            };
            let Some((_, since)) = &tenure.open else { continue };
            if self.has_no_place(tenure) {
                // A commit makes place, and has its own time.
                continue;
            }
            let range = tenure.open.as_ref().map(|(chunk, _)| chunk.range);
            let Some(range) = range else { continue };
            let due = since.saturating_add(interval);
            let ends = tenure.is_over() || stopping && tenure.flow.is_empty();
            match tenure.intended {
                // Exactly what was intended, however long it takes.
                Some(intended) if range.last < intended.last => continue,
                Some(_) => {}
                None if now < due && !ends && !pressure && !tenure.is_full(&self.pipeline.epoch) => {
                    next = Some(next.map_or(due, |next| next.min(due)));
                    continue;
                }
                None => {}
            }
            let id = PartitionId(index as u32);
            let identity = self.source.identity(id, range.resume)?;
            let uid = self.pipeline.uid();
            let Some(tenure) = self.partitions.get_mut(index).and_then(|partition| partition.tenure.as_mut())
            else {
                continue;
            };
            let epoch = tenure.open_epoch();
            tenure.intended = None;
            let Some((chunk, since)) = tenure.open.take() else { continue };
            self.meter.seal.add_time(now.saturating_sub(since));
            let record = Record {
                uid,
                partition: id,
                generation: tenure.guard.generation(),
                epoch,
                previous: EpochId(epoch.0 - 1),
                status: Status::Prepared,
                range,
                identity,
                counts: counts(&chunk.outcomes),
                sinks: Vec::new(),
                function: self.function,
                created_ms: wall_ms(),
                committed_ms: 0,
            };
            let outgoing = Outgoing::new(chunk);
            let step = EpochStep::Sealed;
            tenure.sealed.push_back(Sealed {
                record,
                outgoing,
                step,
                redo: false,
                kept: Nanos::ZERO,
                since,
                prepared: now,
            });
            failpoint::at(Point::Sealed);
        }
        Ok(next)
    }

    /// Steps 3 and 4a, of the epochs that are prepared.
    fn publish_epochs(&mut self) -> Result<(), VertexError> {
        let mut complete = Vec::new();
        for index in 0..self.partitions.len() {
            match self.publish_front(index) {
                Ok(true) => complete.push(index),
                Ok(false) => {}
                Err(error) => self.tolerate(index, Err(error))?,
            }
        }
        if complete.is_empty() {
            return Ok(());
        }
        self.flush()?;
        for index in complete {
            let tenure = self.partitions.get_mut(index).and_then(|partition| partition.tenure.as_mut());
            if let Some(front) = tenure.and_then(|tenure| tenure.sealed.front_mut()) {
                front.step = EpochStep::Confirmed;
                self.meter.publish.add_time(monotonic_now().saturating_sub(front.prepared));
                failpoint::at(Point::Confirmed);
            }
        }
        Ok(())
    }

    fn publish_front(&mut self, index: usize) -> Result<bool, VertexError> {
        let tenure = self.partitions.get_mut(index).and_then(|partition| partition.tenure.as_mut());
        let Some(Tenure { session, guard, sealed, lineage, .. }) = tenure else { return Ok(false) };
        let Some(front) = sealed.front_mut() else { return Ok(false) };
        if front.step != EpochStep::Prepared {
            return Ok(false);
        }
        let way = Way {
            session: *session,
            epoch: front.record.epoch,
            source: lineage.unwrap_or(0),
            guard,
            letters: self.letters.as_ref(),
            leave_out: self.pipeline.leaves_out(),
            sealed: true,
            now: monotonic_now(),
        };
        self.board.doing(Doing::Sink);
        let published = front.outgoing.publish(&mut self.sinks, &way, &mut self.report);
        self.board.doing(Doing::Work);
        published
    }

    /// Waits until the sinks have confirmed what was published; their states go into the next commit.
    pub(super) fn flush(&mut self) -> Result<(), VertexError> {
        for end in self.sinks.iter_mut().filter(|end| end.dirty) {
            end.flush()?;
        }
        Ok(())
    }

    /// Steps 2 and 4b to 4d of everything that is due, in one transaction; whether there was anything.
    fn run_epochs(&mut self) -> Result<bool, VertexError> {
        let Some(ledger) = &mut self.ledger else { return Ok(false) };
        let now_ms = wall_ms();
        let mut transaction = Transaction::default();
        let mut permits = Vec::new();
        let (mut commits, mut persists) = (Vec::new(), Vec::new());
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            let Some(tenure) = &mut partition.tenure else { continue };
            let confirmed = tenure.sealed.front().is_some_and(|front| front.step == EpochStep::Confirmed);
            let next = tenure.sealed.get(usize::from(confirmed));
            let persists_next = next.is_some_and(|next| next.step == EpochStep::Sealed);
            if !confirmed && !persists_next {
                continue;
            }
            if confirmed {
                collect_tokens(tenure, &self.sinks);
            }
            // A partition that lost its right is left out; the loop finds out by itself.
            if decide(&*self.manager, &self.board, tenure, confirmed, persists_next).is_err() {
                continue;
            }
            if persists_next {
                failpoint::at(Point::BeforePersist);
            }
            let Ok(permit) = tenure.guard.permit(WriteKind::Ledger) else { continue };
            permits.push(permit);
            if confirmed && let Some(front) = tenure.sealed.front() {
                ledger.commit_prepared(&front.record, now_ms, &mut transaction)?;
                let over: Vec<Position> =
                    tenure.marks.range(..front.record.range.resume).map(|(position, _)| *position).collect();
                ledger.put_marks(partition.id, &[], &over, &mut transaction);
                commits.push(index);
            }
            if persists_next && let Some(next) = tenure.sealed.get_mut(usize::from(confirmed)) {
                let outputs: Vec<(&str, Class, &[Output])> = self
                    .sinks
                    .iter()
                    .zip(&next.outgoing.chunk.outputs)
                    .map(|(end, outputs)| (end.config.name(), end.sink.class(), outputs.as_slice()))
                    .collect();
                next.record = ledger.persist(next.record.clone(), &outputs, &mut transaction)?;
                persists.push(index);
            }
        }
        if transaction.is_empty() {
            return Ok(false);
        }
        if !commits.is_empty() {
            put_states(&self.sinks, |name, token| ledger.put_sink(name, token, &mut transaction));
        }
        self.board.doing(Doing::Ledger);
        let begun = monotonic_now();
        let ran = ledger.run(&transaction);
        self.board.doing(Doing::Work);
        let now = monotonic_now();
        let took = now.saturating_sub(begun);
        ran?;
        drop(permits);
        commits.iter().for_each(|_| self.meter.commit.add_time(took));
        persists.iter().for_each(|_| self.meter.persist.add_time(took));
        self.keeps_up(took)?;
        if !commits.is_empty() {
            failpoint::at(Point::Committed);
        }
        for index in commits {
            let Some(partition) = self.partitions.get_mut(index) else { continue };
            let Some(tenure) = &mut partition.tenure else { continue };
            let Some(front) = tenure.sealed.pop_front() else { continue };
            self.meter.commit_lag.add_time(now.saturating_sub(front.since));
            tenure.committed(&front.record, &self.sinks, self.budget.records);
            if let (true, Some(from)) = (front.redo, &mut tenure.unopened) {
                *from = Some(crate::source::Resume {
                    position: front.record.range.resume,
                    identity: front.record.identity.clone(),
                });
            } else {
                self.report.add(&front.outgoing.chunk.outcomes);
            }
            acknowledge(&mut *self.source, partition.id, tenure)?;
            failpoint::at(Point::Acknowledged);
        }
        for index in persists {
            let tenure = self.partitions.get_mut(index).and_then(|partition| partition.tenure.as_mut());
            if let Some(front) = tenure.and_then(|tenure| tenure.sealed.front_mut()) {
                (front.step, front.prepared) = (EpochStep::Prepared, now);
                failpoint::at(Point::Prepared);
            }
        }
        Ok(true)
    }

    /// The ledger took so long for a transaction: whether no epoch has waited for it for too long (VX-766).
    fn keeps_up(&mut self, took: Nanos) -> Result<(), VertexError> {
        let longest = self.pipeline.epoch.rto.0;
        let tenures = self.partitions.iter_mut().filter_map(|partition| partition.tenure.as_mut());
        for sealed in tenures.flat_map(|tenure| &mut tenure.sealed) {
            sealed.kept = sealed.kept.saturating_add(took);
            if sealed.kept > longest {
                let Record { partition, epoch, .. } = &sealed.record;
                return Err(VertexError::Behind { partition: partition.0, epoch: epoch.0, longest });
            }
        }
        Ok(())
    }

    /// Keeps in the ledger how often inputs were tried, before they are tried again (VX-602), and that there is a run (VX-604).
    pub(super) fn keep_marks(&mut self) -> Result<(), VertexError> {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let mut transaction = Transaction::default();
        let mut permits = Vec::new();
        let (now, workers, ordered) = (monotonic_now(), self.lanes.len(), self.pipeline.is_ordered());
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            let Some(tenure) = &mut partition.tenure else { continue };
            let mut lanes = self.lanes.iter().skip(if ordered { index % workers } else { 0 });
            let ready = if ordered {
                lanes.next().is_some_and(LaneState::is_ready)
            } else {
                lanes.any(LaneState::is_ready)
            };
            let (new, over) = tenure.tries(now, ready);
            let begins = tenure.unsaid.filter(|_| ready && tenure.flow.next_to_send(now).is_some());
            if new.is_empty() && over.is_empty() && begins.is_none() {
                continue;
            }
            // Without it nothing is sent either.
            let Ok(permit) = tenure.guard.permit(WriteKind::Ledger) else { continue };
            permits.push(permit);
            if let Some(fell) = begins {
                ledger.put_running(partition.id, fell, &mut transaction)?;
                (tenure.unsaid, partition.has_sent) = (None, true);
            }
            ledger.put_marks(partition.id, &new, &over, &mut transaction);
            tenure.marks.retain(|position, _| !over.contains(position));
            tenure.marks.extend(new.into_iter().map(|mark| (mark.position, mark)));
        }
        self.run_ledger(&transaction)?;
        drop(permits);
        Ok(())
    }

    /// Makes a transaction durable, if there is anything in it.
    pub(super) fn run_ledger(&mut self, transaction: &Transaction) -> Result<(), VertexError> {
        let Some(ledger) = self.ledger.as_mut().filter(|_| !transaction.is_empty()) else { return Ok(()) };
        self.board.doing(Doing::Ledger);
        let begun = monotonic_now();
        let ran = ledger.run(transaction);
        self.board.doing(Doing::Work);
        self.meter.commit.add_time(monotonic_now().saturating_sub(begun));
        Ok(ran?)
    }
}

/// What the sinks said about the oldest epoch.
fn collect_tokens(tenure: &mut Tenure, sinks: &[End]) {
    let Some(front) = tenure.sealed.front_mut() else { return };
    for part in &mut front.record.sinks {
        let Some(sink) = sinks.iter().position(|end| end.config.name() == part.name) else { continue };
        let new = front.outgoing.tokens.get(sink).cloned().flatten();
        part.token = new.or_else(|| tenure.tokens.get(sink).cloned().flatten());
    }
}

/// Tells the ownership store which epoch is committed and which is next, in one write (VX-765).
fn decide(
    manager: &dyn Manager,
    board: &Board,
    tenure: &Tenure,
    commits: bool,
    intends: bool,
) -> Result<(), Fenced> {
    if !manager.keeps_commits() {
        return Ok(());
    }
    let front = tenure.sealed.front().filter(|_| commits);
    let next = tenure.sealed.get(usize::from(commits)).filter(|_| intends);
    let decision = Decision {
        commit: front.map(|front| front.record.clone().into_committed()),
        intent: next.map(|next| Intended::of(&next.record)),
    };
    board.doing(Doing::Ownership);
    let decided = manager.decide(tenure.session.partition, decision, &tenure.guard);
    board.doing(Doing::Work);
    decided
}

/// The states of sinks that have changed since the last commit.
pub(super) fn put_states(ends: &[End], mut put: impl FnMut(&str, &Token)) {
    for end in ends {
        if let (Some(token), None) = (&end.state, &end.late) {
            put(end.config.name(), token);
        }
    }
}

/// Step 4d.
pub(super) fn acknowledge(
    source: &mut dyn Source,
    id: PartitionId,
    tenure: &Tenure,
) -> Result<(), VertexError> {
    // Nothing is acknowledged after a revoke (I10): there is no permit then.
    Ok(source.ack(id, tenure.resume, &tenure.guard)?)
}
