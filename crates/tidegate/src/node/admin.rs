//! The admin socket: one JSON request per line, one JSON answer per line.
//!
//! ```text
//! {"op":"status"}                              -> {"ok":{...NodeStatus...}}
//! {"op":"resolve","name":"cam","create":true}  -> {"ok":{"stream":20000}}
//! anything else                                -> {"error":{"code":"...","message":"..."}}
//! ```
//!
//! The socket lies in a directory that only the node's user can enter. Connections are served by short-lived threads,
//! bounded in number, in the size of a request and in time.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_shm::sync::{AtomicUsize, Ordering};
use tidegate_tensor::driver::{DriverHandle, HandleError};

use super::status::NodeStatus;

const MAX_CONNECTIONS: usize = 16;
const MAX_REQUEST: u64 = 4096;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
const DRIVER_TIMEOUT: Duration = Duration::from_secs(2);

/// A question to the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    /// Everything about the tensor driver.
    Status,
    /// The stream of a name.
    Resolve {
        /// The name.
        name: String,
        /// Make a stream when there is none.
        create: bool,
    },
}

/// Answers the questions.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    driver: DriverHandle,
    connections: Arc<AtomicUsize>,
}

impl Admin {
    pub(super) fn new(driver: DriverHandle) -> Self {
        Self { driver, connections: Arc::new(AtomicUsize::new(0)) }
    }

    /// Serves one connection on a thread of its own, or closes it when too many are open.
    pub(super) fn serve(&self, stream: UnixStream) {
        let admin = self.clone();
        // Relaxed: only a bound.
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let spawned = thread::Builder::new().name("admin".to_owned()).spawn(move || {
            if let Err(error) = admin.answer(&stream) {
                tracing::debug!(%error, "an admin connection ended");
            }
            admin.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = spawned {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%error, "cannot serve an admin connection");
        }
    }

    fn answer(&self, stream: &UnixStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        let mut line = Vec::new();
        BufReader::new(stream.take(MAX_REQUEST)).read_until(b'\n', &mut line)?;
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => self.execute(request),
            Err(error) => refusal("bad_request", &error.to_string()),
        };
        let mut text = answer.to_string();
        text.push('\n');
        let mut stream = stream;
        stream.write_all(text.as_bytes())
    }

    fn execute(&self, request: Request) -> serde_json::Value {
        let busy = |error: HandleError| refusal("driver_unavailable", &error.to_string());
        match request {
            Request::Status => match self.driver.snapshot(DRIVER_TIMEOUT) {
                Ok(snapshot) => json!({ "ok": NodeStatus::from(snapshot) }),
                Err(error) => busy(error),
            },
            Request::Resolve { name, create: true } => {
                match self.driver.create_stream_by_name(&name, DRIVER_TIMEOUT) {
                    Ok(Ok(stream)) => json!({ "ok": { "stream": stream.get() } }),
                    Ok(Err(error)) => refusal("name_refused", &error.to_string()),
                    Err(error) => busy(error),
                }
            }
            Request::Resolve { name, create: false } => match self.driver.resolve(&name, DRIVER_TIMEOUT) {
                Ok(Some(stream)) => json!({ "ok": { "stream": stream.get() } }),
                Ok(None) => refusal(
                    "unknown_stream",
                    &format!(
                        "no stream is called '{name}'; `tidegate tensor ls` shows those there are, and \
                         `tidegate tensor pub {name}` makes it"
                    ),
                ),
                Err(error) => busy(error),
            },
        }
    }
}

fn refusal(code: &str, message: &str) -> serde_json::Value {
    json!({ "error": { "code": code, "message": message } })
}
