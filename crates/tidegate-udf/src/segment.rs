//! The segments as mappings: one side's own and the one of its peer.

use std::ops::Range;

use tidegate_shm::{
    clock::Nanos,
    doorbell::{BellWord, Ringer, Waiter},
    region::{GuardedRegion, Record, RecordMut, Row, RowMut, SharedSpan, SharedSpanMut, Table},
    sync::Ordering,
};

use crate::{
    ring::{Access, Own, Peer},
    wire::{
        frame::FLAGS_AT,
        ids::{FenceSlot, Generation, PartitionId},
        segment::{BELL_AT, FENCE_SLOT, SEGMENT_HEADER, WAITERS_AT, Word},
    },
};

/// Bytes of the header as a type.
const HEADER: usize = SEGMENT_HEADER as usize;

/// The segment that this side writes. Clones are handles of one mapping.
#[derive(Debug, Clone)]
pub struct OwnSegment {
    header: RecordMut<HEADER>,
    ring: SharedSpanMut,
}

impl OwnSegment {
    /// The segment in a mapping that may be written as a whole.
    ///
    /// # Errors
    /// The mapping is shorter or may not be written.
    pub fn new(region: &GuardedRegion, capacity: u64) -> Access<Self> {
        let header = region.record_mut(0)?;
        Ok(Self { header, ring: region.shared_span_mut(SEGMENT_HEADER, capacity)? })
    }

    /// The words in front of the ring.
    pub fn header(&self) -> RowMut<'_, HEADER> {
        self.header.row()
    }

    /// A word as this side last stored it.
    pub fn load(&self, word: Word) -> u64 {
        // Relaxed: this side's own word.
        let order = Ordering::Relaxed;
        let row = self.header.row();
        match word {
            Word::Head => row.u64::<{ Word::Head as usize }>().load(order),
            Word::Batches => row.u64::<{ Word::Batches as usize }>().load(order),
            Word::Consumed => row.u64::<{ Word::Consumed as usize }>().load(order),
            Word::ConsumedBatches => row.u64::<{ Word::ConsumedBatches as usize }>().load(order),
            Word::GrantPos => row.u64::<{ Word::GrantPos as usize }>().load(order),
            Word::GrantBatches => row.u64::<{ Word::GrantBatches as usize }>().load(order),
        }
    }
}

impl Own for OwnSegment {
    fn store(&self, word: Word, value: u64, order: Ordering) {
        let row = self.header.row();
        let word = match word {
            Word::Head => row.u64::<{ Word::Head as usize }>(),
            Word::Batches => row.u64::<{ Word::Batches as usize }>(),
            Word::Consumed => row.u64::<{ Word::Consumed as usize }>(),
            Word::ConsumedBatches => row.u64::<{ Word::ConsumedBatches as usize }>(),
            Word::GrantPos => row.u64::<{ Word::GrantPos as usize }>(),
            Word::GrantBatches => row.u64::<{ Word::GrantBatches as usize }>(),
        };
        word.store(value, order);
    }

    fn store_flags(&self, offset: u64, flags: u32, order: Ordering) -> Access<()> {
        let ring = self.ring.as_span_mut();
        let block = ring.sub_mut(block(offset))?;
        RowMut::<BLOCK>::of(block)?.u32::<{ FLAGS_AT as usize }>().store(flags, order);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Access<()> {
        self.ring.as_span_mut().write_at(offset as usize, bytes)
    }
}

/// The segment that the peer writes. Clones are handles of one mapping.
#[derive(Debug, Clone)]
pub struct PeerSegment {
    header: Record<HEADER>,
    ring: SharedSpan,
}

impl PeerSegment {
    /// The segment in a mapping.
    ///
    /// # Errors
    /// The mapping is shorter.
    pub fn new(region: &GuardedRegion, capacity: u64) -> Access<Self> {
        Ok(Self { header: region.record(0)?, ring: region.shared_span(SEGMENT_HEADER, capacity)? })
    }

    /// The words in front of the ring.
    pub fn header(&self) -> Row<'_, HEADER> {
        self.header.row()
    }
}

impl Peer for PeerSegment {
    fn load(&self, word: Word, order: Ordering) -> u64 {
        let row = self.header.row();
        let word = match word {
            Word::Head => row.u64::<{ Word::Head as usize }>(),
            Word::Batches => row.u64::<{ Word::Batches as usize }>(),
            Word::Consumed => row.u64::<{ Word::Consumed as usize }>(),
            Word::ConsumedBatches => row.u64::<{ Word::ConsumedBatches as usize }>(),
            Word::GrantPos => row.u64::<{ Word::GrantPos as usize }>(),
            Word::GrantBatches => row.u64::<{ Word::GrantBatches as usize }>(),
        };
        word.load(order)
    }

    fn load_flags(&self, offset: u64, order: Ordering) -> Access<u32> {
        let ring = self.ring.as_span();
        let block = ring.sub(block(offset))?;
        Ok(Row::<BLOCK>::of(block)?.u32::<{ FLAGS_AT as usize }>().load(order))
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Access<()> {
        self.ring.as_span().read_at(offset as usize, bytes)
    }

    fn append(&self, offset: u64, len: usize, bytes: &mut Vec<u8>) -> Access<()> {
        self.ring.as_span().append_to(offset as usize, len, bytes)
    }
}

/// Both segments of a session, seen from one side: the bells that tell the other that something changed.
#[derive(Debug, Clone)]
pub struct Link {
    /// The segment that this side writes.
    pub own: OwnSegment,
    /// The segment of the other side.
    pub peer: PeerSegment,
}

impl Link {
    /// Tells the other side that something in this side's segment changed; to be called after the change (VX-320).
    pub fn ring_bell(&self) {
        let (own, peer) = (self.own.header(), self.peer.header());
        Ringer::new(own.u32::<BELL_AT>(), peer.u32::<WAITERS_AT>()).ring();
    }

    /// Sleeps until `ready` says true (true), or the deadline passes (false); the other side's bell wakes it (VX-321).
    pub fn wait_until(&self, deadline: Nanos, ready: impl FnMut() -> bool) -> bool {
        let (own, peer) = (self.own.header(), self.peer.header());
        Waiter::new(peer.u32::<BELL_AT>(), own.u32::<WAITERS_AT>()).wait_until(deadline, ready)
    }

    /// As [`Link::wait_until`], but sleeps once at most and may end early: for a side whose peer may ring without reason.
    pub fn sleep_once(&self, deadline: Nanos, ready: impl Fn() -> bool) -> bool {
        let (own, peer) = (self.own.header(), self.peer.header());
        let waiter = Waiter::new(peer.u32::<BELL_AT>(), own.u32::<WAITERS_AT>());
        let seen = waiter.observe();
        if ready() {
            return true;
        }
        let _ = waiter.wait(seen, deadline);
        ready()
    }

    /// Wakes this side's own threads that sleep, without moving the bell (VX-325).
    pub fn wake_own(&self) {
        self.peer.header().u32::<BELL_AT>().wake_all();
    }
}

/// The fence words, seen by a worker.
#[derive(Debug, Clone)]
pub struct FenceView {
    slots: Table<{ FENCE_SLOT as usize }>,
}

impl FenceView {
    /// The slots of F.
    ///
    /// # Errors
    /// The mapping is shorter.
    pub fn new(region: &GuardedRegion, slots: u32) -> Access<Self> {
        Ok(Self { slots: region.table(SEGMENT_HEADER, slots)? })
    }

    /// Whether this generation of this partition may write now (VX-230). `now` is CLOCK_BOOTTIME.
    pub fn is_current(
        &self,
        slot: FenceSlot,
        generation: Generation,
        partition: PartitionId,
        now: Nanos,
    ) -> bool {
        let Some(slot) = self.slots.row(slot.0.into()) else { return false };
        // Acquire: pairs with the release of the word when the partition was acquired; the other fields are behind it.
        if slot.u64::<0x00>().load(Ordering::Acquire) != generation.0 {
            return false;
        }
        // Relaxed: bound once, before the word.
        if slot.u32::<0x18>().load(Ordering::Relaxed) != partition.0 {
            return false;
        }
        // Relaxed: an older deadline is an earlier one.
        now.0 < slot.u64::<0x08>().load(Ordering::Relaxed)
    }
}

/// Bytes of a block that a header fills.
const BLOCK: usize = 128;

/// The block at `offset`; that it is inside is for the span to check. The crate compiles for 64-bit targets only.
fn block(offset: u64) -> Range<usize> {
    offset as usize..(offset as usize).saturating_add(BLOCK)
}
