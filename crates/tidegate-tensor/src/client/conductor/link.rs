//! The conductor's connection: control, announce, QoS and metadata of one media driver.
//!
//! A lost connection is thrown away whole and made anew, with backoff; endpoints re-attach through the new one.

use std::time::Duration;

use tidegate_shm::clock::Nanos;

use crate::client::context::{Context, Endpoint};
use crate::transport::{OfferError, Opening, Publication, Subscription, Transport, TransportError};

const RECONNECT_MIN: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// Either being made, or up, or waiting to be made again.
pub(super) enum LinkState {
    Down { retry: Nanos, backoff: Duration },
    Opening(Box<OpeningLink>),
    Up(Box<Link>),
}

/// An open connection.
pub(super) struct Link {
    pub(super) transport: Box<dyn Transport>,
    pub(super) control: ControlSender,
    pub(super) control_in: Inbox,
    /// `None` when announces come on the control stream.
    pub(super) announce_in: Option<Inbox>,
    pub(super) qos: Box<dyn Publication>,
    pub(super) metadata: Box<dyn Publication>,
}

/// A subscription and the time since when it has received.
pub(super) struct Inbox {
    pub(super) subscription: Box<dyn Subscription>,
    /// Local time when the subscription's image became available; the join time of 8.3.
    pub(super) joined: Nanos,
}

/// The control publication.
pub(super) struct ControlSender(Box<dyn Publication>);

impl ControlSender {
    /// Sends one message, once. False when the transport did not take it.
    pub(super) fn send(&mut self, message: &[u8]) -> bool {
        match self.0.offer(message) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "a control message was not taken");
                false
            }
        }
    }
}

/// Endpoints on their way.
pub(super) struct OpeningLink {
    transport: Box<dyn Transport>,
    control: Slot<Box<dyn Publication>>,
    control_in: Slot<Box<dyn Subscription>>,
    announce_in: Option<Slot<Box<dyn Subscription>>>,
    qos: Slot<Box<dyn Publication>>,
    metadata: Slot<Box<dyn Publication>>,
}

enum Slot<T> {
    Opening(Opening<T>),
    Ready(T),
}

impl<T> Slot<T> {
    /// True once the endpoint is there.
    fn poll(&mut self, transport: &dyn Transport) -> Result<bool, TransportError> {
        if let Self::Opening(opening) = self {
            match opening.poll(transport)? {
                Some(endpoint) => *self = Self::Ready(endpoint),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl OpeningLink {
    /// Asks for every endpoint.
    pub(super) fn start(transport: Box<dyn Transport>, context: &Context) -> Result<Self, TransportError> {
        let publication = |endpoint: &Endpoint| {
            Opening::publication(&*transport, &endpoint.channel, endpoint.stream).map(Slot::Opening)
        };
        let subscription = |endpoint: &Endpoint| {
            Opening::subscription(&*transport, &endpoint.channel, endpoint.stream).map(Slot::Opening)
        };
        let separate = context.announce.stream != context.control.stream;
        Ok(Self {
            control: publication(&context.control)?,
            control_in: subscription(&context.control)?,
            announce_in: separate.then(|| subscription(&context.announce)).transpose()?,
            qos: publication(&context.qos)?,
            metadata: publication(&context.metadata)?,
            transport,
        })
    }

    /// The link once every endpoint is there.
    pub(super) fn poll(mut self: Box<Self>, now: Nanos) -> Result<Result<Link, Box<Self>>, TransportError> {
        self.transport.do_work();
        if let Some(failure) = self.transport.failure() {
            return Err(failure);
        }
        let mut ready = self.control.poll(&*self.transport)?;
        ready &= self.control_in.poll(&*self.transport)?;
        if let Some(announce_in) = &mut self.announce_in {
            ready &= announce_in.poll(&*self.transport)?;
        }
        ready &= self.qos.poll(&*self.transport)?;
        ready &= self.metadata.poll(&*self.transport)?;
        if !ready {
            return Ok(Err(self));
        }
        let inbox = |subscription| Inbox { subscription, joined: now };
        let this = *self;
        match (this.control, this.control_in, this.qos, this.metadata) {
            (Slot::Ready(control), Slot::Ready(control_in), Slot::Ready(qos), Slot::Ready(metadata)) => {
                let announce_in = match this.announce_in {
                    Some(Slot::Ready(subscription)) => Some(inbox(subscription)),
                    _ => None,
                };
                Ok(Ok(Link {
                    transport: this.transport,
                    control: ControlSender(control),
                    control_in: inbox(control_in),
                    announce_in,
                    qos,
                    metadata,
                }))
            }
            (control, control_in, qos, metadata) => Ok(Err(Box::new(Self {
                transport: this.transport,
                control,
                control_in,
                announce_in: this.announce_in,
                qos,
                metadata,
            }))),
        }
    }
}

impl Inbox {
    /// Call once per duty cycle, before polling. As long as nothing publishes, the join time moves on: an announce can
    /// only have been received if it was sent after the last time there was no image.
    pub(super) fn observe(&mut self, now: Nanos) {
        if self.subscription.image_count() == 0 {
            self.joined = now;
        }
    }
}

impl LinkState {
    /// To be made at once.
    pub(super) fn new() -> Self {
        Self::Down { retry: Nanos::ZERO, backoff: RECONNECT_MIN }
    }

    /// To be made again later.
    pub(super) fn retry_later(now: Nanos, backoff: Duration) -> Self {
        Self::Down {
            retry: now.saturating_add(backoff.into()),
            backoff: backoff.saturating_mul(2).min(RECONNECT_MAX),
        }
    }

    /// After an open link was lost.
    pub(super) fn lost(now: Nanos) -> Self {
        Self::retry_later(now, RECONNECT_MIN)
    }
}

/// Sends a message whose loss is made good by the next one of its kind.
pub(super) fn send_periodic(publication: &mut dyn Publication, what: &'static str, message: &[u8]) -> bool {
    match publication.offer(message) {
        Ok(_) => true,
        // Nobody listens to QoS or metadata in most deployments.
        Err(OfferError::NotConnected) => false,
        Err(error) => {
            tracing::debug!(%error, what, "a periodic message was not taken");
            false
        }
    }
}
