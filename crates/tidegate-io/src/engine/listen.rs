//! Listeners: accepting streams, and who of them may stay while their handshakes are pending (MQ-262).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Arc, Condvar, PoisonError},
    time::{Duration, Instant},
};

use compio::driver::op::{Interest, PollOnce};
use rustix::{
    io::Errno,
    net::{SocketFlags, acceptfrom_with, sockopt},
};
use socket2::SockRef;

use super::{
    address::{Credentials, Side, StreamAddress, StreamInfo},
    bind::{self, SocketFile},
    conn::{Conn, Origin},
    control::{ABORT, Control, DISPLACE, Shared},
    event::{AcceptFailure, StreamEvent},
    options::StreamOptions,
    table::Key,
    worker::{Door, Worker, guarded},
};
use crate::{
    protocol::Connection,
    sync::{AtomicUsize, Mutex, Ordering, lock},
};

/// Makes connections of the streams that come to a listener.
///
/// Called on worker threads, also on several at a time.
pub trait Acceptor: Send + Sync + 'static {
    /// The connection for a new stream, or `None` to close it. Called on the worker that will drive it.
    fn accept(&self, stream: &StreamInfo) -> Option<Box<dyn Connection>>;

    /// Something happened.
    fn event(&self, event: &StreamEvent<'_>) {
        let _ = event;
    }
}

/// How many streams a listener takes, beside the [`Places`] it has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenLimits {
    /// Streams at a time that are not yet [established](Control::established); beyond that the oldest is closed.
    pub pending: usize,
    /// The same for each IP address.
    pub pending_per_ip: usize,
    /// Streams accepted in a second, if limited.
    pub per_second: Option<u32>,
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self { pending: 1024, pending_per_ip: 128, per_second: None }
    }
}

/// Places for streams, which several listeners may share (MQ-262). A newcomer that finds none is closed.
///
/// Clones count the same streams.
#[derive(Clone, Debug)]
pub struct Places {
    taken: Arc<AtomicUsize>,
    most: usize,
}

impl Places {
    /// The same places, but of them only `most` for who uses this clone.
    #[must_use]
    pub fn at_most(&self, most: usize) -> Self {
        Self { taken: self.taken.clone(), most }
    }

    /// Streams that have a place.
    pub fn taken(&self) -> usize {
        // Relaxed: a number for people.
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<Place> {
        let take = |taken| (taken < self.most).then(|| taken + 1);
        // Relaxed: only the number counts, nothing is handed over by it.
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok().then(|| Place(self.taken.clone()))
    }
}

impl Default for Places {
    /// Any number of them.
    fn default() -> Self {
        Self { taken: Arc::default(), most: usize::MAX }
    }
}

/// The place of one stream; given back when dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        // Relaxed: see `Places::take`.
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that listens.
///
/// Dropping it is [`close`](Self::close) without waiting for what its streams still have to write.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<ListenerShared>,
    address: StreamAddress,
    fd: Option<Arc<ListenFd>>,
    file: Option<SocketFile>,
    door: Arc<Door>,
    /// Who made it. A forked child has the descriptors too, and what it did to them would be done to its parent.
    process: u32,
}

impl Listener {
    /// Where it listens, with the port that was chosen.
    pub fn local_address(&self) -> &StreamAddress {
        &self.address
    }

    /// Streams it has at present.
    pub fn connections(&self) -> usize {
        lock(&self.shared.members).all.len()
    }

    /// Stops listening and closes the streams that came in, each after it has written what it has to, at most for
    /// `linger`. The address is free when this returns.
    pub fn close(mut self, linger: Option<Duration>) {
        self.stop(Some(linger));
    }

    /// Stops listening; streams that came in stay. The address is free when this returns.
    pub fn close_keep(mut self) {
        self.stop(None);
    }

    fn stop(&mut self, streams: Option<Option<Duration>>) {
        let Some(fd) = self.fd.take() else { return };
        if std::process::id() != self.process {
            return;
        }
        self.file = None;
        lock(&self.shared.members).stopped = true;
        bind::deafen(&fd);
        let number = fd.as_fd().as_raw_fd();
        let closed = fd.closed.0.clone();
        drop(fd);
        let shared = self.shared.clone();
        self.door.post(move |worker| {
            let key = lock(&shared.members).task;
            if let Some(key) = key {
                worker.listeners.borrow_mut().remove(key);
                shared.event(&StreamEvent::ListenerClosed { fd: number });
            }
        });
        if let Some(linger) = streams {
            self.shared.close_all(linger);
        }
        if !self.door.is_here() {
            closed.wait();
        }
    }
}

/// The descriptor of a listener, which says when it is closed.
#[derive(Debug)]
struct ListenFd {
    fd: OwnedFd,
    /// After the descriptor: fields are dropped in order.
    closed: SaysClosed,
}

#[derive(Debug)]
struct SaysClosed(Arc<Closed>);

/// Whether a descriptor is closed.
#[derive(Debug, Default)]
struct Closed {
    is: std::sync::Mutex<bool>,
    changed: Condvar,
}

impl Closed {
    /// Waits for it; not for ever, should the worker be held up.
    fn wait(&self) {
        let is = self.is.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.changed.wait_timeout_while(is, PAUSE_MOST, |is| !*is);
    }
}

impl AsFd for ListenFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SaysClosed {
    fn drop(&mut self) {
        *self.0.is.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop(Some(Some(Duration::ZERO)));
    }
}

/// What a listener, its task and its streams share.
pub(super) struct ListenerShared {
    acceptor: Arc<dyn Acceptor>,
    limits: ListenLimits,
    places: Places,
    options: StreamOptions,
    mask: u64,
    members: Mutex<Members>,
}

impl std::fmt::Debug for ListenerShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerShared").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The streams of a listener.
#[derive(Default)]
struct Members {
    task: Option<Key>,
    /// The handle has closed the listener.
    stopped: bool,
    /// Number of the next stream; numbers grow with age.
    next: u64,
    all: BTreeMap<u64, Member>,
    pending: BTreeSet<u64>,
    per_ip: HashMap<IpAddr, BTreeSet<u64>>,
    /// The listener is closed with its streams, which may take this long.
    closed: Option<Option<Duration>>,
}

struct Member {
    /// Set when the stream has arrived on its worker.
    control: Option<Arc<Shared>>,
    peer: StreamAddress,
    /// Asked for before it arrived.
    requests: u32,
}

impl Members {
    fn settle(&mut self, id: u64) {
        self.pending.remove(&id);
        let Some(ip) = self.all.get(&id).and_then(|member| member.peer.ip()) else { return };
        if let Some(of_ip) = self.per_ip.get_mut(&ip) {
            of_ip.remove(&id);
            if of_ip.is_empty() {
                self.per_ip.remove(&ip);
            }
        }
    }

    /// Who must go before a newcomer from `ip` may come.
    fn surplus(&self, ip: Option<IpAddr>, limits: &ListenLimits) -> Option<u64> {
        let of_ip = ip.and_then(|ip| self.per_ip.get(&ip));
        if let Some(of_ip) = of_ip
            && of_ip.len() >= limits.pending_per_ip
        {
            return of_ip.first().copied();
        }
        if self.pending.len() >= limits.pending { self.pending.first().copied() } else { None }
    }
}

impl ListenerShared {
    fn event(&self, event: &StreamEvent<'_>) {
        guarded("an acceptor", || self.acceptor.event(event));
    }

    /// Takes a newcomer in, or says why not.
    fn admit(self: &Arc<Self>, peer: &StreamAddress) -> Option<Admission> {
        let Some(place) = self.places.take() else {
            self.event(&StreamEvent::AcceptFailed(AcceptFailure::TooMany { peer: peer.clone() }));
            return None;
        };
        let mut members = lock(&self.members);
        let ip = peer.ip();
        let mut displaced = None;
        if let Some(id) = members.surplus(ip, &self.limits) {
            members.settle(id);
            if let Some(member) = members.all.get_mut(&id) {
                member.requests |= DISPLACE;
                displaced = Some((member.control.clone(), member.peer.clone()));
            }
        }
        let id = members.next;
        members.next += 1;
        members.pending.insert(id);
        if let Some(ip) = ip {
            members.per_ip.entry(ip).or_default().insert(id);
        }
        members.all.insert(id, Member { control: None, peer: peer.clone(), requests: 0 });
        drop(members);
        if let Some((control, peer)) = displaced {
            if let Some(control) = control {
                control.request(DISPLACE);
            }
            self.event(&StreamEvent::AcceptFailed(AcceptFailure::Displaced { peer }));
        }
        Some(Admission { listener: self.clone(), id, _place: place })
    }

    fn close_all(&self, linger: Option<Duration>) {
        let mut members = lock(&self.members);
        members.closed = Some(linger);
        let controls: Vec<Control> =
            members.all.values().filter_map(|member| member.control.clone()).map(Control).collect();
        drop(members);
        for control in controls {
            match linger {
                None => control.close(),
                Some(Duration::ZERO) => control.abort(),
                Some(linger) => control.close_within(linger),
            }
        }
    }
}

/// The place of a stream among those of its listener; given up when dropped.
pub(super) struct Admission {
    listener: Arc<ListenerShared>,
    id: u64,
    _place: Place,
}

impl Admission {
    /// The stream has arrived on its worker: whatever was asked of it meanwhile is asked now.
    fn arrived(&self, control: &Arc<Shared>) {
        let mut members = lock(&self.listener.members);
        let closed = members.closed;
        let Some(member) = members.all.get_mut(&self.id) else { return };
        member.control = Some(control.clone());
        let requests = member.requests;
        drop(members);
        if requests != 0 {
            control.request(requests);
        }
        match closed {
            None => {}
            Some(Some(Duration::ZERO)) => control.request(ABORT),
            Some(None) => Control(control.clone()).close(),
            Some(Some(linger)) => Control(control.clone()).close_within(linger),
        }
    }

    /// The handshake is complete.
    pub(super) fn established(&self) {
        lock(&self.listener.members).settle(self.id);
    }

    /// The stream has ended.
    pub(super) fn ended(&self, event: &StreamEvent<'_>) {
        self.listener.event(event);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut members = lock(&self.listener.members);
        members.settle(self.id);
        members.all.remove(&self.id);
    }
}

/// A listener on its worker.
pub(super) struct ListenerTask {
    /// Ends with the listener.
    _task: compio::runtime::JoinHandle<()>,
}

/// How to listen where it is bound.
pub(super) struct Listening {
    pub(super) options: StreamOptions,
    pub(super) limits: ListenLimits,
    pub(super) places: Places,
    pub(super) mask: u64,
}

/// Starts accepting from `bound` on the worker behind `door`.
pub(super) fn start(
    bound: bind::Bound,
    how: Listening,
    acceptor: Arc<dyn Acceptor>,
    door: Arc<Door>,
) -> Option<Listener> {
    let Listening { options, limits, places, mask } = how;
    let members = Mutex::new(Members::default());
    let shared = Arc::new(ListenerShared { acceptor, limits, places, options, mask, members });
    let fd = Arc::new(ListenFd { fd: bound.fd, closed: SaysClosed(Arc::default()) });
    shared.event(&StreamEvent::Listening { fd: fd.as_fd().as_raw_fd(), address: &bound.address });
    let (task_shared, task_fd) = (shared.clone(), fd.clone());
    let started = door.post(move |worker| {
        let task = worker.spawn_owned(accept(worker.clone(), task_shared.clone(), task_fd));
        let key = worker.listeners.borrow_mut().insert(|_| Rc::new(ListenerTask { _task: task }));
        lock(&task_shared.members).task = Some(key);
    });
    let process = std::process::id();
    started.then(|| Listener {
        shared,
        address: bound.address,
        fd: Some(fd),
        file: bound.file,
        door,
        process,
    })
}

/// Streams accepted in one go, before those that are there are served.
const TURN: usize = 16;
/// First and longest pause after the system had no resources for another stream (MQ-085).
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// Accepts until the listener is closed.
async fn accept(worker: Rc<Worker>, listener: Arc<ListenerShared>, fd: Arc<ListenFd>) {
    let mut pause = PAUSE_FIRST;
    let mut rate = listener.limits.per_second.map(Rate::new);
    loop {
        for _ in 0..TURN {
            if let Some(wait) = rate.as_mut().and_then(|rate| rate.wait(Instant::now())) {
                compio::time::sleep(wait).await;
                continue;
            }
            match acceptfrom_with(&*fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((stream, peer)) => {
                    pause = PAUSE_FIRST;
                    if let Some(rate) = &mut rate {
                        rate.spend();
                    }
                    place(&worker, &listener, stream, StreamAddress::from_accept(peer));
                }
                Err(Errno::AGAIN) => {
                    let readable = worker.submit(PollOnce::new(fd.clone(), Interest::Readable)).await;
                    if readable.0.is_err() {
                        compio::time::sleep(PAUSE_FIRST).await;
                    }
                }
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                // It was shut down: by its handle, or else by somebody who shares the descriptor.
                Err(error @ (Errno::INVAL | Errno::BADF | Errno::NOTSOCK)) => {
                    if !lock(&listener.members).stopped {
                        listener.event(&StreamEvent::AcceptFailed(AcceptFailure::Fatal(error.into())));
                    }
                    return;
                }
                Err(error) => {
                    let failure = AcceptFailure::System { error: error.into(), pause };
                    listener.event(&StreamEvent::AcceptFailed(failure));
                    compio::time::sleep(pause).await;
                    pause = PAUSE_MOST.min(pause * 2);
                }
            }
        }
        super::read::yield_now().await;
    }
}

/// Sets an accepted stream up and hands it to a worker.
fn place(worker: &Rc<Worker>, listener: &Arc<ListenerShared>, fd: OwnedFd, peer: StreamAddress) {
    let info = match stream_info(&fd, Side::Accepted, peer) {
        Ok(info) => info,
        Err(error) => return listener.event(&StreamEvent::AcceptFailed(AcceptFailure::Setup(error))),
    };
    let v6 = matches!(&info.local, StreamAddress::Ip(address) if address.is_ipv6());
    if let Err(error) = listener.options.on_stream(&SockRef::from(&fd), info.is_tcp(), v6) {
        return listener.event(&StreamEvent::AcceptFailed(AcceptFailure::Setup(error)));
    }
    let Some(admission) = listener.admit(&info.peer) else { return };
    listener.event(&StreamEvent::Accepted(&info));
    let door = worker.least_loaded(listener.mask);
    door.add_load();
    if Arc::ptr_eq(&door, &worker.door) {
        return adopt(worker, fd, info, admission);
    }
    let load = door.clone();
    if !door.post(move |worker| adopt(worker, fd, info, admission)) {
        load.remove_load();
    }
}

/// Makes a connection of a stream, on the worker that will drive it.
fn adopt(worker: &Rc<Worker>, fd: OwnedFd, info: StreamInfo, admission: Admission) {
    let acceptor = admission.listener.acceptor.clone();
    let protocol = catch_unwind(AssertUnwindSafe(|| acceptor.accept(&info))).unwrap_or_else(|panic| {
        worker.report_panic("an acceptor", &*panic);
        None
    });
    let Some(protocol) = protocol else {
        worker.door.remove_load();
        admission.listener.event(&StreamEvent::AcceptFailed(AcceptFailure::Unwanted { peer: info.peer }));
        return;
    };
    Conn::open(worker, fd, info, Origin::Listener(admission), protocol);
}

impl Origin {
    /// The stream is on its worker and can be reached.
    pub(super) fn arrived(&self, control: &Arc<Shared>) {
        match self {
            Self::Listener(admission) => admission.arrived(control),
            Self::Dialer(_) => {}
        }
    }
}

/// Facts about `fd`, whose other end is `peer`.
pub(super) fn stream_info(fd: &OwnedFd, side: Side, peer: StreamAddress) -> io::Result<StreamInfo> {
    let local = StreamAddress::from_socket(&SockRef::from(fd).local_addr()?);
    let credentials = match local {
        StreamAddress::Ip(_) => None,
        _ => sockopt::socket_peercred(fd).ok().map(|peer| Credentials {
            pid: peer.pid.as_raw_nonzero().get(),
            uid: peer.uid.as_raw(),
            gid: peer.gid.as_raw(),
        }),
    };
    Ok(StreamInfo { fd: fd.as_raw_fd(), side, local, peer, credentials })
}

/// So many a second, on average over a second.
struct Rate {
    interval: Duration,
    /// When the spent ones are paid for.
    paid: Option<Instant>,
}

impl Rate {
    fn new(per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), paid: None }
    }

    /// How long the next must wait.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        let paid = *self.paid.get_or_insert(now);
        if paid < now {
            self.paid = Some(now);
        }
        let ahead = paid.saturating_duration_since(now) + self.interval;
        ahead.checked_sub(Duration::from_secs(1)).filter(|wait| !wait.is_zero())
    }

    fn spend(&mut self) {
        self.paid = self.paid.map(|paid| paid + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: MQ-262.
    #[test]
    fn a_rate_is_kept_over_a_second() {
        let start = Instant::now();
        let mut rate = Rate::new(10);
        for _ in 0..10 {
            assert_eq!(rate.wait(start), None, "a second's worth at once");
            rate.spend();
        }
        assert_eq!(rate.wait(start), Some(Duration::from_millis(100)));
        assert_eq!(rate.wait(start + Duration::from_millis(100)), None);
        rate.spend();
        assert!(rate.wait(start + Duration::from_millis(100)).is_some());
        assert_eq!(rate.wait(start + Duration::from_secs(60)), None);
    }
}
