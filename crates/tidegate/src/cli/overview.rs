//! What a node has: `tidegate ls`, and the list of streams that `tidegate tensor ls` shows as well.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tidegate::node::{NodeClient, NodePlace, NodeStatus, StreamStatus};
use tidegate::tensor::layout::{SlotCount, Stride, header_ring_len, pool_len};

use super::text;
use crate::output::{Output, Stop};

/// For how long the broker of a node is waited for.
#[cfg(feature = "hub")]
const BROKER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// Which node to ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeArgs {
    /// Directory of the node [default: $TIDEGATE_DIR, else /dev/shm/tidegate-<user>]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

impl NodeArgs {
    /// Where the node is, or would be.
    pub(crate) fn place(&self) -> NodePlace {
        NodePlace::find(self.dir.clone(), std::env::var_os(tidegate::node::DIR_VARIABLE))
    }

    /// The node.
    pub(crate) fn find(&self) -> Result<NodeClient, Stop> {
        Ok(NodeClient::find(&self.place())?)
    }
}

/// See the command's help.
#[derive(Debug, Args)]
#[command(after_help = "\
With --json: one object {\"kind\":\"node\",...}, one {\"kind\":\"stream\",...} per stream, one {\"kind\":\"broker\",...}, \
one {\"kind\":\"channel\",...} per channel.

Examples:
  tidegate ls
  tidegate ls --dir /dev/shm/lab --json")]
pub(crate) struct Ls {
    #[command(flatten)]
    node: NodeArgs,
}

impl Ls {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let place = self.node.place();
        let node = NodeClient::find(&place)?;
        let status = node.status()?;
        let description = node.description();
        let leases: usize = status.streams.iter().map(|stream| stream.leases.len()).sum();
        let memory: u64 = status.streams.iter().map(memory_bytes).sum();
        output.result(
            || {
                format!(
                    "node {} (pid {}, version {}): {}, {}, {} of regions; media driver {}\n{}",
                    place.dir().display(),
                    description.pid,
                    description.version,
                    text::count(status.streams.len(), "stream"),
                    text::count(leases, "lease"),
                    text::bytes(memory),
                    description.aeron_dir.display(),
                    streams_text(&status)
                )
            },
            || {
                json!({
                    "kind": "node",
                    "dir": place.dir(),
                    "pid": description.pid,
                    "version": description.version,
                    "instance_id": status.instance_id,
                    "aeron_dir": description.aeron_dir,
                    "root": status.root,
                    "streams": status.streams.len(),
                    "leases": leases,
                    "memory_bytes": memory,
                    "attaches": status.attaches,
                    "leases_lost": status.leases_lost,
                    "epochs_created": status.epochs_created,
                })
            },
        )?;
        if output.json() {
            print_streams(&status, output)?;
        }
        #[cfg(feature = "hub")]
        print_broker(&place, output)?;
        Ok(())
    }
}

/// The broker and its channels; nothing where the node has no broker. One that does not answer is said and ends nothing.
#[cfg(feature = "hub")]
fn print_broker(place: &NodePlace, output: &mut Output) -> Result<(), Stop> {
    use super::hub::{ask_broker_of, channel_json, channels_text};

    let Some(address) = tidegate::hub::broker::BrokerAddress::read(place.dir())? else { return Ok(()) };
    // Where clients need keys, only they can ask.
    let asked = address.public_key.is_none().then(|| ask_broker_of(&address, BROKER_TIMEOUT));
    let report = asked.as_ref().and_then(|asked| asked.as_ref().ok());
    output.result(
        || {
            let head = format!("\nbroker {}", address.endpoint);
            match (&asked, report) {
                (_, Some(report)) => format!("{head}\n{}", channels_text(&report.channels)),
                (Some(Err(error)), _) => format!("{head}: no answer: {error}"),
                _ => format!("{head}: has CURVE; `tidegate hub broker list --curve-secret FILE` asks it"),
            }
        },
        || {
            json!({
                "kind": "broker",
                "endpoint": address.endpoint,
                "events_endpoint": address.events_endpoint,
                "epoch": address.epoch,
                "public_key": address.public_key,
                "answers": report.is_some(),
                "channels": report.map(|report| report.counters.channels),
                "consumers": report.map(|report| report.counters.attachments),
            })
        },
    )?;
    if output.json() {
        for channel in report.iter().flat_map(|report| &report.channels) {
            output.result(String::new, || channel_json(channel))?;
        }
    }
    Ok(())
}

/// The streams: a table, or one object each.
pub(crate) fn print_streams(status: &NodeStatus, output: &mut Output) -> Result<(), Stop> {
    if !output.json() {
        return output.result(|| streams_text(status), || Value::Null);
    }
    for stream in &status.streams {
        output.result(String::new, || stream_json(stream))?;
    }
    Ok(())
}

/// One stream, with its leases.
pub(crate) fn stream_json(stream: &StreamStatus) -> Value {
    let leases: Vec<Value> = stream
        .leases
        .iter()
        .map(|lease| {
            json!({
                "lease": lease.lease,
                "client": lease.client,
                "role": lease.role,
                "node": lease.node,
                "expires_in_ms": lease.expires_in_ms,
            })
        })
        .collect();
    let pools: Vec<Value> = stream
        .pools
        .iter()
        .map(|pool| json!({ "pool": pool.pool, "stride": pool.stride, "path": pool.path }))
        .collect();
    json!({
        "kind": "stream",
        "stream": stream.stream,
        "name": stream.name,
        "dynamic": stream.dynamic,
        "profile": stream.profile,
        "epoch": stream.epoch,
        "producer": stream.producer,
        "consumers": consumers(stream),
        "slots": stream.slots,
        "pools": pools,
        "memory_bytes": memory_bytes(stream),
        "header_path": stream.header_path,
        "leases": leases,
    })
}

fn streams_text(status: &NodeStatus) -> String {
    if status.streams.is_empty() {
        return "no streams yet; `tidegate tensor pub NAME --input FILE` makes one".to_owned();
    }
    let head = ["STREAM", "NAME", "EPOCH", "PRODUCER", "CONSUMERS", "SLOTS", "POOLS", "MEMORY", "PROFILE"];
    let mut rows = vec![text::heading(head)];
    for stream in &status.streams {
        let strides: Vec<String> = stream.pools.iter().map(|pool| pool.stride.to_string()).collect();
        rows.push(vec![
            stream.stream.to_string(),
            text::or_dash(stream.name.as_ref()),
            text::or_dash((stream.epoch != 0).then_some(stream.epoch)),
            text::or_dash(stream.producer),
            consumers(stream).to_string(),
            stream.slots.to_string(),
            strides.join("+"),
            text::bytes(memory_bytes(stream)),
            stream.profile.clone(),
        ]);
    }
    text::table(&rows)
}

fn consumers(stream: &StreamStatus) -> usize {
    stream.leases.iter().filter(|lease| lease.role == "consumer").count()
}

/// Shared memory of the current epoch.
fn memory_bytes(stream: &StreamStatus) -> u64 {
    let Ok(slots) = SlotCount::new(stream.slots) else { return 0 };
    if stream.epoch == 0 {
        return 0;
    }
    let pools = stream.pools.iter().filter_map(|pool| Stride::new(pool.stride).ok());
    header_ring_len(slots) + pools.map(|stride| pool_len(slots, stride)).sum::<u64>()
}
