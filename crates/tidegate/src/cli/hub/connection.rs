//! Finding a broker and talking to it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tidegate::hub::broker::place::{RuntimeDir, read_secret_key};
use tidegate::hub::broker::wire::{ChannelSummary, ClientId, RegistryCounters};
use tidegate::hub::broker::{BrokerAddress, HubConfig, HubCurve, HubError, MessageHub};
use tidegate::mq::PublicKey;
use tidegate::node::NodePlace;

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
    #[command(flatten)]
    client: Client,
    /// Longest time to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
}

/// Who asks.
#[derive(Debug, Clone, Args)]
struct Client {
    /// Who asks; needed where the broker keeps a name for each key [default: cli-<pid>]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The broker's public key (40 characters of Z85); that of a node's broker is known
    #[arg(long, value_name = "KEY", requires = "curve_secret")]
    curve_server: Option<String>,
    /// File with this client's secret key, where the broker has CURVE
    #[arg(long, value_name = "FILE")]
    curve_secret: Option<PathBuf>,
}

/// Where a broker listens, and its key if it is known.
type Listens = (String, Option<PublicKey>);

impl Connection {
    /// A client of the broker, and where that is.
    pub(super) fn open(&self) -> Result<(MessageHub, String), Stop> {
        let (endpoint, known_key) = match &self.endpoint {
            Some(endpoint) => (endpoint.clone(), None),
            None => find(&self.node.place())?,
        };
        Ok((self.client.connect(endpoint.clone(), known_key)?, endpoint))
    }
}

impl Client {
    fn has_key(&self) -> bool {
        self.curve_secret.is_some()
    }

    fn connect(&self, endpoint: String, known_key: Option<PublicKey>) -> Result<MessageHub, Stop> {
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
        Ok(MessageHub::connect(HubConfig { endpoint, client_id, curve })?)
    }
}

/// The broker of the node, else the one that runs by itself.
fn find(place: &NodePlace) -> Result<Listens, Stop> {
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

/// The broker of commands that do without one as well: without it a channel is looked for in the directory of the blocks.
#[derive(Debug, Clone, Args)]
pub(super) struct Reach {
    /// Where the broker listens; without it, that of the node, else that of `tidegate hub broker run`, if there is one
    #[arg(long, value_name = "ENDPOINT")]
    broker: Option<String>,
    /// Ask no broker
    #[arg(long, conflicts_with = "broker")]
    no_broker: bool,
    #[command(flatten)]
    client: Client,
}

/// A broker that answered.
pub(super) struct Reached {
    pub(super) hub: MessageHub,
    /// Whether it was named on the command line, so that it must do what it is asked.
    pub(super) is_named: bool,
}

impl Reach {
    /// A client of the broker; none where there is none that answers, unless one was named.
    pub(super) fn open(&self) -> Result<Option<Reached>, Stop> {
        if self.no_broker {
            return Ok(None);
        }
        let is_named = self.broker.is_some();
        let known = self.broker.clone().map(|endpoint| (endpoint, None)).or_else(usable);
        let Some((endpoint, key)) =
            known.filter(|(_, key)| is_named || key.is_none() || self.client.has_key())
        else {
            return Ok(None);
        };
        let hub = self.client.connect(endpoint, key)?;
        match hub.ping(ANSWER) {
            Ok(_) => Ok(Some(Reached { hub, is_named })),
            Err(error) if is_named => Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "no broker answers");
                Ok(None)
            }
        }
    }
}

/// As [`find`], for those who can do without: what cannot be found out is not there, and no socket is waited for that is
/// not there.
fn usable() -> Option<Listens> {
    let place = NodePlace::find(None, std::env::var_os(tidegate::node::DIR_VARIABLE));
    let of_node = BrokerAddress::read(place.dir()).ok().flatten();
    let of_node = of_node.map(|address| (address.endpoint, address.public_key.map(|key| key.0)));
    let of_node = of_node.filter(|(endpoint, _)| {
        endpoint.strip_prefix("ipc://").is_none_or(|socket| std::path::Path::new(socket).exists())
    });
    of_node.or_else(|| Some((RuntimeDir::broker_of_user()?, None)))
}

/// Longest time that a broker nobody named is waited for.
pub(super) const ANSWER: Duration = Duration::from_secs(2);

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
