//! Directories of nodes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tidegate::node::{NodeClient, NodeDescription, NodePlace};
use tidegate::shm::lock::DirLock;
use tidegate::shm::process::{ProcessError, ProcessHandle, ProcessId};

use super::{
    Check, Finding, Found, Remains, foreign_owner, media, of_another_user, regions, tree, with_prefix,
};
use crate::cli::text;

/// Judges a node directory; nothing is said about a directory in which no node has been.
pub(super) fn look(dir: &Path, fix: &str) -> Option<Found> {
    let check = Check::Node;
    let place = NodePlace::find(Some(dir.to_owned()), None);
    if let Some(owner) = foreign_owner(dir) {
        return Some(of_another_user(check, dir, owner).into());
    }
    if !place.lock().exists() && !place.description().exists() && !place.aeron_dir().exists() {
        return None;
    }
    let holder = holder(&place);
    let pid = holder.map(|id| id.pid);
    let mut found = match holder.map(is_alive) {
        Some(true) => ask(&place, dir, pid).into(),
        None if is_locked(&place) => {
            let message = "held by a process that has not said who it is".to_owned();
            let advice = format!("it may be starting; see `fuser -v {}`", place.lock().display());
            Finding::problem(check, Some(dir), message, advice).into()
        }
        None | Some(false) => {
            let who = pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
            let message = format!("left by {who}, which is gone");
            let advice = format!("safe to remove: {fix}; `tidegate up` takes it over as well");
            let finding = Finding::problem(check, Some(dir), message, advice);
            Found::dead(finding, NodeRemains { place })
        }
    };
    found.finding.pid = pid;
    found.finding.bytes = Some(tree::size(dir));
    Some(found)
}

/// Asks a node whose process lives.
fn ask(place: &NodePlace, dir: &Path, pid: Option<u32>) -> Finding {
    let answer = NodeClient::find(place).and_then(|node| node.status());
    match answer {
        Ok(status) => {
            let leases: usize = status.streams.iter().map(|stream| stream.leases.len()).sum();
            let message = format!(
                "answers (pid {}), {}, {}",
                pid.unwrap_or_default(),
                text::count(status.streams.len(), "stream"),
                text::count(leases, "lease")
            );
            Finding::ok(Check::Node, Some(dir), message)
        }
        Err(error) => {
            let pid = pid.unwrap_or_default();
            let (state, advice) = if is_stopped(pid) {
                (", it is stopped", format!("let it go on: kill -CONT {pid}; or end it: kill -KILL {pid}"))
            } else {
                ("", format!("see its log; when it stays like this: kill {pid}, then kill -KILL {pid}"))
            };
            let message = format!("held by process {pid}{state}, but gives no answer: {error}");
            Finding::problem(Check::Node, Some(dir), message, advice)
        }
    }
}

/// Who says to hold the directory: the lock file, else the description.
fn holder(place: &NodePlace) -> Option<ProcessId> {
    let lock = fs::read_to_string(place.lock()).unwrap_or_default();
    let described = || {
        let text = fs::read(place.description()).ok()?;
        let description: NodeDescription = serde_json::from_slice(&text).ok()?;
        Some(ProcessId { pid: description.pid, start_time: description.start_time })
    };
    lock.trim_end().parse().ok().or_else(described)
}

/// Without proof of death a process lives.
fn is_alive(id: ProcessId) -> bool {
    match ProcessHandle::open(id) {
        Ok(handle) => handle.is_alive(),
        Err(error) => !matches!(error, ProcessError::Gone { .. }),
    }
}

fn is_locked(place: &NodePlace) -> bool {
    File::open(place.lock()).is_ok_and(|file| file.try_lock_shared().is_err())
}

fn is_stopped(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| state.trim_start().starts_with(['T', 't']))
}

struct NodeRemains {
    place: NodePlace,
}

impl Remains for NodeRemains {
    fn remove(&self) -> Result<(), tree::Kept> {
        remove(&self.place)
    }
}

/// Removes what a dead node left, and its directory. Fails when a node lives in it.
pub(super) fn remove(place: &NodePlace) -> Result<(), tree::Kept> {
    let dir = place.dir();
    // From here on no node can start in the directory, and none that runs can be missed.
    let lock = DirLock::acquire(&place.lock())?;
    tree::remove_file(&place.description())?;
    tree::remove_file(&place.description().with_extension("json.new"))?;
    tree::remove_file(&place.admin_socket())?;
    // The broker's.
    for file in [dir.join("broker.json"), dir.join("broker.json.new")] {
        tree::remove_file(&file)?;
    }
    for socket in ["broker.sock", "events.sock"] {
        tree::remove_file(&place.hub_dir().join(socket))?;
    }
    tree::remove_empty(&place.hub_dir())?;
    media::remove(&place.aeron_dir())?;
    let unlisted = |source| tree::Kept::Io { action: "list", path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(unlisted)?;
    let dirs =
        entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let entries: Vec<PathBuf> = dirs.map(|entry| entry.path()).collect();
    for pools in with_prefix(&entries, "tensorpool-") {
        regions::clear(&pools)?;
    }
    tree::remove_file(&place.lock())?;
    drop(lock);
    tree::remove_empty(dir)
}
