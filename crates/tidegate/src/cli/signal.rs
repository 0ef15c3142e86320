//! Being asked to stop: SIGINT and SIGTERM.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

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
