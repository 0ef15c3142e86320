//! Binding, connecting, and their ends (section 7.5 of the specification).

mod closing;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    task::{Wake, Waker},
    time::{Duration, Instant},
};

use tidegate_io::{
    engine::{BindAddress, Dial, Dialer, Listen, ListenError, Listener, Places},
    message::Part,
    peer::{Epoch, PeerKey},
};

use super::{
    Inner, Link, Shared,
    addresses::{bind_address, endpoint_error, listen_error, resolved, target},
};
use crate::{
    endpoint::{BindEndpoint, ConnectEndpoint},
    error::{Error, Result},
    inproc::{InprocLink, check_types},
    monitor::Monitor,
    options::Options,
    state::{SocketType, Unread},
    timer::Timer,
    wire::{Accepting, Connecting, Plan},
    zap,
};

/// What a socket is bound and connected to.
#[derive(Default)]
pub(crate) struct Endpoints {
    bound: Vec<Bound>,
    connected: Vec<Connected>,
    /// Those that were given up before they had sent all that is queued for them (MQ-275).
    leaving: Vec<Leaving>,
    last: String,
    /// Numbers endpoints, so that connections can say where they belong.
    next: u64,
    /// Pipes of established connections, by the endpoint they belong to.
    pipes: HashMap<u64, Vec<(PeerKey, Epoch)>>,
    /// Where accepted streams count (MQ-262).
    places: Places,
}

struct Bound {
    endpoint: String,
    number: u64,
    place: BoundPlace,
}

enum BoundPlace {
    Listener(Listener),
    /// Under this name.
    Inproc(String),
}

struct Connected {
    endpoint: String,
    number: u64,
    /// The pipe that outlives connections, and its stamp; none with `immediate`.
    pipe: Option<(PeerKey, Epoch)>,
    place: ConnectedPlace,
    /// Makes the connections that are dialed.
    connecting: Option<Arc<Connecting>>,
}

enum ConnectedPlace {
    Dialer(Dialer),
    /// To this name.
    Inproc(String),
}

struct Leaving {
    number: u64,
    /// Until it has its last connection, which ends it.
    pipe: Option<(PeerKey, Epoch)>,
    place: ConnectedPlace,
    /// Ends it when its linger time is over.
    timer: Option<Timer>,
}

impl Endpoints {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A connection of this endpoint is established.
    pub(crate) fn pipe_up(&mut self, number: u64, key: PeerKey, epoch: Epoch) {
        self.pipes.entry(number).or_default().push((key, epoch));
        if let Some(leaving) = self.leaving.iter_mut().find(|leaving| leaving.number == number) {
            leaving.pipe = None;
        }
    }

    pub(crate) fn pipe_down(&mut self, number: u64, key: PeerKey, epoch: Epoch) {
        if let Some(pipes) = self.pipes.get_mut(&number) {
            pipes.retain(|pipe| *pipe != (key, epoch));
            if pipes.is_empty() {
                self.pipes.remove(&number);
            }
        }
    }

    pub(crate) fn is_inproc_connected(&self, pipe: (PeerKey, Epoch)) -> bool {
        self.connected.iter().any(|connected| {
            connected.pipe == Some(pipe) && matches!(connected.place, ConnectedPlace::Inproc(_))
        })
    }

    /// Whether the pipe waits for a name only to send what is queued.
    pub(crate) fn is_inproc_leaving(&self, pipe: (PeerKey, Epoch)) -> bool {
        self.leaving
            .iter()
            .any(|leaving| leaving.pipe == Some(pipe) && matches!(leaving.place, ConnectedPlace::Inproc(_)))
    }

    /// The pipe has found its name.
    pub(crate) fn inproc_left(&mut self, pipe: (PeerKey, Epoch)) {
        self.leaving.retain(|leaving| {
            leaving.pipe != Some(pipe) || !matches!(leaving.place, ConnectedPlace::Inproc(_))
        });
    }

    /// Keeps an endpoint for what is queued on its pipe.
    fn leave(&mut self, Connected { number, pipe, place, .. }: Connected) {
        if let ConnectedPlace::Dialer(dialer) = &place {
            dialer.finish();
        }
        self.leaving.push(Leaving { number, pipe, place, timer: None });
    }

    fn take_leaving(&mut self, number: u64) -> Option<Leaving> {
        let index = self.leaving.iter().position(|leaving| leaving.number == number)?;
        Some(self.leaving.swap_remove(index))
    }
}

impl Shared {
    pub(crate) async fn bind(&self, endpoint: &str) -> Result<String> {
        let parsed: BindEndpoint = endpoint.parse().map_err(endpoint_error)?;
        let this = self.arc()?;
        let (number, options) = {
            let mut inner = self.lock();
            inner.phase.check()?;
            (inner.endpoints.number(), inner.options.clone())
        };
        options.check(self.kind)?;
        options.warn(self.kind);
        if let BindEndpoint::Inproc(name) = parsed {
            let bound =
                Bound { endpoint: endpoint.to_owned(), number, place: BoundPlace::Inproc(name.clone()) };
            self.lock().endpoints.bound.push(bound);
            if let Err(error) = self.context.names.bind(&name, &this) {
                self.lock().endpoints.bound.retain(|bound| bound.number != number);
                return Err(error);
            }
            let mut inner = self.lock();
            inner.endpoints.last = endpoint.to_owned();
            if zap::is_handler(endpoint) {
                // No handshake fails because the application has much queued.
                inner.state.end_share();
            }
            self.finish(inner);
            return Ok(endpoint.to_owned());
        }
        let address = match self.lock().options.use_fd.take() {
            Some(fd) => BindAddress::Adopted(fd.try_clone().map_err(|source| Error::System {
                what: format!("{endpoint}: cannot take over the listening socket"),
                source,
            })?),
            None => bind_address(parsed),
        };
        let mut listen = Listen::new(address);
        listen.options = options.stream();
        listen.limits = options.listen_limits();
        listen.places = self.lock().endpoints.places.at_most(options.most_connections());
        listen.workers = options.affinity;
        let engine = self.context.engine(endpoint)?;
        let plan = Plan::new(&this, number, endpoint, &options, true)?;
        let accepting = Arc::new(Accepting::new(plan));
        let listener = engine.listen(listen, accepting).map_err(|error| listen_error(endpoint, error))?;
        let resolved = resolved(listener.local_address());
        let mut inner = self.lock();
        inner.endpoints.last.clone_from(&resolved);
        inner.endpoints.bound.push(Bound {
            endpoint: resolved.clone(),
            number,
            place: BoundPlace::Listener(listener),
        });
        Ok(resolved)
    }

    pub(crate) fn connect(&self, endpoint: &str) -> Result<()> {
        let parsed: ConnectEndpoint = endpoint.parse().map_err(endpoint_error)?;
        let this = self.arc()?;
        let mut inner = self.lock();
        inner.phase.check()?;
        inner.options.check(self.kind)?;
        inner.options.warn(self.kind);
        let once =
            matches!(self.kind, SocketType::Req | SocketType::Dealer | SocketType::Pub | SocketType::Sub);
        let is_connected = inner.endpoints.connected.iter().any(|connected| connected.endpoint == endpoint);
        // One that was given up is taken up again instead of having another one beside it.
        if (once && is_connected) || inner.is_given_up(endpoint) {
            drop(inner);
            return self.retry(endpoint);
        }
        let number = inner.endpoints.number();
        let options = inner.options.clone();
        let routing_id = options.connect_routing_id.as_ref().map(|id| Part::copy_from(id.as_bytes()));
        if let ConnectEndpoint::Inproc(name) = &parsed {
            drop(inner);
            if let Some(bound) = self.context.names.bound(name) {
                check_types(endpoint, self.kind, bound.kind)?;
            }
            inner = self.lock();
        }
        // With `immediate` there is no pipe before there is a connection. An in-process link has one always.
        let is_inproc = matches!(parsed, ConnectEndpoint::Inproc(_));
        let mut assigned = None;
        let pipe = if options.immediate && !is_inproc {
            assigned = routing_id;
            None
        } else {
            let opened = inner.state.open_pipe(routing_id);
            let key = opened.map_err(|_| Error::AddressInUse("connect_routing_id".into()))?;
            Some((key, inner.state.born(key)))
        };
        inner.options.connect_routing_id = None;
        endpoint.clone_into(&mut inner.endpoints.last);
        if let ConnectEndpoint::Inproc(name) = parsed {
            inner.endpoints.connected.push(Connected {
                endpoint: endpoint.to_owned(),
                number,
                pipe,
                place: ConnectedPlace::Inproc(name.clone()),
                connecting: None,
            });
            self.finish(inner);
            if let Some(pipe) = pipe {
                self.context.names.wait_for(&name, &this, pipe);
            }
            return Ok(());
        }
        self.finish(inner);
        let started = self.dial(endpoint, parsed, &this, number, pipe, assigned, &options);
        let mut inner = self.lock();
        match started {
            Ok((dialer, connecting)) => inner.endpoints.connected.push(Connected {
                endpoint: endpoint.to_owned(),
                number,
                pipe,
                place: ConnectedPlace::Dialer(dialer),
                connecting: Some(connecting),
            }),
            Err(error) => {
                if let Some((key, _)) = pipe {
                    inner.state.remove_pipe(key, Unread::Discard);
                }
                self.finish(inner);
                return Err(error);
            }
        }
        self.finish(inner);
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "one call, each of another kind")]
    fn dial(
        &self,
        endpoint: &str,
        parsed: ConnectEndpoint,
        this: &Arc<Self>,
        number: u64,
        pipe: Option<(PeerKey, Epoch)>,
        assigned: Option<Part>,
        options: &Options,
    ) -> Result<(Dialer, Arc<Connecting>)> {
        let engine = self.context.engine(endpoint)?;
        let mut dial = Dial::new(target(parsed));
        dial.options = options.stream();
        dial.backoff = options.backoff();
        dial.connect_timeout = options.connect_timeout.filter(|timeout| !timeout.is_zero());
        dial.workers = options.affinity;
        let plan = Plan::new(this, number, endpoint, options, false)?;
        let connecting = Arc::new(Connecting::new(plan, pipe, assigned));
        let dialer = engine
            .dial(dial, connecting.clone())
            .map_err(|error| listen_error(endpoint, ListenError::Engine(error)))?;
        Ok((dialer, connecting))
    }

    pub(crate) async fn connect_ready(&self, endpoint: &str, timeout: Duration) -> Result<()> {
        self.connect(endpoint)?;
        self.watch(timeout, |inner| match inner.is_up(endpoint) {
            true => Some(Ok(())),
            false => inner.is_given_up(endpoint).then(|| Err(Error::Stopped(endpoint.to_owned()))),
        })
        .await
    }

    pub(crate) fn unbind(&self, endpoint: &str, keep: bool) -> Result<()> {
        let mut inner = self.lock();
        let Some(index) = inner.endpoints.bound.iter().position(|bound| bound.endpoint == endpoint) else {
            return Err(Error::NotFound(endpoint.to_owned()));
        };
        let bound = inner.endpoints.bound.swap_remove(index);
        let linger = inner.options.linger;
        if !keep {
            for (key, _) in inner.endpoints.pipes.get(&bound.number).cloned().unwrap_or_default() {
                inner.state.detach_pipe(key, Unread::Keep);
            }
        }
        self.finish(inner);
        match bound.place {
            BoundPlace::Listener(listener) if keep => listener.close_keep(),
            BoundPlace::Listener(listener) => listener.close(linger),
            // As with libzmq, links that exist stay.
            BoundPlace::Inproc(name) => self.context.names.unbind(&name, self),
        }
        Ok(())
    }

    pub(crate) fn disconnect(&self, endpoint: &str) -> Result<()> {
        self.push_inproc();
        let mut inner = self.lock();
        let linger = inner.options.linger;
        let endpoints = &mut inner.endpoints;
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut endpoints.connected)
            .into_iter()
            .partition(|connected| connected.endpoint == endpoint);
        endpoints.connected = stay;
        if gone.is_empty() {
            return Err(Error::NotFound(endpoint.to_owned()));
        }
        let mut links = Vec::new();
        let mut ended = Vec::new();
        let mut leaving = Vec::new();
        for connected in gone {
            let up = inner.endpoints.pipes.get(&connected.number).cloned().unwrap_or_default();
            for (key, _) in &up {
                inner.state.detach_pipe(*key, Unread::Discard);
            }
            if let Some((key, _)) = connected.pipe
                && up.is_empty()
            {
                let link = inner.state.link(key).and_then(Link::inproc).cloned();
                inner.state.detach_pipe(key, Unread::Discard);
                if link.is_none() && linger != Some(Duration::ZERO) && inner.state.queued(key) > 0 {
                    leaving.push(connected.number);
                    inner.endpoints.leave(connected);
                    continue;
                }
                links.extend(link);
                inner.state.remove_pipe(key, Unread::Discard);
            }
            ended.push(connected);
        }
        self.finish(inner);
        for Connected { pipe, place, .. } in ended {
            self.end_place(place, pipe, linger);
        }
        links.iter().for_each(InprocLink::part);
        leaving.into_iter().for_each(|number| self.limit_leaving(number, linger));
        Ok(())
    }

    /// Has an endpoint that is leaving give up when the linger time is over.
    fn limit_leaving(&self, number: u64, linger: Option<Duration>) {
        let Some(mut timer) = self.context.timer(linger) else { return };
        let (socket, due) = (self.weak(), timer.due());
        let waker = Waker::from(Arc::new(GiveUp { socket, number, due }));
        if timer.is_over(&waker) {
            return self.give_up(number);
        }
        let mut inner = self.lock();
        if let Some(leaving) = inner.endpoints.leaving.iter_mut().find(|leaving| leaving.number == number) {
            leaving.timer = Some(timer);
        }
    }

    /// An endpoint that was leaving is gone, or shall be.
    pub(crate) fn give_up(&self, number: u64) {
        let mut inner = self.lock();
        let Some(Leaving { pipe, place, .. }) = inner.endpoints.take_leaving(number) else { return };
        if let Some((key, _)) = pipe {
            inner.state.remove_pipe(key, Unread::Discard);
        }
        inner.wake_watchers();
        self.finish(inner);
        self.end_place(place, pipe, Some(Duration::ZERO));
    }

    pub(crate) fn retry(&self, endpoint: &str) -> Result<()> {
        let this = self.arc()?;
        let mut inner = self.lock();
        inner.options.check(self.kind)?;
        let Inner { endpoints, state, options, .. } = &mut *inner;
        let mut found = false;
        for connected in endpoints.connected.iter().filter(|connected| connected.endpoint == endpoint) {
            found = true;
            if let Some(connecting) = &connected.connecting {
                connecting.renew(Plan::new(&this, connected.number, endpoint, options, false)?);
            }
            // At once: who sends next need not wait for the engine.
            if let Some((key, _)) = connected.pipe {
                state.end_idle(key);
            }
            if let ConnectedPlace::Dialer(dialer) = &connected.place {
                dialer.retry();
            }
        }
        self.finish(inner);
        if found { Ok(()) } else { Err(Error::NotFound(endpoint.to_owned())) }
    }

    /// Whether nobody dials for an endpoint: its pipe, if it has one, takes nothing then. The stamp tells the pipe from
    /// others under its key.
    pub(crate) fn set_idle(&self, pipe: Option<(PeerKey, Epoch)>, idle: bool) {
        let mut inner = self.lock();
        if let Some((key, born)) = pipe
            && inner.state.born(key) == born
        {
            if idle { inner.state.set_idle(key) } else { inner.state.end_idle(key) }
        }
        inner.wake_watchers();
        self.finish(inner);
    }

    pub(crate) fn last_endpoint(&self) -> String {
        self.lock().endpoints.last.clone()
    }

    pub(crate) fn options(&self) -> Options {
        self.lock().options.clone()
    }

    pub(crate) fn set_options(&self, change: impl FnOnce(&mut Options) -> Result<()>) -> Result<()> {
        let mut inner = self.lock();
        let mut options = inner.options.clone();
        change(&mut options)?;
        options.check_values(self.kind)?;
        let settings = options.settings(self.kind);
        inner.options = options;
        inner.state.configure(|old| *old = settings);
        self.finish(inner);
        Ok(())
    }

    pub(crate) fn monitor(&self) -> Monitor {
        self.monitors.add()
    }
}

/// Ends an endpoint that is leaving when its time is over.
struct GiveUp {
    socket: Weak<Shared>,
    number: u64,
    due: Instant,
}

impl Wake for GiveUp {
    fn wake(self: Arc<Self>) {
        // Before its time it is called when the system has no thread for timers: then the endpoint goes with its socket.
        if Instant::now() >= self.due
            && let Some(socket) = self.socket.upgrade()
        {
            socket.give_up(self.number);
        }
    }
}

impl Inner {
    /// Whether waiting senders wait for the pipes that their messages are for, and so do not stand in each other's way.
    pub(super) fn senders_wait_for_pipes(&self) -> bool {
        matches!(self.state.kind(), SocketType::Router | SocketType::Pub | SocketType::XPub)
    }

    /// Whether an endpoint has an established connection.
    fn is_up(&self, endpoint: &str) -> bool {
        let connected = self.endpoints.connected.iter().filter(|connected| connected.endpoint == endpoint);
        connected.into_iter().any(|Connected { number, pipe, place, .. }| match place {
            ConnectedPlace::Dialer(_) => self.endpoints.pipes.contains_key(number),
            ConnectedPlace::Inproc(_) => pipe.is_some_and(|(key, _)| self.state.link(key).is_some()),
        })
    }

    /// Whether nobody dials an endpoint any more.
    fn is_given_up(&self, endpoint: &str) -> bool {
        let mut connected =
            self.endpoints.connected.iter().filter(|connected| connected.endpoint == endpoint);
        connected.any(|Connected { connecting, .. }| {
            connecting.as_ref().is_some_and(|connecting| connecting.is_given_up())
        })
    }

    fn has_streams(&self) -> bool {
        self.state.links().any(|link| link.stream().is_some())
    }
}
