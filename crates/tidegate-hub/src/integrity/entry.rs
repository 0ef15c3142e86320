//! The entry of a slot in the digest table (3.7). It is written before its slot becomes COMMITTED and read after that was
//! seen, so the exchange of the slot's control word orders it and all accesses here are relaxed.

use std::mem::offset_of;

use tidegate_shm::{
    clock::Nanos,
    region::{Row, RowMut},
    sync::Ordering::Relaxed,
};

use super::Digest;
use crate::layout::pages::DigestEntry as Page;

/// Slot flag: the entry holds the digest.
pub const SLOT_DIGEST_PRESENT: u32 = 1;
/// Slot flag: it was computed with a key.
pub const SLOT_DIGEST_KEYED: u32 = 2;
/// Slot flag: it could not be computed (DH-154).
pub const SLOT_DIGEST_FAILED: u32 = 4;

/// What an entry holds: one look at memory that others may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestEntry {
    /// Of the slot message.
    pub digest: Digest,
    /// One more than the id it was computed for.
    pub tag: u64,
    /// Bytes of payload.
    pub len: u64,
    /// Code of [`DigestAlg`](crate::layout::DigestAlg).
    pub alg: u8,
    /// Epoch of the key.
    pub key_epoch: u32,
    /// When it was computed, on the monotonic clock.
    pub computed: Nanos,
}

impl DigestEntry {
    /// Reads an entry.
    pub fn load(row: Row<'_, 64>) -> Self {
        let mut digest = [0; 32];
        // The lengths are equal.
        let _ = row.bytes::<{ offset_of!(Page, digest) }, 32>().copy_to(&mut digest);
        Self {
            digest: Digest(digest),
            tag: row.u64::<{ offset_of!(Page, tag) }>().load(Relaxed),
            len: row.u64::<{ offset_of!(Page, len) }>().load(Relaxed),
            alg: row.u32::<{ offset_of!(Page, alg) }>().load(Relaxed) as u8,
            key_epoch: row.u32::<{ offset_of!(Page, key_epoch) }>().load(Relaxed),
            computed: Nanos(row.u64::<{ offset_of!(Page, computed_ns) }>().load(Relaxed)),
        }
    }

    /// Writes an entry.
    pub fn store(&self, row: RowMut<'_, 64>) {
        // The lengths are equal.
        let _ = row.bytes::<{ offset_of!(Page, digest) }, 32>().copy_from(&self.digest.0);
        row.u64::<{ offset_of!(Page, tag) }>().store(self.tag, Relaxed);
        row.u64::<{ offset_of!(Page, len) }>().store(self.len, Relaxed);
        // With the three reserved bytes behind it.
        row.u32::<{ offset_of!(Page, alg) }>().store(self.alg.into(), Relaxed);
        row.u32::<{ offset_of!(Page, key_epoch) }>().store(self.key_epoch, Relaxed);
        row.u64::<{ offset_of!(Page, computed_ns) }>().store(self.computed.0, Relaxed);
    }
}
