//! What a producer does to a slot before the commit, and a consumer before it hands the bytes out (11.2, 11.4).

use std::mem::offset_of;

use tidegate_shm::{
    clock::Nanos,
    region::{AccessError, RecordMut, Row, RowMut, Span},
    sync::Ordering::Relaxed,
};

use super::{
    ChecksumError, ChecksumFault, Digest, DigestEntry, Digester, DigesterError, SLOT_DIGEST_FAILED,
    SLOT_DIGEST_KEYED, SLOT_DIGEST_PRESENT,
};
use crate::layout::{Descriptor, DigestPolicy, KeyId, Secret, SecurityLevel, pages::MetricsPage};

/// When a consumer of a block with the policy Enforced verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyAt {
    /// Before the bytes are handed out.
    #[default]
    Acquire,
    /// When they are given back: finds out what was changed while they were read, after the fact.
    Release,
    /// Both.
    Both,
}

impl VerifyAt {
    /// Whether bytes are verified before they are handed out.
    pub fn at_acquire(self) -> bool {
        matches!(self, Self::Acquire | Self::Both)
    }

    /// Whether they are verified when they are given back.
    pub fn at_release(self) -> bool {
        matches!(self, Self::Release | Self::Both)
    }
}

/// The digests of the slots of one block, for one process.
#[derive(Debug)]
pub struct SlotIntegrity {
    /// None when a key or the algorithm is missing; `missing` says so.
    digester: Option<Digester>,
    alg: u8,
    keyed: bool,
    key_epoch: u32,
    key_id: KeyId,
    policy: DigestPolicy,
    authenticated: bool,
    /// None for who may not write there.
    metrics: Option<RecordMut<4096>>,
}

impl SlotIntegrity {
    /// The digests of a block. What was computed and verified is counted in `metrics`.
    ///
    /// Without the key of a keyed block the producer can still commit (DH-154) and nobody can verify.
    ///
    /// # Errors
    /// [`DigesterError::Disabled`] if there is no digest table (DH-156); there is no memory for a key.
    pub fn new(
        descriptor: &Descriptor,
        secret: Option<&Secret>,
        metrics: Option<RecordMut<4096>>,
    ) -> Result<Self, DigesterError> {
        let digester = match Digester::new(descriptor, secret) {
            Ok(digester) => Some(digester),
            Err(error @ (DigesterError::NoKey { .. } | DigesterError::NotBuilt { .. })) => {
                tracing::warn!(block = %descriptor.uuid, %error, "no digests are computed or verified here");
                None
            }
            Err(error) => return Err(error),
        };
        let spec = &descriptor.spec;
        Ok(Self {
            digester,
            alg: spec.digest_alg.code(),
            keyed: spec.digest_alg.is_keyed(),
            key_epoch: spec.key_epoch,
            key_id: descriptor.key_id,
            policy: spec.digest_policy,
            authenticated: spec.security == SecurityLevel::AuthenticatedSlots,
            metrics,
        })
    }

    /// Whether every commit computes and every acquire or release verifies.
    pub fn is_enforced(&self) -> bool {
        self.policy == DigestPolicy::Enforced
    }

    /// Whether consumers must use [`SlotIntegrity::copy_verified`] (DH-158).
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Computes the digest of the final payload and writes it to the slot's entry; to be called while the slot is WRITING
    /// (DH-153). Returns the slot flags to commit with, which say so if no digest can be computed (DH-154).
    ///
    /// # Errors
    /// In authenticated mode no digest can be computed: abort.
    pub fn seal(
        &self,
        entry: RowMut<'_, 64>,
        id: u64,
        payload: Span<'_>,
        now: Nanos,
    ) -> Result<u32, CannotSeal> {
        let Some(digester) = &self.digester else {
            self.count::<{ offset_of!(MetricsPage, slot_commit_errors) }>();
            tracing::error!(id, key_id = %self.key_id, "no digest can be computed for this slot");
            let refused = CannotSeal { id, key_id: self.key_id };
            return if self.authenticated { Err(refused) } else { Ok(SLOT_DIGEST_FAILED) };
        };
        let digest = digester.slot(id, payload);
        let Self { alg, key_epoch, .. } = *self;
        let len = payload.len() as u64;
        DigestEntry { digest, tag: id.saturating_add(1), len, alg, key_epoch, computed: now }.store(entry);
        self.count::<{ offset_of!(MetricsPage, digests_computed) }>();
        Ok(SLOT_DIGEST_PRESENT | if self.keyed { SLOT_DIGEST_KEYED } else { 0 })
    }

    /// Verifies the bytes where they are. Finds accidents; whoever can write the block can change the bytes a moment
    /// later, so against attacks use [`SlotIntegrity::copy_verified`] (DH-158).
    ///
    /// # Errors
    /// The digest does not match or is missing.
    pub fn verify_in_place(
        &self,
        entry: Row<'_, 64>,
        slot_flags: u32,
        id: u64,
        payload: Span<'_>,
    ) -> Result<(), ChecksumError> {
        let refuse = |kind| ChecksumError { id, kind };
        let digester = self.digester().map_err(refuse)?;
        let expected = self.expected(entry, slot_flags, id, payload.len() as u64).map_err(refuse)?;
        self.judge(expected, digester.slot(id, payload)).map_err(refuse)
    }

    /// Copies the payload to `copy`, which has its length, and verifies the copy; on an error the copy is wiped (DH-158).
    ///
    /// # Errors
    /// The digest does not match or is missing; `copy` has another length.
    pub fn copy_verified(
        &self,
        entry: Row<'_, 64>,
        slot_flags: u32,
        id: u64,
        payload: Span<'_>,
        copy: &mut [u8],
    ) -> Result<(), ChecksumError> {
        let refuse = |kind| ChecksumError { id, kind };
        let verified = self.digester().and_then(|digester| {
            let expected = self.expected(entry, slot_flags, id, payload.len() as u64)?;
            let found = digester.slot_copy(id, payload, copy).map_err(buffer_fault)?;
            self.judge(expected, found)
        });
        if verified.is_err() {
            copy.fill(0);
        }
        verified.map_err(refuse)
    }

    fn digester(&self) -> Result<&Digester, ChecksumFault> {
        self.digester.as_ref().ok_or(ChecksumFault::NoKey { key_id: self.key_id })
    }

    /// The digest that the entry claims for this slot.
    fn expected(
        &self,
        entry: Row<'_, 64>,
        slot_flags: u32,
        id: u64,
        len: u64,
    ) -> Result<Digest, ChecksumFault> {
        if slot_flags & SLOT_DIGEST_FAILED != 0 {
            return Err(ChecksumFault::NotComputed);
        }
        if slot_flags & SLOT_DIGEST_PRESENT == 0 {
            return Err(ChecksumFault::Missing);
        }
        let entry = DigestEntry::load(entry);
        let fits = entry.tag == id.saturating_add(1)
            && entry.len == len
            && entry.alg == self.alg
            && entry.key_epoch == self.key_epoch;
        if fits { Ok(entry.digest) } else { Err(self.mismatch()) }
    }

    fn judge(&self, expected: Digest, found: Digest) -> Result<(), ChecksumFault> {
        self.count::<{ offset_of!(MetricsPage, digests_verified) }>();
        if expected == found { Ok(()) } else { Err(self.mismatch()) }
    }

    fn mismatch(&self) -> ChecksumFault {
        if self.keyed { ChecksumFault::TagMismatch { key_id: self.key_id } } else { ChecksumFault::Mismatch }
    }

    fn count<const AT: usize>(&self) {
        if let Some(metrics) = &self.metrics {
            // Relaxed: counters order nothing.
            metrics.row().u64::<AT>().fetch_add(1, Relaxed);
        }
    }
}

fn buffer_fault(error: AccessError) -> ChecksumFault {
    match error {
        AccessError::LengthDiffers { given, expected } => ChecksumFault::Buffer { given, expected },
        _ => ChecksumFault::Mismatch,
    }
}

/// No digest can be computed for a slot that must have one (DH-154).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("slot id {id} cannot be authenticated without the secret with key id {key_id}; it was not committed")]
pub struct CannotSeal {
    /// The slot.
    pub id: u64,
    /// Names the secret.
    pub key_id: KeyId,
}

/// What a write guard remembers about the digest of its slot, so that no commit carries one of other bytes (DH-153).
#[derive(Debug, Clone, Copy, Default)]
pub struct SealState {
    /// Flags and length of the digest that fits the bytes as they are.
    sealed: Option<(u32, u64)>,
    /// Whether the application asked for a digest.
    wanted: bool,
}

impl SealState {
    /// A digest of the first `len` bytes was written.
    pub fn sealed(&mut self, flags: u32, len: u64) {
        *self = Self { sealed: Some((flags, len)), wanted: true };
    }

    /// The bytes may have changed.
    pub fn modified(&mut self) {
        self.sealed = None;
    }

    /// The flags to commit `len` bytes with; none when the digest must be computed first. `enforced`: every slot has one.
    pub fn flags(&self, enforced: bool, len: u64) -> Option<u32> {
        match self.sealed {
            Some((flags, sealed)) if sealed == len => Some(flags),
            None if !enforced && !self.wanted => Some(0),
            _ => None,
        }
    }
}
