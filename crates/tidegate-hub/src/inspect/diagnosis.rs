//! Everything about a block at once, and what is wrong with it.

use std::time::Duration;

use serde::Serialize;

use super::{
    ConsumerInfo, Finding, Inspector, Owner, Severity, SlotDiagnostic,
    owner::{key_field, liveness_field, millis},
    picture::Zone,
};
use crate::{
    block::{AttachError, registry::Place},
    core::codec::{RowState, SlotState},
    identity::{Liveness, ProcessKey},
    inspect::integrity::{Damage, Part},
    layout::{InitState, pages::ZoneControl},
    metrics::{Counters, as_text},
};

/// A block, its writer, its slots, its consumers, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// What the block is.
    pub block: BlockSummary,
    /// Who writes it.
    pub writer: WriterInfo,
    /// Where writing and reading are.
    pub indices: IndexSummary,
    /// Every slot.
    pub slots: Vec<SlotDiagnostic>,
    /// Every consumer.
    pub consumers: Vec<ConsumerInfo>,
    /// How many slots are stuck.
    pub summary: SlotSummary,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// Whether nothing is wrong.
    pub healthy: bool,
}

/// What a block is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockSummary {
    /// Name of the file.
    pub name: String,
    /// Its channel.
    pub channel: String,
    /// Its uuid.
    pub uuid: String,
    /// How its slots are used.
    pub policy: String,
    /// Which values consumers see.
    pub sync: String,
    /// What a full ring does.
    pub overflow: String,
    /// What becomes of ids that nobody is there to read.
    pub orphan: String,
    /// Slots.
    pub slot_count: u32,
    /// Bytes of a slot.
    #[serde(serialize_with = "as_text")]
    pub slot_size: u64,
    /// Rows of the consumer table.
    pub max_consumers: u32,
    /// The word for `init_state`.
    pub state: &'static str,
    /// Bits of `taint`.
    pub taint: u32,
    /// `handover_state`.
    pub handover: u32,
}

/// Who writes a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WriterInfo {
    /// Its pid, 0 if there is none.
    pub pid: u32,
    /// Its key.
    #[serde(serialize_with = "key_field")]
    pub key: Option<ProcessKey>,
    /// What is known about it; unknown if there is none.
    #[serde(serialize_with = "liveness_field")]
    pub liveness: Liveness,
    /// How many writers there were.
    #[serde(serialize_with = "as_text")]
    pub epoch: u64,
    /// Since its last beat.
    #[serde(rename = "heartbeat_age_ms", serialize_with = "millis")]
    pub heartbeat_age: Option<Duration>,
    /// Since it became the writer.
    #[serde(rename = "attached_ms", serialize_with = "millis")]
    pub attached: Option<Duration>,
}

/// Where writing and reading are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IndexSummary {
    /// Next id to be written.
    #[serde(serialize_with = "as_text")]
    pub write: u64,
    /// End of the resolved ids.
    #[serde(serialize_with = "as_text")]
    pub commit: u64,
    /// Ids below it may be overwritten.
    #[serde(serialize_with = "as_text")]
    pub floor: u64,
    /// `write - floor`, or all slots.
    #[serde(serialize_with = "as_text")]
    pub occupancy: u64,
}

/// How many slots are stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SlotSummary {
    /// Stuck.
    pub stuck: usize,
    /// Not stuck.
    pub healthy: usize,
}

impl Diagnosis {
    /// How bad the worst finding is.
    pub fn severity(&self) -> Option<Severity> {
        self.findings.first().map(Finding::severity)
    }

    /// What is wrong in a few words, `OK` if nothing is.
    pub fn verdict(&self) -> String {
        if self.healthy {
            return "OK".to_owned();
        }
        let count =
            |matches: fn(&Finding) -> bool| self.findings.iter().filter(|found| matches(found)).count();
        let many = |number: usize, one: &str| match number {
            0 => None,
            1 => Some(format!("1 {one}")),
            number => Some(format!("{number} {one}s")),
        };
        let mut words = Vec::new();
        for found in &self.findings {
            match found {
                Finding::WriterDead { .. } => words.push("writer dead".to_owned()),
                Finding::NoWriter => words.push("no writer".to_owned()),
                Finding::NotReady { .. } | Finding::StaleBoot => words.push(found.to_string()),
                _ => {}
            }
        }
        words.extend(many(count(|found| matches!(found, Finding::StuckSlot { .. })), "stuck slot"));
        words.extend(many(count(|found| matches!(found, Finding::ConsumerDead { .. })), "dead consumer"));
        words.extend(many(count(|found| matches!(found, Finding::StuckReader { .. })), "stuck reader"));
        words
            .extend(many(count(|found| matches!(found, Finding::LockDead { .. })), "lock of a dead process"));
        let told = |found: &&Finding| {
            use Finding::{
                ConsumerDead, LockDead, NoWriter, NotReady, StaleBoot, StuckReader, StuckSlot, WriterDead,
            };
            matches!(
                found,
                WriterDead { .. }
                    | NoWriter
                    | NotReady { .. }
                    | StaleBoot
                    | StuckSlot { .. }
                    | ConsumerDead { .. }
            ) || matches!(found, StuckReader { .. } | LockDead { .. })
        };
        let rest = self.findings.iter().filter(|found| found.severity() >= Severity::Problem && !told(found));
        words.extend(rest.map(Finding::to_string));
        format!("UNHEALTHY ({})", words.join(", "))
    }
}

impl Inspector {
    /// Everything about the block, and what is wrong with it.
    pub fn diagnose(&self) -> Diagnosis {
        let slots = self.diagnose_all();
        let consumers = self.consumers();
        let writer = self.writer();
        let findings = self.findings_of(&writer, &slots, &consumers);
        let stuck = slots.iter().filter(|slot| slot.is_stuck).count();
        Diagnosis {
            block: self.summary(),
            writer,
            indices: self.index_summary(),
            summary: SlotSummary { stuck, healthy: slots.len() - stuck },
            slots,
            consumers,
            healthy: !findings.iter().any(|found| found.severity() >= Severity::Problem),
            findings,
        }
    }

    /// What is wrong, the worst first.
    pub fn findings(&self) -> Vec<Finding> {
        self.findings_of(&self.writer(), &self.diagnose_all(), &self.consumers())
    }

    /// Who writes the block.
    pub fn writer(&self) -> WriterInfo {
        let control = self.control();
        let owner = self.owner(control.writer_owner, Place::Writer);
        WriterInfo {
            pid: owner.map_or(0, |owner| owner.key.pid()),
            key: owner.map(|owner| owner.key),
            liveness: owner.map_or(Liveness::Unknown, |owner| owner.liveness),
            epoch: control.writer_epoch,
            heartbeat_age: self.age(control.writer_heartbeat_ns),
            attached: owner.and_then(|_| self.age(control.writer_attached_ns)),
        }
    }

    /// What the block is.
    pub fn summary(&self) -> BlockSummary {
        let descriptor = self.descriptor();
        let spec = &descriptor.spec;
        let control = self.control();
        BlockSummary {
            name: self.name(),
            channel: spec.channel.to_string(),
            uuid: descriptor.uuid.to_string(),
            policy: spec.policy.to_string(),
            sync: spec.sync.to_string(),
            overflow: spec.overflow.to_string(),
            orphan: spec.orphan.to_string(),
            slot_count: spec.slot_count,
            slot_size: spec.slot_size,
            max_consumers: spec.max_consumers,
            state: state_word(control.init_state),
            taint: control.taint,
            handover: control.handover_state,
        }
    }

    /// Where writing and reading are.
    pub fn index_summary(&self) -> IndexSummary {
        let indices = self.indices();
        let slots = u64::from(self.descriptor().spec.slot_count);
        IndexSummary {
            write: indices.write_index,
            commit: indices.commit_index,
            floor: indices.read_index,
            occupancy: indices.write_index.saturating_sub(indices.read_index).min(slots),
        }
    }

    fn findings_of(
        &self,
        writer: &WriterInfo,
        slots: &[SlotDiagnostic],
        consumers: &[ConsumerInfo],
    ) -> Vec<Finding> {
        let mut found = Vec::new();
        self.block_findings(writer, &mut found);
        self.slot_findings(slots, &mut found);
        self.consumer_findings(consumers, &mut found);
        self.lock_findings(&mut found);
        self.zone_findings(&mut found);
        self.counter_findings(&mut found);
        found.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
        found
    }

    fn block_findings(&self, writer: &WriterInfo, found: &mut Vec<Finding>) {
        let control = self.control();
        let state = InitState::from_code(control.init_state);
        for finding in self.block().findings() {
            match finding {
                AttachError::StaleBoot { .. } => found.push(Finding::StaleBoot),
                AttachError::Corrupt(mismatch) => {
                    let part = mismatch.index.map_or(Part::Control, |slot| Part::Slot(slot as u32));
                    found.push(Finding::Damaged(Damage { part, mismatch: *mismatch }));
                }
                _ => {}
            }
        }
        match state {
            Some(InitState::Ready) => {}
            Some(state) => found.push(Finding::NotReady { state }),
            None => {}
        }
        let owner = writer.key.map(|key| Owner { key, liveness: writer.liveness });
        match owner {
            None if state == Some(InitState::Ready) => found.push(Finding::NoWriter),
            None => {}
            Some(owner) if owner.is_dead() => found.push(Finding::WriterDead { owner }),
            Some(owner) => {
                let stale = writer.heartbeat_age.filter(|age| *age > self.thresholds().heartbeat_stale);
                found.extend(stale.map(|age| Finding::WriterStale { owner, age }));
            }
        }
        if control.taint != 0 {
            found.push(Finding::Tainted { bits: control.taint });
        }
        if matches!(control.handover_state, 1 | 2) {
            let age = self.age(control.handover_started_ns);
            found.push(Finding::Handover { state: control.handover_state, age });
        }
    }

    fn slot_findings(&self, slots: &[SlotDiagnostic], found: &mut Vec<Finding>) {
        for slot in slots {
            let held_by_reader = slot.state.is(SlotState::Committed) || slot.state.is(SlotState::Free);
            if slot.state.is(SlotState::Quarantined) {
                found.push(Finding::Quarantined { slot: slot.slot_index, owner: slot.owner });
            } else if slot.is_stuck && !held_by_reader {
                found.push(Finding::StuckSlot {
                    slot: slot.slot_index,
                    id: slot.slot_id,
                    state: slot.state.word(),
                    owner: slot.owner,
                    age: slot.stuck_for,
                });
            }
        }
    }

    fn consumer_findings(&self, consumers: &[ConsumerInfo], found: &mut Vec<Finding>) {
        for consumer in consumers {
            let (row, pid) = (consumer.row, consumer.pid);
            if consumer.is_dead() {
                found.push(Finding::ConsumerDead { row, pid, age: consumer.heartbeat_age });
                continue;
            }
            let reading_for = consumer.claim_age.filter(|age| *age >= self.thresholds().stuck_read);
            if reading_for.is_some() {
                found.push(Finding::StuckReader { row, pid, age: reading_for });
            }
            if consumer.stale {
                found.push(Finding::ConsumerStale { row, pid, age: consumer.heartbeat_age });
            }
            if consumer.reg.is(RowState::Evicted) {
                found.push(Finding::Evicted { row, pid });
            }
        }
    }

    fn lock_findings(&self, found: &mut Vec<Finding>) {
        for lock in self.list_locks() {
            let writers = lock.kind == super::LockKind::Writer;
            match lock.owner {
                Some(_) if writers => {}
                Some(owner) if owner.is_dead() => found.push(Finding::LockDead { lock: lock.index, owner }),
                Some(owner) if lock.kind == super::LockKind::Maintenance => {
                    let long = lock.held.filter(|age| *age >= MAINTENANCE_LONG);
                    found.extend(long.map(|age| Finding::MaintenanceHeld { owner, age }));
                }
                _ => {}
            }
            if lock.poisoned {
                found.push(Finding::LockPoisoned { lock: lock.index });
            }
        }
    }

    /// Updates whose process died (DH-141).
    fn zone_findings(&self, found: &mut Vec<Finding>) {
        for (zone, offset) in (0..).zip(&self.descriptor().geometry.zone_offsets) {
            let record = self.block().region().record::<{ size_of::<ZoneControl>() }>(*offset);
            let Ok(words) = record.map(|record| Zone::load(record.row())) else { continue };
            let writer = self.owner(words.last_writer, Place::Lock(self.lock_of_zone(zone)));
            if let Some(owner) = writer.filter(|owner| words.write_generation % 2 == 1 && owner.is_dead()) {
                found.push(Finding::TornZone { zone, owner });
            }
        }
    }

    fn lock_of_zone(&self, zone: u32) -> u32 {
        let zone = self.descriptor().spec.zones.get(zone as usize);
        zone.and_then(|zone| zone.lock).unwrap_or(crate::layout::NO_INDEX)
    }

    fn counter_findings(&self, found: &mut Vec<Finding>) {
        let counters = Counters::load(&self.views().metrics);
        if counters.write_lock_contention != 0 {
            found.push(Finding::Contention { count: counters.write_lock_contention });
        }
        if counters.state_transition_errors != 0 {
            found.push(Finding::StateErrors { count: counters.state_transition_errors });
        }
        // Whether it grew takes two looks. One look takes the last error of any kind for a sign.
        let recent = self.age(counters.last_error_timestamp_ns).is_some_and(|age| age < CHECKSUM_WINDOW);
        if counters.checksum_failures != 0 && recent {
            found.push(Finding::ChecksumFailures { count: counters.checksum_failures });
        }
    }
}

/// The word for a value of `init_state`.
fn state_word(code: u32) -> &'static str {
    match InitState::from_code(code) {
        Some(InitState::Raw) => "RAW",
        Some(InitState::Building) => "BUILDING",
        Some(InitState::Ready) => "READY",
        Some(InitState::Closing) => "CLOSING",
        Some(InitState::Closed) => "CLOSED",
        None => "INVALID",
    }
}

/// The maintenance lock is held for moments (DH-152).
const MAINTENANCE_LONG: Duration = Duration::from_secs(1);
/// How long a failure counts against the health of a block (17.2).
const CHECKSUM_WINDOW: Duration = Duration::from_secs(60);
