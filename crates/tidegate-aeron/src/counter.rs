//! Counters in the driver's shared memory (TP-469): numbers with labels that every tool of Aeron can show.

// The values live in memory that C and other processes share, so loom's stand-ins of these types could not be used even
// where this crate may depend on them.
#![expect(clippy::disallowed_types, reason = "atomics over memory shared with C")]

use std::any::Any;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::connection::Connection;
use crate::error::{AeronError, Resource};
use crate::ffi;
use crate::pending::{Request, sealed::Registrable};

/// A counter as seen by a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CounterInfo<'a> {
    /// The counter's id, its place in the driver's table. Reused after the counter is gone.
    pub id: i32,
    /// What kind of counter it is.
    pub type_id: i32,
    /// Its label, with unreadable bytes replaced.
    pub label: &'a str,
    /// Its value at the time of reading.
    pub value: i64,
}

/// A counter owned by this client. Dropping it removes it.
///
/// It may be used from several threads; updates are atomic and order nothing else. Once the client is closed they have no
/// effect: the driver may have given the place to another counter.
pub struct Counter {
    connection: Arc<Connection>,
    raw: NonNull<ffi::aeron_counter_t>,
    value: NonNull<i64>,
    id: i32,
}

// SAFETY: the C counter is used when it is made and when it is dropped, and the value is atomic.
unsafe impl Send for Counter {}
// SAFETY: as for `Send`.
unsafe impl Sync for Counter {}

impl Counter {
    /// Replaces the value.
    pub fn set(&self, value: i64) {
        if !self.connection.has_ended() {
            // Relaxed: a statistic; readers in other processes pair with nothing.
            self.cell().store(value, Ordering::Relaxed);
        }
    }

    /// Adds to the value, wrapping around.
    pub fn add(&self, delta: i64) {
        if !self.connection.has_ended() {
            // Relaxed: as for `set`.
            self.cell().fetch_add(delta, Ordering::Relaxed);
        }
    }

    /// The value.
    pub fn get(&self) -> i64 {
        // Relaxed: as for `set`.
        self.cell().load(Ordering::Relaxed)
    }

    /// The counter's id, its place in the driver's table.
    pub fn id(&self) -> i32 {
        self.id
    }

    fn cell(&self) -> &AtomicI64 {
        // SAFETY: the address is aligned and lies in the driver's counters file, which stays mapped while the connection
        // lives; everybody accesses it atomically.
        unsafe { AtomicI64::from_ptr(self.value.as_ptr()) }
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Counter").field("id", &self.id).field("value", &self.get()).finish_non_exhaustive()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.connection.on_conductor(|| {
            // SAFETY: the C counter is live and this is its last use. On a closed client the call does nothing and the
            // client frees the counter.
            unsafe { ffi::aeron_counter_close(self.raw.as_ptr(), None, ptr::null_mut()) }
        });
    }
}

impl Registrable for Counter {
    type Raw = ffi::aeron_counter_t;
    const POLL: unsafe extern "C" fn(*mut *mut Self::Raw, *mut Request) -> c_int =
        ffi::aeron_async_add_counter_poll;
    const CANCEL: unsafe extern "C" fn(*mut ffi::aeron_t, *mut Request) -> c_int =
        ffi::aeron_async_add_counter_cancel;

    fn add(connection: &Connection, resource: &Resource, text: &CStr, request: &mut *mut Request) -> c_int {
        let type_id = if let Resource::Counter { type_id, .. } = resource { *type_id } else { 0 };
        let label = text.to_bytes();
        // SAFETY: the client is live, there is no key, the label is copied by the library, and `request` is writable.
        unsafe {
            ffi::aeron_async_add_counter(
                request,
                connection.raw(),
                type_id,
                ptr::null(),
                0,
                label.as_ptr().cast(),
                label.len(),
            )
        }
    }

    fn wrap(
        connection: Arc<Connection>,
        raw: NonNull<ffi::aeron_counter_t>,
        _resource: Resource,
    ) -> Result<Self, AeronError> {
        let mut constants = ffi::aeron_counter_constants_t::default();
        // SAFETY: the C counter is live, and `constants` is writable.
        let filled = unsafe { ffi::aeron_counter_constants(raw.as_ptr(), &mut constants) };
        // SAFETY: the C counter is live.
        let value = unsafe { ffi::aeron_counter_addr(raw.as_ptr()) };
        match NonNull::new(value).filter(|value| filled >= 0 && value.is_aligned()) {
            Some(value) => Ok(Self { connection, raw, value, id: constants.counter_id }),
            None => Err(ffi::last_error("read the constants of a counter")),
        }
    }
}

/// Shows every counter of the driver to `visit`.
pub(crate) fn for_each(connection: &Connection, mut visit: impl FnMut(CounterInfo<'_>)) {
    // SAFETY: the client is live.
    let reader = unsafe { ffi::aeron_counters_reader(connection.raw()) };
    let mut visitor = Visitor { visit: &mut visit, panic: None };
    // SAFETY: the reader belongs to the live client; `visitor` is live during the call and is what `on_counter` expects.
    unsafe {
        ffi::aeron_counters_reader_foreach_counter(
            reader,
            Some(on_counter),
            ptr::from_mut(&mut visitor).cast(),
        );
    }
    if let Some(panic) = visitor.panic {
        resume_unwind(panic);
    }
}

struct Visitor<'a> {
    visit: &'a mut dyn FnMut(CounterInfo<'_>),
    panic: Option<Box<dyn Any + Send>>,
}

/// Room for a label in a counter's record.
const MAX_LABEL: usize = 380;

unsafe extern "C" fn on_counter(
    value: i64,
    id: i32,
    type_id: i32,
    _key: *const u8,
    _key_length: usize,
    label: *const c_char,
    label_length: usize,
    clientd: *mut c_void,
) {
    // SAFETY: `clientd` is the `Visitor` of the running iteration, which nothing else uses meanwhile.
    let visitor = unsafe { &mut *clientd.cast::<Visitor<'_>>() };
    if visitor.panic.is_some() {
        return;
    }
    // The label's length and bytes are the owner's to change, so the length is bounded and the bytes are copied.
    let mut copy = [0_u8; MAX_LABEL];
    let length = label_length.min(MAX_LABEL);
    // SAFETY: every record of the counters file, mapped by the client, has room for `MAX_LABEL` bytes at `label`.
    unsafe { ptr::copy_nonoverlapping(label.cast::<u8>(), copy.as_mut_ptr(), length) };
    let shown = catch_unwind(AssertUnwindSafe(|| {
        let label = String::from_utf8_lossy(&copy[..length]);
        (visitor.visit)(CounterInfo { id, type_id, label: &label, value });
    }));
    if let Err(panic) = shown {
        visitor.panic = Some(panic);
    }
}
