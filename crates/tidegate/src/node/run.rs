//! Starting, running and stopping a node.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tidegate_aeron::{AeronError, MediaDriver, MediaDriverOptions};
use tidegate_shm::lock::{DirLock, LockError};
use tidegate_shm::process::ProcessId;
use tidegate_tensor::agent::{AgentRunner, IdleStrategy, RunnerError};
use tidegate_tensor::clock::SystemClock;
use tidegate_tensor::config::{DriverConfig, Endpoint, user_component};
use tidegate_tensor::driver::{DriverAgent, DriverAgentError};
use tidegate_tensor::region::store::user_name;
use tidegate_tensor::transport::aeron::AeronConnector;

use super::admin::Admin;
#[cfg(feature = "hub")]
use super::broker::{BrokerOptions, HostedBroker};
use super::description::{EndpointDescription, NodeDescription, served_ids};
use super::error::NodeError;
use super::place::NodePlace;

/// How often the node looks whether its services still run.
const WATCH: Duration = Duration::from_millis(500);

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Its directory.
    pub place: NodePlace,
    /// Directory of the media driver. A live one there is used; otherwise the node runs its own in it.
    pub aeron_dir: Option<PathBuf>,
    /// The tensor driver's configuration; `None` for the defaults, with all regions inside the node's directory.
    pub config: Option<DriverConfig>,
    /// How the tensor driver idles.
    pub idle: IdleStrategy,
    /// The broker of data channels.
    #[cfg(feature = "hub")]
    pub broker: BrokerOptions,
}

/// Who runs the media driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaDriverHost {
    /// The node.
    Embedded,
    /// Another process.
    External,
}

/// A running node. Stop it with [`Node::stop`]; dropping it stops it as well, without a word about failures.
#[derive(Debug)]
pub struct Node {
    // In the order of their end: clients of the media driver before the media driver, the lock last.
    /// `None` while the media driver cannot be reached.
    driver: Option<AgentRunner<DriverAgentError>>,
    recipe: Recipe,
    #[cfg(feature = "hub")]
    broker: Option<HostedBroker>,
    media_driver: Option<MediaDriver>,
    files: NodeFiles,
    listener: UnixListener,
    admin: Admin,
    description: NodeDescription,
}

/// How to start the tensor driver, also a second time.
#[derive(Debug)]
struct Recipe {
    config: DriverConfig,
    connector: AeronConnector,
    idle: IdleStrategy,
}

impl Recipe {
    fn start(&self) -> Result<(AgentRunner<DriverAgentError>, Admin), NodeError> {
        let agent = DriverAgent::start(self.config.clone(), &self.connector, Arc::new(SystemClock))?;
        let admin = Admin::new(agent.handle());
        Ok((AgentRunner::start(agent, self.idle).map_err(driver_failed)?, admin))
    }
}

/// The node's directory. Removes what the node made in it.
#[derive(Debug)]
struct NodeFiles {
    place: NodePlace,
    /// Directories of the regions below the node's own, innermost first; empty when regions lie elsewhere.
    region_dirs: Vec<PathBuf>,
    lock: Option<DirLock>,
}

impl Node {
    /// Starts every service; clients can attach when this returns.
    ///
    /// # Errors
    /// [`NodeError::Held`] when another node has the directory. Nothing is left behind by a failed start.
    pub fn start(options: NodeOptions) -> Result<Self, NodeError> {
        let mut files = NodeFiles::acquire(options.place)?;
        let config = options.config.unwrap_or_else(|| files.default_config());
        files.find_region_dirs(&config);
        let place = &files.place;
        let named = options.aeron_dir.or_else(|| config.driver.aeron_dir.clone());
        let external_allowed = named.is_some();
        let aeron_dir = named.unwrap_or_else(|| place.aeron_dir());
        let media_driver = match MediaDriver::launch(&MediaDriverOptions::new(&aeron_dir)) {
            Ok(media_driver) => Some(media_driver),
            Err(AeronError::DriverActive { .. }) if external_allowed => None,
            Err(error) => return Err(error.into()),
        };
        let mut connector = AeronConnector::new(&aeron_dir);
        connector.client_name = "tidegate node".to_owned();
        connector.connect_timeout = Duration::from_secs(3);
        let description = describe(&config, &aeron_dir)?;
        let recipe = Recipe { config, connector, idle: options.idle };
        let (driver, admin) = recipe.start()?;
        #[cfg(feature = "hub")]
        let broker =
            options.broker.enabled.then(|| HostedBroker::start(place, &options.broker)).transpose()?;
        let listener = bind(&place.admin_socket())?;
        description.write(place)?;
        Ok(Self {
            driver: Some(driver),
            recipe,
            #[cfg(feature = "hub")]
            broker,
            media_driver,
            files,
            listener,
            admin,
            description,
        })
    }

    /// What reads the numbers of its broker; `None` when it has none.
    #[cfg(feature = "hub")]
    #[must_use]
    pub fn broker_meter(&self) -> Option<tidegate_hub::broker::BrokerMeter> {
        self.broker.as_ref().and_then(HostedBroker::meter)
    }

    /// Where its broker is; `None` when it has none.
    #[cfg(feature = "hub")]
    #[must_use]
    pub fn broker(&self) -> Option<tidegate_hub::broker::BrokerAddress> {
        self.broker.as_ref().and_then(HostedBroker::address)
    }

    /// What clients need to know.
    #[must_use]
    pub fn description(&self) -> &NodeDescription {
        &self.description
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.files.place.dir()
    }

    /// Who runs the media driver.
    #[must_use]
    pub fn media_driver(&self) -> MediaDriverHost {
        match self.media_driver {
            Some(_) => MediaDriverHost::Embedded,
            None => MediaDriverHost::External,
        }
    }

    /// Answers admin requests until `stop` becomes readable, sleeping in the kernel in between. A tensor driver that lost
    /// the media driver, for example because the whole machine was suspended, is started anew.
    ///
    /// # Errors
    /// When a service ended by itself and cannot be started again.
    pub fn run(&mut self, stop: impl AsFd) -> Result<(), NodeError> {
        let watch = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(WATCH.subsec_nanos()) };
        while self.keep_driver()? {
            #[cfg(feature = "hub")]
            if self.broker.as_ref().is_some_and(|broker| !broker.is_running()) {
                return Err(tidegate_hub::broker::BrokerError::Panicked.into());
            }
            let mut fds = [PollFd::new(&stop, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
            match poll(&mut fds, Some(&watch)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(NodeError::Io {
                        action: "wait at",
                        path: self.files.place.admin_socket(),
                        source: errno.into(),
                    });
                }
            }
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            if !fds[1].revents().is_empty() {
                match self.listener.accept() {
                    Ok((stream, _)) => self.admin.serve(stream),
                    Err(error) => tracing::debug!(%error, "an admin connection went away"),
                }
            }
        }
        Ok(())
    }

    /// False once the tensor driver was shut down by an administrator's message.
    fn keep_driver(&mut self) -> Result<bool, NodeError> {
        if self.driver.as_ref().is_some_and(AgentRunner::is_running) {
            return Ok(true);
        }
        match self.driver.take().map(AgentRunner::stop) {
            Some(Ok(()) | Err(RunnerError::Agent(DriverAgentError::Stopped))) => return Ok(false),
            Some(Err(RunnerError::Agent(
                error @ (DriverAgentError::Transport(_) | DriverAgentError::Publication { .. }),
            ))) => tracing::warn!(%error, "starting the tensor driver anew"),
            Some(Err(error)) => return Err(driver_failed(error)),
            None => {}
        }
        match self.recipe.start() {
            Ok((driver, admin)) => {
                self.driver = Some(driver);
                self.admin = admin;
            }
            // Tried again at the next look.
            Err(NodeError::Driver(DriverAgentError::Transport(error))) => {
                tracing::debug!(%error, "no media driver yet");
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Stops the services, with their notices, and removes the node's files.
    ///
    /// # Errors
    /// When a service ended badly; the rest is cleaned up all the same.
    pub fn stop(mut self) -> Result<(), NodeError> {
        let driver = match self.driver.take().map(AgentRunner::stop) {
            None | Some(Ok(()) | Err(RunnerError::Agent(DriverAgentError::Stopped))) => Ok(()),
            Some(Err(error)) => Err(driver_failed(error)),
        };
        #[cfg(feature = "hub")]
        let broker = self.broker.take().map_or(Ok(()), HostedBroker::stop);
        let media_driver = self.media_driver.take().map_or(Ok(()), MediaDriver::close);
        drop(self);
        driver?;
        #[cfg(feature = "hub")]
        broker?;
        Ok(media_driver?)
    }
}

impl NodeFiles {
    /// Makes or takes over the directory.
    fn acquire(place: NodePlace) -> Result<Self, NodeError> {
        let dir = place.dir().to_owned();
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_dir(&dir)?,
            Err(source) => return Err(NodeError::Io { action: "create", path: dir, source }),
        }
        let lock = DirLock::acquire(&place.lock()).map_err(|error| match error {
            LockError::Held { holder, .. } => {
                NodeError::Held { dir: dir.clone(), pid: holder.map(|id| id.pid) }
            }
            other => NodeError::Lock(other),
        })?;
        // Whatever a former node left is stale now that the lock is ours.
        for stale in [place.description(), place.admin_socket()] {
            remove(&stale)?;
        }
        Ok(Self { place, region_dirs: Vec::new(), lock: Some(lock) })
    }

    /// Regions inside the node's directory, removed with it.
    fn default_config(&self) -> DriverConfig {
        let dir = self.place.dir().to_owned();
        let mut config = DriverConfig::default_node();
        config.shm.allowed_base_dirs = vec![dir.clone()];
        config.shm.base_dir = dir;
        config.policies.cleanup_shm_on_exit = true;
        config.policies.epoch_gc_on_startup = true;
        config
    }

    /// Notes the directories to be removed with the node's own: those of the regions, when they lie in it.
    fn find_region_dirs(&mut self, config: &DriverConfig) {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let base = real(&config.shm.base_dir);
        if base.starts_with(real(self.place.dir())) {
            let user = base.join(format!("tensorpool-{}", user_component(&user_name())));
            self.region_dirs = vec![user.join(config.shm.namespace.as_str()), user];
        }
    }
}

impl Drop for NodeFiles {
    fn drop(&mut self) {
        for path in [self.place.description(), self.place.admin_socket()] {
            if let Err(error) = remove(&path) {
                tracing::warn!(%error, "could not clean up");
            }
        }
        let mut aeron_lock = self.place.aeron_dir().into_os_string();
        aeron_lock.push(".lock");
        let driver_lock = self.region_dirs.first().map(|dir| dir.join(".driver.lock"));
        // Lock files go while the node's own lock is still held, so that nobody can have taken them.
        let locks = driver_lock.into_iter().chain([PathBuf::from(aeron_lock), self.place.lock()]);
        for path in locks {
            if let Err(error) = remove(&path) {
                tracing::warn!(%error, "could not clean up");
            }
        }
        self.lock = None;
        // Fails, rightly, when somebody else keeps files in them.
        for dir in self.region_dirs.iter().map(PathBuf::as_path).chain([self.place.dir()]) {
            if let Err(error) = fs::remove_dir(dir) {
                tracing::debug!(dir = %dir.display(), %error, "a directory stays");
            }
        }
    }
}

/// Refuses a directory that somebody else could tamper with.
fn check_dir(dir: &Path) -> Result<(), NodeError> {
    let refuse = |reason| Err(NodeError::Directory { dir: dir.to_owned(), reason });
    let metadata = fs::symlink_metadata(dir).map_err(|source| NodeError::Io {
        action: "look at",
        path: dir.to_owned(),
        source,
    })?;
    if !metadata.is_dir() {
        return refuse("it is not a directory");
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return refuse("it belongs to another user");
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        return refuse("others may write to it; take that right away with chmod go-w");
    }
    Ok(())
}

fn describe(config: &DriverConfig, aeron_dir: &Path) -> Result<NodeDescription, NodeError> {
    let process = ProcessId::current().map_err(NodeError::Identity)?;
    let endpoint = |endpoint: &Endpoint| EndpointDescription {
        channel: endpoint.channel.as_str().to_owned(),
        stream_id: endpoint.stream_id.get(),
    };
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Ok(NodeDescription {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: process.pid,
        start_time: process.start_time,
        aeron_dir: aeron_dir.to_owned(),
        shm_base_dir: config.shm.base_dir.clone(),
        control: endpoint(&config.driver.control),
        announce: endpoint(&config.driver.announce),
        qos: endpoint(&config.driver.qos),
        announce_period_ms: millis(config.policies.announce_period),
        keepalive_interval_ms: millis(config.policies.lease_keepalive_interval),
        lease_grace_intervals: config.policies.lease_expiry_grace_intervals,
        stream_ids: served_ids(config).iter().map(|range| (range.start(), range.end())).collect(),
    })
}

fn bind(path: &Path) -> Result<UnixListener, NodeError> {
    let failed = |source| NodeError::Io { action: "listen at", path: path.to_owned(), source };
    let listener = UnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

pub(super) fn remove(path: &Path) -> Result<(), NodeError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(NodeError::Io { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn driver_failed(error: RunnerError<DriverAgentError>) -> NodeError {
    match error {
        RunnerError::Agent(error) => error.into(),
        other => NodeError::Thread(other),
    }
}
