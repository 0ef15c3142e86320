//! Outputs of inputs that are final, on their way to the sinks: those of some batches, or of a sealed epoch.

use tidegate_shm::clock::{Nanos, monotonic_now};
use tidegate_udf::wire::ids::{EpochId, Position};

use super::{
    VertexError,
    backlog::Backlog,
    dead::Letters,
    report::{Outcomes, Report},
};
use crate::{
    answer::{Answer, Emitted, Verdict},
    batch::Input,
    config::SinkConfig,
    fence::WriteGuard,
    flow::{Final, Step},
    ledger::Range,
    operate::histogram::Histogram,
    sink::{Delivery, Output, OutputIds, Published, Session, Sink, Token},
};

/// A sink and what belongs to it.
pub(super) struct End {
    pub(super) config: SinkConfig,
    pub(super) sink: Box<dyn Sink>,
    pub(super) ids: OutputIds,
    /// Something was published that was not flushed.
    pub(super) dirty: bool,
    /// What it said at the last flush.
    pub(super) state: Option<Token>,
    /// What waits for it, of a sink that no commit waits for.
    pub(super) late: Option<Backlog>,
    /// What was counted.
    pub(super) meter: SinkMeter,
}

/// What is counted of a sink.
#[derive(Debug)]
pub(super) struct SinkMeter {
    /// How long its calls take.
    pub(super) seconds: Histogram,
    /// Outputs that it has taken.
    pub(super) outputs: u64,
    /// Calls in which it took less than all.
    pub(super) retries: u64,
    /// Outputs that were visible already.
    pub(super) found: u64,
}

impl Default for SinkMeter {
    fn default() -> Self {
        Self { seconds: Histogram::of_times(), outputs: 0, retries: 0, found: 0 }
    }
}

impl SinkMeter {
    /// A call that began then; how far it came.
    pub(super) fn has_published(&mut self, begun: Nanos, published: &Published) {
        self.seconds.add_time(monotonic_now().saturating_sub(begun));
        let not_taken = published.rejected.len() + published.failed.len();
        self.outputs += published.through.saturating_sub(not_taken) as u64;
        let retries = published.held.as_ref().is_some_and(|held| held.after.is_none());
        self.retries += u64::from(retries || !published.failed.is_empty());
    }
}

/// Inputs that are final, in source order, and their outputs by sink.
#[derive(Debug)]
pub(super) struct Chunk {
    /// How many inputs of the session were read before the first of them.
    pub(super) serial: u64,
    pub(super) range: Range,
    pub(super) outcomes: Outcomes,
    pub(super) outputs: Vec<Vec<Output>>,
    /// Bytes of the outputs.
    pub(super) bytes: u64,
    /// Inputs that go back to the source, and when they are to come again.
    pub(super) back: Vec<(Position, Nanos)>,
}

impl Chunk {
    /// Adds what follows.
    pub(super) fn append(&mut self, next: Self) {
        self.range = Range { first: self.range.first, ..next.range };
        self.outcomes.add(&next.outcomes);
        self.bytes += next.bytes;
        self.back.extend(next.back);
        for (outputs, mut more) in self.outputs.iter_mut().zip(next.outputs) {
            outputs.append(&mut more);
        }
    }

    fn add(&mut self, sink: usize, output: Output) {
        self.bytes += output.record.len() as u64;
        if let Some(outputs) = self.outputs.get_mut(sink) {
            outputs.push(output);
        }
    }

    /// Where its inputs are, and nothing of what became of them.
    pub(super) fn place(&self) -> Self {
        let Self { serial, range, .. } = *self;
        Self { serial, range, outcomes: Outcomes::default(), outputs: Vec::new(), bytes: 0, back: Vec::new() }
    }

    /// Drops the outputs, which were published.
    pub(super) fn published(mut self) -> Self {
        self.outputs.iter_mut().for_each(|outputs| *outputs = Vec::new());
        self.bytes = 0;
        self
    }
}

/// What sorts final inputs.
pub(super) struct Sorter<'a> {
    pub(super) session: Session,
    pub(super) epoch: EpochId,
    /// The sink of each route.
    pub(super) routes: &'a [usize],
    pub(super) sinks: usize,
    pub(super) letters: Option<&'a Letters>,
}

impl Sorter<'_> {
    /// Sorts the outputs of final inputs by sink; `None` when no input is final.
    pub(super) fn sort(&self, Final { serial, steps }: Final, report: &mut Report) -> Option<Chunk> {
        let mut chunk = None;
        let partition = self.session.partition;
        for step in steps {
            match step {
                Step::Done(inputs, answer) => self.take(&inputs, &answer, &mut chunk),
                Step::GaveUp(input, death) => {
                    tracing::error!(%partition, position = %input.position, ?death, generation = %self.session.generation,
                        epoch = %self.epoch, "input left out");
                    let chunk = self.chunk_of(&mut chunk, &input);
                    let Some(letters) = self.letters else {
                        chunk.outcomes.dropped += 1;
                        chunk.outcomes.dropped_by.add(death.class);
                        continue;
                    };
                    chunk.outcomes.dead += 1;
                    chunk.outcomes.dead_by.add(death.class);
                    chunk.add(letters.sink, letters.of_input(&input, &death, &self.session, self.epoch));
                }
                Step::GaveBack(input, death, delay) => {
                    tracing::info!(%partition, position = %input.position, ?death, generation = %self.session.generation,
                        epoch = %self.epoch, "input given back to the source");
                    let chunk = self.chunk_of(&mut chunk, &input);
                    chunk.outcomes.nacked += 1;
                    chunk.back.push((input.position, delay));
                }
                Step::Stopped(input, death) => {
                    tracing::error!(%partition, position = %input.position, ?death, generation = %self.session.generation,
                        epoch = %self.epoch, "partition stopped");
                    report.stopped.push((partition.0, input.position.0, death.reason));
                }
            }
        }
        chunk.map(|chunk| Chunk { serial, ..chunk })
    }

    /// Takes the outputs of inputs that the function is done with.
    fn take(&self, inputs: &[Input], answer: &Answer, chunk: &mut Option<Chunk>) {
        // For each sink the number of the next output of an input.
        let mut numbers = vec![0; self.sinks];
        for (input, verdict) in inputs.iter().zip(answer.verdicts()) {
            let chunk = self.chunk_of(chunk, input);
            let outputs = match verdict {
                Verdict::Done(outputs) if !outputs.is_empty() => outputs,
                // Inputs with another verdict than these are other steps.
                _ => {
                    chunk.outcomes.filtered += 1;
                    continue;
                }
            };
            chunk.outcomes.delivered += 1;
            chunk.outcomes.outputs += outputs.len() as u64;
            numbers.fill(0);
            for Emitted { route, record } in outputs.emitted() {
                // The receiving thread has rejected routes that lead nowhere.
                let Some(&sink) = self.routes.get(route) else { continue };
                let Some(number) = numbers.get_mut(sink) else { continue };
                chunk.add(sink, Output { position: input.position, number: *number, record });
                *number += 1;
            }
        }
    }

    /// The chunk, which ends with this input from now on.
    fn chunk_of<'c>(&self, chunk: &'c mut Option<Chunk>, input: &Input) -> &'c mut Chunk {
        let (position, resume) = (input.position, input.next);
        let chunk = chunk.get_or_insert_with(|| Chunk {
            serial: 0,
            back: Vec::new(),
            range: Range { first: position, last: position, resume },
            outcomes: Outcomes::default(),
            outputs: vec![Vec::new(); self.sinks],
            bytes: 0,
        });
        chunk.range = Range { last: position, resume, ..chunk.range };
        chunk
    }
}

/// A chunk on its way.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) chunk: Chunk,
    /// The inputs of several chunks whose outputs these are, each with its own progress.
    pub(super) joined: Vec<Chunk>,
    /// What each sink said last.
    pub(super) tokens: Vec<Option<Token>>,
    /// Outputs that each sink has confirmed.
    done: Vec<usize>,
    staged: Vec<bool>,
    /// What each sink is given again.
    failed: Vec<Failed>,
    /// Nothing is left but those.
    resting: bool,
    /// When a sink that did not take all is asked again.
    pub(super) again: Nanos,
    tries: u32,
    /// Since when a sink is busy, and whether that was said.
    busy_since: Option<Nanos>,
    told: bool,
}

/// Outputs on which a sink failed that has taken what is behind them (VX-631).
#[derive(Debug, Clone, Default)]
struct Failed {
    outputs: Vec<Output>,
    /// When it is given them again.
    until: Nanos,
    /// How often it was.
    rounds: u32,
}

/// What goes with a publication.
pub(super) struct Way<'a> {
    pub(super) session: Session,
    pub(super) epoch: EpochId,
    /// Which source the positions are of.
    pub(super) source: u64,
    pub(super) guard: &'a WriteGuard,
    pub(super) letters: Option<&'a Letters>,
    /// Whether what a sink refuses is left out when there is no sink for dead letters.
    pub(super) leave_out: bool,
    /// Whether this is a whole epoch.
    pub(super) sealed: bool,
    pub(super) now: Nanos,
}

impl Outgoing {
    pub(super) fn new(chunk: Chunk) -> Self {
        let sinks = chunk.outputs.len();
        Self {
            chunk,
            joined: Vec::new(),
            tokens: vec![None; sinks],
            done: vec![0; sinks],
            staged: vec![false; sinks],
            failed: vec![Failed::default(); sinks],
            resting: false,
            again: Nanos::ZERO,
            tries: 0,
            busy_since: None,
            told: false,
        }
    }

    /// The inputs whose outputs these are.
    pub(super) fn inputs(&self) -> &[Chunk] {
        if self.joined.is_empty() { std::slice::from_ref(&self.chunk) } else { &self.joined }
    }

    /// Outputs that this sink has not taken.
    pub(super) fn waiting(&self, sink: usize) -> usize {
        let failed = self.failed.get(sink).map_or(0, |failed| failed.outputs.len());
        let all = self.chunk.outputs.get(sink).map_or(0, Vec::len) + failed;
        all - self.done.get(sink).copied().unwrap_or(0)
    }

    /// Gives the sinks what they have not confirmed; whether all have all of it now. Dead letters go last: they have what
    /// other sinks refused.
    pub(super) fn publish(
        &mut self,
        ends: &mut [End],
        way: &Way<'_>,
        report: &mut Report,
    ) -> Result<bool, VertexError> {
        if way.now < self.again {
            return Ok(false);
        }
        let letters = way.letters.map(|letters| letters.sink);
        let outputs = (0..ends.len()).filter(|sink| Some(*sink) != letters);
        let mut rests = false;
        for sink in outputs {
            self.resting = false;
            if !self.publish_to(sink, ends, way, report)? {
                if !self.resting {
                    return Ok(false);
                }
                rests = true;
            }
        }
        self.resting = rests;
        if rests {
            let rests = self.failed.iter().map(|failed| failed.until);
            self.again = rests.filter(|until| way.now < *until).min().unwrap_or(way.now);
            return Ok(false);
        }
        match letters {
            Some(sink) => self.publish_to(sink, ends, way, report),
            None => Ok(true),
        }
    }

    /// Whether nothing is left but outputs on which a sink failed that takes what is behind them.
    pub(super) fn is_resting(&self) -> bool {
        self.resting
    }

    /// Whether the sink has everything now.
    fn publish_to(
        &mut self,
        sink: usize,
        ends: &mut [End],
        way: &Way<'_>,
        report: &mut Report,
    ) -> Result<bool, VertexError> {
        while let Some(complete) = self.publish_some(sink, ends, way, report)? {
            if complete {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives a sink as much as it is given at once: whether it has everything now; `None` when it takes no more for the moment.
    fn publish_some(
        &mut self,
        sink: usize,
        ends: &mut [End],
        way: &Way<'_>,
        report: &mut Report,
    ) -> Result<Option<bool>, VertexError> {
        let slot = (ends.get_mut(sink), self.chunk.outputs.get_mut(sink), self.done.get_mut(sink));
        let (Some(end), Some(outputs), Some(done)) = slot else { return Ok(Some(true)) };
        let Some(failed) = self.failed.get_mut(sink) else { return Ok(Some(true)) };
        if way.now < failed.until {
            self.resting = true;
            return Ok(None);
        }
        if let Some(late) = &mut end.late {
            let outputs = std::mem::take(outputs);
            if !outputs.is_empty() {
                late.push(outputs, self.chunk.range, way);
            }
            return Ok(Some(true));
        }
        if *done == outputs.len() && !failed.outputs.is_empty() {
            // All were tried once.
            (*outputs, *done) = (std::mem::take(&mut failed.outputs), 0);
            let seed = way.now.0 ^ self.chunk.range.first.0;
            failed.until = way.now.saturating_add(end.config.retry.backoff().delay(failed.rounds, seed));
            failed.rounds = failed.rounds.saturating_add(1);
            self.resting = true;
            report.sink_retries += 1;
            return Ok(None);
        }
        let outputs: &[Output] = outputs;
        let Range { first, last, .. } = self.chunk.range;
        let rest = end.config.at_once(outputs.get(*done..).unwrap_or_default());
        if rest.is_empty() {
            return Ok(Some(true));
        }
        let delivery = |outputs| Delivery {
            session: way.session,
            epoch: way.epoch,
            first,
            last,
            source: way.source,
            outputs,
            ids: &end.ids,
        };
        if way.sealed
            && let Some(staged) = self.staged.get_mut(sink)
            && !*staged
        {
            end.sink.stage(&delivery(outputs), way.guard)?;
            *staged = true;
        }
        let begun = monotonic_now();
        let published = end.sink.publish(&delivery(rest), way.guard)?;
        end.meter.has_published(begun, &published);
        end.dirty = true;
        let rejected: Vec<Output> = published
            .rejected
            .into_iter()
            .filter_map(|rejected| Some((rest.get(rejected.index)?, rejected.reason)))
            .map(|(output, reason)| {
                report.refused += 1;
                match way.letters {
                    Some(letters) if letters.sink != sink => {
                        Ok(Some(letters.of_output(output, sink, reason, &way.session, way.epoch)))
                    }
                    None if way.leave_out => Ok(None),
                    _ => Err(VertexError::Refused {
                        sink: end.config.name.clone(),
                        position: output.position.0,
                        reason,
                    }),
                }
            })
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?;
        if let Some(first) = published.failed.first() {
            let (sink, count) = (&end.config.name, published.failed.len());
            tracing::warn!(sink, count, reason = first.reason, "outputs of it have to be given again");
        }
        failed.outputs.extend(published.failed.iter().filter_map(|one| rest.get(one.index).cloned()));
        let goes_on = published.through >= rest.len() && published.held.is_none();
        *done += published.through.min(rest.len());
        let complete = *done == outputs.len() && failed.outputs.is_empty();
        if let (Some(token), Some(slot)) = (published.token, self.tokens.get_mut(sink)) {
            *slot = Some(token);
        }
        if let Some(held) = published.held {
            let delay = match held.after {
                // It is busy and says when to come again; that is worth a word only if it goes on.
                Some(after) => {
                    let since = *self.busy_since.get_or_insert(way.now);
                    if !self.told && way.now.saturating_sub(since) >= LONG {
                        self.told = true;
                        tracing::warn!(
                            sink = end.config.name,
                            reason = held.reason,
                            "the sink takes no more"
                        );
                    }
                    after
                }
                None => {
                    tracing::warn!(
                        sink = end.config.name,
                        reason = held.reason,
                        "the sink has to be asked again"
                    );
                    report.sink_retries += 1;
                    end.config.retry.backoff().delay(self.tries, way.now.0 ^ first.0)
                }
            };
            self.again = way.now.saturating_add(delay);
            self.tries += 1;
        } else {
            if self.told {
                tracing::info!(sink = end.config.name, "the sink takes more again");
            }
            (self.tries, self.busy_since, self.told) = (0, None, false);
        }
        if let Some(letters) = way.letters
            && let Some(outputs) = self.chunk.outputs.get_mut(letters.sink)
        {
            outputs.extend(rejected);
        }
        Ok((goes_on || complete).then_some(complete))
    }
}

/// A sink that is busy for longer than this is spoken of.
const LONG: Nanos = Nanos::from_secs(5);

#[cfg(test)]
#[path = "outgoing_tests.rs"]
mod tests;
