//! The broker as a service: one thread that owns sockets, clock, registry and file (DH-184).
//!
//! It sleeps until a request comes, something is due, or it is told to stop; nothing else wakes it.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};
use tidegate_mq::{
    Context, Error, Options, Pub, PublicKey, Router, SecretKey, SocketType,
    auth::{Credentials, Decision, Peer},
    options::{CurveOptions, CurvePolicy, Mechanism},
};

use super::{
    error::BrokerError,
    host::HostView,
    machine::{Machine, Now, Origin, Output, Settings},
    place::{LONGEST_SOCKET_PATH, check_private_dir},
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
    /// For how long, when stopped, DISC_REQ and DEREG_REQ are still answered.
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
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
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
                Some(until) if is_idle && now >= until => break,
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
        match store.save(&self.machine.snapshot()) {
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

/// Largest frame that is read at all. What is larger than a request may be gets an answer up to here (DH-186).
const LARGEST_FRAME: u64 = 256 << 10;

/// Most connections to each of the two sockets.
const MOST_CONNECTIONS: u32 = 4096;

fn bind_router(context: &Context, config: &BrokerConfig) -> Result<(Router, String), BrokerError> {
    let mut options = context.default_options(SocketType::Router);
    options.maxmsgsize = Some(LARGEST_FRAME);
    options.max_message_bytes = LARGEST_FRAME;
    options.max_message_parts = 16;
    options.rcvhwm_bytes = 1 << 20;
    options.sndhwm_bytes = 256 << 10;
    bound_peers(&mut options, &config.endpoint);
    // A client that connects again must not be kept out by its old connection.
    options.router_handover = true;
    options.mechanism = mechanism(config);
    let failed = |source| BrokerError::Transport { endpoint: config.endpoint.clone(), source };
    let router = Router::with_options(context, options).map_err(failed)?;
    let endpoint = bind(|| router.bind_blocking(&config.endpoint)).map_err(failed)?;
    Ok((router, endpoint))
}

fn bind_events(context: &Context, config: &BrokerConfig) -> Result<(Pub, String), BrokerError> {
    let mut options = context.default_options(SocketType::Pub);
    options.maxmsgsize = Some(LARGEST_FRAME);
    options.sndhwm = 256;
    options.sndhwm_bytes = 1 << 20;
    options.max_subscriptions = 1024;
    options.max_subscription_bytes = 256 << 10;
    bound_peers(&mut options, &config.events_endpoint);
    options.mechanism = mechanism(config);
    let failed = |source: Error| BrokerError::Transport { endpoint: config.events_endpoint.clone(), source };
    let events = Pub::with_options(context, options).map_err(failed)?;
    let endpoint = bind(|| events.bind_blocking(&config.events_endpoint)).map_err(failed)?;
    Ok((events, endpoint))
}

/// For how long a place that is taken is asked for again.
const TAKEN: Duration = Duration::from_secs(3);

/// Binds, also where a broker was killed a moment ago: the kernel closes the sockets of io_uring after the process is gone.
fn bind(mut attempt: impl FnMut() -> Result<String, Error>) -> Result<String, Error> {
    let end = Instant::now() + TAKEN;
    loop {
        match attempt() {
            Err(Error::AddressInUse(_)) if Instant::now() < end => thread::sleep(Duration::from_millis(20)),
            bound => return bound,
        }
    }
}

/// Bounds what strangers can hold open: who does not finish a handshake goes, and who comes when all places are taken.
fn bound_peers(options: &mut Options, endpoint: &str) {
    options.handshake_ivl = Some(Duration::from_secs(5));
    options.max_connections = Some(MOST_CONNECTIONS);
    // On one host the kernel tells when a peer is gone; elsewhere one may vanish without a word.
    options.heartbeat_ivl = endpoint.starts_with("tcp:").then_some(Duration::from_secs(30));
}

fn mechanism(config: &BrokerConfig) -> Mechanism {
    let Some(curve) = &config.curve else {
        return Mechanism::Null;
    };
    let clients = curve.clients.clone();
    let admit = move |peer: Peer| match peer.credentials {
        // The key is the user id, so that every message says whose it is.
        Credentials::Curve(bytes) if is_admitted(&clients, &bytes, &peer.routing_id) => {
            Decision::Admit { user_id: PublicKey::from_bytes(bytes).to_z85() }
        }
        _ => Decision::Refuse,
    };
    let secret_key = curve.secret_key.clone();
    Mechanism::Curve(CurveOptions::Server { secret_key, policy: CurvePolicy::Ask(Arc::new(admit)) })
}

/// Whether the key is on the list, and the routing id is not kept for another key: whoever connects under the id of
/// somebody else would get the replies to requests of that one.
fn is_admitted(clients: &[AllowedClient], key: &[u8; 32], routing_id: &[u8]) -> bool {
    let has_key = |client: &&AllowedClient| client.key.as_bytes() == key;
    let is_pinned = |client: &&AllowedClient| {
        client.client_id.as_ref().is_some_and(|id| id.as_str().as_bytes() == routing_id)
    };
    clients.iter().any(|client| has_key(&client))
        && clients.iter().filter(is_pinned).all(|client| has_key(&client))
}

/// Whether nobody reaches `endpoint` who should not (DH-185, DH-210, DH-211).
fn check_endpoint(endpoint: &str, has_curve: bool, insecure_tcp: bool) -> Result<(), BrokerError> {
    let refuse = |problem| Err(BrokerError::Endpoint { endpoint: endpoint.to_owned(), problem });
    if let Some(path) = endpoint.strip_prefix("ipc://") {
        if path.len() > LONGEST_SOCKET_PATH {
            return refuse("the socket path is longer than 107 bytes; choose a shorter directory");
        }
        if !path.starts_with('/') {
            return refuse("the socket path must be absolute");
        }
        return match Path::new(path).parent() {
            Some(dir) if !has_curve => check_private_dir(dir),
            _ => Ok(()),
        };
    }
    let Some(address) = endpoint.strip_prefix("tcp://") else {
        return refuse("a broker listens on ipc:// or tcp://");
    };
    if has_curve {
        return Ok(());
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    if !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return refuse("TCP beyond loopback needs CURVE; give the broker a key and a list of clients");
    }
    if !insecure_tcp {
        return refuse("TCP without CURVE needs the explicit permission insecure_tcp");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: DH-185, DH-210, DH-211.
    #[test]
    fn only_private_endpoints_do_without_curve() {
        let refused = |endpoint: &str, insecure| check_endpoint(endpoint, false, insecure).is_err();
        assert!(refused("tcp://0.0.0.0:5555", true));
        assert!(refused("tcp://*:5555", true));
        assert!(refused("tcp://192.0.2.1:5555", true));
        assert!(refused("tcp://127.0.0.1:5555", false));
        assert!(!refused("tcp://127.0.0.1:5555", true));
        assert!(!refused("tcp://[::1]:5555", true));
        assert!(refused("inproc://broker", true));
        assert!(refused("ipc:///tmp/broker.sock", true), "others may enter /tmp");
        assert!(refused(&format!("ipc:///{}", "x".repeat(107)), true));
        assert!(check_endpoint("tcp://0.0.0.0:5555", true, false).is_ok());
    }
}
