//! The `/metrics` page: what Prometheus collects from a host.
//!
//! A tiny server for one purpose. It listens on loopback only, answers `GET /metrics` and nothing else, one connection
//! after the other, each within [`REQUEST_TIME`] and [`MAX_REQUEST`] bytes. What it tells comes from collectors: blocks
//! ([`BlockMetrics`](tidegate_hub::metrics::prometheus::BlockMetrics)), tensor streams ([`NodeMetrics`]), and lists of
//! numbers of whoever has any ([`Numbers`]), such as a broker.

mod broker;
mod http;
mod node;
mod numbers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use prometheus_client::collector::Collector;
use prometheus_client::registry::Registry;
use rustix::event::{PollFd, PollFlags, poll};

pub use broker::broker_numbers;
pub use http::{MAX_REQUEST, REQUEST_TIME};
pub use node::NodeMetrics;
pub use numbers::{Number, Numbers};

/// A running server. Ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Exporter {
    address: SocketAddr,
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<Result<(), io::Error>>>,
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
        listener.set_nonblocking(true).map_err(failed)?;
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let mut registry = Registry::default();
        for collector in collectors {
            registry.register_collector(collector);
        }
        let serve = move || serve(&listener, &stopped, &registry);
        let thread = std::thread::Builder::new().name("metrics".to_owned()).spawn(serve).map_err(failed)?;
        Ok(Self { address: bound, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it still serves.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it.
    ///
    /// # Errors
    /// Why it had ended before.
    pub fn stop(mut self) -> Result<(), ExporterError> {
        self.join().map_err(|source| ExporterError::Ended { source })
    }

    fn join(&mut self) -> io::Result<()> {
        self.stop = None;
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("a collector panicked")),
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::warn!(%error, "the metrics server ended");
        }
    }
}

fn serve(listener: &TcpListener, stopped: &UnixStream, registry: &Registry) -> io::Result<()> {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        match listener.accept() {
            Ok((connection, _)) => {
                if let Err(error) = http::answer(connection, registry) {
                    tracing::debug!(%error, "a reader of metrics went away");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Without a descriptor for the connection the listener stays ready; waiting is better than spinning.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a reader of metrics");
                std::thread::sleep(http::REQUEST_TIME / 10);
            }
        }
    }
}
