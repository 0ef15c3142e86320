//! Consumers that live and hold a lossless ring back for longer than the writer bears (DH-106).
//!
//! How long a cursor stands still is seen by the writer itself, over all its calls, since a caller with a short timeout
//! may never wait long enough at once. What it did not see does not count, so nobody is evicted too early.

use std::sync::PoisonError;

use tidegate_shm::{clock::Nanos, sync::Ordering};

use super::Writer;
use crate::core::{
    codec::{Reg, Row},
    config::{Deadline, Stall},
    host::Host,
    protocol::Protocol,
    words::{Load, Row64, Sync32, WriterWords},
};

/// What was seen last of the rows that held the writer back.
#[derive(Debug, Default)]
pub(super) struct Watch([Option<Seen>; 32]);

/// A cursor, and since when it has been seen there.
#[derive(Debug, Clone, Copy)]
struct Seen {
    reg: Reg,
    cursor: u64,
    since: Nanos,
}

impl Watch {
    /// For how long the consumer of this row has been seen standing at `cursor`.
    fn standing(&mut self, row: Row, reg: Reg, cursor: u64, now: Nanos) -> Nanos {
        let Some(place) = self.0.get_mut(row.0 as usize) else { return Nanos::ZERO };
        let seen = place.filter(|seen| (seen.reg, seen.cursor) == (reg, cursor));
        let since = seen.map_or(now, |seen| seen.since);
        *place = Some(Seen { reg, cursor, since });
        now.saturating_sub(since)
    }
}

impl<W: WriterWords, H: Host, P: Protocol> Writer<W, H, P> {
    /// Evicts the consumers that the policy does not bear any longer, among those whose cursor is below `needed`. All ids
    /// there are resolved: data is waiting for them.
    pub(super) fn evict_stalled(&self, needed: u64) {
        let core = &self.core;
        let Stall::EvictAfter(limit) = core.config.stall else { return };
        let now = core.host.now();
        for row in core.rows(core.mask(Sync32::ActiveMask) & !core.mask(Sync32::EvictedMask)) {
            let reg = core.reg(row);
            // Acquire: as in the scan of the floor.
            let cursor = core.words.row64(row, Row64::Cursor).load(Ordering::Acquire);
            if cursor >= needed {
                continue;
            }
            let standing = {
                // A thread that panicked left what it had seen.
                let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
                watch.standing(row, reg, cursor, now)
            };
            if standing.max(self.claim_age(row, now)) >= limit {
                let until = now.saturating_add(core.config.timing.reap_lock);
                // Acquire: as above. It may have read on while the lock was taken.
                let stands = || core.words.row64(row, Row64::Cursor).load(Ordering::Acquire) == cursor;
                // Without the lock this time, the next probe tries again.
                let _ = core.evict_from(row, reg, stands, Deadline::At(until));
            }
        }
    }

    /// How long ago the claim of a row was made; zero without one.
    fn claim_age(&self, row: Row, now: Nanos) -> Nanos {
        if self.core.claim_of(row).is_none() {
            return Nanos::ZERO;
        }
        // Relaxed: stored before the claim just acquired, or before a later one, which makes it younger.
        let since = self.core.words.row64(row, Row64::ClaimSince).load(Ordering::Relaxed);
        now.saturating_sub(Nanos(since))
    }
}
