//! A socket as its handles, its connections and its in-process peers share it.
//!
//! All of it is one [`State`] behind one mutex. Who changes it takes the notes of what is to be done outside with it,
//! unlocks, and then wakes, kicks and moves. The lock of another socket is never taken while one is held.
//!
//! ```text
//!   handles            Shared                          worker threads
//!   send, recv  --->   Gate<Inner> (State, waiters)  <--- Wire (one per connection)
//!                         |
//!                         +--> after unlocking: wake tasks, kick pumps, write directly, move messages in process
//! ```

mod addresses;
mod direct;
mod endpoints;
mod gate;
mod many;
mod raw;
mod ready;
mod recv;
mod reserve;
mod send;
mod topics;
mod watch;

use std::{
    cell::RefCell,
    os::fd::OwnedFd,
    sync::{Arc, OnceLock, Weak},
    task::{Poll, Wake, Waker},
    time::{Duration, Instant},
};

use tidegate_io::{
    peer::{Epoch, PeerKey},
    protocol::Control,
    sync::{Mutex, MutexGuard},
    wait::{Decision, Share, Spin, Turns, Waiters, Wakes, block_on},
};

pub(crate) use self::ready::Place;
pub(crate) use self::{addresses::resolved, endpoints::Endpoints};
use self::{
    gate::Gate,
    ready::{Bell, Watcher},
};
pub use self::{
    many::SendMany,
    ready::{Interest, ReadableFd, Readiness, Ready},
    recv::Recv,
    reserve::{Permit, Reserve},
    send::Send,
};
use crate::{
    context::{Context, ContextInner},
    error::{Error, Result},
    inproc::InprocLink,
    monitor::{Forwarder, Monitors},
    options::Options,
    state::{Awaited, Credit, Effect, Effects, Ledger, LinkLimits, SocketType, State},
};

/// The way from a pipe to its connection.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    /// A stream. `direct`: a sending thread may write to it itself, since frames are the same on every connection.
    Stream { control: Control, direct: bool },
    /// A socket of this context.
    Inproc(InprocLink),
}

impl Link {
    fn stream(&self) -> Option<&Control> {
        match self {
            Self::Stream { control, .. } => Some(control),
            Self::Inproc(_) => None,
        }
    }

    fn inproc(&self) -> Option<&InprocLink> {
        match self {
            Self::Stream { .. } => None,
            Self::Inproc(link) => Some(link),
        }
    }
}

/// One socket.
pub(crate) struct Shared {
    pub(crate) kind: SocketType,
    pub(crate) context: Arc<ContextInner>,
    /// Shared with the endpoints, whose last events come when nobody has a handle any more.
    pub(crate) monitors: Arc<Monitors>,
    /// The monitor in libzmq's form; there is at most one.
    forwarder: Mutex<Option<Forwarder>>,
    pub(crate) ledger: Arc<Ledger>,
    this: Weak<Shared>,
    /// See [`ReadableFd`]; made when first asked for.
    bell: OnceLock<Arc<OwnedFd>>,
    inner: Gate<Inner>,
}

/// What the lock guards.
pub(crate) struct Inner {
    pub(crate) state: State<Link>,
    pub(crate) options: Options,
    pub(crate) endpoints: Endpoints,
    pub(crate) phase: Phase,
    senders: Waiters<Awaited>,
    receivers: Waiters,
    /// Tasks that wait for subscribers, for a connection, or for queues to run empty, each with its place: woken by any
    /// change.
    watchers: Vec<(u64, Waker)>,
    /// Something changed that watchers may wait for.
    look_again: bool,
    /// Tasks that wait until something can be sent or received.
    ready_watchers: Vec<Watcher>,
    /// Numbers their places.
    last_place: u64,
    /// See [`ReadableFd`]; none while nobody asked for it.
    bell: Option<Bell>,
    /// What closing had to give up was counted.
    counted: bool,
    /// When a sending thread last wrote by itself.
    last_direct: Option<Instant>,
    /// Whether messages were queued since then that others were already queued before.
    queued_behind: bool,
    /// How often something was sent to a socket of this process.
    near_sends: u64,
    /// How such sockets take turns with a thread that waits for what they say.
    near_turns: Turns,
    /// Looks for their answers.
    near_spin: Option<Spin>,
}

/// How far a socket is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In use.
    Open,
    /// Closed by its owner; may still send what is queued.
    Closed,
    /// Its context is shut down.
    Terminated,
}

impl Shared {
    pub(crate) fn new(context: &Context, kind: SocketType, options: Options) -> Result<Arc<Self>> {
        let shared = Self::unlimited(context, kind, options)?;
        if let Some(budget) = &shared.context.budget {
            let waker = Waker::from(Arc::new(TryAgain(shared.weak())));
            shared.lock().state.share(Share::new(budget.clone(), waker));
        }
        shared.context.register(&shared)?;
        Ok(shared)
    }

    /// A socket of this crate's own, of which the application knows nothing: the limits of the context are not for it.
    pub(crate) fn internal(context: &Context, kind: SocketType, options: Options) -> Result<Arc<Self>> {
        let shared = Self::unlimited(context, kind, options)?;
        shared.context.register_internal(&shared)?;
        Ok(shared)
    }

    fn unlimited(context: &Context, kind: SocketType, options: Options) -> Result<Arc<Self>> {
        options.check(kind)?;
        let context = context.inner().clone();
        let settings = options.settings(kind);
        let state = State::new(kind, settings, context.random_u32());
        Ok(Arc::new_cyclic(|this| Self {
            kind,
            monitors: Arc::default(),
            forwarder: Mutex::default(),
            ledger: state.ledger(),
            this: this.clone(),
            inner: Gate::new(Inner {
                state,
                options,
                endpoints: Endpoints::default(),
                phase: Phase::Open,
                senders: Waiters::new(),
                receivers: Waiters::new(),
                watchers: Vec::new(),
                look_again: false,
                ready_watchers: Vec::new(),
                last_place: 0,
                bell: None,
                counted: false,
                last_direct: None,
                queued_behind: false,
                near_sends: 0,
                near_turns: Turns::default(),
                near_spin: Some(Spin::new(context.spin())),
            }),
            bell: OnceLock::new(),
            context: context.clone(),
        }))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// [`lock`](Self::lock) for an engine worker, which goes before the application's threads.
    pub(crate) fn lock_first(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock_first()
    }

    pub(crate) fn arc(&self) -> Result<Arc<Self>> {
        self.this.upgrade().ok_or(Error::Closed)
    }

    pub(crate) fn weak(&self) -> Weak<Self> {
        self.this.clone()
    }

    /// Unlocks, then does what the state noted.
    pub(crate) fn finish(&self, inner: MutexGuard<'_, Inner>) {
        if let Some(mut deeds) = Deeds::collect(inner) {
            deeds.perform(self);
        }
    }

    /// Fails every pending and later call, and wakes those who wait (MQ-083).
    pub(crate) fn set_phase(&self, phase: Phase) {
        let mut wakes = Wakes::new();
        let mut inner = self.lock();
        inner.phase = phase;
        inner.senders.grant_all(&mut wakes);
        inner.receivers.grant_all(&mut wakes);
        let mut watchers = inner.take_watchers();
        watchers.append(&mut inner.take_ready());
        drop(inner);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Waits until `ready` gives something, but not for longer than `timeout`; asked again after every change of pipes,
    /// subscriptions or queues.
    pub(crate) async fn watch<T>(
        &self,
        timeout: Duration,
        mut ready: impl FnMut(&mut Inner) -> Option<Result<T>>,
    ) -> Result<T> {
        let mut timer = self.context.timer(Some(timeout));
        let mut watching = Watching::new(self);
        std::future::poll_fn(|context| {
            let mut inner = self.lock();
            if let Some(result) = ready(&mut inner) {
                return Poll::Ready(result);
            }
            if let Err(error) = inner.phase.check() {
                return Poll::Ready(Err(error));
            }
            watching.wait(&mut inner, context.waker());
            drop(inner);
            if timer.as_mut().is_some_and(|timer| timer.is_over(context.waker())) {
                Poll::Ready(Err(Error::Timeout))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Hands everything over that waits for the far end of an in-process link to fetch it.
    pub(crate) fn push_inproc(&self) {
        self.inproc_links().iter().for_each(InprocLink::push);
    }

    /// Fetches everything from the far ends of in-process links.
    fn fetch_inproc(&self) {
        self.inproc_links().iter().for_each(InprocLink::fetch);
    }

    fn inproc_links(&self) -> Vec<InprocLink> {
        let inproc = |link: &Link| if let Link::Inproc(link) = link { Some(link.clone()) } else { None };
        self.lock().state.links().filter_map(inproc).collect()
    }

    fn credit(&self, key: PeerKey, epoch: Epoch, credit: Credit) {
        let mut inner = self.lock();
        inner.state.credit(key, epoch, credit);
        self.finish(inner);
    }

    pub(crate) fn far_limits(&self, key: PeerKey, epoch: Epoch, limits: LinkLimits) {
        let mut inner = self.lock();
        inner.state.far_limits(key, epoch, limits);
        self.finish(inner);
    }
}

impl Phase {
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Open => Ok(()),
            Self::Closed => Err(Error::Closed),
            Self::Terminated => Err(Error::Terminated),
        }
    }
}

impl Inner {
    /// Has those who wait for a change look again when the lock is released.
    pub(crate) fn wake_watchers(&mut self) {
        self.look_again = true;
    }

    fn take_watchers(&mut self) -> Vec<Waker> {
        self.watchers.drain(..).map(|(_, waker)| waker).collect()
    }

    fn new_place(&mut self) -> u64 {
        self.last_place += 1;
        self.last_place
    }

    /// Grants waiting tasks what the effects say they may have.
    fn grant(&mut self, effects: &Effects<Link>, wakes: &mut Wakes) {
        if effects.receivers > 0 {
            self.receivers.grant_many(effects.receivers, wakes);
        }
        if effects.all_senders {
            self.senders.grant_all(wakes);
        }
        if effects.senders > 0 {
            let mut left = effects.senders;
            self.senders.grant(wakes, |awaited| match (awaited, left) {
                (Awaited::RoomOn(_), _) => Decision::Skip,
                (Awaited::Room, 0) => Decision::Stop,
                (Awaited::Room, _) => {
                    left -= 1;
                    Decision::Grant
                }
            });
        }
        for effect in &effects.list {
            let (key, mut left) = match effect {
                Effect::WakeFor(key) => (key, 1),
                Effect::WakeAllFor(key) => (key, usize::MAX),
                _ => continue,
            };
            self.senders.grant(wakes, |awaited| match (awaited, left) {
                (_, 0) => Decision::Stop,
                (Awaited::RoomOn(wanted), _) if wanted == key => {
                    left -= 1;
                    Decision::Grant
                }
                _ => Decision::Skip,
            });
        }
    }
}

/// A task that waits for a change of the socket; gives its place up when it is dropped.
pub(super) struct Watching<'a> {
    shared: &'a Shared,
    place: Option<u64>,
}

impl<'a> Watching<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, place: None }
    }

    /// Has the task woken by the next change.
    pub(super) fn wait(&mut self, inner: &mut Inner, waker: &Waker) {
        let place = *self.place.get_or_insert_with(|| inner.new_place());
        match inner.watchers.iter_mut().find(|(other, _)| *other == place) {
            Some((_, known)) => known.clone_from(waker),
            None => inner.watchers.push((place, waker.clone())),
        }
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.shared.lock().watchers.retain(|(other, _)| *other != place);
        }
    }
}

/// Lets a socket try again what the budget of its context has refused.
struct TryAgain(Weak<Shared>);

impl Wake for TryAgain {
    fn wake(self: Arc<Self>) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut wakes = Wakes::new();
        let mut inner = shared.lock();
        inner.senders.grant_all(&mut wakes);
        shared.finish(inner);
        wakes.fire();
    }
}

/// What is to be done after unlocking.
pub(crate) struct Deeds {
    /// The socket is being closed.
    is_closing: bool,
    effects: Effects<Link>,
    wakes: Wakes,
    watchers: Vec<Waker>,
}

thread_local! {
    /// Room for effects, kept between calls so that nothing is allocated.
    /// Several, because what is done for one socket may concern another in process.
    static SPARE_EFFECTS: RefCell<Vec<Effects<Link>>> = const { RefCell::new(Vec::new()) };
}

impl Deeds {
    /// Takes the notes and unlocks; `None` when there are none.
    pub(crate) fn collect(mut inner: MutexGuard<'_, Inner>) -> Option<Self> {
        let inner = &mut *inner;
        if inner.has_nothing_to_tell() {
            return None;
        }
        let look_again = std::mem::take(&mut inner.look_again) && !inner.watchers.is_empty();
        let mut effects = SPARE_EFFECTS
            .try_with(|spare| spare.borrow_mut().pop())
            .ok()
            .flatten()
            .unwrap_or_else(Effects::new);
        inner.state.effects().take_into(&mut effects);
        let mut wakes = Wakes::new();
        inner.grant(&effects, &mut wakes);
        let all = look_again || effects.subscriptions;
        let mut watchers = if all { inner.take_watchers() } else { Vec::new() };
        // What is granted is not for others.
        watchers.append(&mut inner.take_ready());
        Some(Self { is_closing: inner.phase != Phase::Open, effects, wakes, watchers })
    }

    pub(crate) fn perform(&mut self, shared: &Shared) {
        self.wakes.fire();
        self.watchers.drain(..).for_each(Waker::wake);
        if self.effects.budget_freed
            && let Some(budget) = &shared.context.budget
        {
            budget.wake();
        }
        for index in 0..self.effects.list.len() {
            let Some(effect) = self.effects.list.get(index) else { break };
            match effect {
                Effect::Write { link: Link::Stream { control, .. }, .. } => control.kick(),
                // A socket that is closed goes when nothing is left in it.
                Effect::Write { link: Link::Inproc(link), .. } if self.is_closing => link.push(),
                Effect::Write { link: Link::Inproc(link), .. } => link.offer(),
                Effect::Resume { link: Link::Stream { control, .. } } => control.resume(),
                Effect::Close { link: Link::Stream { control, .. }, .. } => {
                    control.close_within(Duration::ZERO)
                }
                Effect::Close { link: Link::Inproc(link), .. } => link.part(),
                Effect::Credit { link: Link::Inproc(link), credit } => {
                    if let Some((far, key, epoch)) = link.far() {
                        far.credit(key, epoch, *credit);
                    }
                }
                Effect::Limits { link: Link::Inproc(link), limits } => {
                    if let Some((far, key, epoch)) = link.far() {
                        far.far_limits(key, epoch, *limits);
                    }
                }
                Effect::Resume { link: Link::Inproc(link) } => link.resume(),
                Effect::Credit { link: Link::Stream { .. }, .. }
                | Effect::Limits { link: Link::Stream { .. }, .. }
                | Effect::WakeFor(_)
                | Effect::WakeAllFor(_) => {}
            }
        }
        let mut effects = std::mem::replace(&mut self.effects, Effects::new());
        effects.clear();
        let _ = SPARE_EFFECTS.try_with(|spare| spare.borrow_mut().push(effects));
    }
}

/// Keeps a socket open; dropping the last one closes it in the background (MQ-081).
pub(crate) struct Owner(Arc<Shared>);

impl Owner {
    pub(crate) fn new(context: &Context, kind: SocketType, options: Options) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(Shared::new(context, kind, options)?)))
    }

    /// See [`Shared::internal`].
    pub(crate) fn internal(context: &Context, kind: SocketType, options: Options) -> Result<Self> {
        Ok(Self(Shared::internal(context, kind, options)?))
    }
}

impl std::ops::Deref for Owner {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let linger = self.0.lock().options.linger;
        self.0.start_close(linger);
    }
}

/// Runs a future on the calling thread.
pub(crate) fn wait<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    block_on(future, None).unwrap_or(Err(Error::Timeout))
}
