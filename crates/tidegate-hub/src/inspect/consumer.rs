//! Consumers: where they are, what they are reading, whom they hold back.

use std::{mem::offset_of, time::Duration};

use serde::Serialize;

use super::{
    Inspector,
    owner::{key_field, liveness_field, millis},
    picture::{ConsumerWords, text},
};
use crate::{
    block::registry::Place,
    core::codec::{Claim, Reg, RowState, SlotId},
    identity::{Liveness, ProcessKey},
    layout::pages::ConsumerRow,
    metrics::{as_text, option_as_text},
};

/// One occupied row of the consumer table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsumerInfo {
    /// Number of the row.
    pub row: u32,
    /// Pid of its owner, 0 if there is none.
    pub pid: u32,
    /// Its owner.
    #[serde(serialize_with = "key_field")]
    pub key: Option<ProcessKey>,
    /// Unique id of the consumer.
    pub uid: String,
    /// Name of the consumer.
    pub name: String,
    /// `joining`, `active`, `leaving`, `evicted` or `invalid`.
    pub state: &'static str,
    /// What is known about its owner. A row without owner counts as unknown.
    #[serde(serialize_with = "liveness_field")]
    pub liveness: Liveness,
    /// Since its last beat; `None` if that cannot be told.
    #[serde(rename = "heartbeat_age_ms", serialize_with = "millis")]
    pub heartbeat_age: Option<Duration>,
    /// Whether the beat is older than `heartbeat_stale`.
    pub stale: bool,
    /// Next id to be consumed.
    #[serde(serialize_with = "as_text")]
    pub cursor: u64,
    /// Resolved ids that it has not consumed.
    #[serde(serialize_with = "as_text")]
    pub lag: u64,
    /// First id that is being read.
    #[serde(serialize_with = "option_as_text")]
    pub claim_first: Option<u64>,
    /// How many ids are being read.
    pub claim_count: u32,
    /// Since when.
    #[serde(rename = "claim_age_ms", serialize_with = "millis")]
    pub claim_age: Option<Duration>,
    /// First id that was promised to it.
    #[serde(serialize_with = "as_text")]
    pub start_id: u64,
    /// Slots consumed.
    #[serde(serialize_with = "as_text")]
    pub slots_consumed: u64,
    /// Bytes consumed.
    #[serde(serialize_with = "as_text")]
    pub bytes_consumed: u64,
    /// Ids overwritten before they were read.
    #[serde(serialize_with = "as_text")]
    pub slots_lost: u64,
    /// Digests that did not match.
    #[serde(serialize_with = "as_text")]
    pub digest_failures: u64,
    #[serde(skip)]
    pub(crate) claim: Claim,
    #[serde(skip)]
    pub(crate) reg: Reg,
}

impl ConsumerInfo {
    /// Whether the kernel says that its owner is gone.
    pub fn is_dead(&self) -> bool {
        self.liveness == Liveness::Dead
    }

    /// Whether its cursor holds the ring back.
    pub(crate) fn holds_back(&self) -> bool {
        self.reg.is(RowState::Active)
    }
}

/// A consumer that is reading a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReaderInfo {
    /// Number of its row.
    pub row: u32,
    /// Its pid.
    pub pid: u32,
    /// Its unique id.
    pub uid: String,
    /// What is known about it.
    #[serde(serialize_with = "liveness_field")]
    pub liveness: Liveness,
    /// Since when it has been reading.
    #[serde(rename = "since_ms", serialize_with = "millis")]
    pub since: Option<Duration>,
}

impl From<&ConsumerInfo> for ReaderInfo {
    fn from(consumer: &ConsumerInfo) -> Self {
        Self {
            row: consumer.row,
            pid: consumer.pid,
            uid: consumer.uid.clone(),
            liveness: consumer.liveness,
            since: consumer.claim_age,
        }
    }
}

/// Who keeps a slot from being reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotReaders {
    /// The slot.
    pub slot: u32,
    /// The id it was last used for.
    #[serde(serialize_with = "option_as_text")]
    pub id: Option<u64>,
    /// Its state.
    pub state: super::SlotCondition,
    /// Consumers that are reading it.
    pub readers: Vec<ReaderInfo>,
    /// Consumers that have not come to it yet, and for which it is kept (lossless mode).
    pub held_back_by: Vec<ConsumerInfo>,
}

impl Inspector {
    /// All rows that are not free (DH-235).
    pub fn consumers(&self) -> Vec<ConsumerInfo> {
        (0..self.descriptor().spec.max_consumers).filter_map(|row| self.consumer(row)).collect()
    }

    /// One row, if it exists and is not free.
    pub fn consumer(&self, row: u32) -> Option<ConsumerInfo> {
        let place = self.views().consumers.row(row)?;
        let words = ConsumerWords::load(place);
        let reg = Reg(words.reg);
        if reg.is(RowState::Free) {
            return None;
        }
        let commit = self.indices().commit_index;
        let foreign = words.flags & FLAG_FOREIGN != 0;
        let key = ProcessKey::from_word(words.owner);
        let judge = |key| self.block().liveness(key, Place::Row(row), foreign);
        let heartbeat_age = self.age(words.last_heartbeat_ns);
        let claim = Claim(words.claim);
        Some(ConsumerInfo {
            row,
            pid: key.map_or(0, ProcessKey::pid),
            key,
            uid: text(place.bytes::<{ offset_of!(ConsumerRow, uid) }, 40>()),
            name: text(place.bytes::<{ offset_of!(ConsumerRow, name) }, 32>()),
            state: match reg.state() {
                Some(RowState::Free | RowState::Joining) => "joining",
                Some(RowState::Active) => "active",
                Some(RowState::Leaving) => "leaving",
                Some(RowState::Evicted) => "evicted",
                None => "invalid",
            },
            liveness: key.map_or(Liveness::Unknown, judge),
            heartbeat_age,
            stale: heartbeat_age.is_some_and(|age| age > self.thresholds().heartbeat_stale),
            cursor: words.cursor,
            lag: commit.saturating_sub(words.cursor),
            claim_first: claim_first(claim, commit),
            claim_count: (claim.0 & u64::from(Claim::MAX_COUNT)) as u32,
            claim_age: if claim.is_none() { None } else { self.age(words.claim_since_ns) },
            start_id: words.start_id,
            slots_consumed: words.slots_consumed,
            bytes_consumed: words.bytes_consumed,
            slots_lost: words.slots_lost,
            digest_failures: words.digest_failures,
            claim,
            reg,
        })
    }

    /// Who reads or holds back each slot, or one of them.
    pub fn show_readers(&self, slot: Option<u32>) -> Vec<SlotReaders> {
        let slots = match slot {
            Some(slot) => slot..slot.saturating_add(1),
            None => 0..self.descriptor().spec.slot_count,
        };
        let consumers = self.consumers();
        let report = |slot| {
            let (condition, id) = self.slot_condition(slot)?;
            let reads = |consumer: &&ConsumerInfo| id.is_some_and(|id| consumer.claim.covers(SlotId(id)));
            let waits = |consumer: &&ConsumerInfo| {
                !self.is_lossy() && consumer.holds_back() && id.is_some_and(|id| consumer.cursor <= id)
            };
            Some(SlotReaders {
                slot,
                id,
                state: condition,
                readers: consumers.iter().filter(reads).map(ReaderInfo::from).collect(),
                held_back_by: consumers.iter().filter(waits).cloned().collect(),
            })
        };
        slots.filter_map(report).collect()
    }
}

/// The first id of a claim, of which the word has the lower 48 bits: the newest such id below `commit`.
pub(super) fn claim_first(claim: Claim, commit: u64) -> Option<u64> {
    if claim.is_none() {
        return None;
    }
    let low = claim.0 >> 16;
    let id = (commit & !LOW_48) | low;
    Some(if id > commit { id.checked_sub(LOW_48 + 1).unwrap_or(id) } else { id })
}

const LOW_48: u64 = (1 << 48) - 1;
/// The consumer lives in another pid namespace.
const FLAG_FOREIGN: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_of_a_claim_is_the_newest_that_fits() {
        let claim = |id| Claim::new(SlotId(id), 3);
        assert_eq!(claim_first(Claim::NONE, 5), None);
        assert_eq!(claim_first(claim(1042), 1045), Some(1042));
        let far = (1 << 50) + 7;
        assert_eq!(claim_first(claim(far - 3), far), Some(far - 3));
        let wrapped = (1 << 48) + 1;
        assert_eq!(claim_first(claim(wrapped - 5), wrapped), Some(wrapped - 5));
        assert_eq!(claim_first(claim(9), 5), Some(9), "impossible, and told so");
    }
}
