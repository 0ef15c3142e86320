//! What a producer sees of its own block: numbers, consumers, slots (9.3).

use tidegate_shm::region::AccessError;

use super::Producer;
use crate::{
    attachment::audit::{Entry, Operation},
    core::{
        codec::{SlotIndex, SlotState},
        error::AcquireError,
        repair::{ResetRefusal, SlotChange},
        writer::SlotResetError,
    },
    error::RegistryError,
    inspect::{ConsumerInfo, Inspector, SlotDiagnostic, Thresholds},
    metrics::{self, HubMetrics},
};

impl Producer {
    /// The numbers of the block (DH-245).
    ///
    /// # Errors
    /// None while this process is the one that opened the block.
    pub fn metrics(&self) -> Result<HubMetrics, AccessError> {
        Ok(self.inspector()?.metrics())
    }

    /// Sets counters and latencies to 0 (DH-246).
    ///
    /// # Errors
    /// The maintenance lock could not be had in time.
    pub fn reset_metrics(&self) -> Result<(), RegistryError> {
        let core = self.writer.core();
        core.under_lock(self.maintenance_deadline(), || {
            metrics::reset_metrics(core.host().metrics());
            core.host().audit_ring().write(&Entry {
                actor: core.key(),
                operation: Operation::MetricsReset,
                forced: false,
                target: 0,
                before: 0,
                after: 0,
            });
        })
    }

    /// Shows every occupied row of the consumer table (DH-235).
    ///
    /// # Errors
    /// None while this process is the one that opened the block.
    pub fn for_each_consumer(&self, mut show: impl FnMut(&ConsumerInfo)) -> Result<(), AccessError> {
        self.inspector()?.consumers().iter().for_each(&mut show);
        Ok(())
    }

    /// The consumers that are dead, or whose beat is older than `heartbeat_stale`.
    ///
    /// # Errors
    /// None while this process is the one that opened the block.
    pub fn check_consumer_health(&self) -> Result<Vec<ConsumerInfo>, AccessError> {
        let mut consumers = self.inspector()?.consumers();
        consumers.retain(|consumer| consumer.is_dead() || consumer.stale);
        Ok(consumers)
    }

    /// The state of slot `index`; none if there is no such slot.
    ///
    /// # Errors
    /// None while this process is the one that opened the block.
    pub fn query_slot_state(&self, index: u32) -> Result<Option<SlotDiagnostic>, AccessError> {
        Ok(self.inspector()?.diagnose_slot(index))
    }

    /// Undoes what a displaced writer left half done in slot `index`. A slot that this process is writing is left to its
    /// guard.
    ///
    /// # Errors
    /// There is nothing to undo, somebody who is not dead uses the slot, or the right was lost.
    pub fn force_reset_slot(&self, index: u32) -> Result<SlotChange, SlotResetError> {
        self.block.check().map_err(|_| AcquireError::Fenced)?;
        if index >= self.descriptor().spec.slot_count {
            return Err(ResetRefusal::NotStuck.into());
        }
        let change = self.writer.reset_slot(SlotIndex(index), self.maintenance_deadline())?;
        self.writer.core().host().audit_ring().write(&Entry {
            actor: self.writer.core().key(),
            operation: Operation::ResetSlot,
            forced: true,
            target: index.into(),
            before: change.before.0,
            after: change.after.0,
        });
        Ok(change)
    }

    /// Undoes what writers before this one left half done and could not be undone when it came, because they were not known
    /// to be dead (5.10, step 2). Returns how many slots that were.
    ///
    /// # Errors
    /// The right was lost.
    pub fn recover_stuck_slots(&self) -> Result<u32, AcquireError> {
        let mut recovered = 0;
        let slots = self.descriptor().spec.slot_count;
        let stuck = (0..slots).filter(|slot| {
            let ctl = self.writer.core().slot_ctl(SlotIndex(*slot));
            ctl.is(SlotState::Quarantined)
        });
        for slot in stuck {
            match self.force_reset_slot(slot) {
                Ok(_) => recovered += 1,
                // Whoever wrote it is not dead yet, or somebody reads it.
                Err(SlotResetError::Refused(_)) => {}
                Err(SlotResetError::Acquire(error)) => return Err(error),
            }
        }
        Ok(recovered)
    }

    fn inspector(&self) -> Result<Inspector, AccessError> {
        let thresholds = Thresholds {
            stuck_write: self.timeouts.stuck_write,
            stuck_read: self.timeouts.stuck_read,
            heartbeat_stale: self.timeouts.heartbeat_stale,
        };
        Ok(Inspector::of(self.block.clone())?.with_thresholds(thresholds))
    }
}
