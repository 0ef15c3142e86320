//! Opening endpoints step by step, with the one retry of TP-488.

use super::{Pending, Publication, Subscription, Transport, TransportError};
use crate::channel::Channel;
use crate::ids::AeronStreamId;

/// A publication or subscription on its way.
pub struct Opening<T> {
    channel: Channel,
    stream: AeronStreamId,
    pending: Box<dyn Pending<T>>,
    retried: bool,
    /// How to ask again without `term-length` and `mtu`; `None` where a clash cannot happen.
    reopen: Option<Reopen<T>>,
}

type Reopen<T> = fn(&dyn Transport, &Channel, AeronStreamId) -> Result<Box<dyn Pending<T>>, TransportError>;

impl<T> std::fmt::Debug for Opening<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening")
            .field("channel", &self.channel)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Opening<Box<dyn Publication>> {
    /// A shared publication. When another one of the stream has other explicit parameters, it is joined instead, with a
    /// warning that names both (TP-488).
    ///
    /// # Errors
    /// When the request cannot be made.
    pub fn publication(
        transport: &dyn Transport,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Self, TransportError> {
        let reopen: Reopen<_> = |transport, channel, stream| transport.publication(channel, stream);
        let pending = reopen(transport, channel, stream)?;
        Ok(Self { channel: channel.clone(), stream, pending, retried: false, reopen: Some(reopen) })
    }

    /// A publication with a log of its own (TP-489).
    ///
    /// # Errors
    /// When the request cannot be made.
    pub fn exclusive(
        transport: &dyn Transport,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Self, TransportError> {
        let pending = transport.exclusive_publication(channel, stream)?;
        Ok(Self { channel: channel.clone(), stream, pending, retried: false, reopen: None })
    }
}

impl Opening<Box<dyn Subscription>> {
    /// A subscription.
    ///
    /// # Errors
    /// When the request cannot be made.
    pub fn subscription(
        transport: &dyn Transport,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Self, TransportError> {
        let pending = transport.subscription(channel, stream)?;
        Ok(Self { channel: channel.clone(), stream, pending, retried: false, reopen: None })
    }
}

impl<T> Opening<T> {
    /// The endpoint once it is there.
    ///
    /// # Errors
    /// When it was refused for good, or the transport is gone.
    pub fn poll(&mut self, transport: &dyn Transport) -> Result<Option<T>, TransportError> {
        match self.pending.poll() {
            Err(TransportError::ChannelClash { reason, .. }) if !self.retried && self.reopen.is_some() => {
                let plain = self.channel.without_term_length_and_mtu();
                tracing::warn!(
                    stream = %self.stream, wanted = %self.channel, joining = %plain, %reason,
                    "another publication of this stream has other parameters; joining it"
                );
                self.retried = true;
                if let Some(reopen) = self.reopen {
                    self.pending = reopen(transport, &plain, self.stream)?;
                }
                Ok(None)
            }
            other => other,
        }
    }
}
