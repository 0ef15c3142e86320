//! `tidegate hub discover`: where is a channel?

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tidegate::hub::broker::wire::{
    ChannelFacts, ChannelName, Discovered, SchemaHash, SchemaMode, SchemaVersion,
};
use tidegate::hub::broker::{Discovery, RetryPolicy, Verifier};
use tidegate::hub::secret::read_key_file;

use super::connection::Connection;
use crate::cli::session::parse_duration;
use crate::output::{Output, Stop};

#[derive(Debug, Args)]
pub(crate) struct Discover {
    /// The channel
    channel: String,
    #[command(flatten)]
    connection: Connection,
    /// Key file of the channel, where it has a secret
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    /// Wait this long for the channel to be there
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Hash of the schema that is expected (64 hex digits)
    #[arg(long, value_name = "HASH", requires = "schema_version")]
    schema_hash: Option<String>,
    /// Version of the schema that is expected, such as 2.0
    #[arg(long, value_name = "VERSION", requires = "schema_hash")]
    schema_version: Option<String>,
}

impl Discover {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let channel = ChannelName::new(&*self.channel).map_err(Stop::usage)?;
        let mut look = Discovery::of(channel.clone());
        if let (Some(hash), Some(version)) = (&self.schema_hash, &self.schema_version) {
            let hash: SchemaHash = hash.parse().map_err(Stop::usage)?;
            let version: SchemaVersion = version.parse().map_err(Stop::usage)?;
            look = look.schema(hash, version, SchemaMode::Strict);
        }
        if let Some(file) = &self.secret {
            look = look.verifier(Verifier::of(&read_key_file(file)?, &channel));
        }
        let retry = match self.wait {
            None => RetryPolicy::none(),
            Some(overall) => {
                let (first, most) = (Duration::from_millis(100), Duration::from_secs(2));
                RetryPolicy::exponential(first, 2.0, most, 0.2, u32::MAX, overall)?
            }
        };
        let (hub, _) = self.connection.open()?;
        let found = hub.discover(&look, self.connection.timeout, retry)?;
        output.result(|| text(&channel, &found.channel), || value(&channel, &found))
    }
}

fn text(channel: &ChannelName, found: &ChannelFacts) -> String {
    let mut lines = vec![
        format!("channel   {channel} (id {})", found.channel_id.0),
        format!("block     {} ({})", found.shm_name, found.block_uuid),
        format!(
            "slots     {} of {} B, {} / {}, first id {}",
            found.ring_buffer_capacity,
            found.unit_block_size,
            found.policy,
            found.sync,
            found.first_slot_id.0
        ),
        format!("schema    {}", found.schema()),
        format!(
            "producer  {}",
            if found.producer_alive { "alive" } else { "dead; what it committed can be read" }
        ),
    ];
    if let Some(endpoint) = &found.zmq_endpoint {
        lines.push(format!("notifies  {endpoint}"));
    }
    lines.join("\n")
}

fn value(channel: &ChannelName, found: &Discovered) -> Value {
    let facts = &found.channel;
    json!({
        "channel": channel,
        "channel_id": facts.channel_id,
        "shm_name": facts.shm_name,
        "block_uuid": facts.block_uuid,
        "policy": facts.policy,
        "sync": facts.sync,
        "slot_stride": facts.unit_block_size,
        "slot_count": facts.ring_buffer_capacity,
        "schema_hash": facts.schema_hash,
        "schema_version": facts.schema_version,
        "first_slot_id": facts.first_slot_id,
        "producer_alive": facts.producer_alive,
        "zmq_endpoint": facts.zmq_endpoint,
        "zmq_pubkey": facts.zmq_pubkey,
        "events_endpoint": found.events_endpoint,
        "handover": found.handover,
    })
}
