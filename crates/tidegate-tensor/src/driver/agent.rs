//! The driver on a message transport.
//!
//! One duty cycle: questions of other threads, control messages, what these caused, timers, what those caused. The
//! clock is read once per cycle (TP-028). A cycle never waits for others, but one that makes regions takes as long as
//! the kernel needs to give and clear the memory; what arrives meanwhile is handled before anything is judged dead.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tidegate_shm::clock::Nanos;

use super::handle::Command;
use super::{
    Driver, DriverHandle, DriverOptions, DriverStartError, DriverState, Endpoint, ShutdownReason,
    share_a_stream,
};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::config::{DriverConfig, stream_ids};
use crate::transport::{
    Connector, OfferError, Opening, Publication, Subscription, Transport, TransportError,
};

/// Control messages taken per poll (TP-440).
const FRAGMENT_LIMIT: usize = 10;
/// Polls of the control stream per duty cycle.
const POLLS_PER_CYCLE: usize = 32;
/// Expiry is looked at this many times per keepalive interval even when requests keep coming (TP-257).
const EXPIRY_CHECKS: u64 = 10;
/// Attempts to send the farewell when the agent is closed.
const FAREWELL_ATTEMPTS: usize = 64;

/// Why a driver agent ended or did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverAgentError {
    /// The driver itself did not start.
    #[error("tensor driver: {0}")]
    Start(#[from] DriverStartError),
    /// The media driver is gone or refused an endpoint.
    #[error("tensor driver: {0}")]
    Transport(#[from] TransportError),
    /// A publication takes no messages any more.
    #[error("tensor driver: the {endpoint} publication is unusable: {source}; restart the driver")]
    Publication {
        /// `control` or `announce`.
        endpoint: &'static str,
        /// What the transport says.
        source: OfferError,
    },
    /// A shutdown was requested and has been carried out.
    #[error("tensor driver shut down as requested")]
    Stopped,
}

/// See the module documentation.
pub struct DriverAgent {
    /// `None` once closed.
    live: Option<Live>,
    endpoints: Endpoints,
    transport: Box<dyn Transport>,
    clock: Arc<dyn Clock>,
    handle: DriverHandle,
    /// Since when requests have been waiting at the end of each poll.
    backlog_since: Option<Nanos>,
}

/// What ends with [`Agent::close`].
#[derive(Debug)]
struct Live {
    driver: Driver,
    commands: Receiver<Command>,
}

impl DriverAgent {
    /// Takes the namespace, connects, and starts to open the control and announce endpoints; the duty cycle completes
    /// them.
    ///
    /// # Errors
    /// The driver does not start, or there is no media driver.
    pub fn start(
        config: DriverConfig,
        connector: &dyn Connector,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DriverAgentError> {
        // The hasher's keys come from the operating system's randomness.
        let options = DriverOptions::new(RandomState::new().hash_one(std::process::id()));
        let driver = Driver::new(config, options, clock.monotonic())?;
        let transport = connector.connect()?;
        let endpoints = Endpoints::open(driver.config(), &*transport)?;
        let (handle, commands) = DriverHandle::new();
        let live = Some(Live { driver, commands });
        Ok(Self { live, endpoints, transport, clock, handle, backlog_since: None })
    }

    /// For questions from other threads.
    #[must_use]
    pub fn handle(&self) -> DriverHandle {
        self.handle.clone()
    }

    /// Whether the control endpoint is open: requests are received.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.endpoints.is_ready()
    }
}

impl Agent for DriverAgent {
    type Error = DriverAgentError;

    fn name(&self) -> &str {
        "tensor-driver"
    }

    fn do_work(&mut self) -> Result<usize, DriverAgentError> {
        if let Some(failure) = self.transport.failure() {
            return Err(failure.into());
        }
        let mut work = self.transport.do_work();
        let Some(Live { driver, commands }) = &mut self.live else { return Err(DriverAgentError::Stopped) };
        let now = self.clock.monotonic();
        for command in commands.try_iter() {
            command.run(driver, now);
            work += 1;
        }
        if !self.endpoints.poll_opening(&*self.transport)? {
            return Ok(work);
        }

        let (handled, backlog) = self.endpoints.poll_control(driver, now)?;
        work += handled;
        // Keepalives that still wait in the transport must count before leases are declared dead, since this thread may
        // have been away for long. A flood of messages must not keep them alive for ever, though.
        let since = if backlog { *self.backlog_since.get_or_insert(now) } else { now };
        if !backlog {
            self.backlog_since = None;
        }
        let check_after = Nanos::from(driver.config().policies.lease_keepalive_interval).0 / EXPIRY_CHECKS;
        if !backlog || now.saturating_sub(since) >= Nanos(check_after) {
            driver.on_tick(now);
        }
        work += self.endpoints.poll_metadata(driver)?;
        work += self.endpoints.flush(driver, now)?;
        if driver.state() == DriverState::Stopped && !driver.has_outgoing() {
            return Err(DriverAgentError::Stopped);
        }
        Ok(work)
    }

    fn close(&mut self) {
        let Some(Live { mut driver, .. }) = self.live.take() else { return };
        let now = self.clock.monotonic();
        driver.shutdown(ShutdownReason::Normal, "driver closed", now);
        for _ in 0..FAREWELL_ATTEMPTS {
            let sent = self.endpoints.flush(&mut driver, now);
            if sent.is_err() || !driver.has_outgoing() {
                break;
            }
            std::thread::yield_now();
        }
        driver.close();
    }
}

impl std::fmt::Debug for DriverAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DriverAgent").field("live", &self.live).finish_non_exhaustive()
    }
}

/// The driver's ends of its streams.
struct Endpoints {
    requests: Slot<Box<dyn Subscription>>,
    /// Where producers say the names of their streams.
    metadata: Slot<Box<dyn Subscription>>,
    control: Slot<Box<dyn Publication>>,
    /// `None` when announces go out on the control publication.
    announce: Option<Slot<Box<dyn Publication>>>,
}

/// An endpoint that is there or on its way.
enum Slot<T> {
    Opening(Opening<T>),
    Open(T),
}

impl<T> Slot<T> {
    fn poll(&mut self, transport: &dyn Transport) -> Result<bool, TransportError> {
        if let Self::Opening(opening) = self
            && let Some(endpoint) = opening.poll(transport)?
        {
            *self = Self::Open(endpoint);
        }
        Ok(self.is_open())
    }

    fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }
}

impl Endpoints {
    fn open(config: &DriverConfig, transport: &dyn Transport) -> Result<Self, TransportError> {
        let (control, announce) = (&config.driver.control, &config.driver.announce);
        let publication = |endpoint: &crate::config::Endpoint| {
            Opening::publication(transport, &endpoint.channel, endpoint.stream_id).map(Slot::Opening)
        };
        Ok(Self {
            requests: Slot::Opening(Opening::subscription(transport, &control.channel, control.stream_id)?),
            metadata: Slot::Opening(Opening::subscription(
                transport,
                &control.channel,
                stream_ids::METADATA,
            )?),
            control: publication(control)?,
            announce: if share_a_stream(&config.driver) { None } else { Some(publication(announce)?) },
        })
    }

    fn is_ready(&self) -> bool {
        self.requests.is_open()
            && self.metadata.is_open()
            && self.control.is_open()
            && self.announce.as_ref().is_none_or(Slot::is_open)
    }

    /// Completes what is on its way; true when everything is there.
    fn poll_opening(&mut self, transport: &dyn Transport) -> Result<bool, TransportError> {
        if self.is_ready() {
            return Ok(true);
        }
        // The way out first: no request is taken that could not be answered.
        let mut ready = self.control.poll(transport)?;
        ready &= self.metadata.poll(transport)?;
        if let Some(announce) = &mut self.announce {
            ready &= announce.poll(transport)?;
        }
        Ok(ready && self.requests.poll(transport)?)
    }

    /// Takes requests in as long as their answers fit, and sends the answers. Returns how many, and whether more may be
    /// waiting.
    fn poll_control(&mut self, driver: &mut Driver, now: Nanos) -> Result<(usize, bool), DriverAgentError> {
        let mut handled = 0;
        for _ in 0..POLLS_PER_CYCLE {
            let limit = driver.request_room().min(FRAGMENT_LIMIT);
            let Slot::Open(requests) = &mut self.requests else { return Ok((handled, false)) };
            let polled = requests.poll(limit, &mut |message| driver.on_control(message.bytes, now))?;
            handled += polled;
            self.flush(driver, now)?;
            if polled < limit {
                return Ok((handled, false));
            }
            if limit == 0 {
                break;
            }
        }
        Ok((handled, true))
    }

    fn poll_metadata(&mut self, driver: &mut Driver) -> Result<usize, TransportError> {
        let Slot::Open(metadata) = &mut self.metadata else { return Ok(0) };
        metadata.poll(FRAGMENT_LIMIT, &mut |message| driver.on_metadata(message.bytes))
    }

    /// Sends what waits, as far as the transport takes it. Returns how many messages went out.
    fn flush(&mut self, driver: &mut Driver, now: Nanos) -> Result<usize, DriverAgentError> {
        let mut sent = 0;
        if let Slot::Open(control) = &mut self.control {
            sent += flush(driver, Endpoint::Control, &mut **control, now)?;
        }
        if let Some(Slot::Open(announce)) = &mut self.announce {
            sent += flush(driver, Endpoint::Announce, &mut **announce, now)?;
        }
        Ok(sent)
    }
}

fn flush(
    driver: &mut Driver,
    endpoint: Endpoint,
    publication: &mut dyn Publication,
    now: Nanos,
) -> Result<usize, DriverAgentError> {
    let mut sent = 0;
    while let Some(message) = driver.next_outgoing(endpoint, now) {
        match publication.offer(message) {
            Ok(_) => sent += 1,
            Err(OfferError::BackPressured | OfferError::AdminAction) => break,
            // A client that is not there yet asks again (TP-244), and announces are repeated.
            Err(OfferError::NotConnected) => driver.counters.dropped_unconnected += 1,
            Err(OfferError::TooLong) => {
                tracing::error!(
                    ?endpoint,
                    len = message.len(),
                    "a message is longer than the transport can carry"
                );
                driver.counters.dropped_refused += 1;
            }
            Err(source) => {
                let endpoint = match endpoint {
                    Endpoint::Control => "control",
                    Endpoint::Announce => "announce",
                };
                return Err(DriverAgentError::Publication { endpoint, source });
            }
        }
        driver.sent(endpoint);
    }
    Ok(sent)
}
