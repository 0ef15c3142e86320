//! A block in plain memory, for tests and models.

use tidegate_shm::{
    clock::Nanos,
    doorbell::{BellWord, LoadU32, Waited},
    sync::{AtomicU32, AtomicU64, Ordering},
};

use super::{
    codec::{InitState, ProcessKey, Row, SlotIndex},
    config::{CoreConfig, OnHeld, Orphan, Overflow, Stall, SyncPolicy, Timing, WaitStrategy},
    spinlock::{Doorway, LockWords},
    words::{
        Control32, Control64, Load, Row32, Row64, RowNames, Slot32, Slot64, SlotWords, Sync32, Sync64, Word,
        Words, WriterWords,
    },
};

/// The words of a block.
#[derive(Debug)]
pub(super) struct Memory {
    control64: Vec<AtomicU64>,
    control32: Vec<Word32>,
    slots64: Vec<Vec<AtomicU64>>,
    slots32: Vec<Vec<Word32>>,
    sync64: Vec<AtomicU64>,
    sync32: Vec<Word32>,
    rows64: Vec<Vec<AtomicU64>>,
    rows32: Vec<Vec<Word32>>,
}

/// A 32-bit word that can be slept on.
#[derive(Debug)]
pub(super) struct Word32 {
    value: AtomicU32,
    #[cfg(loom)]
    queue: tidegate_shm::sync::Mutex<()>,
    #[cfg(loom)]
    woken: tidegate_shm::sync::Condvar,
}

impl Word32 {
    pub(super) fn new(value: u32) -> Self {
        Self {
            value: AtomicU32::new(value),
            #[cfg(loom)]
            queue: tidegate_shm::sync::Mutex::new(()),
            #[cfg(loom)]
            woken: tidegate_shm::sync::Condvar::new(),
        }
    }
}

impl Memory {
    /// A fresh block that is READY and has no writer.
    pub(super) fn new(config: &CoreConfig) -> Self {
        let words64 = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let words32 = |count: usize| (0..count).map(|_| Word32::new(0)).collect::<Vec<_>>();
        let slots = 0..config.slot_count.get();
        let rows = 0..config.max_consumers;
        let memory = Self {
            control64: words64(Control64::ALL.len()),
            control32: words32(Control32::ALL.len()),
            slots64: slots.clone().map(|_| words64(Slot64::ALL.len())).collect(),
            slots32: slots.map(|_| words32(Slot32::ALL.len())).collect(),
            sync64: words64(Sync64::ALL.len()),
            sync32: words32(Sync32::ALL.len()),
            rows64: rows.clone().map(|_| words64(Row64::ALL.len())).collect(),
            rows32: rows.map(|_| words32(Row32::ALL.len())).collect(),
        };
        let first = config.first_slot.0;
        let indices =
            [Control64::WriteIndex, Control64::CommitIndex, Control64::ReadIndex, Control64::FloorIntent];
        for field in indices {
            memory.control64_mut(field).store(first, Ordering::Relaxed);
        }
        Word::store(memory.control32_mut(Control32::InitState), InitState::Ready as u32, Ordering::Relaxed);
        memory
    }
}

/// The words of a shared lock, and its doorways: one for each process.
#[derive(Debug)]
pub(super) struct Lock {
    long: [AtomicU64; 3],
    short: [Word32; 5],
    pub(super) doorways: [Doorway; 2],
}

impl Lock {
    /// A free lock.
    pub(super) fn new() -> Self {
        Self {
            long: [0, 0, 0].map(AtomicU64::new),
            short: [0, 0, 0, 0, 0].map(Word32::new),
            doorways: [Doorway::new(), Doorway::new()],
        }
    }

    pub(super) fn words(&self) -> LockWords<&AtomicU64, &Word32> {
        let [owner, generation, acquired_ns] = &self.long;
        let [owner_thread, recursion, wake_seq, waiters, flags] = &self.short;
        LockWords { owner, generation, acquired_ns, owner_thread, recursion, wake_seq, waiters, flags }
    }
}

/// A lossless ring for one reader.
pub(super) fn config(sync: SyncPolicy, slots: u32) -> CoreConfig {
    CoreConfig {
        sync,
        overflow: Overflow::Block,
        orphan: Orphan::Retain,
        on_held: OnHeld::Wait,
        slot_count: slots.try_into().unwrap(),
        slot_size: 64,
        max_consumers: 2,
        first_slot: super::codec::SlotId(0),
        stall: Stall::Wait,
        wait: WaitStrategy::Hybrid,
        timing: Timing::default(),
    }
}

pub(super) fn key(word: u64) -> ProcessKey {
    ProcessKey::from_word(word).unwrap()
}

pub(super) const NAMES: RowNames = RowNames { uid: [1; 40], name: [2; 32], pid_namespace: 3 };

impl Words for Memory {
    type C64<'a> = &'a AtomicU64;
    type C32<'a> = &'a Word32;
    type Slot<'a> = Slot<'a>;
    type S64<'a> = &'a AtomicU64;
    type S32<'a> = &'a Word32;

    fn control64(&self, field: Control64) -> &AtomicU64 {
        &self.control64[field as usize]
    }
    fn control32(&self, field: Control32) -> &Word32 {
        &self.control32[field as usize]
    }
    fn slot(&self, slot: SlotIndex) -> Slot<'_> {
        Slot { words64: &self.slots64[slot.0 as usize], words32: &self.slots32[slot.0 as usize] }
    }
    fn sync64(&self, field: Sync64) -> &AtomicU64 {
        &self.sync64[field as usize]
    }
    fn sync32(&self, field: Sync32) -> &Word32 {
        &self.sync32[field as usize]
    }
    fn row64(&self, row: Row, field: Row64) -> &AtomicU64 {
        &self.rows64[row.0 as usize][field as usize]
    }
    fn row32(&self, row: Row, field: Row32) -> &Word32 {
        &self.rows32[row.0 as usize][field as usize]
    }
    fn write_names(&self, _row: Row, _names: &RowNames) {}
}

impl WriterWords for Memory {
    type W64<'a> = &'a AtomicU64;
    type W32<'a> = &'a Word32;
    type SlotMut<'a> = Slot<'a>;

    fn control64_mut(&self, field: Control64) -> &AtomicU64 {
        self.control64(field)
    }
    fn control32_mut(&self, field: Control32) -> &Word32 {
        self.control32(field)
    }
    fn slot_mut(&self, slot: SlotIndex) -> Slot<'_> {
        self.slot(slot)
    }
}

/// The words of one slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<'a> {
    words64: &'a [AtomicU64],
    words32: &'a [Word32],
}

impl<'a> SlotWords for Slot<'a> {
    type W64 = &'a AtomicU64;
    type W32 = &'a Word32;

    fn word64(self, field: Slot64) -> &'a AtomicU64 {
        &self.words64[field as usize]
    }
    fn word32(self, field: Slot32) -> &'a Word32 {
        &self.words32[field as usize]
    }
}

/// The part of an order that a failed exchange has.
fn failure(order: Ordering) -> Ordering {
    match order {
        Ordering::Acquire | Ordering::AcqRel => Ordering::Acquire,
        _ => Ordering::Relaxed,
    }
}

impl Load<u64> for &AtomicU64 {
    fn load(self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }
}

impl Word<u64> for &AtomicU64 {
    fn store(self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }
    fn compare_exchange(self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        AtomicU64::compare_exchange(self, current, new, order, failure(order))
    }
    fn fetch_add(self, value: u64, order: Ordering) -> u64 {
        AtomicU64::fetch_add(self, value, order)
    }
}

impl Load<u32> for &Word32 {
    fn load(self, order: Ordering) -> u32 {
        self.value.load(order)
    }
}

impl Word<u32> for &Word32 {
    fn store(self, value: u32, order: Ordering) {
        self.value.store(value, order);
    }
    fn compare_exchange(self, current: u32, new: u32, order: Ordering) -> Result<u32, u32> {
        self.value.compare_exchange(current, new, order, failure(order))
    }
    fn fetch_add(self, value: u32, order: Ordering) -> u32 {
        self.value.fetch_add(value, order)
    }
}

impl LoadU32 for &Word32 {
    fn load_relaxed(&self) -> u32 {
        self.value.load(Ordering::Relaxed)
    }
}

/// The kernel's futex as its manual promises it: comparing and going to sleep are one step for whoever wakes.
#[cfg(loom)]
impl BellWord for &Word32 {
    fn sleep(&self, expected: u32, _deadline: Nanos) -> Waited {
        let queue = self.queue.lock().unwrap();
        if self.value.load(Ordering::Relaxed) == expected {
            drop(self.woken.wait(queue).unwrap());
        }
        Waited::Woken
    }

    fn wake_all(&self) {
        let queue = self.queue.lock().unwrap();
        self.woken.notify_all();
        drop(queue);
    }
}

/// One thread only: a sleep is time that passes, and what happens meanwhile.
#[cfg(not(loom))]
impl BellWord for &Word32 {
    fn sleep(&self, expected: u32, deadline: Nanos) -> Waited {
        super::tests::world::sleep_while(|| self.load_relaxed() == expected, deadline);
        Waited::Woken
    }

    fn wake_all(&self) {
        super::tests::world::note_wake();
    }
}
