//! One stream on its worker: the protocol state that owns it, and what the engine does at the protocol's word.
//!
//! Two pumps serve a stream. [`read`](super::read) is a task for as long as the stream lives; [`write`](super::write)
//! is a function that becomes a task only while the socket is full. Both call the protocol through [`Conn::call`],
//! never two at once.
//!
//! ```text
//!   Open --- Flow::Close --> Flushing --- all written --> Draining --- end of stream, 200 ms --> Ended
//!     \--- write fails --> Deaf (reads what the peer said before) ---- end of stream, 200 ms ----^
//! ```

use std::{
    cell::RefCell,
    io,
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use socket2::SockRef;

use super::{
    StreamInfo,
    control::{ABORT, CLOSE, Control, DISPLACE, ESTABLISHED, KICK, RESUME, Shared},
    event::StreamEvent,
    listen::Admission,
    options::StreamOptions,
    read,
    table::Key,
    timers::later,
    worker::{Target, Worker},
};
use crate::{
    batch::WriteBatch,
    buffer::{Slab, with_local_slab},
    protocol::{Connection, Ended, Flow, Retry},
    wait::Turns,
};

/// How long the peer is listened to after our last byte (MQ-082).
pub(super) const DRAIN: Duration = Duration::from_millis(200);

/// How long a peer that has spoken has, from being chosen to make room for a newcomer, to complete its handshake.
const LAST_CHANCE: Duration = Duration::from_millis(100);

/// How long what follows a large frame is looked for: one of 64 KiB needs about half of it on a host's loopback.
pub(super) const NEXT_FRAME: Duration = Duration::from_micros(50);

/// Shortest time between two calls for the same deadline, so that a protocol that leaves a passed deadline in place
/// does not keep the worker busy.
const DEADLINE_STEP: Duration = Duration::from_millis(1);

/// Where a stream came from, which is told when it comes up and when it ends.
pub(super) enum Origin {
    Listener(Admission),
    Dialer(Key),
}

/// A stream.
pub(super) struct Conn {
    pub(super) key: Key,
    /// Dropped with the stream, not when it ends: its place is taken until its descriptor is closed.
    origin: Origin,
    pub(super) fd: Arc<OwnedFd>,
    pub(super) shared: Arc<Shared>,
    pub(super) info: StreamInfo,
    pub(super) state: RefCell<State>,
}

/// What changes about a stream.
pub(super) struct State {
    /// Gone when the stream has ended.
    pub(super) protocol: Option<Box<dyn Connection>>,
    pub(super) phase: Phase,
    /// The protocol asked not to be given more.
    pub(super) paused: bool,
    /// The read pump, while it waits to be allowed on.
    pub(super) reader: Option<Waker>,
    /// Its handshake is complete.
    established: bool,
    /// The peer has closed its side.
    pub(super) read_ended: bool,
    /// Bytes that were read.
    received: u64,
    /// How it takes turns with us.
    turns: Turns,
    /// What is being written.
    pub(super) batch: Option<WriteBatch>,
    /// The write pump is at work further up the stack.
    pub(super) pumping: bool,
    /// The write pump is a task just now.
    pub(super) writing: bool,
    /// The write pump gave way and is on the worker's list.
    pub(super) again: bool,
    /// When closing must be over.
    linger: Option<Instant>,
    armed: Option<Instant>,
}

/// How far a stream has come.
pub(super) enum Phase {
    Open,
    /// Writes what there is, then shuts its side down.
    Flushing,
    /// Waits for the peer to close.
    Draining {
        until: Instant,
    },
    /// Can no longer write, and reads what the peer has said before. Time in which the protocol does not want to read
    /// does not count.
    Deaf {
        until: Instant,
        error: io::Error,
    },
    Ended,
}

/// What the read pump shall do next.
pub(super) enum Reading {
    Deliver,
    Discard,
    Wait,
    Stop,
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Conn {
    /// Takes a stream that is up into `worker` and starts it.
    pub(super) fn open(
        worker: &Rc<Worker>,
        fd: OwnedFd,
        info: StreamInfo,
        options: &StreamOptions,
        origin: Origin,
        protocol: Box<dyn Connection>,
    ) {
        if let Some(conn) = Self::prepare(worker, fd, info, options, origin, protocol) {
            conn.start(worker);
        }
    }

    /// Takes a stream that is up into `worker`; it is to be [started](Self::start).
    pub(super) fn prepare(
        worker: &Rc<Worker>,
        fd: OwnedFd,
        info: StreamInfo,
        options: &StreamOptions,
        origin: Origin,
        protocol: Box<dyn Connection>,
    ) -> Option<Rc<Self>> {
        let fd = Arc::new(fd);
        let mut conns = worker.conns.borrow_mut();
        let key = conns.insert(|key| {
            Rc::new(Self {
                key,
                shared: Arc::new(Shared::new(
                    key,
                    worker.door.clone(),
                    fd.clone(),
                    options.large_send_buffer(&info),
                )),
                fd,
                info,
                origin,
                state: RefCell::new(State {
                    protocol: Some(protocol),
                    phase: Phase::Open,
                    paused: false,
                    reader: None,
                    established: false,
                    read_ended: false,
                    received: 0,
                    turns: Turns::default(),
                    batch: None,
                    pumping: false,
                    writing: false,
                    again: false,
                    linger: None,
                    armed: None,
                }),
            })
        });
        conns.get(key).cloned()
    }

    /// Calls the protocol and does what it says. Does nothing when the stream has ended.
    pub(super) fn call(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        call: impl FnOnce(&mut dyn Connection, Instant) -> Flow,
    ) {
        let flow = self.ask(worker, call);
        self.apply(worker, flow);
    }

    /// Calls the protocol. A protocol that panics is ended.
    pub(super) fn ask(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        call: impl FnOnce(&mut dyn Connection, Instant) -> Flow,
    ) -> Flow {
        let mut state = self.state.borrow_mut();
        let Some(protocol) = state.protocol.as_deref_mut() else { return Flow::Continue };
        let now = worker.now();
        match catch_unwind(AssertUnwindSafe(|| call(protocol, now))) {
            Ok(flow) => {
                self.arm(worker, &mut state, now);
                flow
            }
            Err(panic) => {
                worker.report_panic("a connection's protocol", &*panic);
                // Not called again: its state may be broken.
                state.protocol = None;
                Flow::Abort
            }
        }
    }

    pub(super) fn apply(self: &Rc<Self>, worker: &Rc<Worker>, flow: Flow) {
        match flow {
            Flow::Continue => {}
            Flow::Pause => self.state.borrow_mut().paused = true,
            Flow::Close => self.close(worker, None),
            Flow::Abort => self.end(worker, Ended::Local),
        }
    }

    /// Serves what was asked for through controls.
    pub(super) fn serve_requests(self: &Rc<Self>, worker: &Rc<Worker>) {
        let requests = self.shared.requests();
        if requests & ESTABLISHED != 0 {
            self.established(worker);
        }
        if requests & DISPLACE != 0 && self.make_room(worker) {
            return;
        }
        if requests & ABORT != 0 {
            return self.end(worker, Ended::Local);
        }
        if requests & RESUME != 0 {
            self.read_on(worker);
            // Not left to the write pump, which may wait for a peer that in turn waits to be read.
            self.call(worker, |protocol, now| protocol.resumed(now));
            self.pump(worker);
        }
        if requests & CLOSE != 0 {
            self.close(worker, self.shared.linger());
        }
        // Also when it was being closed before: the sender that had the write side has asked for it.
        if requests & KICK != 0 {
            self.pump(worker);
        }
    }

    /// Ends in favour of a newcomer, unless established (MQ-262); returns whether it has ended. A peer that has spoken is
    /// read first: it was chosen by another task, perhaps on another thread, or while this worker was held up.
    fn make_room(self: &Rc<Self>, worker: &Rc<Worker>) -> bool {
        if self.shared.is_silent() {
            return self.displace(worker);
        }
        let (on, key) = (worker.clone(), self.key);
        worker.spawn(async move {
            compio::time::sleep(LAST_CHANCE).await;
            // What has arrived meanwhile may have been found together with the end of the sleep.
            read::yield_now().await;
            if let Some(conn) = on.conn(key) {
                conn.displace(&on);
            }
        });
        false
    }

    fn displace(self: &Rc<Self>, worker: &Rc<Worker>) -> bool {
        let goes = !self.state.borrow().established;
        if goes {
            self.end(worker, Ended::Displaced);
        }
        goes
    }

    /// Writes what is left, then closes (MQ-082).
    fn close(self: &Rc<Self>, worker: &Rc<Worker>, linger: Option<Duration>) {
        let mut state = self.state.borrow_mut();
        if let Some(linger) = linger {
            let by = later(worker.now(), linger);
            state.linger = state.linger.into_iter().chain(by).min();
            self.arm(worker, &mut state, worker.now());
        }
        match state.phase {
            Phase::Open => state.phase = Phase::Flushing,
            Phase::Deaf { .. } => {
                drop(state);
                return self.end(worker, Ended::Local);
            }
            Phase::Flushing | Phase::Draining { .. } | Phase::Ended => return,
        }
        drop(state);
        self.call(worker, |protocol, now| {
            protocol.closing(now);
            Flow::Continue
        });
        self.read_on(worker);
        self.pump(worker);
    }

    /// Everything is written: if the stream is being closed, says so to the peer.
    pub(super) fn flushed(self: &Rc<Self>, worker: &Rc<Worker>) {
        let mut state = self.state.borrow_mut();
        if !matches!(state.phase, Phase::Flushing) {
            return;
        }
        self.shared.token.close();
        if state.read_ended || SockRef::from(&*self.fd).shutdown(Shutdown::Write).is_err() {
            drop(state);
            return self.end(worker, Ended::Local);
        }
        state.phase = Phase::Draining { until: worker.now() + DRAIN };
        self.arm(worker, &mut state, worker.now());
    }

    /// The stream can no longer be written to. What the peer has said before is still read.
    pub(super) fn write_failed(self: &Rc<Self>, worker: &Rc<Worker>, error: io::Error) {
        let mut state = self.state.borrow_mut();
        self.shared.token.close();
        state.batch = None;
        match state.phase {
            Phase::Open if !state.read_ended => {
                state.phase = Phase::Deaf { until: worker.now() + DRAIN, error };
                self.arm(worker, &mut state, worker.now());
            }
            _ => {
                drop(state);
                self.end(worker, Ended::Failed(error));
            }
        }
    }

    /// The peer has closed its side, or reading has failed.
    pub(super) fn read_ended(self: &Rc<Self>, worker: &Rc<Worker>, outcome: io::Result<()>) {
        let mut state = self.state.borrow_mut();
        state.read_ended = true;
        let why = match (&state.phase, outcome) {
            (Phase::Flushing, Ok(())) => return,
            (Phase::Flushing | Phase::Draining { .. }, _) => Ended::Local,
            (_, Ok(())) => Ended::Eof,
            (_, Err(error)) => Ended::Failed(error),
        };
        drop(state);
        self.end(worker, why);
    }

    /// The stream is over; what still holds the descriptor lets go of it.
    pub(super) fn end(self: &Rc<Self>, worker: &Rc<Worker>, why: Ended) {
        let mut state = self.state.borrow_mut();
        if matches!(state.phase, Phase::Ended) {
            return;
        }
        state.phase = Phase::Ended;
        let protocol = state.protocol.take();
        state.batch = None;
        worker.disarm(Target::Conn(self.key), &mut state.armed);
        drop(state);

        self.shared.token.close();
        {
            let mut held = self.shared.held();
            held.fd = None;
            held.rest = None;
        }
        // Operations under way end by this; they give their buffers back before the descriptor is closed (MQ-035).
        let _ = SockRef::from(&*self.fd).shutdown(Shutdown::Both);
        self.wake_reader();
        worker.conns.borrow_mut().remove(self.key);
        if worker.conns.borrow().len() == 0 {
            // Nothing is received until the next comes: what was needed for the last ones is not kept for it.
            with_local_slab(Slab::trim);
        }

        if self.shared.requests() & ESTABLISHED != 0 {
            self.established(worker);
        }
        let retry = protocol.map_or(Retry::Slow, |mut protocol| {
            let now = worker.now();
            catch_unwind(AssertUnwindSafe(|| protocol.closed(&why, now))).unwrap_or_else(|panic| {
                worker.report_panic("a connection's protocol", &*panic);
                Retry::Slow
            })
        });
        let event =
            StreamEvent::Disconnected { stream: &self.info, why: &why, traffic: self.shared.traffic() };
        match &self.origin {
            Origin::Listener(admission) => {
                worker.door.remove_load();
                admission.ended(&event);
            }
            Origin::Dialer(key) => worker.dialer_ended(*key, &event, retry),
        }
    }

    fn established(&self, worker: &Rc<Worker>) {
        self.state.borrow_mut().established = true;
        match &self.origin {
            Origin::Listener(admission) => admission.established(),
            Origin::Dialer(key) => worker.dialer_established(*key),
        }
    }

    /// A deadline of this stream has passed.
    pub(super) fn expire(self: &Rc<Self>, worker: &Rc<Worker>) {
        let now = worker.now();
        let mut state = self.state.borrow_mut();
        state.armed = None;
        if state.linger.is_some_and(|by| by <= now) {
            drop(state);
            return self.end(worker, Ended::Local);
        }
        let paused = state.paused;
        match &mut state.phase {
            Phase::Draining { until } if *until <= now => {
                drop(state);
                return self.end(worker, Ended::Local);
            }
            Phase::Deaf { until, error } if *until <= now && !paused => {
                let error = std::mem::replace(error, io::ErrorKind::BrokenPipe.into());
                drop(state);
                return self.end(worker, Ended::Failed(error));
            }
            _ => {}
        }
        let due =
            state.protocol.as_ref().and_then(|protocol| protocol.deadline()).is_some_and(|at| at <= now);
        if !due {
            return self.arm(worker, &mut state, now);
        }
        drop(state);
        self.call(worker, |protocol, now| protocol.expired(now));
        let mut state = self.state.borrow_mut();
        self.arm(worker, &mut state, now + DEADLINE_STEP);
        drop(state);
        self.pump(worker);
    }

    /// Sets the timer to the next deadline, not before `earliest`. A deadline that has moved away is left to pass,
    /// one that is gone is removed.
    fn arm(&self, worker: &Worker, state: &mut State, earliest: Instant) {
        let mut wanted = state.protocol.as_ref().and_then(|protocol| protocol.deadline());
        let phase = match state.phase {
            Phase::Draining { until } => Some(until),
            Phase::Deaf { until, .. } if !state.paused => Some(until),
            Phase::Open | Phase::Flushing | Phase::Deaf { .. } => None,
            Phase::Ended => return,
        };
        for other in [state.linger, phase].into_iter().flatten() {
            wanted = Some(wanted.map_or(other, |at| at.min(other)));
        }
        if let (Some(armed), Some(at)) = (state.armed, wanted)
            && armed <= at
            && armed >= earliest
        {
            return;
        }
        worker.arm(Target::Conn(self.key), &mut state.armed, wanted.map(|at| at.max(earliest)));
    }

    /// Bytes were read.
    pub(super) fn heard(&self, worker: &Worker, bytes: usize) {
        worker.heard.set(true);
        let state = &mut *self.state.borrow_mut();
        state.received += bytes as u64;
        self.shared.set_received(state.received);
        let (sent, now, soon) = (self.shared.traffic().sent, worker.now(), worker.spin.time());
        let turns = &mut state.turns;
        turns.heard(sent, now, soon);
        if turns.is_expected(now, soon) {
            worker.spin.look(now, soon);
        }
    }

    /// Some of a large frame was read.
    pub(super) fn heard_large(&self, worker: &Worker, bytes: usize) {
        self.heard(worker, bytes);
        // Small frames are better read many at once.
        worker.spin.look(worker.now(), NEXT_FRAME);
    }

    /// Whether the read pump may read.
    pub(super) fn reading(&self) -> Reading {
        let state = self.state.borrow();
        match state.phase {
            Phase::Ended => Reading::Stop,
            Phase::Draining { .. } => Reading::Discard,
            Phase::Open | Phase::Deaf { .. } if state.paused => Reading::Wait,
            // A peer that is not answered may give up before it has read what is still written.
            Phase::Open | Phase::Flushing | Phase::Deaf { .. } => Reading::Deliver,
        }
    }

    /// The buffer into which the protocol wants the next bytes, if it has one with room.
    pub(super) fn staging(&self) -> Option<BytesMut> {
        let mut state = self.state.borrow_mut();
        let protocol = match state.phase {
            Phase::Open | Phase::Flushing | Phase::Deaf { .. } => state.protocol.as_deref_mut()?,
            Phase::Draining { .. } | Phase::Ended => return None,
        };
        protocol.staging().filter(|buffer| buffer.len() < buffer.capacity())
    }

    /// Most bytes that the protocol wants of one read.
    pub(super) fn read_most(&self) -> usize {
        let state = self.state.borrow();
        state.protocol.as_deref().map_or(usize::MAX, |protocol| protocol.read_most().max(1))
    }

    /// Whether what was read asks for something to be written.
    fn has_answer(&self) -> bool {
        self.state.borrow().protocol.as_deref().is_some_and(|protocol| protocol.has_answer())
    }

    /// Writes what was asked for by what was read, if anything was: answers do not pile up between two reads, whoever else is to
    /// be served before.
    pub(super) fn pump_answer(self: &Rc<Self>, worker: &Rc<Worker>) {
        if self.has_answer() {
            self.pump_now(worker);
        }
    }

    /// The protocol wants to read.
    fn read_on(&self, worker: &Worker) {
        let mut state = self.state.borrow_mut();
        state.paused = false;
        if let Phase::Deaf { until, .. } = &mut state.phase {
            *until = worker.now() + DRAIN;
            self.arm(worker, &mut state, worker.now());
        }
        drop(state);
        self.wake_reader();
    }

    fn wake_reader(&self) {
        let reader = self.state.borrow_mut().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Tells the protocol that the stream is up, and starts the pumps.
    pub(super) fn start(self: &Rc<Self>, worker: &Rc<Worker>) {
        self.origin.arrived(&self.shared);
        let control = Control(self.shared.clone());
        self.call(worker, |protocol, now| protocol.opened(&self.info, control, now));
        worker.spawn(read::pump(worker.clone(), self.clone()));
        self.pump(worker);
    }
}
