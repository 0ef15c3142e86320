//! Reading `cnc.dat`, the file by which a media driver shows that it is alive.
//!
//! The file is read, never mapped: a truncated or hostile one gives an answer instead of a fault. Layout of what is used,
//! in the byte order of the host (Aeron's files are not portable between machines):
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | version, 0 until the driver has initialised the file |
//! | 4 | 4 | length of the to-driver ring buffer, trailer included |
//! | 8, 12, 16, 20 | 4 each | lengths of the to-clients buffer, the counters' labels and values, the error log |
//! | 32 | 8 | start of the driver, milliseconds since the Unix epoch |
//! | 40 | 8 | process id of the driver |
//! | 128 | | to-driver ring buffer, then the others in the order of their lengths |
//!
//! The last 768 bytes of the ring buffer are its trailer; at 640 in it is the driver's heartbeat, milliseconds since the
//! Unix epoch, 0 before the first and -1 after a clean shutdown.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FILE_NAME: &str = "cnc.dat";
const METADATA_LENGTH: u64 = 128;
const RING_TRAILER_LENGTH: u64 = 768;
const HEARTBEAT_IN_TRAILER: u64 = 640;

/// Whether a live media driver owns `dir`: it has a driver's files and a heartbeat no older than `timeout`.
///
/// A driver writes its heartbeat about once a second, so a timeout below two seconds finds live drivers dead. After a
/// driver was killed the answer stays `true` until the last heartbeat has aged. A directory that cannot be read counts as
/// having no driver.
pub fn driver_is_active(dir: &Path, timeout: Duration) -> bool {
    read(dir).is_ok_and(|state| state.is_alive(timeout))
}

/// The process id that the driver of `dir` wrote down, dead or alive; `None` when there is no driver's file. It may belong to
/// another pid namespace.
pub fn driver_pid(dir: &Path) -> Option<i64> {
    match read(dir) {
        Ok(DriverState::Running { run, .. }) => Some(run.pid),
        _ => None,
    }
}

/// The driver's file of `dir` with offset and length of the error log in it. `None` while there is none.
pub(crate) fn error_log(dir: &Path) -> io::Result<Option<(File, u64, u64)>> {
    let Some(file) = open(dir)? else { return Ok(None) };
    let Some(header) = bytes_at::<48>(&file, 0)? else { return Ok(None) };
    if i32_at(&header, 0) == 0 {
        return Ok(None);
    }
    let mut offset = METADATA_LENGTH;
    for field in [4, 8, 12, 16] {
        let Ok(length) = u64::try_from(i32_at(&header, field)) else { return Ok(None) };
        offset += length;
    }
    Ok(u64::try_from(i32_at(&header, 20)).ok().map(|length| (file, offset, length)))
}

/// Names one run of one driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DriverRun {
    pub(crate) pid: i64,
    pub(crate) started_ms: i64,
}

/// What `cnc.dat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DriverState {
    /// There is no file.
    Absent,
    /// The file is there but its driver has not shown itself yet.
    Starting {
        /// Time since the file was last written.
        age: Duration,
    },
    /// The driver runs, or ran until the age of its heartbeat.
    Running {
        /// Which run.
        run: DriverRun,
        /// Age of the last heartbeat; zero when it lies in the future.
        heartbeat_age: Duration,
    },
    /// The driver shut down in order.
    Closed,
}

impl DriverState {
    /// Whether a driver may still be using the directory. One that is starting counts, as does one whose clock is ahead.
    pub(crate) fn is_alive(&self, timeout: Duration) -> bool {
        match self {
            Self::Absent | Self::Closed => false,
            Self::Starting { age } => *age <= timeout,
            Self::Running { heartbeat_age, .. } => *heartbeat_age <= timeout,
        }
    }
}

/// Reads the state of the driver of `dir`.
pub(crate) fn read(dir: &Path) -> io::Result<DriverState> {
    let Some(file) = open(dir)? else { return Ok(DriverState::Absent) };
    let starting = || -> io::Result<DriverState> {
        let age = SystemTime::now().duration_since(file.metadata()?.modified()?).unwrap_or_default();
        Ok(DriverState::Starting { age })
    };
    let Some(header) = bytes_at::<48>(&file, 0)? else { return starting() };
    let version = i32_at(&header, 0);
    let ring_length = i32_at(&header, 4);
    let Some(trailer) = u64::try_from(ring_length).ok().and_then(|l| l.checked_sub(RING_TRAILER_LENGTH))
    else {
        return starting();
    };
    if version == 0 {
        return starting();
    }
    let Some(heartbeat) = steady_i64(&file, METADATA_LENGTH + trailer + HEARTBEAT_IN_TRAILER)? else {
        return starting();
    };
    match heartbeat {
        0 => starting(),
        i64::MIN..0 => Ok(DriverState::Closed),
        _ => {
            let run = DriverRun { pid: i64_at(&header, 40), started_ms: i64_at(&header, 32) };
            Ok(DriverState::Running { run, heartbeat_age: age_of(heartbeat) })
        }
    }
}

/// Opens the driver's file of `dir`, if there is one. Does not block if something else, such as a FIFO, has its name.
fn open(dir: &Path) -> io::Result<Option<File>> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    match File::options().read(true).custom_flags(flags).open(dir.join(FILE_NAME)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Age of a time stamp in milliseconds since the Unix epoch.
fn age_of(epoch_ms: i64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(epoch_ms.unsigned_abs()))
}

/// Reads a number that its owner may be writing: two equal reads in a row were not torn.
fn steady_i64(file: &File, offset: u64) -> io::Result<Option<i64>> {
    let mut last = None;
    for _ in 0..8 {
        let Some(bytes) = bytes_at::<8>(file, offset)? else { return Ok(None) };
        let value = i64::from_ne_bytes(bytes);
        if last == Some(value) {
            break;
        }
        last = Some(value);
    }
    Ok(last)
}

/// `N` bytes, or `None` when the file is shorter.
pub(crate) fn bytes_at<const N: usize>(file: &File, offset: u64) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number at `offset`, which lies in the header with all its bytes.
pub(crate) fn i32_at<const N: usize>(header: &[u8; N], offset: usize) -> i32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&header[offset..offset + 4]);
    i32::from_ne_bytes(bytes)
}

/// As [`i32_at`].
pub(crate) fn i64_at<const N: usize>(header: &[u8; N], offset: usize) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[offset..offset + 8]);
    i64::from_ne_bytes(bytes)
}
