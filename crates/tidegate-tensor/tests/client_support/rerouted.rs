//! A bus whose descriptor endpoints are the test's own. Everything else passes through.

use std::sync::Arc;

use tidegate_tensor::channel::Channel;
use tidegate_tensor::ids::AeronStreamId;
use tidegate_tensor::transport::memory::MemoryBus;
use tidegate_tensor::transport::{Connector, Pending, Publication, Subscription, Transport, TransportError};

use super::DESCRIPTOR;

pub(crate) type PendingPublication = Box<dyn Pending<Box<dyn Publication>>>;
pub(crate) type PendingSubscription = Box<dyn Pending<Box<dyn Subscription>>>;

/// What becomes of the descriptor endpoints.
pub(crate) trait Route: Send + Sync + 'static {
    /// Takes the place of the bus's own publication.
    fn publication(&self, own: PendingPublication) -> PendingPublication {
        own
    }

    /// Takes the place of the bus's own subscription.
    fn subscription(&self, own: PendingSubscription) -> PendingSubscription {
        own
    }
}

/// Connects to `bus`, with descriptors on `route`.
pub(crate) struct Rerouted<R> {
    bus: MemoryBus,
    route: Arc<R>,
}

struct ReroutedTransport<R> {
    inner: Box<dyn Transport>,
    route: Arc<R>,
}

impl<R: Route> Rerouted<R> {
    pub(crate) fn new(bus: &MemoryBus, route: R) -> Arc<Self> {
        Arc::new(Self { bus: bus.clone(), route: Arc::new(route) })
    }
}

impl<R: Route> Connector for Rerouted<R> {
    fn connect(&self) -> Result<Box<dyn Transport>, TransportError> {
        Ok(Box::new(ReroutedTransport { inner: self.bus.connect()?, route: Arc::clone(&self.route) }))
    }
}

impl<R: Route> Transport for ReroutedTransport<R> {
    fn publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<PendingPublication, TransportError> {
        self.inner.publication(channel, stream)
    }

    fn exclusive_publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<PendingPublication, TransportError> {
        let own = self.inner.exclusive_publication(channel, stream)?;
        Ok(if stream == DESCRIPTOR { self.route.publication(own) } else { own })
    }

    fn subscription(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<PendingSubscription, TransportError> {
        let own = self.inner.subscription(channel, stream)?;
        Ok(if stream == DESCRIPTOR { self.route.subscription(own) } else { own })
    }

    fn do_work(&self) -> usize {
        self.inner.do_work()
    }

    fn failure(&self) -> Option<TransportError> {
        self.inner.failure()
    }
}

/// A descriptor endpoint that is there at once.
pub(crate) struct Ready<T>(Option<T>);

impl<T: Publication + 'static> Ready<T> {
    pub(crate) fn publication(endpoint: T) -> PendingPublication {
        Box::new(Self(Some(endpoint)))
    }
}

impl<T: Subscription + 'static> Ready<T> {
    pub(crate) fn subscription(endpoint: T) -> PendingSubscription {
        Box::new(Self(Some(endpoint)))
    }
}

impl<T: Publication + 'static> Pending<Box<dyn Publication>> for Ready<T> {
    fn poll(&mut self) -> Result<Option<Box<dyn Publication>>, TransportError> {
        Ok(self.0.take().map(|endpoint| Box::new(endpoint) as Box<dyn Publication>))
    }
}

impl<T: Subscription + 'static> Pending<Box<dyn Subscription>> for Ready<T> {
    fn poll(&mut self) -> Result<Option<Box<dyn Subscription>>, TransportError> {
        Ok(self.0.take().map(|endpoint| Box::new(endpoint) as Box<dyn Subscription>))
    }
}
