//! A producer died during a handover (15.6): what whoever adopts does about it.

use std::{mem::offset_of, path::Path, sync::Arc};

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    region::{AccessError, RegionDir},
    sync::Ordering,
};

use super::{
    Announcement, HandoverState, observe,
    page::{Writing, active_rows},
    retire::Predecessors,
};
use crate::{
    attachment::{Process, WriterCore, WriterWords, writer_core},
    block::{AttachError, AttachOptions, Block, Role, attach, look, registry::Place},
    config::HubConfig,
    core::{
        TakeOver,
        config::Deadline,
        crash::{self, Point},
        writer::Writer,
    },
    error::OpenError,
    identity::{Liveness, ProcessKey},
    layout::{Descriptor, InitState, pages::ControlPage},
    upkeep::{Beats, ProducerMember},
};

/// Second row of 15.6: the channel was never anywhere else. Removes the successor if it got a name already, beside the block or
/// in one of the `options`' places.
pub(crate) fn call_off(writer: &Writer<WriterWords, Process>, options: &AttachOptions<'_>) {
    let core = writer.core();
    let page = Writing(core.words().views().control.row());
    if page.state() != Some(HandoverState::Prepared) {
        return;
    }
    let block = core.host().block();
    if let Some(announced) = observe(core.words().views()) {
        let places = block.path().parent().into_iter().chain([options.dir.as_path()]);
        for dir in places.chain(options.huge_dir.as_deref()) {
            remove_unused(&announced, block, dir);
        }
    }
    crash::at(Point::HandoverCancel);
    page.store_state(HandoverState::Cancelled);
    core.wake_readers();
}

/// Removes the successor that `block` announced, if it is in `dir`.
fn remove_unused(announced: &Announcement, block: &Block, dir: &Path) {
    let options = AttachOptions { dir: dir.to_owned(), ..AttachOptions::new(Role::Inspector) };
    let is_it = look(&announced.name, &options).is_ok_and(|found| {
        found.descriptor.uuid == announced.successor
            && found.descriptor.spec.predecessor == Some(block.descriptor().uuid)
    });
    if is_it && let Err(error) = RegionDir::open_base(dir).and_then(|dir| dir.remove_file(&announced.name)) {
        tracing::warn!(block = announced.name, %error, "the successor that was never used stays");
    }
}

/// Ends the closed block `name` if its producer died before its name was gone. Returns the name of the block that it was handed
/// over to (last row of 15.6).
///
/// # Errors
/// It was not handed over: closed, or its writer lives and is about to remove the name.
pub(crate) fn end_closed(
    name: &str,
    config: &HubConfig,
    options: &AttachOptions<'_>,
    deadline: Deadline,
) -> Result<String, OpenError> {
    let old = Arc::new(attach(name, &AttachOptions { role: Role::Recovery, ..options.clone() })?);
    if let Some(announced) = observe(&old.inspector_views()?).filter(|it| it.state == HandoverState::Done) {
        remove_done(&old);
        return Ok(announced.name);
    }
    if writer_of(&old)?.is_some() {
        if !old.hold(Place::Writer) {
            return Err(AttachError::Locked.into());
        }
        // As its writer: the name may be another block's as soon as it is nobody's.
        let ended = writer_core(&old, config.wait, config.timeouts.timing())
            .map_err(OpenError::from)
            .and_then(|core| {
                let adopted = core.adopt(TakeOver::IfDead, deadline)?;
                // Not ours any more means that somebody else ends it.
                let _ = adopted.writer.finish_closing(|| old.unlink_closed());
                Ok(())
            });
        old.release(Place::Writer);
        ended?;
    }
    Err(AttachError::Closed.into())
}

/// Who is recorded as the writer of `block`.
fn writer_of(block: &Block) -> Result<Option<ProcessKey>, AccessError> {
    let views = block.inspector_views()?;
    // Acquire: pairs with the release of whoever gave it up.
    let owner =
        views.control.row().u64::<{ offset_of!(ControlPage, writer_owner) }>().load(Ordering::Acquire);
    Ok(ProcessKey::from_word(owner))
}

/// Removes the name of a block that was handed over and closed, unless its producer lives and is about to.
fn remove_done(old: &Block) {
    // A producer that lives is about to remove it itself.
    let dead = |key| old.liveness(key, Place::Writer, false) == Liveness::Dead;
    if writer_of(old).is_ok_and(|owner| owner.is_none_or(dead)) {
        old.unlink_closed();
    }
}

/// The block before, if it is there.
fn block_before(descriptor: &Descriptor, config: &AttachOptions<'_>) -> Option<Block> {
    let uuid = descriptor.spec.predecessor?;
    let name = descriptor.spec.channel.file_name(&uuid);
    let options = AttachOptions {
        dir: config.dir.clone(),
        huge_dir: config.huge_dir.clone(),
        trust: config.trust.clone(),
        init_wait: std::time::Duration::ZERO,
        ..AttachOptions::new(Role::Recovery)
    };
    attach(&name, &options).ok().filter(|old| old.descriptor().uuid == uuid)
}

/// The block before, if the channel came from there and consumers may still be on their way.
fn predecessor(descriptor: &Descriptor, config: &AttachOptions<'_>) -> Option<(Arc<Block>, Announcement)> {
    let old = block_before(descriptor, config)?;
    let announced = observe(&old.inspector_views().ok()?)?;
    let is_ours = announced.state.is_cut() && announced.successor == descriptor.uuid;
    is_ours.then(|| (Arc::new(old), announced))
}

/// Second row of 15.6, met at the successor: the name of the block before, if that is in use and the channel has not left it
/// for this block.
pub(crate) fn not_left_yet(descriptor: &Descriptor, options: &AttachOptions<'_>) -> Option<String> {
    let old = block_before(descriptor, options)?;
    let views = old.inspector_views().ok()?;
    let left = observe(&views)
        .is_some_and(|announced| announced.state.is_cut() && announced.successor == descriptor.uuid);
    // Acquire: pairs with the release of whoever closed it.
    let state = views.control.row().u32::<{ offset_of!(ControlPage, init_state) }>().load(Ordering::Acquire);
    let is_over = state == InitState::Closed.code();
    (!left && !is_over).then(|| old.descriptor().file_name())
}

/// For how many consumers, and until when, whoever adopts `block` keeps its floor where it is (15.3, step 5).
pub(crate) fn floor_hold(block: &Block, options: &AttachOptions<'_>) -> Option<(u32, Nanos)> {
    let (old, announced) = predecessor(block.descriptor(), options)?;
    if announced.state == HandoverState::Done || monotonic_now() >= announced.grace_deadline {
        return None;
    }
    let active = |block: &Block| block.inspector_views().map_or(0, |views| active_rows(&views));
    Some((active(&old) + active(block), announced.grace_deadline))
}

/// Fourth row of 15.6: goes on ending the block before, whose producer died.
pub(crate) fn retire_predecessor(
    descriptor: &Descriptor,
    config: &HubConfig,
    options: &AttachOptions<'_>,
) -> Predecessors {
    let nobody = Predecessors::default();
    let Some((old, announced)) = predecessor(descriptor, options) else { return nobody };
    if announced.state == HandoverState::Done {
        remove_done(&old);
        return nobody;
    }
    if !old.hold(Place::Writer) {
        return nobody;
    }
    let adopted = core_of(&old, config).and_then(|core| {
        let deadline = Deadline::At(monotonic_now().saturating_add(config.timeouts.maintenance_lock.into()));
        core.adopt(TakeOver::IfDead, deadline).ok()
    });
    let Some(adopted) = adopted else {
        old.release(Place::Writer);
        return nobody;
    };
    let core = adopted.writer.core().clone();
    let member = ProducerMember::new(core, Beats::new(&config.timeouts, true));
    let grace = Nanos::from(config.timeouts.handover_grace);
    let over = announced.grace_deadline.saturating_add(Nanos(grace.0.saturating_mul(2)));
    nobody.and(Arc::new(member), over)
}

fn core_of(block: &Arc<Block>, config: &HubConfig) -> Option<WriterCore> {
    writer_core(block, config.wait, config.timeouts.timing()).ok()
}
