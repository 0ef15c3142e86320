//! The writing half: claims, commits, and the order in which commits are announced.
//!
//! A frame is written in the order of table 7.1. Sequence numbers are given out at claim time; claims may be committed in
//! any order, but their announcements come out in sequence order, because a consumer takes a step back for a second
//! writer (TP-449). An announcement therefore waits for older open claims, over at most half the ring.
//!
//! Nothing allocates after the writer was made (TP-471).

use std::collections::VecDeque;

use tidegate_shm::clock::Nanos;
use tidegate_shm::commit::CommitWriter;
use tidegate_shm::region::{SharedSpanMut, SpanMut};
use tidegate_shm::sync::{Arc, AtomicU8, Ordering};

use super::fence::Fence;
use crate::ids::{Epoch, Seq, StreamId};
use crate::layout::{
    PoolSpec, SLOT_LEN, SlotCount, SlotHeader, SlotIndex, header_slot_offset, payload_slot_offset,
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
    /// Capture times must not go back (TP-193).
    #[error("timestamp {found} is before {last}, the one of an earlier frame")]
    TimestampRegression {
        /// Timestamp given.
        found: u64,
        /// Largest timestamp so far.
        last: u64,
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

/// States of a slot in [`ClaimTable`].
const FREE: u8 = 0;
const HELD: u8 = 1;
const DROPPED: u8 = 2;

/// Which slots are held by claims. Shared by the writer and its claims, which may be dropped anywhere.
#[derive(Debug)]
struct ClaimTable(Box<[AtomicU8]>);

/// A slot to fill. Dropping it without a commit leaves the slot in progress: readers see a gap (TP-112).
///
/// It keeps its epoch's memory mapped, so writing through it is always sound; after the lease has ended nobody reads what
/// is written.
#[derive(Debug)]
pub struct Claim {
    seq: Seq,
    index: SlotIndex,
    epoch: Epoch,
    pool: usize,
    len: u32,
    claimed_at: Nanos,
    committed: bool,
    /// Whether the slot is still this claim's to free.
    holds: bool,
    payload: SharedSpanMut,
    table: Arc<ClaimTable>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    seq: Seq,
    index: SlotIndex,
    state: WaitState,
}

#[derive(Debug, Clone, Copy)]
enum WaitState {
    Open,
    Committed(Announcement),
    Abandoned,
}

/// Writes the frames of one epoch. One process, one writer (TP-109).
pub struct RingWriter {
    regions: Arc<WriteRegions>,
    fence: Arc<Fence>,
    options: WriteOptions,
    flush: Option<FlushHook>,
    next: Seq,
    last_timestamp: u64,
    claims: Arc<ClaimTable>,
    /// Claims in sequence order whose announcement is not out yet.
    waiting: VecDeque<Waiting>,
    due: VecDeque<Announcement>,
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
        let slots = regions.spec().slots().get() as usize;
        Self {
            fence,
            options,
            flush: None,
            next: Seq::new(0),
            last_timestamp: 0,
            claims: Arc::new(ClaimTable((0..slots).map(|_| AtomicU8::new(FREE)).collect())),
            waiting: VecDeque::with_capacity(slots),
            due: VecDeque::with_capacity(slots),
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
        let len = payload.len();
        self.check_frame(layout, len, meta)?;
        let (seq, index, pool) = self.begin(len, now)?;
        let (_, region) = &self.regions.pools()[pool];
        let offset = payload_slot_offset(index, self.regions.pools()[pool].0.stride);
        // In bounds: the pool was mapped for this slot count and stride, and the payload fits the stride.
        let written = region.write(offset, payload);
        debug_assert!(written.is_ok(), "payload slot inside its pool");
        if self.waiting.is_empty() || self.options.unordered {
            let announcement = self.finish(seq, index, pool, len, layout, meta, now)?;
            self.due.push_back(announcement);
        } else {
            self.waiting.push_back(Waiting { seq, index, state: WaitState::Open });
            let announcement = self.finish(seq, index, pool, len, layout, meta, now)?;
            self.announce(seq, announcement);
        }
        Ok(seq)
    }

    /// Takes the next slot of the smallest pool that holds `len` bytes and marks it in progress.
    ///
    /// # Errors
    /// [`ClaimError`]; no sequence number was used.
    pub fn claim(&mut self, len: usize, now: Nanos) -> Result<Claim, ClaimError> {
        let (seq, index, pool) = self.begin(len, now)?;
        self.claims.set(index, HELD);
        self.waiting.push_back(Waiting { seq, index, state: WaitState::Open });
        let (geometry, region) = &self.regions.pools()[pool];
        let stride = geometry.stride;
        let payload = region
            .shared_span_mut(payload_slot_offset(index, stride), stride.get().into())
            // Unreachable by construction: the pool was mapped for every slot.
            .map_err(|_| ClaimError::TooLarge { len: len as u64, largest: 0 })?;
        Ok(Claim {
            seq,
            index,
            epoch: self.epoch(),
            pool,
            len: u32::try_from(len).unwrap_or(stride.get()),
            claimed_at: now,
            committed: false,
            holds: true,
            payload,
            table: Arc::clone(&self.claims),
        })
    }

    /// Commits a claim and queues its announcement. The payload is not touched.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn commit(
        &mut self,
        claim: &mut Claim,
        layout: &TensorLayout,
        mut meta: FrameMeta,
        now: Nanos,
    ) -> Result<Seq, CommitError> {
        self.own(claim)?;
        if claim.committed {
            return Err(CommitError::Committed);
        }
        meta.timestamp_ns = Some(meta.timestamp_ns.unwrap_or_else(|| claim.claimed_at.as_u64()));
        self.check_frame(layout, claim.len as usize, meta)?;
        self.fence.test(now).ok_or(CommitError::Fenced)?;
        let announcement =
            self.finish(claim.seq, claim.index, claim.pool, claim.len as usize, layout, meta, now)?;
        claim.committed = true;
        if !self.options.fixed_pool {
            claim.holds = false;
            self.claims.set(claim.index, FREE);
        }
        if self.options.unordered {
            self.waiting.retain(|waiting| waiting.seq != claim.seq);
            self.due.push_back(announcement);
        } else if !self.announce(claim.seq, announcement) {
            return Err(CommitError::OutOfWindow);
        }
        Ok(claim.seq)
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
        self.fence.test(now).ok_or(CommitError::Fenced)?;
        let slots = u64::from(self.slots().get());
        let behind = u64::from(claim.index.get()).wrapping_sub(self.next.get()) & (slots - 1);
        let seq = Seq::new(self.next.get().saturating_add(behind));
        if seq >= Seq::MAX {
            return Err(CommitError::NotQueueable);
        }
        self.mark_in_progress(seq, claim.index);
        self.next = Seq::new(seq.get() + 1);
        self.waiting.push_back(Waiting { seq, index: claim.index, state: WaitState::Open });
        claim.seq = seq;
        claim.committed = false;
        claim.claimed_at = now;
        self.settle();
        Ok(seq)
    }

    /// The next announcement that is due, in order.
    pub fn next_due(&mut self) -> Option<Announcement> {
        self.due.pop_front()
    }

    fn slots(&self) -> SlotCount {
        self.regions.spec().slots()
    }

    fn own(&self, claim: &Claim) -> Result<(), CommitError> {
        if Arc::ptr_eq(&claim.table, &self.claims) {
            return Ok(());
        }
        Err(CommitError::OtherEpoch { epoch: claim.epoch })
    }

    fn check_frame(&self, layout: &TensorLayout, len: usize, meta: FrameMeta) -> Result<(), CommitError> {
        let len = len as u64;
        if !layout.fits(len) {
            return Err(CommitError::Extent { extent: layout.extent_bytes(), len });
        }
        match meta.timestamp_ns {
            Some(found) if found < self.last_timestamp => {
                Err(CommitError::TimestampRegression { found, last: self.last_timestamp })
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, len: usize, now: Nanos) -> Result<(Seq, SlotIndex, usize), ClaimError> {
        self.fence.test(now).ok_or(ClaimError::Fenced)?;
        if self.next >= Seq::MAX {
            return Err(ClaimError::SeqExhausted);
        }
        let pool = self.select_pool(len)?;
        let seq = self.next;
        let index = self.slots().index_of(seq);
        match self.claims.get(index) {
            FREE => {}
            DROPPED => {
                self.settle();
                self.claims.set(index, FREE);
            }
            _ => return Err(ClaimError::SlotHeld),
        }
        self.mark_in_progress(seq, index);
        self.next = Seq::new(seq.get() + 1);
        Ok((seq, index, pool))
    }

    /// Smallest stride that fits, then lowest id (TP-101); the pools are in order of their ids.
    fn select_pool(&self, len: usize) -> Result<usize, ClaimError> {
        let pools = self.regions.pools();
        let fits = |pool: &PoolSpec| pool.stride.get() as usize >= len;
        pools
            .iter()
            .enumerate()
            .filter(|(_, (pool, _))| fits(pool))
            .min_by_key(|(_, (pool, _))| pool.stride)
            .map(|(position, _)| position)
            .ok_or_else(|| ClaimError::TooLarge {
                len: len as u64,
                largest: pools.iter().map(|(pool, _)| pool.stride.get().into()).max().unwrap_or(0),
            })
    }

    fn mark_in_progress(&self, seq: Seq, index: SlotIndex) {
        let word = self.regions.header().atomic_u64(header_slot_offset(index));
        // The ring was mapped for this slot count, and slots are 64-aligned.
        if let Ok(word) = word {
            CommitWriter::new(word).begin(seq.get());
        }
    }

    /// Steps 3 to 5 of table 7.1.
    #[allow(clippy::too_many_arguments, reason = "the facts of one frame, known at different times")]
    fn finish(
        &mut self,
        seq: Seq,
        index: SlotIndex,
        pool: usize,
        len: usize,
        layout: &TensorLayout,
        meta: FrameMeta,
        now: Nanos,
    ) -> Result<Announcement, CommitError> {
        let (geometry, region) = &self.regions.pools()[pool];
        let too_long = CommitError::TooLong { len: len as u64, capacity: geometry.stride.get().into() };
        let values_len = u32::try_from(len).map_err(|_| too_long)?;
        // Without a time of its own the frame gets the present one, but never an older one than its predecessor.
        let timestamp = meta.timestamp_ns.unwrap_or_else(|| now.as_u64().max(self.last_timestamp));
        let mut header = SlotHeader::new(index, geometry.pool_id, values_len, layout);
        header.timestamp_ns = Some(timestamp);
        header.meta_version = meta.meta_version;
        let mut slot = [0; SLOT_LEN];
        header.encode(&mut slot);
        let offset = header_slot_offset(index);
        if let Some(flush) = &mut self.flush
            && let Ok(span) = region.span(payload_slot_offset(index, geometry.stride), len as u64)
        {
            flush(span.as_ptr(), len);
        }
        let ring = self.regions.header();
        let written = ring.write(offset + 8, &slot[8..]);
        // Both hold: the ring was mapped for this slot count, and slots are 64-aligned.
        let (Ok(()), Ok(word)) = (written, ring.atomic_u64(offset)) else { return Err(too_long) };
        CommitWriter::new(word).commit(seq.get());
        self.last_timestamp = timestamp.max(self.last_timestamp);
        Ok(Announcement { seq, meta_version: meta.meta_version, trace_id: meta.trace_id.filter(|id| *id != 0) })
    }

    /// Files the announcement under its place in the order; false when younger ones are out already.
    fn announce(&mut self, seq: Seq, announcement: Announcement) -> bool {
        let place = self.waiting.binary_search_by_key(&seq, |waiting| waiting.seq);
        if let Ok(position) = place {
            self.waiting[position].state = WaitState::Committed(announcement);
        }
        self.settle();
        place.is_ok()
    }

    /// Notices dropped claims and moves what is in order to `due`.
    fn settle(&mut self) {
        for waiting in &mut self.waiting {
            if matches!(waiting.state, WaitState::Open) && self.claims.get(waiting.index) == DROPPED {
                self.claims.set(waiting.index, FREE);
                waiting.state = WaitState::Abandoned;
            }
        }
        let window = u64::from((self.slots().get() / 2).max(1));
        while let Some(front) = self.waiting.front() {
            match front.state {
                WaitState::Committed(announcement) => self.due.push_back(announcement),
                WaitState::Abandoned => {}
                // Held too long: the others go ahead (TP-449).
                WaitState::Open if self.next.get() - front.seq.get() > window => {}
                WaitState::Open => break,
            }
            self.waiting.pop_front();
        }
    }
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

impl ClaimTable {
    fn get(&self, index: SlotIndex) -> u8 {
        // Acquire: pairs with the Release of a claim dropped on another thread.
        self.0.get(index.get() as usize).map_or(FREE, |state| state.load(Ordering::Acquire))
    }

    fn set(&self, index: SlotIndex, value: u8) {
        if let Some(state) = self.0.get(index.get() as usize) {
            // Release: pairs with the Acquire in `get`.
            state.store(value, Ordering::Release);
        }
    }
}

impl Claim {
    /// Its frame number. Changes when the claim is queued again.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Index of its header slot.
    #[must_use]
    pub fn index(&self) -> SlotIndex {
        self.index
    }

    /// Bytes the slot can hold: the pool's stride.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.payload.as_span_mut().len()
    }

    /// Bytes of the payload that will be committed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Changes the payload's length (TP-446).
    ///
    /// # Errors
    /// [`CommitError::TooLong`] above the capacity; the length stays.
    pub fn set_len(&mut self, len: usize) -> Result<(), CommitError> {
        let capacity = self.capacity();
        match u32::try_from(len) {
            Ok(value) if len <= capacity => {
                self.len = value;
                Ok(())
            }
            _ => Err(CommitError::TooLong { len: len as u64, capacity: capacity as u64 }),
        }
    }

    /// The whole slot, to write into. Devices take its address from [`SpanMut::as_mut_ptr`].
    #[must_use]
    pub fn payload(&self) -> SpanMut<'_> {
        self.payload.as_span_mut()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.holds {
            self.table.set(self.index, DROPPED);
        }
    }
}
