//! A bus on which the test sees, or refuses, each descriptor in the moment it is offered.

use std::sync::{Arc, Mutex};

use tidegate_tensor::ids::SessionId;
use tidegate_tensor::transport::memory::MemoryBus;
use tidegate_tensor::transport::{OfferError, Pending, Publication, TransportError};

use super::rerouted::{PendingPublication, Rerouted, Route};

/// Looks at a descriptor before it is sent; an error refuses it.
pub(crate) type Tap = Arc<Mutex<dyn FnMut(&[u8]) -> Result<(), OfferError> + Send>>;

/// The route of [`Tap`].
pub(crate) struct Tapped(Tap);

struct TappedPending {
    inner: PendingPublication,
    tap: Tap,
}

struct TappedPublication {
    inner: Box<dyn Publication>,
    tap: Tap,
}

impl Tapped {
    pub(crate) fn connector(bus: &MemoryBus, tap: Tap) -> Arc<Rerouted<Self>> {
        Rerouted::new(bus, Self(tap))
    }
}

impl Route for Tapped {
    fn publication(&self, own: PendingPublication) -> PendingPublication {
        Box::new(TappedPending { inner: own, tap: Arc::clone(&self.0) })
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
