//! Links between sockets of one context: messages move by reference, without encoding and without a worker (MQ-269).
//!
//! A link has two ends, each a pipe of its socket. Connecting before the name is bound is allowed: the pipe queues, and
//! is linked when the name appears. When the bound side goes, the connecting side waits for the name again (MQ-272).

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::Wake,
    time::Instant,
};

use bytes::Bytes;
use tidegate_io::{
    packed::Packed,
    peer::{Epoch, PeerKey},
    sync::lock,
};
use tidegate_zmtp::{greeting::Version, metadata::Metadata};

use crate::{
    context::ContextInner,
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
            while !load.messages.is_empty() {
                heard(inner.state.received_many(far_key, far_epoch, &mut load.messages));
            }
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

/// A pipe of a connecting socket, with its stamp. No lock is held from when it is taken off a list until it is linked: by
/// then its key may be another's.
type Stamped = (PeerKey, Epoch);

/// The names of a context, and who waits for one.
#[derive(Default)]
pub(crate) struct Names(Mutex<HashMap<Arc<str>, Name>>);

#[derive(Default)]
struct Name {
    bound: Option<Weak<Shared>>,
    /// For the name to be bound.
    waiting: Vec<(Weak<Shared>, Stamped)>,
    /// For a place at the socket that is bound, or at their own: one had none for them.
    turned_away: Vec<(Weak<Shared>, Stamped)>,
    /// When they try again.
    retry: Option<Instant>,
}

/// Lets those who were turned away try again when the time has come.
struct Retry {
    context: Weak<ContextInner>,
    name: Arc<str>,
    due: Instant,
}

impl Wake for Retry {
    fn wake(self: Arc<Self>) {
        if let Some(context) = self.context.upgrade() {
            context.names.retry(&self.name, self.due);
        }
    }
}

impl Names {
    pub(crate) fn bind(&self, name: &str, socket: &Arc<Shared>) -> Result<()> {
        let waiting = {
            let mut names = self.lock();
            let entry = names.entry(name.into()).or_default();
            if entry.bound.as_ref().is_some_and(|bound| bound.strong_count() > 0) {
                return Err(Error::AddressInUse(format!("inproc://{name}")));
            }
            entry.bound = Some(Arc::downgrade(socket));
            let mut waiting = std::mem::take(&mut entry.waiting);
            waiting.append(&mut entry.turned_away);
            waiting
        };
        for (connecting, pipe) in waiting {
            if let Some(connecting) = connecting.upgrade() {
                link(name, &connecting, pipe, socket);
            }
        }
        Ok(())
    }

    /// The name is free, if it is this socket's.
    pub(crate) fn unbind(&self, name: &str, socket: &Shared) {
        let mut names = self.lock();
        if let Some(entry) = names.get_mut(name)
            && entry.bound.as_ref().is_some_and(|bound| bound.ptr_eq(&socket.weak()))
        {
            entry.bound = None;
            if entry.is_unused() {
                names.remove(name);
            }
        }
    }

    /// Whoever is bound to the name.
    pub(crate) fn bound(&self, name: &str) -> Option<Arc<Shared>> {
        self.lock().get(name)?.bound.as_ref()?.upgrade()
    }

    /// Links the pipe to the name now, or when it is bound.
    pub(crate) fn wait_for(&self, name: &str, socket: &Arc<Shared>, pipe: Stamped) {
        self.wait_for_another(name, socket, pipe, &Weak::new());
    }

    /// The same, but does not count it as bound while `former` is.
    fn wait_for_another(&self, name: &str, socket: &Arc<Shared>, pipe: Stamped, former: &Weak<Shared>) {
        let bound = {
            let mut names = self.lock();
            let entry = names.entry(name.into()).or_default();
            let bound = entry.bound.as_ref().filter(|bound| !bound.ptr_eq(former)).and_then(Weak::upgrade);
            if bound.is_none() {
                entry.waiting.retain(|(waiting, _)| waiting.strong_count() > 0);
                entry.waiting.push((Arc::downgrade(socket), pipe));
            }
            bound
        };
        match bound {
            Some(bound) => link(name, socket, pipe, &bound),
            None => self.forget_if_gone(name, socket, pipe),
        }
    }

    /// An endpoint that was given up meanwhile must not take the place of another.
    fn forget_if_gone(&self, name: &str, socket: &Shared, pipe: Stamped) {
        let inner = socket.lock();
        let is_wanted = inner.endpoints.is_inproc_connected(pipe) || inner.endpoints.is_inproc_leaving(pipe);
        drop(inner);
        if !is_wanted {
            self.forget(name, socket, pipe);
        }
    }

    /// The pipe was refused by one of the two sockets. It tries again after the time after which others connect again: the
    /// place may become free at a peer that is not in this process.
    fn turned_away(&self, name: &str, socket: &Arc<Shared>, pipe: Stamped) {
        let wait = socket.lock().options.reconnect_ivl.filter(|time| !time.is_zero());
        let due = wait.and_then(|time| Instant::now().checked_add(time));
        let mut names = self.lock();
        let entry = names.entry(name.into()).or_default();
        entry.turned_away.retain(|(waiting, _)| waiting.strong_count() > 0);
        entry.turned_away.push((Arc::downgrade(socket), pipe));
        let is_first = entry.retry.is_none();
        if is_first {
            entry.retry = due;
        }
        drop(names);
        if let Some(due) = due.filter(|_| is_first) {
            let context = Arc::downgrade(&socket.context);
            socket.context.wake_at(due, &Arc::new(Retry { context, name: name.into(), due }).into());
        }
        self.forget_if_gone(name, socket, pipe);
    }

    /// The time has come for which [`turned_away`](Self::turned_away) has asked.
    fn retry(&self, name: &str, due: Instant) {
        let is_due = {
            let mut names = self.lock();
            // Else it is about others who had the name, or was called before its time.
            let entry = names.get_mut(name).filter(|entry| entry.retry == Some(due) && due <= Instant::now());
            entry.is_some_and(|entry| entry.retry.take().is_some())
        };
        if is_due {
            self.readmit(name);
        }
    }

    /// Lets those who were turned away try again.
    fn readmit(&self, name: &str) {
        let Some(bound) = self.bound(name) else { return };
        let trying = self.lock().get_mut(name).map(|entry| std::mem::take(&mut entry.turned_away));
        for (connecting, pipe) in trying.unwrap_or_default() {
            if let Some(connecting) = connecting.upgrade() {
                link(name, &connecting, pipe, &bound);
            }
        }
    }

    pub(crate) fn forget(&self, name: &str, socket: &Shared, pipe: Stamped) {
        let mut names = self.lock();
        if let Some(entry) = names.get_mut(name) {
            let this = socket.weak();
            for list in [&mut entry.waiting, &mut entry.turned_away] {
                list.retain(|(waiting, waiting_pipe)| !(waiting.ptr_eq(&this) && *waiting_pipe == pipe));
            }
            if entry.is_unused() {
                names.remove(name);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Name>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Name {
    fn is_unused(&self) -> bool {
        self.bound.is_none() && self.waiting.is_empty() && self.turned_away.is_empty()
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
    let (near_info, near_limits) = {
        let inner = connecting.lock();
        (describe(&inner, connecting.kind), inner.state.link_limits(key))
    };

    let mut inner = bound.lock();
    let far_info = describe(&inner, bound.kind);
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
            bound.context.names.turned_away(&name, connecting, pipe);
            bound.monitors.report(|| Event::new(format!("inproc://{name}"), true, told(refusal)));
            return;
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
            // Whom the passing pipe was in the way of tries again by himself: those who are refused here would else call each
            // other without an end.
            view(0).part_ends();
            connecting.context.names.turned_away(&name, connecting, pipe);
            connecting.monitors.report(|| Event::new(format!("inproc://{name}"), false, told(refusal)));
        }
    }
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

#[cfg(test)]
mod tests {
    use tidegate_io::message::Message;

    use super::*;
    use crate::{Context, options::Options, shared::wait};

    /// An endpoint that another thread gave up while it was on its way to a list of those who wait is in none of them
    /// afterwards: whoever has the key of its pipe by then would be linked in its place.
    ///
    /// Rules: MQ-268, MQ-276.
    #[test]
    fn who_was_given_up_waits_for_no_name() {
        let context = Context::new();
        let socket = Shared::new(&context, SocketType::Push, Options::default()).unwrap();
        let given_up = {
            let mut inner = socket.lock();
            let key = inner.state.open_pipe(None).unwrap();
            (key, inner.state.born(key))
        };
        let names = &context.inner().names;
        names.wait_for("a", &socket, given_up);
        assert!(names.lock().is_empty(), "it waits for the name");
        names.turned_away("a", &socket, given_up);
        assert!(names.lock().is_empty(), "it waits for a place");

        socket.connect("inproc://a").unwrap();
        assert_eq!(names.lock()["a"].waiting.len(), 1);
        names.wait_for("a", &socket, given_up);
        assert_eq!(names.lock()["a"].waiting.len(), 1, "only who is wanted waits");
    }

    /// A binding thread has taken a pipe off the list of those who wait; meanwhile its endpoint is given up, and its key
    /// goes to the pipe of another endpoint. That one is left alone, with what is queued on it.
    ///
    /// Rules: MQ-068, MQ-268, MQ-276.
    #[test]
    fn whoever_has_the_key_by_then_is_not_linked() {
        let place = tempfile::tempdir().unwrap();
        let elsewhere = format!("ipc://{}", place.path().join("b").display());
        let context = Context::new();
        let names = &context.inner().names;
        let [push, pull] = [SocketType::Push, SocketType::Pull]
            .map(|kind| Shared::new(&context, kind, Options::default()).unwrap());
        push.connect("inproc://a").unwrap();
        let (_, taken) = names.lock()["a"].waiting[0].clone();
        push.disconnect("inproc://a").unwrap();
        push.connect("inproc://a").unwrap();
        assert_eq!(names.lock()["a"].waiting[0].1.0, taken.0, "the key is another's");
        names.forget("a", &push, taken);
        assert_eq!(names.lock()["a"].waiting.len(), 1, "whoever waits under the key has not lost its place");
        push.disconnect("inproc://a").unwrap();
        push.connect(&elsewhere).unwrap();
        let heir = push.lock().state.born(taken.0);
        assert!(heir != taken.1 && heir != Epoch::ZERO, "the key is a third one's");
        push.try_send("for b").unwrap();
        link("a", &push, taken, &pull);
        assert!(matches!(pull.try_recv::<Message>(), Err(Error::WouldBlock)));
        assert!(pull.lock().state.links().next().is_none());
        let other = Shared::new(&context, SocketType::Pull, Options::default()).unwrap();
        wait(other.bind(&elsewhere)).unwrap();
        assert_eq!(other.recv_message_blocking().unwrap().parts(), ["for b"]);
    }
}
