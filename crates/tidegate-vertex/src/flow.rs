//! The order of one partition: which batch is sent next, whose outputs are delivered next, what is tried again (9.2, 9.3).
//!
//! Pure: answers and time come in, batches to send and outputs to deliver come out. Entries stand in source order and leave
//! only at the front, so outputs are delivered in source order and the resume position is the end of the finished prefix
//! (VX-441), whatever order answers come in and however often something is tried again.
//!
//! ```text
//!  push --> Queued --sent--> Sent --answer--> Answered --front--> delivered
//!              ^                |                  |
//!              |                | worker died      | an input failed: what is before it is delivered,
//!              +---- Waiting <--+------------------+ it is tried again alone, what is behind it is sent again
//! ```

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
};

/// How often to try, and what then.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Tries of an input on which the function fails.
    pub attempts: NonZeroU32,
    /// Tries of an input that ends or hangs the worker.
    pub crash_attempts: NonZeroU32,
    /// Delay before the second try; it doubles.
    pub initial: Nanos,
    /// Longest delay.
    pub cap: Nanos,
    /// What becomes of an input that used up its tries.
    pub on_exhausted: OnExhausted,
}

/// What becomes of an input that cannot be processed (VX-601).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExhausted {
    /// The partition stops; the resume position stays before the input.
    Stop,
    /// The input is counted and left out, or goes to the dead letters.
    LeaveOut,
}

/// Something final, in source order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These inputs, in order the first ones of their batch, are done or were left out by the function, as the answer says:
    /// write their outputs.
    Done(Vec<Input>, Answer),
    /// The input cannot be processed and is left out, with the reason.
    GaveUp(Input, Death),
    /// The input cannot be processed: nothing behind it goes on.
    Stopped(Input, Death),
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
    stopped: bool,
    /// Inputs that an earlier run tried, and that were not read again yet.
    known: BTreeMap<Position, Mark>,
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
    Sent(BatchId),
    Answered(Answer),
}

impl Flow {
    /// Nothing on its way.
    pub fn new(retry: Retry) -> Self {
        Self { entries: VecDeque::new(), retry, stopped: false, known: BTreeMap::new() }
    }

    /// Goes on with what an earlier run knows of inputs that it tried (VX-602).
    pub fn remember(&mut self, marks: &[Mark]) {
        self.known = marks.iter().map(|mark| (mark.position, *mark)).collect();
    }

    /// Adds a batch behind all others. Inputs that failed by themselves in an earlier run go by themselves again.
    pub fn push(&mut self, batch: Batch) {
        let mut rest = Some(batch);
        while let Some(batch) = rest.take() {
            let suspect = batch.inputs().iter().position(|input| self.known.contains_key(&input.position));
            let Some(index) = suspect else {
                self.entries.push_back(Entry { batch, state: State::Queued });
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
        tried.map(mark).collect()
    }

    /// Inputs that are not final.
    pub fn inputs(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.batch.count())).sum()
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
        self.entries.iter().filter(|entry| !entry.is_unsent()).count()
    }

    /// Whether the batch to send is the oldest that is not final.
    pub fn sends_front(&self) -> bool {
        self.entries.front().is_some_and(Entry::is_unsent)
    }

    /// Whether everything is final.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
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
            _ => Some(&entry.batch),
        }
    }

    /// When the batch that waits may be sent.
    pub fn next_time(&self) -> Option<Nanos> {
        match self.entries.iter().find(|entry| entry.is_unsent())?.state {
            State::Waiting(until) if !self.stopped => Some(until),
            _ => None,
        }
    }

    /// The batch of [`Flow::next_to_send`] was published under this id.
    pub fn sent(&mut self, id: BatchId) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.is_unsent()) {
            entry.batch.attempt = entry.batch.attempt.saturating_add(1);
            entry.state = State::Sent(id);
        }
    }

    /// An answer came. One to a batch that is not on its way changes nothing.
    pub fn answered(&mut self, id: BatchId, answer: Answer, now: Nanos) {
        let retry = self.retry;
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.is_sent_as(id)) else { return };
        match answer.status() {
            Status::Ok | Status::Partial => entry.state = State::Answered(answer),
            // The generation is current, or nobody would have taken the answer: the worker saw an old deadline (VX-235).
            Status::StaleGeneration | Status::Cancelled | Status::Overloaded => {
                entry.state = State::Waiting(now.saturating_add(retry.initial));
            }
            // The function failed on the batch as a whole.
            _ => {
                entry.batch.failures += 1;
                entry.batch.fault = Some(answer.status());
                entry.state = State::Waiting(now.saturating_add(backoff(&retry, entry.batch.failures)));
                self.split_suspects();
            }
        }
    }

    /// The worker that had these batches is gone; `suspect` is the oldest of them, which it was working on.
    pub fn lost(&mut self, ids: &[BatchId], suspect: Option<BatchId>, now: Nanos) {
        let until = now.saturating_add(self.retry.initial);
        for entry in &mut self.entries {
            let State::Sent(id) = entry.state else { continue };
            if !ids.contains(&id) {
                continue;
            }
            entry.state = if suspect == Some(id) {
                entry.batch.crashes += 1;
                State::Waiting(until)
            } else {
                State::Queued
            };
        }
        self.split_suspects();
    }

    /// What is final now, in source order. The caller delivers it before it asks for more.
    pub fn finish(&mut self, now: Nanos) -> Vec<Step> {
        let mut steps = Vec::new();
        while !self.stopped {
            self.give_up(&mut steps);
            if self.stopped
                || !self.entries.front().is_some_and(|entry| matches!(entry.state, State::Answered(_)))
            {
                break;
            }
            let Some(Entry { batch, state: State::Answered(answer) }) = self.entries.pop_front() else {
                break;
            };
            self.apply(batch, answer, now, &mut steps);
        }
        steps
    }

    /// Whether an input stopped the partition.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Turns an answer into steps, up to the first input that has to be tried again.
    fn apply(&mut self, batch: Batch, answer: Answer, now: Nanos, steps: &mut Vec<Step>) {
        let earlier = if batch.inputs().len() == 1 { batch.failures } else { 0 };
        let mut done = 0;
        let bad = answer.verdicts().find_map(|verdict| match verdict {
            Verdict::Done(_) | Verdict::Dropped => {
                done += 1;
                None
            }
            // No further try.
            Verdict::Rejected(reason) => Some((u32::MAX, "REJECTED", reason)),
            Verdict::Failed(reason) => Some((earlier + 1, "UDF_ERROR", reason)),
        });
        let (finished, rest) = batch.split(done);
        steps.extend(finished.map(|finished| Step::Done(finished.into_inputs(), answer)));
        let Some((Some(mut failed), behind)) = rest.map(|rest| rest.split(1)) else { return };
        let unsaid = || (earlier + 1, "UDF_ERROR", "the answer says nothing about it".to_owned());
        let (failures, class, reason) = bad.unwrap_or_else(unsaid);
        self.put_back(behind);
        if failures < self.retry.attempts.get() {
            failed.failures = failures;
            let until = now.saturating_add(backoff(&self.retry, failures));
            self.entries.push_front(Entry { batch: failed, state: State::Waiting(until) });
            return;
        }
        let Some(input) = failed.inputs().first().cloned() else { return };
        if !self.exhausted(input, Death { class, reason, attempts: earlier + 1 }, steps) {
            self.put_back(Some(failed));
        }
    }

    /// Puts unfinished inputs in front of all others.
    fn put_back(&mut self, batch: Option<Batch>) {
        if let Some(batch) = batch {
            self.entries.push_front(Entry { batch, state: State::Queued });
        }
    }

    /// Leaves an input out (true) or stops the partition before it (false).
    fn exhausted(&mut self, input: Input, death: Death, steps: &mut Vec<Step>) -> bool {
        match self.retry.on_exhausted {
            OnExhausted::LeaveOut => {
                steps.push(Step::GaveUp(input, death));
                true
            }
            OnExhausted::Stop => {
                steps.push(Step::Stopped(input, death));
                self.stopped = true;
                false
            }
        }
    }

    /// Gives up a single input in front that ended its worker too often, or on which the function failed as a whole.
    fn give_up(&mut self, steps: &mut Vec<Step>) {
        let retry = self.retry;
        while let Some(front) = self.entries.front() {
            let [input] = front.batch.inputs() else { return };
            let Batch { failures, crashes, .. } = front.batch;
            let (class, reason) = if crashes >= retry.crash_attempts.get() {
                ("CRASHED", "the worker died or hung on it")
            } else if front.is_unsent() && failures >= retry.attempts.get() {
                match front.batch.fault {
                    Some(Status::OutputTooLarge) => ("OUTPUT_TOO_LARGE", "its outputs are too long"),
                    _ => ("UDF_ERROR", "the function failed on it"),
                }
            } else {
                return;
            };
            let death = Death { class, reason: reason.to_owned(), attempts: failures + crashes };
            let input = input.clone();
            if !self.exhausted(input, death, steps) {
                return;
            }
            self.entries.pop_front();
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

impl Entry {
    fn is_unsent(&self) -> bool {
        matches!(self.state, State::Queued | State::Waiting(_))
    }

    fn is_sent_as(&self, id: BatchId) -> bool {
        matches!(self.state, State::Sent(sent) if sent == id)
    }
}

/// The delay before the next try after so many failures.
fn backoff(retry: &Retry, failures: u32) -> Nanos {
    let factor = 1u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
    Nanos(retry.initial.0.saturating_mul(factor)).min(retry.cap)
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
