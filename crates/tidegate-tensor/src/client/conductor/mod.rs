//! The conductor: the one duty cycle that owns a client's connection and the state of its endpoints (23.1).
//!
//! Endpoint handles live on other threads. They talk to the conductor by commands (bounded, TP-435) and by flags, and
//! receive mappings, subscriptions and publications through hand-offs, so that no frame ever waits for the conductor.
//!
//! Invariant: a fence is opened only after the keepalive that carries it was taken by the transport, and closed before
//! anything else happens when a lease ends.

mod consumers;
mod descriptors;
mod link;
mod producers;

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tidegate_sbe::AnyMessage;
use tidegate_shm::clock::Nanos;
use tidegate_shm::region::AllowedBases;
use tidegate_shm::sync::{Arc, AtomicBool, Ordering};

use self::consumers::ConsumerEntry;
use self::link::{Link, LinkState, OpeningLink};
use self::producers::ProducerEntry;
use super::adding::Completion;
use super::consumer::{Consumer, ConsumerConfig};
use super::context::Context;
use super::error::ClientError;
use super::event::{ClientEvent, Listener};
use super::mapping::{Arrival, Source};
use super::producer::{Producer, ProducerConfig};
use crate::agent::Agent;
use crate::clock::Clock;
use crate::region::RegionOpener;
use crate::transport::{Connector, Message, TransportError};

/// How long `close` waits for the answers to its detaches (TP-308).
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Pause between duty cycles while `close` waits.
const CLOSE_PAUSE: Duration = Duration::from_millis(1);

/// A request of another thread.
pub(super) enum Command {
    AddProducer(ProducerConfig, Completion<Producer>),
    AddConsumer(ConsumerConfig, Completion<Consumer>),
}

/// See the module documentation. Drive it with an [`AgentRunner`](crate::agent::AgentRunner) or by hand.
pub struct ClientAgent {
    name: String,
    shared: Arc<Shared>,
    connector: Arc<dyn Connector>,
    commands: Receiver<Command>,
    closing: Arc<AtomicBool>,
    link: LinkState,
    producers: Vec<ProducerEntry>,
    consumers: Vec<ConsumerEntry>,
    next_registration: i64,
}

/// What every endpoint needs.
pub(super) struct Shared {
    pub context: Context,
    pub opener: RegionOpener,
    pub clock: Arc<dyn Clock>,
    pub listener: std::sync::Mutex<Listener>,
}

impl Shared {
    /// Tells the application. Runs on the duty cycle's thread (TP-436).
    fn tell(&self, event: ClientEvent) {
        tracing::debug!(?event, "client event");
        let mut listener = self.listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        listener(event);
    }
}

impl std::fmt::Debug for ClientAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientAgent")
            .field("producers", &self.producers.len())
            .field("consumers", &self.consumers.len())
            .finish_non_exhaustive()
    }
}

impl ClientAgent {
    /// Connects; the endpoints of the connection are opened by the duty cycle.
    pub(super) fn new(
        context: Context,
        connector: Arc<dyn Connector>,
        clock: Arc<dyn Clock>,
        listener: Listener,
        commands: Receiver<Command>,
        closing: Arc<AtomicBool>,
    ) -> Result<Self, ClientError> {
        context.validate()?;
        let (bases, rejected) = AllowedBases::new(&context.allowed_base_dirs);
        for base in rejected {
            tracing::warn!(?base, "an allowed base directory cannot be resolved and is left out");
        }
        let opener = RegionOpener::new(bases, context.permissions);
        let link = LinkState::Opening(Box::new(OpeningLink::start(connector.connect()?, &context)?));
        let name = match context.client_name.as_str() {
            "" => "tensor-client".to_owned(),
            name => name.to_owned(),
        };
        let shared = Shared { context, opener, clock, listener: std::sync::Mutex::new(listener) };
        Ok(Self {
            name,
            shared: Arc::new(shared),
            connector,
            commands,
            closing,
            link,
            producers: Vec::new(),
            consumers: Vec::new(),
            next_registration: 0,
        })
    }

    fn drain_commands(&mut self, now: Nanos) -> usize {
        // Relaxed: set by this very thread.
        let closing = self.closing.load(Ordering::Relaxed);
        let mut work = 0;
        while let Ok(command) = self.commands.try_recv() {
            work += 1;
            if closing {
                // Dropping it tells whoever waits that the client is closed.
                continue;
            }
            let registration = self.next_registration;
            self.next_registration += 1;
            match command {
                Command::AddProducer(config, completion) => {
                    completion.register(registration);
                    self.producers.extend(ProducerEntry::new(config, completion, &self.shared, now));
                }
                Command::AddConsumer(config, completion) => {
                    completion.register(registration);
                    self.consumers.push(ConsumerEntry::new(config, completion, &self.shared, now));
                }
            }
        }
        work
    }

    /// Makes or repairs the connection; true while it is up.
    fn maintain_link(&mut self, now: Nanos) -> bool {
        let state = std::mem::replace(&mut self.link, LinkState::new());
        self.link = match state {
            LinkState::Up(link) => match link.transport.failure() {
                None => LinkState::Up(link),
                Some(failure) => {
                    self.lose_link(&failure, now);
                    LinkState::lost(now)
                }
            },
            LinkState::Opening(opening) => match opening.poll(now) {
                Ok(Ok(link)) => {
                    self.shared.tell(ClientEvent::Connected);
                    LinkState::Up(Box::new(link))
                }
                Ok(Err(opening)) => LinkState::Opening(opening),
                Err(error) => {
                    self.fail_waiting(&error);
                    self.shared.tell(ClientEvent::Disconnected { reason: error });
                    LinkState::lost(now)
                }
            },
            LinkState::Down { retry, backoff } if now >= retry => {
                let transport = self.connector.try_connect();
                match transport.and_then(|transport| OpeningLink::start(transport, &self.shared.context)) {
                    Ok(opening) => LinkState::Opening(Box::new(opening)),
                    Err(error) => {
                        tracing::debug!(%error, "no media driver yet");
                        LinkState::retry_later(now, backoff)
                    }
                }
            }
            down @ LinkState::Down { .. } => down,
        };
        matches!(self.link, LinkState::Up(_))
    }

    /// Everything that was obtained through the connection is void.
    fn lose_link(&mut self, failure: &TransportError, now: Nanos) {
        for producer in &mut self.producers {
            producer.on_transport_lost(&self.shared, now);
        }
        for consumer in &mut self.consumers {
            consumer.on_transport_lost(&self.shared, now);
        }
        self.shared.tell(ClientEvent::Disconnected { reason: failure.clone() });
    }

    /// A refusal of the first connection is an answer to whoever is waiting for an endpoint.
    fn fail_waiting(&mut self, error: &TransportError) {
        for producer in &mut self.producers {
            producer.fail(error);
        }
        for consumer in &mut self.consumers {
            consumer.fail(error);
        }
    }

    fn poll_messages(&mut self, now: Nanos) -> Result<usize, TransportError> {
        let LinkState::Up(link) = &mut self.link else { return Ok(0) };
        let Link { control, control_in, announce_in, .. } = &mut **link;
        let limit = self.shared.context.fragment_limit;
        let realtime = self.shared.clock.realtime();
        let (shared, producers, consumers) = (&*self.shared, &mut self.producers, &mut self.consumers);

        // Announces are handed on after the poll, since judging them needs the subscriptions themselves.
        let mut announces: Vec<(Source, Vec<u8>)> = Vec::new();
        let shares_control = announce_in.is_none();
        control_in.observe(now);
        let mut work = control_in.subscription.poll(limit, &mut |message: Message<'_>| {
            match AnyMessage::decode(message.bytes) {
                Ok(AnyMessage::Driver(decoded)) => {
                    let send = &mut |bytes: &[u8]| control.send(bytes);
                    for producer in producers.iter_mut() {
                        producer.on_driver_message(&decoded, shared, now, send);
                    }
                    for consumer in consumers.iter_mut() {
                        consumer.on_driver_message(&decoded, shared, now, send);
                    }
                }
                Ok(AnyMessage::Control(decoded)) => {
                    use tidegate_sbe::control::Message as Control;
                    match decoded {
                        Control::ShmPoolAnnounce(_) => {
                            let source = Source { announce_stream: shares_control, session: message.session };
                            announces.push((source, message.bytes.to_vec()));
                        }
                        Control::ConsumerConfig(config) => {
                            for consumer in consumers.iter_mut() {
                                consumer.on_config(&config, shared, now);
                            }
                        }
                        _ => {}
                    }
                }
                // Another participant's message, or one that is broken (TP-008, TP-012).
                _ => {}
            }
        })?;
        if let Some(inbox) = announce_in {
            inbox.observe(now);
            work += inbox.subscription.poll(limit, &mut |message: Message<'_>| {
                let source = Source { announce_stream: true, session: message.session };
                announces.push((source, message.bytes.to_vec()));
            })?;
        }
        let alive = |source: Source| match (&*announce_in, source.announce_stream) {
            (Some(inbox), true) => inbox.subscription.has_image(source.session),
            _ => control_in.subscription.has_image(source.session),
        };
        for (source, bytes) in announces {
            let Ok(announce) = tidegate_sbe::control::ShmPoolAnnounce::decode(&bytes) else { continue };
            let joined = match (&*announce_in, source.announce_stream) {
                (Some(inbox), true) => inbox.joined,
                _ => control_in.joined,
            };
            let arrival = Arrival { source, joined, monotonic: now, realtime };
            for producer in producers.iter_mut() {
                producer.on_announce(&announce, source, now);
            }
            for consumer in consumers.iter_mut() {
                consumer.on_announce(&announce, arrival, &alive, shared, control);
            }
        }
        Ok(work)
    }

    fn tick(&mut self, now: Nanos) -> usize {
        let mut work = 0;
        if let LinkState::Up(link) = &mut self.link {
            for producer in &mut self.producers {
                work += producer.tick(link, &self.shared, now);
            }
            for consumer in &mut self.consumers {
                work += consumer.tick(link, &self.shared, now);
            }
        } else {
            for producer in &mut self.producers {
                producer.tick_unlinked(&self.shared, now);
            }
            for consumer in &mut self.consumers {
                consumer.tick_unlinked(&self.shared, now);
            }
        }
        self.producers.retain(|producer| {
            if producer.is_gone() {
                producer.abandon();
            }
            !producer.is_gone()
        });
        self.consumers.retain_mut(|consumer| {
            if consumer.is_gone() {
                consumer.abandon();
            }
            !consumer.is_gone()
        });
        work
    }
}

impl Agent for ClientAgent {
    type Error = ClientError;

    fn name(&self) -> &str {
        &self.name
    }

    fn do_work(&mut self) -> Result<usize, ClientError> {
        // One reading of the clock per duty cycle (TP-028).
        let now = self.shared.clock.monotonic();
        let mut work = self.drain_commands(now);
        if self.maintain_link(now) {
            if let LinkState::Up(link) = &self.link {
                work += link.transport.do_work();
            }
            match self.poll_messages(now) {
                Ok(handled) => work += handled,
                Err(failure) => {
                    self.lose_link(&failure, now);
                    self.link = LinkState::lost(now);
                }
            }
        }
        work += self.tick(now);
        Ok(work)
    }

    /// Detaches every endpoint and waits for the answers, at most a second.
    fn close(&mut self) {
        // Release: pairs with the Acquire in `Client`.
        self.closing.store(true, Ordering::Release);
        // Real time: the clock of the duty cycle may stand still in a test.
        let begun = Instant::now();
        for producer in &mut self.producers {
            producer.release();
        }
        for consumer in &mut self.consumers {
            consumer.release();
        }
        while self.do_work().is_ok() && !(self.producers.is_empty() && self.consumers.is_empty()) {
            if begun.elapsed() >= CLOSE_WAIT {
                break;
            }
            std::thread::sleep(CLOSE_PAUSE);
        }
        for producer in &self.producers {
            producer.abandon();
        }
        for consumer in &mut self.consumers {
            consumer.abandon();
        }
        self.producers.clear();
        self.consumers.clear();
        self.link = LinkState::lost(self.shared.clock.monotonic());
    }
}
