//! Sockets: what an application holds.
//!
//! [`Socket<K>`] is one socket of kind `K`, and each kind is a type of its own: sending on a [`Pull`] does not compile
//! (MQ-046). A socket is used through a shared reference, from any thread and any async runtime, or from none: every
//! call that may wait exists as a future, as `try_…`, which never waits, and as `…_blocking`.
//!
//! ```compile_fail,E0599
//! # let context = tidegate_mq::Context::new();
//! tidegate_mq::Pull::new(&context).unwrap().try_send("a PULL does not send");
//! ```
//!
//! ```compile_fail,E0599
//! # let context = tidegate_mq::Context::new();
//! tidegate_mq::Pub::new(&context).unwrap().try_recv();
//! ```
//!
//! REQ and REP take turns, so that their directions cannot be apart:
//!
//! ```compile_fail,E0599
//! # let context = tidegate_mq::Context::new();
//! tidegate_mq::Req::new(&context).unwrap().split();
//! ```
//!
//! **Cancellation.** Every future may be dropped at any time. A dropped receive has taken nothing. A dropped send has
//! queued the whole message or nothing; who must know which uses [`Socket::reserve`] where it exists, or on every kind
//! [`ready`](Socket::ready) and then [`try_send`](Socket::try_send), which queues the message or gives it back.
//!
//! Cloning a socket gives another handle to the same socket; it closes when the last one is dropped.

mod any;
mod dealer;
mod pair;
mod publish;
mod pull;
mod push;
mod rep;
mod req;
mod router;
mod split;
mod stream;
mod subscribe;
mod xpub;
mod xsub;

use std::{
    collections::VecDeque,
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_io::{message::Message, wait::block_on};
use tidegate_zmtp::socket_type::SocketType;

pub use self::{
    any::{AnyKind, AnySocket},
    dealer::{Dealer, DealerKind},
    pair::{Pair, PairKind},
    publish::{Pub, PubKind},
    pull::{Pull, PullKind},
    push::{Push, PushKind},
    rep::{Rep, RepKind, Request, Unsent},
    req::{Req, ReqKind},
    router::{Router, RouterKind},
    split::{Receiver, Sender},
    stream::{Messages, Outbox},
    subscribe::{Sub, SubKind},
    xpub::{XPub, XPubEvent, XPubKind},
    xsub::{XSub, XSubKind},
};
use crate::{
    context::Context,
    error::{Error, Result, SendError},
    metrics::{Metrics, PeerMetrics},
    monitor::{Form, Forwarding, Monitor},
    options::Options,
    peer::Peer,
    shared::{self, Owner, Shared},
    state::PeerInfo,
};

pub use crate::shared::{
    Interest, Permit, ReadableFd, Readiness, Ready, Recv, Reserve, Send as SendFuture, SendMany,
};

mod kind {
    use tidegate_zmtp::socket_type::SocketType;

    /// A kind of socket, or any of them; implemented by this crate only.
    pub trait Family: Send + Sync + 'static {}

    /// A kind of socket; implemented by this crate only.
    pub trait Kind: Family {
        /// The pattern.
        const TYPE: SocketType;
    }
}
pub(crate) use kind::{Family, Kind};

/// A kind of socket that sends messages to whom the pattern chooses.
pub trait CanSend: Family {}

/// A kind of socket that receives messages.
pub trait CanReceive: Family {}

/// A kind of socket that receives what it has asked for.
pub trait CanSubscribe: CanReceive {}

/// A kind of socket that sends and receives independently, so that the two may be apart (MQ-043).
pub trait CanSplit: CanSend + CanReceive {}

/// A kind of socket whose sends may have to wait for room, which can be reserved beforehand (MQ-076).
///
/// PUB and XPUB wait only with `xpub_nodrop`, and then keep room with every subscriber. What a REQ keeps is the next
/// exchange. The room of a ROUTER is that of one peer: see [`Router::peer_state`].
pub trait CanReserve: CanSend {}

/// A socket of one kind. See the [module](self) for what all sockets have in common, and the kinds for what they are
/// for: [`Req`], [`Rep`], [`Dealer`], [`Router`], [`Pub`], [`Sub`], [`XPub`], [`XSub`], [`Push`], [`Pull`], [`Pair`].
pub struct Socket<K: Family> {
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
        Self::with_options(context, context.default_options(K::TYPE))
    }

    /// A socket with the given options.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`InvalidOption`](crate::Error::InvalidOption) for options that contradict each other.
    pub fn with_options(context: &Context, options: Options) -> Result<Self> {
        Ok(Self { core: Owner::new(context, K::TYPE, options)?, kind: PhantomData })
    }

    /// This socket without its type, for proxies and bindings.
    pub fn into_any(self) -> AnySocket {
        Socket { core: self.core, kind: PhantomData }
    }
}

impl<K: Family> Socket<K> {
    /// The pattern of this socket.
    pub fn socket_type(&self) -> SocketType {
        self.core.kind
    }

    /// Listens on `endpoint` and tells where: for a wildcard the address that the system chose. Any number of binds
    /// and connects may be made, in any order.
    ///
    /// # Errors
    /// [`Endpoint`](crate::Error::Endpoint) when it cannot be understood, [`AddressInUse`](crate::Error::AddressInUse),
    /// [`NoDevice`](crate::Error::NoDevice) and others when the system refuses; all name the endpoint.
    ///
    /// # Cancellation
    /// Done when polled for the first time; a future that was not has done nothing.
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
    /// As [`connect`](Self::connect), [`Timeout`](crate::Error::Timeout) when it takes longer than `timeout`, whereupon the
    /// endpoint goes on trying, and [`Stopped`](crate::Error::Stopped) when the peer refuses this client or a rule of
    /// reconnecting ends it.
    ///
    /// # Cancellation
    /// The endpoint stays connected, as after [`connect`](Self::connect).
    pub async fn connect_ready(&self, endpoint: &str, timeout: Duration) -> Result<()> {
        self.core.connect_ready(endpoint, timeout).await
    }

    /// [`connect_ready`](Self::connect_ready) on the calling thread.
    ///
    /// # Errors
    /// As [`connect_ready`](Self::connect_ready).
    pub fn connect_ready_blocking(&self, endpoint: &str, timeout: Duration) -> Result<()> {
        shared::wait(self.core.connect_ready(endpoint, timeout))
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

    /// Closes all connections made to `endpoint`, after what is queued for them was sent or the linger time is over. What
    /// is queued while there is no connection waits for one until then, as it does after closing the socket.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound) when nothing is connected there.
    pub fn disconnect(&self, endpoint: &str) -> Result<()> {
        self.core.disconnect(endpoint)
    }

    /// Tries again to connect to an endpoint that was given up, after an authentication refusal for example, with the
    /// credentials that are set now.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound) when nothing is connected there,
    /// [`InvalidOption`](crate::Error::InvalidOption) for options that do not go together.
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

    /// Waits until something of `interest` can be done at once, and tells what (MQ-048).
    ///
    /// Somebody else with a handle to this socket may be faster, so that a `try_…` after this may still give
    /// [`WouldBlock`](crate::Error::WouldBlock).
    ///
    /// # Errors
    /// [`Terminated`](crate::Error::Terminated) when the context is shut down.
    ///
    /// # Cancellation
    /// Changes nothing; may be dropped at any time.
    pub fn ready(&self, interest: Interest) -> Ready<'_> {
        self.core.ready(interest)
    }

    /// [`ready`](Self::ready) on the calling thread, for at most `timeout` (`None`: as long as it takes).
    ///
    /// # Errors
    /// As [`ready`](Self::ready), and [`Timeout`](crate::Error::Timeout).
    pub fn ready_blocking(&self, interest: Interest, timeout: Option<Duration>) -> Result<Readiness> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        block_on(self.core.ready(interest), deadline).unwrap_or(Err(Error::Timeout))
    }

    /// What can be done at once.
    ///
    /// # Errors
    /// [`Terminated`](crate::Error::Terminated) when the context is shut down.
    pub fn readiness(&self) -> Result<Readiness> {
        self.core.readiness()
    }

    /// A descriptor for event loops, readable while a message can be received (MQ-048).
    ///
    /// # Errors
    /// [`System`](crate::Error::System) when the process has no descriptors left.
    pub fn readable_fd(&self) -> Result<ReadableFd> {
        Shared::readable_fd(&self.core)
    }

    /// Waits until every message that was accepted before has been handed to the operating system, moved to an
    /// in-process peer, or dropped by a rule of the pattern (MQ-059). Nothing needs this for progress.
    ///
    /// # Errors
    /// [`Terminated`](crate::Error::Terminated) when the context is shut down.
    ///
    /// # Cancellation
    /// Changes nothing; may be dropped at any time.
    pub async fn drained(&self) -> Result<()> {
        self.core.drained().await
    }

    /// [`drained`](Self::drained) on the calling thread.
    ///
    /// # Errors
    /// As [`drained`](Self::drained).
    pub fn drained_blocking(&self) -> Result<()> {
        shared::wait(self.core.drained())
    }

    /// The numbers of this socket, with those of peers that are gone. Does not take the socket's lock (MQ-364).
    pub fn metrics(&self) -> Metrics {
        self.core.ledger.reading()
    }

    /// The peers that this socket has or had connections to and still keeps a queue for, each with its numbers.
    pub fn peers(&self) -> Vec<PeerMetrics> {
        self.core.peers()
    }

    /// Sets an option by libzmq's number and in libzmq's encoding, for bindings; `SUBSCRIBE` and `UNSUBSCRIBE` too.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::Error::InvalidOption) when the value does not fit,
    /// [`NotSupported`](crate::Error::NotSupported) when the option is not there; nothing is changed then.
    pub fn set_raw(&self, number: i32, value: &[u8]) -> Result<()> {
        self.core.set_raw(number, value)
    }

    /// An option by libzmq's number and in libzmq's encoding; also what only a socket knows: `TYPE`, `EVENTS`, `FD`,
    /// `LAST_ENDPOINT` and `TOPICS_COUNT`. `RCVMORE` is 0 always, since messages are received whole. The number that
    /// `FD` gives is that of [`readable_fd`](Self::readable_fd) and valid while the socket is open.
    ///
    /// # Errors
    /// [`NotSupported`](crate::Error::NotSupported) when the option is not there or cannot be read.
    pub fn raw(&self, number: i32) -> Result<Vec<u8>> {
        Shared::raw(&self.core, number)
    }

    /// Sends events to a socket of type `kind` (PAIR, PUB or PUSH) that is bound to `endpoint`, an inproc name, as messages
    /// in libzmq's form, for bindings (MQ-361). Only events whose bit is in `mask` are sent. Replaces what was set
    /// before, which is sent `MONITOR_STOPPED`.
    ///
    /// # Errors
    /// [`ProtocolNotSupported`](crate::Error::ProtocolNotSupported) for an endpoint that is not inproc,
    /// [`InvalidOption`](crate::Error::InvalidOption) for another socket type or, with [`Form::V1`], a mask of more than
    /// 16 bits, [`AddressInUse`](crate::Error::AddressInUse) for a name that is taken.
    pub fn monitor_to(&self, endpoint: &str, mask: u64, form: Form, kind: SocketType) -> Result<()> {
        self.core.forward_events(Some((endpoint, Forwarding { mask, form, kind })))
    }

    /// Ends what [`monitor_to`](Self::monitor_to) began.
    ///
    /// # Errors
    /// None at present.
    pub fn stop_monitor(&self) -> Result<()> {
        self.core.forward_events(None)
    }

    /// Has the depths of the queues of every peer reported to the monitors, as
    /// [`QueueDepths`](crate::monitor::EventKind::QueueDepths).
    pub fn report_queues(&self) {
        self.core.report_queues();
    }

    /// Stops taking messages, sends what is queued for at most `linger` (`None`: as long as it takes), then closes.
    /// Tells how many messages were discarded.
    ///
    /// # Cancellation
    /// The socket goes on closing in the background, as a dropped one does.
    pub async fn close(self, linger: Option<Duration>) -> u64 {
        self.core.close(linger).await
    }

    /// [`close`](Self::close) on the calling thread.
    pub fn close_blocking(self, linger: Option<Duration>) -> u64 {
        block_on(self.core.close(linger), None).unwrap_or_default()
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
        self.core.try_send(message)
    }

    /// [`send`](Self::send) on the calling thread.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_blocking(&self, message: impl Into<Message>) -> Result<(), SendError> {
        self.core.send_blocking(message)
    }
}

impl<K: CanSend> Socket<K> {
    /// Sends messages from the front of `messages` until none is left, and tells how many.
    ///
    /// # Errors
    /// As [`send`](Self::send); the message that failed and those behind it are in `messages` still.
    ///
    /// # Cancellation
    /// What was not queued is in `messages` still, in order.
    pub fn send_many<'a>(&'a self, messages: &'a mut VecDeque<Message>) -> SendMany<'a> {
        self.core.send_many(messages)
    }

    /// [`send_many`](Self::send_many) on the calling thread.
    ///
    /// # Errors
    /// As [`send_many`](Self::send_many).
    pub fn send_many_blocking(&self, messages: &mut VecDeque<Message>) -> Result<usize> {
        shared::wait(self.core.send_many(messages))
    }

    /// A [`Sink`](futures_sink::Sink) into this socket.
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox::new(self.core())
    }
}

impl<K: CanReserve> Socket<K> {
    /// Waits until there is room for one message, at most the socket's `sndtimeo`, and keeps it: what is then sent with
    /// the permit is queued for certain (MQ-076). With PUB and XPUB that is room with every subscriber, all at one time;
    /// those who send do not wait for it.
    ///
    /// # Errors
    /// [`Timeout`](crate::Error::Timeout), [`Terminated`](crate::Error::Terminated), and what the pattern says.
    ///
    /// # Cancellation
    /// A dropped future has reserved nothing.
    pub fn reserve(&self) -> Reserve<'_> {
        self.core.reserve()
    }

    /// [`reserve`](Self::reserve) on the calling thread.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn reserve_blocking(&self) -> Result<Permit<'_>> {
        shared::wait(self.core.reserve())
    }

    /// Keeps room for one message if there is any.
    ///
    /// # Errors
    /// [`WouldBlock`](crate::Error::WouldBlock) when there is none; otherwise as [`reserve`](Self::reserve).
    pub fn try_reserve(&self) -> Result<Permit<'_>> {
        self.core.try_reserve()
    }
}

impl<K: CanSplit> Socket<K> {
    /// Two handles to this socket: one that sends and one that receives. The socket closes when both are dropped.
    pub fn split(self) -> (Sender<K>, Receiver<K>) {
        (Sender::new(self.clone()), Receiver::new(self))
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
        let mut message = Message::new();
        self.core.try_recv_into(&mut message).map(|()| message)
    }

    /// [`recv`](Self::recv) on the calling thread.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_blocking(&self) -> Result<Message> {
        self.core.recv_message_blocking()
    }
}

impl<K: CanReceive> Socket<K> {
    /// Receives a message and tells which peer it came from (MQ-121); `None` when that peer is forgotten already.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancellation
    /// A dropped future has taken nothing.
    pub async fn recv_with_peer(&self) -> Result<(Message, Option<Peer>)> {
        let (message, peer) = self.core.recv::<(Message, Option<Arc<PeerInfo>>)>().await?;
        Ok((message, peer.map(Peer::new)))
    }

    /// [`recv_with_peer`](Self::recv_with_peer) if a message is there.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
    pub fn try_recv_with_peer(&self) -> Result<(Message, Option<Peer>)> {
        let (message, peer) = self.core.try_recv::<(Message, Option<Arc<PeerInfo>>)>()?;
        Ok((message, peer.map(Peer::new)))
    }

    /// [`recv_with_peer`](Self::recv_with_peer) on the calling thread.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_with_peer_blocking(&self) -> Result<(Message, Option<Peer>)> {
        let (message, peer) = self.core.recv_blocking::<(Message, Option<Arc<PeerInfo>>)>()?;
        Ok((message, peer.map(Peer::new)))
    }

    /// Waits for a message, then takes what else is there, up to `most` in all, and appends it to `into`. Tells how many
    /// were taken (MQ-050).
    ///
    /// # Errors
    /// As [`recv`](Self::recv); then nothing was taken.
    ///
    /// # Cancellation
    /// What was taken is in `into`.
    pub async fn recv_many(&self, into: &mut Vec<Message>, most: usize) -> Result<usize> {
        self.core.recv_many(into, most).await
    }

    /// [`recv_many`](Self::recv_many) on the calling thread.
    ///
    /// # Errors
    /// As [`recv_many`](Self::recv_many).
    pub fn recv_many_blocking(&self, into: &mut Vec<Message>, most: usize) -> Result<usize> {
        shared::wait(self.core.recv_many(into, most))
    }

    /// Takes what is there, up to `most`.
    ///
    /// # Errors
    /// [`WouldBlock`](crate::Error::WouldBlock) when nothing is there; otherwise as [`recv`](Self::recv).
    pub fn try_recv_many(&self, into: &mut Vec<Message>, most: usize) -> Result<usize> {
        self.core.try_recv_many(into, most)
    }

    /// A [`Stream`](futures_core::Stream) of what is received.
    pub fn messages(&self) -> Messages<'_> {
        Messages::new(self.core())
    }
}

impl<K: Family> Clone for Socket<K> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), kind: PhantomData }
    }
}

impl<K: Family> fmt::Debug for Socket<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.core.kind.name()).field("last_endpoint", &self.last_endpoint()).finish()
    }
}
