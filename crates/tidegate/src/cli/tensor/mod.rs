//! `tidegate tensor ...`

mod config;
mod decode;

use clap::Subcommand;

use crate::output::{Output, Stop};

#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  tidegate tensor config dump")]
pub(crate) enum Command {
    /// Explain control messages given as hexadecimal digits
    Decode(decode::Decode),
    /// Check or show the configuration of a driver
    #[command(subcommand)]
    Config(config::Command),
}

pub(crate) fn run(command: Command, output: &mut Output) -> Result<(), Stop> {
    match command {
        Command::Decode(command) => command.run(output),
        Command::Config(command) => command.run(output),
    }
}
