//! The context: engine threads, names of in-process endpoints, limits.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use tidegate_io::engine::{Driver, DriverChoice, Engine, EngineConfig, EngineError};
use tidegate_io::sync::{AtomicBool, AtomicU64, Ordering};
use tidegate_io::wait::Budget;
use tidegate_zmtp::socket_type::SocketType;

use crate::{
    error::{Error, Result},
    inproc::Names,
    options::Options,
    shared::{Phase, Shared},
    timer::{Timer, Timers},
};

/// Options of a context.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ContextOptions {
    /// Engine threads; 0 is allowed when only inproc endpoints are used. Default 1.
    pub io_threads: usize,
    /// Most sockets at a time; `None` is no limit. What servers ask a ZAP handler by is not among them.
    pub max_sockets: Option<usize>,
    /// Largest part that may be sent, in bytes. Default 2^31 - 1.
    pub max_msgsz: usize,
    /// Bytes that the queues of all sockets together may hold (MQ-066); `None` is no limit. While they hold as much,
    /// sends wait or drop as they do when a queue is full, and a connection is read only as far as the application
    /// has read what came before. What servers ask a ZAP handler, and what its socket holds, does not count. Default no
    /// limit.
    pub max_queued_bytes: Option<usize>,
    /// How the engine does I/O. Default: io_uring where the system allows it, else epoll; the environment variable
    /// `TIDEGATE_MQ_DRIVER` (`io_uring` or `polling`) says otherwise.
    pub driver: DriverChoice,
    /// What the names of the engine's threads begin with.
    pub thread_name_prefix: String,
    /// Processors that the engine's threads may run on; empty is all. Default all.
    pub processors: Vec<usize>,
    /// For how long, at most, a thread looks for more before it sleeps. An engine thread looks for the answer of a peer that
    /// takes turns with us and last took less than this for its turn, and for up to 50 µs for what follows a large frame;
    /// a thread that blocks in a receive looks for answers from inside the process. Not having to be woken makes round trips
    /// faster and costs processor time that nobody else wants. Zero is not at all. Default 200 µs.
    pub spin: Duration,
    /// Whether new sockets use IPv6 where a name or wildcard allows both. Default off.
    pub ipv6: bool,
    /// Whether new sockets wait, when closed, until everything is sent (`linger` is `None`); else they discard it at
    /// once. Default on.
    pub blocky: bool,
    /// Stored for who asks.
    pub(crate) zero_copy_recv: bool,
}

impl ContextOptions {
    /// Sets an option by libzmq's number and in libzmq's encoding, for bindings (MQ-348 to MQ-352).
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when the value does not fit, [`Error::NotSupported`] when the option is not there: there is
    /// no safe way to set priority or policy of threads. Nothing is changed then.
    pub fn set_raw(&mut self, number: i32, value: &[u8]) -> Result<()> {
        let invalid = |problem| Error::InvalidOption { option: "context option", problem };
        if number == NAME_PREFIX {
            let prefix = std::str::from_utf8(value).map_err(|_| invalid("the text is not UTF-8"))?;
            prefix.clone_into(&mut self.thread_name_prefix);
            return Ok(());
        }
        let int = || -> Result<i32> {
            let bytes = value.try_into().map_err(|_| invalid("the value must be an integer of 4 bytes"))?;
            Ok(i32::from_ne_bytes(bytes))
        };
        let from = |least: i32| {
            let value = int()?;
            match usize::try_from(value) {
                Ok(size) if value >= least => Ok(size),
                _ => Err(invalid("the value is too small")),
            }
        };
        let truth = || match int()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(invalid("the value must be 0 or 1")),
        };
        match number {
            IO_THREADS => self.io_threads = from(0)?,
            MAX_SOCKETS => self.max_sockets = Some(from(1)?),
            MAX_MSGSZ => self.max_msgsz = from(1)?,
            AFFINITY_CPU_ADD => {
                let processor = from(0)?;
                if !self.processors.contains(&processor) {
                    self.processors.push(processor);
                }
            }
            AFFINITY_CPU_REMOVE => {
                let processor = from(0)?;
                let index = self.processors.iter().position(|known| *known == processor);
                self.processors.swap_remove(index.ok_or_else(|| invalid("this processor was not added"))?);
            }
            // What is received is never copied without need, whatever this says.
            ZERO_COPY_RECV => self.zero_copy_recv = truth()?,
            IPV6 => self.ipv6 = truth()?,
            BLOCKY => self.blocky = truth()?,
            _ => return Err(Error::NotSupported("no such context option")),
        }
        Ok(())
    }

    /// An option by libzmq's number, in libzmq's encoding. No limit on sockets reads as the largest number.
    ///
    /// # Errors
    /// [`Error::NotSupported`] when the option is not there or cannot be read.
    pub fn raw(&self, number: i32) -> Result<Vec<u8>> {
        let size = |size: usize| i32::try_from(size).unwrap_or(i32::MAX);
        let value = match number {
            NAME_PREFIX => return Ok(self.thread_name_prefix.clone().into_bytes()),
            IO_THREADS => size(self.io_threads),
            MAX_SOCKETS => self.max_sockets.map_or(i32::MAX, size),
            SOCKET_LIMIT => i32::MAX,
            MAX_MSGSZ => size(self.max_msgsz),
            ZERO_COPY_RECV => self.zero_copy_recv.into(),
            IPV6 => self.ipv6.into(),
            BLOCKY => self.blocky.into(),
            _ => return Err(Error::NotSupported("no such context option, or one that cannot be read")),
        };
        Ok(value.to_ne_bytes().to_vec())
    }
}

const IO_THREADS: i32 = 1;
const MAX_SOCKETS: i32 = 2;
/// For reading; setting the same number is the priority of threads.
const SOCKET_LIMIT: i32 = 3;
const MAX_MSGSZ: i32 = 5;
const AFFINITY_CPU_ADD: i32 = 7;
const AFFINITY_CPU_REMOVE: i32 = 8;
const NAME_PREFIX: i32 = 9;
const ZERO_COPY_RECV: i32 = 10;
const IPV6: i32 = 42;
const BLOCKY: i32 = 70;

impl Default for ContextOptions {
    fn default() -> Self {
        Self {
            io_threads: 1,
            max_sockets: None,
            max_msgsz: i32::MAX as usize,
            max_queued_bytes: None,
            driver: match std::env::var("TIDEGATE_MQ_DRIVER").as_deref() {
                Ok("io_uring") => DriverChoice::IoUring,
                Ok("polling") => DriverChoice::Polling,
                Err(_) => DriverChoice::Auto,
                Ok(other) => {
                    tracing::warn!(
                        "TIDEGATE_MQ_DRIVER is \"{other}\": neither io_uring nor polling, and not heeded"
                    );
                    DriverChoice::Auto
                }
            },
            thread_name_prefix: "tidegate-mq".into(),
            processors: Vec::new(),
            spin: EngineConfig::default().spin,
            ipv6: false,
            blocky: true,
            zero_copy_recv: true,
        }
    }
}

/// See [`Context::queue_usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueUsage {
    /// Bytes of memory that messages hold which wait to be sent or received.
    pub bytes: usize,
    /// How often these came to reach the limit.
    pub exhausted: u64,
}

/// What sockets share. Clones are the same context; a process usually has one.
///
/// Dropping the last clone leaves its sockets working; [`shutdown`](Self::shutdown) ends them.
#[derive(Clone)]
pub struct Context(Arc<ContextInner>);

pub(crate) struct ContextInner {
    options: ContextOptions,
    engine: OnceLock<Engine>,
    starting: Mutex<()>,
    sockets: Mutex<Sockets>,
    pub(crate) names: Names,
    pub(crate) timers: Timers,
    /// What is left of `max_queued_bytes`.
    pub(crate) budget: Option<Arc<Budget>>,
    terminated: AtomicBool,
    /// Messages that closing sockets gave up.
    discarded: AtomicU64,
    process: u32,
}

#[derive(Default)]
struct Sockets {
    /// Those of the application.
    alive: HashMap<u64, Weak<Shared>>,
    /// Those of this crate's own, which do not count.
    internal: Vec<Weak<Shared>>,
    last: u64,
}

impl Context {
    /// A context with default options.
    pub fn new() -> Self {
        Self::with_options(ContextOptions::default())
    }

    /// A context with the given options. Engine threads start when the first is needed.
    pub fn with_options(options: ContextOptions) -> Self {
        let budget = options.max_queued_bytes.map(|limit| Arc::new(Budget::new(limit)));
        Self(Arc::new(ContextInner {
            options,
            budget,
            engine: OnceLock::new(),
            starting: Mutex::new(()),
            sockets: Mutex::default(),
            names: Names::default(),
            timers: Timers::default(),
            terminated: AtomicBool::new(false),
            discarded: AtomicU64::new(0),
            process: std::process::id(),
        }))
    }

    /// How the engine does I/O; `None` before the first bind or connect that needs it (MQ-038).
    pub fn driver(&self) -> Option<Driver> {
        self.0.engine.get().map(Engine::driver)
    }

    /// What the queues of all sockets hold; `None` without
    /// [`max_queued_bytes`](ContextOptions::max_queued_bytes), since nobody counts then.
    pub fn queue_usage(&self) -> Option<QueueUsage> {
        let budget = self.0.budget.as_ref()?;
        Some(QueueUsage { bytes: budget.held(), exhausted: budget.exhausted() })
    }

    /// Ends the context: every pending and later call on its sockets fails with [`Error::Terminated`], what is queued is
    /// sent for as long as each socket's linger allows, then everything is closed. Returns how many messages had to be
    /// discarded (MQ-081).
    ///
    /// # Cancellation
    /// Once polled, calls have ended; who drops the future calls it again to have the rest done.
    pub async fn shutdown(&self) -> u64 {
        let sockets = self.0.begin_shutdown();
        // All linger at the same time.
        let mut closing: Vec<_> = sockets
            .iter()
            .map(|socket| {
                let linger = socket.lock().options.linger;
                Box::pin(socket.drain(linger))
            })
            .collect();
        poll_fn(|context| {
            closing.retain_mut(|drain| drain.as_mut().poll(context).is_pending());
            if closing.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.0.finish_shutdown().await
    }

    /// [`shutdown`](Self::shutdown) on the calling thread.
    pub fn term_blocking(&self) -> u64 {
        tidegate_io::wait::block_on(self.shutdown(), None).unwrap_or_default()
    }

    /// What a new socket of this kind starts with: the defaults, with those that depend on the kind (`linger` is zero for
    /// SUB and XSUB) and those that this context sets (MQ-294, MQ-352).
    pub fn default_options(&self, kind: SocketType) -> Options {
        let mut options = Options::default();
        options.ipv6 = self.0.options.ipv6;
        if !self.0.options.blocky || matches!(kind, SocketType::Sub | SocketType::XSub) {
            options.linger = Some(Duration::ZERO);
        }
        options
    }

    /// The options this context was made with.
    pub fn options(&self) -> &ContextOptions {
        &self.0.options
    }

    /// A context that gets no thread for timers.
    #[cfg(test)]
    pub(crate) fn without_timer_thread() -> Self {
        let mut context = Self::new();
        Arc::get_mut(&mut context.0).unwrap().timers = Timers::without_thread();
        context
    }

    pub(crate) fn from_inner(inner: Arc<ContextInner>) -> Self {
        Self(inner)
    }

    pub(crate) fn inner(&self) -> &Arc<ContextInner> {
        &self.0
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("options", &self.0.options).field("driver", &self.driver()).finish()
    }
}

impl ContextInner {
    /// Uses an engine that is there already, instead of starting one.
    pub(crate) fn adopt(&self, engine: Engine) {
        // A context that is new has none.
        let _ = self.engine.set(engine);
    }

    /// The engine, started if need be. `endpoint` is for the error.
    pub(crate) fn engine(&self, endpoint: &str) -> Result<&Engine> {
        if self.options.io_threads == 0 {
            return Err(Error::NoIoThread(endpoint.to_owned()));
        }
        self.check_process()?;
        let _starting = self.starting();
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        // Relaxed: a shutdown sets this before it takes the lock, under which it looks for an engine to end.
        if self.terminated.load(Ordering::Relaxed) {
            return Err(Error::Terminated);
        }
        let config = EngineConfig {
            workers: self.options.io_threads,
            driver: self.options.driver,
            thread_name: self.options.thread_name_prefix.clone(),
            processors: self.options.processors.clone(),
            spin: self.options.spin,
        };
        let engine = Engine::new(&config).map_err(engine_error)?;
        Ok(self.engine.get_or_init(|| engine))
    }

    /// For how long waiting threads look for an answer that is expected before they sleep.
    pub(crate) fn spin(&self) -> Duration {
        self.options.spin
    }

    /// Fails in a forked child, where nobody would answer (MQ-084). Costs a system call.
    pub(crate) fn check_process(&self) -> Result<()> {
        if std::process::id() == self.process { Ok(()) } else { Err(Error::Forked) }
    }

    pub(crate) fn max_part(&self) -> Option<usize> {
        Some(self.options.max_msgsz)
    }

    /// A timer for an option of a timeout; `None` when it waits for ever.
    pub(crate) fn timer(&self, timeout: Option<Duration>) -> Option<Timer> {
        self.timers.after(timeout?)
    }

    /// Has the waker called once `due` has come, and perhaps at once, unless the timer is dropped before.
    pub(crate) fn wake_at(&self, due: Instant, waker: &Waker) -> Timer {
        self.timers.at(due, waker)
    }

    pub(crate) fn random_u32(&self) -> u32 {
        let mut bytes = [0; 4];
        fill_random(&mut bytes);
        u32::from_ne_bytes(bytes)
    }

    pub(crate) fn register(&self, socket: &Arc<Shared>) -> Result<()> {
        let mut sockets = self.sockets();
        // Relaxed: the lock orders this against the shutdown.
        if self.terminated.load(Ordering::Relaxed) {
            return Err(Error::Terminated);
        }
        sockets.alive.retain(|_, socket| socket.strong_count() > 0);
        if let Some(limit) = self.options.max_sockets
            && sockets.alive.len() >= limit
        {
            return Err(Error::TooManySockets { limit });
        }
        sockets.last += 1;
        let number = sockets.last;
        sockets.alive.insert(number, Arc::downgrade(socket));
        Ok(())
    }

    pub(crate) fn register_internal(&self, socket: &Arc<Shared>) -> Result<()> {
        let mut sockets = self.sockets();
        // Relaxed: as above.
        if self.terminated.load(Ordering::Relaxed) {
            return Err(Error::Terminated);
        }
        sockets.internal.retain(|socket| socket.strong_count() > 0);
        sockets.internal.push(Arc::downgrade(socket));
        Ok(())
    }

    /// Whether it was shut down.
    pub(crate) fn is_terminated(&self) -> bool {
        // Relaxed: who sees it late finds the sockets ended; who has found that sees it, since they end under locks that are
        // released after this was set.
        self.terminated.load(Ordering::Relaxed)
    }

    pub(crate) fn count_discarded(&self, messages: u64) {
        // Relaxed: the lock of the socket orders it.
        self.discarded.fetch_add(messages, Ordering::Relaxed);
    }

    fn begin_shutdown(&self) -> Vec<Arc<Shared>> {
        let sockets: Vec<_> = {
            let sockets = self.sockets();
            // Relaxed: as `register` has it.
            self.terminated.store(true, Ordering::Relaxed);
            sockets.alive.values().chain(&sockets.internal).filter_map(Weak::upgrade).collect()
        };
        for socket in &sockets {
            socket.set_phase(Phase::Terminated);
        }
        sockets
    }

    async fn finish_shutdown(&self) -> u64 {
        // After whoever is starting one; nobody starts another.
        drop(self.starting());
        if let Some(engine) = self.engine.get()
            && self.check_process().is_ok()
        {
            engine.shutdown_aside(Duration::ZERO).await;
        }
        // Relaxed: sockets are counted under their locks, under which they are then seen to have been.
        self.discarded.load(Ordering::Relaxed)
    }

    fn starting(&self) -> MutexGuard<'_, ()> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no engine.
pub(crate) fn engine_error(error: EngineError) -> Error {
    Error::System {
        what: "cannot start the I/O engine".into(),
        source: match error {
            EngineError::Driver { error, .. }
            | EngineError::Thread(error)
            | EngineError::Processors { error, .. } => error,
            other => std::io::Error::other(other),
        },
    }
}

/// Fills with the operating system's randomness; keys are made of it.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..)
        && !rest.is_empty()
    {
        // Fails only when interrupted, since the pool is ready long before any program of ours runs.
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who got past the check of its socket before the shutdown began starts nothing that nobody would end.
    ///
    /// Rules: MQ-083.
    #[test]
    fn no_engine_is_started_during_a_shutdown() {
        let context = Context::new();
        context.inner().begin_shutdown();
        assert!(matches!(context.inner().engine("tcp://127.0.0.1:*"), Err(Error::Terminated)));
        assert_eq!(context.driver(), None);
    }
}
