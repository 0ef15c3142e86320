//! A producer died during a handover (15.6): what whoever adopts does about it.

use std::{path::Path, sync::Arc, thread, time::Duration};

use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    region::{AccessError, RegionDir},
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
    layout::Descriptor,
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

/// Ends the closed block `name` if its producer died before its name was gone. Returns where to look next: the block that it was
/// handed over to (last row of 15.6), or the same name, which is another block's by now.
///
/// # Errors
/// The channel is over, or the writer lives and is about to remove the name.
pub(crate) fn end_closed(
    name: &str,
    config: &HubConfig,
    options: &AttachOptions<'_>,
    deadline: Deadline,
) -> Result<String, OpenError> {
    let old = match attach(name, &AttachOptions { role: Role::Recovery, ..options.clone() }) {
        Ok(old) => Arc::new(old),
        Err(error) if error.is_missing() => return Err(AttachError::Closed.into()),
        Err(error) => return Err(error.into()),
    };
    if !old.is_closed()? {
        return Ok(name.to_owned());
    }
    if let Some(announced) = observe(&old.inspector_views()?).filter(|it| it.state == HandoverState::Done) {
        remove_done(&old, config, deadline);
        return Ok(announced.name);
    }
    if old.writer()?.is_some() {
        let _place = old.take(Place::Writer).ok_or(AttachError::Locked)?;
        end(&old, config, deadline)?;
    }
    Err(AttachError::Closed.into())
}

/// Ends `block` as its writer, since the name may be another block's as soon as it is nobody's. This process has the writer's
/// place.
///
/// # Errors
/// The writer lives, or the maintenance lock cannot be had.
pub(crate) fn end(block: &Arc<Block>, config: &HubConfig, deadline: Deadline) -> Result<(), OpenError> {
    let adopted = core_of(block, config)?.adopt(TakeOver::IfDead, deadline)?;
    // Not ours any more means that somebody else ends it.
    let _ = adopted.writer.finish_closing(|| block.remove_name());
    Ok(())
}

/// Removes the name of a block that was handed over and closed, unless its producer lives and is about to.
fn remove_done(old: &Arc<Block>, config: &HubConfig, deadline: Deadline) {
    let Some(_place) = old.take(Place::Writer) else { return };
    if let Err(error) = end(old, config, deadline) {
        tracing::debug!(path = %old.path().display(), %error, "the file of a block that is over is left to others");
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
    (!left && !old.is_closed().ok()?).then(|| old.descriptor().file_name())
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
    let deadline = Deadline::At(monotonic_now().saturating_add(config.timeouts.maintenance_lock.into()));
    if announced.state == HandoverState::Done {
        remove_done(&old, config, deadline);
        return nobody;
    }
    let (place, adopted) = loop {
        let adopted = old
            .take(Place::Writer)
            .ok_or(OpenError::from(AttachError::Locked))
            .and_then(|place| Ok((place, core_of(&old, config)?.adopt(TakeOver::IfDead, deadline)?)));
        match adopted {
            Ok(adopted) => break adopted,
            // Whoever cleans up after the dead producer is done in a moment.
            Err(error) if error.may_pass() && !deadline.passed(monotonic_now()) => thread::sleep(RETRY),
            Err(error) => {
                tracing::warn!(path = %old.path().display(), %error, "the block before the channel's stays");
                return nobody;
            }
        }
    };
    let core = adopted.writer.core().clone();
    let member = ProducerMember::new(core, Beats::new(&config.timeouts, true));
    let grace = Nanos::from(config.timeouts.handover_grace);
    let over = announced.grace_deadline.saturating_add(Nanos(grace.0.saturating_mul(2)));
    nobody.and(Arc::new(member), Some(place), over)
}

fn core_of(block: &Arc<Block>, config: &HubConfig) -> Result<WriterCore, AccessError> {
    writer_core(block, config.wait, config.timeouts.timing())
}

/// How often to ask again.
const RETRY: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::num::NonZeroU32;

    use super::*;
    use crate::{config::BufferPolicy, core::config::Deadline, layout::ChannelName, producer::Producer};

    /// Between two looks at a name it may have become that of another block, which is not the closed one.
    #[test]
    fn only_what_is_closed_is_ended() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let ring = BufferPolicy::RingBuffer(NonZeroU32::new(4).unwrap());
        let new = HubConfig::new(ChannelName::new("a").unwrap(), ring, 64);
        let config = HubConfig { dir: dir.path().to_owned(), ..new };
        let producer = Producer::create(&config).unwrap();
        producer.writer().resign().unwrap();
        let options = AttachOptions { dir: dir.path().to_owned(), ..AttachOptions::new(Role::Writer) };
        let next = end_closed(&producer.name(), &config, &options, Deadline::Immediate);
        assert_eq!(next.unwrap(), producer.name());
        assert!(!producer.block().is_closed().unwrap() && producer.path().exists());
    }
}
