//! The writing half: taking slots, filling them, committing them.
//!
//! A frame is written in the order of table 7.1, under a [`Permit`]. The writer never looks at what a slot held before and
//! never waits for readers (TP-111). Nothing allocates after it was made (TP-471).

use tidegate_shm::clock::Nanos;
use tidegate_shm::commit::CommitWriter;
use tidegate_shm::sync::Arc;

use super::claim::{Claim, ClaimTable, Place, SlotUse};
use super::fence::{Fence, Permit};
use super::order::AnnounceOrder;
use crate::ids::{Epoch, Seq, StreamId};
use crate::layout::{
    SLOT_LEN, SlotCount, SlotHeader, SlotIndex, header_slot_offset, payload_slot_offset, select_pool,
};
use crate::region::WriteRegions;
use crate::tensor::TensorLayout;

/// Cache maintenance for devices that write past the CPU caches: called with the payload's address and length once per
/// commit, before the commit is visible (TP-454).
pub type FlushHook = Box<dyn FnMut(*const u8, usize) + Send>;

/// How a [`RingWriter`] behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Claims survive their commit and can be queued again with the same buffer (TP-451).
    pub fixed_pool: bool,
    /// Announce in commit order. Consumers that follow the specification unmap on every step back: not interoperable.
    pub unordered: bool,
}

/// What a frame carries beside its tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameMeta {
    /// Capture time; the time of the claim when absent (TP-192, TP-447). Must not decrease (TP-193).
    pub timestamp_ns: Option<u64>,
    /// Version of the metadata in force, if there is any (TP-194).
    pub meta_version: Option<u32>,
    /// Trace id; 0 counts as absent.
    pub trace_id: Option<u64>,
}

/// A committed frame that is due to be announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// The frame.
    pub seq: Seq,
    /// As in its slot.
    pub meta_version: Option<u32>,
    /// Trace id.
    pub trace_id: Option<u64>,
}

/// Why there is no slot for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The fence is closed.
    #[error("the lease has ended")]
    Fenced,
    /// An open claim holds the next slot (TP-450).
    #[error("the next slot is held by an open claim")]
    SlotHeld,
    /// No pool is large enough (TP-101).
    #[error("a payload of {len} bytes fits no pool; the largest slot holds {largest}")]
    TooLarge {
        /// Bytes asked for.
        len: u64,
        /// Largest stride.
        largest: u64,
    },
    /// All 2^63 sequence numbers of the epoch are used.
    #[error("the sequence numbers of this epoch are used up")]
    SeqExhausted,
}

/// Why a claim was not committed or queued. Unless stated, the slot stays in progress and readers see a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The fence is closed.
    #[error("the lease has ended")]
    Fenced,
    /// Made by another writer, in another epoch (TP-448).
    #[error("it belongs to epoch {epoch}, which is over")]
    OtherEpoch {
        /// Epoch of the claim.
        epoch: Epoch,
    },
    /// Committed before, and not queued again since.
    #[error("it was committed already")]
    Committed,
    /// `queue_claim` needs a committed claim and fixed-pool mode (TP-451).
    #[error("only a committed claim of a fixed-pool producer can be queued again")]
    NotQueueable,
    /// More bytes than the claim's slot has (TP-446).
    #[error("a payload of {len} bytes does not fit its slot of {capacity}")]
    TooLong {
        /// Bytes asked for.
        len: u64,
        /// Stride of the slot.
        capacity: u64,
    },
    /// The tensor reaches beyond the payload.
    #[error("the tensor spans {extent} bytes but the payload has {len}")]
    Extent {
        /// Bytes the tensor spans.
        extent: u64,
        /// Bytes of the payload.
        len: u64,
    },
    /// Capture times must not go back along the sequence (TP-193).
    #[error(
        "timestamp {found} is not within {earliest}..={latest}, the times of the frames before and after"
    )]
    TimestampOrder {
        /// Timestamp given.
        found: u64,
        /// The one of the frame before.
        earliest: u64,
        /// The one of the frame after, if that was committed first.
        latest: u64,
    },
    /// The frame is committed, but younger ones were announced meanwhile, so it cannot be any more: readers see a gap.
    #[error("it was held so long that its announcement would be out of order")]
    OutOfWindow,
}

impl CommitError {
    /// The result code of the table in 23.1.
    #[must_use]
    pub fn code(&self) -> i64 {
        match self {
            Self::Fenced => -3,
            Self::OtherEpoch { .. } | Self::Committed | Self::NotQueueable => -4,
            _ => -1,
        }
    }
}

/// Writes the frames of one epoch. One process, one writer (TP-109).
pub struct RingWriter {
    regions: Arc<WriteRegions>,
    fence: Arc<Fence>,
    options: WriteOptions,
    flush: Option<FlushHook>,
    next: Seq,
    claims: Arc<ClaimTable>,
    order: AnnounceOrder,
    image: SlotImage,
}

/// The slot as it was written last. Frames of one layout share most of it, so only what differs is encoded anew.
struct SlotImage {
    layout: Option<TensorLayout>,
    bytes: [u8; SLOT_LEN],
}

impl SlotImage {
    fn put(&mut self, header: &SlotHeader, layout: &TensorLayout) {
        if self.layout.as_ref() == Some(layout) {
            header.encode_frame(&mut self.bytes);
        } else {
            header.encode(&mut self.bytes);
            self.layout = Some(*layout);
        }
    }
}

impl std::fmt::Debug for RingWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingWriter")
            .field("stream", &self.regions.spec().stream())
            .field("epoch", &self.regions.spec().epoch())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl RingWriter {
    /// Starts at sequence 0 (TP-126, TP-456).
    #[must_use]
    pub fn new(regions: Arc<WriteRegions>, fence: Arc<Fence>, options: WriteOptions) -> Self {
        let slots = regions.spec().slots();
        Self {
            fence,
            options,
            flush: None,
            next: Seq::new(0),
            claims: Arc::new(ClaimTable::new(slots)),
            order: AnnounceOrder::new(slots),
            image: SlotImage { layout: None, bytes: [0; SLOT_LEN] },
            regions,
        }
    }

    /// Sets or removes the flush hook.
    pub fn set_flush_hook(&mut self, hook: Option<FlushHook>) {
        self.flush = hook;
    }

    /// The flush hook, to hand it to the writer of the next epoch.
    pub fn take_flush_hook(&mut self) -> Option<FlushHook> {
        self.flush.take()
    }

    /// The epoch written.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.regions.spec().epoch()
    }

    /// The stream written.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.regions.spec().stream()
    }

    /// Largest payload that fits a pool.
    #[must_use]
    pub fn largest_stride(&self) -> Option<usize> {
        self.regions.pools().iter().map(|(pool, _)| pool.stride.get() as usize).max()
    }

    /// The next sequence to be used (TP-214).
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// Writes one frame with a copy of `payload`.
    ///
    /// # Errors
    /// [`PutError`]: nothing was committed.
    #[inline]
    pub(crate) fn put(
        &mut self,
        layout: &TensorLayout,
        payload: &[u8],
        meta: FrameMeta,
        now: Nanos,
    ) -> Result<Seq, PutError> {
        check_extent(layout, payload.len())?;
        let timestamp = self.capture_time(self.next, meta, now)?;
        let permit = self.fence.test(now).ok_or(ClaimError::Fenced)?;
        let place = self.begin(permit, payload.len())?;
        let (geometry, region) = &self.regions.pools()[place.pool];
        let written = region.write(payload_slot_offset(place.index, geometry.stride), payload);
        // The pool was mapped for this slot count and stride, and the payload fits the stride.
        debug_assert!(written.is_ok(), "payload slot inside its pool");
        let announcement = self.finish(permit, place, payload.len(), layout, meta, timestamp)?;
        if self.options.unordered || self.order.is_clear() {
            self.order.announce(announcement, timestamp);
        } else {
            self.order.open(place.seq);
            self.order.commit(announcement, timestamp);
            self.settle();
        }
        Ok(place.seq)
    }

    /// Takes the next slot of the smallest pool that holds `len` bytes and marks it in progress.
    ///
    /// # Errors
    /// [`ClaimError`]; no sequence number was used.
    pub fn claim(&mut self, len: usize, now: Nanos) -> Result<Claim, ClaimError> {
        let permit = self.fence.test(now).ok_or(ClaimError::Fenced)?;
        let place = self.begin(permit, len)?;
        let (geometry, region) = &self.regions.pools()[place.pool];
        let stride = geometry.stride;
        let payload = region
            .shared_span_mut(payload_slot_offset(place.index, stride), stride.get().into())
            // Cannot happen: the pool was mapped for every slot.
            .map_err(|_| ClaimError::TooLarge { len: len as u64, largest: 0 })?;
        if !self.options.unordered {
            self.order.open(place.seq);
        }
        let len = u32::try_from(len).unwrap_or(stride.get());
        Ok(Claim::new(place, self.epoch(), len, permit.at(), payload, &self.claims))
    }

    /// Commits a claim and queues its announcement. The payload is not touched.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn commit(
        &mut self,
        claim: &mut Claim,
        layout: &TensorLayout,
        meta: FrameMeta,
        now: Nanos,
    ) -> Result<Seq, CommitError> {
        self.own(claim)?;
        if claim.committed {
            return Err(CommitError::Committed);
        }
        check_extent(layout, claim.len())?;
        let seq = claim.seq();
        let awaited = self.options.unordered || self.order.awaits(seq);
        let timestamp = if awaited {
            self.capture_time(seq, meta, claim.claimed_at)?
        } else {
            // Never announced, so there is no order to keep.
            meta.timestamp_ns.unwrap_or(claim.claimed_at.as_u64())
        };
        let permit = self.fence.test(now).ok_or(CommitError::Fenced)?;
        let announcement = self.finish(permit, claim.place, claim.len(), layout, meta, timestamp)?;
        claim.committed = true;
        if !self.options.fixed_pool {
            claim.release();
        }
        if self.options.unordered {
            self.order.announce(announcement, timestamp);
        } else {
            let placed = self.order.commit(announcement, timestamp);
            self.settle();
            if !placed {
                return Err(CommitError::OutOfWindow);
            }
        }
        Ok(seq)
    }

    /// Gives a claim up; its slot stays in progress.
    pub fn abort(&mut self, claim: Claim) {
        drop(claim);
        self.settle();
    }

    /// Arms a committed claim again: same buffer, new sequence number (TP-452). Numbers in between are skipped, so that
    /// the number still leads to this slot.
    ///
    /// # Errors
    /// [`CommitError::NotQueueable`], [`CommitError::OtherEpoch`], [`CommitError::Fenced`].
    pub fn queue(&mut self, claim: &mut Claim, now: Nanos) -> Result<Seq, CommitError> {
        self.own(claim)?;
        if !self.options.fixed_pool || !claim.committed {
            return Err(CommitError::NotQueueable);
        }
        let permit = self.fence.test(now).ok_or(CommitError::Fenced)?;
        let slots = u64::from(self.slots().get());
        let behind = u64::from(claim.index().get()).wrapping_sub(self.next.get()) & (slots - 1);
        let seq = Seq::new(self.next.get().saturating_add(behind));
        if seq >= Seq::MAX {
            return Err(CommitError::NotQueueable);
        }
        self.mark_in_progress(permit, seq, claim.index());
        if !self.options.unordered {
            self.order.open(seq);
        }
        claim.place.seq = seq;
        claim.committed = false;
        claim.claimed_at = permit.at();
        Ok(seq)
    }

    /// The next announcement that is due, in order.
    pub fn next_due(&mut self) -> Option<Announcement> {
        self.order.next_due()
    }

    fn slots(&self) -> SlotCount {
        self.regions.spec().slots()
    }

    fn own(&self, claim: &Claim) -> Result<(), CommitError> {
        if claim.is_of(&self.claims) { Ok(()) } else { Err(CommitError::OtherEpoch { epoch: claim.epoch }) }
    }

    /// The capture time given, if it keeps the order; without one `otherwise`, moved as little as the order demands.
    fn capture_time(&self, seq: Seq, meta: FrameMeta, otherwise: Nanos) -> Result<u64, CommitError> {
        let (earliest, latest) = self.order.times_for(seq).into_inner();
        match meta.timestamp_ns {
            None => Ok(otherwise.as_u64().max(earliest).min(latest)),
            Some(given) if (earliest..=latest).contains(&given) => Ok(given),
            Some(found) => Err(CommitError::TimestampOrder { found, earliest, latest }),
        }
    }

    fn begin(&mut self, permit: Permit, len: usize) -> Result<Place, ClaimError> {
        if self.next >= Seq::MAX {
            return Err(ClaimError::SeqExhausted);
        }
        let pool = self.select_pool(len)?;
        let seq = self.next;
        let index = self.slots().index_of(seq);
        match self.claims.get(index) {
            SlotUse::Free => {}
            SlotUse::Dropped => {
                self.settle();
                self.claims.set(index, SlotUse::Free);
            }
            SlotUse::Held => return Err(ClaimError::SlotHeld),
        }
        self.mark_in_progress(permit, seq, index);
        Ok(Place { seq, index, pool })
    }

    fn select_pool(&self, len: usize) -> Result<usize, ClaimError> {
        let pools = self.regions.pools();
        select_pool(pools.iter().map(|(pool, _)| *pool), len).ok_or_else(|| ClaimError::TooLarge {
            len: len as u64,
            largest: pools.iter().map(|(pool, _)| pool.stride.get().into()).max().unwrap_or(0),
        })
    }

    /// Step 1 of table 7.1; the number is used up.
    fn mark_in_progress(&mut self, _: Permit, seq: Seq, index: SlotIndex) {
        self.next = Seq::new(seq.get() + 1);
        let word = self.regions.header().atomic_u64(header_slot_offset(index));
        // The ring was mapped for this slot count, and slots are 64-aligned.
        if let Ok(word) = word {
            CommitWriter::new(word).begin(seq.get());
        }
    }

    /// Steps 3 to 5 of table 7.1.
    fn finish(
        &mut self,
        _: Permit,
        place: Place,
        len: usize,
        layout: &TensorLayout,
        meta: FrameMeta,
        timestamp: u64,
    ) -> Result<Announcement, CommitError> {
        let Place { seq, index, pool } = place;
        let (geometry, region) = &self.regions.pools()[pool];
        let too_long = CommitError::TooLong { len: len as u64, capacity: geometry.stride.get().into() };
        let values_len = u32::try_from(len).map_err(|_| too_long)?;
        let mut header = SlotHeader::new(index, geometry.pool_id, values_len, layout);
        header.timestamp_ns = Some(timestamp);
        header.meta_version = meta.meta_version;
        self.image.put(&header, layout);
        let offset = header_slot_offset(index);
        let ring = self.regions.header();
        // Both hold: the ring was mapped for this slot count, and slots are 64-aligned.
        let (Ok(()), Ok(word)) = (ring.write(offset + 8, &self.image.bytes[8..]), ring.atomic_u64(offset))
        else {
            return Err(too_long);
        };
        if let Some(flush) = &mut self.flush
            && let Ok(span) = region.span(payload_slot_offset(index, geometry.stride), len as u64)
        {
            flush(span.as_ptr(), len);
        }
        CommitWriter::new(word).commit(seq.get());
        Ok(Announcement {
            seq,
            meta_version: meta.meta_version,
            trace_id: meta.trace_id.filter(|id| *id != 0),
        })
    }

    /// Notices dropped claims, so that nothing waits for them.
    fn settle(&mut self) {
        if self.order.is_clear() {
            return;
        }
        let (claims, slots) = (&self.claims, self.slots());
        self.order.forget(|seq| {
            let index = slots.index_of(seq);
            let dropped = claims.get(index) == SlotUse::Dropped;
            if dropped {
                claims.set(index, SlotUse::Free);
            }
            dropped
        });
    }
}

fn check_extent(layout: &TensorLayout, len: usize) -> Result<(), CommitError> {
    let len = len as u64;
    if layout.fits(len) { Ok(()) } else { Err(CommitError::Extent { extent: layout.extent_bytes(), len }) }
}

/// Why [`RingWriter::put`] wrote nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PutError {
    Claim(ClaimError),
    Commit(CommitError),
}

impl From<ClaimError> for PutError {
    fn from(error: ClaimError) -> Self {
        Self::Claim(error)
    }
}

impl From<CommitError> for PutError {
    fn from(error: CommitError) -> Self {
        Self::Commit(error)
    }
}

#[cfg(test)]
mod tests;
