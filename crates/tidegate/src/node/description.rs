//! The node's description: what a client must know to use it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidegate_shm::process::{ProcessHandle, ProcessId};
use tidegate_tensor::config::{DriverConfig, IdRange, IdRanges};

use super::error::NodeError;
use super::place::NodePlace;

/// Content of `node.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Version of the program that runs the node.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Start time of the process, so that a later process with the same id is not taken for the node.
    pub start_time: u64,
    /// Directory of the media driver.
    pub aeron_dir: PathBuf,
    /// Directory that all regions lie in.
    pub shm_base_dir: PathBuf,
    /// Driver messages.
    pub control: EndpointDescription,
    /// Announces.
    pub announce: EndpointDescription,
    /// QoS.
    pub qos: EndpointDescription,
    /// Announce period in milliseconds.
    pub announce_period_ms: u64,
    /// Keepalive interval in milliseconds.
    pub keepalive_interval_ms: u64,
    /// Keepalive intervals a lease survives.
    pub lease_grace_intervals: u32,
    /// Streams that can exist, as first and last number: the configured ones, and the range of those made on demand.
    pub stream_ids: Vec<(u32, u32)>,
}

/// One Aeron address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointDescription {
    /// The channel.
    pub channel: String,
    /// The Aeron stream id.
    pub stream_id: i32,
}

impl NodeDescription {
    /// Reads the description of a live node.
    ///
    /// # Errors
    /// [`NodeError::NotRunning`] when there is none, or its process is dead; [`NodeError::Foreign`] when it is of another
    /// user.
    pub fn read(place: &NodePlace) -> Result<Self, NodeError> {
        let path = place.description();
        let not_running = || NodeError::NotRunning {
            dir: place.dir().to_owned(),
            default_dir: *place == NodePlace::find(None, std::env::var_os(super::place::DIR_VARIABLE)),
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_running()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(NodeError::Foreign { dir: place.dir().to_owned() });
            }
            Err(source) => return Err(NodeError::Io { action: "read", path, source }),
        };
        let description: Self =
            serde_json::from_slice(&text).map_err(|source| NodeError::Description { path, source })?;
        if description.is_alive() { Ok(description) } else { Err(not_running()) }
    }

    /// The streams that can exist.
    #[must_use]
    pub fn served_ids(&self) -> IdRanges {
        let ranges = self.stream_ids.iter().filter_map(|&(first, last)| IdRange::new(first, last).ok());
        IdRanges::new(ranges.collect())
    }

    /// Whether the process that wrote it still lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        ProcessHandle::open(ProcessId { pid: self.pid, start_time: self.start_time })
            .is_ok_and(|handle| handle.is_alive())
    }

    /// Replaces the description in one step.
    pub(super) fn write(&self, place: &NodePlace) -> Result<(), NodeError> {
        let path = place.description();
        let failed = |source| NodeError::Io { action: "write", path: path.clone(), source };
        let staged = path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&staged)
            .and_then(|mut file| file.write_all(&text));
        written.and_then(|()| fs::rename(&staged, &path)).map_err(failed)
    }
}

/// The streams that a driver with this configuration can have.
#[must_use]
pub fn served_ids(config: &DriverConfig) -> IdRanges {
    let one = |id: u32| IdRange::new(id, id).ok();
    let configured = config.streams.iter().filter_map(|stream| one(stream.stream_id.get()));
    let dynamic = config.driver.stream_id_range.iter().filter(|_| config.policies.allow_dynamic_streams);
    IdRanges::new(configured.chain(dynamic.copied()).collect())
}
