//! `tidegate vertex group`, and orders to all vertices of a pipeline: over the store that they share partitions by (10.2).

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tidegate::vertex::PartitionId;
use tidegate::vertex::config::{OwnershipConfig, Pipeline};
use tidegate::vertex::nats::own::{self, GroupError, Holding};
use tidegate::vertex::operate::{Which, Wish};

use super::super::text;
use crate::output::{Exit, Output, Stop, VertexExit};

pub(super) use tidegate::vertex::nats::own::Order;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate vertex group -c orders.toml
  tidegate vertex drain --partition 3 --everywhere -c orders.toml")]
pub(crate) struct Group {
    /// The pipeline file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

impl Group {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        let holdings = of(&self.config)?.holdings(Which::All)?;
        output.result(|| in_words(&holdings), || json!({ "partitions": as_json(&holdings) }))
    }
}

/// The vertices that share the partitions of a pipeline.
pub(super) fn of(config: &Path) -> Result<own::Group, Stop> {
    let pipeline = Pipeline::read(config)?;
    let OwnershipConfig::Jetstream(keys) = &pipeline.ownership else {
        return Err(Stop::Error {
            exit: Exit::Vertex(VertexExit::Config),
            code: "config",
            message: format!(
                "{}: ownership.kind has to be \"jetstream\" for orders to several vertices; this pipeline has one, which takes \
                 orders at its admin socket",
                config.display()
            ),
        });
    };
    Ok(own::Group::open(&keys.settings(&pipeline)).map_err(GroupError::from)?)
}

/// Tells every vertex; who has what is not known to have changed yet.
pub(super) fn order(
    group: &own::Group,
    partition: Option<u32>,
    order: Order,
    reason: &str,
    output: &mut Output,
) -> Result<(), Stop> {
    group.order(which(partition), order, reason)?;
    let what = match order {
        Order::Run => "run",
        Order::Pause => "pause",
        Order::Drain => "drain",
        Order::Fence => "fence",
    };
    output.result(
        || match partition {
            Some(partition) => format!("told to {what} partition {partition}, every vertex"),
            None => format!("told to {what} every partition, every vertex"),
        },
        || json!({ "order": what, "partition": partition }),
    )
}

/// Tells every vertex to give partitions away, and waits until the store says that they are free.
pub(super) fn drain(
    group: &own::Group,
    partition: Option<u32>,
    timeout: Duration,
    output: &mut Output,
) -> Result<(), Stop> {
    let which = which(partition);
    group.order(which, Order::Drain, "")?;
    let holdings = group.await_free(which, timeout.into())?;
    let drained = holdings.iter().all(|holding| holding.owner.is_none());
    output.result(
        || format!("{}\n{}", if drained { "drained" } else { "not drained" }, in_words(&holdings)),
        || json!({ "order": "drain", "drained": drained, "partitions": as_json(&holdings) }),
    )?;
    if drained { Ok(()) } else { Err(Stop::Reported(Exit::TimedOut)) }
}

fn which(partition: Option<u32>) -> Which {
    partition.map_or(Which::All, |partition| Which::One(PartitionId(partition)))
}

fn in_words(holdings: &[Holding]) -> String {
    let mut rows = vec![text::heading(["PARTITION", "OWNER", "GENERATION", "EPOCH", "RESUME", "WANTED"])];
    for Holding { partition, owner, generation, epoch, resume, wish } in holdings {
        rows.push(vec![
            partition.to_string(),
            text::or_dash(owner.as_deref()),
            generation.to_string(),
            epoch.to_string(),
            resume.to_string(),
            word(*wish).to_owned(),
        ]);
    }
    text::table(&rows)
}

fn as_json(holdings: &[Holding]) -> Vec<Value> {
    let value = |holding: &Holding| {
        json!({
            "partition": holding.partition.0,
            "owner": holding.owner,
            "generation": holding.generation,
            "epoch_committed": holding.epoch,
            "resume": holding.resume,
            "wanted": word(holding.wish),
        })
    };
    holdings.iter().map(value).collect()
}

fn word(wish: Wish) -> &'static str {
    match wish {
        Wish::Run => "run",
        Wish::Pause => "pause",
        Wish::Drain => "drain",
    }
}
