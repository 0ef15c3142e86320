//! The broker of data channels that a node hosts.
//!
//! ```text
//! <dir>/broker.json          where it is, for clients without an address; written last, removed first
//! <dir>/hub/broker.sock      requests          (hub/: mode 0700)
//! <dir>/hub/events.sock      events
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tidegate_hub::broker::host::LocalHost;
use tidegate_hub::broker::place::{RuntimeDir, read_secret_key};
use tidegate_hub::broker::wire::ClientId;
use tidegate_hub::broker::{
    AllowedClient, Broker, BrokerAddress, BrokerConfig, BrokerCurve, BrokerError, BrokerMeter,
};
use tidegate_mq::PublicKey;

use super::error::NodeError;
use super::place::NodePlace;

/// For how long look-ups are still answered when the broker stops.
const DRAIN: Duration = Duration::from_millis(100);

/// The table `[hub.broker]` of the node's configuration file. Every key may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerOptions {
    /// Whether the node has a broker.
    pub enabled: bool,
    /// Where it listens; by default a socket in the node's directory.
    pub endpoint: Option<String>,
    /// Where it publishes events; by default a socket in the node's directory.
    pub events_endpoint: Option<String>,
    /// Whether TCP without CURVE is allowed, on loopback only.
    pub insecure_tcp: bool,
    /// File that keeps the registry over restarts; by default none.
    pub persist: Option<PathBuf>,
    /// Whether a client whose proof failed is told that there is no such channel.
    pub conceal: bool,
    /// Whether there is more than registering and finding channels: leases, events, lists, ...
    pub extensions: bool,
    /// File with the broker's secret CURVE key, mode 0600 in a directory of mode 0700.
    pub curve_secret: Option<PathBuf>,
    /// File with a line per admitted client: its public key, and its client id if it may use that one only.
    pub curve_clients: Option<PathBuf>,
    /// Directory of the blocks, by default `/dev/shm`.
    pub blocks: Option<PathBuf>,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            endpoint: None,
            events_endpoint: None,
            insecure_tcp: false,
            persist: None,
            conceal: false,
            extensions: true,
            curve_secret: None,
            curve_clients: None,
            blocks: None,
        }
    }
}

impl BrokerOptions {
    /// Reads the table from a node's configuration file; other tables are not looked at.
    ///
    /// # Errors
    /// [`NodeError::Io`], and [`NodeError::Configuration`] for a key that is not known or a value of the wrong type.
    pub fn from_file(path: &Path) -> Result<Self, NodeError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct File {
            hub: Hub,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Hub {
            broker: BrokerOptions,
        }
        let text = fs::read_to_string(path).map_err(|source| NodeError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let file: File = toml::from_str(&text)
            .map_err(|source| NodeError::Configuration { path: path.to_owned(), source: Box::new(source) })?;
        Ok(file.hub.broker)
    }

    /// Starts a broker whose sockets lie in `dir` unless told otherwise.
    ///
    /// # Errors
    /// See [`Broker::start`]; and what is wrong with the files of keys.
    pub fn start(&self, dir: &RuntimeDir) -> Result<Broker, BrokerError> {
        let endpoint = self.endpoint.clone().unwrap_or_else(|| dir.broker_endpoint());
        let events_endpoint = self.events_endpoint.clone().unwrap_or_else(|| dir.events_endpoint());
        let mut config = BrokerConfig::new(endpoint, events_endpoint);
        config.insecure_tcp = self.insecure_tcp;
        config.persist.clone_from(&self.persist);
        config.drain = DRAIN;
        config.settings.conceal = self.conceal;
        if !self.extensions {
            config.settings.features.clear();
        }
        if let Some(secret) = &self.curve_secret {
            let secret_key = read_secret_key(secret)?;
            let clients = self.curve_clients.as_deref().map_or_else(|| Ok(Vec::new()), read_clients)?;
            config.curve = Some(BrokerCurve { secret_key, clients });
        }
        let mut host = LocalHost::new()?;
        if let Some(blocks) = &self.blocks {
            host = host.dir(blocks);
        }
        Broker::start(config, Box::new(host))
    }
}

/// Lines of a public key and, behind a blank, the client id that it may use; `#` begins a comment.
fn read_clients(path: &Path) -> Result<Vec<AllowedClient>, BrokerError> {
    let text = fs::read_to_string(path).map_err(|source| BrokerError::File {
        path: path.to_owned(),
        what: "cannot read the list of clients",
        source,
    })?;
    let bad = |error: std::io::Error| BrokerError::File {
        path: path.to_owned(),
        what: "the list of clients has a line that is not `KEY [CLIENT_ID]`",
        source: error,
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (key, id) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let key = PublicKey::parse(key.as_bytes()).map_err(|error| bad(std::io::Error::other(error)))?;
            let id = Some(id.trim()).filter(|id| !id.is_empty());
            let client_id = id.map(ClientId::new).transpose();
            let client_id = client_id.map_err(|error| bad(std::io::Error::other(error)))?;
            Ok(AllowedClient { key, client_id })
        })
        .collect()
}

/// A broker in a node, and its files.
#[derive(Debug)]
pub(super) struct HostedBroker {
    // Ends before its files go.
    broker: Option<Broker>,
    files: BrokerFiles,
}

/// The files of a broker. Removed when dropped.
#[derive(Debug)]
struct BrokerFiles {
    place: NodePlace,
}

impl HostedBroker {
    /// Starts it in the directory of a node whose lock is held, and says where it is.
    pub(super) fn start(place: &NodePlace, options: &BrokerOptions) -> Result<Self, NodeError> {
        let files = BrokerFiles { place: place.clone() };
        // What a killed node left.
        files.remove();
        let broker = options.start(&RuntimeDir::open(place.hub_dir())?)?;
        BrokerAddress::of(&broker)?.write(place.dir())?;
        Ok(Self { broker: Some(broker), files })
    }

    pub(super) fn address(&self) -> Option<BrokerAddress> {
        self.broker.as_ref().and_then(|broker| BrokerAddress::of(broker).ok())
    }

    pub(super) fn meter(&self) -> Option<BrokerMeter> {
        self.broker.as_ref().map(Broker::meter)
    }

    pub(super) fn is_running(&self) -> bool {
        self.broker.as_ref().is_some_and(Broker::is_running)
    }

    /// Tells nobody any more where it is, answers what has come, and ends.
    pub(super) fn stop(mut self) -> Result<(), NodeError> {
        let removed = BrokerAddress::remove(self.files.place.dir());
        let stopped = self.broker.take().map_or(Ok(()), Broker::stop);
        Ok(removed.and(stopped)?)
    }
}

impl Drop for BrokerFiles {
    fn drop(&mut self) {
        self.remove();
    }
}

impl BrokerFiles {
    fn remove(&self) {
        let dir = self.place.hub_dir();
        let files = [BrokerAddress::file(self.place.dir()), dir.join("broker.sock"), dir.join("events.sock")];
        for path in files {
            if let Err(error) = super::run::remove(&path) {
                tracing::warn!(%error, "could not clean up");
            }
        }
        match fs::remove_dir(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!(dir = %dir.display(), %error, "a directory stays");
            }
            _ => {}
        }
    }
}
