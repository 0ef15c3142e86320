//! What every command that measures is told, and how it begins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::baseline::Baseline;
use super::counts::Counter;
use super::error::BenchError;
use super::program::Program;
use super::report::{self, Record};
use super::{environment, progress};
use crate::cli::signal::Interrupt;
use crate::output::Stop;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each program has its turn
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repetitions: u32,
    /// Measure another program as well, which speaks the protocol of those in benches/ (NAME tells what it is compared with)
    #[arg(long, value_name = "NAME=PATH", value_parser = Program::named)]
    pub(crate) peer: Vec<Program>,
    /// Do not count allocations and system calls, which takes another turn
    #[arg(long)]
    pub(crate) without_counts: bool,
    /// Compare with the results of an earlier run, from --save or --json, and fail when a number is much worse
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// Keep all results, every turn of them, in this file: what --json prints
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// A run that has begun.
pub(crate) struct Run {
    pub(crate) baseline: Option<Baseline>,
    pub(crate) record: Record,
    pub(crate) interrupt: Interrupt,
}

impl Options {
    /// Reads what is compared with, opens what is kept, and listens to signals.
    pub(crate) fn begin(&self) -> Result<Run, Stop> {
        let baseline = self.baseline.as_deref().map(Baseline::read).transpose()?;
        let record = Record::create(self.save.as_deref())?;
        let interrupt = Interrupt::install()?;
        if cfg!(debug_assertions) {
            progress("this program is not optimized: its numbers mean nothing; build it with --release");
        }
        Ok(Run { baseline, record, interrupt })
    }

    /// Counts allocations and system calls, with files in `place`.
    pub(crate) fn counter(&self, place: &Path) -> Option<Counter> {
        (!self.without_counts).then(|| Counter::new(place))
    }
}

/// What results are worth nothing without (MQ-500): the machine, the programs, how they were measured.
pub(crate) fn describe(
    programs: &[Program],
    counter: Option<&Counter>,
    run: &Run,
    [time, warmup]: [Duration; 2],
    others: Value,
) -> Result<Value, BenchError> {
    let mut versions = Map::new();
    for program in programs {
        versions.insert(program.name.clone(), program.version(&run.interrupt)?);
    }
    let mut fields = environment::machine();
    let options = json!({
        "optimized": !cfg!(debug_assertions),
        "programs": versions,
        "seconds": time.as_secs_f64(),
        "warmup": warmup.as_secs_f64(),
        "allocations": counter.map(Counter::allocations_from),
        "syscalls": counter.map(Counter::syscalls_from),
    });
    for part in [options, others] {
        fields.extend(part.as_object().cloned().unwrap_or_default());
    }
    let environment = report::environment(fields);
    if let Some(names) = run.baseline.as_ref().and_then(|baseline| baseline.strange(&environment)) {
        progress(&format!("the baseline is of another machine or state of it: see {names}"));
    }
    Ok(environment)
}
