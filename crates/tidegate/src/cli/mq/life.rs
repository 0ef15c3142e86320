//! How long a command runs: until a signal, until nobody reads what it prints, or until it cannot go on.
//!
//! Whoever finds a reason calls [`Life::end`], which shuts the context down, so that every call that waits returns; the
//! main thread then sends what is still queued, and exits.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tidegate::mq::monitor::{CloseReason, Deadline, Event, EventKind, Monitor};
use tidegate::mq::{AnySocket, Context};

use crate::cli::signal::Interrupt;
use crate::output::{Exit, Stop};

/// After a signal, what is queued may take this long to be sent.
const GRACE: Duration = Duration::from_secs(1);

/// The life of a command; clones are the same.
#[derive(Clone)]
pub(super) struct Life(Arc<Inner>);

struct Inner {
    context: Context,
    interrupt: Interrupt,
    /// Readable from the end on.
    over: UnixStream,
    ender: UnixStream,
    known: Mutex<Known>,
}

/// What happened so far.
#[derive(Default)]
struct Known {
    over: bool,
    why: Option<Stop>,
    /// Endpoint and address of the peers that are connected.
    peers: Vec<(String, Option<String>)>,
    /// What went wrong last with a connection, and where.
    failure: Option<Failure>,
    /// What was said of endpoints that could not be connected, since they last were.
    told: BTreeSet<(String, i32)>,
}

#[derive(Clone)]
struct Failure {
    endpoint: String,
    reason: String,
    refused: bool,
}

impl Life {
    /// Begins to watch for signals and, if the command prints, for the reader of standard output.
    pub(super) fn start(context: Context, prints: bool) -> Result<Self, Stop> {
        let failed = |error: io::Error| Stop::Error {
            exit: Exit::Failed,
            code: "io",
            message: format!("cannot prepare to be ended: {error}"),
        };
        let interrupt = Interrupt::install()?;
        let (over, ender) = UnixStream::pair().map_err(failed)?;
        let life = Self(Arc::new(Inner { context, interrupt, over, ender, known: Mutex::default() }));
        let watched = life.clone();
        thread::Builder::new()
            .name("mq-signals".into())
            .spawn(move || watched.await_end(prints))
            .map_err(failed)?;
        Ok(life)
    }

    /// Follows what happens to the connections of a socket. `only_dials`: the socket has no other way to a peer than
    /// those it connects to, so that a refusal is the end.
    /// `silent`: what to look at when a peer goes away during the handshake without a word.
    pub(super) fn watch(
        &self,
        monitor: Monitor,
        only_dials: bool,
        silent: Option<&'static str>,
    ) -> Result<(), Stop> {
        let life = self.clone();
        let follow = move || {
            while let Ok(Some(event)) = monitor.next_blocking(None) {
                life.note(&event, only_dials, silent);
            }
        };
        thread::Builder::new().name("mq-events".into()).spawn(follow).map(|_| ()).map_err(|error| {
            Stop::Error { exit: Exit::Failed, code: "io", message: format!("cannot start a thread: {error}") }
        })
    }

    /// Ends the command: every pending and later call on its sockets fails.
    pub(super) fn end(&self, why: Option<Stop>) {
        let mut known = self.known();
        if known.over {
            return;
        }
        known.over = true;
        known.why = why;
        drop(known);
        // The first poll of a shutdown is the one that ends calls.
        let _ = pin!(self.0.context.shutdown()).poll(&mut TaskContext::from_waker(Waker::noop()));
        // It is a pair of our own; at worst a thread that reads input is left behind.
        let _ = self.0.ender.shutdown(std::net::Shutdown::Both);
    }

    /// Whether the command is over.
    pub(super) fn is_over(&self) -> bool {
        self.known().over
    }

    /// Sends what is queued, for at most `linger`, closes everything, and turns how the work ended into how the command
    /// ends: after [`end`](Self::end) its reason counts.
    pub(super) fn finish(
        &self,
        sockets: &[&AnySocket],
        linger: Option<Duration>,
        result: Result<(), Stop>,
    ) -> Result<(), Stop> {
        let (was_ended, why) = {
            let mut known = self.known();
            (std::mem::replace(&mut known.over, true), known.why.take())
        };
        let result = match (was_ended, why) {
            (true, Some(why)) => Err(why),
            (true, None) => Ok(()),
            (false, _) => result,
        };
        // After a failure nothing is worth waiting for.
        let linger = if result.is_ok() { linger } else { Some(Duration::ZERO) };
        // The connections are gone afterwards.
        let why_unsent = self.why_unsent();
        let lost = self.shut_down(sockets, linger)?;
        if lost > 0 && result.is_ok() {
            let message = format!("{lost} messages were not sent; {why_unsent}");
            if !self.0.interrupt.is_set() {
                return Err(Stop::Error { exit: Exit::TimedOut, code: "unsent", message });
            }
            tracing::warn!("{message}");
        }
        match result {
            Err(Stop::ReaderGone) => Ok(()),
            other => other,
        }
    }

    /// How many messages could not be sent.
    fn shut_down(&self, sockets: &[&AnySocket], linger: Option<Duration>) -> Result<u64, Stop> {
        let set_linger = |linger| {
            sockets.iter().try_for_each(|socket| {
                socket.set_options(|options| {
                    options.linger = linger;
                    Ok(())
                })
            })
        };
        set_linger(linger)?;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut shutdown = pin!(self.0.context.shutdown());
        let mut interrupted = None;
        loop {
            if let Poll::Ready(lost) = shutdown.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
                return Ok(lost);
            }
            if self.0.interrupt.is_set() && interrupted.get_or_insert_with(Instant::now).elapsed() >= GRACE {
                set_linger(Some(Duration::ZERO))?;
                return Ok(self.0.context.term_blocking());
            }
            // Signals do not wake this thread.
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// The error for nothing having been sent or received for too long: it says where, and why if that is known.
    pub(super) fn timed_out(&self, what: &str, timeout: Duration, endpoints: &[String]) -> Stop {
        let endpoints = endpoints.join(", ");
        let known = self.known();
        let refused = known.peers.is_empty() && known.failure.as_ref().is_some_and(|failure| failure.refused);
        drop(known);
        let message = format!("{endpoints}: {what} for {timeout:?}; {}", self.why_unsent());
        if refused {
            return Stop::Error { exit: Exit::Refused, code: "refused", message };
        }
        Stop::Error { exit: Exit::TimedOut, code: "timed_out", message }
    }

    fn why_unsent(&self) -> String {
        let known = self.known();
        match (&known.failure, known.peers.len()) {
            (Some(failure), 0) => format!("{}: {}", failure.endpoint, failure.reason),
            (None, 0) => "no peer is connected: start one, or check the endpoint".to_owned(),
            (_, 1) => {
                "a peer is connected, but silent, or its queue is full: see whether it is stuck".to_owned()
            }
            (_, peers) => format!(
                "{peers} peers are connected, but silent, or their queues are full: see whether they are stuck"
            ),
        }
    }

    fn await_end(&self, prints: bool) {
        let stdout = io::stdout();
        loop {
            // An error on the output, the only thing asked for, means that its reader is gone.
            let mut fds = [
                PollFd::new(&self.0.interrupt, PollFlags::IN),
                PollFd::new(&self.0.over, PollFlags::IN),
                PollFd::new(&stdout, PollFlags::empty()),
            ];
            let watched = if prints { &mut fds[..] } else { &mut fds[..2] };
            match poll(watched, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            }
            let [interrupt, over, stdout] = fds.each_ref().map(PollFd::revents);
            if !interrupt.is_empty() {
                return self.end(None);
            }
            if !over.is_empty() {
                return;
            }
            if stdout.contains(PollFlags::ERR) {
                return self.end(Some(Stop::ReaderGone));
            }
            if !stdout.is_empty() {
                // Standard output cannot be watched; writing to it will tell.
                return self.await_end(false);
            }
        }
    }

    fn note(&self, event: &Event, only_dials: bool, silent: Option<&'static str>) {
        let mut known = self.known();
        let failure = match &event.kind {
            EventKind::HandshakeSucceeded { .. } => {
                known.peers.push((event.endpoint.clone(), event.peer_address.clone()));
                known.failure = None;
                known.told.retain(|(endpoint, _)| *endpoint != event.endpoint);
                return;
            }
            // Comes for connections, too, whose handshake was not complete.
            EventKind::Disconnected { .. } => {
                let gone = |peer: &(String, Option<String>)| {
                    (&peer.0, &peer.1) == (&event.endpoint, &event.peer_address)
                };
                if let Some(index) = known.peers.iter().position(gone) {
                    known.peers.swap_remove(index);
                }
                return;
            }
            EventKind::ConnectFailed(errno) => {
                let reason = format!("{}; start the peer, or check the endpoint", system_reason(*errno));
                if known.told.insert((event.endpoint.clone(), *errno)) {
                    tracing::info!(endpoint = event.endpoint, "not connected, trying on: {reason}");
                }
                Failure { endpoint: event.endpoint.clone(), reason, refused: false }
            }
            // Another process that would have bound the path looked whether somebody is there.
            EventKind::HandshakeFailed(CloseReason::Disconnected { greeting: true })
                if event.is_bound && event.endpoint.starts_with("ipc://") =>
            {
                return;
            }
            EventKind::HandshakeFailed(reason) => {
                let address = event.peer_address.as_deref().unwrap_or("unknown");
                let what = if is_silence(reason) { "connection lost" } else { "handshake failed" };
                tracing::warn!(endpoint = event.endpoint, peer = address, "{what}: {reason}");
                Failure {
                    endpoint: event.endpoint.clone(),
                    reason: match (reason, silent) {
                        (CloseReason::Disconnected { .. }, Some(hint)) => format!("{reason}; {hint}"),
                        _ => reason.to_string(),
                    },
                    refused: is_refusal(reason),
                }
            }
            _ => return,
        };
        let refused = failure.refused && only_dials && known.peers.is_empty();
        let (what, remedy) = match &event.kind {
            EventKind::HandshakeFailed(CloseReason::AuthFailed(_)) => {
                ("the peer refuses this client", "; check the keys or the password on both sides")
            }
            EventKind::HandshakeFailed(CloseReason::PeerError(_)) => (
                "the peer refuses this client",
                "; check that it fits this socket type, and the keys on both sides",
            ),
            // Says itself what to do.
            _ => ("peer and client do not fit", ""),
        };
        let message = format!("{}: {what}: {}{remedy}", failure.endpoint, failure.reason);
        known.failure = Some(failure);
        drop(known);
        if refused {
            self.end(Some(Stop::Error { exit: Exit::Refused, code: "refused", message }));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Life {
    /// Becomes readable at the end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.over.as_fd()
    }
}

/// What the system says of an error; 0 stands for a name that the system could not resolve.
pub(super) fn system_reason(errno: i32) -> String {
    match errno {
        0 => "the name of its host cannot be resolved".to_owned(),
        errno => io::Error::from_raw_os_error(errno).to_string(),
    }
}

/// Whether this ends a connection whose handshake was complete: the peer has gone silent.
pub(super) fn is_silence(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::TimedOut(Deadline::Heartbeat | Deadline::TimeToLive))
}

/// Whether trying again as the same is in vain.
fn is_refusal(reason: &CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::AuthFailed(_)
            | CloseReason::PeerError(_)
            | CloseReason::MechanismMismatch
            | CloseReason::InvalidSocketType
    )
}

/// Wakes a thread that is parked.
pub(super) struct Unpark(pub(super) Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
