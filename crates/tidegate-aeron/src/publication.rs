//! Sending messages.
//!
//! Both kinds of publication share one implementation, [`PublicationOf`], which calls the C functions of its kind.

use std::ffi::{CStr, c_int, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::connection::Connection;
use crate::error::{AeronError, OfferError, Resource};
use crate::ffi;
use crate::pending::{Request, sealed::Registrable};

/// A publication whose log is shared by all publishers of its channel and stream.
pub type Publication = PublicationOf<Shared>;

/// A publication with a log, and so a session, of its own.
pub type ExclusivePublication = PublicationOf<Exclusive>;

/// Marks a [`Publication`].
#[derive(Debug, Clone, Copy)]
pub enum Shared {}

/// Marks an [`ExclusivePublication`].
#[derive(Debug, Clone, Copy)]
pub enum Exclusive {}

/// Whether a publication shares its log: [`Shared`] or [`Exclusive`].
pub trait LogAccess: sealed::LogAccess {}

impl<A: sealed::LogAccess> LogAccess for A {}

/// Bytes from the start of a stream, message headers and padding included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub i64);

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl From<Position> for i64 {
    fn from(position: Position) -> Self {
        position.0
    }
}

/// Sends messages on one channel and stream. Dropping it closes it.
///
/// Used by one thread at a time, hence `&mut self`; it may move between threads. A message is taken whole or not at all,
/// and nothing here allocates.
pub struct PublicationOf<A: LogAccess> {
    connection: Arc<Connection>,
    raw: NonNull<A::Raw>,
    channel: Box<str>,
    stream_id: i32,
    session_id: i32,
    max_message_length: usize,
    max_payload_length: usize,
}

// SAFETY: the C publication has no thread affinity and belongs to `self` alone; its log is made for concurrent use.
unsafe impl<A: LogAccess> Send for PublicationOf<A> {}

impl<A: LogAccess> PublicationOf<A> {
    /// Sends a copy of `message`, in fragments when it is longer than [`max_payload_length`](Self::max_payload_length)
    /// (TP-021). Returns the stream position after it.
    ///
    /// # Errors
    /// [`OfferError::BackPressured`] and [`OfferError::AdminAction`] when it makes sense to offer again,
    /// [`OfferError::TooLong`] beyond [`max_message_length`](Self::max_message_length), and the other [`OfferError`]s.
    pub fn offer(&mut self, message: &[u8]) -> Result<Position, OfferError> {
        if message.len() > self.max_message_length {
            return Err(OfferError::TooLong { length: message.len(), max: self.max_message_length });
        }
        // SAFETY: the C publication is live until `self` is dropped, the bytes are live during the call, and no supplier of
        // reserved values is passed.
        let result =
            unsafe { (A::OFFER)(self.raw.as_ptr(), message.as_ptr(), message.len(), None, ptr::null_mut()) };
        outcome(result)
    }

    /// Reserves `length` bytes in the log, lets `fill` write them in place, and sends them. Returns the stream position
    /// after the message. The bytes hold whatever was there before; when `fill` fails or panics nothing is sent.
    ///
    /// # Errors
    /// As [`offer`](Self::offer), with [`OfferError::TooLong`] beyond [`max_payload_length`](Self::max_payload_length) and
    /// [`OfferError::Aborted`] when `fill` returned an error.
    pub fn try_claim<E>(
        &mut self,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Position, OfferError> {
        if length > self.max_payload_length {
            return Err(OfferError::TooLong { length, max: self.max_payload_length });
        }
        let mut claim = ffi::aeron_buffer_claim_t::default();
        // SAFETY: the C publication is live until `self` is dropped, and `claim` is writable.
        let position = outcome(unsafe { (A::CLAIM)(self.raw.as_ptr(), length, &mut claim) })?;
        let mut claim = Claim { claim, is_committed: false };
        if fill(claim.bytes()).is_err() {
            return Err(OfferError::Aborted);
        }
        claim.commit();
        Ok(position)
    }

    /// Whether somebody subscribes.
    pub fn is_connected(&self) -> bool {
        // SAFETY: the C publication is live until `self` is dropped.
        unsafe { (A::IS_CONNECTED)(self.raw.as_ptr()) }
    }

    /// The stream position after the last message; `None` when the publication is closed.
    pub fn position(&self) -> Option<Position> {
        // SAFETY: the C publication is live until `self` is dropped.
        let position = unsafe { (A::POSITION)(self.raw.as_ptr()) };
        (position >= 0).then_some(Position(position))
    }

    /// The channel URI as given.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The Aeron stream id.
    pub fn stream_id(&self) -> i32 {
        self.stream_id
    }

    /// The session by which subscribers tell this publication's log from others.
    pub fn session_id(&self) -> i32 {
        self.session_id
    }

    /// The longest message that [`offer`](Self::offer) takes, in bytes.
    pub fn max_message_length(&self) -> usize {
        self.max_message_length
    }

    /// The longest message that goes in one fragment, and that [`try_claim`](Self::try_claim) takes, in bytes.
    pub fn max_payload_length(&self) -> usize {
        self.max_payload_length
    }
}

impl<A: LogAccess> fmt::Debug for PublicationOf<A> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Publication")
            .field("channel", &self.channel)
            .field("stream_id", &self.stream_id)
            .field("session_id", &self.session_id)
            .finish_non_exhaustive()
    }
}

impl<A: LogAccess> Drop for PublicationOf<A> {
    fn drop(&mut self) {
        self.connection.on_conductor(|| {
            // SAFETY: the C publication is live and this is its last use. On a closed client the call does nothing and the
            // client frees the publication.
            unsafe { (A::CLOSE)(self.raw.as_ptr(), None, ptr::null_mut()) }
        });
    }
}

impl<A: LogAccess> Registrable for PublicationOf<A> {
    type Raw = A::Raw;
    const POLL: unsafe extern "C" fn(*mut *mut A::Raw, *mut Request) -> c_int = A::POLL;
    const CANCEL: unsafe extern "C" fn(*mut ffi::aeron_t, *mut Request) -> c_int = A::CANCEL;

    fn add(connection: &Connection, resource: &Resource, text: &CStr, request: &mut *mut Request) -> c_int {
        let stream_id = resource.stream().map_or(0, |(_, stream_id)| stream_id);
        // SAFETY: the client is live, the text is NUL-terminated and copied by the library, and `request` is writable.
        unsafe { (A::ADD)(request, connection.raw(), text.as_ptr(), stream_id) }
    }

    fn wrap(
        connection: Arc<Connection>,
        raw: NonNull<A::Raw>,
        resource: Resource,
    ) -> Result<Self, AeronError> {
        let (channel, stream_id) = resource.stream().unwrap_or_default();
        let mut publication = Self {
            connection,
            raw,
            channel: channel.into(),
            stream_id,
            session_id: 0,
            max_message_length: 0,
            max_payload_length: 0,
        };
        let mut constants = ffi::aeron_publication_constants_t::default();
        // SAFETY: the C publication is live, and `constants` is writable.
        let filled = unsafe { (A::CONSTANTS)(raw.as_ptr(), &mut constants) };
        ffi::check(filled, "read the constants of a publication")?;
        publication.session_id = constants.session_id;
        publication.max_message_length = constants.max_message_length;
        publication.max_payload_length = constants.max_payload_length;
        Ok(publication)
    }
}

/// A reserved place in a log. Unless committed it becomes padding, also when filling it panics.
struct Claim {
    claim: ffi::aeron_buffer_claim_t,
    is_committed: bool,
}

impl Claim {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: a successful claim points to `length` mapped bytes of the log that no subscriber reads and no other
        // publisher is given until the claim is committed or aborted; the log stays mapped while the publication, which the
        // caller borrows, lives. The bytes are initialised: they are a file's.
        unsafe { std::slice::from_raw_parts_mut(self.claim.data, self.claim.length) }
    }

    fn commit(mut self) {
        self.is_committed = true;
        // SAFETY: the claim succeeded and is neither committed nor aborted yet.
        unsafe { ffi::aeron_buffer_claim_commit(&mut self.claim) };
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_committed {
            // SAFETY: the claim succeeded and is neither committed nor aborted yet.
            unsafe { ffi::aeron_buffer_claim_abort(&mut self.claim) };
        }
    }
}

/// Reads the result of an offer or a claim.
fn outcome(result: i64) -> Result<Position, OfferError> {
    if result >= 0 {
        return Ok(Position(result));
    }
    Err(match i32::try_from(result) {
        Ok(ffi::AERON_PUBLICATION_NOT_CONNECTED) => OfferError::NotConnected,
        Ok(ffi::AERON_PUBLICATION_BACK_PRESSURED) => OfferError::BackPressured,
        Ok(ffi::AERON_PUBLICATION_ADMIN_ACTION) => OfferError::AdminAction,
        Ok(ffi::AERON_PUBLICATION_CLOSED) => OfferError::Closed,
        Ok(ffi::AERON_PUBLICATION_MAX_POSITION_EXCEEDED) => OfferError::MaxPositionExceeded,
        _ => OfferError::Other(ffi::last_error("offer a message")),
    })
}

mod sealed {
    use super::{Exclusive, Request, Shared, c_int, c_void, ffi};
    use std::ffi::c_char;

    type Add = unsafe extern "C" fn(*mut *mut Request, *mut ffi::aeron_t, *const c_char, i32) -> c_int;
    type Offer<R> = unsafe extern "C" fn(
        *mut R,
        *const u8,
        usize,
        ffi::aeron_reserved_value_supplier_t,
        *mut c_void,
    ) -> i64;
    type Claim<R> = unsafe extern "C" fn(*mut R, usize, *mut ffi::aeron_buffer_claim_t) -> i64;
    type Constants<R> = unsafe extern "C" fn(*mut R, *mut ffi::aeron_publication_constants_t) -> c_int;
    type Close<R> = unsafe extern "C" fn(*mut R, ffi::aeron_notification_t, *mut c_void) -> c_int;

    /// The C functions of one kind of publication.
    pub trait LogAccess {
        type Raw;
        const ADD: Add;
        const POLL: unsafe extern "C" fn(*mut *mut Self::Raw, *mut Request) -> c_int;
        const CANCEL: unsafe extern "C" fn(*mut ffi::aeron_t, *mut Request) -> c_int;
        const OFFER: Offer<Self::Raw>;
        const CLAIM: Claim<Self::Raw>;
        const IS_CONNECTED: unsafe extern "C" fn(*mut Self::Raw) -> bool;
        const POSITION: unsafe extern "C" fn(*mut Self::Raw) -> i64;
        const CONSTANTS: Constants<Self::Raw>;
        const CLOSE: Close<Self::Raw>;
    }

    impl LogAccess for Shared {
        type Raw = ffi::aeron_publication_t;
        const ADD: Add = ffi::aeron_async_add_publication;
        const POLL: unsafe extern "C" fn(*mut *mut Self::Raw, *mut Request) -> c_int =
            ffi::aeron_async_add_publication_poll;
        const CANCEL: unsafe extern "C" fn(*mut ffi::aeron_t, *mut Request) -> c_int =
            ffi::aeron_async_add_publication_cancel;
        const OFFER: Offer<Self::Raw> = ffi::aeron_publication_offer;
        const CLAIM: Claim<Self::Raw> = ffi::aeron_publication_try_claim;
        const IS_CONNECTED: unsafe extern "C" fn(*mut Self::Raw) -> bool =
            ffi::aeron_publication_is_connected;
        const POSITION: unsafe extern "C" fn(*mut Self::Raw) -> i64 = ffi::aeron_publication_position;
        const CONSTANTS: Constants<Self::Raw> = ffi::aeron_publication_constants;
        const CLOSE: Close<Self::Raw> = ffi::aeron_publication_close;
    }

    impl LogAccess for Exclusive {
        type Raw = ffi::aeron_exclusive_publication_t;
        const ADD: Add = ffi::aeron_async_add_exclusive_publication;
        const POLL: unsafe extern "C" fn(*mut *mut Self::Raw, *mut Request) -> c_int =
            ffi::aeron_async_add_exclusive_publication_poll;
        const CANCEL: unsafe extern "C" fn(*mut ffi::aeron_t, *mut Request) -> c_int =
            ffi::aeron_async_add_exclusive_publication_cancel;
        const OFFER: Offer<Self::Raw> = ffi::aeron_exclusive_publication_offer;
        const CLAIM: Claim<Self::Raw> = ffi::aeron_exclusive_publication_try_claim;
        const IS_CONNECTED: unsafe extern "C" fn(*mut Self::Raw) -> bool =
            ffi::aeron_exclusive_publication_is_connected;
        const POSITION: unsafe extern "C" fn(*mut Self::Raw) -> i64 =
            ffi::aeron_exclusive_publication_position;
        const CONSTANTS: Constants<Self::Raw> = ffi::aeron_exclusive_publication_constants;
        const CLOSE: Close<Self::Raw> = ffi::aeron_exclusive_publication_close;
    }
}
