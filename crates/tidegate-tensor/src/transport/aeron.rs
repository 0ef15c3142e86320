//! Aeron as the transport.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidegate_aeron as aeron;
use tidegate_shm::process::{ProcessHandle, ProcessId};

use super::{Connector, Message, OfferError, Pending, Publication, Subscription, Transport, TransportError};
use crate::channel::Channel;
use crate::ids::{AeronStreamId, SessionId};

/// How long Aeron's own thread sleeps. It only opens and closes endpoints and keeps the client alive; no frame waits for it.
const CONDUCTOR_IDLE: Duration = Duration::from_millis(16);

/// Connects to the media driver of a directory.
#[derive(Debug, Clone)]
pub struct AeronConnector {
    /// Directory of the media driver.
    pub dir: PathBuf,
    /// Name of the client in Aeron's counters.
    pub client_name: String,
    /// How long [`Connector::connect`] waits for the media driver to show itself; [`Connector::try_connect`] does not.
    pub connect_timeout: Duration,
    /// Drive Aeron's client by [`Transport::do_work`] instead of a thread of its own (TP-438).
    pub use_invoker: bool,
}

impl AeronConnector {
    /// Connects at once or not at all, with a thread of Aeron's own.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            client_name: "tidegate".to_owned(),
            connect_timeout: Duration::ZERO,
            use_invoker: false,
        }
    }
}

impl Connector for AeronConnector {
    fn connect(&self) -> Result<Box<dyn Transport>, TransportError> {
        self.connect_within(self.connect_timeout)
    }

    fn try_connect(&self) -> Result<Box<dyn Transport>, TransportError> {
        self.connect_within(Duration::ZERO)
    }
}

impl AeronConnector {
    fn connect_within(&self, timeout: Duration) -> Result<Box<dyn Transport>, TransportError> {
        let mut options = aeron::ClientOptions::new(&self.dir);
        options.name.clone_from(&self.client_name);
        options.connect_timeout = timeout;
        options.use_invoker = self.use_invoker;
        options.conductor_idle = CONDUCTOR_IDLE;
        let location = self.dir.display().to_string();
        let client = aeron::Client::connect(&options).map_err(|error| TransportError::Unreachable {
            location: location.clone(),
            reason: error.to_string(),
        })?;
        let process = DriverProcess::of(&self.dir);
        Ok(Box::new(AeronTransport { client, location, process }))
    }
}

struct AeronTransport {
    client: aeron::Client,
    location: String,
    process: Option<DriverProcess>,
}

/// The media driver's process. Aeron itself notices its death only after seconds without a heartbeat; the kernel knows at
/// once.
struct DriverProcess {
    handle: ProcessHandle,
    looked: Cell<Instant>,
    dead: Cell<bool>,
}

impl DriverProcess {
    /// Pause between two looks.
    const INTERVAL: Duration = Duration::from_millis(20);

    /// `None` when the process cannot be held, for example in another pid namespace; then only heartbeats tell.
    fn of(dir: &Path) -> Option<Self> {
        let pid = u32::try_from(aeron::driver_pid(dir)?).ok()?;
        if pid == std::process::id() {
            return None;
        }
        let handle = ProcessHandle::open(ProcessId::of(pid).ok()?).ok()?;
        Some(Self { handle, looked: Cell::new(Instant::now()), dead: Cell::new(false) })
    }

    fn is_dead(&self) -> bool {
        if !self.dead.get() && self.looked.get().elapsed() >= Self::INTERVAL {
            self.looked.set(Instant::now());
            self.dead.set(!self.handle.is_alive());
        }
        self.dead.get()
    }
}

struct AeronPending<T: aeron::Registrable>(aeron::Pending<T>);

struct AeronSubscription {
    subscription: aeron::Subscription,
    location: String,
}

struct PendingSubscription {
    pending: aeron::Pending<aeron::Subscription>,
    location: String,
}

impl Transport for AeronTransport {
    fn publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Publication>>>, TransportError> {
        let pending = self.client.add_publication_async(channel.as_str(), stream.get()).map_err(refusal)?;
        Ok(Box::new(AeronPending(pending)))
    }

    fn exclusive_publication(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Publication>>>, TransportError> {
        let pending =
            self.client.add_exclusive_publication_async(channel.as_str(), stream.get()).map_err(refusal)?;
        Ok(Box::new(AeronPending(pending)))
    }

    fn subscription(
        &self,
        channel: &Channel,
        stream: AeronStreamId,
    ) -> Result<Box<dyn Pending<Box<dyn Subscription>>>, TransportError> {
        let pending = self.client.add_subscription_async(channel.as_str(), stream.get()).map_err(refusal)?;
        Ok(Box::new(PendingSubscription { pending, location: self.location.clone() }))
    }

    fn do_work(&self) -> usize {
        self.client.do_work()
    }

    fn failure(&self) -> Option<TransportError> {
        if self.process.as_ref().is_some_and(DriverProcess::is_dead) {
            let reason = "its process died".to_owned();
            return Some(TransportError::Lost { location: self.location.clone(), reason });
        }
        self.client.is_closed().then(|| TransportError::Lost {
            location: self.location.clone(),
            reason: self.client.failure().map_or_else(|| "closed".to_owned(), |error| error.to_string()),
        })
    }
}

impl<A: aeron::LogAccess + 'static> Pending<Box<dyn Publication>> for AeronPending<aeron::PublicationOf<A>>
where
    aeron::PublicationOf<A>: aeron::Registrable + Send,
{
    fn poll(&mut self) -> Result<Option<Box<dyn Publication>>, TransportError> {
        let polled = self.0.poll().map_err(refusal)?;
        Ok(polled.map(|publication| Box::new(publication) as Box<dyn Publication>))
    }
}

impl Pending<Box<dyn Subscription>> for PendingSubscription {
    fn poll(&mut self) -> Result<Option<Box<dyn Subscription>>, TransportError> {
        let polled = self.pending.poll().map_err(refusal)?;
        Ok(polled.map(|subscription| {
            Box::new(AeronSubscription { subscription, location: self.location.clone() })
                as Box<dyn Subscription>
        }))
    }
}

impl<A: aeron::LogAccess> Publication for aeron::PublicationOf<A>
where
    Self: Send,
{
    fn offer(&mut self, message: &[u8]) -> Result<i64, OfferError> {
        aeron::PublicationOf::offer(self, message).map(|position| position.0).map_err(|error| match error {
            aeron::OfferError::BackPressured => OfferError::BackPressured,
            aeron::OfferError::NotConnected => OfferError::NotConnected,
            aeron::OfferError::AdminAction => OfferError::AdminAction,
            aeron::OfferError::Closed => OfferError::Closed,
            aeron::OfferError::MaxPositionExceeded => OfferError::MaxPosition,
            aeron::OfferError::TooLong { .. } => OfferError::TooLong,
            aeron::OfferError::Other(error) => OfferError::Other(error.code().unwrap_or(-1)),
            _ => OfferError::Other(-1),
        })
    }

    fn is_connected(&self) -> bool {
        aeron::PublicationOf::is_connected(self)
    }

    fn session(&self) -> SessionId {
        SessionId::new(self.session_id())
    }
}

impl Subscription for AeronSubscription {
    fn poll(&mut self, limit: usize, handler: &mut dyn FnMut(Message<'_>)) -> Result<usize, TransportError> {
        self.subscription
            .poll(limit, &mut |fragment| {
                handler(Message { bytes: fragment.data, session: SessionId::new(fragment.session_id) });
            })
            .map_err(|error| TransportError::Lost {
                location: self.location.clone(),
                reason: error.to_string(),
            })
    }

    fn has_image(&self, session: SessionId) -> bool {
        let mut sessions = Vec::new();
        self.subscription.image_sessions(&mut sessions);
        sessions.contains(&session.get())
    }

    fn image_count(&self) -> usize {
        self.subscription.image_count()
    }
}

fn refusal(error: aeron::AeronError) -> TransportError {
    let (channel, stream) = error
        .resource()
        .and_then(aeron::Resource::stream)
        .map_or((String::new(), AeronStreamId::new(0)), |(channel, stream)| {
            (channel.to_owned(), AeronStreamId::new(stream))
        });
    let reason = one_line(&error.to_string());
    if error.is_channel_conflict() {
        return TransportError::ChannelClash { channel, stream, reason };
    }
    if error.resource().is_none() {
        return TransportError::Lost { location: "its directory".to_owned(), reason };
    }
    TransportError::Refused { channel, stream, code: error.code().unwrap_or(-1), reason }
}

/// Aeron's text without the places in its sources.
fn one_line(text: &str) -> String {
    let causes = text.lines().map(|line| match line.split_once("] ") {
        Some((place, cause)) if place.starts_with('[') => cause,
        _ => line,
    });
    causes.collect::<Vec<_>>().join("; ")
}
