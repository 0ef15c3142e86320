//! What a node and an attached pair cost while nothing happens.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::error::BenchError;
use super::processes::Processes;
use crate::cli::signal::Interrupt;
use crate::output::{Output, Stop};

/// Share of one core that is aimed at.
const AIM: f64 = 0.05;
/// Attaching is over before the measurement begins.
const SETTLE: Duration = Duration::from_millis(500);
const NAP: Duration = Duration::from_millis(20);

/// CPU time and wake-ups of a process since its start.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    cpu_ns: u64,
    wakeups: u64,
}

/// Measures for `time` and prints.
pub(super) fn measure(processes: &mut Processes, time: Duration, output: &mut Output) -> Result<(), Stop> {
    let pids =
        [("node", processes.node_pid), ("producer", processes.ping.pid()), ("reader", processes.pong.pid())];
    let mut read = Err(BenchError::Interrupted);
    processes.idle(time + 2 * SETTLE, |interrupt| read = over(time, pids.map(|(_, pid)| pid), interrupt))?;
    let (elapsed, usages) = read?;
    let rows = pids.iter().zip(usages).map(|((name, _), usage)| {
        (*name, usage.cpu_ns as f64 / 1e9 / elapsed, usage.wakeups as f64 / elapsed)
    });
    let rows: Vec<_> = rows.collect();
    let total: f64 = rows.iter().map(|(_, core, _)| core).sum();
    let aim = if total < AIM { "met" } else { "missed" };
    output.result(
        || {
            let lines = rows.iter().map(|(name, core, wakeups)| {
                format!("  {name:<10} {:6.2} % of a core  {wakeups:7.0} wake-ups/s\n", core * 100.0)
            });
            format!(
                "idle for {elapsed:.1} s: a node, an attached producer and an attached reader\n{}  {:<10} {:6.2} % of a \
                 core  (aim: below {:.0} %, {aim})",
                lines.collect::<String>(),
                "total",
                total * 100.0,
                AIM * 100.0
            )
        },
        || {
            let processes: Vec<_> = rows
                .iter()
                .map(|(name, core, wakeups)| json!({ "process": name, "cores": core, "wakeups_per_s": wakeups }))
                .collect();
            json!({
                "measure": "idle",
                "seconds": elapsed,
                "processes": processes,
                "cores": total,
                "aim_below": AIM,
                "met": total < AIM,
            })
        },
    )
}

/// Seconds that passed, and what each process used meanwhile.
fn over(time: Duration, pids: [u32; 3], interrupt: &Interrupt) -> Result<(f64, [Usage; 3]), BenchError> {
    pause(SETTLE, interrupt);
    let began = Instant::now();
    let mut usages = [Usage::default(); 3];
    for (usage, pid) in usages.iter_mut().zip(pids) {
        *usage = Usage::of(pid)?;
    }
    pause(time, interrupt);
    for (usage, pid) in usages.iter_mut().zip(pids) {
        let now = Usage::of(pid)?;
        usage.cpu_ns = now.cpu_ns.saturating_sub(usage.cpu_ns);
        usage.wakeups = now.wakeups.saturating_sub(usage.wakeups);
    }
    Ok((began.elapsed().as_secs_f64(), usages))
}

fn pause(time: Duration, interrupt: &Interrupt) {
    let end = Instant::now() + time;
    while Instant::now() < end && !interrupt.is_set() {
        sleep(NAP.min(end.saturating_duration_since(Instant::now())));
    }
}

impl Usage {
    /// Adds up the threads there are.
    fn of(pid: u32) -> Result<Self, BenchError> {
        let failed = |source| BenchError::Io { action: "read /proc of a measured process", source };
        let mut usage = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(failed)? {
            let task = task.map_err(failed)?.path();
            // A thread that ends in between counts no more.
            let (Ok(schedule), Ok(status)) =
                (fs::read_to_string(task.join("schedstat")), fs::read_to_string(task.join("status")))
            else {
                continue;
            };
            usage.cpu_ns += first_number(&schedule);
            let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            usage.wakeups += switches.map_or(0, first_number);
        }
        Ok(usage)
    }
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}
