//! What sinks that are not required have still to take (VX-632): no commit waits for them, and what they do not take in time is
//! lost to them, and counted.
//!
//! Within a bound in bytes, or one part, which is an epoch or the outputs of some batches. A sink that fails for good gets
//! nothing more until the vertex starts again.

use std::collections::VecDeque;

use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_udf::wire::ids::EpochId;

use super::{
    Vertex, VertexError,
    outgoing::{End, Way},
};
use crate::{
    fence::WriteGuard,
    ledger::Range,
    operate::Doing,
    sink::{Delivery, Output, Session, Token},
};

/// The outputs that wait for one sink, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    parts: VecDeque<Part>,
    bytes: u64,
    /// Bytes that may wait.
    room: u64,
    /// When it is asked again.
    again: Nanos,
    tries: u32,
    /// It failed for good.
    failed: bool,
    /// Outputs that it did not get.
    lost: u64,
}

/// Outputs that belong together.
#[derive(Debug)]
struct Part {
    session: Session,
    epoch: EpochId,
    source: u64,
    range: Range,
    sealed: bool,
    staged: bool,
    outputs: Vec<Output>,
    done: usize,
    bytes: u64,
}

impl Backlog {
    pub(super) fn new(room: u64) -> Self {
        Self { room, ..Self::default() }
    }

    /// Adds outputs behind all others, or loses them when there is no room.
    pub(super) fn push(&mut self, outputs: Vec<Output>, range: Range, way: &Way<'_>) {
        let bytes = outputs.iter().map(|output| output.record.len() as u64).sum();
        let has_room = self.parts.is_empty() || self.bytes + bytes <= self.room;
        if self.failed || !has_room {
            self.lost += outputs.len() as u64;
            return;
        }
        let Way { session, epoch, source, sealed, .. } = *way;
        self.bytes += bytes;
        self.parts.push_back(Part {
            session,
            epoch,
            source,
            range,
            sealed,
            staged: false,
            outputs,
            done: 0,
            bytes,
        });
    }

    /// Outputs that were lost to the sink.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// When there is something to do that nothing else tells.
    pub(super) fn next_time(&self) -> Option<Nanos> {
        (!self.is_empty()).then_some(self.again)
    }

    /// Nothing more for this sink.
    pub(super) fn fail(&mut self) {
        self.failed = true;
        while !self.is_empty() {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(part) = self.parts.pop_front() else { return };
        self.bytes -= part.bytes;
        self.lost += (part.outputs.len() - part.done) as u64;
    }
}

impl End {
    /// Waits until the sink has confirmed what was published.
    ///
    /// # Errors
    /// The sink cannot go on, and is required.
    pub(super) fn flush(&mut self) -> Result<(), VertexError> {
        let flushed = self.sink.flush().map_err(VertexError::from);
        self.dirty = false;
        self.state = self.unless_late(flushed)?.flatten().or(self.state.take());
        Ok(())
    }

    /// Lets a sink that no commit waits for fail by itself.
    ///
    /// # Errors
    /// The error of one that is required, and the loss of a right to write.
    pub(super) fn unless_late<T>(
        &mut self,
        result: Result<T, VertexError>,
    ) -> Result<Option<T>, VertexError> {
        match (result, &mut self.late) {
            (Err(error), Some(late)) if !error.is_loss_of_ownership() => {
                tracing::error!(sink = self.config.name, %error, "a sink that is not required gets nothing more");
                late.fail();
                Ok(None)
            }
            (result, _) => result.map(Some),
        }
    }

    /// Gives the sink what waits for it. `guard` is the right to write of a session, if it still has it; `tokens` is what the sink
    /// says.
    ///
    /// # Errors
    /// The index of the partition that lost its right to write, and how that came out.
    pub(super) fn catch_up<'g>(
        &mut self,
        now: Nanos,
        guard: impl Fn(&Session) -> Option<&'g WriteGuard>,
        tokens: &mut Vec<(Session, Token)>,
    ) -> Result<(), (usize, VertexError)> {
        let Self { config, sink, ids, dirty, meter, late: Some(late), .. } = self else { return Ok(()) };
        while now >= late.again
            && let Some(part) = late.parts.front_mut()
        {
            let Some(guard) = guard(&part.session) else {
                late.pop();
                continue;
            };
            let delivery = |outputs| Delivery {
                session: part.session,
                epoch: part.epoch,
                first: part.range.first,
                last: part.range.last,
                source: part.source,
                outputs,
                ids,
            };
            let stages = part.sealed && !part.staged;
            let staged = if stages { sink.stage(&delivery(&part.outputs), guard) } else { Ok(()) };
            let rest = config.at_once(part.outputs.get(part.done..).unwrap_or_default());
            let begun = monotonic_now();
            let published = staged.and_then(|()| sink.publish(&delivery(rest), guard));
            *dirty = true;
            if let Ok(published) = &published {
                meter.has_published(begun, published);
            }
            let published = match published.map_err(VertexError::from) {
                Ok(published) => published,
                Err(error) => {
                    let partition = part.session.partition.0 as usize;
                    late.pop();
                    return self
                        .unless_late(Err(error))
                        .map(|_: Option<()>| ())
                        .map_err(|error| (partition, error));
                }
            };
            part.staged = true;
            if let Some(token) = published.token {
                tokens.push((part.session, token));
            }
            part.done += published.through.min(rest.len());
            if let Some(rejected) = published.rejected.first() {
                let count = published.rejected.len();
                tracing::warn!(
                    sink = config.name,
                    count,
                    reason = rejected.reason,
                    "refused by a sink that is not required"
                );
                late.lost += count as u64;
            }
            match published.held {
                Some(held) => {
                    let backoff = config.retry.backoff();
                    let seed = now.0 ^ part.range.first.0;
                    let delay = held.after.unwrap_or_else(|| backoff.delay(late.tries, seed));
                    late.again = now.saturating_add(delay);
                    late.tries += 1;
                }
                None => late.tries = 0,
            }
            if part.done == part.outputs.len() {
                late.pop();
            }
        }
        Ok(())
    }
}

impl Vertex {
    /// Gives sinks that are not required what waits for them.
    pub(super) fn catch_up(&mut self) -> Result<(), VertexError> {
        if self.sinks.iter().all(|end| end.late.as_ref().is_none_or(Backlog::is_empty)) {
            return Ok(());
        }
        self.board.doing(Doing::Sink);
        let now = monotonic_now();
        let partitions = &self.partitions;
        let guard = |session: &Session| {
            let tenure = partitions.get(session.partition.0 as usize)?.tenure.as_ref()?;
            (tenure.session == *session).then_some(&tenure.guard)
        };
        let (mut said, mut fenced) = (Vec::new(), Vec::new());
        for (index, end) in self.sinks.iter_mut().enumerate() {
            let mut tokens = Vec::new();
            fenced.extend(end.catch_up(now, guard, &mut tokens).err());
            said.extend(tokens.into_iter().map(|(session, token)| (index, session.partition, token)));
        }
        self.board.doing(Doing::Work);
        for (sink, partition, token) in said {
            let tenure =
                self.partitions.get_mut(partition.0 as usize).and_then(|partition| partition.tenure.as_mut());
            if let Some(slot) = tenure.and_then(|tenure| tenure.tokens.get_mut(sink)) {
                *slot = Some(token);
            }
        }
        for (partition, error) in fenced {
            self.tolerate(partition, Err(error))?;
        }
        Ok(())
    }

    /// How long such sinks may still take when all else is finished: as long as the longest of their delays.
    pub(super) fn patience(&self) -> Option<Nanos> {
        let waiting = self.sinks.iter().filter(|end| end.late.as_ref().is_some_and(|late| !late.is_empty()));
        waiting.map(|end| end.config.retry.longest()).max()
    }

    /// The end: what still waits is lost to these sinks, and what they took is flushed.
    pub(super) fn end_backlogs(&mut self) {
        for end in &mut self.sinks {
            if end.late.is_some() && end.dirty {
                // It says so in the log if it cannot.
                let _ = end.flush();
            }
            let Some(late) = &mut end.late else { continue };
            late.fail();
            self.report.lost += late.lost();
            if late.lost() > 0 {
                tracing::warn!(
                    sink = end.config.name,
                    outputs = late.lost(),
                    "lost to a sink that is not required"
                );
            }
        }
    }
}
