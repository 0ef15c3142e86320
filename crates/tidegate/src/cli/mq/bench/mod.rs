//! `tidegate mq bench`: the messaging kernel beside libzmq, with the same two processes, messages and clocks.
//!
//! Sender and receiver are processes of their own. For each measurement the programs take turns, and the turns are
//! repeated: what the machine does meanwhile hits all of them alike. A ratio is taken between medians, and counts only
//! when the quartiles do not overlap (MQ-504).

mod error;
mod peer;
mod plan;
mod programs;
mod report;

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tidegate::mq::{Context, Pull};

use self::error::BenchError;
use self::plan::Kind;
use self::programs::{Program, Run};
use self::report::Results;
use crate::cli::session::parse_duration;
use crate::cli::signal::Interrupt;
use crate::output::{Output, Stop};

pub(crate) use self::peer::Peer;

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure
    #[arg(
        long,
        value_enum,
        value_name = "KIND,...",
        value_delimiter = ',',
        default_value = "push-pull,req-rep,ipc,pub-sub,curve,inproc-rate,inproc-trip"
    )]
    only: Vec<Kind>,
    /// Payload sizes in bytes; k and m stand for KiB and MiB
    #[arg(long, value_name = "BYTES,...", default_value = "64,1k,64k", value_delimiter = ',', value_parser = parse_size)]
    sizes: Vec<usize>,
    /// How often each program has its turn
    #[arg(long, value_name = "N", default_value_t = 5)]
    repetitions: u32,
    /// Time of one measurement, after a warm-up of a quarter of it
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    time: Duration,
    /// One size, three turns, short measurements: about half a minute
    #[arg(long, conflicts_with_all = ["sizes", "repetitions", "time"])]
    quick: bool,
    /// Do not measure libzmq
    #[arg(long)]
    without_libzmq: bool,
    /// Measure another program as well, which takes the arguments of benches/messaging/libzmq_peer.c
    #[arg(long, value_name = "NAME=PATH", value_parser = Program::named)]
    peer: Vec<Program>,
}

impl Bench {
    pub(crate) fn run(mut self, output: &mut Output) -> Result<(), Stop> {
        if self.quick {
            (self.sizes, self.repetitions, self.time) = (vec![64], 3, Duration::from_millis(400));
        }
        let interrupt = Interrupt::install()?;
        let place = tempfile::tempdir()
            .map_err(|source| BenchError::Io { action: "make a directory".to_owned(), source })?;
        let mut programs = vec![Program::own()?];
        if !self.without_libzmq {
            programs.push(Program::libzmq(place.path())?);
        }
        programs.append(&mut self.peer);
        if cfg!(debug_assertions) {
            progress("this program is not optimized: its numbers mean nothing; build it with --release");
        }
        let run = Run { place: place.path(), interrupt: &interrupt, warmup: self.time / 4, time: self.time };
        let measures: Vec<_> =
            self.only.iter().flat_map(|kind| self.sizes.iter().map(|&bytes| kind.measure(bytes))).collect();
        let mut results = Results::default();
        let mut missing = Vec::new();
        for (index, measure) in measures.iter().enumerate() {
            progress(&format!(
                "{} of {}: {} {} bytes",
                index + 1,
                measures.len(),
                measure.name,
                measure.bytes
            ));
            for _ in 0..self.repetitions {
                for program in &programs {
                    if missing.contains(&(index, program.name.clone())) {
                        continue;
                    }
                    match program.measure(&run, measure) {
                        Ok(value) => results.add(*measure, &program.name, value),
                        // A foreign program need not know every measurement.
                        Err(BenchError::Ended { program: name })
                            if name != "tidegate" && name != "libzmq" =>
                        {
                            progress(&format!("{name} cannot do {}", measure.name));
                            missing.push((index, name));
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        results.print(&self.environment()?, output)
    }

    /// What results are worth nothing without (MQ-500).
    fn environment(&self) -> Result<Value, Stop> {
        let context = Context::new();
        Pull::new(&context)?.bind_blocking("tcp://127.0.0.1:*")?;
        let driver = context.driver().map(|driver| format!("{driver:?}"));
        let system = rustix::system::uname();
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "driver": driver,
            "kernel": system.release().to_string_lossy(),
            "cpu": model.map(|(_, model)| model),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "governor": Some(governor.trim()).filter(|governor| !governor.is_empty()),
            "optimized": !cfg!(debug_assertions),
            "repetitions": self.repetitions,
            "seconds": self.time.as_secs_f64(),
        }))
    }
}

/// Tells people how far it is.
fn progress(line: &str) {
    use std::io::Write;
    // It can be missed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn parse_size(text: &str) -> Result<usize, String> {
    let unit = |letters: &[char], shift: u32| text.strip_suffix(letters).map(|number| (number, shift));
    let (number, shift) = unit(&['k', 'K'], 10).or_else(|| unit(&['m', 'M'], 20)).unwrap_or((text, 0));
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes <= 1 << 30 => Ok(bytes),
        _ => Err("a size is a number of bytes such as 64, 64k or 1m, up to 1024m".to_owned()),
    }
}
