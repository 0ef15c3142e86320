//! `tidegate vertex run` and `validate`.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::{Value, json};
use tidegate::vertex::config::{Pipeline, SinkConfig, SinkKind};
use tidegate::vertex::run::{Report, Vertex};

use super::super::signal::Interrupt;
use crate::output::{Exit, Output, Stop, VertexExit};

#[derive(Debug, Args)]
#[command(after_help = "\
The first SIGTERM or SIGINT ends reading; what has been read is finished. The second ends the process.

Example:
  tidegate vertex run -c orders.toml")]
pub(crate) struct Run {
    /// The pipeline file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

impl Run {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        execute(Pipeline::read(&self.config)?, output)
    }
}

/// Runs a vertex to its end and says what became of its inputs.
pub(super) fn execute(pipeline: Pipeline, output: &mut Output) -> Result<(), Stop> {
    let to_stdout = pipeline.sink.iter().any(|sink| matches!(sink.kind, SinkKind::Stdout {}));
    let interrupt = Interrupt::install()?;
    let vertex = Vertex::start(pipeline)?;
    let stop = vertex.stop_handle();
    // Lives as long as the process: there is nothing to join it for.
    let watching = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut fds = [PollFd::from_borrowed_fd(interrupt.as_fd(), PollFlags::IN)];
        while poll(&mut fds, None) == Err(Errno::INTR) {}
        stop.drain();
    });
    watching.map_err(|error| Stop::Error {
        exit: Exit::Failed,
        code: "io",
        message: format!("cannot start a thread for signals: {error}"),
    })?;
    let report = vertex.run()?;
    let (text, value) = (|| in_words(&report), || as_json(&report));
    if to_stdout {
        // Records have standard output for themselves.
        let line = if output.json() { value().to_string() } else { text() };
        let _ = writeln!(io::stderr(), "{line}");
    } else {
        output.result(text, value)?;
    }
    if report.stopped.is_empty() { Ok(()) } else { Err(Stop::Reported(Exit::Vertex(VertexExit::Failed))) }
}

fn in_words(report: &Report) -> String {
    let mut text = format!(
        "{} read: {} delivered as {} outputs, {} filtered, {} left out, {} not finished",
        report.read,
        report.delivered,
        report.outputs,
        report.filtered,
        report.dropped,
        report.returned()
    );
    if report.restarts > 0 {
        text.push_str(&format!("; {} workers died and were started again", report.restarts));
    }
    for (partition, position, reason) in &report.stopped {
        text.push_str(&format!("\npartition {partition} stopped at position {position}: {reason}"));
    }
    text
}

fn as_json(report: &Report) -> Value {
    let stopped: Vec<Value> = report
        .stopped
        .iter()
        .map(|(partition, position, reason)| {
            json!({ "partition": partition, "position": position, "reason": reason })
        })
        .collect();
    json!({
        "read": report.read,
        "delivered": report.delivered,
        "outputs": report.outputs,
        "filtered": report.filtered,
        "dropped": report.dropped,
        "returned": report.returned(),
        "stale": report.stale,
        "restarts": report.restarts,
        "stopped": stopped,
    })
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tidegate vertex validate -c orders.toml")]
pub(crate) struct Validate {
    /// The pipeline file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

impl Validate {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let pipeline = Pipeline::read(&self.config)?;
        let transport = pipeline.transport();
        let memory =
            2 * transport.ring * u64::from(pipeline.udf.workers.get()) + pipeline.limits.epoch_buffers.0;
        let promises: Vec<(&str, &str)> =
            pipeline.sink.iter().map(|sink| (sink.name(), promise(&pipeline, sink))).collect();
        output.result(
            || {
                let mut text = format!(
                    "{}: valid; at most {} MiB of rings and answers",
                    pipeline.pipeline.name,
                    memory >> 20
                );
                for (name, promise) in &promises {
                    text.push_str(&format!("\nsink {name}: {promise}"));
                }
                text
            },
            || {
                let sinks: Vec<Value> = promises
                    .iter()
                    .map(|(name, promise)| json!({ "name": name, "class": "C", "guarantee": promise }))
                    .collect();
                json!({ "pipeline": pipeline.pipeline.name, "memory_bytes": memory, "sinks": sinks })
            },
        )
    }
}

/// What a sink is promised (VX-002).
fn promise(pipeline: &Pipeline, sink: &SinkConfig) -> &'static str {
    match (&pipeline.ledger, &sink.kind) {
        (None, _) => {
            "at least once while the vertex runs, whatever its workers do; a vertex that is started again reads from the \
             beginning, since there is no [ledger]"
        }
        (Some(_), SinkKind::File { .. }) => {
            "at least once; a vertex that is started again on this host cuts the file back to its last commit, so nothing is in \
             it twice"
        }
        (Some(_), _) => {
            "at least once; after a crash of the vertex what was written since the last commit is written again"
        }
    }
}
