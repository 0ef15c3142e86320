//! Links between sockets of one context: messages move by reference, without encoding and without a worker (MQ-269).
//!
//! A link has two ends, each a pipe of its socket. Connecting before the name is bound is allowed: the pipe queues, and
//! is linked when the name appears. When the bound side goes, the connecting side waits for the name again (MQ-272).

mod names;

use std::{
    cell::Cell,
    collections::VecDeque,
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, OnceLock, Weak},
};

use bytes::Bytes;
use tidegate_io::{
    packed::Packed,
    peer::{Epoch, PeerKey},
    sync::lock,
};
use tidegate_zmtp::{greeting::Version, metadata::Metadata};

pub(crate) use self::names::Names;
use self::names::Stamped;
use crate::{
    error::{Error, Result},
    monitor::{CloseReason, Event, EventKind},
    shared::{Deeds, Inner, Link, Phase, Shared},
    state::{Arrival, Command, Origin, PeerInfo, Received, Refusal, SocketType},
};

/// One end's view of a link.
#[derive(Clone)]
pub(crate) struct InprocLink {
    ends: Arc<Ends>,
    /// Which end this is: 0 has connected, 1 is bound.
    side: usize,
}

struct Ends {
    ends: [OnceLock<End>; 2],
    /// Held by whoever carries what this end has queued to the other one, so that nothing overtakes it. Taken before
    /// the lock of a socket, never while one is held.
    carrying: [Mutex<Carrying>; 2],
    name: Arc<str>,
}

#[derive(Default)]
struct Carrying {
    /// The far end had enough, and will say when to go on.
    is_paused: bool,
}

struct End {
    socket: Weak<Shared>,
    key: PeerKey,
    epoch: Epoch,
    /// It fetches what the other end has queued when it needs it. Else it is carried there at once.
    fetches: bool,
}

impl End {
    fn new(socket: &Arc<Shared>, inner: &Inner, key: PeerKey, epoch: Epoch) -> Self {
        let fetches = socket.fetches() && !inner.state.conflates_received(key);
        Self { socket: Arc::downgrade(socket), key, epoch, fetches }
    }
}

impl InprocLink {
    /// The socket at the far end, and its pipe.
    pub(crate) fn far(&self) -> Option<(Arc<Shared>, PeerKey, Epoch)> {
        let end = self.far_end()?;
        Some((end.socket.upgrade()?, end.key, end.epoch))
    }

    fn far_end(&self) -> Option<&End> {
        self.ends.ends.get(1 - self.side)?.get()
    }

    /// There is something queued at this end. A far socket whose every message is for its application fetches it when
    /// it has nothing else: two threads that send and receive at full speed so seldom meet at a lock. To others it is
    /// carried.
    pub(crate) fn offer(&self) {
        if !self.far_end().is_some_and(|end| end.fetches) {
            return self.push();
        }
        let Some((far, key, epoch)) = self.far() else { return };
        let mut inner = far.lock();
        inner.state.offered(key, epoch);
        far.finish(inner);
    }

    /// Carries what is queued at this end to the far one.
    pub(crate) fn push(&self) {
        self.carry(self.side, false);
    }

    /// Carries what is queued at the far end to this one.
    pub(crate) fn fetch(&self) {
        self.carry(1 - self.side, true);
    }

    /// Goes on carrying to this end, which had asked for a pause.
    pub(crate) fn resume(&self) {
        let from = 1 - self.side;
        if let Some(carrying) = self.ends.carrying.get(from) {
            lock(carrying).is_paused = false;
        }
        self.carry(from, false);
    }

    /// Carries what is queued at the end `from` to the other one. `comes_again`: this end asks again when that is read.
    fn carry(&self, from: usize, comes_again: bool) {
        while self.carry_some(from, comes_again) {}
    }

    /// Returns whether there is more.
    fn carry_some(&self, from: usize, comes_again: bool) -> bool {
        let end = |side: usize| {
            let end = self.ends.ends.get(side)?.get()?;
            Some((end.socket.upgrade()?, end.key, end.epoch))
        };
        let (Some((source, key, epoch)), Some((target, far_key, far_epoch))) = (end(from), end(1 - from))
        else {
            return false;
        };
        let Some(carrying) = self.ends.carrying.get(from) else { return false };
        let mut load = Load::take();
        let load = &mut *load;
        let mut carrying = lock(carrying);
        if carrying.is_paused {
            return false;
        }
        let mut inner = source.lock();
        let more = inner.state.take_all(key, epoch, comes_again, &mut load.commands, &mut load.messages);
        let mut deeds = [Deeds::collect(inner), None];
        let mut refused = false;
        let carried = !load.is_empty();
        if more || carried {
            let mut inner = target.lock();
            let mut heard = |received: Received| {
                refused |= matches!(received, Received::Violation(_));
                carrying.is_paused |= received == Received::Full;
            };
            for command in load.commands.drain(..) {
                heard(inner.state.commanded(far_key, far_epoch, command));
            }
            let mut is_stuck = false;
            while !load.messages.is_empty() && !is_stuck {
                let before = load.messages.len();
                heard(inner.state.received_many(far_key, far_epoch, &mut load.messages));
                is_stuck = load.messages.len() == before;
            }
            // No socket leaves all that it is given: if one did, the link would end rather than hang.
            refused |= is_stuck;
            load.messages.clear();
            if more && comes_again {
                inner.state.offered(far_key, far_epoch);
            }
            deeds[1] = Deeds::collect(inner);
        }
        let goes_on = more && !comes_again && !carrying.is_paused && !refused;
        drop(carrying);
        for (deeds, socket) in deeds.iter_mut().zip([&source, &target]) {
            if let Some(deeds) = deeds {
                deeds.perform(socket);
            }
        }
        if carried {
            // Only now, when the far socket has all: who waits for that may end the link.
            let mut inner = source.lock();
            inner.wake_watchers();
            source.finish(inner);
        }
        if refused {
            self.part();
        }
        goes_on
    }

    /// Ends the link: both pipes lose their connection, and the connecting one waits until the name is bound again. A
    /// place that becomes free so goes to those who were turned away.
    pub(crate) fn part(&self) {
        self.part_ends();
        if let Some(bound) =
            self.ends.ends.get(1).and_then(OnceLock::get).and_then(|end| end.socket.upgrade())
        {
            bound.context.names.readmit(&self.ends.name);
        }
    }

    fn part_ends(&self) {
        (0..2).for_each(|from| self.carry(from, false));
        let mut left = None;
        for (side, end) in self.ends.ends.iter().enumerate() {
            let Some(end) = end.get() else { continue };
            let Some(socket) = end.socket.upgrade() else { continue };
            let mut inner = socket.lock();
            let was_up = inner.state.is_connected(end.key, end.epoch);
            let pipe = (end.key, inner.state.born(end.key));
            let keep = side == 0 && inner.endpoints.is_inproc_connected(pipe);
            inner.state.pipe_down(end.key, end.epoch, keep);
            inner.wake_watchers();
            socket.finish(inner);
            // Only once: it may have ended before, and be another link's by now.
            if keep && was_up {
                left = Some((socket, pipe));
            }
        }
        let Some(bound) = self.ends.ends.get(1).and_then(OnceLock::get) else { return };
        if let Some((socket, pipe)) = left {
            socket.context.names.wait_for_another(&self.ends.name, &socket, pipe, &bound.socket);
        }
    }
}

/// Messages on their way from one socket to another.
#[derive(Default)]
struct Load {
    commands: VecDeque<Command>,
    messages: Packed,
}

thread_local! {
    /// Room for a load, kept so that nothing is allocated.
    static SPARE: Cell<Option<Load>> = const { Cell::new(None) };
}

impl Load {
    fn take() -> LoadGuard {
        LoadGuard(SPARE.try_with(Cell::take).ok().flatten().unwrap_or_default())
    }

    fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.messages.is_empty()
    }
}

/// Gives the room back when dropped.
struct LoadGuard(Load);

impl Deref for LoadGuard {
    type Target = Load;

    fn deref(&self) -> &Load {
        &self.0
    }
}

impl DerefMut for LoadGuard {
    fn deref_mut(&mut self) -> &mut Load {
        &mut self.0
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        let load = std::mem::take(&mut self.0);
        let _ = SPARE.try_with(|spare| spare.set(Some(load)));
    }
}

impl fmt::Debug for InprocLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InprocLink").field("name", &self.ends.name).field("side", &self.side).finish()
    }
}

/// Fails when the two types do not fit each other (MQ-123).
pub(crate) fn check_types(endpoint: &str, ours: SocketType, theirs: SocketType) -> Result<()> {
    if ours.accepts(theirs) {
        return Ok(());
    }
    Err(Error::IncompatibleProtocol {
        endpoint: endpoint.to_owned(),
        ours: ours.name(),
        theirs: theirs.name(),
    })
}

/// Ties the connecting pipe to a new pipe of the bound socket.
fn link(name: &str, connecting: &Arc<Shared>, pipe: Stamped, bound: &Arc<Shared>) {
    if check_types(name, connecting.kind, bound.kind).is_err() {
        for (socket, is_bound) in [(connecting, false), (bound, true)] {
            let kind = EventKind::HandshakeFailed(CloseReason::InvalidSocketType);
            socket.monitors.report(|| Event::new(format!("inproc://{name}"), is_bound, kind));
        }
        // The next to bind the name may be of the right type.
        return connecting.context.names.wait_for_another(name, connecting, pipe, &bound.weak());
    }
    let (key, born) = pipe;
    let name: Arc<str> = name.into();
    let ends = Arc::new(Ends { ends: Default::default(), carrying: Default::default(), name: name.clone() });
    let view = |side| InprocLink { ends: ends.clone(), side };
    let far_info = describe(&bound.lock(), bound.kind);
    let (near_info, near_limits) = {
        let mut inner = connecting.lock();
        // Before the bound socket hears of it, for which it would come and go with every try.
        let admitted = inner.state.admit(pipe, &far_info.routing_id);
        let near = (describe(&inner, connecting.kind), inner.state.link_limits(key));
        connecting.finish(inner);
        match admitted {
            Ok(()) => near,
            Err(Refusal::Gone) => return,
            Err(refusal) => return refused(&name, connecting, pipe, (connecting, false), refusal),
        }
    };

    let mut inner = bound.lock();
    if inner.phase != Phase::Open {
        // It has parted from its peers, or is about to: one more would be left behind.
        drop(inner);
        return connecting.context.names.wait_for_another(&name, connecting, pipe, &bound.weak());
    }
    let arrival = Arrival {
        origin: Origin::Accepted,
        peer: Arc::new(near_info),
        link: Link::Inproc(view(1)),
        assigned: None,
        far: Some(near_limits),
    };
    let (bound_key, bound_epoch) = match inner.state.pipe_up(None, arrival) {
        Ok(pipe) => pipe,
        Err(refusal) => {
            bound.finish(inner);
            return refused(&name, connecting, pipe, (bound, true), refusal);
        }
    };
    let far_limits = inner.state.link_limits(bound_key);
    let _ = ends.ends[1].set(End::new(bound, &inner, bound_key, bound_epoch));
    // What it has to say at once waits until the other end is there.
    drop(inner);

    let mut inner = connecting.lock();
    let arrival = Arrival {
        origin: Origin::Dialed,
        peer: Arc::new(far_info),
        link: Link::Inproc(view(0)),
        assigned: None,
        far: Some(far_limits),
    };
    // The pipe may be gone, and another one under its key.
    let is_late = inner.state.born(key) != born;
    let up = if is_late { Err(Refusal::Gone) } else { inner.state.pipe_up(Some(key), arrival) };
    match up {
        Ok((key, epoch)) => {
            let _ = ends.ends[0].set(End::new(connecting, &inner, key, epoch));
            let is_wanted = inner.endpoints.is_inproc_connected(pipe);
            // What is queued goes when the ends part.
            inner.endpoints.inproc_left(pipe);
            inner.wake_watchers();
            let near_limits = inner.state.link_limits(key);
            connecting.finish(inner);
            // Notes from before the other end was there went nowhere, and so did changed limits.
            view(1).push();
            let mut inner = bound.lock();
            inner.wake_watchers();
            inner.state.far_limits(bound_key, bound_epoch, near_limits);
            let far_limits = inner.state.link_limits(bound_key);
            let is_there = inner.state.is_connected(bound_key, bound_epoch);
            bound.finish(inner);
            connecting.far_limits(key, epoch, far_limits);
            // The one may have been closed before it could be told of the other.
            if !(is_there && is_wanted) {
                view(0).part();
            }
        }
        Err(Refusal::Gone) => {
            connecting.finish(inner);
            view(0).part();
        }
        Err(refusal) => {
            connecting.finish(inner);
            // Another came between. Whom the passing pipe was in the way of tries again by himself: those who are refused here
            // would else call each other without an end.
            view(0).part_ends();
            refused(&name, connecting, pipe, (connecting, false), refusal);
        }
    }
}

/// The pipe waits for a place, and the monitors of the socket that had none are told.
fn refused(
    name: &str,
    connecting: &Arc<Shared>,
    pipe: Stamped,
    (by, is_bound): (&Shared, bool),
    refusal: Refusal,
) {
    connecting.context.names.turned_away(name, connecting, pipe);
    by.monitors.report(|| Event::new(format!("inproc://{name}"), is_bound, told(refusal)));
}

fn told(refusal: Refusal) -> EventKind {
    match refusal {
        Refusal::PairBusy => EventKind::PairBusy,
        Refusal::RoutingIdInUse => EventKind::RoutingIdInUse,
        Refusal::Gone => EventKind::Stopped,
    }
}

fn describe(inner: &Inner, kind: SocketType) -> PeerInfo {
    PeerInfo {
        socket_type: Some(kind),
        routing_id: inner.options.routing_id.as_ref().map_or_else(Bytes::new, |id| id.as_bytes().clone()),
        mechanism: "NULL",
        user_id: Bytes::new(),
        metadata: Metadata::default(),
        version: Version::V3_1,
    }
}
