//! The Aeron C media driver, run inside this process.
//!
//! The driver's agents run on threads that the C library starts and names (`aeron-md-shd` when shared; `aeron-md-cnd`,
//! `aeron-md-snd`, `aeron-md-rcv` and `aeron-md-nra` when dedicated). No Rust code runs on them.
//!
//! Invariant: while a [`MediaDriver`] lives it holds the lock of its directory (see [`crate::directory`]), and the
//! directory is removed only under that lock, after the agents have stopped.

use std::ffi::{CStr, c_char, c_int};
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use crate::cnc::{self, DriverState};
use crate::directory::{OwnedDirectory, os};
use crate::error::AeronError;
use crate::error_log::{DriverError, driver_errors};
use crate::ffi::{self, check, nanos};

/// Which threads a driver's agents run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Threading {
    /// One thread for everything.
    #[default]
    Shared,
    /// One thread each for conductor, sender, receiver and file work.
    Dedicated,
}

/// What an agent does when it found no work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Idle {
    /// Sleeps for this long.
    Sleep(Duration),
    /// Spins, then yields, then sleeps for up to a millisecond.
    Backoff,
    /// Keeps a core busy.
    BusySpin,
}

/// How to run a media driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaDriverOptions {
    /// The driver's directory, best on a memory file system. One per driver; beside it the driver keeps `<dir>.lock`.
    pub dir: PathBuf,
    /// Threads of the agents.
    pub threading: Threading,
    /// What idle agents do. Default: sleep one millisecond.
    pub idle: Idle,
    /// Length in bytes of each of the three terms of a network log, where the channel states none. A power of two from
    /// 64 KiB to 1 GiB. Default: 1 MiB.
    pub term_buffer_length: usize,
    /// The same for IPC logs.
    pub ipc_term_buffer_length: usize,
    /// Whether terms take memory only where they were written. Default: yes.
    pub sparse_terms: bool,
    /// Length in bytes of the counters' values, 128 bytes a counter. A power of two, at least 1 MiB, the default; five
    /// times as much is used.
    pub counters_buffer_length: usize,
    /// A client that does not show itself for this long is removed with all it has. More than 1 s. Default: 5 s.
    pub client_liveness_timeout: Duration,
    /// A heartbeat older than this proves a driver dead that does not hold the lock. Default: 10 s.
    pub driver_timeout: Duration,
    /// Whether a spy alone makes a network publication connected. Default: no.
    pub spies_simulate_connection: bool,
    /// Whether to clean a directory that a dead driver left. Default: yes. A live driver's directory is never touched.
    pub dir_delete_on_start: bool,
    /// Whether to remove the directory when the driver stops. Default: yes.
    pub dir_delete_on_shutdown: bool,
}

impl MediaDriverOptions {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            threading: Threading::Shared,
            idle: Idle::Sleep(Duration::from_millis(1)),
            term_buffer_length: 1 << 20,
            ipc_term_buffer_length: 1 << 20,
            sparse_terms: true,
            counters_buffer_length: 1 << 20,
            client_liveness_timeout: Duration::from_secs(5),
            driver_timeout: Duration::from_secs(10),
            spies_simulate_connection: false,
            dir_delete_on_start: true,
            dir_delete_on_shutdown: true,
        }
    }

    /// Bytes of the files a driver writes out in full when it starts: the counters' values and four times that for their
    /// labels, two command buffers of 1 MiB, the error log of 4 MiB, the loss report of 1 MiB, and page rounding.
    fn startup_bytes(&self) -> u64 {
        const FIXED: u64 = (1 + 1 + 4 + 1) * (1 << 20) + (64 << 10);
        FIXED.saturating_add((self.counters_buffer_length as u64).saturating_mul(5))
    }

    fn validate(&self) -> Result<(), AeronError> {
        const MIN_TERM: usize = 64 << 10;
        const MAX_TERM: usize = 1 << 30;
        let lengths = [
            ("term_buffer_length", self.term_buffer_length),
            ("ipc_term_buffer_length", self.ipc_term_buffer_length),
        ];
        for (option, length) in lengths {
            if !length.is_power_of_two() || !(MIN_TERM..=MAX_TERM).contains(&length) {
                return Err(AeronError::InvalidOption {
                    option,
                    reason: "must be a power of two from 64 KiB to 1 GiB",
                });
            }
        }
        if !self.counters_buffer_length.is_power_of_two()
            || !((1 << 20)..=(256 << 20)).contains(&self.counters_buffer_length)
        {
            return Err(AeronError::InvalidOption {
                option: "counters_buffer_length",
                reason: "must be a power of two from 1 MiB to 256 MiB",
            });
        }
        if self.client_liveness_timeout <= MIN_CLIENT_LIVENESS {
            return Err(AeronError::InvalidOption {
                option: "client_liveness_timeout",
                reason: "must be more than 1 s, the interval at which a client shows itself",
            });
        }
        Ok(())
    }
}

/// How long an untethered subscriber may hold a publisher up before it is disconnected.
const UNTETHERED_WINDOW_NS: u64 = 250_000_000;
/// How long its log then stays readable for it.
const UNTETHERED_LINGER_NS: u64 = 500_000_000;
/// After which it is connected again, at the publisher's position.
const UNTETHERED_REST_NS: u64 = 1_000_000_000;

/// How often our driver looks at its timers; shorter than every timeout.
const TIMER_INTERVAL_NS: u64 = 100_000_000;

/// Clients show themselves about once a second.
const MIN_CLIENT_LIVENESS: Duration = Duration::from_secs(1);

/// A running media driver. Dropping it stops its threads and, when asked, removes its directory.
///
/// Clients of a driver that stops find out by themselves and are closed; stop them first for a quiet shutdown.
#[derive(Debug)]
pub struct MediaDriver {
    /// `None` once stopped.
    running: Option<(Agents, OwnedDirectory)>,
    dir: PathBuf,
    delete_on_shutdown: bool,
}

impl MediaDriver {
    /// Starts a driver and returns when clients can connect.
    ///
    /// # Errors
    /// [`AeronError::DriverActive`] when a live driver owns the directory, [`AeronError::ForeignDirectory`] when it holds
    /// other things than a driver's files, [`AeronError::NoSpace`] when its file system is too full,
    /// [`AeronError::Permission`] and [`AeronError::Os`] when it cannot be made, [`AeronError::InvalidOption`], and
    /// [`AeronError::Library`] for the rest.
    pub fn launch(options: &MediaDriverOptions) -> Result<Self, AeronError> {
        options.validate()?;
        let mut directory =
            OwnedDirectory::acquire(&options.dir, options.driver_timeout, options.dir_delete_on_start)?;
        match start(options, &mut directory) {
            Ok(agents) => Ok(Self {
                dir: directory.path().to_owned(),
                running: Some((agents, directory)),
                delete_on_shutdown: options.dir_delete_on_shutdown,
            }),
            Err(error) => {
                if let Err(error) = directory.remove() {
                    tracing::warn!(%error, "could not clean up after a media driver that did not start");
                }
                directory.release();
                Err(error)
            }
        }
    }

    /// The driver's directory, for [`ClientOptions`](crate::ClientOptions).
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What has gone wrong inside the driver since it started; see [`driver_errors`](crate::driver_errors).
    ///
    /// # Errors
    /// As [`driver_errors`](crate::driver_errors).
    pub fn errors(&self) -> Result<Vec<DriverError>, AeronError> {
        driver_errors(&self.dir)
    }

    /// Stops the driver's threads and, when asked at launch, removes its directory.
    ///
    /// # Errors
    /// When a thread cannot be stopped or the directory cannot be removed.
    pub fn close(mut self) -> Result<(), AeronError> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), AeronError> {
        let Some((mut agents, directory)) = self.running.take() else { return Ok(()) };
        if let Err(error) = agents.stop() {
            // Threads may still use the directory, so nobody else gets it while this process lives.
            std::mem::forget(directory);
            return Err(error);
        }
        let removed = if self.delete_on_shutdown { directory.remove() } else { Ok(()) };
        directory.release();
        removed
    }
}

impl Drop for MediaDriver {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(dir = %self.dir.display(), %error, "the media driver did not stop cleanly");
        }
    }
}

fn start(options: &MediaDriverOptions, directory: &mut OwnedDirectory) -> Result<Agents, AeronError> {
    let dir = directory.path().to_owned();
    let needed = options.startup_bytes();
    let parent = dir.parent().unwrap_or(&dir);
    let file_system =
        rustix::fs::statvfs(parent).map_err(|errno| os("measure the free space of", parent)(errno.into()))?;
    let available = file_system.f_bavail.saturating_mul(file_system.f_frsize);
    if available < needed {
        return Err(AeronError::NoSpace { dir, needed, available });
    }
    let context = Context::new(options, &dir)?;
    let agents = Agents::start(context).map_err(|error| match error.code() {
        Some(code) if code == -rustix::io::Errno::NOSPC.raw_os_error() => {
            AeronError::NoSpace { dir: dir.clone(), needed, available }
        }
        Some(code) if code == -rustix::io::Errno::ACCESS.raw_os_error() => {
            AeronError::Permission { path: dir.clone(), operation: "create the media driver's files in" }
        }
        _ => error,
    })?;
    let run = await_first_heartbeat(&dir)?;
    directory.record(run)?;
    Ok(agents)
}

/// Waits until the conductor has shown that it runs.
fn await_first_heartbeat(dir: &Path) -> Result<cnc::DriverRun, AeronError> {
    const DEADLINE: Duration = Duration::from_secs(10);
    let started = Instant::now();
    loop {
        if let DriverState::Running { run, .. } = cnc::read(dir).map_err(os("read cnc.dat in", dir))? {
            return Ok(run);
        }
        if started.elapsed() > DEADLINE {
            return Err(AeronError::NoDriver { dir: dir.to_owned(), waited: DEADLINE });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The C driver and its threads. Dropping it stops them.
#[derive(Debug)]
struct Agents {
    /// `None` once stopped.
    driver: Option<NonNull<ffi::aeron_driver_t>>,
    /// Freed by `stop` after the driver, which uses it until then.
    context: ManuallyDrop<Context>,
}

// SAFETY: the driver is used by its own threads and through this value, which only starts and stops it; neither depends on
// the calling thread.
unsafe impl Send for Agents {}

impl Agents {
    fn start(context: Context) -> Result<Self, AeronError> {
        let mut driver = ptr::null_mut();
        // SAFETY: `context` is initialised and outlives the driver in `Self`; the result is written before use.
        let made = unsafe { ffi::aeron_driver_init(&mut driver, context.raw.as_ptr()) };
        check(made, "initialise the media driver")?;
        let agents = Self { driver: NonNull::new(driver), context: ManuallyDrop::new(context) };
        // SAFETY: initialised above and not started yet; `false` makes the library run every agent on its own thread.
        let started = unsafe { ffi::aeron_driver_start(driver, false) };
        check(started, "start the media driver")?;
        Ok(agents)
    }

    /// Joins the threads and frees the driver, then its context. A driver that does not stop keeps its memory.
    fn stop(&mut self) -> Result<(), AeronError> {
        let Some(driver) = self.driver.take() else { return Ok(()) };
        // SAFETY: the driver is live, and as it was taken out of `self` this is its last use.
        let stopped = unsafe { ffi::aeron_driver_close(driver.as_ptr()) };
        check(stopped, "stop the media driver")?;
        // SAFETY: reached once, because the driver was there; nothing uses the context afterwards.
        unsafe { ManuallyDrop::drop(&mut self.context) };
        Ok(())
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the threads of a media driver could not be stopped");
        }
    }
}

/// The C driver's configuration.
#[derive(Debug)]
struct Context {
    raw: NonNull<ffi::aeron_driver_context_t>,
}

type Setter<T> = unsafe extern "C" fn(*mut ffi::aeron_driver_context_t, T) -> c_int;

impl Context {
    fn new(options: &MediaDriverOptions, dir: &Path) -> Result<Self, AeronError> {
        // Room for the names of log files below the directory within Aeron's path limit.
        const MAX_DIR: usize = ffi::AERON_MAX_PATH as usize - 256;
        let dir = ffi::c_text(dir.as_os_str().as_bytes(), "dir", MAX_DIR)?;
        let mut raw = ptr::null_mut();
        // SAFETY: writes the new context, or leaves null and returns an error.
        check(unsafe { ffi::aeron_driver_context_init(&mut raw) }, "make a media driver context")?;
        let Some(raw) = NonNull::new(raw) else { return Err(ffi::last_error("make a media driver context")) };
        let context = Self { raw };
        context.set_text(ffi::aeron_driver_context_set_dir, &dir)?;
        context.set(ffi::aeron_driver_context_set_dir_warn_if_exists, false)?;
        context.set(ffi::aeron_driver_context_set_print_configuration, false)?;
        // The directory is cleaned and removed under its lock, by this crate.
        context.set(ffi::aeron_driver_context_set_dir_delete_on_start, false)?;
        context.set(ffi::aeron_driver_context_set_dir_delete_on_shutdown, false)?;
        let threading = match options.threading {
            Threading::Shared => ffi::aeron_threading_mode_t::AERON_THREADING_MODE_SHARED,
            Threading::Dedicated => ffi::aeron_threading_mode_t::AERON_THREADING_MODE_DEDICATED,
        };
        context.set(ffi::aeron_driver_context_set_threading_mode, threading)?;
        context.set(
            ffi::aeron_driver_context_set_thread_naming,
            ffi::aeron_thread_naming_t::AERON_THREAD_NAMING_NEW,
        )?;
        context.set_idle(options.idle)?;
        context.set(ffi::aeron_driver_context_set_term_buffer_length, options.term_buffer_length)?;
        context.set(ffi::aeron_driver_context_set_ipc_term_buffer_length, options.ipc_term_buffer_length)?;
        context.set(ffi::aeron_driver_context_set_term_buffer_sparse_file, options.sparse_terms)?;
        context.set(ffi::aeron_driver_context_set_counters_buffer_length, options.counters_buffer_length)?;
        let liveness = nanos(options.client_liveness_timeout, "client_liveness_timeout")?;
        context.set(ffi::aeron_driver_context_set_client_liveness_timeout_ns, liveness)?;
        // Aeron wants clients gone before it unblocks what they left half written; its own default is 15 s.
        let unblock = liveness.saturating_mul(2).max(15_000_000_000);
        context.set(ffi::aeron_driver_context_set_publication_unblock_timeout_ns, unblock)?;
        let spies = options.spies_simulate_connection;
        context.set(ffi::aeron_driver_context_set_spies_simulate_connection, spies)?;
        // A subscriber that asked not to hold the others up (`tether=false`) and does not read is let go soon.
        context.set(ffi::aeron_driver_context_set_timer_interval_ns, TIMER_INTERVAL_NS)?;
        context
            .set(ffi::aeron_driver_context_set_untethered_window_limit_timeout_ns, UNTETHERED_WINDOW_NS)?;
        context.set(ffi::aeron_driver_context_set_untethered_linger_timeout_ns, UNTETHERED_LINGER_NS)?;
        context.set(ffi::aeron_driver_context_set_untethered_resting_timeout_ns, UNTETHERED_REST_NS)?;
        Ok(context)
    }

    fn set_idle(&self, idle: Idle) -> Result<(), AeronError> {
        let (strategy, args) = match idle {
            Idle::Sleep(period) => (c"sleep-ns", Some(format!("{}ns", nanos(period, "idle")?))),
            Idle::Backoff => (c"backoff", None),
            Idle::BusySpin => (c"spin", None),
        };
        let args = args.map(|text| ffi::c_text(text.as_bytes(), "idle", 64)).transpose()?;
        let agents: [(Setter<*const c_char>, Setter<*const c_char>); 4] = [
            (
                ffi::aeron_driver_context_set_shared_idle_strategy_init_args,
                ffi::aeron_driver_context_set_shared_idle_strategy,
            ),
            (
                ffi::aeron_driver_context_set_conductor_idle_strategy_init_args,
                ffi::aeron_driver_context_set_conductor_idle_strategy,
            ),
            (
                ffi::aeron_driver_context_set_sender_idle_strategy_init_args,
                ffi::aeron_driver_context_set_sender_idle_strategy,
            ),
            (
                ffi::aeron_driver_context_set_receiver_idle_strategy_init_args,
                ffi::aeron_driver_context_set_receiver_idle_strategy,
            ),
        ];
        for (set_args, set_strategy) in agents {
            // Setting the strategy builds it from the arguments that are there at that moment.
            if let Some(args) = &args {
                self.set_text(set_args, args)?;
            }
            self.set_text(set_strategy, strategy)?;
        }
        Ok(())
    }

    fn set_text(&self, setter: Setter<*const c_char>, text: &CStr) -> Result<(), AeronError> {
        self.set(setter, text.as_ptr())
    }

    /// Calls one of the library's setters; a text is alive during the call, and the library copies it.
    fn set<T>(&self, setter: Setter<T>, value: T) -> Result<(), AeronError> {
        // SAFETY: the context is live, every caller passes one of `aeron_driver_context_set_*` with a value of its type.
        check(unsafe { setter(self.raw.as_ptr(), value) }, "configure the media driver").map(|_| ())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is live, no driver uses it any more, and this is its last use.
        unsafe { ffi::aeron_driver_context_close(self.raw.as_ptr()) };
    }
}
