//! `tidegate vertex run` and `validate`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tidegate::operations::{Operations, OperationsError, Served};
use tidegate::vertex::config::{
    Delivery, KEYS, LogFormat, LogLevel, Pipeline, STREAM_KEYS, SinkConfig, SinkKind, fresh_uid, with_uid,
};
use tidegate::vertex::ledger::take_over;
use tidegate::vertex::operate::status::SinkStatus;
use tidegate::vertex::operate::{Control, Which, Wish};
use tidegate::vertex::run::{Report, Vertex, memory};
use tidegate::vertex::sink::Class;
use tidegate::vertex::source::Replay;

use super::super::logging;
use super::super::signal::Signals;
use super::super::text;
use super::admin::socket_of;
use super::link::link;
use crate::output::{Exit, Output, Stop, VertexExit, exit_of_io};

#[derive(Debug, Args)]
#[command(after_help = "\
The first SIGTERM or SIGINT ends reading; what was read is finished and committed within admin.shutdown_grace. The second, or \
the end of that time, takes the right to write away and ends the process with 75.

Examples:
  tidegate vertex run -c orders.toml
  tidegate vertex run -c orders.toml --set udf.workers=4 --set log.level=debug
  tidegate vertex run -c logs.toml --until-eof")]
pub(crate) struct Run {
    /// The pipeline file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Use another value for a key of the file; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Kill the process that has the ledger and does not let it go, if it is this program
    #[arg(long)]
    takeover: bool,
    /// Go on although the ownership store knows less than this host: it was restored or made anew
    #[arg(long)]
    accept_regression: bool,
    /// Have only these partitions, numbers and ranges like 0-3,7
    #[arg(long, value_name = "LIST")]
    partitions: Option<String>,
    /// Make a ledger anew that was there and is gone: everything is read again
    #[arg(long)]
    new_ledger: bool,
    /// End when everything was read that the source has now, instead of waiting for more
    #[arg(long)]
    until_eof: bool,
}

impl Run {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let mut pipeline = Pipeline::read_with(&self.config, &self.set)?;
        (pipeline.accept_regression, pipeline.new_ledger) = (self.accept_regression, self.new_ledger);
        if let Some(partitions) = &self.partitions {
            pipeline.only(partitions).map_err(|error| Stop::usage(error.to_string()))?;
        }
        logging::set_pipeline(&pipeline.pipeline.name);
        if self.until_eof {
            pipeline.end_at_eof()?;
        }
        if pipeline.log.format == LogFormat::Json {
            logging::set_json();
        }
        if let Some(level) = pipeline.log.level {
            logging::set_level(level_name(level)).map_err(Stop::usage)?;
        }
        if self.takeover
            && let Some(ledger) = &pipeline.ledger
        {
            take_over(&ledger.path)?;
        }
        execute(pipeline, true, output)
    }
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

/// Runs a vertex to its end and says what became of its inputs. One that is `operated` has an admin socket.
pub(super) fn execute(mut pipeline: Pipeline, operated: bool, output: &mut Output) -> Result<(), Stop> {
    link(&mut pipeline)?;
    let to_stdout = pipeline.sink.iter().any(|sink| matches!(sink.kind, SinkKind::Stdout {}));
    let signals = Signals::install()?;
    let grace = pipeline.admin.shutdown_grace.0.into();
    let settings = pipeline.clone();
    let vertex = Vertex::start(pipeline)?;
    let control = vertex.control();
    let operations = if operated { Some(operate(&control, &settings)?) } else { None };
    // Lives as long as the process: there is nothing to join it for.
    let stopping = control.clone();
    let watching = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || stop_on_signals(&signals, &stopping, grace));
    watching.map_err(|error| Stop::Error {
        exit: Exit::Failed,
        code: "io",
        message: format!("cannot start a thread for signals: {error}"),
    })?;
    let ended = vertex.run();
    drop(operations);
    let report = ended?;
    let (text, value) = (|| in_words(&report), || as_json(&report));
    if to_stdout {
        // Records have standard output for themselves.
        let line = if output.json() { value().to_string() } else { text() };
        let _ = writeln!(io::stderr(), "{line}");
    } else {
        output.result(text, value)?;
    }
    match (report.stopped.is_empty(), report.fenced.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(Stop::Reported(Exit::Vertex(VertexExit::Fenced))),
        (false, _) => Err(Stop::Reported(Exit::Vertex(VertexExit::Failed))),
    }
}

/// Serves the admin socket and the metrics of a vertex.
fn operate(control: &Control, pipeline: &Pipeline) -> Result<Operations, Stop> {
    let sinks = pipeline.sink.iter().map(|sink| SinkStatus {
        sink: sink.name().to_owned(),
        class: format!("{:?}", sink.class()),
        guarantee: promise(pipeline, sink).to_owned(),
        ..SinkStatus::default()
    });
    let sinks: Vec<SinkStatus> = sinks.collect();
    for SinkStatus { sink, class, guarantee, .. } in &sinks {
        tracing::info!(sink, class, guarantee, "what is promised");
    }
    let served = Served {
        socket: Some(socket_of(pipeline)),
        own_dir: pipeline.admin.socket.is_none(),
        metrics: pipeline.metrics.listen,
        sinks,
        set_level: Arc::new(|level: &str| logging::set_level(level)),
    };
    let started = match Operations::start(control, served.clone()) {
        // Nobody asked for the socket at the usual place, and the vertex does its work without it.
        Err(error @ (OperationsError::Socket { .. } | OperationsError::Taken { .. }))
            if pipeline.admin.socket.is_none() =>
        {
            tracing::warn!(%error, "there is no admin socket");
            Operations::start(control, Served { socket: None, ..served })
        }
        started => started,
    };
    let operations = started?;
    if let Some(socket) = operations.socket() {
        tracing::info!(socket = %socket.display(), "the admin socket");
    }
    if let Some(address) = operations.metrics() {
        tracing::info!(%address, "metrics");
    }
    Ok(operations)
}

/// The first signal lets the vertex finish what it has read; the second, or too long a time, takes its right to write.
fn stop_on_signals(signals: &Signals, control: &Control, grace: Duration) {
    if !signals.wait(None) {
        return;
    }
    // There are these partitions.
    let _ = control.wish(Which::All, Wish::Drain);
    control.end_when_drained();
    let reason = if signals.wait(Some(grace)) { "another signal" } else { "admin.shutdown_grace is over" };
    tracing::warn!(reason, "what was read is not finished; it is read again by the next run");
    let _ = control.fence(Which::All, LAST_WRITES);
    // The thread that runs the vertex ends the process, unless it is stuck.
    std::thread::sleep(LAST_WRITES);
    std::process::exit(VertexExit::Fenced as i32);
}

/// How long writes that have begun, and then the process, may take to end.
const LAST_WRITES: Duration = Duration::from_secs(2);

fn in_words(report: &Report) -> String {
    let mut text = format!(
        "{} read: {} delivered as {} outputs, {} filtered, {} left out, {} not finished",
        report.read, report.delivered, report.outputs, report.filtered, report.dropped, report.returned
    );
    if report.dead > 0 {
        text.push_str(&format!(", {} in the dead letters", report.dead));
    }
    if report.nacked > 0 {
        text.push_str(&format!(", {} given back to the source", report.nacked));
    }
    if report.left_out > 0 {
        text.push_str(&format!("; {} that came were no records of the source", report.left_out));
    }
    if report.lost > 0 {
        text.push_str(&format!("; {} outputs lost to sinks that are not required", report.lost));
    }
    if report.restarts > 0 {
        text.push_str(&format!("; {} workers died and were started again", report.restarts));
    }
    for (name, count) in &report.counters {
        text.push_str(&format!("\ncounted {name}: {count}"));
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
        "left_out": report.left_out,
        "delivered": report.delivered,
        "outputs": report.outputs,
        "filtered": report.filtered,
        "dead": report.dead,
        "dropped": report.dropped,
        "nacked": report.nacked,
        "returned": report.returned,
        "refused": report.refused,
        "lost": report.lost,
        "redone": report.redone,
        "stale": report.stale,
        "restarts": report.restarts,
        "counters": report.counters,
        "stopped": stopped,
    })
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate vertex validate -c orders.toml
  tidegate vertex validate -c orders.toml --init
  tidegate vertex validate --explain")]
pub(crate) struct Validate {
    /// The pipeline file
    #[arg(short, long, value_name = "FILE", required_unless_present = "explain")]
    config: Option<PathBuf>,
    /// Print every key that has a default
    #[arg(long)]
    explain: bool,
    /// Give the pipeline a uid, which is a part of what it writes, if it has none
    #[arg(long)]
    init: bool,
}

impl Validate {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        if self.explain {
            explain(output)?;
        }
        let Some(config) = &self.config else { return Ok(()) };
        if self.init {
            init(config, output)?;
        }
        let pipeline = Pipeline::read(config)?;
        let schemas = pipeline.typing()?.status();
        let terms = memory(&pipeline, pipeline.source.partitions());
        let bound: u64 = terms.iter().map(|term| term.bound).sum();
        let promises: Vec<_> =
            pipeline.sink.iter().map(|sink| (sink.name(), sink.class(), promise(&pipeline, sink))).collect();
        output.result(
            || {
                let parts: Vec<String> =
                    terms.iter().map(|term| format!("{} {}", term.term, text::bytes(term.bound))).collect();
                let mut text = format!(
                    "{}: valid; at most {} of memory\nmemory: {}",
                    pipeline.pipeline.name,
                    text::bytes(bound),
                    parts.join(", ")
                );
                text.push_str(&format!("\nworkers: {}", origin(&pipeline)));
                if schemas.is_typed() {
                    text.push_str(&format!("\nschemas: {schemas}"));
                }
                text.push_str(&format!("\nsource {}: {}", pipeline.source.kind(), pipeline.source.promise()));
                for (name, _, promise) in &promises {
                    text.push_str(&format!("\nsink {name}: {promise}"));
                }
                text
            },
            || {
                let sinks: Vec<Value> = promises
                    .iter()
                    .map(|(name, class, promise)| json!({ "name": name, "class": format!("{class:?}"), "guarantee": promise }))
                    .collect();
                let parts: Vec<Value> =
                    terms.iter().map(|term| json!({ "term": term.term, "bound": term.bound })).collect();
                let source = json!({ "kind": pipeline.source.kind(), "guarantee": pipeline.source.promise() });
                json!({
                    "pipeline": pipeline.pipeline.name,
                    "memory_bytes": bound,
                    "memory": parts,
                    "workers": { "count": pipeline.udf.workers, "listen": pipeline.udf.listen },
                    "schemas": schemas,
                    "source": source,
                    "sinks": sinks,
                })
            },
        )
    }
}

/// Where the workers come from.
fn origin(pipeline: &Pipeline) -> String {
    let workers = pipeline.udf.workers;
    let Some(listen) = &pipeline.udf.listen else {
        return format!("{workers}, started by the vertex");
    };
    let socket = listen.display();
    format!(
        "{workers}, started by somebody else with TIDEGATE_VX_SOCKET={socket}; until then nothing is processed"
    )
}

/// All keys with their defaults.
fn explain(output: &mut Output) -> Result<(), Stop> {
    let line = |key: &tidegate::vertex::config::Key| {
        let default = if key.default.is_empty() { String::new() } else { format!(" = {}", key.default) };
        format!("{}{default}\n    {}", key.name, key.meaning)
    };
    output.result(
        || KEYS.iter().chain(STREAM_KEYS).map(line).collect::<Vec<_>>().join("\n"),
        || {
            let keys = KEYS
                .iter()
                .chain(STREAM_KEYS)
                .map(|key| json!({ "key": key.name, "default": key.default, "meaning": key.meaning }));
            json!({ "keys": keys.collect::<Vec<_>>() })
        },
    )
}

/// Writes a uid into a pipeline file that has none.
fn init(config: &std::path::Path, output: &mut Output) -> Result<(), Stop> {
    let failed = |action: &str, error: io::Error| {
        let (exit, code) = exit_of_io(&error);
        Stop::Error { exit, code, message: format!("cannot {action} {}: {error}", config.display()) }
    };
    let text = std::fs::read_to_string(config).map_err(|error| failed("read", error))?;
    let uid = fresh_uid().map_err(|error| Stop::Error {
        exit: Exit::Failed,
        code: "io",
        message: error.to_string(),
    })?;
    let Some(text) = with_uid(&text, &uid) else { return Ok(()) };
    // Whole or not at all.
    let new = config.with_extension("toml.new");
    std::fs::write(&new, text).map_err(|error| failed("write", error))?;
    std::fs::rename(&new, config).map_err(|error| failed("replace", error))?;
    output.result(|| format!("uid {uid}"), || json!({ "uid": uid }))
}

/// What a sink is promised (VX-002).
fn promise(pipeline: &Pipeline, sink: &SinkConfig) -> &'static str {
    if !sink.required {
        return "what it takes in time: nothing waits for it (required = false), and what it does not get is counted as lost; after a \
                crash of the vertex some of it may be there twice";
    }
    if matches!(sink.kind, SinkKind::Tensor(_)) {
        return lossy(pipeline.pipeline.delivery);
    }
    match (pipeline.pipeline.delivery, sink.class()) {
        (Delivery::AtMostOnce, _) => {
            "at most once; what a crash of the vertex interrupts is not processed again"
        }
        (Delivery::EffectivelyOnce, Class::A) if is_local(sink) && pipeline.ownership.is_shared() => {
            "every input has its effect once (class A) if all hosts write to one and the same directory; between directories \
             of their own nothing keeps an older owner from writing"
        }
        (Delivery::EffectivelyOnce, Class::A) => {
            "every input has its effect once (class A): epochs become visible whole, and an older session of the vertex cannot \
             write after a newer one has begun"
        }
        (Delivery::EffectivelyOnce, Class::B) => {
            "every input has its effect once for as long as the receiver remembers output ids (class B)"
        }
        (Delivery::EffectivelyOnce, Class::C) => {
            "at least once (class C): after a crash of the vertex outputs of one epoch may be there twice"
        }
        (Delivery::AtLeastOnce, _) => at_least_once(pipeline, sink),
    }
}

/// What a stream is promised, which never waits for its readers.
fn lossy(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::AtMostOnce => {
            "at most once; what a crash of the vertex interrupts is not processed again, and a reader that is too slow loses \
             frames, which it counts"
        }
        _ => {
            "published at least once (class C): after a crash of the vertex frames since the last commit are published again; a \
             reader that is too slow loses frames, which it counts"
        }
    }
}

/// Whether what it writes is on this host.
fn is_local(sink: &SinkConfig) -> bool {
    matches!(sink.kind, SinkKind::File { .. })
}

fn at_least_once(pipeline: &Pipeline, sink: &SinkConfig) -> &'static str {
    match (&pipeline.ledger, &sink.kind) {
        _ if pipeline.source.abilities().replay == Replay::Redelivered => {
            "at least once; after a crash of the vertex what was not acknowledged is written again, with the same output ids"
        }
        (None, _) => {
            "at least once while the vertex runs, whatever its workers do; a vertex that is started again reads from the \
             beginning, since there is no [ledger]"
        }
        // What waits for another sink, or is of another partition, is in the file before it is committed.
        (Some(_), _)
            if is_local(sink)
                && !pipeline.ownership.is_shared()
                && pipeline.is_ordered()
                && pipeline.sink.len() == 1 =>
        {
            "at least once; a vertex that is started again on this host cuts the file back to its last commit, so nothing is in \
             it twice if the source has one partition"
        }
        (Some(_), _) => {
            "at least once; after a crash of the vertex what was written since the last commit is written again"
        }
    }
}
