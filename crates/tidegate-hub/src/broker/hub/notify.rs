//! Events of the broker, and notifications from producers to consumers (14). All of it is a hint: whoever misses one
//! looks at the block a little later (DH-215).

use std::{
    mem::offset_of,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tidegate_mq::{
    Context, Error, Message, Pub, PublicKey, SecretKey, SocketType, Sub,
    options::{CurveOptions, CurvePolicy, Mechanism},
    socket::Interest,
};
use tidegate_shm::{region::RecordMut, sync::Ordering};

use super::link::Link;
use crate::{
    block::PAGE_RECORD,
    broker::{
        error::HubError,
        wire::{ChannelName, Event, Notification},
    },
    layout::pages::MetricsPage,
};

/// Notifications that wait for a slow consumer; then they are dropped (DH-216).
const HIGH_WATER: u32 = 64;

pub(super) fn subscribe(
    context: &Context,
    endpoint: &str,
    topic: &[u8],
    mechanism: Mechanism,
) -> Result<Sub, HubError> {
    let failed = |source| HubError::Transport { endpoint: endpoint.to_owned(), source };
    let mut options = context.default_options(SocketType::Sub);
    options.rcvhwm = HIGH_WATER;
    options.maxmsgsize = Some(2 * crate::broker::wire::MAX_BODY as u64);
    options.reconnect_ivl = Some(Duration::from_millis(50));
    options.reconnect_ivl_max = Duration::from_millis(500);
    options.auth_retry_ivl = Some(Duration::from_secs(1));
    options.mechanism = mechanism;
    let sub = Sub::with_options(context, options).map_err(failed)?;
    sub.subscribe(topic).map_err(failed)?;
    sub.connect(endpoint).map_err(failed)?;
    Ok(sub)
}

/// Receives until `pick` takes something or the time is over.
fn receive<T>(
    (sub, endpoint, link): (&Sub, &str, &Link),
    timeout: Duration,
    pick: impl Fn(&Message) -> Option<T>,
) -> Result<Option<T>, HubError> {
    link.check_process()?;
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match sub.ready_blocking(Interest::Receive, Some(left)) {
            Ok(_) => {}
            Err(Error::Timeout) => return Ok(None),
            Err(source) => {
                link.count(|counters| counters.zmq_recv_failures += 1);
                return Err(HubError::Transport { endpoint: endpoint.to_owned(), source });
            }
        }
        let Ok(message) = sub.try_recv() else { continue };
        match pick(&message) {
            Some(picked) => return Ok(Some(picked)),
            None => link.count(|counters| counters.zmq_recv_failures += 1),
        }
    }
}

/// Events of one channel, from the broker.
#[derive(Debug)]
pub struct EventStream {
    sub: Sub,
    endpoint: String,
    channel: ChannelName,
    link: Arc<Link>,
}

impl EventStream {
    pub(super) fn new(sub: Sub, endpoint: &str, channel: ChannelName, link: Arc<Link>) -> Self {
        Self { sub, endpoint: endpoint.to_owned(), channel, link }
    }

    /// The next event; `None` when there is none in that time. What cannot be read is counted and left out.
    ///
    /// # Errors
    /// [`HubError::Forked`], [`HubError::Transport`].
    pub fn recv_with_timeout(&self, timeout: Duration) -> Result<Option<Event>, HubError> {
        receive((&self.sub, &self.endpoint, &self.link), timeout, |message| {
            // A subscription is to a prefix: `hub/a` hears of `hub/ab` too.
            Event::decode(message).filter(|(channel, _)| *channel == self.channel).map(|(_, event)| event)
        })
    }
}

/// Notifications of one channel, from its producer.
#[derive(Debug)]
pub struct Notifications {
    sub: Sub,
    endpoint: String,
    channel: ChannelName,
    link: Arc<Link>,
}

impl Notifications {
    pub(super) fn new(sub: Sub, endpoint: &str, channel: ChannelName, link: Arc<Link>) -> Self {
        Self { sub, endpoint: endpoint.to_owned(), channel, link }
    }

    /// The next notification; `None` when there is none in that time: look at the block then (DH-215).
    ///
    /// # Errors
    /// [`HubError::Forked`], [`HubError::Transport`].
    pub fn recv_with_timeout(&self, timeout: Duration) -> Result<Option<Notification>, HubError> {
        receive((&self.sub, &self.endpoint, &self.link), timeout, |message| {
            Notification::decode(message)
                .filter(|(channel, _)| *channel == self.channel)
                .map(|(_, notice)| notice)
        })
    }
}

/// How often a producer notifies (DH-217).
#[derive(Clone, Debug)]
pub struct NotifierConfig {
    /// The channel.
    pub channel: ChannelName,
    /// Every so many commits; 1 is each.
    pub notify_every: u32,
    /// And not more often than this.
    pub notify_min_interval: Duration,
    /// CURVE, so that only those hear of it who may.
    pub curve: Option<NotifierCurve>,
}

/// CURVE of a publisher of notifications.
#[derive(Clone, Debug)]
pub struct NotifierCurve {
    /// Its key; the public one is registered as `zmq_pubkey`.
    pub secret_key: SecretKey,
    /// Who is admitted; `None` for whoever knows the public key.
    pub clients: Option<Vec<PublicKey>>,
}

impl NotifierConfig {
    /// A notification per commit.
    pub fn new(channel: ChannelName) -> Self {
        Self { channel, notify_every: 1, notify_min_interval: Duration::ZERO, curve: None }
    }
}

/// For how long the last commit of a burst may wait when only `notify_every` thins out.
const BURST_END: Duration = Duration::from_millis(10);

/// Publishes notifications about a block. Never waits (DH-216).
#[derive(Debug)]
pub struct Notifier {
    shared: Arc<Shared>,
    endpoint: String,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    publisher: Pub,
    config: NotifierConfig,
    link: Arc<Link>,
    /// Of the block that it tells about, once that is known.
    metrics: OnceLock<RecordMut<PAGE_RECORD>>,
    thinning: Mutex<Thinning>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct Thinning {
    since_last: u32,
    last: Option<Instant>,
    /// What was not published yet, and when it has to be.
    pending: Option<(Instant, Notification)>,
    is_ending: bool,
}

impl Notifier {
    pub(super) fn bind(
        context: &Context,
        endpoint: &str,
        config: NotifierConfig,
        link: Arc<Link>,
    ) -> Result<Self, HubError> {
        let failed = |source| HubError::Transport { endpoint: endpoint.to_owned(), source };
        let mut options = context.default_options(SocketType::Pub);
        options.sndhwm = HIGH_WATER;
        options.linger = Some(Duration::from_millis(100));
        options.max_subscriptions = 64;
        options.max_subscription_bytes = 64 << 10;
        options.mechanism = mechanism(config.curve.as_ref());
        let publisher = Pub::with_options(context, options).map_err(failed)?;
        let endpoint = publisher.bind_blocking(endpoint).map_err(failed)?;
        let is_thinning = config.notify_every > 1 || !config.notify_min_interval.is_zero();
        let shared = Arc::new(Shared {
            publisher,
            config,
            link,
            metrics: OnceLock::new(),
            thinning: Mutex::default(),
            bell: Condvar::new(),
        });
        let of_thread = shared.clone();
        let thread = is_thinning
            .then(|| thread::Builder::new().name("tidegate-hub-notify".into()).spawn(move || of_thread.run()))
            .transpose()
            .map_err(|source| HubError::System {
                what: "cannot start the thread that ends bursts",
                source,
            })?;
        Ok(Self { shared, endpoint, thread })
    }

    /// Counts what it sends in these metrics, if it was not told of others before.
    pub(crate) fn count_in(&self, metrics: &RecordMut<PAGE_RECORD>) {
        // A notifier has one producer; metrics that it already has are that producer's.
        let _ = self.shared.metrics.set(metrics.clone());
    }

    /// Where it publishes.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Says that something was committed; to be called after the commit is visible. Thinned out as configured; the last
    /// one of a burst is always published.
    pub fn committed(&self, notification: Notification) {
        let config = &self.shared.config;
        let now = Instant::now();
        let mut thinning = self.shared.lock();
        thinning.since_last = thinning.since_last.saturating_add(1);
        let next = thinning.last.and_then(|last| last.checked_add(config.notify_min_interval));
        if thinning.since_last >= config.notify_every.max(1) && next.is_none_or(|next| next <= now) {
            self.shared.publish(&mut thinning, notification, now);
            return;
        }
        let burst_end = now + BURST_END.max(config.notify_min_interval);
        thinning.pending = Some((next.map_or(burst_end, |next| next.max(burst_end)), notification));
        self.shared.bell.notify_one();
    }

    /// Publishes at once what waits for its turn.
    pub fn flush(&self) {
        let mut thinning = self.shared.lock();
        if let Some((_, notification)) = thinning.pending {
            self.shared.publish(&mut thinning, notification, Instant::now());
        }
    }

    /// Notifications that slow consumers missed.
    pub fn missed(&self) -> u64 {
        self.shared.publisher.metrics().out.dropped_full
    }

    /// Waits until so many consumers listen, for tests and orderly starts.
    ///
    /// # Errors
    /// [`HubError::Transport`] with a timeout in it.
    pub fn wait_for_consumers(&self, count: usize, timeout: Duration) -> Result<(), HubError> {
        let topic = self.shared.config.channel.as_str().as_bytes();
        self.shared
            .publisher
            .wait_for_subscribers_blocking(topic, count, timeout)
            .map_err(|source| HubError::Transport { endpoint: self.endpoint.clone(), source })
    }
}

fn mechanism(curve: Option<&NotifierCurve>) -> Mechanism {
    curve.map_or(Mechanism::Null, |curve| {
        let policy = match &curve.clients {
            Some(keys) => CurvePolicy::AllowList(keys.as_slice().into()),
            None => CurvePolicy::AnyKey,
        };
        Mechanism::Curve(CurveOptions::Server { secret_key: curve.secret_key.clone(), policy })
    })
}

impl Drop for Notifier {
    /// Publishes what is pending.
    fn drop(&mut self) {
        self.shared.lock().is_ending = true;
        self.shared.bell.notify_one();
        if let Some(thread) = self.thread.take() {
            // A publisher that ends has nobody to tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Ends bursts: publishes what is pending when its time has come. Sleeps while nothing is.
    fn run(&self) {
        let mut thinning = self.lock();
        loop {
            let now = Instant::now();
            match thinning.pending {
                Some((due, notification)) if due <= now || thinning.is_ending => {
                    self.publish(&mut thinning, notification, now);
                }
                Some((due, _)) => {
                    let waited = self.bell.wait_timeout(thinning, due - now);
                    thinning = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None if thinning.is_ending => return,
                None => thinning = self.bell.wait(thinning).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn publish(&self, thinning: &mut Thinning, notification: Notification, now: Instant) {
        (thinning.since_last, thinning.last, thinning.pending) = (0, Some(now), None);
        let dropped = self.publisher.metrics().out.dropped_full;
        let sent = self.publisher.try_send(notification.encode(&self.config.channel));
        let failures =
            u64::from(sent.is_err()) + self.publisher.metrics().out.dropped_full.saturating_sub(dropped);
        if failures > 0 {
            self.link.count(|counters| counters.zmq_send_failures += failures);
        }
        if let (true, Some(metrics)) = (sent.is_ok(), self.metrics.get()) {
            // Relaxed: counters order nothing.
            let count = metrics.row().u64::<{ offset_of!(MetricsPage, notifications_sent) }>();
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Thinning> {
        self.thinning.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
