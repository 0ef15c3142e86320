//! `tidegate hub ...`: data blocks, the records in them, and the broker that says where they are (chapter 19 of the sheet).

mod audit;
mod bench;
mod block;
mod broker;
mod connection;
mod diagnose;
mod discover;
mod error;
mod faults;
mod format;
mod input;
mod list;
mod metrics;
mod place;
mod procedures;
mod publish;
mod readers;
mod recover;
mod schema;
mod schemas;
mod secret;
mod size;
mod status;
mod subscribe;
mod validate;

use clap::Subcommand;

use crate::output::{Output, Stop};

#[derive(Debug, Subcommand)]
#[command(
    disable_help_subcommand = true,
    after_help = "\
A broker runs in every node (`tidegate up`), or by itself. Commands find that of the node in $TIDEGATE_DIR, then that of \
`tidegate hub broker run`; --endpoint names another one.

A block is named by its file, as --shm-name NAME or without, or by --channel CH: the block that the broker knows, else the one \
that the channel has here.

Exit codes: 0 done or healthy, 1 failed, 2 wrong usage, 3 problems found (also by a dry run that would act), 4 refused as \
unsafe, 5 not found, 6 permission, 7 damaged or of another version. pub and sub end as the commands of other parts do: 3 not \
found, 4 refused, 5 timed out.

Examples:
  tidegate hub pub load --schema load.tds1 --input -
  tidegate hub sub load --start oldest --json
  tidegate hub broker list
  tidegate hub discover sensor_temperature --json
  tidegate hub list
  tidegate hub status --channel camera
  tidegate hub diagnose tidegate_camera_front_1b77e02d
  tidegate hub help recovery"
)]
pub(crate) enum Command {
    /// Publish the lines of a file or pipe as records of a channel
    Pub(publish::Publish),
    /// Print the records of a channel
    Sub(subscribe::Subscribe),
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
    /// All blocks on this host
    List(list::List),
    /// What the records of a channel are
    #[command(subcommand)]
    Schema(schemas::Command),
    /// Key files of channels
    #[command(subcommand)]
    Secret(secret::Command),
    /// The state of a block on one page
    Status(status::Status),
    /// What a block counts, and whether it is healthy
    Inspect(status::Inspect),
    /// All counters, or setting them to 0
    Metrics(metrics::Metrics),
    /// Follow a block with its rates
    #[command(alias = "top")]
    Watch(metrics::Watch),
    /// Serve the counters of all blocks to Prometheus
    Export(metrics::Export),
    /// Slots, owners, heartbeats, and what is wrong
    Diagnose(diagnose::Diagnose),
    /// Whether everything in a block is as it must be
    Validate(validate::Validate),
    /// Who reads or holds back what
    ShowReaders(readers::ShowReaders),
    /// Spinlocks, the writer, the maintenance lock
    ListLocks(readers::ListLocks),
    /// What was repaired or forced
    Audit(audit::Audit),
    /// Undo what a dead writer left in a slot, or throw its value away
    #[command(alias = "force-reset-slot")]
    ResetSlot(recover::ResetSlot),
    /// The same for all slots
    #[command(alias = "force-reset-all")]
    ResetAll(recover::ResetAll),
    /// Remove what dead processes hold
    ReleaseZombies(recover::ReleaseZombies),
    /// Show heartbeats, remove dead consumers
    CleanupHeartbeats(recover::CleanupHeartbeats),
    /// Take from a live consumer what it holds back
    Evict(recover::Evict),
    /// Do all repairs that are proven to be safe
    #[command(alias = "recover")]
    AutoRecover(recover::AutoRecover),
    /// Free the spinlocks of dead processes
    ForceUnlockAll(recover::ForceUnlockAll),
    /// Remove the name of a block
    #[command(alias = "cleanup")]
    ForceUnlink(recover::ForceUnlink),
    /// Remove all blocks whose processes are dead
    Reclaim(recover::Reclaim),
    /// How many slots a ring needs, and how much memory that is
    #[command(alias = "plan")]
    Size(size::Size),
    /// Measure round trips, rates, waiting, digests and readers, beside iceoryx2, Aeron and bare memory
    #[command(after_help = "\
Each program sends and receives in two processes of its own; the programs take turns. Aeron and bare shared memory are in
this program, iceoryx2 is in benches/hub/iceoryx2 (`make bench-hub` builds it). Nothing else should run meanwhile.

With --json: one object per measurement and program, one per minimum, and a last one {\"summary\":true,...}.
docs/benchmarks.md explains them. Exit code 1 when something could not be measured, or got worse than --baseline.

Examples:
  tidegate hub bench --quick
  tidegate hub bench --only trip,one-way --sizes 64,4k --json > before.json
  tidegate hub bench --only trip,one-way --sizes 64,4k --baseline before.json
  tidegate hub bench --peer iceoryx2=target/iceoryx2/release/iceoryx2-peer")]
    Bench(bench::Bench),
    /// An end of a measurement
    #[command(hide = true)]
    BenchPeer(bench::Peer),
    /// Procedures for when something went wrong
    Help(procedures::Help),
}

pub(crate) fn run(command: Command, output: &mut Output) -> Result<(), Stop> {
    match command {
        Command::Pub(command) => command.run(output),
        Command::Sub(command) => command.run(output),
        Command::Broker(command) => broker::run(command, output),
        Command::Discover(command) => command.run(output),
        Command::List(command) => command.run(output),
        Command::Schema(command) => schemas::run(command, output),
        Command::Secret(command) => secret::run(command, output),
        Command::Status(command) => command.run(output),
        Command::Inspect(command) => command.run(output),
        Command::Metrics(command) => command.run(output),
        Command::Watch(command) => command.run(output),
        Command::Export(command) => command.run(output),
        Command::Diagnose(command) => command.run(output),
        Command::Validate(command) => command.run(output),
        Command::ShowReaders(command) => command.run(output),
        Command::ListLocks(command) => command.run(output),
        Command::Audit(command) => command.run(output),
        Command::ResetSlot(command) => command.run(output),
        Command::ResetAll(command) => command.run(output),
        Command::ReleaseZombies(command) => command.run(output),
        Command::CleanupHeartbeats(command) => command.run(output),
        Command::Evict(command) => command.run(output),
        Command::AutoRecover(command) => command.run(output),
        Command::ForceUnlockAll(command) => command.run(output),
        Command::ForceUnlink(command) => command.run(output),
        Command::Reclaim(command) => command.run(output),
        Command::Size(command) => command.run(output),
        Command::Bench(command) => command.run(output),
        Command::BenchPeer(command) => command.run(),
        Command::Help(command) => command.run(output),
    }
}

/// Channels of a broker as a table: for `tidegate hub broker list` and `tidegate ls`.
pub(crate) use bench::{PREFIX as BENCH_PREFIX, lock_of as bench_lock_of};
pub(crate) use broker::{channel_json, channels_text};
/// The broker of a node, asked shortly.
pub(crate) use connection::ask_broker_of;
