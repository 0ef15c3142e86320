//! `tidegate hub metrics`, `watch` and `export`: the counters of blocks.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tidegate::exporter::{Exporter, ExporterError};
use tidegate::hub::inspect::Inspector;
use tidegate::hub::metrics::prometheus::BlockMetrics;
use tidegate::hub::metrics::{HubMetrics, RateWindow};

use super::block::{BlockArgs, DirArgs};
use super::format::{grouped, latency};
use crate::cli::session::parse_duration;
use crate::cli::signal::Interrupt;
use crate::output::{Exit, HubExit, Output, Report, Stop, exit_of_io};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate hub metrics --channel sensor_temperature --json
  tidegate hub metrics --channel sensor_temperature --reset")]
pub(crate) struct Metrics {
    #[command(flatten)]
    block: BlockArgs,
    /// Set counters and latencies to 0; times, the error sequence and what consumers count themselves stay
    #[arg(long)]
    reset: bool,
}

impl Metrics {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        if self.reset {
            let recovery = self.block.open_for_repair()?;
            let sequence = recovery.inspector().metrics().counters.error_sequence;
            let step = recovery.reset_metrics()?;
            return output.result(
                || format!("metrics reset (kept: error_sequence {sequence}, creation time, consumer rows)"),
                || json!({ "steps": [step] }),
            );
        }
        let block = self.block.open()?;
        let metrics = block.metrics();
        output.result(|| all(&block, &metrics), || json!(metrics))
    }
}

fn all(block: &Inspector, metrics: &HubMetrics) -> String {
    let rows: String =
        metrics.counters.each().map(|(name, value)| format!("{name:<28} {}\n", grouped(value))).collect();
    let latencies = [("write_latency", &metrics.write_latency), ("read_latency", &metrics.read_latency)];
    let latencies = latencies.map(|(name, of)| {
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|share| latency(of.percentile(share)));
        let (average, most) = (latency(of.average()), latency((of.count > 0).then(|| Duration::from_nanos(of.max_ns))));
        let count = grouped(of.count);
        format!("{name:<28} {count} samples, average {average}, p50 {p50}, p90 {p90}, p99 {p99}, p999 {p999}, max {most}\n")
    });
    format!("Block: {}\n{rows}{}", block.name(), latencies.concat())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints a line per interval until it is interrupted, with --json an object with everything.

Examples:
  tidegate hub watch --channel sensor_temperature
  tidegate hub watch --channel sensor_temperature --interval 5s --count 3 --json")]
pub(crate) struct Watch {
    #[command(flatten)]
    block: BlockArgs,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    interval: Duration,
    /// End after so many looks
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Watch {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let interrupt = Interrupt::install()?;
        let block = self.block.open()?;
        let mut before: Option<HubMetrics> = None;
        let mut looks = 0;
        while self.count.is_none_or(|count| looks < count) {
            let now = block.metrics();
            // Over the interval, not over a minute (DH-248).
            let mut window = RateWindow::default();
            before.iter().chain([&now]).for_each(|metrics| window.observe(metrics));
            let shown = now.clone().with_window(&window);
            output.result(|| line(&shown, looks), || json!(shown))?;
            before = Some(now);
            looks += 1;
            let more = self.count.is_none_or(|count| looks < count);
            if !more || interrupt.sleep(self.interval) {
                break;
            }
        }
        Ok(())
    }
}

fn line(metrics: &HubMetrics, looks: u64) -> String {
    let head = "   WRITES/S     READS/S  WRITTEN/S     READ/S  OCCUPANCY  CONSUMERS  STUCK  HEALTH\n";
    let rates = metrics.rates.unwrap_or_default();
    let line = format!(
        "{:>11.1} {:>11.1} {:>10} {:>10} {:>8.1} % {:>10} {:>6}  {}",
        rates.write_ops_per_sec,
        rates.read_ops_per_sec,
        crate::cli::text::bytes(rates.bytes_written_per_sec as u64),
        crate::cli::text::bytes(rates.bytes_read_per_sec as u64),
        metrics.queue_utilization_percent,
        metrics.active_consumer_count,
        metrics.stuck_slots,
        if metrics.healthy { "OK" } else { "UNHEALTHY" },
    );
    if looks.is_multiple_of(LINES_PER_HEAD) { format!("{head}{line}") } else { line }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Answers GET /metrics, on this host only, until it is interrupted. Blocks that come and go do so there, too. A node with \
`tidegate up --metrics` serves the same and its tensor streams.

Examples:
  tidegate hub export
  tidegate hub export --listen 127.0.0.1:9464")]
pub(crate) struct Export {
    /// Where to listen; a loopback address
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9464")]
    listen: SocketAddr,
    #[command(flatten)]
    dir: DirArgs,
}

impl Export {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let interrupt = Interrupt::install()?;
        let blocks = BlockMetrics::in_dir(self.dir.dir);
        let exporter = Exporter::start(self.listen, vec![Box::new(blocks)])?;
        let url = format!("http://{}/metrics", exporter.address());
        output.result(|| format!("serving {url}"), || json!({ "ready": true, "url": url }))?;
        while !interrupt.sleep(WATCH) && exporter.is_running() {}
        Ok(exporter.stop()?)
    }
}

impl Report for ExporterError {
    fn exit(&self) -> Exit {
        match self {
            Self::NotLoopback { .. } => Exit::Usage,
            Self::Listen { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Exit::Hub(HubExit::Permission)
            }
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotLoopback { .. } => "not_loopback",
            Self::Listen { source, .. } => match source.kind() {
                std::io::ErrorKind::AddrInUse => "address_in_use",
                _ => exit_of_io(source).1,
            },
            _ => "io",
        }
    }
}

const LINES_PER_HEAD: u64 = 20;
const WATCH: Duration = Duration::from_secs(1);
