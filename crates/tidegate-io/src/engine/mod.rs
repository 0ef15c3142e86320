//! The engine: worker threads that own every descriptor and drive [`Connection`](crate::protocol::Connection)s.
//!
//! - [`Engine::listen`] and [`Engine::dial`] make streams; an [`Acceptor`] or [`Dialing`] makes a connection of each.
//! - [`Control`] reaches a connection from any thread; [`Control::writer`] lets the sending thread write itself.
//! - [`StreamEvent`] says what happens, in the terms of a monitor.
//!
//! ```text
//!  application threads              worker thread (one compio runtime on io_uring or epoll)
//!  -------------------              -------------------------------------------------------
//!  Control::kick ----- mailbox ---> write pump -> Connection::fill -> sendmsg, or an operation when the socket is full
//!  Control::writer --- token -----> (the same write side, never at the same time)
//!                                   read pump  -> receive operation -> Connection::received
//!                                   timers     -> Connection::expired
//! ```

mod address;
mod aside;
mod bind;
mod conn;
mod control;
mod dial;
mod driver;
mod embedded;
mod event;
#[cfg(all(test, not(loom)))]
mod fixture;
mod interface;
mod listen;
mod mailbox;
mod options;
mod pending;
mod random;
mod read;
mod resolve;
mod send;
mod table;
mod timers;
mod token;
mod worker;
mod write;

use std::{
    fmt, io,
    rc::Rc,
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity};

pub use self::{
    address::{BindAddress, BindHost, Credentials, Side, StreamAddress, StreamInfo, Target, UNIX_NAME_MAX},
    bind::BindError,
    control::{Control, DirectWriter},
    dial::{Backoff, Dial, Dialer, Dialing, StopOn},
    driver::{Driver, DriverChoice},
    embedded::Embedded,
    event::{AcceptFailure, StreamEvent, Traffic},
    listen::{Acceptor, ListenLimits, Listener, Places},
    options::StreamOptions,
};
use self::{
    resolve::Resolver,
    worker::{Door, Stop, Worker},
};

/// How an engine is made.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Worker threads; 0 makes an engine that can neither listen nor dial.
    pub workers: usize,
    /// The driver of all workers.
    pub driver: DriverChoice,
    /// What the names of the threads begin with.
    pub thread_name: String,
    /// Processors that the workers may run on; empty is all.
    pub processors: Vec<usize>,
    /// For how long, at most, a worker looks for more before it sleeps (MQ-057): for the answer of a peer that answered in
    /// less than this time before, and for at most 50 µs for what follows a large frame. Zero is not at all. Default 200 µs.
    pub spin: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            driver: DriverChoice::Auto,
            thread_name: "tidegate-io".into(),
            processors: Vec::new(),
            spin: crate::wait::DEFAULT_SPIN,
        }
    }
}

/// Why an engine could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A worker has no driver.
    #[error("no {choice:?} driver for an engine worker: {error}; try another driver")]
    Driver {
        /// What was asked for.
        choice: DriverChoice,
        /// What the system said.
        error: io::Error,
    },
    /// The workers may not run where they should.
    #[error(
        "the workers cannot run on any of the processors {processors:?}: {error}; name some that this host has"
    )]
    Processors {
        /// What was asked for.
        processors: Vec<usize>,
        /// What the system said.
        error: io::Error,
    },
    /// A worker thread could not be started.
    #[error("cannot start an engine worker: {0}")]
    Thread(#[source] io::Error),
    /// The engine has no workers, or none of those that were asked for.
    #[error("no engine worker may serve this; allow at least one")]
    NoWorker,
    /// The engine was shut down.
    #[error("the engine has been shut down")]
    Stopped,
}

/// Why listening failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The engine cannot serve it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Where and how to listen.
#[derive(Debug)]
pub struct Listen {
    /// Where.
    pub address: BindAddress,
    /// Options of the listener and of its streams.
    pub options: StreamOptions,
    /// How many streams it takes.
    pub limits: ListenLimits,
    /// Where they count.
    pub places: Places,
    /// Bit set of the workers that may be used; 0 is all.
    pub workers: u64,
}

impl Listen {
    /// Listens at `address` with defaults.
    pub fn new(address: BindAddress) -> Self {
        Self {
            address,
            options: StreamOptions::default(),
            limits: ListenLimits::default(),
            places: Places::default(),
            workers: 0,
        }
    }
}

/// What a shutdown found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shutdown {
    /// Streams that had not closed in time and were aborted.
    pub aborted: usize,
    /// Workers that did not end in time: something blocks them.
    pub stuck: usize,
}

/// Worker threads for streams. Clones are the same engine; when the last is dropped its workers end on their own.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    doors: Arc<Vec<Arc<Door>>>,
    driver: Driver,
    resolver: Resolver,
    ended: Arc<Ended>,
}

/// How the workers have ended.
#[derive(Default)]
struct Ended {
    report: Mutex<(usize, Shutdown)>,
    changed: Condvar,
}

impl Engine {
    /// Starts the workers.
    ///
    /// # Errors
    /// [`EngineError::Driver`] when the driver that was asked for is not to be had, [`EngineError::Processors`],
    /// [`EngineError::Thread`].
    pub fn new(config: &EngineConfig) -> Result<Self, EngineError> {
        let ended = Arc::new(Ended::default());
        let mut doors = Vec::new();
        let mut driver = None;
        let mut waiting = Vec::new();
        for index in 0..config.workers {
            let (ready, started) = mpsc::channel();
            let (go, doors_known) = mpsc::channel::<Arc<Vec<Arc<Door>>>>();
            let choice = config.driver;
            let ended = ended.clone();
            let processors = config.processors.clone();
            let spin = config.spin;
            thread::Builder::new()
                .name(format!("{}-{index}", config.thread_name))
                .spawn(move || match confine(processors) {
                    Ok(()) => serve(choice, spin, &ready, &doors_known, &ended),
                    Err(error) => drop(ready.send(Err(error))),
                })
                .map_err(EngineError::Thread)?;
            let (door, found) = started
                .recv()
                .unwrap_or_else(|_| Err(EngineError::Thread(io::Error::other("the worker ended at once"))))?;
            driver = driver.or(Some(found));
            doors.push(door);
            waiting.push(go);
        }
        let doors = Arc::new(doors);
        for go in waiting {
            let _ = go.send(doors.clone());
        }
        let driver = driver.unwrap_or(Driver::Polling);
        Ok(Self(Arc::new(Inner { doors, driver, resolver: Resolver::default(), ended })))
    }

    /// The driver of the workers (MQ-038).
    pub fn driver(&self) -> Driver {
        self.0.driver
    }

    /// Number of worker threads.
    pub fn workers(&self) -> usize {
        self.0.doors.len()
    }

    /// Binds and listens; when this returns, streams can come. Names are looked up on the calling thread.
    ///
    /// # Errors
    /// See [`BindError`]; the acceptor is told as well.
    pub fn listen(&self, listen: Listen, acceptor: Arc<dyn Acceptor>) -> Result<Listener, ListenError> {
        let door = worker::least_loaded(&self.0.doors, listen.workers).ok_or(EngineError::NoWorker)?;
        let bound = bind::bind(listen.address, &listen.options)
            .inspect_err(|error| acceptor.event(&StreamEvent::BindFailed(error)))?;
        let Listen { options, limits, places, workers: mask, .. } = listen;
        listen::start(bound, listen::Listening { options, limits, places, mask }, acceptor, door)
            .ok_or(ListenError::Engine(EngineError::Stopped))
    }

    /// Dials until a stream is up, and again when it is lost.
    ///
    /// # Errors
    /// [`EngineError::NoWorker`], [`EngineError::Stopped`].
    pub fn dial(&self, dial: Dial, dialing: Arc<dyn Dialing>) -> Result<Dialer, EngineError> {
        let door = worker::least_loaded(&self.0.doors, dial.workers).ok_or(EngineError::NoWorker)?;
        dial::start(dial, dialing, self.0.resolver.clone(), door).ok_or(EngineError::Stopped)
    }

    /// Closes everything, lets streams write what they have for at most `linger`, and waits for the workers to end. On the
    /// thread of an [`Embedded`] engine it does not wait: what is left ends with that.
    pub fn shutdown(&self, linger: Duration) -> Shutdown {
        for door in self.0.doors.iter() {
            door.post(move |worker| worker.close_everything(linger));
        }
        if self.0.doors.iter().any(|door| door.is_here()) {
            return Shutdown::default();
        }
        let grace = linger.saturating_add(conn::DRAIN + MARGIN);
        if !self.0.ended.wait(self.0.doors.len(), grace) {
            for door in self.0.doors.iter() {
                door.post(|worker| worker.stop(Stop::Now));
            }
            self.0.ended.wait(self.0.doors.len(), MARGIN);
        }
        let (ended, mut report) = *self.0.ended.lock();
        report.stuck = self.0.doors.len().saturating_sub(ended);
        report
    }
}

/// Time for a worker to do what takes no time.
const MARGIN: Duration = Duration::from_secs(1);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("workers", &self.workers()).field("driver", &self.0.driver).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for door in self.doors.iter() {
            door.post(|worker| worker.stop(Stop::Now));
        }
    }
}

impl Ended {
    fn lock(&self) -> std::sync::MutexGuard<'_, (usize, Shutdown)> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `workers` have ended; returns whether they have.
    fn wait(&self, workers: usize, most: Duration) -> bool {
        let by = timers::later(Instant::now(), most);
        let mut report = self.lock();
        while report.0 < workers {
            let left = by.map_or(Duration::MAX, |by| by.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return false;
            }
            report = self.changed.wait_timeout(report, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Keeps the calling thread on these processors; none are all.
fn confine(processors: Vec<usize>) -> Result<(), EngineError> {
    if processors.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for processor in processors.iter().copied().filter(|processor| *processor < CpuSet::MAX_CPU) {
        set.set(processor);
    }
    sched_setaffinity(None, &set).map_err(|error| EngineError::Processors { processors, error: error.into() })
}

/// Life of a worker thread.
fn serve(
    choice: DriverChoice,
    spin: Duration,
    ready: &mpsc::Sender<Result<(Arc<Door>, Driver), EngineError>>,
    doors: &mpsc::Receiver<Arc<Vec<Arc<Door>>>>,
    ended: &Ended,
) {
    let runtime = match driver::runtime(choice) {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(EngineError::Driver { choice, error }));
            return;
        }
    };
    let door = Arc::new(Door::new(runtime.waker()));
    let _ = ready.send(Ok((door.clone(), driver::driver_of(&runtime))));
    // The engine is given up when another of its workers cannot start.
    let Ok(doors) = doors.recv() else { return };
    let worker: Rc<Worker> = Worker::new(door, doors, spin);
    worker.run(&runtime);
    let aborted = runtime.enter(|| worker.finish());
    // Takes the tasks with it, and they their share of the worker.
    drop(runtime);
    drop(worker);
    let mut report = ended.lock();
    report.0 += 1;
    report.1.aborted += aborted;
    drop(report);
    ended.changed.notify_all();
}
