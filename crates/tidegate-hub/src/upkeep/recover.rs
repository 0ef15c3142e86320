//! Cleaning up after a dead writer on behalf of its consumers (5.10): ids that it left open become holes, so that what
//! it had finished behind them can be read. Nobody is the writer afterwards; a producer that starts again adopts the block.

use std::sync::Arc;

use tidegate_shm::clock::{Nanos, monotonic_now};

use crate::{
    attachment::writer_core,
    block::{AttachOptions, attach},
    core::{
        TakeOver,
        config::{Deadline, Timing, WaitStrategy},
    },
    error::RegistryError,
    handover::floor_hold,
};

/// True if somebody has cleaned up or nobody may: there is nothing left to do.
///
/// The whole block is mapped for writing for as long as this takes; a consumer's own mapping stays as it is.
pub(super) fn recover_writer(name: &str, options: &AttachOptions<'_>) -> bool {
    let block = match attach(name, options) {
        Ok(block) => Arc::new(block),
        // This process is about to write it itself.
        Err(crate::block::AttachError::Locked) => return true,
        Err(error) => {
            tracing::warn!(block = name, %error, "cannot clean up after the dead writer");
            return true;
        }
    };
    let Ok(core) = writer_core(&block, WaitStrategy::Hybrid, Timing::default()) else { return true };
    let deadline = Deadline::At(monotonic_now().saturating_add(PATIENCE));
    let hold = floor_hold(&block, options);
    match core.adopt_holding(TakeOver::IfDead, deadline, hold) {
        Ok(adopted) => {
            tracing::warn!(block = name, abandoned = adopted.abandoned, "cleaned up after a dead writer");
            // Not ours any more means that somebody writes again. What its writer was about to end has no name to keep.
            let _ = match block.is_closed() {
                Ok(true) => adopted.writer.finish_closing(|| block.remove_name()),
                _ => adopted.writer.resign(),
            };
            true
        }
        Err(error @ RegistryError::Damaged) => {
            tracing::warn!(block = name, %error, "cannot clean up after the dead writer");
            true
        }
        Err(error) => {
            tracing::debug!(block = name, %error, "somebody else cleans up after the dead writer");
            false
        }
    }
}

/// How long to try for the maintenance lock.
const PATIENCE: Nanos = Nanos::from_millis(2);
