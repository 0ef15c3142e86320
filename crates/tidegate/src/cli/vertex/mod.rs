//! `tidegate vertex ...`: a source, a user function in another process, a sink (chapter 18 of the sheet).

mod admin;
#[cfg(feature = "zmq")]
mod bench;
mod error;
#[cfg(feature = "nats")]
mod group;
mod inspect;
mod link;
mod run;
mod show;
mod test;

use clap::Subcommand;

use crate::output::{Exit, Output, Stop, VertexExit};

#[derive(Debug, Subcommand)]
#[command(
    disable_help_subcommand = true,
    after_help = "\
Exit codes: 0 done, 64 wrong usage, 65 invalid pipeline file, 69 the worker, a file or the running vertex is not there, 70 \
failed, 73 the ledger cannot be used, 75 fenced, 76 a worker broke the protocol, 77 the worker's schema does not match, 78 the ledger does not keep up. \
status, fence, drain, pause, resume and log-level also have 3 no such partition, 4 refused and 5 not done in time.

Examples:
  tidegate vertex validate -c orders.toml --init
  tidegate vertex run -c orders.toml
  tidegate vertex status --watch
  tidegate vertex fence --all
  tidegate vertex drain --exit
  tidegate vertex udf-test --udf ./enrich --in orders.ndjson"
)]
pub(crate) enum Command {
    /// Run a pipeline in the foreground until its source has no more, or until SIGTERM
    Run(run::Run),
    /// Check a pipeline file and say what it promises
    Validate(run::Validate),
    /// Show what a running vertex is doing
    Status(admin::Status),
    /// Take the right to write away from a running vertex, now; nothing is finished or committed
    Fence(admin::Fence),
    /// Stop reading, finish and commit what was read, give the partitions away
    Drain(admin::Drain),
    /// Stop reading and finish what was read, until `resume`
    Pause(admin::Pause),
    /// Read on after a pause
    Resume(admin::Resume),
    /// Change how much a running vertex writes to its log
    LogLevel(admin::LogLevel),
    /// Show which vertex has which partition of a pipeline that several hosts share
    #[cfg(feature = "nats")]
    Group(group::Group),
    /// Print what a ledger has; its vertex must not be running
    Inspect(inspect::Inspect),
    /// Run a function over the lines of a file, over the real transport, without source, sink or server
    UdfTest(test::UdfTest),
    /// Measure the transport beside gRPC over a Unix socket
    #[cfg(feature = "zmq")]
    Bench(bench::Bench),
    /// One end of a measurement
    #[cfg(feature = "zmq")]
    #[command(hide = true)]
    BenchPeer(bench::Peer),
}

pub(crate) fn run(command: Command, output: &mut Output) -> Result<(), Stop> {
    let done = match command {
        Command::Run(command) => command.run(output),
        Command::Validate(command) => command.run(output),
        Command::Status(command) => command.run(output),
        Command::Fence(command) => command.run(output),
        Command::Drain(command) => command.run(output),
        Command::Pause(command) => command.run(output),
        Command::Resume(command) => command.run(output),
        Command::LogLevel(command) => command.run(output),
        #[cfg(feature = "nats")]
        Command::Group(command) => command.run(output),
        Command::Inspect(command) => command.run(output),
        Command::UdfTest(command) => command.run(output),
        #[cfg(feature = "zmq")]
        Command::Bench(command) => command.run(output),
        #[cfg(feature = "zmq")]
        Command::BenchPeer(command) => command.run(),
    };
    done.map_err(|stop| match stop {
        Stop::Error { exit: Exit::Usage, code, message } => {
            Stop::Error { exit: Exit::Vertex(VertexExit::Usage), code, message }
        }
        other => other,
    })
}
