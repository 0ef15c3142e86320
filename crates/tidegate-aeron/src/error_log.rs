//! Reading what a media driver has recorded about its own errors.
//!
//! A driver reports to nobody: what goes wrong inside it (a socket that cannot be bound, a malformed packet, a refused
//! command) it notes in a log in `cnc.dat`, each distinct error once, with a count. The log is read like the rest of that
//! file, never mapped, see [`crate::cnc`]. It is a row of entries at multiples of 8:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | length of the entry with this header, written last; 0 behind the last entry |
//! | 4 | 4 | number of observations |
//! | 8 | 8 | last observation, milliseconds since the Unix epoch |
//! | 16 | 8 | first observation, likewise |
//! | 24 | | text, not terminated |

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cnc::{self, bytes_at, i32_at, i64_at};
use crate::directory::os;
use crate::error::AeronError;

/// One kind of error that a media driver met.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverError {
    /// How often it happened.
    pub count: u32,
    /// When it happened first.
    pub first: SystemTime,
    /// When it happened last.
    pub last: SystemTime,
    /// What the driver wrote, over several lines, with unreadable bytes replaced.
    pub text: Box<str>,
}

/// The distinct errors that the driver of `dir` has met since it started, the oldest kind first. Empty when there is no
/// driver's file. At most 1024 kinds are read, and 8 KiB of each text.
///
/// # Errors
/// [`AeronError::Permission`] and [`AeronError::Os`] when the driver's file cannot be read.
pub fn driver_errors(dir: &Path) -> Result<Vec<DriverError>, AeronError> {
    let read = || match cnc::error_log(dir)? {
        Some((file, start, length)) => entries(&file, start, length),
        None => Ok(Vec::new()),
    };
    read().map_err(os("read the error log in", dir))
}

const HEADER_LENGTH: u64 = 24;
const ALIGNMENT: u64 = 8;
const MAX_ENTRIES: usize = 1024;
/// The longest text the library makes.
const MAX_TEXT: u64 = 8192;

/// Reads entries until the log ends or makes no sense any more.
fn entries(file: &File, start: u64, length: u64) -> io::Result<Vec<DriverError>> {
    let mut found = Vec::new();
    let mut at = 0;
    while found.len() < MAX_ENTRIES && at + HEADER_LENGTH <= length {
        let Some(header) = bytes_at::<{ HEADER_LENGTH as usize }>(file, start + at)? else { break };
        let entry = u64::try_from(i32_at(&header, 0)).unwrap_or(0);
        if entry < HEADER_LENGTH || at + entry > length {
            break;
        }
        let Some(text) = text_at(file, start + at + HEADER_LENGTH, entry - HEADER_LENGTH)? else { break };
        found.push(DriverError {
            count: i32_at(&header, 4).cast_unsigned(),
            last: time(i64_at(&header, 8)),
            first: time(i64_at(&header, 16)),
            text,
        });
        at += entry.next_multiple_of(ALIGNMENT);
    }
    Ok(found)
}

/// The text of `length` bytes, cut to [`MAX_TEXT`], or `None` when the file ends inside of it.
fn text_at(file: &File, offset: u64, length: u64) -> io::Result<Option<Box<str>>> {
    use std::os::unix::fs::FileExt;

    let mut bytes = vec![0; length.min(MAX_TEXT) as usize];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Some(String::from_utf8_lossy(&bytes).trim().into())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Times before the epoch count as the epoch.
fn time(epoch_ms: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(epoch_ms).unwrap_or(0));
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn entry(length: i32, text: &[u8]) -> Vec<u8> {
        let mut bytes = [&length.to_ne_bytes()[..], &2_i32.to_ne_bytes(), &3000_i64.to_ne_bytes()].concat();
        bytes.extend_from_slice(&1000_i64.to_ne_bytes());
        bytes.extend_from_slice(text);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A log of `length` bytes, behind a file's first 16, that begins with `log`.
    fn read(log: &[u8], length: u64) -> Vec<DriverError> {
        let path = std::env::temp_dir().join(format!("tidegate-error-log-{}", std::process::id()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(&[0xff; 16]).unwrap();
        file.write_all(log).unwrap();
        entries(&file, 16, length).unwrap()
    }

    fn texts(log: &[u8], length: u64) -> Vec<String> {
        read(log, length).into_iter().map(|error| error.text.into()).collect()
    }

    /// One test, because all share one file name.
    #[test]
    fn entries_are_read_until_they_end_or_make_no_sense() {
        let (first, second) = (entry(24 + 5, b"first"), entry(24 + 6, b"second"));
        let log = [&first[..], &second, &[0; 64]].concat();
        let found = read(&log, log.len() as u64);
        assert_eq!(found.iter().map(|error| &*error.text).collect::<Vec<_>>(), ["first", "second"]);
        let ms = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!((found[0].count, found[0].first, found[0].last), (2, ms(1000), ms(3000)));

        for length in [-1, i32::MIN, 1, 23, i32::MAX, 24 + 41] {
            let log = [&first[..], &entry(length, b"bad"), &[0; 32]].concat();
            assert_eq!(texts(&log, 32 + 64), ["first"], "{length}");
        }
        // A log said to be longer than its file, and one that ends inside of an entry.
        assert_eq!(texts(&[&first[..], &entry(24 + 100, b"cut")].concat(), 1 << 20), ["first"]);
        assert_eq!(texts(&log, 40), ["first"]);
        assert_eq!(texts(&first, 28), [""; 0]);
        let long = entry(24 + 20_000, &[b'x'; 20_000]);
        assert_eq!(texts(&[&long[..], &first].concat(), 30_000), ["x".repeat(8192), "first".to_owned()]);
        let many = entry(24, b"").repeat(2000);
        assert_eq!(read(&many, many.len() as u64).len(), MAX_ENTRIES);
    }
}
