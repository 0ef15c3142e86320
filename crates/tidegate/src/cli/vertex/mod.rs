//! `tidegate vertex ...`: a source, a user function in another process, a sink (chapter 18 of the sheet).

#[cfg(feature = "zmq")]
mod bench;
mod error;
mod run;
mod test;

use clap::Subcommand;

use crate::output::{Output, Stop};

#[derive(Debug, Subcommand)]
#[command(
    disable_help_subcommand = true,
    after_help = "\
Exit codes of run: 0 done, 64 wrong usage, 65 invalid pipeline file, 69 the worker or a file is missing at the start, 70 \
failed, 73 the ledger cannot be used, 75 fenced, 76 a worker broke the protocol, 77 the worker's schema does not match.

Examples:
  tidegate vertex validate -c orders.toml
  tidegate vertex run -c orders.toml
  tidegate vertex udf-test --udf ./enrich --in orders.ndjson"
)]
pub(crate) enum Command {
    /// Run a pipeline in the foreground until its source has no more, or until SIGTERM
    Run(run::Run),
    /// Check a pipeline file and say what it promises
    Validate(run::Validate),
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
    match command {
        Command::Run(command) => command.run(output),
        Command::Validate(command) => command.run(output),
        Command::UdfTest(command) => command.run(output),
        #[cfg(feature = "zmq")]
        Command::Bench(command) => command.run(output),
        #[cfg(feature = "zmq")]
        Command::BenchPeer(command) => command.run(),
    }
}
