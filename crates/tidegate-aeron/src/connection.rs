//! The C client, owned.
//!
//! Lifetime: everything made from a client holds a reference to its [`Connection`], so the C client is closed after the
//! last publication, subscription and counter is gone, in whatever order the values are dropped.
//!
//! Threads: with its own conductor thread (the default) the C client may be used from any thread. In invoker mode the
//! calls that change the conductor's state (`do_work`, adding, cancelling, closing) run the conductor on the calling
//! thread; [`Connection::on_conductor`] makes them take turns.

use std::ffi::{c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::client::ClientOptions;
use crate::error::AeronError;
use crate::ffi::{self, check, contained, millis, nanos, text_of};

/// The C client with what it calls back into.
#[derive(Debug)]
pub struct Connection {
    client: NonNull<ffi::aeron_t>,
    context: NonNull<ffi::aeron_context_t>,
    /// Address given to C callbacks; freed after the C client.
    notices: Box<Notices>,
    /// In invoker mode, serialises what runs the conductor.
    conductor_turn: Option<Mutex<()>>,
    dir: PathBuf,
}

// SAFETY: the C client has no thread affinity. Its conductor state is touched by its own thread or, in invoker mode, under
// `conductor_turn`; the rest of what `Connection` calls (ids, the closed flag, counters, command queue) is atomic in C.
unsafe impl Send for Connection {}
// SAFETY: as for `Send`; every method takes `&self` on those grounds.
unsafe impl Sync for Connection {}

impl Connection {
    pub(crate) fn open(options: &ClientOptions) -> Result<Self, AeronError> {
        let notices = Box::new(Notices::default());
        let context = Context::new(options, &notices)?;
        let mut client = ptr::null_mut();
        // SAFETY: `context` is initialised and is closed after the client; the result is written before use.
        check(unsafe { ffi::aeron_init(&mut client, context.raw.as_ptr()) }, "connect to the media driver")?;
        let Some(client) = NonNull::new(client) else {
            return Err(ffi::last_error("connect to the media driver"));
        };
        let connection = Self {
            client,
            context: context.into_raw(),
            notices,
            conductor_turn: options.use_invoker.then(Mutex::default),
            dir: options.dir.clone(),
        };
        // SAFETY: initialised above and not started yet.
        check(unsafe { ffi::aeron_start(client.as_ptr()) }, "start the client")?;
        Ok(connection)
    }

    /// The driver's directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn client_id(&self) -> i64 {
        // SAFETY: the C client is live; its id never changes.
        unsafe { ffi::aeron_client_id(self.raw()) }
    }

    pub(crate) fn next_correlation_id(&self) -> i64 {
        // SAFETY: the C client is live; the number comes from an atomic of the driver.
        unsafe { ffi::aeron_next_correlation_id(self.raw()) }
    }

    pub(crate) fn image_changes(&self) -> u64 {
        self.notices.lock().image_changes
    }

    pub(crate) fn last_error(&self) -> Option<AeronError> {
        let (code, message) = self.notices.lock().last_error.clone()?;
        Some(AeronError::Library { operation: "do the client's work", code, message })
    }

    /// The C client; live as long as `self`.
    pub(crate) fn raw(&self) -> *mut ffi::aeron_t {
        self.client.as_ptr()
    }

    /// Where C may report images coming and going; valid until the C client is closed.
    pub(crate) fn image_notice_clientd(&self) -> *mut c_void {
        self.notices.as_clientd()
    }

    /// Whether the caller drives the conductor.
    pub(crate) fn is_invoked(&self) -> bool {
        self.conductor_turn.is_some()
    }

    /// Runs a call that in invoker mode works on the conductor's state. `None` when the client was given up.
    pub(crate) fn on_conductor<R>(&self, call: impl FnOnce() -> R) -> Option<R> {
        let _turn =
            self.conductor_turn.as_ref().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
        if self.notices.lock().abandoned {
            return None;
        }
        Some(call())
    }

    /// Asks the conductor for a resource by `request`, which returns the C function's result.
    pub(crate) fn request(&self, request: impl FnOnce() -> c_int) -> Result<(), AeronError> {
        let outcome = self.on_conductor(|| {
            if self.is_closed() {
                return Err(self.closed_error());
            }
            if request() >= 0 {
                return Ok(());
            }
            // In invoker mode the C library frees a request that it could not send but keeps a pointer to it, so the
            // conductor must never run again. It happens only when the driver has stopped reading its full queue.
            if self.is_invoked() {
                self.notices.lock().abandoned = true;
            }
            Err(ffi::last_error("ask the media driver"))
        });
        outcome.unwrap_or_else(|| Err(self.closed_error()))
    }

    pub(crate) fn do_work(&self) -> usize {
        if !self.is_invoked() {
            return 0;
        }
        // SAFETY: the C client is live, in invoker mode, and `on_conductor` lets one thread in at a time.
        let work = self.on_conductor(|| unsafe { ffi::aeron_main_do_work(self.raw()) });
        usize::try_from(work.unwrap_or(0)).unwrap_or(0)
    }

    /// Whether the C client has closed itself; never blocks.
    pub(crate) fn has_ended(&self) -> bool {
        // SAFETY: the C client is live; the flag is atomic.
        unsafe { ffi::aeron_is_closed(self.raw()) }
    }

    /// Whether the client is closed for good.
    pub(crate) fn is_closed(&self) -> bool {
        self.has_ended() || self.notices.lock().abandoned
    }

    pub(crate) fn closed_error(&self) -> AeronError {
        let notices = self.notices.lock();
        let (code, message) = notices.last_error.clone().unwrap_or((0, "closed".into()));
        AeronError::ClientClosed { code, message }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut closed = false;
        if !self.notices.lock().abandoned {
            // SAFETY: the C client is live, nothing made from it exists any more (each holds a reference to `self`), and
            // this is its last use.
            closed = unsafe { ffi::aeron_close(self.client.as_ptr()) } >= 0;
        }
        if closed {
            // SAFETY: the client that used the context is gone, and this is the context's last use.
            unsafe { ffi::aeron_context_close(self.context.as_ptr()) };
        } else {
            // What may still run or be pointed to keeps its memory.
            tracing::warn!(dir = %self.dir.display(), "an Aeron client could not be closed and keeps its memory");
            std::mem::forget(std::mem::take(&mut self.notices));
        }
    }
}

/// What C reports by callbacks, on the conductor's thread.
#[derive(Debug, Default)]
struct Notices {
    state: Mutex<NoticeState>,
}

#[derive(Debug, Default)]
struct NoticeState {
    last_error: Option<(i32, Box<str>)>,
    image_changes: u64,
    /// The conductor must never run again; see [`Connection::request`].
    abandoned: bool,
}

impl Notices {
    fn lock(&self) -> MutexGuard<'_, NoticeState> {
        // Every critical section leaves the state whole, so a panic in one does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn as_clientd(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// Keeps and logs an error of the client's conductor. Installing it also replaces the C library's default handler, which
/// exits the process.
unsafe extern "C" fn on_error(clientd: *mut c_void, code: c_int, message: *const c_char) {
    contained(|| {
        // SAFETY: `clientd` is the address of the connection's `Notices`, which outlives the C client.
        let notices = unsafe { &*clientd.cast::<Notices>() };
        // SAFETY: the library passes a NUL-terminated text that is valid during the call.
        let message = unsafe { text_of(message) };
        tracing::warn!(code, %message, "the Aeron client reported an error");
        notices.lock().last_error = Some((code, message));
    });
}

/// Notes that an image appeared or disappeared.
pub(crate) unsafe extern "C" fn on_image_change(
    clientd: *mut c_void,
    _subscription: *mut ffi::aeron_subscription_t,
    _image: *mut ffi::aeron_image_t,
) {
    contained(|| {
        // SAFETY: `clientd` is the address of the connection's `Notices`, which outlives the C client.
        let notices = unsafe { &*clientd.cast::<Notices>() };
        let mut state = notices.lock();
        state.image_changes = state.image_changes.wrapping_add(1);
    });
}

/// The C client's configuration while it is not used by a client yet.
struct Context {
    raw: NonNull<ffi::aeron_context_t>,
}

type Setter<T> = unsafe extern "C" fn(*mut ffi::aeron_context_t, T) -> c_int;

impl Context {
    fn new(options: &ClientOptions, notices: &Notices) -> Result<Self, AeronError> {
        const MAX_DIR: usize = ffi::AERON_MAX_PATH as usize - 256;
        const MAX_NAME: usize = 100;
        let dir = ffi::c_text(options.dir.as_os_str().as_bytes(), "dir", MAX_DIR)?;
        let name = ffi::c_text(options.name.as_bytes(), "name", MAX_NAME)?;
        let idle = nanos(options.conductor_idle, "conductor_idle")?;
        let idle_args = ffi::c_text(idle.to_string().as_bytes(), "conductor_idle", 64)?;
        let mut raw = ptr::null_mut();
        // SAFETY: writes the new context, or leaves null and returns an error.
        check(unsafe { ffi::aeron_context_init(&mut raw) }, "make a client context")?;
        let Some(raw) = NonNull::new(raw) else { return Err(ffi::last_error("make a client context")) };
        let context = Self { raw };
        // SAFETY: the context is live, the handler has the library's signature, and `notices` outlives the client.
        let set = unsafe {
            ffi::aeron_context_set_error_handler(raw.as_ptr(), Some(on_error), notices.as_clientd())
        };
        check(set, "configure the client")?;
        context.set(ffi::aeron_context_set_dir, dir.as_ptr())?;
        context.set(ffi::aeron_context_set_client_name, name.as_ptr())?;
        let timeout = millis(options.driver_timeout, "driver_timeout")?;
        context.set(ffi::aeron_context_set_driver_timeout_ms, timeout)?;
        context.set(ffi::aeron_context_set_idle_sleep_duration_ns, idle)?;
        // Setting the strategy builds it from the arguments that are there at that moment.
        context.set(ffi::aeron_context_set_idle_strategy_init_args, idle_args.as_ptr())?;
        context.set(ffi::aeron_context_set_idle_strategy, c"sleep-ns".as_ptr())?;
        context.set(ffi::aeron_context_set_use_conductor_agent_invoker, options.use_invoker)?;
        Ok(context)
    }

    /// Calls one of the library's setters; a text is alive during the call, and the library copies it.
    fn set<T>(&self, setter: Setter<T>, value: T) -> Result<(), AeronError> {
        // SAFETY: the context is live, every caller passes one of `aeron_context_set_*` with a value of its type.
        check(unsafe { setter(self.raw.as_ptr(), value) }, "configure the client").map(|_| ())
    }

    fn into_raw(self) -> NonNull<ffi::aeron_context_t> {
        std::mem::ManuallyDrop::new(self).raw
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is live, no client uses it, and this is its last use.
        unsafe { ffi::aeron_context_close(self.raw.as_ptr()) };
    }
}
