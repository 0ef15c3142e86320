//! Who a process is and whether it still lives.
//!
//! A pid alone names nobody: the kernel gives it to somebody else after its owner died. The identity used throughout
//! is (pid, start time), and a question about a living process is asked through a pidfd, which keeps meaning the same
//! process. Ids are those of the pid namespace of `/proc` as this process sees it, and start times those of its time
//! namespace; processes in different namespaces cannot judge each other.
//!
//! A zombie is dead: it runs no instruction any more, so it can neither write into a region nor hold a right.

use std::{
    fmt, fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    str::FromStr,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    time::Timespec,
};

use crate::clock::{Nanos, monotonic_now};

/// A process of this boot of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Process id (thread group id).
    pub pid: u32,
    /// Start time since boot in clock ticks, as `/proc/<pid>/stat` field 22 has it.
    pub start_time: u64,
}

impl ProcessId {
    /// The identity of the calling process.
    ///
    /// # Errors
    /// As [`ProcessId::of`]; in practice only when `/proc` is not mounted.
    pub fn current() -> Result<Self, ProcessError> {
        Self::of(std::process::id())
    }

    /// The identity of the process that has this pid now, zombies included.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] when there is none, [`ProcessError::Unreadable`] when `/proc` does not tell.
    pub fn of(pid: u32) -> Result<Self, ProcessError> {
        Ok(Self { pid, start_time: ProcStat::read(pid)?.start_time })
    }
}

/// Written as `pid@start_time`.
impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.start_time)
    }
}

impl FromStr for ProcessId {
    type Err = ParseProcessIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pid, start_time) = text.split_once('@').ok_or(ParseProcessIdError)?;
        Ok(Self { pid: decimal(pid)?, start_time: decimal(start_time)? })
    }
}

/// A text that is not `pid@start_time` with two decimal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a process identity; expected `pid@start_time` with two decimal numbers")]
pub struct ParseProcessIdError;

/// Why a process cannot be named or held.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// No such process, or the pid belongs to another one by now.
    #[error("process {pid} is gone")]
    Gone {
        /// The pid asked for.
        pid: u32,
    },
    /// `/proc` did not give an answer.
    #[error("cannot read /proc/{pid}/stat; check that /proc is mounted and shows processes of other users")]
    Unreadable {
        /// The pid asked for.
        pid: u32,
        /// What the read said.
        source: io::Error,
    },
    /// `/proc/<pid>/stat` has a form this code does not know.
    #[error("/proc/{pid}/stat is malformed; this kernel is not supported")]
    Malformed {
        /// The pid asked for.
        pid: u32,
    },
    /// The kernel gave no pidfd.
    #[error(
        "cannot open a pidfd for process {pid}; Linux 5.3 or newer and a free file descriptor are needed"
    )]
    Pidfd {
        /// The pid asked for.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A hold on one process, by which its death can be seen and waited for. It does not keep the process alive.
#[derive(Debug)]
pub struct ProcessHandle {
    id: ProcessId,
    pidfd: OwnedFd,
}

impl ProcessHandle {
    /// Takes hold of exactly the process `id`, never of a later one with the same pid.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] when it is dead (a zombie is) or its pid has a new owner.
    pub fn open(id: ProcessId) -> Result<Self, ProcessError> {
        let gone = || ProcessError::Gone { pid: id.pid };
        // The second round is for the case that the pid passed to `id` between opening and reading.
        for _ in 0..2 {
            let pidfd = match pidfd(id.pid) {
                Ok(pidfd) => pidfd,
                Err(errno) if names_no_process(errno) => return Err(gone()),
                Err(errno) => return Err(ProcessError::Pidfd { pid: id.pid, source: errno.into() }),
            };
            // Reading the start time after opening is what excludes reuse: if it matches and the process behind the
            // pidfd has not exited, both are one process, since a pid has one owner at a time.
            let stat = ProcStat::read(id.pid)?;
            if stat.start_time != id.start_time {
                return Err(gone());
            }
            let handle = Self { id, pidfd };
            if handle.is_alive() {
                return Ok(handle);
            }
        }
        Err(gone())
    }

    /// The process held.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Whether the process still runs. When the kernel cannot be asked the answer is yes: nobody is declared dead
    /// without proof.
    pub fn is_alive(&self) -> bool {
        !has_exited(&self.pidfd, &Timespec { tv_sec: 0, tv_nsec: 0 }).unwrap_or(false)
    }

    /// Kills exactly this process, at once; that it is dead already is no error.
    ///
    /// # Errors
    /// What the kernel says: no permission, or a process of a foreign pid namespace.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sleeps until the process is dead (true) or the monotonic clock reaches `deadline` (false).
    pub fn wait_exit(&self, deadline: Nanos) -> bool {
        loop {
            let left = deadline.saturating_sub(monotonic_now());
            match has_exited(&self.pidfd, &left.to_timespec()) {
                Ok(true) => return true,
                Ok(false) | Err(Errno::INTR) if left > Nanos::ZERO => {}
                Ok(false) | Err(_) => return false,
            }
        }
    }
}

impl AsFd for ProcessHandle {
    /// Becomes readable with the death of the process.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Whether a process with this pid runs now. For use where only a pid is known, such as the superblock of a region: it
/// may be another process than the one that was meant, which errs on the side of "alive".
pub fn pid_is_alive(pid: u32) -> bool {
    match pidfd(pid) {
        Ok(pidfd) => !has_exited(&pidfd, &Timespec { tv_sec: 0, tv_nsec: 0 }).unwrap_or(false),
        Err(errno) if names_no_process(errno) => false,
        // No pidfd to be had (descriptor limit, sandbox): ask /proc, and without proof of death say alive.
        Err(_) => match ProcStat::read(pid) {
            Ok(stat) => stat.alive,
            Err(error) => !matches!(error, ProcessError::Gone { .. }),
        },
    }
}

/// The fields of `/proc/<pid>/stat` that matter here.
#[derive(Debug, PartialEq, Eq)]
struct ProcStat {
    alive: bool,
    start_time: u64,
}

impl ProcStat {
    fn read(pid: u32) -> Result<Self, ProcessError> {
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(text) => Self::parse(&text).ok_or(ProcessError::Malformed { pid }),
            Err(error) if is_missing(&error) => Err(ProcessError::Gone { pid }),
            Err(source) => Err(ProcessError::Unreadable { pid, source }),
        }
    }

    /// Parses `pid (name) state ppid ... starttime ...`. The name may contain blanks and parentheses, so counting
    /// starts after the last one.
    fn parse(text: &[u8]) -> Option<Self> {
        let name_end = text.iter().rposition(|&byte| byte == b')')?;
        let mut fields = std::str::from_utf8(text.get(name_end + 1..)?).ok()?.split_ascii_whitespace();
        // Field 3 is the state; fields 20 and 22 are the number of threads and the start time.
        let state = fields.next()?;
        let threads: u64 = fields.nth(16)?.parse().ok()?;
        let start_time = fields.nth(1)?.parse().ok()?;
        // A leader that ended while other threads run on is shown as a zombie, too.
        let alive = threads > 1 || !matches!(state, "Z" | "X" | "x");
        Some(Self { alive, start_time })
    }
}

/// ESRCH appears when the process dies between opening and reading.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// Opens a pidfd; pids the kernel cannot have are reported as missing.
fn pidfd(pid: u32) -> Result<OwnedFd, Errno> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}

/// Whether the kernel refused a pidfd because the pid names nothing, or only a thread of another process: EINVAL, and
/// ENOENT on newer kernels. As long as a process has not been reaped its pid names it, so it is gone in both cases.
fn names_no_process(errno: Errno) -> bool {
    matches!(errno, Errno::SRCH | Errno::INVAL | Errno::NOENT)
}

/// A pidfd becomes readable when the last thread of the process has ended.
fn has_exited(pidfd: &OwnedFd, timeout: &Timespec) -> Result<bool, Errno> {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(poll(&mut fds, Some(timeout))? > 0)
}

/// Strict decimal: no sign, no blanks, not empty.
fn decimal<T: FromStr>(text: &str) -> Result<T, ParseProcessIdError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseProcessIdError);
    }
    text.parse().map_err(|_| ParseProcessIdError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_after_the_last_parenthesis() {
        let tail = "1 1 0 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        let parse = |head: &str| ProcStat::parse(format!("{head} {tail}").as_bytes());
        assert_eq!(parse("42 (a) S"), Some(ProcStat { alive: true, start_time: 98765 }));
        assert_eq!(parse("42 (a) R 1 2 (b) Z"), Some(ProcStat { alive: false, start_time: 98765 }));
        assert_eq!(ProcStat::parse(b""), None);
        assert_eq!(ProcStat::parse(b"42 (a) S 1 2"), None);
        assert_eq!(ProcStat::parse(b"42 (a"), None);
    }

    #[test]
    fn a_dead_leader_with_running_threads_is_alive() {
        let text = b"42 (a) Z 1 1 0 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 98765 1";
        assert_eq!(ProcStat::parse(text), Some(ProcStat { alive: true, start_time: 98765 }));
    }

    #[test]
    fn identity_survives_the_round_trip_as_text() {
        let id = ProcessId { pid: 12, start_time: 345 };
        assert_eq!(id.to_string(), "12@345");
        assert_eq!("12@345".parse(), Ok(id));
        for wrong in ["", "12", "@", "12@", "@345", "+1@2", "1@-2", " 1@2", "1@2\n", "99999999999@1"] {
            assert_eq!(wrong.parse::<ProcessId>(), Err(ParseProcessIdError), "{wrong:?}");
        }
    }

    #[test]
    fn this_process_is_alive_and_an_older_namesake_is_gone() {
        let id = ProcessId::current().unwrap();
        assert!(ProcessHandle::open(id).unwrap().is_alive());
        let namesake = ProcessId { start_time: id.start_time - 1, ..id };
        assert!(matches!(ProcessHandle::open(namesake), Err(ProcessError::Gone { .. })));
    }

    #[test]
    fn impossible_pids_are_dead() {
        for pid in [0, i32::MAX as u32, i32::MAX as u32 + 1, u32::MAX] {
            assert!(!pid_is_alive(pid), "{pid}");
            assert!(matches!(ProcessId::of(pid), Err(ProcessError::Gone { .. })), "{pid}");
        }
    }
}
