//! Names: removing those of blocks that nobody uses (DH-241), or by force any.
//!
//! Removing a name takes nothing from processes that have the block attached; it only keeps others from finding it. Nothing
//! here goes by the age of a file (DH-282), and files of other users are not touched.

use std::mem::offset_of;

use serde::Serialize;
use tidegate_shm::{region::RegionDir, sync::Ordering};

use super::{RecoverError, Recovery};
use crate::{
    attachment::audit::Operation,
    block::{AttachError, AttachOptions, names},
    core::error::RegistryError,
    handover::{HandoverState, observe},
    identity::Liveness,
    inspect::{BlockLife, ConsumerInfo, Inspector},
    layout::{InitState, pages::ControlPage},
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

/// The blocks whose writer and consumers are all proven dead, and those that are over and that nobody uses any more. Not one that
/// consumers of the block before are on their way to.
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
            BlockLife::Reclaimable => awaited_by(block, options).is_empty(),
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
    let mut pids: Vec<u32> = writer.into_iter().chain(readers(block)).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn readers(block: &Inspector) -> Vec<u32> {
    block.consumers().iter().filter(|row| !row.is_dead()).map(|row| row.pid).collect()
}

/// Pids of those who still read the block that the channel has left for this one.
fn awaited_by(block: &Inspector, options: &AttachOptions<'_>) -> Vec<u32> {
    let descriptor = block.descriptor();
    let before = descriptor.spec.predecessor.map(|uuid| descriptor.spec.channel.file_name(&uuid));
    let Some(old) = before.and_then(|name| Inspector::open(&name, options).ok()) else { return Vec::new() };
    let announced = observe(old.views()).filter(|announced| announced.state == HandoverState::Cut);
    match announced {
        Some(announced) if announced.successor == descriptor.uuid => readers(&old),
        _ => Vec::new(),
    }
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
    let mut processes = users(&recovery.inspector);
    processes.extend(awaited_by(&recovery.inspector, options));
    let removed = match (processes.is_empty(), force) {
        (true, _) => recovery.remove_unused(),
        (false, true) => recovery.remove_in_use(&processes),
        (false, false) => return Err(RecoverError::InUse { processes }),
    };
    match removed {
        // Whoever holds the lock, or damaged it, or has just come, is no reason against force.
        Err(error) if force => {
            tracing::warn!(block = name, %error, "name removed by force without the maintenance lock");
            remove(name, options)
        }
        removed => removed,
    }
}

impl Recovery {
    /// As acting writer, and closed first: a producer that has the block mapped already and comes too late for its name
    /// sees that it is over (DH-254).
    fn remove_unused(&self) -> Result<(), RecoverError> {
        let control = self.block.writer_views()?.control;
        let place = self.take_place()?;
        let removed = self.core.stand_in(self.deadline(), |_| {
            let processes = readers(&self.inspector);
            if !processes.is_empty() {
                return Err(RecoverError::InUse { processes });
            }
            let state = control.row().u32::<{ offset_of!(ControlPage, init_state) }>();
            // Release: pairs with the acquire of whoever adopts it next, and of consumers.
            state.store(InitState::Closed.code(), Ordering::Release);
            self.audit(Operation::Unlink, false, 0, 0, 0);
            self.count(1, false);
            Ok(self.block.unlink()?)
        });
        drop(place);
        match removed {
            Ok(removed) => removed?,
            Err(RegistryError::WriterAlive { owner }) => {
                return Err(RecoverError::InUse { processes: vec![owner.pid()] });
            }
            Err(error) => return Err(error.into()),
        }
        tracing::info!(block = self.inspector.name(), "name of an unused block removed");
        Ok(())
    }

    fn remove_in_use(&self, processes: &[u32]) -> Result<(), RecoverError> {
        self.core.under_lock(self.deadline(), || {
            self.audit(Operation::Unlink, true, 0, processes.len() as u64, 0);
            self.count(1, true);
            self.block.unlink()
        })??;
        tracing::warn!(block = self.inspector.name(), ?processes, "name of a block in use removed by force");
        Ok(())
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
