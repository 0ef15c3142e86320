//! Looking at a block without touching it (18.1): who holds what, what is stuck, what is damaged.
//!
//! An [`Inspector`] maps everything read-only and needs no secret. It opens whatever passes the checks of the descriptor
//! (steps 1 to 13 of attaching); what is wrong beyond that is reported, not fatal. Nothing found in the block is
//! believed: codes may be impossible, ids out of range, texts no texts, owners nobody.
//!
//! | module | answers |
//! |---|---|
//! | [`picture`] | what is in the words |
//! | [`owner`] | whose they are, whether that process lives, how old they are |
//! | [`slot`], [`consumer`], [`lock`] | what each slot, consumer and lock is doing |
//! | [`finding`] | what is wrong, how bad it is, and what to do |
//! | [`integrity`] | which invariants of the sheet do not hold |
//! | [`audit`] | what was repaired or forced before |

pub mod audit;
pub mod consumer;
pub mod finding;
pub mod integrity;
pub mod lock;
pub mod owner;
pub mod picture;
pub mod slot;

mod diagnosis;

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tidegate_shm::{
    clock::{Nanos, monotonic_now},
    host::HostId,
    region::AccessError,
};

pub use audit::AuditRecord;
pub use consumer::{ConsumerInfo, ReaderInfo, SlotReaders};
pub use diagnosis::{BlockSummary, Diagnosis, IndexSummary, SlotSummary, WriterInfo};
pub use finding::{Finding, Severity};
pub use integrity::{Damage, IntegrityReport, Part, SlotDigest};
pub use lock::{LockInfo, LockKind};
pub use owner::Owner;
pub use slot::{DigestState, Recommendation, SlotCondition, SlotDiagnostic};

use crate::{
    block::{AttachError, AttachOptions, Block, InspectorViews, Role, attach, registry::Place},
    core::codec::SlotId,
    identity::{Liveness, ProcessKey},
    layout::{Descriptor, InitState, Overflow, SyncPolicy},
    metrics::HubMetrics,
};
use picture::{Control, Indices};

/// From which age on something counts as stuck or stale (6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// A slot that is being written or drained.
    pub stuck_write: Duration,
    /// A slot that is being read.
    pub stuck_read: Duration,
    /// A heartbeat.
    pub heartbeat_stale: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            stuck_write: Duration::from_secs(5),
            stuck_read: Duration::from_secs(300),
            heartbeat_stale: Duration::from_secs(5),
        }
    }
}

/// How far a block is in its life, with its processes taken into account (DH-241).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum BlockLife {
    /// Not complete; its creator died or is still at it.
    Building,
    /// In use.
    Ready,
    /// Nothing new is written.
    Closing,
    /// Over.
    Closed,
    /// The writer is dead, whether somebody has cleaned up after it or not.
    Orphaned,
    /// The writer and all consumers are dead, or it stems from an earlier boot.
    Reclaimable,
    /// In no possible state.
    Damaged,
}

/// A block that is looked at.
#[derive(Debug)]
pub struct Inspector {
    block: Arc<Block>,
    views: InspectorViews,
    thresholds: Thresholds,
    /// Whether monotonic times in the block can be compared with the clock here.
    same_clock: bool,
}

impl Inspector {
    /// Opens the block `name`, read-only. Of the options the role and the secret do not matter.
    ///
    /// # Errors
    /// Steps 1 to 13 of attaching.
    pub fn open(name: &str, options: &AttachOptions<'_>) -> Result<Self, AttachError> {
        let options = AttachOptions {
            role: Role::Inspector,
            init_wait: Duration::ZERO,
            secret: None,
            ..options.clone()
        };
        Ok(Self::of(Arc::new(attach(name, &options)?))?)
    }

    /// Looks at a block that is attached already, in whatever role.
    ///
    /// # Errors
    /// None for a block that was attached.
    pub fn of(block: Arc<Block>) -> Result<Self, AccessError> {
        let views = block.inspector_views()?;
        let host = block.descriptor().host;
        let same_clock = HostId::current()
            .is_ok_and(|here| (host.boot_id, host.time_namespace) == (here.boot_id, here.time_namespace));
        Ok(Self { block, views, thresholds: Thresholds::default(), same_clock })
    }

    /// The same with other ages from which on something counts as stuck.
    #[must_use]
    pub fn with_thresholds(self, thresholds: Thresholds) -> Self {
        Self { thresholds, ..self }
    }

    /// From which age on something counts as stuck.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// The block.
    pub fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// What the block is.
    pub fn descriptor(&self) -> &Descriptor {
        self.block.descriptor()
    }

    /// Name of the file.
    pub fn name(&self) -> String {
        self.block.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether the process `pid` as it runs now lives; says nothing about an earlier one with that number.
    pub fn process_alive(&self, pid: u32) -> bool {
        tidegate_shm::process::pid_is_alive(pid)
    }

    /// What is known about the owner `key` found at `place`.
    pub fn liveness(&self, key: ProcessKey, place: Place) -> Liveness {
        self.block.liveness(key, place, false)
    }

    /// How far the block is in its life.
    pub fn life(&self) -> BlockLife {
        let control = self.control();
        if self.block.findings().iter().any(|finding| matches!(finding, AttachError::StaleBoot { .. })) {
            return BlockLife::Reclaimable;
        }
        match InitState::from_code(control.init_state) {
            None => BlockLife::Damaged,
            Some(InitState::Raw | InitState::Building) => BlockLife::Building,
            Some(InitState::Closed) => BlockLife::Closed,
            Some(state) => {
                let writer = self.owner(control.writer_owner, Place::Writer);
                // Without a writer: a consumer has cleaned up after a dead one.
                if writer.is_none_or(|writer| writer.liveness == Liveness::Dead) {
                    let all_dead = self.consumers().iter().all(ConsumerInfo::is_dead);
                    return if all_dead { BlockLife::Reclaimable } else { BlockLife::Orphaned };
                }
                if state == InitState::Ready { BlockLife::Ready } else { BlockLife::Closing }
            }
        }
    }

    /// The numbers of the block.
    pub fn metrics(&self) -> HubMetrics {
        HubMetrics::observe(self)
    }

    pub(crate) fn views(&self) -> &InspectorViews {
        &self.views
    }

    pub(crate) fn control(&self) -> Control {
        Control::load(self.views.control.row())
    }

    pub(crate) fn indices(&self) -> Indices {
        Indices::load(self.views.control.row())
    }

    /// The owner that `word` names, if it names one.
    pub(crate) fn owner(&self, word: u64, place: Place) -> Option<Owner> {
        let key = ProcessKey::from_word(word)?;
        Some(Owner { key, liveness: self.block.liveness(key, place, false) })
    }

    /// How long ago a time of the monotonic clock was. `None` if it was never set, lies ahead, or is of another clock
    /// (DH-040).
    pub(crate) fn age(&self, ns: u64) -> Option<Duration> {
        let ago = monotonic_now().as_u64().checked_sub(ns).filter(|_| ns != 0 && self.same_clock)?;
        Some(Duration::from_nanos(ago))
    }

    pub(crate) fn now(&self) -> Nanos {
        monotonic_now()
    }

    /// Whether ids may be overwritten before everybody has read them.
    pub(crate) fn is_lossy(&self) -> bool {
        let spec = &self.descriptor().spec;
        spec.sync == SyncPolicy::LatestOnly || spec.overflow == Overflow::DropOldest
    }

    /// Where an id lives (DH-048).
    pub(crate) fn slot_of(&self, id: SlotId) -> u32 {
        let spec = &self.descriptor().spec;
        (id.0.saturating_sub(spec.first_slot_id) % u64::from(spec.slot_count.max(1))) as u32
    }
}
