//! The order of one partition: which batch is sent next, whose outputs are delivered next, what is tried again (9.2, 9.3).
//!
//! Pure: answers and time come in, batches to send and outputs to deliver come out. Entries stand in source order and leave
//! only at the front, so outputs are delivered in source order and the resume position is the end of the finished prefix
//! (VX-441), whatever order answers come in and however often something is tried again. Without order (VX-440) they leave as
//! they are answered; where the finished prefix ends is then for the caller to say, from [`Flow::first`].
//!
//! Source order is the order in which inputs were read, told by their serial numbers. Positions do not tell it: what a source
//! gives again comes behind newer inputs.
//!
//! ```text
//!  push --> Queued --sent--> Sent --answer--> Answered --front--> delivered
//!              ^                |                  |
//!              |                | worker died      | an input failed: what is before it is delivered,
//!              +---- Waiting <--+------------------+ it is tried again alone, what is behind it is sent again
//! ```
//!
//! An input that no function can be given stands between them, never sent, and is given up when it is in front.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
};

use tidegate_shm::clock::Nanos;
use tidegate_udf::wire::{
    ids::{BatchId, Position},
    status::Status,
};

use crate::{
    answer::{Answer, Verdict},
    batch::{Batch, Input},
    ledger::Mark,
    retry::Backoff,
};

/// How often to try, and what then.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Tries of an input on which the function fails.
    pub attempts: NonZeroU32,
    /// Tries of an input that ends or hangs the worker.
    pub crash_attempts: NonZeroU32,
    /// The delays between them.
    pub backoff: Backoff,
    /// Whether the source takes a single input back and gives it again (VX-603).
    pub gives_back: bool,
    /// What becomes of an input that used up its tries.
    pub on_exhausted: OnExhausted,
}

/// How inputs are put together, and whether outputs keep their order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shape {
    /// Most inputs of a batch; what was read at once is one batch when this is 0.
    pub records: usize,
    /// Most bytes of a batch.
    pub bytes: u64,
    /// How long a batch that is not full waits for more, while others are on their way (VX-442).
    pub linger: Nanos,
    /// Batches are delivered as they are answered.
    pub unordered: bool,
}

/// A batch on its way: its number is one of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// The lane.
    pub lane: u32,
    /// Its number there.
    pub batch: BatchId,
}

/// What becomes of an input that cannot be processed (VX-601).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExhausted {
    /// The partition stops; the resume position stays before the input.
    Stop,
    /// The input is counted and left out, or goes to the dead letters.
    LeaveOut,
    /// The input goes back to the source, which gives it again.
    GiveBack,
}

/// Something final, in source order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These inputs, in order the first ones of their batch, are done or were left out by the function, as the answer says:
    /// write their outputs.
    Done(Vec<Input>, Answer),
    /// The input cannot be processed and is left out, with the reason.
    GaveUp(Input, Death),
    /// The input goes back to the source, to come again after this time.
    GaveBack(Input, Death, Nanos),
    /// The input cannot be processed: nothing behind it goes on.
    Stopped(Input, Death),
}

/// Steps of inputs that were read one behind the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Final {
    /// How many inputs were read before the first of them.
    pub serial: u64,
    /// What became of them.
    pub steps: Vec<Step>,
}

/// Why an input cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// One stable word.
    pub class: &'static str,
    /// What the function said, or what happened.
    pub reason: String,
    /// How often it was tried by itself.
    pub attempts: u32,
}

/// The batches of a partition that are not final yet.
#[derive(Debug)]
pub struct Flow {
    entries: VecDeque<Entry>,
    retry: Retry,
    shape: Shape,
    stopped: bool,
    /// What was let go when it stopped.
    left: Left,
    /// Inputs that were added.
    added: u64,
    /// Inputs that an earlier run tried, and that were not read again yet.
    known: BTreeMap<Position, Mark>,
}

/// Inputs of a partition that has stopped. The next run reads them again, so this one has no use for them.
#[derive(Debug, Default)]
struct Left {
    inputs: u64,
    /// The serial number of the first of them.
    first: Option<u64>,
    /// Those that failed by themselves.
    marks: Vec<Mark>,
}

#[derive(Debug)]
struct Entry {
    batch: Batch,
    state: State,
}

#[derive(Debug)]
enum State {
    Queued,
    /// Not to be sent before.
    Waiting(Nanos),
    Sent(Ticket),
    Answered(Answer),
    /// A single input that is not for functions, and why.
    Unfit(Death),
}

impl Flow {
    /// Nothing on its way.
    pub fn new(retry: Retry, shape: Shape) -> Self {
        Self {
            entries: VecDeque::new(),
            retry,
            shape,
            stopped: false,
            left: Left::default(),
            added: 0,
            known: BTreeMap::new(),
        }
    }

    /// From now on what is read at once is a batch by itself, or not.
    pub fn put_together(&mut self, together: bool, records: usize) {
        self.shape.records = if together { records } else { 0 };
    }

    /// Goes on with what an earlier run knows of inputs that it tried (VX-602).
    pub fn remember(&mut self, marks: &[Mark]) {
        self.known = marks.iter().map(|mark| (mark.position, *mark)).collect();
    }

    /// Adds a batch behind all others. Inputs that failed by themselves in an earlier run go by themselves again.
    pub fn push(&mut self, mut batch: Batch) {
        batch.serial = self.added;
        self.added += u64::from(batch.count());
        let mut rest = Some(batch);
        while let Some(batch) = rest.take() {
            let suspect = batch.inputs().iter().position(|input| self.known.contains_key(&input.position));
            let Some(index) = suspect else {
                self.append(batch);
                return;
            };
            let (before, from) = batch.split(index);
            let (alone, behind) = from.map_or((None, None), |from| from.split(1));
            for mut batch in before.into_iter().chain(alone) {
                if let Some(mark) = self.known.remove(&batch.first()) {
                    (batch.failures, batch.crashes) = (mark.failures, mark.crashes);
                    batch.attempt = 1;
                }
                self.entries.push_back(Entry { batch, state: State::Queued });
            }
            rest = behind;
        }
    }

    /// Inputs that failed by themselves and are tried again.
    pub fn marks(&self) -> Vec<Mark> {
        let single = self.entries.iter().filter(|entry| entry.batch.inputs().len() == 1);
        let tried = single.filter(|entry| entry.batch.failures + entry.batch.crashes > 0);
        let mark = |entry: &Entry| {
            let Batch { failures, crashes, .. } = entry.batch;
            Mark { position: entry.batch.first(), failures, crashes }
        };
        self.left.marks.iter().copied().chain(tried.map(mark)).collect()
    }

    /// Adds a batch, as far as it goes to the last one that was not sent.
    fn append(&mut self, batch: Batch) {
        let mut rest = Some(batch);
        if let Some(Entry { batch: open, state: State::Queued }) = self.entries.back_mut()
            && open.is_fresh()
            && let Some(batch) = rest.take()
        {
            let room = open.room_for(&batch, self.shape.records, self.shape.bytes);
            let (fits, behind) = batch.split(room);
            fits.into_iter().for_each(|fits| open.extend(fits));
            rest = behind;
        }
        // Where inputs of it are is told by 32 bits (VX-442).
        while let Some(batch) = rest.take() {
            let within = batch.within_span();
            let (fits, behind) = batch.split(within);
            self.entries.extend(fits.map(|batch| Entry { batch, state: State::Queued }));
            rest = behind;
        }
    }

    /// Adds an input behind all others that no function can be given, for this reason.
    pub fn push_unfit(&mut self, input: Input, class: &'static str, reason: String) {
        self.known.remove(&input.position);
        let Some(mut batch) = Batch::new(vec![input]) else { return };
        batch.serial = self.added;
        self.added += 1;
        self.entries.push_back(Entry { batch, state: State::Unfit(Death { class, reason, attempts: 0 }) });
    }

    /// What an earlier run knows of inputs that were not read again yet.
    pub fn known(&self) -> impl Iterator<Item = Mark> + '_ {
        self.known.values().copied()
    }

    /// Whether a batch was sent and not answered.
    pub fn is_any_sent(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.state, State::Sent(_)))
    }

    /// Inputs that are not final.
    pub fn inputs(&self) -> u64 {
        self.left.inputs + self.entries.iter().map(|entry| u64::from(entry.batch.count())).sum::<u64>()
    }

    /// Batches that are not final.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of their values, with what comes with each.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.batch.bytes()).sum()
    }

    /// Batches that were sent and are not final: for each there has to be room for an answer.
    pub fn sent_len(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.state, State::Sent(_) | State::Answered(_))).count()
    }

    /// Whether the batch to send is the oldest that is not final.
    pub fn sends_front(&self) -> bool {
        self.entries.front().is_some_and(Entry::is_unsent)
    }

    /// Whether everything is final.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.left.inputs == 0
    }

    /// The batch to send now, if there is one: the first that was not sent, unless it still waits. What is behind it waits
    /// with it (VX-600).
    pub fn next_to_send(&self, now: Nanos) -> Option<&Batch> {
        if self.stopped {
            return None;
        }
        let entry = self.entries.iter().find(|entry| entry.is_unsent())?;
        match entry.state {
            State::Waiting(until) if now < until => None,
            // It is given up as soon as all before it are final.
            _ if entry.gives_out(&self.retry).is_some() => None,
            _ => Some(&entry.batch),
        }
    }

    /// When the batch that waits may be sent, or the one that is not full goes as it is.
    pub fn next_time(&self) -> Option<Nanos> {
        let entry = self.entries.iter().find(|entry| entry.is_unsent())?;
        match entry.state {
            State::Waiting(until) if !self.stopped => Some(until),
            _ => self.fills_until(),
        }
    }

    /// Until when the batch to send next waits for more inputs if its worker has enough to do (VX-442); `None` when it is full,
    /// or there is something behind it.
    pub fn fills_until(&self) -> Option<Nanos> {
        let Entry { batch, state } = self.entries.back()?;
        let Shape { records, bytes, linger, .. } = self.shape;
        let is_next = self.entries.iter().filter(|entry| entry.is_unsent()).count() == 1;
        let has_room = batch.inputs().len() < records && batch.bytes() < bytes;
        let fills =
            matches!(state, State::Queued) && is_next && has_room && batch.is_fresh() && !self.stopped;
        fills.then(|| batch.since.saturating_add(linger))
    }

    /// The serial number of the first input that was not delivered.
    pub fn first(&self) -> Option<u64> {
        self.left.first.or(self.entries.front().map(|entry| entry.batch.serial))
    }

    /// The batch of [`Flow::next_to_send`] was published under this number.
    pub fn sent(&mut self, ticket: Ticket) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.is_unsent()) {
            entry.batch.attempt = entry.batch.attempt.saturating_add(1);
            entry.state = State::Sent(ticket);
        }
    }

    /// An answer came. One to a batch that is not on its way changes nothing.
    pub fn answered(&mut self, ticket: Ticket, answer: Answer, now: Nanos) {
        let retry = self.retry;
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.is_sent_as(ticket)) else { return };
        match answer.status() {
            Status::Ok | Status::Partial => entry.state = State::Answered(answer),
            // The generation is current, or nobody would have taken the answer: the worker saw an old deadline (VX-235).
            Status::StaleGeneration | Status::Cancelled | Status::Overloaded => {
                entry.state = State::Waiting(now.saturating_add(entry.batch.delay(&retry, 0, now)));
            }
            // The function failed on the batch as a whole.
            _ => {
                entry.batch.failures += 1;
                entry.batch.fault = Some(answer.status());
                entry.state = State::Waiting(now.saturating_add(entry.batch.delay(
                    &retry,
                    entry.batch.failures - 1,
                    now,
                )));
                self.split_suspects();
            }
        }
    }

    /// The worker that had these batches is gone; `suspect` is the oldest of them, which it was working on.
    pub fn lost(&mut self, tickets: &[Ticket], suspect: Option<Ticket>, now: Nanos) {
        let retry = self.retry;
        for entry in &mut self.entries {
            let State::Sent(ticket) = entry.state else { continue };
            if !tickets.contains(&ticket) {
                continue;
            }
            entry.state = if suspect == Some(ticket) {
                entry.batch.crashes += 1;
                State::Waiting(now.saturating_add(entry.batch.delay(&retry, 0, now)))
            } else {
                State::Queued
            };
        }
        self.split_suspects();
    }

    /// What is final now, in source order; without order what is final of one batch. The caller delivers it before it asks for
    /// more.
    pub fn finish(&mut self, now: Nanos) -> Final {
        self.take_final(now, self.shape.unordered)
    }

    /// As [`Flow::finish`], of one batch in any case.
    pub fn finish_batch(&mut self, now: Nanos) -> Final {
        self.take_final(now, true)
    }

    /// Whether [`Flow::finish_batch`] has something to work on: an answer, or an input to be given up.
    pub fn has_final(&self) -> bool {
        let reach = if self.shape.unordered { self.entries.len() } else { 1 };
        let is_final = |entry: &Entry| {
            matches!(entry.state, State::Answered(_) | State::Unfit(_))
                || entry.gives_out(&self.retry).is_some()
        };
        !self.stopped && self.entries.iter().take(reach).any(is_final)
    }

    fn take_final(&mut self, now: Nanos, one: bool) -> Final {
        let (Final { mut serial, mut steps }, mut index) = (Final::default(), 0);
        while !self.stopped {
            if let (true, Some(entry)) = (steps.is_empty(), self.entries.get(index)) {
                serial = entry.batch.serial;
            }
            self.give_up(index, &mut steps);
            let Some(entry) = self.entries.get(index) else { break };
            let is_answered = matches!(entry.state, State::Answered(_));
            if self.stopped || one && !steps.is_empty() {
                break;
            }
            if !is_answered && self.shape.unordered {
                index += 1;
                continue;
            }
            if !is_answered {
                break;
            }
            let Some(Entry { batch, state: State::Answered(answer) }) = self.entries.remove(index) else {
                break;
            };
            self.apply(index, batch, answer, now, &mut steps);
        }
        if self.stopped && !self.entries.is_empty() {
            self.left = Left { inputs: self.inputs(), first: self.first(), marks: self.marks() };
            self.entries.clear();
        }
        Final { serial, steps }
    }

    /// Whether an input stopped the partition.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Turns an answer into steps, up to the first input that has to be tried again, which takes its place with all behind it.
    fn apply(&mut self, index: usize, batch: Batch, answer: Answer, now: Nanos, steps: &mut Vec<Step>) {
        let earlier = if batch.inputs().len() == 1 { batch.failures } else { 0 };
        let mut done = 0;
        let none = Nanos::ZERO;
        let mut goes_back = false;
        let bad = answer.verdicts().find_map(|verdict| match verdict {
            Verdict::Done(_) | Verdict::Dropped => {
                done += 1;
                None
            }
            // No further try.
            Verdict::Rejected(reason) => Some((u32::MAX, "REJECTED", reason, none)),
            Verdict::Failed(reason) => Some((earlier + 1, "UDF_ERROR", reason, none)),
            // A source that cannot be given a single input back has it tried again in place (VX-603).
            Verdict::Nacked(delay, reason) => {
                goes_back = self.retry.gives_back;
                Some((earlier + 1, "NACKED", reason, delay))
            }
        });
        let (finished, rest) = batch.split(done);
        steps.extend(finished.map(|finished| Step::Done(finished.into_inputs(), answer)));
        let Some((Some(mut failed), behind)) = rest.map(|rest| rest.split(1)) else { return };
        let unsaid = || (earlier + 1, "UDF_ERROR", "the answer says nothing about it".to_owned(), none);
        let (failures, class, reason, delay) = bad.unwrap_or_else(unsaid);
        self.put_back(index, behind);
        let death = Death { class, reason, attempts: earlier + 1 };
        if goes_back {
            steps.extend(
                failed.into_inputs().into_iter().map(|input| Step::GaveBack(input, death.clone(), delay)),
            );
            return;
        }
        if failures < self.retry.attempts.get() {
            failed.failures = failures;
            let until = now.saturating_add(failed.delay(&self.retry, failures - 1, now).max(delay));
            self.entries.insert(index, Entry { batch: failed, state: State::Waiting(until) });
            return;
        }
        let Some(input) = failed.inputs().first().cloned() else { return };
        if !self.exhausted(input, death, steps) {
            self.put_back(index, Some(failed));
        }
    }

    /// Puts unfinished inputs back in their place.
    fn put_back(&mut self, index: usize, batch: Option<Batch>) {
        if let Some(batch) = batch {
            self.entries.insert(index, Entry { batch, state: State::Queued });
        }
    }

    /// Leaves an input out (true) or stops the partition before it (false).
    fn exhausted(&mut self, input: Input, death: Death, steps: &mut Vec<Step>) -> bool {
        match self.retry.on_exhausted {
            OnExhausted::LeaveOut => {
                steps.push(Step::GaveUp(input, death));
                true
            }
            OnExhausted::GiveBack => {
                steps.push(Step::GaveBack(input, death, self.retry.backoff.cap));
                true
            }
            OnExhausted::Stop => {
                steps.push(Step::Stopped(input, death));
                self.stopped = true;
                false
            }
        }
    }

    /// Gives up a single input at this place that ended its worker too often, on which the function failed as a whole, or that is
    /// not for functions.
    fn give_up(&mut self, index: usize, steps: &mut Vec<Step>) {
        let retry = self.retry;
        while let Some(entry) = self.entries.get(index) {
            if self.shape.unordered && !steps.is_empty() {
                return;
            }
            let [input] = entry.batch.inputs() else { return };
            let Batch { failures, crashes, .. } = entry.batch;
            if let State::Unfit(death) = &entry.state {
                let (input, death) = (input.clone(), death.clone());
                if !self.exhausted(input, death, steps) {
                    return;
                }
                self.entries.remove(index);
                continue;
            }
            let Some((class, reason)) = entry.gives_out(&retry) else { return };
            let death = Death { class, reason: reason.to_owned(), attempts: failures + crashes };
            let input = input.clone();
            if !self.exhausted(input, death, steps) {
                return;
            }
            self.entries.remove(index);
        }
    }

    /// Cuts batches that failed twice as a whole in halves (VX-610).
    fn split_suspects(&mut self) {
        let mut index = 0;
        while let Some(entry) = self.entries.get(index) {
            let batch = &entry.batch;
            let count = batch.inputs().len();
            if count == 1 || !entry.is_unsent() || batch.crashes.max(batch.failures) < 2 {
                index += 1;
                continue;
            }
            let Some(Entry { batch, state }) = self.entries.remove(index) else { return };
            let (first, second) = batch.split(count / 2);
            if let Some(second) = second {
                self.entries.insert(index, Entry { batch: second, state: State::Queued });
            }
            if let Some(first) = first {
                self.entries.insert(index, Entry { batch: first, state });
            }
            index += 2;
        }
    }
}

impl Batch {
    /// The delay before it is tried again, after so many that were before it.
    fn delay(&self, retry: &Retry, before: u32, now: Nanos) -> Nanos {
        retry.backoff.delay(before, now.0 ^ self.first().0)
    }
}

impl Entry {
    fn is_unsent(&self) -> bool {
        matches!(self.state, State::Queued | State::Waiting(_))
    }

    /// Why there is no further try of a single input, if there is none.
    fn gives_out(&self, retry: &Retry) -> Option<(&'static str, &'static str)> {
        let Batch { failures, crashes, fault, .. } = &self.batch;
        if self.batch.inputs().len() > 1 || !self.is_unsent() {
            return None;
        }
        if *crashes >= retry.crash_attempts.get() {
            return Some(("CRASHED", "the worker died or hung on it"));
        }
        (*failures >= retry.attempts.get()).then_some(match fault {
            Some(Status::OutputTooLarge) => ("OUTPUT_TOO_LARGE", "its outputs are too long"),
            _ => ("UDF_ERROR", "the function failed on it"),
        })
    }

    fn is_sent_as(&self, ticket: Ticket) -> bool {
        matches!(self.state, State::Sent(sent) if sent == ticket)
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
