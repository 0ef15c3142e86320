//! The broker as a service: one thread that owns sockets, clock, registry and file (DH-184).
//!
//! It sleeps until a request comes, something is due, or it is told to stop; nothing else wakes it.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};
use tidegate_mq::{Context, Pub, PublicKey, Router, SecretKey};

use super::{
    error::BrokerError,
    host::HostView,
    machine::{Machine, Now, Origin, Output, Settings},
    sockets::{bind_events, bind_router, check_endpoint},
    store::{Loaded, Store},
    wire::{self, ClientId, Fixed, Label, RegistryCounters},
};

/// How a broker runs.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Where it listens; see [`RuntimeDir::broker_endpoint`](super::place::RuntimeDir::broker_endpoint).
    pub endpoint: String,
    /// Where it publishes events.
    pub events_endpoint: String,
    /// Whether TCP without CURVE is allowed, on loopback only (DH-185).
    pub insecure_tcp: bool,
    /// CURVE; without it only who reaches the private directory or loopback reaches the broker (DH-210).
    pub curve: Option<BrokerCurve>,
    /// File that keeps the registry over restarts; by default none (DH-212).
    pub persist: Option<PathBuf>,
    /// For how long, when stopped, DISC_REQ and DEREG_REQ are still answered; then what has come, for at most a second.
    pub drain: Duration,
    /// What the state machine is to do. `events_endpoint` and `pinned` are filled in from here.
    pub settings: Settings,
}

impl BrokerConfig {
    /// A broker at these endpoints, with defaults.
    pub fn new(endpoint: impl Into<String>, events_endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            events_endpoint: events_endpoint.into(),
            insecure_tcp: false,
            curve: None,
            persist: None,
            drain: Duration::ZERO,
            settings: Settings::default(),
        }
    }
}

/// CURVE of a broker (DH-208).
#[derive(Clone, Debug)]
pub struct BrokerCurve {
    /// Its key.
    pub secret_key: SecretKey,
    /// Who is admitted.
    pub clients: Vec<AllowedClient>,
}

/// A client that is admitted.
#[derive(Clone, Debug)]
pub struct AllowedClient {
    /// Its public key.
    pub key: PublicKey,
    /// The only client id that it may use, and nobody else; `None` for any that is free.
    pub client_id: Option<ClientId>,
}

/// Numbers of a broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerMetrics {
    /// Of the state machine.
    pub registry: RegistryCounters,
    /// Replies and events that could not be given to the transport.
    pub send_failures: u64,
    /// Times that the registry was written.
    pub saves: u64,
    /// Times that it could not be written.
    pub save_failures: u64,
}

/// Reads the numbers of a broker, also from another thread than the broker's owner's. Those of a broker that has ended stay.
#[derive(Clone, Debug, Default)]
pub struct BrokerMeter(Arc<Mutex<BrokerMetrics>>);

impl BrokerMeter {
    /// The numbers as of the last thing it did.
    pub fn read(&self) -> BrokerMetrics {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running broker. Stops when dropped.
#[derive(Debug)]
pub struct Broker {
    endpoint: String,
    events_endpoint: String,
    epoch: Label,
    public_key: Option<PublicKey>,
    metrics: Arc<Mutex<BrokerMetrics>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Restores the registry if there is one, binds, and serves.
    ///
    /// # Errors
    /// [`BrokerError::Endpoint`] and [`BrokerError::NotPrivate`] for an endpoint that others could reach,
    /// [`BrokerError::Transport`] when it cannot be bound, [`BrokerError::File`] when the registry cannot be read.
    pub fn start(config: BrokerConfig, host: Box<dyn HostView>) -> Result<Self, BrokerError> {
        for endpoint in [&config.endpoint, &config.events_endpoint] {
            check_endpoint(endpoint, config.curve.is_some(), config.insecure_tcp)?;
        }
        let epoch = random_epoch()?;
        let context = Context::new();
        let (router, endpoint) = bind_router(&context, &config)?;
        let (events, events_endpoint) = bind_events(&context, &config)?;
        let mut settings = config.settings.clone();
        settings.events_endpoint = Label::new(events_endpoint.clone()).ok();
        settings.pinned = pins(config.curve.as_ref());
        let public_key = config.curve.as_ref().map(|curve| curve.secret_key.public_key());
        let clock = Clock::new();
        let mut machine = Machine::new(settings, epoch.clone());
        let store = config.persist.map(Store::new);
        if let Some(store) = &store {
            restore(store, &mut machine, clock.now(), host.as_ref())?;
        }
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| BrokerError::System { what: "cannot make an eventfd", source: error.into() })?;
        let (stop, metrics) = (Arc::new(stop), Arc::<Mutex<BrokerMetrics>>::default());
        let service = Service {
            saved: machine.revision(),
            machine,
            host,
            clock,
            context,
            router,
            events,
            with_curve: config.curve.is_some(),
            store,
            next_save: Duration::ZERO,
            drain: config.drain,
            stop: stop.clone(),
            numbers: BrokerMetrics::default(),
            metrics: metrics.clone(),
        };
        let thread =
            thread::Builder::new()
                .name("tidegate-hub-broker".into())
                .spawn(move || service.run())
                .map_err(|source| BrokerError::System { what: "cannot start the broker's thread", source })?;
        Ok(Self { endpoint, events_endpoint, epoch, public_key, metrics, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where it publishes events.
    pub fn events_endpoint(&self) -> &str {
        &self.events_endpoint
    }

    /// Which start of the broker this is.
    pub fn epoch(&self) -> &Label {
        &self.epoch
    }

    /// Its CURVE key, which clients must know; `None` without CURVE.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.public_key
    }

    /// Whether its thread still runs. It ends by itself only when the operating system takes the means away.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// The numbers as of the last thing it did.
    pub fn metrics(&self) -> BrokerMetrics {
        self.meter().read()
    }

    /// What reads the numbers.
    pub fn meter(&self) -> BrokerMeter {
        BrokerMeter(self.metrics.clone())
    }

    /// Answers what has come, drains, writes the registry, and ends.
    ///
    /// # Errors
    /// [`BrokerError::Panicked`] when the thread did not end as it should.
    pub fn stop(mut self) -> Result<(), BrokerError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), BrokerError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // Fails only if the counter overflows, and then it is readable anyway.
        let _ = rustix::io::write(self.stop.as_fd(), &1_u64.to_ne_bytes());
        thread.join().map_err(|_| BrokerError::Panicked)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What the thread owns.
struct Service {
    machine: Machine,
    host: Box<dyn HostView>,
    clock: Clock,
    context: Context,
    router: Router,
    events: Pub,
    with_curve: bool,
    store: Option<Store>,
    /// Revision of the registry that is in the file.
    saved: u64,
    /// Not written again before this (DH-213).
    next_save: Duration,
    drain: Duration,
    stop: Arc<OwnedFd>,
    numbers: BrokerMetrics,
    metrics: Arc<Mutex<BrokerMetrics>>,
}

/// Requests handled before timers are looked at.
const BATCH: usize = 256;

/// Least time between two writes of the registry (DH-213).
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// For how long, when the time to stop has come, what keeps coming is still answered.
const OVERTIME: Duration = Duration::from_secs(1);

/// For how long the last replies are sent when it stops.
const LINGER: Duration = Duration::from_secs(1);

impl Service {
    fn run(mut self) {
        let bell = match self.router.readable_fd() {
            Ok(bell) => bell,
            Err(error) => {
                tracing::error!(%error, "the broker cannot wait for requests; it ends");
                return;
            }
        };
        let mut until = None;
        loop {
            self.wait(bell.as_fd(), until);
            let is_idle = self.serve();
            let outputs = self.machine.tick(self.clock.now(), self.host.as_ref());
            self.send(outputs);
            let now = self.clock.monotonic();
            self.save(now >= self.next_save);
            self.report();
            match until {
                None if self.is_told_to_stop() => {
                    self.machine.drain();
                    until = Some(now + self.drain);
                }
                // Who never stops asking keeps nobody from ending.
                Some(until) if now >= until && (is_idle || now >= until.saturating_add(OVERTIME)) => break,
                _ => {}
            }
        }
        self.save(true);
        self.report();
        drop(bell);
        self.router.close_blocking(Some(LINGER));
        self.events.close_blocking(Some(LINGER));
        self.context.term_blocking();
    }

    /// Sleeps until there is something to do.
    fn wait(&self, bell: std::os::fd::BorrowedFd<'_>, until: Option<Duration>) {
        let save = (self.store.is_some() && self.saved != self.machine.revision()).then_some(self.next_save);
        let deadline = [self.machine.next_deadline(), save, until].into_iter().flatten().min();
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_sub(self.clock.monotonic());
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut fds = vec![PollFd::from_borrowed_fd(bell, PollFlags::IN)];
        if until.is_none() {
            fds.push(PollFd::new(&self.stop, PollFlags::IN));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "poll failed");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }

    fn is_told_to_stop(&self) -> bool {
        let mut fds = [PollFd::new(&self.stop, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Handles what has come, up to a limit. Tells whether that was all.
    fn serve(&mut self) -> bool {
        for _ in 0..BATCH {
            let Ok((mut message, peer)) = self.router.try_recv_with_peer() else {
                return true;
            };
            let routing_id = message.pop_front().unwrap_or_default();
            let key = peer.and_then(|peer| PublicKey::parse(peer.user_id()).ok());
            match wire::body(&message) {
                Some(body) if key.is_some() || !self.with_curve => {
                    let origin = Origin { routing_id: &routing_id, key };
                    let outputs = self.machine.handle(origin, body, self.clock.now(), self.host.as_ref());
                    self.send(outputs);
                }
                _ => self.machine.count_foreign(),
            }
        }
        false
    }

    /// Never waits: a client that does not read its replies misses them.
    fn send(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let sent = match output {
                Output::Reply { to, body } => self.router.try_send_to(to, wire::frames(body)),
                Output::Publish { channel, event } => self.events.try_send(event.encode(&channel)),
            };
            self.numbers.send_failures += u64::from(sent.is_err());
        }
    }

    fn save(&mut self, is_due: bool) {
        let Some(store) = &self.store else { return };
        let revision = self.machine.revision();
        if !is_due || self.saved == revision {
            return;
        }
        match store.save(&self.machine.snapshot(self.host.as_ref())) {
            Ok(()) => {
                self.numbers.saves += 1;
                self.saved = revision;
            }
            Err(error) => {
                self.numbers.save_failures += 1;
                tracing::error!(%error, "the registry was not written; trying again");
            }
        }
        self.next_save = self.clock.monotonic() + SAVE_INTERVAL;
    }

    fn report(&mut self) {
        self.numbers.registry = self.machine.counters();
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner) = self.numbers;
    }
}

struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn now(&self) -> Now {
        Now { monotonic: self.monotonic(), wall_ms: wall_ms() }
    }
}

/// The wall clock in milliseconds.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Randomness of the operating system.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // So few octets come whole or not at all.
    match getrandom(&mut bytes[..], GetRandomFlags::empty())? {
        filled if filled == N => Ok(bytes),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn random_epoch() -> Result<Label, BrokerError> {
    let system = |source| BrokerError::System { what: "cannot draw a random epoch", source };
    let bytes = random::<8>().map_err(system)?;
    Label::new(Fixed(bytes).to_string()).map_err(|error| system(io::Error::other(error)))
}

fn restore(store: &Store, machine: &mut Machine, now: Now, host: &dyn HostView) -> Result<(), BrokerError> {
    match store.load()? {
        Loaded::Nothing => {}
        Loaded::Registry(snapshot) => machine.restore(snapshot, now, host),
        Loaded::Corrupt(aside) => {
            tracing::error!(registry = %store.path().display(), moved_to = %aside.display(), "the registry is damaged and was ignored; producers register again");
        }
    }
    Ok(())
}

fn pins(curve: Option<&BrokerCurve>) -> BTreeMap<PublicKey, ClientId> {
    let clients = curve.map_or(&[][..], |curve| &curve.clients);
    clients.iter().filter_map(|client| Some((client.key, client.client_id.clone()?))).collect()
}
