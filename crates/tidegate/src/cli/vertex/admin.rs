//! `tidegate vertex status`, `fence`, `drain`, `pause`, `resume` and `log-level`: a running vertex over its admin socket.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use tidegate::node::{DIR_VARIABLE, NodePlace};
use tidegate::operations::{admin_socket, ask, running};
use tidegate::vertex::config::Pipeline;

use super::super::session::parse_duration;
use super::super::signal::Signals;
#[cfg(feature = "nats")]
use super::group::{self, Order};
use super::show;
use crate::output::{Exit, Output, Stop, VertexExit};

/// Which vertex.
#[derive(Debug, Args)]
struct At {
    /// The pipeline file of the vertex
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its admin socket [default: that of the one vertex that runs]
    #[arg(long, value_name = "SOCKET", conflicts_with = "config")]
    socket: Option<PathBuf>,
}

/// Whether one vertex is meant, or all of a pipeline.
#[derive(Debug, Args)]
struct Reach {
    /// Tell every vertex that shares the partitions of the pipeline, on all hosts, by way of its ownership store; with --config
    #[cfg(feature = "nats")]
    #[arg(long, requires = "config")]
    everywhere: bool,
}

/// The admin socket of a pipeline.
pub(super) fn socket_of(pipeline: &Pipeline) -> PathBuf {
    let place = || admin_socket(node().dir(), &pipeline.pipeline.name);
    pipeline.admin.socket.clone().unwrap_or_else(place)
}

fn node() -> NodePlace {
    NodePlace::find(None, std::env::var_os(DIR_VARIABLE))
}

impl At {
    fn socket(&self) -> Result<PathBuf, Stop> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        if let Some(config) = &self.config {
            return Ok(socket_of(&Pipeline::read(config)?));
        }
        let found = running(node().dir());
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(Stop::Error {
                exit: Exit::Vertex(VertexExit::Unavailable),
                code: "unreachable",
                message: "no vertex runs here; start one with `tidegate vertex run`, or name its --config or --socket"
                    .to_owned(),
            }),
            several => {
                let names: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
                Err(Stop::usage(format!("several vertices run; name one with --socket: {}", names.join(", "))))
            }
        }
    }

    /// All vertices of the pipeline.
    #[cfg(feature = "nats")]
    fn group(&self) -> Result<tidegate::vertex::nats::own::Group, Stop> {
        match &self.config {
            Some(config) => group::of(config),
            None => {
                Err(Stop::usage("which pipeline is meant is in its file: name it with --config".to_owned()))
            }
        }
    }

    fn post(&self, path: &str, body: &Value, within: Duration) -> Result<Value, Stop> {
        Ok(ask(&self.socket()?, "POST", path, body, within)?)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate vertex status
  tidegate vertex status -c orders.toml --json
  tidegate vertex status --watch")]
pub(crate) struct Status {
    #[command(flatten)]
    at: At,
    /// Again every second, until SIGINT
    #[arg(long)]
    watch: bool,
}

impl Status {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let socket = self.at.socket()?;
        let signals = self.watch.then(Signals::install).transpose()?;
        loop {
            let status = ask(&socket, "GET", "/status", &Value::Null, SOON)?;
            output.result(|| show::status(&status), || status.clone())?;
            match &signals {
                Some(signals) if !signals.wait(Some(Duration::from_secs(1))) => {}
                _ => return Ok(()),
            }
        }
    }
}

/// Which partitions.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// One partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Every one
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What was read and is not committed is processed again by whoever owns the partition next. Exit code 5: writes that had begun \
still run after --wait; the answer says which.

Examples:
  tidegate vertex fence --all
  tidegate vertex fence --partition 3 --reason 'wrong output' -c orders.toml
  tidegate vertex fence --all --everywhere -c orders.toml")]
pub(crate) struct Fence {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    which: Which,
    /// For the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// How long to wait for writes that have begun
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_duration)]
    wait: Duration,
}

impl Fence {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        #[cfg(feature = "nats")]
        if self.reach.everywhere {
            let group = self.at.group()?;
            return group::order(&group, self.which.partition, Order::Fence, &self.reason, output);
        }
        let mut order = order(self.which.partition, self.wait);
        order.insert("reason".to_owned(), self.reason.into());
        let answer = self.at.post("/fence", &order.into(), self.wait)?;
        let quiesced = answer["fenced"].as_array().into_iter().flatten().all(|one| one["quiesced"] == true);
        output.result(|| show::fenced(&answer), || answer.clone())?;
        if quiesced { Ok(()) } else { Err(Stop::Reported(Exit::TimedOut)) }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 5: not everything was finished in time; the answer says what. The vertex goes on finishing it.

Examples:
  tidegate vertex drain
  tidegate vertex drain --timeout 1m --exit -c orders.toml
  tidegate vertex drain --partition 3 --everywhere -c orders.toml")]
pub(crate) struct Drain {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    reach: Reach,
    /// One partition [default: every one]
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
    /// End the vertex when it is drained
    #[arg(long, conflicts_with = "partition")]
    #[cfg_attr(feature = "nats", arg(conflicts_with = "everywhere"))]
    exit: bool,
}

impl Drain {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        #[cfg(feature = "nats")]
        if self.reach.everywhere {
            return group::drain(&self.at.group()?, self.partition, self.timeout, output);
        }
        let socket = self.at.socket()?;
        let body = order(self.partition, self.timeout);
        let answer = ask(&socket, "POST", "/drain", &body.into(), self.timeout)?;
        let drained = answer["drained"] == true;
        if self.exit && drained {
            // It may be gone before it has answered.
            let _ = ask(&socket, "POST", "/drain", &json!({ "exit": true, "wait_ms": 0 }), SOON);
        }
        output.result(|| show::rest(&answer, "drained"), || answer.clone())?;
        if drained { Ok(()) } else { Err(Stop::Reported(Exit::TimedOut)) }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 5: not everything was finished in time. The vertex stays paused.

Example:
  tidegate vertex pause --partition 3")]
pub(crate) struct Pause {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    reach: Reach,
    /// One partition [default: every one]
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// How long to wait for what was read to be finished
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    timeout: Duration,
}

impl Pause {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        #[cfg(feature = "nats")]
        if self.reach.everywhere {
            return group::order(&self.at.group()?, self.partition, Order::Pause, "", output);
        }
        let answer = self.at.post("/pause", &order(self.partition, self.timeout).into(), self.timeout)?;
        output.result(|| show::rest(&answer, "paused"), || answer.clone())?;
        if answer["paused"] == true { Ok(()) } else { Err(Stop::Reported(Exit::TimedOut)) }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tidegate vertex resume --partition 3")]
pub(crate) struct Resume {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    reach: Reach,
    /// One partition [default: every one]
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
}

impl Resume {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        #[cfg(feature = "nats")]
        if self.reach.everywhere {
            return group::order(&self.at.group()?, self.partition, Order::Run, "", output);
        }
        let answer = self.at.post("/resume", &order(self.partition, SOON).into(), SOON)?;
        output.result(|| "reads on".to_owned(), || answer.clone())
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tidegate vertex log-level debug")]
pub(crate) struct LogLevel {
    /// The least important lines: error, warn, info, debug or trace
    level: String,
    #[command(flatten)]
    at: At,
}

impl LogLevel {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let answer = self.at.post("/log-level", &json!({ "level": self.level }), SOON)?;
        output.result(|| format!("logs {}", self.level), || answer.clone())
    }
}

fn order(partition: Option<u32>, wait: Duration) -> Map<String, Value> {
    let mut order = Map::new();
    if let Some(partition) = partition {
        order.insert("partition".to_owned(), partition.into());
    }
    order.insert("wait_ms".to_owned(), u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).into());
    order
}

/// Time for an answer that waits for nothing.
const SOON: Duration = Duration::from_secs(5);
