//! `tidegate hub ...`: data blocks, and the broker that says where they are.

mod broker;
mod connection;
mod discover;
mod error;

use clap::Subcommand;

use crate::output::{Output, Stop};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
A broker runs in every node (`tidegate up`), or by itself. Commands find that of the node in $TIDEGATE_DIR, then that of \
`tidegate hub broker run`; --endpoint names another one.

Examples:
  tidegate hub broker list
  tidegate hub discover sensor_temperature --json")]
pub(crate) enum Command {
    /// The broker: which producer owns which channel, and where its block is
    #[command(subcommand)]
    Broker(broker::Command),
    /// Ask where the block of a channel is
    #[command(after_help = "\
With --json: one object with what the broker knows of the block. It is a hint: whoever attaches checks the block itself.

Examples:
  tidegate hub discover sensor_temperature
  tidegate hub discover sensor_temperature --wait 10s --json")]
    Discover(discover::Discover),
}

pub(crate) fn run(command: Command, output: &mut Output) -> Result<(), Stop> {
    match command {
        Command::Broker(command) => broker::run(command, output),
        Command::Discover(command) => command.run(output),
    }
}

/// Channels of a broker as a table: for `tidegate hub broker list` and `tidegate ls`.
pub(crate) use broker::{channel_json, channels_text};
/// The broker of a node, asked shortly.
pub(crate) use connection::ask_broker_of;
