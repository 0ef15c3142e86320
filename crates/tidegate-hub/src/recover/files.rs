//! Names: removing those of blocks that nobody uses (DH-241), or by force any.
//!
//! Removing a name takes nothing from processes that have the block attached; it only keeps others from finding it. Nothing
//! here goes by the age of a file (DH-282), and files of other users are not touched.

use serde::Serialize;
use tidegate_shm::region::RegionDir;

use super::{RecoverError, Recovery};
use crate::{
    attachment::audit::Operation,
    block::{AttachError, AttachOptions, names},
    identity::Liveness,
    inspect::{BlockLife, ConsumerInfo, Inspector},
};

/// A name that goes, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removable {
    /// The name.
    pub name: String,
    /// Its channel.
    pub channel: String,
    /// Bytes of the block.
    #[serde(serialize_with = "crate::metrics::as_text")]
    pub bytes: u64,
    /// Pid of its writer, 0 if it has none.
    pub writer: u32,
    /// How many dead consumers it has.
    pub consumers: usize,
}

/// The blocks whose writer and consumers are all proven dead, and those that are over and that nobody uses any more.
///
/// # Errors
/// The directory cannot be read.
pub fn reclaimable(options: &AttachOptions<'_>) -> Result<Vec<Removable>, RecoverError> {
    let open = |name: &String| Inspector::open(name, options).ok();
    let blocks = names(&options.dir)?;
    Ok(blocks
        .iter()
        .filter_map(open)
        .filter(|block| match block.life() {
            BlockLife::Reclaimable => true,
            // Its producer died before it removed the name, or has left it on purpose.
            BlockLife::Closed => users(block).is_empty(),
            _ => false,
        })
        .map(describe)
        .collect())
}

/// Removes one of them, if it is one still.
///
/// # Errors
/// Somebody uses it by now, or the file cannot be removed.
pub fn reclaim(block: &Removable, options: &AttachOptions<'_>) -> Result<(), RecoverError> {
    unlink(&block.name, options, false)
}

/// Removes the name of a block. By force also while processes use it, or if it cannot even be opened.
///
/// # Errors
/// Somebody may use it and force was not allowed, it cannot be opened, or the file cannot be removed.
pub fn force_unlink(name: &str, options: &AttachOptions<'_>, force: bool) -> Result<(), RecoverError> {
    unlink(name, options, force)
}

/// Pids of the processes that may be using a block.
pub fn users(block: &Inspector) -> Vec<u32> {
    let writer = block.writer();
    let writer = writer.key.filter(|_| writer.liveness != Liveness::Dead).map(|key| key.pid());
    let consumers = block.consumers();
    let consumers = consumers.iter().filter(|row| !row.is_dead()).map(|row| row.pid);
    let mut pids: Vec<u32> = writer.into_iter().chain(consumers).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn unlink(name: &str, options: &AttachOptions<'_>, force: bool) -> Result<(), RecoverError> {
    let recovery = match Recovery::open(name, options) {
        Ok(recovery) => recovery,
        Err(RecoverError::Attach(error)) if force && is_damage(&error) => {
            tracing::warn!(block = name, %error, "name of a damaged block removed by force");
            return remove(name, options);
        }
        Err(error) => return Err(error),
    };
    let stale = recovery.inspector.life() == BlockLife::Reclaimable
        && recovery.block.findings().iter().any(|found| matches!(found, AttachError::StaleBoot { .. }));
    if stale {
        // Its processes ended with the boot; nobody is there to lock out.
        return remove(name, options);
    }
    let attempt = recovery.core.under_lock(recovery.deadline(), || {
        let processes = users(&recovery.inspector);
        let forced = !processes.is_empty();
        if forced && !force {
            return Err(RecoverError::InUse { processes });
        }
        recovery.audit(Operation::Unlink, forced, 0, processes.len() as u64, 0);
        if forced {
            tracing::warn!(block = name, ?processes, "name of a block in use removed by force");
        } else {
            tracing::info!(block = name, "name of an unused block removed");
        }
        recovery.count(1, forced);
        remove(name, options)
    });
    match attempt {
        Ok(result) => result,
        // Whoever holds the lock, or damaged it, is no reason against force.
        Err(error) if force => {
            tracing::warn!(block = name, %error, "name removed by force without the maintenance lock");
            remove(name, options)
        }
        Err(error) => Err(error.into()),
    }
}

fn remove(name: &str, options: &AttachOptions<'_>) -> Result<(), RecoverError> {
    Ok(RegionDir::open_base(&options.dir)?.remove_file(name)?)
}

fn is_damage(error: &AttachError) -> bool {
    matches!(error, AttachError::TooSmall { .. } | AttachError::Layout(_))
}

fn describe(block: Inspector) -> Removable {
    Removable {
        name: block.name(),
        channel: block.descriptor().spec.channel.to_string(),
        bytes: block.descriptor().geometry.total_size,
        writer: block.writer().pid,
        consumers: block.consumers().iter().filter(|row: &&ConsumerInfo| row.is_dead()).count(),
    }
}
