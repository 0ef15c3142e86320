//! `tidegate vertex bench`: the transport of a vertex beside gRPC over a Unix socket (chapter 22 of the sheet).
//!
//! How turns are run and compared is in [`crate::cli::bench`].
//!
//! | module | |
//! |---|---|
//! | `plan` | what is measured, in which sizes |
//! | `targets` | what is wanted |
//! | `peer` | this program's ends of a measurement |

mod peer;
mod plan;
mod targets;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use self::plan::{Extent, Kind};
use crate::cli::bench::environment;
use crate::cli::bench::error::BenchError;
use crate::cli::bench::program::Program;
use crate::cli::bench::progress;
use crate::cli::bench::report::{self, Record};
use crate::cli::bench::session::Session;
use crate::cli::bench::turn::Turns;
use crate::cli::session::parse_duration;
use crate::cli::signal::Interrupt;
use crate::output::{Output, Stop};

pub(crate) use self::peer::Peer;

const OPTIONS: &str = "rings of 16 MiB, frames and messages of up to 4 MiB, checksums of headers; both ends in processes of their \
                       own; the function copies a value and flips a bit of it, and the end that measures checks it";

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate vertex bench --quick
  tidegate vertex bench --grpc target/tonic/release/tonic-peer --only call,stream --save results.jsonl")]
pub(crate) struct Bench {
    /// What to measure [default: everything; the functions in Python with --python]
    #[arg(long, value_enum, value_name = "KIND,...", value_delimiter = ',')]
    only: Vec<Kind>,
    #[command(flatten)]
    extent: Extent,
    /// How often each program has its turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Time of one measurement
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    time: Duration,
    /// Time before each measurement, with batches under way
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_duration)]
    warmup: Duration,
    /// The smallest size of each kind, three turns, short measurements: about half a minute
    #[arg(long, conflicts_with_all = ["sizes", "batches", "flights", "repetitions", "time", "warmup"])]
    quick: bool,
    /// The program that reaches the same function by gRPC, made from benches/vertex/tonic: with one message for each batch, and
    /// with one for each record
    #[arg(long, value_name = "PATH")]
    grpc: Option<PathBuf>,
    /// Python with the package tidegate, for functions in it
    #[arg(long, value_name = "PATH")]
    python: Option<String>,
    /// Also measure checksums of whole payloads, and writing without permits
    #[arg(long)]
    variants: bool,
    /// Keep all results, every turn of them, in this file: what --json prints
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl Bench {
    pub(crate) fn run(mut self, output: &mut Output) -> Result<(), Stop> {
        if self.quick {
            (self.extent, self.repetitions) = (Extent::quick(), 3);
            (self.time, self.warmup) = (Duration::from_millis(300), Duration::from_millis(100));
        }
        let mut record = Record::create(self.save.as_deref())?;
        let interrupt = Interrupt::install()?;
        let place = tempfile::Builder::new()
            .prefix("tidegate-vertex-bench-")
            .tempdir()
            .map_err(|source| BenchError::io("make a directory for sockets".to_owned(), source))?;
        if cfg!(debug_assertions) {
            progress("this program is not optimized: its numbers mean nothing; build it with --release");
        }
        let programs = self.programs()?;
        let environment = self.environment(&programs, &interrupt)?;
        let judged = is_quiet(&environment);
        if !judged {
            progress("the load of this machine is above its number of processors: there will be no verdict");
        }
        let turns = Turns {
            place: place.path(),
            interrupt: &interrupt,
            warmup: self.warmup,
            time: self.time,
            messages: 0,
            trips: 0,
            // Both ends of a turn are started by one of them, so they cannot be kept apart.
            cpus: None,
        };
        let mut session = Session::new(turns, &programs, None, environment::raise_file_limit());
        session.judge(judged);
        if self.only.is_empty() {
            self.only = Kind::OWN.into();
            self.only.extend(self.python.iter().flat_map(|_| Kind::PYTHON));
        }
        let groups = plan::groups(&self.only, &self.extent);
        session.run(&groups, self.repetitions, &mut |_, _, _| Ok(0.0), &mut record, output)?;
        session.end(&environment, None, &mut record, output)
    }

    fn programs(&self) -> Result<Vec<Program>, BenchError> {
        let mut own = Program::own("vertex", "tidegate")?;
        if let Some(python) = &self.python {
            own = own.with_argument(&format!("--python={python}"));
        }
        let mut programs = vec![own];
        if let Some(path) = &self.grpc {
            for form in targets::GRPC {
                let argument = form.replace("grpc-", "--form=");
                programs.push(Program::at(form, path.clone()).with_argument(&argument));
            }
        }
        if self.variants {
            for (name, argument) in [("full-checksum", "--full-checksum"), ("no-permits", "--no-permits")] {
                programs.push(Program::own("vertex", name)?.with_argument(argument));
            }
        }
        Ok(programs)
    }

    fn environment(&self, programs: &[Program], interrupt: &Interrupt) -> Result<Value, BenchError> {
        let mut versions = Map::new();
        for program in programs {
            versions.insert(program.name.clone(), program.version(interrupt)?);
        }
        let mut fields = environment::machine();
        let options = json!({
            "optimized": !cfg!(debug_assertions),
            "programs": versions,
            "options": OPTIONS,
            "spin": 0,
            "repetitions": self.repetitions,
            "seconds": self.time.as_secs_f64(),
            "warmup": self.warmup.as_secs_f64(),
        });
        fields.extend(options.as_object().cloned().unwrap_or_default());
        Ok(report::environment(fields))
    }
}

/// Whether what is measured now may be judged (VX-901).
fn is_quiet(environment: &Value) -> bool {
    match (environment["load"].as_f64(), environment["cores"].as_f64()) {
        (Some(load), Some(cores)) => load <= cores,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: VX-901.
    #[test]
    fn a_busy_machine_gets_no_verdict() {
        let quiet = |load: f64| is_quiet(&json!({ "load": load, "cores": 2 }));
        assert!(quiet(2.0) && !quiet(2.01));
    }
}
