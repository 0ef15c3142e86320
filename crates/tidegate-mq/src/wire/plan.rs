//! What the connections of one endpoint have in common, and how they are made.

use std::{
    io::ErrorKind,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tidegate_io::{
    batch::WriteBatch,
    engine::{AcceptFailure, Acceptor, Dialing, StreamAddress, StreamEvent},
    message::Part,
    peer::{Epoch, PeerKey},
    protocol::{Connection, Control, Ended, Flow, Retry, StreamInfo},
    sync::{AtomicBool, Ordering},
};
use tidegate_zmtp::config::SessionConfig;

use super::Wire;
use crate::{
    auth::Asker,
    error::Result,
    monitor::{Event, EventKind, Monitors, NotAccepted},
    options::{Admission, Options},
    peer::Peer,
    shared::{Shared, resolved},
    state::{Origin, PeerInfo},
};

/// What the connections of one endpoint have in common.
pub(crate) struct Plan {
    pub(super) socket: Weak<Shared>,
    /// By itself, because a listener or dialer tells of its end when the socket may be gone.
    monitors: Arc<Monitors>,
    pub(super) number: u64,
    pub(super) endpoint: Mutex<Arc<str>>,
    pub(super) session: Arc<SessionConfig>,
    pub(super) asker: Asker,
    pub(super) origin: Origin,
    /// Whether queues of dialed connections end with them.
    pub(super) immediate: bool,
    /// Time after which a connection is tried again that was refused for who we are.
    pub(super) auth_retry: Option<Duration>,
    pub(super) admission: Admission,
    /// Bytes read at once, and bytes of small messages written at once (MQ-052).
    pub(super) in_batch: usize,
    pub(super) out_batch: usize,
}

impl Plan {
    pub(crate) fn new(
        socket: &Arc<Shared>,
        number: u64,
        endpoint: &str,
        options: &Options,
        accepted: bool,
    ) -> Result<Self> {
        Ok(Self {
            socket: Arc::downgrade(socket),
            monitors: socket.monitors.clone(),
            number,
            endpoint: Mutex::new(endpoint.into()),
            session: options.session(socket.kind, accepted)?,
            asker: Asker::new(&socket.context, options),
            origin: if accepted { Origin::Accepted } else { Origin::Dialed },
            immediate: options.immediate,
            auth_retry: options.auth_retry_ivl.filter(|time| !time.is_zero()),
            admission: options.admission(),
            in_batch: options.in_batch_size as usize,
            out_batch: options.out_batch_size as usize,
        })
    }

    pub(super) fn endpoint(&self) -> Arc<str> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn report(&self, about: About<'_>, kind: EventKind) {
        self.monitors.report(|| Event {
            peer_address: about.remote.map(ToString::to_string),
            local_address: about.local.map(ToString::to_string),
            peer: about.peer.cloned().map(Peer::new),
            ..Event::new(self.endpoint().as_ref().to_owned(), self.origin == Origin::Accepted, kind)
        });
    }

    pub(super) fn stream_event(&self, event: &StreamEvent<'_>) {
        let errno = |error: &std::io::Error| match (error.raw_os_error(), error.kind()) {
            (Some(errno), _) => errno,
            // By our own clock.
            (None, ErrorKind::TimedOut) => 110,
            (None, _) => 0,
        };
        match event {
            StreamEvent::Listening { fd, address } => {
                // From now on with the address that the system chose.
                let endpoint = resolved(address).into();
                *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = endpoint;
                self.report(About::default(), EventKind::Listening(*fd));
            }
            StreamEvent::BindFailed(error) => {
                self.report(About::default(), EventKind::BindFailed(error.errno()));
            }
            StreamEvent::Accepted(stream) => {
                self.report(About::stream(stream), EventKind::Accepted(stream.fd));
            }
            StreamEvent::AcceptFailed(failure) => {
                let (remote, why) = match failure {
                    AcceptFailure::System { error, .. }
                    | AcceptFailure::Fatal(error)
                    | AcceptFailure::Setup(error) => (None, NotAccepted::System(errno(error))),
                    AcceptFailure::TooMany { peer } => (Some(peer), NotAccepted::TooManyConnections),
                    AcceptFailure::Displaced { peer } => (Some(peer), NotAccepted::Displaced),
                    AcceptFailure::Unwanted { peer } => (Some(peer), NotAccepted::Filtered),
                    _ => (None, NotAccepted::System(0)),
                };
                self.report(About { remote, ..About::default() }, EventKind::AcceptFailed(why));
            }
            StreamEvent::ListenerClosed { fd } => self.report(About::default(), EventKind::Closed(*fd)),
            StreamEvent::CloseFailed(error) => {
                self.report(About::default(), EventKind::CloseFailed(errno(error)));
            }
            StreamEvent::ResolveFailed(error) => {
                self.report(About::default(), EventKind::ConnectFailed(errno(error)));
            }
            StreamEvent::ConnectDelayed { address, .. } => {
                self.report(About::address(address), EventKind::ConnectDelayed);
            }
            StreamEvent::ConnectFailed { address, error, fd } => {
                self.report(About::address(address), EventKind::ConnectFailed(errno(error)));
                self.report(About::address(address), EventKind::Closed(fd.unwrap_or(-1)));
            }
            StreamEvent::Connected(stream) => {
                self.report(About::stream(stream), EventKind::Connected(stream.fd));
            }
            StreamEvent::Retried { delay } => {
                self.report(About::default(), EventKind::ConnectRetried(*delay));
            }
            StreamEvent::Stopped | StreamEvent::Refused => self.report(About::default(), EventKind::Stopped),
            // The connection knows more of its end than the engine, and reports it itself.
            _ => {}
        }
    }
}

/// What an event is about, beside the endpoint.
#[derive(Clone, Copy, Default)]
pub(super) struct About<'a> {
    pub(super) local: Option<&'a StreamAddress>,
    pub(super) remote: Option<&'a StreamAddress>,
    pub(super) peer: Option<&'a Arc<PeerInfo>>,
}

impl<'a> About<'a> {
    fn address(remote: &'a StreamAddress) -> Self {
        Self { remote: Some(remote), ..Self::default() }
    }

    pub(super) fn stream(stream: &'a StreamInfo) -> Self {
        Self { local: Some(&stream.local), remote: Some(&stream.peer), peer: None }
    }
}

/// Makes connections of streams that come in.
pub(crate) struct Accepting(Arc<Plan>);

impl Accepting {
    pub(crate) fn new(plan: Plan) -> Self {
        Self(Arc::new(plan))
    }
}

impl Acceptor for Accepting {
    fn accept(&self, stream: &StreamInfo) -> Option<Box<dyn Connection>> {
        if !self.0.admission.admits(stream) {
            return None;
        }
        let socket = self.0.socket.upgrade()?;
        Some(Box::new(Wire::new(self.0.clone(), socket, None, None)))
    }

    fn event(&self, event: &StreamEvent<'_>) {
        self.0.stream_event(event);
    }
}

/// Makes connections of streams that were dialed.
pub(crate) struct Connecting {
    plan: Mutex<Arc<Plan>>,
    /// With its stamp.
    pipe: Option<(PeerKey, Epoch)>,
    assigned: Option<Part>,
    /// Nobody dials, until that is asked for. Known here as well, because with `immediate` there is no pipe to tell it.
    is_given_up: AtomicBool,
}

impl Connecting {
    pub(crate) fn new(plan: Plan, pipe: Option<(PeerKey, Epoch)>, assigned: Option<Part>) -> Self {
        Self { plan: Mutex::new(Arc::new(plan)), pipe, assigned, is_given_up: AtomicBool::new(false) }
    }

    /// Whether nobody dials any more. Changes of it wake those who watch the socket.
    pub(crate) fn is_given_up(&self) -> bool {
        // Relaxed: who asks holds the socket's lock, which is taken after each change.
        self.is_given_up.load(Ordering::Relaxed)
    }

    fn set_given_up(&self, socket: &Shared, is_given_up: bool) {
        self.is_given_up.store(is_given_up, Ordering::Relaxed);
        socket.set_idle(self.pipe, is_given_up);
    }

    /// Takes what later connections are made by: who was refused may show other credentials (MQ-280). There will be
    /// some: it is dialed again.
    pub(crate) fn renew(&self, plan: Plan) {
        self.is_given_up.store(false, Ordering::Relaxed);
        let mut place = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether there is a pipe without a connection was decided when the endpoint was made.
        *place = Arc::new(Plan { immediate: place.immediate, ..plan });
    }

    fn plan(&self) -> Arc<Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Dialing for Connecting {
    fn connect(&self, _stream: &StreamInfo) -> Box<dyn Connection> {
        let plan = self.plan();
        match plan.socket.upgrade() {
            Some(socket) => Box::new(Wire::new(plan, socket, self.pipe, self.assigned.clone())),
            None => Box::new(Orphan),
        }
    }

    fn event(&self, event: &StreamEvent<'_>) {
        let plan = self.plan();
        // Before it is reported: who is told of it finds it so.
        match (plan.socket.upgrade(), event) {
            (Some(socket), StreamEvent::Removed) => socket.give_up(plan.number),
            (Some(socket), StreamEvent::Stopped | StreamEvent::Refused) => self.set_given_up(&socket, true),
            // Also when it goes on because it was told to.
            (Some(socket), StreamEvent::Retried { .. }) => self.set_given_up(&socket, false),
            _ => {}
        }
        plan.stream_event(event);
    }
}

/// The connection of a socket that is gone: closes at once.
struct Orphan;

impl Connection for Orphan {
    fn opened(&mut self, _stream: &StreamInfo, _control: Control, _now: Instant) -> Flow {
        Flow::Abort
    }

    fn received(&mut self, _bytes: BytesMut, _now: Instant) -> Flow {
        Flow::Abort
    }

    fn fill(&mut self, _batch: &mut WriteBatch, _now: Instant) -> Flow {
        Flow::Abort
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn expired(&mut self, _now: Instant) -> Flow {
        Flow::Abort
    }

    fn closed(&mut self, _why: &Ended, _now: Instant) -> Retry {
        Retry::Never
    }
}
