//! What a hub counts also stands in the metrics of the blocks that it is used for (DH-205).

use std::{
    mem::offset_of,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tidegate_shm::{
    region::{AccessError, RecordMut},
    sync::Ordering,
};

use super::config::HubCounters;
use crate::{
    block::{Block, PAGE_RECORD},
    layout::pages::MetricsPage,
};

/// Counts failures of a hub in a block for as long as it exists.
#[derive(Debug)]
pub struct CountedIn {
    _metrics: Arc<Metrics>,
}

/// The metrics page of a block.
#[derive(Debug)]
struct Metrics(RecordMut<PAGE_RECORD>);

/// Blocks that failures are counted in.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<Vec<Weak<Metrics>>>);

impl Blocks {
    pub(super) fn add(&self, block: &Block) -> Result<CountedIn, AccessError> {
        let metrics = Arc::new(Metrics(block.consumer_views()?.metrics));
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.retain(|known| known.strong_count() > 0);
        blocks.push(Arc::downgrade(&metrics));
        Ok(CountedIn { _metrics: metrics })
    }

    /// Adds what has been counted between the two.
    pub(super) fn add_difference(&self, before: &HubCounters, after: &HubCounters) {
        let added = [
            after.zmq_send_failures - before.zmq_send_failures,
            after.zmq_recv_failures - before.zmq_recv_failures,
            after.zmq_timeout_count - before.zmq_timeout_count,
        ];
        if added == [0; 3] {
            return;
        }
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for metrics in blocks.iter().filter_map(Weak::upgrade) {
            let row = metrics.0.row();
            // Relaxed, each: counters order nothing.
            row.u64::<{ offset_of!(MetricsPage, zmq_send_failures) }>()
                .fetch_add(added[0], Ordering::Relaxed);
            row.u64::<{ offset_of!(MetricsPage, zmq_recv_failures) }>()
                .fetch_add(added[1], Ordering::Relaxed);
            row.u64::<{ offset_of!(MetricsPage, zmq_timeout_count) }>()
                .fetch_add(added[2], Ordering::Relaxed);
        }
    }
}
