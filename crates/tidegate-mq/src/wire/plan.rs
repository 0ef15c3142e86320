//! What the connections of one endpoint have in common, and how they are made.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use bytes::BytesMut;
use tidegate_io::{
    batch::WriteBatch,
    engine::{AcceptFailure, Acceptor, Dialing, StreamAddress, StreamEvent, Traffic},
    message::Part,
    peer::PeerKey,
    protocol::{Connection, Control, Ended, Flow, Retry, StreamInfo},
};
use tidegate_zmtp::config::SessionConfig;

use super::Wire;
use crate::{
    auth::Asker,
    error::Result,
    monitor::{Event, EventKind},
    options::{Admission, Options},
    shared::{Shared, resolved},
    state::Origin,
};

/// What the connections of one endpoint have in common.
pub(crate) struct Plan {
    pub(super) socket: Weak<Shared>,
    pub(super) number: u64,
    pub(super) endpoint: Mutex<Arc<str>>,
    pub(super) session: Arc<SessionConfig>,
    pub(super) asker: Asker,
    pub(super) origin: Origin,
    /// Whether queues of dialed connections end with them.
    pub(super) immediate: bool,
    pub(super) auth_retry: bool,
    pub(super) admission: Admission,
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
            number,
            endpoint: Mutex::new(endpoint.into()),
            session: options.session(socket.kind, accepted)?,
            asker: Asker::new(&socket.context, options),
            origin: if accepted { Origin::Accepted } else { Origin::Dialed },
            immediate: options.immediate,
            auth_retry: options.auth_retry_ivl.is_some(),
            admission: options.admission(),
        })
    }

    pub(super) fn endpoint(&self) -> Arc<str> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn report(&self, peer: Option<&StreamAddress>, kind: EventKind) {
        if let Some(socket) = self.socket.upgrade() {
            socket.monitors.report(|| Event {
                endpoint: self.endpoint().as_ref().to_owned(),
                peer_address: peer.map(ToString::to_string),
                is_bound: self.origin == Origin::Accepted,
                kind,
            });
        }
    }

    pub(super) fn stream_event(&self, event: &StreamEvent<'_>) {
        let errno = |error: &std::io::Error| error.raw_os_error().unwrap_or(0);
        match event {
            StreamEvent::Listening { fd, address } => {
                // From now on with the address that the system chose.
                let endpoint = resolved(address).into();
                *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = endpoint;
                self.report(None, EventKind::Listening(*fd));
            }
            StreamEvent::BindFailed(error) => self.report(None, EventKind::BindFailed(error.errno())),
            StreamEvent::Accepted(stream) => self.report(Some(&stream.peer), EventKind::Accepted(stream.fd)),
            StreamEvent::AcceptFailed(failure) => self.report(
                None,
                EventKind::AcceptFailed(match failure {
                    AcceptFailure::System { error, .. }
                    | AcceptFailure::Fatal(error)
                    | AcceptFailure::Setup(error) => errno(error),
                    _ => 0,
                }),
            ),
            StreamEvent::ListenerClosed { fd } => self.report(None, EventKind::Closed(*fd)),
            StreamEvent::ResolveFailed(error) => self.report(None, EventKind::ConnectFailed(errno(error))),
            StreamEvent::ConnectDelayed { address, .. } => {
                self.report(Some(address), EventKind::ConnectDelayed)
            }
            StreamEvent::ConnectFailed { address, error, fd } => {
                self.report(Some(address), EventKind::ConnectFailed(errno(error)));
                self.report(Some(address), EventKind::Closed(fd.unwrap_or(-1)));
            }
            StreamEvent::Connected(stream) => {
                self.report(Some(&stream.peer), EventKind::Connected(stream.fd))
            }
            StreamEvent::Disconnected { stream, traffic: Traffic { received, sent }, .. } => self.report(
                Some(&stream.peer),
                EventKind::Disconnected { fd: stream.fd, received: *received, sent: *sent },
            ),
            StreamEvent::Retried { delay } => self.report(None, EventKind::ConnectRetried(*delay)),
            StreamEvent::Stopped | StreamEvent::Refused => self.report(None, EventKind::Stopped),
            _ => {}
        }
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
    plan: Arc<Plan>,
    pipe: Option<PeerKey>,
    assigned: Option<Part>,
}

impl Connecting {
    pub(crate) fn new(plan: Plan, pipe: Option<PeerKey>, assigned: Option<Part>) -> Self {
        Self { plan: Arc::new(plan), pipe, assigned }
    }
}

impl Dialing for Connecting {
    fn connect(&self, _stream: &StreamInfo) -> Box<dyn Connection> {
        match self.plan.socket.upgrade() {
            Some(socket) => Box::new(Wire::new(self.plan.clone(), socket, self.pipe, self.assigned.clone())),
            None => Box::new(Orphan),
        }
    }

    fn event(&self, event: &StreamEvent<'_>) {
        self.plan.stream_event(event);
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
