//! `tidegate hub bench`: the hub beside iceoryx2, Aeron IPC and bare shared memory, with the same processes and clocks.
//!
//! How turns are run and compared is in [`crate::cli::bench`].
//!
//! | module | |
//! |---|---|
//! | `plan` | what is measured, in which sizes |
//! | `targets` | what is wanted |
//! | `peer` | this program's ends of a measurement, also those of Aeron and of bare memory |

mod peer;
mod plan;
mod targets;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use self::plan::{Extent, Kind};
use crate::cli::bench::baseline::Baseline;
use crate::cli::bench::counts::Counter;
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

/// Where blocks are by default.
const MEMORY: &str = "/dev/shm";

const OPTIONS: &str = "rings of 4096 slots, of 64 where slots are larger than 64 KiB; no digests but where they are measured; \
                       ends spin but in wake, readers and idle; the first 64 bytes of a record are written and copied out";

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
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    time: Duration,
    /// Time before each measurement, with records under way
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_duration)]
    warmup: Duration,
    /// The smallest size of each kind, three turns, short measurements: about a minute
    #[arg(long, conflicts_with_all = ["sizes", "readers", "repetitions", "time", "warmup"])]
    quick: bool,
    /// Do not measure Aeron and bare shared memory, which are in this program
    #[arg(long)]
    alone: bool,
    /// Measure another program as well, which speaks the protocol of benches/hub/iceoryx2; its name is compared with
    #[arg(long, value_name = "NAME=PATH", value_parser = Program::named)]
    peer: Vec<Program>,
    /// Do not count allocations and system calls, which takes another turn
    #[arg(long)]
    without_counts: bool,
    /// Compare with the results of an earlier run, from --save or --json, and fail when a number is more than 20 % worse
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
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
        let baseline = self.baseline.as_deref().map(Baseline::read).transpose()?;
        let mut record = Record::create(self.save.as_deref())?;
        let interrupt = Interrupt::install()?;
        let place = tempfile::Builder::new()
            .prefix("tidegate-hub-bench-")
            .tempdir_in(MEMORY)
            .map_err(|source| BenchError::io(format!("make a directory in {MEMORY}"), source))?;
        if cfg!(debug_assertions) {
            progress("this program is not optimized: its numbers mean nothing; build it with --release");
        }
        let programs = self.programs()?;
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
            messages: 0,
            trips: 0,
            cpus: environment::placement().map(|places| places.map(environment::cpu_set)),
        };
        let mut session = Session::new(turns, &programs, counter.as_ref(), environment::raise_file_limit());
        let kinds = if self.only.is_empty() { &Kind::ALL[..] } else { &self.only };
        let groups = plan::groups(kinds, &self.extent);
        session.run(&groups, self.repetitions, &mut |_, _, _| Ok(0.0), &mut record, output)?;
        session.end(&environment, baseline.as_ref().zip(self.baseline.as_deref()), &mut record, output)
    }

    fn programs(&self) -> Result<Vec<Program>, BenchError> {
        let mut programs = vec![Program::own("hub", "tidegate")?];
        programs.extend(self.peer.iter().cloned());
        if !self.alone {
            for name in [targets::AERON, targets::BARE] {
                programs.push(Program::own("hub", name)?.with_argument(&format!("--by={name}")));
            }
        }
        Ok(programs)
    }

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
            "page_size": tidegate::shm::host::page_size(),
            "optimized": !cfg!(debug_assertions),
            "programs": versions,
            "options": OPTIONS,
            "repetitions": self.repetitions,
            "seconds": self.time.as_secs_f64(),
            "warmup": self.warmup.as_secs_f64(),
            "allocations": counter.map(Counter::allocations_from),
            "syscalls": counter.map(Counter::syscalls_from),
        });
        fields.extend(options.as_object().cloned().unwrap_or_default());
        Ok(report::environment(fields))
    }
}
