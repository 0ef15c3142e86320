//! Clients of the tensor pool: the conductor, producers and consumers (chapters 16 and 23).
//!
//! A [`Client`] owns one connection to a media driver and any number of endpoints. Its duty cycle attaches them, keeps
//! their leases, follows epochs and repairs the connection, on a thread of its own ([`Client::start`]) or driven by the
//! application ([`Client::with_invoker`]). Frames are written and read by the endpoints, on the application's threads.
//!
//! After any loss (lease, driver, media driver) the client attaches again by itself; an endpoint needs no care
//! beyond going on to call it.

mod adding;
mod conductor;
mod consumer;
mod context;
mod error;
mod event;
mod handoff;
mod lease;
mod mapping;
mod producer;
mod random;

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use tidegate_shm::sync::{Arc, AtomicBool, Ordering};

use self::conductor::Command;
use crate::agent::{AgentRunner, RunnerError};
use crate::clock::{Clock, SystemClock};
use crate::transport::Connector;

pub use adding::Adding;
pub use conductor::ClientAgent;
pub use consumer::{
    Consumer, ConsumerConfig, ConsumerStatus, ConsumerTotals, Drops, ReadOutcome, RegionOrigin,
};
pub use context::{Context, ContextError, Endpoint};
pub use error::{ClientError, PollError, PublishError};
pub use event::{ClientEvent, Listener};
pub use lease::{LeaseLoss, MalformedGrant, Refusal, RefusalCode};
pub use mapping::{MappingState, UnmapReason};
pub use producer::{Producer, ProducerConfig, ProducerStats, ProducerStatus, RegionSource};

/// Requests that may wait for the conductor (TP-435).
const COMMAND_CAPACITY: usize = 1024;

/// A client of a tensor driver, or of producers without one. Dropping it closes it, with its detaches.
#[derive(Debug)]
pub struct Client {
    commands: SyncSender<Command>,
    closing: Arc<AtomicBool>,
    runner: Option<AgentRunner<ClientError>>,
}

impl Client {
    /// Connects and runs the duty cycle on a thread of its own.
    ///
    /// # Errors
    /// No media driver, a bad setting, or no thread.
    pub fn start(
        context: Context,
        connector: Arc<dyn Connector>,
        listener: Listener,
    ) -> Result<Self, ClientError> {
        let idle = context.idle;
        let (mut client, agent) = Self::with_invoker(context, connector, Arc::new(SystemClock), listener)?;
        let runner = AgentRunner::start(agent, idle).map_err(|error| match error {
            RunnerError::Spawn { source, .. } => ClientError::Thread(source),
            RunnerError::Agent(error) => error,
            RunnerError::Panicked { .. } => ClientError::Closed,
        })?;
        client.runner = Some(runner);
        Ok(client)
    }

    /// Connects and hands the duty cycle to the caller, who calls [`Agent::do_work`](crate::agent::Agent::do_work) often,
    /// and [`Agent::close`](crate::agent::Agent::close) at the end.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub fn with_invoker(
        context: Context,
        connector: Arc<dyn Connector>,
        clock: Arc<dyn Clock>,
        listener: Listener,
    ) -> Result<(Self, ClientAgent), ClientError> {
        let (commands, queue) = sync_channel(COMMAND_CAPACITY);
        let closing = Arc::new(AtomicBool::new(false));
        let agent = ClientAgent::new(context, connector, clock, listener, queue, Arc::clone(&closing))?;
        Ok((Self { commands, closing, runner: None }, agent))
    }

    /// Asks for a producer. The handle completes once its regions are mapped and its descriptors have a way out.
    ///
    /// # Errors
    /// [`ClientError::TryAgain`] when 1024 requests wait already; [`ClientError::Closed`].
    pub fn add_producer(&self, config: ProducerConfig) -> Result<Adding<Producer>, ClientError> {
        let (adding, completion) = Adding::new();
        self.enqueue(Command::AddProducer(config, completion))?;
        Ok(adding)
    }

    /// Asks for a consumer. The handle completes once the driver granted a lease, or at once without a driver.
    ///
    /// # Errors
    /// As [`Client::add_producer`].
    pub fn add_consumer(&self, config: ConsumerConfig) -> Result<Adding<Consumer>, ClientError> {
        let (adding, completion) = Adding::new();
        self.enqueue(Command::AddConsumer(config, completion))?;
        Ok(adding)
    }

    /// Detaches every endpoint, waits at most a second for the answers, ends the thread. Endpoints that are still held
    /// report that the client is closed.
    ///
    /// # Errors
    /// What ended the duty cycle before, if something did.
    pub fn close(mut self) -> Result<(), ClientError> {
        match self.runner.take().map(AgentRunner::stop) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(RunnerError::Agent(error))) => Err(error),
            Some(Err(_)) => Err(ClientError::Closed),
        }
    }

    fn enqueue(&self, command: Command) -> Result<(), ClientError> {
        // Acquire: pairs with the Release of the closing conductor.
        if self.closing.load(Ordering::Acquire) {
            return Err(ClientError::Closed);
        }
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => ClientError::TryAgain,
            TrySendError::Disconnected(_) => ClientError::Closed,
        })
    }
}
