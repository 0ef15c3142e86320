//! Segment F: the fence words of all partitions, where every worker can read them (3.2).

use thiserror::Error;
use tidegate_shm::{
    clock::{Nanos, boottime_now},
    region::{AccessError, MapError, RowMut, SealError, SealedMemory, TableMut},
    sync::{Arc, AtomicU64, Ordering},
};
use tidegate_udf::wire::{
    ids::{FenceSlot, Generation, PartitionId},
    segment::{FENCE_READY_AT, FENCE_SLOT, SEGMENT_HEADER, encode_fence, fence_len},
};

use super::{Bells, FenceWords, Guard, Reason, WriteKind};

/// Why a fence could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FenceError {
    /// The memory could not be made.
    #[error(transparent)]
    Memory(#[from] SealError),
    /// It could not be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A defect: the mapping is shorter than what was asked for.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Every slot is bound to a partition.
    #[error("all {slots} fence slots are bound to partitions; restart the vertex to have more")]
    NoSlot {
        /// How many there are.
        slots: u32,
    },
}

/// Segment F of a vertex.
#[derive(Debug)]
pub struct FenceTable {
    memory: Arc<SealedMemory>,
    shared: Arc<Shared>,
    /// The partition of each slot that is bound.
    bound: Vec<PartitionId>,
}

impl FenceTable {
    /// Makes F with so many slots, sealed so that no other process can write it (VX-101).
    ///
    /// # Errors
    /// There is not enough memory, or the kernel is too old.
    pub fn create(instance: u64, slots: u32) -> Result<Self, FenceError> {
        let len = fence_len(slots);
        let memory = SealedMemory::create("tidegate-fence", len)?;
        let region = memory.map(0..len)?;
        region.span_mut(0, 44)?.write_at(0, &encode_fence(instance, slots))?;
        let table = region.table_mut(SEGMENT_HEADER, slots)?;
        // Release: the header is there.
        region.atomic_u32_mut(FENCE_READY_AT as u64)?.store(1, Ordering::Release);
        memory.seal_writers()?;
        let shared = Arc::new(Shared { slots: table, bells: Bells::default(), refused: Default::default() });
        Ok(Self { memory: Arc::new(memory), shared, bound: Vec::new() })
    }

    /// The bells that every revoke rings.
    pub fn bells(&self) -> Bells {
        self.shared.bells.clone()
    }

    /// The memory, to be passed to workers.
    pub fn memory(&self) -> Arc<SealedMemory> {
        self.memory.clone()
    }

    /// Permits that were refused, of all partitions.
    pub fn refused(&self) -> [(WriteKind, u64); WriteKind::ALL.len()] {
        // Relaxed: for people.
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        WriteKind::ALL.map(|kind| (kind, self.shared.refused.get(kind as usize).map_or(0, count)))
    }

    /// Lets `generation` write to a partition, in the slot that the partition had before or in the next one (VX-110).
    ///
    /// # Errors
    /// [`FenceError::NoSlot`].
    pub fn bind(
        &mut self,
        partition: PartitionId,
        generation: Generation,
    ) -> Result<(FenceSlot, Guard<SlotWords>), FenceError> {
        let known = self.bound.iter().position(|&bound| bound == partition);
        let index = known.unwrap_or(self.bound.len());
        let slot = u16::try_from(index).ok().filter(|&slot| self.shared.slots.row(slot.into()).is_some());
        let slot = FenceSlot(slot.ok_or(FenceError::NoSlot { slots: self.shared.slots.rows() })?);
        if known.is_none() {
            self.bound.push(partition);
        }
        let words = SlotWords { shared: self.shared.clone(), slot };
        let row = words.row();
        // Relaxed: the release of the word orders them.
        row.u32::<0x18>().store(partition.0, Ordering::Relaxed);
        row.u64::<0x08>().store(u64::MAX, Ordering::Relaxed);
        row.u64::<0x10>().store(0, Ordering::Relaxed);
        // Release: pairs with the loads of permits and workers; the other fields are there.
        row.u64::<0x00>().store(generation.0, Ordering::Release);
        Ok((slot, Guard::new(words, generation, boottime_now)))
    }
}

impl Guard<SlotWords> {
    /// Lets the generation write until `deadline`, on CLOCK_BOOTTIME; without a call there is no deadline (VX-716). Only whoever
    /// renews the lease calls it.
    pub fn extend(&self, deadline: Nanos) {
        // Relaxed: who sees the old one stops early.
        self.words.row().u64::<0x08>().store(deadline.0, Ordering::Relaxed);
    }

    /// Why and when the slot was revoked last, for people.
    pub fn last_revoke(&self) -> Option<(Reason, Nanos)> {
        let row = self.words.row();
        // Relaxed: for people.
        let code = row.u32::<0x1C>().load(Ordering::Relaxed);
        let reason = Reason::ALL.into_iter().find(|reason| *reason as u32 == code)?;
        Some((reason, Nanos(row.u64::<0x20>().load(Ordering::Relaxed))))
    }

    /// Time until the deadline; `None` without one.
    pub fn lease_left(&self) -> Option<Nanos> {
        let deadline = self.words.deadline();
        (deadline.0 != u64::MAX).then(|| deadline.saturating_sub(boottime_now()))
    }
}

/// What all guards of a vertex share.
#[derive(Debug)]
struct Shared {
    slots: TableMut<{ FENCE_SLOT as usize }>,
    bells: Bells,
    /// Permits that were refused, by the number of their kind.
    refused: [AtomicU64; WriteKind::ALL.len()],
}

/// The words of one slot of F.
#[derive(Debug, Clone)]
pub struct SlotWords {
    shared: Arc<Shared>,
    slot: FenceSlot,
}

impl SlotWords {
    fn row(&self) -> RowMut<'_, { FENCE_SLOT as usize }> {
        // `bind` found the slot in the table.
        self.shared.slots.row(self.slot.0.into()).unwrap_or_else(RowMut::nowhere)
    }
}

impl FenceWords for SlotWords {
    fn word(&self, order: Ordering) -> u64 {
        self.row().u64::<0x00>().load(order)
    }

    fn exchange(&self, current: u64, new: u64, order: Ordering) -> bool {
        self.row().u64::<0x00>().compare_exchange(current, new, order).is_ok()
    }

    fn deadline(&self) -> Nanos {
        // Relaxed: an older deadline is an earlier one.
        Nanos(self.row().u64::<0x08>().load(Ordering::Relaxed))
    }

    fn note(&self, reason: Reason, at: Nanos) {
        let row = self.row();
        // Relaxed: for people.
        row.u32::<0x1C>().store(reason as u32, Ordering::Relaxed);
        row.u64::<0x20>().store(at.0, Ordering::Relaxed);
    }

    fn ring(&self) {
        self.shared.bells.ring();
    }

    fn refused(&self, kind: WriteKind) {
        if let Some(count) = self.shared.refused.get(kind as usize) {
            // Relaxed: for people.
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
