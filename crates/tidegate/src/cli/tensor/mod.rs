//! `tidegate tensor ...`

mod bench;
mod config;
mod decode;
mod driver;
mod inspect;
mod lease;
mod list;
mod listen;
mod padding;
mod publish;
mod subscribe;
mod wire;

use clap::Subcommand;

pub(crate) use self::bench::{BENCH_PREFIX, BenchPlace};

use crate::output::{Output, Stop};

#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidegate tensor config dump")]
pub(crate) enum Command {
    /// Publish frames from a file or a pipe
    Pub(publish::Publish),
    /// Receive frames: print them, or write them to a file
    Sub(subscribe::Subscribe),
    /// Measure latency and rate, beside references
    Bench(bench::Bench),
    /// A process of a measurement
    #[command(hide = true)]
    BenchWorker(bench::Worker),
    /// List the streams of the node
    Ls(list::List),
    /// Show what is in shared memory, and whether it is valid
    Inspect(inspect::Inspect),
    /// Print the messages of the control plane as they come
    Listen(listen::Listen),
    /// Ask the driver for a lease by hand
    Attach(lease::Attach),
    /// Send one keepalive for a lease by hand
    Keepalive(lease::Keepalive),
    /// Give a lease back by hand
    Detach(lease::Detach),
    /// Command the tensor driver
    #[command(subcommand)]
    Driver(driver::Command),
    /// Explain control messages given as hexadecimal digits
    Decode(decode::Decode),
    /// Check or show the configuration of a driver
    #[command(subcommand)]
    Config(config::Command),
}

pub(crate) fn run(command: Command, output: &mut Output) -> Result<(), Stop> {
    match command {
        Command::Pub(command) => command.run(output),
        Command::Sub(command) => command.run(output),
        Command::Bench(command) => command.run(output),
        Command::BenchWorker(command) => command.run(),
        Command::Ls(command) => command.run(output),
        Command::Inspect(command) => command.run(output),
        Command::Listen(command) => command.run(output),
        Command::Attach(command) => command.run(output),
        Command::Keepalive(command) => command.run(output),
        Command::Detach(command) => command.run(output),
        Command::Driver(command) => command.run(output),
        Command::Decode(command) => command.run(output),
        Command::Config(command) => command.run(output),
    }
}

/// A driver's configuration in a file, as every command reads it.
pub(crate) fn config_source(path: &std::path::Path) -> config::Source {
    config::Source::file(path)
}
