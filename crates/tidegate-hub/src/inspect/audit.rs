//! Reading the audit ring: the last 32 things that were repaired or forced (18.5).
//!
//! Entry `n`, counted from 0, lies at place `n mod 32`; `audit_seq` is the number of entries ever written. Of what the ring
//! holds, only what has a number of the newest 32 at its place is an entry: the rest was never written, or half.

use std::mem::offset_of;

use serde::Serialize;
use tidegate_shm::sync::Ordering;

use super::{Inspector, owner::key_field, picture::Audit};
use crate::{
    identity::ProcessKey,
    layout::pages::{AuditEntry, SyncPage},
    metrics::as_text,
};

/// Entries that are kept.
pub const AUDIT_ENTRIES: u32 = 32;

/// One entry of the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRecord {
    /// Number of the entry.
    #[serde(serialize_with = "as_text")]
    pub sequence: u64,
    /// When, on the wall clock.
    #[serde(serialize_with = "as_text")]
    pub realtime_ns: u64,
    /// Who.
    #[serde(serialize_with = "key_field")]
    pub actor: Option<ProcessKey>,
    /// What was done: one stable word.
    pub operation: &'static str,
    /// Its code.
    pub code: u32,
    /// Whether it was done by force.
    pub forced: bool,
    /// To which slot, row or lock.
    #[serde(serialize_with = "as_text")]
    pub target: u64,
    /// The word before.
    #[serde(serialize_with = "as_text")]
    pub before: u64,
    /// The word after.
    #[serde(serialize_with = "as_text")]
    pub after: u64,
}

impl Inspector {
    /// The entries of the audit ring, from the oldest to the newest.
    pub fn audit(&self) -> Vec<AuditRecord> {
        let offset = self.descriptor().geometry.sync().offset + offset_of!(SyncPage, audit) as u64;
        let Ok(ring) = self.block().region().table::<ENTRY>(offset, AUDIT_ENTRIES) else {
            return Vec::new();
        };
        let written = self.audit_count();
        let places = (0_u64..).zip(ring.iter());
        let entries = places.filter_map(|(place, row)| {
            let entry = Audit::load(row);
            // An entry that is being overwritten differs the second time.
            let stable = Audit::load(row) == entry;
            (stable && is_entry(entry.sequence, place, written)).then(|| record(&entry))
        });
        let mut entries: Vec<AuditRecord> = entries.collect();
        entries.sort_by_key(|entry| entry.sequence);
        entries
    }

    /// Number of entries ever written.
    pub(super) fn audit_count(&self) -> u64 {
        let count = self.views().sync.row().u64::<{ offset_of!(SyncPage, audit_seq) }>();
        // Acquire: pairs with the release of whoever wrote the entry.
        count.load(Ordering::Acquire)
    }
}

/// Whether `sequence` at `place` is one of the newest entries, of which `written` were ever written.
fn is_entry(sequence: u64, place: u64, written: u64) -> bool {
    let places = u64::from(AUDIT_ENTRIES);
    sequence % places == place && sequence < written && written - sequence <= places
}

/// The word for an operation (18.5), if the code stands for one.
pub(super) fn operation_word(code: u32) -> Option<&'static str> {
    const WORDS: [&str; 11] = [
        "reap",
        "evict",
        "adopt",
        "seize",
        "reset-slot",
        "unlock",
        "lock-takeover",
        "registry-repair",
        "handover",
        "metrics-reset",
        "unlink",
    ];
    WORDS.get((code as usize).checked_sub(1)?).copied()
}

fn record(entry: &Audit) -> AuditRecord {
    AuditRecord {
        sequence: entry.sequence,
        realtime_ns: entry.realtime_ns,
        actor: ProcessKey::from_word(entry.actor),
        operation: operation_word(entry.operation).unwrap_or("unknown"),
        code: entry.operation,
        forced: entry.flags & FLAG_FORCED != 0,
        target: entry.target,
        before: entry.before,
        after: entry.after,
    }
}

const ENTRY: usize = size_of::<AuditEntry>();
/// Flag of an entry: done by force.
const FLAG_FORCED: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_32_at_their_places_are_entries() {
        let count =
            |written| (0..100_u64).filter(|sequence| is_entry(*sequence, sequence % 32, written)).count();
        assert_eq!([0, 1, 32, 33, 99].map(count), [0, 1, 32, 32, 32]);
        assert!(!is_entry(0, 0, 33), "overwritten by entry 32");
        assert!(!is_entry(5, 6, 10), "at the place of another one");
        assert_eq!((operation_word(0), operation_word(12)), (None, None));
        assert_eq!((operation_word(1), operation_word(11)), (Some("reap"), Some("unlink")));
    }
}
