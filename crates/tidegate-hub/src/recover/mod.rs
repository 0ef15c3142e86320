//! Repairing blocks (18.2): look first, then act, and never against a process that may live unless forced.
//!
//! Every operation looks before it takes anything, and looks again under the maintenance lock immediately before it acts
//! (DH-254). Words of the writer are changed only as acting writer (DH-256), so that a producer that starts meanwhile wins
//! or waits, and a repair that is killed leaves what a killed producer leaves (DH-262). What was done is counted in the
//! block, written to its audit ring, and logged with the values before and after (DH-261).
//!
//! | module | repairs |
//! |---|---|
//! | [`plan`] | everything that is proven to be safe, and says beforehand what it would do |
//! | [`slots`] | slots, and the writer's place |
//! | [`consumers`] | rows of consumers |
//! | [`locks`] | spinlocks |
//! | [`files`] | names |
//!
//! Force seizes the writer's place from a live writer, whose open slots go to quarantine: they are given to nobody before
//! it ends, and the block takes no more data, since words cannot stop a writer that wakes late (DH-258). Force against a live consumer evicts it; what it is reading stays its own (DH-259). The block keeps
//! the taint.

pub mod consumers;
pub mod files;
pub mod locks;
pub mod plan;
pub mod slots;

mod error;
mod step;

use std::{mem::offset_of, sync::Arc, time::Duration};

use tidegate_shm::{
    clock::{monotonic_now, realtime_now},
    sync::Ordering,
};

pub use error::RecoverError;
pub use plan::Repair;
pub use step::Step;

use crate::{
    attachment::{
        WriterCore,
        audit::{Entry, Operation},
        writer_core,
    },
    block::{
        AttachOptions, Block, Role, attach,
        registry::{Holding, Place},
    },
    core::config::{Deadline, Timing, WaitStrategy},
    inspect::{Inspector, Part},
    layout::pages::{ControlPage, MetricsPage},
    metrics,
};

/// A block that is repaired.
#[derive(Debug)]
pub struct Recovery {
    block: Arc<Block>,
    inspector: Inspector,
    core: WriterCore,
    patience: Duration,
}

impl Recovery {
    /// Opens the block `name` for repairs. Of the options the role and the secret do not matter; the file must be writable.
    ///
    /// # Errors
    /// Steps 1 to 13 of attaching.
    pub fn open(name: &str, options: &AttachOptions<'_>) -> Result<Self, RecoverError> {
        let options = AttachOptions {
            role: Role::Recovery,
            init_wait: Duration::ZERO,
            secret: None,
            ..options.clone()
        };
        let block = Arc::new(attach(name, &options)?);
        Ok(Self {
            inspector: Inspector::of(block.clone())?,
            core: writer_core(&block, WaitStrategy::Hybrid, Timing::default())?,
            block,
            patience: MAINTENANCE_LOCK,
        })
    }

    /// What is wrong with it.
    pub fn inspector(&self) -> &Inspector {
        &self.inspector
    }

    /// Sets counters and latencies to 0 (DH-246).
    ///
    /// # Errors
    /// The maintenance lock cannot be had.
    pub fn reset_metrics(&self) -> Result<Step, RecoverError> {
        let writes = self.inspector.metrics().total_writes_committed;
        self.core.under_lock(self.deadline(), || {
            metrics::reset_metrics(self.core.host().metrics());
            self.audit(Operation::MetricsReset, false, 0, writes, 0);
        })?;
        let step = Step::new("metrics", "counters and latencies set to 0", "asked for");
        Ok(self.told(step.between(&writes, &0)))
    }

    /// Makes rows and masks of the consumer table agree (DH-083).
    ///
    /// # Errors
    /// The maintenance lock cannot be had.
    pub fn repair_registry(&self) -> Result<Step, RecoverError> {
        let mask = || {
            self.block.consumer_views().map(|views| {
                let word =
                    views.sync.row().u32::<{ offset_of!(crate::layout::pages::SyncPage, active_mask) }>();
                // Relaxed: for people.
                word.load(Ordering::Relaxed)
            })
        };
        let before = mask()?;
        self.core.repair(self.deadline(), || {
            let after = mask().unwrap_or(before);
            self.audit(Operation::RegistryRepair, false, 0, before.into(), after.into());
        })?;
        self.count(1, false);
        let step = Step::new("consumer table", "rows and masks made to agree", "they did not");
        Ok(self.told(step.between(&format!("{before:#x}"), &format!("{:#x}", mask()?))))
    }

    fn deadline(&self) -> Deadline {
        Deadline::At(monotonic_now().saturating_add(self.patience.into()))
    }

    /// The writer's place of this process, for as long as the result lives (DH-039).
    fn take_place(&self) -> Result<Holding, RecoverError> {
        self.block.take(Place::Writer).ok_or(RecoverError::OwnBlock)
    }

    /// Where control words are impossible nothing can be computed from them.
    fn check_control(&self) -> Result<(), RecoverError> {
        self.refuse_damage(|part| part == Part::Control)
    }

    /// Adopting computes from every slot, too.
    fn check_slots(&self) -> Result<(), RecoverError> {
        self.refuse_damage(|part| matches!(part, Part::Control | Part::Slot(_)))
    }

    fn refuse_damage(&self, of: impl Fn(Part) -> bool) -> Result<(), RecoverError> {
        let report = self.inspector.integrity(false);
        let damage = report.findings.into_iter().find(|damage| of(damage.part));
        damage.map_or(Ok(()), |damage| Err(RecoverError::Damaged { damage }))
    }

    /// Writes to the audit ring. The caller has the maintenance lock.
    fn audit(&self, operation: Operation, forced: bool, target: u64, before: u64, after: u64) {
        let actor = self.block.own_key();
        let entry = Entry { actor, operation, forced, target, before, after };
        self.core.host().audit_ring().write(&entry);
    }

    /// Counts steps that changed something.
    fn count(&self, steps: u64, forced: bool) {
        let page = self.core.host().metrics().row();
        // Relaxed, each: counters order nothing.
        page.u64::<{ offset_of!(MetricsPage, recovery_actions) }>().fetch_add(steps, Ordering::Relaxed);
        page.u64::<{ offset_of!(MetricsPage, last_recovery_timestamp_ns) }>()
            .store(realtime_now().as_u64(), Ordering::Relaxed);
        if forced {
            page.u64::<{ offset_of!(MetricsPage, forced_actions) }>().fetch_add(steps, Ordering::Relaxed);
        }
    }

    /// Notes in the block what force has done to it.
    fn taint(&self, bits: u32) -> Result<(), RecoverError> {
        let taint = self.block.writer_views()?.control;
        // Relaxed: never cleared; for people.
        taint.row().u32::<{ offset_of!(ControlPage, taint) }>().fetch_or(bits, Ordering::Relaxed);
        Ok(())
    }

    /// Logs a step (DH-261).
    fn told(&self, step: Step) -> Step {
        step.log(&self.inspector.name(), self.block.own_key());
        step
    }
}

/// How long a repair tries for the maintenance lock (6.3).
const MAINTENANCE_LOCK: Duration = Duration::from_secs(1);
/// Bits of `taint` (3.4); the core sets that of a seized writer.
const TAINT_SLOT_RESET: u32 = 1 << 1;
const TAINT_UNLOCKED: u32 = 1 << 2;
const TAINT_EVICTED: u32 = 1 << 3;
