//! Rows of consumers.

use std::time::Duration;

use super::{RecoverError, Recovery, Step, TAINT_EVICTED};
use crate::{
    core::{
        codec::{Row, SlotId},
        error::RegistryError,
    },
    inspect::ConsumerInfo,
};

impl Recovery {
    /// Removes the rows of dead consumers, or of those that claim what `slot` holds.
    ///
    /// # Errors
    /// None is dead.
    pub fn release_zombie_readers(&self, slot: Option<u32>) -> Result<Vec<Step>, RecoverError> {
        let id = slot.and_then(|slot| self.inspector.slot_condition(slot)?.1);
        let reads = |row: &ConsumerInfo| slot.is_none() || id.is_some_and(|id| row.claim.covers(SlotId(id)));
        let dead: Vec<ConsumerInfo> = self.dead_consumers().into_iter().filter(reads).collect();
        if dead.is_empty() {
            return Err(RecoverError::NotStuck { what: "no consumer is dead" });
        }
        // Whoever is dead goes; a row is never looked at twice.
        self.core.reap(self.deadline())?;
        Ok(self.report_reaped(&dead))
    }

    /// Removes the rows of all dead consumers.
    ///
    /// # Errors
    /// None is dead.
    pub fn cleanup_dead_consumers(&self) -> Result<Vec<Step>, RecoverError> {
        self.release_zombie_readers(None)
    }

    /// Takes from a consumer the right to hold the ring back. What it is reading stays its own until it lets go. A dead
    /// one is removed without force.
    ///
    /// # Errors
    /// It may live and force was not allowed, or there is none in that row.
    pub fn evict_consumer(&self, row: u32, force: bool) -> Result<Step, RecoverError> {
        let found = self.inspector.consumer(row);
        let consumer = found.ok_or(RecoverError::NotStuck { what: "nobody has that row" })?;
        if consumer.is_dead() {
            self.core.reap(self.deadline())?;
            let steps = self.report_reaped(&[consumer]);
            return steps
                .into_iter()
                .next()
                .ok_or(RecoverError::NotStuck { what: "the row was removed meanwhile" });
        }
        if !force {
            return Err(RecoverError::ConsumerAlive { row, pid: consumer.pid });
        }
        self.evict(&consumer, || true)
    }

    /// Evicts the consumer that was `found`, whether it lives or not, if it has still not beaten for longer than `longest`.
    ///
    /// # Errors
    /// It has left, was evicted, or beats again.
    pub fn evict_stale(&self, found: &ConsumerInfo, longest: Duration) -> Result<Step, RecoverError> {
        let age = || self.inspector.consumer(found.row).and_then(|now| now.heartbeat_age);
        let what = "the consumer has left, was evicted or beats again";
        match self.evict(found, || age().is_some_and(|age| age > longest)) {
            Err(RecoverError::Registry(RegistryError::NotOwner)) => Err(RecoverError::NotStuck { what }),
            step => step,
        }
    }

    fn evict(&self, consumer: &ConsumerInfo, may: impl FnOnce() -> bool) -> Result<Step, RecoverError> {
        let ConsumerInfo { row, pid, .. } = *consumer;
        self.core.evict_from(Row(row), consumer.reg, may, self.deadline())?;
        self.taint(TAINT_EVICTED)?;
        self.count(1, true);
        let done = format!("pid {pid} evicted; what it reads stays until it lets go");
        let step = Step::new(format!("consumer row {row}"), done, "forced").by_force(true);
        Ok(self.told(step.between(&consumer.state, &"evicted")))
    }

    pub(super) fn dead_consumers(&self) -> Vec<ConsumerInfo> {
        self.inspector.consumers().into_iter().filter(ConsumerInfo::is_dead).collect()
    }

    /// The steps for those of `dead` whose rows are not theirs any more.
    pub(super) fn report_reaped(&self, dead: &[ConsumerInfo]) -> Vec<Step> {
        let gone = |row: &&ConsumerInfo| self.inspector.consumer(row.row).and_then(|now| now.key) != row.key;
        let steps: Vec<Step> = dead.iter().filter(gone).map(|row| self.told(reaped(row))).collect();
        self.count(steps.len() as u64, false);
        steps
    }
}

fn reaped(row: &ConsumerInfo) -> Step {
    let done = format!("reaped (pid {})", row.pid);
    let reason = format!("pid {} is dead", row.pid);
    let before = format!("{} cursor {}", row.state, row.cursor);
    Step::new(format!("consumer row {}", row.row), done, reason).between(&before, &"free")
}
