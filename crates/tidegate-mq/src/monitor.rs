//! What happens to a socket's connections (chapter 9 of the specification).
//!
//! Every socket has any number of [`Monitor`]s, each with a bounded queue. Reporting never waits: when a queue is full
//! the oldest events are dropped, and the reader is told how many.

mod wire_form;

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidegate_io::wait::block_on;
pub use tidegate_zmtp::close::{AuthCode, CloseReason, Deadline, Limit, MetadataError, ZapError};

pub use self::wire_form::Form;
pub(crate) use self::wire_form::{Forwarder, Forwarding};

use crate::{
    error::{Error, Result},
    peer::Peer,
};

/// Something that happened, with the endpoint it happened to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The endpoint, as bound or connected.
    pub endpoint: String,
    /// Address of the peer, where there is one.
    pub peer_address: Option<String>,
    /// Our own address of the stream, where there is one.
    pub local_address: Option<String>,
    /// What the peer said of itself, once its handshake is complete.
    pub peer: Option<Peer>,
    /// Whether the endpoint is bound; else it is connected.
    pub is_bound: bool,
    /// What happened.
    pub kind: EventKind,
}

impl Event {
    pub(crate) fn new(endpoint: String, is_bound: bool, kind: EventKind) -> Self {
        Self { endpoint, peer_address: None, local_address: None, peer: None, is_bound, kind }
    }
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A stream is connected; the handshake follows. The number is its descriptor.
    Connected(i32),
    /// Connecting takes a while.
    ConnectDelayed,
    /// Another attempt follows after this time.
    ConnectRetried(Duration),
    /// The endpoint is bound. The number is its descriptor.
    Listening(i32),
    /// The endpoint could not be bound: the system's error number.
    BindFailed(i32),
    /// A stream came in; the handshake follows. The number is its descriptor.
    Accepted(i32),
    /// A stream could not come in, or had to go before its handshake was complete.
    AcceptFailed(NotAccepted),
    /// A listener, or a stream that did not get as far as being connected, is closed.
    Closed(i32),
    /// A listener is closed, but what it had in the file system could not be removed: the system's error number.
    CloseFailed(i32),
    /// An attempt to connect failed: the system's error number.
    ConnectFailed(i32),
    /// A connected or accepted stream ended.
    Disconnected {
        /// Its descriptor.
        fd: i32,
        /// Bytes received.
        received: u64,
        /// Bytes sent.
        sent: u64,
        /// Messages received.
        messages_received: u64,
        /// Messages given to be written; those that were being written last may be lost.
        messages_sent: u64,
    },
    /// The handshake is complete.
    HandshakeSucceeded {
        /// Routing id of the peer; empty when it has none.
        routing_id: Bytes,
        /// What the authenticator calls the peer.
        user_id: Bytes,
    },
    /// The handshake failed, or the peer broke the protocol afterwards.
    HandshakeFailed(CloseReason),
    /// A peer was turned away: its routing id is in use (ROUTER).
    RoutingIdInUse,
    /// A peer was turned away: there is one already (PAIR).
    PairBusy,
    /// Messages that wait in the queues of one peer; see [`Socket::report_queues`](crate::Socket::report_queues).
    QueueDepths {
        /// To be sent.
        outbound: u64,
        /// To be received.
        inbound: u64,
    },
    /// The endpoint will not be tried again by itself; see [`Socket::retry`](crate::Socket::retry).
    Stopped,
    /// So many events were dropped because nobody read them.
    Lost(u64),
}

/// Why a stream was not accepted (MQ-262).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotAccepted {
    /// The system's error number. The listener pauses and goes on.
    System(i32),
    /// `max_connections` are there: the newcomer was closed.
    TooManyConnections,
    /// More than `max_pending_handshakes`, or `max_pending_handshakes_per_ip`: the oldest of these was closed in favour
    /// of a newcomer.
    Displaced,
    /// A filter did not let it pass.
    Filtered,
}

impl NotAccepted {
    /// The error number in libzmq's form: that of the system, else `EMFILE`, `ECONNABORTED` or `EPERM`.
    pub fn errno(self) -> i32 {
        match self {
            Self::System(errno) => errno,
            Self::TooManyConnections => 24,
            Self::Displaced => 103,
            Self::Filtered => 1,
        }
    }
}

/// Events of one socket, from the moment it was made.
#[derive(Debug)]
pub struct Monitor {
    queue: Arc<Queue>,
}

impl Monitor {
    /// Most events that wait to be read.
    pub const CAPACITY: usize = 1024;

    /// The next event; `None` when the socket is gone with all its connections and has nothing more to tell.
    ///
    /// # Cancellation
    /// A dropped future has taken nothing.
    pub async fn next(&self) -> Option<Event> {
        poll_fn(|context| {
            let mut events = self.queue.lock();
            match events.pop() {
                Some(event) => Poll::Ready(Some(event)),
                None if events.ended => Poll::Ready(None),
                None => {
                    if !events.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                        events.wakers.push(context.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next event, if there is one.
    pub fn try_next(&self) -> Option<Event> {
        self.queue.lock().pop()
    }

    /// The next event within `timeout`; `None` in it when [`next`](Self::next) would give that.
    ///
    /// # Errors
    /// [`Error::Timeout`] when nothing happened in that time.
    pub fn next_blocking(&self, timeout: Option<Duration>) -> Result<Option<Event>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        block_on(self.next(), deadline).ok_or(Error::Timeout)
    }
}

#[derive(Debug, Default)]
struct Queue(Mutex<Events>);

#[derive(Debug, Default)]
struct Events {
    waiting: VecDeque<Event>,
    lost: u64,
    ended: bool,
    /// Of those who wait for an event; any of them may take it.
    wakers: Vec<Waker>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    fn pop(&mut self) -> Option<Event> {
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            return Some(Event::new(String::new(), false, EventKind::Lost(lost)));
        }
        self.waiting.pop_front()
    }
}

/// The monitors of a socket.
#[derive(Debug, Default)]
pub(crate) struct Monitors(Mutex<Vec<Weak<Queue>>>);

impl Monitors {
    pub(crate) fn add(&self) -> Monitor {
        let queue = Arc::new(Queue::default());
        self.lock().push(Arc::downgrade(&queue));
        Monitor { queue }
    }

    /// Reports an event, which is made only when somebody listens.
    pub(crate) fn report(&self, event: impl FnOnce() -> Event) {
        let mut queues = self.lock();
        if queues.is_empty() {
            return;
        }
        queues.retain(|queue| queue.strong_count() > 0);
        let event = event();
        let mut wakers = Vec::new();
        for queue in queues.iter().filter_map(Weak::upgrade) {
            let mut events = queue.lock();
            if events.waiting.len() == Monitor::CAPACITY {
                events.waiting.pop_front();
                events.lost += 1;
            }
            events.waiting.push_back(event.clone());
            wakers.append(&mut events.wakers);
        }
        drop(queues);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Queue>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Monitors {
    fn drop(&mut self) {
        for queue in self.lock().drain(..).filter_map(|queue| queue.upgrade()) {
            let mut events = queue.lock();
            events.ended = true;
            let wakers = std::mem::take(&mut events.wakers);
            drop(events);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}
