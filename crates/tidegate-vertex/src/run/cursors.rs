//! Progress batch by batch: cursors over what went out (VX-762), or is about to.

use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_udf::wire::ids::{EpochId, PartitionId, Position};

use super::{
    End, Vertex, VertexError,
    commit::{acknowledge, put_states},
    report::Outcomes,
    tenure::Tenure,
};
use crate::{
    failpoint::{self, Point},
    fence::{WriteKind, WritePermit},
    ledger::{Counts, Range, Record, SinkPart, Status, Transaction, wall_ms},
    operate::Doing,
    own::Decision,
    sink::Token,
};

impl Vertex {
    /// Commits cursors over everything that the sinks have.
    pub(super) fn commit_cursors(&mut self, stopping: bool) -> Result<Option<Nanos>, VertexError> {
        // An epoch that was prepared when the pipeline still committed epochs.
        if self
            .partitions
            .iter()
            .any(|partition| partition.tenure.as_ref().is_some_and(|tenure| !tenure.sealed.is_empty()))
        {
            return self.commit_epochs(stopping);
        }
        if self.tenures().all(|tenure| tenure.open.is_none()) {
            return Ok(None);
        }
        if let Some(due) = self.commits_later(stopping) {
            return Ok(Some(due));
        }
        // On the disk before the positions that say so (I8).
        self.flush()?;
        let mut cursors = Vec::new();
        for (index, partition) in self.partitions.iter().enumerate() {
            let Some(tenure) = &partition.tenure else { continue };
            if let Some((chunk, _)) = &tenure.open {
                cursors.push((index, chunk.range, counts(&chunk.outcomes)));
            }
        }
        self.put_cursors(cursors)?;
        self.last_commit = monotonic_now();
        Ok(None)
    }

    fn tenures(&self) -> impl Iterator<Item = &Tenure> {
        self.partitions.iter().filter_map(|partition| partition.tenure.as_ref())
    }

    /// When the next commit is due, if it is not now: at intervals, and once nothing more comes.
    fn commits_later(&self, stopping: bool) -> Option<Nanos> {
        let settled = |tenure: &Tenure| {
            tenure.is_with_sinks() && (tenure.is_over() || stopping && tenure.flow.is_empty())
        };
        let due = self.last_commit.saturating_add(self.pipeline.epoch_interval());
        (monotonic_now() < due && !self.tenures().all(settled)).then_some(due)
    }

    /// In `at_most_once`: has what was published on the disk, and where it ends in the ledger.
    pub(super) fn commit_states(&mut self, stopping: bool) -> Result<Option<Nanos>, VertexError> {
        if !self.sinks.iter().any(|end| end.dirty) {
            return Ok(None);
        }
        if let Some(due) = self.commits_later(stopping) {
            return Ok(Some(due));
        }
        self.flush()?;
        self.last_commit = monotonic_now();
        let permit = |tenure: &Tenure| tenure.guard.permit(WriteKind::Ledger).ok();
        let permits: Vec<WritePermit> = self.tenures().filter_map(permit).collect();
        let mut transaction = Transaction::default();
        if let Some(ledger) = self.ledger.as_ref().filter(|_| !permits.is_empty()) {
            put_states(&self.sinks, |name, token| ledger.put_sink(name, token, &mut transaction));
        }
        self.run_ledger(&transaction)?;
        drop(permits);
        Ok(None)
    }

    /// In `at_most_once`: commits what was read, before any of it is sent.
    pub(super) fn commit_reads(&mut self) -> Result<(), VertexError> {
        let mut cursors = Vec::new();
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            let Some((range, inputs)) = partition.tenure.as_mut().and_then(|tenure| tenure.read.take())
            else {
                continue;
            };
            cursors.push((index, range, Counts { inputs, ..Counts::default() }));
        }
        if cursors.is_empty() { Ok(()) } else { self.put_cursors(cursors) }
    }

    /// Commits a cursor for each of these partitions, in one transaction, and tells the source.
    pub(super) fn put_cursors(&mut self, cursors: Vec<(usize, Range, Counts)>) -> Result<(), VertexError> {
        let mut transaction = Transaction::default();
        let mut records = Vec::new();
        let mut permits: Vec<WritePermit> = Vec::new();
        for (index, range, counts) in cursors {
            let id = PartitionId(index as u32);
            let Some(tenure) = self.partitions.get(index).and_then(|partition| partition.tenure.as_ref())
            else {
                continue;
            };
            let identity = match &tenure.unopened {
                Some(Some(resume)) => resume.identity.clone(),
                _ => self.source.identity(id, range.resume)?,
            };
            let part = |(end, token): (&End, &Option<Token>)| {
                Some(SinkPart {
                    name: end.config.name.clone(),
                    class: end.sink.class(),
                    records: 0,
                    bytes: 0,
                    chunks: 0,
                    token: Some(token.clone()?),
                    digest: 0,
                })
            };
            let record = Record {
                uid: self.pipeline.uid(),
                partition: id,
                generation: tenure.guard.generation(),
                epoch: EpochId(tenure.committed.0 + 1),
                previous: tenure.committed,
                status: Status::Committed,
                range,
                identity,
                counts,
                sinks: self.sinks.iter().zip(&tenure.tokens).filter_map(part).collect(),
                function: self.function,
                created_ms: wall_ms(),
                committed_ms: 0,
            };
            if self.manager.keeps_commits() {
                let decision = Decision { commit: Some(record.clone().into_committed()), intent: None };
                self.board.doing(Doing::Ownership);
                let decided = self.manager.decide(id, decision, &tenure.guard);
                self.board.doing(Doing::Work);
                if decided.is_err() {
                    continue;
                }
            }
            let Ok(permit) = tenure.guard.permit(WriteKind::Ledger) else { continue };
            permits.push(permit);
            if let Some(ledger) = &self.ledger {
                ledger.commit_cursor(&record, wall_ms(), &mut transaction)?;
                let over: Vec<Position> =
                    tenure.marks.range(..range.resume).map(|(position, _)| *position).collect();
                ledger.put_marks(id, &[], &over, &mut transaction);
            }
            records.push((index, record));
        }
        if let Some(ledger) = self.ledger.as_ref().filter(|_| !transaction.is_empty()) {
            put_states(&self.sinks, |name, token| ledger.put_sink(name, token, &mut transaction));
        }
        self.run_ledger(&transaction)?;
        drop(permits);
        failpoint::at(Point::Committed);
        for (index, record) in records {
            let Some(partition) = self.partitions.get_mut(index) else { continue };
            let Some(tenure) = &mut partition.tenure else { continue };
            tenure.committed(&record, &self.sinks, self.budget.records);
            if let Some((chunk, since)) = tenure.open.take() {
                self.meter.commit_lag.add_time(monotonic_now().saturating_sub(since));
                self.report.add(&chunk.outcomes);
            }
            acknowledge(&mut *self.source, partition.id, tenure)?;
            failpoint::at(Point::Acknowledged);
        }
        Ok(())
    }
}

pub(super) fn counts(outcomes: &Outcomes) -> Counts {
    Counts {
        inputs: outcomes.inputs(),
        outputs: outcomes.outputs,
        filtered: outcomes.filtered,
        dead: outcomes.dead,
        dropped: outcomes.dropped,
        nacked: outcomes.nacked,
    }
}
