//! Directories of media drivers.
//!
//! A driver shows that it lives by a heartbeat in its files. One that Tidegate runs holds `<dir>.lock` as well, and names
//! itself there; the kernel frees that lock when the process dies.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate::shm::process::pid_is_alive;

use super::{Check, Finding, Found, Remains, foreign_owner, of_another_user, tree};

/// A driver without a heartbeat for this long does not run, or is stopped: ten times its period.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// What a driver makes in its directory.
const ENTRIES: [&str; 4] = ["cnc.dat", "loss-report.dat", "publications", "images"];

/// Judges a directory `aeron-*`.
pub(super) fn look(dir: &Path, fix: &str) -> Found {
    let check = Check::MediaDriver;
    if let Some(owner) = foreign_owner(dir) {
        return of_another_user(check, dir, owner).into();
    }
    let pid = recorded_pid(dir);
    let gone = pid.is_some_and(|pid| !pid_is_alive(pid));
    let beats = tidegate_aeron::driver_is_active(dir, HEARTBEAT_TIMEOUT);
    let process = pid.map_or_else(|| "an unknown process".to_owned(), |pid| format!("process {pid}"));
    let mut found = match (beats, gone) {
        _ if is_dead(dir) => {
            let message = format!("left by {process}, which is gone");
            let finding = Finding::problem(check, Some(dir), message, format!("safe to remove: {fix}"));
            Found::dead(finding, MediaRemains { dir: dir.to_owned() })
        }
        (true, false) => Finding::ok(check, Some(dir), format!("run by {process}{}", met_errors(dir))).into(),
        (true, true) => {
            let message = format!("{process} is gone, but the heartbeat is young");
            let advice =
                "a driver of another container, or killed a moment ago: look again in 10 s".to_owned();
            Finding::problem(check, Some(dir), message, advice).into()
        }
        (false, _) => {
            let message = match pid {
                Some(pid) => {
                    format!("no heartbeat, but a process {pid} exists: stopped, or another one by now")
                }
                None => "no heartbeat, and no word of the process that made it".to_owned(),
            };
            let advice = match pid {
                Some(pid) => format!(
                    "see `ps -p {pid} -o stat,args`; when that is no media driver: rm -r {}",
                    dir.display()
                ),
                None => format!("when no media driver is to use it any more: rm -r {}", dir.display()),
            };
            Finding::problem(check, Some(dir), message, advice).into()
        }
    };
    found.finding.pid = pid;
    found.finding.bytes = Some(tree::size(dir));
    found
}

/// What a driver noted about its own errors, in words to add to a sentence.
fn met_errors(dir: &Path) -> String {
    let errors = tidegate_aeron::driver_errors(dir).unwrap_or_default();
    let Some(last) = errors.iter().max_by_key(|error| error.last) else { return String::new() };
    let text: Vec<_> = last.text.split_whitespace().collect();
    format!("; errors it has met: {}, the last of them {}x: {}", errors.len(), last.count, text.join(" "))
}

/// Removes the directory of a dead driver together with its lock file. Fails when the driver is not proven dead.
pub(super) fn remove(dir: &Path) -> Result<(), tree::Kept> {
    let lock_path = lock_path(dir);
    let lock = match File::open(&lock_path) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Some(file),
            Err(_) => return Err(tree::Kept::DriverLives { lock: lock_path }),
        },
        Err(_) => None,
    };
    if dir.exists() {
        if !is_proven_dead(dir, lock.is_some()) {
            return Err(tree::Kept::NotProvenDead { dir: dir.to_owned() });
        }
        if let Some(foreign) = foreign_entry(dir) {
            return Err(tree::Kept::ForeignEntry { path: foreign });
        }
        tree::remove_all(dir)?;
    }
    // Still locked, so that nobody can have taken it meanwhile.
    if lock.is_some() { tree::remove_file(&lock_path) } else { Ok(()) }
}

struct MediaRemains {
    dir: PathBuf,
}

impl Remains for MediaRemains {
    fn remove(&self) -> Result<(), tree::Kept> {
        remove(&self.dir)
    }
}

/// Whether the driver is proven dead, found out without keeping its lock.
fn is_dead(dir: &Path) -> bool {
    let locked = match File::open(lock_path(dir)) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => true,
            Err(_) => return false,
        },
        Err(_) => false,
    };
    is_proven_dead(dir, locked)
}

/// `locked`: the lock file was there and could be locked, so that the run it names is dead.
fn is_proven_dead(dir: &Path, locked: bool) -> bool {
    let Some(pid) = recorded_pid(dir) else { return false };
    if locked && lock_names(dir, pid) {
        return true;
    }
    // A process of another pid namespace looks dead from here; its heartbeat tells.
    !pid_is_alive(pid) && !tidegate_aeron::driver_is_active(dir, HEARTBEAT_TIMEOUT)
}

fn recorded_pid(dir: &Path) -> Option<u32> {
    tidegate_aeron::driver_pid(dir).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0)
}

/// Whether the lock file was last held by this process.
fn lock_names(dir: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(lock_path(dir)).unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()) == Some(pid)
}

fn lock_path(dir: &Path) -> PathBuf {
    let mut path = dir.to_owned().into_os_string();
    path.push(".lock");
    PathBuf::from(path)
}

/// An entry that no driver made.
fn foreign_entry(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?;
    let known = |name: &std::ffi::OsStr| ENTRIES.iter().any(|entry| name == *entry);
    entries.filter_map(Result::ok).find(|entry| !known(&entry.file_name())).map(|entry| entry.path())
}
