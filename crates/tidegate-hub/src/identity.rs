//! Who owns something in a block, and whether the owner still lives (chapter 4 of the sheet).
//!
//! An owner is one word, the [`ProcessKey`]: start time and pid together, so that a pid that was given to somebody else
//! is another owner. Whether an owner is dead is decided by the kernel's process table alone, never by age (DH-035), and
//! a doubt counts as life (DH-034).
//!
//! All takeovers rest on one assumption: a process that is [`Liveness::Dead`] stores nothing into the block any more.
//! It holds because Dead is concluded only when its address space is gone. Two things break it and are not supported
//! (DH-040): processes that share an address space without being threads of one process (children of `vfork` before they
//! exec, raw `CLONE_VM`), and devices that write into slots on behalf of a process and go on after its death.

use std::{fmt, fs, io, num::NonZeroU64, sync::Mutex};

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};
use tidegate_shm::{
    fork::ForkGuard,
    host::HostId,
    process::{ProcessError, ProcessId},
};

/// One incarnation of a process: `(start_ticks << 22) | pid`. Never 0, which stands for nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey(NonZeroU64);

impl ProcessKey {
    /// The key of the process `pid` that started at `start_ticks` (clock ticks since boot).
    ///
    /// # Errors
    /// The pid is 0 or has more than 22 bits, or the ticks have more than 42.
    pub fn new(pid: u32, start_ticks: u64) -> Result<Self, IdentityUnavailable> {
        if pid == 0 || pid > MAX_PID || start_ticks > u64::MAX >> PID_BITS {
            return Err(IdentityUnavailable::DoesNotFit { pid, start_ticks });
        }
        let word = start_ticks << PID_BITS | u64::from(pid);
        Self::from_word(word).ok_or(IdentityUnavailable::DoesNotFit { pid, start_ticks })
    }

    /// The key of the calling process. Read from the kernel once per process (DH-032).
    ///
    /// # Errors
    /// The process table cannot be read, or the numbers do not fit.
    pub fn current() -> Result<Self, IdentityUnavailable> {
        /// The key and the number of the process it belongs to, which a forked child does not share.
        static CURRENT: Mutex<Option<(u64, ProcessKey)>> = Mutex::new(None);
        let process = ForkGuard::new().map_err(|source| IdentityUnavailable::ForkGuard { source })?.process();
        let mut current = CURRENT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((of, key)) = *current
            && of == process
        {
            return Ok(key);
        }
        let id = ProcessId::current().map_err(|source| IdentityUnavailable::ProcessTable { source })?;
        let key = Self::new(id.pid, id.start_time)?;
        *current = Some((process, key));
        Ok(key)
    }

    /// The owner that a word of a block names, if it names one. Any word is a key; it need not be that of a process.
    pub const fn from_word(word: u64) -> Option<Self> {
        match NonZeroU64::new(word) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }

    /// The word that names this owner.
    pub const fn word(self) -> u64 {
        self.0.get()
    }

    /// Thread group id.
    pub fn pid(self) -> u32 {
        (self.word() as u32) & MAX_PID
    }

    /// Start time since boot in clock ticks.
    pub fn start_ticks(self) -> u64 {
        self.word() >> PID_BITS
    }
}

/// Written as `pid@start_ticks`.
impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid(), self.start_ticks())
    }
}

impl fmt::Debug for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessKey({self})")
    }
}

/// Why this process cannot say who it is; it cannot attach then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityUnavailable {
    /// `/proc` did not answer.
    #[error("this process cannot find out when it was started")]
    ProcessTable {
        /// Why.
        source: ProcessError,
    },
    /// The numbers are larger than the format allows.
    #[error("pid {pid} or start time {start_ticks} does not fit into a process key")]
    DoesNotFit {
        /// The pid.
        pid: u32,
        /// The start time.
        start_ticks: u64,
    },
    /// The kernel cannot tell forked children apart.
    #[error("this process cannot notice that it was forked")]
    ForkGuard {
        /// What the kernel said.
        source: io::Error,
    },
}

/// What is known about an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It runs, or may run on.
    Alive,
    /// Its address space is gone: it will store nothing more.
    Dead,
    /// It cannot be judged from here. To be treated as Alive by everything automatic (DH-034).
    Unknown,
}

/// A place in a block where an owner is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// `writer_owner`, and the slots that the writer works on.
    Writer,
    /// A row of the consumer table.
    Row(u32),
    /// A lock of the lock table.
    Lock(u32),
    /// The maintenance lock.
    Maintenance,
}

/// The kernel's process table, or a pretended one.
pub trait ProcessTable {
    /// The text of `/proc/<pid>/stat`.
    ///
    /// # Errors
    /// What reading it said.
    fn stat(&self, pid: u32) -> io::Result<Vec<u8>>;

    /// Sends signal 0, which does nothing but fail if there is no such process.
    ///
    /// # Errors
    /// What the kernel said.
    fn signal_zero(&self, pid: u32) -> io::Result<()>;
}

/// The process table of the running kernel.
#[derive(Debug, Clone, Copy)]
pub struct Kernel;

impl ProcessTable for Kernel {
    fn stat(&self, pid: u32) -> io::Result<Vec<u8>> {
        fs::read(format!("/proc/{pid}/stat"))
    }

    fn signal_zero(&self, pid: u32) -> io::Result<()> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        Ok(test_kill_process(pid)?)
    }
}

/// Judges the owners found in one block.
#[derive(Debug, Clone, Copy)]
pub struct Judge<T = Kernel> {
    /// Whether pids and times of the block mean here what they meant to its users.
    comparable: bool,
    table: T,
}

impl Judge {
    /// A judge in the process `here` of the owners in a block made by `block`.
    pub fn new(block: &HostId, here: &HostId) -> Self {
        Self::with_table(block, here, Kernel)
    }
}

impl<T: ProcessTable> Judge<T> {
    /// As [`Judge::new`], asking `table`.
    pub fn with_table(block: &HostId, here: &HostId, table: T) -> Self {
        Self { comparable: block == here, table }
    }

    /// Whether the owner still lives. `foreign` says that it flagged itself as one of another namespace. Opens a file,
    /// so it has no place on a fast path (DH-036).
    pub fn liveness(&self, key: ProcessKey, foreign: bool) -> Liveness {
        if !self.comparable || foreign { Liveness::Unknown } else { liveness(&self.table, key) }
    }
}

/// Whether the incarnation `key` still lives, according to `table` (DH-033, steps 2 to 5).
pub fn liveness(table: &impl ProcessTable, key: ProcessKey) -> Liveness {
    let stat = match table.stat(key.pid()) {
        Ok(text) => text,
        Err(error) if !is_no_such(&error) => return Liveness::Unknown,
        // The table may only be hidden from us; a process that is there accepts a signal or refuses it.
        Err(_) => match table.signal_zero(key.pid()) {
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Liveness::Dead,
            _ => return Liveness::Unknown,
        },
    };
    let Some(stat) = Stat::parse(&stat) else {
        return Liveness::Unknown;
    };
    let reused = stat.start_ticks != key.start_ticks();
    // A leader that ended while other threads run on is shown as a zombie, too, but its address space is there.
    let gone = matches!(stat.state, b"Z" | b"X" | b"x") && stat.threads <= 1;
    if reused || gone { Liveness::Dead } else { Liveness::Alive }
}

/// ESRCH is what reading says when the process ends between opening and reading.
fn is_no_such(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::SRCH].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The fields of `/proc/<pid>/stat` that matter.
struct Stat<'a> {
    state: &'a [u8],
    threads: u64,
    start_ticks: u64,
}

impl<'a> Stat<'a> {
    /// Parses `pid (name) state ppid ...`. The name may contain blanks and parentheses, so counting starts after the
    /// last one.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let name_end = text.iter().rposition(|&byte| byte == b')')?;
        let mut fields = text.get(name_end + 1..)?.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty());
        // Field 3 is the state; fields 20 and 22 are the number of threads and the start time.
        let state = fields.next()?;
        let threads = number(fields.nth(16)?)?;
        let start_ticks = number(fields.nth(1)?)?;
        Some(Self { state, threads, start_ticks })
    }
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

const PID_BITS: u32 = 22;
const MAX_PID: u32 = (1 << PID_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// A process table with one answer for every pid.
    struct Pretended {
        stat: Result<String, Errno>,
        signal: Result<(), Errno>,
    }

    impl ProcessTable for Pretended {
        fn stat(&self, _pid: u32) -> io::Result<Vec<u8>> {
            self.stat.clone().map(String::into_bytes).map_err(io::Error::from)
        }

        fn signal_zero(&self, _pid: u32) -> io::Result<()> {
            self.signal.map_err(io::Error::from)
        }
    }

    const START: u64 = 98765;

    /// What `/proc/42/stat` says about a process with this name, state and number of threads.
    fn stat(name: &str, state: &str, threads: u32) -> String {
        format!("42 ({name}) {state} 1 1 0 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 {threads} 0 {START} 1 2 3")
    }

    fn judge(stat: Result<String, Errno>, signal: Result<(), Errno>) -> Liveness {
        liveness(&Pretended { stat, signal }, ProcessKey::new(42, START).unwrap())
    }

    /// Rules: DH-031, I-01.
    #[test]
    fn the_key_of_the_sheet() {
        let key = ProcessKey::new(12_345, 987_654).unwrap();
        assert_eq!(key.word(), 0x0000_03C4_8180_3039);
        assert_eq!((key.pid(), key.start_ticks()), (12_345, 987_654));
        assert_eq!(ProcessKey::from_word(key.word()), Some(key));
        assert_eq!(ProcessKey::from_word(0), None);
        assert_eq!(key.to_string(), "12345@987654");
    }

    /// Rules: DH-032.
    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert!(ProcessKey::new(MAX_PID, (1 << 42) - 1).is_ok());
        for (pid, ticks) in [(0, 1), (1 << 22, 1), (u32::MAX, 1), (1, 1 << 42), (1, u64::MAX)] {
            assert!(ProcessKey::new(pid, ticks).is_err(), "{pid} {ticks}");
        }
    }

    #[test]
    fn this_process_has_a_key_and_is_alive() {
        let key = ProcessKey::current().unwrap();
        assert_eq!(key.pid(), std::process::id());
        assert_eq!(ProcessKey::current().unwrap(), key);
        assert_eq!(liveness(&Kernel, key), Liveness::Alive);
        let earlier = ProcessKey::new(key.pid(), key.start_ticks() - 1).unwrap();
        assert_eq!(liveness(&Kernel, earlier), Liveness::Dead);
    }

    /// I-03, I-05 and the state letters.
    /// Rules: DH-033, I-03, I-05.
    #[test]
    fn state_and_threads_decide_after_the_last_parenthesis() {
        for name in ["a", "a) Z 1 (b", "", ")", "a\nb) R"] {
            assert_eq!(judge(Ok(stat(name, "S", 1)), Ok(())), Liveness::Alive, "{name:?}");
            assert_eq!(judge(Ok(stat(name, "Z", 1)), Ok(())), Liveness::Dead, "{name:?}");
        }
        for state in ["R", "S", "D", "T", "t", "I", "?"] {
            assert_eq!(judge(Ok(stat("a", state, 1)), Ok(())), Liveness::Alive, "{state}");
        }
        for state in ["Z", "X", "x"] {
            assert_eq!(judge(Ok(stat("a", state, 0)), Ok(())), Liveness::Dead, "{state}");
            assert_eq!(judge(Ok(stat("a", state, 1)), Ok(())), Liveness::Dead, "{state}");
            assert_eq!(judge(Ok(stat("a", state, 2)), Ok(())), Liveness::Alive, "{state}");
        }
    }

    /// Rules: DH-033.
    #[test]
    fn another_start_time_means_that_the_pid_was_reused() {
        let table = Pretended { stat: Ok(stat("a", "S", 1)), signal: Ok(()) };
        for start in [START - 1, START + 1, 0] {
            assert_eq!(liveness(&table, ProcessKey::new(42, start).unwrap()), Liveness::Dead);
        }
    }

    /// Rules: DH-033, DH-034, I-06.
    #[test]
    fn a_table_that_does_not_tell_proves_no_death() {
        for errno in [Errno::ACCESS, Errno::PERM, Errno::MFILE, Errno::IO, Errno::INTR] {
            assert_eq!(judge(Err(errno), Err(Errno::SRCH)), Liveness::Unknown, "{errno}");
        }
        for errno in [Errno::NOENT, Errno::SRCH] {
            assert_eq!(judge(Err(errno), Err(Errno::SRCH)), Liveness::Dead);
            assert_eq!(judge(Err(errno), Err(Errno::PERM)), Liveness::Unknown);
            assert_eq!(judge(Err(errno), Ok(())), Liveness::Unknown);
        }
        for text in ["", "42", "42 (a", "42 (a) S", "42 (a) S 1 2", &stat("a", "S", 1).replace("98765", "x")]
        {
            assert_eq!(judge(Ok(text.to_owned()), Ok(())), Liveness::Unknown, "{text:?}");
        }
    }

    /// Rules: DH-033, DH-034, I-07.
    #[test]
    fn owners_of_another_boot_or_namespace_are_unknown() {
        let here = HostId { boot_id: [1; 16], pid_namespace: 2, time_namespace: 3 };
        let dead = || Pretended { stat: Err(Errno::NOENT), signal: Err(Errno::SRCH) };
        let key = ProcessKey::new(42, START).unwrap();
        assert_eq!(Judge::with_table(&here, &here, dead()).liveness(key, false), Liveness::Dead);
        assert_eq!(Judge::with_table(&here, &here, dead()).liveness(key, true), Liveness::Unknown);
        for other in [
            HostId { boot_id: [2; 16], ..here },
            HostId { pid_namespace: 9, ..here },
            HostId { time_namespace: 9, ..here },
        ] {
            let judge = Judge::with_table(&other, &here, dead());
            assert_eq!(judge.liveness(key, false), Liveness::Unknown, "{other:?}");
        }
    }
}
