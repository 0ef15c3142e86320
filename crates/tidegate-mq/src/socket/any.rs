//! A socket whose kind is known at run time only.

use std::marker::PhantomData;

use tidegate_zmtp::socket_type::SocketType;

use super::{CanReceive, CanReserve, CanSend, CanSplit, Family, Kind, Socket};
use crate::{context::Context, error::Result, options::Options, shared::Owner};

/// A socket of any kind, for proxies and bindings (MQ-046). It has the calls of all kinds; those that its own kind does not
/// know fail with [`NotSupported`](crate::Error::NotSupported).
pub type AnySocket = Socket<AnyKind>;

/// The kind of [`AnySocket`].
#[derive(Debug)]
pub enum AnyKind {}

impl Family for AnyKind {}

impl CanReceive for AnyKind {}

impl CanSend for AnyKind {}

impl CanReserve for AnyKind {}

impl CanSplit for AnyKind {}

impl Socket<AnyKind> {
    /// A socket of the given kind, with the context's defaults.
    ///
    /// # Errors
    /// As [`Socket::new`].
    pub fn of_type(context: &Context, kind: SocketType) -> Result<Self> {
        Self::of_type_with(context, kind, context.default_options(kind))
    }

    /// A socket of the given kind with the given options.
    ///
    /// # Errors
    /// As [`Socket::with_options`].
    pub fn of_type_with(context: &Context, kind: SocketType, options: Options) -> Result<Self> {
        Ok(Self { core: Owner::new(context, kind, options)?, kind: PhantomData })
    }

    /// SUB and XSUB: asks for a topic. XPUB in manual mode: see [`XPub::subscribe`](super::XPub::subscribe).
    ///
    /// # Errors
    /// [`NotSupported`](crate::Error::NotSupported) on other kinds.
    pub fn subscribe(&self, topic: impl AsRef<[u8]>) -> Result<()> {
        self.core().subscribe(topic.as_ref())
    }

    /// Takes one [`subscribe`](Self::subscribe) back.
    ///
    /// # Errors
    /// [`NotSupported`](crate::Error::NotSupported) on other kinds.
    pub fn unsubscribe(&self, topic: impl AsRef<[u8]>) -> Result<()> {
        self.core().unsubscribe(topic.as_ref())
    }
}

impl<K: Kind> From<Socket<K>> for Socket<AnyKind> {
    fn from(socket: Socket<K>) -> Self {
        socket.into_any()
    }
}
