//! The handle by which a connection is reached from any thread.

use std::{fmt, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::io::ioctl_fionread;
use socket2::SockRef;

use super::{
    event::Traffic,
    send,
    table::Key,
    token::Token,
    worker::{BATCH, Door},
};
use crate::{
    batch::WriteBatch,
    sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, lock},
};

/// Reaches a connection from any thread, also after it has ended (then without effect).
///
/// Calls return at once; what they ask for happens on the connection's worker.
#[derive(Clone)]
pub struct Control(pub(super) Arc<Shared>);

impl Control {
    /// Has [`Connection::fill`](crate::protocol::Connection::fill) called soon. Calls are coalesced (MQ-058).
    #[inline]
    pub fn kick(&self) {
        self.0.request(KICK);
    }

    /// Goes on reading after [`Flow::Pause`](crate::protocol::Flow::Pause).
    pub fn resume(&self) {
        self.0.request(RESUME);
    }

    /// Has [`Connection::fill`](crate::protocol::Connection::fill) called before any [writer](Self::writer) gets the write
    /// side: for the connection itself, before others learn that they may write.
    pub fn write_first(&self) {
        self.0.token.keep_for_pump();
        self.0.request(KICK);
    }

    /// The stream has become useful: its handshake is complete. Ends its time as a pending handshake of its listener
    /// (MQ-262), and tells its dialer that the attempt has succeeded (MQ-278).
    pub fn established(&self) {
        self.0.request(ESTABLISHED);
    }

    /// Does what [`Flow::Close`](crate::protocol::Flow::Close) does.
    pub fn close(&self) {
        self.0.request(CLOSE);
    }

    /// Does what [`Flow::Close`](crate::protocol::Flow::Close) does, and aborts when that takes longer than `linger`.
    pub fn close_within(&self, linger: Duration) {
        let linger = u64::try_from(linger.as_nanos()).unwrap_or(u64::MAX);
        // Relaxed: published by the request that follows.
        self.0.linger.fetch_min(linger, Ordering::Relaxed);
        self.0.request(CLOSE);
    }

    /// Does what [`Flow::Abort`](crate::protocol::Flow::Abort) does.
    pub fn abort(&self) {
        self.0.request(ABORT);
    }

    /// The right to write to the stream from this thread, if nobody writes just now (MQ-057).
    ///
    /// The caller must know that the connection has nothing to write that must come first.
    #[inline]
    pub fn writer(&self) -> Option<DirectWriter<'_>> {
        self.0.token.try_direct().then(|| DirectWriter { shared: &self.0, rest: false })
    }

    /// Bytes carried so far.
    pub fn traffic(&self) -> Traffic {
        self.0.traffic()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("key", &self.0.key).finish_non_exhaustive()
    }
}

/// Exclusive right to write to a stream; given back when dropped.
#[derive(Debug)]
pub struct DirectWriter<'a> {
    shared: &'a Shared,
    rest: bool,
}

impl DirectWriter<'_> {
    /// Writes `batch` as far as that is possible without waiting. What is left is written by the worker, before
    /// anything else; an error is left for the worker to meet, too. `batch` is empty afterwards.
    ///
    /// Returns how many bytes are left to the worker, or are lost because the stream has ended; 0 if all were written. When
    /// they are out the worker calls [`Connection::fill`](crate::protocol::Connection::fill) for what comes next.
    pub fn write(mut self, batch: &mut WriteBatch) -> usize {
        let mut held = self.shared.held();
        let before = batch.len();
        held.prepare_for(batch);
        let Some(fd) = &held.fd else {
            batch.clear();
            return before;
        };
        let _ = send::now(fd, batch);
        let left = batch.len();
        self.shared.add_sent(before - left);
        if left > 0 {
            let mut rest = WriteBatch::new(BATCH);
            for segment in batch.segments() {
                rest.put_shared(segment.clone());
            }
            batch.clear();
            held.rest = Some(rest);
            drop(held);
            self.rest = true;
        }
        left
    }
}

impl Drop for DirectWriter<'_> {
    fn drop(&mut self) {
        if self.shared.token.release_direct(self.rest) {
            self.shared.request(KICK);
        }
    }
}

pub(super) const KICK: u32 = 1;
pub(super) const RESUME: u32 = 1 << 1;
pub(super) const ESTABLISHED: u32 = 1 << 2;
pub(super) const CLOSE: u32 = 1 << 3;
pub(super) const ABORT: u32 = 1 << 4;
/// Make room for a newcomer, unless established.
pub(super) const DISPLACE: u32 = 1 << 5;

/// What a connection's worker and its controls share.
pub(super) struct Shared {
    pub(super) key: Key,
    pub(super) door: Arc<Door>,
    /// What is asked for; whoever makes it non-empty tells the worker.
    requests: AtomicU32,
    /// Nanoseconds that closing may take.
    linger: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    pub(super) token: Token,
    held: Mutex<Held>,
}

/// The write side as the token's holder has it.
pub(super) struct Held {
    /// Gone when the stream has ended, so that a control that lives on does not keep the descriptor open.
    pub(super) fd: Option<Arc<OwnedFd>>,
    /// What a direct write has left over.
    pub(super) rest: Option<WriteBatch>,
    /// Send buffer that is to be set before the first large frame.
    large_send_buffer: Option<usize>,
}

/// Bytes of a frame from which on it is large.
const LARGE: usize = 128 * 1024;

impl Held {
    /// This is about to be written.
    pub(super) fn prepare_for(&mut self, batch: &mut WriteBatch) {
        if self.large_send_buffer.is_some()
            && batch.len() >= LARGE
            && batch.segments().iter().any(|segment| segment.len() >= LARGE)
            && let (Some(fd), Some(size)) = (&self.fd, self.large_send_buffer.take())
        {
            // Without it the stream is slower and no less right.
            let _ = SockRef::from(&**fd).set_send_buffer_size(size);
        }
    }
}

impl Shared {
    pub(super) fn new(key: Key, door: Arc<Door>, fd: Arc<OwnedFd>, large_send_buffer: Option<usize>) -> Self {
        Self {
            key,
            door,
            requests: AtomicU32::new(0),
            linger: AtomicU64::new(u64::MAX),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            token: Token::new(),
            held: Mutex::new(Held { fd: Some(fd), rest: None, large_send_buffer }),
        }
    }

    #[inline]
    pub(super) fn request(&self, bits: u32) {
        // Release publishes what the caller wants to be seen, to `requests`; acquire is for the one that finds them
        // empty and so orders its post after the worker's last look.
        if self.requests.fetch_or(bits, Ordering::AcqRel) == 0 {
            self.door.kick(self.key);
        }
    }

    /// Takes what was asked for.
    pub(super) fn requests(&self) -> u32 {
        // Acquire pairs with the release in `request`.
        self.requests.swap(0, Ordering::AcqRel)
    }

    pub(super) fn linger(&self) -> Option<Duration> {
        // Relaxed: published by the request.
        let nanos = self.linger.load(Ordering::Relaxed);
        (nanos != u64::MAX).then(|| Duration::from_nanos(nanos))
    }

    /// Whether the peer has not said a word, not even one that is still to be read.
    pub(super) fn is_silent(&self) -> bool {
        self.traffic().received == 0
            && self.held().fd.as_ref().is_some_and(|fd| ioctl_fionread(fd).is_ok_and(|unread| unread == 0))
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }

    // Relaxed below: counters, read by people.
    /// By the worker alone, which counts: to add here would wait for memory that is seldom in the cache.
    pub(super) fn set_received(&self, bytes: u64) {
        self.received.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic { received: self.received.load(Ordering::Relaxed), sent: self.sent.load(Ordering::Relaxed) }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("key", &self.key).finish_non_exhaustive()
    }
}
