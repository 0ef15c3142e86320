//! One stream connection of a socket: the protocol session tied to the socket's state. No I/O here (MQ-012); the engine
//! calls with bytes and the time.
//!
//! What was received is decoded without the socket's lock and then given to the state in one go. When the state says
//! that its queue is full, the rest is held back and reading pauses; the resume gives that first.

mod plan;

use std::{
    cell::Cell,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Wake, Waker},
    thread::LocalKey,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tidegate_io::{
    batch::WriteBatch,
    buffer::with_local_slab,
    engine::{StreamAddress, Traffic},
    message::Part,
    packed::Packed,
    peer::{Epoch, PeerKey},
    protocol::{Connection, Control, Ended, Flow, Retry, StreamInfo},
};
use tidegate_zmtp::{
    auth::{AuthRequest, Verdict},
    close::CloseReason,
    session::{Event as SessionEvent, PeerInfo, Session, State},
};

use crate::{
    auth::Asking,
    context::fill_random,
    monitor::EventKind,
    peer::PEER_ADDRESS,
    shared::{Link, Shared},
    state::{Arrival, Carried, Command, Most, Origin, Received, Refusal, Violation},
};

use self::plan::About;
pub(crate) use self::plan::{Accepting, Connecting, Plan};

thread_local! {
    /// Room that the connections of a worker use in turn, so that an idle one keeps none.
    static SPARE_HELD: Cell<VecDeque<SessionEvent>> = const { Cell::new(VecDeque::new()) };
    static SPARE_PACKED: Cell<Packed> = const { Cell::new(Packed::new()) };
}

type Spare<T> = LocalKey<Cell<VecDeque<T>>>;

/// Gives an empty queue the spare room of the thread.
fn borrow_room<T>(queue: &mut VecDeque<T>, spare: &'static Spare<T>) {
    if queue.capacity() == 0 {
        *queue = spare.try_with(Cell::take).unwrap_or_default();
    }
}

/// The reverse, unless the queue is in use.
fn give_room_back<T>(queue: &mut VecDeque<T>, spare: &'static Spare<T>) {
    if queue.is_empty() {
        let room = std::mem::take(queue);
        let _ = spare.try_with(|spare| spare.set(room));
    }
}

/// Gives messages without memory the spare memory of the thread.
fn borrow_packed(messages: &mut Packed) {
    if messages.is_bare() {
        *messages = SPARE_PACKED.try_with(Cell::take).unwrap_or_default();
    }
}

/// The reverse, unless there are messages.
fn give_packed_back(messages: &mut Packed) {
    if messages.is_empty() {
        let room = std::mem::take(messages);
        let _ = SPARE_PACKED.try_with(|spare| spare.set(room));
    }
}

/// Most messages or events that are decoded before they are given to the socket.
const AT_ONCE: usize = 1024;

/// How long a connection that is closed for a fault of its peer may take to tell it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One connection.
struct Wire {
    plan: Arc<Plan>,
    socket: Arc<Shared>,
    session: Session,
    control: Option<Control>,
    stream: Option<Box<StreamInfo>>,
    /// What the peer said of itself.
    peer: Option<Arc<PeerInfo>>,
    /// Address as an authenticator sees it.
    auth_address: String,
    /// The pipe it was dialed for, and its stamp.
    dialed: Option<(PeerKey, Epoch)>,
    assigned: Option<Part>,
    pipe: Option<(PeerKey, Epoch)>,
    /// What the pipe had carried before this connection.
    before: Carried,
    /// Decoded and not yet given to the state.
    held: VecDeque<SessionEvent>,
    /// The same of messages that follow one another; before those of `held`.
    arrivals: Packed,
    paused: bool,
    asking: Option<Pin<Box<dyn Future<Output = Verdict>>>>,
    outbound: Packed,
    commands: VecDeque<Command>,
    reason: Option<CloseReason>,
    turned_away: bool,
    was_up: bool,
}

impl Wire {
    fn new(
        plan: Arc<Plan>,
        socket: Arc<Shared>,
        dialed: Option<(PeerKey, Epoch)>,
        assigned: Option<Part>,
    ) -> Self {
        let session = Session::new(plan.session.clone(), &mut fill_random, Instant::now());
        Self {
            plan,
            socket,
            session,
            control: None,
            stream: None,
            peer: None,
            auth_address: String::new(),
            dialed,
            assigned,
            pipe: None,
            before: Carried::default(),
            held: VecDeque::new(),
            arrivals: Packed::new(),
            paused: false,
            asking: None,
            outbound: Packed::new(),
            commands: VecDeque::new(),
            reason: None,
            turned_away: false,
            was_up: false,
        }
    }

    /// Decodes what has arrived and gives it to the socket.
    fn work(&mut self, now: Instant) -> Flow {
        loop {
            self.give(now);
            if self.paused || self.is_through() {
                break;
            }
            let held = &mut self.held;
            let session = &mut self.session;
            borrow_room(held, &SPARE_HELD);
            borrow_packed(&mut self.arrivals);
            let arrivals = &mut self.arrivals;
            with_local_slab(|slab| {
                session.take_messages(slab, arrivals, AT_ONCE);
                while arrivals.is_empty()
                    && held.len() < AT_ONCE
                    && let Some(event) = session.next_event(slab)
                {
                    held.push_back(event);
                }
            });
            if self.arrivals.is_empty() && self.held.is_empty() {
                break;
            }
        }
        give_packed_back(&mut self.arrivals);
        give_room_back(&mut self.held, &SPARE_HELD);
        if self.paused {
            self.session.reading_paused(now);
        }
        self.flow()
    }

    /// Whether the peer is sent away: what it says is not kept any more.
    fn is_through(&self) -> bool {
        self.reason.is_some() || self.turned_away
    }

    fn flow(&self) -> Flow {
        if self.is_through() {
            // A last ERROR may go out; a peer that does not read it is not waited for.
            if let Some(control) = &self.control {
                control.close_within(LAST_WORDS);
            }
            Flow::Close
        } else if self.paused || self.session.is_undecided() {
            Flow::Pause
        } else {
            Flow::Continue
        }
    }

    /// Gives what is held to the state, until it is full.
    fn give(&mut self, now: Instant) {
        if !self.arrivals.is_empty() && !self.give_arrivals() {
            return;
        }
        while let Some(event) = self.held.pop_front() {
            match event {
                SessionEvent::Message(_) | SessionEvent::Subscribe(_) | SessionEvent::Cancel(_) => {
                    self.held.push_front(event);
                    if !self.give_news() {
                        return;
                    }
                }
                SessionEvent::Up(peer) => self.up(peer),
                SessionEvent::Authenticate(request) => self.ask(request, now),
                SessionEvent::Closed(reason) => self.reason = Some(reason),
                _ => {}
            }
        }
    }

    /// Gives messages. False when no more is to be given now.
    fn give_arrivals(&mut self) -> bool {
        let Some((key, epoch)) = self.pipe else {
            self.arrivals.clear();
            return false;
        };
        let mut inner = self.socket.lock_first();
        let received = inner.state.received_many(key, epoch, &mut self.arrivals);
        self.socket.finish(inner);
        match received {
            Received::Taken | Received::Stale => {}
            Received::Full => self.paused = true,
            Received::Violation(violation) => {
                self.reason = Some(close_reason(violation));
                self.arrivals.clear();
                self.held.clear();
            }
        }
        matches!(received, Received::Taken | Received::Stale)
    }

    /// Gives messages and subscriptions under one lock. False when no more is to be given now.
    fn give_news(&mut self) -> bool {
        let Some((key, epoch)) = self.pipe else {
            self.held.clear();
            return false;
        };
        let mut inner = self.socket.lock_first();
        let mut goes_on = true;
        while let Some(event) = self.held.pop_front() {
            let received = match event {
                SessionEvent::Message(message) => inner.state.received(key, epoch, message),
                SessionEvent::Subscribe(topic) => inner.state.subscribed(key, epoch, topic.into_bytes()),
                SessionEvent::Cancel(topic) => inner.state.cancelled(key, epoch, topic.into_bytes()),
                other => {
                    self.held.push_front(other);
                    break;
                }
            };
            match received {
                Received::Taken | Received::Stale => {}
                Received::Full => {
                    self.paused = true;
                    goes_on = false;
                }
                Received::Violation(violation) => {
                    self.reason = Some(close_reason(violation));
                    self.held.clear();
                    goes_on = false;
                }
            }
            if !goes_on {
                break;
            }
        }
        self.socket.finish(inner);
        goes_on
    }

    fn up(&mut self, mut peer: PeerInfo) {
        let Some(control) = self.control.clone() else { return };
        peer.metadata.set(PEER_ADDRESS, self.auth_address.clone().into());
        let (routing_id, user_id) = (peer.routing_id.clone(), peer.user_id.clone());
        let link = Link::Stream { control: control.clone(), direct: self.session.stateless() };
        let peer = Arc::new(peer);
        self.peer = Some(peer.clone());
        let arrival =
            Arrival { origin: self.plan.origin, peer, link, assigned: self.assigned.clone(), far: None };
        // What is left of the handshake goes out before the first message.
        control.write_first();
        let mut inner = self.socket.lock_first();
        // Who comes to a socket that is closed comes too late: nothing waits for it, and nobody would send it away.
        // One that was dialed for a pipe that is gone may find another one under its key.
        let is_late = match self.dialed {
            Some((key, born)) => inner.state.born(key) != born,
            None => self.plan.origin == Origin::Accepted && inner.phase.check().is_err(),
        };
        let dialed = self.dialed.map(|(key, _)| key);
        let up = if is_late { Err(Refusal::Gone) } else { inner.state.pipe_up(dialed, arrival) };
        match up {
            Ok((key, epoch)) => {
                self.pipe = Some((key, epoch));
                self.was_up = true;
                self.before = inner.state.carried(key);
                inner.endpoints.pipe_up(self.plan.number, key, epoch);
                inner.wake_watchers();
                self.socket.finish(inner);
                control.established();
                self.report(EventKind::HandshakeSucceeded { routing_id, user_id });
            }
            Err(refusal) => {
                self.socket.finish(inner);
                self.turned_away = true;
                match refusal {
                    Refusal::RoutingIdInUse => self.report(EventKind::RoutingIdInUse),
                    Refusal::PairBusy => self.report(EventKind::PairBusy),
                    Refusal::Gone => {}
                }
            }
        }
    }

    fn ask(&mut self, request: AuthRequest, now: Instant) {
        match self.plan.asker.ask(request, &self.auth_address) {
            Asking::Decided(verdict) => self.session.verdict(verdict, now),
            Asking::Pending(future) => {
                self.asking = Some(future);
                self.poll_asking(now);
            }
        }
    }

    fn poll_asking(&mut self, now: Instant) {
        let (Some(asking), Some(control)) = (&mut self.asking, &self.control) else { return };
        let waker = Waker::from(Arc::new(Kick(control.clone())));
        if let Poll::Ready(verdict) = asking.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            self.asking = None;
            self.session.verdict(verdict, now);
            control.resume();
        }
    }

    fn report(&self, kind: EventKind) {
        let about = self.stream.as_deref().map(About::stream).unwrap_or_default();
        self.plan.report(About { peer: self.peer.as_ref(), ..about }, kind);
    }

    /// Adds commands and messages of the pipe.
    fn fill_from_pipe(&mut self, batch: &mut WriteBatch) {
        const COMMANDS: usize = 256;
        let messages = Most { messages: 1024, bytes: self.plan.out_batch };
        let Some((key, epoch)) = self.pipe else { return };
        let mut writing = false;
        borrow_packed(&mut self.outbound);
        while !batch.is_full() {
            let mut inner = self.socket.lock_first();
            if !writing {
                // Everything before is written.
                inner.state.wrote(key, epoch);
                inner.wake_watchers();
            }
            inner.state.take_commands(key, epoch, COMMANDS, &mut self.commands);
            // What comes while these are written goes out together.
            let is_last = self.commands.is_empty();
            if is_last {
                inner.state.take_outbound(key, epoch, messages, &mut self.outbound);
            }
            self.socket.finish(inner);
            for command in self.commands.drain(..) {
                match command {
                    Command::Subscribe(topic) => self.session.subscribe(&topic),
                    Command::Cancel(topic) => self.session.cancel(&topic),
                }
            }
            self.session.fill(batch);
            writing |= !self.outbound.is_empty();
            self.session.encode_all(&mut self.outbound, batch);
            if is_last {
                break;
            }
        }
        give_packed_back(&mut self.outbound);
    }
}

impl Connection for Wire {
    fn opened(&mut self, stream: &StreamInfo, control: Control, _now: Instant) -> Flow {
        self.auth_address = match (&stream.peer, stream.credentials) {
            (StreamAddress::Ip(address), _) => address.ip().to_string(),
            (_, Some(who)) => format!("localhost:{}:{}:{}", who.uid, who.gid, who.pid),
            _ => String::new(),
        };
        self.stream = Some(Box::new(stream.clone()));
        self.control = Some(control);
        Flow::Continue
    }

    fn received(&mut self, bytes: BytesMut, now: Instant) -> Flow {
        if self.is_through() {
            return Flow::Close;
        }
        self.session.receive(bytes, now);
        if self.paused { Flow::Pause } else { self.work(now) }
    }

    fn staging(&mut self) -> Option<BytesMut> {
        if self.is_through() { None } else { self.session.staging() }
    }

    fn read_most(&self) -> usize {
        self.plan.in_batch
    }

    fn received_into(&mut self, staging: BytesMut, now: Instant) -> Flow {
        if self.is_through() {
            return Flow::Close;
        }
        self.session.receive_into(staging, now);
        if self.paused { Flow::Pause } else { self.work(now) }
    }

    fn resumed(&mut self, now: Instant) -> Flow {
        if self.paused {
            self.paused = false;
            self.session.reading_resumed(now);
            return self.work(now);
        }
        self.flow()
    }

    fn has_answer(&self) -> bool {
        self.asking.is_some() || self.session.has_output()
    }

    fn fill(&mut self, batch: &mut WriteBatch, now: Instant) -> Flow {
        batch.set_limit(self.plan.out_batch);
        let mut flow = Flow::Continue;
        if self.asking.is_some() {
            self.poll_asking(now);
            flow = self.work(now);
        }
        self.session.fill(batch);
        // Who broke the rules gets no more messages.
        if self.reason.is_none() {
            self.fill_from_pipe(batch);
        }
        flow
    }

    fn closing(&mut self, now: Instant) {
        if std::mem::take(&mut self.paused) {
            self.session.reading_resumed(now);
        }
        // Nobody is told of more messages; the peer is still answered.
        self.session.close();
        self.arrivals.clear();
        self.held.clear();
    }

    fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }

    fn expired(&mut self, now: Instant) -> Flow {
        self.session.expired(now);
        // What is held back stays so until the application has read: only the end of the session overtakes it.
        if self.paused && self.session.state() != State::Closed {
            return Flow::Pause;
        }
        self.work(now)
    }

    fn closed(&mut self, why: &Ended, now: Instant) -> Retry {
        let _ = now;
        self.asking = None;
        // A displaced one is told of as not accepted.
        let by_peer = !matches!(why, Ended::Local | Ended::Displaced);
        if self.reason.is_none() && by_peer && !self.was_up && !self.turned_away {
            self.session.disconnected();
            let session = &mut self.session;
            if let Some(SessionEvent::Closed(reason)) = with_local_slab(|slab| session.next_event(slab)) {
                self.reason = Some(reason);
            }
        }
        if let Some(reason) = &self.reason
            && !(self.was_up && matches!(reason, CloseReason::Disconnected { .. }))
        {
            self.report(EventKind::HandshakeFailed(reason.clone()));
        }
        let mut carried = Carried::default();
        if let Some((key, epoch)) = self.pipe.take() {
            let mut inner = self.socket.lock_first();
            carried = inner.state.carried(key).since(self.before);
            let keep = self.dialed.is_some() && !self.plan.immediate;
            inner.state.pipe_down(key, epoch, keep);
            inner.endpoints.pipe_down(self.plan.number, key, epoch);
            inner.wake_watchers();
            self.socket.finish(inner);
        }
        if let (Some(stream), Some(control)) = (&self.stream, &self.control) {
            let Traffic { received, sent } = control.traffic();
            self.report(EventKind::Disconnected {
                fd: stream.fd,
                received,
                sent,
                messages_received: carried.received,
                messages_sent: carried.sent,
            });
        }
        match &self.reason {
            None if self.was_up => Retry::Lost,
            None => Retry::Unexplained,
            Some(CloseReason::Disconnected { .. } | CloseReason::TimedOut(_)) if self.was_up => Retry::Lost,
            Some(CloseReason::Disconnected { .. } | CloseReason::TimedOut(_)) => Retry::Unexplained,
            Some(CloseReason::AuthFailed(code)) if code.status() == 300 => Retry::Slow,
            Some(CloseReason::AuthFailed(_)) => self.plan.auth_retry.map_or(Retry::Never, Retry::After),
            Some(_) => Retry::Slow,
        }
    }
}

/// Asks the connection to look at its authenticator again.
struct Kick(Control);

impl Wake for Kick {
    fn wake(self: Arc<Self>) {
        self.0.kick();
    }
}

fn close_reason(violation: Violation) -> CloseReason {
    match violation {
        Violation::UnexpectedData => CloseReason::UnexpectedData,
        Violation::UnexpectedCommand => CloseReason::UnexpectedCommand,
        Violation::MalformedReply => CloseReason::MalformedMessage,
        Violation::SubscriptionLimit => CloseReason::SubscriptionLimit,
    }
}
