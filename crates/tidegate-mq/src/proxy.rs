//! Proxies: two sockets whose messages go over to each other (chapter 10 of the specification).
//!
//! ```no_run
//! use tidegate_mq::{Context, proxy::Proxy};
//!
//! let proxy = Proxy::queue(&Context::new(), "tcp://*:5559", "tcp://*:5560")?;
//! let control = proxy.control();
//! std::thread::spawn(move || proxy.run_blocking());
//! println!("{} parts came in", control.statistics().frontend.received);
//! control.terminate();
//! # Ok::<(), tidegate_mq::Error>(())
//! ```
//!
//! A message is taken from one side only when the other can take it, so that a slow side slows the other down and nothing
//! piles up here (MQ-366). Parts are shared, not copied.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as TaskContext, Poll, Waker},
};

use tidegate_io::message::{Message, Part};
use tidegate_zmtp::socket_type::SocketType;

use crate::{
    context::Context,
    error::{Error, Result},
    shared::{self, Interest, Place, Send},
    socket::AnySocket,
};

/// Most messages that go one way before the other way has its turn (MQ-366).
const TURN: usize = 1000;

/// After so many turns the task lets others run.
const TURNS: usize = 16;

/// Two sockets, and where their messages go. It does nothing until it [runs](Self::run).
#[derive(Debug)]
pub struct Proxy {
    frontend: AnySocket,
    backend: AnySocket,
    capture: Option<AnySocket>,
    steering: Option<AnySocket>,
    desk: Arc<Desk>,
}

impl Proxy {
    /// A proxy between two sockets, both ways as far as their types allow. They may be the same socket: then what it
    /// receives is sent by it.
    pub fn new(frontend: impl Into<AnySocket>, backend: impl Into<AnySocket>) -> Self {
        let (frontend, backend) = (frontend.into(), backend.into());
        Self { frontend, backend, capture: None, steering: None, desk: Arc::default() }
    }

    /// Requests are spread over workers: ROUTER and DEALER, both bound (MQ-370).
    ///
    /// # Errors
    /// As [`Socket::bind`](crate::Socket::bind).
    pub fn queue(context: &Context, frontend: &str, backend: &str) -> Result<Self> {
        Self::bound(context, (SocketType::Router, frontend), (SocketType::Dealer, backend))
    }

    /// Publishers to subscribers: XSUB for publishers and XPUB for subscribers, both bound (MQ-370).
    ///
    /// # Errors
    /// As [`Socket::bind`](crate::Socket::bind).
    pub fn forwarder(context: &Context, frontend: &str, backend: &str) -> Result<Self> {
        Self::bound(context, (SocketType::XSub, frontend), (SocketType::XPub, backend))
    }

    /// Tasks to workers: PULL and PUSH, both bound (MQ-370).
    ///
    /// # Errors
    /// As [`Socket::bind`](crate::Socket::bind).
    pub fn streamer(context: &Context, frontend: &str, backend: &str) -> Result<Self> {
        Self::bound(context, (SocketType::Pull, frontend), (SocketType::Push, backend))
    }

    fn bound(context: &Context, frontend: (SocketType, &str), backend: (SocketType, &str)) -> Result<Self> {
        let bind = |(kind, endpoint): (SocketType, &str)| -> Result<AnySocket> {
            let socket = AnySocket::of_type(context, kind)?;
            socket.bind_blocking(endpoint)?;
            Ok(socket)
        };
        Ok(Self::new(bind(frontend)?, bind(backend)?))
    }

    /// Gives `capture` (PUB, DEALER, PUSH or PAIR) every message as well. It never holds the proxy up: what it cannot
    /// take at once is dropped and counted.
    #[must_use]
    pub fn with_capture(mut self, capture: impl Into<AnySocket>) -> Self {
        self.capture = Some(capture.into());
        self
    }

    /// Obeys what `steering` (REP, PAIR, PULL or SUB) receives: `PAUSE`, `RESUME`, `TERMINATE` and `STATISTICS` (MQ-368).
    ///
    /// A REP answers `STATISTICS` with eight parts of 8 bytes in native byte order: parts and bytes received, parts and
    /// bytes sent, of the frontend and then of the backend; everything else with an empty part. A PAIR answers
    /// `STATISTICS` only.
    #[must_use]
    pub fn with_steering(mut self, steering: impl Into<AnySocket>) -> Self {
        self.steering = Some(steering.into());
        self
    }

    /// The first socket.
    pub fn frontend(&self) -> &AnySocket {
        &self.frontend
    }

    /// The second socket.
    pub fn backend(&self) -> &AnySocket {
        &self.backend
    }

    /// A handle that controls this proxy from anywhere.
    pub fn control(&self) -> ProxyControl {
        ProxyControl(self.desk.clone())
    }

    /// Moves messages until told to terminate.
    ///
    /// # Errors
    /// [`Terminated`](Error::Terminated) when a context is shut down, [`NotSupported`](Error::NotSupported) when no
    /// message can go either way. Trouble with a single peer is no error: the message is dropped and counted.
    ///
    /// # Cancellation
    /// May be dropped at any time, and run again. A message that was taken from one side and found the other full
    /// just then is dropped and counted.
    pub async fn run(&self) -> Result<()> {
        let (front, back) = (&self.frontend, &self.backend);
        let is_one = std::ptr::eq(front.core(), back.core());
        let lanes = [(front, back, false), (back, front, true)];
        let mut lanes: Vec<Lane<'_>> = lanes
            .into_iter()
            .filter(|(from, to, is_return)| {
                receives(from.socket_type()) && sends(to.socket_type()) && !(is_one && *is_return)
            })
            .map(|(from, to, is_return)| Lane {
                proxy: self,
                from,
                to,
                is_return,
                waiting: None,
                places: Default::default(),
            })
            .collect();
        if lanes.is_empty() {
            return Err(Error::NotSupported("neither of these two sockets can send what the other receives"));
        }
        let mut steering = Place::default();
        poll_fn(|context| self.poll(&mut lanes, &mut steering, context)).await
    }

    /// [`run`](Self::run) on the calling thread.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_blocking(&self) -> Result<()> {
        shared::wait(self.run())
    }

    fn poll(
        &self,
        lanes: &mut [Lane<'_>],
        steering: &mut Place,
        context: &mut TaskContext<'_>,
    ) -> Poll<Result<()>> {
        for _ in 0..TURNS {
            self.steer(steering, context)?;
            match self.desk.command(context) {
                Command::Terminate => return Poll::Ready(Ok(())),
                Command::Pause => return Poll::Pending,
                Command::Run => {}
            }
            let mut moved = false;
            for lane in &mut *lanes {
                moved |= lane.turn(context)?;
            }
            if !moved {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does what the steering socket has received.
    fn steer(&self, place: &mut Place, context: &mut TaskContext<'_>) -> Result<()> {
        let Some(steering) = &self.steering else { return Ok(()) };
        let kind = steering.socket_type();
        while steering.core().poll_ready(Interest::Receive, place, context)?.is_ready() {
            let Ok(command) = steering.try_recv() else { continue };
            let mut answer = Message::from(Part::EMPTY);
            let mut has_answer = kind == SocketType::Rep;
            match command.parts() {
                [part] if part == b"PAUSE" => self.control().pause(),
                [part] if part == b"RESUME" => self.control().resume(),
                [part] if part == b"TERMINATE" => self.control().terminate(),
                [part] if part == b"STATISTICS" => {
                    answer = self.control().statistics().to_message();
                    has_answer = matches!(kind, SocketType::Rep | SocketType::Pair);
                }
                _ => {}
            }
            if has_answer && let Err(failed) = steering.try_send(answer) {
                tracing::debug!(error = %failed.error, "the answer of a proxy was not sent");
            }
        }
        Ok(())
    }

    fn capture(&self, message: &Message) {
        if let Some(capture) = &self.capture
            && capture.try_send(message.clone()).is_err()
        {
            self.desk.lock().statistics.capture_dropped += 1;
        }
    }
}

fn receives(kind: SocketType) -> bool {
    !matches!(kind, SocketType::Pub | SocketType::Push)
}

fn sends(kind: SocketType) -> bool {
    !matches!(kind, SocketType::Sub | SocketType::Pull)
}

/// One way through a proxy.
struct Lane<'a> {
    proxy: &'a Proxy,
    from: &'a AnySocket,
    to: &'a AnySocket,
    /// From the backend to the frontend.
    is_return: bool,
    /// A message whose peer is full while the socket as a whole is not, with its parts and bytes.
    waiting: Option<(Send<'a>, Amount)>,
    /// Where the task waits for either socket.
    places: [Place; 2],
}

impl Lane<'_> {
    /// Moves what can be moved; says whether that was anything.
    fn turn(&mut self, context: &mut TaskContext<'_>) -> Result<bool> {
        let mut moved = false;
        for _ in 0..TURN {
            if let Some((waiting, amount)) = &mut self.waiting {
                let Poll::Ready(sent) = Pin::new(waiting).poll(context) else { break };
                let amount = *amount;
                self.waiting = None;
                self.sent(sent.map_err(|failed| failed.error), amount)?;
                moved = true;
            }
            let [to, from] = &mut self.places;
            // A single socket need not be able to send before it has received: REP is not.
            let is_one = std::ptr::eq(self.from.core(), self.to.core());
            if !is_one && self.to.core().poll_ready(Interest::Send, to, context)?.is_pending()
                || self.from.core().poll_ready(Interest::Receive, from, context)?.is_pending()
            {
                break;
            }
            let message = match self.from.try_recv() {
                Ok(message) => message,
                Err(Error::Terminated) => return Err(Error::Terminated),
                // Somebody else was faster: it was ready, so nobody tells of the next one.
                Err(_) => {
                    moved = true;
                    continue;
                }
            };
            moved = true;
            let amount = Amount::of(&message);
            self.proxy.desk.count(|statistics| self.sides(statistics).0.add_received(amount));
            self.proxy.capture(&message);
            match self.to.try_send(message) {
                Err(failed) if matches!(failed.error, Error::WouldBlock) => {
                    let mut send = self.to.core().send(failed.message);
                    send.wait_for_ever();
                    self.waiting = Some((send, amount));
                }
                sent => self.sent(sent.map_err(|failed| failed.error), amount)?,
            }
        }
        Ok(moved)
    }

    fn sent(&self, sent: Result<()>, amount: Amount) -> Result<()> {
        match sent {
            Ok(()) => self.proxy.desk.count(|statistics| self.sides(statistics).1.add_sent(amount)),
            Err(error @ (Error::Terminated | Error::Closed)) => return Err(error),
            Err(_) => self.proxy.desk.count(|statistics| statistics.dropped += 1),
        }
        Ok(())
    }

    /// The side that receives, and the one that sends.
    fn sides<'s>(&self, statistics: &'s mut Statistics) -> (&'s mut Side, &'s mut Side) {
        let Statistics { frontend, backend, .. } = statistics;
        if self.is_return { (backend, frontend) } else { (frontend, backend) }
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        if self.waiting.is_some() {
            self.proxy.desk.count(|statistics| statistics.dropped += 1);
        }
    }
}

#[derive(Clone, Copy)]
struct Amount {
    parts: u64,
    bytes: u64,
}

impl Amount {
    fn of(message: &Message) -> Self {
        Self { parts: message.len() as u64, bytes: message.byte_len() as u64 }
    }
}

/// What went through one side of a proxy. Counts are of parts, as with libzmq.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Side {
    /// Parts received by this side's socket.
    pub received: u64,
    /// Bytes in these.
    pub received_bytes: u64,
    /// Parts sent by this side's socket.
    pub sent: u64,
    /// Bytes in these.
    pub sent_bytes: u64,
}

impl Side {
    fn add_received(&mut self, Amount { parts, bytes }: Amount) {
        self.received += parts;
        self.received_bytes += bytes;
    }

    fn add_sent(&mut self, Amount { parts, bytes }: Amount) {
        self.sent += parts;
        self.sent_bytes += bytes;
    }
}

/// What went through a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Of the frontend.
    pub frontend: Side,
    /// Of the backend.
    pub backend: Side,
    /// Messages that were taken from one side and that the other side refused for good.
    pub dropped: u64,
    /// Messages that the capture socket could not take at once.
    pub capture_dropped: u64,
}

impl Statistics {
    fn to_message(self) -> Message {
        [self.frontend, self.backend]
            .into_iter()
            .flat_map(|side| [side.received, side.received_bytes, side.sent, side.sent_bytes])
            .map(|number| Part::from(&number.to_ne_bytes()))
            .collect()
    }
}

/// Controls a [`Proxy`] from anywhere (MQ-369). Clones control the same proxy.
#[derive(Clone)]
pub struct ProxyControl(Arc<Desk>);

impl ProxyControl {
    /// Stops moving messages until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.0.change(|orders| orders.paused = true);
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.0.change(|orders| orders.paused = false);
    }

    /// Has the proxy return. One that runs later returns at once.
    pub fn terminate(&self) {
        self.0.change(|orders| orders.terminated = true);
    }

    /// What has gone through so far.
    pub fn statistics(&self) -> Statistics {
        self.0.lock().statistics
    }
}

impl fmt::Debug for ProxyControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProxyControl").field(&self.statistics()).finish()
    }
}

/// What controls and the running proxy share.
#[derive(Debug, Default)]
struct Desk(Mutex<Orders>);

#[derive(Debug, Default)]
struct Orders {
    paused: bool,
    terminated: bool,
    statistics: Statistics,
    waker: Option<Waker>,
}

enum Command {
    Run,
    Pause,
    Terminate,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Orders)) {
        let waker = {
            let mut orders = self.lock();
            change(&mut orders);
            orders.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn count(&self, count: impl FnOnce(&mut Statistics)) {
        count(&mut self.lock().statistics);
    }

    fn command(&self, context: &TaskContext<'_>) -> Command {
        let mut orders = self.lock();
        orders.waker = Some(context.waker().clone());
        match (orders.terminated, orders.paused) {
            (true, _) => Command::Terminate,
            (false, true) => Command::Pause,
            (false, false) => Command::Run,
        }
    }
}
