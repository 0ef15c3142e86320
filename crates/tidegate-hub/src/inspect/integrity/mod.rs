//! Which invariants of the sheet do not hold (DH-253).
//!
//! Others may be at work meanwhile. Words are loaded in an order in which a healthy block does not look impossible; where
//! that is not enough, what is found must be found again, with the same value, each time the block is looked at. Damage
//! stays, movement does not. States that a killed process can leave are no damage: the diagnosis has them.

mod digests;
mod registry;
mod slots;
mod words;

use std::{fmt, thread::sleep, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeStruct};
use tidegate_shm::region::Span;

use super::Inspector;
use crate::{
    block::AttachError,
    layout::{Expected, Mismatch},
};

/// A part of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Part {
    /// Words of the acting writer.
    Control,
    /// Sync page.
    Sync,
    /// Maintenance lock.
    MaintenanceLock,
    /// An entry of the audit ring.
    Audit(u32),
    /// Counters.
    Metrics,
    /// A lock of the lock table.
    Lock(u32),
    /// A row of the consumer table.
    Row(u32),
    /// The control line of a zone.
    Zone(u32),
    /// A slot record.
    Slot(u32),
    /// A digest entry.
    Digest(u32),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control page"),
            Self::Sync => f.write_str("sync page"),
            Self::MaintenanceLock => f.write_str("maintenance lock"),
            Self::Audit(entry) => write!(f, "audit entry {entry}"),
            Self::Metrics => f.write_str("metrics page"),
            Self::Lock(lock) => write!(f, "lock {lock}"),
            Self::Row(row) => write!(f, "consumer row {row}"),
            Self::Zone(zone) => write!(f, "zone {zone}"),
            Self::Slot(slot) => write!(f, "slot {slot}"),
            Self::Digest(slot) => write!(f, "digest of slot {slot}"),
        }
    }
}

/// A word that cannot be what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Where.
    pub part: Part,
    /// Which field, what it may be, what it is.
    pub mismatch: Mismatch,
}

impl Damage {
    /// What to do.
    pub fn remedy(&self) -> String {
        match self.part {
            Part::Control => {
                "save a copy of the file, `force-unlink --force`, and let the producer make it anew"
                    .to_owned()
            }
            Part::Slot(slot) | Part::Digest(slot) => format!("`reset-slot --slot {slot} --discard --force`"),
            Part::Row(_) | Part::Sync | Part::MaintenanceLock => {
                "`auto-recover --apply` repairs the registry; if it stays, make the block anew".to_owned()
            }
            Part::Lock(_) => "`force-unlock-all`; if it stays, make the block anew".to_owned(),
            Part::Zone(_) => "take the zone's lock and write the zone anew".to_owned(),
            Part::Audit(_) | Part::Metrics => "harmless; look for whoever writes beside his place".to_owned(),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.mismatch)
    }
}

impl Serialize for Damage {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_struct("Damage", 4)?;
        fields.serialize_field("part", &self.part.to_string())?;
        fields.serialize_field("field", &self.mismatch.field)?;
        fields.serialize_field("found", &self.mismatch.found.to_string())?;
        let expected = match self.mismatch.expected {
            Expected::Value(value) => value.to_string(),
            Expected::Range(lowest, highest) => format!("{lowest} to {highest}"),
            Expected::Rule(rule) => rule.to_owned(),
        };
        fields.serialize_field("expected", &expected)?;
        fields.end()
    }
}

/// What was checked, and what does not hold. A header that is not valid does not come this far: the block cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IntegrityReport {
    /// Header and region table.
    pub header_valid: bool,
    /// Control words.
    pub control_valid: bool,
    /// Slot records.
    pub slot_states_valid: bool,
    /// Consumer table and masks.
    pub rows_valid: bool,
    /// Maintenance lock and lock table.
    pub locks_valid: bool,
    /// Digests of all slots, if they were looked at.
    pub checksums_valid: Option<bool>,
    /// How many digests were compared with the bytes.
    pub checksums_verified: usize,
    /// How many belong to their slots but were not compared with the bytes.
    pub checksums_present: usize,
    /// How many slots have nothing to compare.
    pub checksums_not_applicable: usize,
    /// Slots with impossible words or wrong digests.
    pub corrupted_slots: Vec<u32>,
    /// Everything that does not hold, at most [`MAX_FINDINGS`].
    pub findings: Vec<Damage>,
}

impl IntegrityReport {
    /// Whether everything holds.
    pub fn is_valid(&self) -> bool {
        self.header_valid && self.findings.is_empty()
    }
}

/// Most findings that are reported.
pub const MAX_FINDINGS: usize = 1000;

/// The digest that a slot with this id and this payload must have (11.1).
pub type SlotDigest<'a> = &'a dyn Fn(u64, Span<'_>) -> [u8; 32];

/// What is done about digests.
#[derive(Clone, Copy)]
enum Digests<'a> {
    /// Nothing.
    Left,
    /// Whether they belong to their slots.
    LookedAt,
    /// And whether they are those of the bytes.
    Compared(SlotDigest<'a>),
}

impl Inspector {
    /// Checks every invariant, with `deep` also whether the digests belong to their slots.
    pub fn integrity(&self, deep: bool) -> IntegrityReport {
        self.check(if deep { Digests::LookedAt } else { Digests::Left })
    }

    /// Checks every invariant, and every digest against the bytes of its slot.
    pub fn integrity_of_payload(&self, digest: SlotDigest<'_>) -> IntegrityReport {
        self.check(Digests::Compared(digest))
    }

    fn check(&self, deep: Digests<'_>) -> IntegrityReport {
        let mut findings = self.look(deep);
        for _ in 0..CONFIRMATIONS {
            if findings.damages.is_empty() {
                break;
            }
            sleep(PAUSE);
            let again = self.look(deep);
            findings.damages.retain(|damage| again.damages.contains(damage));
        }
        let Checks { mut damages, verified, present, not_applicable, .. } = findings;
        let none_in = |matches: fn(&Part) -> bool| !damages.iter().any(|damage| matches(&damage.part));
        let mut corrupted: Vec<u32> = damages
            .iter()
            .filter_map(|damage| match damage.part {
                Part::Slot(slot) | Part::Digest(slot) => Some(slot),
                _ => None,
            })
            .collect();
        corrupted.dedup();
        corrupted.sort_unstable();
        corrupted.dedup();
        let report = IntegrityReport {
            header_valid: !self
                .block()
                .findings()
                .iter()
                .any(|found| matches!(found, AttachError::Layout(_))),
            control_valid: none_in(|part| matches!(part, Part::Control)),
            slot_states_valid: none_in(|part| matches!(part, Part::Slot(_))),
            rows_valid: none_in(|part| matches!(part, Part::Row(_) | Part::Sync)),
            locks_valid: none_in(|part| matches!(part, Part::Lock(_) | Part::MaintenanceLock)),
            checksums_valid: match deep {
                Digests::Left => None,
                _ => Some(none_in(|part| matches!(part, Part::Digest(_)))),
            },
            checksums_verified: verified,
            checksums_present: present,
            checksums_not_applicable: not_applicable,
            corrupted_slots: corrupted,
            findings: Vec::new(),
        };
        damages.truncate(MAX_FINDINGS);
        IntegrityReport { findings: damages, ..report }
    }

    /// Looks once.
    fn look(&self, deep: Digests<'_>) -> Checks<'_> {
        let mut checks =
            Checks { block: self, damages: Vec::new(), verified: 0, present: 0, not_applicable: 0 };
        checks.control();
        checks.slots();
        checks.sync();
        checks.locks();
        checks.rows();
        checks.zones();
        checks.metrics();
        match deep {
            Digests::Left => {}
            Digests::LookedAt => checks.digests(None),
            Digests::Compared(digest) => checks.digests(Some(digest)),
        }
        checks
    }
}

/// One look at a block.
struct Checks<'a> {
    block: &'a Inspector,
    damages: Vec<Damage>,
    verified: usize,
    present: usize,
    not_applicable: usize,
}

impl Checks<'_> {
    /// Notes that `field` is not between the two.
    fn range(&mut self, part: Part, field: &'static str, lowest: u64, highest: u64, found: u64) {
        if found < lowest || found > highest {
            self.note(part, Mismatch::range(field, lowest, highest, found));
        }
    }

    /// Notes that a rule does not hold.
    fn rule(&mut self, part: Part, field: &'static str, holds: bool, rule: &'static str, found: u64) {
        if !holds {
            self.note(part, Mismatch::rule(field, rule, found));
        }
    }

    /// Notes a time of the monotonic clock that lies ahead.
    fn past(&mut self, part: Part, field: &'static str, ns: u64) {
        if self.block.same_clock {
            let now = self.block.now().as_u64();
            self.rule(part, field, ns <= now, "a time that has passed", ns);
        }
    }

    /// Notes an owner that no process can be.
    fn owner(&mut self, part: Part, field: &'static str, word: u64) {
        let pid = word & PID_BITS;
        self.rule(part, field, word == 0 || pid != 0, "nobody, or a process with a pid", word);
    }

    /// Notes a byte that must be zero.
    fn zero(&mut self, part: Part, field: Span<'_>) {
        if let Some((at, byte)) = super::picture::first_set(field) {
            self.note(part, Mismatch::value("reserved", 0, byte.into()).at(at as u64));
        }
    }

    fn note(&mut self, part: Part, mismatch: Mismatch) {
        // The few more than are reported make no difference to what is confirmed.
        if self.damages.len() <= MAX_FINDINGS {
            self.damages.push(Damage { part, mismatch });
        }
    }
}

/// How often a finding must be found again.
const CONFIRMATIONS: usize = 4;
/// Time between two looks, for movement to go on.
const PAUSE: Duration = Duration::from_millis(1);
const PID_BITS: u64 = (1 << 22) - 1;
