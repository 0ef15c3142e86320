//! `tidegate hub bench`: the hub beside iceoryx2, Aeron IPC and bare shared memory, with the same processes and clocks.
//!
//! How turns are run and compared is in [`crate::cli::bench`].
//!
//! | module | |
//! |---|---|
//! | `plan` | what is measured, in which sizes |
//! | `targets` | what is wanted |
//! | `place` | the directory of a run |
//! | `peer` | this program's ends of a measurement, also those of Aeron and of bare memory |

mod peer;
mod place;
mod plan;
mod targets;

use std::time::Duration;

use clap::Args;
use serde_json::json;

use self::place::OwnPlace;
use self::plan::{Extent, Kind};
use crate::cli::bench::environment;
use crate::cli::bench::error::BenchError;
use crate::cli::bench::options::{Options, describe};
use crate::cli::bench::program::Program;
use crate::cli::bench::session::Session;
use crate::cli::bench::turn::Turns;
use crate::cli::session::parse_duration;
use crate::output::{Output, Stop};

pub(crate) use self::peer::Peer;
pub(crate) use self::place::{PREFIX, lock_of};

const OPTIONS: &str = "rings of 4096 slots, of 64 where slots are larger than 64 KiB; no digests but where they are measured; \
                       ends spin but in wake, readers and idle; the first 64 bytes of a record are written and copied out";

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
}

impl Bench {
    pub(crate) fn run(mut self, output: &mut Output) -> Result<(), Stop> {
        if self.quick {
            (self.extent, self.options.repetitions) = (Extent::quick(), 3);
            (self.time, self.warmup) = (Duration::from_millis(300), Duration::from_millis(100));
        }
        let mut run = self.options.begin()?;
        let place = OwnPlace::make()?;
        let programs = self.programs()?;
        let counter = self.options.counter(place.path());
        let told = json!({
            "page_size": tidegate::shm::host::page_size(),
            "options": OPTIONS,
            "repetitions": self.options.repetitions,
        });
        let environment = describe(&programs, counter.as_ref(), &run, [self.time, self.warmup], told)?;
        let turns = Turns {
            place: place.path(),
            interrupt: &run.interrupt,
            warmup: self.warmup,
            time: self.time,
            messages: 0,
            trips: 0,
            cpus: environment::placement().map(|places| places.map(environment::cpu_set)),
        };
        let mut session = Session::new(turns, &programs, counter.as_ref(), environment::raise_file_limit());
        let kinds = if self.only.is_empty() { &Kind::ALL[..] } else { &self.only };
        let groups = plan::groups(kinds, &self.extent);
        session.run(&groups, self.options.repetitions, &mut |_, _, _| Ok(0.0), &mut run.record, output)?;
        let baseline = run.baseline.as_ref().zip(self.options.baseline.as_deref());
        session.end(&environment, baseline, &mut run.record, output)
    }

    fn programs(&self) -> Result<Vec<Program>, BenchError> {
        let mut programs = vec![Program::own("hub", "tidegate")?];
        programs.extend(self.options.peer.iter().cloned());
        if !self.alone {
            for name in [targets::AERON, targets::BARE] {
                programs.push(Program::own("hub", name)?.with_argument(&format!("--by={name}")));
            }
        }
        Ok(programs)
    }
}
