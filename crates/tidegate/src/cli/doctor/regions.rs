//! Regions that nobody owns any more: `tensorpool-<user>/<namespace>/<stream>/<epoch>`.
//!
//! The superblock names the process that made an epoch. That it is gone is not enough outside of a node's own directory:
//! drivers of other implementations hand regions to producers who keep them alive. So their activity must have ceased, too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate::shm::clock::{Nanos, monotonic_now};
use tidegate::shm::lock::DirLock;
use tidegate::shm::process::{ProcessHandle, ProcessId, pid_is_alive};
use tidegate::shm::region::{Access, DirError, RegionDir};
use tidegate::tensor::layout::{MAGIC, SUPERBLOCK_LEN, Superblock};

use super::{Check, Finding, Found, MAX_ENTRIES, Remains, foreign_owner, of_another_user, tree};
use crate::cli::text;

const LOCK_FILE: &str = ".driver.lock";
const HEADER_FILE: &str = "header.ring";
const POOL_SUFFIX: &str = ".pool";
/// Owners refresh their regions once per announce period, a second by default.
const QUIET: Nanos = Nanos::from_secs(10);

/// Judges every namespace of a directory `tensorpool-<user>`.
pub(super) fn look(dir: &Path, fix: &str) -> Vec<Found> {
    if let Some(owner) = foreign_owner(dir) {
        return vec![of_another_user(Check::Regions, dir, owner).into()];
    }
    let Ok(root) = RegionDir::open_base(dir) else { return Vec::new() };
    names(&root).iter().filter_map(|name| root.open_dir(name).ok()).map(|space| judge(&space, fix)).collect()
}

/// Removes all epochs of dead processes in a `tensorpool-<user>` whose node is proven dead, active or not.
pub(super) fn clear(dir: &Path) -> Result<(), tree::Kept> {
    let root = RegionDir::open_base(dir)?;
    for name in names(&root) {
        if let Ok(space) = root.open_dir(&name) {
            remove_dead(&space, true)?;
        }
    }
    tree::remove_empty(dir)
}

/// The epochs of one namespace.
#[derive(Default)]
struct Epochs {
    /// Of live processes, or still refreshed.
    alive: usize,
    /// Of dead processes.
    dead: usize,
    dead_bytes: u64,
    /// The process of one of them.
    pid: Option<u32>,
    /// Without a readable superblock.
    unknown: usize,
}

fn judge(space: &RegionDir, fix: &str) -> Found {
    let check = Check::Regions;
    let path = Some(space.path());
    if let Some(driver) = live_driver(space) {
        let message = format!("served by the tensor driver of process {driver}");
        return Finding::ok(check, path, message).of(Some(driver)).into();
    }
    let mut epochs = Epochs::default();
    each_epoch(space, |_, epoch| match owner(epoch) {
        None => epochs.unknown += 1,
        Some(superblock) if is_dead(&superblock, false) => {
            epochs.dead += 1;
            epochs.dead_bytes += tree::size(epoch.path());
            epochs.pid = u32::try_from(superblock.pid).ok();
        }
        Some(_) => epochs.alive += 1,
    });
    let Epochs { alive, dead, unknown, .. } = epochs;
    let mut found = if dead > 0 {
        let message = format!("{} of dead processes, {alive} of live ones", text::count(dead, "epoch"));
        let finding = Finding::problem(check, path, message, format!("safe to remove: {fix}"));
        Found::dead(finding.of(epochs.pid), SpaceRemains { path: space.path().to_owned() })
    } else if unknown > 0 {
        let message = format!(
            "{} without a readable superblock, {alive} of live processes",
            text::count(unknown, "epoch")
        );
        let advice = format!(
            "see `tidegate tensor inspect DIR`; when nobody needs them: rm -r {}",
            space.path().display()
        );
        Finding::problem(check, path, message, advice).into()
    } else {
        Finding::ok(check, path, format!("{} of live processes", text::count(alive, "epoch"))).into()
    };
    found.finding.bytes = Some(if dead > 0 { epochs.dead_bytes } else { tree::size(space.path()) });
    found
}

struct SpaceRemains {
    path: PathBuf,
}

impl Remains for SpaceRemains {
    fn remove(&self) -> Result<(), tree::Kept> {
        let space = RegionDir::open_base(&self.path)?;
        remove_dead(&space, false)
    }
}

/// Removes epochs of dead processes with the driver's lock held, and what is empty then.
fn remove_dead(space: &RegionDir, node_is_dead: bool) -> Result<(), tree::Kept> {
    let lock_path = space.path().join(LOCK_FILE);
    let lock = DirLock::acquire(&lock_path)?;
    let mut failed = None;
    let mut streams = Vec::new();
    each_epoch(space, |stream, epoch| {
        let dead = match owner(epoch) {
            Some(superblock) => is_dead(&superblock, node_is_dead),
            // Its maker was killed before it could say who it is.
            None => node_is_dead && is_quiet(epoch.path()),
        };
        if dead && let Err(error) = remove_epoch(stream, epoch) {
            failed = Some(error);
        }
        streams.push(stream.path().to_owned());
    });
    streams.dedup();
    for stream in streams {
        // Stays, rightly, when it holds epochs of the living.
        let _ = tree::remove_empty(&stream);
    }
    if names(space).is_empty() {
        // Still locked, so that no driver can have taken it.
        tree::remove_file(&lock_path)?;
        drop(lock);
        tree::remove_empty(space.path())?;
        if let Some(user) = space.path().parent() {
            // Other namespaces may be in it.
            let _ = tree::remove_empty(user);
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn remove_epoch(stream: &RegionDir, epoch: &RegionDir) -> Result<(), DirError> {
    for entry in epoch.list()?.take(MAX_ENTRIES) {
        let name = entry?.name;
        if let Some(name) = name.to_str()
            && (name == HEADER_FILE || name.ends_with(POOL_SUFFIX))
        {
            epoch.remove_file(name)?;
        }
    }
    match epoch.path().file_name().and_then(|name| name.to_str()) {
        Some(name) => stream.remove_dir(name),
        None => Ok(()),
    }
}

/// Calls `each` with every stream and epoch directory.
fn each_epoch(space: &RegionDir, mut each: impl FnMut(&RegionDir, &RegionDir)) {
    for stream in names(space).iter().filter_map(|name| space.open_dir(name).ok()) {
        for epoch in names(&stream).iter().filter_map(|name| stream.open_dir(name).ok()) {
            each(&stream, &epoch);
        }
    }
}

/// Names without a leading dot, sorted.
fn names(dir: &RegionDir) -> Vec<String> {
    let Ok(entries) = dir.list() else { return Vec::new() };
    let names = entries.take(MAX_ENTRIES).filter_map(|entry| entry.ok()?.name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// The tensor driver that holds the namespace.
fn live_driver(space: &RegionDir) -> Option<u32> {
    let text = std::fs::read_to_string(space.path().join(LOCK_FILE)).ok()?;
    let id: ProcessId = text.trim_end().parse().ok()?;
    ProcessHandle::open(id).is_ok().then_some(id.pid)
}

fn owner(epoch: &RegionDir) -> Option<Superblock> {
    let file = epoch.open_file(HEADER_FILE, Access::ReadOnly).ok()?;
    let mut bytes = [0; SUPERBLOCK_LEN];
    file.read_at(0, &mut bytes).ok()?;
    Some(Superblock::decode(&bytes)).filter(|superblock| superblock.magic == MAGIC)
}

/// Whether nothing was made or removed in a directory for a while.
fn is_quiet(dir: &Path) -> bool {
    let changed = std::fs::metadata(dir).and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|since| since > Duration::from(QUIET)))
}

fn is_dead(superblock: &Superblock, node_is_dead: bool) -> bool {
    let gone = u32::try_from(superblock.pid).is_ok_and(|pid| !pid_is_alive(pid));
    let (now, activity) = (monotonic_now(), Nanos(superblock.activity_timestamp_ns));
    // A time in the future is from before a reboot.
    let quiet = now.saturating_sub(activity) > QUIET || activity > now;
    gone && (node_is_dead || quiet)
}
