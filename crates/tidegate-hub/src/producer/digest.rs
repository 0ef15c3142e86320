//! Digests of what a producer writes (11.2).

use tidegate_shm::{clock::monotonic_now, region::TableMut};

use super::Producer;
use crate::{
    block::Block,
    core::codec::SlotId,
    error::{OpenError, WriteError},
    integrity::{DigesterError, SlotIntegrity},
    layout::Secret,
};

/// What computes digests, and where they go.
#[derive(Debug)]
pub(super) struct Digests {
    integrity: SlotIntegrity,
    entries: TableMut<64>,
}

impl Digests {
    /// Those of `block`; none if it has no digests.
    pub(super) fn of(block: &Block, secret: Option<&Secret>) -> Result<Option<Self>, OpenError> {
        let views = block.writer_views()?;
        match SlotIntegrity::new(block.descriptor(), secret, Some(views.metrics)) {
            Ok(integrity) => Ok(Some(Self { integrity, entries: views.digests })),
            Err(DigesterError::Disabled) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Producer {
    /// Whether slots can have digests.
    #[inline]
    pub(super) fn has_digests(&self) -> bool {
        self.digests.is_some()
    }

    /// Whether every slot has a digest.
    #[inline]
    pub(super) fn enforces_digests(&self) -> bool {
        self.digests.as_ref().is_some_and(|digests| digests.integrity.is_enforced())
    }

    /// Computes the digest of the first `len` bytes of a slot in WRITING; returns the flags to commit it with (DH-153).
    ///
    /// # Errors
    /// There are no digests, or this slot must not be committed without one (DH-154).
    pub(super) fn seal(&self, id: SlotId, len: u64) -> Result<u32, WriteError> {
        let digests = self.digests.as_ref().ok_or(WriteError::DigestsDisabled)?;
        let index = self.writer.core().config().index(id);
        let payload = self.payload(self.index(id)).sub(0..len as usize);
        let (Some(entry), Ok(payload)) = (digests.entries.row(index.0), payload) else {
            let available = self.descriptor().spec.slot_size;
            return Err(WriteError::TooLong { len, available });
        };
        let sealed = digests.integrity.seal(entry, id.0, payload, monotonic_now());
        sealed.map_err(|refused| WriteError::CannotSeal { id: refused.id })
    }
}
