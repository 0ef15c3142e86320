//! `tidegate tensor bench`: how fast the tensor pool is, beside what it can be compared with.
//!
//! ```text
//!  bench ---- orders, answers ----+---------------------+
//!    |                            |                     |
//!  node (private)               ping  ==== frames ====> pong
//!                                     <=== frames =====
//! ```
//!
//! Each box is a process of its own. At most two of them spin at a time, ping and pong; the node and this process sleep.
//! The references (a cache line, bare Aeron, memcpy) run in the same two processes, in turn with what they are compared
//! with. All data is compared byte by byte, except where the point is not to touch it.

mod echo;
mod ends;
mod error;
mod flow;
mod idle;
mod lines;
mod pattern;
mod place;
mod processes;
mod protocol;
mod report;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::error::BenchError;
use self::processes::Processes;
use self::protocol::{Kind, Measure, Order};
use self::report::Results;
use crate::cli::session::parse_duration;
use crate::output::{Output, Stop};

pub(crate) use self::place::{BENCH_PREFIX, BenchPlace};
pub(crate) use self::worker::Worker;

const ROUNDS: u32 = 5;
const QUICK_ROUNDS: u32 = 3;
const QUICK: Duration = Duration::from_secs(3);
/// Payload of the bare exchange.
const LINE: usize = 8;

#[derive(Debug, Args)]
#[command(after_help = "\
Machines are noisy and differ; the ratios at the end are what can be compared. Nothing else should run meanwhile.

With --json: one line {\"measure\",\"bytes\",...} for each measurement, and a last line {\"summary\":true,\"ratios\":[...]}.

Examples:
  tidegate tensor bench --quick
  tidegate tensor bench --duration 60s --sizes 64,640k,8m --json
  tidegate tensor bench --idle 5s")]
pub(crate) struct Bench {
    /// Time for all measurements together
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    duration: Duration,
    /// A few seconds in all; the tails are worth little then
    #[arg(long, conflicts_with = "duration")]
    quick: bool,
    /// Payload sizes in bytes, from 8 on; k and m stand for KiB and MiB
    #[arg(long, value_name = "BYTES,...", default_value = "64,640k,8m", value_delimiter = ',', value_parser = parse_size)]
    sizes: Vec<usize>,
    /// Measure instead what node, producer and reader cost for so long while no frames come
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with_all = ["duration", "quick", "sizes"])]
    idle: Option<Duration>,
    /// Use the node in this directory instead of a private one
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Bench {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let mut processes = Processes::start(self.dir.clone())?;
        if let Some(time) = self.idle {
            return idle::measure(&mut processes, time, output);
        }
        let largest = processes.largest;
        if let Some(&bytes) = self.sizes.iter().find(|&&bytes| bytes > largest) {
            return Err(BenchError::TooLarge { bytes, largest }.into());
        }
        let plan = self.plan();
        let (rounds, time) = if self.quick { (QUICK_ROUNDS, QUICK) } else { (ROUNDS, self.duration) };
        let slices = rounds.saturating_mul(u32::try_from(plan.len()).unwrap_or(u32::MAX)).max(1);
        let slice = time / slices;
        let millis = u64::try_from(slice.as_millis()).unwrap_or(u64::MAX);
        let mut results = Results::default();
        for _ in 0..rounds {
            for &measure in &plan {
                if processes.is_interrupted() {
                    return Err(BenchError::Interrupted.into());
                }
                let outcome = processes.both(slice, |run| Order::Measure { run, measure, millis })?;
                results.add(measure, outcome);
            }
        }
        results.print(output)
    }

    /// What is measured in one round. Neighbours are what ratios are made of.
    fn plan(&self) -> Vec<Measure> {
        let mut sizes = self.sizes.clone();
        sizes.sort_unstable();
        sizes.dedup();
        let mut plan = vec![Measure { kind: Kind::CacheLine, bytes: LINE }];
        if let Some(&bytes) = sizes.first().filter(|&&bytes| bytes <= AERON_MESSAGE) {
            plan.push(Measure { kind: Kind::AeronIpc, bytes });
        }
        plan.extend(sizes.iter().map(|&bytes| Measure { kind: Kind::Copy, bytes }));
        plan.extend(sizes.iter().map(|&bytes| Measure { kind: Kind::Claim, bytes }));
        for &bytes in &sizes {
            plan.extend([Kind::Memcpy, Kind::Publish, Kind::Stream].map(|kind| Measure { kind, bytes }));
        }
        plan
    }
}

/// Messages up to this size go in one fragment of any Aeron channel.
const AERON_MESSAGE: usize = 1024;

fn parse_size(text: &str) -> Result<usize, String> {
    let unit = |letters: &[char], shift: u32| text.strip_suffix(letters).map(|number| (number, shift));
    let (number, shift) = unit(&['k', 'K'], 10).or_else(|| unit(&['m', 'M'], 20)).unwrap_or((text, 0));
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if (pattern::STAMP_LEN..=1 << 30).contains(&bytes) => Ok(bytes),
        _ => Err("a size is a number of bytes such as 64, 640k or 8m, from 8 to 1024m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("64"), Ok(64));
        assert_eq!(parse_size("640k"), Ok(640 << 10));
        assert_eq!(parse_size("8M"), Ok(8 << 20));
        for bad in ["", "k", "7", "8kb", "-8", "1025m", "99999999999999999999m", "8km"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
