//! `tidegate hub broker ...`: running a broker, and what it knows.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use tidegate::hub::broker::place::RuntimeDir;
use tidegate::hub::broker::wire::{ChannelSummary, Label};
use tidegate::hub::broker::{Broker, BrokerError};
use tidegate::node::BrokerOptions;

use super::connection::Connection;
use crate::cli::signal::Interrupt;
use crate::cli::text;
use crate::output::{Output, Stop};

/// How often a running broker is looked at.
const WATCH: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  tidegate hub broker status
  tidegate hub broker list sensor_")]
pub(crate) enum Command {
    /// Run a broker by itself, in the foreground
    #[command(after_help = "\
Every node has a broker; this one is for hosts without a node. SIGINT and SIGTERM stop it: look-ups are still answered for \
a moment, and the registry is written if it is kept. What producers and consumers do with each other goes on without it.

With --json: one object when it is ready.

Examples:
  tidegate hub broker run
  tidegate hub broker run --persist /var/lib/tidegate/registry
  tidegate hub broker run --endpoint tcp://*:5570 --events tcp://*:5571 --curve-secret b.key --curve-clients clients")]
    Run(Run),
    /// Show the numbers of a broker
    #[command(after_help = "\
With --json: one object with the numbers since its start.

Examples:
  tidegate hub broker status
  tidegate hub broker status --endpoint ipc:///run/user/1000/tidegate/broker.sock --json")]
    Status(Status),
    /// List the channels that a broker knows
    #[command(after_help = "\
With --json: one object {\"kind\":\"channel\",...} per channel.

Examples:
  tidegate hub broker list
  tidegate hub broker list sensor_ --json")]
    List(List),
}

pub(super) fn run(command: Command, output: &mut Output) -> Result<(), Stop> {
    match command {
        Command::Run(command) => command.run(output),
        Command::Status(command) => command.run(output),
        Command::List(command) => command.run(output),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Where to listen [default: ipc://$XDG_RUNTIME_DIR/tidegate/broker.sock]
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// Where to publish events [default: events.sock in the same directory]
    #[arg(long, value_name = "ENDPOINT")]
    events: Option<String>,
    /// Directory of the two sockets, mode 0700 [default: $XDG_RUNTIME_DIR/tidegate]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
    /// Allow TCP without CURVE, on loopback only
    #[arg(long)]
    insecure_tcp: bool,
    /// Keep the registry in FILE, over restarts
    #[arg(long, value_name = "FILE")]
    persist: Option<PathBuf>,
    /// Say that there is no such channel to whoever does not prove its secret
    #[arg(long)]
    conceal: bool,
    /// Only register and find channels: no leases, events, lists
    #[arg(long)]
    core_only: bool,
    /// File with the broker's secret key: CURVE, for all who are listed
    #[arg(long, value_name = "FILE", requires = "curve_clients")]
    curve_secret: Option<PathBuf>,
    /// File with a line per admitted client: public key, and client id if it may use that one only
    #[arg(long, value_name = "FILE", requires = "curve_secret")]
    curve_clients: Option<PathBuf>,
    /// Directory of the blocks
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    blocks: PathBuf,
}

impl Run {
    fn run(self, output: &mut Output) -> Result<(), Stop> {
        // Before anything is created, so that a signal cannot leave it behind.
        let interrupt = Interrupt::install()?;
        let dir = match self.runtime_dir {
            Some(dir) => RuntimeDir::open(dir)?,
            None => RuntimeDir::of_user()?,
        };
        let options = BrokerOptions {
            enabled: true,
            endpoint: self.endpoint,
            events_endpoint: self.events,
            insecure_tcp: self.insecure_tcp,
            persist: self.persist,
            conceal: self.conceal,
            extensions: !self.core_only,
            curve_secret: self.curve_secret,
            curve_clients: self.curve_clients,
            blocks: Some(self.blocks),
        };
        let broker = options.start(&dir)?;
        tell_ready(&broker, output)?;
        wait(&broker, &interrupt)?;
        Ok(broker.stop()?)
    }
}

/// Sleeps until there is a signal, or no broker any more.
fn wait(broker: &Broker, interrupt: &Interrupt) -> Result<(), Stop> {
    let watch = Timespec { tv_sec: WATCH.as_secs().try_into().unwrap_or(1), tv_nsec: 0 };
    while !interrupt.is_set() {
        if !broker.is_running() {
            return Err(BrokerError::Panicked.into());
        }
        match poll(&mut [PollFd::new(interrupt, PollFlags::IN)], Some(&watch)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                let source = errno.into();
                return Err(BrokerError::System { what: "cannot wait for signals", source }.into());
            }
        }
    }
    Ok(())
}

fn tell_ready(broker: &Broker, output: &mut Output) -> Result<(), Stop> {
    let public_key = broker.public_key().map(|key| key.to_z85());
    output.result(
        || {
            let key = public_key.as_ref().map_or_else(String::new, |key| format!("\n  public key    {key}"));
            format!(
                "broker ready (pid {})\n  endpoint      {}\n  events        {}{key}",
                std::process::id(),
                broker.endpoint(),
                broker.events_endpoint(),
            )
        },
        || {
            json!({
                "ready": true,
                "endpoint": broker.endpoint(),
                "events_endpoint": broker.events_endpoint(),
                "epoch": broker.epoch(),
                "pid": std::process::id(),
                "public_key": public_key,
            })
        },
    )
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    fn run(self, output: &mut Output) -> Result<(), Stop> {
        let (hub, endpoint) = self.connection.open()?;
        let features = hub.ping(self.connection.timeout)?;
        let counters = hub.broker_counters(self.connection.timeout)?;
        let epoch = hub.broker_epoch();
        output.result(
            || {
                format!(
                    "broker {endpoint} (epoch {}): {}, {}, {}\n  requests      {} ({} ok, {} refused, {} without an answer)\n  \
                     refused       {} malformed, {} without right, {} replayed, {} over a limit\n  \
                     events        {}\n  leases over   {}",
                    text::or_dash(epoch.as_ref()),
                    count(counters.channels, "channel"),
                    count(counters.attachments, "consumer"),
                    count(counters.clients, "client"),
                    counters.requests,
                    counters.answered_ok,
                    counters.refused,
                    counters.dropped,
                    counters.refused_malformed,
                    counters.refused_auth,
                    counters.refused_replay,
                    counters.refused_limit,
                    counters.events,
                    counters.leases_expired,
                )
            },
            || {
                let mut value = json!({ "kind": "broker", "endpoint": endpoint, "epoch": epoch, "features": features });
                let numbers = serde_json::to_value(counters).unwrap_or_default();
                if let (Value::Object(value), Value::Object(numbers)) = (&mut value, numbers) {
                    value.extend(numbers);
                }
                value
            },
        )
    }
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Beginning of the names
    prefix: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl List {
    fn run(self, output: &mut Output) -> Result<(), Stop> {
        let prefix = self.prefix.map(Label::new).transpose().map_err(Stop::usage)?;
        let (hub, _) = self.connection.open()?;
        let channels = hub.list(prefix, self.connection.timeout)?;
        if !output.json() {
            return output.result(|| channels_text(&channels), || Value::Null);
        }
        for channel in &channels {
            output.result(String::new, || channel_json(channel))?;
        }
        Ok(())
    }
}

/// One channel.
pub(crate) fn channel_json(channel: &ChannelSummary) -> Value {
    json!({
        "kind": "channel",
        "channel": channel.channel_name,
        "channel_id": channel.channel_id,
        "shm_name": channel.shm_name,
        "block_uuid": channel.block_uuid,
        "schema_hash": channel.schema_hash,
        "schema_version": channel.schema_version,
        "producer_uid": channel.producer_uid,
        "process_key": channel.process_key,
        "consumers": channel.consumers,
        "verified": channel.verified,
    })
}

/// The channels as a table.
pub(crate) fn channels_text(channels: &[ChannelSummary]) -> String {
    if channels.is_empty() {
        return "no channels yet; a producer that is connected to the broker registers its own".to_owned();
    }
    let mut rows =
        vec![text::heading(["CHANNEL", "ID", "BLOCK", "PRODUCER", "SCHEMA", "CONSUMERS", "CHECKED"])];
    for channel in channels {
        let hash = channel.schema_hash.to_string();
        let schema = if channel.schema_hash.is_untyped() {
            "untyped".to_owned()
        } else {
            format!("{}... v{}", hash.get(..16).unwrap_or_default(), channel.schema_version)
        };
        rows.push(vec![
            channel.channel_name.to_string(),
            channel.channel_id.0.to_string(),
            channel.shm_name.to_string(),
            text::or_dash(Some(&channel.producer_uid).filter(|uid| !uid.as_str().is_empty())),
            schema,
            channel.consumers.to_string(),
            if channel.verified { "yes" } else { "not yet" }.to_owned(),
        ]);
    }
    text::table(&rows)
}

fn count(number: u64, thing: &str) -> String {
    text::count(usize::try_from(number).unwrap_or(usize::MAX), thing)
}
