//! One turn: a measurement with one program at both ends.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::thread::CpuSet;
use serde_json::{Map, Value};

use super::counts::Counter;
use super::error::BenchError;
use super::processes::{Processes, Usage};
use super::program::Program;
use super::{Ends, Measurement, Unit};
use crate::cli::signal::Interrupt;

/// Time that starting, connecting and all else outside the measured time may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same for all connections of a crowd.
const CROWD_PATIENCE: Duration = Duration::from_secs(120);
/// Time between the last handshake of a crowd and the look at its memory.
const SETTLE: Duration = Duration::from_millis(500);
/// Measured time after which the least number of messages is given up, in times of the least time.
const LONGEST: u32 = 3;

/// Numbers of one turn, by name.
pub(crate) type Figures = Map<String, Value>;

/// What all turns of a run have in common.
#[derive(Clone)]
pub(crate) struct Turns<'a> {
    pub(crate) place: &'a Path,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) warmup: Duration,
    /// Least time of measuring.
    pub(crate) time: Duration,
    /// Least number of messages, and of round trips.
    pub(crate) messages: u64,
    pub(crate) trips: u64,
    /// Processors of the end that binds and of the one that connects.
    pub(crate) cpus: Option<[CpuSet; 2]>,
}

impl Turns<'_> {
    /// Measures once. `rate`: messages a second, for the kinds that send at a rate.
    pub(crate) fn run<M: Measurement>(
        &self,
        program: &Program,
        measure: &M,
        rate: f64,
    ) -> Result<Figures, BenchError> {
        self.with_counter(program, measure, rate, None)
    }

    /// A short turn whose times mean nothing: counts allocations and system calls for each message.
    pub(crate) fn count<M: Measurement>(
        &self,
        program: &Program,
        measure: &M,
        counter: &Counter,
    ) -> Result<Figures, BenchError> {
        let time = self.time.min(Duration::from_secs(1));
        let short = Turns { warmup: time / 4, time, messages: 0, trips: 0, ..self.clone() };
        let mut figures = short.with_counter(program, measure, 0.0, Some(counter))?;
        figures.retain(|name, _| name.ends_with("_allocations_each") || name.ends_with("_syscalls_each"));
        Ok(figures)
    }

    fn with_counter<M: Measurement>(
        &self,
        program: &Program,
        measure: &M,
        rate: f64,
        counter: Option<&Counter>,
    ) -> Result<Figures, BenchError> {
        let mut processes = Processes::new(&program.name, self.interrupt);
        let start = |processes: &mut Processes<'_>, index: usize, role: &str, how: &str, endpoint: &str| {
            let mut command = self.command(program, measure, rate, [role, how, endpoint]);
            if let Some(counter) = counter {
                counter.prepare(&mut command, index);
            }
            processes.start(command, self.cpus.as_ref().and_then(|cpus| cpus.get(index)))
        };
        let mut figures = Figures::new();
        let measuring = match measure.ends() {
            Ends::One { role } => {
                start(&mut processes, 0, role, "bind", &measure.endpoint(self.place))?;
                0
            }
            Ends::Two { roles: [bound, connected], measuring } => {
                start(&mut processes, 0, bound, "bind", &measure.endpoint(self.place))?;
                let answer = processes.await_field(0, "bound", PATIENCE)?;
                let endpoint = answer["bound"].as_str().unwrap_or_default();
                start(&mut processes, 1, connected, "connect", endpoint)?;
                if let Some(connections) = measure.connections() {
                    figures = gather(&mut processes, connections)?;
                }
                measuring
            }
        };
        let begin = processes.await_field(measuring, "begin", PATIENCE + CROWD_PATIENCE + self.warmup)?;
        processes.watch(&begin["workers"]);
        let before = processes.usage();
        let counting = counter.map(|counter| {
            let ids: Vec<_> = processes.ids().enumerate().collect();
            let each = |(index, id)| (counter.allocations(index), counter.syscalls(id, self.time / 2));
            ids.into_iter().map(each).collect::<Vec<_>>()
        });
        let result = processes.await_field(measuring, "messages", self.time * LONGEST + PATIENCE)?;
        let after = processes.usage();
        digest(&result, &mut figures);
        let messages = result["published"].as_f64().or(result["messages"].as_f64()).unwrap_or(0.0);
        let seconds = result["seconds"].as_f64().unwrap_or(0.0);
        for (index, (before, after)) in before.iter().zip(&after).enumerate() {
            let end = if index == measuring { "measuring" } else { "other" };
            let cpu_ns = after.cpu_ns.saturating_sub(before.cpu_ns) as f64;
            let sleeps = after.sleeps.saturating_sub(before.sleeps) as f64;
            put(&mut figures, &format!("{end}_cpu_ns_each"), cpu_ns / messages);
            put(&mut figures, &format!("{end}_sleeps_each"), sleeps / messages);
            put(&mut figures, &format!("{end}_cpu_share"), cpu_ns / 1e9 / seconds);
        }
        for (index, (allocations, syscalls)) in counting.into_iter().flatten().enumerate() {
            let end = if index == measuring { "measuring" } else { "other" };
            let now = counter.and_then(|counter| counter.allocations(index));
            if let (Some(before), Some(now)) = (allocations, now) {
                let allocated = now.saturating_sub(before) as f64;
                put(&mut figures, &format!("{end}_allocations_each"), allocated / messages);
            }
            if let Some(per_second) = syscalls.and_then(|syscalls| syscalls.per_second()) {
                put(&mut figures, &format!("{end}_syscalls_each"), per_second * seconds / messages);
            }
        }
        Ok(figures)
    }

    fn command<M: Measurement>(
        &self,
        program: &Program,
        measure: &M,
        rate: f64,
        fixed: [&str; 3],
    ) -> Command {
        let [_, how, _] = fixed;
        let least = match measure.unit() {
            Unit::Messages => self.messages,
            Unit::Trips => self.trips,
            Unit::Time => 0,
        };
        let mut settings = vec![
            format!("size={}", measure.bytes()),
            format!("count={}", measure.count()),
            format!("warmup={}", self.warmup.as_secs_f64()),
            format!("measure={}", self.time.as_secs_f64()),
            format!("longest={}", (self.time * LONGEST).as_secs_f64()),
            format!("least={least}"),
        ];
        settings.extend(measure.settings(how, rate));
        program.command(fixed.into_iter().map(str::to_owned).chain(settings))
    }
}

/// Lets the second process make its connections, and tells what they cost the first one.
fn gather(processes: &mut Processes<'_>, connections: usize) -> Result<Figures, BenchError> {
    processes.await_field(1, "ready", PATIENCE)?;
    let before = processes.usage();
    let begin = Instant::now();
    processes.order(1)?;
    processes.await_field(0, "up", CROWD_PATIENCE)?;
    let mut figures = Figures::new();
    put(&mut figures, "up_s", begin.elapsed().as_secs_f64());
    std::thread::sleep(SETTLE);
    let memory = |index: usize, all: &[Usage]| all.get(index).map_or(0, |usage| usage.memory);
    let after = processes.usage();
    for (index, name) in ["bytes_per_connection", "other_bytes_per_connection"].into_iter().enumerate() {
        let grown = memory(index, &after).saturating_sub(memory(index, &before));
        put(&mut figures, name, grown as f64 / connections as f64);
    }
    processes.order(1)?;
    Ok(figures)
}

/// What follows from the result of a peer.
fn digest(result: &Value, figures: &mut Figures) {
    let number = |name: &str| result[name].as_f64();
    let seconds = number("seconds").unwrap_or(0.0);
    for name in ["messages", "seconds"] {
        put(figures, name, number(name).unwrap_or(0.0));
    }
    if let Some(lag) = number("commit_lag_p99_ns") {
        put(figures, "commit_lag_p99_ns", lag);
    }
    for (name, of) in
        [("messages_per_s", "messages"), ("bytes_per_s", "bytes"), ("published_per_s", "published")]
    {
        if let Some(count) = number(of) {
            put(figures, name, count / seconds);
        }
    }
    if let (Some(least), Some(most)) = (number("least_each"), number("most_each")) {
        put(figures, "unfairness", most / least);
    }
    let Some(steps) = result["histogram"].as_array() else { return };
    // The bounds are those of the peers.
    let Ok(mut times) = Histogram::<u64>::new_with_max(60_000_000_000, 3) else { return };
    for step in steps {
        if let (Some(ns), Some(count)) = (step[0].as_u64(), step[1].as_u64()) {
            times.saturating_record_n(ns, count);
        }
    }
    for (name, share) in
        [("p50_ns", 0.5), ("p90_ns", 0.9), ("p99_ns", 0.99), ("p999_ns", 0.999), ("max_ns", 1.0)]
    {
        put(figures, name, times.value_at_quantile(share) as f64);
    }
}

/// Numbers that are none, such as shares of nothing, are left out.
fn put(figures: &mut Figures, name: &str, value: f64) {
    if value.is_finite() {
        figures.insert(name.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Rules: MQ-502.
    #[test]
    fn percentiles_are_those_of_the_histogram() {
        let result = json!({
            "messages": 1000, "seconds": 2.0,
            "histogram": [[10, 500], [20, 400], [30, 90], [40, 9], [50, 1]],
        });
        let mut figures = Figures::new();
        digest(&result, &mut figures);
        let names = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns", "messages_per_s"];
        assert_eq!(names.map(|name| figures[name].as_f64()), [10., 20., 30., 40., 50., 500.].map(Some));
        assert!(!figures.contains_key("bytes_per_s"));
    }

    /// Rules: MQ-501.
    #[test]
    fn rates_are_by_the_receivers_time() {
        let result = json!({ "messages": 10, "bytes": 640, "seconds": 0.5, "published": 100, "least_each": 4, "most_each": 6 });
        let mut figures = Figures::new();
        digest(&result, &mut figures);
        let names = ["messages_per_s", "bytes_per_s", "published_per_s", "unfairness"];
        assert_eq!(names.map(|name| figures[name].as_f64()), [20., 1280., 200., 1.5].map(Some));
    }
}
