//! Listeners: accepting streams.

use std::{
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    sync::{Arc, Condvar, PoisonError},
    task::{Poll, Waker},
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
    pending::{Members, Room},
    worker::{Door, Worker, guarded},
};
use crate::{
    protocol::{Connection, Ended},
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
    /// Streams at a time that are not yet [established](Control::established). Beyond that newcomers wait, for some
    /// hundred milliseconds, and if none of the pending gets on with it, the oldest is closed.
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
        let removed = self.file.take().map_or(Ok(()), SocketFile::remove);
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
                shared.event(&match &removed {
                    Ok(()) => StreamEvent::ListenerClosed { fd: number },
                    Err(error) => StreamEvent::CloseFailed(error),
                });
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

impl ListenerShared {
    fn event(&self, event: &StreamEvent<'_>) {
        guarded("an acceptor", || self.acceptor.event(event));
    }

    /// Takes a newcomer in when there is room for it, or says why not.
    async fn admit(self: &Arc<Self>, peer: &StreamAddress) -> Option<Admission> {
        let Some(place) = self.places.take() else {
            self.event(&StreamEvent::AcceptFailed(AcceptFailure::TooMany { peer: peer.clone() }));
            return None;
        };
        self.make_room(peer.ip()).await;
        let id = lock(&self.members).add(peer, Instant::now());
        Some(Admission { listener: self.clone(), id, _place: place })
    }

    /// Waits until one more from `ip` may be pending, and displaces who must go for it. Meanwhile those who are pending
    /// are served, and newcomers are left to the backlog.
    async fn make_room(&self, ip: Option<IpAddr>) {
        loop {
            let room = lock(&self.members).room(ip, &self.limits, Instant::now());
            let later = match room {
                Room::Free => return,
                Room::After(id) => {
                    let displaced = lock(&self.members).displace(id);
                    if let Some(control) = displaced {
                        control.request(DISPLACE);
                    }
                    continue;
                }
                Room::Later(at) => at,
            };
            let mut sleep = pin!(compio::time::sleep_until(later));
            poll_fn(|cx| {
                let mut members = lock(&self.members);
                if !matches!(members.room(ip, &self.limits, Instant::now()), Room::Later(_)) {
                    return Poll::Ready(());
                }
                members.waiting = Some(cx.waker().clone());
                drop(members);
                sleep.as_mut().poll(cx)
            })
            .await;
        }
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
        let waiting = lock(&self.listener.members).settle(self.id);
        wake(waiting);
    }

    /// The stream has ended.
    pub(super) fn ended(&self, event: &StreamEvent<'_>) {
        if let StreamEvent::Disconnected { stream, why: Ended::Displaced, .. } = event {
            let peer = stream.peer.clone();
            self.listener.event(&StreamEvent::AcceptFailed(AcceptFailure::Displaced { peer }));
        }
        self.listener.event(event);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut members = lock(&self.listener.members);
        let waiting = members.settle(self.id);
        members.all.remove(&self.id);
        drop(members);
        wake(waiting);
    }
}

/// There may be room for who waits for it.
fn wake(waiting: Option<Waker>) {
    if let Some(waiting) = waiting {
        waiting.wake();
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
                    place(&worker, &listener, stream, StreamAddress::from_accept(peer)).await;
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
async fn place(worker: &Rc<Worker>, listener: &Arc<ListenerShared>, fd: OwnedFd, peer: StreamAddress) {
    let info = match stream_info(&fd, Side::Accepted, peer) {
        Ok(info) => info,
        Err(error) => return listener.event(&StreamEvent::AcceptFailed(AcceptFailure::Setup(error))),
    };
    let v6 = matches!(&info.local, StreamAddress::Ip(address) if address.is_ipv6());
    if let Err(error) = listener.options.on_stream(&SockRef::from(&fd), info.is_tcp(), v6) {
        return listener.event(&StreamEvent::AcceptFailed(AcceptFailure::Setup(error)));
    }
    let Some(admission) = listener.admit(&info.peer).await else { return };
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
    let listener = admission.listener.clone();
    Conn::open(worker, fd, info, &listener.options, Origin::Listener(admission), protocol);
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
