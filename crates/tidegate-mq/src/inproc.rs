//! Links between sockets of one context: messages move by reference, without encoding and without a worker (MQ-269).
//!
//! A link has two ends, each a pipe of its socket. Connecting before the name is bound is allowed: the pipe queues, and
//! is linked when the name appears. When the bound side goes, the connecting side waits for the name again (MQ-272).

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use bytes::Bytes;
use tidegate_io::peer::{Epoch, PeerKey};
use tidegate_zmtp::{greeting::Version, metadata::Metadata};

use crate::{
    error::{Error, Result},
    monitor::{Event, EventKind},
    shared::{Inner, Link, Phase, Shared},
    state::{Arrival, Origin, PeerInfo, Refusal, SocketType},
};

/// One end's view of a link.
#[derive(Clone)]
pub(crate) struct InprocLink {
    ends: Arc<[OnceLock<End>; 2]>,
    /// Which end this is: 0 has connected, 1 is bound.
    side: usize,
    name: Arc<str>,
}

struct End {
    socket: Weak<Shared>,
    key: PeerKey,
    epoch: Epoch,
}

impl InprocLink {
    /// The socket at the far end, and its pipe.
    pub(crate) fn far(&self) -> Option<(Arc<Shared>, PeerKey, Epoch)> {
        let end = self.ends.get(1 - self.side)?.get()?;
        Some((end.socket.upgrade()?, end.key, end.epoch))
    }

    /// The same link as the far end has it.
    pub(crate) fn reversed(&self) -> Self {
        Self { side: 1 - self.side, ..self.clone() }
    }

    /// Ends the link: both pipes lose their connection, and the connecting one waits until the name is bound again. A
    /// place that becomes free so goes to those who were turned away.
    pub(crate) fn part(&self) {
        let mut left = None;
        for (side, end) in self.ends.iter().enumerate() {
            let Some(end) = end.get() else { continue };
            let Some(socket) = end.socket.upgrade() else { continue };
            let mut inner = socket.lock();
            let was_up = inner.state.is_connected(end.key, end.epoch);
            let keep = side == 0 && inner.endpoints.is_inproc_connected(end.key);
            inner.state.pipe_down(end.key, end.epoch, keep);
            inner.wake_watchers();
            socket.finish(inner);
            // Only once: it may have ended before, and be another link's by now.
            if keep && was_up {
                left = Some((socket, end.key));
            }
        }
        let Some(bound) = self.ends.get(1).and_then(OnceLock::get) else { return };
        if let Some((socket, key)) = left {
            socket.context.names.wait_for_another(&self.name, &socket, key, &bound.socket);
        }
        if let Some(bound) = bound.socket.upgrade() {
            bound.context.names.readmit(&self.name);
        }
    }
}

impl fmt::Debug for InprocLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InprocLink").field("name", &self.name).field("side", &self.side).finish()
    }
}

/// The names of a context, and who waits for one.
#[derive(Default)]
pub(crate) struct Names(Mutex<HashMap<Arc<str>, Name>>);

#[derive(Default)]
struct Name {
    bound: Option<Weak<Shared>>,
    /// For the name to be bound.
    waiting: Vec<(Weak<Shared>, PeerKey)>,
    /// For a place at the socket that is bound, which had none for them.
    turned_away: Vec<(Weak<Shared>, PeerKey)>,
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
        for (connecting, key) in waiting {
            if let Some(connecting) = connecting.upgrade() {
                link(name, &connecting, key, socket);
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
    pub(crate) fn wait_for(&self, name: &str, socket: &Arc<Shared>, key: PeerKey) {
        self.wait_for_another(name, socket, key, &Weak::new());
    }

    /// The same, but does not count it as bound while `former` is.
    fn wait_for_another(&self, name: &str, socket: &Arc<Shared>, key: PeerKey, former: &Weak<Shared>) {
        let bound = {
            let mut names = self.lock();
            let entry = names.entry(name.into()).or_default();
            match entry.bound.as_ref().filter(|bound| !bound.ptr_eq(former)).and_then(Weak::upgrade) {
                Some(bound) => bound,
                None => {
                    entry.waiting.retain(|(waiting, _)| waiting.strong_count() > 0);
                    entry.waiting.push((Arc::downgrade(socket), key));
                    return;
                }
            }
        };
        link(name, socket, key, &bound);
    }

    /// The pipe was refused by the socket that is bound.
    fn turned_away(&self, name: &str, socket: &Arc<Shared>, key: PeerKey) {
        let mut names = self.lock();
        let entry = names.entry(name.into()).or_default();
        entry.turned_away.retain(|(waiting, _)| waiting.strong_count() > 0);
        entry.turned_away.push((Arc::downgrade(socket), key));
    }

    /// Lets those who were turned away try again.
    fn readmit(&self, name: &str) {
        let Some(bound) = self.bound(name) else { return };
        let trying = self.lock().get_mut(name).map(|entry| std::mem::take(&mut entry.turned_away));
        for (connecting, key) in trying.unwrap_or_default() {
            if let Some(connecting) = connecting.upgrade() {
                link(name, &connecting, key, &bound);
            }
        }
    }

    pub(crate) fn forget(&self, name: &str, socket: &Shared, key: PeerKey) {
        let mut names = self.lock();
        if let Some(entry) = names.get_mut(name) {
            let this = socket.weak();
            for list in [&mut entry.waiting, &mut entry.turned_away] {
                list.retain(|(waiting, waiting_key)| !(waiting.ptr_eq(&this) && *waiting_key == key));
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
fn link(name: &str, connecting: &Arc<Shared>, key: PeerKey, bound: &Arc<Shared>) {
    if check_types(name, connecting.kind, bound.kind).is_err() {
        return;
    }
    let name: Arc<str> = name.into();
    let ends: Arc<[OnceLock<End>; 2]> = Arc::default();
    let view = |side| InprocLink { ends: ends.clone(), side, name: name.clone() };
    let (near_info, near_limits) = describe(&connecting.lock(), connecting.kind);
    let (far_info, far_limits) = describe(&bound.lock(), bound.kind);

    let mut inner = bound.lock();
    if inner.phase != Phase::Open {
        // It has parted from its peers, or is about to: one more would be left behind.
        drop(inner);
        return connecting.context.names.wait_for_another(&name, connecting, key, &bound.weak());
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
            bound.context.names.turned_away(&name, connecting, key);
            let kind = match refusal {
                Refusal::PairBusy => EventKind::PairBusy,
                Refusal::RoutingIdInUse => EventKind::RoutingIdInUse,
                Refusal::Gone => EventKind::Stopped,
            };
            bound.monitors.report(|| Event::new(format!("inproc://{name}"), true, kind));
            return;
        }
    };
    // What it has to say at once waits until the other end is there.
    drop(inner);
    let _ = ends[1].set(End { socket: Arc::downgrade(bound), key: bound_key, epoch: bound_epoch });

    let mut inner = connecting.lock();
    let arrival = Arrival {
        origin: Origin::Dialed,
        peer: Arc::new(far_info),
        link: Link::Inproc(view(0)),
        assigned: None,
        far: Some(far_limits),
    };
    match inner.state.pipe_up(Some(key), arrival) {
        Ok((key, epoch)) => {
            let _ = ends[0].set(End { socket: Arc::downgrade(connecting), key, epoch });
            inner.wake_watchers();
            connecting.finish(inner);
            // Notes from before the other end was there went nowhere.
            bound.move_inproc(bound_key, bound_epoch, &view(1));
            let mut inner = bound.lock();
            inner.wake_watchers();
            let is_there = inner.state.is_connected(bound_key, bound_epoch);
            bound.finish(inner);
            // It may have been closed before it could be told of this end.
            if !is_there {
                view(0).part();
            }
        }
        Err(_) => {
            connecting.finish(inner);
            view(0).part();
        }
    }
}

fn describe(inner: &Inner, kind: SocketType) -> (PeerInfo, crate::state::LinkLimits) {
    let info = PeerInfo {
        socket_type: Some(kind),
        routing_id: inner.options.routing_id.as_ref().map_or_else(Bytes::new, |id| id.as_bytes().clone()),
        mechanism: "NULL",
        user_id: Bytes::new(),
        metadata: Metadata::default(),
        version: Version::V3_1,
    };
    (info, inner.state.link_limits())
}
