//! The turns of a run, and what came of them.

use std::path::Path;

use serde_json::Value;

use super::baseline::Baseline;
use super::counts::Counter;
use super::error::BenchError;
use super::program::Program;
use super::report::{self, Record};
use super::results::Results;
use super::turn::{Figures, Turns};
use super::verdict::verdicts;
use super::{Measurement, progress};
use crate::output::{Exit, Output, Stop};

pub(crate) struct Session<'a, M> {
    turns: Turns<'a>,
    programs: &'a [Program],
    counter: Option<&'a Counter>,
    /// Open files that a process may have.
    files: u64,
    results: Results<M>,
    /// What has no turns any more.
    left_out: Vec<(M, String)>,
    failures: Vec<String>,
    judged: bool,
}

/// Finds the messages a second that a measurement is to send at, from one with the same program.
pub(crate) type RateOf<'r, M> = dyn FnMut(&Turns<'_>, &Program, &M) -> Result<f64, BenchError> + 'r;

impl<'a, M: Measurement> Session<'a, M> {
    /// Nothing was measured yet. `files`: how many a process may have open.
    pub(crate) fn new(
        turns: Turns<'a>,
        programs: &'a [Program],
        counter: Option<&'a Counter>,
        files: u64,
    ) -> Self {
        let counter = counter.filter(|counter| counter.works());
        let results = Results::default();
        Self {
            turns,
            programs,
            counter,
            files,
            results,
            left_out: Vec::new(),
            failures: Vec::new(),
            judged: true,
        }
    }

    /// Whether minima are compared with what was measured; they are unless this says no.
    pub(crate) fn judge(&mut self, judged: bool) {
        self.judged = judged;
    }

    /// Measures these groups one after the other, each `repetitions` times, and prints what came of each. What is in a group
    /// is compared with each other and takes turns.
    pub(crate) fn run(
        &mut self,
        groups: &[Vec<M>],
        repetitions: u32,
        rate_of: &mut RateOf<'_, M>,
        record: &mut Record,
        output: &mut Output,
    ) -> Result<(), Stop> {
        for (index, group) in groups.iter().enumerate() {
            let titles: Vec<_> = group.iter().map(Measurement::title).collect();
            progress(&format!("{} of {}: {}", index + 1, groups.len(), titles.join("; ")));
            self.measure(group, repetitions, rate_of)?;
            let of_group = |row: &&super::results::Row<M>| group.contains(&row.measure);
            let rows: Vec<_> = self.results.rows().iter().filter(of_group).collect();
            report::measured(&self.results, &rows, record, output)?;
        }
        Ok(())
    }

    /// Prints what there is to say at the end, and compares with the baseline. Fails when something is worse, or could not be
    /// measured.
    pub(crate) fn end(
        self,
        environment: &Value,
        baseline: Option<(&Baseline, &Path)>,
        record: &mut Record,
        output: &mut Output,
    ) -> Result<(), Stop> {
        let verdicts = if self.judged { verdicts(&self.results) } else { Vec::new() };
        report::summary(&self.results, &verdicts, environment, record, output)?;
        let regressed = match baseline {
            Some((baseline, path)) => gate(baseline, &self.results, path, output)?,
            None => false,
        };
        self.verdict()?;
        if regressed { Err(Stop::Reported(Exit::Failed)) } else { Ok(()) }
    }

    fn measure(
        &mut self,
        group: &[M],
        repetitions: u32,
        rate_of: &mut RateOf<'_, M>,
    ) -> Result<(), BenchError> {
        for repetition in 0..=repetitions {
            for measure in group {
                for program in self.programs {
                    if self.left_out.contains(&(*measure, program.name.clone())) {
                        continue;
                    }
                    // The last round is for counting.
                    let outcome = if repetition < repetitions {
                        self.turn(program, measure, rate_of)
                            .map(|figures| self.results.add(*measure, &program.name, figures))
                    } else {
                        self.count(program, measure)
                            .map(|figures| self.results.add_counts(*measure, &program.name, figures))
                    };
                    if let Err(error) = outcome {
                        self.leave_out(program, measure, error)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn turn(
        &self,
        program: &Program,
        measure: &M,
        rate_of: &mut RateOf<'_, M>,
    ) -> Result<Figures, BenchError> {
        let needed = measure.files();
        if needed as u64 > self.files {
            return Err(BenchError::Files { needed, limit: self.files });
        }
        let rate = rate_of(&self.turns, program, measure)?;
        self.turns.run(program, measure, rate)
    }

    fn count(&self, program: &Program, measure: &M) -> Result<Figures, BenchError> {
        match self.counter {
            Some(counter) if measure.is_counted() => self.turns.count(program, measure, counter),
            _ => Ok(Figures::new()),
        }
    }

    /// Goes on without a measurement that did not work, unless nothing will.
    fn leave_out(&mut self, program: &Program, measure: &M, error: BenchError) -> Result<(), BenchError> {
        if matches!(error, BenchError::Interrupted | BenchError::Io { .. }) {
            return Err(error);
        }
        let failure = format!("{}: {error}", measure.title());
        progress(&failure);
        // A foreign program need not know every measurement.
        if program.is_own() || !matches!(error, BenchError::Cannot { .. }) {
            self.failures.push(failure);
        }
        self.left_out.push((*measure, program.name.clone()));
        Ok(())
    }

    fn verdict(self) -> Result<(), Stop> {
        match self.failures.as_slice() {
            [] => Ok(()),
            [first, rest @ ..] => {
                let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
                let message = format!("not everything could be measured: {first}{more}");
                Err(Stop::Error { exit: Exit::Failed, code: "bench", message })
            }
        }
    }
}

/// Prints what is worse than it was; tells whether there is any.
fn gate<M: Measurement>(
    baseline: &Baseline,
    results: &Results<M>,
    path: &Path,
    output: &mut Output,
) -> Result<bool, Stop> {
    let (compared, worse) = baseline.compare(results);
    if compared == 0 {
        return Err(BenchError::Baseline { path: path.to_owned() }.into());
    }
    for regression in &worse {
        output.result(|| regression.text(), || regression.json())?;
    }
    let line = format!("{compared} measurements compared with the baseline, {} of them worse", worse.len());
    if !output.json() {
        output.result(|| line, || Value::Null)?;
    }
    Ok(!worse.is_empty())
}
