//! How a worker comes to its runtime: by the socket that the runtime passed it, or by one at which the runtime listens.
//!
//! A worker that connects waits for its runtime, however long that takes: containers of a pod start in any order, a runtime that
//! is started anew is away for a while, and a spare worker has no place before another one ends. What waiting does not change
//! (another user's directory, another version of the protocol) ends it at once.

use std::{
    env,
    io::{self, Write},
    os::fd::AsFd,
    path::PathBuf,
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    process::{Signal, set_parent_process_death_signal},
    stdio::dup2_stdin,
};
use tidegate_shm::clock::{Nanos, monotonic_now};

use crate::{
    control::Control,
    session::{WorkerError, io_error},
    wire::message::{BUSY, FULL},
};

/// Where the runtime is.
#[derive(Debug)]
pub(crate) enum Runtime {
    /// It started this process and passed the socket as standard input.
    Parent,
    /// It listens there.
    At(PathBuf),
}

impl Runtime {
    /// What the environment says.
    pub(crate) fn of_environment() -> Result<Self, WorkerError> {
        if env::var_os(FD_VARIABLE).is_some_and(|number| number == "0") {
            return Ok(Self::Parent);
        }
        let path = env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
        path.map(|path| Self::At(path.into())).ok_or(WorkerError::NotManaged)
    }

    /// A socket to it.
    pub(crate) fn connect(&self) -> Result<Control, WorkerError> {
        match self {
            Self::Parent => passed_socket(),
            Self::At(path) => {
                Control::connect(path).map_err(|source| WorkerError::NoRuntime { path: path.clone(), source })
            }
        }
    }

    /// Whether it may be there, or take this worker, some time later.
    pub(crate) fn is_to_come(&self, error: &WorkerError) -> bool {
        let Self::At(_) = self else { return false };
        match error {
            WorkerError::NoRuntime { source, .. } => {
                let errno = Errno::from_io_error(source);
                matches!(errno, Some(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN))
            }
            // It ended while it greeted this worker.
            WorkerError::NoSession => true,
            WorkerError::Rejected { code, .. } => [FULL, BUSY].contains(&code.as_str()),
            _ => false,
        }
    }
}

/// The socket that the runtime passed as standard input, which becomes empty for everybody else.
fn passed_socket() -> Result<Control, WorkerError> {
    let failed = |step| move |errno: Errno| WorkerError::Io { step, source: errno.into() };
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(io_error("take the control socket"))?;
    let nothing = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    dup2_stdin(nothing.map_err(failed("open /dev/null"))?).map_err(failed("close standard input"))?;
    // A helper besides hanging up: also kills what does not look at the socket (VX-437).
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("ask for the parent's death"))?;
    Ok(Control::new(socket))
}

/// The times of a worker that waits for its runtime.
#[derive(Debug)]
pub(crate) struct Patience {
    delay: Nanos,
    /// When it is said again that it waits.
    say_at: Nanos,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { delay: FIRST_DELAY, say_at: Nanos::ZERO }
    }

    /// Sleeps for a while, and says for what now and then.
    pub(crate) fn wait(&mut self, reason: &WorkerError) {
        let now = monotonic_now();
        if now >= self.say_at {
            self.say_at = now.saturating_add(SAY_INTERVAL);
            // Whoever started this process may have closed it.
            let _ = writeln!(io::stderr(), "tidegate: waiting for the runtime: {}", in_full(reason));
        }
        std::thread::sleep(self.delay.into());
        self.delay = Nanos(self.delay.0.saturating_mul(2)).min(LONGEST_DELAY);
    }
}

fn in_full(error: &WorkerError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// Number of the descriptor of the control socket.
const FD_VARIABLE: &str = "TIDEGATE_VX_FD";
/// Path of the socket at which the runtime listens.
const SOCKET_VARIABLE: &str = "TIDEGATE_VX_SOCKET";
const FIRST_DELAY: Nanos = Nanos::from_millis(50);
/// Short enough for a signal to be noticed by those who look for it between two tries.
const LONGEST_DELAY: Nanos = Nanos::from_millis(500);
const SAY_INTERVAL: Nanos = Nanos::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Runtime {
        Runtime::At(path.into())
    }

    /// Rules: VX-420.
    #[test]
    fn a_worker_waits_for_what_may_come_and_for_nothing_else() {
        let refused = |code: &str| WorkerError::Rejected { code: code.to_owned(), message: String::new() };
        let runtime = at("/no/such/socket");
        let missing = runtime.connect().err();
        assert!(missing.as_ref().is_some_and(|error| runtime.is_to_come(error)), "{missing:?}");
        for (error, waits) in [
            (WorkerError::NoSession, true),
            (refused("FULL"), true),
            (refused("BUSY"), true),
            (refused("UID"), false),
            (refused("SCHEMA"), false),
        ] {
            assert_eq!(runtime.is_to_come(&error), waits, "{error}");
            assert!(!Runtime::Parent.is_to_come(&error), "{error}");
        }
        // No socket, and no directory.
        for path in ["/dev/null", "/dev/null/socket"] {
            let runtime = at(path);
            let error = runtime.connect().err();
            let waits = error.as_ref().map(|error| runtime.is_to_come(error));
            // A file that is no socket refuses a connection as a socket does at which nobody listens.
            assert_eq!(waits, Some(path == "/dev/null"), "{path}: {error:?}");
        }
    }
}
