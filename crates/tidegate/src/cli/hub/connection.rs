//! Finding a broker and talking to it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tidegate::hub::broker::place::{RuntimeDir, read_secret_key};
use tidegate::hub::broker::wire::{ChannelSummary, ClientId, RegistryCounters};
use tidegate::hub::broker::{BrokerAddress, HubConfig, HubCurve, HubError, MessageHub};
use tidegate::mq::PublicKey;

use super::error::NoBroker;
use crate::cli::overview::NodeArgs;
use crate::cli::session::parse_duration;
use crate::output::Stop;

/// Which broker, and who asks.
#[derive(Debug, Clone, Args)]
pub(super) struct Connection {
    #[command(flatten)]
    node: NodeArgs,
    /// Where the broker listens; without it, that of the node, else that of `tidegate hub broker run`
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<String>,
    /// Who asks; needed where the broker keeps a name for each key [default: cli-<pid>]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The broker's public key (40 characters of Z85); that of a node's broker is known
    #[arg(long, value_name = "KEY", requires = "curve_secret")]
    curve_server: Option<String>,
    /// File with this client's secret key, where the broker has CURVE
    #[arg(long, value_name = "FILE")]
    curve_secret: Option<PathBuf>,
    /// Longest time to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
}

impl Connection {
    /// A client of the broker, and where that is.
    pub(super) fn open(&self) -> Result<(MessageHub, String), Stop> {
        let (endpoint, known_key) = match &self.endpoint {
            Some(endpoint) => (endpoint.clone(), None),
            None => self.find()?,
        };
        let server_key = match &self.curve_server {
            Some(key) => Some(PublicKey::parse(key.as_bytes()).map_err(|error| {
                Stop::usage(format!("--curve-server {key}: {error}; `tidegate mq keygen` makes keys"))
            })?),
            None => known_key,
        };
        let curve = match (server_key, &self.curve_secret) {
            (Some(server_key), Some(file)) => {
                Some(HubCurve { server_key, secret_key: read_secret_key(file)? })
            }
            (Some(_), None) => {
                let message =
                    format!("the broker at {endpoint} has CURVE; name your key with --curve-secret");
                return Err(Stop::usage(message));
            }
            (None, Some(_)) => {
                let message =
                    format!("{endpoint}: the broker's key is not known; name it with --curve-server");
                return Err(Stop::usage(message));
            }
            (None, None) => None,
        };
        let client_id = self.client_id.clone().unwrap_or_else(|| format!("cli-{}", std::process::id()));
        let client_id = ClientId::new(client_id).map_err(Stop::usage)?;
        let hub = MessageHub::connect(HubConfig { endpoint: endpoint.clone(), client_id, curve })?;
        Ok((hub, endpoint))
    }

    /// The broker of the node, else the one that runs by itself.
    fn find(&self) -> Result<(String, Option<PublicKey>), Stop> {
        let place = self.node.place();
        if let Some(address) = BrokerAddress::read(place.dir())? {
            return Ok((address.endpoint, address.public_key.map(|key| key.0)));
        }
        let alone = RuntimeDir::of_user()?.broker_endpoint();
        let socket = alone.strip_prefix("ipc://").unwrap_or_default();
        if std::path::Path::new(socket).exists() {
            return Ok((alone, None));
        }
        Err(NoBroker { dir: place.dir().to_owned(), endpoint: alone }.into())
    }
}

/// What a broker answered about itself.
#[derive(Debug)]
pub(crate) struct BrokerReport {
    pub(crate) counters: RegistryCounters,
    pub(crate) channels: Vec<ChannelSummary>,
}

/// Asks the broker of a node about itself. Clients of a broker with CURVE need a key, which is not to be had here.
pub(crate) fn ask_broker_of(address: &BrokerAddress, timeout: Duration) -> Result<BrokerReport, HubError> {
    let client_id = ClientId::new(format!("cli-{}", std::process::id()))?;
    let hub = MessageHub::connect(HubConfig { endpoint: address.endpoint.clone(), client_id, curve: None })?;
    Ok(BrokerReport { counters: hub.broker_counters(timeout)?, channels: hub.list(None, timeout)? })
}
