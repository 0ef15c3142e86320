//! Asking a running node.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidegate_tensor::ids::StreamId;

use super::admin::Request;
use super::description::NodeDescription;
use super::error::NodeError;
use super::place::NodePlace;
use super::status::NodeStatus;

const TIMEOUT: Duration = Duration::from_secs(5);
/// A status of the largest node there can be stays far below this.
const MAX_ANSWER: u64 = 64 << 20;

/// A live node on this host.
#[derive(Debug, Clone)]
pub struct NodeClient {
    place: NodePlace,
    description: NodeDescription,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer<T> {
    Ok(T),
    Error { code: String, message: String },
}

#[derive(Deserialize)]
struct Resolved {
    stream: u32,
}

impl NodeClient {
    /// Finds the node of a directory.
    ///
    /// # Errors
    /// [`NodeError::NotRunning`].
    pub fn find(place: &NodePlace) -> Result<Self, NodeError> {
        Ok(Self { place: place.clone(), description: NodeDescription::read(place)? })
    }

    /// What its clients need to know.
    #[must_use]
    pub fn description(&self) -> &NodeDescription {
        &self.description
    }

    /// Its streams and leases.
    ///
    /// # Errors
    /// [`NodeError::NoAnswer`] when it hangs, [`NodeError::NotRunning`] when it has just ended.
    pub fn status(&self) -> Result<NodeStatus, NodeError> {
        self.ask(&Request::Status)
    }

    /// The stream of a name; with `create`, a new one when the name is new.
    ///
    /// # Errors
    /// [`NodeError::Refused`] with code `unknown_stream` or `name_refused`; otherwise as [`NodeClient::status`].
    pub fn resolve(&self, name: &str, create: bool) -> Result<StreamId, NodeError> {
        let resolved: Resolved = self.ask(&Request::Resolve { name: name.to_owned(), create })?;
        Ok(StreamId::new(resolved.stream))
    }

    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, NodeError> {
        let path = self.place.admin_socket();
        let failed = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => NodeError::NoAnswer {
                dir: self.place.dir().to_owned(),
                pid: self.description.pid,
                after: TIMEOUT,
            },
            _ => NodeError::Io { action: "ask the node through", path: path.clone(), source },
        };
        let stream = UnixStream::connect(&path).map_err(failed)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
        let mut text = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        (&stream).write_all(&text).map_err(failed)?;
        let mut line = Vec::new();
        BufReader::new((&stream).take(MAX_ANSWER)).read_until(b'\n', &mut line).map_err(failed)?;
        match serde_json::from_slice(&line) {
            Ok(Answer::Ok(value)) => Ok(value),
            Ok(Answer::Error { code, message }) => Err(NodeError::Refused { code, message }),
            Err(error) => Err(failed(error.into())),
        }
    }
}
