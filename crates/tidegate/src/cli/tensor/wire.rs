//! Speaking the wire protocol by hand: endpoints of the session's transport, opened within a deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

use tidegate::sbe::AnyMessage;
use tidegate::tensor::client::Endpoint;
use tidegate::tensor::transport::{
    OfferError, Opening, Publication, Subscription, Transport, TransportError,
};

use crate::cli::session::Session;
use crate::cli::signal::Interrupt;
use crate::output::{Exit, Report, Stop};

/// Pause between two looks at an endpoint.
const NAP: Duration = Duration::from_millis(1);
/// A request without an answer is sent again this often, as clients do.
const RESEND: Duration = Duration::from_millis(200);
/// Messages taken per poll.
const BATCH: usize = 32;

/// A connection to the media driver.
pub(super) struct Wire {
    transport: Box<dyn Transport>,
    /// Longest time for the media driver to open an endpoint.
    open_wait: Duration,
}

impl Wire {
    pub(super) fn connect(session: &Session, open_wait: Duration) -> Result<Self, Stop> {
        Ok(Self { transport: session.transport()?, open_wait })
    }

    /// Listens to an endpoint.
    pub(super) fn subscribe(&self, endpoint: &Endpoint) -> Result<Box<dyn Subscription>, Stop> {
        self.open(Opening::subscription(&*self.transport, &endpoint.channel, endpoint.stream)?, endpoint)
    }

    fn publish(&self, endpoint: &Endpoint) -> Result<Box<dyn Publication>, Stop> {
        self.open(Opening::publication(&*self.transport, &endpoint.channel, endpoint.stream)?, endpoint)
    }

    /// Fails when the connection was lost.
    pub(super) fn check(&self) -> Result<(), Stop> {
        self.transport.failure().map_or(Ok(()), |error| Err(error.into()))
    }

    fn open<T>(&self, mut opening: Opening<T>, endpoint: &Endpoint) -> Result<T, Stop> {
        let deadline = Instant::now() + self.open_wait;
        loop {
            match opening.poll(&*self.transport) {
                Ok(Some(opened)) => return Ok(opened),
                Ok(None) => self.check()?,
                // Where the connection is lost, that is the reason for everything else.
                Err(error) => return self.check().and(Err(error.into())),
            }
            if Instant::now() >= deadline {
                return Err(timed_out(format!(
                    "the media driver did not open Aeron stream {} on '{}' within {:?}; is its process stopped?",
                    endpoint.stream, endpoint.channel, self.open_wait
                )));
            }
            sleep(NAP);
        }
    }
}

/// Both directions of the driver's control stream.
pub(super) struct Control {
    /// Before the connection, so that they are closed first.
    subscription: Option<Box<dyn Subscription>>,
    publication: Box<dyn Publication>,
    wire: Wire,
    interrupt: Interrupt,
    /// Whether a signal ends waiting.
    interruptible: bool,
}

/// What ended waiting for a message.
pub(super) enum Wait<T> {
    /// The message came.
    Found(T),
    /// The time is up.
    Elapsed,
    /// The user wants to stop.
    Interrupted,
}

impl Control {
    /// Opens the control stream for requests and their answers.
    pub(super) fn open(session: &Session, timeout: Duration) -> Result<Self, Stop> {
        let mut control = Self::sender(session, timeout)?;
        control.subscription = Some(control.wire.subscribe(&session.context.control)?);
        Ok(control)
    }

    /// Opens the control stream for messages that have no answer.
    pub(super) fn sender(session: &Session, timeout: Duration) -> Result<Self, Stop> {
        let interrupt = Interrupt::install()?;
        let wire = Wire::connect(session, timeout)?;
        let publication = wire.publish(&session.context.control)?;
        Ok(Self { subscription: None, publication, wire, interrupt, interruptible: true })
    }

    /// From now on only a second signal ends the command: there is something to finish.
    pub(super) fn finish_first(&mut self) {
        self.interruptible = false;
    }

    fn is_interrupted(&self) -> bool {
        self.interruptible && self.interrupt.is_set()
    }

    /// Sends one message, waiting for room and for somebody to listen until `deadline`.
    pub(super) fn send(&mut self, message: &[u8], deadline: Instant) -> Result<(), Stop> {
        loop {
            let waiting = match self.publication.offer(message) {
                Ok(_) => return Ok(()),
                Err(
                    error @ (OfferError::NotConnected | OfferError::BackPressured | OfferError::AdminAction),
                ) => error,
                Err(error) => {
                    return Err(Stop::Error {
                        exit: Exit::Failed,
                        code: "send",
                        message: format!(
                            "cannot send on the control stream: {error}; is the media driver well?"
                        ),
                    });
                }
            };
            self.wire.check()?;
            if Instant::now() >= deadline || self.is_interrupted() {
                return Err(timed_out(format!(
                    "could not send on the control stream: {waiting}; does a tensor driver run on this media driver?"
                )));
            }
            sleep(NAP);
        }
    }

    /// Sends `request` until `answer` recognises what comes back.
    pub(super) fn ask<T>(
        &mut self,
        request: &[u8],
        timeout: Duration,
        answer: &mut dyn FnMut(&AnyMessage<'_>) -> Option<T>,
    ) -> Result<T, Stop> {
        let deadline = Instant::now() + timeout;
        loop {
            self.send(request, deadline)?;
            match self.wait(deadline.min(Instant::now() + RESEND), answer)? {
                Wait::Found(found) => return Ok(found),
                Wait::Elapsed if Instant::now() < deadline => {}
                Wait::Elapsed | Wait::Interrupted => {
                    return Err(timed_out(format!(
                        "no answer from the tensor driver within {timeout:?}; see `tidegate doctor`, or give --timeout"
                    )));
                }
            }
        }
    }

    /// Takes messages in until `wanted` recognises one.
    pub(super) fn wait<T>(
        &mut self,
        deadline: Instant,
        wanted: &mut dyn FnMut(&AnyMessage<'_>) -> Option<T>,
    ) -> Result<Wait<T>, Stop> {
        loop {
            let mut found = None;
            if let Some(subscription) = &mut self.subscription {
                subscription.poll(BATCH, &mut |message| {
                    if let (None, Ok(decoded)) = (&found, AnyMessage::decode(message.bytes)) {
                        found = wanted(&decoded);
                    }
                })?;
            }
            if let Some(found) = found {
                return Ok(Wait::Found(found));
            }
            self.wire.check()?;
            if self.is_interrupted() {
                return Ok(Wait::Interrupted);
            }
            if Instant::now() >= deadline {
                return Ok(Wait::Elapsed);
            }
            sleep(NAP);
        }
    }
}

/// A random number, for ids that only must not collide.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // Each state is keyed anew from the system's random source.
    RandomState::new().build_hasher().finish()
}

pub(super) fn timed_out(message: String) -> Stop {
    Stop::Error { exit: Exit::TimedOut, code: "timed_out", message }
}

impl Report for TransportError {
    fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } => Exit::NotFound,
            _ => Exit::Failed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "no_media_driver",
            Self::Lost { .. } => "lost_media_driver",
            _ => "endpoint_refused",
        }
    }
}
