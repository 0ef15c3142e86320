//! What ends of a measurement have in common.
//!
//! All peers, in whatever language, speak this protocol, so that the runner can put any of them at either end:
//!
//! ```text
//! PEER version
//! PEER ROLE bind|connect ENDPOINT [NAME=VALUE]...
//! ```
//!
//! On standard output a peer prints objects of JSON, one a line:
//!
//! | object | means |
//! |---|---|
//! | `{"version":V,...}` | answer to `version` |
//! | `{"cannot":WHY}` | it does not know this role or option |
//! | `{"bound":ENDPOINT}` | it listens there |
//! | `{"ready":true}` | it waits for a line on standard input |
//! | `{"begin":true}` | the warm-up is over, the measured time begins; `"workers":[PID,...]` are processes that are measured, too |
//! | `{"messages":N,"seconds":S,...}` | result of the end that measures |
//!
//! It ends when its standard input does; until then an end that has nothing to do waits.

use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::output::Stop;

/// How long an end measures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) warmup: Duration,
    /// Least time of measuring.
    pub(crate) measure: Duration,
    /// Least number of messages or round trips.
    pub(crate) least: u64,
    /// Time after which the least number is given up.
    pub(crate) longest: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let (warmup, measure) = (Duration::from_secs(1), Duration::from_secs(5));
        Self { warmup, measure, least: 0, longest: Duration::ZERO }
    }
}

impl Times {
    /// Takes a setting; false if it is none of these.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> Result<bool, Stop> {
        match name {
            "warmup" => self.warmup = seconds(value)?,
            "measure" => self.measure = seconds(value)?,
            "least" => self.least = number(value)?,
            "longest" => self.longest = seconds(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether what was measured is enough.
    pub(crate) fn is_over(&self, elapsed: Duration, measured: u64) -> bool {
        elapsed >= self.measure && (measured >= self.least || elapsed >= self.longest)
    }

    /// Round trips, one at a time, each with its time (MQ-502).
    pub(crate) fn measure_trips(&self, trip: impl FnMut() -> Result<(), Stop>) -> Result<Value, Stop> {
        self.measure_trips_after(|| (), trip)
    }

    /// The same, with something before each that does not count.
    pub(crate) fn measure_trips_after(
        &self,
        mut before: impl FnMut(),
        mut trip: impl FnMut() -> Result<(), Stop>,
    ) -> Result<Value, Stop> {
        trip()?;
        let warm = Instant::now() + self.warmup;
        while Instant::now() < warm {
            before();
            trip()?;
        }
        let (mut times, mut messages) = (histogram()?, 0);
        print(&json!({ "begin": true }));
        let begin = Instant::now();
        loop {
            before();
            let sent = Instant::now();
            // One at least, however late.
            if messages > 0 && self.is_over(sent - begin, messages) {
                break;
            }
            trip()?;
            times.saturating_record(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
            messages += 1;
        }
        let seconds = begin.elapsed().as_secs_f64();
        Ok(json!({ "messages": messages, "seconds": seconds, "histogram": recorded(&times) }))
    }
}

/// Times of up to a minute, with three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>, Stop> {
    Histogram::new_with_max(60_000_000_000, 3).map_err(Stop::usage)
}

/// Pairs of nanoseconds and how often.
pub(crate) fn recorded(histogram: &Histogram<u64>) -> Value {
    histogram.iter_recorded().map(|step| json!([step.value_iterated_to(), step.count_at_value()])).collect()
}

/// From any thread: the lock of standard output is held by the command line.
pub(crate) fn print(value: &Value) {
    if let Ok(stdout) = std::io::stdout().as_fd().try_clone_to_owned() {
        // Without its runner a peer has nobody to tell.
        let _ = File::from(stdout).write_all(format!("{value}\n").as_bytes());
    }
}

/// Prints the result and stays, so that the runner can look at this process.
pub(crate) fn finish(result: &Value) -> ! {
    print(result);
    loop {
        std::thread::park();
    }
}

/// Lines of standard input; ends the process with it, so that nothing is left when the runner is gone.
pub(crate) fn orders() -> Receiver<()> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            // Nobody need be waiting.
            let _ = sender.send(());
        }
        std::process::exit(0);
    });
    receiver
}

pub(crate) fn number<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Stop> {
    text.parse().map_err(|error| Stop::usage(format!("'{text}': {error}")))
}

fn seconds(text: &str) -> Result<Duration, Stop> {
    Duration::try_from_secs_f64(number(text)?).map_err(Stop::usage)
}
