//! `tidegate mq bench`: the messaging kernel beside libzmq, with the same processes, messages and clocks.
//!
//! The runner starts two processes of a program, which speak the protocol of [`peer`], and reads what they cost from the
//! kernel. For each measurement the programs take turns, and the turns are repeated: what the machine does meanwhile hits
//! all of them alike. A ratio is taken between medians, and counts only when the difference exceeds the ranges of both
//! (MQ-504).
//!
//! | module | |
//! |---|---|
//! | `plan` | what is measured, in which sizes |
//! | `programs`, `processes` | who is measured; their processes |
//! | `turn`, `counts` | one measurement with one program |
//! | `results`, `stats` | all of them; medians and ranges |
//! | `targets`, `baseline`, `report` | the minima; stored results; what is printed |
//! | `environment` | where it is measured |
//! | `peer` | this program's ends of a measurement |

mod baseline;
mod counts;
mod environment;
mod error;
mod peer;
mod plan;
mod processes;
mod programs;
mod report;
mod results;
mod stats;
mod targets;
mod turn;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use self::baseline::Baseline;
use self::counts::Counter;
use self::error::BenchError;
use self::plan::{Extent, Kind, Measure};
use self::programs::{Driver, Program};
use self::report::Record;
use self::results::{Results, Row};
use self::turn::{Figures, Turns};
use crate::cli::session::parse_duration;
use crate::cli::signal::Interrupt;
use crate::output::{Exit, Output, Stop};

pub(crate) use self::peer::Peer;

/// Of all programs. Messages do not pass the queue that is the exception.
const OPTIONS: &str = "defaults of each program, high-water marks of 1000 messages; but topics: libzmq's subscriber sends its \
                       subscriptions without a mark, above which it would drop them";

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure [default: everything]
    #[arg(long, value_enum, value_name = "KIND,...", value_delimiter = ',')]
    only: Vec<Kind>,
    #[command(flatten)]
    extent: Extent,
    /// How often each program has its turn
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Least time of one measurement
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    time: Duration,
    /// Time before each measurement, with messages under way
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// Least number of messages, unless they take more than three times the time
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    messages: u64,
    /// Least number of round trips, unless they take more than three times the time
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    trips: u64,
    /// The smallest size of each kind, three turns, short measurements: about a minute
    #[arg(long, conflicts_with_all = [
        "sizes", "subscribers", "topics", "dealers", "connections", "load", "repetitions", "time", "warmup", "messages",
        "trips",
    ])]
    quick: bool,
    /// How this program does I/O; each of them is measured as a program of its own
    #[arg(long, value_enum, value_name = "DRIVER,...", value_delimiter = ',', default_value = "auto")]
    driver: Vec<Driver>,
    /// Do not measure libzmq
    #[arg(long)]
    without_libzmq: bool,
    /// The shared library of libzmq to measure [default: the one that is installed]
    #[arg(long, value_name = "FILE", conflicts_with = "without_libzmq")]
    libzmq: Option<PathBuf>,
    /// Measure another program as well, which speaks the protocol of benches/messaging/libzmq_peer.c
    #[arg(long, value_name = "NAME=PATH", value_parser = Program::named)]
    peer: Vec<Program>,
    /// Do not count allocations and system calls, which takes another turn
    #[arg(long)]
    without_counts: bool,
    /// Compare with the results of an earlier run, from --save or --json, and fail when a number is more than 5 % worse
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Keep all results, every turn of them, in this file: what --json prints
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl Bench {
    pub(crate) fn run(mut self, output: &mut Output) -> Result<(), Stop> {
        if self.quick {
            self.hurry();
        }
        let baseline = self.baseline.as_deref().map(Baseline::read).transpose()?;
        let mut record = Record::create(self.save.as_deref())?;
        let interrupt = Interrupt::install()?;
        let place =
            tempfile::tempdir().map_err(|source| BenchError::io("make a directory".to_owned(), source))?;
        if cfg!(debug_assertions) {
            progress("this program is not optimized: its numbers mean nothing; build it with --release");
        }
        let programs = self.programs(place.path())?;
        let counter = (!self.without_counts).then(|| Counter::new(place.path()));
        let environment = self.environment(&programs, counter.as_ref(), &interrupt)?;
        if let Some(names) = baseline.as_ref().and_then(|baseline| baseline.strange(&environment)) {
            progress(&format!("the baseline is of another machine or state of it: see {names}"));
        }
        let turns = Turns {
            place: place.path(),
            interrupt: &interrupt,
            warmup: self.warmup,
            time: self.time,
            messages: self.messages,
            trips: self.trips,
            cpus: environment::placement().map(|places| places.map(environment::cpu_set)),
        };
        let mut session = Session {
            turns,
            programs: &programs,
            counter: counter.as_ref().filter(|counter| counter.works()),
            files: environment::raise_file_limit(),
            greatest: HashMap::new(),
            results: Results::default(),
            left_out: Vec::new(),
            failures: Vec::new(),
        };
        let kinds = if self.only.is_empty() { &Kind::ALL[..] } else { &self.only };
        let groups = plan::groups(kinds, &self.extent);
        for (index, group) in groups.iter().enumerate() {
            let titles: Vec<_> = group.iter().map(Measure::title).collect();
            progress(&format!("{} of {}: {}", index + 1, groups.len(), titles.join("; ")));
            session.measure(group, self.repetitions)?;
            let of_group = |row: &&Row| group.contains(&row.measure);
            let rows: Vec<_> = session.results.rows().iter().filter(of_group).collect();
            report::measured(&session.results, &rows, &mut record, output)?;
        }
        report::summary(&session.results, &environment, &mut record, output)?;
        let regressed = match baseline {
            Some(baseline) => gate(&baseline, &session.results, self.baseline.as_deref(), output)?,
            None => false,
        };
        session.verdict()?;
        if regressed { Err(Stop::Reported(Exit::Failed)) } else { Ok(()) }
    }

    fn hurry(&mut self) {
        self.extent = Extent::quick();
        (self.repetitions, self.messages, self.trips) = (3, 0, 0);
        (self.time, self.warmup) = (Duration::from_millis(300), Duration::from_millis(100));
    }

    fn programs(&self, place: &Path) -> Result<Vec<Program>, BenchError> {
        let mut programs =
            self.driver.iter().map(|driver| Program::own(*driver)).collect::<Result<Vec<_>, _>>()?;
        if !self.without_libzmq {
            programs.push(Program::libzmq(place, self.libzmq.as_deref())?);
        }
        programs.extend(self.peer.iter().cloned());
        Ok(programs)
    }

    /// What results are worth nothing without (MQ-500).
    fn environment(
        &self,
        programs: &[Program],
        counter: Option<&Counter>,
        interrupt: &Interrupt,
    ) -> Result<Value, BenchError> {
        let mut versions = Map::new();
        for program in programs {
            versions.insert(program.name.clone(), program.version(interrupt)?);
        }
        let mut fields = environment::machine();
        let options = json!({
            "optimized": !cfg!(debug_assertions),
            "programs": versions,
            "options": OPTIONS,
            "repetitions": self.repetitions,
            "seconds": self.time.as_secs_f64(),
            "warmup": self.warmup.as_secs_f64(),
            "messages": self.messages,
            "trips": self.trips,
            "allocations": counter.map(Counter::allocations_from),
            "syscalls": counter.map(Counter::syscalls_from),
        });
        fields.extend(options.as_object().cloned().unwrap_or_default());
        Ok(report::environment(fields))
    }
}

/// The turns of a run, and what came of them.
struct Session<'a> {
    turns: Turns<'a>,
    programs: &'a [Program],
    counter: Option<&'a Counter>,
    /// Open files that a process may have.
    files: u64,
    /// Greatest rates, for the open loop.
    greatest: HashMap<(String, usize), f64>,
    results: Results,
    /// What has no turns any more.
    left_out: Vec<(Measure, String)>,
    failures: Vec<String>,
}

impl Session<'_> {
    fn measure(&mut self, group: &[Measure], repetitions: u32) -> Result<(), BenchError> {
        for repetition in 0..=repetitions {
            for measure in group {
                for program in self.programs {
                    if self.left_out.contains(&(*measure, program.name.clone())) {
                        continue;
                    }
                    // The last round is for counting.
                    let outcome = if repetition < repetitions {
                        self.turn(program, measure)
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

    fn turn(&mut self, program: &Program, measure: &Measure) -> Result<Figures, BenchError> {
        let needed = measure.files();
        if needed as u64 > self.files {
            return Err(BenchError::Files { needed, limit: self.files });
        }
        let rate = match measure.kind {
            Kind::OpenLoop => self.greatest_rate(program, measure.bytes)? * measure.count as f64 / 100.0,
            _ => 0.0,
        };
        self.turns.run(program, measure, rate)
    }

    fn count(&self, program: &Program, measure: &Measure) -> Result<Figures, BenchError> {
        match self.counter {
            Some(counter) if !matches!(measure.kind, Kind::OpenLoop | Kind::Connections) => {
                self.turns.count(program, measure, counter)
            }
            _ => Ok(Figures::new()),
        }
    }

    /// Messages a second that the open loop takes for all there can be: those of PUSH and PULL.
    fn greatest_rate(&mut self, program: &Program, bytes: usize) -> Result<f64, BenchError> {
        let key = (program.name.clone(), bytes);
        if let Some(rate) = self.greatest.get(&key) {
            return Ok(*rate);
        }
        let measure = Measure { kind: Kind::PushPull, bytes, count: 1, stalled: false };
        let figures = self.turns.run(program, &measure, 0.0)?;
        let rate = figures.get("messages_per_s").and_then(Value::as_f64).unwrap_or(1.0);
        self.greatest.insert(key, rate);
        Ok(rate)
    }

    /// Goes on without a measurement that did not work, unless nothing will.
    fn leave_out(
        &mut self,
        program: &Program,
        measure: &Measure,
        error: BenchError,
    ) -> Result<(), BenchError> {
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
fn gate(
    baseline: &Baseline,
    results: &Results,
    path: Option<&Path>,
    output: &mut Output,
) -> Result<bool, Stop> {
    let (compared, worse) = baseline.compare(results);
    if compared == 0 {
        return Err(BenchError::Baseline { path: path.unwrap_or(Path::new("it")).to_owned() }.into());
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

/// Tells people how far it is.
fn progress(line: &str) {
    use std::io::Write;
    // It can be missed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    /// Rules: MQ-501, MQ-502, MQ-503, MQ-504.
    #[test]
    fn without_options_it_is_measured_as_long_and_as_often_as_results_need() {
        let command = Bench::augment_args(Command::new("bench")).no_binary_name(true);
        let bench = Bench::from_arg_matches(&command.get_matches_from([""; 0])).unwrap();
        assert!(bench.warmup >= Duration::from_secs(1));
        assert!(bench.trips >= 100_000);
        assert_eq!(bench.extent.load, [10, 50, 80]);
        assert!(bench.time >= Duration::from_secs(5) && bench.messages >= 10_000_000);
        assert!(bench.repetitions >= 10);
        assert!(bench.only.is_empty() && !bench.without_libzmq && !bench.without_counts);
    }
}
