//! Being asked to stop: SIGINT and SIGTERM.

use std::io;
#[cfg(feature = "vertex")]
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
#[cfg(any(feature = "hub", feature = "vertex"))]
use std::time::Duration;
#[cfg(feature = "vertex")]
use std::time::Instant;

use signal_hook::consts::{SIGINT, SIGTERM};
use tidegate::shm::sync::{AtomicBool, Ordering};

use crate::output::{Exit, Stop};

/// Remembers that a signal came. A second one ends the process the usual way, should the first not be enough.
pub(crate) struct Interrupt {
    seen: Arc<AtomicBool>,
    readable: UnixStream,
}

impl Interrupt {
    /// From now on SIGINT and SIGTERM are noted.
    pub(crate) fn install() -> Result<Self, Stop> {
        let failed = |error: io::Error| Stop::Error {
            exit: Exit::Failed,
            code: "io",
            message: format!("cannot prepare for signals: {error}"),
        };
        let seen = Arc::new(AtomicBool::new(false));
        let (readable, writable) = UnixStream::pair().map_err(failed)?;
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the first handler to run sees the flag of an earlier signal.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&seen)).map_err(failed)?;
            signal_hook::flag::register(signal, Arc::clone(&seen)).map_err(failed)?;
            let end = writable.try_clone().map_err(failed)?;
            signal_hook::low_level::pipe::register(signal, end).map_err(failed)?;
        }
        Ok(Self { seen, readable })
    }

    /// Sleeps for so long, or until a signal comes; true if one came.
    #[cfg(feature = "hub")]
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        // A signal ends the sleep early, as an error or as readiness.
        let _ = poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&timeout));
        self.is_set()
    }

    /// Whether a signal came.
    pub(crate) fn is_set(&self) -> bool {
        // Relaxed: nothing is published with the flag.
        self.seen.load(Ordering::Relaxed)
    }
}

impl AsFd for Interrupt {
    /// Becomes readable with the first signal.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

/// Counts signals, each of which means something else.
#[cfg(feature = "vertex")]
pub(crate) struct Signals {
    readable: UnixStream,
}

#[cfg(feature = "vertex")]
impl Signals {
    /// From now on SIGINT and SIGTERM are counted, and end nothing by themselves.
    pub(crate) fn install() -> Result<Self, Stop> {
        let failed = |error: io::Error| Stop::Error {
            exit: Exit::Failed,
            code: "io",
            message: format!("cannot prepare for signals: {error}"),
        };
        let (readable, writable) = UnixStream::pair().map_err(failed)?;
        for signal in [SIGINT, SIGTERM] {
            let end = writable.try_clone().map_err(failed)?;
            signal_hook::low_level::pipe::register(signal, end).map_err(failed)?;
        }
        Ok(Self { readable })
    }

    /// Waits for the next one; false when the time is over.
    pub(crate) fn wait(&self, within: Option<Duration>) -> bool {
        let deadline = within.map(|within| Instant::now() + within);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) || self.readable.set_read_timeout(left).is_err() {
                return false;
            }
            match (&self.readable).read(&mut [0]) {
                Ok(_) => return true,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => return false,
            }
        }
    }
}
