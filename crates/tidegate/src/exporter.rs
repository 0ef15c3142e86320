//! The `/metrics` page: what Prometheus collects from a host.
//!
//! A tiny server for one purpose. It listens on loopback only and answers `GET /metrics` and nothing else, each connection within
//! [`REQUEST_TIME`] and [`MAX_REQUEST`] bytes. What it tells comes from collectors: blocks
//! ([`BlockMetrics`](tidegate_hub::metrics::prometheus::BlockMetrics)), tensor streams ([`NodeMetrics`]), and lists of
//! numbers of whoever has any ([`Numbers`]), such as a broker.

mod broker;
mod node;
mod numbers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::registry::Registry;

use crate::http::{Listener, NOT_FOUND, Request, Response, Server, WRONG_METHOD};

pub use crate::http::{MAX_REQUEST, REQUEST_TIME};
pub use broker::broker_numbers;
pub use node::NodeMetrics;
pub use numbers::{Number, Numbers};

/// A running server. Ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Exporter {
    address: SocketAddr,
    server: Server,
}

/// Why there is no `/metrics` page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExporterError {
    /// The numbers are for programs of this host.
    #[error("{address} is no loopback address; serve other hosts through a proxy that knows whom to answer")]
    NotLoopback {
        /// As given.
        address: SocketAddr,
    },
    /// The address cannot be had.
    #[error("cannot listen at {address}: {source}; give another port")]
    Listen {
        /// As given.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server ended.
    #[error("the metrics server ended: {source}")]
    Ended {
        /// Why.
        source: io::Error,
    },
}

impl Exporter {
    /// Serves what `collectors` say at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// No loopback address, or the address is taken.
    pub fn start(address: SocketAddr, collectors: Vec<Box<dyn Collector>>) -> Result<Self, ExporterError> {
        if !address.ip().is_loopback() {
            return Err(ExporterError::NotLoopback { address });
        }
        let failed = |source| ExporterError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let mut registry = Registry::default();
        for collector in collectors {
            registry.register_collector(collector);
        }
        let handler = Arc::new(move |request: &Request| page(request, &registry));
        let server =
            Server::start("metrics", Listener::Tcp(listener), MAX_READERS, handler).map_err(failed)?;
        Ok(Self { address: bound, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it still serves.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.server.is_running()
    }

    /// Ends it.
    ///
    /// # Errors
    /// Why it had ended before.
    pub fn stop(mut self) -> Result<(), ExporterError> {
        self.server.join().map_err(|source| ExporterError::Ended { source })
    }
}

fn page(request: &Request, registry: &Registry) -> Response {
    const HINT: &str = "GET /metrics";
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/metrics") => match tidegate_hub::metrics::prometheus::exposition(registry) {
            Ok(body) => Response { status: "200 OK", kind: OPEN_METRICS, body },
            Err(_) => Response::refusal("500 Internal Server Error", "a collector failed"),
        },
        ("GET", _) => Response::refusal(NOT_FOUND, HINT),
        _ => Response::refusal(WRONG_METHOD, HINT),
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections that are answered at a time.
const MAX_READERS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_is_served() {
        let status = |method: &str, path: &str| {
            let request = Request { method: method.to_owned(), path: path.to_owned(), body: Vec::new() };
            page(&request, &Registry::default()).status
        };
        assert_eq!(status("GET", "/metrics"), "200 OK");
        assert_eq!(status("GET", "/"), NOT_FOUND);
        assert_eq!(status("GET", "/metrics/../etc/passwd"), NOT_FOUND);
        assert_eq!(status("POST", "/metrics"), WRONG_METHOD);
    }
}
