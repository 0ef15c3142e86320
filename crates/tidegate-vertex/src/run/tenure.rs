//! One partition while it is owned: from the claim to its end (10.5).

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};

use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_udf::wire::ids::{EpochId, FenceSlot, Generation, PartitionId, Position};

use super::{
    VertexError,
    careful::Careful,
    linger::{self, Lingering},
    outgoing::{Chunk, End, Outgoing},
};
use crate::{
    batch::{Batch, Input},
    config::EpochConfig,
    fence::{Quiesce, Reason, WriteGuard},
    flow::Flow,
    ledger::{Mark, Range, Record},
    own::Intended,
    sink::{Session, Token},
    source::Resume,
};

/// A partition of the source.
pub(super) struct Partition {
    pub(super) id: PartitionId,
    /// `None` while this vertex does not own it.
    pub(super) tenure: Option<Tenure>,
    /// Guards of ended sessions whose writes may still run (VX-733).
    pub(super) ending: Vec<WriteGuard>,
    /// It was drained.
    pub(super) given_away: bool,
    /// Inputs of it were sent.
    pub(super) has_sent: bool,
    /// The newest generation that a sink knows, if that was a surprise.
    pub(super) newest: Generation,
    /// It must not be run before an operator has looked at it (VX-714, VX-832), and why.
    pub(super) refused: Option<Reason>,
}

/// One ownership session.
pub(super) struct Tenure {
    pub(super) slot: FenceSlot,
    pub(super) guard: WriteGuard,
    pub(super) session: Session,
    pub(super) flow: Flow,
    /// Where reading goes on, until the source was opened there.
    pub(super) unopened: Option<Option<Resume>>,
    pub(super) at_end: bool,
    /// Which source the positions are of; known when something was committed or the source is open.
    pub(super) lineage: Option<u64>,
    /// The last committed epoch.
    pub(super) committed: EpochId,
    /// Where that epoch ended.
    pub(super) resume: Position,
    /// What the next epoch has to be, since an earlier session has said so (case 4 of VX-781).
    pub(super) intended: Option<Intended>,
    /// Inputs that were read and are not committed, and how many, for who commits them before they are sent.
    pub(super) read: Option<(Range, u64)>,
    /// What each sink said at the last commit.
    pub(super) tokens: Vec<Option<Token>>,
    /// Final, and not taken by all sinks: outputs that go out batch by batch.
    pub(super) outgoing: Option<Outgoing>,
    /// The same, of which a sink without order has failed on some: those behind it go on (VX-631).
    pub(super) aside: Vec<Outgoing>,
    /// Outputs that wait for more.
    pub(super) lingering: Option<Lingering>,
    /// What the sinks have of inputs behind one that is not final, or not with all sinks, by serial number.
    pub(super) beyond: BTreeMap<u64, Chunk>,
    /// The open epoch, and since when it has something.
    pub(super) open: Option<(Chunk, Nanos)>,
    /// Epochs that wait to be committed, the oldest first. Only that one may be prepared (VX-763).
    pub(super) sealed: VecDeque<Sealed>,
    /// What the ledger knows of inputs that are tried again.
    pub(super) marks: BTreeMap<Position, Mark>,
    /// What the ledger has to be told before anything is sent: runs before this one that fell.
    pub(super) unsaid: Option<u32>,
    /// Runs before this one fell over something in it.
    pub(super) careful: Option<Careful>,
}

/// A sealed epoch.
pub(super) struct Sealed {
    pub(super) record: Record,
    pub(super) outgoing: Outgoing,
    pub(super) step: EpochStep,
    /// It was prepared by an earlier session.
    pub(super) redo: bool,
    /// How long the ledger has kept it waiting.
    pub(super) kept: Nanos,
    /// When it began to have something, and when it was prepared.
    pub(super) since: Nanos,
    pub(super) prepared: Nanos,
}

/// How far a sealed epoch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EpochStep {
    /// In memory only.
    Sealed,
    /// Durably decided.
    Prepared,
    /// All sinks have confirmed it.
    Confirmed,
}

impl Partition {
    /// A partition that nobody owns here.
    pub(super) fn new(id: PartitionId) -> Self {
        Self {
            id,
            tenure: None,
            ending: Vec::new(),
            given_away: false,
            has_sent: false,
            newest: Generation(0),
            refused: None,
        }
    }

    /// Forgets the sessions that ended; false while a write of one of them still runs.
    pub(super) fn forget_ended(&mut self, mut quiesced: impl FnMut(&WriteGuard)) -> bool {
        while let Some(guard) = self.ending.last() {
            if guard.quiesce(|| false) != Quiesce::Quiesced {
                return false;
            }
            quiesced(guard);
            self.ending.pop();
        }
        true
    }
}

impl Tenure {
    /// A session in which nothing has happened.
    pub(super) fn new(slot: FenceSlot, guard: WriteGuard, session: Session, flow: Flow) -> Self {
        Self {
            slot,
            guard,
            session,
            flow,
            unopened: None,
            at_end: false,
            lineage: None,
            committed: EpochId(0),
            resume: Position(0),
            intended: None,
            read: None,
            tokens: Vec::new(),
            outgoing: None,
            aside: Vec::new(),
            lingering: None,
            beyond: BTreeMap::new(),
            open: None,
            sealed: VecDeque::new(),
            marks: BTreeMap::new(),
            unsaid: None,
            careful: None,
        }
    }

    /// Adds final inputs to the open epoch.
    pub(super) fn add(&mut self, chunk: Chunk, now: Nanos) {
        match &mut self.open {
            Some((open, _)) => open.append(chunk),
            None => self.open = Some((chunk, now)),
        }
    }

    /// Whether the open epoch has as much as an epoch may have (VX-760).
    pub(super) fn is_full(&self, epoch: &EpochConfig) -> bool {
        self.open.as_ref().is_some_and(|(chunk, _)| {
            chunk.outcomes.inputs() >= epoch.max_records.get().into() || chunk.bytes >= epoch.max_bytes.0
        })
    }

    /// Takes what was read; one that is longer than `max` bytes, with all that comes with it, is not for functions (VX-213).
    /// Returns how many bytes it holds.
    pub(super) fn take(&mut self, mut inputs: Vec<Input>, max: usize) -> u64 {
        let mut held = 0;
        loop {
            let long = inputs.iter().position(|input| input.record.len() > max);
            let mut behind = inputs.split_off(long.unwrap_or(inputs.len()));
            self.has_read(&inputs);
            if let Some(batch) = Batch::new(inputs) {
                held += batch.bytes();
                self.flow.push(batch.read_at(monotonic_now()));
            }
            if behind.is_empty() {
                return held;
            }
            let input = behind.remove(0);
            let len = input.record.len();
            let fault = format!("it takes {len} bytes, and a batch has at most {max}; raise batch.max_bytes");
            held += self.take_unfit(input, "RECORD_TOO_LARGE", fault);
            inputs = behind;
        }
    }

    /// As [`Tenure::take`], of an input that is not for functions.
    pub(super) fn take_unfit(&mut self, input: Input, class: &'static str, fault: String) -> u64 {
        self.has_read(std::slice::from_ref(&input));
        let held = input.record.len() as u64;
        self.flow.push_unfit(input, class, fault);
        held
    }

    /// Notes what was read.
    fn has_read(&mut self, inputs: &[Input]) {
        let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else { return };
        let (from, count) = self.read.map_or((first.position, 0), |(range, count)| (range.first, count));
        let range = Range { first: from, last: last.position, resume: last.next };
        self.read = Some((range, count + inputs.len() as u64));
    }

    /// An epoch is committed.
    pub(super) fn committed(&mut self, record: &Record, ends: &[End], max_records: usize) {
        (self.committed, self.resume) = (record.epoch, record.range.resume);
        for part in &record.sinks {
            let sink = ends.iter().position(|end| end.config.name() == part.name);
            if let Some(slot) = sink.and_then(|sink| self.tokens.get_mut(sink)) {
                slot.clone_from(&part.token);
            }
        }
        self.marks = self.marks.split_off(&self.resume);
        if self.careful.take_if(|careful| careful.is_over(record.counts.inputs)).is_some() {
            self.flow.put_together(true, max_records);
        }
    }

    /// Takes inputs that are final, in their order; what of their outputs waits for more is set aside.
    pub(super) fn begin(&mut self, mut chunk: Chunk, ends: &[End], now: Nanos) {
        if let Some(outputs) = linger::take(&mut chunk, ends) {
            match &mut self.lingering {
                None => self.lingering = Some(Lingering::new(chunk.place(), outputs, ends, now)),
                Some(lingering) => {
                    if let Some(next) = lingering.add(chunk.place(), outputs, ends, now) {
                        // The next one to go.
                        self.aside.extend(self.lingering.replace(next).map(Lingering::into_outgoing));
                    }
                }
            }
        }
        self.outgoing = Some(Outgoing::new(chunk));
    }

    /// Adds inputs that the sinks have, as soon as all that were read before them are final and with the sinks: a source is told
    /// up to which one of those that it gave everything is done (VX-441).
    pub(super) fn add_delivered(&mut self, chunk: Chunk, now: Nanos) {
        match self.beyond.entry(chunk.serial) {
            // The same inputs: some of their outputs have waited for more.
            Entry::Occupied(mut there) => there.get_mut().outcomes.add(&chunk.outcomes),
            Entry::Vacant(place) => drop(place.insert(chunk)),
        }
        let aside = self.aside.iter().chain(&self.outgoing).flat_map(Outgoing::inputs);
        let held = aside.chain(self.lingering.iter().flat_map(Lingering::inputs)).map(|chunk| chunk.serial);
        let open = held.chain(self.flow.first()).min();
        while let Some(next) = self.beyond.first_entry()
            && open.is_none_or(|open| *next.key() < open)
        {
            let chunk = next.remove();
            self.add(chunk, now);
        }
    }

    /// Whether nothing waits for the sinks.
    pub(super) fn is_with_sinks(&self) -> bool {
        self.outgoing.is_none() && self.aside.is_empty() && self.lingering.is_none()
    }

    /// Whether outputs may be given to sinks before those are with them that were to be before.
    pub(super) fn may_go_on(&self) -> bool {
        self.aside.is_empty() || self.aside.len() < MOST_ASIDE && self.beyond.len() < MOST_BEYOND
    }

    /// What waits for the sinks and may go to them now; `ends_here` when nothing more comes for it to wait for.
    pub(super) fn next_outgoing(&mut self, ends: &[End], now: Nanos, ends_here: bool) -> Option<Outgoing> {
        if let Some(index) = self.aside.iter().position(|outgoing| now >= outgoing.again) {
            return Some(self.aside.remove(index));
        }
        let lingering = self.lingering.as_ref()?;
        let goes = ends_here
            || self.is_over()
            || now >= lingering.until()
            || lingering.is_full(ends)
            || self.beyond.len() >= MOST_BEYOND;
        if goes { self.lingering.take().map(Lingering::into_outgoing) } else { None }
    }

    /// The batch to send now to a worker that is or is not `busy`, if there is one.
    pub(super) fn next_to_send(&self, now: Nanos, busy: bool) -> Option<&Batch> {
        if busy && self.flow.fills_until().is_some_and(|until| now < until) {
            return None;
        }
        let batch = self.flow.next_to_send(now)?;
        match &self.careful {
            _ if self.unsaid.is_some() => None,
            Some(careful) if self.flow.is_any_sent() || !careful.has_noted(batch) => None,
            _ => Some(batch),
        }
    }

    /// What the ledger has to be told of tries before anything is sent, and of what it has to forget them. `ready`: there is a
    /// worker to send to.
    pub(super) fn tries(&mut self, now: Nanos, ready: bool) -> (Vec<Mark>, Vec<Position>) {
        let mut wanted = self.flow.marks();
        let mut over = Vec::new();
        if let Some(careful) = &mut self.careful {
            if self.flow.is_any_sent() {
                // What was written before it was sent stands.
                return (Vec::new(), Vec::new());
            }
            wanted.extend(self.flow.known());
            let next = self.flow.next_to_send(now).filter(|_| ready);
            if let Some(next) = next {
                let marks = wanted.into_iter().map(|mark| (mark.position, mark)).collect();
                wanted = careful.marks_with(marks, next);
            }
            careful.note(next.map(Careful::try_of));
            let is_wanted = |position: &Position| wanted.iter().any(|mark| mark.position == *position);
            over.extend(self.marks.keys().filter(|position| !is_wanted(position)));
        }
        wanted.retain(|mark| self.marks.get(&mark.position) != Some(mark));
        (wanted, over)
    }

    /// No further input becomes final.
    pub(super) fn is_over(&self) -> bool {
        self.flow.is_stopped() || self.flow.is_empty() && self.at_end
    }

    /// When there is something to do that nothing else tells. What could be sent at `looked` was, or waits for a worker.
    pub(super) fn next_time(&self, looked: Nanos) -> Option<Nanos> {
        if let Some(outgoing) = &self.outgoing {
            return Some(outgoing.again);
        }
        let sinks = self.aside.iter().map(|outgoing| outgoing.again);
        let sinks = sinks.chain(self.lingering.as_ref().map(Lingering::until));
        self.flow.next_time().filter(|time| *time > looked).into_iter().chain(sinks).min()
    }

    /// Checks that inputs are those of the epoch that was intended.
    ///
    /// # Errors
    /// The source has others than the session that intended it saw.
    pub(super) fn check_intended(&self, partition: PartitionId, inputs: &[Input]) -> Result<(), VertexError> {
        let Some(intended) = self.intended else { return Ok(()) };
        match inputs.iter().find(|input| input.position < intended.first || input.position > intended.last) {
            None => Ok(()),
            Some(input) => Err(VertexError::NotIntended {
                partition: partition.0,
                epoch: intended.epoch.0,
                last: intended.last.0,
                found: input.position.0,
            }),
        }
    }

    /// How many inputs may be read before the epoch that was intended is sealed.
    pub(super) fn left_to_read(&self) -> Option<u64> {
        let intended = self.intended?;
        let open = self.open.as_ref().map_or(0, |(chunk, _)| chunk.outcomes.inputs());
        Some(intended.count.saturating_sub(open + self.flow.inputs()))
    }

    /// Number of the open epoch.
    pub(super) fn open_epoch(&self) -> EpochId {
        EpochId(self.committed.0 + self.sealed.len() as u64 + 1)
    }

    /// Outputs that a sink is to take and has not taken.
    pub(super) fn waiting(&self, sink: usize) -> u64 {
        let sealed = self.sealed.iter().map(|sealed| &sealed.outgoing);
        let all = self.aside.iter().chain(&self.outgoing).chain(sealed);
        let lingering = self.lingering.as_ref().map_or(0, |lingering| lingering.waiting(sink));
        (all.map(|outgoing| outgoing.waiting(sink)).sum::<usize>() + lingering) as u64
    }

    /// Bytes of outputs that wait for their commit.
    pub(super) fn buffered(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|sealed| sealed.outgoing.chunk.bytes).sum();
        let lingering = self.lingering.as_ref().map_or(0, Lingering::bytes);
        sealed + lingering + self.open.as_ref().map_or(0, |(chunk, _)| chunk.bytes)
    }

    /// Inputs of this session that were read and are not committed.
    pub(super) fn unfinished(&self) -> u64 {
        let sealed = self.sealed.iter().filter(|sealed| !sealed.redo);
        let sealed: u64 = sealed.map(|sealed| sealed.outgoing.chunk.outcomes.inputs()).sum();
        let open = self.open.as_ref().map_or(0, |(chunk, _)| chunk.outcomes.inputs());
        let with_sinks = self.aside.iter().chain(&self.outgoing).flat_map(Outgoing::inputs);
        let with_sinks = with_sinks.chain(self.lingering.iter().flat_map(Lingering::inputs));
        let outgoing: u64 = with_sinks.map(|chunk| chunk.outcomes.inputs()).sum();
        let beyond: u64 = self.beyond.values().map(|chunk| chunk.outcomes.inputs()).sum();
        self.flow.inputs() + beyond + sealed + open + outgoing
    }

    /// Everything that was read is committed, and nothing is to be redone.
    pub(super) fn is_idle(&self) -> bool {
        let is_open = self.unopened.is_none() && self.intended.is_none();
        is_open && self.is_settled() && self.flow.is_empty()
    }

    /// Nothing is on its way to a sink or the ledger. A part of an epoch that was intended goes nowhere without the rest, for
    /// which nobody waits: the store knows the epoch, and whoever has the partition next makes it from its beginning.
    pub(super) fn is_settled(&self) -> bool {
        let goes = self.open.is_some() && self.intended.is_none();
        self.is_with_sinks() && !goes && self.sealed.is_empty()
    }
}

/// Chunks with outputs on which a sink has failed, while others go on.
const MOST_ASIDE: usize = 8;
/// Chunks that wait for the progress of those before them.
const MOST_BEYOND: usize = 1024;

#[cfg(test)]
#[path = "tenure_tests.rs"]
mod tests;
