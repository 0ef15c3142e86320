//! Sockets: what an application holds.
//!
//! [`Socket<K>`] is one socket of kind `K`, and each kind is a type of its own: sending on a [`Pull`] does not compile
//! (MQ-046). A socket is used through a shared reference, from any thread and any async runtime, or from none: every
//! call that may wait exists as a future, as `try_…`, which never waits, and as `…_blocking`.
//!
//! **Cancellation.** Every future may be dropped at any time. A dropped receive has taken nothing. A dropped send has
//! queued the whole message or nothing; who must know which uses [`Socket::reserve`].
//!
//! Cloning a socket gives another handle to the same socket; it closes when the last one is dropped.

mod dealer;
mod pair;
mod publish;
mod pull;
mod push;
mod rep;
mod req;
mod router;
mod subscribe;
mod xpub;
mod xsub;

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use tidegate_io::message::Message;
use tidegate_zmtp::socket_type::SocketType;

pub use self::{
    dealer::{Dealer, DealerKind},
    pair::{Pair, PairKind},
    publish::{Pub, PubKind},
    pull::{Pull, PullKind},
    push::{Push, PushKind},
    rep::{Rep, RepKind},
    req::{Req, ReqKind},
    router::{Router, RouterKind},
    subscribe::{Sub, SubKind},
    xpub::{XPub, XPubKind},
    xsub::{XSub, XSubKind},
};
use crate::{
    context::Context,
    error::{Result, SendError},
    monitor::Monitor,
    options::Options,
    shared::{self, Owner, Shared},
};

mod kind {
    use tidegate_zmtp::socket_type::SocketType;

    /// A kind of socket; implemented by this crate only.
    pub trait Kind: Send + Sync + 'static {
        /// The pattern.
        const TYPE: SocketType;
    }
}
pub(crate) use kind::Kind;

/// A kind of socket that sends messages to whom the pattern chooses.
pub trait CanSend: Kind {}

/// A kind of socket that receives messages.
pub trait CanReceive: Kind {}

/// A socket of one kind. See the [module](self) for what all sockets have in common, and the kinds for what they are
/// for: [`Req`], [`Rep`], [`Dealer`], [`Router`], [`Pub`], [`Sub`], [`XPub`], [`XSub`], [`Push`], [`Pull`], [`Pair`].
pub struct Socket<K: Kind> {
    core: Arc<Owner>,
    kind: PhantomData<K>,
}

impl<K: Kind> Socket<K> {
    /// A socket with default options.
    ///
    /// # Errors
    /// [`Terminated`](crate::Error::Terminated) when the context is shut down,
    /// [`TooManySockets`](crate::Error::TooManySockets) at its limit.
    pub fn new(context: &Context) -> Result<Self> {
        Self::with_options(context, Options::default())
    }

    /// A socket with the given options.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`InvalidOption`](crate::Error::InvalidOption) for options that contradict each other.
    pub fn with_options(context: &Context, options: Options) -> Result<Self> {
        Ok(Self { core: Owner::new(context, K::TYPE, options)?, kind: PhantomData })
    }

    /// The pattern of this socket.
    pub fn socket_type(&self) -> SocketType {
        K::TYPE
    }

    /// Listens on `endpoint` and tells where: for a wildcard the address that the system chose. Any number of binds
    /// and connects may be made, in any order.
    ///
    /// # Errors
    /// [`Endpoint`](crate::Error::Endpoint) when it cannot be understood, [`AddressInUse`](crate::Error::AddressInUse),
    /// [`NoDevice`](crate::Error::NoDevice) and others when the system refuses; all name the endpoint.
    pub async fn bind(&self, endpoint: &str) -> Result<String> {
        self.core.bind(endpoint).await
    }

    /// [`bind`](Self::bind) on the calling thread.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_blocking(&self, endpoint: &str) -> Result<String> {
        shared::wait(self.core.bind(endpoint))
    }

    /// Connects to `endpoint`, now and again whenever the connection is lost. Returns when the endpoint is registered;
    /// see [`connect_ready`](Self::connect_ready) to wait for the peer.
    ///
    /// # Errors
    /// [`Endpoint`](crate::Error::Endpoint) when it cannot be understood. That nobody listens is not an error.
    pub fn connect(&self, endpoint: &str) -> Result<()> {
        self.core.connect(endpoint)
    }

    /// Connects and waits until the handshake is complete.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and [`Timeout`](crate::Error::Timeout) when it takes longer than `timeout`; the
    /// endpoint stays connected then and goes on trying.
    pub async fn connect_ready(&self, endpoint: &str, timeout: Duration) -> Result<()> {
        self.core.connect_ready(endpoint, timeout).await
    }

    /// Stops listening on `endpoint`, as [`bind`](Self::bind) reported it, and closes the connections it accepted,
    /// after what is queued for them was sent or the linger time is over.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound) when nothing is bound there.
    pub fn unbind(&self, endpoint: &str) -> Result<()> {
        self.core.unbind(endpoint, false)
    }

    /// Stops listening on `endpoint` and keeps the connections it accepted.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound) when nothing is bound there.
    pub fn unbind_keep(&self, endpoint: &str) -> Result<()> {
        self.core.unbind(endpoint, true)
    }

    /// Closes all connections made to `endpoint`, after what is queued for them was sent or the linger time is over.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound) when nothing is connected there.
    pub fn disconnect(&self, endpoint: &str) -> Result<()> {
        self.core.disconnect(endpoint)
    }

    /// Tries again to connect to an endpoint that was given up, after an authentication refusal for example.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound) when nothing is connected there.
    pub fn retry(&self, endpoint: &str) -> Result<()> {
        self.core.retry(endpoint)
    }

    /// The endpoint of the last bind or connect, as the system knows it.
    pub fn last_endpoint(&self) -> String {
        self.core.last_endpoint()
    }

    /// A copy of the options.
    pub fn options(&self) -> Options {
        self.core.options()
    }

    /// Changes options: live ones at once, the others for binds and connects from now on.
    ///
    /// # Errors
    /// What `change` returns, or [`InvalidOption`](crate::Error::InvalidOption) for options that contradict each other;
    /// nothing is changed then.
    pub fn set_options(&self, change: impl FnOnce(&mut Options) -> Result<()>) -> Result<()> {
        self.core.set_options(change)
    }

    /// Events of this socket's connections from now on.
    pub fn monitor(&self) -> Monitor {
        self.core.monitor()
    }

    /// Stops taking messages, sends what is queued for at most `linger` (`None`: as long as it takes), then closes.
    /// Tells how many messages were discarded.
    pub async fn close(self, linger: Option<Duration>) -> u64 {
        self.core.close(linger).await
    }

    pub(crate) fn core(&self) -> &Shared {
        &self.core
    }
}

impl<K: CanSend> Socket<K> {
    /// Sends a message: waits until a peer has room for it, at most the socket's `sndtimeo`.
    ///
    /// # Errors
    /// [`Timeout`](crate::Error::Timeout), [`Terminated`](crate::Error::Terminated), and what the pattern says; the
    /// message comes back in the error.
    ///
    /// # Cancellation
    /// A dropped future has queued the whole message or nothing. Who must know uses [`reserve`](Self::reserve).
    pub fn send(&self, message: impl Into<Message>) -> shared::Send<'_> {
        self.core.send(message.into())
    }

    /// Sends a message if that is possible at once.
    ///
    /// # Errors
    /// [`WouldBlock`](crate::Error::WouldBlock) when no peer has room; otherwise as [`send`](Self::send).
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.core.try_send(message.into())
    }

    /// [`send`](Self::send) on the calling thread.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_blocking(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.core.send_blocking(message.into())
    }
}

impl<K: CanReceive> Socket<K> {
    /// Receives a message: waits for one, at most the socket's `rcvtimeo`.
    ///
    /// # Errors
    /// [`Timeout`](crate::Error::Timeout), [`Terminated`](crate::Error::Terminated), and what the pattern says.
    ///
    /// # Cancellation
    /// A dropped future has taken nothing.
    pub fn recv(&self) -> shared::Recv<'_> {
        self.core.recv()
    }

    /// Receives a message if one is there.
    ///
    /// # Errors
    /// [`WouldBlock`](crate::Error::WouldBlock) when there is none; otherwise as [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Message> {
        self.core.try_recv()
    }

    /// [`recv`](Self::recv) on the calling thread.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_blocking(&self) -> Result<Message> {
        self.core.recv_blocking()
    }
}

impl<K: Kind> Clone for Socket<K> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), kind: PhantomData }
    }
}

impl<K: Kind> fmt::Debug for Socket<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(K::TYPE.name()).field("last_endpoint", &self.last_endpoint()).finish()
    }
}
