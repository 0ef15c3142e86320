//! `tidegate mq bench`: the messaging kernel beside libzmq, with the same processes, messages and clocks.
//!
//! How turns are run and compared is in [`crate::cli::bench`].
//!
//! | module | |
//! |---|---|
//! | `plan` | what is measured, in which sizes |
//! | `programs` | who is measured |
//! | `targets` | the minima |
//! | `peer` | this program's ends of a measurement |

mod peer;
pub(in crate::cli) mod plan;
mod programs;
mod targets;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use self::plan::{Extent, Kind, Measure};
use self::programs::Driver;
use crate::cli::bench::environment;
use crate::cli::bench::error::BenchError;
use crate::cli::bench::options::{Options, describe};
use crate::cli::bench::program::Program;
use crate::cli::bench::session::Session;
use crate::cli::bench::turn::Turns;
use crate::cli::session::parse_duration;
use crate::output::{Output, Stop};

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
    #[command(flatten)]
    options: Options,
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
}

impl Bench {
    pub(crate) fn run(mut self, output: &mut Output) -> Result<(), Stop> {
        if self.quick {
            self.hurry();
        }
        let mut run = self.options.begin()?;
        let place =
            tempfile::tempdir().map_err(|source| BenchError::io("make a directory".to_owned(), source))?;
        let programs = self.programs(place.path())?;
        let counter = self.options.counter(place.path());
        let told = json!({
            "options": OPTIONS,
            "repetitions": self.options.repetitions,
            "messages": self.messages,
            "trips": self.trips,
        });
        let environment = describe(&programs, counter.as_ref(), &run, [self.time, self.warmup], told)?;
        let turns = Turns {
            place: place.path(),
            interrupt: &run.interrupt,
            warmup: self.warmup,
            time: self.time,
            messages: self.messages,
            trips: self.trips,
            cpus: environment::placement().map(|places| places.map(environment::cpu_set)),
        };
        let mut session = Session::new(turns, &programs, counter.as_ref(), environment::raise_file_limit());
        let kinds = if self.only.is_empty() { &Kind::ALL[..] } else { &self.only };
        let groups = plan::groups(kinds, &self.extent);
        let mut greatest = Greatest::default();
        let mut rate_of = |turns: &Turns<'_>, program: &Program, measure: &Measure| match measure.kind {
            Kind::OpenLoop => {
                Ok(greatest.rate(turns, program, measure.bytes)? * measure.count as f64 / 100.0)
            }
            _ => Ok(0.0),
        };
        session.run(&groups, self.options.repetitions, &mut rate_of, &mut run.record, output)?;
        let baseline = run.baseline.as_ref().zip(self.options.baseline.as_deref());
        session.end(&environment, baseline, &mut run.record, output)
    }

    fn hurry(&mut self) {
        self.extent = Extent::quick();
        (self.options.repetitions, self.messages, self.trips) = (3, 0, 0);
        (self.time, self.warmup) = (Duration::from_millis(300), Duration::from_millis(100));
    }

    fn programs(&self, place: &Path) -> Result<Vec<Program>, BenchError> {
        let mut programs =
            self.driver.iter().map(|driver| programs::own(*driver)).collect::<Result<Vec<_>, _>>()?;
        if !self.without_libzmq {
            programs.push(programs::libzmq(place, self.libzmq.as_deref())?);
        }
        programs.extend(self.options.peer.iter().cloned());
        Ok(programs)
    }
}

/// Messages a second that the open loop takes for all there can be: those of PUSH and PULL.
#[derive(Default)]
struct Greatest(HashMap<(String, usize), f64>);

impl Greatest {
    fn rate(&mut self, turns: &Turns<'_>, program: &Program, bytes: usize) -> Result<f64, BenchError> {
        let key = (program.name.clone(), bytes);
        if let Some(rate) = self.0.get(&key) {
            return Ok(*rate);
        }
        let measure = Measure { kind: Kind::PushPull, bytes, count: 1, stalled: false };
        let figures = turns.run(program, &measure, 0.0)?;
        let rate = figures.get("messages_per_s").and_then(Value::as_f64).unwrap_or(1.0);
        self.0.insert(key, rate);
        Ok(rate)
    }
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
        assert!(bench.options.repetitions >= 10);
        assert!(bench.only.is_empty() && !bench.without_libzmq && !bench.options.without_counts);
    }
}
