//! Events in libzmq's form, as messages of an in-process socket (MQ-361), for bindings.
//!
//! ```text
//! version 1   event u16, value u32 | endpoint
//! version 2   event u64 | count of values u64 | each value u64 | local endpoint | remote endpoint
//! ```
//!
//! `|` separates parts; numbers are in native byte order.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    thread::{self, JoinHandle},
    time::Duration,
};

use tidegate_io::{
    message::{Message, Part},
    wait::block_on,
};
use tidegate_zmtp::{
    close::{CloseReason, Deadline, ZapError},
    socket_type::SocketType,
};

use super::{Event, EventKind, Monitor};
use crate::{
    context::{Context, ContextInner},
    endpoint::BindEndpoint,
    error::{Error, Result},
    options::Options,
    shared::Owner,
};

/// Which of libzmq's two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Two parts; events of 16 bits.
    V1,
    /// Five parts or more; events of 64 bits.
    V2,
}

const MONITOR_STOPPED: u64 = 0x0400;

impl EventKind {
    /// libzmq's bit for this event, and its values; `None` where libzmq has no such event.
    pub fn to_libzmq(&self) -> Option<(u64, Vec<u64>)> {
        let number = |value: i32| vec![u64::from(value.cast_unsigned())];
        Some(match self {
            Self::Connected(fd) => (0x0001, number(*fd)),
            // EINPROGRESS, the only way in which connecting is delayed.
            Self::ConnectDelayed => (0x0002, vec![115]),
            Self::ConnectRetried(delay) => {
                (0x0004, vec![u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)])
            }
            Self::Listening(fd) => (0x0008, number(*fd)),
            Self::BindFailed(errno) => (0x0010, number(*errno)),
            Self::Accepted(fd) => (0x0020, number(*fd)),
            Self::AcceptFailed(why) => (0x0040, number(why.errno())),
            Self::Closed(fd) => (0x0080, number(*fd)),
            Self::CloseFailed(errno) => (0x0100, number(*errno)),
            Self::Disconnected { fd, .. } => (0x0200, number(*fd)),
            Self::HandshakeSucceeded { .. } => (0x1000, vec![0]),
            Self::HandshakeFailed(reason) => {
                let (event, value) = failure(reason)?;
                (event, vec![value])
            }
            Self::QueueDepths { outbound, inbound } => (0x1_0000, vec![*outbound, *inbound]),
            _ => return None,
        })
    }
}

/// Event and value for a connection that failed.
fn failure(reason: &CloseReason) -> Option<(u64, u64)> {
    const NO_DETAIL: u64 = 0x0800;
    const PROTOCOL: u64 = 0x2000;
    const AUTH: u64 = 0x4000;
    const EFAULT: u64 = 14;
    const EPIPE: u64 = 32;
    const EPROTO: u64 = 71;
    const ETIMEDOUT: u64 = 110;
    let protocol = |code: u64| Some((PROTOCOL, code));
    match reason {
        CloseReason::AuthFailed(code) => Some((AUTH, code.status().into())),
        CloseReason::NoAuthenticator => Some((NO_DETAIL, EFAULT)),
        CloseReason::Disconnected { .. } => Some((NO_DETAIL, EPIPE)),
        CloseReason::TimedOut(Deadline::Handshake) => Some((NO_DETAIL, ETIMEDOUT)),
        // Of an established connection: the end of it says enough.
        CloseReason::TimedOut(_) => None,
        CloseReason::PeerError(_) => Some((NO_DETAIL, EPROTO)),
        CloseReason::UnexpectedCommand | CloseReason::UnexpectedData => protocol(0x1000_0001),
        CloseReason::InvalidSequence => protocol(0x1000_0002),
        CloseReason::KeyExchange => protocol(0x1000_0003),
        CloseReason::MalformedCommand => protocol(0x1000_0011),
        CloseReason::MalformedMessage => protocol(0x1000_0012),
        CloseReason::MalformedHello => protocol(0x1000_0013),
        CloseReason::MalformedInitiate => protocol(0x1000_0014),
        CloseReason::MalformedError => protocol(0x1000_0015),
        CloseReason::MalformedReady => protocol(0x1000_0016),
        CloseReason::MalformedWelcome => protocol(0x1000_0017),
        CloseReason::InvalidMetadata(_) | CloseReason::InvalidSocketType => protocol(0x1000_0018),
        CloseReason::Cryptographic => protocol(0x1100_0001),
        CloseReason::MechanismMismatch => protocol(0x1100_0002),
        CloseReason::Zap(error) => protocol(match error {
            ZapError::MalformedReply => 0x2000_0001,
            ZapError::BadRequestId => 0x2000_0002,
            ZapError::BadVersion => 0x2000_0003,
            ZapError::InvalidStatusCode => 0x2000_0004,
            ZapError::InvalidMetadata => 0x2000_0005,
            _ => 0x2000_0000,
        }),
        _ => protocol(0x1000_0000),
    }
}

/// The message for an event, if it is among those asked for.
fn message(form: Form, mask: u64, event: &Event) -> Option<Message> {
    let (bit, values) = event.kind.to_libzmq()?;
    let scheme = if event.endpoint.starts_with("ipc") { "ipc" } else { "tcp" };
    let full = |address: &String| format!("{scheme}://{address}");
    let local = event.local_address.as_ref().map(full);
    let (local, remote) = match event.is_bound {
        // Where the endpoint is a wildcard the stream knows better.
        true => (
            local.unwrap_or_else(|| event.endpoint.clone()),
            event.peer_address.as_ref().map(full).unwrap_or_default(),
        ),
        false => (local.unwrap_or_default(), event.endpoint.clone()),
    };
    (mask & bit != 0).then(|| encode(form, bit, &values, event.is_bound, &local, &remote))
}

fn encode(form: Form, bit: u64, values: &[u64], is_bound: bool, local: &str, remote: &str) -> Message {
    match form {
        Form::V1 => {
            let mut head = [0; 6];
            let (event, value) = head.split_at_mut(2);
            event.copy_from_slice(&(bit as u16).to_ne_bytes());
            value.copy_from_slice(&(values.first().copied().unwrap_or(0) as u32).to_ne_bytes());
            // One endpoint: ours where we are bound, else the peer's.
            let endpoint = if is_bound { local } else { remote };
            [Part::from(&head), Part::from(endpoint)].into_iter().collect()
        }
        Form::V2 => {
            let numbers = [bit, values.len() as u64].into_iter().chain(values.iter().copied());
            let mut message: Message = numbers.map(|number| Part::from(&number.to_ne_bytes())).collect();
            message.push(local);
            message.push(remote);
            message
        }
    }
}

/// What is to be forwarded, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarding {
    pub(crate) mask: u64,
    pub(crate) form: Form,
    pub(crate) kind: SocketType,
}

/// Forwards events to a bound socket, by a thread of its own: nobody who reports an event waits for the socket. Dropped
/// with the socket it tells of, it goes on until that one's last event.
#[derive(Debug)]
pub(crate) struct Forwarder {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Fails for what libzmq would refuse.
    pub(crate) fn check(endpoint: &str, forwarding: Forwarding) -> Result<()> {
        let invalid = |problem| Err(Error::InvalidOption { option: "monitor", problem });
        match endpoint.parse() {
            Ok(BindEndpoint::Inproc(_)) => {}
            Ok(_) | Err(crate::endpoint::EndpointError::UnknownScheme { .. }) => {
                let (scheme, _) = endpoint.split_once("://").unwrap_or_default();
                return Err(Error::ProtocolNotSupported {
                    endpoint: endpoint.to_owned(),
                    scheme: scheme.to_owned(),
                });
            }
            Err(error) => return Err(error.into()),
        }
        if forwarding.form == Form::V1 && forwarding.mask > 0xFFFF {
            return invalid("version 1 has events of 16 bits; use version 2");
        }
        match forwarding.kind {
            SocketType::Pair | SocketType::Pub | SocketType::Push => Ok(()),
            _ => invalid("the socket must be PAIR, PUB or PUSH"),
        }
    }

    pub(crate) fn start(
        context: &Arc<ContextInner>,
        endpoint: &str,
        forwarding: Forwarding,
        monitor: Monitor,
    ) -> Result<Self> {
        let mut options = Options::default();
        options.linger = Some(Duration::ZERO);
        let context = Context::from_inner(context.clone());
        let socket = Owner::new(&context, forwarding.kind, options)?;
        crate::shared::wait(socket.bind(endpoint))?;
        let stop = Arc::new(Stop::default());
        let until = stop.clone();
        let thread = thread::Builder::new()
            .name("tidegate-mq-monitor".into())
            .spawn(move || {
                block_on(forward(&socket, forwarding, &monitor, &until), None);
                if forwarding.mask & MONITOR_STOPPED != 0 {
                    let last = encode(forwarding.form, MONITOR_STOPPED, &[0], true, "", "");
                    // Nobody there to be told is no trouble.
                    let _ = socket.try_send(last);
                }
            })
            .map_err(|source| Error::System { what: "cannot start a monitor".into(), source })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Forwarder {
    /// Ends it at once. The name is free again when this returns.
    pub(crate) fn stop(mut self) {
        self.stop.set(End::Now);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.set(End::WithSocket);
    }
}

async fn forward(socket: &Owner, forwarding: Forwarding, monitor: &Monitor, stop: &Stop) {
    while let Some(Some(event)) = unless(stop, monitor.next()).await {
        let Some(message) = message(forwarding.form, forwarding.mask, &event) else { continue };
        // At once where that is possible: an end that has come meanwhile must not cost this event.
        let Err(failed) = socket.try_send(message) else { continue };
        match unless(stop, socket.send(failed.message)).await {
            Some(Ok(())) => {}
            _ => return,
        }
    }
    // What was reported before the end is still told, as far as there is room.
    while let Some(event) = match stop.end() {
        Some(End::Now) => monitor.try_next(),
        _ => monitor.next().await,
    } {
        if let Some(message) = message(forwarding.form, forwarding.mask, &event)
            && socket.try_send(message).is_err()
        {
            return;
        }
    }
}

/// What `future` gives, or nothing when told to stop before.
async fn unless<T>(stop: &Stop, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if stop.is_set(context.waker()) {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Until when events are forwarded without waiting for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Only those that are there already.
    Now,
    /// The socket closes: until the last event of its connections and listeners.
    WithSocket,
}

#[derive(Debug, Default)]
struct Stop(Mutex<(Option<End>, Option<Waker>)>);

impl Stop {
    /// The first one holds.
    fn set(&self, end: End) {
        let waker = {
            let mut stop = self.lock();
            stop.0.get_or_insert(end);
            stop.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn is_set(&self, waker: &Waker) -> bool {
        let mut stop = self.lock();
        stop.1 = Some(waker.clone());
        stop.0.is_some()
    }

    fn end(&self) -> Option<End> {
        self.lock().0
    }

    fn lock(&self) -> MutexGuard<'_, (Option<End>, Option<Waker>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
