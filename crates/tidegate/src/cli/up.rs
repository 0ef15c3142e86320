//! `tidegate up`: the node in the foreground.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
#[cfg(feature = "hub")]
use tidegate::hub::broker::BrokerError;
#[cfg(feature = "hub")]
use tidegate::node::BrokerOptions;
use tidegate::node::{MediaDriverHost, Node, NodeError, NodeOptions, NodePlace};
use tidegate::tensor::agent::IdleStrategy;
use tidegate::tensor::driver::DriverAgentError;

use super::session::load_config;
use super::signal::Interrupt;
use crate::output::{Exit, Output, Report, Stop, exit_of_io};

/// Longest sleep of the idle tensor driver; bounds how long an attach request waits.
const DRIVER_IDLE: Duration = Duration::from_millis(4);

#[derive(Debug, Args)]
#[command(after_help = "\
SIGINT and SIGTERM stop the node: leases end with a notice, files are removed. A directory that a killed node left is \
taken over.

Example:
  tidegate up
  tidegate up --config driver.toml --dir /dev/shm/lab --json")]
pub(crate) struct Up {
    /// Configuration (TOML): the tensor driver's, and [hub.broker]; without one, streams are made on demand inside the
    /// node's directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The node's directory [default: $TIDEGATE_DIR, else /dev/shm/tidegate-<user>]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Directory of the media driver; a live one there is used, otherwise the node runs its own in it
    #[arg(long, value_name = "DIR")]
    aeron_dir: Option<PathBuf>,
    /// Lowest latency for attaching: the tensor driver spins instead of sleeping, which takes one core
    #[arg(long)]
    busy: bool,
    /// Serve the counters of streams and of all data blocks to Prometheus, at a loopback address
    #[cfg(feature = "hub")]
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<std::net::SocketAddr>,
}

impl Up {
    pub(crate) fn run(self, output: &mut Output) -> Result<(), Stop> {
        // Before anything is created, so that a signal cannot leave it behind.
        let interrupt = Interrupt::install()?;
        let config = self.config.as_deref().map(load_config).transpose()?;
        let place = NodePlace::find(self.dir, std::env::var_os(tidegate::node::DIR_VARIABLE));
        let idle = if self.busy { IdleStrategy::BusySpin } else { IdleStrategy::Sleep(DRIVER_IDLE) };
        #[cfg(feature = "hub")]
        let metrics_place = place.clone();
        let mut node = Node::start(NodeOptions {
            place,
            aeron_dir: self.aeron_dir,
            config,
            idle,
            #[cfg(feature = "hub")]
            broker: self.config.as_deref().map(BrokerOptions::from_file).transpose()?.unwrap_or_default(),
        })?;
        #[cfg(feature = "hub")]
        let _exporter =
            self.metrics.map(|address| serve_metrics(address, &metrics_place, &node)).transpose()?;
        let told = tell_ready(&node, output);
        let ran = told.and_then(|()| node.run(&interrupt).map_err(Stop::from));
        let stopped = node.stop();
        ran?;
        Ok(stopped?)
    }
}

/// The `/metrics` page of this host.
#[cfg(feature = "hub")]
fn serve_metrics(
    address: std::net::SocketAddr,
    place: &NodePlace,
    node: &Node,
) -> Result<tidegate::exporter::Exporter, tidegate::exporter::ExporterError> {
    use tidegate::{exporter, hub::metrics::prometheus::BlockMetrics};
    let streams = exporter::NodeMetrics::of(place.clone());
    let broker =
        node.broker_meter().map_or_else(exporter::Numbers::default, |meter| exporter::broker_numbers(&meter));
    let pages: [Box<dyn prometheus_client::collector::Collector>; 3] =
        [Box::new(BlockMetrics::default()), Box::new(streams), Box::new(broker)];
    exporter::Exporter::start(address, pages.into())
}

fn tell_ready(node: &Node, output: &mut Output) -> Result<(), Stop> {
    let description = node.description();
    let embedded = node.media_driver() == MediaDriverHost::Embedded;
    #[cfg(feature = "hub")]
    let broker = node.broker().map(|address| address.endpoint);
    #[cfg(not(feature = "hub"))]
    let broker: Option<String> = None;
    output.result(
        || {
            format!(
                "node ready (pid {})\n  directory     {}\n  media driver  {} ({})\n  regions       {}\n{}\
                 Publish with `tidegate tensor pub NAME --input FILE`, read with `tidegate tensor sub NAME`.",
                description.pid,
                node.dir().display(),
                description.aeron_dir.display(),
                if embedded { "embedded" } else { "external" },
                description.shm_base_dir.display(),
                broker.as_ref().map_or_else(String::new, |endpoint| format!("  broker        {endpoint}\n")),
            )
        },
        || {
            json!({
                "ready": true,
                "dir": node.dir(),
                "aeron_dir": description.aeron_dir,
                "pid": description.pid,
                "media_driver": if embedded { "embedded" } else { "external" },
                "shm_base_dir": description.shm_base_dir,
                "broker": broker,
            })
        },
    )
}

impl Report for NodeError {
    fn exit(&self) -> Exit {
        match self {
            Self::NotRunning { .. } => Exit::NotFound,
            Self::Foreign { .. } | Self::Held { .. } | Self::Directory { .. } => Exit::Refused,
            Self::Refused { code, .. } if code == "unknown_stream" => Exit::NotFound,
            Self::Refused { .. } => Exit::Refused,
            Self::NoAnswer { .. } => Exit::TimedOut,
            Self::Io { source, .. } => exit_of_io(source).0,
            #[cfg(feature = "hub")]
            Self::Configuration { .. } => Exit::Usage,
            #[cfg(feature = "hub")]
            Self::Broker(BrokerError::Endpoint { .. } | BrokerError::NotPrivate { .. }) => Exit::Refused,
            #[cfg(feature = "hub")]
            Self::Broker(BrokerError::KeyFile { .. }) => Exit::Usage,
            Self::MediaDriver(tidegate_aeron::AeronError::Permission { .. })
            | Self::MediaDriver(tidegate_aeron::AeronError::DriverActive { .. }) => Exit::Refused,
            Self::Driver(DriverAgentError::Start(_)) => Exit::Refused,
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotRunning { .. } => "no_node",
            Self::Foreign { .. } => "permission",
            Self::Held { .. } => "node_running",
            Self::Directory { .. } => "bad_directory",
            Self::Refused { code, .. } if code == "unknown_stream" => "unknown_stream",
            Self::Refused { .. } => "refused",
            Self::NoAnswer { .. } => "no_answer",
            Self::Io { source, .. } => exit_of_io(source).1,
            #[cfg(feature = "hub")]
            Self::Configuration { .. } => "usage",
            #[cfg(feature = "hub")]
            Self::Broker(_) => "broker",
            Self::MediaDriver(_) => "media_driver",
            Self::Driver(_) => "tensor_driver",
            _ => "node",
        }
    }
}
