//! The reading half: one attempt per descriptor, never a wait (TP-115).
//!
//! A [`FrameView`] shows a slot in place. Its bytes may change at any moment, so nothing taken from it counts until
//! [`FrameView::validate`] said that the slot still holds the same frame (TP-116). The copying reads do that themselves.

use tidegate_shm::commit::{CommitReader, CommitToken};
use tidegate_shm::region::{SharedU64, Span};
use tidegate_shm::sync::{AtomicBool, AtomicU64, Ordering};

use crate::ids::{Epoch, Seq, StreamId};
use crate::layout::{PayloadSpan, SLOT_LEN, SlotError, SlotHeader, SlotIndex, header_slot_offset};
use crate::region::ReadRegions;
use crate::tensor::{TensorError, TensorLayout};

/// Bytes of a slot that say something, in whole words: up to the end of the strides.
const DESCRIBED: usize = 152;

/// The regions of one epoch as a consumer holds them, with what both of its threads need to know.
#[derive(Debug)]
pub struct MappedEpoch {
    regions: ReadRegions,
    /// Set once, when frames of this mapping must no longer be delivered.
    stopped: AtomicBool,
    stats: EpochStats,
}

/// Counters of one mapping; they never decrease (TP-217) and a new mapping starts new ones (TP-119).
#[derive(Debug, Default)]
pub struct EpochStats {
    /// Last sequence seen plus one; 0 for none (TP-120).
    last_seq_plus_one: AtomicU64,
    /// Frames delivered.
    pub delivered: AtomicU64,
    /// Frames whose descriptor never came.
    pub gap: AtomicU64,
    /// Frames overwritten before or while they were read.
    pub late: AtomicU64,
    /// Frames whose slot described no valid tensor of this mapping.
    pub invalid: AtomicU64,
}

/// Why a descriptor led to no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameDrop {
    /// The slot holds another frame by now, or none yet.
    #[error("the slot was overwritten before it could be read")]
    Late,
    /// The slot describes no valid frame.
    #[error("the slot is invalid: {0}")]
    Invalid(InvalidFrame),
}

/// What is wrong with a committed slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFrame {
    /// The slot header.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The tensor header.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// The slot was reused, or the mapping was given up, while a view of it was open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the frame was overwritten while it was read")]
pub struct Overwritten;

/// Why a frame has bytes but no typed view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tensor spans {extent} bytes but the payload has {payload}")]
pub struct TypedViewError {
    /// Bytes the tensor description spans.
    pub extent: u64,
    /// Bytes of the payload.
    pub payload: u64,
}

/// One committed frame in its slot. Valid until the producer comes around the ring; see the module documentation.
#[derive(Debug, Clone, Copy)]
pub struct FrameView<'a> {
    epoch: &'a MappedEpoch,
    word: CommitReader<SharedU64<'a>>,
    token: CommitToken,
    header: SlotHeader,
    layout: TensorLayout,
    payload: Span<'a>,
}

impl MappedEpoch {
    /// Takes freshly opened regions.
    #[must_use]
    pub fn new(regions: ReadRegions) -> Self {
        Self { regions, stopped: AtomicBool::new(false), stats: EpochStats::default() }
    }

    /// The regions.
    #[must_use]
    pub fn regions(&self) -> &ReadRegions {
        &self.regions
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &EpochStats {
        &self.stats
    }

    /// From now on no frame of this mapping is delivered, and open views fail their validation (TP-297).
    pub fn stop(&self) {
        // Release: pairs with the Acquire in `is_stopped`.
        self.stopped.store(true, Ordering::Release);
    }

    /// Whether [`MappedEpoch::stop`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        // Acquire: pairs with the Release in `stop`.
        self.stopped.load(Ordering::Acquire)
    }

    /// Opens the frame `seq` for reading: steps 2 to 7 of table 7.2.
    ///
    /// # Errors
    /// Why there is no such frame to read. Nothing was counted.
    #[inline]
    pub fn read(&self, seq: Seq) -> Result<FrameView<'_>, FrameDrop> {
        let slots = self.regions.spec().slots();
        let index = slots.index_of(seq);
        let offset = header_slot_offset(index);
        // The offset is 64-aligned and below the length that was mapped for this slot count.
        let Ok(word) = self.regions.header().atomic_u64(offset) else { return Err(FrameDrop::Late) };
        let word = CommitReader::new(word);
        let token = word.begin();
        if seq > Seq::MAX || !token.holds(seq.get()) {
            return Err(FrameDrop::Late);
        }
        let mut slot = [0; SLOT_LEN];
        // What lies behind the tensor header is padding (TP-097).
        if self.regions.header().read(offset, &mut slot[..DESCRIBED]).is_err() {
            return Err(FrameDrop::Late);
        }
        let interpreted = self.interpret(&slot, index);
        // A slot that changed under the copy says nothing about the frame (TP-113).
        if !word.validate(token) {
            return Err(FrameDrop::Late);
        }
        let (header, layout, payload) = interpreted.map_err(FrameDrop::Invalid)?;
        Ok(FrameView { epoch: self, word, token, header, layout, payload })
    }

    fn interpret(
        &self,
        slot: &[u8; SLOT_LEN],
        index: SlotIndex,
    ) -> Result<(SlotHeader, TensorLayout, Span<'_>), InvalidFrame> {
        let header = SlotHeader::decode(slot)?;
        let stride_of = |id| self.regions.pool(id).map(|(pool, _)| pool.stride);
        let PayloadSpan { pool_id, offset, len } =
            header.payload_span(index, self.regions.spec().slots(), stride_of)?;
        let layout = header.tensor.validate()?;
        let unknown = SlotError::UnknownPool { found: pool_id };
        let (_, pool) = self.regions.pool(pool_id).ok_or(unknown)?;
        let payload = pool.span(offset, len.into()).map_err(|_| unknown)?;
        Ok((header, layout, payload))
    }
}

impl EpochStats {
    /// The last sequence seen in this epoch.
    #[must_use]
    pub fn last_seq(&self) -> Option<Seq> {
        // Relaxed: a statistic; nothing is read on its strength.
        self.last_seq_plus_one.load(Ordering::Relaxed).checked_sub(1).map(Seq::new)
    }

    pub(crate) fn saw(&self, seq: Seq) {
        // Relaxed: as in `last_seq`.
        self.last_seq_plus_one.store(seq.get().saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn add(counter: &AtomicU64, frames: u64) {
        // Relaxed: a statistic. One thread counts, so load and store make no lost update.
        counter.store(counter.load(Ordering::Relaxed).saturating_add(frames), Ordering::Relaxed);
    }
}

impl<'a> FrameView<'a> {
    /// Which stream it belongs to.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.epoch.regions.spec().stream()
    }

    /// Its epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch.regions.spec().epoch()
    }

    /// Its number in the epoch.
    #[must_use]
    pub fn seq(&self) -> Seq {
        Seq::new(self.token.seq())
    }

    /// Capture time in the producer's clock, if it gave one.
    #[must_use]
    pub fn timestamp_ns(&self) -> Option<u64> {
        self.header.timestamp_ns
    }

    /// Version of the metadata in force, if the producer has any. It may not be known here yet (TP-224).
    #[must_use]
    pub fn meta_version(&self) -> Option<u32> {
        self.header.meta_version
    }

    /// Shape, type and strides, if the payload holds the whole tensor.
    ///
    /// # Errors
    /// The payload is shorter than the tensor; [`FrameView::payload`] still has its bytes (TP-099).
    pub fn layout(&self) -> Result<&TensorLayout, TypedViewError> {
        let payload = self.payload.len() as u64;
        if self.layout.fits(payload) {
            return Ok(&self.layout);
        }
        Err(TypedViewError { extent: self.layout.extent_bytes(), payload })
    }

    /// Shape, type and strides as described, whether or not the payload holds them.
    #[must_use]
    pub fn described_layout(&self) -> &TensorLayout {
        &self.layout
    }

    /// The bytes in place. They may be overwritten at any moment: validate after using them.
    #[must_use]
    pub fn payload(&self) -> Span<'a> {
        self.payload
    }

    /// Says whether everything read from this view so far belongs to the frame (steps 9 and 10 of 7.2).
    ///
    /// # Errors
    /// [`Overwritten`]: forget what was read.
    #[inline]
    pub fn validate(&self) -> Result<(), Overwritten> {
        if self.word.validate(self.token) && !self.epoch.is_stopped() { Ok(()) } else { Err(Overwritten) }
    }

    /// Copies the payload into `out`, resized to fit, and validates. Reusing `out` avoids allocation.
    ///
    /// # Errors
    /// [`Overwritten`]; `out` then holds nothing.
    pub fn copy_to(&self, out: &mut Vec<u8>) -> Result<(), Overwritten> {
        out.resize(self.payload.len(), 0);
        let copied = self.payload.copy_to(out).map_err(|_| Overwritten).and_then(|()| self.validate());
        if copied.is_err() {
            out.clear();
        }
        copied
    }
}

#[cfg(test)]
mod tests;
