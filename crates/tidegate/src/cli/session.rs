//! Finding a node, or a foreign driver, and becoming its client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tidegate::node::{NodeClient, NodeDescription, NodePlace, served_ids};
use tidegate::tensor::agent::IdleStrategy;
use tidegate::tensor::channel::Channel;
use tidegate::tensor::client::{Client, ClientError, Context, Endpoint, Listener, RefusalCode};
use tidegate::tensor::config::{DriverConfig, IdRange, IdRanges};
pub(crate) use tidegate::tensor::ids::StreamRef;
use tidegate::tensor::ids::{AeronStreamId, StreamId};
use tidegate::tensor::transport::aeron::AeronConnector;
use tidegate::tensor::transport::{Connector, Transport, TransportError};

use super::signal::Interrupt;
use crate::output::{Exit, Report, Stop, exit_of_io};

/// Sleep of the client's own thread, which attaches and keeps leases; frames do not pass through it.
const CONDUCTOR_IDLE: Duration = Duration::from_millis(4);
/// Pause between two looks for something that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Which driver to talk to.
#[derive(Debug, Clone, Args)]
pub(crate) struct DriverArgs {
    /// Directory of the node [default: $TIDEGATE_DIR, else /dev/shm/tidegate-<user>]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Use this media driver and the tensor driver on it, without a node
    #[arg(long, value_name = "DIR", conflicts_with = "dir")]
    pub(crate) aeron_dir: Option<PathBuf>,
    /// With --aeron-dir: the driver's configuration, to take its channels, stream ids, stream names and base directory from
    #[arg(long, value_name = "FILE", requires = "aeron_dir")]
    pub(crate) config: Option<PathBuf>,
}

/// A driver that was found.
#[derive(Debug)]
pub(crate) struct Session {
    /// The node, unless a media driver was named.
    pub(crate) node: Option<NodeClient>,
    /// Configuration given for a foreign driver.
    config: Option<DriverConfig>,
    /// Streams the driver can have; `None` for a foreign one without a configuration.
    served: Option<IdRanges>,
    /// Settings for a client.
    pub(crate) context: Context,
    connector: AeronConnector,
}

impl Session {
    /// Finds the node, or takes the media driver that was named.
    pub(crate) fn open(args: &DriverArgs) -> Result<Self, Stop> {
        let mut context = Context {
            client_name: "tidegate".to_owned(),
            idle: IdleStrategy::Sleep(CONDUCTOR_IDLE),
            ..Context::default()
        };
        if let Some(aeron_dir) = &args.aeron_dir {
            let config = args.config.as_deref().map(load_config).transpose()?;
            if let Some(config) = &config {
                apply_config(&mut context, config);
            }
            let served = config.as_ref().map(served_ids);
            let connector = AeronConnector::new(aeron_dir);
            return Ok(Self { node: None, config, served, context, connector });
        }
        let place = NodePlace::find(args.dir.clone(), std::env::var_os(tidegate::node::DIR_VARIABLE));
        let node = NodeClient::find(&place)?;
        apply_description(&mut context, node.description())?;
        let connector = AeronConnector::new(&node.description().aeron_dir);
        let served = Some(node.description().served_ids());
        Ok(Self { node: Some(node), config: None, served, context, connector })
    }

    /// Connects a client; it follows the node through restarts.
    pub(crate) fn client(&self, listener: Listener) -> Result<Client, Stop> {
        Ok(Client::start(self.context.clone(), Arc::new(self.connector.clone()), listener)?)
    }

    /// What an end of a vertex needs to know of this driver. It drives the media driver's client itself.
    #[cfg(feature = "vertex")]
    pub(crate) fn link(&self, stream: StreamId) -> tidegate::vertex::tensor::Link {
        let connector = AeronConnector { use_invoker: true, ..self.connector.clone() };
        tidegate::vertex::tensor::Link {
            stream,
            context: self.context.clone(),
            connector: Arc::new(connector),
        }
    }

    /// A connection to the media driver, for commands that speak the wire protocol themselves.
    pub(crate) fn transport(&self) -> Result<Box<dyn Transport>, TransportError> {
        self.connector.connect()
    }

    /// The number of a stream. With `create`, a new name gets a number.
    pub(crate) fn resolve(&self, stream: &StreamRef, create: bool) -> Result<StreamId, Stop> {
        let name = match stream {
            StreamRef::Id(id) => return Ok(*id),
            StreamRef::Name(name) => name,
        };
        if let Some(node) = &self.node {
            return Ok(node.resolve(name, create)?);
        }
        let configured = self.config.as_ref().and_then(|config| config.stream(name));
        configured.map(|entry| entry.stream_id).ok_or_else(|| Stop::Error {
            exit: Exit::NotFound,
            code: "unknown_stream",
            message: format!(
                "no stream is called '{name}' in the driver's configuration; give its number, or --config with a \
                 file that names it"
            ),
        })
    }

    /// Refuses a stream that the driver cannot have, as far as that is known. Asked for it, the driver would make another
    /// one (TP-246).
    pub(crate) fn check_served(&self, stream: StreamId) -> Result<(), Stop> {
        match &self.served {
            Some(served) if !served.contains(stream.get()) => Err(not_served(stream, Some(served))),
            _ => Ok(()),
        }
    }

    /// The client that produces a stream now, as far as a node says so.
    pub(crate) fn producer_of(&self, stream: StreamId) -> Option<u32> {
        let status = self.node.as_ref()?.status().ok()?;
        status.streams.into_iter().find(|known| known.stream == stream.get())?.producer
    }

    /// As [`Session::resolve`], looking again until `deadline`.
    pub(crate) fn resolve_until(
        &self,
        stream: &StreamRef,
        deadline: Instant,
        interrupt: &Interrupt,
    ) -> Result<StreamId, Stop> {
        loop {
            match self.resolve(stream, false) {
                Err(stop @ Stop::Error { exit: Exit::NotFound, .. }) => {
                    if Instant::now() >= deadline || interrupt.is_set() {
                        return Err(stop);
                    }
                    std::thread::sleep(LOOK_AGAIN);
                }
                other => return other,
            }
        }
    }
}

/// The driver does not have this stream and will not make it.
pub(crate) fn not_served(stream: StreamId, served: Option<&IdRanges>) -> Stop {
    let range = |range: &IdRange| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    };
    let known: Vec<String> = served.iter().flat_map(|served| served.iter().map(range)).collect();
    let known = if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) };
    Stop::Error {
        exit: Exit::Refused,
        code: "other_stream",
        message: format!(
            "the driver does not serve stream {stream}; use a number that it serves{known}, a name, or widen \
             driver.stream_id_range in its configuration"
        ),
    }
}

/// Reads and checks a driver's configuration.
pub(crate) fn load_config(path: &Path) -> Result<DriverConfig, Stop> {
    let source = super::tensor::config_source(path);
    let loaded = source.load()?;
    for warning in &loaded.warnings {
        tracing::warn!(file = %path.display(), "{warning}");
    }
    Ok(loaded.config)
}

fn apply_config(context: &mut Context, config: &DriverConfig) {
    let endpoint = |from: &tidegate::tensor::config::Endpoint| Endpoint {
        channel: from.channel.clone(),
        stream: from.stream_id,
    };
    context.control = endpoint(&config.driver.control);
    context.announce = endpoint(&config.driver.announce);
    context.qos = endpoint(&config.driver.qos);
    context.announce_period = config.policies.announce_period;
    context.keepalive_interval = config.policies.lease_keepalive_interval;
    context.lease_grace_intervals = config.policies.lease_expiry_grace_intervals;
    context.allowed_base_dirs.clone_from(&config.shm.allowed_base_dirs);
}

fn apply_description(context: &mut Context, description: &NodeDescription) -> Result<(), Stop> {
    let endpoint = |from: &tidegate::node::EndpointDescription| -> Result<Endpoint, Stop> {
        let channel = Channel::parse(&from.channel).map_err(|error| Stop::Error {
            exit: Exit::Failed,
            code: "node",
            message: format!("the node describes a channel that cannot be used: {error}; restart the node"),
        })?;
        Ok(Endpoint { channel, stream: AeronStreamId::new(from.stream_id) })
    };
    context.control = endpoint(&description.control)?;
    context.announce = endpoint(&description.announce)?;
    context.qos = endpoint(&description.qos)?;
    context.announce_period = Duration::from_millis(description.announce_period_ms);
    context.keepalive_interval = Duration::from_millis(description.keepalive_interval_ms);
    context.lease_grace_intervals = description.lease_grace_intervals;
    // The description was written by this user's own node, in a directory that only this user can write to.
    context.allowed_base_dirs = vec![description.shm_base_dir.clone()];
    Ok(())
}

impl Report for ClientError {
    fn exit(&self) -> Exit {
        match self {
            Self::Transport(TransportError::Unreachable { .. }) => Exit::NotFound,
            Self::TimedOut { .. } => Exit::TimedOut,
            Self::Refused(refusal) if refusal.message == UNKNOWN_STREAM => Exit::NotFound,
            Self::Refused(refusal) if refusal.code == RefusalCode::InternalError => Exit::Failed,
            Self::Refused(_) | Self::Map(tidegate::tensor::region::MapError::Open { .. }) => Exit::Refused,
            Self::Context(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Transport(TransportError::Unreachable { .. }) => "no_media_driver",
            Self::Transport(_) => "media_driver",
            Self::TimedOut { .. } => "timed_out",
            Self::Refused(refusal) if refusal.message == UNKNOWN_STREAM => "unknown_stream",
            Self::Refused(_) => "refused",
            Self::Map(_) | Self::Malformed(_) => "bad_region",
            Self::Context(_) => "bad_setting",
            _ => "client",
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) if refusal.code == RefusalCode::InternalError => {
                Some("the node's log says why, and `tidegate doctor` whether shared memory is low")
            }
            Self::Refused(_) => Some("see `tidegate tensor ls` for who holds what"),
            _ => None,
        }
    }
}

/// The driver's words for a stream that it does not have.
pub(crate) const UNKNOWN_STREAM: &str = "stream not provisioned";

impl Report for tidegate::media::MediaError {
    fn exit(&self) -> Exit {
        match self {
            Self::Open { source, .. } | Self::Write { source, .. } => exit_of_io(source).0,
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Open { source, .. } | Self::Write { source, .. } => exit_of_io(source).1,
            _ => "bad_input",
        }
    }
}

/// A duration on the command line: `10s`, `250ms`, `2m`, or plain seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a duration; write 250ms, 10s, 2m, or a number of seconds");
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "" | "s" => number,
        "ms" => number / 1e3,
        "us" => number / 1e6,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(bad()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}
