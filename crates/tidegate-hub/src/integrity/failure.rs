//! A slot whose bytes are not to be believed: the error, its counters, its line in the log (DH-155).

use std::mem::offset_of;

use tidegate_shm::{
    region::{RecordMut, TableMut},
    sync::{AtomicU64, Ordering::Relaxed},
};

use crate::layout::{
    KeyId,
    pages::{ConsumerRow, MetricsPage},
};

/// The bytes of a slot did not pass; they were not handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("slot id {id}: {kind}; its bytes were not handed out")]
pub struct ChecksumError {
    /// The slot.
    pub id: u64,
    /// What was found.
    pub kind: ChecksumFault,
}

/// What was found instead of the right digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChecksumFault {
    /// The digest of the bytes is another one, or belongs to another slot.
    #[error("the digest does not match the bytes: a stray write, or memory that fails")]
    Mismatch,
    /// The producer left no digest.
    #[error("there is no digest")]
    Missing,
    /// The producer could not compute it (DH-154).
    #[error("the producer could not compute the digest; its log says why")]
    NotComputed,
    /// A digest with a key does not match: whoever wrote the bytes does not have the key.
    #[error("the tag does not match the bytes under key {key_id}: somebody without the key wrote them")]
    TagMismatch {
        /// Names the secret.
        key_id: KeyId,
    },
    /// This process has no key to verify with.
    #[error("verifying needs the secret with key id {key_id}, which was not given when attaching")]
    NoKey {
        /// Names the secret.
        key_id: KeyId,
    },
    /// The private buffer does not have the length of the payload.
    #[error("the buffer for the verified copy has {given} bytes, the payload {expected}")]
    Buffer {
        /// Bytes of the buffer.
        given: u64,
        /// Bytes of the payload.
        expected: u64,
    },
}

impl ChecksumError {
    /// The number of Annex B.
    pub fn code(&self) -> u16 {
        match self.kind {
            ChecksumFault::Mismatch => 301,
            ChecksumFault::Missing | ChecksumFault::NotComputed => 302,
            ChecksumFault::TagMismatch { .. } => 303,
            ChecksumFault::NoKey { .. } => 119,
            ChecksumFault::Buffer { .. } => 903,
        }
    }
}

/// Where one consumer notes slots that did not pass: the block's counter, its own, and once for each id the log.
#[derive(Debug)]
pub struct FailureLog {
    metrics: RecordMut<4096>,
    rows: TableMut<256>,
    row: u32,
    /// One more than the last id that was logged.
    logged: AtomicU64,
}

impl FailureLog {
    /// For the consumer with the row `row`.
    pub fn new(metrics: RecordMut<4096>, rows: TableMut<256>, row: u32) -> Self {
        Self { metrics, rows, row, logged: AtomicU64::new(0) }
    }

    /// Counts a failure, and logs it if it is not about the same id as the one before.
    pub fn note(&self, error: &ChecksumError) {
        // Relaxed, all: counters and a note order nothing.
        self.metrics.row().u64::<{ offset_of!(MetricsPage, checksum_failures) }>().fetch_add(1, Relaxed);
        if let Some(row) = self.rows.row(self.row) {
            row.u64::<{ offset_of!(ConsumerRow, digest_failures) }>().fetch_add(1, Relaxed);
        }
        let tag = error.id.saturating_add(1);
        if self.logged.swap(tag, Relaxed) != tag {
            tracing::error!(id = error.id, kind = %error.kind, "slot refused");
        }
    }
}
