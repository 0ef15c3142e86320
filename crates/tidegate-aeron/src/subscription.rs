//! Receiving messages.

use std::any::Any;
use std::ffi::{CStr, c_int, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::assembler::{Assembler, FrameHeader};
use crate::connection::{Connection, on_image_change};
use crate::error::{AeronError, Resource};
use crate::ffi::{self, aeron_controlled_fragment_handler_action_t as Action};
use crate::pending::{Request, sealed::Registrable};
use crate::publication::Position;

/// One complete message, put together from its fragments.
#[derive(Debug, Clone, Copy)]
pub struct Fragment<'a> {
    /// The message. The bytes are this process's own and valid during the call only.
    pub data: &'a [u8],
    /// The session of the publication that sent it.
    pub session_id: i32,
    /// The Aeron stream id.
    pub stream_id: i32,
    /// The stream position after the message.
    pub position: Position,
}

/// Receives messages of one channel and stream. Dropping it closes it.
///
/// Used by one thread at a time; it may move between threads.
pub struct Subscription {
    connection: Arc<Connection>,
    raw: NonNull<ffi::aeron_subscription_t>,
    channel: Box<str>,
    stream_id: i32,
    assembler: Assembler,
    live_sessions: Vec<i32>,
}

// SAFETY: the C subscription has no thread affinity; what of it is not made for concurrent use is used by the one thread
// that has this value, which is not `Sync`.
unsafe impl Send for Subscription {}

impl Subscription {
    /// Takes at most `fragment_limit` fragments from the log and shows each message they complete to `handler` (TP-020).
    /// Returns the number of fragments taken; 0 means that there is nothing to do now.
    ///
    /// # Errors
    /// [`AeronError::ClientClosed`] when the client is closed, [`AeronError::Library`] otherwise.
    ///
    /// # Panics
    /// When `handler` panics; the message it was shown counts as taken, those after it do not.
    pub fn poll(
        &mut self,
        fragment_limit: usize,
        handler: &mut dyn FnMut(Fragment<'_>),
    ) -> Result<usize, AeronError> {
        if self.assembler.wants_pruning() {
            self.forget_departed_sessions();
        }
        let mut delivery =
            Delivery { assembler: &mut self.assembler, handler, stream_id: self.stream_id, panic: None };
        // SAFETY: the C subscription is live until `self` is dropped and used by this thread only; `delivery` is live
        // during the call and is what `on_fragment` expects.
        let taken = unsafe {
            ffi::aeron_subscription_controlled_poll(
                self.raw.as_ptr(),
                Some(on_fragment),
                ptr::from_mut(&mut delivery).cast(),
                fragment_limit,
            )
        };
        if let Some(panic) = delivery.panic {
            resume_unwind(panic);
        }
        match usize::try_from(taken) {
            // A closed subscription also has nothing to take.
            Ok(0) | Err(_) if self.connection.has_ended() => Err(self.connection.closed_error()),
            Ok(taken) => Ok(taken),
            Err(_) => Err(ffi::last_error("poll a subscription")),
        }
    }

    /// Number of publications that this subscription receives from.
    pub fn image_count(&self) -> usize {
        // SAFETY: the C subscription is live until `self` is dropped and used by this thread only.
        usize::try_from(unsafe { ffi::aeron_subscription_image_count(self.raw.as_ptr()) }).unwrap_or(0)
    }

    /// Replaces `sessions` by the sessions of the publications that this subscription receives from.
    /// [`Client::image_changes`](crate::Client::image_changes) tells when it is worth asking.
    pub fn image_sessions(&self, sessions: &mut Vec<i32>) {
        sessions.clear();
        // SAFETY: the C subscription is live until `self` is dropped and used by this thread only; `sessions` is live
        // during the call and is what `push_session` expects.
        unsafe {
            ffi::aeron_subscription_for_each_image(
                self.raw.as_ptr(),
                Some(push_session),
                ptr::from_mut(sessions).cast(),
            );
        }
    }

    /// Whether at least one publication is open.
    pub fn is_connected(&self) -> bool {
        // SAFETY: the C subscription is live until `self` is dropped and used by this thread only.
        unsafe { ffi::aeron_subscription_is_connected(self.raw.as_ptr()) }
    }

    /// The channel URI as given.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The Aeron stream id.
    pub fn stream_id(&self) -> i32 {
        self.stream_id
    }

    /// Fragments discarded because the rest of their message was missed.
    pub fn discarded_fragments(&self) -> u64 {
        self.assembler.discarded()
    }

    fn forget_departed_sessions(&mut self) {
        let mut live = std::mem::take(&mut self.live_sessions);
        self.image_sessions(&mut live);
        self.assembler.retain(&live);
        self.live_sessions = live;
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Subscription")
            .field("channel", &self.channel)
            .field("stream_id", &self.stream_id)
            .finish_non_exhaustive()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.connection.on_conductor(|| {
            // SAFETY: the C subscription is live and this is its last use. On a closed client the call does nothing and the
            // client frees the subscription.
            unsafe { ffi::aeron_subscription_close(self.raw.as_ptr(), None, ptr::null_mut()) }
        });
    }
}

impl Registrable for Subscription {
    type Raw = ffi::aeron_subscription_t;
    const POLL: unsafe extern "C" fn(*mut *mut Self::Raw, *mut Request) -> c_int =
        ffi::aeron_async_add_subscription_poll;
    const CANCEL: unsafe extern "C" fn(*mut ffi::aeron_t, *mut Request) -> c_int =
        ffi::aeron_async_add_subscription_cancel;

    fn add(connection: &Connection, resource: &Resource, text: &CStr, request: &mut *mut Request) -> c_int {
        let stream_id = resource.stream().map_or(0, |(_, stream_id)| stream_id);
        // SAFETY: the client is live, the text is NUL-terminated and copied by the library, `request` is writable, and the
        // notice address is valid for as long as the client may call the handlers.
        unsafe {
            ffi::aeron_async_add_subscription(
                request,
                connection.raw(),
                text.as_ptr(),
                stream_id,
                Some(on_image_change),
                connection.image_notice_clientd(),
                Some(on_image_change),
                connection.image_notice_clientd(),
            )
        }
    }

    fn wrap(
        connection: Arc<Connection>,
        raw: NonNull<ffi::aeron_subscription_t>,
        resource: Resource,
    ) -> Result<Self, AeronError> {
        let (channel, stream_id) = resource.stream().unwrap_or_default();
        Ok(Self {
            connection,
            raw,
            channel: channel.into(),
            stream_id,
            assembler: Assembler::default(),
            live_sessions: Vec::new(),
        })
    }
}

/// What one poll works with.
struct Delivery<'a, 'h> {
    assembler: &'a mut Assembler,
    handler: &'a mut (dyn FnMut(Fragment<'_>) + 'h),
    stream_id: i32,
    panic: Option<Box<dyn Any + Send>>,
}

/// Takes one fragment. After a panic it takes this one and leaves all others, of other images too, in the log.
unsafe extern "C-unwind" fn on_fragment(
    clientd: *mut c_void,
    buffer: *const u8,
    length: usize,
    header: *mut ffi::aeron_header_t,
) -> Action {
    // SAFETY: `clientd` is the `Delivery` of the poll that is running, which nothing else uses meanwhile.
    let delivery = unsafe { &mut *clientd.cast::<Delivery<'_, '_>>() };
    if delivery.panic.is_some() {
        return Action::AERON_ACTION_ABORT;
    }
    let delivered = catch_unwind(AssertUnwindSafe(|| {
        let Some((frame, position)) = read_header(header, length) else { return };
        let (session_id, stream_id) = (frame.session_id, delivery.stream_id);
        let handler = &mut *delivery.handler;
        delivery.assembler.accept(
            &frame,
            length,
            // SAFETY: the library passes `length` readable bytes of the log, mapped during the call.
            |bytes| unsafe { append(bytes, buffer, length) },
            |data| handler(Fragment { data, session_id, stream_id, position }),
        );
    }));
    match delivered {
        Ok(()) => Action::AERON_ACTION_CONTINUE,
        Err(panic) => {
            delivery.panic = Some(panic);
            Action::AERON_ACTION_BREAK
        }
    }
}

/// A copy of a frame's header, and the stream position after the frame. `None` for a frame longer than its term, which no
/// publisher writes.
fn read_header(header: *mut ffi::aeron_header_t, length: usize) -> Option<(FrameHeader, Position)> {
    let mut values = ffi::aeron_header_values_t::default();
    // SAFETY: the library passes a header that is valid during the call, and `values` is writable.
    if unsafe { ffi::aeron_header_values(header, &mut values) } < 0 {
        return None;
    }
    // SAFETY: as above.
    let position = unsafe { ffi::aeron_header_position(header) };
    let frame = values.frame;
    let term_length = 1_usize.checked_shl(u32::try_from(values.position_bits_to_shift).ok()?)?;
    if length > term_length {
        return None;
    }
    let frame = FrameHeader {
        flags: frame.flags,
        session_id: frame.session_id,
        term_id: frame.term_id,
        term_offset: frame.term_offset,
    };
    Some((frame, Position(position)))
}

/// Appends bytes of a log to a buffer. Raw memory is copied and never referred to, because its publisher can still write
/// it.
///
/// # Safety
/// `source` must point to `length` readable bytes outside `bytes`.
unsafe fn append(bytes: &mut Vec<u8>, source: *const u8, length: usize) {
    bytes.reserve(length);
    let room = bytes.spare_capacity_mut().as_mut_ptr().cast::<u8>();
    // SAFETY: readable by this function's contract; `reserve` has made `length` writable bytes at `room`.
    unsafe { ptr::copy_nonoverlapping(source, room, length) };
    let filled = bytes.len() + length;
    // SAFETY: within the reserved capacity, and initialised by the copy.
    unsafe { bytes.set_len(filled) };
}

/// Adds an image's session to the list.
unsafe extern "C" fn push_session(image: *mut ffi::aeron_image_t, clientd: *mut c_void) {
    // SAFETY: `clientd` is the list passed to the running iteration, which nothing else uses meanwhile.
    let sessions = unsafe { &mut *clientd.cast::<Vec<i32>>() };
    let mut constants = ffi::aeron_image_constants_t::default();
    // SAFETY: the library passes an image that it keeps during the call, and `constants` is writable.
    if unsafe { ffi::aeron_image_constants(image, &mut constants) } >= 0 {
        sessions.push(constants.session_id);
    }
}
