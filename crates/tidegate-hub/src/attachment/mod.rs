//! A mapped block as the coordination core uses it: its words by name, and the process that uses them.
//!
//! | module | gives |
//! |---|---|
//! | [`words`] | [`Words`](crate::core::words::Words) and [`WriterWords`](crate::core::words::WriterWords) over the views of a block |
//! | [`process`] | [`Host`](crate::core::host::Host): clock, sleep, who lives, where counters and errors go |
//! | [`counters`] | where each counter of 17.1 lies |
//! | [`sampling`] | latencies of every so manieth operation |
//! | [`audit`] | the audit ring of 18.5 |

pub mod audit;
pub mod counters;
pub mod process;
pub mod sampling;
pub mod words;

use std::{num::NonZeroU32, sync::Arc};

use tidegate_shm::region::AccessError;

pub use process::Process;
pub use words::{ConsumerWords, WriterWords};

use crate::{
    block::Block,
    core::{
        Core,
        codec::SlotId,
        config::{CoreConfig, Stall, Timing, WaitStrategy},
    },
};

/// A block as a consumer uses it.
pub type ConsumerCore = Core<ConsumerWords, Process>;
/// A block as its acting writer uses it.
pub type WriterCore = Core<WriterWords, Process>;

/// The block for one that reads slots.
///
/// # Errors
/// The block was not attached with the right to write area S.
pub fn consumer_core(
    block: &Arc<Block>,
    wait: WaitStrategy,
    timing: Timing,
) -> Result<ConsumerCore, AccessError> {
    let views = block.consumer_views()?;
    let process = Process::new(block.clone())?;
    let config = core_config(block, wait, timing);
    Ok(Core::new(ConsumerWords::new(views), process, config, block.own_key()))
}

/// The block for its acting writer.
///
/// # Errors
/// The block was not attached with the right to write all of it.
pub fn writer_core(
    block: &Arc<Block>,
    wait: WaitStrategy,
    timing: Timing,
) -> Result<WriterCore, AccessError> {
    let views = block.writer_views()?;
    let process = Process::new(block.clone())?;
    let config = core_config(block, wait, timing);
    Ok(Core::new(WriterWords::new(views), process, config, block.own_key()))
}

/// What the core has to know about a block.
pub fn core_config(block: &Block, wait: WaitStrategy, timing: Timing) -> CoreConfig {
    let spec = &block.descriptor().spec;
    CoreConfig {
        sync: spec.sync,
        overflow: spec.overflow,
        orphan: spec.orphan,
        on_held: spec.on_held,
        // A descriptor with no slot does not pass its checks.
        slot_count: NonZeroU32::new(spec.slot_count).unwrap_or(NonZeroU32::MIN),
        slot_size: spec.slot_size,
        max_consumers: spec.max_consumers,
        first_slot: SlotId(spec.first_slot_id),
        stall: Stall::Wait,
        wait,
        timing,
    }
}
