//! A bus on which the test sees, or refuses, each descriptor in the moment it is offered.

use std::sync::{Arc, Mutex};

use tidegate_tensor::channel::Channel;
use tidegate_tensor::ids::{AeronStreamId, SessionId};
use tidegate_tensor::transport::memory::MemoryBus;
use tidegate_tensor::transport::{
    Connector, OfferError, Pending, Publication, Subscription, Transport, TransportError,
};

use super::DESCRIPTOR;

/// Looks at a descriptor before it is sent; an error refuses it.
pub(crate) type Tap = Arc<Mutex<dyn FnMut(&[u8]) -> Result<(), OfferError> + Send>>;

/// The connector of [`Tap`].
pub(crate) struct Tapped {
    pub bus: MemoryBus,
    pub tap: Tap,
}

struct TappedTransport {
    inner: Box<dyn Transport>,
    tap: Tap,
}

struct TappedPending {
    inner: Box<dyn Pending<Box<dyn Publication>>>,
    tap: Tap,
}

struct TappedPublication {
    inner: Box<dyn Publication>,
    tap: Tap,
}

impl Connector for Tapped {
    fn connect(&self) -> Result<Box<dyn Transport>, TransportError> {
        Ok(Box::new(TappedTransport { inner: self.bus.connect()?, tap: Arc::clone(&self.tap) }))
    }
}

impl Transport for TappedTransport {
    fn publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Publication>>>, TransportError> {
        self.inner.publication(channel, stream)
    }

    fn exclusive_publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Publication>>>, TransportError> {
        let inner = self.inner.exclusive_publication(channel, stream)?;
        if stream != DESCRIPTOR {
            return Ok(inner);
        }
        Ok(Box::new(TappedPending { inner, tap: Arc::clone(&self.tap) }))
    }

    fn subscription(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Subscription>>>, TransportError> {
        self.inner.subscription(channel, stream)
    }

    fn do_work(&self) -> usize {
        self.inner.do_work()
    }

    fn failure(&self) -> Option<TransportError> {
        self.inner.failure()
    }
}

impl Pending<Box<dyn Publication>> for TappedPending {
    fn poll(&mut self) -> Result<Option<Box<dyn Publication>>, TransportError> {
        let publication = self.inner.poll()?;
        let tap = Arc::clone(&self.tap);
        Ok(publication.map(|inner| Box::new(TappedPublication { inner, tap }) as Box<dyn Publication>))
    }
}

impl Publication for TappedPublication {
    fn offer(&mut self, message: &[u8]) -> Result<i64, OfferError> {
        (self.tap.lock().unwrap())(message)?;
        self.inner.offer(message)
    }

    fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }

    fn session(&self) -> SessionId {
        self.inner.session()
    }
}
