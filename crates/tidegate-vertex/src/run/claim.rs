//! The beginning and the end of a session of a partition (10.5): claim, barrier at the sinks, recovery, and the fence.

use tidegate_shm::{
    clock::{Nanos, boottime_now, monotonic_now},
    sync::Arc,
};
use tidegate_udf::wire::{
    ids::{EpochId, Generation, PartitionId, Position},
    segment::MAX_FENCE_SLOTS,
};
use twox_hash::XxHash3_128;

use super::{
    Vertex, VertexError,
    careful::Careful,
    lock,
    outgoing::{Chunk, Outgoing},
    report::Outcomes,
    tenure::{EpochStep, Partition, Sealed, Tenure},
};
use crate::{
    config::{Delivery, OwnershipConfig, Pipeline},
    failpoint::{self, Point},
    fence::{Fenced, Quiesce, Reason, WriteGuard, WriteKind},
    flow::Flow,
    lane::supervise::random,
    ledger::{Counts, Disk, Ledger, LedgerError, Owned, Prepared, Range, Transaction},
    operate::Wish,
    own::{Decision, Known, Manager, Static},
    sink::{Session, SinkError},
    source::Resume,
};

/// The manager that the pipeline file wants.
pub(super) fn manager(pipeline: &Pipeline) -> Result<Arc<dyn Manager>, VertexError> {
    match &pipeline.ownership {
        #[cfg(feature = "nats")]
        OwnershipConfig::Jetstream(keys) => {
            let settings = keys.settings(pipeline);
            Ok(Arc::new(crate::nats::own::JetStream::start(settings)?))
        }
        OwnershipConfig::Static {} | OwnershipConfig::InProc {} => Ok(Arc::new(Static)),
    }
}

/// Where the ledger says that each partition came to, up to the last one that it knows.
pub(super) fn resumes(ledger: &Ledger<Disk>) -> Result<Vec<Option<Resume>>, LedgerError> {
    let mut known = Vec::new();
    for partition in ledger.partitions()? {
        if partition.0 >= MAX_FENCE_SLOTS {
            return Err(LedgerError::Damaged { what: "generation" });
        }
        known.resize(partition.0 as usize, None);
        known.push(ledger.known(partition)?.committed.map(|committed| committed.resume));
    }
    Ok(known)
}

impl Vertex {
    /// Claims all partitions that this vertex may have, sets the sinks back to the last commit and puts up the barriers.
    pub(super) fn claim_at_start(&mut self) -> Result<(), VertexError> {
        let mut claimed = Vec::new();
        for index in 0..self.partitions.len() {
            if let Some(owned) = self.acquire(index)? {
                self.bind(index, owned)?;
                claimed.push(index);
            }
        }
        self.restore_sinks()?;
        for index in claimed {
            let recovered = self.recover(index);
            self.tolerate(index, recovered)?;
            // With a new ledger only a sink can tell which generations there were (VX-714).
            let manager = &self.manager;
            let is_newer = |partition: &mut Partition| {
                let id = partition.id;
                partition.tenure.is_none()
                    && partition.newest > Generation(0)
                    && partition.forget_ended(|guard| manager.release(id, guard.generation()))
            };
            if self.pipeline.new_ledger
                && self.partitions.get_mut(index).is_some_and(is_newer)
                && let Some(owned) = self.acquire(index)?
            {
                self.bind(index, owned)?;
                let recovered = self.recover(index);
                self.tolerate(index, recovered)?;
            }
        }
        Ok(())
    }

    /// Ends the sessions of partitions that were revoked, and begins new ones where the manager lets it.
    pub(super) fn claim(&mut self) -> Result<(), VertexError> {
        for index in 0..self.partitions.len() {
            let Some(partition) = self.partitions.get_mut(index) else { continue };
            match &partition.tenure {
                Some(tenure) if tenure.guard.is_revoked() => {
                    // Whoever revoked it has noted the reason.
                    let generation = tenure.guard.generation();
                    self.end_tenure(index, Reason::Operator);
                    if self.pipeline.ownership.exits_when_stale() {
                        return Err(Fenced { generation }.into());
                    }
                }
                Some(tenure) if tenure.unopened.is_some() && tenure.sealed.is_empty() => {
                    let opened = self.open_source(index);
                    self.tolerate(index, opened)?;
                }
                _ => {}
            }
            let Some(partition) = self.partitions.get_mut(index) else { continue };
            let drained = self.board.wish(partition.id) == Wish::Drain;
            self.manager.declines(partition.id, drained || partition.refused.is_some());
            if partition.tenure.is_some() || partition.refused.is_some() || !self.manager.gives_back() {
                continue;
            }
            // A write of the last session may still run (VX-733).
            let (id, manager, quiesce) = (partition.id, &self.manager, &mut self.meter.quiesce);
            let quiesced = |guard: &WriteGuard| {
                if let Some((_, at)) = guard.last_revoke() {
                    quiesce.add_time(boottime_now().saturating_sub(at));
                }
                manager.release(id, guard.generation());
            };
            let had_ended = !partition.ending.is_empty();
            if !partition.forget_ended(quiesced) {
                continue;
            }
            if had_ended {
                // No write is left that a fence could wait for.
                self.board.owns(id, None);
            }
            if self.is_to_drain(index) {
                continue;
            }
            if let Some(owned) = self.acquire(index)? {
                self.bind(index, owned)?;
                failpoint::at(Point::Claimed);
                let recovered = self.recover(index);
                self.tolerate(index, recovered)?;
            }
        }
        Ok(())
    }

    /// Lets an error that only takes a partition end its session; others end the vertex.
    pub(super) fn tolerate(
        &mut self,
        index: usize,
        result: Result<(), VertexError>,
    ) -> Result<(), VertexError> {
        match result {
            Err(error) if self.manager.keeps_commits() && error.source_gap().is_some() => {
                self.end_tenure(index, Reason::SourceGap);
                // Whoever claims it next finds the same, so each vertex says it once and leaves it.
                self.refuse(index, Reason::SourceGap, error.source_gap(), error.to_string());
                Ok(())
            }
            Err(error)
                if error.is_loss_of_ownership() || self.manager.keeps_commits() && error.ends_a_session() =>
            {
                tracing::error!(partition = index, %error, "partition lost");
                self.note_newer(index, &error);
                let reason = match error {
                    VertexError::Fenced(_) => Reason::Operator,
                    _ => Reason::SinkRefused,
                };
                self.end_tenure(index, reason);
                Ok(())
            }
            other => other,
        }
    }

    /// Stops a partition that is not to be claimed here before an operator has looked at it.
    fn refuse(&mut self, index: usize, reason: Reason, position: Option<Position>, what: String) {
        let Some(partition) = self.partitions.get_mut(index) else { return };
        let code = reason.name().to_ascii_uppercase();
        tracing::error!(partition = %partition.id, reason = code, what, "partition stopped");
        partition.refused = Some(reason);
        self.report.stopped.push((partition.id.0, position.map_or(0, |position| position.0), what));
    }

    /// Whether a partition is to be given away, or to stay with others.
    pub(super) fn is_to_drain(&self, index: usize) -> bool {
        let id = PartitionId(index as u32);
        self.board.wish(id).max(self.manager.wish(id)) == Wish::Drain
    }

    /// A sink that knows a session which the store does not know shows that the store went back (VX-847): the next claim asks for
    /// a generation above it.
    fn note_newer(&mut self, index: usize, error: &VertexError) {
        let Some(partition) = self.partitions.get_mut(index) else { return };
        let found = match error {
            VertexError::Sink(SinkError::Newer { found, .. }) => *found,
            VertexError::Sink(SinkError::Regressed { generation, .. }) => Generation(generation.0 + 1),
            _ => return,
        };
        partition.newest = partition.newest.max(found);
    }

    /// Takes the right to write and forgets everything of the session that is not committed (VX-724, VX-726).
    pub(super) fn end_tenure(&mut self, index: usize, reason: Reason) {
        let Some(partition) = self.partitions.get_mut(index) else { return };
        let Some(tenure) = partition.tenure.take() else { return };
        // A session that ended in order is not one that lost its right.
        let was_revoked = tenure.guard.is_revoked();
        tenure.guard.revoke(reason);
        if reason != Reason::Shutdown && self.manager.gives_back() {
            // Whoever claims it next tries again what it stopped at.
            self.report.stopped.retain(|(id, ..)| *id != partition.id.0);
        }
        self.report.returned += tenure.unfinished();
        if was_revoked || !matches!(reason, Reason::Shutdown | Reason::Released) {
            if let Some((reason, _)) = tenure.guard.last_revoke() {
                *self.meter.fences.entry(reason.name()).or_default() += 1;
            }
            self.report.fenced.push((partition.id.0, tenure.guard.generation().0));
        }
        for sealed in &tenure.sealed {
            for end in &mut self.sinks {
                end.sink.abort(partition.id, sealed.record.epoch);
            }
        }
        self.source.nack(partition.id, tenure.resume, Nanos::ZERO);
        lock(&self.fences).retain(|(id, _)| *id != partition.id);
        partition.ending.push(tenure.guard);
    }

    /// Notes in the ledger that the runs of these partitions end in order, while they may write (VX-604).
    pub(super) fn say_stopped(&mut self, indexes: std::ops::Range<usize>) -> Result<(), VertexError> {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let (mut transaction, mut permits) = (Transaction::default(), Vec::new());
        for partition in self.partitions.get(indexes).unwrap_or_default() {
            let permit = partition.tenure.as_ref().map(|tenure| tenure.guard.permit(WriteKind::Ledger));
            if let Some(Ok(permit)) = permit {
                permits.push(permit);
                ledger.put_stopped(partition.id, &mut transaction);
            }
        }
        if !transaction.is_empty() {
            ledger.run(&transaction)?;
        }
        Ok(())
    }

    /// Waits for writes of ended sessions (VX-733).
    pub(super) fn await_writes(&mut self) -> Result<(), VertexError> {
        let give_up = monotonic_now().saturating_add(LONGEST_WRITE);
        for partition in &mut self.partitions {
            for guard in partition.ending.drain(..) {
                let ended = guard.quiesce(|| {
                    std::thread::sleep(WRITE_POLL.into());
                    monotonic_now() < give_up
                });
                match ended {
                    Quiesce::Quiesced => self.manager.release(partition.id, guard.generation()),
                    Quiesce::Pending(running) => {
                        return Err(VertexError::Pending { partition: partition.id.0, running });
                    }
                }
            }
        }
        Ok(())
    }

    /// Begins a session in manager and ledger.
    fn acquire(&mut self, index: usize) -> Result<Option<Owned>, VertexError> {
        let Some(partition) = self.partitions.get_mut(index) else { return Ok(None) };
        let (id, nonce) = (partition.id, random()?);
        if !self.pipeline.may_have(id) {
            return Ok(None);
        }
        let resumes = partition.has_sent;
        let mut known = match &self.ledger {
            Some(ledger) => ledger.known(id)?,
            None => Known::default(),
        };
        known.generation = known.generation.max(partition.newest);
        let claimed = match self.manager.acquire(id, nonce, &known) {
            Ok(Some(claimed)) => claimed,
            Ok(None) => return Ok(None),
            Err(refused) => {
                let position = known.committed.map(|committed| committed.resume.position);
                self.refuse(index, Reason::OwnershipRegressed, position, refused.to_string());
                return Ok(None);
            }
        };
        if let Some(ledger) = &mut self.ledger {
            return Ok(Some(ledger.begin(id, nonce, claimed, resumes)?));
        }
        Ok(Some(Owned {
            generation: claimed.generation,
            nonce,
            epoch: EpochId(0),
            resume: None,
            tokens: Vec::new(),
            prepared: None,
            intended: None,
            marks: Vec::new(),
            fell: 0,
        }))
    }

    /// Lets a session write.
    fn bind(&mut self, index: usize, owned: Owned) -> Result<(), VertexError> {
        let Some(partition) = self.partitions.get_mut(index) else { return Ok(()) };
        let (slot, guard) = self.fence.bind(partition.id, owned.generation)?;
        let Owned { generation, nonce, epoch, resume, tokens, prepared, intended, marks, fell } = owned;
        let session = Session { partition: partition.id, generation, nonce };
        let retry = self.pipeline.retry();
        let careful = Careful::after(fell, self.pipeline.epoch.max_records, retry.crash_attempts);
        if careful.is_some() {
            tracing::warn!(
                partition = %partition.id, fell,
                "the last runs ended without saying so and came no further: one batch at a time, each try in the ledger first"
            );
        }
        let mut flow = Flow::new(retry, self.pipeline.shape());
        flow.put_together(careful.as_ref().is_none_or(|careful| !careful.singly), self.budget.records);
        flow.remember(&marks);
        let by_sink =
            |name: &str| tokens.iter().find(|(known, _)| known == name).map(|(_, token)| token.clone());
        let prepared_of = || Some(&prepared.as_ref()?.record.identity);
        let identity = resume.as_ref().map(|resume| &resume.identity).or_else(prepared_of);
        let mut tenure = Tenure {
            lineage: identity.map(|identity| self.source.lineage(identity)),
            committed: epoch,
            resume: resume.as_ref().map_or(Position(0), |resume| resume.position),
            intended: intended.filter(|_| self.pipeline.pipeline.delivery == Delivery::EffectivelyOnce),
            unopened: Some(resume),
            tokens: self.sinks.iter().map(|end| by_sink(end.config.name())).collect(),
            marks: marks.into_iter().map(|mark| (mark.position, mark)).collect(),
            unsaid: self.ledger.is_some().then_some(fell),
            careful,
            ..Tenure::new(slot, guard.clone(), session, flow)
        };
        if let Some(prepared) = prepared {
            tenure.sealed.push_back(redo(prepared, &self.sinks)?);
            self.report.redone += 1;
        }
        tracing::info!(
            partition = %partition.id, %generation, epoch = %tenure.committed, resume = %tenure.resume,
            redo = tenure.sealed.len(), "partition claimed"
        );
        partition.tenure = Some(tenure);
        partition.given_away = false;
        self.report.fenced.retain(|(id, _)| *id != partition.id.0);
        self.manager.begun(partition.id, &guard);
        self.board.owns(partition.id, Some(guard.clone()));
        lock(&self.fences).push((partition.id, guard));
        Ok(())
    }

    /// Sets the sinks back to what the ledger calls committed; a sink that the ledger does not know keeps what it has.
    fn restore_sinks(&mut self) -> Result<(), VertexError> {
        // What is in a sink behind the ledger's last commit may be committed in the store.
        if self.manager.keeps_commits() {
            return Ok(());
        }
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let keeps = self.pipeline.pipeline.delivery == Delivery::AtMostOnce;
        let mut transaction = Transaction::default();
        let tenures = || self.partitions.iter().filter_map(|partition| partition.tenure.as_ref());
        // What is cut is of all partitions, and all their fences are ours.
        let permits = |kind| tenures().map(|tenure| tenure.guard.permit(kind)).collect::<Result<Vec<_>, _>>();
        // A sink that no commit waits for has what the ledger does not know of.
        for end in self.sinks.iter_mut().filter(|end| end.late.is_none()) {
            match ledger.sink(end.config.name())? {
                // What was delivered is not delivered again: to cut it would be to lose it.
                Some(token) if keeps => end.sink.keep(&token, &permits(WriteKind::Sink)?)?,
                Some(token) => {
                    end.sink.restore(&token, &permits(WriteKind::Sink)?)?;
                    continue;
                }
                None => {}
            }
            if let Some(token) = end.sink.flush()? {
                ledger.put_sink(end.config.name(), &token, &mut transaction);
            }
        }
        if !transaction.is_empty() {
            let permits = permits(WriteKind::Ledger)?;
            ledger.run(&transaction)?;
            drop(permits);
        }
        Ok(())
    }

    /// Puts up the barriers and looks what is visible; reading begins at once if nothing has to be redone.
    fn recover(&mut self, index: usize) -> Result<(), VertexError> {
        let Some(tenure) = self.partitions.get_mut(index).and_then(|partition| partition.tenure.as_mut())
        else {
            return Ok(());
        };
        let mut is_fresh = false;
        for (end, token) in self.sinks.iter_mut().zip(&mut tenure.tokens) {
            let barrier = end.sink.barrier(&tenure.session, &tenure.guard);
            let found =
                barrier.and_then(|()| end.sink.read_back(&tenure.session, token.as_ref(), &tenure.guard));
            let Some(found) = end.unless_late(found.map_err(VertexError::from))? else { continue };
            if let Some(fresh) = end.sink.fresh_token(&tenure.session) {
                *token = Some(fresh);
                is_fresh = true;
            }
            end.meter.found += found;
            if found > 0 {
                tracing::info!(partition = index, sink = end.config.name(), found, "visible already");
            }
        }
        if let Some(intended) = tenure.intended {
            // The outbox has its stamp already, if there is one: in the other order a second crash would make it a stale one.
            let decision = Decision { commit: None, intent: Some(intended) };
            self.manager.decide(tenure.session.partition, decision, &tenure.guard)?;
        }
        if !tenure.sealed.is_empty() {
            // It is redone as it was prepared, and its commit has the tokens.
            tenure.intended = None;
            return Ok(());
        }
        // So has that of an epoch that was intended.
        is_fresh &= tenure.intended.is_none();
        // Without the source if possible: it may be away for longer than the old tokens last.
        let knows_where = tenure.unopened.as_ref().is_some_and(Option::is_some);
        if is_fresh && knows_where {
            self.put_tokens(index)?;
        }
        self.open_source(index)?;
        if is_fresh && !knows_where { self.put_tokens(index) } else { Ok(()) }
    }

    /// Commits what the sinks say now, and nothing else.
    fn put_tokens(&mut self, index: usize) -> Result<(), VertexError> {
        let tenure = self.partitions.get(index).and_then(|partition| partition.tenure.as_ref());
        let Some(resume) = tenure.map(|tenure| tenure.resume) else { return Ok(()) };
        self.put_cursors(vec![(index, Range { first: resume, last: resume, resume }, Counts::default())])
    }

    /// Opens the source where the ledger is.
    fn open_source(&mut self, index: usize) -> Result<(), VertexError> {
        let Some(partition) = self.partitions.get_mut(index) else { return Ok(()) };
        let Some(tenure) = &mut partition.tenure else { return Ok(()) };
        let Some(from) = tenure.unopened.take() else { return Ok(()) };
        tenure.resume = self.source.open(partition.id, from.as_ref())?;
        let skipped = from.is_some_and(|from| from.position < tenure.resume);
        if skipped && tenure.intended.is_some_and(|intended| intended.first < tenure.resume) {
            tracing::warn!(partition = %partition.id, "inputs of the epoch that was intended are gone");
            tenure.intended = None;
        }
        if tenure.lineage.is_none() {
            let identity = self.source.identity(partition.id, tenure.resume)?;
            tenure.lineage = Some(self.source.lineage(&identity));
        }
        Ok(())
    }
}

/// An epoch that an earlier session has prepared, with its outputs for the sinks that there are now.
fn redo(prepared: Prepared, ends: &[super::End]) -> Result<Sealed, LedgerError> {
    let Prepared { record, outputs } = prepared;
    let mut by_sink = vec![Vec::new(); ends.len()];
    for (part, outputs) in record.sinks.iter().zip(outputs) {
        let slot = ends.iter().position(|end| end.config.name() == part.name);
        match slot.and_then(|slot| by_sink.get_mut(slot)) {
            Some(slot) => *slot = outputs,
            None if outputs.is_empty() => {}
            None => {
                return Err(LedgerError::SinkGone {
                    partition: record.partition,
                    epoch: record.epoch,
                    sink: part.name.clone(),
                });
            }
        }
    }
    let bytes = record.sinks.iter().map(|part| part.bytes).sum();
    let (range, outcomes) = (record.range, Outcomes::default());
    let chunk = Chunk { serial: 0, range, outcomes, outputs: by_sink, bytes, back: Vec::new() };
    let now = monotonic_now();
    Ok(Sealed {
        record,
        outgoing: Outgoing::new(chunk),
        step: EpochStep::Prepared,
        redo: true,
        kept: Nanos::ZERO,
        since: now,
        prepared: now,
    })
}

/// Hash of the command and of the files that it names: another function has another one.
pub(super) fn fingerprint(command: &[String]) -> u128 {
    let mut bytes = Vec::new();
    for word in command {
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
        let is_file =
            std::fs::metadata(word).is_ok_and(|file| file.is_file() && file.len() <= LONGEST_PROGRAM);
        if is_file && let Ok(content) = std::fs::read(word) {
            bytes.extend_from_slice(&XxHash3_128::oneshot(&content).to_le_bytes());
        }
    }
    XxHash3_128::oneshot(&bytes)
}

/// Bytes of a program that are hashed; of a longer one only the name counts.
const LONGEST_PROGRAM: u64 = 64 << 20;
/// How long writes of an ended session may run on before the process gives up (VX-733).
pub(super) const LONGEST_WRITE: Nanos = Nanos::from_secs(60);
const WRITE_POLL: Nanos = Nanos::from_millis(1);
