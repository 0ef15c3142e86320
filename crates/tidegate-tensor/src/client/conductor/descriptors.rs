//! The descriptor endpoint of one producer or consumer, on its way to the endpoint's own thread.

use std::time::Duration;

use tidegate_shm::clock::Nanos;

use crate::transport::{Opening, Transport, TransportError};

/// Where the endpoint is.
pub(super) enum Descriptors<T> {
    /// To be asked for at this time.
    Missing(Nanos),
    /// Asked for.
    Opening(Opening<T>),
    /// With the handle that uses it.
    HandedOver,
}

impl<T> Descriptors<T> {
    pub(super) fn is_handed_over(&self) -> bool {
        matches!(self, Self::HandedOver)
    }

    /// Takes the next step; returns the endpoint once, to be handed over. After a refusal it is asked for again in `retry`.
    pub(super) fn advance(
        &mut self,
        transport: &dyn Transport,
        now: Nanos,
        retry: Duration,
        open: impl FnOnce() -> Result<Opening<T>, TransportError>,
    ) -> Result<Option<T>, TransportError> {
        let later = now.saturating_add(retry.into());
        let failed = match self {
            Self::HandedOver => return Ok(None),
            Self::Missing(due) if now < *due => return Ok(None),
            Self::Missing(_) => match open() {
                Ok(opening) => {
                    *self = Self::Opening(opening);
                    return Ok(None);
                }
                Err(error) => error,
            },
            Self::Opening(opening) => match opening.poll(transport) {
                Ok(None) => return Ok(None),
                Ok(endpoint) => {
                    *self = Self::HandedOver;
                    return Ok(endpoint);
                }
                Err(error) => error,
            },
        };
        tracing::warn!(error = %failed, "the descriptor endpoint was refused");
        *self = Self::Missing(later);
        Err(failed)
    }
}
