//! A request to the media driver that has not been answered yet.
//!
//! The C library keeps a request until its answer was polled, then frees it at a time of its own. So the handle is dropped
//! as soon as a poll has returned an answer, and a request that nobody waits for any more is cancelled, which also closes
//! what the driver may have granted meanwhile.

use std::ffi::{CString, c_int};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::error::{AeronError, Resource};
use crate::ffi;

/// What can be asked of a media driver: [`Publication`](crate::Publication),
/// [`ExclusivePublication`](crate::ExclusivePublication), [`Subscription`](crate::Subscription) and
/// [`Counter`](crate::Counter).
pub trait Registrable: sealed::Registrable {}

impl<T: sealed::Registrable> Registrable for T {}

pub(crate) type Request = ffi::aeron_async_add_publication_t;

pub(crate) mod sealed {
    use super::{AeronError, Arc, Connection, NonNull, Request, Resource, c_int, ffi};
    use std::ffi::CStr;

    pub trait Registrable: Sized {
        /// The C object.
        type Raw;
        /// The library's poll function for this kind.
        const POLL: unsafe extern "C" fn(*mut *mut Self::Raw, *mut Request) -> c_int;
        /// The library's cancel function for this kind.
        const CANCEL: unsafe extern "C" fn(*mut ffi::aeron_t, *mut Request) -> c_int;

        /// Calls the library's add function for this kind, with the channel or label of `resource` as `text`.
        fn add(
            connection: &Connection,
            resource: &Resource,
            text: &CStr,
            request: &mut *mut Request,
        ) -> c_int;

        /// Wraps the C object, which nothing else refers to.
        fn wrap(
            connection: Arc<Connection>,
            raw: NonNull<Self::Raw>,
            resource: Resource,
        ) -> Result<Self, AeronError>;
    }
}

/// A request that has not been answered yet. Dropping it cancels the request.
#[derive(Debug)]
pub struct Pending<T: Registrable> {
    connection: Arc<Connection>,
    /// `None` once answered.
    request: Option<NonNull<Request>>,
    resource: Resource,
    started: Instant,
    kind: std::marker::PhantomData<fn() -> T>,
}

// SAFETY: the request belongs to the connection, which may be used from any thread; its state is atomic in C.
unsafe impl<T: Registrable> Send for Pending<T> {}

impl<T: Registrable> Pending<T> {
    pub(crate) fn begin(connection: &Arc<Connection>, resource: Resource) -> Result<Self, AeronError> {
        let text = c_text(&resource)?;
        let mut request = ptr::null_mut();
        connection.request(|| T::add(connection, &resource, &text, &mut request))?;
        let request = NonNull::new(request);
        let connection = Arc::clone(connection);
        Ok(Self { connection, request, resource, started: Instant::now(), kind: std::marker::PhantomData })
    }

    /// Asks whether the answer is there: `None` while it is not. With an invoked client the answer comes only while
    /// [`Client::do_work`](crate::Client::do_work) is called. After an answer, keeps returning `None`.
    ///
    /// # Errors
    /// [`AeronError::Registration`] when the driver refused, [`AeronError::TimedOut`] when it did not answer within the
    /// client's `driver_timeout`, [`AeronError::ClientClosed`] when the client was closed meanwhile.
    pub fn poll(&mut self) -> Result<Option<T>, AeronError> {
        let Some(request) = self.request else { return Ok(None) };
        let mut raw = ptr::null_mut();
        // SAFETY: the request is live: the library frees it only after a poll that returned an answer, whereupon
        // `self.request` becomes `None`, or with the client, which `self.connection` keeps.
        let answer = unsafe { (T::POLL)(&mut raw, request.as_ptr()) };
        if answer == 0 {
            return if self.connection.is_closed() { Err(self.connection.closed_error()) } else { Ok(None) };
        }
        self.request = None;
        match NonNull::new(raw) {
            Some(raw) if answer > 0 => {
                T::wrap(Arc::clone(&self.connection), raw, self.resource.clone()).map(Some)
            }
            _ => Err(self.refusal()),
        }
    }

    /// Waits for the answer up to `deadline`, driving an invoked client meanwhile.
    ///
    /// # Errors
    /// As [`Pending::poll`], and [`AeronError::TimedOut`] after `deadline`.
    pub fn wait(mut self, deadline: Duration) -> Result<T, AeronError> {
        let started = Instant::now();
        loop {
            self.connection.do_work();
            if let Some(resource) = self.poll()? {
                return Ok(resource);
            }
            let waited = started.elapsed();
            if waited >= deadline {
                return Err(AeronError::TimedOut { resource: Box::new(self.resource.clone()), waited });
            }
            std::thread::sleep(Duration::from_millis(1).min(deadline - waited));
        }
    }

    /// What is being asked for.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    fn refusal(&self) -> AeronError {
        let (code, message) = ffi::take_last_error();
        let resource = Box::new(self.resource.clone());
        if code == ffi::AERON_CLIENT_ERROR_DRIVER_TIMEOUT.cast_signed() {
            return AeronError::TimedOut { resource, waited: self.started.elapsed() };
        }
        AeronError::Registration { resource, code, message }
    }
}

impl<T: Registrable> Drop for Pending<T> {
    fn drop(&mut self) {
        let Some(request) = self.request.take() else { return };
        let connection = &self.connection;
        connection.on_conductor(|| {
            // SAFETY: the client is live, the request is live and unanswered as in `poll`, and this is its last use.
            let cancelled = unsafe { (T::CANCEL)(connection.raw(), request.as_ptr()) };
            if cancelled < 0 {
                // A closed client has cancelled everything; otherwise the request ends with the client.
                let (code, message) = ffi::take_last_error();
                tracing::debug!(code, %message, resource = %self.resource, "could not cancel a request");
            }
        });
    }
}

/// The channel or label as C text. The bounds are Aeron's, beyond which it cuts or refuses without saying so.
fn c_text(resource: &Resource) -> Result<CString, AeronError> {
    const MAX_CHANNEL: usize = 4_095;
    const MAX_LABEL: usize = 380;
    let invalid = |reason| AeronError::InvalidText { resource: Box::new(resource.clone()), reason };
    let (text, max) = match resource {
        Resource::Counter { label, .. } => (label, MAX_LABEL),
        Resource::Publication { channel, .. }
        | Resource::ExclusivePublication { channel, .. }
        | Resource::Subscription { channel, .. } => (channel, MAX_CHANNEL),
    };
    if text.len() > max {
        return Err(invalid("is longer than Aeron allows (4095 bytes for a channel, 380 for a label)"));
    }
    CString::new(text.as_bytes()).map_err(|_| invalid("contains a NUL byte"))
}
