//! Operating a vertex: its admin socket, its metrics and its health (18.2, chapter 19).
//!
//! | path | where | |
//! |---|---|---|
//! | `GET /status`, `/partitions/N`, `/lanes/N` | socket | what there is to know |
//! | `POST /fence` | socket | takes the right to write away, now |
//! | `POST /drain`, `/pause`, `/resume` | socket | what is wanted of partitions |
//! | `POST /log-level` | socket | `{"level":"debug"}` |
//! | `GET /metrics`, `/livez`, `/readyz` | port | |
//!
//! Bodies are JSON: `{"partition":3,"wait_ms":100}`, without `partition` for all. What changes something exists only on the socket,
//! which only its user can open (VX-867). Every request has a thread of its own, and none waits for the thread that runs the
//! vertex without a deadline.

mod place;
mod prometheus;

use std::fs::Permissions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_vertex::operate::status::{Health, PartitionState, PartitionStatus, SinkStatus, Status};
use tidegate_vertex::operate::{Control, UnknownPartition, Which, Wish};

use crate::http::{self, Listener, NOT_FOUND, Request, Response, Server, WRONG_METHOD};

pub use place::{admin_socket, running};

/// Changes the level of the log; the text names levels when it refuses one.
pub type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Where and how a vertex is served.
#[derive(Clone)]
pub struct Served {
    /// The admin socket.
    pub socket: Option<PathBuf>,
    /// Whether its directory is for admin sockets alone, and goes with the last of them.
    pub own_dir: bool,
    /// Where metrics and health are.
    pub metrics: Option<SocketAddr>,
    /// The sinks and what is promised of them.
    pub sinks: Vec<SinkStatus>,
    /// Changes the level of the log.
    pub set_level: Arc<SetLevel>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served")
            .field("socket", &self.socket)
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}

/// A vertex and what it does not know of itself.
struct Watched {
    control: Control,
    sinks: Vec<SinkStatus>,
}

impl Watched {
    fn status(&self) -> Status {
        let mut status = self.control.status();
        let counted = std::mem::take(&mut status.sinks);
        let promised = self.sinks.iter().cloned();
        let both = promised.map(|sink| match counted.iter().find(|counted| counted.sink == sink.sink) {
            Some(counted) => SinkStatus { class: sink.class, guarantee: sink.guarantee, ..counted.clone() },
            None => sink,
        });
        Status { sinks: both.collect(), ..status }
    }
}

/// The servers of a vertex. They end, and the socket goes, when this is dropped.
#[derive(Debug)]
pub struct Operations {
    /// Before the path, so that nobody finds a socket that is not served.
    admin: Option<Server>,
    socket: Option<PathBuf>,
    own_dir: bool,
    metrics: Option<(SocketAddr, Server)>,
}

/// Why a vertex cannot be operated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationsError {
    /// The socket cannot be made.
    #[error("cannot listen at the admin socket {path}: {source}; name another one as admin.socket")]
    Socket {
        /// As configured.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process listens there.
    #[error(
        "the admin socket {path} is that of a running vertex; give each pipeline its own name, or name another socket as admin.socket"
    )]
    Taken {
        /// As configured.
        path: PathBuf,
    },
    /// The port cannot be had.
    #[error("cannot listen at {address}: {source}; give another metrics.listen")]
    Port {
        /// As configured.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no answer.
    #[error("no vertex answers at {path}: {source}; is it running?")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The vertex refused.
    #[error("the vertex refused ({code}): {message}")]
    Refused {
        /// Status of HTTP.
        code: u16,
        /// Why.
        message: String,
    },
}

impl Operations {
    /// Serves a vertex.
    ///
    /// # Errors
    /// Socket or port cannot be had.
    pub fn start(control: &Control, served: Served) -> Result<Self, OperationsError> {
        let mut operations = Self { admin: None, socket: None, own_dir: served.own_dir, metrics: None };
        let vertex = Arc::new(Watched { control: control.clone(), sinks: served.sinks });
        if let Some(path) = served.socket {
            let listener = listen(&path)?;
            let (vertex, set_level) = (vertex.clone(), served.set_level);
            let handler = Arc::new(move |request: &Request| admin(request, &vertex, &*set_level));
            let server = Server::start("admin", Listener::Unix(listener), MAX_CONNECTIONS, handler);
            operations.socket = Some(path.clone());
            operations.admin = Some(server.map_err(|source| OperationsError::Socket { path, source })?);
        }
        if let Some(address) = served.metrics {
            let failed = |source| OperationsError::Port { address, source };
            let listener = TcpListener::bind(address).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            let handler = Arc::new(move |request: &Request| page(request, &vertex));
            let server = Server::start("metrics", Listener::Tcp(listener), MAX_CONNECTIONS, handler);
            operations.metrics = Some((bound, server.map_err(failed)?));
        }
        Ok(operations)
    }

    /// The admin socket.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Where metrics are.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(address, _)| *address)
    }
}

impl Drop for Operations {
    fn drop(&mut self) {
        self.admin = None;
        if let Some(path) = &self.socket {
            leave(path, self.own_dir);
        }
    }
}

/// Listens at a path that nobody else may open; one that a dead process left is taken.
fn listen(path: &Path) -> Result<UnixListener, OperationsError> {
    let failed = |source| OperationsError::Socket { path: path.to_owned(), source };
    match UnixStream::connect(path) {
        Ok(_) => return Err(OperationsError::Taken { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)?;
        }
        Err(_) => {}
    }
    // Made under another name, so that it is closed to others before it can be found.
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let listener = bind(&new).map_err(failed)?;
    let named = std::fs::set_permissions(&new, Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&new, path));
    if let Err(error) = named {
        let _ = std::fs::remove_file(&new);
        return Err(failed(error));
    }
    Ok(listener)
}

/// Removes a socket, and its directory if that is for sockets alone and this was the last of them.
fn leave(path: &Path, own_dir: bool) {
    // Somebody may have tidied up.
    let _ = std::fs::remove_file(path);
    if let Some(dir) = path.parent().filter(|_| own_dir) {
        // Refused while other vertices have theirs there.
        let _ = std::fs::remove_dir(dir);
    }
}

/// Makes a socket and its directory, which a vertex that ends may remove while it is empty: then once more.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let made = || {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            // Says that it is there already when it goes between the two looks at it.
            std::fs::create_dir_all(dir)?;
        }
        UnixListener::bind(path)
    };
    let goes =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists);
    let mut tries = 0;
    loop {
        match made() {
            Err(error) if goes(&error) && tries < MOST_TRIES => tries += 1,
            bound => return bound,
        }
    }
}

/// Asks a running vertex; the answer is an object.
///
/// # Errors
/// It does not answer in time, or refuses.
pub fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    body: &Value,
    within: Duration,
) -> Result<Value, OperationsError> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let unreachable = |source| OperationsError::Unreachable { path: socket.to_owned(), source };
    let http::Answer { code, body } =
        http::ask(socket, method, path, &body, within + MARGIN).map_err(unreachable)?;
    if code != 200 {
        return Err(OperationsError::Refused { code, message: body.trim().to_owned() });
    }
    serde_json::from_str(&body)
        .map_err(|error| unreachable(io::Error::new(io::ErrorKind::InvalidData, error)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Order {
    partition: Option<u32>,
    reason: String,
    wait_ms: Option<u64>,
    exit: bool,
    level: String,
}

impl Order {
    fn which(&self) -> Which {
        self.partition.map_or(Which::All, |partition| Which::One(tidegate_vertex::PartitionId(partition)))
    }

    fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms.unwrap_or(100)).min(LONGEST_WAIT)
    }
}

fn admin(request: &Request, vertex: &Watched, set_level: &SetLevel) -> Response {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/status") => ok(&vertex.status()),
        ("GET", path) => look(path, &vertex.status()),
        ("POST", path @ ("/fence" | "/drain" | "/pause" | "/resume" | "/log-level")) => {
            let order = match request.body.as_slice() {
                [] => Ok(Order::default()),
                body => serde_json::from_slice(body),
            };
            match order {
                Ok(order) => obey(path, &order, &vertex.control, set_level),
                Err(error) => Response::refusal("400 Bad Request", &error.to_string()),
            }
        }
        ("POST", _) => Response::refusal(NOT_FOUND, "/fence, /drain, /pause, /resume, /log-level"),
        _ => Response::refusal(WRONG_METHOD, "GET or POST"),
    }
}

/// One partition or lane.
fn look(path: &str, status: &Status) -> Response {
    let found = path.strip_prefix("/partitions/").map(|number| {
        let number = number.parse::<usize>().ok()?;
        Some(ok(status.partitions.get(number)?))
    });
    let found = found.or_else(|| {
        path.strip_prefix("/lanes/").map(|number| {
            let number = number.parse::<usize>().ok()?;
            Some(ok(status.lanes.get(number)?))
        })
    });
    found.flatten().unwrap_or_else(|| Response::refusal(NOT_FOUND, "/status, /partitions/N, /lanes/N"))
}

fn obey(path: &str, order: &Order, control: &Control, set_level: &SetLevel) -> Response {
    let which = order.which();
    let done = match path {
        "/fence" => {
            if !order.reason.is_empty() {
                tracing::warn!(reason = order.reason, "an operator fences");
            }
            control.fence(which, order.wait()).map(|fencings| json!({ "fenced": fencings }))
        }
        "/drain" => control.wish(which, Wish::Drain).map(|()| {
            let progress = await_rest(control, which, Wish::Drain, order.wait());
            if order.exit {
                control.end_when_drained();
            }
            progress
        }),
        "/pause" => {
            control.wish(which, Wish::Pause).map(|()| await_rest(control, which, Wish::Pause, order.wait()))
        }
        "/resume" => control.wish(which, Wish::Run).map(|()| json!({ "resumed": true })),
        _ => match set_level(&order.level) {
            Ok(()) => Ok(json!({ "level": order.level })),
            Err(message) => return Response::refusal("400 Bad Request", &message),
        },
    };
    match done {
        Ok(answer) => ok(&answer),
        Err(error @ UnknownPartition { .. }) => Response::refusal(NOT_FOUND, &error.to_string()),
    }
}

/// Waits until what is wanted is so, or the time is over, and says how far it is (VX-866).
fn await_rest(control: &Control, which: Which, wish: Wish, wait: Duration) -> Value {
    let deadline = Instant::now() + wait;
    let word = if wish == Wish::Pause { "paused" } else { "drained" };
    loop {
        let status = control.status();
        let meant = |partition: &&PartitionStatus| match which {
            Which::All => true,
            Which::One(id) => id.0 == partition.partition,
        };
        let meant: Vec<&PartitionStatus> = status.partitions.iter().filter(meant).collect();
        // A partition that cannot go on is as far as it gets.
        let is_stuck = |state| matches!(state, PartitionState::Stopped | PartitionState::Fenced);
        let rests = |partition: &&PartitionStatus| match partition.state {
            PartitionState::Drained | PartitionState::Finished | PartitionState::Unowned => true,
            PartitionState::Paused => wish == Wish::Pause && partition.unfinished == 0,
            _ => false,
        };
        let done = meant.iter().all(rests);
        let waits = meant.iter().any(|partition| !rests(partition) && !is_stuck(partition.state));
        if !waits || Instant::now() >= deadline {
            let unfinished: u64 = meant.iter().map(|partition| partition.unfinished).sum();
            let partitions: Vec<Value> = meant
                .iter()
                .map(|partition| {
                    json!({
                        "partition": partition.partition,
                        "state": partition.state,
                        "unfinished": partition.unfinished,
                        "resume": partition.resume,
                    })
                })
                .collect();
            return json!({ word: done, "unfinished": unfinished, "partitions": partitions });
        }
        std::thread::sleep(LOOK);
    }
}

fn page(request: &Request, vertex: &Watched) -> Response {
    const HINT: &str = "GET /metrics, /livez, /readyz";
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/metrics") => match prometheus::exposition(vertex.status()) {
            Ok(body) => Response { status: "200 OK", kind: prometheus::KIND, body },
            Err(_) => Response::refusal("500 Internal Server Error", "the numbers cannot be written"),
        },
        ("GET", "/livez") => health(&vertex.control.last_status().liveness()),
        ("GET", "/readyz") => health(&vertex.control.status().readiness()),
        ("GET", _) => Response::refusal(NOT_FOUND, HINT),
        _ => Response::refusal(WRONG_METHOD, HINT),
    }
}

fn health(health: &Health) -> Response {
    let status = if health.ok { "200 OK" } else { "503 Service Unavailable" };
    Response { status, ..ok(health) }
}

fn ok(value: &impl serde::Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(body) => Response { status: "200 OK", kind: "application/json", body: body + "\n" },
        Err(error) => Response::refusal("500 Internal Server Error", &error.to_string()),
    }
}

/// Requests that are answered at a time: some may wait for a drain.
const MAX_CONNECTIONS: usize = 16;
/// Vertices that may end, each at the moment at which another one begins.
const MOST_TRIES: u32 = 100;
/// Time between looks at a vertex that comes to rest.
const LOOK: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// What an answer may take beyond what was asked to be waited for.
const MARGIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    /// Vertices that begin and end at the same time: each gets its socket, and the last one leaves nothing.
    #[test]
    fn the_directory_of_sockets_goes_with_the_last_of_them() {
        let node = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| admin_socket(node.path(), name));
        std::thread::scope(|scope| {
            for path in &paths {
                scope.spawn(move || {
                    for _ in 0..500 {
                        let listener = listen(path).unwrap();
                        assert!(UnixStream::connect(path).is_ok());
                        drop(listener);
                        leave(path, true);
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(node.path()).unwrap().count(), 0);
        // One that a user has named stays, and so does one in which somebody else is.
        let listeners = [listen(&paths[0]).unwrap(), listen(&paths[1]).unwrap()];
        leave(&paths[0], true);
        assert!(paths[1].exists());
        leave(&paths[1], false);
        assert!(paths[1].parent().unwrap().exists());
        drop(listeners);
    }
}
