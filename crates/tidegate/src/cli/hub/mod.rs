//! `tidegate hub ...`: data blocks, and the records in them.

mod faults;
mod input;
mod place;
mod publish;
mod schema;
mod subscribe;

use clap::Subcommand;

use crate::output::{Output, Stop};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  tidegate hub pub load --schema load.tds1 --input -
  tidegate hub sub load --start oldest --json")]
pub(crate) enum Command {
    /// Publish the lines of a file or pipe as records of a channel
    Pub(publish::Publish),
    /// Print the records of a channel
    Sub(subscribe::Subscribe),
}

pub(crate) fn run(command: Command, output: &mut Output) -> Result<(), Stop> {
    match command {
        Command::Pub(command) => command.run(output),
        Command::Sub(command) => command.run(output),
    }
}
